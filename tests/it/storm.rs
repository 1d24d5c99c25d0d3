//! Guards: orders that meet in the middle of one another, on jobs that depend on one another: a lane that
//! disagrees with its store, a waiter that is never answered, a job that runs before its turn.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use onelane::error::Error;
use onelane::model::{CallOutcome, CallRecord, JobId, JobStatus};
use onelane::orchestrator::Orchestrator;
use onelane::ports::{Clock as _, JobFilter};
use onelane::simulator::{Fault, Rule, SimulatorConfig, Span};
use onelane::system::SystemClock;
use serde_json::json;

use crate::support::dice::Dice;
use crate::support::http::{HttpLane, PATIENCE, all_usage, calls_of, prompt, sums, until};

const CLIENTS: u64 = 4;
const ORDERS: u64 = 150;
const MODELS: [&str; 3] = ["glm-4.7", "glm-5", "glm-4.6"];

/// What the clients share.
#[derive(Clone)]
struct Storm {
    lane: Orchestrator,
    dice: Dice,
    jobs: Arc<Mutex<Vec<JobId>>>,
}

impl Storm {
    /// A job that somebody submitted; mostly a late one.
    fn some_job(&self) -> Option<JobId> {
        let jobs = self.jobs.lock().unwrap();
        let latest = (jobs.len() as u64).min(if self.dice.one_in(4) { 500 } else { 12 });
        let back = self.dice.below(latest.max(1)) as usize;
        jobs.iter().rev().nth(back).copied()
    }

    /// Gives one order, whichever.
    async fn order(&self, n: u64) {
        let lane = &self.lane;
        match self.dice.below(20) {
            0..=8 => self.submit(n).await,
            9..=11 => {
                if let Some(id) = self.some_job() {
                    allowed(lane.cancel(id).await);
                }
            }
            12..=14 => {
                if let Some(id) = self.some_job() {
                    allowed(lane.retry(id).await);
                }
            }
            15..=16 => {
                if let Some(id) = self.some_job() {
                    let priority = self.dice.below(9) as i32;
                    allowed(lane.reprioritise(id, priority).await);
                }
            }
            17 => {
                lane.pause(None).await.unwrap();
                lane.resume().await.unwrap();
            }
            18 => self.change_all().await,
            _ => self.configure().await,
        }
    }

    async fn submit(&self, n: u64) {
        let dice = &self.dice;
        let mut job = prompt(format!("job {n}"))
            .user(format!("user {}", dice.below(3)))
            .model(MODELS[dice.below(3) as usize])
            .priority(dice.below(5) as i32);
        for _ in 0..dice.below(4) {
            job = job.after(self.some_job());
        }
        let now = SystemClock.now();
        if dice.one_in(6) {
            job = job.run_at(now.plus_ms(dice.below(80)));
        }
        if dice.one_in(10) {
            job = job.deadline(now.plus_ms(dice.below(150)));
        }
        match self.lane.submit(job).await {
            Ok(taken) => self.jobs.lock().unwrap().push(taken.job_id),
            Err(Error::DependencyEnded { .. }) => {}
            // On a busy machine it passes before the lane hears of the job.
            Err(Error::Invalid { field, .. }) if field == "deadline" => {}
            Err(other) => panic!("{other}"),
        }
    }

    async fn change_all(&self) {
        let user = format!("user {}", self.dice.below(3));
        let of_user = JobFilter {
            user_id: Some(user),
            ..JobFilter::default()
        };
        match self.dice.below(3) {
            0 => self.lane.cancel_all(of_user, false).await.unwrap(),
            1 => self.lane.retry_all(of_user, false).await.unwrap(),
            _ => self.lane.reprioritise_all(of_user, 2, false).await.unwrap(),
        };
    }

