//! Between the scheduler and the store: the scheduler's decisions go out, the store's answers come in.

use std::sync::Arc;

use ractor::{ActorProcessingErr, RpcReplyPort};

use super::QueueState;
use crate::ports::{Decisions, StoreError};
use crate::protocol::{
    CallerMsg, CommitReply, CommitRequest, Committed, RunOrder, StoreMsg, SupervisorMsg,
};
use crate::queue::waiters::Answer;
use onelane_core::model::{
    Applied, Dispatch, JobEntry, JobId, JobStatus, Refusal, SlotId, Timestamp, Transition,
};
use onelane_core::scheduler::slot::attempt_of;
use onelane_core::scheduler::{Effect, Scheduler};

impl QueueState {
    /// Lets the scheduler decide, and does what it decided.
    pub(super) fn step(
        &mut self,
        decide: impl FnOnce(&mut Scheduler) -> Vec<Effect>,
    ) -> Result<(), ActorProcessingErr> {
        let effects = decide(&mut self.scheduler);
        self.carry_out(effects)
    }

    /// The same for an order about a job or, without `id`, about the lanes: answered once it is on disk.
    pub(super) fn order(
        &mut self,
        id: Option<JobId>,
        reply: Answer,
        decide: impl FnOnce(&mut Scheduler) -> Vec<Effect>,
    ) -> Result<(), ActorProcessingErr> {
        let effects = decide(&mut self.scheduler);
        let commit = effects.iter().find_map(|effect| match effect {
            Effect::Commit { ticket, .. } => Some(*ticket),
            _ => None,
        });
        if let Some(ticket) = commit {
            self.waiters.wait_for_commit(ticket, id, reply);
        }
        self.carry_out(effects)
    }

    /// Carries out the scheduler's decisions in their order: calls first, then changes to store.
    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), ActorProcessingErr> {
        self.carry_out_for(effects, None)
    }

    /// The same. `inserting`: who hears of the first change to store.
    pub(super) fn carry_out_for(
        &mut self,
        effects: Vec<Effect>,
        mut inserting: Option<RpcReplyPort<Result<Decisions, StoreError>>>,
    ) -> Result<(), ActorProcessingErr> {
        for effect in effects {
            match effect {
                Effect::Run {
                    slot,
                    dispatch,
                    stopped,
                } => self.run(slot, dispatch, stopped),
                Effect::Abort {
                    slot,
                    job_id,
                    attempt,
                } => self.aborts.abort(slot, job_id, attempt),
                Effect::Retire { slot } => {
                    if let Some(caller) = self.callers.remove(&slot) {
                        let _ = caller.cast(CallerMsg::Retire);
                    }
                }
                Effect::Commit {
                    ticket,
                    transitions,
                } => {
                    self.waiters.sent(&transitions);
                    let reply = match inserting.take() {
                        Some(port) => {
                            let job = transitions.first().and_then(Transition::job_id);
                            self.inserting.extend(job.map(|id| (ticket, id)));
                            CommitReply::Inserted { ticket, port }
                        }
                        None => CommitReply::Queue { ticket },
                    };
                    self.store
                        .cast(StoreMsg::Commit(CommitRequest { transitions, reply }))?;
                }
            }
        }
        Ok(())
    }

    fn run(&self, slot: SlotId, dispatch: Arc<Dispatch>, stopped: bool) {
        let attempt = attempt_of(&dispatch);
        let abort = self.aborts.arm(slot, dispatch.job.id, attempt);
        if stopped {
            abort.cancel();
        }
        let order = RunOrder {
            dispatch,
            settings: Arc::clone(&self.settings),
            abort,
            ready: None,
            out: self.calls_out.one_more(),
        };
        // A caller that is gone is being restarted, and this queue after it.
        if let Some(caller) = self.callers.get(&slot) {
            let _ = caller.cast(CallerMsg::Run(Box::new(order)));
        }
    }

    /// Jobs are on disk, and commits of this queue are done.
    pub(super) fn stored(
        &mut self,
        inserted: Vec<JobEntry>,
        committed: Vec<Committed>,
        now: Timestamp,
    ) -> Result<(), ActorProcessingErr> {
        if !inserted.is_empty() {
            self.publisher.submitted(&inserted, now);
            self.step(|scheduler| scheduler.submitted(inserted, now))?;
        }
        for Committed { ticket, decisions } in committed {
            if let Some(job_id) = self.scheduler.lacks(&decisions) {
                return Err(format!("job {job_id} waits on disk and not in the lane").into());
            }
            self.step(|scheduler| scheduler.committed(ticket, &decisions, now))?;
            // There was nothing to start: it was there already, perhaps under another id, is not let in, or the disk was
            // full.
            let inserting = self.inserting.remove(&ticket);
            let came_in = matches!(decisions.first(), Some((_, Ok(Applied::Inserted(_)))));
            let turned_away = inserting.filter(|_| !came_in);
            for (transition, decision) in &decisions {
                // Before any answer goes out: an operator who has closed the intake finds it closed.
                if decision.is_ok() {
                    self.show(transition);
                    if let Transition::Requeue { job_id } = transition {
                        self.ports.relays.forget_ended(*job_id);
                    }
                }
                self.publisher.tell(transition, decision, now);
                self.waiters.answered(ticket, transition, decision);
                // One that came in nevertheless, by a commit of which nobody heard, is started from the store.
                let is_open = matches!(decision, Err(Refusal::WrongStatus(JobStatus::Processing)));
                if turned_away.is_none() || transition.job_id() != turned_away || is_open {
                    check_agreement(transition, decision)?;
                }
            }
            self.waiters.closed(ticket);
        }
        Ok(())
    }

    /// Shows the scheduler's state, if this change stored it.
    fn show(&self, stored: &Transition) {
        let state = match stored {
            Transition::Lane(state) => Some(state),
            Transition::Settle(settlement) => settlement.lane.as_ref(),
            _ => None,
        };
        if let Some(state) = state {
            self.watch.send_replace(state.clone());
        }
    }

    /// Asks the supervisor for the callers that should exist but don't, once for each slot.
    pub(super) fn ask_for_callers(&mut self) {
        let mut slots = self.scheduler.missing_callers();
        slots.retain(|slot| self.asked_for.insert(*slot));
        if !slots.is_empty() {
            let _ = self.supervisor.cast(SupervisorMsg::AddCallers {
                generation: self.generation,
                slots,
            });
        }
    }
}

/// The store has no reason to refuse the scheduler's own steps. If it does, the store is right: the queue fails
/// and is rebuilt from it.
fn check_agreement(
    transition: &Transition,
    decision: &Result<Applied, Refusal>,
) -> Result<(), ActorProcessingErr> {
    let agree = match transition {
        Transition::Stage { .. } | Transition::Start { .. } | Transition::Resume { .. } => {
            matches!(decision, Ok(Applied::Dispatch(_)))
        }
        Transition::Unstage { .. } | Transition::Settle(_) => decision.is_ok(),
        _ => true,
    };
    if agree {
        return Ok(());
    }
    // The decision is named without its content: an answer of GLM does not belong in a log.
    let refusal = decision.as_ref().err().map(ToString::to_string);
    let refusal = refusal.as_deref().unwrap_or("an answer of another kind");
    let job = transition.job_id().map(|id| id.to_string());
    let job = job.unwrap_or_default();
    Err(format!("the scheduler and the store disagree about job {job}: {refusal}").into())
}
