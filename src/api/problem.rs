//! What is wrong with a request, as data: one table of kinds with status, name and GLM code, and two
//! renderings. Our own routes answer RFC 9457 problems; the routes of GLM's faces answer the error shape of the face,
//! so that SDKs read it.

use schemars::JsonSchema;
use serde::Serialize;
use warp::http::header::{ALLOW, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use warp::http::{HeaderValue, StatusCode};

use super::answer::{JSON, Reply};
use super::envelope::AnthropicErrorBody;
use super::limits;
use crate::error::Error;
use crate::model::{BudgetRefusal, Envelope, Face, HoldKind, Timestamp, WaitReason};

/// The media type of a problem.
pub(super) const PROBLEM: &str = "application/problem+json";

/// Tells OpenAI and GLM SDKs not to send the request again by themselves.
pub(super) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The table of kinds: status, name in `type`, title, and the code of GLM's table that says the same; where GLM has none,
/// since the lane itself can't be served by, the status stands for it.
macro_rules! kinds {
    ($($name:ident: $status:ident, $slug:literal, $title:literal, $code:literal;)*) => {
        /// The kinds of wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Kind {
            $($name,)*
        }

        impl Kind {
            /// All of them.
            pub(super) const ALL: &[Self] = &[$(Self::$name,)*];

            const fn facts(self) -> (StatusCode, &'static str, &'static str, &'static str) {
                match self {
                    $(Self::$name => (StatusCode::$status, $slug, $title, $code),)*
                }
            }
        }
    };
}

kinds! {
    InvalidTarget: BAD_REQUEST, "invalid-target", "no path", "1222";
    InvalidHost: BAD_REQUEST, "invalid-host", "not one host", "1214";
    UnknownRoute: NOT_FOUND, "unknown-route", "no such route", "1222";
    WrongMethod: METHOD_NOT_ALLOWED, "wrong-method", "wrong method", "1222";
    Unauthorized: UNAUTHORIZED, "unauthorized", "token needed", "1000";
    Forbidden: FORBIDDEN, "forbidden", "not from here", "1220";
    UnsupportedMediaType: UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "not JSON", "1210";
    MalformedJson: BAD_REQUEST, "malformed-json", "malformed JSON", "1210";
    InvalidBody: BAD_REQUEST, "invalid-body", "wrong body", "1210";
    InvalidField: BAD_REQUEST, "invalid-field", "wrong field", "1214";
    MissingField: BAD_REQUEST, "missing-field", "missing field", "1213";
    InvalidQuery: BAD_REQUEST, "invalid-query", "wrong parameter", "1214";
    InvalidHeader: BAD_REQUEST, "invalid-header", "wrong header", "1214";
    InvalidId: BAD_REQUEST, "invalid-id", "wrong id", "1214";
    BodyTooLarge: PAYLOAD_TOO_LARGE, "body-too-large", "body too large", "1261";
    BodyTimeout: REQUEST_TIMEOUT, "body-timeout", "body too slow", "1210";
    UnknownJob: NOT_FOUND, "unknown-job", "no such job", "1214";
    UnknownModel: NOT_FOUND, "unknown-model", "no such model", "1211";
    UnknownFile: NOT_FOUND, "unknown-file", "no such file", "1214";
    UnknownBatch: NOT_FOUND, "unknown-batch", "no such batch", "1214";
    FileInUse: CONFLICT, "file-in-use", "file in use", "1214";
    FilesFull: PAYLOAD_TOO_LARGE, "files-full", "no room for more files", "1214";
    WrongStatus: CONFLICT, "wrong-status", "not in this status", "1214";
    IdempotencyConflict: CONFLICT, "idempotency-conflict", "key used for another request", "1231";
    RequestPruned: CONFLICT, "request-pruned", "request pruned", "1214";
    QueueFull: TOO_MANY_REQUESTS, "queue-full", "queue full", "1302";
    Draining: SERVICE_UNAVAILABLE, "draining", "intake closed", "503";
    OverBudget: TOO_MANY_REQUESTS, "over-budget", "budget used up", "1113";
    BeyondBudget: UNPROCESSABLE_ENTITY, "beyond-budget", "larger than a budget", "1113";
    UnknownDependency: UNPROCESSABLE_ENTITY, "unknown-dependency", "no such job to run after", "1214";
    UnpricedModel: UNPROCESSABLE_ENTITY, "unpriced-model", "model without a price", "1211";
    DependencyEnded: CONFLICT, "dependency-ended", "a job before it has ended", "1214";
    UnknownAttempt: NOT_FOUND, "unknown-attempt", "no such attempt", "1214";
    BillingSettled: CONFLICT, "billing-settled", "not waiting to be settled", "1214";
    UnknownHold: NOT_FOUND, "unknown-hold", "not held", "1214";
    UnknownDelivery: NOT_FOUND, "unknown-delivery", "no such delivery", "1214";
    UnknownEndpoint: NOT_FOUND, "unknown-endpoint", "no such endpoint", "1214";
    BeyondRights: FORBIDDEN, "beyond-rights", "beyond the rights of the key", "1220";
    RateLimited: TOO_MANY_REQUESTS, "rate-limited", "too many requests a minute", "1302";
    UnknownKey: NOT_FOUND, "unknown-key", "no such client key", "1214";
    DeadKey: CONFLICT, "dead-key", "client key does not open", "1214";
    CallbackRefused: UNPROCESSABLE_ENTITY, "callback-refused", "callback not allowed", "1214";
    JobFailed: BAD_GATEWAY, "job-failed", "job failed", "1200";
    JobCancelled: CONFLICT, "job-cancelled", "job cancelled", "1200";
    WaitTimeout: GATEWAY_TIMEOUT, "wait-timeout", "not done yet", "1234";
    WaitsInVain: SERVICE_UNAVAILABLE, "waits-in-vain", "would wait too long", "503";
    WaitsForQuota: TOO_MANY_REQUESTS, "waits-for-quota", "quota or budget used up", "1113";
    Busy: SERVICE_UNAVAILABLE, "busy", "too much at once", "503";
    StoreFailed: SERVICE_UNAVAILABLE, "store-failed", "store failed", "503";
    Stopped: SERVICE_UNAVAILABLE, "stopped", "lane stopped", "503";
    Internal: INTERNAL_SERVER_ERROR, "internal", "internal error", "500";
}

