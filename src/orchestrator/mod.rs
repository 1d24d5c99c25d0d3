//! The facade: what an embedding process, the API and the command line hold. It hides actor
//! references and restarts: a reply that was lost with its actor is asked for again.

mod account;
mod again;
mod alerts;
pub(crate) mod attend;
mod audit;
mod batches;
mod billing;
mod bulk;
pub(crate) mod clients;
mod control;
mod deliveries;
#[cfg(feature = "estimate")]
mod estimate;
mod events;
mod figures;
#[cfg(feature = "api")]
pub(crate) mod files;
#[cfg(feature = "api")]
pub(crate) mod follow;
mod health;
mod jobs;
mod keys;
mod maintenance;
mod meters;
mod notify;
mod place;
pub(crate) mod presence;
pub(crate) mod previous;
mod refusals;
mod settings;
mod start;
mod submit;
mod thread;
mod types;
mod waits;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use onelane_actors::conversations::Conversations;
use onelane_actors::cost::Totals;
use onelane_actors::ports::{Clock, Glm, Ids, Store, StoreError};
use onelane_actors::protocol::{QueueMsg, SupervisorMsg};
use onelane_actors::relay::Relays;
use onelane_actors::runtime::{Refs, Runtime};
use onelane_actors::supervisor::{RestartBudget, Supervisor, SupervisorArgs};
use onelane_actors::{FaultPoints, Ports};
use onelane_core::model::{
    AlertBook, BreakerSnapshot, ClientKeys, SchedulerState, Settings, limits,
};
use ractor::{Actor, ActorRef, RpcReplyPort};
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;

use crate::config::Loaded;
use crate::error::Error;
use crate::estimate::CountTokens;
use crate::otlp::Traces;
use crate::registry::Registry;
use crate::trust::Trust;
use crate::webhooks::{HttpSender, Sender};
pub use account::{AccountStatus, Reconciled};
pub use bulk::Selection;
pub use events::{Events, Feed};
pub use health::{Health, NotReady};
pub use keys::{MadeKey, NewKey, rotation, stored_key};
use notify::Notifier;
pub use onelane_actors::protocol::Submitted;
pub use onelane_actors::runtime::StopReason;
pub use onelane_core::model::Submission;
pub use onelane_core::scheduler::{LaneSnapshot, ModelSnapshot, SchedulerSnapshot};
pub use start::StartError;
pub use thread::LaneThread;
pub use types::{DeadLetters, JobDetail, Metrics, Shutdown};

/// What a lane is built from: the adapters and what tests put in their place.
pub struct Parts {
    /// The durable truth.
    pub store: Arc<dyn Store>,
    /// GLM.
    pub glm: Arc<dyn Glm>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Ids and seeds.
    pub ids: Arc<dyn Ids>,
    /// What the lane is told at first, and how that may be changed.
    pub config: Loaded,
    /// Counts prompts as estimates do, to measure the error of these; `None`: it is not measured.
    pub tokens: Option<Arc<dyn CountTokens>>,
    /// Where what it counts is kept.
    pub registry: Registry,
    /// How many restarts of actors are borne.
    pub budget: RestartBudget,
    /// Where tests make actors fail and disks slow.
    pub fault_points: FaultPoints,
}

struct Inner {
    ports: Ports,
    /// The configuration in force. Held for a moment only, never across an await.
    config: RwLock<Loaded>,
    /// One change of the configuration at a time.
    changing: tokio::sync::Mutex<()>,
    settings: watch::Sender<Arc<Settings>>,
    runtime: watch::Receiver<Runtime>,
    breaker: watch::Receiver<BreakerSnapshot>,
    totals: watch::Receiver<Totals>,
    /// The lane's state as it is on disk.
    state: watch::Receiver<SchedulerState>,
    supervisor: ActorRef<SupervisorMsg>,
    /// Turns true when the supervisor's task has ended: nothing of the lane runs any more.
    gone: watch::Receiver<bool>,
    closed: AtomicBool,
    /// The latest `request_id`s that submitters chose: GLM refuses one that it has seen.
    chosen: Mutex<submit::Recent>,
    /// What is done off the workers.
    behind: TaskTracker,
    /// The alerts as they are on disk.
    alerts: watch::Sender<AlertBook>,
    notifier: Notifier,
    account: Arc<account::Account>,
    clients: Arc<clients::Clients>,
    metered: Arc<meters::Metered>,
    /// Whether the clock is believed.
    trust: Arc<Trust>,
    /// What exports the traces of its jobs.
    traces: Option<Traces>,
}

