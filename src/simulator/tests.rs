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

fn send_chat(stream: &mut TcpStream, body: &Value) {
    send(stream, "POST", CHAT, KEY, &body.to_string());
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
        assert_eq!(status, 200, "{path}");
        assert_eq!(body["request_id"], "id-0001", "{path}");
    }
    assert_eq!(request(&sim, "GET", CHAT, KEY, "").0, 405);
    let (status, body) = request(&sim, "POST", "/api/paas/v4/rerank", KEY, "{}");
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
    send_chat(&mut blocking, &block);
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
    assert_eq!(stats["calls"], 0);
    assert_eq!(stats["scriptLeft"], 1);
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
    send_chat(&mut open, &hello("id-0001"));
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

const TASKS: &str = "/api/paas/v4/async/chat/completions";

fn submit(sim: &Simulator, key: &str, body: &Value) -> (u16, Value) {
    request(sim, "POST", TASKS, key, &body.to_string())
}

fn look(sim: &Simulator, key: &str, id: &str) -> (u16, Value) {
    let path = format!("/api/paas/v4/async-result/{id}");
    request(sim, "GET", &path, key, "")
}

#[test]
fn a_task_is_processed_and_then_there_for_its_account_alone() {
    let sim = start(json!({"taskMs": 3600000}));
    let mut body = hello("id-0001");
    body["stream"] = json!(true);
    let (status, accepted) = submit(&sim, KEY, &body);
    let id = accepted["id"].as_str().unwrap();
    let want =
        json!({"id": id, "model": "glm-5", "request_id": "id-0001", "task_status": "PROCESSING"});
    assert_eq!((status, &accepted), (200, &want));
    assert_eq!(look(&sim, KEY, id), (200, want));

    body["messages"][0]["content"] = json!("soon [[sim latency_ms=30]]");
    body["request_id"] = json!("id-0002");
    let (_, accepted) = submit(&sim, KEY, &body);
    let id = accepted["id"].as_str().unwrap();
    let mut last = Value::Null;
    eventually("done", || {
        last = look(&sim, KEY, id).1;
        last["task_status"] == "SUCCESS"
    });
    assert_eq!(last["id"], json!(id));
    assert_eq!(last["request_id"], "id-0002");
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    assert_eq!(look(&sim, KEY, id).1, last, "as often as one likes");

    let unknown = json!({"code": 1233, "msg": "任务不存在", "success": false});
    let other = "authorization: Bearer other.key\r\n";
    assert_eq!(look(&sim, other, id), (400, unknown.clone()));
    assert_eq!(look(&sim, KEY, "never"), (400, unknown));
    assert_eq!(look(&sim, "", id).0, 401);
    assert_eq!(request(&sim, "GET", TASKS, KEY, "").0, 405);

    let stats = sim.stats();
    // The first is still worked on.
    assert_eq!(stats.calls, 3);
    assert_eq!(stats.task_submissions, 3);
    assert_eq!(stats.in_flight, 1);
    assert_eq!(stats.bought, 2);
    assert_eq!(stats.works_bought, 2);
    assert_eq!(stats.answered, 2);
    assert!(stats.task_looks >= 6, "{stats:?}");
    let arrivals = sim.arrivals();
    assert_eq!(arrivals[1].operation, Operation::FetchTask);
    assert_eq!(arrivals[0].task_id, arrivals[1].task_id);
    assert_eq!(arrivals[1].in_flight, 0);
}

#[test]
fn unfinished_tasks_count_against_the_limit_and_looks_do_not() {
    let sim = start(json!({"taskMs": 3600000, "limit": 2}));
    let (_, accepted) = submit(&sim, KEY, &hello("id-0001"));
    let id = accepted["id"].as_str().unwrap();
    assert_eq!(submit(&sim, KEY, &hello("id-0002")).0, 200);
    let (status, body) = submit(&sim, KEY, &hello("id-0003"));
    assert_eq!((status, &body["error"]["code"]), (429, &json!("1302")));
    assert_eq!(chat(&sim, &hello("id-0004")).1["error"]["code"], "1302");
    for _ in 0..3 {
        assert_eq!(look(&sim, KEY, id).1["task_status"], "PROCESSING");
    }
    let stats = sim.stats();
    assert_eq!(stats.in_flight, 2);
    assert_eq!(stats.bought, 2);
    assert_eq!(stats.works_bought, 1);
    assert_eq!(sim.purchases_of_prompt("hello"), 2);
}

