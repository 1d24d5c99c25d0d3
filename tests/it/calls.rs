//! Guards: a call that is paid for a caller who is gone; one with a key that is lost with its caller; a
//! deadline that only somebody with a clock can set.

use onelane::error::Error;
use onelane::model::{CallOutcome, JobId, JobStatus, code};
use onelane::orchestrator::Orchestrator;
use onelane::ports::{CallFilter, JobFilter};
use onelane_actors::ports::Clock as _;
use onelane_actors::testing::{ScriptedGlm, answer};

use crate::support::http::{calling, ended, prompt, submit};
use crate::support::{START, VirtualLane, ms};

const LONG_MS: u64 = 60_000;

async fn newest(lane: &Orchestrator) -> JobId {
    let page = lane.jobs(JobFilter::default(), None, 1).await.unwrap();
    page.jobs[0].job.id
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_while_its_job_waits_is_never_made() {
    let world = VirtualLane::new(ScriptedGlm::answering(ms(LONG_MS)));
    let lane = world.start().await;
    let blocker = submit(&lane, prompt("blocker")).await;
    let dropped = calling(&lane, prompt("nobody waits"));
    tokio::time::sleep(ms(100)).await;
    let id = newest(&lane).await;
    assert_ne!(id, blocker);
    dropped.abort();
    ended(&lane, id, JobStatus::Cancelled).await;
    lane.wait(blocker).await.unwrap();

    // Even before it has an id: the future is asked once.
    lane.pause(None).await.unwrap();
    let asked_once = tokio::time::timeout(ms(0), lane.call(prompt("nor here"))).await;
    assert!(asked_once.is_err());
    tokio::time::sleep(ms(100)).await;
    let given_up = lane.wait(newest(&lane).await).await.unwrap();
    assert_ne!(given_up.job.id, id);
    assert_eq!(given_up.job.status, JobStatus::Cancelled);
    lane.resume().await.unwrap();
    tokio::time::sleep(ms(LONG_MS)).await;
    assert_eq!(world.glm.calls(), [blocker]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_in_flight_is_closed() {
    let world = VirtualLane::new(ScriptedGlm::answering(ms(LONG_MS)));
    let lane = world.start().await;
    let dropped = calling(&lane, prompt("nobody waits"));
    tokio::time::sleep(ms(100)).await;
    assert_eq!(world.glm.in_flight(), 1);
    dropped.abort();
    ended(&lane, newest(&lane).await, JobStatus::Cancelled).await;
    assert_eq!(world.glm.in_flight(), 0);
    // It was not waited for.
    assert!(world.clock.now().since(START) < LONG_MS);
    let log = lane.calls(CallFilter::default(), None, 10).await.unwrap();
    let outcomes: Vec<_> = log.calls.iter().map(|call| call.outcome).collect();
    assert_eq!(outcomes, [CallOutcome::Cancelled]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_with_an_idempotency_key_goes_on() {
    let world = VirtualLane::new(ScriptedGlm::answering(ms(LONG_MS)));
    let lane = world.start().await;
    let job = || prompt("keep it").idempotency_key("key");
    let dropped = calling(&lane, job());
    tokio::time::sleep(ms(100)).await;
    let id = newest(&lane).await;
    dropped.abort();
    assert!(dropped.await.is_err(), "it was dropped");
    let again = lane.call(job()).await.unwrap();
    assert_eq!(again.job.id, id);
    assert_eq!(again.job.status, JobStatus::Completed);
    assert_eq!(world.glm.calls(), [id]);
}

#[test]
fn after_a_crash_the_next_start_goes_on_with_a_call_without_a_key() {
    let hangs_first = |number, _: &_| (ms(if number == 0 { 3_600_000 } else { 0 }), answer());
    let world = VirtualLane::new(ScriptedGlm::new(hangs_first));
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let first = runtime();
    let id = first.block_on(async {
        let lane = world.start().await;
        let _open = calling(&lane, prompt("interrupted"));
        while world.glm.in_flight() == 0 {
            tokio::time::sleep(ms(1)).await;
        }
        newest(&lane).await
    });
    // With it goes all that ran, in the middle of what it did.
    drop(first);
    let record = runtime().block_on(async { world.start().await.wait(id).await });
    assert_eq!(record.unwrap().job.status, JobStatus::Completed);
    assert_eq!(world.glm.calls(), [id, id]);
}

#[tokio::test(start_paused = true)]
async fn a_span_becomes_a_deadline_by_the_clock_of_the_lane() {
    let world = VirtualLane::new(ScriptedGlm::answering(ms(LONG_MS)));
    let lane = world.start().await;
    lane.submit(prompt("blocker")).await.unwrap();
    tokio::time::sleep(ms(1_000)).await;
    let called = lane.call(prompt("in a hurry").deadline_in(ms(5_000))).await;
    let Err(Error::JobFailed { job_id, failure }) = called else {
        panic!("{called:?}")
    };
    assert_eq!(failure.code, code::DEADLINE);
    let job = lane.job(job_id).await.unwrap().record.job;
    assert_eq!(job.deadline, Some(job.created_at.plus_ms(5_000)));
    let passed = world.clock.now().since(START);
    assert!((6_000..7_000).contains(&passed), "{passed}");
}
