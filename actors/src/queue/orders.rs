//! Orders and questions of the facade: each in a few lines, since the scheduler decides.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ractor::{ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::oneshot;

use super::QueueState;
use super::waiters::Answer;
use crate::ports::{Decisions, StoreError};
use crate::protocol::{
    Asking, BreakerMsg, CallerMsg, CommitReply, CommitRequest, QueueMsg, StoreMsg, SubmitError,
    Submitted, Waited, submitted,
};
use onelane_core::model::{
    BreakerSnapshot, BudgetRefusal, HoldScope, JobId, NewJob, Payer, Refusal, Settings, SlotId,
    Submission, Timestamp, Transition,
};
use onelane_core::scheduler::CancelPath;

/// Answers at once. Nobody may be there any more to hear it.
pub(super) fn answer<T>(reply: RpcReplyPort<T>, value: T) -> Result<(), ActorProcessingErr> {
    let _ = reply.send(value);
    Ok(())
}

impl QueueState {
    pub(super) fn submit(
        &mut self,
        submission: Submission,
        reply: RpcReplyPort<Result<Submitted, SubmitError>>,
        now: Timestamp,
    ) -> Result<(), ActorProcessingErr> {
        let id = self.ports.ids.job_id(now);
        let new = match self.let_in(submission, id, now) {
            Ok(new) => new,
            Err(error) => return answer(reply, Err(error)),
        };
        let (port, stored) = oneshot::channel();
        // The queue must not wait for the disk: a task of its own carries the answer.
        tokio::spawn(async move {
            let _ = reply.send(match stored.await {
                Ok(Ok(mut decisions)) => submitted(Decisions::pop(&mut decisions)),
                Ok(Err(error)) => Err(StoreError::into(error)),
                Err(_) => Err(SubmitError::Unknown),
            });
        });
        self.insert(new, port.into(), now)
    }

    /// A new job goes to the store, with its start where nothing keeps it waiting.
    pub(super) fn insert(
        &mut self,
        new: Arc<NewJob>,
        port: RpcReplyPort<Result<Decisions, StoreError>>,
        now: Timestamp,
    ) -> Result<(), ActorProcessingErr> {
        match self.scheduler.start_at_once(new, now) {
            Ok(effects) => self.carry_out_for(effects, Some(port)),
            Err((new, effects)) => {
                self.store.cast(StoreMsg::Commit(CommitRequest {
                    transitions: vec![Transition::Insert(new)],
                    reply: CommitReply::Port(port),
                }))?;
                self.carry_out(effects)
            }
        }
    }

    /// The job of a submission, if it is let in or may be there already.
    fn let_in(
        &self,
        submission: Submission,
        id: JobId,
        now: Timestamp,
    ) -> Result<Arc<NewJob>, SubmitError> {
        let over_rate = submission.over_rate;
        let new = Box::new(NewJob::of(submission, &self.settings, id, now)?);
        let job = &new.job;
        let payer = Payer::of(&job.user_id, job.key_id);
        let over = self.scheduler.refuses(&payer, &job.model, job.worst);
        Ok(self.scheduler.intake().admit(new, over, over_rate)?)
    }

    pub(super) fn wait(
        &mut self,
        job_id: JobId,
        early: bool,
        reply: RpcReplyPort<Waited>,
    ) -> Result<(), ActorProcessingErr> {
        let is_known = self.scheduler.knows(job_id);
        self.waiters.wait_for_end(job_id, is_known, early, reply);
        Ok(())
    }

    pub(super) fn cancel(
        &mut self,
        job_id: JobId,
        reply: Answer,
        now: Timestamp,
    ) -> Result<(), ActorProcessingErr> {
        let (path, effects) = self.scheduler.cancel(job_id, now);
        match path {
            CancelPath::Commit => self.order(Some(job_id), reply, |_| effects),
            CancelPath::Settlement => {
                // Before the call is closed, so that its readers are told why.
                self.ports.relays.cancelled(job_id);
                self.waiters.wait_for_settlement(job_id, reply);
                self.carry_out(effects)
            }
        }
    }

