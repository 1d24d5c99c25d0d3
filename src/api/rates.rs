//! Jobs that client keys hand in within any minute: counted in memory, by the lane's clock; after a restart from the
//! jobs of the last minute. A job counts that is new: whoever takes up one that is there hands nothing in.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onelane_core::model::{ClientKey, JobFilter, KeyId, OverRate, Timestamp, limits};

use crate::error::Error;
use crate::orchestrator::{Orchestrator, Submission};

const MINUTE_MS: u64 = 60_000;

/// When each key handed its jobs in, of the last minute. A key without a bound is not here.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<BTreeMap<KeyId, VecDeque<Timestamp>>>);

impl Rates {
    /// Counts jobs of a key as far as there is room for them. Those beyond are marked: they are taken only if they are
    /// there already.
    pub(super) fn count<'j>(
        self: &Arc<Self>,
        key: Option<&ClientKey>,
        jobs: impl Iterator<Item = &'j mut Submission>,
        now: Timestamp,
    ) -> Taken {
        let bound = key.and_then(|key| Some((key.id, key.rights.requests_per_minute?)));
        let Some((key, allowed)) = bound else {
            let jobs = jobs.count();
            let counted = None;
            return Taken { counted, jobs };
        };
        let most = usize::try_from(allowed).unwrap_or(usize::MAX);
        let mut rates = self.lock();
        let times = latest(&mut rates, key, now);
        let mut taken = 0;
        for (nth, job) in jobs.enumerate() {
            let beyond = (times.len() + nth).checked_sub(most);
            job.over_rate = beyond.map(|nth| {
                // Room is there once so many of the oldest are a minute old.
                let oldest = times.get(nth).copied().unwrap_or(now);
                let wait_ms = oldest.plus_ms(MINUTE_MS).since(now);
                OverRate { allowed, wait_ms }
            });
            taken += usize::from(beyond.is_none());
        }
        times.extend(std::iter::repeat_n(now, taken));
        Taken {
            counted: Some((Arc::clone(self), key, now)),
            jobs: taken,
        }
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

/// Jobs that were counted ahead; what does not become a new one of them counts no more.
#[derive(Debug)]
pub(super) struct Taken {
    counted: Option<(Arc<Rates>, KeyId, Timestamp)>,
    jobs: usize,
}

impl Taken {
    /// How many are counted.
    pub(super) const fn jobs(&self) -> usize {
        self.jobs
    }

    /// So many of them were, and are new.
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

    const NONE: [u64; 0] = [];

    /// Counts so many jobs, of which so many are new; when there is room for each of those that are beyond.
    fn handed_in(
        rates: &Arc<Rates>,
        key: &ClientKey,
        (jobs, new): (usize, usize),
        now: Timestamp,
    ) -> Vec<u64> {
        let mut jobs = vec![Submission::prompt("hi").unwrap(); jobs];
        let mut taken = rates.count(Some(key), jobs.iter_mut(), now);
        taken.used(new.min(taken.jobs()));
        let beyond = jobs.iter().filter_map(|job| job.over_rate);
        beyond.map(|beyond| beyond.wait_s()).collect()
    }

    #[test]
    fn within_any_minute_a_key_hands_in_so_many_jobs_and_is_told_when_to_come_back() {
        let (rates, key) = (Arc::new(Rates::default()), key(Some(3)));
        let waits = |jobs, ms| handed_in(&rates, &key, (jobs, jobs), at(ms));
        assert_eq!(waits(2, 0), NONE);
        assert_eq!(waits(1, 20_000), NONE);
        assert_eq!(waits(1, 30_500), [30]);
        assert_eq!(waits(4, 30_500), [30, 30, 50, 60]);
        assert_eq!(waits(1, 59_999), [1]);
        assert_eq!(waits(2, 60_000), NONE, "the first two are a minute old");
        assert_eq!(waits(1, 60_000), [20]);
        assert_eq!(waits(4, 200_000), [60], "as many as may are taken");
    }

    #[test]
    fn a_job_that_was_there_already_takes_no_place_in_the_minute() {
        let (rates, key) = (Arc::new(Rates::default()), key(Some(2)));
        let waits = |jobs, new, ms| handed_in(&rates, &key, (jobs, new), at(ms));
        for ms in 0..100 {
            assert_eq!(waits(2, 0, ms), NONE);
        }
        assert_eq!(waits(2, 1, 100), NONE);
        assert_eq!(waits(1, 1, 101), NONE);
        assert_eq!(waits(1, 1, 102), [60]);
    }

    #[test]
    fn lines_of_a_file_leave_half_of_the_minute_and_what_was_not_handed_in_counts_no_more() {
        let (rates, key) = (Arc::new(Rates::default()), key(Some(4)));
        let mut taken = rates.take(Some(&key), 10, at(0));
        assert_eq!(taken.jobs(), 2);
        taken.used(1);
        drop(taken);
        assert_eq!(rates.take(Some(&key), 10, at(1)).jobs(), 1);
        assert_eq!(handed_in(&rates, &key, (3, 3), at(2)), NONE);
        assert_eq!(rates.take(Some(&key), 1, at(3)).jobs(), 0);
        assert_eq!(handed_in(&rates, &key, (1, 1), at(4)), [60]);
        let mut later = rates.take(Some(&key), 10, at(60_001));
        assert_eq!(later.jobs(), 0, "three came within the minute");
        drop(later);
        later = rates.take(Some(&key), 10, at(60_002));
        assert_eq!(later.jobs(), 2);
        assert_eq!(rates.take(None, 256, at(60_002)).jobs(), 256);
    }

    #[test]
    fn a_key_without_a_bound_is_not_counted_and_a_clock_set_back_shuts_nobody_out() {
        let rates = Arc::new(Rates::default());
        for _ in 0..1_000 {
            assert_eq!(handed_in(&rates, &key(None), (100, 100), at(0)), NONE);
        }
        assert!(rates.0.lock().unwrap().is_empty());
        let key = key(Some(1));
        assert_eq!(handed_in(&rates, &key, (1, 1), at(500_000)), NONE);
        assert_eq!(handed_in(&rates, &key, (1, 1), at(0)), [60]);
        assert_eq!(handed_in(&rates, &key, (1, 1), at(60_000)), NONE);
    }
}
