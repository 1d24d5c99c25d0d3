//! What the lanes may still spend: a call is reserved for before it is staged or sent; what does not
//! fit into a budget makes way for the others and waits for room.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::model::{
    Account, AttemptNo, Billing, JobEntry, JobId, Reserve, Seq, Settings, Standing, Timestamp,
    WorstCase, limits,
};
use crate::policy::budget::{BudgetNews, Budgets, Ledger};
use crate::policy::lane::Lane;
use crate::policy::ready::Place;
use crate::policy::slot::Slot;

/// Jobs that wait for room in a budget, by the account that they do not fit into, the most urgent first.
/// They stay in line, parked: deadlines, cancels and new priorities find them there.
#[derive(Debug, Default)]
pub(super) struct Starved(BTreeMap<Account, BTreeMap<(Reverse<i32>, Seq), JobId>>);

impl Starved {
    fn insert(&mut self, account: Account, entry: &JobEntry) {
        let of_account = self.0.entry(account).or_default();
        of_account.insert((Reverse(entry.priority), entry.seq), entry.id);
    }

    /// Takes the first of every account, `most` of each at most.
    fn take(&mut self, most: usize) -> Vec<JobId> {
        let mut taken = Vec::new();
        for jobs in self.0.values_mut() {
            for _ in 0..most {
                let Some((_, id)) = jobs.pop_first() else {
                    break;
                };
                taken.push(id);
            }
        }
        self.0.retain(|_, jobs| !jobs.is_empty());
        taken
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// What a job does not fit into.
    fn account_of(&self, entry: &JobEntry) -> Option<&Account> {
        let key = (Reverse(entry.priority), entry.seq);
        let found = self.0.iter().find(|(_, jobs)| jobs.contains_key(&key));
        found.map(|(account, _)| account)
    }
}

/// The most that a call may come to.
fn reserve_for(settings: &Settings, worst: WorstCase, model: &str) -> Reserve {
    let (prompt, completion) = (u64::from(worst.prompt), u64::from(worst.completion));
    Reserve {
        tokens: prompt.saturating_add(completion),
        cost: settings.prices.worst_case(model, prompt, completion),
    }
}

impl Lane {
    /// Reckons the budgets of `settings` anew, from what the store says of this month and of what is in
    /// doubt. The lanes have settled nothing that is not in it.
    pub fn load_budgets(&mut self, ledger: &Ledger, settings: &Settings, now: Timestamp) {
        let mut open: Vec<(JobId, String, String, Reserve)> = Vec::new();
        let mut add = |id, user: &str, model: &str, worst, known: Option<Reserve>| {
            let reserve = known.unwrap_or_else(|| reserve_for(settings, worst, model));
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
        self.budgets = Budgets::load(settings, ledger, open, now);
    }

    /// What is to be told of the budgets since this was asked last.
    pub fn take_budget_news(&mut self) -> Vec<BudgetNews> {
        self.budgets.take_news()
    }

    /// How the budgets stand.
    #[must_use]
    pub fn standings(&self) -> Vec<Standing> {
        self.budgets.standings()
    }

    /// The budget that a job of this user, model and size does not fit into now, if there is one.
    #[must_use]
    pub fn over_budget(&self, user: &str, model: &str, worst: WorstCase) -> Option<Standing> {
        let reserve = reserve_for(&self.settings, worst, model);
        let account = self.budgets.refuses(user, model, reserve)?;
        self.budgets.standing(&account)
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
        self.budgets.resolve(id, attempt, billing);
        self.go_on(now)
    }

    /// Reserves the worst that a call may come to. `Err`: it does not fit into this account.
    pub(super) fn afford(
        &mut self,
        entry: &JobEntry,
        model: &std::sync::Arc<str>,
    ) -> Result<Option<Reserve>, Account> {
        if self.budgets.is_empty() {
            return Ok(None);
        }
        let reserve = reserve_for(&self.settings, entry.worst, model);
        // What it reserved when it was staged makes room for itself.
        self.budgets.release(entry.id);
        match self.budgets.refuses(&entry.user_id, model, reserve) {
            Some(account) => Err(account),
            None => {
                self.budgets
                    .reserve(entry.id, &entry.user_id, model, reserve);
                Ok(Some(reserve))
            }
        }
    }

    /// A job that was taken from the line waits for room.
    pub(super) fn starve(
        &mut self,
        place: Place,
        entry: JobEntry,
        account: Account,
        now: Timestamp,
    ) {
        self.budgets.note_refusal(&account);
        self.starved.insert(account, &entry);
        let id = entry.id;
        self.line.put_back(place, entry, now);
        if let Some(mut entry) = self.line.remove(id) {
            entry.parked = true;
            self.line.insert(entry, now);
        }
    }

    /// Lets those try again that wait for room: all of them when a period has begun, else the first of
    /// each account when something was freed.
    pub(super) fn feed(&mut self, now: Timestamp) {
        let rolled = self.budgets.roll(now);
        if !self.budgets.take_freed() {
            return;
        }
        let most = if rolled || self.budgets.is_empty() {
            usize::MAX
        } else {
            limits::BUDGET_RETRY_JOBS
        };
        for id in self.starved.take(most) {
            if let Some(entry) = self.line.get(id).filter(|entry| entry.parked) {
                let entry = JobEntry {
                    parked: false,
                    ..entry.clone()
                };
                self.line.release(entry, now);
            }
        }
    }

    /// Why a job that waits for room does.
    pub(super) fn starved_by(&self, entry: &JobEntry) -> Option<String> {
        let account = self.starved.account_of(entry)?;
        let standing = self.budgets.standing(account)?;
        Some(format!(
            "budget {} does not allow it before {}",
            account.budget, standing.until
        ))
    }
}
