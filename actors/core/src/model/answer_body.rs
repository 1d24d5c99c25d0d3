//! An answer to the byte: its JSON, and the blanks that stood around it. A JSON value by itself forgets those.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// What JSON counts as blank.
const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// The body of an answer. It is read as the JSON that it holds, and given back as it came.
#[derive(Debug, Clone)]
pub struct AnswerBody {
    json: Arc<RawValue>,
    /// Blanks before and behind it, where there are some.
    around: Option<Arc<(String, String)>>,
}

impl AnswerBody {
    /// A body as it came. Errors when it is no JSON.
    pub fn new(text: &str) -> serde_json::Result<Self> {
        let json: &RawValue = serde_json::from_str(text)?;
        let behind = text.trim_start_matches(BLANKS);
        let (before, _) = text.split_at(text.len() - behind.len());
        let (_, behind) = behind.split_at(json.get().len());
        let has_blanks = !before.is_empty() || !behind.is_empty();
        Ok(Self {
            json: Arc::from(json.to_owned()),
            around: has_blanks.then(|| Arc::new((before.to_owned(), behind.to_owned()))),
        })
    }

    /// All of it, as it came.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self.around.as_deref() {
            Some((before, behind)) => Cow::Owned([before, self.json.get(), behind].concat()),
            None => Cow::Borrowed(self.json.get()),
        }
    }

    /// Its bytes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        let around = self.around.as_deref();
        self.json.get().len() + around.map_or(0, |(before, behind)| before.len() + behind.len())
    }

    /// Never: JSON has at least one byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Its JSON alone.
    #[must_use]
    pub fn into_json(self) -> Arc<RawValue> {
        self.json
    }

    /// Whether a text is this JSON with blanks around it at most.
    #[must_use]
    pub fn is_around(text: &str, json: &str) -> bool {
        text.trim_matches(BLANKS) == json.trim_matches(BLANKS)
    }
}

/// Its JSON.
impl Deref for AnswerBody {
    type Target = RawValue;

    fn deref(&self) -> &RawValue {
        &self.json
    }
}

/// Its JSON alone.
impl fmt::Display for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.json.get())
    }
}

/// Its JSON alone: JSON in JSON has no place for what was around it.
impl Serialize for AnswerBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

/// Without blanks around it.
impl From<Arc<RawValue>> for AnswerBody {
    fn from(json: Arc<RawValue>) -> Self {
        Self { json, around: None }
    }
}

/// Without blanks around it.
impl From<Box<RawValue>> for AnswerBody {
    fn from(json: Box<RawValue>) -> Self {
        Self::from(Arc::from(json))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_its_json_and_given_back_as_it_came() {
        for (before, json, behind) in [
            ("", "{\"a\": 1.50}", ""),
            ("\n\t ", "{ }", ""),
            ("", "{ }", "\r\n"),
            (" \r\n", "\" a \"", "\t\n\n"),
        ] {
            let text = [before, json, behind].concat();
            let body = AnswerBody::new(&text).unwrap();
            assert_eq!(body.get(), json);
            assert_eq!(body.text(), text);
            assert_eq!(body.len(), text.len());
            assert_eq!(body.to_string(), json);
            assert_eq!(serde_json::to_string(&body).unwrap(), json);
        }
        for none in ["", " ", "{} x", "\u{feff}{}", "\u{b}{}"] {
            assert!(AnswerBody::new(none).is_err(), "{none:?}");
        }
    }
}
