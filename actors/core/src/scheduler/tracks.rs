//! What each lane has of its own: a stage, a pace, what it learnt.

use std::sync::Arc;

use super::Scheduler;
use super::wait::Recent;
use crate::model::{CallOutcome, CallRecord, DEFAULT_LANE, Timestamp, limits};
use crate::scheduler::pace::Pace;
use crate::scheduler::slot::Stage;
use crate::scheduler::{adaptive, hold};

/// What a lane has beside its rules and what it must remember ([`crate::model::LaneCondition`]).
#[derive(Debug, Clone)]
pub(super) struct Track {
    pub(super) stage: Stage,
    pub(super) pace: Pace,
    /// Its pace lets nothing start before this moment.
    pub(super) not_before: Option<Timestamp>,
    /// How long its calls took lately.
    pub(super) recent: Recent,
}

impl Scheduler {
    /// The calls that the lanes' pace goes on from after a restart: those that ended since this moment, as they noted it.
    #[must_use]
    pub fn pace_goes_back_to(&self, now: Timestamp) -> Timestamp {
        let lanes = self.settings.all_lanes();
        let spacings = lanes.map(|(_, rules)| rules.pace.min_spacing_ms);
        let back_ms = spacings.max().unwrap_or(0).max(limits::PACE_MEMORY_MS);
        self.state.clock_steps.earliest_within(back_ms, now)
    }

    /// What the lanes' pace goes on from after a restart: the calls of the last minutes. Those that are
    /// still open are added from what the store told.
    pub fn restore_pace(&mut self, calls: &[CallRecord], now: Timestamp) {
        let steps = &self.state.clock_steps;
        let ended = calls.iter().map(|call| {
            // When one was sent that a crash cut off nobody knows; not after it was recorded.
            let at = match call.outcome {
                CallOutcome::Interrupted => call.ended_at,
                _ => call.started_at,
            };
            let (at, tokens) = (steps.told_now(at, now), call.usage.total_tokens);
            (at, call.job_id, call.model.as_str(), tokens)
        });
        let open = self.recovery.jobs().filter_map(|job| {
            let (open, tokens) = (job.open?, u64::from(job.estimated_tokens));
            // It may have been sent at any moment since that was decided, even just now, where it was staged or waited for a slow
            // disk. What GLM holds as a task was sent long ago.
            let at = match job.task {
                Some(_) => steps.told_now(open.at, now),
                None => now,
            };
            Some((at, job.id, job.sent_to(), tokens))
        });
        let starts: Vec<_> = ended.chain(open).collect();
        for (name, track) in &mut self.tracks {
            let of_lane = starts
                .iter()
                .filter(|(_, _, model, _)| self.settings.lane_of(model) == name)
                .map(|(at, job, _, tokens)| (*at, *job, *tokens));
            track.pace.restore(of_lane, self.steady.of(now));
            let of_lane = calls
                .iter()
                .filter(|call| self.settings.lane_of(&call.model) == name);
            of_lane.for_each(|call| track.recent.add(call));
        }
    }

    /// Gives every configured lane its track, with its rules; what a lane that is gone had staged goes
    /// back into the queue.
    pub(super) fn fit_tracks(&mut self, now: Timestamp) {
        let settings = Arc::clone(&self.settings);
        for (name, rules) in settings.all_lanes() {
            match self.tracks.get_mut(name) {
                Some(track) => track.pace.configure(rules.pace),
                None => {
                    let track = Track {
                        stage: Stage::new(limits::STAGED_AHEAD_MAX),
                        pace: Pace::new(rules.pace),
                        not_before: None,
                        recent: Recent::default(),
                    };
                    self.tracks.insert(name.to_owned(), track);
                }
            }
            let learnt = self.state.lanes.get(name).and_then(|lane| lane.learnt);
            let fitted = rules.auto().map(|auto| match learnt {
                Some(learnt) => adaptive::fitted(learnt, &auto, rules.max_concurrency),
                None => adaptive::begin(&auto, rules.max_concurrency, now),
            });
            if learnt != fitted {
                self.state.lanes.entry(name.to_owned()).or_default().learnt = fitted;
            }
        }
        let gone: Vec<String> = self
            .tracks
            .keys()
            .filter(|name| *name != DEFAULT_LANE && !settings.lanes.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            let stage = self
                .tracks
                .remove(&name)
                .map(|mut track| track.stage.take_where(|_| true));
            for staged in stage.into_iter().flatten() {
                self.unstage(staged, now);
            }
            self.state.lanes.remove(&name);
        }
        hold::tidy(&mut self.state);
        self.routes.forget();
    }
}
