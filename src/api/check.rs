//! JSON against its schema: every error is found in one reading and named with its place. The bounds
//! that stand at a field are checked here and shown in the OpenAPI document, so that the two can't differ.

use onelane_core::model::json::each;
use onelane_core::model::{BatchId, Day, KeyId, OnDisconnect, SessionId, Timestamp};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::amount;
use super::problem::{Faults, FieldError};
use super::query;
use crate::meant::nearest;
use crate::object::Object;

/// A form of a text beyond its length.
struct Format {
    name: &'static str,
    fits: fn(&str) -> bool,
    /// Follows "must be ".
    phrase: &'static str,
}

const FORMATS: [Format; 10] = [
    Format {
        name: "batch",
        fits: |text| text.parse::<BatchId>().is_ok(),
        phrase: "the id of a batch, like batch_00c0ffee00c0ffee",
    },
    Format {
        name: "client-key",
        fits: |text| text.parse::<KeyId>().is_ok(),
        phrase: "the id of a client key, like ol-00c0ffee00c0ffee",
    },
    Format {
        name: "on-disconnect",
        fits: |text| text.parse::<OnDisconnect>().is_ok(),
        phrase: "abort, keep or drain:SECONDS, of 1 to 86400 seconds",
    },
    Format {
        name: "session",
        fits: |text| text.parse::<SessionId>().is_ok(),
        phrase: "the id of a session: 1 to 256 characters, visible ASCII without spaces",
    },
    Format {
        name: "date-time",
        fits: |text| Timestamp::parse_rfc3339(text).is_some(),
        phrase: "a time in RFC 3339, like 2026-11-23T08:00:00Z; in a URL write + as %2B",
    },
    Format {
        name: "date",
        fits: |text| Day::parse(text).is_some(),
        phrase: "a day of the calendar as YYYY-MM-DD",
    },
    Format {
        name: "uuid",
        fits: |text| Uuid::try_parse(text).is_ok(),
        phrase: "a UUID, such as the id of a job",
    },
    Format {
        name: "cursor",
        fits: |text| text.parse::<u64>().is_ok(),
        phrase: "the nextCursor of the page before",
    },
    Format {
        name: "wait",
        fits: |text| query::wait(text).is_some(),
        phrase: "a duration like 500ms, 30s or 2m, at most 5m",
    },
    Format {
        name: "amount",
        fits: |text| amount::parse(text).is_some(),
        phrase: "an amount of at most nine decimals, not negative, such as 0.0125",
    },
];

/// Notes what is wrong with `json`, which is at the place `at`.
pub(super) fn check(whole: &Value, json: &RawValue, at: &str, errors: &mut Faults) {
    let Some(schema) = whole.as_object() else {
        return;
    };
    if let Some(options) = schema.get("anyOf").and_then(Value::as_array) {
        // An optional noun: itself or null.
        let of_null = |option: &&Value| option.get("type").is_some_and(|of| of == "null");
        let is_noun = json.get() != "null" || !options.iter().any(|option| of_null(&option));
        if is_noun && let Some(noun) = options.iter().find(|option| !of_null(option)) {
            check(noun, json, at, errors);
        }
        return;
    }
    let types = types(schema);
    let names = names(schema);
    let found = type_of(json.get());
    let of_type = types.is_empty()
        || types.contains(&found)
        || (found == "number" && types.contains(&"integer"));
    let fits = of_type
        && match found {
            "null" => true,
            "object" => {
                return match object(json, at) {
                    Ok(fields) => check_fields(whole, &fields, at, errors),
                    Err(bad) => errors.extend(bad),
                };
            }
            "array" => return check_array(schema, json, at, errors),
            _ if !names.is_empty() => {
                text_of(json).is_some_and(|text| names.contains(&text.as_str()))
            }
            "string" => is_plain(schema) || text_of(json).is_some_and(|t| text_fits(schema, &t)),
            "number" => number_fits(schema, &types, json.get()),
            _ => true,
        };
    if !fits {
        errors.add(|| {
            let mut problem = format!("must be {}", phrase(schema, &types, &names));
            if let Some(near) = text_of(json).and_then(|text| nearest(&names, &text)) {
                problem = format!("{problem}; did you mean {near}?");
            }
            FieldError::new(name_of(at), problem)
        });
    }
}

/// Reads an object at the place `at`.
pub(super) fn object<'a>(json: &'a RawValue, at: &str) -> Result<Object<'a>, Faults> {
    serde_json::from_str(json.get()).map_err(|error| {
        let problem = match type_of(json.get()) {
            "object" => format!("is a bad object: {error}"),
            _ => "must be a JSON object".to_owned(),
        };
        vec![FieldError::new(name_of(at), problem)].into()
    })
}

