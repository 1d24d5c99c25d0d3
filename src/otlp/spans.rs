//! Rows of the store as spans. Their names and attributes stand in `docs/tracing.md`. No text of a prompt, of an answer or
//! of a failure is among them, nor whose job it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use onelane_core::model::{
    CallOutcome, CallRecord, Face, Failure, Job, JobStatus, Settings, Timestamp,
};
use opentelemetry::trace::{Event, Link, SpanKind, Status};
use opentelemetry::{Array, InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use reqwest::Url;

use super::place::{Place, Span, span_context};
use super::stops::{Cause, Stops};

/// The semantic conventions that attributes follow where these have a name.
const CONVENTIONS: &str = "https://opentelemetry.io/schemas/1.42.0";
/// What the service is as a messaging system, and the provider of its models.
const SYSTEM: &str = "onelane";
const PROVIDER: &str = "zhipu";

/// Who makes the spans.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder(SYSTEM)
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(CONVENTIONS)
        .build()
}

/// A job with its place in a trace, and what is known of the lane.
pub(super) struct Teller<'a> {
    pub(super) job: &'a Job,
    pub(super) place: &'a Place,
    pub(super) stops: &'a Stops,
    pub(super) settings: &'a Settings,
    pub(super) scope: &'a InstrumentationScope,
}

/// What a wait was for, and how it ended.
pub(super) struct Waited<'a> {
    pub(super) span: Span,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    /// The attempt before.
    pub(super) after: Option<&'a CallRecord>,
    /// The attempt that it ended with; `None`: the job ended without one.
    pub(super) before: Option<&'a CallRecord>,
}

