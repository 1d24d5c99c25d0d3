//! The rows of a batch, as decisions read and write them: each table's part of a change.

use std::sync::Arc;

use onelane_core::rows::Rows;

use super::{Changed, Transaction, encoded};
use crate::model::{
    AlertBook, AnswerBody, AttemptNo, AuditEntry, Batch, BatchId, BatchInput, Billing,
    BreakerSnapshot, CallRecord, ClientKey, Delivery, DeliveryId, DeliveryStatus, FileId,
    Fingerprint, HookEndpoint, Job, JobId, JobStatus, KeyId, Received, Request, SchedulerState,
    Seq, StoredFile, Timestamp,
};
use crate::store::error::Result;
use crate::store::schema::{self, Keyed, decode, decode_call, meta, no_call, no_request};
use crate::store::{finished, packs, read};

impl Rows for Transaction<'_> {
    fn job(&mut self, id: JobId) -> Result<Option<Job>> {
        if let Some(changed) = self.changed.get(&id) {
            return Ok(Some(changed.job.as_ref().clone()));
        }
        self.stored(id)
    }

    fn request(&mut self, job: &Job) -> Result<Arc<Request>> {
        match self.requests()?.get(job.seq)? {
            Some(request) => Ok(Arc::new(request)),
            None => Err(no_request(job.id)),
        }
    }

    fn keyed(&mut self, scope: &str, key: &str) -> Result<Option<(JobId, Fingerprint)>> {
        let key = schema::idempotency_key(scope, key);
        let row = self.get(schema::IDEMPOTENCY, &key)?;
        row.map(|row| Keyed::decode(row.value())).transpose()
    }

    fn pending(&self) -> u64 {
        self.counters.jobs.pending
    }

    fn next_seq(&mut self) -> Seq {
        self.counters.job_seq += 1;
        Seq(self.counters.job_seq)
    }

    fn insert(&mut self, job: &Arc<Job>, request: &Request) -> Result<()> {
        self.counters.jobs.moved(None, job.status);
        // Written with what else the batch does to it: it may be started at once.
        let new = Changed {
            stored_as: None,
            finished_as: None,
            job: Arc::clone(job),
        };
        self.changed.insert(job.id, new);
        packs::encode(&mut self.row, job.seq, request)?;
        let row = Arc::from(self.row.as_slice());
        self.own.insert(schema::REQUESTS.row(&job.seq.0), Some(row));
        Ok(())
    }

    fn insert_key(
        &mut self,
        scope: &str,
        key: &str,
        job: JobId,
        fingerprint: Fingerprint,
    ) -> Result<()> {
        let key = schema::idempotency_key(scope, key);
        let row = Keyed::encode(job, fingerprint);
        self.set(schema::IDEMPOTENCY, &key, &row.as_slice());
        Ok(())
    }

    fn update(&mut self, before: JobStatus, job: &Job) -> Result<()> {
        if before != job.status {
            self.counters.jobs.moved(Some(before), job.status);
        }
        if let Some(changed) = self.changed.get_mut(&job.id) {
            changed.job = Arc::new(job.clone());
            return Ok(());
        }
        // One that had ended is not where it was: put back in line, it will end anew.
        let ended = if before.is_terminal() {
            self.stored(job.id)?
        } else {
            None
        };
        let changed = Changed {
            stored_as: Some(before),
            finished_as: ended.as_ref().and_then(schema::finished_key_of),
            job: Arc::new(job.clone()),
        };
        self.changed.insert(job.id, changed);
        Ok(())
    }

    fn insert_dependent(&mut self, id: JobId, dependent: JobId) -> Result<()> {
        let key = schema::dependent_key(id, dependent);
        self.set(schema::DEPENDENTS, &key, &());
        Ok(())
    }

    fn take_dependents(&mut self, id: JobId) -> Result<Vec<JobId>> {
        let first = schema::dependent_key(id, JobId::from_bytes([0; 16]));
        let last = schema::dependent_key(id, JobId::from_bytes([u8::MAX; 16]));
        let mut taken = Vec::new();
        for item in self
            .table(schema::DEPENDENTS)?
            .range::<&[u8; 32]>(&first..=&last)?
        {
            taken.push(schema::dependent_of(item?.0.value()));
        }
        for dependent in &taken {
            let key = schema::dependent_key(id, *dependent);
            self.remove(schema::DEPENDENTS, &key);
        }
        Ok(taken)
    }

    fn call(&mut self, id: JobId, attempt: AttemptNo) -> Result<Option<CallRecord>> {
        let key = schema::call_key(id, attempt);
        let Some(seq) = self.get(schema::CALLS_BY_JOB, &key)? else {
            return Ok(None);
        };
        let seq = seq.value();
        match self.get(schema::CALLS, seq)? {
            Some(row) => decode_call(seq, row.value()).map(Some),
            None => Err(no_call()),
        }
    }

    fn resolve_call(&mut self, call: &CallRecord, billing: &Billing) -> Result<()> {
        let resolved = CallRecord {
            billing: Some(billing.clone()),
            ..call.clone()
        };
        self.set_row(schema::CALLS, call.seq, &resolved)?;
        self.remove(schema::BILLING_OPEN, call.seq);
        self.unbound.insert(call.job_id);
        self.usage_row(call)?.resolve(billing);
        Ok(())
    }

    fn put_response(&mut self, id: JobId, response: &AnswerBody) -> Result<()> {
        schema::encode_body(&mut self.row, response);
        let row = std::mem::take(&mut self.row);
        self.set(schema::RESPONSES, id.as_bytes(), &row.as_slice());
        self.row = row;
        Ok(())
    }

    fn put_refusal(&mut self, id: JobId, refusal: &Arc<Received>) -> Result<()> {
        self.set_row(schema::RESPONSES, id.as_bytes(), refusal.as_ref())
    }

    fn remove_response(&mut self, id: JobId) -> Result<()> {
        self.remove(schema::RESPONSES, id.as_bytes());
        Ok(())
    }

    fn log_call(&mut self, call: &CallRecord) -> Result<()> {
        self.counters.call_seq += 1;
        let seq = self.counters.call_seq;
        self.set_row(schema::CALLS, seq, call)?;
        let key = schema::call_key(call.job_id, call.attempt);
        self.set(schema::CALLS_BY_JOB, &key, &seq);
        if call.is_billing_open() {
            self.set(schema::BILLING_OPEN, seq, &());
        }
        self.usage_row(call)?.add(call);
        Ok(())
    }

    fn remove_job(&mut self, job: &Job) -> Result<u64> {
        self.take_job(job)
    }

    fn remove_bodies(&mut self, job: &Job) -> Result<u64> {
        self.strip(job)
    }

    fn remove_key(&mut self, scope: &str, key: &str, job: JobId) -> Result<()> {
        let key = schema::idempotency_key(scope, key);
        let holder = match self.get(schema::IDEMPOTENCY, &key)? {
            Some(row) => finished::readable(Keyed::decode(row.value()))?,
            None => return Ok(()),
        };
        if holder.is_none_or(|(holder, _)| holder == job) {
            self.remove(schema::IDEMPOTENCY, &key);
        }
        Ok(())
    }

    fn remove_dependent(&mut self, id: JobId, dependent: JobId) -> Result<()> {
        let key = schema::dependent_key(id, dependent);
        self.remove(schema::DEPENDENTS, &key);
        Ok(())
    }

    fn remove_call(&mut self, call: &CallRecord) -> Result<()> {
        self.take_call(call);
        Ok(())
    }

    fn put_released(&mut self, jobs: &[JobId]) -> Result<()> {
        self.singles.released = Some(encoded(&jobs)?);
        Ok(())
    }

    fn put_lane(&mut self, lane: &SchedulerState) -> Result<()> {
        self.singles.lane = Some(encoded(lane)?);
        Ok(())
    }

    fn put_breaker(&mut self, breaker: &BreakerSnapshot) -> Result<()> {
        self.singles.breaker = Some(encoded(breaker)?);
        Ok(())
    }

    fn put_config(&mut self, config: &str) -> Result<()> {
        self.singles.config = Some(encoded(config)?);
        Ok(())
    }

    fn put_clock(&mut self, believed: Timestamp) -> Result<()> {
        self.singles.clock = Some(encoded(&believed)?);
        Ok(())
    }

    fn alerts(&mut self) -> Result<AlertBook> {
        // The book as this batch has left it.
        if let Some(row) = &self.singles.alerts {
            return decode("meta", row);
        }
        let row = self.get(schema::META, meta::ALERTS)?;
        let row = row.map(|row| decode("meta", row.value())).transpose()?;
        Ok(row.unwrap_or_default())
    }

    fn put_alerts(&mut self, alerts: &AlertBook) -> Result<()> {
        self.singles.alerts = Some(encoded(alerts)?);
        Ok(())
    }

    fn endpoints(&mut self) -> Result<Arc<[HookEndpoint]>> {
        if let Some(known) = &self.endpoints {
            return Ok(Arc::clone(known));
        }
        let endpoints: Vec<HookEndpoint> = match self.get(schema::META, meta::ENDPOINTS)? {
            Some(row) => decode("meta", row.value())?,
            None => Vec::new(),
        };
        Ok(Arc::clone(self.endpoints.insert(endpoints.into())))
    }

    fn put_endpoints(&mut self, endpoints: &[HookEndpoint]) -> Result<()> {
        self.singles.endpoints = Some(encoded(endpoints)?);
        self.endpoints = Some(endpoints.into());
        Ok(())
    }

    fn batch(&mut self, id: BatchId) -> Result<Option<Batch>> {
        if let Some(batch) = self.touched.get(&id) {
            return Ok(batch.clone());
        }
        let row = self.get(schema::BATCHES, id.number())?;
        row.map(|row| decode("batches", row.value())).transpose()
    }

    fn put_batch(&mut self, batch: &Batch) -> Result<()> {
        self.touched.insert(batch.id, Some(batch.clone()));
        Ok(())
    }

    fn remove_batch(&mut self, id: BatchId) -> Result<()> {
        self.touched.insert(id, None);
        Ok(())
    }

    fn put_audit(&mut self, entry: &AuditEntry) -> Result<()> {
        self.set_row(schema::AUDIT, entry.id.as_bytes(), entry)
    }

    fn bound_audit(&mut self, most: usize) -> Result<()> {
        let audit = self.table(schema::AUDIT)?;
        let surplus = audit.len()?.saturating_sub(most as u64);
        let mut oldest = Vec::new();
        for item in audit
            .iter()?
            .take(usize::try_from(surplus).unwrap_or(usize::MAX))
        {
            oldest.push(*item?.0.value());
        }
        for id in &oldest {
            self.remove(schema::AUDIT, id);
        }
        Ok(())
    }

    fn client_key(&mut self, id: KeyId) -> Result<Option<ClientKey>> {
        let row = self.get(schema::CLIENT_KEYS, id.number())?;
        row.map(|row| decode("client_keys", row.value()))
            .transpose()
    }

    fn client_key_count(&mut self) -> Result<u64> {
        self.table(schema::CLIENT_KEYS)?.len()
    }

    fn client_keys(&mut self) -> Result<Vec<ClientKey>> {
        read::all_client_keys(&self.table(schema::CLIENT_KEYS)?)
    }

    fn put_client_key(&mut self, key: &ClientKey) -> Result<()> {
        self.set_row(schema::CLIENT_KEYS, key.id.number(), key)
    }

    fn remove_client_key(&mut self, id: KeyId) -> Result<()> {
        self.remove(schema::CLIENT_KEYS, id.number());
        Ok(())
    }

    fn input(&mut self, id: BatchId) -> Result<Option<BatchInput>> {
        let row = self.get(schema::BATCH_INPUTS, id.number())?;
        row.map(|row| decode("batch_inputs", row.value()))
            .transpose()
    }

    fn put_input(&mut self, input: &BatchInput) -> Result<()> {
        self.set_row(schema::BATCH_INPUTS, input.id.number(), input)
    }

    fn remove_input(&mut self, id: BatchId) -> Result<()> {
        self.remove(schema::BATCH_INPUTS, id.number());
        Ok(())
    }

    fn reader_of(&mut self, file: FileId) -> Result<Option<BatchId>> {
        for item in self.table(schema::BATCH_INPUTS)?.iter()? {
            let input: BatchInput = decode("batch_inputs", item?.1.value())?;
            if input.file == file && input.is_open() {
                return Ok(Some(input.id));
            }
        }
        Ok(None)
    }

    fn file(&mut self, id: FileId) -> Result<Option<StoredFile>> {
        let row = self.get(schema::FILES, id.as_bytes())?;
        row.map(|row| decode("files", row.value())).transpose()
    }

    fn put_file(&mut self, file: &StoredFile) -> Result<()> {
        self.set_row(schema::FILES, file.id.as_bytes(), file)
    }

    fn put_file_part(&mut self, id: FileId, number: u32, bytes: &[u8]) -> Result<()> {
        let key = schema::file_part_key(id, number);
        self.set(schema::FILE_PARTS, &key, &bytes);
        Ok(())
    }

    fn remove_file(&mut self, file: &StoredFile) -> Result<()> {
        self.remove(schema::FILES, file.id.as_bytes());
        for number in 0..file.parts {
            let key = schema::file_part_key(file.id, number);
            self.remove(schema::FILE_PARTS, &key);
        }
        Ok(())
    }

    fn next_delivery(&mut self) -> DeliveryId {
        self.counters.delivery_seq += 1;
        DeliveryId(self.counters.delivery_seq)
    }

    fn delivery(&mut self, id: DeliveryId) -> Result<Option<Delivery>> {
        let row = self.get(schema::DELIVERIES, id.0)?;
        row.map(|row| decode("deliveries", row.value())).transpose()
    }

    fn put_delivery(&mut self, delivery: &Delivery, before: Option<&Delivery>) -> Result<()> {
        let status = before.map(|before| before.status);
        self.counters
            .deliveries
            .moved(status, Some(delivery.status));
        self.set_row(schema::DELIVERIES, delivery.id.0, delivery)?;
        let (from, to) = (before.and_then(Delivery::place), delivery.place());
        if from != to {
            if let Some(from) = from {
                let key = schema::pending_key(&from);
                self.remove(schema::DELIVERIES_PENDING, &key);
            }
            if let Some(to) = to {
                let key = schema::pending_key(&to);
                self.set(schema::DELIVERIES_PENDING, &key, &());
            }
        }
        if let Some(job) = delivery.job_id {
            let key = schema::told_key(job, delivery.id);
            let was_open = self.get(schema::DELIVERIES_OPEN, &key)?.is_some();
            let is_open = delivery.status == DeliveryStatus::Pending;
            if is_open {
                self.set(schema::DELIVERIES_OPEN, &key, &());
            } else {
                self.remove(schema::DELIVERIES_OPEN, &key);
            }
            let changed = was_open != is_open;
            if changed {
                self.unbound.insert(job);
            }
        }
        Ok(())
    }

    fn remove_delivery(&mut self, delivery: &Delivery) -> Result<()> {
        self.counters.deliveries.moved(Some(delivery.status), None);
        self.remove(schema::DELIVERIES, delivery.id.0);
        Ok(())
    }
}
