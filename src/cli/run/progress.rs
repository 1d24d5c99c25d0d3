//! The view of a run under way: a bar on a terminal, a few lines anywhere else.

use std::io::{self, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use onelane::model::{Cost, Timestamp, WaitReason};
use onelane::words::counted;

use super::summary::{Spent, Tally};
use crate::telemetry::{self, Sink};

const TEMPLATE: &str = "{bar:24.cyan/dim} {human_pos}/{human_len}  {wide_msg}";

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
            bar.set_style(style);
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

    /// Shows how far the run is: first what it does, or what keeps it; then how fast, how much is left, and what
    /// came of it. The whole input counts, lines of earlier runs too; rate and time left are those of this run.
    pub(crate) fn show(&mut self, far: &Far<'_>) {
        let Far { tally, wait, .. } = far;
        self.bar.set_length(far.lines.unwrap_or(0).max(tally.lines));
        self.bar.set_position(tally.done_before + tally.ended());
        self.bar.set_message(far.words());
        let wait = wait.as_ref();
        if wait.is_some_and(|wait| wait.ends_the_run) {
            return;
        }
        let told = wait
            .filter(|wait| wait.is_long)
            .map(|wait| wait.text.clone());
        if self.tells_waits && self.told != told {
            self.note(told.as_deref().unwrap_or("the lane goes on"));
        }
        self.told = told;
    }

    /// Shows how much of the input was read.
    pub(crate) fn reading(&mut self, lines: u64) {
        self.bar.set_length(lines);
        self.bar
            .set_message(format!("reading: {}", counted(lines, "line", "lines")));
        self.bar.tick();
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

/// Why nothing goes on.
#[derive(Debug, Clone)]
pub(crate) struct Standstill {
    /// The reason in words.
    pub(crate) text: String,
    /// Whether it may be long.
    pub(crate) is_long: bool,
    /// Whether a run ends with it: nothing goes on until an operator acts.
    pub(crate) ends_the_run: bool,
}

/// Whether a wait may be long: retries, paces and probes come and go.
pub(crate) fn is_worth_a_line(wait: &WaitReason) -> bool {
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
        | WaitReason::Aside { .. }
        | WaitReason::Draining { .. }
        | WaitReason::Stopping
        | WaitReason::Blocked { .. }
        | WaitReason::KeyBusy { .. }
        | WaitReason::Reserved { .. }
        | WaitReason::OtherBatch
        | WaitReason::Reading => false,
    }
}

/// How far a run is.
pub(crate) struct Far<'a> {
    /// How many lines ended how.
    pub(crate) tally: &'a Tally,
    /// How many there are, if they were counted.
    pub(crate) lines: Option<u64>,
    /// What they came to.
    pub(crate) spent: &'a Spent,
    /// Why nothing goes on, if nothing does.
    pub(crate) wait: Option<Standstill>,
    /// Whether a signal has asked it to stop.
    pub(crate) stopping: bool,
    /// For how long lines have been sent, whatever the clock was set to meanwhile.
    pub(crate) elapsed_ms: u64,
    /// Now.
    pub(crate) now: Timestamp,
}

impl Far<'_> {
    fn words(&self) -> String {
        let tally = self.tally;
        let mut parts = vec![match &self.wait {
            _ if self.stopping => "stopping".to_owned(),
            Some(wait) => format!("waiting: {}", relative(&wait.text, self.now)),
            None => "sending".to_owned(),
        }];
        let elapsed_ms = self.elapsed_ms;
        let ended = tally.ended();
        let all = self.lines.unwrap_or(0).max(tally.lines);
        let left = all.saturating_sub(tally.done_before + ended);
        if ended > 0 && elapsed_ms >= 1_000 {
            let per_second_tenths = ended.saturating_mul(10_000) / elapsed_ms;
            parts.push(format!(
                "{}.{}/s",
                per_second_tenths / 10,
                per_second_tenths % 10
            ));
            if left > 0 {
                let left_ms = elapsed_ms.saturating_mul(left) / ended;
                parts.push(format!("{} left", span(left_ms)));
            }
        }
        if tally.failed + tally.bad > 0 {
            parts.push(format!("{} failed", tally.failed + tally.bad));
        }
        parts.extend(self.spent.parts(Cost::to_string));
        if let Some([low, high]) = self.spent.in_all(left).filter(|_| left > 0) {
            parts.push(format!("{} to {high} in all", low.decimal()));
        }
        parts.join(", ")
    }
}

