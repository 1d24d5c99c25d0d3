//! The tokens that the simulator answered, by day, account and model, and the planted differences.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use onelane_core::model::{Calendar, Day, Timestamp, model_name};

use super::account::Planted;
use super::tasks::Account;

/// Days and models that are counted; beyond them the oldest are forgotten.
const COUNTED_MAX: usize = 10_000;

/// What was counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) calls: i64,
    pub(crate) tokens: i64,
}

impl Count {
    const fn add(&mut self, calls: i64, tokens: i64) {
        self.calls = self.calls.saturating_add(calls);
        self.tokens = self.tokens.saturating_add(tokens);
    }
}

/// What was answered, by day of UTC+8, account and model.
#[derive(Debug, Default)]
pub(crate) struct Meters(Mutex<BTreeMap<(Day, u64, String), Count>>);

impl Meters {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<(Day, u64, String), Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An account is charged for an answer.
    pub(crate) fn count(&self, account: Account, model: &str, tokens: u64, now: Timestamp) {
        let mut counts = self.counts();
        let place = (Calendar::beijing().day(now), account.0, canonical(model));
        let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
        counts.entry(place).or_default().add(1, tokens);
        while counts.len() > COUNTED_MAX {
            counts.pop_first();
        }
    }

    /// By model, on the days asked for.
    pub(crate) fn of(
        &self,
        account: Account,
        [first, last]: [Day; 2],
        planted: &[Planted],
        today: Day,
    ) -> BTreeMap<String, Count> {
        let mut sums: BTreeMap<String, Count> = BTreeMap::new();
        for ((day, of, model), count) in self.counts().iter() {
            if (first..=last).contains(day) && *of == account.0 {
                let sum = sums.entry(model.clone()).or_default();
                sum.add(count.calls, count.tokens);
            }
        }
        for one in planted {
            let day = one.day.as_deref().and_then(Day::parse).unwrap_or(today);
            if (first..=last).contains(&day) {
                let sum = sums.entry(canonical(&one.model)).or_default();
                sum.add(one.calls, one.tokens);
            }
        }
        sums.retain(|_, sum| sum.calls > 0 || sum.tokens > 0);
        sums
    }
}

fn canonical(model: &str) -> String {
    model_name::canonical(model).into_owned()
}
