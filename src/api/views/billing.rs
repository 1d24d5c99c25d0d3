//! Attempts that may have been billed, as a list shows them.

use onelane_core::model::{CallOutcome, CallRecord, Failure, JobId, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

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
    started_at: Timestamp,
    ended_at: Timestamp,
    outcome: CallOutcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
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
            error: call.failure,
        }
    }
}
