//! Guards: a client that gives up on silence sees that its connection stands, and what it reads is the stream all the same.

use std::net::SocketAddr;
use std::sync::Arc;

use onelane::config::ServerSection;
use onelane::model::JobStatus;
use onelane::simulator::{Fault, Rule};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::streams::{
    CHAT, DONE, chat, last, open, open_keyed, piece, read, rest, told_by_the_test,
};
use crate::support::api::Api;
use crate::support::http::{HttpLane, completed, ended, stop, until};

const COMMENT: &str = ": keep-alive\n\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_with_comments_is_the_stream_and_nothing_of_them_is_kept() {
    let (upstream, tell) = told_by_the_test();
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    world.config.gateway.keepalive_ms = 20;
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let asked = chat("hi");
    // GLM says nothing for long.
    let mut client = open_keyed(&api, &asked, "k").await;
    assert_eq!(client.status(), 200);
    assert_eq!(client.headers()["content-type"], "text/event-stream");
    let mut told = read(&mut client, &COMMENT.repeat(2)).await;
    assert_eq!(told.replace(COMMENT, ""), "");
    tell.send(piece("a")).unwrap();
    // However many of them come at once.
    while !told.contains(&format!("{}{COMMENT}", piece("a"))) {
        let more = client.chunk().await.unwrap().expect("it goes on");
        told.push_str(std::str::from_utf8(&more).expect("UTF-8"));
    }
    tell.send(format!("{}{}{DONE}", piece("b"), last()))
        .unwrap();
    tell.send(String::new()).unwrap();
    told += &rest(client).await;
    let whole = format!("{}{}{}{DONE}", piece("a"), piece("b"), last());
    assert_eq!(told.replace(COMMENT, ""), whole);

    // Nothing of them is stored, and whoever comes back gets the stream.
    let page = api.get("/api/glm/jobs").await.expect(200);
    let id = page["jobs"][0]["id"].as_str().unwrap().parse().unwrap();
    let record = completed(&lane, id).await;
    assert_eq!(record.text().as_deref(), Some("ab"));
    let back = rest(open_keyed(&api, &asked, "k").await).await;
    assert_eq!(back.replace(COMMENT, ""), whole);
    assert_eq!(upstream.seen().len(), 1);
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_behind_a_comment_is_told_in_the_stream_and_one_before_it_with_its_status() {
    let mut world = HttpLane::new();
    world.config.gateway.keepalive_ms = 300;
    world.rule(Rule::for_prompt("bad", Fault::error("1210")));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let blocker = world.block(&lane).await;
    let mut late = open(&api, &chat("bad")).await;
    let begun = read(&mut late, COMMENT).await;
    lane.cancel(blocker).await.unwrap();
    let told = begun + &rest(late).await;
    let told = told.replace(COMMENT, "");
    let error = told.strip_prefix("data: ").expect("an event");
    let error: Value = serde_json::from_str(error.trim_end()).unwrap();
    assert_eq!(error["error"]["code"], "1210");
    let mut odd = chat("bad");
    odd["stream"] = "yes".into();
    assert_eq!(open(&api, &odd).await.status(), 400);
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_while_it_is_kept_alive_is_gone() {
    let mut world = HttpLane::new();
    world.config.gateway.keepalive_ms = 10;
    world.config.gateway.reattach_ms = 0;
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let mut client = open(&api, &chat(crate::support::http::BLOCKER)).await;
    read(&mut client, COMMENT).await;
    world.until_in_flight(1).await;
    drop(client);
    world.until_in_flight(0).await;
    let page = api.get("/api/glm/jobs").await.expect(200);
    let id = page["jobs"][0]["id"].as_str().unwrap().parse().unwrap();
    ended(&lane, id, JobStatus::Cancelled).await;
    drop(api);
    stop(lane, 1_000).await;
}

/// Asks, and leaves with the first comment: its socket is closed when this returns, as that of a client library may not be.
async fn leave_after_a_comment(address: SocketAddr, asked: &Value) {
    let body = asked.to_string();
    let length = body.len();
    let request = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut told = Vec::new();
    while !String::from_utf8_lossy(&told).contains(COMMENT) {
        assert!(stream.read_buf(&mut told).await.unwrap() > 0, "it ended");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_a_stream_of_comments_and_asks_again_at_once_has_one_call() {
    const CLIENTS: usize = 50;
    let mut world = HttpLane::new();
    // The next comment would come far too late.
    world.config.gateway.keepalive_ms = 1_500;
    let lane = world.start().await;
    let api = Arc::new(Api::serve(&lane).await);
    let blocker = world.block(&lane).await;
    let asked = |n: usize| chat(&format!("of client {n}"));
    let mut clients = JoinSet::new();
    for n in 0..CLIENTS {
        let (api, asked) = (Arc::clone(&api), asked(n));
        clients.spawn(async move {
            leave_after_a_comment(api.address, &asked).await;
            open(&api, &asked).await
        });
    }
    let back = clients.join_all().await;
    let waiting = api.get("/api/glm/jobs?status=pending&limit=200").await;
    let waiting = waiting.expect(200)["jobs"].as_array().unwrap().len();
    assert_eq!(waiting, CLIENTS);
    lane.cancel(blocker).await.unwrap();
    for response in back {
        assert!(rest(response).await.replace(COMMENT, "").ends_with(DONE));
    }
    for n in 0..CLIENTS {
        assert_eq!(world.sim.calls_of_prompt(&format!("of client {n}")), 1);
    }
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_a_request_in_progress_to_its_end_and_operators_get_in() {
    let mut world = HttpLane::new();
    world.config.gateway.keepalive_ms = 20;
    world.config.gateway.reattach_ms = 0;
    let lane = world.start().await;
    let few = ServerSection {
        listen: "127.0.0.1:0".to_owned(),
        requests_max: 2,
        ..ServerSection::default()
    };
    let api = Api::serve_as(&lane, few).await;
    let blocker = world.block(&lane).await;
    let (mut one, mut two) = (
        open(&api, &chat("one")).await,
        open(&api, &chat("two")).await,
    );
    read(&mut one, COMMENT).await;
    read(&mut two, COMMENT).await;
    assert_eq!(open(&api, &chat("three")).await.status(), 503);
    assert_eq!(api.metrics().await["server"]["requests"], 2);
    drop(one);
    until("one is gone", async || {
        api.metrics().await["server"]["requests"] == 1
    })
    .await;
    let mut three = open(&api, &chat("three")).await;
    read(&mut three, COMMENT).await;
    lane.cancel(blocker).await.unwrap();
    for left in [two, three] {
        assert!(rest(left).await.replace(COMMENT, "").ends_with(DONE));
    }
    until("nothing is left", async || {
        api.metrics().await["server"]["requests"] == 0
    })
    .await;
    drop(api);
    stop(lane, 1_000).await;
}
