//! Waiters for an answer that only the store can give: the end of a job, a change on disk, a drain.

use std::collections::BTreeMap;

use ractor::RpcReplyPort;

use crate::protocol::Waited;
use onelane_core::model::{Applied, Ending, JobId, JobStatus, Refusal, Settlement, Transition};

/// Where the answer to an order goes, once the store has it.
pub(super) type Answer = RpcReplyPort<Result<(), Refusal>>;

/// The waiters' reply ports. Dropping one tells its owner to ask again.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    /// Waiting for the end of a job, and who of them does not wait for the disk.
    ends: BTreeMap<JobId, Vec<(bool, RpcReplyPort<Waited>)>>,
    /// Jobs whose end may be among the changes that are being stored, with how often.
    ending: BTreeMap<JobId, u32>,
    /// Cancelled a running job: its settlement answers.
    cancels: BTreeMap<JobId, Vec<Answer>>,
    /// Waiting for a commit, by its ticket, with the job that the order is about.
    commits: BTreeMap<u64, Vec<(Option<JobId>, Answer)>>,
    drains: Vec<RpcReplyPort<()>>,
}

impl Waiters {
    /// Answers when the job has ended and that is on disk, or, `early`, when it is completed; at once when its end is not
    /// to come: the queue does not know the job and no end of it is being stored.
    pub(super) fn wait_for_end(
        &mut self,
        id: JobId,
        is_known: bool,
        early: bool,
        reply: RpcReplyPort<Waited>,
    ) {
        if is_known || self.ending.contains_key(&id) {
            self.ends.entry(id).or_default().push((early, reply));
        } else {
            let _ = reply.send(Waited::NotHere);
        }
    }

    /// Whether somebody waits for the completion of a job, on disk or not.
    pub(super) fn is_awaited_early(&self, id: JobId) -> bool {
        let waiting = self.ends.get(&id);
        waiting.is_some_and(|waiting| waiting.iter().any(|(early, _)| *early))
    }

    /// A job is completed, and that is not on disk yet.
    pub(super) fn completed(&mut self, ending: &Ending) {
        if let Some(waiting) = self.ends.get_mut(&ending.job.id) {
            for (_, port) in waiting.extract_if(.., |(early, _)| *early) {
                let _ = port.send(Waited::Ended(Some(Box::new(ending.clone()))));
            }
        }
    }

    /// Answers with the status in which the job's open attempt leaves it.
    pub(super) fn wait_for_settlement(&mut self, id: JobId, reply: Answer) {
        self.cancels.entry(id).or_default().push(reply);
    }

    /// Answers with the store's decision on the change of this commit that is about `id`.
    pub(super) fn wait_for_commit(&mut self, ticket: u64, id: Option<JobId>, reply: Answer) {
        self.commits.entry(ticket).or_default().push((id, reply));
    }

    /// Answers when [`Waiters::drained`] is said.
    pub(super) fn wait_for_drain(&mut self, reply: RpcReplyPort<()>) {
        self.drains.push(reply);
    }

    /// Whether a caller waits for a drain.
    pub(super) const fn is_draining(&self) -> bool {
        !self.drains.is_empty()
    }

    /// Nothing is in flight and everything is stored.
    pub(super) fn drained(&mut self) {
        for reply in self.drains.drain(..) {
            let _ = reply.send(());
        }
    }

    /// These changes are on their way to the store.
    pub(super) fn sent(&mut self, transitions: &[Transition]) {
        let ends = transitions.iter().filter(|change| may_end(change));
        for id in ends.filter_map(Transition::job_id) {
            *self.ending.entry(id).or_default() += 1;
        }
    }

    /// The store has answered one change of a commit.
    pub(super) fn answered(
        &mut self,
        ticket: u64,
        transition: &Transition,
        decision: &Result<Applied, Refusal>,
    ) {
        let id = transition.job_id();
        if is_order(transition)
            && let Some(waiting) = self.commits.get_mut(&ticket)
        {
            for (_, port) in waiting.extract_if(.., |(about, _)| *about == id) {
                let _ = port.send(decision.as_ref().map(|_| ()).map_err(Clone::clone));
            }
        }
        if let Some(id) = id.filter(|_| may_end(transition)) {
            let settlement = match transition {
                Transition::Settle(settlement) => Some(&**settlement),
                _ => None,
            };
            self.stored_end(id, settlement, decision);
        }
    }

    /// The store has answered every change of a commit.
    pub(super) fn closed(&mut self, ticket: u64) {
        self.commits.remove(&ticket);
    }

