//! Guards: lines that are paid for twice because their file got another name, or their batch did; lines that were cut
//! from a file before it was moved and are sent all the same; costs that stay with a name that nobody uses any more.

use onelane::model::JobStatus;

use super::batches::{killed_run, lines, run_of};
use super::simulator;
use crate::common::{Place, Running, run};

/// What a batch came to, by its name.
fn cost(place: &Place, name: &str) -> Option<serde_json::Value> {
    let told = run(&mut place.onelane(&["batch", "show", name, "--json"]));
    (told.code == Some(0)).then(|| told.json()["costs"].clone())
}

#[test]
fn a_renamed_file_takes_its_jobs_its_answers_and_its_costs_along() {
    for results_too in [false, true] {
        let (place, simulator) = (Place::new(), simulator(20));
        killed_run(&place, &simulator, 20, 4);
        std::fs::rename(place.path("A.jsonl"), place.path("B.jsonl")).unwrap();
        if results_too {
            let [from, to] = ["A.results.jsonl", "B.results.jsonl"].map(|name| place.path(name));
            std::fs::rename(from, to).unwrap();
        }
        let ended = run(&mut run_of(&place, &simulator, "B.jsonl")).with(0);
        let ended = ended.noting(&["20 jobs of ", "A.jsonl taken over", "20 of 20 lines done"]);
        assert!(!ended.stderr.contains("other job"), "{ended}");
        let store = place.store("onelane.redb");
        assert_eq!(store.jobs().len(), 20, "no line became a second job");
        assert_eq!(store.count(JobStatus::Completed), 20);
        drop(store);
        let results = place.lines("B.results.jsonl");
        let names: std::collections::BTreeSet<_> = results
            .iter()
            .map(|line| line["custom_id"].to_string())
            .collect();
        assert_eq!((results.len(), names.len()), (20, 20), "{results:?}");
        assert_eq!(
            cost(&place, "A.jsonl"),
            None,
            "nothing is left under the old name"
        );
        assert!(cost(&place, "B.jsonl").is_some());
        let calls = simulator.stats().calls;
        run(&mut run_of(&place, &simulator, "B.jsonl"))
            .with(0)
            .noting(&["20 of 20 lines done, 20 before"]);
        assert_eq!(simulator.stats().calls, calls);
    }
}

