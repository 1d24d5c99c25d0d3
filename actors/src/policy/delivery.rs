//! The life of a delivery: made with the fact, tried until it arrives or patience ends, sent again by
//! hand.

use serde::{Deserialize, Serialize};

use super::retry;
use super::transition::Refusal;
use crate::model::{
    Delivery, DeliveryId, DeliveryStatus, HookEndpoint, Notice, RetrySettings, Target, Timestamp,
    Try, limits,
};

/// How a try ended, as the store is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TryOutcome {
    /// The receiver took it.
    Delivered {
        /// The HTTP status: 2xx.
        status_code: u16,
    },
    /// The receiver is gone for good: nothing more is sent there.
    Gone,
    /// It did not arrive, as far as is known.
    Failed {
        /// The HTTP status, if there was an answer.
        status_code: Option<u16>,
        /// Why.
        error: String,
    },
}

/// A change that concerns deliveries.
#[derive(Debug, Clone)]
pub enum DeliveryChange {
    /// Something happened that is to be told.
    Tell {
        /// What no other notice has; a part of the `webhook-id`.
        source: String,
        /// What happened.
        notice: Box<Notice>,
        /// To this endpoint alone, whatever it asked for; `None`: to all that asked for it.
        only: Option<String>,
        /// When.
        at: Timestamp,
    },
    /// A try ended.
    Tried {
        /// The delivery.
        id: DeliveryId,
        /// Which try it was, from 1; the fence.
        try_no: u32,
        /// How it ended.
        outcome: TryOutcome,
        /// When.
        at: Timestamp,
        /// When the next one is due; `None`: patience has ended.
        next: Option<Timestamp>,
    },
    /// Somebody wants it sent again, at once and with fresh patience.
    Redeliver {
        /// The delivery.
        id: DeliveryId,
        /// Now.
        at: Timestamp,
    },
    /// Deliveries are forgotten; one that has not ended is kept.
    Forget {
        /// The deliveries.
        ids: Vec<DeliveryId>,
    },
    /// The endpoints that are configured from now on.
    Endpoints(Vec<HookEndpoint>),
}

/// When a delivery is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patience {
    /// Delays as those of a job's retries.
    pub delays: RetrySettings,
    /// Given up so long after it was put on its way, in milliseconds.
    pub give_up_ms: u64,
}

impl Patience {
    /// When the next try is due after one that failed at `now`; `None`: no more. The last try is
    /// made when patience ends, not before.
    #[must_use]
    pub fn next(&self, delivery: &Delivery, now: Timestamp, seed: u64) -> Option<Timestamp> {
        let end = delivery.since.plus_ms(self.give_up_ms);
        let delay = retry::backoff_ms(&self.delays, delivery.tries, None, seed).max(1);
        (now < end).then(|| now.plus_ms(delay).min(end))
    }
}

/// A delivery as it is made.
#[must_use]
pub fn made(
    id: DeliveryId,
    source: &str,
    notice: Notice,
    target: Target,
    at: Timestamp,
) -> Delivery {
    Delivery {
        id,
        message_id: format!("msg_{source}_{id}"),
        by_hand: matches!(notice, Notice::Test),
        notice,
        target,
        created_at: at,
        status: DeliveryStatus::Pending,
        tries: 0,
        since: at,
        due_at: Some(at),
        last: None,
    }
}

/// Where a notice of this kind goes: to every endpoint that asked for it and is not off.
pub fn wanted_by<'a>(
    endpoints: &'a [HookEndpoint],
    event: &'a str,
) -> impl Iterator<Item = &'a HookEndpoint> {
    endpoints
        .iter()
        .filter(move |e| e.off_since.is_none() && e.events.iter().any(|wanted| wanted == event))
}

/// Notes how a try ended.
pub fn tried(
    delivery: &mut Delivery,
    try_no: u32,
    outcome: &TryOutcome,
    at: Timestamp,
    next: Option<Timestamp>,
) -> Result<(), Refusal> {
    if delivery.status != DeliveryStatus::Pending || delivery.tries + 1 != try_no {
        return Err(Refusal::StaleTry { id: delivery.id });
    }
    delivery.tries = try_no;
    let (status_code, error) = match outcome {
        TryOutcome::Delivered { status_code } => (Some(*status_code), None),
        TryOutcome::Gone => (Some(410), Some("the receiver is gone (410)".to_owned())),
        TryOutcome::Failed { status_code, error } => (*status_code, Some(error.clone())),
    };
    let cut = |error: String| {
        let chars = error.chars();
        chars.take(limits::DELIVERY_ERROR_CHARS_MAX).collect()
    };
    delivery.last = Some(Try {
        at,
        status_code,
        error: error.map(cut),
    });
    let next = match outcome {
        TryOutcome::Failed { .. } => next,
        TryOutcome::Delivered { .. } | TryOutcome::Gone => None,
    };
    delivery.due_at = next;
    delivery.status = match (outcome, next) {
        (TryOutcome::Delivered { .. }, _) => DeliveryStatus::Delivered,
        (_, Some(_)) => DeliveryStatus::Pending,
        (_, None) => DeliveryStatus::Failed,
    };
    Ok(())
}

/// Puts a delivery on its way again, at once, under its old `webhook-id`.
pub fn redeliver(delivery: &mut Delivery, at: Timestamp) {
    delivery.status = DeliveryStatus::Pending;
    delivery.tries = 0;
    delivery.since = at;
    delivery.due_at = Some(at);
    delivery.by_hand = true;
}

