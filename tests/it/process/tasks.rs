//! Guards: an answer that GLM has ready as a task and that a stop of the process makes it sell twice;
//! a task that is asked for with a key that can't have it.

use onelane::simulator::{Operation, ScriptUpdate, Simulator, Span};
use serde_json::{Value, json};

use super::{Daemon, simulator};
use crate::common::{Place, Running, until};

/// A place whose calls are tasks.
fn place(more: &str) -> Place {
    let place = Place::new();
    let config = format!("[glm]\nasync_models = [\"glm-4.7\"]\nasync_poll_ms = 100\n{more}");
    place.write("onelane.toml", config);
    place
}

/// How long tasks that are handed over from now on are worked on.
fn tasks_take(simulator: &Simulator, ms: u64) {
    simulator.update(ScriptUpdate {
        task_ms: Some(Span::Fixed(ms)),
        ..ScriptUpdate::default()
    });
}

/// Waits until so many tasks were handed over and looked at: their ids are on disk by then.
fn handed_over(simulator: &Simulator, tasks: usize) {
    until("the tasks are looked at", || {
        let arrivals = simulator.arrivals().into_iter();
        let looks = arrivals.filter(|arrival| arrival.operation == Operation::FetchTask);
        let looked_at: std::collections::BTreeSet<_> = looks.map(|look| look.task_id).collect();
        looked_at.len() == tasks
    });
}

/// The job has one attempt, which brought its answer.
#[track_caller]
fn fetched(daemon: &Daemon, id: &str) {
    let job = daemon.ended(id);
    assert_eq!(job["status"], "completed", "{job}");
    let job = daemon.job(id);
    assert_eq!(job["attemptCount"], 1, "{job}");
    let [attempt] = job["attempts"].as_array().unwrap().as_slice() else {
        panic!("{job}")
    };
    let facts = ["attempt", "outcome", "maybeBilled"].map(|name| &attempt[name]);
    assert_eq!(
        facts,
        [&json!(1), &json!("completed"), &json!(false)],
        "{job}"
    );
    let said = job["result"]["request_id"].as_str();
    assert_eq!(said, attempt["id"].as_str(), "{job}");
}

fn maybe_billed(daemon: &Daemon) -> Value {
    daemon.get("/api/admin/glm/maybe-billed")["maybeBilled"].clone()
}

#[test]
fn a_killed_process_fetches_what_glm_holds_and_buys_nothing_again() {
    let place = place("[lane]\non_interrupted = \"fail\"\n");
    let simulator = simulator(0);
    tasks_take(&simulator, 700);
    let daemon = Daemon::start(&place, &simulator);
    let id = daemon.submit(&json!({"prompt": "long"}));
    handed_over(&simulator, 1);
    daemon.kill();
    let daemon = Daemon::start(&place, &simulator);
    assert_ne!(daemon.job(&id)["status"], "pending");
    fetched(&daemon, &id);
    assert_eq!(maybe_billed(&daemon), json!([]));
    let next = daemon.submit(&json!({"prompt": "next"}));
    fetched(&daemon, &next);
    daemon.stop();
    let stats = simulator.stats();
    assert_eq!((stats.bought, stats.works_bought, stats.calls), (2, 2, 2));
    assert_eq!((stats.peak_in_flight, stats.duplicate_request_ids), (1, 0));
    place.store("onelane.redb").knows_every_call_of(&simulator);
}

#[test]
fn a_task_that_was_done_while_no_process_lived_is_fetched() {
    let place = place("");
    let simulator = simulator(0);
    tasks_take(&simulator, 300);
    let daemon = Daemon::start(&place, &simulator);
    let id = daemon.submit(&json!({"prompt": "long"}));
    handed_over(&simulator, 1);
    daemon.kill();
    until("it is done", || simulator.stats().in_flight == 0);
    let daemon = Daemon::start(&place, &simulator);
    fetched(&daemon, &id);
    daemon.stop();
    assert_eq!(simulator.stats().bought, 1);
}

