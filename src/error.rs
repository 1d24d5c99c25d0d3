//! What can go wrong for somebody who uses the lane.

use crate::config::PatchError;
use onelane_actors::ports::StoreError;
use onelane_actors::protocol::SubmitError;
use onelane_core::model::{
    AttemptNo, BatchId, BudgetRefusal, DeliveryId, Failure, FileId, HoldScope, JobId, JobStatus,
    KeyId, NotAdmitted, OverRate, Refusal, SubmissionError, Timestamp, UnpricedModel, WaitReason,
};

/// Why the lane did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input is wrong: which field, and what would be right.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, by its name in the API.
        field: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The model has no price, and the configuration refuses such.
    #[error(transparent)]
    Unpriced(UnpricedModel),
    /// A change of the configuration is wrong; nothing of it is in force.
    #[error(transparent)]
    Config(PatchError),
    /// No such job.
    #[error("there is no job {0}")]
    NotFound(JobId),
    /// The job is in a state that does not allow it.
    #[error("job {job_id} is {}; {allowed}", .status.name())]
    WrongStatus {
        /// The job.
        job_id: JobId,
        /// The status it has.
        status: JobStatus,
        /// In which it would be allowed.
        allowed: &'static str,
    },
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request, by job {0}; use a new key")]
    IdempotencyConflict(JobId),
    /// Too many jobs wait.
    #[error("the queue is full: {limit} jobs are waiting; try again later")]
    QueueFull {
        /// The limit in force.
        limit: u64,
    },
    /// An operator closed the intake: what waits is worked off, nothing new is taken.
    #[error(
        "the lane takes no new jobs until an operator resumes it: {}",
        .reason.as_deref().unwrap_or("it is being drained")
    )]
    Draining {
        /// What the operator said, if anything.
        reason: Option<String>,
    },
    /// The job does not fit into a budget.
    #[error(transparent)]
    OverBudget(Box<BudgetRefusal>),
    /// The client key has handed in as many jobs within a minute as it may.
    #[error(transparent)]
    OverRate(OverRate),
    /// What the job asked for was pruned, as retention asks: there is nothing to send again.
    #[error("the request of job {0} was pruned; submit it anew")]
    RequestPruned(JobId),
    /// A job to run after does not exist.
    #[error("there is no job {0} to run after; name jobs that were submitted before")]
    NoSuchDependency(JobId),
    /// A job that it runs after was pruned, as retention asks.
    #[error(
        "job {0}, which comes before it, was pruned, and whether it was completed is not known any more; submit this one anew"
    )]
    DependencyPruned(JobId),
    /// A job to run after has failed or was cancelled, and so will not be completed.
    #[error("job {job_id}, which comes before it, is {}; retry that one first", .status.name())]
    DependencyEnded {
        /// That job.
        job_id: JobId,
        /// Its status.
        status: JobStatus,
    },
    /// No such attempt in the call log.
    #[error("job {job_id} has no attempt {attempt} in the call log")]
    NoSuchAttempt {
        /// The job.
        job_id: JobId,
        /// Which attempt.
        attempt: AttemptNo,
    },
    /// Whether GLM billed the attempt is not, or no longer, an open question.
    #[error("attempt {attempt} of job {job_id} is not waiting to be settled")]
    BillingSettled {
        /// The job.
        job_id: JobId,
        /// Which attempt.
        attempt: AttemptNo,
    },
    /// No such batch.
    #[error("there is no batch {0}")]
    NoSuchBatch(BatchId),
    /// No such file.
    #[error("there is no file {0}")]
    NoSuchFile(FileId),
    /// A batch is still being made of the file.
    #[error(
        "file {file} is being read for batch {batch}; cancel that, or wait until its lines are jobs"
    )]
    FileInUse {
        /// The file.
        file: FileId,
        /// The batch.
        batch: BatchId,
    },
    /// The batch takes no more jobs.
    #[error("batch {0} is closed; open it again, or submit the job without a batch")]
    BatchClosed(BatchId),
    /// No such client key.
    #[error("there is no client key {0}")]
    NoSuchKey(KeyId),
    /// The client key was taken back, or its time is over.
    #[error("client key {0} does not open any more; make a new one")]
    DeadKey(KeyId),
    /// No such delivery.
    #[error("there is no delivery {0}; deliveries that have ended are forgotten after a while")]
    NoSuchDelivery(DeliveryId),
    /// No endpoint of this name is configured.
    #[error("there is no endpoint {0} in [webhooks.endpoints]")]
    NoSuchEndpoint(String),
    /// The provider may not be asked what it counts.
    #[error("GLM is not asked what it counts; set account.enabled = true")]
    AccountNotAsked,
    /// Nothing is held there.
    #[error("{0} is not held")]
    NoSuchHold(HoldScope),
    /// The job failed for good; it is kept as a dead letter.
    #[error("job {job_id} failed: {failure}")]
    JobFailed {
        /// The job.
        job_id: JobId,
        /// Why.
        failure: Box<Failure>,
    },
    /// The job was cancelled while somebody waited for it.
    #[error("job {0} was cancelled")]
    JobCancelled(JobId),
    /// Somebody waits for what will not begin in his time. Without an idempotency key the job is given up.
    #[error("{}{reason}; {}", waited(*.waited_ms), if *.goes_on { "the job goes on, ask again later with the same Idempotency-Key" } else { "the request was not kept" })]
    WaitsInVain {
        /// The job.
        job_id: JobId,
        /// How long it waited, in milliseconds, where that was the bound; else it would wait for longer.
        waited_ms: Option<u64>,
        /// What it waits for.
        reason: Box<WaitReason>,
        /// Whether it goes on.
        goes_on: bool,
        /// When that was found.
        now: Timestamp,
    },
    /// Not done within the time the waiter gave it. The job goes on.
    #[error("job {0} is not done yet; it goes on, ask for it later")]
    WaitTimeout(JobId),
    /// The store failed; whether the change is on disk is unknown. Asking again is safe.
    #[error("{0}")]
    Store(StoreError),
    /// The lane has stopped, or is stopping, and takes nothing.
    #[error("the lane has stopped: {0}")]
    Stopped(String),
}

