//! Guards: two calls open at once, an acknowledged job lost or done twice, an account that does not add
//! up, while everything that can fail does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use onelane::error::Error;
use onelane::glm::HttpGlm;
use onelane::model::{
    BreakerSettings, BreakerState, CallOutcome, CallRecord, Event, FailureClass, JobId, JobStatus,
    code,
};
use onelane::orchestrator::{Feed, Orchestrator};
use onelane::ports::{CallFuture, Glm, GlmCall, Store as _};
use onelane::simulator::{Arrival, Fault, Rule, SimulatorConfig, Step};
use onelane_actors::FaultPoints;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::dice::Dice;
use crate::support::http::{HttpLane, PATIENCE, all_usage, call_log, prompt, submit, sums};
use crate::support::{GENEROUS, ms};

/// Makes actors panic at random, as long as it is armed.
#[derive(Clone)]
struct Havoc {
    dice: Dice,
    armed: Arc<AtomicBool>,
    /// Panics by actor.
    panics: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl Havoc {
    fn new(dice: &Dice) -> Self {
        Self {
            dice: dice.clone(),
            armed: Arc::new(AtomicBool::new(true)),
            panics: Arc::default(),
        }
    }

    fn strikes(&self, whom: &'static str, one_in: u64) -> bool {
        let strikes = self.armed.load(Ordering::Relaxed) && self.dice.one_in(one_in);
        if strikes {
            *self.panics.lock().unwrap().entry(whom).or_default() += 1;
        }
        strikes
    }

    /// Strikes every actor at its messages: the queue takes most of them.
    fn fault_points(&self) -> FaultPoints {
        let havoc = self.clone();
        FaultPoints::new(Arc::new(move |actor| {
            let one_in = match actor {
                "queue" => 400,
                _ => 150,
            };
            assert!(!havoc.strikes(actor, one_in), "a fault of the {actor}");
        }))
    }

    fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }
}

/// The HTTP adapter, in which a caller dies with its call open.
struct DeadlyGlm {
    http: HttpGlm,
    havoc: Havoc,
}

impl Glm for DeadlyGlm {
    fn call(&self, call: GlmCall, abort: CancellationToken) -> CallFuture {
        let answer = self.http.call(call, abort);
        if !self.havoc.strikes("open call", 60) {
            return answer;
        }
        let after = ms(self.havoc.dice.below(12));
        Box::pin(async move {
            tokio::select! {
                answer = answer => answer,
                () = tokio::time::sleep(after) => panic!("a fault of the open call"),
            }
        })
    }
}

/// A server on which much goes wrong, and a lane that gives up soon and tries often.
fn troubled(havoc: &Havoc) -> HttpLane {
    let chance = |probability, fault| Rule {
        probability,
        ..Rule::always(fault)
    };
    let mut script = Vec::new();
    for _ in 0..8 {
        script.push(Step {
            fault: Fault::none(),
            times: 90,
        });
        // Enough in a row to open the breaker, and to fail its first probes.
        script.push(Step {
            fault: Fault::error("1234"),
            times: 5,
        });
    }
    let mut world = HttpLane::with(SimulatorConfig {
        seed: havoc.dice.seed(),
        script,
        rules: vec![
            Rule::for_prompt("bad", Fault::error("1210")),
            chance(0.01, Fault::Hang),
            chance(0.01, Fault::StallBody),
            chance(0.02, Fault::Reset),
            chance(0.02, Fault::CutBody),
            chance(0.02, Fault::HtmlPage { status: 502 }),
            chance(0.01, Fault::error("1302")),
            chance(0.01, Fault::error("1305")),
            chance(0.01, Fault::error("1231")),
            chance(0.05, Fault::SlowHeaders { delay_ms: 10 }),
        ],
        ..SimulatorConfig::default()
    });
    world.config.glm.timeouts.idle_ms = 150;
    world.config.glm.timeouts.total_ms = 1_000;
    world.config.retry.max_retries = 100;
    // Answers that broke off are bought again, too, as often as that.
    for code in [code::CONNECTION, code::TIMEOUT_IDLE, code::TIMEOUT_TOTAL] {
        let class = FailureClass::ServerTransient;
        world.config.policy.insert(code.to_owned(), class.into());
    }
    world.config.lane.quarantine_after = 1_000;
    world.config.breaker = BreakerSettings {
        consecutive_failures: 3,
        cool_down_ms: 20,
        cool_down_multiplier: 1.5,
        cool_down_max_ms: 100,
        ..BreakerSettings::default()
    };
    world.budget = GENEROUS;
    world.fault_points = havoc.fault_points();
    let havoc = havoc.clone();
    world.wrap = Some(Box::new(move |http| {
        let havoc = havoc.clone();
        Arc::new(DeadlyGlm { http, havoc })
    }));
    world
}

