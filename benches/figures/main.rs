//! The figures that README reports, each as a ratio to a baseline in the same run: machines differ
//! and are noisy, ratios less so. `cargo bench` prints them all; `cargo bench -- submit` one part
//! (`lane`, `watched`, `gateway`, `waiting`, `million`, `statistics`, `prune`).
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a program that prints figures and may end when something is wrong"
)]

mod gateway;
mod lane;
mod slow_disk;
mod waiting;
mod watched;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onelane::config::{Config, Loaded};
use onelane::model::{Secret, Submission};
use onelane::orchestrator::{LaneThread, Orchestrator};
use onelane::simulator::{Simulator, SimulatorConfig};

/// That of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|a| a == "--waiting-child") {
        waiting::child(Path::new(&args[at + 1]), &args[at + 2]);
        return;
    }
    if let Some(at) = args.iter().position(|a| a == "--waiting-hold") {
        waiting::hold(Path::new(&args[at + 1]));
        return;
    }
    let wanted: Vec<&str> = args
        .iter()
        .map(String::as_str)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let part = |name: &str| wanted.is_empty() || wanted.contains(&name);
    println!(
        "{} logical cores",
        std::thread::available_parallelism().map_or(0, usize::from)
    );
    if part("submit") {
        runtime().block_on(submit::run());
    }
    if part("lane") {
        runtime().block_on(lane::run());
    }
    if part("watched") {
        runtime().block_on(watched::run());
    }
    if part("gateway") {
        runtime().block_on(gateway::run());
    }
    if part("waiting") {
        waiting::run();
    }
    if part("million") {
        waiting::many();
    }
    if part("statistics") {
        runtime().block_on(statistics::run());
    }
    if part("prune") {
        runtime().block_on(prune::run());
    }
}

/// As the program has it.
fn runtime() -> tokio::runtime::Runtime {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(processors.saturating_sub(1).max(1))
        .enable_all()
        .build()
        .unwrap()
}

/// A directory beside the build: `/tmp` may be memory, and the figures are about disks.
fn scratch() -> tempfile::TempDir {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(&target).unwrap();
    tempfile::tempdir_in(target).unwrap()
}

fn config(store: &Path, base_url: &str) -> Config {
    let mut config = Config::default();
    config.store.path = store.to_str().unwrap().to_owned();
    config.glm.base_url = base_url.to_owned();
    config.glm.api_key = Some(Secret::new("bench-key.secret"));
    config
}

/// A lane as the program starts it: on a thread of its own.
async fn start(config: Config) -> (LaneThread, Orchestrator) {
    let thread = LaneThread::new().unwrap();
    let lane = thread.run(async move { Orchestrator::start(&config).await });
    let lane = lane.await.unwrap();
    (thread, lane)
}

/// Ratios of so many rounds, in ten-thousandths and sorted, as they are told.
fn told(ratios: &[u64]) -> String {
    let parts = |ratio: u64| ratio as f64 / 10_000.0;
    format!(
        "{:.4} (median of {} rounds, {:.4} to {:.4})",
        parts(quantile(ratios, 0.5)),
        ratios.len(),
        parts(quantile(ratios, 0.0)),
        parts(quantile(ratios, 1.0))
    )
}

fn quantile(sorted: &[u64], q: f64) -> u64 {
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}

fn prompt(n: usize) -> Submission {
    Submission::prompt(format!(
        "Summarise in one sentence why a queue in front of a rate-limited API helps, number {n}."
    ))
    .unwrap()
}

mod submit {
    use super::*;

    const ONE: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("one");

    /// Median of a bare redb commit of one row of `bytes`, in microseconds.
    pub(super) fn bare_commit(dir: &Path, bytes: usize, rounds: u64) -> u64 {
        let db = redb::Database::create(dir.join("bare.redb")).unwrap();
        let row = vec![7_u8; bytes];
        let mut times: Vec<u64> = (0..rounds)
            .map(|n| {
                let begun = Instant::now();
                let write = db.begin_write().unwrap();
                write
                    .open_table(ONE)
                    .unwrap()
                    .insert(n, row.as_slice())
                    .unwrap();
                write.commit().unwrap();
                begun.elapsed().as_micros() as u64
            })
            .collect();
        times.sort_unstable();
        quantile(&times, 0.5)
    }

