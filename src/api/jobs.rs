//! Programs submit jobs and fetch them when they are done.

use std::sync::Arc;

use onelane_actors::ports::JobFilter;
use onelane_core::model::{JobId, JobStatus};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use warp::http::header::LOCATION;
use warp::http::{HeaderName, HeaderValue, StatusCode};

use super::admin::JobPath;
use super::answer::{Answer, Json, Large, Reply, Shapes};
use super::granted::{self, Said};
use super::input::{Given, Input, Nothing};
use super::listed::Listed;
use super::pages::{NextCursor, Page};
use super::problem::{Each, Elements, Problem};
use super::query::Wait;
use super::standing::await_while_key_opens;
use super::submission::{Submissions, idempotency_key};
use super::{Api, passed};
use crate::error::Error;
use crate::orchestrator::Submitted;
use crate::results::{LineError, ResultLine};
use crate::views::JobView;

/// A job that is on disk.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Accepted {
    id: JobId,
    /// `pending`, or where a job is that was submitted before.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<JobStatus>,
    /// Whether it is new: `false` for a job that its idempotency key found.
    created: bool,
}

/// What became of a list, each job's own in the list's order.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct AcceptedList {
    jobs: Vec<Each<Accepted>>,
    accepted: usize,
    refused: usize,
}

/// What became of what was submitted.
pub(super) enum SubmitAnswer {
    One(Accepted),
    /// When none was taken, with the first refusal's status and headers.
    Many(StatusCode, Vec<(HeaderName, HeaderValue)>, AcceptedList),
}

impl Answer for SubmitAnswer {
    fn reply(self) -> Reply {
        match self {
            Self::One(accepted) => Reply::json(StatusCode::ACCEPTED, &accepted)
                .with(LOCATION, format!("/api/glm/jobs/{}", accepted.id)),
            Self::Many(status, headers, list) => {
                let mut reply = Reply::json(status, &list);
                reply.headers.extend(headers);
                reply
            }
        }
    }

    fn describe(shapes: &mut Shapes<'_>) {
        shapes.json::<Accepted>("202", "The job is on disk.");
        shapes.header("location", "Where the job is found.");
        shapes.json::<AcceptedList>("202", "Of a list: jobs that are on disk, and refusals.");
        for status in ["409", "422", "429", "503"] {
            let about = "No job of a list was taken; the status is the first refusal's.";
            shapes.json::<AcceptedList>(status, about);
        }
    }
}

/// `POST jobs`: one job or a list. Answers once they are durable.
pub(super) async fn submit(
    api: Arc<Api>,
    input: Input<Nothing, Nothing, Submissions>,
) -> Result<SubmitAnswer, Problem> {
    let key = idempotency_key(&input.headers)?;
    let said = Said::read(&input.headers)?;
    let batch_id = granted::batch(&input.headers, &input.principal)?;
    let trace = api.parent_in(&input.headers);
    let mut submissions = input.body.with_key(key)?;
    for job in submissions.all() {
        said.fill(job);
        job.batch_id = batch_id;
        job.headers = passed::read(job.request.face(), &input.headers)?;
        job.trace.clone_from(&trace);
    }
    let mut places = api.grant(&input.principal, submissions.all())?;
    let jobs = match submissions {
        Submissions::One(job) => {
            let submitted = api.lane.submit(*job).await?;
            places.used(usize::from(submitted.created));
            return Ok(SubmitAnswer::One(accepted(&api, submitted).await));
        }
        Submissions::Many(jobs) => jobs,
    };
    let mut answers = Vec::with_capacity(jobs.len());
    let submitted = api.lane.submit_many(jobs).await?;
    let are_new = submitted.iter().flatten().filter(|job| job.created);
    places.used(are_new.count());
    drop(places);
    for answer in submitted {
        answers.push(match answer {
            Ok(submitted) => Ok(accepted(&api, submitted).await),
            Err(error) => Err(error),
        });
    }
    let Elements {
        all: jobs,
        refused,
        status,
        headers,
    } = answers.into_iter().collect();
    let accepted = jobs.len() - refused;
    let list = AcceptedList {
        jobs,
        accepted,
        refused,
    };
    let status = status.unwrap_or(StatusCode::ACCEPTED);
    Ok(SubmitAnswer::Many(status, headers, list))
}

/// A new job is pending. One that was there before is wherever it has got to.
async fn accepted(api: &Api, submitted: Submitted) -> Accepted {
    let status = if submitted.created {
        Some(JobStatus::Pending)
    } else {
        let found = api.lane.job(submitted.job_id).await.ok();
        found.map(|detail| detail.record.job.status)
    };
    Accepted {
        id: submitted.job_id,
        status,
        created: submitted.created,
    }
}

/// Which jobs a list shows.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub(super) struct JobsQuery {
    #[serde(flatten)]
    filter: JobFilter,
    #[serde(flatten)]
    page: Page,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct JobsAnswer {
    jobs: Vec<JobView>,
    /// How many match, not only on this page.
    total: u64,
    next_cursor: NextCursor,
}

