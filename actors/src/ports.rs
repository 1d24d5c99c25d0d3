//! What the lane needs from the world: a store, GLM, a clock, ids. The adapters are elsewhere;
//! nothing in this crate does I/O.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::model::{
    AttemptNo, BreakerSnapshot, CallOutcome, CallRecord, Day, Endpoint, Failure, Job, JobEntry,
    JobId, JobStatus, LaneState, Request, RequestId, Timeouts, Timestamp, Usage, UsageKey,
    UsageRow,
};
use crate::policy::transition::{Applied, Refusal, Transition};

/// Why a store can't do what it should. After any of these on a commit, what is on disk is unknown
/// until the store has been reopened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The file is open in another process.
    #[error("{path} is in use by another process; one process owns a store")]
    Locked {
        /// The file.
        path: String,
    },
    /// The device is full.
    #[error("no space left for {path}: {message}; free some space and start again")]
    Full {
        /// The file.
        path: String,
        /// The system's words.
        message: String,
    },
    /// The file may not be read or written.
    #[error("{path} can't be opened: {message}")]
    Access {
        /// The file.
        path: String,
        /// The system's words.
        message: String,
    },
    /// The file is damaged or was written by something else.
    #[error("{path} is damaged or not a onelane store: {message}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// The file is of a version that this program does not know.
    #[error("{path} has store version {found}, this program knows {known}; use a newer onelane")]
    Version {
        /// The file.
        path: String,
        /// The version found.
        found: u64,
        /// The newest version known.
        known: u64,
    },
    /// Any other failure of the device.
    #[error("{path}: {message}")]
    Io {
        /// The file.
        path: String,
        /// The system's words.
        message: String,
    },
}

/// What a store holds when the lane starts on it.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Pending jobs without an open attempt, in the order of their sequence.
    pub waiting: Vec<JobEntry>,
    /// Jobs with an open attempt, whole, in the order of their sequence.
    pub open: Vec<Job>,
    /// The lane's state.
    pub lane: LaneState,
    /// The breaker's state.
    pub breaker: Option<BreakerSnapshot>,
}

/// A job whole: what was asked and what came of it.
#[derive(Debug, Clone)]
pub struct JobRecord {
    /// The job.
    pub job: Job,
    /// What it asks for.
    pub request: Arc<Request>,
    /// GLM's answer, verbatim, once it is completed.
    pub response: Option<Arc<RawValue>>,
}

/// Which jobs a list shows. Every field narrows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// With this status.
    pub status: Option<JobStatus>,
    /// Of this user.
    pub user_id: Option<String>,
    /// For this model.
    pub model: Option<String>,
}

impl JobFilter {
    /// Whether a job with these properties is in the list.
    #[must_use]
    pub fn matches(&self, status: JobStatus, user_id: &str, model: &str) -> bool {
        self.status.is_none_or(|want| want == status)
            && self.user_id.as_deref().is_none_or(|want| want == user_id)
            && self.model.as_deref().is_none_or(|want| want == model)
    }
}

/// One page of a list of jobs, newest first.
#[derive(Debug, Clone, Default)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<JobRecord>,
    /// How many match in all, not only on this page.
    pub total: u64,
    /// Where the next page begins; `None` on the last.
    pub cursor: Option<u64>,
}

/// Which rows of the call log a list shows. Every field narrows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallFilter {
    /// Of this job.
    pub job_id: Option<JobId>,
    /// Of this user.
    pub user_id: Option<String>,
    /// For this model.
    pub model: Option<String>,
    /// That ended so.
    pub outcome: Option<CallOutcome>,
}

impl CallFilter {
    /// Whether a row is in the list.
    #[must_use]
    pub fn matches(&self, call: &CallRecord) -> bool {
        self.job_id.is_none_or(|want| want == call.job_id)
            && self
                .user_id
                .as_ref()
                .is_none_or(|want| *want == call.user_id)
            && self.model.as_ref().is_none_or(|want| *want == call.model)
            && self.outcome.is_none_or(|want| want == call.outcome)
    }
}

/// One page of the call log, newest first.
#[derive(Debug, Clone, Default)]
pub struct CallPage {
    /// The rows.
    pub calls: Vec<CallRecord>,
    /// Where the next page begins; `None` on the last.
    pub cursor: Option<u64>,
}

/// Which usage rows are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageFilter {
    /// The first day.
    pub start: Day,
    /// The last day, inclusive.
    pub end: Day,
    /// For this model only.
    pub model: Option<String>,
    /// Of this user only.
    pub user_id: Option<String>,
}

impl UsageFilter {
    /// Whether a row is asked for.
    #[must_use]
    pub fn matches(&self, key: &UsageKey) -> bool {
        (self.start..=self.end).contains(&key.day)
            && self.model.as_ref().is_none_or(|want| *want == key.model)
            && self
                .user_id
                .as_ref()
                .is_none_or(|want| *want == key.user_id)
    }
}

/// How many jobs there are of each status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatusCounts {
    /// Waiting.
    pub pending: u64,
    /// In flight.
    pub processing: u64,
    /// Done.
    pub completed: u64,
    /// Dead letters.
    pub failed: u64,
    /// Cancelled.
    pub cancelled: u64,
}

