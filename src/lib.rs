//! onelane: one durable lane in front of the GLM API.

pub mod api;
pub mod config;
pub mod error;
pub mod glm;
pub mod orchestrator;
pub mod simulator;
pub mod store;
pub mod system;

pub use onelane_actors::{model, ports};
