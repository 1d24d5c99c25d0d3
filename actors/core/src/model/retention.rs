//! How long what has ended is kept.

/// How long, and how many. 0: for ever, and any number. What waits or runs is never pruned, nor are the
/// usage aggregates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Rows of the call log are pruned so many days after their call ended.
    pub calls_days: u32,
    /// Of more rows of the call log than this the oldest are pruned.
    pub calls_max: u64,
    /// Completed and cancelled jobs are pruned so many days after they ended.
    pub jobs_days: u32,
    /// Of more such jobs than this those that ended first are pruned.
    pub jobs_max: u64,
    /// Failed jobs, which may be retried by hand, are pruned so many days after they ended.
    pub failed_days: u32,
    /// Of more failed jobs than this those that ended first are pruned.
    pub failed_max: u64,
    /// Requests and responses of completed and cancelled jobs and responses are pruned so many days after they ended, and the jobs stay.
    pub bodies_days: u32,
}
