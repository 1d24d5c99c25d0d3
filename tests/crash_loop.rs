//! Guards: `kill -9` at any moment loses nothing that was acknowledged, sends nothing twice without a
//! record of it, and leaves accounts that equal the call log.
//!
//! A real process is killed again and again at random moments while submitters and a reader talk to it
//! and the lane works on a simulator that lives in the test. `ONELANE_CRASH_ROUNDS` kills more often,
//! `ONELANE_CRASH_SEED` draws the same moments and jobs again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "the helpers of tests are tests"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{Http, Left, PATIENCE, Place, Running, until};
use onelane::model::{
    CallOutcome, CallRecord, Cost, Currency, Day, JobId, JobStatus, Request, UsageKey, UsageRow,
};
use onelane::ports::{Store as _, UsageFilter};
use onelane::simulator::{ErrorFault, Fault, Rule, Simulator, SimulatorConfig, Span};
use serde_json::value::RawValue;
use serde_json::{Value, json};

const ROUNDS_DEFAULT: u32 = 30;
const SUBMITTERS: u64 = 4;

/// Kills must not look like a job's fault, nor faults like a reason to wait or to give up.
const CONFIG: &str = "\
[retry]
max_retries = 100
base_delay_ms = 1
max_delay_ms = 20
[breaker]
consecutive_failures = 1000
failure_rate = 0.0
[lane]
quarantine_after = 1000000
";

#[test]
fn a_process_that_is_killed_at_random_keeps_every_promise() {
    crash_loop(1);
}

#[test]
fn a_process_with_three_slots_keeps_every_promise_too() {
    crash_loop(3);
}

fn crash_loop(max_concurrency: u64) {
    let rounds = number("ONELANE_CRASH_ROUNDS").map_or(ROUNDS_DEFAULT, |n| n as u32);
    let seed = number("ONELANE_CRASH_SEED").unwrap_or_else(fresh_seed);
    println!("ONELANE_CRASH_SEED={seed} ONELANE_CRASH_ROUNDS={rounds}, {max_concurrency} slots");
    let simulator = simulator(seed);
    let place = Place::new();
    let config = format!("{CONFIG}max_concurrency = {max_concurrency}\n");
    place.write("onelane.toml", config);
    let world = World::default();
    thread::scope(|scope| {
        let submitters: Vec<_> = (0..SUBMITTERS)
            .map(|n| {
                let world = &world;
                scope.spawn(move || Submitter::new(n, seed, world).run())
            })
            .collect();
        let reader = scope.spawn(|| read_answers(&world, seed));

        // Whatever fails in here, the threads have to end, or the scope waits for them for ever.
        let _over = EndOnDrop(&world);
        let mut rng = Rng::new(seed);
        for _ in 0..rounds {
            live_and_die(&place, &simulator, &world, &mut rng);
        }
        let last = Running::start(&mut serve(&place, &simulator));
        world.is_at(Some(last.url()));
        world.end();
        let mut jobs = Vec::new();
        for submitter in submitters {
            jobs.extend(
                submitter
                    .join()
                    .expect("a submitter found its promise broken"),
            );
        }
        let seen = reader.join().expect("the reader found its promise broken");
        let http = Http::new();
        until("every job ends", || {
            waiting(&http, &last.url(), "pending") + waiting(&http, &last.url(), "processing") == 0
        });
        let url = format!("{}/api/admin/glm/statistics", last.url());
        let statistics = http.get(&url).unwrap().text;
        last.signal("TERM");
        last.end().with(0);

        let left = place.store("onelane.redb");
        let peak = simulator.stats().peak_in_flight;
        assert!(peak <= max_concurrency, "{peak} calls were open at once");
        every_acknowledged_job_is_completed_once(&left, &jobs, &seen);
        every_call_is_accounted_for(&left, &simulator, rounds);
        statistics_equal_the_call_log(&left, &statistics);
    });
}

/// One life of the process, from its start to its sudden death: mostly while it works, sometimes while
/// it starts.
fn live_and_die(place: &Place, simulator: &Simulator, world: &World, rng: &mut Rng) {
    let process = Running::start(&mut serve(place, simulator));
    if rng.below(5) > 0 {
        world.is_at(Some(process.url()));
        thread::sleep(Duration::from_micros(rng.below(350_000)));
    } else {
        thread::sleep(Duration::from_micros(rng.below(120_000)));
    }
    process.kill();
    world.is_at(None);
}

fn serve(place: &Place, simulator: &Simulator) -> std::process::Command {
    let url = simulator.base_url();
    place.onelane(&["serve", "--base-url", &url, "--listen", "127.0.0.1:0"])
}

