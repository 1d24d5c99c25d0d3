//! What a batch of changes does to the rows of a store, decided here once for all stores: a store
//! brings the rows ([`Rows`]), never an opinion.

mod batches;
mod files;
mod keys;
mod notices;

use crate::rows::Rows;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::life;
use crate::model::{
    Applied, AttemptNo, BatchId, Billing, Dispatch, Job, JobId, JobStatus, KeyId, NewJob, Next,
    Refusal, Settlement, Transition, limits,
};
use crate::retention;

/// What became of a batch.
#[derive(Debug, Clone)]
pub struct Effects {
    /// A decision for each change, in the batch's order.
    pub decisions: Vec<Result<Applied, Refusal>>,
    /// Whether any row was written; without one there is nothing to commit.
    pub changed: bool,
}

/// Applies a batch in its order. A change that is refused has written nothing.
pub fn apply_batch<R: Rows>(rows: &mut R, batch: &[Transition]) -> Result<Effects, R::Error> {
    let mut effects = Effects {
        decisions: Vec::with_capacity(batch.len()),
        changed: false,
    };
    for transition in batch {
        let decision = apply_one(rows, transition)?;
        effects.changed |= match &decision {
            Err(_) | Ok(Applied::Existing(_)) => false,
            Ok(Applied::Deliveries(made)) => !made.is_empty(),
            Ok(Applied::Pruned(pruned)) => !pruned.is_nothing(),
            Ok(_) => true,
        };
        effects.decisions.push(decision);
    }
    Ok(effects)
}

type Decision<E> = Result<Result<Applied, Refusal>, E>;

fn apply_one<R: Rows>(rows: &mut R, transition: &Transition) -> Decision<R::Error> {
    match transition {
        Transition::Insert(new) => return insert(rows, new),
        Transition::Release(jobs) => rows.put_released(jobs)?,
        Transition::Lane(lane) => rows.put_lane(lane)?,
        Transition::Breaker(breaker) => rows.put_breaker(breaker)?,
        Transition::Config(config) => rows.put_config(config)?,
        Transition::Clock(believed) => rows.put_clock(*believed)?,
        Transition::Alerts { book, source } => return notices::alerts(rows, book, source),
        Transition::OpenBatch(new) => return batches::open_batch(rows, new),
        Transition::Batch { id, step, at } => return batches::step_batch(rows, *id, *step, *at),
        Transition::Audit(entry) => {
            rows.put_audit(entry)?;
            rows.bound_audit(limits::AUDIT_ROWS_MAX)?;
        }
        Transition::InsertKey(new) => return keys::insert(rows, new),
        Transition::Key { id, step, at } => return keys::step(rows, *id, step, *at),
        Transition::Input(change) => return files::input(rows, change),
        Transition::File(change) => return files::file(rows, change),
        Transition::Delivery(change) => return notices::change(rows, change),
        Transition::Billing {
            job_id,
            attempt,
            billing,
        } => return resolve(rows, *job_id, *attempt, billing),
        Transition::Prune(step) => return Ok(Ok(Applied::Pruned(retention::prune(rows, step)?))),
        Transition::Forget { job_id } => return forget(rows, *job_id),
        Transition::Requeue { job_id } => return requeue(rows, *job_id, transition),
        Transition::Adopt { job_id, batch, key } => {
            return batches::take_over(rows, *job_id, *batch, key);
        }
        Transition::Stage { job_id, .. }
        | Transition::Unstage { job_id, .. }
        | Transition::Start { job_id, .. }
        | Transition::Resume { job_id, .. }
        | Transition::Task { job_id, .. }
        | Transition::Fail { job_id, .. }
        | Transition::Cancel { job_id, .. }
        | Transition::Reprioritise { job_id, .. } => return change(rows, *job_id, transition),
        Transition::Settle(settlement) => return change(rows, settlement.job_id, transition),
    }
    Ok(Ok(Applied::Done))
}

