//! Guards: a caller that waits for ever, or is not told why it waited in vain; a job that is tried for
//! ever; a call that begins before the late one before it has ended.

use onelane::config::Config;
use onelane::error::Error;
use onelane::model::{
    BreakerState, Event, Failure, FailureClass, HoldKind, HoldScope, JobStatus, Submission,
};
use onelane::orchestrator::Orchestrator;
use onelane::ports::Clock as _;
use onelane::simulator::{ErrorFault, Fault};
use onelane::system::SystemClock;
use serde_json::json;

use crate::support::api::Api;
use crate::support::http::{
    HttpLane, calls_of, configure, next_event, prompt, started, submit, until,
};
use crate::support::shows;

/// A job that must be done within so many milliseconds.
fn within(deadline_ms: u64) -> Submission {
    prompt("in a hurry").deadline(SystemClock.now().plus_ms(deadline_ms))
}

/// A world in which what stops lasts longer than any test.
fn slow_to_forgive() -> HttpLane {
    const LONG_MS: u64 = 600_000;
    let mut world = HttpLane::new();
    let Config { retry, breaker, .. } = &mut world.config;
    (retry.throttle.base_ms, retry.throttle.max_ms) = (LONG_MS, LONG_MS);
    (retry.overload.base_ms, retry.overload.max_ms) = (LONG_MS, LONG_MS);
    (retry.delays.base_delay_ms, retry.delays.max_delay_ms) = (LONG_MS, LONG_MS);
    (breaker.cool_down_ms, breaker.cool_down_max_ms) = (LONG_MS, LONG_MS);
    breaker.consecutive_failures = 1;
    world
}

