//! Goes through every state of a world of the shipped decision machine, larger than those of the tests:
//!
//! ```text
//! cargo run --release -p onelane-actors --example model_check -- jobs=3 slots=2 crashes=1 cancels=1 clock=1
//! ```
//!
//! `docs/proof.md` says what a world is and which were gone through.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example tells what it does"
)]

use std::process::ExitCode;

#[path = "../tests/model/check/mod.rs"]
mod check;

use check::{Bug, Fault, Order, Plan, explore};

/// What is to be gone through.
struct Task {
    plan: Plan,
    order: Order,
    /// How what a planted bug breaks begins.
    found_by: Option<&'static str>,
}

/// Reads `name=value` words over a plan in which nothing goes wrong.
fn read(words: impl Iterator<Item = String>) -> Result<Task, String> {
    let mut task = Task {
        plan: Plan::calm(3, 2),
        order: Order::Latest,
        found_by: None,
    };
    for word in words {
        let (name, value) = word.split_once('=').ok_or("write NAME=VALUE")?;
        let number = || {
            let number = value.parse::<u8>();
            number.map_err(|error| format!("{word}: {error}"))
        };
        let plan = &mut task.plan;
        match name {
            "jobs" => plan.jobs = number()?,
            "slots" => plan.slots = number()?.into(),
            "crashes" => plan.crashes = number()?,
            "restarts" => plan.restarts = number()?,
            "cancels" => plan.cancels = number()?,
            "failures" => plan.failures = number()?,
            "clock" => plan.clock_steps = number()?,
            "pauses" => plan.pauses = number()?,
            "ticks" => plan.early_ticks = number()?,
            "budget" => plan.has_budget = number()? > 0,
            "faults" => {
                let named = |name| {
                    Fault::ALL
                        .into_iter()
                        .find(|fault| format!("{fault:?}") == name)
                };
                plan.faults = value.split(',').filter_map(named).collect();
            }
            "bug" => {
                let mut bugs = Bug::ALL.into_iter();
                let bug = bugs.find(|bug| format!("{bug:?}") == value);
                let hunt = bug.ok_or(format!("no bug is called {value}"))?.hunt();
                (task.plan, task.found_by) = (hunt.plan, Some(hunt.found_by));
                task.order = Order::Nearest;
            }
            "nearest" => task.order = Order::Nearest,
            _ => return Err(format!("nothing is called {name}")),
        }
    }
    Ok(task)
}

fn main() -> ExitCode {
    let task = match read(std::env::args().skip(1)) {
        Ok(task) => task,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    println!("{:?}", task.plan);
    let explored = explore(&task.plan, task.order, |states, open| {
        eprintln!("{states} states, {open} to look at");
    });
    let is_as_it_should_be = match (&explored, task.found_by) {
        (Ok(explored), _) => {
            println!("every promise holds: {explored}");
            task.found_by.is_none()
        }
        (Err(counterexample), found_by) => {
            println!("{counterexample}");
            found_by.is_some_and(|words| counterexample.broken.starts_with(words))
        }
    };
    match is_as_it_should_be {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
