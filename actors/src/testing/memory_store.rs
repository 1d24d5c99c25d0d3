//! A store in memory that can be made to fail at a commit, before or after the change is "on disk",
//! so that tests reach the windows that a real disk opens only rarely.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ports::{
    CallFilter, CallPage, Decisions, DeliveriesOver, DeliveryFilter, DeliveryPage, JobFilter,
    JobPage, JobRecord, OverQuery, Recovered, StatusCounts, Store, StoreError, UsageFilter,
};
use onelane_core::life::effects::apply_batch;
use onelane_core::model::{
    AlertBook, AnswerBody, AttemptNo, AuditEntry, AuditId, Batch, BatchId, BatchInput, Billing,
    Bodies, Bonds, BreakerSnapshot, CallRecord, ClientKey, Delivery, DeliveryCounts, DeliveryId,
    DeliveryStatus, DuePlace, FileId, Fingerprint, Finished, FinishedKind, HookEndpoint, Job,
    JobId, JobStatus, KeyId, Received, Request, SchedulerState, Seq, StoredFile, Timestamp,
    Transition, UsageKey, UsageRow, limits,
};
use onelane_core::notify::delivery::{DueDeliveries, DueIndex, DueQuery, find};
use onelane_core::rows::{Finishes, Logged, Rows};

/// What is on disk after a commit that reported an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitFate {
    /// Nothing of the batch.
    Lost,
    /// All of it, although the committer was told otherwise.
    Kept,
}

/// The store. Clones share one state, as handles of one file would: a clone that a test keeps
/// survives the lane's, and opening "the file" again is another clone.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Clone, Default)]
struct Shared {
    disk: Disk,
    planned: VecDeque<(StoreError, CommitFate)>,
    failed: Option<StoreError>,
    commits: u64,
}

#[derive(Debug, Clone, Default)]
struct Disk {
    jobs: BTreeMap<JobId, JobRecord>,
    line: BTreeMap<Seq, JobId>,
    keys: BTreeMap<(String, String), (JobId, Fingerprint)>,
    dependents: BTreeMap<JobId, BTreeSet<JobId>>,
    calls: BTreeMap<u64, CallRecord>,
    usage: BTreeMap<UsageKey, UsageRow>,
    counts: StatusCounts,
    last_seq: Seq,
    last_call_seq: u64,
    released: Vec<JobId>,
    lane: SchedulerState,
    breaker: Option<BreakerSnapshot>,
    config: Option<String>,
    clock: Option<Timestamp>,
    alerts: AlertBook,
    endpoints: Vec<HookEndpoint>,
    deliveries: BTreeMap<DeliveryId, Delivery>,
    batches: BTreeMap<BatchId, Batch>,
    audit: BTreeMap<AuditId, AuditEntry>,
    client_keys: BTreeMap<KeyId, ClientKey>,
    inputs: BTreeMap<BatchId, BatchInput>,
    files: BTreeMap<FileId, StoredFile>,
    file_parts: BTreeMap<(FileId, u32), Vec<u8>>,
    last_delivery: DeliveryId,
}

