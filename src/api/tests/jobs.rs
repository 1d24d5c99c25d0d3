//! The endpoints for programs: submit now, fetch later, or chat as with GLM.

use std::time::Duration;

use onelane_actors::ports::{GlmAnswer, GlmOutcome};
use onelane_actors::testing::ScriptedGlm;
use onelane_core::model::{AnswerBody, Failure, FailureClass, Usage};
use onelane_core::testing::sample as rows;
use serde_json::json;

use super::{Running, World, kind, sample};

const JOBS: &str = "/api/glm/jobs";
const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"glm-5","messages":[{"role":"user","content":"hi"}]}"#;

/// A lane whose GLM ends every call so, at once.
async fn ending(outcome: GlmOutcome) -> Running {
    let world = World {
        glm: ScriptedGlm::new(move |_, _| (Duration::ZERO, outcome.clone())),
        ..World::default()
    };
    world.serve().await
}

async fn answering() -> Running {
    let answer = GlmAnswer {
        body: AnswerBody::new(sample::ANSWER).unwrap(),
        status_code: 200,
        usage: Usage::default(),
        model: None,
    };
    ending(GlmOutcome::Answered(answer)).await
}

#[tokio::test]
async fn a_job_is_accepted_with_its_id_and_place() {
    let api = Running::paused().await;
    let reply = api.post(JOBS, r#"{"prompt":"hi","priority":5}"#).await;
    let taken = reply.expect(202);
    let id = taken["id"].as_str().unwrap();
    assert_eq!(
        taken,
        json!({"id": id, "status": "pending", "created": true})
    );
    assert_eq!(reply.headers["location"], format!("{JOBS}/{id}"));
    let job = api.get(&format!("{JOBS}/{id}")).await.expect(202);
    assert_eq!(job["priority"], 5);
    let body = json!({"prompt": "second", "after": [id]}).to_string();
    let second = api.submit(&body).await;
    let job = api.get(&format!("{JOBS}/{second}")).await.json();
    assert_eq!(job["after"], json!([id]));
}

#[tokio::test]
async fn the_same_key_gives_the_same_job_where_it_has_got_to() {
    let api = answering().await;
    let send = || {
        let request = api.request("POST", JOBS).header("Idempotency-Key", "k");
        Running::send(request.body(r#"{"prompt":"hi"}"#))
    };
    let first = send().await.json();
    assert_eq!(first["created"], true);
    let id = first["id"].as_str().unwrap();
    api.get(&format!("{JOBS}/{id}?wait=30s")).await.expect(200);
    let again = send().await.expect(202);
    assert_eq!(
        again,
        json!({"id": id, "status": "completed", "created": false})
    );
    let request = api.request("POST", JOBS).header("Idempotency-Key", "k");
    let list = Running::send(request.body(r#"[{"prompt":"hi"}]"#)).await;
    assert_eq!(kind(&list.expect(400)), "invalid-header");
}

#[tokio::test]
async fn one_wrong_job_of_a_list_and_none_is_stored() {
    let api = Running::start().await;
    let body = r#"[{"prompt":"a"},7,{"prompt":""},{"prompt":"d","priority":"x"},{"prompt":"e"}]"#;
    let reply = api.post(JOBS, body).await.expect(400);
    let errors = reply["errors"].as_array().unwrap();
    let fields: Vec<_> = errors
        .iter()
        .map(|error| error["field"].as_str().unwrap())
        .collect();
    assert_eq!(fields, ["[1]", "[2].prompt", "[3].priority"]);
    let reply = api
        .post(JOBS, r#"[{"prompt":"a"},{"prompt":" "}]"#)
        .await
        .expect(400);
    assert_eq!(reply["errors"][0]["field"], "[1].prompt");
    assert_eq!(api.get("/api/admin/glm/queue").await.json()["total"], 0);
}

#[tokio::test]
async fn a_list_is_answered_element_by_element() {
    let api = Running::paused().await;
    let unknown = rows::job_id(9);
    let good = r#"{"prompt":"b"}"#;
    let bad = format!(r#"{{"prompt":"a","after":["{unknown}"]}}"#);
    let answer = api.post(JOBS, &format!("[{bad},{good}]")).await.expect(202);
    assert_eq!(
        (&answer["accepted"], &answer["refused"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(answer["jobs"][0]["error"]["status"], 422);
    assert_eq!(
        answer["jobs"][0]["error"]["errors"][0]["field"],
        "[0].after"
    );
    assert!(answer["jobs"][1]["id"].is_string());
    assert_eq!(
        api.post(JOBS, &format!("[{bad}]")).await.status,
        422,
        "none was taken"
    );
}

#[tokio::test]
async fn a_refusal_of_the_lane_has_its_status() {
    let world = World::after([rows::insert(1), rows::start(1), rows::fail(1, 1)]);
    let api = world.serve().await;
    let after = |n| format!(r#"{{"prompt":"a","after":["{}"]}}"#, rows::job_id(n));
    let reply = api.post(JOBS, &after(9)).await;
    assert_eq!(kind(&reply.expect(422)), "unknown-dependency");
    assert_eq!(reply.headers["content-type"], "application/problem+json");
    let reply = api.post(JOBS, &after(1)).await;
    assert_eq!(kind(&reply.expect(409)), "dependency-ended");
    api.lane.shutdown(Duration::from_secs(1)).await;
    let reply = api.post(JOBS, r#"{"prompt":"a"}"#).await;
    assert_eq!(kind(&reply.expect(503)), "stopped");
}

#[tokio::test]
async fn a_job_is_fetched_when_it_is_done_or_as_it_is() {
    let api = Running::paused().await;
    let id = api.submit(r#"{"prompt":"hi"}"#).await;
    let path = format!("{JOBS}/{id}");
    assert_eq!(api.get(&path).await.expect(202)["status"], "pending");
    let path = format!("{path}?wait=20ms");
    assert_eq!(api.get(&path).await.expect(202)["status"], "pending");

    let api = answering().await;
    let id = api.submit(r#"{"prompt":"hi"}"#).await;
    let reply = api.get(&format!("{JOBS}/{id}?wait=5m")).await;
    let job = reply.expect(200);
    assert!(
        reply
            .text
            .contains(&format!(r#""result":{}"#, sample::ANSWER))
    );
    assert_eq!(job.get("attempts"), None, "the call log is for operators");
    for query in ["", "?wait=1s"] {
        let path = format!("{JOBS}/{}{query}", rows::job_id(2));
        assert_eq!(api.get(&path).await.status, 404);
    }
}

#[tokio::test]
async fn a_program_gives_its_job_up_by_either_way() {
    let api = Running::paused().await;
    let (one, two) = (
        api.submit(r#"{"prompt":"1"}"#).await,
        api.submit(r#"{"prompt":"2"}"#).await,
    );
    let delete = api.request("DELETE", &format!("{JOBS}/{one}"));
    assert_eq!(
        Running::send(delete).await.expect(200),
        json!({"success": true})
    );
    let path = format!("{JOBS}/{two}/cancel");
    assert_eq!(Running::send(api.request("POST", &path)).await.status, 200);
    let again = Running::send(api.request("POST", &path)).await;
    assert_eq!(again.status, 200, "it is given up, as was asked");
    let api = answering().await;
    let id = api.submit(r#"{"prompt":"1"}"#).await;
    api.get(&format!("{JOBS}/{id}?wait=30s")).await.expect(200);
    let delete = api.request("DELETE", &format!("{JOBS}/{id}"));
    let late = Running::send(delete).await;
    assert_eq!(kind(&late.expect(409)), "wrong-status");
}

#[tokio::test]
async fn the_answer_of_glm_comes_back_to_the_byte() {
    let api = answering().await;
    for path in [
        CHAT,
        "/v1//chat/completions/?api-version=1",
        "/api/paas/v4/chat/completions",
    ] {
        let reply = api.post(path, BODY).await;
        assert_eq!((reply.status, reply.text.as_str()), (200, sample::ANSWER));
        assert!(reply.headers.contains_key("x-onelane-job"));
        assert!(reply.headers.contains_key("x-onelane-model"));
        assert_eq!(reply.headers["content-type"], "application/json");
    }
}

#[tokio::test]
async fn a_query_that_nobody_looks_at_may_be_anything() {
    let api = answering().await;
    for query in ["?x=%ff%00", "?%zz", "?api-version=1&api-version=2", "?"] {
        let reply = api.post(&format!("{CHAT}{query}"), BODY).await;
        assert_eq!(reply.status, 200, "{query} {reply:?}");
        let health = api.get(&format!("/healthz{query}")).await;
        assert_eq!(health.status, 200, "{query} {health:?}");
    }
    // Where somebody looks, it has to make sense.
    for query in ["?status=%ff", "?x=1", "?limit=1&limit=2"] {
        let reply = api.get(&format!("/api/admin/glm/queue{query}")).await;
        assert_eq!(reply.status, 400, "{query}");
    }
}

#[tokio::test]
async fn a_job_that_failed_answers_with_the_failure_of_glm() {
    let failure = Failure {
        status_code: Some(400),
        ..Failure::new(FailureClass::RequestFatal, "1210", "max_tokens too large")
    };
    let api = ending(GlmOutcome::Failed(failure, Usage::default())).await;
    let reply = api.post(CHAT, BODY).await;
    assert_eq!(
        reply.expect(400),
        json!({"error": {"code": "1210", "message": "max_tokens too large",
            "type": "invalid_request_error"}})
    );
    assert_eq!(reply.headers["x-should-retry"], "false");
    assert!(reply.headers.contains_key("x-onelane-job"));
}

#[tokio::test]
async fn every_fault_of_a_chat_has_the_shape_that_sdks_read() {
    let api = Running::start().await;
    let check = async |body: &str, code: &str, param: Option<&str>| {
        let error = api.post(CHAT, body).await.expect(400)["error"].clone();
        assert_eq!(error["code"], code, "{body}: {error}");
        assert_eq!(
            error.get("param"),
            param.map(|p| json!(p)).as_ref(),
            "{error}"
        );
        assert!(!error["message"].as_str().unwrap().is_empty());
    };
    check("{", "1210", None).await;
    check("[]", "1210", None).await;
    check("", "1210", None).await;
    check("{}", "1213", Some("messages")).await;
    check(r#"{"messages":[{}],"model":7}"#, "1214", Some("model")).await;
    check(r#"{"messages":[{}],"stream":1}"#, "1214", Some("stream")).await;
    check(r#"{"messages":[{}],"user":7}"#, "1214", Some("user")).await;
    check(r#"{"messages":[{}],"user_id":""}"#, "1214", Some("user_id")).await;

    let reply = api.get(CHAT).await;
    assert_eq!(reply.expect(405)["error"]["code"], "1222");
    assert_eq!(reply.headers["allow"], "POST");
    let reply = api.get("/v1/rerank").await;
    assert_eq!(reply.expect(404)["error"]["code"], "1222");
}
