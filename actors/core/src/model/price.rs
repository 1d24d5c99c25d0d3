//! What a call costs, exactly: integers from the price list to the sum.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::model_name::canonical;
use super::{Cost, Currency, Nanos, PriceUsed, TimeBand, Timestamp, Usage};

/// One row of the price list: what a million tokens cost, in nano-units and never less than nothing,
/// for calls whose prompt and completion lie within its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PriceRow {
    /// Prompt tokens from here on.
    pub prompt_from: u64,
    /// Completion tokens from here on.
    pub completion_from: u64,
    /// Prompt tokens below this; what longer prompts cost is not known. `None`: however long.
    pub prompt_to: Option<u64>,
    /// A million prompt tokens that were not cached.
    pub input: Nanos,
    /// A million prompt tokens from GLM's cache.
    pub cached_input: Nanos,
    /// A million completion tokens, reasoning included.
    pub output: Nanos,
    /// When it counts. One that is bounded counts in its time in place of one that is not.
    pub when: TimeBand,
}

impl PriceRow {
    /// Whether it says what a prompt of so many tokens costs.
    const fn knows(&self, prompt_tokens: u64) -> bool {
        match self.prompt_to {
            Some(end) => prompt_tokens < end,
            None => true,
        }
    }

    /// Whether nothing costs anything, however long.
    const fn is_free(&self) -> bool {
        self.input == 0 && self.cached_input == 0 && self.output == 0 && self.prompt_to.is_none()
    }
}

/// The price list in force: one currency, rows by model.
///
/// A model is looked up by its canonical name ([`canonical`]), in any case; a dated or suffixed
/// name (`glm-4-air-250414`) has rows of its own or none. What resembles a known model may well cost
/// something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceTable {
    currency: Currency,
    version: Arc<str>,
    models: BTreeMap<String, ModelRows>,
}

/// The tiers of one model, by their bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ModelRows {
    table: Arc<str>,
    rows: Vec<PriceRow>,
}

impl ModelRows {
    /// The row that a call reaches among those whose times are asked for; `None` where none says what it costs.
    fn row(&self, usage: &Usage, counts: impl Fn(&TimeBand) -> bool) -> Option<&PriceRow> {
        let reached = |row: &&PriceRow| {
            usage.prompt_tokens >= row.prompt_from
                && usage.completion_tokens >= row.completion_from
                && counts(&row.when)
        };
        let row = self.rows.iter().rev().find(reached)?;
        row.knows(usage.prompt_tokens).then_some(row)
    }
}

impl Default for PriceTable {
    fn default() -> Self {
        Self::new(Currency::Cny)
    }
}

impl PriceTable {
    /// A list of the operator's own without rows: every model is unpriced.
    #[must_use]
    pub fn new(currency: Currency) -> Self {
        Self::versioned(currency, PriceUsed::OWN)
    }

    /// A published list, still without rows.
    #[must_use]
    pub fn versioned(currency: Currency, version: &str) -> Self {
        Self {
            currency,
            version: version.into(),
            models: BTreeMap::new(),
        }
    }

    /// What the list counts in.
    #[must_use]
    pub const fn currency(&self) -> Currency {
        self.currency
    }

    /// Which list it is: the version of a published one, or [`PriceUsed::OWN`].
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The models that have a price.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    /// Whether a model has a price; one that is free has.
    #[must_use]
    pub fn is_priced(&self, model: &str) -> bool {
        self.models.contains_key(&*canonical(model))
    }

    /// The version of the list that a model's rows are of, or [`PriceUsed::OWN`], and the rows by
    /// their bounds; `None` when it has no price.
    #[must_use]
    pub fn rows(&self, model: &str) -> Option<(&str, &[PriceRow])> {
        let model = self.models.get(&*canonical(model))?;
        Some((&model.table, &model.rows))
    }

    /// Adds a row of the list. Rows of a model are tiers; the one with the highest bounds that a call
    /// reaches applies to the whole call.
    pub fn add(&mut self, model: &str, row: PriceRow) {
        let version = Arc::clone(&self.version);
        self.insert(model, version, row);
    }

