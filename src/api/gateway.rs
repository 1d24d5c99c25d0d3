//! The routes that OpenAI and GLM SDKs know: a chat completion is submitted as a job, waited for and
//! answered verbatim. A program only changes its base URL.
//!
//! What becomes of a client that goes away, and of one that would wait too long, is decided in
//! `orchestrator/attend.rs`; a shutdown ends what has no `Idempotency-Key` before its 503, and so does the start after a
//! crash. With a key the client means to come back, and gets the same job.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use onelane_actors::ports::JobRecord;
use onelane_core::model::limits as bounds;
use onelane_core::model::{
    DEFAULT_USER, Face, Failure, FailureClass, JobId, JobStatus, Received, Request, RequestError,
    code, model_name,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use warp::http::{HeaderName, StatusCode};

use super::Api;
use super::answer::{Answer, JSON, Json, Reply, Shapes};
use super::granted::Said;
use super::input::{Ignored, Input, Need, Nothing, Payload};
use super::live;
use super::principal::Principal;
use super::problem::{Dialect, GlmErrorBody, Kind, Problem, SHOULD_RETRY, glm_error};
use super::submission::{header_text, idempotency_key};
use crate::error::Error;
use crate::glm::{ErrorTable, events_of};
use crate::orchestrator::Submission;
use crate::orchestrator::attend::Attended;
use crate::orchestrator::clients::{Client, Print};

/// Says which job an answer belongs to.
pub(super) const JOB_ID: HeaderName = HeaderName::from_static("x-onelane-job-id");

/// Says which fallback model served it, when its own did not.
pub(super) const MODEL: HeaderName = HeaderName::from_static("x-onelane-model");

/// Says which attempt of the job it is that answers.
pub(super) const ATTEMPTS: HeaderName = HeaderName::from_static("x-onelane-attempts");

/// Says in English what GLM's error means and what to do about it: its body comes as GLM wrote it.
const MEANING: HeaderName = HeaderName::from_static("x-onelane-meaning");

/// Says which `request_id` GLM was sent, where that is not the one of the body.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-onelane-request-id");

/// Where the end of the job is to be told: the body is GLM's, and says nothing of ours.
pub(super) const CALLBACK: &str = "Onelane-Callback-Url";

/// A chat body, which is GLM's: taken verbatim.
pub(super) struct Chat {
    pub(super) submission: Submission,
    /// The digest of all its bytes.
    digest: [u8; 32],
}

impl Payload for Chat {
    const NEED: Need = Need::Required;
    type Reader = ();

    fn reader() {}

    fn schema() -> Value {
        serde_json::json!({
            "title": "A chat body, as GLM and OpenAI have it; it reaches GLM to the byte",
            "type": "object",
            "properties": {
                "messages": {"type": "array", "minItems": 1, "items": {"type": "object"}},
                "model": {"type": ["string", "null"], "minLength": 1,
                    "maxLength": bounds::MODEL_CHARS_MAX},
                "stream": {"type": ["boolean", "null"],
                    "description": "Whether the answer comes in pieces, as server-sent events."},
                "user_id": {"type": ["string", "null"], "minLength": 1,
                    "maxLength": bounds::USER_ID_CHARS_MAX, "description": "Whose job it is."},
                "user": {"type": ["string", "null"], "minLength": 1,
                    "maxLength": bounds::USER_ID_CHARS_MAX, "description": "OpenAI's name for it."},
                "callbackUrl": false,
            },
            "required": ["messages"],
            "additionalProperties": true,
        })
    }

    fn read((): &(), body: Option<&RawValue>) -> Result<Self, Problem> {
        let raw = body.unwrap_or(RawValue::NULL);
        Ok(Self {
            submission: read(raw, None, None)?,
            digest: Sha256::digest(raw.get().as_bytes()).into(),
        })
    }
}

/// With what the code of a completion that is a failure begins.
pub(super) const FINISH: &str = "finish:";

/// What came of a chat.
pub(super) struct Completion {
    job_id: Option<JobId>,
    reply: Reply,
}

impl Answer for Completion {
    fn reply(self) -> Reply {
        match self.job_id {
            Some(id) => self.reply.with(JOB_ID, id),
            None => self.reply,
        }
    }

    fn describe(shapes: &mut Shapes<'_>) {
        shapes.json::<Map<String, Value>>("200", "GLM's answer, verbatim.");
        shapes.header("x-onelane-job-id", "The job of the answer.");
        shapes.header(
            "x-onelane-model",
            "The fallback model that served it, if one did.",
        );
        shapes.header(
            "x-onelane-attempts",
            "Of a stream: the attempt that answers.",
        );
        shapes.header(
            "x-onelane-request-id",
            "The `request_id` that GLM was sent, where it is not the one of the body: that was used before.",
        );
        for status in ["4XX", "5XX"] {
            let about = "The job failed: GLM's own status and body, where GLM gave them.";
            shapes.json::<GlmErrorBody>(status, about);
            shapes.header(
                "x-should-retry",
                "`false`: asking again would end the same.",
            );
            shapes.header(
                "x-onelane-meaning",
                "What GLM's error means and what to do about it.",
            );
            shapes.header("x-onelane-job-id", "The job, if there is one.");
        }
    }
}

/// `POST .../chat/completions`.
pub(super) async fn chat_completions(
    api: Arc<Api>,
    input: Input<Nothing, Ignored, Chat>,
) -> Result<Completion, Problem> {
    let key = idempotency_key(&input.headers)?;
    let callback_url = header_text(&input.headers, CALLBACK, bounds::CALLBACK_URL_BYTES_MAX)?;
    let mut submission = Submission {
        idempotency_key: key,
        callback_url,
        ..input.body.submission
    };
    Said::read(&input.headers)?.prevail(&mut submission);
    let one = std::iter::once(&mut submission);
    api.grant(&input.principal, Face::Chat, one)?;
    let named = submission.request.request_id();
    let streams = submission.request.streams();
    let settings = api.lane.settings().gateway;
    let client = Client {
        streams,
        // A key says who comes back.
        print: submission.idempotency_key.is_none().then(|| {
            let key = submission.key_id.map(|id| id.to_string());
            let who = key.unwrap_or_default();
            Print::of(&[b"chat", who.as_bytes(), &input.body.digest])
        }),
        presence: input.presence,
        max_wait: Some(Duration::from_millis(settings.max_wait_ms)),
        on_disconnect: input.principal.on_disconnect(settings.on_disconnect),
        reattach: Duration::from_millis(settings.reattach_ms),
        reattach_streaming: Duration::from_millis(settings.reattach_streaming_ms),
    };
    let (job_id, ended) = match api.lane.attend(submission, client, input.memory).await {
        Attended::Begun(begun) => {
            return Ok(Completion {
                job_id: None,
                reply: live::reply(begun),
            });
        }
        Attended::Ended(job_id, ended) => (job_id, *ended),
    };
    let reply = match ended {
        Ok(record) => {
            let sent = record.job.request_id(record.job.attempts);
            let reply = answer(record, streams);
            match named {
                Some(named) if named != sent.as_str() => reply.with(REQUEST_ID, sent),
                _ => reply,
            }
        }
        Err(error) => Problem::from(error).reply(Dialect::Glm),
    };
    Ok(Completion { job_id, reply })
}

/// A model, as OpenAI lists them.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Model")]
pub(super) struct ModelCard {
    id: String,
    /// Always `model`.
    object: &'static str,
    /// Seconds since 1970; not known.
    created: i64,
    owned_by: &'static str,
}

impl ModelCard {
    fn of(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            object: "model",
            created: 0,
            owned_by: "zhipuai",
        }
    }
}

