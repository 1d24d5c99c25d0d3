//! Sample nouns for tests.

pub mod sample;
pub mod waits;
