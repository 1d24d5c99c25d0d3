//! Guards: arrows between files run down the layers, and no circle ties files together.
//!
//! Cargo refuses most arrows that run back up, since `onelane-core` names neither tokio nor ractor and
//! knows no other crate of ours. What Cargo can't see, inside a crate, this module reads from the imports.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of each crate, from the bottom up: a room imports rooms that stand before it. Rooms of one
/// line are on one floor and do not import each other.
const CRATES: [(&str, &[&[&str]]); 3] = [
    (
        "actors/core/src",
        &[
            &["words"],
            &["model"],
            &["random", "rows"],
            &["retry"],
            &["money", "queue", "retention", "notify"],
            &["life"],
            &["judge"],
            &["scheduler"],
            &["testing"],
        ],
    ),
    ("actors/src", &[]),
    ("src", &[]),
];

/// The files of a crate as a graph.
#[derive(Default)]
struct Graph {
    /// Module path (`scheduler::slot`), of every file.
    modules: BTreeSet<String>,
    /// File to file, by module path.
    arrows: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn of(files: &[(String, String)]) -> Self {
        let mut graph = Self {
            modules: files.iter().map(|(module, _)| module.clone()).collect(),
            ..Self::default()
        };
        for (module, code) in files {
            let arrows: BTreeSet<String> = paths(code)
                .iter()
                .filter_map(|path| graph.target(module, path))
                .filter(|target| !is_part(target, module) && !is_part(module, target))
                .collect();
            graph.arrows.insert(module.clone(), arrows);
        }
        graph
    }

    /// The file that a path leads to: the longest part of it that is a module.
    fn target(&self, from: &str, path: &str) -> Option<String> {
        let mut at: Vec<&str> = from.split("::").filter(|part| !part.is_empty()).collect();
        let mut rest: Vec<&str> = path.split("::").collect();
        match *rest.first()? {
            "crate" => at.clear(),
            "super" => {
                while rest.first() == Some(&"super") {
                    at.pop();
                    rest.remove(0);
                }
                rest.insert(0, "");
            }
            _ => return None,
        }
        let mut found = at.join("::");
        for part in rest.into_iter().skip(1) {
            at.push(part);
            let longer = at.join("::");
            if !self.modules.contains(&longer) {
                break;
            }
            found = longer;
        }
        Some(found)
    }

    /// Groups of files of which each reaches each.
    fn circles(&self) -> Vec<Vec<String>> {
        let reach: BTreeMap<&str, BTreeSet<&str>> = self
            .arrows
            .keys()
            .map(|module| (module.as_str(), self.reach(module)))
            .collect();
        let mut circles: BTreeSet<Vec<String>> = BTreeSet::new();
        for (module, reached) in &reach {
            let back = |other: &&&str| reach.get(**other).is_some_and(|r| r.contains(module));
            let circle: Vec<String> = reached
                .iter()
                .filter(back)
                .map(|m| (*m).to_owned())
                .collect();
            if circle.len() > 1 {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }

    fn reach(&self, module: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut open = vec![module];
        while let Some(module) = open.pop() {
            for next in self.arrows.get(module).into_iter().flatten() {
                if reached.insert(next.as_str()) {
                    open.push(next);
                }
            }
        }
        reached
    }

    /// Arrows that run up, or along a floor.
    fn upward(&self, floors: &[&[&str]]) -> Vec<String> {
        let floor = |module: &str| {
            floors
                .iter()
                .position(|floor| floor.contains(&room(module)))
        };
        let mut upward = Vec::new();
        for (from, targets) in &self.arrows {
            for to in targets.iter().filter(|to| room(to) != room(from)) {
                match (floor(from), floor(to)) {
                    (Some(from_floor), Some(to_floor)) if to_floor < from_floor => {}
                    _ => upward.push(format!("{from} -> {to}")),
                }
            }
        }
        upward
    }
}

/// The first part of a module path: the room that a file is in.
fn room(module: &str) -> &str {
    module.split("::").next().unwrap_or("")
}

/// Whether `inner` is a part of `outer`: their arrows are of one thing.
fn is_part(inner: &str, outer: &str) -> bool {
    inner == outer
        || outer.is_empty()
        || inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.starts_with("::"))
}

/// Every path of the code that begins with `crate` or `super`, trees of `use` spread out. Comments and the
/// tests at a file's end don't count.
fn paths(code: &str) -> Vec<String> {
    let code = code.split("\n#[cfg(test)]\nmod ").next().unwrap_or("");
    let code: String = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '(') {
                continue;
            }
            spread("", &code[at..], &mut found);
        }
    }
    found
}

