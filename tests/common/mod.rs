//! The program as a child process: in a directory of its own, without this machine's environment, its
//! output read as it comes, signalled, and waited for on conditions instead of on the clock.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its part of it"
)]

use std::collections::BTreeSet;
use std::fmt;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use onelane::model::{CallOutcome, CallRecord, JobStatus};
use onelane::ports::{CallFilter, JobFilter, JobRecord, Store as _};
use onelane::simulator::Simulator;
use onelane::store::{RedbStore, StoreOptions};
use serde_json::Value;

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
        let mut command = Command::new(env!("CARGO_BIN_EXE_onelane"));
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

/// What a stream of a child has said so far.
#[derive(Clone, Default)]
struct Heard(Arc<(Mutex<Said>, Condvar)>);

#[derive(Default)]
struct Said {
    text: String,
    closed: bool,
}

impl Heard {
    fn listen(stream: impl Read + Send + 'static) -> (Self, JoinHandle<()>) {
        let heard = Self::default();
        let ear = heard.clone();
        let listener = std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while matches!(stream.read_until(b'\n', &mut line), Ok(n) if n > 0) {
                let text = String::from_utf8_lossy(&line).into_owned();
                ear.0.0.lock().unwrap().text.push_str(&text);
                ear.0.1.notify_all();
                line.clear();
            }
            ear.0.0.lock().unwrap().closed = true;
            ear.0.1.notify_all();
        });
        (heard, listener)
    }

    /// The first whole line that holds `text`; `None` when the stream ends without one.
    fn line_with(&self, text: &str) -> Option<String> {
        let (said, changed) = &*self.0;
        let mut said = said.lock().unwrap();
        let began = Instant::now();
        loop {
            let whole = said
                .text
                .split_inclusive('\n')
                .filter(|l| l.ends_with('\n'));
            if let Some(line) = whole.map(str::trim_end).find(|line| line.contains(text)) {
                return Some(line.to_owned());
            }
            assert!(
                began.elapsed() < PATIENCE,
                "no {text:?} among:\n{}",
                said.text
            );
            if said.closed {
                return None;
            }
            said = changed
                .wait_timeout(said, Duration::from_millis(100))
                .unwrap()
                .0;
        }
    }

    fn text(&self) -> String {
        self.0.0.lock().unwrap().text.clone()
    }
}

/// A child process that runs. Dropped, it is killed.
pub struct Running {
    child: Child,
    stdout: Heard,
    stderr: Heard,
    listeners: Vec<JoinHandle<()>>,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self::listen_to(&mut child).with(child)
    }

    /// As `start`, with this on its standard input.
    pub fn fed(command: &mut Command, input: &[u8]) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let running = Self::listen_to(&mut child).with(child);
        // A child that stops reading early is no trouble of the test's.
        let _ = stdin.write_all(input);
        running
    }

    fn listen_to(child: &mut Child) -> Ears {
        let (stdout, out_listener) = Heard::listen(child.stdout.take().unwrap());
        let (stderr, err_listener) = Heard::listen(child.stderr.take().unwrap());
        Ears {
            stdout,
            stderr,
            listeners: vec![out_listener, err_listener],
        }
    }

    /// The first line on standard output that holds `text`.
    pub fn says(&self, text: &str) -> String {
        let line = self.stdout.line_with(text);
        line.unwrap_or_else(|| panic!("it ended without {text:?}: {}", self.stderr.text()))
    }

    /// The first line on standard error that holds `text`.
    pub fn notes(&self, text: &str) -> String {
        let line = self.stderr.line_with(text);
        line.unwrap_or_else(|| panic!("it ended without {text:?}: {}", self.stderr.text()))
    }

    /// The URL in the start line of `serve` and `simulate`; `None` when it ended before it listened.
    pub fn url_if_up(&self) -> Option<String> {
        let line = self.stdout.line_with("http://")?;
        let from = line.find("http://").unwrap();
        let url: String = line[from..]
            .chars()
            .take_while(|c| !c.is_whitespace() && *c != '"')
            .collect();
        Some(url.trim_end_matches(':').to_owned())
    }

    /// The URL in the start line.
    pub fn url(&self) -> String {
        self.url_if_up()
            .unwrap_or_else(|| panic!("it ended: {}", self.stderr.text()))
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status();
        assert!(sent.unwrap().success(), "kill -{name} {pid}");
    }

    /// SIGKILL, and waits until nothing of the process is left.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ended {
        let mut status = None;
        let ended = holds_within(PATIENCE, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(
            ended,
            "it does not end\n{}{}",
            self.stdout.text(),
            self.stderr.text()
        );
        for listener in std::mem::take(&mut self.listeners) {
            listener.join().unwrap();
        }
        let status = status.unwrap();
        Ended {
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A child's streams before they are put together with it.
struct Ears {
    stdout: Heard,
    stderr: Heard,
    listeners: Vec<JoinHandle<()>>,
}

impl Ears {
    fn with(self, child: Child) -> Running {
        Running {
            child,
            stdout: self.stdout,
            stderr: self.stderr,
            listeners: self.listeners,
        }
    }
}

/// How a child ended.
pub struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Asserts the exit code.
    #[track_caller]
    pub fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Asserts that standard error holds all of these.
    #[track_caller]
    pub fn noting(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "no {text:?} in:\n{self}");
        }
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self}"))
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            code,
            signal,
            stdout,
            stderr,
        } = self;
        write!(
            f,
            "code {code:?}, signal {signal:?}\n--- stdout\n{stdout}--- stderr\n{stderr}"
        )
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Ended {
    Running::start(command).end()
}

