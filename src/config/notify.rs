//! `[alerts]` and `[webhooks]`: what is bad enough to tell somebody, whom, and how.

use std::collections::BTreeMap;
use std::time::Duration;

use onelane_core::model::{
    AlertSettings, CallWindow, CallbackRules, Currency, HoldKind, Measure, NOTICE_EVENTS, Nanos,
    RetrySettings, Secret, Thresholds, WHOLE_SHARE, limits,
};
use onelane_core::notify::delivery::RetryPolicy;
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::error::ConfigError;
use super::path::join;
use super::prices::Price;
use super::sections::masked;
use super::settings::fault;
use super::suggest::quoted;
use crate::webhooks::{EndpointSettings, SigningKeys, WebhookSettings};

/// `[alerts]`: the rules, each in a table of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertsSection {
    /// How often the rules are looked at, in milliseconds.
    pub every_ms: u64,
    /// On the share of calls that failed.
    pub error_rate: ErrorRateSection,
    /// On how long answers take.
    pub response_time: ResponseTimeSection,
    /// On the jobs that are due and wait.
    pub queue_length: QueueLengthSection,
    /// On how long the oldest of them has waited.
    pub queue_age: QueueAgeSection,
    /// On what the last hour cost.
    pub spend: SpendSection,
    /// On the used share of each budget.
    pub budget: BudgetAlertSection,
    /// On a breaker that is not closed.
    pub breaker: BreakerAlertSection,
    /// On holds.
    pub hold: HoldAlertSection,
}

/// `[alerts.error_rate]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ErrorRateSection {
    /// Whether the rule is on.
    pub on: bool,
    /// Raised from this share on, 0 to 1.
    pub raise: f64,
    /// Cleared at this share or below.
    pub clear: f64,
    /// Either only after so long without a break, in milliseconds.
    pub for_ms: u64,
    /// Of the calls that ended in so many milliseconds.
    pub window_ms: u64,
    /// With fewer of them nothing is said.
    pub min_calls: u32,
}

/// `[alerts.response_time]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResponseTimeSection {
    /// Whether the rule is on.
    pub on: bool,
    /// What is said of many calls in one number.
    pub measure: Measure,
    /// Raised from so many milliseconds on.
    pub raise_ms: u64,
    /// Cleared at so many or fewer.
    pub clear_ms: u64,
    /// Either only after so long without a break, in milliseconds.
    pub for_ms: u64,
    /// Of the calls that ended in so many milliseconds.
    pub window_ms: u64,
    /// With fewer of them nothing is said.
    pub min_calls: u32,
}

/// `[alerts.queue_length]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueLengthSection {
    /// Whether the rule is on.
    pub on: bool,
    /// Raised from so many jobs on.
    pub raise: u64,
    /// Cleared at so many or fewer.
    pub clear: u64,
    /// Either only after so long without a break, in milliseconds.
    pub for_ms: u64,
}

/// `[alerts.queue_age]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueAgeSection {
    /// Whether the rule is on.
    pub on: bool,
    /// Raised from so many milliseconds on.
    pub raise_ms: u64,
    /// Cleared at so many or fewer.
    pub clear_ms: u64,
    /// Either only after so long without a break, in milliseconds.
    pub for_ms: u64,
}

/// `[alerts.spend]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpendSection {
    /// Whether the rule is on.
    pub on: bool,
    /// Raised when an hour costs so many yuan; 0: never.
    pub cny_per_hour: Price,
    /// Raised when an hour costs so many dollars; 0: never.
    pub usd_per_hour: Price,
    /// Raised when an hour costs so many points of a Coding Plan; 0: never.
    pub points_per_hour: Price,
    /// Cleared at this share of it or below, 0 to 1.
    pub clear_share: f64,
    /// Either only after so long without a break, in milliseconds.
    pub for_ms: u64,
}

/// `[alerts.budget]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetAlertSection {
    /// Whether the rule is on.
    pub on: bool,
    /// Raised from this used share on, 0 to 1.
    pub raise: f64,
    /// Cleared at this share or below.
    pub clear: f64,
    /// Either only after so long without a break, in milliseconds.
    pub for_ms: u64,
}

