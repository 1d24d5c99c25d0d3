//! What each lane is told: its bound, its pace, its order, and which models it takes.

use std::collections::BTreeMap;

use super::limits;
use super::model_name::{self, canonical, is_model};
use super::setting::{Place, Problem, SettingsError};
use crate::section;

section! {
    /// Automatic concurrency: down when GLM throttles, up again when it does not.
    #[derive(Copy, Eq)]
    pub struct AutoSettings {
        /// true switches it on: fewer calls when GLM answers 1302, more again when it does not, never more
        /// than max_concurrency.
        on: bool = false => [called("concurrency")];
        /// It allows at least so many calls.
        min: u16 = 1 => [within(1..=limits::CONCURRENCY_MAX as u64)];
        /// After so long without a 1302 it tries one call more than GLM is believed to bear; after each trial
        /// that failed it waits twice as long.
        trial_ms: u64 = 60_000 => [within(1..=limits::DAY_MS)];
    }
}

section! {
    /// How fast calls may start, on top of concurrency. Zeros switch a bound off.
    #[derive(Copy, Eq)]
    pub struct PaceSettings {
        /// Calls that may start in any minute, evenly spread; 0 is any number.
        requests_per_minute: u32 = 0 => [within(0..=60_000)];
        /// Tokens (estimated, then corrected) of calls that start in any minute, evenly spread; 0 is any number.
        tokens_per_minute: u64 = 0 => [within(0..=1_000_000_000)];
        /// Between the starts of two calls pass at least so many milliseconds.
        min_spacing_ms: u64 = 0 => [within(0..=limits::DAY_MS)];
    }
}

impl PaceSettings {
    /// Whether any bound is on.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.requests_per_minute > 0 || self.tokens_per_minute > 0 || self.min_spacing_ms > 0
    }
}

section! {
    /// In which order a lane's jobs run. By default strictly by priority, then by submission.
    #[derive(Copy, Eq)]
    pub struct OrderSettings {
        /// Users of the same priority take turns (deficit round robin), each with so many tokens a round; 0 is
        /// first come, first served. Client keys take turns in any case, by their shares: by so many tokens, and with 0
        /// by jobs.
        fair_quantum_tokens: u32 = 0;
        /// A waiting job's priority rises by one every so many milliseconds, so that none starves; 0 is never.
        ageing_ms: u64 = 0 => [within(1_000..=limits::DAY_MS).or_zero()];
        /// A due job of the session that ran last goes before others of its effective priority, so often in a row at most;
        /// 0 is never.
        affinity: u32 = 0 => [within(0..=limits::AFFINITY_MAX as u64)];
    }
}

section! {
    /// Slots that are kept for the urgent.
    #[derive(Copy, Eq)]
    pub struct SlotReserve {
        /// The slots take only jobs of this priority or a higher one; higher is more urgent. With ageing the priority
        /// that a job has risen to counts.
        priority: u32 = 50 => [within(0..=i32::MAX as u64).required()];
        /// So many slots.
        slots: u16 = 1 => [within(1..=limits::CONCURRENCY_MAX as u64).required()];
    }
}

section! {
    /// A lane's rules.
    #[derive(Eq)]
    pub struct LaneRules checked by Self::goes_together {
        /// Calls in flight at most. GLM limits an account by this, often to 1, and refuses more with 1302.
        max_concurrency: u16 = 1 => [within(1..=limits::CONCURRENCY_MAX as u64)];
        /// Automatic concurrency finds out by itself how many calls GLM bears.
        auto: AutoSettings = AutoSettings::default() => [flat("auto_")];
        /// How fast calls may start.
        pace: PaceSettings = PaceSettings::default() => [flat("")];
        /// In which order jobs run.
        order: OrderSettings = OrderSettings::default() => [flat("")];
        /// Slots that are kept free for urgent jobs, such as `reserve = [{ priority = 50, slots = 1 }]`. One of
        /// max_concurrency is left for all, also while GLM bears fewer calls.
        reserve: Vec<SlotReserve> = Vec::new();
    }
}

impl LaneRules {
    /// Automatic concurrency, if it is on.
    #[must_use]
    pub fn auto(&self) -> Option<AutoSettings> {
        Some(self.auto).filter(|auto| auto.on)
    }

