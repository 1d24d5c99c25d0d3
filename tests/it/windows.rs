//! Guards: calls that are burned while GLM is known to refuse, a job that fails of that, a lane that
//! sleeps longer than it must or forgets over a restart how long it was told to wait.

use onelane::model::{Event, FailureClass, Hold, HoldKind, JobId, JobStatus, Timestamp};
use onelane::orchestrator::{Events, Feed, Orchestrator};
use onelane::ports::GlmOutcome;
use onelane::simulator::{ErrorFault, Fault, Rule};
use onelane_actors::testing::{ScriptedGlm, answer, failed};
use serde_json::json;
use tokio::time::Instant;

use crate::support::api::Api;
use crate::support::file::FileLane;
use crate::support::http::{
    HttpLane, calls_of, configure, next_event, prompt, prompts, submit, submit_all, until,
    until_completed, until_held,
};
use crate::support::{START, VirtualLane, ms, shows};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// Every hold that was told so far, up to the end of this job.
async fn holds_until(events: &mut Events, job: JobId) -> Vec<Hold> {
    let mut holds = Vec::new();
    loop {
        let Some(Feed::Event(_, event)) = events.next().await else {
            panic!("events were missed or ended")
        };
        match &*event {
            Event::LaneHeld { hold, .. } => holds.push(hold.clone()),
            Event::JobCompleted { job_id, .. } if *job_id == job => return holds,
            _ => {}
        }
    }
}

/// Answers everything with 1302 for two minutes, then with an answer.
fn throttled_for_two_minutes() -> ScriptedGlm {
    let begun = Instant::now();
    ScriptedGlm::new(move |_, _| {
        if begun.elapsed() < ms(2 * MINUTE_MS) {
            (ms(150), failed(FailureClass::Throttle, "1302"))
        } else {
            (ms(300), answer())
        }
    })
}

