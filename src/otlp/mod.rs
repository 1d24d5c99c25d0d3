//! OpenTelemetry, feature `otlp`: what became of jobs as spans, and the lines of the log, for a collector that takes OTLP
//! over HTTP.
//!
//! Nothing of it is on a job's way. The ids of a job's spans follow from its own id and from the context that its row
//! keeps (`place`), so a call can name its span before there is one, and a restart changes none. `follow` hears of
//! facts that are on disk as any subscriber does, reads their rows, and `spans` makes spans of these; `stops` knows
//! what stopped the lane meanwhile. `export` sends: in batches, of a queue with a bound, and counts what does not
//! arrive. `logs` does the same for the lines of the log.

mod export;
mod follow;
mod logs;
mod place;
mod settings;
mod spans;
mod stops;

use std::sync::Arc;
use std::time::Duration;

use onelane_actors::Ports;
use onelane_actors::meters::{Meters, table};
use onelane_actors::ports::{GlmCall, Store, StoreError};
use onelane_core::model::{BreakerSnapshot, JobId, SchedulerState, TraceContext, TraceOrigin};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::glm::PassOn;
pub use export::OtlpError;
use export::Outlet;
use follow::Follower;
pub use logs::{LogExport, log_export};
use place::{Place, Span, sampler_of};
pub(crate) use settings::{IS_BUILT, VARIABLES};
pub use settings::{OtlpSection, Propagate, Sampler};

/// What the traces of a lane are made by.
pub(crate) struct Traces {
    sampler: opentelemetry_sdk::trace::Sampler,
    tells_receivers: bool,
    outlet: Arc<Outlet>,
    flush: Duration,
    stop: CancellationToken,
    follower: Mutex<Option<JoinHandle<()>>>,
    /// Log records find the traces of their jobs by it.
    _lookup: Arc<logs::Lookup>,
}

/// What there is to export as long as the section says where to.
pub(crate) fn begin(section: &OtlpSection) -> Result<Option<Arc<Outlet>>, OtlpError> {
    if section.endpoint.is_none() || !section.traces {
        return Ok(None);
    }
    Outlet::new(section).map(|outlet| Some(Arc::new(outlet)))
}

impl Traces {
    /// Begins to export the traces of a lane on these ports, if the section wants that.
    pub(crate) fn start(
        section: &OtlpSection,
        ports: &Ports,
        state: watch::Receiver<SchedulerState>,
        breaker: watch::Receiver<BreakerSnapshot>,
    ) -> Result<Option<Self>, OtlpError> {
        let Some(outlet) = begin(section)? else {
            return Ok(None);
        };
        let sampler = sampler_of(section);
        let stop = CancellationToken::new();
        let follower = Follower {
            store: Arc::clone(&ports.store),
            settings: ports.settings.clone(),
            outlet: Arc::clone(&outlet),
            sampler: sampler.clone(),
            state,
            breaker,
        };
        let follower = tokio::spawn(follower.run(ports.events.subscribe(), stop.clone()));
        Ok(Some(Self {
            _lookup: logs::Lookup::announce(Arc::clone(&ports.store), sampler.clone()),
            sampler,
            tells_receivers: section.propagate != Propagate::None,
            outlet,
            flush: Duration::from_millis(section.flush_ms),
            stop,
            follower: Mutex::new(Some(follower)),
        }))
    }

    /// The span that the receiver of a webhook may go on from: the submission of the job that it is told of.
    pub(crate) fn span_for_receiver(
        &self,
        store: &dyn Store,
        id: JobId,
    ) -> Result<Option<TraceContext>, StoreError> {
        if !self.tells_receivers {
            return Ok(None);
        }
        let job = store.job_alone(id)?;
        Ok(job.map(|job| {
            Place::of(job.id, job.trace.as_deref(), &self.sampler).context(Span::Submit)
        }))
    }

    /// Sets what is counted of the export.
    pub(crate) fn sample(&self, meters: &Meters) {
        let counts = self.outlet.counts();
        meters.reach(&table::OTLP_SENT, &["traces"], counts.sent());
        meters.reach(&table::OTLP_DROPPED, &["traces"], counts.dropped());
    }

    /// Lets what happened until now be told and sent, for a moment.
    pub(crate) async fn finish(&self) {
        self.stop.cancel();
        let follower = self.follower.lock().await.take();
        if let Some(follower) = follower {
            let abort = follower.abort_handle();
            if tokio::time::timeout(self.flush, follower).await.is_err() {
                abort.abort();
            }
        }
        let (outlet, flush) = (Arc::clone(&self.outlet), self.flush);
        let flushed = tokio::task::spawn_blocking(move || outlet.end(flush));
        // It has the same bound of its own.
        let _ = flushed.await;
    }
}

/// Sets what is counted of the export of the log, which is the process's.
pub(crate) fn sample_logs(meters: &Meters) {
    if let Some(counts) = logs::counts() {
        meters.reach(&table::OTLP_SENT, &["logs"], counts.sent());
        meters.reach(&table::OTLP_DROPPED, &["logs"], counts.dropped());
    }
}

/// What GLM is told of the trace, if the section wants that.
pub(crate) fn pass_on(section: &OtlpSection) -> Option<Arc<PassOn>> {
    let is_on = section.endpoint.is_some() && section.traces;
    if !is_on || section.propagate != Propagate::All {
        return None;
    }
    let sampler = sampler_of(section);
    Some(Arc::new(move |call: &GlmCall| {
        let origin: Option<&TraceOrigin> = call.trace.as_deref();
        let place = Place::of(call.job_id, origin, &sampler);
        Some(place.context(Span::Call(call.attempt)))
    }))
}
