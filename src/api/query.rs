//! Query parameters and parts of a path as JSON, typed by the schema of what they are read into: so
//! that they are checked and read like a body. Decoded strictly: a malformed one is named, not ignored.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::limits;
use super::problem::FieldError;

/// Reads `raw`, what follows the question mark, as a JSON object. Refuses a parameter that comes twice,
/// that is empty or malformed; whether it is known, its schema says.
pub(super) fn to_json(raw: &str, schema: &Value) -> Result<String, FieldError> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let is_strict = schema.get("additionalProperties") == Some(&Value::Bool(false));
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let is_known = |name: &String| schema["properties"].get(name).is_some();
        // What nobody looks at may be anything.
        if !is_strict && !decode(name).as_ref().is_some_and(is_known) {
            continue;
        }
        let bad = |name: &str| FieldError::new(name, "is not percent-encoded UTF-8");
        let name = decode(name).ok_or_else(|| bad(name))?;
        let value = decode(value).ok_or_else(|| bad(&name))?;
        if pairs.iter().any(|(known, _)| *known == name) {
            return Err(FieldError::new(name, "is given twice"));
        }
        if value.is_empty() && is_known(&name) {
            return Err(FieldError::new(
                name,
                "is empty; give it a value or leave it out",
            ));
        }
        pairs.push((name, value));
    }
    Ok(object(&pairs, schema))
}

/// The fields of a form or of a query, decoded, as often as they come; `None`: they are not percent-encoded UTF-8.
#[cfg(feature = "desk")]
pub(crate) fn pairs(raw: &str) -> Option<Vec<(String, String)>> {
    let pairs = raw.split('&').filter(|pair| !pair.is_empty());
    let read = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(name)?, decode(value)?))
    };
    pairs.map(read).collect()
}

/// Texts as a JSON object, each as its schema has it.
pub(super) fn object<N: AsRef<str>>(pairs: &[(N, String)], schema: &Value) -> String {
    let mut json = String::from("{");
    for (name, value) in pairs {
        let comma = if json.len() > 1 { "," } else { "" };
        let of = schema
            .get("properties")
            .and_then(|all| all.get(name.as_ref()));
        let value = typed(of.unwrap_or(&Value::Null), value);
        let _ = write!(json, "{comma}{}:{value}", quoted(name.as_ref()));
    }
    json.push('}');
    json
}

/// A text as JSON of the type that its schema asks for; where it can't be that, as a string, which the
/// check then refuses.
fn typed(schema: &Value, text: &str) -> String {
    let is = |name: &str| match &schema["type"] {
        Value::Array(names) => names.iter().any(|known| known == name),
        one => one == name,
    };
    if is("array") {
        let items = text.split(',').map(|item| typed(&schema["items"], item));
        return format!("[{}]", items.collect::<Vec<_>>().join(","));
    }
    if is("boolean") && matches!(text, "true" | "false") {
        return text.to_owned();
    }
    // As JSON it has no leading zeros.
    match text.parse::<i128>() {
        Ok(number) if is("integer") && !text.starts_with('+') => number.to_string(),
        _ => quoted(text),
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Percent-decodes a part of a path, where a plus is a plus.
pub(super) fn decode_segment(text: &str) -> Option<String> {
    decode(&text.replace('+', "%2B"))
}

/// Percent-decodes; `None` when an escape is broken or the bytes are not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Where a page begins. As text: it may be larger than what a JavaScript number holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor(pub(super) u64);

/// How long to wait for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait(pub(super) Duration);

/// `500ms`, `30s`, `2m`, up to the longest wait.
pub(super) fn wait(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(unit_at)?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return None,
    };
    let ms = number.parse::<u64>().ok()?.checked_mul(unit_ms)?;
    (ms <= limits::WAIT_MS_MAX).then(|| Duration::from_millis(ms))
}

/// A text with a form of its own, which [`super::check`] knows by the format's name.
macro_rules! formatted {
    ($name:ident, $format:literal, $pattern:literal, $parse:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let parse: fn(&str) -> Option<Self> = $parse;
                parse(&text).ok_or_else(|| de::Error::custom(concat!("not a ", $format)))
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "format": $format, "pattern": $pattern})
            }
        }
    };
}

formatted!(Cursor, "cursor", "^[0-9]{1,19}$", |text| text
    .parse()
    .ok()
    .map(Cursor));
formatted!(
    Wait,
    "wait",
    "^([0-9]{1,5}ms|[0-9]{1,2}s|[1-4]m)$",
    |text| wait(text).map(Wait)
);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Value {
        json!({"properties": {
            "limit": {"type": ["integer", "null"]}, "held": {"type": "boolean"},
            "model": {"type": "string"}, "ids": {"type": "array", "items": {"type": "string"}}},
            "additionalProperties": false})
    }

    #[test]
    fn what_nobody_looks_at_may_be_anything() {
        let mut lenient = schema();
        lenient["additionalProperties"] = Value::Null;
        let query = "include[]=a&include[]=b&x=%zz&limit=3";
        assert_eq!(to_json(query, &lenient).unwrap(), r#"{"limit":3}"#);
        assert!(to_json(query, &schema()).is_err());
    }

    #[test]
    fn a_parameter_is_json_of_the_type_that_is_asked_for() {
        let check = |raw, want: &str| assert_eq!(to_json(raw, &schema()).unwrap(), want);
        check("", "{}");
        check(
            "limit=10&held=true&model=%E6%99%BA%20a+b&ids=1,2",
            r#"{"limit":10,"held":true,"model":"智 a b","ids":["1","2"]}"#,
        );
        check(
            "limit=ten&held=yes&other=1",
            r#"{"limit":"ten","held":"yes","other":"1"}"#,
        );
        check("limit=007", r#"{"limit":7}"#);
        check("limit=-0", r#"{"limit":0}"#);
        check("limit=1.5", r#"{"limit":"1.5"}"#);
    }

    #[test]
    fn a_malformed_parameter_is_named() {
        let check = |raw, want: &str| {
            let error = to_json(raw, &schema()).unwrap_err();
            assert_eq!(format!("{}: {}", error.field, error.problem), want);
        };
        check("limit=5&limit=6", "limit: is given twice");
        check("limit=", "limit: is empty; give it a value or leave it out");
        check("model", "model: is empty; give it a value or leave it out");
        check("model=%zz", "model: is not percent-encoded UTF-8");
        check("model=%ff", "model: is not percent-encoded UTF-8");
        check("model=%e", "model: is not percent-encoded UTF-8");
    }

    #[test]
    fn a_wait_has_a_unit_and_an_end() {
        assert_eq!(wait("2m"), Some(Duration::from_secs(120)));
        assert_eq!(wait("500ms"), Some(Duration::from_millis(500)));
        for bad in [
            "30",
            "6m",
            "301s",
            "-1s",
            "1h",
            "s",
            "1.5s",
            "99999999999999999999s",
        ] {
            assert_eq!(wait(bad), None, "{bad}");
        }
    }
}
