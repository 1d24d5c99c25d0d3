//! What the lane needs from the world: a store, GLM, a clock, ids. The adapters are elsewhere;
//! nothing in this crate does I/O.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::marks::Marks;
use crate::relay::Relay;

use onelane_core::model::{
    AlertBook, Applied, AttemptNo, AuditEntry, AuditId, Balance, Batch, BatchId, BatchInput,
    CallRecord, ClientKey, Day, DeliveryCounts, Endpoint, Face, Failure, FailureClass, FileId,
    Findings, HookEndpoint, Job, JobId, Metered, PassedHeaders, Quota, Refusal, Request, RequestId,
    Retention, Reuse, SessionId, StoreFigures, StoredFile, Timeouts, Timestamp, TraceOrigin,
    Transition, Usage, UsageRow, code,
};
pub use onelane_core::model::{
    CallFilter, CallPage, DeliveryFilter, DeliveryPage, GlmAnswer, GlmOutcome, JobFilter, JobPage,
    JobRecord, MoreFilter, Places, Recovered, Salvage, StatusCounts, StoreError, TaskOutcome,
    UsageDay, UsageFilter,
};
pub use onelane_core::notify::delivery::over::{DeliveriesOver, OverQuery};
use onelane_core::notify::delivery::{DueDeliveries, DueQuery};

/// A store's decision on each change of a batch, in the batch's order.
pub type Decisions = Vec<Result<Applied, Refusal>>;

/// A store as lines, part by part.
pub type StoreLines = Box<dyn Iterator<Item = Result<Vec<u8>, StoreError>> + Send>;