/// Notes what is wrong with these fields of the object at the place `at`.
pub(super) fn check_fields(schema: &Value, fields: &Object<'_>, at: &str, errors: &mut Faults) {
    let none = Map::new();
    let known = schema.get("properties").and_then(Value::as_object);
    let known = known.unwrap_or(&none);
    let place = |name: &str| join(at, name);
    if let Some(name) = fields.twice() {
        return errors.add(|| FieldError::new(place(name), "is given twice; give it once"));
    }
    for (name, value) in fields.iter() {
        match (known.get(name), schema.get("additionalProperties")) {
            (Some(schema), _) => check(schema, value, &place(name), errors),
            (None, Some(Value::Bool(false))) => {
                errors.add(|| FieldError::new(place(name), unknown(known, name)));
            }
            (None, Some(others)) => check(others, value, &place(name), errors),
            (None, None) => {}
        }
    }
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        if fields.get(name).is_none() {
            errors.add(|| FieldError::new(place(name), "is missing"));
        }
    }
}

fn unknown(known: &Map<String, Value>, name: &str) -> String {
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    match (nearest(&names, name), names.as_slice()) {
        (Some(near), _) => format!("is unknown; did you mean {near}?"),
        (None, []) => "is unknown; nothing is taken here".to_owned(),
        (None, [only]) => format!("is unknown; the only one is {only}"),
        (None, names) => format!("is unknown; there are {}", names.join(", ")),
    }
}

fn check_array(schema: &Map<String, Value>, json: &RawValue, at: &str, errors: &mut Faults) {
    let bound = |name| schema.get(name).and_then(Value::as_u64);
    // An element beyond the bound is counted, and not looked at.
    let most = bound("maxItems").unwrap_or(u64::MAX);
    let items = schema.get("items").filter(|items| items.is_object());
    let mut length = 0;
    let mut of_elements = Faults::default();
    let is_list = each(json, |element| {
        if let Some(items) = items.filter(|_| length < most) {
            check(items, element, &format!("{at}[{length}]"), &mut of_elements);
        }
        length += 1;
        true
    });
    if is_list.is_none() {
        return errors.add(|| FieldError::new(name_of(at), "must be a list"));
    }
    if bound("minItems").is_some_and(|min| length < min) || length > most {
        errors.add(|| {
            let problem = format!(
                "must be {}; it has {length}",
                phrase(schema, &["array"], &[])
            );
            FieldError::new(name_of(at), problem)
        });
    }
    errors.extend(of_elements);
}

/// The place of a field in the object at `at`.
pub(super) fn join(at: &str, name: &str) -> String {
    match at {
        "" => name.to_owned(),
        at => format!("{at}.{name}"),
    }
}

/// What stands where the whole is meant.
fn name_of(at: &str) -> &str {
    match at {
        "" => "the body",
        at => at,
    }
}

fn types(schema: &Map<String, Value>) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(some)) => some.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The names that may be given, where it is one of some.
fn names(schema: &Map<String, Value>) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    let list = schema.get("enum").and_then(Value::as_array);
    names.extend(list.into_iter().flatten().filter_map(Value::as_str));
    let options = schema.get("oneOf").and_then(Value::as_array);
    for option in options.into_iter().flatten() {
        names.extend(option.get("const").and_then(Value::as_str));
        let list = option.get("enum").and_then(Value::as_array);
        names.extend(list.into_iter().flatten().filter_map(Value::as_str));
    }
    names
}

fn type_of(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    }
}

/// A string's text; `None` when it is none, or names characters that do not exist.
fn text_of(json: &RawValue) -> Option<String> {
    serde_json::from_str(json.get()).ok()
}

/// Whether any string will do.
fn is_plain(schema: &Map<String, Value>) -> bool {
    !["minLength", "maxLength", "format"]
        .iter()
        .any(|bound| schema.contains_key(*bound))
}

fn text_fits(schema: &Map<String, Value>, text: &str) -> bool {
    let bound = |name| schema.get(name).and_then(Value::as_u64);
    let length = text.chars().count() as u64;
    bound("minLength").is_none_or(|min| length >= min)
        && bound("maxLength").is_none_or(|max| length <= max)
        && format(schema).is_none_or(|format| (format.fits)(text))
}

fn format(schema: &Map<String, Value>) -> Option<&'static Format> {
    let name = schema.get("format").and_then(Value::as_str)?;
    FORMATS.iter().find(|format| format.name == name)
}

