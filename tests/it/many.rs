//! Guards: a change of many jobs that misses one, meets one twice, counts what it did not change, or
//! does to every job what was meant for a few.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use onelane::error::Error;
use onelane::model::{JobId, JobStatus, Submission};
use onelane::orchestrator::{Orchestrator, Selection};
use onelane::ports::{JobFilter, MoreFilter, Store};
use onelane::simulator::{Fault, Rule};
use onelane_actors::FaultPoints;
use onelane_actors::testing::{MemoryStore, ScriptedGlm, sample};
use serde_json::json;

use crate::support::api::Api;
use crate::support::http::{HttpLane, prompt, served, until, until_completed};
use crate::support::{GENEROUS, VirtualLane, ms};

fn named(ids: &[JobId]) -> Selection {
    Selection::Matching(JobFilter {
        more: MoreFilter {
            ids: Some(ids.to_vec()),
            ..MoreFilter::default()
        },
        ..JobFilter::default()
    })
}

/// A lane that is paused, with so many waiting jobs of either user, in turns.
async fn waiting(world: &VirtualLane, of_each: usize) -> Orchestrator {
    let lane = world.start().await;
    lane.pause(None).await.unwrap();
    let user = |n| if n % 2 == 0 { "ada" } else { "bob" };
    let job = |n| prompt(format!("{n}")).user(user(n));
    let jobs: Vec<Submission> = (0..2 * of_each).map(job).collect();
    let answers = lane.submit_many(jobs).await.unwrap();
    assert!(answers.iter().all(Result::is_ok));
    lane
}

#[tokio::test(start_paused = true)]
async fn nothing_said_is_nobody_and_a_name_is_one_job() {
    let world = VirtualLane::new(ScriptedGlm::answering(ms(1)));
    let lane = waiting(&world, 3).await;
    let typo = lane.cancel_all(JobFilter::default(), false).await;
    assert!(
        matches!(&typo, Err(Error::Invalid { field, .. }) if field == "filter"),
        "{typo:?}"
    );
    let page = lane.jobs(JobFilter::default(), None, 10).await.unwrap();
    let ids: Vec<JobId> = page.jobs.iter().map(|record| record.job.id).collect();
    assert_eq!(lane.cancel_all(named(&[]), false).await.unwrap(), 0);
    let twice = named(&[ids[0], ids[0], sample::job_id(99)]);
    assert_eq!(lane.cancel_all(twice.clone(), true).await.unwrap(), 1);
    assert_eq!(lane.cancel_all(twice, false).await.unwrap(), 1);
    assert_eq!(lane.queue_status().await.unwrap().cancelled, 1);
    lane.shutdown(ms(1_000)).await;
}

/// Three jobs, each after the one before; the first failed, and the others with it.
fn failed_chain() -> Arc<MemoryStore> {
    let store = MemoryStore::new();
    let after = |n: u64, before: u64| {
        sample::insert_with(n, |new| new.job.after = vec![sample::job_id(before)])
    };
    let made = store
        .commit(&[
            sample::insert(1),
            after(2, 1),
            after(3, 2),
            sample::stage(1),
            sample::start(1),
            sample::fail(1, 1),
        ])
        .unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    assert_eq!(store.counts().unwrap().failed, 3);
    Arc::new(store)
}