    pub(super) fn release(
        &mut self,
        scope: &HoldScope,
        reply: Answer,
        now: Timestamp,
    ) -> Result<(), ActorProcessingErr> {
        let (was, effects) = self.scheduler.release(scope, now);
        if was {
            return self.order(None, reply, |_| effects);
        }
        let _ = reply.send(Err(Refusal::NotFound));
        self.carry_out(effects)
    }

    pub(super) fn affords(&self, jobs: &[Asking]) -> Vec<Option<BudgetRefusal>> {
        let refuses = |job: &Asking| self.scheduler.refuses(&job.payer, &job.model, job.worst);
        jobs.iter().map(refuses).collect()
    }

    pub(super) fn drain(
        &mut self,
        reply: RpcReplyPort<()>,
        now: Timestamp,
    ) -> Result<(), ActorProcessingErr> {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.waiters.wait_for_drain(reply);
        self.step(|scheduler| scheduler.drain(now))
    }

    pub(super) async fn configure(
        &mut self,
        reply: RpcReplyPort<()>,
        now: Timestamp,
    ) -> Result<(), ActorProcessingErr> {
        let settings = Arc::clone(&self.ports.settings.borrow());
        let before = std::mem::replace(&mut self.settings, Arc::clone(&settings));
        if counts_otherwise(&before, &settings) {
            self.load_budgets(&settings, now).await?;
        }
        self.breaker.cast(BreakerMsg::Configure(settings.breaker))?;
        self.step(|scheduler| scheduler.configure(settings, now))?;
        self.ask_for_callers();
        answer(reply, ())
    }

    pub(super) fn caller_added(
        &mut self,
        slot: SlotId,
        caller: ActorRef<CallerMsg>,
        myself: &ActorRef<QueueMsg>,
    ) -> Result<(), ActorProcessingErr> {
        self.attach(&caller, myself);
        self.asked_for.remove(&slot);
        self.callers.insert(slot, caller);
        self.scheduler.caller_added(slot);
        Ok(())
    }

    pub(super) fn caller_gone(
        &mut self,
        slot: SlotId,
        now: Timestamp,
    ) -> Result<(), ActorProcessingErr> {
        self.callers.remove(&slot);
        self.step(|scheduler| scheduler.caller_gone(slot, now))?;
        self.ask_for_callers();
        Ok(())
    }

    pub(super) fn breaker_changed(
        &mut self,
        snapshot: BreakerSnapshot,
        reply: Option<RpcReplyPort<BreakerSnapshot>>,
        now: Timestamp,
    ) -> Result<(), ActorProcessingErr> {
        // One that an operator opens may have been open already.
        let changed = self.scheduler.breaker() != snapshot.state || snapshot.forced;
        let effects = self.scheduler.breaker_changed(&snapshot, changed, now);
        match reply {
            Some(reply) if changed => self.order(None, once_stored(snapshot, reply), |_| effects),
            reply => {
                if let Some(reply) = reply {
                    let _ = reply.send(snapshot);
                }
                self.carry_out(effects)
            }
        }
    }

    pub(super) fn tick(&mut self, now: Timestamp) -> Result<(), ActorProcessingErr> {
        self.timer.cancel();
        self.step(|scheduler| scheduler.tick(now))
    }
}

/// Whether budgets come to other sums by the new settings.
fn counts_otherwise(before: &Settings, after: &Settings) -> bool {
    let reserves = after.prices != before.prices || after.glm.max_tokens != before.glm.max_tokens;
    after.budgets != before.budgets
        || after.in_doubt != before.in_doubt
        || after.calendar != before.calendar
        || (reserves && !after.budgets.is_empty())
}

/// A port whose answer, whichever, tells the operator of the breaker that is on disk.
fn once_stored(snapshot: BreakerSnapshot, reply: RpcReplyPort<BreakerSnapshot>) -> Answer {
    let (port, stored) = oneshot::channel();
    tokio::spawn(async move {
        if stored.await.is_ok() {
            let _ = reply.send(snapshot);
        }
    });
    port.into()
}
