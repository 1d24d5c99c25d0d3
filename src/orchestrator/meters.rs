//! The lane for metrics systems: what is counted as it happens, and what is looked at when somebody asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use onelane_actors::meters::Meters;
use onelane_actors::meters::table::{self, Meter, OTHER, Values};
use onelane_actors::ports::{CallFilter, StatusCounts};
use onelane_actors::protocol::QueueMsg;
use onelane_core::model::{
    BreakerState, Currency, DeliveryCounts, HoldKind, ScopedHold, WHOLE_E4, limits,
};
use onelane_core::scheduler::SchedulerSnapshot;
use tokio::sync::watch;

use super::Orchestrator;
use crate::error::Error;
use crate::otlp;
use crate::registry::{Registry, UPKEEP_EVERY};

/// The name under which the budgets of client keys stand.
const CLIENT_KEYS: &str = "client_keys";

/// The registry of a lane, and which lanes and budgets it has told of, by their metrics.
#[derive(Debug, Default)]
pub(super) struct Metered {
    pub(super) registry: Registry,
    told: Mutex<BTreeMap<&'static str, BTreeSet<String>>>,
}

impl Metered {
    pub(super) fn new(registry: Registry) -> Self {
        let told = Mutex::default();
        Self { registry, told }
    }

    /// Sets a gauge for names that come and go: those that went stand at 0, and beyond the bound of its label the largest
    /// of those that are left is told.
    fn set_all(&self, meter: &Meter, now: &BTreeMap<String, f64>) {
        let max = meter.labels.first().map_or(0, |label| match label.values {
            Values::First { max, .. } => max,
            Values::Fixed(values) => values().len(),
        });
        let meters = self.registry.meters();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let told = told.entry(meter.name).or_default();
        let mut others = None;
        for (name, value) in now {
            if told.len() < max || told.contains(name) {
                told.insert(name.clone());
                meters.set(meter, &[name], *value);
            } else {
                others = Some(others.map_or(*value, |most: f64| most.max(*value)));
            }
        }
        if others.is_some() || told.len() >= max {
            meters.set(meter, &[OTHER], others.unwrap_or(0.0));
        }
        for name in told.iter().filter(|name| !now.contains_key(*name)) {
            meters.set(meter, &[name], 0.0);
        }
    }
}

/// What is read from the store for it.
struct Stored {
    jobs: StatusCounts,
    deliveries: DeliveryCounts,
    in_doubt: usize,
    bytes: Option<u64>,
}

impl Orchestrator {
    /// Where what this lane counts is kept.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.inner.metered.registry
    }

    /// What this lane counts, in Prometheus' text format, with its gauges as they are now. `None`: a recorder of the
    /// program's own has it.
    pub async fn render_metrics(&self) -> Result<Option<String>, Error> {
        let registry = self.registry().clone();
        if !registry.is_own() {
            return Ok(None);
        }
        self.sample().await?;
        // Some thousand lines: no work for a thread that others wait for.
        tokio::task::spawn_blocking(move || registry.render())
            .await
            .map_err(|_| Error::Stopped("the runtime is ending".to_owned()))
    }

    /// Sets the gauges to what they are now. Counters and histograms need no look.
    pub async fn sample(&self) -> Result<(), Error> {
        let lane = self.lane().await?;
        let budgets = self
            .ask(|refs, reply| refs.queue.cast(QueueMsg::BudgetShares { reply }))
            .await?;
        let stored = self.read(|store| {
            let open = CallFilter {
                billing_open: true,
                ..CallFilter::default()
            };
            Ok(Stored {
                jobs: store.counts()?,
                deliveries: store.delivery_counts()?,
                in_doubt: store.calls(&open, None, limits::PAGE_ROWS_MAX)?.calls.len(),
                bytes: store.bytes(),
            })
        });
        let stored = stored.await?;
        let metered = &self.inner.metered;
        let meters = metered.registry.meters();
        self.sample_queue(meters, &lane);
        sample_lane(meters, &lane);
        sample_store(meters, &stored);
        meters.set(&table::UNSETTLED, &[], lane.unsettled as f64);
        meters.set(&table::ALERTS, &[], self.alerts().active.len() as f64);
        let is_doubted = self.inner.trust.is_doubted();
        meters.set(&table::CLOCK_DOUBTED, &[], f64::from(is_doubted));
        meters.set(&table::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
        let limits = lane.lanes.iter();
        let limits = limits.map(|lane| (lane.name.clone(), f64::from(lane.limit)));
        metered.set_all(&table::LANE_LIMIT, &limits.collect());
        let busy = lane.lanes.iter();
        let busy = busy.map(|lane| (lane.name.clone(), lane.in_flight as f64));
        metered.set_all(&table::LANE_BUSY, &busy.collect());
        let mut shares: BTreeMap<String, f64> = BTreeMap::new();
        for (budget, share) in budgets {
            let name = budget.as_deref().unwrap_or(CLIENT_KEYS).to_owned();
            let most = shares.entry(name).or_insert(share);
            *most = most.max(share);
        }
        metered.set_all(&table::BUDGET_USED, &shares);
        self.sample_account();
        if let Some(traces) = &self.inner.traces {
            traces.sample(meters);
        }
        otlp::sample_logs(meters);
        Ok(())
    }

    fn sample_account(&self) {
        let metered = &self.inner.metered;
        let account = self.account();
        let windows = account.quota.map(|quota| quota.windows).unwrap_or_default();
        let used = windows.iter().filter_map(|window| {
            let share = window.used_e4? as f64 / WHOLE_E4 as f64;
            Some((window.to_string(), share))
        });
        metered.set_all(&table::QUOTA_USED, &used.collect());
        let left = account.balance.map(|balance| balance.available);
        for currency in [Currency::Cny, Currency::Usd, Currency::Points] {
            // What is not told is not 0.
            let left = left.filter(|left| left.currency == currency);
            let left = left.map_or(f64::NAN, |left| left.nanos as f64 / 1e9);
            let meters = metered.registry.meters();
            meters.set(&table::ACCOUNT_BALANCE, &[currency.code()], left);
        }
    }

    fn sample_queue(&self, meters: &Meters, lane: &SchedulerSnapshot) {
        let now = self.inner.ports.clock.now();
        for (class, waiting) in &lane.priority_classes {
            meters.set(&table::QUEUE_JOBS, &[class], waiting.jobs as f64);
            let oldest_ms = waiting.oldest_ready.map_or(0, |since| now.since(since));
            meters.set(&table::QUEUE_OLDEST, &[class], oldest_ms as f64 / 1_000.0);
        }
        for (reason, jobs) in &lane.wait_counts {
            meters.set(&table::WAITING_JOBS, &[reason], *jobs as f64);
        }
    }
}

