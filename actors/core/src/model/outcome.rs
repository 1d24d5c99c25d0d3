//! How a call to GLM ended.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{Failure, Usage};

/// GLM's answer.
#[derive(Debug, Clone)]
pub struct GlmAnswer {
    /// The body, verbatim.
    pub body: Arc<RawValue>,
    /// The HTTP status.
    pub status_code: u16,
    /// Its tokens; zeros when GLM reported none.
    pub usage: Usage,
}

/// How a call ended.
#[derive(Debug, Clone)]
pub enum GlmOutcome {
    /// With an answer.
    Answered(GlmAnswer),
    /// With a failure, classified. Tokens, when GLM reported (and billed) some all the same.
    Failed(Failure, Usage),
    /// The abort token was cancelled and the connection closed.
    Aborted,
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
}
