//! What a submitter asked for, kept verbatim.

use std::fmt;
use std::ops::Deref;
use std::sync::OnceLock;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{Face, HalfACharacter, Needs, json, limits};

/// A request: a plain prompt, or the whole body of one of GLM's faces with whatever parameters it carries.
/// A body is kept to the byte: unknown fields, nulls and the spelling of numbers included.
#[derive(Debug, Clone)]
pub enum Request {
    /// One user message of a chat; model, `max_tokens` and temperature come from the settings.
    Prompt(String),
    /// A JSON object as its face takes it.
    Body(Face, Body),
}

/// The JSON text of a body. What the lane reads of it is read once, however often it is asked for: bodies of
/// agents are long.
#[derive(Debug, Clone)]
pub struct Body {
    raw: Box<RawValue>,
    said: OnceLock<Said>,
}

/// What a body says of its call.
#[derive(Debug, Clone, Default)]
struct Said {
    model: Option<String>,
    request_id: Option<String>,
    /// It has one, whatever that is.
    names_itself: bool,
    streams: bool,
}

impl From<Box<RawValue>> for Body {
    fn from(raw: Box<RawValue>) -> Self {
        Self {
            raw,
            said: OnceLock::new(),
        }
    }
}

impl Deref for Body {
    type Target = RawValue;

    fn deref(&self) -> &RawValue {
        &self.raw
    }
}

impl Body {
    fn said(&self, face: Face) -> &Said {
        let read = || Head::of(face, self.raw.get()).map(|head| head.said(face));
        self.said.get_or_init(|| read().unwrap_or_default())
    }
}

/// What a row calls a plain prompt; a body is called by its face.
const PROMPT: &str = "prompt";

impl Serialize for Request {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut one = serializer.serialize_map(Some(1))?;
        match self {
            Self::Prompt(text) => one.serialize_entry(PROMPT, text)?,
            Self::Body(face, body) => one.serialize_entry(face.name(), &**body)?,
        }
        one.end()
    }
}

impl<'de> Deserialize<'de> for Request {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;

        impl<'de> Visitor<'de> for One {
            type Value = Request;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a prompt, or a body under the name of its face")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Request, A::Error> {
                let name: Option<String> = map.next_key()?;
                let name = name.ok_or_else(|| A::Error::custom("a request of nothing"))?;
                if name == PROMPT {
                    return map.next_value().map(Request::Prompt);
                }
                let face = Face::parse(&name).ok_or_else(|| {
                    A::Error::custom(format!("a request of an unknown face {name}"))
                })?;
                let raw: Box<RawValue> = map.next_value()?;
                Ok(Request::Body(face, raw.into()))
            }
        }

        deserializer.deserialize_map(One)
    }
}

/// Why a request is refused at the door.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The prompt has no text.
    #[error("prompt is empty; give it some text")]
    EmptyPrompt,
    /// Not JSON, or not an object.
    #[error("the request is not a JSON object: {0}")]
    NotAnObject(String),
    /// `messages` is missing, not a list or empty.
    #[error("messages must be a list with at least one message")]
    NoMessages,
    /// `input` is missing or empty.
    #[error("input must be a text or a list, with something in it")]
    NoInput,
    /// A field that the lane reads stands in it more than once.
    #[error("{0} is given twice; give it once")]
    GivenTwice(String),
    /// A text was cut in the middle of a character.
    #[error("the request {0}")]
    HalfACharacter(HalfACharacter),
    /// `model` has the wrong type.
    #[error("model must be a string of 1 to {max} characters", max = limits::MODEL_CHARS_MAX)]
    BadModel,
    /// A list of it has too many elements, or it has too many fields or levels.
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

/// Fields of bodies that the lane reads or sets: each is given once, or nobody knows which counts. What it does not
/// know goes on as it is, however often.
const READ: [&str; 20] = [
    "background",
    "callbackUrl",
    "container",
    "conversation",
    "input",
    "instructions",
    "max_output_tokens",
    "max_tokens",
    "mcp_servers",
    "messages",
    "metadata",
    "model",
    "previous_response_id",
    "prompt",
    "request_id",
    "stream",
    "system",
    "tools",
    "user",
    "user_id",
];

/// What the lane reads of a body.
#[derive(Default)]
struct Head<'a> {
    /// What is asked.
    subject: Option<&'a RawValue>,
    tools: Option<&'a RawValue>,
    model: Option<&'a RawValue>,
    request_id: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    /// The first of the fields that the lane reads and that is given twice.
    twice: Option<String>,
    fields: usize,
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

