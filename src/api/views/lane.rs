//! The lane and its figures as clients see them.

use std::collections::BTreeMap;

use onelane_actors::ports::StatusCounts;
use onelane_actors::samples::{EstimateError, Estimates};
use onelane_core::model::{
    AlertBook, AlertKey, BreakerSnapshot, BreakerState, DeliveryCounts, Hold, HoldKind, HoldScope,
    LearntLimit, Pause, Timestamp,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::call::UsageView;
use super::{CallView, rfc3339, rfc3339_option};
use crate::orchestrator::{LaneDetail, LaneStatus, Metrics, ModelDetail};
use crate::statistics::CostView;
use crate::webhooks::AlertView;

/// The answer of `GET /api/admin/glm/metrics`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Metrics")]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct MetricsView {
    current_concurrency: u32,
    max_concurrency: u16,
    /// Jobs that wait: for their turn, for a retry, or for their time.
    queue_length: u64,
    recent_calls: Vec<CallView>,
    /// Of the latest calls, 0 to 1.
    error_rate: f64,
    /// Of the latest calls that were answered, in milliseconds.
    average_response_time: f64,
    /// How many of the latest calls were throttled.
    throttles: u64,
    /// Attempts that may have been billed, where nobody has found out yet.
    maybe_billed: u64,
    jobs: StatusCounts,
    lane: LaneView,
    active_alerts: Vec<AlertView>,
    alerts: AlertCounts,
    deliveries: DeliveryCounts,
    since_start: SinceStart,
}

/// How many alerts are active, by their rules.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct AlertCounts {
    active: BTreeMap<&'static str, u64>,
}

/// Totals since this process started: hints, the truth is in the statistics.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct SinceStart {
    calls: u64,
    usage: UsageView,
    costs: Vec<CostView>,
    /// Calls that were billed at a cost that is not known.
    unpriced_calls: u64,
    prompt_estimates: PromptEstimates,
}

/// How far estimates of prompts, as `POST estimate` makes them, are from what GLM counted.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct PromptEstimates {
    #[serde(flatten)]
    total: ErrorView,
    /// Calls whose prompts were not counted again: the lane goes on without waiting for that.
    skipped_calls: u64,
    models: BTreeMap<String, ErrorView>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "EstimateError")]
#[serde(rename_all = "camelCase")]
struct ErrorView {
    /// The calls with both figures.
    calls: u64,
    estimated_tokens: u64,
    counted_tokens: u64,
    /// The mean of |estimated - counted| / counted; `null` without calls.
    mean_relative_error: Option<f64>,
}

impl ErrorView {
    fn new(error: &EstimateError) -> Self {
        Self {
            calls: error.calls,
            estimated_tokens: error.estimated_tokens,
            counted_tokens: error.counted_tokens,
            mean_relative_error: error.mean(),
        }
    }
}

impl PromptEstimates {
    fn new(estimates: &Estimates) -> Self {
        let models = estimates.models.iter();
        Self {
            total: ErrorView::new(&estimates.total()),
            skipped_calls: estimates.skipped_calls,
            models: models
                .map(|(model, error)| (model.clone(), ErrorView::new(error)))
                .collect(),
        }
    }
}

impl MetricsView {
    /// The view of the lane's figures, with the latest calls as they are to be shown.
    pub(in crate::api) fn new(metrics: &Metrics, recent_calls: Vec<CallView>) -> Self {
        Self {
            current_concurrency: metrics.lane.in_flight,
            max_concurrency: metrics.lane.max_concurrency,
            queue_length: metrics.counts.pending,
            recent_calls,
            error_rate: metrics.error_rate,
            average_response_time: metrics.average_response_time_ms,
            throttles: metrics.throttles,
            maybe_billed: metrics.maybe_billed,
            jobs: metrics.counts,
            lane: LaneView::new(&metrics.lane),
            active_alerts: Vec::new(),
            alerts: AlertCounts::default(),
            deliveries: metrics.deliveries,
            since_start: SinceStart {
                calls: metrics.calls,
                usage: UsageView::new(&metrics.usage),
                costs: metrics
                    .cost
                    .iter()
                    .map(|cost| CostView::new(*cost))
                    .collect(),
                unpriced_calls: metrics.unpriced_calls,
                prompt_estimates: PromptEstimates::new(&metrics.estimates),
            },
        }
    }

