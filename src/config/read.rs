//! Reads nested values, whoever wrote them, into checked leaves by way of the table of settings.

use std::collections::BTreeMap;

use onelane_core::model::setting::{
    Field, Group, KeyPath, Kind, Problem, RowsCheck, mismatch, quoted,
};
use serde_json::{Map, Value};

use super::schema::{LEAVES, Leaf, Naming, leaf_of};
use super::suggest;

/// What is wrong at a path, in the names of whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) path: KeyPath,
    pub(crate) problem: Problem,
}

/// Leaf values by their path in `config.toml`, those of named entries included, checked and in
/// canonical form; `None` means reset, of all that is below the path.
pub(crate) type Leaves = BTreeMap<KeyPath, Option<Value>>;

/// Reads a nested object into leaves. All problems are found, not only the first. `exists` tells by its
/// path in `config.toml` whether a named entry is there already: only such a one may be left as it is.
pub(crate) fn read(
    object: &Map<String, Value>,
    naming: Naming,
    exists: &dyn Fn(&KeyPath) -> bool,
) -> (Leaves, Vec<Refused>) {
    let mut reader = Reader {
        naming,
        exists,
        leaves: Leaves::new(),
        refused: Vec::new(),
    };
    reader.group(object, &KeyPath::default());
    (reader.leaves, reader.refused)
}

/// Reads the text of a flag or an environment variable.
pub(crate) fn read_text(path: &KeyPath, text: &str) -> Result<Value, Problem> {
    let leaf = leaf_of(path).filter(|(_, inside)| inside.is_empty());
    let (leaf, _) = leaf.ok_or_else(|| format!("there is no setting {path}"))?;
    let value = match &leaf.field.kind {
        Kind::Whole { .. } | Kind::Number { .. } | Kind::Switch => {
            serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
        }
        Kind::List(_) | Kind::Rows { .. } | Kind::Group(_) | Kind::Named { .. } => {
            return Err(format!("{path} can only be set in a file").into());
        }
        _ => Value::from(text),
    };
    leaf.field.kind.accept(&value)
}

/// Problems that are told at once.
const REFUSED_MAX: usize = 200;

struct Reader<'a> {
    naming: Naming,
    exists: &'a dyn Fn(&KeyPath) -> bool,
    leaves: Leaves,
    refused: Vec<Refused>,
}

