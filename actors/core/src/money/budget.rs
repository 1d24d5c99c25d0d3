//! Budgets: what may still be spent. A call is made only if the worst that it may come to fits into
//! every budget that counts it; that much is reserved until its real cost is known.
//!
//! What was spent is never stored by itself: it is the sum of the usage rows of the period, and what
//! is reserved is on record with the open attempts and with the calls that were maybe billed. So
//! nothing can be lost or counted twice by a crash, and a budget may be changed at any moment.

mod accounts;
mod news;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use accounts::{Accounts, Counter};

use crate::model::{
    Amount, AttemptNo, Billing, Budget, BudgetKey, BudgetRefusal, BudgetStatus, Calendar,
    CallRecord, Cost, Currency, Day, JobId, OverBudget, Payer, Period, Reserve, Settings,
    Timestamp, UsageRow, Wait,
};

/// What budgets are reckoned from after a start or a change: all of it from one moment of the store.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// The usage rows since [`Budgets::since`].
    pub usage: Vec<UsageRow>,
    /// The calls that were maybe billed, where nobody has found out yet.
    pub doubt: Vec<CallRecord>,
}

/// A limit was reached, or the share of it at which it warns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetNews {
    /// How the account stands.
    pub status: BudgetStatus,
    /// `true`: something did not fit; `false`: a warning.
    pub used_up: bool,
}

/// Whether a call may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// Its worst fits into every budget.
    Now,
    /// It fits into this account as soon as calls that are open have ended, unless they cost what was
    /// reserved for them.
    Later(BudgetKey),
    /// It does not fit into this account before the next period, whatever the open calls come to.
    Never(BudgetKey),
}

/// A reservation, and whom it is for.
#[derive(Debug, Clone)]
struct Reserved {
    payer: Payer,
    model: Arc<str>,
    reserve: Reserve,
}

/// The budgets in force and how they stand.
#[derive(Debug, Clone, Default)]
pub struct Budgets {
    budgets: BTreeMap<Arc<str>, Budget>,
    calendar: Calendar,
    today: Day,
    accounts: Accounts,
    /// What open attempts have reserved. It counts for whichever period it is.
    open: BTreeMap<JobId, Reserved>,
    /// The same, by account.
    held: BTreeMap<BudgetKey, u64>,
    /// What calls that were maybe billed keep reserved, in the period of this day.
    doubt: BTreeMap<(JobId, AttemptNo), (Reserved, Day)>,
    /// How long they keep it, in milliseconds; and which of them ends when, where they do.
    lapses_ms: Option<u64>,
    lapses: BTreeSet<(Timestamp, (JobId, AttemptNo))>,
    news: Vec<BudgetNews>,
    freed: BTreeSet<BudgetKey>,
    thawed: bool,
    stale: bool,
}

impl Budgets {
    /// The first day of which usage rows are asked for.
    #[must_use]
    pub fn since(calendar: &Calendar, now: Timestamp) -> Day {
        calendar.day(now).month()
    }

    /// Reckons how the budgets of `settings` stand. `open` are the reservations of open attempts, with
    /// user and model. `before` are those in force until now; `None` after a start, when what has been
    /// reached was told before.
    #[must_use]
    pub fn load<'a>(
        settings: &Settings,
        ledger: &Ledger,
        open: impl IntoIterator<Item = (JobId, Payer, &'a str, Reserve)>,
        before: Option<&Self>,
        now: Timestamp,
    ) -> Self {
        let mut budgets = Self {
            budgets: settings
                .budgets
                .iter()
                .map(|budget| (Arc::from(budget.name.as_str()), budget.clone()))
                .collect(),
            calendar: settings.calendar,
            today: settings.calendar.day(now),
            lapses_ms: settings.in_doubt.doubt_lapses_ms,
            thawed: true,
            ..Self::default()
        };
        if budgets.is_empty() {
            return budgets;
        }
        for row in &ledger.usage {
            let payer = Payer::of(&row.key.user_id, row.key.key_id);
            for account in budgets.accounts_of(&payer, &row.key.model.as_str().into()) {
                let spent = budgets.amount(
                    &account,
                    |currency| row.budgeted(currency),
                    row.budgeted_tokens(),
                );
                if spent > 0 {
                    budgets.change(&account, row.key.day, |counter| {
                        counter.spent = counter.spent.saturating_add(spent);
                    });
                }
            }
        }
        for (id, payer, model, reserve) in open {
            budgets.reserve(id, &payer, &model.into(), reserve);
        }
        let since = Self::since(&settings.calendar, now);
        for call in ledger.doubt.iter().filter(|call| call.day() >= since) {
            budgets.keep(call);
        }
        budgets.lapse(now);
        budgets.remember_what_was_told(before);
        budgets
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.budgets.is_empty()
    }

