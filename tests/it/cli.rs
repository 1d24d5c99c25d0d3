//! The command line's own promises: help, exit codes, and errors that say what to do. Guards against a
//! script that waits for code 2 and gets 1.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::shows;
use assert_cmd::Command;
use serde_json::Value;

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
    run_in(dir.path(), &args.join(" "))
}

/// The command, in words, run in this directory.
fn run_in(dir: &Path, words: &str) -> Output {
    ended(onelane(dir).args(words.split_whitespace()))
}

fn ended(command: &mut Command) -> Output {
    let output = command.output().unwrap();
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
    let verbs = "serve|run|simulate|stats|batch|db|config|policy|prices|estimate";
    for word in verbs
        .split('|')
        .chain(["Examples:", "Exit codes:", "--json"])
    {
        assert!(help.stdout.contains(word), "{word} in {}", help.stdout);
    }
    let help = run(&["run", "--help"]);
    assert_eq!(help.code, Some(0));
    for word in "custom_id --out --simulate ONELANE_STORE continues".split(' ') {
        assert!(help.stdout.contains(word), "{word} in {}", help.stdout);
    }
}

#[test]
fn version_is_one_line() {
    let version = run(&["--version"]);
    assert_eq!(version.code, Some(0));
    let line = concat!("onelane ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(version.stdout, line);
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
        &["policy", "9999"],
        &["policy", "interrupted"],
        &["policy", "1302", "1303"],
        &["prices", "glm-9"],
        &["prices", "glm-5x"],
        &["estimate"],
        &["estimate", "none.jsonl"],
        &["run", "-", "--simulate"],
        &["run", "a.jsonl", "--latency", "2s"],
        &["run", "a.jsonl", "--script", "a.json"],
        &["run", "a.jsonl", "--all", "--drop-rest"],
        &["batch"],
        &["batch", "show"],
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
    let told = output.stderr;
    assert!(told.starts_with("error: none.jsonl: "), "{told}");
    assert!(told.contains("\nhelp: "), "{told}");
}

#[test]
fn results_never_overwrite_their_own_input() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("prompts.jsonl");
    std::fs::write(&input, "{\"prompt\":\"hi\"}\n").unwrap();
    let line = "run prompts.jsonl --out ./prompts.jsonl --simulate";
    let output = run_in(dir.path(), line);
    assert_eq!(output.code, Some(2));
    let part = "is the input itself";
    assert!(output.stderr.contains(part), "{}", output.stderr);
    let kept = std::fs::read_to_string(&input).unwrap();
    assert_eq!(kept, "{\"prompt\":\"hi\"}\n");
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
        let error: Value = serde_json::from_str(&output.stderr).unwrap();
        assert_eq!(error["error"]["exitCode"], 2, "{args:?}");
        let message = error["error"]["message"].as_str();
        assert!(message.is_some_and(|m| !m.is_empty()), "{args:?}");
    }
}

/// `config show --json` in this directory, by setting.
fn shown(command: &mut Command, more: &[&str]) -> BTreeMap<String, (Value, String)> {
    let command = command.args(["config", "show", "--json"]).args(more);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let settings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    settings
        .iter()
        .map(|s| (text(&s["key"]), (s["value"].clone(), text(&s["origin"]))))
        .collect()
}

#[test]
fn config_show_says_where_each_value_comes_from() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        "[glm]\nmodel = \"from-file\"\n[retry]\nmax_retries = 9\n[lane]\nmax_concurrency = 2\n";
    std::fs::write(dir.path().join("my.toml"), config).unwrap();
    let mut command = onelane(dir.path());
    command
        .env("ONELANE_CONFIG", "my.toml")
        .env("ONELANE_MODEL", "from-environment")
        .env("ZAI_API_KEY", "a-very-secret-key.value");
    let settings = shown(&mut command, &[]);
    let check = |key: &str, value: Value, origin: &str| {
        assert_eq!(settings[key], (value, origin.to_owned()), "{key}");
    };
    let variable = "environment ONELANE_MODEL";
    check("glm.model", "from-environment".into(), variable);
    check("retry.max_retries", 9.into(), "file my.toml");
    check("lane.max_concurrency", 2.into(), "file my.toml");
    check("retry.base_delay_ms", 1000.into(), "default");
    let url = "https://api.z.ai/api/paas/v4";
    check("glm.base_url", url.into(), "default with ZAI_API_KEY");
    assert_eq!(settings["glm.api_key"].1, "environment ZAI_API_KEY");
    let all = format!("{settings:?}");
    assert!(!all.contains("very-secret"), "{all}");
}

