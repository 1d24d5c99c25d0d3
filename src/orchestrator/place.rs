//! Watches that the store is still the one that was opened, so that nobody works on into a file that is deleted.

use std::time::Duration;

use onelane_actors::protocol::SupervisorMsg;
use onelane_actors::runtime::Runtime;
use ractor::ActorRef;
use tokio::sync::watch;

/// How often it is looked at. A commit looks, too, before it begins.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Looks until the lane has stopped, on a thread of its own: a file system that does not answer holds up nobody.
pub(super) fn watch(
    is_there: Box<dyn Fn() -> bool + Send>,
    runtime: watch::Receiver<Runtime>,
    supervisor: ActorRef<SupervisorMsg>,
) {
    let is_over = move || runtime.has_changed().is_err() || runtime.borrow().stopped.is_some();
    let look = move || {
        while !is_over() {
            if !is_there() && supervisor.cast(SupervisorMsg::StoreLost).is_err() {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    };
    let thread = std::thread::Builder::new().name("store place".to_owned());
    if let Err(error) = thread.spawn(look) {
        tracing::warn!(%error, "the store's file is looked at before each commit alone");
    }
}
