//! Jobs as programs submit them: read field by field, checked whole before any of them is stored.

use onelane_core::model::{OnInterrupted, Request, RequestError, limits as bounds};
use serde_json::value::RawValue;
use warp::http::HeaderMap;

use super::fields::{Fields, Object, check_text};
use super::limits;
use super::problem::{Fault, Kind, Problem};
use crate::orchestrator::Submission;

/// The user of a job that names none.
pub(super) const DEFAULT_USER: &str = "default";

/// What a job may say of its own interruption.
const ON_INTERRUPTED: [(&str, OnInterrupted); 3] = [
    ("retry", OnInterrupted::Retry),
    ("hold", OnInterrupted::Hold),
    ("fail", OnInterrupted::Fail),
];

/// What a body submits.
#[derive(Debug)]
pub(super) enum Submissions {
    /// An object.
    One(Box<Submission>),
    /// A list, even of one.
    Many(Vec<Submission>),
}

/// Reads one job or a list of them. If any is wrong, all that are wrong are named and none counts.
pub(super) fn read(raw: &RawValue, key: Option<String>) -> Result<Submissions, Problem> {
    let invalid = |faults| Problem::faults(Kind::InvalidField, faults);
    if raw.get().starts_with('{') {
        let object = Object::read(raw)
            .map_err(|problem| Problem::new(Kind::InvalidBody, format!("the body {problem}")))?;
        let one = read_one(String::new(), object, key).map_err(invalid)?;
        return Ok(Submissions::One(Box::new(one)));
    }
    let elements: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| {
        Problem::new(
            Kind::InvalidBody,
            "the body must be a job or a list of jobs",
        )
    })?;
    if !(1..=bounds::SUBMIT_MANY_MAX).contains(&elements.len()) {
        return Err(Problem::new(
            Kind::InvalidBody,
            format!(
                "the list has {} jobs; it must have 1 to {}",
                elements.len(),
                bounds::SUBMIT_MANY_MAX
            ),
        ));
    }
    if key.is_some() {
        return Err(Problem::fault(
            Kind::InvalidHeader,
            "Idempotency-Key",
            "is for one job; in a list give each job its own idempotencyKey",
        ));
    }
    let mut jobs = Vec::with_capacity(elements.len());
    let mut faults = Vec::new();
    for (i, element) in elements.into_iter().enumerate() {
        let read = Object::read(element)
            .map_err(|problem| vec![Fault::new(format!("[{i}]"), problem)])
            .and_then(|object| read_one(format!("[{i}]."), object, None));
        match read {
            Ok(job) => jobs.push(job),
            Err(more) => faults.extend(more),
        }
    }
    if faults.is_empty() {
        Ok(Submissions::Many(jobs))
    } else {
        Err(invalid(faults))
    }
}

/// The `Idempotency-Key` header.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    value
        .to_str()
        .map_err(|_| "must be printable ASCII".to_owned())
        .and_then(|key| check_text(key.to_owned(), bounds::IDEMPOTENCY_KEY_CHARS_MAX))
        .map(Some)
        .map_err(|problem| Problem::fault(Kind::InvalidHeader, "Idempotency-Key", problem))
}

