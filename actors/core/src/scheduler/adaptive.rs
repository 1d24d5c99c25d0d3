//! How many calls a lane may have open when nobody knows what GLM bears: additive increase,
//! multiplicative decrease, around a remembered ceiling.
//!
//! The `ceiling` is what GLM is believed to bear. A refusal halves the limit; from there up to the
//! ceiling every success of a full lane adds one again. Beyond the ceiling one more call is a *trial*,
//! proven once as many calls ended well in a full lane as it may have open, and then the next may
//! follow at once. A trial that GLM refuses makes the next one wait, twice as long from one to the
//! next. A refusal at or below the ceiling disproves it: it comes down.

use crate::model::{AutoSettings, LearntLimit, Timestamp, Wait};

/// Failed trials in a row double the wait for the next so often: 32 times `trial_ms` at most.
const DOUBLINGS_MAX: u32 = 5;

/// What a lane starts with: the least, and a trial as soon as it is full.
#[must_use]
pub fn begin(auto: &AutoSettings, max: u16, now: Timestamp) -> LearntLimit {
    let (min, _) = bounds(auto, max);
    LearntLimit {
        limit: min,
        ceiling: min,
        failed_trials: 0,
        next_trial_at: Wait::from(now, 0),
        trial_successes: 0,
        decreased_at: None,
    }
}

/// What was learnt, inside bounds that may have changed.
#[must_use]
pub fn fitted(learnt: LearntLimit, auto: &AutoSettings, max: u16) -> LearntLimit {
    let (min, max) = bounds(auto, max);
    let ceiling = learnt.ceiling.clamp(min, max);
    let limit = learnt.limit.clamp(min, max).min(ceiling.saturating_add(1));
    LearntLimit {
        limit,
        ceiling,
        trial_successes: if limit == learnt.limit {
            learnt.trial_successes
        } else {
            0
        },
        ..learnt
    }
}

/// A call ended well. `in_flight` are the calls open on the lane when it ended, itself included. Only
/// a lane that was full tells something; one that is above its limit is still on its way down.
#[must_use]
pub fn succeeded(
    learnt: LearntLimit,
    auto: &AutoSettings,
    max: u16,
    in_flight: u16,
    now: Timestamp,
) -> LearntLimit {
    let mut learnt = fitted(learnt, auto, max);
    learnt.next_trial_at.mind_the_clock(now);
    if in_flight != learnt.limit {
        return learnt;
    }
    if learnt.limit > learnt.ceiling {
        return trial_succeeded(learnt, now);
    }
    let (_, max) = bounds(auto, max);
    let may_grow = learnt.limit < learnt.ceiling || is_trial_due(&learnt, auto, now);
    LearntLimit {
        limit: learnt.limit.saturating_add(u16::from(may_grow)).min(max),
        trial_successes: 0,
        ..learnt
    }
}

/// GLM refused a call because too many were open. Calls that were sent before the last decrease, or
/// with it, tell of the limit before: a burst of refusals counts once.
#[must_use]
pub fn throttled(
    learnt: LearntLimit,
    auto: &AutoSettings,
    max: u16,
    sent_at: Timestamp,
    now: Timestamp,
) -> LearntLimit {
    let learnt = fitted(learnt, auto, max);
    // A decrease later than now was before the clock was set back.
    let is_known = |at: Timestamp| sent_at <= at && at <= now;
    if learnt.decreased_at.is_some_and(is_known) {
        return learnt;
    }
    let (min, _) = bounds(auto, max);
    let was_trial = learnt.limit > learnt.ceiling;
    // Another ceiling has no failed trials yet but this refusal.
    let failed_trials = if was_trial {
        learnt.failed_trials.saturating_add(1)
    } else {
        1
    };
    LearntLimit {
        limit: (learnt.limit / 2).max(min),
        ceiling: learnt.limit.saturating_sub(1).max(min),
        failed_trials,
        next_trial_at: Wait::from(now, wait_ms(auto, failed_trials)),
        trial_successes: 0,
        decreased_at: Some(now),
    }
}

