//! The status of budgets: limit, spent, reserved, in doubt, and until when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Budgets;
use crate::model::{Budget, BudgetKey, BudgetScope, BudgetStatus};

impl Budgets {
    /// How an account stands.
    #[must_use]
    pub fn status(&self, account: &BudgetKey) -> Option<BudgetStatus> {
        let budget = self.budgets.get(&account.budget)?;
        let counter = self.current(account);
        let limit = budget.limit;
        Some(BudgetStatus {
            account: account.clone(),
            period: budget.rules.period,
            limit,
            spent: limit.of(counter.spent),
            reserved: limit.of(self.held.get(account).copied().unwrap_or(0)),
            in_doubt: limit.of(counter.in_doubt),
            left: limit.of(limit.number().saturating_sub(self.gone(account))),
            over: budget.rules.over,
            warned: counter.warned,
            short: counter.used_up,
            until: budget.rules.period.end(&self.calendar, self.today),
        })
    }

    /// What is gone in the period under way, 1 being all: of every budget the fullest account. Those of client keys are
    /// one, without a name. No account is cloned: there may be one for every user.
    #[must_use]
    pub fn shares(&self) -> Vec<(Option<Arc<str>>, f64)> {
        let mut gone: BTreeMap<&Arc<str>, u64> = BTreeMap::new();
        for ((account, day), counter) in &self.periods {
            if self.first_day(account, self.today) == Some(*day) {
                let most = gone.entry(&account.budget).or_default();
                *most = (*most).max(counter.spent.saturating_add(counter.in_doubt));
            }
        }
        let share = |(name, budget): (&Arc<str>, &Budget)| {
            let gone = gone.get(name).copied().unwrap_or(0);
            let name = budget.key.is_none().then(|| Arc::clone(name));
            (name, gone as f64 / budget.limit.number().max(1) as f64)
        };
        self.budgets.iter().map(share).collect()
    }

    /// How every account stands that something was spent from or reserved in, and every budget that is
    /// for all.
    #[must_use]
    pub fn statuses(&self) -> Vec<BudgetStatus> {
        let all = |(name, budget): (&Arc<str>, &Budget)| {
            let shared = budget.users == BudgetScope::All && budget.models == BudgetScope::All;
            shared.then(|| BudgetKey {
                budget: Arc::clone(name),
                user: None,
                model: None,
                key: budget.key,
            })
        };
        let current = self
            .periods
            .keys()
            .filter(|(account, day)| self.first_day(account, self.today) == Some(*day));
        let accounts: BTreeSet<BudgetKey> = current
            .map(|(account, _)| account)
            .chain(self.held.keys())
            .cloned()
            .chain(self.budgets.iter().filter_map(all))
            .collect();
        accounts
            .iter()
            .filter_map(|account| self.status(account))
            .collect()
    }
}