fn read_one(at: String, object: Object, key: Option<String>) -> Result<Submission, Vec<Fault>> {
    let mut fields = Fields::new(at, object);
    let request = request(&mut fields);
    let model = fields.text("model", bounds::MODEL_CHARS_MAX);
    let user_id = fields.text("userId", bounds::USER_ID_CHARS_MAX);
    let content_id = fields.text("contentId", bounds::CONTENT_ID_CHARS_MAX);
    let priority = fields.integer("priority", i32::MIN..=i32::MAX);
    let max_retries = fields.integer("maxRetries", 0..=bounds::MAX_RETRIES_MAX);
    let run_at = fields.moment("runAt");
    let deadline = fields.moment("deadline");
    if deadline.is_some() && deadline < run_at {
        fields.fault("deadline", "must not be before runAt");
    }
    let timeout_ms = fields.milliseconds("timeout", 1..=limits::CALL_TIMEOUT_MS_MAX);
    let after = fields.job_ids("after", bounds::AFTER_JOBS_MAX);
    let on_interrupted = fields.choice("onInterrupted", &ON_INTERRUPTED);
    let callback_url = fields.text("callbackUrl", bounds::CALLBACK_URL_BYTES_MAX);
    let own_key = fields.text("idempotencyKey", bounds::IDEMPOTENCY_KEY_CHARS_MAX);
    if own_key.is_some() && key.is_some() && own_key != key {
        fields.fault("idempotencyKey", "differs from the Idempotency-Key header");
    }
    let metadata = fields.raw("metadata");
    if metadata
        .as_ref()
        .is_some_and(|raw| raw.get().len() > bounds::METADATA_BYTES_MAX)
    {
        let max = bounds::METADATA_BYTES_MAX;
        fields.fault("metadata", format!("must have at most {max} bytes"));
    }
    fields.finish()?;
    // Without a fault there is a request.
    let request = request.ok_or_else(Vec::new)?;
    Ok(Submission {
        request,
        model,
        user_id: user_id.unwrap_or_else(|| DEFAULT_USER.to_owned()),
        content_id,
        priority: priority.unwrap_or(0),
        max_retries,
        run_at,
        deadline,
        timeout_ms,
        idempotency_key: own_key.or(key),
        after: after.unwrap_or_default(),
        on_interrupted,
        callback_url,
        metadata,
    })
}

/// `prompt`, or `messages` with `parameters`, or `request`. `None` when a fault was noted.
fn request(fields: &mut Fields) -> Option<Request> {
    let ways = ["prompt", "messages", "request"];
    let given: Vec<&str> = ways.into_iter().filter(|name| fields.has(name)).collect();
    let prompt = fields.string("prompt");
    let messages = fields.raw("messages");
    let parameters = fields.object("parameters");
    let body = fields.raw("request");
    match given.as_slice() {
        [] => {
            let problem = "is missing; give a prompt, or messages, or a whole chat body as request";
            fields.fault("prompt", problem);
            return None;
        }
        [_] => {}
        [first, second, ..] => {
            fields.fault(
                second,
                format!("can't stand beside {first}; give one of them"),
            );
            return None;
        }
    }
    if parameters.is_some() && messages.is_none() {
        let problem = "belong to messages; a request carries its own, a prompt has none";
        fields.fault("parameters", problem);
        return None;
    }
    if let Some(text) = prompt {
        return note(fields, "prompt", "prompt", Request::prompt(text));
    }
    if let Some(messages) = messages {
        let body = chat_body(fields, &messages, &parameters.unwrap_or_default())?;
        return note(fields, "messages", "messages", Request::chat(&body));
    }
    let body = body?;
    match Object::read(&body) {
        Ok(object) => check_stream(fields, "request.stream", &object)?,
        Err(problem) => {
            fields.fault("request", problem);
            return None;
        }
    }
    note(
        fields,
        "request",
        "request.messages",
        Request::chat(body.get()),
    )
}

/// The chat body of `messages` with `parameters` beside them, both verbatim.
fn chat_body(fields: &mut Fields, messages: &RawValue, parameters: &Object) -> Option<String> {
    check_stream(fields, "parameters.stream", parameters)?;
    let mut body = format!("{{\"messages\":{}", messages.get());
    for (name, value) in parameters.iter() {
        if name == "messages" || name == "model" {
            let problem = format!("belongs beside parameters, as the job's own {name}");
            fields.fault(&format!("parameters.{name}"), problem);
            return None;
        }
        // A name is JSON again as a string; writing one can't fail.
        let name = serde_json::to_string(name).ok()?;
        body.push_str(&format!(",{name}:{}", value.get()));
    }
    body.push('}');
    Some(body)
}

fn check_stream(fields: &mut Fields, name: &str, object: &Object) -> Option<()> {
    match object.get("stream") {
        Some(value) if value.get() != "false" => {
            fields.fault(name, "a stored job is not streamed; leave it out");
            None
        }
        _ => Some(()),
    }
}

