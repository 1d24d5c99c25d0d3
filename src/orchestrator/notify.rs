//! Alerts and webhooks of a running lane: tasks beside the actors, which end with the lane and never
//! keep it alive.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use onelane_actors::ports::{DeliveriesOver, OverQuery, Store, StoreError};
use onelane_core::model::{
    AlertBook, AnswerBody, DeliveryChange, DeliveryCounts, HookEndpoint, JobId, Timestamp,
    TraceContext, Transition, limits,
};
use onelane_core::notify::delivery::{DueDeliveries, DueQuery};
use serde_json::value::RawValue;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::alerts::Watcher;
use super::{Inner, Orchestrator};
use crate::error::Error;
use crate::trust::Trust;
use crate::webhooks::{Books, Cleanup, Deliverer, Sender, WebhookSettings};

/// How long a shutdown waits for deliveries that are due or under way; what is not delivered by then is
/// after the next start.
const FINISH: Duration = Duration::from_secs(3);

/// The tasks, and how they are told.
#[derive(Default)]
pub(super) struct Notifier {
    /// There may be something to deliver.
    pub(super) wake: Arc<Notify>,
    /// The configuration has changed.
    pub(super) configured: Arc<Notify>,
    finish: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Notifier {
    /// Lets deliveries that are due go out, for a moment, then ends the tasks.
    pub(super) async fn finish(&self) {
        self.finish.cancel();
        let tasks = std::mem::take(&mut *self.tasks());
        let stop: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
        let ended = async {
            for task in tasks {
                let _ = task.await;
            }
        };
        let mut ended = std::pin::pin!(ended);
        if tokio::time::timeout(FINISH, &mut ended).await.is_err() {
            stop.iter().for_each(tokio::task::AbortHandle::abort);
            ended.await;
        }
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.tasks().iter().for_each(JoinHandle::abort);
    }
}

/// What the store must know before the first job ends: the endpoints. Answers the alerts that are
/// active. Called before any actor writes.
pub(super) fn prepare(
    store: &dyn Store,
    settings: &WebhookSettings,
    trust: &Trust,
    now: Timestamp,
) -> Result<AlertBook, StoreError> {
    let forget_before = trust.before(settings.give_up_ms);
    if let Some(change) = settings.told(&store.endpoints()?, now, forget_before) {
        store.commit(&[Transition::Delivery(Box::new(change))])?;
    }
    store.alerts()
}

impl Orchestrator {
    /// Starts the tasks.
    pub(super) fn start_notifier(&self, settings: Arc<WebhookSettings>, sender: Arc<dyn Sender>) {
        let notifier = &self.inner.notifier;
        let ports = &self.inner.ports;
        let weak = WeakLane(Arc::downgrade(&self.inner));
        let finish = notifier.finish.clone();
        // Without endpoints and callbacks no event can make a delivery, and none is listened to.
        let events = (!settings.is_idle()).then(|| ports.events.subscribe());
        let books: Arc<dyn Books> = Arc::new(weak.clone());
        let cleanup = Cleanup {
            books: Arc::clone(&books),
            clock: Arc::clone(&ports.clock),
            trust: Arc::clone(&self.inner.trust),
            settings: Arc::clone(&settings),
        };
        let deliverer = Deliverer {
            books,
            sender,
            clock: Arc::clone(&ports.clock),
            trust: Arc::clone(&self.inner.trust),
            ids: Arc::clone(&ports.ids),
            settings,
        };
        let wake = Arc::clone(&notifier.wake);
        let configured = Arc::clone(&notifier.configured);
        let mut tasks = vec![
            tokio::spawn(deliverer.run(Arc::clone(&wake), finish.clone())),
            tokio::spawn(cleanup.run(finish.clone())),
            tokio::spawn(watch(weak, configured, finish.clone())),
        ];
        if let Some(events) = events {
            tasks.push(tokio::spawn(listen(events, wake, finish)));
        }
        *notifier.tasks() = tasks;
    }

