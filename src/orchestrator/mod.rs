//! The facade: what an embedding process, the API and the command line hold. It hides actor
//! references and restarts.

use std::sync::Arc;
use std::time::Duration;

use onelane_actors::model::{
    BreakerSnapshot, CallRecord, Event, Failure, Hold, JobId, JobStatus, Pause, Request, Timestamp, UsageRow, Cost, Usage,
};
use onelane_actors::ports::{CallFilter, CallPage, JobFilter, JobPage, JobRecord, StatusCounts, UsageFilter};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::Error;

/// A job as it is submitted. Fields that are `None` take the configured default.
#[derive(Debug, Clone)]
pub struct Submission {
    /// What to ask GLM.
    pub request: Request,
    /// The model; a chat body's own `model` counts when this is `None`.
    pub model: Option<String>,
    /// Whose job it is.
    pub user_id: String,
    /// What it is about, in the submitter's own terms.
    pub content_id: Option<String>,
    /// Higher is more urgent.
    pub priority: i32,
    /// Retries of transient failures.
    pub max_retries: Option<u32>,
    /// Not before this moment.
    pub run_at: Option<Timestamp>,
    /// Fails if not done by this moment.
    pub deadline: Option<Timestamp>,
    /// The total time of one call, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// The same key of the same user with the same request gives the same job.
    pub idempotency_key: Option<String>,
    /// Any JSON of the submitter's own, kept as it came.
    pub metadata: Option<Box<RawValue>>,
}

impl Submission {
    /// A prompt of user `default`, priority 0.
    pub fn prompt(text: impl Into<String>) -> Result<Self, Error> { let _ = text; unimplemented!() }
    /// A chat body from its JSON text.
    pub fn chat(json: &str) -> Result<Self, Error> { let _ = json; unimplemented!() }
    /// With this priority.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self { self.priority = priority; self }
    /// For this model.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self { self.model = Some(model.into()); self }
    /// For this user.
    #[must_use]
    pub fn user(mut self, user_id: impl Into<String>) -> Self { self.user_id = user_id.into(); self }
    /// With this idempotency key.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self { self.idempotency_key = Some(key.into()); self }
}

/// What became of a submission: the job is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    /// The job.
    pub job_id: JobId,
    /// `false`: the same submission (same idempotency key) was there before.
    pub created: bool,
}

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
    /// How often actors were restarted: rises with each restart.
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

/// What a subscriber gets.
#[derive(Debug, Clone)]
pub enum Feed {
    /// A fact, with its time.
    Event(Timestamp, Arc<Event>),
    /// The subscriber was too slow and missed so many.
    Missed(u64),
}

/// A subscription to live events.
#[derive(Debug)]
pub struct Events { _private: () }

impl Events {
    /// The next event; `None` once the lane has stopped.
    pub async fn next(&mut self) -> Option<Feed> { unimplemented!() }
}

/// The lane, as its users hold it. Clones are cheap and mean the same lane.
#[derive(Debug, Clone)]
pub struct Orchestrator { _private: () }

impl Orchestrator {
    /// Puts a job on disk; answers once it is durable.
    pub async fn submit(&self, submission: Submission) -> Result<Submitted, Error> { let _ = submission; unimplemented!() }
    /// Puts many jobs on disk in few transactions. A job that is refused does not hinder the others.
    pub async fn submit_many(&self, submissions: Vec<Submission>) -> Result<Vec<Result<Submitted, Error>>, Error> { let _ = submissions; unimplemented!() }
    /// Submits and waits: resolves to the completed job, or to `JobFailed`/`JobCancelled`.
    pub async fn call(&self, submission: Submission) -> Result<JobRecord, Error> { let _ = submission; unimplemented!() }
    /// Waits until the job has a terminal status and returns it, whichever that is.
    pub async fn wait(&self, id: JobId) -> Result<JobRecord, Error> { let _ = id; unimplemented!() }
    /// As `wait`, at most for `limit`; then `WaitTimeout`.
    pub async fn wait_for(&self, id: JobId, limit: Duration) -> Result<JobRecord, Error> { let _ = (id, limit); unimplemented!() }
    /// One job with its attempts. `NotFound` if there is none.
    pub async fn job(&self, id: JobId) -> Result<JobDetail, Error> { let _ = id; unimplemented!() }
    /// A page of jobs, newest first.
    pub async fn jobs(&self, filter: JobFilter, cursor: Option<u64>, limit: usize) -> Result<JobPage, Error> { let _ = (filter, cursor, limit); unimplemented!() }
    /// A page of the call log, newest first.
    pub async fn calls(&self, filter: CallFilter, cursor: Option<u64>, limit: usize) -> Result<CallPage, Error> { let _ = (filter, cursor, limit); unimplemented!() }
    /// Cancels a waiting or running job (the open call is closed). Cancelling a cancelled job is fine;
    /// a completed or failed one is `WrongStatus`.
    pub async fn cancel(&self, id: JobId) -> Result<(), Error> { let _ = id; unimplemented!() }
    /// Puts a failed or cancelled job back in line with fresh retries; otherwise `WrongStatus`.
    pub async fn retry(&self, id: JobId) -> Result<(), Error> { let _ = id; unimplemented!() }
    /// Changes the priority of a pending job.
    pub async fn reprioritise(&self, id: JobId, priority: i32) -> Result<(), Error> { let _ = (id, priority); unimplemented!() }
    /// Jobs by status.
    pub async fn queue_status(&self) -> Result<StatusCounts, Error> { unimplemented!() }
    /// Usage rows (day x model x user), ordered by day, model, user.
    pub async fn usage(&self, filter: UsageFilter) -> Result<Vec<UsageRow>, Error> { let _ = filter; unimplemented!() }
    /// Figures of the lane.
    pub async fn metrics(&self) -> Result<Metrics, Error> { unimplemented!() }
    /// The lane at this moment.
    pub async fn lane(&self) -> Result<LaneStatus, Error> { unimplemented!() }
    /// Stops the lane before its next call; stored, so that it outlives a restart.
    pub async fn pause(&self, reason: Option<String>) -> Result<(), Error> { let _ = reason; unimplemented!() }
    /// Ends a pause and every hold.
    pub async fn resume(&self) -> Result<(), Error> { unimplemented!() }
    /// The configuration as the admin API shows it (`GLMConfig`, camelCase, key masked).
    pub fn config_view(&self) -> Value { unimplemented!() }
    /// Changes the running configuration: validated, stored, live at once. `patch` is a part of a
    /// `GLMConfig`. Answers the new view. Bad fields come back as `Invalid`.
    pub async fn set_config(&self, patch: &Value) -> Result<Value, Error> { let _ = patch; unimplemented!() }
    /// Live events from now on.
    pub fn subscribe(&self) -> Events { unimplemented!() }
    /// Stops taking jobs, lets open calls finish until `deadline`, then closes them (recorded as
    /// interrupted), stores everything and stops.
    pub async fn shutdown(&self, deadline: Duration) -> Shutdown { let _ = deadline; unimplemented!() }
    /// Resolves when the lane has stopped by itself, to the reason: an actor that kept failing, or
    /// a store that failed.
    pub async fn stopped(&self) -> StopReason { unimplemented!() }
}

/// Why a lane stopped by itself.
#[derive(Debug, Clone)]
pub enum StopReason {
    /// `shutdown` was called.
    Shutdown,
    /// The store failed and could not be reopened.
    Store(onelane_actors::ports::StoreError),
    /// Actors failed more often than the restart budget allows.
    Failed(String),
}

#[allow(dead_code)]
fn _types(_: JobStatus, _: Failure) {}
