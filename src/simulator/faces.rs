//! The other faces of GLM: what they ask is read as a chat, and what a chat answers is told in their words.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use onelane_core::model::Face;
use serde_json::{Map, Value, json};

use super::fault::{ErrorFault, Shape};
use super::stream::cut;

/// The numbers of an embedding, where the request says nothing.
const DIMENSIONS: u64 = 8;

/// The face of a path; GLM's own paths and those of SDKs.
pub(crate) fn face_of(path: &str) -> Option<Face> {
    match path {
        "/v1/responses" | "/api/v1/responses" => Some(Face::Responses),
        "/v1/messages" | "/api/anthropic/v1/messages" => Some(Face::Messages),
        "/v1/embeddings" | "/api/paas/v4/embeddings" => Some(Face::Embeddings),
        _ => None,
    }
}

/// A refusal in the words of a face: Anthropic's have a type, the responses have words for some codes, and tell a bad
/// key under 200.
pub(crate) fn worded(face: Face, mut fault: ErrorFault) -> ErrorFault {
    match face {
        Face::Messages if fault.shape == Shape::Nested => {
            fault.shape = Shape::Anthropic;
            if fault.code == "1305" {
                fault.status = fault.status.or(Some(529));
            }
        }
        Face::Responses => {
            match fault.code.as_str() {
                "1000" | "1001" => {
                    fault.shape = Shape::FlatNumber;
                    fault.status = fault.status.or(Some(200));
                }
                "1113" => fault.code = "insufficient_quota".to_owned(),
                "1261" => fault.code = "context_length_exceeded".to_owned(),
                "1305" => fault.code = "overloaded".to_owned(),
                _ => {}
            };
        }
        Face::Chat | Face::Messages | Face::Embeddings => {}
    }
    fault
}

/// A body as that of a chat which asks the same.
pub(crate) fn as_chat(face: Face, body: Map<String, Value>) -> Map<String, Value> {
    let mut chat = Map::new();
    let mut keep = |name: &str, from: &str| {
        if let Some(value) = body.get(from) {
            chat.insert(name.to_owned(), value.clone());
        }
    };
    let mut messages = Vec::new();
    keep("model", "model");
    match face {
        Face::Chat => return body,
        Face::Embeddings => {
            let asked = body.get("input").filter(|input| !input.is_null());
            messages.extend(
                asked.map(|input| json!({"role": "user", "content": texts(input).join("\n")})),
            );
        }
        Face::Messages => {
            for name in ["stream", "max_tokens", "thinking"] {
                keep(name, name);
            }
            keep("stop", "stop_sequences");
            messages.extend(
                body.get("messages")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .map(message),
            );
            if let Some(tools) = body.get("tools").and_then(Value::as_array) {
                let tools = tools.iter().map(|tool| function(tool, "input_schema"));
                chat.insert("tools".to_owned(), tools.collect());
            }
        }
        Face::Responses => {
            keep("stream", "stream");
            keep("max_tokens", "max_output_tokens");
            match body.get("input") {
                Some(Value::Array(items)) => messages.extend(items.iter().map(message)),
                Some(input) => messages.push(json!({"role": "user", "content": input})),
                None => {}
            }
            let effort = body
                .get("reasoning")
                .and_then(|reasoning| reasoning.get("effort"));
            if let Some(effort) = effort {
                chat.insert("reasoning_effort".to_owned(), effort.clone());
            }
            if let Some(tools) = body.get("tools").and_then(Value::as_array) {
                let tools = tools.iter().map(|tool| function(tool, "parameters"));
                chat.insert("tools".to_owned(), tools.collect());
            }
        }
    }
    if !messages.is_empty() {
        chat.insert("messages".to_owned(), Value::Array(messages));
    }
    chat
}

fn texts(input: &Value) -> Vec<String> {
    match input {
        Value::Array(many) => many
            .iter()
            .map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned))
            .collect(),
        Value::String(text) => vec![text.clone()],
        other => vec![other.to_string()],
    }
}

/// A message, an item, the result of a tool.
fn message(told: &Value) -> Value {
    let kind = told.get("type").and_then(Value::as_str);
    let parts = told.get("content").and_then(Value::as_array);
    let result = |part: &Value| part.get("type").and_then(Value::as_str) == Some("tool_result");
    if kind == Some("function_call_output") || parts.is_some_and(|parts| parts.iter().any(result)) {
        return json!({"role": "tool", "content": "a result"});
    }
    let role = told.get("role").cloned().unwrap_or(json!("assistant"));
    let content = told.get("content").cloned().unwrap_or(json!(""));
    json!({"role": role, "content": content})
}

fn function(tool: &Value, schema: &str) -> Value {
    json!({"type": "function", "function": {"name": tool["name"], "parameters": tool[schema]}})
}

