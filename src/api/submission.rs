//! Jobs as programs submit them: what no schema says is checked here, and a job is made of it.

use onelane_core::model::json::each;
use onelane_core::model::limits as bounds;
use onelane_core::model::{DEFAULT_USER, PassedHeaders};
use serde_json::Value;
use serde_json::value::RawValue;
use warp::http::HeaderMap;

use super::dialect::{Asked, Dialect};
use super::input::{Need, Payload};
use super::problem::{Faults, Kind, Problem};
use crate::orchestrator::Submission;

/// The header that says the key of a single job.
pub(super) const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// What a body submits: an object is one job, a list is many, even with one in it.
#[derive(Debug)]
pub(super) enum Submissions {
    One(Box<Submission>),
    Many(Vec<Submission>),
}

impl Payload for Submissions {
    const NEED: Need = Need::Required;
    type Reader = Dialect;

    fn reader() -> Dialect {
        Dialect::new()
    }

    fn schema() -> Value {
        let one = Dialect::schema();
        let many = serde_json::json!({"type": "array", "items": one, "minItems": 1,
            "maxItems": bounds::SUBMIT_MANY_MAX});
        serde_json::json!({"oneOf": [one, many]})
    }

    /// If any of a list is wrong, all that are wrong are named and none counts.
    fn read(dialect: &Dialect, body: Option<&RawValue>) -> Result<Self, Problem> {
        let body = body.unwrap_or(RawValue::NULL);
        let invalid = |errors: Faults| Problem::of_fields(Kind::InvalidField, errors);
        let one = |json: &RawValue, at: &str| dialect.read(json, at).map(submission);
        if body.get().starts_with('{') {
            let job = one(body, "").map_err(invalid)?;
            return Ok(Self::One(Box::new(job)));
        }
        let (mut jobs, mut length) = (Vec::new(), 0);
        let mut errors = Faults::default();
        let is_list = each(body, |element| {
            if length < bounds::SUBMIT_MANY_MAX {
                match one(element, &format!("[{length}]")) {
                    // Once one is wrong none counts.
                    Ok(job) if errors.is_none() => jobs.push(job),
                    Ok(_) => {}
                    Err(more) => {
                        errors.extend(more);
                        jobs.clear();
                    }
                }
            }
            length += 1;
            true
        });
        if is_list.is_none() {
            let problem = "the body must be a job or a list of jobs";
            return Err(Problem::new(Kind::InvalidBody, problem));
        }
        if !(1..=bounds::SUBMIT_MANY_MAX).contains(&length) {
            let max = bounds::SUBMIT_MANY_MAX;
            let problem = format!("the list has {length} jobs; it must have 1 to {max}");
            return Err(Problem::new(Kind::InvalidBody, problem));
        }
        if errors.is_none() {
            Ok(Self::Many(jobs))
        } else {
            Err(invalid(errors))
        }
    }
}

impl Submissions {
    /// The jobs, to change them.
    pub(super) fn all(&mut self) -> &mut [Submission] {
        match self {
            Self::One(job) => std::slice::from_mut(&mut **job),
            Self::Many(jobs) => jobs,
        }
    }

    /// With the key of the request's header, which is one job's.
    pub(super) fn with_key(self, key: Option<String>) -> Result<Self, Problem> {
        match (self, key) {
            (Self::Many(_), Some(_)) => {
                let problem = "is for one job; in a list give each job its own idempotencyKey";
                Err(Problem::of_field(
                    Kind::InvalidHeader,
                    IDEMPOTENCY_KEY,
                    problem,
                ))
            }
            (Self::One(mut job), Some(key)) => {
                if job.idempotency_key.get_or_insert_with(|| key.clone()) != &key {
                    let problem = "differs from the Idempotency-Key header";
                    return Err(Problem::of_field(
                        Kind::InvalidField,
                        "idempotencyKey",
                        problem,
                    ));
                }
                Ok(Self::One(job))
            }
            (jobs, None) => Ok(jobs),
        }
    }
}

/// The job that somebody asks for.
fn submission(asked: Asked) -> Submission {
    Submission {
        request: asked.request,
        model: asked.model,
        user_id: asked.user_id.unwrap_or_else(|| DEFAULT_USER.to_owned()),
        content_id: asked.content_id,
        session: asked.session.map(Into::into),
        batch_id: None,
        priority: asked.priority,
        max_retries: asked.max_retries,
        run_at: asked.run_at,
        deadline: asked.deadline.map(Into::into),
        bound_to: None,
        headers: PassedHeaders::default(),
        trace: None,
        timeout_ms: asked.timeout_ms,
        idempotency_key: asked.idempotency_key,
        after: asked.after,
        on_interrupted: asked.on_interrupted,
        callback_url: asked.callback_url,
        metadata: asked.metadata,
        key_id: None,
        over_rate: None,
    }
}

/// The `Idempotency-Key` header.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    header_text(headers, IDEMPOTENCY_KEY, bounds::IDEMPOTENCY_KEY_CHARS_MAX)
}

