//! What a submitter asked for, kept verbatim.

use std::collections::HashSet;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{HalfACharacter, json, limits};

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
    /// A field stands in it more than once.
    #[error("{0} is given twice; give it once")]
    GivenTwice(String),
    /// A text was cut in the middle of a character.
    #[error("the chat request {0}")]
    HalfACharacter(HalfACharacter),
    /// `model` has the wrong type.
    #[error("model must be a string of 1 to {max} characters", max = limits::MODEL_CHARS_MAX)]
    BadModel,
    /// A list of it has too many elements, or it has too many fields.
    #[error("{what} has {found} {of}; {max} are allowed at most")]
    TooMany {
        /// What has them.
        what: &'static str,
        /// What they are.
        of: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
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

/// What the lane reads of a chat body, and the first of its fields that is given twice.
#[derive(Default)]
struct ChatHead<'a> {
    messages: Option<&'a RawValue>,
    tools: Option<&'a RawValue>,
    model: Option<&'a RawValue>,
    request_id: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    twice: Option<String>,
    fields: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for ChatHead<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = ChatHead<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ChatHead<'de>, A::Error> {
                let mut head = ChatHead::default();
                let mut names = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    head.fields += 1;
                    // What is too much is counted, and not kept.
                    if head.fields > limits::CHAT_FIELDS_MAX {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if names.contains(&name) {
                        map.next_value::<IgnoredAny>()?;
                        head.twice.get_or_insert(name);
                        continue;
                    }
                    match name.as_str() {
                        "messages" => head.messages = map.next_value()?,
                        "model" => head.model = map.next_value()?,
                        "tools" => head.tools = map.next_value()?,
                        "request_id" => head.request_id = map.next_value()?,
                        "stream" => head.stream = map.next_value()?,
                        _ => _ = map.next_value::<IgnoredAny>()?,
                    }
                    names.insert(name);
                }
                Ok(head)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// How many elements a list has; they take no memory.
fn elements(list: &RawValue) -> usize {
    let mut found = 0;
    let _ = json::each(list, |_| {
        found += 1;
        true
    });
    found
}

impl ChatHead<'_> {
    /// Refuses what nobody means: it would take memory and time at every look.
    fn within_bounds(&self) -> Result<(), RequestError> {
        let [messages, tools] = [self.messages, self.tools].map(|list| list.map(elements));
        let fields = Some(self.fields);
        for (what, of, found, max) in [
            (
                "the chat request",
                "fields",
                fields,
                limits::CHAT_FIELDS_MAX,
            ),
            ("messages", "elements", messages, limits::MESSAGES_MAX),
            ("tools", "elements", tools, limits::TOOLS_MAX),
        ] {
            if let Some(found) = found.filter(|found| *found > max) {
                return Err(RequestError::TooMany {
                    what,
                    of,
                    found,
                    max,
                });
            }
        }
        Ok(())
    }

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
        if let Some(half) = HalfACharacter::in_json(raw.get()) {
            return Err(RequestError::HalfACharacter(half));
        }
        let head: Result<ChatHead<'_>, _> = serde_json::from_str(raw.get());
        match head {
            Ok(ChatHead {
                twice: Some(name), ..
            }) => Err(RequestError::GivenTwice(name)),
            Ok(head) => {
                let messages = head.messages.filter(|list| elements(list) > 0);
                let messages = messages.ok_or(RequestError::NoMessages)?;
                head.within_bounds()?;
                if let Some(place) = json::twice(messages) {
                    return Err(RequestError::GivenTwice(format!("messages{place}")));
                }
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

    /// The `request_id` that a chat body names itself.
    #[must_use]
    pub fn request_id(&self) -> Option<String> {
        match self {
            Self::Prompt(_) => None,
            Self::Chat(raw) => {
                let head: ChatHead<'_> = serde_json::from_str(raw.get()).ok()?;
                json::text(head.request_id?).map(std::borrow::Cow::into_owned)
            }
        }
    }

    /// Whether a chat body asks for its answer in pieces.
    #[must_use]
    pub fn streams(&self) -> bool {
        match self {
            Self::Prompt(_) => false,
            Self::Chat(raw) => {
                let head: Option<ChatHead<'_>> = serde_json::from_str(raw.get()).ok();
                let stream = head.and_then(|head| head.stream);
                stream.is_some_and(|stream| stream.get() == "true")
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
    fn a_field_that_is_given_twice_is_named_whichever_it_is() {
        for (name, json) in [
            ("model", r#"{"model":"a","messages":[{}],"model":"a"}"#),
            ("messages", r#"{"messages":[{}],"messages":[{}]}"#),
            ("top_p", r#"{"top_p":1,"messages":[{}],"top_\u0070":2}"#),
        ] {
            let refused = Request::chat(json).unwrap_err();
            assert_eq!(refused, RequestError::GivenTwice(name.to_owned()), "{json}");
        }
        let inside = |name: &str, messages: &str| {
            let refused =
                Request::chat(&format!(r#"{{"messages":{messages},"a":1}}"#)).unwrap_err();
            assert_eq!(
                refused,
                RequestError::GivenTwice(name.to_owned()),
                "{messages}"
            );
        };
        inside("messages[0].a", r#"[{"a":1,"a":2}]"#);
        inside(
            "messages[1].content[0].text",
            r#"[{"content":"x"},{"content":[{"text":"a","text":"b"}]}]"#,
        );
        Request::chat(r#"{"messages":[{"a":1},{"a":2}],"a":1}"#).unwrap();
    }

    #[test]
    fn a_chat_of_too_many_parts_is_refused_with_what_they_are_and_how_many_may_be() {
        let check = |json: &str, want: &str| {
            let refused = Request::chat(json).unwrap_err().to_string();
            assert_eq!(refused, want);
        };
        let list = |of: &str, n: usize| format!("[{}]", vec![of; n].join(","));
        let messages = |n| format!(r#"{{"messages":{}}}"#, list("{}", n));
        Request::chat(&messages(limits::MESSAGES_MAX)).unwrap();
        let (many, few) = (messages(1_000_000), "10000 are allowed at most");
        check(&many, &format!("messages has 1000000 elements; {few}"));
        let tools = |n| format!(r#"{{"messages":[{{}}],"tools":{}}}"#, list("{}", n));
        Request::chat(&tools(limits::TOOLS_MAX)).unwrap();
        check(
            &tools(1_025),
            "tools has 1025 elements; 1024 are allowed at most",
        );
        let fields = |n: usize| {
            let all: Vec<String> = (1..n).map(|n| format!("\"{n}\":1")).collect();
            format!(r#"{{"messages":[{{}}],{}}}"#, all.join(","))
        };
        Request::chat(&fields(limits::CHAT_FIELDS_MAX)).unwrap();
        let want = "the chat request has 1000000 fields; 1024 are allowed at most";
        check(&fields(1_000_000), want);
    }

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
