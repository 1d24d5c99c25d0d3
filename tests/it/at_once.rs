//! What a call costs in commits on an idle lane, and when its answer is given: over HTTP and on disk.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use onelane::Submission;
use onelane::model::{AnswerWhen, JobStatus};
use onelane::orchestrator::LaneThread;
use onelane::store::{RedbStore, StoreOptions};
use onelane_actors::FaultPoints;
use onelane_actors::testing::ScriptedGlm;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use serde_json::json;

use crate::support::api::Api;
use crate::support::http::{HttpLane, PATIENCE, ended, stop, until};
use crate::support::{VirtualLane, ms};

const CHAT: &str = "/v1/chat/completions";

/// Commits that the store is asked for: counted, and held up while it is shut.
#[derive(Default)]
struct Door {
    asked: AtomicU64,
    is_shut: AtomicBool,
}

impl Door {
    fn fault_points(self: &Arc<Self>) -> FaultPoints {
        let door = Arc::clone(self);
        FaultPoints::new(Arc::new(move |actor| {
            if actor != "store" {
                return;
            }
            door.asked.fetch_add(1, Ordering::SeqCst);
            let begun = Instant::now();
            while door.is_shut.load(Ordering::SeqCst) && begun.elapsed() < PATIENCE {
                std::thread::sleep(ms(1));
            }
        }))
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

fn chat(text: &str) -> String {
    json!({"messages": [{"role": "user", "content": text}]}).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_on_an_idle_lane_is_two_commits_from_its_submission_to_its_answer() {
    let door = Arc::new(Door::default());
    let mut world = HttpLane::new();
    world.fault_points = door.fault_points();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let mut fewest = u64::MAX;
    for n in 0..10 {
        let idle = async || lane.queue_status().await.unwrap().processing == 0;
        until("the lane is idle", idle).await;
        let before = door.asked();
        let answer = api.post(CHAT, chat(&format!("no. {n}"))).await;
        assert_eq!(answer.status, 200);
        fewest = fewest.min(door.asked() - before);
    }
    // At its start, and now and then, the store is asked for more than what a call needs.
    assert_eq!(fewest, 2);
    assert_eq!(world.sim.stats().peak_in_flight, 1);
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_answer_that_is_relayed_is_given_before_it_is_on_disk_and_one_that_is_stored_is_not() {
    for (when, is_early) in [(AnswerWhen::Relay, true), (AnswerWhen::Stored, false)] {
        let door = Arc::new(Door::default());
        let mut world = HttpLane::slow(300);
        world.fault_points = door.fault_points();
        world.config.gateway.answer = when;
        let lane = world.start().await;
        let api = Arc::new(Api::serve(&lane).await);
        let asking = Arc::clone(&api);
        let answer = tokio::spawn(async move { asking.post(CHAT, chat("one")).await });
        world.until_in_flight(1).await;
        door.is_shut.store(true, Ordering::SeqCst);
        world.until_in_flight(0).await;
        if is_early {
            until("the answer is given", async || answer.is_finished()).await;
        } else {
            tokio::time::sleep(ms(100)).await;
            assert!(!answer.is_finished(), "before it is stored");
        }
        door.is_shut.store(false, Ordering::SeqCst);
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.text.contains("\"choices\""), "{answer:?}");
        assert!(answer.headers.contains_key("x-onelane-cost"));
        let id = answer.headers["x-onelane-job"].to_str().unwrap();
        ended(&lane, id.parse().unwrap(), JobStatus::Completed).await;
        assert_eq!(world.sim.stats().calls, 1);
        drop(api);
        stop(lane, 1_000).await;
    }
}

/// A disk that notes who waits for it.
#[derive(Debug)]
struct NotingDisk {
    memory: InMemoryBackend,
    waited: Arc<Mutex<Vec<ThreadId>>>,
}

impl StorageBackend for NotingDisk {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.waited.lock().unwrap().push(thread::current().id());
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.memory.write(offset, data)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_lane_waits_for_the_disk_on_its_own_thread_and_a_busy_one_does_not() {
    let waited: Arc<Mutex<Vec<ThreadId>>> = Arc::default();
    let noting = Arc::clone(&waited);
    let disk = move || {
        Ok(NotingDisk {
            memory: InMemoryBackend::new(),
            waited: Arc::clone(&noting),
        })
    };
    let store = RedbStore::open_with_backend("disk", StoreOptions::default(), disk).unwrap();
    let mut world = VirtualLane::new(ScriptedGlm::answering(Duration::from_hours(1)));
    world.store = Arc::new(store);
    let glm = world.glm.clone();
    let own = LaneThread::new().unwrap();
    let id = own.run(async { thread::current().id() }).await;
    let lane = own.run(async move { world.start().await }).await;
    let is_ready = async || lane.health(PATIENCE).await.is_ok();
    until("it is ready", is_ready).await;
    let who_waits = || std::mem::take(&mut *waited.lock().unwrap());
    who_waits();
    lane.submit(Submission::prompt("a").unwrap()).await.unwrap();
    until("its call is open", async || glm.in_flight() == 1).await;
    let waits = who_waits();
    assert!(!waits.is_empty() && waits.iter().all(|one| *one == id));
    lane.submit(Submission::prompt("b").unwrap()).await.unwrap();
    let waits = who_waits();
    assert!(!waits.is_empty() && waits.iter().all(|one| *one != id));
    lane.shutdown(Duration::ZERO).await;
}
