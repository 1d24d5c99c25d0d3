//! Whether the wall clock is believed, for all who throw away what is old.

use std::sync::{Arc, Mutex, PoisonError};

use onelane_core::model::{ClockSteps, Timestamp, limits};
use onelane_core::retention::trust::ClockTrust;
use onelane_core::scheduler::steady::Steady;
use tokio::time::Instant;

use crate::ports::Clock;

/// The clock with what is known of it. Everybody who asks looks at it, and what one has seen counts for the others.
pub(crate) struct Trust {
    clock: Arc<dyn Clock>,
    begun: Instant,
    known: Mutex<Known>,
}

/// For so long it is remembered that the clock was set, in milliseconds: as long as anything waits to be thrown away.
const STEPS_KEPT_MS: u64 = 30 * limits::DAY_MS;

/// What is known of the clock.
struct Known {
    trust: ClockTrust,
    steady: Steady,
    steps: ClockSteps,
}

impl Trust {
    /// At a start. `stored`: what the store knows.
    pub(crate) fn new(clock: Arc<dyn Clock>, stored: Option<Timestamp>) -> Self {
        let known = Known {
            trust: ClockTrust::new(stored, clock.now()),
            steady: Steady::default(),
            steps: ClockSteps::default(),
        };
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
        let set_by = known.steady.hear(now, uptime);
        if set_by.unsigned_abs() >= limits::CLOCK_STEP_NOTED_MS {
            known.steps.note(set_by, now, STEPS_KEPT_MS);
        }
        known.trust.look(now, uptime).map_or(Ok(now), Err)
    }

    /// How long ago it is that the clock said this, in milliseconds, as far as this process saw it set since; `None`: it
    /// is not believed.
    pub(crate) fn age_ms(&self, noted: Timestamp) -> Option<u64> {
        self.look().ok()?;
        Some(self.passed_ms(noted))
    }

    /// The same, believed or not.
    pub(crate) fn passed_ms(&self, noted: Timestamp) -> u64 {
        let _ = self.look();
        let now = self.clock.now();
        now.since(self.known().steps.told_now(noted, now))
    }

    /// The moment before which everything is older than so many milliseconds; by a clock that is not believed nothing is.
    pub(crate) fn before(&self, ms: u64) -> Timestamp {
        const NEVER: Timestamp = Timestamp::from_millis(i64::MIN);
        let now = self.look();
        let before = |now| self.known().steps.earliest_within(ms, now);
        now.map_or(NEVER, before)
    }

    /// Whether nothing is thrown away for now.
    pub(crate) fn is_doubted(&self) -> bool {
        self.look().is_err()
    }

    /// The moment of belief that the store is to be told of, if any.
    pub(crate) fn to_store(&self) -> Option<Timestamp> {
        let now = self.look().ok()?;
        self.known().trust.to_store(now)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
