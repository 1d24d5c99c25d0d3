//! The queue actor: carries messages to and from the lane ([`onelane_core::scheduler`]), which decides.
//! It owns the waiting jobs, the slots and those who wait for a job; nothing durable: it is rebuilt
//! from the store.

mod protocol;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, call_t};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use crate::Ports;
use crate::breaker::BreakerMsg;
use crate::caller::{Aborts, CallerMsg, RunOrder};
use crate::cost::CostMsg;
use crate::ports::GlmOutcome;
use crate::publisher::Publisher;
use crate::store::{CommitReply, CommitRequest, StoreMsg};
use crate::supervisor::SupervisorMsg;
use onelane_core::judge::conclude::{Concluded, Finished, SettleContext, conclude};
use onelane_core::judge::{BreakerEffect, JudgeContext};
use onelane_core::life::{Applied, Refusal, Transition};
use onelane_core::model::{
    BreakerSnapshot, BreakerState, CallRecord, JobEntry, JobId, JobStatus, SchedulerState,
    Settings, SlotId, Submission, Timestamp, limits,
};
use onelane_core::money::budget::{Budgets, Ledger};
use onelane_core::scheduler::slot::attempt_of;
use onelane_core::scheduler::{CancelPath, Effect, LeftOpen, Scheduler};

pub use protocol::{
    Asking, CLOSED_QUEUE_JOBS, Committed, QueueMsg, SubmitError, Submitted, submitted,
};

pub(crate) struct QueueArgs {
    pub(crate) ports: Ports,
    pub(crate) generation: u64,
    pub(crate) supervisor: ActorRef<SupervisorMsg>,
    pub(crate) store: ActorRef<StoreMsg>,
    pub(crate) breaker: ActorRef<BreakerMsg>,
    pub(crate) cost: ActorRef<CostMsg>,
    pub(crate) callers: BTreeMap<SlotId, ActorRef<CallerMsg>>,
    pub(crate) aborts: Aborts,
    /// Where the lane's state is shown.
    pub(crate) watch: watch::Sender<SchedulerState>,
}

type Answer = RpcReplyPort<Result<(), Refusal>>;

pub(crate) struct QueueState {
    ports: Ports,
    generation: u64,
    supervisor: ActorRef<SupervisorMsg>,
    store: ActorRef<StoreMsg>,
    breaker: ActorRef<BreakerMsg>,
    callers: BTreeMap<SlotId, ActorRef<CallerMsg>>,
    aborts: Aborts,
    settings: Arc<Settings>,
    lane: Scheduler,
    /// The lane's state as it is on disk, for those who only look.
    watch: watch::Sender<SchedulerState>,
    publisher: Publisher,
    /// Those who wait for a job's end.
    waiters: BTreeMap<JobId, Vec<RpcReplyPort<bool>>>,
    /// Jobs whose end is being stored.
    ending: BTreeMap<JobId, u32>,
    /// Those who cancelled a running job: answered by its settlement.
    cancels: BTreeMap<JobId, Vec<Answer>>,
    /// Those who wait for a commit, by its ticket; with the job they asked about.
    by_ticket: BTreeMap<u64, Vec<(Option<JobId>, Answer)>>,
    drains: Vec<RpcReplyPort<()>>,
    /// Slots whose callers the supervisor was asked for.
    asked_for: BTreeSet<SlotId>,
    timer: Option<(Timestamp, AbortHandle)>,
}

pub(crate) struct QueueActor;

