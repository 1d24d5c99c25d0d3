//! Finds what is due, sends it, and notes what came of it. It never holds up the lane: it reads
//! snapshots and asks for small changes like anybody else.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use onelane_actors::ports::{Clock, DeliveriesOver, Ids, OverQuery};
use onelane_core::model::{
    Delivery, DeliveryChange, DeliveryCounts, DeliveryId, HookEndpoint, JobId, Target, Timestamp,
    TraceContext, TryOutcome, Wait,
};
use onelane_core::notify::delivery::{DueDeliveries, DueQuery, next_try, waited_ms};
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::destination::{self, Destination};
use super::limiter::Limiter;
use super::{Bodies, Post, Sender, Sent, WebhookSettings};
use crate::error::Error;
use crate::trust::Trust;

/// What deliveries need of the lane; the lane may be gone at any time.
pub(crate) trait Books: Send + Sync + 'static {
    /// The endpoints as the store knows them.
    fn endpoints(&self) -> BoxFuture<'_, Result<Vec<HookEndpoint>, Error>>;
    /// What is due.
    fn due(&self, query: DueQuery) -> BoxFuture<'_, Result<DueDeliveries, Error>>;
    /// GLM's answer to a job.
    fn result(&self, id: JobId) -> BoxFuture<'_, Result<Option<Arc<RawValue>>, Error>>;
    /// The span that a receiver who is told of a job may go on from.
    fn span(&self, id: JobId) -> BoxFuture<'_, Result<Option<TraceContext>, Error>>;
    /// How many deliveries there are.
    fn counts(&self) -> BoxFuture<'_, Result<DeliveryCounts, Error>>;
    /// What may go.
    fn over(&self, query: OverQuery) -> BoxFuture<'_, Result<DeliveriesOver, Error>>;
    /// Stores changes, together.
    fn change(&self, changes: Vec<DeliveryChange>) -> BoxFuture<'_, Result<(), Error>>;
}

/// How long it waits after the store gave an error.
const AFTER_ERROR: Duration = Duration::from_secs(5);
/// The longest it sleeps without looking, in milliseconds: clocks jump.
const SLEEP_MS_MAX: u64 = 60_000;

/// The deliverer's parts; [`Deliverer::run`] is its life.
#[derive(Clone)]
pub(crate) struct Deliverer {
    pub(crate) books: Arc<dyn Books>,
    pub(crate) sender: Arc<dyn Sender>,
    pub(crate) clock: Arc<dyn Clock>,
    /// How that was set.
    pub(crate) trust: Arc<Trust>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) settings: Arc<WebhookSettings>,
}

impl Deliverer {
    /// Delivers until told to `finish`, and then what is due at that moment. `wake` says that there may
    /// be something new.
    pub(crate) async fn run(self, wake: Arc<Notify>, finish: CancellationToken) {
        let mut limiter = Limiter::new(usize::from(self.settings.max_in_flight));
        let mut tries = JoinSet::new();
        loop {
            let sleep = match self.begin(&mut limiter, &mut tries).await {
                Ok(next) => next.map_or(SLEEP_MS_MAX, |next| {
                    next.since(self.clock.now()).clamp(1, SLEEP_MS_MAX)
                }),
                Err(error) => {
                    tracing::warn!(%error, "deliveries can't be read");
                    u64::try_from(AFTER_ERROR.as_millis()).unwrap_or(SLEEP_MS_MAX)
                }
            };
            if finish.is_cancelled() && limiter.is_idle() {
                return;
            }
            tokio::select! {
                Some(Ok((id, heard))) = tries.join_next(), if !tries.is_empty() => {
                    limiter.end(id, heard);
                }
                () = wake.notified() => {}
                () = finish.cancelled(), if !finish.is_cancelled() => {}
                () = tokio::time::sleep(Duration::from_millis(sleep)) => {}
            }
        }
    }

    /// Begins the tries that are due and have room. Answers when the next one is due.
    async fn begin(
        &self,
        limiter: &mut Limiter,
        tries: &mut JoinSet<(DeliveryId, bool)>,
    ) -> Result<Option<Timestamp>, Error> {
        let known = self.books.endpoints().await?;
        let endpoints = destination::endpoints(&self.settings, &known);
        let callbacks = self.settings.secret.is_some();
        let query = limiter.query(self.clock.now(), endpoints, callbacks);
        if query.limit == 0 {
            return Ok(None);
        }
        let found = self.books.due(query).await?;
        limiter.looked_at(found.host);
        for delivery in found.due {
            let Ok(way) = destination::find(&self.settings, &known, &delivery) else {
                continue;
            };
            if !limiter.begin(&delivery) {
                continue;
            }
            let deliverer = self.clone();
            tries.spawn(async move {
                let id = delivery.id;
                let attempt = AssertUnwindSafe(deliverer.attempt(delivery, way));
                // Whatever breaks, the slot is free again.
                (id, attempt.catch_unwind().await.unwrap_or(false))
            });
        }
        Ok(found.next)
    }