/// Whether a delivery may be forgotten: it ended before a moment, or it has ended and there are more
/// than may be kept. Asked of the oldest first; `excess` counts those that are too many.
pub fn is_over(delivery: &Delivery, before: Timestamp, excess: &mut u64) -> bool {
    let last = delivery.last.as_ref();
    let ended_at = last.map_or(delivery.created_at, |last| last.at);
    let ended = delivery.status != DeliveryStatus::Pending;
    let is_over = ended && (*excess > 0 || ended_at < before);
    *excess -= u64::from(is_over && *excess > 0);
    is_over
}

/// The endpoints as they are from now on: one that is off stays so until its URL changes.
#[must_use]
pub fn configured(before: &[HookEndpoint], mut now: Vec<HookEndpoint>) -> Vec<HookEndpoint> {
    for endpoint in &mut now {
        let known = before
            .iter()
            .find(|known| known.name == endpoint.name && known.url_digest == endpoint.url_digest);
        endpoint.off_since = known.and_then(|known| known.off_since);
    }
    now
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::sample::START;

    const PATIENCE: Patience = Patience {
        delays: RetrySettings {
            max_retries: 0,
            base_delay_ms: 5_000,
            backoff_multiplier: 5.0,
            max_delay_ms: 43_200_000,
            jitter: 0.2,
            max_throttles: 0,
        },
        give_up_ms: 259_200_000,
    };

    fn fresh() -> Delivery {
        let target = Target::Endpoint("ops".to_owned());
        made(DeliveryId(7), "a", Notice::Test, target, START)
    }

    fn failed() -> TryOutcome {
        TryOutcome::Failed {
            status_code: None,
            error: "refused".to_owned(),
        }
    }

    #[test]
    fn a_delivery_keeps_its_message_id_whatever_happens() {
        let mut delivery = fresh();
        assert_eq!(delivery.message_id, "msg_a_7");
        tried(&mut delivery, 1, &failed(), START, Some(START.plus_ms(5))).unwrap();
        assert_eq!(delivery.status, DeliveryStatus::Pending);
        assert_eq!(delivery.due_at, Some(START.plus_ms(5)));
        tried(&mut delivery, 2, &failed(), START, None).unwrap();
        assert_eq!(
            (delivery.status, delivery.due_at),
            (DeliveryStatus::Failed, None)
        );
        redeliver(&mut delivery, START.plus_ms(9));
        assert_eq!(
            (delivery.tries, delivery.due_at),
            (0, Some(START.plus_ms(9)))
        );
        let done = TryOutcome::Delivered { status_code: 204 };
        tried(&mut delivery, 1, &done, START.plus_ms(10), Some(START)).unwrap();
        assert_eq!(
            (delivery.status, delivery.due_at),
            (DeliveryStatus::Delivered, None)
        );
        assert_eq!(delivery.last.unwrap().status_code, Some(204));
        assert_eq!(delivery.message_id, "msg_a_7");
    }

    #[test]
    fn a_late_or_repeated_try_is_refused() {
        let mut delivery = fresh();
        let next = Some(START.plus_ms(1));
        tried(&mut delivery, 1, &failed(), START, next).unwrap();
        let refused = Err(Refusal::StaleTry { id: DeliveryId(7) });
        assert_eq!(tried(&mut delivery, 1, &failed(), START, next), refused);
        assert_eq!(tried(&mut delivery, 3, &failed(), START, next), refused);
        tried(&mut delivery, 2, &TryOutcome::Gone, START, next).unwrap();
        assert_eq!(delivery.status, DeliveryStatus::Failed);
        assert_eq!(tried(&mut delivery, 3, &failed(), START, next), refused);
    }

    #[test]
    fn an_endpoint_that_is_off_stays_off_until_its_url_changes() {
        let endpoint = |digest: &str, off_since| HookEndpoint {
            name: "ops".to_owned(),
            url_digest: digest.to_owned(),
            events: vec!["job.failed".to_owned()],
            off_since,
        };
        let off = [endpoint("a", Some(START))];
        assert_eq!(configured(&off, vec![endpoint("a", None)]), off);
        let on = configured(&off, vec![endpoint("b", None)]);
        assert_eq!(on[0].off_since, None);
        assert_eq!(wanted_by(&off, "job.failed").count(), 0);
        assert_eq!(wanted_by(&on, "job.failed").count(), 1);
        assert_eq!(wanted_by(&on, "job.completed").count(), 0);
    }

    proptest! {
        /// Every next try is later than now; there is an end, and the last try is at it.
        #[test]
        fn patience_grows_and_ends(seed in any::<u64>(), answers_ms in 0_u64..30_000) {
            let mut delivery = fresh();
            let mut now = START;
            let end = START.plus_ms(PATIENCE.give_up_ms);
            let mut delays = Vec::new();
            while let Some(next) = PATIENCE.next(&delivery, now, seed) {
                prop_assert!(next > now && next <= end);
                delays.push(next.since(now));
                now = next.plus_ms(answers_ms);
                delivery.tries += 1;
                prop_assert!(delivery.tries < 50);
            }
            prop_assert!(now >= end);
            prop_assert!((4_000..=5_000).contains(&delays[0]));
            prop_assert!(delays[..5].is_sorted());
        }
    }
}
