//! Why a job, or a lane, is not running now. Decided here alone, from what the machine knows; nothing is changed
//! by asking, and no list of all waiting jobs is gone through.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{Scheduler, Track, routes};
use crate::model::{
    BreakerState, CallOutcome, CallRecord, Hold, HoldScope, JobEntry, JobId, LaneRules,
    POSITIONS_EXACT, Timestamp, WaitReason, Waiting, limits,
};
use crate::scheduler::slot::Staged;

/// Jobs by the name of the reason for which they wait.
pub type WaitCounts = BTreeMap<&'static str, u64>;

/// A mean of recent response times, the latest weighing most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Recent(Option<u64>);

impl Recent {
    /// A call has ended. Only one that was answered tells how long answers take.
    pub(super) fn add(&mut self, call: &CallRecord) {
        if call.outcome == CallOutcome::Completed {
            let ms = call.response_time_ms;
            self.0 = Some(match self.0 {
                None => ms,
                Some(mean) => mean.saturating_mul(7).saturating_add(ms) / 8,
            });
        }
    }
}

/// Places in the order of service, by lane: found once for all jobs that are asked about together.
#[derive(Debug, Default)]
struct Places(BTreeMap<String, HashMap<JobId, u32>>);

impl Scheduler {
    /// Why jobs that wait by their rows are not running now, in their order.
    #[must_use]
    pub fn wait_reasons(&self, jobs: &[Waiting]) -> Vec<WaitReason> {
        let mut places = Places::default();
        let reason = |job| self.wait_reason(job, &mut places);
        jobs.iter().map(reason).collect()
    }

    fn wait_reason(&self, job: &Waiting, places: &mut Places) -> WaitReason {
        if let Some(reason) = job.on_others() {
            return reason;
        }
        if let Some((lane, track)) = self.stage_of(job.id) {
            return self.staged_reason(lane, track, job.id);
        }
        let Some(entry) = self.line.get(job.id) else {
            let taken = self
                .slots
                .values()
                .any(|slot| slot.job_id() == Some(job.id));
            return if taken || self.recovery.has(job.id) {
                WaitReason::Stage
            } else {
                WaitReason::Reading
            };
        };
        self.more_than_its_turn(&entry, self.line.due_later(&entry))
            .unwrap_or_else(|| self.behind(&entry, places))
    }

    /// Why a job that was taken out of line at its deadline had not run, if it waited for more than its turn.
    pub(super) fn kept_until_deadline(
        &self,
        entry: &JobEntry,
        now: Timestamp,
    ) -> Option<WaitReason> {
        self.more_than_its_turn(
            entry,
            entry.due.map(|due| due.at(now)).filter(|at| *at > now),
        )
    }

    /// What a job waits for beside its turn, if anything. `until`: its time, if that is still to come.
    fn more_than_its_turn<N: AsRef<str>>(
        &self,
        entry: &JobEntry<N>,
        until: Option<Timestamp>,
    ) -> Option<WaitReason> {
        if let Some(budget) = self.gate.wait_of(entry, &self.state, &self.settings) {
            return Some(budget.into());
        }
        if entry.out_of_scope {
            return Some(WaitReason::OtherBatch);
        }
        if let Some(key) = entry.capped_key() {
            return Some(self.stopped().unwrap_or(WaitReason::KeyBusy { key }));
        }
        if let Some(refused) = self.state.unattributed.kept_out(entry.id) {
            return Some(self.stopped().unwrap_or_else(|| WaitReason::Aside {
                code: refused.failure.code.clone(),
                message: refused.failure.message.clone(),
            }));
        }
        if entry.dormant && entry.parked {
            return Some(WaitReason::Parked {
                since: None,
                attempt: None,
            });
        }
        if entry.dormant {
            return Some(WaitReason::Blocked { by: Vec::new() });
        }
        if let Some(until) = until {
            return Some(if entry.is_scheduled() {
                WaitReason::Scheduled { until }
            } else {
                WaitReason::Delayed { until }
            });
        }
        self.stopped()
            .or_else(|| self.model_stopped(entry.model.as_ref()))
    }

