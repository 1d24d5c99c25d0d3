//! What the lane is told: everything an operator may change while it runs, already validated.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    Budget, Calendar, CallbackRules, DEFAULT_LANE, LaneRules, NamedLane, PolicyOverride, Retention,
    Unpriced, lane_for, limits,
};
use crate::model::PriceTable;

/// A secret that no log, error or response shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What may be shown: the last four characters of a long secret, nothing of a short one.
    #[must_use]
    pub fn masked(&self) -> String {
        let chars: Vec<char> = self.0.chars().collect();
        if chars.len() < 16 {
            return "****".to_owned();
        }
        let tail: String = chars.iter().skip(chars.len() - 4).collect();
        format!("****{tail}")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(****)")
    }
}

/// Where calls go and with which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The base URL, without a slash at its end; `/chat/completions` is appended.
    pub base_url: String,
    /// The key; without one the lane is held.
    pub api_key: Option<Secret>,
}

impl Endpoint {
    /// A short digest of base URL and key, to see whether an operator changed either. It tells
    /// nothing of the key.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"onelane endpoint\0");
        hash.update(self.base_url.as_bytes());
        hash.update(b"\0");
        if let Some(key) = &self.api_key {
            hash.update(key.expose().as_bytes());
        }
        hash.finalize()
            .iter()
            .take(8)
            .map(|b| format!("{b:02x}"))
            .collect()
    }
}

/// The bounds of one call, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the connection stands.
    pub connect_ms: u64,
    /// From there until the response's headers.
    pub first_byte_ms: u64,
    /// Between two pieces of the response's body.
    pub idle_ms: u64,
    /// The whole call.
    pub total_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect_ms: 10_000,
            first_byte_ms: 300_000,
            idle_ms: 60_000,
            total_ms: 600_000,
        }
    }
}

/// How a transient failure is retried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetrySettings {
    /// Retries of a job that names no number of its own.
    pub max_retries: u32,
    /// The first delay.
    pub base_delay_ms: u64,
    /// What each delay is multiplied by.
    pub backoff_multiplier: f64,
    /// No delay is longer.
    pub max_delay_ms: u64,
    /// The part of a delay, 0 to 1, that is drawn at random.
    pub jitter: f64,
    /// Throttle answers of one job after which it fails: they use up no retry, but must end some day.
    pub max_throttles: u32,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            max_retries: 3,
            base_delay_ms: 1_000,
            backoff_multiplier: 2.0,
            max_delay_ms: 30_000,
            jitter: 0.2,
            max_throttles: 200,
        }
    }
}

/// How long the lane cools down after a throttle answer; it doubles from one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoolDownSettings {
    /// After the first.
    pub base_ms: u64,
    /// No cool-down is longer.
    pub max_ms: u64,
}

impl Default for CoolDownSettings {
    fn default() -> Self {
        Self {
            base_ms: 5_000,
            max_ms: 120_000,
        }
    }
}

/// When the breaker opens and when it tries again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerSettings {
    /// Opens after so many failures in a row.
    pub consecutive_failures: u32,
    /// Opens when this share of the window's calls failed, 0 to 1; 0 switches the rate off.
    pub failure_rate: f64,
    /// The window of the rate.
    pub window_ms: u64,
    /// Calls the window must hold before its rate counts.
    pub min_calls: u32,
    /// From open to the first probe.
    pub cool_down_ms: u64,
    /// What the cool-down is multiplied by when a probe fails.
    pub cool_down_multiplier: f64,
    /// No cool-down is longer.
    pub cool_down_max_ms: u64,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            failure_rate: 0.5,
            window_ms: 60_000,
            min_calls: 20,
            cool_down_ms: 30_000,
            cool_down_multiplier: 2.0,
            cool_down_max_ms: 600_000,
        }
    }
}

/// What becomes of a job whose call was open when the process died.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum OnInterrupted {
    /// It goes back to its place; the call may be paid twice.
    #[default]
    Retry,
    /// It stays pending, set aside until somebody puts it back in line or cancels it.
    Hold,
    /// It fails and waits for somebody to retry it by hand; nothing is paid twice.
    Fail,
}

