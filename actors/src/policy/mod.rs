//! The decisions, pure and synchronous. Nothing here awaits, reads a clock or draws a random
//! number: time, ids and seeds come in as arguments.

pub mod adaptive;
pub mod alert;
pub mod breaker;
pub mod budget;
pub mod conclude;
pub mod delivery;
pub mod effects;
pub mod estimate;
pub mod hold;
pub mod judge;
pub mod lane;
pub mod pace;
pub mod price;
pub mod prune;
pub mod ready;
pub mod retry;
pub mod slot;
pub mod transition;
pub mod worst;
