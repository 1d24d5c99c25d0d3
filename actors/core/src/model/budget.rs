//! What calls may cost: a limit for a day or a month, for everybody or for each, in money or tokens.

use crate::words::counted;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Calendar, Cost, Day, KeyId, Timestamp};
use crate::{section, words};

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

/// What a budget counts, with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Amount {
    /// Tokens, prompt and completion.
    Tokens(u64),
    /// Money of one currency; calls in another, or without a known price, are not counted.
    #[serde(untagged)]
    Money(Cost),
}

impl Amount {
    /// The bare number: nano-units of its currency, or tokens.
    #[must_use]
    pub fn number(self) -> u64 {
        match self {
            Self::Money(cost) => u64::try_from(cost.nanos).unwrap_or(0),
            Self::Tokens(tokens) => tokens,
        }
    }

    /// Another number of the same unit.
    #[must_use]
    pub fn of(self, number: u64) -> Self {
        match self {
            Self::Money(Cost { currency, .. }) => Self::Money(Cost {
                nanos: i64::try_from(number).unwrap_or(i64::MAX),
                currency,
            }),
            Self::Tokens(_) => Self::Tokens(number),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Money(cost) => cost.fmt(f),
            Self::Tokens(tokens) => f.write_str(&counted(*tokens, "token", "tokens")),
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

section! {
    /// The rules of a budget, whatever it limits and whosever it is.
    #[derive(Copy, Eq)]
    pub struct BudgetRules {
        /// For how long: "day" or "month", in the zone of money.zone.
        period: Period = Period::Day;
        /// A warning at this percentage of the limit; 0 is none.
        warn_percent: u8 = 80 => [within(0..=100)];
        /// Beyond the limit: "wait" for the next period, "refuse" new jobs (what was accepted waits), or only "warn".
        /// A job that may come to more than the whole limit would never run: unless the budget only warns, it is
        /// not taken.
        over: OverBudget = OverBudget::Wait;
    }
}

/// A budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Its name.
    pub name: String,
    /// Whose calls.
    pub users: BudgetScope,
    /// To which models.
    pub models: BudgetScope,
    /// Those of this client key alone; `None`: whichever way they were handed in.
    pub key: Option<KeyId>,
    /// The limit.
    pub limit: Amount,
    /// Its rules.
    pub rules: BudgetRules,
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

/// The reserve of a call before it is made: the worst that it may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reserve {
    /// Prompt and completion.
    pub tokens: u64,
    /// The cost at the highest tier; `None`: the model has no known price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

/// What calls are counted in: a budget, and whose share of it where each has one.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct BudgetKey {
    /// The budget's name.
    #[schemars(with = "String")]
    pub budget: Arc<str>,
    /// The user, where each or one has it.
    #[serde(rename = "userId", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub user: Option<Arc<str>>,
    /// The model, where each or one has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub model: Option<Arc<str>>,
    /// The client key that has it.
    #[serde(rename = "keyId", default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
}

impl BudgetKey {
    /// Whether it is not that of one user or one client key alone.
    #[must_use]
    pub const fn is_everybodys(&self) -> bool {
        self.user.is_none() && self.key.is_none()
    }
}

/// Whose call is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payer {
    /// The user.
    pub user: Arc<str>,
    /// The client key by which the job was handed in.
    pub key: Option<KeyId>,
}

impl Payer {
    /// Whose job it is, and by which key.
    #[must_use]
    pub fn of(user: &str, key: Option<KeyId>) -> Self {
        let user = user.into();
        Self { user, key }
    }
}

impl From<&str> for Payer {
    fn from(user: &str) -> Self {
        Self::of(user, None)
    }
}

/// How an account stands in the period under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BudgetStatus {
    /// Which one.
    #[serde(flatten)]
    pub account: BudgetKey,
    /// For how long.
    pub period: Period,
    /// What the budget allows a period.
    pub limit: Amount,
    /// What is spent of it.
    pub spent: Amount,
    /// Reserved for calls that are open or about to be.
    pub reserved: Amount,
    /// Reserved for calls of this period that were maybe billed, until an operator settles them.
    pub in_doubt: Amount,
    /// What is left, whatever the open calls come to.
    pub left: Amount,
    /// What happens beyond the limit.
    pub over: OverBudget,
    /// The share at which it warns was reached in this period.
    pub warned: bool,
    /// Something did not fit in this period.
    pub short: bool,
    /// When the period ends.
    pub until: Timestamp,
}

impl BudgetStatus {
    /// What is gone for this period, whatever the open calls come to: the bare number.
    #[must_use]
    pub fn gone(&self) -> u64 {
        let (spent, in_doubt) = (self.spent.number(), self.in_doubt.number());
        spent.saturating_add(in_doubt)
    }
}

/// How budgets stand: as many accounts as were asked for at most.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, schemars::JsonSchema)]
#[schemars(rename = "BudgetsAnswer")]
#[serde(rename_all = "camelCase")]
pub struct BudgetStatuses {
    /// The accounts, in the order of their names.
    pub budgets: Vec<BudgetStatus>,
    /// Accounts that are not among them: they are farther from their limits.
    pub left_out: u64,
}

/// Why a new job is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BudgetRefusal {
    /// It would never run: it may come to more than the budget allows a whole period.
    #[error(
        "the job may come to {needed}, and budget {} allows {} a {}; give it a lower max_tokens or raise the budget",
        .status.account.budget, .status.limit, .status.period.name()
    )]
    TooLarge {
        /// How the budget stands.
        status: BudgetStatus,
        /// The most that the job may come to.
        needed: Amount,
    },
    /// It does not fit into what is left of the period, and the budget's owner wants that told.
    #[error(
        "the job may come to {needed}, and of budget {} {} are left until {}; it was not taken",
        .status.account.budget, .status.left, .status.until
    )]
    UsedUp {
        /// How the budget stands.
        status: BudgetStatus,
        /// The most that the job may come to.
        needed: Amount,
    },
}
