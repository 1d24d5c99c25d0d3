//! The configuration as the admin API knows it: what it shows, and what a change may say.
//!
//! A change is a part of what is shown. A field that equals what is in force changes nothing, so
//! what was read can be sent back, edited or not, masked key and all. `null` takes a stored change
//! back: the value of the layer below (file, default) is in force again. `lanes`, `policy` and `alerts` are merged
//! field by field of each lane, code and rule, `fallbacks` model by model; lists and `prices` are replaced as a
//! whole. `id`, `createdAt` and `updatedAt` are not the client's
//! to change; the last two are ignored, for they may be stale.

use std::collections::BTreeMap;

use onelane_core::model::Timestamp;
use onelane_core::model::setting::{Group, KeyPath, Kind, Problem, Secrets, Setting as _};
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::{ConfigError, Origin};
use super::layer::Layer;
use super::loaded::{Loaded, Sources};
use super::read::{self, Refused};
use super::schema::{LEAVES, Naming, at, json_name, nest, told_in_json, values};
use super::stored::StoredChanges;

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

impl Loaded {
    /// `GLMConfig` as the admin API shows it.
    #[must_use]
    pub fn view(&self) -> GlmConfigView {
        let config = self.config.write(Secrets::Masked);
        let mut settings = Vec::new();
        for leaf in LEAVES.iter() {
            let Some(json) = &leaf.json else { continue };
            let value = at(&config, &leaf.toml).cloned().unwrap_or_default();
            match in_json(&leaf.field.kind, value) {
                // Beside settings of the group there are entries alone.
                Value::Object(entries) if leaf.field.is_flat() => settings.extend(
                    entries
                        .into_iter()
                        .filter(|(_, value)| value.is_object())
                        .map(|(name, entry)| (json.join(name), entry)),
                ),
                value => settings.push((json.clone(), value)),
            }
        }
        let stored = self.sources.stored.as_ref();
        let moment = |at: Option<Timestamp>| at.unwrap_or_default().to_rfc3339();
        GlmConfigView {
            id: ID,
            settings: nest(settings.iter().map(|(path, value)| (path, value))),
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
        let in_force = self.in_force();
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
                        stored.insert(path.clone(), value);
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
        let loaded = Self::compose(sources).map_err(|error| refused(&error))?;
        let mut shadowed = Vec::new();
        for path in &changed {
            let origin = loaded.origin_of(path);
            if stored.contains(path) && origin != Origin::Stored {
                let field = told_in_json(path).to_string();
                shadowed.push(Shadowed { field, origin });
            }
        }
        if !shadowed.is_empty() {
            loaded.check_without_flags()?;
        }
        Ok(Change {
            loaded,
            changed: changed
                .iter()
                .map(|path| told_in_json(path).to_string())
                .collect(),
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
            Err(error) => Err(refused(&error)),
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
        let in_force = self.in_force();
        let exists = |entry: &KeyPath| in_force.keys().any(|path| path.is_in(entry));
        let (leaves, refused) = read::read(&patch, Naming::Json, &exists);
        let refused = refused.into_iter();
        problems.extend(refused.map(|Refused { path, problem }| FieldProblem {
            field: path.to_string(),
            problem: in_json_names(&problem),
        }));
        if problems.is_empty() {
            return Ok(leaves);
        }
        Err(PatchError { problems })
    }

    /// The value of every setting, by its path in `config.toml`.
    fn in_force(&self) -> BTreeMap<KeyPath, Value> {
        values(&self.config.write(Secrets::Masked))
            .into_iter()
            .collect()
    }
}

/// The problem of a configuration as that of a change, in the API's names.
fn refused(error: &ConfigError) -> PatchError {
    let problems = match error {
        ConfigError::Invalid(errors) => errors
            .iter()
            .map(|wrong| FieldProblem {
                field: told_in_json(&wrong.path).to_string(),
                problem: in_json_names(&wrong.problem),
            })
            .collect(),
        error => vec![FieldProblem {
            field: String::new(),
            problem: error.to_string(),
        }],
    };
    PatchError { problems }
}

/// A problem that calls settings as the API does.
fn in_json_names(problem: &Problem) -> String {
    problem.told(|path| told_in_json(path).to_string())
}

/// A value as the API shows it, written by the configuration.
fn in_json(kind: &Kind, value: Value) -> Value {
    match (kind, value) {
        (Kind::Rows { .. }, Value::Array(rows)) => rows.into_iter().map(renamed).collect(),
        (Kind::Named { entry, short, .. }, Value::Object(entries)) => {
            let entries = entries.into_iter().map(|(name, value)| {
                let Some(group) = entry.members() else {
                    return (name, value);
                };
                let alone = alone(group, &value).filter(|_| *short).cloned();
                (name, alone.unwrap_or_else(|| renamed(value)))
            });
            Value::Object(entries.collect())
        }
        (_, value) => value,
    }
}

/// The first setting of an entry that has no other.
fn alone<'a>(group: &Group, entry: &'a Value) -> Option<&'a Value> {
    let fields = entry.as_object().filter(|fields| fields.len() == 1)?;
    fields.get(&group.0.first()?.name)
}

/// An entry or a row with the API's names.
fn renamed(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields
                .into_iter()
                .map(|(name, value)| (json_name(&name), value));
            Value::Object(fields.collect())
        }
        value => value,
    }
}

/// The fields that are prices, by their names in the API.
#[cfg(feature = "api")]
const AMOUNTS: [&str; 3] = ["input", "cachedInput", "output"];

/// Puts the prices of a change that are JSON numbers in as the text that they were written in, so that
/// they stay exact; `body` is what `patch` was read from. What is of another shape is told when it is read.
#[cfg(feature = "api")]
pub(crate) fn keep_exact(body: &str, patch: &mut Value) {
    #[derive(serde::Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        prices: Vec<BTreeMap<String, &'a serde_json::value::RawValue>>,
    }
    let written = serde_json::from_str::<Body<'_>>(body);
    let rows = patch.get_mut("prices").and_then(Value::as_array_mut);
    let (Ok(written), Some(rows)) = (written, rows) else {
        return;
    };
    for (row, written) in rows.iter_mut().zip(&written.prices) {
        for name in AMOUNTS {
            if let (Some(amount @ Value::Number(_)), Some(literal)) =
                (row.get_mut(name), written.get(name))
            {
                *amount = Value::from(literal.get());
            }
        }
    }
}
