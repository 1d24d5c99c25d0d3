//! The circuit breaker, as its state diagram: closed -> open -> half-open -> closed or open again.
//! An operator may open it by force: then no outcome moves it.

use std::collections::VecDeque;

use crate::model::{BreakerSettings, BreakerSnapshot, BreakerState, Timestamp, Wait};

/// Calls that the window remembers at most; `min_calls` can't ask for more.
const WINDOW_CALLS_MAX: usize = 10_000;

/// The breaker. Time comes in as an argument; who asks decides what to do with the state.
#[derive(Debug, Clone)]
pub struct Breaker {
    settings: BreakerSettings,
    /// Its window's counts are those at the opening; while it is closed the window has them.
    shown: BreakerSnapshot,
    window: Window,
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(settings: BreakerSettings, now: Timestamp) -> Self {
        Self {
            settings,
            shown: closed(now),
            window: Window::default(),
        }
    }

    /// As it was when the snapshot was stored. The window of the failure rate begins anew.
    pub fn restore(&mut self, snapshot: BreakerSnapshot) {
        self.shown = snapshot;
        self.window = Window::default();
    }

    /// New settings apply from the next record on; an open breaker keeps its probe time.
    pub fn configure(&mut self, settings: BreakerSettings) {
        self.settings = settings;
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> BreakerState {
        self.shown.state
    }

    /// When an open breaker lets a probe through; `None` while only an operator ends it.
    #[must_use]
    pub fn probe_at(&self) -> Option<Timestamp> {
        self.shown.probe_at.map(|wait| wait.until)
    }

    /// State, since when, until when, and whether by force: all but the counts. A change of it is worth
    /// telling and storing.
    #[must_use]
    pub const fn summary(&self) -> (BreakerState, Timestamp, Option<Wait>, bool) {
        let shown = &self.shown;
        (shown.state, shown.since, shown.probe_at, shown.forced)
    }

    /// What others see and the store keeps.
    #[must_use]
    pub fn snapshot(&self) -> BreakerSnapshot {
        let mut snapshot = self.shown.clone();
        if snapshot.state == BreakerState::Closed {
            (snapshot.window_calls, snapshot.window_failures) = self.window.counts();
        }
        snapshot
    }

    /// A call brought an answer. In half-open that closes the breaker; while it is open it is the
    /// late answer of a call from before and changes nothing.
    pub fn succeeded(&mut self, now: Timestamp) {
        match self.shown.state {
            BreakerState::Closed => {
                self.shown.consecutive_failures = 0;
                self.window.remember(now, false, self.settings.window_ms);
            }
            BreakerState::HalfOpen => self.reset(now),
            BreakerState::Open => {}
        }
    }

    /// A call failed in a way that says something of the service. In half-open that opens the breaker
    /// again, for longer.
    pub fn failed(&mut self, reason: &str, now: Timestamp) {
        self.count(now);
        let opens = match self.shown.state {
            BreakerState::Closed => {
                self.shown.consecutive_failures >= self.settings.consecutive_failures
                    || self.rate_exceeded()
            }
            BreakerState::HalfOpen => true,
            BreakerState::Open => false,
        };
        if opens {
            self.open(reason, now);
        }
    }

    /// A call failed in a way that says that no other would do better: opens at once, without waiting
    /// for more failures.
    pub fn trip(&mut self, reason: &str, now: Timestamp) {
        self.count(now);
        if self.shown.state != BreakerState::Open {
            self.open(reason, now);
        }
    }

    /// Time has passed: an open breaker becomes half-open once its cool-down is over, or the time for
    /// which an operator opened it.
    pub fn tick(&mut self, now: Timestamp) {
        let shown = &mut self.shown;
        let Some(wait) = &mut shown.probe_at else {
            return;
        };
        if wait.mind_the_clock(now) {
            shown.since = shown.since.min(now);
        }
        if wait.is_over(now) {
            shown.state = BreakerState::HalfOpen;
            shown.since = now;
            shown.probe_at = None;
            shown.forced = false;
        }
    }

    /// An operator closes it.
    pub fn reset(&mut self, now: Timestamp) {
        self.shown = closed(now);
        self.window = Window::default();
    }

    /// An operator opens it, until [`Breaker::reset`] or until the given moment: then one probe
    /// decides. The cool-down of failures does not grow by it.
    pub fn force_open(&mut self, reason: &str, until: Option<Timestamp>, now: Timestamp) {
        self.enter_open(reason, now);
        self.shown.probe_at = until.map(|until| Wait::between(now, until));
        self.shown.forced = true;
    }

    /// Counts a failure, unless it is the late one of a call from before the opening.
    fn count(&mut self, now: Timestamp) {
        if self.shown.state == BreakerState::Open {
            return;
        }
        self.shown.consecutive_failures = self.shown.consecutive_failures.saturating_add(1);
        if self.shown.state == BreakerState::Closed {
            self.window.remember(now, true, self.settings.window_ms);
        }
    }

    fn open(&mut self, reason: &str, now: Timestamp) {
        let openings = i32::try_from(self.shown.openings).unwrap_or(i32::MAX);
        let grown =
            self.settings.cool_down_ms as f64 * self.settings.cool_down_multiplier.powi(openings);
        let cool_down_ms = grown.min(self.settings.cool_down_max_ms as f64) as u64;
        self.enter_open(reason, now);
        self.shown.probe_at = Some(Wait::from(now, cool_down_ms));
        self.shown.openings = self.shown.openings.saturating_add(1);
    }

    fn enter_open(&mut self, reason: &str, now: Timestamp) {
        if self.shown.state == BreakerState::Closed {
            (self.shown.window_calls, self.shown.window_failures) = self.window.counts();
        }
        self.window = Window::default();
        self.shown.state = BreakerState::Open;
        self.shown.since = now;
        self.shown.reason = Some(reason.to_owned());
    }

    fn rate_exceeded(&self) -> bool {
        let (calls, failures) = self.window.counts();
        self.settings.failure_rate > 0.0
            && calls >= self.settings.min_calls
            && f64::from(failures) >= self.settings.failure_rate * f64::from(calls)
    }
}

fn closed(since: Timestamp) -> BreakerSnapshot {
    BreakerSnapshot {
        state: BreakerState::Closed,
        since,
        ..BreakerSnapshot::default()
    }
}

/// The latest outcomes: when, and whether it was a failure.
#[derive(Debug, Clone, Default)]
struct Window {
    calls: VecDeque<(Timestamp, bool)>,
    failures: u32,
}

impl Window {
    fn remember(&mut self, now: Timestamp, failed: bool, window_ms: u64) {
        while let Some((at, was_failure)) = self.calls.front() {
            // Later than now by more than the window: the clock was set back.
            let is_out = now.since(*at) > window_ms || at.since(now) > window_ms;
            if !is_out && self.calls.len() < WINDOW_CALLS_MAX {
                break;
            }
            self.failures -= u32::from(*was_failure);
            self.calls.pop_front();
        }
        self.calls.push_back((now, failed));
        self.failures += u32::from(failed);
    }

