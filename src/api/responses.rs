//! Responses that the queue serves in the background: submitted, looked at and given up under ids of ours. A later one
//! may go on from them: then GLM gets its own id of theirs.

use std::sync::Arc;

use onelane_actors::ports::JobRecord;
use onelane_core::model::{Face, Job, JobId, JobStatus, Request};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use warp::http::StatusCode;

use super::Api;
use super::answer::{JSON, Reply};
use super::ended::stated;
use super::gateway::{Answered, Faced, Responses, refused};
use super::input::{Ignored, Input};
use super::principal::Principal;
use super::problem::{Kind, Problem};
use crate::error::Error;
use crate::object::Object;
use crate::orchestrator::Submission;

/// What our ids of responses begin with; the id of the job follows.
const PREFIX: &str = "resp_";

/// The id of a job's response.
fn id_of(job: JobId) -> String {
    format!("{PREFIX}{}", job.to_string().replace('-', ""))
}

/// The job that an id may be of; `None`: it is none of ours.
fn job_of(id: &str) -> Option<JobId> {
    id.strip_prefix(PREFIX)?.parse().ok()
}

/// What the gateway reads of a body of this face alone.
#[derive(Deserialize, Default)]
struct Head<'a> {
    #[serde(default, borrow)]
    background: Option<&'a RawValue>,
    #[serde(default, borrow)]
    previous_response_id: Option<&'a RawValue>,
}

impl<'a> Head<'a> {
    fn of(request: &'a Request) -> Self {
        match request {
            Request::Body(Face::Responses, raw) => {
                serde_json::from_str(raw.get()).unwrap_or_default()
            }
            _ => Self::default(),
        }
    }
}

/// Whether a request is to be answered at once, and served later.
pub(super) fn is_in_background(request: &Request) -> bool {
    let background = Head::of(request).background;
    background.is_some_and(|background| background.get() == "true")
}

/// The submission, with GLM's own id of the response that it goes on from, where it names one of ours.
pub(super) async fn with_previous(
    api: &Api,
    principal: &Principal,
    submission: Submission,
) -> Result<Submission, Problem> {
    let head = Head::of(&submission.request);
    let Some(named) = head.previous_response_id else {
        return Ok(submission);
    };
    let id: Option<String> = serde_json::from_str(named.get()).ok();
    let Some(job) = id.as_deref().and_then(job_of) else {
        return Ok(submission);
    };
    // That of another one is none, as far as this one is concerned.
    let is_own = api.check_own(principal, job).await.is_ok();
    let record = match api.lane.job(job).await {
        Ok(_) if !is_own => return Ok(submission),
        Ok(detail) if detail.record.job.face == Face::Responses => detail.record,
        // GLM may know it.
        Ok(_) | Err(Error::NotFound(_)) => return Ok(submission),
        Err(error) => return Err(error.into()),
    };
    let wrong =
        |problem: String| Problem::of_field(Kind::InvalidField, "previous_response_id", problem);
    let glms = record.response.as_ref().and_then(|response| {
        let object: Object<'_> = serde_json::from_str(response.get()).ok()?;
        Some(object.get("id")?.get().to_owned())
    });
    let Some(glms) = glms else {
        let status = word(&record.job);
        let problem = match record.job.status {
            JobStatus::Completed => "its answer was pruned".to_owned(),
            _ => format!("is {status}; only a response that is completed can be gone on from"),
        };
        return Err(wrong(problem));
    };
    let Request::Body(face, raw) = &submission.request else {
        return Ok(submission);
    };
    // The rest stays to the byte.
    let at = named
        .get()
        .as_ptr()
        .addr()
        .checked_sub(raw.get().as_ptr().addr());
    let parts = at.and_then(|at| {
        Some((
            raw.get().get(..at)?,
            raw.get().get(at + named.get().len()..)?,
        ))
    });
    let Some((before, behind)) = parts else {
        return Err(wrong("could not be replaced".to_owned()));
    };
    let request = Request::body(*face, &format!("{before}{glms}{behind}")).map_err(refused)?;
    Ok(Submission {
        request,
        ..submission
    })
}

/// Takes a response for later, and answers at once.
pub(super) async fn begin<F: Faced>(
    api: &Api,
    submission: Submission,
) -> Result<Answered<F>, Problem> {
    if submission.request.streams() {
        let problem = "can't be true with background: true here; ask for the response by its id";
        return Err(Problem::of_field(Kind::InvalidField, "stream", problem));
    }
    let submitted = api.lane.submit(submission).await?;
    let record = api.lane.job(submitted.job_id).await?.record;
    Ok(Answered::new(Some(submitted.job_id), shown(&record)?))
}

/// One response.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResponsePath {
    /// Its id, as it was told when it was submitted in the background.
    id: String,
}

/// `GET /v1/responses/{id}`.
pub(super) async fn read(
    api: Arc<Api>,
    input: Input<ResponsePath, Ignored>,
) -> Result<Answered<Responses>, Problem> {
    let record = found(&api, &input.principal, &input.path.id).await?;
    Ok(Answered::new(Some(record.job.id), shown(&record)?))
}

/// `POST /v1/responses/{id}/cancel`. One that has ended stays as it is.
pub(super) async fn cancel(
    api: Arc<Api>,
    input: Input<ResponsePath, Ignored>,
) -> Result<Answered<Responses>, Problem> {
    let record = found(&api, &input.principal, &input.path.id).await?;
    match api.lane.cancel(record.job.id).await {
        Ok(()) | Err(Error::WrongStatus { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let record = found(&api, &input.principal, &input.path.id).await?;
    Ok(Answered::new(Some(record.job.id), shown(&record)?))
}

async fn found(api: &Api, principal: &Principal, id: &str) -> Result<JobRecord, Problem> {
    let unknown = || {
        let problem = format!(
            "there is no response {id} here; only those that were asked for with background: true have an id of ours"
        );
        Problem::new(Kind::UnknownJob, problem)
    };
    let job = job_of(id).ok_or_else(unknown)?;
    api.check_own(principal, job).await.map_err(|_| unknown())?;
    match api.lane.job(job).await {
        Ok(detail) if detail.record.job.face == Face::Responses => Ok(detail.record),
        Ok(_) | Err(Error::NotFound(_)) => Err(unknown()),
        Err(error) => Err(error.into()),
    }
}

/// How a job stands, in OpenAI's word.
const fn word(job: &Job) -> &'static str {
    match job.status {
        JobStatus::Pending => "queued",
        JobStatus::Processing => "in_progress",
        JobStatus::Completed => "completed",
        JobStatus::Failed => "failed",
        JobStatus::Cancelled => "cancelled",
    }
}

/// A job as the response that it is: GLM's answer under our id, or how far it is.
fn shown(record: &JobRecord) -> Result<Reply, Problem> {
    let job = &record.job;
    let id = id_of(job.id);
    let body = match (job.status, &record.response) {
        (JobStatus::Completed, Some(answer)) => under(&id, answer),
        (JobStatus::Completed, None) => {
            let problem = format!("the answer of {id} was pruned; ask again");
            return Err(Problem::new(Kind::RequestPruned, problem));
        }
        _ => None,
    };
    if let Some(body) = body {
        return Ok(Reply::text(StatusCode::OK, JSON, body.into_bytes()));
    }
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
    let body = json!({
        "id": id,
        "object": "response",
        "created_at": job.created_at.as_millis() / 1_000,
        "status": word(job),
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
    });
    Ok(Reply::json(StatusCode::OK, &body))
}

/// GLM's answer with our id, and as one of the background.
fn under(id: &str, answer: &RawValue) -> Option<String> {
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
