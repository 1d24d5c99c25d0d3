//! The faults that the simulator plays, in the words of a script file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::config::Tokens;

/// A fault that meets a request. In a script: `"hang"`, `{"error": {"code": "1302"}}`, ...
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Fault {
    /// None: it is answered, in this way.
    Answer(AnswerWith),
    /// GLM refuses.
    Error(ErrorFault),
    /// A task is accepted and fails; a chat is refused for the same error.
    FailTask {
        /// The failed task's error; `None`: none (a chat is refused with 1200).
        #[serde(default)]
        error: Option<ErrorFault>,
    },
    /// The answer's headers take this much longer.
    #[serde(rename_all = "camelCase")]
    SlowHeaders {
        /// Milliseconds.
        delay_ms: u64,
    },
    /// The answer's body comes in pieces.
    #[serde(rename_all = "camelCase")]
    SlowBody {
        /// How many.
        pieces: u32,
        /// Milliseconds before each.
        delay_ms: u64,
    },
    /// Half of the answer's body, then nothing until the client leaves.
    StallBody,
    /// Half of the answer's body, then the end of the connection.
    CutBody,
    /// The connection is reset in place of an answer.
    Reset,
    /// Nothing at all until the client leaves.
    Hang,
    /// An HTML page, as proxies send it.
    HtmlPage {
        /// The HTTP status.
        status: u16,
    },
    /// No body.
    EmptyBody {
        /// The HTTP status.
        status: u16,
    },
    /// A body that is no JSON.
    NotJson {
        /// The HTTP status.
        status: u16,
    },
    /// Anything else.
    Custom {
        /// The HTTP status.
        status: u16,
        /// Headers beside the length.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// The body.
        body: String,
    },
}

impl Fault {
    /// A plain answer: a step that lets a request through.
    #[must_use]
    pub fn none() -> Self {
        Self::Answer(AnswerWith::default())
    }

    /// GLM's error `code`, in its usual shape and with its usual status.
    #[must_use]
    pub fn error(code: &str) -> Self {
        Self::Error(ErrorFault::of(code))
    }

    /// An answer that ends with this finish reason.
    #[must_use]
    pub fn finish_reason(reason: &str) -> Self {
        Self::Answer(AnswerWith {
            finish_reason: Some(reason.to_owned()),
            ..AnswerWith::default()
        })
    }
}

/// The difference from the usual answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AnswerWith {
    /// The finish reason; `stop`.
    pub finish_reason: Option<String>,
    /// The text.
    pub content: Option<String>,
    /// The thoughts before it.
    pub reasoning: Option<String>,
    /// Calls of tools, instead of those that the request's tools lead to.
    pub tool_calls: Option<Vec<ToolCall>>,
    /// The time it takes; as a task, the time it is worked on.
    pub latency_ms: Option<u64>,
    /// The tokens.
    pub tokens: Option<Tokens>,
    /// The model that answers and is counted, as the answer says; the one that was asked for.
    pub served_by: Option<String>,
    /// Whether the answer leaves its tokens out; they are counted all the same.
    pub untold: bool,
}

/// The call of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// The function.
    pub name: String,
    /// Its arguments, as a JSON object.
    #[serde(default = "no_arguments")]
    pub arguments: serde_json::Value,
}

fn no_arguments() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

/// A refusal of GLM's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorFault {
    /// GLM's code.
    pub code: String,
    /// The shape of the body.
    #[serde(default)]
    pub shape: Shape,
    /// The HTTP status; by default the one that the error table has for the code.
    #[serde(default)]
    pub status: Option<u16>,
    /// The words; by default those of the real service, or the error table's.
    #[serde(default)]
    pub message: Option<String>,
    /// States a reset so far ahead of the refusal, as GLM does: Beijing time without saying so, whole
    /// seconds (rounded up), in the message.
    #[serde(default)]
    pub reset_in_ms: Option<u64>,
    /// The words around that moment.
    #[serde(default)]
    pub wording: ResetWording,
    /// A `Retry-After` header.
    #[serde(default)]
    pub retry_after: Option<String>,
    /// Milliseconds before it comes.
    #[serde(default)]
    pub delay_ms: u64,
}

impl ErrorFault {
    /// The error as it usually comes.
    #[must_use]
    pub fn of(code: &str) -> Self {
        Self {
            code: code.to_owned(),
            shape: Shape::default(),
            status: None,
            message: None,
            reset_in_ms: None,
            wording: ResetWording::default(),
            retry_after: None,
            delay_ms: 0,
        }
    }
}

/// How GLM words the moment at which a quota opens again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ResetWording {
    /// `您的限额将在 ... 重置。`: the mainland's.
    #[default]
    Mainland,
    /// `...，... 后可继续使用`: the mainland's newer one.
    MainlandContinue,
    /// `Your limit will reset at ...`: the international site's.
    English,
}

/// The shapes in which GLM's surfaces state an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Shape {
    /// `{"error": {"code": "1302", "message": ...}}`: chat completions.
    #[default]
    Nested,
    /// The same with a number for a code.
    NestedNumber,
    /// `{"code": "1302", "message": ...}`.
    Flat,
    /// `{"code": 1302, "msg": ..., "success": false}`.
    FlatNumber,
    /// `{"type": "error", "error": {"type": ..., "code": "1302", "message": "[1302][...][...]"}}`.
    Anthropic,
    /// The same without the field: the code is in the message alone.
    Bracketed,
}
