//! Guards: a client that leaves for good closes the call that was made for it, as the server of that call sees it.

use std::io::Read as _;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use onelane::model::{CallOutcome, JobStatus};
use onelane::orchestrator::Orchestrator;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::streams::{CHAT, DONE, HEAD, chat, chunk, last, open, piece, rest};
use crate::support::api::Api;
use crate::support::http::{HttpLane, PATIENCE, ended, stop, until};
use crate::support::upstream::{Arrived, Upstream};

/// Within this the server sees it on a machine that has time; what a busy one adds is bounded by [`PATIENCE`].
const AT_ONCE: Duration = Duration::from_millis(100);

/// A server that says the beginning of a stream, and when its caller has closed the connection.
fn that_sees_the_end(
    begin: impl Fn(&str) -> String + Send + Sync + 'static,
) -> (Upstream, Receiver<Instant>) {
    let (tell, told): (Sender<Instant>, _) = channel();
    let tell = Mutex::new(tell);
    let upstream = Upstream::start(move |mut call: Arrived<'_>| {
        call.say(HEAD);
        let begin = begin(call.prompt());
        if begin.is_empty() {
            call.say(chunk(&piece("whole")) + &chunk(&last()) + &chunk(""));
            return;
        }
        call.say(chunk(&begin));
        while let Ok(1..) = call.stream.read(&mut [0; 64]) {}
        let _ = tell.lock().unwrap().send(Instant::now());
    });
    (upstream, told)
}

/// A lane at which nobody comes back for what he left.
async fn lane_without_windows(upstream: &Upstream) -> (HttpLane, Orchestrator, Api) {
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    world.config.gateway.reattach_ms = 0;
    world.config.gateway.reattach_streaming_ms = 0;
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    (world, lane, api)
}

/// Asks on a connection of its own.
async fn asking(api: &Api, body: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    let body = body.to_string();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        api.address,
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    stream
}

/// Asks for a stream, and reads until this came.
async fn reading(api: &Api, body: &Value, mark: &str) -> TcpStream {
    let mut stream = asking(api, body).await;
    let mut all = Vec::new();
    let mut some = [0; 4096];
    while !String::from_utf8_lossy(&all).contains(mark) {
        let n = stream.read(&mut some).await.unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&some[..n]);
    }
    stream
}

/// How long after a client left the server saw its call closed.
fn closed_by(client: TcpStream, told: &Receiver<Instant>) -> Duration {
    let left = Instant::now();
    drop(client);
    let closed = tokio::task::block_in_place(|| told.recv_timeout(PATIENCE));
    let closed = closed.expect("the call is closed");
    closed.saturating_duration_since(left)
}

/// How long after each client left the server saw its call closed.
async fn closed_after(
    api: &Api,
    told: &Receiver<Instant>,
    asked: &str,
    until: &str,
) -> Vec<Duration> {
    let mut took = Vec::new();
    for _ in 0..15 {
        let client = reading(api, &chat(asked), until).await;
        // All that was said is read, and nothing comes.
        tokio::time::sleep(Duration::from_millis(30)).await;
        took.push(closed_by(client, told));
    }
    took.sort();
    println!("{asked}: closed after {took:?}");
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_a_silent_stream_closes_the_call_within_100_ms() {
    let (upstream, told) = that_sees_the_end(|asked| match asked {
        "between events" => piece("mark"),
        "in an event" => format!("{}data: {{\"mark\"", piece("a")),
        _ => String::new(),
    });
    let (_world, lane, api) = lane_without_windows(&upstream).await;
    for asked in ["between events", "in an event"] {
        let took = closed_after(&api, &told, asked, "mark").await;
        // Nothing is waited for: the quickest show that, however busy the machine is.
        assert!(took[took.len() / 4] < AT_ONCE, "{asked}: {took:?}");
    }
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_before_its_answer_closes_the_call_within_100_ms() {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let upstream = Upstream::start(move |call: Arrived<'_>| {
        while let Ok(1..) = call.stream.read(&mut [0; 64]) {}
        let _ = tell.lock().unwrap().send(Instant::now());
    });
    let (_world, lane, api) = lane_without_windows(&upstream).await;
    let mut asked = chat("whole");
    asked["stream"] = false.into();
    let mut took = Vec::new();
    for n in 1..=15 {
        let client = asking(&api, &asked).await;
        until("it is called", async || upstream.seen().len() == n).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        took.push(closed_by(client, &told));
    }
    took.sort();
    println!("before its answer: closed after {took:?}");
    assert!(took[took.len() / 4] < AT_ONCE, "{took:?}");
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_leaves_is_booked_and_its_slot_is_the_next_ones() {
    let (upstream, told) = that_sees_the_end(|asked| match asked {
        "mark" => piece("mark"),
        _ => String::new(),
    });
    let (_world, lane, api) = lane_without_windows(&upstream).await;
    drop(reading(&api, &chat("mark"), "mark").await);
    let closed = tokio::task::block_in_place(|| told.recv_timeout(PATIENCE)).unwrap();
    let next = open(&api, &chat("next")).await;
    assert!(rest(next).await.contains("whole"));
    assert!(closed.elapsed() < PATIENCE / 6, "{:?}", closed.elapsed());
    let page = api.get("/api/glm/jobs").await.expect(200);
    let id = page["jobs"][1]["id"].as_str().unwrap().parse().unwrap();
    ended(&lane, id, JobStatus::Cancelled).await;
    let attempts = lane.job(id).await.unwrap().attempts;
    assert_eq!(attempts[0].outcome, CallOutcome::Cancelled);
    let usage = attempts[0].usage;
    assert!(
        usage.estimated && usage.prompt_tokens > 0 && usage.completion_tokens > 0,
        "{usage:?}"
    );
    drop(api);
    stop(lane, 1_000).await;
}

/// The body of an answer that came in chunks.
fn from_chunks(answer: &str) -> String {
    let (_, mut rest) = answer.split_once("\r\n\r\n").unwrap();
    let mut body = String::new();
    loop {
        let (length, after) = rest.split_once("\r\n").unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return body;
        }
        body.push_str(&after[..length]);
        rest = after[length..].strip_prefix("\r\n").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closed_its_own_direction_in_an_event_gets_the_rest_to_the_byte() {
    let (tell, told) = channel::<String>();
    let told = Mutex::new(told);
    let upstream = Upstream::start(move |mut call: Arrived<'_>| {
        call.say(HEAD);
        while let Ok(text) = told.lock().unwrap().recv() {
            call.say(chunk(&text));
            if text.is_empty() {
                return;
            }
        }
    });
    let (_world, lane, api) = lane_without_windows(&upstream).await;
    let torn = format!("{}data: {{\"mark\"", piece("a"));
    tell.send(torn.clone()).unwrap();
    let mut client = asking(&api, &chat("half")).await;
    client.shutdown().await.unwrap();
    // Long enough to be asked whether it is there.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let rest = format!(":1}}\n\n{}{}", last(), DONE);
    tell.send(rest.clone()).unwrap();
    tell.send(String::new()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(from_chunks(&answer), format!("{torn}{rest}"));
    let length = format!("\r\n0{:X}\r\n{rest}", rest.len());
    assert!(answer.contains(&length), "it was asked: {answer}");
    drop(api);
    stop(lane, 1_000).await;
}
