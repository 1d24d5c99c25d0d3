//! Slots that a lane keeps for urgent jobs. Of its calls only so many are those of less urgent ones; one may always be,
//! however few slots a throttle has left.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Scheduler;
use crate::model::{Job, SlotReserve, Timestamp, WaitReason};
use crate::queue::Place;
use crate::scheduler::slot::Staged;

impl Scheduler {
    /// The priority that the free slots of a lane are kept for, where a job of this urgency may not have one.
    fn kept_from(&self, lane: &str, urgency: i64) -> Option<u32> {
        let rules = self.settings.rules_of(lane);
        if rules.reserve.is_empty() {
            return None;
        }
        let above = |row: &&SlotReserve| urgency < i64::from(row.priority);
        let slots = usize::from(self.limit(lane, rules));
        let is_kept = |priority: &u32| {
            self.open_calls_below(lane, *priority) >= rules.open_below(*priority, slots)
        };
        let rows = rules.reserve.iter().filter(above);
        rows.map(|row| row.priority).filter(is_kept).min()
    }

    /// The calls of a lane, open or about to be, of jobs below this priority.
    fn open_calls_below(&self, lane: &str, priority: u32) -> usize {
        let is_below = |urgency: i64| urgency < i64::from(priority);
        let sending = self.slots.values().filter_map(|slot| slot.sending());
        let taken = sending.map(|sending| (&*sending.model, sending.urgency));
        let found = self.recovery.jobs();
        let found = found.map(|job: &Job| (job.sent_to(), i64::from(job.priority)));
        taken
            .chain(found)
            .filter(|(model, urgency)| is_below(*urgency) && self.settings.lane_of(model) == lane)
            .count()
    }

    /// The first staged job of a lane that may have a slot: not always the first of all, where jobs meet that age
    /// differently.
    pub(super) fn next_staged(&self, lane: &str) -> Option<&Staged> {
        let stage = &self.tracks.get(lane)?.stage;
        stage
            .iter()
            .find(|staged| self.may_have_a_slot(lane, staged.place))
    }

    fn may_have_a_slot(&self, lane: &str, place: Place) -> bool {
        self.kept_from(lane, self.line.urgency(place)).is_none()
    }

    /// The places of the first staged job of a lane and of the first in line, of those that may have a slot.
    pub(super) fn next_places(
        &self,
        lane: &str,
        models: Option<&BTreeSet<Arc<str>>>,
    ) -> (Option<Place>, Option<Place>) {
        let staged = self.next_staged(lane).map(|staged| staged.place);
        let waiting = models.and_then(|models| self.line.peek(lane, models));
        (
            staged,
            waiting.filter(|place| self.may_have_a_slot(lane, *place)),
        )
    }

    /// When a job for which no slot is free may have risen to a priority that slots are kept for.
    pub(super) fn next_rise(&self) -> Option<Timestamp> {
        let lanes = self.settings.all_lanes();
        let rises = lanes.filter(|(name, _)| self.reserved(name).is_some());
        let at = rises.filter_map(|(_, rules)| self.line.next_interval(rules.order.ageing_ms));
        at.min()
    }

    /// What keeps every job of a lane waiting although it has free slots: they are kept for more urgent ones.
    pub(super) fn reserved(&self, lane: &str) -> Option<WaitReason> {
        let rules = self.settings.rules_of(lane);
        if rules.reserve.is_empty()
            || self.in_flight_of(lane) >= usize::from(self.limit(lane, rules))
        {
            return None;
        }
        let models = self.open_models(lane);
        let stage = self.tracks.get(lane).map(|track| track.stage.iter());
        let staged = stage.into_iter().flatten().map(|staged| staged.place);
        let waiting = models.and_then(|models| self.line.peek(lane, &models));
        let mut kept = None;
        for place in staged.chain(waiting) {
            kept = kept.max(Some(self.kept_from(lane, self.line.urgency(place))?));
        }
        Some(WaitReason::Reserved {
            priority: kept?,
            lane: lane.to_owned(),
        })
    }
}
