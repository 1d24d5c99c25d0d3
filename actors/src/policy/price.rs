//! What a call costs, exactly: integers from the price list to the sum.

use std::collections::BTreeMap;

use crate::model::{Cost, Currency, Nanos, Usage};

/// One row of the price list: what a million tokens cost, in nano-units, for calls whose prompt
/// and completion lie within its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriceRow {
    /// Prompt tokens from here on.
    pub prompt_from: u64,
    /// Completion tokens from here on.
    pub completion_from: u64,
    /// A million prompt tokens that were not cached.
    pub input: Nanos,
    /// A million prompt tokens from GLM's cache.
    pub cached_input: Nanos,
    /// A million completion tokens, reasoning included.
    pub output: Nanos,
}

/// The price list in force: one currency, rows by model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceTable {
    currency: Currency,
    models: BTreeMap<String, Vec<PriceRow>>,
}

impl Default for PriceTable {
    fn default() -> Self {
        Self::new(Currency::Cny)
    }
}

impl PriceTable {
    /// A list without rows: every model is unpriced.
    #[must_use]
    pub const fn new(currency: Currency) -> Self {
        Self {
            currency,
            models: BTreeMap::new(),
        }
    }

    /// What the list counts in.
    #[must_use]
    pub const fn currency(&self) -> Currency {
        self.currency
    }

    /// The models that have a price.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    /// Adds a row. Rows of a model are tiers; the one with the highest bounds that a call reaches
    /// applies to the whole call.
    pub fn add(&mut self, model: &str, row: PriceRow) {
        let rows = self.models.entry(model.to_owned()).or_default();
        rows.push(row);
        rows.sort_by_key(|r| (r.prompt_from, r.completion_from));
    }

    /// Takes a model's rows out, so that others can take their place.
    pub fn remove(&mut self, model: &str) {
        self.models.remove(model);
    }

    /// The row that applies to a call, by GLM's rule: the tier is picked by the whole prompt,
    /// cached part included, and, where the list says so, by the completion; it applies to the
    /// full request.
    #[must_use]
    pub fn row(&self, model: &str, usage: &Usage) -> Option<&PriceRow> {
        self.models.get(model)?.iter().rev().find(|row| {
            usage.prompt_tokens >= row.prompt_from && usage.completion_tokens >= row.completion_from
        })
    }

    /// The most that a call can cost: every tier that it may reach, nothing cached. `None` when the
    /// model has no price.
    #[must_use]
    pub fn worst_case(&self, model: &str, prompt: u64, completion: u64) -> Option<Cost> {
        let rows = self.models.get(model)?.iter();
        let nanos = rows
            .filter(|row| row.prompt_from <= prompt && row.completion_from <= completion)
            .map(|row| {
                let input = row.input.max(row.cached_input);
                let sum = i128::from(prompt) * i128::from(input)
                    + i128::from(completion) * i128::from(row.output);
                (sum + 999_999).div_euclid(1_000_000)
            })
            .max()?;
        Some(Cost {
            nanos: Nanos::try_from(nanos).unwrap_or(Nanos::MAX),
            currency: self.currency,
        })
    }

    /// The cost of a call; `None` when the model has no price. Rounded once, half up, to a nano-unit.
    #[must_use]
    pub fn cost(&self, model: &str, usage: &Usage) -> Option<Cost> {
        let row = self.row(model, usage)?;
        let cached = usage.cached_tokens.min(usage.prompt_tokens);
        let fresh = usage.prompt_tokens - cached;
        let sum = i128::from(fresh) * i128::from(row.input)
            + i128::from(cached) * i128::from(row.cached_input)
            + i128::from(usage.completion_tokens) * i128::from(row.output);
        let nanos = (sum + 500_000).div_euclid(1_000_000);
        Some(Cost {
            nanos: Nanos::try_from(nanos).unwrap_or(Nanos::MAX),
            currency: self.currency,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(prompt_from: u64, completion_from: u64, milli: [i64; 3]) -> PriceRow {
        let [input, cached_input, output] = milli.map(|m| m * 1_000_000);
        PriceRow {
            prompt_from,
            completion_from,
            input,
            cached_input,
            output,
        }
    }

    #[test]
    fn the_tier_is_picked_by_the_whole_prompt_and_the_completion() {
        let mut table = PriceTable::new(Currency::Cny);
        // GLM-4.7 on bigmodel.cn.
        table.add("glm-4.7", row(0, 0, [2_000, 400, 8_000]));
        table.add("glm-4.7", row(0, 200, [3_000, 600, 14_000]));
        table.add("glm-4.7", row(32_768, 0, [4_000, 800, 16_000]));
        let check = |prompt, cached, completion, nanos| {
            let usage = Usage {
                prompt_tokens: prompt,
                cached_tokens: cached,
                completion_tokens: completion,
                total_tokens: prompt + completion,
                reasoning_tokens: 0,
            };
            assert_eq!(table.cost("glm-4.7", &usage).unwrap().nanos, nanos);
        };
        check(1_000, 0, 199, 1_000 * 2_000 + 199 * 8_000);
        check(1_000, 0, 200, 1_000 * 3_000 + 200 * 14_000);
        check(1_000, 400, 200, 600 * 3_000 + 400 * 600 + 200 * 14_000);
        check(32_767, 0, 199, 32_767 * 2_000 + 199 * 8_000);
        check(32_768, 0, 1, 32_768 * 4_000 + 16_000);
        check(32_768, 32_768, 500, 32_768 * 800 + 500 * 16_000);
    }

    #[test]
    fn a_model_without_a_price_has_no_cost_and_a_free_one_costs_nothing() {
        let mut table = PriceTable::new(Currency::Usd);
        table.add("glm-4.7-flash", row(0, 0, [0, 0, 0]));
        let usage = Usage {
            total_tokens: 10,
            prompt_tokens: 10,
            ..Usage::default()
        };
        assert_eq!(table.cost("glm-9", &usage), None);
        assert_eq!(table.cost("glm-4.7-flash", &usage).unwrap().nanos, 0);
    }
}
