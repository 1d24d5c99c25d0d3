//! Guards: the daemon's start, its end by signal or with its backlog, and what outlives a restart.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};

use onelane::model::{CallOutcome, JobStatus};
use onelane::simulator::{ErrorFault, Fault, Simulator, Span};
use serde_json::json;

use super::{Daemon, once, serve, simulator, world};
use crate::common::{Http, Place, Running, run, until};
use crate::support::shows;

#[test]
fn the_start_line_says_where_everything_is() {
    let (place, simulator) = world();
    let running = Running::start(&mut serve(&place, &simulator));
    let line = running.says("onelane ");
    for part in [
        &format!("onelane {} on http://127.0.0.1:", env!("CARGO_PKG_VERSION")),
        "store onelane.redb",
        &simulator.base_url(),
        "model glm-4.7",
        "1 in flight at most",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let health = Http::new()
        .get(&format!("{}/healthz", running.url()))
        .unwrap();
    assert_eq!(health.status, 200, "{health:?}");
    running.signal("TERM");
    running.end().with(0);
}

#[test]
fn a_request_has_the_name_in_the_log_that_its_client_gave_it() {
    let (place, simulator) = world();
    let mut command = serve(&place, &simulator);
    command.env("ONELANE_LOG", "onelane=debug");
    let running = Running::start(&mut command);
    let url = running.url();
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let request = "GET /nothing HTTP/1.1\r\nhost: localhost\r\nx-request-id: of-mine/7\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let told = running.notes("of-mine/7");
    assert!(told.contains("/nothing") && told.contains("404"), "{told}");
    running.signal("TERM");
    running.end().with(0);
}

#[test]
fn the_log_says_which_price_list_counts_and_when_it_is_a_guess() {
    let (place, simulator) = world();
    once(&place, &simulator).with(0).noting(&[
        "list of bigmodel.cn",
        "CNY",
        "2026-11-28",
        "money.price_list",
    ]);
    place.write("onelane.toml", "money.price_list = 'usd'\n");
    once(&place, &simulator)
        .with(0)
        .noting(&["USD", "the price list is that of money.price_list"]);
}

#[test]
fn the_start_line_is_json_when_asked() {
    let place = Place::new();
    let mut command = place.bare(&["serve", "--simulate", "--json", "--listen", "127.0.0.1:0"]);
    let running = Running::start(&mut command);
    let line: serde_json::Value = serde_json::from_str(&running.says("listening")).unwrap();
    shows!(line, {"mode": "simulated", "maxConcurrency": 1});
    let health = format!("{}/healthz", line["listening"].as_str().unwrap());
    assert_eq!(Http::new().get(&health).unwrap().status, 200);
    running.signal("INT");
    running.end().with(0);
}

#[test]
fn a_busy_port_is_named_before_any_store_is_made() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    run(&mut place.onelane(&["serve", "--listen", &address]))
        .with(2)
        .noting(&[&format!("{address} is in use"), "--listen"]);
    assert!(!place.has("onelane.redb"));
}

#[test]
fn an_open_address_needs_a_token_and_a_key_is_needed_anyway() {
    let place = Place::new();
    run(&mut place.onelane(&["serve", "--listen", "0.0.0.0:0"]))
        .with(2)
        .noting(&["0.0.0.0:0", "ONELANE_ADMIN_TOKEN", "127.0.0.1"]);
    run(&mut place.bare(&["serve"]))
        .with(2)
        .noting(&["ONELANE_API_KEY", "--simulate"]);
    assert!(!place.has("onelane.redb"));
}

#[test]
fn a_token_from_the_environment_is_asked_for() {
    let (place, simulator) = world();
    let mut command = serve(&place, &simulator);
    let running = Running::start(command.env("ONELANE_ADMIN_TOKEN", "a-long-random-text"));
    let queue = format!("{}/api/admin/glm/queue", running.url());
    assert_eq!(Http::new().get(&queue).unwrap().status, 401);
    assert_eq!(Http::bearing("another").get(&queue).unwrap().status, 401);
    let http = Http::bearing("a-long-random-text");
    assert_eq!(http.get(&queue).unwrap().status, 200);
    let jobs = format!("{}/api/glm/jobs", running.url());
    let refused = Http::new().post(&jobs, &json!({"prompt": "x"}));
    assert_eq!(refused.unwrap().status, 401);
    running.signal("TERM");
    let ended = running.end().with(0);
    assert!(!ended.to_string().contains("a-long-random-text"), "{ended}");
}

/// Leaves three jobs behind that wait for a lane that is switched on.
fn with_a_backlog(place: &Place, simulator: &Simulator) {
    let off = place.write("off.toml", "[glm]\nis_active = false\n");
    let daemon = Daemon::of(serve(place, simulator).arg("--config").arg(off));
    let jobs = json!([{"prompt": "one"}, {"prompt": "two"}, {"prompt": "three"}]);
    daemon.post("/api/glm/jobs", &jobs, 202);
    daemon.stop();
    assert_eq!(simulator.stats().calls, 0);
}

