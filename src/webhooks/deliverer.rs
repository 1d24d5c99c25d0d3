//! Finds what is due, sends it, and notes what came of it. It never holds up the lane: it reads
//! snapshots and asks for small changes like anybody else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use onelane_actors::model::{Delivery, DeliveryId, HookEndpoint, JobId, Target, Timestamp, limits};
use onelane_actors::policy::delivery::{DeliveryChange, TryOutcome};
use onelane_actors::ports::{Clock, DueDeliveries, Ids};
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Bodies, EndpointSettings, Post, Sender, Sent, SigningKeys, WebhookSettings};
use crate::error::Error;

/// What the deliverer needs of the lane; the lane may be gone at any time.
pub(crate) trait Books: Send + Sync + 'static {
    /// What is due, and the endpoints as the store knows them.
    fn due(
        &self,
        now: Timestamp,
        except: BTreeSet<DeliveryId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<(DueDeliveries, Vec<HookEndpoint>), Error>>;
    /// GLM's answer to a job.
    fn result(&self, id: JobId) -> BoxFuture<'_, Result<Option<Arc<RawValue>>, Error>>;
    /// What may be forgotten.
    fn over(&self, before: Timestamp, keep: u64) -> BoxFuture<'_, Result<Vec<DeliveryId>, Error>>;
    /// Stores a change.
    fn change(&self, change: DeliveryChange) -> BoxFuture<'_, Result<(), Error>>;
}

/// How long it waits after the store gave an error.
const AFTER_ERROR: Duration = Duration::from_secs(5);
/// How often it looks for what may be forgotten, in milliseconds.
const TIDY_EVERY_MS: u64 = 600_000;
/// The longest it sleeps without looking, in milliseconds: clocks jump.
const SLEEP_MS_MAX: u64 = 60_000;

/// The deliverer's parts; [`Deliverer::run`] is its life.
#[derive(Clone)]
pub(crate) struct Deliverer {
    pub(crate) books: Arc<dyn Books>,
    pub(crate) sender: Arc<dyn Sender>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) settings: Arc<WebhookSettings>,
}

/// Where a delivery goes.
struct Way {
    url: String,
    keys: SigningKeys,
    is_callback: bool,
}

impl Deliverer {
    /// Delivers until told to `finish`, and then what is due at that moment. `wake` says that there may
    /// be something new.
    pub(crate) async fn run(self, wake: Arc<Notify>, finish: CancellationToken) {
        let mut under_way = BTreeSet::new();
        let mut tries = JoinSet::new();
        let mut tidy_at = self.clock.now();
        loop {
            let now = self.clock.now();
            if now >= tidy_at && !finish.is_cancelled() {
                tidy_at = now.plus_ms(TIDY_EVERY_MS);
                self.tidy(now).await;
            }
            let room = self.settings.max_in_flight.saturating_sub(under_way.len());
            let mut sleep_ms = SLEEP_MS_MAX;
            if room > 0 {
                match self.books.due(now, under_way.clone(), room).await {
                    Ok((found, endpoints)) => {
                        if let Some(next) = found.next {
                            sleep_ms = next.since(self.clock.now()).clamp(1, SLEEP_MS_MAX);
                        }
                        for delivery in found.due {
                            under_way.insert(delivery.id);
                            let way = self.way(&delivery, &endpoints);
                            let deliverer = self.clone();
                            tries.spawn(async move {
                                let id = delivery.id;
                                deliverer.attempt(delivery, way).await;
                                id
                            });
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "deliveries can't be read");
                        sleep_ms = u64::try_from(AFTER_ERROR.as_millis()).unwrap_or(SLEEP_MS_MAX);
                    }
                }
            }
            if finish.is_cancelled() && under_way.is_empty() {
                return;
            }
            tokio::select! {
                Some(done) = tries.join_next(), if !tries.is_empty() => match done {
                    Ok(id) => {
                        under_way.remove(&id);
                    }
                    // A panic in a sender: its delivery is due, and found again.
                    Err(_) if tries.is_empty() => under_way.clear(),
                    Err(_) => {}
                },
                () = wake.notified() => {}
                () = finish.cancelled(), if !finish.is_cancelled() => {}
                () = tokio::time::sleep(Duration::from_millis(sleep_ms)) => {}
            }
        }
    }

