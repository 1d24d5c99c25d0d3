//! Guards: an answer in pieces reaches its client to the byte while its call is open, is stored as one that came whole,
//! and costs no more than one call.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use onelane::model::{CallOutcome, JobStatus, code};
use onelane::orchestrator::Orchestrator;
use onelane::simulator::{Fault, Rule};
use reqwest::Response;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::http::{HttpLane, PATIENCE, ended, stop};
use crate::support::upstream::{Arrived, Upstream};

pub(super) const CHAT: &str = "/v1/chat/completions";
pub(super) const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
pub(super) const DONE: &str = "data: [DONE]\n\n";

pub(super) fn chat(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}], "stream": true})
}

pub(super) async fn open(api: &Api, body: &Value) -> Response {
    let sent = api.posting(CHAT, body.to_string()).send();
    sent.await.expect("an answer")
}

/// With a key, so that the job goes on without its client.
pub(super) async fn open_keyed(api: &Api, body: &Value, key: &str) -> Response {
    let request = api.posting(CHAT, body.to_string());
    let sent = request.header("idempotency-key", key).send();
    sent.await.expect("an answer")
}

pub(super) async fn rest(mut response: Response) -> String {
    let mut all = Vec::new();
    while let Some(piece) = response.chunk().await.expect("a piece") {
        all.extend_from_slice(&piece);
    }
    String::from_utf8(all).expect("UTF-8")
}

/// Reads until this much has come.
pub(super) async fn read(response: &mut Response, text: &str) -> String {
    let mut all = String::new();
    while !all.ends_with(text) {
        let piece = response.chunk().await.expect("a piece");
        let piece = piece.unwrap_or_else(|| panic!("{text:?} did not come: {all:?}"));
        all.push_str(std::str::from_utf8(&piece).expect("UTF-8"));
    }
    all
}

pub(super) fn job_of(response: &Response) -> onelane::model::JobId {
    let id = response.headers().get("x-onelane-job").expect("a job");
    id.to_str().unwrap().parse().expect("an id")
}

/// An event with a piece of text. Spelled as no serialiser would spell it.
pub(super) fn piece(text: &str) -> String {
    format!("data: {{\"id\":\"u\", \"model\":\"glm-4.7\",\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}},\"index\":0.0e0}}]}}\r\n\r\n").replace("0.0e0", "0")
}

pub(super) fn last() -> String {
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15});
    let end =
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage});
    format!("data: {end}\n\n")
}

/// A chunk of a response.
pub(super) fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A server that sends a piece whenever the test says which.
pub(super) fn told_by_the_test() -> (Upstream, std::sync::mpsc::Sender<String>) {
    let (tell, told) = channel::<String>();
    let told: Mutex<Receiver<String>> = Mutex::new(told);
    let upstream = Upstream::start(move |mut call: Arrived<'_>| {
        call.say(HEAD);
        while let Ok(text) = told.lock().unwrap().recv() {
            call.say(chunk(&text));
            if text.is_empty() {
                return;
            }
        }
    });
    (upstream, tell)
}

