//! How a call to GLM ended.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Failure, Usage, limits};

/// GLM's answer.
#[derive(Debug, Clone)]
pub struct GlmAnswer {
    /// The body, verbatim.
    pub body: Arc<RawValue>,
    /// The HTTP status.
    pub status_code: u16,
    /// Its tokens; zeros when GLM reported none.
    pub usage: Usage,
    /// The model that answered, as the answer names it.
    pub model: Option<String>,
}

/// What came instead of an answer.
#[derive(Clone)]
pub enum Received {
    /// JSON, verbatim: GLM's own words about a failure, or a completion that is one.
    Json(Arc<RawValue>),
    /// Anything else, as text.
    Text(Arc<str>),
    /// What belongs to another call: nobody who asks for this one may see it.
    Foreign(Arc<str>),
}

impl Received {
    /// As text.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Json(json) => json.get(),
            Self::Text(text) | Self::Foreign(text) => text,
        }
    }
}

impl Received {
    /// The model that a completion names which is a failure.
    #[must_use]
    pub fn model(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Named {
            #[serde(default)]
            model: Option<String>,
        }
        let Self::Json(json) = self else {
            return None;
        };
        let named: Named = serde_json::from_str(json.get()).ok()?;
        named
            .model
            .filter(|model| (1..=limits::MODEL_CHARS_MAX).contains(&model.chars().count()))
    }
}

/// Its length alone: it may hold what somebody asked, and ends up in logs.
impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.text().len())
    }
}

impl PartialEq for Received {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Received {}

/// How a call ended.
#[derive(Debug, Clone)]
pub enum GlmOutcome {
    /// With an answer.
    Answered(GlmAnswer),
    /// With a failure, classified. Tokens, when GLM reported (and billed) some all the same.
    Failed(Failure, Usage),
    /// The abort token was cancelled and the connection closed.
    Aborted,
    /// The abort token was cancelled before anything was sent.
    NotSent,
}

/// How an asynchronous submission ended.
#[derive(Debug, Clone)]
pub enum TaskOutcome {
    /// GLM has taken it as the task with this id.
    Accepted(String),
    /// With a failure, classified.
    Failed(Failure, Usage),
    /// The abort token was cancelled and the connection closed.
    Aborted,
    /// The abort token was cancelled before anything was sent.
    NotSent,
}
