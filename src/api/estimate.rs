//! `POST /api/admin/glm/estimate`: what jobs may cost; nothing is submitted.

use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::body::Body;
use super::problem::Problem;
use super::submission::{self, Submissions};
use super::views;
use super::{Api, reply};

/// Of one job or a list, as they would be submitted. Of a list each job that would be refused is told why;
/// when all would be, the first refusal's status is the answer's.
pub(super) async fn estimate(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let raw = body.json(headers).await?;
    let (jobs, is_one) = match submission::read(&raw, None)? {
        Submissions::One(job) => (vec![*job], true),
        Submissions::Many(jobs) => (jobs, false),
    };
    let currency = api.lane.settings().prices.currency();
    let answers = api.lane.estimate_many(jobs).await?;
    let mut estimates = Vec::with_capacity(answers.len());
    for (i, answer) in answers.into_iter().enumerate() {
        estimates.push(match answer {
            Ok(estimate) => Ok(estimate),
            Err(error) if is_one => return Err(error.into()),
            Err(error) => Err(Problem::from(error).within(&format!("[{i}]."))),
        });
    }
    let first_refusal = estimates.iter().find_map(|answer| answer.as_ref().err());
    let status = match first_refusal {
        Some(problem) if estimates.iter().all(Result::is_err) => problem.status(),
        _ => StatusCode::OK,
    };
    let view = views::estimates(&estimates, currency);
    Ok(reply::json(status, &view))
}
