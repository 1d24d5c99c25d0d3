//! Anthropic's messages.

use std::borrow::Cow;
use std::collections::BTreeMap;
#[cfg(feature = "api")]
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

#[cfg(feature = "api")]
use super::with;
use super::{Form, Head, counted, holds, kind_of, member, named, none_odd, strange};
use crate::glm::stream::Tells;
use crate::glm::usage::{self, Names};
use crate::object::Object;

pub(super) const FORM: Form = Form {
    typed,
    lenient: none_odd,
    assemble,
    tells,
    #[cfg(feature = "api")]
    ends: |event| kind_of(event).as_deref() == Some("message_stop"),
    #[cfg(feature = "api")]
    events,
    #[cfg(feature = "api")]
    is_failed: |_| false,
    usage: &usage::MESSAGES,
    lacks: "content",
};

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    content: &'a RawValue,
    #[serde(borrow)]
    stop_reason: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
    #[serde(default, borrow)]
    model: Option<Cow<'a, str>>,
}

fn typed(text: &str, names: &Names) -> Option<Head> {
    let answer: Answer<'_> = serde_json::from_str(text).ok()?;
    if !answer.content.get().starts_with('[') {
        return None;
    }
    Some(Head {
        finish_reason: answer.stop_reason.map(Cow::into_owned),
        is_whole: true,
        has_content: holds(Some(answer.content)),
        usage: counted(answer.usage, names),
        model: answer.model.as_deref().and_then(named),
        request_id: None,
    })
}

fn tells(event: &str) -> Tells {
    match kind_of(event).as_deref() {
        Some("content_block_delta" | "content_block_stop") => Tells::Answer,
        Some("error") => Tells::Other,
        Some(_) => Tells::Nothing,
        None => strange(event),
    }
}

/// An event, as far as a message is made of it.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(default, borrow)]
    message: Option<Object<'a>>,
    #[serde(default)]
    index: Option<u32>,
    #[serde(default, borrow)]
    content_block: Option<Object<'a>>,
    #[serde(default, borrow)]
    delta: Option<Delta<'a>>,
    #[serde(default, borrow)]
    usage: Option<Object<'a>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(default, borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    thinking: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    signature: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    partial_json: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    citation: Option<&'a RawValue>,
    #[serde(default, borrow)]
    stop_reason: Option<&'a RawValue>,
    #[serde(default, borrow)]
    stop_sequence: Option<&'a RawValue>,
}

/// A block of a message as it grows.
#[derive(Default)]
struct Block<'a> {
    /// As it began.
    begun: Object<'a>,
    text: String,
    thinking: String,
    signature: String,
    json: String,
    citations: Vec<&'a str>,
}

impl<'a> Block<'a> {
    fn take(&mut self, delta: Delta<'a>) {
        for (text, piece) in [
            (&mut self.text, delta.text),
            (&mut self.thinking, delta.thinking),
            (&mut self.signature, delta.signature),
            (&mut self.json, delta.partial_json),
        ] {
            text.push_str(&piece.unwrap_or_default());
        }
        self.citations.extend(delta.citation.map(RawValue::get));
    }

    /// As it ended.
    fn written(&self) -> Option<String> {
        let mut fields = Vec::new();
        let added = [
            ("text", &self.text),
            ("thinking", &self.thinking),
            ("signature", &self.signature),
        ];
        for (name, value) in self.begun.iter() {
            let added = added.iter().find(|(known, _)| *known == name);
            let value = match (name, added) {
                ("input", _) if !self.json.is_empty() => {
                    let input: &RawValue = serde_json::from_str(&self.json).ok()?;
                    input.get().to_owned()
                }
                ("citations", _) if !self.citations.is_empty() => continue,
                (_, Some((_, added))) if !added.is_empty() => {
                    let before: String = serde_json::from_str(value.get()).unwrap_or_default();
                    serde_json::to_string(&(before + added)).ok()?
                }
                _ => value.get().to_owned(),
            };
            fields.push(member(name, &value)?);
        }
        for (name, value) in added {
            if !value.is_empty() && self.begun.get(name).is_none() {
                fields.push(member(name, &serde_json::to_string(value).ok()?)?);
            }
        }
        if !self.citations.is_empty() {
            fields.push(format!("\"citations\":[{}]", self.citations.join(",")));
        }
        Some(format!("{{{}}}", fields.join(",")))
    }
}

