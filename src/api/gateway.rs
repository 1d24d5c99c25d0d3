//! The routes that OpenAI, Anthropic and GLM SDKs know: a body of one of GLM's faces is submitted as a job, waited for
//! and answered verbatim. A program only changes its base URL.
//!
//! What becomes of a client that goes away, and of one that would wait too long, is decided in
//! `orchestrator/attend.rs`; a shutdown ends what has no `Idempotency-Key` before its 503, and so does the start after a
//! crash. With a key the client means to come back, and gets the same job.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use onelane_core::model::limits as bounds;
use onelane_core::model::{
    AnswerWhen, DEFAULT_USER, Envelope, Face, JobId, Needs, Request, RequestError,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use warp::http::HeaderName;

use super::answer::{Answer, Reply, Shapes};
use super::background::Asking;
use super::ended::{self, JOB};
use super::envelope::AnthropicErrorBody;
use super::granted::Said;
use super::input::{Ignored, Input, Need, Nothing, Payload};
use super::keepalive::Coming;
use super::problem::{Dialect, GlmErrorBody, Kind, Problem};
use super::request_id::RequestId;
use super::submission::{header_text, idempotency_key};
use super::{Api, keepalive, live, passed, responses};
use crate::error::Error;
use crate::orchestrator::attend::Attended;
use crate::orchestrator::clients::{Client, Print};
use crate::orchestrator::{Submission, Submitted};

/// Says which `request_id` GLM was sent, where that is not the one of the body.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-onelane-request-id");

/// Where the end of the job is to be told: the body is GLM's, and says nothing of ours.
pub(super) const CALLBACK: &str = "Onelane-Callback-Url";

/// A face, as a type: what endpoints are told apart by.
pub(super) trait Faced: Send + Sync + 'static {
    const FACE: Face;
}

macro_rules! faced {
    ($($name:ident)*) => {
        $(
            pub(super) struct $name;

            impl Faced for $name {
                const FACE: Face = Face::$name;
            }
        )*
    };
}

faced! { Chat Responses Messages Embeddings }

/// The body of a face, which is GLM's: taken verbatim.
pub(super) struct Call<F> {
    pub(super) submission: Submission,
    /// The digest of all its bytes.
    digest: [u8; 32],
    of: PhantomData<F>,
}

impl<F: Faced> Payload for Call<F> {
    const NEED: Need = Need::Required;
    type Reader = ();

    fn reader() {}

    fn schema() -> Value {
        let face = F::FACE;
        let subject = match face.needs() {
            Needs::List => json!({"type": "array", "minItems": 1, "items": {"type": "object"}}),
            Needs::Something => json!({"type": ["string", "array"]}),
            Needs::Nothing => json!({"type": ["string", "array", "null"]}),
        };
        let model = json!({"type": ["string", "null"], "minLength": 1, "maxLength": bounds::MODEL_CHARS_MAX});
        let mut properties = Map::new();
        properties.insert(face.subject().to_owned(), subject);
        properties.insert("model".to_owned(), model);
        if face.streams() {
            let stream = json!({"type": ["boolean", "null"],
                "description": "Whether the answer comes in pieces, as server-sent events."});
            properties.insert("stream".to_owned(), stream);
        }
        if face.envelope() == Envelope::Glm {
            for (name, about) in [
                ("user_id", "Whose job it is."),
                ("user", "OpenAI's name for it."),
            ] {
                let user = json!({"type": ["string", "null"], "minLength": 1,
                    "maxLength": bounds::USER_ID_CHARS_MAX, "description": about});
                properties.insert(name.to_owned(), user);
            }
        }
        properties.insert("callbackUrl".to_owned(), Value::Bool(false));
        let required: &[&str] = match face.needs() {
            Needs::Nothing => &[],
            Needs::List | Needs::Something => &[face.subject()],
        };
        json!({
            "title": format!("A body of {}, as GLM has it; it reaches GLM to the byte", face.name()),
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": true,
        })
    }

