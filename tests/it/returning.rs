//! Guards: a client that leaves and asks again at once is taken for the one that it was, however its connection hides
//! that it left.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onelane::config::ServerSection;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::version::TLS13;

use crate::support::api::Api;
use crate::support::h2::H2;
use crate::support::http::{HttpLane, PATIENCE, stop, until};
use crate::support::tls::Authority;
use crate::support::upstream::{Arrived, Upstream};

const CHAT: &str = "/v1/chat/completions";
const ROUNDS: usize = 30;

fn chat(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}]})
}

/// A server that answers when the test says so.
fn told_when() -> (Upstream, Sender<()>) {
    let (tell, told) = channel();
    let told = Mutex::new(told);
    let upstream = Upstream::start(move |mut call: Arrived<'_>| {
        let _ = told.lock().unwrap().recv();
        let answer = call.completion("A").to_string();
        call.answer(200, "content-type: application/json\r\n", answer);
    });
    (upstream, tell)
}

/// With the certificate of an authority.
fn signed(authority: &Authority, dir: &TempDir) -> ServerSection {
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    authority.signs_into(&certificate, &key);
    let path = |file: std::path::PathBuf| Some(file.to_str().unwrap().to_owned());
    ServerSection {
        listen: "127.0.0.1:0".to_owned(),
        tls_cert: path(certificate),
        tls_key: path(key),
        ..ServerSection::default()
    }
}

/// A connection to a server of this authority's that speaks this.
async fn secured(authority: &Authority, at: SocketAddr, protocol: &str) -> TlsStream<TcpStream> {
    let made = authority.connect(at, &[protocol], &[&TLS13]).await;
    made.unwrap()
}

async fn until_called(upstream: &Upstream, calls: usize) {
    until("it is called", async || upstream.seen().len() == calls).await;
}

/// Whoever came back is attended to before the answer is there.
async fn is_attended() {
    tokio::time::sleep(Duration::from_millis(60)).await;
}

