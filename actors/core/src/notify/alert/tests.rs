//! Guards: an alert is told once, in time, and not twice for a figure that swings.

use proptest::prelude::*;

use super::*;
use crate::model::{
    Amount, BudgetKey, Failure, HoldKind, HoldScope, OverBudget, Period, Threshold,
};
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
    route: None,
    quota: &[],
    balance: None,
};

/// Rules of which none is on but these; each watches what its name says, or else its `on`.
fn rules(on: &[(&str, AlertRule)]) -> AlertRules {
    let mut rules = AlertRules::default();
    rules.0.values_mut().for_each(|rule| rule.enabled = false);
    for (name, rule) in on {
        let on = rules.0.get(*name).and_then(|rule| rule.on);
        let rule = AlertRule {
            on: rule.on.or(on),
            ..rule.clone()
        };
        rules.0.insert((*name).to_owned(), rule);
    }
    rules
}

/// A rule that raises at `raise`, clears at `clear` and waits so long.
fn between(raise: &str, clear_share: f64, for_ms: u64) -> AlertRule {
    AlertRule {
        threshold: Some(raise.parse::<Threshold>().unwrap()),
        hysteresis: Some(1.0 - clear_share),
        for_ms,
        ..AlertRule::default()
    }
}

fn on_length(raise: &str, clear_share: f64, for_ms: u64) -> AlertRules {
    rules(&[("queue_length", between(raise, clear_share, for_ms))])
}

fn length(ready: u64) -> Inputs<'static> {
    Inputs { ready, ..QUIET }
}

fn hold(kind: HoldKind, model: &str) -> ScopedHold {
    let hold = Hold {
        kind,
        code: "1113".to_owned(),
        message: "no balance".to_owned(),
        since: START,
        until: None,
    };
    let scope = HoldScope::Model(model.to_owned());
    ScopedHold { scope, hold }
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
    let settings = on_length("100", 0.5, MINUTE);
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
    let settings = on_length("100", 0.5, 0);
    let mut before = Alerts::default();
    assert_eq!(before.step(&settings, &length(100), START).len(), 1);
    let mut after = Alerts::new(before.book().clone());
    assert_eq!(after.step(&settings, &length(100), START.plus_ms(1)), []);
    let changes = after.step(&settings, &length(0), START.plus_ms(2));
    assert_eq!(names(&changes), [("cleared", "queue_length".to_owned())]);
    assert_eq!(after.book().recent[0].alert.raised_at, START);
    assert_eq!(after.book().recent[0].cleared_at, START.plus_ms(2));
}

#[test]
fn a_rule_that_is_switched_off_and_a_budget_that_is_gone_are_over() {
    let mut both = rules(&[
        ("queue_length", between("1", 0.0, 0)),
        ("budget", between("0.8", 0.875, 0)),
    ]);
    let budgets = [budget("day", 900), budget("month", 799)];
    let inputs = Inputs {
        budgets: &budgets,
        ..length(1)
    };
    let mut alerts = Alerts::default();
    let changes = alerts.step(&both, &inputs, START);
    let raised = ["budget day", "queue_length"].map(|key| ("raised", key.to_owned()));
    assert_eq!(names(&changes), raised);
    let changes = alerts.step(&both, &length(1), START);
    assert_eq!(names(&changes), [("cleared", "budget day".to_owned())]);
    both.rule_mut("queue_length").enabled = false;
    let changes = alerts.step(&both, &length(1), START);
    assert_eq!(names(&changes), [("cleared", "queue_length".to_owned())]);
}

/// A budget of 1,000 tokens of which so many are spent.
fn budget(name: &str, spent: u64) -> BudgetStatus {
    BudgetStatus {
        account: BudgetKey {
            key: None,
            budget: name.into(),
            user: None,
            model: None,
        },
        limit: Amount::Tokens(1_000),
        period: Period::Day,
        over: OverBudget::Wait,
        spent: Amount::Tokens(spent),
        reserved: Amount::Tokens(50),
        in_doubt: Amount::Tokens(0),
        left: Amount::Tokens(1_000 - spent),
        warned: false,
        short: false,
        until: START,
    }
}

