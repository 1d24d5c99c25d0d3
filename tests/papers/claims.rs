//! What the papers tell users exists: links, commands, flags, variables, settings, endpoints, codes, metrics, exit codes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::{quoted, read, root, rust_files};

/// The pages for users, by their path. ARCHITECTURE is for those who change the code; its links are checked alone.
fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned(), "CHANGELOG.md".to_owned()];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name();
        let name = name.to_str().unwrap();
        if name.ends_with(".md") {
            pages.push(format!("docs/{name}"));
        }
    }
    pages.sort();
    assert!(pages.len() > 5, "{pages:?}");
    pages
}

/// A page in its parts.
struct Page {
    path: String,
    /// What stands outside of code blocks.
    prose: String,
    /// Code blocks, each with its language.
    blocks: Vec<(String, String)>,
}

impl Page {
    fn read(path: &str) -> Self {
        let mut page = Self {
            path: path.to_owned(),
            prose: String::new(),
            blocks: Vec::new(),
        };
        let mut in_block = false;
        for line in read(path).lines() {
            if let Some(language) = line.strip_prefix("```") {
                in_block = !in_block;
                if in_block {
                    page.blocks.push((language.to_owned(), String::new()));
                }
                continue;
            }
            let text = match page.blocks.last_mut() {
                Some((_, block)) if in_block => block,
                _ => &mut page.prose,
            };
            text.push_str(line);
            text.push('\n');
        }
        assert!(!in_block, "{path}: a code block has no end");
        page
    }

    /// The names that a heading is linked by.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.prose.lines().filter(|line| line.starts_with('#'));
        headings
            .map(|heading| {
                let text = heading.trim_start_matches('#').trim().to_lowercase();
                let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
                text.chars()
                    .filter(kept)
                    .collect::<String>()
                    .replace(' ', "-")
            })
            .collect()
    }

    /// The first words of the rows of the table below a heading.
    fn rows_below(&self, heading: &str) -> Vec<Vec<&str>> {
        let below = self.prose.split(heading).nth(1).unwrap();
        let rows = below
            .lines()
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'))
            .skip(2);
        rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
            .collect()
    }

    /// Lines for a shell.
    fn shell(&self) -> impl Iterator<Item = &str> {
        let blocks = self.blocks.iter().filter(|(language, _)| language == "sh");
        blocks.flat_map(|(_, block)| block.lines())
    }

    /// Code in the prose and lines for a shell.
    fn code(&self) -> impl Iterator<Item = &str> {
        quoted(&self.prose).chain(self.shell())
    }
}

/// The program, with an environment that says nothing.
fn onelane(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_onelane"))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .output()
        .unwrap()
}

fn told(arguments: &[&str]) -> String {
    let nowhere = tempfile::tempdir().unwrap();
    let output = onelane(nowhere.path(), arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The commands, each with its flags and the commands below it.
#[derive(Default)]
struct Commands(BTreeMap<Vec<String>, (BTreeSet<String>, BTreeSet<String>)>);

impl Commands {
    fn all() -> Self {
        let mut commands = Self::default();
        commands.look(&[]);
        assert!(commands.0.len() > 10, "too few commands");
        commands
    }

    fn look(&mut self, path: &[String]) {
        let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = told(&arguments);
        let flags = help
            .lines()
            .map(str::trim_start)
            .filter(|line| line.starts_with('-'));
        let flags = flags.flat_map(|line| line.split([' ', ',']).take(3));
        let flags = flags
            .filter(|word| word.starts_with("--"))
            .map(str::to_owned);
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let verbs = listed.take_while(|line| !line.is_empty());
        let verbs = verbs.filter_map(|line| line.split_whitespace().next());
        let verbs: BTreeSet<String> = verbs.map(str::to_owned).collect();
        for verb in verbs.iter().filter(|verb| *verb != "help") {
            self.look(&[path, std::slice::from_ref(verb)].concat());
        }
        self.0.insert(path.to_vec(), (flags.collect(), verbs));
    }

    /// What of these arguments does not exist.
    fn unknown<'a>(&self, arguments: &[&'a str]) -> Option<&'a str> {
        let mut path: Vec<String> = Vec::new();
        let mut after_flag = false;
        for word in arguments {
            let (flags, verbs) = &self.0[&path];
            let is_flag = word.starts_with("--");
            match is_flag {
                true if !flags.contains(word.split('=').next().unwrap()) => return Some(word),
                true => {}
                false if verbs.contains(*word) => path.push((*word).to_owned()),
                // A command that only has commands takes nothing but those; a flag may have a value.
                false if !verbs.is_empty() && !after_flag => return Some(word),
                false => {}
            }
            after_flag = is_flag;
        }
        None
    }

    fn has_flag(&self, flag: &str) -> bool {
        self.0.values().any(|(flags, _)| flags.contains(flag))
    }
}

