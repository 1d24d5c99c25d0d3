//! OpenAI's responses.

use std::borrow::Cow;
#[cfg(feature = "api")]
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

#[cfg(feature = "api")]
use super::with;
use super::{Form, Head, counted, holds, kind_of, named, none_odd, strange};
use crate::glm::stream::Tells;
use crate::glm::usage::{self, Names};
#[cfg(feature = "api")]
use crate::object::Object;

pub(super) const FORM: Form = Form {
    typed,
    lenient: none_odd,
    assemble,
    tells,
    #[cfg(feature = "api")]
    ends: |event| kind_of(event).is_some_and(|kind| is_last(&kind)),
    #[cfg(feature = "api")]
    events,
    #[cfg(feature = "api")]
    is_failed,
    usage: &usage::RESPONSES,
    lacks: "output of a response that has ended",
};

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    output: &'a RawValue,
    #[serde(default, borrow)]
    status: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    incomplete_details: Option<Incomplete<'a>>,
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
    #[serde(default, borrow)]
    model: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Incomplete<'a> {
    #[serde(default, borrow)]
    reason: Option<Cow<'a, str>>,
}

fn typed(text: &str, names: &Names) -> Option<Head> {
    let answer: Answer<'_> = serde_json::from_str(text).ok()?;
    let has_ended = matches!(
        answer.status.as_deref(),
        None | Some("completed" | "incomplete")
    );
    if !has_ended || !answer.output.get().starts_with('[') {
        return None;
    }
    let reason = answer.incomplete_details.and_then(|details| details.reason);
    Some(Head {
        finish_reason: reason.map(Cow::into_owned),
        is_whole: true,
        has_content: holds(Some(answer.output)),
        usage: counted(answer.usage, names),
        model: answer.model.as_deref().and_then(named),
        request_id: None,
    })
}

/// A response with `status` `failed`.
#[cfg(feature = "api")]
fn is_failed(body: &str) -> bool {
    let answer: Result<Answer<'_>, _> = serde_json::from_str(body);
    answer.is_ok_and(|answer| answer.status.as_deref() == Some("failed"))
}

/// Whether an event brings the whole response as it ended.
fn is_last(kind: &str) -> bool {
    matches!(
        kind,
        "response.completed" | "response.incomplete" | "response.failed"
    )
}

fn tells(event: &str) -> Tells {
    match kind_of(event).as_deref() {
        Some("response.completed" | "response.incomplete") => Tells::Answer,
        Some(kind) if kind.ends_with(".delta") || kind.ends_with(".done") => Tells::Answer,
        Some("error" | "response.failed") => Tells::Other,
        Some(_) => Tells::Nothing,
        None => strange(event),
    }
}

/// The response that the last event brings, whole; `None`: it did not come.
fn assemble(events: &[Cow<'_, str>]) -> Option<String> {
    #[derive(Deserialize)]
    struct Last<'a> {
        #[serde(borrow)]
        response: &'a RawValue,
    }
    let last = events
        .iter()
        .rev()
        .find(|event| kind_of(event).is_some_and(|kind| is_last(&kind)))?;
    let last: Last<'_> = serde_json::from_str(last).ok()?;
    Some(last.response.get().to_owned())
}

/// Writes events and counts them.
#[cfg(feature = "api")]
#[derive(Default)]
struct Events {
    out: String,
    count: u32,
}

#[cfg(feature = "api")]
impl Events {
    fn add(&mut self, kind: &str, rest: &str) -> Option<()> {
        let n = self.count;
        self.count += 1;
        write!(
            self.out,
            "event: {kind}\ndata: {{\"type\":\"{kind}\",\"sequence_number\":{n},{rest}}}\n\n"
        )
        .ok()
    }

    /// A piece of text, and that it was the only one.
    fn text(&mut self, kind: &str, at: &str, name: &str, text: &str) -> Option<()> {
        self.add(&format!("{kind}.delta"), &format!("{at},\"delta\":{text}"))?;
        self.add(&format!("{kind}.done"), &format!("{at},\"{name}\":{text}"))
    }
}

