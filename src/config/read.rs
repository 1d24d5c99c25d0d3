//! Reads nested values, whoever wrote them, into checked leaves by way of the table of settings.

use std::collections::BTreeMap;

use onelane_actors::model::FailureClass;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::prices::{self, ModelPrice};
use super::schema::{KEYS, Key, Kind, Naming, U63};
use super::suggest::{quoted, unknown, unknown_among};
use super::text;

const CLASSES: &[FailureClass] = &[
    FailureClass::Throttle,
    FailureClass::Overload,
    FailureClass::QuotaWindow,
    FailureClass::OperatorFatal,
    FailureClass::RequestFatal,
    FailureClass::ServerTransient,
    FailureClass::DuplicateRequest,
];

/// Fields of a price row: their names in `config.toml` and in the API.
const PRICE_FIELDS: &[(&str, &str)] = &[
    ("model", "model"),
    ("input", "input"),
    ("cached_input", "cachedInput"),
    ("output", "output"),
    ("prompt_from", "promptFrom"),
    ("completion_from", "completionFrom"),
];

/// What is wrong at a path, in the names of whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) path: String,
    pub(crate) problem: String,
}

/// Leaf values by their path in `config.toml` (`policy` has a leaf per code), checked and in
/// canonical form; `None` means reset.
pub(crate) type Leaves = BTreeMap<String, Option<Value>>;

/// Reads a nested object into leaves. All problems are found, not only the first.
pub(crate) fn read(object: &Map<String, Value>, naming: Naming) -> (Leaves, Vec<Problem>) {
    let mut reader = Reader {
        naming,
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
        Kind::Policy | Kind::Prices => return Err(format!("{path} can only be set in a file")),
    };
    scalar(kind, &value)
}

struct Reader {
    naming: Naming,
    leaves: Leaves,
    problems: Vec<Problem>,
}

impl Reader {
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
            (Kind::Policy, Value::Object(classes)) => self.policy(classes, path),
            (Kind::Policy, other) if !other.is_null() => {
                self.mismatch(path, group_name(self.naming), other);
            }
            (_, Value::Null) if self.naming == Naming::Json => {
                self.leaves.insert(key.path.to_owned(), None);
            }
            (Kind::Prices, value) => self.prices(key, path, value),
            (kind, value) => match scalar(kind, value) {
                Ok(value) => {
                    self.leaves.insert(key.path.to_owned(), Some(value));
                }
                Err(problem) => self.problem(path.to_owned(), problem),
            },
        }
    }

    fn policy(&mut self, classes: &Map<String, Value>, path: &str) {
        for (code, class) in classes {
            let at = join(path, code);
            if let Err(problem) = text::policy_code(code) {
                self.problem(at, problem);
                continue;
            }
            let class = match class {
                Value::Null if self.naming == Naming::Json => Ok(None),
                class => failure_class(class).map(Some),
            };
            match class {
                Ok(class) => {
                    self.leaves.insert(join("policy", code), class);
                }
                Err(problem) => self.problem(at, problem),
            }
        }
    }

    fn prices(&mut self, key: &Key, path: &str, value: &Value) {
        let Value::Array(rows) = value else {
            return self.mismatch(path, "a list of prices", value);
        };
        let problems_before = self.problems.len();
        let prices: Vec<ModelPrice> = rows
            .iter()
            .enumerate()
            .filter_map(|(index, row)| self.price(&format!("{path}[{index}]"), row))
            .collect();
        if self.problems.len() > problems_before {
            return;
        }
        if let Err(fault) = prices::check(&prices) {
            return self.problem(format!("{path}[{}]", fault.index), fault.problem);
        }
        match serde_json::to_value(&prices) {
            Ok(value) => {
                self.leaves.insert(key.path.to_owned(), Some(value));
            }
            Err(error) => self.problem(path.to_owned(), error.to_string()),
        }
    }

    fn price(&mut self, path: &str, row: &Value) -> Option<ModelPrice> {
        let Value::Object(row) = row else {
            self.mismatch(path, group_name(self.naming), row);
            return None;
        };
        let problems_before = self.problems.len();
        let mut fields = Map::new();
        for (name, value) in row {
            let field = PRICE_FIELDS
                .iter()
                .find(|field| spelled(self.naming, field) == name);
            let Some(field) = field else {
                let names: Vec<_> = PRICE_FIELDS
                    .iter()
                    .map(|field| spelled(self.naming, field))
                    .collect();
                let problem = unknown_among(&names, name, "a price");
                self.problem(join(path, name), problem);
                continue;
            };
            match price_field(field.0, value) {
                Ok(value) => {
                    fields.insert(field.0.to_owned(), value);
                }
                Err(problem) => self.problem(join(path, name), problem),
            }
        }
        if self.problems.len() > problems_before {
            return None;
        }
        for name in ["model", "input", "output"] {
            if !fields.contains_key(name) {
                self.problem(path.to_owned(), format!("needs `{name}`"));
                return None;
            }
        }
        ModelPrice::deserialize(Value::Object(fields))
            .map_err(|error| self.problem(path.to_owned(), error.to_string()))
            .ok()
    }

    fn mismatch(&mut self, path: &str, expected: &str, value: &Value) {
        let problem = format!("must be {expected}, not {}", type_name(value));
        self.problem(path.to_owned(), problem);
    }

    fn problem(&mut self, path: String, problem: String) {
        self.problems.push(Problem { path, problem });
    }
}

