//! The breaker that failures open: seen from everywhere, over a restart, until an operator resets it.

use onelane::model::{BreakerRule, Event, JobStatus, PolicyOverride};
use onelane::simulator::{Fault, Step};
use serde_json::json;

use super::{LONG_MS, moment};
use crate::support::api::Api;
use crate::support::http::{HttpLane, calls_of, next_event, prompt, until};
use crate::support::shows;

const BREAKER: &str = "/api/admin/glm/breaker";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_open_the_breaker_and_it_is_seen_from_everywhere_over_a_restart() {
    let mut world = HttpLane::new();
    world.config.breaker.consecutive_failures = 3;
    (
        world.config.breaker.cool_down_ms,
        world.config.breaker.cool_down_max_ms,
    ) = (LONG_MS, LONG_MS);
    world.sim.push(Step {
        fault: Fault::error("1234"),
        times: 3,
    });
    let lane = world.start().await;
    let mut events = lane.subscribe();
    let jobs = (0..4).map(|n| prompt(format!("job {n}"))).collect();
    let jobs = lane.submit_many(jobs).await.unwrap();
    let opened = next_event(&mut events, |event| match event {
        Event::BreakerChanged { breaker } => Some(breaker.clone()),
        _ => None,
    });
    assert_eq!(opened.await, lane.breaker());
    until("everything waits in line", async || {
        let lane = lane.lane().await.unwrap();
        (lane.ready, lane.waiting, lane.in_flight) == (4, 0, 0)
    })
    .await;

    let api = Api::serve(&lane).await;
    let shown = api.get(BREAKER).await.expect(200);
    let breaker = &shown["breaker"];
    shows!(breaker, {"state": "open", "forced": false, "consecutiveFailures": 3, "openings": 1});
    shows!(breaker, {"windowCalls": 3, "windowFailures": 3});
    assert!(
        breaker["reason"].as_str().unwrap().starts_with("1234 "),
        "{breaker}"
    );
    let calls = calls_of(&lane).await;
    let since = moment(&breaker["since"]);
    assert!(since >= calls[2].ended_at, "{breaker}");
    assert_eq!(moment(&breaker["probeAt"]), since.plus_ms(LONG_MS));
    let metrics = api.get("/api/admin/glm/metrics").await.expect(200);
    assert_eq!(&metrics["lane"]["breaker"], breaker);
    assert_eq!(metrics["lane"]["holds"], json!([]), "it is no hold");
    shows!(metrics["jobs"], {"pending": 4, "failed": 0});
    api.stop().await;

    let lane = world.restart(lane).await;
    let api = Api::serve(&lane).await;
    assert_eq!(api.get(BREAKER).await.expect(200), shown);
    until("everything waits in line", async || {
        let lane = lane.lane().await.unwrap();
        (lane.ready, lane.in_flight) == (4, 0)
    })
    .await;
    assert_eq!(world.sim.stats().calls, 3);

    let reset = api.post_bare(&format!("{BREAKER}/reset")).await.expect(200);
    assert_eq!(reset["breaker"]["state"], "closed");
    for job in jobs {
        let record = lane.wait(job.unwrap().job_id).await.unwrap();
        assert_eq!(record.job.status, JobStatus::Completed);
    }
    let after = api.get(BREAKER).await.expect(200);
    assert_eq!(after["breaker"]["openings"], 0);
    let stats = world.sim.stats();
    assert_eq!((stats.calls, stats.peak_in_flight), (7, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_that_is_to_open_the_breaker_opens_it_at_its_first_sight() {
    let mut world = HttpLane::new();
    let word = PolicyOverride {
        breaker: Some(BreakerRule::Open),
        ..PolicyOverride::default()
    };
    world.config.policy.insert("1261".to_owned(), word);
    (
        world.config.breaker.cool_down_ms,
        world.config.breaker.cool_down_max_ms,
    ) = (LONG_MS, LONG_MS);
    world.sim.push_fault(Fault::error("1261"));
    let lane = world.start().await;
    let too_long = lane.submit(prompt("too long")).await.unwrap().job_id;
    let job = lane.wait(too_long).await.unwrap().job;
    // The other rules are as shipped.
    assert_eq!(job.status, JobStatus::Failed);
    let breaker = lane.breaker();
    assert_eq!((breaker.state.name(), breaker.openings), ("open", 1));
    let waits = lane.submit(prompt("waits")).await.unwrap().job_id;
    until("it waits in line", async || {
        let lane = lane.lane().await.unwrap();
        (lane.ready, lane.in_flight) == (1, 0)
    })
    .await;
    assert_eq!(world.sim.stats().calls, 1);
    lane.breaker_reset().await.unwrap();
    lane.wait(waits).await.unwrap();
    assert_eq!(world.sim.stats().calls, 2);
}
