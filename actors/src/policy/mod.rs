//! The decisions, pure and synchronous. Nothing here awaits, reads a clock or draws a random
//! number: time, ids and seeds come in as arguments.

pub mod adaptive;
pub mod breaker;
pub mod conclude;
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
