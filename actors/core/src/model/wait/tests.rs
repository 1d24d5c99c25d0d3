use serde_json::{Value, json};

use super::*;
use crate::model::{BudgetKey, Cost, Currency, Limit, OverBudget, Period};

const AT: Timestamp = Timestamp::from_millis(0);

fn budget(needed: u64) -> WaitReason {
    let yuan = |nanos| Cost {
        nanos,
        currency: Currency::Cny,
    };
    let status = BudgetStatus {
        account: BudgetKey {
            budget: "day".into(),
            user: Some("ada".into()),
            model: None,
        },
        limit: Limit::Money(yuan(100_000_000_000)),
        period: Period::Day,
        over: OverBudget::Wait,
        spent: 60_500_000_000,
        reserved: 1_000_000_000,
        in_doubt: 2_500_000_000,
        warned: false,
        short: true,
        until: AT,
    };
    BudgetWait::new(&status, needed).into()
}

fn hold(scope: HoldScope, kind: HoldKind, until: Option<Timestamp>) -> WaitReason {
    let hold = Hold {
        kind,
        code: "1113".to_owned(),
        message: "余额不足".to_owned(),
        since: AT,
        until,
    };
    WaitReason::hold(&scope, &hold)
}

/// One of each. A reason that is new does not compile until it says what follows it.
fn all() -> Vec<WaitReason> {
    let mut all = vec![WaitReason::Behind {
        position: Some(3),
        more_than: None,
        estimate_ms: Some(4_200),
    }];
    let since = AT;
    while let Some(next) = match all.last() {
        None => None,
        Some(WaitReason::Behind { .. }) => Some(WaitReason::Stage),
        Some(WaitReason::Stage) => Some(WaitReason::Delayed { until: AT }),
        Some(WaitReason::Delayed { .. }) => Some(WaitReason::Scheduled { until: AT }),
        Some(WaitReason::Scheduled { .. }) => Some(WaitReason::Pace {
            until: AT,
            lane: "air".to_owned(),
        }),
        Some(WaitReason::Pace { .. }) => Some(hold(HoldScope::Account, HoldKind::Operator, None)),
        Some(WaitReason::Hold(_)) => Some(WaitReason::Breaker {
            until: None,
            forced: true,
            reason: "incident 7".to_owned(),
        }),
        Some(WaitReason::Breaker { .. }) => Some(WaitReason::Probe),
        Some(WaitReason::Probe) => Some(budget(40_000_000_000)),
        Some(WaitReason::Budget(_)) => Some(WaitReason::Paused {
            since,
            reason: Some("lunch".to_owned()),
        }),
        Some(WaitReason::Paused { .. }) => Some(WaitReason::Inactive),
        Some(WaitReason::Inactive) => Some(WaitReason::Draining {
            since,
            reason: None,
        }),
        Some(WaitReason::Draining { .. }) => Some(WaitReason::Stopping),
        Some(WaitReason::Stopping) => Some(WaitReason::Blocked {
            by: vec![JobId::from_bytes([7; 16])],
        }),
        Some(WaitReason::Blocked { .. }) => Some(WaitReason::Parked {
            since: Some(AT),
            attempt: Some(AttemptNo(2)),
        }),
        Some(WaitReason::Parked { .. }) => Some(WaitReason::DiskBehind),
        Some(WaitReason::DiskBehind) => Some(WaitReason::DiskFull),
        Some(WaitReason::DiskFull) => Some(WaitReason::Reading),
        Some(WaitReason::Reading) => Some(WaitReason::Offline),
        Some(WaitReason::Offline) => None,
    } {
        all.push(next);
    }
    all
}

#[test]
fn every_reason_has_its_name_a_sentence_and_a_form_on_the_wire() {
    let names: Vec<&str> = all().iter().map(WaitReason::name).collect();
    assert_eq!(names, WaitReason::NAMES);
    for reason in all() {
        let (name, text) = (reason.name(), reason.to_string());
        assert!(text.is_ascii() || name == "hold", "{text}");
        assert!(!text.is_empty() && !text.ends_with('.'), "{text}");
        let wire = serde_json::to_value(ToldWait::from(reason.clone())).unwrap();
        assert_eq!(wire["name"], name);
        assert_eq!(wire["text"], text.as_str());
        assert_eq!(
            wire.get("help").is_some(),
            reason.help().is_some(),
            "{name}"
        );
        // What does not pass says what to do.
        assert!(reason.ends_by_itself() || reason.help().is_some(), "{name}");
        assert_ne!(reason.ends_by_itself(), reason.waits_for_operator());
        for (field, value) in wire.as_object().unwrap() {
            assert!(!field.contains('_'), "{name}: {field}");
            assert!(!value.is_f64(), "{name}: {field}");
        }
    }
}

