//! What is told to others: alerts, and the life of a delivery.

pub mod alert;
pub mod delivery;
