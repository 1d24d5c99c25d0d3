//! Seeded worlds on virtual time: the real actors under their real supervisor, a GLM with rules of its
//! own, a disk that survives what the processes do not, operators who meddle and things that go wrong.
//! Whatever happens is checked when it happens; then all is healed, and everything must come to its
//! end.
//!
//! `ONELANE_SIM_SEEDS` says how many worlds (2,000 by default), `ONELANE_SIM_FROM` where to begin,
//! `ONELANE_SIM_SEED` which one alone, with everything that happens in it.
//!
//! A world is the same for the same seed, but for one thing that tokio draws by itself: the order in
//! which a watch wakes those who wait for it, here callers that have a task to store while the store is
//! being restarted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and its helpers are tests"
)]

mod books;
mod client;
mod draw;
mod gate;
mod history;
mod ledger;
mod order;
mod ports;
mod server;
mod sim;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use sim::Tally;

/// Worlds that are made unless somebody asks for more.
const SEEDS: u64 = 2_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

fn world(seed: u64, verbose: bool) -> Result<Tally, String> {
    let lived = std::panic::catch_unwind(|| world::live(seed, verbose));
    let lived = lived.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("the world itself broke: {}", words.unwrap_or("?")))
    });
    lived.map_err(|report| {
        format!(
            "world {seed}: {report}\n\nthis world alone, with all that happens in it:\n  \
             ONELANE_SIM_SEED={seed} cargo test -p onelane-actors --test simulation"
        )
    })
}

#[test]
fn whatever_happens_in_a_world_its_promises_hold() {
    if let Some(seed) = number("ONELANE_SIM_SEED") {
        let tally = world(seed, true).unwrap_or_else(|report| panic!("{report}"));
        println!("world {seed} is right: {tally:?}");
        return;
    }
    let first = number("ONELANE_SIM_FROM").unwrap_or(1);
    let last = first + number("ONELANE_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(first);
    let wrong: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let sums = Mutex::new(Tally::default());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..threads {
            scope.spawn(|| {
                let mut sum = Tally::default();
                while wrong.lock().unwrap().is_empty() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last {
                        break;
                    }
                    match world(seed, false) {
                        Ok(tally) => sum.add(&tally),
                        Err(report) => wrong.lock().unwrap().push(report),
                    }
                }
                sums.lock().unwrap().add(&sum);
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    let sums = sums.into_inner().unwrap();
    println!(
        "{} worlds in {:.1?}: {sums:?}",
        last - first,
        begun.elapsed()
    );
    sums.assert_it_was_worth_it(last - first);
}

#[test]
fn the_same_seed_makes_the_same_world() {
    let mut different = Vec::new();
    for seed in 1..=25 {
        let [first, second] = [(); 2].map(|()| world::story(seed));
        let parts = first.iter().zip(&second).position(|(a, b)| a != b);
        if let Some(at) = parts {
            let [first, second] = [&first, &second].map(|story| story[at].as_str());
            different.push(format!("world {seed}:\n{first}\n{second}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n\n"));
}
