//! The routes for OpenAI and GLM SDKs: submit, wait, answer verbatim.

use onelane_core::model::JobStatus;
use serde_json::json;

use super::{Reply, Running, sample};
use crate::error::Error;

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"glm-5","messages":[{"role":"user","content":"hi"}]}"#;

/// Sends a chat and lets its job end as `end`.
async fn chat_that_ends(api: &Running, path: &str, end: onelane_actors::ports::JobRecord) -> Reply {
    let finish = async {
        api.lane.until(|state| state.jobs.len() == 1).await;
        api.lane.with(|state| state.jobs[0] = end);
    };
    let (reply, ()) = tokio::join!(api.post(path, BODY), finish);
    reply
}

#[tokio::test]
async fn the_answer_of_glm_comes_back_to_the_byte() {
    for path in [
        CHAT,
        "/v1//chat/completions/?api-version=1",
        "/api/paas/v4/chat/completions",
    ] {
        let api = Running::start().await;
        let reply = chat_that_ends(&api, path, sample::completed(1)).await;
        assert_eq!((reply.status, reply.text.as_str()), (200, sample::ANSWER));
        assert_eq!(reply.headers["x-onelane-job-id"], sample::id(1).to_string());
        assert_eq!(reply.headers["content-type"], "application/json");
    }
}

#[tokio::test]
async fn an_answer_says_which_fallback_model_served_it() {
    let api = Running::start().await;
    let mut served = sample::completed(1);
    let reply = chat_that_ends(&api, CHAT, served.clone()).await;
    assert!(!reply.headers.contains_key("x-onelane-model"), "its own");
    served.job.served_by = Some("glm-4.5-air".to_owned());
    let api = Running::start().await;
    let reply = chat_that_ends(&api, CHAT, served).await;
    assert_eq!((reply.status, reply.text.as_str()), (200, sample::ANSWER));
    assert_eq!(reply.headers["x-onelane-model"], "glm-4.5-air");
}

#[tokio::test]
async fn a_closed_intake_keeps_sdks_from_asking_again() {
    let api = Running::start().await;
    let reason = Some("moving to another machine".to_owned());
    api.lane
        .with(|state| state.refusals.push(Error::Draining { reason }));
    let reply = api.post(CHAT, BODY).await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.headers["x-should-retry"], "false");
    let error = &reply.json()["error"];
    let message = error["message"].as_str().unwrap();
    assert!(message.ends_with("moving to another machine"), "{error}");
}

#[tokio::test]
async fn a_job_that_failed_answers_with_the_failure_of_glm() {
    let api = Running::start().await;
    let reply = chat_that_ends(&api, CHAT, sample::failed(1)).await;
    assert_eq!(reply.status, 400);
    assert_eq!(
        reply.json(),
        json!({"error": {"code": "1210", "message": "max_tokens too large",
            "type": "invalid_request_error"}})
    );
    assert_eq!(reply.headers["x-should-retry"], "false");
    assert_eq!(reply.headers["x-onelane-job-id"], sample::id(1).to_string());
}

#[tokio::test]
async fn a_job_that_was_cancelled_says_so() {
    let api = Running::start().await;
    let mut cancelled = sample::waiting(1);
    cancelled.job.status = JobStatus::Cancelled;
    let reply = chat_that_ends(&api, CHAT, cancelled).await;
    assert_eq!(reply.status, 409);
    assert_eq!(reply.headers["x-should-retry"], "false");
}

#[tokio::test]
async fn every_fault_has_the_shape_that_sdks_read() {
    let api = Running::start().await;
    let check = async |body: &str, status: u16, code: &str, param: Option<&str>| {
        let reply = api.post(CHAT, body).await;
        assert_eq!(reply.status, status, "{body}: {reply:?}");
        let error = &reply.json()["error"];
        assert_eq!(error["code"], code, "{body}: {error}");
        assert_eq!(
            error.get("param"),
            param.map(|p| json!(p)).as_ref(),
            "{error}"
        );
        assert!(!error["message"].as_str().unwrap().is_empty());
    };
    check("{", 400, "1210", None).await;
    check("[]", 400, "1210", None).await;
    check("", 400, "1210", None).await;
    check("{}", 400, "1213", Some("messages")).await;
    check(r#"{"messages":[{}],"model":7}"#, 400, "1214", Some("model")).await;
    check(
        r#"{"messages":[{}],"stream":true}"#,
        400,
        "1210",
        Some("stream"),
    )
    .await;
    check(
        r#"{"messages":[{}],"stream":1}"#,
        400,
        "1214",
        Some("stream"),
    )
    .await;
    check(r#"{"messages":[{}],"user":7}"#, 400, "1214", Some("user")).await;
    check(
        r#"{"messages":[{}],"user_id":""}"#,
        400,
        "1214",
        Some("user_id"),
    )
    .await;

    let reply = api.get(CHAT).await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (405, &json!("1222"))
    );
    assert_eq!(reply.headers["allow"], "POST");
    let reply = api.get("/v1/models").await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (404, &json!("1222"))
    );
}

#[tokio::test]
async fn a_full_queue_keeps_sdks_from_asking_again_at_once() {
    let api = Running::start().await;
    api.lane
        .with(|state| state.refusals.push(Error::QueueFull { limit: 7 }));
    let reply = api.post(CHAT, BODY).await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (429, &json!("1302"))
    );
    assert_eq!(reply.headers["x-should-retry"], "false");
    assert_eq!(reply.headers["retry-after"], "5");
}

#[tokio::test]
async fn a_client_that_goes_away_gives_its_job_up() {
    let api = Running::start().await;
    let request = api.request("POST", CHAT).body(BODY).send();
    let submitted = api.lane.until(|state| state.jobs.len() == 1);
    tokio::select! {
        biased;
        reply = request => panic!("nobody ended the job: {reply:?}"),
        () = submitted => {}
    }
    let cancelled = |state: &super::fake::State| state.jobs[0].job.status == JobStatus::Cancelled;
    api.lane.until(cancelled).await;
}

#[tokio::test]
async fn a_client_with_a_key_may_come_back_for_its_job() {
    let api = Running::start().await;
    let send = || {
        let request = api.request("POST", CHAT).header("idempotency-key", "k");
        request.body(BODY)
    };
    let submitted = api.lane.until(|state| state.jobs.len() == 1);
    tokio::select! {
        biased;
        reply = send().send() => panic!("nobody ended the job: {reply:?}"),
        () = submitted => {}
    }
    // The connection above is closed. Whoever asks again finds the job as it was.
    let again = Running::send(send());
    let finish = async {
        api.lane.with(|state| {
            assert_eq!(state.jobs[0].job.status, JobStatus::Pending);
            state.jobs[0].job.status = JobStatus::Completed;
            state.jobs[0].response = sample::completed(1).response;
        });
    };
    let (reply, ()) = tokio::join!(again, finish);
    assert_eq!((reply.status, reply.text.as_str()), (200, sample::ANSWER));
    assert_eq!(api.lane.with(|state| state.jobs.len()), 1);
}
