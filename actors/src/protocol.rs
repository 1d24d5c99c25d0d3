//! What the actors say to each other: every message of every actor, with its payload and its answer.
//!
//! | to | message | from | meaning |
//! |---|---|---|---|
//! | StoreActor ([`StoreMsg`]) | `Commit` | facade, queue, maintenance | put these changes on disk together; answered after the sync |
//! | | `Commit` of a task | caller | GLM took the call as a task: on disk before the caller waits for its answer |
//! | | `Recover` | queue | the rows that the queue starts from; the store announces everything inserted later to this queue |
//! | | `Ledger` | queue | the sums that budgets start from |
//! | | `Ping` | facade | answered after every commit that was asked before: the store works |
//! | | `Done` | itself | the transaction under way has ended |
//! | QueueActor ([`QueueMsg`]) | `Submit`, `Insert`, `Wait`, `Cancel`, `Requeue`, `Reprioritise`, `Pause`, `CloseIntake`, `Resume`, `Release`, `Budgets`, `BudgetShares`, `WaitReasons`, `ServiceOrder`, `Snapshot` | anybody | the public protocol |
//! | | `Affords`, `Billed` | facade | whether budgets let jobs in; the cost of an attempt that was maybe billed |
//! | | `Drain`, `AbortAll`, `Configure` | facade | shutdown and settings |
//! | | `Stored` | store | jobs are on disk, commits are answered |
//! | | `Ready` | caller | no call is open on this slot; how the last one ended |
//! | | `CallerAdded`, `CallerGone` | supervisor | a caller exists for this slot; it has ended |
//! | | `Breaker` | breaker | it changed its state between calls |
//! | | `Tick` | its own timer | time has passed |
//! | GlmCallerActor ([`CallerMsg`]) | `Attach` | queue | report to me, and tell your last outcome: the queue before may not have stored it |
//! | | `Run` | queue | make this call; spends the credit |
//! | | `Retire` | queue | you are not needed any more |
//! | CircuitBreakerActor ([`BreakerMsg`]) | `Attach`, `Succeeded`, `Failed`, `Configure` | queue | outcomes that say something of the service |
//! | | `Reset`, `Open` | facade | an operator closes it, or opens it, for a time or until they close it |
//! | | `Probe` | its own timer | the cool-down may be over |
//! | CostActor ([`CostMsg`]) | `Settled` | queue | a call's row is on disk |
//! | | `Answered` | caller | a call brought a prompt that GLM has counted |
//! | | `Counted` | the thread that counts | how an estimate counts that prompt |
//! | Supervisor ([`SupervisorMsg`]) | `AddCallers` | queue | these slots need callers |
//! | | `Shutdown` | facade | stop everything |
//!
//! Calls with a reply point down (queue -> breaker, store), casts may point up. No actor has a global
//! name: two orchestrators live in one process. A wait for the disk has no bound of its own; submitters see
//! a disk that hangs by their own deadlines.

use std::sync::Arc;

use ractor::{ActorRef, RpcReplyPort};
use tokio_util::sync::CancellationToken;

use crate::calls_out::CallOut;
use crate::ports::{Decisions, Recovered, StoreError};
use crate::ready_call::ReadyCall;
use onelane_core::judge::conclude::Finished;
use onelane_core::model::{
    Applied, AttemptNo, Billing, BreakerSettings, BreakerSnapshot, BudgetRefusal, BudgetStatuses,
    Cost, Day, Dispatch, Ending, HoldScope, JobEntry, JobId, NewJob, NotAdmitted, Payer, Refusal,
    Request, Settings, SlotId, Submission, SubmissionError, Substitution, Timestamp, Transition,
    Usage, WaitReason, Waiting, WorstCase,
};
use onelane_core::money::budget::Ledger;
use onelane_core::scheduler::{Decision, SchedulerSnapshot};

// ---- the queue -------------------------------------------------------------------------------

