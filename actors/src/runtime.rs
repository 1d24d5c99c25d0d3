//! The running actors of one generation, as the supervisor shows them on a watch.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ractor::ActorRef;

use crate::ports::StoreError;
use crate::protocol::{BreakerMsg, CostMsg, QueueMsg, StoreMsg};

/// Why the actors stopped for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// Somebody asked for it.
    #[error("shut down")]
    Shutdown,
    /// The store failed and could not be reopened.
    #[error("{0}")]
    Store(StoreError),
    /// Actors failed more often than the restart budget allows.
    #[error("actors failed too often: {0}")]
    Failed(String),
}

/// The actors of one generation.
#[derive(Debug, Clone)]
pub struct Refs {
    /// The only writer.
    pub store: ActorRef<StoreMsg>,
    /// The breaker.
    pub breaker: ActorRef<BreakerMsg>,
    /// The cost actor.
    pub cost: ActorRef<CostMsg>,
    /// The queue: plain messages go here.
    pub queue: ActorRef<QueueMsg>,
    /// Whether a job that is submitted now may be sent at once, as far as the queue knew a moment ago: then
    /// [`QueueMsg::Insert`] is the shorter way.
    pub is_idle: Arc<AtomicBool>,
}

/// The actors as they are now.
#[derive(Debug, Clone, Default)]
pub struct Runtime {
    /// Rises with every restart.
    pub generation: u64,
    /// The actors; `None` while the supervisor restarts them, and after the end.
    pub refs: Option<Refs>,
    /// Why there will be no more.
    pub stopped: Option<StopReason>,
}
