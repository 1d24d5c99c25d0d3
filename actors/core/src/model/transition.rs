//! The changes of a store as nouns: what is asked for, what a store answers. What a change does to a job decides
//! [`crate::life`].

use std::sync::Arc;

use super::{
    Admission, AlertBook, AnswerBody, AsyncTask, AttemptNo, AuditEntry, Batch, BatchId, BatchStep,
    Billing, BreakerSnapshot, CallRecord, ClientKey, DeliveryChange, DeliveryId, Failure,
    FileChange, FileId, Fingerprint, InputChange, Job, JobId, JobStatus, KeyId, KeyStep,
    NotAdmitted, Prune, Pruned, Received, Request, Reserve, SchedulerState, SlotId, Timestamp,
    Wait, limits,
};

/// A job as it is submitted.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The job: pending, without a sequence number.
    pub job: Job,
    /// What it asks for.
    pub request: Request,
    /// The request's digest; needed when the job has an idempotency key.
    pub fingerprint: Option<Fingerprint>,
    /// Whether it is let in.
    pub admission: Admission,
}

/// What becomes of the job whose attempt ended.
#[derive(Debug, Clone)]
pub enum Next {
    /// Done, with GLM's answer verbatim.
    Completed {
        /// The answer.
        response: AnswerBody,
    },
    /// Another attempt follows.
    Retry {
        /// Why.
        failure: Failure,
        /// When; `None`: as soon as it is its turn.
        at: Option<Wait>,
        /// Whether it uses up one of the job's retries.
        counted: bool,
        /// Whether it counts among the job's throttle answers.
        throttled: bool,
        /// Crashes in a row from now on.
        interruptions: u32,
    },
    /// Interrupted, maybe billed: it stays pending until somebody has looked at it.
    Parked {
        /// Why.
        failure: Failure,
        /// Crashes in a row from now on.
        interruptions: u32,
    },
    /// Failed for good.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// A caller cancelled it while the call was open.
    Cancelled,
}

/// The end of an attempt: everything about it in one transaction.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The job.
    pub job_id: JobId,
    /// The attempt that ended; the fence.
    pub attempt: AttemptNo,
    /// What becomes of the job.
    pub next: Next,
    /// The call log row.
    pub call: CallRecord,
    /// What came instead of an answer, where the job fails with it or steps aside for it.
    pub refusal: Option<Arc<Received>>,
    /// The lane's state, when the outcome changes it.
    pub lane: Option<SchedulerState>,
    /// The breaker, when the outcome changes its state.
    pub breaker: Option<BreakerSnapshot>,
}

/// One change of the store. A batch of them is one atomic transaction; each is checked against the
/// state that it expects and refused alone when that differs.
#[derive(Debug, Clone)]
pub enum Transition {
    /// A new job.
    Insert(Arc<NewJob>),
    /// The next attempt of a pending job goes on record, not yet sent.
    Stage {
        /// The job.
        job_id: JobId,
        /// Now.
        at: Timestamp,
        /// Its reserve, when budgets are on.
        reserve: Option<Reserve>,
    },
    /// A staged attempt is taken back.
    Unstage {
        /// The job.
        job_id: JobId,
    },
    /// An attempt is sent: the staged one, or, if none is staged, the next.
    Start {
        /// The job.
        job_id: JobId,
        /// Where it runs.
        slot: SlotId,
        /// When.
        at: Timestamp,
        /// The fallback model it is sent to; `None`: the job's own.
        served_by: Option<String>,
        /// Its reserve, when budgets are on.
        reserve: Option<Reserve>,
    },
    /// An attempt that was sent asynchronously is taken up again after a crash: its answer is
    /// fetched, not bought anew.
    Resume {
        /// The job.
        job_id: JobId,
        /// Where it runs from now on.
        slot: SlotId,
        /// Its caller or the process died while it waited for the answer.
        crashed: bool,
    },
    /// GLM took an attempt as a task of its asynchronous API.
    Task {
        /// The job.
        job_id: JobId,
        /// The attempt; the fence.
        attempt: AttemptNo,
        /// The task.
        task: AsyncTask,
    },
    /// An attempt ended.
    Settle(Box<Settlement>),
    /// A job that is not in flight fails: its deadline passed.
    Fail {
        /// The job.
        job_id: JobId,
        /// Why.
        failure: Failure,
        /// Now.
        at: Timestamp,
    },
    /// A caller gives up a job that is not in flight.
    Cancel {
        /// The job.
        job_id: JobId,
        /// Now.
        at: Timestamp,
    },
    /// A failed, cancelled or set-aside job goes back in line; its retry count starts afresh.
    Requeue {
        /// The job.
        job_id: JobId,
    },
    /// A pending job's priority changes.
    Reprioritise {
        /// The job.
        job_id: JobId,
        /// The new priority.
        priority: i32,
    },
    /// These staged attempts, and no others, may be sent before their starts are stored: a crash leaves no other
    /// staged attempt in doubt.
    Release(Vec<JobId>),
    /// The lane's state changes: pause, resume, a hold that ended.
    Lane(SchedulerState),
    /// The breaker's state changes between calls.
    Breaker(BreakerSnapshot),
    /// The runtime changes of the configuration, as JSON.
    Config(String),
    /// The clock is believed, and this is what it says.
    Clock(Timestamp),
    /// What is bad and what was.
    Alerts {
        /// The book from now on. What became of alerts since the stored one is told with it.
        book: Box<AlertBook>,
        /// What no other notice has; a part of the `webhook-id`s.
        source: String,
    },
    /// A batch is begun, or, where one has its id already, opened for more jobs.
    OpenBatch(Box<Batch>),
    /// A batch changes.
    Batch {
        /// The batch.
        id: BatchId,
        /// How.
        step: BatchStep,
        /// Now.
        at: Timestamp,
    },
    /// An order of an operator goes on record, or what became of one that is.
    Audit(Box<AuditEntry>),
    /// A client key is made.
    InsertKey(Box<ClientKey>),
    /// A client key changes.
    Key {
        /// The key.
        id: KeyId,
        /// How.
        step: KeyStep,
        /// Now.
        at: Timestamp,
    },
    /// What a batch is made of changes.
    Input(Box<InputChange>),
    /// A file changes.
    File(Box<FileChange>),
    /// A job that was submitted under another key goes to a batch, under the key that it has there. What its calls
    /// came to goes with it.
    Adopt {
        /// The job.
        job_id: JobId,
        /// The batch.
        batch: BatchId,
        /// Its submitter's key from now on.
        key: String,
    },
    /// A change that concerns deliveries.
    Delivery(Box<DeliveryChange>),
    /// A step of a pruning: rows that have ended and are old enough go.
    Prune(Box<Prune>),
    /// What a job asked for and was answered goes, once it has ended; its row, its attempts and what they cost stay.
    Forget {
        /// The job.
        job_id: JobId,
    },
    /// Somebody found out whether an attempt that was maybe billed was.
    Billing {
        /// The job.
        job_id: JobId,
        /// Which attempt.
        attempt: AttemptNo,
        /// What was found out.
        billing: Billing,
    },
}

