//! A job in JSON: one dialect for the lines of a file and for `POST /api/glm/jobs`. Our fields and GLM's known
//! parameters stand flat beside one another; what is neither is refused, with the name that was probably meant,
//! unless it stands in `parameters`, which go to GLM as they are.

mod written;

use onelane_core::model::limits as bounds;
use onelane_core::model::{
    Face, HalfACharacter, JobId, OnInterrupted, Request, RequestError, SessionId, Timestamp,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::check::{self, join};
use super::input::{Reader, schema_of};
use super::limits;
use super::problem::{Faults, FieldError};
use crate::object::Object;

pub use written::written;

/// GLM's known parameters beside `model` and `messages`, which stand flat, with a word on each.
const PARAMETERS: [(&str, &str); 19] = [
    ("temperature", "GLM's parameter, 0 to 1."),
    ("top_p", "GLM's parameter, 0.01 to 1."),
    (
        "max_tokens",
        "GLM's parameter: the most tokens of the answer.",
    ),
    (
        "do_sample",
        "GLM's parameter: false ignores `temperature` and `top_p`.",
    ),
    ("stop", "GLM's parameter: words that end the answer."),
    ("seed", "GLM's parameter."),
    ("tools", "GLM's parameter: what the model may call."),
    ("tool_choice", "GLM's parameter; it takes `auto`."),
    ("tool_stream", "GLM's parameter; it is for streams."),
    (
        "response_format",
        "GLM's parameter, such as {\"type\": \"json_object\"}.",
    ),
    (
        "thinking",
        "GLM's parameter, such as {\"type\": \"disabled\"}.",
    ),
    (
        "reasoning_effort",
        "GLM's parameter: low, high or max, and more for older models.",
    ),
    (
        "user_id",
        "GLM's parameter: the end user, as GLM is told. Whose job it is says `userId`.",
    ),
    (
        "request_id",
        "GLM's parameter. The lane sends an id of its own for each call.",
    ),
    (
        "stream",
        "A stored job is not streamed: false, or left out.",
    ),
    ("stream_options", "GLM's parameter; it is for streams."),
    ("meta", "GLM's parameter."),
    ("sensitive_word_check", "GLM's parameter."),
    ("watermark_enabled", "GLM's parameter."),
];

/// The submitter's own name of a job, which may be a number too.
const OWN_NAMES: [(&str, &str); 2] = [
    (
        "id",
        "The submitter's own name of it, a string or a number: kept as `contentId` where none is given. In a file it \
         is the name of the line's result.",
    ),
    ("custom_id", "The same in the batch form."),
];

/// A job to be submitted: a `prompt`, `messages`, or a whole body as `request` or, in the batch form of OpenAI
/// and GLM, as `body`. GLM's parameters stand beside a prompt or messages.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
// GLM's parameters are no fields of it: they go on as they came.
#[schemars(extend("additionalProperties" = false))]
pub(super) struct NewJob {
    /// One message of a user.
    #[schemars(length(min = 1))]
    prompt: Option<String>,
    /// The messages of a chat, verbatim.
    #[schemars(with = "Option<Vec<Value>>", length(min = 1))]
    messages: Option<Box<RawValue>>,
    /// More parameters for GLM, whatever their names, verbatim.
    #[schemars(with = "Option<Map<String, Value>>")]
    parameters: Option<Box<RawValue>>,
    /// The face of GLM that it is for: a chat without it. Any other has its whole body as `request` or `body`.
    face: Option<Face>,
    /// A whole body of its face, verbatim.
    #[schemars(with = "Option<Map<String, Value>>")]
    request: Option<Box<RawValue>>,
    /// The same in the batch form.
    #[schemars(with = "Option<Map<String, Value>>")]
    body: Option<Box<RawValue>>,
    /// In the batch form: `POST`.
    method: Option<String>,
    /// In the batch form: the path of its face, such as `/v1/chat/completions`.
    url: Option<String>,
    /// Without it the body's own, else the one that is configured.
    #[schemars(length(min = 1, max = bounds::MODEL_CHARS_MAX))]
    model: Option<String>,
    /// Whose job it is; `default` without it.
    #[schemars(length(min = 1, max = bounds::USER_ID_CHARS_MAX))]
    user_id: Option<String>,
    /// What it is about, in the submitter's own terms.
    #[schemars(length(min = 1, max = bounds::CONTENT_ID_CHARS_MAX))]
    content_id: Option<String>,
    /// The session that it is a call of: of one conversation, say.
    session: Option<SessionId>,
    /// Higher is more urgent; 0 without it.
    priority: Option<i32>,
    /// How often a failure of the transient kind is retried.
    #[schemars(range(min = 0, max = bounds::MAX_RETRIES_MAX))]
    max_retries: Option<u32>,
    /// Not before this moment.
    run_at: Option<Timestamp>,
    /// Fails if not done by this moment.
    deadline: Option<Timestamp>,
    /// The total time of one call, in milliseconds.
    #[schemars(range(min = 1, max = limits::CALL_TIMEOUT_MS_MAX))]
    timeout: Option<u64>,
    /// The jobs that have to be completed before it runs; it fails or is cancelled with them.
    #[schemars(length(max = bounds::AFTER_JOBS_MAX))]
    after: Option<Vec<JobId>>,
    /// What becomes of it when its call is interrupted; as configured without it.
    on_interrupted: Option<OnInterrupted>,
    /// Where its end is told; only hosts that the operator allows.
    #[schemars(length(min = 1, max = bounds::CALLBACK_URL_BYTES_MAX))]
    callback_url: Option<String>,
    /// The same key of the same user with the same request gives the same job.
    #[schemars(length(min = 1, max = bounds::IDEMPOTENCY_KEY_CHARS_MAX))]
    idempotency_key: Option<String>,
    /// Any JSON of the submitter's own, kept as it came.
    metadata: Option<Box<RawValue>>,
}

/// A job as somebody wrote it. What they left open is `None`.
#[derive(Debug)]
pub struct Asked {
    /// Their own name of it.
    pub id: Option<String>,
    /// The prompt or body.
    pub request: Request,
    /// The model, if it stands outside the chat body.
    pub model: Option<String>,
    /// Whose job it is.
    pub user_id: Option<String>,
    /// What it is about.
    pub content_id: Option<String>,
    /// The session that it is a call of.
    pub session: Option<SessionId>,
    /// How urgent it is.
    pub priority: Option<i32>,
    /// Retries of transient failures.
    pub max_retries: Option<u32>,
    /// Not before this moment.
    pub run_at: Option<Timestamp>,
    /// It fails if it is not done by this moment.
    pub deadline: Option<Timestamp>,
    /// The total time of one call, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// The jobs that have to be completed before it runs.
    pub after: Vec<JobId>,
    /// What becomes of it when its call is interrupted.
    pub on_interrupted: Option<OnInterrupted>,
    /// Where its end is to be told.
    pub callback_url: Option<String>,
    /// The same key gives the same job.
    pub idempotency_key: Option<String>,
    /// Any JSON of the submitter's own.
    pub metadata: Option<Box<RawValue>>,
}

/// What was read from a line.
#[derive(Debug)]
pub struct Line {
    /// Its own name, also when something else is wrong.
    pub id: Option<String>,
    /// What it asks for, or what is wrong.
    pub asked: Result<Asked, String>,
}

/// Fields of a job that a line can't have, and why.
const NOT_IN_A_FILE: [(&str, &str); 3] = [
    (
        "runAt",
        "a run sends its lines now; for a job of a later time POST /api/glm/jobs of `onelane serve`",
    ),
    (
        "after",
        "lines have no job ids that others could name; POST /api/glm/jobs of `onelane serve` has them",
    ),
    (
        "idempotencyKey",
        "a line is known by its content and its id; give it an id instead",
    ),
];

/// Characters of a submitter's own name of a job.
const ID_CHARS_MAX: usize = 256;

/// Reads jobs. Made once.
pub struct Dialect(Reader<NewJob>);

impl Default for Dialect {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialect")
    }
}

