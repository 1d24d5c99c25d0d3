//! The lane as one synchronous machine: what is said to it goes in, what is to be done comes out.
//! The queue actor around it only carries messages; every decision about order, slots, holds and
//! staging is here and is tested without a runtime.
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

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{
    AttemptNo, AttemptPhase, BreakerSnapshot, BreakerState, DEFAULT_LANE, Failure, FailureClass,
    Hold, HoldKind, HoldScope, Job, JobEntry, JobId, LaneState, Pause, Settings, SlotId, Timestamp,
    code, limits,
};
use crate::policy::conclude::{self, Concluded};
use crate::policy::hold;
use crate::policy::judge::{LaneEffect, Sent};
use crate::policy::ready::{Line, Place};
use crate::policy::slot::{Slot, Stage, Staged, attempt_of};
use crate::policy::transition::{Applied, Dispatch, Next, Refusal, Transition};
use crate::ports::Recovered;

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
        /// For [`Lane::committed`].
        ticket: u64,
        /// The changes.
        transitions: Vec<Transition>,
    },
}

/// What the store said of one change of a commit.
pub type Verdict = (Transition, Result<Applied, Refusal>);

/// An open attempt found at the start, waiting for proof of what became of it.
#[derive(Debug)]
struct Orphan {
    job: Job,
    sent: Sent,
    cancelled: bool,
}

/// What became of a wish to cancel a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelPath {
    /// Committed at once: the answer is in the store's verdict.
    Commit,
    /// Its call is being closed: the answer is in its settlement.
    Settlement,
}

/// A view of one lane among several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneView {
    /// Its name.
    pub name: String,
    /// Calls that are open on it or about to be.
    pub in_flight: usize,
    /// Jobs whose next attempt is on record ahead of a slot.
    pub staged: usize,
    /// Calls that may be open, as configured.
    pub max_concurrency: u16,
    /// Calls that may be open for now: less than configured while automatic concurrency learns, or
    /// while a probe is out.
    pub limit: u16,
    /// Its pace lets nothing start before this moment.
    pub not_before: Option<Timestamp>,
}

/// A view of the lane for tests, the admin API and the curious.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneSnapshot {
    /// The generation of actors.
    pub generation: u64,
    /// Jobs that are due and wait for a slot, staged ones included.
    pub ready: usize,
    /// Jobs that wait for their time.
    pub waiting: usize,
    /// Jobs that wait for other jobs or for somebody's word.
    pub parked: usize,
    /// Jobs whose next attempt is on record ahead of the slot.
    pub staged: usize,
    /// Calls that are open or about to be, those left by an earlier generation included.
    pub in_flight: usize,
    /// Calls that may be open, over all lanes.
    pub max_concurrency: u16,
    /// Every lane, the default one first.
    pub lanes: Vec<LaneView>,
    /// Outcomes that wait for their commit.
    pub unsettled: usize,
    /// Whether the configuration lets it run.
    pub active: bool,
    /// Whether it is shutting down.
    pub draining: bool,
    /// Pause and hold.
    pub state: LaneState,
    /// The breaker as the lane sees it.
    pub breaker: BreakerState,
}

/// The lane.
#[derive(Debug)]
pub struct Lane {
    generation: u64,
    line: Line,
    slots: BTreeMap<SlotId, Slot>,
    stage: Stage,
    orphans: BTreeMap<JobId, Orphan>,
    /// Jobs that are being given up on disk, with how often that was asked.
    cancelling: BTreeMap<JobId, u32>,
    state: LaneState,
    endpoint_digest: String,
    settings: Arc<Settings>,
    draining: bool,
    breaker: BreakerState,
    unsettled: usize,
    open_tickets: usize,
    next_ticket: u64,
    runs: Vec<Effect>,
    transitions: Vec<Transition>,
}