/// The queue's protocol. [`QueueMsg::Submit`] to [`QueueMsg::Snapshot`] are for everybody; the rest
/// is between the actors.
#[derive(Debug)]
pub enum QueueMsg {
    /// Put a job on disk and into the queue: plain message submission.
    Submit {
        /// The job.
        submission: Box<Submission>,
        /// Answered once the job is durable.
        reply: RpcReplyPort<Result<Submitted, SubmitError>>,
    },
    /// The same of a job that was made already. What can be sent at once is put on disk together with its start;
    /// for the rest this is a longer way to the store.
    Insert {
        /// The job.
        new: Arc<NewJob>,
        /// What the store answers.
        reply: RpcReplyPort<Result<Decisions, StoreError>>,
    },
    /// Tell when a job has reached a terminal status and that is on disk.
    Wait {
        /// The job.
        job_id: JobId,
        /// Tell of a completion as soon as it is there, on disk or not.
        early: bool,
        /// Answered then; at once if the queue does not have the job.
        reply: RpcReplyPort<Waited>,
    },
    /// Give a job up, waiting or running.
    Cancel {
        /// The job.
        job_id: JobId,
        /// Answered once that is on disk.
        reply: RpcReplyPort<Result<(), Refusal>>,
    },
    /// Put a failed, cancelled or set-aside job back into the queue.
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
        /// The operator's reason.
        reason: Option<String>,
        /// Answered once that is on disk.
        reply: RpcReplyPort<Result<(), Refusal>>,
    },
    /// Let no more jobs in; those that wait are worked off. [`QueueMsg::Resume`] opens the intake again.
    CloseIntake {
        /// The operator's reason.
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
        /// The account, lane or model.
        scope: HoldScope,
        /// Answered once that is on disk; `NotFound`: there is no such hold.
        reply: RpcReplyPort<Result<(), Refusal>>,
    },
    /// How the budgets stand, those that are nearest to their limits.
    Budgets {
        /// So many accounts at most.
        most: usize,
        /// The answer.
        reply: RpcReplyPort<BudgetStatuses>,
    },
    /// What is gone of each budget in the period under way, 1 being all.
    BudgetShares {
        /// By name; those of client keys without one.
        reply: RpcReplyPort<Vec<(Option<Arc<str>>, f64)>>,
    },
    /// Whether the budgets let new jobs in.
    Affords {
        /// The jobs.
        jobs: Vec<Asking>,
        /// For each job why the budgets do not let it in, if they do not.
        reply: RpcReplyPort<Vec<Option<BudgetRefusal>>>,
    },
    /// Why jobs that wait by their rows are not running now.
    WaitReasons {
        /// The jobs.
        jobs: Vec<Waiting>,
        /// For each job why it waits.
        reply: RpcReplyPort<Vec<WaitReason>>,
    },
    /// The first jobs in the order in which they will go.
    ServiceOrder {
        /// So many at most.
        limit: usize,
        /// The answer.
        reply: RpcReplyPort<Vec<JobId>>,
    },
    /// The cost of an attempt that was maybe billed is on disk.
    Billed {
        /// The job.
        job_id: JobId,
        /// Which attempt.
        attempt: AttemptNo,
        /// The operator's finding.
        billing: Box<Billing>,
    },
    /// The lanes as they are.
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
    /// From the store: the disk is full, and nothing may be sent since no outcome could be stored; or it has room again.
    Disk {
        /// Whether it is full.
        is_full: bool,
    },
    /// From the store: jobs are on disk, and commits are done.
    Stored {
        /// New jobs, in the order of their sequence.
        inserted: Vec<JobEntry>,
        /// Commits of the queue's.
        committed: Vec<Committed>,
    },
    /// From a caller: no call is open on its slot, but the one that it went on with.
    Ready {
        /// The slot.
        slot: SlotId,
        /// The generation that the caller is attached to.
        generation: u64,
        /// How its last call ended, if it has made one.
        report: Option<Box<Report>>,
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
        /// For the operator who ordered it: the snapshot again, once it is on disk.
        reply: Option<RpcReplyPort<BreakerSnapshot>>,
    },
    /// From the queue's own timer.
    Tick,
}

/// Why a submission by message was not accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitError {
    /// The submission is wrong.
    #[error(transparent)]
    Invalid(#[from] SubmissionError),
    /// The store refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The job is new and not let in.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// The store failed; whether the job is on disk is unknown.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Actors were restarted meanwhile; whether the job is on disk is unknown. Ask again, with
    /// the same idempotency key if the first may have succeeded.
    #[error("the store was restarted before it answered; ask again")]
    Unknown,
}

/// The answer to a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    /// The job.
    pub job_id: JobId,
    /// `false`: the same submission was there before.
    pub created: bool,
}

/// A job that is to be submitted, as budgets see it.
#[derive(Debug, Clone)]
pub struct Asking {
    /// Whose job.
    pub payer: Payer,
    /// For which model.
    pub model: String,
    /// Its size.
    pub worst: WorstCase,
}

