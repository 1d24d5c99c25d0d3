//! What the lanes show of themselves: to tests, the admin API and the curious.

use std::collections::BTreeMap;

use std::cmp::Reverse;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Scheduler, WaitCounts};
use crate::model::{
    BreakerSnapshot, Hold, LaneCondition, ModelCondition, Pause, PriorityClass, RouteCondition,
    ScopedHold, Timestamp, ToldWait, WaitReason, limits, told_wait,
};

/// One lane among several.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LaneSnapshot {
    /// Its name.
    pub name: String,
    /// Calls that are open on it or about to be.
    pub in_flight: usize,
    /// Jobs whose next attempt is on record ahead of a slot.
    pub staged: usize,
    /// Calls that may be open, as configured.
    pub max_concurrency: u16,
    /// Calls that may be open for now: less than configured while automatic concurrency learns.
    pub limit: u16,
    /// Its pace lets nothing start before this moment.
    pub not_before: Option<Timestamp>,
    /// Why it lets nothing go; `None`: it does.
    #[serde(serialize_with = "told_wait")]
    #[schemars(with = "Option<ToldWait>")]
    pub wait_reason: Option<WaitReason>,
    /// What it remembers: its hold, throttle answers in a row, what automatic concurrency has learnt.
    #[serde(flatten)]
    pub condition: LaneCondition,
}

/// A model that has been overloaded or is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ModelSnapshot {
    /// The model.
    pub model: String,
    /// What the lanes remember of it.
    #[serde(flatten)]
    pub condition: ModelCondition,
}

/// The waiting jobs of a class of priorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClassSnapshot {
    /// How many there are, whatever they wait for.
    pub jobs: usize,
    /// Since when the oldest of those that are due could have run.
    pub oldest_ready: Option<Timestamp>,
}

/// How many jobs wait at a priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WaitingAt {
    /// The priority.
    pub priority: i32,
    /// Jobs in line, whatever they wait for, and those whose next attempt is on record.
    pub jobs: u64,
}

/// All lanes at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SchedulerSnapshot {
    /// Whether the configuration lets it run (`is_active`).
    #[serde(rename = "isActive")]
    pub active: bool,
    /// Whether it is shutting down.
    pub stopping: bool,
    /// Whether the disk is full: nothing is sent or taken until there is room.
    pub disk_full: bool,
    /// An operator's pause.
    pub paused: Option<Pause>,
    /// An operator closed the intake: what waits is worked off, nothing more is taken.
    pub draining: Option<Pause>,
    /// The intake is closed, and no job waits or runs any more.
    pub drained: bool,
    /// The first of `holds`.
    pub hold: Option<Hold>,
    /// Every hold in force with what it stops: the account's first, then the lanes', then the models'.
    pub holds: Vec<ScopedHold>,
    /// The breaker as the lanes see it.
    pub breaker: BreakerSnapshot,
    /// The way to GLM while no call gets through; `null`: nothing is known to be wrong with it.
    pub unreachable: Option<RouteCondition>,
    /// Whether a call got through to a server since the lane started.
    pub reached: bool,
    /// Calls that are open or about to be, those left by an earlier generation included.
    pub in_flight: usize,
    /// Calls that may be open, over all lanes.
    pub max_concurrency: u16,
    /// Jobs that are due and wait for a slot, staged ones included.
    pub ready: usize,
    /// Since when the oldest of those could have run.
    pub oldest_ready: Option<Timestamp>,
    /// Jobs whose next attempt is on record ahead of the slot.
    pub staged: usize,
    /// Jobs that wait for their time.
    pub waiting: usize,
    /// Jobs that wait for other jobs, for room in a budget or for an operator's decision.
    pub dormant: usize,
    /// Of those the ones that wait for room in a budget.
    pub over_budget: usize,
    /// Outcomes that wait for their commit.
    pub unsettled: usize,
    /// Why nothing goes on; `None`: something does, or nothing waits.
    #[serde(serialize_with = "told_wait")]
    #[schemars(with = "Option<ToldWait>")]
    pub wait_reason: Option<WaitReason>,
    /// How many jobs wait for each reason; every name of [`WaitReason::NAMES`] is there.
    pub wait_counts: WaitCounts,
    /// The waiting jobs by class of their priorities: `urgent` (100 and above), `high` (1 to 99), `normal` (0), `low`.
    pub priority_classes: BTreeMap<&'static str, ClassSnapshot>,
    /// How many jobs wait at each priority, the most urgent first; of more than 16 priorities the most urgent.
    pub priorities: Vec<WaitingAt>,
    /// Every lane, the default one first.
    pub lanes: Vec<LaneSnapshot>,
    /// The models that have something to tell.
    pub models: Vec<ModelSnapshot>,
    /// The generation of actors: rises with every restart of one.
    pub generation: u64,
}