impl<'a> Head<'a> {
    fn of(face: Face, json: &'a str) -> serde_json::Result<Self> {
        struct Fields(Face);

        impl<'de> Visitor<'de> for Fields {
            type Value = Head<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head<'de>, A::Error> {
                let mut head = Head::default();
                let mut seen = [false; READ.len()];
                while let Some(name) = map.next_key::<String>()? {
                    head.fields += 1;
                    let read = READ.iter().zip(&mut seen).find(|(read, _)| **read == name);
                    let Some((_, seen)) = read else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    if std::mem::replace(seen, true) {
                        map.next_value::<IgnoredAny>()?;
                        head.twice.get_or_insert(name);
                        continue;
                    }
                    let value = map.next_value()?;
                    match name.as_str() {
                        "model" => head.model = Some(value),
                        "tools" => head.tools = Some(value),
                        "request_id" if self.0.echoes() => head.request_id = Some(value),
                        "stream" => head.stream = Some(value),
                        name if name == self.0.subject() => head.subject = Some(value),
                        _ => {}
                    }
                }
                Ok(head)
            }
        }

        let mut deserializer = serde_json::Deserializer::from_str(json);
        let head = deserializer.deserialize_map(Fields(face))?;
        deserializer.end()?;
        Ok(head)
    }

    /// Whether what is asked is there.
    fn asks(&self, face: Face) -> Result<(), RequestError> {
        let subject = self.subject.filter(|subject| subject.get() != "null");
        match (face.needs(), subject) {
            (Needs::Nothing, _) => Ok(()),
            (Needs::List, Some(list)) if elements(list) > 0 => Ok(()),
            (Needs::List, _) => Err(RequestError::NoMessages),
            (Needs::Something, Some(any))
                if !matches!(&*json::compact(any.get()), "\"\"" | "[]") =>
            {
                Ok(())
            }
            (Needs::Something, _) => Err(RequestError::NoInput),
        }
    }

    /// Refuses what nobody means: it would take memory and time at every look.
    fn within_bounds(&self, face: Face) -> Result<(), RequestError> {
        let [subject, tools] = [self.subject, self.tools].map(|list| list.map(elements));
        let fields = Some(self.fields);
        for (what, of, found, max) in [
            ("the request", "fields", fields, limits::CHAT_FIELDS_MAX),
            (face.subject(), "elements", subject, limits::MESSAGES_MAX),
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

    fn said(&self, face: Face) -> Said {
        let text = |value: Option<&RawValue>| json::text(value?).map(Into::into);
        let stream = self.stream.is_some_and(|stream| stream.get() == "true");
        Said {
            model: text(self.model),
            request_id: text(self.request_id),
            names_itself: self.request_id.is_some_and(|id| id.get() != "null"),
            streams: face.streams() && stream,
        }
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

    /// A chat body from its JSON text; see [`Request::body`].
    pub fn chat(json: &str) -> Result<Self, RequestError> {
        Self::body(Face::Chat, json)
    }

    /// The body of a face from its JSON text. Errors when it is no object, asks nothing, or is too large.
    /// What else GLM may object to, GLM says.
    pub fn body(face: Face, json: &str) -> Result<Self, RequestError> {
        within_limit(json.len())?;
        let not_an_object = |e: serde_json::Error| RequestError::NotAnObject(e.to_string());
        let raw = RawValue::from_string(json.trim().to_owned()).map_err(not_an_object)?;
        if !raw.get().starts_with('{') {
            return Err(RequestError::NotAnObject(
                "it starts with something other than {".to_owned(),
            ));
        }
        let levels = json::levels(raw.get());
        if levels > limits::LEVELS_MAX {
            return Err(RequestError::TooMany {
                what: "the request",
                of: "levels",
                found: levels,
                max: limits::LEVELS_MAX,
            });
        }
        if let Some(half) = HalfACharacter::in_json(raw.get()) {
            return Err(RequestError::HalfACharacter(half));
        }
        let head = Head::of(face, raw.get()).map_err(not_an_object)?;
        if let Some(name) = head.twice {
            return Err(RequestError::GivenTwice(name));
        }
        head.asks(face)?;
        head.within_bounds(face)?;
        if let Some(subject) = head.subject
            && let Some(place) = json::twice(subject)
        {
            return Err(RequestError::GivenTwice(format!(
                "{}{place}",
                face.subject()
            )));
        }
        head.model()?;
        let said = head.said(face).into();
        Ok(Self::Body(face, Body { raw, said }))
    }

    /// The face that it is for.
    #[must_use]
    pub const fn face(&self) -> Face {
        match self {
            Self::Prompt(_) => Face::Chat,
            Self::Body(face, _) => *face,
        }
    }

    fn said(&self) -> Option<&Said> {
        match self {
            Self::Prompt(_) => None,
            Self::Body(face, body) => Some(body.said(*face)),
        }
    }

    /// The model that a body names itself.
    #[must_use]
    pub fn model(&self) -> Option<String> {
        self.said()?.model.clone()
    }

    /// The `request_id` that a body names itself, where its face has one.
    #[must_use]
    pub fn request_id(&self) -> Option<String> {
        self.said()?.request_id.clone()
    }

    /// Whether a body has a `request_id`, be it one that GLM takes or not, where its face has one.
    #[must_use]
    pub fn names_itself(&self) -> bool {
        self.said().is_some_and(|said| said.names_itself)
    }

    /// Whether a body asks for its answer in pieces, of a face that can give it so.
    #[must_use]
    pub fn streams(&self) -> bool {
        self.said().is_some_and(|said| said.streams)
    }

    /// The request as bytes on disk and in memory, roughly.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Prompt(text) => text.len(),
            Self::Body(_, raw) => raw.get().len(),
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
            Self::Body(face, raw) => {
                hash.update(b"b");
                hash.update(face.name().as_bytes());
                hash.update(b"\0");
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
    fn a_field_that_the_lane_reads_is_given_once_and_any_other_as_often_as_the_client_says() {
        for (name, json) in [
            ("model", r#"{"model":"a","messages":[{}],"model":"a"}"#),
            ("messages", r#"{"messages":[{}],"messages":[{}]}"#),
            (
                "stream",
                r#"{"stream":true,"messages":[{}],"str\u0065am":true}"#,
            ),
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
        let json = r#"{"messages":[{"a":1},{"a":2}],"a":1,"top_p":1,"top_\u0070":2,"a":2,"o":{"b":1,"b":2}}"#;
        Request::chat(json).unwrap();
    }

    #[test]
    fn a_request_keeps_its_face_and_its_bytes_in_its_row() {
        let body = r#"{"input":"hi","x":1.50}"#;
        let request = Request::body(Face::Responses, body).unwrap();
        let row = serde_json::to_string(&request).unwrap();
        assert_eq!(row, format!(r#"{{"responses":{body}}}"#));
        let back: Request = serde_json::from_str(&row).unwrap();
        assert!(matches!(back, Request::Body(Face::Responses, raw) if raw.get() == body));
        let back: Request = serde_json::from_str(r#"{"prompt":"hi"}"#).unwrap();
        assert!(matches!(back, Request::Prompt(text) if text == "hi"));
        for bad in ["{}", "7", r#"{"of_tomorrow":{}}"#, r#"{"prompt":7}"#] {
            assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_face_asks_in_its_own_field() {
        let check = |face: Face, json: &str, want: Option<RequestError>| {
            assert_eq!(Request::body(face, json).err(), want, "{face:?} {json}");
        };
        check(Face::Messages, r#"{"messages":[{}]}"#, None);
        check(
            Face::Messages,
            r#"{"input":"x"}"#,
            Some(RequestError::NoMessages),
        );
        check(Face::Responses, r#"{"input":"hi"}"#, None);
        check(Face::Responses, r#"{"previous_response_id":"r"}"#, None);
        check(Face::Embeddings, r#"{"input":["a","b"]}"#, None);
        for json in [
            "{}",
            r#"{"input":null}"#,
            r#"{"input":""}"#,
            r#"{"input":[ ]}"#,
        ] {
            check(Face::Embeddings, json, Some(RequestError::NoInput));
        }
        let streams = |face, json: &str| Request::body(face, json).unwrap().streams();
        assert!(streams(Face::Responses, r#"{"stream":true}"#));
        assert!(!streams(Face::Embeddings, r#"{"input":"a","stream":true}"#));
        let named = Request::body(Face::Responses, r#"{"request_id":"abcdef"}"#).unwrap();
        assert_eq!(named.request_id(), None, "this face has no such field");
        assert!(!named.names_itself());
        for (id, names) in [
            ("\"abcdef\"", true),
            ("7", true),
            ("[]", true),
            ("null", false),
        ] {
            let body = format!(r#"{{"messages":[{{}}],"request_id":{id}}}"#);
            assert_eq!(Request::chat(&body).unwrap().names_itself(), names, "{id}");
        }
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
        let want = "the request has 1000000 fields; 1024 are allowed at most";
        check(&fields(1_000_000), want);
    }

    #[test]
    fn a_chat_body_is_kept_to_the_byte() {
        let json =
            r#"{"messages":[{"role":"user","content":"hi"}],"response_format":null,"x":1.50}"#;
        let Request::Body(Face::Chat, raw) = Request::chat(json).unwrap() else {
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
        let by = |face| Request::body(face, r#"{"messages":[{}]}"#).unwrap();
        let (chat, messages) = (by(Face::Chat), by(Face::Messages));
        assert_ne!(chat.fingerprint("glm-5"), messages.fingerprint("glm-5"));
    }
}
