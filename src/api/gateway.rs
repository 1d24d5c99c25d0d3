//! The routes that OpenAI and GLM SDKs know: a chat completion is submitted as a job, waited for and
//! answered verbatim. A program only changes its base URL.
//!
//! A client that goes away while its job waits or runs gives the job up: it is cancelled, so that
//! nothing is paid for nobody. With an `Idempotency-Key` it is not: the client means to come back
//! with the same key and gets the same job.

use std::sync::Arc;

use onelane_actors::ports::JobRecord;
use onelane_core::model::limits as bounds;
use onelane_core::model::{Failure, JobId, JobStatus, Request, RequestError, code};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use warp::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use warp::reply::Response;

use super::body::Body;
use super::fields::check_text;
use super::lane::Lane;
use super::problem::{Dialect, Kind, Problem, SHOULD_RETRY, glm_error};
use super::submission::{DEFAULT_USER, idempotency_key};
use super::{Api, reply};
use crate::error::Error;
use crate::orchestrator::Submission;

/// Says which job an answer belongs to.
const JOB_ID: HeaderName = HeaderName::from_static("x-onelane-job-id");

/// Says which fallback model served it, when its own did not.
const MODEL: HeaderName = HeaderName::from_static("x-onelane-model");

/// Where the end of the job is to be told: the body is GLM's, and says nothing of ours.
const CALLBACK: &str = "Onelane-Callback-Url";

/// `POST .../chat/completions`.
pub(super) async fn chat_completions(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let key = idempotency_key(headers)?;
    let raw = body.json(headers).await?;
    let callback_url = callback_url(headers)?;
    let submission = read(&raw, key, callback_url)?;
    let (job_id, ended) = submit_and_wait(Arc::clone(&api.lane), submission).await;
    let mut response = match ended {
        Ok(record) => answer(record),
        Err(error) => Problem::from(error).into_response(Dialect::Glm),
    };
    if let Some(id) = job_id.and_then(|id| HeaderValue::try_from(id.to_string()).ok()) {
        response.headers_mut().insert(JOB_ID, id);
    }
    Ok(response)
}

fn callback_url(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(CALLBACK) else {
        return Ok(None);
    };
    value
        .to_str()
        .map_err(|_| "must be printable ASCII".to_owned())
        .and_then(|url| check_text(url.to_owned(), bounds::CALLBACK_URL_BYTES_MAX))
        .map(Some)
        .map_err(|problem| Problem::fault(Kind::InvalidHeader, CALLBACK, problem))
}

/// What the gateway itself reads of a chat body; the rest is GLM's.
#[derive(Deserialize)]
struct ChatHead {
    #[serde(default)]
    stream: Option<Value>,
    /// GLM's name for the end user.
    #[serde(default)]
    user_id: Option<Value>,
    /// OpenAI's.
    #[serde(default)]
    user: Option<Value>,
    /// A field of our jobs, which GLM would get as a parameter.
    #[serde(default, rename = "callbackUrl")]
    callback_url: Option<Value>,
}

/// A chat body as a job of the user that it names.
fn read(
    raw: &RawValue,
    key: Option<String>,
    callback_url: Option<String>,
) -> Result<Submission, Problem> {
    let request = Request::chat(raw.get()).map_err(refused)?;
    let head: ChatHead = serde_json::from_str(raw.get())
        .map_err(|error| Problem::new(Kind::InvalidBody, error.to_string()))?;
    match head.stream {
        None | Some(Value::Bool(false)) => {}
        Some(Value::Bool(true)) => {
            return Err(Problem::fault(
                Kind::StreamingUnavailable,
                "stream",
                "streaming is not available on this endpoint yet; leave it out or set it to false",
            ));
        }
        Some(_) => {
            return Err(Problem::fault(
                Kind::InvalidField,
                "stream",
                "must be a boolean",
            ));
        }
    }
    if head.callback_url.is_some() {
        let problem = format!("can't stand in a body that is GLM's; send the header {CALLBACK}");
        return Err(Problem::fault(Kind::InvalidField, "callbackUrl", problem));
    }
    let named = [("user_id", head.user_id), ("user", head.user)];
    let named = named.into_iter().find_map(|(name, id)| Some((name, id?)));
    let user_id = match named {
        None => DEFAULT_USER.to_owned(),
        Some((name, Value::String(id))) => check_text(id, bounds::USER_ID_CHARS_MAX)
            .map_err(|problem| Problem::fault(Kind::InvalidField, name, problem))?,
        Some((name, _)) => {
            return Err(Problem::fault(Kind::InvalidField, name, "must be a string"));
        }
    };
    Ok(Submission {
        request,
        model: None,
        user_id,
        content_id: None,
        priority: 0,
        max_retries: None,
        run_at: None,
        deadline: None,
        timeout_ms: None,
        idempotency_key: key,
        after: Vec::new(),
        on_interrupted: None,
        callback_url,
        metadata: None,
    })
}