fn waited(ms: Option<u64>) -> String {
    let told = |ms: u64| format!("its call did not begin within {} s: ", ms.div_ceil(1_000));
    ms.map(told).unwrap_or_default()
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<SubmissionError> for Error {
    fn from(error: SubmissionError) -> Self {
        match error {
            SubmissionError::Field { field, problem } => Self::Invalid {
                field: field.to_owned(),
                problem,
            },
            SubmissionError::Unpriced(model) => Self::Unpriced(model),
        }
    }
}

impl From<SubmitError> for Error {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Invalid(error) => error.into(),
            SubmitError::Store(error) => error.into(),
            SubmitError::Refused(Refusal::IdempotencyConflict(id)) => Self::IdempotencyConflict(id),
            SubmitError::Refused(Refusal::NoSuchDependency(id)) => Self::NoSuchDependency(id),
            SubmitError::Refused(Refusal::DependencyPruned(id)) => Self::DependencyPruned(id),
            SubmitError::Refused(Refusal::DependencyEnded { job_id, status }) => {
                Self::DependencyEnded { job_id, status }
            }
            SubmitError::Refused(Refusal::NoSuchBatch(id)) => Self::NoSuchBatch(id),
            SubmitError::Refused(Refusal::BatchClosed(id)) => Self::BatchClosed(id),
            SubmitError::Refused(Refusal::NoSuchFile(id)) => Self::NoSuchFile(id),
            SubmitError::Refused(Refusal::FileInUse { file, batch }) => {
                Self::FileInUse { file, batch }
            }
            SubmitError::Refused(refusal) => Self::Stopped(refusal.to_string()),
            SubmitError::NotAdmitted(why) => why.into(),
            SubmitError::Unknown => Self::Stopped(error.to_string()),
        }
    }
}

impl From<NotAdmitted> for Error {
    fn from(why: NotAdmitted) -> Self {
        match why {
            NotAdmitted::Closed(closed) => Self::Draining {
                reason: closed.reason,
            },
            NotAdmitted::Late(deadline) => Self::Invalid {
                field: "deadline".to_owned(),
                problem: format!("must be in the future, {deadline} has passed"),
            },
            NotAdmitted::Stopping => Self::Stopped(why.to_string()),
            NotAdmitted::QueueFull { limit } => Self::QueueFull { limit },
            NotAdmitted::OverBudget(refusal) => Self::OverBudget(refusal),
            NotAdmitted::OverRate(rate) => Self::OverRate(rate),
        }
    }
}

impl From<PatchError> for Error {
    fn from(error: PatchError) -> Self {
        Self::Config(error)
    }
}
