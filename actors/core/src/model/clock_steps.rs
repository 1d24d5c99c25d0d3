//! When the wall clock was set, and by how much: what was noted by it before is told by how it is set now.

use serde::{Deserialize, Serialize};

use super::{Timestamp, limits};

/// The wall clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct ClockStep {
    /// What it would have said.
    before: Timestamp,
    /// What it says instead is later by so much; negative: earlier.
    by_ms: i64,
}

impl ClockStep {
    fn after(self) -> Timestamp {
        Timestamp::from_millis(self.before.as_millis().saturating_add(self.by_ms))
    }
}

/// The latest times that the wall clock was set, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClockSteps(Vec<ClockStep>);

impl ClockSteps {
    /// Whether none is known.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The clock, which says `now`, was just set by so much. What is over for longer than `kept_ms` is forgotten.
    pub fn note(&mut self, by_ms: i64, now: Timestamp, kept_ms: u64) {
        let before = Timestamp::from_millis(now.as_millis().saturating_sub(by_ms));
        let mut ends = before;
        let mut kept = 0;
        // From the latest on, each as far back by the clock as it was then.
        for step in self.0.iter().rev() {
            let is_over = ends.since(step.after()) >= kept_ms;
            if is_over || kept + 1 >= limits::CLOCK_STEPS_KEPT {
                break;
            }
            ends = step.before;
            kept += 1;
        }
        self.0.drain(..self.0.len().saturating_sub(kept));
        self.0.push(ClockStep { before, by_ms });
    }

    /// When something was that was noted at this moment of the clock, by the clock as it is set now. A moment that the
    /// clock said more than once is taken for the latest.
    #[must_use]
    pub fn told_now(&self, noted: Timestamp, now: Timestamp) -> Timestamp {
        // It was set back since the last step, while no process looked: what it said since then it says now.
        if noted <= now && self.0.last().is_some_and(|step| now < step.after()) {
            return noted;
        }
        let set_later = |by_ms| Timestamp::from_millis(noted.as_millis().saturating_add(by_ms));
        let (mut said, mut set_by, mut ends) = (None, 0_i64, now);
        let steps = self.0.iter().rev();
        let begins = steps.clone().map(|step| Some(step.after()));
        let befores = steps.map(|step| (step.before, step.by_ms));
        let spans = begins.chain([None]).zip(befores.map(Some).chain([None]));
        for (begins, step) in spans {
            if noted <= ends && begins.is_none_or(|begins| begins <= noted) {
                said = said.max(Some(set_later(set_by)));
            }
            if let Some((before, by_ms)) = step {
                set_by = set_by.saturating_add(by_ms);
                ends = before;
            }
        }
        said.map_or(noted, |at| at.min(now))
    }

    /// The earliest that the clock has said of what was noted within so many milliseconds.
    #[must_use]
    pub fn earliest_within(&self, ms: u64, now: Timestamp) -> Timestamp {
        let mut set_by = 0_i64;
        let since = now.minus_ms(ms);
        let said = self.0.iter().rev().map(|step| {
            set_by = set_by.saturating_add(step.by_ms);
            Timestamp::from_millis(since.as_millis().saturating_sub(set_by))
        });
        said.min().map_or(since, |earliest| earliest.min(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const KEPT_MS: u64 = 600_000;

    const fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn what_was_noted_after_a_clock_was_set_back_unseen_is_told_as_it_was_noted() {
        let mut steps = ClockSteps::default();
        steps.note(-HOUR_MS, at(10 * HOUR_MS), KEPT_MS);
        // Three hours back while nothing ran.
        let now = at(7 * HOUR_MS);
        assert_eq!(
            steps.told_now(at(7 * HOUR_MS - 9), now),
            at(7 * HOUR_MS - 9)
        );
        assert_eq!(steps.told_now(at(11 * HOUR_MS - 9), now), now);
    }

    #[test]
    fn what_was_noted_before_a_step_is_told_by_the_clock_as_it_is_set_now() {
        let mut steps = ClockSteps::default();
        assert_eq!(steps.told_now(at(5), at(9)), at(5));
        // Ten seconds pass, then it is an hour later, and ten seconds after that two hours earlier.
        steps.note(HOUR_MS, at(10_000 + HOUR_MS), KEPT_MS);
        steps.note(-2 * HOUR_MS, at(20_000 - HOUR_MS), KEPT_MS);
        let now = at(25_000 - HOUR_MS);
        for (noted, really) in [
            (0, 0),
            (9_999, 9_999),
            (10_000 + HOUR_MS, 10_000),
            (15_000 + HOUR_MS, 15_000),
            (20_000 - HOUR_MS, 20_000),
            (24_000 - HOUR_MS, 24_000),
        ] {
            let told = steps.told_now(at(noted), now);
            assert_eq!(told, at(really - HOUR_MS), "{noted}");
        }
        assert_eq!(
            steps.earliest_within(25_000, now),
            at(-HOUR_MS),
            "it said nothing earlier"
        );
        let mut forth = ClockSteps::default();
        forth.note(HOUR_MS, at(HOUR_MS), KEPT_MS);
        assert_eq!(forth.earliest_within(5, at(HOUR_MS + 1)), at(-4));
        assert_eq!(
            forth.told_now(at(HOUR_MS * 9), at(HOUR_MS)),
            at(HOUR_MS * 9),
            "nobody knows"
        );
    }

    #[test]
    fn a_moment_that_the_clock_said_twice_is_taken_for_the_later() {
        let mut steps = ClockSteps::default();
        steps.note(-5_000, at(5_000), KEPT_MS);
        assert_eq!(steps.told_now(at(5_500), at(6_000)), at(5_500));
        assert_eq!(steps.told_now(at(9_000), at(6_000)), at(4_000));
    }

    #[test]
    fn steps_that_are_long_over_are_forgotten_and_there_are_never_many() {
        let minute = 60_000;
        let mut steps = ClockSteps::default();
        steps.note(HOUR_MS, at(HOUR_MS), KEPT_MS);
        steps.note(-HOUR_MS, at(minute), KEPT_MS);
        assert_eq!(steps.0.len(), 2);
        steps.note(HOUR_MS, at(HOUR_MS + 20 * minute), KEPT_MS);
        assert_eq!(steps.0.len(), 1);
        for n in 0..100 {
            steps.note(1_000, at(HOUR_MS + 20 * minute + n * 1_000), KEPT_MS);
        }
        assert_eq!(steps.0.len(), limits::CLOCK_STEPS_KEPT);
        for by_ms in [i64::MIN, i64::MAX] {
            for now in [i64::MIN, 0, i64::MAX] {
                steps.note(by_ms, at(now), KEPT_MS);
                let _ = steps.told_now(at(now), at(0));
                let _ = steps.earliest_within(u64::MAX, at(now));
            }
        }
    }
}
