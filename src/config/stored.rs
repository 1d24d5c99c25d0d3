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
use super::schema::{LEAVES, Leaf, Naming, nest};
use crate::meant;

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

/// The path in `config.toml` of a setting, or of a group of them, by that path or by its name in the API. The error is
/// what to say of a name that none has.
pub fn setting_path(key: &str) -> Result<String, String> {
    let path = KeyPath::from(key);
    if let Some(leaf) = LEAVES.iter().find(|leaf| leaf.json.as_ref() == Some(&path)) {
        return Ok(leaf.toml.to_string());
    }
    let is_part = |leaf: &&Leaf| {
        let whole = leaf.toml.to_string();
        let within = |outer: &str, inner: &str| {
            let rest = inner.strip_prefix(outer);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        within(key, &whole) || within(&whole, key)
    };
    if LEAVES.iter().any(|leaf| is_part(&leaf)) {
        return Ok(key.to_owned());
    }
    let paths: Vec<String> = LEAVES.iter().map(|leaf| leaf.toml.to_string()).collect();
    let by_name = || {
        let names: Vec<String> = LEAVES
            .iter()
            .map(|leaf| leaf.toml.name().to_owned())
            .collect();
        let near = meant::nearest(&names, key)?.to_owned();
        let at = names.iter().position(|name| *name == near)?;
        paths.get(at).cloned()
    };
    let near = meant::nearest(&paths, key)
        .map(str::to_owned)
        .or_else(by_name);
    Err(match near {
        Some(near) => format!("there is no setting {key}; did you mean {near}?"),
        None => format!("there is no setting {key}; `onelane config show` lists them"),
    })
}

/// Takes the change of a setting, or of all of a group, out of the changes that a store keeps, whatever else they
/// hold; `None`: there is no such change. `key` is the setting's path in `config.toml`, or its name in the API. `now`
/// is when.
pub fn without_stored_change(
    json: &str,
    key: &str,
    now: Timestamp,
) -> Result<Option<String>, ConfigError> {
    let unreadable = |e: serde_json::Error| ConfigError::Stored(e.to_string());
    let mut form: StoredForm = serde_json::from_str(json).map_err(unreadable)?;
    let path = KeyPath::from(key);
    let named = LEAVES.iter().find(|leaf| leaf.json.as_ref() == Some(&path));
    let by_api = named.map(|leaf| leaf.toml.clone());
    let found = [Some(path), by_api].into_iter().flatten().any(|path| {
        let names: Vec<&str> = path.names().collect();
        take_out(&mut form.values, &names)
    });
    if !found {
        return Ok(None);
    }
    form.updated_at = now;
    serde_json::to_string(&form).map(Some).map_err(unreadable)
}

/// The settings that the changes which a store keeps are of, by their paths in `config.toml`.
pub fn stored_changes(json: &str) -> Result<Vec<String>, ConfigError> {
    fn walk(values: &Map<String, Value>, at: &KeyPath, found: &mut Vec<String>) {
        for (name, value) in values {
            let path = at.join(name.as_str());
            match value {
                Value::Object(inner) if !inner.is_empty() => walk(inner, &path, found),
                _ => found.push(path.to_string()),
            }
        }
    }
    let form: Result<StoredForm, _> = serde_json::from_str(json);
    let form = form.map_err(|e| ConfigError::Stored(e.to_string()))?;
    let mut found = Vec::new();
    walk(&form.values, &KeyPath::default(), &mut found);
    Ok(found)
}

/// Takes a value out of nested ones, with the groups that hold nothing then.
fn take_out(values: &mut Map<String, Value>, names: &[&str]) -> bool {
    match names {
        [] => false,
        [name] => values.remove(*name).is_some(),
        [group, rest @ ..] => {
            let Some(Value::Object(inner)) = values.get_mut(*group) else {
                return false;
            };
            let found = take_out(inner, rest);
            if inner.is_empty() {
                values.remove(*group);
            }
            found
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_change_is_taken_out_whatever_else_is_stored() {
        let stored = r#"{"createdAt":1,"updatedAt":1,"values":
            {"glm":{"base_url":"nonsense","of_tomorrow":7},"lanes":{"big":{"models":["a"]}}}}"#;
        let now = Timestamp::from_millis(2);
        let without = |json: &str, key| without_stored_change(json, key, now).unwrap();
        assert_eq!(
            stored_changes(stored).unwrap(),
            ["glm.base_url", "glm.of_tomorrow", "lanes.big.models"]
        );
        let left = without(stored, "glm.base_url").unwrap();
        assert_eq!(
            stored_changes(&left).unwrap(),
            ["glm.of_tomorrow", "lanes.big.models"]
        );
        assert_eq!(without(&left, "glm.base_url"), None);
        let by_api = without(stored, "baseUrl").unwrap();
        assert_eq!(
            stored_changes(&by_api).unwrap(),
            ["glm.of_tomorrow", "lanes.big.models"]
        );
        let left = without(&left, "glm.of_tomorrow").unwrap();
        let left = without(&left, "lanes").unwrap();
        assert_eq!(stored_changes(&left).unwrap(), [""; 0]);
        assert!(without_stored_change("no JSON", "glm", now).is_err());
    }
}
