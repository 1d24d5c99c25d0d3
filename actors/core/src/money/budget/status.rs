//! The status of budgets: limit, spent, reserved, in doubt, and until when.

use std::collections::BTreeSet;
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
