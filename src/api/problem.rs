//! What is wrong with a request, as data: one table of kinds with status, name and GLM code, and two
//! renderings. Our own routes answer RFC 9457 problems; the routes that speak GLM's language answer
//! GLM's error shape, so that SDKs read it.

use serde::Serialize;
use warp::http::header::{ALLOW, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use warp::http::{HeaderValue, StatusCode};
use warp::reply::Response;

use super::limits;
use super::reply::json;
use crate::error::Error;
use crate::model::BudgetRefusal;

/// Tells OpenAI and GLM SDKs not to send the request again by themselves.
pub(super) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The kinds of wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    UnknownRoute,
    WrongMethod,
    Unauthorized,
    Forbidden,
    UnsupportedMediaType,
    MalformedJson,
    InvalidBody,
    InvalidField,
    MissingField,
    InvalidQuery,
    InvalidHeader,
    InvalidId,
    StreamingUnavailable,
    BodyTooLarge,
    BodyTimeout,
    UnknownJob,
    WrongStatus,
    IdempotencyConflict,
    RequestPruned,
    QueueFull,
    Draining,
    OverBudget,
    BeyondBudget,
    UnknownDependency,
    UnpricedModel,
    DependencyEnded,
    UnknownAttempt,
    BillingSettled,
    UnknownHold,
    UnknownDelivery,
    UnknownEndpoint,
    CallbackRefused,
    JobFailed,
    JobCancelled,
    WaitTimeout,
    StoreFailed,
    Stopped,
    Internal,
}

impl Kind {
    /// Status, name in `type`, title, and the code of GLM's table that says the same.
    const fn facts(self) -> (StatusCode, &'static str, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::UnknownRoute => (S::NOT_FOUND, "unknown-route", "no such route", "1222"),
            Self::WrongMethod => (
                S::METHOD_NOT_ALLOWED,
                "wrong-method",
                "wrong method",
                "1222",
            ),
            Self::Unauthorized => (S::UNAUTHORIZED, "unauthorized", "token needed", "1000"),
            Self::Forbidden => (S::FORBIDDEN, "forbidden", "not from here", "1220"),
            Self::UnsupportedMediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "not JSON",
                "1210",
            ),
            Self::MalformedJson => (S::BAD_REQUEST, "malformed-json", "malformed JSON", "1210"),
            Self::InvalidBody => (S::BAD_REQUEST, "invalid-body", "wrong body", "1210"),
            Self::InvalidField => (S::BAD_REQUEST, "invalid-field", "wrong field", "1214"),
            Self::MissingField => (S::BAD_REQUEST, "missing-field", "missing field", "1213"),
            Self::InvalidQuery => (S::BAD_REQUEST, "invalid-query", "wrong parameter", "1214"),
            Self::InvalidHeader => (S::BAD_REQUEST, "invalid-header", "wrong header", "1214"),
            Self::InvalidId => (S::BAD_REQUEST, "invalid-id", "wrong id", "1214"),
            Self::StreamingUnavailable => (
                S::BAD_REQUEST,
                "streaming-unavailable",
                "no streaming here",
                "1210",
            ),
            Self::BodyTooLarge => (
                S::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "body too large",
                "1261",
            ),
            Self::BodyTimeout => (S::REQUEST_TIMEOUT, "body-timeout", "body too slow", "1210"),
            Self::UnknownJob => (S::NOT_FOUND, "unknown-job", "no such job", "1214"),
            Self::WrongStatus => (S::CONFLICT, "wrong-status", "not in this status", "1214"),
            Self::IdempotencyConflict => (
                S::CONFLICT,
                "idempotency-conflict",
                "key used for another request",
                "1231",
            ),
            Self::RequestPruned => (S::CONFLICT, "request-pruned", "request pruned", "1214"),
            Self::QueueFull => (S::TOO_MANY_REQUESTS, "queue-full", "queue full", "1302"),
            Self::Draining => (S::SERVICE_UNAVAILABLE, "draining", "intake closed", "500"),
            Self::OverBudget => (
                S::TOO_MANY_REQUESTS,
                "over-budget",
                "budget used up",
                "1113",
            ),
            Self::BeyondBudget => (
                S::UNPROCESSABLE_ENTITY,
                "beyond-budget",
                "larger than a budget",
                "1113",
            ),
            Self::UnknownDependency => (
                S::UNPROCESSABLE_ENTITY,
                "unknown-dependency",
                "no such job to run after",
                "1214",
            ),
            Self::UnpricedModel => (
                S::UNPROCESSABLE_ENTITY,
                "unpriced-model",
                "model without a price",
                "1211",
            ),
            Self::DependencyEnded => (
                S::CONFLICT,
                "dependency-ended",
                "a job before it has ended",
                "1214",
            ),
            Self::UnknownAttempt => (S::NOT_FOUND, "unknown-attempt", "no such attempt", "1214"),
            Self::BillingSettled => (
                S::CONFLICT,
                "billing-settled",
                "not waiting to be settled",
                "1214",
            ),
            Self::UnknownHold => (S::NOT_FOUND, "unknown-hold", "not held", "1214"),
            Self::UnknownDelivery => (S::NOT_FOUND, "unknown-delivery", "no such delivery", "1214"),
            Self::UnknownEndpoint => (S::NOT_FOUND, "unknown-endpoint", "no such endpoint", "1214"),
            Self::CallbackRefused => (
                S::UNPROCESSABLE_ENTITY,
                "callback-refused",
                "callback not allowed",
                "1214",
            ),
            Self::JobFailed => (S::BAD_GATEWAY, "job-failed", "job failed", "1200"),
            Self::JobCancelled => (S::CONFLICT, "job-cancelled", "job cancelled", "1200"),
            Self::WaitTimeout => (S::GATEWAY_TIMEOUT, "wait-timeout", "not done yet", "1234"),
            Self::StoreFailed => (
                S::SERVICE_UNAVAILABLE,
                "store-failed",
                "store failed",
                "500",
            ),
            Self::Stopped => (S::SERVICE_UNAVAILABLE, "stopped", "lane stopped", "500"),
            Self::Internal => (
                S::INTERNAL_SERVER_ERROR,
                "internal",
                "internal error",
                "500",
            ),
        }
    }
}