    /// Whether a call fits, with the reservations of the jobs `without` given back.
    #[must_use]
    pub fn fit(&self, payer: &Payer, model: &Arc<str>, reserve: Reserve, without: &[JobId]) -> Fit {
        let mut later = None;
        for account in self.accounts_of(payer, model) {
            let more = self.of_reserve(&account, reserve);
            // A call that is not counted here is not stopped here, whatever else was spent.
            if more == 0 || !self.over(&account).stops() {
                continue;
            }
            let allowed = self.allowed(&account);
            let needed = self.gone(&account).saturating_add(more);
            if needed > allowed {
                return Fit::Never(account);
            }
            let held = self.held.get(&account).copied().unwrap_or(0);
            let given_back: u64 = without.iter().map(|id| self.held_for(*id, &account)).sum();
            if later.is_none() && needed.saturating_add(held.saturating_sub(given_back)) > allowed {
                later = Some(account);
            }
        }
        later.map_or(Fit::Now, Fit::Later)
    }

    /// What a job has reserved in an account.
    #[must_use]
    pub fn held_for(&self, id: JobId, account: &BudgetKey) -> u64 {
        let Some(reserved) = self.open.get(&id) else {
            return 0;
        };
        let counts = self
            .accounts_of(&reserved.payer, &reserved.model)
            .contains(account);
        if counts {
            self.of_reserve(account, reserved.reserve)
        } else {
            0
        }
    }

    /// Why a new job is not taken, if it is not: it never fits, or it does not fit into what is left of this
    /// period and the budget's owner wants that told at the door.
    #[must_use]
    pub fn refuses(&self, payer: &Payer, model: &str, reserve: Reserve) -> Option<BudgetRefusal> {
        let accounts = self.accounts_of(payer, &model.into());
        let stopping = accounts.iter().filter(|account| self.over(account).stops());
        let needs = stopping.map(|account| (account, self.of_reserve(account, reserve)));
        let needs: Vec<_> = needs.filter(|(_, needed)| *needed > 0).collect();
        let large = needs
            .iter()
            .find(|(account, needed)| *needed > self.allowed(account));
        if let Some((account, needed)) = large {
            let status = self.status(account)?;
            let needed = status.limit.of(*needed);
            return Some(BudgetRefusal::TooLarge { status, needed });
        }
        let (account, needed) = needs.into_iter().find(|(account, needed)| {
            self.over(account) == OverBudget::Refuse
                && self.gone(account).saturating_add(*needed) > self.allowed(account)
        })?;
        let status = self.status(account)?;
        let needed = status.limit.of(needed);
        Some(BudgetRefusal::UsedUp { status, needed })
    }

    /// Reserves what a call may come to.
    pub fn reserve(&mut self, id: JobId, payer: &Payer, model: &Arc<str>, reserve: Reserve) {
        if self.is_empty() {
            return;
        }
        self.release(id);
        let reserved = Reserved {
            payer: payer.clone(),
            model: Arc::clone(model),
            reserve,
        };
        for account in self.accounts_of(payer, model) {
            let amount = self.of_reserve(&account, reserve);
            let held = self.held.entry(account).or_default();
            *held = held.saturating_add(amount);
        }
        self.open.insert(id, reserved);
    }

    /// A call is not made after all, or has ended.
    pub fn release(&mut self, id: JobId) {
        let Some(reserved) = self.open.remove(&id) else {
            return;
        };
        for account in self.accounts_of(&reserved.payer, &reserved.model) {
            let amount = self.of_reserve(&account, reserved.reserve);
            if let Some(held) = self.held.get_mut(&account) {
                *held = held.saturating_sub(amount);
                if *held == 0 {
                    self.held.remove(&account);
                }
            }
            self.freed.insert(account);
        }
    }

