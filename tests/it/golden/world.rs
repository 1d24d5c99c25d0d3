//! A small world in which nothing is left to chance: a clock that goes on only when a call is made, ids that
//! count, a GLM whose answers go by what the prompt says, a receiver of webhooks that takes everything. It needs a
//! paused runtime of one thread, whose time stands still, too, but during calls and where a test waits for a timer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onelane::config::{Loaded, Loader};
use onelane::model::{Failure, FailureClass, JobId, Request, Timestamp, Usage};
use onelane::orchestrator::{Orchestrator, Parts};
use onelane::ports::{
    CallFuture, Clock, Glm, GlmAnswer, GlmCall, GlmFuture, GlmOutcome, Ids, Store as _, TaskFuture,
};
use onelane::store::{RedbStore, StoreOptions};
use onelane::webhooks::{Post, Sender, Sending, Sent};
use onelane_actors::FaultPoints;
use onelane_actors::testing::ScriptedGlm;
use serde_json::value::RawValue;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::http::PATIENCE;
use crate::support::{GENEROUS, START, ms};

/// How long each call takes.
const CALL_MS: u64 = 1_500;

#[derive(Clone)]
pub(super) struct SteppedClock(Arc<AtomicI64>);

impl SteppedClock {
    pub(super) fn step(&self, ms: u64) {
        self.0.fetch_add(ms.cast_signed(), Ordering::SeqCst);
    }
}

impl Clock for SteppedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

struct CountedIds(AtomicU64);

impl Ids for CountedIds {
    fn job_id(&self, _now: Timestamp) -> JobId {
        let n = self.0.fetch_add(1, Ordering::SeqCst);
        let id = format!("0199a000-0000-7000-8000-{n:012}");
        id.parse().unwrap()
    }

    fn seed(&self) -> u64 {
        7
    }

    fn secret(&self) -> Option<[u8; 32]> {
        let n = self.0.fetch_add(1, Ordering::SeqCst);
        Some([n.to_le_bytes()[0]; 32])
    }
}

/// Takes everything, and remembers the bodies by their kind.
#[derive(Clone, Default)]
pub(super) struct Receiver(Arc<Mutex<Vec<String>>>);

