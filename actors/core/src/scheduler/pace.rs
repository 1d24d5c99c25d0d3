//! When the next call of a lane may start: evenly spread, and never more than allowed in any minute.
//!
//! Two rules for requests and tokens each. *Spread*: a start waits its share of a minute after the
//! one before, so that a minute's allowance never goes out at once. *Window*: within any 60 seconds
//! no more than a minute's allowance starts. For requests the spacing alone gives both. Tokens are
//! estimates at first, so their log is kept: it is corrected by what calls really used, and what they
//! used above their estimate delays those after them, so that the rate holds in the long run, too.
//!
//! The scheduler asks it by a clock that nobody sets (`steady.rs`); what a start finds in the call log has the moments of
//! the wall clock.

use std::collections::VecDeque;

use crate::model::limits::{PACE_LOG_STARTS_MAX, PACE_MEMORY_MS};
use crate::model::{JobId, PaceSettings, Timestamp};

/// The minute that every bound is about.
const WINDOW_MS: u64 = 60_000;

/// Starts that a token bound has to remember are at least so far apart: this bounds its log.
const LOGGED_SPACING_MS: u64 = WINDOW_MS / PACE_LOG_STARTS_MAX as u64;

/// From the decision to send a call until it is sent, in milliseconds: a disk that takes no longer makes no call late.
const LATE_MS: u64 = 250;

/// Whether a call that was decided then is late now.
pub(super) fn is_late(decided: Timestamp, now: Timestamp) -> bool {
    now.since(decided) >= LATE_MS
}

/// The start of a call, and the tokens that it counts for: estimated until they are known.
#[derive(Debug, Clone, Copy)]
struct Start {
    at: Timestamp,
    job: JobId,
    tokens: u64,
}

/// The pace of one lane. Everything that it decides follows from its settings and the starts of the
/// last [`PACE_MEMORY_MS`]: the call log of that time brings it back as it was.
#[derive(Debug, Clone)]
pub struct Pace {
    settings: PaceSettings,
    /// From one start to the next at least; 0: no bound is on.
    spacing_ms: u64,
    last: Option<Timestamp>,
    /// In the order of their moments; empty without a token bound.
    log: VecDeque<Start>,
    /// When the tokens of all starts in the log have gone by at the allowed rate.
    clear_at: Option<Timestamp>,
}

impl Pace {
    /// A lane that has made no call yet.
    #[must_use]
    pub fn new(settings: PaceSettings) -> Self {
        Self {
            settings,
            spacing_ms: spacing_ms(&settings),
            last: None,
            log: VecDeque::new(),
            clear_at: None,
        }
    }

    /// New settings apply from the next start on, to what has started before as well.
    pub fn configure(&mut self, settings: PaceSettings) {
        self.settings = settings;
        self.spacing_ms = spacing_ms(&settings);
        if settings.tokens_per_minute == 0 {
            self.log.clear();
        }
        self.forget_and_sum_up();
    }

    /// The earliest moment, not before `now`, at which a call of so many tokens may start if nothing
    /// else starts or settles before. A call of more tokens than a minute allows starts alone: once
    /// the last minute holds no other tokens. Costs next to nothing without a token bound, else a
    /// look at the starts of a minute.
    #[must_use]
    pub fn earliest(&self, tokens: u32, now: Timestamp) -> Timestamp {
        let Some(last) = self.last.filter(|_| self.spacing_ms > 0) else {
            return now;
        };
        // A start further ahead than a minute was made before the clock was set back. When that was
        // is not known; waiting for the clock to catch up might take for ever.
        if last.since(now) > WINDOW_MS {
            return now;
        }
        let spread = now
            .max(last.plus_ms(self.spacing_ms))
            .max(self.clear_at.unwrap_or(now));
        self.window_has_room(u64::from(tokens), spread)
    }

    /// A call was sent: it counts for its estimate until it settles.
    pub fn started(&mut self, job: JobId, tokens: u32, now: Timestamp) {
        self.mind_the_clock(now);
        self.last = Some(now);
        if self.settings.tokens_per_minute == 0 {
            return;
        }
        self.log.push_back(Start {
            at: now,
            job,
            tokens: u64::from(tokens),
        });
        self.forget_and_sum_up();
    }

