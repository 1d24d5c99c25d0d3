//! Guards: a run that sends, and pays for, what another file left; a file that was cut and sends its old lines all
//! the same; an answer that is lost with its line; a pause that is lifted by nobody's word.

use std::process::Command;

use onelane::model::JobStatus;
use onelane::simulator::Simulator;

use super::{Daemon, simulator, world};
use crate::common::{Place, Running, run, until};

/// `onelane run` of these words with a key, against this simulator.
pub(super) fn run_of(place: &Place, simulator: &Simulator, words: &str) -> Command {
    let url = simulator.base_url();
    let words = words.split_whitespace();
    let args: Vec<&str> = ["run"]
        .into_iter()
        .chain(words)
        .chain(["--base-url", &url])
        .collect();
    place.onelane(&args)
}

/// Lines whose prompts begin so.
pub(super) fn lines(name: &str, count: usize) -> String {
    (1..=count)
        .map(|n| format!("{{\"prompt\": \"{name} {n}.\"}}\n"))
        .collect()
}

/// A run of `A.jsonl` that was killed when so many lines were called; all of them are jobs.
pub(super) fn killed_run(place: &Place, simulator: &Simulator, count: usize, called: u64) {
    place.write("A.jsonl", lines("a", count));
    let running = Running::start(&mut run_of(place, simulator, "A.jsonl"));
    let has_results = || place.path("A.results.jsonl").exists();
    until("lines are called, and an answer is there", || {
        simulator.stats().calls >= called && has_results()
    });
    running.kill();
    assert_eq!(
        place.store("onelane.redb").jobs().len(),
        count,
        "all were submitted"
    );
}

#[test]
fn a_run_sends_its_own_lines_and_says_what_else_waits() {
    let (place, simulator) = (Place::new(), simulator(30));
    killed_run(&place, &simulator, 40, 3);
    let before = simulator.stats().calls;
    place.write("B.jsonl", lines("b", 5));
    let ended = run(&mut run_of(&place, &simulator, "B.jsonl --json")).with(0);
    assert_eq!(simulator.stats().calls - before, 5, "{ended}");
    let summary = ended.json();
    assert_eq!(summary["completed"], 5);
    let waits = summary["otherJobs"].as_u64().unwrap();
    assert!((30..40).contains(&waits), "{summary}");
    let ended = run(&mut run_of(&place, &simulator, "B.jsonl")).with(0);
    let told = format!("{waits} other jobs in the store ({waits} of ");
    ended.noting(&[
        &told,
        "A.jsonl): not sent; --all sends them too, --drop-rest",
    ]);
    assert_eq!(simulator.stats().calls - before, 5);

    // Its costs are its own.
    let whole = run(&mut run_of(&place, &simulator, "A.jsonl --json")).with(0);
    assert_eq!(whole.json()["otherJobs"], 0);
    assert_eq!(place.lines("A.results.jsonl").len(), 40);
    place.store("onelane.redb").knows_every_call_of(&simulator);
}

#[test]
fn a_moved_file_whose_lines_are_done_sends_nothing_and_disturbs_nobody() {
    let (place, simulator) = (Place::new(), simulator(0));
    place.write("A.jsonl", lines("a", 600));
    run(&mut run_of(&place, &simulator, "A.jsonl")).with(0);
    let calls = simulator.stats().calls;
    std::fs::create_dir(place.path("sub")).unwrap();
    std::fs::rename(place.path("A.jsonl"), place.path("sub/A.jsonl")).unwrap();
    let ended = run(&mut run_of(&place, &simulator, "sub/A.jsonl")).with(0);
    assert!(!ended.stderr.contains("ERROR"), "{ended}");
    assert_eq!(simulator.stats().calls, calls, "{ended}");
}

#[test]
fn a_run_that_finds_nothing_to_do_leaves_its_batch_closed() {
    let (place, simulator) = (Place::new(), simulator(0));
    place.write("A.jsonl", lines("a", 3));
    for _ in 0..2 {
        run(&mut run_of(&place, &simulator, "A.jsonl")).with(0);
        let told = run(&mut place.onelane(&["batch", "ls", "--json"])).with(0);
        assert!(!told.stdout.contains("\"open\""), "{told}");
    }
}