impl Drop for Inner {
    /// Nobody can shut it down any more. What was open ends as in a crash.
    fn drop(&mut self) {
        let _ = self.supervisor.cast(SupervisorMsg::Shutdown);
    }
}

/// The lane, as its users hold it. Clones are cheap and mean the same lane. When the last is dropped
/// the lane stops, as in a crash: nothing acknowledged is lost, an open call is closed and recorded
/// as interrupted. [`Orchestrator::shutdown`] lets it finish.
#[derive(Clone)]
pub struct Orchestrator {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Orchestrator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orchestrator").finish_non_exhaustive()
    }
}

/// How long the facade waits for the supervisor before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How often a message was sent until its reply came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sends {
    /// Once.
    Once,
    /// More often: a reply was lost, and what was asked may have been done by then.
    Again,
}

impl Orchestrator {
    /// Starts a lane on these parts and recovers what the store holds.
    pub async fn start_with(parts: Parts) -> Result<Self, StartError> {
        let webhooks = &parts.config.config.webhooks;
        let sender = HttpSender::new(webhooks.callbacks.clone(), webhooks.timeout());
        // Boxed: a configuration is large, and so would be every future that starts a lane.
        Box::pin(Self::start_sending(parts, Arc::new(sender))).await
    }

    /// As [`Orchestrator::start_with`], with webhooks brought out by `sender`.
    pub async fn start_sending(parts: Parts, sender: Arc<dyn Sender>) -> Result<Self, StartError> {
        let webhooks = Arc::new(parts.config.config.webhooks.clone());
        let (store, told, clock) = (
            Arc::clone(&parts.store),
            webhooks.clone(),
            Arc::clone(&parts.clock),
        );
        let prepare = tokio::task::spawn_blocking(move || {
            let trust = maintenance::trust(&*store, Arc::clone(&clock))?;
            let keys: ClientKeys = store.client_keys()?.into_iter().collect();
            let book = notify::prepare(&*store, &told, &trust, clock.now())?;
            Ok::<_, StoreError>((book, Arc::new(trust), keys))
        });
        let (book, trust, keys) = prepare
            .await
            .map_err(|error| StartError::Actors(error.to_string()))??;
        let in_force = parts.config.settings.clone().with_keys(Arc::new(keys));
        let (settings, settings_rx) = watch::channel(Arc::new(in_force));
        let metered = Arc::new(meters::Metered::new(parts.registry));
        let account = Arc::new(account::Account::new(&parts.config.config.account));
        let glm = Arc::new(refusals::Refusals {
            glm: parts.glm,
            clock: Arc::clone(&parts.clock),
            account: Arc::clone(&account),
        });
        let ports = Ports {
            store: parts.store,
            glm,
            clock: parts.clock,
            instance: parts.ids.seed(),
            ids: parts.ids,
            settings: settings_rx,
            events: onelane_actors::Events::new(limits::EVENTS_BUFFERED_MAX),
            relays: Relays::default(),
            conversations: Conversations::default(),
            tokens: parts.tokens,
            meters: metered.registry.meters().clone(),
            fault_points: parts.fault_points,
        };
        let (house_tx, runtime) = watch::channel(Runtime::default());
        let (breaker_tx, breaker) = watch::channel(BreakerSnapshot::default());
        let (totals_tx, totals) = watch::channel(Totals::default());
        let (state_tx, state) = watch::channel(SchedulerState::default());
        // Before an actor tells the first fact.
        let otlp = &parts.config.config.otlp;
        let traces = Traces::start(otlp, &ports, state.clone(), breaker.clone())?;
        let args = SupervisorArgs {
            ports: ports.clone(),
            own_thread: LaneThread::is_this(),
            budget: parts.budget,
            runtime: house_tx,
            breaker: breaker_tx,
            totals: totals_tx,
            lane: state_tx,
        };
        let (supervisor, ended) = Actor::spawn(None, Supervisor, args)
            .await
            .map_err(start_error)?;
        let (gone_tx, gone) = watch::channel(false);
        tokio::spawn(async move {
            let _ = ended.await;
            let _ = gone_tx.send(true);
        });
        tokio::spawn(meters::upkeep(Arc::clone(&metered), gone.clone()));
        let maintenance = maintenance::Maintenance {
            settings: ports.settings.clone(),
            runtime: runtime.clone(),
            trust: Arc::clone(&trust),
        };
        tokio::spawn(maintenance.run());
        let asker = account::Asker {
            glm: Arc::clone(&ports.glm),
            clock: Arc::clone(&ports.clock),
            settings: ports.settings.clone(),
            account: Arc::clone(&account),
        };
        tokio::spawn(asker.run(gone.clone()));
        if let Some(is_there) = ports.store.place() {
            place::watch(is_there, runtime.clone(), supervisor.clone());
        }
        let lane = Self {
            inner: Arc::new(Inner {
                ports,
                config: RwLock::new(parts.config),
                changing: tokio::sync::Mutex::new(()),
                settings,
                runtime,
                breaker,
                totals,
                state,
                supervisor,
                gone,
                closed: AtomicBool::new(false),
                alerts: watch::Sender::new(book),
                notifier: Notifier::default(),
                account,
                clients: Arc::default(),
                metered,
                trust,
                traces,
                chosen: Mutex::default(),
                behind: TaskTracker::new(),
            }),
        };
        lane.start_notifier(webhooks, sender);
        tokio::spawn(clients::watch(Arc::downgrade(&lane.inner)));
        Ok(lane)
    }

