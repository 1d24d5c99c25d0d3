//! Jobs that client keys hand in within any minute: counted in memory, by the lane's clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use onelane_core::model::{ClientKey, KeyId, Timestamp};

use super::problem::{Kind, Problem};

const MINUTE_MS: u64 = 60_000;

/// When each key handed its jobs in, of the last minute. A key without a bound is not here.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<BTreeMap<KeyId, VecDeque<Timestamp>>>);

impl Rates {
    /// Counts so many jobs of a key, or says when there is room for them.
    pub(super) fn count(
        &self,
        key: &ClientKey,
        jobs: usize,
        now: Timestamp,
    ) -> Result<(), Problem> {
        let Some(allowed) = key.rights.requests_per_minute else {
            return Ok(());
        };
        let most = usize::try_from(allowed).unwrap_or(usize::MAX);
        if jobs > most {
            let problem = format!(
                "the list has {jobs} jobs, and this key may hand in {allowed} a minute; send fewer at once"
            );
            return Err(Problem::new(Kind::BeyondRights, problem));
        }
        let mut rates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = rates.entry(key.id).or_default();
        // The clock was set back: what came later than now came now.
        for later in times.iter_mut().rev().take_while(|at| **at > now) {
            *later = now;
        }
        while times.front().is_some_and(|at| at.plus_ms(MINUTE_MS) <= now) {
            times.pop_front();
        }
        // Room is there once so many of the oldest are a minute old.
        let missing = (times.len() + jobs).saturating_sub(most);
        if let Some(last) = missing.checked_sub(1).and_then(|n| times.get(n)) {
            let wait_ms = last.plus_ms(MINUTE_MS).since(now);
            return Err(Problem::rate_limited(allowed, wait_ms));
        }
        times.extend(std::iter::repeat_n(now, jobs));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use onelane_core::model::{KeyForm, KeySecret};

    use super::*;

    fn key(allowed: Option<u32>) -> ClientKey {
        let id = KeyId::new(1);
        let (secret, _) = KeySecret::make(id, &[1; 32], KeyForm::Plain);
        let mut key = ClientKey::new(id, "k", secret, Timestamp::default());
        key.rights.requests_per_minute = allowed;
        key
    }

    const fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + ms)
    }

    #[test]
    fn within_any_minute_a_key_hands_in_so_many_jobs_and_is_told_when_to_come_back() {
        let (rates, key) = (Rates::default(), key(Some(3)));
        let retry_after = |jobs, ms| {
            let problem = rates.count(&key, jobs, at(ms)).err()?;
            assert_eq!(problem.kind(), Kind::RateLimited);
            problem.retry_after()
        };
        assert_eq!(retry_after(2, 0), None);
        assert_eq!(retry_after(1, 20_000), None);
        assert_eq!(retry_after(1, 30_500).as_deref(), Some("30"));
        assert_eq!(retry_after(3, 30_500).as_deref(), Some("50"));
        assert_eq!(retry_after(1, 59_999).as_deref(), Some("1"));
        assert_eq!(
            retry_after(2, 60_000),
            None,
            "the first two are a minute old"
        );
        assert_eq!(retry_after(1, 60_000).as_deref(), Some("20"));
        let refused = rates.count(&key, 4, at(200_000)).unwrap_err();
        assert_eq!(refused.kind(), Kind::BeyondRights, "so many never fit");
    }

    #[test]
    fn a_key_without_a_bound_is_not_counted_and_a_clock_set_back_shuts_nobody_out() {
        let rates = Rates::default();
        for _ in 0..1_000 {
            rates.count(&key(None), 100, at(0)).unwrap();
        }
        assert!(rates.0.lock().unwrap().is_empty());
        let key = key(Some(1));
        rates.count(&key, 1, at(500_000)).unwrap();
        assert!(rates.count(&key, 1, at(0)).is_err());
        rates.count(&key, 1, at(60_000)).unwrap();
    }
}
