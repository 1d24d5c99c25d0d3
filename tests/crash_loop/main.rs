//! Guards: `kill -9` at any moment loses nothing that was acknowledged, sends nothing twice without a
//! record of it, runs no job before those that it comes after, and leaves accounts that equal the call log; streams are
//! stored or in doubt, batches have each line once, and a client key that was revoked opens nothing any more.
//!
//! `check/` kills a real process again and again at random moments while programs talk to it. `ONELANE_CRASH_ROUNDS` kills
//! more often, `ONELANE_CRASH_SEED` draws the same moments and jobs again; the example `crash_loop` does it for long, and
//! `docs/proof.md` tells what came of that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "the helpers of tests are tests"
)]

mod check;
#[path = "../common/mod.rs"]
mod common;

use check::{Plan, Report, crash_loop, fresh_seed};

const ROUNDS_DEFAULT: u32 = 30;

#[test]
fn a_process_that_is_killed_at_random_keeps_every_promise() {
    go(&[plan(1)]);
}

#[test]
fn a_process_with_three_slots_keeps_every_promise_too() {
    go(&[plan(3)]);
}

#[test]
fn a_process_that_calls_by_tasks_keeps_every_promise_too() {
    let tasks = true;
    go(&[Plan { tasks, ..plan(3) }]);
}

#[test]
fn a_budget_is_kept_whatever_is_killed() {
    let budget = true;
    go(&[1, 3].map(|slots| Plan {
        budget,
        ..plan(slots)
    }));
}

#[test]
fn streams_batches_and_client_keys_keep_their_promises_whatever_is_killed() {
    // Their lives are longer, and fewer.
    go(&[1, 3].map(|slots| Plan {
        everybody: true,
        rounds: plan(slots).rounds / 2,
        ..plan(slots)
    }));
}

fn plan(slots: u64) -> Plan {
    let rounds = number("ONELANE_CRASH_ROUNDS").map_or(ROUNDS_DEFAULT, |n| n as u32);
    let seed = number("ONELANE_CRASH_SEED").unwrap_or_else(fresh_seed);
    Plan::new(rounds, seed, slots)
}

fn go(plans: &[Plan]) {
    let mut report = Report::default();
    for plan in plans {
        println!("ONELANE_CRASH_SEED={} {plan:?}", plan.seed);
        report.add(crash_loop(plan, &mut |_| ()));
    }
    println!("{report}");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{variable}: {e}")))
}
