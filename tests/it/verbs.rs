//! Guards: the command line for a running daemon. Every noun reads well in 80 columns, is whole as JSON, and ends with the
//! code that says what was wrong: no daemon, a wrong token, an unknown id.

mod account;
mod all;
mod backup;
mod batches;
mod beside;
mod breaker;
mod budgets;
mod calls;
mod compare;
mod config;
mod contexts;
mod doctor;
mod events;
mod holds;
mod jobs;
mod keys;
mod lane;
mod manual;
mod reasons;
mod status;
mod top;
mod usage;
mod waiters;
mod webhooks;

use std::net::TcpListener;
use std::process::Command;

use onelane::simulator::{Simulator, SimulatorConfig, Span};
use serde_json::{Value, json};

use crate::common::{Ended, Http, Place, Running, run, until};

const TOKEN: &str = "8f14e45fceea167a5a36dedd4bea2543";

/// A daemon on a simulator, and a user who asks it.
struct World {
    place: Place,
    simulator: Simulator,
    running: Running,
    url: String,
    http: Http,
}

/// Where nobody listens.
fn nobody() -> String {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", free.local_addr().unwrap())
}

impl World {
    /// A daemon whose calls are answered at once.
    fn start() -> Self {
        Self::with_latency(0)
    }

    fn with_latency(latency_ms: u64) -> Self {
        let simulator = Simulator::start(SimulatorConfig {
            latency_ms: Span::Fixed(latency_ms),
            ..SimulatorConfig::default()
        })
        .unwrap();
        Self::on(Place::new(), simulator)
    }

    fn on(place: Place, simulator: Simulator) -> Self {
        let base_url = simulator.base_url();
        let mut serve =
            place.onelane(&["serve", "--base-url", &base_url, "--listen", "127.0.0.1:0"]);
        let running = Running::start(serve.env("ONELANE_ADMIN_TOKEN", TOKEN));
        let url = running.url();
        Self {
            place,
            simulator,
            running,
            url,
            http: Http::bearing(TOKEN),
        }
    }

    /// A command as its user types it: in words, told by the environment which daemon is asked and with which token.
    fn command(&self, words: &str) -> Command {
        let mut command = self.bare(words);
        command
            .env("ONELANE_URL", &self.url)
            .env("ONELANE_ADMIN_TOKEN", TOKEN);
        command
    }

    /// The same without a word about the daemon.
    fn bare(&self, words: &str) -> Command {
        let words: Vec<&str> = words.split_whitespace().collect();
        let mut command = self.place.bare(&words);
        command.env("XDG_CONFIG_HOME", self.place.path("config"));
        command
    }

    /// As [`Self::ask`], with words that have spaces.
    fn ask_words(&self, words: &[&str]) -> Ended {
        let mut command = self.place.bare(words);
        let command = command.env("ONELANE_URL", &self.url);
        run(command
            .env("ONELANE_ADMIN_TOKEN", TOKEN)
            .env("XDG_CONFIG_HOME", self.place.path("config")))
    }

    fn ask(&self, words: &str) -> Ended {
        run(&mut self.command(words))
    }

    /// What it says when all goes well: no line is wider than 80 places, nothing is said beside it.
    #[track_caller]
    fn told(&self, words: &str) -> String {
        let ended = self.ask(words).with(0);
        assert_eq!(ended.stderr, "", "{words}");
        for line in ended.stdout.lines() {
            assert!(line.chars().count() <= 80, "{words}: {line}");
        }
        ended.stdout
    }

    /// The same for a program.
    #[track_caller]
    fn json(&self, words: &str) -> Value {
        self.ask(&format!("{words} --json")).with(0).json()
    }

    /// Every way in which nobody can be asked is told with its code and what to do, as text and as JSON.
    #[track_caller]
    fn check_refusals(&self, words: &str) {
        let nobody = nobody();
        let mut absent = self.command(words);
        run(absent.env("ONELANE_URL", &nobody)).with(5).noting(&[
            &nobody,
            "ONELANE_URL",
            "onelane serve",
            "--url",
        ]);
        let mut absent = self.command(&format!("{words} --json"));
        let ended = run(absent.env("ONELANE_URL", &nobody)).with(5);
        let error: Value = serde_json::from_str(&ended.stderr).unwrap();
        assert_eq!(error["error"]["exitCode"], 5, "{error}");
        self.check_strangers(words);
    }

    /// Whoever has no token, or a wrong one, is told which it takes.
    #[track_caller]
    fn check_strangers(&self, words: &str) {
        let mut stranger = self.command(words);
        run(stranger.env("ONELANE_ADMIN_TOKEN", "another"))
            .with(2)
            .noting(&["token", "ONELANE_ADMIN_TOKEN"]);
        let mut stranger = self.command(words);
        run(stranger.env_remove("ONELANE_ADMIN_TOKEN"))
            .with(2)
            .noting(&["token", "--token-file"]);
    }

    fn get(&self, path: &str) -> Value {
        self.http
            .get(&format!("{}{path}", self.url))
            .unwrap()
            .json()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self
            .http
            .post(&format!("{}{path}", self.url), body)
            .unwrap();
        assert!(answer.status < 300, "{path}: {answer:?}");
        answer.json()
    }

    /// Submits a job and answers its id.
    fn submit(&self, prompt: &str) -> String {
        let taken = self.post(
            "/api/glm/jobs",
            &json!({"prompt": prompt, "userId": "alice"}),
        );
        taken["id"].as_str().unwrap().to_owned()
    }

    /// Submits jobs and waits for their ends.
    fn done(&self, prompts: &[&str]) -> Vec<String> {
        let ids: Vec<String> = prompts.iter().map(|prompt| self.submit(prompt)).collect();
        for id in &ids {
            self.get(&format!("/api/glm/jobs/{id}?wait=60s"));
        }
        ids
    }

    fn pause(&self) {
        self.post("/api/admin/glm/pause", &json!({"reason": "noon"}));
    }

    fn metrics(&self) -> Value {
        self.get("/api/admin/glm/metrics")
    }

    fn until_counted(&self, status: &str, count: u64) {
        until(status, || self.counted(status) == count);
    }

    fn counted(&self, status: &str) -> u64 {
        self.metrics()["jobs"][status].as_u64().unwrap()
    }
}
