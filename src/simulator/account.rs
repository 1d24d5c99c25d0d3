//! What a script says of an account: its quota, its balance, and what GLM's meter counts otherwise.

use serde::{Deserialize, Serialize};

/// What is told of every account.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AccountScript {
    /// The windows of the plan; none: the account has no plan.
    pub quota: Vec<QuotaScript>,
    /// The balance, as `{"available": "12.5", "currency": "CNY"}`; `None`: it is not told.
    pub balance: Option<BalanceScript>,
    /// What is counted beside what was answered, or left out of it.
    pub planted: Vec<Planted>,
}

/// A window, in GLM's own words but for its end.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct QuotaScript {
    /// `TOKENS_LIMIT`, `CREDIT_LIMIT` or `TIME_LIMIT`.
    #[serde(rename = "type")]
    pub kind: String,
    /// 3 is hours, 6 weeks.
    pub unit: Option<u32>,
    /// So many of them.
    pub number: Option<u32>,
    /// How much there is in all.
    pub usage: Option<u64>,
    /// How much of it is used.
    pub current_value: Option<u64>,
    /// The used share in percent.
    pub percentage: Option<f64>,
    /// It opens anew so many milliseconds after the question; `None`: not told.
    pub reset_in_ms: Option<u64>,
}

/// What is left of the money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalanceScript {
    /// A decimal.
    pub available: String,
    /// `CNY` or `USD`.
    pub currency: String,
}

/// A difference between what is counted and what was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planted {
    /// The day of UTC+8; `None`: that of the question.
    #[serde(default)]
    pub day: Option<String>,
    /// The model.
    pub model: String,
    /// So many calls more; below 0: fewer.
    #[serde(default)]
    pub calls: i64,
    /// So many tokens more; below 0: fewer.
    pub tokens: i64,
}
