//! The world as one process sees it: a disk and GLM, both gone for it the moment it dies.

use std::sync::Arc;
use std::time::Duration;

use onelane_actors::ports::{
    CallFilter, CallPage, Decisions, DeliveriesOver, DeliveryFilter, DeliveryPage, Glm, GlmAnswer,
    GlmCall, GlmFuture, GlmOutcome, JobFilter, JobPage, JobRecord, OverQuery, Recovered,
    StatusCounts, Store, StoreError, TaskFuture, TaskOutcome, UsageFilter,
};
use onelane_actors::testing::sample;
use onelane_core::model::{
    AlertBook, AuditEntry, AuditId, Batch, BatchId, BatchInput, ClientKey, DeliveryCounts, Failure,
    FailureClass, FileId, HookEndpoint, JobId, StoredFile, Timestamp, Transition, Usage, UsageRow,
    code,
};
use onelane_core::notify::delivery::{DueDeliveries, DueQuery};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::server::{End, Kind, Plan};
use crate::sim::{Fate, Heard, Place, Sim, short};

/// The disk of one process.
pub(crate) struct Disk {
    sim: Arc<Sim>,
    process: u64,
    failed: std::sync::Mutex<bool>,
}

impl Disk {
    pub(crate) fn new(sim: &Arc<Sim>, process: u64) -> Self {
        Self {
            sim: Arc::clone(sim),
            process,
            failed: std::sync::Mutex::new(false),
        }
    }

    fn failed(&self) -> std::sync::MutexGuard<'_, bool> {
        self.failed.lock().expect("nobody panics with it")
    }

    /// Makes the changes one by one, so that each can be checked against what was there before it.
    /// Nobody else is at the disk meanwhile.
    fn apply(&self, batch: &[Transition]) -> Result<Decisions, StoreError> {
        let mut state = self.sim.lock();
        let now = state.times();
        let mut decisions = Vec::with_capacity(batch.len());
        for change in batch {
            let decision = self.sim.store.commit(std::slice::from_ref(change))?;
            let Some(decision) = decision.into_iter().next() else {
                unreachable!("every change has its decision")
            };
            let state = &mut *state;
            state.detail(|| {
                format!(
                    "disk: {} {}",
                    told(change),
                    if decision.is_ok() { "" } else { "refused" }
                )
            });
            let checked = state.ledger.apply(
                change,
                &decision,
                &self.sim.store,
                &state.history,
                &mut state.tally,
                Heard {
                    now,
                    marks: &state.marks,
                },
            );
            if let Err(what) = checked {
                state.violated(what);
                self.sim.over.notify_one();
            }
            decisions.push(decision);
        }
        state.tally.commits += 1;
        Ok(decisions)
    }

    fn is_alive(&self) -> bool {
        self.sim.lock().is_alive(self.process)
    }

    /// What goes wrong with this commit, if anything does.
    fn fate(&self) -> Option<Fate> {
        let mut state = self.sim.lock();
        let (fate, left) = state.plans.disk.as_mut()?;
        let fate = *fate;
        if *left > 0 {
            *left -= 1;
            return None;
        }
        // A disk that fails may fail again.
        if !state.disk_dice.one_in(3) {
            state.plans.disk = None;
        }
        // What the disk lost may be in doubt for long: the process may die meanwhile.
        if state.plans.kill.is_none() && state.disk_dice.one_in(3) {
            let chances = state.disk_dice.below(60);
            state.plans.kill = Some((Place::Message, chances));
        }
        state.note(|| format!("a commit fails: {fate:?}"));
        Some(fate)
    }
}

fn told(change: &Transition) -> String {
    let who = change.job_id().map(short).unwrap_or_default();
    let all = match change {
        Transition::Insert(new) => format!("Insert {} {}", short(new.job.id), new.job.model),
        Transition::Settle(settlement) => {
            let next = format!("{:?}", settlement.next);
            let end = next.find([' ', '{']).unwrap_or(next.len());
            format!("Settle {who} {} {:?}", &next[..end], settlement.lane)
        }
        other => format!("{other:?}"),
    };
    format!("{who} {all}")
}

fn broken() -> StoreError {
    StoreError::Io {
        path: "memory".to_owned(),
        message: "input/output error".to_owned(),
    }
}