#[tokio::test(start_paused = true)]
async fn a_chain_comes_back_from_its_beginning_and_goes_from_its_end() {
    let mut world = VirtualLane::new(ScriptedGlm::answering(ms(1)));
    world.store = failed_chain();
    let lane = world.start().await;
    lane.pause(None).await.unwrap();
    let ids: Vec<JobId> = (1..=3).map(sample::job_id).collect();
    assert_eq!(lane.retry_all(Selection::All, true).await.unwrap(), 3);
    assert_eq!(lane.retry_all(Selection::All, false).await.unwrap(), 3);
    for (n, before) in [(1, 0), (2, 1)] {
        let job = lane.job(ids[n]).await.unwrap().record.job;
        assert_eq!(job.status, JobStatus::Pending);
        assert_eq!(job.waits_for, [ids[before]]);
    }
    // Each is cancelled, and counted, before the one that would take it along.
    assert_eq!(lane.cancel_all(Selection::All, false).await.unwrap(), 3);
    assert_eq!(lane.queue_status().await.unwrap().cancelled, 3);
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_dies_in_the_middle_loses_no_change() {
    let messages = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&messages);
    let mut world = VirtualLane::new(ScriptedGlm::answering(ms(1)));
    world.budget = GENEROUS;
    world.fault_points = FaultPoints::new(Arc::new(move |actor| {
        if actor == "queue" && seen.fetch_add(1, Ordering::SeqCst) == 500 {
            panic!("planned by the test");
        }
    }));
    let lane = waiting(&world, 300).await;
    messages.store(400, Ordering::SeqCst);
    let count = lane.cancel_all(Selection::All, false).await.unwrap();
    assert!(messages.load(Ordering::SeqCst) > 500, "it died");
    assert_eq!(count, 600);
    assert_eq!(lane.queue_status().await.unwrap().cancelled, 600);
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_does_not_stop_the_change_it_asked_for() {
    const JOBS: u64 = 3_000;
    let (_world, lane, api) = served().await;
    lane.pause(None).await.unwrap();
    let jobs = (0..JOBS).map(|n| prompt(format!("waits {n}"))).collect();
    let answers = lane.submit_many(jobs).await.unwrap();
    assert!(answers.iter().all(Result::is_ok));
    let asking = tokio::spawn(
        api.posting("/api/admin/glm/cancel", r#"{"all":true}"#)
            .send(),
    );
    let cancelled = async || lane.queue_status().await.unwrap().cancelled;
    until("it has begun", async || cancelled().await > 0).await;
    asking.abort();
    until("it is done", async || cancelled().await == JOBS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_with_their_history_and_brought_back_together() {
    let mut world = HttpLane::new();
    world.config.breaker.consecutive_failures = 100;
    world.rule(Rule::for_prompt("doomed", Fault::error("1234")));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    for user in ["ada", "ada", "bob"] {
        let mut doomed = prompt("doomed").user(user);
        doomed.max_retries = Some(1);
        let _ = lane.call(doomed).await;
    }
    lane.call(prompt("fine")).await.unwrap();
    let page = api.get("/api/admin/glm/dead-letters?limit=2").await;
    let page = page.expect(200);
    assert_eq!(page["total"], 3);
    let letters = page["deadLetters"].as_array().unwrap();
    let users: Vec<_> = letters.iter().map(|job| &job["userId"]).collect();
    assert_eq!(users, ["bob", "ada"], "newest first");
    for letter in letters {
        assert_eq!(letter["error"]["code"], "1234");
        let attempts = letter["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 2, "one and a retry");
        assert_eq!(attempts[0]["attempt"], 1, "oldest first");
    }
    let cursor = page["nextCursor"].as_str().unwrap();
    let rest = api
        .get(&format!(
            "/api/admin/glm/dead-letters?limit=2&cursor={cursor}"
        ))
        .await
        .expect(200);
    assert_eq!(rest["deadLetters"].as_array().unwrap().len(), 1);
    assert_eq!(rest["nextCursor"], json!(null));

    world.sim.clear_script();
    let retry = "/api/admin/glm/retry";
    let of_ada = r#"{"filter":{"status":"failed","userId":"ada"},"dryRun":true}"#;
    let dry = api.post(retry, of_ada).await.expect(200);
    assert_eq!(dry, json!({"count": 2, "dryRun": true}));
    api.post(retry, "{}").await.expect(400);
    let of_all = r#"{"filter":{"status":"failed"}}"#;
    let done = api.post(retry, of_all).await.expect(200);
    assert_eq!(done, json!({"count": 3, "dryRun": false}));
    until_completed(&lane, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_calls_are_closed_when_all_jobs_are_cancelled() {
    let (world, lane, api) = served().await;
    world.block(&lane).await;
    for n in 0..3 {
        lane.submit(prompt(format!("waits {n}"))).await.unwrap();
    }
    let done = api.post("/api/admin/glm/cancel", r#"{"all":true}"#).await;
    assert_eq!(done.expect(200), json!({"count": 4, "dryRun": false}));
    let counts = lane.queue_status().await.unwrap();
    assert_eq!(counts.cancelled, 4);
    assert_eq!(counts.pending, 0);
    assert_eq!(counts.processing, 0);
    let stats = world.sim.stats();
    assert_eq!((stats.calls, stats.clients_left), (1, 1));
}
