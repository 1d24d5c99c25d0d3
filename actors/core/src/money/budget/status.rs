//! The status of budgets: limit, spent, reserved, in doubt, and until when.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Budgets;
use crate::model::{Budget, BudgetKey, BudgetScope, BudgetStatus, BudgetStatuses};

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
    /// one, without a name. It costs what the budgets cost, however many accounts there are.
    #[must_use]
    pub fn shares(&self) -> Vec<(Option<Arc<str>>, f64)> {
        let fullest = |group: Option<&Arc<str>>| {
            let account = self.accounts.fullest(group)?;
            let limit = self.budgets.get(&account.budget)?.limit.number();
            Some(self.gone(account) as f64 / limit.max(1) as f64)
        };
        let named = self.budgets.iter();
        let named = named.filter(|(_, budget)| budget.key.is_none());
        let mut groups: Vec<Option<&Arc<str>>> = named.map(|(name, _)| Some(name)).collect();
        if groups.len() < self.budgets.len() {
            groups.push(None);
        }
        let share = |group: Option<&Arc<str>>| (group.cloned(), fullest(group).unwrap_or(0.0));
        groups.into_iter().map(share).collect()
    }

    /// How accounts stand that something was spent from or reserved in, and every budget that is for all; of more than so
    /// many those of everybody, those into which something did not fit, and those that are nearest to their limits. In
    /// the order of their names.
    #[must_use]
    pub fn statuses(&self, most: usize) -> BudgetStatuses {
        let of_all = |(name, budget): (&Arc<str>, &Budget)| {
            let shared = budget.users == BudgetScope::All && budget.models == BudgetScope::All;
            shared.then(|| BudgetKey {
                budget: Arc::clone(name),
                user: None,
                model: None,
                key: budget.key,
            })
        };
        let is_counted = |account: &BudgetKey| {
            let budget = self.budgets.get(&account.budget);
            budget.is_some_and(|budget| self.accounts.has(account, budget, self.today))
        };
        // No more of them than there are budgets and open calls.
        let beside: BTreeSet<BudgetKey> = self
            .budgets
            .iter()
            .filter_map(of_all)
            .chain(self.held.keys().cloned())
            .filter(|account| !is_counted(account))
            .collect();
        let total = self.accounts.len() + beside.len();
        let named = self.budgets.iter();
        let named = named.filter(|(_, budget)| budget.key.is_none());
        let nearest = self.accounts.short(most).chain(self.accounts.nearest(most));
        let first = named.filter_map(of_all).chain(nearest.cloned());
        let mut told = BTreeSet::new();
        for account in first.chain(beside) {
            if told.len() == most {
                break;
            }
            told.insert(account);
        }
        let budgets: Vec<_> = told
            .iter()
            .filter_map(|account| self.status(account))
            .collect();
        BudgetStatuses {
            left_out: total.saturating_sub(budgets.len()) as u64,
            budgets,
        }
    }
}
