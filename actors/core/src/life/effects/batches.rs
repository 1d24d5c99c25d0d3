//! Batches: their counts and costs change with their jobs, and jobs move from one to another.

use super::Decision;
use crate::model::{
    Applied, AttemptNo, Batch, BatchId, BatchStep, CallRecord, Job, JobId, JobStatus, Refusal,
    Timestamp,
};
use crate::rows::Rows;

/// Begins a batch, or opens it for more jobs.
pub(super) fn open_batch<R: Rows>(rows: &mut R, new: &Batch) -> Decision<R::Error> {
    let mut batch = rows.batch(new.id)?.unwrap_or_else(|| new.clone());
    batch.name.clone_from(&new.name);
    batch.open(new.created_at);
    rows.put_batch(&batch)?;
    Ok(Ok(Applied::Batch(Box::new(batch))))
}

pub(super) fn step_batch<R: Rows>(
    rows: &mut R,
    id: BatchId,
    step: BatchStep,
    at: Timestamp,
) -> Decision<R::Error> {
    let Some(mut batch) = rows.batch(id)? else {
        return Ok(Err(Refusal::NoSuchBatch(id)));
    };
    match step {
        BatchStep::Close => batch.close(at),
        BatchStep::Cancel => batch.cancel(at),
    }
    keep(rows, &batch)?;
    Ok(Ok(Applied::Batch(Box::new(batch))))
}

/// Writes a batch, or forgets one of which nothing is left.
pub(super) fn keep<R: Rows>(rows: &mut R, batch: &Batch) -> Result<(), R::Error> {
    if batch.is_over() {
        return rows.remove_batch(batch.id);
    }
    rows.put_batch(batch)
}

/// Whether a batch takes more jobs.
pub(super) fn open_for_jobs<R: Rows>(
    rows: &mut R,
    id: BatchId,
) -> Result<Result<(), Refusal>, R::Error> {
    Ok(match rows.batch(id)? {
        None => Err(Refusal::NoSuchBatch(id)),
        Some(batch) if batch.closed => Err(Refusal::BatchClosed(id)),
        Some(_) => Ok(()),
    })
}

/// Moves a job to a batch of another name, under the key that it has there.
pub(super) fn take_over<R: Rows>(
    rows: &mut R,
    id: JobId,
    batch: BatchId,
    key: &str,
) -> Decision<R::Error> {
    let Some(mut job) = rows.job(id)? else {
        return Ok(Err(Refusal::NotFound));
    };
    if let Err(refusal) = open_for_jobs(rows, batch)? {
        return Ok(Err(refusal));
    }
    if job.idempotency_key.as_deref() != Some(key) {
        if let Some((holder, _)) = rows.keyed(&job.idempotency_scope(), key)?
            && rows.job(holder)?.is_some()
        {
            return Ok(Err(Refusal::IdempotencyConflict(holder)));
        }
        // What a key is compared by was stored with it.
        let Some(old) = job.idempotency_key.replace(key.to_owned()) else {
            return Ok(Err(Refusal::NotFound));
        };
        let Some((_, used_for)) = rows.keyed(&job.idempotency_scope(), &old)? else {
            return Ok(Err(Refusal::NotFound));
        };
        rows.remove_key(&job.idempotency_scope(), &old, id)?;
        rows.insert_key(&job.idempotency_scope(), key, id, used_for)?;
        rows.update(job.status, &job)?;
    }
    if job.batch_id == Some(batch) {
        return Ok(Ok(Applied::Existing(Box::new(job))));
    }
    adopt(rows, job, batch)
}

/// Moves a job, and what its calls came to, to the batch that it was submitted to again: a file that was moved, or
/// a line that went from one file to another.
pub(super) fn adopt<R: Rows>(rows: &mut R, mut job: Job, batch: BatchId) -> Decision<R::Error> {
    if let Err(refusal) = open_for_jobs(rows, batch)? {
        return Ok(Err(refusal));
    }
    let (status, at) = (job.status, job.processed_at.unwrap_or(job.created_at));
    let calls = calls_of(rows, &job)?;
    let mut over = None;
    if let Some(id) = job.batch_id
        && let Some(mut before) = rows.batch(id)?
    {
        before.moved(Some(status), None, at);
        calls.iter().for_each(|call| before.call_left(call));
        // Whoever began it may never come back to close it.
        before.closed |= before.unfinished() == 0;
        keep(rows, &before)?;
        over = Some(before).filter(Batch::is_over);
    }
    job.batch_id = Some(batch);
    if let Some(mut now) = rows.batch(batch)? {
        now.moved(None, Some(status), at);
        calls.iter().for_each(|call| now.called(call));
        if let Some(before) = &over {
            now.succeeds(before);
        }
        rows.put_batch(&now)?;
    }
    rows.update(status, &job)?;
    Ok(Ok(Applied::Adopted(Box::new(job))))
}

/// The calls of a job that the call log still has.
fn calls_of<R: Rows>(rows: &mut R, job: &Job) -> Result<Vec<CallRecord>, R::Error> {
    let mut calls = Vec::new();
    for no in 1..=job.attempts.0 {
        calls.extend(rows.call(job.id, AttemptNo(no))?);
    }
    Ok(calls)
}

/// Counts a job's move from a status in its batch.
pub(super) fn count<R: Rows>(
    rows: &mut R,
    before: Option<JobStatus>,
    job: &Job,
) -> Result<(), R::Error> {
    let Some(id) = job.batch_id else {
        return Ok(());
    };
    let Some(mut batch) = rows.batch(id)? else {
        return Ok(());
    };
    batch.moved(
        before,
        Some(job.status),
        job.processed_at.unwrap_or(job.created_at),
    );
    rows.put_batch(&batch)
}
