//! Guards: calls closer together than the pace allows, in the steady state, beside each other, or in
//! a burst after a restart.

use onelane::ports::Clock as _;
use onelane_actors::testing::ScriptedGlm;

use crate::support::file::FileLane;
use crate::support::http::{HttpLane, calls_of, prompts, stop, submit_all, until};
use crate::support::{START, VirtualLane, ms};

/// From each call's beginning to the next one's, in milliseconds.
fn gaps_ms(glm: &ScriptedGlm) -> Vec<u128> {
    let began: Vec<_> = glm.traces().iter().map(|call| call.began).collect();
    let gaps = began.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.map(|gap| gap.as_millis()).collect()
}

#[tokio::test(start_paused = true)]
async fn calls_beside_each_other_keep_the_pace_and_a_crash_makes_no_burst() {
    let mut file = FileLane::new(ScriptedGlm::answering(ms(7_000)));
    file.world.settings.lane.rules.max_concurrency = 4;
    file.world.settings.lane.rules.pace.min_spacing_ms = 3_000;
    let lane = file.start().await;
    let jobs = submit_all(&lane, prompts(12)).await;
    file.world
        .sleep_until(START.plus_ms(10 * 3_000 + 100))
        .await;
    assert_eq!(file.world.glm.in_flight(), 3);
    file.crash(lane);
    let lane = file.start().await;
    for id in jobs {
        lane.wait(id).await.unwrap();
    }
    // Three were interrupted and made again. What was staged may have been sent in the moment of the
    // crash, so the first call after it waits from then.
    let gaps = gaps_ms(&file.world.glm);
    assert_eq!(gaps.len(), 14);
    let longer: Vec<_> = gaps.iter().filter(|gap| **gap != 3_000).collect();
    assert!(
        longer.iter().all(|gap| (3_001..=6_000).contains(*gap)),
        "{gaps:?}"
    );
    assert!(longer.len() <= 1, "{gaps:?}");
    file.shut_down(lane).await;
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_minute_are_no_more_although_the_wall_clock_is_set() {
    const HOUR_MS: i64 = 3_600_000;
    let mut world = VirtualLane::new(ScriptedGlm::answering(ms(10)));
    world.settings.lane.rules.pace.requests_per_minute = 2;
    let lane = world.start().await;
    let jobs = submit_all(&lane, prompts(12)).await;
    for step in [
        HOUR_MS,
        30 * 24 * HOUR_MS,
        -2 * HOUR_MS,
        -24 * HOUR_MS,
        HOUR_MS,
    ] {
        for _ in 0..4 {
            tokio::time::sleep(ms(9_000)).await;
            world.clock.step(step / 4);
            // Whoever asks wakes the lane, which looks at the clock.
            let told = lane.lane().await.unwrap();
            let until = told.wait_reason.and_then(|reason| reason.until());
            let left = until.map_or(0, |until| until.since(world.clock.now()));
            assert!(left <= 30_000, "{left}");
        }
    }
    for id in jobs {
        lane.wait(id).await.unwrap();
    }
    let gaps = gaps_ms(&world.glm);
    assert_eq!(gaps.len(), 11);
    // And it waits no longer for that than it has to.
    let kept = |gap: &u128| (30_000..30_100).contains(gap);
    assert!(gaps.iter().all(kept), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_minute_are_no_more_although_the_clock_is_set_and_the_lane_restarts() {
    const DAY_MS: i64 = 86_400_000;
    for step in [DAY_MS, -DAY_MS] {
        let mut file = FileLane::new(ScriptedGlm::answering(ms(10)));
        file.world.settings.lane.rules.pace.requests_per_minute = 2;
        let mut lane = file.start().await;
        let jobs = submit_all(&lane, prompts(6)).await;
        for restarts in [true, false, true] {
            tokio::time::sleep(ms(24_000)).await;
            file.world.clock.step(step);
            // Whoever asks wakes the lane, which looks at the clock.
            lane.lane().await.unwrap();
            tokio::time::sleep(ms(1_000)).await;
            if restarts {
                file.shut_down(lane).await;
                lane = file.start().await;
            }
        }
        for id in jobs {
            lane.wait(id).await.unwrap();
        }
        let gaps = gaps_ms(&file.world.glm);
        assert_eq!(gaps.len(), 5);
        // And it waits no longer for that than it has to.
        let kept = |gap: &u128| (30_000..30_100).contains(gap);
        assert!(gaps.iter().all(kept), "{step}: {gaps:?}");
        file.shut_down(lane).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_sees_no_call_before_its_turn_and_no_burst_after_a_restart() {
    const SPACING_MS: u64 = 50;
    // The lane counts whole milliseconds.
    const ROUNDING_US: u64 = 1_000;
    let mut world = HttpLane::new();
    world.config.lane.rules.max_concurrency = 4;
    world.config.lane.rules.pace.requests_per_minute = 1_200;
    let lane = world.start().await;
    let begun_us = world.sim.now_us();
    let jobs = submit_all(&lane, prompts(20)).await;
    until("some calls are done", async || {
        lane.queue_status().await.unwrap().completed >= 8
    })
    .await;
    stop(lane, 10_000).await;
    let before = world.sim.arrivals().len();
    let restarted_us = world.sim.now_us();
    let lane = world.start().await;
    for id in jobs {
        lane.wait(id).await.unwrap();
    }
    // However late a call arrives, those after it don't make up for it.
    let arrivals = world.sim.arrivals();
    assert_eq!(arrivals.len(), 20);
    for (n, arrival) in arrivals.iter().enumerate() {
        let (from_us, turn) = match n.checked_sub(before) {
            None => (begun_us, n),
            Some(turn) => (restarted_us, turn),
        };
        let earliest_us = from_us + turn as u64 * SPACING_MS * 1_000;
        assert!(
            arrival.at_us + ROUNDING_US >= earliest_us,
            "call {n}: {arrivals:?}"
        );
    }
    // The first call of the new process knows of the last one of the old.
    let mut starts: Vec<_> = calls_of(&lane).await.iter().map(|c| c.started_at).collect();
    starts.sort_unstable();
    assert!(
        starts[before].since(starts[before - 1]) >= SPACING_MS,
        "{starts:?}"
    );
}
