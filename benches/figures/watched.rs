//! The lane while ten watch it by the desk beside the lane that nobody watches: each has the page's stream open and asks
//! for the overview again whenever it is told to, as the script of a page does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use onelane::api::server::Listening;
use onelane::config::ServerSection;
use onelane::desk;
use onelane::simulator::{Simulator, SimulatorConfig, Span};
use onelane::system::SystemClock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::lane::seen;
use super::{config, prompt, quantile, scratch, told};

const WATCHERS: usize = 10;
const ROUNDS: usize = 7;

/// Watches until it is aborted, and counts the pages that it was given.
fn watch(address: SocketAddr, pages: Arc<AtomicUsize>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let client = onelane::tls::client().unwrap().no_proxy().build().unwrap();
        let url = |path: &str| format!("http://{address}{path}");
        let stream = client.get(url("/desk/live")).send().await.unwrap();
        let mut stream = stream.error_for_status().unwrap();
        while let Ok(Some(_)) = stream.chunk().await {
            let page = client.get(url("/")).header("onelane-watch", "1");
            let Ok(page) = page.header("accept-encoding", "gzip").send().await else {
                return;
            };
            assert_eq!(page.status(), 200);
            if page.bytes().await.is_ok() {
                pages.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
}

/// Calls a second through a lane whose desk so many watch, and how many pages they were given.
async fn rate(sim: &Simulator, calls: usize, watchers: usize) -> (f64, usize) {
    let dir = scratch();
    let config = config(&dir.path().join("lane.redb"), &sim.base_url());
    let (_thread, lane) = super::start(config).await;
    let section = ServerSection {
        listen: "127.0.0.1:0".to_owned(),
        ..ServerSection::default()
    };
    let listening = Listening::on(section).await.unwrap();
    let server = listening.with_pages(desk::pages());
    let server = server.serve(lane.clone(), Arc::new(SystemClock));
    let (address, stop) = (server.local_addr().unwrap(), CancellationToken::new());
    let served = tokio::spawn(server.run(stop.clone().cancelled_owned(), Duration::from_secs(5)));
    lane.pause(None).await.unwrap();
    let jobs = (0..calls).map(prompt).collect();
    let ids = lane.submit_many(jobs).await.unwrap();
    let pages = Arc::new(AtomicUsize::new(0));
    let watching: Vec<_> = (0..watchers)
        .map(|_| watch(address, Arc::clone(&pages)))
        .collect();
    // Everybody has seen the pause.
    while pages.load(Ordering::Relaxed) < watchers {
        lane.pause(None).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    sim.reset_stats();
    let before = pages.load(Ordering::Relaxed);
    lane.resume().await.unwrap();
    let last = ids.last().unwrap().as_ref().unwrap().job_id;
    lane.wait(last).await.unwrap();
    let given = pages.load(Ordering::Relaxed) - before;
    assert_eq!(sim.stats().peak_in_flight, 1);
    let rate = seen(&sim.arrivals()).rate;
    for watcher in watching {
        watcher.abort();
    }
    stop.cancel();
    lane.shutdown(Duration::from_secs(5)).await;
    served.await.unwrap();
    (rate, given)
}

pub(super) async fn run() {
    println!(
        "\n== the lane with {WATCHERS} who watch its overview beside the lane that nobody watches, alternating"
    );
    for (latency_ms, calls) in [(0, 6_000), (5, 800)] {
        let sim = Simulator::start(SimulatorConfig {
            latency_ms: Span::Fixed(latency_ms),
            ..SimulatorConfig::default()
        })
        .unwrap();
        rate(&sim, 100, 0).await;
        let (mut ratios, mut alone, mut watched) = (Vec::new(), Vec::new(), Vec::new());
        let mut pages = 0;
        for _ in 0..ROUNDS {
            let (without, _) = rate(&sim, calls, 0).await;
            let (with, given) = rate(&sim, calls, WATCHERS).await;
            assert!(given >= WATCHERS, "nobody looked on: {given} pages");
            ratios.push((with / without * 10_000.0) as u64);
            alone.push(without as u64);
            watched.push(with as u64);
            pages += given;
        }
        for sorted in [&mut ratios, &mut alone, &mut watched] {
            sorted.sort_unstable();
        }
        println!(
            "{latency_ms:>2} ms: watched / not watched {} | calls/s {} and {} | {pages} pages were given",
            told(&ratios),
            quantile(&watched, 0.5),
            quantile(&alone, 0.5),
        );
    }
}
