//! Guards: a call too many or too few after a failure, a job that is failed or burned for what only an
//! operator can mend, a lane that does not wake.

use onelane::model::{BreakerState, Event, Hold, HoldKind, JobStatus};
use onelane::orchestrator::Orchestrator;
use onelane::simulator::{ErrorFault, Fault, Rule, Shape, Step};
use serde_json::json;

use crate::support::http::{
    HttpLane, calls_of, completed, configure, next_event, prompt, prompts, stop, submit,
    submit_all, until, until_held,
};
use crate::support::ms;

/// The hold, once the lane is held and that is on disk.
async fn held(lane: &Orchestrator) -> Hold {
    until_held(lane).await;
    lane.lane().await.unwrap().hold.unwrap()
}

/// A listener that takes nothing and whose backlog is full: whoever connects waits. Closed when it is dropped.
fn full_listener() -> (tokio::net::TcpListener, Vec<std::net::TcpStream>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || std::net::TcpStream::connect_timeout(&address, ms(50)).ok();
    let taken = std::iter::from_fn(connect).take(16).collect();
    (listener, taken)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_stopped_while_it_connects_books_nothing_and_uses_no_retry() {
    let full = full_listener();
    let mut world = HttpLane::new();
    world.config.glm.base_url = format!("http://{}", full.0.local_addr().unwrap());
    let lane = world.start().await;
    let connecting = async |lane: &Orchestrator, text: &str| {
        let id = submit(lane, prompt(text)).await;
        until("it connects", async || {
            lane.lane().await.unwrap().in_flight == 1
        })
        .await;
        tokio::time::sleep(ms(100)).await;
        id
    };
    let given_up = connecting(&lane, "given up").await;
    lane.cancel(given_up).await.unwrap();
    let kept = connecting(&lane, "kept").await;
    assert!(!lane.shutdown(ms(10)).await.drained);
    drop(lane);

    let lane = world.start().await;
    lane.pause(None).await.unwrap();
    for id in [given_up, kept] {
        let detail = lane.job(id).await.unwrap();
        let job = detail.record.job;
        assert_eq!((job.retry_count, job.throttles), (0, 0));
        assert_eq!(job.status == JobStatus::Cancelled, id == given_up);
        assert!(!job.status.is_terminal() || id == given_up);
        for call in detail.attempts {
            assert!(!call.maybe_billed && call.reserved.is_none(), "{call:?}");
            assert_eq!((call.cost, call.usage.total_tokens), (None, 0));
        }
    }
    stop(lane, 10).await;
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
        let jobs = submit_all(&lane, prompts(5)).await;
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

        configure(&lane, json!({"apiKey": NEW_KEY})).await;
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
async fn another_key_at_the_next_start_ends_an_operator_hold() {
    let mut world = HttpLane::new();
    world.sim.set_keys(["another.key-that-is-taken"]);
    let lane = world.start().await;
    let job = submit(&lane, prompt("locked out")).await;
    assert_eq!(held(&lane).await.code, "1000");
    stop(lane, 10_000).await;
    world.config.glm.api_key = Some(onelane::model::Secret::new("another.key-that-is-taken"));
    let lane = world.start().await;
    completed(&lane, job).await;
    assert_eq!(world.sim.stats().calls, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_without_a_key_is_held_without_a_call() {
    let mut world = HttpLane::new();
    world.config.glm.api_key = None;
    let lane = world.start().await;
    let job = submit(&lane, prompt("no key")).await;
    let hold = held(&lane).await;
    assert_eq!(hold.kind, HoldKind::Operator);
    assert_eq!(hold.code, "no_api_key");
    assert_eq!(world.sim.stats().calls, 0);
    configure(&lane, json!({"apiKey": "now.there-is-one"})).await;
    completed(&lane, job).await;
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
        completed(&lane, job.unwrap().job_id).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_waits_for_a_network_that_is_away_and_loses_neither_retry_nor_position() {
    let mut world = HttpLane::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = nobody.local_addr().unwrap();
    drop(nobody);
    world.config.glm.base_url = format!("http://{addr}/api/paas/v4");
    let rule = world.config.alerts.rules.rule_mut("unreachable");
    rule.for_ms = 0;
    world.config.alerts.every_ms = 100;
    let lane = world.start().await;
    let job = submit(&lane, prompt("hello").max_retries(0)).await;
    let other = submit(&lane, prompt("second")).await;
    // It meets that more often than it has retries, or throttle answers.
    until("it was tried often", async || {
        calls_of(&lane).await.len() >= 6
    })
    .await;
    let waiting = lane.job(job).await.unwrap();
    let row = &waiting.record.job;
    assert_eq!(
        (row.status, row.retry_count, row.throttles),
        (JobStatus::Pending, 0, 0)
    );
    for call in &waiting.attempts {
        assert!(!call.maybe_billed, "{call:?}");
        assert_eq!(call.failure.as_ref().unwrap().code, "unreachable");
    }
    assert!(lane.job(other).await.unwrap().attempts.is_empty());
    assert_eq!(lane.breaker().state, BreakerState::Closed);
    let alerted = async || {
        let alerts = lane.alerts();
        let active = alerts.active.iter();
        active.filter(|a| a.key.rule == "unreachable").count()
    };
    until("the alert is raised", async || alerted().await == 1).await;

    configure(&lane, json!({"baseUrl": world.sim.base_url()})).await;
    completed(&lane, job).await;
    completed(&lane, other).await;
    assert_eq!(world.prompts(), ["hello", "second"]);
    assert_eq!(lane.lane().await.unwrap().unreachable, None);
    until("the alert is over", async || alerted().await == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_that_a_firewall_blocks_fails_alone() {
    let world = HttpLane::new();
    for fault in [
        Fault::HtmlPage { status: 403 },
        Fault::EmptyBody { status: 406 },
    ] {
        world.sim.clear_script();
        world.rule(Rule::for_prompt("DROP TABLE", fault));
        let lane = world.start().await;
        let jobs = ["first", "explain: DROP TABLE b;", "third", "fourth"];
        let jobs = submit_all(&lane, jobs.map(prompt)).await;
        for (n, id) in jobs.iter().enumerate() {
            let job = lane.wait(*id).await.unwrap().job;
            let want = [JobStatus::Completed, JobStatus::Failed][usize::from(n == 1)];
            assert_eq!(job.status, want, "{:?}", job.error);
            assert_eq!(job.retry_count, 0, "others told at once");
        }
        let blocked = lane.job(jobs[1]).await.unwrap();
        assert_eq!(blocked.attempts.len(), 1);
        assert_eq!(lane.lane().await.unwrap().hold, None);
        stop(lane, 10_000).await;
    }
}