/// What is only read is read from the world's disk.
macro_rules! as_on_disk {
    ($($read:ident($($name:ident: $type:ty),*) -> $answer:ty;)+) => {$(
        fn $read(&self, $($name: $type),*) -> Result<$answer, StoreError> {
            self.sim.store.$read($($name),*)
        }
    )+};
}

impl Store for Disk {
    fn commit(&self, batch: &[Transition]) -> Result<Decisions, StoreError> {
        if !self.is_alive() || *self.failed() {
            return Err(broken());
        }
        self.sim.at(Place::BeforeCommit);
        if !self.is_alive() {
            return Err(broken());
        }
        match self.fate() {
            None => {
                let decisions = self.apply(batch)?;
                self.sim.at(Place::AfterCommit);
                Ok(decisions)
            }
            Some(fate) => {
                *self.failed() = true;
                if fate == Fate::Kept {
                    self.apply(batch)?;
                }
                Err(broken())
            }
        }
    }

    fn recover(&self) -> Result<Recovered, StoreError> {
        *self.failed() = false;
        if !self.is_alive() {
            return Err(broken());
        }
        let mut state = self.sim.lock();
        state.recovers();
        self.sim.store.recover()
    }

    as_on_disk! {
        job(id: JobId) -> Option<JobRecord>;
        jobs(filter: &JobFilter, cursor: Option<u64>, limit: usize) -> JobPage;
        calls(filter: &CallFilter, cursor: Option<u64>, limit: usize) -> CallPage;
        usage(filter: &UsageFilter) -> Vec<UsageRow>;
        counts() -> StatusCounts;
        batch(id: BatchId) -> Option<Batch>;
        batches(after: Option<BatchId>, limit: usize) -> Vec<Batch>;
        audit(before: Option<AuditId>, limit: usize) -> Vec<AuditEntry>;
        client_keys() -> Vec<ClientKey>;
        batch_input(id: BatchId) -> Option<BatchInput>;
        batch_inputs(after: Option<BatchId>, limit: usize) -> Vec<BatchInput>;
        file(id: FileId) -> Option<StoredFile>;
        files(after: Option<FileId>, limit: usize) -> Vec<StoredFile>;
        file_part(id: FileId, number: u32) -> Option<Vec<u8>>;
        config() -> Option<String>;
        clock() -> Option<Timestamp>;
        deliveries_due(query: &DueQuery) -> DueDeliveries;
        deliveries(filter: &DeliveryFilter, cursor: Option<u64>, limit: usize) -> DeliveryPage;
        deliveries_over(query: OverQuery) -> DeliveriesOver;
        delivery_counts() -> DeliveryCounts;
        endpoints() -> Vec<HookEndpoint>;
        alerts() -> AlertBook;
    }
}

/// GLM, over the connections of one process.
pub(crate) struct Wire {
    sim: Arc<Sim>,
    process: u64,
}

/// An open connection: however it ends, GLM sees that it does.
struct Connection {
    sim: Arc<Sim>,
    process: u64,
    number: usize,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut state = self.sim.lock();
        // When a process dies all its connections are closed at once.
        if state.process == self.process && state.alive {
            let now = state.times().glm;
            state.server.cut(self.number, now);
        }
    }
}

impl Connection {
    /// The call ends as it was to.
    fn ends(&self) {
        let mut state = self.sim.lock();
        let now = state.times().glm;
        state.server.end(self.number, now);
    }
}

impl Wire {
    pub(crate) fn new(sim: &Arc<Sim>, process: u64) -> Self {
        Self {
            sim: Arc::clone(sim),
            process,
        }
    }

    fn open(&self, call: &GlmCall, kind: Kind) -> Option<(Connection, Plan)> {
        let (number, plan) = self.sim.begin(self.process, call, kind)?;
        let connection = Connection {
            sim: Arc::clone(&self.sim),
            process: self.process,
            number,
        };
        Some((connection, plan))
    }

    fn again(&self) -> Self {
        Self::new(&self.sim, self.process)
    }

