//! Answers in pieces, as GLM streams them: server-sent events without names, thoughts before text, usage in the last.

use bytes::Bytes;
use serde_json::{Map, Value, json};

/// The media type of server-sent events.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";
/// Characters of a piece where the request wishes nothing.
const PIECE_CHARS: usize = 6;

/// The events that a completion is streamed as; texts in so many pieces.
pub(crate) fn events(completion: &[u8], pieces: Option<u64>) -> Vec<Bytes> {
    let Ok(Value::Object(mut whole)) = serde_json::from_slice(completion) else {
        return Vec::new();
    };
    let choices = match whole.remove("choices") {
        Some(Value::Array(choices)) => choices,
        _ => Vec::new(),
    };
    let usage = whole.remove("usage").unwrap_or_default();
    let event = |choice: Value, usage: Option<&Value>| -> Bytes {
        let mut chunk = whole.clone();
        chunk.insert("object".to_owned(), json!("chat.completion.chunk"));
        chunk.insert("choices".to_owned(), json!([choice]));
        if let Some(usage) = usage {
            chunk.insert("usage".to_owned(), usage.clone());
        }
        format!("data: {}\n\n", Value::Object(chunk)).into()
    };
    let mut events = Vec::new();
    let last = choices.len().saturating_sub(1);
    for choice in &choices {
        for delta in deltas(choice.get("message"), pieces) {
            let index = &choice["index"];
            events.push(event(json!({"index": index, "delta": delta}), None));
        }
    }
    for (n, choice) in choices.iter().enumerate() {
        let (index, reason) = (&choice["index"], &choice["finish_reason"]);
        let end = json!({"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": reason});
        events.push(event(end, (n == last).then_some(&usage)));
    }
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    events
}

/// A message in pieces.
fn deltas(message: Option<&Value>, pieces: Option<u64>) -> Vec<Value> {
    let mut deltas = Vec::new();
    let text = |name: &str| message.and_then(|message| message.get(name)?.as_str());
    for name in ["reasoning_content", "content"] {
        for piece in cut(text(name).unwrap_or_default(), pieces) {
            let mut delta = Map::new();
            delta.insert("role".to_owned(), json!("assistant"));
            delta.insert(name.to_owned(), json!(piece));
            deltas.push(Value::Object(delta));
        }
    }
    let calls = message.and_then(|message| message.get("tool_calls")?.as_array());
    for (index, call) in calls.into_iter().flatten().enumerate() {
        let function = &call["function"];
        let arguments = function["arguments"].as_str().unwrap_or_default();
        for (n, piece) in cut(arguments, pieces).into_iter().enumerate() {
            let call = match n {
                0 => {
                    json!({"index": index, "id": call["id"], "type": "function", "function": {"name": function["name"], "arguments": piece}})
                }
                _ => json!({"index": index, "function": {"arguments": piece}}),
            };
            deltas.push(json!({"role": "assistant", "tool_calls": [call]}));
        }
    }
    deltas
}

/// A text in so many pieces, or in short ones.
pub(crate) fn cut(text: &str, pieces: Option<u64>) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let size = match pieces.and_then(|pieces| usize::try_from(pieces).ok()) {
        Some(pieces) => chars.len().div_ceil(pieces.max(1)).max(1),
        None => PIECE_CHARS,
    };
    chars
        .chunks(size)
        .map(|piece| piece.iter().collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_comes_in_pieces_that_make_it_up() {
        let whole = json!({"id": "a", "model": "glm-4.7", "usage": {"total_tokens": 7}, "choices": [
            {"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant",
                "reasoning_content": "I think so", "content": "你好，世界",
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]}}]});
        let events = events(whole.to_string().as_bytes(), Some(3));
        assert_eq!(events.last().unwrap(), "data: [DONE]\n\n");
        let chunks: Vec<Value> = events
            .iter()
            .filter_map(|event| serde_json::from_slice(event.strip_prefix(b"data: ")?).ok())
            .collect();
        assert_eq!(chunks.len(), 3 + 3 + 3 + 1);
        let told = |name: &str| -> String {
            let delta =
                |chunk: &Value| Some(chunk["choices"][0]["delta"][name].as_str()?.to_owned());
            chunks.iter().filter_map(delta).collect()
        };
        assert_eq!(told("reasoning_content"), "I think so");
        assert_eq!(told("content"), "你好，世界");
        let last = chunks.last().unwrap();
        assert_eq!(last["choices"][0]["finish_reason"], "tool_calls");
        assert_eq!(last["usage"]["total_tokens"], 7);
        assert!(chunks[0].get("usage").is_none());
    }
}
