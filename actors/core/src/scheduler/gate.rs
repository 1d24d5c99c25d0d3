//! The budget gate: a call is reserved for before it is staged or sent, and a job without room waits here
//! until there is some.
//!
//! A job that does not fit into what is left of a period makes way for the others until the next period,
//! or until somebody changes the budget. One that fits as soon as open calls have cost less than was
//! reserved for them keeps its turn: nobody behind it that shares the account takes the room before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::parked::{Need, Parked};
use super::{Track, routes};
use crate::model::{
    AttemptNo, Billing, BudgetKey, BudgetRefusal, BudgetStatuses, BudgetWait, CallRecord, JobEntry,
    JobId, Payer, Reserve, SchedulerState, Settings, Timestamp, limits,
};
use crate::money::budget::{BudgetNews, Budgets, Fit, Ledger};
use crate::money::worst;
use crate::queue::{Place, Queue};

/// The budgets, and those that wait for room in them.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate {
    budgets: Budgets,
    /// Whether the lanes run: what was reached before was told before.
    started: bool,
    /// Jobs that wait for room.
    parked: Parked,
    /// Budgets of which a job that waited here came back lately, and may not have had its turn.
    called: BTreeSet<BudgetKey>,
    /// Budgets of everybody's for whose room the most urgent job waits in this step.
    shut: Vec<(BudgetKey, Place)>,
    /// There are more to look at than one step does.
    soon: Option<Timestamp>,
}

/// What the gate sees and moves of the machine around it.
pub(super) struct Around<'a> {
    pub(super) line: &'a mut Queue,
    pub(super) tracks: &'a BTreeMap<String, Track>,
    pub(super) state: &'a SchedulerState,
    pub(super) settings: &'a Settings,
    pub(super) now: Timestamp,
}

/// A job that asks for room, for a call to this model.
#[derive(Clone, Copy)]
pub(super) struct Asks<'a> {
    pub(super) place: Place,
    pub(super) entry: &'a JobEntry,
    pub(super) model: &'a Arc<str>,
}

/// A call fits if these staged jobs are taken back.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) reserve: Reserve,
    pub(super) yielding: Vec<JobId>,
}

impl Gate {
    /// The lanes run from now on: what is reached is news.
    pub(super) const fn start(&mut self) {
        self.started = true;
    }

    /// Reckons the budgets of `settings` anew, from what the store says of this month and of what is in
    /// doubt. `open` are the reservations of open attempts, with user and model.
    pub(super) fn load<'o>(
        &mut self,
        settings: &Settings,
        ledger: &Ledger,
        open: impl IntoIterator<Item = (JobId, Payer, &'o str, Reserve)>,
        now: Timestamp,
    ) {
        let before = self.started.then_some(&self.budgets);
        let mut loaded = Budgets::load(settings, ledger, open, before, now);
        // What was to be told of the old ones still is.
        loaded.tell_first(self.budgets.take_news());
        self.budgets = loaded;
    }

    /// Whether there are no budgets.
    pub(super) fn is_open(&self) -> bool {
        self.budgets.is_empty()
    }

    /// Whether the budgets have to be loaded again: the clock was set back.
    pub(super) const fn is_stale(&self) -> bool {
        self.budgets.is_stale()
    }

    /// What is to be told since this was asked last.
    pub(super) fn take_news(&mut self) -> Vec<BudgetNews> {
        self.budgets.take_news()
    }

    /// What is gone of each.
    pub(super) fn shares(&self) -> Vec<(Option<Arc<str>>, f64)> {
        self.budgets.shares()
    }

    /// How the budgets stand, so many accounts at most.
    pub(super) fn statuses(&self, most: usize) -> BudgetStatuses {
        self.budgets.statuses(most)
    }

    /// Why a new job is not let in, if it is not.
    pub(super) fn refuses(
        &self,
        payer: &Payer,
        model: &str,
        reserve: Reserve,
    ) -> Option<BudgetRefusal> {
        self.budgets.refuses(payer, model, reserve)
    }

    /// When something changes by itself next.
    pub(super) fn next_change(&self) -> Option<Timestamp> {
        [self.budgets.next_roll(), self.soon]
            .into_iter()
            .flatten()
            .min()
    }

    /// How many jobs wait for room.
    pub(super) fn waiting(&self) -> usize {
        self.parked.len()
    }

