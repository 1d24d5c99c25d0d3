//! Whether a submission is let in, and why not.

use super::{BudgetRefusal, Pause, Timestamp};

/// Whether a submission is let in. It goes to the store with its job: only the store knows how many jobs
/// wait, and whether the job is there already. One that is gets its answer, whatever this says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Let in, unless so many jobs wait already.
    Open {
        /// The limit in force.
        max_queue_jobs: u64,
    },
    /// Not let in.
    Refused(NotAdmitted),
}

impl Admission {
    /// Why a new job is not let in beside so many that wait, if it is not.
    #[must_use]
    pub fn refuses(&self, waiting: u64) -> Option<NotAdmitted> {
        match self {
            Self::Open { max_queue_jobs } => {
                (waiting >= *max_queue_jobs).then_some(NotAdmitted::QueueFull {
                    limit: *max_queue_jobs,
                })
            }
            Self::Refused(why) => Some(why.clone()),
        }
    }
}

/// Why a submission is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// An operator closed the intake: jobs that wait are worked off, no new ones are let in.
    #[error(
        "the lane takes no new jobs until an operator resumes it: {}",
        .0.reason.as_deref().unwrap_or("it is being drained")
    )]
    Closed(Pause),
    /// Its deadline has passed: it could only fail.
    #[error("deadline: must be in the future, {0} has passed")]
    Late(Timestamp),
    /// The process lets go of the lane.
    #[error("it is shutting down")]
    Stopping,
    /// Too many jobs wait.
    #[error("the queue is full: {limit} jobs are waiting; try again later")]
    QueueFull {
        /// The limit in force.
        limit: u64,
    },
    /// The job does not fit into a budget.
    #[error(transparent)]
    OverBudget(Box<BudgetRefusal>),
    /// Its client key has handed in as many jobs within a minute as it may.
    #[error(transparent)]
    OverRate(OverRate),
}

/// A job for which the minute of its client key has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this key may hand in {allowed} jobs a minute; there is room in {} s",
    self.wait_s()
)]
pub struct OverRate {
    /// How many the key may hand in within any minute.
    pub allowed: u32,
    /// After so many milliseconds there is room for it.
    pub wait_ms: u64,
}

impl OverRate {
    /// After so many whole seconds there is room for it, at least one.
    #[must_use]
    pub const fn wait_s(&self) -> u64 {
        let seconds = self.wait_ms.div_ceil(1_000);
        if seconds == 0 { 1 } else { seconds }
    }
}
