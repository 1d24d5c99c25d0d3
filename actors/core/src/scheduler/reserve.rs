//! Slots that a lane keeps for urgent jobs. Of its calls only so many are those of less urgent ones; one may always be,
//! however few slots a throttle has left.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Scheduler;
use crate::model::{Job, SlotReserve, Timestamp, WaitReason};
use crate::queue::Place;

impl Scheduler {
    /// The priority that the free slots of a lane are kept for, where a job of this urgency may not have one.
    fn kept_from(&self, lane: &str, urgency: i64) -> Option<u32> {
        let rules = self.settings.rules_of(lane);
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

    /// The places of the first staged job of a lane and of the first in line, of each if it may have a slot.
    pub(super) fn next_places(
        &self,
        lane: &str,
        models: Option<&BTreeSet<Arc<str>>>,
    ) -> (Option<Place>, Option<Place>) {
        let (staged, waiting) = self.first_places(lane, models);
        let may_go = |place: &Place| self.kept_from(lane, self.line.urgency(*place)).is_none();
        (staged.filter(may_go), waiting.filter(may_go))
    }

    fn first_places(
        &self,
        lane: &str,
        models: Option<&BTreeSet<Arc<str>>>,
    ) -> (Option<Place>, Option<Place>) {
        let staged = self.tracks.get(lane).and_then(|track| track.stage.first());
        let waiting = models.and_then(|models| self.line.peek(lane, models));
        (staged.map(|staged| staged.place), waiting)
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
        let (staged, waiting) = self.first_places(lane, models.as_deref());
        let mut kept = None;
        for place in staged.into_iter().chain(waiting) {
            kept = Some(self.kept_from(lane, self.line.urgency(place))?);
        }
        Some(WaitReason::Reserved {
            priority: kept?,
            lane: lane.to_owned(),
        })
    }
}