#[test]
fn with_simulate_the_verbs_that_look_show_what_a_simulated_run_has() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.toml"), "store.path = 'jobs.redb'\n").unwrap();
    // A store that no program can read: who looks into it fails.
    std::fs::write(dir.path().join("jobs.redb"), "no store").unwrap();
    let mut command = onelane(dir.path());
    let settings = shown(&mut command, &["--simulate"]);
    let of_flag = |value: &str| (Value::from(value), "flag --simulate".to_owned());
    assert_eq!(settings["store.path"], of_flag("jobs-simulated.redb"));
    let (url, origin) = &settings["glm.base_url"];
    let part = "http://127.0.0.1:";
    assert!(url.as_str().unwrap().starts_with(part), "{url}");
    assert_eq!(origin, "flag --simulate");
    let policy = |args: &[&str]| {
        let output = onelane(dir.path()).arg("policy").args(args).output();
        output.unwrap().status.code()
    };
    assert_eq!(policy(&["--simulate"]), Some(0));
    assert_eq!(policy(&[]), Some(3));
    let elsewhere = ["--simulate", "--base-url", "http://127.0.0.1:1"];
    assert_eq!(policy(&elsewhere), Some(2));
    let store = std::fs::read_to_string(dir.path().join("jobs.redb"));
    assert_eq!(store.unwrap(), "no store");
    assert!(!dir.path().join("jobs-simulated.redb").exists());
}

#[test]
fn a_simulated_run_has_the_prices_of_the_configured_site() {
    let currency = |config: &str| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        let output = run_in(dir.path(), "prices --simulate --json");
        let list: Value = serde_json::from_str(&output.stdout).unwrap();
        list["currency"].clone()
    };
    assert_eq!(currency(""), "CNY");
    let zai = "glm.base_url = 'https://api.z.ai/api/paas/v4'\n";
    assert_eq!(currency(zai), "USD");
    let points = format!("{zai}money.price_list = 'points'");
    assert_eq!(currency(&points), "POINTS");
}

#[test]
fn config_show_is_a_table_for_people() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = onelane(dir.path());
    let line = "config show --listen 127.0.0.1:4799 --model glm-5";
    command.args(line.split(' '));
    let output = ended(command.env("ONELANE_API_KEY", "a-very-secret-key.value"));
    assert_eq!(output.code, Some(0));
    let table = output.stdout;
    let row = |key: &str| {
        let row = table.lines().find(|line| line.starts_with(key));
        row.unwrap_or_else(|| panic!("{key} in {table}")).to_owned()
    };
    assert!(row("server.listen ").ends_with("flag --listen"), "{table}");
    assert!(row("glm.model ").contains("\"glm-5\""), "{table}");
    let origin = "environment ONELANE_API_KEY";
    assert!(row("glm.api_key ").ends_with(origin), "{table}");
    assert!(row("retry.max_retries ").ends_with("default"), "{table}");
    assert!(!table.contains("very-secret"), "{table}");
    // Looking makes no store.
    assert!(!dir.path().join("onelane.redb").exists());
}

