//! What a batch of changes does to the rows of a store, decided here once for all stores: a store
//! brings the rows ([`Rows`]), never an opinion.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::transition::{self, Applied, Dispatch, NewJob, Next, Refusal, Settlement, Transition};
use crate::model::{
    BreakerSnapshot, CallRecord, Fingerprint, Job, JobId, JobStatus, LaneState, Request, Seq,
};

/// The rows of a store inside one transaction: reads see what the transaction has written so far,
/// and an error undoes all of it.
pub trait Rows {
    /// Why a row can't be read or written.
    type Error;

    /// A job's row.
    fn job(&mut self, id: JobId) -> Result<Option<Job>, Self::Error>;

    /// What a job asks for. A job without a request is an error of the store.
    fn request(&mut self, id: JobId) -> Result<Arc<Request>, Self::Error>;

    /// The job for which a user's idempotency key was used, and for which request.
    fn keyed(
        &mut self,
        user_id: &str,
        key: &str,
    ) -> Result<Option<(JobId, Fingerprint)>, Self::Error>;

    /// Jobs that wait, earlier changes of the transaction included.
    fn pending(&self) -> u64;

    /// The next place in line; each is given once.
    fn next_seq(&mut self) -> Seq;

    /// Writes a new job and counts it.
    fn insert(&mut self, job: &Job, request: &Request) -> Result<(), Self::Error>;

    /// Remembers for which job and request a user's idempotency key was used.
    fn insert_key(
        &mut self,
        user_id: &str,
        key: &str,
        job: JobId,
        fingerprint: Fingerprint,
    ) -> Result<(), Self::Error>;

    /// Writes a job that exists and counts its move from the status `before`.
    fn update(&mut self, before: JobStatus, job: &Job) -> Result<(), Self::Error>;

    /// Writes GLM's answer to a job.
    fn put_response(&mut self, id: JobId, response: &Arc<RawValue>) -> Result<(), Self::Error>;

    /// Appends to the call log, at the next place of its own, and adds to the usage of the call's
    /// day, model and user.
    fn log_call(&mut self, call: &CallRecord) -> Result<(), Self::Error>;

    /// Writes the lane's state.
    fn put_lane(&mut self, lane: &LaneState) -> Result<(), Self::Error>;

    /// Writes the breaker's state.
    fn put_breaker(&mut self, breaker: &BreakerSnapshot) -> Result<(), Self::Error>;

    /// Writes the runtime changes of the configuration.
    fn put_config(&mut self, config: &str) -> Result<(), Self::Error>;
}

/// What became of a batch.
#[derive(Debug, Clone)]
pub struct Effects {
    /// A verdict for each change, in the batch's order.
    pub verdicts: Vec<Result<Applied, Refusal>>,
    /// Whether any row was written; without one there is nothing to commit.
    pub changed: bool,
}

/// Applies a batch in its order. A change that is refused has written nothing.
pub fn apply_batch<R: Rows>(rows: &mut R, batch: &[Transition]) -> Result<Effects, R::Error> {
    let mut effects = Effects {
        verdicts: Vec::with_capacity(batch.len()),
        changed: false,
    };
    for transition in batch {
        let verdict = apply_one(rows, transition)?;
        effects.changed |= !matches!(verdict, Err(_) | Ok(Applied::Existing(_)));
        effects.verdicts.push(verdict);
    }
    Ok(effects)
}

type Verdict<E> = Result<Result<Applied, Refusal>, E>;

fn apply_one<R: Rows>(rows: &mut R, transition: &Transition) -> Verdict<R::Error> {
    match transition {
        Transition::Insert(new) => return insert(rows, new),
        Transition::Lane(lane) => rows.put_lane(lane)?,
        Transition::Breaker(breaker) => rows.put_breaker(breaker)?,
        Transition::Config(config) => rows.put_config(config)?,
        Transition::Stage { job_id, .. }
        | Transition::Unstage { job_id, .. }
        | Transition::Start { job_id, .. }
        | Transition::Fail { job_id, .. }
        | Transition::Cancel { job_id, .. }
        | Transition::Requeue { job_id }
        | Transition::Reprioritise { job_id, .. } => return change(rows, *job_id, transition),
        Transition::Settle(settlement) => return change(rows, settlement.job_id, transition),
    }
    Ok(Ok(Applied::Done))
}

/// Puts a new job in line, unless its submission is there already or the line is full. Asking again
/// is answered even when it is full.
fn insert<R: Rows>(rows: &mut R, new: &NewJob) -> Verdict<R::Error> {
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
        && let Some((holder, used_for)) = rows.keyed(&new.job.user_id, key)?
        // A key whose job is gone is free again.
        && let Some(job) = rows.job(holder)?
    {
        return Ok(if used_for == fingerprint {
            Ok(Applied::Existing(Box::new(job)))
        } else {
            Err(Refusal::IdempotencyConflict(holder))
        });
    }
    if rows.pending() >= new.max_queue_jobs {
        return Ok(Err(Refusal::QueueFull {
            limit: new.max_queue_jobs,
        }));
    }
    let mut job = Box::new(new.job.clone());
    job.seq = rows.next_seq();
    rows.insert(&job, &new.request)?;
    if let Some((key, fingerprint)) = key {
        rows.insert_key(&job.user_id, key, job.id, fingerprint)?;
    }
    Ok(Ok(Applied::Inserted(job)))
}

/// Changes a job that exists.
fn change<R: Rows>(rows: &mut R, id: JobId, transition: &Transition) -> Verdict<R::Error> {
    let Some(mut job) = rows.job(id)? else {
        return Ok(Err(Refusal::NotFound));
    };
    let before = job.status;
    if let Err(refusal) = transition::apply(&mut job, transition) {
        return Ok(Err(refusal));
    }
    rows.update(before, &job)?;
    if let Transition::Settle(settlement) = transition {
        account(rows, settlement)?;
    }
    Ok(Ok(match transition {
        // An attempt is told whole to whoever sends it, and with its number to whoever tells others.
        Transition::Stage { .. } | Transition::Start { .. } => {
            let request = rows.request(id)?;
            Applied::Dispatch(Arc::new(Dispatch { job, request }))
        }
        Transition::Unstage { .. } => Applied::Done,
        _ => Applied::Job(Box::new(job)),
    }))
}

/// What the end of an attempt leaves beside the job's row: all of it in the same transaction.
fn account<R: Rows>(rows: &mut R, settlement: &Settlement) -> Result<(), R::Error> {
    if let Next::Completed { response } = &settlement.next {
        rows.put_response(settlement.job_id, response)?;
    }
    rows.log_call(&settlement.call)?;
    if let Some(lane) = &settlement.lane {
        rows.put_lane(lane)?;
    }
    if let Some(breaker) = &settlement.breaker {
        rows.put_breaker(breaker)?;
    }
    Ok(())
}
