//! How long to wait before trying again: exponential, capped, with jitter from a seed.

use crate::model::{CoolDownSettings, RetryPolicy, limits};
use crate::random::SplitMix64;

fn grown(base_ms: u64, multiplier: f64, steps: u32, max_ms: u64) -> f64 {
    let steps = i32::try_from(steps).unwrap_or(i32::MAX);
    (base_ms as f64 * multiplier.powi(steps)).min(max_ms as f64)
}

fn jittered(delay_ms: f64, jitter: f64, seed: u64) -> u64 {
    (delay_ms * (1.0 - jitter * SplitMix64::new(seed).draw_unit())).round() as u64
}

impl RetryPolicy {
    /// The delay before retry number `retry` (0 for the first), in milliseconds. Jitter shortens it, so
    /// that the cap holds. A `Retry-After` wins when it is longer, up to an hour.
    #[must_use]
    pub fn delay_ms(&self, retry: u32, retry_after_ms: Option<u64>, seed: u64) -> u64 {
        let delay = grown(
            self.base_delay_ms,
            self.backoff_multiplier,
            retry,
            self.max_delay_ms,
        );
        let most = self.max_delay_ms.max(limits::ASKED_OF_BROKEN_MS_MAX);
        longer(jittered(delay, self.jitter, seed), retry_after_ms, most)
    }
}

/// The part of a cool-down that is drawn at random: callers of one account must not come back in step.
const COOL_DOWN_JITTER: f64 = 0.2;

/// The cool-down after `level` earlier ones in a row, in milliseconds. It doubles up to the cap. A `Retry-After` wins
/// when it is longer, up to some minutes.
#[must_use]
pub fn cool_down_ms(
    settings: &CoolDownSettings,
    level: u32,
    retry_after_ms: Option<u64>,
    seed: u64,
) -> u64 {
    let delay = grown(settings.base_ms, 2.0, level, settings.max_ms);
    let most = settings.max_ms.max(limits::ASKED_OF_BUSY_MS_MAX);
    longer(
        jittered(delay, COOL_DOWN_JITTER, seed),
        retry_after_ms,
        most,
    )
}

/// `most`: what a server may ask for.
fn longer(delay_ms: u64, retry_after_ms: Option<u64>, most: u64) -> u64 {
    delay_ms.max(retry_after_ms.unwrap_or(0).min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact() -> RetryPolicy {
        RetryPolicy {
            jitter: 0.0,
            ..RetryPolicy::default()
        }
    }

    #[test]
    fn the_delay_doubles_up_to_the_cap() {
        let delays: Vec<u64> = (0..7).map(|n| exact().delay_ms(n, None, 1)).collect();
        assert_eq!(delays, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        assert_eq!(exact().delay_ms(u32::MAX, None, 1), 30_000);
    }

    #[test]
    fn a_longer_retry_after_wins() {
        assert_eq!(exact().delay_ms(0, Some(5_000), 1), 5_000);
        assert_eq!(exact().delay_ms(3, Some(5_000), 1), 8_000);
    }

    #[test]
    fn a_server_may_ask_for_minutes_after_a_throttle_and_for_an_hour_when_it_is_broken() {
        for asked in [86_400_000, u64::MAX] {
            assert_eq!(exact().delay_ms(0, Some(asked), 1), 3_600_000);
            let settings = CoolDownSettings::default();
            assert_eq!(cool_down_ms(&settings, 0, Some(asked), 1), 600_000);
            // Who sets a longer one means it.
            let settings = CoolDownSettings {
                max_ms: 3_000_000,
                ..settings
            };
            assert_eq!(cool_down_ms(&settings, 0, Some(asked), 1), 3_000_000);
        }
    }

    proptest::proptest! {
        #[test]
        fn jitter_stays_within_its_part_and_repeats_for_a_seed(seed: u64, retry in 0_u32..20) {
            let settings = RetryPolicy { jitter: 0.5, ..RetryPolicy::default() };
            let full = exact().delay_ms(retry, None, seed);
            let delay = settings.delay_ms(retry, None, seed);
            proptest::prop_assert!(delay <= full && delay >= full / 2);
            proptest::prop_assert_eq!(delay, settings.delay_ms(retry, None, seed));
        }

        #[test]
        fn a_cool_down_grows_and_stays_under_its_cap(seed: u64, level in 0_u32..40) {
            let settings = CoolDownSettings::default();
            let delay = cool_down_ms(&settings, level, None, seed);
            proptest::prop_assert!(delay <= settings.max_ms);
            proptest::prop_assert!(delay >= settings.base_ms * 8 / 10);
        }
    }
}
