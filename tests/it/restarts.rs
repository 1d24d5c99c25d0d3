//! Guards: over HTTP and on disk, an actor's failure under load loses no acknowledged job and leaves no
//! waiter without an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use onelane::error::Error;
use onelane::model::{CallOutcome, Event, JobStatus};
use onelane::ports::{CallFuture, Glm, GlmCall};
use onelane_actors::FaultPoints;
use onelane_actors::runtime::StopReason;
use tokio_util::sync::CancellationToken;

use crate::support::http::{
    BLOCKER, HttpLane, PATIENCE, calls_of, completed, next_event, prompt, submit, sums,
};
use crate::support::ms;

/// Lets one actor fail at one of its messages.
#[derive(Clone)]
struct Trap {
    actor: &'static str,
    /// Messages to go; below zero it is over, or not yet set.
    left: Arc<AtomicI64>,
}

impl Trap {
    fn of(actor: &'static str) -> Self {
        Self {
            actor,
            left: Arc::new(AtomicI64::new(-1)),
        }
    }

    /// The actor fails at its message after the next `after`.
    fn set(&self, after: i64) {
        self.left.store(after, Ordering::SeqCst);
    }

    fn fault_points(&self) -> FaultPoints {
        let trap = self.clone();
        FaultPoints::new(Arc::new(move |actor| {
            let left = actor == trap.actor && trap.left.fetch_sub(1, Ordering::SeqCst) == 0;
            assert!(!left, "a fault of the {actor}");
        }))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_actor_can_fail_under_load_and_every_waiter_gets_its_answer() {
    for actor in ["caller", "store", "breaker", "cost", "queue"] {
        let trap = Trap::of(actor);
        let mut world = HttpLane::slow(2);
        world.fault_points = trap.fault_points();
        let lane = world.start().await;
        let mut events = lane.subscribe();
        trap.set(20);
        let waiters: Vec<_> = (0..40)
            .map(|n| {
                let lane = lane.clone();
                tokio::spawn(async move {
                    let job = lane.submit(prompt(format!("{n}"))).await.unwrap();
                    (job.job_id, lane.wait(job.job_id).await.unwrap())
                })
            })
            .collect();
        for waiter in waiters {
            let (id, record) = waiter.await.unwrap();
            assert_eq!(record.job.id, id, "{actor}");
            assert_eq!(record.job.status, JobStatus::Completed, "{actor}");
            assert!(record.response.is_some(), "{actor}");
        }
        let restarted = next_event(&mut events, |event| match event {
            Event::ActorRestarted { actor, .. } => Some(*actor),
            _ => None,
        });
        assert_eq!(restarted.await, actor);
        assert!(lane.lane().await.unwrap().generation > 1, "{actor}");

        assert_eq!(world.sim.stats().peak_in_flight, 1, "{actor}");
        let calls = calls_of(&lane).await;
        let interrupted = calls
            .iter()
            .filter(|call| call.outcome == CallOutcome::Interrupted);
        let doubtful = interrupted.count() as u64;
        let seen = world.sim.stats().calls;
        assert!((40..=40 + doubtful).contains(&seen), "{actor}: {seen}");
        let usage = lane.usage(crate::support::http::all_usage()).await;
        assert_eq!(usage.unwrap(), sums(&calls), "{actor}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_breaker_that_fails_while_the_lane_starts_is_started_anew() {
    for after in [0, 1] {
        let trap = Trap::of("breaker");
        let mut world = HttpLane::new();
        world.fault_points = trap.fault_points();
        trap.set(after);
        let lane = world.start().await;
        let job = lane.submit(prompt("first")).await.unwrap().job_id;
        completed(&lane, job).await;
        lane.shutdown(PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_queue_leaves_the_open_call_alone() {
    let trap = Trap::of("queue");
    let mut world = HttpLane::slow(500);
    world.fault_points = trap.fault_points();
    let lane = world.start().await;
    let job = submit(&lane, prompt("long")).await;
    world.until_in_flight(1).await;
    trap.set(0);
    // Any message makes it fail; this one is asked again.
    lane.lane().await.unwrap();
    completed(&lane, job).await;
    let stats = world.sim.stats();
    assert_eq!((stats.calls, stats.clients_left), (1, 0));
    assert_eq!(lane.job(job).await.unwrap().attempts.len(), 1);
}

/// A transport in which the caller dies with its first call open.
struct DeadlyOnce {
    http: Arc<dyn Glm>,
    die: CancellationToken,
}

impl Glm for DeadlyOnce {
    fn call(&self, call: GlmCall, abort: CancellationToken) -> CallFuture {
        let first = call.attempt.0 == 1;
        let (answer, die) = (self.http.call(call, abort), self.die.clone());
        Box::pin(async move {
            tokio::select! {
                answer = answer => answer,
                () = die.cancelled(), if first => panic!("a fault of the open call"),
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_dies_with_its_call_open_closes_it_and_the_attempt_is_told_as_interrupted() {
    let mut world = HttpLane::new();
    let die = CancellationToken::new();
    let token = die.clone();
    world.wrap = Some(Box::new(move |http| {
        Arc::new(DeadlyOnce {
            http: Arc::new(http),
            die: token.clone(),
        })
    }));
    let lane = world.start().await;
    let mut events = lane.subscribe();
    let job = world.block(&lane).await;
    world.sim.clear_script();
    die.cancel();
    let interrupted = next_event(&mut events, |event| match event {
        Event::AttemptInterrupted { job_id, attempt } => Some((*job_id, attempt.0)),
        _ => None,
    });
    assert_eq!(interrupted.await, (job, 1));
    let record = completed(&lane, job).await;
    assert_eq!(record.job.retry_count, 0, "nobody's fault");
    let attempts = lane.job(job).await.unwrap().attempts;
    let outcomes: Vec<_> = attempts.iter().map(|call| call.outcome).collect();
    assert_eq!(outcomes, [CallOutcome::Interrupted, CallOutcome::Completed]);
    assert!(attempts[0].maybe_billed);
    // The server saw the first call end before the second came.
    let arrivals = world.arrivals_of(BLOCKER);
    assert!(arrivals[0].client_left);
    assert!(arrivals[0].end_us.unwrap() <= arrivals[1].at_us);
    assert_eq!(world.sim.stats().peak_in_flight, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actors_that_keep_failing_end_the_lane_with_the_reason_and_the_jobs_stay() {
    let trap = Trap::of("store");
    let mut world = HttpLane::new();
    world.fault_points = trap.fault_points();
    let lane = world.start().await;
    lane.pause(None).await.unwrap();
    let mut jobs = Vec::new();
    let refused = loop {
        trap.set(0);
        let submitted = tokio::time::timeout(PATIENCE, lane.submit(prompt("more"))).await;
        match submitted.expect("an answer") {
            Ok(submitted) => jobs.push(submitted.job_id),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, Error::Stopped(_)), "{refused}");
    match lane.stopped().await {
        StopReason::Failed(reason) => assert!(reason.contains("store"), "{reason}"),
        other => panic!("{other:?}"),
    }
    drop(lane);
    trap.set(-1);
    let lane = world.start().await;
    lane.resume().await.unwrap();
    assert!(!jobs.is_empty());
    for id in jobs {
        completed(&lane, id).await;
    }
    assert!(lane.shutdown(ms(10_000)).await.drained);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_fails_as_a_caller_goes_on_by_itself_loses_neither_outcome() {
    // A queue that hears of nothing but its callers fails at one report after the other.
    for after in 0..12 {
        let trap = Trap::of("queue");
        let mut world = HttpLane::slow(5);
        world.fault_points = trap.fault_points();
        let lane = world.start().await;
        lane.pause(None).await.unwrap();
        let jobs = (0..30).map(|n| prompt(format!("{n}"))).collect();
        let jobs = lane.submit_many(jobs).await.unwrap();
        let last = jobs.into_iter().last().unwrap().unwrap().job_id;
        lane.resume().await.unwrap();
        world.until_called(5).await;
        trap.set(after);
        completed(&lane, last).await;
        let status = lane.queue_status().await.unwrap();
        assert_eq!(status.completed, 30, "{after}");
        assert!(lane.lane().await.unwrap().generation > 1, "{after}");
        let stats = world.sim.stats();
        assert_eq!(stats.peak_in_flight, 1, "{after}");
        assert_eq!(stats.calls, 30, "{after}: nothing is bought twice");
    }
}
