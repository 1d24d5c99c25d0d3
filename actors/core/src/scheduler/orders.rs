//! What submitters and operators order.

use std::sync::Arc;

use super::{CancelPath, Effect, Scheduler};
use crate::model::{HoldScope, JobId, Pause, Settings, Timestamp, Transition};
use crate::scheduler::hold;
use crate::scheduler::slot::{Slot, attempt_of};

impl Scheduler {
    /// Somebody gives a job up.
    #[must_use]
    pub fn cancel(&mut self, id: JobId, now: Timestamp) -> (CancelPath, Vec<Effect>) {
        if self.recovery.has(id) {
            self.out.act(self.recovery.cancel(id));
            // A task that waits to be fetched ends at once; others when their call is seen to be closed.
            self.settle_proven(now, None);
            return (CancelPath::Settlement, self.go_on(now));
        }
        if self.cancel_in_slot(id) {
            return (CancelPath::Settlement, self.go_on(now));
        }
        for track in self.tracks.values_mut() {
            if track.stage.take(id).is_some() {
                self.gate.release(id);
            }
        }
        self.give_up(id, now);
        (CancelPath::Commit, self.go_on(now))
    }

    fn cancel_in_slot(&mut self, id: JobId) -> bool {
        let Some((slot_id, slot)) = self.slots.iter_mut().find(|(_, s)| s.job_id() == Some(id))
        else {
            return false;
        };
        match slot {
            Slot::Starting { cancelled, .. } => *cancelled = true,
            Slot::Busy {
                dispatch,
                cancelled,
                ..
            } => {
                *cancelled = true;
                self.out.act([Effect::Abort {
                    slot: *slot_id,
                    job_id: id,
                    attempt: attempt_of(dispatch),
                }]);
            }
            Slot::Unknown | Slot::Idle => return false,
        }
        true
    }

    /// Somebody puts a failed, cancelled or set-aside job back into the queue.
    #[must_use]
    pub fn requeue(&mut self, id: JobId, now: Timestamp) -> Vec<Effect> {
        self.out.store(Transition::Requeue { job_id: id });
        self.go_on(now)
    }

    /// Somebody changes a pending job's priority.
    #[must_use]
    pub fn reprioritise(&mut self, id: JobId, priority: i32, now: Timestamp) -> Vec<Effect> {
        self.out.store(Transition::Reprioritise {
            job_id: id,
            priority,
        });
        self.go_on(now)
    }

    /// An operator pauses every lane.
    #[must_use]
    pub fn pause(&mut self, reason: Option<String>, now: Timestamp) -> Vec<Effect> {
        self.state.paused = Some(Pause { since: now, reason });
        self.state_changed();
        self.go_on(now)
    }

    /// An operator closes the intake: what waits is worked off.
    #[must_use]
    pub fn close_intake(&mut self, reason: Option<String>, now: Timestamp) -> Vec<Effect> {
        self.state.draining = Some(Pause { since: now, reason });
        self.state_changed();
        self.go_on(now)
    }

    /// An operator resumes: pause and every hold end, the intake is open.
    #[must_use]
    pub fn resume(&mut self, now: Timestamp) -> Vec<Effect> {
        hold::release_all(&mut self.state);
        self.fit_tracks(now);
        self.state_changed();
        self.go_on(now)
    }

    /// An operator ends one hold. Tells whether there was one.
    #[must_use]
    pub fn release(&mut self, scope: &HoldScope, now: Timestamp) -> (bool, Vec<Effect>) {
        let was = hold::release(&mut self.state, scope);
        if was {
            self.state_changed();
        }
        (was, self.go_on(now))
    }

    /// The settings changed. Another key or base URL ends what was held for the old account; another
    /// meaning of a code ends what it held.
    #[must_use]
    pub fn configure(&mut self, settings: Arc<Settings>, now: Timestamp) -> Vec<Effect> {
        let before = std::mem::replace(&mut self.settings, Arc::clone(&settings));
        self.unstage_reordered(&before, now);
        let codes: Vec<String> = self
            .state
            .holds()
            .map(|(_, hold)| hold.code.clone())
            .collect();
        for code in codes {
            if before.policy.get(&code) != settings.policy.get(&code)
                && hold::release_code(&mut self.state, &code)
            {
                self.state_changed();
            }
        }
        self.operator_may_have_acted(now);
        // Tasks of another account can't be fetched.
        self.settle_proven(now, None);
        let known = self.state.clone();
        self.fit_tracks(now);
        if self.state != known {
            self.state_changed();
        }
        self.line.configure(&settings);
        // Prices, bounds and fallbacks decide what fits, too.
        self.gate.look_at_all();
        self.go_on(now)
    }

    /// A lane's jobs go by another order now: places under the old one say nothing beside the new, so
    /// what was staged by them goes back into the queue.
    fn unstage_reordered(&mut self, before: &Settings, now: Timestamp) {
        let settings = Arc::clone(&self.settings);
        let mut astray = Vec::new();
        for (name, track) in &mut self.tracks {
            if before.rules_of(name).order != settings.rules_of(name).order {
                astray.extend(track.stage.take_where(|_| true));
            }
        }
        for staged in astray {
            self.unstage(staged, now);
        }
    }

    /// Sends nothing from now on: the lanes before these were told to drain.
    pub fn shuts_down(&mut self) {
        self.stopping = true;
    }

    /// Sends nothing more; staged attempts are taken back. [`Scheduler::is_drained`] tells the end.
    #[must_use]
    pub fn drain(&mut self, now: Timestamp) -> Vec<Effect> {
        self.stopping = true;
        let mut staged = Vec::new();
        for track in self.tracks.values_mut() {
            staged.extend(track.stage.take_where(|_| true));
        }
        for staged in staged {
            self.unstage(staged, now);
        }
        // Their submitters are told so once that is on disk, and ask again elsewhere or later.
        for id in self.line.bound().collect::<Vec<_>>() {
            self.give_up(id, now);
        }
        self.recovery.give_up_bound();
        self.settle_proven(now, None);
        self.go_on(now)
    }

    /// Gives up a job that waits.
    pub(super) fn give_up(&mut self, id: JobId, now: Timestamp) {
        self.gate.forget(id);
        self.forget_refused(id, true);
        self.line.remove(id);
        *self.ending.entry(id).or_default() += 1;
        self.out.store(Transition::Cancel {
            job_id: id,
            at: now,
        });
    }

    /// Closes every open call, as at the end of a shutdown's deadline.
    #[must_use]
    pub fn abort_all(&mut self) -> Vec<Effect> {
        let busy = self.slots.iter().filter_map(|(slot, state)| match state {
            Slot::Busy { dispatch, .. } => Some(Effect::Abort {
                slot: *slot,
                job_id: dispatch.job.id,
                attempt: attempt_of(dispatch),
            }),
            _ => None,
        });
        busy.chain(self.recovery.aborts()).collect()
    }

    /// Another key or base URL than when a hold began: the operator acted, and what was held or learnt
    /// is about another account.
    pub(super) fn operator_may_have_acted(&mut self, now: Timestamp) {
        let digest = self.settings.glm.endpoint().digest();
        let changed = self
            .state
            .endpoint_digest
            .as_ref()
            .is_some_and(|old| *old != digest);
        self.endpoint_digest = digest;
        if changed {
            self.state.endpoint_digest = None;
            hold::forget_account(&mut self.state);
            self.all_back(now);
            self.state.unattributed.jobs.clear();
            self.state_changed();
        }
    }
}