impl Kind {
    /// Its status.
    pub(super) const fn status(self) -> StatusCode {
        self.facts().0
    }

    /// Its name in `type`.
    pub(super) const fn name(self) -> &'static str {
        self.facts().1
    }

    /// What it means, in a few words.
    pub(super) const fn title(self) -> &'static str {
        self.facts().2
    }
}

/// One wrong part of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct FieldError {
    /// Where: `priority`, `[3].priority`, or the name of a query parameter.
    pub(super) field: String,
    /// What is wrong and what would be right.
    pub(super) problem: String,
}

impl FieldError {
    /// The error of one field.
    pub(super) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

/// The wrong parts of a request: the first of them, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Faults {
    pub(super) first: Vec<FieldError>,
    pub(super) total: usize,
}

impl Faults {
    /// Whether nothing is wrong.
    pub(super) const fn is_none(&self) -> bool {
        self.total == 0
    }

    /// Adds one; what would not be listed is counted alone, so its words are not made.
    pub(super) fn add(&mut self, error: impl FnOnce() -> FieldError) {
        self.total += 1;
        if self.first.len() < limits::ERRORS_SHOWN_MAX {
            self.first.push(error());
        }
    }

    /// Adds those of another part.
    pub(super) fn extend(&mut self, other: Self) {
        self.total += other.total;
        let room = limits::ERRORS_SHOWN_MAX.saturating_sub(self.first.len());
        self.first.extend(other.first.into_iter().take(room));
    }
}

impl From<Vec<FieldError>> for Faults {
    fn from(first: Vec<FieldError>) -> Self {
        Self {
            total: first.len(),
            first,
        }
    }
}

/// What became of one element of a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}OrProblem")]
#[serde(untagged)]
pub(super) enum Each<T> {
    Done(T),
    Refused { error: ProblemBody },
}

/// What became of the elements of a list, each in its place.
pub(super) struct Elements<T> {
    pub(super) all: Vec<Each<T>>,
    pub(super) refused: usize,
    /// The first refusal's, when nothing else came of it.
    pub(super) status: Option<StatusCode>,
}

impl<T> FromIterator<Result<T, Error>> for Elements<T> {
    fn from_iter<I: IntoIterator<Item = Result<T, Error>>>(answers: I) -> Self {
        let (mut first, mut refused) = (None, 0);
        let each = |(i, answer): (usize, Result<T, Error>)| match answer {
            Ok(done) => Each::Done(done),
            Err(error) => {
                let problem = Problem::from(error).within(&format!("[{i}]."));
                first.get_or_insert(problem.status());
                refused += 1;
                let error = problem.body();
                Each::Refused { error }
            }
        };
        let all: Vec<Each<T>> = answers.into_iter().enumerate().map(each).collect();
        let status = first.filter(|_| refused == all.len());
        Self {
            all,
            refused,
            status,
        }
    }
}

