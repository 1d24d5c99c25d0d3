//! Open attempts that a restart finds: left alone until it is known that no call is open, then closed
//! as interrupted, or, when GLM holds them as tasks, taken up again.

use crate::judge::Sent;
use crate::judge::conclude::{self, Concluded};
use crate::life::{Next, Transition};
use crate::model::{AttemptPhase, Job, JobId, Settings, SlotId, Timestamp};
use crate::scheduler::slot::{Sending, Slot};
use crate::scheduler::{Effect, Scheduler};

/// An open attempt found at the start, waiting for proof of what became of it.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) job: Job,
    pub(super) sent: Sent,
    pub(super) cancelled: bool,
    /// GLM holds it as a task, and it is known that nobody fetches it: it waits for a slot.
    fetch: bool,
}

impl Orphan {
    /// Whether it is a task that waits to be fetched.
    pub(super) const fn waits(&self) -> bool {
        self.fetch
    }

    /// Whether GLM holds it as a task of this account, and its answer has not brought the process down
    /// too often already.
    fn can_be_fetched(&self, account: &str, settings: &Settings) -> bool {
        let crashed = u32::from(self.crashed());
        let bound = settings.lane.quarantine_after;
        let task = self.job.task.as_ref();
        task.is_some_and(|task| task.account == account)
            && (crashed == 0 || self.job.interruptions.saturating_add(crashed) < bound)
    }

    /// Whether its caller died with it, and was not stopped in an orderly way.
    fn crashed(&self) -> bool {
        let left = self.job.task.as_ref().is_some_and(|task| task.left_open);
        self.sent == Sent::Yes && !left
    }

    /// Closes its call. One that is only in doubt has no slot that is known.
    pub(super) fn abort(&self, job_id: JobId) -> Option<Effect> {
        let open = self.job.open.filter(|_| self.sent == Sent::Yes)?;
        Some(Effect::Abort {
            slot: open.slot,
            job_id,
            attempt: open.no,
        })
    }
}

impl Scheduler {
    /// Takes in the open attempts that the store holds: staged ones that were never sent go back in
    /// line (rule 2), the others wait for proof.
    pub(super) fn take_in(&mut self, open: Vec<Job>, now: Timestamp) {
        // A task shows that it was sent, although its start may not have come to be stored.
        let was_sent = |job: &Job| {
            job.task.is_some() || matches!(job.open, Some(o) if o.phase == AttemptPhase::Started)
        };
        let in_doubt = self.state.in_doubt || open.iter().any(was_sent);
        for job in open {
            if in_doubt {
                let orphan = Orphan {
                    sent: if was_sent(&job) {
                        Sent::Yes
                    } else {
                        Sent::Maybe
                    },
                    job,
                    cancelled: false,
                    fetch: false,
                };
                self.orphans.insert(orphan.job.id, orphan);
            } else {
                self.transitions
                    .push(Transition::Unstage { job_id: job.id });
                self.line.insert(job.entry(), now);
            }
        }
    }

    /// Notes in the lanes' state whether staged attempts are in doubt. Tells whether that is news.
    pub(super) fn note_doubt(&mut self) -> bool {
        let mut sent = self.orphans.values().map(|orphan| orphan.sent);
        let in_doubt = sent.any(|sent| sent == Sent::Maybe);
        std::mem::replace(&mut self.state.in_doubt, in_doubt) != in_doubt
    }

    /// A slot's caller has made calls for an earlier queue: what it sent has ended, and did not bring
    /// it down. Outcomes that are not on record were lost by the store. Said before [`Scheduler::ready`] and
    /// [`Scheduler::finished`].
    pub fn outlived(&mut self, slot: SlotId) {
        for orphan in self.orphans.values_mut() {
            let on_slot = orphan.job.open.is_some_and(|open| open.slot == slot);
            if on_slot && orphan.sent == Sent::Yes {
                orphan.sent = Sent::Ended;
            }
        }
    }

    /// Gives up a job whose attempt was found open. Tells whether it is one.
    pub(super) fn cancel_orphan(&mut self, id: JobId) -> bool {
        let Some(orphan) = self.orphans.get_mut(&id) else {
            return false;
        };
        orphan.cancelled = true;
        self.runs.extend(orphan.abort(id));
        true
    }

    /// Closes as interrupted the attempts that are proven to have no open call: those of the slot
    /// that just became ready or does not exist, and, once every slot has spoken, those in doubt.
    /// Those that GLM holds as tasks of this account are fetched instead.
    pub(super) fn resolve_orphans(&mut self, now: Timestamp, ready: Option<SlotId>) {
        if self.orphans.is_empty() {
            return;
        }
        let all_known = !self.slots.values().any(|s| matches!(s, Slot::Unknown));
        let closed: Vec<JobId> = self
            .orphans
            .iter()
            .filter(|(_, orphan)| match (orphan.sent, orphan.job.open) {
                (Sent::Yes | Sent::Ended, Some(open)) => {
                    orphan.fetch || ready == Some(open.slot) || !self.slots.contains_key(&open.slot)
                }
                _ => all_known,
            })
            .map(|(id, _)| *id)
            .collect();
        for id in closed {
            let Some(orphan) = self.orphans.get_mut(&id) else {
                continue;
            };
            if !orphan.cancelled && orphan.can_be_fetched(&self.endpoint_digest, &self.settings) {
                orphan.fetch = true;
            } else if let Some(orphan) = self.orphans.remove(&id) {
                let concluded = self.interrupt(&orphan, now);
                self.settle(concluded, None, false, now);
            }
        }
    }

    fn interrupt(&self, orphan: &Orphan, now: Timestamp) -> Concluded {
        let mut concluded = conclude::interrupted(&orphan.job, orphan.sent, &self.settings, now);
        if orphan.cancelled {
            concluded.settlement.next = Next::Cancelled;
            concluded.back_in_line = None;
        }
        concluded
    }

    /// Gives idle slots to the tasks that nobody fetches. They are in flight at GLM whatever holds,
    /// paces and bounds say, so only a lane that stands still by an operator's word leaves them.
    pub(super) fn fetch_tasks(&mut self, now: Timestamp) {
        if self.stopping || !self.settings.glm.is_active || self.state.paused.is_some() {
            return;
        }
        while let Some(id) = self
            .orphans
            .iter()
            .find(|(_, o)| o.fetch)
            .map(|(id, _)| *id)
        {
            let Some(slot) = self.idle_slot() else { return };
            let Some(orphan) = self.orphans.remove(&id) else {
                return;
            };
            let model = orphan.job.sent_to();
            let state = Slot::Starting {
                entry: orphan.job.entry(),
                sending: Sending {
                    model: model.into(),
                    at: now,
                },
                ticket: self.next_ticket,
                cancelled: false,
            };
            self.slots.insert(slot, state);
            self.transitions.push(Transition::Resume {
                job_id: id,
                slot,
                crashed: orphan.crashed(),
            });
        }
    }
}
