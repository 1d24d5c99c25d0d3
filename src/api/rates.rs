//! Jobs that client keys hand in within any minute: counted in memory, by the lane's clock; after a restart from the
//! jobs of the last minute.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onelane_core::model::{ClientKey, JobFilter, KeyId, Timestamp, limits};

use super::problem::{Kind, Problem};
use crate::error::Error;
use crate::orchestrator::Orchestrator;

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
        let mut rates = self.lock();
        let times = latest(&mut rates, key.id, now);
        // Room is there once so many of the oldest are a minute old.
        let missing = (times.len() + jobs).saturating_sub(most);
        if let Some(last) = missing.checked_sub(1).and_then(|n| times.get(n)) {
            let wait_ms = last.plus_ms(MINUTE_MS).since(now);
            return Err(Problem::rate_limited(allowed, wait_ms));
        }
        times.extend(std::iter::repeat_n(now, jobs));
        Ok(())
    }

    /// Counts the jobs of the last minute that the store has.
    pub(super) async fn restore(&self, lane: &Orchestrator, now: Timestamp) -> Result<(), Error> {
        let keys = lane.client_keys();
        let bound = |key: KeyId| {
            let key = keys.get(key);
            key.is_some_and(|key| key.rights.requests_per_minute.is_some())
        };
        if !keys.iter().any(|key| bound(key.id)) {
            return Ok(());
        }
        let (mut cursor, mut found) = (None, Vec::new());
        loop {
            // Newest first.
            let page = lane.jobs(JobFilter::default(), cursor, limits::PAGE_ROWS_MAX);
            let page = page.await?;
            let handed_in = page.jobs.iter().map(|record| &record.job);
            let mut is_old = false;
            for job in handed_in {
                is_old |= job.created_at.plus_ms(MINUTE_MS) <= now;
                found.extend(
                    job.key_id
                        .filter(|key| !is_old && bound(*key))
                        .map(|key| (job.created_at, key)),
                );
            }
            cursor = page.cursor;
            if is_old || cursor.is_none() {
                break;
            }
        }
        let mut rates = self.lock();
        for (at, key) in found.into_iter().rev() {
            rates.entry(key).or_default().push_back(at);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<KeyId, VecDeque<Timestamp>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts as many of these lines of a file as there is room for. They leave half of the minute to what else the key
    /// hands in: a long file must not shut out everything beside it.
    pub(super) fn take(
        self: &Arc<Self>,
        key: Option<&ClientKey>,
        lines: usize,
        now: Timestamp,
    ) -> Taken {
        let bound = key.and_then(|key| Some((key.id, key.rights.requests_per_minute?)));
        let mut jobs = lines;
        if let Some((key, allowed)) = bound {
            let most = usize::try_from(allowed.div_ceil(2)).unwrap_or(usize::MAX);
            let mut rates = self.lock();
            let times = latest(&mut rates, key, now);
            jobs = lines.min(most.saturating_sub(times.len()));
            times.extend(std::iter::repeat_n(now, jobs));
        }
        let counted = bound.map(|(key, _)| (Arc::clone(self), key, now));
        Taken { counted, jobs }
    }
}

/// The moments of a key within the minute before `now`.
fn latest(
    rates: &mut BTreeMap<KeyId, VecDeque<Timestamp>>,
    key: KeyId,
    now: Timestamp,
) -> &mut VecDeque<Timestamp> {
    let times = rates.entry(key).or_default();
    // The clock was set back: what came later than now came now.
    for later in times.iter_mut().rev().take_while(|at| **at > now) {
        *later = now;
    }
    while times.front().is_some_and(|at| at.plus_ms(MINUTE_MS) <= now) {
        times.pop_front();
    }
    times
}

/// Jobs that were counted ahead; what is not handed in of them counts no more.
#[derive(Debug)]
pub(super) struct Taken {
    counted: Option<(Arc<Rates>, KeyId, Timestamp)>,
    jobs: usize,
}

impl Taken {
    /// How many may be handed in.
    pub(super) const fn jobs(&self) -> usize {
        self.jobs
    }

    /// So many of them were.
    pub(super) const fn used(&mut self, jobs: usize) {
        self.jobs = self.jobs.saturating_sub(jobs);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some((rates, key, at)) = self.counted.take() else {
            return;
        };
        let mut rates = rates.lock();
        let Some(times) = rates.get_mut(&key) else {
            return;
        };
        for _ in 0..self.jobs {
            let own = times.iter().rposition(|time| *time == at);
            times.remove(own.unwrap_or(times.len().saturating_sub(1)));
        }
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
    fn lines_of_a_file_leave_half_of_the_minute_and_what_was_not_handed_in_counts_no_more() {
        let (rates, key) = (Arc::new(Rates::default()), key(Some(4)));
        let mut taken = rates.take(Some(&key), 10, at(0));
        assert_eq!(taken.jobs(), 2);
        taken.used(1);
        drop(taken);
        assert_eq!(rates.take(Some(&key), 10, at(1)).jobs(), 1);
        rates.count(&key, 3, at(2)).unwrap();
        assert_eq!(rates.take(Some(&key), 1, at(3)).jobs(), 0);
        assert!(rates.count(&key, 1, at(4)).is_err());
        let mut later = rates.take(Some(&key), 10, at(60_001));
        assert_eq!(later.jobs(), 0, "three came within the minute");
        drop(later);
        later = rates.take(Some(&key), 10, at(60_002));
        assert_eq!(later.jobs(), 2);
        assert_eq!(rates.take(None, 256, at(60_002)).jobs(), 256);
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
