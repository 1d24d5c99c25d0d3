//! What the lanes may still spend: a call is reserved for before it is staged or sent.
//!
//! A job that does not fit into what is left of a period makes way for the others until the next period,
//! or until somebody changes the budget. One that fits as soon as open calls have cost less than was
//! reserved for them keeps its turn: nobody behind it that shares the account takes the room before.

use std::sync::Arc;

use crate::model::{
    AttemptNo, Billing, BudgetKey, BudgetRefusal, BudgetStatus, JobEntry, JobId, Reserve, Settings,
    Timestamp, WorstCase, limits,
};
use crate::money::budget::{BudgetNews, Budgets, Fit, Ledger};
use crate::money::worst;
use crate::queue::Place;
use crate::scheduler::parked::Need;
use crate::scheduler::slot::{Slot, Staged};
use crate::scheduler::{Scheduler, routes};

impl Scheduler {
    /// Reckons the budgets of `settings` anew, from what the store says of this month and of what is in
    /// doubt. The lanes have settled nothing that is not in it.
    pub fn load_budgets(&mut self, ledger: &Ledger, settings: &Settings, now: Timestamp) {
        let mut open: Vec<(JobId, String, String, Reserve)> = Vec::new();
        let mut add = |id, user: &str, model: &str, worst, known: Option<Reserve>| {
            let by_now = worst::reserve(worst, settings, model);
            let reserve = worst::kept(known, by_now);
            open.push((id, user.to_owned(), model.to_owned(), reserve));
        };
        for orphan in self.orphans.values() {
            let job = &orphan.job;
            let known = job.open.and_then(|open| open.reserve);
            add(job.id, &job.user_id, job.sent_to(), job.worst, known);
        }
        for slot in self.slots.values() {
            match slot {
                Slot::Unknown | Slot::Idle => {}
                Slot::Starting { entry, sending, .. } => {
                    add(entry.id, &entry.user_id, &sending.model, entry.worst, None);
                }
                Slot::Busy { dispatch, .. } => {
                    let job = &dispatch.job;
                    let known = job.open.and_then(|open| open.reserve);
                    add(job.id, &job.user_id, job.sent_to(), job.worst, known);
                }
            }
        }
        for staged in self.tracks.values().flat_map(|track| track.stage.iter()) {
            let entry = &staged.entry;
            add(entry.id, &entry.user_id, &entry.model, entry.worst, None);
        }
        let open = open
            .iter()
            .map(|(id, user, model, reserve)| (*id, user.as_str(), model.as_str(), *reserve));
        let before = self.started.then_some(&self.budgets);
        let mut loaded = Budgets::load(settings, ledger, open, before, now);
        // What was to be told of the old ones still is.
        loaded.tell_first(self.budgets.take_news());
        self.budgets = loaded;
    }

    /// Whether the budgets have to be loaded again: the clock was set back.
    #[must_use]
    pub const fn needs_ledger(&self) -> bool {
        self.budgets.is_stale()
    }

    /// What is to be told of the budgets since this was asked last.
    pub fn take_budget_news(&mut self) -> Vec<BudgetNews> {
        self.budgets.take_news()
    }

    /// How the budgets stand.
    #[must_use]
    pub fn standings(&self) -> Vec<BudgetStatus> {
        self.budgets.standings()
    }

    /// Why the budgets do not let a new job of this user, model and size in, if they do not.
    #[must_use]
    pub fn refuses(&self, user: &str, model: &str, worst: WorstCase) -> Option<BudgetRefusal> {
        let reserve = worst::reserve(worst, &self.settings, model);
        self.budgets.refuses(user, model, reserve)
    }

