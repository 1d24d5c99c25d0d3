//! The disk as one process sees it, gone for it the moment it dies. It may fail, be full, or have its file taken away.

use std::sync::Arc;

use onelane_actors::ports::{
    CallFilter, CallPage, Decisions, DeliveriesOver, DeliveryFilter, DeliveryPage, JobFilter,
    JobPage, JobRecord, OverQuery, Recovered, StatusCounts, Store, StoreError, UsageFilter,
};
use onelane_core::model::{
    AlertBook, AuditEntry, AuditId, Batch, BatchId, BatchInput, ClientKey, DeliveryCounts, FileId,
    HookEndpoint, JobId, StoredFile, Timestamp, Transition, UsageRow,
};
use onelane_core::notify::delivery::{DueDeliveries, DueQuery};

use crate::faults::{Fate, Place, Planted};
use crate::sim::{Sim, State, short};
use crate::streams;

/// The disk of one process.
pub(crate) struct Disk {
    sim: Arc<Sim>,
    process: u64,
    failed: std::sync::Mutex<Option<StoreError>>,
}

impl Disk {
    pub(crate) fn new(sim: &Arc<Sim>, process: u64) -> Self {
        Self {
            sim: Arc::clone(sim),
            process,
            failed: std::sync::Mutex::default(),
        }
    }

    fn failed(&self) -> std::sync::MutexGuard<'_, Option<StoreError>> {
        self.failed.lock().expect("nobody panics with it")
    }

    /// Makes the changes one by one, so that each can be checked against what was there before it.
    /// Nobody else is at the disk meanwhile.
    fn apply(&self, batch: &[Transition]) -> Result<Decisions, StoreError> {
        let mut state = self.sim.lock();
        let now = state.times();
        let mut decisions = Vec::with_capacity(batch.len());
        let mut inserts = 0;
        for change in batch {
            inserts += u32::from(matches!(change, Transition::Insert(_)));
            if state.planted == Planted::LosesTheSecond
                && inserts == 2
                && matches!(change, Transition::Insert(_))
            {
                let elsewhere = self.sim.store.copied();
                decisions.extend(elsewhere.commit(std::slice::from_ref(change))?);
                continue;
            }
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
                crate::clocks::Heard {
                    now,
                    ..state.clocks.heard()
                },
            );
            let is_stored = decision.is_ok();
            let checked = checked.and_then(|()| streams::settled(change, is_stored, state));
            if let Err(what) = checked {
                state.violated(what);
                self.sim.over.notify_one();
            }
            decisions.push(decision);
        }
        state.tally.commits += 1;
        let now = state.now();
        state.history.stored(now);
        Ok(decisions)
    }

    fn is_alive(&self) -> bool {
        self.sim.lock().is_alive(self.process)
    }

    /// Whether the file is still there.
    fn keeps_place(&self) -> Result<(), StoreError> {
        match self.sim.lock().gone {
            Some(_) => Err(StoreError::Lost {
                path: "memory".to_owned(),
                message: "is gone".to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// What goes wrong with this commit, if anything does.
    fn fate(&self) -> Option<(StoreError, Fate)> {
        let mut state = self.sim.lock();
        if let Some(fate) = state.is_full() {
            state.tally.full_disks += 1;
            state.note(|| format!("no room for a commit: {fate:?}"));
            let now = state.now();
            state.room.told.get_or_insert(now);
            state.ledger.was_full = true;
            return Some((full(), fate));
        }
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
        state.tally.disk_errors += 1;
        let now = state.now();
        state.room.failing.get_or_insert(now);
        state.note(|| format!("a commit fails: {fate:?}"));
        Some((broken(), fate))
    }
}

impl State {
    /// Whether there is no room on the disk now, and what becomes of what finds none.
    fn is_full(&self) -> Option<Fate> {
        let (until, fate) = self.room.full_until?;
        (self.times().glm < until).then_some(fate)
    }

    /// The disk is full for so long.
    pub(crate) fn fill(&mut self, ms: u64, fate: Fate) {
        self.room.full_until = Some((self.times().glm.plus_ms(ms), fate));
    }

    /// A lane has found room again, has ended, or begins with what the disk holds and does not know that there is none.
    pub(crate) fn knows_of_room(&mut self) {
        let now = self.now();
        if let Some(since) = self.room.told.take() {
            self.note(|| "the lane goes on, with room or without".to_owned());
            self.ledger.had_room(now);
            self.history.had_no_room(since, now);
        }
    }

    /// Whether what the lane has to say can't come to disk now.
    pub(crate) fn takes_nothing(&self) -> bool {
        self.room.told.is_some() || self.is_full().is_some() || self.gone.is_some()
    }

    /// Somebody makes room.
    pub(crate) fn make_room(&mut self) {
        self.room.full_until = None;
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

fn full() -> StoreError {
    StoreError::Full {
        path: "memory".to_owned(),
        message: "no space left on device".to_owned(),
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
        if !self.is_alive() {
            return Err(broken());
        }
        self.keeps_place()?;
        if let Some(error) = &*self.failed() {
            return Err(error.clone());
        }
        self.sim.at(Place::BeforeCommit);
        if !self.is_alive() {
            return Err(broken());
        }
        match self.fate() {
            None => {
                let decisions = self.apply(batch)?;
                let mut state = self.sim.lock();
                state.ledger.is_in_doubt = false;
                state.room.failing = None;
                drop(state);
                self.sim.at(Place::AfterCommit);
                Ok(decisions)
            }
            Some((error, fate)) => {
                *self.failed() = Some(error.clone());
                if fate == Fate::Kept {
                    self.apply(batch)?;
                    self.sim.lock().ledger.is_in_doubt = true;
                }
                Err(error)
            }
        }
    }

    fn recover(&self) -> Result<Recovered, StoreError> {
        *self.failed() = None;
        if !self.is_alive() {
            return Err(broken());
        }
        self.keeps_place()?;
        let mut state = self.sim.lock();
        state.knows_of_room();
        state.recovers();
        self.sim.store.recover()
    }

    fn reopen(&self) -> Result<(), StoreError> {
        self.keeps_place()?;
        *self.failed() = None;
        self.sim.lock().knows_of_room();
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.sim.lock().is_full().is_none()
    }

    fn keep_place(&self) -> Result<(), StoreError> {
        self.keeps_place()
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