    /// What stops every job, if anything does.
    pub(super) fn stopped(&self) -> Option<WaitReason> {
        let state = &self.state;
        if self.stopping {
            return Some(WaitReason::Stopping);
        }
        if self.disk_full {
            return Some(WaitReason::DiskFull);
        }
        if !self.settings.glm.is_active {
            return Some(WaitReason::Inactive);
        }
        if let Some(pause) = &state.paused {
            return Some(WaitReason::paused(pause));
        }
        if let Some(hold) = &state.hold {
            return Some(self.held(&HoldScope::Account, hold));
        }
        if self.breaker.state == BreakerState::Open {
            return Some(WaitReason::breaker(&self.breaker));
        }
        if self.gate.is_stale() {
            return Some(WaitReason::Reading);
        }
        if self.unsettled.len() >= limits::UNSETTLED_MAX {
            return Some(WaitReason::DiskBehind);
        }
        (self.is_probing() && self.in_flight() > 0).then_some(WaitReason::Probe)
    }

    /// What stops the jobs of one model, if anything does.
    pub(super) fn model_stopped(&self, model: &str) -> Option<WaitReason> {
        let state = &self.state;
        let Some(target) = routes::target(model, state, &self.settings) else {
            let hold = state.models.get(model)?.hold.as_ref()?;
            return Some(self.held(&HoldScope::Model(model.to_owned()), hold));
        };
        let probing = state
            .models
            .get(&*target)
            .is_some_and(|model| model.probing && self.is_called(&target));
        self.lane_held(self.settings.lane_of(&target))
            .or_else(|| probing.then_some(WaitReason::Probe))
    }

    fn lane_held(&self, lane: &str) -> Option<WaitReason> {
        let hold = self.state.lanes.get(lane)?.hold.as_ref()?;
        Some(self.held(&HoldScope::Lane(lane.to_owned()), hold))
    }

    /// A hold as the reason of a wait, with what its code means.
    fn held(&self, scope: &HoldScope, hold: &Hold) -> WaitReason {
        let meaning = |code: &str| self.settings.meanings.get(code).cloned();
        WaitReason::hold(scope, hold).explained(meaning)
    }

    /// A lane's pace, where it keeps the next call from beginning.
    fn paced(&self, lane: &str) -> Option<WaitReason> {
        let until = self.tracks.get(lane)?.not_before?;
        Some(WaitReason::Pace {
            until,
            lane: lane.to_owned(),
        })
    }

    // ---- places in the order of service ------------------------------------------------------

    /// The lane that has a job on record as one of its next, with what it has.
    fn stage_of(&self, id: JobId) -> Option<(&str, &Track)> {
        self.tracks
            .iter()
            .find(|(_, track)| track.stage.contains(id))
            .map(|(name, track)| (name.as_str(), track))
    }

    fn staged_reason(&self, lane: &str, track: &Track, id: JobId) -> WaitReason {
        let next = self.next_staged(lane);
        let is_next = next.is_some_and(|next| next.entry.id == id);
        let paced = || self.paced(lane).filter(|_| is_next);
        let own = track.stage.iter().find(|staged| staged.entry.id == id);
        let reserved = || self.reserved_from(lane, own?.place);
        self.stopped()
            .or_else(|| self.lane_held(lane))
            .or_else(paced)
            .or_else(reserved)
            .unwrap_or(WaitReason::Stage)
    }

    /// The lane that a model's jobs go to, held or not.
    fn lane_for(&self, model: &str) -> &str {
        let target = routes::target(model, &self.state, &self.settings);
        self.settings.lane_of(target.as_deref().unwrap_or(model))
    }

    /// The models whose jobs go to a lane, held ones, too.
    fn models_of(&self, lane: &str) -> BTreeSet<Arc<str>> {
        self.line
            .models()
            .filter(|model| self.lane_for(model) == lane)
            .cloned()
            .collect()
    }

    /// The places in the order of service of the first of a lane's due jobs, staged ones before them.
    fn places_of(&self, lane: &str) -> HashMap<JobId, u32> {
        let staged = self.tracks.get(lane).map_or(0, |track| track.stage.len());
        let first = u32::try_from(staged).unwrap_or(u32::MAX).saturating_add(1);
        self.line
            .service_order(lane, self.models_of(lane))
            .map(|entry| entry.id)
            // So many may be ahead.
            .zip(first..=POSITIONS_EXACT + 1)
            .collect()
    }

