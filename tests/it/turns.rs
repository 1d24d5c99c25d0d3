//! Guards: fairness and ageing that are configured and not kept, over HTTP and on a lane that runs.

use onelane::model::Timestamp;
use onelane::orchestrator::Orchestrator;
use onelane::ports::Clock as _;
use onelane::system::SystemClock;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::http::{HttpLane, served, until};

/// A turn of one plain prompt: it is estimated at a little more than a thousand tokens.
const ONE_A_TURN: u32 = 1_100;

/// Submits a job for each word: `user number`.
async fn submit(api: &Api, words: &[&str]) -> Vec<String> {
    let mut ids = Vec::new();
    for word in words {
        let user = word.split(' ').next();
        ids.push(api.submit(json!({"prompt": word, "userId": user})).await);
    }
    ids
}

/// Frees the lane of its blocker and waits for these jobs.
async fn work_off(world: &HttpLane, lane: &Orchestrator, api: &Api, ids: &[String]) -> Vec<String> {
    let from = world.sim.stats().calls as usize;
    let open = api
        .get("/api/admin/glm/queue?status=processing")
        .await
        .expect(200);
    let blocker = open["queue"][0]["id"].as_str().unwrap().parse().unwrap();
    lane.cancel(blocker).await.unwrap();
    for id in ids {
        assert_eq!(api.ended(id).await["status"], "completed");
    }
    world.prompts().split_off(from)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_take_turns_from_the_moment_it_is_switched_on() {
    let (world, lane, api) = served().await;
    let flood = ["ada 1", "ada 2", "ada 3", "ada 4", "ada 5"];
    let light = ["bob 1", "bob 2", "cy 1"];
    let round = async || {
        world.block(&lane).await;
        let mut ids = submit(&api, &flood).await;
        ids.extend(submit(&api, &light).await);
        let urgent = json!({"prompt": "dan 1", "userId": "dan", "priority": 1});
        ids.push(api.submit(urgent).await);
        ids
    };
    let first_come = [&["dan 1"][..], &flood, &light].concat();

    let ids = round().await;
    assert_eq!(work_off(&world, &lane, &api, &ids).await, first_come);

    let ids = round().await;
    api.configure(json!({"fairQuantumTokens": ONE_A_TURN}))
        .await;
    let order = work_off(&world, &lane, &api, &ids).await;
    assert_eq!(order[0], "dan 1", "within a priority only");
    let place = |word: &str| order.iter().position(|prompt| prompt == word).unwrap();
    assert!(place("bob 1") <= 3 && place("cy 1") <= 3, "{order:?}");
    assert!(place("bob 2") <= 5, "{order:?}");
    for pair in flood.windows(2) {
        assert!(place(pair[0]) < place(pair[1]), "{order:?}");
    }
    assert_eq!(order[6..], ["ada 3", "ada 4", "ada 5"], "alone again");

    let ids = round().await;
    api.configure(json!({"fairQuantumTokens": null})).await;
    assert_eq!(work_off(&world, &lane, &api, &ids).await, first_come);
}

/// The second that a moment is in.
fn second(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(1_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_waits_becomes_more_urgent_from_the_moment_it_is_switched_on() {
    let (world, lane, api) = served().await;
    world.block(&lane).await;
    let old = api.submit(json!({"prompt": "old"})).await;
    let since: Value = api.job(&old).await["createdAt"].clone();
    let since = Timestamp::parse_rfc3339(since.as_str().unwrap()).unwrap();
    until("two intervals have passed", async || {
        second(SystemClock.now()) >= second(since) + 2
    })
    .await;
    let raised = api.submit(json!({"prompt": "raised", "priority": 1})).await;
    let urgent = api.submit(json!({"prompt": "urgent", "priority": 9})).await;
    let ids = [old, raised, urgent];
    api.configure(json!({"ageing": 1_000})).await;
    let order = work_off(&world, &lane, &api, &ids).await;
    assert_eq!(order, ["urgent", "old", "raised"]);
    let shown = api.job(&ids[0]).await;
    assert_eq!(shown["priority"], 0, "what was asked for stays");
}