    /// Live events from now on.
    #[must_use]
    pub fn subscribe(&self) -> Events {
        let ports = &self.inner.ports;
        Events::new(ports.events.subscribe(), ports.meters.clone())
    }

    /// The QueueActor of this moment, for plain message submission. A restart replaces it: on a
    /// failed send, ask for it again.
    pub async fn queue(&self) -> Result<ActorRef<QueueMsg>, Error> {
        Ok(self.refs().await?.1.queue)
    }

    /// Stops taking jobs, lets open calls finish until `deadline` has passed, then closes them
    /// (recorded as interrupted), stores everything and stops.
    pub async fn shutdown(&self, deadline: Duration) -> Shutdown {
        self.inner.closed.store(true, Ordering::Release);
        let drain = self.ask(|refs, reply| refs.queue.cast(QueueMsg::Drain { reply }));
        let drained = tokio::time::timeout(deadline, drain).await.is_ok();
        if !drained {
            if let Ok((_, refs)) = self.refs().await {
                let _ = refs.queue.cast(QueueMsg::AbortAll);
            }
            // Closing takes a moment, storing another: neither may hold up the end for long.
            let drain = self.ask(|refs, reply| refs.queue.cast(QueueMsg::Drain { reply }));
            let _ =
                tokio::time::timeout(Duration::from_millis(limits::ACTOR_REPLY_MS), drain).await;
        }
        self.inner.notifier.finish().await;
        let _ = self.inner.supervisor.cast(SupervisorMsg::Shutdown);
        let mut gone = self.inner.gone.clone();
        let _ = gone.wait_for(|gone| *gone).await;
        if let Some(traces) = &self.inner.traces {
            traces.finish().await;
        }
        // Work that nobody waits for any more ends all the same, and holds the store until then.
        let behind = &self.inner.behind;
        behind.close();
        let _ = tokio::time::timeout(Duration::from_millis(limits::ACTOR_REPLY_MS), behind.wait())
            .await;
        Shutdown { drained }
    }

    /// Whether the spans of jobs are exported, so that it matters what they are done for.
    #[must_use]
    pub fn exports_traces(&self) -> bool {
        self.inner.traces.is_some()
    }

