//! The table of endpoints: what is made of it is made of all of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use onelane_core::model::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use warp::http::Method;

use super::{Running, World, config, kind};
use crate::api::answer::Json;
use crate::api::check::check;
use crate::api::endpoint::{Endpoint, Router, properties};
use crate::api::endpoints::router;
use crate::api::input::{Given, Input, Nothing};
use crate::api::principal::Access;
use crate::api::problem::{Faults, Kind, Problem};
use crate::api::{Api, openapi, reference};
use crate::config::ServerSection;

/// A path of an endpoint with something in the place of its parameters.
fn some(path: &str) -> String {
    let id = "0199a000-0000-7000-8000-000000000001";
    path.replace("{jobId}", id)
        .replace("{attempt}", "1")
        .replace("deliveries/{id}", "deliveries/1")
        .replace("{id}", id)
        .replace("{name}", "glm-5")
}

#[test]
fn every_row_is_whole_and_no_two_take_the_same_request() {
    let router = router();
    for row in &router.endpoints {
        let place = format!("{} {}", row.method, row.path);
        let in_path = row.path.split(['{', '}']).skip(1).step_by(2);
        let in_path: BTreeSet<_> = in_path.map(str::to_owned).collect();
        let read: BTreeSet<_> = properties(&row.path_schema)
            .map(|(n, _)| n.clone())
            .collect();
        assert_eq!(in_path, read, "{place}");
        let (found, _) = router.find(&row.method, &some(row.path)).unwrap();
        assert!(
            std::ptr::eq(found, row),
            "{place} is taken by {}",
            found.path
        );
        assert!(
            !row.summary.ends_with('.') && !row.section.is_empty(),
            "{place}"
        );
    }
}

#[test]
fn every_example_is_taken_by_its_endpoint() {
    for row in &router().endpoints {
        let Some(example) = &row.example else {
            assert!(
                row.body_schema.is_null(),
                "{} {} has no example",
                row.method,
                row.path
            );
            continue;
        };
        let schema = row.body_schema["oneOf"].get(0).unwrap_or(&row.body_schema);
        let json = serde_json::value::to_raw_value(example).unwrap();
        let mut errors = Faults::default();
        check(schema, &json, "", &mut errors);
        assert_eq!(errors.first, [], "{} {}", row.method, row.path);
    }
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(
                    fields
                        .get("$ref")
                        .and_then(Value::as_str)
                        .map(str::to_owned),
                );
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = Value::Object(openapi::document(&router()));
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 50, "{}", found.len());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let noun = |name: &str| document.pointer(&format!("/components/schemas/{name}"));
    for name in [
        "GLMConfig",
        "GLMRequestQueue",
        "GLMCallLog",
        "GLMUsageStats",
        "Problem",
    ] {
        assert!(noun(name).is_some(), "{name}");
    }
    let status = &noun("GLMRequestQueue").unwrap()["properties"]["status"];
    assert_eq!(status["$ref"], "#/components/schemas/JobStatus");
}

#[tokio::test]
async fn without_a_token_nothing_but_health_answers_and_a_viewer_changes_nothing() {
    let with_tokens = ServerSection {
        admin_token: Some(Secret::new("run")),
        viewer_token: Some(Secret::new("look")),
        ..config()
    };
    let api = Running::with(with_tokens).await;
    for row in &router().endpoints {
        let place = format!("{} {}", row.method, row.path);
        let ask = |token: &'static str| {
            let request = api.request(row.method.as_str(), &some(row.path));
            Running::send(request.header("authorization", token))
        };
        if row.access == Access::Anybody {
            assert_eq!(ask("wrong").await.status, 200, "{place}");
            continue;
        }
        assert_eq!(ask("wrong").await.status, 401, "{place}");
        let seen = ask("look").await;
        if row.access == Access::Look {
            assert!(![401, 403].contains(&seen.status), "{place}: {seen:?}");
        } else {
            assert_eq!(seen.status, 403, "{place}");
        }
    }
}

#[tokio::test]
async fn every_path_tells_which_methods_it_has() {
    let api = Running::start().await;
    let router = router();
    let document = api.get("/openapi.json").await.expect(200);
    assert_eq!(document["openapi"], "3.1.0");
    let beside_a_bad_id = Running::send(api.request("PATCH", "/api/glm/jobs/17")).await;
    assert_eq!(beside_a_bad_id.status, 405);
    for row in &router.endpoints {
        let reply = Running::send(api.request("PATCH", &some(row.path))).await;
        assert_eq!(reply.status, 405, "{}", row.path);
        let allowed = reply.headers["allow"].to_str().unwrap();
        let allowed: BTreeSet<_> = allowed.split(", ").map(str::to_ascii_lowercase).collect();
        let of_path = router
            .endpoints
            .iter()
            .filter(|other| other.path == row.path);
        let mut methods: BTreeSet<_> = of_path
            .map(|other| other.method.as_str().to_ascii_lowercase())
            .collect();
        let operations = document["paths"][row.path].as_object().unwrap();
        assert_eq!(operations.keys().cloned().collect::<BTreeSet<_>>(), methods);
        if methods.contains("get") {
            methods.insert("head".to_owned());
        }
        assert_eq!(allowed, methods, "{}", row.path);
    }
}

/// What the new endpoint is asked.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Question {
    /// How often to say it.
    #[schemars(range(min = 1, max = 3))]
    times: u32,
}

/// What it says.
#[derive(Serialize, JsonSchema)]
struct Echo {
    /// As often as was asked for.
    said: String,
}

async fn echo(
    _: Arc<Api>,
    input: Input<Nothing, Nothing, Given<Question>>,
) -> Result<Json<Echo>, Problem> {
    let Given(Question { times }) = input.body;
    let said = "ho".repeat(times as usize);
    Ok(Json(Echo { said }))
}

#[tokio::test]
async fn a_row_more_is_routed_documented_and_checked() {
    let row = Endpoint::new(
        Method::POST,
        "/echo",
        Access::Operate,
        "Say something",
        echo,
    );
    let row = row.errors(&[Kind::UnknownHold]).under("The service");
    let mut endpoints = router().endpoints;
    endpoints.push(row);
    let router = Router::new(endpoints);
    let document = openapi::document(&router);
    let operation = &document["paths"]["/echo"]["post"];
    assert_eq!(operation["summary"], "Say something");
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(body["properties"]["times"]["maximum"], 3);
    let answer = &operation["responses"]["200"]["content"]["application/json"]["schema"];
    assert_eq!(answer["$ref"], "#/components/schemas/Echo");
    assert_eq!(
        operation["responses"]["404"]["content"]["application/problem+json"]["examples"]["unknown-hold"]
            ["value"]["title"],
        "not held"
    );
    let page = reference::page(&document);
    assert!(
        page.contains("### POST /echo\n\nSay something. For: admin."),
        "{page}"
    );
    assert!(page.contains("| `times` | integer | How often to say it. |"));

    let api = World::default().serve_table(router).await;
    assert_eq!(
        api.post("/echo", r#"{"times":2}"#).await.expect(200),
        json!({"said": "hoho"})
    );
    let reply = api.post("/echo", r#"{"times":4}"#).await;
    assert_eq!(kind(&reply.expect(400)), "invalid-field");
    assert_eq!(reply.detail(), "times: must be a whole number from 1 to 3");
    assert_eq!(api.get("/echo").await.headers["allow"], "POST");
}
