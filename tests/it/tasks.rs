//! Guards: GLM's asynchronous API shows in what clients get, is asked too often, is left in flight
//! beside other calls, or loses an answer that was paid.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use onelane::error::Error;
use onelane::model::{CallOutcome, JobId, JobStatus};
use onelane::ports::{CallFuture, Glm, GlmCall, GlmFuture, TaskFuture};
use onelane::simulator::{
    Arrival, ErrorFault, Fault, Operation, Rule, ScriptUpdate, SimulatorConfig, Span,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::api::Api;
use crate::support::http::{
    HttpLane, PATIENCE, all_usage, calls_of, completed, configure, prompt, stop, submit, sums,
    until, until_held,
};
use crate::support::{ms, shows};

/// A lane that calls glm-4.7 by tasks that take so long.
fn world(task_ms: u64) -> HttpLane {
    let mut world = HttpLane::with(SimulatorConfig {
        task_ms: Span::Fixed(task_ms),
        ..SimulatorConfig::default()
    });
    world.config.glm.async_models = vec!["glm-4.7".to_owned()];
    world.config.glm.async_poll_ms = 100;
    world
}

fn tasks_take(world: &HttpLane, ms: u64) {
    world.sim.update(ScriptUpdate {
        task_ms: Some(Span::Fixed(ms)),
        ..ScriptUpdate::default()
    });
}

fn looks(world: &HttpLane) -> Vec<Arrival> {
    let mut looks = world.sim.arrivals();
    looks.retain(|arrival| arrival.operation == Operation::FetchTask);
    looks
}

/// Waits until the tasks that were handed over were looked at so often in all.
async fn until_looked_at(world: &HttpLane, times: u64) {
    until("the task is looked at", async || {
        world.sim.stats().task_looks >= times
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_answered_like_any_other_call() {
    let world = world(150);
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let chat = json!({"model": "glm-4.7", "messages": [{"role": "user", "content": "long"}]});
    let reply = api.post("/v1/chat/completions", chat.to_string()).await;
    let answer = reply.expect(200);
    let text = answer["choices"][0]["message"]["content"].as_str();
    assert!(text.is_some_and(|text| !text.is_empty()), "{answer}");
    let id = reply.headers["x-onelane-job"].to_str().unwrap();
    let job = api.job(id).await;
    assert_eq!(job["result"], answer);
    let attempt = &job["attempts"][0];
    assert_eq!(
        attempt["response"]["usage"]["totalTokens"],
        answer["usage"]["total_tokens"]
    );
    assert!(attempt["cost"].is_number(), "{attempt}");
    let endpoint = attempt["endpoint"].as_str().unwrap();
    assert!(endpoint.ends_with("/async/chat/completions"), "{endpoint}");
    let took = attempt["response"]["responseTime"].as_u64().unwrap();
    assert!(took >= 150, "from the submission to the answer: {took}");
    let calls = calls_of(&lane).await;
    assert_eq!(lane.usage(all_usage()).await.unwrap(), sums(&calls));

    // Another model beside it is called as ever.
    lane.call(prompt("short").model("glm-5")).await.unwrap();
    let stats = world.sim.stats();
    assert_eq!((stats.calls, stats.task_submissions), (2, 1));
    assert_eq!((stats.bought, stats.works_bought), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_looked_at_no_more_often_than_configured() {
    let world = world(450);
    let lane = world.start().await;
    lane.call(prompt("long")).await.unwrap();
    let seen = looks(&world);
    assert!((2..=6).contains(&seen.len()), "{}", seen.len());
    let apart = |looks: &[Arrival], least_ms: u64| {
        for pair in looks.windows(2) {
            let gap_us = pair[1].at_us - pair[0].end_us.unwrap();
            assert!(gap_us >= least_ms * 1_000, "{gap_us} us");
        }
    };
    // A timer's grain.
    apart(&seen, 98);

    configure(&lane, json!({"asyncPoll": 350})).await;
    let before = seen.len();
    lane.call(prompt("longer")).await.unwrap();
    let seen = looks(&world);
    assert!((2..=3).contains(&(seen.len() - before)), "{seen:?}");
    apart(&seen[before..], 348);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_fails_is_judged_like_any_other_failure() {
    let world = world(20);
    let fails = |prompt: &str, error: Option<&str>| {
        let error = error.map(ErrorFault::of);
        Rule::for_prompt(prompt, Fault::FailTask { error }).times(1)
    };
    world.rule(fails("unsafe", Some("1301")));
    world.rule(fails("unlucky", Some("1234")));
    world.rule(fails("unsaid", None));
    let lane = world.start().await;
    let failed = lane.call(prompt("unsafe")).await;
    let Err(Error::JobFailed { failure, .. }) = failed else {
        panic!("{failed:?}")
    };
    assert_eq!(failure.code, "1301");
    assert!(!failure.maybe_billed);
    for (text, code, maybe_billed) in [("unlucky", "1234", false), ("unsaid", "task_failed", true)]
    {
        let record = lane.call(prompt(text)).await.unwrap();
        assert_eq!(record.job.retry_count, 1, "{text}");
        let attempts = lane.job(record.job.id).await.unwrap().attempts;
        let failure = attempts[0].failure.as_ref().unwrap();
        assert_eq!(failure.code.as_str(), code);
        assert_eq!(failure.maybe_billed, maybe_billed);
        assert_eq!(attempts[1].outcome, CallOutcome::Completed);
    }
    let stats = world.sim.stats();
    assert_eq!((stats.task_submissions, stats.bought), (5, 2));
    assert_eq!(lane.metrics().await.unwrap().maybe_billed, 1);

    // Money, too, is money: the lane is held and the task bought once it is there.
    world.rule(fails("unpaid", Some("1113")));
    let unpaid = submit(&lane, prompt("unpaid")).await;
    crate::support::http::until_held(&lane).await;
    assert_eq!(lane.lane().await.unwrap().hold.unwrap().code, "1113");
    lane.resume().await.unwrap();
    let record = lane.wait(unpaid).await.unwrap();
    assert_eq!(record.job.status, JobStatus::Completed);
    assert_eq!(record.job.retry_count, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_task_is_looked_at_no_more_and_the_lane_goes_on() {
    let world = world(600_000);
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let id = api.submit(json!({"prompt": "endless"})).await;
    let next = api.submit(json!({"prompt": "next"})).await;
    until_looked_at(&world, 2).await;
    tasks_take(&world, 10);
    api.delete(&format!("/api/glm/jobs/{id}")).await.expect(200);
    assert_eq!(api.ended(&id).await["status"], "cancelled");
    let job = api.job(&id).await;
    let attempt = &job["attempts"][0];
    shows!(attempt, {"outcome": "cancelled", "maybeBilled": true});
    api.completed(&next).await;
    let task = &looks(&world)[0].task_id;
    let last = looks(&world)
        .iter()
        .rposition(|look| look.task_id == *task)
        .unwrap();
    assert_eq!(
        looks(&world)[last + 1..].len() + last + 1,
        looks(&world).len()
    );
    assert_ne!(looks(&world).last().unwrap().task_id, *task);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_in_flight_until_it_is_done() {
    let world = world(60);
    world.sim.set_limit(None, 1);
    let lane = world.start().await;
    let jobs = (0..6).map(|n| {
        let model = if n % 3 == 2 { "glm-5" } else { "glm-4.7" };
        prompt(format!("{n}")).model(model)
    });
    let jobs = lane.submit_many(jobs.collect()).await.unwrap();
    for job in jobs {
        completed(&lane, job.unwrap().job_id).await;
    }
    let stats = world.sim.stats();
    assert_eq!((stats.calls, stats.peak_in_flight), (6, 1));
    assert_eq!(stats.by_code.get("1302"), None);
    let done: Vec<_> = calls_of(&lane).await;
    assert!(
        done.iter()
            .all(|call| call.outcome == CallOutcome::Completed)
    );

    // With three slots it is three, never more.
    configure(&lane, json!({"maxConcurrency": 3})).await;
    world.sim.set_limit(None, 3);
    world.sim.reset_stats();
    let jobs = (0..9).map(|n| prompt(format!("more {n}"))).collect();
    for job in lane.submit_many(jobs).await.unwrap() {
        lane.wait(job.unwrap().job_id).await.unwrap();
    }
    let stats = world.sim.stats();
    assert_eq!((stats.calls, stats.peak_in_flight), (9, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_lets_a_task_be_fetched_and_a_start_in_a_pause_leaves_it() {
    let world = world(300);
    let lane = world.start().await;
    let job = submit(&lane, prompt("first")).await;
    until_looked_at(&world, 1).await;
    lane.pause(None).await.unwrap();
    completed(&lane, job).await;

    lane.resume().await.unwrap();
    tasks_take(&world, 1_500);
    let seen = world.sim.stats().task_looks;
    let job = submit(&lane, prompt("second")).await;
    until_looked_at(&world, seen + 1).await;
    lane.pause(None).await.unwrap();
    assert!(!lane.shutdown(ms(10)).await.drained, "a task is left open");
    drop(lane);
    let seen = world.sim.stats().task_looks;
    let lane = world.start().await;
    world.until_in_flight(0).await;
    assert_eq!(world.sim.stats().task_looks, seen, "a pause is a pause");
    assert_eq!(
        lane.job(job).await.unwrap().record.job.status,
        JobStatus::Processing
    );
    lane.resume().await.unwrap();
    let record = lane.wait(job).await.unwrap();
    assert_eq!(record.job.attempts.0, 1);
    assert_eq!(world.sim.stats().bought, 2);
    assert!(lane.shutdown(PATIENCE).await.drained);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_ends_the_task_of_a_chat_without_a_key_before_its_503_and_nobody_buys_it_again()
{
    let world = world(600_000);
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let chat = json!({"messages": [{"role": "user", "content": "long"}]}).to_string();
    let asked = api.post("/v1/chat/completions", chat);
    let stopping = async {
        until_looked_at(&world, 1).await;
        assert!(!lane.shutdown(ms(10)).await.drained);
    };
    let (reply, ()) = tokio::join!(asked, stopping);
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_eq!(reply.headers["x-should-retry"], "true");
    let id = reply.headers["x-onelane-job"].to_str().unwrap();
    let id: JobId = id.parse().unwrap();
    api.stop().await;
    drop(lane);

    let lane = world.start().await;
    let detail = lane.job(id).await.unwrap();
    assert_eq!(detail.record.job.status, JobStatus::Cancelled);
    assert_eq!(detail.attempts.len(), 1);
    assert!(detail.attempts[0].maybe_billed);
    tasks_take(&world, 1);
    lane.call(prompt("next")).await.unwrap();
    let next = world.sim.stats();
    assert_eq!((next.bought, next.task_submissions), (2, 2));
    assert!(lane.shutdown(PATIENCE).await.drained);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_a_restart_found_can_be_cancelled() {
    let world = world(600_000);
    let lane = world.start().await;
    let job = submit(&lane, prompt("endless")).await;
    until_looked_at(&world, 1).await;
    stop(lane, 10).await;
    let lane = world.start().await;
    let seen = world.sim.stats().task_looks;
    until_looked_at(&world, seen + 1).await;
    lane.cancel(job).await.unwrap();
    let detail = lane.job(job).await.unwrap();
    assert_eq!(detail.record.job.status, JobStatus::Cancelled);
    assert_eq!(detail.attempts.len(), 1);
    assert!(detail.attempts[0].maybe_billed);
    tasks_take(&world, 1);
    lane.call(prompt("next")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_account_does_not_keep_what_was_bought_before() {
    let world = world(300);
    world.rule(Rule::for_prompt("unpaid", Fault::error("1113")));
    let lane = world.start().await;
    configure(&lane, json!({"maxConcurrency": 2})).await;
    let bought = submit(&lane, prompt("bought")).await;
    until_looked_at(&world, 1).await;
    let unpaid = submit(&lane, prompt("unpaid")).await;
    until_held(&lane).await;
    stop(lane, 1).await;
    let lane = world.start().await;
    let record = lane.wait(bought).await.unwrap();
    assert_eq!(record.job.status, JobStatus::Completed);
    assert_eq!(record.job.attempts.0, 1);
    // That is another matter.
    assert!(lane.lane().await.unwrap().hold.is_some());
    let status = lane.job(unpaid).await.unwrap().record.job.status;
    assert_eq!(status, JobStatus::Pending);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fallback_that_is_called_by_tasks_is_fetched_as_what_it_is() {
    let mut world = world(400);
    world.config.glm.fallbacks = [("glm-5".to_owned(), vec!["glm-4.7".to_owned()])].into();
    world.rule(Rule::for_model("glm-5", Fault::error("1305")));
    world.config.retry.overload.base_ms = 3_600_000;
    world.config.retry.overload.max_ms = 3_600_000;
    let lane = world.start().await;
    let job = lane.submit(prompt("long").model("glm-5")).await.unwrap();
    until_looked_at(&world, 1).await;
    stop(lane, 1).await;
    world.sim.clear_script();
    let lane = world.start().await;
    // The model is well again: that does not change who serves.
    lane.resume().await.unwrap();
    let record = lane.wait(job.job_id).await.unwrap();
    assert_eq!(record.job.served_by.as_deref(), Some("glm-4.7"));
    let calls = calls_of(&lane).await;
    let models: Vec<_> = calls.iter().map(|call| call.model.as_str()).collect();
    assert_eq!(models, ["glm-5", "glm-4.7"]);
    assert_eq!(world.sim.stats().bought, 1);
    assert_eq!(lane.usage(all_usage()).await.unwrap(), sums(&calls));
}

/// A transport in which the caller dies while it waits for its first task.
struct DeadlyOnce {
    http: Arc<dyn Glm>,
    died: AtomicBool,
}

impl Glm for DeadlyOnce {
    fn call(&self, call: GlmCall, abort: CancellationToken) -> CallFuture {
        self.http.call(call, abort)
    }

    fn submit_task(&self, call: GlmCall, abort: CancellationToken) -> TaskFuture {
        self.http.submit_task(call, abort)
    }

    fn fetch_task(&self, call: GlmCall, task_id: String, abort: CancellationToken) -> GlmFuture {
        // A fault while a task is waited for.
        assert!(self.died.swap(true, Ordering::SeqCst));
        self.http.fetch_task(call, task_id, abort)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_dies_while_it_waits_for_a_task_leaves_it_to_the_next() {
    let mut world = world(200);
    world.wrap = Some(Box::new(|http| {
        Arc::new(DeadlyOnce {
            http: Arc::new(http),
            died: AtomicBool::new(false),
        })
    }));
    let lane = world.start().await;
    let record = lane.call(prompt("long")).await.unwrap();
    assert_eq!((record.job.attempts.0, record.job.interruptions), (1, 0));
    assert_eq!(lane.lane().await.unwrap().generation, 2);
    let attempts = lane.job(record.job.id).await.unwrap().attempts;
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].outcome, CallOutcome::Completed);
    let stats = world.sim.stats();
    assert_eq!((stats.bought, stats.calls, stats.peak_in_flight), (1, 1, 1));
}
