//! Amounts as the API writes them, to the last digit, and as people read them.

use onelane::model::Currency;
use rust_decimal::Decimal;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::words::grouped;

/// A decimal that never was a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Exact(pub(super) Decimal);

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get().trim_matches('"');
        let exact = Decimal::from_str_exact(text).or_else(|_| Decimal::from_scientific(text));
        exact
            .map(Self)
            .map_err(|_| D::Error::custom("an amount is no decimal"))
    }
}

/// What something cost.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Cost {
    pub(super) cost: Exact,
    pub(super) currency: Currency,
}

/// Money or tokens.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Amount {
    cost: Option<Exact>,
    currency: Option<Currency>,
    tokens: Option<u64>,
}

impl Amount {
    pub(super) const fn of(
        cost: Option<Exact>,
        currency: Option<Currency>,
        tokens: Option<u64>,
    ) -> Self {
        Self {
            cost,
            currency,
            tokens,
        }
    }

    /// For a person.
    pub(super) fn text(self) -> String {
        match (self.cost, self.currency, self.tokens) {
            (Some(cost), Some(currency), _) => money(cost.0, currency),
            (_, _, Some(tokens)) => format!("{} tokens", grouped(tokens)),
            _ => "?".to_owned(),
        }
    }

    /// Whether it is nothing.
    pub(super) fn is_zero(self) -> bool {
        self.cost.is_none_or(|cost| cost.0.is_zero())
            && self.tokens.is_none_or(|tokens| tokens == 0)
    }
}

/// An amount with its sign: two places from one on, as many as say something below.
pub(super) fn money(amount: Decimal, currency: Currency) -> String {
    let rounded = match amount.abs() >= Decimal::ONE || amount.is_zero() {
        true => amount.round_dp(2),
        false => amount.round_sf(3).unwrap_or(amount).normalize(),
    };
    let number = match rounded.abs() >= Decimal::ONE || rounded.is_zero() {
        true => format!("{rounded:.2}"),
        false => rounded.to_string(),
    };
    match currency {
        Currency::Cny => format!("¥{number}"),
        Currency::Usd => format!("${number}"),
        Currency::Points => format!("{number} points"),
    }
}

/// Costs of several currencies, and calls whose cost is not known.
pub(super) fn costs(costs: &[Cost], unpriced: u64) -> String {
    let mut parts: Vec<String> = costs
        .iter()
        .map(|cost| money(cost.cost.0, cost.currency))
        .collect();
    if unpriced > 0 {
        parts.push(format!("{} unpriced", grouped(unpriced)));
    }
    match parts.is_empty() {
        true => "-".to_owned(),
        false => parts.join(" + "),
    }
}

/// Adds costs up, by currency.
pub(super) fn add(sum: &mut Vec<Cost>, costs: &[Cost]) {
    for cost in costs {
        match sum.iter_mut().find(|sum| sum.currency == cost.currency) {
            Some(sum) => sum.cost.0 += cost.cost.0,
            None => sum.push(*cost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_added_to_the_last_digit() {
        let read: Vec<Cost> = serde_json::from_str(
            r#"[{"cost": 0.1, "currency": "CNY"}, {"cost": 0.2, "currency": "CNY"}, {"cost": 3, "currency": "USD"}]"#,
        )
        .unwrap();
        let mut sum = Vec::new();
        add(&mut sum, &read);
        assert_eq!(sum.first().unwrap().cost.0.to_string(), "0.3");
        assert_eq!(costs(&sum, 2), "¥0.3 + $3.00 + 2 unpriced");
    }

    #[test]
    fn an_amount_is_told_in_as_many_places_as_say_something() {
        let cny = |text: &str| money(Decimal::from_str_exact(text).unwrap(), Currency::Cny);
        assert_eq!(
            [cny("38.2"), cny("0.00716"), cny("0"), cny("0.046")],
            ["¥38.20", "¥0.00716", "¥0.00", "¥0.046"]
        );
        let tokens: Amount = serde_json::from_str(r#"{"tokens": 20000}"#).unwrap();
        assert_eq!(tokens.text(), "20,000 tokens");
    }
}
