//! Making one call: what a caller does with an order, from the settings that it was sent with to what came of it.

use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use ractor::rpc::CallResult;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Ports;
use crate::marks::{Marks, millis};
use crate::ports::{CallEnd, GlmCall, GlmOutcome, StoreError, TaskOutcome};
use crate::protocol::{CommitReply, CommitRequest, RunOrder, StoreMsg};
use crate::ready_call::{ReadyCall, Way};
use crate::relay::Relay;
use crate::runtime::Runtime;
use onelane_core::judge::conclude::{Finished, is_plain};
use onelane_core::model::{
    AsyncTask, AttemptPhase, Dispatch, Job, Parts, PassedHeaders, Sessions, Settings, Timestamp,
    Transition, Usage,
};
use onelane_core::money::estimate;
use onelane_core::scheduler::slot::attempt_of;

/// The parts with those before the call was sent: what its attempt waited for since it was put on record.
fn before_it(job: &Job, sent: Timestamp, parts: Parts) -> Parts {
    let waited = job.open.map(|open| (open.phase, sent.since(open.at)));
    match waited {
        // A task that is fetched was sent long ago.
        _ if job.task.is_some() => parts,
        Some((AttemptPhase::Staged, ms)) => Parts {
            staged_ms: Some(ms),
            ..parts
        },
        Some((AttemptPhase::Started, ms)) => Parts {
            commit_ms: Some(ms),
            ..parts
        },
        None => parts,
    }
}

/// The relay of an open call, which ends with the call, however that ends.
struct Told(Option<Arc<Relay>>);

impl Told {
    /// Answers the relay, if somebody may have read of it.
    fn end(mut self) -> Option<Arc<Relay>> {
        let relay = self.0.take().filter(|relay| relay.is_open());
        relay.inspect(|relay| relay.give_up())
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if let Some(relay) = &self.0 {
            relay.give_up();
        }
    }
}

/// Between two tries to put a task on a disk that is full.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// A call that is over, as far as the next one has to know.
pub(crate) struct Ended {
    pub(crate) dispatch: Arc<Dispatch>,
    settings: Arc<Settings>,
    endpoint: String,
    bounded_by_job: bool,
    /// The relay, if somebody may have read of it.
    told: Option<Arc<Relay>>,
    estimate: Option<Usage>,
    call_ids: Arc<OnceLock<PassedHeaders>>,
    is_async: bool,
    task: Option<AsyncTask>,
    started_at: Timestamp,
    begun: Instant,
    ended_at: Instant,
    marks: Arc<Marks>,
    end: CallEnd,
}

impl Ended {
    /// Whether it changes nothing that goes next: an answer of the model that was asked, in one call.
    pub(crate) fn is_plain_success(&self) -> bool {
        let named = match &self.end {
            CallEnd::Outcome(GlmOutcome::Answered(answer)) => &answer.model,
            CallEnd::Answer(answer) => &answer.model,
            CallEnd::Outcome(_) => return false,
        };
        let sent_to = self.dispatch.job.sent_to();
        is_plain(named.as_deref(), self.task.as_ref(), sent_to)
    }
}

/// What calls are made with.
pub(crate) struct CallMaker {
    pub(crate) ports: Ports,
    /// Where the store of the moment is found: a task's id must be on disk before its answer is waited
    /// for, whichever actors were restarted meanwhile.
    pub(crate) runtime: watch::Receiver<Runtime>,
}

impl CallMaker {
    /// Makes the call.
    pub(crate) async fn run(&self, order: RunOrder) -> Ended {
        let RunOrder {
            dispatch,
            settings,
            abort,
            ready,
            out: _out,
        } = order;
        let job = &dispatch.job;
        let now = self.ports.clock.now();
        let ready =
            ready.unwrap_or_else(|| ReadyCall::new(&self.ports, &dispatch, &settings, &abort, now));
        let ReadyCall {
            endpoint,
            bounded_by_job,
            relay,
            call_ids,
            marks,
            way,
        } = ready;
        let way = way.into_inner().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        if let Some(relay) = &relay {
            relay.begins(begun);
        }
        let told = Told(relay);
        let is_async = matches!(way, Way::Task(_));
        let (end, task) = if abort.is_cancelled() {
            // A task was handed over by an earlier caller.
            let outcome = match &job.task {
                Some(_) => GlmOutcome::Aborted,
                None => GlmOutcome::NotSent,
            };
            (outcome.into(), job.task.clone())
        } else {
            match way {
                Way::Task(call) => {
                    let (outcome, task) = self.run_as_task(job, *call, abort).await;
                    (CallEnd::Outcome(outcome), task)
                }
                Way::Call(call) => (call.await, None),
            }
        };
        let ended_at = Instant::now();
        // Who has read its stream may ask on at once.
        if let CallEnd::Outcome(outcome) = &end {
            self.note_session(job, &settings, outcome);
        }
        let told = told.end();
        let estimate = match &told {
            Some(relay) => self.estimate(&dispatch, relay).await,
            None => None,
        };
        Ended {
            dispatch,
            settings,
            endpoint,
            bounded_by_job,
            told,
            estimate,
            call_ids,
            is_async,
            task,
            started_at: now,
            begun,
            ended_at,
            marks,
            end,
        }
    }

