//! Guards: an order of service that is told and not kept, a reason for waiting that nobody ever sees on the real
//! thing.

use std::sync::Arc;

use onelane::model::WaitReason;
use onelane::ports::StoreError;
use onelane_actors::testing::{CommitFate, MemoryStore, ScriptedGlm};
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::http::{HttpLane, prompt, until};
use crate::support::{VirtualLane, ms, shows};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_service_is_told_with_exact_positions_and_kept() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let blocker = world.block(&lane).await;
    for (text, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 9), ("e", 5)] {
        lane.submit(prompt(text).priority(priority)).await.unwrap();
    }
    let first = lane.submit(prompt("before z")).await.unwrap().job_id;
    lane.submit(prompt("z").after(vec![first])).await.unwrap();
    let path = "/api/admin/glm/queue?order=service";
    let order = async || api.get(path).await.expect(200)["queue"].clone();
    // The most urgent is on record as the next one; the others have their places behind it.
    until("the next one is staged", async || {
        order().await[0]["waitReason"]["name"] == "stage"
    })
    .await;
    let queue = order().await;
    let jobs = queue.as_array().unwrap();
    let told = |name: &str| -> Vec<Value> { jobs.iter().map(|job| job[name].clone()).collect() };
    let want = ["d", "b", "e", "a", "c", "before z"];
    assert_eq!(told("prompt"), want, "z waits for another and has no place");
    let positions: Vec<Value> = jobs[1..]
        .iter()
        .map(|job| job["waitReason"]["position"].clone())
        .collect();
    assert_eq!(positions, [2, 3, 4, 5, 6].map(Value::from));
    let two = api.get(&format!("{path}&limit=2")).await.expect(200);
    assert_eq!(two["queue"].as_array().unwrap().len(), 2);
    assert_eq!(two["nextCursor"], json!(null));
    let more = api.get(&format!("{path}&cursor=3")).await.expect(400);
    assert_eq!(more["errors"][0]["field"], "cursor");
    let other = api.get("/api/admin/glm/queue?order=oldest").await;
    assert_eq!(other.status, 400, "{other:?}");

    lane.cancel(blocker).await.unwrap();
    until("all are done", async || {
        lane.queue_status().await.unwrap().completed == 7
    })
    .await;
    let went = world.prompts();
    assert_eq!(went[1..], ["d", "b", "e", "a", "c", "before z", "z"]);
}

#[tokio::test(start_paused = true)]
async fn a_job_of_a_lane_that_has_ended_says_that_no_lane_runs() {
    let world = VirtualLane::new(ScriptedGlm::answering(ms(1)));
    let lane = world.start().await;
    lane.pause(None).await.unwrap();
    let id = lane.submit(prompt("later")).await.unwrap().job_id;
    lane.shutdown(ms(1_000)).await;
    let reason = lane.job(id).await.unwrap().wait_reason.unwrap();
    assert_eq!(reason, WaitReason::Offline);
    assert_eq!(reason.to_string(), "no lane runs on this store");
}

#[tokio::test(start_paused = true)]
async fn a_job_of_a_lane_that_waits_for_room_on_its_disk_says_so_over_http_too() {
    let store = Arc::new(MemoryStore::new());
    let mut world = VirtualLane::new(ScriptedGlm::answering(ms(1)));
    world.store = Arc::clone(&store) as Arc<_>;
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    lane.pause(None).await.unwrap();
    let id = lane.submit(prompt("first")).await.unwrap().job_id;
    let full = StoreError::Full {
        path: "test.redb".to_owned(),
        message: "no space".to_owned(),
    };
    store.fail_next_commit(full, CommitFate::Lost);
    lane.submit(prompt("second")).await.unwrap_err();
    let ready = api.get("/readyz").await.expect(503);
    assert_eq!(ready["type"], "urn:onelane:problem:store-failed");
    let metrics = api.get("/api/admin/glm/metrics").await.expect(200);
    assert_eq!(metrics["lane"]["diskFull"], true);
    let shown = api.get(&format!("/api/glm/jobs/{id}")).await.expect(202);
    assert_eq!(shown["waitReason"]["name"], "diskFull");
    assert_eq!(shown["waitReason"]["text"], "the disk is full");
    assert_eq!(
        shown["waitReason"]["help"],
        "free some space; the lane goes on by itself"
    );
    tokio::time::sleep(ms(5_000)).await;
    // It takes work again; the pause is still there.
    let ready = api.get("/readyz").await.expect(200);
    shows!(ready, {"status": "degraded", "reason": "paused"});
    lane.submit(prompt("second")).await.unwrap();
}
