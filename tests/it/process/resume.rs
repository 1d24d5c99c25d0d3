//! Guards: a run that was ended in any way goes on where it stopped: what is done is not sent again.

use std::collections::BTreeSet;

use onelane::model::{CallOutcome, JobStatus};
use onelane::simulator::{Fault, Simulator};

use super::{run_prompts, simulator, with_prompts};
use crate::common::{Place, Running, prompts, run, until};

const LINES: usize = 60;

/// The `custom_id`s of whole result lines; the last line may be torn.
fn finished(text: &str) -> BTreeSet<String> {
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(line["error"].is_null(), "{line}");
            line["custom_id"].as_str().unwrap().to_owned()
        })
        .collect()
}

fn calls_of(simulator: &Simulator, label: &str) -> u32 {
    let number = label.strip_prefix("line-").unwrap();
    simulator.calls_of_prompt(&format!("prompt {number}."))
}

/// Kills a run half way, does something to its results, runs it again, and checks that no line that
/// was done was sent again.
fn killed_half_way(then: impl FnOnce(&Place)) {
    let place = Place::new();
    let simulator = simulator(5);
    place.write("prompts.jsonl", prompts(LINES));
    let running = Running::start(&mut run_prompts(&place, &simulator));
    let results = place.path("prompts.results.jsonl");
    until("half of the lines are done", || {
        std::fs::read(&results)
            .is_ok_and(|r| r.iter().filter(|b| **b == b'\n').count() >= LINES / 2)
    });
    running.kill();
    let done = finished(&place.read("prompts.results.jsonl"));
    assert!((LINES / 2..LINES).contains(&done.len()), "{}", done.len());
    then(&place);

    run(&mut run_prompts(&place, &simulator))
        .with(0)
        .noting(&[&format!("{LINES} of {LINES} lines done")]);
    let all = finished(&place.read("prompts.results.jsonl"));
    assert_eq!(all.len(), LINES);
    assert_eq!(place.lines("prompts.results.jsonl").len(), LINES);
    for label in &done {
        assert_eq!(calls_of(&simulator, label), 1, "{label} was sent again");
    }
    let left = place.store("onelane.redb");
    left.knows_every_call_of(&simulator);
    let again = simulator.stats().calls as usize - LINES;
    let interrupted = left.calls_that(CallOutcome::Interrupted);
    assert!(
        again <= interrupted,
        "{again} sent again, {interrupted} on record"
    );
    assert_eq!(left.count(JobStatus::Completed), LINES as u64);
    assert_eq!(simulator.stats().peak_in_flight, 1);
}

#[test]
fn a_run_that_was_killed_goes_on_where_it_stopped() {
    killed_half_way(|_| {});
}

#[test]
fn a_run_whose_results_were_deleted_finds_its_answers_in_the_store() {
    killed_half_way(|place| std::fs::remove_file(place.path("prompts.results.jsonl")).unwrap());
}

#[test]
fn a_run_whose_last_line_was_torn_writes_it_anew() {
    killed_half_way(|place| {
        let text = place.read("prompts.results.jsonl");
        let last = text.trim_end().rfind('\n').unwrap() + 1;
        let torn = last + (text.len() - last) / 2;
        place.write("prompts.results.jsonl", &text.as_bytes()[..torn]);
    });
}

#[test]
fn a_first_signal_lets_the_open_call_finish_and_the_next_run_continues() {
    let place = Place::new();
    let simulator = simulator(300);
    place.write("prompts.jsonl", prompts(6));
    let running = Running::start(&mut run_prompts(&place, &simulator));
    until("a call is open", || simulator.stats().in_flight == 1);
    running.signal("TERM");
    running.end().with(1).noting(&[
        "the open call may finish",
        "not done",
        "run the same command again to continue",
    ]);
    let stats = simulator.stats();
    let done = finished(&place.read("prompts.results.jsonl"));
    // Each call's answer is written.
    assert_eq!(done.len() as u64, stats.calls);
    assert_eq!(stats.clients_left, 0, "no call was cut off");
    assert!((1..6).contains(&done.len()), "it stopped: {done:?}");
    assert_eq!(
        place
            .store("onelane.redb")
            .calls_that(CallOutcome::Interrupted),
        0
    );

    simulator.set_latency(onelane::simulator::Span::Fixed(0));
    run(&mut run_prompts(&place, &simulator)).with(0);
    assert_eq!(simulator.stats().calls, 6);
    assert_eq!(finished(&place.read("prompts.results.jsonl")).len(), 6);
}

#[test]
fn a_second_signal_stops_at_once_and_the_attempt_is_on_record() {
    let (place, simulator) = with_prompts(3);
    simulator.push_fault(Fault::Hang);
    let running = Running::start(&mut run_prompts(&place, &simulator));
    until("a call hangs", || simulator.stats().in_flight == 1);
    running.signal("INT");
    running.notes("the open call may finish");
    running.signal("INT");
    running
        .end()
        .with(1)
        .noting(&["interrupted; run the same command again to continue"]);
    until("the connection is closed", || {
        simulator.stats().in_flight == 0
    });
    let left = place.store("onelane.redb");
    assert_eq!(left.calls_that(CallOutcome::Interrupted), 1);
    assert_eq!(left.count(JobStatus::Processing), 0);
    assert_eq!(left.count(JobStatus::Pending), 3, "it is tried again");
    drop(left);

    run(&mut run_prompts(&place, &simulator)).with(0);
    assert_eq!(simulator.stats().calls, 4);
    assert_eq!(finished(&place.read("prompts.results.jsonl")).len(), 3);
}
