//! The promises of onelane, a module each, on the real thing: redb files, HTTP, processes. What
//! only concerns the lane itself runs on virtual time with a scripted GLM.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod acceptance;
mod chaos;
mod cli;
#[path = "../common/mod.rs"]
mod common;
mod failures;
mod order;
mod process;
mod supervision;
mod support;
