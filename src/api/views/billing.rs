//! Attempts that may have been billed, and what was found out about them.

use onelane_core::model::{Billing, CallOutcome, CallRecord, Currency, JobId, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

use super::call::UsageView;
use super::job::FailureView;
use super::price::PriceView;
use super::{decimal, rfc3339};

/// An attempt that may have been billed, where nobody has found out yet.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct MaybeBilledView<'a> {
    /// The `request_id` that GLM saw: what to look for in GLM's own records.
    id: &'a str,
    job_id: JobId,
    attempt: u32,
    user_id: &'a str,
    model: &'a str,
    #[serde(serialize_with = "rfc3339")]
    started_at: Timestamp,
    #[serde(serialize_with = "rfc3339")]
    ended_at: Timestamp,
    outcome: CallOutcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<FailureView<'a>>,
}

impl<'a> MaybeBilledView<'a> {
    pub(in crate::api) fn new(call: &'a CallRecord) -> Self {
        Self {
            id: call.request_id.as_str(),
            job_id: call.job_id,
            attempt: call.attempt.0,
            user_id: &call.user_id,
            model: &call.model,
            started_at: call.started_at,
            ended_at: call.ended_at,
            outcome: call.outcome,
            error: call.failure.as_ref().map(FailureView::new),
        }
    }
}

/// What was found out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct BillingView<'a> {
    billed: bool,
    usage: UsageView,
    /// `null` when nothing was billed or the cost is not known.
    cost: Option<Box<RawValue>>,
    currency: Option<Currency>,
    /// The prices that the cost was worked out by; left out when somebody stated it.
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<PriceView<'a>>,
    #[serde(serialize_with = "rfc3339")]
    at: Timestamp,
}

impl<'a> BillingView<'a> {
    pub(in crate::api) fn new(billing: &'a Billing) -> Self {
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
