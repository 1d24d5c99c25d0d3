//! What has to be true of the store in the end.

use std::collections::{BTreeMap, BTreeSet};

use onelane::model::{CallOutcome, CallRecord, JobId, JobStatus, Request, Timestamp};
use onelane::ports::{JobRecord, Store as _};
use onelane::simulator::{Operation, Simulator};
use serde_json::Value;

use super::clients::Submitted;
use super::ledger::Ledger;
use super::report::Calls;
use crate::common::Left;

/// A store after its last process has ended, with all jobs and calls in memory.
pub(crate) struct Books {
    pub(crate) left: Left,
    pub(crate) jobs: BTreeMap<JobId, JobRecord>,
    /// The call log, newest first.
    pub(crate) calls: Vec<CallRecord>,
}

impl Books {
    pub(crate) fn of(left: Left) -> Self {
        let jobs = left.jobs().into_iter();
        Self {
            jobs: jobs.map(|record| (record.job.id, record)).collect(),
            calls: left.calls(),
            left,
        }
    }

    /// The stored answer of a job.
    pub(crate) fn answer(&self, id: JobId) -> Option<Value> {
        let response = self.jobs[&id].response.as_deref()?;
        Some(serde_json::from_str(response.get()).unwrap())
    }

    /// The row of an attempt.
    pub(crate) fn by_request_id(&self) -> BTreeMap<&str, &CallRecord> {
        let calls = self.calls.iter();
        let rows: BTreeMap<&str, &CallRecord> =
            calls.map(|call| (call.request_id.as_str(), call)).collect();
        assert_eq!(
            rows.len(),
            self.calls.len(),
            "an attempt is twice in the log"
        );
        rows
    }
}

fn prompt_of(record: &JobRecord) -> String {
    match record.request.as_deref().expect("it was not pruned") {
        Request::Prompt(text) => text.clone(),
        Request::Body(_, raw) => {
            let body: Value = serde_json::from_str(raw.get()).unwrap();
            let content = body["messages"][0]["content"].as_str();
            content
                .unwrap_or_else(|| panic!("nobody submitted {body}"))
                .to_owned()
        }
    }
}

/// Every job is there that was acknowledged, as it was asked for, and each ended once, as it may; no other is there.
pub(crate) fn every_job_is_there_once_and_no_other(books: &Books, ledger: &Ledger) {
    let mut completions: BTreeMap<JobId, Vec<&CallRecord>> = BTreeMap::new();
    for call in &books.calls {
        if call.outcome == CallOutcome::Completed {
            completions.entry(call.job_id).or_default().push(call);
        }
    }
    let claims = ledger.claims();
    let mut found = BTreeSet::new();
    for record in books.jobs.values() {
        let job = &record.job;
        let prompt = prompt_of(record);
        let claim = claims.get(&prompt);
        let claim = claim.unwrap_or_else(|| panic!("nobody submitted {prompt:?}: {job:?}"));
        // Of an acknowledgement that was lost, too: asked once, it is there once at most.
        assert!(found.insert(prompt), "stored twice: {job:?}");
        assert_eq!(job.id, claim.id.unwrap_or(job.id), "{job:?}");
        assert_eq!(job.user_id, claim.user.unwrap_or(&job.user_id), "{job:?}");
        let key = job.key_id.map(|key| key.to_string());
        assert_eq!(key.as_deref(), claim.key, "{job:?}");
        let batch = job.batch_id.map(|batch| batch.to_string());
        assert_eq!(batch.as_deref(), claim.batch, "{job:?}");
        assert!(claim.ends.contains(&job.status), "{job:?}");
        let completed = completions.get(&job.id).map_or(&[] as &[_], Vec::as_slice);
        if job.status != JobStatus::Completed {
            assert!(completed.is_empty(), "{job:?} {completed:?}");
            continue;
        }
        let [call] = completed else {
            panic!("not completed once: {job:?} {completed:?}");
        };
        let answer = books.answer(job.id).expect("the answer is stored");
        assert_eq!(answer["request_id"], call.request_id.as_str(), "{job:?}");
        let tokens = &answer["usage"]["total_tokens"];
        assert_eq!(*tokens, call.usage.total_tokens, "{job:?}");
        if let Some(before) = ledger.seen.get(&job.id) {
            assert_eq!(*before, answer, "a client saw another answer: {job:?}");
        }
    }
    for (prompt, claim) in &claims {
        assert!(
            !claim.is_acknowledged || found.contains(prompt),
            "an acknowledged job is lost: {prompt:?} {:?}",
            claim.id
        );
    }
}

