//! What each class costs until it has ended by itself: the exact number of calls, retries and waits.

use std::collections::BTreeMap;

use onelane::model::{BreakerState, CallOutcome, Currency, HoldScope, JobStatus};
use onelane::simulator::{ErrorFault, Fault, Rule, SimulatorConfig, Step, Tokens};
use serde_json::json;

use crate::support::api::Api;
use crate::support::http::{HttpLane, calls_of, prompt};
use crate::support::shows;

/// What the first calls for a job meet, and what must become of it.
struct Course {
    fault: Fault,
    times: u32,
    /// The end: the error that it fails of, if it does.
    fails_with: Option<&'static str>,
    calls: usize,
    retries: u32,
    throttles: u32,
    /// Between one call and the next, in milliseconds, at least.
    waits_ms: &'static [u64],
    /// Failures in a row that the breaker has counted in the end.
    counted: u32,
}

/// `fault` so often, then an answer; every call but the last uses up a retry.
fn course(fault: Fault, times: u32, waits_ms: &'static [u64]) -> Course {
    Course {
        fault,
        times,
        fails_with: None,
        calls: times as usize + 1,
        retries: times,
        throttles: 0,
        waits_ms,
        counted: 0,
    }
}

impl Course {
    /// The job fails at its last call.
    fn fails(mut self, code: &'static str) -> Self {
        self.fails_with = Some(code);
        self.calls -= 1;
        self.retries -= 1;
        self
    }

    /// Nothing is used up, but throttle answers are counted.
    fn throttled(mut self) -> Self {
        (self.retries, self.throttles) = (0, self.times);
        self
    }

    /// Nothing is used up.
    fn kept(mut self) -> Self {
        self.retries = 0;
        self
    }

    const fn counted(mut self, counted: u32) -> Self {
        self.counted = counted;
        self
    }
}

/// A delay of 10, 20, 40 ... milliseconds of which a fifth is drawn.
const BACKOFF: &[u64] = &[8, 16, 32];
/// A cool-down of 20, 40, 80 ... milliseconds of which a fifth is drawn.
const COOL_DOWN: &[u64] = &[16, 32, 64, 80, 80];
const NONE: &[u64] = &[0, 0, 0];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_class_costs_exactly_its_calls_and_retries() {
    let error = Fault::error;
    let in_a_second = Fault::Error(ErrorFault {
        retry_after: Some("1".to_owned()),
        ..ErrorFault::of("1308")
    });
    let later = Fault::Error(ErrorFault {
        retry_after: Some("1".to_owned()),
        ..ErrorFault::of("1234")
    });
    for course in [
        // More often than any job may be retried, up to the longest cool-down.
        course(error("1302"), 5, COOL_DOWN).throttled(),
        course(error("1303"), 1, COOL_DOWN).throttled(),
        course(error("1305"), 3, COOL_DOWN),
        course(error("1312"), 1, COOL_DOWN),
        course(error("1305"), 4, COOL_DOWN).fails("1305"),
        course(in_a_second, 1, &[1_000]).kept(),
        course(error("1234"), 3, BACKOFF),
        course(Fault::EmptyBody { status: 503 }, 2, BACKOFF),
        course(Fault::HtmlPage { status: 502 }, 2, BACKOFF),
        course(Fault::NotJson { status: 200 }, 1, BACKOFF),
        // It may have been paid for: not four times.
        course(Fault::NotJson { status: 200 }, 2, BACKOFF)
            .fails("body_invalid")
            .counted(2),
        course(Fault::Reset, 2, BACKOFF),
        course(later, 1, &[1_000]),
        course(error("1234"), 4, BACKOFF).fails("1234").counted(4),
        course(Fault::Reset, 4, BACKOFF).fails("conn").counted(4),
        // An answer had begun.
        course(Fault::CutBody, 1, BACKOFF),
        course(Fault::CutBody, 2, BACKOFF).fails("conn").counted(2),
        course(error("1231"), 3, NONE),
        course(error("1231"), 4, NONE).fails("1231"),
        course(error("1210"), 1, NONE).fails("1210"),
        course(error("1301"), 1, NONE).fails("1301"),
    ] {
        run(&course).await;
    }
}

