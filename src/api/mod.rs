//! The HTTP API: one warp filter that hands every request to a table of endpoints, so that every answer,
//! good or bad, is made in one place.
//!
//! | module | what it is for |
//! |---|---|
//! | `site`, `pageless`, `audit` | what pages beside the API may ask of it, and that there are none; what operators did, on record |
//! | [`server`], `binding`, `tls` | the listener and its graceful end; where it listens and for whom; its certificate |
//! | `connections`, `serving`, `streams`, `socket`, `wire`, `peek`, `unread`, `door`, `held` | how many connections there may be; one of them, from HTTP down to its bytes; what is told of no HTTP, what stands before every route, and how answers leave |
//! | `intake` | how fast bodies are taken in |
//! | `endpoints`, `endpoint` | the table, and what a row of it is |
//! | `openapi`, `reference` | the document and the page that are made of the table |
//! | `principal`, `auth`, `credentials`, `cors` | for whom a request speaks and what that lets it do, by what it shows; which web pages may |
//! | `granted`, `rates`, `passed`, `traced` | what a client key lets a submission ask for, and how many of them; headers that GLM gets; the span that it is done for |
//! | `input`, `check`, `query`, `body`, `amount`, `pages`, `submission` | what is asked, checked and read into types |
//! | `answer`, `problem`, `envelope`, `ended`, `packing`, `request_id` | how answers look, packed where the client asks, and named as their request |
//! | `admin`, `control`, `bulk`, `billing`, `keys`, `log`, `notify`, `estimate` | handlers for operators |
//! | `events`, `hub`, `standing` | live events, resumed by their ids; the latest of them; how long a key reads on |
//! | `follow`, `sse`, `edit` | a job's stream, resumed by the ids of its events; where those begin; what is ours in them |
//! | `files`, `upload`, `room`, `batches` | uploaded files, their room, and batches that are made of them |
//! | `lines`, `terms`, `feeder` | the lines of a file, on whose terms they are handed in, and who makes jobs of them |
//! | `gateway`, `live`, `keepalive`, `responses`, `messages`, `models` | handlers for SDKs: a face of GLM's each |
//! | `response`, `background`, `input_items` | a response in the background, its stream, and what it was asked |
//! | `jobs`, `tasks`, `service` | handlers for programs, for GLM's asynchronous pair, for whoever asks what there is |

mod account;
mod admin;
mod amount;
mod answer;
mod audit;
mod auth;
mod background;
mod batches;
mod billing;
mod binding;
mod body;
mod bulk;
mod check;
mod connections;
mod control;
mod cors;
mod credentials;
mod door;
mod edit;
mod ended;
mod endpoint;
mod endpoints;
mod envelope;
mod estimate;
mod events;
mod feeder;
mod files;
mod follow;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod fuzzed;
mod gateway;
mod granted;
mod held;
mod hub;
mod input;
mod input_items;
mod intake;
mod jobs;
mod keepalive;
mod keys;
mod lane_batches;
mod lines;
mod listed;
mod live;
mod log;
mod messages;
mod models;
mod notify;
mod openapi;
mod packing;
#[cfg(not(feature = "desk"))]
mod pageless;
mod pages;
mod passed;
mod paths;
mod peek;
mod principal;
mod problem;
mod query;
mod rates;
mod reference;
mod request_id;
mod response;
mod response_error;
mod responses;
mod room;
mod scrape;
mod service;
mod serving;
#[cfg(feature = "desk")]
pub(crate) mod site;
mod socket;
mod sse;
mod standing;
mod store;
mod streams;
mod submission;
mod tasks;
mod terms;
mod tls;
mod traced;
mod unread;
mod upload;
mod wire;

pub mod dialect;
pub mod limits;
pub mod server;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Buf;
use futures_util::Stream;
use onelane_actors::ports::Clock;
use onelane_core::model::BatchSettings;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument as _;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{CACHE_CONTROL, CONNECTION, X_CONTENT_TYPE_OPTIONS};
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode};
use warp::path::FullPath;
use warp::reply::Response;

use crate::model::ActedFrom;
use crate::orchestrator::Orchestrator;
use crate::orchestrator::presence::Presence;
use answer::Reply;
use auth::Auth;
use body::{Body, LeavesUnread, Reading};
use connections::{Bounds, Door};
use cors::Cors;
use door::Peer;
use endpoint::{Incoming, Router};
use feeder::Feeder;
use hub::Hub;
use packing::Wanted;
use principal::{Access, Principal};
use problem::{Dialect, Problem};
use rates::Rates;
use request_id::RequestId;
use room::Rooms;

pub use binding::BindError;
#[cfg(not(feature = "desk"))]
pub use pageless::Pages;
pub use server::{Listening, Server};
#[cfg(feature = "desk")]
pub use site::Pages;

/// The reference page of the API in Markdown, `docs/http.md`.
#[must_use]
pub fn reference_page() -> String {
    reference::page(&openapi::document(&endpoints::router()))
}

/// The log lines that were dropped, as whoever writes the log counts them.
#[derive(Debug, Clone, Default)]
pub struct LogLines {
    dropped: Arc<AtomicU64>,
}

