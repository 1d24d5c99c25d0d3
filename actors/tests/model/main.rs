//! The shipped decision machine under an exhaustive checker, in worlds that are small enough for every test run. The
//! example `model_check` goes through larger ones; `docs/proof.md` tells of both.

mod check;

use check::{Bug, Fault, Order, Plan, explore};

/// Goes through a world of so many jobs and slots, to which `change` adds what may go wrong.
fn holds(jobs: u8, slots: u16, change: impl FnOnce(&mut Plan)) {
    let mut plan = Plan::calm(jobs, slots);
    change(&mut plan);
    let broken = explore(&plan, Order::Latest, |_, _| ()).err();
    let words = broken.map(|counterexample| counterexample.to_string());
    assert_eq!(words.as_deref().unwrap_or_default(), "", "{plan:?}");
}

#[test]
fn wherever_a_process_is_killed_nothing_is_lost_or_sent_or_settled_twice() {
    holds(3, 2, |_| ());
    holds(2, 2, |plan| plan.crashes = 1);
}

#[test]
fn whichever_actor_fails_between_which_commits_open_calls_are_settled_once_and_never_too_many() {
    holds(2, 2, |plan| plan.restarts = 1);
    holds(1, 1, |plan| {
        (plan.crashes, plan.restarts, plan.cancels) = (1, 1, 1);
    });
}

#[test]
fn whenever_a_job_is_given_up_or_the_lane_paused_both_hold() {
    holds(3, 2, |plan| plan.cancels = 1);
    holds(2, 1, |plan| (plan.pauses, plan.cancels) = (1, 1));
}

#[test]
fn however_calls_fail_and_the_clock_is_set_holds_hold_and_end() {
    holds(3, 2, |plan| plan.failures = 1);
    holds(2, 1, |plan| (plan.failures, plan.clock_steps) = (1, 1));
}

#[test]
fn whatever_fails_a_half_open_breaker_lets_one_call_through() {
    holds(3, 2, |plan| {
        plan.failures = 2;
        plan.faults = vec![Fault::Broken];
    });
}

#[test]
fn wherever_a_process_is_killed_a_day_costs_no_more_than_its_budget() {
    holds(3, 1, |plan| {
        plan.has_budget = true;
        plan.crashes = 1;
    });
}

/// The checker finds the bugs that are planted around the machine, each by the promise that it breaks.
#[test]
fn every_planted_bug_is_found() {
    for bug in Bug::ALL {
        let hunt = bug.hunt();
        let explored = explore(&hunt.plan, Order::Nearest, |_, _| ());
        let found = explored.expect_err(&format!("{bug:?} is not found"));
        assert!(found.broken.starts_with(hunt.found_by), "{bug:?}: {found}");
    }
}
