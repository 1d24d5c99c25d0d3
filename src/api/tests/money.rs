//! Prices, estimates and refusals for want of a price.

use onelane_core::model::Unpriced;
use serde_json::json;

use super::{Running, World, kind};

#[tokio::test]
async fn the_price_list_is_shown_whole_or_for_one_model() {
    let api = Running::start().await;
    let reply = api.get("/api/admin/glm/prices").await;
    assert_eq!(reply.status, 200);
    let list = reply.json();
    assert_eq!(list["currency"], "CNY");
    assert_eq!(list["version"], "2026-11-28");
    assert!(list["prices"].as_array().unwrap().len() > 35);
    let reply = api.get("/api/admin/glm/prices?model=glm-4.6v-flashx").await;
    // Money as it is in the list, to the digit.
    let row = r#""input":0.15,"cachedInput":0.03,"output":1.5,"when":null,"context":128000"#;
    assert!(reply.text.contains(row), "{}", reply.text);
    assert_eq!(reply.json()["prices"].as_array().unwrap().len(), 2);
    let none = api.get("/api/admin/glm/prices?model=glm-9").await;
    assert_eq!(none.json()["prices"], json!([]));
    assert_eq!(api.get("/api/admin/glm/prices?x=1").await.status, 400);
}

#[tokio::test]
async fn an_estimate_is_of_each_job_and_of_all() {
    let api = Running::start().await;
    let path = "/api/admin/glm/estimate";
    let one = r#"{"prompt":"hello world","model":"glm-4-long","userId":"u"}"#;
    let reply = api.post(path, one).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    // Two tokens of text and six around them, cached at 0.5; with a margin of 17, and 4095 of the answer, at 1.
    assert_eq!(
        reply.json()["jobs"],
        json!([{"model": "glm-4-long", "promptTokens": 8, "maxCompletionTokens": 4_095,
            "expectedCompletionTokens": 350,
            "cost": {"min": 0.000004, "expected": 0.000358, "max": 0.00412}, "currency": "CNY"}])
    );
    let many = r#"[{"prompt":"hello world","model":"glm-9"},
        {"messages":[{"role":"user","content":"hello world"}],"model":"glm-5",
         "parameters":{"max_tokens":10}}]"#;
    let body = api.post(path, many).await.json();
    assert_eq!(body["jobs"][0]["cost"], json!(null));
    assert_eq!(body["jobs"][1]["maxCompletionTokens"], 10);
    assert_eq!(
        body["total"],
        json!({"jobs": 2, "promptTokens": 16, "maxCompletionTokens": 131_082,
            "expectedCompletionTokens": 1_210,
            "cost": {"min": 0.000008, "expected": 0.000212, "max": 0.00028}, "currency": "CNY",
            "unpricedJobs": 1, "forecast": null})
    );
    let bad = api.post(path, r#"[{"prompt":"a"},{"prompt":""}]"#).await;
    assert_eq!(bad.status, 400);
    assert_eq!(bad.json()["errors"][0]["field"], "[1].prompt");
    let refused = r#"[{"prompt":"a"},{"prompt":"b","callbackUrl":"https://hooks.example/x"}]"#;
    let reply = api.post(path, refused).await;
    let body = reply.json();
    assert_eq!((reply.status, &body["refused"]), (200, &json!(1)));
    assert_eq!(body["total"]["jobs"], 1);
    let error = &body["jobs"][1]["error"]["errors"][0]["field"];
    assert_eq!(*error, "[1].callbackUrl");
    let alone = r#"{"prompt":"b","callbackUrl":"https://hooks.example/x"}"#;
    assert_eq!(api.post(path, alone).await.status, 422);
    let stored = api.get("/api/admin/glm/queue").await.json();
    assert_eq!(stored["total"], 0, "nothing was submitted");
}

#[tokio::test]
async fn a_submission_refused_for_want_of_a_price_is_told_what_to_do() {
    let mut world = World::default();
    world.lane.money.unpriced = Unpriced::Refuse;
    let api = world.serve().await;
    let job = r#"{"prompt":"hi","model":"glm-9"}"#;
    let reply = api.post("/api/glm/jobs", job).await;
    assert_eq!(kind(&reply.expect(422)), "unpriced-model");
    assert_eq!(reply.json()["errors"][0]["field"], "model");
    let detail = reply.detail();
    assert!(
        detail.contains("model glm-9 has no price in CNY"),
        "{detail}"
    );
    assert!(detail.contains("add its price to money.prices"), "{detail}");
    let chat = r#"{"model":"glm-9","messages":[{"role":"user","content":"hi"}]}"#;
    let reply = api.post("/v1/chat/completions", chat).await;
    assert_eq!(reply.expect(422)["error"]["code"], "1211");
}