    /// Calls, and failures among them.
    fn counts(&self) -> (u32, u32) {
        let calls = u32::try_from(self.calls.len()).unwrap_or(u32::MAX);
        (calls, self.failures)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn breaker() -> Breaker {
        let settings = BreakerSettings {
            consecutive_failures: 3,
            min_calls: 10,
            cool_down_ms: 1_000,
            cool_down_max_ms: 3_000,
            ..BreakerSettings::default()
        };
        Breaker::new(settings, at(0))
    }

    fn opened() -> Breaker {
        let mut b = breaker();
        for _ in 0..3 {
            b.failed("502", at(0));
        }
        assert_eq!(b.state(), BreakerState::Open);
        b
    }

    #[test]
    fn it_opens_on_failures_in_a_row() {
        let mut b = breaker();
        b.failed("502", at(0));
        b.failed("502", at(1));
        b.succeeded(at(2));
        b.failed("502", at(3));
        b.failed("502", at(4));
        assert_eq!(b.state(), BreakerState::Closed);
        b.failed("502", at(5));
        assert_eq!(b.state(), BreakerState::Open);
        assert_eq!(b.probe_at(), Some(at(1_005)));
        assert_eq!(b.snapshot().reason.as_deref(), Some("502"));
    }

    #[test]
    fn the_cool_down_grows_with_every_failed_probe_up_to_its_cap() {
        let mut b = opened();
        let mut cool_downs = Vec::new();
        for _ in 0..4 {
            let start = b.snapshot().since;
            let probe = b.probe_at().unwrap();
            cool_downs.push(probe.since(start));
            b.tick(probe);
            b.failed("502", probe);
        }
        assert_eq!(cool_downs, [1_000, 2_000, 3_000, 3_000]);
    }

    #[test]
    fn new_settings_apply_from_the_next_record_on() {
        let mut b = breaker();
        b.failed("502", at(0));
        b.failed("502", at(1));
        let settings = BreakerSettings {
            consecutive_failures: 5,
            ..b.settings
        };
        b.configure(settings);
        b.failed("502", at(2));
        b.failed("502", at(3));
        assert_eq!(b.state(), BreakerState::Closed);
        b.failed("502", at(4));
        assert_eq!(b.state(), BreakerState::Open);
    }

    #[test]
    fn what_opened_it_can_be_read_until_it_closes() {
        let mut b = breaker();
        let counts = |b: &Breaker| (b.snapshot().window_calls, b.snapshot().window_failures);
        b.succeeded(at(0));
        b.failed("502", at(1));
        assert_eq!(counts(&b), (2, 1));
        b.trip("503", at(2));
        assert_eq!(counts(&b), (3, 2));
        b.tick(at(1_002));
        b.failed("502", at(1_003));
        assert_eq!(counts(&b), (3, 2));
        b.reset(at(1_004));
        assert_eq!(counts(&b), (0, 0));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_keep_it_open() {
        let mut b = breaker();
        b.trip("502", at(1_000_000));
        b.tick(at(500));
        assert_eq!(b.state(), BreakerState::Open);
        b.tick(at(1_499));
        assert_eq!(b.state(), BreakerState::Open);
        b.tick(at(1_500));
        assert_eq!(b.state(), BreakerState::HalfOpen);
    }

    /// The breaker as a list of what happened: slow, and too simple to be wrong.
    struct Model {
        mode: Mode,
        /// Every counted outcome since it was last opened, closed or restored.
        outcomes: Vec<(i64, bool)>,
        /// Failures in a row.
        row: u32,
        /// How often it was opened by failures since it was last closed.
        openings: u32,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Mode {
        Closed,
        Open { until: i64 },
        Forced { until: Option<i64> },
        HalfOpen,
    }

    const SETTINGS: BreakerSettings = BreakerSettings {
        consecutive_failures: 3,
        failure_rate: 0.5,
        window_ms: 1_000,
        min_calls: 6,
        cool_down_ms: 500,
        cool_down_multiplier: 2.0,
        cool_down_max_ms: 3_000,
    };

    impl Model {
        fn set(&mut self, mode: Mode) {
            self.mode = mode;
            self.outcomes.clear();
            if mode == Mode::Closed {
                self.row = 0;
                self.openings = 0;
            }
        }

        fn outcome(&mut self, now: i64, failed: bool, at_once: bool) {
            if matches!(self.mode, Mode::Open { .. } | Mode::Forced { .. }) {
                return;
            }
            if self.mode == Mode::HalfOpen && !failed {
                return self.set(Mode::Closed);
            }
            self.outcomes.push((now, failed));
            self.row = if failed { self.row + 1 } else { 0 };
            let recent = || self.outcomes.iter().filter(|(at, _)| now - at <= 1_000);
            let (calls, failures) = (recent().count(), recent().filter(|(_, f)| *f).count());
            let rate = calls >= 6 && failures * 2 >= calls;
            let opens = at_once || self.mode == Mode::HalfOpen || self.row >= 3 || rate;
            if failed && opens {
                let cool_down = [500, 1_000, 2_000].get(self.openings as usize);
                self.openings += 1;
                self.set(Mode::Open {
                    until: now + cool_down.unwrap_or(&3_000),
                });
            }
        }

        fn tick(&mut self, now: i64) {
            let until = match self.mode {
                Mode::Open { until } => Some(until),
                Mode::Forced { until } => until,
                Mode::Closed | Mode::HalfOpen => None,
            };
            if until.is_some_and(|until| until <= now) {
                self.set(Mode::HalfOpen);
            }
        }

        fn agrees_with(&self, b: &Breaker) -> bool {
            let shown = b.snapshot();
            let mode = match (shown.state, shown.forced, b.probe_at()) {
                (BreakerState::Closed, false, None) => Mode::Closed,
                (BreakerState::HalfOpen, false, None) => Mode::HalfOpen,
                (BreakerState::Open, false, Some(until)) => Mode::Open {
                    until: until.as_millis(),
                },
                (BreakerState::Open, true, until) => Mode::Forced {
                    until: until.map(Timestamp::as_millis),
                },
                _ => return false,
            };
            mode == self.mode
                && shown.openings == self.openings
                && shown.consecutive_failures == self.row
                && shown.reason.is_none() == (mode == Mode::Closed)
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Succeeded,
        Failed,
        Trip,
        Tick,
        Reset,
        Force { for_ms: Option<i64> },
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => Just(Step::Succeeded),
            8 => Just(Step::Failed),
            1 => Just(Step::Trip),
            6 => Just(Step::Tick),
            1 => Just(Step::Reset),
            1 => prop::option::of(0_i64..4_000).prop_map(|for_ms| Step::Force { for_ms }),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        /// Open only after failures in a row, a rate, a failure that says so, or an operator; half-open
        /// exactly when the cool-down, which grows to its cap, or the operator's time is over; closed
        /// only by a success in half-open or an operator; and all of it across restarts.
        #[test]
        fn it_does_what_its_model_does(
            steps in prop::collection::vec((0_i64..900, step()), 0..120),
        ) {
            let mut now = 0;
            let mut b = Breaker::new(SETTINGS, at(now));
            let mut model =
                Model { mode: Mode::Closed, outcomes: Vec::new(), row: 0, openings: 0 };
            for (ms, step) in steps {
                now += ms;
                match &step {
                    Step::Succeeded => {
                        b.succeeded(at(now));
                        model.outcome(now, false, false);
                    }
                    Step::Failed => {
                        b.failed("502", at(now));
                        model.outcome(now, true, false);
                    }
                    Step::Trip => {
                        b.trip("1234", at(now));
                        model.outcome(now, true, true);
                    }
                    Step::Tick => {
                        b.tick(at(now));
                        model.tick(now);
                    }
                    Step::Reset => {
                        b.reset(at(now));
                        model.set(Mode::Closed);
                    }
                    Step::Force { for_ms } => {
                        let until = for_ms.map(|ms| now + ms);
                        b.force_open("maintenance", until.map(at), at(now));
                        model.set(Mode::Forced { until });
                    }
                    Step::Restart => {
                        let stored = b.snapshot();
                        b = Breaker::new(SETTINGS, at(now));
                        b.restore(stored);
                        model.outcomes.clear();
                    }
                }
                prop_assert!(
                    model.agrees_with(&b),
                    "after {step:?} at {now}: {:?}, not {b:?}", model.mode
                );
            }
        }
    }
}
