//! Responses that the queue serves in the background: submitted, looked at, given up and deleted under ids of ours. A
//! later one may go on from them: then GLM gets its own id of theirs.

use std::sync::Arc;

use onelane_actors::ports::JobRecord;
use onelane_core::model::{Face, JobStatus, Request, Sessions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::Json;
use super::gateway::{Answered, Faced, Responses, refused};
use super::input::{Ignored, Input};
use super::principal::Principal;
use super::problem::{Kind, Problem};
use super::response::{job_of, shown, word};
use super::{Api, background, ended};
use crate::error::Error;
use crate::object::Object;
use crate::orchestrator::Submission;

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

fn derives_sessions(api: &Api) -> bool {
    api.lane.settings().gateway.sessions == Sessions::Derive
}

/// The submission, of the session of the response that it goes on from by GLM's own id, where it names none.
fn of_its_session(api: &Api, id: Option<&str>, submission: Submission) -> Submission {
    let before = id.filter(|_| derives_sessions(api));
    let before = before.and_then(|id| api.lane.session_of_response(id, submission.key_id));
    let session = submission.session.or(before);
    Submission {
        session,
        ..submission
    }
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
        return Ok(of_its_session(api, id.as_deref(), submission));
    };
    // That of another one is none, as far as this one is concerned.
    let is_own = api.check_own(principal, job).await.is_ok();
    let record = match api.lane.job(job).await {
        Ok(_) if !is_own => return Ok(submission),
        Ok(detail) if detail.record.job.face == Face::Responses => detail.record,
        // GLM may know it.
        Ok(_) | Err(Error::NotFound(_)) => {
            return Ok(of_its_session(api, id.as_deref(), submission));
        }
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
    let before = record.job.as_named().filter(|_| derives_sessions(api));
    Ok(Submission {
        request,
        session: submission.session.or(before),
        ..submission
    })
}

/// Takes a response for later, and answers at once.
pub(super) async fn begin<F: Faced>(
    api: &Api,
    submission: Submission,
) -> Result<Answered<F>, Problem> {
    let streams = submission.request.streams();
    let submitted = api.lane.submit(submission).await?;
    let record = api.lane.job(submitted.job_id).await?.record;
    let reply = match streams {
        true => background::stream(api, &record, None),
        false => shown(&record),
    };
    Ok(Answered::new(Some(submitted.job_id), reply))
}

/// One response.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResponsePath {
    /// Its id, as it was told when it was submitted in the background.
    pub(super) id: String,
}

/// What of a response is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct ResponseQuery {
    /// Whether it is told in events, as the request for it asked.
    stream: Option<bool>,
    /// With `stream`: those alone whose `sequence_number` is larger.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    starting_after: Option<u64>,
}

/// `GET /v1/responses/{id}`.
pub(super) async fn read(
    api: Arc<Api>,
    input: Input<ResponsePath, ResponseQuery>,
) -> Result<Answered<Responses>, Problem> {
    let record = found(&api, &input.principal, &input.path.id).await?;
    let query = input.query;
    let reply = match query.stream {
        Some(true) => {
            let request = record.request.as_deref();
            if !request.is_some_and(Request::streams) {
                let problem =
                    "is for a response that was asked for with stream: true, as this one was not";
                return Err(Problem::of_field(Kind::InvalidQuery, "stream", problem));
            }
            background::stream(&api, &record, query.starting_after)
        }
        _ => {
            // An answer that is there is given without it, too.
            let last = api.lane.last_call(record.job.id).await.ok().flatten();
            let last = last.filter(|_| record.job.status.is_terminal());
            ended::told(shown(&record), &record.job, last.as_ref())
        }
    };
    Ok(Answered::new(Some(record.job.id), reply))
}

/// That a response is gone.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeletedResponse")]
pub(super) struct Deleted {
    id: String,
    /// Always `response`.
    object: &'static str,
    /// Always `true`.
    deleted: bool,
}

/// `DELETE /v1/responses/{id}`: what was asked and answered goes; one that goes on is given up first.
pub(super) async fn delete(
    api: Arc<Api>,
    input: Input<ResponsePath, Ignored>,
) -> Result<Json<Deleted>, Problem> {
    let id = input.path.id;
    let record = found(&api, &input.principal, &id).await?;
    api.lane.forget(record.job.id).await?;
    Ok(Json(Deleted {
        id,
        object: "response",
        deleted: true,
    }))
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
    Ok(Answered::new(Some(record.job.id), shown(&record)))
}

pub(super) async fn found(
    api: &Api,
    principal: &Principal,
    id: &str,
) -> Result<JobRecord, Problem> {
    let unknown = || {
        let problem = format!(
            "there is no response {id} here; only those that were asked for with background: true have an id of ours"
        );
        Problem::new(Kind::UnknownJob, problem)
    };
    let job = job_of(id).ok_or_else(unknown)?;
    api.check_own(principal, job).await.map_err(|_| unknown())?;
    match api.lane.job(job).await {
        Ok(detail) if detail.record.job.face == Face::Responses => match detail.record.request {
            Some(_) => Ok(detail.record),
            None => {
                let problem =
                    format!("response {id} was deleted, or pruned when its time was over");
                Err(Problem::new(Kind::UnknownJob, problem))
            }
        },
        Ok(_) | Err(Error::NotFound(_)) => Err(unknown()),
        Err(error) => Err(error.into()),
    }
}