#[test]
fn a_task_fails_as_scripted_and_is_not_bought() {
    let sim = start(json!({"script": [
        {"fault": {"failTask": {"error": {"code": "1301"}}}},
        {"fault": {"failTask": {}}},
        {"fault": {"failTask": {}}},
        {"fault": {"error": {"code": "1305"}}},
    ]}));
    let mut fates = Vec::new();
    for _ in 0..2 {
        let (_, accepted) = submit(&sim, KEY, &hello("id-0001"));
        let (status, fate) = look(&sim, KEY, accepted["id"].as_str().unwrap());
        assert_eq!((status, &fate["task_status"]), (200, &json!("FAIL")));
        fates.push(fate["error"]["code"].clone());
    }
    assert_eq!(fates, [json!("1301"), Value::Null]);
    assert_eq!(chat(&sim, &hello("id-0002")).1["error"]["code"], "1200");
    assert_eq!(
        submit(&sim, KEY, &hello("id-0003")).1["error"]["code"],
        "1305"
    );
    let stats = sim.stats();
    assert_eq!((stats.bought, stats.calls, stats.script_left), (0, 4, 0));
}

#[test]
fn a_submission_whose_answer_is_lost_is_bought_all_the_same() {
    let sim = start(json!({"script": [{"fault": "cutBody"}, {"fault": "reset"}]}));
    for _ in 0..2 {
        let mut stream = connect(sim.addr());
        send(
            &mut stream,
            "POST",
            TASKS,
            KEY,
            &hello("id-0001").to_string(),
        );
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(submit(&sim, KEY, &hello("id-0001")).0, 200);
    let stats = sim.stats();
    // Reset comes before anything is begun, the cut after it.
    assert_eq!(stats.task_submissions, 3);
    assert_eq!(stats.bought, 2);
    assert_eq!(stats.works_bought, 1);
}

#[test]
fn the_limit_changes_while_requests_are_in_flight_and_the_peak_is_told_since_then() {
    let sim = start(json!({"limit": 3, "rules": [{"promptContains": "block", "fault": "hang"}]}));
    let mut blocked = Vec::new();
    let mut block = |n: u64| {
        let mut stream = connect(sim.addr());
        let body = json!({"model": "glm-5", "messages": [{"role": "user", "content": "block"}]});
        send_chat(&mut stream, &body);
        eventually("in flight", || {
            sim.stats().peak_by_model.get("glm-5") == Some(&n)
        });
        blocked.push(stream);
    };
    (1..=3).for_each(&mut block);
    assert_eq!(sim.peak_since(0, None), 3);

    sim.set_limit(None, 1);
    let lowered_us = sim.now_us();
    assert_eq!(sim.peak_since(lowered_us, None), 0, "nothing arrived");
    assert_eq!(chat(&sim, &hello("id-0001")).0, 429);
    // It arrived beside three others, which the client must not do.
    assert_eq!(sim.peak_since(lowered_us, None), 4);
    assert_eq!(sim.peak_since(lowered_us, Some("glm-5")), 4);
    drop(blocked);
    eventually("the clients left", || sim.stats().in_flight == 0);
    let free_us = sim.now_us();
    assert_eq!(chat(&sim, &hello("id-0002")).0, 200);
    assert_eq!(sim.peak_since(free_us, Some("glm-5")), 1);
    let stats = format!("/__sim/stats?since={free_us}");
    assert_eq!(request(&sim, "GET", &stats, "", "").1["peakSince"], 1);

    // Another model has its own count, and its own limit.
    sim.set_limit(None, 5);
    sim.set_limit(Some("glm-4.7"), 1);
    let raised_us = sim.now_us();
    let mut open = connect(sim.addr());
    let body = json!({"model": "glm-4.7", "messages": [{"role": "user", "content": "block"}]});
    send_chat(&mut open, &body);
    eventually("in flight", || {
        sim.stats().peak_by_model.contains_key("glm-4.7")
    });
    assert_eq!(chat(&sim, &hello("id-0003")).0, 200);
    let peaks = [None, Some("glm-4.7"), Some("glm-5")].map(|m| sim.peak_since(raised_us, m));
    assert_eq!(peaks, [2, 1, 1]);
}

#[test]
fn an_arrival_tells_when_it_came_when_it_ended_and_what_was_beside_it() {
    let sim = start(json!({"latencyMs": 20}));
    for id in ["id-0001", "id-0002"] {
        assert_eq!(chat(&sim, &hello(id)).0, 200);
    }
    let arrivals = sim.arrivals();
    assert!(arrivals[0].end_us.unwrap() <= arrivals[1].at_us);
    assert!(arrivals[1].end_us.unwrap() <= sim.now_us());
    for arrival in arrivals {
        assert_eq!((arrival.in_flight, arrival.in_flight_of_model), (1, 1));
        assert_eq!(arrival.operation, Operation::Chat);
    }
}