    /// Submissions a second of `submitters` at once, and the median acknowledgement.
    async fn submitters(lane: &Orchestrator, submitters: usize, jobs: usize) -> (f64, u64) {
        let begun = Instant::now();
        let tasks: Vec<_> = (0..submitters)
            .map(|s| {
                let lane = lane.clone();
                tokio::spawn(async move {
                    let mut times = Vec::with_capacity(jobs / submitters);
                    for n in 0..jobs / submitters {
                        let at = Instant::now();
                        lane.submit(prompt(s * jobs + n)).await.unwrap();
                        times.push(at.elapsed().as_micros() as u64);
                    }
                    times
                })
            })
            .collect();
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await.unwrap());
        }
        let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
        times.sort_unstable();
        (rate, quantile(&times, 0.5))
    }

    /// Jobs a second that so many callers put on disk, a thousand of a kilobyte at a time.
    async fn bulk(lane: &Orchestrator, callers: usize, from: usize) -> f64 {
        const THOUSANDS: usize = 60;
        let chunk = |at: usize| {
            (0..1_000)
                .map(|n| waiting::words(at + n))
                .collect::<Vec<_>>()
        };
        let begun = Instant::now();
        let mut making = Duration::ZERO;
        let tasks = (0..callers).map(|caller| {
            let lane = lane.clone();
            let own = (0..THOUSANDS / callers).map(|n| from + (caller * THOUSANDS + n) * 1_000);
            let at = Instant::now();
            let chunks: Vec<_> = own.map(chunk).collect();
            making += at.elapsed();
            async move {
                for jobs in chunks {
                    for submitted in lane.submit_many(jobs).await.unwrap() {
                        submitted.unwrap();
                    }
                }
            }
        });
        let tasks: Vec<_> = tasks.collect();
        let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
        for task in tasks {
            task.await.unwrap();
        }
        let took = begun.elapsed() - making;
        (THOUSANDS * 1_000) as f64 / took.as_secs_f64()
    }

    pub(super) async fn run() {
        println!(
            "\n== durable submissions (median of 5 rounds, one row of 300 bytes as the baseline)"
        );
        let mut ratios = Vec::new();
        let mut acks = Vec::new();
        for round in 1..=5 {
            let dir = scratch();
            let mut config = config(&dir.path().join("lane.redb"), "http://127.0.0.1:9");
            config.glm.is_active = false;
            let (_thread, lane) = start(config).await;
            submitters(&lane, 8, 400).await;
            let bare = bare_commit(dir.path(), 300, 400);
            let (one_rate, one_ack) = submitters(&lane, 1, 800).await;
            let (many_rate, many_ack) = submitters(&lane, 64, 32_000).await;
            let bare_after = bare_commit(
                &{
                    let again = dir.path().join("again");
                    std::fs::create_dir(&again).unwrap();
                    again
                },
                300,
                400,
            );
            let bare = (bare + bare_after) / 2;
            let mut rates = Vec::new();
            for (nth, callers) in [1, 2, 4].into_iter().enumerate() {
                rates.push(bulk(&lane, callers, (nth + 1) * 1_000_000).await);
            }
            println!(
                "round {round}: submit_many of 1,000 by 1, 2 and 4 callers: {:.0}, {:.0} and {:.0} jobs/s",
                rates[0], rates[1], rates[2]
            );
            println!(
                "round {round}: bare commit {bare} us | 1 submitter {one_rate:.0}/s, ack p50 {one_ack} us | 64 submitters {many_rate:.0}/s, ack p50 {many_ack} us"
            );
            ratios.push((many_rate / one_rate * 100.0) as u64);
            acks.push((one_ack as f64 / bare as f64 * 100.0) as u64);
            lane.shutdown(Duration::from_secs(5)).await;
        }
        ratios.sort_unstable();
        acks.sort_unstable();
        println!(
            "64 submitters / 1 submitter: {:.1} (aim: at least 15) | ack p50 / bare commit: {:.2} (aim: at most 2.5)",
            quantile(&ratios, 0.5) as f64 / 100.0,
            quantile(&acks, 0.5) as f64 / 100.0
        );
    }
}

