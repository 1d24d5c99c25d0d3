//! The Glm port on reqwest: one client for life, one call on the wire for each call ordered, never
//! one more. `tasks` has the steps that only tasks take.

use std::sync::Arc;

use bytes::Bytes;
use onelane_actors::ports::{
    AccountAsk, AccountFuture, CallEnd, CallFuture, Clock, Glm, GlmCall, GlmFuture, GlmOutcome,
    TaskFuture, UnreadAnswer,
};
use onelane_core::model::{
    Balance, CALL_ID_HEADERS, Day, Failure, FailureClass, KeyHeader, Metered, NoUpstream,
    PassedHeaders, Quota, Received, RequestId, Secret, SessionId, TRACEPARENT, TRACESTATE,
    Timeouts, TraceContext, Usage, code, limits,
};
use reqwest::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
};
use reqwest::{Method, Request, StatusCode, Url};
use tokio_util::sync::CancellationToken;

use super::account::AccountDesk;
use super::classify::{Reader, classify};
use super::decode::{decode, decode_with, is_answer, is_readable, usual_head};
use super::exchange::{BodyEnd, Ended, Reply, exchange};
use super::fault::{
    HttpGlmError, no_response, not_read, operator, timed_out, transient, wants_credentials, words,
};
use super::forms::Head;
use super::live::Live;
use super::pool::{Named, Pool, named_id};
use super::route::Route;
use super::{layers, wire};

/// What a lane says of its answers: which job they are of.
const LANE_HEADER: &str = "x-onelane-job";
/// Where Anthropic's API takes its key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Where GLM is told of which session a call is.
const SESSION: HeaderName = HeaderName::from_static("x-session-id");
/// Bytes of a response that are read where they came in.
const LARGE_BYTES: usize = 256 * 1024;

/// The span that a call is, for whoever answers it; `None`: nobody is told of one.
pub(crate) type PassOn = dyn Fn(&GlmCall) -> Option<TraceContext> + Send + Sync;

/// GLM over HTTP/1.1. Cheap to share; calls may run side by side.
///
/// A call is sent once. Reqwest's own retries are off; hyper below may only take another
/// connection when the kept one turns out closed before a byte of the request was written.
#[derive(Clone)]
pub struct HttpGlm {
    pool: Arc<Pool>,
    route: Arc<Route>,
    clock: Arc<dyn Clock>,
    desk: Arc<AccountDesk>,
    pass_on: Option<Arc<PassOn>>,
}

impl HttpGlm {
    /// The adapter, which reaches GLM straight. The clock is read when a failure states a time.
    pub fn new(clock: Arc<dyn Clock>) -> Result<Self, HttpGlmError> {
        Self::by(Route::default(), clock)
    }

    /// The adapter, which reaches GLM by this route.
    pub fn by(route: Route, clock: Arc<dyn Clock>) -> Result<Self, HttpGlmError> {
        Ok(Self {
            pool: Arc::new(Pool::new(route.clone())?),
            desk: Arc::new(AccountDesk::new(route.clone())),
            route: Arc::new(route),
            clock,
            pass_on: None,
        })
    }

    /// The same, which tells GLM of the span that `pass_on` says.
    pub(crate) fn passing_on(self, pass_on: Option<Arc<PassOn>>) -> Self {
        Self { pass_on, ..self }
    }
}

impl Glm for HttpGlm {
    fn call(&self, call: GlmCall, abort: CancellationToken) -> CallFuture {
        let request = match call.endpoint.url(call.request.face()) {
            Ok(url) => post(self.url(&url), &call),
            Err(unknown) => Err(unknown_face(&unknown)),
        };
        let glm = self.clone();
        Box::pin(async move { glm.run(request, call, &abort).await })
    }

    fn submit_task(&self, call: GlmCall, abort: CancellationToken) -> TaskFuture {
        let glm = self.clone();
        Box::pin(async move { glm.submit(&call, &abort).await })
    }

