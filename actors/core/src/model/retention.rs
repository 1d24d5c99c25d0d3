//! How long what has ended is kept.

use crate::section;

section! {
    /// How long, and how many. 0: for ever, and any number. What waits or runs is never pruned, nor are the
    /// usage aggregates.
    #[derive(Copy, Eq)]
    pub struct Retention {
        /// Days that rows of the call log are kept; 0 is for ever.
        calls_days: u32 = 0;
        /// Rows of the call log at most, of which the oldest go first; 0 is any number.
        calls_max: u64 = 0;
        /// Days that completed and cancelled jobs are kept; 0 is for ever. The idempotency key of a pruned job
        /// is free.
        jobs_days: u32 = 0;
        /// Completed and cancelled jobs at most, of which those that ended first go first; 0 is any number.
        jobs_max: u64 = 0;
        /// Days that failed jobs are kept, whole, since somebody may retry them; 0 is for ever.
        failed_days: u32 = 0;
        /// Failed jobs at most, of which those that ended first go first; 0 is any number.
        failed_max: u64 = 0;
        /// Days that requests and responses of completed and cancelled jobs are kept; 0 is for ever. The jobs
        /// stay, but can't be shown whole or retried.
        bodies_days: u32 = 0;
    }
}
