//! OpenTelemetry's collector, as far as a test needs one: takes OTLP over HTTP, keeps what came, and refuses or says nothing
//! where a test wants that.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{Span as Wire, status};
use prost::Message as _;

use crate::common::until;

/// What it does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It takes it.
    Takes,
    /// It answers with this status.
    Refuses(u16),
    /// It never answers.
    Hangs,
}

/// A request that it took.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// A span, in words.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) kind: i32,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty: it has none.
    pub(crate) parent: String,
    pub(crate) state: String,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) attributes: BTreeMap<String, String>,
    /// Their names and attributes.
    pub(crate) events: Vec<(String, BTreeMap<String, String>)>,
    /// Trace and span.
    pub(crate) links: Vec<(String, String)>,
    pub(crate) failed: bool,
}

impl Span {
    /// An attribute; empty: it has none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// The names of its events.
    pub(crate) fn told(&self) -> Vec<&str> {
        self.events.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// A collector, which ends with the test's process.
pub(crate) struct Collector {
    url: String,
    taken: Arc<Mutex<Vec<Taken>>>,
    mood: Arc<Mutex<Mood>>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let collector = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            taken: Arc::default(),
            mood: Arc::new(Mutex::new(Mood::Takes)),
        };
        let (taken, mood) = (Arc::clone(&collector.taken), Arc::clone(&collector.mood));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (taken, mood) = (Arc::clone(&taken), Arc::clone(&mood));
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    while let Some(request) = read(&mut reader) {
                        let mood = *mood.lock().unwrap();
                        match mood {
                            Mood::Takes => {
                                taken.lock().unwrap().push(request);
                                answer(&stream, 200);
                            }
                            Mood::Refuses(status) => answer(&stream, status),
                            // The client gives up and closes.
                            Mood::Hangs => {}
                        }
                    }
                });
            }
        });
        collector
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }

    /// The spans that came.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let taken = self.taken().into_iter();
        let traces = taken.filter(|request| request.path == "/v1/traces");
        traces
            .flat_map(|request| {
                let read = ExportTraceServiceRequest::decode(request.body.as_slice()).unwrap();
                read.resource_spans
            })
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans)
            .map(span)
            .collect()
    }

    /// What the first request tells of its service.
    pub(crate) fn service(&self) -> BTreeMap<String, String> {
        let traces = self.taken();
        let first = traces
            .iter()
            .find(|request| request.path == "/v1/traces")
            .unwrap();
        let read = ExportTraceServiceRequest::decode(first.body.as_slice()).unwrap();
        let resource = read.resource_spans[0].resource.clone().unwrap();
        words(resource.attributes)
    }

    /// The log records that came.
    pub(crate) fn logs(&self) -> Vec<LogRecord> {
        let taken = self.taken().into_iter();
        let logs = taken.filter(|request| request.path == "/v1/logs");
        logs.flat_map(|request| {
            let read = ExportLogsServiceRequest::decode(request.body.as_slice()).unwrap();
            read.resource_logs
        })
        .flat_map(|resource| resource.scope_logs)
        .flat_map(|scope| scope.log_records)
        .collect()
    }

    /// Waits for so many spans and answers them, in the order in which they began.
    pub(crate) fn wait_for(&self, spans: usize) -> Vec<Span> {
        until(&format!("{spans} spans come"), || {
            self.spans().len() >= spans
        });
        let mut all = self.spans();
        let rank = |name: &str| {
            ["submit", "wait", "attempt", "call"]
                .iter()
                .position(|n| *n == name)
        };
        all.sort_by_key(|span| (span.from, rank(&span.name)));
        assert_eq!(all.len(), spans, "{all:#?}");
        all
    }
}

/// An id in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn span(wire: Wire) -> Span {
    let failed = wire
        .status
        .is_some_and(|s| s.code == status::StatusCode::Error as i32);
    Span {
        name: wire.name,
        kind: wire.kind,
        trace: hex(&wire.trace_id),
        id: hex(&wire.span_id),
        parent: hex(&wire.parent_span_id),
        state: wire.trace_state,
        from: wire.start_time_unix_nano,
        to: wire.end_time_unix_nano,
        attributes: words(wire.attributes),
        events: wire
            .events
            .into_iter()
            .map(
                |Event {
                     name, attributes, ..
                 }| (name, words(attributes)),
            )
            .collect(),
        links: wire
            .links
            .into_iter()
            .map(
                |Link {
                     trace_id, span_id, ..
                 }| (hex(&trace_id), hex(&span_id)),
            )
            .collect(),
        failed,
    }
}

/// Attributes as text.
pub(crate) fn words(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let all = attributes.into_iter();
    all.map(|KeyValue { key, value, .. }| (key, text(value)))
        .collect()
}

/// A value as text.
pub(crate) fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::DoubleValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(value)) => value.to_string(),
        Some(any_value::Value::ArrayValue(list)) => {
            let all: Vec<String> = list.values.into_iter().map(|v| text(Some(v))).collect();
            all.join(",")
        }
        other => format!("{other:?}"),
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Taken> {
    let mut line = || {
        let mut line = String::new();
        (reader.read_line(&mut line).ok()? > 0).then(|| line.trim_end().to_owned())
    };
    let path = line()?.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    while let Some((name, value)) = line()?.split_once(": ") {
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Taken {
        path,
        headers,
        body,
    })
}

fn answer(mut stream: &TcpStream, status: u16) {
    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
    let _ = stream.write_all(answer.as_bytes());
}
