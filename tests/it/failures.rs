//! Guards: a call too many or too few after a failure, a job that is failed or burned for what only an
//! operator can mend, a lane that does not wake.

use onelane::error::Error;
use onelane::model::{Event, FailureClass, Hold, HoldKind, JobStatus};
use onelane::orchestrator::Orchestrator;
use onelane::simulator::{ErrorFault, Fault, Rule, Shape, Step};
use serde_json::json;

use crate::support::http::{HttpLane, calls_of, next_event, prompt, until_held};
use crate::support::ms;

/// The hold, once the lane is held and that is on disk.
async fn held(lane: &Orchestrator) -> Hold {
    until_held(lane).await;
    lane.lane().await.unwrap().hold.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_fails_twice_and_then_answers_sees_exactly_three_calls() {
    let faults = [
        Fault::error("1234"),
        Fault::Reset,
        Fault::CutBody,
        Fault::HtmlPage { status: 502 },
        Fault::EmptyBody { status: 503 },
        Fault::NotJson { status: 200 },
    ];
    for fault in faults {
        let world = HttpLane::new();
        world.sim.push(Step {
            fault: fault.clone(),
            times: 2,
        });
        let lane = world.start().await;
        let record = lane.call(prompt("twice")).await.unwrap();
        assert_eq!(record.job.status, JobStatus::Completed, "{fault:?}");
        assert_eq!(record.job.retry_count, 2, "{fault:?}");
        assert_eq!(record.job.error, None, "{fault:?}");
        let stats = world.sim.stats();
        assert_eq!((stats.calls, stats.peak_in_flight), (3, 1), "{fault:?}");
        assert_eq!(stats.duplicate_request_ids, 0, "{fault:?}");
        let attempts = lane.job(record.job.id).await.unwrap().attempts;
        let numbers: Vec<u32> = attempts.iter().map(|call| call.attempt.0).collect();
        assert_eq!(numbers, [1, 2, 3], "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_times_out_is_closed_and_made_again() {
    for (fault, code) in [
        (Fault::Hang, "timeout_first_byte"),
        (Fault::StallBody, "timeout_idle"),
        (
            Fault::SlowBody {
                pieces: 1_000,
                delay_ms: 100,
            },
            "timeout_total",
        ),
    ] {
        let mut world = HttpLane::new();
        world.config.glm.timeouts.first_byte_ms = 1_000;
        world.config.glm.timeouts.idle_ms = 1_000;
        world.config.glm.timeouts.total_ms = 2_000;
        world.sim.push_fault(fault.clone());
        let lane = world.start().await;
        let record = lane.call(prompt("slow")).await.unwrap();
        let attempts = lane.job(record.job.id).await.unwrap().attempts;
        assert_eq!(attempts.len(), 2, "{fault:?}");
        let failure = attempts[0].failure.as_ref().unwrap();
        assert_eq!(failure.code, code);
        assert!(failure.maybe_billed, "{failure}");
        let arrivals = world.sim.arrivals();
        assert!(arrivals[0].client_left, "{arrivals:?}");
        assert!(arrivals[0].end_us.unwrap() <= arrivals[1].at_us);
        assert_eq!(world.sim.stats().peak_in_flight, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_keeps_failing_ends_as_a_dead_letter_with_its_reason() {
    let world = HttpLane::new();
    world
        .sim
        .add_rule(Rule::for_prompt("doomed", Fault::error("1234")));
    let lane = world.start().await;
    let mut doomed = prompt("doomed");
    doomed.max_retries = Some(2);
    let failed = lane.call(doomed).await;
    let Err(Error::JobFailed { job_id, failure }) = failed else {
        panic!("{failed:?}")
    };
    assert_eq!(failure.code, "1234");
    assert_eq!(failure.class, FailureClass::ServerTransient);
    assert_eq!(world.sim.stats().calls, 3);
    let job = lane.job(job_id).await.unwrap().record.job;
    assert_eq!((job.status, job.retry_count), (JobStatus::Failed, 2));
    lane.call(prompt("fine")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_the_jobs_own_fault_is_called_once_and_the_lane_goes_on() {
    for code in ["1210", "1211", "1214", "1261", "1301"] {
        let world = HttpLane::new();
        world
            .sim
            .add_rule(Rule::for_prompt("bad", Fault::error(code)));
        let lane = world.start().await;
        let failed = lane.call(prompt("bad")).await;
        let Err(Error::JobFailed { job_id, failure }) = failed else {
            panic!("{code}: {failed:?}")
        };
        assert_eq!(failure.code, code);
        assert_eq!(failure.class, FailureClass::RequestFatal, "{code}");
        let job = lane.job(job_id).await.unwrap();
        assert_eq!(job.record.job.retry_count, 0, "{code}");
        assert_eq!(job.attempts.len(), 1, "{code}");
        lane.call(prompt("good")).await.unwrap();
        assert_eq!(world.prompts(), ["bad", "good"], "{code}");
        let status = lane.lane().await.unwrap();
        assert_eq!(status.hold, None, "{code}");
        assert_eq!(status.breaker.consecutive_failures, 0, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_an_operator_can_mend_holds_the_lane_and_one_new_key_lets_all_run() {
    let unpaid = |shape| {
        Fault::Error(ErrorFault {
            shape,
            ..ErrorFault::of("1113")
        })
    };
    for (code, fault) in [
        // 401 with 1000: the key is not one that the server takes.
        ("1000", None),
        ("1113", Some(unpaid(Shape::Nested))),
        ("1113", Some(unpaid(Shape::FlatNumber))),
        ("http_401", Some(Fault::EmptyBody { status: 401 })),
    ] {
        let world = HttpLane::new();
        const NEW_KEY: &str = "fedcba9876543210.the-second-secret";
        match &fault {
            None => world.sim.set_keys([NEW_KEY]),
            Some(fault) => world.sim.push_fault(fault.clone()),
        }
        let lane = world.start().await;
        let mut events = lane.subscribe();
        let mut jobs = Vec::new();
        for n in 0..5 {
            let job = lane.submit(prompt(format!("job {n}"))).await.unwrap();
            jobs.push(job.job_id);
        }
        let hold = held(&lane).await;
        assert_eq!((hold.kind, hold.code.as_str()), (HoldKind::Operator, code));
        assert_eq!(hold.until, None, "nobody knows when");
        assert!(!hold.message.is_empty());
        assert!(!hold.message.contains("the-first-secret"));
        // The reason is visible wherever one looks.
        assert_eq!(lane.metrics().await.unwrap().lane.hold, Some(hold.clone()));
        let told = next_event(&mut events, |event| match event {
            Event::LaneHeld { hold, .. } => Some(hold.clone()),
            _ => None,
        });
        assert_eq!(told.await, hold);
        tokio::time::sleep(ms(100)).await;
        assert_eq!(world.sim.stats().calls, 1, "{code}: a call while held");
        for id in &jobs {
            let job = lane.job(*id).await.unwrap().record.job;
            assert_eq!((job.status, job.retry_count), (JobStatus::Pending, 0));
        }

        lane.set_config(&json!({"apiKey": NEW_KEY})).await.unwrap();
        let kind = next_event(&mut events, |event| match event {
            Event::LaneReleased { kind, .. } => Some(*kind),
            _ => None,
        });
        assert_eq!(kind.await, HoldKind::Operator);
        for id in jobs {
            let job = lane.wait(id).await.unwrap().job;
            assert_eq!((job.status, job.retry_count), (JobStatus::Completed, 0));
        }
        assert_eq!(world.sim.stats().calls, 6, "{code}");
        assert_eq!(lane.lane().await.unwrap().hold, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_outlives_a_restart_and_a_resume_ends_it() {
    let world = HttpLane::new();
    world.sim.push_fault(Fault::error("1113"));
    let lane = world.start().await;
    let job = lane.submit(prompt("unpaid")).await.unwrap().job_id;
    let hold = held(&lane).await;
    let lane = world.restart(lane).await;
    assert_eq!(lane.lane().await.unwrap().hold, Some(hold));
    tokio::time::sleep(ms(100)).await;
    assert_eq!(world.sim.stats().calls, 1);
    lane.resume().await.unwrap();
    let record = lane.wait(job).await.unwrap();
    assert_eq!(record.job.status, JobStatus::Completed);
    assert_eq!(world.sim.stats().calls, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_key_at_the_next_start_ends_an_operator_hold() {
    let mut world = HttpLane::new();
    world.sim.set_keys(["another.key-that-is-taken"]);
    let lane = world.start().await;
    let job = lane.submit(prompt("locked out")).await.unwrap().job_id;
    assert_eq!(held(&lane).await.code, "1000");
    lane.shutdown(ms(10_000)).await;
    drop(lane);
    world.config.glm.api_key = Some(onelane::model::Secret::new("another.key-that-is-taken"));
    let lane = world.start().await;
    let record = lane.wait(job).await.unwrap();
    assert_eq!(record.job.status, JobStatus::Completed);
    assert_eq!(world.sim.stats().calls, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_without_a_key_is_held_without_a_call() {
    let mut world = HttpLane::new();
    world.config.glm.api_key = None;
    let lane = world.start().await;
    let job = lane.submit(prompt("no key")).await.unwrap().job_id;
    let hold = held(&lane).await;
    assert_eq!(
        (hold.kind, hold.code.as_str()),
        (HoldKind::Operator, "no_api_key")
    );
    assert_eq!(world.sim.stats().calls, 0);
    lane.set_config(&json!({"apiKey": "now.there-is-one"}))
        .await
        .unwrap();
    let record = lane.wait(job).await.unwrap();
    assert_eq!(record.job.status, JobStatus::Completed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_up_quota_holds_until_the_stated_reset_and_the_lane_wakes_by_itself() {
    let world = HttpLane::new();
    world.sim.push_fault(Fault::Error(ErrorFault {
        // Beijing time, in the message.
        reset_in_ms: Some(2_000),
        ..ErrorFault::of("1308")
    }));
    let lane = world.start().await;
    let mut jobs = Vec::new();
    for n in 0..3 {
        let job = lane.submit(prompt(format!("job {n}"))).await.unwrap();
        jobs.push(job.job_id);
    }
    let hold = held(&lane).await;
    assert_eq!((hold.kind, hold.code.as_str()), (HoldKind::Quota, "1308"));
    let until = hold.until.unwrap();
    // Two seconds, at most one for the whole second, three for clocks that differ.
    let ahead_ms = until.since(hold.since);
    assert!((4_000..=6_100).contains(&ahead_ms), "{ahead_ms}");
    for id in jobs {
        let job = lane.wait(id).await.unwrap().job;
        assert_eq!((job.status, job.retry_count), (JobStatus::Completed, 0));
    }
    let calls = calls_of(&lane).await;
    assert_eq!(calls.len(), 4);
    assert!(calls[1].started_at >= until, "a call before the reset");
    assert_eq!(world.sim.stats().calls, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_lane_cools_down_and_no_retry_is_used_up() {
    let mut world = HttpLane::new();
    world.config.retry.throttle.base_ms = 50;
    world.config.retry.throttle.max_ms = 200;
    // More often than any job may be retried.
    world.sim.push(Step {
        fault: Fault::error("1302"),
        times: 6,
    });
    let lane = world.start().await;
    let mut events = lane.subscribe();
    let mut patient = prompt("patient");
    patient.max_retries = Some(0);
    let job = lane.submit(patient).await.unwrap().job_id;
    let hold = next_event(&mut events, |event| match event {
        Event::LaneHeld { hold, .. } => Some(hold.clone()),
        _ => None,
    })
    .await;
    assert_eq!(
        (hold.kind, hold.code.as_str()),
        (HoldKind::Throttle, "1302")
    );
    let record = lane.wait(job).await.unwrap();
    assert_eq!(record.job.status, JobStatus::Completed);
    assert_eq!(record.job.retry_count, 0);
    assert_eq!(world.sim.stats().calls, 7);
    // Each cool-down is longer than the one before, up to the cap; a fifth of it is drawn.
    let calls = calls_of(&lane).await;
    for (pair, least_ms) in calls.windows(2).zip([40, 80, 160, 160, 160, 160]) {
        let waited = pair[1].started_at.since(pair[0].ended_at);
        assert!(waited >= least_ms, "{waited} ms, not {least_ms}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_after_longer_than_the_backoff_wins() {
    let world = HttpLane::new();
    world.sim.push_fault(Fault::Error(ErrorFault {
        retry_after: Some("1".to_owned()),
        ..ErrorFault::of("1234")
    }));
    let lane = world.start().await;
    lane.call(prompt("later")).await.unwrap();
    let calls = calls_of(&lane).await;
    let waited = calls[1].started_at.since(calls[0].ended_at);
    assert!(waited >= 1_000, "{waited} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_breaker_lets_one_probe_through_and_fails_no_job() {
    let mut world = HttpLane::new();
    world.config.breaker.consecutive_failures = 3;
    world.config.breaker.cool_down_ms = 200;
    world.config.breaker.cool_down_multiplier = 1.0;
    world.config.retry.max_retries = 10;
    // Three open it, two probes fail, the third is answered.
    world.sim.push(Step {
        fault: Fault::error("1234"),
        times: 5,
    });
    let lane = world.start().await;
    let mut events = lane.subscribe();
    let jobs: Vec<_> = (0..4).map(|n| prompt(format!("job {n}"))).collect();
    let submitted = lane.submit_many(jobs).await.unwrap();
    for job in submitted {
        let record = lane.wait(job.unwrap().job_id).await.unwrap();
        assert_eq!(record.job.status, JobStatus::Completed);
    }
    let mut states = Vec::new();
    while states.last() != Some(&"closed") {
        let state = next_event(&mut events, |event| match event {
            Event::BreakerChanged { breaker } => Some(breaker.state.name()),
            _ => None,
        });
        states.push(state.await);
    }
    let opened = ["open", "half_open"];
    let want: Vec<&str> = [opened, opened, opened]
        .concat()
        .into_iter()
        .chain(["closed"])
        .collect();
    assert_eq!(states, want);
    let stats = world.sim.stats();
    assert_eq!((stats.calls, stats.peak_in_flight), (9, 1));
    // Between an opening and its probe there is no call.
    let calls = calls_of(&lane).await;
    for failed in 2..5 {
        let waited = calls[failed + 1].started_at.since(calls[failed].ended_at);
        assert!(waited >= 200, "a call {waited} ms after call {failed}");
    }
}