/// The models, as OpenAI lists them.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Models")]
pub(super) struct ModelList {
    /// Always `list`.
    object: &'static str,
    data: Vec<ModelCard>,
}

/// Those that have a price, and the one that is taken for a chat that names none; for a client key those that it may
/// ask for.
fn models(api: &Api, principal: &Principal) -> BTreeSet<String> {
    let settings = api.lane.settings();
    let priced = settings.prices.models().map(str::to_owned);
    let usual = model_name::canonical(&settings.glm.model).into_owned();
    let is_open = |model: &String| {
        let key = principal.key();
        key.is_none_or(|key| key.rights.has_model(&model_name::canonical(model)))
    };
    priced.chain([usual]).filter(is_open).collect()
}

/// `GET .../models`.
pub(super) async fn list_models(
    api: Arc<Api>,
    input: Input<Nothing, Ignored>,
) -> Result<Json<ModelList>, Problem> {
    let models = models(&api, &input.principal);
    Ok(Json(ModelList {
        object: "list",
        data: models.iter().map(|id| ModelCard::of(id)).collect(),
    }))
}

/// One model.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelPath {
    /// Its name.
    model: String,
}

/// `GET .../models/{model}`.
pub(super) async fn read_model(
    api: Arc<Api>,
    input: Input<ModelPath, Ignored>,
) -> Result<Json<ModelCard>, Problem> {
    let name = input.path.model;
    match models(&api, &input.principal).get(&*model_name::canonical(&name)) {
        Some(id) => Ok(Json(ModelCard::of(id))),
        None => {
            let problem = format!("{name:?} is none of the models that have a price here");
            Err(Problem::new(Kind::UnknownModel, problem))
        }
    }
}

