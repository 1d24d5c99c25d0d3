//! Every setting once: its name in `config.toml`, its name in the admin API, and what it takes.
//! File, environment, flags, stored changes and HTTP patches are all read through this table, so
//! that the same mistake gets the same answer wherever it is made.

use std::ops::RangeInclusive;

use onelane_core::model::{host_rule, limits};

use super::path::inside;
use super::{notify, text};

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
    /// A list of texts; the function checks each.
    List(fn(&str) -> Result<String, String>),
    /// The operator's own prices, as one value.
    Prices,
    /// Entries under names that the operator chooses.
    Named(Named),
}

/// Entries under names of the operator's own, each merged and taken back by itself.
pub(crate) struct Named {
    /// Whether a name may stand here, or what would be right.
    pub(crate) check: fn(&str) -> Result<(), String>,
    /// What stands under a name.
    pub(crate) entry: Entry,
}

/// What stands under a name of the operator's own.
pub(crate) enum Entry {
    /// One value.
    Value(&'static Kind),
    /// Settings, by their paths inside the entry.
    Group {
        /// The settings.
        members: &'static [Key],
        /// The first of them may stand alone in the entry's place, as a text.
        short: bool,
    },
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

const fn named(
    path: &'static str,
    json: &'static str,
    check: fn(&str) -> Result<(), String>,
    entry: Entry,
) -> Key {
    live(path, json, Kind::Named(Named { check, entry }))
}

pub(crate) const U32: Kind = Kind::Whole(0..=u32::MAX as u64);
/// TOML's integers end here.
pub(crate) const U63: Kind = Kind::Whole(0..=i64::MAX as u64);

const CONCURRENCY: Kind = Kind::Whole(1..=limits::CONCURRENCY_MAX as u64);

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
    live("glm.async_models", "asyncModels", Kind::List(text::model)),
    live("glm.async_poll_ms", "asyncPoll", U63),
    named(
        "glm.fallbacks",
        "fallbacks",
        text::model_name,
        Entry::Value(&Kind::List(text::model)),
    ),
    live("lane.max_concurrency", "maxConcurrency", CONCURRENCY),
    live("lane.auto_concurrency", "autoConcurrency", Kind::Switch),
    live("lane.auto_min", "autoMin", CONCURRENCY),
    live("lane.auto_trial_ms", "autoTrial", U63),
    live("lane.requests_per_minute", "requestsPerMinute", U32),
    live("lane.tokens_per_minute", "tokensPerMinute", U63),
    live("lane.min_spacing_ms", "minSpacing", U63),
    live("lane.fair_quantum_tokens", "fairQuantumTokens", U32),
    live("lane.ageing_ms", "ageing", U63),
    live("lane.pause_after_timeout_ms", "pauseAfterTimeout", U63),
    live("lane.operator_probe_ms", "operatorProbe", U63),
    live("lane.max_queue_jobs", "maxQueueJobs", U63),
    live(
        "lane.on_interrupted",
        "onInterrupted",
        Kind::OneOf(&["retry", "hold", "fail"]),
    ),
    live("lane.quarantine_after", "quarantineAfter", U32),
    named(
        "lanes",
        "lanes",
        text::lane_name,
        Entry::Group {
            members: LANE,
            short: false,
        },
    ),
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
    live("retry.max_throttles", "retry.maxThrottles", U32),
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
    named(
        "policy",
        "policy",
        text::policy_code,
        Entry::Group {
            members: WORD,
            short: true,
        },
    ),
    live(
        "money.price_list",
        "priceList",
        Kind::OneOf(&["auto", "cny", "usd", "points"]),
    ),
    live("money.prices", "prices", Kind::Prices),
    live("money.zone", "zone", Kind::Text(text::zone)),
    named(
        "money.budgets",
        "budgets",
        text::budget_name,
        Entry::Group {
            members: BUDGET,
            short: false,
        },
    ),
    live(
        "money.unpriced",
        "unpriced",
        Kind::OneOf(&["allow", "refuse"]),
    ),
    fixed("store.path", Kind::Text(text::plain)),
    fixed("store.cache_bytes", U63),
    fixed("store.quick_repair", Kind::Switch),
    live("store.retention.calls_days", "retention.callsDays", U32),
    live("store.retention.calls_max", "retention.callsMax", U63),
    live("store.retention.jobs_days", "retention.jobsDays", U32),
    live("store.retention.jobs_max", "retention.jobsMax", U63),
    live("store.retention.failed_days", "retention.failedDays", U32),
    live("store.retention.failed_max", "retention.failedMax", U63),
    live("store.retention.bodies_days", "retention.bodiesDays", U32),
    fixed("server.listen", Kind::Text(text::listen)),
    fixed("server.admin_token", Kind::Secret),
    fixed("server.admin_token_file", Kind::Text(text::plain)),
    fixed("server.max_body_bytes", U63),
    fixed("server.preview_chars", U63),
    fixed("server.header_timeout_ms", U63),
    fixed("server.shutdown_deadline_ms", U63),
    live("alerts.every_ms", "alerts.every", U63),
    live("alerts.error_rate.on", "alerts.errorRate.on", Kind::Switch),
    live(
        "alerts.error_rate.raise",
        "alerts.errorRate.raise",
        Kind::Number,
    ),
    live(
        "alerts.error_rate.clear",
        "alerts.errorRate.clear",
        Kind::Number,
    ),
    live("alerts.error_rate.for_ms", "alerts.errorRate.for", U63),
    live(
        "alerts.error_rate.window_ms",
        "alerts.errorRate.window",
        U63,
    ),
    live(
        "alerts.error_rate.min_calls",
        "alerts.errorRate.minCalls",
        U32,
    ),
    live(
        "alerts.response_time.on",
        "alerts.responseTime.on",
        Kind::Switch,
    ),
    live(
        "alerts.response_time.measure",
        "alerts.responseTime.measure",
        Kind::OneOf(&["p95", "mean"]),
    ),
    live(
        "alerts.response_time.raise_ms",
        "alerts.responseTime.raise",
        U63,
    ),
    live(
        "alerts.response_time.clear_ms",
        "alerts.responseTime.clear",
        U63,
    ),
    live(
        "alerts.response_time.for_ms",
        "alerts.responseTime.for",
        U63,
    ),
    live(
        "alerts.response_time.window_ms",
        "alerts.responseTime.window",
        U63,
    ),
    live(
        "alerts.response_time.min_calls",
        "alerts.responseTime.minCalls",
        U32,
    ),
    live(
        "alerts.queue_length.on",
        "alerts.queueLength.on",
        Kind::Switch,
    ),
    live("alerts.queue_length.raise", "alerts.queueLength.raise", U63),
    live("alerts.queue_length.clear", "alerts.queueLength.clear", U63),
    live("alerts.queue_length.for_ms", "alerts.queueLength.for", U63),
    live("alerts.queue_age.on", "alerts.queueAge.on", Kind::Switch),
    live("alerts.queue_age.raise_ms", "alerts.queueAge.raise", U63),
    live("alerts.queue_age.clear_ms", "alerts.queueAge.clear", U63),
    live("alerts.queue_age.for_ms", "alerts.queueAge.for", U63),
    live("alerts.spend.on", "alerts.spend.on", Kind::Switch),
    live(
        "alerts.spend.cny_per_hour",
        "alerts.spend.cnyPerHour",
        Kind::Text(notify::amount),
    ),
    live(
        "alerts.spend.usd_per_hour",
        "alerts.spend.usdPerHour",
        Kind::Text(notify::amount),
    ),
    live(
        "alerts.spend.points_per_hour",
        "alerts.spend.pointsPerHour",
        Kind::Text(notify::amount),
    ),
    live(
        "alerts.spend.clear_share",
        "alerts.spend.clearShare",
        Kind::Number,
    ),
    live("alerts.spend.for_ms", "alerts.spend.for", U63),
    live("alerts.budget.on", "alerts.budget.on", Kind::Switch),
    live("alerts.budget.raise", "alerts.budget.raise", Kind::Number),
    live("alerts.budget.clear", "alerts.budget.clear", Kind::Number),
    live("alerts.budget.for_ms", "alerts.budget.for", U63),
    live("alerts.breaker.on", "alerts.breaker.on", Kind::Switch),
    live("alerts.breaker.for_ms", "alerts.breaker.for", U63),
    live("alerts.hold.on", "alerts.hold.on", Kind::Switch),
    live(
        "alerts.hold.kinds",
        "alerts.hold.kinds",
        Kind::List(notify::hold_kind),
    ),
    live("alerts.hold.for_ms", "alerts.hold.for", U63),
    fixed("webhooks.allowed_hosts", Kind::List(host_rule)),
    fixed("webhooks.allow_http", Kind::Switch),
    fixed("webhooks.allow_private", Kind::Switch),
    fixed("webhooks.secret", Kind::Secret),
    fixed("webhooks.secret_file", Kind::Text(text::plain)),
    fixed("webhooks.include_result", Kind::Switch),
    fixed("webhooks.timeout_ms", U63),
    fixed("webhooks.max_in_flight", Kind::Whole(1..=256)),
    fixed("webhooks.retry_base_ms", U63),
    fixed("webhooks.retry_multiplier", Kind::Number),
    fixed("webhooks.retry_max_ms", U63),
    fixed("webhooks.give_up_ms", U63),
    fixed("webhooks.keep_ms", U63),
    fixed("webhooks.keep_rows", U63),
    fixed(
        "webhooks.endpoints",
        Kind::Named(Named {
            check: text::lane_name,
            entry: Entry::Group {
                members: ENDPOINT,
                short: false,
            },
        }),
    ),
    fixed("log.filter", Kind::Text(text::log_filter)),
    fixed("log.format", Kind::OneOf(&["text", "json"])),
];

/// What a lane of its own is told.
const LANE: &[Key] = &[
    live("models", "models", Kind::List(text::model_pattern)),
    live("max_concurrency", "maxConcurrency", CONCURRENCY),
    live("auto_concurrency", "autoConcurrency", Kind::Switch),
    live("auto_min", "autoMin", CONCURRENCY),
    live("auto_trial_ms", "autoTrial", U63),
    live("requests_per_minute", "requestsPerMinute", U32),
    live("tokens_per_minute", "tokensPerMinute", U63),
    live("min_spacing_ms", "minSpacing", U63),
    live("fair_quantum_tokens", "fairQuantumTokens", U32),
    live("ageing_ms", "ageing", U63),
];

/// What a budget says.
const BUDGET: &[Key] = &[
    live("period", "period", Kind::OneOf(&["day", "month"])),
    live("user", "user", Kind::Text(text::plain)),
    live("model", "model", Kind::Text(text::plain)),
    live("amount", "amount", Kind::Text(text::amount)),
    live(
        "currency",
        "currency",
        Kind::OneOf(&["CNY", "USD", "POINTS"]),
    ),
    live("tokens", "tokens", U63),
    live("warn_percent", "warnPercent", Kind::Whole(0..=100)),
    live("over", "over", Kind::OneOf(&["wait", "refuse", "warn"])),
];

/// What an endpoint is told of.
const ENDPOINT: &[Key] = &[
    fixed("url", Kind::Text(notify::endpoint_url)),
    fixed("secret", Kind::Secret),
    fixed("secret_file", Kind::Text(text::plain)),
    fixed("events", Kind::List(notify::notice_event)),
];

/// What may be said of a code: another class, or single rules. The class alone needs no group.
const WORD: &[Key] = &[
    live(
        "class",
        "class",
        Kind::OneOf(&[
            "throttle",
            "overload",
            "quota_window",
            "operator_fatal",
            "request_fatal",
            "server_transient",
            "duplicate_request",
        ]),
    ),
    live(
        "job",
        "job",
        Kind::OneOf(&["keep", "retry", "backoff", "fail"]),
    ),
    live(
        "lane",
        "lane",
        Kind::OneOf(&[
            "go_on",
            "cool_down",
            "hold_model",
            "hold_until_reset",
            "hold_for_operator",
            "hold_model_for_operator",
        ]),
    ),
    live(
        "breaker",
        "breaker",
        Kind::OneOf(&["ignore", "count", "open"]),
    ),
];

impl Key {
    /// The settings of an entry, for a key with entries that are groups.
    pub(crate) fn members(&self) -> &'static [Self] {
        match self.kind {
            Kind::Named(Named {
                entry: Entry::Group { members, .. },
                ..
            }) => members,
            _ => &[],
        }
    }
}

/// The admin API's name of the setting at a path in `config.toml`; `None` when there is none.
pub(crate) fn json_path(path: &str) -> Option<String> {
    if let Some(key) = KEYS.iter().find(|key| key.path == path) {
        return key.json.map(str::to_owned);
    }
    KEYS.iter()
        .filter(|key| matches!(key.kind, Kind::Named(_)))
        .find_map(|key| {
            let (json, entry) = (key.json?, inside(key.path, path)?);
            let member = key.members().iter().find_map(|member| {
                let name = entry.strip_suffix(member.path)?.strip_suffix('.')?;
                Some(format!("{name}.{}", member.json?))
            });
            Some(format!("{json}.{}", member.as_deref().unwrap_or(entry)))
        })
}

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
