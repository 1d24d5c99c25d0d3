//! Guards: `config.toml` and `docs/configuration.md` say of every setting what its field says. They are made
//! here, from the fields; with `ONELANE_BLESS=1` a test writes what it would otherwise compare.

use std::fmt::Write as _;
use std::path::Path;

use onelane_core::model::setting::{Field, Group, KeyPath, Kind, Secrets, Setting as _, spelled};
use onelane_core::section;
use serde_json::{Value, json};

use crate::config::json_schema::{json_schema, of_leaves};
use crate::config::loader::{KEY_VARIABLES, VARIABLES};
use crate::config::schema::{LEAVES, Leaf, gather, json_name};
use crate::config::{Config, file};

/// Whether samples are commented out, as they are shipped, or stand as if they were meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Samples {
    Commented,
    Meant,
}

const HEAD: &str = "\
# Every setting of onelane with its default. What is commented out has no default: it says how it may look.
#
# A flag wins over the environment, that over a change made while running (PUT
# /api/admin/glm/config), that over this file, this file over the defaults:
# `onelane config show` says where each value comes from.
# Names end in their unit; paths are relative to the working directory.
";

/// The text of `config.toml`.
fn config_toml(samples: Samples) -> String {
    let mut text = HEAD.to_owned();
    if let Kind::Group(group) = Config::kind() {
        tables(&group, &KeyPath::default(), samples, &mut text);
    }
    text
}

/// The groups inside a group, each with its settings first.
fn tables(group: &Group, at: &KeyPath, samples: Samples, text: &mut String) {
    for field in &group.0 {
        let path = field.path_in(at);
        match &field.kind {
            Kind::Group(inner) => {
                text.push('\n');
                comment(&field.doc, text);
                let _ = writeln!(text, "[{path}]");
                settings(inner, samples, text);
                tables(inner, &path, samples, text);
            }
            Kind::Named { entry, .. } => {
                text.push('\n');
                comment(&field.doc, text);
                let sample = field.sample.unwrap_or("NAME");
                match entry.members() {
                    Some(members) => {
                        let head = format!("[{}]", path.join(sample));
                        sample_of(&head, members, samples, text);
                        built_in(field, members, &path, text);
                    }
                    None => {
                        let _ = writeln!(text, "[{path}]\n{}{sample}", mark(samples));
                    }
                }
            }
            Kind::Rows { group, .. } => {
                text.push('\n');
                comment(&field.doc, text);
                sample_of(&format!("[[{path}]]"), group, samples, text);
            }
            _ => {}
        }
    }
}

fn mark(samples: Samples) -> &'static str {
    match samples {
        Samples::Commented => "# ",
        Samples::Meant => "",
    }
}

/// A table that the operator may write, as it may look.
fn sample_of(head: &str, group: &Group, samples: Samples, text: &mut String) {
    let mut table = format!("{head}\n");
    settings(group, Samples::Meant, &mut table);
    for line in table.lines() {
        let _ = writeln!(text, "{}{line}", mark(samples));
    }
}

/// The entries that are there without anybody writing them, with what they say.
fn built_in(field: &Field, members: &Group, at: &KeyPath, text: &mut String) {
    for (name, entry) in field.default.as_object().into_iter().flatten() {
        let _ = writeln!(text, "\n[{}]", at.join(name));
        for member in &members.0 {
            if let Some(value) = member.find(entry).filter(|value| !value.is_null()) {
                let _ = writeln!(text, "{} = {}", spelled(&member.name), in_toml(&value));
            }
        }
    }
}

/// The settings of a group that are no groups.
fn settings(group: &Group, samples: Samples, text: &mut String) {
    // Beside settings that every entry has, those that only some may have are commented out.
    let all_left_out = group.0.iter().all(|field| field.is_left_out);
    for field in &group.0 {
        if matches!(
            field.kind,
            Kind::Group(_) | Kind::Named { .. } | Kind::Rows { .. }
        ) {
            continue;
        }
        comment(&field.doc, text);
        if let Some(takes) = takes(&field.kind, &field.doc.concat()) {
            comment(&wrapped(&format!("Takes {takes}.")), text);
        }
        let name = spelled(&field.name);
        let _ = match field.sample {
            Some(sample) if field.is_left_out && !all_left_out => {
                writeln!(text, "# {name} = {sample}")
            }
            Some(sample) => writeln!(text, "{}{name} = {sample}", mark(samples)),
            None => writeln!(text, "{name} = {}", in_toml(&field.default)),
        };
    }
}