pub(super) async fn lane_to(upstream: &Upstream) -> (HttpLane, Orchestrator, Api) {
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    (world, lane, api)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_reach_the_client_to_the_byte_while_the_call_is_open() {
    let (upstream, tell) = told_by_the_test();
    let (_world, lane, api) = lane_to(&upstream).await;
    let asked = json!({"messages": [{"role": "user", "content": "hi"}], "stream": true,
        "stream_options": {"include_usage": true}});
    let (mut response, ()) = tokio::join!(open(&api, &asked), async {
        tell.send(piece("")).unwrap();
        tell.send(": a comment\n\n".to_owned()).unwrap();
        tell.send(piece("Hel")).unwrap();
    });
    assert_eq!(response.status(), 200);
    let headers = response.headers();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["x-onelane-model"], "glm-4.7");
    assert_eq!(headers["x-onelane-attempts"], "1");
    let id = job_of(&response);
    let begun = format!("{}: a comment\n\n{}", piece(""), piece("Hel"));
    assert_eq!(read(&mut response, &piece("Hel")).await, begun);
    let job = lane.job(id).await.unwrap().record.job;
    assert_eq!(job.status, JobStatus::Processing, "its call is open");

    tell.send(piece("lo")).unwrap();
    assert_eq!(read(&mut response, &piece("lo")).await, piece("lo"));
    tell.send(format!("{}{DONE}", last())).unwrap();
    tell.send(String::new()).unwrap();
    assert_eq!(rest(response).await, format!("{}{DONE}", last()));

    // Stored as one that came whole.
    let record = ended(&lane, id, JobStatus::Completed).await;
    assert_eq!(record.text().unwrap(), "Hello");
    let attempts = lane.job(id).await.unwrap().attempts;
    assert_eq!((attempts.len(), attempts[0].usage.total_tokens), (1, 15));
    let sent = &upstream.seen()[0];
    assert_eq!(sent["stream"], true);
    assert_eq!(sent["stream_options"], json!({"include_usage": true}));
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_before_the_first_piece_is_tried_again_and_what_is_refused_is_told_as_ever() {
    let world = HttpLane::new();
    world.rule(Rule {
        times: Some(1),
        ..Rule::for_prompt("again", Fault::error("1302"))
    });
    let event = format!(
        "{}data: {{\"error\":{{\"code\":\"1302\",\"message\":\"slow\"}}}}\n\n",
        piece("")
    );
    let in_a_frame = Fault::Custom {
        status: 200,
        headers: [("content-type".to_owned(), "text/event-stream".to_owned())].into(),
        body: event,
    };
    world.rule(Rule {
        times: Some(1),
        ..Rule::for_prompt("again", in_a_frame)
    });
    world.rule(Rule::for_prompt("bad", Fault::error("1210")));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let response = open(&api, &chat("again")).await;
    assert_eq!(response.headers()["x-onelane-attempts"], "3");
    let id = job_of(&response);
    let told = rest(response).await;
    assert!(told.ends_with(DONE) && !told.contains("\"1302\""), "{told}");
    ended(&lane, id, JobStatus::Completed).await;
    assert_eq!(lane.job(id).await.unwrap().attempts.len(), 3);

    let refused = open(&api, &chat("bad")).await;
    assert_eq!(refused.status(), 400);
    let refused: Value = serde_json::from_str(&rest(refused).await).unwrap();
    assert_eq!(refused["error"]["code"], "1210");
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_cut_is_told_in_its_own_form_and_bought_once() {
    for (ends, code) in [
        ("cut", code::CONNECTION),
        ("frame", "1234"),
        ("silent", code::BODY_INVALID),
    ] {
        let upstream = Upstream::start(move |mut call: Arrived<'_>| {
            call.say(HEAD);
            call.say(chunk(&piece("Hel")));
            match ends {
                "cut" => {
                    let _ = call.stream.shutdown(std::net::Shutdown::Both);
                }
                "frame" => {
                    let event = "data: {\"error\":{\"code\":\"1234\",\"message\":\"gone\"}}\n\n";
                    call.say(chunk(event) + &chunk(""));
                }
                _ => call.say(chunk("")),
            }
        });
        let (_world, lane, api) = lane_to(&upstream).await;
        let response = open(&api, &chat("hi")).await;
        let id = job_of(&response);
        let told = rest(response).await;
        assert!(told.starts_with(&piece("Hel")), "{told}");
        let last = told.trim_end().rsplit("data: ").next().unwrap();
        let last: Value = serde_json::from_str(last).unwrap();
        assert!(last["error"]["code"].is_string(), "{told}");
        assert_eq!(told.matches("\"error\"").count(), 1, "once: {told}");
        let record = ended(&lane, id, JobStatus::Failed).await;
        assert_eq!(record.job.error.unwrap().code, code);
        assert_eq!(upstream.seen().len(), 1, "{ends}: somebody has read of it");
        stop(lane, 1_000).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_closes_its_call_at_once_and_the_slot_is_free() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let mut response = open(&api, &chat("long [[sim pieces=1000 piece_ms=50]]")).await;
    let id = job_of(&response);
    response.chunk().await.unwrap().expect("a piece");
    world.until_in_flight(1).await;
    drop(response);
    let gone = Instant::now();
    world.until_in_flight(0).await;
    assert!(gone.elapsed() < Duration::from_secs(5));
    ended(&lane, id, JobStatus::Cancelled).await;
    let attempts = lane.job(id).await.unwrap().attempts;
    assert_eq!(attempts[0].outcome, CallOutcome::Cancelled);
    // What was delivered is booked by our own count, and nothing of it is in doubt.
    let usage = attempts[0].usage;
    assert!(
        usage.estimated && usage.prompt_tokens > 0 && usage.completion_tokens > 0,
        "{usage:?}"
    );
    assert!(attempts[0].cost.is_some() && !attempts[0].maybe_billed);
    let next = open(&api, &chat("next")).await;
    assert!(rest(next).await.ends_with(DONE));
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_a_stream_while_nothing_comes_is_noticed() {
    let mut world = HttpLane::new();
    let (over, waits) = std::sync::mpsc::channel::<()>();
    let waits = std::sync::Mutex::new(waits);
    let upstream = Upstream::start(move |mut call: Arrived<'_>| {
        call.say(HEAD);
        call.say(chunk(&piece("a")));
        let _ = waits.lock().unwrap().recv_timeout(PATIENCE);
    });
    world.config.glm.base_url = upstream.base_url();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let mut response = open(&api, &chat("slow")).await;
    let id = job_of(&response);
    response.chunk().await.unwrap().expect("a piece");
    drop(response);
    let left = Instant::now();
    ended(&lane, id, JobStatus::Cancelled).await;
    assert!(left.elapsed() < PATIENCE / 2, "{:?}", left.elapsed());
    over.send(()).unwrap();
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_a_key_comes_back_to_the_stream_from_its_first_byte() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let asked = chat("long [[sim pieces=40 piece_ms=5]]");
    let mut first = open_keyed(&api, &asked, "k").await;
    let id = job_of(&first);
    first.chunk().await.unwrap().expect("a piece");
    drop(first);
    let while_open = open_keyed(&api, &asked, "k").await;
    assert_eq!(job_of(&while_open), id);
    let while_open = rest(while_open).await;
    assert!(while_open.ends_with(DONE), "{while_open}");
    ended(&lane, id, JobStatus::Completed).await;
    let afterwards = rest(open_keyed(&api, &asked, "k").await).await;
    assert_eq!(afterwards, while_open);
    assert_eq!(world.sim.stats().calls, 1);

    // A restart keeps the answer, not its pieces.
    api.stop().await;
    let lane = world.restart(lane).await;
    let api = Api::serve(&lane).await;
    let anew = open_keyed(&api, &asked, "k").await;
    assert_eq!(anew.headers()["content-type"], "text/event-stream");
    let anew = rest(anew).await;
    assert_eq!(text_of(&anew), text_of(&while_open));
    assert!(anew.ends_with(DONE), "{anew}");
    assert_eq!(world.sim.stats().calls, 1);
    stop(lane, 1_000).await;
}

/// The text that a stream tells.
pub(super) fn text_of(events: &str) -> String {
    let chunks = events.split("\n\n").filter_map(|event| {
        let chunk: Value = serde_json::from_str(event.trim().strip_prefix("data: ")?).ok()?;
        Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned())
    });
    chunks.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_the_slot_no_longer_than_the_setting() {
    let mut world = HttpLane::new();
    world.config.glm.timeouts.stall_ms = 200;
    let long = format!("{}{}{DONE}", piece(&"x".repeat(8 * 1024 * 1024)), last());
    let whole = long.clone();
    let upstream = Upstream::start(move |mut call: Arrived<'_>| {
        call.say(HEAD);
        if call.prompt() != "slow" {
            call.say(chunk(&piece("hi")) + &chunk(&last()) + &chunk(""));
            return;
        }
        call.say(chunk(&piece("a")));
        call.say(chunk(&long) + &chunk(""));
    });
    world.config.glm.base_url = upstream.base_url();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let slow = open(&api, &chat("slow")).await;
    let id = job_of(&slow);
    let begun = Instant::now();
    // Nothing of it is read, and others are served.
    let other = tokio::time::timeout(PATIENCE, open(&api, &chat("other"))).await;
    assert!(rest(other.unwrap()).await.contains("hi"));
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    ended(&lane, id, JobStatus::Completed).await;
    // Then it is served from what came.
    assert_eq!(rest(slow).await, format!("{}{whole}", piece("a")));
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_stream_is_streamed_for() {
    let upstream = Upstream::start(|mut call: Arrived<'_>| {
        let mut answer = call.completion("whole");
        let tool =
            json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
        answer["choices"][0]["message"]["tool_calls"] = json!([tool]);
        call.answer(200, "", answer.to_string());
    });
    let (_world, lane, api) = lane_to(&upstream).await;
    let told = rest(open(&api, &chat("hi")).await).await;
    assert_eq!(text_of(&told), "whole");
    let first: Value = serde_json::from_str(
        told.split("\n\n")
            .next()
            .unwrap()
            .strip_prefix("data: ")
            .unwrap(),
    )
    .unwrap();
    assert_eq!(first["choices"][0]["delta"]["tool_calls"][0]["index"], 0);
    assert!(
        told.contains("\"total_tokens\":15") && told.ends_with(DONE),
        "{told}"
    );
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_belongs_to_another_call_reaches_nobody() {
    let upstream = Upstream::start(|mut call: Arrived<'_>| {
        let id = &call.body["request_id"];
        let id = match call.no {
            1 => json!("0123456789"),
            _ => id.clone(),
        };
        let tagged = |text: &str| json!({"request_id": id, "choices": [{"index": 0, "delta": {"content": text}}]});
        call.say(HEAD);
        call.say(chunk(&format!("data: {}\n\n", tagged("mine"))) + &chunk(&last()) + &chunk(""));
    });
    let (_world, lane, api) = lane_to(&upstream).await;
    assert!(rest(open(&api, &chat("one")).await).await.contains("mine"));
    let response = open(&api, &chat("two")).await;
    let (id, told) = (job_of(&response), rest(response).await);
    assert!(!told.contains("0123456789"), "{told}");
    let attempts = lane.job(id).await.unwrap().attempts;
    assert_eq!(
        attempts[0].failure.as_ref().unwrap().code,
        code::FOREIGN_ANSWER
    );
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_are_streamed_to_one_after_the_other() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = std::sync::Arc::new(Api::serve(&lane).await);
    let clients = (0..200).map(|n| {
        let api = std::sync::Arc::clone(&api);
        tokio::spawn(async move {
            let response = open(&api, &chat(&format!("client {n}"))).await;
            assert_eq!(response.status(), 200);
            rest(response).await
        })
    });
    for client in clients.collect::<Vec<_>>() {
        assert!(client.await.unwrap().ends_with(DONE));
    }
    let stats = world.sim.stats();
    assert_eq!((stats.calls, stats.peak_in_flight), (200, 1));
    stop(lane, 5_000).await;
}