async fn ask<S: AsyncWrite + Unpin>(stream: &mut S, body: &Value) {
    let body = body.to_string();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

async fn answer<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let (mut all, mut some) = (Vec::new(), [0; 4096]);
    while !all.ends_with(b"}") {
        let n = stream.read(&mut some).await.expect("an answer");
        assert!(n > 0, "{}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&some[..n]);
    }
    String::from_utf8(all).unwrap()
}

/// Reads until this has come.
async fn read_to<S: AsyncRead + Unpin>(stream: &mut S, text: &str) -> String {
    let mut all = Vec::new();
    while !String::from_utf8_lossy(&all).contains(text) {
        assert!(stream.read_buf(&mut all).await.expect("more") > 0);
    }
    String::from_utf8(all).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_a_client_that_leaves_and_asks_again_at_once_is_served_by_one_call() {
    let (upstream, tell) = told_when();
    let (authority, dir) = (Authority::new(), TempDir::new().unwrap());
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    let lane = world.start().await;
    let api = Api::serve_as(&lane, signed(&authority, &dir)).await;
    let connect = async || secured(&authority, api.address, "http/1.1").await;
    for n in 0..ROUNDS {
        let asked = chat(&format!("round {n}"));
        let (mut first, mut second) = (connect().await, connect().await);
        ask(&mut first, &asked).await;
        until_called(&upstream, n + 1).await;
        // With a word that it leaves, or without.
        if n % 2 == 0 {
            first.shutdown().await.unwrap();
        }
        drop(first);
        ask(&mut second, &asked).await;
        is_attended().await;
        tell.send(()).unwrap();
        let told = tokio::time::timeout(PATIENCE, answer(&mut second)).await;
        let told = told.unwrap_or_else(|_| panic!("a second job in round {n}"));
        assert!(told.starts_with("HTTP/1.1 200 "), "{told}");
        assert_eq!(upstream.seen().len(), n + 1, "round {n}");
    }
    drop(api);
    stop(lane, 1_000).await;
}

/// Rounds of a client of HTTP/2 that leaves and asks again at once, on connections made like this.
async fn leave_over_http2(upstream: &Upstream, tell: &Sender<()>, connect: impl AsyncFn() -> H2) {
    for n in 0..ROUNDS {
        let asked = chat(&format!("round {n}"));
        let (first, other) = (connect().await, connect().await);
        let sent = first.post(CHAT, &asked).await;
        until_called(upstream, n + 1).await;
        let again = if n % 2 == 0 {
            // It takes the request back, and asks on the same connection.
            sent.take_back();
            first.post(CHAT, &asked).await
        } else {
            // Its connection ends, and it asks on another.
            first.connection.abort();
            while !first.connection.is_finished() {
                tokio::task::yield_now().await;
            }
            drop(sent);
            other.post(CHAT, &asked).await
        };
        is_attended().await;
        tell.send(()).unwrap();
        let told = tokio::time::timeout(PATIENCE, again.answer()).await;
        let (status, told) = told.unwrap_or_else(|_| panic!("a second job in round {n}"));
        assert_eq!(status, 200, "{told}");
        assert_eq!(upstream.seen().len(), n + 1, "round {n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_a_client_that_leaves_and_asks_again_at_once_is_served_by_one_call() {
    let (upstream, tell) = told_when();
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let connect =
        async || H2::on(TcpStream::connect(api.address).await.unwrap(), api.address).await;
    leave_over_http2(&upstream, &tell, connect).await;
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_and_tls_a_client_that_leaves_and_asks_again_at_once_is_served_by_one_call() {
    let (upstream, tell) = told_when();
    let (authority, dir) = (Authority::new(), TempDir::new().unwrap());
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    let lane = world.start().await;
    let api = Api::serve_as(&lane, signed(&authority, &dir)).await;
    let connect = async || {
        let stream = secured(&authority, api.address, "h2").await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        H2::on(stream, "localhost").await
    };
    leave_over_http2(&upstream, &tell, connect).await;
    drop(api);
    stop(lane, 1_000).await;
}

/// Says nothing, and that its connection stands.
const COMMENT: &str = ": keep-alive\n\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_and_http2_a_client_that_leaves_behind_a_comment_and_asks_again_has_one_call() {
    const CLIENTS: usize = 30;
    let (authority, dir) = (Arc::new(Authority::new()), TempDir::new().unwrap());
    let mut world = HttpLane::new();
    // The next comment would come far too late.
    world.config.gateway.keepalive_ms = 1_500;
    let lane = world.start().await;
    let blocker = world.block(&lane).await;
    let api = Api::serve_as(&lane, signed(&authority, &dir)).await;
    let address = api.address;
    let again = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for n in 0..CLIENTS {
        let (authority, again) = (Arc::clone(&authority), Arc::clone(&again));
        let mut asked = chat(&format!("of client {n}"));
        asked["stream"] = true.into();
        clients.spawn(async move {
            if n % 2 == 0 {
                let client = H2::on(secured(&authority, address, "h2").await, "localhost").await;
                client
                    .post(CHAT, &asked)
                    .await
                    .read_and_leave(COMMENT)
                    .await;
                let sent = client.post(CHAT, &asked).await;
                again.fetch_add(1, Ordering::Relaxed);
                return sent.answer().await.1;
            }
            let mut first = secured(&authority, address, "http/1.1").await;
            ask(&mut first, &asked).await;
            read_to(&mut first, COMMENT).await;
            drop(first);
            let mut second = secured(&authority, address, "http/1.1").await;
            ask(&mut second, &asked).await;
            again.fetch_add(1, Ordering::Relaxed);
            read_to(&mut second, "[DONE]").await
        });
    }
    until("all are back", async || {
        again.load(Ordering::Relaxed) == CLIENTS
    })
    .await;
    lane.cancel(blocker).await.unwrap();
    for told in clients.join_all().await {
        assert!(told.contains("[DONE]"), "{told}");
    }
    for n in 0..CLIENTS {
        let calls = world.sim.calls_of_prompt(&format!("of client {n}"));
        assert_eq!(calls, 1, "client {n}");
    }
    drop(api);
    stop(lane, 1_000).await;
}
