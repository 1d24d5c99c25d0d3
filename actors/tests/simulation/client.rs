//! Those who use a lane while it runs: they ask, ask again when the actor that they asked has failed,
//! and remember what they were told.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use onelane_actors::conversations::Conversations;
use onelane_actors::cost::Totals;
use onelane_actors::meters::Meters;
use onelane_actors::ports::{Clock, Ids};
use onelane_actors::protocol::{
    BreakerMsg, CommitReply, CommitRequest, QueueMsg, StoreMsg, SubmitError, Submitted,
    SupervisorMsg, Waited, submitted,
};
use onelane_actors::relay::Relays;
use onelane_actors::runtime::{Refs, Runtime};
use onelane_actors::supervisor::{RestartBudget, Supervisor, SupervisorArgs};
use onelane_actors::testing::SeededIds;
use onelane_actors::{Events, FaultPoints, Ports};
use onelane_core::model::{
    Batch, BatchId, BreakerSnapshot, HoldScope, JobId, JobStatus, NewJob, Refusal, SchedulerState,
    Settings, Submission, Timestamp, Transition, WaitReason, Waiting,
};
use onelane_core::scheduler::SchedulerSnapshot;
use ractor::{Actor, ActorRef, RpcReplyPort};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::gate::SENDING_MS;
use crate::history::Act;
use crate::ports::{Disk, Wire};
use crate::sim::{Promise, Sim, short};

/// Longer than any answer takes, in virtual time: who waits longer waits for ever.
const PATIENCE: Duration = Duration::from_secs(1_200);

/// A lane that runs, for those who use it.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) sim: Arc<Sim>,
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
        let state = sim.lock();
        let settings = Arc::clone(state.history.latest());
        (state.clock(), state.process, settings)
    };
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
            instance: ids.seed(),
            ids: Arc::clone(ids) as Arc<dyn Ids>,
            settings: in_force,
            events: Events::new(8),
            relays: Relays::default(),
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
}

impl Client {
    /// Whether the lane has stopped by itself.
    pub(crate) fn has_stopped(&self) -> bool {
        self.runtime.borrow().stopped.is_some()
    }

