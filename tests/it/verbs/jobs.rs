//! `onelane jobs`.

use serde_json::Value;

use super::World;
use crate::common::{Running, run};

#[test]
fn jobs_are_listed_with_a_total_and_shown_with_their_attempts() {
    let world = World::start();
    let ids = world.done(&["Name one river.", "two"]);
    let told = world.told("jobs ls");
    let lines: Vec<&str> = told.lines().collect();
    assert!(
        lines[0].starts_with("JOB        STATUS     USER   PRIORITY  MODEL"),
        "{told}"
    );
    assert_eq!(lines.last(), Some(&"2 in all"), "{told}");
    let told = world.told("jobs ls --limit 1");
    assert!(told.contains("2 in all, 1 more: --cursor "), "{told}");
    assert!(
        world
            .told("jobs ls --status failed")
            .contains("no job is like that")
    );
    let list = world.json("jobs ls --user alice");
    assert_eq!(list["total"], 2);
    let told = world.told(&format!("jobs show {}", ids[0]));
    for part in [
        ids[0].as_str(),
        "completed",
        "Name one river.",
        "answer",
        "ATTEMPT",
        "cost of all attempts",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(
        world.json(&format!("jobs show {}", ids[0]))["job"]["id"],
        ids[0].as_str()
    );
    world.check_refusals("jobs ls");
}

#[test]
fn a_job_is_named_by_an_end_of_its_id_and_an_unknown_one_by_its_likes() {
    let world = World::start();
    let id = &world.done(&["one"])[0];
    let (head, tail) = (&id[..4], &id[id.len() - 4..]);
    for named in [
        format!("{head}…{tail}"),
        tail.to_owned(),
        id[..13].to_owned(),
    ] {
        let shown = world.json(&format!("jobs show {named}"));
        assert_eq!(shown["job"]["id"], id.as_str(), "{named}");
    }
    world.ask("jobs show zzzzzz").with(2).noting(&[
        "there is no job zzzzzz",
        head,
        "onelane jobs ls",
    ]);
    world.ask("jobs show z").with(2).noting(&["is no id"]);
    let unknown = "0199a000-0000-7000-8000-000000000003";
    world
        .ask(&format!("jobs show {unknown}"))
        .with(2)
        .noting(&[unknown, "onelane jobs ls"]);
}

#[test]
fn a_submitted_job_is_awaited_and_its_answer_is_all_that_is_printed() {
    let world = World::start();
    let ended = world
        .ask("jobs submit river --user bob --priority -3 --wait")
        .with(0);
    assert!(!ended.stdout.trim().is_empty(), "{ended}");
    let id = world.told("jobs submit river --user bob");
    let id = id.trim();
    assert_eq!(
        world.ask(&format!("jobs wait {id}")).with(0).stdout,
        ended.stdout
    );
    let json = world.json(&format!("jobs wait {id}"));
    assert_eq!(
        (json["status"].as_str(), json["userId"].as_str()),
        (Some("completed"), Some("bob"))
    );
    world
        .place
        .write("jobs.json", r#"[{"prompt": "a"}, {"prompt": "b"}]"#);
    assert_eq!(
        world.told("jobs submit --file jobs.json").lines().count(),
        2
    );
    world.place.write("wrong.json", r#"{"promt": "a"}"#);
    world
        .ask("jobs submit --file wrong.json")
        .with(2)
        .noting(&["promt", "prompt"]);
    world.ask("jobs submit").with(2);
    let mut fed = world.command("jobs submit - --wait");
    let ended = Running::fed(&mut fed, b"from standard input").end().with(0);
    assert!(!ended.stdout.is_empty());
    world.check_refusals("jobs submit river");
}

#[test]
fn who_waits_in_vain_is_told_why_and_ends_with_1() {
    let world = World::start();
    world.pause();
    let id = world.submit("one");
    world
        .ask(&format!("jobs wait {id} --timeout 10ms"))
        .with(1)
        .noting(&["has not ended", "noon", "onelane jobs wait"]);
    world.told(&format!("jobs cancel {id}"));
    world
        .ask(&format!("jobs wait {id}"))
        .with(1)
        .noting(&["cancelled"]);
}

#[test]
fn many_jobs_are_changed_only_when_somebody_says_yes() {
    let world = World::start();
    world.pause();
    let ids: Vec<String> = ["one", "two", "three"]
        .map(|prompt| world.submit(prompt))
        .into();
    assert_eq!(
        world.told(&format!("jobs move {} --priority 7", ids[2])),
        "1 job is moved\n"
    );
    assert_eq!(
        world.told("jobs move --user alice --priority -2 --dry-run"),
        "3 jobs would be moved\n"
    );
    world
        .ask("jobs cancel --user alice")
        .with(2)
        .noting(&["3 jobs would be cancelled", "--yes"]);
    assert_eq!(world.metrics()["jobs"]["pending"], 3);
    world
        .ask("jobs cancel")
        .with(2)
        .noting(&["no job is named", "--all"]);
    world
        .ask("jobs cancel --all --user alice")
        .with(2)
        .noting(&["exclude"]);
    world.ask(&format!("jobs cancel {} --all", ids[0])).with(2);
    let done = world.json("jobs cancel --user alice --yes");
    assert_eq!(done["count"], 3);
    assert_eq!(world.metrics()["jobs"]["cancelled"], 3);
    assert_eq!(
        world.told(&format!("jobs retry {} {}", ids[0], ids[1])),
        "2 jobs are requeued\n"
    );
    assert_eq!(world.metrics()["jobs"]["pending"], 2);
    world.ask(&format!("jobs retry {}", ids[0])).with(1);
    world.check_refusals("jobs cancel --all --yes");
}

#[test]
fn a_job_is_followed_up_to_its_end() {
    let world = World::start();
    world.pause();
    let id = world.submit("one");
    let tail = Running::start(&mut world.command(&format!("jobs tail {id} --json")));
    tail.says("job.status");
    world.told("lane resume");
    let ended = tail.end().with(0);
    let events: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events.last().unwrap()["event"], "job.completed");
    let tail = Running::start(&mut world.command("jobs tail --limit 2"));
    crate::common::until("it hears", || {
        world.submit("more");
        tail.line_if_said("job.").is_some()
    });
    // Of this one it hears more than two.
    world.submit("the last");
    let ended = tail.end().with(0);
    assert_eq!(ended.stdout.lines().count(), 2);
    assert!(ended.stdout.contains("job."), "{ended}");
    world.check_refusals(&format!("jobs tail {id}"));
}

#[test]
fn a_url_that_is_none_and_a_program_that_is_no_daemon_are_told_apart() {
    let world = World::start();
    let mut wrong = world.bare("jobs ls --url 127.0.0.1:4700");
    run(&mut wrong)
        .with(2)
        .noting(&["127.0.0.1:4700", "http://"]);
    let other = world.simulator.base_url();
    let mut wrong = world.bare(&format!("jobs ls --url {other}"));
    run(&mut wrong).with(5).noting(&[&other, "another program"]);
}
