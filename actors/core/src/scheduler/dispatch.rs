//! Sends the next job of each lane through an idle slot, and retires callers that are not needed any more.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Effect, Scheduler, routes};
use crate::model::{
    BreakerState, Dispatch, Failure, FailureClass, JobEntry, JobId, LaneRules, Reserve, SlotId,
    Timestamp, Transition, code, limits,
};
use crate::money::budget::Fit;
use crate::queue::Place;
use crate::scheduler::slot::{Sending, Slot, Staged};
use crate::scheduler::{hold, pace};

/// The next job of a lane: staged, or taken from the queue.
pub(super) enum Candidate {
    Staged(Staged),
    Waiting(Place, JobEntry),
}

/// A candidate that fits into every budget.
struct Affordable {
    next: Candidate,
    /// The model that it goes to.
    model: Arc<str>,
    reserve: Option<Reserve>,
}

/// Jobs that make way in one step at most: a long line of them must not hold up the queue.
pub(super) const STARVED_AT_ONCE: usize = 1_000;

impl Candidate {
    const fn entry(&self) -> &JobEntry {
        match self {
            Self::Staged(staged) => &staged.entry,
            Self::Waiting(_, entry) => entry,
        }
    }

    const fn place(&self) -> Place {
        match self {
            Self::Staged(staged) => staged.place,
            Self::Waiting(place, _) => *place,
        }
    }
}

impl Scheduler {
    /// The common end of every step: expire, retire, send, stage; then hand out what is to be done.
    pub(super) fn go_on(&mut self, now: Timestamp) -> Vec<Effect> {
        if hold::expire(&mut self.state, now) {
            self.state_changed();
        }
        self.soon = None;
        self.line.wake(now);
        self.expire_deadlines(now);
        self.call_back_refused(now);
        self.reroute(now);
        self.feed(now);
        self.wake_capped(now);
        // Before anything takes a slot that is none any more.
        self.retire_callers();
        self.fetch_tasks(now);
        let settings = Arc::clone(&self.settings);
        let settling = self.out.is_settling();
        for (name, rules) in settings.all_lanes() {
            if let Some(track) = self.tracks.get_mut(name) {
                track.not_before = None;
            }
            while self.may_send(name, rules) {
                let Some(slot) = self.idle_slot() else { break };
                if !self.send(name, slot, settling, now) {
                    break;
                }
            }
        }
        for (name, _) in settings.all_lanes() {
            self.stage_ahead(name, now);
        }
        self.release_ahead();
        self.out.hand_out()
    }

    /// Makes the routes anew where a hold or the settings changed them. What was staged for a lane that
    /// it may not take any more goes back into the queue.
    pub(super) fn reroute(&mut self, now: Timestamp) {
        let mut routes = std::mem::take(&mut self.routes);
        let called = |model: &str| self.is_called(model);
        let changed = routes.refresh(&self.line, &self.state, &self.settings, called);
        self.routes = routes;
        if !changed {
            return;
        }
        self.gate.look_at_diverted();
        let mut astray = Vec::new();
        for (name, track) in &mut self.tracks {
            let (state, settings) = (&self.state, &self.settings);
            let leaves = |entry: &JobEntry| !routes::lead(&entry.model, name, state, settings);
            astray.extend(track.stage.take_where(leaves));
        }
        for staged in astray {
            self.unstage(staged, now);
        }
    }

    /// Calls that a lane may have open now.
    pub(super) fn limit(&self, lane: &str, rules: &LaneRules) -> u16 {
        let condition = self.state.lanes.get(lane);
        // After a throttle answer one call finds out whether it is over: the others would only meet it,
        // too.
        if condition.is_some_and(|lane| lane.throttle_level > 0) {
            return 1;
        }
        match (rules.auto(), condition.and_then(|lane| lane.learnt)) {
            (Some(_), Some(learnt)) => learnt.limit.min(rules.max_concurrency),
            (Some(auto), None) => auto.min,
            (None, _) => rules.max_concurrency,
        }
    }

    pub(super) fn is_held(&self, lane: &str) -> bool {
        let lane = self.state.lanes.get(lane);
        lane.is_some_and(|lane| lane.hold.is_some())
    }

