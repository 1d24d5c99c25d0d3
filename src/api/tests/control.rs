//! The endpoints by which an operator steers a running lane: exact paths, names and answers.

use onelane_core::testing::sample as rows;
use serde_json::json;

use super::{Running, World, kind};

#[tokio::test]
async fn the_lane_is_paused_with_and_without_a_reason_and_resumed() {
    let api = Running::start().await;
    let paused = async || {
        let metrics = api.get("/api/admin/glm/metrics").await.json();
        metrics["lane"]["paused"]["reason"].clone()
    };
    let pause = "/api/admin/glm/pause";
    assert_eq!(Running::send(api.request("POST", pause)).await.status, 200);
    assert_eq!(paused().await, json!(null));
    assert_eq!(api.post(pause, r#"{"reason":"prices"}"#).await.status, 200);
    assert_eq!(paused().await, json!("prices"));
    let reply = api.post(pause, r#"{"raeson":"prices"}"#).await;
    assert_eq!(
        (reply.status, reply.detail().as_str()),
        (400, "raeson: is unknown; did you mean reason?")
    );
    assert_eq!(api.post("/api/admin/glm/resume", "{}").await.status, 200);
    assert!(api.get("/api/admin/glm/metrics").await.json()["lane"]["paused"].is_null());
    let reply = api.post("/api/admin/glm/resume", r#"{"a":1}"#).await;
    let none = "this endpoint takes no body".to_owned();
    assert_eq!((reply.status, reply.detail()), (400, none));
}

#[tokio::test]
async fn a_closed_intake_refuses_in_the_words_of_the_operator_and_keeps_sdks_from_asking_again() {
    let api = Running::start().await;
    let drain = "/api/admin/glm/drain";
    assert_eq!(api.post(drain, r#"{"reason":""}"#).await.status, 400);
    assert_eq!(api.post(drain, r#"{"reason":"moving"}"#).await.status, 200);
    let reply = api.post("/api/glm/jobs", r#"{"prompt":"a"}"#).await;
    assert_eq!(kind(&reply.expect(503)), "draining");
    assert!(reply.detail().ends_with("moving"), "{reply:?}");
    let chat = r#"{"messages":[{"role":"user","content":"hi"}]}"#;
    let reply = api.post("/v1/chat/completions", chat).await;
    assert_eq!(
        (reply.status, &reply.headers["x-should-retry"]),
        (503, &"false".parse().unwrap())
    );
    let message = reply.json()["error"]["message"].clone();
    assert!(message.as_str().unwrap().ends_with("moving"), "{message}");
}

#[tokio::test]
async fn the_breaker_is_shown_opened_and_reset() {
    let api = Running::start().await;
    let breaker = "/api/admin/glm/breaker";
    let body = api.get(breaker).await.json();
    assert_eq!(
        (&body["breaker"]["state"], &body["breaker"]["forced"]),
        (&json!("closed"), &json!(false))
    );

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
async fn a_hold_that_is_not_there_is_named_as_it_was_asked_for() {
    let api = Running::start().await;
    let holds = "/api/admin/glm/holds";
    assert_eq!(api.get(holds).await.expect(200), json!({"holds": []}));
    for (path, what) in [
        ("account", "the account"),
        ("lane/slow%20lane", "lane slow lane"),
        ("model/glm-5", "model glm-5"),
    ] {
        let reply = Running::send(api.request("DELETE", &format!("{holds}/{path}"))).await;
        assert_eq!(kind(&reply.expect(404)), "unknown-hold");
        assert_eq!(reply.detail(), format!("{what} is not held"));
    }
    let reply = Running::send(api.request("DELETE", &format!("{holds}/everything"))).await;
    assert_eq!(kind(&reply.expect(404)), "unknown-route");
}

#[tokio::test]
async fn many_jobs_are_changed_by_a_filter_or_all_of_them_and_never_by_mistake() {
    let api = Running::paused().await;
    for user in ["u", "u", "v"] {
        api.submit(&format!(r#"{{"prompt":"a","userId":"{user}"}}"#))
            .await;
    }
    let post =
        async |verb: &str, body: &str| api.post(&format!("/api/admin/glm/{verb}"), body).await;
    let done = post("reprioritise", r#"{"filter":{"userId":"u"},"priority":-2}"#).await;
    assert_eq!(done.expect(200), json!({"count": 2, "dryRun": false}));
    let done = post("cancel", r#"{"filter":{"priorityMax":-1},"dryRun":true}"#).await;
    assert_eq!(done.expect(200), json!({"count": 2, "dryRun": true}));
    for verb in ["retry", "cancel", "reprioritise"] {
        for body in [
            "",
            "{}",
            "[]",
            r#"{"filter":{}}"#,
            r#"{"all":true,"filter":{"userId":"u"}}"#,
        ] {
            assert_eq!(post(verb, body).await.status, 400, "{verb} {body}");
        }
    }
    let reply = post("reprioritise", r#"{"all":true}"#).await;
    assert_eq!(reply.detail(), "priority: is missing");
    assert_eq!(
        post("retry", r#"{"all":true,"priority":1}"#).await.status,
        400
    );
    let done = post("cancel", r#"{"all":true}"#).await;
    assert_eq!(done.expect(200)["count"], 3);
    let done = post("retry", r#"{"filter":{"status":"cancelled","userId":"v"}}"#).await;
    assert_eq!(done.expect(200)["count"], 1);
}

#[tokio::test]
async fn attempts_in_doubt_are_listed_and_settled_once() {
    let history = [rows::insert(1), rows::start(1), rows::parked(1, 1)];
    let api = World::after(history).serve().await;
    let path = "/api/admin/glm/maybe-billed";
    let body = api
        .get(&format!("{path}?userId=ada&limit=1"))
        .await
        .expect(200);
    assert_eq!(body["nextCursor"], json!(null));
    let shown = &body["maybeBilled"][0];
    assert_eq!(shown["requestId"], json!(rows::job_id(1)));
    assert_eq!(
        (&shown["attempt"], &shown["model"]),
        (&json!(1), &json!("glm-4.7"))
    );
    assert_eq!(shown["timestamp"], "2026-11-23T00:00:00.000Z");
    let none = api.get(&format!("{path}?userId=bob")).await.expect(200);
    assert_eq!(none["maybeBilled"], json!([]));

    let settle = format!("{path}/{}/1", rows::job_id(1));
    assert_eq!(api.post(&settle, "{}").await.status, 400);
    let found = r#"{"billed":true,"usage":{"promptTokens":600,"completionTokens":400},"cost":0.1}"#;
    let reply = api.post(&settle, found).await;
    let billing = reply.expect(200)["billing"].clone();
    assert!(
        reply.text.contains(r#""cost":0.1,"currency":"CNY""#),
        "{reply:?}"
    );
    assert_eq!(billing["usage"]["totalTokens"], 1_000);
    assert_eq!(billing["at"], "2026-11-23T08:00:00.000Z");
    let again = api.post(&settle, r#"{"billed":false}"#).await;
    assert_eq!(kind(&again.expect(409)), "billing-settled");
    let other = format!("{path}/{}/2", rows::job_id(1));
    let unknown = api.post(&other, r#"{"billed":false}"#).await;
    assert_eq!(kind(&unknown.expect(404)), "unknown-attempt");
}