async fn run(course: &Course) {
    let what = format!("{:?} {} times", course.fault, course.times);
    let mut world = HttpLane::new();
    let retry = &mut world.config.retry;
    (retry.throttle.base_ms, retry.throttle.max_ms) = (20, 100);
    (retry.overload.base_ms, retry.overload.max_ms) = (20, 100);
    (retry.delays.base_delay_ms, retry.delays.max_delay_ms) = (10, 100);
    world.sim.push(Step {
        fault: course.fault.clone(),
        times: course.times,
    });
    let lane = world.start().await;
    let id = lane.submit(prompt("it")).await.unwrap().job_id;
    let job = lane.wait(id).await.unwrap().job;
    let (status, outcome) = match course.fails_with {
        Some(_) => (JobStatus::Failed, CallOutcome::Failed),
        None => (JobStatus::Completed, CallOutcome::Completed),
    };
    assert_eq!(job.status, status, "{what}");
    assert_eq!(job.error.map(|e| e.code).as_deref(), course.fails_with);
    let used_up = (job.retry_count, job.throttles, job.attempts.0 as usize);
    let want = (course.retries, course.throttles, course.calls);
    assert_eq!(used_up, want, "{what}");

    let calls = lane.job(id).await.unwrap().attempts;
    assert_eq!(calls.len(), course.calls, "{what}");
    for (n, call) in calls.iter().enumerate() {
        let last = n + 1 == course.calls;
        let want = if last { outcome } else { CallOutcome::Failed };
        assert_eq!(call.attempt.0 as usize, n + 1, "{what}");
        assert_eq!(call.outcome, want, "{what}");
        let retries = if course.retries == 0 { 0 } else { n };
        assert_eq!(call.retry_count as usize, retries, "{what}");
    }
    for (pair, least_ms) in calls.windows(2).zip(course.waits_ms) {
        let waited = pair[1].started_at.since(pair[0].ended_at);
        assert!(waited >= *least_ms, "{what}: {waited} ms, not {least_ms}");
    }
    let breaker = lane.breaker();
    assert_eq!(breaker.state, BreakerState::Closed, "{what}");
    assert_eq!(breaker.consecutive_failures, course.counted, "{what}");

    // Whatever became of it, the lane goes on.
    lane.call(prompt("next")).await.unwrap();
    let stats = world.sim.stats();
    let calls = course.calls as u64 + 1;
    assert_eq!((stats.calls, stats.request_ids), (calls, calls), "{what}");
    assert_eq!((stats.peak_in_flight, stats.script_left), (1, 0), "{what}");
    let status = lane.lane().await.unwrap();
    assert_eq!(status.holds, vec![], "{what}");
    assert_eq!(status.breaker.consecutive_failures, 0, "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overloaded_models_jobs_go_to_its_fallback_at_once_and_cost_what_that_costs() {
    let mut world = HttpLane::with(SimulatorConfig {
        tokens: Tokens::Fixed {
            prompt: 1_000,
            completion: 100,
            cached: 0,
        },
        rules: vec![Rule::for_model("glm-5", Fault::error("1305"))],
        ..SimulatorConfig::default()
    });
    world.config.glm.model = "glm-5".to_owned();
    let chain = vec!["glm-4.7".to_owned()];
    world.config.glm.fallbacks = BTreeMap::from([("glm-5".to_owned(), chain)]);
    // Longer than the test: what is not sent to the fallback is not sent at all.
    let retry = &mut world.config.retry;
    (retry.overload.base_ms, retry.overload.max_ms) = (600_000, 600_000);
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let first = lane.call(prompt("first")).await.unwrap().job;
    let chat = json!({"messages": [{"role": "user", "content": "second"}]});
    let second = api.post("/v1/chat/completions", chat.to_string()).await;
    second.expect(200);
    assert_eq!(second.headers["x-onelane-model"], "glm-4.7");
    assert_eq!(second.json()["model"], "glm-4.7");
    let models: Vec<String> = world.sim.arrivals().into_iter().map(|a| a.model).collect();
    assert_eq!(models, ["glm-5", "glm-4.7", "glm-4.7"]);
    // That another model serves it costs no retry.
    assert_eq!((first.retry_count, first.attempts.0), (0, 2));
    assert_eq!(first.model.as_str(), "glm-5");
    assert_eq!(first.served_by.as_deref(), Some("glm-4.7"));
    let calls = calls_of(&lane).await;
    // glm-4.7: 2 yuan a million in, 8 yuan a million out.
    let costs: Vec<_> = calls
        .iter()
        .map(|c| c.cost.map(|cost| (cost.nanos, cost.currency)))
        .collect();
    let cost = Some((2_800_000, Currency::Cny));
    assert_eq!(costs, [None, cost, cost]);

    // The model stays stopped, and that is visible; its fallback's answers do not end it.
    let holds = api.get("/api/admin/glm/holds").await.expect(200);
    shows!(holds["holds"][0], {"scope": "model", "name": "glm-5"});
    let metrics = api.get("/api/admin/glm/metrics").await.expect(200);
    assert_eq!(metrics["lane"]["models"][0]["overloads"], 1);
    let queue = api.get("/api/admin/glm/queue").await.expect(200);
    for job in queue["queue"].as_array().unwrap() {
        shows!(job, {"model": "glm-5", "servedBy": "glm-4.7"});
    }

    world.sim.clear_script();
    lane.release_hold(HoldScope::Model("glm-5".to_owned()))
        .await
        .unwrap();
    let third = lane.call(prompt("third")).await.unwrap().job;
    assert_eq!((third.served_by, third.retry_count), (None, 0));
    assert_eq!(world.sim.arrivals()[3].model, "glm-5");
    let status = lane.lane().await.unwrap();
    assert_eq!((status.holds, status.models), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_whose_every_model_is_overloaded_waits_and_takes_the_first_that_is_free() {
    let mut world = HttpLane::with(SimulatorConfig {
        rules: vec![
            Rule::for_model("glm-5", Fault::error("1305")),
            Rule::for_model("glm-4.7", Fault::error("1312")).times(1),
        ],
        ..SimulatorConfig::default()
    });
    let chain = vec!["glm-4.7".to_owned()];
    world.config.glm.fallbacks = BTreeMap::from([("glm-5".to_owned(), chain)]);
    let retry = &mut world.config.retry;
    (retry.overload.base_ms, retry.overload.max_ms) = (300, 300);
    let lane = world.start().await;
    let job = lane.call(prompt("it").model("glm-5")).await.unwrap().job;
    let calls = lane.job(job.id).await.unwrap().attempts;
    let models: Vec<&str> = calls.iter().map(|call| call.model.as_str()).collect();
    // Both are stopped for about as long: which of them is free first is the draw's.
    assert_eq!(models.first_chunk(), Some(&["glm-5", "glm-4.7"]));
    assert_eq!(models.last(), Some(&"glm-4.7"), "only it answers");
    assert_eq!(calls.len() as u64, world.sim.stats().calls);
    // A refusal costs a retry only where no other model was free.
    assert!((1..calls.len() as u32).contains(&job.retry_count));
    for (n, call) in calls.iter().enumerate().skip(2) {
        let before = calls[..n].iter().rfind(|c| c.model == call.model).unwrap();
        let waited = call.started_at.since(before.ended_at);
        assert!(waited >= 240, "{} after {waited} ms", call.model);
    }
}
