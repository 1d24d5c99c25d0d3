//! JSON objects field by field: every fault of an object is found in one reading and named with its
//! place, and what is taken verbatim stays verbatim.

use std::fmt;
use std::ops::RangeInclusive;

use onelane_core::model::{JobId, Timestamp};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::limits;
use super::problem::Fault;

/// A JSON object: its fields in their order, values untouched, no name twice.
#[derive(Debug, Default)]
pub(super) struct Object(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                match twice(&fields) {
                    Some(name) => Err(A::Error::custom(format!("{name} is given twice"))),
                    None => Ok(Object(fields)),
                }
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// A name that two fields have.
fn twice(fields: &[(String, Box<RawValue>)]) -> Option<&str> {
    let mut names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let mut pairs = names.iter().zip(names.iter().skip(1));
    pairs.find(|(a, b)| a == b).map(|(name, _)| *name)
}

impl Object {
    /// Reads an object; the error is a phrase that follows the name of what should be one.
    pub(super) fn read(raw: &RawValue) -> Result<Self, String> {
        if !raw.get().starts_with('{') {
            return Err("must be a JSON object".to_owned());
        }
        serde_json::from_str(raw.get()).map_err(|error| format!("is a bad object: {error}"))
    }

    /// A field's value; `null` counts as missing.
    pub(super) fn get(&self, name: &str) -> Option<&RawValue> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found
            .map(|(_, value)| &**value)
            .filter(|value| value.get() != "null")
    }

    /// All fields in their order, nulls included.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), &**value))
    }
}

/// Reads an object of known fields. A wrong one is noted and reads as missing; [`Fields::finish`]
/// tells of all that was wrong.
#[derive(Debug)]
pub(super) struct Fields {
    /// Where the object is: empty, or `[3].`.
    at: String,
    object: Object,
    known: Vec<&'static str>,
    faults: Vec<Fault>,
}

impl Fields {
    /// The fields of the object at `at`.
    pub(super) const fn new(at: String, object: Object) -> Self {
        Self {
            at,
            object,
            known: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Notes a fault.
    pub(super) fn fault(&mut self, name: &str, problem: impl Into<String>) {
        let field = format!("{}{name}", self.at);
        self.faults.push(Fault::new(field, problem));
    }

    /// Whether a field is there and not `null`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.object.get(name).is_some()
    }

    /// Any JSON, verbatim.
    pub(super) fn raw(&mut self, name: &'static str) -> Option<Box<RawValue>> {
        self.known.push(name);
        self.object.get(name).map(ToOwned::to_owned)
    }

    /// An object.
    pub(super) fn object(&mut self, name: &'static str) -> Option<Object> {
        let raw = self.raw(name)?;
        self.note(name, Object::read(&raw))
    }

    /// A string, whatever its length.
    pub(super) fn string(&mut self, name: &'static str) -> Option<String> {
        let raw = self.raw(name)?;
        let read = serde_json::from_str(raw.get()).map_err(|_| "must be a string".to_owned());
        self.note(name, read)
    }

    /// A string of 1 to `max_chars` characters.
    pub(super) fn text(&mut self, name: &'static str, max_chars: usize) -> Option<String> {
        let text = self.string(name)?;
        self.note(name, check_text(text, max_chars))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let raw = self.raw(name)?;
        let read = serde_json::from_str(raw.get()).map_err(|_| "must be true or false".to_owned());
        self.note(name, read)
    }

    /// One of some names.
    pub(super) fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.string(name)?;
        let found = choices.iter().find(|(known, _)| *known == text);
        let read = found.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(known, _)| *known).collect();
            format!("must be one of {}", names.join(", "))
        });
        self.note(name, read)
    }

    /// The ids of at most `max` jobs.
    pub(super) fn job_ids(&mut self, name: &'static str, max: usize) -> Option<Vec<JobId>> {
        let raw = self.raw(name)?;
        let read = serde_json::from_str(raw.get())
            .map_err(|_| "must be a list of job ids".to_owned())
            .and_then(|ids: Vec<String>| {
                if ids.len() > max {
                    return Err(format!("must name at most {max} jobs"));
                }
                let id = |id: &String| {
                    id.parse().map_err(|_| {
                        let shown: String = id.chars().take(limits::ID_CHARS_SHOWN).collect();
                        format!("{shown} is not a job id")
                    })
                };
                ids.iter().map(id).collect()
            });
        self.note(name, read)
    }

    /// The id of a job.
    pub(super) fn job_id(&mut self, name: &'static str) -> Option<JobId> {
        let text = self.string(name)?;
        let read = text.parse().map_err(|_| {
            let shown: String = text.chars().take(limits::ID_CHARS_SHOWN).collect();
            format!("{shown} is not a job id")
        });
        self.note(name, read)
    }

    /// Takes over the faults of an object within this one.
    pub(super) fn extend(&mut self, faults: Vec<Fault>) {
        self.faults.extend(faults);
    }

    /// A whole number within a range.
    pub(super) fn integer<T>(&mut self, name: &'static str, range: RangeInclusive<T>) -> Option<T>
    where
        T: for<'de> Deserialize<'de> + PartialOrd + fmt::Display,
    {
        self.number(name, "a whole number", range)
    }

    /// A time in milliseconds within a range.
    pub(super) fn milliseconds(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        self.number(name, "a whole number of milliseconds", range)
    }

    fn number<T>(&mut self, name: &'static str, what: &str, range: RangeInclusive<T>) -> Option<T>
    where
        T: for<'de> Deserialize<'de> + PartialOrd + fmt::Display,
    {
        let raw = self.raw(name)?;
        let read = serde_json::from_str(raw.get()).ok();
        let read = read
            .filter(|n| range.contains(n))
            .ok_or_else(|| format!("must be {what} from {} to {}", range.start(), range.end()));
        self.note(name, read)
    }

    /// A moment.
    pub(super) fn moment(&mut self, name: &'static str) -> Option<Timestamp> {
        let text = self.string(name)?;
        let read = Timestamp::parse_rfc3339(&text)
            .ok_or_else(|| "must be a time in RFC 3339, like 2026-11-23T08:00:00Z".to_owned());
        self.note(name, read)
    }

    /// All faults, those of fields that nobody asked for included.
    pub(super) fn finish(mut self) -> Result<(), Vec<Fault>> {
        let unknown: Vec<String> = self
            .object
            .iter()
            .map(|(name, _)| name)
            .filter(|name| !self.known.contains(name))
            .take(limits::FAULTS_SHOWN_MAX)
            .map(str::to_owned)
            .collect();
        for name in unknown {
            let problem = match self.known.as_slice() {
                [only] => format!("is unknown; the only field is {only}"),
                known => format!("is unknown; the fields are {}", known.join(", ")),
            };
            self.fault(&name, problem);
        }
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(self.faults)
        }
    }

    fn note<T>(&mut self, name: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|problem| self.fault(name, problem)).ok()
    }
}