    fn fetch_task(&self, call: GlmCall, task_id: String, abort: CancellationToken) -> GlmFuture {
        let glm = self.clone();
        Box::pin(async move { glm.fetch(&call, &task_id, &abort).await })
    }

    fn quota(&self, ask: AccountAsk) -> AccountFuture<Quota> {
        let desk = Arc::clone(&self.desk);
        Box::pin(async move { desk.quota(&ask).await })
    }

    fn balance(&self, ask: AccountAsk) -> AccountFuture<Balance> {
        let desk = Arc::clone(&self.desk);
        Box::pin(async move { desk.balance(&ask).await })
    }

    fn metered(&self, ask: AccountAsk, day: Day) -> AccountFuture<Vec<Metered>> {
        let desk = Arc::clone(&self.desk);
        Box::pin(async move { desk.metered(&ask, day).await })
    }
}

impl HttpGlm {
    /// A URL that a call can go to; `None`: it is none of HTTP.
    pub(super) fn url(&self, text: &str) -> Option<Url> {
        self.pool.url(text)
    }

    async fn run(
        &self,
        request: Result<Request, Failure>,
        call: GlmCall,
        abort: &CancellationToken,
    ) -> CallEnd {
        let mut timeouts = call.timeouts;
        if !call.streams {
            // Its first byte comes after the whole thinking.
            timeouts.first_byte_ms = timeouts.total_ms;
        }
        let relay = call.relay.as_deref();
        let mut live = relay.map(|relay| Live::new(relay, self, &call));
        let sent = self.send(request, &call, timeouts, abort, live.as_mut());
        let outcome = match sent.await {
            Sent::Whole(response) if live.is_none() && response.is_plain() => {
                return self.clone().unread(response, call);
            }
            Sent::Whole(response) => self.decoded(response, &call).await,
            Sent::Failed(failure) => failed(failure),
            Sent::Aborted => GlmOutcome::Aborted,
            Sent::Nothing => GlmOutcome::NotSent,
        };
        if let Some(live) = live {
            live.end(&outcome).await;
        }
        outcome.into()
    }

    /// An answer of which no more is read yet than its head.
    fn unread(self, response: Whole, call: GlmCall) -> CallEnd {
        let head = response.head.as_ref();
        CallEnd::Answer(UnreadAnswer {
            model: head.and_then(|head| head.model.clone()),
            read: Box::new(move || response.decoded(&self.reader(&call))),
        })
    }

    /// Reads a response.
    async fn decoded(&self, response: Whole, call: &GlmCall) -> GlmOutcome {
        let is_large = response.body.len() > LARGE_BYTES;
        let status = response.status;
        let read = move |reader: &Reader<'_>| response.decoded(reader);
        let outcome = self.read(is_large, call, read).await;
        outcome.unwrap_or_else(|| failed(not_read(status)))
    }

    /// Takes off what is packed around a response, or says why there is none.
    async fn unwrapped(&self, reply: Reply, call: &GlmCall) -> Result<Whole, Failure> {
        let is_large =
            reply.body.len() > LARGE_BYTES || layers::is_packed(&reply.headers, &reply.body);
        let status = reply.status.as_u16();
        let read = move |reader: &Reader<'_>| whole(reply, reader);
        let response = self.read(is_large, call, read).await;
        response.unwrap_or_else(|| Err(not_read(status)))
    }

    /// Reads something of a response, off the async workers if it is large. `None`: that failed.
    async fn read<T: Send + 'static>(
        &self,
        is_large: bool,
        call: &GlmCall,
        read: impl FnOnce(&Reader<'_>) -> T + Send + 'static,
    ) -> Option<T> {
        if !is_large {
            return Some(read(&self.reader(call)));
        }
        let (glm, call) = (self.clone(), call.clone());
        let reading = tokio::task::spawn_blocking(move || read(&glm.reader(&call)));
        reading.await.ok()
    }

