//! The lane itself.

pub mod model;
pub mod policy;
pub mod ports;
