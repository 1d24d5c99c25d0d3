//! Puts a completion together from the pieces of a stream: some relays stream although nobody asked them to.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::bounded::First;

/// Pieces of one kind in a chunk: GLM sends one, or one for each of some tools.
const PIECES_MAX: usize = 128;

/// A chunk, as far as a completion is made of it.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(default)]
    choices: First<ChunkChoice, PIECES_MAX>,
    #[serde(default, borrow)]
    id: Option<&'a RawValue>,
    #[serde(default, borrow)]
    request_id: Option<&'a RawValue>,
    #[serde(default, borrow)]
    created: Option<&'a RawValue>,
    #[serde(default, borrow)]
    model: Option<&'a RawValue>,
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ChunkChoice {
    #[serde(default)]
    index: Option<u32>,
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Option<First<ToolDelta, PIECES_MAX>>,
}

#[derive(Deserialize)]
struct ToolDelta {
    #[serde(default)]
    index: Option<u32>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    function: FunctionDelta,
}

#[derive(Deserialize, Default)]
struct FunctionDelta {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<String>,
}

/// The completion that the chunks come to.
#[derive(Serialize)]
struct Completion<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a RawValue>,
    object: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a RawValue>,
    choices: Vec<Choice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<&'a RawValue>,
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
    content: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reasoning_content: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "values")]
    tool_calls: BTreeMap<u32, ToolCall>,
}

impl Default for Message {
    fn default() -> Self {
        Self {
            role: "assistant",
            content: String::new(),
            reasoning_content: String::new(),
            tool_calls: BTreeMap::new(),
        }
    }
}

#[derive(Serialize, Default)]
struct ToolCall {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    function: Function,
}

#[derive(Serialize, Default)]
struct Function {
    name: String,
    arguments: String,
}

fn values<S: serde::Serializer>(
    calls: &BTreeMap<u32, ToolCall>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(calls.values())
}

fn append(text: &mut String, piece: Option<String>) {
    text.push_str(&piece.unwrap_or_default());
}

impl Choice {
    fn take(&mut self, piece: ChunkChoice) {
        self.index = piece.index.unwrap_or(0);
        if piece.finish_reason.is_some() {
            self.finish_reason = piece.finish_reason;
        }
        let Some(delta) = piece.delta else { return };
        append(&mut self.message.content, delta.content);
        append(&mut self.message.reasoning_content, delta.reasoning_content);
        for piece in delta.tool_calls.unwrap_or_default().0 {
            let call = self
                .message
                .tool_calls
                .entry(piece.index.unwrap_or(0))
                .or_default();
            append(&mut call.id, piece.id);
            append(&mut call.function.name, piece.function.name);
            append(&mut call.function.arguments, piece.function.arguments);
            if let Some(kind) = piece.kind {
                call.kind = kind;
            }
        }
    }
}

/// The completion of these chunks as JSON; `None` if they are no chunks, or the last of them did not come.
pub(super) fn assemble(events: &[Cow<'_, str>]) -> Option<String> {
    let mut choices: BTreeMap<u32, Choice> = BTreeMap::new();
    let mut whole = Completion {
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
            continue;
        };
        for piece in chunk.choices.0 {
            choices
                .entry(piece.index.unwrap_or(0))
                .or_default()
                .take(piece);
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
    fn a_stream_that_broke_off_is_no_completion() {
        let open = json!({"choices": [{"index": 0, "delta": {"content": "a"}}]});
        let other = json!({"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]});
        assert_eq!(of(std::slice::from_ref(&open)), None);
        assert_eq!(of(&[open, other]), None);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[json!({"usage": {}})]), None);
    }
}
