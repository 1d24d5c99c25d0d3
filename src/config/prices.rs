//! What calls cost: the shipped price lists, and prices of the operator's own. Decimal text becomes
//! integer nano-units here, exactly; a binary float never touches a price.

use std::fmt;
use std::str::FromStr;

use onelane_actors::model::{Currency, Nanos, limits};
use onelane_actors::policy::price::{PriceRow, PriceTable};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The published lists of bigmodel.cn (CNY) and z.ai (USD); each row names its source and date.
const SHIPPED: &str = include_str!("prices.json");

/// Nano-units in one unit of a currency.
const NANOS_PER_UNIT: i64 = 1_000_000_000;

/// The highest price believed, in units per million tokens: far above any list, and low enough that
/// no call's cost leaves 64 bits.
const UNITS_MAX: i64 = 1_000_000;

/// The price of a million tokens, in nano-units of its list's currency. Written as decimal text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Price(Nanos);

impl Price {
    /// Nano-units per million tokens.
    #[must_use]
    pub const fn nanos(self) -> Nanos {
        self.0
    }
}

impl FromStr for Price {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let amount = Decimal::from_str_exact(text)
            .map_err(|_| "must be a plain decimal such as \"0.6\"".to_owned())?;
        if amount.is_sign_negative() && !amount.is_zero() {
            return Err("must not be negative".to_owned());
        }
        if amount > Decimal::from(UNITS_MAX) {
            return Err(format!("must be at most {UNITS_MAX} per million tokens"));
        }
        let nanos = amount.checked_mul(Decimal::from(NANOS_PER_UNIT));
        nanos
            .filter(|n| n.fract().is_zero())
            .and_then(|n| n.to_i64())
            .map(Self)
            .ok_or_else(|| "must have at most nine decimals".to_owned())
    }
}

impl TryFrom<u64> for Price {
    type Error = String;

    fn try_from(units: u64) -> Result<Self, String> {
        units.to_string().parse()
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Decimal::new(self.0, 9).normalize())
    }
}

impl Serialize for Price {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Price {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Price;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a price as decimal text or a whole number")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Price, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, units: u64) -> Result<Price, E> {
                units.try_into().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, units: i64) -> Result<Price, E> {
                let units = u64::try_from(units).map_err(|_| E::custom("must not be negative"))?;
                self.visit_u64(units)
            }

            fn visit_f64<E: de::Error>(self, units: f64) -> Result<Price, E> {
                Err(E::custom(float_problem(&units.to_string())))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// What to say of a price written as a number with a decimal point.
pub(crate) fn float_problem(literal: &str) -> String {
    format!("must be text, so that it stays exact: write \"{literal}\"")
}

/// A price of the operator's own, in the currency of the list in force. The rows of a model replace
/// all shipped rows of that model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPrice {
    /// The model, as jobs name it.
    pub model: String,
    /// A million prompt tokens that were not cached.
    pub input: Price,
    /// A million prompt tokens from GLM's cache; as much as `input` when left out.
    #[serde(default)]
    pub cached_input: Option<Price>,
    /// A million completion tokens, reasoning included.
    pub output: Price,
    /// The row applies to prompts of so many tokens and more.
    #[serde(default)]
    pub prompt_from: u64,
    /// The row applies to completions of so many tokens and more.
    #[serde(default)]
    pub completion_from: u64,
}

impl ModelPrice {
    fn row(&self) -> PriceRow {
        PriceRow {
            prompt_from: self.prompt_from,
            completion_from: self.completion_from,
            input: self.input.nanos(),
            cached_input: self.cached_input.unwrap_or(self.input).nanos(),
            output: self.output.nanos(),
        }
    }
}

/// Why prices don't make a list: the index of the row and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PriceProblem {
    pub(crate) index: usize,
    pub(crate) problem: String,
}

/// Checks prices as a whole: every model has a row that any call reaches, and no row twice.
pub(crate) fn check(prices: &[ModelPrice]) -> Result<(), PriceProblem> {
    for (index, price) in prices.iter().enumerate() {
        let fault = |problem: String| Err(PriceProblem { index, problem });
        let chars = price.model.chars().count();
        if !(1..=limits::MODEL_CHARS_MAX).contains(&chars) {
            return fault("model must have 1 to 128 characters".to_owned());
        }
        let tier = |p: &ModelPrice| (p.prompt_from, p.completion_from);
        let same_model = |p: &&ModelPrice| p.model == price.model;
        if !prices.iter().filter(same_model).any(|p| tier(p) == (0, 0)) {
            return fault(format!(
                "`{}` needs a row without bounds, or calls below them have no price",
                price.model
            ));
        }
        let mut before = prices.iter().take(index).filter(same_model);
        if before.any(|p| tier(p) == tier(price)) {
            return fault(format!(
                "`{}` has two rows with the same bounds",
                price.model
            ));
        }
    }
    Ok(())
}

/// Which of GLM's price lists counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PriceList {
    /// By base URL: z.ai charges dollars, everything else is taken as bigmodel.cn.
    #[default]
    Auto,
    /// The list of bigmodel.cn, in yuan.
    Cny,
    /// The list of z.ai, in dollars.
    Usd,
}

impl PriceList {
    /// What the list counts in for calls to `base_url`.
    #[must_use]
    pub fn currency(self, base_url: &str) -> Currency {
        match self {
            Self::Cny => Currency::Cny,
            Self::Usd => Currency::Usd,
            Self::Auto => {
                let url = reqwest::Url::parse(base_url).ok();
                let host = url.as_ref().and_then(|u| u.host_str()).unwrap_or_default();
                if host == "z.ai" || host.ends_with(".z.ai") {
                    Currency::Usd
                } else {
                    Currency::Cny
                }
            }
        }
    }
}

#[derive(Deserialize)]
struct ShippedRow {
    currency: Currency,
    model: String,
    input: Price,
    cached_input: Option<Price>,
    output: Price,
    #[serde(default)]
    prompt_from: u64,
    #[serde(default)]
    completion_from: u64,
}

#[derive(Deserialize)]
struct Shipped {
    rows: Vec<ShippedRow>,
}

/// The shipped list in `currency`, with the operator's own prices in place of the shipped ones of
/// their models. Fails only if the shipped data are broken.
pub(crate) fn table(
    currency: Currency,
    own: &[ModelPrice],
) -> Result<PriceTable, serde_json::Error> {
    let shipped: Shipped = serde_json::from_str(SHIPPED)?;
    let mut table = PriceTable::new(currency);
    for row in shipped.rows {
        if row.currency != currency {
            continue;
        }
        let price = ModelPrice {
            model: row.model,
            input: row.input,
            cached_input: row.cached_input,
            output: row.output,
            prompt_from: row.prompt_from,
            completion_from: row.completion_from,
        };
        table.add(&price.model, price.row());
    }
    for price in own {
        table.remove(&price.model);
    }
    for price in own {
        table.add(&price.model, price.row());
    }
    Ok(table)
}