#[test]
fn a_hold_says_what_the_code_means_and_what_glm_said() {
    let check = |reason: WaitReason, want: &str| assert_eq!(reason.to_string(), want);
    let account = hold(HoldScope::Account, HoldKind::Operator, None);
    check(
        account.clone(),
        "GLM takes nothing until an operator acts: 1113: 余额不足",
    );
    let told = account.explained(|code| (code == "1113").then(|| "balance used up".to_owned()));
    check(
        told.clone(),
        "GLM takes nothing until an operator acts: 1113: balance used up (GLM: 余额不足)",
    );
    let wire = serde_json::to_value(told).unwrap();
    assert_eq!(
        wire,
        json!({"name": "hold", "scope": "account", "kind": "operator", "code": "1113",
            "meaning": "balance used up", "message": "余额不足", "until": null})
    );
    check(
        hold(HoldScope::Account, HoldKind::Quota, Some(AT)),
        "quota is used up until 1970-01-01T00:00:00.000Z: 1113: 余额不足",
    );
    check(
        hold(
            HoldScope::Model("glm-5".to_owned()),
            HoldKind::Overload,
            Some(AT),
        ),
        "model glm-5: cooling down until 1970-01-01T00:00:00.000Z: 1113: 余额不足",
    );
    // A probe may end it, but an operator has not seen to it.
    check(
        hold(
            HoldScope::Lane("air".to_owned()),
            HoldKind::Operator,
            Some(AT),
        ),
        "lane air is held until an operator acts: 1113: 余额不足",
    );
}

#[test]
fn what_has_an_end_passes_and_the_rest_needs_an_operator() {
    let passes = |reason: &WaitReason| reason.ends_by_itself();
    let account = |kind, until| hold(HoldScope::Account, kind, until);
    assert!(passes(&account(HoldKind::Throttle, Some(AT))));
    assert!(passes(&account(HoldKind::Quota, Some(AT))));
    assert!(!passes(&account(HoldKind::Quota, None)));
    assert!(!passes(&account(HoldKind::Overload, None)));
    assert!(!passes(&account(HoldKind::Operator, None)));
    assert!(!passes(&account(HoldKind::Operator, Some(AT))));
    let breaker = |forced, until| WaitReason::Breaker {
        until,
        forced,
        reason: String::new(),
    };
    assert!(passes(&breaker(false, None)));
    assert!(passes(&breaker(true, Some(AT))));
    assert!(!passes(&breaker(true, None)));
    assert!(passes(&budget(40_000_000_000)));
    assert!(!passes(&budget(100_000_000_001)), "it would never fit");
    let lasting = all().into_iter().filter(WaitReason::waits_for_operator);
    let names: Vec<&str> = lasting.map(|reason| reason.name()).collect();
    assert_eq!(
        names,
        [
            "hold", "breaker", "paused", "inactive", "parked", "diskFull", "offline"
        ]
    );
}

#[test]
fn the_figures_of_a_budget_are_exact() {
    let wire: Value = serde_json::to_value(budget(40_000_000_000)).unwrap();
    assert_eq!(
        wire,
        json!({"name": "budget", "budget": "day", "user": "ada", "period": "day",
            "needed": "40 CNY", "limit": "100 CNY", "spent": "60.5 CNY", "reserved": "1 CNY",
            "inDoubt": "2.5 CNY", "left": "37 CNY", "until": "1970-01-01T00:00:00.000Z",
            "tooLarge": false})
    );
    assert_eq!(
        budget(40_000_000_000).to_string(),
        "it may come to 40 CNY, and of budget day 37 CNY are left until 1970-01-01T00:00:00.000Z"
    );
}

#[test]
fn a_place_is_told_with_its_estimate_or_as_what_is_known() {
    let check = |position, more_than, estimate_ms, want: &str| {
        let reason = WaitReason::Behind {
            position,
            more_than,
            estimate_ms,
        };
        assert_eq!(reason.to_string(), want);
    };
    check(Some(1), None, None, "the next job to go");
    check(
        Some(17),
        None,
        Some(4_200),
        "number 17 in the order of service, by recent response times in about 5 s",
    );
    check(None, Some(1_000), None, "more than 1000 jobs go before it");
}

#[test]
fn a_row_alone_tells_of_others_and_of_a_lane_that_does_not_run() {
    let mut job = Job::new(JobId::from_bytes([1; 16]), "u", "glm-5", AT);
    let waiting = Waiting::of(&job).unwrap();
    assert_eq!(waiting.offline(), WaitReason::Offline);
    job.waits_for = vec![JobId::from_bytes([2; 16])];
    let waiting = Waiting::of(&job).unwrap();
    let by = job.waits_for.clone();
    assert_eq!(waiting.offline(), WaitReason::Blocked { by });
    job.parked = Some(Parked {
        since: AT,
        attempt: AttemptNo(2),
    });
    assert_eq!(Waiting::of(&job).unwrap().offline().name(), "parked");
    job.status = JobStatus::Completed;
    assert_eq!(Waiting::of(&job), None);
}
