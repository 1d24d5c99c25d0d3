//! The end of an attempt: what it leaves in the lanes' state, in the queue, and among the changes to
//! store; and what the store's answers mean.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Effect, Scheduler};
use crate::judge::LaneEffect;
use crate::judge::conclude::Concluded;
use crate::model::{
    Applied, BreakerSnapshot, CallOutcome, CallRecord, FailureClass, Hold, HoldKind, HoldScope,
    JobId, LaneCondition, ModelCondition, Next, Refusal, RouteCondition, SlotId, Substitution,
    Timestamp, Transition, limits, model_name,
};
use crate::scheduler::adaptive;
use crate::scheduler::hold;
use crate::scheduler::slot::{self, Slot, Staged};

impl Scheduler {
    /// What a failure of a call to this model is judged by: its lane's state and its own.
    #[must_use]
    pub fn conditions(&self, model: &str) -> (LaneCondition, ModelCondition) {
        let lane = self.state.lanes.get(self.settings.lane_of(model));
        let model = self.state.models.get(model);
        (
            lane.cloned().unwrap_or_default(),
            model.cloned().unwrap_or_default(),
        )
    }

    /// Answers to other calls that came without a right one between.
    #[must_use]
    pub const fn foreign_answers(&self) -> u32 {
        self.state.foreign_answers
    }

    /// The way to GLM, while nothing gets through.
    #[must_use]
    pub const fn route(&self) -> Option<&RouteCondition> {
        self.state.route.as_ref()
    }

    /// Whether another model would serve a job of `own` model if `sent_to` were held from now on.
    #[must_use]
    pub fn has_fallback(&self, own: &str, sent_to: &str) -> bool {
        let chain = self
            .settings
            .glm
            .fallbacks_of(own)
            .map(model_name::canonical);
        let held = |model: &str| {
            let condition = self.state.models.get(model);
            condition.is_some_and(|condition| condition.hold.is_some())
        };
        let mut models = std::iter::once(Cow::Borrowed(own)).chain(chain);
        models.any(|model| model != sent_to && !held(&model))
    }

    /// Whether a throttle answer to the slot's call will lower its lane's own concurrency.
    #[must_use]
    pub fn would_ease(&self, slot: SlotId, now: Timestamp) -> bool {
        let Some(Slot::Busy { sending, .. }) = self.slots.get(&slot) else {
            return false;
        };
        let name = self.settings.lane_of(&sending.model);
        let rules = self.settings.rules_of(name);
        let learnt = self.state.lanes.get(name).and_then(|lane| lane.learnt);
        match (rules.auto(), learnt) {
            (Some(auto), Some(learnt)) => {
                let max = rules.max_concurrency;
                let after = adaptive::throttled(learnt, &auto, max, sending.at, now);
                after.limit < learnt.limit
            }
            _ => false,
        }
    }

    /// What the end of a slot's call teaches: real tokens to the pace, and how many calls GLM bears.
    /// Tells whether the lanes' state has changed.
    pub(super) fn learn(&mut self, slot: SlotId, concluded: &Concluded, now: Timestamp) -> bool {
        let Some(Slot::Busy { sending, .. }) = self.slots.get(&slot) else {
            return false;
        };
        let (model, at) = (Arc::clone(&sending.model), sending.at);
        let settings = Arc::clone(&self.settings);
        let name = settings.lane_of(&model);
        let call = &concluded.settlement.call;
        if let Some(track) = self.tracks.get_mut(name) {
            let steady = self.steady.of(now);
            track.pace.settled(call.job_id, tokens_of(call), steady);
            track.recent.add(call);
        }
        let rules = settings.rules_of(name);
        let Some(auto) = rules.auto() else {
            return false;
        };
        let max = rules.max_concurrency;
        let in_flight = u16::try_from(self.in_flight_of(name)).unwrap_or(u16::MAX);
        let lane = self.state.lanes.entry(name.to_owned()).or_default();
        let learnt = lane
            .learnt
            .unwrap_or_else(|| adaptive::begin(&auto, max, now));
        let throttled = call
            .failure
            .as_ref()
            .is_some_and(|failure| failure.class == FailureClass::Throttle);
        let after = if concluded.answered {
            adaptive::succeeded(learnt, &auto, max, in_flight, now)
        } else if throttled {
            adaptive::throttled(learnt, &auto, max, at, now)
        } else {
            learnt
        };
        lane.learnt.replace(after) != Some(after)
    }

    /// The slot's call for this job has ended.
    pub(super) fn free(&mut self, slot: SlotId, id: JobId) {
        if let Some(state) = self.slots.get_mut(&slot)
            && matches!(state, Slot::Busy { .. })
            && state.job_id() == Some(id)
        {
            *state = Slot::Idle;
            if self.state.models.values().any(|model| model.probing) {
                self.routes.forget();
            }
        }
    }

