//! Alerts and webhooks of a running lane: two tasks beside the actors, which end with the lane and never
//! keep it alive.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use onelane_actors::model::{
    AlertBook, DeliveryId, HookEndpoint, JobId, Notice, Timestamp, limits,
};
use onelane_actors::policy::delivery::{DeliveryChange, configured};
use onelane_actors::policy::transition::{Applied, Refusal, Transition};
use onelane_actors::ports::{DeliveryFilter, DeliveryPage, DueDeliveries, Store, StoreError};
use serde_json::value::RawValue;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::alerts::Watcher;
use super::{Inner, Orchestrator};
use crate::error::Error;
use crate::webhooks::{Books, Deliverer, Sender, WebhookSettings};

/// How long a shutdown waits for deliveries that are due or under way; what is not delivered by then is
/// after the next start.
const FINISH: Duration = Duration::from_secs(3);

/// The two tasks, and how they are told.
#[derive(Default)]
pub(super) struct Notifier {
    /// There may be something to deliver.
    pub(super) wake: Arc<Notify>,
    finish: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Notifier {
    /// Lets deliveries that are due go out, for a moment, then ends both tasks.
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
    endpoints: Vec<HookEndpoint>,
) -> Result<AlertBook, StoreError> {
    let known = store.endpoints()?;
    let endpoints = configured(&known, endpoints);
    if endpoints != known {
        let change = DeliveryChange::Endpoints(endpoints);
        store.commit(&[Transition::Delivery(Box::new(change))])?;
    }
    store.alerts()
}

impl Orchestrator {
    /// Starts the two tasks.
    pub(super) fn start_notifier(&self, settings: WebhookSettings, sender: Arc<dyn Sender>) {
        let notifier = &self.inner.notifier;
        let ports = &self.inner.ports;
        let weak = WeakLane(Arc::downgrade(&self.inner));
        let finish = notifier.finish.clone();
        // Without endpoints and callbacks no event can make a delivery, and none is listened to.
        let events = (!settings.is_idle()).then(|| ports.events.subscribe());
        let deliverer = Deliverer {
            books: Arc::new(weak.clone()),
            sender,
            clock: Arc::clone(&ports.clock),
            ids: Arc::clone(&ports.ids),
            settings: Arc::new(settings),
        };
        let wake = Arc::clone(&notifier.wake);
        let mut tasks = vec![
            tokio::spawn(deliverer.run(Arc::clone(&wake), finish.clone())),
            tokio::spawn(watch(weak, finish.clone())),
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

    /// A page of deliveries to webhooks, newest first.
    pub async fn deliveries(
        &self,
        filter: DeliveryFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<DeliveryPage, Error> {
        let limit = limit.min(limits::PAGE_ROWS_MAX);
        self.read(move |store| store.deliveries(&filter, cursor, limit))
            .await
    }

    /// Sends a delivery again, at once and with fresh patience, under its old `webhook-id`.
    pub async fn redeliver(&self, id: DeliveryId) -> Result<(), Error> {
        let at = self.inner.ports.clock.now();
        let made = self.deliver(DeliveryChange::Redeliver { id, at }).await?;
        made.map(drop).map_err(|refusal| match refusal {
            Refusal::NoSuchDelivery(id) => Error::NoSuchDelivery(id),
            other => Error::Stopped(other.to_string()),
        })
    }

    /// Sends a notice of the kind `webhook.test` to one endpoint, or to all: answers the deliveries. An
    /// endpoint that is off is on again when it takes one.
    pub async fn test_webhooks(&self, endpoint: Option<String>) -> Result<Vec<DeliveryId>, Error> {
        let names = match endpoint {
            Some(name) => vec![name],
            None => {
                let known = self.read(|store| store.endpoints()).await?;
                known.into_iter().map(|endpoint| endpoint.name).collect()
            }
        };
        let at = self.inner.ports.clock.now();
        let mut ids = Vec::new();
        for name in names {
            let tell = DeliveryChange::Tell {
                source: self.inner.ports.ids.job_id(at).to_string(),
                notice: Box::new(Notice::Test),
                only: Some(name),
                at,
            };
            let made = self.deliver(tell).await?;
            ids.extend(made.map_err(|refusal| match refusal {
                Refusal::NoSuchEndpoint(name) => Error::NoSuchEndpoint(name),
                other => Error::Stopped(other.to_string()),
            })?);
        }
        Ok(ids)
    }

    async fn deliver(
        &self,
        change: DeliveryChange,
    ) -> Result<Result<Vec<DeliveryId>, Refusal>, Error> {
        let change = Transition::Delivery(Box::new(change));
        let verdict = self.commit(vec![change]).await?.pop();
        self.inner.notifier.wake.notify_one();
        Ok(match verdict {
            Some(Ok(Applied::Deliveries(ids))) => Ok(ids),
            Some(Err(refusal)) => Err(refusal),
            _ => Ok(Vec::new()),
        })
    }
}

/// Looks at the rules, again and again.
async fn watch(lane: WeakLane, finish: CancellationToken) {
    let mut watcher = Watcher::default();
    loop {
        let Some(every) = lane
            .upgrade()
            .map(|lane| lane.config().config.alerts.every())
        else {
            return;
        };
        tokio::select! {
            () = finish.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let Some(lane) = lane.upgrade() else { return };
        tokio::select! {
            () = finish.cancelled() => return,
            looked = lane.look_at_alerts(&mut watcher) => {
                if let Err(error) = looked {
                    tracing::debug!(%error, "the alerts could not be looked at");
                }
            }
        }
    }
}

/// Wakes the deliverer when a job has ended. It finds what there is: events are no more than a hint.
async fn listen(
    mut events: broadcast::Receiver<(Timestamp, Arc<onelane_actors::model::Event>)>,
    wake: Arc<Notify>,
    finish: CancellationToken,
) {
    use onelane_actors::model::Event;
    use tokio::sync::broadcast::error::RecvError;
    loop {
        let event = tokio::select! {
            () = finish.cancelled() => return,
            event = events.recv() => event,
        };
        match event.as_ref().map(|(_, event)| &**event) {
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
    fn due(
        &self,
        now: Timestamp,
        except: BTreeSet<DeliveryId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<(DueDeliveries, Vec<HookEndpoint>), Error>> {
        Box::pin(async move {
            let read = move |store: &dyn Store| {
                let due = store.deliveries_due(now, &except, limit)?;
                let endpoints = match due.due.is_empty() {
                    true => Vec::new(),
                    false => store.endpoints()?,
                };
                Ok((due, endpoints))
            };
            self.lane()?.read(read).await
        })
    }

    fn result(&self, id: JobId) -> BoxFuture<'_, Result<Option<Arc<RawValue>>, Error>> {
        Box::pin(async move {
            let record = self.lane()?.read(move |store| store.job(id)).await?;
            Ok(record.and_then(|record| record.response))
        })
    }

    fn over(&self, before: Timestamp, keep: u64) -> BoxFuture<'_, Result<Vec<DeliveryId>, Error>> {
        Box::pin(async move {
            let limit = limits::DELIVERIES_PRUNED_MAX;
            let read = move |store: &dyn Store| store.deliveries_over(before, keep, limit);
            self.lane()?.read(read).await
        })
    }

    fn change(&self, change: DeliveryChange) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let change = Transition::Delivery(Box::new(change));
            // A refusal says that it was told before, or put on its way again meanwhile.
            self.lane()?.commit(vec![change]).await.map(drop)
        })
    }
}
