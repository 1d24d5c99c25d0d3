//! The job: one GLM request with its life.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    AttemptNo, BatchId, Due, Face, Failure, GlmSettings, JobId, KeyId, OnInterrupted,
    PassedHeaders, RequestId, Reserve, RetrySettings, Seq, Session, SessionId, SessionTag,
    Sessions, SlotId, Timestamp, TraceOrigin, Wait, in_head, private_or_default, private_or_none,
};

/// The status of a job, as the API shows it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Waiting: for its turn, for a retry, or for its `run_at`.
    Pending,
    /// Its call is open.
    Processing,
    /// Done; the response is stored.
    Completed,
    /// The dead letter: kept, inspectable, retryable by hand.
    Failed,
    /// Cancelled by a caller.
    Cancelled,
}

impl JobStatus {
    /// All of them, in the order in which counts are shown.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Processing,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name used in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the name used in the API.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// How a response of the responses face stands, in OpenAI's word.
    #[must_use]
    pub const fn of_response(self) -> &'static str {
        match self {
            Self::Pending => "queued",
            Self::Processing => "in_progress",
            Self::Completed | Self::Failed | Self::Cancelled => self.name(),
        }
    }

    /// Whether nothing more happens to the job unless somebody asks.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// The states of the transition table: finer than the status, since a pending job may have an
/// attempt on record that has not been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Pending, without an open attempt.
    Waiting,
    /// Pending, but other jobs have to be completed first.
    Blocked,
    /// Pending, but parked until an operator decides.
    Parked,
    /// Pending, with the next attempt on record, not known to be sent.
    Staged,
    /// Processing: the attempt is on record as sent.
    Running,
    /// Done.
    Completed,
    /// Dead letter.
    Failed,
    /// Cancelled.
    Cancelled,
}

/// How far an open attempt has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttemptPhase {
    /// On record before any byte may leave.
    Staged,
    /// Sent.
    Started,
}

/// An attempt that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenAttempt {
    /// Its number; the fence.
    pub no: AttemptNo,
    /// How far it has got.
    pub phase: AttemptPhase,
    /// When it was staged, or, once started, when it was sent.
    pub at: Timestamp,
    /// The slot it runs in; 0 while staged.
    pub slot: SlotId,
    /// Its reserve, when budgets are on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Reserve>,
}

/// A job that waits until somebody looks at it: its attempt was interrupted and may have been billed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Parked {
    /// Since when.
    pub since: Timestamp,
    /// The attempt that was interrupted.
    pub attempt: AttemptNo,
}

/// A task of GLM's asynchronous API that an open attempt is waiting for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AsyncTask {
    /// GLM's id of the task.
    pub id: String,
    /// It was left in an orderly shutdown, not in a crash.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left_open: bool,
    /// The digest of base URL and key that made it ([`super::Endpoint::digest`]): only that account
    /// can fetch it.
    pub account: String,
}

/// The most tokens that a call can come to, as far as its request tells. What the request leaves open
/// is filled in when it is sent, by the settings and the model of that moment
/// ([`crate::money::worst::tokens`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WorstCase {
    /// Of the prompt; 0: not known; [`WorstCase::CONTEXT`]: all that the model takes.
    pub prompt: u32,
    /// Of the answer; or [`WorstCase::CONFIGURED`], or [`WorstCase::MODEL`].
    pub completion: u32,
}

impl WorstCase {
    /// A prompt that nothing but the model's context bounds.
    pub const CONTEXT: u32 = u32::MAX;
    /// An answer that `glm.max_tokens` bounds, or the model if that is not set.
    pub const CONFIGURED: u32 = u32::MAX;
    /// An answer that the model bounds.
    pub const MODEL: u32 = u32::MAX - 1;
}

