//! The lane itself: nouns, decisions and actors, without any I/O.
//!
//! | module | content |
//! |---|---|
//! | [`ports`] | what the lane needs from the world: a store, GLM, a clock, ids |
//! | [`protocol`] | what the actors say to each other |
//! | [`supervisor`] | starts the actors and starts them anew |
//! | [`runtime`] | the actors of one generation, on a watch |
//! | `store` | the only writer; group commit |
//! | `queue` | carries messages to and from the lane |
//! | `caller` | makes one call at a time |
//! | `breaker`, [`cost`] | failures and spending |
//! | [`meters`] | what the lane counts, for metrics systems |
//! | [`relay`] | the pieces of streamed answers, past the mailboxes |
//! | [`samples`] | how far estimates are off |
//!
//! The way of a job: submitter -> store (on disk, acknowledged) -> queue -> staged on
//! disk -> caller -> GLM -> queue (judged) -> store (one transaction) -> waiters and events.

mod aborts;
mod breaker;
mod call;
mod caller;
mod calls_out;
pub mod conversations;
pub mod cost;
pub mod marks;
pub mod meters;
mod next_up;
pub mod ports;
pub mod protocol;
mod publisher;
mod queue;
mod ready_call;
pub mod relay;
pub mod runtime;
pub mod samples;
mod store;
pub mod supervisor;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod timer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

use conversations::Conversations;
use meters::Meters;
use onelane_core::model::{Event, KeyId, Settings, Timestamp};
use onelane_core::money::estimate::CountTokens;
use ports::{Clock, Glm, Ids, Store};
use relay::Relays;

/// Live events for subscribers. A slow subscriber hears how many it missed.
#[derive(Debug, Clone)]
pub struct Events(broadcast::Sender<Heard>);

/// An event as its listeners hear it.
#[derive(Debug, Clone)]
pub struct Heard {
    /// When it happened.
    pub at: Timestamp,
    /// The client key whose job it is about; `None`: nobody's, or an operator's.
    pub key: Option<KeyId>,
    /// What happened.
    pub event: Arc<Event>,
}

impl Events {
    /// A channel that keeps `buffered` events for slow listeners.
    #[must_use]
    pub fn new(buffered: usize) -> Self {
        Self(broadcast::Sender::new(buffered))
    }

    /// Sends an event; without a subscriber it is not even made.
    pub fn send(&self, at: Timestamp, event: impl FnOnce() -> Event) {
        self.send_of(None, at, event);
    }

    /// Sends an event about a job of this client key, or of none.
    pub fn send_of(&self, key: Option<KeyId>, at: Timestamp, event: impl FnOnce() -> Event) {
        if self.0.receiver_count() > 0 {
            let event = Arc::new(event());
            // Fails only if the last listener left just now.
            let _ = self.0.send(Heard { at, key, event });
        }
    }

    /// Listens from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Heard> {
        self.0.subscribe()
    }
}

/// Where a test makes an actor fail: called with the actor's name whenever it takes a message.
pub type FaultHook = dyn Fn(&'static str) + Send + Sync;

/// How long the store's blocking work takes, where a test owns time: asked for every piece of it.
pub type DiskTime = dyn Fn() -> Duration + Send + Sync;

/// The places where tests make actors panic and disks slow. Without a hook each costs one branch.
#[derive(Clone, Default)]
pub struct FaultPoints {
    hook: Option<Arc<FaultHook>>,
    disk: Option<Arc<DiskTime>>,
}

impl FaultPoints {
    /// Calls `hook` with the actor's name at every message; the hook may panic.
    #[must_use]
    pub fn new(hook: Arc<FaultHook>) -> Self {
        Self {
            hook: Some(hook),
            disk: None,
        }
    }

    /// The store's blocking work runs as tasks that sleep first, instead of on threads of its own: on a
    /// runtime of one thread and virtual time everything then happens in one order, and what happens
    /// while a transaction is under way is seen.
    #[must_use]
    pub fn with_disk_time(mut self, time: Arc<DiskTime>) -> Self {
        self.disk = Some(time);
        self
    }

    pub(crate) fn point(&self, actor: &'static str) {
        if let Some(hook) = &self.hook {
            hook(actor);
        }
    }

    /// Runs work that waits for the disk on the thread that asks, which has nothing else to do.
    pub(crate) fn on_this_thread(&self, work: impl FnOnce() + Send + 'static) {
        match self.disk {
            None => work(),
            Some(_) => drop(self.off_the_workers(work)),
        }
    }

    /// Runs work that waits for the disk, off the async workers.
    pub(crate) fn off_the_workers<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let Some(disk) = &self.disk else {
            return tokio::task::spawn_blocking(work);
        };
        let time = disk();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            work()
        })
    }
}

impl fmt::Debug for FaultPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultPoints")
            .field("hook", &self.hook.is_some())
            .field("disk", &self.disk.is_some())
            .finish()
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
    /// What tells this process from those before it.
    pub instance: u64,
    /// The settings in force.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// Live events.
    pub events: Events,
    /// The pieces of streamed answers.
    pub relays: Relays,
    /// The sessions of what was answered lately.
    pub conversations: Conversations,
    /// Counts prompts as estimates do, to measure the error of these; `None`: it is not measured.
    pub tokens: Option<Arc<dyn CountTokens>>,
    /// What is counted for metrics systems.
    pub meters: Meters,
    /// Where tests make actors fail and disks slow.
    pub fault_points: FaultPoints,
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}