/// What a lane reads of a store.
#[derive(Debug)]
pub struct Written<'s> {
    /// The jobs.
    pub jobs: &'s BTreeMap<JobId, JobRecord>,
    /// The call log.
    pub calls: &'s BTreeMap<u64, CallRecord>,
    /// The jobs whose staged attempts may have been sent.
    pub released: &'s [JobId],
    /// The lanes' state.
    pub lane: &'s SchedulerState,
    /// The breaker's.
    pub breaker: Option<&'s BreakerSnapshot>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next commit answer `error`, with what `fate` says on disk. Said several times, it
    /// is about the commits after that, one each. As the port asks, every commit then fails until
    /// [`Store::recover`].
    pub fn fail_next_commit(&self, error: StoreError, fate: CommitFate) {
        self.shared().planned.push_back((error, fate));
    }

    /// How many transactions have reached the disk.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.shared().commits
    }

    /// Another store, with what is in this one now.
    #[must_use]
    pub fn copied(&self) -> Self {
        let shared = Mutex::new(self.shared().clone());
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Shows what a lane reads of it: its jobs, its call log and what lanes and breaker wrote down.
    pub fn look<T>(&self, at: impl FnOnce(&Written<'_>) -> T) -> T {
        let disk = &self.shared().disk;
        at(&Written {
            jobs: &disk.jobs,
            calls: &disk.calls,
            released: &disk.released,
            lane: &disk.lane,
            breaker: disk.breaker.as_ref(),
        })
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn apply(&mut self, batch: &[Transition]) -> Decisions {
        let Ok(effects) = apply_batch(&mut self.disk, batch);
        self.commits += u64::from(effects.changed);
        effects.decisions
    }
}

impl Store for MemoryStore {
    fn commit(&self, batch: &[Transition]) -> Result<Decisions, StoreError> {
        let mut shared = self.shared();
        if let Some(error) = &shared.failed {
            return Err(error.clone());
        }
        let Some((error, fate)) = shared.planned.pop_front() else {
            return Ok(shared.apply(batch));
        };
        if fate == CommitFate::Kept {
            shared.apply(batch);
        }
        shared.failed = Some(error.clone());
        Err(error)
    }

    fn recover(&self) -> Result<Recovered, StoreError> {
        let mut shared = self.shared();
        shared.failed = None;
        let disk = &shared.disk;
        let mut recovered = Recovered {
            lane: disk.lane.clone(),
            breaker: disk.breaker.clone(),
            released: disk.released.clone(),
            ..Recovered::default()
        };
        for job in disk.in_line().map(|record| &record.job) {
            match (job.status, job.open) {
                (JobStatus::Pending, None) => {
                    recovered.waiting.insert(&job.entry());
                }
                (JobStatus::Pending | JobStatus::Processing, _) => {
                    recovered.open.push(job.clone());
                }
                _ => {}
            }
        }
        Ok(recovered)
    }

    fn job(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        Ok(self.shared().disk.jobs.get(&id).cloned())
    }

    fn jobs(
        &self,
        filter: &JobFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<JobPage, StoreError> {
        let shared = self.shared();
        let mut page = JobPage::default();
        let mut bytes = 0;
        for record in shared.disk.in_line().rev() {
            let job = &record.job;
            if !filter.matches(job.status, &job.user_id, &job.model) || !filter.more.matches(job) {
                continue;
            }
            page.total += 1;
            if cursor.is_some_and(|cursor| job.seq.0 > cursor) || page.cursor.is_some() {
                continue;
            }
            if page.jobs.len() < limit && bytes < limits::PAGE_BODY_BYTES_MAX {
                bytes += record.body_bytes();
                page.jobs.push(record.clone());
            } else {
                page.cursor = Some(job.seq.0);
            }
        }
        Ok(page)
    }

    fn calls(
        &self,
        filter: &CallFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<CallPage, StoreError> {
        let shared = self.shared();
        let mut page = CallPage::default();
        let from = ..=cursor.unwrap_or(u64::MAX);
        let is_gone_through = filter.job_id.is_none() && !filter.billing_open;
        for (looked_at, (seq, call)) in shared.disk.calls.range(from).rev().enumerate() {
            let is_enough = is_gone_through && looked_at == limits::CALLS_LOOKED_AT_MAX;
            if !filter.matches(call) && !is_enough {
                continue;
            }
            if page.calls.len() == limit || is_enough {
                page.cursor = Some(*seq);
                break;
            }
            page.calls.push(call.clone());
        }
        Ok(page)
    }

    fn usage(&self, filter: &UsageFilter) -> Result<Vec<UsageRow>, StoreError> {
        let shared = self.shared();
        let rows = shared.disk.usage.values();
        Ok(rows
            .filter(|row| filter.matches(&row.key))
            .cloned()
            .collect())
    }

    fn counts(&self) -> Result<StatusCounts, StoreError> {
        Ok(self.shared().disk.counts)
    }

    fn batch(&self, id: BatchId) -> Result<Option<Batch>, StoreError> {
        Ok(self.shared().disk.batches.get(&id).cloned())
    }

    fn audit(&self, before: Option<AuditId>, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let shared = self.shared();
        let rows = shared.disk.audit.values().rev();
        let older = rows.filter(|entry| before.is_none_or(|before| entry.id < before));
        Ok(older.take(limit).cloned().collect())
    }

    fn client_keys(&self) -> Result<Vec<ClientKey>, StoreError> {
        Ok(self.shared().disk.client_keys.values().cloned().collect())
    }

    fn batches(&self, after: Option<BatchId>, limit: usize) -> Result<Vec<Batch>, StoreError> {
        let shared = self.shared();
        let batches = shared.disk.batches.values();
        let later = batches.filter(|batch| after.is_none_or(|after| batch.id > after));
        Ok(later.take(limit).cloned().collect())
    }

    fn batch_input(&self, id: BatchId) -> Result<Option<BatchInput>, StoreError> {
        Ok(self.shared().disk.inputs.get(&id).cloned())
    }

    fn batch_inputs(
        &self,
        after: Option<BatchId>,
        limit: usize,
    ) -> Result<Vec<BatchInput>, StoreError> {
        let shared = self.shared();
        let inputs = shared.disk.inputs.values();
        let later = inputs.filter(|input| after.is_none_or(|after| input.id > after));
        Ok(later.take(limit).cloned().collect())
    }

    fn file(&self, id: FileId) -> Result<Option<StoredFile>, StoreError> {
        Ok(self.shared().disk.files.get(&id).cloned())
    }

    fn files(&self, after: Option<FileId>, limit: usize) -> Result<Vec<StoredFile>, StoreError> {
        let shared = self.shared();
        let files = shared.disk.files.values();
        let later = files.filter(|file| after.is_none_or(|after| file.id > after));
        Ok(later.take(limit).cloned().collect())
    }

    fn file_part(&self, id: FileId, number: u32) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.shared().disk.file_parts.get(&(id, number)).cloned())
    }

    fn deliveries_due(&self, query: &DueQuery) -> Result<DueDeliveries, StoreError> {
        let shared = self.shared();
        let rows = &shared.disk.deliveries;
        let places = rows.values().filter_map(Delivery::place).collect();
        let Ok(found) = find(&mut Due { rows, places }, query);
        Ok(found)
    }

    fn deliveries(
        &self,
        filter: &DeliveryFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<DeliveryPage, StoreError> {
        let shared = self.shared();
        let from = ..=DeliveryId(cursor.unwrap_or(u64::MAX));
        let mut page = DeliveryPage::default();
        let rows = shared.disk.deliveries.range(from).rev();
        for (id, row) in rows.filter(|(_, row)| filter.matches(row)) {
            if page.deliveries.len() == limit {
                page.cursor = Some(id.0);
                break;
            }
            page.deliveries.push(row.clone());
        }
        Ok(page)
    }

    fn deliveries_over(&self, mut query: OverQuery) -> Result<DeliveriesOver, StoreError> {
        let shared = self.shared();
        let mut rows = shared.disk.deliveries.range(query.from..);
        let mut over = DeliveriesOver::default();
        for (_, row) in rows.by_ref().take(query.look_at) {
            query.look(row.clone(), &mut over);
        }
        over.next = rows.next().map(|(id, _)| *id);
        Ok(over)
    }

    fn delivery_counts(&self) -> Result<DeliveryCounts, StoreError> {
        let mut counts = DeliveryCounts::default();
        for row in self.shared().disk.deliveries.values() {
            counts.moved(None, Some(row.status));
        }
        Ok(counts)
    }

    fn endpoints(&self) -> Result<Vec<HookEndpoint>, StoreError> {
        Ok(self.shared().disk.endpoints.clone())
    }

    fn alerts(&self) -> Result<AlertBook, StoreError> {
        Ok(self.shared().disk.alerts.clone())
    }

    fn config(&self) -> Result<Option<String>, StoreError> {
        Ok(self.shared().disk.config.clone())
    }

    fn clock(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.shared().disk.clock)
    }
}

impl Disk {
    fn in_line(&self) -> impl DoubleEndedIterator<Item = &JobRecord> {
        self.line.values().filter_map(|id| self.jobs.get(id))
    }

    fn on_shelf(&self, kind: FinishedKind) -> impl Iterator<Item = &Job> {
        let jobs = self.jobs.values().map(|record| &record.job);
        jobs.filter(move |job| FinishedKind::of(job, self.bonds(job.id)) == Some(kind))
    }

    fn bonds(&self, id: JobId) -> Bonds {
        let mut calls = self.calls.values();
        let mut deliveries = self.deliveries.values();
        Bonds {
            billing: calls.any(|call| call.job_id == id && call.is_billing_open()),
            notices: deliveries
                .any(|row| row.status == DeliveryStatus::Pending && row.job_id == Some(id)),
        }
    }
}

/// The pending deliveries in the order of their places.
struct Due<'d> {
    rows: &'d BTreeMap<DeliveryId, Delivery>,
    places: BTreeSet<DuePlace>,
}

impl DueIndex for Due<'_> {
    type Error = Infallible;

    fn from(&mut self, place: DuePlace) -> Result<Option<DuePlace>, Infallible> {
        Ok(self.places.range(place..).next().copied())
    }

    fn delivery(&mut self, id: DeliveryId) -> Result<Delivery, Infallible> {
        let Some(row) = self.rows.get(&id) else {
            unreachable!("the places are those of the rows")
        };
        Ok(row.clone())
    }
}

