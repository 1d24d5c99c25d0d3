//! `[alerts]`: what is watched, and from when on it is bad enough to tell an operator.
//!
//! A level is an integer: nano-units of what is watched, whether that is a share, milliseconds, jobs or
//! money an hour. So no comparison depends on rounding.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use super::money::{decimal, nanos_of};
use super::setting::{
    Kind, Place, Problem, Secrets, Setting, SettingsError, float_problem, named, quoted,
};
use super::{Currency, HoldKind, Nanos, limits};
use crate::{section, words};

/// The whole of a share, and one of anything that is counted.
pub const WHOLE: Nanos = 1_000_000_000;

/// What a rule watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Watched {
    /// The share of recent calls that failed.
    ErrorRate,
    /// How long recent calls took that were answered.
    ResponseTime,
    /// Jobs that are due and wait for a slot.
    QueueLength,
    /// How long the oldest job that is due has waited.
    QueueAge,
    /// What the last hour cost.
    Spend,
    /// How much of each budget is used up.
    Budget,
    /// Whether the breaker lets calls through.
    Breaker,
    /// Whether calls are held.
    Hold,
    /// Recent answers that belonged to other calls.
    ForeignAnswer,
    /// Whether calls get through to GLM at all.
    Unreachable,
    /// How much of each window of the account's quota is used.
    Quota,
    /// How much of the account's balance a day like the last one costs.
    Balance,
}

impl Watched {
    /// All of them; a rule on each is built in.
    pub const ALL: [Self; 12] = [
        Self::ErrorRate,
        Self::ResponseTime,
        Self::QueueLength,
        Self::QueueAge,
        Self::Spend,
        Self::Budget,
        Self::Breaker,
        Self::Hold,
        Self::ForeignAnswer,
        Self::Unreachable,
        Self::Quota,
        Self::Balance,
    ];

    /// The name used in configuration, API and logs, and that of the built-in rule.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ErrorRate => "error_rate",
            Self::ResponseTime => "response_time",
            Self::QueueLength => "queue_length",
            Self::QueueAge => "queue_age",
            Self::Spend => "spend",
            Self::Budget => "budget",
            Self::Breaker => "breaker",
            Self::Hold => "hold",
            Self::ForeignAnswer => "foreign_answer",
            Self::Unreachable => "unreachable",
            Self::Quota => "quota",
            Self::Balance => "balance",
        }
    }

    /// Whether it has a level that goes up and down; what has none is so or is not.
    const fn has_level(self) -> bool {
        !matches!(self, Self::Breaker | Self::Hold | Self::Unreachable)
    }

    /// Whether it is read from calls that have ended.
    #[must_use]
    pub const fn is_of_calls(self) -> bool {
        matches!(
            self,
            Self::ErrorRate | Self::ResponseTime | Self::ForeignAnswer
        )
    }

    /// Whether few calls say nothing.
    const fn needs_many_calls(self) -> bool {
        matches!(self, Self::ErrorRate | Self::ResponseTime)
    }

    /// What its level is counted in, for people.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::ErrorRate | Self::Budget | Self::Quota | Self::Balance => "share",
            Self::ResponseTime | Self::QueueAge => "ms",
            Self::QueueLength => "jobs",
            Self::Spend => "money an hour",
            Self::Breaker | Self::Hold | Self::Unreachable => "count",
            Self::ForeignAnswer => "answers",
        }
    }

    /// The rule of this name that is there without anybody writing it.
    fn built_in(self) -> AlertRule {
        let rule = AlertRule {
            on: Some(self),
            ..AlertRule::default()
        };
        let above = |nanos, hysteresis| AlertRule {
            threshold: Some(Threshold::number(nanos)),
            hysteresis: Some(hysteresis),
            ..rule.clone()
        };
        let of_calls = |rule| AlertRule {
            window_ms: Some(300_000),
            min_calls: Some(20),
            ..rule
        };
        let off = |rule| AlertRule {
            enabled: false,
            ..rule
        };
        match self {
            Self::ErrorRate => of_calls(above(WHOLE / 2, 0.6)),
            Self::ResponseTime => AlertRule {
                measure: Some(Measure::P95),
                ..of_calls(off(above(120_000 * WHOLE, 0.25)))
            },
            Self::QueueLength => off(above(10_000 * WHOLE, 0.5)),
            Self::QueueAge => off(above(3_600_000 * WHOLE, 0.5)),
            Self::Spend => AlertRule {
                hysteresis: Some(0.2),
                for_ms: 0,
                ..off(rule)
            },
            Self::Budget => AlertRule {
                for_ms: 0,
                ..above(WHOLE / 5 * 4, 0.125)
            },
            Self::Breaker => rule,
            Self::Unreachable => AlertRule {
                for_ms: 10_000,
                ..rule
            },
            Self::Hold => AlertRule {
                kinds: Some(vec![HoldKind::Quota, HoldKind::Operator]),
                for_ms: 10_000,
                ..rule
            },
            Self::Quota => AlertRule {
                for_ms: 0,
                ..above(WHOLE / 10 * 9, 0.5)
            },
            // What is left lasts for two days.
            Self::Balance => AlertRule {
                for_ms: 0,
                ..above(WHOLE / 2, 0.2)
            },
            Self::ForeignAnswer => AlertRule {
                window_ms: Some(600_000),
                for_ms: 0,
                ..above(WHOLE, 1.0)
            },
        }
    }
}

