//! Guards: a file of prompts in, one result line for each, bad lines told by their numbers, and an exit
//! code that says how it went.

use std::collections::{BTreeMap, BTreeSet};

use onelane::simulator::{Fault, Rule};
use serde_json::{Value, json};

use super::{run_prompts, with_prompts, world};
use crate::common::{Place, Running, prompts, run};
use crate::support::shows;

/// The result lines by `custom_id`; none twice.
fn by_label(lines: &[Value]) -> BTreeMap<String, Value> {
    let label = |line: &Value| line["custom_id"].as_str().unwrap().to_owned();
    let map: BTreeMap<_, _> = lines.iter().map(|l| (label(l), l.clone())).collect();
    assert_eq!(map.len(), lines.len(), "a line has two results");
    map
}

#[test]
fn the_example_runs_on_the_simulator_to_its_end() {
    let place = Place::new();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/prompts.jsonl");
    std::fs::copy(example, place.path("prompts.jsonl")).unwrap();
    let ended = run(&mut place.bare(&["run", "prompts.jsonl", "--simulate"])).with(0);
    assert_eq!(ended.stdout, "", "results go to their file");
    let ended = ended.noting(&[
        "SIMULATION",
        "122 of 122 lines done",
        "prompts.results.jsonl",
    ]);
    assert!(!ended.stderr.contains(" spent"), "nothing was: {ended}");
    let results = place.lines("prompts.results.jsonl");
    assert_eq!(results.len(), 122);
    for line in by_label(&results).values() {
        assert_eq!(line["error"], Value::Null, "{line}");
        assert_eq!(line["response"]["status_code"], 200, "{line}");
        let answer = &line["response"]["body"]["choices"][0]["message"]["content"];
        assert!(
            answer.as_str().is_some_and(|text| !text.is_empty()),
            "{line}"
        );
    }
    // Simulated jobs stay among themselves.
    assert!(!place.has("onelane.redb"));
}

#[test]
fn bad_lines_are_told_by_number_and_the_others_are_done() {
    let (place, simulator) = world();
    place.write(
        "prompts.jsonl",
        "\u{feff}{\"prompt\": \"one\", \"id\": \"a\"}\r\n\
         not json\r\n\
         \r\n\
         {\"prompt\": \"two\", \"id\": \"a\"}\r\n\
         {\"id\": \"empty\"}\r\n\
         {\"prompt\": 7}\r\n\
         {\"prompt\": \"三\", \"priority\": \"high\"}\r\n\
         {\"custom_id\": \"b\", \"method\": \"POST\", \"url\": \"/v1/chat/completions\", \
          \"body\": {\"model\": \"glm-5\", \"messages\": [{\"role\": \"user\", \"content\": \"four\"}]}}\r\n\
         {\"messages\": [{\"role\": \"user\", \"content\": \"last, without an end of line\"}]}",
    );
    run(&mut run_prompts(&place, &simulator)).with(1).noting(&[
        "bad line 2: not a JSON object",
        "bad line 4: its id is used by line 1 already",
        "bad line 5: prompt: is missing; give a prompt, or messages",
        "bad line 6: prompt: must be a string",
        "bad line 7: priority: must be a whole number",
        "3 of 8 lines done, 5 bad",
    ]);
    let results = place.lines("prompts.results.jsonl");
    assert_eq!(results.len(), 8);
    let done = |line: &&Value| line["error"].is_null();
    let labels: BTreeSet<&str> = results
        .iter()
        .filter(done)
        .map(|line| line["custom_id"].as_str().unwrap())
        .collect();
    assert_eq!(labels, BTreeSet::from(["a", "b", "line-9"]));
    for line in results.iter().filter(|line| !done(line)) {
        assert_eq!(line["error"]["code"], "invalid_line");
        assert_eq!(line["response"], Value::Null);
    }
    assert_eq!(simulator.stats().calls, 3);
}

#[test]
fn a_line_that_fails_is_code_1_and_is_the_only_one_sent_again() {
    let (place, simulator) = with_prompts(5);
    simulator.add_rule(Rule::for_prompt("prompt 3.", Fault::error("1301")));
    run(&mut run_prompts(&place, &simulator)).with(1).noting(&[
        "4 of 5 lines done, 1 failed",
        "run the same command again to retry what failed",
    ]);
    let failed = by_label(&place.lines("prompts.results.jsonl"))["line-3"].clone();
    shows!(failed, {"error": Value::Null});
    shows!(failed["response"], {"status_code": 400});
    shows!(failed["response"]["body"]["error"], {"code": "1301"});
    assert_eq!(simulator.stats().calls, 5, "its own fault is not retried");

    simulator.clear_script();
    run(&mut run_prompts(&place, &simulator))
        .with(0)
        .noting(&["5 of 5 lines done, 4 before"]);
    assert_eq!(simulator.stats().calls, 6);
    let results = by_label(&place.lines("prompts.results.jsonl"));
    let is_done = |line: &Value| line["response"]["status_code"] == 200;
    assert!(results.values().all(is_done));
    assert_eq!(results.len(), 5);
}

#[test]
fn without_a_key_nothing_is_made_and_the_message_says_what_to_set() {
    let place = Place::new();
    place.write("prompts.jsonl", prompts(1));
    run(&mut place.bare(&["run", "prompts.jsonl"]))
        .with(2)
        .noting(&["ONELANE_API_KEY", "ZAI_API_KEY", "--simulate"]);
    assert!(!place.has("onelane.redb"));
    assert!(!place.has("prompts.results.jsonl"));
}

