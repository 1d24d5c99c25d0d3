//! Retention: what is old goes while the lane works, live settings rule, and nothing that counts is lost.

use onelane::error::Error;
use onelane::model::{
    Amount, Budget, BudgetRules, BudgetScope, JobId, JobStatus, Retention, Submission,
};
use onelane::orchestrator::Orchestrator;
use onelane::ports::{CallFilter, UsageFilter};
use onelane_actors::testing::ScriptedGlm;
use serde_json::json;

use crate::support::file::FileLane;
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
    tokio::time::sleep(ms(4 * DAY_MS)).await;
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

const MINUTE_MS: u64 = 60_000;

async fn is_doubted(lane: &Orchestrator) -> bool {
    lane.metrics().await.unwrap().clock_in_doubt
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_ahead_at_a_start_prunes_nothing_until_it_kept_step_whatever_ran_before_and_restarts()
 {
    let mut file = FileLane::new(ScriptedGlm::answering(ms(1)));
    file.world.settings.retention = Retention {
        jobs_days: 2,
        calls_days: 2,
        ..Retention::default()
    };
    let lane = file.start().await;
    done(&lane, 5).await;
    assert!(!is_doubted(&lane).await);
    file.shut_down(lane).await;
    file.world.clock.step(30 * DAY_MS.cast_signed());
    // Jobs that run by a clock that is wrong do not make it right, nor does a restart.
    for jobs in 6..9 {
        let lane = file.start().await;
        done(&lane, 1).await;
        for _ in 0..9 {
            tokio::time::sleep(ms(MINUTE_MS)).await;
            assert!(is_doubted(&lane).await);
        }
        assert_eq!(calls(&lane).await, jobs, "nothing is pruned");
        file.crash(lane);
    }
    let lane = file.start().await;
    tokio::time::sleep(ms(9 * MINUTE_MS)).await;
    assert_eq!(calls(&lane).await, 8);
    // A step begins the ten minutes anew.
    file.world.clock.step(DAY_MS.cast_signed());
    tokio::time::sleep(ms(9 * MINUTE_MS)).await;
    assert_eq!(calls(&lane).await, 8);
    tokio::time::sleep(ms(4 * MINUTE_MS)).await;
    assert!(!is_doubted(&lane).await);
    assert_eq!(calls(&lane).await, 3, "those of the weeks before are gone");
    file.shut_down(lane).await;
    let lane = file.start().await;
    assert!(!is_doubted(&lane).await, "it is believed from now on");
    file.shut_down(lane).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_put_right_is_believed_and_has_pruned_nothing() {
    let mut file = FileLane::new(ScriptedGlm::answering(ms(1)));
    file.world.settings.retention = Retention {
        jobs_days: 1,
        calls_days: 1,
        ..Retention::default()
    };
    let lane = file.start().await;
    done(&lane, 5).await;
    file.crash(lane);
    file.world.clock.step(300 * DAY_MS.cast_signed());
    let lane = file.start().await;
    done(&lane, 1).await;
    tokio::time::sleep(ms(5 * MINUTE_MS)).await;
    assert!(is_doubted(&lane).await);
    file.world.clock.step(-300 * DAY_MS.cast_signed());
    tokio::time::sleep(ms(MINUTE_MS)).await;
    assert!(!is_doubted(&lane).await);
    tokio::time::sleep(ms(30 * MINUTE_MS)).await;
    assert_eq!(calls(&lane).await, 6);
    file.shut_down(lane).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_days_ahead_prunes_nothing_for_now_and_budgets_follow_it_at_once() {
    let mut world = VirtualLane::new(ScriptedGlm::answering(ms(1)));
    world.settings.retention = Retention {
        jobs_days: 1,
        calls_days: 1,
        ..Retention::default()
    };
    world.settings.glm.max_tokens = Some(10);
    world.settings.budgets = vec![Budget {
        key: None,
        name: "day".to_owned(),
        users: BudgetScope::All,
        models: BudgetScope::All,
        limit: Amount::Tokens(100),
        rules: BudgetRules::default(),
    }];
    let lane = world.start().await;
    for n in 0..60 {
        let prompt = Submission::prompt(format!("prompt {n}")).unwrap();
        lane.submit(prompt).await.unwrap();
    }
    tokio::time::sleep(ms(5_000)).await;
    let before = lane.queue_status().await.unwrap();
    assert!(before.completed > 0 && before.pending > 0, "{before:?}");
    world.clock.step(3 * DAY_MS.cast_signed());
    tokio::time::sleep(ms(3_000)).await;
    let after = lane.queue_status().await.unwrap();
    assert!(after.completed > before.completed, "{after:?}");
    tokio::time::sleep(ms(8 * MINUTE_MS)).await;
    let (kept, ran) = (
        calls(&lane).await as u64,
        lane.queue_status().await.unwrap(),
    );
    assert_eq!(kept, ran.completed, "nothing is pruned");
    // And back: the day that was spent is spent.
    world.clock.step(-3 * DAY_MS.cast_signed());
    tokio::time::sleep(ms(3_000)).await;
    assert_eq!(lane.queue_status().await.unwrap(), ran);
}
