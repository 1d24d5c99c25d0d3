//! Guards: on a disk that is really full nothing is taken that can't be kept, the program says so and ends
//! with code 3, and with more space it goes on with everything that it acknowledged.

use onelane::model::JobStatus;
use serde_json::json;

use super::{run_prompts, serve, simulator};
use crate::common::{Http, Place, Running, Tmpfs, run};

#[test]
fn serve_stops_with_code_3_and_loses_nothing_it_acknowledged() {
    let place = Place::new();
    let simulator = simulator(1);
    let Some(disk) = Tmpfs::mount(&place.path("disk"), 1_024) else {
        return;
    };
    let mut command = serve(&place, &simulator);
    command.args(["--store", "disk/jobs.redb"]);
    let running = Running::start(&mut command);
    let url = format!("{}/api/glm/jobs", running.url());
    let http = Http::new();
    let mut acknowledged = Vec::new();
    let mut refusals = Vec::new();
    let text = "x".repeat(20_000);
    // Until it has stopped: then nobody answers any more.
    while let Ok(answer) = http.post(&url, &json!({"prompt": text})) {
        match answer.status {
            202 => acknowledged.push(answer.json()["id"].as_str().unwrap().to_owned()),
            _ => refusals.push(answer),
        }
    }
    running
        .end()
        .with(3)
        .noting(&["no space left for disk/jobs.redb", "help: free some space"]);
    assert!(!acknowledged.is_empty());
    assert!(!refusals.is_empty(), "somebody must be told");
    for refusal in refusals {
        assert_eq!(refusal.status, 503, "{refusal:?}");
        let kind = refusal.json()["type"].as_str().unwrap().to_owned();
        let known = [
            "urn:onelane:problem:store-failed",
            "urn:onelane:problem:stopped",
        ];
        assert!(known.contains(&kind.as_str()), "{refusal:?}");
    }

    disk.remount("size=16m");
    run(command.arg("--once")).with(0);
    let left = place.store("disk/jobs.redb");
    left.knows_every_call_of(&simulator);
    let completed: Vec<String> = left
        .jobs()
        .into_iter()
        .filter(|record| record.job.status == JobStatus::Completed)
        .map(|record| record.job.id.to_string())
        .collect();
    for id in &acknowledged {
        assert!(completed.contains(id), "an acknowledged job is lost: {id}");
    }
}

#[test]
fn run_stops_with_code_3_and_continues_with_more_space() {
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
    run(&mut command).with(3).noting(&[
        "no space left for disk/jobs.redb",
        "nothing acknowledged is lost",
    ]);
    disk.remount("size=64m");
    run(&mut command).with(0).noting(&["100 of 100 lines done"]);
    assert_eq!(place.lines("prompts.results.jsonl").len(), 100);
    place
        .store("disk/jobs.redb")
        .knows_every_call_of(&simulator);
}