    /// A call that was counted when it was decided is sent now. Where the disk kept it waiting for long its minute begins now:
    /// another that follows by the earlier moment would follow at once.
    pub fn sent(&mut self, job: JobId, decided: Timestamp, now: Timestamp) {
        if !is_late(decided, now) || self.last.is_none() {
            return;
        }
        self.mind_the_clock(now);
        self.last = Some(now);
        let nth = self.log.iter().rposition(|start| start.job == job);
        if let Some(start) = nth.and_then(|nth| self.log.remove(nth)) {
            self.log.push_back(Start { at: now, ..start });
        }
        self.forget_and_sum_up();
    }

    /// A job's call ended (a job has one at a time), and from now on counts for the tokens that it really used: `Some(0)` for one
    /// that GLM refused. `None` when that is not known (no usage in the answer, timed out, aborted,
    /// interrupted): the estimate stands, since GLM may have done the work. A call of which nothing
    /// is known (any more) is passed over.
    pub fn settled(&mut self, job: JobId, tokens: Option<u64>, now: Timestamp) {
        self.mind_the_clock(now);
        let Some(tokens) = tokens else { return };
        let same = |start: &&mut Start| start.job == job;
        if let Some(start) = self.log.iter_mut().rev().find(same) {
            start.tokens = tokens;
            self.forget_and_sum_up();
        }
    }

    /// Goes on from the calls of before a restart, in any order: when each started, and the tokens
    /// it used, or may use if it is still open. It then decides as if there had been no restart,
    /// given all calls that started within the last [`PACE_MEMORY_MS`].
    pub fn restore(
        &mut self,
        starts: impl IntoIterator<Item = (Timestamp, JobId, u64)>,
        now: Timestamp,
    ) {
        let mut starts: Vec<Start> = starts
            .into_iter()
            .map(|(at, job, tokens)| Start {
                at: at.min(now),
                job,
                tokens,
            })
            .collect();
        starts.sort_by_key(|start| start.at);
        self.last = starts.last().map(|start| start.at);
        if self.settings.tokens_per_minute == 0 {
            starts.clear();
        }
        self.log = starts.into();
        self.forget_and_sum_up();
    }

    /// The earliest moment, not before `from`, at which so many tokens more fit into the last minute.
    fn window_has_room(&self, tokens: u64, from: Timestamp) -> Timestamp {
        let allowed = self.settings.tokens_per_minute;
        if allowed == 0 {
            return from;
        }
        let outside = self
            .log
            .partition_point(|start| start.at.plus_ms(WINDOW_MS) <= from);
        let window = self.log.range(outside..);
        let mut inside: u64 = window
            .clone()
            .fold(0, |sum, start| sum.saturating_add(start.tokens));
        let mut earliest = from;
        for start in window {
            if inside == 0 || inside.saturating_add(tokens) <= allowed {
                break;
            }
            inside = inside.saturating_sub(start.tokens);
            earliest = start.at.plus_ms(WINDOW_MS);
        }
        earliest
    }

    /// The clock was set back: what started later than now started now. Its minute begins again,
    /// which may delay a start but makes no burst.
    fn mind_the_clock(&mut self, now: Timestamp) {
        if self.last.is_none_or(|last| last <= now) {
            return;
        }
        self.last = Some(now);
        for start in self.log.iter_mut().rev().take_while(|s| s.at > now) {
            start.at = now;
        }
        self.forget_and_sum_up();
    }

