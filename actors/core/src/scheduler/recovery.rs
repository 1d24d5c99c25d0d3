//! Open attempts that a restart finds: left alone until it is known that no call is open, then closed
//! as interrupted, or, when GLM holds them as tasks, taken up again.

use std::collections::{BTreeMap, BTreeSet};

use super::{Effect, Scheduler};
use crate::judge::Sent;
use crate::judge::conclude::{self, Concluded};
use crate::model::{
    AttemptNo, AttemptPhase, Job, JobId, Next, Settings, SlotId, Timestamp, Transition,
};
use crate::scheduler::slot::{Sending, Slot};

/// The open attempts that were found at the start and wait for proof of what became of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Recovery(BTreeMap<JobId, Orphan>);

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Orphan {
    job: Job,
    sent: Sent,
    cancelled: bool,
    /// GLM holds it as a task, and it is known that nobody fetches it: it waits for a slot.
    fetch: bool,
}

impl Recovery {
    /// Takes in the open attempts that the store holds. `in_doubt`: a crash before this one left staged
    /// attempts that may have been sent. `released`: those that may have been sent at all. Answers the jobs whose
    /// staged attempts were never sent (rule 2). What is bound to another process than `instance` is not called
    /// again.
    pub(super) fn take_in(
        &mut self,
        open: Vec<Job>,
        released: &BTreeSet<JobId>,
        in_doubt: bool,
        instance: Option<u64>,
    ) -> Vec<Job> {
        if !in_doubt && !open.iter().any(was_sent) {
            return open;
        }
        let mut never_sent = Vec::new();
        for job in open {
            let sent = if was_sent(&job) {
                Sent::Yes
            } else if released.contains(&job.id) {
                Sent::Maybe
            } else {
                never_sent.push(job);
                continue;
            };
            let orphan = Orphan {
                cancelled: is_lost(&job, instance),
                job,
                sent,
                fetch: false,
            };
            self.0.insert(orphan.job.id, orphan);
        }
        never_sent
    }

    /// Those that were staged and may have been sent.
    pub(super) fn in_doubt(&self) -> impl Iterator<Item = JobId> {
        let maybe = |orphan: &&Orphan| orphan.sent == Sent::Maybe;
        self.0.values().filter(maybe).map(|orphan| orphan.job.id)
    }

    /// Whether the job has an attempt here.
    pub(super) fn has(&self, id: JobId) -> bool {
        self.0.contains_key(&id)
    }

    /// The jobs.
    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.0.values().map(|orphan| &orphan.job)
    }

    /// Attempts whose calls may be open here. A task that nobody fetches is open at GLM only: the next
    /// start can fetch it, too.
    pub(super) fn in_flight(&self) -> usize {
        self.0.values().filter(|orphan| !orphan.fetch).count()
    }

    /// Whether all that the start found is settled.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The job whose outcome is waited for, and whether it was cancelled.
    pub(super) fn awaited(&self, id: JobId, attempt: AttemptNo) -> Option<(&Job, bool)> {
        let orphan = self.0.get(&id)?;
        let open = orphan.job.open?;
        (open.no == attempt).then_some((&orphan.job, orphan.cancelled))
    }

    /// What became of the job's attempt is known.
    pub(super) fn forget(&mut self, id: JobId) {
        self.0.remove(&id);
    }

    /// A caller has survived the calls that an earlier queue sent through this slot: they have ended.
    pub(super) fn outlived(&mut self, slot: SlotId) {
        for orphan in self.0.values_mut() {
            let on_slot = orphan.job.open.is_some_and(|open| open.slot == slot);
            if on_slot && orphan.sent == Sent::Yes {
                orphan.sent = Sent::Ended;
            }
        }
    }

    /// Somebody gives a job up: closes its call, if it is known where that is.
    pub(super) fn cancel(&mut self, id: JobId) -> Option<Effect> {
        let orphan = self.0.get_mut(&id)?;
        orphan.cancelled = true;
        orphan.abort()
    }

    /// Gives up what belongs to a connection: what comes of its calls is the last of it.
    pub(super) fn give_up_bound(&mut self) {
        for orphan in self.0.values_mut() {
            orphan.cancelled |= orphan.job.bound_to.is_some();
        }
    }

    /// Closes every call that may be open.
    pub(super) fn aborts(&self) -> impl Iterator<Item = Effect> {
        self.0.values().filter_map(Orphan::abort)
    }

    /// Tells whether the job has an attempt here, whose retry then goes back with this priority.
    pub(super) fn reprioritise(&mut self, id: JobId, priority: i32) -> bool {
        let orphan = self.0.get_mut(&id);
        orphan.is_some_and(|orphan| {
            orphan.job.priority = priority;
            true
        })
    }

    /// The attempts that are proven to have no open call: those of the slot that just became ready or
    /// does not exist, and, once every slot has spoken, those in doubt.
    pub(super) fn proven(
        &self,
        slots: &BTreeMap<SlotId, Slot>,
        ready: Option<SlotId>,
    ) -> Vec<JobId> {
        let all_known = !slots.values().any(|slot| matches!(slot, Slot::Unknown));
        let is_proven = |orphan: &Orphan| match (orphan.sent, orphan.job.open) {
            (Sent::Yes | Sent::Ended, Some(open)) => {
                orphan.fetch || ready == Some(open.slot) || !slots.contains_key(&open.slot)
            }
            _ => all_known,
        };
        let proven = self.0.iter().filter(|(_, orphan)| is_proven(orphan));
        proven.map(|(id, _)| *id).collect()
    }

    /// An attempt has no open call: it is taken out as interrupted. `None`: GLM holds it as a task of this
    /// account, so that it waits to be fetched instead.
    pub(super) fn close(
        &mut self,
        id: JobId,
        account: &str,
        settings: &Settings,
        now: Timestamp,
    ) -> Option<Concluded> {
        let orphan = self.0.get_mut(&id)?;
        if !orphan.cancelled && orphan.can_be_fetched(account, settings) {
            orphan.fetch = true;
            return None;
        }
        let orphan = self.0.remove(&id)?;
        Some(orphan.interrupted(settings, now))
    }

    /// Whether a task waits to be fetched.
    pub(super) fn has_task(&self) -> bool {
        self.0.values().any(|orphan| orphan.fetch)
    }

    /// Takes out a task that waits to be fetched. Tells with its job whether its caller died with it.
    pub(super) fn take_task(&mut self) -> Option<(Job, bool)> {
        let (id, _) = self.0.iter().find(|(_, orphan)| orphan.fetch)?;
        let id = *id;
        let orphan = self.0.remove(&id)?;
        let crashed = orphan.crashed();
        Some((orphan.job, crashed))
    }
}

