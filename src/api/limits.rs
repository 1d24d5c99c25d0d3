//! Every hard bound of the API in one place, with its unit in its name. Those of the lane itself are
//! in `onelane_core::model::limits`.

pub use onelane_core::model::limits::TOKENS_MAX;

/// Connections open at once; further ones wait in the system's backlog.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Bytes of a request's line and headers together.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Headers of one request.
pub const HEADERS_MAX: usize = 100;
/// The longest `?wait=`, in milliseconds.
pub const WAIT_MS_MAX: u64 = 5 * 60 * 1_000;
/// Days of one statistics answer.
pub const STATISTICS_DAYS_MAX: i32 = 3_660;
/// Days of a statistics answer when nobody says from when.
pub const STATISTICS_DAYS_DEFAULT: i32 = 30;
/// Calls that the metrics show.
pub const RECENT_CALLS_SHOWN: usize = 20;
/// Errors of one request that its answer lists.
pub const ERRORS_SHOWN_MAX: usize = 20;
/// Characters of an operator's reason.
pub const REASON_CHARS_MAX: usize = 500;
/// The longest time for which the breaker is opened, in milliseconds: a year.
pub const BREAKER_OPEN_MS_MAX: u64 = 365 * 24 * 60 * 60 * 1_000;
/// What `Retry-After` says when the queue is full, in seconds.
pub const QUEUE_FULL_RETRY_AFTER_S: u64 = 5;
/// The longest time one call of a job may ask for, in milliseconds: a day.
pub const CALL_TIMEOUT_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