    /// They, the most urgent first.
    pub(super) fn waiting_jobs(&self) -> impl Iterator<Item = JobId> {
        self.parked.jobs()
    }

    /// Accounts of everybody's for whose room a job at this place waits: those behind it that share one
    /// wait, too.
    pub(super) fn shut(&self) -> &[(BudgetKey, Place)] {
        &self.shut
    }

    // ---- calls -------------------------------------------------------------------------------

    /// Whether a call fits, if staged jobs that are less urgent are taken back where that helps.
    /// `displaced` is one that is taken back in any case. `less_urgent` are the others that may be.
    /// What it grants has to be taken back and then secured.
    pub(super) fn check<'s>(
        &mut self,
        asks: Asks<'_>,
        displaced: Option<JobId>,
        less_urgent: impl FnOnce() -> Vec<&'s JobEntry>,
        reserve: Reserve,
    ) -> Result<Granted, Fit> {
        let Asks {
            place,
            entry,
            model,
        } = asks;
        // What it reserved when it was staged makes room for itself.
        self.budgets.release(entry.id);
        let mut yielding: Vec<JobId> = displaced.into_iter().collect();
        let accounts = self.budgets.accounts_of(&payer_of(entry), model);
        let mut fit = self
            .budgets
            .fit(&payer_of(entry), model, reserve, &yielding);
        if let Fit::Later(_) = fit {
            for id in self.that_make_room(less_urgent(), &accounts) {
                yielding.push(id);
                fit = self
                    .budgets
                    .fit(&payer_of(entry), model, reserve, &yielding);
                if fit == Fit::Now {
                    break;
                }
            }
        }
        // Nobody takes the room that somebody before them waits for.
        let taken = |account: &&BudgetKey| {
            let shut = |(of, by): &(BudgetKey, Place)| of == *account && !place.outranks(*by);
            self.shut.iter().any(shut) || self.parked.is_behind(entry, account)
        };
        match fit {
            Fit::Now => match accounts.iter().find(taken) {
                Some(account) => Err(Fit::Later(account.clone())),
                None => Ok(Granted { reserve, yielding }),
            },
            other => Err(other),
        }
    }

    /// Reserves what was granted. Others that wait for the same accounts may fit beside it.
    pub(super) fn secure(&mut self, asks: Asks<'_>, reserve: Reserve, around: &mut Around<'_>) {
        let (entry, model) = (asks.entry, asks.model);
        self.budgets
            .reserve(entry.id, &payer_of(entry), model, reserve);
        for account in self.budgets.accounts_of(&payer_of(entry), model) {
            self.call_next(&account, around);
        }
    }

    /// A call is not made after all.
    pub(super) fn release(&mut self, id: JobId) {
        self.budgets.release(id);
    }

    /// A call has ended, and this is its row.
    pub(super) fn settle(&mut self, call: &CallRecord, now: Timestamp) {
        self.budgets.roll(now);
        self.budgets.settle(call);
    }

    /// Somebody found out what an attempt cost that was maybe billed, and that is on disk.
    pub(super) fn billed(
        &mut self,
        id: JobId,
        attempt: AttemptNo,
        billing: &Billing,
        now: Timestamp,
    ) {
        self.budgets.roll(now);
        self.budgets.resolve(id, attempt, billing);
    }

    /// Those of some staged jobs that have reserved in one of these accounts; the least urgent first.
    fn that_make_room(&self, mut staged: Vec<&JobEntry>, accounts: &[BudgetKey]) -> Vec<JobId> {
        let reserves = |id| {
            let mut held = accounts.iter();
            held.any(|account| self.budgets.held_for(id, account) > 0)
        };
        staged.retain(|entry| reserves(entry.id));
        staged.sort_by_key(|entry| (entry.priority, std::cmp::Reverse(entry.seq)));
        staged.iter().map(|entry| entry.id).collect()
    }

    // ---- those that wait ---------------------------------------------------------------------

    /// A job that was taken from the queue does not fit: it goes back, or waits for room.
    pub(super) fn turn_away(
        &mut self,
        place: Place,
        entry: JobEntry,
        model: &Arc<str>,
        fit: Fit,
        around: &mut Around<'_>,
    ) {
        let id = entry.id;
        let need = match fit {
            Fit::Now => {
                around.line.put_back(place, entry, around.now);
                return;
            }
            Fit::Later(account) if account.is_everybodys() => {
                // Everybody behind it shares that account: they wait where they are.
                self.shut.push((account, place));
                around.line.put_back(place, entry, around.now);
                return;
            }
            Fit::Later(account) => Need::Calls(account),
            Fit::Never(account) => {
                self.budgets.note_refusal(&account);
                Need::Period(account)
            }
        };
        self.parked.put(&entry, need, *model != entry.model);
        around.line.put_back(place, entry, around.now);
        if let Some(mut entry) = around.line.remove(id) {
            entry.dormant = true;
            around.line.insert(entry, around.now);
        }
    }

    /// A job leaves the queue, or takes another place in it: it does not wait for room any more. Tells
    /// whether it did.
    pub(super) fn forget(&mut self, id: JobId) -> bool {
        let need = self.parked.take(id);
        if let Some(Need::Calls(account)) = &need {
            // Those behind it may be next.
            self.budgets.touch(account.clone());
        }
        need.is_some()
    }

    /// The settings changed: all that wait are looked at again.
    pub(super) const fn look_at_all(&mut self) {
        self.parked.look_at_all();
    }

    /// The routes changed: those that were to go to another model than their own are looked at again.
    pub(super) fn look_at_diverted(&mut self) {
        self.parked.look_at_diverted();
    }

    /// Lets those try again that wait for room, where there may be some now.
    pub(super) fn feed(&mut self, around: &mut Around<'_>) {
        self.soon = None;
        self.shut.clear();
        self.budgets.roll(around.now);
        if self.budgets.is_stale() {
            return;
        }
        if self.budgets.take_thawed() {
            self.parked.look_at_all();
        }
        // A job that came back and can't run for another reason keeps nobody else waiting.
        let mut accounts = self.budgets.take_freed();
        accounts.extend(std::mem::take(&mut self.called));
        for account in accounts {
            self.call_next(&account, around);
        }
        for _ in 0..limits::BUDGET_LOOKS_AT_ONCE {
            let Some(id) = self.parked.next_to_look_at() else {
                return;
            };
            self.look_at(id, around);
        }
        self.soon = Some(around.now.plus_ms(1));
    }

    /// Lets the first of those that wait for open calls of this account take its place in the queue, if it fits.
    fn call_next(&mut self, account: &BudgetKey, around: &mut Around<'_>) {
        for _ in 0..limits::BUDGET_LOOKS_AT_ONCE {
            let Some(id) = self.parked.first(account) else {
                return;
            };
            self.look_at(id, around);
            if self.parked.need(id).is_none() {
                // It is in the queue again.
                self.called.insert(account.clone());
                return;
            }
            if self.parked.first(account) == Some(id) {
                return;
            }
        }
        self.budgets.touch(account.clone());
        self.soon = Some(around.now.plus_ms(1));
    }

    /// Looks whether a job that waits fits by now, and puts it where it belongs.
    fn look_at(&mut self, id: JobId, around: &mut Around<'_>) {
        let Some(entry) = around.line.get(id).filter(|entry| entry.dormant) else {
            self.parked.take(id);
            return;
        };
        let model = match routes::target(&entry.model, around.state, around.settings) {
            Some(target) if *target != *entry.model => Arc::from(&*target),
            _ => Arc::clone(&entry.model),
        };
        let waited = self.parked.need(id).cloned();
        let need = match self.fit_beside_less_urgent(&entry, &model, around) {
            Fit::Later(account) if !account.is_everybodys() => Need::Calls(account),
            Fit::Never(account) => {
                self.budgets.note_refusal(&account);
                Need::Period(account)
            }
            Fit::Now | Fit::Later(_) => {
                self.parked.take(id);
                if let Some(Need::Calls(account)) = waited {
                    self.called.insert(account);
                }
                let entry = JobEntry {
                    dormant: false,
                    ..entry
                };
                around.line.release(entry, around.now);
                return;
            }
        };
        // Those behind it may be next.
        if let Some(Need::Calls(account)) = waited
            && need.account() != &account
        {
            self.called.insert(account);
        }
        self.parked.put(&entry, need, model != entry.model);
    }

    /// Whether a job fits if every staged job that is less urgent makes room for it.
    fn fit_beside_less_urgent(
        &self,
        entry: &JobEntry,
        model: &Arc<str>,
        around: &Around<'_>,
    ) -> Fit {
        let reserve = worst::reserve(entry.worst, around.settings, around.state.may_answer(model));
        let fit = self.budgets.fit(&payer_of(entry), model, reserve, &[]);
        match fit {
            Fit::Later(account) if !account.is_everybodys() => {
                let accounts = self.budgets.accounts_of(&payer_of(entry), model);
                let place = around.line.place_of(entry);
                let staged = less_urgent(around.tracks, around.state, place, None);
                let yielding = self.that_make_room(staged, &accounts);
                self.budgets
                    .fit(&payer_of(entry), model, reserve, &yielding)
            }
            fit => fit,
        }
    }

    /// Why a job that waits for room does.
    pub(super) fn wait_of<N: AsRef<str>>(
        &self,
        entry: &JobEntry<N>,
        state: &SchedulerState,
        settings: &Settings,
    ) -> Option<BudgetWait> {
        let account = self.parked.need(entry.id)?.account();
        let status = self.budgets.status(account)?;
        let model = account.model.as_deref().unwrap_or(entry.model.as_ref());
        let reserve = worst::reserve(entry.worst, settings, state.may_answer(model));
        let needed = self.budgets.of_reserve(account, reserve);
        Some(BudgetWait::new(status, needed))
    }

    #[cfg(test)]
    pub(super) const fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    #[cfg(test)]
    pub(super) const fn parked(&self) -> &Parked {
        &self.parked
    }
}