/// Why a request got no good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<FieldError>,
    /// GLM's code, where it is not that of the kind.
    code: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Which rendering a route speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
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
    pub(super) fn of(path: &str) -> Self {
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
    pub(super) const fn of_face(face: Face) -> Self {
        match face.envelope() {
            Envelope::Glm => Self::Glm,
            Envelope::Anthropic => Self::Anthropic,
        }
    }

    /// An error of a face, as text. `code` must be a number as text where GLM speaks: its Java SDK parses it.
    pub(super) fn error_body(
        self,
        status: StatusCode,
        code: &str,
        message: &str,
        param: Option<&str>,
        job: Option<&str>,
    ) -> String {
        let body = match self {
            Self::Anthropic => {
                serde_json::to_string(&AnthropicErrorBody::new(status, code, message, job))
            }
            Self::Glm | Self::Problem => {
                serde_json::to_string(&glm_error_body(status, code, message, param))
            }
        };
        // Texts always serialise.
        body.unwrap_or_default()
    }

    /// The answer that such an error is.
    pub(super) fn error(
        self,
        status: StatusCode,
        code: &str,
        message: &str,
        param: Option<&str>,
        job: Option<&str>,
    ) -> Reply {
        let body = self.error_body(status, code, message, param, job);
        Reply::text(status, JSON, body.into_bytes())
    }
}

/// An RFC 9457 problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct ProblemBody {
    /// `urn:onelane:problem:` and the name of the kind.
    #[serde(rename = "type")]
    type_uri: String,
    /// What the kind means, in a few words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong and what would be right.
    detail: String,
    /// The wrong parts of the request, at most twenty of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

/// GLM's shape of an error, which OpenAI's SDKs read, too.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "GlmErrorAnswer")]
pub(super) struct GlmErrorBody {
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

/// GLM's error shape.
fn glm_error_body(
    status: StatusCode,
    code: &str,
    message: &str,
    param: Option<&str>,
) -> GlmErrorBody {
    let kind = match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "service_unavailable_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    };
    let error = GlmError {
        code: code.to_owned(),
        message: message.to_owned(),
        kind: Some(kind),
        param: param.map(str::to_owned),
    };
    GlmErrorBody { error }
}

impl Problem {
    /// A problem of this kind; `detail` says what is wrong and what would be right.
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let mut headers = Vec::new();
        match kind {
            Kind::Unauthorized => {
                headers.push((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
            }
            Kind::Busy => {
                headers.push((RETRY_AFTER, limits::BUSY_RETRY_AFTER_S.into()));
                headers.push((SHOULD_RETRY, HeaderValue::from_static("true")));
            }
            Kind::QueueFull => {
                headers.push((RETRY_AFTER, limits::QUEUE_FULL_RETRY_AFTER_S.into()));
                headers.push((SHOULD_RETRY, HeaderValue::from_static("false")));
            }
            // Nothing of it goes on here: asking again is safe, and finds what has a key.
            Kind::Stopped | Kind::StoreFailed => {
                headers.push((RETRY_AFTER, limits::STOPPED_RETRY_AFTER_S.into()));
                headers.push((SHOULD_RETRY, HeaderValue::from_static("true")));
            }
            // SDKs send again on 409 and 503; it would end the same.
            Kind::FileInUse
            | Kind::WrongStatus
            | Kind::IdempotencyConflict
            | Kind::RequestPruned
            | Kind::DependencyEnded
            | Kind::Draining
            | Kind::OverBudget
            | Kind::JobCancelled
            | Kind::WaitsInVain
            | Kind::WaitsForQuota
            | Kind::JobFailed => {
                headers.push((SHOULD_RETRY, HeaderValue::from_static("false")));
            }
            _ => {}
        }
        Self {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            headers,
            code: None,
        }
    }

    /// Errors of fields, parameters or headers; the first stands in the detail, at most
    /// [`limits::ERRORS_SHOWN_MAX`] are listed.
    pub(super) fn of_fields(kind: Kind, errors: impl Into<Faults>) -> Self {
        let Faults {
            first: mut errors,
            total: count,
        } = errors.into();
        let mut detail = errors.first().map_or_else(String::new, |error| {
            format!("{}: {}", error.field, error.problem)
        });
        if count > 1 {
            detail = format!("{detail} (and {} more)", count - 1);
        }
        errors.truncate(limits::ERRORS_SHOWN_MAX);
        Self {
            errors,
            ..Self::new(kind, detail)
        }
    }

    /// What keeps a client waiting has no stated end, or ends later than it waits: GLM's own code, where it is GLM
    /// that stops it.
    fn in_vain(detail: String, reason: &WaitReason, now: Timestamp) -> Self {
        let (kind, code) = match reason {
            WaitReason::Budget(_) => (Kind::WaitsForQuota, None),
            WaitReason::Hold(hold) => {
                let is_number = hold.code.bytes().all(|byte| byte.is_ascii_digit());
                let code = Some(hold.code.clone()).filter(|code| is_number && !code.is_empty());
                match hold.kind {
                    HoldKind::Quota | HoldKind::Throttle | HoldKind::Overload => {
                        (Kind::WaitsForQuota, code)
                    }
                    _ => (Kind::WaitsInVain, code),
                }
            }
            _ => (Kind::WaitsInVain, None),
        };
        let mut problem = Self::new(kind, detail);
        problem.code = code;
        if let Some(until) = reason.until() {
            let seconds = until.since(now).div_ceil(1_000);
            problem.headers.push((RETRY_AFTER, seconds.into()));
        }
        problem
    }

    /// One wrong field.
    pub(super) fn of_field(kind: Kind, field: &str, problem: impl Into<String>) -> Self {
        Self::of_fields(kind, vec![FieldError::new(field, problem)])
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

    /// A client key hands in more than it may in a minute; there is room after so many milliseconds.
    pub(super) fn rate_limited(allowed: u32, wait_ms: u64) -> Self {
        let seconds = wait_ms.div_ceil(1_000).max(1);
        let mut problem = Self::new(
            Kind::RateLimited,
            format!("this key may hand in {allowed} jobs a minute; there is room in {seconds} s"),
        );
        problem.headers.push((RETRY_AFTER, seconds.into()));
        let retry = HeaderValue::from_static("true");
        problem.headers.push((SHOULD_RETRY, retry));
        problem
    }

    /// What its `Retry-After` says.
    #[cfg(test)]
    pub(super) fn retry_after(&self) -> Option<String> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(name, _)| *name == RETRY_AFTER)?;
        Some(value.to_str().ok()?.to_owned())
    }

