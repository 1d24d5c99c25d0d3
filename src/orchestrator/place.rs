//! Watches that the store is still the one that was opened, so that nobody works on into a file that is deleted.

use std::sync::Arc;
use std::time::Duration;

use onelane_actors::ports::Store;
use onelane_actors::protocol::SupervisorMsg;
use onelane_actors::runtime::Runtime;
use ractor::ActorRef;
use tokio::sync::watch;

/// How often it is looked at. A commit looks, too, before it begins.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Looks until the lane has stopped. The store is let go of between two looks.
pub(super) async fn watch(
    store: Arc<dyn Store>,
    mut runtime: watch::Receiver<Runtime>,
    supervisor: ActorRef<SupervisorMsg>,
) {
    let looked_at = Arc::downgrade(&store);
    drop(store);
    loop {
        let stopped = runtime.wait_for(|runtime| runtime.stopped.is_some());
        if tokio::time::timeout(LOOK_EVERY, stopped).await.is_ok() {
            return;
        }
        let Some(store) = looked_at.upgrade() else {
            return;
        };
        let looking = tokio::task::spawn_blocking(move || store.keep_place());
        if let Ok(Err(error)) = looking.await {
            let _ = supervisor.cast(SupervisorMsg::StoreLost(error));
            return;
        }
    }
}
