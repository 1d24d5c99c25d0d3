//! Anthropic's shape of an error.

use schemars::JsonSchema;
use serde::Serialize;
use warp::http::StatusCode;

use super::request_id::RequestId;

/// As Anthropic's API says that something went wrong.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AnthropicErrorAnswer")]
pub(super) struct AnthropicErrorBody {
    /// Always `error`.
    #[serde(rename = "type")]
    kind: &'static str,
    error: AnthropicError,
    /// The request, as `x-onelane-request` names it.
    request_id: String,
}

/// What went wrong.
#[derive(Serialize, JsonSchema)]
struct AnthropicError {
    /// Anthropic's word for it.
    #[serde(rename = "type")]
    kind: &'static str,
    /// GLM's own code, or the one of its table that says the same.
    code: String,
    /// What is wrong.
    message: String,
}

impl AnthropicErrorBody {
    pub(super) fn new(status: StatusCode, code: &str, message: &str, request: &RequestId) -> Self {
        let kind = match status.as_u16() {
            401 => "authentication_error",
            402 => "billing_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 | 529 => "overloaded_error",
            400..=499 => "invalid_request_error",
            _ => "api_error",
        };
        let error = AnthropicError {
            kind,
            code: code.to_owned(),
            message: message.to_owned(),
        };
        Self {
            kind: "error",
            error,
            request_id: request.text().to_owned(),
        }
    }
}