fn simulator(seed: u64) -> Simulator {
    let rule = |probability, fault| Rule {
        probability,
        ..Rule::always(fault)
    };
    let failing = Fault::Error(ErrorFault {
        status: Some(500),
        ..ErrorFault::of("500")
    });
    Simulator::start(SimulatorConfig {
        latency_ms: Span::Between { min: 0, max: 2 },
        seed,
        rules: vec![
            rule(0.03, failing),
            rule(0.01, Fault::CutBody),
            rule(0.01, Fault::Reset),
            rule(0.01, Fault::SlowHeaders { delay_ms: 30 }),
        ],
        ..SimulatorConfig::default()
    })
    .unwrap()
}

/// Where the process is, and whether the last round is over.
#[derive(Default)]
struct World {
    url: Mutex<Option<String>>,
    moved: Condvar,
    over: AtomicBool,
    acknowledged: Mutex<Vec<JobId>>,
}

impl World {
    fn is_at(&self, url: Option<String>) {
        *self.url.lock().unwrap() = url;
        self.moved.notify_all();
    }

    /// Where it is, once it is anywhere; `None` when it won't be again.
    fn url(&self) -> Option<String> {
        let gone = |url: &mut Option<String>| url.is_none() && !self.is_over();
        let found = self
            .moved
            .wait_timeout_while(self.url.lock().unwrap(), PATIENCE, gone);
        found.unwrap().0.clone()
    }

    /// No more submissions; those that still wait for their acknowledgement get it.
    fn end(&self) {
        let _url = self.url.lock().unwrap();
        self.over.store(true, Ordering::Relaxed);
        self.moved.notify_all();
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

struct EndOnDrop<'a>(&'a World);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A job as its submitter knows it.
struct Submitted {
    body: Value,
    /// `None`: the acknowledgement was lost, and without a key nobody can ask again.
    id: Option<JobId>,
}

impl Submitted {
    fn prompt(&self) -> &str {
        self.body["prompt"].as_str().unwrap()
    }
}

/// One of the programs that submit.
struct Submitter<'a> {
    who: u64,
    rng: Rng,
    world: &'a World,
    http: Http,
    jobs: Vec<Submitted>,
}

impl<'a> Submitter<'a> {
    fn new(who: u64, seed: u64, world: &'a World) -> Self {
        Self {
            who,
            rng: Rng::new(seed ^ (who + 1)),
            world,
            http: Http::new(),
            jobs: Vec::new(),
        }
    }

    fn run(mut self) -> Vec<Submitted> {
        while !self.world.is_over() {
            match self.rng.below(10) {
                0 => self.submit_list(),
                1..=3 => self.submit_without_key(),
                4 => self.ask_again(),
                _ => self.submit_with_key(),
            }
            thread::sleep(Duration::from_micros(self.rng.below(20_000)));
        }
        self.jobs
    }

    fn job(&mut self, key: Option<String>) -> Submitted {
        let prompt = format!(
            "submitter {} job {}. {}",
            self.who,
            self.jobs.len(),
            "x".repeat(self.rng.below(300) as usize)
        );
        let model = ["glm-4.7", "glm-4.6"][self.rng.below(2) as usize];
        let mut body = json!({
            "prompt": prompt,
            "priority": self.rng.below(7) as i64 - 3,
            "userId": format!("user-{}", self.rng.below(3)),
            "model": model,
        });
        if let Some(key) = key {
            body["idempotencyKey"] = json!(key);
        }
        Submitted { body, id: None }
    }

    fn fresh_key(&self) -> String {
        format!("{}-{}", self.who, self.jobs.len())
    }

    /// Posts once; `None` when no answer came.
    fn post(&self, body: &Value) -> Option<Value> {
        let url = format!("{}/api/glm/jobs", self.world.url()?);
        let answer = self.http.post(&url, body).ok()?;
        assert_eq!(answer.status, 202, "{answer:?}");
        Some(answer.json())
    }

