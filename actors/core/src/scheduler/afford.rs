//! The machine at the budget gate ([`Gate`]): what it tells the gate, and what follows from its answers.

use std::sync::Arc;

use super::gate::{Around, Asks, Gate, less_urgent, payer_of};
use super::{Effect, Scheduler};
use crate::model::{
    AttemptNo, Billing, BudgetRefusal, BudgetStatuses, JobEntry, JobId, Payer, Reserve, Settings,
    Timestamp, WorstCase,
};
use crate::money::budget::{BudgetNews, Fit, Ledger};
use crate::money::worst;
use crate::queue::Place;
use crate::scheduler::slot::Slot;

impl Scheduler {
    /// Reckons the budgets of `settings` anew, from what the store says of this month and of what is in
    /// doubt. The lanes have settled nothing that is not in it.
    pub fn load_budgets(&mut self, ledger: &Ledger, settings: &Settings, now: Timestamp) {
        let mut open: Vec<(JobId, Payer, &str, Reserve)> = Vec::new();
        let by_now =
            |worst, model: &str| worst::reserve(worst, settings, self.state.may_answer(model));
        let sent = self.slots.values().filter_map(|slot| match slot {
            Slot::Busy { dispatch, .. } => Some(&dispatch.job),
            Slot::Unknown | Slot::Idle | Slot::Starting { .. } => None,
        });
        for job in self.recovery.jobs().chain(sent) {
            let known = job.open.and_then(|open| open.reserve);
            let reserve = worst::kept(known, by_now(job.worst, job.sent_to()));
            let payer = Payer::of(&job.user_id, job.key_id);
            open.push((job.id, payer, job.sent_to(), reserve));
        }
        let starting = self.slots.values().filter_map(|slot| match slot {
            Slot::Starting { entry, sending, .. } => Some((entry, &*sending.model)),
            Slot::Unknown | Slot::Idle | Slot::Busy { .. } => None,
        });
        let staged = self.tracks.values().flat_map(|track| track.stage.iter());
        let staged = staged.map(|staged| (&staged.entry, &*staged.entry.model));
        for (entry, model) in starting.chain(staged) {
            let reserve = worst::kept(None, by_now(entry.worst, model));
            open.push((entry.id, payer_of(entry), model, reserve));
        }
        self.gate.load(settings, ledger, open, now);
    }

    /// Whether the budgets have to be loaded again: the clock was set back.
    #[must_use]
    pub const fn needs_ledger(&self) -> bool {
        self.gate.is_stale()
    }

    /// What is to be told of the budgets since this was asked last.
    pub fn take_budget_news(&mut self) -> Vec<BudgetNews> {
        self.gate.take_news()
    }

    /// How the budgets stand, so many accounts at most, by
    /// [`Budgets::statuses`](crate::money::budget::Budgets::statuses).
    #[must_use]
    pub fn statuses(&self, most: usize) -> BudgetStatuses {
        self.gate.statuses(most)
    }

    /// What is gone of each budget, by [`Budgets::shares`](crate::money::budget::Budgets::shares).
    #[must_use]
    pub fn budget_shares(&self) -> Vec<(Option<Arc<str>>, f64)> {
        self.gate.shares()
    }

    /// Why the budgets do not let a new job of this payer, model and size in, if they do not.
    #[must_use]
    pub fn refuses(&self, payer: &Payer, model: &str, worst: WorstCase) -> Option<BudgetRefusal> {
        let models = self.state.may_answer(model);
        let reserve = worst::reserve(worst, &self.settings, models);
        self.gate.refuses(payer, model, reserve)
    }

    /// Somebody found out what an attempt cost that was maybe billed, and that is on disk.
    #[must_use]
    pub fn billed(
        &mut self,
        id: JobId,
        attempt: AttemptNo,
        billing: &Billing,
        now: Timestamp,
    ) -> Vec<Effect> {
        self.gate.billed(id, attempt, billing, now);
        self.go_on(now)
    }

    /// The gate, and what it needs of the rest.
    fn at_the_gate(&mut self, now: Timestamp) -> (&mut Gate, Around<'_>) {
        let around = Around {
            line: &mut self.line,
            tracks: &self.tracks,
            state: &self.state,
            settings: &self.settings,
            now,
        };
        (&mut self.gate, around)
    }

    /// Reserves the worst that a call may come to. `displaced` is a staged job that is taken back if it
    /// fits. `Err`: it does not fit, even if every staged job that is less urgent were taken back.
    pub(super) fn afford(
        &mut self,
        place: Place,
        entry: &JobEntry,
        model: &Arc<str>,
        displaced: Option<JobId>,
        now: Timestamp,
    ) -> Result<Option<Reserve>, Fit> {
        if self.gate.is_open() {
            self.take_back(displaced, now);
            return Ok(None);
        }
        let asks = Asks {
            place,
            entry,
            model,
        };
        let (tracks, state) = (&self.tracks, &self.state);
        let reserve = worst::reserve(entry.worst, &self.settings, state.may_answer(model));
        let may_yield = || less_urgent(tracks, state, place, displaced);
        let granted = self.gate.check(asks, displaced, may_yield, reserve)?;
        self.take_back(granted.yielding, now);
        let (gate, mut around) = self.at_the_gate(now);
        gate.secure(asks, granted.reserve, &mut around);
        Ok(Some(granted.reserve))
    }

    pub(super) fn take_back(&mut self, jobs: impl IntoIterator<Item = JobId>, now: Timestamp) {
        for id in jobs {
            let staged = self
                .tracks
                .values_mut()
                .find_map(|track| track.stage.take(id));
            if let Some(staged) = staged {
                self.unstage(staged, now);
            }
        }
    }

    /// A job that was taken from the queue does not fit into a budget.
    pub(super) fn make_wait(
        &mut self,
        place: Place,
        entry: JobEntry,
        model: &Arc<str>,
        fit: Fit,
        now: Timestamp,
    ) {
        let (gate, mut around) = self.at_the_gate(now);
        gate.turn_away(place, entry, model, fit, &mut around);
    }

    /// Lets those try again that wait for room, where there may be some now.
    pub(super) fn feed(&mut self, now: Timestamp) {
        let (gate, mut around) = self.at_the_gate(now);
        gate.feed(&mut around);
    }
}
