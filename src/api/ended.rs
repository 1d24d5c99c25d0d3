//! What a client of the gateway is answered when its job has ended: as GLM sent it where GLM did, in the form of its
//! face where we speak.

use onelane_actors::ports::JobRecord;
use onelane_core::model::{
    AnswerBody, CALL_ID_HEADERS, CallRecord, Ending, Face, Failure, FailureClass, Job, JobStatus,
    Received, code,
};
use serde_json::value::RawValue;
use warp::http::{HeaderName, StatusCode};

use super::answer::{EVENT_STREAM, JSON, Reply, Shapes};
use super::problem::{Dialect, Kind, Problem, SHOULD_RETRY};
use super::request_id::RequestId;
use crate::error::Error;
use crate::glm::{ErrorTable, events_of, is_failed_answer};

/// Says which job an answer belongs to.
pub(super) const JOB: HeaderName = HeaderName::from_static("x-onelane-job");
/// Says which model answered, as the answer names it, or was asked.
pub(super) const MODEL: HeaderName = HeaderName::from_static("x-onelane-model");
/// Says how many attempts the job took: which of them it is that answers.
pub(super) const ATTEMPTS: HeaderName = HeaderName::from_static("x-onelane-attempts");
/// Says how long the job waited before the attempt that answers was sent, in milliseconds.
const WAIT_MS: HeaderName = HeaderName::from_static("x-onelane-wait-ms");
/// Says what that attempt cost.
const COST: HeaderName = HeaderName::from_static("x-onelane-cost");
/// Says in English what GLM's error means and what to do about it: its body comes as GLM wrote it.
const MEANING: HeaderName = HeaderName::from_static("x-onelane-meaning");

/// With what the code of a completion that is a failure begins.
pub(super) const FINISH: &str = "finish:";

/// What our headers say of a job that has ended. `call`: its last attempt.
pub(super) fn told(reply: Reply, job: &Job, call: Option<&CallRecord>) -> Reply {
    if job.attempts.0 == 0 {
        return reply;
    }
    let model = job.answered_by.as_deref().unwrap_or(job.sent_to());
    let reply = reply.with(MODEL, model).with(ATTEMPTS, job.attempts);
    let Some(call) = call else { return reply };
    let reply = reply.with_all(&call.call_ids);
    let reply = reply.with(WAIT_MS, call.started_at.since(job.created_at));
    match call.cost {
        Some(cost) => reply.with(COST, cost),
        None => reply,
    }
}

/// The headers that say it.
pub(super) fn describe(shapes: &mut Shapes<'_>) {
    shapes.header(
        "x-onelane-model",
        "The model that answered; of a stream, that was asked.",
    );
    shapes.header("x-onelane-attempts", "The attempt that answers.");
    shapes.header(
        "x-onelane-wait-ms",
        "How long the job waited before that was sent; not of a stream.",
    );
    shapes.header(
        "x-onelane-cost",
        "What that attempt cost, with its currency; not of a stream.",
    );
    let about = "GLM's own id of the call, in whichever of these headers it names one.";
    CALL_ID_HEADERS
        .iter()
        .for_each(|name| shapes.header(name, about));
}

/// The answer that a job's end makes.
pub(super) fn answer(ending: &Ending, streams: bool, request: &RequestId) -> Reply {
    let job = &ending.job;
    let dialect = Dialect::of_face(job.face);
    let refusal = ending.refusal.as_deref();
    match (job.status, &ending.response, &job.error) {
        (JobStatus::Completed, Some(body), _) => whole(job.face, body, streams),
        (JobStatus::Failed, _, Some(failure)) => failed(job, failure, refusal, streams, request),
        (JobStatus::Cancelled, ..) => {
            Problem::from(Error::JobCancelled(job.id)).reply(dialect, request)
        }
        _ if job.bodies_pruned => Problem::new(
            Kind::RequestPruned,
            format!(
                "the answer of job {} was pruned; ask again with a new idempotency key",
                job.id
            ),
        )
        .reply(dialect, request),
        _ => Problem::new(
            Kind::Internal,
            format!("job {} has ended without an answer", job.id),
        )
        .reply(dialect, request),
    }
}