/// Stores full of what has ended, made row by row as the lane would.
mod past {
    use onelane::model::Timestamp;
    use onelane::ports::Store as _;
    use onelane::store::{RedbStore, StoreOptions};
    use onelane_actors::testing::sample;
    use onelane_core::model::Transition;

    use super::*;

    /// Jobs in one transaction.
    const BATCH: u64 = 1_000;

    /// Stores `jobs` jobs with a call each, ended evenly over the `days` days before `now`.
    pub(super) fn fill(path: &Path, jobs: u64, days: u64, now: Timestamp) {
        let store = RedbStore::open(path, StoreOptions::default()).unwrap();
        let length_ms = days * 86_400_000;
        for first in (0..jobs).step_by(BATCH as usize) {
            let batch: Vec<Transition> = (first..jobs.min(first + BATCH))
                .flat_map(|n| {
                    let mut done = sample::complete(n + 1, 1);
                    if let Transition::Settle(settlement) = &mut done {
                        let call = &mut settlement.call;
                        call.ended_at = now.minus_ms(length_ms - length_ms * n / jobs);
                        call.response_time_ms = 500 + n * 7_919 % 20_000;
                        call.model = format!("glm-{}", n % 3);
                        call.user_id = format!("user-{}", n % 5);
                    }
                    [sample::insert(n + 1), sample::start(n + 1), done]
                })
                .collect();
            let decisions = store.commit(&batch).unwrap();
            assert!(decisions.iter().all(Result::is_ok));
        }
    }
}

mod statistics {
    use onelane::model::Day;
    use onelane::ports::{Clock as _, UsageFilter};
    use onelane::statistics::{GroupBy, StatisticsQuery};
    use onelane::system::SystemClock;

    use super::*;

    const ROUNDS: usize = 201;
    const DAYS: u64 = 365;

    /// Median of a month's answer, in microseconds, with so many calls in the log of a year.
    async fn month(calls: u64) -> u64 {
        let dir = scratch();
        let path = dir.path().join("lane.redb");
        let now = SystemClock.now();
        past::fill(&path, calls, DAYS, now);
        let mut config = config(&path, "http://127.0.0.1:9");
        config.glm.is_active = false;
        let lane = Orchestrator::start(&config).await.unwrap();
        let end = now.day();
        let query = StatisticsQuery {
            filter: UsageFilter {
                start: Day(end.0 - 29),
                end,
                ..UsageFilter::default()
            },
            session: None,
            group_by: GroupBy::default(),
            calendar: onelane::model::Calendar::default(),
        };
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let rows = lane.statistics(query.clone()).await.unwrap().rows;
            times.push(begun.elapsed().as_micros() as u64);
            assert!(rows.len() >= 29 * 3, "{} rows", rows.len());
        }
        lane.shutdown(Duration::from_secs(5)).await;
        times.sort_unstable();
        quantile(&times, 0.5)
    }

    pub(super) async fn run() {
        println!(
            "\n== one month of statistics, the call log of a year behind it (median of {ROUNDS})"
        );
        let few = month(10_000).await;
        let many = month(1_000_000).await;
        println!(
            "10,000 calls {few} us | 1,000,000 calls {many} us | ratio {:.2} (aim: at most 2)",
            many as f64 / few as f64
        );
    }
}

mod prune {
    use onelane::model::Retention;
    use onelane::ports::{CallFilter, Clock as _};
    use onelane::system::SystemClock;
    use onelane_actors::testing::sample;

    use super::*;

    /// With a call each: twice as many rows to prune.
    const OLD_JOBS: u64 = 50_000;
    /// More than are made while all is pruned: the lane is busy to the end.
    const CALLS: usize = 400_000;
    const ROUNDS: usize = 3;

    /// When a run is over.
    #[derive(Clone, Copy)]
    enum Until {
        /// All old rows are gone.
        Pruned,
        /// So many calls were made.
        Made(u64),
    }

