//! Guards: an operator's word that is not obeyed at once, not kept over a restart, or taken although it
//! is wrong; a lane that does not end as it was told to.

use std::time::Instant;

use onelane::config::Loader;
use onelane::error::Error;
use onelane::model::{CallOutcome, Event, JobStatus, Secret};
use onelane::orchestrator::{Orchestrator, StopReason};
use onelane::ports::StoreError;
use onelane_actors::protocol::QueueMsg;
use serde_json::json;

use crate::support::api::Api;
use crate::support::http::{
    BLOCKER, HttpLane, KEY, PATIENCE, calls_of, completed, configure, next_event, prompt, prompts,
    started, stop, submit, submit_all, until, until_completed, waiting,
};
use crate::support::ms;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_stops_before_the_next_call_and_outlives_a_restart() {
    let world = HttpLane::slow(200);
    let lane = world.start().await;
    let mut events = lane.subscribe();
    let mut jobs = submit_all(&lane, prompts(3)).await;
    world.until_in_flight(1).await;
    lane.pause(Some("lunch".to_owned())).await.unwrap();
    // The open call ends in peace.
    completed(&lane, jobs[0]).await;
    let paused = lane.lane().await.unwrap().paused.unwrap();
    assert_eq!(paused.reason.as_deref(), Some("lunch"));
    let told = next_event(&mut events, |event| match event {
        Event::LanePaused { pause } => Some(pause.clone()),
        _ => None,
    });
    assert_eq!(told.await, paused);

    let lane = world.restart(lane).await;
    assert_eq!(lane.lane().await.unwrap().paused, Some(paused));
    // Jobs are still taken.
    jobs.push(submit(&lane, prompt("job 3")).await);
    tokio::time::sleep(ms(100)).await;
    assert_eq!(world.sim.stats().calls, 1);
    lane.resume().await.unwrap();
    assert_eq!(lane.lane().await.unwrap().paused, None);
    for id in jobs {
        completed(&lane, id).await;
    }
    let lane = world.restart(lane).await;
    assert_eq!(lane.lane().await.unwrap().paused, None);
    assert_eq!(world.prompts(), ["job 0", "job 1", "job 2", "job 3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_rotated_in_its_file_is_taken_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    let write = |key: &str| std::fs::write(&file, key).unwrap();
    write(KEY);
    let mut world = HttpLane::new();
    world.config.glm.api_key = None;
    world.config.glm.api_key_file = Some(file.display().to_string());
    let lane = world.start().await;
    lane.call(prompt("with the first")).await.unwrap();
    let held = async || !lane.lane().await.unwrap().holds.is_empty();

    world.sim.set_keys(["0123456789abcdef.the-second-secret"]);
    let first = submit(&lane, prompt("one")).await;
    until("the lane is held", held).await;
    assert!(!lane.reload_key().await.unwrap(), "nothing new");
    assert!(held().await);
    write("0123456789abcdef.the-second-secret\n");
    // What was held for the old key ends with it.
    assert!(lane.reload_key().await.unwrap());
    completed(&lane, first).await;

    world.sim.set_keys(["0123456789abcdef.the-third-secret"]);
    let second = submit(&lane, prompt("two")).await;
    until("the lane is held", held).await;
    write("");
    let error = lane.reload_key().await.unwrap_err().to_string();
    assert!(
        error.contains("glm.api_key_file") && !error.contains("secret"),
        "{error}"
    );
    write("0123456789abcdef.the-third-secret");
    lane.resume().await.unwrap();
    completed(&lane, second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_changed_while_the_environment_has_one_is_told_to_be_shadowed() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("lane.redb");
    let loaded = Loader::new(|name| (name == "ZAI_API_KEY").then(|| KEY.into()))
        .directory(directory.path())
        .flag("--store", "store.path", Some(&store))
        .load()
        .unwrap();
    let lane = Orchestrator::start_loaded(loaded).await.unwrap();
    let api = Api::serve(&lane).await;
    let key = r#"{"apiKey":"0123456789abcdef.another-secret"}"#;
    let config = api.put("/api/admin/glm/config", key).await.expect(200)["config"].clone();
    assert_eq!(
        config["shadowed"],
        json!([{"field": "apiKey", "origin": "environment ZAI_API_KEY"}])
    );
    assert_eq!(config["apiKey"], "****cret");
    assert_eq!(lane.settings().glm.api_key, Some(Secret::new(KEY)));
    lane.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_setting_is_in_force_for_the_next_call_and_outlives_a_restart() {
    let (world, lane) = started().await;
    let mut events = lane.subscribe();
    lane.call(prompt("one")).await.unwrap();
    let view = configure(&lane, json!({"model": "glm-5", "retry": {"baseDelay": 7}})).await;
    assert_eq!(view["model"], "glm-5");
    assert_eq!(view["retry"]["baseDelay"], 7);
    assert_eq!(lane.config_view(), view);
    next_event(&mut events, |event| {
        matches!(event, Event::ConfigChanged).then_some(())
    })
    .await;
    lane.call(prompt("two")).await.unwrap();
    let lane = world.restart(lane).await;
    assert_eq!(lane.config_view(), view);
    lane.call(prompt("three")).await.unwrap();
    // Taken back, the value of the program counts again.
    configure(&lane, json!({"model": null})).await;
    lane.call(prompt("four")).await.unwrap();
    let models: Vec<_> = world.sim.arrivals().into_iter().map(|a| a.model).collect();
    assert_eq!(models, ["glm-4.7", "glm-5", "glm-5", "glm-4.7"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_setting_is_named_and_nothing_of_the_change_is_in_force() {
    let (world, lane) = started().await;
    let before = lane.config_view();
    let refused = async |patch| match lane.set_config(&patch).await {
        Err(Error::Config(error)) => {
            let fields = error.problems.into_iter().map(|problem| problem.field);
            fields.collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let patch = json!({"maxConcurrency": "two", "model": "glm-5", "colour": "red"});
    let mut fields = refused(patch).await;
    fields.sort_unstable();
    assert_eq!(fields, ["colour", "maxConcurrency"]);
    assert_eq!(
        refused(json!({"maxConcurrency": 0})).await,
        ["maxConcurrency"]
    );
    assert_eq!(refused(json!({"timeout": 0})).await, ["timeout"]);
    assert_eq!(refused(json!({"baseUrl": "nowhere"})).await, ["baseUrl"]);
    assert_eq!(refused(json!({"temperature": 7.5})).await, ["temperature"]);
    assert_eq!(refused(json!([])).await, [""]);
    assert_eq!(lane.config_view(), before);
    let lane = world.restart(lane).await;
    let mut after = lane.config_view();
    // The file keeps no change, and so no moment of its beginning either.
    for moment in ["createdAt", "updatedAt"] {
        after[moment] = before[moment].clone();
    }
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_lets_the_open_call_finish_and_keeps_the_rest() {
    let world = HttpLane::slow(300);
    let lane = world.start().await;
    let jobs = vec![prompt("open"), prompt("staged"), prompt("in line")];
    let jobs = submit_all(&lane, jobs).await;
    world.until_in_flight(1).await;
    let waiter = waiting(&lane, jobs[0]);
    assert!(lane.shutdown(PATIENCE).await.drained);
    assert_eq!(lane.stopped().await, StopReason::Shutdown);
    let stats = world.sim.stats();
    assert_eq!((stats.calls, stats.answered, stats.in_flight), (1, 1, 0));
    let record = waiter.await.unwrap().unwrap();
    assert_eq!(record.job.status, JobStatus::Completed);
    // It takes nothing more, and what is stored can be read.
    let refused = lane.submit(prompt("late")).await;
    assert!(matches!(refused, Err(Error::Stopped(_))), "{refused:?}");
    let counts = lane.queue_status().await.unwrap();
    assert_eq!((counts.completed, counts.pending), (1, 2));
    // A second one has nothing to do.
    stop(lane, 10).await;

    let lane = world.start().await;
    for id in jobs {
        completed(&lane, id).await;
    }
    let calls = calls_of(&lane).await;
    assert!(calls.iter().all(|c| c.outcome == CallOutcome::Completed));
    assert_eq!(world.prompts(), ["open", "staged", "in line"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_still_open_at_the_deadline_is_closed_and_on_record_as_interrupted() {
    let (world, lane) = started().await;
    let job = world.block(&lane).await;
    let begun = Instant::now();
    assert!(!lane.shutdown(ms(100)).await.drained);
    // It does not wait for the call.
    assert!(begun.elapsed() < PATIENCE / 2);
    let stats = world.sim.stats();
    assert_eq!((stats.in_flight, stats.clients_left), (0, 1));
    let detail = lane.job(job).await.unwrap();
    assert_eq!(detail.record.job.status, JobStatus::Pending);
    let [attempt] = detail.attempts.as_slice() else {
        panic!("{:?}", detail.attempts)
    };
    assert_eq!(attempt.outcome, CallOutcome::Interrupted);
    assert!(attempt.maybe_billed);
    drop(lane);

    world.sim.clear_script();
    let lane = world.start().await;
    let record = completed(&lane, job).await;
    assert_eq!((record.job.retry_count, record.job.interruptions), (0, 0));
    assert_eq!(world.sim.calls_of_prompt(BLOCKER), 2);
    assert_eq!(world.sim.stats().duplicate_request_ids, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_lane_owns_a_file_until_it_has_ended() {
    let (world, lane) = started().await;
    let Err(second) = world.try_start().await else {
        panic!("two lanes on one file")
    };
    let StoreError::Locked { path } = (match second {
        onelane::orchestrator::StartError::Store(error) => error,
        other => panic!("{other}"),
    }) else {
        panic!("not refused as in use")
    };
    assert_eq!(path, world.config.store.path);
    // Ended and dropped, it is free at once, even just after a transaction.
    let mut lane = lane;
    for n in 0..20 {
        lane.submit(prompt(format!("{n}"))).await.unwrap();
        lane = world.restart(lane).await;
    }
    until_completed(&lane, 20).await;
    assert_eq!(world.sim.stats().calls, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_starts_from_a_configuration_alone() {
    let world = HttpLane::new();
    let lane = Orchestrator::start(&world.config).await.unwrap();
    lane.call(prompt("one")).await.unwrap();
    configure(&lane, json!({"model": "glm-5"})).await;
    lane.shutdown(PATIENCE).await;
    drop(lane);
    let lane = Orchestrator::start(&world.config).await.unwrap();
    assert_eq!(lane.settings().glm.model, "glm-5");
    assert_eq!(lane.queue_status().await.unwrap().completed, 1);
    lane.call(prompt("two")).await.unwrap();
    assert_eq!(world.sim.arrivals()[1].model, "glm-5");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_concurrency_that_is_said_again_and_again_gives_each_slot_one_caller() {
    let world = HttpLane::slow(5);
    let lane = world.start().await;
    let jobs = (0..300).map(|n| prompt(format!("{n}"))).collect();
    lane.submit_many(jobs).await.unwrap();
    for slots in [4, 1, 3, 1, 4, 2] {
        let patch = json!({"maxConcurrency": slots});
        lane.set_config(&patch).await.unwrap();
        let queue = lane.queue().await.unwrap();
        for _ in 0..20 {
            let (reply, _) = tokio::sync::oneshot::channel();
            let again = QueueMsg::Configure {
                reply: reply.into(),
            };
            queue.cast(again).unwrap();
        }
        let calls = world.sim.stats().calls;
        until("calls go on", async || world.sim.stats().calls > calls + 20).await;
    }
    until_completed(&lane, 300).await;
    let stats = world.sim.stats();
    assert_eq!(stats.calls, 300);
    assert!(stats.peak_in_flight <= 4, "{stats:?}");
}
