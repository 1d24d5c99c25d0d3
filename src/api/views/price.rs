//! The prices that a call was charged by.

use onelane_core::model::{Cost, Nanos, PriceUsed};
use serde::Serialize;
use serde_json::value::RawValue;

use super::decimal;

/// A row of the price list as it stood then: what a million tokens cost, in the currency of the cost.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PriceView<'a> {
    /// The version of the shipped list, or `own`.
    table: &'a str,
    prompt_from: u64,
    completion_from: u64,
    input: Box<RawValue>,
    cached_input: Box<RawValue>,
    output: Box<RawValue>,
}

impl<'a> PriceView<'a> {
    pub(super) fn new(price: &'a PriceUsed) -> Self {
        let currency = price.currency;
        let amount = |nanos: Nanos| decimal(Cost { nanos, currency });
        Self {
            table: &price.table,
            prompt_from: price.prompt_from,
            completion_from: price.completion_from,
            input: amount(price.input),
            cached_input: amount(price.cached_input),
            output: amount(price.output),
        }
    }
}