impl StatusCounts {
    /// The count of one status.
    #[must_use]
    pub const fn of(&self, status: JobStatus) -> u64 {
        match status {
            JobStatus::Pending => self.pending,
            JobStatus::Processing => self.processing,
            JobStatus::Completed => self.completed,
            JobStatus::Failed => self.failed,
            JobStatus::Cancelled => self.cancelled,
        }
    }

    /// The count of one status, to change it.
    pub const fn of_mut(&mut self, status: JobStatus) -> &mut u64 {
        match status {
            JobStatus::Pending => &mut self.pending,
            JobStatus::Processing => &mut self.processing,
            JobStatus::Completed => &mut self.completed,
            JobStatus::Failed => &mut self.failed,
            JobStatus::Cancelled => &mut self.cancelled,
        }
    }

    /// Counts a job that left one status (`None`: it is new) for another.
    pub const fn moved(&mut self, from: Option<JobStatus>, to: JobStatus) {
        if let Some(from) = from {
            let count = self.of_mut(from);
            *count = count.saturating_sub(1);
        }
        *self.of_mut(to) += 1;
    }

    /// All jobs.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.pending + self.processing + self.completed + self.failed + self.cancelled
    }
}

/// What a store says of each change of a batch, in the batch's order.
pub type Verdicts = Vec<Result<Applied, Refusal>>;

/// The durable truth. Blocking: the store actor calls it off the async workers. There is one
/// writer; reads are short snapshots and may come from anywhere.
pub trait Store: Send + Sync + 'static {
    /// Applies a batch as one atomic, durable transaction. A change that is refused leaves nothing
    /// behind and does not hinder the others. After an error what is on disk is unknown: nothing
    /// may be acknowledged, and [`Store::recover`] must succeed before the next commit.
    fn commit(&self, batch: &[Transition]) -> Result<Verdicts, StoreError>;

    /// What the lane starts from. Reopens the file first if the last commit failed.
    fn recover(&self) -> Result<Recovered, StoreError>;

    /// One job whole.
    fn job(&self, id: JobId) -> Result<Option<JobRecord>, StoreError>;

    /// A page of jobs, newest first, from `cursor` (as the page before gave it) on.
    fn jobs(
        &self,
        filter: &JobFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<JobPage, StoreError>;

    /// A page of the call log, newest first, from `cursor` on.
    fn calls(
        &self,
        filter: &CallFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<CallPage, StoreError>;

    /// The aggregates, ordered by day, model, user.
    fn usage(&self, filter: &UsageFilter) -> Result<Vec<UsageRow>, StoreError>;

    /// Jobs by status.
    fn counts(&self) -> Result<StatusCounts, StoreError>;

    /// The runtime changes of the configuration, as [`Transition::Config`] stored them.
    fn config(&self) -> Result<Option<String>, StoreError>;
}

/// One call as the lane orders it.
#[derive(Debug, Clone)]
pub struct GlmCall {
    /// The job.
    pub job_id: JobId,
    /// Which attempt.
    pub attempt: AttemptNo,
    /// The `request_id` to send.
    pub request_id: RequestId,
    /// Where to, with which key.
    pub endpoint: Endpoint,
    /// The model to ask for.
    pub model: String,
    /// What was asked.
    pub request: Arc<Request>,
    /// `max_tokens` for a plain prompt.
    pub max_tokens: Option<u32>,
    /// Temperature for a plain prompt.
    pub temperature: Option<f64>,
    /// The bounds of the call.
    pub timeouts: Timeouts,
}

/// GLM's answer.
#[derive(Debug, Clone)]
pub struct GlmAnswer {
    /// The body, verbatim.
    pub body: Arc<RawValue>,
    /// The HTTP status.
    pub status_code: u16,
    /// Its tokens; zeros when GLM reported none.
    pub usage: Usage,
}

/// How a call ended.
#[derive(Debug, Clone)]
pub enum GlmOutcome {
    /// With an answer.
    Answered(GlmAnswer),
    /// With a failure, classified. Tokens, when GLM reported (and billed) some all the same.
    Failed(Failure, Usage),
    /// The abort token was cancelled and the connection closed.
    Aborted,
}

/// The future of a call.
pub type GlmFuture = Pin<Box<dyn Future<Output = GlmOutcome> + Send>>;

/// GLM over some transport.
pub trait Glm: Send + Sync + 'static {
    /// Makes one call. It ends within its timeouts, never panics on what a server sends, and when
    /// it has ended, by whatever way, the connection is either free for the next call or closed.
    fn call(&self, call: GlmCall, abort: CancellationToken) -> GlmFuture;

    /// The URL that a call to this endpoint goes to, for the call log.
    fn url(&self, endpoint: &Endpoint) -> String {
        format!("{}/chat/completions", endpoint.base_url)
    }
}

/// The wall clock.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// Where ids and jitter come from.
pub trait Ids: Send + Sync + 'static {
    /// A fresh job id (UUID v7).
    fn job_id(&self, now: Timestamp) -> JobId;
    /// A fresh seed for jitter.
    fn seed(&self) -> u64;
}
