//! Seeded worlds on virtual time: the real actors under their real supervisor, a GLM with rules of its
//! own, a disk that survives what the processes do not, operators who meddle and things that go wrong.
//! Whatever happens is checked when it happens; then all is healed, and everything must come to its
//! end.
//!
//! `ONELANE_SIM_SEEDS` says how many worlds (2,000 by default), `ONELANE_SIM_FROM` where to begin, `ONELANE_SIM_THREADS`
//! how many are made at a time, `ONELANE_SIM_SEED` which one alone, with everything that happens in it, and
//! `ONELANE_SIM_ONLY` which of its events happen. A world that breaks a promise is told with as few events as it needs.
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
mod clocks;
mod disk;
mod draw;
mod faults;
mod gate;
mod history;
mod holds;
mod keys;
mod ledger;
mod meddle;
mod operator;
mod order;
mod orders;
mod panics;
mod replies;
mod script;
mod server;
mod shrink;
mod sim;
mod streams;
mod tally;
mod visitor;
mod wire;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use faults::Planted;
use script::Script;
use shrink::{Short, promise_of, shrink};
use tally::Tally;

/// Worlds that are made unless somebody asks for more.
const SEEDS: u64 = 2_000;

fn said<T: std::str::FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable).ok()?;
    let said = text.parse();
    Some(said.unwrap_or_else(|_| panic!("{variable} can't be {text:?}")))
}

/// The report of a world in which something went wrong: what, the shortest script that it needs, and how to see it.
fn report(short: &Short, full: &str) -> String {
    format!(
        "world {}: {}\n\nits script has {} of its {} events ({} worlds tried):\n  {}\n\nthis world alone, with all \
         that happens in it:\n  {}\n\n{full}",
        short.seed,
        short.broken.what,
        short.broken.happened.len(),
        short.of,
        short.tries,
        short.lines().join("\n  "),
        short.command(),
    )
}

#[test]
fn whatever_happens_in_a_world_its_promises_hold() {
    if let Some(seed) = said::<u64>("ONELANE_SIM_SEED") {
        let script = said("ONELANE_SIM_ONLY").unwrap_or_default();
        match world::lives(seed, &script, Planted::Nothing, true) {
            Ok(tally) => println!("world {seed} is right: {tally:?}"),
            Err(broken) if script == Script::All => {
                let full = broken.around.clone();
                panic!("{}", report(&shrink(seed, Planted::Nothing, broken), &full));
            }
            Err(broken) => panic!("world {seed}: {}\n\n{}", broken.what, broken.around),
        }
        return;
    }
    let first = said("ONELANE_SIM_FROM").unwrap_or(1);
    let last = first + said("ONELANE_SIM_SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = said("ONELANE_SIM_THREADS").unwrap_or(threads);
    let next = AtomicU64::new(first);
    let wrong: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let sums = Mutex::new(Tally::default());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut sum = Tally::default();
                while wrong.lock().unwrap().is_empty() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last {
                        break;
                    }
                    match world::lives(seed, &Script::All, Planted::Nothing, false) {
                        Ok(tally) => sum.add(&tally),
                        Err(broken) => {
                            let full = broken.around.clone();
                            let short = shrink(seed, Planted::Nothing, broken);
                            wrong.lock().unwrap().push(report(&short, &full));
                        }
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

/// Worlds in which the lane broke a promise before it was mended, or the simulation held it to one that it had not given, by
/// the events that it took.
const BROKEN_ONCE: [(u64, &str); 14] = [
    (
        310_006,
        "111,120,160,190,191,192,230,270,280,290,300,440,480,492,500,1030,1050,9000,9001",
    ),
    (400_968, "10,11,20,30,71,100,101,122,123,130,140,9009"),
    (631_099, "502,530,534,540"),
    (663_692, "20,62,80,81,82,170,180,9000,9010,9012"),
    (
        1_111_736,
        "211,212,250,330,370,382,412,414,450,470,480,490,500,1010,1020,1050,9000",
    ),
    (
        3_114_560,
        "30,31,32,40,60,70,90,130,131,180,210,220,240,250,281,282,283,290,310,350,351,352,353,360,471,472,481,510,1041,9000,9001,9009",
    ),
    (
        3_174_965,
        "30,113,302,352,360,370,390,1010,1011,1020,1030,1050,9000,9001",
    ),
    (4_539_858, "290,341,370,390,450,500,9010"),
    (4_790_172, "10,20,21,22,43,44,50,90,1020,9001,9009"),
    (
        4_809_954,
        "240,250,251,252,253,270,280,290,291,292,300,330,1012,1020,1022,9000,9009",
    ),
    (
        4_865_984,
        "42,43,60,72,90,91,92,121,130,131,132,133,140,150,152,160,9000,9001,9006,9008,9009",
    ),
    (
        4_976_500,
        "10,42,140,160,161,162,170,171,180,190,210,211,220,230,233,240,9000,9001,9004,9008,9009",
    ),
    (
        5_015_734,
        "20,50,51,70,71,150,220,230,231,241,242,250,254,261,9000,9001,9008,9010",
    ),
    (5_119_337, "50,51,60,90,100,132,133,181,9000,9009,9010"),
];

#[test]
fn worlds_that_broke_a_promise_once_keep_it() {
    for (seed, events) in BROKEN_ONCE {
        let script: Script = events.parse().unwrap();
        if let Err(broken) = world::lives(seed, &script, Planted::Nothing, false) {
            panic!("world {seed}: {}", broken.what);
        }
    }
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

/// The first world in which a planted fault is found after many events.
fn found(planted: Planted) -> (u64, world::Broken) {
    let mut worlds = (1..=500).map(|seed| (seed, world::lives(seed, &Script::All, planted, false)));
    let is_long = |broken: &world::Broken| broken.happened.len() > 40;
    let found = worlds.find_map(|(seed, lived)| Some((seed, lived.err().filter(is_long)?)));
    found.unwrap_or_else(|| panic!("{planted:?} is never found"))
}

#[test]
fn a_world_that_breaks_a_promise_shrinks_to_a_few_events_that_break_it() {
    for (planted, most) in [(Planted::LosesTheSecond, 4), (Planted::TellsTwice, 2)] {
        let (seed, broken) = found(planted);
        let promise = promise_of(&broken.what);
        let short = shrink(seed, planted, broken);
        let lines = short.lines();
        println!("{planted:?}: {}\n  {}\n", short.of, lines.join("\n  "));
        let events = short.broken.happened.len();
        assert!((1..=most).contains(&events), "{lines:#?}");
        assert!(short.of > 40, "{} events before", short.of);
        // The script by itself does it again, and without any of its events nothing is broken.
        let script: Script = short.script.to_string().parse().unwrap();
        let again = world::lives(seed, &script, planted, false).err().unwrap();
        assert_eq!(promise_of(&again.what), promise);
        let healthy = world::lives(seed, &script, Planted::Nothing, false);
        assert!(healthy.is_ok(), "it is the planted fault that breaks it");
    }
}