/// One commit of the queue's own, answered.
#[derive(Debug)]
pub struct Committed {
    /// The queue's ticket.
    pub ticket: u64,
    /// The store's decision on each change.
    pub decisions: Vec<Decision>,
}

/// The submitter's answer that follows from the decision on an insert.
pub fn submitted(decision: Option<Result<Applied, Refusal>>) -> Result<Submitted, SubmitError> {
    match decision {
        Some(Ok(Applied::Inserted(job))) => Ok(Submitted {
            job_id: job.id,
            created: true,
        }),
        Some(Ok(Applied::Existing(job) | Applied::Adopted(job))) => Ok(Submitted {
            job_id: job.id,
            created: false,
        }),
        Some(Err(Refusal::NotAdmitted(why))) => Err(why.into()),
        Some(Err(refusal)) => Err(refusal.into()),
        _ => Err(SubmitError::Unknown),
    }
}

// ---- callers ---------------------------------------------------------------------------------

/// The caller's protocol.
#[derive(Debug)]
pub enum CallerMsg {
    /// Report to this queue from now on, and say at once that you are ready, with the outcome of
    /// your last run: the queue before may not have stored it. Answered by [`QueueMsg::Ready`].
    Attach {
        /// The generation of the queue.
        generation: u64,
        /// The queue.
        queue: ActorRef<QueueMsg>,
    },
    /// Make this call. Answered by [`QueueMsg::Ready`] when it has ended.
    Run(Box<RunOrder>),
    /// You are not needed any more.
    Retire,
}

/// What a caller has to say.
#[derive(Debug)]
pub struct Report {
    /// How its last call ended.
    pub last: Finished,
    /// How the one before ended, where the queue that was told of it is gone and may not have stored it.
    pub before: Option<Finished>,
    /// What lay ready and is under way since.
    pub went_on_with: Option<JobId>,
}

/// One call to make.
#[derive(Debug)]
pub struct RunOrder {
    /// The job, with its open attempt.
    pub dispatch: Arc<Dispatch>,
    /// The settings in force when it was sent.
    pub settings: Arc<Settings>,
    /// Cancelled when the call is to be closed.
    pub abort: CancellationToken,
    /// The call itself, where it was made ready before its time.
    pub(crate) ready: Option<ReadyCall>,
    /// Counts it as out until it is over.
    pub(crate) out: CallOut,
}

// ---- the store -------------------------------------------------------------------------------

/// The store actor's protocol.
#[derive(Debug)]
pub enum StoreMsg {
    /// Put these changes on disk, together, in one transaction. The answer comes after the fsync.
    Commit(CommitRequest),
    /// Answer with the rows that the queue starts from. Every job inserted from then on is announced to this queue,
    /// every one before is in the answer: none falls between.
    Recover {
        /// The queue that asks.
        queue: ActorRef<QueueMsg>,
        /// The answer.
        reply: RpcReplyPort<Result<Recovered, StoreError>>,
    },
    /// Answer with the sums that the budgets start from: with every commit that was asked before, without any
    /// that is asked after.
    Ledger {
        /// The first day of the month.
        month: Day,
        /// The answer.
        reply: RpcReplyPort<Result<Ledger, StoreError>>,
    },
    /// Answer once every commit that was asked before has ended: then the store works.
    Ping {
        /// The answer.
        reply: RpcReplyPort<()>,
    },
    /// The transaction under way has ended.
    Done(CommitEnd),
    /// The disk was full: look whether it has room by now.
    TryAgain,
}

/// How a transaction ended.
#[derive(Debug)]
pub enum CommitEnd {
    /// It is on disk.
    Stored,
    /// The disk is full. What the queue had asked for is given back, to be stored when there is room.
    Full {
        /// In the store's words.
        error: StoreError,
        /// The queue's changes.
        kept: Vec<CommitRequest>,
        /// Jobs whose submitters were refused, which are on disk perhaps all the same.
        unheard: Vec<JobId>,
    },
    /// It failed in another way.
    Failed(StoreError),
}

/// Changes that belong together, and where the answer goes.
#[derive(Debug)]
pub struct CommitRequest {
    /// The changes, in order.
    pub transitions: Vec<Transition>,
    /// Where the answer goes.
    pub reply: CommitReply,
}

/// What who waited for a job is told.
#[derive(Debug)]
pub enum Waited {
    /// The queue does not have the job.
    NotHere,
    /// It has ended, with this where it ended with a call. The rest is in the store.
    Ended(Option<Box<Ending>>),
}