fn note(
    fields: &mut Fields,
    name: &str,
    messages_name: &str,
    request: Result<Request, RequestError>,
) -> Option<Request> {
    request
        .map_err(|error| match error {
            RequestError::EmptyPrompt => fields.fault(name, "is empty; give it some text"),
            RequestError::NoMessages => {
                fields.fault(messages_name, "must be a list of at least one message");
            }
            other => fields.fault(name, other.to_string()),
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use onelane_core::model::Timestamp;

    use super::*;

    fn parse(json: &str) -> Result<Submissions, Problem> {
        read(serde_json::from_str(json).unwrap(), None)
    }

    fn one(json: &str) -> Submission {
        match parse(json) {
            Ok(Submissions::One(one)) => *one,
            other => panic!("{json}: {other:?}"),
        }
    }

    fn refused(json: &str) -> String {
        let problem = parse(json).expect_err(json);
        assert_eq!(problem.status(), 400);
        let body = serde_json::to_value(problem.body()).unwrap();
        body["detail"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_prompt_alone_is_a_job() {
        let job = one(r#"{"prompt":"hi"}"#);
        assert!(matches!(job.request, Request::Prompt(text) if text == "hi"));
        assert_eq!(job.user_id, "default");
        assert_eq!((job.priority, job.model, job.max_retries), (0, None, None));
    }

    #[test]
    fn every_field_arrives() {
        let job = one(
            r#"{"prompt":"hi","model":"glm-5","userId":"u","contentId":"c","priority":-7,
            "maxRetries":0,"runAt":"2026-11-23T16:00:00+08:00","deadline":"2026-11-23T09:00:00Z",
            "timeout":5000,"after":["0199a000-0000-7000-8000-000000000001"],"onInterrupted":"hold",
            "callbackUrl":"https://example.com/",
            "idempotencyKey":"k","metadata":{"n":1.50}}"#,
        );
        assert_eq!(job.after, [crate::api::tests::sample::id(1)]);
        assert_eq!(job.on_interrupted, Some(OnInterrupted::Hold));
        assert_eq!(job.callback_url.as_deref(), Some("https://example.com/"));
        assert_eq!(job.model.as_deref(), Some("glm-5"));
        assert_eq!(job.user_id, "u");
        assert_eq!(job.content_id.as_deref(), Some("c"));
        assert_eq!(job.priority, -7);
        assert_eq!(job.max_retries, Some(0));
        assert_eq!(job.run_at, Timestamp::parse_rfc3339("2026-11-23T08:00:00Z"));
        assert_eq!(
            job.deadline,
            Timestamp::parse_rfc3339("2026-11-23T09:00:00Z")
        );
        assert_eq!(job.timeout_ms, Some(5_000));
        assert_eq!(job.idempotency_key.as_deref(), Some("k"));
        assert_eq!(job.metadata.unwrap().get(), r#"{"n":1.50}"#);
    }

    #[test]
    fn messages_and_parameters_become_a_chat_body_verbatim() {
        let job = one(r#"{"messages":[ {"role":"user","content":"hi"} ],
            "parameters":{"top_p":0.90,"thinking":null,"stream":false,"a\"b":1}}"#);
        let Request::Chat(raw) = job.request else {
            panic!("a chat")
        };
        assert_eq!(
            raw.get(),
            r#"{"messages":[ {"role":"user","content":"hi"} ],"top_p":0.90,"thinking":null,"stream":false,"a\"b":1}"#
        );
    }

    #[test]
    fn a_whole_chat_body_is_taken_to_the_byte() {
        let body = r#"{"model":"glm-5","messages":[{}],"x": 1e2}"#;
        let job = one(&format!(r#"{{"request":{body}}}"#));
        assert!(matches!(job.request, Request::Chat(raw) if raw.get() == body));
    }

    #[test]
    fn a_bad_job_is_told_what_and_where() {
        let check = |json: &str, want: &str| {
            let got = refused(json);
            assert!(got.contains(want), "{json}: {got}");
        };
        check("7", "the body must be a job or a list of jobs");
        check("[]", "the list has 0 jobs; it must have 1 to 10000");
        check("{}", "prompt: is missing");
        check(r#"{"prompt":" "}"#, "prompt: is empty");
        check(r#"{"prompt":["hi"]}"#, "prompt: must be a string");
        check(
            r#"{"prompt":"a","messages":[{}]}"#,
            "messages: can't stand beside prompt",
        );
        check(
            r#"{"prompt":"a","parameters":{}}"#,
            "parameters: belong to messages",
        );
        check(
            r#"{"messages":[]}"#,
            "messages: must be a list of at least one",
        );
        check(
            r#"{"messages":"hi"}"#,
            "messages: must be a list of at least one",
        );
        check(
            r#"{"request":{"messages":[]}}"#,
            "request.messages: must be a list",
        );
        check(r#"{"request":"hi"}"#, "request: must be a JSON object");
        check(
            r#"{"request":{"messages":[{}],"model":7}}"#,
            "request: model must be a string",
        );
        check(
            r#"{"request":{"messages":[{}],"stream":true}}"#,
            "request.stream: a stored job",
        );
        check(
            r#"{"messages":[{}],"parameters":{"stream":true}}"#,
            "parameters.stream: a stored job",
        );
        check(
            r#"{"messages":[{}],"parameters":{"model":"m"}}"#,
            "parameters.model: belongs beside parameters",
        );
        check(
            r#"{"prompt":"a","model":""}"#,
            "model: must have 1 to 128 characters",
        );
        check(
            r#"{"prompt":"a","priority":"high"}"#,
            "priority: must be a whole number",
        );
        check(
            r#"{"prompt":"a","priority":2147483648}"#,
            "priority: must be a whole number",
        );
        check(
            r#"{"prompt":"a","maxRetries":101}"#,
            "maxRetries: must be a whole number from 0 to 100",
        );
        check(
            r#"{"prompt":"a","maxRetries":-1}"#,
            "maxRetries: must be a whole number from 0 to 100",
        );
        check(
            r#"{"prompt":"a","timeout":0}"#,
            "timeout: must be a whole number of milliseconds from 1 to 86400000",
        );
        check(
            r#"{"prompt":"a","runAt":"soon"}"#,
            "runAt: must be a time in RFC 3339",
        );
        check(
            r#"{"prompt":"a","runAt":"2026-11-23T08:00:00Z","deadline":"2026-11-23T07:00:00Z"}"#,
            "deadline: must not be before runAt",
        );
        check(
            r#"{"prompt":"a","after":["17"]}"#,
            "after: 17 is not a job id",
        );
        check(
            r#"{"prompt":"a","after":"17"}"#,
            "after: must be a list of job ids",
        );
        let many = vec!["\"0199a000-0000-7000-8000-000000000001\""; 101].join(",");
        check(
            &format!(r#"{{"prompt":"a","after":[{many}]}}"#),
            "after: must name at most 100 jobs",
        );
        check(
            r#"{"prompt":"a","onInterrupted":"ask"}"#,
            "onInterrupted: must be one of retry, hold, fail",
        );
        check(
            r#"{"prompt":"a","prio":1}"#,
            "prio: is unknown; the fields are prompt, messages",
        );
        check(
            r#"{"prompt":"a","prompt":"b"}"#,
            "the body is a bad object: prompt is given twice",
        );
        let long = "x".repeat(70_000);
        check(
            &format!(r#"{{"prompt":"a","metadata":"{long}"}}"#),
            "metadata: must have at most",
        );
    }

    #[test]
    fn a_list_names_every_wrong_element() {
        let json = r#"[{"prompt":"a"},7,{"prompt":""},{"prompt":"b","priority":1.5}]"#;
        let problem = parse(json).unwrap_err();
        let body = serde_json::to_value(problem.body()).unwrap();
        let fields: Vec<_> = body["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|fault| fault["field"].as_str().unwrap())
            .collect();
        assert_eq!(fields, ["[1]", "[2].prompt", "[3].priority"]);
    }

    #[test]
    fn a_key_in_the_header_is_the_key_of_one_job() {
        let with = |json: &str| read(serde_json::from_str(json).unwrap(), Some("k".to_owned()));
        let Submissions::One(job) = with(r#"{"prompt":"a"}"#).unwrap() else {
            panic!("one job")
        };
        assert_eq!(job.idempotency_key.as_deref(), Some("k"));
        assert!(with(r#"{"prompt":"a","idempotencyKey":"k"}"#).is_ok());
        assert!(with(r#"{"prompt":"a","idempotencyKey":"other"}"#).is_err());
        assert!(with(r#"[{"prompt":"a"}]"#).is_err());
    }

    #[test]
    fn nulls_count_as_missing() {
        let job = one(r#"{"prompt":"a","messages":null,"model":null,"metadata":null}"#);
        assert!(job.metadata.is_none());
    }
}
