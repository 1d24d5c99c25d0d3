//! What the facade takes and gives beside the nouns of the lane.

use onelane_actors::model::{BreakerSnapshot, CallRecord, Cost, Hold, Pause, Usage};
use onelane_actors::ports::{JobRecord, StatusCounts};

/// A job whole, with its attempts.
#[derive(Debug, Clone)]
pub struct JobDetail {
    /// The job, its request and its response.
    pub record: JobRecord,
    /// Its attempts that have ended, oldest first.
    pub attempts: Vec<CallRecord>,
}

/// The lane at this moment.
#[derive(Debug, Clone)]
pub struct LaneStatus {
    /// Whether the configuration lets it run (`is_active`).
    pub active: bool,
    /// An operator's pause.
    pub paused: Option<Pause>,
    /// The hold in force.
    pub hold: Option<Hold>,
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
    /// Rises with every restart of an actor.
    pub generation: u64,
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
    /// Tokens since the start of this process (a hint; the truth is in `usage`).
    pub usage: Usage,
    /// Costs since the start of this process (a hint; the truth is in `usage`).
    pub cost: Vec<Cost>,
    /// Calls since the start of this process.
    pub calls: u64,
}

/// How a shutdown ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// Whether every open call ended by itself before the deadline.
    pub drained: bool,
}