    /// Resolves when the lane has stopped, to the reason: a shutdown, a store that failed, or
    /// actors that kept failing.
    pub async fn stopped(&self) -> StopReason {
        let mut runtime = self.inner.runtime.clone();
        let reason = match runtime.wait_for(|runtime| runtime.stopped.is_some()).await {
            Ok(runtime) => runtime.stopped.clone(),
            Err(_) => None,
        };
        let mut gone = self.inner.gone.clone();
        let _ = gone.wait_for(|gone| *gone).await;
        reason.unwrap_or_else(|| StopReason::Failed("the supervisor ended".to_owned()))
    }

    // ---- how it asks -------------------------------------------------------------------------

    /// The actors of this moment; waits while they are being restarted.
    async fn refs(&self) -> Result<(u64, Refs), Error> {
        let mut runtime = self.inner.runtime.clone();
        let runtime = runtime
            .wait_for(|runtime| runtime.refs.is_some() || runtime.stopped.is_some())
            .await
            .map_err(|_| Error::Stopped("its supervisor ended".to_owned()))?;
        match (&runtime.refs, &runtime.stopped) {
            (_, Some(reason)) => Err(stopped_error(reason)),
            (Some(refs), None) => Ok((runtime.generation, refs.clone())),
            (None, None) => Err(Error::Stopped("its supervisor ended".to_owned())),
        }
    }

    /// Sends a message with a reply port and waits; sends it again to the next generation when the
    /// actor failed before it answered. Every message sent so may safely be sent twice.
    async fn ask<R, M>(
        &self,
        send: impl Fn(&Refs, RpcReplyPort<R>) -> Result<(), M>,
    ) -> Result<R, Error> {
        Ok(self.ask_counted(send).await?.0)
    }

    /// As `ask`, and tells whether it was asked more than once.
    async fn ask_counted<R, M>(
        &self,
        send: impl Fn(&Refs, RpcReplyPort<R>) -> Result<(), M>,
    ) -> Result<(R, Sends), Error> {
        let mut sends = Sends::Once;
        loop {
            let (generation, refs) = self.refs().await?;
            let (port, answer) = oneshot::channel();
            if send(&refs, port.into()).is_ok()
                && let Ok(answer) = answer.await
            {
                return Ok((answer, sends));
            }
            sends = Sends::Again;
            let mut runtime = self.inner.runtime.clone();
            let changed = runtime
                .wait_for(|runtime| runtime.generation > generation || runtime.stopped.is_some());
            // Looks again after a while: a reply may be lost without a restart of this actor.
            if let Ok(Err(_)) = tokio::time::timeout(LOOK_AGAIN, changed).await {
                return Err(Error::Stopped("its supervisor ended".to_owned()));
            }
        }
    }

    /// Reads a short snapshot, off the async workers.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(&self.inner.ports.store);
        Ok(self.off_the_workers(move || read(&*store)).await??)
    }

    /// Does work that takes a while where it keeps nobody waiting. Once begun it comes to its end, also where nobody waits for
    /// that any more, and a shutdown waits for it, for as long as for an actor.
    async fn off_the_workers<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let working = self.inner.behind.spawn_blocking(work);
        let lost = |_| Error::Stopped("the runtime is ending".to_owned());
        working.await.map_err(lost)
    }
}

/// The store's own error, if that is what kept an actor from starting.
fn start_error(error: ractor::SpawnErr) -> StartError {
    match error {
        ractor::SpawnErr::StartupFailed(inner) => match inner.downcast::<StoreError>() {
            Ok(error) => StartError::Store(*error),
            Err(inner) => match inner.downcast::<ractor::SpawnErr>() {
                Ok(inner) => start_error(*inner),
                Err(inner) => StartError::Actors(inner.to_string()),
            },
        },
        other => StartError::Actors(other.to_string()),
    }
}

fn stopped_error(reason: &StopReason) -> Error {
    match reason {
        StopReason::Store(error) => Error::Store(error.clone()),
        other => Error::Stopped(other.to_string()),
    }
}