impl Finishes for Disk {
    // Every row that is asked for was written, and memory does not fail.
    type Error = Infallible;

    fn finished_count(&mut self, kind: FinishedKind) -> Result<u64, Infallible> {
        Ok(self.on_shelf(kind).count() as u64)
    }

    fn finished(
        &mut self,
        kind: FinishedKind,
        bodies: Bodies,
        after: Option<Finished>,
        limit: usize,
    ) -> Result<Vec<Finished>, Infallible> {
        let of_such = |job: &&Job| job.bodies_pruned == (bodies == Bodies::Pruned);
        let finished = self.on_shelf(kind).filter(of_such);
        let finished = finished.filter_map(Finished::of);
        let mut finished: Vec<_> = finished.filter(|place| Some(*place) > after).collect();
        finished.sort_unstable();
        finished.truncate(limit);
        Ok(finished)
    }

    fn finished_job(&mut self, id: JobId) -> Result<Option<Job>, Infallible> {
        self.job(id)
    }

    fn call_count(&mut self) -> Result<u64, Infallible> {
        let settled = self.calls.values().filter(|call| !call.is_billing_open());
        Ok(settled.count() as u64)
    }

    fn calls_after(&mut self, seq: u64, limit: usize) -> Result<Vec<Logged>, Infallible> {
        let rows = self.calls.range(seq + 1..).take(limit);
        let logged = |(seq, call): (&u64, &CallRecord)| Logged {
            seq: *seq,
            call: Some(call.clone()),
        };
        Ok(rows.map(logged).collect())
    }
}