    /// The actors of this moment. Looks again and again while they are being restarted: a watch wakes
    /// those who wait for it in an order that it draws by itself.
    async fn refs(&self) -> Option<Refs> {
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
    async fn ask<T>(&self, what: &str, send: impl Fn(&Refs, RpcReplyPort<T>)) -> Option<T> {
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

    async fn ask_queue<T>(
        &self,
        what: &str,
        message: impl Fn(RpcReplyPort<T>) -> QueueMsg,
    ) -> Option<T> {
        let send = |refs: &Refs, port| {
            let _ = refs.queue.cast(message(port));
        };
        self.ask(what, send).await
    }

    fn note(&self, what: impl FnOnce() -> String) {
        self.sim.lock().note(what);
    }

    /// Submits. What is acknowledged is a promise from then on.
    pub(crate) async fn submit(&self, order: Order) {
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
            None => {}
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
                self.sim.lock().promises.insert(job_id, order.promise);
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
            Ok(new) => Box::new(new),
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

    /// A batch goes on under another name, as a file does that was moved: its jobs are adopted, under these keys.
    /// Tells whether that is known to be done.
    pub(crate) async fn move_batch(&self, to: BatchId, jobs: Vec<(JobId, String)>) -> bool {
        let now = self.sim.lock().wall();
        let batch = Batch::new(to, format!("batch {to}"), now);
        let adopted = jobs.iter().map(|(job_id, key)| Transition::Adopt {
            job_id: *job_id,
            batch: to,
            key: key.clone(),
        });
        let opened = std::iter::once(Transition::OpenBatch(Box::new(batch)));
        let transitions: Vec<Transition> = opened.chain(adopted).collect();
        let send = |refs: &Refs, port| {
            let _ = refs.store.cast(StoreMsg::Commit(CommitRequest {
                transitions: transitions.clone(),
                reply: CommitReply::Port(port),
            }));
        };
        let Some(Ok(decisions)) = self.ask("a batch that moves", send).await else {
            return false;
        };
        for ((id, key), decision) in jobs.into_iter().zip(decisions.into_iter().skip(1)) {
            match decision {
                Ok(_) => {
                    let mut state = self.sim.lock();
                    state.tally.adoptions += 1;
                    if let Some(promise) = state.promises.get_mut(&id) {
                        promise.key = Some(key);
                    }
                }
                // Asked again, somebody may have taken the last of its jobs elsewhere meanwhile.
                Err(Refusal::BatchClosed(_) | Refusal::NoSuchBatch(_)) => {}
                Err(refusal) => {
                    let id = short(id);
                    let what = format!("job {id} is not adopted by batch {to}: {refusal}");
                    self.sim.violated(what);
                }
            }
        }
        self.note(|| format!("a batch is batch {to} now"));
        true
    }

    /// Gives a job up.
    pub(crate) async fn cancel(&self, job_id: JobId) {
        let message = |reply| QueueMsg::Cancel { job_id, reply };
        if let Some(answer) = self.ask_queue("a cancellation", message).await {
            self.note(|| format!("job {} cancelled: {answer:?}", short(job_id)));
            let status = self.sim.lock().ledger.status_of(job_id);
            let ended = status.is_some_and(JobStatus::is_terminal);
            // Somebody may have put it back in line since, but only if it had ended.
            if answer.is_ok() && !ended {
                self.note(|| format!("job {} is {status:?} again", short(job_id)));
            }
        }
    }

    /// Puts a job back in line.
    pub(crate) async fn requeue(&self, job_id: JobId) {
        let message = |reply| QueueMsg::Requeue { job_id, reply };
        if let Some(answer) = self.ask_queue("a requeue", message).await {
            self.note(|| format!("job {} requeued: {answer:?}", short(job_id)));
        }
    }

    /// Changes a job's priority.
    pub(crate) async fn reprioritise(&self, job_id: JobId, priority: i32) {
        let message = |reply| QueueMsg::Reprioritise {
            job_id,
            priority,
            reply,
        };
        if let Some(answer) = self.ask_queue("a new priority", message).await {
            self.note(|| format!("job {} to {priority}: {answer:?}", short(job_id)));
        }
    }

    /// Waits for a job's end.
    pub(crate) async fn wait(&self, job_id: JobId) {
        let message = |reply| QueueMsg::Wait {
            job_id,
            early: false,
            reply,
        };
        let refs = self.refs().await;
        let Some(refs) = refs else { return };
        let (port, answer) = oneshot::channel();
        let _ = refs.queue.cast(message(port.into()));
        // It may take for ever; an answer must be true.
        if let Ok(Waited::Ended(_)) = answer.await {
            let state = self.sim.lock();
            let known = state.ledger.jobs.get(&job_id);
            let ended = known.is_some_and(|known| {
                known.job.status.is_terminal() || known.changed == state.now()
            });
            drop(state);
            if !ended {
                let id = short(job_id);
                self.sim
                    .violated(format!("job {id} was said to have ended and has not"));
            }
        }
    }

    /// Pauses.
    pub(crate) async fn pause(&self) {
        let reason = Some("a look".to_owned());
        let message = |reply| QueueMsg::Pause {
            reason: reason.clone(),
            reply,
        };
        if self.ask_queue("a pause", message).await.is_some() {
            self.note(|| "paused".to_owned());
        }
    }

    /// Closes the intake.
    pub(crate) async fn close_intake(&self) {
        let message = |reply| QueueMsg::CloseIntake {
            reason: None,
            reply,
        };
        if self.ask_queue("a closing", message).await.is_some() {
            self.note(|| "the intake is closed".to_owned());
        }
    }

    /// Does something that ends holds.
    async fn act<T>(&self, act: Act, what: impl Future<Output = Option<T>>) -> Option<T> {
        let number = self.sim.lock().history.acts(act);
        let answer = what.await;
        let mut state = self.sim.lock();
        let now = state.now();
        if answer.is_some() {
            state.history.acted(number, now);
        }
        answer
    }

    /// Resumes everything.
    pub(crate) async fn resume(&self) {
        let asked = self.ask_queue("a resume", |reply| QueueMsg::Resume { reply });
        if self.act(Act::Resume, asked).await.is_some() {
            self.note(|| "resumed".to_owned());
        }
    }

    /// Releases a hold.
    pub(crate) async fn release(&self, scope: HoldScope) {
        let message = |reply| QueueMsg::Release {
            scope: scope.clone(),
            reply,
        };
        let asked = self.ask_queue("a release", message);
        if let Some(answer) = self.act(Act::Release(scope.clone()), asked).await {
            self.note(|| format!("{scope} is released: {answer:?}"));
        }
    }

    /// Changes the settings. Another key ends what was held for the old one.
    pub(crate) async fn configure(&self, settings: Settings) {
        let settings = Arc::new(settings);
        let begun;
        {
            let mut state = self.sim.lock();
            let now = state.now();
            let before = &state.history.latest().glm.endpoint();
            begun = (*before != settings.glm.endpoint()).then_some(now);
            state.history.set(Arc::clone(&settings), now);
        }
        self.settings.send_replace(settings);
        let asked = self.ask_queue("a change", |reply| QueueMsg::Configure { reply });
        if self.act(Act::Configure, asked).await.is_some() {
            let mut state = self.sim.lock();
            let now = state.now();
            state.history.confirmed(now);
            drop(state);
            if let Some(begun) = begun {
                tokio::spawn(self.clone().sees_another_account(begun));
            }
        }
    }

    /// Some time after the key was changed nothing is held for the old one any more.
    async fn sees_another_account(self, begun: Timestamp) {
        tokio::time::sleep(Duration::from_millis(2 * SENDING_MS)).await;
        let mut state = self.sim.lock();
        let old = state
            .ledger
            .lane
            .holds()
            .find(|(scope, _)| state.ledger.is_held_since_before(scope, begun));
        if let Some((scope, hold)) = old
            // Where the disk failed meanwhile it takes longer.
            && state.ledger.recovered < begun
        {
            let what = format!("{scope} is still held for another account: {hold:?}");
            state.violated(what);
            self.sim.over.notify_one();
        }
    }

    /// Closes the breaker.
    pub(crate) async fn reset_breaker(&self) {
        let send = |refs: &Refs, reply| {
            let _ = refs.breaker.cast(BreakerMsg::Reset { reply });
        };
        if self.ask("a reset", send).await.is_some() {
            self.note(|| "the breaker is reset".to_owned());
        }
    }

    /// Opens the breaker for so long.
    pub(crate) async fn open_breaker(&self, ms: Option<u64>) {
        let until = ms.map(|ms| self.sim.lock().wall().plus_ms(ms));
        let send = |refs: &Refs, reply| {
            let reason = "by hand".to_owned();
            let _ = refs.breaker.cast(BreakerMsg::Open {
                reason,
                until,
                reply,
            });
        };
        if self.ask("an opening", send).await.is_some() {
            self.note(|| format!("the breaker is open for {ms:?} ms"));
        }
    }

    /// Some time after the clock was set, or a process was frozen, budgets are those of the day that the clock tells, and
    /// no retry waits for longer than it was put off.
    pub(crate) async fn follows_the_clock(self) {
        let since = self.sim.lock().times().disturbed;
        // A tick, and a look at the disk.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        let Some(budgets) = self
            .ask_queue("the budgets", |reply| QueueMsg::Budgets {
                most: usize::MAX,
                reply,
            })
            .await
        else {
            return;
        };
        let jobs: Vec<(Waiting, u64)> = {
            let state = self.sim.lock();
            let known = state.ledger.jobs.values();
            known
                .filter_map(|known| {
                    let wait = known.job.next_retry_at?;
                    Some((Waiting::of(&known.job)?, wait.length_ms))
                })
                .collect()
        };
        let asked: Vec<Waiting> = jobs.iter().map(|(waiting, _)| waiting.clone()).collect();
        let message = |reply| QueueMsg::WaitReasons {
            jobs: asked.clone(),
            reply,
        };
        let Some(reasons) = self.ask_queue("reasons", message).await else {
            return;
        };
        let mut state = self.sim.lock();
        let now = state.times();
        if now.disturbed != since || now.awake.since(state.ledger.recovered) < 2_500 {
            return;
        }
        let day = state.history.latest().calendar.day(now.wall);
        let mut wrong = Vec::new();
        for status in budgets.budgets {
            let calendar = &state.history.latest().calendar;
            if status.until != status.period.end(calendar, day) {
                wrong.push(format!("at {} the budget is {status:?}", now.wall));
            }
        }
        for ((waiting, length_ms), reason) in jobs.iter().zip(reasons) {
            if let WaitReason::Delayed { until } = reason
                && until.since(now.wall) > *length_ms
            {
                let id = short(waiting.id);
                wrong.push(format!(
                    "job {id} waits until {until}, more than its {length_ms} ms, at {}",
                    now.wall
                ));
            }
            state.tally.budget_waits += u64::from(matches!(reason, WaitReason::Budget(_)));
        }
        if let Some(what) = wrong.into_iter().next() {
            state.violated(what);
            self.sim.over.notify_one();
        }
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