    async fn configure(&self) {
        let dice = &self.dice;
        let patch = match dice.below(4) {
            0 => json!({"maxConcurrency": 1 + dice.below(4)}),
            1 => json!({"fairQuantumTokens": 1_100 * dice.below(3)}),
            2 => json!({"ageing": 1_000 * dice.below(3)}),
            _ if dice.one_in(2) => json!({"lanes": {"big": null}}),
            _ => {
                let slots = 1 + dice.below(2);
                json!({"lanes": {"big": {"models": ["glm-5"], "maxConcurrency": slots}}})
            }
        };
        self.lane.set_config(&patch).await.unwrap();
    }
}

/// An order may come too late, and nothing else may be wrong with it.
fn allowed(answer: Result<(), Error>) {
    match answer {
        Ok(()) | Err(Error::WrongStatus { .. } | Error::DependencyEnded { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_ordered_at_once_every_waiter_is_answered_and_no_job_runs_before_its_turn() {
    let chance = |probability, fault| Rule {
        probability,
        ..Rule::always(fault)
    };
    let dice = Dice::new();
    let mut world = HttpLane::with(SimulatorConfig {
        latency_ms: Span::Between { min: 0, max: 4 },
        seed: dice.seed(),
        rules: vec![
            chance(0.08, Fault::error("1210")),
            chance(0.05, Fault::error("1234")),
            chance(0.03, Fault::error("1302")),
            chance(0.02, Fault::error("1305")),
        ],
        ..SimulatorConfig::default()
    });
    world.config.breaker.consecutive_failures = 100;
    world.config.breaker.failure_rate = 0.0;
    let lane = world.start().await;
    let storm = Storm {
        lane: lane.clone(),
        dice,
        jobs: Arc::default(),
    };
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let storm = storm.clone();
            tokio::spawn(async move {
                for n in 0..ORDERS {
                    storm.order(client * ORDERS + n).await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("a client met what it may not meet");
    }
    let jobs = storm.jobs.lock().unwrap().clone();
    lane.resume().await.unwrap();
    // Nothing is on its way any more that could bring one back: each has ended or will.
    let waiters: Vec<_> = jobs
        .iter()
        .map(|id| {
            let (lane, id) = (lane.clone(), *id);
            tokio::spawn(async move { lane.wait_for(id, PATIENCE).await })
        })
        .collect();
    let mut records = BTreeMap::new();
    for waiter in waiters {
        let record = waiter.await.unwrap().expect("a waiter was not answered");
        records.insert(record.job.id, record.job);
    }
    until("nothing is in flight", async || {
        lane.lane().await.unwrap().in_flight == 0
    })
    .await;
    let status = lane.lane().await.unwrap();
    assert_eq!(status.generation, 1, "the lane and its store disagreed");
    assert_eq!((status.ready, status.waiting, status.dormant), (0, 0, 0));
    let counts = lane.queue_status().await.unwrap();
    assert_eq!(counts.pending + counts.processing, 0);
    assert_eq!(counts.total(), jobs.len() as u64);

    let calls = calls_of(&lane).await;
    let mut done: BTreeMap<JobId, &CallRecord> = BTreeMap::new();
    for call in &calls {
        if call.outcome == CallOutcome::Completed {
            let twice = done.insert(call.job_id, call);
            assert!(twice.is_none(), "completed twice: {twice:?}");
        }
    }
    let mut chained = 0;
    for call in &calls {
        for before in &records[&call.job_id].after {
            let answered = done.get(before);
            let answered = answered.unwrap_or_else(|| panic!("{call:?} ran, {before} did not"));
            assert!(
                answered.ended_at <= call.started_at,
                "{call:?} {answered:?}"
            );
            chained += 1;
        }
    }
    assert!(chained > 0, "no chain ran");
    for job in records.values() {
        let has_answer = done.contains_key(&job.id);
        assert_eq!(job.status == JobStatus::Completed, has_answer, "{job:?}");
    }
    assert_eq!(lane.usage(all_usage()).await.unwrap(), sums(&calls));
    assert!(world.sim.stats().peak_in_flight <= 6);
    println!(
        "{} jobs, {} calls, {chained} after others: {counts:?}",
        jobs.len(),
        calls.len()
    );
}
