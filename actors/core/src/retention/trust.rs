//! Whether the wall clock is believed by what throws away: one that is far ahead at a start would let everything go.

use crate::model::{Timestamp, limits};

/// A clock that was a day or more ahead of all that the store knew is believed once it has kept step with ten minutes
/// of uptime. A weekend off looks the same, and is no fault: only pruning waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockTrust {
    /// The latest moment that the store knew of; `None`: the clock is believed.
    doubted: Option<Timestamp>,
    /// Since when it has kept step: by itself, and by uptime in milliseconds.
    since: (Timestamp, u64),
}

impl ClockTrust {
    /// At a start. `last_known`: the latest moment that the store knows of.
    #[must_use]
    pub fn new(last_known: Option<Timestamp>, now: Timestamp) -> Self {
        Self {
            doubted: last_known.filter(|last| is_ahead(*last, now)),
            since: (now, 0),
        }
    }

    /// Looks at the clock after so much uptime. Answers in how many milliseconds to look again; `None`: it is
    /// believed.
    pub fn look(&mut self, now: Timestamp, uptime_ms: u64) -> Option<u64> {
        let last = self.doubted?;
        if !is_ahead(last, now) {
            self.doubted = None;
            return None;
        }
        let (wall, uptime) = self.since;
        let by_uptime = uptime_ms.saturating_sub(uptime);
        let by_clock = now.since(wall);
        if now < wall || by_clock.abs_diff(by_uptime) > limits::CLOCK_STEP_MS_MAX {
            self.since = (now, uptime_ms);
            return Some(limits::CLOCK_LOOK_MS);
        }
        if by_uptime >= limits::CLOCK_TRUSTED_AFTER_MS {
            self.doubted = None;
            return None;
        }
        let left = limits::CLOCK_TRUSTED_AFTER_MS - by_uptime;
        Some(left.min(limits::CLOCK_LOOK_MS))
    }
}

fn is_ahead(last: Timestamp, now: Timestamp) -> bool {
    now.since(last) >= limits::DAY_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn at(ms: u64) -> Timestamp {
        Timestamp::default().plus_ms(ms)
    }

    #[test]
    fn a_clock_a_day_ahead_at_a_start_is_believed_after_ten_minutes_in_step() {
        let ahead = at(limits::DAY_MS);
        let mut trust = ClockTrust::new(Some(at(0)), ahead);
        for minute in 0..10 {
            let left = trust.look(ahead.plus_ms(minute * MINUTE), minute * MINUTE);
            assert!(left.is_some(), "{minute}");
        }
        assert_eq!(trust.look(ahead.plus_ms(10 * MINUTE), 10 * MINUTE), None);
        // What it does later is no start.
        assert_eq!(trust.look(ahead.plus_ms(limits::DAY_MS), 11 * MINUTE), None);

        for usual in [None, Some(at(1)), Some(ahead)] {
            assert_eq!(ClockTrust::new(usual, ahead).look(ahead, 0), None);
        }
    }

    #[test]
    fn a_clock_that_jumps_begins_anew_and_one_that_is_put_right_is_believed() {
        let ahead = at(30 * limits::DAY_MS);
        let mut trust = ClockTrust::new(Some(at(0)), ahead);
        let jumped = ahead.plus_ms(limits::DAY_MS);
        assert!(trust.look(jumped, 9 * MINUTE).is_some());
        assert!(
            trust
                .look(jumped.plus_ms(2 * MINUTE), 11 * MINUTE)
                .is_some()
        );
        assert!(
            trust
                .look(jumped.plus_ms(9 * MINUTE), 18 * MINUTE)
                .is_some()
        );
        assert_eq!(
            trust.clone().look(jumped.plus_ms(10 * MINUTE), 19 * MINUTE),
            None
        );
        assert_eq!(trust.look(at(20 * MINUTE), 18 * MINUTE), None);
    }
}
