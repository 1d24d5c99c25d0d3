//! The real thing: a redb file, the HTTP adapter, and the simulator on a socket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onelane::config::{Config, Loaded};
use onelane::glm::HttpGlm;
use onelane::model::{
    CallOutcome, CallRecord, CoolDownSettings, Event, JobId, RetrySettings, Secret, Submission,
    UsageKey, UsageRow,
};
use onelane::orchestrator::{Events, Feed, Orchestrator, Parts, StartError};
use onelane::ports::{CallFilter, Clock, Glm, Store, UsageFilter};
use onelane::simulator::{Arrival, Fault, Rule, Simulator, SimulatorConfig};
use onelane::store::{RedbStore, StoreOptions};
use onelane::system::{SystemClock, SystemIds};
use onelane_actors::FaultPoints;
use onelane_actors::supervisor::RestartBudget;
use tempfile::TempDir;

use super::ms;

/// Far longer than anything takes that is not stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The key that lanes use at first.
pub(crate) const KEY: &str = "0123456789abcdef.the-first-secret";
/// A prompt that the simulator never answers: its call keeps the slot until it is cancelled.
pub(crate) const BLOCKER: &str = "blocker";

/// Cool-downs that come soon.
const SHORT: CoolDownSettings = CoolDownSettings {
    base_ms: 10,
    max_ms: 100,
};

/// Puts another transport in front of the HTTP adapter.
type Wrap = dyn Fn(HttpGlm) -> Arc<dyn Glm> + Send + Sync;

/// What a lane is started from, again and again: a simulator, a file, a configuration.
pub(crate) struct HttpLane {
    pub(crate) sim: Simulator,
    pub(crate) config: Config,
    pub(crate) fault_points: FaultPoints,
    pub(crate) budget: RestartBudget,
    pub(crate) wrap: Option<Box<Wrap>>,
    _dir: TempDir,
}

impl HttpLane {
    /// With a simulator that answers everything at once, but never [`BLOCKER`].
    pub(crate) fn new() -> Self {
        Self::with(SimulatorConfig::default())
    }

    /// With a simulator of this kind, that never answers [`BLOCKER`]. Retries come soon.
    pub(crate) fn with(mut sim: SimulatorConfig) -> Self {
        sim.rules.insert(0, Rule::for_prompt(BLOCKER, Fault::Hang));
        let sim = Simulator::start(sim).expect("the simulator starts");
        let dir = TempDir::new().expect("a temporary directory");
        let mut config = Config::default();
        config.glm.base_url = sim.base_url();
        config.glm.api_key = Some(Secret::new(KEY));
        let file = dir.path().join("lane.redb");
        config.store.path = file.to_str().expect("a path in UTF-8").to_owned();
        config.retry = RetrySettings {
            base_delay_ms: 10,
            max_delay_ms: 100,
            throttle: SHORT,
            overload: SHORT,
            ..RetrySettings::default()
        };
        Self {
            sim,
            config,
            fault_points: FaultPoints::default(),
            budget: RestartBudget::default(),
            wrap: None,
            _dir: dir,
        }
    }

    /// Opens the file; it must be free.
    pub(crate) fn open(&self) -> RedbStore {
        RedbStore::open(&self.config.store.path, StoreOptions::default()).expect("the store opens")
    }

    /// Starts a lane on the file, as `Orchestrator::start` does, with the faults of this test.
    pub(crate) async fn start(&self) -> Orchestrator {
        self.try_start().await.expect("the lane starts")
    }

    pub(crate) async fn try_start(&self) -> Result<Orchestrator, StartError> {
        let store = RedbStore::open(&self.config.store.path, StoreOptions::default())?;
        let clock = Arc::new(SystemClock);
        let stored = store.config()?;
        let loaded =
            Loaded::from_config(&self.config)?.with_stored(stored.as_deref(), clock.now())?;
        let glm = HttpGlm::new(Arc::clone(&clock) as Arc<_>)?;
        let glm: Arc<dyn Glm> = match &self.wrap {
            Some(wrap) => wrap(glm),
            None => Arc::new(glm),
        };
        Orchestrator::start_with(Parts {
            store: Arc::new(store),
            glm,
            clock,
            ids: Arc::new(SystemIds::new()),
            config: loaded,
            tokens: None,
            budget: self.budget,
            fault_points: self.fault_points.clone(),
        })
        .await
    }

    /// Ends the lane and starts it again on the same file.
    pub(crate) async fn restart(&self, lane: Orchestrator) -> Orchestrator {
        lane.shutdown(PATIENCE).await;
        drop(lane);
        self.start().await
    }

