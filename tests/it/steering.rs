//! Guards: a drain, a breaker or a hold that an operator's word does not move, that forgets it over a
//! restart, or that can't be seen; money in doubt that is booked twice or not to the last digit.

use std::sync::Arc;

use onelane::error::Error;
use onelane::model::{
    AttemptNo, Billing, BreakerState, CallOutcome, Cost, Currency, HoldScope, JobStatus,
    NotAdmitted, Timestamp, Usage,
};
use onelane::ports::{CallFilter, Store};
use onelane::protocol::{QueueMsg, SubmitError};
use onelane::simulator::{Fault, Rule};
use onelane_actors::testing::{MemoryStore, ScriptedGlm, sample};
use onelane_core::model::{Next, PriceRow, PriceTable, Transition};
use serde_json::json;

use crate::support::api::Api;
use crate::support::http::{HttpLane, all_usage, prompt, until_held};
use crate::support::{VirtualLane, ms};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_intake_takes_nothing_and_works_off_what_waits_even_over_a_restart() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let blocker = world.block(&lane).await;
    let keyed = || prompt("keyed").idempotency_key("k");
    let waits = lane.submit(keyed()).await.unwrap().job_id;
    lane.close_intake(Some("moving".to_owned())).await.unwrap();

    let refused = |answer: Result<_, Error>| matches!(answer, Err(Error::Draining { reason: Some(why) }) if why == "moving");
    assert!(refused(lane.submit(prompt("late")).await));
    let [one] = lane
        .submit_many(vec![prompt("late")])
        .await
        .unwrap()
        .try_into()
        .unwrap();
    assert!(refused(one));
    // Who asks again for what was taken is answered.
    let again = lane.submit(keyed()).await.unwrap();
    assert_eq!((again.job_id, again.created), (waits, false));
    // So is a plain message, and refused.
    let queue = lane.queue().await.unwrap();
    let (reply, answer) = tokio::sync::oneshot::channel();
    let submission = Box::new(prompt("late"));
    queue
        .cast(QueueMsg::Submit {
            submission,
            reply: reply.into(),
        })
        .unwrap();
    assert!(matches!(
        answer.await.unwrap(),
        Err(SubmitError::NotAdmitted(NotAdmitted::Closed(_)))
    ));

    let status = lane.lane().await.unwrap();
    assert_eq!(status.draining.unwrap().reason.as_deref(), Some("moving"));
    assert!(!status.drained, "two are left");
    drop(queue);
    lane.shutdown(ms(50)).await;
    drop(lane);
    world.sim.clear_script();

    let lane = world.start().await;
    assert!(refused(lane.submit(prompt("late")).await), "it is on disk");
    for id in [blocker, waits] {
        let record = lane.wait(id).await.unwrap();
        assert_eq!(record.job.status, JobStatus::Completed);
    }
    assert!(lane.lane().await.unwrap().drained);
    lane.resume().await.unwrap();
    let status = lane.lane().await.unwrap();
    assert_eq!((status.draining, status.drained), (None, false));
    lane.call(prompt("welcome")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_of_a_closed_intake_in_their_language() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let drain = api
        .post("/api/admin/glm/drain", r#"{"reason":"moving"}"#)
        .await;
    drain.expect(200);
    let refused = api.post("/api/glm/jobs", r#"{"prompt":"late"}"#).await;
    let problem = refused.expect(503);
    assert_eq!(problem["type"], "urn:onelane:problem:draining");
    assert!(problem["detail"].as_str().unwrap().ends_with("moving"));
    let chat = json!({"messages": [{"role": "user", "content": "late"}]});
    let refused = api.post("/v1/chat/completions", chat.to_string()).await;
    refused.expect(503);
    assert_eq!(refused.headers["x-should-retry"], "false");
    let metrics = api.get("/api/admin/glm/metrics").await.expect(200);
    assert_eq!(metrics["lane"]["draining"]["reason"], "moving");
    assert_eq!(metrics["lane"]["drained"], true);
    api.post_bare("/api/admin/glm/resume").await.expect(200);
    api.post("/api/glm/jobs", r#"{"prompt":"welcome"}"#)
        .await
        .expect(202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_breaker_that_an_operator_opened_stays_open_over_a_restart_until_it_is_reset() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let breaker = "/api/admin/glm/breaker";
    let opened = api
        .post(&format!("{breaker}/open"), r#"{"reason":"incident 7"}"#)
        .await
        .expect(200);
    assert_eq!(opened["breaker"]["state"], "open");
    assert_eq!(opened["breaker"]["probeAt"], json!(null));
    let job = lane.submit(prompt("waits")).await.unwrap().job_id;
    let metrics = api.get("/api/admin/glm/metrics").await.expect(200);
    assert_eq!(metrics["lane"]["breaker"], opened["breaker"]);
    api.stop().await;
    let lane = world.restart(lane).await;
    let api = Api::serve(&lane).await;
    let still = api.get(breaker).await.expect(200);
    assert_eq!(still, opened);
    tokio::time::sleep(ms(50)).await;
    assert_eq!(world.sim.stats().calls, 0);

    let reset = api.post_bare(&format!("{breaker}/reset")).await.expect(200);
    assert_eq!(reset["breaker"]["state"], "closed");
    assert_eq!(reset["breaker"]["forced"], false);
    let record = lane.wait(job).await.unwrap();
    assert_eq!(record.job.status, JobStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_is_opened_for_a_while_probes_by_itself() {
    let world = VirtualLane::new(ScriptedGlm::answering(ms(1)));
    let lane = world.start().await;
    let until = Timestamp::from_millis(1_795_392_000_000 + 60_000);
    let opened = lane
        .breaker_open("maintenance".to_owned(), Some(until))
        .await;
    let opened = opened.unwrap();
    assert_eq!(
        (opened.state, opened.probe_at),
        (BreakerState::Open, Some(until))
    );
    let begun = tokio::time::Instant::now();
    lane.call(prompt("waits")).await.unwrap();
    assert!(begun.elapsed() >= ms(59_000), "{:?}", begun.elapsed());
    assert_eq!(lane.breaker().state, BreakerState::Closed);
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_hold_is_ended_and_nothing_else() {
    let world = HttpLane::new();
    world.sim.add_rule(Rule::always(Fault::error("1113")));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let job = lane.submit(prompt("unpaid")).await.unwrap().job_id;
    until_held(&lane).await;
    lane.close_intake(None).await.unwrap();
    let holds = api.get("/api/admin/glm/holds").await.expect(200);
    assert_eq!(holds["holds"][0]["scope"], "account");
    assert_eq!(holds["holds"][0]["code"], "1113");
    assert_eq!(holds["holds"][0]["until"], json!(null));
    let elsewhere = lane
        .release_hold(HoldScope::Model("glm-5".to_owned()))
        .await;
    assert!(
        matches!(elsewhere, Err(Error::NoSuchHold(_))),
        "{elsewhere:?}"
    );

    world.sim.clear_script();
    let account = api.request(reqwest::Method::DELETE, "/api/admin/glm/holds/account");
    Api::send(account).await.expect(200);
    lane.wait(job).await.unwrap();
    let status = lane.lane().await.unwrap();
    assert!(status.holds.is_empty());
    assert!(status.draining.is_some(), "the intake is another matter");
    let account = api.request(reqwest::Method::DELETE, "/api/admin/glm/holds/account");
    Api::send(account).await.expect(404);
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
    };
    prices.add("glm-4.7", row);
    world.settings.prices = Arc::new(prices);
    let lane = world.start().await;
    let open = CallFilter {
        billing_open: true,
        ..CallFilter::default()
    };
    let page = lane.calls(open.clone(), None, 10).await.unwrap();
    assert_eq!(page.calls.len(), 1);
    let (id, attempt) = (page.calls[0].job_id, page.calls[0].attempt);
    assert_eq!(lane.metrics().await.unwrap().maybe_billed, 1);
    let before = lane.usage(all_usage()).await.unwrap();

    let billed = Billing {
        billed: true,
        usage: Usage {
            prompt_tokens: 1_000,
            completion_tokens: 10,
            total_tokens: 1_010,
            cached_tokens: 100,
            reasoning_tokens: 0,
        },
        cost: None,
        price: None,
        at: Timestamp::from_millis(1_795_392_000_000),
    };
    let settle = async |attempt, billing| lane.settle_billing(id, attempt, billing).await;
    let unknown = settle(AttemptNo(9), billed.clone()).await;
    assert!(
        matches!(unknown, Err(Error::NoSuchAttempt { .. })),
        "{unknown:?}"
    );
    let certain = settle(AttemptNo(2), billed.clone()).await;
    assert!(
        matches!(certain, Err(Error::BillingSettled { .. })),
        "{certain:?}"
    );
    let nonsense = Billing {
        billed: false,
        ..billed.clone()
    };
    let nonsense = settle(attempt, nonsense).await;
    assert!(
        matches!(nonsense, Err(Error::Invalid { .. })),
        "{nonsense:?}"
    );

    let booked = settle(attempt, billed.clone()).await.unwrap();
    let cost = Cost {
        nanos: 900 * 2_000 + 100 * 400 + 10 * 8_000,
        currency: Currency::Cny,
    };
    assert_eq!(booked.cost, Some(cost), "by the price list");
    assert_eq!(booked.price.as_ref().unwrap().input, 2_000_000_000);
    let twice = settle(attempt, billed).await;
    assert!(
        matches!(twice, Err(Error::BillingSettled { .. })),
        "{twice:?}"
    );

    assert!(lane.calls(open, None, 10).await.unwrap().calls.is_empty());
    assert_eq!(lane.metrics().await.unwrap().maybe_billed, 0);
    let after = lane.usage(all_usage()).await.unwrap();
    assert_eq!(
        after[0].usage.total_tokens,
        before[0].usage.total_tokens + 1_010
    );
    let sum = |rows: &[onelane::model::UsageRow]| rows[0].cost[&Currency::Cny];
    assert_eq!(sum(&after), sum(&before) + cost.nanos);
    assert_eq!(
        after[0].calls, before[0].calls,
        "the call itself was counted"
    );
    let attempts = lane.job(id).await.unwrap().attempts;
    assert_eq!(attempts[0].billing, Some(booked));
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_found_out_is_taken_over_http() {
    let mut world = VirtualLane::new(ScriptedGlm::answering(ms(1)));
    world.store = in_doubt();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let list = api.get("/api/admin/glm/maybe-billed").await.expect(200);
    let open = &list["maybeBilled"][0];
    assert_eq!(
        (&open["attempt"], &open["userId"]),
        (&json!(1), &json!("ada"))
    );
    let id = open["requestId"].as_str().unwrap();
    let path = format!("/api/admin/glm/maybe-billed/{id}/1");
    let found = r#"{"billed":true,"cost":"0.000000001","currency":"USD"}"#;
    let reply = api.post(&path, found).await;
    reply.expect(200);
    assert!(
        reply
            .text
            .contains(r#""cost":0.000000001,"currency":"USD""#),
        "{reply:?}"
    );
    api.post(&path, found).await.expect(409);
    api.post(&format!("/api/admin/glm/maybe-billed/{id}/7"), found)
        .await
        .expect(404);
    let list = api.get("/api/admin/glm/maybe-billed").await.expect(200);
    assert_eq!(list, json!({"maybeBilled": [], "nextCursor": null}));
    let job = api
        .get(&format!("/api/admin/glm/queue/{id}"))
        .await
        .expect(200);
    assert_eq!(job["job"]["attempts"][0]["billing"]["billed"], true);
}
