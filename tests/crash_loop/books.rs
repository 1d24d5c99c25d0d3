//! What has to be true of the store in the end.

use std::collections::{BTreeMap, BTreeSet};

use onelane::model::{
    AttemptNo, CallOutcome, CallRecord, Cost, Currency, JobId, JobStatus, Phase, Request,
    Timestamp, UsageKey, UsageRow,
};
use onelane::ports::{Store as _, UsageFilter};
use onelane::simulator::{Operation, Simulator};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::clients::Submitted;
use crate::common::{Left, Place};

pub(crate) fn every_acknowledged_job_is_completed_once(
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
    let prompt_of = |id: &JobId| match stored[id].request.as_deref().expect("it was not pruned") {
        Request::Prompt(text) => text.clone(),
        Request::Body(_, raw) => panic!("nobody submitted {}", raw.get()),
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

pub(crate) fn every_call_is_accounted_for(left: &Left, simulator: &Simulator, rounds: u32) {
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
        if arrival.operation == Operation::FetchTask {
            // A look at a task is a part of the call that handed it over.
            continue;
        } else if arrival.request_id.is_empty() {
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
    let again = stats.bought - stats.works_bought;
    let doubted = left.calls().iter().filter(|c| c.maybe_billed).count() as u64;
    assert!(again <= doubted, "{again} bought again, {doubted} in doubt");
    println!(
        "{rounds} kills, {} calls for {jobs} jobs, rows: {counts:?}, {} of them never arrived",
        stats.calls,
        unseen.len()
    );
}

/// What the kills left in doubt.
#[derive(Default)]
pub(crate) struct Doubts {
    /// The attempts of which the store could not say that they were never sent.
    allowed: BTreeSet<(JobId, AttemptNo)>,
    /// How many there were after each kill.
    each: Vec<usize>,
    /// How many more were staged, and surely not sent.
    spared: usize,
}

impl Doubts {
    /// Looks at what a process left: its open calls, and those that the last commit allowed to be sent before their
    /// starts are stored.
    pub(crate) fn look(&mut self, place: &Place) {
        if !place.path("onelane.redb").exists() {
            return;
        }
        let found = place.store("onelane.redb").0.recover().unwrap();
        let released: BTreeSet<JobId> = found.released.iter().copied().collect();
        let was_sent = |phase| phase == Phase::Running;
        let doubted = found.lane.in_doubt || found.open.iter().any(|job| was_sent(job.phase()));
        let before = self.allowed.len();
        for job in &found.open {
            let no = job.open.expect("its attempt is open").no;
            if doubted && (was_sent(job.phase()) || released.contains(&job.id)) {
                self.allowed.insert((job.id, no));
            } else {
                self.spared += 1;
            }
        }
        // One that a process was killed too soon to book is counted once.
        self.each.push(self.allowed.len() - before);
    }

    /// No attempt is on record as interrupted but those.
    pub(crate) fn are_all_there_are(&self, left: &Left) {
        let calls = left.calls();
        let interrupted = || {
            calls
                .iter()
                .filter(|c| c.outcome == CallOutcome::Interrupted)
        };
        for call in interrupted() {
            let key = (call.job_id, call.attempt);
            assert!(
                self.allowed.contains(&key),
                "nobody allowed to send {call:?}"
            );
        }
        let (kills, all) = (self.each.len(), self.allowed.len());
        println!(
            "in doubt after {kills} kills: {:.1} in the mean, {} at most, {} on record; {} staged ones were spared",
            all as f64 / kills.max(1) as f64,
            self.each.iter().max().unwrap_or(&0),
            interrupted().count(),
            self.spared
        );
    }
}

/// No job is called before the jobs that it was to run after are completed: by the call log, and for the
/// server, which had answered those first.
pub(crate) fn no_job_ran_before_its_turn(
    left: &Left,
    submitted: &[Submitted],
    simulator: &Simulator,
) {
    let mut begun: BTreeMap<JobId, Timestamp> = BTreeMap::new();
    let mut done: BTreeMap<JobId, CallRecord> = BTreeMap::new();
    let mut attempts: BTreeMap<String, JobId> = BTreeMap::new();
    // Newest first: what is noted last is of the first attempt.
    for call in left.calls() {
        begun.insert(call.job_id, call.started_at);
        attempts.insert(call.request_id.to_string(), call.job_id);
        if call.outcome == CallOutcome::Completed {
            done.insert(call.job_id, call);
        }
    }
    let arrivals = simulator.arrivals();
    let mut arrived: BTreeMap<JobId, u64> = BTreeMap::new();
    let mut answered: BTreeMap<&str, u64> = BTreeMap::new();
    for arrival in &arrivals {
        if let Some(job) = attempts.get(&arrival.request_id) {
            arrived.entry(*job).or_insert(arrival.at_us);
            let end_us = arrival.end_us.expect("nothing is in flight any more");
            answered.insert(&arrival.request_id, end_us);
        }
    }
    let (mut dependents, mut waits) = (0, 0);
    for job in submitted {
        let Some(id) = job.id else { continue };
        let stored = left.0.job(id).unwrap().expect("it was acknowledged").job;
        let after: BTreeSet<JobId> = stored.after.iter().copied().collect();
        assert_eq!(after, job.after(), "{stored:?}");
        assert_eq!(stored.waits_for, [], "{stored:?}");
        for before in &after {
            let call = &done[before];
            assert!(call.ended_at <= begun[&id], "{stored:?} before {call:?}");
            let answered_us = answered[call.request_id.as_str()];
            assert!(answered_us <= arrived[&id], "{stored:?} before {call:?}");
        }
        dependents += u32::from(!after.is_empty());
        waits += after.len();
    }
    assert!(dependents > 0, "no chain was tried");
    println!("{dependents} jobs ran after {waits} others, none too early");
}

/// The budget's user has spent no more than the limit, calls that may have been billed included, and the API
/// told the sum of the call log.
pub(crate) fn the_budget_was_kept(left: &Left, told: &Value, limit: u64) {
    let calls = left.calls();
    let calls_of_user = || calls.iter().filter(|call| call.user_id == "user-0");
    let spent: u64 = calls_of_user().map(|call| call.usage.total_tokens).sum();
    let doubtful = calls_of_user().filter(|call| call.is_billing_open());
    let in_doubt: u64 = doubtful
        .map(|call| {
            call.reserved
                .expect("a call in doubt keeps what was reserved")
                .tokens
        })
        .sum();
    println!("{spent} tokens spent and {in_doubt} in doubt of {limit}");
    assert!(spent > 0 && spent + in_doubt <= limit);
    assert_eq!(
        (&told["budget"], &told["userId"]),
        (&"month".into(), &"user-0".into())
    );
    assert_eq!(told["spent"]["tokens"], spent);
    assert_eq!(told["inDoubt"]["tokens"], in_doubt);
    assert_eq!(told["reserved"]["tokens"], 0);
    assert_eq!(told["limit"]["tokens"], limit);
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
pub(crate) fn statistics_equal_the_call_log(left: &Left, told: &str) {
    let calls = left.calls();
    let mut sums: BTreeMap<UsageKey, UsageRow> = BTreeMap::new();
    for call in &calls {
        let key = UsageKey::of(call);
        let sum = sums
            .entry(key.clone())
            .or_insert_with(|| UsageRow::empty(key));
        sum.add(call);
    }
    let stored = left.0.usage(&UsageFilter::default()).unwrap();
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
