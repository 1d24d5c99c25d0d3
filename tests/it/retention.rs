//! Retention: what is old goes while the lane works, live settings rule, and nothing that counts is lost.

use onelane::error::Error;
use onelane::model::{JobId, JobStatus, Retention, Submission};
use onelane::orchestrator::Orchestrator;
use onelane::ports::{CallFilter, UsageFilter};
use onelane_actors::testing::ScriptedGlm;
use serde_json::json;

use crate::support::http::{configure, submit};
use crate::support::{VirtualLane, ms};

const DAY_MS: u64 = 86_400_000;

async fn calls(lane: &Orchestrator) -> usize {
    let page = lane.calls(CallFilter::default(), None, 1_000).await;
    page.unwrap().calls.len()
}

async fn done(lane: &Orchestrator, n: usize) -> Vec<JobId> {
    let mut ids = Vec::new();
    for i in 0..n {
        let job = Submission::prompt(format!("prompt {i}")).unwrap();
        ids.push(lane.call(job).await.unwrap().job.id);
    }
    ids
}

/// Waits, on virtual time, until so many jobs are finished.
async fn until_finished(lane: &Orchestrator, jobs: u64) {
    for _ in 0..10_000 {
        if lane.queue_status().await.unwrap().completed == jobs {
            return;
        }
        tokio::time::sleep(ms(10)).await;
    }
    panic!("{:?}", lane.queue_status().await);
}

#[tokio::test(start_paused = true)]
async fn what_is_old_is_pruned_while_the_lane_works_and_the_sums_stay() {
    let mut world = VirtualLane::new(ScriptedGlm::answering(ms(1)));
    world.settings.retention = Retention {
        jobs_days: 2,
        calls_days: 1,
        ..Retention::default()
    };
    let lane = world.start().await;
    // More than one step has to be made.
    let old = done(&lane, 300).await;
    tokio::time::sleep(ms(DAY_MS + 120_000)).await;
    assert_eq!(calls(&lane).await, 0, "calls go first");
    assert_eq!(lane.job(old[0]).await.unwrap().attempts.len(), 0);
    let young = done(&lane, 3).await;
    tokio::time::sleep(ms(DAY_MS)).await;
    until_finished(&lane, 3).await;
    assert!(matches!(lane.job(old[0]).await, Err(Error::NotFound(_))));
    assert_eq!(
        lane.job(young[0]).await.unwrap().record.job.status,
        JobStatus::Completed
    );
    let usage = lane.usage(UsageFilter::default()).await.unwrap();
    assert_eq!(usage.iter().map(|row| row.calls).sum::<u64>(), 303);
    assert!(lane.shutdown(ms(1_000)).await.drained);
}

#[tokio::test(start_paused = true)]
async fn retention_is_changed_while_the_lane_runs() {
    let world = VirtualLane::new(ScriptedGlm::answering(ms(1)));
    let lane = world.start().await;
    let ids = done(&lane, 20).await;
    tokio::time::sleep(ms(10 * DAY_MS)).await;
    assert_eq!(lane.queue_status().await.unwrap().completed, 20, "for ever");
    configure(&lane, json!({"retention": {"bodiesDays": 3}})).await;
    tokio::time::sleep(ms(1_000)).await;
    let detail = lane.job(ids[0]).await.unwrap();
    assert!(detail.record.job.bodies_pruned);
    assert!(detail.record.request.is_none() && detail.record.response.is_none());
    configure(&lane, json!({"retention": {"bodiesDays": 0, "jobsMax": 5}})).await;
    until_finished(&lane, 5).await;
    assert!(matches!(lane.job(ids[14]).await, Err(Error::NotFound(_))));
    assert!(lane.job(ids[15]).await.is_ok(), "the youngest stay");
    assert!(lane.shutdown(ms(1_000)).await.drained);
}

#[tokio::test(start_paused = true)]
async fn a_job_without_its_request_is_not_retried_and_says_why() {
    let mut world = VirtualLane::new(ScriptedGlm::answering(ms(1)));
    world.settings.retention.bodies_days = 1;
    let lane = world.start().await;
    lane.pause(None).await.unwrap();
    let job = Submission::prompt("given up").unwrap();
    let id = submit(&lane, job).await;
    lane.cancel(id).await.unwrap();
    tokio::time::sleep(ms(2 * DAY_MS)).await;
    let error = lane.retry(id).await.unwrap_err();
    assert!(
        matches!(error, Error::RequestPruned(pruned) if pruned == id),
        "{error}"
    );
    assert!(error.to_string().contains("submit it anew"), "{error}");
    assert!(lane.shutdown(ms(1_000)).await.drained);
}

#[tokio::test(start_paused = true)]
async fn what_just_ended_is_not_pruned_for_being_too_many() {
    let mut world = VirtualLane::new(ScriptedGlm::answering(ms(1)));
    world.settings.retention = Retention {
        jobs_max: 1,
        calls_max: 1,
        ..Retention::default()
    };
    let lane = world.start().await;
    done(&lane, 10).await;
    tokio::time::sleep(ms(120_000)).await;
    assert_eq!(lane.queue_status().await.unwrap().completed, 10);
    tokio::time::sleep(ms(600_000)).await;
    until_finished(&lane, 1).await;
    assert_eq!(calls(&lane).await, 1);
    assert!(lane.shutdown(ms(1_000)).await.drained);
}
