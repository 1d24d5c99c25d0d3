//! onelane: one durable lane in front of the GLM API.

pub mod config;