impl Actor for QueueActor {
    type Msg = QueueMsg;
    type State = QueueState;
    type Arguments = QueueArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<QueueMsg>,
        args: QueueArgs,
    ) -> Result<QueueState, ActorProcessingErr> {
        let queue = myself.clone();
        let recovered = args
            .store
            .call(|reply| StoreMsg::Recover { queue, reply }, None)
            .await?
            .success_or("the store actor ended before it answered")??;
        let settings = Arc::clone(&args.ports.settings.borrow());
        let now = args.ports.clock.now();
        let stored_breaker = recovered.breaker.clone();
        args.watch.send_replace(recovered.lane.clone());
        let publisher = Publisher::new(
            args.ports.events.clone(),
            args.cost.clone(),
            recovered.lane.clone(),
        );
        let mut lane = Scheduler::recover(
            recovered,
            Arc::clone(&settings),
            args.callers.keys().copied(),
            args.generation,
            now,
        );
        if !settings.budgets.is_empty() {
            let ledger = ledger(&args.store, &settings, now).await?;
            lane.load_budgets(&ledger, &settings, now);
        }
        if settings.all_lanes().any(|(_, rules)| rules.pace.is_on()) {
            lane.restore_pace(&recent_calls(&args.ports, &settings, now).await?, now);
        }
        let mut state = QueueState {
            ports: args.ports,
            generation: args.generation,
            supervisor: args.supervisor,
            store: args.store,
            breaker: args.breaker,
            callers: args.callers,
            aborts: args.aborts,
            settings,
            lane,
            watch: args.watch,
            publisher,
            waiters: BTreeMap::new(),
            ending: BTreeMap::new(),
            cancels: BTreeMap::new(),
            by_ticket: BTreeMap::new(),
            drains: Vec::new(),
            asked_for: BTreeSet::new(),
            timer: None,
        };
        // Until it is attached it shows what is not so. One that fails here is being restarted, and
        // this queue after it.
        let attached = state.breaker.call(
            |reply| BreakerMsg::Attach {
                queue: myself.clone(),
                stored: stored_breaker,
                reply,
            },
            None,
        );
        let _ = attached.await;
        state
            .breaker
            .cast(BreakerMsg::Configure(state.settings.breaker))?;
        for caller in state.callers.values() {
            // A caller that is gone is about to be restarted, and this queue after it.
            let _ = caller.cast(CallerMsg::Attach {
                generation: state.generation,
                queue: myself.clone(),
            });
        }
        let effects = state.lane.start(now);
        state.carry_out(effects)?;
        state.ask_for_callers();
        state.arm(&myself);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<QueueMsg>,
        message: QueueMsg,
        state: &mut QueueState,
    ) -> Result<(), ActorProcessingErr> {
        state.ports.faults.point("queue");
        let now = state.ports.clock.now();
        state.handle(message, &myself, now).await?;
        if state.lane.needs_ledger() {
            let settings = Arc::clone(&state.settings);
            let ledger = ledger(&state.store, &settings, now).await?;
            state.lane.load_budgets(&ledger, &settings, now);
            let effects = state.lane.tick(now);
            state.carry_out(effects)?;
        }
        state.publisher.budgets(state.lane.take_budget_news(), now);
        if !state.drains.is_empty() && state.lane.is_drained() {
            for reply in state.drains.drain(..) {
                let _ = reply.send(());
            }
        }
        state.arm(&myself);
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<QueueMsg>,
        state: &mut QueueState,
    ) -> Result<(), ActorProcessingErr> {
        if let Some((_, timer)) = state.timer.take() {
            timer.abort();
        }
        Ok(())
    }
}

