//! What must not be seen is not: a marker stands in every secret, URL, prompt, answer and key, and is
//! searched for in whatever every principal can be shown.

use std::time::Duration;

use onelane_actors::ports::{GlmAnswer, GlmOutcome};
use onelane_actors::testing::ScriptedGlm;
use onelane_core::model::{Secret, Usage};
use serde_json::value::RawValue;

use super::{Running, World, config};
use crate::api::ApiConfig;
use crate::api::endpoints::router;
use crate::api::principal::Access;
use crate::config::EndpointSection;

/// In what nobody may see.
const SECRET: &str = "canary-of-secrets";
/// In what submitters keep to themselves: for admins alone.
const PRIVATE: &str = "canary-of-submitters";
/// At the end of prompt and answer, behind what previews show: for admins alone.
const BODIES: &str = "canary-of-bodies";

async fn world() -> Running {
    let long = format!("{}{BODIES}", "x".repeat(400));
    let answer = format!(r#"{{"choices":[{{"message":{{"content":"{long}"}}}}]}}"#);
    let mut world = World {
        glm: ScriptedGlm::new(move |_, _| {
            let body = RawValue::from_string(answer.clone()).unwrap();
            let answer = GlmAnswer {
                body: body.into(),
                status_code: 200,
                usage: Usage::default(),
            };
            (Duration::ZERO, GlmOutcome::Answered(answer))
        }),
        api: ApiConfig {
            admin_token: Some(Secret::new(&format!("{SECRET}-admin"))),
            viewer_token: Some(Secret::new(&format!("{SECRET}-viewer"))),
            ..config()
        },
        ..World::default()
    };
    world.lane.glm.api_key = Some(Secret::new(&format!("{SECRET}.key")));
    world.lane.webhooks.callbacks.allowed_hosts = vec!["example.com".to_owned()];
    world.lane.webhooks.secret = Some(Secret::new("whsec_Y2FuYXJ5LW9mLXNlY3JldHMtY2FuYXJ5"));
    let endpoint = EndpointSection {
        url: format!("https://example.com/{SECRET}"),
        secret: Some(Secret::new("whsec_Y2FuYXJ5LW9mLXNlY3JldHMtY2FuYXJ5")),
        secret_file: None,
        events: vec!["job.completed".to_owned()],
    };
    world
        .lane
        .webhooks
        .endpoints
        .insert("ops".to_owned(), endpoint);
    let api = world.serve().await;
    let job = format!(
        r#"{{"prompt":"{long}","idempotencyKey":"{PRIVATE}","metadata":{{"a":"{PRIVATE}"}},
        "callbackUrl":"https://example.com/{PRIVATE}"}}"#
    );
    let request = api.request("POST", "/api/glm/jobs").body(job);
    let taken = Running::send(as_admin(request)).await.expect(202);
    let id = taken["id"].as_str().unwrap();
    let path = format!("/api/glm/jobs/{id}?wait=30s");
    Running::send(as_admin(api.request("GET", &path)))
        .await
        .expect(200);
    let test = api.request("POST", "/api/admin/glm/webhooks/test");
    Running::send(as_admin(test)).await.expect(200);
    api
}

fn as_admin(request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    request.header("authorization", format!("{SECRET}-admin"))
}

fn as_viewer(request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    request.header("authorization", format!("{SECRET}-viewer"))
}

#[tokio::test]
async fn what_is_secret_is_shown_to_nobody_and_what_is_private_to_no_viewer() {
    let api = world().await;
    let list = Running::send(as_admin(api.request("GET", "/api/admin/glm/queue"))).await;
    let id = list.json()["queue"][0]["id"].as_str().unwrap().to_owned();
    let mut private_seen = 0;
    for row in &router().endpoints {
        let queries: &[&str] = match row.path {
            "/api/admin/glm/export" => &[
                "?what=jobs",
                "?what=jobs&format=csv",
                "?what=calls",
                "?what=usage",
            ],
            "/api/admin/glm/calls" => &["", "?format=csv"],
            _ => &[""],
        };
        for query in queries {
            let path = format!("{}{query}", row.path.replace("{id}", &id));
            let ask = || api.request(row.method.as_str(), &path);
            if row.method != "GET" && !path.ends_with("/estimate") {
                // Refusals, too, show nothing.
                let refused = Running::send(as_viewer(ask())).await;
                assert!(!refused.text.contains("canary"), "{path}: {}", refused.text);
                continue;
            }
            let seen = Running::send(as_admin(ask())).await;
            assert!(!seen.text.contains(SECRET), "{path}: {}", seen.text);
            private_seen += u32::from(seen.text.contains(PRIVATE) && seen.text.contains(BODIES));
            let seen = Running::send(as_viewer(ask())).await;
            assert!(!seen.text.contains("canary"), "{path}: {}", seen.text);
            if row.access == Access::Look && row.method == "GET" {
                assert_eq!(seen.status, 200, "{path}");
            }
        }
    }
    assert!(private_seen >= 2, "the markers are where they should be");
}

#[tokio::test]
async fn lists_show_beginnings_even_to_an_admin_and_no_callback() {
    let api = world().await;
    for path in ["queue", "calls", "metrics", "webhooks/deliveries"] {
        let path = format!("/api/admin/glm/{path}");
        let seen = Running::send(as_admin(api.request("GET", &path))).await;
        assert_eq!(seen.status, 200);
        assert!(!seen.text.contains(BODIES), "{path}: {}", seen.text);
        let callback = format!("example.com/{PRIVATE}");
        assert!(!seen.text.contains(&callback), "{path}: {}", seen.text);
    }
}
