//! The promises of onelane, a module each, on the real thing: redb files, HTTP, processes. What
//! only concerns the lane itself runs on virtual time with a scripted GLM.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and its helpers are tests"
)]

mod acceptance;
mod account;
mod alerts;
mod answers;
mod api_admin;
mod api_jobs;
mod async_pair;
mod at_once;
mod attendance;
mod background;
mod batches_http;
mod between_calls;
mod books;
mod budgets;
mod bulk;
mod calls;
mod chains;
mod chaos;
mod classes;
mod cli;
mod clients;
mod clocks;
#[path = "../common/mod.rs"]
mod common;
mod concurrency;
mod control;
mod deadlines;
mod desk;
mod events_http;
mod face_jobs;
mod faces;
mod failures;
mod fixtures;
mod followed;
mod golden;
mod health;
mod http2;
mod hygiene;
mod jobs;
mod keepalive;
mod key_batches;
mod keys;
mod killed;
mod leaving;
mod many;
mod meters;
mod model_names;
mod money;
mod operators;
mod order;
mod pacing;
mod parts;
mod passed;
mod process;
mod restarts;
mod retention;
mod returning;
mod sessions;
mod steering;
mod stopped;
mod storm;
mod streams;
mod supervision;
mod support;
mod tasks;
mod tls;
mod turns;
mod verbs;
mod waits;
mod webhooks;
mod windows;
mod wrapped;
