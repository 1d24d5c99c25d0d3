//! A caller is ready: the outcome of its last call is judged, since that decides what may be sent next.

use ractor::{ActorProcessingErr, call_t};

use super::QueueState;
use crate::ports::GlmOutcome;
use crate::protocol::{BreakerMsg, Report};
use onelane_core::judge::conclude::{Concluded, Finished, SettleContext, conclude};
use onelane_core::judge::{Blame, BreakerEffect, JudgeContext};
use onelane_core::life;
use onelane_core::model::{
    BreakerSnapshot, BreakerState, Ending, JobId, Next, SlotId, Timestamp, limits,
};
use onelane_core::scheduler::{Effect, LeftOpen};

/// A caller went on with what the lane would not have sent. The disk says what holds: the queue fails and is rebuilt from it.
fn disagreement(slot: SlotId) -> ActorProcessingErr {
    format!(
        "the caller of slot {} went on with what was not its next call",
        slot.0
    )
    .into()
}

impl QueueState {
    /// A slot is free. A caller that is attached to an earlier queue is no proof: it will be ready again
    /// for this one.
    pub(super) async fn ready(
        &mut self,
        slot: SlotId,
        generation: u64,
        report: Option<Box<Report>>,
        now: Timestamp,
    ) -> Result<(), ActorProcessingErr> {
        if generation != self.generation {
            return Ok(());
        }
        let Some(report) = report else {
            return self.step(|scheduler| scheduler.ready(slot, now));
        };
        self.scheduler.outlived(slot);
        if let Some(before) = &report.before
            && let Some(concluded) = self.conclude(slot, before, now)
        {
            let breaker = self.ask_breaker(&concluded).await?;
            self.scheduler
                .finished_before(slot, concluded, breaker, now);
        }
        let finished = &report.last;
        if let Some(task) = self.left_open(slot, finished) {
            return self.step(|scheduler| scheduler.left_open(slot, task, now));
        }
        match (self.conclude(slot, finished, now), report.went_on_with) {
            // It may have been no answer to go on after: the next queue hears of it again, and the breaker with it.
            (Some(_), Some(_)) if !matches!(*finished.outcome, GlmOutcome::Answered(_)) => {
                Err(disagreement(slot))
            }
            (Some(concluded), Some(with)) => self.went_on(slot, concluded, with, now),
            (Some(concluded), None) => self.concluded(slot, concluded, now).await,
            (None, Some(_)) => Err(disagreement(slot)),
            (None, None) => self.step(|scheduler| scheduler.ready(slot, now)),
        }
    }

    /// Settles an attempt whose caller has gone on with what lay ready.
    fn went_on(
        &mut self,
        slot: SlotId,
        concluded: Concluded,
        with: JobId,
        now: Timestamp,
    ) -> Result<(), ActorProcessingErr> {
        let ending = self.ends_early(slot, &concluded);
        let effects = self.scheduler.went_on(slot, concluded, with, now);
        let effects = effects.ok_or_else(|| disagreement(slot))?;
        if let Some(ending) = ending {
            self.waiters.completed(&ending);
        }
        self.carry_out(effects)?;
        self.breaker.cast(BreakerMsg::Succeeded { reply: None })?;
        Ok(())
    }

    /// The task of a call that was stopped while GLM holds it, and is to be fetched later.
    fn left_open(&self, slot: SlotId, finished: &Finished) -> Option<LeftOpen> {
        let task = finished.task.clone()?;
        let (job_id, attempt) = (finished.job_id, finished.attempt);
        let stopped = matches!(*finished.outcome, GlmOutcome::Aborted);
        (stopped && self.scheduler.stays_open(slot, job_id, attempt)).then_some(LeftOpen {
            job_id,
            attempt,
            task,
        })
    }

