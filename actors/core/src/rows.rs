//! The rows of a store as the decisions see them: what a store brings, never an opinion.

use std::sync::Arc;

use crate::model::{
    AlertBook, AnswerBody, AttemptNo, AuditEntry, Batch, BatchId, BatchInput, Billing, Bodies,
    BreakerSnapshot, CallRecord, ClientKey, Delivery, DeliveryId, FileId, Fingerprint, Finished,
    FinishedKind, HookEndpoint, Job, JobId, JobStatus, KeyId, Received, Request, SchedulerState,
    Seq, StoredFile, Timestamp,
};

/// A row of the call log, as a pruning finds it.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Its place.
    pub seq: u64,
    /// The row; `None`: it can't be read.
    pub call: Option<CallRecord>,
}

/// What retention looks at, in a transaction or in a snapshot.
pub trait Finishes {
    /// Why a row can't be reached. One that is there but can't be decoded is not an error here.
    type Error;

    /// How many jobs are of a kind.
    fn finished_count(&mut self, kind: FinishedKind) -> Result<u64, Self::Error>;

    /// The jobs of a kind with such bodies that come after a place, first ended first, at most so many.
    fn finished(
        &mut self,
        kind: FinishedKind,
        bodies: Bodies,
        after: Option<Finished>,
        limit: usize,
    ) -> Result<Vec<Finished>, Self::Error>;

    /// A job of a kind; `None`: its row can't be read, or is not there.
    fn finished_job(&mut self, id: JobId) -> Result<Option<Job>, Self::Error>;

    /// How many rows the call log has, those left out that were maybe billed without anybody knowing.
    fn call_count(&mut self) -> Result<u64, Self::Error>;

    /// The rows of the call log after a place, oldest first, at most so many.
    fn calls_after(&mut self, seq: u64, limit: usize) -> Result<Vec<Logged>, Self::Error>;
}

/// The rows of a store inside one transaction: reads see what the transaction has written so far,
/// and an error undoes all of it.
pub trait Rows: Finishes {
    /// A job's row.
    fn job(&mut self, id: JobId) -> Result<Option<Job>, Self::Error>;

    /// What a job asks for. A job without a request is an error of the store.
    fn request(&mut self, job: &Job) -> Result<Arc<Request>, Self::Error>;

    /// The job for which an idempotency key was used in a scope ([`Job::idempotency_scope`]), and for which request.
    fn keyed(
        &mut self,
        scope: &str,
        key: &str,
    ) -> Result<Option<(JobId, Fingerprint)>, Self::Error>;

    /// Jobs that wait, earlier changes of the transaction included.
    fn pending(&self) -> u64;

    /// The next place in line; each is given once.
    fn next_seq(&mut self) -> Seq;

    /// Writes a new job and counts it.
    fn insert(&mut self, job: &Arc<Job>, request: &Request) -> Result<(), Self::Error>;

    /// Remembers for which job and request an idempotency key was used in a scope.
    fn insert_key(
        &mut self,
        scope: &str,
        key: &str,
        job: JobId,
        fingerprint: Fingerprint,
    ) -> Result<(), Self::Error>;

    /// Writes a job that exists and counts its move from the status `before`.
    fn update(&mut self, before: JobStatus, job: &Job) -> Result<(), Self::Error>;

    /// Remembers that `dependent` waits for `id`.
    fn insert_dependent(&mut self, id: JobId, dependent: JobId) -> Result<(), Self::Error>;

    /// Tells which jobs were remembered as waiting for this one, in the order of their ids, and
    /// forgets them: the end of a job concerns each of them once.
    fn take_dependents(&mut self, id: JobId) -> Result<Vec<JobId>, Self::Error>;

    /// The row of the call log of a job's attempt.
    fn call(&mut self, id: JobId, attempt: AttemptNo) -> Result<Option<CallRecord>, Self::Error>;

    /// Writes what was found out to a row of the call log that was maybe billed, takes it from the
    /// open ones, and adds it to the usage of the row's day, model and user.
    fn resolve_call(&mut self, call: &CallRecord, billing: &Billing) -> Result<(), Self::Error>;

    /// Writes GLM's answer to a job, or what came instead.
    fn put_response(&mut self, id: JobId, response: &AnswerBody) -> Result<(), Self::Error>;

    /// Writes what came instead of an answer, in the answer's place.
    fn put_refusal(&mut self, id: JobId, refusal: &Arc<Received>) -> Result<(), Self::Error>;

    /// Takes what stands in the place of a job's answer.
    fn remove_response(&mut self, id: JobId) -> Result<(), Self::Error>;

    /// Appends to the call log, at the next place of its own, and adds to the usage of the call's
    /// day, model and user.
    fn log_call(&mut self, call: &CallRecord) -> Result<(), Self::Error>;

    /// Removes a job with its request, its response and its place, and uncounts it. Answers the bytes of
    /// the two.
    fn remove_job(&mut self, job: &Job) -> Result<u64, Self::Error>;

