//! Money in integers: one nano-unit is a billionth of a yuan, a dollar or a point. No floats anywhere.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Usage, limits};
use crate::{section, words};

/// An amount in nano-units (1e-9) of some currency.
pub type Nanos = i64;

/// What an amount is counted in. GLM publishes a price list for each: two of money, and one of the
/// points that a Coding Plan spends. Amounts of different ones never add up.
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
#[serde(rename_all = "UPPERCASE")]
pub enum Currency {
    /// Chinese yuan: the list of bigmodel.cn.
    Cny,
    /// US dollars: the list of z.ai.
    Usd,
    /// Points of a Coding Plan.
    Points,
}

impl Currency {
    /// The ISO 4217 code; `POINTS` for points, which have none.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Cny => "CNY",
            Self::Usd => "USD",
            Self::Points => "POINTS",
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Points => "points",
            money => money.code(),
        })
    }
}

/// What a call cost: exact, with its currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Cost {
    /// The amount in nano-units of `currency`.
    #[serde(rename = "cost", serialize_with = "amount::serialize")]
    #[schemars(with = "f64", description = "The amount, exactly.")]
    pub nanos: Nanos,
    /// What the amount is counted in.
    pub currency: Currency,
}

impl Cost {
    /// The amount as a plain decimal of at most nine places, without trailing zeros: a JSON number.
    #[must_use]
    pub fn decimal(self) -> String {
        decimal(self.nanos)
    }
}

/// Reads a plain decimal of at most nine places; `None`: it is none, or no amount can hold it.
pub(super) fn nanos_of(text: &str) -> Option<Nanos> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(part) || part.len() > 9 {
        return None;
    }
    format!("{whole}{part:0<9}").parse().ok()
}

pub(super) fn decimal(nanos: Nanos) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let abs = nanos.unsigned_abs();
    let (whole, part) = (abs / 1_000_000_000, abs % 1_000_000_000);
    if part == 0 {
        return format!("{sign}{whole}");
    }
    let digits = format!("{part:09}");
    format!("{sign}{whole}.{}", digits.trim_end_matches('0'))
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.decimal(), self.currency)
    }
}

/// The prices that a call was charged by: the row of the list as it stood then, kept with the call, so
/// that its cost can be worked out again when the list has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PriceUsed {
    /// The version of the shipped list, or [`PriceUsed::OWN`].
    pub table: Arc<str>,
    /// The row is for prompts of so many tokens and more.
    #[serde(default)]
    pub prompt_from: u64,
    /// The row is for completions of so many tokens and more.
    #[serde(default)]
    pub completion_from: u64,
    /// A million prompt tokens that were not cached, in nano-units.
    #[serde(serialize_with = "amount::serialize")]
    #[schemars(with = "f64")]
    pub input: Nanos,
    /// A million prompt tokens from GLM's cache, in nano-units.
    #[serde(serialize_with = "amount::serialize")]
    #[schemars(with = "f64")]
    pub cached_input: Nanos,
    /// A million completion tokens, reasoning included, in nano-units.
    #[serde(serialize_with = "amount::serialize")]
    #[schemars(with = "f64")]
    pub output: Nanos,
    /// What the prices are counted in.
    pub currency: Currency,
}

/// How a field of nano-units is written: a decimal of at most nine places for people and programs, made from
/// the integer; the integer for rows. It is read as an integer alone.
pub mod amount {
    use std::collections::BTreeMap;

    use serde::ser::Error as _;
    use serde::{Serialize, Serializer};
    use serde_json::value::RawValue;

    use super::{Cost, Currency, Nanos, decimal};

    /// An amount.
    pub fn serialize<S: Serializer>(nanos: &Nanos, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_i64(*nanos);
        }
        let number = RawValue::from_string(decimal(*nanos)).map_err(S::Error::custom)?;
        number.serialize(serializer)
    }

    /// Sums by currency: on the wire a list, since amounts of different currencies never add up.
    pub fn by_currency<S: Serializer>(
        sums: &BTreeMap<Currency, Nanos>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return sums.serialize(serializer);
        }
        let costs = sums.iter();
        serializer.collect_seq(costs.map(|(&currency, &nanos)| Cost { nanos, currency }))
    }

    /// An amount that may be unknown.
    pub fn optional<S: Serializer>(
        nanos: &Option<Nanos>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match nanos {
            Some(nanos) => serialize(nanos, serializer),
            None => serializer.serialize_none(),
        }
    }
}

