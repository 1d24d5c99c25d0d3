//! The endpoints about alerts and webhooks: exact paths, names and answers.

use serde_json::json;

use super::{Running, World, kind};
use crate::webhooks::{EndpointSettings, SigningKeys};

const ALERTS: &str = "/api/admin/glm/alerts";
const WEBHOOKS: &str = "/api/admin/glm/webhooks";

/// Two endpoints whose URLs end in a secret.
async fn with_endpoints() -> Running {
    let mut world = World::default();
    for name in ["chat", "ops"] {
        let endpoint = EndpointSettings {
            url: format!("https://example.com/{name}/token"),
            secret: SigningKeys::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").ok(),
            secret_file: None,
            events: vec!["job.failed".to_owned()],
        };
        world
            .lane
            .webhooks
            .endpoints
            .insert(name.to_owned(), endpoint);
    }
    world.serve().await
}

#[tokio::test]
async fn alerts_are_shown_that_are_active_and_that_are_over() {
    let api = Running::start().await;
    let empty = json!({"active": [], "recent": []});
    assert_eq!(api.get(ALERTS).await.expect(200), empty);
}

#[tokio::test]
async fn endpoints_are_shown_with_their_state_and_without_the_secret_of_their_url() {
    let api = with_endpoints().await;
    let reply = api.get(&format!("{WEBHOOKS}/endpoints")).await;
    assert_eq!(
        reply.expect(200)["endpoints"][1],
        json!({"name": "ops", "site": "https://example.com", "events": ["job.failed"]})
    );
    assert!(!reply.text.contains("token"), "{}", reply.text);
}

#[tokio::test]
async fn a_test_goes_to_one_endpoint_or_to_all_and_is_listed_without_urls() {
    let api = with_endpoints().await;
    let test = format!("{WEBHOOKS}/test");
    let all = api.post(&test, "").await.expect(200);
    assert_eq!(all["deliveries"].as_array().unwrap().len(), 2);
    let one = api.post(&test, r#"{"endpoint":"ops"}"#).await.expect(200);
    let id = one["deliveries"][0].as_str().unwrap();
    let reply = api.post(&test, r#"{"endpoint":"nobody"}"#).await;
    assert_eq!(kind(&reply.expect(404)), "unknown-endpoint");
    assert_eq!(api.post(&test, r#"{"to":"ops"}"#).await.status, 400);

    let list = format!("{WEBHOOKS}/deliveries");
    let told = api
        .get(&format!("{list}?event=webhook.test&endpoint=ops&limit=1"))
        .await;
    let first = told.expect(200)["deliveries"][0].clone();
    assert_eq!(
        (&first["id"], &first["endpoint"]),
        (&json!(id), &json!("ops"))
    );
    assert_eq!(
        (&first["event"], &first["status"]),
        (&json!("webhook.test"), &json!("pending"))
    );
    assert_eq!(first["createdAt"], "2026-11-23T08:00:00.000Z");
    assert!(!told.text.contains("token"), "{}", told.text);
    assert!(told.json()["nextCursor"].is_string());
    for bad in ["status=lost", "event=job.started", "jobId=7", "user=a"] {
        assert_eq!(api.get(&format!("{list}?{bad}")).await.status, 400, "{bad}");
    }

    let again = |id: &str| format!("{list}/{id}/redeliver");
    assert_eq!(
        api.post(&again(id), "{}").await.expect(200),
        json!({"success": true})
    );
    assert_eq!(api.post(&again("77"), "").await.status, 404);
    assert_eq!(api.post(&again("x"), "").await.status, 400);
}

#[tokio::test]
async fn many_deliveries_are_sent_again_by_a_filter_and_never_all_by_mistake() {
    let api = with_endpoints().await;
    api.post(&format!("{WEBHOOKS}/test"), "").await.expect(200);
    let again = format!("{WEBHOOKS}/redeliver");
    let body = json!({"filter": {"status": "pending", "event": "webhook.test", "endpoint": "ops",
        "createdFrom": "2026-11-23T08:00:00Z", "createdBefore": "2026-11-23T09:00:00Z"},
        "dryRun": true});
    let told = api.post(&again, &body.to_string()).await.expect(200);
    assert_eq!(told, json!({"count": 1, "dryRun": true}));
    let told = api.post(&again, r#"{"all":true}"#).await.expect(200);
    assert_eq!(
        told,
        json!({"count": 0, "dryRun": false}),
        "none was given up"
    );
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
