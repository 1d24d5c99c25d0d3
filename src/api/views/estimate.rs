//! What jobs may come to, as clients see it.

use onelane_core::model::Currency;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::decimal;
use crate::api::problem::{Problem, ProblemBody};
use crate::estimate::{CostRange, JobEstimate, Total};

/// The answer to `POST /api/admin/glm/estimate`: each job in its order, and all together.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Estimates")]
pub(in crate::api) struct EstimatesView {
    jobs: Vec<Element>,
    total: TotalView,
    /// Jobs that would be refused; they are in no sum.
    refused: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "EstimateOrProblem")]
#[serde(untagged)]
enum Element {
    Estimated(EstimateView),
    Refused { error: ProblemBody },
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Estimate")]
#[serde(rename_all = "camelCase")]
struct EstimateView {
    model: String,
    prompt_tokens: u64,
    max_completion_tokens: u64,
    /// `null` when the model has no price.
    cost: Option<CostView>,
    currency: Currency,
    unpriced: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "EstimateTotal")]
#[serde(rename_all = "camelCase")]
struct TotalView {
    jobs: u64,
    prompt_tokens: u64,
    max_completion_tokens: u64,
    /// Of the jobs with a price; `null` when none has one.
    cost: Option<CostView>,
    currency: Currency,
    /// Whether any job's cost is missing in the sum.
    unpriced: bool,
    unpriced_jobs: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CostRange")]
struct CostView {
    #[schemars(with = "f64")]
    min: Box<RawValue>,
    #[schemars(with = "f64")]
    max: Box<RawValue>,
}

impl EstimateView {
    fn new(job: &JobEstimate) -> Self {
        Self {
            model: job.model.clone(),
            prompt_tokens: job.tokens.prompt_tokens,
            max_completion_tokens: job.tokens.completion_tokens_max,
            cost: job.cost.map(CostView::new),
            currency: job.currency,
            unpriced: job.cost.is_none(),
        }
    }
}

impl CostView {
    fn new(cost: CostRange) -> Self {
        Self {
            min: decimal(cost.min),
            max: decimal(cost.max),
        }
    }
}

/// The view of estimates and refusals.
pub(in crate::api) fn estimates(
    answers: &[Result<JobEstimate, Problem>],
    currency: Currency,
) -> EstimatesView {
    // The list may be another one since it was asked for: the estimates say which they are of.
    let estimates = || answers.iter().filter_map(|answer| answer.as_ref().ok());
    let currency = estimates().next().map_or(currency, |job| job.currency);
    let mut total = Total::new(currency);
    for job in estimates() {
        total.add(job);
    }
    EstimatesView {
        jobs: answers
            .iter()
            .map(|answer| match answer {
                Ok(estimate) => Element::Estimated(EstimateView::new(estimate)),
                Err(problem) => Element::Refused {
                    error: problem.body(),
                },
            })
            .collect(),
        refused: answers.len() - estimates().count(),
        total: TotalView {
            jobs: total.jobs,
            prompt_tokens: total.tokens.prompt_tokens,
            max_completion_tokens: total.tokens.completion_tokens_max,
            cost: total.cost().map(CostView::new),
            currency,
            unpriced: total.unpriced_jobs > 0,
            unpriced_jobs: total.unpriced_jobs,
        },
    }
}