#[test]
fn a_stop_in_the_middle_of_a_task_leaves_it_to_the_next_start() {
    let place = place("[server]\nshutdown_deadline_ms = 150\n");
    let simulator = simulator(0);
    tasks_take(&simulator, 2_000);
    let daemon = Daemon::start(&place, &simulator);
    let id = daemon.submit(&json!({"prompt": "long"}));
    let waits = daemon.submit(&json!({"prompt": "waits"}));
    handed_over(&simulator, 1);
    daemon.running.signal("TERM");
    let ended = daemon.running.end().with(1);
    let ended = ended.noting(&["the deadline has passed", "fetched by the next start"]);
    assert!(
        simulator.stats().in_flight == 1,
        "it went on at GLM:\n{ended}"
    );
    tasks_take(&simulator, 10);
    let daemon = Daemon::start(&place, &simulator);
    fetched(&daemon, &id);
    assert_eq!(daemon.ended(&waits)["status"], "completed");
    assert_eq!(maybe_billed(&daemon), json!([]));
    daemon.stop();
    let stats = simulator.stats();
    assert_eq!(stats.bought, 2);
    assert_eq!(stats.works_bought, 2);
    assert_eq!(stats.peak_in_flight, 1);
}

#[test]
fn fewer_slots_than_tasks_fetch_them_all_before_anything_else_is_bought() {
    let place = place("[lane]\nmax_concurrency = 3\n");
    let simulator = simulator(0);
    tasks_take(&simulator, 1_500);
    let daemon = Daemon::start(&place, &simulator);
    let tasks = ["one", "two", "three"].map(|prompt| daemon.submit(&json!({"prompt": prompt})));
    let next = daemon.submit(&json!({"prompt": "next"}));
    handed_over(&simulator, 3);
    daemon.kill();
    place.write(
        "onelane.toml",
        "[glm]\nasync_models = [\"glm-4.7\"]\nasync_poll_ms = 100\n",
    );
    let daemon = Daemon::start(&place, &simulator);
    for id in &tasks {
        fetched(&daemon, id);
    }
    daemon.ended(&next);
    daemon.stop();
    let mut arrivals = simulator.arrivals().into_iter();
    let last = arrivals.rfind(|a| a.operation == Operation::SubmitTask);
    let last = last.unwrap();
    assert_eq!((last.prompt.as_str(), last.in_flight), ("next", 1));
    let stats = simulator.stats();
    assert_eq!((stats.bought, stats.works_bought), (4, 4));
}

#[test]
fn another_key_can_not_fetch_a_task_and_buys_its_work_anew() {
    let place = place("");
    let simulator = simulator(0);
    tasks_take(&simulator, 1_500);
    let daemon = Daemon::start(&place, &simulator);
    let id = daemon.submit(&json!({"prompt": "long"}));
    handed_over(&simulator, 1);
    let key = json!({"apiKey": "another.key-of-the-same-account"});
    let changed = daemon
        .http
        .put(&format!("{}/api/admin/glm/config", daemon.url), &key);
    assert_eq!(changed.unwrap().status, 200);
    daemon.kill();
    let looks = simulator.stats().task_looks;
    // The environment's key would beat the stored one.
    let url = simulator.base_url();
    let mut command = place.bare(&["serve", "--base-url", &url, "--listen", "127.0.0.1:0"]);
    let running = Running::start(&mut command);
    let daemon = Daemon {
        url: running.url(),
        running,
        http: crate::common::Http::new(),
    };
    let job = daemon.ended(&id);
    assert_eq!(job["status"], "completed", "{job}");
    let job = daemon.job(&id);
    let outcomes: Vec<_> = job["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| (&attempt["outcome"], &attempt["maybeBilled"]))
        .collect();
    let expected = [
        (&json!("interrupted"), &json!(true)),
        (&json!("completed"), &json!(false)),
    ];
    assert_eq!(outcomes, expected);
    let doubt = maybe_billed(&daemon);
    assert_eq!(doubt.as_array().unwrap().len(), 1);
    assert_eq!(doubt[0]["attempt"], 1);
    daemon.stop();
    let stats = simulator.stats();
    assert_eq!((stats.bought, stats.works_bought), (2, 1));
    // Nobody asked with a wrong key.
    assert_eq!(stats.by_code.get("1233"), None);
    assert!(stats.task_looks > looks);
}
