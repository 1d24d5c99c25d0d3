//! The prices that a call was charged by.

use onelane_core::model::{Cost, Nanos, PriceUsed};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::decimal;

/// A row of the price list as it stood then: what a million tokens cost, in the currency of the cost.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PriceUsed")]
#[serde(rename_all = "camelCase")]
pub(super) struct PriceView {
    /// The version of the shipped list, or `own`.
    table: String,
    prompt_from: u64,
    completion_from: u64,
    #[schemars(with = "f64")]
    input: Box<RawValue>,
    #[schemars(with = "f64")]
    cached_input: Box<RawValue>,
    #[schemars(with = "f64")]
    output: Box<RawValue>,
}

impl PriceView {
    pub(super) fn new(price: &PriceUsed) -> Self {
        let currency = price.currency;
        let amount = |nanos: Nanos| decimal(Cost { nanos, currency });
        Self {
            table: price.table.to_string(),
            prompt_from: price.prompt_from,
            completion_from: price.completion_from,
            input: amount(price.input),
            cached_input: amount(price.cached_input),
            output: amount(price.output),
        }
    }
}
