//! Every setting with its names: what [`Config`] says of its fields, flattened. File, environment, flags,
//! stored changes and HTTP patches are all read through this table, so that the same mistake gets the same
//! answer wherever it is made.

use std::sync::LazyLock;

use onelane_core::model::setting::{Field, Group, KeyPath, Kind, Setting as _, Step};
use serde_json::{Map, Value};

use super::sections::Config;

/// One setting: a value, a list, rows, or entries under names of the operator's own. Settings may stand beside
/// entries, at paths that look like those of entries.
#[derive(Debug)]
pub(crate) struct Leaf {
    /// Its path in `config.toml`.
    pub(crate) toml: KeyPath,
    /// Its path in the admin API's `GLMConfig`; `None`: fixed while the program runs.
    pub(crate) json: Option<KeyPath>,
    /// What its field says.
    pub(crate) field: Field,
}

/// Every setting, in the order of the fields.
pub(crate) static LEAVES: LazyLock<Vec<Leaf>> = LazyLock::new(|| {
    let mut leaves = Vec::new();
    if let Kind::Group(group) = Config::kind() {
        let top = KeyPath::default();
        gather(group, &top, Some(&top), &mut leaves);
    }
    leaves
});

/// Adds the settings of a group at `toml`, called `json` in the API unless they are fixed.
pub(crate) fn gather(group: Group, toml: &KeyPath, json: Option<&KeyPath>, leaves: &mut Vec<Leaf>) {
    for mut field in group.0 {
        let toml = field.path_in(toml);
        let json = json
            .filter(|_| !field.is_fixed)
            .map(|json| match field.json {
                Some(name) => KeyPath::default().join(name),
                None if field.is_at_top || field.is_flat() => json.clone(),
                None => json.join(json_name(&field.name)),
            });
        match field.kind {
            Kind::Group(group) => gather(group, &toml, json.as_ref(), leaves),
            kind => {
                field.kind = kind;
                leaves.push(Leaf { toml, json, field });
            }
        }
    }
}

/// A name in the API: camelCase, and without the unit of times, which all are milliseconds there.
pub(crate) fn json_name(toml: &str) -> String {
    let mut words = toml.strip_suffix("_ms").unwrap_or(toml).split('_');
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name
}

/// Whose names are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// `config.toml`'s.
    Toml,
    /// The admin API's; only what may change while the program runs has one. `null` resets.
    Json,
}

impl Naming {
    /// The path of a setting; `None`: it has none in these names.
    pub(crate) fn path(self, leaf: &Leaf) -> Option<&KeyPath> {
        match self {
            Self::Toml => Some(&leaf.toml),
            Self::Json => leaf.json.as_ref(),
        }
    }

    /// The name of a setting inside an entry or a row.
    pub(crate) fn name(self, field: &Field) -> String {
        match self {
            Self::Toml => field.name.clone(),
            Self::Json => json_name(&field.name),
        }
    }

    /// The names of all settings inside an entry or a row.
    pub(crate) fn names(self, group: &Group) -> Vec<String> {
        group.0.iter().map(|field| self.name(field)).collect()
    }
}

/// The setting that a path in `config.toml` is of, and the steps inside it.
pub(crate) fn leaf_of(path: &KeyPath) -> Option<(&'static Leaf, &[Step])> {
    LEAVES
        .iter()
        .find_map(|leaf| Some((leaf, path.behind(&leaf.toml)?)))
}

/// The admin API's name of the setting at a path in `config.toml`, or inside it; of a group, which has
/// none, the path.
pub(crate) fn told_in_json(path: &KeyPath) -> KeyPath {
    let Some((leaf, steps)) = leaf_of(path) else {
        return path.clone();
    };
    let Some(json) = &leaf.json else {
        return path.clone();
    };
    // The first step names an entry or a row, the second a setting in it.
    let steps = steps.iter().enumerate().map(|(depth, step)| match step {
        Step::Name(name) if depth > 0 => Step::Name(json_name(name)),
        step => step.clone(),
    });
    json.extended(&steps.collect::<Vec<_>>())
}

/// Whether a path is of entries under names of the operator's own, or inside one.
pub(crate) fn is_of_entries(path: &KeyPath) -> bool {
    leaf_of(path).is_some_and(|(leaf, _)| matches!(leaf.field.kind, Kind::Named { .. }))
}

/// Whether the value at a path is never shown.
pub(crate) fn is_secret(path: &KeyPath) -> bool {
    matches!(kind_at(path), Some(Kind::Secret(_)))
}

/// What the setting at a path takes, or that inside an entry.
pub(crate) fn kind_at(path: &KeyPath) -> Option<&'static Kind> {
    let (leaf, steps) = leaf_of(path)?;
    match steps {
        [] => Some(&leaf.field.kind),
        [_, Step::Name(name)] => Some(&leaf.field.kind.members()?.field(name)?.kind),
        _ => None,
    }
}

/// The end of the name of a setting that names the file of a secret.
const OF_FILE: &str = "_file";

/// The secret whose file is named at a path.
pub(crate) fn secret_of_file(path: &KeyPath) -> Option<KeyPath> {
    let secret = path.parent()?.join(path.name().strip_suffix(OF_FILE)?);
    Some(secret).filter(is_secret)
}

/// The setting that says the same otherwise: a secret in the clear, or the name of its file.
pub(crate) fn twin(path: &KeyPath) -> Option<KeyPath> {
    if is_secret(path) {
        return Some(path.parent()?.join(format!("{}{OF_FILE}", path.name())));
    }
    secret_of_file(path)
}

/// The values of all settings in a configuration as it writes itself, by their paths in `config.toml`.
/// Entries have a value for each of their settings.
pub(crate) fn values(config: &Value) -> Vec<(KeyPath, Value)> {
    let mut values = Vec::new();
    for leaf in LEAVES.iter() {
        match (&leaf.field.kind, at(config, &leaf.toml)) {
            (Kind::Named { entry, .. }, Some(Value::Object(entries))) => {
                for (name, value) in entries {
                    let path = leaf.toml.join(&**name);
                    if LEAVES.iter().any(|beside| beside.toml == path) {
                        continue;
                    }
                    match (entry.members(), value) {
                        (Some(group), Value::Object(_)) => {
                            let members = group.0.iter();
                            values.extend(members.filter_map(|member| {
                                Some((path.join(&*member.name), member.find(value)?))
                            }));
                        }
                        _ => values.push((path, value.clone())),
                    }
                }
            }
            (_, value) => values.push((leaf.toml.clone(), value.cloned().unwrap_or_default())),
        }
    }
    values
}

/// What stands at a path of names.
pub(crate) fn at<'a>(nested: &'a Value, path: &KeyPath) -> Option<&'a Value> {
    path.names().try_fold(nested, |group, name| group.get(name))
}

/// Puts values at their paths into nested objects. No path is both a value and a group, but that an empty group
/// may come before what is in it.
pub(crate) fn nest<'a>(
    values: impl Iterator<Item = (&'a KeyPath, &'a Value)>,
) -> Map<String, Value> {
    let mut root = Map::new();
    for (path, value) in values {
        let Some((name, groups)) = path.steps().split_last() else {
            continue;
        };
        let mut object = &mut root;
        for step in groups {
            let inner = object
                .entry(named(step))
                .or_insert_with(|| Map::new().into());
            let Value::Object(inner) = inner else {
                return root;
            };
            object = inner;
        }
        object.insert(named(name), value.clone());
    }
    root
}

fn named(step: &Step) -> String {
    match step {
        Step::Name(name) => name.clone(),
        Step::Index(index) => index.to_string(),
    }
}