/// The durable truth. Blocking: the store actor calls it off the async workers. There is one
/// writer; reads are short snapshots and may come from anywhere.
pub trait Store: Send + Sync + 'static {
    /// Applies a batch as one atomic, durable transaction. A change that is refused leaves nothing
    /// behind and does not hinder the others. After an error the state on disk is unknown: nothing
    /// may be acknowledged, and [`Store::recover`] must succeed before the next commit.
    fn commit(&self, batch: &[Transition]) -> Result<Decisions, StoreError>;

    /// The rows that the lane starts from. Reopens the file first if the last commit failed.
    fn recover(&self) -> Result<Recovered, StoreError>;

    /// Makes the store usable after a commit that failed, as [`Store::recover`] does, without reading the rows.
    fn reopen(&self) -> Result<(), StoreError> {
        self.recover().map(drop)
    }

    /// Whether there is room for more, as far as can be told without a commit. Asked after a commit found the
    /// disk full.
    fn has_room(&self) -> bool {
        true
    }

    /// Looks whether what the store is in is still there and still its own; with [`StoreError::Lost`] it takes
    /// nothing any more. For stores that can't be lost so it is always well.
    fn keep_place(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Tells, without holding the store, whether what it is in still seems to be there; `None`: it can't be lost.
    fn place(&self) -> Option<Box<dyn Fn() -> bool + Send>> {
        None
    }

    /// How many bytes its file has; `None`: it has none.
    fn bytes(&self) -> Option<u64> {
        None
    }

    /// How large it is, how old, and what this retention would remove now; `None`: it can't tell.
    fn figures(
        &self,
        _retention: &Retention,
        _now: Timestamp,
    ) -> Result<Option<StoreFigures>, StoreError> {
        Ok(None)
    }

    /// Checks its tables against each other, and lists `most` findings at most. Reads all rows. `None`: it has nothing to
    /// check.
    fn check(&self, _most: usize) -> Result<Option<Findings>, StoreError> {
        Ok(None)
    }

    /// All that it holds at one moment, as lines of which it can be made again; `None`: it can't be told so. What is told is
    /// kept for as long as it is read, whatever is committed meanwhile.
    fn lines(&self) -> Result<Option<StoreLines>, StoreError> {
        Ok(None)
    }

    /// One job whole.
    fn job(&self, id: JobId) -> Result<Option<JobRecord>, StoreError>;

    /// The same without its bodies, of which a store should read nothing for it.
    fn job_alone(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        Ok(self.job(id)?.map(|record| record.job))
    }

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

    /// One batch.
    fn batch(&self, id: BatchId) -> Result<Option<Batch>, StoreError>;

    /// The batches, in the order of their ids, from the one after `after` on, at most `limit`.
    fn batches(&self, after: Option<BatchId>, limit: usize) -> Result<Vec<Batch>, StoreError>;

    /// Orders of operators, newest first, from the one before `before` on, at most `limit`.
    fn audit(&self, before: Option<AuditId>, limit: usize) -> Result<Vec<AuditEntry>, StoreError>;

    /// The client keys, in the order of their ids.
    fn client_keys(&self) -> Result<Vec<ClientKey>, StoreError>;

    /// Jobs of a batch, newest first, from `cursor` on, at most `limit`, with the place where the next begin. A
    /// store should read no request and no response for it.
    fn batch_jobs(
        &self,
        id: Option<BatchId>,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<(Vec<Job>, Option<u64>), StoreError> {
        let filter = JobFilter {
            more: MoreFilter {
                batch_id: id,
                ..MoreFilter::default()
            },
            ..JobFilter::default()
        };
        let page = self.jobs(&filter, cursor, limit)?;
        let jobs = page.jobs.into_iter().map(|record| record.job);
        let jobs = jobs.filter(|job| job.batch_id.is_some());
        Ok((jobs.collect(), page.cursor))
    }

    /// What a batch over HTTP is made of.
    fn batch_input(&self, id: BatchId) -> Result<Option<BatchInput>, StoreError>;

    /// The batches over HTTP, in the order of their ids, from the one after `after` on, at most `limit`.
    fn batch_inputs(
        &self,
        after: Option<BatchId>,
        limit: usize,
    ) -> Result<Vec<BatchInput>, StoreError>;

    /// One file, without its content.
    fn file(&self, id: FileId) -> Result<Option<StoredFile>, StoreError>;

    /// The files, oldest first, from the one after `after` on, at most `limit`.
    fn files(&self, after: Option<FileId>, limit: usize) -> Result<Vec<StoredFile>, StoreError>;

    /// A part of a file's content.
    fn file_part(&self, id: FileId, number: u32) -> Result<Option<Vec<u8>>, StoreError>;

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

    /// Alerts that are active, and their state.
    fn alerts(&self) -> Result<AlertBook, StoreError>;

    /// The runtime changes of the configuration, as [`Transition::Config`] stored them.
    fn config(&self) -> Result<Option<String>, StoreError>;

    /// The latest moment at which the clock was believed, as [`Transition::Clock`] stored it.
    fn clock(&self) -> Result<Option<Timestamp>, StoreError>;
}

/// Whether the lane knows a job, and so issued the ids of its attempts. Asks the store: it blocks for as long as a
/// look at a row takes.
#[derive(Clone)]
pub struct Issued(Arc<dyn Fn(JobId) -> bool + Send + Sync>);

impl Issued {
    /// The jobs of a store.
    #[must_use]
    pub fn of(store: Arc<dyn Store>) -> Self {
        Self(Arc::new(move |id| {
            store.job(id).is_ok_and(|job| job.is_some())
        }))
    }

    /// Whether this job's ids were issued here.
    #[must_use]
    pub fn knows(&self, id: JobId) -> bool {
        (self.0)(id)
    }
}

/// No job's.
impl Default for Issued {
    fn default() -> Self {
        Self(Arc::new(|_| false))
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issued")
    }
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
    /// The request.
    pub request: Arc<Request>,
    /// `max_tokens` for a plain prompt.
    pub max_tokens: Option<u32>,
    /// Temperature for a plain prompt.
    pub temperature: Option<f64>,
    /// The bounds of the call.
    pub timeouts: Timeouts,
    /// Between two looks at an asynchronous task, in milliseconds.
    pub poll_ms: u64,
    /// Whether its answer is streamed, as its body asks.
    pub streams: bool,
    /// Where the pieces of a streamed answer go as they come.
    pub relay: Option<Arc<Relay>>,
    /// Headers of the client that GLM gets, where they belong to the protocol of its face.
    pub headers: PassedHeaders,
    /// The span of its submitter that the job is done for.
    pub trace: Option<Box<TraceOrigin>>,
    /// Where the headers go by which GLM names the call.
    pub call_ids: Arc<OnceLock<PassedHeaders>>,
    /// Where the moments go that the transport sees of it.
    pub marks: Arc<Marks>,
    /// The session to name to GLM.
    pub session: Option<SessionId>,
    /// When a connection serves more than one call.
    pub reuse: Reuse,
    /// Whose ids the lane issued: an answer that names another attempt of it is not this call's.
    pub issued: Issued,
}

/// How a call ended.
#[derive(Debug)]
pub enum CallEnd {
    /// In this.
    Outcome(GlmOutcome),
    /// In an answer that came whole and is this call's own.
    Answer(UnreadAnswer),
}

/// An answer of which that alone has been read by which the lane goes on. The rest is read while the next call is out.
pub struct UnreadAnswer {
    /// The model that it names.
    pub model: Option<String>,
    /// Reads the rest: [`GlmOutcome::Answered`], with this model. The next call is out by then.
    pub read: Box<dyn FnOnce() -> GlmOutcome + Send>,
}

impl fmt::Debug for UnreadAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("UnreadAnswer");
        shown.field("model", &self.model).finish_non_exhaustive()
    }
}

