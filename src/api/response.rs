//! A job as the response that it is: under an id of ours, with GLM's answer or with how far it is.

use onelane_actors::ports::JobRecord;
use onelane_core::model::{Job, JobId, JobStatus, Request};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use warp::http::StatusCode;

use super::answer::{JSON, Reply};
use super::ended::{stated, told_by_glm};
use crate::object::Object;

/// What our ids of responses begin with; the id of the job follows.
const PREFIX: &str = "resp_";

/// The id of a job's response.
pub(super) fn id_of(job: JobId) -> String {
    format!("{PREFIX}{}", job.to_string().replace('-', ""))
}

/// The job that an id may be of; `None`: it is none of ours.
pub(super) fn job_of(id: &str) -> Option<JobId> {
    id.strip_prefix(PREFIX)?.parse().ok()
}

/// How a job stands, in OpenAI's word.
pub(super) const fn word(job: &Job) -> &'static str {
    match job.status {
        JobStatus::Pending => "queued",
        JobStatus::Processing => "in_progress",
        JobStatus::Completed => "completed",
        JobStatus::Failed => "failed",
        JobStatus::Cancelled => "cancelled",
    }
}

/// A job as the response that it is: GLM's answer under our id, or how far it is.
pub(super) fn shown(record: &JobRecord) -> Reply {
    let job = &record.job;
    let id = id_of(job.id);
    let body = told_by_glm(record).and_then(|answer| under(&id, answer));
    if let Some(body) = body {
        return Reply::text(StatusCode::OK, JSON, body.into_bytes());
    }
    Reply::json(StatusCode::OK, &object(record, word(job)))
}

/// A job as a response without an answer, that stands as this word says.
pub(super) fn object(record: &JobRecord, status: &str) -> Value {
    let job = &record.job;
    let failure = job
        .error
        .as_ref()
        .filter(|_| job.status == JobStatus::Failed);
    let error = failure.map(|failure| {
        let (_, code) = stated(failure);
        json!({"code": code, "message": failure.message})
    });
    let asked = record.request.as_deref().and_then(|request| match request {
        Request::Body(_, raw) => serde_json::from_str::<Object<'_>>(raw.get()).ok(),
        Request::Prompt(_) => None,
    });
    let asked = asked.unwrap_or_default();
    // As the client said it, whatever it is.
    let echoed = |name: &str, otherwise: Value| {
        let value = asked.get(name);
        let value = value.and_then(|value| serde_json::from_str(value.get()).ok());
        value.unwrap_or(otherwise)
    };
    json!({
        "id": id_of(job.id),
        "object": "response",
        "created_at": job.created_at.as_millis() / 1_000,
        "status": status,
        "background": true,
        "error": error,
        "incomplete_details": null,
        "instructions": echoed("instructions", Value::Null),
        "max_output_tokens": echoed("max_output_tokens", Value::Null),
        "metadata": echoed("metadata", json!({})),
        "model": job.spelled.as_deref().unwrap_or(&job.model),
        "output": [],
        "parallel_tool_calls": echoed("parallel_tool_calls", Value::Bool(true)),
        "previous_response_id": echoed("previous_response_id", Value::Null),
        "temperature": echoed("temperature", Value::Null),
        "tool_choice": echoed("tool_choice", json!("auto")),
        "tools": echoed("tools", json!([])),
        "top_p": echoed("top_p", Value::Null),
        "usage": null,
    })
}

/// GLM's answer with our id, and as one of the background.
pub(super) fn under(id: &str, answer: &RawValue) -> Option<String> {
    let fields: Object<'_> = serde_json::from_str(answer.get()).ok()?;
    let id = serde_json::to_string(id).ok()?;
    let own = [("id", id.as_str()), ("background", "true")];
    let mut out = Vec::new();
    for (name, value) in own {
        if fields.get(name).is_none() {
            out.push(format!("\"{name}\":{value}"));
        }
    }
    for (name, value) in fields.iter() {
        let known = own.iter().find(|(known, _)| *known == name);
        let value = known.map_or(value.get(), |(_, value)| value);
        out.push(format!("{}:{value}", serde_json::to_string(name).ok()?));
    }
    Some(format!("{{{}}}", out.join(",")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use onelane_core::model::{Face, Failure, FailureClass, Received};

    use super::*;
    use crate::views::tests::sample;

    #[test]
    fn an_id_of_ours_names_its_job() {
        let job = sample::id(1);
        let id = id_of(job);
        assert!(id.starts_with("resp_") && !id.contains('-'), "{id}");
        assert_eq!(job_of(&id), Some(job));
        for other in ["", "resp_", "resp_abc", "chatcmpl-1", &job.to_string()] {
            assert_eq!(job_of(other), None, "{other}");
        }
    }

    #[test]
    fn an_answer_that_says_that_it_failed_is_shown_as_glm_told_it() {
        let body =
            r#"{"object":"response","status":"failed","error":{"code":"x"},"output":[{"id":"m"}]}"#;
        let mut record = sample::completed(1);
        record.job.face = Face::Responses;
        record.job.status = JobStatus::Failed;
        record.job.error = Some(Failure {
            status_code: Some(200),
            ..Failure::new(FailureClass::ServerTransient, "x", "m")
        });
        record.response = None;
        record.refusal = Some(Arc::new(Received::new(body.as_bytes(), None)));
        let told = String::from_utf8(shown(&record).into_bytes()).unwrap();
        assert!(told.contains(r#""output":[{"id":"m"}]"#), "{told}");
        assert!(told.contains(&id_of(record.job.id)), "{told}");
    }

    #[test]
    fn glms_answer_is_shown_under_our_id_and_else_to_the_byte() {
        let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
        let shown = under(
            "resp_1",
            &raw(r#"{"object":"response","id":"g","x":1.50,"background":false}"#),
        );
        let want = r#"{"object":"response","id":"resp_1","x":1.50,"background":true}"#;
        assert_eq!(shown.unwrap(), want);
        let shown = under("resp_1", &raw(r#"{"output":[]}"#)).unwrap();
        assert_eq!(shown, r#"{"id":"resp_1","background":true,"output":[]}"#);
    }
}