/// A text of 1 to `max_chars` characters; the error is a phrase that follows the field's name.
pub(super) fn check_text(text: String, max_chars: usize) -> Result<String, String> {
    if text.is_empty() || text.chars().count() > max_chars {
        return Err(format!("must have 1 to {max_chars} characters"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Result<Object, String> {
        Object::read(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn fields_keep_their_order_and_spelling() {
        let object = object(r#"{"z":1.50,"a":{"y":[ 1 ]},"n":null}"#).unwrap();
        let fields: Vec<_> = object.iter().map(|(n, v)| (n, v.get())).collect();
        assert_eq!(
            fields,
            [("z", "1.50"), ("a", r#"{"y":[ 1 ]}"#), ("n", "null")]
        );
        assert!(object.get("n").is_none(), "null counts as missing");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert_eq!(object("[1]").unwrap_err(), "must be a JSON object");
        assert_eq!(object("null").unwrap_err(), "must be a JSON object");
        let twice = object(r#"{"a":1,"a":2}"#).unwrap_err();
        assert!(twice.contains("a is given twice"), "{twice}");
    }

    #[test]
    fn all_faults_of_an_object_are_found_at_once() {
        let json = r#"{"s":7,"t":"","n":1.5,"m":"noon","o":[],"x":1,"fine":"ok"}"#;
        let mut fields = Fields::new("[2].".to_owned(), object(json).unwrap());
        assert_eq!(fields.string("s"), None);
        assert_eq!(fields.text("t", 3), None);
        assert_eq!(fields.integer("n", 0..=9_u32), None);
        assert_eq!(fields.moment("m"), None);
        assert!(fields.object("o").is_none());
        assert_eq!(fields.text("fine", 3).as_deref(), Some("ok"));
        assert_eq!(fields.string("missing"), None);
        let faults: Vec<_> = fields
            .finish()
            .unwrap_err()
            .into_iter()
            .map(|f| format!("{} {}", f.field, f.problem))
            .collect();
        assert_eq!(
            faults,
            [
                "[2].s must be a string",
                "[2].t must have 1 to 3 characters",
                "[2].n must be a whole number from 0 to 9",
                "[2].m must be a time in RFC 3339, like 2026-11-23T08:00:00Z",
                "[2].o must be a JSON object",
                "[2].x is unknown; the fields are s, t, n, m, o, fine, missing",
            ]
        );
    }

    #[test]
    fn characters_are_counted_not_bytes() {
        assert!(check_text("智谱清".to_owned(), 3).is_ok());
        assert!(check_text("智谱清言".to_owned(), 3).is_err());
    }
}