    /// Where a delivery goes; an error is the reason why it can't go anywhere any more.
    fn way(&self, delivery: &Delivery, endpoints: &[HookEndpoint]) -> Result<Way, String> {
        match &delivery.target {
            Target::Endpoint(name) => {
                let known: &BTreeMap<String, EndpointSettings> = &self.settings.endpoints;
                let settings = known
                    .get(name)
                    .ok_or_else(|| format!("no endpoint {name} is configured any more"))?;
                let state = endpoints.iter().find(|endpoint| endpoint.name == *name);
                match state.and_then(|endpoint| endpoint.off_since) {
                    Some(since) if !delivery.by_hand => {
                        Err(format!("the endpoint is off: it answered 410 at {since}"))
                    }
                    _ => Ok(Way {
                        url: settings.url.clone(),
                        keys: settings.keys.clone(),
                        is_callback: false,
                    }),
                }
            }
            Target::Callback(url) => Ok(Way {
                url: url.clone(),
                keys: self.settings.callback_keys.clone().ok_or_else(|| {
                    "no secret is configured any more to sign callbacks with".to_owned()
                })?,
                is_callback: true,
            }),
        }
    }

    /// One try, and what came of it on disk.
    async fn attempt(&self, delivery: Delivery, way: Result<Way, String>) {
        let (outcome, may_try_again) = match way {
            Err(error) => {
                let status_code = None;
                (TryOutcome::Failed { status_code, error }, false)
            }
            Ok(way) => match self.send(&delivery, way).await {
                Ok(sent) => (outcome_of(sent), true),
                Err(error) => {
                    tracing::warn!(%error, delivery_id = %delivery.id, "a delivery can't be read");
                    tokio::time::sleep(AFTER_ERROR).await;
                    return;
                }
            },
        };
        let at = self.clock.now();
        let next = match may_try_again {
            true => self.settings.patience.next(&delivery, at, self.ids.seed()),
            false => None,
        };
        tell(&delivery, &outcome, next);
        let change = DeliveryChange::Tried {
            id: delivery.id,
            try_no: delivery.tries.saturating_add(1),
            outcome,
            at,
            next,
        };
        if let Err(error) = self.books.change(change).await {
            // It is due still, and sent again: at least once, never in a tight circle.
            tracing::warn!(%error, delivery_id = %delivery.id, "the end of a try was not stored");
            tokio::time::sleep(AFTER_ERROR).await;
        }
    }

    async fn send(&self, delivery: &Delivery, way: Way) -> Result<Sent, Error> {
        let bodies = Bodies {
            include_result: self.settings.include_result,
        };
        let result = match bodies.result_of(delivery) {
            Some(id) => self.books.result(id).await?,
            None => None,
        };
        let post = Post {
            url: way.url,
            message_id: delivery.message_id.clone(),
            at: self.clock.now(),
            body: bodies.write(delivery, result),
            keys: way.keys,
            is_callback: way.is_callback,
        };
        Ok(self.sender.send(post).await)
    }

    /// Forgets what has ended long ago, a few rows at a time.
    async fn tidy(&self, now: Timestamp) {
        let before = now.minus_ms(self.settings.keep_ms);
        loop {
            let ids = match self.books.over(before, self.settings.keep_rows).await {
                Ok(ids) if ids.is_empty() => return,
                Ok(ids) => ids,
                Err(error) => return tracing::warn!(%error, "deliveries can't be read"),
            };
            let is_last = ids.len() < limits::DELIVERIES_PRUNED_MAX;
            if let Err(error) = self.books.change(DeliveryChange::Forget { ids }).await {
                return tracing::warn!(%error, "deliveries can't be forgotten");
            }
            if is_last {
                return;
            }
        }
    }
}

fn outcome_of(sent: Sent) -> TryOutcome {
    match sent {
        Sent::Answered(status_code @ 200..=299) => TryOutcome::Delivered { status_code },
        Sent::Answered(410) => TryOutcome::Gone,
        Sent::Answered(status_code) => TryOutcome::Failed {
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
fn tell(delivery: &Delivery, outcome: &TryOutcome, next: Option<Timestamp>) {
    let (delivery_id, webhook_id) = (delivery.id, delivery.message_id.as_str());
    let event = delivery.notice.event();
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
