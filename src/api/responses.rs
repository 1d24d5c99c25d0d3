//! Responses that the queue serves in the background: submitted, looked at, given up and deleted under ids of ours. That
//! a later one may go on from them is seen to where jobs come in (`orchestrator/previous.rs`).

use std::sync::Arc;

use onelane_actors::ports::JobRecord;
use onelane_core::model::{Face, Request, ResponseId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::Json;
use super::background::{self, Asking};
use super::gateway::{Answered, Faced, Responses};
use super::input::{Ignored, Input};
use super::principal::Principal;
use super::problem::{Kind, Problem};
use super::rates::Taken;
use super::response::shown;
use super::{Api, ended};
use crate::error::Error;
use crate::orchestrator::Submission;

/// What the gateway reads of a body of this face alone.
#[derive(Deserialize, Default)]
struct Head<'a> {
    #[serde(default, borrow)]
    background: Option<&'a RawValue>,
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

/// Takes a response for later, and answers at once.
pub(super) async fn begin<F: Faced>(
    api: &Arc<Api>,
    asking: Asking<'_>,
    submission: Submission,
    mut place: Taken,
) -> Result<Answered<F>, Problem> {
    let streams = submission.request.streams();
    let submitted = api.lane.submit(submission).await?;
    place.used(usize::from(submitted.created));
    drop(place);
    let record = api.lane.job(submitted.job_id).await?.record;
    let reply = match streams {
        true => background::stream(api, asking, &record, None),
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
            let asking = Asking {
                principal: &input.principal,
                request: input.id,
            };
            background::stream(&api, asking, &record, query.starting_after)
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
    let ResponseId(job) = ResponseId::parse(id).ok_or_else(unknown)?;
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