impl Orphan {
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

    /// Closes its call. The slot of one that is only in doubt is not known.
    fn abort(&self) -> Option<Effect> {
        let open = self.job.open.filter(|_| self.sent == Sent::Yes)?;
        Some(Effect::Abort {
            slot: open.slot,
            job_id: self.job.id,
            attempt: open.no,
        })
    }

    fn interrupted(&self, settings: &Settings, now: Timestamp) -> Concluded {
        let mut concluded = conclude::interrupted(&self.job, self.sent, settings, now);
        if self.cancelled {
            concluded.settlement.next = Next::Cancelled;
            concluded.back_in_line = None;
        }
        concluded
    }
}

/// Whether the process whose connection takes its answer is gone.
fn is_lost(job: &Job, instance: Option<u64>) -> bool {
    job.bound_to.is_some() && job.bound_to != instance
}

/// A task shows that an attempt was sent, although its start may not have come to be stored.
fn was_sent(job: &Job) -> bool {
    job.task.is_some()
        || job
            .open
            .is_some_and(|open| open.phase == AttemptPhase::Started)
}

impl Scheduler {
    /// Takes in the open attempts that the store holds. Staged ones that were never sent go back into the
    /// queue.
    pub(super) fn take_in(
        &mut self,
        open: Vec<Job>,
        released: Vec<JobId>,
        instance: Option<u64>,
        now: Timestamp,
    ) {
        let released = released.into_iter().collect();
        let in_doubt = self.state.in_doubt;
        for job in self.recovery.take_in(open, &released, in_doubt, instance) {
            self.out.store(Transition::Unstage { job_id: job.id });
            if is_lost(&job, instance) {
                self.give_up(job.id, now);
            } else {
                self.line.insert(job.entry(), now);
            }
        }
    }

    /// Notes in the lanes' state whether staged attempts are in doubt. Tells whether that is news.
    pub(super) fn note_doubt(&mut self) -> bool {
        let in_doubt = self.recovery.in_doubt().next().is_some();
        std::mem::replace(&mut self.state.in_doubt, in_doubt) != in_doubt
    }

    /// A slot's caller has made calls for an earlier queue: what it sent has ended, and did not bring
    /// it down. Outcomes that are not on record were lost by the store. Said before [`Scheduler::ready`] and
    /// [`Scheduler::finished`].
    pub fn outlived(&mut self, slot: SlotId) {
        self.recovery.outlived(slot);
    }

