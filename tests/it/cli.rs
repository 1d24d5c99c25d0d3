//! The command line's own promises: help, exit codes, and errors that say what to do. Guards against a
//! script that waits for code 2 and gets 1.

use std::path::Path;

use assert_cmd::Command;

/// The program in a directory of its own, without anything of this machine's environment.
fn onelane(dir: &Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("onelane"));
    command.current_dir(dir).env_clear();
    command
}

struct Output {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let output = onelane(dir.path()).args(args).output().unwrap();
    Output {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn help_names_every_verb_with_examples_and_exit_codes() {
    let help = run(&["--help"]);
    assert_eq!(help.code, Some(0));
    for word in [
        "serve",
        "run",
        "simulate",
        "config",
        "Examples:",
        "Exit codes:",
        "--json",
    ] {
        assert!(help.stdout.contains(word), "{word} in {}", help.stdout);
    }
    let help = run(&["run", "--help"]);
    assert_eq!(help.code, Some(0));
    for word in [
        "custom_id",
        "--out",
        "--simulate",
        "ONELANE_STORE",
        "continues",
    ] {
        assert!(help.stdout.contains(word), "{word} in {}", help.stdout);
    }
}

#[test]
fn version_is_one_line() {
    let version = run(&["--version"]);
    assert_eq!(version.code, Some(0));
    assert_eq!(
        version.stdout,
        format!("onelane {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn wrong_usage_ends_with_2_and_says_so_on_standard_error() {
    for args in [
        &[][..],
        &["frobnicate"],
        &["serve", "--frobnicate"],
        &["run"],
        &["run", "a.jsonl", "b.jsonl"],
        &["run", "a.jsonl", "--priority", "high"],
        &["simulate", "--latency", "50"],
        &["simulate", "--listen", "nowhere"],
        &["config"],
    ] {
        let output = run(args);
        assert_eq!(output.code, Some(2), "{args:?}: {}", output.stderr);
        assert_eq!(output.stdout, "", "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_missing_input_ends_with_2_and_names_the_file() {
    let output = run(&["run", "none.jsonl", "--simulate"]);
    assert_eq!(output.code, Some(2));
    assert!(
        output.stderr.starts_with("error: none.jsonl: "),
        "{}",
        output.stderr
    );
    assert!(output.stderr.contains("\nhelp: "), "{}", output.stderr);
}

#[test]
fn results_never_overwrite_their_own_input() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("prompts.jsonl");
    std::fs::write(&input, "{\"prompt\":\"hi\"}\n").unwrap();
    let output = onelane(dir.path())
        .args([
            "run",
            "prompts.jsonl",
            "--out",
            "./prompts.jsonl",
            "--simulate",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("is the input itself")
    );
    assert_eq!(
        std::fs::read_to_string(&input).unwrap(),
        "{\"prompt\":\"hi\"}\n"
    );
}

#[test]
fn with_json_an_error_is_a_json_object() {
    for args in [
        &["run", "none.jsonl", "--json"][..],
        &["--json", "frobnicate"],
        &["run", "--json"],
    ] {
        let output = run(args);
        assert_eq!(output.code, Some(2), "{args:?}");
        let error: serde_json::Value = serde_json::from_str(&output.stderr).unwrap();
        assert_eq!(error["error"]["exitCode"], 2, "{args:?}");
        assert!(
            error["error"]["message"]
                .as_str()
                .is_some_and(|m| !m.is_empty()),
            "{args:?}"
        );
    }
}
