//! What retention asks of the tables: the oldest rows, and that some go.

use std::ops::Bound;

use onelane_actors::policy::prune::{Bodies, Finished};
use redb::{ReadableTable as _, ReadableTableMetadata as _};

use super::Transaction;
use crate::model::{AttemptNo, CallRecord, Job, JobId};
use crate::store::error::Result;
use crate::store::schema::{self, decode_call};

impl Transaction<'_> {
    pub(super) fn finished_places(
        &mut self,
        bodies: Bodies,
        after: Option<Finished>,
        limit: usize,
    ) -> Result<Vec<Finished>> {
        self.write_changed()?;
        let first = match &after {
            Some(place) => Bound::Excluded(schema::finished_key(bodies, place)),
            None => Bound::Included(schema::finished_from(bodies)),
        };
        let range = (
            first.as_ref(),
            Bound::Included(&schema::finished_to(bodies)),
        );
        let table = self.finished.open()?;
        let mut finished = Vec::new();
        for item in table.range::<&[u8; 17]>(range)?.take(limit) {
            let (key, id) = item?;
            finished.push(schema::finished_of(key.value(), id.value()));
        }
        Ok(finished)
    }

    pub(super) fn finds_open_billing(&mut self, id: JobId) -> Result<bool> {
        if self.billing_open.open()?.is_empty()? {
            return Ok(false);
        }
        let first = schema::call_key(id, AttemptNo(0));
        let last = schema::call_key(id, AttemptNo(u32::MAX));
        let open = self.billing_open.open()?;
        let by_job = self.calls_by_job.open()?;
        for item in by_job.range::<&[u8; 20]>(&first..=&last)? {
            if open.get(item?.1.value())?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn take_job(&mut self, job: &Job) -> Result<()> {
        self.counters.removed(job.status);
        self.jobs.open()?.remove(job.id.as_bytes())?;
        self.take_bodies(job.id)?;
        let key = schema::line_key(job.status, job.seq);
        self.line.open()?.remove(&key)?;
        if let Some(key) = schema::finished_key_of(job) {
            self.finished.open()?.remove(&key)?;
        }
        Ok(())
    }

    pub(super) fn strip(&mut self, job: &Job) -> Result<()> {
        self.take_bodies(job.id)?;
        if let Some(key) = schema::finished_key_of(job) {
            self.finished.open()?.remove(&key)?;
        }
        self.put(&Job {
            bodies_pruned: true,
            ..job.clone()
        })
    }

    pub(super) fn log_after(&mut self, seq: u64, limit: usize) -> Result<Vec<CallRecord>> {
        let after = (Bound::Excluded(seq), Bound::Unbounded);
        let mut found = Vec::new();
        for item in self.calls.open()?.range::<u64>(after)?.take(limit) {
            let (seq, row) = item?;
            found.push(decode_call(seq.value(), row.value())?);
        }
        Ok(found)
    }

    pub(super) fn take_call(&mut self, call: &CallRecord) -> Result<()> {
        self.calls.open()?.remove(call.seq)?;
        let key = schema::call_key(call.job_id, call.attempt);
        self.calls_by_job.open()?.remove(&key)?;
        let until = &mut self.counters.calls_pruned_until;
        *until = (*until).max(Some(call.day()));
        Ok(())
    }

    fn take_bodies(&mut self, id: JobId) -> Result<()> {
        self.requests.open()?.remove(id.as_bytes())?;
        self.responses.open()?.remove(id.as_bytes())?;
        Ok(())
    }
}
