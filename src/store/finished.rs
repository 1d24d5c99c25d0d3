//! The rows that retention looks at, the same in a transaction and in a snapshot. A row that can't be decoded is
//! passed over here: one of them must not keep all others.

use std::ops::Bound;

use onelane_core::model::{Bodies, Bonds, Finished, FinishedKind};
use onelane_core::rows::{Finishes, Logged};

use super::error::{FileError, Result};
use super::job;
use super::schema::{self, decode_call};
use super::state::{Merged, State};
use crate::model::{AttemptNo, DeliveryId, Job, JobId};

type Bytes = &'static [u8];

/// A row, or `None` when it can't be decoded; what keeps it from being reached is an error.
pub(super) fn readable<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(row) => Ok(Some(row)),
        Err(FileError::Damaged(_) | FileError::NewerRow { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn places(
    kind: &Merged<'_, &'static [u8; 17], &'static [u8; 16]>,
    bodies: Bodies,
    after: Option<Finished>,
    limit: usize,
) -> Result<Vec<Finished>> {
    let first = match &after {
        Some(place) => Bound::Excluded(schema::finished_key(bodies, place)),
        None => Bound::Included(schema::finished_from(bodies)),
    };
    let last = schema::finished_to(bodies);
    let range = (first.as_ref(), Bound::Included(&last));
    let mut finished = Vec::new();
    for item in kind.range::<&[u8; 17]>(range)?.take(limit) {
        let (key, id) = item?;
        finished.push(schema::finished_of(key.value(), id.value()));
    }
    Ok(finished)
}

pub(super) fn finished_job(
    jobs: &Merged<'_, &'static [u8; 16], Bytes>,
    id: JobId,
) -> Result<Option<Job>> {
    match jobs.get(id.as_bytes())? {
        Some(row) => readable(job::decode(id.as_bytes(), row.value())),
        None => Ok(None),
    }
}

pub(super) fn log_after(
    calls: &Merged<'_, u64, Bytes>,
    seq: u64,
    limit: usize,
) -> Result<Vec<Logged>> {
    let after = (Bound::Excluded(seq), Bound::Unbounded);
    let mut found = Vec::new();
    for item in calls.range::<u64>(after)?.take(limit) {
        let (seq, row) = item?;
        let seq = seq.value();
        let call = readable(decode_call(seq, row.value()))?;
        found.push(Logged { seq, call });
    }
    Ok(found)
}

/// The reason to keep a job that is over.
pub(super) fn bonds(
    billing_open: &Merged<'_, u64, ()>,
    calls_by_job: &Merged<'_, &'static [u8; 20], u64>,
    deliveries_open: &Merged<'_, &'static [u8; 24], ()>,
    id: JobId,
) -> Result<Bonds> {
    let mut bonds = Bonds::default();
    if !billing_open.is_empty()? {
        let first = schema::call_key(id, AttemptNo(0));
        let last = schema::call_key(id, AttemptNo(u32::MAX));
        for item in calls_by_job.range::<&[u8; 20]>(&first..=&last)? {
            if billing_open.get(item?.1.value())?.is_some() {
                bonds.billing = true;
                break;
            }
        }
    }
    if !deliveries_open.is_empty()? {
        let first = schema::told_key(id, DeliveryId(0));
        let last = schema::told_key(id, DeliveryId(u64::MAX));
        let mut told = deliveries_open.range::<&[u8; 24]>(&first..=&last)?;
        bonds.notices = told.next().transpose()?.is_some();
    }
    Ok(bonds)
}

/// A snapshot, where nothing goes.
pub(super) struct Snapshot<'s>(pub(super) &'s State);

impl Finishes for Snapshot<'_> {
    type Error = FileError;

    fn finished_count(&mut self, kind: FinishedKind) -> Result<u64> {
        self.0.open_table(schema::kind(kind))?.len()
    }

    fn finished(
        &mut self,
        kind: FinishedKind,
        bodies: Bodies,
        after: Option<Finished>,
        limit: usize,
    ) -> Result<Vec<Finished>> {
        let kind = self.0.open_table(schema::kind(kind))?;
        places(&kind, bodies, after, limit)
    }

    fn finished_job(&mut self, id: JobId) -> Result<Option<Job>> {
        finished_job(&self.0.open_table(schema::JOBS)?, id)
    }

    fn call_count(&mut self) -> Result<u64> {
        let calls = self.0.open_table(schema::CALLS)?.len()?;
        let open = self.0.open_table(schema::BILLING_OPEN)?.len()?;
        Ok(calls.saturating_sub(open))
    }

    fn calls_after(&mut self, seq: u64, limit: usize) -> Result<Vec<Logged>> {
        log_after(&self.0.open_table(schema::CALLS)?, seq, limit)
    }
}
