//! The queue actor: carries messages to and from the scheduler ([`onelane_core::scheduler`]), which decides.
//! It owns the waiting jobs, the slots and the waiters of jobs; nothing durable: a restart rebuilds it
//! from the store.

mod books;
mod orders;
mod outcome;
mod start;
mod waiters;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Ports;
use crate::aborts::Aborts;
use crate::calls_out::{CallOut, CallsOut};
use crate::next_up::NextUp;
use crate::protocol::{
    BreakerMsg, CallerMsg, CostMsg, QueueMsg, RunOrder, StoreMsg, SupervisorMsg,
};
use crate::publisher::Publisher;
use crate::ready_call::ReadyCall;
use crate::timer::Timer;
use onelane_core::model::{JobId, SchedulerState, Settings, SlotId, Timestamp};
use onelane_core::scheduler::Scheduler;
use orders::answer;
use waiters::Waiters;

pub(crate) struct QueueArgs {
    pub(crate) ports: Ports,
    pub(crate) generation: u64,
    pub(crate) supervisor: ActorRef<SupervisorMsg>,
    pub(crate) store: ActorRef<StoreMsg>,
    pub(crate) breaker: ActorRef<BreakerMsg>,
    pub(crate) cost: ActorRef<CostMsg>,
    pub(crate) callers: BTreeMap<SlotId, ActorRef<CallerMsg>>,
    pub(crate) aborts: Aborts,
    pub(crate) next_up: NextUp,
    pub(crate) calls_out: CallsOut,
    /// Where the scheduler's state is shown.
    pub(crate) watch: watch::Sender<SchedulerState>,
    /// Where it is shown whether a job that comes may be sent at once.
    pub(crate) is_idle: Arc<AtomicBool>,
    /// Whether the lane shuts down: no queue after the one that was told sends anything either.
    pub(crate) is_stopping: Arc<AtomicBool>,
}

pub(crate) struct QueueState {
    ports: Ports,
    generation: u64,
    supervisor: ActorRef<SupervisorMsg>,
    store: ActorRef<StoreMsg>,
    breaker: ActorRef<BreakerMsg>,
    callers: BTreeMap<SlotId, ActorRef<CallerMsg>>,
    aborts: Aborts,
    calls_out: CallsOut,
    /// Kept while jobs wait for their turn alone.
    to_come: Option<CallOut>,
    next_up: NextUp,
    /// The slot for which an order lies ready.
    laid: Option<SlotId>,
    /// An order that was taken back, and may be laid again.
    spare: Option<Box<RunOrder>>,
    /// Came after a caller has gone on by itself, and before it has told so.
    deferred: VecDeque<QueueMsg>,
    settings: Arc<Settings>,
    scheduler: Scheduler,
    /// The scheduler's state as it is on disk, for readers.
    watch: watch::Sender<SchedulerState>,
    publisher: Publisher,
    waiters: Waiters,
    /// Slots whose callers the supervisor was asked for.
    asked_for: BTreeSet<SlotId>,
    /// Jobs that are being inserted and started in one commit, by its ticket.
    inserting: BTreeMap<u64, JobId>,
    /// Wakes the scheduler for its next change.
    timer: Timer,
    /// Where uptime is counted from.
    begun: Instant,
    /// Shows whether a job that comes may be sent at once.
    is_idle: Arc<AtomicBool>,
    is_stopping: Arc<AtomicBool>,
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
        QueueState::recover(&myself, args).await
    }

    async fn handle(
        &self,
        myself: ActorRef<QueueMsg>,
        message: QueueMsg,
        state: &mut QueueState,
    ) -> Result<(), ActorProcessingErr> {
        state.ports.fault_points.point("queue");
        if !state.may_hear(&message)? {
            state.deferred.push_back(message);
            return Ok(());
        }
        state.hear(message, &myself).await?;
        while let Some(later) = state.deferred.pop_front() {
            state.hear(later, &myself).await?;
        }
        state.lay_next();
        Ok(())
    }
}

impl QueueState {
    async fn hear(
        &mut self,
        message: QueueMsg,
        myself: &ActorRef<QueueMsg>,
    ) -> Result<(), ActorProcessingErr> {
        let now = self.ports.clock.now();
        let uptime = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if self.scheduler.hear(now, uptime) {
            self.step(|scheduler| scheduler.tick(now))?;
        }
        self.handle(message, myself, now).await?;
        if self.scheduler.needs_ledger() {
            let settings = Arc::clone(&self.settings);
            self.load_budgets(&settings, now).await?;
            self.step(|scheduler| scheduler.tick(now))?;
        }
        let news = self.scheduler.take_budget_news();
        self.publisher.budgets(news, now);
        if self.waiters.is_draining() && self.scheduler.is_drained() {
            self.waiters.drained();
        }
        self.arm(myself);
        match (self.scheduler.has_more(), &self.to_come) {
            (true, None) => self.to_come = Some(self.calls_out.one_more()),
            (false, Some(_)) => self.to_come = None,
            _ => {}
        }
        let is_idle = self.scheduler.is_idle();
        self.is_idle.store(is_idle, Ordering::Relaxed);
        Ok(())
    }

