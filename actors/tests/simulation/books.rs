//! The end of a world, and of each of its processes: the books are right.

use std::collections::{BTreeMap, BTreeSet};

use onelane_actors::ports::{CallFilter, JobFilter, JobRecord, StatusCounts, Store, UsageFilter};
use onelane_actors::testing::MemoryStore;
use onelane_core::model::{
    AttemptNo, Batch, CallOutcome, CallRecord, JobId, JobStatus, Phase, UsageKey, UsageRow,
};

use crate::server::Kind;
use crate::sim::{Sim, short};

type Right = Result<(), String>;

/// Each batch counts the jobs that it has, and what their calls came to.
fn batches(store: &MemoryStore, jobs: &[JobRecord], calls: &[CallRecord]) -> Right {
    for batch in store.batches(None, usize::MAX).map_err(|e| e.to_string())? {
        let mut counts = StatusCounts::default();
        for record in jobs.iter().filter(|r| r.job.batch_id == Some(batch.id)) {
            counts.moved(None, record.job.status);
        }
        if counts != batch.counts {
            return Err(format!(
                "{} counts {:?}, and has {counts:?}",
                batch.name, batch.counts
            ));
        }
        let of: BTreeSet<JobId> = jobs
            .iter()
            .filter(|record| record.job.batch_id == Some(batch.id))
            .map(|record| record.job.id)
            .collect();
        let mut right = Batch::new(batch.id, "", batch.created_at);
        let own = calls.iter().filter(|call| of.contains(&call.job_id));
        own.for_each(|call| right.called(call));
        let of = |batch: &Batch| {
            let costs = batch.costs.iter().filter(|cost| cost.nanos != 0);
            let mut costs: Vec<String> = costs.map(ToString::to_string).collect();
            costs.sort();
            (costs, batch.unpriced_calls)
        };
        if of(&batch) != of(&right) {
            return Err(format!(
                "{} came to {:?}, and its calls to {:?}",
                batch.name,
                of(&batch),
                of(&right)
            ));
        }
    }
    Ok(())
}

/// What holds at any moment: nothing acknowledged is missing, and the books agree with one another.
pub(crate) fn agree(sim: &Sim) -> Right {
    let state = sim.lock();
    let broken = |error: onelane_actors::ports::StoreError| error.to_string();
    let store = &sim.store;
    let page = store
        .jobs(&JobFilter::default(), None, usize::MAX)
        .map_err(broken)?;
    let on_disk: BTreeMap<JobId, JobStatus> = page
        .jobs
        .iter()
        .map(|record| (record.job.id, record.job.status))
        .collect();
    for id in state.promises.keys() {
        if !on_disk.contains_key(id) {
            return Err(format!("job {} was acknowledged and is gone", short(*id)));
        }
    }
    let known: BTreeMap<JobId, JobStatus> = state
        .ledger
        .jobs
        .iter()
        .map(|(id, known)| (*id, known.job.status))
        .collect();
    if known != on_disk {
        return Err("the jobs on disk are not those that came there".to_owned());
    }
    let keys = store.client_keys().map_err(broken)?;
    for id in &state.revoked {
        let key = keys.iter().find(|key| key.id == *id);
        if key.is_none_or(|key| key.revoked_at.is_none()) {
            return Err(format!(
                "client key {id}: it was revoked, and is not on disk"
            ));
        }
    }
    for (id, told) in &state.answers {
        let record = store.job(*id).map_err(broken)?;
        let stored = record.and_then(|record| record.response);
        if stored.is_none_or(|stored| stored.text() != *told) {
            let who = short(*id);
            return Err(format!("job {who}: somebody was told another answer"));
        }
    }
    let counts = store.counts().map_err(broken)?;
    for status in JobStatus::ALL {
        let jobs = on_disk.values().filter(|s| **s == status).count() as u64;
        if counts.of(status) != jobs {
            return Err(format!("{} jobs are {status:?}, counted {counts:?}", jobs));
        }
    }
    for record in &page.jobs {
        let answered = record.job.status == JobStatus::Completed;
        if answered != record.response.is_some() {
            return Err(format!(
                "job {} and its answer don't agree",
                short(record.job.id)
            ));
        }
    }
    let calls = store
        .calls(&CallFilter::default(), None, usize::MAX)
        .map_err(broken)?;
    batches(store, &page.jobs, &calls.calls)?;
    let mut usage: BTreeMap<UsageKey, UsageRow> = BTreeMap::new();
    let mut rows: BTreeMap<(JobId, AttemptNo), CallRecord> = BTreeMap::new();
    for call in calls.calls {
        let key = UsageKey::of(&call);
        let row = usage.entry(key);
        row.or_insert_with_key(|key| UsageRow::empty(key.clone()))
            .add(&call);
        if rows.insert((call.job_id, call.attempt), call).is_some() {
            return Err("an attempt is in the call log twice".to_owned());
        }
    }
    if !rows.keys().eq(state.ledger.calls.keys()) {
        return Err("the call log is not what was written to it".to_owned());
    }
    let all = UsageFilter::default();
    let sums = store.usage(&all).map_err(broken)?;
    if !sums.iter().eq(usage.values()) || usage != state.ledger.usage {
        return Err(format!(
            "usage {sums:?} is not the sum of the call log {usage:?}"
        ));
    }
    Ok(())
}

