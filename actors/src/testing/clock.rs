//! A clock and ids that a test owns: time is tokio's, so a paused runtime makes it virtual.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::ports::{Clock, Ids};
use onelane_core::model::{JobId, Timestamp};
use onelane_core::random::SplitMix64;

/// The wall clock of a test: starts where the test says and goes on with tokio's time.
#[derive(Debug, Clone, Copy)]
pub struct SimClock {
    start: Timestamp,
    begun: Instant,
}

impl SimClock {
    /// A clock that shows `start` now. Needs a tokio runtime.
    #[must_use]
    pub fn starting_at(start: Timestamp) -> Self {
        Self {
            start,
            begun: Instant::now(),
        }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let ms = self.begun.elapsed().as_millis();
        self.start.plus_ms(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

/// Ids and seeds that are the same for the same seed.
#[derive(Debug)]
pub struct SeededIds {
    seed: u64,
    next: AtomicU64,
}

impl SeededIds {
    /// Ids of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            next: AtomicU64::new(1),
        }
    }

    fn draw(&self) -> u64 {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        SplitMix64::new(self.seed.wrapping_add(n)).draw()
    }
}

impl Ids for SeededIds {
    fn job_id(&self, now: Timestamp) -> JobId {
        let ms = u64::try_from(now.as_millis()).unwrap_or(0);
        let mut random = [0; 10];
        for (to, from) in random
            .iter_mut()
            .zip(self.next.load(Ordering::Relaxed).to_be_bytes())
        {
            *to = from;
        }
        self.draw();
        JobId::from_uuid(uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid())
    }

    fn seed(&self) -> u64 {
        self.draw()
    }
}