impl QueueState {
    async fn handle(
        &mut self,
        message: QueueMsg,
        myself: &ActorRef<QueueMsg>,
        now: Timestamp,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            QueueMsg::Ready {
                slot,
                generation,
                finished,
            } => {
                // A caller that is attached to an earlier queue will be ready again for this one.
                if generation == self.generation {
                    self.ready(slot, finished, now).await?;
                }
            }
            QueueMsg::Stored {
                inserted,
                committed,
            } => self.stored(inserted, committed, now)?,
            QueueMsg::Submit { submission, reply } => self.submit(*submission, reply, now),
            QueueMsg::Wait { job_id, reply } => {
                if self.lane.knows(job_id) || self.ending.contains_key(&job_id) {
                    self.waiters.entry(job_id).or_default().push(reply);
                } else {
                    let _ = reply.send(false);
                }
            }
            QueueMsg::Cancel { job_id, reply } => {
                let (path, effects) = self.lane.cancel(job_id, now);
                match path {
                    CancelPath::Commit => self.answer_later(&effects, Some(job_id), reply),
                    CancelPath::Settlement => {
                        self.cancels.entry(job_id).or_default().push(reply);
                    }
                }
                self.carry_out(effects)?;
            }
            QueueMsg::Requeue { job_id, reply } => {
                let effects = self.lane.requeue(job_id, now);
                self.answer_later(&effects, Some(job_id), reply);
                self.carry_out(effects)?;
            }
            QueueMsg::Reprioritise {
                job_id,
                priority,
                reply,
            } => {
                let effects = self.lane.reprioritise(job_id, priority, now);
                self.answer_later(&effects, Some(job_id), reply);
                self.carry_out(effects)?;
            }
            QueueMsg::Pause { reason, reply } => {
                let effects = self.lane.pause(reason, now);
                self.answer_later(&effects, None, reply);
                self.carry_out(effects)?;
            }
            QueueMsg::CloseIntake { reason, reply } => {
                let effects = self.lane.close_intake(reason, now);
                self.answer_later(&effects, None, reply);
                self.carry_out(effects)?;
            }
            QueueMsg::Resume { reply } => {
                let effects = self.lane.resume(now);
                self.answer_later(&effects, None, reply);
                self.carry_out(effects)?;
            }
            QueueMsg::Release { scope, reply } => {
                let (was, effects) = self.lane.release(&scope, now);
                if was {
                    self.answer_later(&effects, None, reply);
                } else {
                    let _ = reply.send(Err(Refusal::NotFound));
                }
                self.carry_out(effects)?;
            }
            QueueMsg::Budgets { reply } => {
                let _ = reply.send(self.lane.standings());
            }
            QueueMsg::Affords { jobs, reply } => {
                let refuses = |job: &Asking| self.lane.refuses(&job.user_id, &job.model, job.worst);
                let _ = reply.send(jobs.iter().map(refuses).collect());
            }
            QueueMsg::WaitsFor { job_id, reply } => {
                let _ = reply.send(self.lane.why_waits(job_id));
            }
            QueueMsg::Billed {
                job_id,
                attempt,
                billing,
            } => {
                let effects = self.lane.billed(job_id, attempt, &billing, now);
                self.carry_out(effects)?;
            }
            QueueMsg::Snapshot { reply } => {
                let _ = reply.send(self.lane.snapshot());
            }
            QueueMsg::Drain { reply } => {
                self.drains.push(reply);
                let effects = self.lane.drain(now);
                self.carry_out(effects)?;
            }
            QueueMsg::AbortAll => {
                let effects = self.lane.abort_all();
                self.carry_out(effects)?;
            }
            QueueMsg::Configure { reply } => {
                let settings = Arc::clone(&self.ports.settings.borrow());
                let before = std::mem::replace(&mut self.settings, Arc::clone(&settings));
                if settings.budgets != before.budgets
                    || settings.calendar != before.calendar
                    || ((settings.prices != before.prices
                        || settings.glm.max_tokens != before.glm.max_tokens)
                        && !settings.budgets.is_empty())
                {
                    let ledger = ledger(&self.store, &settings, now).await?;
                    self.lane.load_budgets(&ledger, &settings, now);
                }
                self.breaker
                    .cast(BreakerMsg::Configure(self.settings.breaker))?;
                let effects = self.lane.configure(Arc::clone(&self.settings), now);
                self.carry_out(effects)?;
                self.ask_for_callers();
                let _ = reply.send(());
            }
            QueueMsg::CallerAdded { slot, caller } => {
                let _ = caller.cast(CallerMsg::Attach {
                    generation: self.generation,
                    queue: myself.clone(),
                });
                self.asked_for.remove(&slot);
                self.callers.insert(slot, caller);
                self.lane.caller_added(slot);
            }
            QueueMsg::CallerGone { slot } => {
                self.callers.remove(&slot);
                let effects = self.lane.caller_gone(slot, now);
                self.carry_out(effects)?;
                self.ask_for_callers();
            }
            QueueMsg::Breaker { snapshot, reply } => {
                // One that an operator opens may have been open already.
                let changed = self.lane.breaker() != snapshot.state || snapshot.forced;
                let effects = self.lane.breaker_changed(&snapshot, changed, now);
                match reply {
                    Some(reply) if changed => {
                        self.answer_later(&effects, None, once_stored(snapshot, reply));
                    }
                    Some(reply) => {
                        let _ = reply.send(snapshot);
                    }
                    None => {}
                }
                self.carry_out(effects)?;
            }
            QueueMsg::Tick => {
                self.timer = None;
                let effects = self.lane.tick(now);
                self.carry_out(effects)?;
            }
        }
        Ok(())
    }

    /// A slot is free. Its outcome is judged first, since that decides what may be sent next.
    async fn ready(
        &mut self,
        slot: SlotId,
        finished: Option<Box<Finished>>,
        now: Timestamp,
    ) -> Result<(), ActorProcessingErr> {
        if finished.is_some() {
            self.lane.outlived(slot);
        }
        if let Some(task) = finished.as_ref().and_then(|f| self.left_open(slot, f)) {
            let effects = self.lane.left_open(slot, task, now);
            return self.carry_out(effects);
        }
        let concluded = finished.and_then(|finished| {
            let (job, cancelled) = self.lane.awaited(slot, finished.job_id, finished.attempt)?;
            let (lane, model) = self.lane.conditions(job.sent_to());
            let bench = JudgeContext {
                settings: &self.settings,
                lane: &lane,
                model: &model,
                eased: self.lane.would_ease(slot, now),
                sent_at: finished.started_at,
                has_fallback: self.lane.has_fallback(&job.model, job.sent_to()),
                seed: self.ports.ids.seed(),
                now,
            };
            let on = SettleContext { bench, cancelled };
            Some(conclude(job, &finished, &on))
        });
        let Some(concluded) = concluded else {
            let effects = self.lane.ready(slot, now);
            return self.carry_out(effects);
        };
        // A success leaves a closed breaker closed: the lane need not wait to hear that.
        let clear = concluded.breaker == BreakerEffect::Success
            && self.lane.breaker() == BreakerState::Closed;
        let breaker = if clear {
            None
        } else {
            self.ask_breaker(&concluded).await?
        };
        let effects = self.lane.finished(slot, concluded, breaker, now);
        let (runs, rest): (Vec<_>, Vec<_>) = effects
            .into_iter()
            .partition(|effect| matches!(effect, Effect::Run { .. }));
        if !runs.is_empty() {
            self.carry_out(runs)?;
            // The next call is on the wire before this thread turns to the books: what is cast
            // after it would be polled before it, and waking another thread takes longer than all
            // of this.
            tokio::task::yield_now().await;
        }
        self.carry_out(rest)?;
        if clear {
            self.breaker.cast(BreakerMsg::Succeeded { reply: None })?;
        }
        Ok(())
    }

    /// The task of a call that was stopped while GLM holds it, and is to be fetched later.
    fn left_open(&self, slot: SlotId, finished: &Finished) -> Option<LeftOpen> {
        let task = finished.task.clone()?;
        let (job_id, attempt) = (finished.job_id, finished.attempt);
        let stopped = matches!(*finished.outcome, GlmOutcome::Aborted);
        (stopped && self.lane.stays_open(slot, job_id, attempt)).then_some(LeftOpen {
            job_id,
            attempt,
            task,
        })
    }

    /// Tells the breaker of an outcome that may change its state, and waits for what it makes of it,
    /// since that decides what may be sent next. Answers a changed breaker.
    async fn ask_breaker(
        &self,
        concluded: &Concluded,
    ) -> Result<Option<BreakerSnapshot>, ActorProcessingErr> {
        let before = self.lane.breaker();
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

    fn submit(
        &self,
        submission: Submission,
        reply: RpcReplyPort<Result<Submitted, SubmitError>>,
        now: Timestamp,
    ) {
        let id = self.ports.ids.job_id(now);
        let mut new = match submission.into_job(&self.settings, id, now) {
            Ok(new) => new,
            Err(error) => {
                let _ = reply.send(Err(error.into()));
                return;
            }
        };
        let mut refusal = None;
        if self.lane.state().draining.is_some() {
            new.max_queue_jobs = CLOSED_QUEUE_JOBS;
        } else {
            let job = &new.job;
            refusal = self.lane.refuses(&job.user_id, &job.model, job.worst);
            if refusal.is_some() {
                // It may be a job that is there already.
                new.max_queue_jobs = CLOSED_QUEUE_JOBS;
            }
        }
        let store = self.store.clone();
        // The queue must not wait for the disk: a task of its own carries the answer.
        tokio::spawn(async move {
            let answer = store
                .call(
                    |port| {
                        StoreMsg::Commit(CommitRequest {
                            transitions: vec![Transition::Insert(Box::new(new))],
                            reply: CommitReply::Port(port),
                        })
                    },
                    None,
                )
                .await;
            let _ = reply.send(match answer {
                Ok(ractor::rpc::CallResult::Success(Ok(mut decisions))) => {
                    match (submitted(decisions.pop()), refusal) {
                        (Err(SubmitError::IntakeClosed), Some(refusal)) => {
                            Err(SubmitError::OverBudget(Box::new(refusal)))
                        }
                        (answer, _) => answer,
                    }
                }
                Ok(ractor::rpc::CallResult::Success(Err(error))) => Err(error.into()),
                _ => Err(SubmitError::Unknown),
            });
        });
    }

    fn stored(
        &mut self,
        inserted: Vec<JobEntry>,
        committed: Vec<Committed>,
        now: Timestamp,
    ) -> Result<(), ActorProcessingErr> {
        if !inserted.is_empty() {
            self.publisher.submitted(&inserted, now);
            let effects = self.lane.submitted(inserted, now);
            self.carry_out(effects)?;
        }
        for Committed { ticket, decisions } in committed {
            let effects = self.lane.committed(ticket, &decisions, now);
            self.carry_out(effects)?;
            let mut waiting = self.by_ticket.remove(&ticket).unwrap_or_default();
            for (transition, decision) in &decisions {
                if decision.is_ok() {
                    self.show(transition);
                }
                self.publisher.tell(transition, decision, now);
                self.answer(transition, decision, &mut waiting);
                if !agree(transition, decision) {
                    // The store is right: the queue is rebuilt from it.
                    // Named without its content: an answer of GLM does not belong in a log.
                    let refusal = decision.as_ref().err().map(ToString::to_string);
                    return Err(format!(
                        "the lane and the store disagree about job {}: {}",
                        transition
                            .job_id()
                            .map_or_else(String::new, |id| id.to_string()),
                        refusal.as_deref().unwrap_or("an answer of another kind"),
                    )
                    .into());
                }
            }
        }
        Ok(())
    }

    /// Shows the lane's state, if this change stored it. Before anybody is answered: who has closed the
    /// intake must find it closed.
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

    /// Answers those who waited for this change.
    fn answer(
        &mut self,
        transition: &Transition,
        decision: &Result<Applied, Refusal>,
        waiting: &mut Vec<(Option<JobId>, Answer)>,
    ) {
        let job_id = transition.job_id();
        let asked = matches!(
            transition,
            Transition::Cancel { .. }
                | Transition::Requeue { .. }
                | Transition::Reprioritise { .. }
                | Transition::Lane(_)
                | Transition::Breaker(_)
        );
        if asked {
            for (_, port) in waiting.extract_if(.., |(asked, _)| *asked == job_id) {
                let _ = port.send(decision.as_ref().map(|_| ()).map_err(Clone::clone));
            }
        }
        let Some(job_id) = job_id.filter(|_| may_end(transition)) else {
            return;
        };
        if let Some(count) = self.ending.get_mut(&job_id) {
            *count -= 1;
            if *count == 0 {
                self.ending.remove(&job_id);
            }
        }
        if let Ok(Applied::Chain { others, .. }) = decision {
            for job in others.iter().filter(|job| job.status.is_terminal()) {
                self.ended(job.id, job.status);
            }
        }
        let status = match decision {
            Ok(Applied::Job(job) | Applied::Chain { job, .. }) => Some(job.status),
            Err(Refusal::WrongStatus(status)) => Some(*status),
            _ => None,
        };
        if let Some(status) = status.filter(|status| status.is_terminal()) {
            self.ended(job_id, status);
        }
    }

    /// Answers those who waited for a job's end.
    fn ended(&mut self, job_id: JobId, status: JobStatus) {
        for waiter in self.waiters.remove(&job_id).unwrap_or_default() {
            let _ = waiter.send(true);
        }
        for port in self.cancels.remove(&job_id).unwrap_or_default() {
            let _ = port.send(match status {
                JobStatus::Cancelled => Ok(()),
                other => Err(Refusal::WrongStatus(other)),
            });
        }
    }

    /// Remembers who waits for the commit among `effects`.
    fn answer_later(&mut self, effects: &[Effect], job_id: Option<JobId>, reply: Answer) {
        for effect in effects {
            if let Effect::Commit { ticket, .. } = effect {
                self.by_ticket
                    .entry(*ticket)
                    .or_default()
                    .push((job_id, reply));
                return;
            }
        }
    }

    /// Does what the lane decided, in its order: first what goes out, then what is stored.
    fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), ActorProcessingErr> {
        for effect in effects {
            match effect {
                Effect::Run {
                    slot,
                    dispatch,
                    cancelled,
                } => {
                    let abort = self
                        .aborts
                        .arm(slot, dispatch.job.id, attempt_of(&dispatch));
                    if cancelled {
                        abort.cancel();
                    }
                    let order = RunOrder {
                        dispatch,
                        settings: Arc::clone(&self.settings),
                        abort,
                    };
                    // A caller that is gone is being restarted, and this queue after it.
                    if let Some(caller) = self.callers.get(&slot) {
                        let _ = caller.cast(CallerMsg::Run(Box::new(order)));
                    }
                }
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
                    for transition in transitions.iter().filter(|t| may_end(t)) {
                        if let Some(job_id) = transition.job_id() {
                            *self.ending.entry(job_id).or_default() += 1;
                        }
                    }
                    self.store.cast(StoreMsg::Commit(CommitRequest {
                        transitions,
                        reply: CommitReply::Queue { ticket },
                    }))?;
                }
            }
        }
        Ok(())
    }

    fn ask_for_callers(&mut self) {
        let mut slots = self.lane.missing_callers();
        slots.retain(|slot| self.asked_for.insert(*slot));
        if !slots.is_empty() {
            let _ = self.supervisor.cast(SupervisorMsg::AddCallers {
                generation: self.generation,
                slots,
            });
        }
    }

    /// Sets the timer to the lane's next change. The wall clock may jump: it sleeps in short pieces.
    fn arm(&mut self, myself: &ActorRef<QueueMsg>) {
        let next = self.lane.next_change();
        if let (Some(at), Some((armed, _))) = (next, &self.timer)
            && at == *armed
        {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            timer.abort();
        }
        let Some(at) = next else { return };
        let ms = at.since(self.ports.clock.now()).min(limits::TICK_MS_MAX);
        let myself = myself.clone();
        let sleeper = tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
            let _ = myself.cast(QueueMsg::Tick);
        });
        self.timer = Some((at, sleeper.abort_handle()));
    }
}