#[test]
fn policy_shows_the_table_in_force_without_key_server_or_store() {
    let output = run(&["policy"]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let row = |code: &str| {
        let row = output.stdout.lines().find(|line| line.starts_with(code));
        let row = row.unwrap_or_else(|| panic!("{code} in {}", output.stdout));
        row.split_whitespace().take(7).collect::<Vec<_>>().join(" ")
    };
    for line in [
        "CODE HTTP CLASS JOB LANE BREAKER FROM",
        "1302 429 throttle keep cool_down ignore shipped",
        "1113 429 operator_fatal keep hold_for_operator ignore shipped",
        "1311 429 operator_fatal keep hold_model_for_operator ignore shipped",
        "timeout_total - server_transient backoff go_on count shipped",
    ] {
        let (code, _) = line.split_once(' ').unwrap();
        assert_eq!(row(&format!("{code} ")), line);
    }

    let json: Value = serde_json::from_str(&run(&["policy", "--json"]).stdout).unwrap();
    let rows = json["policy"].as_array().unwrap();
    assert!(rows.len() > 59, "{}", rows.len());
    let row = rows.iter().find(|row| row["code"] == "1308").unwrap();
    shows!(row, {"class": "quota_window", "lane": "hold_until_reset", "statusCode": 429});
    assert_eq!(row["overridden"], false);
}

#[test]
fn policy_shows_and_explains_what_the_configuration_changed() {
    let dir = tempfile::tempdir().unwrap();
    let config = "[policy]\n1234 = { class = \"overload\", breaker = \"open\" }\n\
                  1305 = { job = \"keep\", lane = \"cool_down\" }\n\
                  1303 = { lane = \"hold_model\" }\n\
                  [retry]\noverload_base_ms = 7000\n[breaker]\ncool_down_ms = 1234\n";
    std::fs::write(dir.path().join("my.toml"), config).unwrap();
    let policy = |args: &[&str]| {
        let output = onelane(dir.path())
            .env("ONELANE_CONFIG", "my.toml")
            .arg("policy")
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = policy(&[]);
    let row = table
        .lines()
        .find(|line| line.starts_with("1234 "))
        .unwrap();
    assert!(row.contains("file my.toml"), "{row}");
    let words = policy(&["1234"]);
    for part in [
        "1234, HTTP 500: network error",
        "overload (file my.toml)",
        "uses up a retry (of 3,",
        "for 7000 ms, doubling",
        "ends by itself",
        "opens at once: no call for 1234 ms",
    ] {
        assert!(words.contains(part), "{part} in {words}");
    }
    // The bound on throttle answers is that of a cool-down, whatever the class.
    let bound = "after 200 such answers it fails";
    assert!(policy(&["1302"]).contains(bound));
    assert!(policy(&["1305"]).contains(bound), "{}", policy(&["1305"]));
    assert!(!policy(&["1303"]).contains(bound), "{}", policy(&["1303"]));
    let row: Value = serde_json::from_str(&policy(&["1234", "--json"])).unwrap();
    shows!(row, {"overridden": true, "breaker": "open"});
    // A status is explained, too.
    assert!(policy(&["http_503"]).contains("server_transient"));
}

#[test]
fn policy_of_an_unknown_code_says_what_is_allowed() {
    for code in ["9999", "nonsense"] {
        let output = run(&["policy", code]);
        assert_eq!(output.code, Some(2));
        assert!(output.stderr.contains(code), "{}", output.stderr);
        assert!(output.stderr.contains("such as 1305"), "{}", output.stderr);
    }
}

#[test]
fn prices_shows_the_list_in_force_without_key_or_store() {
    let output = run(&["prices"]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let head = output.stdout.lines().next().unwrap();
    assert_eq!(
        head,
        "CNY per million tokens, chosen by the base URL; list of 2026-11-28"
    );
    let row = |start: &str| {
        let row = output.stdout.lines().filter(|line| line.starts_with(start));
        let row = row.map(|row| row.split_whitespace().collect::<Vec<_>>().join(" "));
        row.collect::<Vec<_>>()
    };
    assert_eq!(
        row("glm-5 "),
        [
            "glm-5 any any any 4 1 18 2026-10-09 docs.bigmodel.cn/cn/guide/start/pricing read 2026-10-09 (RarogCmex/pi-bigmodel catalog.ts@012a314; cross-check public-code id 71505269461)",
            "glm-5 from 32768 any any 6 1.5 22 2026-10-09 docs.bigmodel.cn/cn/guide/start/pricing read 2026-10-09 (RarogCmex/pi-bigmodel catalog.ts@012a314; cross-check public-code id 71505269461)",
        ]
    );
    let plan = "https://open.bigmodel.cn/api/coding/paas/v4";
    let points = run(&["prices", "glm-5.3", "--base-url", plan, "--json"]);
    let list: Value = serde_json::from_str(&points.stdout).unwrap();
    assert_eq!(list["currency"], "POINTS");
    assert_eq!(list["prices"].as_array().unwrap().len(), 1);
    assert_eq!(list["prices"][0]["cachedInput"], 170);
}

#[test]
fn estimate_sums_a_file_by_model_and_names_its_bad_lines() {
    let dir = tempfile::tempdir().unwrap();
    let lines = "{\"prompt\":\"hello world\",\"model\":\"glm-4-long\"}\n\
                 nonsense\n\
                 {\"prompt\":\"hello world\",\"id\":\"b\",\"model\":\"glm-4-long\"}\n\
                 {\"custom_id\":\"c\",\"body\":{\"model\":\"glm-9\",\"max_tokens\":5,\
                  \"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}}\n\
                 {\"prompt\":\"hi\",\"userId\":\"\"}\n\
                 {\"prompt\":\"hi\",\"maxRetries\":100000}\n";
    std::fs::write(dir.path().join("p.jsonl"), lines).unwrap();
    let estimate = |args: &[&str]| {
        let mut command = onelane(dir.path());
        let output = command.arg("estimate").args(args).write_stdin(lines);
        let output = output.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "a line is bad: {output:?}");
        (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (json, _) = estimate(&["p.jsonl", "--json"]);
    let sums: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        sums["models"][0],
        serde_json::json!({"model": "glm-4-long", "jobs": 2, "promptTokens": 16,
            "maxCompletionTokens": 8_190, "expectedCompletionTokens": 700,
            "cost": {"min": 0.000008, "expected": 0.000716, "max": 0.00824},
            "currency": "CNY", "unpricedJobs": 0, "forecast": null})
    );
    assert_eq!(sums["models"][1]["model"], "glm-9");
    assert_eq!(sums["models"][1]["cost"], Value::Null);
    shows!(sums["total"], {"jobs": 3, "unpricedJobs": 1, "maxCompletionTokens": 8_195});
    assert_eq!(sums["badLines"][0]["line"], 2);
    // What a run would refuse.
    assert_eq!(
        sums["badLines"][1],
        serde_json::json!({"line": 5, "problem": "userId: must be a string of 1 to 128 characters"})
    );
    assert_eq!(sums["badLines"][2]["line"], 6);
    assert_eq!(sums["bad"], 3);
    let (same, _) = estimate(&["-", "--json"]);
    assert_eq!(same, json);
    let (text, bad) = estimate(&["p.jsonl"]);
    assert!(bad.starts_with("line 2: not a JSON object"), "{bad}");
    let total = text.lines().find(|line| line.starts_with("total")).unwrap();
    let cells: Vec<_> = total.split_whitespace().collect();
    assert_eq!(cells.last(), Some(&"0.00824"), "{text}");
    assert!(text.contains("1 of 3 jobs has no price"), "{text}");
    // Nothing is stored.
    assert!(!dir.path().join("onelane.redb").exists());
}

#[test]
fn a_file_of_another_kind_is_told_once_and_nothing_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let wide: Vec<u8> = "{\"prompt\":\"a\"}\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for (name, bytes, told, help) in [
        (
            "array.json",
            b"[\n{\"prompt\":\"a\"},\n{\"prompt\":\"b\"}\n]\n".to_vec(),
            "is one JSON array",
            "jq -c '.[]'",
        ),
        (
            "pretty.json",
            b"{\n \"prompt\": \"a\"\n}\n{\n \"prompt\": \"b\"\n}\n".to_vec(),
            "over several lines",
            "jq -c .",
        ),
        (
            "table.csv",
            b"prompt,model\nName one river.,glm-5\n".to_vec(),
            "is a table (CSV)",
            "csv.DictReader",
        ),
        ("wide.jsonl", wide, "is UTF-16", "iconv -f UTF-16"),
    ] {
        std::fs::write(dir.path().join(name), bytes).unwrap();
        for verb in ["run", "estimate"] {
            let output = run_in(dir.path(), &format!("{verb} {name} --simulate"));
            assert_eq!(output.code, Some(2), "{}", output.stderr);
            let first = output.stderr.lines().next().unwrap();
            assert!(
                first.contains(told) && first.contains("nothing was sent"),
                "{first}"
            );
            assert!(output.stderr.contains(help), "{}", output.stderr);
            assert_eq!(output.stderr.lines().count(), 2, "once: {}", output.stderr);
        }
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 4, "neither results nor a store: {left:?}");
}

#[test]
fn ten_bad_lines_are_shown_and_the_rest_counted_and_strict_sends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut lines = "{\"prompt\":\"good\"}\n".to_owned();
    for n in 0..25 {
        lines.push_str(&format!("{{\"promt\":\"{n}\"}}\n"));
    }
    std::fs::write(dir.path().join("p.jsonl"), lines).unwrap();
    let shown = |output: &Output| output.stderr.matches("bad line ").count();
    let strict = run_in(dir.path(), "run p.jsonl --simulate --strict");
    assert_eq!(
        (strict.code, shown(&strict)),
        (Some(2), 10),
        "{}",
        strict.stderr
    );
    assert!(
        strict
            .stderr
            .contains("25 of 26 lines of p.jsonl are bad; nothing was sent"),
        "{}",
        strict.stderr
    );
    assert!(!dir.path().join("p.results.jsonl").exists());
    let sent = run_in(dir.path(), "run p.jsonl --simulate");
    assert_eq!((sent.code, shown(&sent)), (Some(1), 10), "{}", sent.stderr);
    for part in [
        "did you mean prompt?",
        "and 15 more bad lines",
        "1 of 26 lines done, 25 bad",
    ] {
        assert!(sent.stderr.contains(part), "{part} in {}", sent.stderr);
    }
}

