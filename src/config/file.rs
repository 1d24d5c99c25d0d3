//! Reads a TOML file and remembers where each key stands, for errors with line and column.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Number, Value};
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Fault, Origin, Position};
use super::layer::{Entry, Layer, secrets_of};
use super::path::{join, parent};
use super::read;
use super::schema::Naming;

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
    let values = document.table(table.get_ref(), "");
    let (leaves, mut problems) = read::read(&values, Naming::Toml, &|_| false);
    // A number that JSON can't hold has become null, which is refused here for a better reason.
    problems.retain(|p| document.problems.iter().all(|q| q.path != p.path));
    problems.extend(document.problems.iter().cloned());
    for (given, file) in secrets_of(leaves.keys().map(String::as_str)) {
        if leaves.contains_key(&given) && leaves.contains_key(&file) {
            problems.push(read::Problem {
                path: file,
                problem: format!("can't stand beside {given}; set one of them"),
            });
        }
    }
    // A value that stands for a whole group has the place of the group.
    let position = |path: &str| {
        let mut places = std::iter::successors(Some(path), |path| parent(path));
        let offset = places.find_map(|path| document.offsets.get(path));
        offset.map(|offset| Position::of(text, *offset))
    };
    let origin = || Origin::File(path.to_owned());
    let mut faults: Vec<_> = problems
        .into_iter()
        .map(|problem| Fault {
            origin: origin(),
            position: position(&problem.path),
            key: problem.path,
            problem: problem.problem,
        })
        .collect();
    if !faults.is_empty() {
        faults.sort_by_key(|fault| fault.position.map(|at| (at.line, at.column)));
        return Err(ConfigError::Invalid(faults));
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
    offsets: BTreeMap<String, usize>,
    problems: Vec<read::Problem>,
}

impl Document {
    fn table(&mut self, table: &DeTable<'_>, prefix: &str) -> Map<String, Value> {
        let mut object = Map::new();
        for (name, value) in table {
            let path = join(prefix, name.get_ref());
            self.offsets.insert(path.clone(), name.span().start);
            let value = self.value(value.get_ref(), &path);
            object.insert(name.get_ref().to_string(), value);
        }
        object
    }

    fn value(&mut self, value: &DeValue<'_>, path: &str) -> Value {
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
                    let path = format!("{path}[{index}]");
                    self.offsets.insert(path.clone(), item.span().start);
                    list.push(self.value(item.get_ref(), &path));
                }
                Value::Array(list)
            }
        }
    }

    fn refuse(&mut self, path: &str, problem: &str) -> Value {
        self.problems.push(read::Problem {
            path: path.to_owned(),
            problem: problem.to_owned(),
        });
        Value::Null
    }
}