/// A completion as the answer of a face.
pub(crate) fn as_face(face: Face, asked: &Value, completion: Bytes) -> Bytes {
    if face == Face::Chat {
        return completion;
    }
    let whole: Value = serde_json::from_slice(&completion).unwrap_or_default();
    let told = match face {
        Face::Messages => as_message(&whole),
        Face::Responses => as_response(&whole, asked),
        _ => as_embeddings(&whole, asked),
    };
    told.to_string().into()
}

/// What stands at a place; null: nothing does.
fn at<'v>(value: &'v Value, place: &str) -> &'v Value {
    value.pointer(place).unwrap_or(&Value::Null)
}

fn set(value: &mut Value, name: &str, to: Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.insert(name.to_owned(), to);
    }
}

/// What the first choice says: thoughts, text, calls of tools.
fn said(whole: &Value) -> (&str, &str, Vec<&Value>) {
    let message = at(whole, "/choices/0/message");
    let text = |name: &str| message[name].as_str().unwrap_or_default();
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    (text("reasoning_content"), text("content"), calls.collect())
}

fn as_message(whole: &Value) -> Value {
    let (thought, text, calls) = said(whole);
    let mut content = Vec::new();
    if !thought.is_empty() {
        content.push(json!({"type": "thinking", "thinking": thought, "signature": "c2lt"}));
    }
    if !text.is_empty() {
        content.push(json!({"type": "text", "text": text}));
    }
    for call in calls {
        let arguments = at(call, "/function/arguments").as_str().unwrap_or("{}");
        let input: Value = serde_json::from_str(arguments).unwrap_or_default();
        content.push(json!({"type": "tool_use", "id": call["id"], "name": at(call, "/function/name"), "input": input}));
    }
    let reason = match at(whole, "/choices/0/finish_reason").as_str() {
        Some("stop") => "end_turn",
        Some("length") => "max_tokens",
        Some("tool_calls") => "tool_use",
        other => other.unwrap_or_default(),
    };
    let usage = &whole["usage"];
    let cached = at(usage, "/prompt_tokens_details/cached_tokens")
        .as_u64()
        .unwrap_or(0);
    let prompt = usage["prompt_tokens"].as_u64().unwrap_or(0);
    json!({
        "id": format!("msg_{}", whole["id"].as_str().unwrap_or_default()),
        "type": "message", "role": "assistant", "model": whole["model"],
        "content": content, "stop_reason": reason, "stop_sequence": null,
        "usage": {
            "input_tokens": prompt.saturating_sub(cached),
            "output_tokens": usage["completion_tokens"],
            "cache_read_input_tokens": cached,
            "server_tool_use": {"web_search_requests": 0},
        },
    })
}