/// What the gateway itself reads of a chat body; the rest is GLM's.
#[derive(Deserialize)]
struct ChatHead<'a> {
    #[serde(default, borrow)]
    stream: Option<&'a RawValue>,
    /// GLM's name for the end user.
    #[serde(default, borrow)]
    user_id: Option<&'a RawValue>,
    /// OpenAI's.
    #[serde(default, borrow)]
    user: Option<&'a RawValue>,
    /// A field of our jobs, which GLM would get as a parameter.
    #[serde(default, borrow, rename = "callbackUrl")]
    callback_url: Option<&'a RawValue>,
}

/// A chat body as a job of the user that it names.
fn read(
    raw: &RawValue,
    key: Option<String>,
    callback_url: Option<String>,
) -> Result<Submission, Problem> {
    let request = Request::chat(raw.get()).map_err(refused)?;
    let head: ChatHead<'_> = serde_json::from_str(raw.get())
        .map_err(|error| Problem::new(Kind::InvalidBody, error.to_string()))?;
    match head.stream.map(RawValue::get) {
        None | Some("false" | "true" | "null") => {}
        Some(_) => {
            return Err(Problem::of_field(
                Kind::InvalidField,
                "stream",
                "must be a boolean",
            ));
        }
    }
    if head.callback_url.is_some() {
        let problem = format!("can't stand in a body that is GLM's; send the header {CALLBACK}");
        return Err(Problem::of_field(
            Kind::InvalidField,
            "callbackUrl",
            problem,
        ));
    }
    let named = [("user_id", head.user_id), ("user", head.user)];
    let named = named.into_iter().find_map(|(name, id)| Some((name, id?)));
    let user_id = match named {
        None => DEFAULT_USER.to_owned(),
        Some((name, id)) => match serde_json::from_str::<String>(id.get()) {
            Ok(id) => {
                let max = bounds::USER_ID_CHARS_MAX;
                if id.is_empty() || id.chars().count() > max {
                    let problem = format!("must be a string of 1 to {max} characters");
                    return Err(Problem::of_field(Kind::InvalidField, name, problem));
                }
                id
            }
            Err(_) => {
                return Err(Problem::of_field(
                    Kind::InvalidField,
                    name,
                    "must be a string",
                ));
            }
        },
    };
    Ok(Submission {
        user_id,
        idempotency_key: key,
        callback_url,
        ..Submission::new(request)
    })
}

fn refused(error: RequestError) -> Problem {
    let detail = error.to_string();
    match error {
        RequestError::NoMessages => Problem::of_field(
            Kind::MissingField,
            "messages",
            "must be a list of at least one message",
        ),
        RequestError::BadModel => Problem::of_field(Kind::InvalidField, "model", detail),
        RequestError::GivenTwice(name) => {
            Problem::of_field(Kind::InvalidField, &name, "is given twice; give it once")
        }
        RequestError::TooLarge { .. } => Problem::new(Kind::BodyTooLarge, detail),
        RequestError::EmptyPrompt
        | RequestError::TooMany { .. }
        | RequestError::NotAnObject(_)
        | RequestError::HalfACharacter(_) => Problem::new(Kind::InvalidBody, detail),
    }
}

