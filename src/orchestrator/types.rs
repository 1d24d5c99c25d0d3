//! What the facade takes and gives beside the nouns of the lane.

use onelane_actors::cost::Totals;
use onelane_actors::ports::{JobRecord, StatusCounts};
use onelane_core::model::{CallRecord, DeliveryCounts, WaitReason};
use onelane_core::scheduler::SchedulerSnapshot;
use schemars::JsonSchema;
use serde::Serialize;

/// A job whole, with its attempts.
#[derive(Debug, Clone)]
pub struct JobDetail {
    /// The job, its request and its response.
    pub record: JobRecord,
    /// Its attempts that have ended, oldest first.
    pub attempts: Vec<CallRecord>,
    /// Why it is not running now; `None`: it does not wait.
    pub wait_reason: Option<WaitReason>,
}

/// A page of dead letters, newest first.
#[derive(Debug, Clone, Default)]
pub struct DeadLetters {
    /// The failed jobs, each with its attempts.
    pub letters: Vec<JobDetail>,
    /// How many there are in all, not only on this page.
    pub total: u64,
    /// Where the next page begins; `None` on the last.
    pub cursor: Option<u64>,
}

/// Figures of the lane.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// The latest calls, newest first. On the wire each is a `GLMCallLog`.
    #[serde(skip)]
    pub recent_calls: Vec<CallRecord>,
    /// The share of the latest calls that failed, 0 to 1.
    pub error_rate: f64,
    /// The mean response time of the latest calls that were answered, in milliseconds.
    #[serde(rename = "averageResponseTime")]
    pub average_response_time_ms: f64,
    /// How many of the latest calls were throttled.
    pub throttles: u64,
    /// Attempts that may have been billed, where nobody has found out yet; counted up to 1000.
    pub maybe_billed: u64,
    /// Jobs by status.
    pub jobs: StatusCounts,
    /// The lanes.
    pub lane: SchedulerSnapshot,
    /// Deliveries to webhooks by status.
    pub deliveries: DeliveryCounts,
    /// Whether the clock is a day or more ahead of where it was last believed: nothing is pruned for now.
    pub clock_in_doubt: bool,
    /// Totals since this process started: hints, the truth is in the statistics.
    pub since_start: Totals,
}

/// How a shutdown ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// Whether every open call ended by itself before the deadline.
    pub drained: bool,
}
