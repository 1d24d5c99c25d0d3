//! What a run shows while it runs: a bar on a terminal, and only what matters anywhere else.

use std::fmt;
use std::io::{self, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use onelane::model::Cost;

use super::standstill::Standstill;
use super::summary::{Spent, Tally};

const TEMPLATE: &str = "{bar:24.cyan/dim} {human_pos}/{human_len}  {rate}  ETA {eta}  {wide_msg}";

/// The bar. Clones show the same one.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    bars: MultiProgress,
    bar: ProgressBar,
    /// Where no bar is seen, a lane that stands still for a while is worth a line. One that waits for an
    /// operator ends the run, which says so.
    tells_standstill: bool,
    standstill: Option<String>,
}

impl Progress {
    /// A bar on standard error if that is a terminal; with `json`, nothing is shown.
    pub(crate) fn new(json: bool) -> Self {
        let target = if json {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bars = MultiProgress::with_draw_target(target);
        // The bar's length grows with the lines that are read.
        let bar = bars.add(ProgressBar::new(0));
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.with_key("rate", rate));
        }
        Self {
            tells_standstill: !json && bars.is_hidden(),
            bars,
            bar,
            standstill: None,
        }
    }

    /// Where log lines go so that they don't tear the bar.
    pub(crate) fn log_writer(&self) -> LogWriter {
        LogWriter(self.bars.clone())
    }

    /// Shows how far the run is. Lines that were done before count neither as work nor as done, so that
    /// rate and time left are those of the lane.
    pub(crate) fn show(&mut self, tally: &Tally, spent: &Spent, standstill: Option<&Standstill>) {
        self.bar.set_length(tally.lines - tally.done_before);
        self.bar.set_position(tally.ended());
        let mut parts = Vec::new();
        if tally.failed + tally.bad > 0 {
            parts.push(format!("{} failed", tally.failed + tally.bad));
        }
        parts.extend(spent.parts(Cost::to_string));
        parts.extend(standstill.map(Standstill::to_string));
        self.bar.set_message(parts.join(", "));
        let passing = match standstill {
            Some(Standstill::Passing(reason)) => Some(reason.clone()),
            Some(Standstill::Operator { .. }) => return,
            None => None,
        };
        if self.tells_standstill && self.standstill != passing {
            self.note(passing.as_deref().unwrap_or("the lane goes on"));
        }
        self.standstill = passing;
    }

    /// Tells something beside the bar.
    pub(crate) fn note(&self, line: &str) {
        self.bars.suspend(|| crate::cli::note(line));
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn rate(state: &ProgressState, out: &mut dyn fmt::Write) {
    // A terminal that is gone is no news.
    let _ = write!(out, "{:.1}/s", state.per_sec());
}

/// Writes log lines to standard error, with the bar out of their way.
#[derive(Debug, Clone)]
pub(crate) struct LogWriter(MultiProgress);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