/// A span in words, in its two largest units.
pub(crate) fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    match (
        seconds / 86_400,
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    ) {
        (0, 0, 0, 0) if ms > 0 => format!("{ms} ms"),
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

/// A sentence with its moments told as spans from now: who looks at a bar does not know the time in UTC.
fn relative(sentence: &str, now: Timestamp) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in sentence.split(' ') {
        let bare = word.trim_end_matches([',', ':', ';', '.', ')']);
        let tail = word.strip_prefix(bare).unwrap_or_default();
        let Some(moment) = Timestamp::parse_rfc3339(bare).filter(|_| bare.contains('T')) else {
            words.push(word.to_owned());
            continue;
        };
        let before = words.pop().unwrap_or_default();
        let (lead, ms) = if moment > now {
            (if before == "at" { "in" } else { "for" }, moment.since(now))
        } else {
            ("for", now.since(moment))
        };
        let is_lead = ["until", "at", "since", "for", "before"].contains(&before.as_str());
        if !is_lead && !before.is_empty() {
            words.push(before);
        }
        words.push(format!("{lead} {}{tail}", span(ms)));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use onelane_actors::testing::waits::wait_reasons;

    use onelane::model::Currency;

    use super::super::left::HeldUp;
    use super::super::release::tests::lane;
    use super::*;

    fn far<'a>(tally: &'a Tally, spent: &'a Spent, wait: Option<&WaitReason>) -> Far<'a> {
        Far {
            tally,
            lines: Some(100),
            spent,
            wait: wait.map(Standstill::of),
            stopping: false,
            elapsed_ms: 20_000,
            now: Timestamp::from_millis(20_000),
        }
    }

    #[test]
    fn the_bar_shows_every_reason_first_and_the_end_of_a_run_those_that_hold_up_all_of_it() {
        let (tally, spent) = (Tally::default(), Spent::default());
        for reason in wait_reasons() {
            let mut progress = Progress::new(true);
            let far = far(&tally, &spent, Some(&reason));
            progress.show(&far);
            let told = relative(&reason.to_string(), far.now);
            assert_eq!(progress.bar.message(), format!("waiting: {told}"));
            assert!(!told.contains("1970-"), "{told}");
            let mut status = lane();
            status.wait_reason = Some(reason.clone());
            let ends = reason.stops_all() && reason.waits_for_operator();
            let told = HeldUp::of(&status).map(|held| held.reason);
            assert_eq!(told, ends.then(|| reason.to_string()));
        }
    }

    #[test]
    fn the_bar_counts_the_whole_file_and_the_pace_of_this_run() {
        let tally = Tally {
            lines: 60,
            done_before: 50,
            completed: 9,
            failed: 1,
            bad: 0,
        };
        let spent = Spent::default();
        let mut progress = Progress::new(true);
        progress.show(&far(&tally, &spent, None));
        assert_eq!(
            (progress.bar.position(), progress.bar.length()),
            (60, Some(100))
        );
        assert_eq!(
            progress.bar.message(),
            "sending, 0.5/s, 1 min 20 s left, 1 failed"
        );
        progress.reading(7);
        assert_eq!(progress.bar.message(), "reading: 7 lines");
        let mut spent = Spent {
            costs: vec![Cost {
                nanos: 60_000,
                currency: Currency::Cny,
            }],
            ..Spent::default()
        };
        (0..60).for_each(|_| spent.learnt.record(1_000));
        progress.show(&far(&tally, &spent, None));
        assert!(
            progress
                .bar
                .message()
                .ends_with("1 failed, 0.00006 CNY, 0.0001 to 0.0001 CNY in all"),
            "{}",
            progress.bar.message()
        );
    }

    #[test]
    fn moments_are_told_as_spans() {
        let now = Timestamp::parse_rfc3339("2026-11-23T08:00:00Z").unwrap();
        for (sentence, want) in [
            (
                "quota is used up until 2026-11-23T12:30:00Z: 1308",
                "quota is used up for 4 h 30 min: 1308",
            ),
            (
                "breaker is open, next try at 2026-11-23T08:00:45Z: x",
                "breaker is open, next try in 45 s: x",
            ),
            (
                "paused since 2026-11-22T06:00:00Z: lunch",
                "paused for 1 d 2 h: lunch",
            ),
            ("no moment at all", "no moment at all"),
        ] {
            assert_eq!(relative(sentence, now), want);
        }
    }
}
