//! The circuit breaker, as its state diagram: closed -> open -> half-open -> closed or open again.

use std::collections::VecDeque;

use crate::model::{BreakerSettings, BreakerSnapshot, BreakerState, Timestamp};

/// Calls that the window remembers at most; `min_calls` can't ask for more.
const WINDOW_CALLS_MAX: usize = 10_000;

/// The breaker. Time comes in as an argument; who asks decides what to do with the state.
#[derive(Debug, Clone)]
pub struct Breaker {
    settings: BreakerSettings,
    state: BreakerState,
    since: Timestamp,
    probe_at: Option<Timestamp>,
    consecutive_failures: u32,
    openings: u32,
    reason: Option<String>,
    forced: bool,
    window: VecDeque<(Timestamp, bool)>,
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(settings: BreakerSettings, now: Timestamp) -> Self {
        Self {
            settings,
            state: BreakerState::Closed,
            since: now,
            probe_at: None,
            consecutive_failures: 0,
            openings: 0,
            reason: None,
            forced: false,
            window: VecDeque::new(),
        }
    }

    /// As it was when the snapshot was stored.
    pub fn restore(&mut self, snapshot: BreakerSnapshot) {
        self.state = snapshot.state;
        self.since = snapshot.since;
        self.probe_at = snapshot.probe_at;
        self.consecutive_failures = snapshot.consecutive_failures;
        self.openings = snapshot.openings;
        self.reason = snapshot.reason;
        self.forced = snapshot.forced;
        self.window.clear();
    }

    /// New settings apply from the next record on; an open breaker keeps its probe time.
    pub fn configure(&mut self, settings: BreakerSettings) {
        self.settings = settings;
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> BreakerState {
        self.state
    }

    /// When an open breaker lets a probe through.
    #[must_use]
    pub const fn probe_at(&self) -> Option<Timestamp> {
        self.probe_at
    }

    /// What others see and the store keeps.
    #[must_use]
    pub fn snapshot(&self) -> BreakerSnapshot {
        BreakerSnapshot {
            state: self.state,
            since: self.since,
            probe_at: self.probe_at,
            consecutive_failures: self.consecutive_failures,
            openings: self.openings,
            reason: self.reason.clone(),
            forced: self.forced,
        }
    }

    /// A call brought an answer. In half-open that closes the breaker; while it is open it is the
    /// late answer of a call from before and changes nothing.
    pub fn succeeded(&mut self, now: Timestamp) {
        match self.state {
            BreakerState::Closed => {
                self.consecutive_failures = 0;
                self.remember(now, false);
            }
            BreakerState::HalfOpen => self.close(now),
            BreakerState::Open => {}
        }
    }

    /// A call failed in a way that says something of the service.
    pub fn failed(&mut self, reason: &str, now: Timestamp) {
        match self.state {
            BreakerState::Closed => {
                self.consecutive_failures = self.consecutive_failures.saturating_add(1);
                self.remember(now, true);
                if self.consecutive_failures >= self.settings.consecutive_failures
                    || self.rate_exceeded()
                {
                    self.open(reason, now);
                }
            }
            BreakerState::HalfOpen => {
                self.consecutive_failures = self.consecutive_failures.saturating_add(1);
                self.open(reason, now);
            }
            BreakerState::Open => {}
        }
    }

    /// Time has passed: an open breaker becomes half-open once its cool-down is over.
    pub fn tick(&mut self, now: Timestamp) {
        if self.state == BreakerState::Open && self.probe_at.is_some_and(|at| at <= now) {
            self.state = BreakerState::HalfOpen;
            self.since = now;
            self.probe_at = None;
        }
    }

    /// An operator closes it.
    pub fn reset(&mut self, now: Timestamp) {
        self.close(now);
    }

    /// An operator opens it: it stays open until [`Breaker::reset`], or until a stated moment.
    pub fn force_open(&mut self, reason: &str, until: Option<Timestamp>, now: Timestamp) {
        self.open(reason, now);
        self.probe_at = until;
        self.forced = true;
    }

    fn close(&mut self, now: Timestamp) {
        self.state = BreakerState::Closed;
        self.since = now;
        self.probe_at = None;
        self.consecutive_failures = 0;
        self.openings = 0;
        self.reason = None;
        self.forced = false;
        self.window.clear();
    }

    fn open(&mut self, reason: &str, now: Timestamp) {
        let grown = self.settings.cool_down_ms as f64
            * self
                .settings
                .cool_down_multiplier
                .powi(i32::try_from(self.openings).unwrap_or(i32::MAX));
        let cool_down_ms = grown.min(self.settings.cool_down_max_ms as f64) as u64;
        self.state = BreakerState::Open;
        self.since = now;
        self.probe_at = Some(now.plus_ms(cool_down_ms));
        self.openings = self.openings.saturating_add(1);
        self.reason = Some(reason.to_owned());
        self.window.clear();
    }

    fn remember(&mut self, now: Timestamp, failed: bool) {
        while self
            .window
            .front()
            .is_some_and(|(at, _)| now.since(*at) > self.settings.window_ms)
            || self.window.len() >= WINDOW_CALLS_MAX
        {
            self.window.pop_front();
        }
        self.window.push_back((now, failed));
    }

    fn rate_exceeded(&self) -> bool {
        let calls = self.window.len();
        if self.settings.failure_rate <= 0.0 || calls < self.settings.min_calls as usize {
            return false;
        }
        let failures = self.window.iter().filter(|(_, failed)| *failed).count();
        failures as f64 >= self.settings.failure_rate * calls as f64
    }
}

#[cfg(test)]
mod tests {
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
    fn it_opens_on_the_failure_rate_of_a_window_that_holds_enough_calls() {
        let mut b = breaker();
        for n in 0..4 {
            b.failed("502", at(n));
            b.succeeded(at(n));
        }
        b.succeeded(at(8));
        assert_eq!(b.state(), BreakerState::Closed, "nine calls are too few");
        b.failed("502", at(9));
        assert_eq!(b.state(), BreakerState::Open, "five of ten failed");

        let mut b = breaker();
        for n in 0..4 {
            b.failed("502", at(n));
            b.succeeded(at(n));
        }
        b.succeeded(at(8));
        b.failed("502", at(8 + 60_001));
        assert_eq!(
            b.state(),
            BreakerState::Closed,
            "the old calls left the window"
        );
    }

    #[test]
    fn a_probe_comes_after_the_cool_down_and_decides() {
        let mut b = opened();
        b.tick(at(999));
        assert_eq!(b.state(), BreakerState::Open);
        b.tick(at(1_000));
        assert_eq!(b.state(), BreakerState::HalfOpen);
        b.succeeded(at(1_100));
        assert_eq!(b.state(), BreakerState::Closed);
        assert_eq!(b.snapshot().openings, 0);
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
    fn late_outcomes_do_not_move_an_open_breaker() {
        let mut b = opened();
        let before = b.snapshot();
        b.succeeded(at(10));
        b.failed("500", at(11));
        assert_eq!(b.snapshot(), before);
    }

    #[test]
    fn it_comes_back_as_it_was_stored() {
        let snapshot = opened().snapshot();
        let mut b = breaker();
        b.restore(snapshot.clone());
        assert_eq!(b.snapshot(), snapshot);
        b.tick(at(1_000));
        assert_eq!(b.state(), BreakerState::HalfOpen);
    }

    #[test]
    fn an_operator_closes_it() {
        let mut b = opened();
        b.reset(at(5));
        assert_eq!(b.state(), BreakerState::Closed);
    }
}
