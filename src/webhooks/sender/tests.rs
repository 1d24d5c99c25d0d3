//! Guards: what is sent is signed, goes to checked addresses alone, and is not led astray.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use onelane_core::testing::sample::START;

use super::*;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A receiver that answers each connection with these bytes, and tells what it was sent.
struct Receiver {
    port: u16,
    served: JoinHandle<Vec<String>>,
}

fn receiver(answers: &[&str]) -> Receiver {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
    let served = std::thread::spawn(move || {
        let serve = |answer: String| {
            let (mut stream, _) = listener.accept().unwrap();
            let request = read_request(&mut stream);
            // A client that has read enough may be gone already.
            let _ = stream.write_all(answer.as_bytes());
            request
        };
        answers.into_iter().map(serve).collect()
    });
    Receiver { port, served }
}

fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut chunk = [0; 4_096];
    loop {
        let count = stream.read(&mut chunk).unwrap();
        request.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        if count == 0 || text.ends_with("{\"a\":1}") {
            return text;
        }
    }
}

fn post(url: String, is_callback: bool) -> Post {
    Post {
        url,
        message_id: "msg_1".to_owned(),
        at: START,
        body: Bytes::from_static(b"{\"a\":1}"),
        keys: SigningKeys::parse(SECRET).unwrap(),
        trace: None,
        is_callback,
    }
}

fn rules(hosts: &[&str], allow_private: bool) -> CallbackRules {
    CallbackRules {
        allowed_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        allow_http: true,
        allow_private,
    }
}

fn sender(rules: CallbackRules) -> HttpSender {
    HttpSender::new(rules, Duration::from_secs(20))
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a_message_bears_its_id_its_time_and_its_signature() {
    let receiver = receiver(&[OK]);
    let url = format!("http://127.0.0.1:{}/hook?x=1", receiver.port);
    let sent = sender(CallbackRules::default())
        .send(post(url, false))
        .await;
    assert_eq!(sent, Sent::Answered(200));
    let request = receiver.served.join().unwrap().remove(0);
    let signature = SigningKeys::parse(SECRET).unwrap();
    let signature = signature.sign("msg_1", START, b"{\"a\":1}");
    for part in [
        "POST /hook?x=1 HTTP/1.1",
        "content-type: application/json",
        "webhook-id: msg_1",
        "webhook-timestamp: 1795392000",
        &format!("webhook-signature: {signature}"),
    ] {
        assert!(request.contains(part), "{part} in {request}");
    }
}

#[tokio::test]
async fn a_message_names_the_span_that_its_receiver_may_go_on_from() {
    let receiver = receiver(&[OK]);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let message = Post {
        trace: TraceContext::read(parent, Some("a=1")),
        ..post(format!("http://127.0.0.1:{}/", receiver.port), false)
    };
    let sent = sender(CallbackRules::default()).send(message).await;
    assert_eq!(sent, Sent::Answered(200));
    let request = receiver.served.join().unwrap().remove(0);
    assert!(
        request.contains(&format!("traceparent: {parent}")),
        "{request}"
    );
    assert!(request.contains("tracestate: a=1"), "{request}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let port = elsewhere.local_addr().unwrap().port();
    let answer = format!(
        "HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:{port}/\r\ncontent-length: 0\r\n\r\n"
    );
    let receiver = receiver(&[&answer]);
    let url = format!("http://127.0.0.1:{}/", receiver.port);
    let sent = sender(CallbackRules::default())
        .send(post(url, false))
        .await;
    assert_eq!(sent, Sent::Answered(307));
    assert!(elsewhere.accept().is_err(), "nobody came");
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(4 * 1024 * 1024));
    let receiver = receiver(&[&long]);
    let url = format!("http://127.0.0.1:{}/", receiver.port);
    let sent = sender(CallbackRules::default())
        .send(post(url, false))
        .await;
    assert_eq!(sent, Sent::Answered(200));
}

#[tokio::test]
async fn a_receiver_that_says_nothing_is_left_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token", silent.local_addr().unwrap());
    let sender = HttpSender::new(CallbackRules::default(), Duration::from_millis(50));
    let Sent::Failed(error) = sender.send(post(url, false)).await else {
        panic!("no answer")
    };
    assert!(error.contains("no answer"), "{error}");
    assert!(!error.contains("token"), "{error}");
}

#[tokio::test]
async fn nobody_listening_is_told_without_the_url() {
    let port = {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        gone.local_addr().unwrap().port()
    };
    let url = format!("http://127.0.0.1:{port}/token");
    let sent = sender(CallbackRules::default())
        .send(post(url, false))
        .await;
    let Sent::Failed(error) = sent else {
        panic!("no answer")
    };
    assert!(error.starts_with("no connection: "), "{error}");
    assert!(!error.contains("token"), "{error}");
}

#[tokio::test]
async fn a_callback_reaches_no_private_address_by_number_or_by_name() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let guarded = sender(rules(&["*"], false));
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "0x7f000001", "localhost"] {
        let sent = guarded
            .send(post(format!("http://{host}:{port}/"), true))
            .await;
        let Sent::Failed(error) = sent else {
            panic!("{host} was reached")
        };
        assert!(
            error.contains("not on the public internet"),
            "{host}: {error}"
        );
    }
    assert!(listener.accept().is_err(), "nobody came");
}

#[tokio::test]
async fn a_callback_goes_where_it_is_allowed_at_the_moment_it_is_sent() {
    let receiver = receiver(&[OK]);
    let url = || format!("http://localhost:{}/", receiver.port);
    let refused = sender(rules(&["example.com"], true))
        .send(post(url(), true))
        .await;
    assert!(matches!(refused, Sent::Failed(error) if error.contains("allowed_hosts")));
    let sent = sender(rules(&["localhost"], true))
        .send(post(url(), true))
        .await;
    assert_eq!(sent, Sent::Answered(200));
}

#[tokio::test]
async fn the_status_counts_although_the_body_never_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        read_request(&mut stream);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhal";
        stream.write_all(answer).unwrap();
        // Held open until the sender has enough of it.
        let _ = stream.read(&mut [0]);
    });
    let begun = std::time::Instant::now();
    let sent = sender(CallbackRules::default())
        .send(post(url, false))
        .await;
    assert_eq!(sent, Sent::Answered(200));
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "not all its time"
    );
    // The connection is closed by a task of this thread: nobody may wait for that here.
    drop(served);
}

#[tokio::test]
async fn a_busy_receiver_says_when_to_come_again() {
    let check = async |head: &str, want: Sent| {
        let receiver = receiver(&[&format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n")]);
        let url = format!("http://127.0.0.1:{}/", receiver.port);
        let sent = sender(CallbackRules::default())
            .send(post(url, false))
            .await;
        assert_eq!(sent, want, "{head}");
    };
    let busy = |status_code, retry_after_ms| Sent::Busy {
        status_code,
        retry_after_ms,
    };
    check("429 Slow\r\nretry-after: 7", busy(429, 7_000)).await;
    let date = "503 Later\r\nretry-after: Mon, 23 Nov 2026 00:02:00 GMT";
    check(date, busy(503, 120_000)).await;
    check("503 Later", Sent::Answered(503)).await;
    check("500 No\r\nretry-after: 7", Sent::Answered(500)).await;
}
