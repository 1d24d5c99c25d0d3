//! A batch as the rows that it changes. This path is hot: every row is encoded once, and what changes often and
//! is small (counters, usage) is written once a transaction.

mod prune;
mod rows;

use std::borrow::Borrow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use onelane_core::life::effects::apply_batch;
use onelane_core::model::{Applied, Transition};
use onelane_core::retention::{self as pruning};
use serde::Serialize;

use super::error::{FileError, Result};
use super::finished;
use super::job;
use super::line::LineRow;
use super::recent::RecentJobs;
use super::requests::Requests;
use super::schema::{self, Counters, decode, encode, meta};
use super::state::{Found, Merged, State};
use super::tables::{RowId, RowKey, RowValue, Rows, Table};
use crate::model::{
    Batch, BatchId, CallRecord, HookEndpoint, Job, JobId, JobStatus, UsageKey, UsageRow,
};
use crate::ports::Decisions;

/// Applies a batch to a state: what was decided, and the rows that are to be made durable. A batch that
/// changes nothing has none, and costs no sync.
pub(super) fn apply(state: &State, batch: &[Transition]) -> Result<(Decisions, Option<Rows>)> {
    if let [Transition::Prune(step)] = batch {
        // Nearly always nothing is to go: no reason to write.
        let looked = pruning::look(&mut finished::Snapshot(state), step)?.pruned;
        if looked.is_nothing() {
            return Ok((vec![Ok(Applied::Pruned(looked))], None));
        }
    }
    let mut rows = Transaction::begin(state)?;
    let effects = apply_batch(&mut rows, batch)?;
    let own = match effects.changed {
        true => Some(rows.finish()?),
        false => None,
    };
    Ok((effects.decisions, own))
}

/// The small values that a transaction sets, each at most once, however often a batch does.
#[derive(Default)]
struct Singles {
    released: Option<Vec<u8>>,
    lane: Option<Vec<u8>>,
    breaker: Option<Vec<u8>>,
    config: Option<Vec<u8>>,
    clock: Option<Vec<u8>>,
    alerts: Option<Vec<u8>>,
    endpoints: Option<Vec<u8>>,
}

type Bytes = &'static [u8];

/// A job as the batch has left it so far.
struct Changed {
    /// The status under which its place in line is stored; `None`: it is new.
    stored_as: Option<JobStatus>,
    /// Its key among the finished jobs, if it is stored as one.
    finished_as: Option<[u8; 17]>,
    job: Arc<Job>,
}

struct Transaction<'v> {
    state: &'v State,
    /// What the batch has written so far.
    own: Rows,
    /// The endpoints, once the end of a job asked for them.
    endpoints: Option<Arc<[HookEndpoint]>>,
    counted_before: Counters,
    counters: Counters,
    usage_rows: BTreeMap<[u8; 20], UsageRow>,
    /// Batches that the batch of changes has touched; `None`: it is gone.
    touched: BTreeMap<BatchId, Option<Batch>>,
    /// Jobs that the batch changed: with short calls one batch holds several changes of a job, and
    /// its row is written once.
    changed: BTreeMap<JobId, Changed>,
    /// Behind it no job was stored before the batch; `None`: nobody has asked.
    last_job: Option<RowId>,
    /// Jobs of which something else may go than before, since it is known what was billed or told.
    unbound: BTreeSet<JobId>,
    singles: Singles,
    /// Where rows are encoded, one after the other.
    row: Vec<u8>,
}

impl<'v> Transaction<'v> {
    fn begin(state: &'v State) -> Result<Self> {
        let own = Rows::new();
        let row = state.get_under(schema::META, &own, meta::COUNTERS)?;
        let counters: Counters = match row {
            Some(row) => decode("meta", row.value())?,
            None => return Err(FileError::damaged("meta", "the counters are missing")),
        };
        Ok(Self {
            state,
            own,
            endpoints: None,
            counted_before: counters,
            counters,
            usage_rows: BTreeMap::new(),
            touched: BTreeMap::new(),
            changed: BTreeMap::new(),
            last_job: None,
            unbound: BTreeSet::new(),
            singles: Singles::default(),
            row: Vec::with_capacity(1_024),
        })
    }