    /// Takes back what lies ready for a caller, so that nothing is decided beside it. `false`: the caller has gone on with
    /// it, and this message has to wait until it says so.
    fn may_hear(&mut self, message: &QueueMsg) -> Result<bool, ActorProcessingErr> {
        let went_on = match message {
            QueueMsg::Ready {
                slot,
                generation,
                report: Some(report),
            } if *generation == self.generation && report.went_on_with.is_some() => Some(*slot),
            _ => None,
        };
        let Some(slot) = self.laid else {
            return match went_on {
                None => Ok(true),
                Some(slot) => {
                    Err(format!("the caller of slot {} went on with nothing", slot.0).into())
                }
            };
        };
        if went_on != Some(slot) {
            let Some(order) = self.next_up.take_back(slot) else {
                return Ok(false);
            };
            self.spare = Some(order);
        }
        self.laid = None;
        Ok(true)
    }

    /// Lays ready what the open call's caller goes on with, if that is clear already.
    fn lay_next(&mut self) {
        let spare = self.spare.take();
        let Some((slot, dispatch)) = self.scheduler.next_up() else {
            return;
        };
        let is_same = |order: &RunOrder| {
            Arc::ptr_eq(&order.dispatch, &dispatch) && Arc::ptr_eq(&order.settings, &self.settings)
        };
        let order = spare.filter(|order| is_same(order)).unwrap_or_else(|| {
            let abort = CancellationToken::new();
            Box::new(RunOrder {
                dispatch: Arc::clone(&dispatch),
                settings: Arc::clone(&self.settings),
                ready: ReadyCall::ahead(&self.ports, &dispatch, &self.settings, &abort),
                abort,
                out: self.calls_out.one_more(),
            })
        });
        let now = self.ports.clock.now();
        let until = self.scheduler.next_change().and_then(|until| {
            let left = Duration::from_millis(until.since(now));
            Some((Instant::now().checked_add(left)?, until))
        });
        self.next_up.lay(slot, order, until);
        self.laid = Some(slot);
    }

    #[rustfmt::skip] // A message a line.
    async fn handle(
        &mut self,
        message: QueueMsg,
        myself: &ActorRef<QueueMsg>,
        now: Timestamp,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            QueueMsg::Submit { submission, reply } => self.submit(*submission, reply, now),
            QueueMsg::Insert { new, reply } => self.insert(new, reply, now),
            QueueMsg::Wait { job_id, early, reply } => self.wait(job_id, early, reply),
            QueueMsg::Cancel { job_id, reply } => self.cancel(job_id, reply, now),
            QueueMsg::Requeue { job_id, reply } => self.order(Some(job_id), reply, |scheduler| scheduler.requeue(job_id, now)),
            QueueMsg::Reprioritise { job_id, priority, reply } => self.order(Some(job_id), reply, |scheduler| scheduler.reprioritise(job_id, priority, now)),
            QueueMsg::Pause { reason, reply } => self.order(None, reply, |scheduler| scheduler.pause(reason, now)),
            QueueMsg::CloseIntake { reason, reply } => self.order(None, reply, |scheduler| scheduler.close_intake(reason, now)),
            QueueMsg::Resume { reply } => self.order(None, reply, |scheduler| scheduler.resume(now)),
            QueueMsg::Release { scope, reply } => self.release(&scope, reply, now),
            QueueMsg::Budgets { most, reply } => answer(reply, self.scheduler.statuses(most)),
            QueueMsg::BudgetShares { reply } => answer(reply, self.scheduler.budget_shares()),
            QueueMsg::Affords { jobs, reply } => answer(reply, self.affords(&jobs)),
            QueueMsg::WaitReasons { jobs, reply } => answer(reply, self.scheduler.wait_reasons(&jobs)),
            QueueMsg::ServiceOrder { limit, reply } => answer(reply, self.scheduler.in_service_order(limit)),
            QueueMsg::Billed { job_id, attempt, billing } => self.step(|scheduler| scheduler.billed(job_id, attempt, &billing, now)),
            QueueMsg::Snapshot { reply } => answer(reply, self.scheduler.snapshot()),
            QueueMsg::Drain { reply } => self.drain(reply, now),
            QueueMsg::AbortAll => self.step(Scheduler::abort_all),
            QueueMsg::Configure { reply } => self.configure(reply, now).await,
            QueueMsg::Disk { is_full } => self.step(|scheduler| scheduler.disk(is_full, now)),
            QueueMsg::Stored { inserted, committed } => self.stored(inserted, committed, now),
            QueueMsg::Ready { slot, generation, report } => self.ready(slot, generation, report, now).await,
            QueueMsg::CallerAdded { slot, caller } => self.caller_added(slot, caller, myself),
            QueueMsg::CallerGone { slot } => self.caller_gone(slot, now),
            QueueMsg::Breaker { snapshot, reply } => self.breaker_changed(snapshot, reply, now),
            QueueMsg::Tick => self.tick(now),
        }
    }

    /// Sets the timer to the scheduler's next change.
    fn arm(&mut self, myself: &ActorRef<QueueMsg>) {
        let now = self.ports.clock.now();
        self.timer
            .set(self.scheduler.next_change(), now, myself, QueueMsg::Tick);
    }
}
