//! GLM as a test writes it: an answer and a delay for every call, without a socket.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::model::{Failure, FailureClass, JobId, Usage};
use crate::ports::{Glm, GlmAnswer, GlmCall, GlmFuture, GlmOutcome};

/// What the script says to a call: how long it takes and how it ends.
pub type Line = (Duration, GlmOutcome);

type Script = dyn Fn(usize, &GlmCall) -> Line + Send + Sync;

struct Inner {
    script: Box<Script>,
    calls: Mutex<Vec<JobId>>,
    in_flight: AtomicUsize,
    peak: AtomicUsize,
}

/// A GLM that follows a script. Clones share it.
#[derive(Clone)]
pub struct ScriptedGlm(Arc<Inner>);

/// Counts a call as open until it is dropped, by whatever end.
struct Open(Arc<Inner>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ScriptedGlm {
    /// A GLM that asks `script` for every call, with the call's number from 0.
    #[must_use]
    pub fn new(script: impl Fn(usize, &GlmCall) -> Line + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            script: Box::new(script),
            calls: Mutex::new(Vec::new()),
            in_flight: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        }))
    }

    /// A GLM that answers every call after `delay`.
    #[must_use]
    pub fn answering(delay: Duration) -> Self {
        Self::new(move |_, _| (delay, answer()))
    }

    /// The jobs called so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<JobId> {
        self.calls_lock().clone()
    }

    /// The most calls that were open at once.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.0.peak.load(Ordering::SeqCst)
    }

    fn calls_lock(&self) -> std::sync::MutexGuard<'_, Vec<JobId>> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Glm for ScriptedGlm {
    fn call(&self, call: GlmCall, abort: CancellationToken) -> GlmFuture {
        let number = {
            let mut calls = self.calls_lock();
            calls.push(call.job_id);
            calls.len() - 1
        };
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let open = Open(Arc::clone(&inner));
            let now = inner.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
            inner.peak.fetch_max(now, Ordering::SeqCst);
            let (delay, outcome) = (inner.script)(number, &call);
            let outcome = tokio::select! {
                biased;
                () = abort.cancelled() => GlmOutcome::Aborted,
                () = tokio::time::sleep(delay) => outcome,
            };
            drop(open);
            outcome
        })
    }
}

/// An answer of ten tokens.
#[must_use]
pub fn answer() -> GlmOutcome {
    let body = RawValue::NULL.to_owned();
    GlmOutcome::Answered(GlmAnswer {
        body: Arc::from(body),
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