#[test]
fn a_budget_that_warns_by_its_own_measure_counts_as_too_much() {
    let rules = rules(&[("budget", between("0.8", 0.5, 0))]);
    let level = |budget: BudgetStatus| {
        let inputs = Inputs {
            budgets: &[budget],
            ..QUIET
        };
        let mut alerts = Alerts::default();
        alerts.step(&rules, &inputs, START);
        alerts.book().active.first().map(|alert| alert.level)
    };
    let with = |warned, short| BudgetStatus {
        warned,
        short,
        ..budget("day", 10)
    };
    assert_eq!(level(with(false, false)), None);
    assert_eq!(level(with(true, false)), Some(800_000_000));
    assert_eq!(level(with(true, true)), Some(WHOLE));
}

#[test]
fn two_rules_on_one_thing_are_two_alerts() {
    let mut soon = between("10", 0.5, 0);
    soon.on = Some(Watched::QueueLength);
    let of_one = AlertRule {
        on: Some(Watched::Budget),
        budget: Some("month".to_owned()),
        ..between("0.1", 0.5, 0)
    };
    let rules = rules(&[
        ("queue_length", between("100", 0.5, 0)),
        ("soon", soon),
        ("of_one", of_one),
    ]);
    let budgets = [budget("day", 900), budget("month", 900)];
    let mut alerts = Alerts::default();
    let mut step = |ready| {
        let inputs = Inputs {
            budgets: &budgets,
            ..length(ready)
        };
        names(&alerts.step(&rules, &inputs, START))
    };
    let raised = |key: &str| ("raised", key.to_owned());
    assert_eq!(step(10), [raised("of_one month"), raised("soon")]);
    assert_eq!(step(100), [raised("queue_length")]);
    assert_eq!(
        alerts.book().active(&AlertKey::of("soon")).unwrap().message,
        "soon (queue_length) is 10 jobs, 10 or more is too much"
    );
}

#[test]
fn a_rule_that_watches_something_else_from_now_on_is_over_first() {
    let mut mine = rules(&[("mine", between("1", 0.5, 0))]);
    let mut alerts = Alerts::default();
    let mut step = |on, rules: &mut AlertRules| {
        rules.rule_mut("mine").on = Some(on);
        names(&alerts.step(rules, &length(5), START))
    };
    let [raised, cleared] = ["raised", "cleared"].map(|what| (what, "mine".to_owned()));
    assert_eq!(step(Watched::QueueLength, &mut mine), [raised]);
    assert_eq!(step(Watched::QueueAge, &mut mine), [cleared]);
}

#[test]
fn every_rule_reads_its_own_figure() {
    let of_calls = |rule| AlertRule {
        window_ms: Some(MINUTE),
        min_calls: Some(2),
        ..rule
    };
    let always = |raise| between(raise, 0.9, 0);
    let spend = |raise, currency| AlertRule {
        on: Some(Watched::Spend),
        currency: Some(currency),
        ..always(raise)
    };
    let holds = AlertRule {
        kinds: Some(vec![HoldKind::Operator, HoldKind::Quota]),
        for_ms: 0,
        ..AlertRule::default()
    };
    let settings = rules(&[
        ("error_rate", of_calls(always("0.5"))),
        (
            "response_time",
            AlertRule {
                measure: Some(Measure::P95),
                ..of_calls(always("100"))
            },
        ),
        ("queue_age", always("5000")),
        ("spend", always("0.000000006")),
        ("spend_usd", spend("0.000000007", Currency::Usd)),
        ("spend_cny", spend("0.000000008", Currency::Cny)),
        (
            "breaker",
            AlertRule {
                for_ms: 0,
                ..AlertRule::default()
            },
        ),
        ("hold", holds),
    ]);
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
    let raised: Vec<String> = names(&alerts.step(&settings, &inputs, START))
        .into_iter()
        .map(|(_, key)| key)
        .collect();
    let all = [
        "breaker",
        "error_rate",
        "hold operator of model a",
        "queue_age",
        "response_time",
        "spend CNY",
        "spend USD",
        "spend_usd USD",
    ];
    assert_eq!(raised, all);
}

