//! The simulator as a client sees it, without any client of ours between.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;

fn start(config: Value) -> Simulator {
    Simulator::start(serde_json::from_value(config).unwrap()).unwrap()
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

fn send(stream: &mut TcpStream, method: &str, path: &str, key: &str, body: &str) {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\n{key}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
}

/// Status, head and body of a response with a length.
fn receive(stream: &mut TcpStream) -> (u16, String, String) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "cut in the head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, String::from_utf8(body).unwrap())
}

fn request(sim: &Simulator, method: &str, path: &str, key: &str, body: &str) -> (u16, Value) {
    let mut stream = connect(sim.addr());
    send(&mut stream, method, path, key, body);
    let (status, _, body) = receive(&mut stream);
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

const CHAT: &str = "/api/paas/v4/chat/completions";
const KEY: &str = "authorization: Bearer good.key\r\n";

fn chat(sim: &Simulator, body: &Value) -> (u16, Value) {
    request(sim, "POST", CHAT, KEY, &body.to_string())
}

fn hello(id: &str) -> Value {
    json!({"model": "glm-5", "request_id": id, "messages": [{"role": "user", "content": "hello"}]})
}

/// Waits for what the server's thread does next.
fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(10), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn every_route_of_a_chat_answers() {
    let sim = start(json!({}));
    for path in [
        CHAT,
        "/api/coding/paas/v4/chat/completions",
        "/v1/chat/completions",
    ] {
        let (status, body) = request(&sim, "POST", path, KEY, &hello("id-0001").to_string());
        assert_eq!(
            (status, &body["request_id"]),
            (200, &json!("id-0001")),
            "{path}"
        );
    }
    assert_eq!(request(&sim, "GET", CHAT, KEY, "").0, 405);
    let (status, body) = request(&sim, "POST", "/api/paas/v4/embeddings", KEY, "{}");
    assert_eq!((status, &body["error"]), (404, &json!("Not Found")));
    assert!(sim.base_url().starts_with("http://127.0.0.1:"));
    assert!(sim.base_url().ends_with("/api/paas/v4"));
}

#[test]
fn a_key_is_needed_and_may_be_changed_while_it_runs() {
    let sim = start(json!({"keys": ["good.key"]}));
    let with = |header: &str| {
        let (status, body) = request(&sim, "POST", CHAT, header, &hello("id-0001").to_string());
        (status, body["error"]["code"].as_str().map(str::to_owned))
    };
    let refused = |code: &str| (401, Some(code.to_owned()));
    assert_eq!(with(""), refused("1001"));
    assert_eq!(with("authorization: Bearer \r\n"), refused("1001"));
    assert_eq!(with("authorization: Bearer bad.key\r\n"), refused("1000"));
    assert_eq!(with(KEY), (200, None));
    assert_eq!(with("authorization: good.key\r\n"), (200, None), "bare");
    sim.set_keys(["other.key"]);
    assert_eq!(with(KEY), refused("1000"));
    let (status, _) = request(
        &sim,
        "POST",
        "/__sim/script",
        "",
        r#"{"keys": ["good.key"]}"#,
    );
    assert_eq!((status, with(KEY)), (200, (200, None)));
    let stats = sim.stats();
    assert_eq!((stats.by_status[&401], stats.by_code["1000"]), (4, 2));
}

#[test]
fn over_the_limit_of_a_model_is_1302_and_other_models_go_on() {
    let sim = start(json!({"limit": 1, "rules": [{"promptContains": "block", "fault": "hang"}]}));
    let mut blocking = connect(sim.addr());
    let block = json!({"model": "glm-5", "messages": [{"role": "user", "content": "block"}]});
    send(&mut blocking, "POST", CHAT, KEY, &block.to_string());
    eventually("in flight", || {
        sim.stats().peak_by_model.contains_key("glm-5")
    });
    let (status, body) = chat(&sim, &hello("id-0001"));
    assert_eq!((status, &body["error"]["code"]), (429, &json!("1302")));
    let mut other = hello("id-0002");
    other["model"] = json!("glm-4.7");
    assert_eq!(chat(&sim, &other).0, 200);
    sim.set_limit(Some("glm-5"), 2);
    assert_eq!(chat(&sim, &hello("id-0003")).0, 200);
    assert_eq!(sim.stats().peak_in_flight, 2);
    // The server sees the client leave and lets go of its request.
    drop(blocking);
    eventually("the client left", || sim.stats().in_flight == 0);
    assert_eq!(sim.stats().clients_left, 1);
    assert!(sim.arrivals()[0].client_left);
}

#[test]
fn faults_of_the_transport_are_real() {
    let sim = start(json!({"script": [
        {"fault": "reset"}, {"fault": "cutBody"}, {"fault": "stallBody"},
        {"fault": {"slowBody": {"pieces": 3, "delayMs": 5}}},
    ]}));
    let body = hello("id-0001").to_string();
    let mut stream = connect(sim.addr());
    send(&mut stream, "POST", CHAT, KEY, &body);
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let mut stream = connect(sim.addr());
    send(&mut stream, "POST", CHAT, KEY, &body);
    let mut got = String::new();
    stream.read_to_string(&mut got).unwrap();
    let (head, part) = got.split_once("\r\n\r\n").unwrap();
    let announced = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map(|length| length.parse::<usize>().unwrap());
    assert_eq!(announced.map(|n| n / 2), Some(part.len()));
    assert!(part.starts_with(r#"{"choices":"#));

    let mut stream = connect(sim.addr());
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    send(&mut stream, "POST", CHAT, KEY, &body);
    let mut got = Vec::new();
    let error = stream.read_to_end(&mut got).unwrap_err();
    assert!(matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut
    ));
    assert!(got.windows(10).any(|window| window == br#"{"choices""#));
    assert_eq!(sim.stats().in_flight, 1);
    drop(stream);
    eventually("the client left", || sim.stats().in_flight == 0);

    // A slow body is whole, and the connection goes on after it.
    let mut stream = connect(sim.addr());
    for _ in 0..2 {
        send(&mut stream, "POST", CHAT, KEY, &body);
        let (status, _, body) = receive(&mut stream);
        assert_eq!(status, 200);
        assert!(serde_json::from_str::<Value>(&body).is_ok());
    }
    let stats = sim.stats();
    assert_eq!((stats.calls, stats.answered, stats.clients_left), (5, 3, 1));
    assert_eq!((stats.connections, stats.script_left), (4, 0));
}

#[test]
fn responses_that_are_not_glms_come_as_scripted() {
    let sim = start(json!({"script": [
        {"fault": {"htmlPage": {"status": 502}}},
        {"fault": {"emptyBody": {"status": 503}}},
        {"fault": {"custom": {"status": 418, "headers": {"x-a": "b", "retry-after": "7"}, "body": "tea"}}},
        {"fault": {"error": {"code": "1302", "retryAfter": "3", "status": 503, "message": "slow"}}},
    ]}));
    let mut stream = connect(sim.addr());
    let mut next = || {
        send(
            &mut stream,
            "POST",
            CHAT,
            KEY,
            &hello("id-0001").to_string(),
        );
        receive(&mut stream)
    };
    let (status, head, body) = next();
    assert_eq!(status, 502);
    assert!(head.contains("content-type: text/html") && body.contains("502 Bad Gateway"));
    let (status, _, body) = next();
    assert_eq!((status, body.as_str()), (503, ""));
    let (status, head, body) = next();
    assert_eq!((status, body.as_str()), (418, "tea"));
    assert!(head.contains("x-a: b\r\n") && head.contains("retry-after: 7\r\n"));
    let (status, head, body) = next();
    assert_eq!(
        (status, body.as_str()),
        (503, r#"{"error":{"code":"1302","message":"slow"}}"#)
    );
    assert!(head.contains("retry-after: 3\r\n"));
}

#[test]
fn a_repeated_request_id_is_counted_and_refused_when_asked() {
    let sim = start(json!({"models": ["glm-5"]}));
    assert_eq!(chat(&sim, &hello("id-0001")).0, 200);
    assert_eq!(chat(&sim, &hello("id-0001")).0, 200);
    sim.update(serde_json::from_value(json!({"refuseDuplicateRequestIds": true})).unwrap());
    let (status, body) = chat(&sim, &hello("id-0001"));
    assert_eq!((status, &body["error"]["code"]), (400, &json!("1231")));
    let stats = sim.stats();
    assert_eq!((stats.request_ids, stats.duplicate_request_ids), (1, 2));
    assert_eq!(sim.calls_of_request_id("id-0001"), 3);
    assert_eq!(sim.calls_of_prompt("hello"), 3);
    let mut unknown = hello("id-0002");
    unknown["model"] = json!("glm-9");
    assert_eq!(chat(&sim, &unknown).1["error"]["code"], "1211");
    assert_eq!(chat(&sim, &json!([])).1["error"]["code"], "1210");
}

#[test]
fn statistics_and_script_have_their_routes() {
    let sim = start(json!({}));
    let script = r#"{"script": [{"fault": {"error": {"code": "1305"}}, "times": 2}]}"#;
    assert_eq!(request(&sim, "POST", "/__sim/script", "", script).0, 200);
    let (status, body) = request(&sim, "POST", "/__sim/script", "", r#"{"scrip": []}"#);
    assert_eq!(status, 400);
    assert!(
        body["error"]
            .as_str()
            .unwrap()
            .contains("unknown field `scrip`")
    );
    assert_eq!(chat(&sim, &hello("id-0001")).0, 429);

    let (status, stats) = request(&sim, "GET", "/__sim/stats?arrivals=5", "", "");
    assert_eq!(status, 200);
    assert_eq!(stats["calls"], 1);
    assert_eq!(stats["peakInFlight"], 1);
    assert_eq!(stats["byStatus"]["429"], 1);
    assert_eq!(stats["byCode"]["1305"], 1);
    assert_eq!(stats["scriptLeft"], 1);
    assert_eq!(stats["arrivals"][0]["requestId"], "id-0001");
    assert_eq!(stats["arrivals"][0]["code"], "1305");
    assert!(stats["gaps"]["p50Us"].is_u64());

    assert_eq!(request(&sim, "POST", "/__sim/reset", "", "").0, 200);
    let (_, stats) = request(&sim, "GET", "/__sim/stats", "", "");
    assert_eq!(
        (&stats["calls"], &stats["scriptLeft"]),
        (&json!(0), &json!(1))
    );
    assert!(stats.get("arrivals").is_none());
    assert_eq!(request(&sim, "GET", "/__sim/script", "", "").0, 404);
}

#[test]
fn a_latency_is_kept_and_none_is_none() {
    let sim = start(json!({"latencyMs": 30}));
    let timed = |body: &Value| {
        let begun = Instant::now();
        assert_eq!(chat(&sim, body).0, 200);
        begun.elapsed()
    };
    assert!(timed(&hello("id-0001")) >= Duration::from_millis(30));
    let mut wish = hello("id-0002");
    wish["messages"][0]["content"] = json!("[[sim latency_ms=60 priority=7]]");
    assert!(timed(&wish) >= Duration::from_millis(60));
    assert_eq!(sim.arrivals()[1].priority, Some(7));
    let arrival = &sim.arrivals()[0];
    assert!(arrival.end_us.unwrap() - arrival.at_us >= 30_000);
}

#[test]
fn it_stops_when_it_is_dropped_and_says_when_it_can_not_start() {
    let sim = start(json!({"rules": [{"fault": "hang"}]}));
    let addr = sim.addr();
    let taken = Simulator::start(SimulatorConfig {
        listen: addr,
        ..SimulatorConfig::default()
    });
    assert_eq!(taken.err().map(|e| e.kind()), Some(ErrorKind::AddrInUse));
    let mut open = connect(addr);
    send(&mut open, "POST", CHAT, KEY, &hello("id-0001").to_string());
    eventually("in flight", || sim.stats().in_flight == 1);
    sim.shutdown();
    assert_eq!(open.read(&mut [0]).unwrap_or(0), 0, "closed");
    assert!(TcpStream::connect(addr).is_err());
}

#[tokio::test]
async fn it_starts_and_stops_inside_a_runtime_too() {
    let sim = Simulator::start(SimulatorConfig::default()).unwrap();
    assert_eq!(sim.stats().calls, 0);
    drop(sim);
}