    /// The alerts that are active and those that are over, as they are on disk.
    #[must_use]
    pub fn alerts(&self) -> AlertBook {
        self.inner.alerts.borrow().clone()
    }
}

/// Looks at the rules, again and again.
async fn watch(lane: WeakLane, configured: Arc<Notify>, finish: CancellationToken) {
    let mut watcher = Watcher::default();
    let mut failed = false;
    loop {
        let Some(every) = lane
            .upgrade()
            .map(|lane| Duration::from_millis(lane.config().config.alerts.every_ms))
        else {
            return;
        };
        tokio::select! {
            () = finish.cancelled() => return,
            // It may say another time.
            () = configured.notified() => continue,
            () = tokio::time::sleep(every) => {}
        }
        let Some(lane) = lane.upgrade() else { return };
        tokio::select! {
            () = finish.cancelled() => return,
            looked = lane.look_at_alerts(&mut watcher) => {
                if let Err(error) = &looked && !failed {
                    tracing::warn!(%error, "the alerts can't be looked at");
                }
                failed = looked.is_err();
            }
        }
    }
}

/// Wakes the deliverer when a job has ended. It finds what there is: events are no more than a hint.
async fn listen(
    mut events: broadcast::Receiver<onelane_actors::Heard>,
    wake: Arc<Notify>,
    finish: CancellationToken,
) {
    use onelane_core::model::Event;
    use tokio::sync::broadcast::error::RecvError;
    loop {
        let event = tokio::select! {
            () = finish.cancelled() => return,
            event = events.recv() => event,
        };
        match event.as_ref().map(|heard| &*heard.event) {
            Ok(
                Event::JobCompleted { .. } | Event::JobFailed { .. } | Event::JobCancelled { .. },
            )
            | Err(RecvError::Lagged(_)) => wake.notify_one(),
            Ok(_) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// The lane as its own tasks hold it: they must not keep it alive.
#[derive(Clone)]
struct WeakLane(Weak<Inner>);

impl WeakLane {
    fn upgrade(&self) -> Option<Orchestrator> {
        let inner = self.0.upgrade()?;
        Some(Orchestrator { inner })
    }

    fn lane(&self) -> Result<Orchestrator, Error> {
        let gone = || Error::Stopped("its last handle is gone".to_owned());
        self.upgrade().ok_or_else(gone)
    }
}

impl Books for WeakLane {
    fn endpoints(&self) -> BoxFuture<'_, Result<Vec<HookEndpoint>, Error>> {
        Box::pin(async move { self.lane()?.read(|store| store.endpoints()).await })
    }

    fn due(&self, query: DueQuery) -> BoxFuture<'_, Result<DueDeliveries, Error>> {
        Box::pin(async move {
            let read = move |store: &dyn Store| store.deliveries_due(&query);
            self.lane()?.read(read).await
        })
    }

    fn result(&self, id: JobId) -> BoxFuture<'_, Result<Option<Arc<RawValue>>, Error>> {
        Box::pin(async move {
            let record = self.lane()?.read(move |store| store.job(id)).await?;
            Ok(record.and_then(|record| record.response.map(AnswerBody::into_json)))
        })
    }

    fn span(&self, id: JobId) -> BoxFuture<'_, Result<Option<TraceContext>, Error>> {
        Box::pin(async move {
            let lane = self.lane()?;
            if !lane.exports_traces() {
                return Ok(None);
            }
            let inner = Arc::clone(&lane.inner);
            let read = move |store: &dyn Store| match &inner.traces {
                Some(traces) => traces.span_for_receiver(store, id),
                None => Ok(None),
            };
            lane.read(read).await
        })
    }

    fn counts(&self) -> BoxFuture<'_, Result<DeliveryCounts, Error>> {
        Box::pin(async move { self.lane()?.read(|store| store.delivery_counts()).await })
    }

    fn over(&self, query: OverQuery) -> BoxFuture<'_, Result<DeliveriesOver, Error>> {
        Box::pin(async move {
            let read = move |store: &dyn Store| store.deliveries_over(query);
            self.lane()?.read(read).await
        })
    }

    fn change(&self, changes: Vec<DeliveryChange>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let lane = self.lane()?;
            let mut changes = changes.into_iter();
            loop {
                let some: Vec<Transition> = changes
                    .by_ref()
                    .take(limits::BATCH_TRANSITIONS_MAX)
                    .map(|change| Transition::Delivery(Box::new(change)))
                    .collect();
                if some.is_empty() {
                    return Ok(());
                }
                // A refusal says that it was told before, or put on its way again meanwhile.
                lane.commit(some).await?;
            }
        })
    }
}
