//! Sends spans and log records to the collector: in batches, of a queue with a bound, on threads of the library's own.
//! What finds no room or does not arrive is counted.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use onelane_core::model::Secret;
use opentelemetry::context::FutureExt as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor as _,
};
use percent_encoding::percent_decode_str;
use reqwest::Url;
use tokio::runtime::Handle;

use super::settings::{OtlpSection, pairs};
use crate::tls::{NoTrust, Trust};

/// Spans or log records of one request.
pub(super) const BATCH_MAX: usize = 512;

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The HTTP client can't be built.
    #[error("the HTTP client for otlp.endpoint can't be built: {0}")]
    Client(#[from] reqwest::Error),
    /// There is nobody to trust.
    #[error("the HTTP client for otlp.endpoint can't be built: {0}")]
    Trust(#[from] NoTrust),
    /// The library refuses the configuration.
    #[error("nothing can be exported to otlp.endpoint: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// There is no runtime to send on.
    #[error("nothing can be exported outside of a Tokio runtime")]
    NoRuntime,
}

/// What was sent and what was not, of spans or of log records.
#[derive(Debug)]
pub(crate) struct Counts {
    what: &'static str,
    sent: AtomicU64,
    dropped: AtomicU64,
    /// In the queue or on their way.
    waiting: AtomicUsize,
    waiting_max: usize,
    is_failing: AtomicBool,
}

impl Counts {
    pub(super) fn new(what: &'static str, waiting_max: usize) -> Self {
        Self {
            what,
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            waiting_max,
            is_failing: AtomicBool::new(false),
        }
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Counts what is not sent.
    pub(super) fn drop_some(&self, some: u64) {
        self.dropped.fetch_add(some, Ordering::Relaxed);
    }

    /// Whether one more may wait; if not it is counted as dropped.
    pub(super) fn admit(&self) -> bool {
        let more = |waiting: usize| (waiting < self.waiting_max).then_some(waiting + 1);
        let admitted = self
            .waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .is_ok();
        if !admitted {
            self.drop_some(1);
        }
        admitted
    }

    /// Notes what became of some. The first failure is told, and the first success after it.
    pub(super) fn note(&self, some: usize, result: &OTelSdkResult) {
        self.waiting.fetch_sub(some, Ordering::AcqRel);
        let count = if result.is_ok() {
            &self.sent
        } else {
            &self.dropped
        };
        count.fetch_add(some as u64, Ordering::Relaxed);
        let exported = self.what;
        match result {
            Err(error) if !self.is_failing.swap(true, Ordering::AcqRel) => {
                tracing::warn!(exported, %error, "the collector at otlp.endpoint does not take what is exported; it is dropped and counted");
            }
            Ok(()) if self.is_failing.swap(false, Ordering::AcqRel) => {
                tracing::info!(
                    exported,
                    "the collector at otlp.endpoint takes what is exported again"
                );
            }
            _ => {}
        }
    }

    /// What never left the queue is dropped, too.
    fn close(&self) {
        let left = self.waiting.swap(0, Ordering::AcqRel);
        self.drop_some(left as u64);
    }
}

/// Where spans go.
pub(crate) struct Outlet {
    processor: BatchSpanProcessor,
    counts: Arc<Counts>,
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").finish_non_exhaustive()
    }
}

impl Outlet {
    pub(super) fn new(section: &OtlpSection) -> Result<Self, OtlpError> {
        let counts = Arc::new(Counts::new("spans", section.queue_max));
        let mut exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url(section, "v1/traces"))
            .with_timeout(Duration::from_millis(section.timeout_ms))
            .with_headers(headers(section))
            .with_http_client(Client::new(section)?)
            .build()?;
        exporter.set_resource(&resource(section));
        let exporter = Counted {
            exporter,
            counts: Arc::clone(&counts),
        };
        let bounds = BatchConfigBuilder::default()
            .with_max_queue_size(section.queue_max)
            .with_max_export_batch_size(BATCH_MAX.min(section.queue_max))
            .with_scheduled_delay(Duration::from_millis(section.every_ms))
            .build();
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(bounds)
            .build();
        Ok(Self { processor, counts })
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Puts a span in the queue, if that has room.
    pub(super) fn send(&self, span: SpanData) {
        if self.counts.admit() {
            self.processor.on_end(span);
        }
    }

    /// Sends what waits, for so long. Blocks.
    pub(super) fn end(&self, patience: Duration) {
        // What it could not do shows in the counts.
        let _ = self.processor.shutdown_with_timeout(patience);
        self.counts.close();
    }
}

/// Counts what an exporter sends.
#[derive(Debug)]
struct Counted<E> {
    exporter: E,
    counts: Arc<Counts>,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let some = batch.len();
        let result = self.exporter.export(batch).await;
        self.counts.note(some, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Whether the collector is on this machine.
fn is_here(section: &OtlpSection) -> bool {
    let url = section
        .endpoint
        .as_deref()
        .and_then(|url| Url::parse(url).ok());
    url.is_some_and(|url| {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

/// Where a signal goes.
pub(super) fn url(section: &OtlpSection, path: &str) -> String {
    let base = section.endpoint.as_deref().unwrap_or_default();
    format!("{base}/{path}")
}

/// The headers for the collector, their values decoded.
pub(super) fn headers(section: &OtlpSection) -> HashMap<String, String> {
    let said = section.headers.as_ref().map_or("", Secret::expose);
    pairs(said)
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.to_owned(), decoded(value)))
        .collect()
}

/// Who is told of: the service.
pub(super) fn resource(section: &OtlpSection) -> Resource {
    let said = section.resource_attributes.as_deref().unwrap_or_default();
    let said = pairs(said).unwrap_or_default();
    let said = said
        .into_iter()
        .map(|(name, value)| KeyValue::new(name.to_owned(), decoded(value)));
    let resource = Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_service_name("onelane")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attributes(said);
    match &section.service_name {
        Some(name) => resource.with_service_name(name.clone()).build(),
        None => resource.build(),
    }
}

fn decoded(value: &str) -> String {
    percent_decode_str(value).decode_utf8_lossy().into_owned()
}

/// Sends requests of threads that have no runtime on the lane's.
#[derive(Debug, Clone)]
pub(super) struct Client {
    client: reqwest::Client,
    runtime: Handle,
}

impl Client {
    pub(super) fn new(section: &OtlpSection) -> Result<Self, OtlpError> {
        let timeout = Duration::from_millis(section.timeout_ms);
        let client = reqwest::Client::builder()
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .timeout(timeout)
            .user_agent(concat!("onelane/", env!("CARGO_PKG_VERSION")));
        // As everywhere, this machine is reached straight.
        let client = match is_here(section) {
            true => client.no_proxy(),
            false => client,
        };
        let client = Trust::of_system()?.on(client).build()?;
        let runtime = Handle::try_current().map_err(|_| OtlpError::NoRuntime)?;
        Ok(Self { client, runtime })
    }
}

impl HttpClient for Client {
    fn send_bytes<'s, 'f>(
        &'s self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        let client = self.client.clone();
        // What the log says of the sending is not sent, or it would never end.
        let quiet = Context::current().with_telemetry_suppressed();
        let sending = async move { client.send_bytes(request).await }.with_context(quiet);
        let sending = self.runtime.spawn(sending);
        Box::pin(async move { sending.await? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_service_is_called_by_name_outweighs_its_attributes() {
        let named = |service_name: Option<&str>, attributes: Option<&str>| {
            let section = OtlpSection {
                service_name: service_name.map(str::to_owned),
                resource_attributes: attributes.map(str::to_owned),
                ..OtlpSection::default()
            };
            let resource = resource(&section);
            let name = resource
                .get(&"service.name".into())
                .map(|name| name.to_string());
            (
                name,
                resource.get(&"team".into()).map(|team| team.to_string()),
            )
        };
        let check = |service, attributes, want: (&str, Option<&str>)| {
            let (name, team) = named(service, attributes);
            assert_eq!((name.as_deref(), team.as_deref()), (Some(want.0), want.1));
        };
        check(None, None, ("onelane", None));
        let attributes = Some("service.name=a,team=x%20y");
        check(None, attributes, ("a", Some("x y")));
        check(Some("b"), attributes, ("b", Some("x y")));
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted_and_room_comes_back() {
        let counts = Counts::new("spans", 2);
        assert_eq!(
            [counts.admit(), counts.admit(), counts.admit()],
            [true, true, false]
        );
        counts.note(2, &Ok(()));
        assert!(counts.admit());
        counts.close();
        assert_eq!((counts.sent(), counts.dropped()), (2, 2));
    }
}
