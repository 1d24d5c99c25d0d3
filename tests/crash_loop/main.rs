//! Guards: `kill -9` at any moment loses nothing that was acknowledged, sends nothing twice without a
//! record of it, runs no job before those that it comes after, and leaves accounts that equal the call log.
//!
//! A real process is killed again and again at random moments while submitters and a reader talk to it
//! and the lane works on a simulator that lives in the test. `ONELANE_CRASH_ROUNDS` kills more often,
//! `ONELANE_CRASH_SEED` draws the same moments and jobs again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "the helpers of tests are tests"
)]

mod books;
mod clients;
#[path = "../common/mod.rs"]
mod common;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

use books::Doubts;
use clients::{Submitter, read_answers};
use common::{Http, PATIENCE, Place, Running, until};
use onelane::model::JobId;
use onelane::simulator::{ErrorFault, Fault, Rule, Simulator, SimulatorConfig, Span};
use onelane_actors::testing::Dice;
use serde_json::json;

const ROUNDS_DEFAULT: u32 = 30;
const SUBMITTERS: u64 = 4;

/// Kills must not look like a job's fault, nor faults like a reason to wait or to give up.
const CONFIG: &str = "\
[retry]
max_retries = 100
base_delay_ms = 1
max_delay_ms = 20
[breaker]
consecutive_failures = 1000
failure_rate = 0.0
[policy]
conn = \"server_transient\"
[lane]
quarantine_after = 1000000
";

#[test]
fn a_process_that_is_killed_at_random_keeps_every_promise() {
    crash_loop(1, "");
}

#[test]
fn a_process_with_three_slots_keeps_every_promise_too() {
    crash_loop(3, "");
}

#[test]
fn a_process_that_calls_by_tasks_keeps_every_promise_too() {
    crash_loop(
        3,
        "[glm]\nasync_models = [\"glm-4.6\"]\nasync_poll_ms = 100\n",
    );
}

/// The tokens that `user-0` may spend a month until the processes have stopped dying: some dozen of the user's
/// calls, of which every kill leaves one or three in doubt.
const BUDGET: u64 = 12_000;

#[test]
fn a_budget_is_kept_whatever_is_killed() {
    for slots in [1, 3] {
        let budget = format!(
            "[glm]\nmax_tokens = 200\n[money.budgets.month]\nperiod = \"month\"\nuser = \"user-0\"\ntokens = {BUDGET}\n"
        );
        crash_loop(slots, &budget);
    }
}

fn crash_loop(max_concurrency: u64, more: &str) {
    let rounds = number("ONELANE_CRASH_ROUNDS").map_or(ROUNDS_DEFAULT, |n| n as u32);
    let seed = number("ONELANE_CRASH_SEED").unwrap_or_else(fresh_seed);
    println!("ONELANE_CRASH_SEED={seed} ONELANE_CRASH_ROUNDS={rounds}, {max_concurrency} slots");
    let simulator = simulator(seed);
    let place = Place::new();
    let config = format!("{CONFIG}max_concurrency = {max_concurrency}\n{more}");
    place.write("onelane.toml", config);
    let world = World::default();
    thread::scope(|scope| {
        let submitters: Vec<_> = (0..SUBMITTERS)
            .map(|n| {
                let world = &world;
                scope.spawn(move || Submitter::new(n, seed, world).run())
            })
            .collect();
        let reader = scope.spawn(|| read_answers(&world, seed));

        // Whatever fails in here, the threads have to end, or the scope waits for them for ever.
        let _over = EndOnDrop(&world);
        let mut dice = Dice::new(seed, "kills");
        let mut doubts = Doubts::default();
        for _ in 0..rounds {
            live_and_die(&place, &simulator, &world, &mut dice);
            doubts.look(&place);
        }
        if more.contains("budgets") {
            the_budget_was_kept(&place, &simulator);
        }
        let last = Running::start(&mut serve(&place, &simulator));
        if more.contains("budgets") {
            let raised = json!({"budgets": {"month": {"tokens": 1_000_000_000}}});
            let url = format!("{}/api/admin/glm/config", last.url());
            assert_eq!(Http::new().put(&url, &raised).unwrap().status, 200);
        }
        world.is_at(Some(last.url()));
        world.end();
        let mut jobs = Vec::new();
        for submitter in submitters {
            jobs.extend(
                submitter
                    .join()
                    .expect("a submitter found its promise broken"),
            );
        }
        let seen = reader.join().expect("the reader found its promise broken");
        let http = Http::new();
        until("every job ends", || {
            let count = |filter: &str| count(&http, &last.url(), filter);
            // A job goes back and forth between pending and processing, so two reads may both miss it;
            // none comes back from its end.
            let ended: u64 = ["completed", "failed", "cancelled"]
                .iter()
                .map(|status| count(&format!("&status={status}")))
                .sum();
            ended == count("")
        });
        let url = format!("{}/api/admin/glm/statistics", last.url());
        let statistics = http.get(&url).unwrap().text;
        last.signal("TERM");
        last.end().with(0);

        let left = place.store("onelane.redb");
        let peak = simulator.stats().peak_in_flight;
        // GLM works on at a task whose id died with the process, and nobody knows of it.
        let tasks = more.contains("async_models");
        let unknown = if tasks { max_concurrency } else { 0 };
        assert!(
            peak <= max_concurrency + unknown,
            "{peak} calls were open at once"
        );
        books::every_acknowledged_job_is_completed_once(&left, &jobs, &seen);
        books::no_job_ran_before_its_turn(&left, &jobs, &simulator);
        books::every_call_is_accounted_for(&left, &simulator, rounds);
        doubts.are_all_there_are(&left);
        books::statistics_equal_the_call_log(&left, &statistics);
    });
}

