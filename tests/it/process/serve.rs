//! Guards: the daemon's start, its end by signal or with its backlog, and what outlives a restart.

use std::net::TcpListener;

use onelane::model::{CallOutcome, JobStatus};
use onelane::simulator::{ErrorFault, Fault, Simulator, Span};
use serde_json::json;

use super::{serve, simulator};
use crate::common::{Http, Place, Running, run, until};

#[test]
fn the_start_line_says_where_everything_is() {
    let place = Place::new();
    let simulator = simulator(0);
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
fn the_log_says_which_price_list_counts_and_when_it_is_a_guess() {
    let place = Place::new();
    let simulator = simulator(0);
    run(serve(&place, &simulator).arg("--once"))
        .with(0)
        .noting(&[
            "list of bigmodel.cn",
            "CNY",
            "2026-11-23",
            "money.price_list",
        ]);
    place.write("onelane.toml", "money.price_list = 'usd'\n");
    run(serve(&place, &simulator).arg("--once"))
        .with(0)
        .noting(&["USD", "the price list is that of money.price_list"]);
}

#[test]
fn the_start_line_is_json_when_asked() {
    let place = Place::new();
    let mut command = place.bare(&["serve", "--simulate", "--json", "--listen", "127.0.0.1:0"]);
    let running = Running::start(&mut command);
    let line: serde_json::Value = serde_json::from_str(&running.says("listening")).unwrap();
    assert_eq!(line["mode"], "simulated");
    assert_eq!(line["maxConcurrency"], 1);
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
    let place = Place::new();
    let simulator = simulator(0);
    let mut command = serve(&place, &simulator);
    let running = Running::start(command.env("ONELANE_ADMIN_TOKEN", "a-long-random-text"));
    let queue = format!("{}/api/admin/glm/queue", running.url());
    assert_eq!(Http::new().get(&queue).unwrap().status, 401);
    assert_eq!(Http::bearing("another").get(&queue).unwrap().status, 401);
    let http = Http::bearing("a-long-random-text");
    assert_eq!(http.get(&queue).unwrap().status, 200);
    let jobs = format!("{}/api/glm/jobs", running.url());
    assert_eq!(
        Http::new()
            .post(&jobs, &json!({"prompt": "x"}))
            .unwrap()
            .status,
        401
    );
    running.signal("TERM");
    let ended = running.end().with(0);
    assert!(!ended.to_string().contains("a-long-random-text"), "{ended}");
}

fn submit(url: &str, jobs: &serde_json::Value) -> serde_json::Value {
    let taken = Http::new()
        .post(&format!("{url}/api/glm/jobs"), jobs)
        .unwrap();
    assert_eq!(taken.status, 202, "{taken:?}");
    taken.json()
}

/// Leaves three jobs behind that wait for a lane that is switched on.
fn with_a_backlog(place: &Place, simulator: &Simulator) {
    let off = place.write("off.toml", "[glm]\nis_active = false\n");
    let mut command = serve(place, simulator);
    let running = Running::start(command.arg("--config").arg(off));
    let jobs = json!([{"prompt": "one"}, {"prompt": "two"}, {"prompt": "three"}]);
    submit(&running.url(), &jobs);
    running.signal("TERM");
    running.end().with(0);
    assert_eq!(simulator.stats().calls, 0);
}

#[test]
fn once_finishes_the_backlog_and_exits() {
    let place = Place::new();
    let simulator = simulator(0);
    with_a_backlog(&place, &simulator);
    let mut once = serve(&place, &simulator);
    once.arg("--once");
    run(&mut once).with(0);
    assert_eq!(simulator.stats().calls, 3);
    assert_eq!(place.store("onelane.redb").count(JobStatus::Completed), 3);
    // Nothing left to do is done at once.
    run(&mut once).with(0);
    assert_eq!(simulator.stats().calls, 3);
}

#[test]
fn once_tells_of_jobs_that_failed_by_its_code() {
    let place = Place::new();
    let simulator = simulator(0);
    with_a_backlog(&place, &simulator);
    simulator.push_fault(Fault::Error(ErrorFault {
        delay_ms: 300,
        ..ErrorFault::of("1301")
    }));
    let mut once = serve(&place, &simulator);
    once.arg("--once");
    run(&mut once).with(1);
    assert_eq!(place.store("onelane.redb").count(JobStatus::Completed), 2);
    // A failure of an earlier run is no news.
    run(&mut once).with(0);
}

#[test]
fn once_does_not_wait_for_an_operator() {
    let place = Place::new();
    let simulator = simulator(0);
    let running = Running::start(&mut serve(&place, &simulator));
    let pause = format!("{}/api/admin/glm/pause", running.url());
    let paused = Http::new().post(&pause, &json!({"reason": "price talks"}));
    assert_eq!(paused.unwrap().status, 200);
    submit(&running.url(), &json!({"prompt": "waits"}));
    running.signal("TERM");
    running.end().with(0);
    // A pause outlives the restart, and nobody is there to end it.
    let mut once = serve(&place, &simulator);
    run(once.arg("--once"))
        .with(4)
        .noting(&["paused", "price talks", "help: "]);
    assert_eq!(simulator.stats().calls, 0);
}

#[test]
fn a_signal_drains_the_open_call_finishes_and_its_client_gets_the_answer() {
    let place = Place::new();
    let simulator = simulator(600);
    let running = Running::start(&mut serve(&place, &simulator));
    let url = running.url();
    let taken = submit(&url, &json!([{"prompt": "first"}, {"prompt": "second"}]));
    let first = taken["jobs"][0]["id"].as_str().unwrap().to_owned();
    until("its call is open", || simulator.stats().in_flight == 1);
    let client = std::thread::spawn(move || {
        Http::new().get(&format!("{url}/api/glm/jobs/{first}?wait=30s"))
    });
    running.signal("TERM");
    running.end().with(0).noting(&["draining"]);
    let stats = simulator.stats();
    assert_eq!(
        (stats.calls, stats.clients_left),
        (1, 0),
        "the second was not begun"
    );
    let left = place.store("onelane.redb");
    assert_eq!(left.count(JobStatus::Completed), 1);
    assert_eq!(left.count(JobStatus::Pending), 1);
    // The client came before the signal or after it: it got its answer, or no connection.
    if let Ok(answer) = client.join().unwrap() {
        assert_eq!(answer.json()["status"], "completed", "{answer:?}");
    }
    drop(left);
    simulator.set_latency(Span::Fixed(0));
    let mut once = serve(&place, &simulator);
    run(once.arg("--once")).with(0);
    assert_eq!(simulator.stats().calls, 2);
}

#[test]
fn a_second_signal_closes_the_open_call_and_it_is_on_record() {
    let place = Place::new();
    let simulator = simulator(0);
    simulator.push_fault(Fault::Hang);
    let running = Running::start(&mut serve(&place, &simulator));
    submit(&running.url(), &json!({"prompt": "hangs"}));
    until("its call is open", || simulator.stats().in_flight == 1);
    running.signal("INT");
    running.notes("draining");
    running.signal("INT");
    running.end().with(1).noting(&["told again"]);
    until("the connection is closed", || {
        simulator.stats().in_flight == 0
    });
    let left = place.store("onelane.redb");
    assert_eq!(left.calls_that(CallOutcome::Interrupted), 1);
    assert_eq!(left.count(JobStatus::Pending), 1);
}

#[test]
fn a_change_made_while_running_outlives_the_restart_and_is_shown() {
    let place = Place::new();
    let simulator = simulator(0);
    let running = Running::start(&mut serve(&place, &simulator));
    let http = Http::new();
    let config = format!("{}/api/admin/glm/config", running.url());
    let changed = http
        .put(&config, &json!({"model": "glm-5", "maxRetries": 7}))
        .unwrap();
    assert_eq!(changed.status, 200, "{changed:?}");
    running.signal("TERM");
    running.end().with(0);

    let shown = run(&mut place.onelane(&["config", "show", "--json"]))
        .with(0)
        .json();
    let setting = |key: &str| {
        let settings = shown.as_array().unwrap();
        settings.iter().find(|s| s["key"] == key).unwrap().clone()
    };
    assert_eq!(setting("glm.model")["value"], "glm-5");
    assert_eq!(setting("glm.model")["origin"], "stored change");
    assert_eq!(setting("retry.max_retries")["value"], 7);

    let running = Running::start(&mut serve(&place, &simulator));
    running.says("model glm-5");
    let config = format!("{}/api/admin/glm/config", running.url());
    let told = http.get(&config).unwrap();
    assert_eq!(told.json()["config"]["model"], "glm-5");
    assert_eq!(told.json()["config"]["maxRetries"], 7);
    assert!(!told.text.contains("test-key"), "{told:?}");
    running.signal("TERM");
    running.end().with(0);
}

#[test]
fn a_key_that_was_set_while_running_is_enough_to_start_again() {
    let place = Place::new();
    let simulator = simulator(0);
    let running = Running::start(&mut serve(&place, &simulator));
    let url = format!("{}/api/admin/glm/config", running.url());
    let patch = json!({"apiKey": "0123456789abcdef.stored", "baseUrl": simulator.base_url()});
    let answer = Http::new().put(&url, &patch).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    running.signal("TERM");
    running.end().with(0);

    let mut without = place.bare(&["serve", "--once", "--listen", "127.0.0.1:0"]);
    run(&mut without).with(0);
    // A store without a key is none.
    let mut other = place.bare(&["serve", "--once", "--store", "other.redb"]);
    run(&mut other).with(2).noting(&["there is no API key"]);
    assert!(!place.has("other.redb"));
}
