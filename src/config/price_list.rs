//! The price list in force, for people: what every model costs, since when, and who says so.

use onelane_core::model::{Currency, Nanos, PriceUsed, Unpriced, amount};
use serde::Serialize;

use super::loaded::Loaded;
use super::prices::{ModelPrice, PlanOnly, Price, PriceList, Shipped};

/// The list in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Prices {
    /// The version of the shipped list.
    pub version: String,
    /// What it counts in.
    pub currency: Currency,
    /// What picked the list.
    pub chosen_by: ChosenBy,
    /// What becomes of submissions for models that are not in it.
    pub unpriced: Unpriced,
    /// The rows, by model and bounds.
    pub prices: Vec<PriceEntry>,
    /// Models that Coding Plans alone serve and that no list has a price of; those that the operator gave one are
    /// above.
    pub plan_only: Vec<PlanOnly>,
}

/// What picked the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ChosenBy {
    /// The base URL that calls go to.
    BaseUrl,
    /// Nothing: the base URL is of neither site, and is taken as bigmodel.cn's.
    Assumed,
    /// `money.price_list`.
    PriceList,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PriceEntry {
    /// The model, by its canonical name.
    pub model: String,
    /// For prompts of so many tokens and more.
    pub prompt_from: u64,
    /// For completions of so many tokens and more.
    pub completion_from: u64,
    /// For prompts of fewer tokens; what longer ones cost is not known. `None`: however long.
    pub prompt_to: Option<u64>,
    /// A million prompt tokens that were not cached.
    #[serde(serialize_with = "amount::serialize")]
    #[schemars(with = "f64")]
    pub input: Nanos,
    /// A million prompt tokens from GLM's cache; `None`: no price of their own is known, and they cost
    /// as much as others.
    #[serde(serialize_with = "amount::optional")]
    #[schemars(with = "Option<f64>")]
    pub cached_input: Option<Nanos>,
    /// A million completion tokens, reasoning included.
    #[serde(serialize_with = "amount::serialize")]
    #[schemars(with = "f64")]
    pub output: Nanos,
    /// When the row counts, in words; `None`: always.
    pub when: Option<String>,
    /// Tokens that prompt and completion may have together, where it is known.
    pub context: Option<u64>,
    /// The version of the shipped list that the row is of, or `own`.
    pub table: String,
    /// When the source said so; `None` for a price of the operator's own.
    pub as_of: Option<String>,
    /// Who says so: where it is published, or where the operator said it.
    pub source: String,
    /// What else there is to know.
    pub note: Option<String>,
}

impl Loaded {
    /// The price list in force, by model and bounds: the shipped rows, and the operator's own in place of
    /// those of their models.
    #[must_use]
    pub fn prices(&self) -> Prices {
        let money = &self.config.money;
        let currency = self.settings.prices.currency();
        let own: Vec<&ModelPrice> = money
            .prices
            .iter()
            .filter(|price| price.counts_in(currency))
            .collect();
        let version = self.settings.prices.version();
        let said = self.origin("money.prices").to_string();
        let mut prices: Vec<PriceEntry> = own
            .iter()
            .map(|price| PriceEntry::own(price, &said))
            .collect();
        // The shipped list was read when this configuration was made.
        let mut plan_only = Vec::new();
        if let Ok(shipped) = Shipped::read() {
            let is_replaced = |model: &str| own.iter().any(|price| price.model == model);
            let rows = shipped.list(currency);
            let rows = rows.filter(|row| !is_replaced(&row.price.model));
            prices.extend(rows.map(|row| PriceEntry {
                context: row.context,
                table: version.to_owned(),
                as_of: Some(row.as_of.clone()),
                note: row.note.clone(),
                ..PriceEntry::own(&row.price, &row.source)
            }));
            plan_only = shipped.plan_only;
        }
        plan_only.retain(|known: &PlanOnly| !self.settings.prices.is_priced(&known.model));
        prices.sort_by(|a, b| a.place().cmp(&b.place()));
        Prices {
            version: version.to_owned(),
            currency,
            chosen_by: self.list_chosen_by(),
            unpriced: self.settings.unpriced,
            prices,
            plan_only,
        }
    }
}

impl Loaded {
    fn list_chosen_by(&self) -> ChosenBy {
        let list = self.config.money.price_list;
        match list {
            PriceList::Auto if list.is_assumed(&self.settings.glm.base_url) => ChosenBy::Assumed,
            PriceList::Auto => ChosenBy::BaseUrl,
            PriceList::Cny | PriceList::Usd | PriceList::Points => ChosenBy::PriceList,
        }
    }

    /// Tells the log which list counts: who calls through a relay may mean another one.
    pub(crate) fn tell_price_list(&self) {
        let prices = &self.settings.prices;
        let (currency, of) = (prices.currency().code(), prices.version());
        match self.list_chosen_by() {
            ChosenBy::Assumed => tracing::info!(
                currency,
                list_of = of,
                "prices are taken from the list of bigmodel.cn, since the base URL is of neither site; \
                 money.price_list names another one"
            ),
            ChosenBy::BaseUrl => {
                tracing::info!(
                    currency,
                    list_of = of,
                    "the price list is that of the base URL"
                );
            }
            ChosenBy::PriceList => {
                tracing::info!(
                    currency,
                    list_of = of,
                    "the price list is that of money.price_list"
                );
            }
        }
    }
}

impl PriceEntry {
    fn place(&self) -> (&str, u64, u64, Option<&str>) {
        (
            &self.model,
            self.prompt_from,
            self.completion_from,
            self.when.as_deref(),
        )
    }

    fn own(price: &ModelPrice, said: &str) -> Self {
        Self {
            model: price.model.clone(),
            prompt_from: price.prompt_from,
            completion_from: price.completion_from,
            prompt_to: price.prompt_to,
            input: price.input.nanos(),
            cached_input: price.cached_input.map(Price::nanos),
            output: price.output.nanos(),
            when: price.when.in_words(),
            context: None,
            table: PriceUsed::OWN.to_owned(),
            as_of: None,
            source: said.to_owned(),
            note: None,
        }
    }
}