/// What is said of many response times in one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// 95 of 100 calls are at least as fast.
    P95,
    /// The mean.
    Mean,
}

words! {
    Watched {
        ErrorRate, ResponseTime, QueueLength, QueueAge, Spend, Budget, Breaker, Hold, ForeignAnswer,
        Unreachable, Quota, Balance,
    }
    Measure { P95, Mean }
}

/// A level as an operator writes it: a number or, as money has to be, a decimal as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    nanos: Nanos,
    is_text: bool,
}

impl Threshold {
    const fn number(nanos: Nanos) -> Self {
        Self {
            nanos,
            is_text: false,
        }
    }

    /// So many nano-units of what is watched.
    #[must_use]
    pub const fn nanos(self) -> Nanos {
        self.nanos
    }

    const fn is_whole(self) -> bool {
        self.nanos % WHOLE == 0
    }

    /// What is wrong with it on a rule that watches this.
    fn problem(self, on: Watched) -> Option<Problem> {
        let refuse = |what: &str| Some(what.into());
        match on.unit() {
            "share" if self.nanos > WHOLE => refuse("must be a share above 0 and at most 1"),
            "ms" | "jobs" | "answers" if !self.is_whole() => refuse("must be a whole number"),
            _ if on == Watched::Spend && !self.is_text && !self.is_whole() => {
                Some(float_problem(&decimal(self.nanos)))
            }
            _ => None,
        }
    }
}

impl FromStr for Threshold {
    type Err = Problem;

    /// Reads a decimal. As a program says it, it is exact.
    fn from_str(text: &str) -> Result<Self, Problem> {
        let nanos = nanos_of(text).filter(|nanos| *nanos > 0);
        let problem = "must be a decimal above 0, of at most nine decimals and at most 9 billion";
        Ok(Self {
            nanos: nanos.ok_or(problem)?,
            is_text: true,
        })
    }
}

impl Setting for Threshold {
    fn kind() -> Kind {
        Kind::Figure(|text| text.parse::<Self>().map(|_| ()))
    }

    fn write(&self, _: Secrets) -> Value {
        let text = decimal(self.nanos);
        if self.is_text {
            return text.into();
        }
        // The shortest text of a number is the number: it reads back as the same decimal.
        let number = text.parse::<Number>().map(Value::Number);
        number.unwrap_or_else(|_| text.into())
    }

    fn take(value: &Value) -> Option<Self> {
        let text = value.as_str();
        let is_text = text.is_some();
        let text = text.map_or_else(|| value.to_string(), str::to_owned);
        let nanos = text.parse::<Self>().ok()?.nanos;
        Some(Self { nanos, is_text })
    }
}

