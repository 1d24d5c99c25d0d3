//! The routes by which an operator steers a running lane: exact paths, names and answers.

use onelane_actors::ports::JobFilter;
use onelane_core::model::{AttemptNo, Cost, Currency, Hold, HoldKind, HoldScope};
use serde_json::json;

use super::{Running, sample};
use crate::orchestrator::Selection;

#[tokio::test]
async fn the_lane_is_paused_with_and_without_a_reason_and_resumed() {
    let api = Running::start().await;
    let pause = "/api/admin/glm/pause";
    assert_eq!(Running::send(api.request("POST", pause)).await.status, 200);
    assert_eq!(api.lane.with(|state| state.pause.take()), Some(None));
    assert_eq!(api.post(pause, r#"{"reason":"prices"}"#).await.status, 200);
    let paused = api.lane.with(|state| state.pause.take());
    assert_eq!(paused, Some(Some("prices".to_owned())));
    let reply = api.post(pause, r#"{"why":"prices"}"#).await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.detail(), "why: is unknown; the only field is reason");
    assert_eq!(api.post("/api/admin/glm/resume", "{}").await.status, 200);
    assert!(api.lane.with(|state| state.resumed));
    let reply = api.post("/api/admin/glm/resume", r#"{"a":1}"#).await;
    assert_eq!(
        (reply.status, reply.detail()),
        (400, "this route takes no body".to_owned())
    );
}

#[tokio::test]
async fn the_intake_is_closed_with_and_without_a_reason() {
    let api = Running::start().await;
    let drain = "/api/admin/glm/drain";
    assert_eq!(Running::send(api.request("POST", drain)).await.status, 200);
    assert_eq!(api.lane.with(|state| state.drain.take()), Some(None));
    assert_eq!(api.post(drain, r#"{"reason":"moving"}"#).await.status, 200);
    let reason = api.lane.with(|state| state.drain.take());
    assert_eq!(reason, Some(Some("moving".to_owned())));
    assert_eq!(api.post(drain, r#"{"reason":""}"#).await.status, 400);
}

#[tokio::test]
async fn the_breaker_is_shown_opened_and_reset() {
    let api = Running::start().await;
    let breaker = "/api/admin/glm/breaker";
    let body = api.get(breaker).await.json();
    assert_eq!(body["breaker"]["state"], "closed");
    assert_eq!(body["breaker"]["forced"], false);

    let open = format!("{breaker}/open");
    let body = r#"{"reason":"incident 7","forMs":60000}"#;
    let opened = api.post(&open, body).await.json();
    assert_eq!(
        opened,
        json!({"breaker": {"state": "open", "since": "2026-11-23T08:00:00.000Z",
            "probeAt": "2026-11-23T08:01:00.000Z", "consecutiveFailures": 0, "openings": 0,
            "reason": "incident 7", "forced": true, "windowCalls": 0, "windowFailures": 0}})
    );
    assert_eq!(api.get(breaker).await.json(), opened);
    // Without a word it stays open until somebody resets it.
    let opened = Running::send(api.request("POST", &open)).await.json();
    assert_eq!(opened["breaker"]["probeAt"], json!(null));
    assert_eq!(opened["breaker"]["reason"], "opened by an operator");
    for body in [r#"{"forMs":0}"#, r#"{"forMs":"1m"}"#, r#"{"for":1}"#] {
        assert_eq!(api.post(&open, body).await.status, 400, "{body}");
    }

    let reset = format!("{breaker}/reset");
    let closed = Running::send(api.request("POST", &reset)).await.json();
    assert_eq!(closed["breaker"]["state"], "closed");
}

#[tokio::test]
async fn every_hold_is_shown_with_what_it_stops_and_ended_one_by_one() {
    let api = Running::start().await;
    let hold = |code: &str| Hold {
        kind: HoldKind::Overload,
        code: code.to_owned(),
        message: "busy".to_owned(),
        since: sample::NOW,
        until: None,
    };
    api.lane.with(|state| {
        state.holds = vec![
            (HoldScope::Account, hold("1113")),
            (HoldScope::Lane("slow lane".to_owned()), hold("1302")),
            (HoldScope::Model("glm-5".to_owned()), hold("1305")),
        ];
    });
    let holds = "/api/admin/glm/holds";
    let shown = api.get(holds).await.json();
    assert_eq!(
        shown["holds"][0],
        json!({"scope": "account", "kind": "overload", "code": "1113", "message": "busy",
            "since": "2026-11-23T08:00:00.000Z", "until": null})
    );
    assert_eq!(shown["holds"][1]["scope"], "lane");
    assert_eq!(shown["holds"][1]["name"], "slow lane");
    assert_eq!(shown["holds"][2]["name"], "glm-5");

    let delete = |what: &str| {
        let request = api.request("DELETE", &format!("{holds}/{what}"));
        async move { Running::send(request).await }
    };
    for what in ["lane/slow%20lane", "model/glm-5", "account"] {
        let reply = delete(what).await;
        assert_eq!(
            (reply.status, reply.json()),
            (200, json!({"success": true}))
        );
    }
    assert_eq!(api.get(holds).await.json(), json!({"holds": []}));
    let reply = delete("model/glm-5").await;
    assert_eq!(
        (reply.status, reply.detail()),
        (404, "model glm-5 is not held".to_owned())
    );
    assert_eq!(reply.json()["type"], "urn:onelane:problem:unknown-hold");
    assert_eq!(delete("everything").await.status, 404);
}

#[tokio::test]
async fn many_jobs_are_changed_by_a_filter_or_all_of_them() {
    let api = Running::start().await;
    let post = |verb: &str, body: &'static str| {
        let path = format!("/api/admin/glm/{verb}");
        let api = &api;
        async move { api.post(&path, body).await }
    };
    let reply = post("retry", r#"{"all":true,"dryRun":true}"#).await;
    assert_eq!(
        (reply.status, reply.json()),
        (200, json!({"count": 3, "dryRun": true}))
    );
    let reply = post("cancel", r#"{"filter":{"userId":"u"}}"#).await;
    assert_eq!(reply.json(), json!({"count": 3, "dryRun": false}));
    let reply = post("reprioritise", r#"{"filter":{"userId":"u"},"priority":-2}"#).await;
    assert_eq!(reply.status, 200);
    let of_user = Selection::Matching(JobFilter {
        user_id: Some("u".to_owned()),
        ..JobFilter::default()
    });
    assert_eq!(
        api.lane.with(|state| std::mem::take(&mut state.bulks)),
        [
            ("retry".to_owned(), Selection::All, true),
            ("cancel".to_owned(), of_user.clone(), false),
            ("reprioritise -2".to_owned(), of_user, false),
        ]
    );
    for verb in ["retry", "cancel", "reprioritise"] {
        for body in ["", "{}", "[]", r#"{"filter":{}}"#] {
            assert_eq!(post(verb, body).await.status, 400, "{verb} {body}");
        }
    }
    let reply = post("reprioritise", r#"{"all":true}"#).await;
    assert_eq!(reply.detail(), "priority: is missing; say the new priority");
    let reply = post("retry", r#"{"all":true,"priority":1}"#).await;
    assert_eq!(reply.status, 400);
    assert!(
        api.lane.with(|state| state.bulks.is_empty()),
        "nothing of it was done"
    );
}

#[tokio::test]
async fn attempts_in_doubt_are_listed_and_settled_once() {
    let api = Running::start().await;
    let mut call = sample::call(&sample::waiting(1));
    call.maybe_billed = true;
    api.lane.with(|state| state.calls.push(call.clone()));
    let path = "/api/admin/glm/maybe-billed";
    let body = api.get(&format!("{path}?userId=default&limit=1")).await;
    let body = body.json();
    assert_eq!(body["nextCursor"], "9");
    let shown = &body["maybeBilled"][0];
    assert_eq!(shown["id"], call.request_id.as_str());
    assert_eq!(shown["jobId"], json!(sample::id(1)));
    assert_eq!(
        (&shown["attempt"], &shown["model"]),
        (&json!(1), &json!("glm-4.7"))
    );
    assert_eq!(shown["startedAt"], "2026-11-23T08:00:00.500Z");
    let filter = api.lane.with(|state| state.call_filter.take()).unwrap();
    assert!(filter.billing_open);
    assert_eq!(filter.user_id.as_deref(), Some("default"));

    let settle = format!("{path}/{}/1", sample::id(1));
    let found = r#"{"billed":true,"usage":{"promptTokens":600,"completionTokens":400},"cost":0.1}"#;
    let reply = api.post(&settle, found).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(
        reply.text.contains(r#""cost":0.1,"currency":"CNY""#),
        "{}",
        reply.text
    );
    let (job_id, attempt, billing) = api.lane.with(|state| state.settled[0].clone());
    assert_eq!((job_id, attempt), (sample::id(1), AttemptNo(1)));
    assert_eq!(billing.usage.total_tokens, 1_000);
    assert_eq!(billing.at, sample::NOW);
    let cost = Cost {
        nanos: 100_000_000,
        currency: Currency::Cny,
    };
    assert_eq!(billing.cost, Some(cost));
    let reply = api.post(&settle, r#"{"billed":false}"#).await;
    assert_eq!(reply.status, 409);
    assert_eq!(reply.json()["type"], "urn:onelane:problem:billing-settled");
    assert_eq!(api.post(&settle, "{}").await.status, 400);
}
