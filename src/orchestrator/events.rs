//! A subscription to live events that says what it missed.

use std::sync::Arc;

use onelane_core::model::{Event, Timestamp};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// What a subscriber gets.
#[derive(Debug, Clone)]
pub enum Feed {
    /// A fact that is on disk, with its time.
    Event(Timestamp, Arc<Event>),
    /// The subscriber was too slow and missed so many.
    Missed(u64),
}

/// A subscription to live events.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<(Timestamp, Arc<Event>)>,
}

impl Events {
    pub(super) const fn new(receiver: broadcast::Receiver<(Timestamp, Arc<Event>)>) -> Self {
        Self { receiver }
    }

    /// The next event; `None` once the lane has stopped and everything has been read.
    pub async fn next(&mut self) -> Option<Feed> {
        match self.receiver.recv().await {
            Ok((at, event)) => Some(Feed::Event(at, event)),
            Err(RecvError::Lagged(missed)) => Some(Feed::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}
