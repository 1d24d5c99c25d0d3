//! The lanes as one synchronous machine: what is said to it goes in, what is to be done comes out.
//! The queue actor around it only carries messages; every decision about order, slots, holds and
//! staging is here and is tested without a runtime.
//!
//! There is one line of waiting jobs and one pool of slots for all lanes. A lane is a bound on how
//! many of the slots may have calls to its models, with a stage, a pace and a hold of its own; by
//! default there is one lane with one slot.
//!
//! Three rules carry the whole:
//!
//! 1. A slot sends only with a credit, and a credit comes only from its caller's `Ready`; where an answer can't change
//!    what goes next, its caller may have spent it on that already (`next_up`).
//! 2. Every attempt is on disk, staged or started, before it is sent. A staged one may be sent
//!    without waiting for its start to be stored only if that start rides in the transaction that
//!    settles the attempt before it, and if a commit before has released it: said that it may be sent
//!    ahead. So after a crash a released attempt is in doubt exactly when
//!    some started attempt is unsettled, or when the lane's state says that one crash earlier left
//!    some in doubt that are not settled yet; a staged attempt was never sent otherwise.
//! 3. An open attempt that a restart finds is left alone until its slot's caller is ready: only
//!    then it is known that no call is open.

pub mod adaptive;
pub mod admission;
pub mod hold;
pub mod pace;
pub mod slot;
pub mod steady;

mod afford;
mod ahead;
mod at_once;
mod blame;
mod dispatch;
mod gate;
#[cfg(any(test, feature = "testing"))]
mod imprint;
mod keys;
mod next_up;
mod orders;
mod outgoing;
mod parked;
mod recovery;
mod reserve;
mod routes;
mod settle;
mod tracks;
mod view;
mod wait;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::judge::conclude::Concluded;
use crate::model::{
    Applied, AsyncTask, AttemptNo, BreakerSnapshot, BreakerState, Dispatch, Job, JobEntry, JobId,
    JobStatus, Recovered, Refusal, SchedulerState, Settings, SlotId, Timestamp, Transition, limits,
};
use crate::queue::Queue;
use crate::scheduler::slot::{Slot, Staged, attempt_of};

use admission::Intake;
use gate::Gate;
use outgoing::Outgoing;
use recovery::Recovery;
use routes::Routes;
use steady::Steady;
use tracks::Track;
pub use view::{LaneSnapshot, ModelSnapshot, SchedulerSnapshot, WaitingAt};
pub use wait::WaitCounts;

/// Something to be done, in this order.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Give the job to the slot's caller; its credit is spent.
    Run {
        /// Where.
        slot: SlotId,
        /// The job, with its open attempt.
        dispatch: Arc<Dispatch>,
        /// Stopped before it was sent: the caller must not send it. It was cancelled, or the lane was paused or switched
        /// off while its start was on its way to disk, which takes long where the disk is full.
        stopped: bool,
    },
    /// Close the open call of this attempt, if it is still the slot's.
    Abort {
        /// Where.
        slot: SlotId,
        /// The job.
        job_id: JobId,
        /// Which attempt.
        attempt: AttemptNo,
    },
    /// The slot is not needed any more: end its caller.
    Retire {
        /// Which.
        slot: SlotId,
    },
    /// Put these changes on disk in one transaction; the answer comes back under the ticket.
    Commit {
        /// For [`Scheduler::committed`].
        ticket: u64,
        /// The changes.
        transitions: Vec<Transition>,
    },
}

/// What the store said of one change of a commit.
pub type Decision = (Transition, Result<Applied, Refusal>);

/// A call that was stopped while GLM holds it as a task.
#[derive(Debug, Clone)]
pub struct LeftOpen {
    /// The job.
    pub job_id: JobId,
    /// Which attempt.
    pub attempt: AttemptNo,
    /// The task.
    pub task: AsyncTask,
}

