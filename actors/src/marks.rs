//! Moments of an open call that its transport alone sees.

use std::sync::OnceLock;

use tokio::time::Instant;

use onelane_core::model::Parts;

/// What a transport notes of a call while it is open. Each moment is noted once: the first counts.
#[derive(Debug, Default)]
pub struct Marks {
    connected: OnceLock<Instant>,
    answered: OnceLock<Instant>,
}

impl Marks {
    /// A connection made for the call stood at that moment.
    pub fn connected(&self, at: Instant) {
        let _ = self.connected.set(at);
    }

    /// The headers of an answer were there at that moment.
    pub fn answered(&self, at: Instant) {
        let _ = self.answered.set(at);
    }

    /// What they tell of a call that began then.
    #[must_use]
    pub(crate) fn parts(&self, begun: Instant) -> Parts {
        let since = |at: &OnceLock<Instant>| at.get().map(|at| millis(begun, *at));
        Parts {
            connect_ms: since(&self.connected),
            first_byte_ms: since(&self.answered),
            ..Parts::default()
        }
    }
}

/// Whole milliseconds from one moment to another.
pub(crate) fn millis(from: Instant, to: Instant) -> u64 {
    let length = to.saturating_duration_since(from);
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
