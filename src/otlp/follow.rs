//! Hears of facts that are on disk, as any subscriber does, and tells them as spans. Whoever makes the facts waits for
//! nothing: who is too slow misses some, and they are counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use onelane_actors::Heard;
use onelane_actors::ports::{CallFilter, Store, StoreError};
use onelane_core::model::{
    AttemptNo, BreakerSnapshot, CallRecord, Event, Job, JobId, SchedulerState, Settings, Timestamp,
};
use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::trace::{Sampler, SpanData};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::export::Outlet;
use super::place::{Place, Span};
use super::spans::{Teller, Waited, scope};
use super::stops::Stops;

/// Events that are taken up at once.
const AT_ONCE_MAX: usize = 256;
/// Jobs of which it is remembered when an operator put them back in line.
const REQUEUED_MAX: usize = 1_024;
/// Rows of the call log that are read to find an attempt and the one before.
const CALLS_READ: usize = 32;

/// What follows the facts.
pub(super) struct Follower {
    pub(super) store: Arc<dyn Store>,
    pub(super) settings: watch::Receiver<Arc<Settings>>,
    pub(super) outlet: Arc<Outlet>,
    pub(super) sampler: Sampler,
    pub(super) state: watch::Receiver<SchedulerState>,
    pub(super) breaker: watch::Receiver<BreakerSnapshot>,
}

/// What is remembered between facts.
struct Memory {
    stops: Stops,
    /// When jobs were put back in line by hand: until then they waited for nothing.
    requeued: BTreeMap<JobId, Timestamp>,
    scope: InstrumentationScope,
}

