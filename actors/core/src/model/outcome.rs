//! How a call to GLM ended.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{AnswerBody, Failure, Usage, json, limits};

/// GLM's answer.
#[derive(Debug, Clone)]
pub struct GlmAnswer {
    /// The body, verbatim.
    pub body: AnswerBody,
    /// The HTTP status.
    pub status_code: u16,
    /// Its tokens; zeros when GLM reported none.
    pub usage: Usage,
    /// The model that answered, as the answer names it.
    pub model: Option<String>,
}

impl GlmAnswer {
    /// The id that it has by itself.
    #[must_use]
    pub fn id(&self) -> Option<Cow<'_, str>> {
        let mut id = None;
        let _ = json::each_member(&self.body, |name, value| {
            id = (name == "id").then(|| json::text(value)).flatten();
            id.is_none()
        });
        id
    }
}

/// What came instead of an answer: its bytes as they came, but for the key.
#[derive(Clone, PartialEq, Eq)]
pub struct Received {
    bytes: Arc<[u8]>,
    /// What the server says that it is.
    content_type: Option<Arc<str>>,
    part: Part,
}

/// How much of an answer came, and of whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// All that was sent.
    Whole,
    /// The beginning: it broke off.
    Begun,
    /// What belongs to another call: nobody who asks for this one may see it.
    Foreign,
}

impl Received {
    /// A body that came whole, of this type by its server's word.
    #[must_use]
    pub fn new(bytes: impl Into<Arc<[u8]>>, content_type: Option<&str>) -> Self {
        let content_type = content_type
            .filter(|name| (1..=limits::CONTENT_TYPE_BYTES_MAX).contains(&name.len()))
            .map(Arc::from);
        Self {
            bytes: bytes.into(),
            content_type,
            part: Part::Whole,
        }
    }

    /// The beginning of a body that broke off.
    #[must_use]
    pub fn begun(self) -> Self {
        Self {
            part: Part::Begun,
            ..self
        }
    }

    /// What belongs to another call.
    #[must_use]
    pub fn foreign(self) -> Self {
        Self {
            part: Part::Foreign,
            ..self
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the server says that it is.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// Whether it broke off.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.part == Part::Begun
    }

    /// Whether it belongs to another call.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.part == Part::Foreign
    }

    /// As text.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    /// As JSON, where it is that.
    #[must_use]
    pub fn json(&self) -> Option<&RawValue> {
        let bytes = self.bytes.strip_prefix(b"\xef\xbb\xbf");
        serde_json::from_slice(bytes.unwrap_or(&self.bytes)).ok()
    }

    /// Whether it is a JSON object, the form of a completion and of an error of GLM's.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.json().is_some_and(|json| json.get().starts_with('{'))
    }

    /// The model that a completion names which is a failure.
    #[must_use]
    pub fn model(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Named {
            #[serde(default)]
            model: Option<String>,
        }
        let named: Named = serde_json::from_str(self.json()?.get()).ok()?;
        let model = named.model?.trim().to_owned();
        let fits = (1..=limits::MODEL_CHARS_MAX).contains(&model.chars().count());
        fits.then_some(model)
    }
}

/// As rows keep it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    begun: bool,
    /// Its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    /// What is no UTF-8: a character for each byte, that of its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<Cow<'a, str>>,
}

impl Serialize for Received {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = std::str::from_utf8(&self.bytes).ok();
        let bytes = || self.bytes.iter().copied().map(char::from).collect();
        let row = Row {
            content_type: self.content_type().map(Cow::Borrowed),
            begun: self.is_begun(),
            bytes: text.is_none().then(|| Cow::Owned(bytes())),
            text: text.map(Cow::Borrowed),
        };
        row.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Received {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let row = Row::deserialize(deserializer)?;
        let bytes: Vec<u8> = match (row.text, row.bytes) {
            (Some(text), _) => text.into_owned().into_bytes(),
            (None, Some(bytes)) => bytes
                .chars()
                .map(u8::try_from)
                .collect::<Result<_, _>>()
                .map_err(|_| D::Error::custom("a character of `bytes` is no byte"))?,
            (None, None) => return Err(D::Error::missing_field("text")),
        };
        let received = Self::new(bytes, row.content_type.as_deref());
        Ok(match row.begun {
            true => received.begun(),
            false => received,
        })
    }
}

/// Its length alone: it may hold what somebody asked, and ends up in logs.
impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

/// How a call ended.
#[derive(Debug, Clone)]
pub enum GlmOutcome {
    /// With an answer.
    Answered(GlmAnswer),
    /// With a failure, classified. Tokens, when GLM reported (and billed) some all the same.
    Failed(Failure, Usage),
    /// The abort token was cancelled and the connection closed.
    Aborted,
    /// The abort token was cancelled before anything was sent.
    NotSent,
}

/// How an asynchronous submission ended.
#[derive(Debug, Clone)]
pub enum TaskOutcome {
    /// GLM has taken it as the task with this id.
    Accepted(String),
    /// With a failure, classified.
    Failed(Failure, Usage),
    /// The abort token was cancelled and the connection closed.
    Aborted,
    /// The abort token was cancelled before anything was sent.
    NotSent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_kept_to_the_byte_whatever_it_is() {
        for bytes in [
            &b"{\"error\":{}}\n"[..],
            b"no",
            b"",
            b"[1, 2]",
            "\u{feff}{} ".as_bytes(),
            b"\xb7\xc3\xce\xca\x00\xff",
        ] {
            for content_type in [None, Some("text/html; charset=gb2312")] {
                let came = Received::new(bytes, content_type);
                for came in [came.clone(), came.begun()] {
                    let row = serde_json::to_string(&came).unwrap();
                    let read: Received = serde_json::from_str(&row).unwrap();
                    assert_eq!(read, came, "{row}");
                    assert_eq!(read.bytes(), bytes);
                    assert_eq!(read.content_type(), content_type);
                }
            }
        }
        let damaged = r#"{"bytes":"\u4e00"}"#;
        assert!(serde_json::from_str::<Received>(damaged).is_err());
    }

    #[test]
    fn only_an_object_is_taken_for_an_error_of_glm() {
        let is_object = |text: &str| Received::new(text.as_bytes(), None).is_object();
        assert!(is_object("\u{feff} {\"error\":{}}\n"));
        for other in ["[{}]", "7", "\"{}\"", "{", "{} x", ""] {
            assert!(!is_object(other), "{other}");
        }
    }
}