    /// A change that may have ended a job is on disk, or the store refused it.
    fn stored_end(
        &mut self,
        id: JobId,
        settlement: Option<&Settlement>,
        decision: &Result<Applied, Refusal>,
    ) {
        if let Some(count) = self.ending.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.ending.remove(&id);
            }
        }
        if let Ok(Applied::Chain { others, .. }) = decision {
            for job in others {
                self.ended(job.id, job.status, || None);
            }
        }
        match decision {
            Ok(Applied::Job(job) | Applied::Chain { job, .. }) => {
                self.ended(id, job.status, || Ending::of(job, settlement?));
            }
            Err(Refusal::WrongStatus(status)) => self.ended(id, *status, || None),
            _ => {}
        }
    }

    /// Answers the waiters of a job's end, if this status is one.
    fn ended(&mut self, id: JobId, status: JobStatus, ending: impl Fn() -> Option<Ending>) {
        if !status.is_terminal() {
            return;
        }
        for (_, waiter) in self.ends.remove(&id).unwrap_or_default() {
            let _ = waiter.send(Waited::Ended(ending().map(Box::new)));
        }
        for port in self.cancels.remove(&id).unwrap_or_default() {
            let _ = port.send(match status {
                JobStatus::Cancelled => Ok(()),
                other => Err(Refusal::WrongStatus(other)),
            });
        }
    }
}

/// Whether the change may be the end of its job.
const fn may_end(transition: &Transition) -> bool {
    matches!(
        transition,
        Transition::Settle(_) | Transition::Cancel { .. } | Transition::Fail { .. }
    )
}

