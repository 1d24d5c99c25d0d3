//! The lane and its figures as clients see them.

use std::collections::BTreeMap;

use onelane_actors::samples::{EstimateError, Estimates};
use onelane_core::model::{
    AlertBook, AlertKey, BreakerSnapshot, DeliveryCounts, Hold, HoldKind, HoldScope, JobStatus,
    LearntLimit, Pause, Timestamp,
};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::call::UsageView;
use super::{CallView, CostView, rfc3339, rfc3339_option};
use crate::orchestrator::{LaneDetail, LaneStatus, Metrics, ModelDetail};
use crate::webhooks::AlertView;

/// The answer of `GET /api/admin/glm/metrics`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct MetricsView<'a> {
    current_concurrency: u32,
    max_concurrency: u16,
    /// Jobs that wait: for their turn, for a retry, or for their time.
    queue_length: u64,
    recent_calls: Vec<CallView<'a>>,
    /// Of the latest calls, 0 to 1.
    error_rate: f64,
    /// Of the latest calls that were answered, in milliseconds.
    average_response_time: f64,
    /// How many of the latest calls were throttled.
    throttles: u64,
    /// Attempts that may have been billed, where nobody has found out yet.
    maybe_billed: u64,
    jobs: Counts<'a>,
    lane: LaneView<'a>,
    active_alerts: Vec<AlertView<'a>>,
    alerts: AlertCounts,
    deliveries: DeliveryCounts,
    since_start: SinceStart<'a>,
}

/// How many alerts are active, by their rules.
#[derive(Debug, Default, Serialize)]
struct AlertCounts {
    active: BTreeMap<&'static str, u64>,
}

/// Totals since this process started: hints, the truth is in the statistics.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SinceStart<'a> {
    calls: u64,
    usage: UsageView,
    costs: Vec<CostView>,
    /// Calls that were billed at a cost that is not known.
    unpriced_calls: u64,
    prompt_estimates: PromptEstimates<'a>,
}

/// How far estimates of prompts, as `POST estimate` makes them, are from what GLM counted.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PromptEstimates<'a> {
    #[serde(flatten)]
    total: ErrorView,
    /// Calls whose prompts were not counted again: the lane goes on without waiting for that.
    skipped_calls: u64,
    models: BTreeMap<&'a str, ErrorView>,
}

#[derive(Debug, Serialize)]
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

impl<'a> PromptEstimates<'a> {
    fn new(estimates: &'a Estimates) -> Self {
        let models = estimates.models.iter();
        Self {
            total: ErrorView::new(&estimates.total()),
            skipped_calls: estimates.skipped_calls,
            models: models
                .map(|(model, error)| (model.as_str(), ErrorView::new(error)))
                .collect(),
        }
    }
}

/// Jobs by status.
#[derive(Debug)]
struct Counts<'a>(&'a Metrics);

impl Serialize for Counts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(JobStatus::ALL.len()))?;
        for status in JobStatus::ALL {
            map.serialize_entry(status.name(), &self.0.counts.of(status))?;
        }
        map.end()
    }
}

impl<'a> MetricsView<'a> {
    /// The view of the lane's figures, with the latest calls as they are to be shown.
    pub(in crate::api) fn new(metrics: &'a Metrics, recent_calls: Vec<CallView<'a>>) -> Self {
        Self {
            current_concurrency: metrics.lane.in_flight,
            max_concurrency: metrics.lane.max_concurrency,
            queue_length: metrics.counts.pending,
            recent_calls,
            error_rate: metrics.error_rate,
            average_response_time: metrics.average_response_time_ms,
            throttles: metrics.throttles,
            maybe_billed: metrics.maybe_billed,
            jobs: Counts(metrics),
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
    pub(in crate::api) fn with_alerts(mut self, book: &'a AlertBook) -> Self {
        self.active_alerts = book.active.iter().map(AlertView::active).collect();
        for rule in AlertKey::RULES {
            let active = book.active.iter().filter(|alert| alert.key.rule() == rule);
            self.alerts.active.insert(rule, active.count() as u64);
        }
        self
    }
}

/// The lane: whether it runs, and if not, why and until when.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LaneView<'a> {
    is_active: bool,
    paused: Option<PauseView<'a>>,
    /// The intake is closed.
    draining: Option<PauseView<'a>>,
    /// The intake is closed, and nothing waits or runs any more.
    drained: bool,
    /// The first of `holds`.
    hold: Option<HoldView<'a>>,
    holds: Vec<ScopedHoldView<'a>>,
    breaker: BreakerView<'a>,
    in_flight: u32,
    max_concurrency: u16,
    ready: u64,
    waiting: u64,
    /// Jobs that wait for other jobs or for somebody's word.
    dormant: u64,
    /// Of those the ones that wait for room in a budget, and why one of them does.
    over_budget: u64,
    shortage: Option<&'a str>,
    lanes: Vec<LaneDetailView<'a>>,
    models: Vec<ModelDetailView<'a>>,
    generation: u64,
}

impl<'a> LaneView<'a> {
    fn new(lane: &'a LaneStatus) -> Self {
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
            shortage: lane.shortage.as_deref(),
            lanes: lane.lanes.iter().map(LaneDetailView::new).collect(),
            models: lane.models.iter().map(ModelDetailView::new).collect(),
            generation: lane.generation,
        }
    }
}

