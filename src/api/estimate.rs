//! What jobs may cost; nothing is submitted.

use std::sync::Arc;

use warp::http::StatusCode;

use super::Api;
use super::answer::{Answer, Reply, Shapes};
use super::input::{Input, Nothing};
use super::problem::Problem;
use super::submission::Submissions;
use super::views::{self, EstimatesView};

/// The estimates; when every job would be refused, with the first refusal's status.
pub(super) struct Estimated {
    status: StatusCode,
    view: EstimatesView,
}

impl Answer for Estimated {
    fn reply(self) -> Reply {
        Reply::json(self.status, &self.view)
    }

    fn describe(shapes: &mut Shapes<'_>) {
        shapes.json::<EstimatesView>("200", "Each job in its order, and all together.");
        let about = "Every job of a list would be refused; the status is the first refusal's.";
        shapes.json::<EstimatesView>("422", about);
    }
}

/// Of one job or a list, as they would be submitted. Of a list each job that would be refused is told why.
pub(super) async fn estimate(
    api: Arc<Api>,
    input: Input<Nothing, Nothing, Submissions>,
) -> Result<Estimated, Problem> {
    let (jobs, is_one) = match input.body {
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
    Ok(Estimated { status, view })
}