/// One wrong part of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Fault {
    /// Where: `priority`, `[3].priority`, or the name of a query parameter.
    pub(super) field: String,
    /// What is wrong and what would be right.
    pub(super) problem: String,
}

impl Fault {
    /// A fault of one field.
    pub(super) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

/// Why a request got no good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    kind: Kind,
    detail: String,
    faults: Vec<Fault>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Which of the two renderings a route speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// RFC 9457.
    Problem,
    /// GLM's (and OpenAI's) `{"error": {...}}`.
    Glm,
}

impl Dialect {
    /// What the route at `path` speaks: GLM's below its own base paths, also for routes that don't
    /// exist there.
    pub(super) fn of(path: &str) -> Self {
        let mut segments = path.split('/').filter(|s| !s.is_empty());
        match (segments.next(), segments.next()) {
            (Some("v1"), _) | (Some("api"), Some("paas")) => Self::Glm,
            _ => Self::Problem,
        }
    }
}

#[derive(Serialize)]
struct ProblemBody<'a> {
    #[serde(rename = "type")]
    type_uri: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    errors: &'a [Fault],
}

#[derive(Serialize)]
struct GlmErrorBody<'a> {
    error: GlmError<'a>,
}

#[derive(Serialize)]
struct GlmError<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<&'a str>,
}

/// An answer in GLM's error shape. `code` must be a number as text: GLM's Java SDK parses it.
pub(super) fn glm_error(
    status: StatusCode,
    code: &str,
    message: &str,
    param: Option<&str>,
) -> Response {
    let kind = match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    };
    let error = GlmError {
        code,
        message,
        kind,
        param,
    };
    json(status, &GlmErrorBody { error })
}