/// Whose job it is, for budgets.
pub(super) fn payer_of(entry: &JobEntry) -> Payer {
    Payer {
        user: Arc::clone(&entry.user_id),
        key: entry.key,
    }
}

/// Staged jobs that a job at `place` outranks, or whose lane is held.
pub(super) fn less_urgent<'t>(
    tracks: &'t BTreeMap<String, Track>,
    state: &SchedulerState,
    place: Place,
    except: Option<JobId>,
) -> Vec<&'t JobEntry> {
    let staged = tracks.iter().flat_map(|(name, track)| {
        let lane = state.lanes.get(name);
        let is_held = lane.is_some_and(|lane| lane.hold.is_some());
        let yields = move |staged: &&super::Staged| is_held || place.outranks(staged.place);
        track.stage.iter().filter(yields)
    });
    staged
        .map(|staged| &staged.entry)
        .filter(|entry| Some(entry.id) != except)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WorstCase;
    use crate::model::{
        Amount, Budget, BudgetRefusal, BudgetRules, BudgetScope, OverBudget, Period,
    };
    use crate::testing::sample;

    /// A gate with a queue beside it, and no lane.
    struct World {
        gate: Gate,
        line: Queue,
        settings: Settings,
        state: SchedulerState,
    }

    /// One budget of so many tokens a day, for each user.
    fn each(tokens: u64) -> World {
        world(BudgetScope::Each, tokens)
    }

    fn world(users: BudgetScope, tokens: u64) -> World {
        let budget = Budget {
            name: "day".to_owned(),
            users,
            models: BudgetScope::All,
            key: None,
            limit: Amount::Tokens(tokens),
            rules: BudgetRules {
                period: Period::Day,
                warn_percent: 0,
                over: OverBudget::Wait,
            },
        };
        let mut world = World {
            gate: Gate::default(),
            line: Queue::new(),
            settings: Settings {
                budgets: vec![budget],
                ..Settings::default()
            },
            state: SchedulerState::default(),
        };
        world.load();
        world.gate.start();
        world
    }

    fn worst_case(prompt: u32) -> WorstCase {
        let completion = 0;
        WorstCase { prompt, completion }
    }

    fn job(n: u64, user: &str, tokens: u32) -> JobEntry {
        let mut job = sample::new_job(n).job;
        job.seq = crate::model::Seq(n);
        job.user_id = user.to_owned();
        job.worst = worst_case(tokens);
        job.entry()
    }

    impl World {
        fn load(&mut self) {
            let ledger = Ledger::default();
            self.gate.load(&self.settings, &ledger, [], sample::START);
        }

        fn around(&mut self) -> (&mut Gate, Around<'_>) {
            const NO_LANES: &BTreeMap<String, Track> = &BTreeMap::new();
            let around = Around {
                line: &mut self.line,
                tracks: NO_LANES,
                state: &self.state,
                settings: &self.settings,
                now: sample::START,
            };
            (&mut self.gate, around)
        }

        /// A job asks for room; without, it waits.
        fn ask(&mut self, entry: &JobEntry) -> bool {
            let place = self.line.place_of(entry);
            let model = Arc::clone(&entry.model);
            let asks = Asks {
                place,
                entry,
                model: &model,
            };
            let reserve = worst::reserve(entry.worst, &self.settings, [&*model]);
            let granted = self.gate.check(asks, None, Vec::new, reserve);
            let (gate, mut around) = self.around();
            match granted {
                Ok(granted) => {
                    assert_eq!(granted.yielding, []);
                    gate.secure(asks, granted.reserve, &mut around);
                    true
                }
                Err(fit) => {
                    gate.turn_away(place, entry.clone(), &model, fit, &mut around);
                    false
                }
            }
        }

        fn feed(&mut self) {
            let (gate, mut around) = self.around();
            gate.feed(&mut around);
        }

        /// Those that wait for room, in the queue all the same.
        fn dormant(&self) -> usize {
            assert_eq!(self.line.dormant_len(), self.gate.waiting());
            self.gate.waiting()
        }
    }

    #[test]
    fn a_call_reserves_its_worst_and_others_of_the_account_wait_for_its_end() {
        let mut world = each(100);
        assert!(world.ask(&job(1, "ada", 70)));
        assert!(!world.ask(&job(2, "ada", 40)));
        assert!(world.ask(&job(3, "bob", 40)), "bob has another account");
        assert_eq!(world.dormant(), 1);
        world.feed();
        assert_eq!(world.dormant(), 1, "nothing has ended");
        world.gate.release(sample::job_id(1));
        world.feed();
        assert_eq!((world.dormant(), world.line.ready_len()), (0, 1));
    }

    #[test]
    fn nobody_takes_the_room_that_somebody_before_them_waits_for() {
        let mut world = each(100);
        assert!(world.ask(&job(1, "ada", 70)));
        assert!(!world.ask(&job(2, "ada", 40)));
        // It would fit beside the first.
        assert!(!world.ask(&job(3, "ada", 20)));
        world.gate.forget(sample::job_id(2));
        world.line.remove(sample::job_id(2));
        world.feed();
        assert_eq!((world.dormant(), world.line.ready_len()), (0, 1));
    }

    #[test]
    fn only_who_has_reserved_in_an_account_makes_room_in_it() {
        let mut world = each(100);
        let (own, other) = (job(1, "ada", 70), job(2, "bob", 40));
        assert!(world.ask(&own) && world.ask(&other));
        let accounts = world.gate.budgets.accounts_of(&payer_of(&own), &own.model);
        let room = world.gate.that_make_room(vec![&own, &other], &accounts);
        assert_eq!(room, [own.id]);
    }

    #[test]
    fn an_account_of_everybodys_is_shut_for_those_behind_and_nobody_leaves_the_queue() {
        let mut world = world(BudgetScope::All, 100);
        assert!(world.ask(&job(1, "ada", 70)));
        assert!(!world.ask(&job(2, "bob", 40)));
        assert!(!world.ask(&job(3, "eve", 10)));
        assert_eq!((world.dormant(), world.line.ready_len()), (0, 2));
        assert_eq!(world.gate.shut().len(), 2);
        world.feed();
        assert!(world.gate.shut().is_empty(), "a step later all try again");
    }

    #[test]
    fn a_job_without_room_in_the_period_waits_for_another_budget_and_is_told() {
        let mut world = each(100);
        assert!(!world.ask(&job(1, "ada", 150)));
        let news = world.gate.take_news();
        assert!(matches!(&news[..], [news] if news.used_up));
        let wait = world
            .gate
            .wait_of(&job(1, "ada", 150), &world.state, &world.settings);
        let wait = wait.unwrap();
        assert!(wait.too_large);
        let words = "it may come to 150 tokens, and budget day allows 100 tokens a day";
        assert_eq!(wait.to_string(), words);
        let worst = worst_case(150);
        let reserve = worst::reserve(worst, &world.settings, ["glm-5"]);
        let refused = world.gate.refuses(&"ada".into(), "glm-5", reserve);
        let too_large = |refusal| {
            matches!(
                refusal,
                BudgetRefusal::TooLarge {
                    needed: Amount::Tokens(150),
                    ..
                }
            )
        };
        assert!(refused.is_some_and(too_large));
        assert!(world.ask(&job(2, "ada", 90)), "it is in nobody's way");
        world.settings.budgets[0].limit = Amount::Tokens(300);
        world.load();
        world.feed();
        assert_eq!((world.dormant(), world.line.ready_len()), (0, 1));
    }
}
