//! Kills a real `onelane serve` at random moments, as often as you like, while programs talk to it: those who submit jobs and
//! read answers, clients of the gateway that read streams, uploaders of batches, an operator who makes and revokes client
//! keys. What they were told, what a simulator of GLM saw, and what store and API say in the end has to agree.
//!
//! ```sh
//! cargo run --release --example crash_loop -- --rounds 1000
//! ```
//!
//! It tells its figures after each stretch, with those before it. It ends with 1 when a promise is broken, and says how to draw
//! the same again. `docs/proof.md` says what must hold.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a test that takes as long as one likes"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use clap::Parser;

#[path = "../tests/crash_loop/check/mod.rs"]
mod check;
#[path = "../tests/common/mod.rs"]
mod common;

use check::{Plan, Report, crash_loop, fresh_seed};

/// After so many kills nothing may be left untried.
const ENOUGH: u32 = 300;

/// Kills `onelane serve` at random moments and looks whether it keeps its promises.
#[derive(Parser)]
#[command(name = "crash_loop")]
struct Args {
    /// How often to kill.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// After so many kills everything is compared, and a new store is begun.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    stretch: u32,
    /// Draws the same moments and the same jobs again.
    #[arg(long)]
    seed: Option<u64>,
    /// How many calls may be open at once; 1 and 3 in turn without it.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=64))]
    slots: Option<u64>,
}

impl Args {
    /// What a stretch does follows from its seed, so that it can be repeated alone.
    fn plan(&self, seed: u64, rounds: u32) -> Plan {
        let world = seed % 4;
        let slots = self.slots.unwrap_or([1, 3][(world % 2) as usize]);
        Plan {
            everybody: true,
            tasks: world == 3,
            budget: world == 2,
            ..Plan::new(rounds, seed, slots)
        }
    }
}

/// Sees to it that the program that is killed is of this state and profile: as Cargo runs an example it builds no program.
fn build() -> Result<(), String> {
    let program = common::program();
    let profile = program.parent().and_then(Path::file_name);
    let profile = match profile.and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--bin", "onelane", "--profile", profile]);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        let built = build.status().map_err(|error| format!("cargo: {error}"))?;
        if !built.success() {
            return Err("the program could not be built".to_owned());
        }
    }
    match program.exists() {
        true => Ok(()),
        false => Err(format!(
            "{} is not there; build it: cargo build --bin onelane --profile {profile}",
            program.display()
        )),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(problem) = build() {
        eprintln!("error: {problem}");
        return ExitCode::from(2);
    }
    let first_seed = args.seed.unwrap_or_else(fresh_seed);
    let began = Instant::now();
    let mut report = Report::default();
    let (mut done, mut seed) = (0, first_seed);
    while done < args.rounds {
        let rounds = args.stretch.min(args.rounds - done);
        let plan = args.plan(seed, rounds);
        eprintln!("{plan:?}");
        let mut told = |round: u32| {
            if round.is_multiple_of(10) {
                let (kills, seconds) = (done + round, began.elapsed().as_secs());
                eprintln!("{kills} of {} kills, after {seconds} s", args.rounds);
            }
        };
        match catch_unwind(AssertUnwindSafe(|| crash_loop(&plan, &mut told))) {
            Ok(of_stretch) => report.add(of_stretch),
            Err(_) => {
                println!(
                    "a promise is broken; the same again: --seed {seed} --slots {} --rounds {rounds} --stretch {rounds}",
                    plan.slots
                );
                return ExitCode::FAILURE;
            }
        }
        done += rounds;
        seed = seed.wrapping_add(1);
        println!("{report}\n");
    }
    if done >= ENOUGH
        && let Err(missed) = has_met_all(&report)
    {
        println!("{missed}: it has to be killed more often, or on a machine with less to do");
        return ExitCode::FAILURE;
    }
    println!(
        "every promise holds after {done} kills in {} s; --seed {first_seed}",
        began.elapsed().as_secs()
    );
    ExitCode::SUCCESS
}

/// Whether everybody has met what they are there for. One loop of some dozen kills does not see to it, or of a hundred on
/// a busy machine, which does little in a life.
fn has_met_all(report: &Report) -> Result<(), &'static str> {
    let streams = &report.streams;
    let met = [
        (streams.lost_in_the_middle, "no stream was torn by a kill"),
        (streams.cut, "GLM cut no stream"),
        (streams.given_up, "no job died with its client"),
        (report.results, "no batch ended"),
        (report.refused, "no bound of a key was met"),
        (report.shown_in_vain, "no dead key was shown"),
    ];
    match met.iter().find(|(times, _)| *times == 0) {
        Some((_, missed)) => Err(missed),
        None => Ok(()),
    }
}
