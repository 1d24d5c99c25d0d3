//! Reads nested values, whoever wrote them, into checked leaves by way of the table of settings.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::path::join;
use super::read_prices;
use super::schema::{Entry, KEYS, Key, Kind, Named, Naming};
use super::suggest::{quoted, unknown, unknown_among};
use super::text;

/// What is wrong at a path, in the names of whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) path: String,
    pub(crate) problem: String,
}

/// Leaf values by their path in `config.toml`, those of named entries included, checked and in
/// canonical form; `None` means reset, of all that is below the path.
pub(crate) type Leaves = BTreeMap<String, Option<Value>>;

/// Reads a nested object into leaves. All problems are found, not only the first. `exists` tells by its
/// path in `config.toml` whether a named entry is there already: only such a one may be left as it is.
pub(crate) fn read(
    object: &Map<String, Value>,
    naming: Naming,
    exists: &dyn Fn(&str) -> bool,
) -> (Leaves, Vec<Problem>) {
    let mut reader = Reader {
        naming,
        exists,
        leaves: Leaves::new(),
        problems: Vec::new(),
    };
    reader.group(object, "");
    (reader.leaves, reader.problems)
}

/// Reads the text of a flag or an environment variable.
pub(crate) fn read_text(path: &str, text: &str) -> Result<Value, String> {
    let key = KEYS.iter().find(|key| key.path == path);
    let kind = &key
        .ok_or_else(|| format!("there is no setting {path}"))?
        .kind;
    let value = match kind {
        Kind::Text(_) | Kind::Secret | Kind::OneOf(_) => Value::from(text),
        Kind::Whole(_) | Kind::Number | Kind::Switch => {
            serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
        }
        Kind::List(_) | Kind::Prices | Kind::Named(_) => {
            return Err(format!("{path} can only be set in a file"));
        }
    };
    scalar(kind, &value)
}

struct Reader<'a> {
    naming: Naming,
    exists: &'a dyn Fn(&str) -> bool,
    leaves: Leaves,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn group(&mut self, object: &Map<String, Value>, prefix: &str) {
        for (name, value) in object {
            let path = join(prefix, name);
            let key = KEYS
                .iter()
                .find(|key| self.naming.path(key) == Some(path.as_str()));
            match key {
                Some(key) => self.leaf(key, &path, value),
                None if self.members(&path).next().is_some() => self.nested(&path, value),
                None => {
                    let problem = unknown(self.naming, prefix, name);
                    self.problem(path, problem);
                }
            }
        }
    }

    /// The settings inside a group.
    fn members<'a>(&self, group: &'a str) -> impl Iterator<Item = &'static Key> + use<'a> {
        let naming = self.naming;
        KEYS.iter().filter(move |key| {
            let rest = naming.path(key).and_then(|p| p.strip_prefix(group));
            rest.is_some_and(|rest| rest.starts_with('.'))
        })
    }

    fn nested(&mut self, path: &str, value: &Value) {
        match value {
            Value::Object(inner) => self.group(inner, path),
            Value::Null if self.naming == Naming::Json => {
                let members: Vec<_> = self.members(path).map(|key| key.path).collect();
                for member in members {
                    self.leaves.insert(member.to_owned(), None);
                }
            }
            other => self.mismatch(path, group_name(self.naming), other),
        }
    }

    fn leaf(&mut self, key: &Key, path: &str, value: &Value) {
        match (&key.kind, value) {
            (_, Value::Null) if self.naming == Naming::Json => {
                self.leaves.insert(key.path.to_owned(), None);
            }
            (Kind::Named(named), Value::Object(entries)) => {
                self.entries(named, entries, path, key.path);
            }
            (Kind::Named(_), other) => self.mismatch(path, group_name(self.naming), other),
            (kind, value) => self.value(kind, path, key.path, value),
        }
    }

    /// Entries under names of the operator's own. `path` is where they stand, `toml` the same in
    /// the names of `config.toml`.
    fn entries(&mut self, named: &Named, entries: &Map<String, Value>, path: &str, toml: &str) {
        for (name, value) in entries {
            let (path, toml) = (join(path, name), join(toml, name));
            if let Err(problem) = (named.check)(name) {
                self.problem(path, problem);
                continue;
            }
            match (&named.entry, value) {
                (_, Value::Null) if self.naming == Naming::Json => {
                    self.leaves.insert(toml, None);
                }
                (Entry::Value(kind), value) => self.value(kind, &path, &toml, value),
                (Entry::Group { members, .. }, Value::Object(fields)) => {
                    self.fields(members, fields, &path, &toml);
                }
                (Entry::Group { members, short }, value) => match members.first() {
                    Some(first) if *short && value.is_string() => {
                        self.value(&first.kind, &path, &join(&toml, first.path), value);
                    }
                    _ if *short => {
                        let expected = format!("text or {}", group_name(self.naming));
                        self.mismatch(&path, &expected, value);
                    }
                    _ => self.mismatch(&path, group_name(self.naming), value),
                },
            }
        }
    }

    fn fields(
        &mut self,
        members: &'static [Key],
        fields: &Map<String, Value>,
        path: &str,
        toml: &str,
    ) {
        let names: Vec<_> = members.iter().filter_map(|m| self.naming.path(m)).collect();
        if fields.is_empty() && !(self.exists)(toml) {
            return self.problem(
                path.to_owned(),
                format!("must not be empty; it may have {}", quoted(&names)),
            );
        }
        for (name, value) in fields {
            let at = join(path, name);
            let named = |member: &&Key| self.naming.path(member) == Some(name);
            match (members.iter().find(named), value) {
                (None, _) => self.problem(at, unknown_among(&names, name, path)),
                (Some(member), Value::Null) if self.naming == Naming::Json => {
                    self.leaves.insert(join(toml, member.path), None);
                }
                (Some(member), value) => {
                    self.value(&member.kind, &at, &join(toml, member.path), value);
                }
            }
        }
    }

    /// One value at `path`, to be known as `toml`.
    fn value(&mut self, kind: &Kind, path: &str, toml: &str, value: &Value) {
        let read = match kind {
            Kind::List(check) => list(*check, path, value),
            Kind::Prices => read_prices::read(self.naming, path, value),
            kind => scalar(kind, value).map_err(|problem| vec![Problem::at(path, problem)]),
        };
        match read {
            Ok(value) => {
                self.leaves.insert(toml.to_owned(), Some(value));
            }
            Err(problems) => self.problems.extend(problems),
        }
    }

    fn mismatch(&mut self, path: &str, expected: &str, value: &Value) {
        self.problem(path.to_owned(), mismatch(expected, value));
    }

    fn problem(&mut self, path: String, problem: String) {
        self.problems.push(Problem { path, problem });
    }
}

