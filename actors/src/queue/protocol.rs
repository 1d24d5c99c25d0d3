//! What can be said to the queue actor, and what it answers.

use ractor::{ActorRef, RpcReplyPort};

use crate::caller::CallerMsg;
use crate::ports::StoreError;
use onelane_core::judge::conclude::Finished;
use onelane_core::life::{Applied, Refusal};
use onelane_core::model::{
    AttemptNo, Billing, BreakerSnapshot, BudgetRefusal, BudgetStatus, HoldScope, JobEntry, JobId,
    SlotId, Submission, SubmissionError, WorstCase,
};
use onelane_core::scheduler::{Decision, SchedulerSnapshot};

/// Why a submission by message was not accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitError {
    /// The submission is wrong.
    #[error(transparent)]
    Invalid(#[from] SubmissionError),
    /// The store refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// An operator closed the intake: nothing new is taken until the lane is resumed.
    #[error("the intake is closed until an operator resumes the lane")]
    IntakeClosed,
    /// The budgets do not let it in.
    #[error(transparent)]
    OverBudget(Box<BudgetRefusal>),
    /// The store failed; whether the job is on disk is unknown.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runtime was restarted meanwhile; whether the job is on disk is unknown. Ask again, with
    /// the same idempotency key if the first may have succeeded.
    #[error("the store was restarted before it answered; ask again")]
    Unknown,
}

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    /// The job.
    pub job_id: JobId,
    /// `false`: the same submission was there before.
    pub created: bool,
}

/// One commit of the queue's own, answered.
#[derive(Debug)]
pub struct Committed {
    /// The lane's ticket.
    pub ticket: u64,
    /// What the store said of each change.
    pub decisions: Vec<Decision>,
}

/// The queue's protocol. [`QueueMsg::Submit`] to [`QueueMsg::Snapshot`] are for everybody; the rest
/// is between the actors.
#[derive(Debug)]
pub enum QueueMsg {
    /// Put a job on disk and in line: plain message submission.
    Submit {
        /// The job.
        submission: Box<Submission>,
        /// Answered once the job is durable.
        reply: RpcReplyPort<Result<Submitted, SubmitError>>,
    },
    /// Tell when a job has reached a terminal status and that is on disk.
    Wait {
        /// The job.
        job_id: JobId,
        /// `true` then; `false` at once if the lane does not have the job.
        reply: RpcReplyPort<bool>,
    },
    /// Give a job up, waiting or running.
    Cancel {
        /// The job.
        job_id: JobId,
        /// Answered once that is on disk.
        reply: RpcReplyPort<Result<(), Refusal>>,
    },
    /// Put a failed, cancelled or set-aside job back in line.
    Requeue {
        /// The job.
        job_id: JobId,
        /// Answered once that is on disk.
        reply: RpcReplyPort<Result<(), Refusal>>,
    },
    /// Change a pending job's priority.
    Reprioritise {
        /// The job.
        job_id: JobId,
        /// The new priority.
        priority: i32,
        /// Answered once that is on disk.
        reply: RpcReplyPort<Result<(), Refusal>>,
    },
    /// Stop before the next call.
    Pause {
        /// What the operator says.
        reason: Option<String>,
        /// Answered once that is on disk.
        reply: RpcReplyPort<Result<(), Refusal>>,
    },
    /// Take no more jobs; what waits is worked off. [`QueueMsg::Resume`] opens the intake again.
    CloseIntake {
        /// What the operator says.
        reason: Option<String>,
        /// Answered once that is on disk.
        reply: RpcReplyPort<Result<(), Refusal>>,
    },
    /// End pause, holds and a closed intake.
    Resume {
        /// Answered once that is on disk.
        reply: RpcReplyPort<Result<(), Refusal>>,
    },
    /// End one hold, and leave the others, the pause and the intake as they are.
    Release {
        /// What is held.
        scope: HoldScope,
        /// Answered once that is on disk; `NotFound`: there is no such hold.
        reply: RpcReplyPort<Result<(), Refusal>>,
    },
    /// How the budgets stand.
    Budgets {
        /// The answer.
        reply: RpcReplyPort<Vec<BudgetStatus>>,
    },
    /// Whether the budgets let new jobs in.
    Affords {
        /// The jobs.
        jobs: Vec<Asking>,
        /// Why each is not taken, if it is not.
        reply: RpcReplyPort<Vec<Option<BudgetRefusal>>>,
    },
    /// Why a job that waits does not run, in words; `None`: it only waits for its turn, or not at all.
    WaitsFor {
        /// The job.
        job_id: JobId,
        /// The answer.
        reply: RpcReplyPort<Option<String>>,
    },
    /// It is on disk what an attempt cost that was maybe billed.
    Billed {
        /// The job.
        job_id: JobId,
        /// Which attempt.
        attempt: AttemptNo,
        /// What was found out.
        billing: Box<Billing>,
    },
    /// The lane as it is.
    Snapshot {
        /// The answer.
        reply: RpcReplyPort<SchedulerSnapshot>,
    },
    /// Send nothing more; answer when nothing is in flight and everything is stored.
    Drain {
        /// The answer.
        reply: RpcReplyPort<()>,
    },
    /// Close every open call.
    AbortAll,
    /// The settings changed; take them from the watch.
    Configure {
        /// Answered when they are in force.
        reply: RpcReplyPort<()>,
    },
    /// From the store: jobs are on disk, and commits are done.
    Stored {
        /// New jobs, in the order of their sequence.
        inserted: Vec<JobEntry>,
        /// Commits of the queue's.
        committed: Vec<Committed>,
    },
    /// From a caller: no call is open on its slot.
    Ready {
        /// The slot.
        slot: SlotId,
        /// The generation that the caller is attached to.
        generation: u64,
        /// How its last call ended.
        finished: Option<Box<Finished>>,
    },
    /// From the supervisor: there is a caller for this slot.
    CallerAdded {
        /// The slot.
        slot: SlotId,
        /// The caller.
        caller: ActorRef<CallerMsg>,
    },
    /// From the supervisor: the caller of this slot has ended.
    CallerGone {
        /// The slot.
        slot: SlotId,
    },
    /// From the breaker: it changed its state by itself.
    Breaker {
        /// The breaker as it is.
        snapshot: BreakerSnapshot,
        /// For the operator who said so: the snapshot again, once it is on disk.
        reply: Option<RpcReplyPort<BreakerSnapshot>>,
    },
    /// From the queue's own timer.
    Tick,
}

/// A job that somebody wants to submit, as budgets see it.
#[derive(Debug, Clone)]
pub struct Asking {
    /// BudgetScope job.
    pub user_id: String,
    /// For which model.
    pub model: String,
    /// Its size.
    pub worst: WorstCase,
}

/// The most jobs that may wait while the intake is closed. The store refuses a new job by it, and still
/// answers who asks again for one that it has.
pub const CLOSED_QUEUE_JOBS: u64 = 0;

/// What an insert's decision means to its submitter.
pub fn submitted(decision: Option<Result<Applied, Refusal>>) -> Result<Submitted, SubmitError> {
    match decision {
        Some(Ok(Applied::Inserted(job))) => Ok(Submitted {
            job_id: job.id,
            created: true,
        }),
        Some(Ok(Applied::Existing(job))) => Ok(Submitted {
            job_id: job.id,
            created: false,
        }),
        Some(Err(Refusal::QueueFull {
            limit: CLOSED_QUEUE_JOBS,
        })) => Err(SubmitError::IntakeClosed),
        Some(Err(refusal)) => Err(refusal.into()),
        _ => Err(SubmitError::Unknown),
    }
}