/// A blocking HTTP client; one connection pool, like a program that uses the API.
pub struct Http {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    token: Option<String>,
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl Http {
    pub fn new() -> Self {
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            client: reqwest::Client::builder()
                .no_proxy()
                .timeout(PATIENCE)
                .build()
                .unwrap(),
            token: None,
        }
    }

    /// The same with a bearer token.
    pub fn bearing(token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..Self::new()
        }
    }

    pub fn get(&self, url: &str) -> Result<Answer, reqwest::Error> {
        self.send(self.client.get(url))
    }

    pub fn post(&self, url: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        self.send(Self::with_body(self.client.post(url), body))
    }

    pub fn put(&self, url: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        self.send(Self::with_body(self.client.put(url), body))
    }

    fn with_body(request: reqwest::RequestBuilder, body: &Value) -> reqwest::RequestBuilder {
        request
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    fn send(&self, mut request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        self.runtime.block_on(async {
            let response = request.send().await?;
            Ok(Answer {
                status: response.status().as_u16(),
                text: response.text().await?,
            })
        })
    }
}

/// Writes a prompts file: `{"prompt": "prompt 1"}` to `{"prompt": "prompt N"}`.
pub fn prompts(count: usize) -> String {
    (1..=count)
        .map(|n| format!("{{\"prompt\": \"prompt {n}.\"}}\n"))
        .collect()
}

/// A file system of its own, mounted for the test and unmounted on drop.
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts a tmpfs of so many KiB on a directory; `None`, told on standard error, where that is not
    /// permitted.
    pub fn mount(on: &Path, kib: u32) -> Option<Self> {
        std::fs::create_dir_all(on).unwrap();
        let size = format!("size={kib}k");
        let args = ["-t", "tmpfs", "-o", &size, "tmpfs"];
        mount(&args, on).then(|| Self(on.to_owned()))
    }

    /// Mounts it anew with another option, such as `size=16m` or `ro`.
    pub fn remount(&self, option: &str) {
        let option = format!("remount,{option}");
        assert!(mount(&["-o", &option], &self.0), "{option}");
    }
}

fn mount(args: &[&str], on: &Path) -> bool {
    let why = match Command::new("mount").args(args).arg(on).output() {
        Ok(done) if done.status.success() => return true,
        Ok(done) => String::from_utf8_lossy(&done.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    // Past the test runner, which keeps what passing tests print to itself.
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED, since nothing can be mounted here: {}",
        why.trim()
    );
    false
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily, should a process that a failed test left behind still be in it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
