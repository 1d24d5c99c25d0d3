//! Sample nouns for tests.

pub mod sample;
