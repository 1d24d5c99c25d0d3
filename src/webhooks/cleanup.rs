//! Clears away, now and then and in small steps, what of the deliveries is over: what ended long ago, and
//! what waited for a way until its retries ended.

use std::sync::Arc;
use std::time::Duration;

use onelane_actors::ports::{Clock, OverQuery};
use onelane_core::model::{DeliveryChange, DeliveryId, TryOutcome, limits};
use tokio_util::sync::CancellationToken;

use super::{Books, WebhookSettings, destination};
use crate::error::Error;
use crate::trust::Trust;

/// From one look at all deliveries to the next: so many glances.
const EVERY: u32 = 10;
/// From one glance at the clock to the next: one that was set back makes deliveries wait no longer.
const GLANCE: Duration = Duration::from_secs(60);
/// A rest between two steps: others want the store, too.
const REST: Duration = Duration::from_millis(50);

/// Its parts; [`Cleanup::run`] is its life.
pub(crate) struct Cleanup {
    pub(crate) books: Arc<dyn Books>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) settings: Arc<WebhookSettings>,
}

impl Cleanup {
    /// Looks again and again until told to `finish`.
    pub(crate) async fn run(self, finish: CancellationToken) {
        let looks = async {
            loop {
                match self.look().await {
                    // The lane is gone.
                    Err(Error::Stopped(_)) => return,
                    Err(error) => tracing::warn!(%error, "deliveries can't be cleared away"),
                    Ok(()) => {}
                }
                self.rest().await;
            }
        };
        tokio::select! {
            () = looks => {}
            () = finish.cancelled() => {}
        }
    }

    /// Rests, for less long where the clock is set back meanwhile.
    async fn rest(&self) {
        let mut seen = self.clock.now();
        for _ in 0..EVERY {
            tokio::time::sleep(GLANCE).await;
            let now = self.clock.now();
            if now < std::mem::replace(&mut seen, now) {
                return;
            }
        }
    }

    /// Looks at all deliveries once. By a clock that is not believed nothing is forgotten or given up.
    async fn look(&self) -> Result<(), Error> {
        let now = self.clock.now();
        let settings = &self.settings;
        let known = self.books.endpoints().await?;
        let forget_before = self.trust.before(settings.give_up_ms);
        if let Some(change) = settings.told(&known, now, forget_before) {
            self.books.change(vec![change]).await?;
        }
        let arrived = self.books.counts().await?.delivered;
        let mut query = OverQuery {
            from: DeliveryId(0),
            ended_before: self.trust.before(settings.keep_ms),
            excess: arrived.saturating_sub(settings.keep_rows),
            lapsed_before: now.minus_ms(settings.give_up_ms),
            now,
            look_at: limits::DELIVERIES_LOOKED_AT_MAX,
        };
        loop {
            let over = self.books.over(query).await?;
            let known = self.books.endpoints().await?;
            let mut changes = Vec::new();
            for delivery in over.lapsed {
                // It may be the clock that got older.
                let age_ms = self.trust.age_ms(delivery.since);
                if age_ms.is_none_or(|age_ms| age_ms < settings.give_up_ms) {
                    continue;
                }
                // With a way it is about to have its last try.
                let Err(error) = destination::find(settings, &known, &delivery) else {
                    continue;
                };
                tracing::warn!(
                    delivery_id = %delivery.id,
                    webhook_id = delivery.webhook_id,
                    event = delivery.event,
                    error,
                    "not delivered; given up"
                );
                changes.push(DeliveryChange::Tried {
                    id: delivery.id,
                    try_no: delivery.tries.saturating_add(1),
                    outcome: TryOutcome::Failed {
                        status_code: None,
                        error,
                    },
                    at: now,
                    waited_ms: 0,
                    next: None,
                });
            }
            if !over.set_back.is_empty() {
                let ids = over.set_back;
                changes.push(DeliveryChange::ClockSetBack { ids, now });
            }
            if !over.ended.is_empty() {
                changes.push(DeliveryChange::Forget { ids: over.ended });
            }
            if !changes.is_empty() {
                self.books.change(changes).await?;
            }
            let Some(next) = over.next else {
                return Ok(());
            };
            (query.from, query.excess) = (next, over.excess);
            tokio::time::sleep(REST).await;
        }
    }
}
