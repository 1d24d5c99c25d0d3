//! Guards: an answer belongs to its call, a paid answer is not thrown away, and what GLM said reaches the client as it
//! came; on the real thing, against servers and relays that misbehave.

use std::sync::Mutex;

use onelane::model::{
    AlertKey, CallOutcome, CallRecord, FailureClass, HoldKind, JobId, JobStatus, Reuse, code,
    limits,
};
use onelane::orchestrator::Orchestrator;
use serde_json::{Value, json};

use crate::support::api::{Api, Reply};
use crate::support::http::{HttpLane, completed, ended, prompt, stop, until, until_held};
use crate::support::shows;
use crate::support::upstream::{Arrived, Upstream, completion};

/// A lane to this server.
fn lane_to(upstream: &Upstream) -> HttpLane {
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    world
}

async fn submit(lane: &Orchestrator, text: &str) -> JobId {
    lane.submit(prompt(text)).await.expect("it is taken").job_id
}

async fn attempts(lane: &Orchestrator, id: JobId) -> Vec<CallRecord> {
    lane.job(id).await.expect("the job is there").attempts
}

fn right(mut call: Arrived<'_>) {
    let text = format!("to {}", call.prompt());
    let answer = call.completion(&text);
    call.answer(200, "", answer.to_string());
}