    /// Removes a finished job's request and response; its row says so from then on. Answers their bytes.
    fn remove_bodies(&mut self, job: &Job) -> Result<u64, Self::Error>;

    /// Forgets that an idempotency key was used for this job in a scope, if it was, or if nobody can tell.
    fn remove_key(&mut self, scope: &str, key: &str, job: JobId) -> Result<(), Self::Error>;

    /// Forgets that `dependent` waits for `id`, if that is remembered.
    fn remove_dependent(&mut self, id: JobId, dependent: JobId) -> Result<(), Self::Error>;

    /// Removes a row of the call log. The usage keeps what it has counted of it, and its place is never
    /// given again.
    fn remove_call(&mut self, call: &CallRecord) -> Result<(), Self::Error>;

    /// Writes which staged attempts may be sent before their starts are stored.
    fn put_released(&mut self, jobs: &[JobId]) -> Result<(), Self::Error>;

    /// Writes the lane's state.
    fn put_lane(&mut self, lane: &SchedulerState) -> Result<(), Self::Error>;

    /// Writes the breaker's state.
    fn put_breaker(&mut self, breaker: &BreakerSnapshot) -> Result<(), Self::Error>;

    /// Writes the runtime changes of the configuration.
    fn put_config(&mut self, config: &str) -> Result<(), Self::Error>;

    /// Writes the latest moment at which the clock was believed.
    fn put_clock(&mut self, believed: Timestamp) -> Result<(), Self::Error>;

    /// What is bad and what was.
    fn alerts(&mut self) -> Result<AlertBook, Self::Error>;

    /// Writes what is bad and what was.
    fn put_alerts(&mut self, alerts: &AlertBook) -> Result<(), Self::Error>;

    /// The endpoints that notices go to. Asked for at the end of every job: it must cost little.
    fn endpoints(&mut self) -> Result<Arc<[HookEndpoint]>, Self::Error>;

    /// Writes the endpoints.
    fn put_endpoints(&mut self, endpoints: &[HookEndpoint]) -> Result<(), Self::Error>;

    /// A batch's row. Asked for at every change of a job of a batch: it must cost little.
    fn batch(&mut self, id: BatchId) -> Result<Option<Batch>, Self::Error>;

    /// Writes a batch.
    fn put_batch(&mut self, batch: &Batch) -> Result<(), Self::Error>;

    /// Forgets a batch.
    fn remove_batch(&mut self, id: BatchId) -> Result<(), Self::Error>;

    /// Writes an order of an operator, instead of what is on record of it.
    fn put_audit(&mut self, entry: &AuditEntry) -> Result<(), Self::Error>;

    /// Removes the oldest orders that are more than `most`.
    fn bound_audit(&mut self, most: usize) -> Result<(), Self::Error>;

    /// A client key's row.
    fn client_key(&mut self, id: KeyId) -> Result<Option<ClientKey>, Self::Error>;

    /// How many client keys there are.
    fn client_key_count(&mut self) -> Result<u64, Self::Error>;

    /// All client keys. Asked for when there are too many.
    fn client_keys(&mut self) -> Result<Vec<ClientKey>, Self::Error>;

    /// Writes a client key.
    fn put_client_key(&mut self, key: &ClientKey) -> Result<(), Self::Error>;

    /// Forgets a client key.
    fn remove_client_key(&mut self, id: KeyId) -> Result<(), Self::Error>;

    /// What a batch over HTTP is made of.
    fn input(&mut self, id: BatchId) -> Result<Option<BatchInput>, Self::Error>;

    /// Writes what a batch is made of.
    fn put_input(&mut self, input: &BatchInput) -> Result<(), Self::Error>;

    /// Forgets what a batch is made of.
    fn remove_input(&mut self, id: BatchId) -> Result<(), Self::Error>;

    /// The batch of which lines of this file are still to become jobs, if there is one.
    fn reader_of(&mut self, file: FileId) -> Result<Option<BatchId>, Self::Error>;

    /// A file's row.
    fn file(&mut self, id: FileId) -> Result<Option<StoredFile>, Self::Error>;

    /// Writes a file's row.
    fn put_file(&mut self, file: &StoredFile) -> Result<(), Self::Error>;

    /// Writes a part of a file.
    fn put_file_part(&mut self, id: FileId, number: u32, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Removes a file with its parts.
    fn remove_file(&mut self, file: &StoredFile) -> Result<(), Self::Error>;

    /// The next place among deliveries; each is given once.
    fn next_delivery(&mut self) -> DeliveryId;

    /// A delivery's row.
    fn delivery(&mut self, id: DeliveryId) -> Result<Option<Delivery>, Self::Error>;

    /// Writes a delivery and its place among those that are pending, instead of what it was `before`, and
    /// counts it.
    fn put_delivery(
        &mut self,
        delivery: &Delivery,
        before: Option<&Delivery>,
    ) -> Result<(), Self::Error>;

    /// Forgets a delivery that has ended, and uncounts it.
    fn remove_delivery(&mut self, delivery: &Delivery) -> Result<(), Self::Error>;
}
