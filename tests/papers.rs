//! Guards: what the papers say of the code is so.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails the test"
)]

use std::fs;
use std::path::{Path, PathBuf};

use onelane_core::life;

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
    let diagram = format!("```text\n{}```\n", transition::diagram());
    assert!(
        read("ARCHITECTURE.md").contains(&diagram),
        "copy actors/core/src/life/life_of_a_job.txt to ARCHITECTURE.md"
    );
}

/// Whether a file has a test of this name: a function with a test's attribute, or a promise in the list of
/// which `store_contract!` makes tests.
fn has_test(code: &str, name: &str) -> bool {
    let promised = code.contains("macro_rules! store_contract")
        && code.lines().any(|line| line.trim() == name);
    let definition = format!("fn {name}(");
    let mut functions = code.match_indices(&definition).map(|(at, _)| at);
    promised
        || functions.any(|at| {
            let attributes = code[..at].rsplit(['}', ';']).next().unwrap();
            attributes.contains("#[test]") || attributes.contains("#[tokio::test")
        })
}

#[test]
fn every_guard_named_in_the_architecture_exists() {
    let files: Vec<String> = ["src", "actors/src", "tests"]
        .into_iter()
        .flat_map(|directory| rust_files(&root().join(directory)))
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let architecture = read("ARCHITECTURE.md");
    let mut invariants = 0;
    let mut missing = Vec::new();
    for part in architecture.split("\nGuards: ").skip(1) {
        invariants += 1;
        let guards = part.split("\n\n").next().unwrap();
        let is_there = |name: &str| files.iter().any(|code| has_test(code, name));
        let names = quoted(guards).filter(|name| !name.contains('.'));
        missing.extend(names.filter(|name| !is_there(name)).map(str::to_owned));
    }
    assert!(invariants > 10, "{invariants} invariants are too few");
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

#[test]
fn links_between_the_papers_lead_somewhere() {
    for paper in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        for link in read(paper).split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            let elsewhere = target.is_empty() || target.contains("://");
            assert!(
                elsewhere || root().join(target).exists(),
                "{paper} links to {target}"
            );
        }
    }
}

#[test]
fn the_actors_crate_names_nothing_that_does_io() {
    let manifest: toml::Table = read("actors/Cargo.toml").parse().unwrap();
    let dependencies = manifest["dependencies"].as_table().unwrap();
    let names: Vec<&str> = dependencies.keys().map(String::as_str).collect();
    // A crate that comes to this list must neither read nor write anything.
    assert_eq!(
        names,
        [
            "chrono",
            "chrono-tz",
            "ractor",
            "serde",
            "serde_json",
            "sha2",
            "thiserror",
            "tokio",
            "tokio-util",
            "tracing",
            "url",
            "uuid"
        ]
    );
    let tokio = dependencies["tokio"]["features"].as_array().unwrap();
    for feature in ["net", "fs", "io-std", "process", "full"] {
        let given = tokio.iter().any(|given| given.as_str() == Some(feature));
        assert!(!given, "tokio's {feature} does I/O");
    }
}

#[test]
fn decisions_are_synchronous() {
    for file in rust_files(&root().join("actors/src/policy")) {
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
