//! GLM as a test writes it: an answer and a delay for every call, without a socket, and a record of
//! what was called when.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ports::{
    CallFuture, Glm, GlmAnswer, GlmCall, GlmFuture, GlmOutcome, Issued, TaskFuture, TaskOutcome,
};
use onelane_core::model::{
    AttemptNo, Endpoint, Failure, FailureClass, JobId, Request, RequestId, Reuse, Timeouts, Usage,
    code,
};
use onelane_core::testing::sample;

/// What the script says to a call: how long it takes and how it ends.
pub type Line = (Duration, GlmOutcome);
/// What the script says to a submission of a task: how long it takes, and why it is refused, if it is.
pub type SubmissionLine = (Duration, Result<(), Failure>);

type Script = dyn Fn(usize, &GlmCall) -> Line + Send + Sync;
type SubmissionScript = dyn Fn(usize, &GlmCall) -> SubmissionLine + Send + Sync;

/// What was asked of GLM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// A call.
    Call,
    /// A task was handed over.
    SubmitTask,
    /// A task was fetched; buys nothing.
    FetchTask,
}

/// One thing that was asked of GLM, from its beginning to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallTrace {
    /// For which job.
    pub job_id: JobId,
    /// The model that was asked for.
    pub model: String,
    /// What was asked of GLM.
    pub kind: CallKind,
    /// When it began.
    pub began: Instant,
    /// When it ended, by whatever way; `None` while it is open.
    pub ended: Option<Instant>,
    /// How many were open when it began, itself included.
    pub in_flight: usize,
    /// How many of them were for this model.
    pub in_flight_of_model: usize,
}

/// A task as GLM holds it.
struct Task {
    job_id: JobId,
    account: String,
    done_at: Instant,
    outcome: GlmOutcome,
}

#[derive(Default)]
struct Books {
    /// Calls and submissions so far: what the script is asked by.
    bought: Vec<JobId>,
    traces: Vec<CallTrace>,
    in_flight: BTreeMap<String, usize>,
    /// By id, which rises: in the order they were accepted.
    tasks: BTreeMap<String, Task>,
}

impl Books {
    fn in_flight(&self) -> usize {
        self.in_flight.values().sum()
    }
}

struct Inner {
    script: Box<Script>,
    submissions: Box<SubmissionScript>,
    books: Mutex<Books>,
}

impl Inner {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A GLM that follows a script. Clones share it. Its tasks outlive a lane that is started anew, as
/// GLM's do.
#[derive(Clone)]
pub struct ScriptedGlm(Arc<Inner>);

/// Counts a call as open until it is dropped, by whatever end.
struct Open {
    inner: Arc<Inner>,
    trace: usize,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut books = self.inner.books();
        let Some(trace) = books.traces.get_mut(self.trace) else {
            return;
        };
        trace.ended = Some(Instant::now());
        let model = trace.model.clone();
        if let Some(open) = books.in_flight.get_mut(&model) {
            *open = open.saturating_sub(1);
        }
    }
}

impl ScriptedGlm {
    /// A GLM that asks `script` for every call, with the call's number from 0. A submission is a call,
    /// too: it is accepted at once, and what the script says becomes of the task.
    #[must_use]
    pub fn new(script: impl Fn(usize, &GlmCall) -> Line + Send + Sync + 'static) -> Self {
        Self::with_submissions(script, |_, _| (Duration::ZERO, Ok(())))
    }

    /// The same with a script for submissions; `script` says what becomes of those that are accepted.
    #[must_use]
    pub fn with_submissions(
        script: impl Fn(usize, &GlmCall) -> Line + Send + Sync + 'static,
        submissions: impl Fn(usize, &GlmCall) -> SubmissionLine + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            script: Box::new(script),
            submissions: Box::new(submissions),
            books: Mutex::default(),
        }))
    }

    /// A GLM that answers every call after `delay`.
    #[must_use]
    pub fn answering(delay: Duration) -> Self {
        Self::new(move |_, _| (delay, answer()))
    }

    /// The jobs called so far, in order; submissions are calls, fetching is not.
    #[must_use]
    pub fn calls(&self) -> Vec<JobId> {
        self.0.books().bought.clone()
    }

    /// Everything that was asked, in the order it began.
    #[must_use]
    pub fn traces(&self) -> Vec<CallTrace> {
        self.0.books().traces.clone()
    }

    /// The tasks that were accepted, in order: the job and the task's id.
    #[must_use]
    pub fn accepted(&self) -> Vec<(JobId, String)> {
        let books = self.0.books();
        let tasks = books.tasks.iter();
        tasks.map(|(id, task)| (task.job_id, id.clone())).collect()
    }

    /// Open now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.books().in_flight()
    }

    /// Open now for a model.
    #[must_use]
    pub fn in_flight_of(&self, model: &str) -> usize {
        self.0.books().in_flight.get(model).copied().unwrap_or(0)
    }

    /// The most that were open at once.
    #[must_use]
    pub fn peak(&self) -> usize {
        let books = self.0.books();
        let open = books.traces.iter().map(|trace| trace.in_flight);
        open.max().unwrap_or(0)
    }

    /// The most that were open at once for a model.
    #[must_use]
    pub fn peak_of(&self, model: &str) -> usize {
        let books = self.0.books();
        let of_model = books.traces.iter().filter(|trace| trace.model == model);
        let open = of_model.map(|trace| trace.in_flight_of_model);
        open.max().unwrap_or(0)
    }

    /// The most that were open when something began at `since` or later. What was open before counts
    /// only with something that began beside it: after a limit is lowered, no call may begin above it.
    #[must_use]
    pub fn peak_since(&self, since: Instant) -> usize {
        let books = self.0.books();
        let later = books.traces.iter().filter(|trace| trace.began >= since);
        later.map(|trace| trace.in_flight).max().unwrap_or(0)
    }

    /// Writes down that something begins; gives the number of the call, too.
    fn begin(&self, call: &GlmCall, kind: CallKind) -> (usize, Open) {
        let mut books = self.0.books();
        let number = books.bought.len();
        if kind != CallKind::FetchTask {
            books.bought.push(call.job_id);
        }
        let open = books.in_flight.entry(call.model.clone()).or_default();
        *open += 1;
        let in_flight_of_model = *open;
        let trace = CallTrace {
            job_id: call.job_id,
            model: call.model.clone(),
            kind,
            began: Instant::now(),
            ended: None,
            in_flight: books.in_flight(),
            in_flight_of_model,
        };
        books.traces.push(trace);
        let open = Open {
            inner: Arc::clone(&self.0),
            trace: books.traces.len() - 1,
        };
        (number, open)
    }
}

