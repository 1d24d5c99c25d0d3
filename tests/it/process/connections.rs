//! Guards: a restart that buys answers for clients that are gone, or twice for clients that ask again.

use std::thread::{self, JoinHandle};

use onelane::simulator::Simulator;
use serde_json::{Value, json};

use super::{Daemon, simulator};

use crate::common::{Answer, Http, Place, until};

/// A client that asks for a chat completion and waits.
fn ask(daemon: &Daemon, prompt: &'static str) -> JoinHandle<Option<Answer>> {
    let url = format!("{}/v1/chat/completions", daemon.url);
    thread::spawn(move || Http::new().post(&url, &body(prompt)).ok())
}

fn body(prompt: &str) -> Value {
    json!({"model": "glm-4.7", "messages": [{"role": "user", "content": prompt}]})
}

/// A daemon with a call open for the first of these clients, while the others wait.
fn with_clients(place: &Place, simulator: &Simulator) -> (Daemon, Vec<JoinHandle<Option<Answer>>>) {
    let daemon = Daemon::start(place, simulator);
    let mut clients = vec![ask(&daemon, "one")];
    until("a call is open", || simulator.stats().in_flight == 1);
    clients.extend(["two", "three"].map(|prompt| ask(&daemon, prompt)));
    until("the others wait", || daemon.count("status=pending") == 2);
    (daemon, clients)
}

#[test]
fn a_shutdown_gives_up_what_waits_for_a_connection_before_it_says_503() {
    let (place, simulator) = (Place::new(), simulator(1_500));
    let (daemon, clients) = with_clients(&place, &simulator);
    daemon.stop();
    let told: Vec<Answer> = clients
        .into_iter()
        .map(|client| client.join().unwrap().expect("every client is told"))
        .collect();
    let statuses: Vec<u16> = told.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 503, 503], "the open call finishes");
    for answer in &told[1..] {
        let header = |name: &str| answer.headers.get(name).map(|v| v.to_str().unwrap());
        assert_eq!(header("x-should-retry"), Some("true"), "{answer:?}");
        assert!(header("retry-after").is_some(), "{answer:?}");
    }

    // They ask again, as SDKs do, and everything is paid for once.
    let daemon = Daemon::start(&place, &simulator);
    for prompt in ["two", "three"] {
        let answer = ask(&daemon, prompt).join().unwrap().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    daemon.settled();
    for prompt in ["one", "two", "three"] {
        assert_eq!(simulator.calls_of_prompt(prompt), 1, "{prompt}");
    }
    assert_eq!(daemon.count("status=cancelled"), 2);
}

#[test]
fn a_crash_leaves_nothing_to_buy_for_clients_that_are_gone() {
    let (place, simulator) = (Place::new(), simulator(3_000));
    place.write("onelane.toml", "[lane]\non_interrupted = \"retry\"\n");
    let (daemon, clients) = with_clients(&place, &simulator);
    let kept = daemon.submit(&json!({"prompt": "kept"}));
    daemon.kill();
    for client in clients {
        assert!(
            client
                .join()
                .unwrap()
                .is_none_or(|answer| answer.status != 200)
        );
    }
    let daemon = Daemon::start(&place, &simulator);
    assert_eq!(daemon.ended(&kept)["status"], "completed");
    daemon.settled();
    assert_eq!(daemon.count("status=cancelled"), 3);
    for (prompt, calls) in [("one", 1), ("two", 0), ("three", 0), ("kept", 1)] {
        assert_eq!(simulator.calls_of_prompt(prompt), calls, "{prompt}");
    }
    // The call that was open is on record, and in doubt; so may be the one that was next.
    let doubt = daemon.get("/api/admin/glm/maybe-billed").to_string();
    assert!(doubt.contains("\"interrupted\""), "{doubt}");
}
