//! Puts the next jobs of a lane on record ahead of its busy slots.

use std::sync::Arc;

use super::Scheduler;
use super::dispatch::{Candidate, STARVED_AT_ONCE};
use crate::model::{Timestamp, Transition, limits};
use crate::scheduler::slot::Staged;

impl Scheduler {
    /// Says on disk how far down the stage may be sent before a start is stored: so much, and no more, is in doubt
    /// after a crash.
    pub(super) fn release_ahead(&mut self) {
        let ticket = self.out.ticket();
        let mut news = false;
        let settings = Arc::clone(&self.settings);
        for (name, _) in settings.all_lanes() {
            let busy = self.taken_by(name);
            if let Some(track) = self.tracks.get_mut(name) {
                let count = busy * track.stage.window();
                news |= track.stage.release(count, ticket);
            }
        }
        if !news {
            return;
        }
        let staged = self
            .tracks
            .values()
            .flat_map(|track| track.stage.released());
        // What an earlier crash left in doubt stays so until it is settled.
        let released = staged.chain(self.recovery.in_doubt()).collect();
        self.out.store(Transition::Release(released));
    }

    /// Keeps the lane's most urgent jobs on record ahead of its busy slots. A job more urgent than
    /// the last of them takes its place.
    pub(super) fn stage_ahead(&mut self, lane: &str, now: Timestamp) {
        let busy = self.taken_by(lane);
        if busy == 0 || self.stopping || !self.settings.glm.is_active || self.state.paused.is_some()
        {
            return;
        }
        // The reserve of a lane that is held is missing elsewhere.
        let idle = self.gate.is_stale() || (!self.gate.is_open() && self.is_held(lane));
        if idle {
            return;
        }
        for _ in 0..STARVED_AT_ONCE {
            let open = self.routes.open_to(
                lane,
                &self.line,
                self.gate.shut(),
                &self.state,
                &self.settings,
            );
            let Some(models) = open.as_deref() else {
                return;
            };
            let Some(next) = self.line.peek(lane, models) else {
                return;
            };
            let Some(track) = self.tracks.get(lane) else {
                return;
            };
            let want = (busy * track.stage.depth()).min(limits::STAGED_AHEAD_MAX.max(busy));
            let mut displaced = None;
            if track.stage.len() >= want {
                let last = track.stage.last();
                let Some(last) = last.filter(|last| next.outranks(last.place)) else {
                    return;
                };
                displaced = Some(last.entry.id);
            }
            let Some((place, entry)) = self.line.pop(lane, models) else {
                return;
            };
            if !self.key_has_room(place, &entry, displaced, now) {
                self.line.cap(place, entry, now);
                continue;
            }
            let Some(model) = self.target(&entry, lane) else {
                self.lead_away(Candidate::Waiting(place, entry), now);
                return;
            };
            let reserve = match self.afford(place, &entry, &model, displaced, now) {
                Ok(reserve) => reserve,
                Err(fit) => {
                    self.make_way(Candidate::Waiting(place, entry), &model, fit, now);
                    continue;
                }
            };
            self.out.store(Transition::Stage {
                job_id: entry.id,
                at: now,
                reserve,
            });
            let ticket = self.out.ticket();
            if let Some(track) = self.tracks.get_mut(lane) {
                track.stage.insert(Staged {
                    entry,
                    place,
                    ticket,
                    dispatch: None,
                    released: None,
                });
            }
        }
        // A long line of jobs that no budget allows is gone through in steps.
        self.soon = Some(now.plus_ms(1));
    }
}
