//! How a problem looks: RFC 9457 on our own routes, the error shape of the face on those of GLM's faces.

use schemars::JsonSchema;
use serde::Serialize;
use warp::http::StatusCode;

use super::faults::FieldError;
use crate::api::answer::{JSON, Reply};
use crate::api::envelope::AnthropicErrorBody;
use crate::api::request_id::RequestId;
use crate::model::{Envelope, Face};

/// Which rendering a route speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Dialect {
    /// RFC 9457.
    Problem,
    /// GLM's (and OpenAI's) `{"error": {...}}`.
    Glm,
    /// Anthropic's `{"type": "error", "error": {...}}`.
    Anthropic,
}

impl Dialect {
    /// What the route at `path` speaks: that of the face whose path it is below; else GLM's below GLM's base paths, also
    /// for routes that don't exist there.
    pub(in crate::api) fn of(path: &str) -> Self {
        fn segments(path: &str) -> Vec<&str> {
            path.split('/').filter(|part| !part.is_empty()).collect()
        }
        let asked = segments(path);
        let is_below = |base: &str| asked.starts_with(&segments(base));
        let face = Face::ALL
            .into_iter()
            .find(|face| face.paths().iter().any(|path| is_below(path)));
        match (face, asked.as_slice()) {
            (Some(face), _) => Self::of_face(face),
            (None, ["api", "anthropic", ..]) => Self::Anthropic,
            (None, ["v1", ..] | ["api", "paas" | "coding", ..]) => Self::Glm,
            (None, _) => Self::Problem,
        }
    }

    /// What a face speaks.
    pub(in crate::api) const fn of_face(face: Face) -> Self {
        match face.envelope() {
            Envelope::Glm => Self::Glm,
            Envelope::Anthropic => Self::Anthropic,
        }
    }

    /// An error of a face, as text. `code` must be a number as text where GLM speaks: its Java SDK parses it.
    pub(in crate::api) fn error_body(
        self,
        status: StatusCode,
        code: &str,
        message: &str,
        param: Option<&str>,
        request: &RequestId,
    ) -> String {
        let body = match self {
            Self::Anthropic => {
                serde_json::to_string(&AnthropicErrorBody::new(status, code, message, request))
            }
            Self::Glm | Self::Problem => {
                serde_json::to_string(&glm_error_body(status, code, message, param))
            }
        };
        // Texts always serialise.
        body.unwrap_or_default()
    }

    /// The answer that such an error is.
    pub(in crate::api) fn error(
        self,
        status: StatusCode,
        code: &str,
        message: &str,
        param: Option<&str>,
        request: &RequestId,
    ) -> Reply {
        let body = self.error_body(status, code, message, param, request);
        Reply::text(status, JSON, body.into_bytes())
    }
}

/// An RFC 9457 problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct ProblemBody {
    /// `urn:onelane:problem:` and the name of the kind.
    #[serde(rename = "type")]
    pub(super) type_uri: String,
    /// What the kind means, in a few words.
    pub(super) title: &'static str,
    /// The HTTP status.
    pub(super) status: u16,
    /// What is wrong and what would be right.
    pub(super) detail: String,
    /// The wrong parts of the request, at most twenty of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) errors: Vec<FieldError>,
    /// The request, as `x-onelane-request` names it; not of an element of a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request_id: Option<String>,
}

/// GLM's shape of an error, which OpenAI's SDKs read, too.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "GlmErrorAnswer")]
pub(in crate::api) struct GlmErrorBody {
    error: GlmError,
}

/// What went wrong.
#[derive(Serialize, JsonSchema)]
struct GlmError {
    /// A number as text: GLM's own code, or the one of its table that says the same, or 503 when it is the lane that
    /// takes nothing now.
    code: String,
    /// What is wrong.
    message: String,
    /// OpenAI's word for it; GLM itself leaves it out.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    /// The field that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<String>,
}

/// OpenAI's word for what a status says.
pub(in crate::api) fn openai_kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "service_unavailable_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    }
}

/// GLM's error shape.
fn glm_error_body(
    status: StatusCode,
    code: &str,
    message: &str,
    param: Option<&str>,
) -> GlmErrorBody {
    let error = GlmError {
        code: code.to_owned(),
        message: message.to_owned(),
        kind: Some(openai_kind(status)),
        param: param.map(str::to_owned),
    };
    GlmErrorBody { error }
}
