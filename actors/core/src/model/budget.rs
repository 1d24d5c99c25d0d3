//! What calls may cost: a limit for a day or a month, for everybody or for each, in money or tokens.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Calendar, Cost, Day, Timestamp};
use crate::words;

/// For how long a budget is.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// A day of the calendar.
    Day,
    /// A month of the calendar.
    Month,
}

impl Period {
    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The first day of the period that a day is in.
    #[must_use]
    pub fn first_day(self, day: Day) -> Day {
        match self {
            Self::Day => day,
            Self::Month => day.month(),
        }
    }

    /// When the period that a day is in ends.
    #[must_use]
    pub fn end(self, calendar: &Calendar, day: Day) -> Timestamp {
        calendar.start_of(match self {
            Self::Day => Day(day.0.saturating_add(1)),
            Self::Month => day.next_month(),
        })
    }
}

/// Whose calls share a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BudgetScope {
    /// All share one.
    All,
    /// Each has one of its own.
    Each,
    /// One alone has it.
    One(String),
}

impl BudgetScope {
    /// The name under which calls of `name` are counted; `None`: they are not counted at all.
    #[must_use]
    pub fn counted_as<'a>(&self, name: &'a str) -> Option<Option<&'a str>> {
        match self {
            Self::All => Some(None),
            Self::Each => Some(Some(name)),
            Self::One(one) => (one == name).then_some(Some(name)),
        }
    }
}

/// What a budget limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limit {
    /// Money of one currency; calls in another, or without a known price, are not counted.
    Money(Cost),
    /// Tokens, prompt and completion.
    Tokens(u64),
}

impl Limit {
    /// The limit as a number: nano-units of its currency, or tokens.
    #[must_use]
    pub fn amount(&self) -> u64 {
        match self {
            Self::Money(cost) => u64::try_from(cost.nanos).unwrap_or(0),
            Self::Tokens(tokens) => *tokens,
        }
    }
}

/// What happens to those whose budget is used up.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum OverBudget {
    /// Their jobs wait for the next period, or for a change of the budget.
    #[default]
    Wait,
    /// New jobs of theirs are refused; those that were accepted wait.
    Refuse,
    /// It is told, and nothing is stopped.
    Warn,
}

/// A budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Its name.
    pub name: String,
    /// For how long.
    pub period: Period,
    /// Whose calls.
    pub users: BudgetScope,
    /// To which models.
    pub models: BudgetScope,
    /// The limit.
    pub limit: Limit,
    /// The percentage of the limit at which it warns; 0: it does not.
    pub warn_percent: u8,
    /// What happens beyond the limit.
    pub over: OverBudget,
}

words! {
    Period { Day, Month }
    OverBudget { Wait, Refuse, Warn }
}

impl OverBudget {
    /// Whether anything is stopped.
    #[must_use]
    pub const fn stops(self) -> bool {
        !matches!(self, Self::Warn)
    }
}

/// What is set aside for a call before it is made: the worst that it may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reserve {
    /// Prompt and completion.
    pub tokens: u64,
    /// The cost at the highest tier; `None`: the model has no known price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

/// What calls are counted in: a budget, and whose share of it where each has one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BudgetKey {
    /// The budget's name.
    pub budget: Arc<str>,
    /// The user, where each or one has it.
    pub user: Option<Arc<str>>,
    /// The model, where each or one has it.
    pub model: Option<Arc<str>>,
}

/// How an account stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetStatus {
    /// Which one.
    pub account: BudgetKey,
    /// The budget.
    pub limit: Limit,
    /// For how long.
    pub period: Period,
    /// What happens beyond the limit.
    pub over: OverBudget,
    /// Spent in this period: nano-units of the limit's currency, or tokens.
    pub spent: u64,
    /// Reserved for calls that are open or about to be: the same.
    pub reserved: u64,
    /// Reserved for calls of this period that were maybe billed, until somebody finds out: the same.
    pub in_doubt: u64,
    /// Whether the share at which it warns was reached in this period.
    pub warned: bool,
    /// Whether something did not fit in this period.
    pub short: bool,
    /// When the period ends.
    pub until: Timestamp,
}

impl BudgetStatus {
    /// The limit as a number: nano-units of its currency, or tokens.
    #[must_use]
    pub fn allowed(&self) -> u64 {
        self.limit.amount()
    }

    /// A number of it in words.
    #[must_use]
    pub fn told(&self, amount: u64) -> String {
        match self.limit {
            Limit::Money(Cost { currency, .. }) => {
                let nanos = i64::try_from(amount).unwrap_or(i64::MAX);
                Cost { nanos, currency }.to_string()
            }
            Limit::Tokens(_) => format!("{amount} tokens"),
        }
    }

    /// What is gone for this period, whatever the open calls come to.
    #[must_use]
    pub const fn gone(&self) -> u64 {
        self.spent.saturating_add(self.in_doubt)
    }
}

/// Why a new job is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BudgetRefusal {
    /// It would never run: it may come to more than the budget allows a whole period.
    #[error(
        "the job may come to {}, and budget {} allows {} a {}; give it a lower max_tokens or raise the budget",
        .standing.told(*.needed), .standing.account.budget, .standing.told(.standing.allowed()), .standing.period.name()
    )]
    TooLarge {
        /// How the budget stands.
        standing: BudgetStatus,
        /// The most that the job may come to: nano-units of the limit's currency, or tokens.
        needed: u64,
    },
    /// It does not fit into what is left of the period, and the budget's owner wants that told.
    #[error(
        "the job may come to {}, and of budget {} {} are left until {}; it was not taken",
        .standing.told(*.needed), .standing.account.budget,
        .standing.told(.standing.allowed().saturating_sub(.standing.gone())), .standing.until
    )]
    UsedUp {
        /// How the budget stands.
        standing: BudgetStatus,
        /// The most that the job may come to: nano-units of the limit's currency, or tokens.
        needed: u64,
    },
}
