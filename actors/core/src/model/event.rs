//! What happened, for those who watch. An event is sent after the fact is on disk, never before.

use serde::Serialize;

use super::{
    Alert, AttemptNo, BreakerSnapshot, BudgetStatus, ClearedAlert, Cost, Failure, Hold, HoldKind,
    HoldScope, JobId, Pause, Timestamp, Usage,
};

/// A fact about a job, the lane or the runtime. Its name is said beside it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Event {
    /// A job was accepted.
    JobSubmitted {
        /// The job.
        job_id: JobId,
        /// Its priority.
        priority: i32,
    },
    /// A job's call is open.
    JobStarted {
        /// The job.
        job_id: JobId,
        /// Which attempt.
        attempt: AttemptNo,
    },
    /// A job is done and its answer stored.
    JobCompleted {
        /// The job.
        job_id: JobId,
        /// Which attempt brought the answer.
        attempt: AttemptNo,
        /// Its tokens.
        usage: Usage,
        /// Its cost, if the model has a known price.
        cost: Option<Cost>,
    },
    /// An attempt failed and the job waits for another.
    JobRetrying {
        /// The job.
        job_id: JobId,
        /// Which attempt failed.
        attempt: AttemptNo,
        /// When the next is due; `None`: as soon as the lane goes on.
        next_retry_at: Option<Timestamp>,
        /// Why.
        failure: Failure,
    },
    /// A job's call was interrupted and may have been billed: it waits until somebody looks at it.
    JobSetAside {
        /// The job.
        job_id: JobId,
        /// Which attempt was interrupted.
        attempt: AttemptNo,
    },
    /// The jobs that a job was to run after are completed: it takes its place in line.
    JobUnblocked {
        /// The job.
        job_id: JobId,
    },
    /// A job failed for good.
    JobFailed {
        /// The job.
        job_id: JobId,
        /// Which attempt.
        attempt: AttemptNo,
        /// Why.
        failure: Failure,
    },
    /// A job was cancelled.
    JobCancelled {
        /// The job.
        job_id: JobId,
    },
    /// A failed or cancelled job was put back in line by hand.
    JobRequeued {
        /// The job.
        job_id: JobId,
    },
    /// An attempt was open when the process or its caller died; maybe billed.
    AttemptInterrupted {
        /// The job.
        job_id: JobId,
        /// Which attempt.
        attempt: AttemptNo,
    },
    /// Calls stopped for a stated reason.
    LaneHeld {
        /// What is stopped.
        scope: HoldScope,
        /// The hold.
        hold: Hold,
    },
    /// A hold ended.
    LaneReleased {
        /// What was stopped.
        scope: HoldScope,
        /// Which kind.
        kind: HoldKind,
    },
    /// An operator closed the intake; what waits is worked off.
    IntakeClosed {
        /// Since when and why.
        closed: Pause,
    },
    /// An operator opened the intake again.
    IntakeOpened,
    /// An operator paused the lane.
    LanePaused {
        /// The pause.
        pause: Pause,
    },
    /// An operator resumed the lane.
    LaneResumed,
    /// The breaker changed its state.
    BreakerChanged {
        /// What it is now.
        breaker: BreakerSnapshot,
    },
    /// A budget has come to the share at which it warns. Told once a period.
    BudgetWarned {
        /// How it stands.
        status: BudgetStatus,
    },
    /// A job did not fit into a budget, for the first time in its period.
    BudgetUsedUp {
        /// How it stands.
        status: BudgetStatus,
    },
    /// Something is bad for long enough to tell somebody.
    AlertRaised {
        /// The alert.
        alert: Alert,
    },
    /// An alert is over.
    AlertCleared {
        /// The alert, with its end.
        past: ClearedAlert,
    },
    /// The runtime configuration changed.
    ConfigChanged,
    /// An actor failed and was restarted with those that depend on it.
    ActorRestarted {
        /// Which one.
        actor: &'static str,
        /// The generation from now on.
        generation: u64,
    },
}

impl Event {
    /// The event's name, as in the API: a noun, a dot, what happened to it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::JobSubmitted { .. } => "job.submitted",
            Self::JobStarted { .. } => "job.started",
            Self::JobCompleted { .. } => "job.completed",
            Self::JobRetrying { .. } => "job.retrying",
            Self::JobSetAside { .. } => "job.parked",
            Self::JobUnblocked { .. } => "job.unblocked",
            Self::JobFailed { .. } => "job.failed",
            Self::JobCancelled { .. } => "job.cancelled",
            Self::JobRequeued { .. } => "job.requeued",
            Self::AttemptInterrupted { .. } => "attempt.interrupted",
            Self::LaneHeld { .. } => "lane.held",
            Self::LaneReleased { .. } => "lane.released",
            Self::IntakeClosed { .. } => "intake.closed",
            Self::IntakeOpened => "intake.opened",
            Self::LanePaused { .. } => "lane.paused",
            Self::LaneResumed => "lane.resumed",
            Self::BreakerChanged { .. } => "breaker.changed",
            Self::BudgetWarned { .. } => "budget.warned",
            Self::BudgetUsedUp { .. } => "budget.used_up",
            Self::AlertRaised { .. } => "alert.raised",
            Self::AlertCleared { .. } => "alert.cleared",
            Self::ConfigChanged => "config.changed",
            Self::ActorRestarted { .. } => "actor.restarted",
        }
    }

    /// The job it is about, if it is about one.
    #[must_use]
    pub const fn job_id(&self) -> Option<JobId> {
        match self {
            Self::JobSubmitted { job_id, .. }
            | Self::JobStarted { job_id, .. }
            | Self::JobCompleted { job_id, .. }
            | Self::JobRetrying { job_id, .. }
            | Self::JobSetAside { job_id, .. }
            | Self::JobUnblocked { job_id }
            | Self::JobFailed { job_id, .. }
            | Self::JobCancelled { job_id }
            | Self::JobRequeued { job_id }
            | Self::AttemptInterrupted { job_id, .. } => Some(*job_id),
            _ => None,
        }
    }
}
