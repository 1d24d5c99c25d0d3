//! Time that nobody sets: what the pace of the lanes is counted by. A wall clock that jumps ahead would make a minute of
//! calls look like one that is long over.

use crate::model::Timestamp;

/// Less than this is how two clocks are read one after the other.
const STEP_MS_MIN: u64 = 50;

/// By how much the wall clock was set since the first look at it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Steady {
    /// The last look: what the wall clock said, and what it was ahead of uptime.
    last: Option<(Timestamp, i64)>,
    /// How far it was set ahead in all; negative: back.
    set_by_ms: i64,
}

impl Steady {
    /// Hears what the wall clock says after so much uptime. Tells by how much it was set, in milliseconds; negative: back.
    pub fn hear(&mut self, wall: Timestamp, uptime_ms: u64) -> i64 {
        let ahead = wall.as_millis().saturating_sub_unsigned(uptime_ms);
        let Some((before, was_ahead)) = self.last else {
            self.last = Some((wall, ahead));
            return 0;
        };
        let step = ahead.saturating_sub(was_ahead);
        if step.unsigned_abs() >= STEP_MS_MIN {
            self.set_by_ms = self.set_by_ms.saturating_add(step);
            self.last = Some((wall, ahead));
            return step;
        }
        // Where it is only slewed, pace goes with it.
        self.last = Some((wall, was_ahead));
        wall.as_millis().saturating_sub(before.as_millis()).min(0)
    }

    /// A moment of the wall clock, as it is set now, by the clock that nobody sets.
    #[must_use]
    pub const fn of(self, wall: Timestamp) -> Timestamp {
        Timestamp::from_millis(wall.as_millis().saturating_sub(self.set_by_ms))
    }

    /// The other way round.
    #[must_use]
    pub const fn on_the_wall(self, steady: Timestamp) -> Timestamp {
        Timestamp::from_millis(steady.as_millis().saturating_add(self.set_by_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn a_clock_that_is_set_tells_the_steady_time_all_the_same() {
        let mut steady = Steady::default();
        let mut wall = 1_000_000;
        let mut uptime = 0;
        steady.hear(at(wall), uptime);
        for (passes, set_by) in [
            (10, 0),
            (0, 86_400_000),
            (7, 0),
            (5, -3_600_000),
            (1, 60),
            (0, -99_000_000),
            (3, 0),
        ] {
            uptime += passes;
            wall += passes.cast_signed() + set_by;
            assert_eq!(steady.hear(at(wall), uptime), set_by, "{set_by}");
            let now = steady.of(at(wall));
            assert_eq!(now, at(1_000_000 + uptime.cast_signed()));
            assert_eq!(steady.on_the_wall(now), at(wall));
        }
        // Two clocks are never read in the same moment.
        steady.hear(at(wall + 30), uptime);
        assert_eq!(
            steady.of(at(wall + 30)),
            at(1_000_030 + uptime.cast_signed())
        );
    }

    #[test]
    fn no_clock_breaks_it() {
        let mut steady = Steady::default();
        for (wall, uptime) in [(i64::MIN, 0), (i64::MAX, u64::MAX), (i64::MIN, 1), (0, 0)] {
            steady.hear(at(wall), uptime);
            let _ = steady.on_the_wall(steady.of(at(wall)));
        }
    }
}