impl Scheduler {
    /// A view of it.
    #[must_use]
    pub fn snapshot(&self) -> SchedulerSnapshot {
        let state = &self.state;
        let staged = self.tracks.values().map(|track| track.stage.len()).sum();
        let lanes = self.settings.all_lanes().map(|(name, rules)| {
            let track = self.tracks.get(name);
            LaneSnapshot {
                name: name.to_owned(),
                in_flight: self.in_flight_of(name),
                staged: track.map_or(0, |track| track.stage.len()),
                max_concurrency: rules.max_concurrency,
                limit: self.limit(name, rules),
                not_before: track.and_then(|track| track.not_before),
                wait_reason: self.lane_standstill(name),
                condition: state.lanes.get(name).cloned().unwrap_or_default(),
            }
        });
        let models = state.models.iter().map(|(model, condition)| ModelSnapshot {
            model: model.clone(),
            condition: condition.clone(),
        });
        let holds: Vec<ScopedHold> = state.holds().map(ScopedHold::from).collect();
        let (waiting, dormant) = (self.line.due_len(), self.line.dormant_len());
        let ready = self.line.ready_len() + staged;
        let (in_flight, unsettled) = (self.in_flight(), self.unsettled.len());
        let is_empty = ready + waiting + dormant + in_flight + unsettled == 0;
        let oldest_staged = self
            .tracks
            .values()
            .filter_map(|track| track.stage.oldest());
        SchedulerSnapshot {
            active: self.settings.glm.is_active,
            stopping: self.stopping,
            disk_full: self.disk_full,
            paused: state.paused.clone(),
            draining: state.draining.clone(),
            drained: state.draining.is_some() && is_empty,
            hold: holds.first().map(|scoped| scoped.hold.clone()),
            holds,
            breaker: self.breaker.clone(),
            unreachable: state.route.clone(),
            reached: self.reached,
            in_flight,
            max_concurrency: self.settings.slots(),
            ready,
            oldest_ready: oldest_staged.chain(self.line.oldest_ready()).min(),
            staged,
            waiting,
            dormant,
            over_budget: self.gate.waiting(),
            unsettled,
            wait_reason: self.standstill(),
            wait_counts: self.wait_counts(),
            priority_classes: PriorityClass::ALL
                .map(|class| (class.name(), self.of_class(class)))
                .into(),
            priorities: self.priorities(),
            lanes: lanes.collect(),
            models: models.collect(),
            generation: self.generation,
        }
    }

    /// What waits of a class: in line, or on record ahead of a slot.
    fn of_class(&self, class: PriorityClass) -> ClassSnapshot {
        let (jobs, oldest) = self.line.of_class(class);
        let staged = self.tracks.values().flat_map(|track| track.stage.iter());
        let staged: Vec<Timestamp> = staged
            .filter(|staged| PriorityClass::of(staged.entry.priority) == class)
            .map(|staged| staged.entry.since)
            .collect();
        ClassSnapshot {
            jobs: jobs + staged.len(),
            oldest_ready: staged.into_iter().chain(oldest).min(),
        }
    }

    /// How many jobs wait at each priority, staged ones included.
    fn priorities(&self) -> Vec<WaitingAt> {
        let mut counts: BTreeMap<Reverse<i32>, u64> = BTreeMap::new();
        for (priority, jobs) in self.line.priorities().take(limits::PRIORITIES_TOLD_MAX) {
            counts.insert(Reverse(priority), jobs);
        }
        for track in self.tracks.values() {
            for priority in track.stage.priorities() {
                *counts.entry(Reverse(priority)).or_default() += 1;
            }
        }
        let told = counts.into_iter().take(limits::PRIORITIES_TOLD_MAX);
        told.map(|(Reverse(priority), jobs)| WaitingAt { priority, jobs })
            .collect()
    }
}
