//! The configuration as the admin API knows it: what it shows, what a change may say, and the
//! stored form of all changes.
//!
//! A change is a part of what is shown. A field that equals what is in force changes nothing, so
//! what was read can be sent back, edited or not, masked key and all. `null` takes a stored change
//! back: the value of the layer below (file, default) is in force again. `lanes` and `policy` are merged
//! field by field of each lane and code, `fallbacks` model by model; lists and `prices` are replaced as a
//! whole. `id`, `createdAt` and `updatedAt` are not the client's
//! to change; the last two are ignored, for they may be stale.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use onelane_core::model::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{ConfigError, Fault, Origin};
use super::layer::{Entry, Layer, nest};
use super::loaded::{Loaded, Sources, at, shown};
use super::path::{inside, parent};
use super::read;
use super::schema::{KEYS, Naming, json_path};

/// The one configuration's id.
const ID: &str = "default";

/// `GLMConfig` of the admin API: secrets masked, durations in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GlmConfigView {
    /// Always `default`.
    pub id: &'static str,
    /// Every setting that may change while the program runs, by its name in the API.
    #[serde(flatten)]
    pub settings: Map<String, Value>,
    /// The first start on this store, RFC 3339.
    pub created_at: String,
    /// The last stored change, RFC 3339.
    pub updated_at: String,
}

/// A change that was checked and would be in force. Nothing is stored yet.
#[derive(Debug, Clone)]
pub struct Change {
    /// The configuration with the change.
    pub loaded: Loaded,
    /// The fields that are set or taken back, by their names in the API. Empty: nothing to store.
    pub changed: Vec<String>,
    /// The fields that are stored but not in force, because a flag or the environment says
    /// something else.
    pub shadowed: Vec<Shadowed>,
}

/// A stored field that is not in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shadowed {
    /// The field, by its name in the API.
    pub field: String,
    /// What wins over it.
    pub origin: Origin,
}

/// One wrong field of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldProblem {
    /// The field's path in the JSON body; empty for the body as a whole.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// Why a change is refused: every wrong field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(FieldProblem::to_string).collect::<Vec<_>>().join("; "))]
pub struct PatchError {
    /// The wrong fields, at least one.
    pub problems: Vec<FieldProblem>,
}

/// All changes made while running, as the store keeps them. Holds secrets in the clear.
#[derive(Clone, PartialEq)]
pub(crate) struct StoredChanges {
    created_at: Timestamp,
    updated_at: Timestamp,
    values: BTreeMap<String, Value>,
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
        let (leaves, problems) = read::read(&form.values, Naming::Toml, &|_| false);
        let values = leaves
            .into_iter()
            .filter_map(|(path, value)| Some((path, value?)));
        let dropped = problems.into_iter().map(|read::Problem { path, problem }| {
            let fault = Fault::of(Origin::Stored, &path, problem);
            format!("{fault}; it is ignored")
        });
        let stored = Self {
            created_at: form.created_at,
            updated_at: form.updated_at,
            values: values.collect(),
        };
        Ok((stored, dropped.collect()))
    }

    fn to_json(&self) -> String {
        let values = self
            .values
            .iter()
            .map(|(path, value)| (path.as_str(), value));
        let form = StoredForm {
            created_at: self.created_at,
            updated_at: self.updated_at,
            values: nest(values),
        };
        serde_json::to_string(&form).unwrap_or_default()
    }

    pub(crate) fn layer(&self) -> Layer {
        let mut layer = Layer::default();
        for (path, value) in &self.values {
            layer.insert(path, Entry::new(value.clone(), Origin::Stored));
        }
        layer
    }

    /// Takes a change back, or all of a group; says whether there was one.
    fn reset(&mut self, path: &str) -> bool {
        let before = self.values.len();
        self.values
            .retain(|stored, _| stored != path && inside(path, stored).is_none());
        self.values.len() < before
    }

    /// Takes back changes of lanes that take no model any more, because the file that named the
    /// models does so no longer: they must not keep the program from starting. Says so for each.
    pub(crate) fn drop_orphans(&mut self, below: &Layer) -> Vec<String> {
        let lanes: BTreeSet<String> = self
            .values
            .keys()
            .filter(|path| inside("lanes", path).is_some())
            .filter_map(|path| parent(path).map(str::to_owned))
            .collect();
        let mut told = Vec::new();
        for lane in lanes {
            let models = format!("{lane}.models");
            if !self.values.contains_key(&models) && !below.contains(&models) {
                self.reset(&lane);
                let problem = "takes no model any more; it is ignored".to_owned();
                told.push(Fault::of(Origin::Stored, &lane, problem).to_string());
            }
        }
        told
    }
}

impl fmt::Debug for StoredChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredChanges")
            .field("updated_at", &self.updated_at)
            .field("paths", &self.values.keys())
            .finish_non_exhaustive()
    }
}

