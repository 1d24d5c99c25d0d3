//! The lane and its figures as clients see them.

use std::collections::BTreeMap;

use onelane_actors::ports::StatusCounts;
use onelane_actors::samples::{EstimateError, Estimates};
use onelane_core::model::{AlertBook, AlertKey, DeliveryCounts, Usage};
use schemars::JsonSchema;
use serde::Serialize;

use super::CallView;
use crate::orchestrator::{LaneStatus, Metrics};
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
    lane: LaneStatus,
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
    usage: Usage,
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
            lane: metrics.lane.clone(),
            active_alerts: Vec::new(),
            alerts: AlertCounts::default(),
            deliveries: metrics.deliveries,
            since_start: SinceStart {
                calls: metrics.calls,
                usage: metrics.usage,
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

#[cfg(test)]
mod tests {
    use onelane_core::model::{Hold, HoldKind, HoldScope, LearntLimit, Pause};
    use serde_json::json;

    use crate::orchestrator::{LaneDetail, ModelDetail};

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
            wait_reason: None,
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
            let view = serde_json::to_value(MetricsView::new(&metrics, Vec::new())).unwrap();
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