/// What became of a wish to cancel a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelPath {
    /// Committed at once: the answer is in the store's decision.
    Commit,
    /// Its call is being closed: the answer is in its settlement.
    Settlement,
}

/// The lanes.
#[derive(Debug, Clone)]
pub struct Scheduler {
    generation: u64,
    line: Queue,
    slots: BTreeMap<SlotId, Slot>,
    tracks: BTreeMap<String, Track>,
    routes: Routes,
    /// Open attempts that the start found.
    recovery: Recovery,
    /// What may still be spent.
    gate: Gate,
    /// There is more to do than one step does.
    soon: Option<Timestamp>,
    /// Waiting jobs that are being given up or failed on disk, with how often.
    ending: BTreeMap<JobId, u32>,
    state: SchedulerState,
    endpoint_digest: String,
    settings: Arc<Settings>,
    stopping: bool,
    /// No outcome could be stored now, so nothing is sent.
    disk_full: bool,
    breaker: BreakerSnapshot,
    /// The time that paces are counted by.
    steady: Steady,
    /// The jobs of outcomes that wait for their commit.
    unsettled: Vec<JobId>,
    /// Counts the jobs that were looked at before they had a sequence number.
    unnumbered: u32,
    /// Whether a call of this generation got through to a server.
    reached: bool,
    out: Outgoing,
}

impl Scheduler {
    /// The lanes as the store remembers them. `slots` are the callers that exist; each must announce
    /// itself before anything is sent through it.
    #[must_use]
    pub fn recover(
        recovered: Recovered,
        settings: Arc<Settings>,
        slots: impl IntoIterator<Item = SlotId>,
        generation: u64,
        now: Timestamp,
    ) -> Self {
        let Recovered { mut waiting, .. } = recovered;
        let mut state = recovered.lane;
        let is_lost = |bound_to: Option<u64>| bound_to.is_some() && bound_to != recovered.instance;
        let lost = waiting.bound().filter(|(_, to)| is_lost(Some(*to)));
        let lost: Vec<JobId> = lost.map(|(id, _)| id).collect();
        for id in &lost {
            waiting.remove(*id);
        }
        let refused = &mut state.unattributed;
        if !refused.jobs.is_empty() {
            let ids = refused.jobs.iter().map(|refused| refused.job_id);
            for id in ids.collect::<Vec<_>>() {
                if refused.kept_out(id).is_some() {
                    waiting.fall_asleep(id);
                }
            }
            let (waiting, open) = (&waiting, &recovered.open);
            refused.jobs.retain(|refused| {
                waiting.has(refused.job_id) || open.iter().any(|job| job.id == refused.job_id)
            });
        }
        let mut lane = Self {
            generation,
            line: Queue::from_entries(waiting, &settings, now),
            slots: slots.into_iter().map(|s| (s, Slot::Unknown)).collect(),
            tracks: BTreeMap::new(),
            routes: Routes::default(),
            recovery: Recovery::default(),
            gate: Gate::default(),
            soon: None,
            ending: BTreeMap::new(),
            state,
            endpoint_digest: settings.glm.endpoint().digest(),
            settings,
            stopping: false,
            disk_full: false,
            breaker: recovered.breaker.unwrap_or_default(),
            steady: Steady::default(),
            unsettled: Vec::new(),
            unnumbered: 0,
            reached: false,
            out: Outgoing::new(),
        };
        // Nobody takes the answers of what was bound to a process that is gone.
        for id in lost {
            lane.give_up(id, now);
        }
        let (open, released) = (recovered.open, recovered.released);
        lane.take_in(open, released, recovered.instance, now);
        // On disk before any outcome of this generation is: the started attempts that show the
        // doubt now may be settled before the staged ones are.
        if lane.note_doubt() {
            lane.out.store(Transition::Lane(lane.state.clone()));
        }
        lane.operator_may_have_acted(now);
        if hold::release_disowned(&mut lane.state, &lane.settings) {
            lane.state_changed();
        }
        lane.fit_tracks(now);
        lane
    }