    /// The slot may send again. A credit that the slot does not wait for is none: the slot was
    /// retired meanwhile, or something was sent on the credit before.
    pub(super) fn credit(&mut self, slot: SlotId, now: Timestamp) {
        if let Some(state @ Slot::Unknown) = self.slots.get_mut(&slot) {
            *state = Slot::Idle;
        }
        self.settle_proven(now, Some(slot));
    }

    /// Puts an attempt's end among the changes to store, and the job back into the queue if it goes there.
    /// `changed`: the lanes' state has changed already.
    pub(super) fn settle(
        &mut self,
        concluded: Concluded,
        breaker: Option<BreakerSnapshot>,
        mut changed: bool,
        now: Timestamp,
    ) {
        let mut settlement = concluded.settlement;
        let model = settlement.call.model.clone();
        changed |= self.note_foreign(&settlement.call);
        if concluded.answered {
            changed |= self.serves_again(&model);
            changed |= self.others_pass(settlement.call.started_at, now);
        }
        if concluded.reached {
            self.reached = true;
            changed |= self.state.route.take().is_some();
        }
        changed |= self.stop(concluded.lane, &model);
        changed |= self.note_substitute(&settlement.call);
        changed |= self.note_doubt();
        if changed {
            hold::tidy(&mut self.state);
            self.routes.forget();
            settlement.lane = Some(self.state.clone());
        }
        settlement.breaker = breaker;
        self.gate.settle(&settlement.call, now);
        self.unsettled.push(settlement.job_id);
        match concluded.back_in_line {
            // Its connection ends now, and nobody would take the answer of another try.
            Some(entry) if self.stopping && entry.bound_to.is_some() => {
                settlement.next = Next::Cancelled;
            }
            Some(entry) => self.line.insert(entry, now),
            None => {}
        }
        self.out.store(Transition::Settle(Box::new(settlement)));
    }

    /// Remembers that a dearer model may answer in the place of the one that was called. Tells whether that is news.
    fn note_substitute(&mut self, call: &CallRecord) -> bool {
        let (Some(Substitution::Priced), Some(other)) = (call.substitution, &call.answered_by)
        else {
            return false;
        };
        let model = self.state.models.entry(call.model.clone()).or_default();
        model.substitutes.len() < limits::SUBSTITUTES_MAX
            && model
                .substitutes
                .insert(model_name::canonical(other).into_owned())
    }

    /// An answer of a model ends a series of throttle and overload answers, and a probe. Tells whether
    /// that is news.
    fn serves_again(&mut self, model: &str) -> bool {
        let mut news = std::mem::take(&mut self.state.probing);
        if let Some(lane) = self.state.lanes.get_mut(self.settings.lane_of(model)) {
            news |= std::mem::take(&mut lane.throttle_level) > 0;
            news |= lane.throttled_at.take().is_some();
        }
        if let Some(model) = self.state.models.get_mut(model) {
            news |= std::mem::take(&mut model.overloads) > 0;
            news |= model.overloaded_at.take().is_some();
            news |= std::mem::take(&mut model.probing);
        }
        news
    }

    /// Counts answers to other calls. Tells whether that is news.
    fn note_foreign(&mut self, call: &CallRecord) -> bool {
        let class = call.failure.as_ref().map(|failure| failure.class);
        let count = &mut self.state.foreign_answers;
        let before = *count;
        if class == Some(FailureClass::ForeignAnswer) {
            *count = count.saturating_add(1);
        } else if call.outcome == CallOutcome::Completed {
            *count = 0;
        }
        *count != before
    }

    /// Stops what an outcome says has to stop. Tells whether anything.
    fn stop(&mut self, effect: LaneEffect, model: &str) -> bool {
        let lane = || HoldScope::Lane(self.settings.lane_of(model).to_owned());
        let (scope, hold, new) = match effect {
            LaneEffect::GoOn => return false,
            LaneEffect::CoolDown { hold, new } => (lane(), hold, new),
            LaneEffect::Rest(hold) => (lane(), hold, false),
            LaneEffect::HoldModel { hold, new } => (HoldScope::Model(model.to_owned()), hold, new),
            LaneEffect::AwaitRoute { hold, new } => (HoldScope::Account, hold, new),
            LaneEffect::HoldAccount(hold) => (HoldScope::Account, hold, false),
        };
        self.count(&scope, &hold, new);
        hold::add(&mut self.state, &scope, hold);
        self.state.endpoint_digest = Some(self.endpoint_digest.clone());
        true
    }

