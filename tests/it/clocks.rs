//! Guards: somebody is told of a wait that is longer than it is, since the clock was set back meanwhile.

use onelane::model::{FailureClass, Timestamp, WaitReason, code};
use onelane::orchestrator::Orchestrator;
use onelane::ports::{Clock as _, JobFilter};
use onelane_actors::testing::{ScriptedGlm, failed};

use crate::support::http::prompt;
use crate::support::{VirtualLane, ms};

const HOUR_MS: i64 = 3_600_000;
const DELAY_MS: u64 = 60_000;

/// A lane that was told once so, with a job that waits for it; and then the clock is set back by hours.
async fn set_back(class: FailureClass, code: &'static str) -> (VirtualLane, Orchestrator) {
    let glm = ScriptedGlm::new(move |_, _| (ms(10), failed(class, code)));
    let mut world = VirtualLane::new(glm);
    world.settings.retry.delays.base_delay_ms = DELAY_MS;
    world.settings.retry.delays.max_delay_ms = DELAY_MS;
    world.settings.retry.throttle.base_ms = DELAY_MS;
    world.settings.breaker.cool_down_ms = DELAY_MS;
    world.settings.breaker.consecutive_failures = match code {
        "500" => 1,
        _ => 100,
    };
    let lane = world.start().await;
    lane.submit(prompt("x")).await.unwrap();
    tokio::time::sleep(ms(1_000)).await;
    assert_eq!(world.glm.calls().len(), 1);
    world.clock.step(-5 * HOUR_MS);
    (world, lane)
}

#[track_caller]
fn soon(world: &VirtualLane, until: Option<Timestamp>) {
    let left = until.expect("it has an end").since(world.clock.now());
    assert!((1..=DELAY_MS).contains(&left), "{left}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_told_to_be_due_after_its_delay_wherever_it_is_shown() {
    let (world, lane) = set_back(FailureClass::ServerTransient, code::CONNECTION).await;
    let page = lane.jobs(JobFilter::default(), None, 10).await.unwrap();
    let due = |job: &onelane::model::Job| job.next_retry_at.map(|wait| wait.until);
    let [record] = &*page.jobs else {
        panic!("{page:?}")
    };
    soon(&world, due(&record.job));
    let detail = lane.job(record.job.id).await.unwrap();
    soon(&world, due(&detail.record.job));
    soon(&world, detail.wait_reason.and_then(|reason| reason.until()));
    let in_order = lane.jobs_in_service_order(JobFilter::default(), 10).await;
    soon(&world, due(&in_order.unwrap().jobs[0].job));
    let reasons = lane.wait_reasons([&record.job]).await;
    soon(&world, reasons[&record.job.id].until());
}

#[tokio::test(start_paused = true)]
async fn a_hold_and_a_breaker_are_told_to_end_after_their_delay() {
    let (world, lane) = set_back(FailureClass::Throttle, "1302").await;
    let told = lane.lane().await.unwrap();
    let reason = told.wait_reason.unwrap();
    assert!(matches!(reason, WaitReason::Hold(_)), "{reason}");
    soon(&world, reason.until());
    // So a client that would wait for longer than that is not told that it waits in vain.
    assert!(!reason.outlasts(DELAY_MS, world.clock.now()));

    let (world, lane) = set_back(FailureClass::ServerTransient, "500").await;
    let told = lane.lane().await.unwrap();
    let reason = told.wait_reason.unwrap();
    assert!(matches!(reason, WaitReason::Breaker { .. }), "{reason}");
    soon(&world, reason.until());
}