fn failure_of(called: Result<onelane::ports::JobRecord, Error>) -> Box<Failure> {
    match called {
        Err(Error::JobFailed { failure, .. }) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_deadline_passes_behind_a_stop_is_told_which_and_the_others_wait() {
    let in_an_hour = Fault::Error(ErrorFault {
        reset_in_ms: Some(3_600_000),
        ..ErrorFault::of("1308")
    });
    for (fault, why) in [
        (
            Fault::error("1113"),
            [
                "GLM takes nothing until an operator acts: 1113: ",
                " [in arrears: no balance",
            ],
        ),
        (in_an_hour, ["quota is used up until 2", " [plan window"]),
        (
            Fault::error("1302"),
            ["lane default: cooling down until 2", ": 1302: "],
        ),
        (
            Fault::error("1305"),
            ["model glm-4.7: cooling down until 2", ": 1305: "],
        ),
        (
            Fault::error("1311"),
            ["model glm-4.7 is held until an operator acts: 1311: ", ""],
        ),
        (
            Fault::error("1234"),
            ["breaker is open, next try at 2", ": 1234 "],
        ),
    ] {
        let world = slow_to_forgive();
        world.sim.push_fault(fault);
        let lane = world.start().await;
        let patient = submit(&lane, prompt("patient")).await;
        until("the first call has ended", async || {
            calls_of(&lane).await.len() == 1
        })
        .await;
        is_told(&lane, why).await;
        assert_eq!(world.sim.stats().calls, 1, "{why:?}");
        let job = lane.job(patient).await.unwrap().record.job;
        assert_eq!(job.status, JobStatus::Pending, "{why:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_deadline_passes_behind_an_operators_word_is_told_that() {
    let (world, lane) = started().await;
    let reason = "incident 7".to_owned();
    lane.breaker_open(reason, None).await.unwrap();
    let why = "an operator opened the breaker: incident 7";
    is_told(&lane, [why, ""]).await;
    lane.breaker_reset().await.unwrap();
    lane.pause(Some("lunch".to_owned())).await.unwrap();
    is_told(&lane, ["paused since 2", ": lunch"]).await;
    lane.resume().await.unwrap();
    configure(&lane, json!({"isActive": false})).await;
    is_told(&lane, ["the lane is switched off", ""]).await;
    assert_eq!(world.sim.stats().calls, 0);
}

/// A call with a deadline fails at it, not before, without an attempt, and its error says why.
async fn is_told(lane: &Orchestrator, why: [&str; 2]) {
    let hurried = within(100);
    let Err(Error::JobFailed { job_id, failure }) = lane.call(hurried).await else {
        panic!("it can't have been done: {why:?}")
    };
    assert_eq!(failure.code, "deadline");
    assert_eq!(failure.class, FailureClass::RequestFatal);
    let text = &failure.message;
    let part = "the job's deadline passed before it was done; ";
    assert!(text.starts_with(part), "{text}");
    assert!(
        why.iter().all(|part| text.contains(part)),
        "{why:?}: {text}"
    );
    let job = lane.job(job_id).await.unwrap();
    let stored = &job.record.job;
    assert!(stored.processed_at.unwrap() >= stored.deadline.unwrap());
    assert!(job.attempts.is_empty(), "{why:?}");
    // Whoever asks over HTTP reads the same.
    let api = Api::serve(lane).await;
    let shown = api
        .get(&format!("/api/glm/jobs/{job_id}"))
        .await
        .expect(200);
    shows!(shown, {"status": "failed", "errorMessage": text});
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_passes_during_the_call_closes_it_and_is_nobodys_fault() {
    let world = slow_to_forgive();
    world.sim.push_fault(Fault::Hang);
    let lane = world.start().await;
    let Err(Error::JobFailed { job_id, failure }) = lane.call(within(1_000)).await else {
        panic!("it can't have been done")
    };
    assert_eq!(failure.code, "deadline");
    let attempts = lane.job(job_id).await.unwrap().attempts;
    assert_eq!(attempts.len(), 1);
    let late = attempts[0].failure.as_ref().unwrap();
    assert_eq!(late.code, "timeout_total");
    assert!(late.maybe_billed);
    // Too little time says nothing of the service: one failure would have opened the breaker.
    assert_eq!(lane.breaker().state, BreakerState::Closed);
    lane.call(prompt("next")).await.unwrap();
    until("the server has seen its end", async || {
        world.sim.arrivals()[0].client_left
    })
    .await;
    assert_eq!(world.sim.stats().calls, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_timeout_the_lane_rests_for_as_long_as_it_was_told() {
    const REST_MS: u64 = 300;
    let mut world = HttpLane::new();
    world.config.lane.pause_after_timeout_ms = REST_MS;
    world.sim.push_fault(Fault::Hang);
    let lane = world.start().await;
    let mut events = lane.subscribe();
    let mut late = prompt("late");
    (late.timeout_ms, late.max_retries) = (Some(100), Some(0));
    let late = lane.call(late);
    let next = async {
        // In line behind it.
        until("the first call is open", async || {
            world.sim.stats().calls == 1
        })
        .await;
        submit(&lane, prompt("next")).await
    };
    let (late, next) = tokio::join!(late, next);
    let failure = failure_of(late);
    assert_eq!(failure.code, "timeout_total");
    let held = next_event(&mut events, |event| match event {
        Event::LaneHeld { scope, hold } => Some((scope.clone(), hold.clone())),
        _ => None,
    });
    let (scope, hold) = held.await;
    assert_eq!(scope, HoldScope::Lane("default".to_owned()));
    assert_eq!(hold.kind, HoldKind::AfterTimeout);
    assert_eq!(hold.code, "timeout_total");
    let end = hold.until.unwrap();
    assert_eq!(end.length_ms, REST_MS);

    lane.wait(next).await.unwrap();
    let calls = calls_of(&lane).await;
    assert_eq!(hold.since, calls[0].ended_at);
    assert!(
        calls[1].started_at >= end.until,
        "{} is before {end}",
        calls[1].started_at
    );
    let arrivals = world.sim.arrivals();
    assert_eq!((arrivals.len(), arrivals[0].client_left), (2, true));
    // The server saw the end first.
    assert!(
        arrivals[0].end_us.unwrap() < arrivals[1].at_us,
        "{arrivals:?}"
    );
    assert_eq!(world.sim.stats().peak_in_flight, 1);
    assert_eq!(lane.lane().await.unwrap().holds, vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jobs_own_timeout_lifts_the_configured_one() {
    let mut world = HttpLane::new();
    // Nothing but the total bounds the first byte of an answer that is not streamed.
    world.config.glm.timeouts.first_byte_ms = 50;
    world.config.glm.timeouts.total_ms = 150;
    world.sim.push_fault(Fault::SlowHeaders { delay_ms: 600 });
    let lane = world.start().await;
    let mut patient = prompt("patient");
    (patient.timeout_ms, patient.max_retries) = (Some(30_000), Some(0));
    let record = lane.call(patient).await.unwrap();
    assert_eq!(record.job.attempts.0, 1);
    assert_eq!(world.sim.stats().calls, 1);
    lane.shutdown(crate::support::ms(5_000)).await;
}