    /// Holds that grow from one to the next are counted, those of refusals that came together once.
    fn count(&mut self, scope: &HoldScope, hold: &Hold, new: bool) {
        match (scope, hold.kind) {
            (HoldScope::Lane(name), HoldKind::Throttle) => {
                let lane = self.state.lanes.entry(name.clone()).or_default();
                lane.throttle_level = lane.throttle_level.saturating_add(u32::from(new));
                lane.throttled_at = Some(hold.since);
            }
            (HoldScope::Model(name), HoldKind::Overload) => {
                let model = self.state.models.entry(name.clone()).or_default();
                model.overloads = model.overloads.saturating_add(u32::from(new));
                model.overloaded_at = Some(hold.since);
            }
            (HoldScope::Account, HoldKind::Unreachable) => {
                let reason = format!("{}: {}", hold.code, hold.message);
                let route = self.state.route.get_or_insert_with(|| RouteCondition {
                    since: hold.since,
                    failures: 0,
                    failed_at: hold.since,
                    reason: String::new(),
                });
                route.failures = route.failures.saturating_add(u32::from(new));
                route.failed_at = hold.since;
                route.reason = reason;
            }
            _ => {}
        }
    }

    /// Takes a staged attempt back.
    pub(super) fn unstage(&mut self, staged: Staged, now: Timestamp) {
        let Staged {
            mut entry, place, ..
        } = staged;
        self.gate.release(entry.id);
        self.out.store(Transition::Unstage { job_id: entry.id });
        entry.due = None;
        self.line.put_back(place, entry, now);
    }

    /// What the store's answer to one change means.
    pub(super) fn acknowledged(
        &mut self,
        ticket: u64,
        transition: &Transition,
        decision: &Result<Applied, Refusal>,
        now: Timestamp,
    ) {
        match (transition, decision) {
            (Transition::Stage { job_id, .. }, decision) => self.staged(*job_id, ticket, decision),
            (Transition::Start { slot, .. } | Transition::Resume { slot, .. }, decision) => {
                self.started(*slot, ticket, decision, now);
            }
            (Transition::Settle(settlement), _) => {
                let mut unsettled = self.unsettled.iter();
                if let Some(at) = unsettled.position(|id| *id == settlement.job_id) {
                    self.unsettled.remove(at);
                }
            }
            // Not if it was given up again, or failed at its deadline, before this was answered: that comes after it on disk, too.
            // Nor if it was taken for a slot meanwhile, its delay being over.
            (Transition::Requeue { .. }, Ok(Applied::Job(job)))
                if !self.ending.contains_key(&job.id)
                    && (self.line.has(job.id) || !self.knows(job.id)) =>
            {
                self.gate.forget(job.id);
                self.is_back(job.id);
                self.line.release(job.entry(), now);
            }
            (Transition::Cancel { job_id, .. } | Transition::Fail { job_id, .. }, _) => {
                if let Some(count) = self.ending.get_mut(job_id) {
                    *count -= 1;
                    if *count == 0 {
                        self.ending.remove(job_id);
                    }
                }
            }
            (Transition::Reprioritise { job_id, priority }, Ok(_)) => {
                self.reprioritised(*job_id, *priority, now);
            }
            _ => {}
        }
        if let Ok(Applied::Chain { others, .. }) = decision {
            for job in others {
                self.gate.forget(job.id);
                if job.status.is_terminal() {
                    self.line.remove(job.id);
                } else if !self.ending.contains_key(&job.id) {
                    self.line.release(job.entry(), now);
                }
            }
        }
    }

    fn staged(&mut self, id: JobId, ticket: u64, decision: &Result<Applied, Refusal>) {
        for track in self.tracks.values_mut() {
            let Some(staged) = track.stage.get_mut(id) else {
                continue;
            };
            // Staged, taken back and staged again: the answer of the first is not the second's.
            if staged.ticket != ticket {
                return;
            }
            match decision {
                Ok(Applied::Dispatch(dispatch)) => staged.dispatch = Some(Arc::clone(dispatch)),
                _ => {
                    track.stage.take(id);
                    self.gate.release(id);
                }
            }
            return;
        }
    }

    /// A start that was waited for is on disk: the call may go out.
    fn started(
        &mut self,
        slot: SlotId,
        ticket: u64,
        decision: &Result<Applied, Refusal>,
        now: Timestamp,
    ) {
        let Some(state) = self.slots.get_mut(&slot) else {
            return;
        };
        let Slot::Starting {
            ticket: awaited,
            cancelled,
            sending,
            ..
        } = &*state
        else {
            return;
        };
        if *awaited != ticket {
            return;
        }
        let Ok(Applied::Dispatch(dispatch)) = decision else {
            if let Some(id) = state.job_id() {
                self.gate.release(id);
            }
            *state = Slot::Idle;
            return;
        };
        let (cancelled, paced) = (*cancelled, sending.paced);
        let lane = self.settings.lane_of(&sending.model);
        *state = Slot::Busy {
            dispatch: Arc::clone(dispatch),
            sending: sending.clone(),
            cancelled,
        };
        if let Some(track) = self.tracks.get_mut(lane)
            && let Some(decided) = paced
        {
            let now = self.steady.of(now);
            track.pace.sent(dispatch.job.id, decided, now);
        }
        let is_off = !self.settings.glm.is_active || self.state.paused.is_some();
        // What belongs to a connection would end with being stopped, and what GLM holds as a task is bought already.
        let job = &dispatch.job;
        let is_put_back = is_off && job.bound_to.is_none() && job.task.is_none();
        self.out.act([Effect::Run {
            slot,
            dispatch: Arc::clone(dispatch),
            stopped: cancelled || is_put_back,
        }]);
    }

