//! Guards: a Unix socket that is somebody's, or nobody's any more, and whom it lets in.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use onelane::simulator::{Fault, Rule, Simulator};
use serde_json::Value;

use super::{serve, world};
use crate::common::{Place, Running, run, until};

const SOCKET: &str = "api.sock";

/// `onelane serve` on a socket alone.
fn serve_on_socket(place: &Place, simulator: &Simulator) -> Command {
    let url = simulator.base_url();
    place.onelane(&["serve", "--base-url", &url, "--listen", "none"])
}

fn configured() -> (Place, Simulator) {
    let (place, simulator) = world();
    place.write("onelane.toml", format!("[server]\nsocket = \"{SOCKET}\"\n"));
    (place, simulator)
}

/// Sends a request with these headers, too: each ends its line.
fn sent(place: &Place, line: &str, headers: &str, body: &str) -> UnixStream {
    let mut stream = UnixStream::connect(place.path(SOCKET)).unwrap();
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n{headers}\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn read(mut stream: UnixStream) -> (String, String) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn get(place: &Place, path: &str) -> (String, String) {
    read(sent(place, &format!("GET {path}"), "", ""))
}

const CHAT: &str = "POST /v1/chat/completions";

fn chat(text: &str) -> String {
    format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#)
}

fn pending(place: &Place) -> u64 {
    let (_, list) = get(place, "/api/admin/glm/queue?status=pending");
    let list: Value = serde_json::from_str(&list).unwrap();
    list["total"].as_u64().unwrap()
}

#[test]
fn the_api_is_served_on_a_socket_of_its_owner_alone_until_its_end() {
    let (place, simulator) = configured();
    let running = Running::start(&mut serve_on_socket(&place, &simulator));
    let line = running.says("unix:api.sock");
    assert!(line.contains(" on unix:api.sock: "), "{line}");
    let mode = fs::metadata(place.path(SOCKET))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(get(&place, "/healthz").0.starts_with("HTTP/1.1 200"));
    let (head, body) = read(sent(&place, CHAT, "", &chat("hi")));
    assert!(head.starts_with("HTTP/1.1 200"), "{head}{body}");
    running.signal("TERM");
    running.end().with(0);
    assert!(!place.has(SOCKET));
    // Beside an address, and for a group.
    let both = format!("[server]\nsocket = \"{SOCKET}\"\nsocket_mode = \"660\"\n");
    place.write("onelane.toml", both);
    let running = Running::start(&mut serve(&place, &simulator));
    let line = running.says("unix:api.sock");
    assert!(line.contains("http://127.0.0.1:"), "{line}");
    let mode = fs::metadata(place.path(SOCKET))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    assert!(get(&place, "/readyz").0.starts_with("HTTP/1.1 200"));
    running.signal("TERM");
    running.end().with(0);
    assert!(!place.has(SOCKET));
}

#[test]
fn a_socket_of_a_dead_process_is_replaced_and_that_of_a_living_one_is_not() {
    let (place, simulator) = configured();
    let running = Running::start(&mut serve_on_socket(&place, &simulator));
    running.says("unix:");
    running.kill();
    assert!(place.has(SOCKET), "nobody took it away");
    let running = Running::start(&mut serve_on_socket(&place, &simulator));
    running.says("unix:");
    let mut another = serve_on_socket(&place, &simulator);
    run(another.args(["--store", "other.redb"]))
        .with(2)
        .noting(&["server.socket", SOCKET, "in use by another program"]);
    assert!(get(&place, "/healthz").0.starts_with("HTTP/1.1 200"));
    running.signal("TERM");
    running.end().with(0);

    place.write(SOCKET, "somebody's notes");
    run(&mut serve_on_socket(&place, &simulator))
        .with(2)
        .noting(&["server.socket", "is no socket"]);
    assert_eq!(place.read(SOCKET), "somebody's notes");
    fs::remove_file(place.path(SOCKET)).unwrap();
    place.write("onelane.toml", "");
    run(&mut serve_on_socket(&place, &simulator))
        .with(2)
        .noting(&["server.listen", "server.socket"]);
}

#[test]
fn a_socket_that_took_the_place_of_ours_is_left_alone() {
    let (place, simulator) = configured();
    let running = Running::start(&mut serve_on_socket(&place, &simulator));
    running.says("unix:");
    fs::remove_file(place.path(SOCKET)).unwrap();
    let _other = UnixListener::bind(place.path(SOCKET)).unwrap();
    running.signal("TERM");
    running.end().with(0);
    assert!(place.has(SOCKET));
}

#[test]
fn a_token_is_asked_for_on_a_socket_as_it_is_on_loopback() {
    let (place, simulator) = configured();
    let mut command = serve_on_socket(&place, &simulator);
    command.env("ONELANE_ADMIN_TOKEN", "8f14e45fceea167a5a36dedd4bea2543");
    let running = Running::start(&mut command);
    running.says("unix:");
    assert!(
        get(&place, "/api/admin/glm/config")
            .0
            .starts_with("HTTP/1.1 401")
    );
    assert!(get(&place, "/healthz").0.starts_with("HTTP/1.1 200"));
    let token = "authorization: Bearer 8f14e45fceea167a5a36dedd4bea2543\r\n";
    let (head, _) = read(sent(&place, "GET /api/admin/glm/config", token, ""));
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    running.signal("TERM");
    running.end().with(0);
}

#[test]
fn a_client_that_goes_away_on_a_socket_is_gone_and_one_that_listens_on_is_not() {
    let (place, simulator) = configured();
    simulator.add_rule(Rule::for_prompt("blocker", Fault::Hang));
    let config = format!("[server]\nsocket = \"{SOCKET}\"\n[gateway]\nreattach_ms = 0\n");
    place.write("onelane.toml", config);
    let running = Running::start(&mut serve_on_socket(&place, &simulator));
    running.says("unix:");
    let blocker = sent(&place, CHAT, "", &chat("blocker"));
    until("its call is open", || {
        simulator.calls_of_prompt("blocker") == 1
    });
    let leaves = sent(&place, CHAT, "", &chat("leaves"));
    let listens = sent(&place, CHAT, "", &chat("listens"));
    listens.shutdown(Shutdown::Write).unwrap();
    until("they wait", || pending(&place) == 2);
    drop(leaves);
    until("one is gone", || pending(&place) == 1);
    drop(blocker);
    let (head, body) = read(listens);
    // It may have been asked whether it is there.
    let answer = format!("{head}{body}");
    assert!(answer.contains("HTTP/1.1 200"), "{answer}");
    assert_eq!(simulator.calls_of_prompt("leaves"), 0);
    running.signal("TERM");
    running.end().with(0);
}
