//! Guards: the page about logs names every line that the program may write, with its fields, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{is_blessing, quoted, read, root, rust_files};

const PAGE: &str = "docs/logs.md";
/// What stands behind it on the page is made from the code.
const MADE: &str =
    "<!-- What follows is made from the code: ONELANE_BLESS=1 cargo test --test papers -->\n";
const LEVELS: [&str; 4] = ["error", "warn", "info", "debug"];

/// A line that may be written.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    level: usize,
    message: String,
    fields: Vec<String>,
}

/// The arguments of a macro from behind its parenthesis on, as they stand.
fn arguments(code: &str) -> Vec<String> {
    let (mut all, mut one, mut depth) = (Vec::new(), String::new(), 0);
    let mut letters = code.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                one.push('"');
                while let Some(letter) = letters.next() {
                    match letter {
                        // A line that goes on in the next one.
                        '\\' if letters.peek() == Some(&'\n') => {
                            while letters.next_if(|c| c.is_whitespace()).is_some() {}
                        }
                        '\\' => one.extend(letters.next()),
                        letter => one.push(letter),
                    }
                    if letter == '"' {
                        break;
                    }
                }
                continue;
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth > 0 => depth -= 1,
            ')' => break,
            ',' if depth == 0 => {
                all.push(std::mem::take(&mut one));
                continue;
            }
            _ => {}
        }
        one.push(letter);
    }
    all.push(one);
    let trimmed = all.iter().map(|one| one.trim().to_owned());
    trimmed.filter(|one| !one.is_empty()).collect()
}

/// The lines that a file writes.
fn lines(code: &str) -> Vec<Line> {
    // Tests of the file itself stand at its end.
    let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut lines = Vec::new();
    for (level, name) in LEVELS.iter().enumerate() {
        for call in code.split(&format!("tracing::{name}!(")).skip(1) {
            let arguments = arguments(call);
            let at = arguments.iter().position(|one| one.starts_with('"'));
            let at = at.unwrap_or_else(|| panic!("a line without words: {arguments:?}"));
            let field = |argument: &String| {
                let name = argument.split('=').next().unwrap().trim();
                name.trim_start_matches(['%', '?']).to_owned()
            };
            lines.push(Line {
                level,
                message: arguments[at].trim_matches('"').to_owned(),
                fields: arguments[..at].iter().map(field).collect(),
            });
        }
    }
    lines
}

/// Every line of the program, but those of the simulator, which is no part of a lane.
fn all_lines() -> BTreeSet<Line> {
    let directories = ["src", "actors/src", "actors/core/src"];
    let files = directories
        .into_iter()
        .flat_map(|directory| rust_files(&root().join(directory)));
    let is_of_a_lane = |path: &Path| {
        let path = path.strip_prefix(root()).unwrap().display().to_string();
        !["/simulator/", "/tests", "/testing/"]
            .iter()
            .any(|part| path.contains(part))
    };
    files
        .filter(|path| is_of_a_lane(path))
        .flat_map(|path| lines(&fs::read_to_string(path).unwrap()))
        .collect()
}

fn table(lines: &BTreeSet<Line>) -> String {
    let mut table = "\n| level | line | fields |\n|---|---|---|\n".to_owned();
    for line in lines {
        let fields = line.fields.iter().map(|field| format!("`{field}`"));
        let message = line.message.replace('|', "\\|");
        table += &format!(
            "| {} | {message} | {} |\n",
            LEVELS[line.level],
            fields.collect::<Vec<_>>().join(", ")
        );
    }
    table
}

#[test]
fn the_page_of_the_log_names_every_line_that_there_is() {
    let lines = all_lines();
    assert!(lines.len() > 70, "{lines:#?}");
    let page = read(PAGE);
    let (head, _) = page.split_once(MADE).expect("the page has its mark");
    let made = format!("{head}{MADE}{}", table(&lines));
    if is_blessing() {
        fs::write(root().join(PAGE), &made).unwrap();
    }
    assert!(
        read(PAGE) == made,
        "{PAGE} is not what the code writes; write it anew with ONELANE_BLESS=1"
    );
}

#[test]
fn every_field_of_a_line_stands_on_the_page_and_means_one_thing() {
    let page = read(PAGE);
    let (head, _) = page.split_once(MADE).expect("the page has its mark");
    let rows = head.lines().filter(|line| line.starts_with("| `"));
    let mut told: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        let names = row.split('|').nth(1).unwrap();
        quoted(names).for_each(|name| *told.entry(name).or_default() += 1);
    }
    let twice: Vec<_> = told.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let lines = all_lines();
    let used: BTreeSet<&str> = lines
        .iter()
        .flat_map(|l| &l.fields)
        .map(String::as_str)
        .collect();
    let told: BTreeSet<&str> = told.into_keys().collect();
    assert_eq!(used, told);
    // It is what the line itself is called in JSON.
    assert!(!used.contains("message"));
}

#[test]
fn a_line_is_read_as_it_is_written() {
    let code = "tracing::warn!(%job_id, code = failure.code.as_str(), holds = list(&[1, 2]), \"a, (b) \\\n    c: {}\", d);";
    let line = Line {
        level: 1,
        message: "a, (b) c: {}".to_owned(),
        fields: ["job_id", "code", "holds"].map(str::to_owned).to_vec(),
    };
    assert_eq!(lines(code), [line]);
}