    /// Somebody found out what an attempt cost that was maybe billed, and that is on disk.
    #[must_use]
    pub fn billed(
        &mut self,
        id: JobId,
        attempt: AttemptNo,
        billing: &Billing,
        now: Timestamp,
    ) -> Vec<super::Effect> {
        self.budgets.roll(now);
        self.budgets.resolve(id, attempt, billing);
        self.go_on(now)
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
        if self.budgets.is_empty() {
            self.take_back(displaced, now);
            return Ok(None);
        }
        let reserve = worst::reserve(entry.worst, &self.settings, model);
        // What it reserved when it was staged makes room for itself.
        self.budgets.release(entry.id);
        let mut yielding: Vec<JobId> = displaced.into_iter().collect();
        let fit = |budgets: &Budgets, yielding: &[JobId]| {
            budgets.fit(&entry.user_id, model, reserve, yielding)
        };
        let accounts = self.budgets.accounts_of(&entry.user_id, model);
        let mut fits = fit(&self.budgets, &yielding);
        if let Fit::Later(_) = fits {
            for id in self.less_urgent(place, &accounts, displaced) {
                yielding.push(id);
                fits = fit(&self.budgets, &yielding);
                if fits == Fit::Now {
                    break;
                }
            }
        }
        // Nobody takes the room that somebody before him waits for.
        let taken = |account: &&BudgetKey| {
            let shut = |(of, by): &(BudgetKey, Place)| of == *account && !place.outranks(*by);
            self.shut.iter().any(shut) || self.parked.is_behind(entry, account)
        };
        if fits == Fit::Now
            && let Some(account) = accounts.iter().find(taken)
        {
            fits = Fit::Later(account.clone());
        }
        if fits != Fit::Now {
            return Err(fits);
        }
        self.take_back(yielding, now);
        self.budgets
            .reserve(entry.id, &entry.user_id, model, reserve);
        for account in accounts {
            self.unshelve(&account, now);
        }
        Ok(Some(reserve))
    }

    /// Staged jobs that a job at `place` outranks, or whose lane is held, and that have reserved in one of these
    /// accounts; the least urgent first.
    fn less_urgent(
        &self,
        place: Place,
        accounts: &[BudgetKey],
        except: Option<JobId>,
    ) -> Vec<JobId> {
        let staged = self.tracks.iter().flat_map(|(name, track)| {
            let held = self.is_held(name);
            let yields = move |staged: &&Staged| held || place.outranks(staged.place);
            track.stage.iter().filter(yields)
        });
        let mut found: Vec<_> = staged
            .filter(|staged| Some(staged.entry.id) != except)
            .filter(|staged| {
                let id = staged.entry.id;
                accounts
                    .iter()
                    .any(|account| self.budgets.held_for(id, account) > 0)
            })
            .collect();
        found.sort_by_key(|staged| (staged.entry.priority, std::cmp::Reverse(staged.entry.seq)));
        found.iter().map(|staged| staged.entry.id).collect()
    }