/// The message of these events as JSON; `None` if they are none, or the last of them did not come.
fn assemble(events: &[Cow<'_, str>]) -> Option<String> {
    let mut message = None;
    let mut blocks: BTreeMap<u32, Block<'_>> = BTreeMap::new();
    let mut usage: Option<Object<'_>> = None;
    let (mut reason, mut sequence) = (None, None);
    for event in events {
        // One that is none, as a relay's `ping` is none, spoils nothing.
        let Ok(event) = serde_json::from_str::<Event<'_>>(event) else {
            continue;
        };
        message = message.or(event.message);
        usage = event.usage.or(usage);
        if let Some(begun) = event.content_block {
            let block = blocks.entry(event.index.unwrap_or(0)).or_default();
            block.begun = begun;
        }
        let Some(delta) = event.delta else { continue };
        reason = delta.stop_reason.or(reason);
        sequence = delta.stop_sequence.or(sequence);
        if let Some(block) = event.index.and_then(|index| blocks.get_mut(&index)) {
            block.take(delta);
        }
    }
    let (message, reason) = (message?, reason?);
    let written: Option<Vec<String>> = blocks.values().map(Block::written).collect();
    let content = format!("[{}]", written?.join(","));
    let begun = message.get("usage");
    let begun: Option<Object<'_>> = begun.and_then(|begun| serde_json::from_str(begun.get()).ok());
    let usage = merged(&begun.unwrap_or_default(), &usage.unwrap_or_default())?;
    let last = [
        ("content", content.as_str()),
        ("stop_reason", reason.get()),
        ("stop_sequence", sequence.map_or("null", RawValue::get)),
        ("usage", &usage),
    ];
    let mut fields = Vec::new();
    for (name, value) in message.iter() {
        let known = last.iter().find(|(known, _)| *known == name);
        fields.push(member(name, known.map_or(value.get(), |(_, value)| value))?);
    }
    for (name, value) in last {
        if message.get(name).is_none() {
            fields.push(member(name, value)?);
        }
    }
    Some(format!("{{{}}}", fields.join(",")))
}

/// What is counted when a message begins, and what at its end: that of the end counts.
fn merged(begun: &Object<'_>, ended: &Object<'_>) -> Option<String> {
    let mut fields = Vec::new();
    for (name, value) in begun.iter() {
        let value = ended.get(name).unwrap_or(value);
        fields.push(member(name, value.get())?);
    }
    for (name, value) in ended.iter() {
        if begun.get(name).is_none() {
            fields.push(member(name, value.get())?);
        }
    }
    Some(format!("{{{}}}", fields.join(",")))
}

/// Writes one event.
#[cfg(feature = "api")]
fn event(out: &mut String, kind: &str, rest: &str) -> Option<()> {
    write!(
        out,
        "event: {kind}\ndata: {{\"type\":\"{kind}\"{rest}}}\n\n"
    )
    .ok()
}

