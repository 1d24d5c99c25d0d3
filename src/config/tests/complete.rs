//! Nothing is forgotten: the table of settings, the sections, and the shipped `config.toml` agree.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::config::file;
use crate::config::schema::{KEYS, Kind};
use crate::config::{Config, Loader};

fn shipped() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    std::fs::read_to_string(path).unwrap()
}

/// Paths of all leaves; lists and the policy are one leaf.
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

#[test]
fn the_shipped_file_has_every_setting() {
    let is_setting = |line: &str| {
        let name: String = line
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')
            .collect();
        line.starts_with("[[") || (!name.is_empty() && line[name.len()..].starts_with(" = "))
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
    leaves(&serde_json::to_value(table).unwrap(), "", &mut found);
    assert_eq!(found, keys());
    // The samples are valid, too; only the two ways to give a secret exclude each other.
    let samples: Vec<_> = uncommented
        .iter()
        .filter(|line| !line.starts_with("api_key =") && !line.starts_with("admin_token ="))
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
        in_sample = (in_sample || line.starts_with("# [[")) && !line.is_empty();
        let is_default = line.contains(" = ") && !line.starts_with('#') && !line.starts_with('[');
        if is_default && !in_sample {
            assert!(before.starts_with("# "), "no reason above: {line}");
        }
    }
}

#[test]
fn names_say_their_unit() {
    for key in KEYS {
        let is_duration = ["timeout", "delay", "window", "cool_down", "deadline"]
            .iter()
            .any(|word| key.path.rsplit('.').next().unwrap().contains(word));
        if is_duration && matches!(key.kind, Kind::Whole(_)) {
            assert!(key.path.ends_with("_ms"), "{}", key.path);
        }
    }
}
