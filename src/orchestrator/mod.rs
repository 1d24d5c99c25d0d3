//! The facade: what an embedding process, the API and the command line hold. It hides actor
//! references and restarts: a reply that was lost with its actor is asked for again.

mod events;
mod start;
mod types;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use onelane_actors::breaker::BreakerMsg;
use onelane_actors::cost::Totals;
use onelane_actors::model::{
    BreakerSnapshot, CallOutcome, Cost, Currency, Event, JobId, JobStatus, Nanos, Settings,
    UsageRow, limits,
};
use onelane_actors::policy::transition::{NewJob, Refusal, Transition};
use onelane_actors::ports::{
    CallFilter, CallPage, Clock, Glm, Ids, JobFilter, JobPage, JobRecord, StatusCounts, Store,
    StoreError, UsageFilter, Verdicts,
};
use onelane_actors::queue::{QueueMsg, SubmitError, submitted};
use onelane_actors::store::{CommitReply, CommitRequest, StoreMsg};
use onelane_actors::supervisor::{
    House, Refs, RestartBudget, Supervisor, SupervisorArgs, SupervisorMsg,
};
use onelane_actors::{Faults, Ports};
use ractor::{Actor, ActorRef, RpcReplyPort};
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use crate::config::Loaded;
use crate::error::Error;
pub use events::{Events, Feed};
pub use onelane_actors::model::Submission;
pub use onelane_actors::queue::Submitted;
pub use onelane_actors::supervisor::StopReason;
pub use start::StartError;
pub use types::{JobDetail, LaneStatus, Metrics, Shutdown};

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
    /// How many restarts of actors are borne.
    pub budget: RestartBudget,
    /// Faults that tests inject.
    pub faults: Faults,
}

struct Inner {
    ports: Ports,
    /// The configuration in force. Held for a moment only, never across an await.
    config: RwLock<Loaded>,
    /// One change of the configuration at a time.
    changing: tokio::sync::Mutex<()>,
    settings: watch::Sender<Arc<Settings>>,
    house: watch::Receiver<House>,
    breaker: watch::Receiver<BreakerSnapshot>,
    totals: watch::Receiver<Totals>,
    supervisor: ActorRef<SupervisorMsg>,
    /// Turns true when the supervisor's task has ended: nothing of the lane runs any more.
    gone: watch::Receiver<bool>,
    closed: AtomicBool,
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

/// How long the facade waits for the house to change before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The calls that error rate and response time are told of.
const RECENT_CALLS: usize = 100;

impl Orchestrator {
    /// Starts a lane on these parts and recovers what the store holds.
    pub async fn start_with(parts: Parts) -> Result<Self, StartError> {
        let (settings, settings_rx) = watch::channel(Arc::new(parts.config.settings.clone()));
        let ports = Ports {
            store: parts.store,
            glm: parts.glm,
            clock: parts.clock,
            ids: parts.ids,
            settings: settings_rx,
            events: onelane_actors::Events::new(limits::EVENTS_BUFFERED_MAX),
            faults: parts.faults,
        };
        let (house_tx, house) = watch::channel(House::default());
        let (breaker_tx, breaker) = watch::channel(BreakerSnapshot::default());
        let (totals_tx, totals) = watch::channel(Totals::default());
        let args = SupervisorArgs {
            ports: ports.clone(),
            budget: parts.budget,
            house: house_tx,
            breaker: breaker_tx,
            totals: totals_tx,
        };
        let (supervisor, ended) = Actor::spawn(None, Supervisor, args)
            .await
            .map_err(start_error)?;
        let (gone_tx, gone) = watch::channel(false);
        tokio::spawn(async move {
            let _ = ended.await;
            let _ = gone_tx.send(true);
        });
        Ok(Self {
            inner: Arc::new(Inner {
                ports,
                config: RwLock::new(parts.config),
                changing: tokio::sync::Mutex::new(()),
                settings,
                house,
                breaker,
                totals,
                supervisor,
                gone,
                closed: AtomicBool::new(false),
            }),
        })
    }

    // ---- submitting --------------------------------------------------------------------------