/// The call log and what GLM saw say the same, and GLM was asked again only where a row says that something failed or is
/// in doubt.
pub(crate) fn every_call_is_accounted_for(books: &Books, simulator: &Simulator) -> Calls {
    let stats = simulator.stats();
    let mut unseen = books.by_request_id();
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for call in &books.calls {
        let name = match call.outcome {
            CallOutcome::Completed => "completed",
            CallOutcome::Failed => "failed",
            CallOutcome::Cancelled => "cancelled",
            CallOutcome::Interrupted => "interrupted",
        };
        *counts.entry(name).or_default() += 1;
    }
    // A call that was cut off before its body was read has no name; its row must be there all the same.
    let mut nameless = 0;
    for arrival in simulator.arrivals() {
        if arrival.operation == Operation::FetchTask {
            // A look at a task is a part of the call that handed it over.
            continue;
        } else if arrival.request_id.is_empty() {
            nameless += 1;
        } else if let Some(call) = unseen.remove(arrival.request_id.as_str()) {
            let answered = call.outcome != CallOutcome::Completed || arrival.status == Some(200);
            assert!(answered, "{call:?} {arrival:?}");
            let is_told = call.outcome != CallOutcome::Interrupted || call.maybe_billed;
            assert!(is_told, "it was sent: {call:?} {arrival:?}");
        } else {
            panic!("a call that the log does not know, or sent twice: {arrival:?}");
        }
    }
    for call in unseen.values() {
        // What was given up may have been on its way.
        let is_open = matches!(
            call.outcome,
            CallOutcome::Interrupted | CallOutcome::Cancelled
        );
        assert!(is_open, "never sent: {call:?}");
    }
    assert!(nameless <= unseen.len(), "{nameless} calls without a row");
    let jobs = books.left.0.counts().unwrap().total();
    let count = |name| counts.get(name).copied().unwrap_or(0);
    assert!(
        stats.calls <= jobs + count("failed") + count("interrupted"),
        "{} calls for {jobs} jobs: {counts:?}",
        stats.calls
    );
    let again = stats.bought - stats.works_bought;
    let doubted = books.calls.iter().filter(|c| c.maybe_billed).count() as u64;
    assert!(again <= doubted, "{again} bought again, {doubted} in doubt");
    Calls {
        arrived: stats.calls,
        jobs,
        by_outcome: counts,
        never_arrived: unseen.len() as u64,
        bought_again: again,
    }
}

/// No job is called before the jobs that it was to run after are completed: by the call log, and for the
/// server, which had answered those first. Tells how many ran after others.
pub(crate) fn no_job_ran_before_its_turn(
    books: &Books,
    submitted: &[Submitted],
    simulator: &Simulator,
) -> u64 {
    let mut begun: BTreeMap<JobId, Timestamp> = BTreeMap::new();
    let mut done: BTreeMap<JobId, &CallRecord> = BTreeMap::new();
    let mut attempts: BTreeMap<&str, JobId> = BTreeMap::new();
    // Newest first: what is noted last is of the first attempt.
    for call in &books.calls {
        begun.insert(call.job_id, call.started_at);
        attempts.insert(call.request_id.as_str(), call.job_id);
        if call.outcome == CallOutcome::Completed {
            done.insert(call.job_id, call);
        }
    }
    let arrivals = simulator.arrivals();
    let mut arrived: BTreeMap<JobId, u64> = BTreeMap::new();
    let mut answered: BTreeMap<&str, u64> = BTreeMap::new();
    for arrival in &arrivals {
        if let Some(job) = attempts.get(arrival.request_id.as_str()) {
            arrived.entry(*job).or_insert(arrival.at_us);
            let end_us = arrival.end_us.expect("nothing is in flight any more");
            answered.insert(&arrival.request_id, end_us);
        }
    }
    let mut dependents = 0;
    for job in submitted {
        let Some(id) = job.id else { continue };
        let stored = &books.jobs[&id].job;
        let after: BTreeSet<JobId> = stored.after.iter().copied().collect();
        assert_eq!(after, job.after(), "{stored:?}");
        assert_eq!(stored.waits_for, [], "{stored:?}");
        for before in &after {
            let call = done[before];
            assert!(call.ended_at <= begun[&id], "{stored:?} before {call:?}");
            let answered_us = answered[call.request_id.as_str()];
            assert!(answered_us <= arrived[&id], "{stored:?} before {call:?}");
        }
        dependents += u64::from(!after.is_empty());
    }
    dependents
}
