//! The pieces of a stream of chats: what they tell, the completion that they make up, and the pieces that a completion would
//! have come in. Some relays stream although nobody asked them to.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::classify::states_error;
use super::layers;
use crate::bounded::{self, First};
#[cfg(feature = "api")]
use crate::object::Object;

/// How GLM's streams say that all is told.
#[cfg(feature = "api")]
pub(super) const DONE: &str = "[DONE]";

/// Pieces of one kind in a chunk: GLM sends one, or one for each of some tools.
const PIECES_MAX: usize = 128;

/// A completion or a chunk of one: what both say of themselves, and their choices.
#[derive(Deserialize, Serialize)]
#[serde(bound(deserialize = "C: Deserialize<'de> + Default"))]
struct Told<'a, C> {
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a RawValue>,
    /// Of what is read it does not matter.
    #[serde(skip_deserializing)]
    object: &'static str,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    created: Option<&'a RawValue>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    model: Option<&'a RawValue>,
    #[serde(default)]
    choices: C,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    usage: Option<&'a RawValue>,
}

/// A chunk, as far as a completion is made of it.
type Chunk<'a> = Told<'a, First<ChunkChoice<'a>, PIECES_MAX>>;
/// The completion that chunks come to.
type Completion<'a> = Told<'a, Vec<Choice>>;
/// A completion, as far as the events of a stream are made of it.
#[cfg(feature = "api")]
type Answered<'a> = Told<'a, Vec<AnsweredChoice<'a>>>;

#[derive(Deserialize)]
struct ChunkChoice<'a> {
    #[serde(default)]
    index: Option<u32>,
    #[serde(default, borrow)]
    delta: Option<Delta<'a>>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(default, borrow)]
    content: Option<&'a RawValue>,
    #[serde(default, borrow)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(default, borrow)]
    tool_calls: Option<First<ToolDelta<'a>, PIECES_MAX>>,
}

#[derive(Deserialize)]
struct ToolDelta<'a> {
    #[serde(default)]
    index: Option<u32>,
    #[serde(default, borrow)]
    id: Option<&'a RawValue>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default, borrow)]
    function: FunctionDelta<'a>,
}

#[derive(Deserialize, Default)]
struct FunctionDelta<'a> {
    #[serde(default, borrow)]
    name: Option<&'a RawValue>,
    #[serde(default, borrow)]
    arguments: Option<&'a RawValue>,
}

/// A JSON string between its quotes, as it is spelled: pieces may end in the middle of a character of two escapes.
#[derive(Default)]
struct Text(String);

impl Text {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes one more piece. `None`: it is no text.
    fn take(&mut self, piece: Option<&RawValue>) -> Option<()> {
        if let Some(piece) = piece {
            let inner = piece.get().strip_prefix('"')?.strip_suffix('"')?;
            self.0.push_str(inner);
        }
        Some(())
    }
}

impl Serialize for Text {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(format!("\"{}\"", self.0))
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

#[derive(Serialize, Default)]
struct Choice {
    index: u32,
    finish_reason: Option<String>,
    message: Message,
}

#[derive(Serialize)]
struct Message {
    role: &'static str,
    content: Text,
    #[serde(skip_serializing_if = "Text::is_empty")]
    reasoning_content: Text,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "values")]
    tool_calls: BTreeMap<u32, ToolCall>,
}

impl Default for Message {
    fn default() -> Self {
        Self {
            role: "assistant",
            content: Text::default(),
            reasoning_content: Text::default(),
            tool_calls: BTreeMap::new(),
        }
    }
}

#[derive(Serialize, Default)]
struct ToolCall {
    id: Text,
    #[serde(rename = "type")]
    kind: String,
    function: Function,
}

#[derive(Serialize, Default)]
struct Function {
    name: Text,
    arguments: Text,
}

fn values<S: serde::Serializer>(
    calls: &BTreeMap<u32, ToolCall>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(calls.values())
}

impl Choice {
    /// Takes one more piece. `None`: something of it is no text.
    fn take(&mut self, piece: ChunkChoice<'_>) -> Option<()> {
        self.index = piece.index.unwrap_or(0);
        if piece.finish_reason.is_some() {
            self.finish_reason = piece.finish_reason;
        }
        let Some(delta) = piece.delta else {
            return Some(());
        };
        self.message.content.take(delta.content)?;
        self.message
            .reasoning_content
            .take(delta.reasoning_content)?;
        for piece in delta.tool_calls.unwrap_or_default().0 {
            let call = self
                .message
                .tool_calls
                .entry(piece.index.unwrap_or(0))
                .or_default();
            call.id.take(piece.id)?;
            call.function.name.take(piece.function.name)?;
            call.function.arguments.take(piece.function.arguments)?;
            if let Some(kind) = piece.kind {
                call.kind = kind;
            }
        }
        Some(())
    }
}

