//! Reads the rows of the operator's own price list.

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::path::join;
use super::prices::{self, ModelPrice};
use super::read::{Problem, group_name, mismatch, scalar};
use super::schema::{Kind, Naming, U63};
use super::suggest::unknown_among;

/// Fields of a price row: their names in `config.toml` and in the API.
const FIELDS: &[(&str, &str)] = &[
    ("model", "model"),
    ("input", "input"),
    ("cached_input", "cachedInput"),
    ("output", "output"),
    ("prompt_from", "promptFrom"),
    ("completion_from", "completionFrom"),
    ("prompt_to", "promptTo"),
    ("currency", "currency"),
];

const CURRENCY: Kind = Kind::OneOf(&["CNY", "USD", "POINTS"]);

/// Reads a list of prices at `path` into its canonical form, or finds all that is wrong in it.
pub(crate) fn read(naming: Naming, path: &str, value: &Value) -> Result<Value, Vec<Problem>> {
    let Value::Array(rows) = value else {
        let problem = mismatch("a list of prices", value);
        return Err(vec![Problem::at(path, problem)]);
    };
    let mut read = Vec::with_capacity(rows.len());
    let mut problems = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        match price(naming, &format!("{path}[{index}]"), row) {
            Ok(price) => read.push(price),
            Err(more) => problems.extend(more),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    prices::check(&read).map_err(|fault| {
        let path = format!("{path}[{}]", fault.index);
        vec![Problem::at(&path, fault.problem)]
    })?;
    serde_json::to_value(&read).map_err(|error| vec![Problem::at(path, error.to_string())])
}

fn price(naming: Naming, path: &str, row: &Value) -> Result<ModelPrice, Vec<Problem>> {
    let Value::Object(row) = row else {
        let problem = mismatch(group_name(naming), row);
        return Err(vec![Problem::at(path, problem)]);
    };
    let mut fields = Map::new();
    let mut problems = Vec::new();
    for (name, value) in row {
        let field = FIELDS.iter().find(|field| spelled(naming, field) == name);
        let Some(field) = field else {
            let names: Vec<_> = FIELDS.iter().map(|field| spelled(naming, field)).collect();
            let problem = unknown_among(&names, name, "a price");
            problems.push(Problem::at(&join(path, name), problem));
            continue;
        };
        match price_field(field.0, value) {
            Ok(value) => {
                fields.insert(field.0.to_owned(), value);
            }
            Err(problem) => problems.push(Problem::at(&join(path, name), problem)),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    for name in ["model", "input", "output"] {
        if !fields.contains_key(name) {
            return Err(vec![Problem::at(path, format!("needs `{name}`"))]);
        }
    }
    ModelPrice::deserialize(Value::Object(fields))
        .map_err(|error| vec![Problem::at(path, error.to_string())])
}

fn price_field(name: &str, value: &Value) -> Result<Value, String> {
    match (name, value) {
        ("model", Value::String(_)) => Ok(value.clone()),
        ("model", _) => Err(mismatch("text", value)),
        ("cached_input" | "prompt_to" | "currency", Value::Null) => Ok(Value::Null),
        ("prompt_from" | "completion_from" | "prompt_to", _) => scalar(&U63, value),
        ("currency", _) => scalar(&CURRENCY, value),
        (_, Value::Number(number)) if !number.is_u64() && !number.is_i64() => {
            Err(prices::float_problem(&number.to_string()))
        }
        _ => match prices::Price::deserialize(value) {
            Ok(price) => Ok(Value::from(price.to_string())),
            Err(_) if !value.is_string() && !value.is_number() => {
                Err(mismatch("decimal text", value))
            }
            Err(error) => Err(error.to_string()),
        },
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
        prices: Vec<BTreeMap<String, &'a RawValue>>,
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

/// Checked prices, as the API shows them.
pub(crate) fn to_json(mut prices: Value) -> Value {
    for row in prices.as_array_mut().into_iter().flatten() {
        let Value::Object(row) = row else { continue };
        for (toml, json) in FIELDS {
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