/// A job, without the bodies of its request and response (those are read when they are needed).
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Its id.
    #[serde(skip_serializing_if = "in_head")]
    pub id: JobId,
    /// Its place in line; given by the store at insertion, 0 until then.
    #[serde(skip_serializing)]
    #[schemars(skip)]
    pub seq: Seq,
    /// Whose it is.
    #[serde(skip_serializing_if = "in_head")]
    pub user_id: String,
    /// What it is about, in the submitter's own terms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_id: Option<String>,
    /// The session that it is a call of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// What GLM is told as its session, where that is not `session` itself.
    #[serde(default, skip_serializing_if = "private_or_default")]
    #[schemars(skip)]
    pub told_session: Option<SessionId>,
    /// The batch that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<BatchId>,
    /// The model to call, by its canonical name.
    #[serde(skip_serializing_if = "in_head")]
    pub model: String,
    /// How the submitter spelled it, where that is not its canonical name: so it goes to GLM.
    #[serde(default, skip_serializing_if = "private_or_default")]
    #[schemars(skip)]
    pub spelled: Option<String>,
    /// The face of GLM that its request is for, where that is not the chat.
    #[serde(default, skip_serializing_if = "Face::is_chat")]
    pub face: Face,
    /// Higher is more urgent.
    #[serde(skip_serializing_if = "in_head")]
    pub priority: i32,
    /// Where it is in its life.
    #[serde(skip_serializing_if = "in_head")]
    pub status: JobStatus,
    /// Attempts made or staged so far: the number of the latest one. Never goes back.
    #[serde(rename = "attemptCount", skip_serializing_if = "in_head")]
    pub attempts: AttemptNo,
    /// The attempt that has not ended.
    #[serde(default, skip_serializing_if = "private_or_default")]
    #[schemars(skip)]
    pub open: Option<OpenAttempt>,
    /// Retries used up, of `max_retries`.
    #[serde(skip_serializing_if = "in_head")]
    pub retry_count: u32,
    /// How often a failure of the transient kind is retried.
    #[serde(skip_serializing_if = "in_head")]
    pub max_retries: u32,
    /// Throttle answers it has met; they use up no retry, but are bounded, too.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub throttles: u32,
    /// Answers of it that could not be read: each may have been paid for.
    #[serde(default, skip_serializing_if = "private_or_default")]
    #[schemars(skip)]
    pub unread: u32,
    /// Crashes in a row in which it was in flight.
    #[serde(default, skip_serializing_if = "private_or_default")]
    #[schemars(skip)]
    pub interruptions: u32,
    /// When the next retry is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_retry_at: Option<Wait>,
    /// Not before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Timestamp>,
    /// Fails if not done by this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// The total time of one call, in milliseconds, instead of the configured one.
    #[serde(rename = "timeout", default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The latest failure; on a pending job the reason of its retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// When it was accepted.
    #[serde(skip_serializing_if = "in_head")]
    pub created_at: Timestamp,
    /// When it reached a terminal status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processed_at: Option<Timestamp>,
    /// The submitter's key: the same key of the same user gives the same job.
    #[serde(default, skip_serializing_if = "private_or_default")]
    #[schemars(skip)]
    pub idempotency_key: Option<String>,
    /// The submitter's own JSON, kept as it came.
    #[serde(default, skip_serializing_if = "private_or_none")]
    #[schemars(skip)]
    pub metadata: Option<Box<serde_json::value::RawValue>>,
    /// The fallback model that the latest attempt was sent to, or that served the job; `None`: its
    /// own model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_by: Option<String>,
    /// The model that answered last, as the answer names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<String>,
    /// The jobs that have to be completed before it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<JobId>,
    /// Those of them that are not completed yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<JobId>,
    /// Whether other jobs may wait for it: its end looks for them only then.
    #[serde(default, skip_serializing_if = "private_or_default")]
    #[schemars(skip)]
    pub has_dependents: bool,
    /// Why it is parked; `None`: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<Parked>,
    /// What becomes of it when its call is interrupted; `None`: as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_interrupted: Option<OnInterrupted>,
    /// The process whose connection takes its answer: when that is gone, nobody does, and the job is given up.
    #[serde(default, skip_serializing_if = "private_or_default")]
    #[schemars(skip)]
    pub bound_to: Option<u64>,
    /// The client key by which it was handed in; `None`: an operator or a program of the machine did.
    #[serde(default, skip_serializing_if = "private_or_none")]
    #[schemars(skip)]
    pub key_id: Option<KeyId>,
    /// Where its end is to be told. The URL may hold a token.
    #[serde(default, skip_serializing_if = "private_or_default")]
    #[schemars(skip)]
    pub callback_url: Option<String>,
    /// The `request_id` that its submitter chose, for its first attempt; `None`: none, or one that was used before.
    #[serde(default, skip_serializing_if = "private_or_default")]
    #[schemars(skip)]
    pub request_id: Option<RequestId>,
    /// Headers of its client that GLM gets.
    #[serde(default, skip_serializing_if = "private_or_default")]
    #[schemars(skip)]
    pub headers: PassedHeaders,
    /// The span of its submitter that it is done for, where that was said.
    #[serde(default, skip_serializing_if = "private_or_none")]
    #[schemars(skip)]
    pub trace: Option<Box<TraceOrigin>>,
    /// The job whose response it goes on from, where its submitter named that by an id of ours: its request has GLM's.
    #[serde(default, skip_serializing_if = "private_or_none")]
    #[schemars(skip)]
    pub previous: Option<JobId>,
    /// GLM's task of the open attempt, when it was sent asynchronously.
    #[serde(default, skip_serializing_if = "private_or_default")]
    #[schemars(skip)]
    pub task: Option<AsyncTask>,
    /// Its request and response were pruned: there is nothing to send any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bodies_pruned: bool,
    /// What came instead of an answer is stored in the answer's place.
    #[serde(default, skip_serializing_if = "private_or_default")]
    #[schemars(skip)]
    pub has_refusal: bool,
    /// What prompt and answer may come to, in tokens: a rough figure for pacing and fairness.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub estimated_tokens: u32,
    /// The most tokens that prompt and answer can come to: what budgets reserve for.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub worst: WorstCase,
    /// What it costs is not known: its model has no price, or GLM did not say what it billed. What was
    /// found when it was accepted, then what its latest billed attempt showed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unpriced: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(super) const fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Job {
    /// The `request_id` of one of its attempts: fresh for each, the submitter's own for the first.
    #[must_use]
    pub fn request_id(&self, attempt: AttemptNo) -> RequestId {
        let chosen = self.request_id.as_ref().filter(|_| attempt == AttemptNo(1));
        let own = || RequestId::new(self.id, attempt);
        chosen.cloned().unwrap_or_else(own)
    }

    /// A job that waits, of nothing but its submission: no attempt, no condition, the default number of
    /// retries. Whoever wants more of it says so by name.
    #[must_use]
    pub fn new(
        id: JobId,
        user_id: impl Into<String>,
        model: impl Into<String>,
        created_at: Timestamp,
    ) -> Self {
        Self {
            id,
            seq: Seq(0),
            user_id: user_id.into(),
            content_id: None,
            session: None,
            told_session: None,
            batch_id: None,
            model: model.into(),
            spelled: None,
            face: Face::Chat,
            priority: 0,
            status: JobStatus::Pending,
            attempts: AttemptNo(0),
            open: None,
            retry_count: 0,
            max_retries: RetrySettings::default().max_retries,
            throttles: 0,
            unread: 0,
            interruptions: 0,
            next_retry_at: None,
            run_at: None,
            deadline: None,
            timeout_ms: None,
            error: None,
            created_at,
            processed_at: None,
            idempotency_key: None,
            metadata: None,
            served_by: None,
            answered_by: None,
            after: Vec::new(),
            waits_for: Vec::new(),
            has_dependents: false,
            parked: None,
            on_interrupted: None,
            bound_to: None,
            key_id: None,
            callback_url: None,
            request_id: None,
            headers: PassedHeaders::default(),
            trace: None,
            previous: None,
            task: None,
            bodies_pruned: false,
            has_refusal: false,
            estimated_tokens: 0,
            worst: WorstCase::default(),
            unpriced: false,
        }
    }

    /// Whose idempotency keys its own is one of: those of its user, or of its client key and user.
    #[must_use]
    pub fn idempotency_scope(&self) -> Cow<'_, str> {
        match self.key_id {
            None => Cow::Borrowed(&self.user_id),
            Some(key) => Cow::Owned(format!("{key}\0{}", self.user_id)),
        }
    }

    /// The state of the transition table that the job is in.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match (self.status, self.open) {
            (JobStatus::Pending, None) if self.parked.is_some() => Phase::Parked,
            (JobStatus::Pending, None) if !self.waits_for.is_empty() => Phase::Blocked,
            (JobStatus::Pending, None) => Phase::Waiting,
            (JobStatus::Pending, Some(_)) => Phase::Staged,
            (JobStatus::Processing, _) => Phase::Running,
            (JobStatus::Completed, _) => Phase::Completed,
            (JobStatus::Failed, _) => Phase::Failed,
            (JobStatus::Cancelled, _) => Phase::Cancelled,
        }
    }

    /// What has to be over before it may be sent; `None`: nothing.
    #[must_use]
    pub fn due(&self) -> Option<Due> {
        let retry = self
            .next_retry_at
            .filter(|wait| self.run_at.is_none_or(|at| wait.until > at));
        retry.map(Due::After).or(self.run_at.map(Due::At))
    }

    /// What the lane keeps of it in memory.
    #[must_use]
    pub fn entry(&self) -> JobEntry {
        JobEntry {
            id: self.id,
            seq: self.seq,
            priority: self.priority,
            due: self.due(),
            deadline: self.deadline,
            since: self.available_since(),
            model: self.model.as_str().into(),
            user_id: self.user_id.as_str().into(),
            tokens: self.estimated_tokens,
            worst: self.worst,
            batch_id: self.batch_id,
            dormant: self.is_dormant(),
            parked: self.parked.is_some(),
            out_of_scope: false,
            capped: false,
            bound_to: self.bound_to,
            key: self.key_id,
            session: self.session_tag(),
        }
    }

    /// Its session among those of all client keys and users.
    #[must_use]
    pub fn session_tag(&self) -> Option<SessionTag> {
        let id = self.session.as_ref()?;
        Some(SessionTag::of(id, self.key_id, &self.user_id))
    }

    /// Its session, for a job that goes on from it.
    #[must_use]
    pub fn as_named(&self) -> Option<Session> {
        let id = self.session.clone()?;
        Some(match self.told_session {
            Some(_) => Session::Ours(id),
            None => Session::Glms(id),
        })
    }

    /// The session that GLM is told.
    #[must_use]
    pub fn session_at_glm(&self, sessions: Sessions) -> Option<&SessionId> {
        let told = self.told_session.as_ref().or(self.session.as_ref());
        told.filter(|_| sessions != Sessions::Off)
    }

    /// Since when it could have run: its submission, or the `run_at` it asked for.
    #[must_use]
    pub fn available_since(&self) -> Timestamp {
        self.run_at
            .map_or(self.created_at, |at| at.max(self.created_at))
    }

    /// As a clock that says this shows it: its retry is due no later than its delay is long.
    #[must_use]
    pub fn as_told(mut self, now: Timestamp) -> Self {
        self.next_retry_at = self.next_retry_at.map(|wait| wait.as_told(now));
        self
    }

    /// Whether it waits for its retry.
    #[must_use]
    pub fn is_delayed(&self) -> bool {
        self.phase() == Phase::Waiting && self.next_retry_at.is_some()
    }

    /// Whether it waits for other jobs or for somebody's word.
    #[must_use]
    pub fn is_dormant(&self) -> bool {
        matches!(self.phase(), Phase::Blocked | Phase::Parked)
    }

    /// The name that goes to GLM: as the submitter, or of a fallback the settings, spell it.
    #[must_use]
    pub fn spelling<'a>(&'a self, settings: &'a GlmSettings) -> &'a str {
        match (&self.served_by, &self.spelled) {
            (Some(fallback), _) => settings.spelling(fallback),
            (None, Some(spelled)) => spelled,
            (None, None) => &self.model,
        }
    }

    /// The model that the open or latest attempt was sent to.
    #[must_use]
    pub fn sent_to(&self) -> &str {
        self.served_by.as_deref().unwrap_or(&self.model)
    }
}

