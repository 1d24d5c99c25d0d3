//! Guards: a client that leaves and asks again at once is taken for the one that it was, however its connection hides
//! that it left.

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use onelane::config::ServerSection;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_a_client_that_leaves_and_asks_again_at_once_is_served_by_one_call() {
    let (upstream, tell) = told_when();
    let (authority, dir) = (Authority::new(), TempDir::new().unwrap());
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    let lane = world.start().await;
    let api = Api::serve_as(&lane, signed(&authority, &dir)).await;
    let connect = async || {
        let versions = [&TLS13];
        let made = authority.connect(api.address, &["http/1.1"], &versions);
        made.await.unwrap()
    };
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_a_client_that_leaves_and_asks_again_at_once_is_served_by_one_call() {
    let (upstream, tell) = told_when();
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let connect =
        async || H2::on(TcpStream::connect(api.address).await.unwrap(), api.address).await;
    for n in 0..ROUNDS {
        let asked = chat(&format!("round {n}"));
        let (first, other) = (connect().await, connect().await);
        let sent = first.post(CHAT, &asked).await;
        until_called(&upstream, n + 1).await;
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
    drop(api);
    stop(lane, 1_000).await;
}