#[tokio::test(start_paused = true)]
async fn two_minutes_of_throttling_fail_no_job_and_cost_few_calls() {
    // With four slots four calls are refused together, and then the lane waits longer for it.
    for (slots, refused_most) in [(1, 5), (4, 11)] {
        let mut world = VirtualLane::new(throttled_for_two_minutes());
        world.settings.lane.rules.max_concurrency = slots;
        let lane = world.start().await;
        let mut events = lane.subscribe();
        let jobs = submit_all(&lane, prompts(50)).await;
        for id in &jobs {
            let job = lane.wait(*id).await.unwrap().job;
            assert_eq!((job.status, job.retry_count), (JobStatus::Completed, 0));
        }
        let counts = lane.queue_status().await.unwrap();
        assert_eq!((counts.completed, counts.total()), (50, 50));

        let calls = calls_of(&lane).await;
        let (refused, answered): (Vec<_>, Vec<_>) =
            calls.iter().partition(|call| call.failure.is_some());
        assert_eq!(answered.len(), 50);
        assert!(
            refused.len() <= refused_most,
            "{} calls spent",
            refused.len()
        );
        // 5, 10, 20, 40 and 80 seconds, less a fifth at most, reach beyond two minutes: four don't.
        assert!(
            slots > 1 || refused.len() == 5,
            "{} calls spent",
            refused.len()
        );
        let holds = holds_until(&mut events, *jobs.last().unwrap()).await;
        // Nothing went out while the lane cooled down...
        for hold in &holds {
            let (since, end) = (hold.since, hold.until.unwrap().until);
            let within = |at: Timestamp| since < at && at < end;
            assert!(
                !calls.iter().any(|call| within(call.started_at)),
                "{hold:?}"
            );
        }
        // ...and the moment it was over it went on.
        let last = holds.last().unwrap();
        let resumed = answered[0].started_at;
        assert_eq!(resumed, last.until.unwrap().until);
        let window_end = START.plus_ms(2 * MINUTE_MS);
        let cool_down_ms = last.until.unwrap().length_ms;
        assert!(resumed >= window_end);
        assert!(resumed <= window_end.plus_ms(5_000 + cool_down_ms));
        assert_eq!(world.glm.peak(), usize::from(slots));
        lane.shutdown(ms(1_000)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_without_money_costs_ten_thousand_jobs_one_call_until_its_key_is_changed() {
    const JOBS: u64 = 10_000;
    const NEW_KEY: &str = "fedcba9876543210.the-second-secret";
    let world = HttpLane::new();
    world.rule(Rule::until_key(NEW_KEY, Fault::error("1113")));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    // All are there before the first goes out, so that nobody misses an event.
    lane.pause(None).await.unwrap();
    submit_all(&lane, prompts(10_000)).await;
    let mut events = lane.subscribe();
    lane.resume().await.unwrap();
    until_held(&lane).await;

    assert_eq!(world.sim.stats().calls, 1);
    let metrics = api.get("/api/admin/glm/metrics").await.expect(200);
    shows!(metrics["lane"]["hold"], {"kind": "operator", "code": "1113"});
    shows!(metrics["jobs"], {"pending": JOBS, "failed": 0});
    assert_eq!(metrics["lane"]["generation"], 1);
    // One new key is enough, without a restart of anything.
    let patch = json!({"apiKey": NEW_KEY}).to_string();
    api.put("/api/admin/glm/config", patch).await.expect(200);
    let mut told = Vec::new();
    while told.last() != Some(&("released", HoldKind::Operator)) {
        let stop = next_event(&mut events, |event| match event {
            Event::LaneHeld { hold, .. } => Some(("held", hold.kind)),
            Event::LaneReleased { kind, .. } => Some(("released", *kind)),
            _ => None,
        });
        told.push(stop.await);
    }
    assert_eq!(
        told,
        [
            ("held", HoldKind::Operator),
            ("released", HoldKind::Operator)
        ]
    );
    until_completed(&lane, JOBS).await;
    let stats = world.sim.stats();
    assert_eq!((stats.calls, stats.answered), (JOBS + 1, JOBS));
    assert_eq!(stats.by_code["1113"], 1);
    assert_eq!(stats.peak_in_flight, 1);
    assert_eq!(lane.lane().await.unwrap().generation, 1);
    let counts = lane.queue_status().await.unwrap();
    assert_eq!((counts.completed, counts.total()), (JOBS, JOBS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_side_by_side_are_one_stop() {
    const NEW_KEY: &str = "fedcba9876543210.the-second-secret";
    let mut world = HttpLane::new();
    world.config.lane.rules.max_concurrency = 4;
    // All four are on their way when the first is refused.
    let unpaid = Fault::Error(ErrorFault {
        delay_ms: 200,
        ..ErrorFault::of("1113")
    });
    world.rule(Rule::until_key(NEW_KEY, unpaid));
    let lane = world.start().await;
    lane.pause(None).await.unwrap();
    let jobs = submit_all(&lane, prompts(8)).await;
    let mut events = lane.subscribe();
    lane.resume().await.unwrap();
    until("all four are refused", async || {
        calls_of(&lane).await.len() == 4
    })
    .await;
    let status = lane.lane().await.unwrap();
    assert_eq!(status.holds.len(), 1);
    assert_eq!(status.in_flight, 0);
    assert_eq!(status.ready, 8);
    configure(&lane, json!({"apiKey": NEW_KEY})).await;
    for id in &jobs {
        let job = lane.wait(*id).await.unwrap().job;
        assert_eq!((job.status, job.retry_count), (JobStatus::Completed, 0));
    }
    let stats = world.sim.stats();
    assert_eq!((stats.calls, stats.peak_in_flight), (12, 4));
    let last = submit(&lane, prompt("last")).await;
    let told = holds_until(&mut events, last).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].since, status.holds[0].hold.since);
}

/// 1308 for the first call, which states this reset; then answers.
fn used_up_until(reset: Timestamp) -> ScriptedGlm {
    ScriptedGlm::new(move |n, _| {
        let outcome = match failed(FailureClass::QuotaWindow, "1308") {
            GlmOutcome::Failed(mut failure, usage) if n == 0 => {
                failure.reset_at = Some(reset);
                GlmOutcome::Failed(failure, usage)
            }
            _ => answer(),
        };
        (ms(200), outcome)
    })
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_opens_in_three_hours_sees_no_call_until_then_whatever_restarts() {
    let reset = START.plus_ms(3 * HOUR_MS);
    let mut file = FileLane::new(used_up_until(reset));
    let lane = file.start().await;
    let jobs = submit_all(&lane, prompts(20)).await;
    until_held(&lane).await;
    let hold = lane.lane().await.unwrap().hold.unwrap();
    // Three seconds for clocks that differ.
    let end = reset.plus_ms(3_000);
    let until = hold.until.map(|wait| wait.until);
    assert_eq!((hold.kind, until), (HoldKind::Quota, Some(end)));
    let still_held = async |lane: &Orchestrator, glm: &ScriptedGlm| {
        let status = lane.lane().await.unwrap();
        assert_eq!(status.hold, Some(hold.clone()));
        let counts = lane.queue_status().await.unwrap();
        assert_eq!(counts.pending, 20);
        assert_eq!(counts.total(), 20);
        assert_eq!(glm.calls().len(), 1);
    };

    // Ended in peace and started again at once.
    file.world.sleep_until(START.plus_ms(HOUR_MS)).await;
    still_held(&lane, &file.world.glm).await;
    file.shut_down(lane).await;
    let lane = file.start().await;
    still_held(&lane, &file.world.glm).await;
    // Crashed, and down for half an hour.
    file.world.sleep_until(START.plus_ms(2 * HOUR_MS)).await;
    still_held(&lane, &file.world.glm).await;
    file.crash(lane);
    file.world
        .sleep_until(START.plus_ms(2 * HOUR_MS + HOUR_MS / 2))
        .await;
    let lane = file.start().await;
    // To the last millisecond.
    file.world.sleep_until(end.minus_ms(1)).await;
    still_held(&lane, &file.world.glm).await;

    for id in jobs {
        let job = lane.wait(id).await.unwrap().job;
        assert_eq!((job.status, job.retry_count), (JobStatus::Completed, 0));
    }
    let calls = calls_of(&lane).await;
    assert_eq!((calls.len(), calls[1].started_at), (21, end));
    assert_eq!(lane.lane().await.unwrap().holds, vec![]);
    file.shut_down(lane).await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_opened_while_the_lane_was_down_is_used_at_once() {
    let reset = START.plus_ms(3 * HOUR_MS);
    let mut file = FileLane::new(used_up_until(reset));
    let lane = file.start().await;
    let jobs = submit_all(&lane, prompts(3)).await;
    until_held(&lane).await;
    file.crash(lane);
    let back = START.plus_ms(4 * HOUR_MS);
    file.world.sleep_until(back).await;
    let lane = file.start().await;
    for id in jobs {
        lane.wait(id).await.unwrap();
    }
    let calls = calls_of(&lane).await;
    assert_eq!(calls.len(), 4);
    assert!(
        calls[1].started_at.since(back) < 1_000,
        "{}",
        calls[1].started_at
    );
    file.shut_down(lane).await;
}
