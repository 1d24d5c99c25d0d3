//! What the lane needs from the world: a store, GLM, a clock, ids. The adapters are elsewhere;
//! nothing in this crate does I/O.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use onelane_core::life::{Applied, Refusal, Transition};
use onelane_core::model::{
    AlertBook, AttemptNo, BreakerSnapshot, CallOutcome, CallRecord, Day, Delivery, DeliveryCounts,
    DeliveryId, DeliveryStatus, Endpoint, Failure, FailureClass, HookEndpoint, Job, JobEntry,
    JobId, JobStatus, Request, RequestId, SchedulerState, Seq, Target, Timeouts, Timestamp, Usage,
    UsageKey, UsageRow, code,
};
use onelane_core::notify::delivery::{DueDeliveries, DueQuery, is_over};

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
    /// Pending jobs without an open attempt, dormant ones included, in the order of their sequence.
    pub waiting: Vec<JobEntry>,
    /// Jobs with an open attempt, whole, in the order of their sequence.
    pub open: Vec<Job>,
    /// The lane's state.
    pub lane: SchedulerState,
    /// The breaker's state.
    pub breaker: Option<BreakerSnapshot>,
}

/// A job whole: what was asked and what came of it.
#[derive(Debug, Clone)]
pub struct JobRecord {
    /// The job.
    pub job: Job,
    /// What it asks for; `None` once it was pruned.
    pub request: Option<Arc<Request>>,
    /// GLM's answer, verbatim, once it is completed and until it is pruned.
    pub response: Option<Arc<RawValue>>,
}

impl JobRecord {
    /// Bytes of its request and its response.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        let request = self.request.as_ref().map_or(0, |request| request.len());
        let response = self.response.as_ref().map_or(0, |raw| raw.get().len());
        request + response
    }
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
    /// What is in the job's own row alone: a store looks there only when something is asked.
    pub more: MoreFilter,
}

/// What else a list may be narrowed by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MoreFilter {
    /// One of these.
    pub ids: Option<Vec<JobId>>,
    /// About this content.
    pub content_id: Option<String>,
    /// BudgetScope latest failure has this code.
    pub error_code: Option<String>,
    /// BudgetScope latest failure is of this class.
    pub error_class: Option<FailureClass>,
    /// Set aside (`true`) or not.
    pub parked: Option<bool>,
    /// Accepted at this moment or later.
    pub created_from: Option<Timestamp>,
    /// Accepted before this moment.
    pub created_before: Option<Timestamp>,
    /// With this priority or a higher one.
    pub priority_min: Option<i32>,
    /// With this priority or a lower one.
    pub priority_max: Option<i32>,
}

impl MoreFilter {
    /// Whether anything is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a job is in the list.
    #[must_use]
    pub fn matches(&self, job: &Job) -> bool {
        let error = job.error.as_ref();
        self.ids.as_ref().is_none_or(|ids| ids.contains(&job.id))
            && self
                .content_id
                .as_ref()
                .is_none_or(|c| job.content_id.as_ref() == Some(c))
            && self
                .error_code
                .as_ref()
                .is_none_or(|c| error.is_some_and(|e| e.code == *c))
            && self
                .error_class
                .is_none_or(|c| error.is_some_and(|e| e.class == c))
            && self.parked.is_none_or(|held| job.parked.is_some() == held)
            && self.created_from.is_none_or(|from| job.created_at >= from)
            && self
                .created_before
                .is_none_or(|before| job.created_at < before)
            && self.priority_min.is_none_or(|min| job.priority >= min)
            && self.priority_max.is_none_or(|max| job.priority <= max)
    }
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

/// The jobs of a list as places in line, newest first: what a change of many needs of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    /// The places, each with its job.
    pub places: Vec<(Seq, JobId)>,
    /// Where to go on; `None` after the last.
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
    /// Only those that were maybe billed, where nobody has found out yet.
    pub billing_open: bool,
    /// That began at this moment or later.
    pub from: Option<Timestamp>,
    /// That began before this moment.
    pub before: Option<Timestamp>,
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
            && (!self.billing_open || call.is_billing_open())
            && self.from.is_none_or(|from| call.started_at >= from)
            && self.before.is_none_or(|before| call.started_at < before)
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

/// A part of the rows of a kind, newest first, without those that can't be read: for whoever saves what
/// there is.
#[derive(Debug, Clone)]
pub struct Salvage<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// What is wrong with those between them that can't be read.
    pub unreadable: Vec<StoreError>,
    /// Where the next part begins; `None` after the last.
    pub cursor: Option<u64>,
}