impl Reader<'_> {
    fn group(&mut self, object: &Map<String, Value>, at: &KeyPath) {
        for (name, value) in object {
            if self.has_enough() {
                return;
            }
            let path = at.join(&**name);
            if let Some(leaf) = self.at(&path) {
                self.leaf(leaf, &path, value);
            } else if self.members(&path).next().is_some() {
                self.nested(&path, value);
            } else {
                let problem = suggest::unknown(self.naming, at, name);
                self.refuse(&path, problem);
            }
        }
    }

    /// The setting at a path.
    fn at(&self, path: &KeyPath) -> Option<&'static Leaf> {
        let mut leaves = LEAVES.iter();
        leaves.find(|leaf| self.naming.path(leaf) == Some(path))
    }

    /// The settings inside a group.
    fn members<'a>(&self, group: &'a KeyPath) -> impl Iterator<Item = &'static Leaf> + use<'a> {
        let naming = self.naming;
        let is_member = move |path: &KeyPath| path.is_in(group) && path != group;
        let leaves = LEAVES.iter();
        leaves.filter(move |leaf| naming.path(leaf).is_some_and(is_member))
    }

    fn nested(&mut self, path: &KeyPath, value: &Value) {
        match value {
            Value::Object(inner) => self.group(inner, path),
            Value::Null if self.naming == Naming::Json => {
                let members = self.members(path).map(|leaf| (leaf.toml.clone(), None));
                let members: Vec<_> = members.collect();
                self.leaves.extend(members);
            }
            other => self.refuse(path, mismatch(self.group_name(), other)),
        }
    }

    fn leaf(&mut self, leaf: &Leaf, path: &KeyPath, value: &Value) {
        match (&leaf.field.kind, value) {
            (_, Value::Null) if self.naming == Naming::Json => {
                self.leaves.insert(leaf.toml.clone(), None);
            }
            (Kind::Named { .. }, Value::Object(entries)) => {
                for (name, value) in entries {
                    if self.has_enough() {
                        return;
                    }
                    let (path, toml) = (path.join(&**name), leaf.toml.join(&**name));
                    match self.at(&path) {
                        Some(beside) => self.leaf(beside, &path, value),
                        None => self.entry(&leaf.field.kind, name, &path, toml, value),
                    }
                }
            }
            (Kind::Named { .. }, other) => self.refuse(path, mismatch(self.group_name(), other)),
            (kind, value) => self.value(kind, path, leaf.toml.clone(), value),
        }
    }

    /// An entry under a name of the operator's own. `path` is where it stands, `toml` the same in the names
    /// of `config.toml`.
    fn entry(&mut self, kind: &Kind, name: &str, path: &KeyPath, toml: KeyPath, value: &Value) {
        let Kind::Named {
            check,
            entry,
            short,
        } = kind
        else {
            return;
        };
        if let Err(problem) = check(name) {
            return self.refuse(path, problem);
        }
        match (entry.members(), value) {
            (_, Value::Null) if self.naming == Naming::Json => {
                self.leaves.insert(toml, None);
            }
            (None, value) => self.value(entry, path, toml, value),
            (Some(group), Value::Object(fields)) => self.fields(group, fields, path, &toml),
            (Some(group), value) => match group.0.first() {
                Some(first) if *short && value.is_string() => {
                    self.value(&first.kind, path, toml.join(&*first.name), value);
                }
                _ if *short => {
                    let expected = format!("text or {}", self.group_name());
                    self.refuse(path, mismatch(&expected, value));
                }
                _ => self.refuse(path, mismatch(self.group_name(), value)),
            },
        }
    }

    fn fields(
        &mut self,
        group: &Group,
        fields: &Map<String, Value>,
        path: &KeyPath,
        toml: &KeyPath,
    ) {
        if fields.is_empty() && !(self.exists)(toml) {
            let names = quoted(&self.naming.names(group));
            let problem = format!("must not be empty; it may have {names}");
            return self.refuse(path, problem.into());
        }
        for (name, value) in fields {
            if self.has_enough() {
                return;
            }
            let at = path.join(&**name);
            let named = group
                .0
                .iter()
                .find(|field| self.naming.name(field) == *name);
            match (named, value) {
                (None, _) => {
                    let names = self.naming.names(group);
                    self.refuse(&at, suggest::unknown_among(&names, name, &path.to_string()));
                }
                (Some(field), Value::Null) if self.naming == Naming::Json => {
                    self.leaves.insert(toml.join(&*field.name), None);
                }
                (Some(field), value) => {
                    self.value(&field.kind, &at, toml.join(&*field.name), value);
                }
            }
        }
    }

    /// One value at `path`, to be known as `toml`.
    fn value(&mut self, kind: &Kind, path: &KeyPath, toml: KeyPath, value: &Value) {
        if let Some(value) = self.accept(kind, path, value) {
            self.leaves.insert(toml, Some(value));
        }
    }

    /// The canonical form of a value; `None`: something in it was refused.
    fn accept(&mut self, kind: &Kind, path: &KeyPath, value: &Value) -> Option<Value> {
        match (kind, value) {
            (Kind::List(kind), Value::Array(items)) => {
                let items = items.iter().enumerate();
                let items = items.map(|(index, item)| self.accept(kind, &path.item(index), item));
                // All of them are looked at before one that was refused ends it.
                let items: Vec<Option<Value>> = items.collect();
                items.into_iter().collect()
            }
            (Kind::Rows { group, check }, Value::Array(rows)) => {
                self.rows(group, *check, path, rows)
            }
            (kind, value) => match kind.accept(value) {
                Ok(value) => Some(value),
                Err(problem) => {
                    self.refuse(path, problem);
                    None
                }
            },
        }
    }

    fn rows(
        &mut self,
        group: &Group,
        check: RowsCheck,
        path: &KeyPath,
        rows: &[Value],
    ) -> Option<Value> {
        let rows = rows.iter().enumerate();
        let rows = rows.map(|(index, row)| self.row(group, &path.item(index), row));
        let rows: Vec<Option<Value>> = rows.collect();
        let rows = rows.into_iter().collect::<Option<Vec<Value>>>()?;
        if let Err((index, problem)) = check(&rows) {
            self.refuse(&path.item(index), problem);
            return None;
        }
        Some(rows.into())
    }

    fn row(&mut self, group: &Group, path: &KeyPath, row: &Value) -> Option<Value> {
        let Value::Object(fields) = row else {
            self.refuse(path, mismatch(self.group_name(), row));
            return None;
        };
        let refused = self.refused.len();
        let mut read = Map::new();
        for (name, value) in fields {
            if self.has_enough() {
                return None;
            }
            let at = path.join(&**name);
            let field = group
                .0
                .iter()
                .find(|field| self.naming.name(field) == *name);
            let Some(field) = field else {
                let names = self.naming.names(group);
                self.refuse(&at, suggest::unknown_among(&names, name, "a row"));
                continue;
            };
            if value.is_null() && !field.is_required {
                continue;
            }
            if let Some(value) = self.accept(&field.kind, &at, value) {
                read.insert(field.name.clone(), value);
            }
        }
        if self.refused.len() > refused {
            return None;
        }
        let missing = |field: &&Field| field.is_required && !read.contains_key(&field.name);
        if let Some(field) = group.0.iter().find(missing) {
            let problem = format!("needs `{}`", self.naming.name(field));
            self.refuse(path, problem.into());
            return None;
        }
        for field in &group.0 {
            let unsaid = read.entry(field.name.clone());
            unsaid.or_insert_with(|| field.default.clone());
        }
        Some(read.into())
    }

    /// Whether so much is wrong that nothing more is looked at: each problem takes a while to word.
    const fn has_enough(&self) -> bool {
        self.refused.len() >= REFUSED_MAX
    }

    fn group_name(&self) -> &'static str {
        match self.naming {
            Naming::Toml => "a table",
            Naming::Json => "an object",
        }
    }

    fn refuse(&mut self, path: &KeyPath, problem: Problem) {
        if self.has_enough() {
            return;
        }
        self.refused.push(Refused {
            path: path.clone(),
            problem,
        });
    }
}