/// How a job is submitted, and how it may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Submitted and waited for in one: completed.
    Called,
    /// Submitted, waited for later: completed.
    Left,
    /// Cancelled some time after it was submitted: cancelled, unless it was completed before.
    GivenUp,
    /// Of a kind that the server refuses: failed.
    Bad,
}

impl Kind {
    fn of(dice: &Dice) -> Self {
        match dice.below(20) {
            0..2 => Self::GivenUp,
            2 => Self::Bad,
            3..12 => Self::Called,
            _ => Self::Left,
        }
    }

    fn may_end(self, status: JobStatus) -> bool {
        match self {
            Self::Called | Self::Left => status == JobStatus::Completed,
            Self::GivenUp => matches!(status, JobStatus::Completed | JobStatus::Cancelled),
            Self::Bad => status == JobStatus::Failed,
        }
    }
}

/// One of many who submit at once. Gives the jobs that were acknowledged.
async fn submitter(
    lane: Orchestrator,
    dice: Dice,
    numbers: impl Iterator<Item = u32>,
) -> Vec<(JobId, Kind)> {
    let mut jobs = Vec::new();
    let mut left = Vec::new();
    for n in numbers {
        let kind = Kind::of(&dice);
        let priority = i32::try_from(dice.below(5)).unwrap();
        let text = match kind {
            Kind::Bad => format!("bad job {n}"),
            _ => format!("job {n}"),
        };
        let submission = prompt(text)
            .priority(priority)
            .user(format!("user {}", n % 3));
        match kind {
            Kind::Called => {
                let record = lane.call(submission).await.unwrap();
                jobs.push((record.job.id, kind));
            }
            Kind::Left | Kind::Bad => {
                let id = submit(&lane, submission).await;
                jobs.push((id, kind));
                left.push(id);
            }
            Kind::GivenUp => {
                let id = submit(&lane, submission).await;
                jobs.push((id, kind));
                tokio::time::sleep(ms(dice.below(300))).await;
                match lane.cancel(id).await {
                    Ok(()) | Err(Error::WrongStatus { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
                left.push(id);
            }
        }
    }
    for id in left {
        assert!(lane.wait(id).await.unwrap().job.status.is_terminal());
    }
    jobs
}

/// Lets 64 submit `jobs` jobs, until every one of them has ended.
async fn run(lane: &Orchestrator, dice: &Dice, jobs: u32) -> Vec<(JobId, Kind)> {
    const SUBMITTERS: u32 = 64;
    let submitters: Vec<_> = (0..SUBMITTERS)
        .map(|first| {
            let numbers = (first..jobs).step_by(SUBMITTERS as usize);
            tokio::spawn(submitter(lane.clone(), dice.clone(), numbers))
        })
        .collect();
    let mut acknowledged = Vec::new();
    for submitter in submitters {
        acknowledged.extend(submitter.await.unwrap());
    }
    acknowledged
}

/// Counts how often the breaker opens.
fn watch_breaker(lane: &Orchestrator) -> Arc<AtomicU64> {
    let opened = Arc::new(AtomicU64::new(0));
    let mut events = lane.subscribe();
    let count = Arc::clone(&opened);
    tokio::spawn(async move {
        while let Some(feed) = events.next().await {
            if let Feed::Event(_, event) = feed
                && matches!(&*event, Event::BreakerChanged { breaker } if breaker.state == BreakerState::Open)
            {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    opened
}

/// The call log and what the server saw are the same calls.
fn check_calls(calls: &[CallRecord], arrivals: &[Arrival]) {
    let rows: BTreeMap<&str, &CallRecord> = calls
        .iter()
        .map(|call| (call.request_id.as_str(), call))
        .collect();
    assert_eq!(rows.len(), calls.len(), "one row an attempt");
    let mut seen = BTreeSet::new();
    for arrival in arrivals {
        // A client that left with its body half sent did not say who it was.
        if arrival.request_id.is_empty() {
            assert!(arrival.client_left, "{arrival:?}");
            continue;
        }
        let id = arrival.request_id.as_str();
        assert!(seen.insert(id), "{id} came twice");
        let row = rows
            .get(id)
            .unwrap_or_else(|| panic!("no row: {arrival:?}"));
        assert_eq!(row.model, arrival.model);
        if row.outcome == CallOutcome::Completed {
            assert_eq!(arrival.status, Some(200), "{arrival:?}");
            assert!(!arrival.client_left, "{arrival:?}");
        }
    }
    for call in calls {
        // What was open in a crash, or given up, may not have been sent.
        let sent = call.status_code.is_some() || call.outcome == CallOutcome::Completed;
        if sent {
            let id = call.request_id.as_str();
            assert!(seen.contains(id), "never seen: {call:?}");
        }
    }
}

/// What is on disk: every acknowledged job ended as it may, completed at most once, and the accounts
/// are those of the call log.
fn check_store(world: &HttpLane, jobs: &[(JobId, Kind)]) -> Vec<CallRecord> {
    let store = world.open();
    let calls = call_log(&store);
    let mut completions: BTreeMap<JobId, u32> = BTreeMap::new();
    for call in &calls {
        if call.outcome == CallOutcome::Completed {
            *completions.entry(call.job_id).or_default() += 1;
        }
    }
    for (id, kind) in jobs {
        let record = store.job(*id).unwrap().expect("an acknowledged job");
        let job = record.job;
        assert!(kind.may_end(job.status), "{kind:?}: {job:?}");
        let completed = completions.get(id).copied().unwrap_or(0);
        assert_eq!(
            completed,
            u32::from(job.status == JobStatus::Completed),
            "{kind:?}: {job:?}"
        );
        assert_eq!(record.response.is_some(), completed == 1);
        assert_eq!(job.open, None);
    }
    let counts = store.counts().unwrap();
    assert_eq!(counts.total(), jobs.len() as u64);
    assert_eq!((counts.pending, counts.processing), (0, 0));
    assert_eq!(store.usage(&all_usage()).unwrap(), sums(&calls));
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_at_a_time_and_exact_accounts_whatever_fails() {
    let dice = Dice::new();
    let havoc = Havoc::new(&dice);
    let world = troubled(&havoc);
    let lane = world.start().await;
    let opened = watch_breaker(&lane);
    let jobs = run(&lane, &dice, 1_000).await;
    assert_eq!(jobs.len(), 1_000);
    havoc.disarm();
    lane.shutdown(PATIENCE).await;
    drop(lane);

    let stats = world.sim.stats();
    assert_eq!((stats.peak_in_flight, stats.in_flight), (1, 0));
    assert_eq!(stats.duplicate_request_ids, 0);
    let calls = check_store(&world, &jobs);
    check_calls(&calls, &world.sim.arrivals());

    // And all of that did happen.
    let panics = havoc.panics.lock().unwrap().clone();
    for actor in ["caller", "store", "breaker", "cost", "queue", "open call"] {
        assert!(panics.contains_key(actor), "{actor}: {panics:?}");
    }
    assert!(opened.load(Ordering::Relaxed) > 0);
    assert!(stats.clients_left > 0);
    for outcome in [
        CallOutcome::Completed,
        CallOutcome::Failed,
        CallOutcome::Interrupted,
    ] {
        assert!(calls.iter().any(|call| call.outcome == outcome));
    }
    assert!(world.open().counts().unwrap().cancelled > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_more_calls_than_slots_however_often_their_number_changes() {
    let dice = Dice::new();
    let havoc = Havoc::new(&dice);
    let world = troubled(&havoc);
    let lane = world.start().await;
    let done = CancellationToken::new();
    let changer = {
        let (lane, dice, done) = (lane.clone(), dice.clone(), done.clone());
        tokio::spawn(async move {
            while !done.is_cancelled() {
                let slots = 1 + dice.below(4);
                let patch = json!({"maxConcurrency": slots});
                lane.set_config(&patch).await.unwrap();
                tokio::time::sleep(ms(dice.below(30))).await;
            }
        })
    };
    let jobs = run(&lane, &dice, 600).await;
    done.cancel();
    changer.await.unwrap();
    havoc.disarm();
    lane.shutdown(PATIENCE).await;
    drop(lane);

    let stats = world.sim.stats();
    assert!((2..=4).contains(&stats.peak_in_flight), "{stats:?}");
    assert_eq!((stats.in_flight, stats.duplicate_request_ids), (0, 0));
    let calls = check_store(&world, &jobs);
    check_calls(&calls, &world.sim.arrivals());
}