    fn reprioritised(&mut self, id: JobId, priority: i32, now: Timestamp) {
        let line = &self.line;
        let change = |staged: &mut Staged| {
            staged.entry.priority = priority;
            staged.place = line.place_of(&staged.entry);
            if let Some(dispatch) = &mut staged.dispatch {
                slot::reprioritise(dispatch, priority);
            }
        };
        let mut stages = self.tracks.values_mut().map(|track| &mut track.stage);
        if stages.any(|stage| stage.change(id, change)) {
            return;
        }
        if self.recovery.reprioritise(id, priority) {
            return;
        }
        // It was sent ahead of its start, while this was on its way to disk.
        let mut slots = self.slots.values_mut();
        if let Some(slot) = slots.find(|slot| slot.job_id() == Some(id)) {
            slot.reprioritise(priority);
            return;
        }
        if self.gate.forget(id)
            && let Some(mut entry) = self.line.remove(id)
        {
            entry.priority = priority;
            entry.dormant = false;
            self.line.insert(entry, now);
        } else {
            self.line.reprioritise(id, priority, now);
        }
    }
}

/// The tokens that a call really used; `None`: that is not known. One that GLM refused used none.
fn tokens_of(call: &CallRecord) -> Option<u64> {
    let tokens = call.usage.total_tokens;
    let refused = call.outcome == CallOutcome::Failed && !call.maybe_billed;
    (tokens > 0 || refused).then_some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Recovered, SchedulerState, Settings};
    use crate::testing::sample;

    const MODEL: &str = "glm-5";

    fn scheduler() -> Scheduler {
        let slots = [SlotId(0)];
        let settings = Arc::new(Settings::default());
        Scheduler::recover(Recovered::default(), settings, slots, 1, sample::START)
    }

    #[test]
    fn an_answer_that_ends_anything_is_news_and_one_that_ends_nothing_is_none() {
        type Change = fn(&mut SchedulerState, &mut LaneCondition, &mut ModelCondition);
        let changes: [Change; 6] = [
            |state, _, _| state.probing = true,
            |_, lane, _| lane.throttle_level = 1,
            |_, lane, _| lane.throttled_at = Some(sample::START),
            |_, _, model| model.overloads = 1,
            |_, _, model| model.overloaded_at = Some(sample::START),
            |_, _, model| model.probing = true,
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let mut scheduler = scheduler();
            let (mut lane, mut model) = scheduler.conditions(MODEL);
            change(&mut scheduler.state, &mut lane, &mut model);
            let name = scheduler.settings.lane_of(MODEL).to_owned();
            scheduler.state.lanes.insert(name, lane);
            scheduler.state.models.insert(MODEL.to_owned(), model);
            assert!(scheduler.serves_again(MODEL), "{n}");
            assert!(!scheduler.serves_again(MODEL), "{n}");
        }
        assert!(!scheduler().stop(LaneEffect::GoOn, MODEL));
    }

    #[test]
    fn a_dearer_model_that_answered_is_remembered_once() {
        let mut scheduler = scheduler();
        let call = CallRecord {
            model: MODEL.to_owned(),
            answered_by: Some("Dear".to_owned()),
            substitution: Some(Substitution::Priced),
            ..sample::call(1, 1, CallOutcome::Completed)
        };
        assert!(scheduler.note_substitute(&call));
        assert!(!scheduler.note_substitute(&call));
        let may_answer = scheduler.state.may_answer(MODEL);
        assert_eq!(may_answer.collect::<Vec<_>>(), [MODEL, "dear"]);
    }

    #[test]
    fn an_answer_without_its_tokens_leaves_the_pace_its_estimate_and_a_refusal_used_none() {
        let of = |outcome, total_tokens, maybe_billed| {
            let mut call = sample::call(1, 1, outcome);
            call.usage.total_tokens = total_tokens;
            call.maybe_billed = maybe_billed;
            tokens_of(&call)
        };
        assert_eq!(of(CallOutcome::Completed, 5, false), Some(5));
        assert_eq!(of(CallOutcome::Completed, 0, false), None);
        assert_eq!(of(CallOutcome::Failed, 0, false), Some(0));
        assert_eq!(of(CallOutcome::Failed, 0, true), None);
    }
}