impl CallEnd {
    /// All of it.
    #[must_use]
    pub fn read(self) -> GlmOutcome {
        match self {
            Self::Outcome(outcome) => outcome,
            Self::Answer(answer) => (answer.read)(),
        }
    }
}

impl From<GlmOutcome> for CallEnd {
    fn from(outcome: GlmOutcome) -> Self {
        Self::Outcome(outcome)
    }
}

/// The future of a call.
pub type CallFuture = Pin<Box<dyn Future<Output = CallEnd> + Send>>;

/// The future of a task's answer.
pub type GlmFuture = Pin<Box<dyn Future<Output = GlmOutcome> + Send>>;

/// The future of an asynchronous submission.
pub type TaskFuture = Pin<Box<dyn Future<Output = TaskOutcome> + Send>>;

/// What the provider itself counts is asked of this account, within this time. Such a question is no call: it takes no slot
/// and buys nothing.
#[derive(Debug, Clone)]
pub struct AccountAsk {
    /// Where, with which key.
    pub endpoint: Endpoint,
    /// When it is given up, in milliseconds.
    pub timeout_ms: u64,
}

/// Why the provider did not tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTold {
    /// This provider, or this kind of account, has no such thing.
    #[error("it is not offered for this account")]
    NotOffered,
    /// It could not be asked, or what it answered makes no sense. Tells no secret.
    #[error("{0}")]
    Failed(String),
}

/// The future of a question about the account.
pub type AccountFuture<T> = Pin<Box<dyn Future<Output = Result<T, NotTold>> + Send>>;

/// GLM over some transport.
pub trait Glm: Send + Sync + 'static {
    /// Makes one call. What does not depend on its moment is made ready at once, which must not panic: it may be asked for
    /// while the call before it is open. Nothing is sent, and no time counts, before the answer is first polled. The call
    /// ends within its timeouts, never panics on what a server sends, and when it has ended, by whatever way, the connection
    /// is either free for the next call or closed.
    fn call(&self, call: GlmCall, abort: CancellationToken) -> CallFuture;

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

    /// How the windows of the account's plan stand.
    fn quota(&self, ask: AccountAsk) -> AccountFuture<Quota> {
        let _ = ask;
        Box::pin(async { Err(NotTold::NotOffered) })
    }

    /// What is left of the account's money.
    fn balance(&self, ask: AccountAsk) -> AccountFuture<Balance> {
        let _ = ask;
        Box::pin(async { Err(NotTold::NotOffered) })
    }

    /// What the provider counted on one of its days, by model.
    fn metered(&self, ask: AccountAsk, day: Day) -> AccountFuture<Vec<Metered>> {
        let _ = (ask, day);
        Box::pin(async { Err(NotTold::NotOffered) })
    }

    /// The URL that a call of this face goes to, for the call log.
    fn url(&self, endpoint: &Endpoint, face: Face) -> String {
        let url = endpoint.url(face);
        url.unwrap_or_else(|_| endpoint.base_url.clone())
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
    /// Bytes that nobody can guess; `None`: there is no such randomness now.
    fn secret(&self) -> Option<[u8; 32]>;
}