impl Problem {
    /// A problem of this kind; `detail` says what is wrong and what would be right.
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let mut headers = Vec::new();
        match kind {
            Kind::Unauthorized => {
                headers.push((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
            }
            Kind::QueueFull => {
                headers.push((RETRY_AFTER, limits::QUEUE_FULL_RETRY_AFTER_S.into()));
                headers.push((SHOULD_RETRY, HeaderValue::from_static("false")));
            }
            // SDKs send again on 409 and 503; it would end the same.
            Kind::IdempotencyConflict
            | Kind::RequestPruned
            | Kind::DependencyEnded
            | Kind::Draining
            | Kind::OverBudget
            | Kind::JobCancelled
            | Kind::JobFailed => {
                headers.push((SHOULD_RETRY, HeaderValue::from_static("false")));
            }
            _ => {}
        }
        Self {
            kind,
            detail: detail.into(),
            faults: Vec::new(),
            headers,
        }
    }

    /// Faults of fields, parameters or headers; the first stands in the detail, at most
    /// [`limits::FAULTS_SHOWN_MAX`] are listed.
    pub(super) fn faults(kind: Kind, mut faults: Vec<Fault>) -> Self {
        let count = faults.len();
        let mut detail = faults.first().map_or_else(String::new, |fault| {
            format!("{}: {}", fault.field, fault.problem)
        });
        if count > 1 {
            detail = format!("{detail} (and {} more)", count - 1);
        }
        faults.truncate(limits::FAULTS_SHOWN_MAX);
        Self {
            faults,
            ..Self::new(kind, detail)
        }
    }

    /// One fault.
    pub(super) fn fault(kind: Kind, field: &str, problem: impl Into<String>) -> Self {
        Self::faults(kind, vec![Fault::new(field, problem)])
    }

    /// A known path with a method it does not have.
    pub(super) fn wrong_method(method: &str, path: &str, allowed: &str) -> Self {
        let mut problem = Self::new(
            Kind::WrongMethod,
            format!("{path} has no {method}; it has {allowed}"),
        );
        if let Ok(value) = HeaderValue::from_str(allowed) {
            problem.headers.push((ALLOW, value));
        }
        problem
    }

    /// Its status.
    pub(super) const fn status(&self) -> StatusCode {
        self.kind.facts().0
    }

    /// The same problem as a part of a larger answer: its fields are those of element `at`.
    pub(super) fn within(mut self, at: &str) -> Self {
        for fault in &mut self.faults {
            fault.field = format!("{at}{}", fault.field);
        }
        self
    }

    /// As an RFC 9457 object.
    pub(super) fn body(&self) -> impl Serialize + '_ {
        let (status, name, title, _) = self.kind.facts();
        ProblemBody {
            type_uri: format!("urn:onelane:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            errors: &self.faults,
        }
    }

    /// The answer, in the language of the route.
    pub(super) fn into_response(self, dialect: Dialect) -> Response {
        let (status, _, _, code) = self.kind.facts();
        let mut response = match dialect {
            Dialect::Problem => {
                let mut response = json(status, &self.body());
                let media = HeaderValue::from_static("application/problem+json");
                response.headers_mut().insert(CONTENT_TYPE, media);
                response
            }
            Dialect::Glm => {
                let param = self.faults.first().map(|fault| fault.field.as_str());
                glm_error(status, code, &self.detail, param)
            }
        };
        response.headers_mut().extend(self.headers);
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        let kind = match error {
            // Well-formed, perhaps; but the operator does not allow it.
            Error::Invalid { field, problem } if field == "callbackUrl" => {
                return Self::fault(Kind::CallbackRefused, &field, problem);
            }
            Error::Invalid { field, problem } => {
                return Self::fault(Kind::InvalidField, &field, problem);
            }
            Error::Config(patch) => {
                let faults = patch
                    .problems
                    .into_iter()
                    .map(|problem| Fault::new(problem.field, problem.problem))
                    .collect();
                return Self::faults(Kind::InvalidField, faults);
            }
            Error::NoSuchDependency(_) => {
                return Self::fault(Kind::UnknownDependency, "after", detail);
            }
            Error::Unpriced(_) => return Self::fault(Kind::UnpricedModel, "model", detail),
            Error::DependencyEnded { .. } | Error::DependencyPruned(_) => Kind::DependencyEnded,
            Error::Draining { .. } => Kind::Draining,
            Error::OverBudget(refusal) => match *refusal {
                BudgetRefusal::TooLarge { .. } => Kind::BeyondBudget,
                BudgetRefusal::UsedUp { .. } => Kind::OverBudget,
            },
            Error::RequestPruned(_) => Kind::RequestPruned,
            Error::NoSuchAttempt { .. } => Kind::UnknownAttempt,
            Error::BillingSettled { .. } => Kind::BillingSettled,
            Error::NoSuchHold(_) => Kind::UnknownHold,
            Error::NoSuchDelivery(_) => Kind::UnknownDelivery,
            Error::NoSuchEndpoint(_) => Kind::UnknownEndpoint,
            Error::NotFound(_) => Kind::UnknownJob,
            Error::WrongStatus { .. } => Kind::WrongStatus,
            Error::IdempotencyConflict(_) => Kind::IdempotencyConflict,
            Error::QueueFull { .. } => Kind::QueueFull,
            Error::JobFailed { .. } => Kind::JobFailed,
            Error::JobCancelled(_) => Kind::JobCancelled,
            Error::WaitTimeout(_) => Kind::WaitTimeout,
            Error::Store(_) => Kind::StoreFailed,
            Error::Stopped(_) => Kind::Stopped,
        };
        Self::new(kind, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(problem: &Problem) -> serde_json::Value {
        serde_json::to_value(problem.body()).unwrap()
    }

    #[test]
    fn a_problem_says_what_and_where() {
        let faults = vec![
            Fault::new("[3].priority", "must be a whole number"),
            Fault::new("[4].prompt", "is empty"),
        ];
        let problem = Problem::faults(Kind::InvalidField, faults);
        assert_eq!(
            body(&problem),
            serde_json::json!({
                "type": "urn:onelane:problem:invalid-field",
                "title": "wrong field",
                "status": 400,
                "detail": "[3].priority: must be a whole number (and 1 more)",
                "errors": [
                    {"field": "[3].priority", "problem": "must be a whole number"},
                    {"field": "[4].prompt", "problem": "is empty"},
                ],
            })
        );
    }

    #[test]
    fn ten_thousand_faults_make_a_short_answer() {
        let faults = (0..10_000)
            .map(|i| Fault::new(format!("[{i}]"), "bad"))
            .collect();
        let problem = Problem::faults(Kind::InvalidField, faults);
        assert_eq!(problem.faults.len(), limits::FAULTS_SHOWN_MAX);
        assert!(problem.detail.ends_with("(and 9999 more)"));
    }

    #[test]
    fn every_glm_code_is_a_number_as_text() {
        let kinds = [
            Kind::UnknownRoute,
            Kind::WrongMethod,
            Kind::Unauthorized,
            Kind::Forbidden,
            Kind::UnsupportedMediaType,
            Kind::MalformedJson,
            Kind::InvalidBody,
            Kind::InvalidField,
            Kind::MissingField,
            Kind::InvalidQuery,
            Kind::InvalidHeader,
            Kind::InvalidId,
            Kind::StreamingUnavailable,
            Kind::BodyTooLarge,
            Kind::BodyTimeout,
            Kind::UnknownJob,
            Kind::WrongStatus,
            Kind::IdempotencyConflict,
            Kind::RequestPruned,
            Kind::QueueFull,
            Kind::Draining,
            Kind::OverBudget,
            Kind::BeyondBudget,
            Kind::UnknownDependency,
            Kind::DependencyEnded,
            Kind::UnknownAttempt,
            Kind::BillingSettled,
            Kind::UnknownHold,
            Kind::UnknownDelivery,
            Kind::UnknownEndpoint,
            Kind::CallbackRefused,
            Kind::JobFailed,
            Kind::JobCancelled,
            Kind::WaitTimeout,
            Kind::StoreFailed,
            Kind::Stopped,
            Kind::Internal,
        ];
        for kind in kinds {
            assert!(kind.facts().3.parse::<u32>().is_ok());
        }
    }

    #[test]
    fn the_path_decides_the_dialect() {
        let check = |path, dialect| assert_eq!(Dialect::of(path), dialect, "{path}");
        check("/v1/chat/completions", Dialect::Glm);
        check("//v1//nothing", Dialect::Glm);
        check("/api/paas/v4/nothing", Dialect::Glm);
        check("/api/glm/jobs", Dialect::Problem);
        check("/v10", Dialect::Problem);
        check("/", Dialect::Problem);
    }

    #[test]
    fn a_full_queue_tells_clients_when_to_come_back_and_sdks_not_to() {
        let response = Problem::from(Error::QueueFull { limit: 5 }).into_response(Dialect::Glm);
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()["retry-after"], "5");
        assert_eq!(response.headers()["x-should-retry"], "false");
    }
}