    /// Sends a request for `call` under these bounds and reads the whole response.
    pub(super) async fn send(
        &self,
        request: Result<Request, Failure>,
        call: &GlmCall,
        timeouts: Timeouts,
        abort: &CancellationToken,
        live: Option<&mut Live<'_>>,
    ) -> Sent {
        if abort.is_cancelled() {
            return Sent::Nothing;
        }
        let mut request = match request {
            Ok(request) => request,
            Err(failure) => return Sent::Failed(failure),
        };
        if call.request_id != RequestId::new(call.job_id, call.attempt) {
            self.pool.note_chosen(call.request_id.as_str());
        }
        let base_url = &call.endpoint.base_url;
        let echoes = call.request.face().echoes();
        let (client, keep) = self.pool.for_call(base_url, call.reuse, echoes);
        if !keep {
            let close = HeaderValue::from_static("close");
            request.headers_mut().insert(CONNECTION, close);
        }
        if let Some(span) = self.pass_on.as_ref().and_then(|pass_on| pass_on(call)) {
            tell_span(request.headers_mut(), &span);
        }
        let url = request.url().clone();
        match exchange(&client, request, timeouts, (abort, &call.marks), live).await {
            Ended::Response(reply) if self.is_of_proxy(&reply, &url) => {
                Sent::Failed(self.proxy_refuses(&url))
            }
            Ended::Response(reply) => {
                self.pool.obey(&reply.headers);
                let ids = call_ids(&reply.headers);
                match self.unwrapped(reply, call).await {
                    Ok(response) => self.its_own(response, ids, call).await,
                    Err(failure) => {
                        note_ids(ids, call);
                        Sent::Failed(failure)
                    }
                }
            }
            Ended::NoResponse { error, .. } if wants_credentials(&error) => {
                Sent::Failed(self.proxy_refuses(&url))
            }
            Ended::NoResponse { error, reused } => {
                let mut failure = no_response(&error, reused, timeouts.connect_ms);
                if error.is_connect() {
                    failure.message = self.route.explain(&url, failure.message);
                }
                Sent::Failed(failure)
            }
            Ended::TimedOut(timeout) => Sent::Failed(timed_out(timeout, timeouts.connect_ms)),
            Ended::Aborted => Sent::Aborted,
            Ended::NotSent => Sent::Nothing,
        }
    }

    /// Whether a response is the proxy's own, which wants to know who asks: GLM never does so.
    fn is_of_proxy(&self, reply: &Reply, url: &Url) -> bool {
        reply.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED && self.route.hop(url).is_some()
    }

    fn proxy_refuses(&self, url: &Url) -> Failure {
        let refused = "it lets nobody through without the right user and password (407)";
        let message = self.route.explain(url, refused.to_owned());
        operator("http_407", &message)
    }

    /// Whether what names this id, if it names one, is that of another call.
    pub(super) async fn is_foreign(
        &self,
        (status, headers): (u16, &HeaderMap),
        named: Option<&str>,
        call: &GlmCall,
    ) -> bool {
        if !call.request.face().echoes() {
            return false;
        }
        let named = match named {
            Some(id) => self.named(id, headers, call).await,
            None => None,
        };
        let success = (200..300).contains(&status);
        let base_url = &call.endpoint.base_url;
        self.pool.is_foreign(base_url, named, success)
    }

    /// A response to `call`, or why it is that of another one.
    async fn its_own(&self, response: Whole, ids: PassedHeaders, call: &GlmCall) -> Sent {
        let from = (response.status, &response.headers);
        if !self.is_foreign(from, response.named.as_deref(), call).await {
            note_ids(ids, call);
            return Sent::Whole(response);
        }
        let message = "the answer names the request_id of another call; nothing of it was taken";
        let reader = self.reader(call);
        let received = reader.received(&response.headers, &response.body);
        Sent::Failed(Failure {
            status_code: Some(response.status),
            maybe_billed: true,
            received: received.map(Received::foreign).map(Arc::new),
            ..Failure::new(FailureClass::ForeignAnswer, code::FOREIGN_ANSWER, message)
        })
    }

