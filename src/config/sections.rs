//! The configuration as a value: the sections of `config.toml`.

use std::collections::BTreeMap;

use onelane_core::model::{
    Calendar, Currency, OnInterrupted, OverBudget, Period, PolicyOverride, Secret, Unpriced,
};
use serde::{Deserialize, Serialize};

use super::notify::{AlertsSection, WebhooksSection};
use super::prices::{ModelPrice, PriceList};

/// Everything that can be configured. Its JSON and TOML forms show secrets masked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// GLM: where, with which key, with which defaults.
    pub glm: GlmSection,
    /// The default lane, and what all lanes have in common.
    pub lane: LaneSection,
    /// Lanes of their own for some models, by name.
    pub lanes: BTreeMap<String, NamedLaneSection>,
    /// Retries and cool-downs.
    pub retry: RetrySection,
    /// The circuit breaker.
    pub breaker: BreakerSection,
    /// Codes whose class or rules differ from the shipped table.
    pub policy: BTreeMap<String, PolicyOverride>,
    /// Prices.
    pub money: MoneySection,
    /// The store.
    pub store: StoreSection,
    /// The HTTP server.
    pub server: ServerSection,
    /// What is bad enough to tell somebody.
    pub alerts: AlertsSection,
    /// Whom facts are told over HTTP.
    pub webhooks: WebhooksSection,
    /// Log lines.
    pub log: LogSection,
}

/// `[glm]`: where calls go and what they ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GlmSection {
    /// The base URL; `/chat/completions` is appended.
    pub base_url: String,
    /// The key.
    #[serde(with = "masked")]
    pub api_key: Option<Secret>,
    /// A file that holds the key. Read by [`Loader`](super::Loader), which fills in `api_key`.
    pub api_key_file: Option<String>,
    /// The model of a job that names none.
    pub model: String,
    /// `max_tokens` of a plain prompt; `None` leaves it to GLM.
    pub max_tokens: Option<u32>,
    /// The temperature of a plain prompt; `None` leaves it to GLM.
    pub temperature: Option<f64>,
    /// `false` stops the lane as a pause does.
    pub is_active: bool,
    /// The bounds of one call.
    pub timeouts: TimeoutsSection,
    /// Models that are called through GLM's asynchronous API.
    pub async_models: Vec<String>,
    /// Between two looks at an asynchronous task, in milliseconds.
    pub async_poll_ms: u64,
    /// Models that may serve a job whose own model is held for overload, in this order. An empty
    /// list is none.
    pub fallbacks: BTreeMap<String, Vec<String>>,
}

/// `[glm.timeouts]`: the bounds of one call, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimeoutsSection {
    /// Until the connection stands.
    pub connect_ms: u64,
    /// From there until the response's headers.
    pub first_byte_ms: u64,
    /// Between two pieces of the response's body.
    pub idle_ms: u64,
    /// The whole call.
    pub total_ms: u64,
}

/// `[lane]`: the serial path to GLM, for every model that no lane of its own takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LaneSection {
    /// Calls in flight at most.
    pub max_concurrency: u16,
    /// Concurrency finds its own value, up to `max_concurrency`.
    pub auto_concurrency: bool,
    /// It goes no lower than this.
    pub auto_min: u16,
    /// How long it waits before it tries one more, in milliseconds.
    pub auto_trial_ms: u64,
    /// Calls that may start in a minute; 0: any number.
    pub requests_per_minute: u32,
    /// Tokens of the calls that start in a minute; 0: any number.
    pub tokens_per_minute: u64,
    /// Between the starts of two calls at least, in milliseconds.
    pub min_spacing_ms: u64,
    /// Tokens that each user gets a round; 0: first come, first served.
    pub fair_quantum_tokens: u32,
    /// A waiting job's priority rises by one every so many milliseconds; 0: never.
    pub ageing_ms: u64,
    /// How long a lane rests after a call timed out, in milliseconds; 0: not.
    pub pause_after_timeout_ms: u64,
    /// After so many milliseconds an operator hold lets one call try; 0: never.
    pub operator_probe_ms: u64,
    /// Jobs that may wait.
    pub max_queue_jobs: u64,
    /// What becomes of a job whose call was open when the process died.
    pub on_interrupted: OnInterrupted,
    /// Crashes in a row after which a job that was in flight in all of them is failed.
    pub quarantine_after: u32,
}

/// `[lanes.NAME]`: a lane of its own for some models. What is not said is as built in, not as in
/// `[lane]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamedLaneSection {
    /// The models it takes: names, or beginnings of names that end in `*`.
    pub models: Vec<String>,
    /// Calls in flight at most.
    pub max_concurrency: u16,
    /// Concurrency finds its own value, up to `max_concurrency`.
    pub auto_concurrency: bool,
    /// It goes no lower than this.
    pub auto_min: u16,
    /// How long it waits before it tries one more, in milliseconds.
    pub auto_trial_ms: u64,
    /// Calls that may start in a minute; 0: any number.
    pub requests_per_minute: u32,
    /// Tokens of the calls that start in a minute; 0: any number.
    pub tokens_per_minute: u64,
    /// Between the starts of two calls at least, in milliseconds.
    pub min_spacing_ms: u64,
    /// Tokens that each user gets a round; 0: first come, first served.
    pub fair_quantum_tokens: u32,
    /// A waiting job's priority rises by one every so many milliseconds; 0: never.
    pub ageing_ms: u64,
}