fn scalar(kind: &Kind, value: &Value) -> Result<Value, String> {
    let mismatch = |expected: &str| Err(format!("must be {expected}, not {}", type_name(value)));
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
        Kind::Policy | Kind::Prices => mismatch("a scalar"),
    }
}

fn one_of(words: &[&str], value: &Value) -> Result<Value, String> {
    if value.as_str().is_some_and(|text| words.contains(&text)) {
        return Ok(value.clone());
    }
    Err(format!("must be one of {}", quoted(words)))
}

fn failure_class(value: &Value) -> Result<Value, String> {
    let names: Vec<_> = CLASSES.iter().map(|class| class.name()).collect();
    one_of(&names, value)
}

fn price_field(name: &str, value: &Value) -> Result<Value, String> {
    match (name, value) {
        ("model", Value::String(_)) => Ok(value.clone()),
        ("model", _) => Err(format!("must be text, not {}", type_name(value))),
        ("prompt_from" | "completion_from", _) => scalar(&U63, value),
        ("cached_input", Value::Null) => Ok(Value::Null),
        (_, Value::Number(number)) if !number.is_u64() && !number.is_i64() => {
            Err(prices::float_problem(&number.to_string()))
        }
        _ => match prices::Price::deserialize(value) {
            Ok(price) => Ok(Value::from(price.to_string())),
            Err(_) if !value.is_string() && !value.is_number() => {
                Err(format!("must be decimal text, not {}", type_name(value)))
            }
            Err(error) => Err(error.to_string()),
        },
    }
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

/// A path and one more name.
pub(crate) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() {
        return name.to_owned();
    }
    format!("{prefix}.{name}")
}

/// Checked prices, as the API shows them.
pub(crate) fn prices_to_json(mut prices: Value) -> Value {
    for row in prices.as_array_mut().into_iter().flatten() {
        let Value::Object(row) = row else { continue };
        for (toml, json) in PRICE_FIELDS {
            if let Some(value) = row.remove(*toml) {
                row.insert((*json).to_owned(), value);
            }
        }
    }
    prices
}

fn spelled(naming: Naming, field: &(&'static str, &'static str)) -> &'static str {
    match naming {
        Naming::Toml => field.0,
        Naming::Json => field.1,
    }
}

fn group_name(naming: Naming) -> &'static str {
    match naming {
        Naming::Toml => "a table",
        Naming::Json => "an object",
    }
}
