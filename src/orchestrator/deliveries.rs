//! What was told to webhooks and to whom: looked at, sent again, tried.

use onelane_actors::ports::{DeliveryFilter, DeliveryPage};
use onelane_core::model::{
    Applied, Delivery, DeliveryChange, DeliveryId, DeliveryStatus, HookEndpoint, Refusal,
    Transition, limits,
};

use super::Orchestrator;
use crate::error::Error;

impl Orchestrator {
    /// A page of deliveries to webhooks, newest first.
    pub async fn deliveries(
        &self,
        filter: DeliveryFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<DeliveryPage, Error> {
        let limit = limit.min(limits::PAGE_ROWS_MAX);
        let page = self.read(move |store| store.deliveries(&filter, cursor, limit));
        let mut page = page.await?;
        let now = self.inner.ports.clock.now();
        for delivery in &mut page.deliveries {
            // No longer than its delay, however the clock was set.
            delivery.next_try_at = delivery.next_try_at.map(|wait| wait.as_told(now));
        }
        Ok(page)
    }

    /// Sends a delivery again, at once and with retries that start afresh, under its old `webhook-id`.
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
                let known = known.into_iter();
                let configured = known.filter(|endpoint| endpoint.missing_since.is_none());
                configured.map(|endpoint| endpoint.name).collect()
            }
        };
        let at = self.inner.ports.clock.now();
        let mut ids = Vec::new();
        for name in names {
            let test = DeliveryChange::Test {
                source: self.inner.ports.ids.job_id(at).to_string(),
                endpoint: name,
                at,
            };
            let made = self.deliver(test).await?;
            ids.extend(made.map_err(|refusal| match refusal {
                Refusal::NoSuchEndpoint(name) => Error::NoSuchEndpoint(name),
                other => Error::Stopped(other.to_string()),
            })?);
        }
        Ok(ids)
    }

    /// The endpoints that are told, with their state.
    pub async fn webhook_endpoints(&self) -> Result<Vec<HookEndpoint>, Error> {
        self.read(|store| store.endpoints()).await
    }

    /// Sends again, at once and with retries that start afresh, the deliveries that a filter leaves: those that were
    /// given up, unless it names another status. Answers how many; a dry run only counts them. What was
    /// begun goes on to its end also when the caller waits no longer.
    pub async fn redeliver_all(&self, filter: DeliveryFilter, dry_run: bool) -> Result<u64, Error> {
        let filter = DeliveryFilter {
            status: filter.status.or(Some(DeliveryStatus::Failed)),
            ..filter
        };
        let lane = self.clone();
        // In a task of its own: a caller that goes away must not leave it half done.
        let task = tokio::spawn(async move { lane.redeliver_each(filter, dry_run).await });
        task.await
            .unwrap_or_else(|_| Err(Error::Stopped("the runtime is ending".to_owned())))
    }

    async fn redeliver_each(&self, filter: DeliveryFilter, dry_run: bool) -> Result<u64, Error> {
        let (mut cursor, mut count) = (None, 0);
        loop {
            let wanted = filter.clone();
            let page = self
                .read(move |store| store.deliveries(&wanted, cursor, limits::PAGE_ROWS_MAX))
                .await?;
            let at = self.inner.ports.clock.now();
            let again = |delivery: &Delivery| {
                let id = delivery.id;
                Transition::Delivery(Box::new(DeliveryChange::Redeliver { id, at }))
            };
            let changes: Vec<Transition> = page.deliveries.iter().map(again).collect();
            count += changes.len() as u64;
            if !dry_run && !changes.is_empty() {
                self.commit(changes).await?;
                self.inner.notifier.wake.notify_one();
            }
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(count);
            }
        }
    }

    async fn deliver(
        &self,
        change: DeliveryChange,
    ) -> Result<Result<Vec<DeliveryId>, Refusal>, Error> {
        let change = Transition::Delivery(Box::new(change));
        let decision = self.commit(vec![change]).await?.pop();
        self.inner.notifier.wake.notify_one();
        Ok(match decision {
            Some(Ok(Applied::Deliveries(ids))) => Ok(ids),
            Some(Err(refusal)) => Err(refusal),
            _ => Ok(Vec::new()),
        })
    }
}