impl Dialect {
    /// Reads jobs of every form.
    #[must_use]
    pub fn new() -> Self {
        let mut reader = Reader::new();
        reader.schema = Self::schema();
        Self(reader)
    }

    /// The schema of one job.
    pub(super) fn schema() -> Value {
        let mut schema = schema_of::<NewJob>();
        if let Some(known) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            for (name, doc) in OWN_NAMES.into_iter().chain(PARAMETERS) {
                known.insert(name.to_owned(), serde_json::json!({"description": doc}));
            }
        }
        schema
    }

    /// Reads a line of a file.
    #[must_use]
    pub fn line(&self, text: &str) -> Line {
        let failed = |problem| Line {
            id: None,
            asked: Err(problem),
        };
        let half = HalfACharacter::in_json(text).map(|half| half.to_string());
        let read = serde_json::from_str::<&RawValue>(text)
            .and_then(|json| Ok((json, serde_json::from_str::<Object<'_>>(json.get())?)));
        let (json, fields) = match read {
            Ok(read) => read,
            Err(error) => return failed(half.unwrap_or_else(|| json_problem(&error))),
        };
        if let Some(name) = fields.twice() {
            return failed(format!("{name}: is given twice; give it once"));
        }
        let id = match own_name(&fields) {
            Ok(id) => id,
            Err(error) => return failed(half.unwrap_or_else(|| told(&[error]))),
        };
        if let Some(half) = half {
            let asked = Err(half);
            return Line { id, asked };
        }
        let not_here = NOT_IN_A_FILE.iter().find(|(name, _)| {
            let given = fields.get(name);
            given.is_some_and(|value| value.get() != "null")
        });
        let asked = match not_here {
            Some((name, why)) => Err(format!("{name}: can't stand in a line: {why}")),
            None => self
                .job(json, &fields, Ok(id.clone()), "")
                .map_err(|errors| told(&errors.first)),
        };
        Line { id, asked }
    }

    /// Reads a job, at the place `at` of what was sent.
    pub(super) fn read(&self, json: &RawValue, at: &str) -> Result<Asked, Faults> {
        let fields = check::object(json, at)?;
        self.job(json, &fields, own_name(&fields), at)
    }

    /// The job that these fields of this JSON are.
    fn job(
        &self,
        json: &RawValue,
        fields: &Object<'_>,
        id: Result<Option<String>, FieldError>,
        at: &str,
    ) -> Result<Asked, Faults> {
        let new = self.0.read_object(json, fields, at)?;
        let named = |error: FieldError| FieldError::new(join(at, &error.field), error.problem);
        let mut errors = new.apart();
        match (id, new.request(fields)) {
            (Ok(id), Ok(request)) if errors.is_empty() => Ok(Asked {
                content_id: new.content_id.or_else(|| id.clone()),
                id,
                request,
                model: new.model,
                user_id: new.user_id,
                session: new.session,
                priority: new.priority,
                max_retries: new.max_retries,
                run_at: new.run_at,
                deadline: new.deadline,
                timeout_ms: new.timeout,
                after: new.after.unwrap_or_default(),
                on_interrupted: new.on_interrupted,
                callback_url: new.callback_url,
                idempotency_key: new.idempotency_key,
                metadata: new.metadata,
            }),
            (id, request) => {
                errors.extend(id.err());
                errors.extend(request.err());
                let errors: Vec<FieldError> = errors.into_iter().map(named).collect();
                Err(errors.into())
            }
        }
    }
}

/// Errors in a sentence.
fn told(errors: &[FieldError]) -> String {
    let each = errors
        .iter()
        .map(|error| format!("{}: {}", error.field, error.problem));
    each.collect::<Vec<_>>().join("; ")
}

/// The parser counts lines within the text it got, which is one line: only its column tells anything.
fn json_problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    match error.column() {
        // Found when the object was read to its end.
        0 => format!("not a JSON object: {what}"),
        column => format!("not a JSON object: {what} at column {column}"),
    }
}

/// The submitter's own name of a job; a number counts as its text.
fn own_name(fields: &Object<'_>) -> Result<Option<String>, FieldError> {
    let given = |name: &str| fields.get(name).filter(|raw| raw.get() != "null");
    let (name, raw) = match (given("custom_id"), given("id")) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            let problem = "can't stand beside id; give one of them";
            return Err(FieldError::new("custom_id", problem));
        }
        (Some(raw), None) => ("custom_id", raw),
        (None, Some(raw)) => ("id", raw),
    };
    let wrong = || {
        let problem = format!("must be a string of 1 to {ID_CHARS_MAX} characters, or a number");
        FieldError::new(name, problem)
    };
    let text = match raw.get().chars().next() {
        Some('"') => serde_json::from_str(raw.get()).map_err(|_| wrong())?,
        Some('-' | '0'..='9') => raw.get().to_owned(),
        _ => return Err(wrong()),
    };
    if (1..=ID_CHARS_MAX).contains(&text.chars().count()) {
        Ok(Some(text))
    } else {
        Err(wrong())
    }
}