impl Lane {
    /// The lane as the store remembers it. `slots` are the callers that exist; each must announce
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
            line: Line::from_entries(recovered.waiting, now),
            slots: slots.into_iter().map(|s| (s, Slot::Unknown)).collect(),
            stage: Stage::new(limits::STAGED_AHEAD_MAX),
            orphans: BTreeMap::new(),
            cancelling: BTreeMap::new(),
            state: recovered.lane,
            endpoint_digest: settings.endpoint.digest(),
            settings,
            draining: false,
            breaker: recovered.breaker.map(|b| b.state).unwrap_or_default(),
            unsettled: 0,
            open_tickets: 0,
            next_ticket: 1,
            runs: Vec::new(),
            transitions: Vec::new(),
        };
        let in_doubt = lane.state.in_doubt
            || recovered
                .open
                .iter()
                .any(|job| matches!(job.open, Some(o) if o.phase == AttemptPhase::Started));
        for job in recovered.open {
            let started = matches!(job.open, Some(o) if o.phase == AttemptPhase::Started);
            if started || in_doubt {
                let sent = if started { Sent::Yes } else { Sent::Maybe };
                let orphan = Orphan {
                    job,
                    sent,
                    cancelled: false,
                };
                lane.orphans.insert(orphan.job.id, orphan);
            } else {
                lane.transitions
                    .push(Transition::Unstage { job_id: job.id });
                lane.line.insert(job.entry(), now);
            }
        }
        // On disk before any outcome of this generation is: the started attempts that show the
        // doubt now may be settled before the staged ones are.
        if lane.note_doubt() {
            lane.transitions.push(Transition::Lane(lane.state.clone()));
        }
        lane.operator_may_have_acted();
        lane
    }

    /// Notes in the lane's state whether staged attempts are in doubt. Tells whether that is news.
    fn note_doubt(&mut self) -> bool {
        let mut sent = self.orphans.values().map(|orphan| orphan.sent);
        let in_doubt = sent.any(|sent| sent == Sent::Maybe);
        std::mem::replace(&mut self.state.in_doubt, in_doubt) != in_doubt
    }

    /// Another key or base URL than when the hold began: the operator acted.
    fn operator_may_have_acted(&mut self) {
        let digest = self.settings.endpoint.digest();
        let changed = self.state.endpoint_digest.as_ref() != Some(&digest);
        self.endpoint_digest = digest;
        if changed && hold::operator_acted(&mut self.state).is_some() {
            self.transitions.push(Transition::Lane(self.state.clone()));
        }
    }

    // ---- what is said to it ------------------------------------------------------------------

    /// Begins: the first effects after [`Lane::recover`].
    #[must_use]
    pub fn start(&mut self, now: Timestamp) -> Vec<Effect> {
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
    /// it is among [`Lane::missing_callers`] from now on.
    #[must_use]
    pub fn caller_gone(&mut self, slot: SlotId, now: Timestamp) -> Vec<Effect> {
        if self.slots.get(&slot).is_some_and(|slot| !slot.is_taken()) {
            self.slots.remove(&slot);
        }
        self.resolve_orphans(now, None);
        self.go_on(now)
    }

    /// A slot's caller has made calls for an earlier queue: what it sent has ended, and did not bring
    /// it down. Outcomes that are not on record were lost by the store. Said before [`Lane::ready`] and
    /// [`Lane::finished`].
    pub fn outlived(&mut self, slot: SlotId) {
        for orphan in self.orphans.values_mut() {
            let on_slot = orphan.job.open.is_some_and(|open| open.slot == slot);
            if on_slot && orphan.sent == Sent::Yes {
                orphan.sent = Sent::Ended;
            }
        }
    }

    /// A slot's caller is ready and has no outcome to report: no call is open on the slot.
    #[must_use]
    pub fn ready(&mut self, slot: SlotId, now: Timestamp) -> Vec<Effect> {
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
        if let Some(state) = self.slots.get_mut(&slot)
            && matches!(state, Slot::Busy { .. })
            && state.job_id() == Some(id)
        {
            *state = Slot::Idle;
        }
        if let Some(snapshot) = &breaker {
            self.breaker = snapshot.state;
        }
        self.settle(concluded, breaker, now);
        self.credit(slot, now);
        self.go_on(now)
    }

    /// The store answered a commit.
    #[must_use]
    pub fn committed(&mut self, ticket: u64, verdicts: &[Verdict], now: Timestamp) -> Vec<Effect> {
        self.open_tickets = self.open_tickets.saturating_sub(1);
        for (transition, verdict) in verdicts {
            self.acknowledged(ticket, transition, verdict, now);
        }
        self.go_on(now)
    }

    /// Somebody gives a job up.
    #[must_use]
    pub fn cancel(&mut self, id: JobId, now: Timestamp) -> (CancelPath, Vec<Effect>) {
        if let Some(orphan) = self.orphans.get_mut(&id) {
            orphan.cancelled = true;
            // One that is only in doubt has no slot that is known.
            if let (Sent::Yes, Some(open)) = (orphan.sent, orphan.job.open) {
                self.runs.push(Effect::Abort {
                    slot: open.slot,
                    job_id: id,
                    attempt: open.no,
                });
            }
            return (CancelPath::Settlement, self.go_on(now));
        }
        for (slot_id, slot) in &mut self.slots {
            match slot {
                Slot::Starting {
                    entry, cancelled, ..
                } if entry.id == id => {
                    *cancelled = true;
                    return (CancelPath::Settlement, self.go_on(now));
                }
                Slot::Busy {
                    dispatch,
                    cancelled,
                } if dispatch.job.id == id => {
                    *cancelled = true;
                    self.runs.push(Effect::Abort {
                        slot: *slot_id,
                        job_id: id,
                        attempt: attempt_of(dispatch),
                    });
                    return (CancelPath::Settlement, self.go_on(now));
                }
                _ => {}
            }
        }
        self.line.remove(id);
        self.stage.take(id);
        *self.cancelling.entry(id).or_default() += 1;
        self.transitions.push(Transition::Cancel {
            job_id: id,
            at: now,
        });
        (CancelPath::Commit, self.go_on(now))
    }

    /// Somebody puts a failed or cancelled job back in line.
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

    /// An operator pauses the lane.
    #[must_use]
    pub fn pause(&mut self, reason: Option<String>, now: Timestamp) -> Vec<Effect> {
        self.state.paused = Some(Pause { since: now, reason });
        self.transitions.push(Transition::Lane(self.state.clone()));
        self.go_on(now)
    }

    /// An operator closes the intake: what waits is worked off.
    #[must_use]
    pub fn close_intake(&mut self, reason: Option<String>, now: Timestamp) -> Vec<Effect> {
        self.state.draining = Some(Pause { since: now, reason });
        self.transitions.push(Transition::Lane(self.state.clone()));
        self.go_on(now)
    }

    /// An operator resumes it: pause and holds end, and the intake is open again.
    #[must_use]
    pub fn resume(&mut self, now: Timestamp) -> Vec<Effect> {
        hold::release(&mut self.state);
        self.transitions.push(Transition::Lane(self.state.clone()));
        self.go_on(now)
    }

    /// An operator ends one hold.
    #[must_use]
    pub fn release(&mut self, scope: &HoldScope, now: Timestamp) -> Vec<Effect> {
        hold::release_one(&mut self.state, scope);
        self.transitions.push(Transition::Lane(self.state.clone()));
        self.go_on(now)
    }

    /// The settings changed. Another key or base URL ends an operator hold: it waits for just that.
    #[must_use]
    pub fn configure(&mut self, settings: Arc<Settings>, now: Timestamp) -> Vec<Effect> {
        self.settings = settings;
        self.operator_may_have_acted();
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
        self.breaker = snapshot.state;
        if store {
            self.transitions.push(Transition::Breaker(snapshot.clone()));
        }
        self.go_on(now)
    }

    /// Time has passed.
    #[must_use]
    pub fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        if hold::expire(&mut self.state, now).is_some() {
            self.transitions.push(Transition::Lane(self.state.clone()));
        }
        self.go_on(now)
    }

    /// Sends nothing more; staged attempts are taken back. [`Lane::is_drained`] tells the end.
    #[must_use]
    pub fn drain(&mut self, now: Timestamp) -> Vec<Effect> {
        self.draining = true;
        while let Some(staged) = self.stage.take_last() {
            self.unstage(staged.entry, now);
        }
        self.go_on(now)
    }

    /// Closes every open call, as at the end of a shutdown's patience.
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
        let left = self.orphans.iter().filter_map(|(id, orphan)| {
            let open = orphan.job.open.filter(|_| orphan.sent == Sent::Yes)?;
            Some(Effect::Abort {
                slot: open.slot,
                job_id: *id,
                attempt: open.no,
            })
        });
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
            || self.stage.contains(id)
    }

    /// When the lane changes by itself next.
    #[must_use]
    pub fn next_change(&self) -> Option<Timestamp> {
        let hold = self.state.hold.as_ref().and_then(|hold| hold.until);
        let staged = self.stage.next_deadline();
        [self.line.next_change(), staged, hold]
            .into_iter()
            .flatten()
            .min()
    }

    /// Pause, hold and throttle level.
    #[must_use]
    pub const fn state(&self) -> &LaneState {
        &self.state
    }

    /// Throttle answers in a row.
    #[must_use]
    pub fn throttle_level(&self) -> u32 {
        self.state
            .lanes
            .get(DEFAULT_LANE)
            .map_or(0, |lane| lane.throttle_level)
    }

    /// The breaker as the lane sees it.
    #[must_use]
    pub const fn breaker(&self) -> BreakerState {
        self.breaker
    }

    /// The slots whose callers should exist but don't.
    #[must_use]
    pub fn missing_callers(&self) -> Vec<SlotId> {
        (0..self.settings.lane.max_concurrency)
            .map(SlotId)
            .filter(|slot| !self.slots.contains_key(slot))
            .collect()
    }

    /// A view of it.
    #[must_use]
    pub fn snapshot(&self) -> LaneSnapshot {
        LaneSnapshot {
            generation: self.generation,
            ready: self.line.ready_len() + self.stage.len(),
            waiting: self.line.due_len(),
            staged: self.stage.len(),
            in_flight: self.in_flight(),
            max_concurrency: self.settings.slots(),
            parked: 0,
            lanes: Vec::new(),
            unsettled: self.unsettled,
            active: self.settings.is_active,
            draining: self.draining,
            state: self.state.clone(),
            breaker: self.breaker,
        }
    }

    fn in_flight(&self) -> usize {
        let taken = self.slots.values().filter(|slot| slot.is_taken()).count();
        taken + self.orphans.len()
    }

    // ---- how it decides ----------------------------------------------------------------------

    /// The slot may send again. A credit that the slot does not wait for is none: the slot was
    /// retired meanwhile, or something was sent on the credit before.
    fn credit(&mut self, slot: SlotId, now: Timestamp) {
        if let Some(state @ Slot::Unknown) = self.slots.get_mut(&slot) {
            *state = Slot::Idle;
        }
        self.resolve_orphans(now, Some(slot));
    }

    /// Closes as interrupted the attempts that are proven to have no open call: those of the slot
    /// that just became ready or does not exist, and, once every slot has spoken, those in doubt.
    fn resolve_orphans(&mut self, now: Timestamp, ready: Option<SlotId>) {
        if self.orphans.is_empty() {
            return;
        }
        let all_known = !self.slots.values().any(|s| matches!(s, Slot::Unknown));
        let closed: Vec<JobId> = self
            .orphans
            .iter()
            .filter(|(_, orphan)| match (orphan.sent, orphan.job.open) {
                (Sent::Yes | Sent::Ended, Some(open)) => {
                    ready == Some(open.slot) || !self.slots.contains_key(&open.slot)
                }
                _ => all_known,
            })
            .map(|(id, _)| *id)
            .collect();
        for id in closed {
            if let Some(orphan) = self.orphans.remove(&id) {
                let concluded = self.interrupt(&orphan, now);
                self.settle(concluded, None, now);
            }
        }
    }

    fn interrupt(&self, orphan: &Orphan, now: Timestamp) -> Concluded {
        let mut concluded = conclude::interrupted(&orphan.job, orphan.sent, &self.settings, now);
        if orphan.cancelled {
            concluded.settlement.next = Next::Cancelled;
            concluded.back_in_line = None;
        }
        concluded
    }

    /// Puts an attempt's end among the changes to store, and the job back in line if it goes there.
    fn settle(&mut self, concluded: Concluded, breaker: Option<BreakerSnapshot>, now: Timestamp) {
        let mut settlement = concluded.settlement;
        let before = self.state.clone();
        match concluded.lane {
            LaneEffect::GoOn => {}
            LaneEffect::Hold(new) => self.hold(new),
        }
        if concluded.answered {
            self.state.lanes.clear();
        }
        self.note_doubt();
        if self.state != before {
            settlement.lane = Some(self.state.clone());
        }
        settlement.breaker = breaker;
        self.unsettled += 1;
        if let Some(entry) = concluded.back_in_line {
            self.line.insert(entry, now);
        }
        self.transitions
            .push(Transition::Settle(Box::new(settlement)));
    }

    fn hold(&mut self, new: Hold) {
        if new.kind == HoldKind::Throttle {
            let level = &mut self
                .state
                .lanes
                .entry(DEFAULT_LANE.to_owned())
                .or_default()
                .throttle_level;
            *level = level.saturating_add(1);
        }
        self.state.hold = Some(hold::join(self.state.hold.take(), new));
        self.state.endpoint_digest = Some(self.endpoint_digest.clone());
    }

    fn unstage(&mut self, mut entry: JobEntry, now: Timestamp) {
        self.transitions
            .push(Transition::Unstage { job_id: entry.id });
        entry.due_at = None;
        self.line.insert(entry, now);
    }

    fn acknowledged(
        &mut self,
        ticket: u64,
        transition: &Transition,
        verdict: &Result<Applied, Refusal>,
        now: Timestamp,
    ) {
        match (transition, verdict) {
            (Transition::Stage { job_id, .. }, verdict) => {
                let Some(staged) = self.stage.get_mut(*job_id) else {
                    return;
                };
                // Staged, taken back and staged again: the answer of the first is not the second's.
                if staged.ticket != ticket {
                    return;
                }
                match verdict {
                    Ok(Applied::Dispatch(dispatch)) => {
                        staged.dispatch = Some(Arc::clone(dispatch));
                    }
                    _ => drop(self.stage.take(*job_id)),
                }
            }
            (Transition::Start { slot, .. }, verdict) => self.started(*slot, ticket, verdict),
            (Transition::Settle(_), _) => self.unsettled = self.unsettled.saturating_sub(1),
            // Not if it was given up again before this was answered: that comes after it on disk, too.
            (Transition::Requeue { .. }, Ok(Applied::Job(job)))
                if !self.cancelling.contains_key(&job.id) =>
            {
                self.line.insert(job.entry(), now);
            }
            (Transition::Cancel { job_id, .. }, _) => {
                if let Some(count) = self.cancelling.get_mut(job_id) {
                    *count -= 1;
                    if *count == 0 {
                        self.cancelling.remove(job_id);
                    }
                }
            }
            (Transition::Reprioritise { job_id, priority }, Ok(_)) => {
                if let Some(mut staged) = self.stage.take(*job_id) {
                    staged.entry.priority = *priority;
                    // A retry of it goes back in line by what the dispatch says.
                    if let Some(dispatch) = &mut staged.dispatch {
                        Arc::make_mut(dispatch).job.priority = *priority;
                    }
                    self.stage.insert(staged);
                } else if let Some(orphan) = self.orphans.get_mut(job_id) {
                    orphan.job.priority = *priority;
                } else {
                    self.line.reprioritise(*job_id, *priority, now);
                }
            }
            _ => {}
        }
    }

    /// A start that was waited for is on disk: the call may go out.
    fn started(&mut self, slot: SlotId, ticket: u64, verdict: &Result<Applied, Refusal>) {
        let Some(state) = self.slots.get_mut(&slot) else {
            return;
        };
        let Slot::Starting {
            ticket: awaited,
            cancelled,
            ..
        } = *state
        else {
            return;
        };
        if awaited != ticket {
            return;
        }
        let Ok(Applied::Dispatch(dispatch)) = verdict else {
            *state = Slot::Idle;
            return;
        };
        *state = Slot::Busy {
            dispatch: Arc::clone(dispatch),
            cancelled,
        };
        self.runs.push(Effect::Run {
            slot,
            dispatch: Arc::clone(dispatch),
            cancelled,
        });
    }

    /// Whether anything may be sent now.
    fn may_send(&self, now: Timestamp) -> bool {
        let held = self
            .state
            .hold
            .as_ref()
            .is_some_and(|hold| hold.until.is_none_or(|until| until > now));
        let in_flight = self.in_flight();
        let allowed = match self.breaker {
            BreakerState::Closed => usize::from(self.settings.lane.max_concurrency),
            // The probe: one, and nothing beside it.
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 0,
        };
        self.settings.is_active
            && !self.draining
            && self.state.paused.is_none()
            && !held
            && in_flight < allowed
            && self.unsettled < limits::UNSETTLED_MAX
    }

    /// The common end of every step: expire, send, stage, retire; then hand out what is to be done.
    fn go_on(&mut self, now: Timestamp) -> Vec<Effect> {
        self.line.wake(now);
        self.expire_deadlines(now);
        let settling = self
            .transitions
            .iter()
            .any(|t| matches!(t, Transition::Settle(_)));
        while self.may_send(now) {
            let Some(slot) = self.idle_slot() else { break };
            if !self.send(slot, settling, now) {
                break;
            }
        }
        self.stage_ahead(now);
        self.retire_callers();
        self.hand_out()
    }

    fn expire_deadlines(&mut self, now: Timestamp) {
        let staged = self.stage.expire(now);
        for entry in staged.into_iter().chain(self.line.expire(now)) {
            let failure = Failure::new(
                FailureClass::RequestFatal,
                code::DEADLINE,
                "the job's deadline passed before it was done",
            );
            self.transitions.push(Transition::Fail {
                job_id: entry.id,
                failure,
                at: now,
            });
        }
    }

    fn idle_slot(&self) -> Option<SlotId> {
        self.slots
            .iter()
            .find(|(_, slot)| matches!(slot, Slot::Idle))
            .map(|(id, _)| *id)
    }

    /// Gives the slot to the most urgent job, staged or in line. `settling`: the step stores an
    /// outcome, so a start may ride with it and the call need not wait (rule 2).
    fn send(&mut self, slot: SlotId, settling: bool, now: Timestamp) -> bool {
        let staged_first = match (self.stage.first(), self.line.first()) {
            (None, None) => return false,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(staged), Some(entry)) => Place::of(&staged.entry) < Place::of(entry),
        };
        let entry = if staged_first {
            let Some(staged) = self.stage.take_first() else {
                return false;
            };
            if settling && let Some(dispatch) = staged.dispatch {
                self.stage.ran();
                self.send_staged(slot, dispatch, now);
                return true;
            }
            staged.entry
        } else {
            let Some(entry) = self.line.pop() else {
                return false;
            };
            entry
        };
        if settling {
            self.stage.stalled();
        }
        let job_id = entry.id;
        let state = Slot::Starting {
            entry,
            ticket: self.next_ticket,
            cancelled: false,
        };
        self.slots.insert(slot, state);
        self.transitions.push(Transition::Start {
            job_id,
            slot,
            at: now,
            served_by: None,
        });
        true
    }

    fn send_staged(&mut self, slot: SlotId, dispatch: Arc<Dispatch>, now: Timestamp) {
        self.transitions.push(Transition::Start {
            job_id: dispatch.job.id,
            slot,
            at: now,
            served_by: None,
        });
        let busy = Slot::Busy {
            dispatch: Arc::clone(&dispatch),
            cancelled: false,
        };
        self.slots.insert(slot, busy);
        self.runs.push(Effect::Run {
            slot,
            dispatch,
            cancelled: false,
        });
    }

    /// Keeps the most urgent jobs on record ahead of the busy slots. What is more urgent than the
    /// last of them takes its place.
    fn stage_ahead(&mut self, now: Timestamp) {
        let busy = self.slots.values().filter(|slot| slot.is_taken()).count();
        if busy == 0 || self.draining || !self.settings.is_active || self.state.paused.is_some() {
            return;
        }
        let want = (busy * self.stage.depth()).min(limits::STAGED_AHEAD_MAX.max(busy));
        loop {
            let Some(next) = self.line.first() else {
                return;
            };
            if self.stage.len() >= want {
                let displaced = self
                    .stage
                    .last()
                    .is_some_and(|last| Place::of(next) < Place::of(&last.entry));
                if !displaced {
                    return;
                }
                if let Some(last) = self.stage.take_last() {
                    self.unstage(last.entry, now);
                }
            }
            let Some(entry) = self.line.pop() else { return };
            self.transitions.push(Transition::Stage {
                job_id: entry.id,
                at: now,
            });
            self.stage.insert(Staged {
                entry,
                ticket: self.next_ticket,
                dispatch: None,
            });
        }
    }

    /// Ends callers above the bound as they become idle.
    fn retire_callers(&mut self) {
        let surplus: Vec<SlotId> = self
            .slots
            .iter()
            .filter(|(id, slot)| {
                id.0 >= self.settings.lane.max_concurrency && matches!(slot, Slot::Idle)
            })
            .map(|(id, _)| *id)
            .collect();
        for slot in surplus {
            self.slots.remove(&slot);
            self.runs.push(Effect::Retire { slot });
        }
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
#[path = "lane_tests.rs"]
mod tests;