/// What the beginning of a stream tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tells {
    /// Nothing yet: a role, say.
    Nothing,
    /// Something of an answer.
    Answer,
    /// That it is no stream, or an error.
    Other,
}

/// What a chunk tells.
pub(super) fn tells(event: &str) -> Tells {
    let Ok(chunk) = serde_json::from_str::<Chunk<'_>>(event) else {
        return Tells::Nothing;
    };
    let choices = chunk.choices.0;
    let says = |delta: &Delta| {
        let has = |text: &Option<&RawValue>| {
            text.is_some_and(|text| !matches!(text.get(), "null" | "\"\""))
        };
        has(&delta.content)
            || has(&delta.reasoning_content)
            || delta
                .tool_calls
                .as_ref()
                .is_some_and(|calls| !calls.0.is_empty())
    };
    if choices
        .iter()
        .any(|choice| choice.delta.as_ref().is_some_and(says))
    {
        return Tells::Answer;
    }
    if choices.is_empty() && bounded::excerpt(event).is_ok_and(|json| states_error(&json)) {
        return Tells::Other;
    }
    Tells::Nothing
}

/// The words that the chunks of a stream tell, thoughts and arguments of tools among them.
pub(super) fn said(text: &str) -> String {
    let mut said = Text::default();
    for event in layers::documents(text).unwrap_or_default() {
        let Ok(chunk) = serde_json::from_str::<Chunk<'_>>(&event) else {
            continue;
        };
        let deltas = chunk.choices.0.into_iter();
        for delta in deltas.filter_map(|choice| choice.delta) {
            let calls = delta.tool_calls.unwrap_or_default().0.into_iter();
            let of_calls = calls.flat_map(|call| [call.function.name, call.function.arguments]);
            for piece in [delta.reasoning_content, delta.content]
                .into_iter()
                .chain(of_calls)
            {
                let _ = said.take(piece.filter(|piece| piece.get() != "null"));
            }
        }
    }
    // What is torn is counted as it is spelled.
    let said = said.0;
    serde_json::from_str(&format!("\"{said}\"")).unwrap_or(said)
}

/// Whether an event that is no chunk holds a piece of an answer all the same, in a shape that nobody knows.
fn holds_a_piece(event: &str) -> bool {
    #[derive(Deserialize)]
    struct Odd<'a> {
        #[serde(default, borrow)]
        choices: Option<&'a RawValue>,
    }
    let odd = serde_json::from_str::<Odd<'_>>(event);
    odd.is_ok_and(|odd| odd.choices.is_some_and(|raw| raw.get() != "[]"))
}

/// The completion of these chunks as JSON; `None` if they are no chunks, the last of them did not come, or one can't
/// be read: an answer with a hole in it is none.
pub(super) fn assemble(events: &[Cow<'_, str>]) -> Option<String> {
    let mut choices: BTreeMap<u32, Choice> = BTreeMap::new();
    let mut whole: Completion<'_> = Told {
        id: None,
        request_id: None,
        object: "chat.completion",
        created: None,
        model: None,
        choices: Vec::new(),
        usage: None,
    };
    for event in events {
        // One that is none, as a relay's `ping` is none, spoils nothing.
        let Ok(chunk) = serde_json::from_str::<Chunk<'_>>(event) else {
            if holds_a_piece(event) {
                return None;
            }
            continue;
        };
        for piece in chunk.choices.0 {
            choices
                .entry(piece.index.unwrap_or(0))
                .or_default()
                .take(piece)?;
        }
        whole.id = whole.id.or(chunk.id);
        whole.request_id = whole.request_id.or(chunk.request_id);
        whole.created = whole.created.or(chunk.created);
        whole.model = whole.model.or(chunk.model);
        // The last one is that of the whole.
        whole.usage = chunk.usage.or(whole.usage);
    }
    let ended = |choice: &Choice| choice.finish_reason.is_some();
    if choices.is_empty() || !choices.values().all(ended) {
        return None;
    }
    whole.choices = choices.into_values().collect();
    serde_json::to_string(&whole).ok()
}

#[cfg(feature = "api")]
#[derive(Deserialize)]
struct AnsweredChoice<'a> {
    #[serde(default)]
    index: u32,
    #[serde(default, borrow)]
    finish_reason: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Object<'a>,
}