    /// Reads the rest of what a call ended in, and tells it whole.
    pub(crate) fn finish(&self, ended: Ended) -> Finished {
        let Ended {
            dispatch,
            begun,
            marks,
            told,
            ..
        } = ended;
        let job = &dispatch.job;
        let outcome = match ended.end {
            CallEnd::Outcome(outcome) => outcome,
            CallEnd::Answer(answer) => {
                let outcome = (answer.read)();
                self.note_session(job, &ended.settings, &outcome);
                outcome
            }
        };
        let seen = match ended.is_async {
            // Several calls are made for a task: no moment of one of them is that of the answer.
            true => Parts::default(),
            false => marks.parts(begun),
        };
        let parts = Parts {
            first_token_ms: told.as_ref().and_then(|relay| relay.first_token_ms()),
            ..seen
        };
        let delivered = told.is_some();
        // A quick answer may end before its client, whose task has to be woken for it, began to read.
        if let Some(relay) = told.filter(|relay| job.bound_to.is_none() || !relay.is_read()) {
            self.ports.relays.keep(job.id, relay);
        }
        Finished {
            job_id: job.id,
            attempt: attempt_of(&dispatch),
            endpoint: ended.endpoint,
            settings: ended.settings,
            bounded_by_job: ended.bounded_by_job,
            delivered,
            estimate: ended.estimate,
            call_ids: ended.call_ids.get().cloned().unwrap_or_default(),
            task: ended.task,
            started_at: ended.started_at,
            response_time_ms: millis(begun, ended.ended_at),
            parts: before_it(job, ended.started_at, parts),
            outcome: Arc::new(outcome),
        }
    }

    /// Notes of which session an answer is that another request may go on from.
    fn note_session(&self, job: &Job, settings: &Settings, outcome: &GlmOutcome) {
        if let GlmOutcome::Answered(answer) = outcome
            && settings.gateway.sessions == Sessions::Derive
        {
            self.ports.conversations.note(job, answer);
        }
    }

    /// What a call comes to that ended in the middle of its streamed answer, by our own count.
    async fn estimate(&self, dispatch: &Dispatch, relay: &Arc<Relay>) -> Option<Usage> {
        relay.said()?;
        let (request, relay) = (Arc::clone(&dispatch.request), Arc::clone(relay));
        let model = dispatch.job.sent_to().to_owned();
        let tokens = self.ports.tokens.clone();
        let count = move || {
            let said = relay.said().unwrap_or_default();
            match &tokens {
                Some(tokens) => estimate::delivered(&request, &model, said, &**tokens),
                None => estimate::delivered(&request, &model, said, &estimate::Rough),
            }
        };
        self.ports.fault_points.off_the_workers(count).await.ok()
    }

    /// Hands the call over as a task, or takes up the one that an earlier caller handed over, and waits
    /// for its answer. Answers the task that GLM holds it as, too.
    async fn run_as_task(
        &self,
        job: &Job,
        mut call: GlmCall,
        abort: CancellationToken,
    ) -> (GlmOutcome, Option<AsyncTask>) {
        let begun = Instant::now();
        let account = call.endpoint.digest();
        let task = match job.task.clone() {
            // The key was changed while the task waited for its slot: no key can fetch it any more, and
            // it was maybe billed.
            Some(task) if task.account != account => return (GlmOutcome::Aborted, None),
            Some(task) => task,
            None => match self
                .ports
                .glm
                .submit_task(call.clone(), abort.clone())
                .await
            {
                TaskOutcome::Accepted(id) => {
                    let task = AsyncTask {
                        id,
                        account,
                        left_open: false,
                    };
                    let is_stored = self.store_task(&call, task.clone(), &abort).await;
                    // Stored or about to be: GLM holds it, and a shutdown must not give it up.
                    if !is_stored {
                        return (GlmOutcome::Aborted, Some(task));
                    }
                    task
                }
                TaskOutcome::Failed(failure, usage) => {
                    return (GlmOutcome::Failed(failure, usage), None);
                }
                TaskOutcome::Aborted => return (GlmOutcome::Aborted, None),
                TaskOutcome::NotSent => return (GlmOutcome::NotSent, None),
            },
        };
        let spent_ms = millis(begun, Instant::now());
        call.timeouts.total_ms = call.timeouts.total_ms.saturating_sub(spent_ms).max(1);
        let outcome = self
            .ports
            .glm
            .fetch_task(call, task.id.clone(), abort)
            .await;
        (outcome, Some(task))
    }

    /// Puts a task on disk, asking again while the supervisor restarts the actors, and while there is no room on the disk.
    /// `false`: the call was to be closed meanwhile.
    async fn store_task(&self, call: &GlmCall, task: AsyncTask, abort: &CancellationToken) -> bool {
        let note = Transition::Task {
            job_id: call.job_id,
            attempt: call.attempt,
            task,
        };
        let mut runtime = self.runtime.clone();
        let stored = async {
            loop {
                let (refs, stopped) = {
                    let runtime = runtime.borrow_and_update();
                    (runtime.refs.clone(), runtime.stopped.is_some())
                };
                if stopped {
                    return false;
                }
                if let Some(refs) = refs {
                    let request = |port| {
                        StoreMsg::Commit(CommitRequest {
                            transitions: vec![note.clone()],
                            reply: CommitReply::Port(port),
                        })
                    };
                    match refs.store.call(request, None).await {
                        Ok(CallResult::Success(Ok(_))) => return true,
                        // Nobody is restarted for that: the store waits for room.
                        Ok(CallResult::Success(Err(StoreError::Full { .. }))) => {
                            tokio::time::sleep(ROOM_WAIT).await;
                            continue;
                        }
                        _ => {}
                    }
                }
                if runtime.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::select! {
            biased;
            () = abort.cancelled() => false,
            stored = stored => stored,
        }
    }
}