#[derive(Debug, Serialize)]
struct PauseView<'a> {
    #[serde(serialize_with = "rfc3339")]
    since: Timestamp,
    reason: Option<&'a str>,
}

impl<'a> PauseView<'a> {
    fn new(pause: &'a Pause) -> Self {
        Self {
            since: pause.since,
            reason: pause.reason.as_deref(),
        }
    }
}

#[derive(Debug, Serialize)]
struct HoldView<'a> {
    kind: HoldKind,
    code: &'a str,
    message: &'a str,
    #[serde(serialize_with = "rfc3339")]
    since: Timestamp,
    #[serde(serialize_with = "rfc3339_option")]
    until: Option<Timestamp>,
}

impl<'a> HoldView<'a> {
    fn new(hold: &'a Hold) -> Self {
        Self {
            kind: hold.kind,
            code: &hold.code,
            message: &hold.message,
            since: hold.since,
            until: hold.until,
        }
    }
}

/// A hold with what it stops.
#[derive(Debug, Serialize)]
pub(in crate::api) struct ScopedHoldView<'a> {
    /// `account`, `lane` or `model`.
    scope: &'static str,
    /// Which lane or model.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(flatten)]
    hold: HoldView<'a>,
}

impl<'a> ScopedHoldView<'a> {
    fn new((scope, hold): &'a (HoldScope, Hold)) -> Self {
        let (scope, name) = match scope {
            HoldScope::Account => ("account", None),
            HoldScope::Lane(name) => ("lane", Some(name.as_str())),
            HoldScope::Model(name) => ("model", Some(name.as_str())),
        };
        Self {
            scope,
            name,
            hold: HoldView::new(hold),
        }
    }

    /// All of them.
    pub(in crate::api) fn all(holds: &'a [(HoldScope, Hold)]) -> Vec<Self> {
        holds.iter().map(Self::new).collect()
    }
}

/// One lane among several.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LaneDetailView<'a> {
    name: &'a str,
    in_flight: u64,
    staged: u64,
    limit: u16,
    max_concurrency: u16,
    #[serde(serialize_with = "rfc3339_option")]
    not_before: Option<Timestamp>,
    hold: Option<HoldView<'a>>,
    throttle_level: u32,
    /// `null` without automatic concurrency.
    learnt: Option<LearntView>,
}

impl<'a> LaneDetailView<'a> {
    fn new(lane: &'a LaneDetail) -> Self {
        Self {
            name: &lane.name,
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
#[derive(Debug, Serialize)]
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
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ModelDetailView<'a> {
    model: &'a str,
    hold: Option<HoldView<'a>>,
    overloads: u32,
}

impl<'a> ModelDetailView<'a> {
    fn new(model: &'a ModelDetail) -> Self {
        Self {
            model: &model.model,
            hold: model.hold.as_ref().map(HoldView::new),
            overloads: model.overloads,
        }
    }
}

/// The breaker.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct BreakerView<'a> {
    state: &'static str,
    #[serde(serialize_with = "rfc3339")]
    since: Timestamp,
    #[serde(serialize_with = "rfc3339_option")]
    probe_at: Option<Timestamp>,
    consecutive_failures: u32,
    openings: u32,
    reason: Option<&'a str>,
    /// An operator opened it.
    forced: bool,
    /// Calls that the failure rate is told of, while it is closed.
    window_calls: u32,
    window_failures: u32,
}

impl<'a> BreakerView<'a> {
    pub(in crate::api) fn new(breaker: &'a BreakerSnapshot) -> Self {
        Self {
            state: breaker.state.name(),
            since: breaker.since,
            probe_at: breaker.probe_at,
            consecutive_failures: breaker.consecutive_failures,
            openings: breaker.openings,
            reason: breaker.reason.as_deref(),
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