    /// With what is bad at the moment.
    pub(in crate::api) fn with_alerts(mut self, book: &AlertBook) -> Self {
        self.active_alerts = book.active.iter().map(AlertView::active).collect();
        for rule in AlertKey::RULES {
            let active = book.active.iter().filter(|alert| alert.key.rule() == rule);
            self.alerts.active.insert(rule, active.count() as u64);
        }
        self
    }
}

/// The lane: whether it runs, and if not, why and until when.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "LaneStatus")]
#[serde(rename_all = "camelCase")]
struct LaneView {
    is_active: bool,
    paused: Option<PauseView>,
    /// The intake is closed.
    draining: Option<PauseView>,
    /// The intake is closed, and nothing waits or runs any more.
    drained: bool,
    /// The first of `holds`.
    hold: Option<HoldView>,
    holds: Vec<ScopedHoldView>,
    breaker: BreakerView,
    in_flight: u32,
    max_concurrency: u16,
    ready: u64,
    waiting: u64,
    /// Jobs that wait for other jobs or for somebody's word.
    dormant: u64,
    /// Of those the ones that wait for room in a budget, and why one of them does.
    over_budget: u64,
    shortage: Option<String>,
    lanes: Vec<LaneDetailView>,
    models: Vec<ModelDetailView>,
    generation: u64,
}

