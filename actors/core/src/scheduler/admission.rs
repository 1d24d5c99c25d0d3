//! The door: every submission passes here, whether it comes as a message to the queue or through a facade.
//!
//! The way in: [`NewJob::of`](crate::model::NewJob::of), [`Intake::admit`], an insertion
//! into the store, whose decision says the rest.

use std::sync::Arc;

use crate::model::{
    Admission, BudgetRefusal, NewJob, NotAdmitted, OverRate, Pause, SchedulerState, Settings,
};

/// What decides on submissions now.
#[derive(Debug, Clone, Copy)]
pub struct Intake<'a> {
    max_queue_jobs: u64,
    closed: Option<&'a Pause>,
    is_stopping: bool,
}

impl<'a> Intake<'a> {
    /// The door of lanes in this state.
    #[must_use]
    pub const fn new(settings: &Settings, state: &'a SchedulerState) -> Self {
        Self {
            max_queue_jobs: settings.lane.max_queue_jobs,
            closed: state.draining.as_ref(),
            is_stopping: false,
        }
    }

    /// The same door, while the lane shuts down.
    #[must_use]
    pub const fn stopping(mut self, is_stopping: bool) -> Self {
        self.is_stopping = is_stopping;
        self
    }

    /// Whether a new job is let in. `over`: what budgets say against it.
    #[must_use]
    pub fn decide(&self, over: Option<BudgetRefusal>) -> Admission {
        let why = match (self.closed, over) {
            _ if self.is_stopping => NotAdmitted::Stopping,
            (Some(closed), _) => NotAdmitted::Closed(closed.clone()),
            (None, Some(over)) => NotAdmitted::OverBudget(Box::new(over)),
            (None, None) => {
                return Admission::Open {
                    max_queue_jobs: self.max_queue_jobs,
                };
            }
        };
        Admission::Refused(why)
    }

    /// Gives a job its admission. `over_rate`: its client key's minute has no room for it. A job with an idempotency
    /// key goes to the store even if it is not let in: it may be there already, and asking again is answered.
    pub fn admit(
        &self,
        mut new: Box<NewJob>,
        over: Option<BudgetRefusal>,
        over_rate: Option<OverRate>,
    ) -> Result<Arc<NewJob>, NotAdmitted> {
        let late = new.job.deadline.filter(|by| *by <= new.job.created_at);
        new.admission = match (late, over_rate) {
            (Some(deadline), _) if !self.is_stopping => {
                Admission::Refused(NotAdmitted::Late(deadline))
            }
            (None, Some(over_rate)) if !self.is_stopping => {
                Admission::Refused(NotAdmitted::OverRate(over_rate))
            }
            _ => self.decide(over),
        };
        match &new.admission {
            Admission::Refused(why) if new.job.idempotency_key.is_none() => Err(why.clone()),
            _ => Ok(Arc::from(new)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Amount, BudgetKey, BudgetStatus, OverBudget, Period, Timestamp};
    use crate::testing::sample;

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

    #[test]
    fn a_door_that_is_closed_is_closed_before_budgets_are_looked_at() {
        let mut state = SchedulerState::default();
        let settings = Settings::default();
        let open = Intake::new(&settings, &state).decide(None);
        assert_eq!(open.refuses(settings.lane.max_queue_jobs - 1), None);
        state.draining = Some(Pause {
            since: Timestamp::default(),
            reason: None,
        });
        let intake = Intake::new(&settings, &state);
        let decided = intake.decide(Some(over_budget()));
        assert!(matches!(
            decided,
            Admission::Refused(NotAdmitted::Closed(_))
        ));
        let decided = intake.stopping(true).decide(Some(over_budget()));
        assert_eq!(decided, Admission::Refused(NotAdmitted::Stopping));
    }

    #[test]
    fn a_job_beyond_the_minute_of_its_key_is_refused_with_that_unless_the_lane_shuts_down() {
        let (settings, state) = (Settings::default(), SchedulerState::default());
        let over_rate = OverRate {
            allowed: 1,
            wait_ms: 9,
        };
        let refused = |intake: Intake<'_>| {
            let new = Box::new(sample::new_job(1));
            intake.admit(new, None, Some(over_rate)).unwrap_err()
        };
        let intake = || Intake::new(&settings, &state);
        assert_eq!(refused(intake()), NotAdmitted::OverRate(over_rate));
        assert_eq!(refused(intake().stopping(true)), NotAdmitted::Stopping);
    }
}