/// The answer that a job's end makes.
fn answer(record: JobRecord, streams: bool) -> Reply {
    let job = record.job;
    let refusal = record.refusal.as_deref();
    match (job.status, record.response, job.error) {
        (JobStatus::Completed, Some(body), _) => {
            let reply = completion(&body, streams);
            match job.served_by {
                // A name that no header can carry stands in the body all the same.
                Some(model) => reply.with(MODEL, model),
                None => reply,
            }
        }
        (JobStatus::Failed, _, Some(failure)) => failed(&failure, refusal, streams),
        (JobStatus::Cancelled, ..) => {
            Problem::from(Error::JobCancelled(job.id)).reply(Dialect::Glm)
        }
        _ if job.bodies_pruned => Problem::new(
            Kind::RequestPruned,
            format!(
                "the answer of job {} was pruned; ask again with a new idempotency key",
                job.id
            ),
        )
        .reply(Dialect::Glm),
        _ => Problem::new(
            Kind::Internal,
            format!("job {} has ended without an answer", job.id),
        )
        .reply(Dialect::Glm),
    }
}

/// What GLM sent, to the byte and of the type that it says.
fn verbatim(status: StatusCode, came: &Received) -> Reply {
    let reply = Reply::text(status, JSON, came.bytes().to_vec());
    match came.content_type() {
        Some(named) => reply.of_type(named.to_owned()),
        None if came.json().is_some() => reply,
        None => reply.of_type("text/plain; charset=utf-8"),
    }
}

/// A job that failed for good: GLM's own status and body where GLM gave them. A completion that is a failure (cut by
/// moderation, for one) is the 200 that it was. The lane has retried what is worth retrying, so SDKs are told not to;
/// and since many ask again after any 5xx, what would end the same is none.
fn failed(failure: &Failure, refusal: Option<&Received>, streams: bool) -> Reply {
    let table = ErrorTable::shipped();
    let is_completion = failure.code.starts_with(FINISH);
    if let Some(body) = refusal.filter(|_| is_completion) {
        let streamed = body.json().filter(|_| streams);
        return match streamed {
            Some(json) => completion(json, streams),
            None => verbatim(StatusCode::OK, body),
        };
    }
    let (status, code) = stated(failure);
    let is_error_of_glm =
        table.own_row(&failure.code).is_none() && failure.code != code::TASK_FAILED;
    let is_refusal = failure.status_code.and_then(refuses).is_some();
    // A body that broke off, or one of a redirect, tells a client less than its status in GLM's form.
    let passes =
        |came: &&Received| is_error_of_glm && !came.is_begun() && (is_refusal || came.is_object());
    let reply = match refusal.filter(passes) {
        Some(body) => {
            let meaning = table.explanation(&failure.code, failure.class);
            verbatim(status, body).with(MEANING, meaning)
        }
        None => glm_error(status, code, &failure.message, None),
    };
    reply.with(SHOULD_RETRY, false)
}

/// A completion as it came, or as the events of a stream.
fn completion(body: &RawValue, streams: bool) -> Reply {
    let events = streams.then(|| events_of(body.get())).flatten();
    match events {
        Some(events) => live::whole(events),
        None => Reply::text(StatusCode::OK, JSON, body.get().as_bytes().to_vec()),
    }
}

/// A status that says that something is wrong.
fn refuses(status: u16) -> Option<StatusCode> {
    let status = StatusCode::from_u16(status).ok()?;
    (status.is_client_error() || status.is_server_error()).then_some(status)
}

