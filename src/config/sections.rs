//! The configuration as a value: the sections of `config.toml` and their defaults. What the lane has
//! a default for is taken from there, so that no number is said twice.

use std::collections::BTreeMap;

use onelane_actors::model::{
    BreakerSettings, FailureClass, OnInterrupted, Secret, Settings, Timeouts, limits,
};
use serde::{Deserialize, Serialize};

use super::prices::{ModelPrice, PriceList};
use crate::store::StoreOptions;

/// Everything that can be configured. Its JSON and TOML forms show secrets masked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// GLM: where, with which key, with which defaults.
    pub glm: GlmSection,
    /// The lane.
    pub lane: LaneSection,
    /// Retries and cool-downs.
    pub retry: RetrySection,
    /// The circuit breaker.
    pub breaker: BreakerSection,
    /// Codes whose class of failure differs from the shipped table.
    pub policy: BTreeMap<String, FailureClass>,
    /// Prices.
    pub money: MoneySection,
    /// The store.
    pub store: StoreSection,
    /// The HTTP server.
    pub server: ServerSection,
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

/// `[lane]`: the serial path to GLM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LaneSection {
    /// Calls in flight at most.
    pub max_concurrency: u16,
    /// Jobs that may wait.
    pub max_queue_jobs: u64,
    /// What becomes of a job whose call was open when the process died.
    pub on_interrupted: OnInterrupted,
    /// Crashes in a row after which a job that was in flight in all of them is failed.
    pub quarantine_after: u32,
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
    /// A job's delay after the first overload answer.
    pub overload_base_ms: u64,
    /// No such delay is longer.
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
mod masked {
    use onelane_actors::model::Secret;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(
        secret: &Option<Secret>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        secret.as_ref().map(Secret::masked).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Secret>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        Ok(text.as_deref().map(Secret::new))
    }
}

impl Default for GlmSection {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            base_url: settings.endpoint.base_url,
            api_key: None,
            api_key_file: None,
            model: settings.model,
            max_tokens: settings.max_tokens,
            temperature: settings.temperature,
            is_active: settings.is_active,
            timeouts: TimeoutsSection::default(),
        }
    }
}

impl Default for TimeoutsSection {
    fn default() -> Self {
        let timeouts = Timeouts::default();
        Self {
            connect_ms: timeouts.connect_ms,
            first_byte_ms: timeouts.first_byte_ms,
            idle_ms: timeouts.idle_ms,
            total_ms: timeouts.total_ms,
        }
    }
}

impl Default for LaneSection {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            max_concurrency: settings.lane.max_concurrency,
            max_queue_jobs: settings.max_queue_jobs,
            on_interrupted: settings.on_interrupted,
            quarantine_after: settings.quarantine_after,
        }
    }
}

impl Default for RetrySection {
    fn default() -> Self {
        let Settings {
            retry,
            throttle,
            overload,
            ..
        } = Settings::default();
        Self {
            max_retries: retry.max_retries,
            base_delay_ms: retry.base_delay_ms,
            backoff_multiplier: retry.backoff_multiplier,
            max_delay_ms: retry.max_delay_ms,
            jitter: retry.jitter,
            throttle_base_ms: throttle.base_ms,
            throttle_max_ms: throttle.max_ms,
            overload_base_ms: overload.base_ms,
            overload_max_ms: overload.max_ms,
        }
    }
}

impl Default for BreakerSection {
    fn default() -> Self {
        let breaker = BreakerSettings::default();
        Self {
            consecutive_failures: breaker.consecutive_failures,
            failure_rate: breaker.failure_rate,
            window_ms: breaker.window_ms,
            min_calls: breaker.min_calls,
            cool_down_ms: breaker.cool_down_ms,
            cool_down_multiplier: breaker.cool_down_multiplier,
            cool_down_max_ms: breaker.cool_down_max_ms,
        }
    }
}

impl Default for StoreSection {
    fn default() -> Self {
        let options = StoreOptions::default();
        Self {
            path: "onelane.redb".to_owned(),
            cache_bytes: options.cache_bytes,
            quick_repair: options.quick_repair,
        }
    }
}

impl Default for ServerSection {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:4700".to_owned(),
            admin_token: None,
            admin_token_file: None,
            max_body_bytes: limits::REQUEST_BYTES_MAX,
            preview_chars: 200,
            header_timeout_ms: 10_000,
            shutdown_deadline_ms: 30_000,
        }
    }
}

impl Default for LogSection {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: LogFormat::default(),
        }
    }
}