/// The events of the stream that this completion would have been; `None`: it is none.
#[cfg(feature = "api")]
pub(super) fn events_of(completion: &str) -> Option<String> {
    use std::fmt::Write as _;

    let whole: Answered<'_> = serde_json::from_str(completion).ok()?;
    let mut head = String::new();
    let fields = [
        ("id", whole.id),
        ("request_id", whole.request_id),
        ("created", whole.created),
        ("model", whole.model),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            write!(head, "\"{name}\":{},", value.get()).ok()?;
        }
    }
    let mut events = String::with_capacity(completion.len() + 512);
    let last = whole.choices.len().checked_sub(1)?;
    for choice in &whole.choices {
        let (index, delta) = (choice.index, delta(&choice.message)?);
        write!(
            events,
            "data: {{{head}\"object\":\"chat.completion.chunk\",\"choices\":[{{\"index\":{index},\"delta\":{delta}}}]}}\n\n"
        )
        .ok()?;
    }
    for (n, choice) in whole.choices.iter().enumerate() {
        let (index, reason) = (
            choice.index,
            choice.finish_reason.map_or("null", RawValue::get),
        );
        let usage = whole.usage.filter(|_| n == last);
        let usage = usage.map(|usage| format!(",\"usage\":{}", usage.get()));
        let usage = usage.unwrap_or_default();
        write!(
            events,
            "data: {{{head}\"object\":\"chat.completion.chunk\",\"choices\":[{{\"index\":{index},\"delta\":{{}},\"finish_reason\":{reason}}}]{usage}}}\n\n"
        )
        .ok()?;
    }
    events.push_str("data: [DONE]\n\n");
    Some(events)
}

/// A message as the one piece of itself: its tool calls are counted.
#[cfg(feature = "api")]
fn delta(message: &Object<'_>) -> Option<String> {
    let mut fields = Vec::new();
    for (name, value) in message.iter() {
        let value = match name {
            "tool_calls" if value.get() != "null" => counted(value)?,
            _ => value.get().to_owned(),
        };
        fields.push(format!("{}:{value}", serde_json::to_string(name).ok()?));
    }
    Some(format!("{{{}}}", fields.join(",")))
}

#[cfg(feature = "api")]
fn counted(calls: &RawValue) -> Option<String> {
    let calls: Vec<&RawValue> = serde_json::from_str(calls.get()).ok()?;
    let counted = calls.iter().enumerate().map(|(n, call)| {
        let fields = call.get().strip_prefix('{')?;
        match call.get().contains("\"index\"") {
            true => Some(call.get().to_owned()),
            false => Some(format!("{{\"index\":{n},{fields}")),
        }
    });
    let counted: Option<Vec<String>> = counted.collect();
    Some(format!("[{}]", counted?.join(",")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(chunks: &[Value]) -> Option<Value> {
        let events: Vec<Cow<'_, str>> = chunks.iter().map(|c| c.to_string().into()).collect();
        assemble(&events).map(|text| serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn a_stream_becomes_the_completion_that_it_is_the_pieces_of() {
        let piece = |delta: Value, finish: Value| json!({"id": "a", "model": "glm-4.7", "created": 7, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]});
        let tool = |name: &str, arguments: &str| json!({"tool_calls": [{"index": 0, "id": if name.is_empty() { "" } else { "c1" }, "type": "function", "function": {"name": name, "arguments": arguments}}]});
        let whole = of(&[
            piece(
                json!({"role": "assistant", "reasoning_content": "Hm"}),
                json!(null),
            ),
            piece(json!({"content": "你"}), json!(null)),
            piece(json!({"content": "好"}), json!(null)),
            piece(tool("look", "{\"a\""), json!(null)),
            piece(tool("", ":1}"), json!("tool_calls")),
            json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}),
        ]);
        assert_eq!(
            whole.unwrap(),
            json!({"id": "a", "object": "chat.completion", "created": 7, "model": "glm-4.7",
                "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
                    "role": "assistant", "content": "你好", "reasoning_content": "Hm",
                    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{\"a\":1}"}}]}}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})
        );
    }

    #[test]
    fn a_character_that_was_torn_into_two_pieces_is_whole_again() {
        let events = [
            r#"{"choices":[{"index":0,"delta":{"content":"a\ud83d"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"\ude00\n"},"finish_reason":"stop"}]}"#,
        ];
        let whole = assemble(&events.map(Cow::Borrowed)).unwrap();
        let whole: Value = serde_json::from_str(&whole).unwrap();
        assert_eq!(whole["choices"][0]["message"]["content"], "a😀\n");
    }

    #[test]
    fn an_answer_with_a_hole_in_it_is_none() {
        let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
        for odd in [
            json!({"choices": [{"index": 0, "delta": {"content": [{"text": "a"}]}}]}),
            json!({"choices": [{"index": -1, "delta": {"content": "a"}}]}),
            json!({"choices": {"delta": "a"}}),
        ] {
            assert_eq!(of(&[odd, end.clone()]), None);
        }
        // What holds no piece spoils nothing.
        for other in [
            json!({"ping": 1}),
            json!("ping"),
            json!({"choices": []}),
            json!({"choices": null}),
        ] {
            assert!(of(&[other.clone(), end.clone()]).is_some(), "{other}");
        }
    }

    #[test]
    fn a_stream_that_broke_off_is_no_completion() {
        let open = json!({"choices": [{"index": 0, "delta": {"content": "a"}}]});
        let other = json!({"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]});
        assert_eq!(of(std::slice::from_ref(&open)), None);
        assert_eq!(of(&[open, other]), None);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[json!({"usage": {}})]), None);
    }
}