    /// Puts the lanes' state among the changes to store.
    fn state_changed(&mut self) {
        hold::tidy(&mut self.state);
        self.routes.forget();
        self.out.store(Transition::Lane(self.state.clone()));
    }

    // ---- what is said to it ------------------------------------------------------------------

    /// Begins: the first effects after [`Scheduler::recover`].
    #[must_use]
    pub fn start(&mut self, now: Timestamp) -> Vec<Effect> {
        self.gate.start();
        self.settle_proven(now, None);
        self.go_on(now)
    }

    /// Jobs are on disk and take their places.
    #[must_use]
    pub fn submitted(
        &mut self,
        entries: impl IntoIterator<Item = JobEntry>,
        now: Timestamp,
    ) -> Vec<Effect> {
        for entry in entries {
            if self.ending.contains_key(&entry.id) {
                continue;
            }
            // One that another batch has adopted.
            let is_adopted = |known: JobEntry| known.batch_id != entry.batch_id;
            if !self.knows(entry.id) {
                let (id, is_bound) = (entry.id, entry.bound_to.is_some());
                self.line.insert(entry, now);
                if self.stopping && is_bound {
                    self.give_up(id, now);
                }
            } else if self.line.get(entry.id).is_some_and(is_adopted) {
                self.line.adopt(entry.id, entry.batch_id, now);
            }
        }
        self.go_on(now)
    }

    /// The disk is full, or has room again.
    #[must_use]
    pub fn disk(&mut self, is_full: bool, now: Timestamp) -> Vec<Effect> {
        self.disk_full = is_full;
        self.go_on(now)
    }

    /// A caller was added.
    pub fn caller_added(&mut self, slot: SlotId) {
        self.slots.entry(slot).or_insert(Slot::Unknown);
    }

    /// A caller has ended: it was retired, perhaps before this generation began. If the slot is needed
    /// it is among [`Scheduler::missing_callers`] from now on.
    #[must_use]
    pub fn caller_gone(&mut self, slot: SlotId, now: Timestamp) -> Vec<Effect> {
        if self.slots.get(&slot).is_some_and(|slot| !slot.is_taken()) {
            self.slots.remove(&slot);
        }
        self.settle_proven(now, None);
        self.go_on(now)
    }

    /// A slot's caller is ready and has no outcome to report: no call is open on the slot.
    #[must_use]
    pub fn ready(&mut self, slot: SlotId, now: Timestamp) -> Vec<Effect> {
        self.credit(slot, now);
        self.go_on(now)
    }

    /// Whether a call that was stopped while GLM holds it as a task stays open: nobody gave the job up,
    /// so either it is a shutdown, or a generation before this one stopped it and could not store why.
    /// A shutdown ends what belongs to a connection: nobody would take the answer that the next start fetches.
    #[must_use]
    pub fn stays_open(&self, slot: SlotId, id: JobId, attempt: AttemptNo) -> bool {
        let Some((job, false)) = self.awaited(slot, id, attempt) else {
            return false;
        };
        match self.stopping {
            true => job.bound_to.is_none(),
            false => self.recovery.has(id),
        }
    }

    /// A slot's caller was stopped while GLM holds its call as a task: the attempt stays open on disk,
    /// and its answer is fetched later, in a shutdown by the next start.
    #[must_use]
    pub fn left_open(&mut self, slot: SlotId, left: LeftOpen, now: Timestamp) -> Vec<Effect> {
        if self.stopping {
            self.recovery.forget(left.job_id);
            self.out.store(Transition::Task {
                job_id: left.job_id,
                attempt: left.attempt,
                task: AsyncTask {
                    left_open: true,
                    ..left.task
                },
            });
        }
        self.free(slot, left.job_id);
        self.credit(slot, now);
        self.go_on(now)
    }