#[test]
fn once_finishes_the_backlog_and_exits() {
    let (place, simulator) = world();
    with_a_backlog(&place, &simulator);
    once(&place, &simulator).with(0);
    assert_eq!(simulator.stats().calls, 3);
    assert_eq!(place.store("onelane.redb").count(JobStatus::Completed), 3);
    // Nothing left to do is done at once.
    once(&place, &simulator).with(0);
    assert_eq!(simulator.stats().calls, 3);
}

#[test]
fn once_tells_of_jobs_that_failed_by_its_code() {
    let (place, simulator) = world();
    with_a_backlog(&place, &simulator);
    simulator.push_fault(Fault::Error(ErrorFault {
        delay_ms: 300,
        ..ErrorFault::of("1301")
    }));
    once(&place, &simulator).with(1);
    assert_eq!(place.store("onelane.redb").count(JobStatus::Completed), 2);
    // A failure of an earlier run is no news.
    once(&place, &simulator).with(0);
}

#[test]
fn once_does_not_wait_for_an_operator() {
    let (place, simulator) = world();
    let daemon = Daemon::start(&place, &simulator);
    let reason = json!({"reason": "price talks"});
    daemon.post("/api/admin/glm/pause", &reason, 200);
    daemon.submit(&json!({"prompt": "waits"}));
    daemon.stop();
    // A pause outlives the restart, and nobody is there to end it.
    let ended = once(&place, &simulator).with(4);
    ended.noting(&["paused", "price talks", "help: "]);
    assert_eq!(simulator.stats().calls, 0);
}

#[test]
fn a_signal_drains_the_open_call_finishes_and_its_client_gets_the_answer() {
    let place = Place::new();
    let simulator = simulator(600);
    let daemon = Daemon::start(&place, &simulator);
    let [first, _] = ["first", "second"].map(|job| daemon.submit(&json!({"prompt": job})));
    let Daemon { running, url, http } = daemon;
    until("its call is open", || simulator.stats().in_flight == 1);
    let client =
        std::thread::spawn(move || http.get(&format!("{url}/api/glm/jobs/{first}?wait=30s")));
    running.signal("TERM");
    running.end().with(0).noting(&["draining"]);
    let stats = simulator.stats();
    // The second was not begun.
    assert_eq!((stats.calls, stats.clients_left), (1, 0));
    let left = place.store("onelane.redb");
    assert_eq!(left.count(JobStatus::Completed), 1);
    assert_eq!(left.count(JobStatus::Pending), 1);
    // The client came before the signal or after it: it got its answer, or no connection.
    if let Ok(answer) = client.join().unwrap() {
        assert_eq!(answer.json()["status"], "completed", "{answer:?}");
    }
    drop(left);
    simulator.set_latency(Span::Fixed(0));
    once(&place, &simulator).with(0);
    assert_eq!(simulator.stats().calls, 2);
}

#[test]
fn a_second_signal_closes_the_open_call_and_it_is_on_record() {
    let (place, simulator) = world();
    simulator.push_fault(Fault::Hang);
    let daemon = Daemon::start(&place, &simulator);
    daemon.submit(&json!({"prompt": "hangs"}));
    let running = daemon.running;
    until("its call is open", || simulator.stats().in_flight == 1);
    running.signal("INT");
    running.notes("draining");
    running.signal("INT");
    running.end().with(1).noting(&["a second signal"]);
    until("the connection is closed", || {
        simulator.stats().in_flight == 0
    });
    let left = place.store("onelane.redb");
    assert_eq!(left.calls_that(CallOutcome::Interrupted), 1);
    assert_eq!(left.count(JobStatus::Pending), 1);
}

#[test]
fn a_change_made_while_running_outlives_the_restart_and_is_shown() {
    let (place, simulator) = world();
    let daemon = Daemon::start(&place, &simulator);
    let config = "/api/admin/glm/config";
    daemon.put(config, &json!({"model": "glm-5", "maxRetries": 7}));
    daemon.stop();

    let shown = run(&mut place.onelane(&["config", "show", "--json"]));
    let shown = shown.with(0).json();
    let setting = |key: &str| {
        let settings = shown.as_array().unwrap();
        settings.iter().find(|s| s["key"] == key).unwrap().clone()
    };
    shows!(setting("glm.model"), {"value": "glm-5", "origin": "stored change"});
    assert_eq!(setting("retry.max_retries")["value"], 7);

    let daemon = Daemon::start(&place, &simulator);
    daemon.running.says("model glm-5");
    let told = daemon.get(config);
    shows!(told["config"], {"model": "glm-5", "maxRetries": 7});
    assert!(!told.to_string().contains("test-key"), "{told:?}");
    daemon.stop();
}

#[test]
fn a_key_that_was_set_while_running_is_enough_to_start_again() {
    let (place, simulator) = world();
    let daemon = Daemon::start(&place, &simulator);
    let patch = json!({"apiKey": "0123456789abcdef.stored", "baseUrl": simulator.base_url()});
    daemon.put("/api/admin/glm/config", &patch);
    daemon.stop();

    let mut without = place.bare(&["serve", "--once", "--listen", "127.0.0.1:0"]);
    run(&mut without).with(0);
    // A store without a key is none.
    let mut other = place.bare(&["serve", "--once", "--store", "other.redb"]);
    run(&mut other).with(2).noting(&["there is no API key"]);
    assert!(!place.has("other.redb"));
}
