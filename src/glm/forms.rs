//! How the answers of each face are read: what is a whole one, what of it counts, how one is put together from the
//! pieces of a stream and taken to pieces again. A form is a row of such readings; the judgement of what they found is
//! the same for all.

mod chat;
mod embeddings;
mod messages;
mod responses;

use std::borrow::Cow;

use onelane_core::model::{Face, Usage, limits};
use serde_json::Value;
use serde_json::value::RawValue;

use super::classify::states_error;
use super::layers;
use super::stream::Tells;
use super::usage::{self, Names};
use crate::bounded;
#[cfg(feature = "api")]
use crate::object::Object;

/// How the answers of a face are read.
pub(super) struct Form {
    /// What counts of a whole answer of the usual shape; `None`: it is none.
    typed: fn(&str, &Names) -> Option<Head>,
    /// The same of an answer in which something is odd.
    lenient: fn(&Value, &Names) -> Option<Head>,
    /// The answer that the events of a stream come to; `None`: they are none, or the last did not come.
    pub(super) assemble: fn(&[Cow<'_, str>]) -> Option<String>,
    /// What an event tells.
    tells: fn(&str) -> Tells,
    /// Whether an event is the last of its stream.
    #[cfg(feature = "api")]
    ends: fn(&str) -> bool,
    /// The events of the stream that an answer would have been; `None`: it is none.
    #[cfg(feature = "api")]
    events: fn(&str) -> Option<String>,
    /// Whether what came is an answer of its own kind that says that it failed.
    #[cfg(feature = "api")]
    is_failed: fn(&str) -> bool,
    /// How it calls what was used.
    usage: &'static Names,
    /// What it lacks that is no answer.
    pub(super) lacks: &'static str,
}

/// The form of a face's answers.
pub(super) const fn form(face: Face) -> &'static Form {
    match face {
        Face::Chat => &chat::FORM,
        Face::Responses => &responses::FORM,
        Face::Messages => &messages::FORM,
        Face::Embeddings => &embeddings::FORM,
    }
}

/// The members of an answer that the adapter reads.
pub(super) struct Head {
    /// Why it ended; `None`: it does not say.
    pub(super) finish_reason: Option<String>,
    /// Whether it is an answer, not a piece of one.
    pub(super) is_whole: bool,
    /// Whether it holds text, reasoning or tool calls.
    pub(super) has_content: bool,
    pub(super) usage: Usage,
    /// The model that the answer names.
    pub(super) model: Option<String>,
    /// The call that the answer names, where it was looked for.
    pub(super) request_id: Option<String>,
}

impl Form {
    /// What counts of an answer of the usual shape; `None`: it is none.
    pub(super) fn head(&self, text: &str) -> Option<Head> {
        // A list would be read as the members of an answer in their order.
        let is_object = text.starts_with('{');
        is_object.then(|| (self.typed)(text, self.usage))?
    }

    /// What counts of an answer in which something is odd; `None`: it is none.
    pub(super) fn odd_head(&self, json: &Value) -> Option<Head> {
        (self.lenient)(json, self.usage)
    }