    fn read((): &(), body: Option<&RawValue>) -> Result<Self, Problem> {
        let raw = body.unwrap_or(RawValue::NULL);
        Ok(Self {
            submission: read(F::FACE, raw)?,
            digest: Sha256::digest(raw.get().as_bytes()).into(),
            of: PhantomData,
        })
    }
}

/// What came of a call.
pub(super) struct Answered<F> {
    job_id: Option<JobId>,
    reply: Reply,
    of: PhantomData<F>,
}

impl<F: Faced> Answered<F> {
    pub(super) const fn new(job_id: Option<JobId>, reply: Reply) -> Self {
        Self {
            job_id,
            reply,
            of: PhantomData,
        }
    }
}

impl<F: Faced> Answer for Answered<F> {
    fn reply(self) -> Reply {
        match self.job_id {
            Some(id) => self.reply.with(JOB, id),
            None => self.reply,
        }
    }

    fn describe(shapes: &mut Shapes<'_>) {
        shapes.json::<Map<String, Value>>("200", "GLM's answer, verbatim.");
        shapes.header("x-onelane-job", "The job of the answer.");
        ended::describe(shapes);
        if F::FACE.echoes() {
            shapes.header(
                "x-onelane-request-id",
                "The `request_id` that GLM was sent, where it is not the one of the body: that was used before, or is none that GLM takes.",
            );
        }
        if F::FACE.streams() {
            let about = "With `stream: true`: its events, to the byte.";
            shapes.events("200", about);
        }
        for status in ["4XX", "5XX"] {
            let about = "The job failed: GLM's own status and body, where GLM gave them.";
            match F::FACE.envelope() {
                Envelope::Glm => shapes.json::<GlmErrorBody>(status, about),
                Envelope::Anthropic => shapes.json::<AnthropicErrorBody>(status, about),
            }
            shapes.header(
                "x-should-retry",
                "`false`: asking again would end the same.",
            );
            shapes.header(
                "x-onelane-meaning",
                "What GLM's error means and what to do about it.",
            );
            shapes.header("x-onelane-job", "The job, if there is one.");
        }
    }
}

/// A call of a face, from its submission to its answer.
pub(super) async fn call<F: Faced>(
    api: Arc<Api>,
    input: Input<Nothing, Ignored, Call<F>>,
) -> Result<Answered<F>, Problem> {
    let key = idempotency_key(&input.headers)?;
    let callback_url = header_text(&input.headers, CALLBACK, bounds::CALLBACK_URL_BYTES_MAX)?;
    let mut submission = Submission {
        idempotency_key: key,
        callback_url,
        headers: passed::read(F::FACE, &input.headers)?,
        trace: api.parent_in(&input.headers),
        ..input.body.submission
    };
    Said::read(&input.headers)?.prevail(&mut submission);
    let mut place = api.grant(&input.principal, std::slice::from_mut(&mut submission))?;
    let digest = input.body.digest;
    if responses::is_in_background(&submission.request) {
        let asking = Asking {
            principal: &input.principal,
            request: input.id,
        };
        return responses::begin(&api, asking, submission, place).await;
    }
    let named = Named {
        is_there: submission.request.names_itself(),
        id: submission.request.request_id(),
    };
    let streams = submission.request.streams();
    let settings = api.lane.settings().gateway;
    let client = Client {
        streams,
        early: settings.answer == AnswerWhen::Relay,
        // A key says who comes back.
        print: submission.idempotency_key.is_none().then(|| {
            let key = submission.key_id.map(|id| id.to_string());
            let who = key.unwrap_or_default();
            // What headers said makes another request of the same body.
            let said = format!(
                "{:?}",
                (
                    &submission.user_id,
                    &submission.session,
                    submission.priority,
                    &submission.headers
                )
            );
            let parts = [F::FACE.name(), &who, &said].map(str::as_bytes);
            let [face, who, said] = parts;
            Print::of(&[face, who, said, &digest])
        }),
        presence: input.presence,
        max_wait: Some(Duration::from_millis(settings.max_wait_ms)),
        on_disconnect: input.principal.on_disconnect(settings.on_disconnect),
        reattach: Duration::from_millis(settings.reattach_ms),
        reattach_streaming: Duration::from_millis(settings.reattach_streaming_ms),
    };
    let called = Called {
        face: F::FACE,
        streams,
        named,
        keepalive: api.keepalive(),
        request: input.id.clone(),
    };
    let memory = input.memory;
    let on_disk = move |submitted: Submitted| {
        place.used(usize::from(submitted.created));
        drop(memory);
    };
    if !streams || called.keepalive.is_zero() {
        let attended = api.lane.attend(submission, client, on_disk).await;
        return Ok(Answered::new(None, called.told(attended)));
    }
    let every = called.keepalive;
    let mut coming = Coming::new();
    coming.spawn(async move {
        let attended = api.lane.attend(submission, client, on_disk).await;
        called.told(attended)
    });
    // What is refused soon is refused with its status.
    let reply = match tokio::time::timeout(every, coming.join_next()).await {
        Ok(Some(Ok(reply))) => reply,
        Ok(_) => {
            let lost = Error::Stopped("the question was lost; ask again".to_owned());
            return Err(lost.into());
        }
        Err(_) => keepalive::meanwhile(F::FACE, coming, every, input.id),
    };
    Ok(Answered::new(None, reply))
}