impl Rows for Disk {
    fn job(&mut self, id: JobId) -> Result<Option<Job>, Infallible> {
        Ok(self.jobs.get(&id).map(|record| record.job.clone()))
    }

    fn request(&mut self, job: &Job) -> Result<Arc<Request>, Infallible> {
        let Some(record) = self.jobs.get(&job.id) else {
            unreachable!("a request is asked for only after its job was read")
        };
        let Some(request) = &record.request else {
            unreachable!("a job whose request was pruned is not sent again")
        };
        Ok(Arc::clone(request))
    }

    fn keyed(
        &mut self,
        scope: &str,
        key: &str,
    ) -> Result<Option<(JobId, Fingerprint)>, Infallible> {
        let key = (scope.to_owned(), key.to_owned());
        Ok(self.keys.get(&key).copied())
    }

    fn pending(&self) -> u64 {
        self.counts.pending
    }

    fn next_seq(&mut self) -> Seq {
        self.last_seq.0 += 1;
        self.last_seq
    }

    fn insert(&mut self, job: &Arc<Job>, request: &Request) -> Result<(), Infallible> {
        self.counts.moved(None, job.status);
        self.line.insert(job.seq, job.id);
        let record = JobRecord {
            job: job.as_ref().clone(),
            request: Some(Arc::new(request.clone())),
            response: None,
            refusal: None,
        };
        self.jobs.insert(job.id, record);
        Ok(())
    }

