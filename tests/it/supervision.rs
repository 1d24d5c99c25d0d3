//! Guards: a failing actor is restarted with those after it, no acknowledged job is lost, waiters
//! still get their answers, and two calls are never open.

use std::sync::Arc;

use onelane::error::Error;
use onelane::model::JobStatus;
use onelane::orchestrator::{Feed, Orchestrator};
use onelane_actors::ports::{CallFilter, Store as _, StoreError};
use onelane_actors::testing::{CommitFate, MemoryStore, ScriptedGlm, answer};
use onelane_core::model::limits::EVENTS_BUFFERED_MAX;
use onelane_core::model::{Event, WaitReason};

use crate::support::http::{completed, prompt, prompts, stop, submit, submit_all};
use crate::support::{VirtualLane, ms};

#[tokio::test(start_paused = true)]
async fn a_commit_error_is_told_and_the_lane_recovers() {
    let store = Arc::new(MemoryStore::new());
    let mut world = VirtualLane::new(ScriptedGlm::answering(ms(10)));
    world.store = Arc::clone(&store) as Arc<_>;
    let lane = world.start().await;
    let broken = StoreError::Io {
        path: "test.redb".to_owned(),
        message: "no disk".to_owned(),
    };
    for fate in [CommitFate::Lost, CommitFate::Kept] {
        store.fail_next_commit(broken.clone(), fate);
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
        completed(&lane, again.job_id).await;
    }
    assert_eq!(lane.queue_status().await.unwrap().completed, 2);
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_waited_out_and_the_outcome_of_an_open_call_is_kept() {
    for fate in [CommitFate::Lost, CommitFate::Kept] {
        let store = Arc::new(MemoryStore::new());
        let mut world = VirtualLane::new(ScriptedGlm::answering(ms(1_000)));
        world.store = Arc::clone(&store) as Arc<_>;
        if fate == CommitFate::Lost {
            // It takes no restart.
            world.budget.max = 0;
        }
        let lane = world.start().await;
        let full = StoreError::Full {
            path: "test.redb".to_owned(),
            message: "no space".to_owned(),
        };
        let jobs = submit_all(&lane, prompts(3)).await;
        tokio::time::sleep(ms(500)).await;
        store.fail_next_commit(full.clone(), fate);
        let told = lane.submit(prompt("too much")).await;
        assert!(
            matches!(told, Err(Error::Store(StoreError::Full { .. }))),
            "{told:?}"
        );
        // Who asked hears it first, the lane a moment later.
        tokio::time::sleep(ms(1)).await;
        let status = lane.lane().await.unwrap();
        assert!(status.disk_full);
        assert_eq!(status.wait_reason, Some(WaitReason::DiskFull));
        assert!(lane.submit(prompt("still too much")).await.is_err());
        for job in jobs {
            completed(&lane, job).await;
        }
        // The end of a call finds the disk full.
        let job = submit(&lane, prompt("paid")).await;
        tokio::time::sleep(ms(500)).await;
        store.fail_next_commit(full.clone(), fate);
        completed(&lane, job).await;
        // Here, too.
        tokio::time::sleep(ms(1)).await;
        assert!(!lane.lane().await.unwrap().disk_full);
        submit(&lane, prompt("room")).await;
        stop(lane, 10_000).await;
        // Every call is on record with its answer, and none was made twice.
        let calls = store
            .calls(&CallFilter::default(), None, 100)
            .unwrap()
            .calls;
        let failed: Vec<_> = calls.iter().filter(|c| c.failure.is_some()).collect();
        assert!(failed.is_empty() || fate == CommitFate::Kept, "{failed:?}");
        let jobs = store.counts().unwrap();
        assert_eq!(calls.len() as u64, jobs.completed, "{fate:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_came_in_unheard_while_the_disk_was_full_does_not_stay_open() {
    let store = Arc::new(MemoryStore::new());
    let mut world = VirtualLane::new(ScriptedGlm::answering(ms(10)));
    world.store = Arc::clone(&store) as Arc<_>;
    let lane = world.start().await;
    completed(&lane, submit(&lane, prompt("before")).await).await;
    // The lane is idle: the next job is put on disk together with its start.
    tokio::time::sleep(ms(100)).await;
    let full = StoreError::Full {
        path: "test.redb".to_owned(),
        message: "no space".to_owned(),
    };
    store.fail_next_commit(full, CommitFate::Kept);
    let told = lane.submit(prompt("unheard")).await;
    assert!(
        matches!(told, Err(Error::Store(StoreError::Full { .. }))),
        "{told:?}"
    );
    assert_eq!(store.counts().unwrap().processing, 1, "it came in");
    tokio::time::sleep(ms(60_000)).await;
    let counts = store.counts().unwrap();
    assert_eq!((counts.processing, counts.completed), (0, 2));
    stop(lane, 1_000).await;
}

fn full() -> StoreError {
    StoreError::Full {
        path: "test.redb".to_owned(),
        message: "no space".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_full_disk_kept_although_nobody_heard_of_it_is_done_when_there_is_room() {
    let store = Arc::new(MemoryStore::new());
    let mut world = VirtualLane::new(ScriptedGlm::answering(ms(10_000)));
    world.store = Arc::clone(&store) as Arc<_>;
    let lane = world.start().await;
    let given_up = submit(&lane, prompt("given up").priority(-1)).await;
    let open = submit(&lane, prompt("open")).await;
    lane.cancel(given_up).await.unwrap();
    // Beside an open call a job goes to the store alone.
    tokio::time::sleep(ms(500)).await;
    store.fail_next_commit(full(), CommitFate::Kept);
    assert!(lane.submit(prompt("unheard")).await.is_err());
    tokio::time::sleep(ms(30_000)).await;
    assert_eq!(store.counts().unwrap().completed, 2);
    // Nor is one forgotten that somebody puts back in line.
    store.fail_next_commit(full(), CommitFate::Kept);
    let _ = lane.retry(given_up).await;
    tokio::time::sleep(ms(30_000)).await;
    let counts = store.counts().unwrap();
    assert_eq!((counts.completed, counts.total()), (3, 3));
    completed(&lane, open).await;
    stop(lane, 1_000).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_found_the_disk_full_is_fetched_when_there_is_room() {
    for fate in [CommitFate::Lost, CommitFate::Kept] {
        let store = Arc::new(MemoryStore::new());
        let glm =
            ScriptedGlm::with_submissions(|_, _| (ms(5_000), answer()), |_, _| (ms(1_000), Ok(())));
        let mut world = VirtualLane::new(glm);
        world.settings.glm.async_models = vec![world.settings.glm.model.clone()];
        world.store = Arc::clone(&store) as Arc<_>;
        let lane = world.start().await;
        let job = submit(&lane, prompt("long")).await;
        // It is handed over; the next commit notes the task.
        tokio::time::sleep(ms(500)).await;
        store.fail_next_commit(full(), fate);
        tokio::time::sleep(ms(60_000)).await;
        completed(&lane, job).await;
        let calls = store.calls(&CallFilter::default(), None, 10).unwrap();
        assert_eq!(calls.calls.len(), 1, "{fate:?}: it was bought once");
        stop(lane, 1_000).await;
    }
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
            // Who reads at once misses none.
            assert!(matches!(feed, Feed::Event(..)));
            sent += 1;
        }
        sent
    });
    let jobs = submit_all(&lane, prompts(2_000)).await;
    for id in &jobs {
        lane.wait(*id).await.unwrap();
    }
    stop(lane, 1_000).await;
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
    // What is left is the latest.
    assert_eq!(last_completed.as_ref(), jobs.last());
}

#[tokio::test]
async fn a_lane_whose_last_handle_is_dropped_stops_and_lets_go_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = onelane::config::Config::default();
    config.store.path = dir.path().join("lane.redb").to_str().unwrap().to_owned();
    config.glm.api_key = Some(onelane::model::Secret::new("a-key.of-a-test"));
    config.glm.is_active = false;
    let lane = Orchestrator::start(&config).await.unwrap();
    let job_id = submit(&lane, prompt("kept")).await;
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