    /// A job that only waits for its turn.
    fn behind(&self, entry: &JobEntry, places: &mut Places) -> WaitReason {
        let lane = self.lane_for(&entry.model);
        if let Some(reserved) = self.reserved(lane) {
            return reserved;
        }
        let known = places
            .0
            .entry(lane.to_owned())
            .or_insert_with(|| self.places_of(lane));
        let position = known.get(&entry.id).copied();
        if position == Some(1)
            && let Some(pace) = self.paced(lane)
        {
            return pace;
        }
        WaitReason::Behind {
            position,
            more_than: position.is_none().then_some(POSITIONS_EXACT),
            estimate_ms: position.and_then(|position| self.estimate_ms(lane, position)),
        }
    }

    /// How long it takes until a job at this position goes, if calls take as long as they did lately.
    fn estimate_ms(&self, lane: &str, position: u32) -> Option<u64> {
        let mean = self.tracks.get(lane)?.recent.0?;
        let rules: &LaneRules = self.settings.rules_of(lane);
        let position = u64::from(position);
        let rounds = position.div_ceil(u64::from(self.limit(lane, rules).max(1)));
        let by_minute = match u64::from(rules.pace.requests_per_minute) {
            0 => 0,
            starts => position.saturating_mul(60_000) / starts,
        };
        let by_spacing = position.saturating_mul(rules.pace.min_spacing_ms);
        Some(mean.saturating_mul(rounds).max(by_minute).max(by_spacing))
    }

    /// The first of the waiting jobs in the order in which they will go: of every lane the next one, then of
    /// every lane the one after it; behind all that are due those that wait for their time, the earliest first.
    /// What waits for other jobs, for a budget or for an operator has no place among them.
    #[must_use]
    pub fn in_service_order(&self, limit: usize) -> Vec<JobId> {
        let mut lanes: Vec<_> = self
            .settings
            .all_lanes()
            .map(|(name, _)| {
                let staged = self.tracks.get(name).into_iter();
                let staged = staged.flat_map(|track| track.stage.iter().map(|job| job.entry.id));
                let due = self.line.service_order(name, self.models_of(name));
                staged.chain(due.map(|entry| entry.id))
            })
            .collect();
        let mut ids = Vec::new();
        while ids.len() < limit {
            let before = ids.len();
            ids.extend(lanes.iter_mut().filter_map(Iterator::next));
            if ids.len() == before {
                break;
            }
        }
        ids.extend(self.line.by_time().map(|entry| entry.id).take(limit));
        ids.truncate(limit);
        ids
    }

    // ---- the lane as a whole -----------------------------------------------------------------

    /// Why nothing goes on, if nothing does: what stops every job, or, while no call is open, what is in the way
    /// of those that are left. What ends by itself is told before what needs an operator.
    #[must_use]
    pub fn standstill(&self) -> Option<WaitReason> {
        if let Some(reason) = self.stopped() {
            return Some(reason);
        }
        if self.in_flight() > 0 {
            return None;
        }
        let (ready, is_free) = self.in_the_way_of_ready();
        if is_free {
            return None;
        }
        let of_others = [ready, self.first_by_time(), self.short_of_room()];
        let mut reasons: Vec<WaitReason> = of_others.into_iter().flatten().collect();
        // Stable: of equals the first.
        reasons.sort_by_key(WaitReason::waits_for_operator);
        reasons
            .into_iter()
            .next()
            .or_else(|| self.dormant_only())
            .or_else(|| self.state.draining.as_ref().map(WaitReason::draining))
    }

    /// What is in the way of jobs that are due; and whether nothing is in the way of some.
    fn in_the_way_of_ready(&self) -> (Option<WaitReason>, bool) {
        let staged = self
            .tracks
            .iter()
            .filter(|(_, track)| !track.stage.is_empty());
        let staged = staged.map(|(lane, _)| self.lane_held(lane).or_else(|| self.paced(lane)));
        let ready = self.line.ready_by_model().map(|(model, _)| {
            let paced = || self.paced(self.lane_for(model));
            self.model_stopped(model).or_else(paced)
        });
        let (mut passing, mut lasting) = (None, None);
        for reason in staged.chain(ready) {
            match reason {
                None => return (None, true),
                Some(reason) if reason.ends_by_itself() => {
                    passing.get_or_insert(reason);
                }
                Some(reason) => {
                    lasting.get_or_insert(reason);
                }
            }
        }
        (passing.or(lasting), false)
    }