    fn insert_key(
        &mut self,
        scope: &str,
        key: &str,
        job: JobId,
        fingerprint: Fingerprint,
    ) -> Result<(), Infallible> {
        let key = (scope.to_owned(), key.to_owned());
        self.keys.insert(key, (job, fingerprint));
        Ok(())
    }

    fn update(&mut self, before: JobStatus, job: &Job) -> Result<(), Infallible> {
        self.counts.moved(Some(before), job.status);
        if let Some(record) = self.jobs.get_mut(&job.id) {
            record.job = job.clone();
        }
        Ok(())
    }

    fn insert_dependent(&mut self, id: JobId, dependent: JobId) -> Result<(), Infallible> {
        self.dependents.entry(id).or_default().insert(dependent);
        Ok(())
    }

    fn take_dependents(&mut self, id: JobId) -> Result<Vec<JobId>, Infallible> {
        let taken = self.dependents.remove(&id).unwrap_or_default();
        Ok(taken.into_iter().collect())
    }

    fn call(&mut self, id: JobId, attempt: AttemptNo) -> Result<Option<CallRecord>, Infallible> {
        let mut calls = self.calls.values();
        Ok(calls
            .find(|c| c.job_id == id && c.attempt == attempt)
            .cloned())
    }

    fn resolve_call(&mut self, call: &CallRecord, billing: &Billing) -> Result<(), Infallible> {
        if let Some(row) = self.calls.get_mut(&call.seq) {
            row.billing = Some(billing.clone());
        }
        if let Some(row) = self.usage.get_mut(&UsageKey::of(call)) {
            row.resolve(billing);
        }
        Ok(())
    }

    fn put_response(&mut self, id: JobId, response: &AnswerBody) -> Result<(), Infallible> {
        if let Some(record) = self.jobs.get_mut(&id) {
            record.response = Some(response.clone());
        }
        Ok(())
    }

    fn put_refusal(&mut self, id: JobId, refusal: &Arc<Received>) -> Result<(), Infallible> {
        if let Some(record) = self.jobs.get_mut(&id) {
            record.refusal = Some(Arc::clone(refusal));
        }
        Ok(())
    }

    fn remove_response(&mut self, id: JobId) -> Result<(), Infallible> {
        if let Some(record) = self.jobs.get_mut(&id) {
            record.response = None;
            record.refusal = None;
        }
        Ok(())
    }

    fn log_call(&mut self, call: &CallRecord) -> Result<(), Infallible> {
        self.last_call_seq += 1;
        let seq = self.last_call_seq;
        let call = CallRecord {
            seq,
            ..call.clone()
        };
        let key = UsageKey::of(&call);
        let row = self.usage.entry(key);
        row.or_insert_with_key(|key| UsageRow::empty(key.clone()))
            .add(&call);
        self.calls.insert(seq, call);
        Ok(())
    }