/// What the budgets are reckoned from, with everything that this queue has asked the store to write.
async fn ledger(
    store: &ActorRef<StoreMsg>,
    settings: &Settings,
    now: Timestamp,
) -> Result<Ledger, ActorProcessingErr> {
    let month = Budgets::since(&settings.calendar, now);
    let ledger = store
        .call(|reply| StoreMsg::Ledger { month, reply }, None)
        .await?
        .success_or("the store actor ended before it answered")??;
    Ok(ledger)
}

/// The calls that the lanes' pace goes on from.
async fn recent_calls(
    ports: &Ports,
    settings: &Settings,
    now: Timestamp,
) -> Result<Vec<CallRecord>, ActorProcessingErr> {
    let store = Arc::clone(&ports.store);
    let spacings = settings
        .all_lanes()
        .map(|(_, rules)| rules.pace.min_spacing_ms);
    let back_ms = spacings.max().unwrap_or(0).max(limits::PACE_MEMORY_MS);
    let since = now.minus_ms(back_ms);
    let read = move || store.calls_since(since, limits::PACE_LOG_STARTS_MAX);
    Ok(ports.faults.off_the_workers(read).await??)
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

/// Whether the change may be the end of its job.
const fn may_end(transition: &Transition) -> bool {
    matches!(
        transition,
        Transition::Settle(_) | Transition::Cancel { .. } | Transition::Fail { .. }
    )
}

/// Whether the store made the lane's own steps, which it has no reason to refuse.
const fn agree(transition: &Transition, decision: &Result<Applied, Refusal>) -> bool {
    match transition {
        Transition::Stage { .. } | Transition::Start { .. } | Transition::Resume { .. } => {
            matches!(decision, Ok(Applied::Dispatch(_)))
        }
        Transition::Unstage { .. } | Transition::Settle(_) => decision.is_ok(),
        _ => true,
    }
}
