//! News of budgets: a limit that was reached, or the share of it at which a budget warns, each told once a period.

use super::{BudgetNews, Budgets};
use crate::model::{BudgetKey, Day};

impl Budgets {
    /// Repeats no news of a budget that has not changed.
    pub(super) fn remember_what_was_told(&mut self, before: Option<&Self>) {
        for (account, day) in self.accounts.all() {
            let Some(before) = before else {
                self.warn(&account, day);
                continue;
            };
            if before.budgets.get(&account.budget) == self.budgets.get(&account.budget)
                && let Some(told) = before.accounts.counter(&account, day)
            {
                self.change(&account, day, |counter| {
                    (counter.warned, counter.used_up) = (told.warned, told.used_up);
                });
            }
            self.warn(&account, day);
        }
        if before.is_none() {
            self.news.clear();
        }
    }

    /// Something did not fit: tells it once a period.
    pub fn note_refusal(&mut self, account: &BudgetKey) {
        let today = self.today;
        self.tell_used_up(account, today);
    }

    pub(super) fn tell_used_up(&mut self, account: &BudgetKey, day: Day) {
        let was_told = self.change(account, day, |counter| {
            std::mem::replace(&mut counter.used_up, true)
        });
        if !was_told && let Some(status) = self.status(account) {
            self.news.push(BudgetNews {
                status,
                used_up: true,
            });
        }
    }

    /// Puts news before all others.
    pub fn tell_first(&mut self, news: Vec<BudgetNews>) {
        self.news.splice(0..0, news);
    }

    /// The news since the last call.
    pub fn take_news(&mut self) -> Vec<BudgetNews> {
        std::mem::take(&mut self.news)
    }

    /// Tells that an account has reached the share of its limit at which it warns, or, where nothing is
    /// stopped, the limit.
    pub(super) fn warn(&mut self, account: &BudgetKey, day: Day) {
        let Some(budget) = self.budgets.get(&account.budget) else {
            return;
        };
        if budget.rules.period.first_day(day) != budget.rules.period.first_day(self.today) {
            return;
        }
        let (percent, allowed) = (budget.rules.warn_percent, budget.limit.number());
        let tells_only = !budget.rules.over.stops();
        let gone = self.gone(account);
        let reached = u128::from(gone) * 100 >= u128::from(allowed) * u128::from(percent);
        if percent > 0
            && reached
            && !self.change(account, day, |counter| {
                std::mem::replace(&mut counter.warned, true)
            })
            && let Some(status) = self.status(account)
        {
            self.news.push(BudgetNews {
                status,
                used_up: false,
            });
        }
        if tells_only && gone >= allowed {
            self.tell_used_up(account, day);
        }
    }
}