/// A proxy that answers each further request of a connection with what it answered before.
fn off_by_one() -> Upstream {
    let last = Mutex::new(String::new());
    Upstream::start(move |mut call| {
        let text = format!("to {}", call.prompt());
        let own = call.completion(&text).to_string();
        let before = std::mem::replace(&mut *last.lock().unwrap(), own.clone());
        match call.no_on_connection {
            0 => call.answer(200, "", own),
            _ => call.answer(200, "", before),
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_job_gets_the_answer_of_another_one() {
    for reuse in [Reuse::Echoed, Reuse::Always] {
        let upstream = off_by_one();
        let mut world = lane_to(&upstream);
        world.config.glm.reuse = reuse;
        let lane = world.start().await;
        let mut jobs = Vec::new();
        for no in 0..30 {
            let text = format!("job {no}");
            jobs.push((submit(&lane, &text).await, text));
        }
        for (id, text) in jobs {
            let record = completed(&lane, id).await;
            assert_eq!(record.text().unwrap(), format!("to {text}"));
            for call in attempts(&lane, id).await {
                if call.outcome == CallOutcome::Completed {
                    continue;
                }
                let failure = call.failure.unwrap();
                assert_eq!(failure.class, FailureClass::ForeignAnswer);
                assert_eq!(failure.code, code::FOREIGN_ANSWER);
                assert!(call.maybe_billed && call.usage.total_tokens == 0);
                assert!(call.received.unwrap().contains("to job"), "it is kept");
            }
        }
        let calls = upstream.seen().len();
        assert!((31..=90).contains(&calls), "{calls}");
        stop(lane, 1_000).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_surplus_answer_on_a_kept_connection_reaches_nobody() {
    let upstream = Upstream::start(|mut call| {
        let text = format!("to {}", call.prompt());
        let answer = call.completion(&text).to_string();
        call.answer(200, "", &answer);
        call.answer(200, "", &answer);
    });
    let world = lane_to(&upstream);
    let lane = world.start().await;
    for no in 0..25 {
        let text = format!("job {no}");
        let record = completed(&lane, submit(&lane, &text).await).await;
        assert_eq!(record.text().unwrap(), format!("to {text}"));
    }
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_foreign_answer_in_a_row_holds_the_account_and_tells_an_operator() {
    let first = Mutex::new(None);
    let upstream = Upstream::start(move |mut call| {
        let own = call.completion("secret of job 0").to_string();
        let first = first.lock().unwrap().get_or_insert(own).clone();
        call.answer(200, "", first);
    });
    let mut world = lane_to(&upstream);
    world.config.alerts.every_ms = 100;
    let lane = world.start().await;
    completed(&lane, submit(&lane, "job 0").await).await;
    let id = submit(&lane, "job 1").await;
    until_held(&lane).await;
    let hold = lane.lane().await.unwrap().hold.unwrap();
    assert_eq!(
        (hold.kind, hold.code.as_str()),
        (HoldKind::Operator, code::FOREIGN_ANSWER)
    );
    assert_eq!(upstream.seen().len(), 3, "no call after the second one");
    let key = AlertKey::of("foreign_answer");
    until("an operator is told", async || {
        lane.alerts().active(&key).is_some()
    })
    .await;
    // Whoever asks for the job sees nothing of another one's answer.
    let api = Api::serve(&lane).await;
    let shown = api.get(&format!("/api/glm/jobs/{id}?attempts=true")).await;
    assert!(!shown.text.contains("secret of job 0"), "{shown:?}");
    let calls = attempts(&lane, id).await;
    assert!(calls.iter().all(|call| call.received.is_some()));
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_names_ids_of_its_own_from_the_first_answer_on_is_no_fault() {
    let upstream = Upstream::start(|mut call| {
        let id = match call.no % 2 {
            0 => json!(format!("relay-{}", call.no)),
            // As another lane between here and GLM has them.
            _ => json!(format!("{:032x}-1", call.no + 1)),
        };
        let answer = completion("well", &id);
        call.answer(200, "", answer.to_string());
    });
    let world = lane_to(&upstream);
    let lane = world.start().await;
    for no in 0..10 {
        completed(&lane, submit(&lane, &format!("job {no}")).await).await;
    }
    assert_eq!(upstream.seen().len(), 10);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_with_an_id_of_the_platform_is_an_error_of_the_call() {
    let upstream = Upstream::start(|mut call| match call.no {
        0 => right(call),
        _ => call.answer(
            400,
            "",
            r#"{"error":{"code":"1210","message":"no"},"request_id":"20261128-platform"}"#,
        ),
    });
    let world = lane_to(&upstream);
    let lane = world.start().await;
    completed(&lane, submit(&lane, "job 0").await).await;
    let record = ended(&lane, submit(&lane, "job 1").await, JobStatus::Failed).await;
    assert_eq!(record.job.error.unwrap().code, "1210");
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_an_earlier_process_issued_is_known_for_that_of_another_call() {
    let first = Mutex::new(Value::Null);
    let upstream = Upstream::start(move |mut call| match call.no {
        0 => {
            *first.lock().unwrap() = call.body["request_id"].clone();
            right(call);
        }
        1 => {
            let stale = json!({"error": {"code": "1210", "message": "of the other"},
                "request_id": *first.lock().unwrap()});
            call.answer(400, "", stale.to_string());
        }
        _ => right(call),
    });
    let world = lane_to(&upstream);
    let lane = world.start().await;
    completed(&lane, submit(&lane, "job 0").await).await;
    stop(lane, 1_000).await;
    let lane = world.start().await;
    let id = submit(&lane, "job 1").await;
    completed(&lane, id).await;
    let calls = attempts(&lane, id).await;
    let classes: Vec<_> = calls
        .iter()
        .filter_map(|call| call.failure.as_ref())
        .collect();
    assert_eq!(classes[0].class, FailureClass::ForeignAnswer);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_can_not_be_read_is_kept_and_bought_twice_at_most() {
    for (body, headers) in [
        (r#"{"choices":[{"message":{"content":"cut"#.to_owned(), ""),
        (r#"{"usage":{"prompt_tokens":5}}"#.to_owned(), ""),
        ("\u{1}packed".to_owned(), "content-encoding: br\r\n"),
        (format!("paid for{}", " ".repeat(200_000)), ""),
    ] {
        let said = body.clone();
        let upstream = Upstream::start(move |mut call| call.answer(200, headers, &said));
        let world = lane_to(&upstream);
        let lane = world.start().await;
        let id = submit(&lane, "job").await;
        let record = ended(&lane, id, JobStatus::Failed).await;
        assert_eq!(upstream.seen().len(), 2, "{body:.40}");
        let failure = record.job.error.unwrap();
        assert_eq!(failure.code, code::BODY_INVALID);
        if headers.contains("br") {
            assert!(failure.message.contains("packed with br"), "{failure}");
        }
        for call in attempts(&lane, id).await {
            let kept = call.received.unwrap();
            assert!(body.starts_with(&*kept) && !kept.is_empty(), "{kept:.40}");
            assert!(kept.len() <= limits::KEPT_ANSWER_BYTES_MAX);
        }
        stop(lane, 1_000).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttle_in_a_frame_under_a_success_is_a_throttle_and_no_purchase() {
    let upstream = Upstream::start(|mut call| {
        match call.no {
        0 => call.answer(
            200,
            "content-type: text/event-stream\r\n",
            "data: {\"error\":{\"code\":\"1302\",\"message\":\"您的账户已达到速率限制\"}}\n\ndata: [DONE]\n\n",
        ),
        _ => right(call),
    }
    });
    let world = lane_to(&upstream);
    let lane = world.start().await;
    let id = submit(&lane, "job").await;
    let record = completed(&lane, id).await;
    assert_eq!((record.job.retry_count, record.job.throttles), (0, 1));
    let calls = attempts(&lane, id).await;
    let throttled = calls.iter().find_map(|call| call.failure.as_ref()).unwrap();
    assert_eq!(
        (throttled.class, throttled.maybe_billed),
        (FailureClass::Throttle, false)
    );
    // What GLM says in Chinese is told in English, too.
    assert!(
        throttled.message.starts_with("您的账户已达到速率限制 ["),
        "{throttled}"
    );
    assert!(
        throttled.message.contains("goes on by itself"),
        "{throttled}"
    );
    stop(lane, 1_000).await;
}

/// What a client of the gateway gets when GLM answers so, and how often GLM was called.
async fn through_the_gateway(status: u16, body: &str) -> (Reply, usize) {
    let said = body.to_owned();
    let upstream = Upstream::start(move |mut call| call.answer(status, "", &said));
    let world = lane_to(&upstream);
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let chat = json!({"messages": [{"role": "user", "content": "hi"}]}).to_string();
    let reply = api.post("/v1/chat/completions", chat).await;
    api.stop().await;
    stop(lane, 1_000).await;
    (reply, upstream.seen().len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_cut_by_moderation_is_the_200_that_it_was() {
    let body = r#"{"choices":[{"finish_reason":"sensitive","index":0,"message":{"content":"half","role":"assistant"}}],
 "contentFilter":[{"level":1,"role":"assistant"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}"#;
    let (reply, calls) = through_the_gateway(200, body).await;
    assert_eq!((reply.status, calls), (200, 1));
    assert_eq!(reply.text, body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_glm_reaches_the_client_to_the_byte_with_its_meaning() {
    for (status, body) in [
        (
            400,
            r#"{"contentFilter":[{"level":1,"role":"user"}],"error":{"code":"1301","message":"系统检测到输入或生成内容可能包含不安全或敏感内容"}}"#,
        ),
        (
            422,
            r#"{"detail":[{"loc":["body","top_p"],"msg":"too large"}]}"#,
        ),
        (
            400,
            r#"{"error":{"code":"context_length_exceeded","message":"too long","param":"messages"}}"#,
        ),
        (
            404,
            r#"{"error":{"code":"model_not_found","message":"no such model"}}"#,
        ),
    ] {
        let (reply, calls) = through_the_gateway(status, body).await;
        assert_eq!((reply.status, calls), (status, 1), "{body}");
        assert_eq!(reply.text, body);
        assert_eq!(reply.headers["x-should-retry"], "false");
        assert!(!reply.headers["x-onelane-meaning"].is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_completion_is_a_4xx_and_never_bought_again_by_the_client() {
    for (body, want) in [
        (
            r#"{"error":{"code":"1210","message":"API 调用参数有误"}}"#,
            400,
        ),
        (
            r#"{"code":1210,"msg":"API 调用参数有误","success":false}"#,
            400,
        ),
        (
            r#"{"error":{"message":"[1210][API 调用参数有误][2026]"}}"#,
            400,
        ),
        (
            "data: {\"error\":{\"code\":\"1261\",\"message\":\"Prompt 超长\"}}\n\n",
            400,
        ),
        (r#"{"id":"x","object":"list"}"#, 422),
        ("ok", 422),
    ] {
        let (reply, _) = through_the_gateway(200, body).await;
        assert_eq!(reply.status, want, "{body}: {reply:?}");
        assert_eq!(reply.headers["x-should-retry"], "false");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_says_whose_text_was_judged_and_shows_what_glm_sent() {
    let body = r#"{"contentFilter":[{"level":1,"role":"user"}],"error":{"code":"1301","message":"系统检测到输入或生成内容可能包含不安全或敏感内容"}}"#;
    let upstream = Upstream::start(move |mut call| call.answer(400, "", body));
    let world = lane_to(&upstream);
    let lane = world.start().await;
    let id = submit(&lane, "job").await;
    ended(&lane, id, JobStatus::Failed).await;
    let api = Api::serve(&lane).await;
    let job = api.get(&format!("/api/glm/jobs/{id}")).await.expect(200);
    let message = job["errorMessage"].as_str().unwrap();
    for part in [
        "系统检测到",
        "judged sensitive",
        "the prompt (level 1",
        "reword",
    ] {
        assert!(message.contains(part), "{message}");
    }
    shows!(job, {"refusal": serde_json::from_str::<Value>(body).unwrap()});
    // Put back in line, it is as if it had never been answered.
    lane.retry(id).await.expect("it goes back");
    ended(&lane, id, JobStatus::Failed).await;
    stop(lane, 1_000).await;
}
