//! `onelane bench`: what this machine and its disk add to a call, measured with the built-in simulator: no key, no cost.

use std::time::{Duration, Instant};

use onelane::model::Secret;
use onelane::orchestrator::{LaneThread, Orchestrator};
use onelane::simulator::{Simulator, SimulatorConfig, Span};
use onelane::{Config, Submission};
use serde::Serialize;

use super::args::BenchArgs;
use super::exit::{CliError, Exit};
use super::start;

/// How long the lane has for its end.
const END_WITHIN: Duration = Duration::from_secs(10);

/// What was measured.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    jobs: usize,
    slots: u16,
    latency_ms: u64,
    jobs_per_second: f64,
    /// Beyond what the calls themselves took, in milliseconds.
    overhead_per_job_ms: f64,
    submit_p50_ms: f64,
    submit_p99_ms: f64,
}

/// Runs jobs through a lane of its own, on a store of its own in this directory, which is gone afterwards.
pub(crate) async fn bench(args: &BenchArgs, json: bool) -> Result<Exit, CliError> {
    let directory = args
        .dir
        .join(format!(".onelane-bench-{}", std::process::id()));
    std::fs::create_dir(&directory).map_err(|error| {
        CliError::usage(format!("{} can't be made: {error}", directory.display())).help(
            "name a directory that can be written with --dir, on the disk that is to be measured",
        )
    })?;
    let measured = measure(args, &directory.join("bench.redb").display().to_string()).await;
    let removed = std::fs::remove_dir_all(&directory);
    if let Err(error) = removed {
        super::note(&format!("warning: {} stays: {error}", directory.display()));
    }
    super::answer(json, &measured?, text)?;
    Ok(Exit::Done)
}

async fn measure(args: &BenchArgs, store: &str) -> Result<Measured, CliError> {
    let latency_ms = u64::try_from(args.latency.as_millis()).unwrap_or(u64::MAX);
    let simulator = Simulator::start(SimulatorConfig {
        latency_ms: Span::Fixed(latency_ms),
        ..SimulatorConfig::default()
    })
    .map_err(|error| CliError::usage(format!("the simulator can't be started: {error}")))?;
    let mut config = Config::default();
    store.clone_into(&mut config.store.path);
    config.glm.base_url = simulator.base_url();
    config.glm.api_key = Some(Secret::new("simulated"));
    config.lane.rules.max_concurrency = args.concurrency;
    let thread = LaneThread::new().map_err(start::no_thread)?;
    let lane = thread
        .run(async move { Orchestrator::start(&config).await })
        .await?;
    let jobs = args.jobs.max(1);
    let mut submits = Vec::new();
    let mut ids = Vec::new();
    // Submitted while nothing is sent: the two are measured apart.
    lane.pause(Some("bench".to_owned())).await?;
    for n in 0..jobs {
        let submission = Submission::prompt(format!("bench {n}"))
            .map_err(|error| CliError::usage(error.to_string()))?;
        let began = Instant::now();
        ids.push(lane.submit(submission).await?.job_id);
        submits.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    let began = Instant::now();
    lane.resume().await?;
    for id in ids {
        lane.wait(id).await?;
    }
    let took = began.elapsed().as_secs_f64();
    lane.shutdown(END_WITHIN).await;
    submits.sort_by(f64::total_cmp);
    let quantile = |share: f64| {
        let at = (submits.len() as f64 * share).ceil() as usize;
        submits
            .get(at.saturating_sub(1))
            .copied()
            .unwrap_or_default()
    };
    let calls_s = jobs as f64 * args.latency.as_secs_f64() / f64::from(args.concurrency.max(1));
    Ok(Measured {
        jobs,
        slots: args.concurrency,
        latency_ms,
        jobs_per_second: jobs as f64 / took,
        overhead_per_job_ms: ((took - calls_s) * 1_000.0 / jobs as f64).max(0.0),
        submit_p50_ms: quantile(0.5),
        submit_p99_ms: quantile(0.99),
    })
}

fn text(measured: &Measured) -> String {
    format!(
        "{} jobs, {} at once, calls of {} ms: {:.0} jobs a second\n\
         a call takes {:.2} ms more than GLM's answer; a submission {:.2} ms, 99 % of them {:.2} ms",
        measured.jobs,
        measured.slots,
        measured.latency_ms,
        measured.jobs_per_second,
        measured.overhead_per_job_ms,
        measured.submit_p50_ms,
        measured.submit_p99_ms,
    )
}