    fn take_back(&mut self, jobs: impl IntoIterator<Item = JobId>, now: Timestamp) {
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

    /// A job that was taken from the line does not fit into a budget: it is put back, or waits on the parked.
    pub(super) fn make_wait(
        &mut self,
        place: Place,
        entry: JobEntry,
        fit: Fit,
        diverted: bool,
        now: Timestamp,
    ) {
        let id = entry.id;
        let need = match fit {
            Fit::Now => {
                self.line.put_back(place, entry, now);
                return;
            }
            Fit::Later(account) if account.user.is_none() => {
                // Everybody behind it shares that account: they wait where they are.
                self.shut.push((account, place));
                self.line.put_back(place, entry, now);
                return;
            }
            Fit::Later(account) => Need::Calls(account),
            Fit::Never(account) => {
                self.budgets.note_refusal(&account);
                Need::Period(account)
            }
        };
        self.parked.put(&entry, need, diverted);
        self.line.put_back(place, entry, now);
        if let Some(mut entry) = self.line.remove(id) {
            entry.dormant = true;
            self.line.insert(entry, now);
        }
    }

    /// A job leaves the line, or takes another place in it: it does not wait for room any more.
    pub(super) fn forget_shelved(&mut self, id: JobId) -> bool {
        let need = self.parked.take(id);
        if let Some(Need::Calls(account)) = &need {
            // Those behind it may be next.
            self.budgets.touch(account.clone());
        }
        need.is_some()
    }

    /// Lets those try again that wait for room, where there may be some now.
    pub(super) fn feed(&mut self, now: Timestamp) {
        self.shut.clear();
        self.budgets.roll(now);
        if self.budgets.is_stale() {
            return;
        }
        if self.budgets.take_thawed() {
            self.parked.look_at_all();
        }
        // Who was put in line and can't run for another reason keeps nobody else waiting.
        let mut accounts = self.budgets.take_freed();
        accounts.extend(std::mem::take(&mut self.called));
        for account in accounts {
            self.unshelve(&account, now);
        }
        for _ in 0..limits::BUDGET_LOOKS_AT_ONCE {
            let Some(id) = self.parked.next_to_look_at() else {
                return;
            };
            self.look_at(id, now);
        }
        self.soon = Some(now.plus_ms(1));
    }

    /// Lets the first of those who wait for open calls of this account take its place in line, if it fits.
    fn unshelve(&mut self, account: &BudgetKey, now: Timestamp) {
        for _ in 0..limits::BUDGET_LOOKS_AT_ONCE {
            let Some(id) = self.parked.first(account) else {
                return;
            };
            self.look_at(id, now);
            if self.parked.need(id).is_none() {
                // It is in line again.
                self.called.insert(account.clone());
                return;
            }
            if self.parked.first(account) == Some(id) {
                return;
            }
        }
        self.budgets.touch(account.clone());
        self.soon = Some(now.plus_ms(1));
    }

    /// Looks whether a job on the parked fits by now, and puts it where it belongs.
    fn look_at(&mut self, id: JobId, now: Timestamp) {
        let Some(entry) = self.line.get(id).filter(|entry| entry.dormant).cloned() else {
            self.parked.take(id);
            return;
        };
        let target = routes::target(&entry.model, &self.state, &self.settings);
        let model: Arc<str> = match target {
            Some(target) if *target != *entry.model => target.into(),
            _ => Arc::clone(&entry.model),
        };
        let diverted = model != entry.model;
        let reserve = worst::reserve(entry.worst, &self.settings, &model);
        let mut fit = self.budgets.fit(&entry.user_id, &model, reserve, &[]);
        if let Fit::Later(account) = &fit
            && account.user.is_some()
        {
            let accounts = self.budgets.accounts_of(&entry.user_id, &model);
            let yielding = self.less_urgent(self.line.place_of(&entry), &accounts, None);
            fit = self.budgets.fit(&entry.user_id, &model, reserve, &yielding);
        }
        let waited = self.parked.need(id).cloned();
        let need = match fit {
            Fit::Later(account) if account.user.is_some() => Need::Calls(account),
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
                self.line.release(entry, now);
                return;
            }
        };
        // Those behind it may be next.
        if let Some(Need::Calls(account)) = waited
            && need.account() != &account
        {
            self.called.insert(account);
        }
        self.parked.put(&entry, need, diverted);
    }

    /// Why a job that waits for room does.
    pub(super) fn waits_for_room(&self, entry: &JobEntry) -> Option<String> {
        let account = self.parked.need(entry.id)?.account();
        let standing = self.budgets.standing(account)?;
        let model = account.model.as_deref().unwrap_or(&entry.model);
        let needed = self
            .budgets
            .of_reserve(account, worst::reserve(entry.worst, &self.settings, model));
        let (budget, needed_told) = (&account.budget, standing.told(needed));
        if needed > standing.allowed() {
            let (allowed, period) = (standing.told(standing.allowed()), standing.period.name());
            return Some(format!(
                "it may come to {needed_told}, and budget {budget} allows {allowed} a {period}"
            ));
        }
        let left = standing.told(standing.allowed().saturating_sub(standing.gone()));
        Some(format!(
            "it may come to {needed_told}, and of budget {budget} {left} are left until {}",
            standing.until
        ))
    }

    /// Why the first of those who wait for room does.
    pub(super) fn shortage(&self) -> Option<String> {
        let entry = self.line.get(self.parked.any()?)?;
        self.waits_for_room(entry)
    }
}