/// The usage of one day.
#[derive(Debug, Clone, Default)]
pub struct UsageDay {
    /// The rows, ordered by model and user.
    pub rows: Vec<UsageRow>,
    /// What is wrong with those that can't be read.
    pub unreadable: Vec<StoreError>,
    /// Where to go on; `None` when no later day has a row.
    pub next: Option<Day>,
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

    /// Uncounts a job that is gone.
    pub const fn removed(&mut self, from: JobStatus) {
        let count = self.of_mut(from);
        *count = count.saturating_sub(1);
    }

    /// All jobs.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.pending + self.processing + self.completed + self.failed + self.cancelled
    }
}

/// Which deliveries a list shows. Every field narrows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// With this status.
    pub status: Option<DeliveryStatus>,
    /// Of this kind of notice.
    pub event: Option<String>,
    /// About this job.
    pub job_id: Option<JobId>,
    /// To this endpoint.
    pub endpoint: Option<String>,
    /// Made at this moment or later.
    pub created_from: Option<Timestamp>,
    /// Made before this moment.
    pub created_before: Option<Timestamp>,
}

impl DeliveryFilter {
    /// Whether a delivery is in the list.
    #[must_use]
    pub fn matches(&self, delivery: &Delivery) -> bool {
        let about = delivery.notice.job_id();
        self.status.is_none_or(|want| want == delivery.status)
            && self
                .event
                .as_ref()
                .is_none_or(|want| want == delivery.notice.event())
            && self.job_id.is_none_or(|want| about == Some(want))
            && self.endpoint.as_ref().is_none_or(
                |want| matches!(&delivery.target, Target::Endpoint(name) if name == want),
            )
            && self
                .created_from
                .is_none_or(|from| delivery.created_at >= from)
            && self
                .created_before
                .is_none_or(|before| delivery.created_at < before)
    }
}

/// One page of deliveries, newest first.
#[derive(Debug, Clone, Default)]
pub struct DeliveryPage {
    /// The deliveries.
    pub deliveries: Vec<Delivery>,
    /// Where the next page begins; `None` on the last.
    pub cursor: Option<u64>,
}

/// What of the deliveries may go, as far as one step has looked.
#[derive(Debug, Clone, Default)]
pub struct DeliveriesOver {
    /// May be forgotten.
    pub ended: Vec<DeliveryId>,
    /// Pending although their retry_policy has ended.
    pub lapsed: Vec<Delivery>,
    /// What is left of [`OverQuery::excess`].
    pub excess: u64,
    /// Where the next step begins; `None`: all have been looked at.
    pub next: Option<DeliveryId>,
}

/// Which deliveries may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverQuery {
    /// Where this step begins.
    pub from: DeliveryId,
    /// Those that ended before this moment...
    pub ended_before: Timestamp,
    /// ...and so many of those that arrived, the oldest.
    pub excess: u64,
    /// Those that were put on their way before this moment and are pending have lapsed.
    pub lapsed_before: Timestamp,
    /// How many are looked at.
    pub look_at: usize,
}

impl OverQuery {
    /// Notes what becomes of the next delivery in order.
    pub fn look(&mut self, delivery: Delivery, over: &mut DeliveriesOver) {
        if is_over(&delivery, self.ended_before, &mut self.excess) {
            over.ended.push(delivery.id);
        } else if delivery.status == DeliveryStatus::Pending && delivery.since < self.lapsed_before
        {
            over.lapsed.push(delivery);
        }
        over.excess = self.excess;
    }
}