    /// The verdict on the outcome; `None`: the attempt is settled already.
    fn conclude(&self, slot: SlotId, finished: &Finished, now: Timestamp) -> Option<Concluded> {
        let (job, cancelled) = self
            .scheduler
            .awaited(slot, finished.job_id, finished.attempt)?;
        let (lane, model) = self.scheduler.conditions(job.sent_to());
        let context = JudgeContext {
            settings: &self.settings,
            lane: &lane,
            model: &model,
            foreign_answers: self.scheduler.foreign_answers(),
            route: self.scheduler.route(),
            blame: match &*finished.outcome {
                GlmOutcome::Failed(failure, _) => self.scheduler.blame(slot, job, failure),
                _ => Blame::Unknown,
            },
            eased: self.scheduler.would_ease(slot, now),
            sent_at: finished.started_at,
            has_fallback: self.scheduler.has_fallback(&job.model, job.sent_to()),
            seed: self.ports.ids.seed(),
            now,
        };
        Some(conclude(
            job,
            finished,
            &SettleContext { context, cancelled },
        ))
    }

    /// Settles an attempt, and sends the next call before anything else.
    async fn concluded(
        &mut self,
        slot: SlotId,
        concluded: Concluded,
        now: Timestamp,
    ) -> Result<(), ActorProcessingErr> {
        // A success leaves a closed breaker closed: the scheduler need not wait to hear that.
        let clear = concluded.breaker == BreakerEffect::Success
            && self.scheduler.breaker() == BreakerState::Closed;
        let breaker = if clear {
            None
        } else {
            self.ask_breaker(&concluded).await?
        };
        let ending = self.ends_early(slot, &concluded);
        let effects = self.scheduler.finished(slot, concluded, breaker, now);
        let (runs, rest): (Vec<_>, Vec<_>) = effects
            .into_iter()
            .partition(|effect| matches!(effect, Effect::Run { .. }));
        if !runs.is_empty() {
            self.carry_out(runs)?;
            // The next call is on the wire before this thread turns to the books: the runtime would poll
            // before it what is cast after it, and waking another thread takes longer than all of this.
            tokio::task::yield_now().await;
        }
        if let Some(ending) = ending {
            self.waiters.completed(&ending);
        }
        self.carry_out(rest)?;
        if clear {
            self.breaker.cast(BreakerMsg::Succeeded { reply: None })?;
        }
        Ok(())
    }

    /// The job that this completes, if somebody takes its answer before it is on disk.
    fn ends_early(&self, slot: SlotId, concluded: &Concluded) -> Option<Ending> {
        let settlement = &concluded.settlement;
        let (id, attempt) = (settlement.job_id, settlement.attempt);
        if !matches!(settlement.next, Next::Completed { .. }) || !self.waiters.is_awaited_early(id)
        {
            return None;
        }
        let (job, _) = self.scheduler.awaited(slot, id, attempt)?;
        let mut job = job.clone();
        life::settle(&mut job, settlement).ok()?;
        Ending::of(&job, settlement)
    }

    /// Tells the breaker of an outcome that may change its state, and waits for what it makes of it,
    /// since that decides what may be sent next. Answers a changed breaker.
    async fn ask_breaker(
        &self,
        concluded: &Concluded,
    ) -> Result<Option<BreakerSnapshot>, ActorProcessingErr> {
        let before = self.scheduler.breaker();
        let after = match concluded.breaker {
            BreakerEffect::Ignore => return Ok(None),
            BreakerEffect::Success => call_t!(
                self.breaker,
                |reply| BreakerMsg::Succeeded { reply: Some(reply) },
                limits::ACTOR_REPLY_MS
            )?,
            BreakerEffect::Failure { at_once } => {
                let failure = concluded.settlement.call.failure.as_ref();
                let reason = failure.map(ToString::to_string).unwrap_or_default();
                call_t!(
                    self.breaker,
                    |reply| BreakerMsg::Failed {
                        reason,
                        at_once,
                        reply
                    },
                    limits::ACTOR_REPLY_MS
                )?
            }
        };
        Ok((after.state != before).then_some(after))
    }
}
