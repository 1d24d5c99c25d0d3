//! Chat completions.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Form, Head, counted, holds, named};
use crate::bounded::First;
use crate::glm::stream;
use crate::glm::usage::{self, Names};

pub(super) const FORM: Form = Form {
    typed,
    lenient,
    assemble: stream::assemble,
    tells: stream::tells,
    #[cfg(feature = "api")]
    ends: |_| false,
    #[cfg(feature = "api")]
    events: stream::events_of,
    #[cfg(feature = "api")]
    is_failed: |_| false,
    usage: &usage::CHAT,
    lacks: "choices",
};

/// The usual answer, read in one pass. Whatever differs in shape goes the lenient way.
#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(borrow)]
    choices: First<Choice<'a>, 1>,
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
    #[serde(default, borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    request_id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default, borrow)]
    finish_reason: Option<&'a str>,
    #[serde(default, borrow)]
    message: Option<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(default, borrow)]
    content: Option<&'a RawValue>,
    #[serde(default, borrow)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(default)]
    tool_calls: Option<Vec<IgnoredAny>>,
}

/// From an answer of the usual shape; `None` when it is of another one, or has no choices.
fn typed(text: &str, names: &Names) -> Option<Head> {
    let typed: Typed<'_> = serde_json::from_str(text).ok()?;
    let choice = typed.choices.0.into_iter().next()?;
    Some(Head {
        finish_reason: choice.finish_reason.map(str::to_owned),
        is_whole: choice.message.is_some(),
        has_content: choice.message.is_some_and(|message| {
            holds(message.content)
                || holds(message.reasoning_content)
                || message.tool_calls.is_some_and(|calls| !calls.is_empty())
        }),
        usage: counted(typed.usage, names),
        model: typed.model.as_deref().and_then(named),
        request_id: typed
            .request_id
            .and_then(|id| serde_json::from_str(id.get()).ok()),
    })
}

/// From JSON of any shape; `None` when it has no choices.
fn lenient(json: &Value, names: &Names) -> Option<Head> {
    let choice = json.get("choices")?.as_array()?.first()?;
    Some(Head {
        finish_reason: choice
            .get("finish_reason")
            .and_then(Value::as_str)
            .map(str::to_owned),
        is_whole: choice.get("message").is_some_and(Value::is_object),
        has_content: ["content", "reasoning_content", "tool_calls"]
            .iter()
            .filter_map(|name| choice.get("message")?.get(*name))
            .any(holds_something),
        usage: usage::of(json, names),
        model: json.get("model").and_then(Value::as_str).and_then(named),
        request_id: None,
    })
}

fn holds_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}
