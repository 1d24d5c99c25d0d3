//! In the place of OpenTelemetry where the feature `otlp` is not built: nothing is exported, taken or passed on.

mod settings;

use std::sync::Arc;

use onelane_actors::Ports;
use onelane_actors::meters::Meters;
use onelane_actors::ports::{Store, StoreError};
use onelane_core::model::{BreakerSnapshot, JobId, SchedulerState, TraceContext};
use tokio::sync::watch;
use tracing_subscriber::layer::Identity;

use crate::glm::PassOn;
pub(crate) use settings::{IS_BUILT, VARIABLES};
pub use settings::{OtlpSection, Propagate, Sampler};

/// There are none.
pub(crate) enum Traces {}

/// There is nothing that could fail.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {}

impl Traces {
    pub(crate) fn start(
        _: &OtlpSection,
        _: &Ports,
        _: watch::Receiver<SchedulerState>,
        _: watch::Receiver<BreakerSnapshot>,
    ) -> Result<Option<Self>, OtlpError> {
        Ok(None)
    }

    pub(crate) fn span_for_receiver(
        &self,
        _: &dyn Store,
        _: JobId,
    ) -> Result<Option<TraceContext>, StoreError> {
        match *self {}
    }

    pub(crate) fn sample(&self, _: &Meters) {
        match *self {}
    }

    pub(crate) async fn finish(&self) {
        match *self {}
    }
}

pub(crate) fn sample_logs(_: &Meters) {}

pub(crate) fn pass_on(_: &OtlpSection) -> Option<Arc<PassOn>> {
    None
}

/// There is none.
#[derive(Debug)]
pub enum LogExport {}

/// Begins nothing.
pub fn log_export(_: &OtlpSection) -> Result<Option<LogExport>, OtlpError> {
    Ok(None)
}

impl LogExport {
    /// A layer that does nothing.
    #[must_use]
    pub fn layer(&self) -> Identity {
        match *self {}
    }

    /// Waits for nothing.
    pub fn end(&self) {
        match *self {}
    }
}