/// `[alerts.breaker]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerAlertSection {
    /// Whether the rule is on.
    pub on: bool,
    /// Raised, and cleared, only after so long without a break, in milliseconds.
    pub for_ms: u64,
}

/// `[alerts.hold]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HoldAlertSection {
    /// Whether the rule is on.
    pub on: bool,
    /// The kinds of holds that are bad enough.
    pub kinds: Vec<String>,
    /// Raised, and cleared, only after so long without a break, in milliseconds.
    pub for_ms: u64,
}

/// `[webhooks]`: whom facts are told over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhooksSection {
    /// Hosts that a job's `callbackUrl` may name; empty refuses every one.
    pub allowed_hosts: Vec<String>,
    /// Whether a `callbackUrl` may be plain `http`.
    pub allow_http: bool,
    /// Whether a `callbackUrl` may lead to addresses that are not on the public internet.
    pub allow_private: bool,
    /// What callbacks are signed with; several, separated by commas, while one replaces another.
    #[serde(with = "masked")]
    pub secret: Option<Secret>,
    /// A file that holds it. Read by [`Loader`](super::Loader), which fills in `secret`.
    pub secret_file: Option<String>,
    /// Whether the end of a job is told with GLM's answer.
    pub include_result: bool,
    /// How long a receiver may take, in milliseconds.
    pub timeout_ms: u64,
    /// Deliveries under way at once.
    pub max_in_flight: u16,
    /// The delay before the second try.
    pub retry_base_ms: u64,
    /// What each delay is multiplied by.
    pub retry_multiplier: f64,
    /// No delay is longer.
    pub retry_max_ms: u64,
    /// Given up after so long, in milliseconds.
    pub give_up_ms: u64,
    /// What has ended is forgotten after so long, in milliseconds...
    pub keep_ms: u64,
    /// ...or when there are more deliveries than this.
    pub keep_rows: u64,
    /// The receivers, by names of the operator's own.
    pub endpoints: BTreeMap<String, EndpointSection>,
}

/// `[webhooks.endpoints.NAME]`: one receiver.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointSection {
    /// Where to.
    pub url: String,
    /// What is signed with; several, separated by commas, while one replaces another.
    #[serde(with = "masked")]
    pub secret: Option<Secret>,
    /// A file that holds it. Read by [`Loader`](super::Loader), which fills in `secret`.
    pub secret_file: Option<String>,
    /// What it is told.
    pub events: Vec<String>,
}

impl Default for AlertsSection {
    fn default() -> Self {
        Self {
            every_ms: 5_000,
            error_rate: ErrorRateSection::default(),
            response_time: ResponseTimeSection::default(),
            queue_length: QueueLengthSection::default(),
            queue_age: QueueAgeSection::default(),
            spend: SpendSection::default(),
            budget: BudgetAlertSection::default(),
            breaker: BreakerAlertSection::default(),
            hold: HoldAlertSection::default(),
        }
    }
}

impl Default for ErrorRateSection {
    fn default() -> Self {
        Self {
            on: true,
            raise: 0.5,
            clear: 0.2,
            for_ms: 60_000,
            window_ms: 300_000,
            min_calls: 20,
        }
    }
}

impl Default for ResponseTimeSection {
    fn default() -> Self {
        Self {
            on: false,
            measure: Measure::P95,
            raise_ms: 120_000,
            clear_ms: 90_000,
            for_ms: 60_000,
            window_ms: 300_000,
            min_calls: 20,
        }
    }
}

impl Default for QueueLengthSection {
    fn default() -> Self {
        Self {
            on: false,
            raise: 10_000,
            clear: 5_000,
            for_ms: 60_000,
        }
    }
}

impl Default for QueueAgeSection {
    fn default() -> Self {
        Self {
            on: false,
            raise_ms: 3_600_000,
            clear_ms: 1_800_000,
            for_ms: 60_000,
        }
    }
}

impl Default for SpendSection {
    fn default() -> Self {
        Self {
            on: false,
            cny_per_hour: Price::default(),
            usd_per_hour: Price::default(),
            points_per_hour: Price::default(),
            clear_share: 0.8,
            for_ms: 0,
        }
    }
}