    fn goes_together(&self, place: &Place, errors: &mut Vec<SettingsError>) {
        if self
            .auto()
            .is_some_and(|auto| auto.min > self.max_concurrency)
        {
            let problem = Problem::from("must be at least 1 and not above ");
            let problem = problem.setting(place.at("max_concurrency"));
            errors.push(SettingsError::new(place.at("auto_min"), problem));
        }
        if !self.reserve.is_empty() && self.kept_for(0) >= usize::from(self.max_concurrency) {
            let problem = Problem::from("must keep fewer slots in all than ");
            let problem = problem.setting(place.at("max_concurrency"));
            errors.push(SettingsError::new(place.at("reserve"), problem));
        }
    }

    /// Slots that take only jobs of this priority, or only of a higher one.
    fn kept_for(&self, priority: u32) -> usize {
        let rows = self.reserve.iter().filter(|row| row.priority >= priority);
        rows.map(|row| usize::from(row.slots)).sum()
    }

    /// Of so many slots, those that jobs below this priority may have: one at least.
    #[must_use]
    pub fn open_below(&self, priority: u32, slots: usize) -> usize {
        slots.saturating_sub(self.kept_for(priority)).max(1)
    }
}

section! {
    /// `[lanes.NAME]`: a lane of its own for some models. What is not said is as built in, not as in
    /// `[lane]`.
    #[derive(Eq)]
    pub struct NamedLane checked by Self::has_models {
        /// The models that go through this lane: names, or beginnings of names that end in *; the longest that
        /// fits counts.
        models: Vec<String> = Vec::new() => [text(model_name::pattern).sample("[\"glm-5\", \"glm-4.5*\"]")];
        /// Its rules.
        rules: LaneRules = LaneRules::default() => [flat("")];
    }
}

impl NamedLane {
    fn has_models(&self, place: &Place, errors: &mut Vec<SettingsError>) {
        if self.models.is_empty() {
            let problem = "must name at least one model, each in 1 to 128 characters";
            errors.push(SettingsError::new(place.at("models"), problem));
        }
    }
}

impl NamedLane {
    /// How well a pattern of the lane fits a model: the length of the longest that does, a whole
    /// name above every beginning. `None`: none fits.
    #[must_use]
    pub fn fit(&self, model: &str) -> Option<usize> {
        let fit = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => model.starts_with(&*canonical(start)).then_some(start.len()),
            None => is_model(pattern, model).then_some(usize::MAX),
        };
        self.models.iter().filter_map(fit).max()
    }
}

/// The lane that a model belongs to: the one whose pattern fits best; `None`: the default lane.
#[must_use]
pub fn lane_for<'a>(lanes: &'a BTreeMap<String, NamedLane>, model: &str) -> Option<&'a str> {
    lanes
        .iter()
        .filter_map(|(name, lane)| Some((lane.fit(model)?, name)))
        // Of equals the first by name: the order of the map, not of the file.
        .max_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.cmp(a.1)))
        .map(|(_, name)| name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_names_models_or_beginnings_of_them() {
        for good in ["glm-5", "glm-4.5*", "*"] {
            assert_eq!(model_name::pattern(good).as_deref(), Ok(good));
        }
        for bad in ["", "*air", "glm-*-air", "a\nb", &"m".repeat(129)] {
            assert!(model_name::pattern(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_model_belongs_to_the_lane_whose_pattern_fits_best() {
        let lane = |models: &[&str]| NamedLane {
            models: models.iter().map(|m| (*m).to_owned()).collect(),
            rules: LaneRules::default(),
        };
        let lanes = BTreeMap::from([
            ("air".to_owned(), lane(&["glm-4.5-air"])),
            ("old".to_owned(), lane(&["glm-4*"])),
            ("some".to_owned(), lane(&["glm-4.5*"])),
        ]);
        let check = |model, want| assert_eq!(lane_for(&lanes, model), want, "{model}");
        check("glm-4.5-air", Some("air"));
        check("glm-4.5-airx", Some("some"));
        check("glm-4.7", Some("old"));
        check("glm-5", None);
    }
}