#[test]
fn an_unreachable_glm_is_told_by_the_shipped_rule_however_quiet_the_queue() {
    let rules = AlertRules::default();
    let route = RouteCondition {
        since: START,
        failures: 1,
        failed_at: START,
        reason: "unreachable: refused".to_owned(),
    };
    let away = Inputs {
        ready: 1,
        route: Some(&route),
        ..QUIET
    };
    let mut alerts = Alerts::default();
    let at = |ms| START.plus_ms(ms);
    assert_eq!(alerts.step(&rules, &away, at(0)), []);
    let raised = alerts.step(&rules, &away, at(10_000));
    let [AlertChange::Raised(alert)] = raised.as_slice() else {
        panic!("{raised:?}")
    };
    assert_eq!(alert.key.to_string(), "unreachable");
    assert!(alert.message.contains("refused"), "{}", alert.message);
    assert_eq!(alerts.step(&rules, &QUIET, at(15_000)), []);
    let cleared = alerts.step(&rules, &QUIET, at(25_000));
    assert!(matches!(cleared.as_slice(), [AlertChange::Cleared(_)]));
}

/// A rule on the error rate of three calls or more in a minute, raised at a half.
fn on_errors() -> AlertRules {
    let rule = AlertRule {
        window_ms: Some(MINUTE),
        min_calls: Some(3),
        ..between("0.5", 0.2, 0)
    };
    rules(&[("error_rate", rule)])
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
fn answers_of_other_calls_count_as_long_as_the_window_says() {
    let rule = AlertRule {
        on: Some(Watched::ForeignAnswer),
        window_ms: Some(MINUTE),
        ..between("2", 0.6, 0)
    };
    let settings = rules(&[("mixed_up", rule)]);
    let foreign = Failure::new(FailureClass::ForeignAnswer, "x", "y");
    let mut calls = calls(CallOutcome::Failed, &[1; 2]);
    for call in &mut calls {
        call.failure = Some(foreign.clone());
    }
    let mut alerts = Alerts::default();
    let mut look = |ms| {
        let calls = &calls;
        let changes = alerts.step(&settings, &Inputs { calls, ..QUIET }, START.plus_ms(ms));
        names(&changes).pop().map(|(what, _)| what)
    };
    assert_eq!(look(0), Some("raised"));
    assert_eq!(look(MINUTE), None);
    assert_eq!(look(MINUTE + 1), Some("cleared"));
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
    let rule = AlertRule {
        kinds: Some(vec![HoldKind::Operator]),
        for_ms: MINUTE,
        ..AlertRule::default()
    };
    let settings = rules(&[("hold", rule)]);
    let mut alerts = Alerts::default();
    let [a, b] = ["a", "b"].map(|model| hold(HoldKind::Operator, model));
    let both = [a.clone(), b];
    let mut step = |holds: &[ScopedHold], ms| {
        let inputs = Inputs { holds, ..QUIET };
        alerts.step(&settings, &inputs, START.plus_ms(ms))
    };
    assert_eq!(step(&both[..1], 0), []);
    let raised = step(&both, MINUTE);
    assert_eq!(
        names(&raised),
        [("raised", "hold operator of model a".to_owned())]
    );
    let AlertChange::Raised(alert) = &raised[0] else {
        panic!("raised")
    };
    assert_eq!(alert.hold, Some(a));
    assert_eq!(alert.message, "model a is held (operator): 1113 no balance");
    assert_eq!(names(&step(&both, 2 * MINUTE)).len(), 1, "the other");
    assert_eq!(step(&both[..1], 3 * MINUTE), [], "not at once");
    let over = step(&both[..1], 4 * MINUTE);
    assert_eq!(
        names(&over),
        [("cleared", "hold operator of model b".to_owned())]
    );
}

#[test]
fn what_became_of_alerts_between_two_books_is_told_once() {
    let mut before = AlertBook::default();
    before.raise(sample::alert(AlertKey::of("queue_age")));
    before.raise(sample::alert(AlertKey::of("breaker")));
    let mut now = before.clone();
    now.clear(&AlertKey::of("breaker"), START.plus_ms(5));
    now.raise(sample::alert(AlertKey::of("error_rate")));
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
    anew.clear(&AlertKey::of("queue_age"), START.plus_ms(5));
    anew.raise(Alert {
        raised_at: START.plus_ms(6),
        ..sample::alert(AlertKey::of("queue_age"))
    });
    assert_eq!(told(&before, &anew).len(), 2);
}

#[test]
fn the_95th_percentile_is_the_nearest_rank() {
    let check = |times: &[u64], p95: u64, mean: u64| {
        let calls = calls(CallOutcome::Completed, times);
        let read = |measure| {
            let rule = AlertRule {
                measure: Some(measure),
                window_ms: Some(MINUTE),
                ..AlertRule::default()
            };
            response_time(&calls, &rule, START).unwrap()
        };
        let told = (read(Measure::P95), read(Measure::Mean));
        assert_eq!(told, (count(p95), count(mean)));
    };
    check(&[7], 7, 7);
    check(&[1, 2], 2, 1);
    let hundred: Vec<u64> = (1..=100).rev().collect();
    check(&hundred, 95, 50);
}

#[test]
fn a_level_is_told_exactly_in_its_unit() {
    let inputs = Inputs {
        spent_last_hour: &BTreeMap::from([(Currency::Usd, 1_000_000_001)]),
        oldest_due: Some(Timestamp::from_millis(i64::MIN)),
        ..QUIET
    };
    let settings = rules(&[
        ("queue_age", between("1", 0.0, 0)),
        ("spend", between("1", 0.5, 0)),
    ]);
    let mut alerts = Alerts::default();
    alerts.step(&settings, &inputs, START);
    let told: Vec<&str> = alerts
        .book()
        .active
        .iter()
        .map(|alert| &*alert.message)
        .collect();
    assert_eq!(
        told,
        [
            "queue_age is 9223372036 ms, 1 or more is too much",
            "spend USD is 1.000000001 USD/h, 1 or more is too much",
        ]
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
        let (raise, clear) = (count(7), count(3));
        let settings = on_length("7", 3.0 / 7.0, for_ms);
        let mut alerts = Alerts::default();
        let mut now = START;
        let (mut high, mut low) = (None, None);
        let mut active = false;
        for (wait, ready) in walk {
            now = now.plus_ms(wait);
            let level = count(ready);
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

#[test]
fn an_account_whose_money_runs_out_is_told_of_before_and_a_window_that_is_nearly_used_up() {
    use crate::model::{QuotaKind, QuotaSpan};
    let built_in = AlertRules::default();
    let left = |nanos, a_day| BalanceLeft {
        available: Cost {
            nanos: nanos * WHOLE,
            currency: Currency::Cny,
        },
        a_day: a_day * WHOLE,
        low: Some(WHOLE),
    };
    let mut alerts = Alerts::default();
    let mut at = START;
    let mut look = |balance: Option<BalanceLeft>, quota: &[QuotaWindow]| {
        at = at.plus_ms(MINUTE);
        let inputs = Inputs {
            balance,
            quota,
            ..QUIET
        };
        let changes = alerts.step(&built_in, &inputs, at);
        let told = changes.into_iter().map(|change| match change {
            AlertChange::Raised(alert) => alert.message,
            AlertChange::Cleared(past) => format!("over: {}", past.alert.key),
        });
        told.collect::<Vec<String>>()
    };
    let nothing: [String; 0] = [];
    // Not told of the account: nothing is known, nothing is bad.
    assert_eq!(look(None, &[]), nothing);
    // Ten days are left, then less than two.
    assert_eq!(look(Some(left(100, 10)), &[]), nothing);
    let told = look(Some(left(18, 10)), &[]);
    assert_eq!(
        told,
        [
            "18 CNY are left of the account's balance, for about 43 h at the pace of the last day; \
          top up the account before calls are refused"
        ]
    );
    assert_eq!(look(Some(left(500, 10)), &[]), ["over: balance"]);
    // Nobody calls, and little is left.
    let told = look(Some(left(1, 0)), &[]);
    assert!(told[0].starts_with("1 CNY are left"), "{told:?}");
    look(Some(left(500, 0)), &[]);
    let window = |used_e4| QuotaWindow {
        kind: QuotaKind::Tokens,
        span: Some(QuotaSpan::Hours),
        length: 5,
        used_e4: Some(used_e4),
        used: None,
        cap: None,
        resets_at: Some(START),
    };
    let tools = QuotaWindow {
        kind: QuotaKind::Tools,
        ..window(10_000)
    };
    assert_eq!(look(None, &[window(8_999), tools]), nothing);
    let told = look(None, &[window(9_312)]);
    let words = "93 % of a window of the account's quota are used (5 h tokens); it opens anew at";
    assert!(told[0].starts_with(words), "{told:?}");
    assert_eq!(look(None, &[window(100)]), ["over: quota 5 h tokens"]);
}
