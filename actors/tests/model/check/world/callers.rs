//! The callers: what they send, and what they say.

use std::sync::Arc;

use onelane_core::judge::conclude::{Concluded, Finished, SettleContext, conclude};
use onelane_core::judge::{Blame, JudgeContext, LaneEffect};
use onelane_core::model::{AttemptNo, Dispatch, GlmOutcome, Parts, Settings, SlotId, Timestamp};

use super::{Call, Caller, Ready, World};
use crate::check::bugs::Bug;
use crate::check::seen::{Attempt, Broken};

impl World {
    pub(super) fn runs(
        &mut self,
        slot: SlotId,
        dispatch: Arc<Dispatch>,
        is_cancelled: bool,
    ) -> Result<(), Broken> {
        self.promised.remove(&dispatch.job.id);
        let call = Call {
            dispatch,
            begun: self.wall,
            is_sent: !is_cancelled,
            is_closing: is_cancelled,
        };
        if call.is_sent {
            let day = self.settings.calendar.day(self.wall);
            let (seen, plan) = (&mut self.seen, &self.plan);
            self.disk
                .store()
                .look(|written| seen.sends(call.attempt(), day, plan, written))?;
        }
        let caller = self.callers.get_mut(&slot);
        let caller = caller.ok_or_else(|| format!("{slot:?} has no caller"))?;
        if let Some(open) = &caller.call {
            let (open, new) = (open.attempt(), call.attempt());
            return Err(format!(
                "{new:?} is sent on {slot:?} while {open:?} is open"
            ));
        }
        caller.call = Some(call);
        let open = self.callers.values().filter(|caller| caller.call.is_some());
        let (open, most) = (open.count(), usize::from(self.plan.slots));
        if open > most {
            return Err(format!("{open} calls are open, of {most}"));
        }
        Ok(())
    }

    pub(super) fn aborts(&mut self, slot: SlotId, attempt: Attempt) {
        let Some(caller) = self.callers.get_mut(&slot) else {
            return;
        };
        let Some(call) = caller
            .call
            .as_mut()
            .filter(|call| call.attempt() == attempt)
        else {
            return;
        };
        call.is_closing = true;
        if self.plan.has(Bug::FreesTooEarly) {
            let finished = finished(&self.settings, attempt, GlmOutcome::Aborted, self.wall);
            self.seen.ended.insert(attempt);
            caller.mail.push_back(Ready {
                last: Some(finished),
                before: None,
                went_on_with: None,
            });
        }
    }

    pub(super) fn all_ready(&mut self) {
        for caller in self.callers.values_mut() {
            caller.mail.push_back(Ready {
                last: None,
                before: None,
                went_on_with: None,
            });
        }
    }

    /// The slot whose caller went on by itself, which the queue has to hear before anything else.
    pub(crate) fn went_on(&self) -> Option<SlotId> {
        let mut callers = self.callers.iter();
        let went_on =
            |caller: &Caller| caller.mail.iter().any(|ready| ready.went_on_with.is_some());
        callers
            .find(|(_, caller)| went_on(caller))
            .map(|(slot, _)| *slot)
    }

    pub(crate) fn calls(&self) -> impl Iterator<Item = (SlotId, &Call)> {
        let callers = self.callers.iter();
        callers.filter_map(|(slot, caller)| Some((*slot, caller.call.as_ref()?)))
    }

    pub(crate) fn slots_with_mail(&self) -> impl Iterator<Item = SlotId> {
        let has_mail = |caller: &Caller| !caller.mail.is_empty();
        let callers = self
            .callers
            .iter()
            .filter(move |(_, caller)| has_mail(caller));
        callers.map(|(slot, _)| *slot)
    }

    /// What lies ready for the caller of an open call.
    pub(crate) fn next_up(&self, slot: SlotId) -> Option<Arc<Dispatch>> {
        if self.went_on().is_some() || self.callers.get(&slot)?.is_awaited {
            return None;
        }
        let (of, dispatch) = self.lane.next_up()?;
        (of == slot).then_some(dispatch)
    }