    fn remove_job(&mut self, job: &Job) -> Result<u64, Infallible> {
        self.counts.removed(job.status);
        self.line.remove(&job.seq);
        let record = self.jobs.remove(&job.id);
        Ok(record.map_or(0, |record| record.body_bytes() as u64))
    }

    fn remove_bodies(&mut self, job: &Job) -> Result<u64, Infallible> {
        let Some(record) = self.jobs.get_mut(&job.id) else {
            return Ok(0);
        };
        let bytes = record.body_bytes() as u64;
        record.job.bodies_pruned = true;
        record.request = None;
        record.response = None;
        record.refusal = None;
        Ok(bytes)
    }

    fn remove_key(&mut self, scope: &str, key: &str, job: JobId) -> Result<(), Infallible> {
        let key = (scope.to_owned(), key.to_owned());
        if self
            .keys
            .get(&key)
            .is_some_and(|(holder, _)| *holder == job)
        {
            self.keys.remove(&key);
        }
        Ok(())
    }

    fn remove_dependent(&mut self, id: JobId, dependent: JobId) -> Result<(), Infallible> {
        if let Some(dependents) = self.dependents.get_mut(&id) {
            dependents.remove(&dependent);
        }
        Ok(())
    }

    fn remove_call(&mut self, call: &CallRecord) -> Result<(), Infallible> {
        self.calls.remove(&call.seq);
        Ok(())
    }

    fn put_released(&mut self, jobs: &[JobId]) -> Result<(), Infallible> {
        self.released = jobs.to_vec();
        Ok(())
    }

    fn put_lane(&mut self, lane: &SchedulerState) -> Result<(), Infallible> {
        self.lane = lane.clone();
        Ok(())
    }

    fn put_breaker(&mut self, breaker: &BreakerSnapshot) -> Result<(), Infallible> {
        self.breaker = Some(breaker.clone());
        Ok(())
    }

    fn put_config(&mut self, config: &str) -> Result<(), Infallible> {
        self.config = Some(config.to_owned());
        Ok(())
    }

    fn put_clock(&mut self, believed: Timestamp) -> Result<(), Infallible> {
        self.clock = Some(believed);
        Ok(())
    }

    fn alerts(&mut self) -> Result<AlertBook, Infallible> {
        Ok(self.alerts.clone())
    }

    fn put_alerts(&mut self, alerts: &AlertBook) -> Result<(), Infallible> {
        self.alerts = alerts.clone();
        Ok(())
    }

    fn endpoints(&mut self) -> Result<Arc<[HookEndpoint]>, Infallible> {
        Ok(Arc::from(self.endpoints.as_slice()))
    }

    fn put_endpoints(&mut self, endpoints: &[HookEndpoint]) -> Result<(), Infallible> {
        self.endpoints = endpoints.to_vec();
        Ok(())
    }

    fn batch(&mut self, id: BatchId) -> Result<Option<Batch>, Infallible> {
        Ok(self.batches.get(&id).cloned())
    }

    fn put_batch(&mut self, batch: &Batch) -> Result<(), Infallible> {
        self.batches.insert(batch.id, batch.clone());
        Ok(())
    }

    fn remove_batch(&mut self, id: BatchId) -> Result<(), Infallible> {
        self.batches.remove(&id);
        Ok(())
    }

    fn put_audit(&mut self, entry: &AuditEntry) -> Result<(), Infallible> {
        self.audit.insert(entry.id, entry.clone());
        Ok(())
    }

    fn bound_audit(&mut self, most: usize) -> Result<(), Infallible> {
        while self.audit.len() > most {
            self.audit.pop_first();
        }
        Ok(())
    }

    fn client_key(&mut self, id: KeyId) -> Result<Option<ClientKey>, Infallible> {
        Ok(self.client_keys.get(&id).cloned())
    }

    fn client_key_count(&mut self) -> Result<u64, Infallible> {
        Ok(self.client_keys.len() as u64)
    }

