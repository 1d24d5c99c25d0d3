//! `/api/glm/jobs`: programs submit jobs and fetch them when they are done.

use onelane_core::model::JobId;
use serde::Serialize;
use warp::http::header::LOCATION;
use warp::http::{HeaderMap, HeaderValue, StatusCode};
use warp::reply::Response;

use super::body::Body;
use super::problem::Problem;
use super::query::Query;
use super::submission::{self, Submissions};
use super::views::{JobView, Shown};
use super::{Api, reply};
use crate::error::Error;
use crate::orchestrator::Submitted;

/// A job that is on disk.
#[derive(Serialize)]
struct Accepted {
    id: JobId,
    /// `pending`, or where a job is that was submitted before.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    created: bool,
}

/// What became of one job of a list.
#[derive(Serialize)]
#[serde(untagged)]
enum Element<'a, P> {
    Accepted(&'a Accepted),
    Refused { error: P },
}

#[derive(Serialize)]
struct Elements<'a, P> {
    jobs: Vec<Element<'a, P>>,
    accepted: usize,
    refused: usize,
}

/// `POST jobs`: one job or a list. Answers once they are durable.
pub(super) async fn submit(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let key = submission::idempotency_key(headers)?;
    let raw = body.json(headers).await?;
    match submission::read(&raw, key)? {
        Submissions::One(job) => {
            let submitted = api.lane.submit(*job).await?;
            let accepted = accepted(api, submitted).await;
            let mut response = reply::json(StatusCode::ACCEPTED, &accepted);
            if let Ok(at) = HeaderValue::try_from(format!("/api/glm/jobs/{}", accepted.id)) {
                response.headers_mut().insert(LOCATION, at);
            }
            Ok(response)
        }
        Submissions::Many(jobs) => {
            let answers = api.lane.submit_many(jobs).await?;
            Ok(submitted_many(api, answers).await)
        }
    }
}

/// The answer to a list: each job's own, in the list's order. When none was taken, the first
/// refusal's status is the answer's.
async fn submitted_many(api: &Api, answers: Vec<Result<Submitted, Error>>) -> Response {
    let mut outcomes = Vec::with_capacity(answers.len());
    for (i, answer) in answers.into_iter().enumerate() {
        outcomes.push(match answer {
            Ok(submitted) => Ok(accepted(api, submitted).await),
            Err(error) => Err(Problem::from(error).within(&format!("[{i}]."))),
        });
    }
    let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    let taken = outcomes.len() - refused;
    let first_refusal = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
    let status = match first_refusal {
        Some(problem) if taken == 0 => problem.status(),
        _ => StatusCode::ACCEPTED,
    };
    let jobs = outcomes.iter().map(|outcome| match outcome {
        Ok(accepted) => Element::Accepted(accepted),
        Err(problem) => Element::Refused {
            error: problem.body(),
        },
    });
    let body = Elements {
        jobs: jobs.collect(),
        accepted: taken,
        refused,
    };
    reply::json(status, &body)
}

/// A new job is pending. One that was there before is wherever it has got to.
async fn accepted(api: &Api, submitted: Submitted) -> Accepted {
    let status = if submitted.created {
        Some("pending")
    } else {
        let found = api.lane.job(submitted.job_id).await.ok();
        found.map(|detail| detail.record.job.status.name())
    };
    Accepted {
        id: submitted.job_id,
        status,
        created: submitted.created,
    }
}

/// `GET jobs/{id}?wait=30s`: 200 with a job that has ended, 202 with one that goes on.
pub(super) async fn read(api: &Api, id: JobId, query: &str) -> Result<Response, Problem> {
    let query = Query::parse(query, &["wait"])?;
    let ended = match query.wait()? {
        None => None,
        Some(limit) => match api.lane.wait_for(id, limit).await {
            Ok(record) => Some(record),
            Err(Error::WaitTimeout(_)) => None,
            Err(error) => return Err(error.into()),
        },
    };
    let record = match ended {
        Some(record) => record,
        None => api.lane.job(id).await?.record,
    };
    let status = if record.job.status.is_terminal() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok(reply::json(status, &JobView::new(&record, Shown::Whole)))
}
