//! The view of a run under way: a bar on a terminal, a few lines anywhere else.

use std::fmt;
use std::io::{self, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use onelane::model::{Cost, WaitReason};

use super::summary::{Spent, Tally};
use crate::telemetry::{self, Sink};

const TEMPLATE: &str = "{bar:24.cyan/dim} {human_pos}/{human_len}  {rate}  ETA {eta}  {wide_msg}";

/// The bar. Clones show the same one.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    bars: MultiProgress,
    bar: ProgressBar,
    /// Where no bar is seen, a lane that stands still for a while is worth a line. One that waits for an
    /// operator ends the run, which says so.
    tells_waits: bool,
    /// The last line about that.
    told: Option<String>,
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
            tells_waits: !json && bars.is_hidden(),
            bars,
            bar,
            told: None,
        }
    }

    /// Where lines go so that they don't tear the bar.
    pub(crate) fn sink(&self) -> Sink {
        let bars = self.bars.clone();
        if bars.is_hidden() {
            // Nothing to tear, and nobody who shows progress waits for a reader.
            return telemetry::stderr();
        }
        Box::new(move |bytes| bars.suspend(|| io::stderr().write(bytes)))
    }

    /// Shows how far the run is. Lines that were done before count neither as work nor as done, so that
    /// rate and time left are those of the lane.
    pub(crate) fn show(&mut self, tally: &Tally, spent: &Spent, wait: Option<&WaitReason>) {
        self.bar.set_length(tally.lines - tally.done_before);
        self.bar.set_position(tally.ended());
        let mut parts = Vec::new();
        if tally.failed + tally.bad > 0 {
            parts.push(format!("{} failed", tally.failed + tally.bad));
        }
        parts.extend(spent.parts(Cost::to_string));
        parts.extend(wait.map(WaitReason::to_string));
        self.bar.set_message(parts.join(", "));
        if wait.is_some_and(|wait| wait.stops_all() && wait.waits_for_operator()) {
            return;
        }
        let told = wait
            .filter(|wait| is_worth_a_line(wait))
            .map(ToString::to_string);
        if self.tells_waits && self.told != told {
            self.note(told.as_deref().unwrap_or("the lane goes on"));
        }
        self.told = told;
    }

    /// Tells something beside the bar.
    pub(crate) fn note(&self, line: &str) {
        telemetry::note(line);
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Whether a wait may be long: retries, paces and probes come and go.
fn is_worth_a_line(wait: &WaitReason) -> bool {
    match wait {
        WaitReason::Hold(_)
        | WaitReason::Breaker { .. }
        | WaitReason::Budget(_)
        | WaitReason::Scheduled { .. }
        | WaitReason::Paused { .. }
        | WaitReason::Inactive
        | WaitReason::Parked { .. }
        | WaitReason::DiskBehind
        | WaitReason::DiskFull
        | WaitReason::Offline => true,
        WaitReason::Behind { .. }
        | WaitReason::Stage
        | WaitReason::Delayed { .. }
        | WaitReason::Pace { .. }
        | WaitReason::Probe
        | WaitReason::Draining { .. }
        | WaitReason::Stopping
        | WaitReason::Blocked { .. }
        | WaitReason::Reading => false,
    }
}

fn rate(state: &ProgressState, out: &mut dyn fmt::Write) {
    // A terminal that is gone is no news.
    let _ = write!(out, "{:.1}/s", state.per_sec());
}

#[cfg(test)]
mod tests {
    use onelane_actors::testing::waits::wait_reasons;

    use super::super::left::HeldUp;
    use super::super::release::tests::lane;
    use super::*;

    #[test]
    fn the_bar_shows_every_reason_and_the_end_of_a_run_those_that_hold_up_all_of_it() {
        for reason in wait_reasons() {
            let mut progress = Progress::new(true);
            progress.show(&Tally::default(), &Spent::default(), Some(&reason));
            assert_eq!(progress.bar.message(), reason.to_string());
            let mut status = lane();
            status.wait_reason = Some(reason.clone());
            let ends = reason.stops_all() && reason.waits_for_operator();
            let told = HeldUp::of(&status).map(|held| held.reason);
            assert_eq!(told, ends.then(|| reason.to_string()));
        }
    }
}
