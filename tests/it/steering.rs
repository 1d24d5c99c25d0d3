//! Guards: a drain, a breaker or a hold that an operator's word does not move, that forgets it over a
//! restart, or that can't be seen; money in doubt that is booked twice or not to the last digit.

use std::sync::Arc;

use onelane::error::Error;
use onelane::model::{AttemptNo, Billing, CallOutcome, Cost, Currency, NotAdmitted, Usage};
use onelane::ports::{CallFilter, Store};
use onelane::protocol::{QueueMsg, SubmitError};
use onelane_actors::testing::{MemoryStore, ScriptedGlm, sample};
use onelane_core::model::{Next, PriceRow, PriceTable, Transition};

use crate::support::http::{all_usage, completed, prompt, started, stop, submit};
use crate::support::{START, VirtualLane, ms};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_intake_takes_nothing_and_works_off_what_waits_even_over_a_restart() {
    let (world, lane) = started().await;
    let blocker = world.block(&lane).await;
    let keyed = || prompt("keyed").idempotency_key("k");
    let waits = submit(&lane, keyed()).await;
    lane.close_intake(Some("moving".to_owned())).await.unwrap();

    let refused = |answer: Result<_, Error>| matches!(answer, Err(Error::Draining { reason: Some(why) }) if why == "moving");
    assert!(refused(lane.submit(prompt("late")).await));
    let mut many = lane.submit_many(vec![prompt("late")]).await.unwrap();
    assert!(refused(many.remove(0)));
    // Who asks again for what was taken is answered.
    let again = lane.submit(keyed()).await.unwrap();
    assert_eq!((again.job_id, again.created), (waits, false));
    // So is a plain message, and refused.
    let queue = lane.queue().await.unwrap();
    let (reply, answer) = tokio::sync::oneshot::channel();
    let submission = Box::new(prompt("late"));
    let reply = reply.into();
    queue.cast(QueueMsg::Submit { submission, reply }).unwrap();
    let late = answer.await.unwrap();
    let closed = |error| matches!(error, SubmitError::NotAdmitted(NotAdmitted::Closed(_)));
    assert!(late.is_err_and(closed));

    let status = lane.lane().await.unwrap();
    assert_eq!(status.draining.unwrap().reason.as_deref(), Some("moving"));
    assert!(!status.drained, "two are left");
    drop(queue);
    stop(lane, 50).await;
    world.sim.clear_script();

    let lane = world.start().await;
    assert!(refused(lane.submit(prompt("late")).await), "it is on disk");
    for id in [blocker, waits] {
        completed(&lane, id).await;
    }
    assert!(lane.lane().await.unwrap().drained);
    lane.resume().await.unwrap();
    let status = lane.lane().await.unwrap();
    assert_eq!((status.draining, status.drained), (None, false));
    lane.call(prompt("welcome")).await.unwrap();
}

/// A store with one job that was completed at its second attempt; its first may have been billed.
fn in_doubt() -> Arc<MemoryStore> {
    let store = MemoryStore::new();
    let next = Next::Retry {
        failure: sample::failure(),
        at: None,
        counted: false,
        throttled: false,
        interruptions: 1,
    };
    let mut settlement = sample::settle(1, 1, next);
    settlement.call.outcome = CallOutcome::Interrupted;
    settlement.call.maybe_billed = true;
    let made = store
        .commit(&[
            sample::insert(1),
            sample::start(1),
            Transition::Settle(Box::new(settlement)),
            sample::start(1),
            sample::complete(1, 2),
        ])
        .unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    Arc::new(store)
}

#[tokio::test(start_paused = true)]
async fn an_attempt_in_doubt_is_booked_once_and_to_the_last_digit() {
    let mut world = VirtualLane::new(ScriptedGlm::answering(ms(1)));
    world.store = in_doubt();
    let mut prices = PriceTable::new(Currency::Cny);
    let row = PriceRow {
        prompt_from: 0,
        completion_from: 0,
        prompt_to: None,
        input: 2_000_000_000,
        cached_input: 400_000_000,
        output: 8_000_000_000,
        ..PriceRow::default()
    };
    prices.add("glm-4.7", row);
    world.settings.prices = Arc::new(prices);
    let lane = world.start().await;
    let open = CallFilter {
        billing_open: true,
        ..CallFilter::default()
    };
    let page = lane.calls(open.clone(), None, 10).await.unwrap();
    let [call] = &page.calls[..] else {
        panic!("{page:?}")
    };
    let (id, attempt) = (call.job_id, call.attempt);
    let before = lane.usage(all_usage()).await.unwrap();

    let billed = Billing {
        billed: true,
        usage: Usage {
            prompt_tokens: 1_000,
            completion_tokens: 10,
            total_tokens: 1_010,
            cached_tokens: 100,
            reasoning_tokens: 0,
            ..Usage::default()
        },
        cost: None,
        price: None,
        at: START,
    };
    let settle = async |attempt, billed, billing: &Billing| {
        let billing = Billing {
            billed,
            ..billing.clone()
        };
        lane.settle_billing(id, attempt, billing).await
    };
    let unknown = settle(AttemptNo(9), true, &billed).await.unwrap_err();
    assert!(matches!(unknown, Error::NoSuchAttempt { .. }), "{unknown}");
    let certain = settle(AttemptNo(2), true, &billed).await.unwrap_err();
    assert!(matches!(certain, Error::BillingSettled { .. }), "{certain}");
    let nonsense = settle(attempt, false, &billed).await.unwrap_err();
    assert!(matches!(nonsense, Error::Invalid { .. }), "{nonsense}");

    let booked = settle(attempt, true, &billed).await.unwrap();
    let cost = Cost {
        nanos: 900 * 2_000 + 100 * 400 + 10 * 8_000,
        currency: Currency::Cny,
    };
    assert_eq!(booked.cost, Some(cost), "by the price list");
    assert_eq!(booked.price.as_ref().unwrap().input, 2_000_000_000);
    let twice = settle(attempt, true, &billed).await.unwrap_err();
    assert!(matches!(twice, Error::BillingSettled { .. }), "{twice}");

    assert!(lane.calls(open, None, 10).await.unwrap().calls.is_empty());
    assert_eq!(lane.metrics().await.unwrap().maybe_billed, 0);
    // The call itself was counted before.
    let mut want = before[0].clone();
    want.usage.total_tokens += 1_010;
    *want.cost.get_mut(&Currency::Cny).unwrap() += cost.nanos;
    let after = &lane.usage(all_usage()).await.unwrap()[0];
    assert_eq!(after.calls, want.calls);
    assert_eq!(after.usage.total_tokens, want.usage.total_tokens);
    assert_eq!(after.cost, want.cost);
    let attempts = lane.job(id).await.unwrap().attempts;
    assert_eq!(attempts[0].billing, Some(booked));
}
