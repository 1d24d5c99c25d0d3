//! The supervisor: starts the actors, and starts anew the one that failed with those after it.
//!
//! The order is callers > store > breaker > cost > queue. Callers come first because they depend on
//! nobody: whatever else fails, an open call goes on and its outcome reaches the next queue. Every
//! restart raises the generation. When restarts exceed their budget all actors stop, and the watch says why.

mod spawn;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ractor::{
    Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, ActorStatus, SpawnErr,
    SupervisionEvent,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::Ports;
use crate::aborts::Aborts;
use crate::calls_out::CallsOut;
use crate::cost::Totals;
use crate::next_up::NextUp;
use crate::ports::StoreError;
use crate::protocol::{BreakerMsg, CallerMsg, CostMsg, QueueMsg, StoreMsg, SupervisorMsg};
use crate::runtime::{Runtime, StopReason};
use crate::store::Epoch;
use onelane_core::model::{BreakerSnapshot, Event, SchedulerState, SlotId, limits};

/// How many restarts within which time are borne.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartBudget {
    /// Restarts.
    pub max: usize,
    /// Within so many milliseconds.
    pub window_ms: u64,
}

impl Default for RestartBudget {
    fn default() -> Self {
        Self {
            max: limits::RESTARTS_MAX,
            window_ms: limits::RESTART_WINDOW_MS,
        }
    }
}

/// The parts that the actors are built from.
pub struct SupervisorArgs {
    /// The world outside.
    pub ports: Ports,
    /// Whether the actors have a thread for themselves, which may wait for the disk while no call is out.
    pub own_thread: bool,
    /// How many restarts are borne.
    pub budget: RestartBudget,
    /// Where the running actors are shown.
    pub runtime: watch::Sender<Runtime>,
    /// Where the breaker is shown.
    pub breaker: watch::Sender<BreakerSnapshot>,
    /// Where the totals are shown.
    pub totals: watch::Sender<Totals>,
    /// Where the stored state of the lanes is shown.
    pub lane: watch::Sender<SchedulerState>,
}

/// The rows of the order of dependence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Row {
    Caller(SlotId),
    Store,
    Breaker,
    Cost,
    Queue,
}

impl Row {
    const fn name(self) -> &'static str {
        match self {
            Self::Caller(_) => "caller",
            Self::Store => "store",
            Self::Breaker => "breaker",
            Self::Cost => "cost",
            Self::Queue => "queue",
        }
    }
}

/// The first pause before a failed store is reopened, in milliseconds; each later one is twice as long.
const STORE_PAUSE_MS: u64 = 25;
/// The pause after a start that failed, in milliseconds.
const START_PAUSE_MS: u64 = 20;
/// How long an actor that was killed may take to be gone: it ends at its next await.
const GONE_MS: u64 = 10_000;

/// The supervisor's state.
pub struct SupervisorState {
    args: SupervisorArgs,
    aborts: Aborts,
    /// What callers go on with by themselves.
    next_up: NextUp,
    /// Whether a queue was told to drain; the queues after it do not send either.
    is_stopping: Arc<AtomicBool>,
    epoch: Epoch,
    calls_out: CallsOut,
    generation: u64,
    callers: BTreeMap<SlotId, ActorRef<CallerMsg>>,
    store: Option<ActorRef<StoreMsg>>,
    breaker: Option<ActorRef<BreakerMsg>>,
    cost: Option<ActorRef<CostMsg>>,
    queue: Option<ActorRef<QueueMsg>>,
    restarts: VecDeque<Instant>,
    /// The tasks of the actors. An actor counts as ended before its state, which holds the store, is
    /// dropped: only the end of its task proves that.
    tasks: Vec<JoinHandle<()>>,
}

/// The supervisor.
pub struct Supervisor;

