//! The machine's own clock and ids: the only place where the program reads the wall clock or draws
//! randomness, so that everything else can be tested without either.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use onelane_actors::ports::{Clock, Ids};
use onelane_core::model::{JobId, Timestamp};
use onelane_core::random::Seeds;
use uuid::{ContextV7, Uuid};

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the adapter behind the Clock port"
    )]
    fn now(&self) -> Timestamp {
        // A clock set before 1970 reads as 1970: the lane only ever compares moments.
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Job ids that rise in the order they are made, within one millisecond too, and seeds from the
/// system's randomness.
#[derive(Debug)]
pub struct SystemIds {
    order: Mutex<ContextV7>,
    seeds: Seeds,
}

impl SystemIds {
    /// Ids that no other instance makes.
    #[must_use]
    pub fn new() -> Self {
        Self {
            order: Mutex::new(ContextV7::new()),
            // The keys of a RandomState come from the system's randomness.
            seeds: Seeds::new(RandomState::new().build_hasher().finish()),
        }
    }
}

impl Default for SystemIds {
    fn default() -> Self {
        Self::new()
    }
}

impl Ids for SystemIds {
    fn job_id(&self, now: Timestamp) -> JobId {
        let ms = u64::try_from(now.as_millis()).unwrap_or(0);
        let nanos = u32::try_from(ms % 1_000 * 1_000_000).unwrap_or(0);
        // The context is a counter: a panic elsewhere can't leave it half changed.
        let order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let at = uuid::Timestamp::from_unix(&*order, ms / 1_000, nanos);
        JobId::from_uuid(Uuid::new_v7(at))
    }

    fn seed(&self) -> u64 {
        self.seeds.draw()
    }

    fn secret(&self) -> Option<[u8; 32]> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).ok()?;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_clock_tells_this_century() {
        let now = SystemClock.now();
        assert!(now > Timestamp::parse_rfc3339("2024-01-01T00:00:00Z").unwrap());
        assert!(now < Timestamp::parse_rfc3339("2124-01-01T00:00:00Z").unwrap());
    }

    #[test]
    fn job_ids_are_version_7_and_rise_within_a_millisecond() {
        let ids = SystemIds::new();
        let now = Timestamp::parse_rfc3339("2026-11-23T08:00:00.123Z").unwrap();
        let made: Vec<JobId> = (0..10_000).map(|_| ids.job_id(now)).collect();
        assert!(made.is_sorted());
        assert_eq!(made.iter().collect::<BTreeSet<_>>().len(), made.len());
        let uuid: Uuid = made[0].to_string().parse().unwrap();
        assert_eq!(uuid.get_version_num(), 7);
        let (secs, nanos) = uuid.get_timestamp().unwrap().to_unix();
        assert_eq!(
            secs * 1_000 + u64::from(nanos / 1_000_000),
            1_795_420_800_123
        );
    }

    #[test]
    fn secrets_differ_and_are_not_blank() {
        let ids = SystemIds::new();
        let made: BTreeSet<_> = (0..1_000).map(|_| ids.secret().unwrap()).collect();
        assert_eq!(made.len(), 1_000);
        assert!(made.iter().all(|bytes| bytes.iter().any(|b| *b != 0)));
    }

    #[test]
    fn seeds_differ_within_and_between_instances() {
        let (a, b) = (SystemIds::new(), SystemIds::new());
        let seeds: BTreeSet<u64> = (0..1_000).flat_map(|_| [a.seed(), b.seed()]).collect();
        assert_eq!(seeds.len(), 2_000);
    }
}
