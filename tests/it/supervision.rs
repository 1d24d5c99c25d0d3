//! Guards: a failing actor is restarted with those after it, no acknowledged job is lost, waiters
//! still get their answers, and two calls are never open.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use onelane::error::Error;
use onelane::model::{FailureClass, JobStatus, Submission};
use onelane::orchestrator::{Feed, Orchestrator};
use onelane_actors::FaultPoints;
use onelane_actors::ports::StoreError;
use onelane_actors::runtime::StopReason;
use onelane_actors::testing::{CommitFate, MemoryStore, ScriptedGlm, answer, failed};
use onelane_core::model::Event;
use onelane_core::model::limits::EVENTS_BUFFERED_MAX;

use crate::support::{GENEROUS, VirtualLane, ms};

/// Makes one actor panic at its n-th message from now.
#[derive(Clone, Default)]
struct Trap(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Trap {
    fn set(&self, actor: &'static str, after: u64) {
        self.0.lock().unwrap().insert(actor, after);
    }

    fn fault_points(&self) -> FaultPoints {
        let trap = self.clone();
        FaultPoints::new(Arc::new(move |actor| {
            let fire = {
                let mut set = trap.0.lock().unwrap();
                match set.get_mut(actor) {
                    Some(0) => set.remove(actor).is_some(),
                    Some(left) => {
                        *left -= 1;
                        false
                    }
                    None => false,
                }
            };
            assert!(!fire, "a fault injected into the {actor}");
        }))
    }
}

fn prompt(text: impl Into<String>) -> Submission {
    Submission::prompt(text).unwrap()
}

async fn restarts_seen(lane: &Orchestrator) -> u64 {
    lane.lane().await.unwrap().generation - 1
}

#[tokio::test(start_paused = true)]
async fn a_job_is_called_and_answered() {
    let world = VirtualLane::new(ScriptedGlm::answering(ms(100)));
    let lane = world.start().await;
    let record = lane.call(prompt("hello")).await.unwrap();
    assert_eq!(record.job.status, JobStatus::Completed);
    assert!(record.response.is_some());
    assert_eq!(world.glm.calls(), [record.job.id]);
    assert!(lane.shutdown(ms(1_000)).await.drained);
    assert!(matches!(
        lane.submit(prompt("late")).await,
        Err(Error::Stopped(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn every_actor_can_fail_under_load_and_every_waiter_gets_its_answer() {
    for actor in ["queue", "breaker", "cost", "caller", "store"] {
        let trap = Trap::default();
        let mut world = VirtualLane::new(ScriptedGlm::answering(ms(50)));
        world.fault_points = trap.fault_points();
        let lane = world.start().await;
        trap.set(actor, 5);
        let calls: Vec<_> = (0..20)
            .map(|n| {
                let lane = lane.clone();
                tokio::spawn(async move { lane.call(prompt(format!("{n}"))).await })
            })
            .collect();
        for call in calls {
            let record = call
                .await
                .unwrap()
                .unwrap_or_else(|e| panic!("{actor}: {e}"));
            assert_eq!(record.job.status, JobStatus::Completed, "{actor}");
        }
        assert!(restarts_seen(&lane).await >= 1, "{actor} was restarted");
        assert_eq!(world.glm.peak(), 1, "{actor}");
        let interrupted = world.glm.calls().len() - 20;
        assert!(
            interrupted <= 1,
            "{actor}: {interrupted} calls were made twice"
        );
        lane.shutdown(ms(1_000)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_call_survives_the_failure_of_the_queue() {
    let trap = Trap::default();
    let mut world = VirtualLane::new(ScriptedGlm::answering(ms(10_000)));
    world.fault_points = trap.fault_points();
    let lane = world.start().await;
    let submitted = lane.submit(prompt("long")).await.unwrap();
    tokio::time::sleep(ms(1_000)).await;
    trap.set("queue", 0);
    // Any message makes it fail; this one is asked again.
    lane.lane().await.unwrap();
    let record = lane.wait(submitted.job_id).await.unwrap();
    assert_eq!(record.job.status, JobStatus::Completed);
    assert_eq!(world.glm.calls().len(), 1, "the call was not made twice");
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn actors_that_fail_at_random_lose_nothing() {
    let failures: Arc<Mutex<BTreeMap<&'static str, u64>>> = Arc::default();
    let failed_so_far = Arc::clone(&failures);
    // A plain generator: the test must not draw from the lane's own seeds.
    let state = Arc::new(AtomicU64::new(0x5eed));
    let mut world = VirtualLane::new(ScriptedGlm::new(|n, _| match n % 9 {
        3 => (ms(20), failed(FailureClass::ServerTransient, "500")),
        _ => (ms(20), answer()),
    }));
    world.settings.lane.quarantine_after = 1_000;
    world.settings.retry.max_retries = 100;
    world.settings.breaker.cool_down_ms = 200;
    world.budget = GENEROUS;
    world.fault_points = FaultPoints::new(Arc::new(move |actor| {
        let mut x = state.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.store(x, Ordering::Relaxed);
        let fire = x.is_multiple_of(97);
        if fire {
            *failed_so_far.lock().unwrap().entry(actor).or_default() += 1;
        }
        assert!(!fire, "a fault injected into the {actor}");
    }));
    let lane = world.start().await;
    // Which actor a draw hits depends on who gets its messages when: until each was hit.
    let mut rounds = 0;
    while failures.lock().unwrap().len() < 5 {
        let calls: Vec<_> = (0..300)
            .map(|n| {
                let lane = lane.clone();
                tokio::spawn(async move { lane.call(prompt(format!("{rounds} {n}"))).await })
            })
            .collect();
        for call in calls {
            assert_eq!(
                call.await.unwrap().unwrap().job.status,
                JobStatus::Completed
            );
        }
        rounds += 1;
        assert!(rounds < 50, "{:?}", failures.lock().unwrap());
    }
    assert_eq!(world.glm.peak(), 1);
}

#[tokio::test(start_paused = true)]
async fn too_many_restarts_end_the_lane_with_the_reason() {
    let mut world = VirtualLane::new(ScriptedGlm::answering(ms(10)));
    let trap = Trap::default();
    world.fault_points = trap.fault_points();
    let lane = world.start().await;
    for _ in 0..6 {
        trap.set("queue", 0);
        let _ = lane.lane().await;
    }
    match lane.stopped().await {
        StopReason::Failed(reason) => assert!(reason.contains("queue"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        lane.submit(prompt("late")).await,
        Err(Error::Stopped(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_commit_error_is_told_and_the_lane_recovers() {
    let store = Arc::new(MemoryStore::new());
    let mut world = VirtualLane::new(ScriptedGlm::answering(ms(10)));
    world.store = Arc::clone(&store) as Arc<_>;
    let lane = world.start().await;
    let full = StoreError::Full {
        path: "test.redb".to_owned(),
        message: "no space".to_owned(),
    };
    for fate in [CommitFate::Lost, CommitFate::Kept] {
        store.fail_next_commit(full.clone(), fate);
        let told = lane
            .submit(prompt("one").idempotency_key(format!("{fate:?}")))
            .await;
        assert!(matches!(told, Err(Error::Store(_))), "{told:?}");
        // Asked again with the same key, it is there once.
        let again = lane
            .submit(prompt("one").idempotency_key(format!("{fate:?}")))
            .await
            .unwrap();
        assert_eq!(again.created, matches!(fate, CommitFate::Lost));
        let record = lane.wait(again.job_id).await.unwrap();
        assert_eq!(record.job.status, JobStatus::Completed);
    }
    assert_eq!(lane.queue_status().await.unwrap().completed, 2);
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_listener_is_told_what_it_missed() {
    let world = VirtualLane::new(ScriptedGlm::answering(ms(1)));
    let lane = world.start().await;
    let mut slow = lane.subscribe();
    let mut quick = lane.subscribe();
    let counter = tokio::spawn(async move {
        let mut sent = 0;
        while let Some(feed) = quick.next().await {
            assert!(
                matches!(feed, Feed::Event(..)),
                "who reads at once misses none"
            );
            sent += 1;
        }
        sent
    });
    let jobs = (0..2_000).map(|n| prompt(format!("{n}"))).collect();
    let mut last = None;
    for submitted in lane.submit_many(jobs).await.unwrap() {
        let id = submitted.unwrap().job_id;
        lane.wait(id).await.unwrap();
        last = Some(id);
    }
    lane.shutdown(ms(1_000)).await;
    drop(lane);
    let sent: u64 = counter.await.unwrap();
    assert!(sent > EVENTS_BUFFERED_MAX as u64, "{sent} are too few");
    let (mut read, mut missed) = (0, 0);
    let mut last_completed = None;
    while let Some(feed) = slow.next().await {
        match feed {
            Feed::Missed(count) => missed += count,
            Feed::Event(_, event) => {
                read += 1;
                if let Event::JobCompleted { job_id, .. } = *event {
                    last_completed = Some(job_id);
                }
            }
        }
    }
    assert!(missed > 0);
    assert_eq!(missed + read, sent);
    assert_eq!(last_completed, last, "what is left is the latest");
}

#[tokio::test]
async fn a_lane_whose_last_handle_is_dropped_stops_and_lets_go_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = onelane::config::Config::default();
    config.store.path = dir.path().join("lane.redb").to_str().unwrap().to_owned();
    config.glm.api_key = Some(onelane::model::Secret::new("a-key.of-a-test"));
    config.glm.is_active = false;
    let lane = Orchestrator::start(&config).await.unwrap();
    let job_id = lane.submit(prompt("kept")).await.unwrap().job_id;
    drop(lane);
    let begun = std::time::Instant::now();
    let lane = loop {
        match Orchestrator::start(&config).await {
            Ok(lane) => break lane,
            Err(error) => {
                assert!(error.to_string().contains("in use"), "{error}");
                assert!(begun.elapsed() < ms(10_000), "the file was never let go");
                tokio::time::sleep(ms(10)).await;
            }
        }
    };
    let detail = lane.job(job_id).await.unwrap();
    assert_eq!(detail.record.job.status, JobStatus::Pending);
    lane.shutdown(ms(1_000)).await;
}