/// What the lane knows of a waiting job: what its order depends on, nothing else, so that a million of them cost
/// little ([`WaitingJobs`](super::WaitingJobs)). `N` is how it has the names of its model and its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEntry<N = Arc<str>> {
    /// The job.
    pub id: JobId,
    /// Its place in line.
    pub seq: Seq,
    /// Higher is more urgent.
    pub priority: i32,
    /// What has to be over before.
    pub due: Option<Due>,
    /// Fails if not done by this moment.
    pub deadline: Option<Timestamp>,
    /// Since when it could have run: its submission, or the `run_at` it asked for. Ageing counts from
    /// here; a retry does not make it younger.
    pub since: Timestamp,
    /// The model it asks for.
    pub model: N,
    /// Whose it is.
    pub user_id: N,
    /// What it may come to, in tokens.
    pub tokens: u32,
    /// The most that it can come to, in tokens.
    pub worst: WorstCase,
    /// The batch that it belongs to.
    pub batch_id: Option<BatchId>,
    /// It waits for other jobs, for room in a budget or for an operator's decision, and must not run before.
    pub dormant: bool,
    /// It is dormant until an operator decides.
    pub parked: bool,
    /// The lane runs the jobs of another batch alone.
    pub out_of_scope: bool,
    /// Its client key has as many calls open as it may.
    pub capped: bool,
    /// The process whose connection takes its answer.
    pub bound_to: Option<u64>,
    /// The client key by which it was handed in.
    pub key: Option<KeyId>,
    /// The session that it is a call of: small enough for what alignment leaves free.
    pub session: Option<SessionTag>,
}

