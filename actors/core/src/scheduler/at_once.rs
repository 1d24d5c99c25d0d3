//! A job that comes to an idle lane: its insertion and its start are one commit. Else it would be put on disk twice
//! before it is sent, and who waits for its answer would wait for both.
//!
//! A shorter way and nothing else: who inserts through the store alone is served in the next step.

use std::sync::Arc;

use super::{Effect, Scheduler};
use crate::model::{Admission, JobEntry, NewJob, Reserve, Seq, SlotId, Timestamp, Transition};
use crate::scheduler::slot::Sending;

/// Until the store has given them theirs, jobs have the last sequence numbers of all, each its own.
const UNNUMBERED: u64 = u64::MAX - u32::MAX as u64;

/// A job that is about to be sent.
struct Setting {
    slot: SlotId,
    entry: JobEntry,
    sending: Sending,
    reserve: Option<Reserve>,
}

impl Scheduler {
    /// Whether a job that came now might be sent at once, as far as that can be said of any.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.idle_slot().is_some() && self.line.ready_len() == 0 && self.state.paused.is_none()
    }

    /// Whether jobs wait for their turn, and nothing that was decided for all keeps them.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.line.ready_len() > 0 && self.stopped().is_none()
    }

    /// Takes in a new job whose call can begin at once. The insertion is the first change of the commit among the
    /// effects, the start another of it. `Err`: it has to wait, and is to be inserted as others are.
    pub fn start_at_once(
        &mut self,
        new: Arc<NewJob>,
        now: Timestamp,
    ) -> Result<Vec<Effect>, (Arc<NewJob>, Vec<Effect>)> {
        let Some(setting) = self.set_out_at_once(&new, now) else {
            return Err((new, self.out.hand_out()));
        };
        self.out.store_first(Transition::Insert(new));
        self.promise(
            setting.slot,
            setting.entry,
            setting.sending,
            setting.reserve,
        );
        Ok(self.go_on(now))
    }

    fn set_out_at_once(&mut self, new: &NewJob, now: Timestamp) -> Option<Setting> {
        let job = &new.job;
        let is_let_in = matches!(new.admission, Admission::Open { .. });
        let is_late = job.deadline.is_some_and(|by| by <= now);
        // One with a key may be there already: it would use up pace and turns for nothing.
        let may_be_there = job.idempotency_key.is_some();
        if !is_let_in || is_late || may_be_there || !job.after.is_empty() || self.knows(job.id) {
            return None;
        }
        // Timers may be late, after a process was frozen above all: what is due by now goes first.
        self.line.wake(now);
        let slot = self.idle_slot()?;
        let settings = Arc::clone(&self.settings);
        let lane = settings.lane_of(&job.model);
        if !self.may_send(lane, settings.rules_of(lane)) || self.has_next(lane) {
            return None;
        }
        let entry = JobEntry {
            seq: Seq(UNNUMBERED + u64::from(self.unnumbered)),
            ..job.entry()
        };
        if !self.key_has_place(&entry) || !self.pace_allows(lane, entry.tokens, now) {
            return None;
        }
        self.unnumbered = self.unnumbered.wrapping_add(1);
        // The line says whether it waits for anything else, and whose turn it uses up.
        self.line.insert(entry, now);
        self.reroute(now);
        let routes = &self.routes;
        let shut = self.gate.shut();
        let models = routes.open_to(lane, &self.line, shut, &self.state, &settings);
        let (_, next) = self.next_places(lane, models.as_deref());
        let models = models.filter(|_| next.is_some());
        let taken = models.and_then(|models| self.line.pop(lane, &models));
        let Some((place, entry)) = taken else {
            self.line.remove(job.id);
            return None;
        };
        let afforded = self.target(&entry, lane).and_then(|model| {
            let reserve = self.afford(place, &entry, &model, None, now).ok()?;
            Some((model, reserve))
        });
        if entry.id != job.id || afforded.is_none() {
            self.line.put_back(place, entry, now);
            self.line.remove(job.id);
            return None;
        }
        let (model, reserve) = afforded?;
        let sending = self.sets_out(lane, place, &entry, model, now);
        Some(Setting {
            slot,
            entry,
            sending,
            reserve,
        })
    }
}