section! {
    /// `[alerts.NAME]`: one rule.
    pub struct AlertRule checked by Self::goes_together {
        /// false switches the rule off.
        enabled: bool = true;
        /// What is watched: "error_rate" (the share of calls that failed, without throttles and what is the jobs'
        /// own fault), "response_time" (of calls that were answered), "queue_length" (jobs that are due and wait for
        /// a slot), "queue_age" (how long the oldest of them has waited), "spend" (what the last hour cost), "budget"
        /// (the used share of each budget), "breaker" (it is open or tries again), "hold" (calls are held),
        /// "foreign_answer" (answers that belonged to other calls), "unreachable" (no call gets through to GLM), "quota"
        /// (the used share of each window of the account's quota), "balance" (the share of its balance that a day like
        /// the last one costs; 0.5: it lasts for two days). GLM tells of the last two where account.enabled is true.
        on: Option<Watched> = None => [sample("\"queue_age\"")];
        /// The alert is raised at this level: a share from 0 to 1, milliseconds, jobs, or money an hour (as text, so
        /// that it stays exact). Not for breaker, hold and unreachable.
        threshold: Option<Threshold> = None => [left_out().sample("600000")];
        /// The alert is cleared when the level has fallen below the threshold by this share of it. An error rate is
        /// over, too, when no call of the window failed.
        hysteresis: Option<f64> = None => [within(0.001..=1.0).left_out().sample("0.5")];
        /// Raised and cleared only after it was so for this long without a break.
        for_ms: u64 = 60_000 => [within(0..=limits::DAY_MS)];
        /// error_rate, response_time and foreign_answer: the calls that ended in the last so many milliseconds count.
        window_ms: Option<u64> = None => [within(1_000..=limits::DAY_MS).left_out().sample("300000")];
        /// error_rate and response_time: where fewer calls ended in the window, the latest so many count, from twelve
        /// windows back at most.
        min_calls: Option<u32> = None => [
            within(1..=limits::ALERT_CALLS_MAX as u64).left_out().sample("20")
        ];
        /// response_time: "p95" (95 of 100 are as fast) or "mean".
        measure: Option<Measure> = None => [left_out().sample("\"p95\"")];
        /// spend: what is spent in this currency; not set, each currency is watched by itself.
        currency: Option<Currency> = None => [left_out().sample("\"CNY\"")];
        /// budget: this one alone.
        budget: Option<String> = None => [left_out().sample("\"everybody\"")];
        /// hold: the kinds that are bad enough: after_timeout, throttle, overload, quota, operator.
        kinds: Option<Vec<HoldKind>> = None => [left_out().sample("[\"quota\", \"operator\"]")];
    }
}

impl AlertRule {
    fn goes_together(&self, place: &Place, errors: &mut Vec<SettingsError>) {
        let mut refuse = |name: &str, problem: Problem| {
            errors.push(SettingsError::new(place.at(name), problem));
        };
        let Some(on) = self.on else {
            let all = quoted(&Watched::ALL.map(Watched::name));
            return refuse("on", format!("is missing; it is one of {all}").into());
        };
        let members = [
            ("threshold", self.threshold.is_some(), on.has_level()),
            ("hysteresis", self.hysteresis.is_some(), on.has_level()),
            ("window_ms", self.window_ms.is_some(), on.is_of_calls()),
            ("min_calls", self.min_calls.is_some(), on.needs_many_calls()),
            (
                "measure",
                self.measure.is_some(),
                on == Watched::ResponseTime,
            ),
            ("currency", self.currency.is_some(), on == Watched::Spend),
            ("budget", self.budget.is_some(), on == Watched::Budget),
            ("kinds", self.kinds.is_some(), on == Watched::Hold),
        ];
        for (name, is_said, means_something) in members {
            if is_said && !means_something {
                let problem = format!("means nothing for a rule on {}", on.name());
                refuse(name, problem.into());
            }
        }
        match self.threshold {
            None if self.enabled && on.has_level() => {
                refuse("threshold", "is missing: without it nothing is bad".into());
            }
            None => {}
            Some(threshold) => {
                if let Some(problem) = threshold.problem(on) {
                    refuse("threshold", problem);
                }
            }
        }
    }

    /// The level at which the alert is raised and the lower one at which it is cleared; `None`: at none.
    #[must_use]
    pub fn levels(&self) -> Option<(Nanos, Nanos)> {
        if !self.on?.has_level() {
            return Some((WHOLE, 0));
        }
        let raise = self.threshold?.nanos;
        let fall = (self.hysteresis.unwrap_or(0.0) * WHOLE as f64).round() as i128;
        let clear = i128::from(raise) * (i128::from(WHOLE) - fall) / i128::from(WHOLE);
        Some((raise, Nanos::try_from(clear).unwrap_or(0)))
    }

    /// How far back it looks at calls in a lane that has few, in milliseconds.
    #[must_use]
    pub fn reach_ms(&self) -> u64 {
        self.window_ms.unwrap_or(0).saturating_mul(12)
    }
}

/// The rules by their names. A built-in rule that is left out is there all the same: `enabled` switches it off.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertRules(pub BTreeMap<String, AlertRule>);

impl Default for AlertRules {
    fn default() -> Self {
        let built_in = Watched::ALL.map(|on| (on.name().to_owned(), on.built_in()));
        Self(built_in.into())
    }
}

impl AlertRules {
    /// The rule of this name; one that is not there yet watches nothing.
    pub fn rule_mut(&mut self, name: &str) -> &mut AlertRule {
        self.0.entry(name.to_owned()).or_default()
    }

    /// The rules that are switched on, with what each watches.
    pub fn enabled(&self) -> impl Iterator<Item = (&str, Watched, &AlertRule)> {
        let rules = self.0.iter().filter(|(_, rule)| rule.enabled);
        rules.filter_map(|(name, rule)| Some((name.as_str(), rule.on?, rule)))
    }
}