fn sample_lane(meters: &Meters, lane: &SchedulerSnapshot) {
    meters.set(&table::SLOTS, &[], f64::from(lane.max_concurrency));
    meters.set(&table::SLOTS_BUSY, &[], lane.in_flight as f64);
    for scope in ["account", "lane", "model"] {
        for kind in HoldKind::ALL {
            let is_it = |held: &&ScopedHold| held.scope.name() == scope && held.hold.kind == kind;
            let holds = lane.holds.iter().filter(is_it).count();
            meters.set(&table::HOLDS, &[scope, kind.name()], holds as f64);
        }
    }
    for state in [
        BreakerState::Closed,
        BreakerState::Open,
        BreakerState::HalfOpen,
    ] {
        let is_it = f64::from(lane.breaker.state == state);
        meters.set(&table::BREAKER, &[state.name()], is_it);
    }
    meters.set(&table::PAUSED, &[], f64::from(lane.paused.is_some()));
    let is_closed = f64::from(lane.draining.is_some());
    meters.set(&table::INTAKE_CLOSED, &[], is_closed);
    meters.set(&table::DISK_FULL, &[], f64::from(lane.disk_full));
}

fn sample_store(meters: &Meters, stored: &Stored) {
    let jobs = stored.jobs;
    for (status, count) in [
        ("pending", jobs.pending),
        ("processing", jobs.processing),
        ("completed", jobs.completed),
        ("failed", jobs.failed),
        ("cancelled", jobs.cancelled),
    ] {
        meters.set(&table::JOBS, &[status], count as f64);
    }
    let deliveries = stored.deliveries;
    for (status, count) in [
        ("pending", deliveries.pending),
        ("delivered", deliveries.delivered),
        ("failed", deliveries.failed),
    ] {
        meters.set(&table::DELIVERIES, &[status], count as f64);
    }
    meters.set(&table::MAYBE_BILLED, &[], stored.in_doubt as f64);
    if let Some(bytes) = stored.bytes {
        meters.set(&table::STORE_BYTES, &[], bytes as f64);
    }
}

/// Puts samples into their buckets now and then, until the lane is gone: without somebody who reads them they would be
/// kept one by one.
pub(super) async fn upkeep(metered: Arc<Metered>, mut gone: watch::Receiver<bool>) {
    if !metered.registry.is_own() {
        return;
    }
    let mut is_gone = std::pin::pin!(gone.wait_for(|gone| *gone));
    while tokio::time::timeout(UPKEEP_EVERY, &mut is_gone)
        .await
        .is_err()
    {
        metered.registry.upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_that_come_and_go_stay_within_their_bound_and_stand_at_nothing_once_they_went() {
        let metered = Metered::default();
        for n in 0..200 {
            let busy = [(format!("lane-{n}"), 1.0)].into();
            metered.set_all(&table::LANE_BUSY, &busy);
        }
        let text = metered.registry.render().unwrap();
        let of_lanes = |line: &&str| line.starts_with("onelane_lane_busy{");
        let lines: Vec<&str> = text.lines().filter(of_lanes).collect();
        assert_eq!(lines.len(), limits::LANES_MAX + 2, "{lines:#?}");
        let busy: Vec<_> = lines.iter().filter(|line| line.ends_with(" 1")).collect();
        assert_eq!(busy, [&"onelane_lane_busy{lane=\"other\"} 1"]);
        metered.set_all(&table::LANE_BUSY, &BTreeMap::new());
        let text = metered.registry.render().unwrap();
        assert!(text.contains("onelane_lane_busy{lane=\"lane-0\"} 0"));
        assert!(text.contains("onelane_lane_busy{lane=\"other\"} 0"));
    }
}