    /// Settles the attempts that are proven to have no open call. `ready`: the slot that just became ready.
    pub(super) fn settle_proven(&mut self, now: Timestamp, ready: Option<SlotId>) {
        for id in self.recovery.proven(&self.slots, ready) {
            let account = &self.endpoint_digest;
            let concluded = self.recovery.close(id, account, &self.settings, now);
            if let Some(concluded) = concluded {
                self.settle(concluded, None, false, now);
            }
        }
    }

    /// Gives idle slots to the tasks that nobody fetches. They are in flight at GLM whatever holds,
    /// paces and bounds say, so only a lane that stands still by an operator's word leaves them.
    pub(super) fn fetch_tasks(&mut self, now: Timestamp) {
        if self.stopping || !self.settings.glm.is_active || self.state.paused.is_some() {
            return;
        }
        while self.recovery.has_task() {
            let Some(slot) = self.idle_slot() else { return };
            let Some((job, crashed)) = self.recovery.take_task() else {
                return;
            };
            let state = Slot::Starting {
                entry: job.entry(),
                sending: Sending {
                    model: job.sent_to().into(),
                    at: now,
                    paced: None,
                    urgency: job.priority.into(),
                },
                ticket: self.out.ticket(),
                cancelled: false,
            };
            self.slots.insert(slot, state);
            self.out.store(Transition::Resume {
                job_id: job.id,
                slot,
                crashed,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AsyncTask, JobStatus, OpenAttempt};
    use crate::testing::sample;

    fn open(n: u64, slot: u16, phase: AttemptPhase) -> Job {
        let mut job = sample::new_job(n).job;
        job.attempts = AttemptNo(1);
        job.open = Some(OpenAttempt {
            no: AttemptNo(1),
            phase,
            at: sample::START,
            slot: SlotId(slot),
            reserve: None,
        });
        if phase == AttemptPhase::Started {
            job.status = JobStatus::Processing;
        }
        job
    }

    fn task(n: u64, account: &str) -> Job {
        let task = AsyncTask {
            id: format!("task {n}"),
            account: account.to_owned(),
            left_open: false,
        };
        Job {
            task: Some(task),
            ..open(n, 0, AttemptPhase::Started)
        }
    }

    fn found(open: Vec<Job>) -> Recovery {
        let mut recovery = Recovery::default();
        let released = open.iter().map(|job| job.id).collect();
        assert!(recovery.take_in(open, &released, false, None).is_empty());
        recovery
    }

    fn slots(states: impl IntoIterator<Item = Slot>) -> BTreeMap<SlotId, Slot> {
        (0..).map(SlotId).zip(states).collect()
    }

    fn close(recovery: &mut Recovery, n: u64) -> Option<Next> {
        let settings = Settings::default();
        let closed = recovery.close(sample::job_id(n), "mine", &settings, sample::START);
        closed.map(|concluded| concluded.settlement.next)
    }

    #[test]
    fn a_staged_attempt_was_never_sent_unless_a_started_one_is_unsettled() {
        let staged = || open(1, 0, AttemptPhase::Staged);
        let released = BTreeSet::from([staged().id]);
        let mut recovery = Recovery::default();
        let never = recovery.take_in(vec![staged()], &released, false, None);
        assert_eq!(never.len(), 1);
        assert_eq!(recovery.jobs().count(), 0);
        // A crash before this one left it in doubt.
        let never = recovery.take_in(vec![staged()], &released, true, None);
        assert!(never.is_empty());
        assert_eq!(recovery.in_doubt().count(), 1);
        let recovery = found(vec![staged(), open(2, 1, AttemptPhase::Started)]);
        assert_eq!(recovery.in_doubt().count(), 1);
        assert_eq!(recovery.in_flight(), 2);
    }

    #[test]
    fn a_staged_attempt_that_no_commit_released_was_never_sent() {
        let staged = |n| open(n, 0, AttemptPhase::Staged);
        let started = open(3, 1, AttemptPhase::Started);
        let mut recovery = Recovery::default();
        let released = BTreeSet::from([staged(1).id]);
        let never = recovery.take_in(vec![staged(1), staged(2), started], &released, true, None);
        assert_eq!(never.len(), 1);
        assert_eq!(never[0].id, staged(2).id);
        assert_eq!(recovery.in_doubt().collect::<Vec<_>>(), [staged(1).id]);
    }

    #[test]
    fn an_attempt_is_left_alone_until_its_slot_has_spoken_and_a_doubt_until_all_have() {
        let (started, staged) = (AttemptPhase::Started, AttemptPhase::Staged);
        let jobs = [(1, 0, started), (2, 1, started), (3, 0, staged)];
        let recovery = found(jobs.map(|(n, slot, phase)| open(n, slot, phase)).to_vec());
        let [one, two, three] = [1, 2, 3].map(sample::job_id);
        let both = slots([Slot::Unknown, Slot::Unknown]);
        assert_eq!(recovery.proven(&both, None), []);
        let second = slots([Slot::Unknown, Slot::Idle]);
        assert_eq!(recovery.proven(&second, Some(SlotId(1))), [two]);
        // A slot that does not exist has no call.
        let first = slots([Slot::Unknown]);
        assert_eq!(recovery.proven(&first, None), [two]);
        let none = slots([Slot::Idle]);
        assert_eq!(recovery.proven(&none, Some(SlotId(0))), [one, two, three]);
    }

    #[test]
    fn a_task_of_this_account_is_fetched_and_every_other_attempt_is_interrupted() {
        let other = open(3, 0, AttemptPhase::Started);
        let mut recovery = found(vec![task(1, "mine"), task(2, "another's"), other]);
        assert!(close(&mut recovery, 1).is_none());
        assert!(close(&mut recovery, 2).is_some());
        assert!(close(&mut recovery, 3).is_some());
        // A task that waits is not open here.
        assert_eq!(recovery.in_flight(), 0);
        let (job, crashed) = recovery.take_task().unwrap();
        assert_eq!((job.id, crashed), (sample::job_id(1), true));
        assert!(!recovery.has_task() && !recovery.has(job.id));
    }

    #[test]
    fn a_task_whose_start_is_not_on_disk_ends_like_any_other() {
        let staged = |n, account| Job {
            task: task(n, account).task,
            ..open(n, 0, AttemptPhase::Staged)
        };
        let mut recovery = found(vec![staged(1, "mine"), staged(2, "another's")]);
        assert_eq!(recovery.in_doubt().count(), 0, "it was sent for certain");
        assert!(matches!(close(&mut recovery, 2), Some(Next::Retry { .. })));
        recovery.cancel(sample::job_id(1));
        assert!(matches!(close(&mut recovery, 1), Some(Next::Cancelled)));
    }

    #[test]
    fn a_task_that_brings_the_process_down_again_and_again_is_not_fetched() {
        let mut again = task(1, "mine");
        again.interruptions = Settings::default().lane.quarantine_after - 1;
        let mut recovery = found(vec![again.clone()]);
        assert!(close(&mut recovery, 1).is_some());
        // One whose caller went on, or was stopped in an orderly way, brought nothing down.
        let mut recovery = found(vec![again]);
        recovery.outlived(SlotId(0));
        assert!(close(&mut recovery, 1).is_none());
    }

    #[test]
    fn a_cancelled_attempt_ends_cancelled_and_its_call_is_closed_where_it_is_known() {
        let started = open(2, 1, AttemptPhase::Started);
        let staged = open(3, 1, AttemptPhase::Staged);
        let mut recovery = found(vec![task(1, "mine"), started, staged]);
        let mut abort = |n| recovery.cancel(sample::job_id(n));
        assert!(matches!(abort(2), Some(Effect::Abort { slot, .. }) if slot == SlotId(1)));
        assert!(abort(3).is_none(), "nobody's else call is closed");
        assert!(abort(1).is_some());
        for n in 1..=3 {
            let (_, cancelled) = recovery.awaited(sample::job_id(n), AttemptNo(1)).unwrap();
            assert!(cancelled);
            assert!(matches!(close(&mut recovery, n), Some(Next::Cancelled)));
        }
        assert!(recovery.awaited(sample::job_id(1), AttemptNo(1)).is_none());
    }

    #[test]
    fn the_end_of_a_shutdown_closes_every_call_that_was_found_where_its_slot_is_known() {
        let started = open(1, 1, AttemptPhase::Started);
        let recovery = found(vec![started, open(2, 1, AttemptPhase::Staged)]);
        let closed: Vec<Effect> = recovery.aborts().collect();
        assert!(
            matches!(&closed[..], [Effect::Abort { slot, job_id, .. }]
                if (*slot, *job_id) == (SlotId(1), sample::job_id(1))),
            "{closed:?}"
        );
    }

    #[test]
    fn the_retry_of_an_attempt_that_was_found_has_the_priority_that_it_was_given_since() {
        let mut recovery = found(vec![open(1, 0, AttemptPhase::Started)]);
        assert!(recovery.reprioritise(sample::job_id(1), 7));
        assert!(!recovery.reprioritise(sample::job_id(2), 7));
        let settings = Settings::default();
        let concluded = recovery.close(sample::job_id(1), "mine", &settings, sample::START);
        let back = concluded.and_then(|concluded| concluded.back_in_line);
        assert_eq!(back.map(|entry| entry.priority), Some(7));
    }
}