    /// Its kind.
    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    /// What is wrong and what would be right.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Its status.
    pub(super) const fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// The same problem as a part of a larger answer: its fields are those of element `at`.
    pub(super) fn within(mut self, at: &str) -> Self {
        for error in &mut self.errors {
            error.field = format!("{at}{}", error.field);
        }
        self
    }

    /// As an RFC 9457 object.
    pub(super) fn body(&self) -> ProblemBody {
        let (status, name, title, _) = self.kind.facts();
        ProblemBody {
            type_uri: format!("urn:onelane:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: self.detail.clone(),
            errors: self.errors.clone(),
        }
    }

    /// The answer, in the language of the path.
    pub(super) fn reply(self, dialect: Dialect) -> Reply {
        let (status, _, _, code) = self.kind.facts();
        let mut reply = match dialect {
            Dialect::Problem => Reply::json(status, &self.body()).of_type(PROBLEM),
            Dialect::Glm | Dialect::Anthropic => {
                let param = self.errors.first().map(|error| error.field.as_str());
                let code = self.code.as_deref().unwrap_or(code);
                dialect.error(status, code, &self.detail, param, None)
            }
        };
        reply.headers.extend(self.headers);
        reply
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        let kind = match error {
            // Well-formed, perhaps; but the operator does not allow it.
            Error::Invalid { field, problem } if field == "callbackUrl" => {
                return Self::of_field(Kind::CallbackRefused, &field, problem);
            }
            Error::Invalid { field, problem } => {
                return Self::of_field(Kind::InvalidField, &field, problem);
            }
            Error::Config(patch) => {
                let problems = patch.problems.into_iter();
                let errors: Vec<FieldError> = problems
                    .map(|problem| FieldError::new(problem.field, problem.problem))
                    .collect();
                return Self::of_fields(Kind::InvalidField, errors);
            }
            Error::NoSuchDependency(_) => {
                return Self::of_field(Kind::UnknownDependency, "after", detail);
            }
            Error::NoSuchFile(_) => Kind::UnknownFile,
            Error::FileInUse { .. } => Kind::FileInUse,
            Error::NoSuchBatch(_) | Error::BatchClosed(_) => {
                return Self::of_field(Kind::InvalidField, "batchId", detail);
            }
            Error::Unpriced(_) => return Self::of_field(Kind::UnpricedModel, "model", detail),
            Error::DependencyEnded { .. } | Error::DependencyPruned(_) => Kind::DependencyEnded,
            Error::Draining { .. } => Kind::Draining,
            Error::OverBudget(refusal) => match *refusal {
                BudgetRefusal::TooLarge { .. } => Kind::BeyondBudget,
                BudgetRefusal::UsedUp { .. } => Kind::OverBudget,
            },
            Error::RequestPruned(_) => Kind::RequestPruned,
            Error::NoSuchAttempt { .. } => Kind::UnknownAttempt,
            Error::BillingSettled { .. } => Kind::BillingSettled,
            Error::NoSuchKey(_) => Kind::UnknownKey,
            Error::DeadKey(_) => Kind::DeadKey,
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
            Error::WaitsInVain { reason, now, .. } => return Self::in_vain(detail, &reason, now),
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
        let errors = vec![
            FieldError::new("[3].priority", "must be a whole number"),
            FieldError::new("[4].prompt", "is empty"),
        ];
        let problem = Problem::of_fields(Kind::InvalidField, errors);
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
        let errors: Vec<FieldError> = (0..10_000)
            .map(|i| FieldError::new(format!("[{i}]"), "bad"))
            .collect();
        let problem = Problem::of_fields(Kind::InvalidField, errors);
        assert_eq!(problem.errors.len(), limits::ERRORS_SHOWN_MAX);
        assert!(problem.detail.ends_with("(and 9999 more)"));
    }

    #[test]
    fn every_glm_code_is_a_number_as_text() {
        let table = crate::glm::ErrorTable::shipped();
        for kind in Kind::ALL {
            let (status, _, _, code) = kind.facts();
            assert!(code.parse::<u32>().is_ok());
            if status == StatusCode::SERVICE_UNAVAILABLE {
                assert!(table.row(code).is_none(), "{code}");
            }
        }
    }

    #[test]
    fn a_refusal_of_the_lane_has_its_kind() {
        let check = |error: Error, status: u16, name: &str| {
            let kind = Problem::from(error).kind();
            assert_eq!((kind.status().as_u16(), kind.name()), (status, name));
        };
        let id = crate::views::tests::sample::id(1);
        check(Error::QueueFull { limit: 9 }, 429, "queue-full");
        check(Error::IdempotencyConflict(id), 409, "idempotency-conflict");
        check(Error::Stopped("full disk".to_owned()), 503, "stopped");
        check(Error::RequestPruned(id), 409, "request-pruned");
        check(Error::DependencyPruned(id), 409, "dependency-ended");
        check(Error::WaitTimeout(id), 504, "wait-timeout");
        let field = "callbackUrl".to_owned();
        let problem = "its host is not allowed".to_owned();
        check(Error::Invalid { field, problem }, 422, "callback-refused");
    }

    #[test]
    fn the_path_decides_the_dialect() {
        let check = |path, dialect| assert_eq!(Dialect::of(path), dialect, "{path}");
        check("/v1/chat/completions", Dialect::Glm);
        check("//v1//nothing", Dialect::Glm);
        check("/api/paas/v4/nothing", Dialect::Glm);
        check("/api/coding/paas/v4/nothing", Dialect::Glm);
        check("/v1/messages", Dialect::Anthropic);
        check("//v1/messages//batches/", Dialect::Anthropic);
        check("/api/anthropic/v2", Dialect::Anthropic);
        check("/v1/messages2", Dialect::Glm);
        check("/v1/responses/resp_1", Dialect::Glm);
        check("/api/glm/jobs", Dialect::Problem);
        check("/v10", Dialect::Problem);
        check("/", Dialect::Problem);
    }

    #[test]
    fn a_full_queue_tells_clients_when_to_come_back_and_sdks_not_to() {
        let reply = Problem::from(Error::QueueFull { limit: 5 }).reply(Dialect::Glm);
        assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
        let header = |name| reply.headers.iter().find(|(known, _)| *known == name);
        assert_eq!(header(RETRY_AFTER).unwrap().1, "5");
        assert_eq!(header(SHOULD_RETRY).unwrap().1, "false");
    }
}
