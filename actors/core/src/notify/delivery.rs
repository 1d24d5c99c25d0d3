//! The life of a delivery: made with the fact, tried until it arrives or its retries end, sent again by
//! hand.

mod due;
pub mod over;

use crate::model::{
    Delivery, DeliveryId, DeliveryStatus, HookEndpoint, Notice, Refusal, RetryPolicy, Target,
    Timestamp, Try, TryOutcome, Wait, limits,
};

pub use due::{DueDeliveries, DueIndex, DueQuery, find};

/// When the next try of a delivery is due after one that failed at `now`, for which it had waited so long; `None`: no more,
/// once it has waited for `give_up_ms` since it was put on its way. The last try is made when its retries end, not before.
/// What the receiver asks for counts if it is longer, up to the longest delay.
#[must_use]
pub fn next_try(
    delivery: &Delivery,
    delays: &RetryPolicy,
    give_up_ms: u64,
    now: Timestamp,
    waited_ms: u64,
    retry_after_ms: Option<u64>,
    seed: u64,
) -> Option<Wait> {
    let left = give_up_ms.saturating_sub(delivery.waited_ms.saturating_add(waited_ms));
    let asked = retry_after_ms.map(|ms| ms.min(delays.max_delay_ms));
    let delay = delays.delay_ms(delivery.tries, asked, seed).max(1);
    (left > 0).then(|| Wait::from(now, delay.min(left)))
}

/// How long a delivery has waited for its next try, in milliseconds, where so much time has passed since a moment: no
/// longer than its delay is, so that a clock that was set makes it no older.
pub fn waited_ms(delivery: &Delivery, passed_ms: impl FnOnce(Timestamp) -> u64) -> u64 {
    let wait = delivery.next_try_at;
    wait.map_or(0, |wait| {
        passed_ms(wait.until.minus_ms(wait.length_ms)).min(wait.length_ms)
    })
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
        webhook_id: format!("msg_{source}_{id}"),
        event: notice.event().to_owned(),
        job_id: notice.job_id(),
        by_hand: matches!(notice, Notice::Test),
        notice,
        target,
        created_at: at,
        status: DeliveryStatus::Pending,
        tries: 0,
        since: at,
        waited_ms: 0,
        next_try_at: Some(Wait::from(at, 0)),
        last: None,
    }
}

/// Where a notice of this kind goes: to every endpoint that asked for it. For one that is off, or that no
/// configuration names at present, it waits.
pub fn wanted_by<'a>(
    endpoints: &'a [HookEndpoint],
    event: &'a str,
) -> impl Iterator<Item = &'a HookEndpoint> {
    endpoints
        .iter()
        .filter(move |e| e.events.iter().any(|wanted| wanted == event))
}

/// Notes how a try ended.
pub fn tried(
    delivery: &mut Delivery,
    try_no: u32,
    outcome: &TryOutcome,
    at: Timestamp,
    next: Option<Wait>,
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
    // An endpoint may come back, and what it is to be told waits for that. A test has its answer.
    let comes_back =
        matches!(delivery.target, Target::Endpoint(_)) && !matches!(delivery.notice, Notice::Test);
    let next = match outcome {
        TryOutcome::Failed { .. } => next,
        TryOutcome::Gone if comes_back => next,
        TryOutcome::Delivered { .. } | TryOutcome::Gone => None,
    };
    // What an operator asked for was tried although the endpoint is off; from now on it waits like the rest.
    delivery.by_hand &= *outcome != TryOutcome::Gone;
    delivery.next_try_at = next;
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
    delivery.waited_ms = 0;
    delivery.next_try_at = Some(Wait::from(at, 0));
    delivery.by_hand = true;
}

/// The clock was set back: a delivery waits no longer for it. Tells whether that changes anything.
pub fn mind_the_clock(delivery: &mut Delivery, now: Timestamp) -> bool {
    let wait = delivery.next_try_at.as_mut();
    let begins_again = wait.is_some_and(|wait| wait.mind_the_clock(now));
    if begins_again {
        // Nor is it tried for longer.
        delivery.since = delivery.since.min(now);
    }
    begins_again
}

/// Whether a delivery may be forgotten: it ended before a moment, or it arrived and more have than are
/// kept. Asked of the oldest first; `excess` counts those that are too many. One that was given up is
/// an operator's to look at, however many there are.
pub fn is_over(delivery: &Delivery, before: Timestamp, excess: &mut u64) -> bool {
    let last = delivery.last.as_ref();
    let ended_at = last.map_or(delivery.created_at, |last| last.at);
    let is_too_many = delivery.status == DeliveryStatus::Delivered && *excess > 0;
    *excess -= u64::from(is_too_many);
    is_too_many || (delivery.status != DeliveryStatus::Pending && ended_at < before)
}