    /// Puts a job on disk; answers once it is durable.
    pub async fn submit(&self, submission: Submission) -> Result<Submitted, Error> {
        let new = self.new_job(submission)?;
        let mut verdicts = self.commit(vec![Transition::Insert(Box::new(new))]).await?;
        Ok(submitted(verdicts.pop())?)
    }

    /// Puts many jobs on disk in few transactions. A job that is refused does not hinder the
    /// others; its place in the answer says why.
    pub async fn submit_many(
        &self,
        submissions: Vec<Submission>,
    ) -> Result<Vec<Result<Submitted, Error>>, Error> {
        if submissions.len() > limits::SUBMIT_MANY_MAX {
            return Err(Error::Invalid {
                field: "jobs".to_owned(),
                problem: format!("must be at most {}", limits::SUBMIT_MANY_MAX),
            });
        }
        let mut answers: Vec<Result<Submitted, Error>> = Vec::with_capacity(submissions.len());
        let mut transitions = Vec::with_capacity(submissions.len());
        let mut places = Vec::with_capacity(submissions.len());
        for submission in submissions {
            match self.new_job(submission) {
                Ok(new) => {
                    places.push(answers.len());
                    transitions.push(Transition::Insert(Box::new(new)));
                    // Overwritten below; stays only if the store answered too little.
                    answers.push(Err(SubmitError::Unknown.into()));
                }
                Err(error) => answers.push(Err(error)),
            }
        }
        let mut places = places.into_iter();
        while !transitions.is_empty() {
            let rest = transitions.split_off(limits::BATCH_TRANSITIONS_MAX.min(transitions.len()));
            let verdicts = self
                .commit(std::mem::replace(&mut transitions, rest))
                .await?;
            for (verdict, place) in verdicts.into_iter().zip(places.by_ref()) {
                if let Some(answer) = answers.get_mut(place) {
                    *answer = submitted(Some(verdict)).map_err(Error::from);
                }
            }
        }
        Ok(answers)
    }

    /// Submits and waits: resolves to the completed job, or to `JobFailed` or `JobCancelled`.
    pub async fn call(&self, submission: Submission) -> Result<JobRecord, Error> {
        let Submitted { job_id, .. } = self.submit(submission).await?;
        let record = self.wait(job_id).await?;
        match (record.job.status, &record.job.error) {
            (JobStatus::Failed, Some(failure)) => Err(Error::JobFailed {
                job_id,
                failure: Box::new(failure.clone()),
            }),
            (JobStatus::Cancelled, _) => Err(Error::JobCancelled(job_id)),
            _ => Ok(record),
        }
    }

    fn new_job(&self, submission: Submission) -> Result<NewJob, Error> {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(Error::Stopped("it is shutting down".to_owned()));
        }
        let now = self.inner.ports.clock.now();
        let id = self.inner.ports.ids.job_id(now);
        let settings = Arc::clone(&self.inner.settings.borrow());
        Ok(submission.into_job(&settings, id, now)?)
    }

    /// Commits through the store actor. Asked again when the actor was restarted before it
    /// answered: a job has its id before it is submitted, so asking again finds it.
    async fn commit(&self, transitions: Vec<Transition>) -> Result<Verdicts, Error> {
        let verdicts = self
            .ask(|refs, port| {
                refs.store.cast(StoreMsg::Commit(CommitRequest {
                    transitions: transitions.clone(),
                    reply: CommitReply::Port(port),
                }))
            })
            .await?;
        Ok(verdicts?)
    }

    // ---- one job -----------------------------------------------------------------------------

