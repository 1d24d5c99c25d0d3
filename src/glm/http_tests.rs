//! The adapter against a real server over a real socket: each fault has its exact outcome, and the
//! server sees one call at a time.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onelane_actors::ports::{Clock, Glm, GlmAnswer, GlmCall, GlmOutcome};
use onelane_actors::testing::glm_call;
use onelane_core::model::{
    Endpoint, Face, Failure, FailureClass as C, Request, Secret, Timeouts, Timestamp, Usage, code,
    limits,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::HttpGlm;
use crate::simulator::{
    AnswerWith, ErrorFault, Fault, Rule, Simulator, SimulatorConfig, Span, Step, Tokens,
};
use crate::system::SystemClock;

const KEY: &str = "0123456789abcdef.TopSecretTopSecret";

/// A call that no bound of its own ends in a test.
fn call_to(base_url: &str, no: u32) -> GlmCall {
    let request = Request::prompt(format!("job {no}")).unwrap();
    GlmCall {
        endpoint: Endpoint {
            base_url: base_url.to_owned(),
            faces: Default::default(),
            api_key: Some(Secret::new(KEY)),
        },
        poll_ms: 10,
        timeouts: Timeouts {
            connect_ms: 5_000,
            first_byte_ms: 5_000,
            idle_ms: 5_000,
            stall_ms: 5_000,
            total_ms: 10_000,
        },
        ..glm_call(9, no, request)
    }
}

fn glm() -> HttpGlm {
    HttpGlm::new(Arc::new(SystemClock)).unwrap()
}

fn simulator(script: Vec<Step>) -> Simulator {
    Simulator::start(SimulatorConfig {
        script,
        ..SimulatorConfig::default()
    })
    .unwrap()
}

async fn run(glm: &HttpGlm, call: GlmCall) -> GlmOutcome {
    run_until(glm, call, CancellationToken::new()).await
}

async fn run_until(glm: &HttpGlm, call: GlmCall, abort: CancellationToken) -> GlmOutcome {
    glm.call(call, abort).await.read()
}

#[track_caller]
fn answer(outcome: GlmOutcome) -> GlmAnswer {
    match outcome {
        GlmOutcome::Answered(answer) => answer,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn failure(outcome: GlmOutcome) -> Failure {
    match outcome {
        GlmOutcome::Failed(failure, _) => failure,
        other => panic!("{other:?}"),
    }
}

/// What one fault makes of one call.
async fn failure_of(fault: Fault, timeouts: Timeouts) -> Failure {
    let sim = simulator(vec![fault.into()]);
    let call = GlmCall {
        timeouts,
        ..call_to(&sim.base_url(), 1)
    };
    let failure = failure(run(&glm(), call).await);
    assert_eq!(sim.stats().calls, 1, "sent once: {failure}");
    failure
}

fn patient() -> Timeouts {
    call_to("", 1).timeouts
}

#[tokio::test]
async fn an_answer_comes_back_verbatim_with_its_tokens() {
    let sim = Simulator::start(SimulatorConfig {
        tokens: Tokens::Fixed {
            prompt: 600,
            completion: 400,
            cached: 100,
        },
        ..SimulatorConfig::default()
    })
    .unwrap();
    let call = call_to(&sim.base_url(), 1);
    let id = call.request_id.to_string();
    let got = answer(run(&glm(), call).await);
    assert_eq!(got.status_code, 200);
    let usage = Usage {
        prompt_tokens: 600,
        completion_tokens: 400,
        total_tokens: 1_000,
        cached_tokens: 100,
        reasoning_tokens: 0,
        ..Usage::default()
    };
    assert_eq!(got.usage, usage);
    let body: Value = serde_json::from_str(got.body.get()).unwrap();
    assert_eq!(body["request_id"], id);
    assert_eq!(body["model"], "glm-4.7");
    let arrivals = sim.arrivals();
    assert_eq!(arrivals[0].prompt.as_str(), "job 1");
    assert_eq!(arrivals[0].request_id.as_str(), id.as_str());
}

#[tokio::test]
async fn the_request_on_the_wire_is_what_glm_expects() {
    let server = RawServer::start(|mut stream, head, body| {
        let head = head.to_lowercase();
        let body: Value = serde_json::from_str(body).unwrap();
        let path = "post /api/paas/v4/chat/completions http/1.1\r\n";
        assert!(head.starts_with(path), "{head}");
        for line in [
            &format!("authorization: bearer {}", KEY.to_lowercase()),
            "content-type: application/json",
            concat!("user-agent: onelane/", env!("CARGO_PKG_VERSION")),
        ] {
            assert!(head.contains(&format!("{line}\r\n")), "{head}");
        }
        assert!(!head.contains("accept-encoding"), "{head}");
        assert_eq!(body["stream"], false);
        reply(&mut stream, "200 OK", "", r#"{"choices":[{"x":1.50}]}"#);
    });
    let call = call_to(&format!("http://{}/api/paas/v4", server.addr), 1);
    let got = answer(run(&glm(), call).await);
    assert_eq!(got.body.get(), r#"{"choices":[{"x":1.50}]}"#);
}

#[tokio::test]
async fn a_refusal_carries_its_reset_and_its_retry_after() {
    let sim = simulator(vec![
        Fault::Error(ErrorFault {
            reset_in_ms: Some(2_000),
            retry_after: Some("997".to_owned()),
            ..ErrorFault::of("1308")
        })
        .into(),
    ]);
    let before = SystemClock.now();
    let failure = failure(run(&glm(), call_to(&sim.base_url(), 1)).await);
    let reset = failure.reset_at.unwrap();
    // Whole seconds, rounded up, so that nobody wakes too soon.
    assert!(
        reset >= before.plus_ms(2_000) && reset <= before.plus_ms(4_000),
        "{reset} {before}"
    );
    assert_eq!(failure.retry_after_ms, Some(997_000));
    assert_eq!(failure.class, C::QuotaWindow);
    assert_eq!(failure.status_code, Some(429));
}

#[tokio::test]
async fn every_odd_response_has_its_outcome() {
    let html = |status| Fault::HtmlPage { status };
    let empty = |status| Fault::EmptyBody { status };
    let text = |status| Fault::NotJson { status };
    let custom = |status, name: &str, value: &str| Fault::Custom {
        status,
        headers: BTreeMap::from([(name.to_owned(), value.to_owned())]),
        body: String::new(),
    };
    let of = |fault| failure_of(fault, patient());
    let moved = custom(302, "location", "/elsewhere");
    let finish = Fault::finish_reason;
    for (fault, class, code, status, billed) in [
        (html(502), C::ServerTransient, "http_502", 502, false),
        (empty(503), C::ServerTransient, "http_503", 503, false),
        (
            empty(200),
            C::ServerTransient,
            code::BODY_INVALID,
            200,
            true,
        ),
        (text(200), C::ServerTransient, code::BODY_INVALID, 200, true),
        (text(529), C::Overload, "http_529", 529, false),
        (
            Fault::CutBody,
            C::ServerTransient,
            code::CONNECTION,
            200,
            true,
        ),
        (Fault::Reset, C::ServerTransient, code::CONNECTION, 0, true),
        (
            finish("network_error"),
            C::ServerTransient,
            "finish:network_error",
            200,
            false,
        ),
        (
            finish("sensitive"),
            C::RequestFatal,
            "finish:sensitive",
            200,
            false,
        ),
        (moved, C::Unattributed, "http_302", 302, false),
        (html(200), C::OperatorFatal, code::HTML_PAGE, 200, false),
    ] {
        let failure = of(fault).await;
        assert_eq!((failure.class, &*failure.code), (class, code), "{failure}");
        // None, where none came.
        assert_eq!(failure.status_code.unwrap_or(0), status, "{failure}");
        assert_eq!(failure.maybe_billed, billed, "{failure}");
    }
    let failure = of(custom(429, "retry-after", "3")).await;
    assert_eq!(failure.class, C::Throttle);
    assert_eq!(failure.retry_after_ms, Some(3_000));
}

#[tokio::test]
async fn a_finish_reason_that_is_a_failure_keeps_what_it_cost() {
    let tokens = Tokens::Fixed {
        prompt: 5,
        completion: 2,
        cached: 0,
    };
    let sensitive = AnswerWith {
        finish_reason: Some("sensitive".to_owned()),
        tokens: Some(tokens),
        ..AnswerWith::default()
    };
    let sim = simulator(vec![
        Fault::Answer(sensitive).into(),
        Fault::finish_reason("length").into(),
        Fault::finish_reason("model_context_window_exceeded").into(),
    ]);
    let glm = glm();
    let GlmOutcome::Failed(failure, usage) = run(&glm, call_to(&sim.base_url(), 1)).await else {
        panic!("cut by moderation")
    };
    assert_eq!(failure.code, "finish:sensitive");
    assert_eq!(usage.total_tokens, 7);
    answer(run(&glm, call_to(&sim.base_url(), 2)).await);
    answer(run(&glm, call_to(&sim.base_url(), 3)).await);
}

#[tokio::test]
async fn each_timeout_has_its_code() {
    let check = async |fault: Fault, timeouts: Timeouts, code: &str, status: Option<u16>| {
        let begun = Instant::now();
        let failure = failure_of(fault, timeouts).await;
        assert_eq!((failure.code.as_str(), failure.status_code), (code, status));
        assert_eq!(failure.class, C::ServerTransient);
        assert!(failure.maybe_billed, "{failure}");
        assert!(begun.elapsed() >= Duration::from_millis(100 + limits::CLOSE_GRACE_MS));
        assert!(begun.elapsed() < Duration::from_secs(4));
    };
    let bounded = |change: fn(&mut Timeouts)| {
        let mut timeouts = patient();
        change(&mut timeouts);
        timeouts
    };
    let idle = bounded(|timeouts| timeouts.idle_ms = 100);
    let total = bounded(|timeouts| timeouts.total_ms = 100);
    let slow = Fault::SlowHeaders { delay_ms: 4_000 };
    let trickle = |pieces| Fault::SlowBody {
        pieces,
        delay_ms: 30,
    };
    check(slow, total, code::TIMEOUT_TOTAL, None).await;
    check(Fault::StallBody, idle, code::TIMEOUT_IDLE, Some(200)).await;
    check(Fault::Hang, total, code::TIMEOUT_TOTAL, None).await;
    check(trickle(100), total, code::TIMEOUT_TOTAL, Some(200)).await;
    // A body that comes slowly is no body that does not come.
    let sim = simulator(vec![trickle(10).into()]);
    let call = GlmCall {
        timeouts: idle,
        ..call_to(&sim.base_url(), 1)
    };
    let begun = Instant::now();
    answer(run(&glm(), call).await);
    assert!(begun.elapsed() > Duration::from_millis(200));
}

#[tokio::test]
async fn whatever_ends_in_the_middle_gives_the_server_time_to_see_it() {
    let check = async |says: fn(TcpStream), code: &str, least_ms: u64| {
        let server = RawServer::start(move |stream, _, _| says(stream));
        let mut call = call_to(&format!("http://{}", server.addr), 1);
        call.timeouts.total_ms = 200;
        let begun = Instant::now();
        let failed = failure(run(&glm(), call).await);
        assert_eq!(failed.code, code, "{failed}");
        assert!(failed.maybe_billed, "{failed}");
        assert!(begun.elapsed() >= Duration::from_millis(least_ms + 250));
    };
    let endless = |mut stream: TcpStream| {
        while stream
            .write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            .is_ok()
        {
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    check(endless, code::TIMEOUT_TOTAL, 200).await;
    let cut = |mut stream: TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"choices\"");
    };
    check(cut, code::CONNECTION, 0).await;
    let no_http = |mut stream: TcpStream| {
        let _ = stream.write_all(b"what is this\r\n\r\n");
        std::thread::sleep(Duration::from_secs(1));
    };
    check(no_http, code::CONNECTION, 0).await;
    check(drop, code::CONNECTION, 0).await;
}

#[tokio::test]
async fn a_call_has_no_bound_for_its_first_byte_but_that_of_the_whole() {
    let sim = simulator(vec![Fault::SlowHeaders { delay_ms: 300 }.into()]);
    let mut call = call_to(&sim.base_url(), 1);
    call.timeouts.first_byte_ms = 50;
    answer(run(&glm(), call).await);
}

#[tokio::test]
async fn a_connection_that_does_not_stand_in_time_was_not_billed() {
    // A listener whose backlog is full lets further connections hang.
    let full = FullListener::start();
    let glm = glm();
    let fails = async |connect_ms, first_byte_ms, total_ms| {
        let mut call = call_to(&format!("http://{}", full.addr), 1);
        call.timeouts.connect_ms = connect_ms;
        call.timeouts.first_byte_ms = first_byte_ms;
        call.timeouts.total_ms = total_ms;
        let begun = Instant::now();
        let failed = failure(run(&glm, call).await);
        assert!(!failed.maybe_billed, "{failed}");
        assert!(begun.elapsed() >= Duration::from_millis(connect_ms.min(total_ms)));
        failed
    };
    let failed = fails(150, 100, 10_000).await;
    assert_eq!(failed.code, code::TIMEOUT_CONNECT);
    assert_eq!(failed.class, C::Unreachable);
    assert!(failed.message.contains("150 ms"), "{failed}");
    // Another limit needs no other client.
    assert_eq!(fails(300, 100, 10_000).await.code, code::TIMEOUT_CONNECT);
    // The bound of the whole call holds here too, and nothing was sent.
    assert_eq!(fails(5_000, 100, 120).await.code, code::TIMEOUT_TOTAL);
}

#[tokio::test]
async fn a_call_whose_own_time_is_shorter_than_connecting_says_how_long_it_tried() {
    let full = FullListener::start();
    let glm = glm();
    let fails = async |connect_ms, total_ms| {
        let mut call = call_to(&format!("http://{}", full.addr), 1);
        call.timeouts.connect_ms = connect_ms;
        call.timeouts.total_ms = total_ms;
        failure(run(&glm, call).await)
    };
    // So little time says nothing of the way.
    let failed = fails(10_000, 120).await;
    assert_eq!(
        (failed.class, &*failed.code),
        (C::ServerTransient, code::TIMEOUT_TOTAL)
    );
    assert!(
        failed.message.starts_with("no connection within 120 ms"),
        "{failed}"
    );
    assert!(!failed.maybe_billed && failed.status_code.is_none());
    // All that connecting may take, or long enough for any network, does.
    for (connect_ms, total_ms) in [(200, 200), (10_000, limits::CONNECT_TELLS_MS)] {
        let failed = fails(connect_ms, total_ms).await;
        assert_eq!(
            (failed.class, &*failed.code),
            (C::Unreachable, code::TIMEOUT_CONNECT)
        );
        assert!(
            failed.message.contains(&format!("{total_ms} ms")),
            "{failed}"
        );
        assert!(!failed.maybe_billed);
    }
}

#[tokio::test]
async fn an_abort_while_connecting_was_never_sent() {
    let full = FullListener::start();
    let abort = CancellationToken::new();
    let call = call_to(&format!("http://{}", full.addr), 1);
    let aborting = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        abort.cancel();
    };
    let (glm, begun) = (glm(), Instant::now());
    let (outcome, ()) = tokio::join!(run_until(&glm, call, abort.clone()), aborting);
    assert!(matches!(outcome, GlmOutcome::NotSent), "{outcome:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "it was waiting to connect"
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn keep_alive_of_the_connection_finds_a_dead_peer() {
    /// The timer of a socket of this machine, and in how many milliseconds it goes off.
    fn timer_of(port: u16, peer: u16) -> Option<(u8, u64)> {
        let table = std::fs::read_to_string("/proc/self/net/tcp").ok()?;
        let (port, peer) = (format!(":{port:04X}"), format!(":{peer:04X}"));
        table.lines().find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_it = words.get(1)?.ends_with(&port) && words.get(2)?.ends_with(&peer);
            let (timer, jiffies) = words.get(5)?.split_once(':')?;
            let jiffies = u64::from_str_radix(jiffies, 16).ok()?;
            let timer = u8::from_str_radix(timer, 16).ok()?;
            is_it.then_some((timer, jiffies * 10))
        })
    }
    const KEEP_ALIVE: u8 = 2;
    let seen = Arc::new(std::sync::Mutex::new(None));
    let noted = Arc::clone(&seen);
    let server = RawServer::start(move |mut stream, _, _| {
        let own = stream.local_addr().unwrap().port();
        let client = stream.peer_addr().unwrap().port();
        // While the request is not acknowledged another timer runs.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(4) {
            let timer = timer_of(client, own);
            *noted.lock().unwrap() = timer;
            if timer.is_some_and(|(timer, _)| timer == KEEP_ALIVE) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        reply(&mut stream, "200 OK", "", r#"{"choices":[{}]}"#);
    });
    answer(run(&glm(), call_to(&format!("http://{}", server.addr), 1)).await);
    let (timer, in_ms) = seen.lock().unwrap().expect("the connection is there");
    assert_eq!(timer, KEEP_ALIVE);
    assert!(in_ms <= limits::TCP_KEEP_ALIVE_MS, "{in_ms}");
}

#[tokio::test]
async fn a_refused_connection_was_not_billed_and_shows_no_secret() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let failure = failure(run(&glm(), call_to(&format!("http://{addr}"), 1)).await);
    assert_eq!(failure.code, code::UNREACHABLE);
    assert_eq!(failure.class, C::Unreachable);
    assert!(!failure.maybe_billed);
    let message = failure.message.to_lowercase();
    assert!(message.contains("refused"), "{failure}");
    assert!(!failure.message.contains("TopSecret"));
}

#[tokio::test]
async fn what_never_left_is_told_from_what_was_lost_on_its_way() {
    // A name that nobody has.
    let call = call_to("http://onelane.invalid", 1);
    let unresolved = failure(run(&glm(), call).await);
    assert_eq!(
        (unresolved.class, &*unresolved.code),
        (C::Unreachable, code::UNREACHABLE),
        "{unresolved}"
    );
    // A server that speaks no TLS.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = plain.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut peer, _) = plain.accept().unwrap();
        peer.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let no_tls = failure(run(&glm(), call_to(&format!("https://{addr}"), 1)).await);
    assert_eq!(no_tls.class, C::Unreachable, "{no_tls}");
    for failure in [unresolved, no_tls] {
        assert!(!failure.maybe_billed && failure.status_code.is_none());
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_is_for_an_operator() {
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((peer, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move { acceptor.accept(peer).await.map(|_| ()) });
        }
    });
    for host in ["localhost", "127.0.0.1"] {
        let call = call_to(&format!("https://{host}:{port}"), 1);
        let failure = failure(run(&glm(), call).await);
        assert_eq!(
            (failure.class, &*failure.code),
            (C::OperatorFatal, code::TLS_UNTRUSTED),
            "{failure}"
        );
        assert!(!failure.maybe_billed, "{failure}");
    }
}

#[tokio::test]
async fn what_can_not_be_sent_is_not_sent() {
    let sim = simulator(Vec::new());
    let glm = glm();
    let usual = call_to(&sim.base_url(), 1);
    let check = async |call: GlmCall, class: C, code: &str| {
        let failure = failure(run(&glm, call).await);
        assert_eq!(failure.class, class, "{failure}");
        assert_eq!(failure.code.as_str(), code, "{failure}");
        assert!(!failure.maybe_billed && !failure.message.contains("TopSecret"));
    };
    for key in [None, Some(Secret::new("TopSecret\n"))] {
        let mut call = usual.clone();
        call.endpoint.api_key = key;
        check(call, C::OperatorFatal, code::NO_API_KEY).await;
    }
    for url in ["", "not a url", "ftp://127.0.0.1/x"] {
        let mut call = usual.clone();
        call.endpoint.base_url = url.to_owned();
        check(call, C::OperatorFatal, code::BASE_URL_INVALID).await;
    }
    let raw = serde_json::value::RawValue::from_string("[1]".to_owned()).unwrap();
    let call = GlmCall {
        request: Arc::new(Request::Body(Face::Chat, raw.into())),
        ..usual.clone()
    };
    check(call, C::RequestFatal, code::REQUEST_INVALID).await;
    let aborted = CancellationToken::new();
    aborted.cancel();
    let outcome = run_until(&glm, usual, aborted).await;
    assert!(matches!(outcome, GlmOutcome::NotSent));
    assert_eq!(sim.stats().connections, 0);
}

#[tokio::test]
async fn a_whole_answer_is_taken_though_its_body_has_no_end() {
    // More bytes are announced than come: the connection ends behind the answer.
    let server = RawServer::start(|mut stream, _, body| {
        let answer = echo(body);
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            answer.len() + 7
        );
        let _ = stream.write_all(format!("{head}{answer}").as_bytes());
    });
    let base = format!("http://{}", server.addr);
    answer(run(&glm(), call_to(&base, 1)).await);
}

#[tokio::test]
async fn a_response_over_the_cap_is_left() {
    let announced = RawServer::start(|mut stream, _, _| {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{{",
            limits::RESPONSE_BYTES_MAX + 1
        );
        stream.write_all(head.as_bytes()).unwrap();
        // Until the client leaves.
        let _ = stream.read(&mut [0; 16]);
    });
    let endless = RawServer::start(|mut stream, _, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let piece = [b' '; 64 * 1024];
        while stream.write_all(&piece).is_ok() {}
    });
    for server in [announced, endless] {
        let call = call_to(&format!("http://{}", server.addr), 1);
        let failure = failure(run(&glm(), call).await);
        assert_eq!(failure.code, code::BODY_TOO_LARGE);
        assert_eq!(failure.class, C::ServerTransient);
        assert!(failure.maybe_billed);
    }
}

#[tokio::test]
async fn an_answer_in_many_pieces_is_put_together() {
    let content = "长".repeat(100_000);
    let long = Fault::Answer(AnswerWith {
        content: Some(content.clone()),
        ..AnswerWith::default()
    });
    let slow = Fault::SlowBody {
        pieces: 50,
        delay_ms: 1,
    };
    let sim = simulator(vec![long.into(), slow.into()]);
    let glm = glm();
    let got = answer(run(&glm, call_to(&sim.base_url(), 1)).await);
    assert!(got.body.get().contains(&content));
    answer(run(&glm, call_to(&sim.base_url(), 2)).await);
}

#[tokio::test]
async fn sequential_calls_share_one_connection() {
    let sim = simulator(Vec::new());
    let glm = glm();
    for no in 1..=500 {
        answer(run(&glm, call_to(&sim.base_url(), no)).await);
    }
    let stats = sim.stats();
    assert_eq!(stats.calls, 500);
    assert_eq!(stats.answered, 500);
    assert_eq!(stats.peak_in_flight, 1);
    // The first one showed that the server names the calls that it answers.
    assert_eq!((stats.connections, stats.duplicate_request_ids), (2, 0));
    assert_eq!(stats.gaps.count, 499);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_follows_an_aborted_or_timed_out_one_before_its_end_was_seen() {
    let sim = Simulator::start(SimulatorConfig {
        rules: vec![Rule::for_prompt("job", Fault::Hang)],
        ..SimulatorConfig::default()
    })
    .unwrap();
    let glm = glm();
    for no in 1..=20 {
        let mut call = call_to(&sim.base_url(), no);
        let abort = CancellationToken::new();
        if no % 2 == 0 {
            call.timeouts.total_ms = 5;
            assert_eq!(
                failure(run_until(&glm, call, abort).await).code,
                code::TIMEOUT_TOTAL
            );
        } else {
            let aborting = async {
                while sim.stats().in_flight == 0 {
                    tokio::task::yield_now().await;
                }
                abort.cancel();
            };
            let (outcome, ()) = tokio::join!(run_until(&glm, call, abort.clone()), aborting);
            assert!(matches!(outcome, GlmOutcome::Aborted));
        }
    }
    sim.clear_script();
    answer(run(&glm, call_to(&sim.base_url(), 21)).await);
    let stats = sim.stats();
    // A call may run out of time before the server has read it; an aborted one had been read.
    assert!((11..=21).contains(&stats.calls), "{stats:?}");
    assert_eq!((stats.answered, stats.clients_left), (1, stats.calls - 1));
    assert_eq!(stats.peak_in_flight, 1);
}

#[tokio::test]
async fn a_call_that_lies_ready_is_not_sent() {
    let sim = simulator(Vec::new());
    let glm = glm();
    drop(glm.call(call_to(&sim.base_url(), 1), CancellationToken::new()));
    let ready = glm.call(call_to(&sim.base_url(), 2), CancellationToken::new());
    answer(run(&glm, call_to(&sim.base_url(), 3)).await);
    assert_eq!(sim.stats().calls, 1);
    answer(ready.await.read());
    assert_eq!(sim.stats().calls, 2);
}

#[tokio::test]
async fn an_abort_in_the_middle_of_a_body_closes_the_connection() {
    let sim = simulator(vec![Fault::StallBody.into()]);
    let glm = glm();
    let abort = CancellationToken::new();
    let aborting = async {
        while sim.arrivals().first().is_none_or(|a| a.status.is_none()) {
            tokio::task::yield_now().await;
        }
        // Long enough for the half body to be there; the outcome is the same without it.
        tokio::time::sleep(Duration::from_millis(20)).await;
        abort.cancel();
    };
    let (outcome, ()) = tokio::join!(
        run_until(&glm, call_to(&sim.base_url(), 1), abort.clone()),
        aborting
    );
    assert!(matches!(outcome, GlmOutcome::Aborted));
    let stats = sim.stats();
    assert_eq!(stats.in_flight, 0);
    assert_eq!(stats.open_connections, 0);
    assert_eq!(stats.clients_left, 1);
    answer(run(&glm, call_to(&sim.base_url(), 2)).await);
    assert_eq!(sim.stats().peak_in_flight, 1);
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_costs_no_call() {
    // Answers one request a connection and then closes it without saying so.
    let server = RawServer::start(|mut stream, _, _| {
        reply(&mut stream, "200 OK", "", r#"{"choices":[{}]}"#);
    });
    let glm = glm();
    for no in 1..=20 {
        answer(run(&glm, call_to(&format!("http://{}", server.addr), no)).await);
        // The close reaches the client before its next call, as it does between real calls, even if
        // the machine is busy.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_request_that_may_have_arrived_is_never_sent_twice() {
    // Reads the second request of a connection and closes instead of answering.
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let requests = Arc::clone(&seen);
    let server = RawServer::start(move |mut stream, _, body| {
        requests.lock().unwrap().push(body.to_owned());
        reply(&mut stream, "200 OK", "", &echo(body));
        if let Some((_, body)) = read_request(&mut stream) {
            requests.lock().unwrap().push(body);
        }
    });
    let glm = glm();
    let base = format!("http://{}", server.addr);
    // The first one shows that the server names the calls that it answers: from then on connections are kept.
    answer(run(&glm, call_to(&base, 1)).await);
    answer(run(&glm, call_to(&base, 2)).await);
    let failure = failure(run(&glm, call_to(&base, 3)).await);
    assert_eq!(failure.code, code::CONNECTION_ENDED, "{failure}");
    assert!(failure.maybe_billed, "{failure}");
    assert_eq!(seen.lock().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_side_by_side_have_their_own_bounds() {
    let sim = Simulator::start(SimulatorConfig {
        latency_ms: Span::Fixed(100),
        rules: vec![Rule::for_prompt("job 3", Fault::Hang)],
        ..SimulatorConfig::default()
    })
    .unwrap();
    let glm = glm();
    let one = |no: u32| {
        let mut call = call_to(&sim.base_url(), no);
        if no == 3 {
            call.timeouts.total_ms = 150;
        }
        run(&glm, call)
    };
    let (a, b, c) = tokio::join!(one(1), one(2), one(3));
    answer(a);
    answer(b);
    assert_eq!(failure(c).code, code::TIMEOUT_TOTAL);
    assert_eq!(sim.stats().peak_in_flight, 3);
}

#[tokio::test]
async fn time_to_connect_is_not_taken_from_the_time_to_the_first_byte() {
    // What the port promises of the two bounds, without a slow network: the gauge itself.
    use super::connect::{Gauge, GaugedConnector, Stage};
    use tower_layer::Layer;
    use tower_service::Service;

    let begun = tokio::time::Instant::now();
    let gauge = Gauge::new(begun, Duration::from_secs(5));
    assert_eq!(gauge.stage(), Stage::Idle);
    let mut connector = GaugedConnector.layer(Slow);
    let connecting = gauge.watch(async { connector.call(()).await });
    let looking = async {
        tokio::task::yield_now().await;
        assert_eq!(gauge.stage(), Stage::Connecting);
    };
    let (connected, ()) = tokio::join!(connecting, looking);
    connected.unwrap();
    let Stage::Connected(at) = gauge.stage() else {
        panic!("connected")
    };
    // The stage is kept in whole microseconds.
    assert!(at >= begun + Duration::from_millis(29));

    let short = Gauge::new(begun, Duration::from_millis(1));
    let failed = short.watch(async { connector.call(()).await }).await;
    assert!(failed.unwrap_err().is::<super::connect::ConnectTimedOut>());
    assert_eq!(short.stage(), Stage::Idle);
}

/// A connector that takes 30 ms.
struct Slow;

impl tower_service::Service<()> for Slow {
    type Response = ();
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<(), Self::Error>> + Send>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            Ok(())
        })
    }
}

#[test]
fn a_clock_of_another_time_reads_the_stamp_relative_to_itself() {
    struct Fixed;
    impl Clock for Fixed {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(1_795_420_800_000)
        }
    }
    let sim = Simulator::start_at(SimulatorConfig::default(), Arc::new(Fixed)).unwrap();
    sim.push_fault(Fault::Error(ErrorFault {
        reset_in_ms: Some(60_000),
        ..ErrorFault::of("1310")
    }));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let glm = HttpGlm::new(Arc::new(Fixed)).unwrap();
    let failure = failure(runtime.block_on(run(&glm, call_to(&sim.base_url(), 1))));
    assert_eq!(failure.reset_at, Some(Fixed.now().plus_ms(60_000)));
}

/// A server of one handler per connection, for what a well-made server does not do.
struct RawServer {
    addr: SocketAddr,
}

impl RawServer {
    fn start(handle: impl Fn(TcpStream, &str, &str) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let handle = Arc::new(handle);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let handle = Arc::clone(&handle);
                std::thread::spawn(move || {
                    let mut stream = stream;
                    if let Some((head, body)) = read_request(&mut stream) {
                        handle(stream, &head, &body);
                    }
                });
            }
        });
        Self { addr }
    }
}

/// Head and body of the next request; `None` at the end of the connection.
fn read_request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| {
            line.to_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        })
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).unwrap()))
}

/// An answer that names the call that it is to.
fn echo(request: &str) -> String {
    let request: Value = serde_json::from_str(request).unwrap();
    let prompt = &request["messages"][0]["content"];
    let id = &request["request_id"];
    format!(
        r#"{{"choices":[{{"finish_reason":"stop","message":{{"content":{prompt}}}}}],"request_id":{id}}}"#
    )
}

fn reply(stream: &mut TcpStream, status: &str, headers: &str, body: &str) {
    let response = format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(response.as_bytes()).unwrap();
}

/// A listener that accepts nothing and whose backlog is taken.
struct FullListener {
    addr: SocketAddr,
    _listener: tokio::net::TcpListener,
    _taken: Vec<TcpStream>,
}

impl FullListener {
    fn start() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let addr = listener.local_addr().unwrap();
        let wait = Duration::from_millis(50);
        let taken = std::iter::from_fn(|| TcpStream::connect_timeout(&addr, wait).ok())
            .take(16)
            .collect();
        Self {
            addr,
            _listener: listener,
            _taken: taken,
        }
    }
}