/// The calls of a program in a line of shell: its arguments, each.
fn calls<'a>(line: &'a str, program: &str) -> Vec<Vec<&'a str>> {
    let line = line.split(" #").next().unwrap();
    let segments = line.split(" | ");
    let words = segments.map(|segment| {
        let assigns = |word: &&str| word.contains('=') && !word.starts_with('-');
        segment.split_whitespace().skip_while(assigns).collect()
    });
    words
        .filter(|words: &Vec<&str>| words.first() == Some(&program))
        .map(|words| words[1..].to_vec())
        .collect()
}

#[test]
fn links_between_the_papers_lead_somewhere() {
    let mut papers = pages();
    papers.push("ARCHITECTURE.md".to_owned());
    let mut dead = Vec::new();
    for paper in &papers {
        let folder = Path::new(paper).parent().unwrap();
        for link in Page::read(paper).prose.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => Path::new(paper).to_path_buf(),
                file => folder.join(file),
            };
            let is_there = root().join(&target).exists();
            let has_anchor = || {
                let target = target.to_str().unwrap();
                anchor.is_empty() || Page::read(target).anchors().contains(anchor)
            };
            if !is_there || !has_anchor() {
                dead.push(format!("{paper}: {link}"));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn commands_and_flags_that_the_papers_name_exist() {
    let commands = Commands::all();
    let mut seen = 0;
    let mut missing = Vec::new();
    for page in pages().iter().map(|path| Page::read(path)) {
        for code in page.code() {
            let line = code.replace('\n', " ");
            for arguments in calls(&line, "onelane") {
                seen += 1;
                if let Some(unknown) = commands.unknown(&arguments) {
                    missing.push(format!("{}: {unknown} in `{line}`", page.path));
                }
            }
            // A flag that is named alone.
            let flag = line.split([' ', '=']).next().unwrap();
            if flag.starts_with("--") && flag.len() > 2 && !commands.has_flag(flag) {
                missing.push(format!("{}: `{line}`", page.path));
            }
            for example in line.split("--example ").skip(1) {
                let name = example.split_whitespace().next().unwrap();
                let is_in = |room: &str| root().join(format!("{room}/{name}.rs")).exists();
                if !is_in("examples") && !is_in("actors/examples") {
                    missing.push(format!("{}: example {name}", page.path));
                }
            }
        }
    }
    assert!(seen > 15, "the papers name {seen} commands only");
    assert!(
        missing.is_empty(),
        "no such commands or flags: {missing:#?}"
    );
}

#[test]
fn a_command_that_does_not_exist_would_be_noticed() {
    let commands = Commands::all();
    let unknown = |line: &str| {
        let calls: Vec<Vec<String>> = calls(line, "onelane")
            .into_iter()
            .map(|words| words.into_iter().map(str::to_owned).collect())
            .collect();
        calls.iter().find_map(|words| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            commands.unknown(&words).map(str::to_owned)
        })
    };
    assert_eq!(unknown("onelane db check --repair --store a.redb"), None);
    assert_eq!(unknown("X=1 onelane run a.jsonl --simulate | wc"), None);
    assert_eq!(unknown("onelane brew").as_deref(), Some("brew"));
    assert_eq!(unknown("onelane db brew").as_deref(), Some("brew"));
    assert_eq!(
        unknown("cat a | onelane run - --brew").as_deref(),
        Some("--brew")
    );
    assert_eq!(
        unknown("onelane serve --repair").as_deref(),
        Some("--repair")
    );
}

#[test]
fn environment_variables_that_the_papers_name_are_read() {
    let mut code = String::new();
    for directory in ["src", "actors", "tests"] {
        for file in rust_files(&root().join(directory)) {
            code.push_str(&fs::read_to_string(file).unwrap());
        }
    }
    let is_ours = |word: &&str| word.starts_with("ONELANE_") || word.ends_with("_API_KEY");
    let of_a_name = |c: char| !(c.is_ascii_uppercase() || c == '_');
    let mut seen = BTreeSet::new();
    for page in pages() {
        let text = read(&page);
        for name in text.split(of_a_name).filter(is_ours) {
            assert!(code.contains(&format!("\"{name}\"")), "{page} names {name}");
            seen.insert(name.to_owned());
        }
    }
    assert!(seen.contains("ONELANE_ADMIN_TOKEN"), "{seen:?}");
}

/// Every setting by its path, and the tables of named entries, which a default configuration leaves empty.
fn settings() -> BTreeSet<String> {
    let shown: Value = serde_json::from_str(&told(&["config", "show", "--json"])).unwrap();
    let keys = shown.as_array().unwrap().iter();
    let keys = keys.map(|setting| setting["key"].as_str().unwrap().to_owned());
    let shipped = read("config.toml");
    let lines = shipped.lines().map(|line| line.trim_start_matches("# "));
    let tables = lines.filter_map(|line| line.strip_prefix('[')?.strip_suffix(']'));
    keys.chain(tables.map(str::to_owned)).collect()
}

#[test]
fn settings_that_the_papers_name_exist() {
    let settings = settings();
    let section = |path: &str| Some(path.split_once('.')?.0.to_owned());
    let sections: BTreeSet<String> = settings.iter().filter_map(|path| section(path)).collect();
    let mut seen = 0;
    let mut missing = Vec::new();
    // The page of all settings is made of them, and has their names in JSON, too.
    let by_hand = pages()
        .into_iter()
        .filter(|path| path != "docs/configuration.md");
    for page in by_hand.map(|path| Page::read(&path)) {
        for code in quoted(&page.prose) {
            let name = code.split(" = ").next().unwrap();
            let mut letters = name.bytes();
            let is_path = letters.all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'.'));
            if !is_path || !section(name).is_some_and(|section| sections.contains(&section)) {
                continue;
            }
            seen += 1;
            if !settings.contains(name) {
                missing.push(format!("{}: {name}", page.path));
            }
        }
    }
    assert!(seen > 20, "the papers name {seen} settings only");
    assert!(missing.is_empty(), "no such settings: {missing:#?}");
}

