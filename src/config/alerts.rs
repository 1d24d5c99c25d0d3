//! `[alerts]`: what is bad enough to tell an operator.

use std::collections::BTreeMap;
use std::time::Duration;

use onelane_core::model::setting::{Place, Problem, SettingsError};
use onelane_core::model::{
    AlertSettings, CallWindow, Currency, HoldKind, Measure, Nanos, Thresholds, WHOLE_SHARE, limits,
};
use onelane_core::section;

use super::prices::Price;

section! {
    /// `[alerts]`: the rules, each in a table of its own.
    pub struct AlertsSection {
        /// How often the rules are looked at.
        every_ms: u64 = 5_000 => [within(100..=3_600_000)];
        /// The rule on the share of calls that failed, without throttles and what is the jobs' own wrong.
        error_rate: ErrorRateSection = ErrorRateSection::default();
        /// The rule on how long answers take.
        response_time: ResponseTimeSection = ResponseTimeSection::default();
        /// The rule on the jobs that are due and wait for a slot.
        queue_length: QueueLengthSection = QueueLengthSection::default();
        /// The rule on how long the oldest of the jobs that are due has waited.
        queue_age: QueueAgeSection = QueueAgeSection::default();
        /// The rule on what the last hour cost.
        spend: SpendSection = SpendSection::default();
        /// The rule on the used share of each budget.
        budget: BudgetAlertSection = BudgetAlertSection::default();
        /// The rule on a breaker that is open or tries again.
        breaker: BreakerAlertSection = BreakerAlertSection::default();
        /// The rule on holds.
        hold: HoldAlertSection = HoldAlertSection::default();
    }
}

section! {
    /// `[alerts.error_rate]`.
    #[derive(Copy)]
    pub struct ErrorRateSection checked by Self::goes_together {
        /// Whether the rule on failed calls is on.
        on: bool = true;
        /// The share of failed calls from which on the alert is raised.
        raise: f64 = 0.5 => [within(0.0..=1.0)];
        /// The share of failed calls at which the alert is cleared. It is cleared, too, when no call of the window
        /// failed.
        clear: f64 = 0.2 => [within(0.0..=1.0)];
        /// Raised and cleared only after it was so for this long without a break.
        for_ms: u64 = 60_000 => [within(0..=limits::DAY_MS)];
        /// The share is that of the calls that ended in the last so many milliseconds.
        window_ms: u64 = 300_000 => [within(1_000..=limits::DAY_MS)];
        /// Where fewer calls ended in the window, the latest so many count, from twelve windows back at most.
        min_calls: u32 = 20 => [within(1..=limits::ALERT_CALLS_MAX as u64)];
    }
}

section! {
    /// `[alerts.response_time]`.
    #[derive(Copy, Eq)]
    pub struct ResponseTimeSection checked by Self::goes_together {
        /// Whether the rule on response times is on.
        on: bool = false;
        /// What of many response times is looked at: "p95" (95 of 100 are as fast) or "mean".
        measure: Measure = Measure::P95;
        /// The response time from which on the alert is raised.
        raise_ms: u64 = 120_000;
        /// The response time at which the alert is cleared.
        clear_ms: u64 = 90_000;
        /// Raised and cleared only after it was so for this long without a break.
        for_ms: u64 = 60_000 => [within(0..=limits::DAY_MS)];
        /// The calls that ended in the last so many milliseconds count.
        window_ms: u64 = 300_000 => [within(1_000..=limits::DAY_MS)];
        /// Where fewer calls ended in the window, the latest so many count, from twelve windows back at most.
        min_calls: u32 = 20 => [within(1..=limits::ALERT_CALLS_MAX as u64)];
    }
}

section! {
    /// `[alerts.queue_length]`.
    #[derive(Copy, Eq)]
    pub struct QueueLengthSection checked by Self::goes_together {
        /// Whether the rule on the number of jobs that are due is on.
        on: bool = false;
        /// The number of jobs that are due from which on the alert is raised.
        raise: u64 = 10_000;
        /// The number of jobs that are due at which the alert is cleared.
        clear: u64 = 5_000;
        /// Raised and cleared only after it was so for this long without a break.
        for_ms: u64 = 60_000 => [within(0..=limits::DAY_MS)];
    }
}

section! {
    /// `[alerts.queue_age]`.
    #[derive(Copy, Eq)]
    pub struct QueueAgeSection checked by Self::goes_together {
        /// Whether the rule on the wait of the oldest job that is due is on.
        on: bool = false;
        /// The wait from which on the alert is raised.
        raise_ms: u64 = 3_600_000;
        /// The wait at which the alert is cleared.
        clear_ms: u64 = 1_800_000;
        /// Raised and cleared only after it was so for this long without a break.
        for_ms: u64 = 60_000 => [within(0..=limits::DAY_MS)];
    }
}

section! {
    /// `[alerts.spend]`.
    #[derive(Copy)]
    pub struct SpendSection {
        /// Whether the rule on what the last hour cost is on.
        on: bool = false;
        /// Raised when an hour costs so many yuan, as text so that it stays exact; "0" is never.
        cny_per_hour: Price = Price::default();
        /// Raised when an hour costs so many dollars, as text so that it stays exact; "0" is never.
        usd_per_hour: Price = Price::default();
        /// Raised when an hour costs so many points of a Coding Plan, as text so that it stays exact; "0" is never.
        points_per_hour: Price = Price::default();
        /// Cleared at this share of the amount at which it is raised.
        clear_share: f64 = 0.8 => [within(0.0..=0.999_999)];
        /// Raised and cleared only after it was so for this long without a break.
        for_ms: u64 = 0 => [within(0..=limits::DAY_MS)];
    }
}

