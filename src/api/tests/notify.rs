//! The routes about alerts and webhooks: exact paths, names and answers.

use onelane_actors::ports::DeliveryFilter;
use onelane_core::model::{
    Alert, AlertKey, DeliveryId, DeliveryStatus, HeldKey, HoldKind, HoldScope, HookEndpoint,
    Notice, Target, Try, WHOLE_SHARE,
};
use onelane_core::notify::delivery::made;
use serde_json::json;

use super::{Running, sample};
use crate::orchestrator::EndpointDetail;

const ALERTS: &str = "/api/admin/glm/alerts";
const WEBHOOKS: &str = "/api/admin/glm/webhooks";

fn alert(key: AlertKey) -> Alert {
    Alert {
        key,
        raised_at: sample::NOW,
        level: WHOLE_SHARE,
        threshold: WHOLE_SHARE / 2,
        hold: None,
    }
}

#[tokio::test]
async fn alerts_are_shown_that_are_active_and_that_are_over() {
    let api = Running::start().await;
    let empty = json!({"active": [], "recent": []});
    assert_eq!(api.get(ALERTS).await.json(), empty);
    let hold = AlertKey::Hold(HeldKey {
        kind: HoldKind::Operator,
        scope: HoldScope::Account,
    });
    api.lane.with(|state| {
        state.alerts.raise(alert(AlertKey::ErrorRate));
        state.alerts.raise(alert(hold.clone()));
        state.alerts.clear(&hold, sample::NOW.plus_ms(1));
    });
    let told = api.get(ALERTS).await.json();
    assert_eq!(
        told["active"],
        json!([{"rule": "error_rate", "message": "error_rate is 1 share, 0.5 or more is too much",
            "level": 1, "threshold": 0.5, "unit": "share", "raisedAt": "2026-11-23T08:00:00.000Z"}])
    );
    assert_eq!(told["recent"][0]["rule"], "hold");
    assert_eq!(told["recent"][0]["subject"], "operator");
    assert_eq!(told["recent"][0]["clearedAt"], "2026-11-23T08:00:00.001Z");
    let metrics = api.get("/api/admin/glm/metrics").await.json();
    assert_eq!(metrics["activeAlerts"], told["active"]);
    let active = &metrics["alerts"]["active"];
    assert_eq!(
        (&active["error_rate"], &active["hold"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(metrics["deliveries"]["pending"], 2);
    assert_eq!(metrics["deliveries"]["failed"], 1);
}

#[tokio::test]
async fn deliveries_are_listed_without_urls_and_sent_again() {
    let api = Running::start().await;
    let job = Notice::JobEnded(Box::new(sample::failed(1).job));
    let callback = Target::Callback("https://example.com/token".to_owned());
    let mut first = made(DeliveryId(1), "a", job, callback, sample::NOW);
    first.last = Some(Try {
        at: sample::NOW.plus_ms(5),
        status_code: Some(503),
        error: Some("the receiver answered 503".to_owned()),
    });
    first.tries = 1;
    let endpoint = Target::Endpoint("ops".to_owned());
    let second = made(DeliveryId(2), "b", Notice::Test, endpoint, sample::NOW);
    api.lane
        .with(|state| state.deliveries = vec![second, first]);
    let list = format!("{WEBHOOKS}/deliveries");
    let told = api.get(&list).await.json();
    assert_eq!(
        told["deliveries"][1],
        json!({"id": "1", "webhookId": "msg_a_1", "event": "job.failed",
            "jobId": sample::id(1).to_string(), "callbackHost": "example.com", "status": "pending",
            "tries": 1, "createdAt": "2026-11-23T08:00:00.000Z",
            "nextTryAt": "2026-11-23T08:00:00.000Z", "lastTryAt": "2026-11-23T08:00:00.005Z",
            "statusCode": 503, "error": "the receiver answered 503"})
    );
    assert!(!told.to_string().contains("token"), "{told}");
    let only = |query: &str| format!("{list}?{query}");
    let told = api.get(&only("event=webhook.test")).await.json();
    assert_eq!(told["deliveries"].as_array().unwrap().len(), 1);
    assert_eq!(told["deliveries"][0]["endpoint"], "ops");
    let told = api
        .get(&only("status=failed&limit=2&cursor=3"))
        .await
        .json();
    assert_eq!(told, json!({"deliveries": [], "nextCursor": "5"}));
    for bad in ["status=lost", "event=job.started", "jobId=7", "user=a"] {
        assert_eq!(api.get(&only(bad)).await.status, 400, "{bad}");
    }

    let again = |id: &str| format!("{list}/{id}/redeliver");
    assert_eq!(
        api.post(&again("2"), "{}").await.json(),
        json!({"success": true})
    );
    let sent = api.lane.with(|state| state.redelivered.clone());
    assert_eq!(sent, [DeliveryId(2)]);
    assert_eq!(api.post(&again("7"), "").await.status, 404);
    assert_eq!(api.post(&again("x"), "").await.status, 400);
}

#[tokio::test]
async fn endpoints_are_shown_with_their_state_and_without_the_secret_of_their_url() {
    let api = Running::start().await;
    let endpoint = |name: &str, off_since, missing_since| EndpointDetail {
        endpoint: HookEndpoint {
            name: name.to_owned(),
            url_digest: "d".to_owned(),
            events: vec!["job.failed".to_owned()],
            off_since,
            missing_since,
        },
        site: missing_since
            .is_none()
            .then(|| "https://example.com".to_owned()),
    };
    let at = Some(sample::NOW);
    api.lane.with(|state| {
        state.endpoints = vec![
            endpoint("a", None, None),
            endpoint("b", at, None),
            endpoint("c", at, at),
        ];
    });
    let told = api.get(&format!("{WEBHOOKS}/endpoints")).await.json();
    let now = "2026-11-23T08:00:00.000Z";
    assert_eq!(
        told["endpoints"],
        json!([
            {"name": "a", "site": "https://example.com", "events": ["job.failed"], "state": "on"},
            {"name": "b", "site": "https://example.com", "events": ["job.failed"], "state": "off",
                "offSince": now},
            {"name": "c", "events": ["job.failed"], "state": "missing", "offSince": now,
                "missingSince": now},
        ])
    );
}

#[tokio::test]
async fn many_deliveries_are_sent_again_by_a_filter_and_never_all_by_mistake() {
    let api = Running::start().await;
    let ops = Target::Endpoint("ops".to_owned());
    let row = made(DeliveryId(2), "b", Notice::Test, ops, sample::NOW);
    api.lane.with(|state| state.deliveries = vec![row]);
    let again = format!("{WEBHOOKS}/redeliver");
    let body = json!({"filter": {"status": "failed", "event": "alert.raised", "endpoint": "ops",
        "jobId": sample::id(1).to_string(), "createdFrom": "2026-11-23T08:00:00Z",
        "createdBefore": "2026-11-23T09:00:00Z"}, "dryRun": true});
    let told = api.post(&again, &body.to_string()).await.json();
    assert_eq!(told, json!({"count": 0, "dryRun": true}));
    let want = DeliveryFilter {
        status: Some(DeliveryStatus::Failed),
        event: Some("alert.raised".to_owned()),
        job_id: Some(sample::id(1)),
        endpoint: Some("ops".to_owned()),
        created_from: Some(sample::NOW),
        created_before: Some(sample::NOW.plus_ms(3_600_000)),
    };
    let asked = api.lane.with(|state| state.redelivered_all.clone());
    assert_eq!(asked, Some((want, true)));
    let told = api.post(&again, r#"{"all":true}"#).await.json();
    assert_eq!(told, json!({"count": 1, "dryRun": false}));
    for bad in [
        "{}",
        r#"{"filter":{}}"#,
        r#"{"filter":{"status":"lost"}}"#,
        r#"{"filter":{"endpoint":"a"},"all":true}"#,
        r#"{"filter":{"jobId":"7"}}"#,
    ] {
        assert_eq!(api.post(&again, bad).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_test_goes_to_one_endpoint_or_to_all() {
    let api = Running::start().await;
    let test = format!("{WEBHOOKS}/test");
    let ids = json!({"deliveries": ["9"]});
    assert_eq!(api.post(&test, "").await.json(), ids);
    assert_eq!(api.post(&test, r#"{"endpoint":"ops"}"#).await.json(), ids);
    let reply = api.post(&test, r#"{"endpoint":"nobody"}"#).await;
    assert_eq!(reply.status, 404);
    assert!(reply.detail().contains("nobody"), "{}", reply.detail());
    assert_eq!(api.post(&test, r#"{"to":"ops"}"#).await.status, 400);
}
