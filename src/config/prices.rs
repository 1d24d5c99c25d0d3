//! What calls cost: the shipped price lists, and prices of the operator's own. Decimal text becomes
//! integer nano-units here, exactly; a binary float never touches a price.

use std::fmt;
use std::str::FromStr;

use onelane_core::model::setting::{Kind, Problem, Secrets, Setting};
use onelane_core::model::{Currency, Nanos, PriceRow, PriceTable, TimeBand, limits, model_name};
use onelane_core::section;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

/// The published lists of bigmodel.cn (CNY), z.ai (USD) and the Coding Plan (POINTS); each row names its
/// source and date.
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
            return Err(format!("must be at most {UNITS_MAX}"));
        }
        let nanos = amount.checked_mul(Decimal::from(NANOS_PER_UNIT));
        nanos
            .filter(|n| n.fract().is_zero())
            .and_then(|n| n.to_i64())
            .map(Self)
            .ok_or_else(|| "must have at most nine decimals".to_owned())
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Decimal::new(self.0, 9).normalize())
    }
}

impl Setting for Price {
    fn kind() -> Kind {
        Kind::Decimal(|text| {
            let price: Result<Self, String> = text.parse();
            Ok(price?.to_string())
        })
    }

    fn write(&self, _: Secrets) -> Value {
        self.to_string().into()
    }

    fn take(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok()
    }
}

section! {
    /// A price of the operator's own. The rows of a model replace all shipped rows of that model.
    #[derive(Eq)]
    pub struct ModelPrice {
        /// The model, as jobs name it.
        model: String = String::new() => [text(model_name::setting).required().sample("\"glm-4.7\"")];
        /// A million prompt tokens that were not cached.
        input: Price = Price::default() => [required().sample("\"2\"")];
        /// A million prompt tokens from GLM's cache; as much as input when left out.
        cached_input: Option<Price> = None => [sample("\"0.4\"")];
        /// A million completion tokens, reasoning included.
        output: Price = Price::default() => [required().sample("\"8\"")];
        /// The row is for prompts of so many tokens and more.
        prompt_from: u64 = 0;
        /// The row is for completions of so many tokens and more.
        completion_from: u64 = 0;
        /// The row is for prompts of fewer tokens than these; what longer ones cost is not known.
        prompt_to: Option<u64> = None => [sample("32768")];
        /// When the row counts; without a word of it, always.
        when: TimeBand = TimeBand::default() => [flat("")];
        /// The row counts only while the list in force is in this currency; when left out, always, and in that
        /// list's currency.
        currency: Option<Currency> = None => [sample("\"CNY\"")];
    }
}

impl ModelPrice {
    /// Whether the row counts beside a list in `currency`.
    pub(crate) fn counts_in(&self, currency: Currency) -> bool {
        self.currency.is_none_or(|own| own == currency)
    }

    fn row(&self) -> PriceRow {
        PriceRow {
            prompt_from: self.prompt_from,
            completion_from: self.completion_from,
            prompt_to: self.prompt_to,
            input: self.input.nanos(),
            cached_input: self.cached_input.unwrap_or(self.input).nanos(),
            output: self.output.nanos(),
            when: self.when,
        }
    }
}

/// [`check`] for rows that were read one by one.
pub(crate) fn check_rows(rows: &[Value]) -> Result<(), (usize, Problem)> {
    let prices: Vec<ModelPrice> = rows.iter().filter_map(ModelPrice::take).collect();
    check(&prices)
}

