//! What calls cost, may cost and may not cost.

pub mod budget;
pub mod estimate;
pub mod forecast;
pub mod reconcile;
pub mod worst;