impl PriceUsed {
    /// The table of the operator's own prices.
    pub const OWN: &'static str = "own";

    /// What these tokens cost: cached ones are inside the prompt's (and are no more than those, whatever
    /// a server says), reasoning is inside the completion's. Rounded once, half up, to a nano-unit; what
    /// no amount can hold is the highest amount.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Cost {
        let cached = usage.cached_tokens.min(usage.prompt_tokens);
        let parts = [
            (usage.prompt_tokens - cached, self.input),
            (cached, self.cached_input),
            (usage.completion_tokens, self.output),
        ];
        let sum = parts.into_iter().fold(0_i128, |sum, (tokens, price)| {
            // 64 bits times 63 fit into 127.
            sum.saturating_add(i128::from(tokens) * i128::from(price))
        });
        let nanos = sum.saturating_add(500_000).div_euclid(1_000_000);
        Cost {
            nanos: Nanos::try_from(nanos).unwrap_or(Nanos::MAX),
            currency: self.currency,
        }
    }
}

/// What becomes of submissions for models without a price.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Unpriced {
    /// They are taken; that their cost is not known is said wherever costs are.
    #[default]
    Allow,
    /// They are refused at the door. Jobs that wait already go on.
    Refuse,
}

/// What budgets keep reserved for a call that may have been billed while no answer is stored, until an operator says
/// what became of it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Doubt {
    /// All that it may have come to.
    #[default]
    Worst,
    /// Its prompt, as if GLM had not begun to answer.
    Prompt,
    /// Nothing.
    None,
}

section! {
    /// What budgets keep for calls that may have been billed.
    #[derive(Copy, Eq)]
    pub struct DoubtSettings {
        /// What budgets keep reserved for a call that may have been billed while no answer is stored: "worst" (all
        /// that it may have come to), "prompt" (its prompt alone), "none". Of a kept connection that ended before an
        /// answer began it is the prompt at most.
        doubt: Doubt = Doubt::Worst;
        /// After this time budgets keep nothing more for such a call; when left out, until you say what became of it.
        doubt_lapses_ms: Option<u64> = None => [within(1..=limits::DAY_MS * 3_660).sample("604800000")];
    }
}

words! {
    Doubt { Worst, Prompt, None }
    Currency { Cny, Usd, Points }
    Unpriced { Allow, Refuse }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_written_exactly() {
        let check = |nanos, text: &str| {
            let cost = Cost {
                nanos,
                currency: Currency::Cny,
            };
            assert_eq!(cost.decimal(), text);
        };
        check(0, "0");
        check(1, "0.000000001");
        check(28_000, "0.000028");
        check(1_000_000_000, "1");
        check(-1_500_000_000, "-1.5");
        check(i64::MAX, "9223372036.854775807");
    }

    #[test]
    fn points_are_no_money() {
        let cost = Cost {
            nanos: 1_500_000_000,
            currency: Currency::Points,
        };
        assert_eq!(cost.to_string(), "1.5 points");
        let json = serde_json::to_string(&Currency::Points).unwrap();
        assert_eq!(json, r#""POINTS""#);
    }

    #[test]
    fn a_cost_is_rounded_once_half_up() {
        let price = |input, output| PriceUsed {
            table: PriceUsed::OWN.into(),
            prompt_from: 0,
            completion_from: 0,
            input,
            cached_input: input,
            output,
            currency: Currency::Usd,
        };
        let check = |price: PriceUsed, prompt_tokens, completion_tokens, nanos| {
            let usage = Usage {
                prompt_tokens,
                completion_tokens,
                ..Usage::default()
            };
            assert_eq!(price.cost(&usage).nanos, nanos);
        };
        check(price(499_999, 0), 1, 0, 0);
        check(price(500_000, 0), 1, 0, 1);
        check(price(1_499_999, 0), 1, 0, 1);
        // Two halves are one whole, not two.
        check(price(500_000, 500_000), 1, 1, 1);
        check(price(250_000, 249_999), 1, 1, 0);
    }
}
