//! Guards: the examples run, offline and to the end, and tell what their readers are promised.
//!
//! `cargo test` and `cargo nextest run` build the examples before this test; naming this test alone
//! (`--test examples`) does not.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails the test"
)]

use std::path::PathBuf;
use std::process::Command;

/// Where cargo put an example: this test is in `deps`, the examples are beside that.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let example = profile.join("examples").join(file);
    assert!(
        example.exists(),
        "{} is not built; run `cargo build --examples` first",
        example.display()
    );
    example
}

/// Runs an example and answers what it says.
fn run(name: &str, args: &[&str]) -> String {
    let output = Command::new(built(name))
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // No proxy and no key of the machine's may play a part.
        .env_clear()
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}{complaints}");
    said
}

/// Checks that `said` holds these texts, in this order.
fn check(said: &str, wanted: &[&str]) {
    let mut rest = said;
    for want in wanted {
        let Some((_, after)) = rest.split_once(want) else {
            panic!("{want:?} is missing, or not in its place, in:\n{said}");
        };
        rest = after;
    }
}

#[test]
fn embed_and_call() {
    let said = run("embed_and_call", &[]);
    check(
        &said,
        &[
            "answer: ",
            "Completed",
            "failed: 1301 (request_fatal)",
            "glm-4.6 for alice: 1 calls",
            "glm-4.7 for default: 2 calls",
            "spent: 0.",
            "CNY",
        ],
    );
}

#[test]
fn submit_and_wait() {
    let said = run("submit_and_wait", &[]);
    check(
        &said,
        &[
            "is on disk",
            "calls so far: 0",
            "1 pending; paused: Some(\"nothing before tonight\")",
            "asked again: the same job: true",
            "Completed after 1 attempt",
            "attempt 1: Completed, cost 0.",
        ],
    );
}

#[test]
fn bulk_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lines.jsonl");
    let lines = [
        r#"{"prompt": "one", "priority": 5, "userId": "alice", "contentId": "c-1"}"#,
        r#"{"messages": [{"role": "user", "content": "two"}], "temperature": 0.2}"#,
        r#"{"custom_id": "three", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": "three"}]}}"#,
    ];
    std::fs::write(&file, lines.join("\n")).unwrap();
    let said = run("bulk_file", &[file.to_str().unwrap()]);
    check(
        &said,
        &["3 jobs on disk", "3 completed", "in flight at most: 1"],
    );
}

#[test]
fn priorities() {
    let said = run("priorities", &[]);
    let order: Vec<&str> = said.lines().collect();
    assert_eq!(
        order,
        [
            "customer waits",
            "alarm",
            "first question",
            "second question",
            "nightly report"
        ]
    );
}

#[test]
fn plain_message() {
    let said = run("plain_message", &[]);
    check(
        &said,
        &["submitted: true", "status: Completed", "in flight: 0 of 1"],
    );
}

#[test]
fn live_events() {
    let said = run("live_events", &[]);
    check(
        &said,
        &[
            "job.submitted",
            "job.started",
            "job.retrying: 500 (server_transient)",
            "job.started",
            "job.completed: ",
            "lane.paused: lunch",
            "job.submitted",
            "job.cancelled",
            "lane.resumed",
        ],
    );
}

#[cfg(feature = "cli")]
#[test]
fn crash_loop() {
    let said = run("crash_loop", &["--rounds", "3", "--stretch", "2"]);
    check(&said, &["kills: 3", "every promise holds after 3 kills"]);
    let wrong = Command::new(built("crash_loop")).arg("--rouns").output();
    assert_eq!(wrong.unwrap().status.code(), Some(2));
}
