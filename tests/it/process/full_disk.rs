//! Guards: on a disk that is really full nothing is taken that can't be kept, the program waits for room and says so, and
//! with more space it goes on by itself with everything that it acknowledged.

use onelane::model::JobStatus;
use serde_json::json;

use super::{Daemon, run_prompts, serve, simulator};
use crate::common::{Place, Running, Tmpfs, until};

#[test]
fn serve_waits_for_room_and_loses_nothing_it_acknowledged() {
    let place = Place::new();
    let simulator = simulator(1);
    let Some(disk) = Tmpfs::mount(&place.path("disk"), 1_024) else {
        return;
    };
    let mut command = serve(&place, &simulator);
    command.args(["--store", "disk/jobs.redb"]);
    let daemon = Daemon::of(&mut command);
    let url = format!("{}/api/glm/jobs", daemon.url);
    let ready = format!("{}/readyz", daemon.url);
    let mut acknowledged = Vec::new();
    let mut refusals = Vec::new();
    let text = "x".repeat(20_000);
    while refusals.len() < 3 {
        let answer = daemon.http.post(&url, &json!({"prompt": text})).unwrap();
        match answer.status {
            202 => acknowledged.push(answer.json()["id"].as_str().unwrap().to_owned()),
            _ => refusals.push(answer),
        }
    }
    assert!(!acknowledged.is_empty());
    for refusal in refusals {
        assert_eq!(refusal.status, 503, "{refusal:?}");
        let kind = refusal.json()["type"].as_str().unwrap().to_owned();
        assert_eq!(kind, "urn:onelane:problem:store-failed", "{refusal:?}");
    }
    until("it says so", || {
        daemon.http.get(&ready).unwrap().status == 503
    });
    assert_eq!(daemon.get("/healthz")["status"], "ok");
    daemon.running.notes("the disk is full");

    disk.remount("size=64m");
    until("it goes on by itself", || {
        daemon.http.get(&ready).unwrap().status == 200
    });
    daemon.running.notes("the disk has room again");
    for id in &acknowledged {
        assert_eq!(daemon.ended(id)["status"], "completed", "{id}");
    }
    daemon.submit(&json!({"prompt": "one more"}));
    daemon.stop();
    let left = place.store("disk/jobs.redb");
    left.knows_every_call_of(&simulator);
    assert!(left.count(JobStatus::Completed) >= acknowledged.len() as u64);
}

#[test]
fn run_waits_for_room_and_goes_on() {
    let place = Place::new();
    let simulator = simulator(1);
    let Some(disk) = Tmpfs::mount(&place.path("disk"), 1_024) else {
        return;
    };
    let text = "x".repeat(20_000);
    let lines: String = (0..100)
        .map(|n| format!("{{\"prompt\": \"{n} {text}\"}}\n"))
        .collect();
    place.write("prompts.jsonl", lines);
    let mut command = run_prompts(&place, &simulator);
    command.args(["--store", "disk/jobs.redb"]);
    let running = Running::start(&mut command);
    running.notes("the disk is full");
    disk.remount("size=64m");
    running.end().with(0).noting(&["100 of 100 lines done"]);
    assert_eq!(place.lines("prompts.results.jsonl").len(), 100);
    place
        .store("disk/jobs.redb")
        .knows_every_call_of(&simulator);
}