    /// Whether a lane may send anything now, its pace aside.
    pub(super) fn may_send(&self, lane: &str, rules: &LaneRules) -> bool {
        // One probe, and nothing beside it.
        let alone = self.is_probing();
        self.goes_on_sending(lane)
            && (!alone || self.in_flight() == 0)
            // Another lane may have more open than its new rules allow.
            && self.at_callers() < usize::from(self.settings.slots())
            && self.in_flight_of(lane) < usize::from(self.limit(lane, rules))
    }

    /// The same, however many calls are open.
    pub(super) fn goes_on_sending(&self, lane: &str) -> bool {
        let held = self.is_held(lane);
        !self.stopping
            && !self.disk_full
            && !self.gate.is_stale()
            && self.settings.glm.is_active
            && self.state.paused.is_none()
            && self.state.hold.is_none()
            && self.breaker.state != BreakerState::Open
            && !held
            && self.unsettled.len() < limits::UNSETTLED_MAX
    }

    fn expire_deadlines(&mut self, now: Timestamp) {
        let mut expired = self.line.expire(now);
        for track in self.tracks.values_mut() {
            let staged = track.stage.expire(now);
            staged.iter().for_each(|entry| self.gate.release(entry.id));
            expired.extend(staged);
        }
        for entry in expired {
            let why = self
                .kept_until_deadline(&entry, now)
                .map_or_else(String::new, |reason| format!("; {reason}"));
            self.gate.forget(entry.id);
            self.forget_refused(entry.id, true);
            let failure = Failure::new(
                FailureClass::RequestFatal,
                code::DEADLINE,
                format!("the job's deadline passed before it was done{why}"),
            );
            self.fails(entry.id, failure, now);
        }
    }

    /// A job that waits fails.
    pub(super) fn fails(&mut self, job_id: JobId, failure: Failure, at: Timestamp) {
        *self.ending.entry(job_id).or_default() += 1;
        self.out.store(Transition::Fail {
            job_id,
            failure,
            at,
        });
    }

    pub(super) fn idle_slot(&self) -> Option<SlotId> {
        self.slots
            .iter()
            .find(|(_, slot)| matches!(slot, Slot::Idle))
            .map(|(id, _)| *id)
    }