#[test]
fn statistics_of_simulated_runs_are_found_without_being_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p.jsonl"), "{\"prompt\":\"hi\"}\n").unwrap();
    assert_eq!(
        run_in(dir.path(), "run p.jsonl --simulate --latency 1ms").code,
        Some(0)
    );
    for line in ["stats", "db stats", "batch ls"] {
        let output = run_in(dir.path(), line);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        assert!(
            output
                .stderr
                .contains("this is onelane-simulated.redb, of simulated runs"),
            "{}",
            output.stderr
        );
    }
    let named = run_in(dir.path(), "stats --store onelane.redb");
    assert_eq!(
        named.code,
        Some(3),
        "the one that was named: {}",
        named.stderr
    );
}

#[test]
fn the_files_that_were_read_the_filter_of_the_log_and_unknown_variables_are_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("onelane.toml"),
        "[log]\nfilter = \"warn\"\n",
    )
    .unwrap();
    let show = |envs: &[(&str, &str)]| {
        let mut command = onelane(dir.path());
        command
            .args(["config", "show", "--json"])
            .envs(envs.iter().copied());
        let output = ended(&mut command);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        let rows: Value = serde_json::from_str(&output.stdout).unwrap();
        let rows = rows.as_array().unwrap().clone();
        let filter = rows
            .into_iter()
            .find(|row| row["key"] == "log.filter")
            .unwrap();
        (filter, output.stderr)
    };
    let (filter, told) = show(&[]);
    assert_eq!(filter["value"], "warn");
    assert!(told.contains("read: onelane.toml"), "{told}");
    let (filter, told) = show(&[
        ("RUST_LOG", "debug"),
        ("ONELANE_STOR", "x"),
        ("ONELANE_MODEL", "glm-5"),
    ]);
    assert_eq!(filter["value"], "debug");
    assert!(
        filter["origin"].to_string().contains("RUST_LOG"),
        "{filter}"
    );
    assert!(
        told.contains(
            "ONELANE_STOR is set, and no variable of onelane's; did you mean ONELANE_STORE?"
        ),
        "{told}"
    );
    assert!(!told.contains("ONELANE_MODEL is set"), "{told}");
}

#[test]
fn a_run_on_the_simulator_takes_its_latency_and_its_script() {
    let dir = tempfile::tempdir().unwrap();
    let lines = "{\"prompt\":\"a\"}\n{\"prompt\":\"b\"}\n";
    std::fs::write(dir.path().join("p.jsonl"), lines).unwrap();
    let script = "{\"latencyMs\": 60000, \"rules\": [{\"promptContains\": \"b\", \"fault\": {\"error\": {\"code\": \"1214\"}}}]}";
    std::fs::write(dir.path().join("s.json"), script).unwrap();
    let output = run_in(
        dir.path(),
        "run p.jsonl --simulate --latency 5ms --script s.json",
    );
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    for part in [
        "1 of 2 lines done, 1 failed",
        "1 failed with 1214",
        "content_id=\"line-2\"",
    ] {
        assert!(output.stderr.contains(part), "{part} in {}", output.stderr);
    }
    std::fs::write(dir.path().join("s.json"), "{\"latency\": 1}").unwrap();
    let refused = run_in(dir.path(), "run p.jsonl --simulate --script s.json");
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("unknown field"),
        "{}",
        refused.stderr
    );
}