impl Glm for ScriptedGlm {
    fn call(&self, call: GlmCall, abort: CancellationToken) -> CallFuture {
        let glm = self.clone();
        Box::pin(async move {
            let (number, open) = glm.begin(&call, CallKind::Call);
            let (delay, outcome) = (open.inner.script)(number, &call);
            let outcome = tokio::select! {
                biased;
                () = abort.cancelled() => GlmOutcome::Aborted,
                () = tokio::time::sleep(delay) => outcome,
            };
            drop(open);
            outcome.into()
        })
    }

    fn submit_task(&self, call: GlmCall, abort: CancellationToken) -> TaskFuture {
        let (number, open) = self.begin(&call, CallKind::SubmitTask);
        Box::pin(async move {
            let (delay, accepted) = (open.inner.submissions)(number, &call);
            tokio::select! {
                biased;
                () = abort.cancelled() => return TaskOutcome::Aborted,
                () = tokio::time::sleep(delay) => {}
            }
            if let Err(failure) = accepted {
                return TaskOutcome::Failed(failure, Usage::default());
            }
            let (takes, outcome) = (open.inner.script)(number, &call);
            let id = format!("task-{number:06}");
            let task = Task {
                job_id: call.job_id,
                account: call.endpoint.digest(),
                done_at: Instant::now() + takes,
                outcome,
            };
            open.inner.books().tasks.insert(id.clone(), task);
            TaskOutcome::Accepted(id)
        })
    }

    fn fetch_task(&self, call: GlmCall, task_id: String, abort: CancellationToken) -> GlmFuture {
        let (_, open) = self.begin(&call, CallKind::FetchTask);
        Box::pin(async move {
            let account = call.endpoint.digest();
            let task = {
                let books = open.inner.books();
                let known = books.tasks.get(&task_id);
                known
                    .filter(|task| task.account == account)
                    .map(|task| (task.done_at, task.outcome.clone()))
            };
            let Some((done_at, outcome)) = task else {
                return lost("1233");
            };
            tokio::select! {
                biased;
                () = abort.cancelled() => GlmOutcome::Aborted,
                () = tokio::time::sleep_until(done_at) => outcome,
                () = tokio::time::sleep(Duration::from_millis(call.timeouts.total_ms)) => {
                    lost(code::TIMEOUT_TOTAL)
                }
            }
        })
    }
}

/// A task without an answer, which may have been paid for.
fn lost(code: &str) -> GlmOutcome {
    let failure = Failure {
        maybe_billed: true,
        ..Failure::new(FailureClass::ServerTransient, code, "scripted")
    };
    GlmOutcome::Failed(failure, Usage::default())
}

/// An answer of ten tokens.
#[must_use]
pub fn answer() -> GlmOutcome {
    let body = RawValue::NULL.to_owned();
    GlmOutcome::Answered(GlmAnswer {
        model: None,
        body: body.into(),
        status_code: 200,
        usage: Usage {
            prompt_tokens: 4,
            completion_tokens: 6,
            total_tokens: 10,
            ..Usage::default()
        },
    })
}

/// A failure of this class and code.
#[must_use]
pub fn failed(class: FailureClass, code: &str) -> GlmOutcome {
    GlmOutcome::Failed(Failure::new(class, code, "scripted"), Usage::default())
}

/// The call of an attempt at job `n`, to nowhere and without a key.
#[must_use]
pub fn glm_call(n: u64, attempt: u32, request: Request) -> GlmCall {
    GlmCall {
        job_id: sample::job_id(n),
        attempt: AttemptNo(attempt),
        request_id: RequestId::new(sample::job_id(n), AttemptNo(attempt)),
        endpoint: Endpoint {
            base_url: "http://127.0.0.1:1".to_owned(),
            faces: Default::default(),
            api_key: None,
        },
        model: "glm-4.7".to_owned(),
        request: Arc::new(request),
        max_tokens: None,
        temperature: None,
        timeouts: Timeouts::default(),
        poll_ms: 1_000,
        streams: false,
        relay: None,
        headers: Default::default(),
        trace: None,
        call_ids: Default::default(),
        marks: Default::default(),
        reuse: Reuse::default(),
        session: None,
        issued: Issued::default(),
    }
}

#[cfg(test)]
#[path = "glm_tests.rs"]
mod tests;