/// The status and the code by which a client is told of a failure.
pub(super) fn stated(failure: &Failure) -> (StatusCode, &str) {
    let table = ErrorTable::shipped();
    let row = table.row(&failure.code);
    let of_glm = failure.status_code.and_then(refuses);
    let of_code = row.and_then(|row| row.http_status).and_then(refuses);
    let under_success = failure.status_code.is_some();
    let own = match failure.class {
        FailureClass::RequestFatal => StatusCode::BAD_REQUEST,
        // GLM said 200 and sent no completion.
        _ if under_success => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::BAD_GATEWAY,
    };
    let status = of_glm.or(of_code).unwrap_or(own);
    // An answer had begun: for a client that asks again after a 5xx it would be bought again.
    let lost = |status| match failure.is_unread() {
        true => StatusCode::UNPROCESSABLE_ENTITY,
        false => status,
    };
    let code = failure.code.strip_prefix("http_").unwrap_or(&failure.code);
    match failure.code.as_str() {
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
        code::REQUEST_INVALID => (StatusCode::BAD_REQUEST, "1210"),
        code::NO_API_KEY => (StatusCode::SERVICE_UNAVAILABLE, "1000"),
        "" => (status, "1200"),
        _ => (status, code),
    }
}

#[cfg(test)]
mod tests {
    use warp::http::{HeaderMap, HeaderValue};

    use crate::views::tests::sample;

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
        let of = |headers: &HeaderMap| header_text(headers, CALLBACK, 100).unwrap();
        assert_eq!(of(&headers), None);
        let url = "https://example.com/hook";
        headers.insert("onelane-callback-url", HeaderValue::from_static(url));
        let callback = of(&headers);
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

    fn header(reply: &Reply, name: HeaderName) -> Option<&HeaderValue> {
        let found = reply.headers.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value)
    }

    #[test]
    fn an_answer_says_which_fallback_model_served_it() {
        let mut record = sample::completed(1);
        assert_eq!(
            header(&answer(record.clone(), false), MODEL),
            None,
            "its own"
        );
        record.job.served_by = Some("glm-4.5-air".to_owned());
        let reply = answer(record, false);
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(header(&reply, MODEL).unwrap(), "glm-4.5-air");
    }

    #[test]
    fn a_job_that_was_cancelled_says_so() {
        let mut record = sample::waiting(1);
        record.job.status = JobStatus::Cancelled;
        let reply = answer(record, false);
        assert_eq!(reply.status, StatusCode::CONFLICT);
        assert_eq!(header(&reply, SHOULD_RETRY).unwrap(), "false");
    }

    fn told(class: FailureClass, code: &str, status_code: Option<u16>, body: &str) -> Reply {
        let failure = Failure {
            status_code,
            ..Failure::new(class, code, "m")
        };
        let came = (!body.is_empty()).then(|| Received::new(body.as_bytes(), None));
        failed(&failure, came.as_ref(), false)
    }

    #[test]
    fn a_known_status_is_never_lost_and_a_permanent_fault_never_a_5xx() {
        use FailureClass::{RequestFatal, ServerTransient, Throttle};
        let check = |class, code: &str, status_code: Option<u16>, want: u16| {
            let reply = told(class, code, status_code, "");
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
    fn an_error_body_passes_to_the_byte_and_its_meaning_beside_it() {
        use FailureClass::RequestFatal;
        let sensitive = r#"{"contentFilter":[{"level":1,"role":"user"}],"error":{"code":"1301","message":"系统检测到输入"}}"#;
        let detail = r#"{ "detail" : [{"loc":["body"],"msg":"no"}] }"#;
        for (code, status, body) in [
            ("1301", 400, sensitive),
            ("http_422", 422, detail),
            ("context_length_exceeded", 400, r#"{"error":{"type":"x"}}"#),
        ] {
            let reply = told(RequestFatal, code, Some(status), body);
            assert_eq!(reply.status.as_u16(), status);
            let meaning = header(&reply, MEANING).unwrap().to_str().unwrap();
            assert!(meaning.is_ascii() && !meaning.is_empty(), "{meaning}");
            assert_eq!(reply.into_bytes(), body.as_bytes(), "{code}");
        }
        // What GLM did not say is told in GLM's form.
        let reply = told(
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
            let reply = told(FailureClass::RequestFatal, code, Some(200), body);
            assert_eq!(reply.status, StatusCode::OK);
            assert_eq!(header(&reply, SHOULD_RETRY), None);
            assert_eq!(reply.into_bytes(), body.as_bytes());
        }
    }
}