    fn first_by_time(&self) -> Option<WaitReason> {
        let entry = self.line.by_time().next()?;
        self.more_than_its_turn(&entry, self.line.due_later(&entry))
    }

    /// Why those that wait for room do.
    fn short_of_room(&self) -> Option<WaitReason> {
        let mut first = None;
        for id in self.gate.waiting_jobs().take(limits::BUDGET_LOOKS_AT_ONCE) {
            let wait = self
                .line
                .get(id)
                .and_then(|entry| self.gate.wait_of(&entry, &self.state, &self.settings));
            match wait {
                Some(wait) if !wait.too_large => return Some(wait.into()),
                wait => first = first.or(wait),
            }
        }
        first.map(WaitReason::from)
    }

    fn dormant_only(&self) -> Option<WaitReason> {
        if self.line.parked_len() > 0 {
            return Some(WaitReason::Parked {
                since: None,
                attempt: None,
            });
        }
        let others = self.line.out_of_scope_len();
        let capped = self.line.capped_len();
        if self.line.dormant_len() > others + capped {
            return Some(WaitReason::Blocked { by: Vec::new() });
        }
        if let Some(key) = self.line.capped_keys().next() {
            return Some(WaitReason::KeyBusy { key });
        }
        (others > 0).then_some(WaitReason::OtherBatch)
    }

    /// Why one lane lets nothing go, if it does.
    #[must_use]
    pub fn lane_standstill(&self, lane: &str) -> Option<WaitReason> {
        self.stopped()
            .or_else(|| self.lane_held(lane))
            .or_else(|| self.paced(lane))
    }

    /// How many jobs wait for each reason: every name, zeros, too. Reckoned from counters that are kept as jobs
    /// come and go, one for each model and lane.
    #[must_use]
    pub fn wait_counts(&self) -> WaitCounts {
        let mut counts: WaitCounts = WaitReason::NAMES.map(|name| (name, 0)).into();
        let mut add = |name, jobs: usize| *counts.entry(name).or_default() += jobs as u64;
        let line = &self.line;
        let budget = self.gate.waiting();
        add("scheduled", line.scheduled_len());
        add(
            "delayed",
            line.due_len().saturating_sub(line.scheduled_len()),
        );
        add("budget", budget);
        add("parked", line.parked_len());
        add("otherBatch", line.out_of_scope_len());
        let capped = line.capped_len();
        let aside = self.state.unattributed.kept_out_len();
        let stopped = self.stopped().map(|reason| reason.name());
        add(stopped.unwrap_or("aside"), aside);
        add(stopped.unwrap_or("keyBusy"), capped);
        let others = line.parked_len() + line.out_of_scope_len() + budget + aside + capped;
        add("blocked", line.dormant_len().saturating_sub(others));
        let mut turns: BTreeMap<&str, usize> = BTreeMap::new();
        for (model, jobs) in line.ready_by_model() {
            let of_model = || self.model_stopped(model).map(|reason| reason.name());
            match stopped.or_else(of_model) {
                Some(name) => add(name, jobs),
                None => *turns.entry(self.lane_for(model)).or_default() += jobs,
            }
        }
        for (lane, track) in &self.tracks {
            let behind = turns.remove(lane.as_str()).unwrap_or(0);
            let staged = track.stage.len();
            let held = || self.lane_held(lane).map(|reason| reason.name());
            if let Some(name) = stopped.or_else(held) {
                add(name, staged);
                add("behind", behind);
                continue;
            }
            if let Some(reserved) = self.reserved(lane) {
                add(reserved.name(), staged + behind);
                continue;
            }
            let is_kept_back = |staged: &&Staged| self.reserved_from(lane, staged.place).is_some();
            let kept_back = track.stage.iter().filter(is_kept_back).count();
            let staged = staged - kept_back;
            add("reserved", kept_back);
            // The pace keeps the one that would go next; the others wait for their turns.
            let first = usize::from(self.paced(lane).is_some());
            let of_stage = first.min(staged);
            let of_line = (first - of_stage).min(behind);
            add("pace", of_stage + of_line);
            add("stage", staged - of_stage);
            add("behind", behind - of_line);
        }
        counts
    }
}
