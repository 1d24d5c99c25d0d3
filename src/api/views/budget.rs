//! How budgets stand, as clients see it.

use onelane_core::model::{BudgetStatus, Cost, Limit, OverBudget, Period, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{decimal, rfc3339};

/// One account of a budget.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct StandingView<'a> {
    budget: &'a str,
    /// Whose share it is, where each or one has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    period: Period,
    /// `CNY`, `USD`, `POINTS` or `tokens`.
    unit: &'static str,
    limit: Box<RawValue>,
    spent: Box<RawValue>,
    /// Set aside for calls that are open or about to be.
    reserved: Box<RawValue>,
    /// Set aside for calls of this period that were maybe billed, until somebody finds out.
    in_doubt: Box<RawValue>,
    /// Nothing is left of this period.
    used_up: bool,
    over: OverBudget,
    /// When the period ends.
    #[serde(serialize_with = "rfc3339")]
    until: Timestamp,
}

impl<'a> StandingView<'a> {
    pub(in crate::api) fn new(standing: &'a BudgetStatus) -> Self {
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
            budget: &standing.account.budget,
            user_id: standing.account.user.as_deref(),
            model: standing.account.model.as_deref(),
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
