use serde_json::{Value, json};

use super::*;
use crate::model::Wait;
use crate::testing::waits;

const AT: Timestamp = Timestamp::from_millis(0);

fn budget(needed: u64) -> WaitReason {
    waits::short_budget(needed).into()
}

fn hold(scope: HoldScope, kind: HoldKind, until: Option<Timestamp>) -> WaitReason {
    let hold = Hold {
        kind,
        code: "1113".to_owned(),
        message: "余额不足".to_owned(),
        since: AT,
        until: until.map(|until| Wait::from(until, 0)),
    };
    WaitReason::hold(&scope, &hold)
}

#[test]
fn every_reason_has_its_name_a_sentence_and_a_form_on_the_wire() {
    let names: Vec<&str> = waits::wait_reasons().iter().map(WaitReason::name).collect();
    assert_eq!(names, WaitReason::NAMES);
    for reason in waits::wait_reasons() {
        let (name, text) = (reason.name(), reason.to_string());
        assert!(text.is_ascii() || name == "hold", "{text}");
        assert!(!text.is_empty() && !text.ends_with('.'), "{text}");
        let wire = serde_json::to_value(ToldWait::from(reason.clone())).unwrap();
        assert_eq!(wire["name"], name);
        assert_eq!(wire["text"], text.as_str());
        let has_help = wire.get("help").is_some();
        assert_eq!(has_help, reason.help().is_some(), "{name}");
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
    let told = |scope, kind, until| hold(scope, kind, until).to_string();
    let account = hold(HoldScope::Account, HoldKind::Operator, None);
    let stands = "GLM takes nothing until an operator acts: 1113: ";
    assert_eq!(account.to_string(), format!("{stands}余额不足"));
    let known = account.explained(|code| (code == "1113").then(|| "balance used up".to_owned()));
    let words = format!("{stands}balance used up (GLM: 余额不足)");
    assert_eq!(known.to_string(), words);
    let wire = json!({"name": "hold", "scope": "account", "kind": "operator", "code": "1113",
        "meaning": "balance used up", "message": "余额不足", "until": null});
    assert_eq!(serde_json::to_value(known).unwrap(), wire);
    let end = "until 1970-01-01T00:00:00.000Z: 1113: 余额不足";
    let quota = told(HoldScope::Account, HoldKind::Quota, Some(AT));
    assert_eq!(quota, format!("quota is used up {end}"));
    let model = HoldScope::Model("glm-5".to_owned());
    let busy = told(model, HoldKind::Overload, Some(AT));
    assert_eq!(busy, format!("model glm-5: cooling down {end}"));
    // A probe may end it, but an operator has not seen to it.
    let lane = HoldScope::Lane("air".to_owned());
    let lane = told(lane, HoldKind::Operator, Some(AT));
    assert_eq!(
        lane,
        "lane air is held until an operator acts: 1113: 余额不足"
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
    let all = waits::wait_reasons().into_iter();
    let lasting = all.filter(WaitReason::waits_for_operator);
    let names: Vec<&str> = lasting.map(|reason| reason.name()).collect();
    let lasting = "hold breaker paused inactive parked offline";
    assert_eq!(names.join(" "), lasting);
}

#[test]
fn the_figures_of_a_budget_are_exact() {
    let text = serde_json::to_string(&budget(40_000_000_000)).unwrap();
    assert!(
        text.contains(r#""spent":{"cost":60.5,"currency":"CNY"}"#),
        "{text}"
    );
    let wire: Value = serde_json::from_str(&text).unwrap();
    let cny = |cost: f64| match cost.fract() == 0.0 {
        true => json!({"cost": cost as u64, "currency": "CNY"}),
        false => json!({"cost": cost, "currency": "CNY"}),
    };
    assert_eq!(
        wire,
        json!({"name": "budget", "budget": "day", "userId": "ada", "period": "day",
            "needed": cny(40.0), "limit": cny(100.0), "spent": cny(60.5), "reserved": cny(1.0),
            "inDoubt": cny(2.5), "left": cny(37.0), "until": "1970-01-01T00:00:00.000Z",
            "over": "wait", "warned": false, "short": true, "tooLarge": false})
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
    let words = "number 17 in the order of service, by recent response times in about 5 s";
    check(Some(17), None, Some(4_200), words);
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
