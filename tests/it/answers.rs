//! Guards: an answer belongs to its call, a paid answer is not thrown away, and what GLM said reaches the client as it
//! came; on the real thing, against servers and relays that misbehave.

use std::sync::Mutex;

use onelane::model::{
    AlertKey, CallOutcome, CallRecord, FailureClass, HoldKind, JobId, JobRule, JobStatus,
    PolicyOverride, Reuse, code, limits,
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
        ("\u{1}packed".to_owned(), "content-encoding: compress\r\n"),
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
        if headers.contains("compress") {
            assert!(
                failure.message.contains("packed with compress"),
                "{failure}"
            );
        }
        for call in attempts(&lane, id).await {
            let kept = call.received.unwrap();
            assert!(body.starts_with(&*kept) && !kept.is_empty(), "{kept:.40}");
            assert!(kept.len() <= limits::KEPT_ANSWER_BYTES_MAX);
        }
        stop(lane, 1_000).await;
    }
}

/// How an answer ends before its time.
#[derive(Clone, Copy)]
enum Broken {
    /// The connection ends, before the status or behind so much of an answer.
    Before,
    Behind(&'static str),
    /// Nothing more comes.
    Silent(&'static str),
    /// More is announced than is taken.
    TooLarge,
}

impl Broken {
    fn tell(self, call: &mut Arrived<'_>, status: u16) {
        let head =
            |length: usize| format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n");
        match self {
            Self::Before => {}
            Self::Behind(begun) | Self::Silent(begun) => {
                call.say(head(begun.len() + 50));
                call.say(begun);
            }
            Self::TooLarge => call.say(head(limits::RESPONSE_BYTES_MAX + 1)),
        }
        if !matches!(self, Self::Silent(_)) {
            let _ = call.stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

const BEGUN: &str = r#"{"choices":[{"message":{"content":"paid fo"#;

/// A server whose answers end so, one after the other, and then a lane to it.
fn breaking(ends: impl IntoIterator<Item = Broken>) -> (Upstream, HttpLane) {
    let ends: Vec<Broken> = ends.into_iter().collect();
    let upstream = Upstream::start(move |mut call| match ends.get(call.no) {
        Some(end) => end.tell(&mut call, 200),
        None => right(call),
    });
    let mut world = lane_to(&upstream);
    world.config.glm.timeouts.idle_ms = 100;
    (upstream, world)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_had_begun_and_broke_off_is_kept_and_bought_twice_at_most() {
    use Broken::{Behind, Silent, TooLarge};
    for (first, second, begun) in [
        (Behind(BEGUN), Behind(BEGUN), true),
        (Silent(BEGUN), Silent(BEGUN), true),
        (Behind(BEGUN), Silent(BEGUN), true),
        (Silent(BEGUN), TooLarge, false),
        // GLM had begun all the same.
        (Behind(""), Silent(""), false),
    ] {
        let (upstream, world) = breaking([first, second]);
        let lane = world.start().await;
        let id = submit(&lane, "job").await;
        let record = ended(&lane, id, JobStatus::Failed).await;
        assert_eq!(upstream.seen().len(), 2);
        assert_eq!(record.job.error.unwrap().status_code, Some(200));
        let calls = attempts(&lane, id).await;
        assert_eq!(calls.len(), 2);
        for call in calls {
            assert!(call.maybe_billed);
            if begun {
                assert_eq!(call.received.as_deref(), Some(BEGUN));
            }
        }
        stop(lane, 1_000).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_broke_off_once_is_bought_once_more_and_taken() {
    let (upstream, world) = breaking([Broken::Behind(BEGUN)]);
    let lane = world.start().await;
    let record = completed(&lane, submit(&lane, "job").await).await;
    assert_eq!(record.job.retry_count, 1);
    assert_eq!(upstream.seen().len(), 2);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_before_its_status_is_tried_as_often_as_retries_allow_and_policy_wins_for_all() {
    let (upstream, world) = breaking([Broken::Before; 3]);
    let lane = world.start().await;
    completed(&lane, submit(&lane, "job").await).await;
    assert_eq!(upstream.seen().len(), 4);
    stop(lane, 1_000).await;

    let (upstream, mut world) = breaking([Broken::Behind(BEGUN); 3]);
    let word = PolicyOverride {
        job: Some(JobRule::Backoff),
        ..PolicyOverride::default()
    };
    world
        .config
        .policy
        .insert(code::CONNECTION.to_owned(), word);
    let lane = world.start().await;
    completed(&lane, submit(&lane, "job").await).await;
    assert_eq!(upstream.seen().len(), 4);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_says_all_it_has_to_is_taken_although_its_connection_broke_off() {
    let upstream = Upstream::start(|mut call| {
        let whole = match call.no {
            0 => "data: {\"error\":{\"code\":\"1302\",\"message\":\"slow down\"}}\n\n".to_owned(),
            _ => {
                let answer = call.completion("well").to_string();
                format!("data: {answer}\n\ndata: [DO")
            }
        };
        let length = whole.len() + 50;
        call.say(format!(
            "HTTP/1.1 200 X\r\ncontent-length: {length}\r\n\r\n{whole}"
        ));
        let _ = call.stream.shutdown(std::net::Shutdown::Both);
    });
    let world = lane_to(&upstream);
    let lane = world.start().await;
    let record = completed(&lane, submit(&lane, "job").await).await;
    assert_eq!((record.job.throttles, record.job.retry_count), (1, 0));
    assert_eq!(record.text().unwrap(), "well");
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_in_any_coding_is_taken() {
    const BROTLI: &[u8] = b"\x1b\xab\x00\x20\x1c\x85\x71\x1b\x1d\x06\xe5\x9d\xa2\x48\x9b\x55\x89\x87\xf7\x56\xea\x2f\x24\xb3\x99\x16\x04\x21\x19\x83\xf4\x43\xab\x77\xd9\x5b\x0a\xda\x3a\x2c\x5d\x7d\x75\x72\x1a\xa8\x07\x49\x9a\x3c\x88\xb2\xa2\xb6\x20\xa5\xdc\xc6\xce\x32\x2c\x34\xe3\x67\xe1\xe4\x8a\x16\xd2\xa2\x5d\x1a\xa0\xdd\x65\x68\x93\x42\x4d\x42\x0b\xe0\x4b\xaa\xfb\xe9\x9f\x18\x14\xf0\x7e\xfb\x97\xc7\x9d\x6b\xcf\xb1\x6e\xdf\xe1\x73\x28\x09\xa0\x14\x28\xb3\x56\xc1\x50\x7f";
    let upstream = Upstream::start(|mut call| {
        let text = call.completion("packed 你好").to_string();
        let zstd = || {
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            ruzstd::encoding::compress_to_vec(text.as_bytes(), level)
        };
        let (coding, body) = match call.no {
            0 => ("br", BROTLI.to_vec()),
            1 => ("zstd", zstd()),
            _ => ("identity, zstd", zstd()),
        };
        call.answer(200, &format!("content-encoding: {coding}\r\n"), body);
    });
    let world = lane_to(&upstream);
    let lane = world.start().await;
    for no in 0..3 {
        let record = completed(&lane, submit(&lane, &format!("job {no}")).await).await;
        assert_eq!(record.text().unwrap(), "packed 你好");
    }
    assert_eq!(upstream.seen().len(), 3);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_what_came_instead_of_an_answer() {
    let (_upstream, world) = breaking([Broken::Behind(BEGUN)]);
    let lane = world.start().await;
    let id = submit(&lane, "job").await;
    completed(&lane, id).await;
    let api = Api::serve(&lane).await;
    let of = |attempt: u32| format!("/api/admin/glm/maybe-billed/{id}/{attempt}/received");
    let came = api.get(&of(1)).await.expect(200);
    assert_eq!(came, json!({"received": BEGUN}));
    for attempt in [2, 3] {
        let none = api.get(&of(attempt)).await.expect(404);
        let detail = none["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("attempt {attempt}")), "{detail}");
    }
    // Settled, it is seen all the same.
    let billed = json!({"billed": false}).to_string();
    let settle = format!("/api/admin/glm/maybe-billed/{id}/1");
    assert_eq!(api.post(&settle, billed).await.status, 200);
    assert_eq!(api.get(&of(1)).await.expect(200), came);
    // Who asks for the job, and the list of attempts, get no bodies.
    let shown = api.get(&format!("/api/glm/jobs/{id}?attempts=true")).await;
    assert!(!shown.text.contains("paid fo"), "{shown:?}");
    stop(lane, 1_000).await;
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
    typed_through_the_gateway(status, "", body).await
}

/// The same, with headers of GLM's.
async fn typed_through_the_gateway(
    status: u16,
    headers: &'static str,
    body: &str,
) -> (Reply, usize) {
    let said = body.to_owned();
    let upstream = Upstream::start(move |mut call| call.answer(status, headers, &said));
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
async fn an_error_body_of_any_kind_reaches_the_client_to_the_byte_with_its_type() {
    const TEXT: &str = "content-type: text/plain; charset=utf-8\r\n";
    const PROBLEM: &str = "content-type: application/problem+json\r\n";
    const JSON: &str = "application/json";
    for (status, headers, body, media) in [
        (
            400,
            TEXT,
            "the prompt 你 is refused\r\n",
            "text/plain; charset=utf-8",
        ),
        (400, "", "no", "text/plain; charset=utf-8"),
        (
            413,
            PROBLEM,
            "[ \"too\", 1.50 ]",
            "application/problem+json",
        ),
        (422, "", "[{\"loc\":[\"body\"],\"msg\":\"no\"}]", JSON),
        (415, "", "42", JSON),
        (400, "", " {\"error\" : {\"code\":\"1210\"}}\n\n", JSON),
        (
            400,
            "content-type: text/html\r\n",
            "<html><body>no</body></html>",
            "text/html",
        ),
    ] {
        let (reply, calls) = typed_through_the_gateway(status, headers, body).await;
        assert_eq!((reply.status, calls), (status, 1), "{body}");
        assert_eq!(reply.text, body);
        assert_eq!(reply.headers["content-type"], media, "{body}");
        assert_eq!(reply.headers["x-should-retry"], "false");
        assert!(!reply.headers["x-onelane-meaning"].is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_refused_one_prompt_reaches_its_client_although_others_had_to_show_whose_fault_it_was()
{
    const BLOCKED: &str = "blocked by the firewall, rule 7\n";
    let (both_wait, told) = std::sync::mpsc::channel::<()>();
    let told = Mutex::new(told);
    let upstream = Upstream::start(move |mut call| match call.prompt() {
        "bad" => call.answer(403, "content-type: text/plain\r\n", BLOCKED),
        "first" => {
            told.lock().unwrap().recv().unwrap();
            right(call);
        }
        _ => right(call),
    });
    let world = lane_to(&upstream);
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    submit(&lane, "first").await;
    until("it is open", async || !upstream.seen().is_empty()).await;
    let chat = |text: &str| json!({"messages": [{"role": "user", "content": text}]}).to_string();
    let (bad, good) = (chat("bad"), chat("good"));
    let bad = api.post("/v1/chat/completions", bad);
    let rest = async {
        let pending = async || lane.queue_status().await.unwrap().pending;
        until("the first waits", async || pending().await == 1).await;
        let good = api.post("/v1/chat/completions", good);
        let go_on = async {
            until("both wait", async || pending().await == 2).await;
            both_wait.send(()).unwrap();
        };
        tokio::join!(good, go_on).0
    };
    let (bad, good) = tokio::join!(bad, rest);
    assert_eq!(good.status, 200);
    assert_eq!((bad.status, bad.text.as_str()), (403, BLOCKED));
    assert_eq!(bad.headers["content-type"], "text/plain");
    let id = bad.headers["x-onelane-job"].to_str().unwrap();
    shows!(api.job(id).await, {"refusal": BLOCKED, "attemptCount": 1});
    // Tried again alone, it ends as any other.
    let id: JobId = id.parse().unwrap();
    lane.retry(id).await.unwrap();
    let again = ended(&lane, id, JobStatus::Failed).await;
    assert!(again.refusal.is_some());
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_broke_off_keeps_its_status_and_what_came() {
    const BEGUN: &str = r#"{"error":{"code":"1210","message":"wrong pa"#;
    let upstream = Upstream::start(|mut call| Broken::Behind(BEGUN).tell(&mut call, 400));
    let world = lane_to(&upstream);
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let chat = json!({"messages": [{"role": "user", "content": "hi"}]}).to_string();
    let reply = api.post("/v1/chat/completions", chat).await;
    // A client can read what it gets.
    let told = reply.expect(400);
    let message = told["error"]["message"].as_str().unwrap();
    assert!(message.contains("wrong pa"), "{message}");
    let id = reply.headers["x-onelane-job"].to_str().unwrap();
    shows!(api.job(id).await, {"refusal": BEGUN, "status": "failed"});
    let received = format!("/api/admin/glm/maybe-billed/{id}/1/received");
    let came = api.get(&received).await.expect(200);
    assert_eq!(came["received"], BEGUN);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_402_may_be_one_jobs_own_and_a_407_is_for_an_operator() {
    let upstream = Upstream::start(|mut call| match call.prompt() {
        "dear" => call.answer(
            402,
            "",
            r#"{"error":{"message":"too dear for your credit"}}"#,
        ),
        "proxied" => call.answer(407, "", "who are you?"),
        _ => right(call),
    });
    let world = lane_to(&upstream);
    let lane = world.start().await;
    lane.pause(None).await.unwrap();
    let dear = submit(&lane, "dear").await;
    let others = [submit(&lane, "other").await, submit(&lane, "another").await];
    lane.resume().await.unwrap();
    for id in others {
        completed(&lane, id).await;
    }
    let record = ended(&lane, dear, JobStatus::Failed).await;
    assert_eq!(record.job.error.unwrap().status_code, Some(402));
    assert_eq!(
        record.job.attempts.0, 1,
        "others passed: it was not bought again"
    );
    assert!(lane.lane().await.unwrap().hold.is_none());

    let id = submit(&lane, "proxied").await;
    until_held(&lane).await;
    let hold = lane.lane().await.unwrap().hold.unwrap();
    assert_eq!(
        (hold.kind, hold.code.as_str()),
        (HoldKind::Operator, "http_407")
    );
    let job = lane.job(id).await.unwrap().record.job;
    assert_eq!((job.status, job.retry_count), (JobStatus::Pending, 0));
    stop(lane, 1_000).await;
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
async fn an_error_in_a_frame_is_told_as_it_came() {
    let error = r#"{"error":{"code":"1301","message":"sens"},"contentFilter":[{"role":"user","level":1}],"x": 1.50}"#;
    let frame = format!("data: {error}\n\n");
    let (reply, _) = through_the_gateway(200, &frame).await;
    assert_eq!((reply.status, reply.text.as_str()), (400, error));
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
