//! The tables for retention: the oldest rows, and the removal of some.

use onelane_core::model::{Bodies, Finished, FinishedKind};
use onelane_core::rows::{Finishes, Logged};
use redb::ReadableTableMetadata as _;

use super::Transaction;
use crate::model::{CallRecord, Job, JobId};
use crate::store::error::{FileError, Result};
use crate::store::{finished, schema};

impl Finishes for Transaction<'_> {
    type Error = FileError;

    fn finished_count(&mut self, kind: FinishedKind) -> Result<u64> {
        self.write_changed()?;
        Ok(self.kind(kind)?.len()?)
    }

    fn finished(
        &mut self,
        kind: FinishedKind,
        bodies: Bodies,
        after: Option<Finished>,
        limit: usize,
    ) -> Result<Vec<Finished>> {
        self.write_changed()?;
        finished::places(self.kind(kind)?, bodies, after, limit)
    }

    fn finished_job(&mut self, id: JobId) -> Result<Option<Job>> {
        finished::finished_job(self.jobs.open()?, id)
    }

    fn call_count(&mut self) -> Result<u64> {
        let open = self.billing_open.open()?.len()?;
        Ok(self.calls.open()?.len()?.saturating_sub(open))
    }

    fn calls_after(&mut self, seq: u64, limit: usize) -> Result<Vec<Logged>> {
        finished::log_after(self.calls.open()?, seq, limit)
    }
}

impl Transaction<'_> {
    /// Puts a job where retention looks for it, if anything of it may go.
    pub(super) fn shelve(&mut self, job: &Job) -> Result<()> {
        let Some(key) = schema::finished_key_of(job) else {
            return Ok(());
        };
        let open = self.billing_open.open()?;
        let by_job = self.calls_by_job.open()?;
        let bonds = finished::bonds(open, by_job, self.deliveries_open.open()?, job.id)?;
        if let Some(kind) = FinishedKind::of(job, bonds) {
            self.kind(kind)?.insert(&key, job.id.as_bytes())?;
        }
        Ok(())
    }

    /// Takes a job from where it stood.
    pub(super) fn unshelve(&mut self, key: &[u8; 17]) -> Result<()> {
        for kind in FinishedKind::ALL {
            self.kind(kind)?.remove(key)?;
        }
        Ok(())
    }

    pub(super) fn take_job(&mut self, job: &Job) -> Result<u64> {
        self.write_changed()?;
        self.counters.jobs.removed(job.status);
        self.jobs.open()?.remove(job.id.as_bytes())?;
        let bytes = self.take_bodies(job.id)?;
        let key = schema::line_key(job.status, job.seq);
        self.line.open()?.remove(&key)?;
        if let Some(key) = schema::finished_key_of(job) {
            self.unshelve(&key)?;
        }
        Ok(bytes)
    }

    pub(super) fn strip(&mut self, job: &Job) -> Result<u64> {
        self.write_changed()?;
        let bytes = self.take_bodies(job.id)?;
        if let Some(key) = schema::finished_key_of(job) {
            self.unshelve(&key)?;
        }
        self.put(&Job {
            bodies_pruned: true,
            ..job.clone()
        })?;
        Ok(bytes)
    }

    pub(super) fn take_call(&mut self, call: &CallRecord) -> Result<()> {
        self.calls.open()?.remove(call.seq)?;
        let key = schema::call_key(call.job_id, call.attempt);
        self.calls_by_job.open()?.remove(&key)?;
        let until = &mut self.counters.calls_pruned_until;
        *until = (*until).max(Some(call.day()));
        Ok(())
    }

    fn take_bodies(&mut self, id: JobId) -> Result<u64> {
        let request = self.requests.open()?.remove(id.as_bytes())?;
        let request = request.map_or(0, |row| row.value().len());
        let response = self.responses.open()?.remove(id.as_bytes())?;
        let response = response.map_or(0, |row| row.value().len());
        Ok(request as u64 + response as u64)
    }
}
