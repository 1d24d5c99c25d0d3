//! What each lane is told: its bound, its pace, its order, and which models it takes.

use std::collections::BTreeMap;

use super::limits;
use super::settings::SettingsError;

/// Automatic concurrency: down when GLM throttles, up again when it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutoSettings {
    /// Calls in flight at least.
    pub min: u16,
    /// How long to wait before a trial beyond what GLM is believed to bear, in milliseconds. It
    /// doubles from one failed trial to the next.
    pub trial_ms: u64,
}

impl Default for AutoSettings {
    fn default() -> Self {
        Self {
            min: 1,
            trial_ms: 60_000,
        }
    }
}

/// How fast calls may start, on top of concurrency. Zeros switch a bound off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PaceSettings {
    /// Calls that may start in any minute; evenly spread.
    pub requests_per_minute: u32,
    /// Tokens of the calls that start in any minute; evenly spread.
    pub tokens_per_minute: u64,
    /// Between the starts of two calls at least, in milliseconds.
    pub min_spacing_ms: u64,
}

impl PaceSettings {
    /// Whether any bound is on.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.requests_per_minute > 0 || self.tokens_per_minute > 0 || self.min_spacing_ms > 0
    }
}

/// In which order a lane's jobs run. By default strictly by priority, then by submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OrderSettings {
    /// Within one priority users take turns; each gets so many tokens a round (deficit round
    /// robin). 0: first come, first served.
    pub fair_quantum_tokens: u32,
    /// A waiting job's priority rises by one every so many milliseconds. 0: never.
    pub ageing_ms: u64,
}

/// A lane's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneRules {
    /// Calls in flight at most.
    pub max_concurrency: u16,
    /// Automatic concurrency up to `max_concurrency`; `None`: it is `max_concurrency`.
    pub auto: Option<AutoSettings>,
    /// How fast calls may start.
    pub pace: PaceSettings,
    /// In which order jobs run.
    pub order: OrderSettings,
}

impl Default for LaneRules {
    fn default() -> Self {
        Self {
            max_concurrency: 1,
            auto: None,
            pace: PaceSettings::default(),
            order: OrderSettings::default(),
        }
    }
}

/// A lane of its own for some models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedLane {
    /// The models it takes: names, or beginnings of names that end in `*`.
    pub models: Vec<String>,
    /// Its rules.
    pub rules: LaneRules,
}

impl NamedLane {
    /// How well a pattern of the lane fits a model: the length of the longest that does, a whole
    /// name above every beginning. `None`: none fits.
    #[must_use]
    pub fn fit(&self, model: &str) -> Option<usize> {
        let fit = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => model.starts_with(start).then_some(start.len()),
            None => (pattern == model).then_some(usize::MAX),
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

const DAY_MS: u64 = 86_400_000;

impl LaneRules {
    /// Checks every bound. `section` is `lane` or `lanes.NAME`.
    pub fn validate(&self, section: &str) -> Result<(), SettingsError> {
        let check = |ok: bool, name: &str, problem: &str| {
            if ok {
                return Ok(());
            }
            Err(SettingsError {
                field: format!("{section}.{name}").into(),
                problem: problem.to_owned(),
            })
        };
        check(
            (1..=limits::CONCURRENCY_MAX).contains(&self.max_concurrency),
            "max_concurrency",
            "must be 1 to 256",
        )?;
        if let Some(auto) = self.auto {
            check(
                (1..=self.max_concurrency).contains(&auto.min),
                "auto_min",
                &format!("must be at least 1 and not above {section}.max_concurrency"),
            )?;
            check(
                (1..=DAY_MS).contains(&auto.trial_ms),
                "auto_trial_ms",
                "must be 1 to 86400000 milliseconds (a day)",
            )?;
        }
        check(
            self.pace.requests_per_minute <= 60_000,
            "requests_per_minute",
            "must be 0 (off) to 60000",
        )?;
        check(
            self.pace.tokens_per_minute <= 1_000_000_000,
            "tokens_per_minute",
            "must be 0 (off) to 1000000000",
        )?;
        check(
            self.pace.min_spacing_ms <= DAY_MS,
            "min_spacing_ms",
            "must be 0 (off) to 86400000 milliseconds (a day)",
        )?;
        check(
            self.order.ageing_ms == 0 || (1_000..=DAY_MS).contains(&self.order.ageing_ms),
            "ageing_ms",
            "must be 0 (off) or 1000 to 86400000 milliseconds (a day)",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
