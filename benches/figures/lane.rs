//! The lane beside a bare loop that makes one call after the other, as the server sees both.

use std::time::Duration;

use onelane::orchestrator::LaneThread;
use onelane::simulator::{Arrival, Simulator, SimulatorConfig, Span};

use super::{config, prompt, quantile, scratch, slow_disk, start, told};

/// What the server saw of one series of calls.
pub(super) struct Seen {
    pub(super) rate: f64,
    gaps: Vec<u64>,
}

pub(super) fn seen(arrivals: &[Arrival]) -> Seen {
    let first = arrivals.first().unwrap().at_us;
    let last = arrivals.last().unwrap().at_us;
    let mut gaps: Vec<u64> = arrivals
        .windows(2)
        .map(|pair| pair[1].at_us.saturating_sub(pair[0].end_us.unwrap()))
        .collect();
    gaps.sort_unstable();
    Seen {
        rate: (arrivals.len() - 1) as f64 / ((last - first) as f64 / 1e6),
        gaps,
    }
}

/// The baseline: one task on a thread of its own, one call after the other, the answer read and parsed, nothing stored.
async fn bare_loop(base_url: String, calls: usize) {
    let client = onelane::tls::client()
        .unwrap()
        .no_proxy()
        .http1_only()
        .tcp_nodelay(true)
        .build()
        .unwrap();
    let thread = LaneThread::new().unwrap();
    let calling = thread.run(async move {
        let url = format!("{base_url}/chat/completions");
        for n in 0..calls {
            let body = serde_json::json!({
                "model": "glm-4.7",
                "request_id": format!("loop-{n:08}"),
                "messages": [{"role": "user", "content": format!(
                    "Summarise in one sentence why a queue in front of a rate-limited API helps, number {n}."
                )}],
            });
            let response = client
                .post(&url)
                .header("authorization", "Bearer bench-key.secret")
                .header("content-type", "application/json")
                .body(body.to_string())
                .send()
                .await
                .unwrap();
            assert_eq!(response.status(), 200);
            let bytes = response.bytes().await.unwrap();
            let _: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        }
    });
    calling.await;
}

/// Processor time of the whole process, in microseconds. The system counts it in hundredths of a second.
fn processor_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit(") ").next().unwrap_or_default();
    let fields = behind_name.split(' ').skip(11).take(2);
    fields
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum::<u64>()
        * 10_000
}

/// Answers how much processor time the calls took.
async fn through_the_lane(sim: &Simulator, calls: usize, slower_by: Duration) -> u64 {
    let dir = scratch();
    let config = config(&dir.path().join("lane.redb"), &sim.base_url());
    let (_thread, lane) = match slower_by {
        Duration::ZERO => start(config).await,
        more => slow_disk::start(config, more).await,
    };
    lane.pause(None).await.unwrap();
    let jobs = (0..calls).map(prompt).collect();
    let ids: Vec<_> = lane.submit_many(jobs).await.unwrap();
    let before = processor_us();
    lane.resume().await.unwrap();
    let last = ids.last().unwrap().as_ref().unwrap().job_id;
    lane.wait(last).await.unwrap();
    let processor = processor_us() - before;
    assert_eq!(lane.queue_status().await.unwrap().completed, calls as u64);
    lane.shutdown(Duration::from_secs(5)).await;
    processor
}

pub(super) async fn run() {
    println!(
        "\n== the lane beside a bare sequential reqwest loop, alternating (every result of the lane durable)"
    );
    let servers = [
        (0, 3_000, 7, 0),
        (5, 400, 7, 0),
        (50, 60, 7, 0),
        (50, 60, 7, 20),
    ];
    for (latency_ms, calls, rounds, slower_by_ms) in servers {
        let slower_by = Duration::from_millis(slower_by_ms);
        let sim = Simulator::start(SimulatorConfig {
            latency_ms: Span::Fixed(latency_ms),
            ..SimulatorConfig::default()
        })
        .unwrap();
        bare_loop(sim.base_url(), 50).await;
        let mut ratios = Vec::new();
        let (mut loops, mut lanes) = (Vec::new(), Vec::new());
        let (mut loop_rate, mut lane_rate) = (Vec::new(), Vec::new());
        let (mut of_loops, mut of_lanes) = (0, 0);
        for _ in 0..rounds {
            sim.reset_stats();
            let before = processor_us();
            bare_loop(sim.base_url(), calls).await;
            of_loops += processor_us() - before;
            let bare = seen(&sim.arrivals());
            sim.reset_stats();
            of_lanes += through_the_lane(&sim, calls, slower_by).await;
            assert_eq!(sim.stats().peak_in_flight, 1);
            let lane = seen(&sim.arrivals());
            ratios.push((lane.rate / bare.rate * 10_000.0) as u64);
            loop_rate.push(bare.rate as u64);
            lane_rate.push(lane.rate as u64);
            loops.extend(bare.gaps);
            lanes.extend(lane.gaps);
        }
        for sorted in [
            &mut ratios,
            &mut loops,
            &mut lanes,
            &mut loop_rate,
            &mut lane_rate,
        ] {
            sorted.sort_unstable();
        }
        let on = match slower_by_ms {
            0 => String::new(),
            ms => format!(", a disk that takes {ms} ms more for each sync"),
        };
        println!(
            "{latency_ms:>2} ms{on}: lane / loop {} | calls/s lane {} loop {} | idle gap at the server p50 {} us (loop {}), p99 {} us (loop {})",
            told(&ratios),
            quantile(&lane_rate, 0.5),
            quantile(&loop_rate, 0.5),
            quantile(&lanes, 0.5),
            quantile(&loops, 0.5),
            quantile(&lanes, 0.99),
            quantile(&loops, 0.99),
        );
        let a_call = |us: u64| us / (calls * rounds) as u64;
        println!(
            "       processor time a call, the server's with it: lane {} us, loop {} us",
            a_call(of_lanes),
            a_call(of_loops)
        );
    }
}