/// Where the answer to a commit goes.
#[derive(Debug)]
pub enum CommitReply {
    /// To a reply port.
    Port(RpcReplyPort<Result<Decisions, StoreError>>),
    /// To the queue, under its ticket.
    Queue {
        /// The ticket.
        ticket: u64,
    },
    /// The same, and what became of the first change, the insertion of a job, to a reply port.
    Inserted {
        /// The ticket.
        ticket: u64,
        /// Who submitted the job.
        port: RpcReplyPort<Result<Decisions, StoreError>>,
    },
}

// ---- the breaker -----------------------------------------------------------------------------

/// The breaker's protocol.
#[derive(Debug)]
pub enum BreakerMsg {
    /// Report changes to this queue, and take over the state that was stored, unless calls have
    /// been recorded since.
    Attach {
        /// The queue.
        queue: ActorRef<QueueMsg>,
        /// The breaker as the store has it.
        stored: Option<BreakerSnapshot>,
        /// Answered when the watch shows the breaker as it is.
        reply: RpcReplyPort<()>,
    },
    /// A call brought an answer.
    Succeeded {
        /// The breaker after it; `None`: the sender does not wait.
        reply: Option<RpcReplyPort<BreakerSnapshot>>,
    },
    /// A call failed in a way that says something of the service.
    Failed {
        /// The failure in short.
        reason: String,
        /// Whether it opens the breaker by itself ([`onelane_core::model::BreakerRule::Open`]).
        at_once: bool,
        /// The breaker after it.
        reply: RpcReplyPort<BreakerSnapshot>,
    },
    /// An operator closes it.
    Reset {
        /// The breaker after it, once that is on disk.
        reply: RpcReplyPort<BreakerSnapshot>,
    },
    /// An operator opens it: no call goes out until an operator resets it, or until the time is over.
    Open {
        /// The operator's reason.
        reason: String,
        /// Until when; `None`: until it is reset.
        until: Option<Timestamp>,
        /// The breaker after it, once that is on disk.
        reply: RpcReplyPort<BreakerSnapshot>,
    },
    /// The settings changed.
    Configure(BreakerSettings),
    /// The cool-down, or the time for which an operator opened it, may be over.
    Probe,
}

// ---- costs -----------------------------------------------------------------------------------

/// The cost actor's protocol.
#[derive(Debug)]
pub enum CostMsg {
    /// A call was settled: its row is on disk.
    Settled {
        /// Its tokens.
        usage: Usage,
        /// Its cost, if it is known.
        cost: Option<Cost>,
        /// The model, when it was billed at a cost that is not known.
        unpriced: Option<String>,
        /// The model that was called and the one that answered in its place, with what that means for the cost.
        substituted: Option<(String, String, Substitution)>,
    },
    /// A call brought a prompt that GLM has counted.
    Answered(Sample),
    /// Such a prompt was counted again.
    Counted {
        /// The model that it was sent to.
        model: String,
        /// Its tokens as an estimate counts them.
        estimated_tokens: u64,
        /// Its tokens as GLM counted them.
        counted_tokens: u64,
    },
}

/// A call whose prompt GLM has counted.
#[derive(Debug)]
pub struct Sample {
    /// The model that it was sent to.
    pub model: String,
    /// The request.
    pub request: Arc<Request>,
    /// The tokens of its prompt as GLM counted them.
    pub counted_tokens: u64,
}

// ---- the supervisor --------------------------------------------------------------------------

/// The supervisor's protocol.
#[derive(Debug)]
pub enum SupervisorMsg {
    /// From the queue: these slots need callers.
    AddCallers {
        /// The queue's generation; the supervisor ignores an earlier one.
        generation: u64,
        /// The slots.
        slots: Vec<SlotId>,
    },
    /// The store seems to be lost: look, and if so stop everything at once.
    StoreLost,
    /// Stop everything. Open calls should have ended before: one that has not is closed, and found as
    /// interrupted at the next start.
    Shutdown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Store;
    use crate::testing::{MemoryStore, sample};
    use onelane_core::model::{
        Amount, BudgetKey, BudgetStatus, NewJob, NotAdmitted, OverBudget, OverRate, Pause, Period,
        SchedulerState,
    };
    use onelane_core::scheduler::admission::Intake;

