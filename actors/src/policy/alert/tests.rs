//! Guards: an alert is told once, in time, and not twice for a figure that swings.

use proptest::prelude::*;

use super::*;
use crate::testing::sample::{self, START};

const MINUTE: u64 = 60_000;

const QUIET: Inputs<'_> = Inputs {
    calls: &[],
    ready: 0,
    oldest_due: None,
    spent_last_hour: &BTreeMap::new(),
    budgets: &[],
    breaker: BreakerState::Closed,
    holds: &[],
};

fn on_length(raise: i64, clear: i64, for_ms: u64) -> AlertSettings {
    AlertSettings {
        queue_length: Some(Thresholds {
            raise,
            clear,
            for_ms,
        }),
        ..AlertSettings::default()
    }
}

fn length(ready: u64) -> Inputs<'static> {
    Inputs { ready, ..QUIET }
}

fn names(changes: &[AlertChange]) -> Vec<(&'static str, String)> {
    let name = |change: &AlertChange| match change {
        AlertChange::Raised(alert) => ("raised", alert.key.to_string()),
        AlertChange::Cleared(past) => ("cleared", past.alert.key.to_string()),
    };
    changes.iter().map(name).collect()
}

fn calls(outcome: CallOutcome, times: &[u64]) -> Vec<CallRecord> {
    let call = |time: &u64| CallRecord {
        response_time_ms: *time,
        ended_at: START,
        ..sample::call(1, 1, outcome)
    };
    times.iter().map(call).collect()
}

#[test]
fn an_alert_waits_for_its_time_and_so_does_its_end() {
    let settings = on_length(100, 50, MINUTE);
    let mut alerts = Alerts::default();
    let mut at = |ms: u64, ready: u64| {
        let changes = alerts.step(&settings, &length(ready), START.plus_ms(ms));
        names(&changes).pop().map(|(what, _)| what)
    };
    assert_eq!(at(0, 100), None);
    assert_eq!(at(59_999, 200), None);
    assert_eq!(at(60_000, 100), Some("raised"));
    assert_eq!(at(60_001, 10_000), None);
    assert_eq!(at(61_000, 50), None);
    // A moment above the lower level begins the wait anew.
    assert_eq!(at(62_000, 51), None);
    assert_eq!(at(63_000, 0), None);
    assert_eq!(at(122_999, 0), None);
    assert_eq!(at(123_000, 0), Some("cleared"));
    assert_eq!(at(124_000, 99), None);
}

#[test]
fn what_a_store_kept_is_neither_told_again_nor_lost() {
    let settings = on_length(100, 50, 0);
    let mut before = Alerts::default();
    assert_eq!(before.step(&settings, &length(100), START).len(), 1);
    let stored = serde_json::to_string(before.book()).unwrap();
    let mut after = Alerts::new(serde_json::from_str(&stored).unwrap());
    assert_eq!(after.step(&settings, &length(100), START.plus_ms(1)), []);
    let changes = after.step(&settings, &length(0), START.plus_ms(2));
    assert_eq!(names(&changes), [("cleared", "queue_length".to_owned())]);
    assert_eq!(after.book().past[0].alert.raised_at, START);
    assert_eq!(after.book().past[0].cleared_at, START.plus_ms(2));
}

#[test]
fn a_rule_that_is_switched_off_and_a_budget_that_is_gone_are_over() {
    let settings = AlertSettings {
        budget: Some(Thresholds {
            raise: 800_000,
            clear: 700_000,
            for_ms: 0,
        }),
        ..on_length(1, 0, 0)
    };
    let budgets = [("day".to_owned(), 900_000), ("month".to_owned(), 799_999)];
    let inputs = Inputs {
        budgets: &budgets,
        ..length(1)
    };
    let mut alerts = Alerts::default();
    let changes = alerts.step(&settings, &inputs, START);
    let raised = ["queue_length", "budget day"].map(|key| ("raised", key.to_owned()));
    assert_eq!(names(&changes), raised);
    let changes = alerts.step(&settings, &length(1), START);
    assert_eq!(names(&changes), [("cleared", "budget day".to_owned())]);
    let changes = alerts.step(&AlertSettings::default(), &length(1), START);
    assert_eq!(names(&changes), [("cleared", "queue_length".to_owned())]);
}