#[test]
fn what_else_waits_is_sent_or_dropped_when_that_is_asked_for() {
    for (flag, calls, left) in [("--all", true, 0), ("--drop-rest", false, 0)] {
        let (place, simulator) = (Place::new(), simulator(20));
        killed_run(&place, &simulator, 20, 2);
        place.write("B.jsonl", lines("b", 3));
        run(&mut run_of(&place, &simulator, &format!("B.jsonl {flag}"))).with(0);
        let store = place.store("onelane.redb");
        assert_eq!(store.count(JobStatus::Pending), left, "{flag}");
        let cancelled = store.count(JobStatus::Cancelled);
        assert_eq!(cancelled == 0, calls, "{flag}: {cancelled}");
        assert_eq!(store.count(JobStatus::Completed) == 23, calls, "{flag}");
    }
}

#[test]
fn lines_that_left_the_input_are_cancelled_and_their_results_stay() {
    let (place, simulator) = (Place::new(), simulator(30));
    killed_run(&place, &simulator, 30, 4);
    let done = place.lines("A.results.jsonl").len();
    // Ten lines go, one is edited: it is a new line.
    let text: Vec<String> = lines("a", 30).lines().map(str::to_owned).collect();
    let mut kept: Vec<String> = text[..20].to_vec();
    kept[19] = "{\"prompt\": \"another 20.\"}".to_owned();
    place.write("A.jsonl", kept.join("\n"));
    let ended = run(&mut run_of(&place, &simulator, "A.jsonl --json")).with(0);
    let summary = ended.json();
    assert_eq!(
        (&summary["lines"], &summary["gone"]),
        (&20.into(), &11.into()),
        "{ended}"
    );
    for n in 21..=30 {
        assert_eq!(simulator.calls_of_prompt(&format!("a {n}.")), 0, "line {n}");
    }
    assert_eq!(simulator.calls_of_prompt("a 20."), 0);
    assert_eq!(simulator.calls_of_prompt("another 20."), 1);
    assert_eq!(place.lines("A.results.jsonl").len(), 20);

    // Now lines with answers go.
    assert!(done > 0);
    place.write("A.jsonl", text[10..19].join("\n"));
    run(&mut run_of(&place, &simulator, "A.jsonl"))
        .with(0)
        .noting(&["9 of 9 lines done, 9 before"]);
    let results = place.lines("A.results.jsonl");
    assert_eq!(results.len(), 20, "none is lost");
    let labels: std::collections::BTreeSet<_> = results
        .iter()
        .map(|line| line["custom_id"].as_str().unwrap())
        .collect();
    assert_eq!(labels.len(), 20, "and none has another's name: {labels:?}");
}

#[test]
fn a_file_that_was_cut_to_a_few_lines_sends_nothing_of_the_old_ones_without_being_told() {
    let (place, simulator) = (Place::new(), simulator(40));
    killed_run(&place, &simulator, 50, 2);
    let before = simulator.stats().calls;
    place.write("A.jsonl", lines("corrected", 5));
    let refused = run(&mut run_of(&place, &simulator, "A.jsonl")).with(2);
    let refused = refused.noting(&["50 of the 50 lines of ", "nothing was sent", "--drop-gone"]);
    assert_eq!(simulator.stats().calls, before, "{refused}");
    run(&mut run_of(&place, &simulator, "A.jsonl --drop-gone"))
        .with(0)
        .noting(&["5 of 5 lines done"]);
    assert_eq!(simulator.stats().calls - before, 5);
    let store = place.store("onelane.redb");
    assert_eq!(store.count(JobStatus::Pending), 0);
}