/// The `request_id` of a body.
struct Named {
    is_there: bool,
    /// `None`: it is no text.
    id: Option<String>,
}

impl Named {
    /// Says which one GLM was sent, where it is another.
    fn tell(&self, reply: Reply, sent: &str) -> Reply {
        match self.is_there && self.id.as_deref() != Some(sent) {
            true => reply.with(REQUEST_ID, sent),
            false => reply,
        }
    }
}

/// A call that is waited for.
struct Called {
    face: Face,
    streams: bool,
    named: Named,
    /// Comments in its stream so often; zero: none.
    keepalive: Duration,
    request: RequestId,
}

impl Called {
    /// What its client is told.
    fn told(self, attended: Attended) -> Reply {
        let (job_id, ended) = match attended {
            Attended::Begun(begun) => {
                let head = Arc::clone(&begun.head);
                let reply = live::reply(self.face, begun, self.keepalive, self.request);
                return self.named.tell(reply, head.request_id.as_str());
            }
            Attended::Ended(job_id, ended) => (job_id, *ended),
        };
        let reply = match ended {
            Ok(ending) => {
                let job = &ending.job;
                let reply = ended::answer(&ending, self.streams, &self.request);
                let reply = ended::told(reply, job, ending.call.as_ref());
                let sent = job.request_id(job.attempts);
                self.named.tell(reply, sent.as_str())
            }
            Err(error) => Problem::from(error).reply(Dialect::of_face(self.face), &self.request),
        };
        match job_id {
            Some(id) => reply.with(JOB, id),
            None => reply,
        }
    }
}

/// What the gateway itself reads of a body; the rest is GLM's.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(default, borrow)]
    stream: Option<&'a RawValue>,
    /// GLM's name for the end user.
    #[serde(default, borrow)]
    user_id: Option<&'a RawValue>,
    /// OpenAI's.
    #[serde(default, borrow)]
    user: Option<&'a RawValue>,
    /// Where Anthropic has it.
    #[serde(default, borrow)]
    metadata: Option<&'a RawValue>,
    /// A field of our jobs, which GLM would get as a parameter.
    #[serde(default, borrow, rename = "callbackUrl")]
    callback_url: Option<&'a RawValue>,
}

/// A body as a job of the user that it names.
pub(super) fn read(face: Face, raw: &RawValue) -> Result<Submission, Problem> {
    let request = Request::body(face, raw.get()).map_err(refused)?;
    let head: Head<'_> = serde_json::from_str(raw.get())
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
    let user_id = match face.envelope() {
        Envelope::Glm => user_of(&head)?,
        Envelope::Anthropic => head.metadata.and_then(user_in),
    };
    Ok(Submission {
        user_id: user_id.unwrap_or_else(|| DEFAULT_USER.to_owned()),
        ..Submission::new(request)
    })
}

