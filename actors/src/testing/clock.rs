//! A clock and ids that a test owns: time is tokio's, so a paused runtime makes it virtual.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tokio::time::Instant;

use crate::ports::{Clock, Ids};
use onelane_core::model::{JobId, Timestamp};
use onelane_core::random::SplitMix64;

/// The wall clock of a test: starts where the test says and goes on with tokio's time, until the test sets it. Clones
/// are the same clock.
#[derive(Debug, Clone)]
pub struct SimClock {
    start: Timestamp,
    begun: Instant,
    /// By how much it was set, forth and back, in milliseconds.
    set_by: Arc<AtomicI64>,
}

impl SimClock {
    /// A clock that shows `start` now. Needs a tokio runtime.
    #[must_use]
    pub fn starting_at(start: Timestamp) -> Self {
        Self {
            start,
            begun: Instant::now(),
            set_by: Arc::default(),
        }
    }

    /// Sets it forth, or back, by so many milliseconds; uptime goes on as it did.
    pub fn step(&self, ms: i64) {
        self.set_by.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let ms = self.begun.elapsed().as_millis();
        let on = self.start.plus_ms(u64::try_from(ms).unwrap_or(u64::MAX));
        let set_by = self.set_by.load(Ordering::Relaxed);
        Timestamp::from_millis(on.as_millis().saturating_add(set_by))
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

    fn secret(&self) -> Option<[u8; 32]> {
        let mut bytes = [0; 32];
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.draw().to_be_bytes());
        }
        Some(bytes)
    }
}
