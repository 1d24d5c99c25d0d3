//! The real thing: a redb file, the HTTP adapter, and the simulator on a socket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onelane::config::{Config, Loaded};
use onelane::error::Error;
use onelane::glm::HttpGlm;
use onelane::model::{
    CallOutcome, CallRecord, CoolDownSettings, Event, JobId, JobStatus, RetryPolicy, RetrySettings,
    Secret, Submission, UsageKey, UsageRow,
};
use onelane::orchestrator::{Events, Feed, Orchestrator, Parts, StartError};
use onelane::ports::{CallFilter, Clock, Glm, JobRecord, Store, UsageFilter};
use onelane::simulator::{Arrival, Fault, Rule, Simulator, SimulatorConfig, Span};
use onelane::store::{RedbStore, StoreOptions};
use onelane::system::{SystemClock, SystemIds};
use onelane_actors::FaultPoints;
use onelane_actors::supervisor::RestartBudget;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::api::Api;
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
            delays: RetryPolicy {
                base_delay_ms: 10,
                max_delay_ms: 100,
                ..RetryPolicy::default()
            },
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

    /// With a simulator that takes so long for every answer.
    pub(crate) fn slow(latency_ms: u64) -> Self {
        Self::with(SimulatorConfig {
            latency_ms: Span::Fixed(latency_ms),
            ..SimulatorConfig::default()
        })
    }

    /// From now on the simulator does this, too.
    pub(crate) fn rule(&self, rule: Rule) {
        self.sim.add_rule(rule);
    }

    /// Waits until the server has so many calls open.
    pub(crate) async fn until_in_flight(&self, calls: u64) {
        until(&format!("{calls} calls are open"), async || {
            self.sim.stats().in_flight == calls
        })
        .await;
    }

    /// Waits until the server has seen so many more calls.
    pub(crate) async fn until_called(&self, more: u64) {
        let calls = self.sim.stats().calls + more;
        until("calls go on", async || self.sim.stats().calls >= calls).await;
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
            registry: onelane::Registry::default(),
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

/// A lane on a simulator that answers everything at once.
pub(crate) async fn started() -> (HttpLane, Orchestrator) {
    let world = HttpLane::new();
    let lane = world.start().await;
    (world, lane)
}

/// The same, with its API.
pub(crate) async fn served() -> (HttpLane, Orchestrator, Api) {
    let (world, lane) = started().await;
    let api = Api::serve(&lane).await;
    (world, lane, api)
}

/// Submits a job and answers its id.
pub(crate) async fn submit(lane: &Orchestrator, job: Submission) -> JobId {
    lane.submit(job).await.expect("the job is taken").job_id
}

/// Submits jobs together and answers their ids.
pub(crate) async fn submit_all(
    lane: &Orchestrator,
    jobs: impl IntoIterator<Item = Submission>,
) -> Vec<JobId> {
    let taken = lane.submit_many(jobs.into_iter().collect()).await;
    let taken = taken.expect("the jobs are taken").into_iter();
    taken.map(|job| job.expect("a job").job_id).collect()
}

/// So many plain jobs: `job 0`, `job 1` and so on.
pub(crate) fn prompts(jobs: usize) -> impl Iterator<Item = Submission> {
    (0..jobs).map(|n| prompt(format!("job {n}")))
}

/// Calls in a task of its own; ending the task drops the future of the call.
pub(crate) fn calling(
    lane: &Orchestrator,
    job: Submission,
) -> JoinHandle<Result<JobRecord, Error>> {
    let lane = lane.clone();
    tokio::spawn(async move { lane.call(job).await })
}

/// Waits for a job in a task of its own.
pub(crate) fn waiting(lane: &Orchestrator, id: JobId) -> JoinHandle<Result<JobRecord, Error>> {
    let lane = lane.clone();
    tokio::spawn(async move { lane.wait(id).await })
}

/// Waits until so many jobs wait for others, or for room.
pub(crate) async fn until_dormant(lane: &Orchestrator, jobs: u64) {
    until(&format!("{jobs} jobs are dormant"), async || {
        lane.lane().await.expect("the lane runs").dormant == jobs as usize
    })
    .await;
}

/// Waits for a job that must end like this.
pub(crate) async fn ended(lane: &Orchestrator, id: JobId, status: JobStatus) -> JobRecord {
    let record = lane.wait(id).await.expect("the job ends");
    assert_eq!(record.job.status, status, "{:?}", record.job);
    record
}

/// Waits for a job that must complete.
pub(crate) async fn completed(lane: &Orchestrator, id: JobId) -> JobRecord {
    ended(lane, id, JobStatus::Completed).await
}

/// Waits until so many jobs have completed.
pub(crate) async fn until_completed(lane: &Orchestrator, jobs: u64) {
    until(&format!("{jobs} jobs are done"), async || {
        lane.queue_status().await.expect("counts").completed == jobs
    })
    .await;
}

/// Waits until no call is open, and no job could be sent.
pub(crate) async fn until_idle(lane: &Orchestrator) {
    until("nothing more can be sent", async || {
        let lane = lane.lane().await.expect("the lane runs");
        lane.in_flight == 0 && lane.ready == 0
    })
    .await;
}

/// Changes the configuration of a running lane; answers it as it is then.
pub(crate) async fn configure(lane: &Orchestrator, patch: Value) -> Value {
    lane.set_config(&patch).await.expect("a valid change")
}

/// Lets a lane go on for so long and ends it; its file is free.
pub(crate) async fn stop(lane: Orchestrator, within_ms: u64) {
    lane.shutdown(ms(within_ms)).await;
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
            key_id: call.key_id,
        };
        let row: &mut UsageRow = rows
            .entry(key.clone())
            .or_insert_with(|| UsageRow::empty(key));
        row.calls += 1;
        match call.outcome {
            CallOutcome::Completed => row.successes += 1,
            CallOutcome::Failed | CallOutcome::Interrupted => row.failures += 1,
            CallOutcome::Cancelled => row.cancelled += 1,
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
            row.answer_times.record(call.response_time_ms);
            if let Some(first) = call.parts.first_token_ms {
                row.first_tokens.record(first);
            }
            // Behind the first token where that is known, else all of them in all of the time.
            let (tokens, ms) = match call.parts.first_token_ms {
                Some(first) => (
                    call.usage.completion_tokens.saturating_sub(1),
                    call.response_time_ms.saturating_sub(first),
                ),
                None => (call.usage.completion_tokens, call.response_time_ms),
            };
            let is_measured = call.parts.first_byte_ms.is_some();
            if is_measured && tokens > 0 && ms > 0 {
                row.speed.tokens += tokens;
                row.speed.ms += ms;
            }
            if call.usage.total_tokens > 0 {
                row.answer_tokens.record(call.usage.completion_tokens);
            }
        } else if let Some(failure) = &call.failure {
            *row.failure_classes.entry(failure.class).or_insert(0) += 1;
        }
    }
    rows.into_values().collect()
}