fn number_fits(schema: &Map<String, Value>, types: &[&str], text: &str) -> bool {
    if let Some(format) = format(schema) {
        return (format.fits)(text);
    }
    if !types.contains(&"integer") {
        return true;
    }
    let (min, max) = range(schema);
    let number = text.parse::<i128>().ok();
    number.is_some_and(|n| min.is_none_or(|min| n >= min) && max.is_none_or(|max| n <= max))
}

/// The bounds of a whole number: those that its field states, else those of its type.
fn range(schema: &Map<String, Value>) -> (Option<i128>, Option<i128>) {
    let stated = |name| schema.get(name)?.to_string().parse::<i128>().ok();
    let (low, high) = match schema.get("format").and_then(Value::as_str) {
        Some("int32") => (Some(i32::MIN.into()), Some(i32::MAX.into())),
        Some("int64") => (Some(i64::MIN.into()), Some(i64::MAX.into())),
        Some("uint32") => (Some(0), Some(u32::MAX.into())),
        Some("uint64") => (Some(0), Some(u64::MAX.into())),
        _ => (None, None),
    };
    (stated("minimum").or(low), stated("maximum").or(high))
}

/// What would be right, to follow "must be ".
fn phrase(schema: &Map<String, Value>, types: &[&str], names: &[&str]) -> String {
    if !names.is_empty() {
        return format!("one of {}", names.join(", "));
    }
    if let Some(format) = format(schema) {
        return format.phrase.to_owned();
    }
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    let counted = |what: &str, min: &str, max: &str, of: &str| match (bound(min), bound(max)) {
        (None | Some(0), Some(max)) => format!("{what} of at most {max} {of}"),
        (Some(min), Some(max)) => format!("{what} of {min} to {max} {of}"),
        (Some(1), None) => format!("{what} that is not empty"),
        (Some(min), None) => format!("{what} of at least {min} {of}"),
        _ => what.to_owned(),
    };
    match types.iter().find(|of| **of != "null") {
        Some(&"string") => counted("a string", "minLength", "maxLength", "characters"),
        Some(&"array") => counted("a list", "minItems", "maxItems", "elements"),
        Some(&"object") => "a JSON object".to_owned(),
        Some(&"boolean") => "true or false".to_owned(),
        Some(&"integer") => match range(schema) {
            (Some(min), Some(max)) => format!("a whole number from {min} to {max}"),
            _ => "a whole number".to_owned(),
        },
        _ => "a number".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors(schema: &Value, json: &str) -> Vec<String> {
        let mut errors = Faults::default();
        check(schema, serde_json::from_str(json).unwrap(), "", &mut errors);
        assert_eq!(errors.total, errors.first.len());
        let told = errors.first.into_iter();
        told.map(|error| format!("{} {}", error.field, error.problem))
            .collect()
    }

    #[test]
    fn all_faults_of_an_object_are_found_at_once() {
        let schema = json!({"type": "object", "additionalProperties": false, "required": ["p"],
        "properties": {
            "s": {"type": "string", "minLength": 1, "maxLength": 3},
            "n": {"type": ["integer", "null"], "format": "uint32", "minimum": 0, "maximum": 9},
            "m": {"type": "string", "format": "date-time"},
            "o": {"type": "object", "properties": {"e": {"enum": ["low", "high"]}}},
            "l": {"type": "array", "maxItems": 2, "items": {"type": "boolean"}},
            "p": true,
        }});
        assert_eq!(
            errors(
                &schema,
                r#"{"s":"","n":1.5,"m":"noon","o":{"e":"hihg"},"l":[1,true,true],"xyz":1}"#
            ),
            [
                "s must be a string of 1 to 3 characters",
                "n must be a whole number from 0 to 9",
                "m must be a time in RFC 3339, like 2026-11-23T08:00:00Z; in a URL write + as %2B",
                "o.e must be one of low, high; did you mean high?",
                "l must be a list of at most 2 elements; it has 3",
                "l[0] must be true or false",
                "xyz is unknown; there are l, m, n, o, p, s",
                "p is missing",
            ]
        );
        assert_eq!(errors(&schema, r#"{"s":"智谱清","n":null,"p":7}"#), [""; 0]);
        assert_eq!(errors(&schema, "[]"), ["the body must be a JSON object"]);
    }

    #[test]
    fn an_optional_noun_may_be_null_and_is_checked_else() {
        let schema = json!({"anyOf": [
            {"type": "object", "additionalProperties": false, "properties": {"reason": true}},
            {"type": "null"}]});
        assert_eq!(errors(&schema, "null"), [""; 0]);
        assert_eq!(
            errors(&schema, r#"{"reasons":1}"#),
            ["reasons is unknown; did you mean reason?"]
        );
    }
}