/// The endpoints as they are from now on. One that is off stays so until its URL changes. One that no
/// configuration names any more is remembered for a while: the next may name it again, and what it is to
/// be told waits until then.
#[must_use]
pub fn configured(
    before: &[HookEndpoint],
    mut now: Vec<HookEndpoint>,
    at: Timestamp,
    forget_before: Timestamp,
) -> Vec<HookEndpoint> {
    for endpoint in &mut now {
        let known = before
            .iter()
            .find(|known| known.name == endpoint.name && known.url_digest == endpoint.url_digest);
        endpoint.off_since = known.and_then(|known| known.off_since);
        endpoint.missing_since = None;
    }
    let missing = |known: &&HookEndpoint| now.iter().all(|named| named.name != known.name);
    let missing: Vec<HookEndpoint> = before
        .iter()
        .filter(missing)
        .map(|known| HookEndpoint {
            missing_since: known.missing_since.or(Some(at)),
            ..known.clone()
        })
        .filter(|known| known.missing_since >= Some(forget_before))
        .collect();
    now.extend(missing);
    now.sort_by(|a, b| a.name.cmp(&b.name));
    now
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{AlertKey, CallbackUrl};
    use crate::testing::sample::{self, START};

    const DELAYS: RetryPolicy = RetryPolicy {
        base_delay_ms: 5_000,
        backoff_multiplier: 5.0,
        max_delay_ms: 43_200_000,
        jitter: 0.2,
    };
    const GIVE_UP_MS: u64 = 259_200_000;

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
        assert_eq!(delivery.webhook_id, "msg_a_7");
        let next = Some(Wait::from(START, 5));
        tried(&mut delivery, 1, &failed(), START, next).unwrap();
        assert_eq!(delivery.status, DeliveryStatus::Pending);
        assert_eq!(delivery.next_try_at, next);
        tried(&mut delivery, 2, &failed(), START, None).unwrap();
        assert_eq!(
            (delivery.status, delivery.next_try_at),
            (DeliveryStatus::Failed, None)
        );
        redeliver(&mut delivery, START.plus_ms(9));
        assert_eq!(
            (delivery.tries, delivery.next_try_at),
            (0, Some(Wait::from(START.plus_ms(9), 0)))
        );
        let done = TryOutcome::Delivered { status_code: 204 };
        tried(&mut delivery, 1, &done, START.plus_ms(10), next).unwrap();
        assert_eq!(
            (delivery.status, delivery.next_try_at),
            (DeliveryStatus::Delivered, None)
        );
        assert_eq!(delivery.last.unwrap().status_code, Some(204));
        assert_eq!(delivery.webhook_id, "msg_a_7");
    }

    #[test]
    fn a_late_or_repeated_try_is_refused() {
        let mut delivery = fresh();
        let next = Some(Wait::from(START, 1));
        tried(&mut delivery, 1, &failed(), START, next).unwrap();
        let refused = Err(Refusal::StaleTry { id: DeliveryId(7) });
        assert_eq!(tried(&mut delivery, 1, &failed(), START, next), refused);
        assert_eq!(tried(&mut delivery, 3, &failed(), START, next), refused);
        tried(&mut delivery, 2, &TryOutcome::Gone, START, next).unwrap();
        // A test has its answer.
        assert_eq!(delivery.status, DeliveryStatus::Failed);
        assert_eq!(tried(&mut delivery, 3, &failed(), START, next), refused);
    }

    #[test]
    fn what_is_for_an_endpoint_that_is_gone_waits_and_what_is_for_a_callback_does_not() {
        let next = Some(Wait::from(START, 1));
        let ended = |target| {
            let notice = Notice::AlertRaised(sample::alert(AlertKey::of("breaker")));
            let mut delivery = made(DeliveryId(7), "a", notice, target, START);
            redeliver(&mut delivery, START);
            tried(&mut delivery, 1, &TryOutcome::Gone, START, next).unwrap();
            (delivery.status, delivery.by_hand)
        };
        let endpoint = Target::Endpoint("ops".to_owned());
        assert_eq!(ended(endpoint), (DeliveryStatus::Pending, false));
        let callback = Target::Callback(CallbackUrl("https://example.com/".to_owned()));
        assert_eq!(ended(callback), (DeliveryStatus::Failed, false));
    }

    #[test]
    fn what_was_given_up_is_kept_longer_than_what_arrived() {
        let over = |status, excess: u64, before| {
            let mut delivery = fresh();
            delivery.status = status;
            let mut left = excess;
            (is_over(&delivery, before, &mut left), left)
        };
        let later = START.plus_ms(1);
        assert_eq!(over(DeliveryStatus::Delivered, 2, START), (true, 1));
        assert_eq!(over(DeliveryStatus::Delivered, 0, later), (true, 0));
        assert_eq!(over(DeliveryStatus::Failed, 2, START), (false, 2));
        assert_eq!(over(DeliveryStatus::Failed, 2, later), (true, 2));
        assert_eq!(over(DeliveryStatus::Pending, 2, later), (false, 2));
    }

    fn endpoint(name: &str, digest: &str, off_since: Option<Timestamp>) -> HookEndpoint {
        HookEndpoint {
            off_since,
            ..HookEndpoint::new(name, digest, &["job.failed".to_owned()])
        }
    }

    #[test]
    fn an_endpoint_that_is_off_stays_off_until_its_url_changes() {
        let off = [endpoint("ops", "a", Some(START))];
        let set = |digest| configured(&off, vec![endpoint("ops", digest, None)], START, START);
        assert_eq!(set("a"), off);
        let on = set("b");
        assert_eq!(on[0].off_since, None);
        assert_eq!(wanted_by(&off, "job.failed").count(), 1, "it waits");
        assert_eq!(wanted_by(&on, "job.failed").count(), 1);
        assert_eq!(wanted_by(&on, "job.completed").count(), 0);
    }

    #[test]
    fn an_endpoint_that_is_not_named_any_more_is_remembered_for_a_while() {
        let known = [endpoint("a", "a", None), endpoint("ops", "b", Some(START))];
        let at = |ms| START.plus_ms(ms);
        let step = |before: &[HookEndpoint], ms, forget_ms| {
            let named = vec![endpoint("a", "a", None)];
            configured(before, named, at(ms), at(forget_ms))
        };
        let missing = step(&known, 10, 0);
        assert_eq!(missing[1].missing_since, Some(at(10)));
        assert_eq!(missing[1].off_since, Some(START));
        let still = step(&missing, 20, 10);
        assert_eq!(still, missing);
        assert_eq!(step(&still, 30, 11).len(), 1);
        let back = configured(&still, known.to_vec(), at(30), at(11));
        assert_eq!(back, known);
    }

    #[test]
    fn a_clock_that_is_set_makes_no_delivery_older() {
        const HOUR_MS: i64 = 3_600_000;
        let waits = |step_ms: i64| {
            let (mut delivery, mut now) = (fresh(), START);
            let mut waits = Vec::new();
            loop {
                // As somebody sees it who has not seen the clock being set.
                let waited = waited_ms(&delivery, |begun| now.since(begun));
                let next = next_try(&delivery, &DELAYS, 3_600_000, now, waited, None, 7);
                let Some(next) = next else { break };
                waits.push(next.length_ms);
                let try_no = delivery.tries + 1;
                tried(&mut delivery, try_no, &failed(), now, Some(next)).unwrap();
                delivery.waited_ms += waited;
                now = Timestamp::from_millis(now.as_millis() + step_ms);
                if step_ms < 0 {
                    mind_the_clock(&mut delivery, now);
                }
                now = now.plus_ms(next.length_ms);
            }
            waits
        };
        let usual = waits(0);
        assert_eq!(usual.iter().sum::<u64>(), 3_600_000);
        for step_ms in [HOUR_MS / 2, 20 * HOUR_MS, 1_000 * HOUR_MS, -20 * HOUR_MS] {
            assert_eq!(waits(step_ms), usual, "{step_ms}");
        }
    }

    #[test]
    fn what_a_receiver_asks_for_counts_up_to_the_longest_delay() {
        let next = |asked| {
            let next = next_try(&fresh(), &DELAYS, GIVE_UP_MS, START, 0, asked, 7);
            next.unwrap().length_ms
        };
        assert!(next(None) <= 5_000);
        assert!(next(Some(1)) >= 4_000, "a shorter one does not count");
        assert_eq!(next(Some(60_000)), 60_000);
        assert_eq!(next(Some(86_400_000)), 43_200_000);
    }

    proptest! {
        /// Every next try is later than now; there is an end, and the last try is at it.
        #[test]
        fn patience_grows_and_ends(seed in any::<u64>(), answers_ms in 0_u64..30_000) {
            let mut delivery = fresh();
            let mut now = START;
            let mut delays = Vec::new();
            let waited = |delivery: &Delivery, now: Timestamp| waited_ms(delivery, |begun| now.since(begun));
            while let Some(next) = next_try(
                &delivery, &DELAYS, GIVE_UP_MS, now, waited(&delivery, now), None, seed,
            ) {
                prop_assert!(next.until > now);
                delays.push(next.length_ms);
                let try_no = delivery.tries + 1;
                delivery.waited_ms += waited(&delivery, now);
                tried(&mut delivery, try_no, &failed(), now, Some(next)).unwrap();
                now = next.until.plus_ms(answers_ms);
                prop_assert!(delivery.tries < 50);
            }
            prop_assert_eq!(delays.iter().sum::<u64>(), GIVE_UP_MS);
            prop_assert!((4_000..=5_000).contains(&delays[0]));
            prop_assert!(delays[..5].is_sorted());
        }
    }
}
