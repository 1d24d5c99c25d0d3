//! One durable lane in front of the GLM API.

pub mod glm;

pub mod system;
