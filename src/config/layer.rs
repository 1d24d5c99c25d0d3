//! One layer of the configuration: some settings, each with who said it. Layers put on top of each
//! other are the configuration.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::error::{Fault, Origin, Position};
use super::path::{inside, split_first};

/// A value and who said it. Its `Debug` does not show the value, for it may be a secret.
#[derive(Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
    pub(crate) position: Option<Position>,
}

impl Entry {
    pub(crate) fn new(value: Value, origin: Origin) -> Self {
        Self {
            value,
            origin,
            position: None,
        }
    }

    /// What is wrong with the value, where it was said.
    pub(crate) fn fault(&self, key: &str, problem: String) -> Fault {
        Fault {
            position: self.position,
            ..Fault::of(self.origin.clone(), key, problem)
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.origin, f)
    }
}

/// Settings by their path in `config.toml`. Holds secrets in the clear.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Layer(BTreeMap<String, Entry>);

/// A setting that is either given or named as a file; the later word of the two counts.
pub(crate) const SECRETS: [(&str, &str); 3] = [
    ("glm.api_key", "glm.api_key_file"),
    ("server.admin_token", "server.admin_token_file"),
    ("webhooks.secret", "webhooks.secret_file"),
];

/// The same inside named entries: where they are, and the two names in each.
pub(crate) const NAMED_SECRETS: (&str, &str, &str) =
    ("webhooks.endpoints", "secret", "secret_file");

/// The settings of [`SECRETS`], and those of [`NAMED_SECRETS`] of which these paths name the file.
pub(crate) fn secrets_of<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    let (group, given, file) = NAMED_SECRETS;
    let fixed = SECRETS.map(|(given, file)| (given.to_owned(), file.to_owned()));
    let named = paths.filter_map(|path| {
        let entry = path.strip_suffix(file)?.strip_suffix('.')?;
        inside(group, entry).map(|_| (format!("{entry}.{given}"), path.to_owned()))
    });
    fixed.into_iter().chain(named).collect()
}

impl Layer {
    pub(crate) fn get(&self, path: &str) -> Option<&Entry> {
        self.0.get(path)
    }

    pub(crate) fn contains(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    pub(crate) fn insert(&mut self, path: impl Into<String>, entry: Entry) {
        self.0.insert(path.into(), entry);
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Puts another layer on top: what it says counts.
    pub(crate) fn cover(&mut self, above: &Self) {
        for (path, entry) in &above.0 {
            for (given, file) in SECRETS {
                if path == given {
                    self.0.remove(file);
                }
                if path == file {
                    self.0.remove(given);
                }
            }
            self.0.insert(path.clone(), entry.clone());
        }
    }

    /// As nested objects, the shape of `config.toml`.
    pub(crate) fn nested(&self) -> Map<String, Value> {
        nest(
            self.0
                .iter()
                .map(|(path, entry)| (path.as_str(), &entry.value)),
        )
    }
}

/// Puts values at dotted paths into nested objects. No path is both a value and a group.
pub(crate) fn nest<'a>(values: impl Iterator<Item = (&'a str, &'a Value)>) -> Map<String, Value> {
    let mut root = Map::new();
    for (path, value) in values {
        put(&mut root, path, value.clone());
    }
    root
}

fn put(object: &mut Map<String, Value>, path: &str, value: Value) {
    let (name, rest) = split_first(path);
    let Some(rest) = rest else {
        object.insert(name, value);
        return;
    };
    let inner = object
        .entry(name)
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(inner) = inner {
        put(inner, rest, value);
    }
}