    /// A call has ended: what it really cost takes the place of the reserve. What is not known
    /// stays reserved until somebody finds out; what nobody will ever find out is taken for spent.
    pub fn settle(&mut self, call: &CallRecord) {
        if self.is_empty() {
            return;
        }
        self.release(call.job_id);
        let payer = Payer::of(&call.user_id, call.key_id);
        let model = call.model.as_str().into();
        self.spend(
            call.day(),
            &payer,
            &model,
            call.cost,
            call.usage.total_tokens,
        );
        if let Some(assumed) = call.assumed() {
            self.spend(call.day(), &payer, &model, assumed.cost, assumed.tokens);
        }
        self.keep(call);
    }

    /// Somebody found out what a call that was maybe billed cost.
    pub fn resolve(&mut self, id: JobId, attempt: AttemptNo, billing: &Billing) {
        let Some((reserved, day)) = self.drop_doubt(&(id, attempt)) else {
            return;
        };
        if billing.billed {
            let tokens = billing.usage.total_tokens;
            self.spend(day, &reserved.payer, &reserved.model, billing.cost, tokens);
        }
    }

    fn drop_doubt(&mut self, key: &(JobId, AttemptNo)) -> Option<(Reserved, Day)> {
        let (reserved, day) = self.doubt.remove(key)?;
        self.count_doubt(&reserved, day, u64::saturating_sub);
        self.thawed = true;
        Some((reserved, day))
    }

    /// Keeps no longer what was kept long enough; where the clock was set back, for no longer than it was to.
    fn lapse(&mut self, now: Timestamp) {
        if let Some(ms) = self.lapses_ms
            && self
                .lapses
                .last()
                .is_some_and(|(at, _)| *at > now.plus_ms(ms))
        {
            let all = std::mem::take(&mut self.lapses).into_iter();
            self.lapses = all
                .map(|(until, key)| {
                    let wait = Wait {
                        until,
                        length_ms: ms,
                    };
                    (wait.end(now), key)
                })
                .collect();
        }
        while let Some((at, key)) = self.lapses.first().copied().filter(|(at, _)| *at <= now) {
            self.lapses.remove(&(at, key));
            self.drop_doubt(&key);
        }
    }

    /// Time has passed, or the clock was set: another day, with what was spent in it; and doubts that have lapsed.
    pub fn roll(&mut self, now: Timestamp) {
        self.lapse(now);
        let today = self.calendar.day(now);
        if self.is_empty() || today == self.today {
            return;
        }
        // What was spent on a day that had passed may have been forgotten.
        self.stale |= today < self.today;
        self.today = today;
        self.accounts.turn(&self.budgets, today);
        self.thawed = true;
    }

    /// The accounts in which something that was reserved is free again since this was asked last.
    pub fn take_freed(&mut self) -> BTreeSet<BudgetKey> {
        std::mem::take(&mut self.freed)
    }

    /// An account in which room may have come by other means.
    pub fn touch(&mut self, account: BudgetKey) {
        self.freed.insert(account);
    }

    /// Whether what did not fit into a period may fit now: another period, other budgets, or a doubt
    /// that is none any more. Since this was asked last.
    pub fn take_thawed(&mut self) -> bool {
        std::mem::take(&mut self.thawed)
    }