impl Default for BudgetAlertSection {
    fn default() -> Self {
        Self {
            on: true,
            raise: 0.8,
            clear: 0.7,
            for_ms: 0,
        }
    }
}

impl Default for BreakerAlertSection {
    fn default() -> Self {
        Self {
            on: true,
            for_ms: 60_000,
        }
    }
}

impl Default for HoldAlertSection {
    fn default() -> Self {
        Self {
            on: true,
            kinds: vec!["quota".to_owned(), "operator".to_owned()],
            for_ms: 10_000,
        }
    }
}

impl Default for WebhooksSection {
    fn default() -> Self {
        Self {
            allowed_hosts: Vec::new(),
            allow_http: false,
            allow_private: false,
            secret: None,
            secret_file: None,
            include_result: true,
            timeout_ms: 15_000,
            max_in_flight: 8,
            retry_base_ms: 5_000,
            retry_multiplier: 5.0,
            retry_max_ms: 43_200_000,
            give_up_ms: 259_200_000,
            keep_ms: 604_800_000,
            keep_rows: 10_000,
            endpoints: BTreeMap::new(),
        }
    }
}

const DAY_MS: u64 = 86_400_000;
const HOLD_KINDS: [HoldKind; 5] = [
    HoldKind::AfterTimeout,
    HoldKind::Throttle,
    HoldKind::Overload,
    HoldKind::Quota,
    HoldKind::Operator,
];

/// The kind of a hold.
pub(crate) fn hold_kind(text: &str) -> Result<String, String> {
    if HOLD_KINDS.iter().any(|kind| kind.name() == text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "must be one of {}",
        quoted(&HOLD_KINDS.map(HoldKind::name))
    ))
}

/// What an endpoint may ask for.
pub(crate) fn notice_event(text: &str) -> Result<String, String> {
    if NOTICE_EVENTS.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("must be one of {}", quoted(&NOTICE_EVENTS)))
}

/// Where an endpoint is: an operator's own word, so any host will do.
pub(crate) fn endpoint_url(text: &str) -> Result<String, String> {
    let problem = "must be an http or https URL such as https://example.com/hook";
    let url = Url::parse(text).map_err(|_| problem.to_owned())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(problem.to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user or password; what arrives is signed".to_owned());
    }
    Ok(url.into())
}

/// Scheme and host of a URL: what of an endpoint may be shown, since the rest may be a token.
#[must_use]
pub(crate) fn site(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    Some(format!("{}://{}", url.scheme(), url.host_str()?))
}

/// Decimal text of an amount an hour.
pub(crate) fn amount(text: &str) -> Result<String, String> {
    let amount: Price = text
        .parse()
        .map_err(|problem: String| problem.replace(" per million tokens", ""))?;
    Ok(amount.to_string())
}