/// Reads one path, or one tree of paths, from the start of `code`; answers what follows it.
fn spread<'a>(before: &str, code: &'a str, found: &mut Vec<String>) -> &'a str {
    let mut path = before.to_owned();
    let mut code = code.trim_start();
    loop {
        let end = code
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(code.len());
        path.push_str(&code[..end]);
        code = &code[end..];
        let Some(rest) = code.strip_prefix("::") else {
            found.push(path);
            return code;
        };
        path.push_str("::");
        code = rest;
        if let Some(mut inner) = code.strip_prefix('{') {
            loop {
                inner = spread(&path, inner, found).trim_start();
                if let Some(alias) = inner.strip_prefix("as ") {
                    inner = alias.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
                }
                inner = inner.trim_start();
                match inner.strip_prefix(',') {
                    Some(next) if !next.trim_start().starts_with('}') => inner = next,
                    Some(next) => return next.trim_start().strip_prefix('}').unwrap_or(""),
                    None => return inner.strip_prefix('}').unwrap_or(""),
                }
            }
        }
    }
}

fn files(source: &Path) -> Vec<(String, String)> {
    fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "tests") {
                    collect(&path, files);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    collect(source, &mut paths);
    let is_test = |module: &str| {
        let last = module.rsplit("::").next().unwrap_or("");
        last == "tests" || last.ends_with("_tests")
    };
    let module = |path: &Path| {
        let path = path.strip_prefix(source).unwrap().with_extension("");
        let mut parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
        if matches!(parts.last(), Some(&"mod" | &"lib" | &"main")) {
            parts.pop();
        }
        parts.join("::")
    };
    paths
        .iter()
        .map(|path| (module(path), fs::read_to_string(path).unwrap()))
        .filter(|(module, _)| !is_test(module))
        .collect()
}

fn graph(source: &str) -> Graph {
    Graph::of(&files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(source)))
}

#[test]
fn no_circle_ties_files_of_different_rooms_and_none_more_than_two_of_one() {
    let mut bad = Vec::new();
    for (source, _) in CRATES {
        for circle in graph(source).circles() {
            let rooms: BTreeSet<&str> = circle.iter().map(|module| room(module)).collect();
            if rooms.len() > 1 || circle.len() > 2 {
                bad.push(format!("{source}: {}", circle.join(", ")));
            }
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn no_arrow_runs_back_up_the_layers() {
    for (source, floors) in CRATES.iter().filter(|(_, floors)| !floors.is_empty()) {
        let upward = graph(source).upward(floors);
        assert!(upward.is_empty(), "{source}: {upward:#?}");
    }
}

#[test]
fn the_check_sees_an_arrow_that_runs_up_and_a_circle() {
    let file = |module: &str, code: &str| (module.to_owned(), code.to_owned());
    let graph = Graph::of(&[
        file("", "pub mod model; pub mod life;"),
        file(
            "model",
            "use crate::life::{self, apply as go, inner::{deep, Deeper}};",
        ),
        file(
            "life",
            "mod inner;\nuse super::model::Job;\nuse inner::deep;",
        ),
        file(
            "life::inner",
            "use super::apply; fn f() -> crate::model::Job {}",
        ),
        file(
            "judge",
            "// use crate::model::Job;\nuse crate::life::inner::deep;",
        ),
    ]);
    assert_eq!(
        graph.upward(&[&["model"], &["life"], &["judge"]]),
        ["model -> life", "model -> life::inner"]
    );
    assert_eq!(graph.circles(), [["life", "life::inner", "model"]]);
}