/// What a sent or staged attempt needs: read in the transaction that stages it, so that nothing
/// waits for the disk when the slot becomes ready.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// The job, with its open attempt.
    pub job: Job,
    /// What it asks for.
    pub request: Arc<Request>,
}

/// What a store says of a change that it made.
#[derive(Debug, Clone)]
pub enum Applied {
    /// The job is on disk, as it is now (with its sequence number).
    Inserted(Arc<Job>),
    /// The same submission was on disk already: this is its job.
    Existing(Box<Job>),
    /// The same, and it belongs to the batch of this submission from now on.
    Adopted(Box<Job>),
    /// The attempt is on record.
    Dispatch(Arc<Dispatch>),
    /// The job as it is now.
    Job(Box<Job>),
    /// The same, and the jobs that were waiting for it, as they are now: free to run, or ended with
    /// it.
    Chain {
        /// The job.
        job: Box<Job>,
        /// The others.
        others: Vec<Job>,
    },
    /// The batch as it is now.
    Batch(Box<Batch>),
    /// The client key as it is now.
    Key(Box<ClientKey>),
    /// These deliveries were made, put on their way again, or forgotten.
    Deliveries(Vec<DeliveryId>),
    /// What is gone.
    Pruned(Pruned),
    /// Done; nothing to tell.
    Done,
}

/// Why a store did not make a change. Nothing of it is on disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such job.
    #[error("there is no job with this id")]
    NotFound,
    /// The job is in another state.
    #[error("the job is {}", .0.name())]
    WrongStatus(JobStatus),
    /// The outcome belongs to an attempt that is not the open one.
    #[error("attempt {given} is not the open one")]
    StaleAttempt {
        /// The attempt that was named.
        given: AttemptNo,
    },
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request, by job {0}")]
    IdempotencyConflict(JobId),
    /// A job that it was to run after does not exist.
    #[error("there is no job {0} to run after")]
    NoSuchDependency(JobId),
    /// A job that it runs after was pruned since: nobody knows any more whether it was completed.
    #[error("job {0}, which it runs after, was pruned")]
    DependencyPruned(JobId),
    /// A job that it was to run after has failed or was cancelled.
    #[error("job {job_id}, which it runs after, is {}", .status.name())]
    DependencyEnded {
        /// That job.
        job_id: JobId,
        /// Its status.
        status: JobStatus,
    },
    /// The attempt was never in doubt, or that was settled before.
    #[error("attempt {0} is not waiting to be settled")]
    BillingSettled(AttemptNo),
    /// No such delivery.
    #[error("there is no delivery {0}")]
    NoSuchDelivery(DeliveryId),
    /// The try is not the delivery's next: it ended before, or was put on its way again meanwhile.
    #[error("delivery {id} was not waiting for this try")]
    StaleTry {
        /// The delivery.
        id: DeliveryId,
    },
    /// No endpoint of this name is configured.
    #[error("there is no endpoint {0}")]
    NoSuchEndpoint(String),
    /// No such batch.
    #[error("there is no batch {0}")]
    NoSuchBatch(BatchId),
    /// The batch takes no more jobs.
    #[error("batch {0} is closed")]
    BatchClosed(BatchId),
    /// No such client key.
    #[error("there is no client key {0}")]
    NoSuchKey(KeyId),
    /// A key of this id is there, and is another.
    #[error("there is another client key {0}")]
    KeyExists(KeyId),
    /// The key was taken back, or its time is over.
    #[error("client key {0} does not open any more")]
    DeadKey(KeyId),
    /// There are as many keys as there may be, and all of them are live.
    #[error("there are {} client keys", limits::CLIENT_KEYS_MAX)]
    TooManyKeys,
    /// What the batch is made of changed meanwhile.
    #[error("what batch {0} is made of changed meanwhile")]
    StaleInput(BatchId),
    /// No such file.
    #[error("there is no file {0}")]
    NoSuchFile(FileId),
    /// Lines of the file are still to become jobs of the batch.
    #[error("file {file} is being read for batch {batch}")]
    FileInUse {
        /// The file.
        file: FileId,
        /// The batch.
        batch: BatchId,
    },
    /// What the job asked for was pruned: there is nothing to send again.
    #[error("the job's request was pruned")]
    RequestPruned,
    /// The job is new and not let in.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
}