impl Actor for Supervisor {
    type Msg = SupervisorMsg;
    type State = SupervisorState;
    type Arguments = SupervisorArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<SupervisorMsg>,
        args: SupervisorArgs,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        let aborts = Aborts::default();
        let mut state = SupervisorState {
            args,
            next_up: NextUp::new(aborts.clone()),
            aborts,
            is_stopping: Arc::default(),
            epoch: Epoch::default(),
            calls_out: CallsOut::default(),
            generation: 1,
            callers: BTreeMap::new(),
            store: None,
            breaker: None,
            cost: None,
            queue: None,
            restarts: VecDeque::new(),
            tasks: Vec::new(),
        };
        let started = async {
            state.spawn_callers(&myself, &[SlotId(0)]).await?;
            state.spawn_from(&myself, Row::Store).await
        }
        .await;
        if let Err(error) = started {
            // The actors that have started already would never end, and hold the store.
            state.stop_all().await;
            return Err(error.into());
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<SupervisorMsg>,
        message: SupervisorMsg,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMsg::AddCallers { generation, slots } => {
                if generation != state.generation {
                    return Ok(());
                }
                let missing: Vec<SlotId> = slots
                    .iter()
                    .copied()
                    .filter(|slot| !state.callers.contains_key(slot))
                    .collect();
                if let Err(error) = state.spawn_callers(&myself, &missing).await {
                    tracing::error!(%error, "a caller can't be started; the lane goes on with fewer");
                }
                for slot in slots {
                    if let (Some(queue), Some(caller)) = (&state.queue, state.callers.get(&slot)) {
                        let caller = caller.clone();
                        let _ = queue.cast(QueueMsg::CallerAdded { slot, caller });
                    }
                }
            }
            SupervisorMsg::StoreLost => {
                let store = Arc::clone(&state.args.ports.store);
                let look = move || store.keep_place();
                let found = state.args.ports.fault_points.off_the_workers(look).await;
                if let Ok(Err(error)) = found {
                    tracing::error!(%error, "the store is lost; the lane stops");
                    state.end(&myself, StopReason::Store(error)).await;
                }
            }
            SupervisorMsg::Shutdown => state.end(&myself, StopReason::Shutdown).await,
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupervisorMsg>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(who, error) => {
                if let Some(row) = state.row_of(who.get_id()) {
                    state.failed(&myself, row, error).await;
                }
            }
            SupervisionEvent::ActorTerminated(who, _, reason) => match state.row_of(who.get_id()) {
                // A caller that was retired. A queue that was started meanwhile may count on it.
                Some(Row::Caller(slot)) => {
                    state.callers.remove(&slot);
                    if let Some(queue) = &state.queue {
                        let _ = queue.cast(QueueMsg::CallerGone { slot });
                    }
                }
                Some(row) => {
                    let reason = reason.unwrap_or_else(|| "it stopped".to_owned());
                    state.failed(&myself, row, reason.into()).await;
                }
                None => {}
            },
            _ => {}
        }
        Ok(())
    }
}

impl SupervisorState {
    fn row_of(&self, id: ActorId) -> Option<Row> {
        let is = |cell: Option<ActorCell>| cell.is_some_and(|cell| cell.get_id() == id);
        if let Some((slot, _)) = self.callers.iter().find(|(_, c)| c.get_id() == id) {
            return Some(Row::Caller(*slot));
        }
        [Row::Store, Row::Breaker, Row::Cost, Row::Queue]
            .into_iter()
            .find(|row| is(self.cell(*row)))
    }

    fn cell(&self, row: Row) -> Option<ActorCell> {
        match row {
            Row::Caller(slot) => self.callers.get(&slot).map(ActorRef::get_cell),
            Row::Store => self.store.as_ref().map(ActorRef::get_cell),
            Row::Breaker => self.breaker.as_ref().map(ActorRef::get_cell),
            Row::Cost => self.cost.as_ref().map(ActorRef::get_cell),
            Row::Queue => self.queue.as_ref().map(ActorRef::get_cell),
        }
    }

