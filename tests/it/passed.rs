//! Guards: what a client says to GLM in the headers of its protocol reaches GLM, and what GLM says in its own comes back.

use std::sync::{Arc, Mutex};

use onelane::model::JobId;
use serde_json::{Value, json};

use crate::batches_http::form_of;
use crate::streams::{HEAD, chunk, last, piece, rest};
use crate::support::api::Api;
use crate::support::http::{HttpLane, stop, until};
use crate::support::shows;
use crate::support::upstream::{Arrived, Upstream};

const MESSAGE: &str = r#"{ "type":"message","id":"msg_1","role":"assistant","content":[{"type":"text","text":"A"}],"stop_reason":"end_turn","usage":{"input_tokens":4,"output_tokens":5}}"#;

fn message() -> String {
    json!({"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_version_and_betas_that_a_client_of_the_messages_names_reach_glm_after_a_restart_too() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&heads);
    let upstream = Upstream::start(move |mut call: Arrived<'_>| {
        heard.lock().unwrap().push(call.head.clone());
        let chat = call.completion("A").to_string();
        match call.head.contains("/v1/messages") {
            true => call.answer(200, "content-type: application/json\r\n", MESSAGE),
            false => call.answer(200, "content-type: application/json\r\n", chat),
        }
    });
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let post = |path: &str, body: String| {
        let request = api.posting(path, body);
        let request = request.header("anthropic-version", "2024-10-22");
        request
            .header("anthropic-beta", "a-1")
            .header("anthropic-beta", "b-2,c-3")
    };
    Api::send(post("/v1/messages", message())).await.expect(200);
    let head = || heads.lock().unwrap().pop().expect("a call");
    let sent = head();
    assert!(sent.contains("anthropic-version: 2024-10-22\r\n"), "{sent}");
    assert!(sent.contains("anthropic-beta: a-1,b-2,c-3\r\n"), "{sent}");
    api.post("/v1/messages", message()).await.expect(200);
    let sent = head();
    assert!(sent.contains("anthropic-version: 2023-06-01\r\n"), "{sent}");
    assert!(!sent.contains("anthropic-beta"), "{sent}");
    let chat = json!({"messages": [{"role": "user", "content": "hi"}]}).to_string();
    Api::send(post("/v1/chat/completions", chat))
        .await
        .expect(200);
    let sent = head();
    assert!(
        !sent.contains("anthropic"),
        "it is no header of a chat: {sent}"
    );

    // Jobs of that face, and lines of a file that are, have those of the request that hands them in.
    let job = json!({"face": "messages", "request": {"max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}]}});
    let list = json!([job, {"prompt": "hi"}]).to_string();
    let taken = Api::send(post("/api/glm/jobs", list)).await.expect(202);
    for n in [0, 1] {
        api.completed(taken["jobs"][n]["id"].as_str().unwrap())
            .await;
    }
    let sent = [head(), head()];
    for sent in sent {
        let is_message = sent.contains("/v1/messages");
        let has_it = sent.contains("anthropic-version: 2024-10-22\r\n");
        assert_eq!(has_it, is_message, "{sent}");
    }
    let body: Value = serde_json::from_str(&message()).unwrap();
    let line = json!({"custom_id": "a", "method": "POST", "url": "/v1/messages", "body": body});
    let (form, media) = form_of(&line.to_string());
    let file = api.request(reqwest::Method::POST, "/v1/files");
    let file = Api::send(file.header("content-type", media).body(form)).await;
    let new = json!({"input_file_id": file.expect(200)["id"], "endpoint": "/v1/messages"});
    Api::send(post("/v1/batches", new.to_string()))
        .await
        .expect(200);
    until("the line is called", async || {
        !heads.lock().unwrap().is_empty()
    })
    .await;
    let sent = head();
    assert!(sent.contains("anthropic-version: 2024-10-22\r\n"), "{sent}");
    assert!(sent.contains("anthropic-beta: a-1,b-2,c-3\r\n"), "{sent}");

    let long = post("/v1/messages", message()).header("anthropic-beta", "x".repeat(1_024));
    let refused = Api::send(long).await.expect(400);
    let words = refused["error"]["message"].as_str().unwrap();
    assert!(words.contains("anthropic-beta"), "{words}");

    // With a key the job stays when the lane can't serve it now.
    api.order("pause", json!({"reason": "a test"})).await;
    let kept = post("/v1/messages", message()).header("idempotency-key", "k");
    Api::send(kept).await.expect(503);
    api.stop().await;
    let lane = world.restart(lane).await;
    lane.resume().await.expect("it goes on");
    until("it is called", async || !heads.lock().unwrap().is_empty()).await;
    let sent = head();
    assert!(sent.contains("anthropic-version: 2024-10-22\r\n"), "{sent}");
    assert!(sent.contains("anthropic-beta: a-1,b-2,c-3\r\n"), "{sent}");
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_id_by_which_glm_names_a_call_comes_back_with_it_and_is_kept() {
    let upstream = Upstream::start(move |mut call: Arrived<'_>| {
        let id = format!(
            "x-log-id: log-{}\r\nrequest-id: req-{}\r\n",
            call.no, call.no
        );
        match call.prompt() {
            "stream" => {
                let head = HEAD.replace("content-type", &format!("{id}content-type"));
                call.say(head);
                call.say(
                    chunk(&piece("A")) + &chunk(&last()) + &chunk("data: [DONE]\n\n") + &chunk(""),
                );
            }
            "bad" => {
                let error = r#"{"error":{"code":"1210","message":"no"}}"#;
                call.answer(
                    400,
                    &format!("{id}content-type: application/json\r\n"),
                    error,
                );
            }
            _ => {
                let answer = call.completion("A").to_string();
                call.answer(200, &id, answer);
            }
        }
    });
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    for (n, (prompt, status)) in [("hi", 200), ("bad", 400), ("stream", 200)]
        .into_iter()
        .enumerate()
    {
        let asked = json!({"messages": [{"role": "user", "content": prompt}], "stream": prompt == "stream"});
        let sent = api
            .posting("/v1/chat/completions", asked.to_string())
            .send();
        let response = sent.await.unwrap();
        assert_eq!(response.status(), status);
        let headers = response.headers();
        assert_eq!(headers["x-log-id"], format!("log-{n}"), "{prompt}");
        assert_eq!(headers["request-id"], format!("req-{n}"), "{prompt}");
        let job: JobId = headers["x-onelane-job"].to_str().unwrap().parse().unwrap();
        rest(response).await;
        lane.wait(job).await.unwrap();
        let seen = api.job(&job.to_string()).await;
        let ids = json!({"x-log-id": format!("log-{n}"), "request-id": format!("req-{n}")});
        assert_eq!(seen["attempts"][0]["callIds"], ids, "{seen}");
    }
    // Of what was handed over, with its result.
    let chat = json!({"messages": [{"role": "user", "content": "hi"}]}).to_string();
    let task = api.post("/api/paas/v4/async/chat/completions", chat).await;
    let task = task.expect(200)["id"].as_str().unwrap().to_owned();
    lane.wait(task.parse().unwrap()).await.unwrap();
    let result = api.get(&format!("/api/paas/v4/async-result/{task}")).await;
    assert_eq!(result.headers["x-log-id"], "log-3");
    assert_eq!(result.headers["x-onelane-attempts"], "1");
    shows!(result.expect(200), {"id": task, "request_id": task, "task_status": "SUCCESS"});
    drop(api);
    stop(lane, 1_000).await;
}

/// The test runs in a build that exports nothing, as the program is shipped.
#[cfg(not(feature = "otlp"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traceparent_is_neither_kept_nor_passed_on_where_nothing_is_exported() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&heads);
    let upstream = Upstream::start(move |mut call: Arrived<'_>| {
        heard.lock().unwrap().push(call.head.clone());
        let chat = call.completion("A").to_string();
        call.answer(200, "content-type: application/json\r\n", chat);
    });
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let chat = json!({"messages": [{"role": "user", "content": "hi"}]}).to_string();
    let request = api
        .posting("/v1/chat/completions", chat)
        .header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
        .header("tracestate", "a=1");
    Api::send(request).await.expect(200);
    let sent = heads.lock().unwrap().pop().expect("a call");
    assert!(
        !sent.contains("traceparent") && !sent.contains("tracestate"),
        "{sent}"
    );
    api.stop().await;
    stop(lane, 1_000).await;
}