#[test]
fn every_rule_reads_its_own_figure() {
    let always = |raise| Thresholds {
        raise,
        clear: raise - 1,
        for_ms: 0,
    };
    let window = CallWindow {
        window_ms: MINUTE,
        min_calls: 2,
    };
    let settings = AlertSettings {
        error_rate: Some((always(500_000), window)),
        response_time: Some((always(100), window, Measure::P95)),
        queue_length: None,
        queue_age: Some(always(5_000)),
        spend: BTreeMap::from([(Currency::Usd, always(7)), (Currency::Cny, always(8))]),
        budget: None,
        breaker_for_ms: Some(0),
        holds: BTreeMap::from([(HoldKind::Operator, 0), (HoldKind::Quota, 0)]),
    };
    let mut recent = calls(CallOutcome::Completed, &[90, 100]);
    recent.extend(calls(CallOutcome::Failed, &[5, 5]));
    let inputs = Inputs {
        calls: &recent,
        oldest_due: Some(START.minus_ms(5_000)),
        spent_last_hour: &BTreeMap::from([(Currency::Usd, 7), (Currency::Cny, 7)]),
        breaker: BreakerState::HalfOpen,
        holds: &[HoldKind::Throttle, HoldKind::Operator],
        ..QUIET
    };
    let mut alerts = Alerts::default();
    let raised: Vec<String> = names(&alerts.step(&settings, &inputs, START))
        .into_iter()
        .map(|(_, key)| key)
        .collect();
    let all = [
        "error_rate",
        "response_time",
        "queue_age",
        "spend USD",
        "breaker",
        "hold operator",
    ];
    assert_eq!(raised, all);
}

#[test]
fn too_few_calls_say_nothing_either_way() {
    let window = CallWindow {
        window_ms: MINUTE,
        min_calls: 3,
    };
    let settings = AlertSettings {
        error_rate: Some((
            Thresholds {
                raise: 500_000,
                clear: 100_000,
                for_ms: 0,
            },
            window,
        )),
        ..AlertSettings::default()
    };
    let mut alerts = Alerts::default();
    let mut step = |outcome, count: usize, ms| {
        let calls = calls(outcome, &vec![1; count]);
        let inputs = Inputs {
            calls: &calls,
            ..QUIET
        };
        alerts.step(&settings, &inputs, START.plus_ms(ms)).len()
    };
    assert_eq!(step(CallOutcome::Failed, 2, 0), 0);
    // What a caller gave up does not count.
    assert_eq!(step(CallOutcome::Cancelled, 9, 0), 0);
    assert_eq!(step(CallOutcome::Failed, 3, 0), 1);
    assert_eq!(step(CallOutcome::Completed, 2, 0), 0);
    // They are too old by then.
    assert_eq!(step(CallOutcome::Completed, 9, MINUTE + 1), 0);
    assert_eq!(step(CallOutcome::Completed, 3, 0), 1);
}

#[test]
fn the_95th_percentile_is_the_nearest_rank() {
    let window = CallWindow {
        window_ms: MINUTE,
        min_calls: 1,
    };
    let check = |times: &[u64], p95: i64, mean: i64| {
        let calls = calls(CallOutcome::Completed, times);
        let read = |measure| response_time(&calls, window, measure, START).unwrap();
        assert_eq!((read(Measure::P95), read(Measure::Mean)), (p95, mean));
    };
    check(&[7], 7, 7);
    check(&[1, 2], 2, 1);
    let hundred: Vec<u64> = (1..=100).rev().collect();
    check(&hundred, 95, 50);
}

#[test]
fn a_level_is_told_exactly_in_its_unit() {
    let alert = |key, level, threshold| Alert {
        key,
        raised_at: START,
        level,
        threshold,
    };
    let check = |alert: Alert, text: &str| assert_eq!(alert.to_string(), text);
    check(
        alert(AlertKey::ErrorRate, 523_810, 500_000),
        "error_rate is 0.52381 share, 0.5 or more is too much",
    );
    check(
        alert(AlertKey::Spend(Currency::Usd), 1_000_000_001, 1_000_000_000),
        "spend USD is 1.000000001 USD/h, 1 or more is too much",
    );
    check(
        alert(AlertKey::Hold(HoldKind::Operator), 1, 1),
        "calls are held: operator",
    );
}

proptest! {
    /// Raised and cleared take turns; neither comes before the level was beyond its threshold for
    /// the whole `for`; between the thresholds nothing happens.
    #[test]
    fn raised_and_cleared_take_turns_and_neither_is_early(
        for_ms in 0_u64..300,
        walk in prop::collection::vec((0_u64..120, 0_u64..10), 1..200),
    ) {
        let (raise, clear) = (7, 3);
        let settings = on_length(raise, clear, for_ms);
        let mut alerts = Alerts::default();
        let mut now = START;
        let (mut high, mut low) = (None, None);
        let mut active = false;
        for (wait, ready) in walk {
            now = now.plus_ms(wait);
            let level = whole(ready);
            high = (level >= raise).then(|| high.unwrap_or(now));
            low = (level <= clear).then(|| low.unwrap_or(now));
            let changes = alerts.step(&settings, &length(ready), now);
            prop_assert!(changes.len() <= 1);
            let long = |since: Option<Timestamp>| since.is_some_and(|s| now.since(s) >= for_ms);
            match changes.first() {
                Some(AlertChange::Raised(alert)) => {
                    prop_assert!(!active && long(high));
                    prop_assert_eq!(alert.level, level);
                    active = true;
                }
                Some(AlertChange::Cleared(_)) => {
                    prop_assert!(active && long(low));
                    active = false;
                }
                None => {
                    let overdue = long(if active { low } else { high });
                    prop_assert!(!overdue);
                }
            }
            prop_assert_eq!(alerts.book().active.len(), usize::from(active));
        }
    }
}