    /// A table as the batch has left it so far.
    fn table<K: RowKey, V: RowValue>(&self, table: Table<K, V>) -> Result<Merged<'_, K, V>> {
        self.state.under(table, &self.own)
    }

    /// A row as the batch has left it so far.
    fn get<'k, K: RowKey, V: RowValue>(
        &self,
        table: Table<K, V>,
        key: impl Borrow<K::SelfType<'k>>,
    ) -> Result<Option<Found<V>>> {
        self.state.get_under(table, &self.own, key)
    }

    /// Writes a value.
    fn set<'k, K: RowKey, V: RowValue>(
        &mut self,
        table: Table<K, V>,
        key: impl Borrow<K::SelfType<'k>>,
        value: &V::SelfType<'_>,
    ) {
        let row = Arc::from(V::as_bytes(value).as_ref());
        self.own.insert(table.row(key.borrow()), Some(row));
    }

    /// Writes a row.
    fn set_row<'k, K: RowKey, T: Serialize + ?Sized>(
        &mut self,
        table: Table<K, Bytes>,
        key: impl Borrow<K::SelfType<'k>>,
        row: &T,
    ) -> Result<()> {
        encode(&mut self.row, row)?;
        let row = Arc::from(self.row.as_slice());
        self.own.insert(table.row(key.borrow()), Some(row));
        Ok(())
    }

    /// Removes a row, if there is one.
    fn remove<'k, K: RowKey, V: RowValue>(
        &mut self,
        table: Table<K, V>,
        key: impl Borrow<K::SelfType<'k>>,
    ) {
        self.own.insert(table.row(key.borrow()), None);
    }

    /// What the batch has written, with the rows that were kept back until its end.
    fn finish(mut self) -> Result<Rows> {
        self.write_changed()?;
        for (key, row) in std::mem::take(&mut self.usage_rows) {
            self.set_row(schema::USAGE, &key, &row)?;
        }
        for (id, batch) in std::mem::take(&mut self.touched) {
            match batch {
                Some(batch) => self.set_row(schema::BATCHES, id.number(), &batch)?,
                None => self.remove(schema::BATCHES, id.number()),
            }
        }
        if self.counters != self.counted_before {
            let counters = self.counters;
            self.set_row(schema::META, meta::COUNTERS, &counters)?;
        }
        let Singles {
            released,
            lane,
            breaker,
            config,
            clock,
            alerts,
            endpoints,
        } = std::mem::take(&mut self.singles);
        let singles = [
            (meta::RELEASED, released),
            (meta::LANE, lane),
            (meta::BREAKER, breaker),
            (meta::CONFIG, config),
            (meta::CLOCK, clock),
            (meta::ALERTS, alerts),
            (meta::ENDPOINTS, endpoints),
        ];
        for (name, value) in singles {
            if let Some(value) = value {
                self.set(schema::META, name, &value.as_slice());
            }
        }
        Ok(self.own)
    }

    /// Writes the jobs that the batch has changed so far.
    fn write_changed(&mut self) -> Result<()> {
        let changed = std::mem::take(&mut self.changed);
        let are_few = RecentJobs::has_room(changed.len());
        for changed in changed.into_values() {
            let Changed {
                stored_as,
                finished_as,
                job,
            } = changed;
            if let Some(before) = stored_as.filter(|before| *before != job.status) {
                self.remove(schema::LINE, &schema::line_key(before, job.seq));
            }
            if let Some(key) = finished_as {
                self.unshelve(&key);
            }
            let row = self.put(&job)?;
            self.unbound.remove(&job.id);
            if are_few {
                debug_assert!(is_read_as(&row, &job), "{job:?}");
                self.state.recent().keep(&row, job);
            }
        }
        for id in std::mem::take(&mut self.unbound) {
            let Some(job) = finished::finished_job(&self.table(schema::JOBS)?, id)? else {
                continue;
            };
            if let Some(key) = schema::finished_key_of(&job) {
                self.unshelve(&key);
                self.shelve(&job)?;
            }
        }
        Ok(())
    }

    /// The usage of a call's day, model and user, as the batch has left it so far.
    fn usage_row(&mut self, call: &CallRecord) -> Result<&mut UsageRow> {
        let of = UsageKey::of(call);
        match self.usage_rows.entry(schema::usage_key(&of)) {
            Entry::Occupied(row) => Ok(row.into_mut()),
            Entry::Vacant(vacant) => {
                let stored = self
                    .state
                    .get_under(schema::USAGE, &self.own, vacant.key())?;
                let row = match stored {
                    Some(row) => decode("usage", row.value())?,
                    None => UsageRow::empty(of),
                };
                Ok(vacant.insert(row))
            }
        }
    }

    /// Writes a job and its place among those of its status. Answers its row.
    fn put(&mut self, job: &Job) -> Result<Arc<[u8]>> {
        job::encode(&mut self.row, job)?;
        let written: Arc<[u8]> = Arc::from(self.row.as_slice());
        let id = schema::JOBS.row(&job.id.as_bytes());
        self.own.insert(id, Some(Arc::clone(&written)));
        let key = schema::line_key(job.status, job.seq);
        LineRow::of(job).encode(&mut self.row);
        let row = Arc::from(self.row.as_slice());
        self.own.insert(schema::LINE.row(&&key), Some(row));
        self.shelve(job)?;
        Ok(written)
    }

    /// The requests as the batch has left them so far.
    fn requests(&self) -> Result<Requests<'_>> {
        Ok(Requests::new(self.table(schema::REQUESTS)?))
    }

    /// Whether a job comes behind all that are stored: new ones do nearly always, and looking for each would cost more.
    fn is_new(&mut self, id: JobId) -> Result<bool> {
        let last = match self.last_job {
            Some(last) => last,
            None => *self.last_job.insert(self.state.last(schema::JOBS)?),
        };
        let row = schema::JOBS.row(&id.as_bytes());
        Ok(last < row && !self.own.contains_key(&row))
    }

    /// A job as it is in its table.
    fn stored(&mut self, id: JobId) -> Result<Option<Job>> {
        if self.is_new(id)? {
            return Ok(None);
        }
        let row = self.get(schema::JOBS, id.as_bytes())?;
        if let Some(Found::Above(row, _)) = &row
            && let Some(job) = self.state.recent().of(id, row)
        {
            return Ok(Some(Arc::unwrap_or_clone(job)));
        }
        row.map(|row| job::decode(id.as_bytes(), row.value()))
            .transpose()
    }
}

/// Whether a row is read as the job that it was written of.
fn is_read_as(row: &[u8], job: &Job) -> bool {
    let read = job::decode(job.id.as_bytes(), row);
    read.is_ok_and(|read| format!("{read:?}") == format!("{job:?}"))
}

fn encoded<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    let mut row = Vec::new();
    encode(&mut row, value)?;
    Ok(row)
}
