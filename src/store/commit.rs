//! A batch as one write transaction. This path is hot: tables are opened once and only when
//! touched, every row is encoded once, and what changes often and is small (counters, usage) is
//! written once a transaction.

mod prune;
mod rows;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use onelane_core::life::effects::apply_batch;
use onelane_core::model::{Applied, FinishedKind, Transition};
use onelane_core::retention::{self as pruning};
use redb::{
    Database, Durability, Key, ReadableDatabase as _, ReadableTable as _, Table, TableDefinition,
    Value, WriteTransaction,
};
use serde::Serialize;

use super::StoreOptions;
use super::error::{FileError, Result};
use super::finished;
use super::schema::{self, Counters, LineRow, decode, encode, meta};
use crate::model::{
    Batch, BatchId, CallRecord, HookEndpoint, Job, JobId, JobStatus, UsageKey, UsageRow,
};
use crate::ports::Decisions;

/// Applies a batch and makes it durable. A batch that changes nothing costs no sync.
pub(super) fn commit(
    database: &Database,
    options: StoreOptions,
    batch: &[Transition],
) -> Result<Decisions> {
    if let [Transition::Prune(step)] = batch {
        // Nearly always nothing is to go: no reason to write.
        let snapshot = database.begin_read()?;
        let looked = pruning::look(&mut finished::Snapshot(&snapshot), step)?.pruned;
        if looked.is_nothing() {
            return Ok(vec![Ok(Applied::Pruned(looked))]);
        }
    }
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(options.quick_repair);
    // The tables are closed before the transaction ends.
    let effects = {
        let mut rows = Transaction::begin(&transaction)?;
        let effects = apply_batch(&mut rows, batch)?;
        if effects.changed {
            rows.finish()?;
        }
        effects
    };
    if effects.changed {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(effects.decisions)
}

/// A table that is opened when it is first touched.
struct Lazy<'t, K: Key + 'static, V: Value + 'static> {
    transaction: &'t WriteTransaction,
    definition: TableDefinition<'static, K, V>,
    table: Option<Table<'t, K, V>>,
}

impl<'t, K: Key, V: Value> Lazy<'t, K, V> {
    const fn new(
        transaction: &'t WriteTransaction,
        definition: TableDefinition<'static, K, V>,
    ) -> Self {
        Self {
            transaction,
            definition,
            table: None,
        }
    }

    fn open(&mut self) -> Result<&mut Table<'t, K, V>> {
        match &mut self.table {
            Some(table) => Ok(table),
            closed => Ok(closed.insert(self.transaction.open_table(self.definition)?)),
        }
    }
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
type Id = &'static [u8; 16];

/// A job as the batch has left it so far.
struct Changed {
    /// The status under which its place in line is stored; `None`: it is new.
    stored_as: Option<JobStatus>,
    /// Its key among the finished jobs, if it is stored as one.
    finished_as: Option<[u8; 17]>,
    job: Job,
}

struct Transaction<'t> {
    meta: Lazy<'t, &'static str, Bytes>,
    jobs: Lazy<'t, Id, Bytes>,
    requests: Lazy<'t, Id, Bytes>,
    responses: Lazy<'t, Id, Bytes>,
    line: Lazy<'t, &'static [u8; 9], Bytes>,
    idempotency: Lazy<'t, &'static [u8; 32], Bytes>,
    calls: Lazy<'t, u64, Bytes>,
    calls_by_job: Lazy<'t, &'static [u8; 20], u64>,
    billing_open: Lazy<'t, u64, ()>,
    dependents: Lazy<'t, &'static [u8; 32], ()>,
    finished: Lazy<'t, &'static [u8; 17], Id>,
    dead_letters: Lazy<'t, &'static [u8; 17], Id>,
    in_doubt: Lazy<'t, &'static [u8; 17], Id>,
    usage: Lazy<'t, &'static [u8; 20], Bytes>,
    batches: Lazy<'t, u64, Bytes>,
    audit: Lazy<'t, Id, Bytes>,
    client_keys: Lazy<'t, u64, Bytes>,
    inputs: Lazy<'t, u64, Bytes>,
    files: Lazy<'t, Id, Bytes>,
    file_parts: Lazy<'t, &'static [u8; 20], Bytes>,
    deliveries: Lazy<'t, u64, Bytes>,
    deliveries_pending: Lazy<'t, &'static [u8; 32], ()>,
    deliveries_open: Lazy<'t, &'static [u8; 24], ()>,
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
    /// Jobs of which something else may go than before, since it is known what was billed or told.
    unbound: BTreeSet<JobId>,
    singles: Singles,
    /// Where rows are encoded, one after the other.
    row: Vec<u8>,
}