    /// The job of an outcome, if the lane waits for that outcome, and whether it was cancelled.
    /// `None`: the outcome is stale.
    #[must_use]
    pub fn awaited(&self, slot: SlotId, id: JobId, attempt: AttemptNo) -> Option<(&Job, bool)> {
        if let Some(Slot::Busy {
            dispatch,
            cancelled,
            ..
        }) = self.slots.get(&slot)
            && dispatch.job.id == id
            && attempt_of(dispatch) == attempt
        {
            return Some((&dispatch.job, *cancelled));
        }
        self.recovery.awaited(id, attempt)
    }

    /// A slot's caller is ready and brings an outcome that the lane waited for. `breaker` is the
    /// breaker after it heard of the outcome, if that changed it.
    #[must_use]
    pub fn finished(
        &mut self,
        slot: SlotId,
        concluded: Concluded,
        breaker: Option<BreakerSnapshot>,
        now: Timestamp,
    ) -> Vec<Effect> {
        let id = concluded.settlement.job_id;
        self.recovery.forget(id);
        if let Some(snapshot) = &breaker {
            self.breaker = snapshot.clone();
        }
        let mut learnt = self.learn(slot, &concluded, now);
        learnt |= self.note_blame(slot, &concluded, now);
        self.free(slot, id);
        self.settle(concluded, breaker, learnt, now);
        self.credit(slot, now);
        self.go_on(now)
    }

    /// The store answered a commit.
    #[must_use]
    pub fn committed(
        &mut self,
        ticket: u64,
        decisions: &[Decision],
        now: Timestamp,
    ) -> Vec<Effect> {
        self.out.answered(ticket);
        for track in self.tracks.values_mut() {
            track.stage.answered(ticket);
        }
        for (transition, decision) in decisions {
            self.acknowledged(ticket, transition, decision, now);
        }
        self.go_on(now)
    }

    /// The breaker changed its state between calls.
    #[must_use]
    pub fn breaker_changed(
        &mut self,
        snapshot: &BreakerSnapshot,
        store: bool,
        now: Timestamp,
    ) -> Vec<Effect> {
        self.breaker = snapshot.clone();
        if store {
            self.out.store(Transition::Breaker(snapshot.clone()));
        }
        self.go_on(now)
    }