#[test]
fn a_pipe_in_and_a_pipe_out() {
    let (place, simulator) = world();
    let url = simulator.base_url();
    let mut command = place.onelane(&["run", "-", "--batch", "piped", "--base-url", &url]);
    let ended = Running::fed(&mut command, prompts(20).as_bytes())
        .end()
        .with(0)
        .noting(&["20 of 20 lines done"]);
    let results: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(by_label(&results).len(), 20);
    // The results are not there to be read, but the store is: nothing is sent again.
    let again = Running::fed(&mut command, prompts(20).as_bytes()).end();
    assert_eq!(again.with(0).stdout.lines().count(), 20);
    assert_eq!(simulator.stats().calls, 20);
}

#[test]
fn the_summary_is_json_when_asked_and_results_go_where_told() {
    let (place, simulator) = with_prompts(4);
    let url = simulator.base_url();
    let args = [
        "run",
        "prompts.jsonl",
        "--base-url",
        &url,
        "--json",
        "--out",
        "deep.jsonl",
    ];
    let ended = run(&mut place.onelane(&args)).with(0);
    assert_eq!(ended.stderr, "", "a program reads standard output");
    let summary = ended.json();
    for (field, want) in [
        ("lines", json!(4)),
        ("completed", json!(4)),
        ("failed", json!(0)),
        ("unpricedCalls", json!(0)),
        ("end", json!("complete")),
        ("exitCode", json!(0)),
        ("simulated", json!(false)),
        ("results", json!("deep.jsonl")),
    ] {
        assert_eq!(summary[field], want, "{field} in {summary}");
    }
    assert_eq!(summary["spent"][0]["currency"], "CNY", "{summary}");
    assert!(
        summary["spent"][0]["cost"].as_f64() > Some(0.0),
        "{summary}"
    );
    assert_eq!(place.lines("deep.jsonl").len(), 4);
    assert!(!place.has("prompts.results.jsonl"));
}

#[test]
fn what_nobody_knows_the_price_of_is_not_reported_as_nothing() {
    let (place, simulator) = with_prompts(2);
    let mut command = run_prompts(&place, &simulator);
    run(command.args(["--model", "glm-of-the-house"]))
        .with(0)
        .noting(&["2 of 2 lines done, 2 calls at an unknown cost, in "]);
}

#[test]
fn a_store_with_little_room_takes_a_long_file_bit_by_bit() {
    let (place, simulator) = world();
    place.write("onelane.toml", "[lane]\nmax_queue_jobs = 5\n");
    place.write("prompts.jsonl", prompts(40));
    run(&mut run_prompts(&place, &simulator))
        .with(0)
        .noting(&["40 of 40 lines done"]);
    assert_eq!(place.lines("prompts.results.jsonl").len(), 40);
    assert_eq!(simulator.stats().calls, 40);
}

#[test]
fn wrong_files_and_values_are_code_2_and_named_with_their_place() {
    let place = Place::new();
    place.write("prompts.jsonl", prompts(1));
    place.write(
        "wrong.toml",
        "[lane]\nmax_concurrency = \"many\"\n[glm]\nmodle = \"x\"\n",
    );
    place.write("torn.toml", "[lane\n");
    std::fs::create_dir(place.path("dir")).unwrap();
    let cases: [(&[&str], &[&str]); 8] = [
        (&["run", "none.jsonl"], &["none.jsonl: No such file"]),
        (&["run", "dir"], &["dir: is a directory"]),
        (&["run", "prompts.jsonl", "--out", "dir"], &["dir"]),
        (
            &["run", "prompts.jsonl", "--config", "none.toml"],
            &["none.toml: can't be read"],
        ),
        (
            &["run", "prompts.jsonl", "--config", "dir"],
            &["dir: can't be read"],
        ),
        (
            &["run", "prompts.jsonl", "--config", "torn.toml"],
            &["torn.toml:1:6: "],
        ),
        (
            &["run", "prompts.jsonl", "--config", "wrong.toml"],
            &[
                "wrong.toml:2:1: lane.max_concurrency: ",
                "wrong.toml:4:1: glm.modle: unknown key",
            ],
        ),
        (
            &[
                "run",
                "prompts.jsonl",
                "--simulate",
                "--base-url",
                "http://x",
            ],
            &["exclude each other"],
        ),
    ];
    for (args, says) in cases {
        run(&mut place.onelane(args)).with(2).noting(says);
    }
    assert!(!place.has("onelane.redb"));
}

/// A port on which nobody listens.
fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn a_run_that_never_connected_is_code_4_with_the_reason_and_fails_no_line() {
    let (place, simulator) = with_prompts(3);
    let nowhere = format!("http://127.0.0.1:{}/api/paas/v4", closed_port());
    let args = ["run", "prompts.jsonl", "--connect-within", "1s"];
    let mut command = place.onelane(&args);
    let ended = run(command.args(["--base-url", &nowhere])).with(4);
    let ended = ended.noting(&[
        "GLM can't be reached",
        "refused",
        "glm.base_url",
        "3 not done",
    ]);
    assert!(!ended.stderr.contains("failed:"), "{ended}");
    run(&mut run_prompts(&place, &simulator))
        .with(0)
        .noting(&["3 of 3 lines done"]);
    assert_eq!(simulator.stats().calls, 3);
}