/// One life of the process, from its start to its sudden death: mostly while it works, sometimes while
/// it starts.
fn live_and_die(place: &Place, simulator: &Simulator, world: &World, dice: &mut Dice) {
    let process = Running::start(&mut serve(place, simulator));
    if dice.below(5) > 0 {
        world.is_at(Some(process.url()));
        thread::sleep(Duration::from_micros(dice.below(350_000)));
    } else {
        thread::sleep(Duration::from_micros(dice.below(120_000)));
    }
    process.kill();
    world.is_at(None);
}

/// Lets a process that nobody kills work until nothing more fits, and looks at the books.
fn the_budget_was_kept(place: &Place, simulator: &Simulator) {
    let process = Running::start(&mut serve(place, simulator));
    let http = Http::new();
    let get = |path: &str| {
        let url = format!("{}/api/admin/glm/{path}", process.url());
        http.get(&url).unwrap().json()
    };
    until("nothing more fits", || {
        let lane = get("metrics")["lane"].clone();
        let moving = ["inFlight", "ready", "waiting"];
        moving.iter().all(|what| lane[what] == 0) && lane["overBudget"].as_u64() > Some(0)
    });
    let told = get("budgets")["budgets"][0].clone();
    process.signal("TERM");
    process.end().with(0);
    books::the_budget_was_kept(&place.store("onelane.redb"), &told, BUDGET);
}

fn serve(place: &Place, simulator: &Simulator) -> std::process::Command {
    let url = simulator.base_url();
    place.onelane(&["serve", "--base-url", &url, "--listen", "127.0.0.1:0"])
}

fn simulator(seed: u64) -> Simulator {
    let rule = |probability, fault| Rule {
        probability,
        ..Rule::always(fault)
    };
    let failing = Fault::Error(ErrorFault {
        status: Some(500),
        ..ErrorFault::of("500")
    });
    Simulator::start(SimulatorConfig {
        latency_ms: Span::Between { min: 0, max: 2 },
        task_ms: Span::Between { min: 0, max: 60 },
        seed,
        rules: vec![
            rule(0.03, failing),
            rule(0.01, Fault::CutBody),
            rule(0.01, Fault::Reset),
            rule(0.01, Fault::SlowHeaders { delay_ms: 30 }),
        ],
        ..SimulatorConfig::default()
    })
    .unwrap()
}

/// Where the process is, and whether the last round is over.
#[derive(Default)]
struct World {
    url: Mutex<Option<String>>,
    moved: Condvar,
    over: AtomicBool,
    acknowledged: Mutex<Vec<JobId>>,
}

impl World {
    fn is_at(&self, url: Option<String>) {
        *self.url.lock().unwrap() = url;
        self.moved.notify_all();
    }

    /// Where it is, once it is anywhere; `None` when it won't be again.
    fn url(&self) -> Option<String> {
        let gone = |url: &mut Option<String>| url.is_none() && !self.is_over();
        let found = self
            .moved
            .wait_timeout_while(self.url.lock().unwrap(), PATIENCE, gone);
        found.unwrap().0.clone()
    }

    /// No more submissions; those that still wait for their acknowledgement get it.
    fn end(&self) {
        let _url = self.url.lock().unwrap();
        self.over.store(true, Ordering::Relaxed);
        self.moved.notify_all();
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

struct EndOnDrop<'a>(&'a World);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// How many jobs the store has that `filter` lets through.
fn count(http: &Http, url: &str, filter: &str) -> u64 {
    let url = format!("{url}/api/admin/glm/queue?limit=1{filter}");
    http.get(&url).unwrap().json()["total"].as_u64().unwrap()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{variable}: {e}")))
}

fn fresh_seed() -> u64 {
    RandomState::new().hash_one("crash loop")
}
