//! Guards: an operator who does not see what stops the lane, or whose word moves more or less than it
//! says: holds, breaker, pause, policy, lanes, pace and fallbacks of a running lane.

use onelane::model::JobStatus;
use onelane::orchestrator::Orchestrator;
use onelane::simulator::{Arrival, ErrorFault, Fault, Rule};
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::http::{
    HttpLane, completed, ended, next_event, prompt, prompts, served, submit, submit_all, until,
};
use crate::support::shows;

const HOLDS: &str = "/api/admin/glm/holds";
const BREAKER: &str = "/api/admin/glm/breaker";

async fn holds(api: &Api) -> Vec<Value> {
    let holds = api.get(HOLDS).await.expect(200);
    holds["holds"].as_array().unwrap().clone()
}

/// What is held: scope, name and code.
async fn held(api: &Api) -> Vec<String> {
    let told = |hold: &Value| {
        let text = |name: &str| hold[name].as_str().unwrap_or("-").to_owned();
        format!("{} {} {}", text("scope"), text("name"), text("code"))
    };
    holds(api).await.iter().map(told).collect()
}

async fn until_held(api: &Api, what: &[&str]) {
    until(&format!("{what:?} is held"), async || {
        held(api).await == what
    })
    .await;
}

/// A lane on which cool-downs last an hour, with lanes of their own for glm-5 and glm-4.6.
async fn slow_to_forget() -> (HttpLane, Orchestrator, Api) {
    const HOUR: u64 = 3_600_000;
    let mut world = HttpLane::new();
    world.config.retry.throttle.base_ms = HOUR;
    world.config.retry.throttle.max_ms = HOUR;
    world.config.retry.overload.base_ms = HOUR;
    world.config.retry.overload.max_ms = HOUR;
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let lanes = json!({"lanes": {
        "big": {"models": ["glm-5"]},
        "old": {"models": ["glm-4.6"]},
    }});
    api.configure(lanes).await;
    (world, lane, api)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_hold_stops_what_it_says_is_seen_and_is_ended_alone() {
    let (world, lane, api) = slow_to_forget().await;
    let once = |model: &str, code: &str| Rule::for_model(model, Fault::error(code)).times(1);
    world.rule(once("glm-5", "1302"));
    world.rule(once("glm-4.6", "1305"));
    world.rule(once("glm-4.7", "1113"));
    let mut events = lane.subscribe();
    let throttled = api.ask("throttled", "glm-5").await;
    until_held(&api, &["lane big 1302"]).await;
    let busy = api.ask("busy", "glm-4.6").await;
    until_held(&api, &["lane big 1302", "model glm-4.6 1305"]).await;
    // The others go on.
    let other = api.ask("other", "glm-4.5").await;
    api.completed(&other).await;
    let unpaid = api.submit(json!({"prompt": "unpaid"})).await;
    let all = ["account - 1113", "lane big 1302", "model glm-4.6 1305"];
    until_held(&api, &all).await;
    let seen = holds(&api).await;
    let kinds: Vec<_> = seen.iter().map(|hold| &hold["kind"]).collect();
    assert_eq!(kinds, ["operator", "throttle", "overload"]);
    assert_eq!(seen[0]["until"], json!(null));
    assert!(seen[1]["until"].is_string() && seen[2]["until"].is_string());
    assert!(seen.iter().all(|hold| hold["since"].is_string()));
    let metrics = api.metrics().await;
    assert_eq!(metrics["lane"]["holds"], json!(seen));
    assert_eq!(metrics["lane"]["hold"]["code"], "1113");
    let of_lane = metrics["lane"]["lanes"].as_array().unwrap().iter();
    let of_lane: Value = of_lane
        .map(|lane| json!([lane["name"], lane["hold"]["code"]]))
        .collect();
    let expected = json!([["default", null], ["big", "1302"], ["old", null]]);
    assert_eq!(of_lane, expected);

    // A restart forgets none.
    api.stop().await;
    let lane = world.restart(lane).await;
    let api = Api::serve(&lane).await;
    assert_eq!(holds(&api).await, seen);

    for wrong in "lane/default lane/old model/glm-5 model/nothing%20there".split(' ') {
        let refused = api.delete(&format!("{HOLDS}/{wrong}")).await.expect(404);
        shows!(refused, {"type": "urn:onelane:problem:unknown-hold"});
    }
    let mut more_events = lane.subscribe();
    api.release("model/glm-4.6").await;
    assert_eq!(held(&api).await, all[..2]);
    let waits = async |id: &str| api.job(id).await["status"] == "pending";
    assert!(waits(&busy).await, "the account is held yet");
    api.release("account").await;
    api.completed(&busy).await;
    api.completed(&unpaid).await;
    assert!(waits(&throttled).await, "its lane is held yet");
    api.release("lane/big").await;
    api.completed(&throttled).await;
    assert_eq!(held(&api).await, [""; 0]);
    for (events, name) in [
        (&mut events, "lane.held"),
        (&mut more_events, "lane.released"),
    ] {
        for _ in 0..3 {
            next_event(events, |event| (event.name() == name).then_some(())).await;
        }
    }
    // A throttle and an operator's hold use up no retry, an overload does.
    let retries = async |id: &str| api.job(id).await["retryCount"].clone();
    assert_eq!(retries(&throttled).await, 0);
    assert_eq!(retries(&unpaid).await, 0);
    assert_eq!(retries(&busy).await, 1);
    assert_eq!(world.sim.stats().calls, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_stays_when_holds_end_and_a_resume_ends_all() {
    let (world, lane, api) = slow_to_forget().await;
    world.rule(Rule::always(Fault::error("1302")).times(1));
    let job = api.submit(json!({"prompt": "waits"})).await;
    until_held(&api, &["lane default 1302"]).await;
    api.order("pause", json!({"reason": "lunch"})).await;
    let metrics = api.metrics().await;
    assert_eq!(metrics["lane"]["paused"]["reason"], "lunch");
    api.release("lane/default").await;
    assert_eq!(api.metrics().await["lane"]["paused"]["reason"], "lunch");
    // Said again with other words, it is as it was said last.
    api.order("pause", json!({"reason": "dinner"})).await;
    let paused = lane.lane().await.unwrap().paused.unwrap();
    assert_eq!(paused.reason.as_deref(), Some("dinner"));
    assert_eq!(world.sim.stats().calls, 1);

    api.order("breaker/open", json!({})).await;
    api.order("drain", json!({})).await;
    api.order("resume", json!({})).await;
    api.completed(&job).await;
    let metrics = api.metrics().await;
    for nothing in ["paused", "draining", "hold"] {
        assert_eq!(metrics["lane"][nothing], json!(null), "{nothing}");
    }
    assert_eq!(metrics["lane"]["breaker"]["state"], "closed");
    // Nothing to end is nothing wrong.
    api.order("resume", json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_breaker_is_opened_for_a_time_and_keeps_it_over_a_restart() {
    let (world, lane, api) = served().await;
    for wrong in [
        r#"{"forMs": 0}"#,
        r#"{"forMs": -1}"#,
        r#"{"forMs": "1h"}"#,
        r#"{"forMs": 1.5}"#,
        r#"{"until": 5}"#,
        r#"{"reason": 7}"#,
        "[]",
    ] {
        let refused = api.post(&format!("{BREAKER}/open"), wrong).await;
        assert_eq!(refused.status, 400, "{wrong}: {refused:?}");
    }
    let open = r#"{"reason": "maintenance", "forMs": 2000}"#;
    let opened = api.post(&format!("{BREAKER}/open"), open).await.expect(200);
    assert_eq!(opened["breaker"]["reason"], "maintenance");
    assert!(opened["breaker"]["probeAt"].is_string(), "{opened}");
    let jobs = submit_all(&lane, prompts(3)).await;
    api.stop().await;
    let lane = world.restart(lane).await;
    let api = Api::serve(&lane).await;
    assert_eq!(api.get(BREAKER).await.expect(200), opened);
    for job in jobs {
        let record = completed(&lane, job).await;
        let probe_at = opened["breaker"]["probeAt"].as_str().unwrap();
        assert!(record.job.processed_at.unwrap().to_rfc3339().as_str() >= probe_at);
    }
    let closed = api.get(BREAKER).await.expect(200);
    shows!(closed["breaker"], {"state": "closed", "forced": false});
    // Opened without an end, an end can be given to it.
    api.post_bare(&format!("{BREAKER}/open")).await.expect(200);
    let job = api.submit(json!({"prompt": "waits"})).await;
    let opened = api
        .post(&format!("{BREAKER}/open"), r#"{"forMs": 1}"#)
        .await;
    assert_eq!(opened.expect(200)["breaker"]["forced"], true);
    api.completed(&job).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_that_means_something_else_now_holds_no_more() {
    let (world, _lane, api) = slow_to_forget().await;
    world.rule(Rule::always(Fault::error("1311")).times(2));
    let job = api.submit(json!({"prompt": "not in the plan"})).await;
    until("it is held", async || !held(&api).await.is_empty()).await;
    let policy = async |code: &str| {
        let policy = api.get("/api/admin/glm/policy").await.expect(200);
        let rows = policy["policy"].as_array().unwrap().clone();
        rows.into_iter().find(|row| row["code"] == code).unwrap()
    };
    let shipped = policy("1311").await;
    assert_eq!(shipped["class"], "operator_fatal");
    // Another code's meaning is not this one's.
    api.configure(json!({"policy": {"1113": "request_fatal"}}))
        .await;
    assert_eq!(held(&api).await.len(), 1);
    assert_eq!(world.sim.stats().calls, 1);
    let changed = api
        .configure(json!({"policy": {"1311": "request_fatal"}}))
        .await;
    assert_eq!(changed["policy"]["1311"], "request_fatal");
    let ended = api.ended(&job).await;
    assert_eq!(ended["status"], "failed");
    shows!(ended["error"], {"code": "1311", "class": "request_fatal"});
    assert_eq!(held(&api).await, [""; 0]);
    let row = policy("1311").await;
    shows!(row, {"class": "request_fatal", "job": "fail", "lane": "go_on"});
    assert_ne!(row["origin"], shipped["origin"]);

    // A rule alone: the model waits, the account does not.
    let word =
        json!({"policy": {"1311": {"class": "operator_fatal", "lane": "hold_model_for_operator"}}});
    api.configure(word).await;
    world.rule(Rule::for_model("glm-5", Fault::error("1311")).times(1));
    let waits = api.ask("waits", "glm-5").await;
    until_held(&api, &["model glm-5 1311"]).await;
    let other = api.submit(json!({"prompt": "other"})).await;
    api.completed(&other).await;
    // As shipped again: what it held is let go.
    api.configure(json!({"policy": {"1311": null}})).await;
    api.completed(&waits).await;
    assert_eq!(policy("1311").await, shipped);
    let refused = api
        .put("/api/admin/glm/config", r#"{"policy": {"1311": "fatal"}}"#)
        .await;
    let refused = refused.expect(400);
    let detail = refused["detail"].as_str().unwrap();
    let says = |part| detail.contains(part);
    assert!(says("1311") && says("request_fatal"), "{detail}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_that_means_something_else_since_the_last_start_holds_no_more() {
    let mut world = HttpLane::new();
    world.rule(Rule::always(Fault::error("1113")).times(1));
    let lane = world.start().await;
    let job = submit(&lane, prompt("unpaid")).await;
    until("it is held", async || {
        lane.lane().await.unwrap().hold.is_some()
    })
    .await;
    let other = onelane::model::FailureClass::RequestFatal;
    world.config.policy.insert("1308".to_owned(), other.into());
    let lane = world.restart(lane).await;
    // That is another code.
    assert!(lane.lane().await.unwrap().hold.is_some());
    world.config.policy.insert("1113".to_owned(), other.into());
    let lane = world.restart(lane).await;
    completed(&lane, job).await;
    assert_eq!(world.sim.stats().calls, 2);
}

/// The calls for a model, in the order they came.
fn of_model(world: &HttpLane, model: &str) -> Vec<Arrival> {
    let mut arrivals = world.sim.arrivals();
    arrivals.retain(|arrival| arrival.model == model);
    arrivals
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_are_made_and_taken_away_while_jobs_run() {
    let world = HttpLane::slow(20);
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let submit = async |count: usize| {
        let job = |n: usize| prompt(format!("{n}")).model(["glm-4.7", "glm-5"][n % 2]);
        submit_all(&lane, (0..count).map(job)).await
    };
    let jobs = submit(120).await;
    world.until_called(4).await;
    assert_eq!(world.sim.stats().peak_in_flight, 1);
    api.configure(json!({"lanes": {"big": {"models": ["glm-5*"], "maxConcurrency": 2}}}))
        .await;
    until("three are open", async || {
        world.sim.stats().peak_in_flight == 3
    })
    .await;
    world.until_called(9).await;
    let stats = world.sim.stats();
    assert_eq!(stats.peak_by_model["glm-5"], 2);
    assert_eq!(stats.peak_by_model["glm-4.7"], 1);
    let lanes = api.metrics().await["lane"]["lanes"].clone();
    shows!(lanes[1], {"name": "big", "maxConcurrency": 2});

    api.configure(json!({"lanes": {"big": null}})).await;
    // Those that are open, or on their way, finish; from then on it is one.
    until("one is open at most", async || {
        lane.lane().await.unwrap().in_flight <= 1 && world.sim.stats().in_flight <= 1
    })
    .await;
    let from = world.sim.now_us();
    world.until_called(6).await;
    assert!(world.sim.peak_since(from, None) <= 1);
    api.configure(json!({"maxConcurrency": 8})).await;
    for id in jobs {
        completed(&lane, id).await;
    }
    let stats = world.sim.stats();
    assert_eq!((stats.calls, stats.clients_left), (120, 0));
    assert_eq!(stats.duplicate_request_ids, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pace_is_kept_from_the_moment_it_is_set_and_let_go_with_it() {
    let (world, lane, api) = served().await;
    lane.call(prompt("before")).await.unwrap();
    api.configure(json!({"minSpacing": 200})).await;
    lane.pause(None).await.unwrap();
    let jobs = submit_all(&lane, prompts(4)).await;
    let from = world.sim.stats().calls as usize;
    lane.resume().await.unwrap();
    lane.wait(jobs[3]).await.unwrap();
    // The way to the server takes now more, now less: three spacings, seen as two at least.
    let arrivals = &world.sim.arrivals()[from..];
    let apart_us = arrivals[3].at_us - arrivals[0].at_us;
    assert!(apart_us >= 400_000, "{apart_us} us");
    // An hour between two calls, and not even that any more.
    api.configure(json!({"minSpacing": 3_600_000})).await;
    let job = api.submit(json!({"prompt": "late"})).await;
    until("the pace is seen", async || {
        api.metrics().await["lane"]["lanes"][0]["notBefore"].is_string()
    })
    .await;
    assert_eq!(api.metrics().await["lane"]["ready"], 1);
    api.configure(json!({"minSpacing": 0})).await;
    api.completed(&job).await;
    assert_eq!(
        api.metrics().await["lane"]["lanes"][0]["notBefore"],
        json!(null)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fallback_that_is_set_while_a_model_is_held_serves_and_is_named() {
    let (world, _lane, api) = slow_to_forget().await;
    world.rule(Rule::for_model(
        "glm-5",
        Fault::Error(ErrorFault::of("1305")),
    ));
    let waits = api.ask("waits", "glm-5").await;
    until_held(&api, &["model glm-5 1305"]).await;
    api.configure(json!({"fallbacks": {"glm-5": ["glm-4.7"]}}))
        .await;
    let job = api.ended(&waits).await;
    shows!(job, {"status": "completed", "servedBy": "glm-4.7", "model": "glm-5"});
    assert_eq!(job["result"]["model"], "glm-4.7");

    let chat = json!({"model": "glm-5", "messages": [{"role": "user", "content": "hi"}]});
    let served = api.post("/v1/chat/completions", chat.to_string()).await;
    assert_eq!(served.expect(200)["model"], "glm-4.7");
    assert_eq!(served.headers["x-onelane-model"], "glm-4.7");
    let own = json!({"model": "glm-4.7", "messages": [{"role": "user", "content": "hi"}]});
    let own = api.post("/v1/chat/completions", own.to_string()).await;
    own.expect(200);
    assert_eq!(own.headers["x-onelane-model"], "glm-4.7");

    // Each call is of the model that was called.
    let attempts = api.job(&waits).await["attempts"].clone();
    let models = attempts.as_array().unwrap().iter().map(|a| &a["model"]);
    assert!(models.eq(["glm-5", "glm-4.7"]));

    // Without the fallback, and with the model well again, it serves itself.
    api.configure(json!({"fallbacks": {"glm-5": null}})).await;
    world.sim.clear_script();
    let again = api.ask("again", "glm-5").await;
    assert_eq!(api.job(&again).await["status"], "pending");
    api.release("model/glm-5").await;
    let job = api.ended(&again).await;
    assert_eq!(job["status"], "completed");
    assert_eq!(job.get("servedBy"), None);
    assert_eq!(of_model(&world, "glm-5").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_lane_refuses_in_each_clients_language_and_still_brings_back_dead_letters() {
    let world = HttpLane::new();
    world.rule(Rule::for_prompt("bad", Fault::error("1210")).times(1));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let dead = api.submit(json!({"prompt": "bad"})).await;
    api.ended(&dead).await;
    let blocker = world.block(&lane).await;
    let behind = submit(&lane, prompt("behind").after([blocker])).await;
    api.order("drain", json!({"reason": "moving"})).await;
    let chat = json!({"messages": [{"role": "user", "content": "late"}]}).to_string();
    for path in ["/v1/chat/completions", "/api/paas/v4/chat/completions"] {
        let refused = api.post(path, chat.clone()).await.expect(503);
        let error = &refused["error"];
        assert!(
            error["code"]
                .as_str()
                .unwrap()
                .bytes()
                .all(|b| b.is_ascii_digit())
        );
        let message = error["message"].as_str().unwrap();
        assert_eq!(
            message,
            "the lane takes no new jobs until an operator resumes it: moving"
        );
    }
    let list = api
        .post("/api/glm/jobs", r#"[{"prompt": "a"}, {"prompt": "b"}]"#)
        .await
        .expect(503);
    shows!(list, {"accepted": 0, "refused": 2});
    let wrong = api.post("/api/glm/jobs", r#"{"promt": "a"}"#).await;
    assert_eq!(wrong.status, 400, "what is wrong is wrong even now");
    assert_eq!(api.metrics().await["lane"]["drained"], false);

    world.sim.clear_script();
    api.post_bare(&format!("/api/admin/glm/retry/{dead}"))
        .await
        .expect(200);
    lane.cancel(blocker).await.unwrap();
    api.completed(&dead).await;
    ended(&lane, behind, JobStatus::Cancelled).await;
    until("nothing is left", async || {
        api.metrics().await["lane"]["drained"] == true
    })
    .await;
    api.stop().await;
    let lane = world.restart(lane).await;
    let api = Api::serve(&lane).await;
    assert_eq!(api.metrics().await["lane"]["drained"], true);
    api.post("/api/glm/jobs", r#"{"prompt": "late"}"#)
        .await
        .expect(503);
    api.order("resume", json!({})).await;
    let job = api.submit(json!({"prompt": "welcome"})).await;
    api.completed(&job).await;
}