#[test]
fn what_a_moved_file_cost_goes_with_it_and_is_not_this_runs() {
    let (place, simulator) = (Place::new(), simulator(0));
    place.write("A.jsonl", lines("a", 5));
    let before = run(&mut run_of(&place, &simulator, "A.jsonl --json"))
        .with(0)
        .json();
    let spent = cost(&place, "A.jsonl").unwrap();
    assert_ne!(spent, serde_json::json!([]));
    assert_eq!(before["spent"], spent);
    std::fs::create_dir(place.path("sub")).unwrap();
    std::fs::rename(place.path("A.jsonl"), place.path("sub/A.jsonl")).unwrap();
    let ended = run(&mut run_of(&place, &simulator, "sub/A.jsonl --json"))
        .with(0)
        .json();
    let zero = |sum: &serde_json::Value| sum["cost"].as_f64() == Some(0.0);
    assert!(
        ended["spent"].as_array().unwrap().iter().all(zero),
        "{ended}"
    );
    let list = run(&mut place.onelane(&["batch", "ls", "--json"]))
        .with(0)
        .json();
    assert_eq!(list["batches"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list["batches"][0]["costs"], spent, "{list}");
}

#[test]
fn lines_cut_from_a_file_that_was_moved_are_cancelled_and_told() {
    for to in ["sub/A.jsonl", "sub/B.jsonl"] {
        let (place, simulator) = (Place::new(), simulator(30));
        killed_run(&place, &simulator, 30, 4);
        std::fs::create_dir(place.path("sub")).unwrap();
        std::fs::remove_file(place.path("A.jsonl")).unwrap();
        let before = simulator.stats().calls;
        // More than half of its lines are gone: nothing is done before the user says so.
        place.write(to, lines("a", 10));
        let refused = run(&mut run_of(&place, &simulator, to)).with(2);
        refused.noting(&[
            "20 of the 30 lines of ",
            "A.jsonl are not in the input",
            "--drop-gone",
        ]);
        assert_eq!(simulator.stats().calls, before);
        place.write(to, lines("a", 20));
        let ended = run(&mut run_of(&place, &simulator, &format!("{to} --json"))).with(0);
        let summary = ended.json();
        assert_eq!(
            (&summary["lines"], &summary["gone"], &summary["otherJobs"]),
            (&20.into(), &10.into(), &0.into()),
            "{ended}"
        );
        for n in 21..=30 {
            assert_eq!(simulator.calls_of_prompt(&format!("a {n}.")), 0, "line {n}");
        }
        let list = run(&mut place.onelane(&["batch", "ls", "--json"]))
            .with(0)
            .json();
        let open = list["batches"].as_array().unwrap().iter();
        let open = open.filter(|batch| matches!(batch["state"].as_str(), Some("open" | "running")));
        assert_eq!(open.count(), 0, "{list}");
    }
}

#[test]
fn a_copy_under_another_name_is_not_paid_for_again_without_the_users_word() {
    let (place, simulator) = (Place::new(), simulator(0));
    place.write("A.jsonl", lines("a", 6));
    run(&mut run_of(&place, &simulator, "A.jsonl")).with(0);
    place.write("B.jsonl", format!("{}{}", lines("a", 4), lines("b", 2)));
    for words in ["B.jsonl", "A.jsonl --batch night --out night.jsonl"] {
        let calls = simulator.stats().calls;
        let refused = run(&mut run_of(&place, &simulator, words)).with(2);
        let lines = if words == "B.jsonl" { 4 } else { 6 };
        refused.noting(&[
            &format!("{lines} lines are lines of another batch too ({lines} answered in batch "),
            "A.jsonl); nothing was sent",
            "--adopt takes their jobs and answers over",
            "--again sends them once more",
        ]);
        assert_eq!(simulator.stats().calls, calls);
    }
    // A pipe is sent as it comes, up to such a line.
    let calls = simulator.stats().calls;
    let piped = |flag: &str| {
        let words = format!("- --batch piped --out piped.jsonl {flag}");
        Running::fed(
            &mut run_of(&place, &simulator, &words),
            lines("a", 3).as_bytes(),
        )
        .end()
    };
    piped("")
        .with(2)
        .noting(&["standard input: 3 lines are lines of another batch too"]);
    assert_eq!(simulator.stats().calls, calls);
    piped("--adopt")
        .with(0)
        .noting(&["3 jobs of ", "3 of 3 lines done"]);
    assert_eq!(simulator.stats().calls, calls);
    assert_eq!(place.lines("piped.jsonl").len(), 3);

    run(&mut run_of(&place, &simulator, "B.jsonl --again")).with(0);
    assert_eq!(simulator.stats().calls - calls, 6);
    run(&mut run_of(&place, &simulator, "B.jsonl"))
        .with(0)
        .noting(&["6 of 6 lines done, 6 before"]);
    // The answers are in the store: a lost results file is no reason to ask or to pay.
    std::fs::remove_file(place.path("B.results.jsonl")).unwrap();
    run(&mut run_of(&place, &simulator, "B.jsonl")).with(0);
    assert_eq!(simulator.stats().calls - calls, 6);
    let taken = run(&mut run_of(
        &place,
        &simulator,
        "A.jsonl --batch night --out night.jsonl --adopt",
    ));
    taken.with(0).noting(&["taken over", "6 of 6 lines done"]);
    assert_eq!(simulator.stats().calls - calls, 6);
}

#[test]
fn an_answer_in_the_results_under_another_name_is_not_paid_for_again_without_the_users_word() {
    let (place, simulator) = (Place::new(), simulator(0));
    place.write("A.jsonl", lines("a", 4));
    run(&mut run_of(&place, &simulator, "A.jsonl --out all.jsonl")).with(0);
    place.write("B.jsonl", lines("a", 3));
    // The store is gone, and with it what it knew.
    std::fs::remove_file(place.path("onelane.redb")).unwrap();
    run(&mut run_of(&place, &simulator, "B.jsonl --out all.jsonl"))
        .with(2)
        .noting(&[
            "3 answered in the results file, under another input's name",
            "nothing was sent",
        ]);
    run(&mut run_of(
        &place,
        &simulator,
        "B.jsonl --out all.jsonl --adopt",
    ))
    .with(0)
    .noting(&["3 of 3 lines done, 3 before"]);
    assert_eq!(simulator.stats().calls, 4);
    assert_eq!(place.lines("all.jsonl").len(), 4);
    // What the other input has beyond these lines is still its own.
    let whole = run(&mut run_of(
        &place,
        &simulator,
        "A.jsonl --out all.jsonl --adopt",
    ));
    whole.with(0).noting(&["4 of 4 lines done, 4 before"]);
    assert_eq!(simulator.stats().calls, 4);
}