/// Why settings are refused: which one, what is wrong, what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct SettingsError {
    /// The setting, by its name in `config.toml`.
    pub field: Cow<'static, str>,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// Everything the lane is told. Built by the configuration, checked by [`Settings::validate`].
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where calls go.
    pub endpoint: Endpoint,
    /// The model of a job that names none.
    pub model: String,
    /// `max_tokens` of a plain prompt; `None` leaves it to GLM.
    pub max_tokens: Option<u32>,
    /// The temperature of a plain prompt; `None` leaves it to GLM.
    pub temperature: Option<f64>,
    /// The bounds of one call.
    pub timeouts: Timeouts,
    /// `false` stops the lane as a pause does.
    pub is_active: bool,
    /// The default lane: it takes every model that no other lane names.
    pub lane: LaneRules,
    /// Lanes of their own for some models, by name.
    pub lanes: BTreeMap<String, NamedLane>,
    /// Jobs that may wait.
    pub max_queue_jobs: u64,
    /// How transient failures are retried.
    pub retry: RetrySettings,
    /// The lane's cool-down after a throttle answer.
    pub throttle: CoolDownSettings,
    /// The model's hold after an overload answer.
    pub overload: CoolDownSettings,
    /// The breaker.
    pub breaker: BreakerSettings,
    /// What becomes of interrupted jobs.
    pub on_interrupted: OnInterrupted,
    /// Crashes in a row after which a job that was in flight in all of them is failed.
    pub quarantine_after: u32,
    /// Codes whose class or rules differ from the shipped ones.
    pub policy: BTreeMap<String, PolicyOverride>,
    /// Models that may serve a job whose own model is held for overload, in this order.
    pub fallbacks: BTreeMap<String, Vec<String>>,
    /// Models that are called through GLM's asynchronous API: after a crash the answer is fetched,
    /// not bought again.
    pub async_models: BTreeSet<String>,
    /// Between two looks at an asynchronous task, in milliseconds.
    pub async_poll_ms: u64,
    /// How long a lane rests after a call timed out, in milliseconds: GLM may still count it. 0: not.
    pub pause_after_timeout_ms: u64,
    /// After so many milliseconds an operator hold lets one call try whether it still stands. 0: only
    /// an operator ends it.
    pub operator_probe_ms: u64,
    /// What calls may cost.
    pub budgets: Vec<Budget>,
    /// The calendar that days and months are of.
    pub calendar: Calendar,
    /// Where the end of a job may be told.
    pub callbacks: CallbackRules,
    /// What calls cost.
    pub prices: Arc<PriceTable>,
    /// What becomes of submissions for models without a price.
    pub unpriced: Unpriced,
    /// How long what has ended is kept.
    pub retention: Retention,
}