    /// What a dead process never hears.
    async fn heard<T>(&self, outcome: T) -> T {
        self.sim.at(Place::CallEnded);
        if !self.sim.lock().is_alive(self.process) {
            std::future::pending::<()>().await;
        }
        outcome
    }
}

fn outcome_of(end: End) -> GlmOutcome {
    match end {
        End::Answer(usage) => {
            let onelane = sample::answer(usage.total_tokens);
            GlmOutcome::Answered(GlmAnswer {
                body: onelane,
                status_code: 200,
                usage,
                model: None,
            })
        }
        End::Fail(failure, usage) => GlmOutcome::Failed(failure, usage),
        End::Panic => std::panic::resume_unwind(Box::new("simulated")),
    }
}

impl Glm for Wire {
    fn call(&self, call: GlmCall, abort: CancellationToken) -> GlmFuture {
        let wire = self.again();
        Box::pin(async move {
            let Some((connection, plan)) = wire.open(&call, Kind::Call) else {
                return std::future::pending().await;
            };
            tokio::select! {
                biased;
                () = abort.cancelled() => return GlmOutcome::Aborted,
                () = sleep(Duration::from_millis(plan.after_ms)) => {}
            }
            connection.ends();
            drop(connection);
            wire.heard(outcome_of(plan.end)).await
        })
    }

    fn submit_task(&self, call: GlmCall, abort: CancellationToken) -> TaskFuture {
        const TAKEN_AFTER_MS: u64 = 40;
        let wire = self.again();
        Box::pin(async move {
            let Some((connection, plan)) = wire.open(&call, Kind::Submission) else {
                return std::future::pending().await;
            };
            let is_taken = matches!(plan.end, End::Answer(_));
            let after_ms = if is_taken {
                TAKEN_AFTER_MS
            } else {
                plan.after_ms
            };
            tokio::select! {
                biased;
                () = abort.cancelled() => return TaskOutcome::Aborted,
                () = sleep(Duration::from_millis(after_ms)) => {}
            }
            let outcome = match plan.end {
                End::Answer(_) => {
                    let mut state = wire.sim.lock();
                    let now = state.times().glm;
                    TaskOutcome::Accepted(state.server.accept(connection.number, now))
                }
                end => {
                    connection.ends();
                    match outcome_of(end) {
                        GlmOutcome::Failed(failure, usage) => TaskOutcome::Failed(failure, usage),
                        _ => TaskOutcome::Aborted,
                    }
                }
            };
            drop(connection);
            wire.heard(outcome).await
        })
    }

    fn fetch_task(&self, call: GlmCall, task_id: String, abort: CancellationToken) -> GlmFuture {
        let wire = self.again();
        Box::pin(async move {
            let found = {
                let mut state = wire.sim.lock();
                state.server.fetches += 1;
                state.tally.fetches += 1;
                let who = short(call.job_id);
                state.detail(|| format!("glm: {task_id} of job {who} is fetched"));
                state.server.tasks.get(&task_id).cloned()
            };
            let key = call.endpoint.api_key.as_ref().map(|key| key.expose());
            let Some(task) = found.filter(|task| Some(task.key.as_str()) == key) else {
                let who = short(call.job_id);
                wire.sim.violated(format!(
                    "{task_id} of job {who} is asked for with another key"
                ));
                return std::future::pending().await;
            };
            let mut waited_ms = 0;
            loop {
                if waited_ms >= call.timeouts.total_ms {
                    let mut failure = Failure::new(
                        FailureClass::ServerTransient,
                        code::TIMEOUT_TOTAL,
                        "the task takes too long",
                    );
                    failure.maybe_billed = true;
                    return wire
                        .heard(GlmOutcome::Failed(failure, Usage::default()))
                        .await;
                }
                let step_ms = call.poll_ms.min(call.timeouts.total_ms - waited_ms);
                tokio::select! {
                    biased;
                    () = abort.cancelled() => {
                        wire.sim.lock().detail(|| format!("glm: {task_id} is let go"));
                        return GlmOutcome::Aborted;
                    }
                    () = sleep(Duration::from_millis(step_ms)) => waited_ms += step_ms,
                }
                let now = wire.sim.lock().times().glm;
                if now >= task.ready {
                    return wire.heard(outcome_of(task.end)).await;
                }
            }
        })
    }
}
