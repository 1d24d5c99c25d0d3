//! One durable lane in front of the GLM API.

pub mod glm;
pub mod simulator;
pub mod system;
