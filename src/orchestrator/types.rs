//! What the facade takes and gives beside the nouns of the lane.

use onelane_actors::ports::{JobRecord, StatusCounts};
use onelane_actors::samples::Estimates;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use onelane_core::model::{
    BreakerSnapshot, CallRecord, Cost, DeliveryCounts, Hold, HoldScope, LearntLimit, Pause,
    ScopedHold, Timestamp, ToldWait, Usage, WaitReason,
};
use onelane_core::scheduler::WaitCounts;

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

/// One lane among several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LaneDetail {
    /// Its name.
    pub name: String,
    /// Calls in flight on it.
    pub in_flight: u64,
    /// Jobs whose next attempt is on record ahead of a slot.
    pub staged: u64,
    /// Calls that may be in flight for now.
    pub limit: u16,
    /// Calls that may be in flight as configured.
    pub max_concurrency: u16,
    /// Its pace lets nothing start before this moment.
    pub not_before: Option<Timestamp>,
    /// The hold in force on it alone.
    pub hold: Option<Hold>,
    /// Throttle answers in a row.
    pub throttle_level: u32,
    /// What automatic concurrency has learnt; `None` without it.
    pub learnt: Option<LearntLimit>,
    /// Why it lets nothing go; `None`: it does.
    #[serde(serialize_with = "told")]
    #[schemars(with = "Option<ToldWait>")]
    pub wait_reason: Option<WaitReason>,
}

/// A model that has been overloaded or is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelDetail {
    /// The model.
    pub model: String,
    /// The hold in force on it alone: its short breaker.
    pub hold: Option<Hold>,
    /// Overload answers in a row.
    pub overloads: u32,
}

/// The lane at this moment.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LaneStatus {
    /// Whether the configuration lets it run (`is_active`).
    #[serde(rename = "isActive")]
    pub active: bool,
    /// An operator's pause.
    pub paused: Option<Pause>,
    /// An operator closed the intake: what waits is worked off, nothing more is taken.
    pub draining: Option<Pause>,
    /// The intake is closed, and no job waits or runs any more.
    pub drained: bool,
    /// The first of `holds`.
    pub hold: Option<Hold>,
    /// Every hold in force with what it stops: the account's first, then the lanes', then the models'.
    #[serde(serialize_with = "scoped")]
    #[schemars(with = "Vec<ScopedHold>")]
    pub holds: Vec<(HoldScope, Hold)>,
    /// The breaker.
    pub breaker: BreakerSnapshot,
    /// Calls in flight.
    pub in_flight: u32,
    /// Calls that may be in flight.
    pub max_concurrency: u16,
    /// Jobs that are due and wait for a slot.
    pub ready: u64,
    /// Jobs that wait for their time.
    pub waiting: u64,
    /// Jobs that wait for other jobs or, set aside, for somebody's word.
    pub dormant: u64,
    /// Of those the ones that wait for room in a budget.
    pub over_budget: u64,
    /// Why nothing goes on; `None`: something does, or nothing waits.
    #[serde(serialize_with = "told")]
    #[schemars(with = "Option<ToldWait>")]
    pub wait_reason: Option<WaitReason>,
    /// How many jobs wait for each reason; every name of [`WaitReason::NAMES`] is there.
    pub wait_counts: WaitCounts,
    /// Every lane, the default one first.
    pub lanes: Vec<LaneDetail>,
    /// The models that have something to tell.
    pub models: Vec<ModelDetail>,
    /// Rises with every restart of an actor.
    pub generation: u64,
}

fn told<S: Serializer>(reason: &Option<WaitReason>, serializer: S) -> Result<S::Ok, S::Error> {
    reason.clone().map(ToldWait::from).serialize(serializer)
}

fn scoped<S: Serializer>(holds: &[(HoldScope, Hold)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(holds.iter().cloned().map(ScopedHold::from))
}

/// Figures of the lane.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The lane.
    pub lane: LaneStatus,
    /// Jobs by status.
    pub counts: StatusCounts,
    /// The latest calls, newest first.
    pub recent_calls: Vec<CallRecord>,
    /// The share of the latest calls that failed, 0 to 1.
    pub error_rate: f64,
    /// The mean response time of the latest calls that were answered, in milliseconds.
    pub average_response_time_ms: f64,
    /// How many of the latest calls were throttled.
    pub throttles: u64,
    /// Attempts that may have been billed, where nobody has found out yet; counted up to 1000.
    pub maybe_billed: u64,
    /// Deliveries to webhooks by status.
    pub deliveries: DeliveryCounts,
    /// Tokens since the start of this process (a hint; the truth is in `usage`).
    pub usage: Usage,
    /// Costs since the start of this process (a hint; the truth is in `usage`).
    pub cost: Vec<Cost>,
    /// Calls since the start of this process.
    pub calls: u64,
    /// Those of them that were billed at a cost that is not known.
    pub unpriced_calls: u64,
    /// How far estimates of their prompts, by GLM's tokenizer, are off.
    pub estimates: Estimates,
}

/// How a shutdown ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// Whether every open call ended by itself before the deadline.
    pub drained: bool,
}
