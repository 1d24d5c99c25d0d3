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
//! 1. A slot sends only with a credit, and a credit comes only from its caller's `Ready`.
//! 2. Every attempt is on disk, staged or started, before it is sent. A staged one may be sent
//!    without waiting for its start to be stored only if that start rides in the transaction that
//!    settles the attempt before it. So after a crash a staged attempt is in doubt exactly when
//!    some started attempt is unsettled, or when the lane's state says that one crash earlier left
//!    some in doubt that are not settled yet; it was never sent otherwise.
//! 3. An open attempt that a restart finds is left alone until its slot's caller is ready: only
//!    then it is known that no call is open.

pub mod adaptive;
pub mod hold;
pub mod pace;
pub mod slot;

mod afford;
mod dispatch;
mod orphans;
mod parked;
mod routes;
mod settle;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::judge::conclude::Concluded;
use crate::life::{Applied, Dispatch, Refusal, Transition};
use crate::model::Recovered;
use crate::model::{
    AsyncTask, AttemptNo, AttemptPhase, BreakerSnapshot, BreakerState, BudgetKey, CallRecord,
    DEFAULT_LANE, HoldScope, Job, JobEntry, JobId, Pause, SchedulerState, Settings, SlotId,
    Timestamp, limits,
};
use crate::money::budget::Budgets;
use crate::queue::{Place, Queue};
use crate::scheduler::pace::Pace;
use crate::scheduler::slot::{Slot, Stage, attempt_of};

use orphans::Orphan;
use parked::Parked;
use routes::Routes;
pub use view::{LaneSnapshot, SchedulerSnapshot};

