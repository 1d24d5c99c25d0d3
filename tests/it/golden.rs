//! Guards: nothing that a user, a program or the next version reads changes unseen. What goes out today stands
//! in `tests/golden/`: answers of the API and webhooks (`wire`), the four set shapes (`shapes`), rows of the
//! store's file (`rows`), and the command line (`cli`). Run these tests with `ONELANE_BLESS=1` to write the files
//! anew after a change that is meant, and read the diff.

mod cli;
mod story;
mod world;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;

/// What fits in so many characters stands on one line.
const LINE_CHARS: usize = 110;
/// So many objects of a list are shown whatever is in them.
const ITEMS_WHOLE: usize = 3;

/// The files of one directory in `tests/golden/`, as they are to be.
struct Golden {
    directory: PathBuf,
    files: BTreeMap<String, String>,
}

impl Golden {
    fn of(directory: &str) -> Self {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        Self {
            directory: golden.join(directory),
            files: BTreeMap::new(),
        }
    }

    fn put(&mut self, name: &str, text: impl Into<String>) {
        // Where the project lies is nobody's business.
        let mut text = text.into().replace(env!("CARGO_MANIFEST_DIR"), ".");
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let before = self.files.insert(name.to_owned(), text);
        assert!(before.is_none(), "two golden files are called {name}");
    }

    /// Writes them anew, and nothing else stays there; or tells what differs.
    fn settle(self) -> Vec<String> {
        let there = fs::read_dir(&self.directory).into_iter().flatten();
        let there: BTreeSet<String> = there
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let stale = there.iter().filter(|name| !self.files.contains_key(*name));
        let path = |name: &str| self.directory.join(name);
        if std::env::var_os("ONELANE_BLESS").is_some() {
            fs::create_dir_all(&self.directory).unwrap();
            stale.for_each(|name| fs::remove_file(path(name)).unwrap());
            for (name, text) in &self.files {
                fs::write(path(name), text).unwrap();
            }
            return Vec::new();
        }
        let stale =
            stale.map(|name| format!("{}: nothing writes it any more", path(name).display()));
        let mut problems: Vec<String> = stale.collect();
        for (name, text) in &self.files {
            let name = path(name);
            match fs::read_to_string(&name) {
                Ok(golden) => problems.extend(first_difference(&name, &golden, text)),
                Err(error) => problems.push(format!("{}: {error}", name.display())),
            }
        }
        problems
    }
}

/// Compares all of them, or writes them anew.
fn check(all: impl IntoIterator<Item = Golden>) {
    let problems: Vec<String> = all.into_iter().flat_map(Golden::settle).collect();
    assert!(
        problems.is_empty(),
        "where it is meant, run with ONELANE_BLESS=1 and read the diff\n{}",
        problems.join("\n")
    );
}

/// The lines of a table in a text file, but for comments.
fn table(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines();
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The first line that differs, in both forms.
fn first_difference(name: &Path, golden: &str, now: &str) -> Option<String> {
    if golden == now {
        return None;
    }
    let lines = golden.lines().chain([""]).zip(now.lines().chain([""]));
    let (at, (was, is)) = lines.enumerate().find(|(_, (was, is))| was != is)?;
    let name = name.display();
    Some(format!("{name}:{}\n  - {was}\n  + {is}", at + 1))
}

/// JSON to be compared line by line: members in the order of their names, numbers as they are spelled, of long
/// lists what shows all fields.
fn pretty(json: &str) -> String {
    lay_out(json, 0)
}

fn lay_out(json: &str, depth: usize) -> String {
    let (open, close, parts) = match json.trim_start().as_bytes().first() {
        Some(b'{') => ('{', '}', members(json, depth)),
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(json).unwrap();
            let items = shortened(items.iter().map(|item| item.get().to_owned()).collect());
            let items = items.iter().map(|item| lay_out(item, depth + 1));
            ('[', ']', items.collect())
        }
        _ => return json.trim().to_owned(),
    };
    let line = format!("{open}{}{close}", parts.join(", "));
    if !line.contains('\n') && line.chars().count() + 2 * depth <= LINE_CHARS {
        return line;
    }
    let (inner, outer) = ("  ".repeat(depth + 1), "  ".repeat(depth));
    let parts = parts.join(&format!(",\n{inner}"));
    format!("{open}\n{inner}{parts}\n{outer}{close}")
}

fn members(json: &str, depth: usize) -> Vec<String> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(json).unwrap();
    members
        .iter()
        .map(|(name, value)| {
            let name = serde_json::to_string(name).unwrap();
            format!("{name}: {}", lay_out(value.get(), depth + 1))
        })
        .collect()
}

/// Of many objects those that show all their fields, and how many others there are.
fn shortened(items: Vec<String>) -> Vec<String> {
    let count = items.len();
    if count <= ITEMS_WHOLE || items.iter().any(|item| !item.starts_with('{')) {
        return items;
    }
    let mut shown = covering(items);
    if count > shown.len() {
        shown.push(format!("\"and {} more\"", count - shown.len()));
    }
    shown
}

/// Of many objects a few that together have every field that any of them has, `null` or not, in their order.
fn covering(rows: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut left: BTreeMap<usize, (String, BTreeSet<String>)> = rows
        .into_iter()
        .map(|row| {
            let mut paths = BTreeSet::new();
            note_paths("", &serde_json::from_str(&row).unwrap(), &mut paths);
            (row, paths)
        })
        .enumerate()
        .collect();
    let mut seen = BTreeSet::new();
    let mut taken = BTreeMap::new();
    loop {
        let news = |(_, paths): &(String, BTreeSet<String>)| paths.difference(&seen).count();
        let best = left
            .iter()
            .max_by_key(|(at, row)| (news(row), Reverse(**at)));
        let Some(at) = best.filter(|(_, row)| news(row) > 0).map(|(at, _)| *at) else {
            return taken.into_values().collect();
        };
        let (row, paths) = left.remove(&at).unwrap();
        seen.extend(paths);
        taken.insert(at, row);
    }
}

fn note_paths(at: &str, value: &serde_json::Value, paths: &mut BTreeSet<String>) {
    use serde_json::Value;
    match value {
        Value::Object(members) => members
            .iter()
            .for_each(|(name, value)| note_paths(&format!("{at}.{name}"), value, paths)),
        Value::Array(items) => items
            .iter()
            .for_each(|item| note_paths(&format!("{at}[]"), item, paths)),
        Value::Null => {
            paths.insert(format!("{at} null"));
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            paths.insert(at.to_owned());
        }
    }
}

/// A list of JSON texts as one JSON text.
fn list(rows: &[String]) -> String {
    pretty(&format!("[{}]", rows.join(",")))
}
