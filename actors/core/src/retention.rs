//! Retention: which rows go, decided once for all stores. A pruning is cut into small changes, so that the
//! lane's own transactions never wait long for one.
//!
//! Whatever the settings say, these stay: jobs that wait or run, jobs that others wait for, jobs of which
//! a webhook is still to be told (with request and response), attempts of which nobody knows yet whether
//! they were billed, with their jobs, and the usage aggregates. A row that can't be read stays, too, and
//! is passed over: one damaged row must not keep all others.

mod step;
pub mod trust;

use crate::model::{Cutoff, FinishedKind, Prune, PruneCursor, Retention, Timestamp, limits};

pub(crate) use step::prune;
pub use step::{Look, look};

const DAY_MS: u64 = 86_400_000;

impl Prune {
    /// The first step of what retention asks for now; `None` when all is kept for ever.
    #[must_use]
    pub fn of(retention: &Retention, now: Timestamp) -> Option<Self> {
        if *retention == Retention::default() {
            return None;
        }
        let before = |days: u32| (days > 0).then(|| now.minus_ms(u64::from(days) * DAY_MS));
        let cut = |days, most: u64| Cutoff {
            before: before(days),
            most: (most > 0).then_some(most),
            settled: now.minus_ms(limits::PRUNE_SPARES_MS),
            now,
        };
        Some(Self {
            calls: cut(retention.calls_days, retention.calls_max),
            jobs: cut(retention.jobs_days, retention.jobs_max),
            failed: cut(retention.failed_days, retention.failed_max),
            bodies_before: before(retention.bodies_days),
            rows_max: limits::PRUNE_ROWS_MAX,
            bytes_max: limits::PRUNE_BYTES_MAX,
            from: PruneCursor::default(),
        })
    }

    /// The step after one that only looked: what would be gone by then is not counted again.
    #[must_use]
    pub fn after_look(mut self, looked: &Look, next: PruneCursor) -> Self {
        let raise = |cut: &mut Cutoff, rows: u64| {
            cut.most = cut.most.map(|most| most.saturating_add(rows));
        };
        let count = |kind| looked.jobs.iter().filter(|(on, _)| *on == kind).count() as u64;
        raise(&mut self.jobs, count(FinishedKind::Done));
        raise(&mut self.failed, count(FinishedKind::Failed));
        raise(&mut self.calls, looked.calls);
        self.from = next;
        self
    }
}

impl Cutoff {
    /// What is to go of so many rows, which are then asked for one by one, oldest first.
    fn of(self, rows: u64, from: PruneCursor) -> Excess {
        let rows = rows.saturating_sub(from.stays);
        let too_many = self.most.map_or(0, |most| rows.saturating_sub(most));
        Excess {
            cut: self,
            too_many,
        }
    }
}

/// What is still to go of rows of a kind.
#[derive(Clone, Copy)]
struct Excess {
    cut: Cutoff,
    too_many: u64,
}

impl Excess {
    /// Whether a row that ended at this moment is to go.
    fn takes(&self, ended: Timestamp) -> bool {
        let too_old = self.cut.before.is_some_and(|before| ended < before);
        too_old || (self.too_many > 0 && !self.is_spared(ended))
    }

    /// A row is gone, or is none that can go.
    const fn note(&mut self) {
        self.too_many = self.too_many.saturating_sub(1);
    }

    /// Whether no row is to go, however old.
    const fn is_nothing(&self) -> bool {
        self.cut.before.is_none() && self.too_many == 0
    }

    /// Whether a row ended too short a time ago to be counted out.
    fn is_spared(&self, ended: Timestamp) -> bool {
        (self.cut.settled..=self.cut.now).contains(&ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(100 * 86_400_000);

    fn prune(retention: Retention) -> Prune {
        Prune::of(&retention, NOW).unwrap()
    }

    #[test]
    fn without_retention_nothing_goes() {
        assert_eq!(Prune::of(&Retention::default(), NOW), None);
    }

    #[test]
    fn rows_go_by_age() {
        let cut = prune(Retention {
            calls_days: 2,
            ..Retention::default()
        });
        assert_eq!(cut.jobs.before, None);
        assert_eq!(cut.bodies_before, None);
        let excess = cut.calls.of(10, PruneCursor::default());
        let edge = NOW.minus_ms(2 * DAY_MS);
        assert!(excess.takes(edge.minus_ms(1)));
        assert!(!excess.takes(edge));
    }

    #[test]
    fn rows_go_by_number_but_none_that_just_ended() {
        let cut = prune(Retention {
            jobs_max: 3,
            ..Retention::default()
        });
        let mut excess = cut.jobs.of(5, PruneCursor::default());
        let spared = NOW.minus_ms(limits::PRUNE_SPARES_MS);
        assert!(!excess.takes(spared));
        assert!(!excess.takes(NOW));
        for _ in 0..2 {
            assert!(excess.takes(spared.minus_ms(1)));
            excess.note();
        }
        assert!(!excess.takes(spared.minus_ms(1)), "three are left");
        assert!(
            !cut.jobs
                .of(3, PruneCursor::default())
                .takes(Timestamp::default())
        );
    }

    #[test]
    fn what_ended_by_a_clock_that_was_ahead_counts_like_what_is_old() {
        let cut = prune(Retention {
            calls_max: 3,
            ..Retention::default()
        });
        assert!(
            cut.calls
                .of(4, PruneCursor::default())
                .takes(NOW.plus_ms(1))
        );
        assert!(
            !cut.calls
                .of(3, PruneCursor::default())
                .takes(NOW.plus_ms(1))
        );
    }
}
