//! A subscription to live events that says what it missed.

use std::sync::Arc;

use onelane_actors::Heard;
use onelane_actors::meters::Meters;
use onelane_core::model::{Event, KeyId, Timestamp};
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
    receiver: broadcast::Receiver<Heard>,
    meters: Meters,
}

impl Events {
    pub(super) const fn new(receiver: broadcast::Receiver<Heard>, meters: Meters) -> Self {
        Self { receiver, meters }
    }

    /// The next event; `None` once the lane has stopped and everything has been read.
    pub async fn next(&mut self) -> Option<Feed> {
        self.next_with_key().await.map(|(feed, _)| feed)
    }

    /// The same, with the client key whose job an event is about.
    pub async fn next_with_key(&mut self) -> Option<(Feed, Option<KeyId>)> {
        match self.receiver.recv().await {
            Ok(Heard { at, key, event }) => Some((Feed::Event(at, event), key)),
            Err(RecvError::Lagged(missed)) => {
                self.meters.events_missed(missed);
                Some((Feed::Missed(missed), None))
            }
            Err(RecvError::Closed) => None,
        }
    }
}