/// What holds once all is healed and done.
pub(crate) fn close(sim: &Sim) -> Right {
    agree(sim)?;
    let state = sim.lock();
    for known in state.ledger.jobs.values() {
        let job = &known.job;
        let waits_for_held = || {
            let open = |id: &JobId| {
                !state
                    .ledger
                    .status_of(*id)
                    .is_some_and(JobStatus::is_terminal)
            };
            job.waits_for.iter().any(open)
        };
        let stated = match job.phase() {
            Phase::Completed | Phase::Failed | Phase::Cancelled | Phase::Parked => true,
            Phase::Blocked => waits_for_held(),
            Phase::Waiting | Phase::Staged | Phase::Running => false,
        };
        if !stated {
            return Err(format!(
                "all is well, and job {job:?} has not come to its end"
            ));
        }
        if job.status == JobStatus::Failed && job.error.is_none() {
            return Err(format!("job {} failed for no reason", short(job.id)));
        }
    }
    for call in &state.server.calls {
        let who = format!("attempt {} of job {}", call.attempt, short(call.job));
        let Some(row) = state.ledger.calls.get(&(call.job, call.attempt)) else {
            return Err(format!("GLM saw {who}, the call log did not"));
        };
        if row.model != call.model {
            return Err(format!(
                "{who} went to {}, on record is {}",
                call.model, row.model
            ));
        }
        let Some(billed) = call.billed else { continue };
        // Booked by our own count: nobody told the tokens of an answer that broke off.
        if call.is_told && row.outcome != CallOutcome::Completed {
            continue;
        }
        if row.usage != billed && !row.maybe_billed {
            return Err(format!(
                "GLM charged {billed:?} for {who}, on record is {row:?}"
            ));
        }
        if row.outcome == CallOutcome::Completed && call.kind == Kind::Call && row.usage != billed {
            return Err(format!("{who} is completed with other tokens"));
        }
    }
    for row in state.ledger.calls.values() {
        let seen = state.server.call_of(row.job_id, row.attempt);
        let is_booked = row.usage.total_tokens > 0;
        let is_unpaid = !row.maybe_billed && !is_booked;
        if row.outcome == CallOutcome::Interrupted && is_unpaid && seen.is_some() {
            return Err(format!("GLM saw what was surely not billed: {row:?}"));
        }
        let unseen_outcome = matches!(
            row.outcome,
            CallOutcome::Interrupted | CallOutcome::Cancelled
        );
        if seen.is_none() && !unseen_outcome {
            return Err(format!("GLM never saw {row:?}"));
        }
    }
    Ok(())
}
