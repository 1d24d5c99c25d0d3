//! What accounts have come to, and which of them are nearest to their limits. There may be an account for every user, so
//! the order is kept as they change: whoever asks how budgets stand looks at as many as it asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Budget, BudgetKey, Day};

/// A limit that is all gone, in the whole number by which accounts are ordered.
const ALL_GONE: u64 = 1_000_000_000;

/// What an account has come to in one of its periods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counter {
    pub(super) spent: u64,
    pub(super) in_doubt: u64,
    pub(super) warned: bool,
    pub(super) used_up: bool,
}

impl Counter {
    /// What is gone of a period, whatever the open calls come to.
    pub(super) const fn gone(&self) -> u64 {
        self.spent.saturating_add(self.in_doubt)
    }
}

/// Budgets by their names.
type Rules = BTreeMap<Arc<str>, Budget>;

/// Accounts of one budget, or of the budgets of all client keys, by the share that is gone.
type Ordered = BTreeSet<(u64, BudgetKey)>;

/// The counters, by account and the first day of its period.
#[derive(Debug, Clone, Default)]
pub(super) struct Accounts {
    counters: BTreeMap<(BudgetKey, Day), Counter>,
    /// Those of the periods under way, by the name of their budget; those of client keys without one.
    fullest: BTreeMap<Option<Arc<str>>, Ordered>,
    /// Those of the periods under way into which something did not fit.
    short: BTreeSet<BudgetKey>,
    /// Counters that were looked at one after the other.
    #[cfg(test)]
    walked: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Accounts {
    /// What an account has come to in the period that began on this day.
    pub(super) fn counter(&self, account: &BudgetKey, first: Day) -> Option<Counter> {
        self.counters.get(&(account.clone(), first)).copied()
    }

    /// Changes the counter of an account in the period that began on this day; the order follows, where that period is
    /// under way.
    pub(super) fn change<T>(
        &mut self,
        (account, first): (&BudgetKey, Day),
        (rules, is_under_way): (&Rules, bool),
        change: impl FnOnce(&mut Counter) -> T,
    ) -> T {
        let counter = self.counters.entry((account.clone(), first)).or_default();
        let before = *counter;
        let done = change(counter);
        let after = *counter;
        if is_under_way && let Some(budget) = rules.get(&account.budget) {
            let ordered = self.fullest.entry(group(budget)).or_default();
            let (old, new) = (share(before, budget), share(after, budget));
            if old != new {
                ordered.remove(&(old, account.clone()));
            }
            ordered.insert((new, account.clone()));
            if after.used_up {
                self.short.insert(account.clone());
            }
        }
        done
    }

    /// Another day: forgets the periods that are over, and orders the accounts of those that are under way.
    pub(super) fn turn(&mut self, rules: &Rules, today: Day) {
        self.counters.retain(|(account, day), _| {
            let budget = rules.get(&account.budget);
            budget.is_some_and(|budget| *day >= budget.rules.period.first_day(today))
        });
        self.fullest.clear();
        self.short.clear();
        for ((account, day), counter) in &self.counters {
            let Some(budget) = rules.get(&account.budget) else {
                continue;
            };
            if budget.rules.period.first_day(today) != *day {
                continue;
            }
            let ordered = self.fullest.entry(group(budget)).or_default();
            ordered.insert((share(*counter, budget), account.clone()));
            if counter.used_up {
                self.short.insert(account.clone());
            }
        }
    }

    /// Every account with the first day of its period: as many as there are users.
    pub(super) fn all(&self) -> Vec<(BudgetKey, Day)> {
        self.look_at(self.counters.len());
        self.counters.keys().cloned().collect()
    }

    /// How many accounts have a period under way.
    pub(super) fn len(&self) -> usize {
        self.fullest.values().map(BTreeSet::len).sum()
    }

    /// Whether an account has a period under way.
    pub(super) fn has(&self, account: &BudgetKey, budget: &Budget, today: Day) -> bool {
        let first = budget.rules.period.first_day(today);
        self.counters.contains_key(&(account.clone(), first))
    }

    /// The account of a budget that is nearest to its limit, or of the budgets of all client keys.
    pub(super) fn fullest(&self, group: Option<&Arc<str>>) -> Option<&BudgetKey> {
        self.look_at(1);
        let (_, account) = self.fullest.get(&group.cloned())?.last()?;
        Some(account)
    }

    /// The accounts into which something did not fit, so many at most.
    pub(super) fn short(&self, most: usize) -> impl Iterator<Item = &BudgetKey> {
        self.short.iter().take(most).inspect(|_| self.look_at(1))
    }

    /// The accounts that are nearest to their limits, so many at most, the nearest first.
    pub(super) fn nearest(&self, most: usize) -> impl Iterator<Item = &BudgetKey> {
        let mut heads: Vec<_> = self
            .fullest
            .values()
            .map(|ordered| {
                let mut rest = ordered.iter().rev();
                (rest.next(), rest)
            })
            .collect();
        let nearest = std::iter::from_fn(move || {
            let (head, rest) = heads
                .iter_mut()
                .max_by_key(|(head, _)| head.map(|(share, _)| *share))?;
            let (_, account) = std::mem::replace(head, rest.next())?;
            Some(account)
        });
        nearest.take(most).inspect(|_| self.look_at(1))
    }

    #[cfg(not(test))]
    #[expect(
        clippy::unused_self,
        clippy::missing_const_for_fn,
        reason = "tests count"
    )]
    fn look_at(&self, _: usize) {}

    #[cfg(test)]
    fn look_at(&self, accounts: usize) {
        use std::sync::atomic::Ordering;
        self.walked.fetch_add(accounts, Ordering::Relaxed);
    }

    /// How many accounts were looked at one after the other since this was asked last.
    #[cfg(test)]
    pub(super) fn take_walked(&self) -> usize {
        self.walked.swap(0, std::sync::atomic::Ordering::Relaxed)
    }
}

fn group(budget: &Budget) -> Option<Arc<str>> {
    budget
        .key
        .is_none()
        .then(|| Arc::from(budget.name.as_str()))
}

fn share(counter: Counter, budget: &Budget) -> u64 {
    let limit = u128::from(budget.limit.number().max(1));
    let share = u128::from(counter.gone()) * u128::from(ALL_GONE) / limit;
    u64::try_from(share).unwrap_or(u64::MAX)
}
