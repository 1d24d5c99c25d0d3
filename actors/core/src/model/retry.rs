//! How long to wait before trying again: delays of jobs and of deliveries, and cool-downs of lanes and models.

use super::limits;
use super::setting::{Place, Problem, SettingsError};
use crate::section;

section! {
    /// `[retry]`: how a transient failure is retried, and how long throttle and overload answers delay.
    #[derive(Copy)]
    pub struct RetrySettings {
        /// Retries of transient failures (5xx, timeouts, lost connections) for a job that says no number of its
        /// own.
        max_retries: u32 = 3 => [within(0..=limits::MAX_RETRIES_MAX as u64).json("maxRetries")];
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