    /// The models whose jobs may go to a lane now.
    pub(super) fn open_models(&self, lane: &str) -> Option<Cow<'_, BTreeSet<Arc<str>>>> {
        let shut = self.gate.shut();
        self.routes
            .open_to(lane, &self.line, shut, &self.state, &self.settings)
    }

    /// Whether a lane has anything to send.
    pub(super) fn has_next(&self, lane: &str) -> bool {
        let models = self.open_models(lane);
        let (staged, waiting) = self.next_places(lane, models.as_deref());
        staged.is_some() || waiting.is_some()
    }

    /// Takes what a lane sends next.
    fn take_next(&mut self, lane: &str) -> Option<Candidate> {
        let models = self.routes.open_to(
            lane,
            &self.line,
            self.gate.shut(),
            &self.state,
            &self.settings,
        );
        let models = models.as_deref();
        match self.next_places(lane, models) {
            (None, None) => return None,
            (Some(staged), Some(place)) if place.outranks(staged) => {}
            (Some(_), _) => {
                let first = self.next_staged(lane)?.entry.id;
                let track = self.tracks.get_mut(lane)?;
                return track.stage.take(first).map(Candidate::Staged);
            }
            (None, Some(_)) => {}
        }
        let (place, entry) = self.line.pop(lane, models?)?;
        Some(Candidate::Waiting(place, entry))
    }

    /// Gives the slot to the lane's most urgent job, staged or in the queue, if its pace allows. `settling`:
    /// the step stores an outcome, so a start may ride with it and the call need not wait (rule 2).
    fn send(&mut self, lane: &str, slot: SlotId, settling: bool, now: Timestamp) -> bool {
        if !self.has_next(lane) || !self.pace_allows(lane, 0, now) {
            return false;
        }
        let Some(Affordable {
            next,
            model,
            reserve,
        }) = self.take_affordable(lane, now)
        else {
            return false;
        };
        let served_by = (*model != *next.entry().model).then(|| model.to_string());
        let sending = self.sets_out(lane, next.place(), next.entry(), model, now);
        let Some(track) = self.tracks.get_mut(lane) else {
            return false;
        };
        let entry = match next {
            Candidate::Staged(staged) => {
                // What is on record must tell where it went and what is reserved, should its start not
                // come to be stored.
                let tells = |dispatch: &Arc<Dispatch>| {
                    let job = &dispatch.job;
                    job.served_by == served_by && job.open.and_then(|open| open.reserve) == reserve
                };
                let may_run_ahead = self.out.has_answered(staged.released);
                match staged.dispatch {
                    Some(dispatch) if settling && tells(&dispatch) && may_run_ahead => {
                        track.stage.ran(self.out.ticket());
                        self.send_staged(slot, dispatch, sending, now);
                        return true;
                    }
                    Some(_) if settling && !may_run_ahead => track.stage.held_back(),
                    None if settling => track.stage.stalled(),
                    _ => {}
                }
                staged.entry
            }
            Candidate::Waiting(_, entry) => {
                if settling {
                    track.stage.stalled();
                }
                entry
            }
        };
        self.promise(slot, entry, sending, reserve);
        true
    }

    /// A job sets out for this model: its lane's pace counts it.
    pub(super) fn sets_out(
        &mut self,
        lane: &str,
        place: Place,
        entry: &JobEntry,
        model: Arc<str>,
        now: Timestamp,
    ) -> Sending {
        let steady = self.steady.of(now);
        if let Some(track) = self.tracks.get_mut(lane) {
            track.pace.started(entry.id, entry.tokens, steady);
        }
        let condition = self.state.models.get(&*model);
        if condition.is_some_and(|model| model.probing) {
            self.routes.forget();
        }
        Sending {
            model,
            at: now,
            paced: Some(steady),
            urgency: place.urgency(now),
        }
    }

    /// Promises the slot's credit to a job: its call goes out once this commit has put its start on disk.
    pub(super) fn promise(
        &mut self,
        slot: SlotId,
        entry: JobEntry,
        sending: Sending,
        reserve: Option<Reserve>,
    ) {
        self.out.store(Transition::Start {
            job_id: entry.id,
            slot,
            at: sending.at,
            served_by: (*sending.model != *entry.model).then(|| sending.model.to_string()),
            reserve,
        });
        let state = Slot::Starting {
            entry,
            sending,
            ticket: self.out.ticket(),
            cancelled: false,
        };
        self.slots.insert(slot, state);
    }

    /// Takes what a lane sends next, with the model it goes to and what is reserved for it. What no
    /// budget allows makes way for those behind it.
    fn take_affordable(&mut self, lane: &str, now: Timestamp) -> Option<Affordable> {
        for _ in 0..STARVED_AT_ONCE {
            let next = self.take_next(lane)?;
            if self.is_over_cap(&next, now) {
                self.wait_for_key(next, now);
                continue;
            }
            if !self.pace_allows(lane, next.entry().tokens, now) {
                self.give_back(lane, next, now);
                return None;
            }
            let Some(model) = self.target(next.entry(), lane) else {
                self.lead_away(next, now);
                continue;
            };
            match self.afford(next.place(), next.entry(), &model, None, now) {
                Ok(reserve) => {
                    return Some(Affordable {
                        next,
                        model,
                        reserve,
                    });
                }
                Err(fit) => self.make_way(next, &model, fit, now),
            }
        }
        self.soon = Some(now.plus_ms(1));
        None
    }

    /// The model that a job goes to now on this lane; `None`: its way leads elsewhere since the routes
    /// were made.
    pub(super) fn target(&self, entry: &JobEntry, lane: &str) -> Option<Arc<str>> {
        let target = routes::target(&entry.model, &self.state, &self.settings)?;
        let condition = self.state.models.get(&*target);
        // One probe at a time.
        if condition.is_some_and(|model| model.probing) && self.is_called(&target) {
            return None;
        }
        (self.settings.lane_of(&target) == lane).then(|| {
            if *entry.model == *target {
                Arc::clone(&entry.model)
            } else {
                Arc::from(&*target)
            }
        })
    }

    /// A job that may not take this way any more goes back into the queue, and the routes are made anew.
    pub(super) fn lead_away(&mut self, next: Candidate, now: Timestamp) {
        self.routes.forget();
        match next {
            Candidate::Staged(staged) => self.unstage(staged, now),
            Candidate::Waiting(place, entry) => self.line.put_back(place, entry, now),
        }
        self.reroute(now);
    }

    /// A job that does not fit into a budget makes way, or shuts the way of those behind it.
    pub(super) fn make_way(&mut self, next: Candidate, model: &Arc<str>, fit: Fit, now: Timestamp) {
        let (place, entry) = match next {
            Candidate::Waiting(place, entry) => (place, entry),
            Candidate::Staged(staged) => {
                let (place, mut entry) = (staged.place, staged.entry);
                self.out.store(Transition::Unstage { job_id: entry.id });
                entry.due = None;
                (place, entry)
            }
        };
        self.make_wait(place, entry, model, fit, now);
    }

    /// Whether a lane's pace lets a call of so many tokens start now; notes until when it does not.
    pub(super) fn pace_allows(&mut self, lane: &str, tokens: u32, now: Timestamp) -> bool {
        let steady = self.steady.of(now);
        if self.settings.rules_of(lane).pace.is_on() && self.has_a_late_start(lane, steady) {
            return false;
        }
        let Some(track) = self.tracks.get_mut(lane) else {
            return false;
        };
        let at = track.pace.earliest(tokens, steady);
        track.not_before = (at > steady).then(|| self.steady.on_the_wall(at));
        at <= steady
    }

    /// Whether a call of a lane waits for a slow disk: it goes out when that answers, and nobody knows how long before the next
    /// that will have been.
    fn has_a_late_start(&self, lane: &str, now: Timestamp) -> bool {
        self.slots.values().any(|slot| match slot {
            Slot::Starting { sending, .. } => {
                let is_late = |decided| pace::is_late(decided, now);
                sending.paced.is_some_and(is_late) && self.settings.lane_of(&sending.model) == lane
            }
            _ => false,
        })
    }

    fn give_back(&mut self, lane: &str, candidate: Candidate, now: Timestamp) {
        match candidate {
            Candidate::Staged(staged) => {
                if let Some(track) = self.tracks.get_mut(lane) {
                    // Turns make all places of a class equal: behind the others it would never go.
                    track.stage.put_first(staged);
                }
            }
            Candidate::Waiting(place, entry) => self.line.put_back(place, entry, now),
        }
    }

    fn send_staged(
        &mut self,
        slot: SlotId,
        dispatch: Arc<Dispatch>,
        sending: Sending,
        now: Timestamp,
    ) {
        self.is_sent(slot, Arc::clone(&dispatch), sending, now);
        self.out.act([Effect::Run {
            slot,
            dispatch,
            stopped: false,
        }]);
    }

    /// A staged job goes out ahead of its start, which the step's commit brings.
    pub(super) fn is_sent(
        &mut self,
        slot: SlotId,
        dispatch: Arc<Dispatch>,
        sending: Sending,
        now: Timestamp,
    ) {
        self.out.store(Transition::Start {
            job_id: dispatch.job.id,
            slot,
            at: now,
            served_by: dispatch.job.served_by.clone(),
            reserve: dispatch.job.open.and_then(|open| open.reserve),
        });
        let busy = Slot::Busy {
            dispatch,
            sending,
            cancelled: false,
        };
        self.slots.insert(slot, busy);
    }

    /// Ends callers above the bound as they become idle.
    fn retire_callers(&mut self) {
        let slots = self.settings.slots();
        let surplus: Vec<SlotId> = self
            .slots
            .iter()
            .filter(|(id, slot)| id.0 >= slots && matches!(slot, Slot::Idle))
            .map(|(id, _)| *id)
            .collect();
        for slot in surplus {
            self.slots.remove(&slot);
            self.out.act([Effect::Retire { slot }]);
        }
    }
}