/// A share in millionths.
fn millionths(share: f64) -> i64 {
    (share * WHOLE_SHARE as f64).round() as i64
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Checks the two levels of a rule; `field` is its table.
fn levels(field: &str, raise: i64, clear: i64, for_ms: u64) -> Result<Thresholds, ConfigError> {
    if raise <= clear {
        let problem = "must be lower than the level at which the alert is raised".to_owned();
        return Err(fault(format!("{field}.clear"), problem));
    }
    if for_ms > DAY_MS {
        let problem = "must be 0 to 86400000 milliseconds (a day)".to_owned();
        return Err(fault(format!("{field}.for_ms"), problem));
    }
    Ok(Thresholds {
        raise,
        clear,
        for_ms,
    })
}

fn shares(field: &str, raise: f64, clear: f64, for_ms: u64) -> Result<Thresholds, ConfigError> {
    for (name, share) in [("raise", raise), ("clear", clear)] {
        if !(0.0..=1.0).contains(&share) {
            let problem = "must be a share, 0.0 to 1.0".to_owned();
            return Err(fault(format!("{field}.{name}"), problem));
        }
    }
    levels(field, millionths(raise), millionths(clear), for_ms)
}

fn window(field: &str, window_ms: u64, min_calls: u32) -> Result<CallWindow, ConfigError> {
    if !(1_000..=DAY_MS).contains(&window_ms) {
        let problem = "must be 1000 to 86400000 milliseconds (a day)".to_owned();
        return Err(fault(format!("{field}.window_ms"), problem));
    }
    if !(1..=limits::ALERT_CALLS_MAX).contains(&(min_calls as usize)) {
        let problem = format!("must be 1 to {}", limits::ALERT_CALLS_MAX);
        return Err(fault(format!("{field}.min_calls"), problem));
    }
    Ok(CallWindow {
        window_ms,
        min_calls,
    })
}

impl AlertsSection {
    /// The rules that are on, checked. What is off is checked too: switching it on is no surprise.
    pub fn settings(&self) -> Result<AlertSettings, ConfigError> {
        if !(100..=3_600_000).contains(&self.every_ms) {
            let problem = "must be 100 to 3600000 milliseconds (an hour)".to_owned();
            return Err(fault("alerts.every_ms", problem));
        }
        let rate = &self.error_rate;
        let at = "alerts.error_rate";
        let error_rate = (
            shares(at, rate.raise, rate.clear, rate.for_ms)?,
            window(at, rate.window_ms, rate.min_calls)?,
        );
        let time = &self.response_time;
        let at = "alerts.response_time";
        let levels_ms = |at: &str, raise, clear, for_ms| {
            levels(at, whole(raise), whole(clear), for_ms).map_err(in_ms)
        };
        let response_time = (
            levels_ms(at, time.raise_ms, time.clear_ms, time.for_ms)?,
            window(at, time.window_ms, time.min_calls)?,
            time.measure,
        );
        let length = &self.queue_length;
        let queue_length = levels(
            "alerts.queue_length",
            whole(length.raise),
            whole(length.clear),
            length.for_ms,
        )?;
        let age = &self.queue_age;
        let queue_age = levels_ms("alerts.queue_age", age.raise_ms, age.clear_ms, age.for_ms)?;
        let budget = &self.budget;
        let budget_levels = shares("alerts.budget", budget.raise, budget.clear, budget.for_ms)?;
        let kinds = self.hold.kinds.iter();
        let holds = kinds
            .filter_map(|name| HOLD_KINDS.into_iter().find(|kind| kind.name() == name))
            .map(|kind| (kind, self.hold.for_ms));
        Ok(AlertSettings {
            error_rate: rate.on.then_some(error_rate),
            response_time: time.on.then_some(response_time),
            queue_length: length.on.then_some(queue_length),
            queue_age: age.on.then_some(queue_age),
            spend: self.spend()?,
            budget: budget.on.then_some(budget_levels),
            breaker_for_ms: self.breaker.on.then_some(self.breaker.for_ms),
            holds: match self.hold.on {
                true => holds.collect(),
                false => BTreeMap::new(),
            },
        })
    }

    fn spend(&self) -> Result<BTreeMap<Currency, Thresholds>, ConfigError> {
        let spend = &self.spend;
        if !(0.0..1.0).contains(&spend.clear_share) {
            let problem = "must be a share below 1.0".to_owned();
            return Err(fault("alerts.spend.clear_share", problem));
        }
        let mut rules = BTreeMap::new();
        let amounts = [
            (Currency::Cny, spend.cny_per_hour.nanos()),
            (Currency::Usd, spend.usd_per_hour.nanos()),
            (Currency::Points, spend.points_per_hour.nanos()),
        ];
        for (currency, raise) in amounts.into_iter().filter(|(_, nanos)| *nanos > 0) {
            // Exact: the share is counted in millionths, the amount in nano-units.
            let share = i128::from(raise) * i128::from(millionths(spend.clear_share));
            let clear = Nanos::try_from(share / i128::from(WHOLE_SHARE)).unwrap_or(0);
            let thresholds = levels("alerts.spend", raise, clear, spend.for_ms)?;
            if spend.on {
                rules.insert(currency, thresholds);
            }
        }
        Ok(rules)
    }

    /// How often the rules are looked at.
    #[must_use]
    pub const fn every(&self) -> Duration {
        Duration::from_millis(self.every_ms)
    }
}

/// A rule's level whose name ends in its unit.
fn in_ms(error: ConfigError) -> ConfigError {
    match error {
        ConfigError::Setting(mut error) => {
            if error.field.ends_with(".clear") {
                error.field = format!("{}_ms", error.field).into();
            }
            ConfigError::Setting(error)
        }
        error => error,
    }
}

impl WebhooksSection {
    /// Where jobs may be told.
    #[must_use]
    pub fn callbacks(&self) -> CallbackRules {
        CallbackRules {
            allowed_hosts: self.allowed_hosts.clone(),
            allow_http: self.allow_http,
            allow_private: self.allow_private,
        }
    }

    /// What the sender is told, checked.
    pub fn settings(&self) -> Result<WebhookSettings, ConfigError> {
        let check = |ok: bool, field: &'static str, problem: &str| {
            ok.then_some(())
                .ok_or_else(|| fault(field, problem.to_owned()))
        };
        let in_day = |ms: u64| (1..=DAY_MS).contains(&ms);
        let day = "must be 1 to 86400000 milliseconds (a day)";
        check(
            (1..=600_000).contains(&self.timeout_ms),
            "webhooks.timeout_ms",
            "must be 1 to 600000 milliseconds (10 minutes)",
        )?;
        check(
            (1..=256).contains(&self.max_in_flight),
            "webhooks.max_in_flight",
            "must be 1 to 256",
        )?;
        check(in_day(self.retry_base_ms), "webhooks.retry_base_ms", day)?;
        check(in_day(self.retry_max_ms), "webhooks.retry_max_ms", day)?;
        check(
            (1.0..=100.0).contains(&self.retry_multiplier),
            "webhooks.retry_multiplier",
            "must be 1.0 to 100.0",
        )?;
        check(
            self.give_up_ms <= 30 * DAY_MS,
            "webhooks.give_up_ms",
            "must be at most 2592000000 milliseconds (30 days)",
        )?;
        check(
            self.keep_rows >= 1,
            "webhooks.keep_rows",
            "must be at least 1",
        )?;
        let callback_keys = keys("webhooks.secret", self.secret.as_ref())?;
        check(
            self.allowed_hosts.is_empty() || callback_keys.is_some(),
            "webhooks.secret",
            "is missing; where webhooks.allowed_hosts names hosts, what they are sent is signed",
        )?;
        let mut endpoints = BTreeMap::new();
        for (name, section) in &self.endpoints {
            endpoints.insert(name.clone(), endpoint(name, section)?);
        }
        Ok(WebhookSettings {
            endpoints,
            callback_keys,
            callbacks: self.callbacks(),
            include_result: self.include_result,
            timeout: Duration::from_millis(self.timeout_ms),
            max_in_flight: usize::from(self.max_in_flight),
            retry_policy: RetryPolicy {
                delays: RetrySettings {
                    base_delay_ms: self.retry_base_ms,
                    backoff_multiplier: self.retry_multiplier,
                    max_delay_ms: self.retry_max_ms,
                    ..RetrySettings::default()
                },
                give_up_ms: self.give_up_ms,
            },
            keep_ms: self.keep_ms,
            keep_rows: self.keep_rows,
        })
    }
}

fn endpoint(name: &str, section: &EndpointSection) -> Result<EndpointSettings, ConfigError> {
    let at = |member: &str| join(&join("webhooks.endpoints", name), member);
    if section.url.is_empty() {
        return Err(fault(at("url"), "is missing".to_owned()));
    }
    if section.events.is_empty() {
        let problem = format!("must name one or more of {}", quoted(&NOTICE_EVENTS));
        return Err(fault(at("events"), problem));
    }
    let missing = || {
        let problem = "is missing; make one with: echo whsec_$(openssl rand -base64 32)";
        fault(at("secret"), problem.to_owned())
    };
    Ok(EndpointSettings {
        url: endpoint_url(&section.url).map_err(|problem| fault(at("url"), problem))?,
        keys: keys(at("secret"), section.secret.as_ref())?.ok_or_else(missing)?,
        events: section.events.clone(),
    })
}

fn keys(
    field: impl Into<std::borrow::Cow<'static, str>>,
    secret: Option<&Secret>,
) -> Result<Option<SigningKeys>, ConfigError> {
    let keys = secret.map(|secret| SigningKeys::parse(secret.expose()));
    keys.transpose().map_err(|problem| fault(field, problem))
}