impl Receiver {
    pub(super) fn bodies(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Sender for Receiver {
    fn send(&self, post: Post) -> Sending {
        let body = String::from_utf8(post.body.to_vec()).unwrap();
        self.0.lock().unwrap().push(body);
        Box::pin(std::future::ready(Sent::Answered(200)))
    }
}

/// A GLM that takes its time: both clocks go on while it works.
#[derive(Clone)]
struct SlowGlm(ScriptedGlm, SteppedClock);

impl Glm for SlowGlm {
    fn call(&self, call: GlmCall, abort: CancellationToken) -> CallFuture {
        let Self(glm, clock) = self.clone();
        Box::pin(async move {
            if !text(&call.request).contains("hangs") {
                clock.step(CALL_MS);
                tokio::time::advance(ms(CALL_MS)).await;
            }
            glm.call(call, abort).await
        })
    }

    fn submit_task(&self, call: GlmCall, abort: CancellationToken) -> TaskFuture {
        self.0.submit_task(call, abort)
    }

    fn fetch_task(&self, call: GlmCall, task_id: String, abort: CancellationToken) -> GlmFuture {
        self.0.fetch_task(call, task_id, abort)
    }
}

/// What GLM says to a prompt with this word in it, the first time; later it answers.
const FAILURES: [(&str, FailureClass, &str, Option<u16>); 8] = [
    ("refused", FailureClass::RequestFatal, "1210", Some(400)),
    ("overloaded", FailureClass::Overload, "1305", Some(429)),
    ("throttled", FailureClass::Throttle, "1302", Some(429)),
    ("lost", FailureClass::ServerTransient, "timeout_total", None),
    ("gone", FailureClass::ServerTransient, "timeout_idle", None),
    (
        "flaky",
        FailureClass::ServerTransient,
        "http_503",
        Some(503),
    ),
    ("unpaid", FailureClass::OperatorFatal, "1113", Some(429)),
    ("used up", FailureClass::QuotaWindow, "1308", Some(429)),
];

const ANSWER: &str = r#"{"id":"2026","created":1795392000,"model":"glm-4.7","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"an answer"}}],"usage":{"prompt_tokens":600,"completion_tokens":400,"total_tokens":1000},"x":1.50}"#;

fn text(request: &Request) -> &str {
    match request {
        Request::Prompt(text) => text,
        Request::Body(_, body) => body.get(),
    }
}

fn glm(clock: SteppedClock) -> ScriptedGlm {
    let met: Mutex<BTreeMap<&str, u32>> = Mutex::default();
    ScriptedGlm::new(move |_, call: &GlmCall| {
        let prompt = text(&call.request);
        if prompt.contains("hangs") {
            return (Duration::from_secs(3_600), answered());
        }
        let failing = FAILURES.iter().find(|(word, ..)| prompt.contains(word));
        let Some((word, class, code, status_code)) = failing else {
            return (Duration::ZERO, answered());
        };
        let mut met = met.lock().unwrap();
        let times = met.entry(word).or_default();
        *times += 1;
        if *times > 1 {
            return (Duration::ZERO, answered());
        }
        let quota = *class == FailureClass::QuotaWindow;
        let failure = Failure {
            status_code: *status_code,
            retry_after_ms: (quota || *word == "flaky").then_some(60_000),
            reset_at: quota.then(|| clock.now().plus_ms(3_600_000)),
            maybe_billed: matches!(*word, "lost" | "gone"),
            ..Failure::new(*class, code, format!("scripted: {word}"))
        };
        (
            Duration::ZERO,
            GlmOutcome::Failed(failure, Usage::default()),
        )
    })
}

fn answered() -> GlmOutcome {
    GlmOutcome::Answered(GlmAnswer {
        model: None,
        body: RawValue::from_string(ANSWER.to_owned()).unwrap().into(),
        status_code: 200,
        usage: Usage {
            prompt_tokens: 600,
            completion_tokens: 400,
            total_tokens: 1_000,
            cached_tokens: 100,
            reasoning_tokens: 50,
            ..Usage::default()
        },
    })
}

/// Keeps the runtime's time from going on by itself: it does so only while no blocking task runs.
struct StandStill {
    _until_dropped: std::sync::mpsc::Sender<()>,
}

impl StandStill {
    fn begin() -> Self {
        let (until_dropped, dropped) = std::sync::mpsc::channel();
        tokio::task::spawn_blocking(move || dropped.recv());
        Self {
            _until_dropped: until_dropped,
        }
    }
}

/// Looks again and again until `seen` holds, at the same moment.
pub(super) async fn until(what: &str, seen: impl AsyncFnMut() -> bool) {
    look(what, Duration::ZERO, seen).await;
}

/// Looks until `seen` holds; timers go on meanwhile, the world's clock does not.
pub(super) async fn until_timers(what: &str, seen: impl AsyncFnMut() -> bool) {
    look(what, ms(100), seen).await;
}

async fn look(what: &str, advance: Duration, mut seen: impl AsyncFnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !seen().await {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        // The store works on threads of its own.
        std::thread::sleep(ms(1));
        if advance.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::advance(advance).await;
        }
    }
}

/// A lane is started in it again and again, on the same file.
pub(super) struct World {
    pub(super) clock: SteppedClock,
    pub(super) receiver: Receiver,
    pub(super) glm: ScriptedGlm,
    ids: Arc<CountedIds>,
    _still: StandStill,
    directory: TempDir,
}

impl World {
    pub(super) fn new() -> Self {
        let clock = SteppedClock(Arc::new(AtomicI64::new(START.as_millis())));
        Self {
            glm: glm(clock.clone()),
            clock,
            receiver: Receiver::default(),
            ids: Arc::new(CountedIds(AtomicU64::new(1))),
            _still: StandStill::begin(),
            directory: TempDir::new().unwrap(),
        }
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn file(&self) -> PathBuf {
        self.directory.path().join("lane.redb")
    }

    /// Every setting that a lane can have, and that is told.
    fn config(&self, store: &RedbStore) -> Loaded {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let loaded = Loader::new(|_| None).directory(golden);
        let loaded = loaded.config_file(Some("world.toml")).load().unwrap();
        let stored = store.config().unwrap();
        loaded
            .with_stored(stored.as_deref(), self.clock.now())
            .unwrap()
    }

    /// Starts as soon as the lane before has let go of the file.
    pub(super) async fn start(&self) -> Orchestrator {
        let mut opened = None;
        until_timers("the file is free", async || {
            opened = RedbStore::open(self.file(), StoreOptions::default()).ok();
            opened.is_some()
        })
        .await;
        let store = opened.unwrap();
        let parts = Parts {
            config: self.config(&store),
            store: Arc::new(store),
            glm: Arc::new(SlowGlm(self.glm.clone(), self.clock.clone())),
            clock: Arc::new(self.clock.clone()),
            ids: Arc::clone(&self.ids) as Arc<dyn Ids>,
            registry: onelane::Registry::default(),
            tokens: None,
            budget: GENEROUS,
            fault_points: FaultPoints::default(),
        };
        let sender = Arc::new(self.receiver.clone());
        Orchestrator::start_sending(parts, sender).await.unwrap()
    }
}