    /// An actor failed: it and those after it start anew, within the budget.
    async fn failed(
        &mut self,
        myself: &ActorRef<SupervisorMsg>,
        row: Row,
        error: ActorProcessingErr,
    ) {
        let mut row = row;
        let mut error = error;
        if let Some(lost @ StoreError::Lost { .. }) = error.downcast_ref::<StoreError>() {
            // No restart brings the file back.
            tracing::error!(error = %lost, "the store is lost; the lane stops");
            let reason = StopReason::Store(lost.clone());
            return self.end(myself, reason).await;
        }
        loop {
            tracing::error!(actor = row.name(), %error, "an actor failed; it is restarted");
            if !self.within_budget() {
                let reason = reason_of(row, &error);
                tracing::error!(%reason, "actors failed too often; the lane stops");
                self.show_end(reason);
                self.stop_all().await;
                myself.stop(None);
                return;
            }
            self.generation += 1;
            row = self.first_dead(row);
            if row == Row::Store {
                // A disk that fails is given a moment to come back.
                let tries = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
                let ms = STORE_PAUSE_MS << tries.min(4);
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            match self.restart(myself, row).await {
                Ok(()) => {
                    let generation = self.generation;
                    self.args.ports.meters.restarted(row.name());
                    self.args
                        .ports
                        .events
                        .send(self.args.ports.clock.now(), || Event::ActorRestarted {
                            actor: row.name(),
                            generation,
                        });
                    return;
                }
                Err((at, spawn)) => {
                    row = at;
                    error = match spawn {
                        SpawnErr::StartupFailed(error) => error,
                        other => other.to_string().into(),
                    };
                    // An actor that fails closes its mailbox a moment before it can be seen to have ended:
                    // without a pause the whole budget is spent on starts that ask it in that moment.
                    tokio::time::sleep(Duration::from_millis(START_PAUSE_MS)).await;
                }
            }
        }
    }

    /// The earliest row that has ended, its event perhaps not read yet: what depends on it can't be
    /// started before it.
    fn first_dead(&self, failed: Row) -> Row {
        [Row::Store, Row::Breaker, Row::Cost]
            .into_iter()
            .find(|row| {
                self.cell(*row)
                    .is_none_or(|cell| cell.get_status() >= ActorStatus::Stopping)
            })
            .map_or(failed, |dead| dead.min(failed))
    }

    fn within_budget(&mut self) -> bool {
        let now = Instant::now();
        let window = Duration::from_millis(self.args.budget.window_ms);
        while self
            .restarts
            .front()
            .is_some_and(|at| now.duration_since(*at) > window)
        {
            self.restarts.pop_front();
        }
        self.restarts.push_back(now);
        self.restarts.len() <= self.args.budget.max
    }

    async fn restart(
        &mut self,
        myself: &ActorRef<SupervisorMsg>,
        row: Row,
    ) -> Result<(), (Row, SpawnErr)> {
        let generation = self.generation;
        self.args.runtime.send_modify(|runtime| {
            runtime.generation = generation;
            runtime.refs = None;
        });
        let first = match row {
            Row::Caller(_) => Row::Store,
            other => other,
        };
        self.kill_from(first).await;
        if let Row::Caller(slot) = row {
            self.callers.remove(&slot);
            // Its call was cut off: the server is given time to see that before the next begins.
            tokio::time::sleep(Duration::from_millis(limits::CLOSE_GRACE_MS)).await;
            self.spawn_callers(myself, &[slot])
                .await
                .map_err(|error| (row, error))?;
        }
        self.spawn_from(myself, first)
            .await
            .map_err(|error| (first, error))
    }

    async fn kill_from(&mut self, first: Row) {
        for row in [Row::Queue, Row::Cost, Row::Breaker, Row::Store] {
            if row < first {
                break;
            }
            if let Some(cell) = self.cell(row) {
                let gone = Duration::from_millis(GONE_MS);
                let _ = cell.kill_and_wait(Some(gone)).await;
            }
            match row {
                Row::Queue => {
                    self.queue = None;
                    // Nobody would hear of it: the next queue begins with what the disk says.
                    self.next_up.clear();
                }
                Row::Cost => self.cost = None,
                Row::Breaker => self.breaker = None,
                Row::Store => self.store = None,
                Row::Caller(_) => {}
            }
        }
    }

    /// Ends everything at once: no actor is left to store the outcome of an open call.
    async fn end(&mut self, myself: &ActorRef<SupervisorMsg>, reason: StopReason) {
        self.show_end(reason);
        self.kill_from(Row::Store).await;
        self.aborts.abort_all();
        self.stop_all().await;
        myself.stop(None);
    }

    async fn stop_all(&mut self) {
        self.kill_from(Row::Store).await;
        // An open call is given its time, which its own timeouts bound; what it brings is not
        // stored any more and is found as interrupted at the next start.
        let longest = self.args.ports.settings.borrow().glm.timeouts.total_ms;
        for (_, caller) in std::mem::take(&mut self.callers) {
            let cell = caller.get_cell();
            let _ = cell
                .stop_and_wait(None, Some(Duration::from_millis(longest)))
                .await;
        }
        let gone = Duration::from_millis(GONE_MS);
        for task in std::mem::take(&mut self.tasks) {
            let _ = tokio::time::timeout(gone, task).await;
        }
    }

    /// Remembers the task of an actor that was started.
    fn keep(&mut self, task: JoinHandle<()>) {
        self.tasks.retain(|task| !task.is_finished());
        self.tasks.push(task);
    }

    fn show_end(&self, reason: StopReason) {
        self.args.runtime.send_modify(|runtime| {
            runtime.refs = None;
            runtime.stopped = Some(reason);
        });
    }
}

fn reason_of(row: Row, error: &ActorProcessingErr) -> StopReason {
    match error.downcast_ref::<StoreError>() {
        Some(error) => StopReason::Store(error.clone()),
        None => StopReason::Failed(format!("{}: {error}", row.name())),
    }
}
