//! The nouns of the lane and its decisions: pure and synchronous. Nothing here awaits, reads a clock or draws a
//! random number: time, ids and seeds come in as arguments. The manifest names neither tokio nor ractor, so
//! Cargo keeps it that way.
//!
//! | room | what it decides |
//! |---|---|
//! | [`model`] | the nouns: job, attempt, failure, money, settings, limits; they decide nothing |
//! | [`life`] | the life of a job as a table, and what a batch of changes does to the rows of any store |
//! | [`queue`] | the order of waiting jobs |
//! | [`scheduler`] | what is sent when, and in which slot |
//! | [`judge`] | what an outcome means for job, lane and breaker |
//! | [`money`] | prices, estimates, worst cases, budgets |
//! | [`retention`] | which finished rows go |
//! | [`rows`] | the rows of a store, as the decisions see them |
//! | [`retry`] | delays that grow, with jitter |
//! | [`notify`] | when something is bad enough to tell, and the life of a delivery |
//! | [`random`] | numbers from a seed |

pub mod judge;
pub mod life;
pub mod model;
pub mod money;
pub mod notify;
pub mod queue;
pub mod random;
pub mod retention;
pub mod retry;
pub mod rows;
pub mod scheduler;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod words;
