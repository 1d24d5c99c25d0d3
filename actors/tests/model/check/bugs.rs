//! Faults that are planted in the world around the machine, to see that the checker finds them. The machine itself
//! has no switch for any of them.

use super::plan::{Fault, Plan};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Bug {
    /// The store says that a commit is done before it is on disk.
    AnswersBeforeDisk,
    /// A crash leaves the first change of a commit without the others.
    TearsCommits,
    /// A restart does not find the last of the open attempts.
    OverlooksAttempt,
    /// Which staged attempts may go out is not written down.
    ForgetsReleases,
    /// That an earlier crash left attempts in doubt is not written down.
    ForgetsDoubt,
    /// The lane is told of one slot more than it may have.
    OneSlotTooMany,
    /// A caller whose call is being closed says that it is ready before the call has ended.
    FreesTooEarly,
    /// A caller with an open call says to a new queue that it is ready.
    ReadyWhileBusy,
    /// A caller repeats a request that failed by itself.
    SendsTwice,
    /// An outcome counts for whichever attempt of its job is open.
    LosesFence,
    /// A clock that is set back ends holds.
    ClockEndsHolds,
    /// A timer waits for the moment that the wall clock has to show, however that is set back.
    SleepsByTheWall,
    /// Budgets count nothing for calls that may have been billed.
    DoubtIsFree,
    /// A half-open breaker is told as closed.
    ManyProbes,
    /// A cancellation is answered and not stored.
    CancelsInWords,
    /// Nobody wakes the lane when a delay is over.
    NeverWakes,
}

/// Where one is found, and by what.
pub(crate) struct Hunt {
    pub(crate) plan: Plan,
    /// How what is broken begins.
    pub(crate) found_by: &'static str,
}

impl Bug {
    pub(crate) const ALL: [Self; 16] = [
        Self::AnswersBeforeDisk,
        Self::TearsCommits,
        Self::OverlooksAttempt,
        Self::ForgetsReleases,
        Self::ForgetsDoubt,
        Self::OneSlotTooMany,
        Self::FreesTooEarly,
        Self::ReadyWhileBusy,
        Self::SendsTwice,
        Self::LosesFence,
        Self::ClockEndsHolds,
        Self::SleepsByTheWall,
        Self::DoubtIsFree,
        Self::ManyProbes,
        Self::CancelsInWords,
        Self::NeverWakes,
    ];

    /// A small world in which it shows.
    pub(crate) fn hunt(self) -> Hunt {
        let (jobs, slots) = match self {
            Self::AnswersBeforeDisk | Self::OverlooksAttempt => (1, 1),
            Self::SendsTwice | Self::SleepsByTheWall | Self::NeverWakes => (1, 1),
            Self::LosesFence => (1, 2),
            Self::ForgetsDoubt => (2, 2),
            Self::ManyProbes => (3, 2),
            Self::DoubtIsFree => (3, 1),
            _ => (2, 1),
        };
        let mut plan = Plan::calm(jobs, slots);
        plan.bug = Some(self);
        let found_by = match self {
            Self::AnswersBeforeDisk => {
                plan.crashes = 1;
                "a job is lost"
            }
            Self::TearsCommits | Self::ForgetsReleases => {
                plan.crashes = 1;
                "a restart now would not find"
            }
            Self::OverlooksAttempt => {
                plan.crashes = 1;
                "nothing is left to be done, and not all jobs have ended"
            }
            Self::ForgetsDoubt => {
                plan.crashes = 2;
                "a restart now would not find"
            }
            Self::OneSlotTooMany => "2 calls are open, of 1",
            Self::FreesTooEarly => {
                plan.cancels = 1;
                "an attempt is settled while its call is open"
            }
            Self::ReadyWhileBusy => {
                plan.restarts = 1;
                "an attempt is settled while its call is open"
            }
            Self::SendsTwice => {
                plan.failures = 1;
                "an attempt is sent twice"
            }
            Self::LosesFence => {
                (plan.restarts, plan.failures, plan.early_ticks) = (1, 1, 1);
                plan.faults = vec![Fault::Broken];
                "an outcome came from nowhere"
            }
            Self::ClockEndsHolds => {
                (plan.failures, plan.clock_steps) = (1, 1);
                plan.faults = vec![Fault::Throttle];
                "a held lane sends"
            }
            Self::SleepsByTheWall => {
                (plan.failures, plan.clock_steps) = (1, 1);
                "the lane waits for"
            }
            Self::DoubtIsFree => {
                plan.has_budget = true;
                plan.crashes = 2;
                "3 calls of a day whose budget is 2"
            }
            Self::ManyProbes => {
                plan.failures = 2;
                plan.faults = vec![Fault::Broken];
                "a half-open breaker lets"
            }
            Self::CancelsInWords => {
                plan.cancels = 1;
                "a job was told to be Cancelled"
            }
            Self::NeverWakes => {
                plan.failures = 1;
                "nothing is left to be done, and not all jobs have ended"
            }
        };
        Hunt { plan, found_by }
    }
}
