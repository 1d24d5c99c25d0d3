//! Guards: HTTP/2 where the client speaks it. A request is one among others on its connection: it counts as a request,
//! and its client may be gone while the connection stands.

use std::net::SocketAddr;

use hyper::Method;
use onelane::config::ServerSection;
use onelane::model::JobId;
use onelane::orchestrator::Orchestrator;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::api::Api;
use crate::support::h2::H2;
use crate::support::http::{HttpLane, PATIENCE, stop, until};

const CHAT: &str = "/v1/chat/completions";

fn chat(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}]})
}

async fn connect(address: SocketAddr) -> H2 {
    H2::on(TcpStream::connect(address).await.unwrap(), address).await
}

/// How many jobs have this status.
async fn jobs(api: &Api, status: &str) -> u64 {
    let list = api
        .get(&format!("/api/admin/glm/queue?status={status}"))
        .await;
    list.expect(200)["total"].as_u64().unwrap()
}

async fn until_jobs(api: &Api, status: &str, count: u64) {
    until(&format!("{count} jobs are {status}"), async || {
        jobs(api, status).await == count
    })
    .await;
}

/// A lane whose slot is busy and on which a client that is gone does not come back, with its API and what keeps it
/// busy.
async fn busy(server: ServerSection) -> (HttpLane, Orchestrator, Api, JobId) {
    let mut world = HttpLane::new();
    world.config.gateway.reattach_ms = 0;
    let lane = world.start().await;
    let blocker = world.block(&lane).await;
    let config = ServerSection {
        listen: "127.0.0.1:0".to_owned(),
        ..server
    };
    let api = Api::serve_as(&lane, config).await;
    (world, lane, api, blocker)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_is_spoken_in_the_clear_to_whoever_begins_with_it() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let client = connect(api.address).await;
    assert_eq!(client.get("/healthz").await.0, 200);
    let (status, answer) = client.post(CHAT, &chat("hi")).await.answer().await;
    assert_eq!(status, 200, "{answer}");
    let large = client.post(CHAT, &chat(&"x".repeat(2_000_000))).await;
    assert_eq!(large.answer().await.0, 200);
    assert_eq!(client.get("/nothing").await.0, 404);
    // Whom it asks for stands elsewhere than in HTTP/1, and is looked at all the same.
    let rebound = H2::on(
        TcpStream::connect(api.address).await.unwrap(),
        "evil.example",
    )
    .await;
    let (status, answer) = rebound.get("/api/admin/glm/config").await;
    assert_eq!(status, 403, "{answer}");
    let sent = client.send(Method::CONNECT, "", None).await;
    assert_eq!(sent.answer().await.0, 400);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_taken_back_over_http2_is_a_client_that_is_gone() {
    let (world, lane, api, blocker) = busy(ServerSection::default()).await;
    let client = connect(api.address).await;
    let one = client.post(CHAT, &chat("one")).await;
    let two = client.post(CHAT, &chat("two")).await;
    until_jobs(&api, "pending", 2).await;
    one.take_back();
    until_jobs(&api, "cancelled", 1).await;
    assert_eq!(jobs(&api, "pending").await, 1, "the other one is there");
    lane.cancel(blocker).await.unwrap();
    assert_eq!(two.answer().await.0, 200);
    assert_eq!(world.sim.calls_of_prompt("one"), 0);
    assert_eq!(world.sim.calls_of_prompt("two"), 1);

    // With its connection all of its requests are gone.
    world.block(&lane).await;
    let three = client.post(CHAT, &chat("three")).await;
    until_jobs(&api, "pending", 1).await;
    client.connection.abort();
    drop((client, three));
    until_jobs(&api, "pending", 0).await;
    stop(lane, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_left_over_http2_ends_its_call_and_no_other() {
    use onelane::simulator::{Fault, Rule};
    let world = HttpLane::new();
    world.rule(Rule::for_prompt("long", Fault::StallBody));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let client = connect(api.address).await;
    let mut body = chat("long");
    body["stream"] = true.into();
    let sent = client.post(CHAT, &body).await;
    sent.read_and_leave("data:").await;
    // The slot is free for the next one on the same connection.
    let (status, answer) = client.post(CHAT, &chat("next")).await.answer().await;
    assert_eq!(status, 200, "{answer}");
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_on_one_connection_count_as_requests_and_leave_operators_theirs() {
    let few = ServerSection {
        requests_max: 2,
        ..ServerSection::default()
    };
    let (_world, lane, api, blocker) = busy(few).await;
    let client = connect(api.address).await;
    let waiting = [
        client.post(CHAT, &chat("one")).await,
        client.post(CHAT, &chat("two")).await,
    ];
    until_jobs(&api, "pending", 2).await;
    let (status, answer) = client.post(CHAT, &chat("three")).await.answer().await;
    assert_eq!(status, 503, "{answer}");
    let (status, metrics) = client.get("/api/admin/glm/metrics").await;
    assert_eq!(status, 200);
    let metrics: Value = serde_json::from_str(&metrics).unwrap();
    assert_eq!(metrics["server"]["requests"], 2, "{metrics}");
    for sent in waiting {
        sent.take_back();
    }
    until_jobs(&api, "cancelled", 2).await;
    let four = client.post(CHAT, &chat("four")).await;
    lane.cancel(blocker).await.unwrap();
    assert_eq!(four.answer().await.0, 200);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_reserved_for_operators_ends_when_others_are_refused_on_it() {
    let few = ServerSection {
        connections_max: 1,
        ..ServerSection::default()
    };
    let (_world, lane, api, _) = busy(few).await;
    let common = connect(api.address).await;
    let waits = common.post(CHAT, &chat("one")).await;
    until("it waits", async || {
        let reserved = connect(api.address).await;
        let metrics = reserved.get("/api/admin/glm/metrics").await.1;
        let metrics: Value = serde_json::from_str(&metrics).unwrap();
        metrics["server"]["requests"] == 1
    })
    .await;
    let reserved = connect(api.address).await;
    assert_eq!(reserved.get("/healthz").await.0, 200);
    assert_eq!(
        reserved.post(CHAT, &chat("two")).await.answer().await.0,
        503
    );
    // The next one may be for everybody.
    let ended = tokio::time::timeout(PATIENCE, reserved.connection).await;
    ended.expect("it ends").unwrap().unwrap();
    drop(waits);
    stop(lane, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_a_request_is_closed_whatever_it_speaks() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let hasty = ServerSection {
        listen: "127.0.0.1:0".to_owned(),
        header_timeout_ms: 300,
        ..ServerSection::default()
    };
    let api = Api::serve_as(&lane, hasty).await;
    let client = connect(api.address).await;
    assert_eq!(client.get("/healthz").await.0, 200);
    let ended = tokio::time::timeout(PATIENCE, client.connection).await;
    ended.expect("it ends").unwrap().unwrap();
    // Nothing, a beginning of HTTP/2, and one that goes no further.
    for begins in ["", "PRI * HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = TcpStream::connect(api.address).await.unwrap();
        stream.write_all(begins.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        read.unwrap_or_else(|_| panic!("{begins:?} stands"))
            .unwrap();
    }
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_requests_that_are_taken_back_ends_its_connection() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        [&head, payload].concat()
    };
    let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    flood.extend(frame(4, 0, 0, &[]));
    for n in 0..100 {
        let stream = 2 * n + 1;
        // GET http://localhost/, and its end.
        let headers = [&[0x82, 0x86, 0x84, 0x41, 9][..], b"localhost"].concat();
        flood.extend(frame(1, 5, stream, &headers));
        flood.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
    }
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    stream.write_all(&flood).await.unwrap();
    let mut told = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut told)).await;
    read.expect("it ends").unwrap();
    // GOAWAY, since there was too much of it.
    let goaway = told.windows(5).any(|bytes| bytes == [7, 0, 0, 0, 0]);
    let calm = told.windows(4).any(|bytes| bytes == 11_u32.to_be_bytes());
    assert!(goaway && calm, "{told:?}");
    assert_eq!(api.get("/healthz").await.status, 200);
    stop(lane, 1_000).await;
}

/// An API whose clients have so long to take an answer.
async fn hasty(lane: &Orchestrator) -> Api {
    let hasty = ServerSection {
        listen: "127.0.0.1:0".to_owned(),
        write_timeout_ms: 400,
        ..ServerSection::default()
    };
    Api::serve_as(lane, hasty).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_takes_over_http2_is_given_up_alone_however_small_it_is() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = hasty(&lane).await;
    let client = connect(api.address).await;
    let stream = TcpStream::connect(api.address).await.unwrap();
    let (less_than_any_answer, blocker) = (5, world.block(&lane).await);
    let small = H2::taking(less_than_any_answer, stream, api.address).await;
    let waits = client.post(CHAT, &chat("another")).await;
    for (client, path) in [(&client, "/openapi.json"), (&small, "/healthz")] {
        let untaken = client.send(Method::GET, path, None).await;
        let left = tokio::time::timeout(PATIENCE, untaken.left_untaken()).await;
        assert_eq!(left.expect("it ends"), Some(h2::Reason::CANCEL), "{path}");
    }
    assert_eq!(api.metrics().await["server"]["answersUntaken"], 2);
    // The others of the connection go on, and whoever takes it gets all of it.
    lane.cancel(blocker).await.unwrap();
    assert_eq!(waits.answer().await.0, 200);
    let (status, document) = client.get("/openapi.json").await;
    assert_eq!(status, 200);
    assert!(document.len() > 70_000);
    assert!(document == api.get("/openapi.json").await.text);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_over_http2_that_fits_what_its_client_takes_is_whole() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = hasty(&lane).await;
    let health = api.get("/healthz").await.text;
    let window = u32::try_from(health.len()).unwrap();
    let stream = TcpStream::connect(api.address).await.unwrap();
    let client = H2::taking(window, stream, api.address).await;
    let sent = client.send(Method::GET, "/healthz", None).await;
    assert_eq!(sent.left_untaken().await, None);
    // HEAD has the headers and nothing behind them.
    let sent = client.send(Method::HEAD, "/healthz", None).await;
    let (headers, bytes) = sent.head().await;
    assert_eq!(
        (&headers["content-length"], bytes),
        (&health.len().into(), 0)
    );
    assert_eq!(api.metrics().await["server"]["answersUntaken"], 0);
    stop(lane, 1_000).await;
}