fn refused(error: RequestError) -> Problem {
    let detail = error.to_string();
    match error {
        RequestError::NoMessages => Problem::fault(
            Kind::MissingField,
            "messages",
            "must be a list of at least one message",
        ),
        RequestError::BadModel => Problem::fault(Kind::InvalidField, "model", detail),
        RequestError::TooLarge { .. } => Problem::new(Kind::BodyTooLarge, detail),
        RequestError::EmptyPrompt | RequestError::NotAnObject(_) => {
            Problem::new(Kind::InvalidBody, detail)
        }
    }
}

/// Runs in a task of its own, so that a client that goes away at any moment, even before the job
/// has an id, leaves no job behind that nobody waits for.
async fn submit_and_wait(
    lane: Arc<dyn Lane>,
    submission: Submission,
) -> (Option<JobId>, Result<JobRecord, Error>) {
    let keeps_going = submission.idempotency_key.is_some();
    let (mut client, ended) = oneshot::channel();
    tokio::spawn(async move {
        let job_id = match lane.submit(submission).await {
            Ok(submitted) => submitted.job_id,
            Err(error) => {
                // Nobody left to tell, and no job to give up.
                let _ = client.send((None, Err(error)));
                return;
            }
        };
        tokio::select! {
            record = lane.wait(job_id) => {
                let _ = client.send((Some(job_id), record));
            }
            () = client.closed() => {
                if !keeps_going && let Err(error) = lane.cancel(job_id).await {
                    tracing::debug!(%job_id, %error, "a job whose client went away goes on");
                }
            }
        }
    });
    let lost = || Error::Stopped("the request was lost; ask again".to_owned());
    ended.await.unwrap_or_else(|_| (None, Err(lost())))
}

/// The answer that a job's end makes.
fn answer(record: JobRecord) -> Response {
    let job = record.job;
    let served_by = job.served_by.as_deref().map(HeaderValue::try_from);
    let mut response = match (job.status, record.response, job.error) {
        (JobStatus::Completed, Some(body), _) => {
            reply::json_bytes(StatusCode::OK, body.get().as_bytes().to_vec())
        }
        (JobStatus::Failed, _, Some(failure)) => failed(&failure),
        (JobStatus::Cancelled, ..) => {
            Problem::from(Error::JobCancelled(job.id)).into_response(Dialect::Glm)
        }
        _ if job.bodies_pruned => Problem::new(
            Kind::RequestPruned,
            format!(
                "the answer of job {} was pruned; ask again with a new idempotency key",
                job.id
            ),
        )
        .into_response(Dialect::Glm),
        _ => Problem::new(
            Kind::Internal,
            format!("job {} has ended without an answer", job.id),
        )
        .into_response(Dialect::Glm),
    };
    // A name that no header can carry stands in the body all the same.
    if let (JobStatus::Completed, Some(Ok(model))) = (job.status, served_by) {
        response.headers_mut().insert(MODEL, model);
    }
    response
}