impl Problem {
    pub(crate) fn at(path: &str, problem: String) -> Self {
        Self {
            path: path.to_owned(),
            problem,
        }
    }
}

/// What to say of a value of another type.
pub(crate) fn mismatch(expected: &str, value: &Value) -> String {
    format!("must be {expected}, not {}", type_name(value))
}

fn list(
    check: fn(&str) -> Result<String, String>,
    path: &str,
    value: &Value,
) -> Result<Value, Vec<Problem>> {
    let Value::Array(items) = value else {
        return Err(vec![Problem::at(path, mismatch("a list of texts", value))]);
    };
    let mut list = Vec::with_capacity(items.len());
    let mut problems = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let checked = match item.as_str() {
            Some(text) => check(text),
            None => Err(mismatch("text", item)),
        };
        match checked {
            Ok(text) => list.push(Value::from(text)),
            Err(problem) => problems.push(Problem::at(&format!("{path}[{index}]"), problem)),
        }
    }
    if problems.is_empty() {
        return Ok(Value::from(list));
    }
    Err(problems)
}

pub(crate) fn scalar(kind: &Kind, value: &Value) -> Result<Value, String> {
    let mismatch = |expected: &str| Err(mismatch(expected, value));
    match kind {
        Kind::Text(canonical) => match value.as_str() {
            Some(text) => canonical(text).map(Value::from),
            None => mismatch("text"),
        },
        Kind::Secret => match value.as_str() {
            Some(text) => text::secret(text).map(Value::from),
            None => mismatch("text"),
        },
        Kind::Whole(bounds) => match value.as_u64() {
            Some(number) if bounds.contains(&number) => Ok(Value::from(number)),
            _ if value.is_number() => Err(format!(
                "must be a whole number from {} to {}",
                bounds.start(),
                bounds.end()
            )),
            _ => mismatch("a whole number"),
        },
        Kind::Number => match value.as_f64() {
            Some(number) => Ok(Value::from(number)),
            None => mismatch("a number"),
        },
        Kind::Switch if value.is_boolean() => Ok(value.clone()),
        Kind::Switch => mismatch("true or false"),
        Kind::OneOf(words) => one_of(words, value),
        Kind::List(_) | Kind::Prices | Kind::Named(_) => mismatch("a single value"),
    }
}

fn one_of(words: &[&str], value: &Value) -> Result<Value, String> {
    if value.as_str().is_some_and(|text| words.contains(&text)) {
        return Ok(value.clone());
    }
    Err(format!("must be one of {}", quoted(words)))
}

/// A type by the name a writer of TOML or JSON knows it by.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(n) if n.is_f64() => "a number with decimals",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a group of settings",
    }
}

pub(crate) fn group_name(naming: Naming) -> &'static str {
    match naming {
        Naming::Toml => "a table",
        Naming::Json => "an object",
    }
}

/// A value of `Config`'s JSON form, as the admin API shows it.
pub(crate) fn to_json(kind: &Kind, value: Value) -> Value {
    match (kind, value) {
        (Kind::Prices, value) => read_prices::to_json(value),
        (
            Kind::Named(Named {
                entry: Entry::Group { members, short },
                ..
            }),
            Value::Object(entries),
        ) => {
            let entry = |(name, entry)| (name, entry_to_json(members, *short, entry));
            Value::Object(entries.into_iter().map(entry).collect())
        }
        (_, value) => value,
    }
}

fn entry_to_json(members: &[Key], short: bool, mut entry: Value) -> Value {
    let Value::Object(fields) = &mut entry else {
        return entry;
    };
    if let (true, 1, Some(first)) = (short, fields.len(), members.first())
        && let Some(alone) = fields.remove(first.path)
    {
        return alone;
    }
    for member in members {
        if let (Some(json), Some(value)) = (member.json, fields.remove(member.path)) {
            fields.insert(json.to_owned(), value);
        }
    }
    entry
}
