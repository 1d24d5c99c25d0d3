//! The lane itself.

pub mod model;
pub mod policy;
pub mod ports;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
