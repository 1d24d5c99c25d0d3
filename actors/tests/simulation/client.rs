//! Those who use a lane while it runs: they ask, ask again when the actor that they asked has failed,
//! and remember what they were told.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use onelane_actors::conversations::Conversations;
use onelane_actors::cost::Totals;
use onelane_actors::meters::Meters;
use onelane_actors::ports::{Clock, Ids, Store as _};
use onelane_actors::protocol::{
    CommitReply, CommitRequest, QueueMsg, StoreMsg, SubmitError, Submitted, SupervisorMsg,
    submitted,
};
use onelane_actors::relay::Relays;
use onelane_actors::runtime::{Refs, Runtime};
use onelane_actors::supervisor::{RestartBudget, Supervisor, SupervisorArgs};
use onelane_actors::testing::SeededIds;
use onelane_actors::{Events, FaultPoints, Ports};
use onelane_core::model::{
    BreakerSnapshot, ClientKeys, JobId, NewJob, Refusal, SchedulerState, Settings, StoreError,
    Submission, Transition,
};
use onelane_core::scheduler::SchedulerSnapshot;
use ractor::{Actor, ActorRef, RpcReplyPort};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::disk::Disk;
use crate::sim::{Promise, Sim, short};
use crate::wire::Wire;

/// Longer than any answer takes, in virtual time: who waits longer waits for ever.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1_200);

/// A lane that runs, for those who use it.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) sim: Arc<Sim>,
    pub(crate) relays: Relays,
    instance: u64,
    ids: Arc<SeededIds>,
    runtime: watch::Receiver<Runtime>,
    settings: Arc<watch::Sender<Arc<Settings>>>,
    supervisor: ActorRef<SupervisorMsg>,
}

/// Starts a lane on what the world's disk holds.
pub(crate) async fn start(
    sim: &Arc<Sim>,
    ids: &Arc<SeededIds>,
) -> Option<(Client, JoinHandle<()>)> {
    let (clock, process, settings) = {
        let mut state = sim.lock();
        // The client keys are those of the store.
        let keys: ClientKeys = sim.store.client_keys().ok()?.into_iter().collect();
        let latest = Arc::clone(state.history.latest());
        if *latest.keys != keys {
            let now = state.now();
            let settings = state.with_keys(&latest, keys);
            state.history.set(settings, now);
            state.history.confirmed(now);
        }
        let settings = Arc::clone(state.history.latest());
        state.instance = ids.seed();
        (state.clock(), state.process, settings)
    };
    let instance = sim.lock().instance;
    let relays = Relays::default();
    let (settings, in_force) = watch::channel(settings);
    let (runtime, shown) = watch::channel(Runtime::default());
    let (on_message, on_disk) = (Arc::clone(sim), Arc::clone(sim));
    let fault_points = FaultPoints::new(Arc::new(move |actor| on_message.message(actor)))
        .with_disk_time(Arc::new(move || on_disk.disk_time()));
    let args = SupervisorArgs {
        ports: Ports {
            store: Arc::new(Disk::new(sim, process)),
            glm: Arc::new(Wire::new(sim, process)),
            clock: Arc::new(clock),
            instance,
            ids: Arc::clone(ids) as Arc<dyn Ids>,
            settings: in_force,
            events: Events::new(8),
            relays: relays.clone(),
            conversations: Conversations::default(),
            tokens: None,
            meters: Meters::default(),
            fault_points,
        },
        own_thread: false,
        budget: RestartBudget::default(),
        runtime,
        breaker: watch::channel(BreakerSnapshot::default()).0,
        totals: watch::channel(Totals::default()).0,
        lane: watch::channel(SchedulerState::default()).0,
    };
    let (supervisor, ended) = Actor::spawn(None, Supervisor, args).await.ok()?;
    let client = Client {
        sim: Arc::clone(sim),
        relays,
        instance,
        ids: Arc::clone(ids),
        runtime: shown,
        settings: Arc::new(settings),
        supervisor,
    };
    Some((client, ended))
}

/// What somebody submits.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) submission: Submission,
    pub(crate) promise: Promise,
    /// By a plain message to the queue, not through the store as the facade does.
    pub(crate) plainly: bool,
    /// The job that must be found, when it is asked for again.
    pub(crate) expected: Option<JobId>,
    /// Its client waits for the answer.
    pub(crate) is_attended: bool,
}

impl Client {
    /// Whether the lane has stopped by itself.
    pub(crate) fn has_stopped(&self) -> bool {
        self.runtime.borrow().stopped.is_some()
    }

