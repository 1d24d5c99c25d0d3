//! What a busy slot sends next, said while its call is still open: after an answer that changes nothing its caller
//! goes on with it at once, and the lane hears of both together.
//!
//! A shorter way and nothing else. Only where a success can't change what goes next is anything said here: one call in
//! flight, one lane without pace, budgets, holds or doubts. Whatever else the lane hears takes the word back first
//! (the queue actor sees to that), so that what lies ready is what the lane would send at that moment.

use std::sync::Arc;

use super::{Effect, Scheduler};
use crate::judge::conclude::Concluded;
use crate::model::{BreakerSnapshot, BreakerState, Dispatch, JobId, SlotId, Timestamp, limits};
use crate::scheduler::slot::{Slot, Staged};

impl Scheduler {
    /// The slot whose call is open, and what it sends next if that call ends well.
    #[must_use]
    pub fn next_up(&self) -> Option<(SlotId, Arc<Dispatch>)> {
        let mut taken = self.slots.iter().filter(|(_, slot)| slot.is_taken());
        let (slot, state) = taken.next()?;
        let is_open = matches!(
            state,
            Slot::Busy {
                cancelled: false,
                ..
            }
        );
        if !is_open || taken.next().is_some() || !self.is_plain() {
            return None;
        }
        let (lane, rules) = self.settings.all_lanes().next()?;
        let is_bare = !rules.pace.is_on() && rules.order.affinity == 0 && rules.reserve.is_empty();
        if !is_bare || !self.goes_on_sending(lane) {
            return None;
        }
        let models = self.open_models(lane);
        let (staged, waiting) = self.next_places(lane, models.as_deref());
        if waiting.is_some_and(|place| staged.is_none_or(|staged| place.outranks(staged))) {
            return None;
        }
        let staged = self.tracks.get(lane)?.stage.first()?;
        let dispatch = staged.dispatch.as_ref()?;
        let may_run_ahead = self.out.has_answered(staged.released);
        (may_run_ahead && self.is_plain_job(staged, dispatch))
            .then(|| (*slot, Arc::clone(dispatch)))
    }

    /// Whether the lane knows of nothing that an answer could change, and that would bear on what goes next.
    fn is_plain(&self) -> bool {
        let state = &self.state;
        let mut lanes = state.lanes.values();
        let mut models = state.models.values();
        self.settings.lanes.is_empty()
            && self.settings.budgets.is_empty()
            && self.recovery.is_empty()
            && self.breaker.state == BreakerState::Closed
            && self.unsettled.len() + 1 < limits::UNSETTLED_MAX
            && !state.in_doubt
            && state.foreign_answers == 0
            && state.unattributed.is_empty()
            && self.line.capped_keys().next().is_none()
            && !self.is_probing()
            && lanes.all(|lane| {
                lane.hold.is_none() && lane.throttle_level == 0 && lane.throttled_at.is_none()
            })
            && models.all(|model| model.hold.is_none() && !model.probing)
    }

    /// Whether a job goes to its own model, bound by nothing but its place.
    fn is_plain_job(&self, staged: &Staged, dispatch: &Dispatch) -> bool {
        let (entry, job) = (&staged.entry, &dispatch.job);
        let own = self.target(entry, self.settings.lane_of(&entry.model));
        own.as_ref() == Some(&entry.model)
            && entry.deadline.is_none()
            && entry.key.is_none_or(|key| self.cap_of(key).is_none())
            && job.task.is_none()
            && job.served_by.is_none()
            && job.open.is_some_and(|open| open.reserve.is_none())
    }

    /// As [`Scheduler::finished`], of a call that ended well and whose caller has gone on with what was
    /// [`Scheduler::next_up`]. `None`: that is not what the lane would have sent, which is a fault.
    #[must_use]
    pub fn went_on(
        &mut self,
        slot: SlotId,
        concluded: Concluded,
        with: JobId,
        now: Timestamp,
    ) -> Option<Vec<Effect>> {
        let id = concluded.settlement.job_id;
        let mut learnt = self.learn(slot, &concluded, now);
        learnt |= self.note_blame(slot, &concluded, now);
        self.free(slot, id);
        self.settle(concluded, None, learnt, now);
        let (lane, _) = self.settings.all_lanes().next()?;
        let lane = lane.to_owned();
        let staged = self.tracks.get_mut(&lane)?.stage.take(with)?;
        let dispatch = staged.dispatch?;
        let model = Arc::clone(&staged.entry.model);
        let sending = self.sets_out(&lane, staged.place, &staged.entry, model, now);
        if let Some(track) = self.tracks.get_mut(&lane) {
            track.stage.ran(self.out.ticket());
        }
        self.is_sent(slot, dispatch, sending, now);
        Some(self.go_on(now))
    }

    /// The outcome of a call before the last one of its caller, of which no queue may have heard: only its end is stored.
    pub fn finished_before(
        &mut self,
        slot: SlotId,
        concluded: Concluded,
        breaker: Option<BreakerSnapshot>,
        now: Timestamp,
    ) {
        self.recovery.forget(concluded.settlement.job_id);
        if let Some(snapshot) = &breaker {
            self.breaker = snapshot.clone();
        }
        let mut learnt = self.learn(slot, &concluded, now);
        learnt |= self.note_blame(slot, &concluded, now);
        self.settle(concluded, breaker, learnt, now);
    }
}
