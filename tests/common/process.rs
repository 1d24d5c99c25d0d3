//! A child process: its output read as it comes, signalled, waited for.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{PATIENCE, holds_within};

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

    /// The first whole line so far that holds `text`.
    fn line_so_far(&self, text: &str) -> Option<String> {
        let said = self.text();
        let mut whole = said.split_inclusive('\n').filter(|l| l.ends_with('\n'));
        whole.find(|line| line.contains(text)).map(str::to_owned)
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

    /// The first line on standard output so far that holds `text`.
    pub fn line_if_said(&self, text: &str) -> Option<String> {
        self.stdout.line_so_far(text)
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