    fn client_keys(&mut self) -> Result<Vec<ClientKey>, Infallible> {
        Ok(self.client_keys.values().cloned().collect())
    }

    fn put_client_key(&mut self, key: &ClientKey) -> Result<(), Infallible> {
        self.client_keys.insert(key.id, key.clone());
        Ok(())
    }

    fn remove_client_key(&mut self, id: KeyId) -> Result<(), Infallible> {
        self.client_keys.remove(&id);
        Ok(())
    }

    fn input(&mut self, id: BatchId) -> Result<Option<BatchInput>, Infallible> {
        Ok(self.inputs.get(&id).cloned())
    }

    fn put_input(&mut self, input: &BatchInput) -> Result<(), Infallible> {
        self.inputs.insert(input.id, input.clone());
        Ok(())
    }

    fn remove_input(&mut self, id: BatchId) -> Result<(), Infallible> {
        self.inputs.remove(&id);
        Ok(())
    }

    fn reader_of(&mut self, file: FileId) -> Result<Option<BatchId>, Infallible> {
        let mut inputs = self.inputs.values();
        let reader = inputs.find(|input| input.file == file && input.is_open());
        Ok(reader.map(|input| input.id))
    }

    fn file(&mut self, id: FileId) -> Result<Option<StoredFile>, Infallible> {
        Ok(self.files.get(&id).cloned())
    }

    fn put_file(&mut self, file: &StoredFile) -> Result<(), Infallible> {
        self.files.insert(file.id, file.clone());
        Ok(())
    }

    fn put_file_part(&mut self, id: FileId, number: u32, bytes: &[u8]) -> Result<(), Infallible> {
        self.file_parts.insert((id, number), bytes.to_vec());
        Ok(())
    }

    fn remove_file(&mut self, file: &StoredFile) -> Result<(), Infallible> {
        self.files.remove(&file.id);
        self.file_parts.retain(|(id, _), _| *id != file.id);
        Ok(())
    }

    fn next_delivery(&mut self) -> DeliveryId {
        self.last_delivery.0 += 1;
        self.last_delivery
    }

    fn delivery(&mut self, id: DeliveryId) -> Result<Option<Delivery>, Infallible> {
        Ok(self.deliveries.get(&id).cloned())
    }

    fn put_delivery(
        &mut self,
        delivery: &Delivery,
        _before: Option<&Delivery>,
    ) -> Result<(), Infallible> {
        self.deliveries.insert(delivery.id, delivery.clone());
        Ok(())
    }

    fn remove_delivery(&mut self, delivery: &Delivery) -> Result<(), Infallible> {
        self.deliveries.remove(&delivery.id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::contract::assert_stopped_until_recovered;
    use crate::testing::sample;

    crate::store_contract!(|| {
        let disk = MemoryStore::new();
        move || disk.clone()
    });

    fn disk_full() -> StoreError {
        StoreError::Full {
            path: "memory".to_owned(),
            message: "no space left on device".to_owned(),
        }
    }

    #[test]
    fn a_lost_commit_is_not_there_and_stops_the_store() {
        let store = MemoryStore::new();
        store.fail_next_commit(disk_full(), CommitFate::Lost);
        let error = store.commit(&[sample::insert(1)]).unwrap_err();
        assert!(store.job(sample::job_id(1)).unwrap().is_none());
        assert_eq!(store.commits(), 0);
        assert_stopped_until_recovered(&store, &error);
    }

    #[test]
    fn a_kept_commit_is_there_although_it_reported_an_error() {
        let store = MemoryStore::new();
        store.fail_next_commit(disk_full(), CommitFate::Kept);
        let error = store.commit(&[sample::insert(1)]).unwrap_err();
        assert!(store.job(sample::job_id(1)).unwrap().is_some());
        assert_eq!(store.commits(), 1);
        assert_stopped_until_recovered(&store, &error);
    }
}
