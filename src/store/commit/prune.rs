//! The tables for retention: the oldest rows, and the removal of some.

use onelane_core::model::{Bodies, Finished, FinishedKind};
use onelane_core::rows::{Finishes, Logged};

use super::Transaction;
use crate::model::{CallRecord, Job, JobId};
use crate::store::error::{FileError, Result};
use crate::store::requests::Without;
use crate::store::{finished, schema};

impl Finishes for Transaction<'_> {
    type Error = FileError;

    fn finished_count(&mut self, kind: FinishedKind) -> Result<u64> {
        self.write_changed()?;
        self.table(schema::kind(kind))?.len()
    }

    fn finished(
        &mut self,
        kind: FinishedKind,
        bodies: Bodies,
        after: Option<Finished>,
        limit: usize,
    ) -> Result<Vec<Finished>> {
        self.write_changed()?;
        finished::places(&self.table(schema::kind(kind))?, bodies, after, limit)
    }

    fn finished_job(&mut self, id: JobId) -> Result<Option<Job>> {
        finished::finished_job(&self.table(schema::JOBS)?, id)
    }

    fn call_count(&mut self) -> Result<u64> {
        let open = self.table(schema::BILLING_OPEN)?.len()?;
        Ok(self.table(schema::CALLS)?.len()?.saturating_sub(open))
    }

    fn calls_after(&mut self, seq: u64, limit: usize) -> Result<Vec<Logged>> {
        finished::log_after(&self.table(schema::CALLS)?, seq, limit)
    }
}

impl Transaction<'_> {
    /// Puts a job where retention looks for it, if anything of it may go.
    pub(super) fn shelve(&mut self, job: &Job) -> Result<()> {
        let Some(key) = schema::finished_key_of(job) else {
            return Ok(());
        };
        let bonds = finished::bonds(
            &self.table(schema::BILLING_OPEN)?,
            &self.table(schema::CALLS_BY_JOB)?,
            &self.table(schema::DELIVERIES_OPEN)?,
            job.id,
        )?;
        if let Some(kind) = FinishedKind::of(job, bonds) {
            self.set(schema::kind(kind), &key, &job.id.as_bytes());
        }
        Ok(())
    }

    /// Takes a job from where it stood.
    pub(super) fn unshelve(&mut self, key: &[u8; 17]) {
        for kind in FinishedKind::ALL {
            self.remove(schema::kind(kind), key);
        }
    }

    pub(super) fn take_job(&mut self, job: &Job) -> Result<u64> {
        self.write_changed()?;
        self.counters.jobs.removed(job.status);
        self.remove(schema::JOBS, job.id.as_bytes());
        let bytes = self.take_bodies(job)?;
        let key = schema::line_key(job.status, job.seq);
        self.remove(schema::LINE, &key);
        if let Some(key) = schema::finished_key_of(job) {
            self.unshelve(&key);
        }
        Ok(bytes)
    }

    pub(super) fn strip(&mut self, job: &Job) -> Result<u64> {
        self.write_changed()?;
        let bytes = self.take_bodies(job)?;
        if let Some(key) = schema::finished_key_of(job) {
            self.unshelve(&key);
        }
        self.put(&Job {
            bodies_pruned: true,
            ..job.clone()
        })?;
        Ok(bytes)
    }

    pub(super) fn take_call(&mut self, call: &CallRecord) {
        self.remove(schema::CALLS, call.seq);
        let key = schema::call_key(call.job_id, call.attempt);
        self.remove(schema::CALLS_BY_JOB, &key);
        let until = &mut self.counters.calls_pruned_until;
        *until = (*until).max(Some(call.day()));
    }

    fn take_bodies(&mut self, job: &Job) -> Result<u64> {
        let id = job.id.as_bytes();
        let response = self.get(schema::RESPONSES, id)?;
        let mut bytes = response.map_or(0, |row| row.value().len() as u64);
        self.remove(schema::RESPONSES, id);
        // One that can't be read keeps no job: it goes with the others of its row, or stays.
        let without = match job.bodies_pruned {
            true => None,
            false => finished::readable(self.requests()?.without(job.seq))?.flatten(),
        };
        if let Some(Without {
            key,
            rest,
            bytes: gone,
        }) = without
        {
            bytes += gone;
            match rest {
                Some(rest) => self.set(schema::REQUESTS, key, &rest.as_slice()),
                None => self.remove(schema::REQUESTS, key),
            }
        }
        Ok(bytes)
    }
}