impl JobEntry<&Arc<str>> {
    /// The same with names of its own.
    #[must_use]
    pub fn owned(self) -> JobEntry {
        JobEntry {
            id: self.id,
            seq: self.seq,
            priority: self.priority,
            due: self.due,
            deadline: self.deadline,
            since: self.since,
            model: Arc::clone(self.model),
            user_id: Arc::clone(self.user_id),
            tokens: self.tokens,
            worst: self.worst,
            batch_id: self.batch_id,
            dormant: self.dormant,
            parked: self.parked,
            out_of_scope: self.out_of_scope,
            capped: self.capped,
            bound_to: self.bound_to,
            key: self.key,
            session: self.session,
        }
    }
}

impl<N> JobEntry<N> {
    /// Whether its submitter asked for a start at some moment; else it waits for a retry.
    #[must_use]
    pub const fn is_scheduled(&self) -> bool {
        matches!(self.due, Some(Due::At(_)))
    }

    /// The moment at which it is due.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        self.due.map(Due::moment)
    }

    /// The clock may have been set: it waits no longer for it.
    pub fn mind_the_clock(&mut self, now: Timestamp) {
        if let Some(due) = &mut self.due {
            due.mind_the_clock(now);
        }
    }

    /// Whether only a free slot is missing.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        !self.sleeps() && self.due.is_none_or(|due| due.at(now) <= now)
    }

    /// The client key that has as many calls open as it may.
    #[must_use]
    pub fn capped_key(&self) -> Option<KeyId> {
        self.key.filter(|_| self.capped)
    }

    /// Whether something else than time and its turn keeps it from running.
    #[must_use]
    pub const fn sleeps(&self) -> bool {
        self.dormant || self.out_of_scope || self.capped
    }
}
