//! Slots that a lane keeps for urgent jobs. Of its calls only so many are those of less urgent ones; one may always be,
//! however few slots a throttle has left.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::Scheduler;
use crate::model::{Job, Timestamp, WaitReason};
use crate::queue::Place;
use crate::scheduler::slot::Staged;

impl Scheduler {
    /// The priorities that the free slots of a lane are kept for.
    fn kept(&self, lane: &str) -> impl Iterator<Item = u32> {
        let rules = self.settings.rules_of(lane);
        let rows = rules.reserve.iter().map(|row| row.priority);
        rows.filter(move |priority| {
            let slots = usize::from(self.limit(lane, rules));
            self.open_calls_below(lane, *priority) >= rules.open_below(*priority, slots)
        })
    }

    /// What a job has to have risen to for a free slot of a lane.
    fn least_urgency(&self, lane: &str) -> i64 {
        self.kept(lane).max().map_or(i64::MIN, i64::from)
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
        self.first_staged(lane, self.least_urgency(lane))
    }

    fn first_staged(&self, lane: &str, least_urgency: i64) -> Option<&Staged> {
        let mut stage = self.tracks.get(lane)?.stage.iter();
        stage.find(|staged| self.line.urgency(staged.place) >= least_urgency)
    }

    /// The places of the first staged job of a lane and of the first in line, of those that may have a slot.
    pub(super) fn next_places(
        &self,
        lane: &str,
        models: Option<&BTreeSet<Arc<str>>>,
    ) -> (Option<Place>, Option<Place>) {
        let least = self.least_urgency(lane);
        let staged = self.first_staged(lane, least).map(|staged| staged.place);
        let waiting = models.and_then(|models| self.line.peek(lane, models));
        let may_go = |place: &Place| self.line.urgency(*place) >= least;
        (staged, waiting.filter(may_go))
    }

    fn has_free_slots(&self, lane: &str) -> bool {
        let limit = self.limit(lane, self.settings.rules_of(lane));
        self.in_flight_of(lane) < usize::from(limit)
    }

    /// When a job for which no slot is free may have risen to a priority that slots are kept for.
    pub(super) fn next_rise(&self) -> Option<Timestamp> {
        let lanes = self.settings.all_lanes().map(|(name, _)| name);
        let lanes = lanes.filter(|name| self.reserved(name).is_some());
        // Each rises as the jobs of its own lane do, wherever it is served.
        let ageings = lanes.flat_map(|name| {
            let models = self.open_models(name).map(Cow::into_owned);
            let models = models.into_iter().flatten();
            let order = |model: Arc<str>| {
                let own = self.settings.lane_of(&model);
                self.settings.rules_of(own).order.ageing_ms
            };
            let staged = self.tracks.get(name).map(|track| track.stage.iter());
            let staged = staged.into_iter().flatten();
            models
                .map(order)
                .chain(staged.map(|staged| staged.place.ageing_ms()))
        });
        ageings
            .filter_map(|ageing_ms| self.line.next_interval(ageing_ms))
            .min()
    }

    /// What keeps every job of a lane waiting although it has free slots: they are kept for more urgent ones.
    pub(super) fn reserved(&self, lane: &str) -> Option<WaitReason> {
        if self.settings.rules_of(lane).reserve.is_empty() || !self.has_free_slots(lane) {
            return None;
        }
        let models = self.open_models(lane);
        let waiting = models.and_then(|models| self.line.peek(lane, &models));
        let stage = self.tracks.get(lane).map(|track| track.stage.iter());
        let staged = stage.into_iter().flatten().map(|staged| staged.place);
        let urgencies = staged.chain(waiting).map(|place| self.line.urgency(place));
        self.kept_from(lane, urgencies.max()?)
    }

    /// What keeps a staged job waiting although its lane has free slots: they are kept for more urgent ones.
    pub(super) fn reserved_from(&self, lane: &str, place: Place) -> Option<WaitReason> {
        let is_free = self.has_free_slots(lane);
        is_free.then(|| self.kept_from(lane, self.line.urgency(place)))?
    }

    fn kept_from(&self, lane: &str, urgency: i64) -> Option<WaitReason> {
        let above = self
            .kept(lane)
            .filter(|priority| urgency < i64::from(*priority));
        Some(WaitReason::Reserved {
            priority: above.min()?,
            lane: lane.to_owned(),
        })
    }
}