    /// Time has passed.
    #[must_use]
    pub fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        self.go_on(now)
    }

    // ---- what can be asked of it -------------------------------------------------------------

    /// What the wall clock says after so much uptime, in milliseconds. Tells whether it was set back: then a step is due,
    /// so that nobody is told of a wait that is longer than it is; or so that there is something to store: where a lane
    /// has a pace, a restart has to know.
    pub fn hear(&mut self, now: Timestamp, uptime_ms: u64) -> bool {
        let set_by = self.steady.hear(now, uptime_ms);
        let set_back = set_by < 0;
        let is_noted = set_by.unsigned_abs() >= limits::CLOCK_STEP_NOTED_MS && self.has_pace();
        if is_noted {
            let steps = &mut self.state.clock_steps;
            steps.note(set_by, now, limits::PACE_MEMORY_MS);
            self.state_changed();
        }
        if set_back && let Some(probe_at) = &mut self.breaker.probe_at {
            probe_at.mind_the_clock(now);
        }
        set_back || is_noted
    }

    /// Whether a lane has a pace.
    #[must_use]
    pub fn has_pace(&self) -> bool {
        let mut lanes = self.settings.all_lanes();
        lanes.any(|(_, rules)| rules.pace.is_on())
    }

    /// Whether nothing is in flight and everything is stored.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.in_flight() == 0 && self.out.is_stored()
    }

    /// Whether the job waits or runs: its end is still to come.
    #[must_use]
    pub fn knows(&self, id: JobId) -> bool {
        self.line.has(id)
            || self.recovery.has(id)
            || self.slots.values().any(|slot| slot.job_id() == Some(id))
            || self.tracks.values().any(|track| track.stage.contains(id))
    }

    /// A job that waits on disk and not here, by the decisions of a commit that the lane has not heard yet: it was put back by
    /// one of which nobody heard, and that is said again. What follows in the same commit may end a job that waits here.
    #[must_use]
    pub fn lacks(&self, decisions: &[Decision]) -> Option<JobId> {
        for (transition, decision) in decisions {
            let Transition::Requeue { job_id } = transition else {
                continue;
            };
            match decision {
                // It puts back those that it comes after, too.
                Ok(_) => return None,
                Err(Refusal::WrongStatus(JobStatus::Pending)) if !self.has_in_line(*job_id) => {
                    return Some(*job_id);
                }
                Err(_) => {}
            }
        }
        None
    }

    /// Whether a job is on its way to a call here, or to its end on disk.
    fn has_in_line(&self, id: JobId) -> bool {
        let waits = self.line.get(id).map(|entry| !entry.parked);
        let ends = self.ending.contains_key(&id) || self.unsettled.contains(&id);
        ends || waits.unwrap_or_else(|| self.knows(id))
    }

    /// When something changes by itself next.
    #[must_use]
    pub fn next_change(&self) -> Option<Timestamp> {
        let tracks = self.tracks.values();
        let of_lanes = tracks.flat_map(|track| [track.stage.next_deadline(), track.not_before]);
        [
            self.line.next_change(),
            hold::next_end(&self.state),
            self.gate.next_change(),
            self.soon,
            self.next_rise(),
        ]
        .into_iter()
        .chain(of_lanes)
        .flatten()
        .min()
    }

    /// Pause, holds and what was learnt.
    #[must_use]
    pub const fn state(&self) -> &SchedulerState {
        &self.state
    }

    /// What decides on new jobs.
    #[must_use]
    pub fn intake(&self) -> Intake<'_> {
        Intake::new(&self.settings, &self.state).stopping(self.stopping)
    }

    /// The breaker as the lanes see it.
    #[must_use]
    pub const fn breaker(&self) -> BreakerState {
        self.breaker.state
    }

    /// The slots whose callers should exist but don't.
    #[must_use]
    pub fn missing_callers(&self) -> Vec<SlotId> {
        (0..self.settings.slots())
            .map(SlotId)
            .filter(|slot| !self.slots.contains_key(slot))
            .collect()
    }

    /// Whether one call finds out something for all: nothing goes beside it.
    fn is_probing(&self) -> bool {
        let state = &self.state;
        self.breaker.state == BreakerState::HalfOpen || state.probing || state.route.is_some()
    }

    fn in_flight(&self) -> usize {
        let taken = self.slots.values().filter(|slot| slot.is_taken()).count();
        taken + self.recovery.in_flight()
    }

    /// Calls that callers have, or may have: one that has not said so yet may have one of an earlier queue's. What is only in
    /// doubt is open at none of the others.
    fn at_callers(&self) -> usize {
        let may_have = |slot: &&Slot| slot.is_taken() || matches!(slot, Slot::Unknown);
        self.slots.values().filter(may_have).count()
    }

    /// Whether a call to this model is open or about to be.
    fn is_called(&self, model: &str) -> bool {
        let mut slots = self.slots.values().filter_map(Slot::model);
        let mut found = self.recovery.jobs().map(Job::sent_to);
        slots.any(|called| called == model) || found.any(|called| called == model)
    }

    /// The slots that a lane has taken.
    fn taken_by(&self, lane: &str) -> usize {
        let models = self.slots.values().filter_map(Slot::model);
        if self.settings.lanes.is_empty() {
            // All there are belong to the only lane.
            return models.count();
        }
        models
            .filter(|model| self.settings.lane_of(model) == lane)
            .count()
    }

    /// Calls to a lane's models that are open or about to be.
    fn in_flight_of(&self, lane: &str) -> usize {
        let found = self.recovery.jobs().map(Job::sent_to);
        let of_lane = found.filter(|model| self.settings.lane_of(model) == lane);
        self.taken_by(lane) + of_lane.count()
    }
}

#[cfg(test)]
mod tests;