/// Puts a new job into the queue, unless its submission is there already or it is not let in. Asking again
/// is answered whatever its admission says.
fn insert<R: Rows>(rows: &mut R, new: &NewJob) -> Decision<R::Error> {
    if let Some(job) = rows.job(new.job.id)? {
        return Ok(Ok(Applied::Existing(Box::new(job))));
    }
    let key = new.job.idempotency_key.as_deref().map(|key| {
        let fingerprint = new
            .fingerprint
            .unwrap_or_else(|| new.request.fingerprint(&new.job.model));
        (key, fingerprint)
    });
    if let Some((key, fingerprint)) = key
        && let Some((holder, used_for)) = rows.keyed(&new.job.idempotency_scope(), key)?
        // A key whose job is gone is free again.
        && let Some(job) = rows.job(holder)?
    {
        // A submitter who names another place for the notice would get none.
        let told = &new.job.callback_url;
        let same = used_for == fingerprint && (told.is_none() || *told == job.callback_url);
        if !same {
            return Ok(Err(Refusal::IdempotencyConflict(holder)));
        }
        return match new.job.batch_id {
            Some(batch) if job.batch_id != Some(batch) => batches::adopt(rows, job, batch),
            _ => Ok(Ok(Applied::Existing(Box::new(job)))),
        };
    }
    if let Some(why) = new.admission.refuses(rows.pending()) {
        return Ok(Err(why.into()));
    }
    let open = match open_jobs(rows, &new.job.after, new.job.key_id)? {
        Ok(open) => open,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if let Some(batch) = new.job.batch_id
        && let Err(refusal) = batches::open_for_jobs(rows, batch)?
    {
        return Ok(Err(refusal));
    }
    let mut job = new.job.clone();
    job.waits_for = open.iter().map(|before| before.id).collect();
    job.seq = rows.next_seq();
    let job = Arc::new(job);
    rows.insert(&job, &new.request)?;
    batches::count(rows, None, &job)?;
    wait_for(rows, job.id, open)?;
    if let Some((key, fingerprint)) = key {
        rows.insert_key(&job.idempotency_scope(), key, job.id, fingerprint)?;
    }
    Ok(Ok(Applied::Inserted(job)))
}

/// Writes a job that exists, and counts its move from a status in its batch.
fn update<R: Rows>(rows: &mut R, before: JobStatus, job: &Job) -> Result<(), R::Error> {
    if before != job.status {
        batches::count(rows, Some(before), job)?;
    }
    rows.update(before, job)
}

/// Removes what a job asked for and was answered.
fn forget<R: Rows>(rows: &mut R, id: JobId) -> Decision<R::Error> {
    let Some(job) = rows.job(id)? else {
        return Ok(Err(Refusal::NotFound));
    };
    if !job.status.is_terminal() {
        return Ok(Err(Refusal::WrongStatus(job.status)));
    }
    if !job.bodies_pruned {
        rows.remove_bodies(&job)?;
    }
    Ok(Ok(Applied::Done))
}

/// Puts a job back in line. Of those it waited for when it ended, some may be completed now: it
/// waits for the others.
fn requeue<R: Rows>(rows: &mut R, id: JobId, transition: &Transition) -> Decision<R::Error> {
    let Some(mut job) = rows.job(id)? else {
        return Ok(Err(Refusal::NotFound));
    };
    let before = job.status;
    let had_refusal = job.has_refusal;
    if let Err(refusal) = life::apply(&mut job, transition) {
        return Ok(Err(refusal));
    }
    // Those it did not wait for any more are completed for good, and may be pruned by now.
    let open = match open_jobs(rows, &job.waits_for, None)? {
        Ok(open) => open,
        // It was there when this one was submitted.
        Err(Refusal::NoSuchDependency(id)) => return Ok(Err(Refusal::DependencyPruned(id))),
        Err(refusal) => return Ok(Err(refusal)),
    };
    job.waits_for = open.iter().map(|other| other.id).collect();
    update(rows, before, &job)?;
    drop_refusal(rows, had_refusal, &job)?;
    wait_for(rows, id, open)?;
    Ok(Ok(Applied::Job(Box::new(job))))
}

/// Removes what came instead of an answer once it says nothing of the job any more.
fn drop_refusal<R: Rows>(rows: &mut R, had_refusal: bool, job: &Job) -> Result<(), R::Error> {
    match had_refusal && !job.has_refusal {
        true => rows.remove_response(job.id),
        false => Ok(()),
    }
}

/// Those of the jobs that another is to run after which are not completed yet, each once. One that
/// failed or was cancelled will not be, unless somebody puts it back in line first. For a client key the jobs of
/// others are not there.
fn open_jobs<R: Rows>(
    rows: &mut R,
    after: &[JobId],
    key: Option<KeyId>,
) -> Result<Result<Vec<Job>, Refusal>, R::Error> {
    let mut open: Vec<Job> = Vec::new();
    for id in after {
        if open.iter().any(|job| job.id == *id) {
            continue;
        }
        let is_known = |job: &Job| key.is_none() || job.key_id == key;
        match rows.job(*id)?.filter(is_known) {
            None => return Ok(Err(Refusal::NoSuchDependency(*id))),
            Some(job) if job.status == JobStatus::Completed => {}
            Some(job) if job.status.is_terminal() => {
                return Ok(Err(Refusal::DependencyEnded {
                    job_id: *id,
                    status: job.status,
                }));
            }
            Some(job) => open.push(job),
        }
    }
    Ok(Ok(open))
}

/// Remembers that a job waits for others. Their own rows say so, too: the end of a job that nobody
/// waits for, which is nearly every one, looks for no dependents.
fn wait_for<R: Rows>(rows: &mut R, dependent: JobId, others: Vec<Job>) -> Result<(), R::Error> {
    for mut other in others {
        rows.insert_dependent(other.id, dependent)?;
        if !other.has_dependents {
            other.has_dependents = true;
            rows.update(other.status, &other)?;
        }
    }
    Ok(())
}

/// Books what somebody found out about an attempt that was maybe billed.
fn resolve<R: Rows>(
    rows: &mut R,
    id: JobId,
    attempt: AttemptNo,
    billing: &Billing,
) -> Decision<R::Error> {
    let Some(call) = rows.call(id, attempt)? else {
        return Ok(Err(Refusal::NotFound));
    };
    if !call.is_billing_open() {
        return Ok(Err(Refusal::BillingSettled(attempt)));
    }
    rows.resolve_call(&call, billing)?;
    if let Some(batch) = rows.job(id)?.and_then(|job| job.batch_id)
        && let Some(mut batch) = rows.batch(batch)?
    {
        batch.spent(billing.cost);
        rows.put_batch(&batch)?;
    }
    Ok(Ok(Applied::Done))
}

/// What the end of a job means for those that wait for it: free to run, or ended with it, and so on
/// with those that wait for them. A worklist, since a chain may be long. Answers those that are free
/// or ended now.
fn follow<R: Rows>(rows: &mut R, ended: &Job) -> Result<Vec<Job>, R::Error> {
    let at = ended.processed_at.unwrap_or_default();
    let mut others = Vec::new();
    let mut ends = VecDeque::from([(ended.id, ended.status)]);
    while let Some((id, status)) = ends.pop_front() {
        for dependent in rows.take_dependents(id)? {
            let Some(mut job) = rows.job(dependent)? else {
                continue;
            };
            // It may have ended by itself before.
            if job.status != JobStatus::Pending || !job.waits_for.contains(&id) {
                continue;
            }
            let concerned = if status == JobStatus::Completed {
                life::unblock(&mut job, id)
            } else {
                if life::end_with(&mut job, id, status, at).is_err() {
                    continue;
                }
                if std::mem::take(&mut job.has_dependents) {
                    ends.push_back((job.id, job.status));
                }
                notices::job_ended(rows, &job)?;
                true
            };
            update(rows, JobStatus::Pending, &job)?;
            if concerned {
                others.push(job);
            }
        }
    }
    Ok(others)
}

/// Changes a job that exists.
fn change<R: Rows>(rows: &mut R, id: JobId, transition: &Transition) -> Decision<R::Error> {
    let Some(mut job) = rows.job(id)? else {
        return Ok(Err(Refusal::NotFound));
    };
    let before = job.status;
    let had_refusal = job.has_refusal;
    if let Err(refusal) = life::apply(&mut job, transition) {
        return Ok(Err(refusal));
    }
    let has_ended = job.status.is_terminal();
    let concerns_others = has_ended && std::mem::take(&mut job.has_dependents);
    update(rows, before, &job)?;
    if has_ended {
        notices::job_ended(rows, &job)?;
    }
    drop_refusal(rows, had_refusal, &job)?;
    if let Transition::Settle(settlement) = transition {
        account(rows, settlement, job.batch_id)?;
    }
    if concerns_others {
        let others = follow(rows, &job)?;
        if !others.is_empty() {
            let job = Box::new(job);
            return Ok(Ok(Applied::Chain { job, others }));
        }
    }
    Ok(Ok(match transition {
        // An attempt is told whole to whoever sends it, and with its number to whoever tells others.
        Transition::Stage { .. } | Transition::Start { .. } | Transition::Resume { .. } => {
            let request = rows.request(&job)?;
            Applied::Dispatch(Arc::new(Dispatch { job, request }))
        }
        Transition::Unstage { .. } | Transition::Task { .. } => Applied::Done,
        _ => Applied::Job(Box::new(job)),
    }))
}

/// What the end of an attempt leaves beside the job's row: all of it in the same transaction.
fn account<R: Rows>(
    rows: &mut R,
    settlement: &Settlement,
    batch: Option<BatchId>,
) -> Result<(), R::Error> {
    if let Next::Completed { response } = &settlement.next {
        rows.put_response(settlement.job_id, response)?;
    }
    if let Some(refusal) = &settlement.refusal {
        rows.put_refusal(settlement.job_id, refusal)?;
    }
    rows.log_call(&settlement.call)?;
    if let Some(id) = batch
        && let Some(mut batch) = rows.batch(id)?
    {
        batch.called(&settlement.call);
        rows.put_batch(&batch)?;
    }
    if let Some(lane) = &settlement.lane {
        rows.put_lane(lane)?;
    }
    if let Some(breaker) = &settlement.breaker {
        rows.put_breaker(breaker)?;
    }
    Ok(())
}