fn as_response(whole: &Value, asked: &Value) -> Value {
    let (thought, text, calls) = said(whole);
    let id = whole["id"].as_str().unwrap_or_default();
    let mut output = Vec::new();
    if !thought.is_empty() {
        output.push(json!({"type": "reasoning", "id": format!("rs_{id}"),
            "summary": [{"type": "summary_text", "text": thought}]}));
    }
    if !text.is_empty() {
        output.push(json!({"type": "message", "id": format!("msg_{id}"), "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}]}));
    }
    for call in calls {
        output.push(json!({"type": "function_call", "id": format!("fc_{id}"), "call_id": call["id"],
            "name": at(call, "/function/name"), "arguments": at(call, "/function/arguments"), "status": "completed"}));
    }
    let is_cut = at(whole, "/choices/0/finish_reason") == "length";
    let details = is_cut.then(|| json!({"reason": "max_output_tokens"}));
    let usage = &whole["usage"];
    json!({
        "id": format!("resp-{id}"), "object": "response", "created_at": whole["created"],
        "status": if is_cut { "incomplete" } else { "completed" },
        "background": asked.get("background").cloned().unwrap_or(Value::Bool(false)),
        "error": null, "incomplete_details": details, "instructions": asked.get("instructions"),
        "metadata": {}, "model": whole["model"], "output": output, "parallel_tool_calls": true,
        "previous_response_id": asked.get("previous_response_id"), "temperature": 1.0, "tool_choice": "auto",
        "tools": asked.get("tools").cloned().unwrap_or(json!([])), "top_p": 0.95,
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": usage["prompt_tokens_details"],
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": usage["completion_tokens_details"],
            "total_tokens": usage["total_tokens"],
        },
    })
}

fn as_embeddings(whole: &Value, asked: &Value) -> Value {
    let input = texts(&asked["input"]);
    let dimensions = asked["dimensions"]
        .as_u64()
        .unwrap_or(DIMENSIONS)
        .min(4_096);
    let number = |text: &str, n: u64| {
        let mut hasher = DefaultHasher::new();
        (text, n).hash(&mut hasher);
        (hasher.finish() % 2_000) as f64 / 1_000.0 - 1.0
    };
    let data = input.iter().enumerate().map(|(index, text)| {
        let numbers: Vec<f64> = (0..dimensions).map(|n| number(text, n)).collect();
        json!({"object": "embedding", "index": index, "embedding": numbers})
    });
    let tokens = at(whole, "/usage/prompt_tokens");
    json!({
        "object": "list", "model": whole["model"], "data": data.collect::<Vec<_>>(),
        "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
    })
}

/// The events that an answer of another face than the chat is streamed as; texts in so many pieces.
pub(crate) fn events(face: Face, answer: &[u8], pieces: Option<u64>) -> Vec<Bytes> {
    let whole: Value = serde_json::from_slice(answer).unwrap_or_default();
    let events = match face {
        Face::Messages => message_events(&whole, pieces),
        _ => response_events(&whole, pieces),
    };
    let write = |event: Value| {
        let kind = at(&event, "/type").as_str().unwrap_or_default();
        Bytes::from(format!("event: {kind}\ndata: {event}\n\n"))
    };
    events.into_iter().map(write).collect()
}

fn message_events(whole: &Value, pieces: Option<u64>) -> Vec<Value> {
    let mut begun = whole.clone();
    set(&mut begun, "content", json!([]));
    set(&mut begun, "stop_reason", Value::Null);
    if let Some(usage) = begun.get_mut("usage") {
        set(usage, "output_tokens", json!(0));
    }
    let mut events = vec![
        json!({"type": "message_start", "message": begun}),
        json!({"type": "ping"}),
    ];
    for (index, block) in whole["content"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let (empty, kind, name, text) = match block["type"].as_str() {
            Some("thinking") => {
                let empty = json!({"type": "thinking", "thinking": "", "signature": ""});
                (
                    empty,
                    "thinking_delta",
                    "thinking",
                    block["thinking"].as_str().unwrap_or_default().to_owned(),
                )
            }
            Some("tool_use") => {
                let mut empty = block.clone();
                set(&mut empty, "input", json!({}));
                (
                    empty,
                    "input_json_delta",
                    "partial_json",
                    block["input"].to_string(),
                )
            }
            _ => {
                let text = block["text"].as_str().unwrap_or_default().to_owned();
                (
                    json!({"type": "text", "text": ""}),
                    "text_delta",
                    "text",
                    text,
                )
            }
        };
        events.push(json!({"type": "content_block_start", "index": index, "content_block": empty}));
        for piece in cut(&text, pieces) {
            let delta = json!({"type": kind, name: piece});
            events.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        }
        if let Some(signature) = block.get("signature") {
            let delta = json!({"type": "signature_delta", "signature": signature});
            events.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        }
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    let delta = json!({"stop_reason": whole["stop_reason"], "stop_sequence": null});
    events.push(json!({"type": "message_delta", "delta": delta, "usage": whole["usage"]}));
    events.push(json!({"type": "message_stop"}));
    events
}

fn response_events(whole: &Value, pieces: Option<u64>) -> Vec<Value> {
    let mut begun = whole.clone();
    set(&mut begun, "output", json!([]));
    set(&mut begun, "status", json!("in_progress"));
    set(&mut begun, "usage", Value::Null);
    let mut events = vec![
        json!({"type": "response.created", "response": begun}),
        json!({"type": "response.in_progress", "response": begun}),
    ];
    for (n, item) in whole["output"].as_array().into_iter().flatten().enumerate() {
        let mut empty = item.clone();
        let (kind, text) = match item["type"].as_str() {
            Some("message") => {
                set(&mut empty, "content", json!([]));
                ("response.output_text", at(item, "/content/0/text").as_str())
            }
            Some("function_call") => {
                set(&mut empty, "arguments", json!(""));
                (
                    "response.function_call_arguments",
                    item["arguments"].as_str(),
                )
            }
            _ => (
                "response.reasoning_summary_text",
                at(item, "/summary/0/text").as_str(),
            ),
        };
        events
            .push(json!({"type": "response.output_item.added", "output_index": n, "item": empty}));
        let id = &item["id"];
        if item["type"] == "message" {
            let part = json!({"type": "output_text", "text": "", "annotations": []});
            events.push(json!({"type": "response.content_part.added", "item_id": id, "output_index": n, "content_index": 0, "part": part}));
        }
        for piece in cut(text.unwrap_or_default(), pieces) {
            events.push(json!({"type": format!("{kind}.delta"), "item_id": id, "output_index": n, "content_index": 0, "delta": piece}));
        }
        let name = if kind.ends_with("arguments") {
            "arguments"
        } else {
            "text"
        };
        events.push(json!({"type": format!("{kind}.done"), "item_id": id, "output_index": n, "content_index": 0, name: text}));
        if item["type"] == "message" {
            events.push(json!({"type": "response.content_part.done", "item_id": id, "output_index": n, "content_index": 0, "part": at(item, "/content/0")}));
        }
        events.push(json!({"type": "response.output_item.done", "output_index": n, "item": item}));
    }
    let last = match whole["status"] == "incomplete" {
        true => "response.incomplete",
        false => "response.completed",
    };
    events.push(json!({"type": last, "response": whole}));
    for (n, event) in events.iter_mut().enumerate() {
        set(event, "sequence_number", json!(n));
    }
    events
}
