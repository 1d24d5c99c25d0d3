//! GLM as one process sees it: over connections that are gone the moment it dies.

use std::sync::Arc;
use std::time::Duration;

use onelane_actors::ports::{
    CallEnd, CallFuture, Glm, GlmAnswer, GlmCall, GlmFuture, GlmOutcome, TaskFuture, TaskOutcome,
    UnreadAnswer,
};
use onelane_actors::relay::{Relay, RelayEnd, RelayHead};
use onelane_actors::testing::sample;
use onelane_core::model::{Failure, FailureClass, PassedHeaders, Usage, code};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::faults::{Place, Planted};
use crate::server::{End, Kind, Plan};
use crate::sim::{Sim, short};

/// GLM, over the connections of one process.
pub(crate) struct Wire {
    sim: Arc<Sim>,
    process: u64,
}

/// An open connection: however it ends, GLM sees that it does.
struct Connection {
    sim: Arc<Sim>,
    process: u64,
    number: usize,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut state = self.sim.lock();
        // When a process dies all its connections are closed at once.
        if state.process == self.process && state.alive {
            let now = state.times().glm;
            state.server.cut(self.number, now);
        }
    }
}

impl Connection {
    /// The call ends as it was to.
    fn ends(&self) {
        let mut state = self.sim.lock();
        let now = state.times().glm;
        state.server.end(self.number, now);
    }
}

impl Wire {
    pub(crate) fn new(sim: &Arc<Sim>, process: u64) -> Self {
        Self {
            sim: Arc::clone(sim),
            process,
        }
    }

    fn open(&self, call: &GlmCall, kind: Kind) -> Option<(Connection, Plan)> {
        let (number, plan) = self.sim.begin(self.process, call, kind)?;
        let connection = Connection {
            sim: Arc::clone(&self.sim),
            process: self.process,
            number,
        };
        Some((connection, plan))
    }

    fn again(&self) -> Self {
        Self::new(&self.sim, self.process)
    }

    /// What a dead process never hears.
    async fn heard<T>(&self, outcome: T) -> T {
        self.sim.at(Place::CallEnded);
        if !self.sim.lock().is_alive(self.process) {
            std::future::pending::<()>().await;
        }
        outcome
    }
}

/// What comes of the call of this number.
fn outcome_of(number: usize, end: End) -> GlmOutcome {
    match end {
        End::Answer(usage) => GlmOutcome::Answered(GlmAnswer {
            body: sample::answer(number as u64),
            status_code: 200,
            usage,
            model: None,
        }),
        End::Fail(failure, usage) => GlmOutcome::Failed(failure, usage),
        End::Panic => std::panic::resume_unwind(Box::new("simulated")),
    }
}

fn too_late() -> Failure {
    let class = FailureClass::ServerTransient;
    let mut failure = Failure::new(class, code::TIMEOUT_TOTAL, "it takes too long");
    failure.maybe_billed = true;
    failure
}

/// Ends the telling of an answer that is not whole, as the adapter does.
fn is_cut(relay: &Relay, failure: &Failure) {
    if relay.is_open() {
        relay.note_said("some words of it".to_owned());
        relay.close(RelayEnd::Cut(failure.clone()));
    }
}

impl Wire {
    /// The call as it goes on at GLM.
    async fn works(&self, call: &GlmCall, connection: &Connection, plan: Plan) -> GlmOutcome {
        let number = connection.number;
        let Some(relay) = call.relay.as_ref().filter(|_| !plan.pieces.is_empty()) else {
            sleep(Duration::from_millis(plan.after_ms)).await;
            connection.ends();
            return outcome_of(number, plan.end);
        };
        let total = Duration::from_millis(call.timeouts.total_ms);
        let told = self.tells(call, relay, number, &plan);
        if tokio::time::timeout(total, told).await.is_err() {
            is_cut(relay, &too_late());
            return GlmOutcome::Failed(too_late(), Usage::default());
        }
        connection.ends();
        match plan.end {
            // What was told in part comes without a word of its tokens.
            End::Fail(failure, _) => {
                is_cut(relay, &failure);
                GlmOutcome::Failed(failure, Usage::default())
            }
            end => {
                relay.close(RelayEnd::Whole);
                outcome_of(number, end)
            }
        }
    }