/// The events of the stream that this response would have been; `None`: it is none.
#[cfg(feature = "api")]
fn events(response: &str) -> Option<String> {
    let whole: Object<'_> = serde_json::from_str(response).ok()?;
    let items: Vec<Object<'_>> = serde_json::from_str(whole.get("output")?.get()).ok()?;
    let mut events = Events::default();
    let begun = with(
        &whole,
        &[
            ("status", "\"in_progress\""),
            ("output", "[]"),
            ("usage", "null"),
            ("completed_at", "null"),
            ("incomplete_details", "null"),
        ],
    )?;
    events.add("response.created", &format!("\"response\":{begun}"))?;
    events.add("response.in_progress", &format!("\"response\":{begun}"))?;
    for (n, item) in items.iter().enumerate() {
        let id = item.get("id").map_or("\"\"", RawValue::get);
        let at = format!("\"item_id\":{id},\"output_index\":{n}");
        let parts = item
            .get("content")
            .filter(|parts| parts.get().starts_with('['));
        let parts: Vec<Object<'_>> = match parts {
            Some(parts) => serde_json::from_str(parts.get()).ok()?,
            None => Vec::new(),
        };
        let empty = [
            ("status", "\"in_progress\""),
            ("content", "[]"),
            ("arguments", "\"\""),
        ];
        let begun = with(item, &empty)?;
        let place = format!("\"output_index\":{n}");
        events.add(
            "response.output_item.added",
            &format!("{place},\"item\":{begun}"),
        )?;
        for (part_n, part) in parts.iter().enumerate() {
            let at = format!("{at},\"content_index\":{part_n}");
            let begun = with(part, &[("text", "\"\""), ("refusal", "\"\"")])?;
            events.add(
                "response.content_part.added",
                &format!("{at},\"part\":{begun}"),
            )?;
            let kind = part.get("type").map_or("", RawValue::get);
            match (kind, part.get("text"), part.get("refusal")) {
                ("\"output_text\"", Some(text), _) => {
                    events.text("response.output_text", &at, "text", text.get())?;
                }
                ("\"refusal\"", _, Some(text)) => {
                    events.text("response.refusal", &at, "refusal", text.get())?;
                }
                ("\"reasoning_text\"", Some(text), _) => {
                    events.text("response.reasoning_text", &at, "text", text.get())?;
                }
                _ => {}
            }
            let part = with(part, &[])?;
            events.add(
                "response.content_part.done",
                &format!("{at},\"part\":{part}"),
            )?;
        }
        if let Some(arguments) = item.get("arguments") {
            let kind = "response.function_call_arguments";
            events.text(kind, &at, "arguments", arguments.get())?;
        }
        let item = with(item, &[])?;
        events.add(
            "response.output_item.done",
            &format!("{place},\"item\":{item}"),
        )?;
    }
    let is_incomplete = whole
        .get("status")
        .is_some_and(|status| status.get() == "\"incomplete\"");
    let last = match is_incomplete {
        true => "response.incomplete",
        false => "response.completed",
    };
    events.add(last, &format!("\"response\":{response}"))?;
    Some(events.out)
}

#[cfg(test)]
#[cfg(feature = "api")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::glm::layers;

    fn whole() -> Value {
        json!({"id": "resp_1", "object": "response", "status": "completed", "error": null, "model": "glm-5",
            "output": [
                {"type": "reasoning", "id": "r", "summary": []},
                {"type": "message", "id": "m", "role": "assistant", "status": "completed",
                    "content": [{"type": "output_text", "text": "你好", "annotations": []}]},
                {"type": "function_call", "id": "f", "call_id": "c", "name": "look", "arguments": "{\"a\":1}", "status": "completed"}],
            "usage": {"input_tokens": 3, "output_tokens": 9, "total_tokens": 12}})
    }

    #[test]
    fn the_last_event_of_a_stream_brings_the_whole_response() {
        let of = |events: &[Value]| {
            let events: Vec<Cow<'_, str>> = events.iter().map(|e| e.to_string().into()).collect();
            assemble(&events).map(|text| serde_json::from_str::<Value>(&text).unwrap())
        };
        let created = json!({"type": "response.created", "response": {"status": "in_progress"}});
        let delta = json!({"type": "response.output_text.delta", "delta": "a"});
        let completed = json!({"type": "response.completed", "response": whole()});
        assert_eq!(of(&[created.clone(), delta.clone()]), None);
        assert_eq!(of(&[created, delta, completed]), Some(whole()));
    }

    #[test]
    fn a_response_taken_to_pieces_is_put_together_again() {
        let whole = whole().to_string();
        let stream = events(&whole).unwrap();
        let events = layers::documents(&stream).unwrap();
        assert_eq!(assemble(&events).as_deref(), Some(whole.as_str()));
        let kinds: Vec<String> = events.iter().filter_map(|event| kind_of(event)).collect();
        let text = kinds
            .iter()
            .filter(|kind| kind.starts_with("response.output_text"));
        assert_eq!(text.count(), 2, "{kinds:?}");
        let added = kinds
            .iter()
            .filter(|kind| *kind == "response.output_item.added");
        assert_eq!(added.count(), 3, "{kinds:?}");
        let numbers = events.iter().map(|event| {
            let event: Value = serde_json::from_str(event).unwrap();
            event["sequence_number"].as_u64().unwrap()
        });
        assert!(numbers.eq(0..events.len() as u64));
    }
}