    /// The tokens that a whole response states, whatever else it holds.
    pub(super) fn usage_in(&self, json: &Value) -> Usage {
        usage::of(json, self.usage)
    }
}

/// What the bytes of a stream tell that have come, wherever the last piece of them ends.
pub(super) fn begins(face: Face, bytes: &[u8]) -> Tells {
    // Fewer say nothing of how the text is encoded.
    if bytes.len() < 4 {
        return Tells::Nothing;
    }
    let torn = std::str::from_utf8(bytes).err();
    let torn = torn.filter(|error| error.error_len().is_none());
    let whole = torn.and_then(|error| bytes.get(..error.valid_up_to()));
    tells(face, &layers::text(whole.unwrap_or(bytes)))
}

/// What the whole events at the beginning of a stream tell.
fn tells(face: Face, text: &str) -> Tells {
    let begun = text.trim_start();
    let is_stream = ["data", "event", "id", "retry", ":"].iter().any(|field| {
        let shorter = field.len().min(begun.len());
        field.get(..shorter) == begun.get(..shorter)
    });
    if !is_stream {
        return Tells::Other;
    }
    let whole = ["\n\n", "\r\n\r\n"]
        .iter()
        .filter_map(|end| text.rfind(end));
    let Some(whole) = whole.max().and_then(|end| text.get(..end)) else {
        return Tells::Nothing;
    };
    // Events alone: JSON behind words would count as long as no event has come, and then no more.
    let events = layers::events(whole).unwrap_or_default();
    let told = events.iter().map(|event| (form(face).tells)(event));
    told.into_iter()
        .find(|told| *told != Tells::Nothing)
        .unwrap_or(Tells::Nothing)
}

/// The words that the events of a stream tell, thoughts and arguments of tools among them.
pub(super) fn said(face: Face, text: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        delta: &'a RawValue,
    }
    #[derive(serde::Deserialize)]
    struct Delta {
        #[serde(default)]
        text: String,
        #[serde(default)]
        thinking: String,
        #[serde(default)]
        partial_json: String,
    }
    if face == Face::Chat {
        return super::stream::said(text);
    }
    let mut said = String::new();
    for event in layers::documents(text).unwrap_or_default() {
        let Ok(event) = serde_json::from_str::<Event<'_>>(&event) else {
            continue;
        };
        let delta = event.delta.get();
        if let Ok(piece) = serde_json::from_str::<String>(delta) {
            said.push_str(&piece);
        } else if let Ok(delta) = serde_json::from_str::<Delta>(delta) {
            said.extend([delta.thinking, delta.text, delta.partial_json]);
        }
    }
    said
}

/// Whether a piece brings the end of the stream: who has read it has read all that matters.
#[cfg(feature = "api")]
pub(crate) fn ends(face: Face, piece: &[u8]) -> bool {
    let text = layers::text(piece);
    if face == Face::Chat {
        return text.trim_end().ends_with(super::stream::DONE);
    }
    let events = layers::documents(&text).unwrap_or_default();
    events.last().is_some_and(|event| (form(face).ends)(event))
}

/// The events of the stream that this answer would have been; `None`: it is none.
#[cfg(feature = "api")]
pub(crate) fn events_of(face: Face, answer: &str) -> Option<String> {
    (form(face).events)(answer)
}

/// Whether what came is an answer that says that it failed: well-formed for its client all the same.
#[cfg(feature = "api")]
pub(crate) fn is_failed_answer(face: Face, body: &str) -> bool {
    (form(face).is_failed)(body)
}

/// What an event tells that is none of its stream's: a relay's ping nothing, an error that no answer comes.
fn strange(event: &str) -> Tells {
    match bounded::excerpt(event).is_ok_and(|json| states_error(&json)) {
        true => Tells::Other,
        false => Tells::Nothing,
    }
}

/// The kind that an event says that it is of.
fn kind_of(event: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Kind<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
    }
    let kind: Kind<'_> = serde_json::from_str(event).ok()?;
    Some(kind.kind.into_owned())
}

/// The name of a model, bounded: an answer may name anything.
fn named(model: &str) -> Option<String> {
    let model = model.trim();
    let has_name = !model.is_empty();
    has_name.then(|| model.chars().take(limits::MODEL_CHARS_MAX).collect())
}

/// Whether there is something in a member of an answer.
fn holds(raw: Option<&RawValue>) -> bool {
    raw.is_some_and(|raw| !matches!(raw.get(), "null" | "\"\"" | "[]"))
}

/// The tokens of a `usage` object.
fn counted(raw: Option<&RawValue>, names: &Names) -> Usage {
    raw.map(|raw| usage::read(raw, names)).unwrap_or_default()
}

/// Forms that have no odd answers: what is not of their shape is none.
fn none_odd(_: &Value, _: &Names) -> Option<Head> {
    None
}

/// A member of an object as it is written.
fn member(name: &str, json: &str) -> Option<String> {
    Some(format!("{}:{json}", serde_json::to_string(name).ok()?))
}

