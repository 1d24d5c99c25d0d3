//! The program as its users start it: real processes, real signals, real files.

mod batches;
mod batches_http;
mod canary;
mod connections;
mod elsewhere;
mod ending;
mod frozen;
mod full_disk;
mod hostile;
mod interrupted;
mod keys;
mod manager;
mod resume;
mod run;
mod serve;
mod simulate;
mod sockets;
mod standstill;
mod store;
mod surroundings;
mod tasks;
mod tls;
pub(crate) mod webhooks;

use std::process::Command;

use onelane::simulator::{Simulator, SimulatorConfig, Span};
use serde_json::Value;

use crate::common::{Ended, Http, Place, Running, prompts, run, until};

/// A simulator in the test's own process that takes so long for an answer.
fn simulator(latency_ms: u64) -> Simulator {
    Simulator::start(SimulatorConfig {
        latency_ms: Span::Fixed(latency_ms),
        ..SimulatorConfig::default()
    })
    .unwrap()
}

/// A place and a simulator that answers at once.
fn world() -> (Place, Simulator) {
    (Place::new(), simulator(0))
}

/// The same, with so many lines in `prompts.jsonl`.
fn with_prompts(lines: usize) -> (Place, Simulator) {
    let (place, simulator) = world();
    place.write("prompts.jsonl", prompts(lines));
    (place, simulator)
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

/// `onelane serve --once`, to its end.
fn once(place: &Place, simulator: &Simulator) -> Ended {
    run(serve(place, simulator).arg("--once"))
}

/// A daemon that runs, and a program beside it.
struct Daemon {
    running: Running,
    url: String,
    http: Http,
}

impl Daemon {
    fn start(place: &Place, simulator: &Simulator) -> Self {
        Self::of(&mut serve(place, simulator))
    }

    fn of(command: &mut Command) -> Self {
        let running = Running::start(command);
        let url = running.url();
        Self {
            running,
            url,
            http: Http::new(),
        }
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        let answer = self.http.get(&format!("{}{path}", self.url)).unwrap();
        assert!(answer.status < 300, "{path}: {answer:?}");
        answer.json()
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value, status: u16) -> Value {
        let answer = self.http.post(&format!("{}{path}", self.url), body);
        let answer = answer.unwrap();
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        answer.json()
    }

    #[track_caller]
    fn put(&self, path: &str, body: &Value) {
        let answer = self.http.put(&format!("{}{path}", self.url), body);
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }

    /// Submits a job and answers its id.
    #[track_caller]
    fn submit(&self, job: &Value) -> String {
        let taken = self.post("/api/glm/jobs", job, 202);
        taken["id"].as_str().unwrap().to_owned()
    }

    /// The job, once it has ended.
    #[track_caller]
    fn ended(&self, id: &str) -> Value {
        let job = self.get(&format!("/api/glm/jobs/{id}?wait=60s"));
        assert!(job["processedAt"].is_string(), "it goes on: {job}");
        job
    }

    /// The job as an operator sees it, with its attempts.
    #[track_caller]
    fn job(&self, id: &str) -> Value {
        self.get(&format!("/api/admin/glm/queue/{id}"))["job"].clone()
    }

    /// How many jobs a list of the queue has.
    #[track_caller]
    fn count(&self, query: &str) -> u64 {
        let list = self.get(&format!("/api/admin/glm/queue?{query}"));
        list["total"].as_u64().unwrap()
    }

    /// Waits until nothing is in flight any more and every open attempt that was found is closed.
    fn settled(&self) {
        until("what was found is settled", || {
            self.get("/api/admin/glm/metrics")["currentConcurrency"] == 0
        });
    }

    /// SIGTERM, and its peaceful end.
    #[track_caller]
    fn stop(self) {
        self.running.signal("TERM");
        self.running.end().with(0);
    }

    /// SIGKILL.
    fn kill(self) {
        self.running.kill();
    }
}