impl LogLines {
    /// Counts lines that were dropped.
    pub fn drop_some(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    /// How many were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// What every answer needs.
struct Api {
    lane: Orchestrator,
    clock: Arc<dyn Clock>,
    auth: Auth,
    rates: Arc<Rates>,
    router: Router,
    reading: Reading,
    bounds: Arc<Bounds>,
    log: LogLines,
    preview_chars: usize,
    batches: BatchSettings,
    rooms: Arc<Rooms>,
    /// Files that are uploaded at once.
    uploads: Arc<Semaphore>,
    feeder: Arc<Feeder>,
    events: Arc<Hub>,
    /// What is served beside it.
    pages: Option<Pages>,
    cors: Cors,
}

/// What a request tells beside what it asks for.
struct From {
    id: RequestId,
    headers: HeaderMap,
    door: Option<Door>,
    peer: Option<Peer>,
    presence: Arc<Presence>,
}

/// The whole API as one filter. It never rejects: what is wrong is an answer, too.
fn filter(api: Arc<Api>) -> BoxedFilter<(Response,)> {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<RequestId>())
        .and(warp::ext::optional::<Door>())
        .and(warp::ext::optional::<Peer>())
        .and(warp::ext::optional::<Arc<Presence>>())
        .and(warp::body::stream())
        .then(
            move |method, path, query, headers, id, door, peer, presence, body| {
                let api = Arc::clone(&api);
                let from = From {
                    id: Option::unwrap_or_default(id),
                    headers,
                    door,
                    peer,
                    presence: Option::unwrap_or_default(presence),
                };
                async move { api.answer(method, path, query, from, body).await }
            },
        )
        .boxed()
}

/// What the headers of every answer say.
fn of_every_answer(headers: &mut HeaderMap, id: &RequestId) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    id.tell(headers);
}

impl Api {
    /// Comments in streams come so often; zero: never.
    fn keepalive(&self) -> Duration {
        Duration::from_millis(self.lane.settings().gateway.keepalive_ms)
    }

    async fn answer<B: Buf>(
        self: Arc<Self>,
        method: Method,
        path: FullPath,
        query: String,
        from: From,
        chunks: impl Stream<Item = Result<B, warp::Error>> + Send + 'static,
    ) -> Response {
        let started = Instant::now();
        let path = path.as_str();
        let id = from.id.clone();
        let span = tracing::info_span!("request", id = id.text());
        let door = from.door;
        let wanted = Wanted::of(&from.headers);
        let page = self.cors.page(&from.headers);
        let preflight = page.preflight(&method, &from.headers);
        let answered = async {
            if let Some(response) = preflight {
                return (response, None);
            }
            let body = Body::new(chunks, &from.headers, self.reading.clone());
            let unread = body.unread();
            let served = Arc::clone(&self).serve(&method, path, query, from, body);
            let (reply, right) = match served.await {
                Ok(served) => served,
                Err(problem) => (problem.reply(Dialect::of(path), &id), None),
            };
            let mut response = reply.into_packed(wanted, &self.bounds).await;
            if unread.load(Ordering::Acquire) {
                response.extensions_mut().insert(LeavesUnread);
            }
            (response, right)
        };
        let (mut response, right) = answered.instrument(span).await;
        // It is in progress until all of its answer is on its way.
        if let Some(right) = right {
            response.extensions_mut().insert(Arc::new(right));
        }
        let is_refused = response.status() == StatusCode::SERVICE_UNAVAILABLE;
        let headers = response.headers_mut();
        if is_refused && door == Some(Door::Reserved) {
            // The next one of this client may be for everybody.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // What never changes under its name says so.
        let kept = headers.get(CACHE_CONTROL).cloned();
        of_every_answer(headers, &id);
        if let Some(kept) = kept.filter(|_| self.site(path).is_some()) {
            headers.insert(CACHE_CONTROL, kept);
        }
        page.tell(response.headers_mut());
        tracing::debug!(
            id = id.text(),
            %method,
            path,
            status = response.status().as_u16(),
            elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "request"
        );
        response
    }

    /// The pages that are served at this path.
    fn site(&self, path: &str) -> Option<&Pages> {
        self.pages.as_ref().filter(|pages| pages.is_at(path))
    }

    async fn serve(
        self: Arc<Self>,
        method: &Method,
        path: &str,
        query: String,
        from: From,
        mut body: Body,
    ) -> Result<(Reply, Option<OwnedSemaphorePermit>), Problem> {
        let From {
            id,
            headers,
            door,
            peer,
            presence,
        } = from;
        if let Some(pages) = self.site(path).cloned() {
            let asked = (method.clone(), path.to_owned(), query);
            let answer = pages.answer((self, id), asked, (headers, peer), body);
            return Ok((answer.await, None));
        }
        let found = self.router.find(method, path);
        let access = found.as_ref().ok().map(|(endpoint, _)| endpoint.access);
        // Before anything else: who may not ask learns nothing and sends no body.
        let principal = match access {
            Some(Access::Anybody) => Principal::Viewer,
            access => {
                let keys = self.lane.client_keys();
                let now = self.clock.now();
                self.auth.principal(&headers, access, &keys, now)?
            }
        };
        let (endpoint, captures) = found?;
        endpoint.access.admit(&principal)?;
        let right = if endpoint.is_for_operators() {
            None
        } else {
            let right = match door {
                Some(Door::Reserved) => self.bounds.refuse(),
                _ => self.bounds.request(),
            };
            if right.is_none() {
                return Err(body.refused_as_busy().await);
            }
            right
        };
        let incoming = Incoming {
            id,
            principal,
            headers,
            presence,
            captures,
            query,
            body,
        };
        let reply = audit::answer(&self, endpoint, incoming, ActedFrom::Api).await?;
        Ok((reply, right))
    }
}
