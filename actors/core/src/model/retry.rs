//! How long to wait before trying again: delays of jobs and of deliveries, and cool-downs of lanes and models.

use serde::{Deserialize, Serialize};

use super::setting::{Place, Problem, SettingsError};
use super::{FailureClass, code, limits};
use crate::{section, words};

section! {
    /// `[retry]`: how a transient failure is retried, and how long throttle and overload answers delay.
    pub struct RetrySettings {
        /// Retries of transient failures (5xx, timeouts, lost connections) for a job that says no number of its
        /// own.
        max_retries: u32 = 3 => [within(0..=limits::MAX_RETRIES_MAX as u64).json("maxRetries")];
        /// The kinds of failure that are retried: "timeout", "rate_limit" (throttle and overload answers),
        /// "network_error", "server_error". A kind that is left out fails its job at once; what the policy says for a
        /// code wins. Holds, and what never left, fail no job.
        retryable_errors: Vec<RetryableError> = RetryableError::ALL.to_vec();
        /// The delays between retries.
        delays: RetryPolicy = RetryPolicy::default() => [flat("")];
        /// A throttle answer (1302, 1303: the account's own limit) makes the lane cool down.
        throttle: CoolDownSettings = CoolDownSettings { base_ms: 5_000, max_ms: 120_000 } => [
            flat("throttle_")
        ];
        /// Throttle answers use up no retry; a job that met so many of them fails all the same.
        max_throttles: u32 = 200 => [within(1..=u32::MAX as u64)];
        /// An overload answer (1305, 1312) makes the lane hold the model.
        overload: CoolDownSettings = CoolDownSettings { base_ms: 30_000, max_ms: 300_000 } => [
            flat("overload_")
        ];
    }
}

/// A kind of failure that may be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryableError {
    /// No answer, or not the whole of it, in time.
    Timeout,
    /// Too much at once, for the account or for the model.
    RateLimit,
    /// The connection was lost.
    NetworkError,
    /// The server failed.
    ServerError,
}

words! {
    RetryableError { Timeout, RateLimit, NetworkError, ServerError }
}

impl RetryableError {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Timeout,
        Self::RateLimit,
        Self::NetworkError,
        Self::ServerError,
    ];

    /// The name used in configuration and API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::RateLimit => "rate_limit",
            Self::NetworkError => "network_error",
            Self::ServerError => "server_error",
        }
    }

    /// The kind of a failure of this class; `None`: no kind decides whether it is retried.
    #[must_use]
    pub fn of(class: FailureClass, failure_code: &str) -> Option<Self> {
        match class {
            FailureClass::Throttle | FailureClass::Overload => Some(Self::RateLimit),
            FailureClass::ForeignAnswer => Some(Self::NetworkError),
            FailureClass::ServerTransient => Some(match failure_code {
                code::TIMEOUT_CONNECT
                | code::TIMEOUT_FIRST_BYTE
                | code::TIMEOUT_IDLE
                | code::TIMEOUT_TOTAL
                | "http_408"
                | "http_504" => Self::Timeout,
                code::CONNECTION | code::CONNECTION_ENDED => Self::NetworkError,
                _ => Self::ServerError,
            }),
            FailureClass::QuotaWindow
            | FailureClass::OperatorFatal
            | FailureClass::RequestFatal
            | FailureClass::Unreachable
            | FailureClass::Unattributed
            | FailureClass::DuplicateRequest => None,
        }
    }
}

section! {
    /// Delays that grow from one try to the next.
    #[derive(Copy)]
    pub struct RetryPolicy checked by Self::goes_together {
        /// The delay before the first retry; a longer Retry-After wins.
        base_delay_ms: u64 = 1_000;
        /// Each delay between retries is so many times the one before.
        backoff_multiplier: f64 = 2.0 => [within(1.0..=100.0)];
        /// No delay between retries is longer.
        max_delay_ms: u64 = 30_000 => [within(0..=limits::DAY_MS)];
        /// The share of a delay that is drawn at random, so that retries don't come back in step.
        jitter: f64 = 0.2 => [within(0.0..=1.0)];
    }
}

impl RetryPolicy {
    fn goes_together(&self, place: &Place, errors: &mut Vec<SettingsError>) {
        if self.base_delay_ms > self.max_delay_ms {
            let problem = Problem::from("must not be longer than ");
            let problem = problem.setting(place.at("max_delay_ms"));
            errors.push(SettingsError::new(place.at("base_delay_ms"), problem));
        }
    }
}

section! {
    /// How long a lane or a model stands still after an answer; it doubles from one such answer to the next.
    #[derive(Copy, Eq)]
    pub struct CoolDownSettings checked by Self::goes_together {
        /// So long after the first one, and twice as long after each further one.
        base_ms: u64 = 5_000 => [within(1..=limits::DAY_MS)];
        /// Never longer than this.
        max_ms: u64 = 120_000 => [within(1..=limits::DAY_MS)];
    }
}

impl CoolDownSettings {
    fn goes_together(&self, place: &Place, errors: &mut Vec<SettingsError>) {
        if self.base_ms > self.max_ms {
            let problem = Problem::from("must be at least 1 and not longer than ");
            errors.push(SettingsError::new(
                place.at("base_ms"),
                problem.setting(place.at("max_ms")),
            ));
        }
    }
}