    /// The answer comes in pieces.
    async fn tells(&self, call: &GlmCall, relay: &Relay, number: usize, plan: &Plan) {
        let mut patience = Duration::from_millis(call.timeouts.stall_ms);
        let step_ms = plan.after_ms / plan.pieces.len() as u64;
        for (n, piece) in plan.pieces.iter().enumerate() {
            sleep(Duration::from_millis(step_ms)).await;
            if n == 0 {
                relay.open(RelayHead {
                    attempt: call.attempt,
                    request_id: call.request_id.clone(),
                    model: call.model.clone(),
                    media_type: "text/event-stream".to_owned(),
                    call_ids: PassedHeaders::default(),
                });
                self.sim.lock().is_told(number);
            }
            let twice = n == 1 && self.sim.lock().planted == Planted::TellsTwice;
            for _ in 0..=u32::from(twice) {
                let before = patience;
                relay.push(piece.clone(), &mut patience).await;
                self.sim.lock().tally.waited_for_readers += u64::from(patience != before);
            }
        }
    }
}

impl Glm for Wire {
    fn call(&self, call: GlmCall, abort: CancellationToken) -> CallFuture {
        let wire = self.again();
        Box::pin(async move {
            let Some((connection, plan)) = wire.open(&call, Kind::Call) else {
                return std::future::pending().await;
            };
            let outcome = tokio::select! {
                biased;
                () = abort.cancelled() => {
                    if let Some(relay) = call.relay.as_ref().filter(|relay| relay.is_open()) {
                        relay.note_said("some words of it".to_owned());
                    }
                    return GlmOutcome::Aborted.into();
                }
                outcome = wire.works(&call, &connection, plan) => outcome,
            };
            drop(connection);
            match wire.heard(outcome).await {
                GlmOutcome::Answered(answer) => CallEnd::Answer(UnreadAnswer {
                    model: answer.model.clone(),
                    read: Box::new(move || GlmOutcome::Answered(answer)),
                }),
                other => other.into(),
            }
        })
    }

    fn submit_task(&self, call: GlmCall, abort: CancellationToken) -> TaskFuture {
        const TAKEN_AFTER_MS: u64 = 40;
        let wire = self.again();
        Box::pin(async move {
            let Some((connection, plan)) = wire.open(&call, Kind::Submission) else {
                return std::future::pending().await;
            };
            let is_taken = matches!(plan.end, End::Answer(_));
            let after_ms = if is_taken {
                TAKEN_AFTER_MS
            } else {
                plan.after_ms
            };
            tokio::select! {
                biased;
                () = abort.cancelled() => return TaskOutcome::Aborted,
                () = sleep(Duration::from_millis(after_ms)) => {}
            }
            let outcome = match plan.end {
                End::Answer(_) => {
                    let mut state = wire.sim.lock();
                    let now = state.times().glm;
                    TaskOutcome::Accepted(state.server.accept(connection.number, now))
                }
                end => {
                    connection.ends();
                    match outcome_of(connection.number, end) {
                        GlmOutcome::Failed(failure, usage) => TaskOutcome::Failed(failure, usage),
                        _ => TaskOutcome::Aborted,
                    }
                }
            };
            drop(connection);
            wire.heard(outcome).await
        })
    }

    fn fetch_task(&self, call: GlmCall, task_id: String, abort: CancellationToken) -> GlmFuture {
        let wire = self.again();
        Box::pin(async move {
            let found = {
                let mut state = wire.sim.lock();
                state.server.fetches += 1;
                state.tally.fetches += 1;
                let who = short(call.job_id);
                state.detail(|| format!("glm: {task_id} of job {who} is fetched"));
                state.server.tasks.get(&task_id).cloned()
            };
            let key = call.endpoint.api_key.as_ref().map(|key| key.expose());
            let Some(task) = found.filter(|task| Some(task.key.as_str()) == key) else {
                let who = short(call.job_id);
                wire.sim.violated(format!(
                    "{task_id} of job {who} is asked for with another key"
                ));
                return std::future::pending().await;
            };
            let mut waited_ms = 0;
            loop {
                if waited_ms >= call.timeouts.total_ms {
                    return wire
                        .heard(GlmOutcome::Failed(too_late(), Usage::default()))
                        .await;
                }
                let step_ms = call.poll_ms.min(call.timeouts.total_ms - waited_ms);
                tokio::select! {
                    biased;
                    () = abort.cancelled() => {
                        wire.sim.lock().detail(|| format!("glm: {task_id} is let go"));
                        return GlmOutcome::Aborted;
                    }
                    () = sleep(Duration::from_millis(step_ms)) => waited_ms += step_ms,
                }
                let now = wire.sim.lock().times().glm;
                if now >= task.ready {
                    return wire.heard(outcome_of(task.number, task.end)).await;
                }
            }
        })
    }
}