    /// Whose call an id names; `None`: it says nothing.
    async fn named(&self, id: &str, headers: &HeaderMap, call: &GlmCall) -> Option<Named> {
        if id == call.request_id.as_str() {
            return Some(Named::This);
        }
        if self.pool.was_chosen(id) {
            return Some(Named::Another);
        }
        if let Some(job) = RequestId::job_in(id) {
            let issued = call.issued.clone();
            let asked = tokio::task::spawn_blocking(move || issued.knows(job)).await;
            if job == call.job_id || asked.unwrap_or(false) {
                return Some(Named::Another);
            }
        }
        // Another lane between here and GLM names the ids of its own attempts: it answers for them.
        (!headers.contains_key(LANE_HEADER)).then_some(Named::Other)
    }

    pub(super) fn reader<'a>(&'a self, call: &'a GlmCall) -> Reader<'a> {
        let key = call.endpoint.api_key.as_ref();
        Reader {
            clock: self.clock.as_ref(),
            face: call.request.face(),
            api_key: key.map_or("", Secret::expose),
        }
    }
}

/// The result of a request. Nothing of it is open any more.
pub(super) enum Sent {
    /// A response, whole, of whatever status.
    Whole(Whole),
    /// None that is whole.
    Failed(Failure),
    /// The abort token was cancelled.
    Aborted,
    /// The abort token was cancelled before anything was sent.
    Nothing,
}

/// A response that came whole.
pub(super) struct Whole {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The `request_id` that it names.
    named: Option<String>,
    /// What counts of it, where it is of the usual shape.
    head: Option<Head>,
}

impl Whole {
    /// Whether it is an answer, by its head alone, and no effort to read.
    fn is_plain(&self) -> bool {
        let is_answer = |head| is_answer(head, self.status);
        self.body.len() <= LARGE_BYTES && self.head.as_ref().is_some_and(is_answer)
    }

    fn decoded(self, reader: &Reader<'_>) -> GlmOutcome {
        match self.head {
            Some(head) => decode_with(head, self.status, &self.headers, &self.body, reader),
            None => decode(self.status, &self.headers, self.body, reader),
        }
    }
}

pub(super) fn failed(failure: Failure) -> GlmOutcome {
    GlmOutcome::Failed(failure, Usage::default())
}

fn unknown_face(unknown: &NoUpstream) -> Failure {
    let message = unknown.to_string();
    Failure::new(FailureClass::RequestFatal, code::FACE_UNKNOWN, message)
}

/// The request that carries a call's body to `url`, or why it can't be written.
pub(super) fn post(url: Option<Url>, call: &GlmCall) -> Result<Request, Failure> {
    let mut request = request(Method::POST, url, call)?;
    let body = wire::body(call).map_err(|e| {
        let message = format!("the stored request can't be sent: {e}");
        Failure::new(FailureClass::RequestFatal, code::REQUEST_INVALID, message)
    })?;
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(CONTENT_TYPE, json);
    let session = call.session.as_ref().map(SessionId::as_str);
    // Its characters are those of headers.
    if let Some(session) = session.and_then(|id| HeaderValue::from_str(id).ok()) {
        request.headers_mut().insert(SESSION, session);
    }
    *request.body_mut() = Some(body.into());
    Ok(request)
}