impl Settings {
    /// Checks every bound. The error names the setting as `config.toml` does.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let check = |ok: bool, field: &'static str, problem: &str| {
            if ok {
                Ok(())
            } else {
                Err(SettingsError {
                    field: field.into(),
                    problem: problem.to_owned(),
                })
            }
        };
        let model_chars = self.model.chars().count();
        check(
            (1..=limits::MODEL_CHARS_MAX).contains(&model_chars),
            "glm.model",
            "must have 1 to 128 characters",
        )?;
        check(
            self.max_tokens.is_none_or(|n| (1..=131_072).contains(&n)),
            "glm.max_tokens",
            "must be 1 to 131072, GLM's own range",
        )?;
        check(
            self.temperature.is_none_or(|t| (0.0..=1.0).contains(&t)),
            "glm.temperature",
            "must be 0.0 to 1.0, GLM's own range",
        )?;
        let timeouts = [
            ("glm.timeouts.connect_ms", self.timeouts.connect_ms),
            ("glm.timeouts.first_byte_ms", self.timeouts.first_byte_ms),
            ("glm.timeouts.idle_ms", self.timeouts.idle_ms),
            ("glm.timeouts.total_ms", self.timeouts.total_ms),
        ];
        for (field, ms) in timeouts {
            check(
                (1..=86_400_000).contains(&ms),
                field,
                "must be 1 to 86400000 milliseconds (a day)",
            )?;
        }
        self.validate_lanes()?;
        self.validate_budgets()?;
        self.validate_models()?;
        check(
            (100..=3_600_000).contains(&self.async_poll_ms),
            "glm.async_poll_ms",
            "must be 100 to 3600000 milliseconds (an hour)",
        )?;
        check(
            self.pause_after_timeout_ms <= 3_600_000,
            "lane.pause_after_timeout_ms",
            "must be 0 (off) to 3600000 milliseconds (an hour)",
        )?;
        check(
            self.operator_probe_ms == 0 || (1_000..=86_400_000).contains(&self.operator_probe_ms),
            "lane.operator_probe_ms",
            "must be 0 (off) or 1000 to 86400000 milliseconds (a day)",
        )?;
        check(
            self.max_queue_jobs >= 1,
            "lane.max_queue_jobs",
            "must be at least 1",
        )?;
        check(
            self.quarantine_after >= 1,
            "lane.quarantine_after",
            "must be at least 1",
        )?;
        self.validate_retry(check)?;
        self.validate_breaker(check)
    }

    fn validate_lanes(&self) -> Result<(), SettingsError> {
        self.lane.validate("lane")?;
        let refuse = |field: String, problem: &str| {
            Err(SettingsError {
                field: field.into(),
                problem: problem.to_owned(),
            })
        };
        if self.lanes.len() > limits::LANES_MAX {
            return refuse("lanes".to_owned(), "must be at most 64");
        }
        for (name, lane) in &self.lanes {
            if name == DEFAULT_LANE || name.is_empty() || name.chars().count() > 64 {
                return refuse(
                    format!("lanes.{name}"),
                    "must have a name of 1 to 64 characters other than \"default\", which is [lane]",
                );
            }
            lane.rules.validate(&format!("lanes.{name}"))?;
            let long = |m: &String| m.is_empty() || m.chars().count() > limits::MODEL_CHARS_MAX;
            if lane.models.is_empty() || lane.models.iter().any(long) {
                return refuse(
                    format!("lanes.{name}.models"),
                    "must name at least one model, each in 1 to 128 characters",
                );
            }
        }
        let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, lane) in &self.lanes {
            for model in &lane.models {
                let first = *taken.entry(model).or_insert(name);
                if first != name {
                    return refuse(
                        format!("lanes.{name}.models"),
                        &format!(
                            "must not name {model}, which lanes.{first}.models names already; take \
                             it out of one of them"
                        ),
                    );
                }
            }
        }
        let slots: u32 = self
            .all_lanes()
            .map(|(_, rules)| u32::from(rules.max_concurrency))
            .sum();
        if slots > u32::from(limits::CONCURRENCY_MAX) {
            return refuse(
                "lanes".to_owned(),
                "must have at most 256 calls in flight together, the default lane included",
            );
        }
        Ok(())
    }

    fn validate_budgets(&self) -> Result<(), SettingsError> {
        if self.budgets.len() > limits::BUDGETS_MAX {
            return Err(SettingsError {
                field: "money.budgets".into(),
                problem: "must be at most 64".to_owned(),
            });
        }
        let mut names = BTreeSet::new();
        for budget in &self.budgets {
            budget.validate()?;
            if !names.insert(&budget.name) {
                return Err(SettingsError {
                    field: format!("money.budgets.{}", budget.name).into(),
                    problem: "must stand there once".to_owned(),
                });
            }
        }
        Ok(())
    }

    fn validate_models(&self) -> Result<(), SettingsError> {
        for (model, chain) in &self.fallbacks {
            let field = || format!("glm.fallbacks.{model}").into();
            if chain.is_empty() || chain.len() > limits::FALLBACKS_MAX {
                return Err(SettingsError {
                    field: field(),
                    problem: "must name 1 to 8 models".to_owned(),
                });
            }
            let odd = |m: &String| {
                m == model || m.is_empty() || m.chars().count() > limits::MODEL_CHARS_MAX
            };
            if chain.iter().any(odd) {
                return Err(SettingsError {
                    field: field(),
                    problem: "must name other models, each in 1 to 128 characters".to_owned(),
                });
            }
            let no_price = |m: &&String| !self.prices.is_priced(m);
            if self.unpriced == Unpriced::Refuse
                && let Some(fallback) = chain.iter().find(no_price)
            {
                return Err(SettingsError {
                    field: field(),
                    problem: format!(
                        "must not name {fallback}, which has no price, while money.unpriced is \
                         \"refuse\""
                    ),
                });
            }
        }
        Ok(())
    }

    /// Every lane with its rules, the default one first, the others by name.
    pub fn all_lanes(&self) -> impl Iterator<Item = (&str, &LaneRules)> {
        let named = self
            .lanes
            .iter()
            .map(|(name, lane)| (name.as_str(), &lane.rules));
        std::iter::once((DEFAULT_LANE, &self.lane)).chain(named)
    }

    /// The lane that a model belongs to.
    #[must_use]
    pub fn lane_of(&self, model: &str) -> &str {
        lane_for(&self.lanes, model).unwrap_or(DEFAULT_LANE)
    }

    /// The rules of a lane; those of the default lane for a name that is not (or no longer) known.
    #[must_use]
    pub fn rules_of(&self, lane: &str) -> &LaneRules {
        self.lanes.get(lane).map_or(&self.lane, |lane| &lane.rules)
    }

    /// Calls in flight at most, over all lanes.
    #[must_use]
    pub fn slots(&self) -> u16 {
        let sum: u32 = self
            .all_lanes()
            .map(|(_, rules)| u32::from(rules.max_concurrency))
            .sum();
        u16::try_from(sum).unwrap_or(u16::MAX)
    }

    fn validate_retry(
        &self,
        check: impl Fn(bool, &'static str, &str) -> Result<(), SettingsError>,
    ) -> Result<(), SettingsError> {
        let retry = &self.retry;
        check(
            retry.max_retries <= limits::MAX_RETRIES_MAX,
            "retry.max_retries",
            "must be 0 to 100",
        )?;
        check(
            retry.base_delay_ms <= retry.max_delay_ms,
            "retry.base_delay_ms",
            "must not be longer than retry.max_delay_ms",
        )?;
        check(
            retry.max_delay_ms <= 86_400_000,
            "retry.max_delay_ms",
            "must be 0 to 86400000 milliseconds (a day)",
        )?;
        check(
            (1.0..=100.0).contains(&retry.backoff_multiplier),
            "retry.backoff_multiplier",
            "must be 1.0 to 100.0",
        )?;
        check(
            retry.max_throttles >= 1,
            "retry.max_throttles",
            "must be at least 1",
        )?;
        check(
            (0.0..=1.0).contains(&retry.jitter),
            "retry.jitter",
            "must be 0.0 to 1.0",
        )?;
        for (base, max, cool) in [
            (
                "retry.throttle_base_ms",
                "retry.throttle_max_ms",
                self.throttle,
            ),
            (
                "retry.overload_base_ms",
                "retry.overload_max_ms",
                self.overload,
            ),
        ] {
            check(
                cool.base_ms >= 1 && cool.base_ms <= cool.max_ms,
                base,
                &format!("must be at least 1 and not longer than {max}"),
            )?;
            check(
                cool.max_ms <= 86_400_000,
                max,
                "must be at most 86400000 milliseconds (a day)",
            )?;
        }
        Ok(())
    }

    fn validate_breaker(
        &self,
        check: impl Fn(bool, &'static str, &str) -> Result<(), SettingsError>,
    ) -> Result<(), SettingsError> {
        let breaker = &self.breaker;
        check(
            breaker.consecutive_failures >= 1,
            "breaker.consecutive_failures",
            "must be at least 1",
        )?;
        check(
            (0.0..=1.0).contains(&breaker.failure_rate),
            "breaker.failure_rate",
            "must be 0.0 to 1.0",
        )?;
        check(
            (1..=86_400_000).contains(&breaker.window_ms),
            "breaker.window_ms",
            "must be 1 to 86400000 milliseconds (a day)",
        )?;
        check(
            (1..=10_000).contains(&breaker.min_calls),
            "breaker.min_calls",
            "must be 1 to 10000",
        )?;
        check(
            breaker.cool_down_ms >= 1 && breaker.cool_down_ms <= breaker.cool_down_max_ms,
            "breaker.cool_down_ms",
            "must be at least 1 and not longer than breaker.cool_down_max_ms",
        )?;
        check(
            breaker.cool_down_max_ms <= 7 * 86_400_000,
            "breaker.cool_down_max_ms",
            "must be at most 604800000 milliseconds (a week)",
        )?;
        check(
            (1.0..=100.0).contains(&breaker.cool_down_multiplier),
            "breaker.cool_down_multiplier",
            "must be 1.0 to 100.0",
        )
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoint: Endpoint {
                base_url: "https://open.bigmodel.cn/api/paas/v4".to_owned(),
                api_key: None,
            },
            model: "glm-4.7".to_owned(),
            max_tokens: None,
            temperature: None,
            timeouts: Timeouts::default(),
            is_active: true,
            lane: LaneRules::default(),
            lanes: BTreeMap::new(),
            max_queue_jobs: limits::QUEUE_JOBS_DEFAULT,
            retry: RetrySettings::default(),
            throttle: CoolDownSettings::default(),
            overload: CoolDownSettings {
                base_ms: 30_000,
                max_ms: 300_000,
            },
            breaker: BreakerSettings::default(),
            on_interrupted: OnInterrupted::default(),
            quarantine_after: 3,
            policy: BTreeMap::new(),
            fallbacks: BTreeMap::new(),
            async_models: BTreeSet::new(),
            async_poll_ms: 2_000,
            pause_after_timeout_ms: 0,
            operator_probe_ms: 0,
            budgets: Vec::new(),
            calendar: Calendar::default(),
            callbacks: CallbackRules::default(),
            prices: Arc::new(PriceTable::default()),
            unpriced: Unpriced::default(),
            retention: Retention::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(Settings::default().validate(), Ok(()));
    }

    #[test]
    fn a_bad_value_is_named() {
        let settings = Settings {
            lane: LaneRules {
                max_concurrency: 0,
                ..LaneRules::default()
            },
            ..Settings::default()
        };
        let error = settings.validate().unwrap_err();
        assert_eq!(error.to_string(), "lane.max_concurrency: must be 1 to 256");
    }

    #[test]
    fn a_model_that_two_lanes_name_is_refused_with_both() {
        let lane = |models: &[&str]| NamedLane {
            models: models.iter().map(|m| (*m).to_owned()).collect(),
            rules: LaneRules::default(),
        };
        let with = |air: &[&str], old: &[&str]| Settings {
            lanes: [("air", lane(air)), ("old", lane(old))]
                .map(|(name, lane)| (name.to_owned(), lane))
                .into(),
            ..Settings::default()
        };
        let error = with(&["a", "glm-4*"], &["glm-4*"]).validate().unwrap_err();
        assert_eq!(
            error.to_string(),
            "lanes.old.models: must not name glm-4*, which lanes.air.models names already; take it \
             out of one of them"
        );
        // The longer one wins: nothing is in doubt.
        assert_eq!(with(&["glm-4.5*"], &["glm-4*"]).validate(), Ok(()));
    }

    #[test]
    fn a_secret_never_shows() {
        let secret = Secret::new("0123456789abcdef.topsecret");
        assert_eq!(format!("{secret:?}"), "Secret(****)");
        assert_eq!(secret.masked(), "****cret");
        assert_eq!(Secret::new("short").masked(), "****");
    }
}
