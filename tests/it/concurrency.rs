//! Guards: a call above the bound in force while it changes, a bound that is not used, a lane that
//! never finds how many calls GLM bears, lanes that disturb each other.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use onelane::model::{FailureClass, JobId};
use onelane::model::{NamedLane, SlotReserve};
use onelane::orchestrator::Orchestrator;
use onelane::simulator::{SimulatorConfig, Span};
use onelane_actors::testing::{ScriptedGlm, answer, failed};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::api::Api;
use crate::support::http::{
    BLOCKER, HttpLane, calls_of, configure, prompt, prompts, started, submit, submit_all, until,
};
use crate::support::{START, VirtualLane, ms, shows};

async fn set_concurrency(lane: &Orchestrator, n: u16) {
    configure(lane, json!({"maxConcurrency": n})).await;
}

/// Calls that never end by themselves, and are open.
async fn block(world: &HttpLane, lane: &Orchestrator, model: &str, n: u64) -> Vec<JobId> {
    let before = world.sim.stats().in_flight;
    let mut jobs = Vec::new();
    for _ in 0..n {
        let blocker = prompt(BLOCKER).priority(i32::MAX).model(model);
        jobs.push(submit(lane, blocker).await);
    }
    until("the calls are open", async || {
        world.sim.stats().in_flight == before + n
    })
    .await;
    jobs
}