    fn over_budget() -> BudgetRefusal {
        BudgetRefusal::UsedUp {
            status: BudgetStatus {
                account: BudgetKey {
                    key: None,
                    budget: "day".into(),
                    user: None,
                    model: None,
                },
                limit: Amount::Tokens(100),
                period: Period::Day,
                over: OverBudget::Refuse,
                spent: Amount::Tokens(90),
                reserved: Amount::Tokens(0),
                in_doubt: Amount::Tokens(0),
                left: Amount::Tokens(10),
                warned: false,
                short: false,
                until: Timestamp::default(),
            },
            needed: Amount::Tokens(20),
        }
    }

    type Case = (
        SchedulerState,
        bool,
        Settings,
        Option<BudgetRefusal>,
        Option<OverRate>,
    );

    /// Each reason with the lanes that give it: one that is new does not compile until it is here.
    fn case(why: &NotAdmitted) -> Case {
        let (mut state, mut stopping) = (SchedulerState::default(), false);
        let (mut settings, mut over, mut over_rate) = (Settings::default(), None, None);
        match why {
            NotAdmitted::Closed(pause) => state.draining = Some(pause.clone()),
            NotAdmitted::Late(_) => {}
            NotAdmitted::Stopping => stopping = true,
            NotAdmitted::QueueFull { limit } => settings.lane.max_queue_jobs = *limit,
            NotAdmitted::OverBudget(refusal) => over = Some((**refusal).clone()),
            NotAdmitted::OverRate(rate) => over_rate = Some(*rate),
        }
        (state, stopping, settings, over, over_rate)
    }

    /// Submits as every way in does.
    fn submit(
        store: &MemoryStore,
        intake: &Intake<'_>,
        settings: &Settings,
        n: u8,
        key: Option<&str>,
        (over, over_rate): (Option<BudgetRefusal>, Option<OverRate>),
        deadline: Option<Timestamp>,
    ) -> Result<Submitted, SubmitError> {
        let mut submission = Submission::prompt("hi").unwrap();
        submission.deadline = deadline.map(Into::into);
        submission.idempotency_key = key.map(str::to_owned);
        let id = JobId::from_bytes([n; 16]);
        let new = NewJob::of(submission, settings, id, sample::START)?;
        let new = intake.admit(Box::new(new), over, over_rate)?;
        let inserted = store.commit(&[Transition::Insert(new)]);
        submitted(inserted.unwrap().pop())
    }

    fn jobs(store: &MemoryStore) -> u64 {
        store.counts().unwrap().total()
    }

    #[test]
    fn every_reason_is_told_at_the_door_and_asking_again_is_answered() {
        let closed = Pause {
            since: sample::START,
            reason: Some("moving".to_owned()),
        };
        let reasons = [
            (
                NotAdmitted::Closed(closed),
                "the lane takes no new jobs until an operator resumes it: moving",
            ),
            (NotAdmitted::Stopping, "it is shutting down"),
            (
                NotAdmitted::Late(sample::START),
                "deadline: must be in the future, 2026-11-23T00:00:00.000Z has passed",
            ),
            (
                NotAdmitted::QueueFull { limit: 1 },
                "the queue is full: 1 jobs are waiting; try again later",
            ),
            (
                NotAdmitted::OverBudget(Box::new(over_budget())),
                "the job may come to 20 tokens, and of budget day 10 tokens are left until \
                 1970-01-01T00:00:00.000Z; it was not taken",
            ),
            (
                NotAdmitted::OverRate(OverRate {
                    allowed: 3,
                    wait_ms: 1_001,
                }),
                "this key may hand in 3 jobs a minute; there is room in 2 s",
            ),
        ];
        for (why, told) in reasons {
            let (state, stopping, settings, over, over_rate) = case(&why);
            let store = MemoryStore::new();
            let open = SchedulerState::default();
            let was_open = Intake::new(&settings, &open);
            let nothing = (None, None);
            let first = submit(&store, &was_open, &settings, 1, Some("a"), nothing, None).unwrap();
            assert!(first.created);

            let intake = Intake::new(&settings, &state).stopping(stopping);
            let late = matches!(why, NotAdmitted::Late(_)).then_some(sample::START);
            let over = || (over.clone(), over_rate);
            let ask = |n, key| submit(&store, &intake, &settings, n, key, over(), late);
            let again = ask(2, Some("a")).unwrap();
            assert_eq!(again.job_id, first.job_id, "{why:?}");
            assert!(!again.created, "{why:?}");
            for key in [None, Some("b")] {
                let refused = ask(3, key).unwrap_err();
                assert_eq!(refused.to_string(), told);
                assert!(matches!(refused, SubmitError::NotAdmitted(is) if is == why));
            }
            assert_eq!(jobs(&store), 1, "{why:?}");
        }
    }
}