section! {
    /// `[alerts.budget]`.
    #[derive(Copy)]
    pub struct BudgetAlertSection checked by Self::goes_together {
        /// Whether the rule on budgets is on.
        on: bool = true;
        /// The used share of a budget from which on its alert is raised.
        raise: f64 = 0.8 => [within(0.0..=1.0)];
        /// The used share of a budget at which its alert is cleared.
        clear: f64 = 0.7 => [within(0.0..=1.0)];
        /// Raised and cleared only after it was so for this long without a break.
        for_ms: u64 = 0 => [within(0..=limits::DAY_MS)];
    }
}

section! {
    /// `[alerts.breaker]`.
    #[derive(Copy, Eq)]
    pub struct BreakerAlertSection {
        /// Whether the rule on a breaker that is not closed is on.
        on: bool = true;
        /// Raised and cleared only after it was so for this long without a break.
        for_ms: u64 = 60_000 => [within(0..=limits::DAY_MS)];
    }
}

section! {
    /// `[alerts.hold]`.
    #[derive(Eq)]
    pub struct HoldAlertSection {
        /// Whether the rule on holds is on.
        on: bool = true;
        /// The kinds of holds that are bad enough: after_timeout, throttle, overload, quota, operator.
        kinds: Vec<HoldKind> = vec![HoldKind::Quota, HoldKind::Operator];
        /// Raised and cleared only after it was so for this long without a break.
        for_ms: u64 = 10_000 => [within(0..=limits::DAY_MS)];
    }
}

/// An alert must be cleared at a lower level than it is raised at, or it would flap.
macro_rules! cleared_below {
    ($($section:ident: $raise:ident, $clear:ident;)*) => {$(
        impl $section {
            fn goes_together(&self, place: &Place, errors: &mut Vec<SettingsError>) {
                if self.raise_level() <= self.clear_level() {
                    let problem = Problem::from("must be lower than ");
                    let problem = problem.setting(place.at(stringify!($raise)));
                    errors.push(SettingsError::new(place.at(stringify!($clear)), problem));
                }
            }

            fn raise_level(&self) -> i64 {
                self.$raise.level()
            }

            fn clear_level(&self) -> i64 {
                self.$clear.level()
            }

            fn thresholds(&self) -> Option<Thresholds> {
                self.on.then(|| Thresholds {
                    raise: self.raise_level(),
                    clear: self.clear_level(),
                    for_ms: self.for_ms,
                })
            }
        }
    )*};
}

cleared_below! {
    ErrorRateSection: raise, clear;
    ResponseTimeSection: raise_ms, clear_ms;
    QueueLengthSection: raise, clear;
    QueueAgeSection: raise_ms, clear_ms;
    BudgetAlertSection: raise, clear;
}

/// A level as the rules count it.
trait Level {
    fn level(self) -> i64;
}

/// Numbers and times as they are.
impl Level for u64 {
    fn level(self) -> i64 {
        i64::try_from(self).unwrap_or(i64::MAX)
    }
}

/// Shares in millionths.
impl Level for f64 {
    fn level(self) -> i64 {
        (self * WHOLE_SHARE as Self).round() as i64
    }
}

impl AlertsSection {
    /// The rules that are on.
    #[must_use]
    pub fn settings(&self) -> AlertSettings {
        let (rate, time) = (&self.error_rate, &self.response_time);
        let window = |window_ms, min_calls| CallWindow {
            window_ms,
            min_calls,
        };
        let (of_rate, of_time) = (
            window(rate.window_ms, rate.min_calls),
            window(time.window_ms, time.min_calls),
        );
        let kinds = self.hold.kinds.iter().filter(|_| self.hold.on);
        AlertSettings {
            error_rate: rate.thresholds().map(|levels| (levels, of_rate)),
            response_time: time
                .thresholds()
                .map(|levels| (levels, of_time, time.measure)),
            queue_length: self.queue_length.thresholds(),
            queue_age: self.queue_age.thresholds(),
            spend: self.spend.thresholds(),
            budget: self.budget.thresholds(),
            breaker_for_ms: self.breaker.on.then_some(self.breaker.for_ms),
            holds: kinds.map(|kind| (*kind, self.hold.for_ms)).collect(),
        }
    }

    /// How often the rules are looked at.
    #[must_use]
    pub const fn every(&self) -> Duration {
        Duration::from_millis(self.every_ms)
    }
}

impl SpendSection {
    fn thresholds(&self) -> BTreeMap<Currency, Thresholds> {
        let amounts = [
            (Currency::Cny, self.cny_per_hour.nanos()),
            (Currency::Usd, self.usd_per_hour.nanos()),
            (Currency::Points, self.points_per_hour.nanos()),
        ];
        let watched = amounts
            .into_iter()
            .filter(|(_, nanos)| self.on && *nanos > 0);
        let thresholds = watched.map(|(currency, raise)| {
            // Exact: the share is counted in millionths, the amount in nano-units.
            let share = i128::from(raise) * i128::from(self.clear_share.level());
            let clear = Nanos::try_from(share / i128::from(WHOLE_SHARE)).unwrap_or(0);
            let for_ms = self.for_ms;
            (
                currency,
                Thresholds {
                    raise,
                    clear,
                    for_ms,
                },
            )
        });
        thresholds.collect()
    }
}