/// Checks prices as a whole: every model has a row that any call reaches, in each currency that it has
/// rows in, and no row twice.
fn check(prices: &[ModelPrice]) -> Result<(), (usize, Problem)> {
    for (index, price) in prices.iter().enumerate() {
        let wrong_value = |problem: String| Err((index, problem.into()));
        let chars = price.model.chars().count();
        if !(1..=limits::MODEL_CHARS_MAX).contains(&chars) {
            return wrong_value("model must have 1 to 128 characters".to_owned());
        }
        let tier = |p: &ModelPrice| (p.prompt_from, p.completion_from, p.when);
        let of_model = |p: &&ModelPrice| p.model == price.model;
        let mut of_model = prices.iter().filter(of_model);
        if of_model.any(|p| p.currency.is_some() != price.currency.is_some()) {
            return wrong_value(format!(
                "`{}` has rows with a currency and rows without; say it in all of them or in none",
                price.model
            ));
        }
        let same_model = |p: &&ModelPrice| p.model == price.model && p.currency == price.currency;
        if !prices
            .iter()
            .filter(same_model)
            .any(|p| (p.prompt_from, p.completion_from) == (0, 0))
        {
            return wrong_value(format!(
                "`{}` needs a row without bounds, or calls below them have no price",
                price.model
            ));
        }
        if price.prompt_to.is_some_and(|end| end <= price.prompt_from) {
            return wrong_value("prompt_to must be above prompt_from".to_owned());
        }
        let mut before = prices.iter().take(index).filter(same_model);
        if before.any(|p| tier(p) == tier(price)) {
            return wrong_value(format!(
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
    /// By base URL: the path of a Coding Plan spends points, z.ai charges dollars, everything else is
    /// taken as bigmodel.cn.
    #[default]
    Auto,
    /// The list of bigmodel.cn, in yuan.
    Cny,
    /// The list of z.ai, in dollars.
    Usd,
    /// The list of the Coding Plan, in points.
    Points,
}

/// What the path of a Coding Plan's base URL has in it, on either site and behind a proxy of one's own.
const CODING_PLAN_PATH: [&str; 3] = ["api", "coding", "paas"];

/// The list that a base URL tells; `None` when it tells nothing.
fn told_by(base_url: &str) -> Option<Currency> {
    let url = reqwest::Url::parse(base_url).ok()?;
    let segments: Vec<&str> = url
        .path_segments()
        .into_iter()
        .flatten()
        .filter(|segment| !segment.is_empty())
        .collect();
    if segments
        .windows(CODING_PLAN_PATH.len())
        .any(|part| part == CODING_PLAN_PATH)
    {
        return Some(Currency::Points);
    }
    // A name may end in the dot of the root.
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    let is_of = |site: &str| {
        let before = host.strip_suffix(site);
        before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    [("z.ai", Currency::Usd), ("bigmodel.cn", Currency::Cny)]
        .into_iter()
        .find_map(|(site, currency)| is_of(site).then_some(currency))
}

impl PriceList {
    /// What the list counts in for calls to `base_url`.
    #[must_use]
    pub fn currency(self, base_url: &str) -> Currency {
        match self {
            Self::Cny => Currency::Cny,
            Self::Usd => Currency::Usd,
            Self::Points => Currency::Points,
            Self::Auto => told_by(base_url).unwrap_or(Currency::Cny),
        }
    }

    /// Whether calls to `base_url` are taken as those of bigmodel.cn for want of a better word.
    pub(crate) fn is_assumed(self, base_url: &str) -> bool {
        self == Self::Auto && told_by(base_url).is_none()
    }

    /// The list in this currency, by its name.
    #[must_use]
    pub const fn name_of(currency: Currency) -> &'static str {
        match currency {
            Currency::Cny => "cny",
            Currency::Usd => "usd",
            Currency::Points => "points",
        }
    }
}

/// A row as it is shipped, as JSON: a [`ModelPrice`], and where it is from.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ShippedRow {
    #[serde(flatten, deserialize_with = "taken")]
    pub(crate) price: ModelPrice,
    /// Tokens that prompt and completion may have together.
    #[serde(default)]
    pub(crate) context: Option<u64>,
    /// When the source said so.
    pub(crate) as_of: String,
    /// Who said so.
    pub(crate) source: String,
    #[serde(default)]
    pub(crate) note: Option<String>,
}

/// The lists as they are shipped.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Shipped {
    pub(crate) version: String,
    pub(crate) rows: Vec<ShippedRow>,
    pub(crate) plan_only: Vec<PlanOnly>,
}

/// A model that is known and on no price page: Coding Plans alone serve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all(serialize = "camelCase"))]
pub struct PlanOnly {
    /// The model, by its canonical name.
    pub model: String,
    /// Tokens that prompt and completion may have together.
    pub context: u64,
    /// When the source said so.
    pub as_of: String,
    /// Who says so.
    pub source: String,
    /// What else there is to know.
    pub note: String,
}

fn taken<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ModelPrice, D::Error> {
    let row = Value::deserialize(deserializer)?;
    ModelPrice::take(&row).ok_or_else(|| de::Error::custom("is no price"))
}

impl Shipped {
    /// Reads them; fails only if they are broken.
    pub(crate) fn read() -> Result<Self, serde_json::Error> {
        serde_json::from_str(SHIPPED)
    }

    /// The rows of the list in `currency`.
    pub(crate) fn list(&self, currency: Currency) -> impl Iterator<Item = &ShippedRow> {
        let rows = self.rows.iter();
        rows.filter(move |row| row.price.currency == Some(currency))
    }
}

/// The shipped list in `currency`, with the operator's own prices in place of the shipped ones of
/// their models. Fails only if the shipped data are broken.
pub(crate) fn table(
    currency: Currency,
    own: &[ModelPrice],
) -> Result<PriceTable, serde_json::Error> {
    let shipped = Shipped::read()?;
    let mut table = PriceTable::versioned(currency, &shipped.version);
    for ShippedRow { price, .. } in shipped.list(currency) {
        table.add(&price.model, price.row());
    }
    for price in own.iter().filter(|price| price.counts_in(currency)) {
        table.add_own(&price.model, price.row());
    }
    Ok(table)
}
