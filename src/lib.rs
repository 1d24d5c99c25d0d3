//! onelane: one durable lane in front of the GLM API.

pub mod api;
pub mod error;
pub mod orchestrator;

pub use onelane_actors::{model, ports};
