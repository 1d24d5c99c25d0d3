//! Guards: streams that are cut where they happen to be when the daemon stops.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use onelane::simulator::{Fault, Rule};
use serde_json::json;

use super::{Daemon, serve, world};

/// A request that was sent, read up to this much of its answer.
fn reading(daemon: &Daemon, head: &str, body: &str, until: &str) -> (TcpStream, String) {
    let address = daemon.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!(
        "{head} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(until.as_bytes()) {
        stream.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
    (stream, String::from_utf8(read).unwrap())
}

fn rest(mut stream: TcpStream) -> String {
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    rest
}

/// The last chunk of a body: nothing follows, and nothing is missing.
const WHOLE: &str = "0\r\n\r\n";

#[test]
fn live_events_end_as_whole_answers_when_the_daemon_stops() {
    let (place, simulator) = world();
    let daemon = Daemon::start(&place, &simulator);
    let later = json!({"prompt": "later", "runAt": "2999-01-01T00:00:00Z"});
    let id = daemon.submit(&later);
    let (all, head) = reading(&daemon, "GET /api/glm/events", "", "\r\n\r\n");
    assert!(head.contains("text/event-stream"), "{head}");
    let of_job = format!("GET /api/glm/jobs/{id}/events");
    let (of_job, _) = reading(&daemon, &of_job, "", "\"pending\"}\n\n");
    daemon.stop();
    for stream in [all, of_job] {
        let rest = rest(stream);
        assert!(rest.ends_with(WHOLE), "{rest:?}");
    }
}

#[test]
fn a_stream_of_the_gateway_that_is_cut_by_the_end_says_so_in_its_own_form() {
    let (place, simulator) = world();
    simulator.add_rule(Rule::for_prompt("long", Fault::StallBody));
    place.write("onelane.toml", "[server]\nshutdown_deadline_ms = 300\n");
    let daemon = Daemon::of(&mut serve(&place, &simulator));
    let chat = r#"{"stream":true,"messages":[{"role":"user","content":"long"}]}"#;
    let (stream, _) = reading(&daemon, "POST /v1/chat/completions", chat, "data:");
    daemon.running.signal("TERM");
    let rest = rest(stream);
    assert!(rest.contains("data: {\"error\":"), "{rest:?}");
    assert!(rest.ends_with(WHOLE), "{rest:?}");
    daemon.running.end().with(1);
}
