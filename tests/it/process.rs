//! The program as its users start it: real processes, real signals, real files.

mod full_disk;
mod resume;
mod run;
mod serve;
mod simulate;
mod standstill;
mod store;
mod webhooks;

use std::process::Command;

use onelane::simulator::{Simulator, SimulatorConfig, Span};

use crate::common::Place;

/// A simulator in the test's own process that takes so long for an answer.
fn simulator(latency_ms: u64) -> Simulator {
    Simulator::start(SimulatorConfig {
        latency_ms: Span::Fixed(latency_ms),
        ..SimulatorConfig::default()
    })
    .unwrap()
}

/// `onelane run prompts.jsonl` with a key, against this simulator.
fn run_prompts(place: &Place, simulator: &Simulator) -> Command {
    let url = simulator.base_url();
    place.onelane(&["run", "prompts.jsonl", "--base-url", &url])
}

/// `onelane serve` with a key on a free port, against this simulator.
fn serve(place: &Place, simulator: &Simulator) -> Command {
    let url = simulator.base_url();
    place.onelane(&["serve", "--base-url", &url, "--listen", "127.0.0.1:0"])
}
