//! Pages beside the API: what a room above it may ask of it to serve HTML at paths of its own. The API knows no page; it
//! hands a [`Visit`] over, by which a page reads the lane, learns for whom a request speaks, and gives the orders
//! that the table of endpoints has: checked, let in and put on record as if they had come over HTTP.

mod pulse;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use onelane_core::model::{ActedBy, ActedFrom, ActedHow, Day, JobId, Timestamp};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use warp::http::header::CONTENT_TYPE;
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::answer::{JSON, Told};
use super::body::Body;
use super::door::Peer;
use super::endpoint::Incoming;
use super::hub::Scope;
use super::input::Reader;
use super::request_id::RequestId;
use super::{Api, account, admin, audit, query};
// What pages say and are told by.
pub(crate) use super::answer::{EVENT_STREAM, Pieces, Reply};
pub(crate) use super::auth::Known;
pub(crate) use super::paths::{Captures, Paths};
pub(crate) use super::principal::{Access, Principal};
pub(crate) use super::problem::{Kind, Problem};
pub(crate) use super::query::pairs;
use crate::orchestrator::presence::Presence;
use crate::orchestrator::{JobDetail, Orchestrator, Reconciled};
use crate::statistics::Statistics;
pub(crate) use pulse::Pulse;

/// Bytes of a form that a page takes.
const FORM_BYTES_MAX: usize = 1024 * 1024;
/// Where a page lets somebody see prompt and answer: no endpoint, an order all the same.
const REVEALED: &str = "reveal {id}";
/// What tells a watching page to look again.
const CHANGED: Bytes = Bytes::from_static(b"event: changed\ndata: \n\n");

/// Pages that are served beside the API.
pub(crate) trait Site: Send + Sync + 'static {
    /// Whether this path is one of its own.
    fn is_at(&self, path: &str) -> bool;

    /// Answers a request for one of its paths.
    fn answer(self: Arc<Self>, visit: Visit) -> BoxFuture<'static, Reply>;
}

/// Pages to be served beside the API, as [`crate::desk::pages`] makes them.
#[derive(Clone)]
pub struct Pages(pub(crate) Arc<dyn Site>);

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pages")
    }
}

impl Pages {
    /// Whether this path is one of theirs.
    pub(super) fn is_at(&self, path: &str) -> bool {
        self.0.is_at(path)
    }

    /// Answers a request for one of their paths.
    pub(super) async fn answer(
        &self,
        (api, id): (Arc<Api>, RequestId),
        (method, path, query): (Method, String, String),
        (headers, peer): (HeaderMap, Option<Peer>),
        body: Body,
    ) -> Reply {
        let visit = Visit {
            api,
            id,
            method,
            path,
            query,
            headers,
            peer: peer.and_then(|peer| peer.0),
            body: Mutex::new(Some(body)),
        };
        Arc::clone(&self.0).answer(visit).await
    }
}

/// A request for a page.
pub(crate) struct Visit {
    api: Arc<Api>,
    id: RequestId,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    /// Who asks, as far as the network tells.
    pub(crate) peer: Option<IpAddr>,
    /// Until it is read. Behind a lock, for a body alone is not to be shared.
    body: Mutex<Option<Body>>,
}

impl Visit {
    /// The lane.
    pub(crate) fn lane(&self) -> &Orchestrator {
        &self.api.lane
    }

