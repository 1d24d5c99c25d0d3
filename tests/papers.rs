//! Guards: what the papers say of the code is so.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test fails the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use onelane::meters::table;
use onelane_core::life;

#[path = "papers/charts.rs"]
mod charts;
#[path = "papers/claims.rs"]
mod claims;
#[path = "papers/logs.rs"]
mod logs;
#[path = "papers/places.rs"]
mod places;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All Rust files under a directory.
fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_diagram_in_the_architecture_is_the_table() {
    let diagram = format!("```text\n{}```\n", life::diagram());
    assert!(
        read("ARCHITECTURE.md").contains(&diagram),
        "copy actors/core/src/life/life_of_a_job.txt to ARCHITECTURE.md"
    );
}

/// The tests of a file: functions with a test's attribute, and the promises of which `store_contract!` makes tests.
fn tests_of(code: &str) -> Vec<&str> {
    let is_name = |word: &str| {
        let mut letters = word.bytes();
        !word.is_empty()
            && letters.all(|b| b == b'_' || b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    let contract = code
        .lines()
        .skip_while(|line| !line.starts_with("macro_rules! store_contract"))
        .map(str::trim)
        .take_while(|line| *line != "}");
    let mut tests: Vec<&str> = contract.filter(|line| is_name(line)).collect();
    let mut marked = false;
    for line in code.lines().map(str::trim_start) {
        marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let Some(function) = line.strip_prefix("async fn ").or(line.strip_prefix("fn ")) else {
            continue;
        };
        let name = function.split('(').next().filter(|name| is_name(name));
        tests.extend(name.filter(|_| marked));
        marked = false;
    }
    tests
}

/// How many tests of each name the workspace has.
fn tests() -> BTreeMap<String, usize> {
    let mut tests = BTreeMap::new();
    for directory in ["src", "actors", "tests"] {
        for file in rust_files(&root().join(directory)) {
            for name in tests_of(&fs::read_to_string(file).unwrap()) {
                *tests.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
    tests
}

const PROMISES: &str = "tests/promises.txt";
const ARCHITECTURE: &str = "ARCHITECTURE.md";

fn is_blessing() -> bool {
    std::env::var_os("ONELANE_BLESS").is_some()
}

/// A line of the list: a test, the invariants that it guards, and those that keep its promise since it went.
struct Promise<'a> {
    test: &'a str,
    guards: Vec<&'a str>,
    heirs: Vec<&'a str>,
}

impl<'a> Promise<'a> {
    fn read(line: &'a str) -> Self {
        let (left, heirs) = line.split_once(" => ").unwrap_or((line, ""));
        let mut words = left.split(' ');
        let test = words.next().unwrap();
        let guards = words.map(|word| {
            let guarded = word.strip_prefix('@');
            guarded.unwrap_or_else(|| panic!("{line}: {word} is no @invariant"))
        });
        Self {
            test,
            guards: guards.collect(),
            heirs: heirs.split(", ").filter(|heir| !heir.is_empty()).collect(),
        }
    }
}

/// `tests/promises.txt` says how it is used.
#[test]
fn every_promise_that_had_a_test_has_one() {
    let tests = tests();
    let (head, list): (Vec<String>, Vec<String>) = read(PROMISES)
        .lines()
        .map(str::to_owned)
        .partition(|line| line.starts_with('#'));
    if is_blessing() {
        // What went keeps its line; what came gets one.
        let is_of = |line: &String, name: &str| Promise::read(line).test == name;
        let listed = |name: &str| list.iter().filter(|line| is_of(line, name)).count();
        let came = tests
            .iter()
            .flat_map(|(name, count)| vec![name.clone(); count.saturating_sub(listed(name))]);
        let mut all: Vec<String> = list.iter().cloned().chain(came).collect();
        all.sort_unstable();
        fs::write(
            root().join(PROMISES),
            [head, all].concat().join("\n") + "\n",
        )
        .unwrap();
        return;
    }
    let mut wanted: BTreeMap<&str, usize> = BTreeMap::new();
    let mut missing = Vec::new();
    for line in &list {
        let promise = Promise::read(line);
        if promise.heirs.is_empty() {
            *wanted.entry(promise.test).or_default() += 1;
        }
        let gone = |heir: &&&str| !tests.contains_key(**heir);
        missing.extend(promise.heirs.iter().filter(gone).map(|_| line.clone()));
    }
    for (name, wanted) in wanted {
        let there = tests.get(name).copied().unwrap_or(0);
        if there < wanted {
            missing.push(format!(
                "{name}: {wanted} tests had this name, {there} have it"
            ));
        }
    }
    assert!(list.len() > 1_000, "{} promises are too few", list.len());
    assert!(
        missing.is_empty(),
        "write into {PROMISES} which test keeps the promise now: {missing:#?}"
    );
}

/// The tests that guard each invariant: those of the list that say so, or their heirs.
fn guards(list: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut guards: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let promise = Promise::read(line);
        let tests = match promise.heirs.is_empty() {
            true => vec![promise.test],
            false => promise.heirs,
        };
        for invariant in promise.guards {
            guards.entry(invariant).or_default().extend(&tests);
        }
    }
    guards
}

/// `Guards (NAME): ...`, in lines of bounded length.
fn guards_line(invariant: &str, tests: &BTreeSet<&str>) -> String {
    let mut text = format!("Guards ({invariant}):");
    let mut width = text.len();
    for (at, test) in tests.iter().enumerate() {
        let end = if at + 1 == tests.len() { '.' } else { ',' };
        let word = format!("`{test}`{end}");
        width += 1 + word.len();
        if width > 140 {
            text.push('\n');
            width = word.len();
        } else {
            text.push(' ');
        }
        text += &word;
    }
    text
}

#[test]
fn the_guards_in_the_architecture_are_the_promises_that_say_so() {
    let list = read(PROMISES);
    let mut guards = guards(&list);
    let page = read(ARCHITECTURE);
    let mut parts = page.split("\nGuards (");
    let mut made = parts.next().unwrap().to_owned();
    for part in parts {
        let (invariant, rest) = part.split_once("):").unwrap();
        let tests = guards.remove(invariant);
        let tests = tests.unwrap_or_else(|| panic!("no promise guards {invariant}"));
        let rest = rest.split_once("\n\n").unwrap().1;
        made += &format!("\n{}\n\n{rest}", guards_line(invariant, &tests));
    }
    let unknown: Vec<&str> = guards.into_keys().collect();
    assert!(
        unknown.is_empty(),
        "{ARCHITECTURE} does not know {unknown:?}"
    );
    if is_blessing() {
        fs::write(root().join(ARCHITECTURE), &made).unwrap();
    }
    assert!(
        read(ARCHITECTURE) == made,
        "{ARCHITECTURE} names other guards than {PROMISES}; write it anew with ONELANE_BLESS=1"
    );
}

/// The dependencies of a crate, which name nothing that reads or writes anything.
fn dependencies(manifest: &str) -> toml::Table {
    let manifest: toml::Table = read(manifest).parse().unwrap();
    manifest["dependencies"].as_table().unwrap().clone()
}

#[test]
fn the_actors_crate_names_nothing_that_does_io() {
    let names =
        |dependencies: &toml::Table| -> Vec<String> { dependencies.keys().cloned().collect() };
    // A crate that comes to these lists must neither read nor write anything; one of the core must not know
    // threads and time either.
    let pure = [
        "chrono",
        "chrono-tz",
        "hashbrown",
        "schemars",
        "serde",
        "serde_json",
        "sha2",
        "thiserror",
        "url",
        "uuid",
    ];
    let core = dependencies("actors/core/Cargo.toml");
    assert_eq!(names(&core), pure);
    let actors = dependencies("actors/Cargo.toml");
    assert_eq!(
        names(&actors),
        [
            "bytes",
            // Names and atomics; where they are kept is up to a recorder.
            "metrics",
            "onelane-core",
            "ractor",
            "schemars",
            "serde",
            "serde_json",
            "thiserror",
            "tokio",
            "tokio-util",
            "tracing",
            "uuid"
        ]
    );
    let tokio = actors["tokio"]["features"].as_array().unwrap();
    for feature in ["net", "fs", "io-std", "process", "full"] {
        let given = tokio.iter().any(|given| given.as_str() == Some(feature));
        assert!(!given, "tokio's {feature} does I/O");
    }
}

#[test]
fn decisions_are_synchronous() {
    for file in rust_files(&root().join("actors/core/src")) {
        let code = fs::read_to_string(&file).unwrap();
        let code = code.replace(".awaited(", "");
        for word in [
            ".await",
            "async fn",
            "Instant::now",
            "SystemTime",
            "spawn(",
            "rand::",
            "getrandom",
            "RandomState",
        ] {
            assert!(!code.contains(word), "{} says {word}", file.display());
        }
    }
}

/// Of what is dear, the crates that a program compiles with the library and these features.
fn dear_crates_with(features: &str) -> Vec<&'static str> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--package", "onelane"])
        .args(["--no-default-features", "--features", features])
        .args([
            "--edges", "no-dev", "--prefix", "none", "--format", "{p} {f}",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.contains("\nredb v"), "no tree: {tree}");
    let is_there = |name: &&str| {
        tree.lines().any(|line| {
            let mut words = line.split(' ');
            match *name {
                // reqwest brings hyper's client; the server is a feature.
                "hyper/server" => {
                    words.next() == Some("hyper")
                        && words.any(|word| word.split(',').any(|feature| feature == "server"))
                }
                name => words.next() == Some(name),
            }
        })
    };
    let dear = ["clap", "hyper/server", "indicatif", "tiktoken", "warp"];
    dear.into_iter().filter(is_there).collect()
}

#[test]
fn a_program_compiles_what_it_uses() {
    let check =
        |features, want: &[&str]| assert_eq!(dear_crates_with(features), want, "{features}");
    check("", &[]);
    check("testing", &[]);
    check("estimate", &["tiktoken"]);
    check("simulator", &["hyper/server"]);
    check("api", &["hyper/server", "tiktoken", "warp"]);
    check("desk", &["hyper/server", "tiktoken", "warp"]);
    let all = ["clap", "hyper/server", "indicatif", "tiktoken", "warp"];
    check("default", &all);
}

#[test]
fn the_page_of_the_metrics_is_made_of_their_table() {
    let page = onelane::registry::reference_page();
    if is_blessing() {
        fs::write(root().join("docs/metrics.md"), &page).unwrap();
    }
    assert!(
        read("docs/metrics.md") == page,
        "docs/metrics.md is not what the table says; write it anew with ONELANE_BLESS=1"
    );
}

/// The metrics that a text names, without the parts of histograms.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c == '_' || c.is_ascii_alphanumeric();
    let words = text.split(|c: char| !is_part(c));
    let named = words.filter(|word| word.starts_with("onelane_"));
    let histograms: BTreeSet<&str> = table::ALL
        .iter()
        .filter(|meter| matches!(meter.kind, table::Kind::Histogram(_)))
        .map(|meter| meter.name)
        .collect();
    let whole = |word: &str| {
        let parts = ["_bucket", "_sum", "_count"].into_iter();
        let mut wholes = parts.filter_map(|part| word.strip_suffix(part));
        let whole = wholes.find(|whole| histograms.contains(whole));
        whole.unwrap_or(word).to_owned()
    };
    named.map(whole).collect()
}

#[test]
fn dashboard_and_alert_rules_name_only_metrics_that_there_are() {
    let known: BTreeSet<&str> = table::ALL.iter().map(|meter| meter.name).collect();
    for (path, least) in [
        ("deploy/grafana.json", 25),
        ("deploy/alerts.yml", 10),
        ("docs/operating.md", 2),
    ] {
        let named = metrics_in(&read(path));
        assert!(named.len() >= least, "{path} names {named:?}");
        let unknown: Vec<_> = named
            .iter()
            .filter(|n| !known.contains(n.as_str()))
            .collect();
        assert!(unknown.is_empty(), "{path} names {unknown:?}");
    }
}

#[test]
fn the_dashboard_shows_every_metric_and_rules_warn_of_what_the_account_runs_out_of() {
    let grafana = read("deploy/grafana.json");
    let dashboard: serde_json::Value = serde_json::from_str(&grafana).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let asked = targets
        .flatten()
        .map(|target| target["expr"].as_str().unwrap());
    let shown: BTreeSet<String> = asked.flat_map(metrics_in).collect();
    let left_out: Vec<&str> = table::ALL
        .iter()
        .map(|meter| meter.name)
        .filter(|name| !shown.contains(*name) && *name != table::BUILD_INFO.name)
        .collect();
    assert!(
        left_out.is_empty(),
        "the dashboard does not show {left_out:?}"
    );
    let warned = metrics_in(&read("deploy/alerts.yml"));
    for meter in [
        table::QUOTA_USED,
        table::ACCOUNT_BALANCE,
        table::BUDGET_USED,
    ] {
        assert!(
            warned.contains(meter.name),
            "no rule warns of {}",
            meter.name
        );
    }
}

#[test]
fn the_reference_of_the_http_api_is_made_of_its_table() {
    let page = onelane::api::reference_page();
    if is_blessing() {
        fs::write(root().join("docs/http.md"), &page).unwrap();
    }
    assert!(
        read("docs/http.md") == page,
        "docs/http.md is not what the table says; write it anew with ONELANE_BLESS=1"
    );
}
