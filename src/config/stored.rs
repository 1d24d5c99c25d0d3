//! The stored form of all changes made while running.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use onelane_core::model::setting::KeyPath;
use onelane_core::model::{AlertRules, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{ConfigError, Origin, WrongValue};
use super::layer::{Entry, Layer};
use super::read;
use super::schema::{Naming, nest};

/// All changes made while running, as the store keeps them. Holds secrets in the clear.
#[derive(Clone, PartialEq)]
pub(crate) struct StoredChanges {
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    values: BTreeMap<KeyPath, Value>,
}

/// The JSON form of [`StoredChanges`]: nested like `config.toml`, so that it can be read by eye.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredForm {
    created_at: Timestamp,
    updated_at: Timestamp,
    values: Map<String, Value>,
}

impl StoredChanges {
    /// No changes yet.
    pub(crate) fn new(started: Timestamp) -> Self {
        Self {
            created_at: started,
            updated_at: started,
            values: BTreeMap::new(),
        }
    }

    /// Reads what [`Self::to_json`] wrote. Settings that this version does not take are left out,
    /// with a warning each: they must not keep the program from starting.
    pub(crate) fn from_json(json: &str) -> Result<(Self, Vec<String>), ConfigError> {
        let form: StoredForm =
            serde_json::from_str(json).map_err(|e| ConfigError::Stored(e.to_string()))?;
        let (leaves, refused) = read::read(&form.values, Naming::Toml, &|_| false);
        let values = leaves
            .into_iter()
            .filter_map(|(path, value)| Some((path, value?)));
        let dropped = refused.into_iter().map(|read::Refused { path, problem }| {
            WrongValue::of(Origin::Stored, path, problem.words("; it is ignored")).to_string()
        });
        let stored = Self {
            created_at: form.created_at,
            updated_at: form.updated_at,
            values: values.collect(),
        };
        Ok((stored, dropped.collect()))
    }

    pub(crate) fn to_json(&self) -> String {
        let form = StoredForm {
            created_at: self.created_at,
            updated_at: self.updated_at,
            values: nest(self.values.iter()),
        };
        serde_json::to_string(&form).unwrap_or_default()
    }

    pub(crate) fn layer(&self) -> Layer {
        let mut layer = Layer::default();
        for (path, value) in &self.values {
            layer.insert(path.clone(), Entry::new(value.clone(), Origin::Stored));
        }
        layer
    }

    pub(crate) fn contains(&self, path: &KeyPath) -> bool {
        self.values.contains_key(path)
    }

    pub(crate) fn insert(&mut self, path: KeyPath, value: Value) {
        self.values.insert(path, value);
    }

    /// Takes a change back, or all of a group; says whether there was one.
    pub(crate) fn reset(&mut self, path: &KeyPath) -> bool {
        let before = self.values.len();
        self.values.retain(|stored, _| !stored.is_in(path));
        self.values.len() < before
    }

    /// Takes back changes of entries that are nothing any more, because the file that said what they are does so
    /// no longer: they must not keep the program from starting. Says so for each.
    pub(crate) fn drop_orphans(&mut self, below: &Layer) -> Vec<String> {
        let mut told = Vec::new();
        for (group, needs, problem) in [
            ("lanes", "models", "takes no model any more; it is ignored"),
            ("alerts", "on", "watches nothing any more; it is ignored"),
        ] {
            let changed = self.values.keys().filter_map(KeyPath::parent);
            let group = KeyPath::from(group);
            let changed = changed.filter(|entry| entry.parent().as_ref() == Some(&group));
            for entry in changed.collect::<BTreeSet<KeyPath>>() {
                let needed = entry.join(needs);
                if !self.contains(&needed) && !below.contains(&needed) && !is_built_in(&entry) {
                    self.reset(&entry);
                    told.push(WrongValue::of(Origin::Stored, entry, problem).to_string());
                }
            }
        }
        told
    }
}

/// Whether an entry is there without anybody writing it.
fn is_built_in(entry: &KeyPath) -> bool {
    let rules = AlertRules::default();
    entry.is_in(&KeyPath::from("alerts")) && rules.0.contains_key(entry.name())
}

impl fmt::Debug for StoredChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredChanges")
            .field("updated_at", &self.updated_at)
            .field("paths", &self.values.keys())
            .finish_non_exhaustive()
    }
}