impl NewJob {
    /// What is wrong with fields beside the request.
    fn apart(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.deadline.is_some() && self.deadline < self.run_at {
            errors.push(FieldError::new("deadline", "must not be before runAt"));
        }
        let metadata = self.metadata.as_ref();
        if metadata.is_some_and(|raw| raw.get().len() > bounds::METADATA_BYTES_MAX) {
            let max = bounds::METADATA_BYTES_MAX;
            let problem = format!("must have at most {max} bytes");
            errors.push(FieldError::new("metadata", problem));
        }
        errors
    }

    /// What it asks of GLM.
    fn request(&self, fields: &Object<'_>) -> Result<Request, FieldError> {
        let both = |first: &str, second: &str| {
            let problem = format!("can't stand beside {first}; give one of them");
            Err(FieldError::new(second, problem))
        };
        let forms = [
            ("prompt", self.prompt.is_some()),
            ("messages", self.messages.is_some()),
            ("request", self.request.is_some()),
            ("body", self.body.is_some()),
        ];
        let mut given = forms
            .iter()
            .filter(|(_, given)| *given)
            .map(|(name, _)| *name);
        let Some(form) = given.next() else {
            return Err(FieldError::new(
                "prompt",
                "is missing; give a prompt, or messages, or a whole body as request or body",
            ));
        };
        if let Some(other) = given.next() {
            return both(form, other);
        }
        let face = self.face(form)?;
        let parameters = self.parameters(form, fields)?;
        match form {
            "prompt" if parameters.is_empty() => {
                let text = self.prompt.clone().unwrap_or_default();
                made("prompt", "prompt", Request::prompt(text))
            }
            "prompt" => {
                let text = self.prompt.as_deref().unwrap_or_default();
                if text.trim().is_empty() {
                    return made("prompt", "prompt", Err(RequestError::EmptyPrompt));
                }
                let text = Value::from(text);
                let messages = format!(r#"[{{"role":"user","content":{text}}}]"#);
                made("prompt", "prompt", chat(&messages, &parameters))
            }
            "messages" => {
                let messages = self.messages.as_deref().map_or("[]", RawValue::get);
                made("messages", "messages", chat(messages, &parameters))
            }
            name => {
                let body = self.request.as_deref().or(self.body.as_deref());
                let body = body.map_or("{}", RawValue::get);
                let object = Object::read(body)
                    .map_err(|error| FieldError::new(name, format!("is a bad object: {error}")))?;
                check_stream(&format!("{name}.stream"), &object)?;
                if object.get("callbackUrl").is_some() {
                    let problem = format!("is no parameter of GLM's; put it beside {name}");
                    return Err(FieldError::new(format!("{name}.callbackUrl"), problem));
                }
                made(name, &format!("{name}.messages"), Request::body(face, body))
            }
        }
    }

    /// The face that it is for, as it says itself or by its path.
    fn face(&self, form: &str) -> Result<Face, FieldError> {
        for (name, given) in [("method", &self.method), ("url", &self.url)] {
            if given.is_some() && form != "body" {
                let problem = "belongs to the batch form, beside body";
                return Err(FieldError::new(name, problem));
            }
        }
        if let Some(method) = self.method.as_deref().filter(|method| *method != "POST") {
            return Err(FieldError::new(
                "method",
                format!("must be POST, not {method:?}"),
            ));
        }
        let of_url = self.url.as_deref().map(|url| {
            Face::of_path(url).ok_or_else(|| {
                let ends = Face::ALL.map(Face::path_end).join(", ");
                FieldError::new("url", format!("must end in one of {ends}, not {url:?}"))
            })
        });
        let of_url = of_url.transpose()?;
        let face = match (self.face, of_url) {
            (Some(face), Some(of_url)) if face != of_url => {
                let problem = format!("is {}, and url is of {}", face.name(), of_url.name());
                return Err(FieldError::new("face", problem));
            }
            (face, of_url) => face.or(of_url).unwrap_or_default(),
        };
        if !face.is_chat() && matches!(form, "prompt" | "messages") {
            let problem = format!(
                "is of a chat; give the whole body of {} as request",
                face.name()
            );
            return Err(FieldError::new(form, problem));
        }
        Ok(face)
    }

    /// GLM's parameters that stand beside a prompt or messages, as the inside of an object: flat ones in their
    /// order, then those of `parameters`.
    fn parameters(&self, form: &str, fields: &Object<'_>) -> Result<String, FieldError> {
        let flat = || {
            let known = |name: &&str| PARAMETERS.iter().any(|(known, _)| known == name);
            fields.iter().filter(move |(name, _)| known(name))
        };
        if matches!(form, "request" | "body") {
            let given = self.parameters.as_ref().map(|_| "parameters");
            return match given.or_else(|| flat().next().map(|(name, _)| name)) {
                None => Ok(String::new()),
                Some(name) => {
                    let problem = format!("belongs into {form}, which is the whole body");
                    Err(FieldError::new(name, problem))
                }
            };
        }
        check_stream("stream", fields)?;
        let mut members: Vec<String> = Vec::new();
        // A name is JSON again as a string.
        let member =
            |name: &str, value: &RawValue| format!("{}:{}", Value::from(name), value.get());
        members.extend(flat().map(|(name, value)| member(name, value)));
        let more = self.parameters.as_deref().map_or("{}", RawValue::get);
        let more = Object::read(more)
            .map_err(|error| FieldError::new("parameters", format!("is a bad object: {error}")))?;
        check_stream("parameters.stream", &more)?;
        for (name, value) in more.iter() {
            let place = format!("parameters.{name}");
            if name == "messages" || name == "model" {
                let problem = format!("belongs beside parameters, as the job's own {name}");
                return Err(FieldError::new(place, problem));
            }
            if flat().any(|(flat, _)| flat == name) {
                let problem = "stands beside parameters too; give it once";
                return Err(FieldError::new(place, problem));
            }
            members.push(member(name, value));
        }
        Ok(members.join(","))
    }
}

/// A chat of these messages, with the inside of an object beside them.
fn chat(messages: &str, parameters: &str) -> Result<Request, RequestError> {
    let comma = if parameters.is_empty() { "" } else { "," };
    Request::chat(&format!("{{\"messages\":{messages}{comma}{parameters}}}"))
}

fn check_stream(name: &str, object: &Object<'_>) -> Result<(), FieldError> {
    match object.get("stream").map(RawValue::get) {
        None | Some("false" | "null") => Ok(()),
        Some(_) => Err(FieldError::new(
            name,
            "a stored job is not streamed; leave it out",
        )),
    }
}

fn made(
    name: &str,
    messages_name: &str,
    request: Result<Request, RequestError>,
) -> Result<Request, FieldError> {
    request.map_err(|error| match error {
        RequestError::EmptyPrompt => FieldError::new(name, "is empty; give it some text"),
        RequestError::NoMessages => {
            FieldError::new(messages_name, "must be a list of at least one message")
        }
        RequestError::TooMany {
            what: "messages",
            of,
            found,
            max,
        } => {
            let problem = format!("has {found} {of}; {max} are allowed at most");
            FieldError::new(messages_name, problem)
        }
        other => FieldError::new(name, other.to_string()),
    })
}

#[cfg(test)]
mod tests;
