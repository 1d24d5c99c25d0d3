//! Guards: what stands around an answer costs nobody the answer. Blanks reach the client as they came, words and another
//! coding of characters are taken off; and a refusal that says nothing says nothing to its client.

use onelane::model::JobStatus;
use serde_json::{Value, json};

use crate::support::api::{Api, Reply};
use crate::support::http::{HttpLane, completed, ended, prompt, stop};
use crate::support::upstream::{Arrived, Upstream};

fn lane_to(upstream: &Upstream) -> HttpLane {
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    world
}

fn chat(more: &Value) -> String {
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body.to_string()
}

/// An answer to the call with an odd spacing of its own.
fn spaced(call: &Arrived<'_>) -> String {
    serde_json::to_string_pretty(&call.completion("odd")).unwrap()
}

async fn keyed(api: &Api, key: &str) -> Reply {
    let request = api.posting("/v1/chat/completions", chat(&json!({})));
    Api::send(request.header("idempotency-key", key)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_well_formed_answer_goes_back_with_the_blanks_around_it() {
    const AROUND: [(&str, &str); 4] = [("", "\n"), ("\n\n", ""), (" \t", "\r\n \r\n"), ("", "")];
    let upstream = Upstream::start(|mut call| {
        let (before, behind) = AROUND[call.no % AROUND.len()];
        let body = [before, &spaced(&call), behind].concat();
        call.answer(200, "", body);
    });
    let world = lane_to(&upstream);
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let mut told = Vec::new();
    for (no, (before, behind)) in AROUND.iter().enumerate() {
        let key = format!("key-{no}");
        let reply = keyed(&api, &key).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let text = reply.text.strip_prefix(before).unwrap();
        let text = text.strip_suffix(behind).unwrap();
        assert!(
            text.starts_with("{\n  \"") && text.ends_with("\n}"),
            "{text:?}"
        );
        let id = reply.headers["x-onelane-job"].to_str().unwrap();
        // Whoever asks for the job gets JSON in JSON.
        let seen = api.get(&format!("/api/glm/jobs/{id}")).await.expect(200);
        assert_eq!(seen["result"], serde_json::from_str::<Value>(text).unwrap());
        told.push((key, reply.text));
    }
    api.stop().await;
    stop(lane, 1_000).await;
    // It is on disk so, too.
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    for (key, before) in told {
        let reply = keyed(&api, &key).await;
        assert_eq!((reply.status, reply.text), (200, before));
    }
    assert_eq!(
        upstream.seen().len(),
        AROUND.len(),
        "nothing was asked again"
    );
    api.stop().await;
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_cut_by_moderation_keeps_the_blanks_around_it() {
    const BODY: &str = "\n{\"choices\":[{\"finish_reason\":\"sensitive\",\"index\":0,\"message\":{\"content\":\"half\"}}]}\r\n";
    let upstream = Upstream::start(|mut call| call.answer(200, "", BODY));
    let world = lane_to(&upstream);
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let reply = api.post("/v1/chat/completions", chat(&json!({}))).await;
    assert_eq!((reply.status, reply.text.as_str()), (200, BODY));
    api.stop().await;
    stop(lane, 1_000).await;
}

fn utf_16(text: &str, mark: [u8; 2], unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let units = text.encode_utf16().flat_map(unit);
    mark.into_iter().chain(units).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_behind_words_or_in_utf_16_serves_its_job_and_is_bought_once() {
    let bodies: [fn(&str) -> Vec<u8>; 6] = [
        |json| format!("Warning: mbstring is {{not}} loaded in relay.php on line 7\n{json}").into(),
        |json| format!("<br />\n<b>Notice</b>: [cache] miss\r\n\r\n{json}\n<!-- 12 ms -->").into(),
        |json| format!("200 OK\n{json}").into(),
        |json| format!("proxy: ready\ndata: {json}\n\ndata: [DONE]\n\n").into(),
        |json| utf_16(json, [0xff, 0xfe], u16::to_le_bytes),
        |json| utf_16(json, [0xfe, 0xff], u16::to_be_bytes),
    ];
    let count = bodies.len();
    let upstream = Upstream::start(move |mut call| {
        let text = format!("to {} 你好", call.prompt());
        let json = call.completion(&text).to_string();
        let kind = match call.no % 2 {
            0 => "",
            // Relays in PHP say so of everything.
            _ => "content-type: text/html; charset=UTF-8\r\n",
        };
        call.answer(200, kind, bodies[call.no / 2](&json));
    });
    let world = lane_to(&upstream);
    let lane = world.start().await;
    for no in 0..2 * count {
        let id = lane
            .submit(prompt(format!("job {no}")))
            .await
            .unwrap()
            .job_id;
        let record = completed(&lane, id).await;
        assert_eq!(record.text().unwrap(), format!("to job {no} 你好"));
        let attempts = lane.job(id).await.unwrap().attempts;
        assert_eq!((attempts.len(), attempts[0].usage.total_tokens), (1, 15));
    }
    assert_eq!(upstream.seen().len(), 2 * count, "each was bought once");
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_behind_words_or_in_utf_16_is_that_error() {
    let bodies: [fn(&str) -> Vec<u8>; 3] = [
        |json| format!("upstream said: {json}\n").into(),
        |json| utf_16(json, [0xff, 0xfe], u16::to_le_bytes),
        |json| utf_16(json, [0xfe, 0xff], u16::to_be_bytes),
    ];
    let upstream = Upstream::start(move |mut call| {
        let (status, no) = (if call.no < 3 { 200 } else { 500 }, call.no % 3);
        let error = r#"{"error":{"code":"1210","message":"no"}}"#;
        call.answer(status, "", bodies[no](error));
    });
    let world = lane_to(&upstream);
    let lane = world.start().await;
    for no in 0..6 {
        let id = lane
            .submit(prompt(format!("job {no}")))
            .await
            .unwrap()
            .job_id;
        let failed = ended(&lane, id, JobStatus::Failed).await;
        let failure = failed.job.error.unwrap();
        assert_eq!(
            (failure.code.as_str(), failure.maybe_billed),
            ("1210", false)
        );
    }
    assert_eq!(upstream.seen().len(), 6, "an error is no purchase");
    stop(lane, 1_000).await;
}

async fn refused(status: u16, path: &str, more: &Value) -> Reply {
    let upstream = Upstream::start(move |mut call| call.answer(status, "", ""));
    let mut world = lane_to(&upstream);
    world.config.retry.max_retries = 0;
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let reply = api.post(path, chat(more)).await;
    api.stop().await;
    stop(lane, 1_000).await;
    reply
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_without_a_body_passes_without_one_and_keeps_its_status() {
    for (status, path, more) in [
        (400, "/v1/chat/completions", json!({})),
        (422, "/v1/chat/completions", json!({"stream": true})),
        (500, "/v1/chat/completions", json!({})),
        (503, "/v1/messages", json!({"max_tokens": 9})),
    ] {
        let reply = refused(status, path, &more).await;
        assert_eq!((reply.status, reply.text.as_str()), (status, ""), "{path}");
        assert!(!reply.headers.contains_key("content-type"), "{reply:?}");
        assert_eq!(reply.headers["x-should-retry"], "false");
        assert!(!reply.headers["x-onelane-meaning"].is_empty());
        assert!(reply.headers.contains_key("x-onelane-job"));
    }
}
