//! Nothing is forgotten: the table of settings, the sections, and the shipped `config.toml` agree.

use std::collections::BTreeSet;
use std::path::Path;

use onelane_core::model::{BreakerRule, FailureClass, JobRule, LaneRule};
use serde_json::Value;

use crate::config::file;
use crate::config::schema::{KEYS, Kind, json_path};
use crate::config::{Config, Loader, NamedLaneSection};

fn shipped() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    std::fs::read_to_string(path).unwrap()
}

/// Paths of all leaves; lists, and all entries under names of the operator's own, are one leaf.
fn leaves(value: &Value, prefix: &str, found: &mut BTreeSet<String>) {
    let whole = KEYS.iter().any(|key| key.path == prefix);
    match value {
        Value::Object(object) if !whole => {
            for (name, value) in object {
                let path = if prefix.is_empty() {
                    name.clone()
                } else {
                    format!("{prefix}.{name}")
                };
                leaves(value, &path, found);
            }
        }
        _ => {
            found.insert(prefix.to_owned());
        }
    }
}

fn keys() -> BTreeSet<String> {
    KEYS.iter().map(|key| key.path.to_owned()).collect()
}

#[test]
fn the_table_of_settings_is_what_the_sections_hold() {
    let mut found = BTreeSet::new();
    leaves(
        &serde_json::to_value(Config::default()).unwrap(),
        "",
        &mut found,
    );
    assert_eq!(found, keys());
    assert_eq!(keys().len(), KEYS.len(), "a path stands twice");
    let json: Vec<_> = KEYS.iter().filter_map(|key| key.json).collect();
    let distinct: BTreeSet<_> = json.iter().collect();
    assert_eq!(distinct.len(), json.len(), "a name of the API stands twice");
}

#[test]
fn the_shipped_file_says_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    let loaded = Loader::new(|_| None)
        .config_file(Some(path))
        .load()
        .unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

/// The names inside an entry of the file.
fn found_in(table: &toml::Table, section: &str, name: &str) -> BTreeSet<String> {
    let entry = table[section][name].as_table().unwrap();
    entry.keys().cloned().collect()
}

#[test]
fn the_settings_of_an_entry_are_what_its_section_holds() {
    let members = |path: &str| {
        let key = KEYS.iter().find(|key| key.path == path).unwrap();
        key.members().iter().map(|m| m.path.to_owned())
    };
    let fields = |section: Value| section.as_object().unwrap().keys().cloned().collect();
    let lane = serde_json::to_value(NamedLaneSection::default()).unwrap();
    let fields: BTreeSet<String> = fields(lane);
    assert_eq!(members("lanes").collect::<BTreeSet<_>>(), fields);
    // A lane of its own has every rule that the default lane has, under the same names.
    for name in fields.iter().filter(|name| *name != "models") {
        let of_lane = format!("lane.{name}");
        let key = KEYS.iter().find(|key| key.path == of_lane).unwrap();
        assert_eq!(
            json_path(&format!("lanes.x.{name}")),
            key.json.map(|json| format!("lanes.x.{json}"))
        );
    }
}

#[test]
fn every_class_and_rule_can_be_said_of_a_code() {
    let key = KEYS.iter().find(|key| key.path == "policy").unwrap();
    let check = |member: &str, names: &[&str]| {
        let member = key.members().iter().find(|m| m.path == member).unwrap();
        let Kind::OneOf(words) = member.kind else {
            panic!("{}", member.path)
        };
        assert_eq!(words, names);
    };
    check("class", &FailureClass::ALL.map(FailureClass::name));
    check("job", &JobRule::ALL.map(JobRule::name));
    check("lane", &LaneRule::ALL.map(LaneRule::name));
    check("breaker", &BreakerRule::ALL.map(BreakerRule::name));
}

#[test]
fn the_shipped_file_has_every_setting() {
    let is_setting = |line: &str| {
        let name: String = line
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')
            .collect();
        let is_quoted = line.starts_with('"') && line.contains("\" = ");
        line.starts_with('[')
            || is_quoted
            || (!name.is_empty() && line[name.len()..].starts_with(" = "))
    };
    let uncommented: Vec<String> = shipped()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if is_setting(rest) => rest.to_owned(),
            _ => line.to_owned(),
        })
        .collect();
    let table: toml::Table = uncommented.join("\n").parse().unwrap();
    let mut found = BTreeSet::new();
    leaves(&serde_json::to_value(&table).unwrap(), "", &mut found);
    assert_eq!(found, keys());
    let lane: BTreeSet<_> = found_in(&table, "lanes", "big");
    let settings = NamedLaneSection::default();
    let settings = serde_json::to_value(settings).unwrap();
    let settings = settings.as_object().unwrap().keys().cloned();
    assert_eq!(lane, settings.collect());
    // The samples are valid, too; only the two ways to give a secret exclude each other.
    let samples: Vec<_> = uncommented
        .iter()
        .filter(|line| {
            let given = ["api_key =", "admin_token =", "secret ="];
            !given.iter().any(|name| line.starts_with(name))
        })
        .map(String::as_str)
        .collect();
    file::parse(Path::new("config.toml"), &samples.join("\n")).unwrap();
}

#[test]
fn every_setting_of_the_shipped_file_says_why() {
    let text = shipped();
    let lines: Vec<_> = text.lines().collect();
    let mut in_sample = false;
    for pair in lines.windows(2) {
        let [before, line] = pair else { continue };
        in_sample = (in_sample || line.starts_with("# [")) && !line.is_empty();
        let is_default = line.contains(" = ") && !line.starts_with('#') && !line.starts_with('[');
        if is_default && !in_sample {
            assert!(before.starts_with("# "), "no reason above: {line}");
        }
    }
}

#[test]
fn names_say_their_unit() {
    for key in KEYS {
        let is_duration = [
            "timeout",
            "delay",
            "window",
            "cool_down",
            "deadline",
            "spacing",
            "ageing",
            "probe",
            "trial",
        ]
        .iter()
        .any(|word| key.path.rsplit('.').next().unwrap().contains(word));
        if is_duration && matches!(key.kind, Kind::Whole(_)) {
            assert!(key.path.ends_with("_ms"), "{}", key.path);
        }
    }
}
