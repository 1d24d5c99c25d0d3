//! Whether the wall clock is believed by what throws away: one that is far ahead would let everything go.

use crate::model::{Timestamp, limits};

/// A clock that is a day or more ahead of where it was last believed, at a start or while the process runs, is believed
/// again once it has kept step with ten minutes of uptime. A weekend off looks the same, and is no fault: only pruning
/// waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockTrust {
    /// What the clock would say at most if it was right; `None`: it is believed.
    doubted: Option<Timestamp>,
    /// Since when it has kept step, or when it was last looked at: by itself, and by uptime in milliseconds.
    since: (Timestamp, u64),
    /// The moment of belief that the store knows of.
    stored: Option<Timestamp>,
}

impl ClockTrust {
    /// At a start. `stored`: the latest moment at which the clock was believed; `None`: there is nothing to lose yet.
    #[must_use]
    pub fn new(stored: Option<Timestamp>, now: Timestamp) -> Self {
        Self {
            doubted: stored.filter(|last| is_ahead(*last, now)),
            since: (now, 0),
            stored,
        }
    }

    /// Looks at the clock after so much uptime. Answers in how many milliseconds to look again; `None`: it is
    /// believed.
    pub fn look(&mut self, now: Timestamp, uptime_ms: u64) -> Option<u64> {
        let (wall, uptime) = self.since;
        let by_uptime = uptime_ms.saturating_sub(uptime);
        let Some(last) = self.doubted else {
            let expected = wall.plus_ms(by_uptime);
            self.since = (now, uptime_ms);
            self.doubted = Some(expected).filter(|expected| is_ahead(*expected, now));
            return self.doubted.map(|_| limits::CLOCK_LOOK_MS);
        };
        let by_clock = now.since(wall);
        if !is_ahead(last, now) {
            // It was put right.
            self.doubted = None;
            self.since = (now, uptime_ms);
            return None;
        }
        if now < wall || by_clock.abs_diff(by_uptime) > limits::CLOCK_STEP_MS_MAX {
            self.since = (now, uptime_ms);
            return Some(limits::CLOCK_LOOK_MS);
        }
        if by_uptime >= limits::CLOCK_TRUSTED_AFTER_MS {
            self.doubted = None;
            self.since = (now, uptime_ms);
            return None;
        }
        let left = limits::CLOCK_TRUSTED_AFTER_MS - by_uptime;
        Some(left.min(limits::CLOCK_LOOK_MS))
    }

    /// The moment of belief that the store is to know of, if it has to be told: only what it knows outlives the process,
    /// so that neither a job nor another start makes a clock that is wrong a clock that is right.
    pub fn to_store(&mut self, now: Timestamp) -> Option<Timestamp> {
        let is_known = |at: Timestamp| at <= now && now.since(at) < limits::CLOCK_STORED_EVERY_MS;
        if self.doubted.is_some() || self.stored.is_some_and(is_known) {
            return None;
        }
        self.stored = Some(now);
        self.stored
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
        let slewed = ahead.plus_ms(10 * MINUTE + limits::CLOCK_STEP_MS_MAX);
        assert_eq!(trust.clone().look(slewed, 10 * MINUTE), None);
        assert!(trust.clone().look(slewed.plus_ms(1), 10 * MINUTE).is_some());
        assert_eq!(trust.look(ahead.plus_ms(10 * MINUTE), 10 * MINUTE), None);

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

    #[test]
    fn a_clock_that_jumps_a_day_ahead_while_the_process_runs_is_doubted_too() {
        let start = at(5 * limits::DAY_MS);
        let mut trust = ClockTrust::new(None, start);
        // Looked at rarely: it keeps step.
        let later = start.plus_ms(3 * limits::DAY_MS);
        assert_eq!(trust.look(later, 3 * limits::DAY_MS), None);
        let uptime = 3 * limits::DAY_MS + MINUTE;
        let jumped = later.plus_ms(limits::DAY_MS + MINUTE);
        assert!(trust.look(jumped, uptime).is_some());
        assert_eq!(trust.to_store(jumped), None, "its successor doubts, too");
        for minute in 1..10 {
            let now = jumped.plus_ms(minute * MINUTE);
            assert!(trust.look(now, uptime + minute * MINUTE).is_some());
        }
        let ten = 10 * MINUTE;
        assert_eq!(trust.look(jumped.plus_ms(ten), uptime + ten), None);
    }

    #[test]
    fn the_store_knows_when_the_clock_was_believed_and_not_what_a_wrong_one_said() {
        let mut trust = ClockTrust::new(None, at(0));
        assert_eq!(trust.to_store(at(0)), Some(at(0)));
        assert_eq!(trust.to_store(at(MINUTE)), None, "not again and again");
        let hour = at(limits::CLOCK_STORED_EVERY_MS);
        assert_eq!(trust.to_store(hour), Some(hour));
        assert_eq!(trust.to_store(at(3)), Some(at(3)), "it was set back");
        let ahead = at(2 * limits::DAY_MS);
        for _ in 0..3 {
            // Each start begins anew, whatever the one before had done.
            let mut next = ClockTrust::new(Some(at(3)), ahead);
            assert!(next.look(ahead.plus_ms(9 * MINUTE), 9 * MINUTE).is_some());
            assert_eq!(next.to_store(ahead.plus_ms(9 * MINUTE)), None);
        }
    }
}
