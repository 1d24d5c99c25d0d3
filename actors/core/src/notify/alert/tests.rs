//! Guards: an alert is told once, in time, and not twice for a figure that swings.

use proptest::prelude::*;

use super::*;
use crate::model::{Failure, HoldKind};
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

const fn between(clear: i64, raise: i64, for_ms: u64) -> Thresholds {
    Thresholds {
        raise,
        clear,
        for_ms,
    }
}

const fn window(min_calls: u32) -> CallWindow {
    CallWindow {
        window_ms: MINUTE,
        min_calls,
    }
}

fn on_length(raise: i64, clear: i64, for_ms: u64) -> AlertSettings {
    AlertSettings {
        queue_length: Some(between(clear, raise, for_ms)),
        ..AlertSettings::default()
    }
}

fn length(ready: u64) -> Inputs<'static> {
    Inputs { ready, ..QUIET }
}

fn hold(kind: HoldKind, model: &str) -> (HoldScope, Hold) {
    let hold = Hold {
        kind,
        code: "1113".to_owned(),
        message: "no balance".to_owned(),
        since: START,
        until: None,
    };
    (HoldScope::Model(model.to_owned()), hold)
}

fn held(kind: HoldKind, model: &str) -> AlertKey {
    let scope = HoldScope::Model(model.to_owned());
    AlertKey::Hold(HeldKey { kind, scope })
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
        budget: Some(between(700_000, 800_000, 0)),
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
    let always = |raise| between(raise - 1, raise, 0);
    let settings = AlertSettings {
        error_rate: Some((always(500_000), window(2))),
        response_time: Some((always(100), window(2), Measure::P95)),
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
        holds: &[hold(HoldKind::Throttle, "a"), hold(HoldKind::Operator, "a")],
        ..QUIET
    };
    let mut alerts = Alerts::default();
    let raised = names(&alerts.step(&settings, &inputs, START));
    let all = "error_rate, response_time, queue_age, spend USD, breaker, hold operator of model a";
    let all = all.split(", ").map(|key| ("raised", key.to_owned()));
    assert_eq!(raised, all.collect::<Vec<_>>());
}

/// A rule on the error rate of three calls or more in a minute, raised at a half.
fn on_errors() -> AlertSettings {
    AlertSettings {
        error_rate: Some((between(100_000, 500_000, 0), window(3))),
        ..AlertSettings::default()
    }
}

/// What became of the alert on errors when it looks at these calls, so long after them.
fn look(alerts: &mut Alerts, calls: &[CallRecord], ms: u64) -> Option<&'static str> {
    let inputs = Inputs { calls, ..QUIET };
    let changes = alerts.step(&on_errors(), &inputs, START.plus_ms(ms));
    names(&changes).pop().map(|(what, _)| what)
}

#[test]
fn too_few_calls_raise_nothing() {
    let mut alerts = Alerts::default();
    let failed = |count| calls(CallOutcome::Failed, &vec![1; count]);
    assert_eq!(look(&mut alerts, &failed(2), 0), None);
    // What a caller gave up does not count.
    let cancelled = calls(CallOutcome::Cancelled, &[1; 9]);
    assert_eq!(look(&mut alerts, &cancelled, 0), None);
    assert_eq!(look(&mut alerts, &failed(3), 0), Some("raised"));
    // Two of them say too little of an end, either.
    assert_eq!(look(&mut alerts, &failed(2), 0), None);
}

#[test]
fn a_slow_lane_is_judged_by_its_latest_calls() {
    let at = |outcome, ms: u64| CallRecord {
        ended_at: START.plus_ms(ms),
        ..calls(outcome, &[1]).remove(0)
    };
    let failed = |minute: u64| at(CallOutcome::Failed, minute * MINUTE);
    // One a minute; the latest first.
    let slow = [failed(4), failed(3), failed(2)];
    let mut alerts = Alerts::default();
    assert_eq!(look(&mut alerts, &slow, 4 * MINUTE + 1), Some("raised"));
    // Not farther back than it reaches.
    let slower = [failed(20), failed(10), failed(2)];
    let mut alerts = Alerts::default();
    assert_eq!(look(&mut alerts, &slower, 20 * MINUTE), None);
}

#[test]
fn an_error_rate_is_over_when_nothing_fails_however_few_call() {
    let failed = calls(CallOutcome::Failed, &[1; 3]);
    let raised = || {
        let mut alerts = Alerts::default();
        assert_eq!(look(&mut alerts, &failed, 0), Some("raised"));
        alerts
    };
    // Nobody calls any more.
    let mut alerts = raised();
    assert_eq!(look(&mut alerts, &failed, MINUTE), None);
    assert_eq!(look(&mut alerts, &failed, MINUTE + 1), Some("cleared"));
    // And is not raised again by what was known before.
    assert_eq!(look(&mut alerts, &failed, MINUTE + 2), None);
    // One call that was answered.
    let mut alerts = raised();
    let mut more = calls(CallOutcome::Completed, &[1]);
    more[0].ended_at = START.plus_ms(MINUTE);
    more.extend(failed.clone());
    assert_eq!(look(&mut alerts, &more, MINUTE + 1), Some("cleared"));
}