/// `[retry]`: how transient failures are retried, and how long throttle and overload answers delay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySection {
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
    /// The lane's cool-down after the first throttle answer.
    pub throttle_base_ms: u64,
    /// No such cool-down is longer.
    pub throttle_max_ms: u64,
    /// Throttle answers of one job after which it fails.
    pub max_throttles: u32,
    /// How long a model is held after the first overload answer.
    pub overload_base_ms: u64,
    /// No such hold is longer.
    pub overload_max_ms: u64,
}

/// `[breaker]`: when the circuit breaker opens and when it tries again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerSection {
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

/// `[money]`: what calls cost.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MoneySection {
    /// Which of GLM's lists counts.
    pub price_list: PriceList,
    /// Prices of the operator's own; they replace the shipped ones of their models.
    pub prices: Vec<ModelPrice>,
    /// What becomes of submissions for models without a price.
    pub unpriced: Unpriced,
    /// The zone whose days and months count: `UTC`, an offset, or a name such as `Asia/Shanghai`.
    pub zone: Calendar,
    /// What calls may cost, by name.
    pub budgets: BTreeMap<String, BudgetSection>,
}

/// `[money.budgets.NAME]`: what calls may cost in a day or a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetSection {
    /// For how long.
    pub period: Period,
    /// Whose calls: a user, `*` for each, nothing for all together.
    pub user: Option<String>,
    /// To which models: one, `*` for each, nothing for all together.
    pub model: Option<String>,
    /// The limit in money of the price list in force, as decimal text.
    pub amount: Option<String>,
    /// What the amount is in, where it is not the price list in force: calls that are charged in something
    /// else are not counted.
    pub currency: Option<Currency>,
    /// The limit in tokens, instead of money.
    pub tokens: Option<u64>,
    /// The percentage of the limit at which it warns; 0: it does not.
    pub warn_percent: u8,
    /// What happens beyond the limit.
    pub over: OverBudget,
}

impl Default for BudgetSection {
    fn default() -> Self {
        Self {
            period: Period::Day,
            user: None,
            model: None,
            amount: None,
            currency: None,
            tokens: None,
            warn_percent: 80,
            over: OverBudget::Wait,
        }
    }
}

/// `[store]`: the file that everything is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSection {
    /// The file.
    pub path: String,
    /// Memory for pages of the file, in bytes.
    pub cache_bytes: usize,
    /// Reopening after a crash takes milliseconds whatever the file's size, for a second sync per
    /// commit.
    pub quick_repair: bool,
    /// How long what has ended is kept.
    pub retention: RetentionSection,
}

/// `[store.retention]`: how long, and how many. 0: for ever, and any number. What waits or runs is
/// never pruned, nor are the usage aggregates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSection {
    /// Days that rows of the call log are kept.
    pub calls_days: u32,
    /// Rows of the call log at most.
    pub calls_max: u64,
    /// Days that completed and cancelled jobs are kept after their end.
    pub jobs_days: u32,
    /// Such jobs at most.
    pub jobs_max: u64,
    /// Days that failed jobs are kept after their end.
    pub failed_days: u32,
    /// Failed jobs at most.
    pub failed_max: u64,
    /// Days that requests and responses of completed and cancelled jobs are kept.
    pub bodies_days: u32,
}

/// `[server]`: the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSection {
    /// IP address and port.
    pub listen: String,
    /// The token that every request must bear; without one only loopback is served.
    #[serde(with = "masked")]
    pub admin_token: Option<Secret>,
    /// A file that holds the token. Read by [`Loader`](super::Loader), which fills in
    /// `admin_token`.
    pub admin_token_file: Option<String>,
    /// Bytes of a request's body at most.
    pub max_body_bytes: usize,
    /// Characters of prompts and responses that lists show; 0 hides them.
    pub preview_chars: usize,
    /// How long a client may take to send its headers, in milliseconds.
    pub header_timeout_ms: u64,
    /// How long a shutdown waits for open calls, in milliseconds.
    pub shutdown_deadline_ms: u64,
}

/// `[log]`: what is logged and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// A level, or directives in the syntax of `tracing`.
    pub filter: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// A secret comes in as text and goes out masked.
pub(super) mod masked {
    use onelane_core::model::Secret;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(in crate::config) fn serialize<S: Serializer>(
        secret: &Option<Secret>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        secret.as_ref().map(Secret::masked).serialize(serializer)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Secret>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        Ok(text.as_deref().map(Secret::new))
    }
}
