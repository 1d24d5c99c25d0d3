//! One layer of the configuration: some settings, each with who said it. Layers put on top of each
//! other are the configuration.

use std::collections::BTreeMap;
use std::fmt;

use onelane_core::model::setting::{KeyPath, Problem};
use serde_json::{Map, Value};

use super::error::{Origin, Position, WrongValue};
use super::schema::{nest, secret_of_file, twin};

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
    pub(crate) fn wrong_value(&self, path: &KeyPath, problem: impl Into<Problem>) -> WrongValue {
        WrongValue {
            position: self.position,
            ..WrongValue::of(self.origin.clone(), path.clone(), problem)
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
pub(crate) struct Layer(BTreeMap<KeyPath, Entry>);

impl Layer {
    pub(crate) fn get(&self, path: &KeyPath) -> Option<&Entry> {
        self.0.get(path)
    }

    pub(crate) fn contains(&self, path: &KeyPath) -> bool {
        self.0.contains_key(path)
    }

    pub(crate) fn insert(&mut self, path: KeyPath, entry: Entry) {
        self.0.insert(path, entry);
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &KeyPath> {
        self.0.keys()
    }

    /// The settings inside a group.
    pub(crate) fn inside(&self, group: &KeyPath) -> Vec<&Entry> {
        let entries = self.0.iter();
        let inside = entries.filter(|(path, _)| path.is_in(group) && *path != group);
        inside.map(|(_, entry)| entry).collect()
    }

    /// The secrets whose files it names, with the setting that names the file.
    pub(crate) fn secret_files(&self) -> Vec<(KeyPath, KeyPath)> {
        let files = self.paths();
        let pairs = files.filter_map(|file| Some((secret_of_file(file)?, file.clone())));
        pairs.collect()
    }

    /// Puts another layer on top: what it says counts, of a secret and its file the later word.
    pub(crate) fn cover(&mut self, above: &Self) {
        for (path, entry) in &above.0 {
            if let Some(twin) = twin(path) {
                self.0.remove(&twin);
            }
            self.0.insert(path.clone(), entry.clone());
        }
    }

    /// As nested objects, the shape of `config.toml`.
    pub(crate) fn nested(&self) -> Map<String, Value> {
        nest(self.0.iter().map(|(path, entry)| (path, &entry.value)))
    }
}