/// A request with the call's key and without a body, or why it can't be written.
pub(super) fn request(
    method: Method,
    url: Option<Url>,
    call: &GlmCall,
) -> Result<Request, Failure> {
    let key = call
        .endpoint
        .api_key
        .as_ref()
        .ok_or_else(|| operator(code::NO_API_KEY, "no API key is configured; set one"))?;
    let url = url.ok_or_else(|| {
        operator(
            code::BASE_URL_INVALID,
            "the base URL is not an http or https URL; set glm.base_url",
        )
    })?;
    let face = call.request.face();
    let (header, text) = match face.key_header() {
        KeyHeader::Bearer => (AUTHORIZATION, format!("Bearer {}", key.expose())),
        KeyHeader::ApiKey => (API_KEY, key.expose().to_owned()),
    };
    let mut secret = HeaderValue::try_from(text).map_err(|_| {
        operator(
            code::NO_API_KEY,
            "the API key has characters that no HTTP header may hold; set it anew",
        )
    })?;
    secret.set_sensitive(true);
    let mut request = Request::new(method, url);
    request.headers_mut().insert(header, secret);
    for (name, value) in face.headers() {
        let name = HeaderName::from_static(name);
        let value = HeaderValue::from_static(value);
        request.headers_mut().insert(name, value);
    }
    let passes = face.passes().iter();
    for name in passes.map(|name| HeaderName::from_static(name)) {
        let mut said = call.headers.iter();
        let value = said.find(|(said, _)| *said == name.as_str());
        if let Some(Ok(value)) = value.map(|(_, value)| HeaderValue::try_from(value)) {
            request.headers_mut().insert(name, value);
        }
    }
    Ok(request)
}

/// Adds the headers that name a span.
fn tell_span(headers: &mut HeaderMap, span: &TraceContext) {
    // Its characters are those of headers.
    if let Ok(value) = HeaderValue::try_from(span.to_string()) {
        headers.insert(HeaderName::from_static(TRACEPARENT), value);
    }
    if let Some(Ok(state)) = span.state().map(HeaderValue::from_str) {
        headers.insert(HeaderName::from_static(TRACESTATE), state);
    }
}

/// The headers of an answer by which its server names the call.
pub(super) fn call_ids(headers: &HeaderMap) -> PassedHeaders {
    let mut ids = PassedHeaders::default();
    for name in CALL_ID_HEADERS {
        if let Some(Ok(id)) = headers.get(name).map(HeaderValue::to_str) {
            ids.add(name, id);
        }
    }
    ids
}

/// Notes by which headers its server names a call.
pub(super) fn note_ids(ids: PassedHeaders, call: &GlmCall) {
    // The first answer to a call is the one that counts: later ones only tell of its task.
    let _ = call.call_ids.set(ids);
}

/// The response if it came whole. Of one that did not, a refusal still says what it is by its status;
/// a success is lost, and may have been billed.
fn whole(reply: Reply, reader: &Reader<'_>) -> Result<Whole, Failure> {
    let Reply {
        status,
        headers,
        body,
        end,
    } = reply;
    let body = layers::decoded(&headers, body);
    let success = status.is_success();
    let head = match end {
        BodyEnd::Complete => usual_head(reader.face, status.as_u16(), &body),
        _ => None,
    };
    let is_whole = match end {
        BodyEnd::Complete => true,
        // A relay may leave out the end of a body that brought all of the answer.
        _ if success => is_readable(reader.face, &layers::text(&body)),
        _ => layers::leading_json(&layers::text(&body))
            .is_some_and(|json| json.get().starts_with('{')),
    };
    let status = status.as_u16();
    let lost = match end {
        _ if is_whole => {
            return Ok(Whole {
                status,
                named: match &head {
                    Some(head) if head.request_id.is_some() => head.request_id.clone(),
                    _ if reader.face.echoes() => named_id(&body),
                    _ => None,
                },
                head,
                headers,
                body,
            });
        }
        _ if !success => classify(status, &headers, &body, reader),
        BodyEnd::Complete => not_read(status),
        BodyEnd::Cut(error) => transient(
            code::CONNECTION,
            format!("the response was cut: {}", words(&error)),
            true,
        ),
        BodyEnd::TimedOut(timeout) => timed_out(timeout, 0),
        BodyEnd::TooLarge => transient(
            code::BODY_TOO_LARGE,
            format!(
                "the response has more than {} bytes, the limit",
                limits::RESPONSE_BYTES_MAX
            ),
            true,
        ),
    };
    let received = reader.received(&headers, &body);
    Err(Failure {
        status_code: Some(status),
        received: received.map(Received::begun).map(Arc::new),
        ..lost
    })
}