impl Teller<'_> {
    /// A job was put on disk, which was known at that moment.
    pub(super) fn submitted(&self, known: Timestamp) -> SpanData {
        let job = self.job;
        let mut span = self.span(Span::Submit, SpanKind::Producer, (job.created_at, known));
        span.attributes.extend([
            text("messaging.operation.type", "send"),
            text("messaging.operation.name", "submit"),
            text("gen_ai.request.model", &job.model),
            number("onelane.job.priority", i64::from(job.priority)),
        ]);
        if let Some(batch) = job.batch_id {
            span.attributes
                .push(text("onelane.batch.id", batch.to_string()));
        }
        if let Some(link) = &self.place.link {
            let link = Link::with_context(span_context(link, true));
            span.links = links(vec![link]);
        }
        span
    }

    /// It waited: for its turn, and for what stands in the events.
    pub(super) fn waited(&self, waited: &Waited<'_>) -> SpanData {
        let (job, from, to) = (self.job, waited.from, waited.to);
        let mut events = Vec::new();
        if waited.after.is_none() {
            if let Some(until) = job.run_at.filter(|until| *until > job.created_at) {
                events.push(event(
                    "scheduled",
                    from,
                    vec![moment("onelane.wait.until", until)],
                ));
            }
            if !job.after.is_empty() {
                let jobs = count("onelane.wait.jobs", job.after.len() as u64);
                events.push(event("blocked", from, vec![jobs]));
            }
        }
        if let Some(failure) = waited.after.and_then(|call| call.failure.as_ref()) {
            events.push(event("delayed", from, of_failure(failure)));
        }
        for stop in self.stops.of(job.sent_to(), self.settings, (from, to)) {
            let mut attributes = Vec::new();
            if let Cause::Hold(scope, kind, code) = &stop.cause {
                attributes.extend([
                    text("onelane.hold.scope", scope.name()),
                    text("onelane.hold.kind", kind.name()),
                    text("error.type", code.clone()),
                ]);
            }
            attributes.extend(stop.to.map(|until| moment("onelane.wait.until", until)));
            events.push(event(stop.cause.reason(), stop.from.max(from), attributes));
        }
        let parts = waited.before.map(|call| call.parts);
        if let Some(ms) = parts.and_then(|parts| parts.staged_ms).filter(|ms| *ms > 0) {
            events.push(event("stage", to.minus_ms(ms).max(from), Vec::new()));
        }
        let mut reasons: Vec<StringValue> = Vec::new();
        for reason in events
            .iter()
            .map(|event| StringValue::from(event.name.clone()))
        {
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        let mut span = self.span(waited.span, SpanKind::Internal, (from, to));
        span.attributes.push(KeyValue::new(
            "onelane.wait.reasons",
            Value::Array(Array::String(reasons)),
        ));
        span.events = told(events);
        if waited.before.is_none() {
            let status = job.status;
            span.attributes
                .push(text("onelane.job.status", status.name()));
            if let Some(failure) = job.error.as_ref().filter(|_| status == JobStatus::Failed) {
                span.attributes.extend(of_failure(failure));
                span.status = Status::error(failure.class.name());
            }
        }
        span
    }

    /// An attempt that ended.
    pub(super) fn attempt(&self, call: &CallRecord) -> SpanData {
        let from = call.started_at;
        let span = Span::Attempt(call.attempt);
        let mut span = self.span(span, SpanKind::Consumer, (from, call.ended_at));
        span.attributes.extend([
            text("messaging.operation.type", "process"),
            text("messaging.operation.name", "attempt"),
            count("onelane.attempt.number", u64::from(call.attempt.0)),
            text("onelane.attempt.outcome", call.outcome.name()),
            count("onelane.attempt.retries", u64::from(call.retry_count)),
        ]);
        let parts = [
            ("onelane.attempt.staged_ms", call.parts.staged_ms),
            ("onelane.attempt.commit_ms", call.parts.commit_ms),
        ];
        let parts = parts
            .into_iter()
            .filter_map(|(name, ms)| Some(count(name, ms?)));
        span.attributes.extend(parts);
        if call.maybe_billed {
            span.attributes
                .push(KeyValue::new("onelane.attempt.maybe_billed", true));
        }
        fail(&mut span, call);
        span
    }

    /// The call that an attempt made.
    pub(super) fn call(&self, call: &CallRecord) -> SpanData {
        let from = call.started_at;
        let to = match call.response_time_ms {
            0 => call.ended_at,
            ms => from.plus_ms(ms),
        };
        let mut span = self.span(Span::Call(call.attempt), SpanKind::Client, (from, to));
        let operation = match self.job.face {
            Face::Chat | Face::Responses | Face::Messages => "chat",
            Face::Embeddings => "embeddings",
        };
        span.attributes.extend([
            text("gen_ai.operation.name", operation),
            text("gen_ai.provider.name", PROVIDER),
            text("gen_ai.request.model", &call.model),
            text("http.request.method", "POST"),
            text("onelane.glm.request_id", call.request_id.as_str()),
        ]);
        if let Some(model) = &call.answered_by {
            span.attributes.push(text("gen_ai.response.model", model));
        }
        if let Ok(url) = Url::parse(&call.endpoint) {
            let host = url.host_str().map(|host| text("server.address", host));
            let port = url.port_or_known_default();
            span.attributes.extend(host);
            span.attributes
                .extend(port.map(|port| number("server.port", i64::from(port))));
        }
        if let Some(status) = call.status_code {
            span.attributes
                .push(number("http.response.status_code", i64::from(status)));
        }
        let usage = &call.usage;
        if usage.is_reported() {
            span.attributes.extend([
                count("gen_ai.usage.input_tokens", usage.prompt_tokens),
                count("gen_ai.usage.output_tokens", usage.completion_tokens),
                count("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens),
                count(
                    "gen_ai.usage.reasoning.output_tokens",
                    usage.reasoning_tokens,
                ),
            ]);
        }
        if let Some(cost) = &call.cost {
            span.attributes.extend([
                number("onelane.cost.nanos", cost.nanos),
                text("onelane.cost.currency", cost.currency.code()),
            ]);
        }
        if let Some(ms) = call.parts.first_token_ms {
            let seconds = Duration::from_millis(ms).as_secs_f64();
            span.attributes.push(KeyValue::new(
                "gen_ai.response.time_to_first_chunk",
                seconds,
            ));
        }
        for (name, id) in call.call_ids.iter() {
            let named = KeyValue::new(format!("onelane.glm.{name}"), id.to_owned());
            span.attributes.push(named);
        }
        let moments = [
            ("connected", call.parts.connect_ms),
            ("first_byte", call.parts.first_byte_ms),
            ("first_token", call.parts.first_token_ms),
        ];
        let moments = moments
            .into_iter()
            .filter_map(|(name, ms)| Some(event(name, from.plus_ms(ms?), Vec::new())));
        span.events = told(moments.collect());
        fail(&mut span, call);
        span
    }

    /// A span below the one that it belongs to.
    fn span(
        &self,
        span: Span,
        span_kind: SpanKind,
        (from, to): (Timestamp, Timestamp),
    ) -> SpanData {
        let parent = match span {
            Span::Submit => self.place.parent.clone(),
            Span::Wait(_) | Span::LastWait(_) | Span::Attempt(_) => {
                Some(self.place.context(Span::Submit))
            }
            Span::Call(no) => Some(self.place.context(Span::Attempt(no))),
        };
        let job_id = self.job.id.to_string();
        let attributes = vec![
            text("messaging.system", SYSTEM),
            text("messaging.message.id", job_id.clone()),
            text("onelane.job.id", job_id),
        ];
        // A call is none of messaging.
        let attributes = match span {
            Span::Call(_) | Span::Wait(_) | Span::LastWait(_) => {
                attributes.into_iter().skip(2).collect()
            }
            Span::Submit | Span::Attempt(_) => attributes,
        };
        SpanData {
            span_context: span_context(&self.place.context(span), false),
            parent_span_id: parent
                .as_ref()
                .map_or(opentelemetry::SpanId::INVALID, |parent| {
                    opentelemetry::SpanId::from_bytes(parent.span_id())
                }),
            parent_span_is_remote: span == Span::Submit && parent.is_some(),
            span_kind,
            name: span.name().into(),
            start_time: system_time(from),
            end_time: system_time(to.max(from)),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }
}

/// Says of a span that it failed, if its call did. Somebody who gave the call up is no failure.
fn fail(span: &mut SpanData, call: &CallRecord) {
    if let Some(failure) = &call.failure {
        span.attributes.extend(of_failure(failure));
    }
    match call.outcome {
        CallOutcome::Failed | CallOutcome::Interrupted => {
            let class = call.failure.as_ref().map(|failure| failure.class.name());
            span.status = Status::error(class.unwrap_or(call.outcome.name()));
        }
        CallOutcome::Completed | CallOutcome::Cancelled => {}
    }
}

fn of_failure(failure: &Failure) -> Vec<KeyValue> {
    vec![
        text("error.type", failure.code.clone()),
        text("onelane.failure.class", failure.class.name()),
    ]
}

fn text(name: &'static str, value: impl Into<String>) -> KeyValue {
    KeyValue::new(name, value.into())
}

fn number(name: &'static str, value: i64) -> KeyValue {
    KeyValue::new(name, value)
}

fn count(name: &'static str, value: u64) -> KeyValue {
    number(name, i64::try_from(value).unwrap_or(i64::MAX))
}

fn moment(name: &'static str, at: Timestamp) -> KeyValue {
    text(name, at.to_rfc3339())
}

fn event(name: &'static str, at: Timestamp, attributes: Vec<KeyValue>) -> Event {
    Event::new(name, system_time(at), attributes, 0)
}

fn told(events: Vec<Event>) -> SpanEvents {
    let mut told = SpanEvents::default();
    told.events = events;
    told
}

fn links(all: Vec<Link>) -> SpanLinks {
    let mut links = SpanLinks::default();
    links.links = all;
    links
}

fn system_time(at: Timestamp) -> SystemTime {
    let ms = u64::try_from(at.as_millis()).unwrap_or(0);
    UNIX_EPOCH + Duration::from_millis(ms)
}