/// A full lane beyond the ceiling had a success. Once as many calls ended well as it may have open,
/// every one that was open when the trial began has, the one too many included.
fn trial_succeeded(learnt: LearntLimit, now: Timestamp) -> LearntLimit {
    let trial_successes = learnt.trial_successes.saturating_add(1);
    if trial_successes < learnt.limit {
        return LearntLimit {
            trial_successes,
            ..learnt
        };
    }
    LearntLimit {
        ceiling: learnt.limit,
        failed_trials: 0,
        next_trial_at: Wait::from(now, 0),
        trial_successes: 0,
        ..learnt
    }
}

fn is_trial_due(learnt: &LearntLimit, auto: &AutoSettings, now: Timestamp) -> bool {
    let left_ms = learnt.next_trial_at.left_ms(now);
    // Longer than any wait: they were made shorter.
    left_ms == 0 || left_ms > wait_ms(auto, u32::MAX)
}

/// From a failed trial, the so many in a row, to the next.
fn wait_ms(auto: &AutoSettings, failed_trials: u32) -> u64 {
    let doublings = failed_trials.saturating_sub(1).min(DOUBLINGS_MAX);
    auto.trial_ms.saturating_mul(1 << doublings)
}

/// The least and the most, whatever the settings say.
fn bounds(auto: &AutoSettings, max: u16) -> (u16, u16) {
    let min = auto.min.max(1);
    (min, max.max(min))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    const AUTO: AutoSettings = AutoSettings {
        on: true,
        min: 1,
        trial_ms: 60_000,
    };

    /// `calls` successes of a full lane.
    fn full(mut learnt: LearntLimit, calls: u16, now: Timestamp) -> LearntLimit {
        for _ in 0..calls {
            learnt = succeeded(learnt, &AUTO, 8, learnt.limit, now);
        }
        learnt
    }

    #[test]
    fn a_lane_that_nobody_refuses_grows_to_its_bound_by_proven_steps() {
        let mut learnt = begin(&AUTO, 4, at(0));
        let mut limits = Vec::new();
        for _ in 0..15 {
            limits.push(learnt.limit);
            learnt = succeeded(learnt, &AUTO, 4, learnt.limit, at(0));
        }
        // One success tries n calls, n more prove them.
        assert_eq!(limits, [1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4]);
    }

    #[test]
    fn a_lane_that_is_not_full_learns_nothing() {
        let learnt = full(begin(&AUTO, 8, at(0)), 8, at(0));
        assert_eq!(learnt.limit, 4);
        for in_flight in [0, 1, 3, 5, 8] {
            assert_eq!(succeeded(learnt, &AUTO, 8, in_flight, at(9)), learnt);
        }
    }

    #[test]
    fn a_refused_trial_halves_the_limit_and_keeps_the_ceiling() {
        let learnt = LearntLimit {
            limit: 6,
            ceiling: 5,
            ..begin(&AUTO, 8, at(0))
        };
        let refused = throttled(learnt, &AUTO, 8, at(10), at(20));
        assert_eq!((refused.limit, refused.ceiling), (3, 5));
        let back = full(refused, 2, at(30));
        assert_eq!(back.limit, 5, "quick up to the ceiling");
        assert_eq!(full(back, 50, at(60_019)), back, "and no further");
        assert_eq!(full(back, 1, at(60_020)).limit, 6, "until the next trial");
    }

    #[test]
    fn a_refusal_below_the_ceiling_brings_it_down() {
        let learnt = LearntLimit {
            limit: 4,
            ceiling: 7,
            failed_trials: 5,
            ..begin(&AUTO, 8, at(0))
        };
        let refused = throttled(learnt, &AUTO, 8, at(10), at(20));
        assert_eq!((refused.limit, refused.ceiling), (2, 3));
        assert_eq!(
            refused.next_trial_at.until,
            at(60_020),
            "its trials start afresh"
        );
    }

    #[test]
    fn failed_trials_get_rarer_up_to_a_bound() {
        let mut learnt = begin(&AUTO, 8, at(0));
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..8 {
            learnt = full(learnt, 1, now);
            assert_eq!(learnt.limit, 2);
            learnt = throttled(learnt, &AUTO, 8, now.plus_ms(1), now.plus_ms(2));
            assert_eq!(learnt.limit, 1);
            waits.push(learnt.next_trial_at.length_ms / AUTO.trial_ms);
            now = learnt.next_trial_at.until;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 32, 32]);
        let proven = full(learnt, 3, now);
        assert_eq!((proven.ceiling, proven.failed_trials), (2, 0));
        assert_eq!(full(proven, 1, now).limit, 3, "the next may follow at once");
    }

    #[test]
    fn a_clock_that_is_set_back_stops_neither_trials_nor_refusals() {
        let day_ms = 86_400_000;
        let learnt = full(begin(&AUTO, 8, at(day_ms)), 4, at(day_ms));
        let refused = throttled(learnt, &AUTO, 8, at(day_ms), at(day_ms));
        let waits = full(refused, 2, at(0));
        assert_eq!(waits.limit, 2, "its wait begins again");
        assert_eq!(full(waits, 1, at(59_999)).limit, 2);
        let due = full(waits, 1, at(60_000));
        assert_eq!(due.limit, 3, "and is no longer than it was");
        let again = throttled(due, &AUTO, 8, at(60_005), at(60_010));
        assert_eq!(again.limit, 1);
    }

    #[test]
    fn what_proved_another_limit_proves_nothing_of_a_new_one() {
        let trial = LearntLimit {
            limit: 6,
            ceiling: 5,
            trial_successes: 4,
            ..begin(&AUTO, 8, at(0))
        };
        assert_eq!(fitted(trial, &AUTO, 6).trial_successes, 4);
        assert_eq!(fitted(trial, &AUTO, 4).trial_successes, 0);
        // A higher least makes the limit that was tried the ceiling; what comes next is another trial.
        let auto = AutoSettings { min: 6, ..AUTO };
        let next = succeeded(trial, &auto, 8, 6, at(0));
        assert_eq!((next.limit, next.ceiling), (7, 6));
        assert_eq!(next.trial_successes, 0);
    }

    #[test]
    fn new_bounds_apply_at_once() {
        let learnt = LearntLimit {
            limit: 6,
            ceiling: 6,
            trial_successes: 2,
            ..begin(&AUTO, 8, at(0))
        };
        let lower = fitted(learnt, &AUTO, 3);
        assert_eq!((lower.limit, lower.ceiling), (3, 3));
        let auto = AutoSettings { min: 7, ..AUTO };
        let higher = fitted(learnt, &auto, 8);
        assert_eq!((higher.limit, higher.ceiling), (7, 7));
        assert_eq!(fitted(learnt, &AUTO, 8), learnt);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Succeeded(u16),
        Throttled(u64),
        Bounds(u16, u16),
        Clock(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0_u16..12).prop_map(Step::Succeeded),
            3 => (0_u64..5_000).prop_map(Step::Throttled),
            1 => (1_u16..=4, 0_u16..8).prop_map(|(min, more)| Step::Bounds(min, min + more)),
            4 => (-10_000_i64..120_000).prop_map(Step::Clock),
        ]
    }

    proptest! {
        #[test]
        fn the_limit_is_always_within_its_bounds(steps in prop::collection::vec(step(), 0..200)) {
            let (mut auto, mut max, mut now) = (AUTO, 5, 0);
            let mut learnt = begin(&auto, max, at(now));
            for step in steps {
                let before = learnt;
                learnt = match step {
                    Step::Succeeded(in_flight) => succeeded(learnt, &auto, max, in_flight, at(now)),
                    Step::Throttled(ago) => {
                        throttled(learnt, &auto, max, at(now - ago as i64), at(now))
                    }
                    Step::Bounds(min, new_max) => {
                        auto.min = min;
                        max = new_max;
                        fitted(learnt, &auto, max)
                    }
                    Step::Clock(ms) => {
                        now += ms;
                        learnt
                    }
                };
                prop_assert!((auto.min..=max).contains(&learnt.limit), "{learnt:?}");
                prop_assert!((auto.min..=max).contains(&learnt.ceiling), "{learnt:?}");
                prop_assert!(learnt.limit <= learnt.ceiling + 1, "{learnt:?}");
                prop_assert_eq!(fitted(learnt, &auto, max), learnt);
                if let Step::Succeeded(_) = step {
                    prop_assert!(learnt.limit - before.limit <= 1, "one at a time");
                }
            }
        }

        #[test]
        fn a_burst_of_refusals_counts_once(
            limit in 1_u16..=20,
            sent in prop::collection::vec(0_i64..1_000, 1..20),
            gap in 0_i64..100,
        ) {
            let learnt = LearntLimit { limit, ceiling: limit, ..begin(&AUTO, 20, at(0)) };
            let mut after = Vec::new();
            let mut last = learnt;
            for (n, sent_at) in (1..).zip(&sent) {
                last = throttled(last, &AUTO, 20, at(*sent_at), at(1_000 + n * gap));
                after.push(last);
            }
            prop_assert!(after.iter().all(|l| *l == last), "{after:?}");
            prop_assert_eq!(last.limit, (limit / 2).max(1));
        }
    }

    /// A server that bears so many calls at once and refuses any more at once, and a lane with work
    /// that never ends.
    struct World {
        now: Timestamp,
        learnt: LearntLimit,
        /// When each open call ends, when it was sent, and whether it was refused.
        open: Vec<(Timestamp, Timestamp, bool)>,
        held_until: Timestamp,
        seed: u64,
    }

    const MAX: u16 = 8;
    const COOL_DOWN_MS: u64 = 5_000;

    impl World {
        /// Calls of 1 to 9 seconds.
        fn call_ms(&mut self) -> u64 {
            self.seed = self
                .seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            1_000 + (self.seed >> 33) % 8_000
        }

        fn send(&mut self, server: u16) {
            while self.held_until <= self.now && self.open.len() < usize::from(self.learnt.limit) {
                let served = self.open.iter().filter(|(_, _, refused)| !refused).count();
                let refused = served >= usize::from(server);
                let ms = if refused { 50 } else { self.call_ms() };
                self.open.push((self.now.plus_ms(ms), self.now, refused));
            }
        }

        /// Runs until `end`. Answers calls that ended well, calls that were refused, and for how
        /// many milliseconds the limit was each value.
        fn run(&mut self, server: u16, end: Timestamp) -> (u32, u32, [u64; MAX as usize + 1]) {
            let (mut well, mut refused, mut share) = (0, 0, [0; MAX as usize + 1]);
            loop {
                self.send(server);
                let next_end = self.open.iter().map(|call| call.0).min();
                let next = next_end.unwrap_or(self.held_until).min(end);
                share[usize::from(self.learnt.limit)] += next.since(self.now);
                self.now = next;
                if next == end {
                    return (well, refused, share);
                }
                let Some(nth) = self.open.iter().position(|call| call.0 == next) else {
                    continue;
                };
                let in_flight = u16::try_from(self.open.len()).unwrap();
                let (_, sent_at, was_refused) = self.open.swap_remove(nth);
                if was_refused {
                    refused += 1;
                    self.learnt = throttled(self.learnt, &AUTO, MAX, sent_at, next);
                    self.held_until = next.plus_ms(COOL_DOWN_MS);
                } else {
                    well += 1;
                    self.learnt = succeeded(self.learnt, &AUTO, MAX, in_flight, next);
                }
            }
        }
    }

    /// The server's limit changes 3 -> 1 -> 5, two hours each, and a trial is made every minute at
    /// most. The limit is at the server's within five minutes going down and within 33 going up (the
    /// longest wait for a trial and one for the steps), from then on for 98 % of the time, and never
    /// more than one above it; and fewer than one call in two hundred is refused.
    #[test]
    fn it_converges_to_what_the_server_bears() {
        for seed in 0..50 {
            let mut world = World {
                now: at(0),
                learnt: begin(&AUTO, MAX, at(0)),
                open: Vec::new(),
                held_until: at(0),
                seed,
            };
            for (server, settle_trials) in [(3_u16, 2), (1, 5), (5, 33)] {
                let begun = world.now;
                world.run(server, begun.plus_ms(settle_trials * AUTO.trial_ms));
                let (well, refused, share) = world.run(server, begun.plus_ms(7_200_000));
                let about =
                    format!("seed {seed}, {server}: {well} well, {refused} refused, {share:?}");
                let total: u64 = share.iter().sum();
                assert!(share[usize::from(server)] * 100 >= total * 98, "{about}");
                let above: u64 = share[usize::from(server) + 2..].iter().sum();
                assert_eq!(above, 0, "{about}");
                assert!(refused * 200 < well, "{about}");
            }
        }
    }
}
