//! Whether the wall clock is believed, for all who throw away what is old.

use std::sync::{Arc, Mutex, PoisonError};

use onelane_core::model::Timestamp;
use onelane_core::retention::trust::ClockTrust;
use tokio::time::Instant;

use crate::ports::Clock;

/// The clock with what is known of it. Everybody who asks looks at it, and what one has seen counts for the others.
pub(crate) struct Trust {
    clock: Arc<dyn Clock>,
    begun: Instant,
    known: Mutex<ClockTrust>,
}

impl Trust {
    /// At a start. `stored`: what the store knows.
    pub(crate) fn new(clock: Arc<dyn Clock>, stored: Option<Timestamp>) -> Self {
        let known = ClockTrust::new(stored, clock.now());
        Self {
            clock,
            begun: Instant::now(),
            known: Mutex::new(known),
        }
    }

    /// What the clock says, if it is believed; else in how many milliseconds to look again.
    pub(crate) fn look(&self) -> Result<Timestamp, u64> {
        let uptime = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut known = self.known();
        let now = self.clock.now();
        known.look(now, uptime).map_or(Ok(now), Err)
    }

    /// Whether nothing is thrown away for now.
    pub(crate) fn is_doubted(&self) -> bool {
        self.look().is_err()
    }

    /// The moment of belief that the store is to be told of, if any.
    pub(crate) fn to_store(&self) -> Option<Timestamp> {
        let now = self.look().ok()?;
        self.known().to_store(now)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, ClockTrust> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
