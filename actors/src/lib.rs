//! The lane itself: nouns, decisions and actors, without any I/O.
//!
//! | module | what it is |
//! |---|---|
//! | [`model`] | the nouns: job, attempt, failure, money, settings, limits |
//! | [`policy`] | the decisions, pure: transitions, order, slots, retry, breaker, holds, prices |
//! | [`ports`] | what the lane needs from the world: a store, GLM, a clock, ids |
//! | [`supervisor`] | starts the actors and starts them anew |
//! | [`store`] | the only writer; group commit |
//! | [`queue`] | carries messages to and from the lane |
//! | [`caller`] | makes one call at a time |
//! | [`breaker`], [`cost`] | failures and spending |
//!
//! The way of a job: submitter -> store (on disk, acknowledged) -> queue (in line) -> staged on
//! disk -> caller -> GLM -> queue (judged) -> store (one transaction) -> waiters and events.

pub mod breaker;
pub mod caller;
pub mod cost;
pub mod model;
pub mod policy;
pub mod ports;
pub mod queue;
pub mod store;
pub mod supervisor;
mod telling;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::fmt;
use std::sync::Arc;

use tokio::sync::{broadcast, watch};

use model::{Event, Settings, Timestamp};
use ports::{Clock, Glm, Ids, Store};

/// Live events for whoever listens. A slow listener is told how many it missed.
#[derive(Debug, Clone)]
pub struct Events(broadcast::Sender<(Timestamp, Arc<Event>)>);

impl Events {
    /// A channel that keeps `buffered` events for slow listeners.
    #[must_use]
    pub fn new(buffered: usize) -> Self {
        Self(broadcast::Sender::new(buffered))
    }

    /// Sends an event; with nobody listening it is not even made.
    pub fn send(&self, at: Timestamp, event: impl FnOnce() -> Event) {
        if self.0.receiver_count() > 0 {
            // Fails only if the last listener left just now.
            let _ = self.0.send((at, Arc::new(event())));
        }
    }

    /// Listens from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<(Timestamp, Arc<Event>)> {
        self.0.subscribe()
    }
}

/// Where a test makes an actor fail: called with the actor's name whenever it takes a message.
pub type FaultHook = dyn Fn(&'static str) + Send + Sync;

/// The places where tests make actors panic. Without a hook it costs one branch.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<FaultHook>>);

impl Faults {
    /// Calls `hook` with the actor's name at every message; the hook may panic.
    #[must_use]
    pub fn new(hook: Arc<FaultHook>) -> Self {
        Self(Some(hook))
    }

    pub(crate) fn point(&self, actor: &'static str) {
        if let Some(hook) = &self.0 {
            hook(actor);
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Faults").field(&self.0.is_some()).finish()
    }
}

/// The world outside, as the actors see it.
#[derive(Clone)]
pub struct Ports {
    /// The durable truth.
    pub store: Arc<dyn Store>,
    /// GLM.
    pub glm: Arc<dyn Glm>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Ids and seeds.
    pub ids: Arc<dyn Ids>,
    /// The settings in force.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// Live events.
    pub events: Events,
    /// Faults that tests inject.
    pub faults: Faults,
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}
