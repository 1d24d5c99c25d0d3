//! `POST /api/admin/glm/estimate`: what jobs may cost; nothing is submitted.

use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::body::Body;
use super::problem::Problem;
use super::submission::{self, Submissions};
use super::views::EstimatesView;
use super::{Api, reply};

/// Of one job or a list, as they would be submitted.
pub(super) async fn estimate(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let raw = body.json(headers).await?;
    let jobs = match submission::read(&raw, None)? {
        Submissions::One(job) => vec![*job],
        Submissions::Many(jobs) => jobs,
    };
    let currency = api.lane.settings().prices.currency();
    let estimates = api.lane.estimate_many(jobs).await?;
    let view = EstimatesView::new(&estimates, currency);
    Ok(reply::json(StatusCode::OK, &view))
}