    /// Submits [`BLOCKER`] and waits until its call is open.
    pub(crate) async fn block(&self, lane: &Orchestrator) -> JobId {
        let calls = self.sim.calls_of_prompt(BLOCKER);
        let job = lane
            .submit(prompt(BLOCKER).priority(i32::MAX))
            .await
            .expect("the blocker is taken");
        until("the blocker's call is open", async || {
            self.sim.calls_of_prompt(BLOCKER) > calls
        })
        .await;
        job.job_id
    }

    /// The prompts of all calls in the order they came.
    pub(crate) fn prompts(&self) -> Vec<String> {
        let arrivals = self.sim.arrivals().into_iter();
        arrivals.map(|arrival| arrival.prompt).collect()
    }

    /// The calls for this prompt in the order they came.
    pub(crate) fn arrivals_of(&self, prompt: &str) -> Vec<Arrival> {
        let mut arrivals = self.sim.arrivals();
        arrivals.retain(|arrival| arrival.prompt == prompt);
        arrivals
    }
}

/// A submission of a prompt.
pub(crate) fn prompt(text: impl Into<String>) -> Submission {
    Submission::prompt(text).expect("a prompt")
}

/// Looks again and again until `seen` holds.
pub(crate) async fn until(what: &str, mut seen: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !seen().await {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(ms(2)).await;
    }
}

/// Waits until the lane is held, and the outcome that holds it is on disk.
pub(crate) async fn until_held(lane: &Orchestrator) {
    until("the lane is held", async || {
        let held = lane.lane().await.expect("the lane runs").hold.is_some();
        held && lane.queue_status().await.expect("counts").processing == 0
    })
    .await;
}

/// The next event that `wanted` picks something of; others are passed over.
pub(crate) async fn next_event<T>(events: &mut Events, wanted: impl Fn(&Event) -> Option<T>) -> T {
    let picked = async {
        loop {
            match events.next().await {
                Some(Feed::Event(_, event)) => {
                    if let Some(found) = wanted(&event) {
                        return found;
                    }
                }
                Some(Feed::Missed(_)) => {}
                None => panic!("the events ended"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, picked)
        .await
        .expect("an event that never came")
}

/// Every usage row.
pub(crate) fn all_usage() -> UsageFilter {
    UsageFilter::default()
}

/// The whole call log, oldest first.
pub(crate) fn call_log(store: &dyn Store) -> Vec<CallRecord> {
    let mut rows = Vec::new();
    let mut cursor = None;
    loop {
        let page = store
            .calls(&CallFilter::default(), cursor, 500)
            .expect("the call log can be read");
        rows.extend(page.calls);
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    rows.reverse();
    rows
}

/// The whole call log of a lane, oldest first.
pub(crate) async fn calls_of(lane: &Orchestrator) -> Vec<CallRecord> {
    let mut rows = Vec::new();
    let mut cursor = None;
    loop {
        let page = lane
            .calls(CallFilter::default(), cursor, 500)
            .await
            .expect("the call log can be read");
        rows.extend(page.calls);
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    rows.reverse();
    rows
}

/// The statistics that a call log adds up to, summed here field by field: the lane's own sums are what is
/// tested.
pub(crate) fn sums(calls: &[CallRecord]) -> Vec<UsageRow> {
    let mut rows = BTreeMap::new();
    for call in calls {
        let key = UsageKey {
            day: call.ended_at.day(),
            model: call.model.clone(),
            user_id: call.user_id.clone(),
        };
        let row: &mut UsageRow = rows
            .entry(key.clone())
            .or_insert_with(|| UsageRow::empty(key));
        row.calls += 1;
        match call.outcome {
            CallOutcome::Completed => row.successes += 1,
            CallOutcome::Failed | CallOutcome::Cancelled | CallOutcome::Interrupted => {
                row.failures += 1;
            }
        }
        row.usage.prompt_tokens += call.usage.prompt_tokens;
        row.usage.completion_tokens += call.usage.completion_tokens;
        row.usage.total_tokens += call.usage.total_tokens;
        row.usage.cached_tokens += call.usage.cached_tokens;
        row.usage.reasoning_tokens += call.usage.reasoning_tokens;
        match call.cost {
            Some(cost) => *row.cost.entry(cost.currency).or_insert(0) += cost.nanos,
            None if call.usage.total_tokens > 0 => row.unpriced_calls += 1,
            None => {}
        }
        if call.outcome == CallOutcome::Completed {
            row.response_time_ms += call.response_time_ms;
            row.response_times.record(call.response_time_ms);
        } else if let Some(failure) = &call.failure {
            *row.failure_classes.entry(failure.class).or_insert(0) += 1;
        }
    }
    rows.into_values().collect()
}
