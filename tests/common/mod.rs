//! The program as a child process: in a directory of its own, without this machine's environment, its
//! output read as it comes, signalled, and waited for on conditions instead of on the clock.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test binary uses its part of it"
)]

mod disk;
mod http;
mod process;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use onelane::model::{CallOutcome, CallRecord, JobStatus, StoredFile};
use onelane::ports::{CallFilter, JobFilter, JobRecord, Store as _};
use onelane::simulator::Simulator;
use onelane::store::{RedbStore, StoreOptions};
use serde_json::Value;

pub use disk::Tmpfs;
pub use http::{Answer, Http, Pieces};
pub use process::{Ended, Running, run};

/// How long anything may take on the slowest machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until `condition` holds; panics with `what` when it never does.
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(PATIENCE, condition), "never: {what}");
}

/// Whether `condition` comes to hold within `limit`.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !condition() {
        if began.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

/// Where the program is: where Cargo says, or for an example, which it tells nothing, beside its directory.
pub fn program() -> PathBuf {
    let told = option_env!("CARGO_BIN_EXE_onelane").map(PathBuf::from);
    told.unwrap_or_else(|| {
        let example = std::env::current_exe().unwrap();
        let profile = example.parent().and_then(Path::parent).unwrap();
        profile.join(format!("onelane{}", std::env::consts::EXE_SUFFIX))
    })
}

/// A directory of its own, for the program to run in.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Leaves it where it is, for whoever wants to look.
    pub fn keep(self) -> PathBuf {
        self.0.keep()
    }

    /// The files here, by name.
    pub fn files(&self) -> Vec<(String, PathBuf)> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let files = paths.filter(|path| path.is_file()).map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            (name.to_owned(), path.clone())
        });
        files.collect()
    }

    /// The lines of a JSONL file; none when it is not there.
    pub fn lines(&self, name: &str) -> Vec<Value> {
        if !self.has(name) {
            return Vec::new();
        }
        let text = self.read(name);
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// The program with these arguments in this directory, without a key.
    pub fn bare(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.current_dir(self.0.path()).env_clear().args(args);
        command
    }

    /// The same with a key.
    pub fn onelane(&self, args: &[&str]) -> Command {
        let mut command = self.bare(args);
        command.env("ONELANE_API_KEY", "test-key");
        command
    }

    /// The store that a process left here.
    pub fn store(&self, name: &str) -> Left {
        Left(RedbStore::open(self.path(name), StoreOptions::default()).unwrap())
    }
}

/// A store after its process has ended.
pub struct Left(pub RedbStore);

impl Left {
    /// All jobs, newest first.
    pub fn jobs(&self) -> Vec<JobRecord> {
        let mut jobs = Vec::new();
        let mut cursor = None;
        loop {
            let page = self.0.jobs(&JobFilter::default(), cursor, 500).unwrap();
            jobs.extend(page.jobs);
            cursor = page.cursor;
            if cursor.is_none() {
                return jobs;
            }
        }
    }

    /// Uploaded files, those that are not whole among them.
    pub fn files(&self) -> Vec<StoredFile> {
        self.0.files(None, 1_000).unwrap()
    }

    /// The whole call log, newest first.
    pub fn calls(&self) -> Vec<CallRecord> {
        let mut calls = Vec::new();
        let mut cursor = None;
        loop {
            let page = self.0.calls(&CallFilter::default(), cursor, 500).unwrap();
            calls.extend(page.calls);
            cursor = page.cursor;
            if cursor.is_none() {
                return calls;
            }
        }
    }

    /// Asserts that each call which the simulator saw is in the call log, once.
    pub fn knows_every_call_of(&self, simulator: &Simulator) {
        let mut log: BTreeSet<String> = BTreeSet::new();
        for call in self.calls() {
            assert!(log.insert(call.request_id.to_string()), "twice: {call:?}");
        }
        // One that was cut off before its body was read has no name.
        let arrivals = simulator.arrivals().into_iter();
        for arrival in arrivals.filter(|arrival| !arrival.request_id.is_empty()) {
            let known = log.remove(&arrival.request_id);
            assert!(known, "sent without a row, or twice: {arrival:?}");
        }
    }

    /// How many attempts ended so.
    pub fn calls_that(&self, outcome: CallOutcome) -> usize {
        let calls = self.calls();
        calls.iter().filter(|call| call.outcome == outcome).count()
    }

    /// How many jobs have this status.
    pub fn count(&self, status: JobStatus) -> u64 {
        self.0.counts().unwrap().of(status)
    }
}

/// Writes a prompts file: `{"prompt": "prompt 1"}` to `{"prompt": "prompt N"}`.
pub fn prompts(count: usize) -> String {
    (1..=count)
        .map(|n| format!("{{\"prompt\": \"prompt {n}.\"}}\n"))
        .collect()
}