impl LaneView {
    fn new(lane: &LaneStatus) -> Self {
        Self {
            is_active: lane.active,
            paused: lane.paused.as_ref().map(PauseView::new),
            draining: lane.draining.as_ref().map(PauseView::new),
            drained: lane.drained,
            hold: lane.hold.as_ref().map(HoldView::new),
            holds: ScopedHoldView::all(&lane.holds),
            breaker: BreakerView::new(&lane.breaker),
            in_flight: lane.in_flight,
            max_concurrency: lane.max_concurrency,
            ready: lane.ready,
            waiting: lane.waiting,
            dormant: lane.dormant,
            over_budget: lane.over_budget,
            shortage: lane.shortage.clone(),
            lanes: lane.lanes.iter().map(LaneDetailView::new).collect(),
            models: lane.models.iter().map(ModelDetailView::new).collect(),
            generation: lane.generation,
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Pause")]
struct PauseView {
    #[serde(serialize_with = "rfc3339")]
    since: Timestamp,
    reason: Option<String>,
}

impl PauseView {
    fn new(pause: &Pause) -> Self {
        Self {
            since: pause.since,
            reason: pause.reason.clone(),
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Hold")]
struct HoldView {
    kind: HoldKind,
    code: String,
    message: String,
    #[serde(serialize_with = "rfc3339")]
    since: Timestamp,
    #[serde(serialize_with = "rfc3339_option")]
    until: Option<Timestamp>,
}

impl HoldView {
    fn new(hold: &Hold) -> Self {
        Self {
            kind: hold.kind,
            code: hold.code.clone(),
            message: hold.message.clone(),
            since: hold.since,
            until: hold.until,
        }
    }
}

/// A hold with what it stops.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ScopedHold")]
pub(in crate::api) struct ScopedHoldView {
    /// `account`, `lane` or `model`.
    scope: &'static str,
    /// Which lane or model.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(flatten)]
    hold: HoldView,
}

impl ScopedHoldView {
    fn new((scope, hold): &(HoldScope, Hold)) -> Self {
        let (scope, name) = match scope {
            HoldScope::Account => ("account", None),
            HoldScope::Lane(name) => ("lane", Some(name.clone())),
            HoldScope::Model(name) => ("model", Some(name.clone())),
        };
        Self {
            scope,
            name,
            hold: HoldView::new(hold),
        }
    }

    /// All of them.
    pub(in crate::api) fn all(holds: &[(HoldScope, Hold)]) -> Vec<Self> {
        holds.iter().map(Self::new).collect()
    }
}

/// One lane among several.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "LaneDetail")]
#[serde(rename_all = "camelCase")]
struct LaneDetailView {
    name: String,
    in_flight: u64,
    staged: u64,
    limit: u16,
    max_concurrency: u16,
    #[serde(serialize_with = "rfc3339_option")]
    not_before: Option<Timestamp>,
    hold: Option<HoldView>,
    throttle_level: u32,
    /// `null` without automatic concurrency.
    learnt: Option<LearntView>,
}

impl LaneDetailView {
    fn new(lane: &LaneDetail) -> Self {
        Self {
            name: lane.name.clone(),
            in_flight: lane.in_flight,
            staged: lane.staged,
            limit: lane.limit,
            max_concurrency: lane.max_concurrency,
            not_before: lane.not_before,
            hold: lane.hold.as_ref().map(HoldView::new),
            throttle_level: lane.throttle_level,
            learnt: lane.learnt.as_ref().map(LearntView::new),
        }
    }
}

/// What automatic concurrency has learnt.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "LearntLimit")]
#[serde(rename_all = "camelCase")]
struct LearntView {
    limit: u16,
    ceiling: u16,
    failed_trials: u32,
    #[serde(serialize_with = "rfc3339")]
    next_trial_at: Timestamp,
}

impl LearntView {
    const fn new(learnt: &LearntLimit) -> Self {
        Self {
            limit: learnt.limit,
            ceiling: learnt.ceiling,
            failed_trials: learnt.failed_trials,
            next_trial_at: learnt.next_trial_at,
        }
    }
}

/// A model with its short breaker.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ModelDetail")]
#[serde(rename_all = "camelCase")]
struct ModelDetailView {
    model: String,
    hold: Option<HoldView>,
    overloads: u32,
}

impl ModelDetailView {
    fn new(model: &ModelDetail) -> Self {
        Self {
            model: model.model.clone(),
            hold: model.hold.as_ref().map(HoldView::new),
            overloads: model.overloads,
        }
    }
}

/// The breaker.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Breaker")]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct BreakerView {
    state: BreakerState,
    #[serde(serialize_with = "rfc3339")]
    since: Timestamp,
    #[serde(serialize_with = "rfc3339_option")]
    probe_at: Option<Timestamp>,
    consecutive_failures: u32,
    openings: u32,
    reason: Option<String>,
    /// An operator opened it.
    forced: bool,
    /// Calls that the failure rate is told of, while it is closed.
    window_calls: u32,
    window_failures: u32,
}

impl BreakerView {
    pub(in crate::api) fn new(breaker: &BreakerSnapshot) -> Self {
        Self {
            state: breaker.state,
            since: breaker.since,
            probe_at: breaker.probe_at,
            consecutive_failures: breaker.consecutive_failures,
            openings: breaker.openings,
            reason: breaker.reason.clone(),
            forced: breaker.forced,
            window_calls: breaker.window_calls,
            window_failures: breaker.window_failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::tests::sample;

    #[test]
    fn every_lane_and_every_troubled_model_is_visible() {
        let mut metrics = sample::metrics();
        let hold = Hold {
            kind: HoldKind::Overload,
            code: "1305".to_owned(),
            message: "busy".to_owned(),
            since: sample::NOW,
            until: Some(sample::NOW.plus_ms(5_000)),
        };
        metrics.lane.lanes = vec![LaneDetail {
            name: "default".to_owned(),
            in_flight: 2,
            staged: 1,
            limit: 3,
            max_concurrency: 4,
            not_before: Some(sample::NOW.plus_ms(1_000)),
            hold: None,
            throttle_level: 5,
            learnt: Some(LearntLimit {
                limit: 3,
                ceiling: 4,
                failed_trials: 1,
                next_trial_at: sample::NOW.plus_ms(60_000),
                trial_successes: 0,
                decreased_at: None,
            }),
        }];
        metrics.lane.models = vec![ModelDetail {
            model: "glm-5".to_owned(),
            hold: Some(hold.clone()),
            overloads: 2,
        }];
        metrics.lane.holds = vec![(HoldScope::Model("glm-5".to_owned()), hold)];
        metrics.lane.dormant = 6;
        metrics.lane.drained = true;
        let view = serde_json::to_value(MetricsView::new(&metrics, Vec::new())).unwrap();
        let lane = &view["lane"];
        assert_eq!(
            (&lane["dormant"], &lane["drained"]),
            (&json!(6), &json!(true))
        );
        assert_eq!(
            lane["lanes"],
            json!([{"name": "default", "inFlight": 2, "staged": 1, "limit": 3,
                "maxConcurrency": 4, "notBefore": "2026-11-23T08:00:01.000Z", "hold": null,
                "throttleLevel": 5, "learnt": {"limit": 3, "ceiling": 4, "failedTrials": 1,
                "nextTrialAt": "2026-11-23T08:01:00.000Z"}}])
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
            until: Some(sample::NOW.plus_ms(2_000)),
        });
        metrics.counts.pending = 7;
        let view = serde_json::to_value(MetricsView::new(&metrics, Vec::new())).unwrap();
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
}