impl Loaded {
    /// `GLMConfig` as the admin API shows it.
    #[must_use]
    pub fn view(&self) -> GlmConfigView {
        let nested = serde_json::to_value(&self.config).unwrap_or_default();
        let mut values = BTreeMap::new();
        for key in KEYS {
            let Some(json) = key.json else { continue };
            let value = at(&nested, key.path).cloned().unwrap_or_default();
            values.insert(json, read::to_json(&key.kind, value));
        }
        let stored = self.sources.stored.as_ref();
        let moment = |at: Option<Timestamp>| at.unwrap_or_default().to_rfc3339();
        GlmConfigView {
            id: ID,
            settings: nest(values.iter().map(|(path, value)| (*path, value))),
            created_at: moment(stored.map(|stored| stored.created_at)),
            updated_at: moment(stored.map(|stored| stored.updated_at)),
        }
    }

    /// The stored changes as JSON, to be kept by `Transition::Config` and given to
    /// [`Loaded::with_stored`]. Holds the API key in the clear if that was changed.
    #[must_use]
    pub fn stored_json(&self) -> Option<String> {
        self.sources.stored.as_ref().map(StoredChanges::to_json)
    }

    /// Checks a change: `patch` is a part of a [`GlmConfigView`]. All wrong fields are found.
    pub fn change(&self, patch: &Value, now: Timestamp) -> Result<Change, PatchError> {
        let leaves = self.read_patch(patch)?;
        let in_force = shown(&self.config);
        let mut stored = self.sources.stored.clone();
        let stored = stored.get_or_insert_with(|| StoredChanges::new(now));
        let mut changed = Vec::new();
        for (path, value) in leaves {
            let is_change = match value {
                None => stored.reset(&path),
                Some(value) => {
                    let current = self.merged.get(&path).map(|entry| &entry.value);
                    let current = current.or_else(|| in_force.get(&path));
                    let differs = current != Some(&value);
                    if differs {
                        stored.values.insert(path.clone(), value);
                    }
                    differs
                }
            };
            if is_change {
                changed.push(path);
            }
        }
        if !changed.is_empty() {
            stored.updated_at = now;
        }
        let sources = Sources {
            stored: Some(stored.clone()),
            ..self.sources.clone()
        };
        let loaded = Self::compose(sources).map_err(|error| in_json_names(&error))?;
        let mut shadowed = Vec::new();
        for path in &changed {
            let origin = loaded.origin(path);
            if stored.values.contains_key(path) && origin != Origin::Stored {
                let field = json_name(path);
                shadowed.push(Shadowed { field, origin });
            }
        }
        if !shadowed.is_empty() {
            loaded.check_without_flags()?;
        }
        Ok(Change {
            loaded,
            changed: changed.iter().map(|path| json_name(path)).collect(),
            shadowed,
        })
    }

    /// What is stored must be right even while a flag or a variable hides it: the next start may
    /// be without.
    fn check_without_flags(&self) -> Result<(), PatchError> {
        let sources = Sources {
            above: Layer::default(),
            ..self.sources.clone()
        };
        match Self::compose(sources) {
            Ok(_) => Ok(()),
            Err(error) => Err(in_json_names(&error)),
        }
    }

    fn read_patch(&self, patch: &Value) -> Result<read::Leaves, PatchError> {
        let refuse = |field: &str, problem: &str| FieldProblem {
            field: field.to_owned(),
            problem: problem.to_owned(),
        };
        let Value::Object(patch) = patch else {
            let problems = vec![refuse(
                "",
                "must be an object with a part of the configuration",
            )];
            return Err(PatchError { problems });
        };
        let mut patch = patch.clone();
        let mut problems = Vec::new();
        if patch.remove("id").is_some_and(|id| id != ID) {
            problems.push(refuse("id", "can't change; it is `default`"));
        }
        patch.remove("createdAt");
        patch.remove("updatedAt");
        let masked = self.config.glm.api_key.as_ref().map(|key| key.masked());
        if masked.is_some() && patch.get("apiKey").and_then(Value::as_str) == masked.as_deref() {
            patch.remove("apiKey");
        }
        let in_force = shown(&self.config);
        let exists = |entry: &str| in_force.keys().any(|path| inside(entry, path).is_some());
        let (leaves, unread) = read::read(&patch, Naming::Json, &exists);
        problems.extend(
            unread
                .into_iter()
                .map(|read::Problem { path, problem }| FieldProblem {
                    field: path,
                    problem: json_names(problem),
                }),
        );
        if problems.is_empty() {
            return Ok(leaves);
        }
        Err(PatchError { problems })
    }
}

/// The problem of a configuration as that of a change, in the API's names.
fn in_json_names(error: &ConfigError) -> PatchError {
    let problems = match error {
        ConfigError::Invalid(faults) => faults
            .iter()
            .map(|fault| FieldProblem {
                field: json_name(&fault.key),
                problem: json_names(fault.problem.clone()),
            })
            .collect(),
        error => vec![FieldProblem {
            field: String::new(),
            problem: error.to_string(),
        }],
    };
    PatchError { problems }
}

/// The API's name of a setting; of a group, which has none, its path.
fn json_name(path: &str) -> String {
    json_path(path).unwrap_or_else(|| path.to_owned())
}

/// Says the names of settings in a text as the API does.
fn json_names(text: String) -> String {
    let spoken = |word: &str| {
        let path = word.trim_matches(['`', ',', ';', ':', '(', ')']);
        let json = json_path(path).filter(|_| path.contains('.'));
        json.map_or_else(|| word.to_owned(), |json| word.replace(path, &json))
    };
    text.split(' ').map(spoken).collect::<Vec<_>>().join(" ")
}