    /// A call ends, of which nobody has heard.
    pub(crate) fn ends(
        &mut self,
        slot: SlotId,
        outcome: GlmOutcome,
        goes_on: bool,
    ) -> Result<(), Broken> {
        let next = self.next_up(slot).filter(|_| goes_on);
        let is_failure = matches!(outcome, GlmOutcome::Failed(..));
        let Some(caller) = self.callers.get_mut(&slot) else {
            return Ok(());
        };
        let Some(call) = caller.call.take() else {
            return Ok(());
        };
        let day = self.settings.calendar.day(call.begun);
        self.seen.ended.insert(call.attempt());
        if is_failure && let Some(billed) = self.seen.billed.get_mut(&day) {
            *billed = billed.saturating_sub(1);
        }
        let finished = finished(&self.settings, call.attempt(), outcome, call.begun);
        caller.before = caller.last.replace(finished.clone());
        let mut ready = Ready {
            last: Some(finished),
            before: None,
            went_on_with: next.as_ref().map(|next| next.job.id),
        };
        if std::mem::take(&mut caller.is_awaited) {
            ready.before = caller.before.clone();
        }
        caller.mail.push_back(ready);
        if is_failure && self.plan.has(Bug::SendsTwice) {
            self.runs(slot, call.dispatch, false)?;
        }
        match next {
            Some(next) => self.runs(slot, next, false),
            None => Ok(()),
        }
    }

    /// The queue hears what a caller has said.
    pub(crate) fn hears(&mut self, slot: SlotId) -> Result<(), Broken> {
        let caller = self.callers.get_mut(&slot);
        let Some(ready) = caller.and_then(|caller| caller.mail.pop_front()) else {
            return Ok(());
        };
        self.hear_the_clock()?;
        let Some(last) = ready.last else {
            return self.tell(|lane, now| lane.ready(slot, now));
        };
        self.lane.outlived(slot);
        if let Some(before) = &ready.before
            && let Some(concluded) = self.concluded(slot, before)
        {
            let breaker = self.ask_breaker(&concluded);
            self.lane
                .finished_before(slot, concluded, breaker, self.wall);
        }
        match (self.concluded(slot, &last), ready.went_on_with) {
            (Some(concluded), Some(with)) => {
                let effects = self.lane.went_on(slot, concluded, with, self.wall);
                let effects =
                    effects.ok_or("a caller went on with what the lane would not have sent")?;
                self.breaker.succeeded(self.wall);
                // Its call was open before the lane heard of it.
                self.tell(|_, _| effects)?;
                self.promised.remove(&with);
                Ok(())
            }
            (Some(concluded), None) => {
                let breaker = self.ask_breaker(&concluded);
                self.note_hold(&concluded);
                self.tell(|lane, now| lane.finished(slot, concluded, breaker, now))
            }
            (None, Some(_)) => Err("a caller went on with nothing".to_owned()),
            (None, None) => self.tell(|lane, now| lane.ready(slot, now)),
        }
    }

    pub(super) fn concluded(&self, slot: SlotId, finished: &Finished) -> Option<Concluded> {
        let mut finished = finished.clone();
        if self.plan.has(Bug::LosesFence) {
            let attempts = (1..=9).map(AttemptNo);
            let mut open =
                attempts.filter(|no| self.lane.awaited(slot, finished.job_id, *no).is_some());
            finished.attempt = open.next().unwrap_or(finished.attempt);
        }
        let (job, cancelled) = self.lane.awaited(slot, finished.job_id, finished.attempt)?;
        let (lane, model) = self.lane.conditions(job.sent_to());
        let context = JudgeContext {
            settings: &self.settings,
            lane: &lane,
            model: &model,
            foreign_answers: self.lane.foreign_answers(),
            route: self.lane.route(),
            blame: match &*finished.outcome {
                GlmOutcome::Failed(failure, _) => self.lane.blame(slot, job, failure),
                _ => Blame::Unknown,
            },
            eased: self.lane.would_ease(slot, self.wall),
            sent_at: finished.started_at,
            has_fallback: self.lane.has_fallback(&job.model, job.sent_to()),
            seed: 1,
            now: self.wall,
        };
        Some(conclude(
            job,
            &finished,
            &SettleContext { context, cancelled },
        ))
    }

    /// What a failure holds, by its own words.
    pub(super) fn note_hold(&mut self, concluded: &Concluded) {
        let (LaneEffect::CoolDown { hold, .. } | LaneEffect::AwaitRoute { hold, .. }) =
            &concluded.lane
        else {
            return;
        };
        let length_ms = hold.until.map_or(0, |until| until.length_ms);
        self.held_until_ms = self.held_until_ms.max(self.uptime_ms + length_ms);
    }
}

fn finished(
    settings: &Arc<Settings>,
    (job_id, attempt): Attempt,
    outcome: GlmOutcome,
    started_at: Timestamp,
) -> Finished {
    Finished {
        job_id,
        attempt,
        endpoint: String::new(),
        settings: Arc::clone(settings),
        bounded_by_job: false,
        delivered: false,
        estimate: None,
        call_ids: Default::default(),
        task: None,
        started_at,
        response_time_ms: 1,
        parts: Parts::default(),
        outcome: Arc::new(outcome),
    }
}