    /// Whether the clock was set back, so that they have to be reckoned anew.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        self.stale
    }

    /// When the next period begins, or a doubt lapses before.
    #[must_use]
    pub fn next_roll(&self) -> Option<Timestamp> {
        let lapse = self.lapses.first().map(|(at, _)| *at);
        let roll = (!self.is_empty()).then(|| Period::Day.end(&self.calendar, self.today));
        [lapse, roll].into_iter().flatten().min()
    }

    /// The accounts that a call is counted in.
    #[must_use]
    pub fn accounts_of(&self, payer: &Payer, model: &Arc<str>) -> Vec<BudgetKey> {
        let user = &payer.user;
        self.budgets
            .iter()
            .filter(|(_, budget)| budget.key.is_none() || budget.key == payer.key)
            .filter_map(|(name, budget)| {
                Some(BudgetKey {
                    budget: Arc::clone(name),
                    key: budget.key,
                    user: budget.users.counted_as(user)?.map(|_| Arc::clone(user)),
                    model: budget.models.counted_as(model)?.map(|_| Arc::clone(model)),
                })
            })
            .collect()
    }

    fn first_day(&self, account: &BudgetKey, day: Day) -> Option<Day> {
        let budget = self.budgets.get(&account.budget)?;
        Some(budget.rules.period.first_day(day))
    }

    fn current(&self, account: &BudgetKey) -> Counter {
        let first = self.first_day(account, self.today);
        let counter = first.and_then(|day| self.accounts.counter(account, day));
        counter.unwrap_or_default()
    }

    fn gone(&self, account: &BudgetKey) -> u64 {
        self.current(account).gone()
    }

    /// Changes what an account has come to in the period of a day.
    fn change<T>(
        &mut self,
        account: &BudgetKey,
        day: Day,
        change: impl FnOnce(&mut Counter) -> T,
    ) -> T {
        let first = self.first_day(account, day).unwrap_or(day);
        let is_under_way = self.first_day(account, self.today) == Some(first);
        let rules = (&self.budgets, is_under_way);
        self.accounts.change((account, first), rules, change)
    }

    fn over(&self, account: &BudgetKey) -> OverBudget {
        let budget = self.budgets.get(&account.budget);
        budget.map_or(OverBudget::Warn, |budget| budget.rules.over)
    }

    fn allowed(&self, account: &BudgetKey) -> u64 {
        let budget = self.budgets.get(&account.budget);
        budget.map_or(u64::MAX, |budget| budget.limit.number())
    }

    /// What an account counts of a cost and tokens.
    fn amount(
        &self,
        account: &BudgetKey,
        nanos_in: impl FnOnce(Currency) -> i64,
        tokens: u64,
    ) -> u64 {
        match self.budgets.get(&account.budget).map(|budget| budget.limit) {
            Some(Amount::Money(limit)) => u64::try_from(nanos_in(limit.currency)).unwrap_or(0),
            Some(Amount::Tokens(_)) => tokens,
            None => 0,
        }
    }

    /// What an account counts of a reservation.
    #[must_use]
    pub fn of_reserve(&self, account: &BudgetKey, reserve: Reserve) -> u64 {
        self.amount(
            account,
            |currency| in_currency(reserve.cost, currency),
            reserve.tokens,
        )
    }

    fn spend(
        &mut self,
        day: Day,
        payer: &Payer,
        model: &Arc<str>,
        cost: Option<Cost>,
        tokens: u64,
    ) {
        for account in self.accounts_of(payer, model) {
            let amount = self.amount(&account, |currency| in_currency(cost, currency), tokens);
            if amount > 0 {
                self.change(&account, day, |counter| {
                    counter.spent = counter.spent.saturating_add(amount);
                });
                self.warn(&account, day);
            }
        }
    }

    /// Keeps what a call has reserved that was maybe billed.
    fn keep(&mut self, call: &CallRecord) {
        let Some(reserve) = call.reserved.filter(|_| call.is_billing_open()) else {
            return;
        };
        let reserved = Reserved {
            payer: Payer::of(&call.user_id, call.key_id),
            model: call.model.as_str().into(),
            reserve,
        };
        self.count_doubt(&reserved, call.day(), u64::saturating_add);
        let key = (call.job_id, call.attempt);
        self.doubt.insert(key, (reserved, call.day()));
        if let Some(ms) = self.lapses_ms {
            self.lapses.insert((call.ended_at.plus_ms(ms), key));
        }
    }

    fn count_doubt(&mut self, reserved: &Reserved, day: Day, change: fn(u64, u64) -> u64) {
        for account in self.accounts_of(&reserved.payer, &reserved.model) {
            let amount = self.of_reserve(&account, reserved.reserve);
            self.change(&account, day, |counter| {
                counter.in_doubt = change(counter.in_doubt, amount);
            });
            self.warn(&account, day);
        }
    }
}

fn in_currency(cost: Option<Cost>, currency: Currency) -> i64 {
    cost.filter(|cost| cost.currency == currency)
        .map_or(0, |cost| cost.nanos)
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