    /// The actors of this moment. Looks again and again while they are being restarted: a watch wakes
    /// those who wait for it in an order that it draws by itself.
    pub(crate) async fn refs(&self) -> Option<Refs> {
        loop {
            let runtime = self.runtime.borrow().clone();
            if runtime.stopped.is_some() {
                return None;
            }
            if runtime.refs.is_some() {
                return runtime.refs;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Asks, and asks again when the answer was lost. `None`: the lane has stopped.
    pub(crate) async fn ask<T>(
        &self,
        what: &str,
        send: impl Fn(&Refs, RpcReplyPort<T>),
    ) -> Option<T> {
        let asked = async {
            loop {
                let refs = self.refs().await?;
                let (port, answer) = oneshot::channel();
                send(&refs, port.into());
                if let Ok(answer) = answer.await {
                    return Some(answer);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answer) => answer,
            Err(_) => {
                self.sim.violated(format!("nobody answers: {what}"));
                None
            }
        }
    }

    pub(crate) async fn ask_queue<T>(
        &self,
        what: &str,
        message: impl Fn(RpcReplyPort<T>) -> QueueMsg,
    ) -> Option<T> {
        let send = |refs: &Refs, port| {
            let _ = refs.queue.cast(message(port));
        };
        self.ask(what, send).await
    }

    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        self.sim.lock().note(what);
    }

    /// The settings as those at the door see them.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.borrow())
    }

    /// These settings are in force from now on, once the lane has heard of it.
    pub(crate) fn put_in_force(&self, settings: Arc<Settings>) {
        self.settings.send_replace(settings);
    }

    /// Somebody looks at the file once a second, and finds that it is gone.
    pub(crate) async fn finds_it_gone(self) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let _ = self.supervisor.cast(SupervisorMsg::StoreLost);
    }

    /// Submits. What is acknowledged is a promise from then on.
    pub(crate) async fn submit(&self, mut order: Order) -> Option<JobId> {
        if order.is_attended && order.promise.key.is_none() {
            order.submission.bound_to = Some(self.instance);
        }
        if !self.shows_its_key(&mut order) {
            return None;
        }
        let who = order.promise.prompt.trim_end_matches('x').to_owned();
        let answer = if order.plainly {
            let submit = |reply| QueueMsg::Submit {
                submission: Box::new(order.submission.clone()),
                reply,
            };
            // Asked again it may be another job, unless it has a key.
            self.ask_queue("a submission", submit).await
        } else {
            self.insert(&order).await
        };
        match answer {
            None => None,
            Some(Ok(Submitted { job_id, created })) => {
                self.note(|| format!("{who} is job {} (created: {created})", short(job_id)));
                let on_disk = self.sim.lock().ledger.jobs.contains_key(&job_id);
                if !on_disk {
                    let id = short(job_id);
                    self.sim
                        .violated(format!("job {id} is acknowledged and not on disk"));
                }
                if order.expected.is_some_and(|id| id != job_id || created) {
                    let id = short(job_id);
                    self.sim
                        .violated(format!("{who} again is another job: {id}"));
                }
                let mut state = self.sim.lock();
                if order.is_attended {
                    state.asked_again.insert(job_id);
                }
                state.promises.insert(job_id, order.promise);
                Some(job_id)
            }
            Some(Err(error)) => {
                self.note(|| format!("{who} is refused: {error}"));
                let lost = matches!(
                    error,
                    SubmitError::Refused(
                        Refusal::NoSuchDependency(_) | Refusal::IdempotencyConflict(_)
                    ) | SubmitError::Invalid(_)
                );
                if lost {
                    self.sim.violated(format!("{who}: {error}"));
                }
                let no_room = matches!(error, SubmitError::Store(StoreError::Full { .. }));
                self.sim.lock().tally.refused_for_room += u64::from(no_room);
                None
            }
        }
    }

    /// As the facade does: the job has its id before the first try.
    async fn insert(&self, order: &Order) -> Option<Result<Submitted, SubmitError>> {
        let (now, settings) = {
            let state = self.sim.lock();
            (state.clock().now(), Arc::clone(&self.settings.borrow()))
        };
        let id = self.ids.job_id(now);
        let new = match NewJob::of(order.submission.clone(), &settings, id, now) {
            Ok(new) => Arc::new(new),
            Err(error) => return Some(Err(error.into())),
        };
        let send = |refs: &Refs, reply| {
            if refs.is_idle.load(Ordering::Relaxed) {
                let new = new.clone();
                let _ = refs.queue.cast(QueueMsg::Insert { new, reply });
                return;
            }
            let _ = refs.store.cast(StoreMsg::Commit(CommitRequest {
                transitions: vec![Transition::Insert(new.clone())],
                reply: CommitReply::Port(reply),
            }));
        };
        let decisions = self.ask("an insertion", send).await?;
        Some(match decisions {
            Ok(mut decisions) => submitted(decisions.pop()),
            Err(error) => Err(error.into()),
        })
    }

    /// A look at the lanes.
    pub(crate) async fn snapshot(&self) -> Option<SchedulerSnapshot> {
        self.ask_queue("a look", |reply| QueueMsg::Snapshot { reply })
            .await
    }

    /// Shuts down as the facade does: lets calls finish for so long, then closes them. Tells whether
    /// they finished.
    pub(crate) async fn shut_down(&self, retry_policy: Duration) -> bool {
        let drain = || self.ask_queue("a drain", |reply| QueueMsg::Drain { reply });
        let mut drained = matches!(
            tokio::time::timeout(retry_policy, drain()).await,
            Ok(Some(()))
        );
        if !drained {
            if let Some(refs) = self.refs().await {
                let _ = refs.queue.cast(QueueMsg::AbortAll);
            }
            let again = tokio::time::timeout(Duration::from_secs(5), drain()).await;
            drained = matches!(again, Ok(Some(())));
        }
        let _ = self.supervisor.cast(SupervisorMsg::Shutdown);
        drained
    }
}
