//! The whole input, looked at before anything is sent: how many lines it has, which are bad, and which jobs they
//! are. Keeps some bytes of a line, not its text.

use std::io::Read;

use super::batch::{Known, LineKeys};
use super::drive::{BAD_TOLD_MAX, more_bad};
use super::identity::{Digest, Source};
use super::input;
use super::interrupted;
use super::output::Results;
use super::progress::Progress;
use super::ready::Defaults;
use crate::cli::exit::CliError;
use crate::telemetry::Signals;
use onelane::words::{counted, verb};

/// What an input holds.
pub(crate) struct Scan<'a> {
    source: Source,
    defaults: &'a Defaults,
    /// Lines that are not blank.
    pub(crate) lines: u64,
    /// Bad ones among them.
    bad: u64,
    /// The first of them, in words.
    bad_told: Vec<String>,
    /// The jobs that the others are.
    pub(crate) keys: LineKeys,
}

impl<'a> Scan<'a> {
    /// Nothing was read yet.
    pub(crate) fn new(source: Source, defaults: &'a Defaults) -> Self {
        Self {
            source,
            defaults,
            lines: 0,
            bad: 0,
            bad_told: Vec::new(),
            keys: LineKeys::default(),
        }
    }

    /// Reads the input to its end, or until a signal comes.
    pub(crate) async fn read(
        &mut self,
        input: Box<dyn Read + Send>,
        results: &Results,
        signals: &mut Signals,
        progress: &mut Progress,
    ) -> Result<(), CliError> {
        let known = |line| results.known(line);
        let mut chunks = input::read(input)?;
        loop {
            let chunk = tokio::select! {
                chunk = chunks.recv() => chunk,
                _ = signals.next() => return Err(interrupted()),
            };
            let Some(chunk) = chunk else { return Ok(()) };
            let lines = chunk.map_err(|e| {
                CliError::usage(format!("the input can't be read: {e}; nothing was sent"))
            })?;
            for line in lines {
                self.take(line, known);
            }
            progress.reading(self.lines);
        }
    }

    fn take(&mut self, line: input::Line, known: impl Fn(Digest) -> Known) {
        self.lines += 1;
        match line.asked {
            Ok(asked) => {
                let ready = self.defaults.ready(self.source, line.name, asked);
                let line = ready.name.digest;
                self.keys.note(&ready.submission, known(line), line);
            }
            Err(problem) => {
                self.bad += 1;
                if self.bad <= BAD_TOLD_MAX {
                    self.bad_told
                        .push(format!("bad line {}: {problem}", line.number));
                }
            }
        }
    }

    /// Refuses an input that has a bad line.
    pub(crate) fn refuse_bad(&self, progress: &Progress, name: &str) -> Result<(), CliError> {
        if self.bad == 0 {
            return Ok(());
        }
        for line in &self.bad_told {
            progress.note(line);
        }
        let more = self.bad.saturating_sub(BAD_TOLD_MAX);
        if more > 0 {
            progress.note(&more_bad(more));
        }
        let (bad, lines) = (self.bad, self.lines);
        let (lines, are) = (counted(lines, "line", "lines"), verb(bad, "is", "are"));
        let problem = format!("{bad} of {lines} of {name} {are} bad; nothing was sent");
        Err(CliError::usage(problem).help("mend them, or leave out --strict to send the others"))
    }
}
