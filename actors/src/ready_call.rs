//! A call whose request is written before its time, while the one before it is open: the queue lays it ready with its
//! order.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::Ports;
use crate::marks::Marks;
use crate::ports::{CallFuture, GlmCall, Issued};
use crate::relay::Relay;
use onelane_core::model::model_name::is_model;
use onelane_core::model::{Dispatch, PassedHeaders, Settings, Timestamp, limits};
use onelane_core::scheduler::slot::attempt_of;

/// A longer request is not held twice while the call before it is open.
const AHEAD_BYTES_MAX: usize = 256 * 1024;

/// A call that lacks nothing but its moment: its request is written.
pub(crate) struct ReadyCall {
    /// Where it goes, as it is told.
    pub(crate) endpoint: String,
    /// Whether its job bounds its time further than the settings do.
    pub(crate) bounded_by_job: bool,
    pub(crate) relay: Option<Arc<Relay>>,
    pub(crate) call_ids: Arc<OnceLock<PassedHeaders>>,
    pub(crate) marks: Arc<Marks>,
    /// Taken out once, without waiting: whoever only looks at an order may share it all the same.
    pub(crate) way: Mutex<Way>,
}

/// How a call is made.
pub(crate) enum Way {
    Call(CallFuture),
    Task(Box<GlmCall>),
}

impl fmt::Debug for ReadyCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyCall")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl ReadyCall {
    /// The call, made ready before its time. `None`: it is written when it goes out, since what it may take follows from that
    /// moment, it is long, or the transport fails on it, which then is its caller's failure and not the queue's.
    pub(crate) fn ahead(
        ports: &Ports,
        dispatch: &Dispatch,
        settings: &Settings,
        abort: &CancellationToken,
    ) -> Option<Self> {
        let is_long = dispatch.request.len() > AHEAD_BYTES_MAX;
        if is_long || dispatch.job.deadline.is_some() {
            return None;
        }
        let now = ports.clock.now();
        let ready = || Self::new(ports, dispatch, settings, abort, now);
        catch_unwind(AssertUnwindSafe(ready)).ok()
    }

    /// The call as it goes out at this moment.
    pub(crate) fn new(
        ports: &Ports,
        dispatch: &Dispatch,
        settings: &Settings,
        abort: &CancellationToken,
        now: Timestamp,
    ) -> Self {
        let attempt = attempt_of(dispatch);
        let job = &dispatch.job;
        let is_async_model = |model: &String| is_model(model, job.sent_to());
        let wants_task = settings.glm.async_models.iter().any(is_async_model);
        let is_async = job.task.is_some() || (wants_task && job.face.has_tasks());
        let mut timeouts = settings.glm.timeouts;
        if is_async {
            // A task that is given up goes on at GLM and is bought again: it takes as long as GLM takes.
            timeouts.total_ms = timeouts.total_ms.max(limits::TASK_MS_MAX);
        }
        let configured_ms = timeouts.total_ms;
        if let Some(ms) = job.timeout_ms {
            timeouts.total_ms = ms;
        }
        if let Some(deadline) = job.deadline {
            timeouts.total_ms = timeouts.total_ms.min(deadline.since(now).max(1));
        }
        // A task has no pieces.
        let streams = !is_async && dispatch.request.streams();
        let relay = streams.then(|| ports.relays.to_write(job.id));
        let call_ids = Arc::new(OnceLock::new());
        let marks = Arc::new(Marks::default());
        let at = settings.glm.endpoint();
        let endpoint = match is_async {
            true => ports.glm.task_url(&at),
            false => ports.glm.url(&at, job.face),
        };
        let call = GlmCall {
            job_id: job.id,
            attempt,
            request_id: job.request_id(attempt),
            endpoint: at,
            model: job.spelling(&settings.glm).to_owned(),
            request: Arc::clone(&dispatch.request),
            max_tokens: settings.glm.max_tokens,
            temperature: settings.glm.temperature,
            timeouts,
            poll_ms: settings.glm.async_poll_ms,
            streams,
            relay: relay.clone(),
            headers: job.headers.clone(),
            trace: job.trace.clone(),
            call_ids: Arc::clone(&call_ids),
            marks: Arc::clone(&marks),
            reuse: settings.glm.reuse,
            session: job.session_at_glm(settings.gateway.sessions).cloned(),
            issued: Issued::of(Arc::clone(&ports.store)),
        };
        let way = match is_async {
            true => Way::Task(Box::new(call)),
            false => Way::Call(ports.glm.call(call, abort.clone())),
        };
        Self {
            endpoint,
            bounded_by_job: timeouts.total_ms < configured_ms,
            relay,
            call_ids,
            marks,
            way: Mutex::new(way),
        }
    }
}