/// The bounds of a number that its type does not have by itself, and words that the doc does not name.
fn takes(kind: &Kind, doc: &str) -> Option<String> {
    match kind {
        Kind::Word(words) if words.iter().all(|word| doc.contains(word)) => None,
        Kind::Word(words) => {
            let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
            Some(format!("one of {}", words.join(", ")))
        }
        Kind::Whole { min, max, .. } if *min <= 1 && *max >= u64::from(u32::MAX) => None,
        Kind::Whole { .. } | Kind::Number { .. } => Some(kind.in_words()),
        _ => None,
    }
}

/// Lines of a readable length.
fn wrapped(words: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words.split_inclusive(' ') {
        if lines.last().unwrap().len() + word.len() > 100 {
            lines.push(String::new());
        }
        lines.last_mut().unwrap().push_str(word);
    }
    lines.iter().map(|line| line.trim().to_owned()).collect()
}

fn comment(lines: &[String], text: &mut String) {
    for line in lines {
        let _ = writeln!(text, "# {line}");
    }
}

/// A default in TOML.
fn in_toml(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => format!("{:?}", number.as_f64().unwrap_or(0.0)),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(in_toml).collect();
            format!("[{}]", items.join(", "))
        }
        value => value.to_string(),
    }
}

/// The text of `docs/configuration.md`.
fn configuration_md() -> String {
    let mut text = DOCS_HEAD.to_owned();
    text.push_str("| variable | sets |\n|---|---|\n");
    for (variable, setting) in VARIABLES {
        let _ = writeln!(text, "| `{variable}` | `{setting}` |");
    }
    let keys = KEY_VARIABLES
        .map(|name| format!("`{name}`"))
        .join(", else ");
    let _ = writeln!(text, "| {keys} | `glm.api_key` |");
    let top = KeyPath::default();
    if let Kind::Group(group) = Config::kind() {
        let leaves = leaves_of(group.clone());
        sections(&group, &top, &leaves, &mut text);
    }
    text
}

const DOCS_HEAD: &str = "\
# Configuration

Every setting, as the code describes it. [config.toml](../config.toml) has them all with their defaults, to be copied and edited.

A flag wins over the environment, that over a change made while the program runs, that over the file, the file over the
defaults; `onelane config show` says where each value comes from. The file is the one that `--config` or `ONELANE_CONFIG` names, else
`onelane.toml`, else `config.toml` in the working directory.

The column *in the API* has the name in `GET` and `PUT /api/admin/glm/config`. A `PUT` takes a part of what `GET` shows: it is checked,
stored and in force at once, without a restart; `null` takes a stored change back. A setting without a name there is fixed while the
program runs. Times are milliseconds in both.

";

fn leaves_of(group: Group) -> Vec<Leaf> {
    let (top, mut leaves) = (KeyPath::default(), Vec::new());
    gather(group, &top, Some(&top), &mut leaves);
    leaves
}

fn sections(group: &Group, at: &KeyPath, leaves: &[Leaf], text: &mut String) {
    for field in &group.0 {
        let path = field.path_in(at);
        let (head, members) = match &field.kind {
            Kind::Group(inner) => (format!("[{path}]"), inner),
            Kind::Named { entry, .. } if entry.members().is_some() => {
                (format!("[{path}.NAME]"), entry.members().unwrap())
            }
            Kind::Named { .. } => {
                section(&format!("[{path}]"), field, text);
                let json = leaves
                    .iter()
                    .find(|leaf| leaf.toml == path)
                    .and_then(|leaf| leaf.json.as_ref());
                let json = json.map(|json| format!(" In the API: `{json}`."));
                let sample = field.sample.unwrap();
                let _ = writeln!(text, "Such as `{sample}`.{}", json.unwrap_or_default());
                continue;
            }
            Kind::Rows { group, .. } => (format!("[[{path}]]"), group),
            _ => continue,
        };
        section(&head, field, text);
        text.push_str(
            "| setting | in the API | default | takes | what it is |\n|---|---|---|---|---|\n",
        );
        for member in &members.0 {
            row(member, &path, leaves, text);
        }
        let mut entries = String::new();
        if matches!(field.kind, Kind::Named { .. }) {
            built_in(field, members, &path, &mut entries);
        }
        if !entries.is_empty() {
            let _ = writeln!(text, "\nBuilt in:\n\n```toml{entries}```");
        }
        if let Kind::Group(inner) = &field.kind {
            sections(inner, &path, leaves, text);
        }
    }
}