    /// Now, by the lane's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.api.clock.now()
    }

    /// How much of prompts and answers lists show, in characters.
    pub(crate) fn preview_chars(&self) -> usize {
        self.api.preview_chars
    }

    /// Bytes that nobody can guess; `None`: the machine has no randomness now.
    pub(crate) fn secret(&self) -> Option<[u8; 32]> {
        self.api.lane.random_secret()
    }

    /// Whether pages are asked for over TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.api.auth.is_tls()
    }

    /// Whether nobody has to log in: no token is set, and only this machine gets in.
    pub(crate) fn is_open(&self) -> bool {
        self.api.auth.is_open()
    }

    /// Refuses names under which only web pages of others ask for this machine, where nobody has to log in.
    pub(crate) fn check_host(&self) -> Result<(), Problem> {
        match self.is_open() {
            true => self.api.auth.check_host(&self.headers),
            false => Ok(()),
        }
    }

    /// Whom a token or key lets in that somebody typed; `None`: nobody who may look.
    pub(crate) fn log_in(&self, typed: &str) -> Option<Known> {
        let keys = self.api.lane.client_keys();
        self.api.auth.of_typed(typed, &keys, self.now())
    }

    /// Whether what somebody logged in with lets them in still.
    pub(crate) fn knows(&self, known: &Known) -> bool {
        knows(&self.api, known)
    }

    /// The fields of the form that was sent, in their order.
    pub(crate) async fn form(&mut self) -> Result<Vec<(String, String)>, Problem> {
        let unread = self.body.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(body) = unread.take() else {
            return Ok(Vec::new());
        };
        let mut pieces = std::pin::pin!(body.pieces(FORM_BYTES_MAX as u64));
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece?);
        }
        let wrong = |what: &str| Problem::new(Kind::InvalidBody, what);
        let text = String::from_utf8(bytes).map_err(|_| wrong("the form is not UTF-8"))?;
        pairs(&text).ok_or_else(|| wrong("the form is not percent-encoded UTF-8"))
    }

    /// Parameters read into a type, checked as those of the API are. What was left empty was not given.
    pub(crate) fn read<T: DeserializeOwned + JsonSchema>(
        &self,
        given: &[(String, String)],
    ) -> Result<T, Problem> {
        let reader = Reader::<T>::new();
        let given: Vec<_> = given
            .iter()
            .filter(|(_, v)| !v.is_empty())
            .cloned()
            .collect();
        reader.read_parameters(&query::object(&given, &reader.schema), Kind::InvalidQuery)
    }

    /// The same as JSON, for the body of an order.
    pub(crate) fn typed<T: DeserializeOwned + JsonSchema>(
        &self,
        given: &[(String, String)],
    ) -> Result<Value, Problem> {
        self.read::<T>(given)?;
        let schema = Reader::<T>::new().schema;
        let broken = |_| Problem::new(Kind::Internal, "the form could not be read");
        serde_json::from_str(&query::object(given, &schema)).map_err(broken)
    }

    /// Gives an order of the table of endpoints for somebody, and answers what it answers.
    pub(crate) async fn order(
        &self,
        principal: &Principal,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Problem> {
        let body = body.map(Value::to_string).unwrap_or_default();
        self.order_of_text(principal, method, path, body).await
    }

    /// The same, with what is said as text, in which amounts of money stay exact.
    pub(crate) async fn order_of_text(
        &self,
        principal: &Principal,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<Value, Problem> {
        let answered = self.given(principal, method, path, body).await?;
        let bytes = answered.into_written().await;
        let broken = |_| Problem::new(Kind::Internal, "the answer could not be read");
        serde_json::from_slice(&bytes).map_err(broken)
    }

    /// What the table of endpoints answers somebody at a path, as it is: a file for a browser to keep.
    pub(crate) async fn file(&self, principal: &Principal, path: &str) -> Result<Reply, Problem> {
        self.given(principal, Method::GET, path, String::new())
            .await
    }

    /// Usage summed up as `GET statistics` does it, with the first and the last day that it is of.
    pub(crate) async fn statistics(
        &self,
        given: &[(String, String)],
    ) -> Result<(Statistics, [Day; 2]), Problem> {
        admin::summed(&self.api, self.read(given)?).await
    }

    /// Our books beside the provider's meter, as `GET account/reconciliation` tells it.
    pub(crate) async fn reconciled(
        &self,
        given: &[(String, String)],
    ) -> Result<Reconciled, Problem> {
        account::reconciled(&self.api, &self.read(given)?).await
    }

    async fn given(
        &self,
        principal: &Principal,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<Reply, Problem> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let (endpoint, captures) = self.api.router.find(&method, path)?;
        endpoint.access.admit(principal)?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        let chunks = stream::iter([Ok::<_, warp::Error>(Bytes::from(body))]);
        let body = Body::new(chunks, &headers, self.api.reading.clone());
        let incoming = Incoming {
            id: self.id.clone(),
            principal: principal.clone(),
            headers,
            presence: Arc::new(Presence::default()),
            captures,
            query: query.to_owned(),
            body,
        };
        audit::answer(&self.api, endpoint, incoming, ActedFrom::Page).await
    }

    /// A job with its prompt and answer for somebody who operates. That it was looked at is on record first.
    pub(crate) async fn reveal(
        &self,
        principal: &Principal,
        id: JobId,
    ) -> Result<JobDetail, Problem> {
        Access::Operate.admit(principal)?;
        let by = match principal {
            Principal::Admin => ActedBy::Admin,
            _ => ActedBy::Local,
        };
        let lane = &self.api.lane;
        let mut entry = lane.given(by, ActedFrom::Page, REVEALED.to_owned());
        entry.on = Some(id.to_string());
        entry.outcome = ActedHow::Done;
        lane.put_on_record(&entry).await?;
        Ok(lane.job(id).await?)
    }

    /// A stream that says when there may be something new to see, for as long as who watches may.
    pub(crate) fn changes(&self, pulse: &Pulse, known: Option<Known>) -> Pieces {
        let beats = pulse.watch(|| {
            self.api.events.begin(&self.api.lane);
            self.api.events.listen(Scope::default(), None)
        });
        let api = Arc::downgrade(&self.api);
        let changes = stream::unfold(beats, move |mut beats| {
            let (api, known) = (api.clone(), known.clone());
            async move {
                beats.changed().await.ok()?;
                (*beats.borrow_and_update())?;
                let api = api.upgrade()?;
                let may = known.as_ref().is_none_or(|known| knows(&api, known));
                may.then_some((Ok(CHANGED), beats))
            }
        });
        Box::pin(changes)
    }
}

/// What a page says, with its status.
pub(crate) fn whole(page: Reply) -> (StatusCode, Vec<u8>) {
    match page.into_told() {
        Told::Whole(status, bytes) => (status, bytes),
        Told::Events(_) => (StatusCode::INTERNAL_SERVER_ERROR, Vec::new()),
    }
}

fn knows(api: &Api, known: &Known) -> bool {
    let keys = api.lane.client_keys();
    known.opens(&keys, api.clock.now())
}
