//! The lane and its figures as clients see them.

use onelane_actors::model::{BreakerSnapshot, Hold, HoldKind, JobStatus, Pause, Timestamp};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::call::UsageView;
use super::{CallView, CostView, rfc3339, rfc3339_option};
use crate::orchestrator::{LaneStatus, Metrics};

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
    jobs: Counts<'a>,
    lane: LaneView<'a>,
    since_start: SinceStart,
}

/// Totals since this process started: hints, the truth is in the statistics.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SinceStart {
    calls: u64,
    usage: UsageView,
    costs: Vec<CostView>,
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
            jobs: Counts(metrics),
            lane: LaneView::new(&metrics.lane),
            since_start: SinceStart {
                calls: metrics.calls,
                usage: UsageView::new(&metrics.usage),
                costs: metrics
                    .cost
                    .iter()
                    .map(|cost| CostView::new(*cost))
                    .collect(),
            },
        }
    }
}

/// The lane: whether it runs, and if not, why and until when.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LaneView<'a> {
    is_active: bool,
    paused: Option<PauseView<'a>>,
    hold: Option<HoldView<'a>>,
    breaker: BreakerView<'a>,
    in_flight: u32,
    max_concurrency: u16,
    ready: u64,
    waiting: u64,
    generation: u64,
}

impl<'a> LaneView<'a> {
    fn new(lane: &'a LaneStatus) -> Self {
        Self {
            is_active: lane.active,
            paused: lane.paused.as_ref().map(PauseView::new),
            hold: lane.hold.as_ref().map(HoldView::new),
            breaker: BreakerView::new(&lane.breaker),
            in_flight: lane.in_flight,
            max_concurrency: lane.max_concurrency,
            ready: lane.ready,
            waiting: lane.waiting,
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

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BreakerView<'a> {
    state: &'static str,
    #[serde(serialize_with = "rfc3339")]
    since: Timestamp,
    #[serde(serialize_with = "rfc3339_option")]
    probe_at: Option<Timestamp>,
    consecutive_failures: u32,
    openings: u32,
    reason: Option<&'a str>,
}

impl<'a> BreakerView<'a> {
    fn new(breaker: &'a BreakerSnapshot) -> Self {
        Self {
            state: breaker.state.name(),
            since: breaker.since,
            probe_at: breaker.probe_at,
            consecutive_failures: breaker.consecutive_failures,
            openings: breaker.openings,
            reason: breaker.reason.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::tests::sample;

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
