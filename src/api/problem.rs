//! What is wrong with a request, as data: one table of kinds with status, name and GLM code, and two
//! renderings. Our own routes answer RFC 9457 problems; the routes of GLM's faces answer the error shape of the face,
//! so that SDKs read it.

mod faults;
mod kind;
mod rendering;

use schemars::JsonSchema;
use serde::Serialize;
use warp::http::header::{ALLOW, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use warp::http::{HeaderValue, StatusCode};

use super::answer::Reply;
use super::limits;
use super::request_id::RequestId;
use crate::error::Error;
use crate::model::{BudgetRefusal, HoldKind, OverRate, Timestamp, WaitReason};

pub(super) use faults::{Faults, FieldError};
pub(crate) use kind::Kind;
pub(super) use rendering::{Dialect, GlmErrorBody, ProblemBody, openai_kind};

/// The media type of a problem.
pub(super) const PROBLEM: &str = "application/problem+json";

/// Tells OpenAI and GLM SDKs not to send the request again by themselves.
pub(super) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
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
    /// Its headers: when to ask again.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

impl<T> FromIterator<Result<T, Error>> for Elements<T> {
    fn from_iter<I: IntoIterator<Item = Result<T, Error>>>(answers: I) -> Self {
        let (mut first, mut refused) = (None, 0);
        let each = |(i, answer): (usize, Result<T, Error>)| match answer {
            Ok(done) => Each::Done(done),
            Err(error) => {
                let problem = Problem::from(error).within(&format!("[{i}]."));
                refused += 1;
                let error = problem.body();
                first.get_or_insert((problem.status(), problem.headers));
                Each::Refused { error }
            }
        };
        let all: Vec<Each<T>> = answers.into_iter().enumerate().map(each).collect();
        let (status, headers) = first.filter(|_| refused == all.len()).unzip();
        Self {
            all,
            refused,
            status,
            headers: headers.unwrap_or_default(),
        }
    }
}

/// Why a request got no good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<FieldError>,
    /// GLM's code, where it is not that of the kind.
    code: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem of this kind; `detail` says what is wrong and what would be right.
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
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
            | Kind::NoStream
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
    pub(crate) fn of_field(kind: Kind, field: &str, problem: impl Into<String>) -> Self {
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

    /// A client key hands in more than it may in a minute.
    fn over_rate(rate: OverRate) -> Self {
        let mut problem = Self::new(Kind::RateLimited, rate.to_string());
        problem.headers.push((RETRY_AFTER, rate.wait_s().into()));
        let retry = HeaderValue::from_static("true");
        problem.headers.push((SHOULD_RETRY, retry));
        problem
    }

    /// Its kind.
    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// What is wrong and what would be right.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// Its status.
    pub(crate) const fn status(&self) -> StatusCode {
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
            request_id: None,
        }
    }

    /// The same, of this request.
    pub(super) fn body_of(&self, request: &RequestId) -> ProblemBody {
        ProblemBody {
            request_id: Some(request.text().to_owned()),
            ..self.body()
        }
    }

    /// The answer to this request, in the language of the path.
    pub(super) fn reply(self, dialect: Dialect, request: &RequestId) -> Reply {
        let (status, _, _, code) = self.kind.facts();
        let mut reply = match dialect {
            Dialect::Problem => Reply::json(status, &self.body_of(request)).of_type(PROBLEM),
            Dialect::Glm | Dialect::Anthropic => {
                let param = self.errors.first().map(|error| error.field.as_str());
                let code = self.code.as_deref().unwrap_or(code);
                dialect.error(status, code, &self.detail, param, request)
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
            Error::OverRate(rate) => return Self::over_rate(rate),
            Error::RequestPruned(_) => Kind::RequestPruned,
            Error::NoSuchAttempt { .. } => Kind::UnknownAttempt,
            Error::BillingSettled { .. } => Kind::BillingSettled,
            Error::NoSuchKey(_) => Kind::UnknownKey,
            Error::DeadKey(_) => Kind::DeadKey,
            Error::NoSuchHold(_) => Kind::UnknownHold,
            Error::AccountNotAsked => Kind::AccountNotAsked,
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
        let reply =
            Problem::from(Error::QueueFull { limit: 5 }).reply(Dialect::Glm, &RequestId::default());
        assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
        let header = |name| reply.headers.iter().find(|(known, _)| *known == name);
        assert_eq!(header(RETRY_AFTER).unwrap().1, "5");
        assert_eq!(header(SHOULD_RETRY).unwrap().1, "false");
    }
}
