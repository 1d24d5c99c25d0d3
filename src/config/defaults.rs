//! The defaults of the sections. What the lane has a default for is taken from there, so that no
//! number is said twice.

use std::collections::BTreeMap;

use onelane_core::model::{AutoSettings, BreakerSettings, LaneRules, Settings, Timeouts, limits};

use super::sections::{
    BreakerSection, GlmSection, LaneSection, LogFormat, LogSection, NamedLaneSection,
    RetentionSection, RetrySection, ServerSection, StoreSection, TimeoutsSection,
};
use crate::store::StoreOptions;

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
            async_models: Vec::new(),
            async_poll_ms: settings.async_poll_ms,
            fallbacks: BTreeMap::new(),
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
        let rules = NamedLaneSection::default();
        Self {
            max_concurrency: rules.max_concurrency,
            auto_concurrency: rules.auto_concurrency,
            auto_min: rules.auto_min,
            auto_trial_ms: rules.auto_trial_ms,
            requests_per_minute: rules.requests_per_minute,
            tokens_per_minute: rules.tokens_per_minute,
            min_spacing_ms: rules.min_spacing_ms,
            fair_quantum_tokens: rules.fair_quantum_tokens,
            ageing_ms: rules.ageing_ms,
            pause_after_timeout_ms: settings.pause_after_timeout_ms,
            operator_probe_ms: settings.operator_probe_ms,
            max_queue_jobs: settings.max_queue_jobs,
            on_interrupted: settings.on_interrupted,
            quarantine_after: settings.quarantine_after,
        }
    }
}

impl Default for NamedLaneSection {
    fn default() -> Self {
        let LaneRules {
            max_concurrency,
            auto,
            pace,
            order,
        } = LaneRules::default();
        let AutoSettings { min, trial_ms } = auto.unwrap_or_default();
        Self {
            models: Vec::new(),
            max_concurrency,
            auto_concurrency: auto.is_some(),
            auto_min: min,
            auto_trial_ms: trial_ms,
            requests_per_minute: pace.requests_per_minute,
            tokens_per_minute: pace.tokens_per_minute,
            min_spacing_ms: pace.min_spacing_ms,
            fair_quantum_tokens: order.fair_quantum_tokens,
            ageing_ms: order.ageing_ms,
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
            max_throttles: retry.max_throttles,
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
            retention: RetentionSection::default(),
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