#[test]
fn configurations_in_the_papers_are_taken() {
    let directory = tempfile::tempdir().unwrap();
    for secret in ["webhooks.secret", "ops.secret"] {
        let secret = directory.path().join(secret);
        fs::write(secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    }
    let mut seen = 0;
    for page in pages().iter().map(|path| Page::read(path)) {
        for (language, block) in &page.blocks {
            if language != "toml" || block.starts_with("[dependencies]") {
                continue;
            }
            seen += 1;
            let file = directory.path().join("shown.toml");
            fs::write(&file, block).unwrap();
            let file = file.to_str().unwrap();
            let output = onelane(directory.path(), &["config", "show", "--config", file]);
            assert!(
                output.status.success(),
                "{}: {output:?}\n{block}",
                page.path
            );
        }
    }
    assert!(seen > 3, "the papers show {seen} configurations only");
}

const METHODS: [&str; 4] = ["GET", "PUT", "POST", "DELETE"];

/// Whether a path is that of an endpoint, whose parameters stand in braces.
fn is_path_of(path: &str, endpoint: &str) -> bool {
    let path: Vec<&str> = path.split('?').next().unwrap().split('/').collect();
    let endpoint: Vec<&str> = endpoint.split('/').collect();
    let mut parts = path.iter().zip(&endpoint);
    path.len() == endpoint.len()
        && parts.all(|(part, known)| part == known || known.starts_with('{'))
}

#[test]
fn endpoints_that_the_papers_name_exist() {
    let reference = read("docs/http.md");
    let headings = reference
        .lines()
        .filter_map(|line| line.strip_prefix("### "));
    let endpoints = headings.filter_map(|heading| heading.split_once(' '));
    let endpoints: Vec<(&str, &str)> = endpoints.filter(|(m, _)| METHODS.contains(m)).collect();
    assert!(
        endpoints.len() > 40,
        "{} endpoints are too few",
        endpoints.len()
    );
    let mut seen = 0;
    let mut missing = Vec::new();
    for page in pages().iter().map(|path| Page::read(path)) {
        let exists = |method: Option<&str>, path: &str| {
            let mut of_method = endpoints
                .iter()
                .filter(|(m, _)| method.is_none_or(|one| one == *m));
            of_method.any(|(_, endpoint)| is_path_of(path, endpoint))
        };
        let named = quoted(&page.prose).filter_map(|code| code.split_once(' '));
        let named =
            named.filter(|(method, path)| METHODS.contains(method) && path.starts_with('/'));
        let called = page
            .shell()
            .filter_map(|line| line.split_once("http://127.0.0.1:4700"));
        let called = called.map(|(_, rest)| (None, rest.split(['"', ' ']).next().unwrap()));
        for (method, path) in named
            .map(|(method, path)| (Some(method), path))
            .chain(called)
        {
            seen += 1;
            if !exists(method, path) {
                missing.push(format!(
                    "{}: {} {path}",
                    page.path,
                    method.unwrap_or("curl")
                ));
            }
        }
    }
    assert!(seen > 30, "the papers name {seen} endpoints only");
    assert!(missing.is_empty(), "no such endpoints: {missing:#?}");
}

#[test]
fn the_table_of_codes_is_the_one_in_force() {
    let policy: Value = serde_json::from_str(&told(&["policy", "--json"])).unwrap();
    let mut shipped: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for rule in policy["policy"].as_array().unwrap() {
        let (class, code) = (
            rule["class"].as_str().unwrap(),
            rule["code"].as_str().unwrap(),
        );
        // The answer's own code decides.
        if class != "map_by_inner_code" {
            shipped
                .entry(class.to_owned())
                .or_default()
                .insert(code.to_owned());
        }
    }
    let page = Page::read("docs/failures.md");
    let told = page.rows_below("## Codes by class").into_iter().map(|row| {
        let codes = row[1]
            .split(", ")
            .map(|code| code.trim_matches('`').to_owned());
        (row[0].trim_matches('`').to_owned(), codes.collect())
    });
    assert_eq!(
        told.collect::<BTreeMap<String, BTreeSet<String>>>(),
        shipped
    );
    let classes = page.rows_below("## What each class does");
    let classes: BTreeSet<&str> = classes.iter().map(|row| row[0].trim_matches('`')).collect();
    assert!(
        shipped.keys().map(String::as_str).eq(classes),
        "a class is not explained"
    );
}

#[test]
fn metrics_that_the_papers_name_exist() {
    let golden: Value = serde_json::from_str(&read("tests/golden/wire/metrics.json")).unwrap();
    let answer: BTreeSet<&str> = golden["5 answer"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let page = Page::read("docs/operating.md");
    let rows = page.rows_below("## Metrics");
    let named: BTreeSet<&str> = rows.iter().flat_map(|row| quoted(row[0])).collect();
    assert_eq!(named, answer);
}

#[test]
fn exit_codes_that_the_papers_name_are_those_of_the_help() {
    let help = told(&["--help"]);
    let told = help
        .lines()
        .skip_while(|line| *line != "Exit codes:")
        .skip(1);
    let told: Vec<&str> = told
        .map_while(|line| line.split_whitespace().next())
        .collect();
    let page = Page::read("docs/operating.md");
    let below = page.prose.split("| exit code | meaning |").nth(1).unwrap();
    let rows = below
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let named: Vec<&str> = rows
        .map(|row| row.split('|').nth(1).unwrap().trim())
        .collect();
    assert_eq!(named, told);
}

#[test]
fn clients_that_the_papers_name_are_installed_in_that_version() {
    let lists =
        ["sdks", "litellm", "zhipuai"].map(|list| format!("tests/clients/python/{list}.txt"));
    let mut pinned: BTreeSet<String> = lists
        .iter()
        .flat_map(|list| read(list).lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let node: Value = serde_json::from_str(&read("tests/clients/node/package.json")).unwrap();
    for (name, version) in node["dependencies"].as_object().unwrap() {
        pinned.insert(format!("{name}=={}", version.as_str().unwrap()));
    }
    let page = Page::read("docs/gateway.md");
    let rows = page.rows_below("## Clients that are tested");
    assert_eq!(rows.len(), 8);
    for row in rows {
        let named = format!("{}=={}", row[0].trim_matches('`'), row[1]);
        assert!(pinned.contains(&named), "{named} is not what is installed");
    }
}
