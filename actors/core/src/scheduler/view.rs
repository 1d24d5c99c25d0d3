//! What the lanes show of themselves: to tests, the admin API and the curious.

use super::{Scheduler, WaitCounts};
use crate::model::{BreakerState, SchedulerState, Timestamp, WaitReason};

/// One lane among several.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    pub wait_reason: Option<WaitReason>,
}

/// All lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerSnapshot {
    /// The generation of actors.
    pub generation: u64,
    /// Jobs that are due and wait for a slot, staged ones included.
    pub ready: usize,
    /// Since when the oldest of those could have run.
    pub oldest_ready: Option<Timestamp>,
    /// Jobs that wait for their time.
    pub waiting: usize,
    /// Jobs that wait for other jobs or for somebody's word.
    pub dormant: usize,
    /// Of the dormant ones those that wait for room in a budget.
    pub over_budget: usize,
    /// Why nothing goes on; `None`: something does, or nothing waits.
    pub wait_reason: Option<WaitReason>,
    /// How many jobs wait for each reason.
    pub wait_counts: WaitCounts,
    /// Jobs whose next attempt is on record ahead of the slot.
    pub staged: usize,
    /// Calls that are open or about to be, those left by an earlier generation included.
    pub in_flight: usize,
    /// Calls that may be open, over all lanes.
    pub max_concurrency: u16,
    /// Every lane, the default one first.
    pub lanes: Vec<LaneSnapshot>,
    /// Outcomes that wait for their commit.
    pub unsettled: usize,
    /// Whether the configuration lets it run.
    pub active: bool,
    /// Whether it is shutting down.
    pub stopping: bool,
    /// Pause, holds and what was learnt.
    pub state: SchedulerState,
    /// The breaker as the lanes see it.
    pub breaker: BreakerState,
}

impl Scheduler {
    /// A view of it.
    #[must_use]
    pub fn snapshot(&self) -> SchedulerSnapshot {
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
            }
        });
        let oldest_staged = self
            .tracks
            .values()
            .filter_map(|track| track.stage.oldest());
        SchedulerSnapshot {
            generation: self.generation,
            ready: self.line.ready_len() + staged,
            oldest_ready: oldest_staged.chain(self.line.oldest_ready()).min(),
            waiting: self.line.due_len(),
            dormant: self.line.dormant_len(),
            over_budget: self.gate.waiting(),
            wait_reason: self.standstill(),
            wait_counts: self.wait_counts(),
            staged,
            in_flight: self.in_flight(),
            max_concurrency: self.settings.slots(),
            lanes: lanes.collect(),
            unsettled: self.unsettled,
            active: self.settings.glm.is_active,
            stopping: self.stopping,
            state: self.state.clone(),
            breaker: self.breaker.state,
        }
    }
}