/// What a store says of each change of a batch, in the batch's order.
pub type Decisions = Vec<Result<Applied, Refusal>>;

/// The durable truth. Blocking: the store actor calls it off the async workers. There is one
/// writer; reads are short snapshots and may come from anywhere.
pub trait Store: Send + Sync + 'static {
    /// Applies a batch as one atomic, durable transaction. A change that is refused leaves nothing
    /// behind and does not hinder the others. After an error what is on disk is unknown: nothing
    /// may be acknowledged, and [`Store::recover`] must succeed before the next commit.
    fn commit(&self, batch: &[Transition]) -> Result<Decisions, StoreError>;

    /// What the lane starts from. Reopens the file first if the last commit failed.
    fn recover(&self) -> Result<Recovered, StoreError>;

    /// One job whole.
    fn job(&self, id: JobId) -> Result<Option<JobRecord>, StoreError>;

    /// A page of jobs, newest first, from `cursor` (as the page before gave it) on. It ends after `limit`
    /// jobs, or earlier, after one with which their bodies reach
    /// [`PAGE_BODY_BYTES_MAX`](onelane_core::model::limits::PAGE_BODY_BYTES_MAX).
    fn jobs(
        &self,
        filter: &JobFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<JobPage, StoreError>;

    /// The places of a list's jobs from `cursor` on, at most `limit`. A store should read no request and
    /// no response for it.
    fn job_places(
        &self,
        filter: &JobFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<Places, StoreError> {
        const PAGE: usize = 256;
        let mut found = Places {
            cursor,
            ..Places::default()
        };
        while found.places.len() < limit {
            let rows = PAGE.min(limit - found.places.len());
            let page = self.jobs(filter, found.cursor, rows)?;
            let place = |record: &JobRecord| (record.job.seq, record.job.id);
            found.places.extend(page.jobs.iter().map(place));
            found.cursor = page.cursor;
            if found.cursor.is_none() {
                break;
            }
        }
        Ok(found)
    }

    /// A page of the call log, newest first, from `cursor` on. It may be short, even empty, with more behind
    /// its cursor: where the log has to be gone through it ends after
    /// [`CALLS_LOOKED_AT_MAX`](onelane_core::model::limits::CALLS_LOOKED_AT_MAX) rows, whether they match or not.
    fn calls(
        &self,
        filter: &CallFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<CallPage, StoreError>;

    /// The calls that ended at this moment or later, newest first, `limit` at most. What a lane's pace
    /// goes on from after a restart.
    fn calls_since(&self, since: Timestamp, limit: usize) -> Result<Vec<CallRecord>, StoreError> {
        const PAGE: usize = 100;
        let mut recent = Vec::new();
        let mut cursor = None;
        loop {
            let page = self.calls(&CallFilter::default(), cursor, PAGE)?;
            for call in page.calls {
                if call.ended_at < since || recent.len() >= limit {
                    return Ok(recent);
                }
                recent.push(call);
            }
            match page.cursor {
                Some(_) => cursor = page.cursor,
                None => return Ok(recent),
            }
        }
    }

    /// A part of all jobs, as [`Store::jobs`] tells them. A store that may be damaged leaves out what it
    /// can't read.
    fn salvage_jobs(
        &self,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<Salvage<JobRecord>, StoreError> {
        let page = self.jobs(&JobFilter::default(), cursor, limit)?;
        Ok(Salvage {
            rows: page.jobs,
            unreadable: Vec::new(),
            cursor: page.cursor,
        })
    }

    /// The same of the call log.
    fn salvage_calls(
        &self,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<Salvage<CallRecord>, StoreError> {
        let page = self.calls(&CallFilter::default(), cursor, limit)?;
        Ok(Salvage {
            rows: page.calls,
            unreadable: Vec::new(),
            cursor: page.cursor,
        })
    }

    /// The aggregates of the filter's first day that has any. A long time is gone through day by day, so
    /// that no more than one is in memory.
    fn usage_day(&self, filter: &UsageFilter) -> Result<UsageDay, StoreError> {
        let mut rows = self.usage(filter)?;
        let first = rows.first().map(|row| row.key.day);
        let later = rows.split_off(rows.partition_point(|row| Some(row.key.day) == first));
        Ok(UsageDay {
            rows,
            unreadable: Vec::new(),
            next: later.first().map(|row| row.key.day),
        })
    }

    /// The aggregates, ordered by day, model, user.
    fn usage(&self, filter: &UsageFilter) -> Result<Vec<UsageRow>, StoreError>;

    /// Jobs by status.
    fn counts(&self) -> Result<StatusCounts, StoreError>;

    /// The deliveries that are due, as [`find`](onelane_core::notify::delivery::find) finds them.
    fn deliveries_due(&self, query: &DueQuery) -> Result<DueDeliveries, StoreError>;

    /// A page of deliveries, newest first, from `cursor` on.
    fn deliveries(
        &self,
        filter: &DeliveryFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<DeliveryPage, StoreError>;

    /// Looks, in the order of their ids, at deliveries that may go.
    fn deliveries_over(&self, query: OverQuery) -> Result<DeliveriesOver, StoreError>;

    /// How many deliveries there are of each status.
    fn delivery_counts(&self) -> Result<DeliveryCounts, StoreError>;

    /// The endpoints that notices go to.
    fn endpoints(&self) -> Result<Vec<HookEndpoint>, StoreError>;

    /// What is bad and what was.
    fn alerts(&self) -> Result<AlertBook, StoreError>;

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
    /// Between two looks at an asynchronous task, in milliseconds.
    pub poll_ms: u64,
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

/// How an asynchronous submission ended.
#[derive(Debug, Clone)]
pub enum TaskOutcome {
    /// GLM has taken it as the task with this id.
    Accepted(String),
    /// With a failure, classified.
    Failed(Failure, Usage),
    /// The abort token was cancelled and the connection closed.
    Aborted,
}

/// The future of an asynchronous submission.
pub type TaskFuture = Pin<Box<dyn Future<Output = TaskOutcome> + Send>>;

/// GLM over some transport.
pub trait Glm: Send + Sync + 'static {
    /// Makes one call. It ends within its timeouts, never panics on what a server sends, and when
    /// it has ended, by whatever way, the connection is either free for the next call or closed.
    fn call(&self, call: GlmCall, abort: CancellationToken) -> GlmFuture;

    /// Hands a call over as a task of GLM's asynchronous API. Ends as [`Glm::call`] does. The id of an
    /// accepted task has letters, digits, `_` and `-` only, [`onelane_core::model::limits::TASK_ID_CHARS_MAX`]
    /// of them at most.
    fn submit_task(&self, call: GlmCall, abort: CancellationToken) -> TaskFuture {
        let _ = (call, abort);
        Box::pin(async { TaskOutcome::Failed(no_tasks(), Usage::default()) })
    }

    /// Waits for a task and fetches its answer: looks at once and then every `poll_ms`, bears what
    /// passes (the network, 5xx, throttling), and ends within the call's total time. Nothing is bought
    /// by it. A task that GLM does not know (any more, or for this key) is a transient failure with
    /// GLM's code 1233, maybe billed: the job is to be called anew.
    fn fetch_task(&self, call: GlmCall, task_id: String, abort: CancellationToken) -> GlmFuture {
        let _ = (call, task_id, abort);
        Box::pin(async { GlmOutcome::Failed(no_tasks(), Usage::default()) })
    }

    /// The URL that a call to this endpoint goes to, for the call log.
    fn url(&self, endpoint: &Endpoint) -> String {
        format!("{}/chat/completions", endpoint.base_url)
    }

    /// The URL that a call is handed over to as a task, for the call log.
    fn task_url(&self, endpoint: &Endpoint) -> String {
        format!("{}/async/chat/completions", endpoint.base_url)
    }
}

fn no_tasks() -> Failure {
    Failure::new(
        FailureClass::RequestFatal,
        code::ASYNC_UNSUPPORTED,
        "this transport has no asynchronous calls; take the model out of glm.async_models",
    )
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
