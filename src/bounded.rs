//! Other people's JSON as values of bounded size: a text of some megabytes must not become a tree of some
//! gigabytes. Where all of it is needed, what is larger is refused; where only some members are looked at, the
//! beginning of each is kept and the rest is skipped.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Value};

/// Values that a whole may have.
const VALUES_MAX: usize = 50_000;
/// Values of each member of an excerpt.
const MEMBER_VALUES_MAX: usize = 2_000;
/// Members of an excerpt.
const MEMBERS_MAX: usize = 200;
/// Bytes of a text of an excerpt.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Reads JSON whole, or not at all when it has too many values.
pub(crate) fn whole(text: &str) -> serde_json::Result<Value> {
    read(text, Rest::Refused, VALUES_MAX)
}

/// Reads the beginnings: of an object each member's, of texts some kilobytes.
pub(crate) fn excerpt(text: &str) -> serde_json::Result<Value> {
    read(text, Rest::Skipped, MEMBER_VALUES_MAX)
}

fn read(text: &str, rest: Rest, values: usize) -> serde_json::Result<Value> {
    let left = Cell::new(values);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let room = Room {
        left: &left,
        rest,
        is_top: true,
    };
    let value = room.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// What becomes of what is too much.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Refused,
    Skipped,
}

/// A value of which there is room for some.
#[derive(Clone, Copy)]
struct Room<'l> {
    left: &'l Cell<usize>,
    rest: Rest,
    is_top: bool,
}

impl Room<'_> {
    const fn inside(self) -> Self {
        Self {
            is_top: false,
            ..self
        }
    }

    /// Takes room for one more; `false`: it is to be skipped.
    fn take<E: serde::de::Error>(self) -> Result<bool, E> {
        match (self.left.get().checked_sub(1), self.rest) {
            (Some(left), _) => {
                self.left.set(left);
                Ok(true)
            }
            (None, Rest::Skipped) => Ok(false),
            (None, Rest::Refused) => Err(E::custom(format_args!(
                "it has more than {VALUES_MAX} values"
            ))),
        }
    }

    fn text(self, text: &str) -> String {
        let most = match self.rest {
            Rest::Skipped => text.floor_char_boundary(TEXT_BYTES_MAX),
            Rest::Refused => text.len(),
        };
        text.get(..most).unwrap_or(text).to_owned()
    }
}

impl<'de> DeserializeSeed<'de> for Room<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Room<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(self.text(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            if !self.take::<A::Error>()? {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(Value::Array(items));
            }
            match seq.next_element_seed(self.inside())? {
                None => return Ok(Value::Array(items)),
                Some(item) => items.push(item),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        let is_excerpt = self.is_top && self.rest == Rest::Skipped;
        while let Some(Name(name)) = map.next_key()? {
            if is_excerpt {
                self.left.set(match fields.len() < MEMBERS_MAX {
                    true => MEMBER_VALUES_MAX,
                    false => 0,
                });
            }
            if !self.take::<A::Error>()? {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value_seed(self.inside())?;
            fields.insert(self.text(&name), value);
        }
        Ok(Value::Object(fields))
    }
}

/// The first elements of a list; the others are skipped.
#[derive(Debug)]
pub(crate) struct First<T, const N: usize>(pub(crate) Vec<T>);

impl<T, const N: usize> Default for First<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for First<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const N: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Elements<T, N> {
            type Value = First<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut first = Vec::new();
                while first.len() < N {
                    match seq.next_element()? {
                        None => return Ok(First(first)),
                        Some(element) => first.push(element),
                    }
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(First(first))
            }
        }

        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

/// A name that is borrowed unless it is spelled with escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_small_is_read_as_it_is() {
        for text in [
            "null",
            "[1,-2,1.5,true,\"x\\n\",[],{}]",
            r#"{"a":{"b":[{"c":null}]},"d\u0061":2}"#,
        ] {
            let want: Value = serde_json::from_str(text).unwrap();
            assert_eq!(whole(text).unwrap(), want);
            assert_eq!(excerpt(text).unwrap(), want);
        }
        for text in ["", "[1", "{} {}", "{\"a\"}"] {
            assert!(whole(text).is_err() && excerpt(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_whole_of_too_many_values_is_refused() {
        let list = |n: usize| format!("[{}]", vec![r#"{"a":1}"#; n].join(","));
        assert!(whole(&list(20_000)).is_ok());
        let error = whole(&list(60_000)).unwrap_err().to_string();
        assert!(error.contains("more than 50000 values"), "{error}");
    }

    #[test]
    fn an_excerpt_has_the_beginning_of_every_member() {
        let list = format!("[{}]", vec![r#"{"a":1}"#; 100_000].join(","));
        let text = "x".repeat(1_000_000);
        let json = format!(r#"{{"choices":{list},"text":"{text}","usage":{{"total_tokens":7}}}}"#);
        let read = excerpt(&json).unwrap();
        assert_eq!(read["usage"], json!({"total_tokens": 7}));
        assert_eq!(read["choices"][0], json!({"a": 1}));
        assert!(read["choices"].as_array().unwrap().len() <= MEMBER_VALUES_MAX);
        assert_eq!(read["text"].as_str().unwrap().len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(100_000);
        assert!(excerpt(&deep).is_err());
    }
}