impl<'t> Transaction<'t> {
    fn begin(transaction: &'t WriteTransaction) -> Result<Self> {
        let mut meta = Lazy::new(transaction, schema::META);
        let counters: Counters = match meta.open()?.get(meta::COUNTERS)? {
            Some(row) => decode("meta", row.value())?,
            None => return Err(FileError::damaged("meta", "the counters are missing")),
        };
        Ok(Self {
            meta,
            jobs: Lazy::new(transaction, schema::JOBS),
            requests: Lazy::new(transaction, schema::REQUESTS),
            responses: Lazy::new(transaction, schema::RESPONSES),
            line: Lazy::new(transaction, schema::LINE),
            idempotency: Lazy::new(transaction, schema::IDEMPOTENCY),
            calls: Lazy::new(transaction, schema::CALLS),
            calls_by_job: Lazy::new(transaction, schema::CALLS_BY_JOB),
            billing_open: Lazy::new(transaction, schema::BILLING_OPEN),
            dependents: Lazy::new(transaction, schema::DEPENDENTS),
            finished: Lazy::new(transaction, schema::FINISHED),
            dead_letters: Lazy::new(transaction, schema::DEAD_LETTERS),
            in_doubt: Lazy::new(transaction, schema::IN_DOUBT),
            usage: Lazy::new(transaction, schema::USAGE),
            batches: Lazy::new(transaction, schema::BATCHES),
            audit: Lazy::new(transaction, schema::AUDIT),
            client_keys: Lazy::new(transaction, schema::CLIENT_KEYS),
            inputs: Lazy::new(transaction, schema::BATCH_INPUTS),
            files: Lazy::new(transaction, schema::FILES),
            file_parts: Lazy::new(transaction, schema::FILE_PARTS),
            deliveries: Lazy::new(transaction, schema::DELIVERIES),
            deliveries_pending: Lazy::new(transaction, schema::DELIVERIES_PENDING),
            deliveries_open: Lazy::new(transaction, schema::DELIVERIES_OPEN),
            endpoints: None,
            counted_before: counters,
            counters,
            usage_rows: BTreeMap::new(),
            touched: BTreeMap::new(),
            changed: BTreeMap::new(),
            unbound: BTreeSet::new(),
            singles: Singles::default(),
            row: Vec::with_capacity(1_024),
        })
    }

    /// Writes the rows that were kept back until the end of the batch.
    fn finish(mut self) -> Result<()> {
        self.write_changed()?;
        for (key, row) in &self.usage_rows {
            encode(&mut self.row, row)?;
            self.usage.open()?.insert(key, self.row.as_slice())?;
        }
        for (id, batch) in &self.touched {
            match batch {
                Some(batch) => {
                    encode(&mut self.row, batch)?;
                    self.batches
                        .open()?
                        .insert(id.number(), self.row.as_slice())?;
                }
                None => drop(self.batches.open()?.remove(id.number())?),
            }
        }
        let meta = self.meta.open()?;
        if self.counters != self.counted_before {
            encode(&mut self.row, &self.counters)?;
            meta.insert(meta::COUNTERS, self.row.as_slice())?;
        }
        let Singles {
            released,
            lane,
            breaker,
            config,
            clock,
            alerts,
            endpoints,
        } = self.singles;
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
                meta.insert(name, value.as_slice())?;
            }
        }
        Ok(())
    }

    /// Writes the jobs that the batch has changed so far.
    fn write_changed(&mut self) -> Result<()> {
        for changed in std::mem::take(&mut self.changed).into_values() {
            let Changed {
                stored_as,
                finished_as,
                job,
            } = changed;
            if let Some(before) = stored_as.filter(|before| *before != job.status) {
                let key = schema::line_key(before, job.seq);
                self.line.open()?.remove(&key)?;
            }
            if let Some(key) = finished_as {
                self.unshelve(&key)?;
            }
            self.put(&job)?;
            self.unbound.remove(&job.id);
        }
        for id in std::mem::take(&mut self.unbound) {
            let Some(job) = finished::finished_job(self.jobs.open()?, id)? else {
                continue;
            };
            if let Some(key) = schema::finished_key_of(&job) {
                self.unshelve(&key)?;
                self.shelve(&job)?;
            }
        }
        Ok(())
    }

    fn kind(&mut self, kind: FinishedKind) -> Result<&mut Table<'t, &'static [u8; 17], Id>> {
        match kind {
            FinishedKind::Done => self.finished.open(),
            FinishedKind::Failed => self.dead_letters.open(),
            FinishedKind::InDoubt => self.in_doubt.open(),
        }
    }

    /// The usage of a call's day, model and user, as the batch has left it so far.
    fn usage_row(&mut self, call: &CallRecord) -> Result<&mut UsageRow> {
        let of = UsageKey::of(call);
        match self.usage_rows.entry(schema::usage_key(&of)) {
            Entry::Occupied(row) => Ok(row.into_mut()),
            Entry::Vacant(vacant) => {
                let row = match self.usage.open()?.get(vacant.key())? {
                    Some(row) => decode("usage", row.value())?,
                    None => UsageRow::empty(of),
                };
                Ok(vacant.insert(row))
            }
        }
    }

    /// Writes a job and its place among those of its status.
    fn put(&mut self, job: &Job) -> Result<()> {
        encode(&mut self.row, job)?;
        let jobs = self.jobs.open()?;
        jobs.insert(job.id.as_bytes(), self.row.as_slice())?;
        encode(&mut self.row, &LineRow::of(job))?;
        let key = schema::line_key(job.status, job.seq);
        self.line.open()?.insert(&key, self.row.as_slice())?;
        self.shelve(job)
    }

    /// A job as it is in its table.
    fn stored(&mut self, id: JobId) -> Result<Option<Job>> {
        let row = self.jobs.open()?.get(id.as_bytes())?;
        row.map(|row| decode("jobs", row.value())).transpose()
    }
}

fn encoded<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    let mut row = Vec::new();
    encode(&mut row, value)?;
    Ok(row)
}
