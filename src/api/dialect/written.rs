//! A job as the dialect writes it: what a program sends on that has read it elsewhere.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::model::{Deadline, Face, OnInterrupted, Request, Submission, Timestamp};

/// The fields of a job that say something.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    face: Option<Face>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_retries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_interrupted: Option<OnInterrupted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
}

/// The job in JSON: read again it is the same. A deadline of so long from now has no form here.
pub fn written(job: &Submission) -> serde_json::Result<String> {
    let (prompt, face, request) = match &job.request {
        Request::Prompt(text) => (Some(text.as_str()), None, None),
        Request::Body(face, body) => (None, Some(*face), Some(&**body)),
    };
    serde_json::to_string(&Written {
        prompt,
        face,
        request,
        model: job.model.as_deref(),
        user_id: &job.user_id,
        content_id: job.content_id.as_deref(),
        session: job.session.as_ref().map(|session| session.id().as_str()),
        priority: job.priority,
        max_retries: job.max_retries,
        run_at: job.run_at,
        deadline: match job.deadline {
            Some(Deadline::At(at)) => Some(at),
            Some(Deadline::InMs(_)) | None => None,
        },
        timeout: job.timeout_ms,
        on_interrupted: job.on_interrupted,
        callback_url: job.callback_url.as_deref(),
        idempotency_key: job.idempotency_key.as_deref(),
        metadata: job.metadata.as_deref(),
    })
}
