//! How budgets stand, as clients see it.

use onelane_core::model::{BudgetStatus, Cost, Limit, OverBudget, Period, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::decimal;

/// One account of a budget.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BudgetStatus")]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct StandingView {
    budget: String,
    /// Whose share it is, where each or one has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    period: Period,
    /// `CNY`, `USD`, `POINTS` or `tokens`.
    unit: &'static str,
    #[schemars(with = "f64")]
    limit: Box<RawValue>,
    #[schemars(with = "f64")]
    spent: Box<RawValue>,
    /// Set aside for calls that are open or about to be.
    #[schemars(with = "f64")]
    reserved: Box<RawValue>,
    /// Set aside for calls of this period that were maybe billed, until somebody finds out.
    #[schemars(with = "f64")]
    in_doubt: Box<RawValue>,
    /// Nothing is left of this period.
    used_up: bool,
    over: OverBudget,
    /// When the period ends.
    until: Timestamp,
}

impl StandingView {
    pub(in crate::api) fn new(standing: &BudgetStatus) -> Self {
        let (unit, number): (_, Box<dyn Fn(u64) -> Box<RawValue>>) = match standing.limit {
            Limit::Money(Cost { currency, .. }) => (
                currency.code(),
                Box::new(move |amount| {
                    let nanos = i64::try_from(amount).unwrap_or(i64::MAX);
                    decimal(Cost { nanos, currency })
                }),
            ),
            Limit::Tokens(_) => (
                "tokens",
                Box::new(|amount| {
                    serde_json::value::to_raw_value(&amount)
                        .unwrap_or_else(|_| RawValue::NULL.to_owned())
                }),
            ),
        };
        Self {
            budget: standing.account.budget.to_string(),
            user_id: standing.account.user.as_deref().map(str::to_owned),
            model: standing.account.model.as_deref().map(str::to_owned),
            period: standing.period,
            unit,
            limit: number(standing.allowed()),
            spent: number(standing.spent),
            reserved: number(standing.reserved),
            in_doubt: number(standing.in_doubt),
            used_up: standing.gone() >= standing.allowed(),
            over: standing.over,
            until: standing.until,
        }
    }
}
