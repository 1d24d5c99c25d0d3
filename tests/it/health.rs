//! Guards: whether the lane takes work, and whether it sends it, is told by a round trip through queue and store.

use std::sync::Arc;

use onelane::orchestrator::{Health, NotReady};
use onelane_actors::FaultPoints;
use onelane_actors::ports::Clock as _;
use onelane_actors::testing::ScriptedGlm;
use serde_json::json;

use crate::support::api::Api;
use crate::support::{VirtualLane, ms, shows};

/// What `/readyz` says: its status, and the name of what it tells.
async fn ready(api: &Api) -> (u16, String) {
    let reply = api.get("/readyz").await;
    let told = reply.json();
    let name = ["reason", "type", "status"];
    let name = name.into_iter().find_map(|name| told[name].as_str());
    (reply.status, name.unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_takes_work_and_sends_none_is_degraded_and_says_why() {
    let world = VirtualLane::new(ScriptedGlm::answering(ms(1)));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    shows!(api.get("/readyz").await.expect(200), {"status": "ready"});
    lane.pause(Some("secret talks".to_owned())).await.unwrap();
    let told = api.get("/readyz").await.expect(200);
    assert_eq!(told, json!({"status": "degraded", "reason": "paused"}));
    // Jobs are taken all the same.
    api.ask("waits", "glm-4.7").await;
    lane.resume().await.unwrap();
    assert_eq!(ready(&api).await, (200, "ready".to_owned()));

    let until = world.clock.now().plus_ms(60_000);
    lane.breaker_open("tried".to_owned(), Some(until))
        .await
        .unwrap();
    let told = api.get("/readyz").await.expect(200);
    assert_eq!(
        (&told["status"], &told["reason"]),
        (&json!("degraded"), &json!("breaker"))
    );
    assert!(told["until"].is_string(), "{told}");
    lane.resume().await.unwrap();

    lane.close_intake(None).await.unwrap();
    assert_eq!(
        ready(&api).await,
        (503, "urn:onelane:problem:draining".to_owned())
    );
    assert!(matches!(
        lane.health(ms(100)).await,
        Err(NotReady::IntakeClosed)
    ));
    // It works: only work is not taken.
    lane.round_trip(ms(100)).await.unwrap();
    lane.resume().await.unwrap();
    assert_eq!(lane.health(ms(100)).await.unwrap(), Health::Ready);
    lane.shutdown(ms(1_000)).await;
    assert_eq!(
        ready(&api).await,
        (503, "urn:onelane:problem:stopped".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_is_seen_although_the_queue_answers() {
    let mut world = VirtualLane::new(ScriptedGlm::answering(ms(1)));
    let slow = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let hangs = Arc::clone(&slow);
    world.fault_points = FaultPoints::default().with_disk_time(Arc::new(move || {
        match hangs.load(std::sync::atomic::Ordering::Relaxed) {
            true => ms(30_000),
            false => ms(0),
        }
    }));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    assert_eq!(ready(&api).await, (200, "ready".to_owned()));
    slow.store(true, std::sync::atomic::Ordering::Relaxed);
    let pausing = tokio::spawn({
        let lane = lane.clone();
        async move { lane.pause(None).await }
    });
    tokio::time::sleep(ms(1)).await;
    assert!(matches!(
        lane.health(ms(500)).await,
        Err(NotReady::Slow("the store", _))
    ));
    let (status, told) = ready(&api).await;
    assert_eq!(
        (status, told.as_str()),
        (503, "urn:onelane:problem:stopped")
    );
    slow.store(false, std::sync::atomic::Ordering::Relaxed);
    pausing.await.unwrap().unwrap();
    lane.round_trip(ms(500)).await.unwrap();
}