/// Something to be done, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Give the job to the slot's caller; its credit is spent.
    Run {
        /// Where.
        slot: SlotId,
        /// The job, with its open attempt.
        dispatch: Arc<Dispatch>,
        /// Cancelled before it was sent: the caller must not send it.
        cancelled: bool,
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

/// What a lane has beside its rules and what it must remember ([`crate::model::LaneCondition`]).
#[derive(Debug)]
struct Track {
    stage: Stage,
    pace: Pace,
    /// Its pace lets nothing start before this moment.
    not_before: Option<Timestamp>,
}

/// The lanes.
#[derive(Debug)]
pub struct Scheduler {
    generation: u64,
    line: Queue,
    slots: BTreeMap<SlotId, Slot>,
    tracks: BTreeMap<String, Track>,
    routes: Routes,
    orphans: BTreeMap<JobId, Orphan>,
    budgets: Budgets,
    /// Whether [`Scheduler::start`] was said.
    started: bool,
    /// Jobs that wait for room in a budget.
    parked: Parked,
    /// Accounts of which somebody from the parked was put in line lately, and may not have had his turn.
    called: BTreeSet<BudgetKey>,
    /// Accounts of everybody's for whose room the most urgent job waits in this step.
    shut: Vec<(BudgetKey, Place)>,
    /// There is more to do than one step does.
    soon: Option<Timestamp>,
    /// Jobs that are being given up on disk, with how often that was asked.
    cancelling: BTreeMap<JobId, u32>,
    state: SchedulerState,
    endpoint_digest: String,
    settings: Arc<Settings>,
    stopping: bool,
    breaker: BreakerSnapshot,
    unsettled: usize,
    open_tickets: usize,
    next_ticket: u64,
    runs: Vec<Effect>,
    transitions: Vec<Transition>,
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
        let mut lane = Self {
            generation,
            line: Queue::from_entries(recovered.waiting, &settings, now),
            slots: slots.into_iter().map(|s| (s, Slot::Unknown)).collect(),
            tracks: BTreeMap::new(),
            routes: Routes::default(),
            orphans: BTreeMap::new(),
            budgets: Budgets::default(),
            started: false,
            parked: Parked::default(),
            called: BTreeSet::new(),
            shut: Vec::new(),
            soon: None,
            cancelling: BTreeMap::new(),
            state: recovered.lane,
            endpoint_digest: settings.glm.endpoint().digest(),
            settings,
            stopping: false,
            breaker: recovered.breaker.unwrap_or_default(),
            unsettled: 0,
            open_tickets: 0,
            next_ticket: 1,
            runs: Vec::new(),
            transitions: Vec::new(),
        };
        lane.take_in(recovered.open, now);
        // On disk before any outcome of this generation is: the started attempts that show the
        // doubt now may be settled before the staged ones are.
        if lane.note_doubt() {
            lane.transitions.push(Transition::Lane(lane.state.clone()));
        }
        lane.operator_may_have_acted();
        if hold::release_disowned(&mut lane.state, &lane.settings) {
            lane.state_changed();
        }
        lane.fit_tracks(now);
        lane
    }

    /// What the lanes' pace goes on from after a restart: the calls of the last minutes. Those that are
    /// still open are added from what the store told.
    pub fn restore_pace(&mut self, calls: &[CallRecord], now: Timestamp) {
        let ended = calls.iter().map(|call| {
            let tokens = call.usage.total_tokens;
            (call.started_at, call.job_id, call.model.as_str(), tokens)
        });
        let open = self.orphans.values().filter_map(|orphan| {
            let (job, tokens) = (&orphan.job, u64::from(orphan.job.estimated_tokens));
            let open = job.open?;
            // A staged one may have been sent at any moment since it was staged, even just now.
            let at = match open.phase {
                AttemptPhase::Started => open.at,
                AttemptPhase::Staged => now,
            };
            Some((at, job.id, job.sent_to(), tokens))
        });
        let starts: Vec<_> = ended.chain(open).collect();
        for (name, track) in &mut self.tracks {
            let of_lane = starts
                .iter()
                .filter(|(_, _, model, _)| self.settings.lane_of(model) == name)
                .map(|(at, job, _, tokens)| (*at, *job, *tokens));
            track.pace.restore(of_lane, now);
        }
    }

    /// Gives every configured lane its track, with its rules; what a lane that is gone had staged goes
    /// back in line.
    fn fit_tracks(&mut self, now: Timestamp) {
        let settings = Arc::clone(&self.settings);
        for (name, rules) in settings.all_lanes() {
            match self.tracks.get_mut(name) {
                Some(track) => track.pace.configure(rules.pace),
                None => {
                    let track = Track {
                        stage: Stage::new(limits::STAGED_AHEAD_MAX),
                        pace: Pace::new(rules.pace),
                        not_before: None,
                    };
                    self.tracks.insert(name.to_owned(), track);
                }
            }
            let learnt = self.state.lanes.get(name).and_then(|lane| lane.learnt);
            let fitted = rules.auto().map(|auto| match learnt {
                Some(learnt) => adaptive::fitted(learnt, &auto, rules.max_concurrency),
                None => adaptive::begin(&auto, rules.max_concurrency, now),
            });
            if learnt != fitted {
                self.state.lanes.entry(name.to_owned()).or_default().learnt = fitted;
            }
        }
        let gone: Vec<String> = self
            .tracks
            .keys()
            .filter(|name| *name != DEFAULT_LANE && !settings.lanes.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            let stage = self
                .tracks
                .remove(&name)
                .map(|mut track| track.stage.take_where(|_| true));
            for staged in stage.into_iter().flatten() {
                self.unstage(staged, now);
            }
            self.state.lanes.remove(&name);
        }
        hold::tidy(&mut self.state);
        self.routes.forget();
    }

    /// Another key or base URL than when a hold began: the operator acted, and what was held or learnt
    /// is about another account.
    fn operator_may_have_acted(&mut self) {
        let digest = self.settings.glm.endpoint().digest();
        let changed = self
            .state
            .endpoint_digest
            .as_ref()
            .is_some_and(|old| *old != digest);
        self.endpoint_digest = digest;
        if changed {
            self.state.endpoint_digest = None;
            hold::forget_account(&mut self.state);
            self.state_changed();
        }
    }

    /// Puts the lanes' state among the changes to store.
    fn state_changed(&mut self) {
        hold::tidy(&mut self.state);
        self.routes.forget();
        self.transitions.push(Transition::Lane(self.state.clone()));
    }

    // ---- what is said to it ------------------------------------------------------------------

    /// Begins: the first effects after [`Scheduler::recover`].
    #[must_use]
    pub fn start(&mut self, now: Timestamp) -> Vec<Effect> {
        self.started = true;
        self.resolve_orphans(now, None);
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
            if !self.knows(entry.id) && !self.cancelling.contains_key(&entry.id) {
                self.line.insert(entry, now);
            }
        }
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
        self.resolve_orphans(now, None);
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
    #[must_use]
    pub fn stays_open(&self, slot: SlotId, id: JobId, attempt: AttemptNo) -> bool {
        let given_up = self
            .awaited(slot, id, attempt)
            .map(|(_, cancelled)| cancelled);
        given_up == Some(false) && (self.stopping || self.orphans.contains_key(&id))
    }

    /// A slot's caller was stopped while GLM holds its call as a task: the attempt stays open on disk,
    /// and its answer is fetched later, in a shutdown by the next start.
    #[must_use]
    pub fn left_open(&mut self, slot: SlotId, left: LeftOpen, now: Timestamp) -> Vec<Effect> {
        if self.stopping {
            self.orphans.remove(&left.job_id);
            self.transitions.push(Transition::Task {
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
        let orphan = self.orphans.get(&id)?;
        let open = orphan.job.open?;
        (open.no == attempt).then_some((&orphan.job, orphan.cancelled))
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
        self.orphans.remove(&id);
        if let Some(snapshot) = &breaker {
            self.breaker = snapshot.clone();
        }
        let learnt = self.learn(slot, &concluded, now);
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
        self.open_tickets = self.open_tickets.saturating_sub(1);
        for (transition, decision) in decisions {
            self.acknowledged(ticket, transition, decision, now);
        }
        self.go_on(now)
    }

    /// Somebody gives a job up.
    #[must_use]
    pub fn cancel(&mut self, id: JobId, now: Timestamp) -> (CancelPath, Vec<Effect>) {
        if self.cancel_orphan(id) {
            // A task that waits to be fetched ends at once; others when their call is seen to be closed.
            self.resolve_orphans(now, None);
            return (CancelPath::Settlement, self.go_on(now));
        }
        if self.cancel_in_slot(id) {
            return (CancelPath::Settlement, self.go_on(now));
        }
        self.forget_shelved(id);
        self.line.remove(id);
        for track in self.tracks.values_mut() {
            if track.stage.take(id).is_some() {
                self.budgets.release(id);
            }
        }
        *self.cancelling.entry(id).or_default() += 1;
        self.transitions.push(Transition::Cancel {
            job_id: id,
            at: now,
        });
        (CancelPath::Commit, self.go_on(now))
    }

    fn cancel_in_slot(&mut self, id: JobId) -> bool {
        let Some((slot_id, slot)) = self.slots.iter_mut().find(|(_, s)| s.job_id() == Some(id))
        else {
            return false;
        };
        match slot {
            Slot::Starting { cancelled, .. } => *cancelled = true,
            Slot::Busy {
                dispatch,
                cancelled,
                ..
            } => {
                *cancelled = true;
                self.runs.push(Effect::Abort {
                    slot: *slot_id,
                    job_id: id,
                    attempt: attempt_of(dispatch),
                });
            }
            Slot::Unknown | Slot::Idle => return false,
        }
        true
    }

    /// Somebody puts a failed, cancelled or set-aside job back in line.
    #[must_use]
    pub fn requeue(&mut self, id: JobId, now: Timestamp) -> Vec<Effect> {
        self.transitions.push(Transition::Requeue { job_id: id });
        self.go_on(now)
    }

    /// Somebody changes a pending job's priority.
    #[must_use]
    pub fn reprioritise(&mut self, id: JobId, priority: i32, now: Timestamp) -> Vec<Effect> {
        self.transitions.push(Transition::Reprioritise {
            job_id: id,
            priority,
        });
        self.go_on(now)
    }

    /// An operator pauses every lane.
    #[must_use]
    pub fn pause(&mut self, reason: Option<String>, now: Timestamp) -> Vec<Effect> {
        self.state.paused = Some(Pause { since: now, reason });
        self.state_changed();
        self.go_on(now)
    }

    /// An operator closes the intake: what waits is worked off.
    #[must_use]
    pub fn close_intake(&mut self, reason: Option<String>, now: Timestamp) -> Vec<Effect> {
        self.state.draining = Some(Pause { since: now, reason });
        self.state_changed();
        self.go_on(now)
    }

    /// An operator resumes: pause and every hold end, the intake is open.
    #[must_use]
    pub fn resume(&mut self, now: Timestamp) -> Vec<Effect> {
        hold::release_all(&mut self.state);
        self.fit_tracks(now);
        self.state_changed();
        self.go_on(now)
    }

    /// An operator ends one hold. Tells whether there was one.
    #[must_use]
    pub fn release(&mut self, scope: &HoldScope, now: Timestamp) -> (bool, Vec<Effect>) {
        let was = hold::release(&mut self.state, scope);
        if was {
            self.state_changed();
        }
        (was, self.go_on(now))
    }

    /// The settings changed. Another key or base URL ends what was held for the old account; another
    /// meaning of a code ends what it held.
    #[must_use]
    pub fn configure(&mut self, settings: Arc<Settings>, now: Timestamp) -> Vec<Effect> {
        let before = std::mem::replace(&mut self.settings, Arc::clone(&settings));
        self.unstage_reordered(&before, now);
        let codes: Vec<String> = self
            .state
            .holds()
            .map(|(_, hold)| hold.code.clone())
            .collect();
        for code in codes {
            if before.policy.get(&code) != settings.policy.get(&code)
                && hold::release_code(&mut self.state, &code)
            {
                self.state_changed();
            }
        }
        self.operator_may_have_acted();
        // Tasks of another account can't be fetched.
        self.resolve_orphans(now, None);
        let known = self.state.clone();
        self.fit_tracks(now);
        if self.state != known {
            self.state_changed();
        }
        self.line.configure(&settings);
        // Prices, bounds and fallbacks decide what fits, too.
        self.parked.look_at_all();
        self.go_on(now)
    }

    /// A lane's jobs go by another order now: places under the old one say nothing beside the new, so
    /// what was staged by them goes back in line.
    fn unstage_reordered(&mut self, before: &Settings, now: Timestamp) {
        let settings = Arc::clone(&self.settings);
        let mut astray = Vec::new();
        for (name, track) in &mut self.tracks {
            if before.rules_of(name).order != settings.rules_of(name).order {
                astray.extend(track.stage.take_where(|_| true));
            }
        }
        for staged in astray {
            self.unstage(staged, now);
        }
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
            self.transitions.push(Transition::Breaker(snapshot.clone()));
        }
        self.go_on(now)
    }

    /// Time has passed.
    #[must_use]
    pub fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        self.go_on(now)
    }

    /// Sends nothing more; staged attempts are taken back. [`Scheduler::is_drained`] tells the end.
    #[must_use]
    pub fn drain(&mut self, now: Timestamp) -> Vec<Effect> {
        self.stopping = true;
        let mut staged = Vec::new();
        for track in self.tracks.values_mut() {
            staged.extend(track.stage.take_where(|_| true));
        }
        for staged in staged {
            self.unstage(staged, now);
        }
        self.go_on(now)
    }

    /// Closes every open call, as at the end of a shutdown's retry_policy.
    #[must_use]
    pub fn abort_all(&mut self) -> Vec<Effect> {
        let busy = self.slots.iter().filter_map(|(slot, state)| match state {
            Slot::Busy { dispatch, .. } => Some(Effect::Abort {
                slot: *slot,
                job_id: dispatch.job.id,
                attempt: attempt_of(dispatch),
            }),
            _ => None,
        });
        let left = self
            .orphans
            .iter()
            .filter_map(|(id, orphan)| orphan.abort(*id));
        busy.chain(left).collect()
    }

    // ---- what can be asked of it -------------------------------------------------------------

    /// Whether nothing is in flight and everything is stored.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.in_flight() == 0 && self.open_tickets == 0
    }

    /// Whether the job waits or runs: its end is still to come.
    #[must_use]
    pub fn knows(&self, id: JobId) -> bool {
        self.line.get(id).is_some()
            || self.orphans.contains_key(&id)
            || self.slots.values().any(|slot| slot.job_id() == Some(id))
            || self.tracks.values().any(|track| track.stage.contains(id))
    }

    /// When something changes by itself next.
    #[must_use]
    pub fn next_change(&self) -> Option<Timestamp> {
        let tracks = self.tracks.values();
        let of_lanes = tracks.flat_map(|track| [track.stage.next_deadline(), track.not_before]);
        let budgets = self.budgets.next_roll();
        [
            self.line.next_change(),
            hold::next_end(&self.state),
            budgets,
            self.soon,
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

    fn in_flight(&self) -> usize {
        let taken = self.slots.values().filter(|slot| slot.is_taken()).count();
        // A task that nobody fetches is open at GLM, but not here: the next start can fetch it, too.
        let open = self.orphans.values().filter(|orphan| !orphan.waits());
        taken + open.count()
    }

    /// Whether a call to this model is open or about to be.
    fn is_called(&self, model: &str) -> bool {
        let mut slots = self.slots.values().filter_map(Slot::model);
        let mut orphans = self.orphans.values().map(|orphan| orphan.job.sent_to());
        slots.any(|called| called == model) || orphans.any(|called| called == model)
    }

    /// The slots that a lane has taken.
    fn taken_by(&self, lane: &str) -> usize {
        let models = self.slots.values().filter_map(Slot::model);
        models
            .filter(|model| self.settings.lane_of(model) == lane)
            .count()
    }

    /// Calls to a lane's models that are open or about to be.
    fn in_flight_of(&self, lane: &str) -> usize {
        let orphans = self.orphans.values().map(|orphan| orphan.job.sent_to());
        let of_lane = orphans.filter(|model| self.settings.lane_of(model) == lane);
        self.taken_by(lane) + of_lane.count()
    }

    fn hand_out(&mut self) -> Vec<Effect> {
        let mut effects = std::mem::take(&mut self.runs);
        if !self.transitions.is_empty() {
            effects.push(Effect::Commit {
                ticket: self.next_ticket,
                transitions: std::mem::take(&mut self.transitions),
            });
            self.next_ticket += 1;
            self.open_tickets += 1;
        }
        effects
    }
}

#[cfg(test)]
mod tests;