#[test]
fn a_moved_file_goes_on_with_its_jobs() {
    let (place, simulator) = (Place::new(), simulator(20));
    killed_run(&place, &simulator, 20, 3);
    std::fs::create_dir(place.path("moved")).unwrap();
    for name in ["A.jsonl", "A.results.jsonl"] {
        std::fs::rename(place.path(name), place.path("moved").join(name)).unwrap();
    }
    let ended = run(&mut run_of(&place, &simulator, "moved/A.jsonl --json")).with(0);
    assert_eq!(ended.json()["otherJobs"], 0, "{ended}");
    assert_eq!(
        place.store("onelane.redb").jobs().len(),
        20,
        "no line became a second job"
    );
    assert_eq!(place.lines("moved/A.results.jsonl").len(), 20);
}

#[test]
fn a_pipe_needs_the_name_of_its_batch_and_goes_on_with_it() {
    let (place, simulator) = (Place::new(), simulator(30));
    let text = lines("p", 20);
    let piped = |words: &str| Running::fed(&mut run_of(&place, &simulator, words), text.as_bytes());
    piped("-")
        .end()
        .with(2)
        .noting(&["standard input has no path", "--batch NAME"]);
    let running = piped("- --batch night --out out.jsonl");
    until("lines are called", || simulator.stats().calls >= 3);
    running.kill();
    let ended = piped("- --batch night --out out.jsonl").end().with(0);
    ended.noting(&["20 of 20 lines done"]);
    assert_eq!(place.lines("out.jsonl").len(), 20);
    assert_eq!(place.store("onelane.redb").jobs().len(), 20);

    // Half of it is gone: what is left to do is not sent before that is known.
    let shorter = Running::fed(
        &mut run_of(&place, &simulator, "- --batch night --out out.jsonl"),
        lines("q", 2).as_bytes(),
    );
    shorter.end().with(0).noting(&["2 of 2 lines done"]);
}

#[test]
fn an_operators_pause_is_lifted_by_nobodys_word_but_the_users() {
    let (place, simulator) = world();
    place.write("A.jsonl", lines("a", 3));
    let daemon = Daemon::start(&place, &simulator);
    daemon.post(
        "/api/admin/glm/pause",
        &serde_json::json!({"reason": "audit"}),
        200,
    );
    drop(daemon);
    let held = run(&mut run_of(&place, &simulator, "A.jsonl")).with(4);
    held.noting(&[
        "the lane was paused since",
        "audit",
        "nothing was sent; --resume lifts it",
    ]);
    assert_eq!(simulator.stats().calls, 0);
    run(&mut run_of(&place, &simulator, "A.jsonl --resume"))
        .with(0)
        .noting(&["resuming; the lane was paused"]);
    assert_eq!(simulator.stats().calls, 3);
}

#[test]
fn batches_are_listed_shown_and_given_up() {
    let (place, simulator) = (Place::new(), simulator(30));
    killed_run(&place, &simulator, 20, 2);
    let verb = |words: &str| run(&mut place.bare(&words.split_whitespace().collect::<Vec<_>>()));
    let list = verb("batch ls --json").with(0).json();
    let batch = &list["batches"][0];
    assert_eq!(batch["state"], "running", "every line was read");
    assert!(
        batch["name"].as_str().unwrap().ends_with("/A.jsonl"),
        "{list}"
    );
    let id = batch["id"].as_str().unwrap();
    for name in ["A.jsonl", id, batch["name"].as_str().unwrap()] {
        let shown = verb(&format!("batch show {name} --json")).with(0).json();
        assert_eq!(shown["id"], batch["id"]);
    }
    verb("batch show B.jsonl")
        .with(2)
        .noting(&["there is no batch B.jsonl"]);
    let called = simulator.stats().calls;
    verb("batch drop A.jsonl").with(0);
    let shown = verb("batch show A.jsonl").with(0);
    assert!(shown.stdout.contains("cancelled"), "{shown}");
    assert_eq!(place.store("onelane.redb").count(JobStatus::Pending), 0);
    verb("db check").with(0);
    place.write("B.jsonl", lines("b", 1));
    run(&mut run_of(&place, &simulator, "B.jsonl --all")).with(0);
    assert_eq!(
        simulator.stats().calls,
        called + 1,
        "what was given up stays so"
    );
    // The file itself begins anew.
    run(&mut run_of(&place, &simulator, "A.jsonl"))
        .with(0)
        .noting(&["20 of 20 lines done"]);
}