    /// Waits until the job has a terminal status and returns it, whichever that is.
    pub async fn wait(&self, id: JobId) -> Result<JobRecord, Error> {
        loop {
            self.ask(|refs, reply| refs.queue.cast(QueueMsg::Wait { job_id: id, reply }))
                .await?;
            let record = self.record(id).await?;
            if record.job.status.is_terminal() {
                return Ok(record);
            }
            // Put back in line between the two questions, or its end is just being stored.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// As `wait`, at most for `limit`; then `WaitTimeout`. The job goes on.
    pub async fn wait_for(&self, id: JobId, limit: Duration) -> Result<JobRecord, Error> {
        tokio::time::timeout(limit, self.wait(id))
            .await
            .unwrap_or(Err(Error::WaitTimeout(id)))
    }

    /// One job with its attempts.
    pub async fn job(&self, id: JobId) -> Result<JobDetail, Error> {
        let (record, attempts) = self
            .read(move |store| {
                let filter = CallFilter {
                    job_id: Some(id),
                    ..CallFilter::default()
                };
                let record = store.job(id)?;
                let mut calls = store.calls(&filter, None, limits::PAGE_ROWS_MAX)?.calls;
                calls.reverse();
                Ok((record, calls))
            })
            .await?;
        Ok(JobDetail {
            record: record.ok_or(Error::NotFound(id))?,
            attempts,
        })
    }

    async fn record(&self, id: JobId) -> Result<JobRecord, Error> {
        self.read(move |store| store.job(id))
            .await?
            .ok_or(Error::NotFound(id))
    }

    /// Cancels a waiting or running job; the open call is closed. Cancelling a cancelled job is
    /// fine; a completed or failed one is `WrongStatus`.
    pub async fn cancel(&self, id: JobId) -> Result<(), Error> {
        let answer = self
            .ask(|refs, reply| refs.queue.cast(QueueMsg::Cancel { job_id: id, reply }))
            .await?;
        match answer {
            Err(Refusal::WrongStatus(JobStatus::Cancelled)) => Ok(()),
            other => other.map_err(|refusal| {
                refused(
                    id,
                    refusal,
                    "only a pending or running job can be cancelled",
                )
            }),
        }
    }

    /// Puts a failed or cancelled job back in line with fresh retries; otherwise `WrongStatus`.
    pub async fn retry(&self, id: JobId) -> Result<(), Error> {
        let asked = AtomicU32::new(0);
        let answer = self
            .ask(|refs, reply| {
                asked.fetch_add(1, Ordering::Relaxed);
                refs.queue.cast(QueueMsg::Requeue { job_id: id, reply })
            })
            .await?;
        // Asked again after a lost reply, it finds its own work done.
        if asked.into_inner() > 1 && matches!(answer, Err(Refusal::WrongStatus(_))) {
            return Ok(());
        }
        answer.map_err(|refusal| {
            refused(id, refusal, "only a failed or cancelled job can be retried")
        })
    }

    /// Changes the priority of a pending job.
    pub async fn reprioritise(&self, id: JobId, priority: i32) -> Result<(), Error> {
        self.ask(|refs, reply| {
            refs.queue.cast(QueueMsg::Reprioritise {
                job_id: id,
                priority,
                reply,
            })
        })
        .await?
        .map_err(|refusal| refused(id, refusal, "only a pending job has a place in line"))
    }

    // ---- lists and figures -------------------------------------------------------------------

    /// A page of jobs, newest first.
    pub async fn jobs(
        &self,
        filter: JobFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<JobPage, Error> {
        let limit = limit.min(limits::PAGE_ROWS_MAX);
        self.read(move |store| store.jobs(&filter, cursor, limit))
            .await
    }

    /// A page of the call log, newest first.
    pub async fn calls(
        &self,
        filter: CallFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<CallPage, Error> {
        let limit = limit.min(limits::PAGE_ROWS_MAX);
        self.read(move |store| store.calls(&filter, cursor, limit))
            .await
    }

    /// Jobs by status.
    pub async fn queue_status(&self) -> Result<StatusCounts, Error> {
        self.read(|store| store.counts()).await
    }

    /// Usage rows (day x model x user), ordered by day, model, user.
    pub async fn usage(&self, filter: UsageFilter) -> Result<Vec<UsageRow>, Error> {
        self.read(move |store| store.usage(&filter)).await
    }

    /// The lane at this moment.
    pub async fn lane(&self) -> Result<LaneStatus, Error> {
        let lane = self
            .ask(|refs, reply| refs.queue.cast(QueueMsg::Snapshot { reply }))
            .await?;
        Ok(LaneStatus {
            active: lane.active,
            hold: lane.state.holds().next().map(|(_, hold)| hold.clone()),
            paused: lane.state.paused.clone(),
            breaker: self.inner.breaker.borrow().clone(),
            in_flight: u32::try_from(lane.in_flight).unwrap_or(u32::MAX),
            max_concurrency: lane.max_concurrency,
            ready: lane.ready as u64,
            waiting: lane.waiting as u64,
            generation: lane.generation,
        })
    }

    /// Figures of the lane.
    pub async fn metrics(&self) -> Result<Metrics, Error> {
        let lane = self.lane().await?;
        let (counts, recent) = self
            .read(|store| {
                let recent = store.calls(&CallFilter::default(), None, RECENT_CALLS)?;
                Ok((store.counts()?, recent.calls))
            })
            .await?;
        let answered: Vec<u64> = recent
            .iter()
            .filter(|call| call.outcome == CallOutcome::Completed)
            .map(|call| call.response_time_ms)
            .collect();
        let share = |part: f64, whole: usize| {
            if whole == 0 { 0.0 } else { part / whole as f64 }
        };
        // What a caller gave up or a crash cut off says nothing of GLM.
        let failed = recent
            .iter()
            .filter(|call| call.outcome == CallOutcome::Failed)
            .count();
        let totals = self.inner.totals.borrow().clone();
        Ok(Metrics {
            lane,
            counts,
            error_rate: share(failed as f64, recent.len()),
            average_response_time_ms: share(answered.iter().sum::<u64>() as f64, answered.len()),
            recent_calls: recent,
            usage: totals.usage,
            cost: self.spent(),
            calls: totals.calls,
        })
    }

    /// Costs since the start of this process, by currency; told also after the lane has stopped. A
    /// hint: the truth is in `usage`.
    #[must_use]
    pub fn spent(&self) -> Vec<Cost> {
        let totals = self.inner.totals.borrow();
        let cost = |(currency, nanos): (&Currency, &Nanos)| Cost {
            nanos: *nanos,
            currency: *currency,
        };
        totals.cost.iter().map(cost).collect()
    }

    // ---- control -----------------------------------------------------------------------------

    /// Stops the lane before its next call; stored, so that it outlives a restart.
    pub async fn pause(&self, reason: Option<String>) -> Result<(), Error> {
        self.ask(|refs, reply| {
            let reason = reason.clone();
            refs.queue.cast(QueueMsg::Pause { reason, reply })
        })
        .await?
        .map_err(|refusal| Error::Stopped(refusal.to_string()))
    }

    /// Ends a pause, every hold, and an open breaker's wait: an operator says that things are well.
    pub async fn resume(&self) -> Result<(), Error> {
        self.ask(|refs, reply| refs.breaker.cast(BreakerMsg::Reset { reply }))
            .await?;
        self.ask(|refs, reply| refs.queue.cast(QueueMsg::Resume { reply }))
            .await?
            .map_err(|refusal| Error::Stopped(refusal.to_string()))
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.inner.settings.borrow())
    }

    /// The configuration in force, with the origin of every value.
    #[must_use]
    pub fn config(&self) -> Loaded {
        self.inner
            .config
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The configuration as the admin API shows it: a `GLMConfig` in camelCase, the key masked.
    #[must_use]
    pub fn config_view(&self) -> Value {
        serde_json::to_value(self.config().view()).unwrap_or_default()
    }

    /// Changes the running configuration: validated, stored, live at once, without a restart.
    /// `patch` is a part of a `GLMConfig`; a `null` takes a stored change back. Answers the new view,
    /// with `shadowed` naming the changed fields that a flag or the environment fixes until the next
    /// start without it. Every bad field is told in one `Invalid`.
    pub async fn set_config(&self, patch: &Value) -> Result<Value, Error> {
        let (lane, patch) = (self.clone(), patch.clone());
        // In a task of its own: a caller that goes away must not leave a change half made, stored
        // but not in force.
        tokio::spawn(async move { lane.change_config(&patch).await })
            .await
            .unwrap_or_else(|_| Err(Error::Stopped("the runtime is ending".to_owned())))
    }

    async fn change_config(&self, patch: &Value) -> Result<Value, Error> {
        let _one_at_a_time = self.inner.changing.lock().await;
        let now = self.inner.ports.clock.now();
        let change = self.config().change(patch, now)?;
        let shadowed = change.shadowed;
        if !change.changed.is_empty() {
            let loaded = change.loaded;
            if let Some(json) = loaded.stored_json() {
                self.commit(vec![Transition::Config(json)]).await?;
            }
            self.inner
                .settings
                .send_replace(Arc::new(loaded.settings.clone()));
            *self
                .inner
                .config
                .write()
                .unwrap_or_else(PoisonError::into_inner) = loaded;
            self.ask(|refs, reply| refs.queue.cast(QueueMsg::Configure { reply }))
                .await?;
            self.inner.ports.events.send(now, || Event::ConfigChanged);
        }
        let mut view = self.config_view();
        if !shadowed.is_empty()
            && let Some(view) = view.as_object_mut()
        {
            let shadowed = serde_json::to_value(shadowed).unwrap_or_default();
            view.insert("shadowed".to_owned(), shadowed);
        }
        Ok(view)
    }

    /// Live events from now on.
    #[must_use]
    pub fn subscribe(&self) -> Events {
        Events::new(self.inner.ports.events.subscribe())
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
        let _ = self.inner.supervisor.cast(SupervisorMsg::Shutdown);
        let mut gone = self.inner.gone.clone();
        let _ = gone.wait_for(|gone| *gone).await;
        Shutdown { drained }
    }

    /// Resolves when the lane has stopped, to the reason: a shutdown, a store that failed, or
    /// actors that kept failing.
    pub async fn stopped(&self) -> StopReason {
        let mut house = self.inner.house.clone();
        let reason = match house.wait_for(|house| house.stopped.is_some()).await {
            Ok(house) => house.stopped.clone(),
            Err(_) => None,
        };
        let mut gone = self.inner.gone.clone();
        let _ = gone.wait_for(|gone| *gone).await;
        reason.unwrap_or_else(|| StopReason::Failed("the supervisor ended".to_owned()))
    }

    // ---- how it asks -------------------------------------------------------------------------

    /// The actors of this moment; waits while they are being restarted.
    async fn refs(&self) -> Result<(u64, Refs), Error> {
        let mut house = self.inner.house.clone();
        let house = house
            .wait_for(|house| house.refs.is_some() || house.stopped.is_some())
            .await
            .map_err(|_| Error::Stopped("its supervisor ended".to_owned()))?;
        match (&house.refs, &house.stopped) {
            (_, Some(reason)) => Err(stopped_error(reason)),
            (Some(refs), None) => Ok((house.generation, refs.clone())),
            (None, None) => Err(Error::Stopped("its supervisor ended".to_owned())),
        }
    }

    /// Sends a message with a reply port and waits; sends it again to the next generation when the
    /// actor failed before it answered. Every message sent so may safely be sent twice.
    async fn ask<R, M>(
        &self,
        send: impl Fn(&Refs, RpcReplyPort<R>) -> Result<(), M>,
    ) -> Result<R, Error> {
        loop {
            let (generation, refs) = self.refs().await?;
            let (port, answer) = oneshot::channel();
            if send(&refs, port.into()).is_ok()
                && let Ok(answer) = answer.await
            {
                return Ok(answer);
            }
            let mut house = self.inner.house.clone();
            let changed =
                house.wait_for(|house| house.generation > generation || house.stopped.is_some());
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
        tokio::task::spawn_blocking(move || read(&*store))
            .await
            .map_err(|_| Error::Stopped("the runtime is ending".to_owned()))?
            .map_err(Error::from)
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

fn refused(job_id: JobId, refusal: Refusal, allowed: &'static str) -> Error {
    match refusal {
        Refusal::NotFound => Error::NotFound(job_id),
        Refusal::WrongStatus(status) => Error::WrongStatus {
            job_id,
            status,
            allowed,
        },
        other => SubmitError::Refused(other).into(),
    }
}
