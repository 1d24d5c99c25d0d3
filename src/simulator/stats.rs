//! The simulator's record for tests: the witness of "one call at a time". Times are microseconds of
//! a monotonic clock since the start or the last reset.

use std::collections::BTreeMap;

use serde::Serialize;

use super::config::Operation;

/// One request as it came and went.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Arrival {
    /// Its route.
    pub operation: Operation,
    /// When its head had been read.
    pub at_us: u64,
    /// When its response was handed over or its connection was over; `None`: still in flight.
    pub end_us: Option<u64>,
    /// Which connection it came on, from 1.
    pub connection: u64,
    /// The model it asked for; empty when its body was not that of a chat.
    pub model: String,
    /// The beginning of its prompt: the last user message.
    pub prompt: String,
    /// Its `request_id`; empty without one.
    pub request_id: String,
    /// The task it made or looked at; empty without one.
    pub task_id: String,
    /// Requests for work in flight when it came, itself and unfinished tasks included. 0 for a look.
    pub in_flight: u64,
    /// Those of them that were for its model.
    pub in_flight_of_model: u64,
    /// The priority that its prompt names, as `[[sim priority=5]]`.
    pub priority: Option<i32>,
    /// The HTTP status it was answered with.
    pub status: Option<u16>,
    /// GLM's code, when it was refused.
    pub code: Option<String>,
    /// Whether the client left before it had the whole response.
    pub client_left: bool,
}

/// The sums over all requests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Since the start or the last reset.
    pub uptime_us: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Of them, open now.
    pub open_connections: u64,
    /// Requests for work that arrived: chat completions and tasks.
    pub calls: u64,
    /// Of them, those that handed over a task.
    pub task_submissions: u64,
    /// Looks at tasks that arrived.
    pub task_looks: u64,
    /// Works that were done or begun, and are billed: answers written, tasks accepted that don't fail.
    pub bought: u64,
    /// Different works (by their prompts) among them: less than `bought` when something was bought again.
    pub works_bought: u64,
    /// Requests for work whose response was handed over whole with a status below 400.
    pub answered: u64,
    /// Requests whose client left first.
    pub clients_left: u64,
    /// Requests for work in flight now, unfinished tasks included.
    pub in_flight: u64,
    /// The most that ever were in flight at once.
    pub peak_in_flight: u64,
    /// The same by model.
    pub peak_by_model: BTreeMap<String, u64>,
    /// Responses by HTTP status, looks included.
    pub by_status: BTreeMap<u16, u64>,
    /// Refusals by GLM's code.
    pub by_code: BTreeMap<String, u64>,
    /// Different `request_id`s.
    pub request_ids: u64,
    /// Requests whose `request_id` had come before.
    pub duplicate_request_ids: u64,
    /// From the end of a response, with nothing else in flight, to the arrival of the next request.
    pub gaps: Gaps,
    /// Steps of the script not yet played.
    pub script_left: u64,
}

/// The lane's idle gaps as the server sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gaps {
    /// How many (of the last, the memory being bounded).
    pub count: u64,
    /// The median.
    pub p50_us: u64,
    /// 99 of 100 are not longer.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}