/// What GLM sent, to the byte and of the type that it says.
fn verbatim(status: StatusCode, came: &Received) -> Reply {
    let reply = Reply::text(status, JSON, came.bytes().to_vec());
    match came.content_type() {
        Some(named) => reply.of_type(named.to_owned()),
        None if came.bytes().is_empty() => reply.of_type(""),
        None if came.json().is_some() => reply,
        None => reply.of_type("text/plain; charset=utf-8"),
    }
}

/// A job that failed for good: GLM's own status and body where GLM gave them. An answer that is a failure (cut by
/// moderation, for one) is the 200 that it was. The lane has retried what is worth retrying, so SDKs are told not to;
/// and since many ask again after any 5xx, what would end the same is none.
fn failed(
    job: &Job,
    failure: &Failure,
    refusal: Option<&Received>,
    streams: bool,
    request: &RequestId,
) -> Reply {
    let table = ErrorTable::shipped();
    if let Some(body) = refusal.filter(|came| is_answer(job.face, failure, came)) {
        let streamed = body.json().filter(|_| streams);
        let events = streamed.and_then(|json| in_events(job.face, json));
        return events.unwrap_or_else(|| verbatim(StatusCode::OK, body));
    }
    let Stated {
        status,
        fault,
        code,
    } = stated(failure);
    let is_error_of_glm =
        table.own_row(&failure.code).is_none() && failure.code != code::TASK_FAILED;
    let is_refusal = failure.status_code.and_then(refuses).is_some();
    // A body that broke off, or one of a redirect, tells a client less than its status in the form of the face.
    let passes =
        |came: &&Received| is_error_of_glm && !came.is_begun() && (is_refusal || came.is_object());
    let reply = match refusal.filter(passes) {
        Some(body) => {
            let meaning = table.explanation(&failure.code, failure.class);
            verbatim(status, body).with(MEANING, meaning)
        }
        None => {
            let dialect = Dialect::of_face(job.face);
            let body = dialect.error_body(fault, code, &failure.message, None, request);
            Reply::text(status, JSON, body.into_bytes())
        }
    };
    reply.with(SHOULD_RETRY, false)
}

/// Whether what came instead of an answer is one that says that it failed.
fn is_answer(face: Face, failure: &Failure, came: &Received) -> bool {
    let under_success = failure.status_code.is_some_and(|status| status / 100 == 2);
    let says_so = || {
        let json = came.json();
        json.is_some_and(|json| is_failed_answer(face, json.get()))
    };
    failure.code.starts_with(FINISH) || (under_success && says_so())
}

/// The answer of a job that has ended, one that says that it failed among them; `None`: it has none.
pub(super) fn told_by_glm(record: &JobRecord) -> Option<&RawValue> {
    let job = &record.job;
    match (job.status, &record.response, &job.error) {
        (JobStatus::Completed, Some(body), _) => Some(body),
        (JobStatus::Failed, _, Some(failure)) => {
            let refusal = record.refusal.as_deref();
            let came = refusal.filter(|came| is_answer(job.face, failure, came));
            came.and_then(Received::json)
        }
        _ => None,
    }
}

/// The events that the answer of a job would have come in; `None`: it has none.
pub(super) fn events(record: &JobRecord) -> Option<String> {
    events_of(record.job.face, told_by_glm(record)?.get())
}

/// An answer as it came, or as the events of a stream.
fn whole(face: Face, body: &AnswerBody, streams: bool) -> Reply {
    let events = streams.then(|| in_events(face, body)).flatten();
    let as_it_came = || Reply::text(StatusCode::OK, JSON, body.text().into_owned().into_bytes());
    events.unwrap_or_else(as_it_came)
}

/// An answer as the events of a stream; `None`: it is none.
fn in_events(face: Face, body: &RawValue) -> Option<Reply> {
    let events = events_of(face, body.get())?;
    Some(Reply::text(
        StatusCode::OK,
        EVENT_STREAM,
        events.into_bytes(),
    ))
}