    /// Adds a row of the operator's own. The first one of a model takes the place of all rows that the
    /// list has of it.
    pub fn add_own(&mut self, model: &str, row: PriceRow) {
        self.insert(model, PriceUsed::OWN.into(), row);
    }

    fn insert(&mut self, model: &str, table: Arc<str>, row: PriceRow) {
        let of_table = || ModelRows {
            table: Arc::clone(&table),
            rows: Vec::new(),
        };
        let entry = self
            .models
            .entry(canonical(model).into_owned())
            .or_insert_with(&of_table);
        if entry.table != table {
            *entry = of_table();
        }
        entry.rows.push(row);
        entry
            .rows
            .sort_by_key(|r| (r.prompt_from, r.completion_from, !r.when.is_always()));
    }

    /// The prices that apply to a call that began then, by GLM's rule: the tier is picked by the whole prompt, cached
    /// part included, and, where the list says so, by the completion; it applies to the full request.
    #[must_use]
    pub fn price(&self, model: &str, usage: &Usage, at: Timestamp) -> Option<PriceUsed> {
        let model = self.models.get(&*canonical(model))?;
        let row = model.row(usage, |when| when.holds(at))?;
        Some(self.used(model, row))
    }

    /// The prices that may apply to a call, whenever it begins.
    fn possible<'t>(
        &'t self,
        model: &'t ModelRows,
        usage: Usage,
    ) -> impl Iterator<Item = PriceUsed> + 't {
        let times = model.rows.iter().map(|row| row.when);
        let rows = std::iter::once(TimeBand::default())
            .chain(times.filter(|when| !when.is_always()))
            .filter_map(move |time| model.row(&usage, |when| when.is_always() || *when == time));
        rows.map(|row| self.used(model, row))
    }

    fn used(&self, model: &ModelRows, row: &PriceRow) -> PriceUsed {
        PriceUsed {
            table: Arc::clone(&model.table),
            prompt_from: row.prompt_from,
            completion_from: row.completion_from,
            input: row.input,
            cached_input: row.cached_input,
            output: row.output,
            currency: self.currency,
        }
    }

    /// Whether calls to this model cost nothing, whatever they use.
    #[must_use]
    pub fn is_free(&self, model: &str) -> bool {
        let model = self.models.get(&*canonical(model));
        model.is_some_and(|model| model.rows.iter().all(PriceRow::is_free))
    }

    /// The cost of a call that began then, with the prices it was worked out by; `None` when the model has no price for
    /// it, or when GLM did not say how many tokens it billed. Of a free model that is no matter.
    #[must_use]
    pub fn charge(&self, model: &str, usage: &Usage, at: Timestamp) -> Option<(Cost, PriceUsed)> {
        let is_known = usage.is_chargeable() || self.is_free(model);
        let price = is_known.then(|| self.price(model, usage, at))??;
        Some((price.cost(usage), price))
    }

    /// The most that a call may cost whose prompt has at most so many tokens and whose completion at most
    /// `completion_tokens_max`: of all tiers that it could end in, at any time, the dearest. Lengths that the list has
    /// no price for are left out. `None` when the model has no price. A caller that only estimates the prompt
    /// adds a margin of its own.
    #[must_use]
    pub fn worst_case(
        &self,
        model: &str,
        prompt_tokens_max: u64,
        completion_tokens_max: u64,
    ) -> Option<Cost> {
        let model = self.models.get(&*canonical(model))?;
        let rows = &model.rows;
        // Within a tier more tokens cost more: the dearest call ends a tier, or is the longest.
        let ends = |bound: u64, max: u64| bound.checked_sub(1).filter(move |end| *end < max);
        let prompts = rows
            .iter()
            .flat_map(|row| [Some(row.prompt_from), row.prompt_to])
            .filter_map(|bound| ends(bound?, prompt_tokens_max))
            .chain([prompt_tokens_max]);
        let completions = || {
            rows.iter()
                .filter_map(|row| ends(row.completion_from, completion_tokens_max))
                .chain([completion_tokens_max])
        };
        let calls =
            prompts.flat_map(|prompt| completions().map(move |completion| (prompt, completion)));
        let costs = calls.flat_map(|(prompt_tokens, completion_tokens)| {
            // A list of one's own may charge more for what is cached.
            [0, prompt_tokens].map(|cached_tokens| Usage {
                prompt_tokens,
                completion_tokens,
                cached_tokens,
                ..Usage::default()
            })
        });
        costs
            .flat_map(|usage| {
                self.possible(model, usage)
                    .map(move |price| price.cost(&usage))
            })
            .max_by_key(|cost| cost.nanos)
    }

    /// The least that a call may cost whose prompt has so many tokens: all of it cached, nothing
    /// answered. `None` when the model has no price for it.
    #[must_use]
    pub fn best_case(&self, model: &str, prompt_tokens: u64) -> Option<Cost> {
        let model = self.models.get(&*canonical(model))?;
        let rows = &model.rows;
        // The cheapest call begins a tier.
        let costs = rows.iter().flat_map(|row| {
            [0, prompt_tokens].map(|cached_tokens| Usage {
                prompt_tokens,
                completion_tokens: row.completion_from,
                cached_tokens,
                ..Usage::default()
            })
        });
        costs
            .flat_map(|usage| {
                self.possible(model, usage)
                    .map(move |price| price.cost(&usage))
            })
            .min_by_key(|cost| cost.nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Day;

    const T: Timestamp = Timestamp::from_millis(0);

    fn row(prompt_from: u64, completion_from: u64, milli: [i64; 3]) -> PriceRow {
        let [input, cached_input, output] = milli.map(|m| m * 1_000_000);
        PriceRow {
            prompt_from,
            completion_from,
            prompt_to: None,
            input,
            cached_input,
            output,
            when: TimeBand::default(),
        }
    }

    /// GLM-4.7 on bigmodel.cn.
    fn glm_4_7() -> PriceTable {
        let mut table = PriceTable::versioned(Currency::Cny, "2026-11-23");
        table.add("glm-4.7", row(0, 0, [2_000, 400, 8_000]));
        table.add("glm-4.7", row(0, 200, [3_000, 600, 14_000]));
        table.add("glm-4.7", row(32_768, 0, [4_000, 800, 16_000]));
        table
    }

    fn usage([prompt_tokens, cached_tokens, completion_tokens]: [u64; 3]) -> Usage {
        Usage {
            prompt_tokens,
            cached_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
            reasoning_tokens: 0,
            ..Usage::default()
        }
    }

    #[test]
    fn the_tier_is_picked_by_the_whole_prompt_and_the_completion() {
        let table = glm_4_7();
        let check = |tokens, nanos| {
            let (cost, price) = table.charge("glm-4.7", &usage(tokens), T).unwrap();
            assert_eq!(cost.nanos, nanos, "{tokens:?}");
            assert_eq!(price.cost(&usage(tokens)), cost, "the row says it again");
        };
        check([1_000, 0, 199], 1_000 * 2_000 + 199 * 8_000);
        check([1_000, 0, 200], 1_000 * 3_000 + 200 * 14_000);
        check([1_000, 400, 200], 600 * 3_000 + 400 * 600 + 200 * 14_000);
        check([32_767, 0, 199], 32_767 * 2_000 + 199 * 8_000);
        check([32_768, 0, 1], 32_768 * 4_000 + 16_000);
        check([32_768, 32_768, 500], 32_768 * 800 + 500 * 16_000);
    }

    #[test]
    fn a_call_keeps_the_row_it_was_charged_by() {
        let mut table = glm_4_7();
        let (_, price) = table.charge("glm-4.7", &usage([10, 0, 300]), T).unwrap();
        assert_eq!(&*price.table, "2026-11-23");
        assert_eq!((price.prompt_from, price.completion_from), (0, 200));
        assert_eq!(price.output, 14_000_000_000);
        table.add_own("glm-4.7", row(0, 0, [1, 1, 1]));
        table.add_own("glm-4.7", row(100, 0, [2, 2, 2]));
        let (cost, price) = table.charge("glm-4.7", &usage([100, 0, 0]), T).unwrap();
        assert_eq!((&*price.table, cost.nanos), (PriceUsed::OWN, 200));
        assert_eq!(table.rows("glm-4.7").unwrap().1.len(), 2);
    }

    #[test]
    fn a_model_without_a_price_has_no_cost_and_a_free_one_costs_nothing() {
        let mut table = PriceTable::new(Currency::Usd);
        table.add("glm-4.7-flash", row(0, 0, [0, 0, 0]));
        let some = usage([10, 0, 0]);
        assert_eq!(table.charge("glm-9", &some, T), None);
        // What resembles a model is another one; case and blanks make none.
        assert_eq!(table.charge("glm-4.7-flash-x", &some, T), None);
        assert_eq!(table.charge(" GLM-4.7-Flash", &some, T).unwrap().0.nanos, 0);
        assert_eq!(table.charge("glm-4.7-flash", &some, T).unwrap().0.nanos, 0);
    }

    #[test]
    fn without_tokens_there_is_no_cost() {
        let table = glm_4_7();
        assert_eq!(table.charge("glm-4.7", &Usage::default(), T), None);
        let total_only = Usage {
            total_tokens: 100,
            ..Usage::default()
        };
        assert_eq!(table.charge("glm-4.7", &total_only, T), None);
    }

    #[test]
    fn a_free_model_costs_nothing_whatever_is_reported() {
        let mut table = PriceTable::new(Currency::Cny);
        table.add("free", row(0, 0, [0, 0, 0]));
        table.add("free-answers", row(0, 0, [1, 1, 0]));
        let ended = PriceRow {
            prompt_to: Some(100),
            ..row(0, 0, [0, 0, 0])
        };
        table.add("free-when-short", ended);
        let total_only = Usage {
            total_tokens: 100,
            ..Usage::default()
        };
        for unclear in [Usage::default(), total_only] {
            assert_eq!(table.charge("free", &unclear, T).unwrap().0.nanos, 0);
            assert_eq!(table.charge("free-answers", &unclear, T), None);
            assert_eq!(table.charge("free-when-short", &unclear, T), None);
        }
    }

    #[test]
    fn a_prompt_longer_than_the_list_knows_has_no_price() {
        let mut table = PriceTable::new(Currency::Cny);
        let ended = PriceRow {
            prompt_to: Some(32_768),
            ..row(0, 0, [2_000, 500, 8_000])
        };
        table.add("glm-4.6", ended);
        let cost = |prompt| {
            let charge = table.charge("glm-4.6", &usage([prompt, 0, 1]), T);
            charge.map(|(cost, _)| cost.nanos)
        };
        assert_eq!(cost(32_767), Some(32_767 * 2_000 + 8_000));
        assert_eq!(cost(32_768), None);
        assert_eq!(table.best_case("glm-4.6", 32_768), None);
        // The prompt may turn out shorter than at most.
        let worst = table.worst_case("glm-4.6", 1_000_000, 10).unwrap();
        assert_eq!(worst.nanos, 32_767 * 2_000 + 10 * 8_000);
    }

    #[test]
    fn what_a_server_states_wrongly_overflows_nothing() {
        let mut table = PriceTable::new(Currency::Cny);
        let mut highest = row(0, 0, [0, 0, 0]);
        highest.input = Nanos::MAX;
        highest.cached_input = Nanos::MAX;
        highest.output = Nanos::MAX;
        table.add("m", highest);
        let nanos = |tokens| table.charge("m", &usage(tokens), T).unwrap().0.nanos;
        assert_eq!(nanos([u64::MAX; 3]), Nanos::MAX);
        assert_eq!(nanos([u64::MAX, 0, u64::MAX]), Nanos::MAX);
        assert_eq!(nanos([1_000_000, 0, 0]), Nanos::MAX);
        let worst = table.worst_case("m", u64::MAX, u64::MAX).unwrap();
        assert_eq!(worst.nanos, Nanos::MAX);
        // More cached tokens than there are: all were cached, none twice.
        let table = glm_4_7();
        let cost = table.charge("glm-4.7", &usage([10, 500, 1]), T).unwrap().0;
        assert_eq!(cost.nanos, 10 * 400 + 8_000);
    }

    #[test]
    fn the_worst_case_is_the_dearest_tier_that_the_call_could_end_in() {
        let table = glm_4_7();
        let check = |prompt, completion, nanos| {
            let worst = table.worst_case("glm-4.7", prompt, completion).unwrap();
            assert_eq!(worst.nanos, nanos, "{prompt} {completion}");
        };
        check(10, 199, 10 * 2_000 + 199 * 8_000);
        check(10, 200, 10 * 3_000 + 200 * 14_000);
        check(32_767, 4_096, 32_767 * 3_000 + 4_096 * 14_000);
        check(32_768, 100, 32_768 * 4_000 + 100 * 16_000);
        check(10, 0, 10 * 2_000);
        assert_eq!(table.worst_case("glm-9", 10, 10), None);
        // A list of one's own may get cheaper with length: then the end of the tier before is dearer.
        let mut odd = PriceTable::new(Currency::Usd);
        odd.add("m", row(0, 0, [1_000, 3_000, 10_000]));
        odd.add("m", row(0, 100, [1_000, 3_000, 1_000]));
        let worst = odd.worst_case("m", 10, 150).unwrap();
        assert_eq!(worst.nanos, 10 * 3_000 + 99 * 10_000);
        // And so it may with the prompt.
        odd.add("n", row(0, 0, [3_000, 0, 0]));
        odd.add("n", row(100, 0, [1_000, 0, 0]));
        assert_eq!(odd.worst_case("n", 150, 0).unwrap().nanos, 99 * 3_000);
    }

    #[test]
    fn no_call_costs_less_than_the_best_case_nor_more_than_the_worst() {
        let table = glm_4_7();
        for prompt in [0, 1, 32_767, 32_768, 40_000] {
            let best = table.best_case("glm-4.7", prompt).unwrap().nanos;
            let worst = table.worst_case("glm-4.7", prompt, 300).unwrap().nanos;
            for completion in [0, 1, 199, 200, 201, 300] {
                for cached in [0, prompt / 2, prompt] {
                    let usage = usage([prompt, cached, completion]);
                    let nanos = table
                        .price("glm-4.7", &usage, T)
                        .unwrap()
                        .cost(&usage)
                        .nanos;
                    assert!((best..=worst).contains(&nanos), "{usage:?}");
                }
            }
        }
    }

    #[test]
    fn a_price_counts_in_its_time() {
        let at = |text: &str| Timestamp::parse_rfc3339(text).unwrap();
        let mut table = PriceTable::new(Currency::Points);
        table.add("m", row(0, 0, [2_000, 2_000, 2_000]));
        let hours = TimeBand {
            hours: Some("14:00-18:00".parse().unwrap()),
            ..TimeBand::default()
        };
        let peak = PriceRow {
            when: hours,
            ..row(0, 0, [3_000, 3_000, 3_000])
        };
        table.add("m", peak);
        let later = PriceRow {
            when: TimeBand {
                valid_from: Day::parse("2026-12-01"),
                ..TimeBand::default()
            },
            ..row(0, 0, [1_000, 1_000, 1_000])
        };
        table.add("n", row(0, 0, [2_000, 2_000, 2_000]));
        table.add("n", later);
        let check = |model, moment, nanos| {
            let charge = table.charge(model, &usage([1, 0, 1]), at(moment));
            assert_eq!(charge.unwrap().0.nanos, nanos, "{model} {moment}");
        };
        check("m", "2026-11-29T13:59:00+08:00", 4_000);
        check("m", "2026-11-29T14:00:00+08:00", 6_000);
        check("m", "2026-11-29T18:00:00+08:00", 4_000);
        check("n", "2026-11-30T23:59:00+08:00", 4_000);
        check("n", "2026-12-01T00:00:00+08:00", 2_000);
        // Nobody knows when a call begins that is still to be sent.
        assert_eq!(table.worst_case("m", 1, 1).unwrap().nanos, 6_000);
        assert_eq!(table.best_case("m", 1).unwrap().nanos, 2_000);
        assert_eq!(table.best_case("n", 1).unwrap().nanos, 1_000);
    }
}
