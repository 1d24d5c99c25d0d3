//! The calls of a client key: never more of them than it may have open. What is beyond sleeps in the queue, so that
//! those behind it go, and wakes as calls of the key end.

use super::Scheduler;
use super::dispatch::Candidate;
use crate::model::{JobEntry, JobId, KeyId, Timestamp, Transition};
use crate::queue::Place;
use crate::scheduler::slot::Slot;

impl Scheduler {
    /// How many calls a key may have open, where that is fewer than the lanes make.
    pub(super) fn cap_of(&self, key: KeyId) -> Option<usize> {
        let key = self.settings.keys.get(key)?;
        let cap = key.rights.calls_in_flight?;
        (cap < self.settings.slots()).then_some(usize::from(cap))
    }

    /// How many calls of a key are open or about to be.
    fn open_of(&self, key: KeyId) -> usize {
        let of_slot = |slot: &Slot| match slot {
            Slot::Unknown | Slot::Idle => None,
            Slot::Starting { entry, .. } => entry.key,
            Slot::Busy { dispatch, .. } => dispatch.job.key_id,
        };
        let taken = self.slots.values().filter_map(of_slot);
        let found = self.recovery.jobs().filter_map(|job| job.key_id);
        taken.chain(found).filter(|own| *own == key).count()
    }

    /// The jobs of a key that are on record ahead of a slot.
    fn staged_of(&self, key: KeyId) -> impl Iterator<Item = (Place, JobId)> {
        let staged = self.tracks.values().flat_map(|track| track.stage.iter());
        let own = staged.filter(move |staged| staged.entry.key == Some(key));
        own.map(|staged| (staged.place, staged.entry.id))
    }

    /// Whether a job that was taken from the queue may be sent, or staged, beside the calls of its key. One of the key
    /// that is staged and less urgent makes room. `displaced` is taken back in any case.
    pub(super) fn key_has_room(
        &mut self,
        place: Place,
        entry: &JobEntry,
        displaced: Option<JobId>,
        now: Timestamp,
    ) -> bool {
        let Some((key, cap)) = entry.key.and_then(|key| Some((key, self.cap_of(key)?))) else {
            return true;
        };
        let others = self.staged_of(key);
        let others: Vec<_> = others.filter(|(_, id)| Some(*id) != displaced).collect();
        let open = self.open_of(key);
        if open + others.len() < cap {
            return true;
        }
        let outranked = others
            .into_iter()
            .filter(|(staged, _)| place.outranks(*staged));
        let last = outranked.max_by_key(|(place, _)| *place);
        match last.filter(|_| open < cap) {
            Some((_, id)) => {
                self.take_back([id], now);
                true
            }
            None => false,
        }
    }

    /// Whether a job may be sent beside the calls of its key without one of them making room.
    pub(super) fn key_has_place(&self, entry: &JobEntry) -> bool {
        let cap = entry.key.and_then(|key| Some((key, self.cap_of(key)?)));
        cap.is_none_or(|(key, cap)| self.open_of(key) + self.staged_of(key).count() < cap)
    }

    /// Whether the next job of a lane would be one call of its key too many.
    pub(super) fn is_over_cap(&mut self, next: &Candidate, now: Timestamp) -> bool {
        match next {
            Candidate::Waiting(place, entry) => !self.key_has_room(*place, entry, None, now),
            Candidate::Staged(staged) => staged.entry.key.is_some_and(|key| {
                let cap = self.cap_of(key);
                cap.is_some_and(|cap| self.open_of(key) >= cap)
            }),
        }
    }

    /// It sleeps until calls of its key have ended.
    pub(super) fn wait_for_key(&mut self, next: Candidate, now: Timestamp) {
        let (place, entry) = match next {
            Candidate::Waiting(place, entry) => (place, entry),
            Candidate::Staged(staged) => {
                let (place, mut entry) = (staged.place, staged.entry);
                self.gate.release(entry.id);
                self.out.store(Transition::Unstage { job_id: entry.id });
                entry.due = None;
                (place, entry)
            }
        };
        self.line.cap(place, entry, now);
    }

    /// Wakes as many as there is room for.
    pub(super) fn wake_capped(&mut self, now: Timestamp) {
        for key in self.line.capped_keys().collect::<Vec<_>>() {
            let room = self.cap_of(key).map_or(usize::MAX, |cap| {
                cap.saturating_sub(self.open_of(key) + self.staged_of(key).count())
            });
            self.line.uncap(key, room, now);
        }
    }
}