/// The user that a body names at its top.
fn user_of(head: &Head<'_>) -> Result<Option<String>, Problem> {
    let named = [("user_id", head.user_id), ("user", head.user)];
    let named = named.into_iter().find_map(|(name, id)| Some((name, id?)));
    let Some((name, id)) = named else {
        return Ok(None);
    };
    let wrong = |problem: String| Problem::of_field(Kind::InvalidField, name, problem);
    let id: String =
        serde_json::from_str(id.get()).map_err(|_| wrong("must be a string".to_owned()))?;
    let max = bounds::USER_ID_CHARS_MAX;
    if id.is_empty() || id.chars().count() > max {
        return Err(wrong(format!("must be a string of 1 to {max} characters")));
    }
    Ok(Some(id))
}

/// The user in Anthropic's `metadata`: coding agents make theirs of account and session, longer than ours may be.
fn user_in(metadata: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Metadata {
        user_id: String,
    }
    let metadata: Metadata = serde_json::from_str(metadata.get()).ok()?;
    let id = metadata.user_id.chars().take(bounds::USER_ID_CHARS_MAX);
    Some(id.collect()).filter(|id: &String| !id.is_empty())
}

fn refused(error: RequestError) -> Problem {
    let detail = error.to_string();
    match error {
        RequestError::NoMessages => Problem::of_field(
            Kind::MissingField,
            "messages",
            "must be a list of at least one message",
        ),
        RequestError::NoInput => Problem::of_field(
            Kind::MissingField,
            "input",
            "must be a text or a list, with something in it",
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

#[cfg(test)]
mod tests {
    use warp::http::{HeaderMap, HeaderValue};

    use super::*;

    fn parse(json: &str) -> Result<Submission, Problem> {
        read(Face::Chat, serde_json::from_str(json).unwrap())
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
    fn the_user_of_a_message_stands_in_its_metadata_and_may_be_long() {
        let user = |metadata: &str| {
            let json = format!(r#"{{"messages":[{{}}],"user":7,"metadata":{metadata}}}"#);
            read(Face::Messages, serde_json::from_str(&json).unwrap())
                .unwrap()
                .user_id
        };
        assert_eq!(user(r#"{"user_id":"agent"}"#), "agent");
        assert_eq!(
            user(&format!(r#"{{"user_id":"{}"}}"#, "x".repeat(300))).len(),
            128
        );
        for none in ["null", "{}", "[]", r#"{"user_id":""}"#, r#"{"user_id":7}"#] {
            assert_eq!(user(none), "default", "{none}");
        }
    }

    #[test]
    fn a_callback_comes_by_header_and_never_in_the_body() {
        let mut headers = HeaderMap::new();
        let of = |headers: &HeaderMap| header_text(headers, CALLBACK, 100).unwrap();
        assert_eq!(of(&headers), None);
        let url = "https://example.com/hook";
        headers.insert("onelane-callback-url", HeaderValue::from_static(url));
        assert_eq!(of(&headers).as_deref(), Some(url));
        let problem = parse(r#"{"messages":[{}],"callbackUrl":"https://example.com/"}"#);
        let problem = serde_json::to_value(problem.unwrap_err().body()).unwrap();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("Onelane-Callback-Url"), "{detail}");
    }

    #[test]
    fn a_body_reaches_the_lane_to_the_byte() {
        let json = r#"{"model":"glm-5","messages":[{"role":"user","content":"hi"}],"stream":false,"top_p":0.90,"thinking":null}"#;
        for face in [Face::Chat, Face::Messages] {
            let submission = read(face, serde_json::from_str(json).unwrap()).unwrap();
            assert!(
                matches!(submission.request, Request::Body(of, raw) if of == face && raw.get() == json)
            );
            assert_eq!(submission.model, None, "the body's own model counts");
        }
    }
}