    /// Calls a second on a store with old rows until a run is over, and how many calls those were.
    async fn rate(sim: &Simulator, full: &Path, until: Until) -> (f64, u64) {
        let dir = scratch();
        let path = dir.path().join("lane.redb");
        std::fs::copy(full, &path).unwrap();
        let config = config(&path, &sim.base_url());
        let lane = Orchestrator::start(&config).await.unwrap();
        lane.pause(None).await.unwrap();
        for chunk in (0..CALLS).step_by(10_000) {
            let jobs = (chunk..chunk + 10_000).map(prompt).collect();
            lane.submit_many(jobs).await.unwrap();
        }
        if matches!(until, Until::Pruned) {
            let retention = serde_json::json!({"retention": {"callsDays": 1, "jobsDays": 1}});
            lane.set_config(&retention).await.unwrap();
        }
        let begun = Instant::now();
        lane.resume().await.unwrap();
        let youngest = sample::job_id(OLD_JOBS);
        let its_calls = CallFilter {
            job_id: Some(youngest),
            ..CallFilter::default()
        };
        // Jobs go before calls, and both from the oldest on.
        let made = loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let completed = lane.queue_status().await.unwrap().completed;
            match until {
                Until::Made(calls) if completed - OLD_JOBS >= calls => break completed - OLD_JOBS,
                Until::Made(_) => {}
                Until::Pruned => {
                    let page = lane.calls(its_calls.clone(), None, 1).await.unwrap();
                    if page.calls.is_empty() {
                        assert!(lane.job(youngest).await.is_err());
                        break completed;
                    }
                }
            }
        };
        let rate = made as f64 / begun.elapsed().as_secs_f64();
        assert!(made < CALLS as u64, "the lane was idle at the end");
        lane.shutdown(Duration::from_secs(5)).await;
        (rate, made)
    }

    /// How long it takes to prune everything with nothing else to do, in seconds.
    async fn alone(full: &Path, retention: Retention) -> f64 {
        let dir = scratch();
        let path = dir.path().join("lane.redb");
        std::fs::copy(full, &path).unwrap();
        let mut config = config(&path, "http://127.0.0.1:9");
        config.glm.is_active = false;
        config.store.retention = retention;
        let begun = Instant::now();
        let lane = Orchestrator::start(&config).await.unwrap();
        loop {
            let jobs = lane.queue_status().await.unwrap().completed;
            let calls = lane
                .calls(CallFilter::default(), None, 1)
                .await
                .unwrap()
                .calls;
            if jobs == 0 && calls.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let seconds = begun.elapsed().as_secs_f64();
        lane.shutdown(Duration::from_secs(5)).await;
        seconds
    }

    pub(super) async fn run() {
        println!(
            "\n== pruning {} old rows while the lane works at 0 ms latency",
            2 * OLD_JOBS
        );
        let dir = scratch();
        let full = dir.path().join("full.redb");
        let now = SystemClock.now();
        past::fill(&full, OLD_JOBS, 300, now.minus_ms(86_400_000));
        let old = Retention {
            calls_days: 1,
            jobs_days: 1,
            ..Retention::default()
        };
        let sim = Simulator::start(SimulatorConfig::default()).unwrap();
        println!("alone: {:.1} s", alone(&full, old).await);
        rate(&sim, &full, Until::Made(2_000)).await;
        let mut ratios = Vec::with_capacity(ROUNDS);
        for round in 1..=ROUNDS {
            let (with, made) = rate(&sim, &full, Until::Pruned).await;
            let (without, _) = rate(&sim, &full, Until::Made(made)).await;
            println!(
                "round {round}: {without:.0} calls/s without, {with:.0} with pruning; {} rows pruned during {made} calls",
                2 * OLD_JOBS
            );
            ratios.push((with / without * 1_000.0) as u64);
        }
        ratios.sort_unstable();
        println!(
            "throughput with pruning / without: {:.3} (median of {ROUNDS}; aim: above 0.8)",
            quantile(&ratios, 0.5) as f64 / 1_000.0
        );
    }
}
