//! Attempts that may have been billed, and what was found out about them.

use onelane_core::model::{Billing, CallOutcome, CallRecord, Currency, JobId, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::call::UsageView;
use super::job::FailureView;
use super::price::PriceView;
use super::{decimal, rfc3339};

/// An attempt that may have been billed, where nobody has found out yet.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "MaybeBilled")]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct MaybeBilledView {
    /// The `request_id` that GLM saw: what to look for in GLM's own records.
    id: String,
    job_id: JobId,
    attempt: u32,
    user_id: String,
    model: String,
    #[serde(serialize_with = "rfc3339")]
    started_at: Timestamp,
    #[serde(serialize_with = "rfc3339")]
    ended_at: Timestamp,
    outcome: CallOutcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<FailureView>,
}

impl MaybeBilledView {
    pub(in crate::api) fn new(call: CallRecord) -> Self {
        Self {
            id: call.request_id.to_string(),
            job_id: call.job_id,
            attempt: call.attempt.0,
            user_id: call.user_id,
            model: call.model,
            started_at: call.started_at,
            ended_at: call.ended_at,
            outcome: call.outcome,
            error: call.failure.map(FailureView::new),
        }
    }
}

/// What was found out.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Billing")]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct BillingView {
    billed: bool,
    usage: UsageView,
    /// `null` when nothing was billed or the cost is not known.
    #[schemars(with = "Option<f64>")]
    cost: Option<Box<RawValue>>,
    currency: Option<Currency>,
    /// The prices that the cost was worked out by; left out when somebody stated it.
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<PriceView>,
    #[serde(serialize_with = "rfc3339")]
    at: Timestamp,
}

impl BillingView {
    pub(in crate::api) fn new(billing: &Billing) -> Self {
        Self {
            billed: billing.billed,
            usage: UsageView::new(&billing.usage),
            cost: billing.cost.map(decimal),
            currency: billing.cost.map(|cost| cost.currency),
            price: billing.price.as_ref().map(PriceView::new),
            at: billing.at,
        }
    }
}