/// What a rule does not say is as in the built-in rule of its name, else in the one on the same thing.
impl Setting for AlertRules {
    fn kind() -> Kind {
        BTreeMap::<String, AlertRule>::kind()
    }

    fn write(&self, secrets: Secrets) -> Value {
        self.0.write(secrets)
    }

    fn take(value: &Value) -> Option<Self> {
        let mut rules = Self::default();
        for (name, said) in value.as_object()? {
            // A setting of `[alerts]` itself stands beside the rules.
            if !said.is_object() {
                continue;
            }
            let on = said.get("on").and_then(Watched::take);
            let mut rule = match (rules.0.get(name), on) {
                (Some(built_in), _) => built_in.clone(),
                (None, Some(on)) => AlertRule {
                    enabled: true,
                    ..on.built_in()
                },
                (None, None) => AlertRule::default(),
            };
            rule.change(said)?;
            rules.0.insert(name.clone(), rule);
        }
        Some(rules)
    }

    fn check(&self, place: &Place, errors: &mut Vec<SettingsError>) {
        for (name, rule) in &self.0 {
            let built_in = Watched::take(&name.as_str().into());
            if built_in.is_some() && rule.on != built_in {
                let problem =
                    format!("must stay {name}: a rule on something else has another name");
                errors.push(SettingsError::new(place.entry(name).at("on"), problem));
                continue;
            }
            rule.check(&place.entry(name), errors);
        }
    }
}

section! {
    /// `[alerts]`.
    pub struct AlertSettings {
        /// How often the rules are looked at.
        every_ms: u64 = 5_000 => [within(100..=3_600_000)];
        /// The rules. Those that stand here are built in: a file may change one setting of one of them, switch it off,
        /// or add rules under names of its own, which watch the same things or others. What such a rule does not say
        /// is as in the built-in rule on the same thing. Two rules on one thing are two alerts.
        rules: AlertRules = AlertRules::default() => [flat("").names(named).sample("old_jobs")];
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(said: &Value) -> AlertRules {
        AlertRules::take(said).unwrap()
    }

    #[test]
    fn every_watched_thing_has_a_built_in_rule_that_is_right() {
        let mut errors = Vec::new();
        rules(&json!({})).check(&Place::default(), &mut errors);
        assert_eq!(errors, []);
        let levels = |name: &str| rules(&json!({})).0[name].levels();
        assert_eq!(levels("error_rate"), Some((WHOLE / 2, WHOLE / 5)));
        assert_eq!(
            levels("response_time"),
            Some((120_000 * WHOLE, 90_000 * WHOLE))
        );
        assert_eq!(
            levels("queue_length"),
            Some((10_000 * WHOLE, 5_000 * WHOLE))
        );
        assert_eq!(
            levels("queue_age"),
            Some((3_600_000 * WHOLE, 1_800_000 * WHOLE))
        );
        assert_eq!(levels("budget"), Some((800_000_000, 700_000_000)));
        assert_eq!(levels("breaker"), Some((WHOLE, 0)));
        assert_eq!(levels("spend"), None);
        let all = rules(&json!({}));
        let on: Vec<&str> = all.enabled().map(|(name, ..)| name).collect();
        assert_eq!(
            on,
            [
                "balance",
                "breaker",
                "budget",
                "error_rate",
                "foreign_answer",
                "hold",
                "quota",
                "unreachable"
            ]
        );
    }

    #[test]
    fn a_rule_says_what_is_other_than_built_in_and_no_more() {
        let all = rules(&json!({
            "every_ms": 100,
            "error_rate": {"threshold": 0.9},
            "hold": {"enabled": false},
            "old": {"on": "queue_age", "for_ms": 5},
        }));
        let rate = &all.0["error_rate"];
        assert_eq!(
            (rate.levels(), rate.min_calls),
            (Some((900_000_000, 360_000_000)), Some(20))
        );
        assert!(!all.0["hold"].enabled);
        let old = &all.0["old"];
        assert!(old.enabled && !all.0["queue_age"].enabled);
        assert_eq!((old.levels(), old.for_ms), (all.0["queue_age"].levels(), 5));
    }

    #[test]
    fn a_threshold_is_exact_and_written_as_it_was_said() {
        for said in [json!(0.35), json!(120_000), json!("2.50")] {
            let written = Threshold::take(&said).unwrap().write(Secrets::Clear);
            let want = match &said {
                Value::String(_) => json!("2.5"),
                number => number.clone(),
            };
            assert_eq!(written, want);
        }
        for bad in ["", "-1", "0", "1e3", "1.0000000001", "99999999999", "1."] {
            assert!(bad.parse::<Threshold>().is_err(), "{bad}");
        }
    }
}
