//! A timer that sends its actor a message.

use std::time::Duration;

use ractor::ActorRef;
use tokio::task::AbortHandle;

use onelane_core::model::{Timestamp, limits};

/// At most one message under way, which is never sent once this is dropped. The wall clock may jump: a long
/// wait is cut into short ones, and the actor sets the timer again when it is woken early.
#[derive(Debug, Default)]
pub(crate) struct Timer(Option<(Timestamp, AbortHandle)>);

impl Timer {
    /// Sends `message` at `at`, or earlier, and nothing that was set before. `None`: sends nothing.
    pub(crate) fn set<M: ractor::Message>(
        &mut self,
        at: Option<Timestamp>,
        now: Timestamp,
        actor: &ActorRef<M>,
        message: M,
    ) {
        if at.is_some() && at == self.0.as_ref().map(|(set, _)| *set) {
            return;
        }
        self.cancel();
        let Some(at) = at else { return };
        let sleep = Duration::from_millis(at.since(now).min(limits::TICK_MS_MAX));
        let actor = actor.clone();
        let sleeper = tokio::spawn(async move {
            tokio::time::sleep(sleep).await;
            let _ = actor.cast(message);
        });
        self.0 = Some((at, sleeper.abort_handle()));
    }

    /// Sends nothing. Also said when its message has arrived, so that the same moment can be set again.
    pub(crate) fn cancel(&mut self) {
        if let Some((_, sleeper)) = self.0.take() {
            sleeper.abort();
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.cancel();
    }
}