/// The events of the stream that this message would have been; `None`: it is none.
#[cfg(feature = "api")]
fn events(message: &str) -> Option<String> {
    let message: Object<'_> = serde_json::from_str(message).ok()?;
    let blocks: Vec<Object<'_>> = serde_json::from_str(message.get("content")?.get()).ok()?;
    let of = |name: &str| message.get(name).map_or("null", RawValue::get);
    let (reason, sequence) = (of("stop_reason"), of("stop_sequence"));
    let mut out = String::new();
    let empty = [
        ("content", "[]"),
        ("stop_reason", "null"),
        ("stop_sequence", "null"),
    ];
    let begun = with(&message, &empty)?;
    event(&mut out, "message_start", &format!(",\"message\":{begun}"))?;
    for (index, block) in blocks.iter().enumerate() {
        let deltas = [
            ("text", "text_delta", "text"),
            ("thinking", "thinking_delta", "thinking"),
            ("signature", "signature_delta", "signature"),
        ];
        let is_tool = block.get("input").is_some();
        let begun = with(
            block,
            &[
                ("text", "\"\""),
                ("thinking", "\"\""),
                ("signature", "\"\""),
                ("input", "{}"),
            ],
        )?;
        let begun = format!(",\"index\":{index},\"content_block\":{begun}");
        event(&mut out, "content_block_start", &begun)?;
        for (field, kind, name) in deltas {
            if let Some(value) = block.get(field).filter(|value| holds(Some(value))) {
                let delta = format!(
                    ",\"index\":{index},\"delta\":{{\"type\":\"{kind}\",\"{name}\":{}}}",
                    value.get()
                );
                event(&mut out, "content_block_delta", &delta)?;
            }
        }
        if let Some(input) = block.get("input").filter(|_| is_tool) {
            let json = serde_json::to_string(input.get()).ok()?;
            let delta = format!(
                ",\"index\":{index},\"delta\":{{\"type\":\"input_json_delta\",\"partial_json\":{json}}}"
            );
            event(&mut out, "content_block_delta", &delta)?;
        }
        event(
            &mut out,
            "content_block_stop",
            &format!(",\"index\":{index}"),
        )?;
    }
    let end = format!(
        ",\"delta\":{{\"stop_reason\":{reason},\"stop_sequence\":{sequence}}},\"usage\":{}",
        message.get("usage").map_or("{}", RawValue::get)
    );
    event(&mut out, "message_delta", &end)?;
    event(&mut out, "message_stop", "")?;
    Some(out)
}

#[cfg(test)]
#[cfg(feature = "api")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::glm::layers;

    fn of(events: &[Value]) -> Option<Value> {
        let events: Vec<Cow<'_, str>> = events.iter().map(|e| e.to_string().into()).collect();
        assemble(&events).map(|text| serde_json::from_str(&text).unwrap())
    }

    fn whole() -> Value {
        json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "glm-5",
            "content": [
                {"type": "thinking", "thinking": "Hm", "signature": "s1"},
                {"type": "text", "text": "你好"},
                {"type": "tool_use", "id": "t", "name": "look", "input": {"a": 1}}],
            "stop_reason": "tool_use", "stop_sequence": null,
            "usage": {"input_tokens": 3, "output_tokens": 9, "cache_read_input_tokens": 2}})
    }

    #[test]
    fn a_stream_becomes_the_message_that_it_is_the_pieces_of() {
        let delta = |index: u32, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
        let start = |index: u32, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
        let told = of(&[
            json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant",
                "model": "glm-5", "content": [], "stop_reason": null, "stop_sequence": null,
                "usage": {"input_tokens": 3, "output_tokens": 1}}}),
            json!({"type": "ping"}),
            start(
                0,
                json!({"type": "thinking", "thinking": "", "signature": ""}),
            ),
            delta(0, json!({"type": "thinking_delta", "thinking": "Hm"})),
            delta(0, json!({"type": "signature_delta", "signature": "s1"})),
            json!({"type": "content_block_stop", "index": 0}),
            start(1, json!({"type": "text", "text": ""})),
            delta(1, json!({"type": "text_delta", "text": "你"})),
            delta(1, json!({"type": "text_delta", "text": "好"})),
            start(
                2,
                json!({"type": "tool_use", "id": "t", "name": "look", "input": {}}),
            ),
            delta(
                2,
                json!({"type": "input_json_delta", "partial_json": "{\"a\""}),
            ),
            delta(
                2,
                json!({"type": "input_json_delta", "partial_json": ":1}"}),
            ),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null},
                "usage": {"output_tokens": 9, "cache_read_input_tokens": 2}}),
            json!({"type": "message_stop"}),
        ]);
        assert_eq!(told.unwrap(), whole());
    }

    #[test]
    fn a_stream_that_broke_off_is_no_message() {
        let begun = json!({"type": "message_start", "message": {"content": []}});
        assert_eq!(of(&[]), None);
        assert_eq!(of(std::slice::from_ref(&begun)), None);
        let block = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}});
        assert_eq!(of(&[begun, block]), None);
    }

    #[test]
    fn a_message_taken_to_pieces_is_put_together_again() {
        let whole = whole().to_string();
        let stream = events(&whole).unwrap();
        assert!(
            stream.starts_with("event: message_start\ndata: {"),
            "{stream}"
        );
        assert!(stream.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
        let again = assemble(&layers::documents(&stream).unwrap()).unwrap();
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(value(&again), value(&whole));
    }
}
