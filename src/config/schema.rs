//! Every setting once: its name in `config.toml`, its name in the admin API, and what it takes.
//! File, environment, flags, stored changes and HTTP patches are all read through this table, so
//! that the same mistake gets the same answer wherever it is made.

use std::ops::RangeInclusive;

use onelane_actors::model::limits;

use super::text;

/// What a setting takes.
pub(crate) enum Kind {
    /// Text; the function answers the canonical form or the problem.
    Text(fn(&str) -> Result<String, String>),
    /// Text that is never shown.
    Secret,
    /// A whole number in these bounds. Tighter ones belong to `Settings::validate` and
    /// `Config::validate`.
    Whole(RangeInclusive<u64>),
    /// A number.
    Number,
    /// `true` or `false`.
    Switch,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Classes of failure by code. Each code is a key of its own.
    Policy,
    /// The operator's own prices, as one value.
    Prices,
}

/// One setting.
pub(crate) struct Key {
    /// The path in `config.toml`.
    pub(crate) path: &'static str,
    /// The path in the admin API's `GLMConfig`; `None`: fixed while the program runs.
    pub(crate) json: Option<&'static str>,
    /// What it takes.
    pub(crate) kind: Kind,
}

const fn fixed(path: &'static str, kind: Kind) -> Key {
    Key {
        path,
        json: None,
        kind,
    }
}

const fn live(path: &'static str, json: &'static str, kind: Kind) -> Key {
    Key {
        path,
        json: Some(json),
        kind,
    }
}

pub(crate) const U32: Kind = Kind::Whole(0..=u32::MAX as u64);
/// TOML's integers end here.
pub(crate) const U63: Kind = Kind::Whole(0..=i64::MAX as u64);

/// Every setting, in the order of `config.toml`.
pub(crate) const KEYS: &[Key] = &[
    live("glm.base_url", "baseUrl", Kind::Text(text::base_url)),
    live("glm.api_key", "apiKey", Kind::Secret),
    fixed("glm.api_key_file", Kind::Text(text::plain)),
    live("glm.model", "model", Kind::Text(text::plain)),
    live("glm.max_tokens", "maxTokens", U32),
    live("glm.temperature", "temperature", Kind::Number),
    live("glm.is_active", "isActive", Kind::Switch),
    live("glm.timeouts.connect_ms", "timeouts.connect", U63),
    live("glm.timeouts.first_byte_ms", "timeouts.firstByte", U63),
    live("glm.timeouts.idle_ms", "timeouts.idle", U63),
    live("glm.timeouts.total_ms", "timeout", U63),
    live(
        "lane.max_concurrency",
        "maxConcurrency",
        Kind::Whole(1..=limits::CONCURRENCY_MAX as u64),
    ),
    live("lane.max_queue_jobs", "maxQueueJobs", U63),
    live(
        "lane.on_interrupted",
        "onInterrupted",
        Kind::OneOf(&["retry", "fail"]),
    ),
    live("lane.quarantine_after", "quarantineAfter", U32),
    live(
        "retry.max_retries",
        "maxRetries",
        Kind::Whole(0..=limits::MAX_RETRIES_MAX as u64),
    ),
    live("retry.base_delay_ms", "retry.baseDelay", U63),
    live(
        "retry.backoff_multiplier",
        "retry.backoffMultiplier",
        Kind::Number,
    ),
    live("retry.max_delay_ms", "retry.maxDelay", U63),
    live("retry.jitter", "retry.jitter", Kind::Number),
    live("retry.throttle_base_ms", "retry.throttleBase", U63),
    live("retry.throttle_max_ms", "retry.throttleMax", U63),
    live("retry.overload_base_ms", "retry.overloadBase", U63),
    live("retry.overload_max_ms", "retry.overloadMax", U63),
    live(
        "breaker.consecutive_failures",
        "breaker.consecutiveFailures",
        U32,
    ),
    live("breaker.failure_rate", "breaker.failureRate", Kind::Number),
    live("breaker.window_ms", "breaker.window", U63),
    live("breaker.min_calls", "breaker.minCalls", U32),
    live("breaker.cool_down_ms", "breaker.coolDown", U63),
    live(
        "breaker.cool_down_multiplier",
        "breaker.coolDownMultiplier",
        Kind::Number,
    ),
    live("breaker.cool_down_max_ms", "breaker.coolDownMax", U63),
    live("policy", "policy", Kind::Policy),
    live(
        "money.price_list",
        "priceList",
        Kind::OneOf(&["auto", "cny", "usd"]),
    ),
    live("money.prices", "prices", Kind::Prices),
    fixed("store.path", Kind::Text(text::plain)),
    fixed("store.cache_bytes", U63),
    fixed("store.quick_repair", Kind::Switch),
    fixed("server.listen", Kind::Text(text::listen)),
    fixed("server.admin_token", Kind::Secret),
    fixed("server.admin_token_file", Kind::Text(text::plain)),
    fixed("server.max_body_bytes", U63),
    fixed("server.preview_chars", U63),
    fixed("server.header_timeout_ms", U63),
    fixed("server.shutdown_deadline_ms", U63),
    fixed("log.filter", Kind::Text(text::log_filter)),
    fixed("log.format", Kind::OneOf(&["text", "json"])),
];

/// Whose names are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// `config.toml`'s.
    Toml,
    /// The admin API's; only what may change while the program runs has one. `null` resets.
    Json,
}

impl Naming {
    /// The path of a setting; `None`: it has none in these names.
    pub(crate) fn path(self, key: &Key) -> Option<&'static str> {
        match self {
            Self::Toml => Some(key.path),
            Self::Json => key.json,
        }
    }
}