fn section(head: &str, field: &Field, text: &mut String) {
    let _ = write!(text, "\n## `{head}`\n\n{}\n\n", field.doc.join("\n"));
}

fn row(member: &Field, at: &KeyPath, leaves: &[Leaf], text: &mut String) {
    if matches!(
        member.kind,
        Kind::Group(_) | Kind::Named { .. } | Kind::Rows { .. }
    ) {
        return;
    }
    let path = member.path_in(at);
    // A setting of an entry or a row is called by its name inside it.
    let json = match leaves.iter().find(|leaf| path.is_in(&leaf.toml)) {
        Some(leaf) if leaf.toml == path => leaf.json.as_ref().map(KeyPath::to_string),
        Some(leaf) => leaf.json.as_ref().map(|_| json_name(&member.name)),
        None => None,
    };
    let default = match &member.default {
        Value::Null => String::new(),
        Value::String(text) if text.is_empty() => String::new(),
        value => format!("`{}`", in_toml(value)),
    };
    let _ = writeln!(
        text,
        "| `{}` | {} | {default} | {} | {} |",
        member.name,
        json.map(|json| format!("`{json}`")).unwrap_or_default(),
        member.kind.in_words(),
        member.doc.join(" "),
    );
}

/// Compares a file with what it should be, or writes it.
fn check_or_bless(path: &str, expected: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("ONELANE_BLESS").is_some() {
        std::fs::write(&file, expected).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = found.lines().zip(expected.lines()).find(|(a, b)| a != b);
    assert!(
        found == expected,
        "{path} is not what the settings say (ONELANE_BLESS=1 writes it), first here: {differs:?}"
    );
}

#[test]
fn the_shipped_file_is_what_the_settings_say() {
    check_or_bless("config.toml", &config_toml(Samples::Commented));
}

#[test]
fn the_paper_of_the_settings_is_what_they_say() {
    check_or_bless("docs/configuration.md", &configuration_md());
}

#[test]
fn the_names_of_the_settings_stay() {
    let mut lines = Vec::new();
    for leaf in LEAVES.iter() {
        let told = |path: Option<&KeyPath>| path.map_or("-".to_owned(), KeyPath::to_string);
        match &leaf.field.kind {
            Kind::Named { entry, .. } => {
                let json = leaf.json.as_ref().map(|json| json.join("NAME"));
                let toml = leaf.toml.join("NAME");
                let Some(group) = entry.members() else {
                    lines.push(format!("{toml} {}\n", told(json.as_ref())));
                    continue;
                };
                for member in &group.0 {
                    let json = json.as_ref().map(|json| json.join(json_name(&member.name)));
                    lines.push(format!(
                        "{} {}\n",
                        toml.join(&*member.name),
                        told(json.as_ref())
                    ));
                }
            }
            _ => lines.push(format!("{} {}\n", leaf.toml, told(leaf.json.as_ref()))),
        }
    }
    lines.sort();
    check_or_bless("src/config/tests/golden/names.txt", &lines.concat());
}

#[test]
fn the_shipped_file_has_every_setting() {
    // The samples are meant here; only the two ways to give a secret exclude each other.
    let is_secret = |line: &&str| {
        let given = [
            "api_key =",
            "admin_token =",
            "viewer_token =",
            "secret =",
            "headers =",
        ];
        given.iter().any(|name| line.starts_with(name))
    };
    let text = config_toml(Samples::Meant);
    let samples: Vec<_> = text.lines().filter(|line| !is_secret(line)).collect();
    let layer = file::parse(Path::new("config.toml"), &samples.join("\n")).unwrap();
    let missing = LEAVES.iter().filter(|leaf| {
        let is_there = layer.paths().any(|path| path.is_in(&leaf.toml));
        !is_there && !matches!(leaf.field.kind, Kind::Secret(_))
    });
    let missing: Vec<_> = missing.map(|leaf| &leaf.toml).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

section! {
    /// A section that only this test knows.
    pub struct Tea {
        /// How long it draws.
        draw_ms: u64 = 180_000 => [within(1..=600_000)];
        /// What goes into it.
        with: Vec<String> = vec!["milk".to_owned()];
        /// The cup it is drunk from.
        cup: Cup = Cup { ml: 200 } => [flat("cup_")];
        /// What it is drunk from when nobody looks.
        secret_cup: Option<String> = None => [sample("\"mug\"").fixed()];
    }
}

section! {
    /// A flat part of it.
    pub struct Cup {
        /// It holds so much.
        ml: u32 = 250;
    }
}

section! {
    /// What has it.
    pub struct Table {
        /// What is drunk.
        tea: Tea = Tea::default();
    }
}

#[test]
fn a_setting_shows_up_wherever_settings_do_by_its_field_alone() {
    let Kind::Group(table) = Table::kind() else {
        panic!()
    };
    let mut toml = String::new();
    tables(&table, &KeyPath::default(), Samples::Commented, &mut toml);
    assert_eq!(
        toml,
        "\n# What is drunk.\n[tea]\n# How long it draws.\n# Takes 1 to 600000 milliseconds (10 minutes).\n\
         draw_ms = 180000\n# What goes into it.\nwith = [\"milk\"]\n# The cup it is drunk from.\n# It holds so much.\ncup_ml = 200\n# What it is drunk from when nobody looks.\n# secret_cup = \"mug\"\n"
    );
    let leaves = leaves_of(table.clone());
    let mut paper = String::new();
    sections(&table, &KeyPath::default(), &leaves, &mut paper);
    let row = "| `draw_ms` | `tea.draw` | `180000` | 1 to 600000 milliseconds (10 minutes) | How long it draws. |\n";
    assert!(paper.contains(row), "{paper}");
    let schema = of_leaves(&leaves);
    let draw = json!({"type": "integer", "minimum": 1, "maximum": 600_000, "default": 180_000,
        "description": "How long it draws."});
    assert_eq!(schema["properties"]["tea"]["properties"]["draw"], draw);
    assert_eq!(
        schema["properties"]["tea"]["properties"]["secretCup"],
        Value::Null
    );
    let written = Table::default().write(Secrets::Masked);
    assert_eq!(
        written,
        json!({"tea": {"draw_ms": 180_000, "with": ["milk"], "cup_ml": 200, "secret_cup": null}})
    );
    let taken = Table::take(&json!({"tea": {"cup_ml": 5}})).unwrap();
    assert_eq!((taken.tea.cup.ml, taken.tea.draw_ms), (5, 180_000));
    // What nobody says is as the field says it, not as the type of the part does.
    let taken = Table::take(&json!({"tea": {"draw_ms": 5}})).unwrap();
    assert_eq!((taken.tea.cup.ml, taken.tea.draw_ms), (200, 5));
}

/// The names of all members of an object and those of its members.
fn shape(value: &Value, members: &dyn Fn(&Value) -> Option<Value>) -> Value {
    let inner = members(value).and_then(|inner| inner.as_object().cloned());
    let Some(inner) = inner else {
        return Value::Null;
    };
    let inner = inner
        .iter()
        .map(|(name, value)| (name.clone(), shape(value, members)));
    Value::Object(inner.collect())
}

#[test]
fn the_schema_has_what_the_api_shows() {
    let loaded = super::Place::new().load();
    let mut view = serde_json::to_value(loaded.view()).unwrap();
    let schema = shape(&json_schema(), &|schema| schema.get("properties").cloned());
    // Of entries under names of the operator's own none is there, but for rules that are built in.
    view["alerts"]
        .as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_object());
    let shown = shape(&view, &|value| {
        Some(value.clone()).filter(|v| *v != json!({}))
    });
    assert_eq!(shown, schema);
}