/// `GET jobs`: newest first; for a client key its own.
pub(super) async fn list(
    api: Arc<Api>,
    input: Input<Nothing, JobsQuery>,
) -> Result<Large<JobsAnswer>, Problem> {
    let JobsQuery { mut filter, page } = input.query;
    if let Some(key) = input.principal.key() {
        // Whichever key was named: the jobs of another are not there.
        if filter.more.key_id.is_some_and(|named| named != key.id) {
            filter.more.ids = Some(Vec::new());
        }
        filter.more.key_id = Some(key.id);
    }
    let found = api.lane.jobs(filter, page.cursor(), page.limit()).await?;
    let (total, next_cursor) = (found.total, found.cursor.into());
    let jobs = Listed::of(&api, found, input.principal.audience()).await;
    Ok(Large::of(move || JobsAnswer {
        jobs: jobs.views(),
        total,
        next_cursor,
    }))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitQuery {
    /// How long to wait for the job's end: a duration like 500ms, 30s or 2m, at most 5m.
    wait: Option<Wait>,
}

/// A job as it is.
pub(super) struct JobState {
    has_ended: bool,
    job: JobView,
}

impl Answer for JobState {
    fn reply(self) -> Reply {
        let status = match self.has_ended {
            true => StatusCode::OK,
            false => StatusCode::ACCEPTED,
        };
        Reply::json(status, &self.job)
    }

    fn describe(shapes: &mut Shapes<'_>) {
        shapes.json::<JobView>("200", "The job has ended.");
        shapes.json::<JobView>("202", "The job goes on.");
    }
}

/// How a job ended.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResultAnswer {
    id: JobId,
    status: JobStatus,
    /// Whether its prompt and answer were pruned.
    bodies_pruned: bool,
    /// What GLM answered: an answer, or its refusal.
    response: Option<Answered>,
    /// Why it has no answer; a refusal of GLM's stands in `response`, too.
    why: Option<LineError>,
}

/// What GLM answered to a job.
#[derive(Serialize, JsonSchema)]
pub(super) struct Answered {
    /// The HTTP status.
    status_code: u16,
    /// The `request_id` that GLM was sent.
    request_id: String,
    /// The body, as GLM sent it.
    #[schemars(with = "Value")]
    body: Box<RawValue>,
}

/// `GET jobs/{id}/result`.
pub(super) async fn result(
    api: Arc<Api>,
    input: Input<JobPath>,
) -> Result<Large<ResultAnswer>, Problem> {
    let id = input.path.id;
    api.check_own(&input.principal, id).await?;
    let detail = api.lane.job(id).await?;
    Ok(Large::of(move || {
        let job = &detail.record.job;
        let (response, why) = match job.status.is_terminal() {
            true => {
                let line = ResultLine::of_job(id, "", &detail);
                let response = line.response.map(|response| Answered {
                    status_code: response.status_code,
                    request_id: response.request_id,
                    body: response.body.to_owned(),
                });
                let is_answered = job.status == JobStatus::Completed && response.is_some();
                (response, (!is_answered).then(|| LineError::of_job(&detail)))
            }
            false => (None, None),
        };
        ResultAnswer {
            id,
            status: job.status,
            bodies_pruned: job.bodies_pruned,
            response,
            why,
        }
    }))
}

/// The model that answers instead.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub(super) struct AnotherModel {
    /// Its name.
    #[schemars(length(min = 1, max = onelane_core::model::limits::MODEL_CHARS_MAX))]
    model: String,
}

/// `POST run-again/{id}`.
pub(super) async fn run_again(
    api: Arc<Api>,
    input: Input<JobPath, Nothing, Given<AnotherModel>>,
) -> Result<Json<Accepted>, Problem> {
    let Given(AnotherModel { model }) = input.body;
    let submitted = api.lane.run_again(input.path.id, model).await?;
    Ok(Json(accepted(&api, submitted).await))
}

/// `GET jobs/{id}?wait=30s`.
pub(super) async fn read(
    api: Arc<Api>,
    input: Input<JobPath, WaitQuery>,
) -> Result<JobState, Problem> {
    let id = input.path.id;
    api.check_own(&input.principal, id).await?;
    let ended = match input.query.wait {
        None => None,
        Some(Wait(limit)) => {
            let waited_for = api.lane.wait_for(id, limit);
            match await_while_key_opens(&api, &input.principal, waited_for).await? {
                Ok(record) => Some(record),
                Err(Error::WaitTimeout(_)) => None,
                Err(error) => return Err(error.into()),
            }
        }
    };
    let (record, reason) = match ended {
        Some(record) => (record, None),
        None => {
            let detail = api.lane.job(id).await?;
            (detail.record, detail.wait_reason)
        }
    };
    Ok(JobState {
        has_ended: record.job.status.is_terminal(),
        job: JobView::whole(record).with_wait(reason),
    })
}