/// Waits until the lane has so many calls open or about to be, and the server has as many.
async fn settled_at(world: &HttpLane, lane: &Orchestrator, n: u32) {
    until("the lane has settled", async || {
        let open = lane.lane().await.unwrap().in_flight;
        (open, world.sim.stats().in_flight) == (n as usize, u64::from(n))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lowered_bound_lets_nothing_new_out_until_enough_has_ended() {
    let (world, lane) = started().await;
    let mut blockers = block(&world, &lane, "glm-4.7", 1).await;
    set_concurrency(&lane, 4).await;
    blockers.extend(block(&world, &lane, "glm-4.7", 3).await);
    let jobs = submit_all(&lane, prompts(20)).await;
    let raised_to = world.sim.peak_since(0, None);
    assert_eq!(raised_to, 4, "up at once, whatever is open");

    let lowered_us = world.sim.now_us();
    set_concurrency(&lane, 2).await;
    for (cancelled, open) in [(0, 4), (1, 3), (2, 2)] {
        if cancelled > 0 {
            lane.cancel(blockers.remove(0)).await.unwrap();
        }
        settled_at(&world, &lane, open).await;
        let new = world.sim.peak_since(lowered_us, None);
        assert_eq!(new, 0, "a new call beside {open} open ones");
    }
    lane.cancel(blockers.remove(0)).await.unwrap();
    for job in jobs {
        lane.wait(job).await.unwrap();
    }
    assert_eq!(world.sim.peak_since(lowered_us, None), 2);
    let status = lane.lane().await.unwrap();
    assert_eq!((status.max_concurrency, status.in_flight), (2, 1));
    assert_eq!(world.sim.stats().calls, 24);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_the_server_never_sees_more_than_the_bound_in_force() {
    let world = HttpLane::with(SimulatorConfig {
        latency_ms: Span::Between { min: 1, max: 9 },
        ..SimulatorConfig::default()
    });
    let lane = world.start().await;
    let feeder = Feeder::start(&lane);
    // From each moment on so many calls at most, by the server's clock.
    let mut bounds = vec![(0, 1)];
    for most in [1, 4, 2, 3, 1, 4] {
        // While it changes, the higher of two counts: what was promised a slot before still goes out.
        let before = bounds.last().map_or(1, |(_, most)| *most);
        bounds.push((world.sim.now_us(), most.max(before)));
        set_concurrency(&lane, most).await;
        until("the calls above the bound have ended", async || {
            lane.lane().await.unwrap().in_flight <= usize::from(most)
        })
        .await;
        let from_us = world.sim.now_us();
        bounds.push((from_us, most));
        until("the bound is used", async || {
            let arrivals = world.sim.arrivals().into_iter();
            let since = arrivals.filter(|a| a.at_us >= from_us);
            since.filter(|a| a.in_flight == u64::from(most)).count() >= 20
        })
        .await;
    }
    feeder.stop().await;
    for arrival in world.sim.arrivals() {
        let in_force = bounds
            .iter()
            .rfind(|(from_us, _)| *from_us <= arrival.at_us);
        let (_, most) = *in_force.unwrap();
        assert!(
            arrival.in_flight <= u64::from(most),
            "{most} in force: {arrival:?}"
        );
    }
    assert_eq!(world.sim.stats().peak_in_flight, 4);
}

/// Keeps jobs waiting, as many as it takes, until it is stopped.
struct Feeder(JoinHandle<()>, Orchestrator);

impl Feeder {
    fn start(lane: &Orchestrator) -> Self {
        let to = lane.clone();
        let feeding = tokio::spawn(async move {
            loop {
                let jobs = (0..50).map(|n| prompt(format!("job {n}")));
                for job in to.submit_many(jobs.collect()).await.unwrap() {
                    job.unwrap();
                }
                while to.queue_status().await.unwrap().pending >= 50 {
                    tokio::time::sleep(ms(2)).await;
                }
            }
        });
        Self(feeding, lane.clone())
    }

    /// Waits until nothing is left.
    async fn stop(self) {
        self.0.abort();
        let _ = self.0.await;
        until("nothing is left", async || {
            let counts = self.1.queue_status().await.unwrap();
            counts.pending + counts.processing == 0
        })
        .await;
    }
}

/// Bears so many calls at once, from one half hour to the next; above it 1302.
fn bearing(limits: [usize; 3]) -> ScriptedGlm {
    let begun = tokio::time::Instant::now();
    let itself = Arc::new(OnceLock::<ScriptedGlm>::new());
    let seen = Arc::clone(&itself);
    let glm = ScriptedGlm::new(move |n, _| {
        let half_hours = begun.elapsed().as_secs() / 1_800;
        let limit = limits[usize::try_from(half_hours).unwrap().min(2)];
        let in_flight = seen.get().map_or(0, ScriptedGlm::in_flight);
        if in_flight > limit {
            (ms(100), failed(FailureClass::Throttle, "1302"))
        } else {
            (ms(10_000 + n as u64 % 7 * 1_000), answer())
        }
    });
    let _ = itself.set(glm.clone());
    glm
}

#[tokio::test(start_paused = true)]
async fn automatic_concurrency_is_hardly_refused_and_leaves_little_unused() {
    const HALF_HOUR_MS: u64 = 1_800_000;
    const SETTLED_MS: u64 = 1_200_000;
    let limits = [3, 1, 5];
    let mut world = VirtualLane::new(bearing(limits));
    world.settings.lane.rules.max_concurrency = 8;
    world.settings.lane.rules.auto.on = true;
    let lane = world.start().await;
    let jobs = (0..2_000).map(|n| prompt(format!("job {n}"))).collect();
    lane.submit_many(jobs).await.unwrap();
    for (n, limit) in limits.into_iter().enumerate() {
        let end = START.plus_ms((n as u64 + 1) * HALF_HOUR_MS);
        world.sleep_until(end.minus_ms(1)).await;
        let learnt = lane.lane().await.unwrap().lanes[0]
            .condition
            .learnt
            .unwrap();
        assert_eq!(usize::from(learnt.ceiling), limit, "{learnt:?}");
        // The last twenty minutes: it had ten to find out.
        let mut calls = calls_of(&lane).await;
        calls.retain(|call| call.started_at >= end.minus_ms(SETTLED_MS));
        let refused = calls.iter().filter(|call| call.failure.is_some()).count();
        assert!(refused <= 5, "{refused} of {} refused", calls.len());
        let used_ms: u64 = calls.iter().map(|call| call.response_time_ms).sum();
        let there_ms = SETTLED_MS * limit as u64;
        assert!(
            used_ms * 10 >= there_ms * 9,
            "{used_ms} of {there_ms} ms used"
        );
    }
    let counts = lane.queue_status().await.unwrap();
    assert_eq!(counts.failed, 0);
    lane.shutdown(ms(60_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_use_the_limits_of_their_models_at_once_and_meet_no_refusal() {
    let limits = BTreeMap::from([("glm-5".to_owned(), 2), ("glm-4.7".to_owned(), 3)]);
    let mut world = HttpLane::with(SimulatorConfig {
        limit: 1,
        limits: limits.clone(),
        latency_ms: Span::Between { min: 1, max: 9 },
        ..SimulatorConfig::default()
    });
    world.config.lane.rules.max_concurrency = 3;
    let mut big = NamedLane {
        models: vec!["glm-5".to_owned()],
        ..NamedLane::default()
    };
    big.rules.max_concurrency = 2;
    world.config.lanes = BTreeMap::from([("big".to_owned(), big)]);
    let lane = world.start().await;
    // Both are full at once, while more wait for either.
    let mut blockers = block(&world, &lane, "glm-5", 2).await;
    blockers.extend(block(&world, &lane, "glm-4.7", 3).await);
    let mut jobs = Vec::new();
    for n in 0..60 {
        let model = if n % 2 == 0 { "glm-5" } else { "glm-4.7" };
        let job = prompt(format!("job {n}")).model(model);
        jobs.push(submit(&lane, job).await);
    }
    until("the lanes have taken them in", async || {
        lane.lane().await.unwrap().ready == 60
    })
    .await;
    let status = lane.lane().await.unwrap();
    let open: Vec<_> = status
        .lanes
        .iter()
        .map(|l| (l.name.as_str(), l.in_flight))
        .collect();
    assert_eq!(open, [("default", 3), ("big", 2)]);
    assert_eq!(world.sim.stats().in_flight, 5);
    // One lane that is stuck does not keep the other.
    lane.cancel(blockers.remove(0)).await.unwrap();
    for job in jobs.iter().step_by(2) {
        lane.wait(*job).await.unwrap();
    }
    assert_eq!(world.sim.stats().in_flight, 4);
    for blocker in blockers {
        lane.cancel(blocker).await.unwrap();
    }
    for job in jobs {
        lane.wait(job).await.unwrap();
    }
    let stats = world.sim.stats();
    assert_eq!((stats.calls, stats.peak_in_flight), (65, 5));
    assert_eq!(stats.by_code, BTreeMap::new(), "nobody was refused");
    let peaks: BTreeMap<_, _> = stats.peak_by_model.into_iter().collect();
    let limits = limits.into_iter().map(|(model, n)| (model, u64::from(n)));
    assert_eq!(peaks, limits.collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_slot_is_free_for_the_urgent_and_the_others_are_told_what_they_wait_for() {
    let mut world = HttpLane::new();
    world.config.lane.rules.max_concurrency = 2;
    world.config.lane.rules.reserve = vec![SlotReserve {
        priority: 50,
        slots: 1,
    }];
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let hangs = submit(&lane, prompt(BLOCKER).priority(49)).await;
    world.until_in_flight(1).await;
    let low = api.ask("low", "glm-4.7").await;
    let waits = api.get(&format!("/api/glm/jobs/{low}")).await.expect(202);
    shows!(waits["waitReason"], {"name": "reserved", "priority": 50, "lane": "default",
        "text": "the free slots of lane default are kept for jobs of priority 50 and above"});
    assert_eq!(api.metrics().await["lane"]["waitCounts"]["reserved"], 1);
    for priority in [50, 51] {
        let urgent = api.submit(json!({"prompt": "urgent", "priority": priority}));
        api.completed(&urgent.await).await;
    }
    assert_eq!(world.sim.peak_since(0, None), 2);
    assert_eq!(world.arrivals_of("low").len(), 0);
    // A client that waits for such a slot does not wait in vain.
    let chat = json!({"messages": [{"role": "user", "content": "a chat"}]}).to_string();
    let answered = api.post("/v1/chat/completions", chat);
    let freed = async {
        until("the chat waits, too", async || {
            api.metrics().await["lane"]["waitCounts"]["reserved"] == 2
        })
        .await;
        lane.cancel(hangs).await.unwrap();
    };
    let (answered, ()) = tokio::join!(answered, freed);
    answered.expect(200);
    api.completed(&low).await;
    let change = json!({"maxConcurrency": 1}).to_string();
    let refused = api.put("/api/admin/glm/config", change).await.expect(400);
    let words = refused["detail"].as_str().unwrap();
    assert!(
        words.starts_with("reserve: must keep fewer slots"),
        "{words}"
    );
}