/// A status that says that something is wrong.
fn refuses(status: u16) -> Option<StatusCode> {
    let status = StatusCode::from_u16(status).ok()?;
    (status.is_client_error() || status.is_server_error()).then_some(status)
}

/// What a client is told of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stated<'f> {
    /// The status of an answer that is no stream.
    pub(super) status: StatusCode,
    /// The status that says whose fault it is, and so the words for it in the form of a face: that of the answer may be
    /// another one, so that nobody buys it again.
    pub(super) fault: StatusCode,
    pub(super) code: &'f str,
}

/// By which status and code a client is told of a failure.
pub(super) fn stated(failure: &Failure) -> Stated<'_> {
    let table = ErrorTable::shipped();
    let row = table.row(&failure.code);
    let of_glm = failure.status_code.and_then(refuses);
    let of_code = row.and_then(|row| row.http_status).and_then(refuses);
    let same = |status| (status, status);
    let own = match (of_glm.or(of_code), failure.class) {
        (Some(known), _) => same(known),
        (None, FailureClass::RequestFatal) => same(StatusCode::BAD_REQUEST),
        // GLM said 200 and sent no completion.
        (None, _) if failure.status_code.is_some() => {
            (StatusCode::UNPROCESSABLE_ENTITY, StatusCode::BAD_GATEWAY)
        }
        (None, _) => same(StatusCode::BAD_GATEWAY),
    };
    // An answer had begun: for a client that asks again after a 5xx it would be bought again.
    let lost = |fault| match failure.is_unread() {
        true => (StatusCode::UNPROCESSABLE_ENTITY, fault),
        false => same(fault),
    };
    let code = failure.code.strip_prefix("http_").unwrap_or(&failure.code);
    let ((status, fault), code) = match failure.code.as_str() {
        code::DEADLINE
        | code::TIMEOUT_CONNECT
        | code::TIMEOUT_FIRST_BYTE
        | code::TIMEOUT_IDLE
        | code::TIMEOUT_TOTAL => (lost(StatusCode::GATEWAY_TIMEOUT), "1234"),
        code::CONNECTION
        | code::CONNECTION_ENDED
        | code::FOREIGN_ANSWER
        | code::UNREACHABLE
        | code::TLS_UNTRUSTED => (lost(StatusCode::BAD_GATEWAY), "1234"),
        code::REQUEST_INVALID => (same(StatusCode::BAD_REQUEST), "1210"),
        code::NO_API_KEY => (same(StatusCode::SERVICE_UNAVAILABLE), "1000"),
        code::CANCELLED => (
            same(Kind::JobCancelled.status()),
            Kind::JobCancelled.glm_code(),
        ),
        "" => (own, "1200"),
        _ => (own, code),
    };
    Stated {
        status,
        fault,
        code,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use warp::http::HeaderValue;

    use crate::views::tests::sample;

    use super::*;

    fn header(reply: &Reply, name: HeaderName) -> Option<&HeaderValue> {
        let found = reply.headers.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value)
    }

    #[test]
    fn an_answer_says_who_answered_at_which_attempt() {
        let mut ending = Ending::from(sample::completed(1));
        ending.job.attempts = onelane_core::model::AttemptNo(2);
        ending.job.served_by = Some("glm-4.5-air".to_owned());
        ending.job.answered_by = None;
        let reply = told(
            answer(&ending, false, &RequestId::default()),
            &ending.job,
            None,
        );
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(header(&reply, MODEL).unwrap(), "glm-4.5-air");
        assert_eq!(header(&reply, ATTEMPTS).unwrap(), "2");
        ending.job.answered_by = Some("glm-5.3".to_owned());
        let reply = told(
            answer(&ending, false, &RequestId::default()),
            &ending.job,
            None,
        );
        assert_eq!(header(&reply, MODEL).unwrap(), "glm-5.3");
    }

    #[test]
    fn a_response_that_failed_is_the_200_that_it_was() {
        let body = r#"{"object":"response","status":"failed","error":{"code":"a_word","message":"m"},"output":[]}"#;
        let raw = Received::new(body.as_bytes(), None);
        let failure = Failure {
            status_code: Some(200),
            ..Failure::new(FailureClass::ServerTransient, "a_word", "m")
        };
        let mut job = sample::completed(1).job;
        let told = failed(&job, &failure, Some(&raw), false, &RequestId::default());
        assert_eq!(
            told.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "a chat has no such answer"
        );
        job.face = Face::Responses;
        let told = failed(&job, &failure, Some(&raw), false, &RequestId::default());
        assert_eq!(told.status, StatusCode::OK);
        assert_eq!(told.into_bytes(), body.as_bytes());
    }

    #[test]
    fn what_glm_did_not_say_is_told_in_the_form_of_the_face() {
        let mut job = sample::completed(1).job;
        job.face = Face::Messages;
        let failure = Failure::new(FailureClass::ServerTransient, code::TIMEOUT_TOTAL, "late");
        let told = failed(&job, &failure, None, false, &RequestId::default());
        assert_eq!(told.status, StatusCode::GATEWAY_TIMEOUT);
        let body: Value = serde_json::from_slice(&told.into_bytes()).unwrap();
        assert_eq!(body["type"], "error");
        assert_eq!(body["error"]["type"], "api_error");
        assert_eq!(body["error"]["message"], "late");
        assert_eq!(body["request_id"], RequestId::default().text());
    }

    #[test]
    fn a_job_that_was_cancelled_says_so() {
        let mut ending = Ending::from(sample::waiting(1));
        ending.job.status = JobStatus::Cancelled;
        let reply = answer(&ending, false, &RequestId::default());
        assert_eq!(reply.status, StatusCode::CONFLICT);
        assert_eq!(header(&reply, SHOULD_RETRY).unwrap(), "false");
        let told: Value = serde_json::from_slice(&reply.into_bytes()).unwrap();
        assert_eq!(told["error"]["code"], "409", "no code of GLM's says so");
    }

    fn told_of(class: FailureClass, code: &str, status_code: Option<u16>, body: &str) -> Reply {
        let failure = Failure {
            status_code,
            ..Failure::new(class, code, "m")
        };
        let came = (!body.is_empty()).then(|| Received::new(body.as_bytes(), None));
        failed(
            &sample::completed(1).job,
            &failure,
            came.as_ref(),
            false,
            &RequestId::default(),
        )
    }

    #[test]
    fn a_known_status_is_never_lost_and_a_permanent_fault_never_a_5xx() {
        use FailureClass::{RequestFatal, ServerTransient, Throttle};
        let check = |class, code: &str, status_code: Option<u16>, want: u16| {
            let reply = told_of(class, code, status_code, "");
            assert_eq!(reply.status.as_u16(), want, "{code} {status_code:?}");
            assert_eq!(reply.headers, [(SHOULD_RETRY, "false".parse().unwrap())]);
        };
        check(RequestFatal, "context_length_exceeded", Some(400), 400);
        check(RequestFatal, "model_not_found", Some(404), 404);
        check(RequestFatal, "a_word_of_tomorrow", Some(451), 451);
        check(RequestFatal, "1210", Some(200), 400);
        check(RequestFatal, "1301", Some(200), 400);
        check(RequestFatal, "4711", Some(200), 400);
        check(RequestFatal, "finish:sensitive", Some(200), 400);
        check(Throttle, "1302", Some(200), 429);
        check(ServerTransient, code::BODY_INVALID, Some(200), 422);
        check(ServerTransient, code::TASK_FAILED, Some(200), 422);
        check(ServerTransient, "4711", Some(200), 422);
        check(ServerTransient, "1210", Some(400), 400);
        check(ServerTransient, "1234", Some(500), 500);
        check(ServerTransient, "1200", Some(200), 500);
        check(ServerTransient, "http_503", Some(503), 503);
        check(ServerTransient, code::CONNECTION, None, 502);
        check(ServerTransient, code::TIMEOUT_TOTAL, None, 504);
        check(ServerTransient, code::CONNECTION, Some(200), 422);
        check(ServerTransient, code::TIMEOUT_IDLE, Some(200), 422);
        check(ServerTransient, code::TIMEOUT_TOTAL, Some(200), 422);
        check(ServerTransient, code::BODY_TOO_LARGE, Some(200), 422);
        check(ServerTransient, code::DEADLINE, None, 504);
        check(ServerTransient, code::QUARANTINED, None, 502);
        check(ServerTransient, "", None, 502);
    }

    #[test]
    fn what_broke_off_is_nobodys_invalid_request_in_any_form() {
        use FailureClass::{RequestFatal, ServerTransient};
        let check = |class, code: &str, status_code, want: (&str, &str)| {
            let failure = Failure {
                status_code,
                ..Failure::new(class, code, "m")
            };
            let words = [Face::Chat, Face::Messages].map(|face| {
                let mut job = sample::completed(1).job;
                job.face = face;
                let told = failed(&job, &failure, None, false, &RequestId::default());
                let told: Value = serde_json::from_slice(&told.into_bytes()).unwrap();
                told["error"]["type"].as_str().unwrap().to_owned()
            });
            assert_eq!(words, [want.0, want.1], "{code}");
        };
        let ours = ("api_error", "api_error");
        for code in [
            code::CONNECTION,
            code::TIMEOUT_IDLE,
            code::TIMEOUT_TOTAL,
            code::BODY_INVALID,
            code::BODY_TOO_LARGE,
        ] {
            check(ServerTransient, code, Some(200), ours);
            check(ServerTransient, code, None, ours);
        }
        let invalid = ("invalid_request_error", "invalid_request_error");
        check(RequestFatal, "1210", Some(400), invalid);
        check(RequestFatal, "1301", Some(200), invalid);
        let limited = ("rate_limit_error", "rate_limit_error");
        check(FailureClass::Throttle, "1302", Some(200), limited);
    }

    #[test]
    fn an_error_body_passes_to_the_byte_and_its_meaning_beside_it() {
        use FailureClass::RequestFatal;
        let sensitive = r#"{"contentFilter":[{"level":1,"role":"user"}],"error":{"code":"1301","message":"系统检测到输入"}}"#;
        let detail = r#"{ "detail" : [{"loc":["body"],"msg":"no"}] }"#;
        for (code, status, body) in [
            ("1301", 400, sensitive),
            ("http_422", 422, detail),
            ("context_length_exceeded", 400, r#"{"error":{"type":"x"}}"#),
        ] {
            let reply = told_of(RequestFatal, code, Some(status), body);
            assert_eq!(reply.status.as_u16(), status);
            let meaning = header(&reply, MEANING).unwrap().to_str().unwrap();
            assert!(meaning.is_ascii() && !meaning.is_empty(), "{meaning}");
            assert_eq!(reply.into_bytes(), body.as_bytes(), "{code}");
        }
        // What GLM did not say is told in GLM's form.
        let reply = told_of(
            FailureClass::ServerTransient,
            code::BODY_INVALID,
            Some(200),
            "{}",
        );
        let told: Value = serde_json::from_slice(&reply.into_bytes()).unwrap();
        assert_eq!(told["error"]["code"], code::BODY_INVALID);
    }

    #[test]
    fn a_completion_that_is_a_failure_is_the_200_that_it_was() {
        let body = r#"{"choices":[{"finish_reason":"sensitive","message":{"content":""}}]}"#;
        for code in ["finish:sensitive", "finish:network_error"] {
            let reply = told_of(FailureClass::RequestFatal, code, Some(200), body);
            assert_eq!(reply.status, StatusCode::OK);
            assert_eq!(header(&reply, SHOULD_RETRY), None);
            assert_eq!(reply.into_bytes(), body.as_bytes());
        }
    }
}