#[test]
fn what_is_no_fault_of_glm_is_no_error_of_it() {
    let of_class = |class| {
        let mut calls = calls(CallOutcome::Failed, &[1; 9]);
        for call in &mut calls {
            call.failure = Some(Failure::new(class, "x", "y"));
        }
        let mut alerts = Alerts::default();
        look(&mut alerts, &calls, 0)
    };
    assert_eq!(of_class(FailureClass::Throttle), None);
    assert_eq!(of_class(FailureClass::RequestFatal), None);
    assert_eq!(of_class(FailureClass::ServerTransient), Some("raised"));
}

#[test]
fn a_second_hold_is_a_second_alert_and_each_says_why() {
    let settings = AlertSettings {
        holds: BTreeMap::from([(HoldKind::Operator, MINUTE)]),
        ..AlertSettings::default()
    };
    let mut alerts = Alerts::default();
    let [a, b] = ["a", "b"].map(|model| hold(HoldKind::Operator, model));
    let both = [a.clone(), b];
    let mut step = |holds: &[(HoldScope, Hold)], ms| {
        let inputs = Inputs { holds, ..QUIET };
        alerts.step(&settings, &inputs, START.plus_ms(ms))
    };
    assert_eq!(step(&both[..1], 0), []);
    let raised = step(&both, MINUTE);
    let [AlertChange::Raised(alert)] = &raised[..] else {
        panic!("{raised:?}")
    };
    assert_eq!(alert.key, held(HoldKind::Operator, "a"));
    assert_eq!(alert.hold, Some(a.1));
    assert_eq!(names(&step(&both, 2 * MINUTE)).len(), 1, "the other");
    assert_eq!(step(&both[..1], 3 * MINUTE), [], "not at once");
    let over = step(&both[..1], 4 * MINUTE);
    let key = held(HoldKind::Operator, "b").to_string();
    assert_eq!(names(&over), [("cleared", key)]);
}

#[test]
fn what_became_of_alerts_between_two_books_is_told_once() {
    let mut before = AlertBook::default();
    before.raise(sample::alert(AlertKey::QueueAge));
    before.raise(sample::alert(AlertKey::Breaker));
    let mut now = before.clone();
    now.clear(&AlertKey::Breaker, START.plus_ms(5));
    now.raise(sample::alert(AlertKey::ErrorRate));
    let told = |before: &AlertBook, now: &AlertBook| names(&changes(before, now));
    let [cleared, raised] = [("cleared", "breaker"), ("raised", "error_rate")];
    let want = [cleared, raised].map(|(what, key)| (what, key.to_owned()));
    assert_eq!(told(&before, &now), want);
    assert_eq!(told(&now, &now), []);
    // The same alert, noted at another moment by somebody who did not know that it was stored.
    let mut again = before.clone();
    again.active[0].raised_at = START.plus_ms(9);
    assert_eq!(told(&before, &again), []);
    // Over and bad again, between two looks of the store.
    let mut anew = before.clone();
    anew.clear(&AlertKey::QueueAge, START.plus_ms(5));
    anew.raise(Alert {
        raised_at: START.plus_ms(6),
        ..sample::alert(AlertKey::QueueAge)
    });
    assert_eq!(told(&before, &anew).len(), 2);
}

#[test]
fn the_95th_percentile_is_the_nearest_rank() {
    let check = |times: &[u64], p95: i64, mean: i64| {
        let calls = calls(CallOutcome::Completed, times);
        let read = |measure| response_time(&calls, window(1), measure, START).unwrap();
        assert_eq!((read(Measure::P95), read(Measure::Mean)), (p95, mean));
    };
    check(&[7], 7, 7);
    check(&[1, 2], 2, 1);
    let hundred: Vec<u64> = (1..=100).rev().collect();
    check(&hundred, 95, 50);
}

#[test]
fn a_level_is_told_exactly_in_its_unit() {
    let told = |key, level, threshold, hold| {
        let raised_at = START;
        let alert = Alert {
            key,
            raised_at,
            level,
            threshold,
            hold,
        };
        alert.to_string()
    };
    let rate = told(AlertKey::ErrorRate, 523_810, 500_000, None);
    assert_eq!(rate, "error_rate is 0.52381 share, 0.5 or more is too much");
    let spend = AlertKey::Spend(Currency::Usd);
    let spend = told(spend, 1_000_000_001, 1_000_000_000, None);
    assert_eq!(
        spend,
        "spend USD is 1.000000001 USD/h, 1 or more is too much"
    );
    let (key, hold) = (
        held(HoldKind::Operator, "a"),
        hold(HoldKind::Operator, "a").1,
    );
    let held = told(key, 1, 1, Some(hold));
    assert_eq!(held, "model a is held (operator): 1113 no balance");
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
