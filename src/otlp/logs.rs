//! Lines of the log as log records of OpenTelemetry, with the traces of the jobs that they are about.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use onelane_actors::ports::Store;
use onelane_core::model::{AttemptNo, JobId, TraceContext};
use opentelemetry::logs::{AnyValue, LogRecord as _, Severity};
use opentelemetry::{InstrumentationScope, SpanId, TraceFlags, TraceId};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{
    BatchConfigBuilder, BatchLogProcessor, LogBatch, LogExporter, LogProcessor, SdkLogRecord,
    SdkLogger, SdkLoggerProvider,
};
use opentelemetry_sdk::trace::Sampler;

use super::export::{BATCH_MAX, Client, Counts, OtlpError, headers, resource, url};
use super::place::{Place, Span};
use super::settings::OtlpSection;

/// The counts of this process, once it exports its log.
static COUNTS: OnceLock<Arc<Counts>> = OnceLock::new();

/// What is counted of the export of the log.
pub(super) fn counts() -> Option<&'static Counts> {
    COUNTS.get().map(|counts| &**counts)
}

/// The export of a process's log.
pub struct LogExport {
    provider: SdkLoggerProvider,
    flush: Duration,
}

impl fmt::Debug for LogExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogExport").finish_non_exhaustive()
    }
}

/// Begins to export log lines, if the section wants that: a layer of the log of the process adds them. For a Tokio
/// runtime.
pub fn log_export(section: &OtlpSection) -> Result<Option<LogExport>, OtlpError> {
    if section.endpoint.is_none() || !section.logs {
        return Ok(None);
    }
    let counts = Arc::new(Counts::new("log records", section.queue_max));
    let exporter = opentelemetry_otlp::LogExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url(section, "v1/logs"))
        .with_timeout(Duration::from_millis(section.timeout_ms))
        .with_headers(headers(section))
        .with_http_client(Client::new(section)?)
        .build()?;
    let exporter = Placed {
        exporter,
        counts: Arc::clone(&counts),
    };
    let bounds = BatchConfigBuilder::default()
        .with_max_queue_size(section.queue_max)
        .with_max_export_batch_size(BATCH_MAX.min(section.queue_max))
        .with_scheduled_delay(Duration::from_millis(section.every_ms))
        .build();
    let batches = BatchLogProcessor::builder(exporter).with_batch_config(bounds);
    let processor = Bounded {
        processor: batches.build(),
        counts: Arc::clone(&counts),
    };
    let provider = SdkLoggerProvider::builder()
        .with_resource(resource(section))
        .with_log_processor(processor)
        .build();
    // There is one log for each process.
    let _ = COUNTS.set(counts);
    Ok(Some(LogExport {
        provider,
        flush: Duration::from_millis(section.flush_ms),
    }))
}

impl LogExport {
    /// The layer that takes lines.
    #[must_use]
    pub fn layer(&self) -> OpenTelemetryTracingBridge<SdkLoggerProvider, SdkLogger> {
        OpenTelemetryTracingBridge::new(&self.provider)
    }

    /// Sends what waits, for a moment. Blocks; needs the runtime that it began on.
    pub fn end(&self) {
        // What it could not do shows in the counts.
        let _ = self.provider.shutdown_with_timeout(self.flush);
    }
}

/// Lets no more records wait than there is room for.
#[derive(Debug)]
struct Bounded {
    processor: BatchLogProcessor,
    counts: Arc<Counts>,
}

impl LogProcessor for Bounded {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if self.counts.admit() {
            self.processor.emit(record, scope);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.processor.shutdown_with_timeout(timeout)
    }

    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        self.processor.event_enabled(level, target, name)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.processor.set_resource(resource);
    }
}

/// Puts records in their traces, and counts what is sent. Runs on the thread that sends.
#[derive(Debug)]
struct Placed<E> {
    exporter: E,
    counts: Arc<Counts>,
}

impl<E: LogExporter> LogExporter for Placed<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let mut known = HashMap::new();
        let records: Vec<(SdkLogRecord, &InstrumentationScope)> = batch
            .iter()
            .map(|(record, scope)| (placed(record, &mut known), scope))
            .collect();
        let records: Vec<_> = records
            .iter()
            .map(|(record, scope)| (record, *scope))
            .collect();
        let result = self.exporter.export(LogBatch::new(&records)).await;
        self.counts.note(records.len(), &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        self.exporter.event_enabled(level, target, name)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// A record with the span of the job, or of the attempt, that it is about.
fn placed(record: &SdkLogRecord, known: &mut HashMap<JobId, Option<Place>>) -> SdkLogRecord {
    let mut record = record.clone();
    let said = |wanted: &str| {
        let mut all = record.attributes_iter();
        all.find_map(|(name, value)| match value {
            AnyValue::String(text) if name.as_str() == wanted => Some(text.as_str().to_owned()),
            _ => None,
        })
    };
    let Some(id) = said("job_id").and_then(|id| id.parse::<JobId>().ok()) else {
        return record;
    };
    let place = known.entry(id).or_insert_with(|| Lookup::find(id));
    let attempt = said("attempt").and_then(|no| no.parse().ok());
    let span = attempt.map_or(Span::Submit, |no| Span::Attempt(AttemptNo(no)));
    if let Some(context) = place.as_ref().map(|place| place.context(span)) {
        place_record(&mut record, &context);
    }
    record
}

fn place_record(record: &mut SdkLogRecord, context: &TraceContext) {
    let flags = match context.is_sampled() {
        true => TraceFlags::SAMPLED,
        false => TraceFlags::default(),
    };
    record.set_trace_context(
        TraceId::from_bytes(context.trace_id()),
        SpanId::from_bytes(context.span_id()),
        Some(flags),
    );
}

/// Where the traces of jobs are found: the log is the process's, jobs are a lane's.
pub(super) struct Lookup {
    store: Arc<dyn Store>,
    sampler: Sampler,
}

/// The lanes of this process whose traces are exported.
static LANES: Mutex<Vec<Weak<Lookup>>> = Mutex::new(Vec::new());

impl Lookup {
    /// Lets log records find the jobs of this store, as long as the answer is held.
    pub(super) fn announce(store: Arc<dyn Store>, sampler: Sampler) -> Arc<Self> {
        let lookup = Arc::new(Self { store, sampler });
        let mut lanes = LANES.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|lane| lane.strong_count() > 0);
        lanes.push(Arc::downgrade(&lookup));
        lookup
    }

    /// The place of a job of any lane. Reads its row.
    fn find(id: JobId) -> Option<Place> {
        let lanes: Vec<Arc<Self>> = {
            let known = LANES.lock().unwrap_or_else(PoisonError::into_inner);
            known.iter().filter_map(Weak::upgrade).collect()
        };
        lanes.iter().find_map(|lane| {
            let job = lane.store.job_alone(id).ok()??;
            Some(Place::of(id, job.trace.as_deref(), &lane.sampler))
        })
    }
}