    /// One try, and what came of it on disk. Answers whether the receiver was heard.
    async fn attempt(&self, delivery: Delivery, way: Destination) -> bool {
        let waited_ms = waited_ms(&delivery, |begun| self.trust.passed_ms(begun));
        let sent = match self.send(&delivery, way).await {
            Ok(sent) => sent,
            Err(error) => {
                tracing::warn!(%error, delivery_id = %delivery.id, "a delivery can't be read");
                tokio::time::sleep(AFTER_ERROR).await;
                return true;
            }
        };
        let heard = !matches!(sent, Sent::Failed(_));
        let asked = match sent {
            Sent::Busy { retry_after_ms, .. } => Some(retry_after_ms),
            _ => None,
        };
        let outcome = outcome_of(sent);
        let at = self.clock.now();
        let delays = &self.settings.retry;
        let give_up_ms = self.settings.give_up_ms;
        let seed = self.ids.seed();
        let next = next_try(&delivery, delays, give_up_ms, at, waited_ms, asked, seed);
        tell(&delivery, &outcome, next);
        let change = DeliveryChange::Tried {
            id: delivery.id,
            try_no: delivery.tries.saturating_add(1),
            outcome,
            at,
            waited_ms,
            next,
        };
        if let Err(error) = self.books.change(vec![change]).await {
            // It is due still, and sent again: at least once, never in a tight circle.
            tracing::warn!(%error, delivery_id = %delivery.id, "the end of a try was not stored");
            tokio::time::sleep(AFTER_ERROR).await;
        }
        heard
    }

    async fn send(&self, delivery: &Delivery, way: Destination) -> Result<Sent, Error> {
        let bodies = Bodies {
            include_result: self.settings.include_result,
        };
        let result = match bodies.result_of(delivery) {
            Some(id) => self.books.result(id).await?,
            None => None,
        };
        let trace = match delivery.job_id {
            Some(id) => self.books.span(id).await?,
            None => None,
        };
        let post = Post {
            url: way.url,
            message_id: delivery.webhook_id.clone(),
            at: self.clock.now(),
            body: bodies.write(delivery, result),
            keys: way.keys,
            trace,
            is_callback: way.is_callback,
        };
        let sending = AssertUnwindSafe(async { self.sender.send(post).await });
        let broken = |_| Sent::Failed("the sender broke down".to_owned());
        Ok(sending.catch_unwind().await.unwrap_or_else(broken))
    }
}

fn outcome_of(sent: Sent) -> TryOutcome {
    match sent {
        Sent::Answered(status_code @ 200..=299) => TryOutcome::Delivered { status_code },
        Sent::Answered(410) => TryOutcome::Gone,
        Sent::Answered(status_code) | Sent::Busy { status_code, .. } => TryOutcome::Failed {
            status_code: Some(status_code),
            error: format!("the receiver answered {status_code}"),
        },
        Sent::Failed(error) => TryOutcome::Failed {
            status_code: None,
            error,
        },
    }
}

/// One line a try, without the URL, which may hold a token.
fn tell(delivery: &Delivery, outcome: &TryOutcome, next: Option<Wait>) {
    let (delivery_id, webhook_id) = (delivery.id, delivery.webhook_id.as_str());
    let event = delivery.event.as_str();
    let try_no = delivery.tries.saturating_add(1);
    let endpoint = match &delivery.target {
        Target::Endpoint(name) => name.as_str(),
        Target::Callback(_) => "(callback)",
    };
    match (outcome, next) {
        (TryOutcome::Delivered { .. }, _) => {
            tracing::debug!(%delivery_id, webhook_id, event, endpoint, try_no, "delivered");
        }
        (TryOutcome::Gone, _) => {
            tracing::warn!(%delivery_id, webhook_id, event, endpoint, "the receiver is gone (410)");
        }
        (TryOutcome::Failed { error, .. }, Some(next)) => tracing::info!(
            %delivery_id, webhook_id, event, endpoint, try_no, error, %next,
            "not delivered; it is tried again"
        ),
        (TryOutcome::Failed { error, .. }, None) => tracing::warn!(
            %delivery_id, webhook_id, event, endpoint, try_no, error,
            "not delivered; given up"
        ),
    }
}
