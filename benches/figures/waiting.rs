//! Many jobs that wait: what they take, and how soon a lane calls that starts on them.

use onelane::store::{RedbStore, StoreOptions};

use super::*;

const JOBS: usize = 100_000;
/// As many as may wait, but for those of the lanes that are killed.
const MANY: usize = 1_000_000 - 1_000;
/// What such a lane puts on disk before it is killed.
const KEPT: usize = 100;
/// Of a prompt of 1,000 bytes, numbered words, as text compresses.
const PROMPT_BYTES: usize = 1_000;

fn rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// Starts on a store, prints its memory and, when a server is given, the time to first dispatch.
pub(super) fn child(store: &Path, base_url: &str) {
    runtime().block_on(async {
        let mut config = config(store, base_url);
        config.glm.is_active = false;
        // The page cache is bounded by a setting, however many jobs wait: it is not theirs.
        config.store.cache_bytes = 1 << 20;
        let lane = Orchestrator::start(&config).await.unwrap();
        // What the start alone needed goes back to the system within a second or two of work.
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            lane.queue_status().await.unwrap();
        }
        let rss = rss_bytes();
        lane.shutdown(Duration::from_secs(1)).await;
        drop(lane);
        let sim = Arc::new(Simulator::start(SimulatorConfig::default()).unwrap());
        let mut config = super::config(store, &sim.base_url());
        config.glm.model = "glm-4.7".to_owned();
        let begun = Instant::now();
        let lane = Orchestrator::start_loaded(Loaded::from_config(&config).unwrap())
            .await
            .unwrap();
        while sim.stats().calls == 0 && begun.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        let dispatch_us = begun.elapsed().as_micros();
        println!("{rss} {dispatch_us}");
        lane.shutdown(Duration::from_millis(100)).await;
    });
}

fn measure(store: &Path) -> (u64, u64) {
    let out = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--waiting-child",
            store.to_str().unwrap(),
            "http://127.0.0.1:9",
        ])
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let text = String::from_utf8(out.stdout).unwrap();
    let mut numbers = text.split_whitespace().map(|n| n.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Words of a prompt, others for each number.
pub(super) fn words(n: usize) -> Submission {
    const WORDS: [&str; 16] = [
        "lane", "queue", "a", "the", "of", "durable", "model", "answer", "which", "token",
        "before", "under", "says", "limit", "is", "in",
    ];
    let mut text = format!("{n}:");
    let mut seed = n as u64;
    while text.len() < PROMPT_BYTES {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push(' ');
        text.push_str(WORDS[(seed >> 60) as usize]);
    }
    text.truncate(PROMPT_BYTES);
    Submission::prompt(text).unwrap()
}

/// Holds a store with some jobs more, which are in its journal alone, until it is killed.
pub(super) fn hold(store: &Path) {
    runtime().block_on(async {
        let mut config = config(store, "http://127.0.0.1:9");
        config.glm.is_active = false;
        let lane = Orchestrator::start(&config).await.unwrap();
        for n in 0..KEPT {
            lane.submit(words(n)).await.unwrap();
        }
        println!("held");
        std::future::pending::<()>().await;
    });
}

/// A million of them: what they take on disk and in memory, and how soon a lane calls.
pub(super) fn many() {
    println!("\n== {MANY} waiting jobs of {PROMPT_BYTES} bytes");
    let dir = scratch();
    let full = dir.path().join("full.redb");
    let mut submitting = Duration::ZERO;
    runtime().block_on(async {
        let mut config = config(&full, "http://127.0.0.1:9");
        config.glm.is_active = false;
        let lane = Orchestrator::start(&config).await.unwrap();
        for chunk in 0..MANY / 1_000 {
            let jobs = (0..1_000).map(|n| words(chunk * 1_000 + n)).collect();
            let begun = Instant::now();
            let submitted = lane.submit_many(jobs).await.unwrap();
            submitting += begun.elapsed();
            for submitted in submitted {
                submitted.unwrap();
            }
        }
        lane.shutdown(Duration::from_secs(5)).await;
    });
    let rate = MANY as f64 / submitting.as_secs_f64();
    let bytes = std::fs::metadata(&full).unwrap().len();
    println!(
        "submit_many of 1,000: {rate:.0} jobs/s | {:.2} GB, {} bytes a job",
        bytes as f64 / 1e9,
        bytes / MANY as u64
    );
    for _ in 0..5 {
        let (rss, dispatch_us) = measure(&full);
        println!(
            "{:.0} MB | restart to first call {:.0} ms",
            rss as f64 / 1e6,
            dispatch_us as f64 / 1e3
        );
    }
    for _ in 0..5 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--waiting-hold", full.to_str().unwrap()])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut told).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let begun = Instant::now();
        let store = RedbStore::open(&full, StoreOptions::default()).unwrap();
        println!(
            "opened after a kill in {:.1} ms",
            begun.elapsed().as_secs_f64() * 1e3
        );
        drop(store);
    }
}

pub(super) fn run() {
    println!("\n== {JOBS} waiting jobs");
    let dir = scratch();
    let (empty, full) = (dir.path().join("empty.redb"), dir.path().join("full.redb"));
    runtime().block_on(async {
        let mut config = config(&full, "http://127.0.0.1:9");
        config.glm.is_active = false;
        let lane = Orchestrator::start(&config).await.unwrap();
        for chunk in 0..JOBS / 10_000 {
            let jobs = (0..10_000).map(|n| prompt(chunk * 10_000 + n)).collect();
            for submitted in lane.submit_many(jobs).await.unwrap() {
                submitted.unwrap();
            }
        }
        lane.shutdown(Duration::from_secs(5)).await;
    });
    runtime().block_on(async {
        let mut config = config(&empty, "http://127.0.0.1:9");
        config.glm.is_active = false;
        let lane = Orchestrator::start(&config).await.unwrap();
        lane.submit(prompt(0)).await.unwrap();
        lane.shutdown(Duration::from_secs(5)).await;
    });
    let (base, _) = measure(&empty);
    let (rss, dispatch_us) = measure(&full);
    println!(
        "memory per waiting job {} bytes (aim: below 300; {:.1} MB over {:.1} MB of a start with one job) | restart to first dispatch {:.0} ms (aim: below 1000)",
        rss.saturating_sub(base) / JOBS as u64,
        rss as f64 / 1e6,
        base as f64 / 1e6,
        dispatch_us as f64 / 1e3,
    );
}