impl Follower {
    /// Tells spans until the lane is gone or told to `stop`, and then what happened until that moment.
    pub(super) async fn run(self, mut events: broadcast::Receiver<Heard>, stop: CancellationToken) {
        let (mut state, this) = (self.state.clone(), Arc::new(self));
        let mut memory: Option<Memory> = None;
        loop {
            let first = tokio::select! {
                biased;
                // What was in force when the lane began, before anybody changes it.
                Ok(()) = state.changed(), if memory.is_none() => {
                    memory = Some(this.begin());
                    continue;
                }
                first = events.recv() => match first {
                    Ok(heard) => Some(heard),
                    Err(RecvError::Lagged(missed)) => {
                        this.outlet.counts().drop_some(missed);
                        continue;
                    }
                    Err(RecvError::Closed) => return,
                },
                () = stop.cancelled() => None,
            };
            let mut heard: Vec<Heard> = first.into_iter().collect();
            let is_stopping = heard.is_empty();
            while heard.len() < AT_ONCE_MAX {
                match events.try_recv() {
                    Ok(more) => heard.push(more),
                    Err(TryRecvError::Lagged(missed)) => this.outlet.counts().drop_some(missed),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            if is_stopping && heard.is_empty() {
                return;
            }
            let known = memory.take().unwrap_or_else(|| this.begin());
            let teller = Arc::clone(&this);
            // Reading rows waits for the disk.
            let telling = tokio::task::spawn_blocking(move || teller.tell_all(&heard, known));
            match telling.await {
                Ok(known) => memory = Some(known),
                // The runtime is ending, or a row broke the teller: what it knew of the lane is read anew.
                Err(_) => this.outlet.counts().drop_some(1),
            }
        }
    }

    fn begin(&self) -> Memory {
        Memory {
            stops: Stops::in_force(&self.state.borrow(), &self.breaker.borrow()),
            requeued: BTreeMap::new(),
            scope: scope(),
        }
    }

    fn tell_all(&self, heard: &[Heard], mut memory: Memory) -> Memory {
        for Heard { at, event, .. } in heard {
            memory.stops.hear(event, *at);
            match self.spans(event, *at, &mut memory) {
                Ok(spans) => spans.into_iter().for_each(|span| self.outlet.send(span)),
                Err(_) => self.outlet.counts().drop_some(1),
            }
        }
        memory
    }

    /// The spans that have ended with a fact.
    fn spans(
        &self,
        event: &Event,
        at: Timestamp,
        memory: &mut Memory,
    ) -> Result<Vec<SpanData>, StoreError> {
        let (id, attempt) = match event {
            Event::JobSubmitted { job_id, .. } => (*job_id, None),
            Event::JobCompleted {
                job_id, attempt, ..
            }
            | Event::JobRetrying {
                job_id, attempt, ..
            }
            | Event::JobSetAside { job_id, attempt }
            | Event::JobFailed {
                job_id, attempt, ..
            } => (*job_id, Some(*attempt)),
            // One that is cancelled while it waits has made fewer attempts, or this one earlier.
            Event::JobCancelled { job_id } => (*job_id, Some(AttemptNo(u32::MAX))),
            Event::JobRequeued { job_id } => {
                if memory.requeued.len() == REQUEUED_MAX {
                    memory.requeued.pop_first();
                }
                memory.requeued.insert(*job_id, at);
                return Ok(Vec::new());
            }
            _ => return Ok(Vec::new()),
        };
        let Some(job) = self.store.job_alone(id)? else {
            return Ok(Vec::new());
        };
        let place = Place::of(id, job.trace.as_deref(), &self.sampler);
        if !place.is_sampled() {
            return Ok(Vec::new());
        }
        let settings = Arc::clone(&self.settings.borrow());
        let teller = Teller {
            job: &job,
            place: &place,
            stops: &memory.stops,
            settings: &settings,
            scope: &memory.scope,
        };
        let Some(attempt) = attempt else {
            return Ok(vec![teller.submitted(at)]);
        };
        let (call, before) = self.calls(id, attempt)?;
        let requeued = memory.requeued.get(&id).copied();
        let since = |before: Option<&CallRecord>| {
            let since = before.map_or(job.created_at, |call| call.ended_at);
            requeued.map_or(since, |at| at.max(since))
        };
        let ended_waiting = |call: &CallRecord| ended_after(&job, call, event);
        Ok(match call {
            Some(call) if !ended_waiting(&call) => {
                let waited = Waited {
                    span: Span::Wait(call.attempt),
                    from: since(before.as_ref()).min(call.started_at),
                    to: call.started_at,
                    after: before.as_ref(),
                    before: Some(&call),
                };
                vec![
                    teller.waited(&waited),
                    teller.attempt(&call),
                    teller.call(&call),
                ]
            }
            // It ended while it waited for its next attempt.
            last => {
                let ended = job.processed_at.unwrap_or(at);
                let waited = Waited {
                    span: Span::LastWait(ended),
                    from: since(last.as_ref()),
                    to: ended,
                    after: last.as_ref(),
                    before: None,
                };
                vec![teller.waited(&waited)]
            }
        })
    }

    /// The attempt of this number, or the last before it, and the one before that.
    fn calls(
        &self,
        id: JobId,
        attempt: AttemptNo,
    ) -> Result<(Option<CallRecord>, Option<CallRecord>), StoreError> {
        let filter = CallFilter {
            job_id: Some(id),
            ..CallFilter::default()
        };
        let mut cursor = None;
        let mut found: Vec<CallRecord> = Vec::new();
        loop {
            let page = self.store.calls(&filter, cursor, CALLS_READ)?;
            let until = page
                .calls
                .into_iter()
                .filter(|call| call.attempt <= attempt);
            found.extend(until);
            cursor = page.cursor;
            if found.len() >= 2 || cursor.is_none() {
                break;
            }
        }
        let mut found = found.into_iter();
        Ok((found.next(), found.next()))
    }
}

/// Whether a job ended while it waited, after this attempt had ended: an attempt that ends its job ends with it.
fn ended_after(job: &Job, call: &CallRecord, event: &Event) -> bool {
    match event {
        Event::JobFailed { .. } | Event::JobCancelled { .. } => {
            job.processed_at.is_some_and(|at| at != call.ended_at)
        }
        _ => false,
    }
}