    /// Posts until an answer comes, as a program with idempotency keys may.
    fn insist(&self, body: &Value) -> Value {
        let began = Instant::now();
        loop {
            if let Some(answer) = self.post(body) {
                return answer;
            }
            assert!(began.elapsed() < PATIENCE, "no acknowledgement");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn acknowledged(&mut self, mut job: Submitted, answer: &Value) {
        let id = id_of(answer);
        job.id = Some(id);
        self.jobs.push(job);
        self.world.acknowledged.lock().unwrap().push(id);
    }

    fn submit_with_key(&mut self) {
        let job = self.job(Some(self.fresh_key()));
        let answer = self.insist(&job.body);
        self.acknowledged(job, &answer);
    }

    fn submit_without_key(&mut self) {
        let job = self.job(None);
        match self.post(&job.body) {
            Some(answer) => self.acknowledged(job, &answer),
            None => self.jobs.push(job),
        }
    }

    fn submit_list(&mut self) {
        let mut jobs = Vec::new();
        for i in 0..3 {
            let mut job = self.job(Some(format!("{}/{i}", self.fresh_key())));
            job.body["prompt"] = json!(format!("{} {i} of a list", job.prompt()));
            jobs.push(job);
        }
        let bodies: Vec<&Value> = jobs.iter().map(|job| &job.body).collect();
        let answer = self.insist(&json!(bodies));
        assert_eq!(answer["accepted"], 3, "{answer}");
        for (job, answer) in jobs.into_iter().zip(answer["jobs"].as_array().unwrap()) {
            self.acknowledged(job, answer);
        }
    }

    /// The same key and the same request after an acknowledgement: the same job.
    fn ask_again(&mut self) {
        let n = self.rng.below(self.jobs.len().max(1) as u64) as usize;
        if let Some(Submitted { body, id: Some(id) }) = self.jobs.get(n)
            && body.get("idempotencyKey").is_some()
            && let Some(answer) = self.post(body)
        {
            assert_eq!(id_of(&answer), *id, "{answer}");
            assert_eq!(answer["created"], false, "{answer}");
        }
    }
}

/// Waits for answers as clients do, and remembers them: what was seen must still be there in the end.
fn read_answers(world: &World, seed: u64) -> BTreeMap<JobId, Value> {
    let mut rng = Rng::new(seed ^ 0xa);
    let http = Http::new();
    let mut seen = BTreeMap::new();
    while !world.is_over() {
        let id = {
            let ids = world.acknowledged.lock().unwrap();
            ids.get(rng.below(ids.len().max(1) as u64) as usize)
                .copied()
        };
        let answer = id.zip(world.url()).map(|(id, url)| {
            let url = format!("{url}/api/glm/jobs/{id}?wait=100ms");
            (id, http.get(&url))
        });
        if let Some((id, Ok(answer))) = answer {
            assert!(matches!(answer.status, 200 | 202), "{answer:?}");
            if answer.status == 200 {
                let job = answer.json();
                assert_eq!(job["status"], "completed", "{job}");
                seen.insert(id, job["result"].clone());
            }
        }
        thread::sleep(Duration::from_millis(3));
    }
    seen
}

fn waiting(http: &Http, url: &str, status: &str) -> u64 {
    let url = format!("{url}/api/admin/glm/queue?status={status}&limit=1");
    http.get(&url).unwrap().json()["total"].as_u64().unwrap()
}

fn every_acknowledged_job_is_completed_once(
    left: &Left,
    submitted: &[Submitted],
    seen: &BTreeMap<JobId, Value>,
) {
    let stored: BTreeMap<JobId, _> = left.jobs().into_iter().map(|r| (r.job.id, r)).collect();
    let mut completions: BTreeMap<JobId, Vec<CallRecord>> = BTreeMap::new();
    for call in left.calls() {
        if call.outcome == CallOutcome::Completed {
            completions.entry(call.job_id).or_default().push(call);
        }
    }
    for record in stored.values() {
        let job = &record.job;
        assert_eq!(job.status, JobStatus::Completed, "{job:?}");
        let [call] = completions[&job.id].as_slice() else {
            panic!("completed more than once: {job:?}");
        };
        let response = record.response.as_deref().expect("the answer is stored");
        let answer: Value = serde_json::from_str(response.get()).unwrap();
        assert_eq!(answer["request_id"], call.request_id.as_str(), "{job:?}");
        if let Some(before) = seen.get(&job.id) {
            assert_eq!(*before, answer, "a client saw another answer: {job:?}");
        }
    }
    let prompt_of = |id: &JobId| match &*stored[id].request {
        Request::Prompt(text) => text.clone(),
        Request::Chat(raw) => panic!("nobody submitted {raw}"),
    };
    let mut acknowledged = BTreeSet::new();
    for job in submitted {
        let Some(id) = &job.id else { continue };
        assert!(stored.contains_key(id), "an acknowledged job is lost: {id}");
        assert_eq!(prompt_of(id), job.prompt(), "{id}");
        assert!(acknowledged.insert(*id), "two jobs have one id: {id}");
    }
    // A job whose acknowledgement was lost may be there, once. Nothing else may.
    let mut in_doubt: BTreeSet<&str> = submitted
        .iter()
        .filter(|job| job.id.is_none())
        .map(Submitted::prompt)
        .collect();
    for id in stored.keys().filter(|id| !acknowledged.contains(*id)) {
        let prompt = prompt_of(id);
        assert!(in_doubt.remove(prompt.as_str()), "not submitted: {prompt}");
    }
    println!(
        "{} jobs acknowledged, {} stored, {} answers read meanwhile",
        acknowledged.len(),
        stored.len(),
        seen.len()
    );
}

fn every_call_is_accounted_for(left: &Left, simulator: &Simulator, rounds: u32) {
    let stats = simulator.stats();
    let mut unseen: BTreeMap<String, CallRecord> = BTreeMap::new();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for call in left.calls() {
        let name = match call.outcome {
            CallOutcome::Completed => "completed",
            CallOutcome::Failed => "failed",
            CallOutcome::Cancelled => "cancelled",
            CallOutcome::Interrupted => "interrupted",
        };
        *counts.entry(name).or_default() += 1;
        let twice = unseen.insert(call.request_id.to_string(), call);
        assert!(twice.is_none(), "an attempt is twice in the log: {twice:?}");
    }
    // A call that was cut off before its body was read has no name; its row must be there all the same.
    let mut nameless = 0;
    for arrival in simulator.arrivals() {
        if arrival.request_id.is_empty() {
            nameless += 1;
        } else if let Some(call) = unseen.remove(&arrival.request_id) {
            let answered = call.outcome != CallOutcome::Completed || arrival.status == Some(200);
            assert!(answered, "{call:?} {arrival:?}");
        } else {
            panic!("a call that the log does not know, or sent twice: {arrival:?}");
        }
    }
    for call in unseen.values() {
        let outcome = call.outcome;
        assert_eq!(outcome, CallOutcome::Interrupted, "never sent: {call:?}");
    }
    assert!(nameless <= unseen.len(), "{nameless} calls without a row");
    let jobs = left.0.counts().unwrap().total();
    let count = |name| counts.get(name).copied().unwrap_or(0);
    assert!(
        stats.calls <= jobs + count("failed") + count("interrupted"),
        "{} calls for {jobs} jobs: {counts:?}",
        stats.calls
    );
    println!(
        "{rounds} kills, {} calls for {jobs} jobs, rows: {counts:?}, {} of them never arrived",
        stats.calls,
        unseen.len()
    );
}

#[derive(serde::Deserialize)]
struct Statistics {
    statistics: Vec<StatisticsRow>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatisticsRow {
    date: String,
    model: String,
    total_calls: u64,
    successful_calls: u64,
    failed_calls: u64,
    total_tokens: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    /// To the last digit, so not as a float.
    total_cost: Box<RawValue>,
}

/// The aggregates of the store, and what the API told of them before the process ended, are the sums
/// over the call log.
fn statistics_equal_the_call_log(left: &Left, told: &str) {
    let calls = left.calls();
    let mut sums: BTreeMap<UsageKey, UsageRow> = BTreeMap::new();
    for call in &calls {
        let key = UsageKey::of(call);
        let sum = sums
            .entry(key.clone())
            .or_insert_with(|| UsageRow::empty(key));
        sum.add(call);
    }
    let ever = UsageFilter {
        start: Day::parse("2000-01-01").unwrap(),
        end: Day::parse("2100-01-01").unwrap(),
        model: None,
        user_id: None,
    };
    let stored = left.0.usage(&ever).unwrap();
    assert_eq!(stored, sums.into_values().collect::<Vec<_>>());
    assert!(stored.iter().any(|row| row.cost.values().sum::<i64>() > 0));

    let told: Statistics = serde_json::from_str(told).unwrap();
    let mut rows = 0;
    for row in told.statistics {
        let of_row = |call: &&CallRecord| {
            call.ended_at.day().to_string() == row.date && call.model == row.model
        };
        let calls: Vec<&CallRecord> = calls.iter().filter(of_row).collect();
        let completed = |call: &&&CallRecord| call.outcome == CallOutcome::Completed;
        let successes = calls.iter().filter(completed).count() as u64;
        let sum = |of: fn(&CallRecord) -> u64| calls.iter().map(|call| of(call)).sum::<u64>();
        assert_eq!(row.total_calls, calls.len() as u64);
        assert_eq!(row.successful_calls, successes);
        assert_eq!(row.failed_calls, calls.len() as u64 - successes);
        assert_eq!(row.total_tokens, sum(|call| call.usage.total_tokens));
        assert_eq!(row.prompt_tokens, sum(|call| call.usage.prompt_tokens));
        assert_eq!(row.completion_tokens, sum(|c| c.usage.completion_tokens));
        let cost = Cost {
            nanos: calls
                .iter()
                .filter_map(|call| call.cost)
                .map(|c| c.nanos)
                .sum(),
            currency: Currency::Cny,
        };
        assert_eq!(row.total_cost.get(), cost.decimal());
        rows += calls.len();
    }
    assert_eq!(rows, calls.len(), "calls that no statistics row counts");
}

fn id_of(answer: &Value) -> JobId {
    answer["id"].as_str().unwrap().parse().unwrap()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{variable}: {e}")))
}

fn fresh_seed() -> u64 {
    RandomState::new().hash_one("crash loop")
}

/// SplitMix64: small, seeded, good enough for moments.
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