    /// Drops what is too old to count and finds when the tokens of the rest have gone by.
    fn forget_and_sum_up(&mut self) {
        let Some(last) = self.last else { return };
        let is_old = |start: &Start| last.since(start.at) >= PACE_MEMORY_MS;
        while self.log.front().is_some_and(is_old) || self.log.len() > PACE_LOG_STARTS_MAX {
            self.log.pop_front();
        }
        // Tokens times the milliseconds of a minute: of this, `allowed` go by in a millisecond.
        let mut open: u128 = 0;
        let mut until = last;
        let allowed = u128::from(self.settings.tokens_per_minute);
        for start in &self.log {
            open = open.saturating_sub(u128::from(start.at.since(until)) * allowed);
            open += u128::from(start.tokens) * u128::from(WINDOW_MS);
            until = start.at;
        }
        self.clear_at = (!self.log.is_empty() && allowed > 0).then(|| {
            let wait_ms = open.div_ceil(allowed.max(1));
            let wait_ms = u64::try_from(wait_ms).unwrap_or(u64::MAX);
            // Forgotten by then: nothing waits longer than that for tokens.
            until.plus_ms(wait_ms.min(PACE_MEMORY_MS))
        });
    }
}

fn spacing_ms(settings: &PaceSettings) -> u64 {
    let requests = match u64::from(settings.requests_per_minute) {
        0 => 0,
        // Rounded up: a window must not hold one more.
        allowed => WINDOW_MS.div_ceil(allowed),
    };
    let tokens = match settings.tokens_per_minute {
        0 => 0,
        _ => LOGGED_SPACING_MS,
    };
    settings.min_spacing_ms.max(requests).max(tokens)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::sample;

    const fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    const fn rules((requests, tokens, spacing_ms): (u32, u64, u64)) -> PaceSettings {
        PaceSettings {
            requests_per_minute: requests,
            tokens_per_minute: tokens,
            min_spacing_ms: spacing_ms,
        }
    }

    const fn requests(per_minute: u32) -> PaceSettings {
        rules((per_minute, 0, 0))
    }

    const fn tokens(per_minute: u64) -> PaceSettings {
        rules((0, per_minute, 0))
    }

    /// A lane that always starts its next call as early as it may, with a record of its starts.
    struct Starter {
        pace: Pace,
        now: Timestamp,
        starts: Vec<(Timestamp, JobId, u64)>,
    }

    impl Starter {
        fn new(settings: PaceSettings) -> Self {
            Self {
                pace: Pace::new(settings),
                now: sample::START,
                starts: Vec::new(),
            }
        }

        fn start(&mut self, tokens: u32) -> Timestamp {
            let earliest = self.pace.earliest(tokens, self.now);
            assert!(earliest >= self.now);
            self.now = earliest;
            let job = sample::job_id(self.starts.len() as u64 + 1);
            self.pace.started(job, tokens, self.now);
            self.starts.push((self.now, job, u64::from(tokens)));
            self.now
        }

        fn settle(&mut self, nth: usize, tokens: Option<u64>) {
            let Some(start) = self.starts.get_mut(nth) else {
                return;
            };
            self.pace.settled(start.1, tokens, self.now);
            start.2 = tokens.unwrap_or(start.2);
        }

        /// Starts in the minute that ends with the last one, and their tokens as far as known.
        fn last_minute(&self) -> (u64, u64) {
            let inside = self.starts.iter().filter(|s| self.now.since(s.0) < 60_000);
            inside.fold((0, 0), |(n, sum), s| (n + 1, sum + s.2))
        }

        /// Milliseconds from one start to the next.
        fn gaps(&self) -> Vec<u64> {
            let pairs = self.starts.windows(2);
            pairs.map(|w| w[1].0.since(w[0].0)).collect()
        }
    }

    #[test]
    fn without_a_bound_nothing_waits() {
        let mut lane = Starter::new(PaceSettings::default());
        for _ in 0..100 {
            assert_eq!(lane.start(u32::MAX), sample::START);
        }
        assert!(lane.pace.log.is_empty());
    }

    #[test]
    fn requests_are_evenly_spread() {
        let mut lane = Starter::new(requests(7));
        for _ in 0..10 {
            lane.start(1_000_000);
        }
        assert_eq!(lane.gaps(), [8_572; 9], "a seventh of a minute, rounded up");
        assert!(lane.pace.log.is_empty());
    }

    #[test]
    fn the_longest_of_the_spacings_counts() {
        let mut lane = Starter::new(rules((60, 60_000, 1_500)));
        lane.start(100);
        lane.start(3_000);
        lane.start(100);
        lane.pace.configure(PaceSettings::default());
        lane.start(100);
        lane.pace.configure(requests(1));
        lane.start(100);
        assert_eq!(lane.gaps(), [1_500, 3_000, 0, 60_000]);
    }

    #[test]
    fn tokens_are_evenly_spread_and_a_large_call_waits_for_its_room() {
        let mut lane = Starter::new(tokens(60_000));
        for _ in 0..4 {
            lane.start(5_000);
        }
        lane.start(50_000);
        lane.start(1_000);
        // At 15 s there are 20 000 in the minute; half of them have left after 65 s.
        assert_eq!(lane.gaps(), [5_000, 5_000, 5_000, 50_000, 50_000]);
    }

    #[test]
    fn a_call_larger_than_a_minute_allows_starts_alone() {
        let mut lane = Starter::new(tokens(1_000));
        lane.start(10);
        lane.start(3_000);
        lane.start(10);
        // And is waited for at the rate, but not for ever.
        assert_eq!(lane.gaps(), [60_000, 180_000]);
        lane.start(u32::MAX);
        lane.start(10);
        assert_eq!(lane.gaps().last(), Some(&PACE_MEMORY_MS));
    }

    #[test]
    fn what_a_call_really_used_counts_instead_of_its_estimate() {
        let next = |settle: fn(&mut Starter)| {
            let mut lane = Starter::new(tokens(60_000));
            lane.start(10_000);
            lane.now = lane.now.plus_ms(1_000);
            settle(&mut lane);
            lane.start(1).since(sample::START)
        };
        assert_eq!(next(|_| {}), 10_000);
        assert_eq!(next(|lane| lane.settle(0, Some(20_000))), 20_000);
        assert_eq!(next(|lane| lane.settle(0, Some(2_000))), 2_000);
        assert_eq!(next(|lane| lane.settle(0, Some(0))), 1_000, "refused");
        assert_eq!(next(|lane| lane.settle(0, None)), 10_000, "not known");
        let other = |lane: &mut Starter| {
            let now = lane.now;
            lane.pace.settled(sample::job_id(999), Some(0), now);
        };
        assert_eq!(next(other), 10_000, "another job");
    }

    #[test]
    fn a_call_that_the_disk_kept_waiting_counts_from_when_it_is_sent() {
        for settings in [requests(6), tokens(6_000)] {
            let mut lane = Starter::new(settings);
            let decided = lane.start(1_000);
            let sent = decided.plus_ms(240_000);
            lane.pace.sent(lane.starts[0].1, decided, sent);
            assert_eq!(lane.pace.earliest(1_000, sent).since(sent), 10_000);
            // A commit as long as others is none that keeps it waiting.
            let mut lane = Starter::new(settings);
            let decided = lane.start(1_000);
            let sent = decided.plus_ms(LATE_MS - 1);
            lane.pace.sent(lane.starts[0].1, decided, sent);
            assert_eq!(lane.pace.earliest(1_000, sent).since(decided), 10_000);
        }
    }

    /// Twenty at a time, three minutes each, thirty times as many tokens as estimated, which is known
    /// only when the minute of the start is long over.
    #[test]
    fn the_rate_holds_in_the_long_run_although_estimates_are_far_off() {
        let mut lane = Starter::new(tokens(100_000));
        let minutes = 600;
        let mut open = VecDeque::new();
        while lane.now.since(sample::START) < minutes * 60_000 {
            let next = lane.pace.earliest(1_000, lane.now);
            let full = open.len() == 20;
            let ended = |(_, ends): &mut (usize, Timestamp)| full || *ends <= next;
            if let Some((nth, ends)) = open.pop_front_if(ended) {
                lane.now = lane.now.max(ends);
                lane.settle(nth, Some(30_000));
                continue;
            }
            let start = lane.start(1_000);
            open.push_back((lane.starts.len() - 1, start.plus_ms(180_000)));
        }
        let used: u64 = lane.starts.iter().map(|s| s.2).sum();
        let allowed = 100_000 * minutes;
        let about = allowed * 90 / 100..=allowed * 105 / 100;
        assert!(about.contains(&used), "{used} of {allowed}");
    }

    #[test]
    fn a_clock_that_is_set_back_delays_a_start_by_a_minute_at_most() {
        for settings in [requests(6), tokens(60_000)] {
            for back_ms in [1, 10_000, 60_000, 60_001, 3_600_000, i64::MAX as u64] {
                let mut lane = Starter::new(settings);
                for _ in 0..6 {
                    lane.start(10_000);
                }
                let normal = lane.pace.earliest(10_000, lane.now).since(lane.now);
                lane.now = at(lane.now.as_millis().saturating_sub_unsigned(back_ms));
                let wait = lane.pace.earliest(10_000, lane.now).since(lane.now);
                assert!(wait <= normal + 60_000, "{wait} after {back_ms}");
                // There is no burst either, and then it goes on as before.
                lane.start(10_000);
                let first = lane.start(10_000);
                assert!(lane.pace.earliest(10_000, first).since(first) >= 10_000);
                for _ in 0..5 {
                    lane.start(10_000);
                }
                assert!(lane.now.since(first) <= 120_000, "{back_ms}");
            }
        }
    }

    #[test]
    fn a_start_up_to_a_minute_ahead_counts_and_one_further_ahead_is_of_a_clock_that_was_set_back() {
        let mut pace = Pace::new(requests(60));
        let now = sample::START;
        pace.started(sample::job_id(1), 1, now.plus_ms(WINDOW_MS));
        assert_eq!(pace.earliest(1, now), now.plus_ms(61_000));
        let before = now.minus_ms(1);
        assert_eq!(pace.earliest(1, before), before);
    }

    #[test]
    fn the_memory_of_a_lane_is_bounded() {
        let mut lane = Starter::new(tokens(1_000_000_000));
        for _ in 0..PACE_LOG_STARTS_MAX + 100 {
            lane.now = lane.pace.earliest(1, lane.now);
            lane.pace.last = Some(lane.now);
            let (at, job, tokens) = (lane.now, sample::job_id(1), 1);
            lane.pace.log.push_back(Start { at, job, tokens });
        }
        lane.start(1);
        assert_eq!(lane.pace.log.len(), PACE_LOG_STARTS_MAX);
        let oldest = lane.pace.log.front().unwrap().at;
        // What was dropped is no longer in the window.
        assert!(lane.now.since(oldest) >= WINDOW_MS - LOGGED_SPACING_MS);
        lane.now = lane.now.plus_ms(PACE_MEMORY_MS);
        lane.start(1);
        assert_eq!(lane.pace.log.len(), 1);
    }

    fn any_settings() -> impl Strategy<Value = PaceSettings> {
        let requests = prop_oneof![Just(0), 1_u32..10, 10_u32..6_000];
        let tokens = prop_oneof![Just(0), 1_u64..100, 1_000_u64..1_000_000];
        let spacing = prop_oneof![3 => Just(0), 1 => 1_u64..5_000];
        (requests, tokens, spacing).prop_map(rules)
    }

    /// How long after the start before, how many tokens, which of the last starts settles with what
    /// share of its estimate in percent.
    type Arrival = (u64, u32, usize, Option<u64>);

    fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
        let gap = prop_oneof![4 => Just(0), 2 => 0_u64..2_000, 1 => 0_u64..90_000];
        let tokens = prop_oneof![4 => 0_u32..2_000, 1 => 0_u32..200_000];
        let share = proptest::option::of(prop_oneof![Just(0), 0_u64..300]);
        prop::collection::vec((gap, tokens, 0_usize..8, share), 1..120)
    }

    fn arrive(lane: &mut Starter, (gap, tokens, nth, share): Arrival) {
        lane.now = lane.now.plus_ms(gap);
        if let Some(nth) = lane.starts.len().checked_sub(nth + 1) {
            let estimate = lane.starts[nth].2;
            lane.settle(nth, share.map(|percent| estimate * percent / 100));
        }
        lane.start(tokens);
    }

    proptest! {
        /// Tokens count as they were known at the start: by usage when settled, else by estimate.
        #[test]
        fn no_minute_holds_more_than_it_may(settings in any_settings(), arrivals in arrivals()) {
            let mut lane = Starter::new(settings);
            for arrival in arrivals {
                arrive(&mut lane, arrival);
                let (starts, tokens) = lane.last_minute();
                let rpm = u64::from(settings.requests_per_minute);
                prop_assert!(rpm == 0 || starts <= rpm, "{starts} starts");
                let tpm = settings.tokens_per_minute;
                let alone = tokens == u64::from(arrival.1);
                prop_assert!(tpm == 0 || tokens <= tpm || alone, "{tokens} tokens");
            }
            let spacing = spacing_ms(&settings);
            prop_assert!(lane.gaps().iter().all(|gap| *gap >= spacing));
        }

        #[test]
        fn whoever_waits_until_then_waits_no_longer(
            settings in any_settings(),
            arrivals in arrivals(),
            tokens in 0_u32..300_000,
        ) {
            let mut lane = Starter::new(settings);
            for arrival in arrivals {
                arrive(&mut lane, arrival);
                let then = lane.pace.earliest(tokens, lane.now);
                prop_assert_eq!(lane.pace.earliest(tokens, then), then);
                let later = lane.now.plus_ms(1);
                prop_assert_eq!(lane.pace.earliest(tokens, later), then.max(later));
            }
        }

        /// With work always waiting: 90 % of what is allowed, for calls of up to a twentieth of a
        /// minute's tokens and up to 6000 calls a minute (the clock counts whole milliseconds).
        #[test]
        fn what_is_allowed_is_used(
            rpm in 1_u32..6_000,
            tpm in 1_000_u64..1_000_000,
            sizes in prop::collection::vec(1_u64..=50, 1..20),
        ) {
            let minutes = 5;
            let mut by_requests = Starter::new(requests(rpm));
            while by_requests.now.since(sample::START) < minutes * 60_000 {
                by_requests.start(1);
            }
            let starts = by_requests.starts.len() as u64;
            prop_assert!(starts >= u64::from(rpm) * minutes * 9 / 10, "{starts} starts");

            let mut by_tokens = Starter::new(tokens(tpm));
            let mut sizes = sizes.iter().cycle();
            let mut used = 0;
            loop {
                let size = sizes.next().unwrap() * tpm / 1_000;
                by_tokens.start(u32::try_from(size).unwrap());
                if by_tokens.now.since(sample::START) >= minutes * 60_000 {
                    break;
                }
                used += size;
            }
            // Calls of less than 4 ms' tokens are held back by the bound of the log.
            if used / by_tokens.starts.len() as u64 > tpm / 1_000 {
                prop_assert!(used >= tpm * minutes * 9 / 10, "{used} tokens");
            }
        }

        #[test]
        fn a_restart_changes_nothing(
            settings in any_settings(),
            arrivals in arrivals(),
            later in 0_u64..120_000,
            after in arrivals(),
        ) {
            let mut lane = Starter::new(settings);
            for arrival in arrivals {
                arrive(&mut lane, arrival);
            }
            lane.now = lane.now.plus_ms(later);
            let mut restarted = Starter::new(settings);
            restarted.now = lane.now;
            // Newest first, as the call log tells them.
            restarted.pace.restore(lane.starts.iter().rev().copied(), lane.now);
            restarted.starts.clone_from(&lane.starts);
            for arrival in after {
                arrive(&mut lane, arrival);
                arrive(&mut restarted, arrival);
                prop_assert_eq!(lane.now, restarted.now);
            }
        }

        #[test]
        fn no_clock_and_no_number_breaks_it(
            settings in any::<(u32, u64, u64)>().prop_map(rules),
            steps in prop::collection::vec((any::<i64>(), any::<u32>(), any::<u64>()), 1..20),
        ) {
            let mut pace = Pace::new(settings);
            for (nth, (ms, estimate, used)) in (1..).zip(steps) {
                let now = at(ms);
                prop_assert!(pace.earliest(estimate, now) >= now);
                pace.started(sample::job_id(nth), estimate, now);
                pace.settled(sample::job_id(nth), Some(used), now);
            }
        }
    }
}
