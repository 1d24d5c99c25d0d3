//! What jobs may cost; nothing is submitted.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use warp::http::StatusCode;

use super::Api;
use super::answer::{Answer, Reply, Shapes};
use super::input::{Input, Nothing};
use super::problem::{Each, Elements, Problem};
use super::submission::Submissions;
use crate::estimate::{JobEstimate, Total};

/// Each job in its order, and all together.
#[derive(Serialize, JsonSchema)]
struct Estimates {
    jobs: Vec<Each<JobEstimate>>,
    total: Total,
    /// Jobs that would be refused; they are in no sum.
    refused: usize,
}

/// The estimates; when every job would be refused, with the first refusal's status.
pub(super) struct Estimated {
    status: StatusCode,
    estimates: Estimates,
}

impl Answer for Estimated {
    fn reply(self) -> Reply {
        Reply::json(self.status, &self.estimates)
    }

    fn describe(shapes: &mut Shapes<'_>) {
        shapes.json::<Estimates>("200", "Each job in its order, and all together.");
        let about = "Every job of a list would be refused; the status is the first refusal's.";
        shapes.json::<Estimates>("422", about);
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
    let mut answers = api.lane.estimate_many(jobs).await?;
    if is_one && let Some(Err(_)) = answers.first() {
        let refused = answers.swap_remove(0).map(|_| ());
        refused?;
    }
    // The list may be another one since it was asked for: the estimates say which they are of.
    let of_list = answers.iter().flatten().next().map(|job| job.currency);
    let mut total = Total::new(of_list.unwrap_or(currency));
    answers.iter().flatten().for_each(|job| total.add(job));
    let Elements {
        all: jobs,
        refused,
        status,
        ..
    } = answers.into_iter().collect();
    Ok(Estimated {
        status: status.unwrap_or(StatusCode::OK),
        estimates: Estimates {
            jobs,
            total,
            refused,
        },
    })
}
