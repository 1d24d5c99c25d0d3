//! When whoever watches is told to look again: all at the same moments, so that what was made for one of them since then
//! is as new as what any other would get.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::api::hub::Listener;

/// Who watches is told of what happens so often at most.
const TOLD_EVERY: Duration = Duration::from_millis(500);
/// What only time changes is looked at so often.
const LOOKED_EVERY: Duration = Duration::from_secs(5);

/// The moments at which watching pages are told to look again.
#[derive(Default)]
pub(crate) struct Pulse(Arc<Beats>);

struct Beats {
    /// The last of them; `None`: nothing more happens.
    last: watch::Sender<Option<Instant>>,
    has_begun: AtomicBool,
}

impl Default for Beats {
    fn default() -> Self {
        Self {
            last: watch::Sender::new(Some(Instant::now())),
            has_begun: AtomicBool::new(false),
        }
    }
}

impl Pulse {
    /// From now on something that happens is followed by a beat.
    pub(super) fn watch(
        &self,
        listen: impl FnOnce() -> Listener,
    ) -> watch::Receiver<Option<Instant>> {
        let beats = self.0.last.subscribe();
        if !self.0.has_begun.swap(true, Ordering::AcqRel) {
            tokio::spawn(beat(listen(), Arc::downgrade(&self.0)));
        }
        beats
    }

    /// Whether what was begun to be made at this moment is as new as what is made now, as far as those who watch have been
    /// told.
    pub(crate) fn is_new(&self, made: Instant) -> bool {
        let last = *self.0.last.borrow();
        last.is_none_or(|last| last <= made) && made.elapsed() < TOLD_EVERY
    }
}

/// Tells whoever watches, for as long as somebody may.
async fn beat(mut listener: Listener, beats: Weak<Beats>) {
    let mut last = Instant::now();
    while heard(&mut listener, last).await {
        let Some(beats) = beats.upgrade() else { return };
        last = Instant::now();
        beats.last.send_replace(Some(last));
    }
    if let Some(beats) = beats.upgrade() {
        beats.last.send_replace(None);
    }
}

/// Waits until something happened, or so much time has passed that something may look otherwise; not sooner than who
/// watches may be told again. `false`: nothing more happens.
async fn heard(listener: &mut Listener, last: Instant) -> bool {
    let heard = timeout(LOOKED_EVERY, listener.heard.changed()).await;
    if matches!(heard, Ok(Err(_))) || listener.has_ended() {
        return false;
    }
    sleep(TOLD_EVERY.saturating_sub(last.elapsed())).await;
    // What happened meanwhile is seen with it.
    listener.heard.mark_unchanged();
    true
}
