//! What a submitter asked for, kept verbatim.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{json, limits};

/// A request: a plain prompt, or a full chat body with whatever GLM parameters it carries.
/// A chat body is kept to the byte: unknown fields, nulls and the spelling of numbers included.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// One user message; model, `max_tokens` and temperature come from the settings.
    Prompt(String),
    /// A JSON object with `messages` and any other field of GLM's chat completions.
    Chat(Box<RawValue>),
}

/// Why a request is refused at the door.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The prompt has no text.
    #[error("prompt is empty; give it some text")]
    EmptyPrompt,
    /// Not JSON, or not an object.
    #[error("the chat request is not a JSON object: {0}")]
    NotAnObject(String),
    /// `messages` is missing, not a list or empty.
    #[error("messages must be a list with at least one message")]
    NoMessages,
    /// `model` has the wrong type.
    #[error("model must be a string of 1 to {max} characters", max = limits::MODEL_CHARS_MAX)]
    BadModel,
    /// Too many bytes.
    #[error("the request has {bytes} bytes, the limit is {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// A digest of a request's meaning: equal for equal JSON, whatever its spacing or key order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

#[derive(Deserialize)]
struct ChatHead<'a> {
    /// Nothing but their number: these take no memory.
    #[serde(default)]
    messages: Option<Vec<serde::de::IgnoredAny>>,
    #[serde(default, borrow)]
    model: Option<&'a RawValue>,
}

impl ChatHead<'_> {
    /// `Err`: it is no text, or too long.
    fn model(&self) -> Result<Option<String>, RequestError> {
        let Some(model) = self.model.filter(|model| model.get() != "null") else {
            return Ok(None);
        };
        let fits = |m: &str| !m.trim().is_empty() && m.chars().count() <= limits::MODEL_CHARS_MAX;
        let model = json::text(model).filter(|model| fits(model));
        model
            .map(|m| Some(m.into_owned()))
            .ok_or(RequestError::BadModel)
    }
}

impl Request {
    /// A prompt. Errors when it is empty or too large.
    pub fn prompt(text: impl Into<String>) -> Result<Self, RequestError> {
        let text = text.into();
        if text.trim().is_empty() {
            return Err(RequestError::EmptyPrompt);
        }
        within_limit(text.len())?;
        Ok(Self::Prompt(text))
    }

    /// A chat body from its JSON text. Errors when it is no object, has no messages, or is too large.
    /// What else GLM may object to, GLM says.
    pub fn chat(json: &str) -> Result<Self, RequestError> {
        within_limit(json.len())?;
        let not_an_object = |e: serde_json::Error| RequestError::NotAnObject(e.to_string());
        let raw = RawValue::from_string(json.trim().to_owned()).map_err(not_an_object)?;
        if !raw.get().starts_with('{') {
            return Err(RequestError::NotAnObject(
                "it starts with something other than {".to_owned(),
            ));
        }
        let head: Result<ChatHead<'_>, _> = serde_json::from_str(raw.get());
        match head {
            Ok(head) if head.messages.as_ref().is_none_or(Vec::is_empty) => {
                Err(RequestError::NoMessages)
            }
            Ok(head) => {
                head.model()?;
                Ok(Self::Chat(raw))
            }
            Err(e) if e.is_data() => Err(RequestError::NoMessages),
            Err(e) => Err(not_an_object(e)),
        }
    }

    /// The model that a chat body names itself.
    #[must_use]
    pub fn model(&self) -> Option<String> {
        match self {
            Self::Prompt(_) => None,
            Self::Chat(raw) => {
                let head: Option<ChatHead<'_>> = serde_json::from_str(raw.get()).ok();
                json::text(head?.model?).map(Into::into)
            }
        }
    }

    /// The request as bytes on disk and in memory, roughly.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Prompt(text) => text.len(),
            Self::Chat(raw) => raw.get().len(),
        }
    }

    /// Whether it has no bytes; never, for one that was built by its constructors.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The digest by which an idempotency key tells the same request from another: model and
    /// content, with the keys of objects in sorted order.
    #[must_use]
    pub fn fingerprint(&self, model: &str) -> Fingerprint {
        let mut hash = Sha256::new();
        hash.update((model.len() as u64).to_be_bytes());
        hash.update(model.as_bytes());
        match self {
            Self::Prompt(text) => {
                hash.update(b"p");
                hash.update(text.as_bytes());
            }
            Self::Chat(raw) => {
                hash.update(b"c");
                let begun = hash.clone();
                if !json::meaning(raw.get(), &mut hash) {
                    hash = begun;
                    hash.update(raw.get().as_bytes());
                }
            }
        }
        Fingerprint(hash.finalize().into())
    }
}

fn within_limit(bytes: usize) -> Result<(), RequestError> {
    let max = limits::REQUEST_BYTES_MAX;
    if bytes > max {
        return Err(RequestError::TooLarge { bytes, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_body_is_kept_to_the_byte() {
        let json =
            r#"{"messages":[{"role":"user","content":"hi"}],"response_format":null,"x":1.50}"#;
        let Request::Chat(raw) = Request::chat(json).unwrap() else {
            panic!("a chat body")
        };
        assert_eq!(raw.get(), json);
    }

    #[test]
    fn a_bad_request_is_refused_with_its_reason() {
        let check = |json: &str, want: &str| {
            let got = Request::chat(json).unwrap_err().to_string();
            assert!(got.contains(want), "{json}: {got}");
        };
        check("", "not a JSON object");
        check("[1]", "not a JSON object");
        check("{", "not a JSON object");
        check("{}", "at least one message");
        check(r#"{"messages":[]}"#, "at least one message");
        check(r#"{"messages":"hi"}"#, "at least one message");
        check(r#"{"messages":[{}],"model":7}"#, "model must be a string");
        assert_eq!(
            Request::prompt("  \n").unwrap_err(),
            RequestError::EmptyPrompt
        );
    }

    #[test]
    fn the_same_meaning_has_the_same_fingerprint() {
        let print = |json: &str| Request::chat(json).unwrap().fingerprint("glm-5");
        let a = print(r#"{"messages":[{"role":"user","content":"hi"}],"top_p":0.9}"#);
        let b = print(r#"{ "top_p":0.9, "messages":[{"content":"hi","role":"user"}] }"#);
        let c = print(r#"{"messages":[{"role":"user","content":"ho"}],"top_p":0.9}"#);
        assert_eq!(a, b);
        assert_ne!(a, c);
        let prompt = Request::prompt("hi").unwrap();
        assert_ne!(prompt.fingerprint("glm-5"), prompt.fingerprint("glm-4.7"));
    }
}