/// A job that failed for good: GLM's own status and code where GLM gave them. The lane has retried
/// what is worth retrying, so SDKs are told not to.
fn failed(failure: &Failure) -> Response {
    let of_glm = failure
        .http_status
        .and_then(|status| StatusCode::from_u16(status).ok())
        .filter(|status| status.is_client_error() || status.is_server_error());
    let gateway = |status: StatusCode| of_glm.unwrap_or(status);
    let number = failure.code.strip_prefix("http_").unwrap_or(&failure.code);
    let (status, number) = match failure.code.as_str() {
        code::DEADLINE
        | code::TIMEOUT_CONNECT
        | code::TIMEOUT_FIRST_BYTE
        | code::TIMEOUT_IDLE
        | code::TIMEOUT_TOTAL => (StatusCode::GATEWAY_TIMEOUT, "1234"),
        code::CONNECTION => (StatusCode::BAD_GATEWAY, "1234"),
        code::REQUEST_INVALID => (StatusCode::BAD_REQUEST, "1210"),
        code::NO_API_KEY => (StatusCode::SERVICE_UNAVAILABLE, "1000"),
        _ if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => {
            (gateway(StatusCode::BAD_GATEWAY), number)
        }
        _ => (StatusCode::BAD_GATEWAY, "1200"),
    };
    let mut response = glm_error(status, number, &failure.message, None);
    response
        .headers_mut()
        .insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    response
}

#[cfg(test)]
mod tests {
    use onelane_core::model::FailureClass;

    use super::*;

    fn parse(json: &str) -> Result<Submission, Problem> {
        read(serde_json::from_str(json).unwrap(), None, None)
    }

    #[test]
    fn the_user_of_a_chat_is_the_user_of_the_job() {
        let check = |fields: &str, want: &str| {
            let json = format!(r#"{{"messages":[{{}}]{fields}}}"#);
            assert_eq!(parse(&json).unwrap().user_id, want, "{json}");
        };
        check("", "default");
        check(r#","user_id":"glm-user","user":"other""#, "glm-user");
        check(r#","user":"openai-user""#, "openai-user");
        check(r#","user_id":null,"user":null,"stream":null"#, "default");
    }

    #[test]
    fn a_callback_comes_by_header_and_never_in_the_body() {
        let mut headers = HeaderMap::new();
        assert_eq!(callback_url(&headers).unwrap(), None);
        let url = "https://example.com/hook";
        headers.insert("onelane-callback-url", HeaderValue::from_static(url));
        let callback = callback_url(&headers).unwrap();
        let chat = serde_json::from_str(r#"{"messages":[{}]}"#).unwrap();
        let job = read(chat, None, callback).unwrap();
        assert_eq!(job.callback_url.as_deref(), Some(url));
        let problem = parse(r#"{"messages":[{}],"callbackUrl":"https://example.com/"}"#);
        let problem = serde_json::to_value(problem.unwrap_err().body()).unwrap();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("Onelane-Callback-Url"), "{detail}");
    }

    #[test]
    fn a_chat_body_reaches_the_lane_to_the_byte() {
        let json = r#"{"model":"glm-5","messages":[{"role":"user","content":"hi"}],"stream":false,"top_p":0.90,"thinking":null}"#;
        let submission = parse(json).unwrap();
        assert!(matches!(submission.request, Request::Chat(raw) if raw.get() == json));
        assert_eq!(submission.model, None, "the body's own model counts");
    }

    #[test]
    fn a_failure_keeps_the_status_and_code_that_glm_gave() {
        let check = |code: &str, http_status: Option<u16>, want: u16| {
            let failure = Failure {
                http_status,
                ..Failure::new(FailureClass::ServerTransient, code, "m")
            };
            let response = failed(&failure);
            assert_eq!(response.status().as_u16(), want, "{code}");
            assert_eq!(response.headers()["x-should-retry"], "false");
        };
        check("1210", Some(400), 400);
        check("1234", Some(500), 500);
        check("1200", Some(200), 502);
        check("http_503", Some(503), 503);
        check(code::CONNECTION, None, 502);
        check(code::TIMEOUT_TOTAL, None, 504);
        check(code::DEADLINE, None, 504);
        check(code::QUARANTINED, None, 502);
        check("", None, 502);
    }
}
