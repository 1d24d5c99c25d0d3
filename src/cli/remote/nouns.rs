//! What is read of the API's nouns: the fields that text shows. All others go to programs as they came.

use std::collections::BTreeMap;

use onelane::model::{Currency, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::money::{Amount, Cost, Exact};
use super::words::{until, with_clocks};

/// Why something waits, in the API's own words.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct WaitReason {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) help: Option<String>,
    pub(super) until: Option<Timestamp>,
    pub(super) scope: Option<String>,
    pub(super) model: Option<String>,
    pub(super) lane: Option<String>,
}

impl WaitReason {
    /// The API's words, and when it ends.
    pub(super) fn told(&self, now: Timestamp) -> String {
        let text = with_clocks(&self.text, now);
        match self.until {
            Some(at) => format!("{text} ({})", until(at, now)),
            None => text,
        }
    }
}

/// A job.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Job {
    pub(super) id: String,
    pub(super) status: String,
    pub(super) user_id: String,
    pub(super) model: String,
    pub(super) priority: i32,
    pub(super) created_at: Timestamp,
    pub(super) processed_at: Option<Timestamp>,
    pub(super) started_at: Option<Timestamp>,
    #[serde(default)]
    pub(super) retry_count: u32,
    #[serde(default)]
    pub(super) max_retries: u32,
    pub(super) content_id: Option<String>,
    pub(super) batch_id: Option<String>,
    pub(super) session: Option<String>,
    pub(super) error_message: Option<String>,
    pub(super) prompt: Option<String>,
    pub(super) result_preview: Option<String>,
    pub(super) result: Option<Box<RawValue>>,
    pub(super) wait_reason: Option<WaitReason>,
    #[serde(default)]
    pub(super) attempts: Vec<Call>,
}

/// A list of jobs.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Queue {
    pub(super) queue: Vec<Job>,
    pub(super) total: u64,
    pub(super) next_cursor: Option<String>,
}

/// A row of the call log.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) request_id: String,
    pub(super) attempt: u32,
    pub(super) model: String,
    pub(super) user_id: String,
    pub(super) outcome: String,
    pub(super) timestamp: Timestamp,
    pub(super) ended_at: Timestamp,
    pub(super) cost: Option<Exact>,
    pub(super) currency: Option<Currency>,
    #[serde(default)]
    pub(super) unpriced: bool,
    #[serde(default)]
    pub(super) maybe_billed: bool,
    pub(super) response: CallResponse,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CallResponse {
    pub(super) tokens_used: Option<u64>,
    pub(super) error: Option<CallError>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct CallError {
    pub(super) code: String,
    pub(super) message: String,
}

impl Call {
    /// What it cost, where that is known.
    pub(super) fn costs(&self) -> Vec<Cost> {
        let cost = self.cost.zip(self.currency);
        let cost = cost.map(|(cost, currency)| Cost { cost, currency });
        cost.into_iter().collect()
    }

    /// How it ended, in a few words.
    pub(super) fn end(&self) -> String {
        let doubt = if self.maybe_billed {
            ", maybe billed"
        } else {
            ""
        };
        match &self.response.error {
            Some(error) => format!("{}{doubt}: {}: {}", self.outcome, error.code, error.message),
            None => format!("{}{doubt}", self.outcome),
        }
    }
}

/// A page of the call log.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Calls {
    pub(super) calls: Vec<Call>,
    pub(super) next_cursor: Option<String>,
}

/// The lane at a moment.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metrics {
    pub(super) jobs: StatusCounts,
    pub(super) lane: Scheduler,
    pub(super) error_rate: f64,
    pub(super) average_response_time: f64,
    pub(super) maybe_billed: u64,
    #[serde(default)]
    pub(super) recent_calls: Vec<Call>,
    #[serde(default)]
    pub(super) active_alerts: Vec<Alert>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Alert {
    pub(super) message: String,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct StatusCounts {
    pub(super) pending: u64,
    pub(super) processing: u64,
    pub(super) completed: u64,
    pub(super) failed: u64,
    pub(super) cancelled: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Scheduler {
    pub(super) holds: Vec<Hold>,
    pub(super) lanes: Vec<Lane>,
    pub(super) wait_counts: BTreeMap<String, u64>,
    pub(super) wait_reason: Option<WaitReason>,
    pub(super) draining: Option<Pause>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Pause {
    pub(super) reason: Option<String>,
    pub(super) since: Timestamp,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) in_flight: u32,
    pub(super) limit: u32,
    pub(super) max_concurrency: u32,
    pub(super) wait_reason: Option<WaitReason>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Hold {
    pub(super) scope: String,
    pub(super) name: Option<String>,
    pub(super) kind: String,
    pub(super) code: String,
    pub(super) message: String,
    pub(super) since: Timestamp,
    pub(super) until: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Holds {
    pub(super) holds: Vec<Hold>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Breaker {
    pub(super) state: String,
    pub(super) since: Timestamp,
    pub(super) probe_at: Option<Timestamp>,
    pub(super) reason: Option<String>,
    pub(super) forced: bool,
    pub(super) consecutive_failures: u32,
    pub(super) window_calls: u64,
    pub(super) window_failures: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct BreakerAnswer {
    pub(super) breaker: Breaker,
}

/// How a budget stands.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Budget {
    pub(super) budget: String,
    pub(super) user_id: Option<String>,
    pub(super) key_id: Option<String>,
    pub(super) model: Option<String>,
    pub(super) period: String,
    pub(super) limit: Amount,
    pub(super) spent: Amount,
    pub(super) left: Amount,
    pub(super) reserved: Amount,
    pub(super) in_doubt: Amount,
    pub(super) over: String,
    pub(super) until: Timestamp,
    pub(super) short: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Budgets {
    pub(super) budgets: Vec<Budget>,
    /// Accounts that the daemon did not tell of.
    #[serde(default)]
    pub(super) left_out: u64,
}

/// A row of statistics.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UsageRow {
    pub(super) date: Option<String>,
    pub(super) model: Option<String>,
    pub(super) user_id: Option<String>,
    pub(super) key_id: Option<String>,
    pub(super) session: Option<String>,
    pub(super) total_calls: u64,
    pub(super) failed_calls: u64,
    pub(super) total_tokens: u64,
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
    pub(super) costs: Vec<Cost>,
    pub(super) unpriced_calls: u64,
    pub(super) average_response_time: u64,
    pub(super) percentiles: Option<Percentiles>,
    pub(super) first_token: Option<Percentiles>,
    pub(super) tokens_per_second: Option<f64>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Percentiles {
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p95: u64,
    pub(super) p99: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Statistics {
    pub(super) statistics: Vec<UsageRow>,
    pub(super) calls_not_in_log: Option<u64>,
}

/// A batch.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Batch {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) state: String,
    pub(super) counts: StatusCounts,
    #[serde(default)]
    pub(super) costs: Vec<Cost>,
    #[serde(default)]
    pub(super) unpriced_calls: u64,
    pub(super) created_at: Timestamp,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) cancelled_at: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Batches {
    pub(super) batches: Vec<Batch>,
    pub(super) loose_jobs: u64,
}

/// How many jobs changed.
#[derive(Debug, Deserialize)]
pub(super) struct Changed {
    pub(super) count: u64,
}

/// Which onelane it is.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct About {
    pub(super) version: String,
    pub(super) store_id: Option<String>,
    #[serde(default)]
    pub(super) simulated: bool,
}
