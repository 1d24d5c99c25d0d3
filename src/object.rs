//! A JSON object as it was written: names in their order, values untouched.

use std::borrow::Cow;
use std::fmt;

use serde::de::Error as _;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Fields of one object.
const FIELDS_MAX: usize = 10_000;

/// The fields of an object. As serde reads it, a name may come twice; [`Object::read`] refuses that.
#[derive(Debug, Default)]
pub struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// Reads an object that has no name twice.
    pub fn read(json: &'a str) -> serde_json::Result<Self> {
        let object: Self = serde_json::from_str(json)?;
        match object.twice() {
            Some(name) => Err(serde_json::Error::custom(format!("{name} is given twice"))),
            None => Ok(object),
        }
    }

    /// A name that comes more than once.
    #[must_use]
    pub fn twice(&self) -> Option<&str> {
        let mut names: Vec<&str> = self.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        let mut pairs = names.iter().zip(names.iter().skip(1));
        pairs.find(|(a, b)| a == b).map(|(name, _)| *name)
    }

    /// A field's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| *value)
    }

    /// Takes a field out, and answers its value.
    pub fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(at).1)
    }

    /// All fields in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (&**name, *value))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some((Name(name), value)) = map.next_entry()? {
                    if fields.len() >= FIELDS_MAX {
                        let problem = format_args!("it has more than {FIELDS_MAX} fields");
                        return Err(A::Error::custom(problem));
                    }
                    fields.push((name, value));
                }
                Ok(Object(fields))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// A name that is borrowed unless it is spelled with escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_spelling() {
        let json = r#"{"z":1.50,"a\n":{"y":[ 1 ]},"n":null}"#;
        let object = Object::read(json).unwrap();
        let fields: Vec<_> = object.iter().map(|(n, v)| (n, v.get())).collect();
        assert_eq!(
            fields,
            [("z", "1.50"), ("a\n", r#"{"y":[ 1 ]}"#), ("n", "null")]
        );
    }

    #[test]
    fn what_is_no_object_or_names_a_field_twice_is_refused() {
        assert!(Object::read("[1]").is_err());
        let twice = Object::read(r#"{"a":1,"b":0,"a":2}"#).unwrap_err();
        assert!(twice.to_string().contains("a is given twice"), "{twice}");
        let many: Vec<String> = (0..=FIELDS_MAX).map(|n| format!("\"{n}\":1")).collect();
        let many = Object::read(&format!("{{{}}}", many.join(","))).map(|_| ());
        let many = many.unwrap_err().to_string();
        assert!(many.contains("more than 10000 fields"), "{many}");
    }
}