/// Whether an operator or client ordered the change and waits for it.
const fn is_order(transition: &Transition) -> bool {
    matches!(
        transition,
        Transition::Cancel { .. }
            | Transition::Requeue { .. }
            | Transition::Reprioritise { .. }
            | Transition::Lane(_)
            | Transition::Breaker(_)
    )
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::{self, Receiver, error::TryRecvError};

    use super::*;
    use crate::testing::sample;
    use onelane_core::model::{Job, SchedulerState};

    /// A port and what arrives there.
    fn port<T>() -> (RpcReplyPort<T>, Receiver<T>) {
        let (port, answer) = oneshot::channel();
        (port.into(), answer)
    }

    /// Whether who waited was told of an end.
    fn has_ended(answer: &mut Receiver<Waited>) -> Result<bool, TryRecvError> {
        let waited = answer.try_recv()?;
        Ok(matches!(waited, Waited::Ended(_)))
    }

    fn job(n: u64, status: JobStatus) -> Box<Job> {
        let mut job = sample::new_job(n).job;
        job.status = status;
        Box::new(job)
    }

    fn cancel(n: u64) -> Transition {
        Transition::Cancel {
            job_id: sample::job_id(n),
            at: sample::START,
        }
    }

    #[test]
    fn who_waits_for_a_job_is_answered_when_its_end_is_stored_and_not_before() {
        let mut waiters = Waiters::default();
        let id = sample::job_id(1);
        let (reply, mut unknown) = port();
        waiters.wait_for_end(id, false, false, reply);
        assert_eq!(has_ended(&mut unknown), Ok(false));

        let (reply, mut known) = port();
        waiters.wait_for_end(id, true, false, reply);
        waiters.sent(&[cancel(1)]);
        // The scheduler has forgotten it, and the store does not have its end yet.
        let (reply, mut late) = port();
        waiters.wait_for_end(id, false, false, reply);
        assert_eq!(has_ended(&mut known), Err(TryRecvError::Empty));
        assert_eq!(has_ended(&mut late), Err(TryRecvError::Empty));

        let decision = Ok(Applied::Job(job(1, JobStatus::Cancelled)));
        waiters.answered(7, &cancel(1), &decision);
        assert_eq!(
            (has_ended(&mut known), has_ended(&mut late)),
            (Ok(true), Ok(true))
        );
        let (reply, mut after) = port();
        waiters.wait_for_end(id, false, false, reply);
        assert_eq!(has_ended(&mut after), Ok(false));
    }

    #[test]
    fn an_attempt_that_goes_back_is_no_end_and_those_that_end_with_another_are() {
        let mut waiters = Waiters::default();
        let wait = |waiters: &mut Waiters, n| {
            let (reply, answer) = port();
            waiters.wait_for_end(sample::job_id(n), true, false, reply);
            answer
        };
        let (mut first, mut second) = (wait(&mut waiters, 1), wait(&mut waiters, 2));
        let settle = sample::fail(1, 1);
        let retried = Ok(Applied::Job(job(1, JobStatus::Pending)));
        waiters.answered(1, &settle, &retried);
        assert_eq!(has_ended(&mut first), Err(TryRecvError::Empty));
        let chain = Ok(Applied::Chain {
            job: job(1, JobStatus::Failed),
            others: vec![*job(2, JobStatus::Failed), *job(3, JobStatus::Pending)],
        });
        waiters.answered(2, &settle, &chain);
        assert_eq!(
            (has_ended(&mut first), has_ended(&mut second)),
            (Ok(true), Ok(true))
        );
    }

    #[test]
    fn who_waits_is_told_all_of_the_end_and_who_is_in_a_hurry_before_it_is_stored() {
        let mut waiters = Waiters::default();
        let id = sample::job_id(1);
        let ask = |waiters: &mut Waiters, early| {
            let (reply, answer) = port();
            waiters.wait_for_end(id, true, early, reply);
            answer
        };
        let mut patient = ask(&mut waiters, false);
        assert!(!waiters.is_awaited_early(id));
        let mut hasty = ask(&mut waiters, true);
        assert!(waiters.is_awaited_early(id));
        let done = sample::complete(1, 1);
        let Transition::Settle(settlement) = &done else {
            unreachable!("an end");
        };
        let ended = job(1, JobStatus::Completed);
        waiters.completed(&Ending::of(&ended, settlement).unwrap());
        assert!(!waiters.is_awaited_early(id));
        let told = |answer: &mut Receiver<Waited>| match answer.try_recv() {
            Ok(Waited::Ended(Some(ending))) => ending.response.is_some() && ending.call.is_some(),
            _ => false,
        };
        assert!(told(&mut hasty) && !told(&mut patient));
        waiters.answered(1, &done, &Ok(Applied::Job(ended)));
        assert!(told(&mut patient));
    }

    #[test]
    fn a_cancelled_call_is_answered_by_its_settlement() {
        for (status, told) in [
            (JobStatus::Cancelled, Ok(())),
            (
                JobStatus::Completed,
                Err(Refusal::WrongStatus(JobStatus::Completed)),
            ),
        ] {
            let mut waiters = Waiters::default();
            let (reply, mut answer) = port();
            waiters.wait_for_settlement(sample::job_id(1), reply);
            let decision = Ok(Applied::Job(job(1, status)));
            waiters.answered(1, &sample::fail(1, 1), &decision);
            assert_eq!(answer.try_recv(), Ok(told));
        }
    }

    #[test]
    fn an_order_is_answered_by_its_own_change_of_its_own_commit() {
        let mut waiters = Waiters::default();
        let requeue = |n| Transition::Requeue {
            job_id: sample::job_id(n),
        };
        let ask = |waiters: &mut Waiters, ticket, id| {
            let (reply, answer) = port();
            waiters.wait_for_commit(ticket, id, reply);
            answer
        };
        let mut one = ask(&mut waiters, 1, Some(sample::job_id(1)));
        let mut two = ask(&mut waiters, 1, Some(sample::job_id(2)));
        let mut later = ask(&mut waiters, 2, Some(sample::job_id(1)));
        let mut pause = ask(&mut waiters, 2, None);
        waiters.answered(1, &requeue(1), &Ok(Applied::Done));
        waiters.answered(1, &requeue(2), &Err(Refusal::NotFound));
        waiters.closed(1);
        assert_eq!(one.try_recv(), Ok(Ok(())));
        assert_eq!(two.try_recv(), Ok(Err(Refusal::NotFound)));
        assert_eq!(later.try_recv(), Err(TryRecvError::Empty));
        let state = Transition::Lane(SchedulerState::default());
        waiters.answered(2, &state, &Ok(Applied::Done));
        assert_eq!(pause.try_recv(), Ok(Ok(())));
        // Its change was not among those of the commit: it asks again.
        waiters.closed(2);
        assert_eq!(later.try_recv(), Err(TryRecvError::Closed));
    }

    #[test]
    fn a_drain_is_answered_once_all_is_stored() {
        let mut waiters = Waiters::default();
        let (reply, mut answer) = port();
        waiters.wait_for_drain(reply);
        assert!(waiters.is_draining());
        assert_eq!(answer.try_recv(), Err(TryRecvError::Empty));
        waiters.drained();
        assert_eq!(answer.try_recv(), Ok(()));
        assert!(!waiters.is_draining());
    }
}
