//! The integration tests: a module per promise, all in one binary.

mod cli;
