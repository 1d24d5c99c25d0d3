//! The lane and its figures.

use onelane_core::model::{
    AlertRules, Hold, HoldKind, HoldScope, LaneCondition, LearntLimit, ModelCondition, Pause, Wait,
};
use serde_json::{Value, json};

use crate::api::admin::MetricsAnswer;
use crate::api::connections::Bounds;
use crate::config::ServerSection;
use crate::orchestrator::{LaneSnapshot, Metrics, ModelSnapshot};
use crate::views::tests::sample;

fn view(metrics: Metrics) -> Value {
    let answer = MetricsAnswer::new(
        metrics,
        Vec::new(),
        Vec::new(),
        &AlertRules::default(),
        Bounds::new(&ServerSection::default()).figures(0),
    );
    serde_json::to_value(answer).unwrap()
}

#[test]
fn every_lane_and_every_troubled_model_is_visible() {
    let mut metrics = sample::metrics();
    let hold = Hold {
        kind: HoldKind::Overload,
        code: "1305".to_owned(),
        message: "busy".to_owned(),
        since: sample::NOW,
        until: Some(Wait::from(sample::NOW, 5_000)),
    };
    metrics.lane.lanes = vec![LaneSnapshot {
        name: "default".to_owned(),
        in_flight: 2,
        staged: 1,
        limit: 3,
        max_concurrency: 4,
        not_before: Some(sample::NOW.plus_ms(1_000)),
        condition: LaneCondition {
            throttle_level: 5,
            learnt: Some(LearntLimit {
                limit: 3,
                ceiling: 4,
                failed_trials: 1,
                next_trial_at: Wait::from(sample::NOW, 60_000),
                trial_successes: 0,
                decreased_at: None,
            }),
            ..LaneCondition::default()
        },
        wait_reason: None,
    }];
    metrics.lane.models = vec![ModelSnapshot {
        model: "glm-5".to_owned(),
        condition: ModelCondition {
            hold: Some(hold.clone()),
            overloads: 2,
            ..ModelCondition::default()
        },
    }];
    metrics.lane.holds = vec![(HoldScope::Model("glm-5".to_owned()), &hold).into()];
    metrics.lane.dormant = 6;
    metrics.lane.drained = true;
    let view = view(metrics);
    let lane = &view["lane"];
    assert_eq!(
        (&lane["dormant"], &lane["drained"]),
        (&json!(6), &json!(true))
    );
    assert_eq!(
        lane["lanes"],
        json!([{"name": "default", "inFlight": 2, "staged": 1, "limit": 3,
            "maxConcurrency": 4, "notBefore": "2026-11-23T08:00:01.000Z",
            "throttleLevel": 5, "learnt": {"limit": 3, "ceiling": 4, "failedTrials": 1,
            "nextTrialAt": "2026-11-23T08:01:00.000Z",
            "trialSuccesses": 0, "decreasedAt": null}, "waitReason": null}])
    );
    assert_eq!(lane["models"][0]["model"], "glm-5");
    assert_eq!(lane["models"][0]["overloads"], 2);
    assert_eq!(
        lane["models"][0]["hold"]["until"],
        "2026-11-23T08:00:05.000Z"
    );
    assert_eq!(lane["holds"][0]["scope"], "model");
    assert_eq!(lane["holds"][0]["name"], "glm-5");
}

#[test]
fn the_lane_shows_why_nothing_goes_on_and_how_many_jobs_wait_for_what() {
    for reason in onelane_actors::testing::waits::wait_reasons() {
        let mut metrics = sample::metrics();
        metrics.lane.wait_reason = Some(reason.clone());
        metrics.lane.wait_counts = [(reason.name(), 7)].into();
        let view = view(metrics);
        let lane = &view["lane"];
        assert_eq!(lane["waitReason"]["name"], reason.name());
        assert_eq!(lane["waitReason"]["text"], reason.to_string());
        assert_eq!(lane["waitCounts"][reason.name()], 7);
    }
}

#[test]
fn the_reason_of_a_stop_is_visible() {
    let mut metrics = sample::metrics();
    metrics.lane.paused = Some(Pause {
        since: sample::NOW,
        reason: Some("prices".to_owned()),
    });
    metrics.lane.hold = Some(Hold {
        kind: HoldKind::Quota,
        code: "1308".to_owned(),
        message: "5 hours used".to_owned(),
        since: sample::NOW,
        until: Some(Wait::from(sample::NOW, 2_000)),
    });
    metrics.jobs.pending = 7;
    let view = view(metrics);
    assert_eq!(view["queueLength"], 7);
    assert_eq!(view["jobs"]["pending"], 7);
    assert_eq!(view["sinceStart"]["unpricedCalls"], 2);
    assert_eq!(
        view["sinceStart"]["promptEstimates"],
        json!({"calls": 2, "estimatedTokens": 90, "countedTokens": 100,
            "meanRelativeError": 0.125, "skippedCalls": 3,
            "models": {"glm-5": {"calls": 2, "estimatedTokens": 90, "countedTokens": 100,
                "meanRelativeError": 0.125}}})
    );
    assert_eq!(
        view["lane"]["paused"],
        json!({"since": "2026-11-23T08:00:00.000Z", "reason": "prices"})
    );
    assert_eq!(
        view["lane"]["hold"],
        json!({"kind": "quota", "code": "1308", "message": "5 hours used",
            "since": "2026-11-23T08:00:00.000Z", "until": "2026-11-23T08:00:02.000Z"})
    );
    assert_eq!(view["lane"]["breaker"]["state"], "closed");
}
