//! onelane: one durable lane in front of the GLM API.

pub mod error;
pub mod orchestrator;
pub mod store;

pub use onelane_actors::{model, ports};