/// A header of 1 to `max` characters.
pub(super) fn header_text(
    headers: &HeaderMap,
    name: &str,
    max: usize,
) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let wrong = |problem: String| Problem::of_field(Kind::InvalidHeader, name, problem);
    let text = value
        .to_str()
        .map_err(|_| wrong("must be printable ASCII".to_owned()))?;
    if text.is_empty() || text.len() > max {
        return Err(wrong(format!("must have 1 to {max} characters")));
    }
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use onelane_core::model::{OnInterrupted, Request, Timestamp};

    use super::super::dialect::written;
    use super::*;

    fn with_key(json: &str, key: Option<&str>) -> Result<Submission, Problem> {
        let body = Some(serde_json::from_str(json).unwrap());
        let read = Submissions::read(&Submissions::reader(), body)?;
        match read.with_key(key.map(str::to_owned))? {
            Submissions::One(one) => Ok(*one),
            Submissions::Many(mut many) => Ok(many.pop().unwrap()),
        }
    }

    fn parse(json: &str) -> Result<Submission, Problem> {
        with_key(json, None)
    }

    fn one(json: &str) -> Submission {
        parse(json).unwrap()
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
        assert_eq!(
            (job.priority, job.model, job.max_retries),
            (None, None, None)
        );
    }

    #[test]
    fn every_field_arrives() {
        let job = one(
            r#"{"prompt":"hi","model":"glm-5","userId":"u","contentId":"c","session":"s","priority":-7,
            "maxRetries":0,"runAt":"2026-11-23T16:00:00+08:00","deadline":"2026-11-23T09:00:00Z",
            "timeout":5000,"after":["0199a000-0000-7000-8000-000000000001"],"onInterrupted":"park",
            "callbackUrl":"https://example.com/",
            "idempotencyKey":"k","metadata":{"n":1.50}}"#,
        );
        assert_eq!(job.after, [crate::views::tests::sample::id(1)]);
        assert_eq!(job.on_interrupted, Some(OnInterrupted::Park));
        assert_eq!(job.callback_url.as_deref(), Some("https://example.com/"));
        assert_eq!(job.model.as_deref(), Some("glm-5"));
        assert_eq!(job.user_id, "u");
        assert_eq!(job.content_id.as_deref(), Some("c"));
        assert_eq!(job.session.unwrap().id().as_str(), "s");
        assert_eq!(job.priority, Some(-7));
        assert_eq!(job.max_retries, Some(0));
        assert_eq!(job.run_at, Timestamp::parse_rfc3339("2026-11-23T08:00:00Z"));
        assert_eq!(
            job.deadline,
            Timestamp::parse_rfc3339("2026-11-23T09:00:00Z").map(Into::into)
        );
        assert_eq!(job.timeout_ms, Some(5_000));
        assert_eq!(job.idempotency_key.as_deref(), Some("k"));
        assert_eq!(job.metadata.unwrap().get(), r#"{"n":1.50}"#);
    }

    #[test]
    fn a_job_that_is_written_reads_as_it_was() {
        for json in [
            r#"{"prompt":"hi","model":"glm-5","userId":"u","contentId":"c","session":"s","priority":-7,
            "maxRetries":0,"deadline":"2026-11-23T09:00:00Z","timeout":5000,"onInterrupted":"park",
            "callbackUrl":"https://example.com/","idempotencyKey":"k","metadata":{"n":1.50}}"#,
            r#"{"messages":[ {"role":"user","content":"hi"} ],"temperature":0.20}"#,
            r#"{"face":"embeddings","request":{"model":"embedding-3","input":["a"],"x":null}}"#,
        ] {
            let job = one(json);
            let again = one(&written(&job).unwrap());
            assert_eq!(written(&again).unwrap(), written(&job).unwrap(), "{json}");
            let asked = |job: &Submission| job.request.fingerprint("");
            assert_eq!(asked(&again), asked(&job), "{json}");
            assert_eq!(again.deadline, job.deadline);
        }
    }

    #[test]
    fn messages_and_parameters_become_a_chat_body_verbatim() {
        let job = one(r#"{"messages":[ {"role":"user","content":"hi"} ],
            "parameters":{"top_p":0.90,"thinking":null,"stream":false,"a\"b":1}}"#);
        let Request::Body(_, raw) = job.request else {
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
        assert!(matches!(job.request, Request::Body(_, raw) if raw.get() == body));
    }

    #[test]
    fn what_is_no_job_and_no_list_of_some_is_refused() {
        let check = |json: &str, want: &str| {
            let got = refused(json);
            assert!(got.contains(want), "{json}: {got}");
        };
        check("7", "the body must be a job or a list of jobs");
        check("[]", "the list has 0 jobs; it must have 1 to 10000");
        check("{}", "prompt: is missing");
        check(r#"[{"prompt":"a"},{}]"#, "[1].prompt: is missing");
        check("[7]", "[0]: must be a JSON object");
        let many = vec![r#"{"a":1}"#; 2_000_000].join(",");
        check(
            &format!("[{many}]"),
            "the list has 2000000 jobs; it must have 1 to 10000",
        );
    }

    #[test]
    fn a_key_in_the_header_is_the_key_of_the_job() {
        let with = |json: &str| with_key(json, Some("k"));
        let job = with(r#"{"prompt":"a"}"#).unwrap();
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
