//! What jobs may come to, as clients see it.

use onelane_actors::model::Currency;
use serde::Serialize;
use serde_json::value::RawValue;

use super::decimal;
use crate::estimate::{CostRange, JobEstimate, Total};

/// The answer to `POST /api/admin/glm/estimate`: each job in its order, and all together.
#[derive(Debug, Serialize)]
pub(in crate::api) struct EstimatesView<'a> {
    jobs: Vec<JobView<'a>>,
    total: TotalView,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JobView<'a> {
    model: &'a str,
    prompt_tokens: u64,
    max_completion_tokens: u64,
    /// `null` when the model has no price.
    cost: Option<CostView>,
    currency: Currency,
    unpriced: bool,
}

#[derive(Debug, Serialize)]
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

#[derive(Debug, Serialize)]
struct CostView {
    min: Box<RawValue>,
    max: Box<RawValue>,
}

impl CostView {
    fn new(cost: CostRange) -> Self {
        Self {
            min: decimal(cost.min),
            max: decimal(cost.max),
        }
    }
}

impl<'a> EstimatesView<'a> {
    pub(in crate::api) fn new(estimates: &'a [JobEstimate], currency: Currency) -> Self {
        // The list may be another one since it was asked for: the estimates say which they are of.
        let currency = estimates.first().map_or(currency, |job| job.currency);
        let mut total = Total::new(currency);
        for job in estimates {
            total.add(job);
        }
        let job = |job: &'a JobEstimate| JobView {
            model: &job.model,
            prompt_tokens: job.tokens.prompt_tokens,
            max_completion_tokens: job.tokens.completion_tokens_max,
            cost: job.cost.map(CostView::new),
            currency: job.currency,
            unpriced: job.cost.is_none(),
        };
        Self {
            jobs: estimates.iter().map(job).collect(),
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
}
