//! Reads a TOML file and remembers where each key stands, for errors with line and column.

use std::collections::BTreeMap;
use std::path::Path;

use onelane_core::model::setting::{KeyPath, Problem};
use serde_json::{Map, Number, Value};
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin, Position, WrongValue};
use super::layer::{Entry, Layer};
use super::read::{self, Refused};
use super::schema::{Naming, secret_of_file};

/// The settings of one file, checked.
pub(crate) fn read_file(path: &Path) -> Result<Layer, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
        path: path.to_owned(),
        message: error.to_string(),
    })?;
    parse(path, &text)
}

/// The settings of a file's text, checked. `path` is what errors call it.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Layer, ConfigError> {
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        position: Position::of(text, error.span().map_or(text.len(), |span| span.start)),
        message: error.message().to_owned(),
    })?;
    let mut document = Document::default();
    let values = document.table(table.get_ref(), &KeyPath::default());
    let (leaves, mut refused) = read::read(&values, Naming::Toml, &|_| false);
    // A number that JSON can't hold has become null, which is refused here for a better reason.
    refused.retain(|r| document.refused.iter().all(|better| better.path != r.path));
    refused.append(&mut document.refused);
    for file in leaves.keys() {
        if let Some(secret) = secret_of_file(file).filter(|secret| leaves.contains_key(secret)) {
            let problem = Problem::from("can't stand beside ").setting(secret);
            refused.push(Refused {
                path: file.clone(),
                problem: problem.words("; set one of them"),
            });
        }
    }
    // A value that stands for a whole group has the place of the group.
    let position = |path: &KeyPath| {
        let mut places = std::iter::successors(Some(path.clone()), KeyPath::parent);
        let offset = places.find_map(|path| document.offsets.get(&path).copied());
        offset.map(|offset| Position::of(text, offset))
    };
    let origin = || Origin::File(path.to_owned());
    if !refused.is_empty() {
        let wrong_value = |Refused { path, problem }| WrongValue {
            position: position(&path),
            ..WrongValue::of(origin(), path, problem)
        };
        let mut errors: Vec<_> = refused.into_iter().map(wrong_value).collect();
        errors.sort_by_key(|wrong| wrong.position.map(|at| (at.line, at.column)));
        return Err(ConfigError::Invalid(errors));
    }
    let mut layer = Layer::default();
    for (path, value) in leaves {
        let entry = Entry {
            value: value.unwrap_or_default(),
            origin: origin(),
            position: position(&path),
        };
        layer.insert(path, entry);
    }
    Ok(layer)
}

/// TOML values on their way to JSON's, with the byte offset of every key and list element.
#[derive(Default)]
struct Document {
    offsets: BTreeMap<KeyPath, usize>,
    refused: Vec<Refused>,
}

impl Document {
    fn table(&mut self, table: &DeTable<'_>, at: &KeyPath) -> Map<String, Value> {
        let mut object = Map::new();
        for (name, value) in table {
            let path = at.join(&**name.get_ref());
            self.offsets.insert(path.clone(), name.span().start);
            let value = self.value(value.get_ref(), &path);
            object.insert(name.get_ref().to_string(), value);
        }
        object
    }

    fn value(&mut self, value: &DeValue<'_>, path: &KeyPath) -> Value {
        match value {
            DeValue::String(text) => Value::from(text.as_ref()),
            DeValue::Boolean(switch) => Value::from(*switch),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Value::from(number),
                    Err(_) => self.refuse(path, "is too large a number"),
                }
            }
            DeValue::Float(number) => {
                let finite = number.as_str().parse().ok().and_then(Number::from_f64);
                match finite {
                    Some(number) => Value::Number(number),
                    None => self.refuse(path, "must be a finite number"),
                }
            }
            DeValue::Datetime(_) => self.refuse(path, "must not be a date"),
            DeValue::Table(table) => Value::Object(self.table(table, path)),
            DeValue::Array(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    let path = path.item(index);
                    self.offsets.insert(path.clone(), item.span().start);
                    list.push(self.value(item.get_ref(), &path));
                }
                Value::Array(list)
            }
        }
    }

    fn refuse(&mut self, path: &KeyPath, problem: &str) -> Value {
        self.refused.push(Refused {
            path: path.clone(),
            problem: problem.into(),
        });
        Value::Null
    }
}