/// An object with other values in some of its fields.
#[cfg(feature = "api")]
fn with(object: &Object<'_>, others: &[(&str, &str)]) -> Option<String> {
    let fields = object.iter().map(|(name, value)| {
        let other = others.iter().find(|(known, _)| *known == name);
        member(name, other.map_or(value.get(), |(_, value)| value))
    });
    let fields: Option<Vec<String>> = fields.collect();
    Some(format!("{{{}}}", fields?.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_passed_on_before_a_stream_has_told_something_of_an_answer() {
        use Tells::{Answer, Nothing, Other};
        let event = |json: &str| format!("event: x\ndata: {json}\n\n");
        let check = |face, json: &str, want| {
            assert_eq!(tells(face, &event(json)), want, "{face:?} {json}");
        };
        check(
            Face::Chat,
            r#"{"choices":[{"delta":{"role":"assistant"}}]}"#,
            Nothing,
        );
        check(
            Face::Chat,
            r#"{"choices":[{"delta":{"content":"a"}}]}"#,
            Answer,
        );
        check(
            Face::Messages,
            r#"{"type":"message_start","message":{}}"#,
            Nothing,
        );
        check(Face::Messages, r#"{"type":"ping"}"#, Nothing);
        check(
            Face::Messages,
            r#"{"type":"content_block_start","content_block":{}}"#,
            Nothing,
        );
        check(
            Face::Messages,
            r#"{"type":"content_block_delta","delta":{}}"#,
            Answer,
        );
        check(
            Face::Messages,
            r#"{"type":"error","error":{"type":"overloaded_error"}}"#,
            Other,
        );
        check(
            Face::Responses,
            r#"{"type":"response.created","response":{}}"#,
            Nothing,
        );
        check(
            Face::Responses,
            r#"{"type":"response.output_text.delta","delta":"a"}"#,
            Answer,
        );
        check(
            Face::Responses,
            r#"{"type":"response.completed","response":{}}"#,
            Answer,
        );
        check(
            Face::Responses,
            r#"{"type":"response.failed","response":{}}"#,
            Other,
        );
        check(
            Face::Responses,
            r#"{"type":"error","code":"overloaded"}"#,
            Other,
        );
        for face in [Face::Chat, Face::Messages, Face::Responses] {
            check(face, r#"{"error":{"code":"1305","message":"m"}}"#, Other);
            check(face, "ping", Nothing);
            assert_eq!(tells(face, "{\"object\":1}"), Other, "no stream");
            assert_eq!(
                tells(face, "event: x\ndata: {\"type\""),
                Nothing,
                "not whole yet"
            );
        }
    }

    #[test]
    fn what_a_stream_tells_does_not_hang_on_where_its_pieces_end() {
        let text = "\u{feff}data: {\"choices\":[{\"delta\":{\"content\":\"\u{4f60}\"}}]}\n\n";
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        for stream in [text.as_bytes().to_vec(), units.collect()] {
            let told = (0..=stream.len()).map(|end| begins(Face::Chat, &stream[..end]));
            let told: Vec<Tells> = told.collect();
            let (last, before) = told.split_last().unwrap();
            assert_eq!(*last, Tells::Answer);
            assert!(!before.contains(&Tells::Other), "{told:?}");
        }
        let words = "data~ {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata:\n\n";
        for end in 0..=words.len() {
            let told = begins(Face::Chat, &words.as_bytes()[..end]);
            assert_eq!(told, Tells::Nothing, "of no event: {end}");
        }
    }

    #[test]
    fn what_a_stream_said_is_known_in_each_form() {
        let event = |json: &str| format!("event: x\ndata: {json}\n\n");
        let text = event(
            r#"{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"a"}}"#,
        ) + &event(
            r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"b"}}"#,
        ) + &event(r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#);
        assert_eq!(said(Face::Messages, &text), "ab");
        let text = event(r#"{"type":"response.output_text.delta","delta":"a"}"#)
            + &event(r#"{"type":"response.output_text.delta","delta":"b"}"#);
        assert_eq!(said(Face::Responses, &text), "ab");
    }

    #[test]
    #[cfg(feature = "api")]
    fn the_end_of_a_stream_is_known_in_each_form() {
        let check = |face, piece: &str, want| {
            assert_eq!(ends(face, piece.as_bytes()), want, "{face:?} {piece}");
        };
        check(Face::Chat, "data: [DONE]\n\n", true);
        check(Face::Chat, "data: {}\n\n", false);
        let stop = "event: message_stop\ndata: {\"type\": \"message_stop\"}\n\n";
        check(Face::Messages, stop, true);
        let text =
            "data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"message_stop\"}}\n\n";
        check(Face::Messages, text, false);
        check(
            Face::Responses,
            "data: {\"type\":\"response.completed\",\"response\":{}}\n\n",
            true,
        );
        check(
            Face::Responses,
            "data: {\"type\":\"response.created\"}\n\n",
            false,
        );
    }
}
