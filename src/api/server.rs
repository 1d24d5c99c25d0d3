//! The listener: our own, since warp's panics on a busy port, sets no timeout and has no bound on
//! connections. Connections are served by hyper (`serving.rs`); warp makes the answers. How many there may be is decided in
//! `connections.rs`.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use onelane_actors::ports::Clock;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::auth::Auth;
use super::binding::{BindError, Places};
use super::body::Reading;
use super::connections::Bounds;
use super::cors::Cors;
use super::endpoint::Router;
use super::feeder::Feeder;
use super::hub::Hub;
use super::rates::Rates;
use super::request_id::Names;
use super::room::Rooms;
use super::serving::Serving;
use super::tls::Tls;
use super::wire::Wire;
use super::{Api, LogLines, Pages, endpoints, limits};
use crate::config::ServerSection;
use crate::orchestrator::Orchestrator;

/// The API, listening. Nothing is answered until [`Server::run`].
pub struct Server {
    places: Places,
    is_tls: bool,
    serving: Arc<Serving>,
    bounds: Arc<Bounds>,
    feeder: Arc<Feeder>,
    events: Arc<Hub>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

/// A port that is taken, before there is a lane to serve: so that a busy port is known before the
/// first job is sent.
pub struct Listening {
    config: ServerSection,
    tls: Option<Arc<Tls>>,
    places: Places,
    log: LogLines,
    pages: Option<Pages>,
}

impl Listening {
    /// Takes address and socket. Refuses an address that is not loopback without a token.
    pub async fn on(config: ServerSection) -> Result<Self, BindError> {
        let tls = Tls::of(&config)?;
        let places = Places::take(&config).await?;
        Ok(Self {
            config,
            tls,
            places,
            log: LogLines::default(),
            pages: None,
        })
    }

    /// Tells of these log lines.
    #[must_use]
    pub fn telling_of(self, log: LogLines) -> Self {
        Self { log, ..self }
    }

    /// Serves these pages, too.
    #[must_use]
    pub fn with_pages(self, pages: Pages) -> Self {
        let pages = Some(pages);
        Self { pages, ..self }
    }

    /// The server of this lane. `clock` says which day it is.
    #[must_use]
    pub fn serve(self, lane: Orchestrator, clock: Arc<dyn Clock>) -> Server {
        self.serve_table(lane, clock, endpoints::router())
    }

    /// The server of this lane with these endpoints.
    pub(super) fn serve_table(
        self,
        lane: Orchestrator,
        clock: Arc<dyn Clock>,
        router: Router,
    ) -> Server {
        let Self {
            config,
            tls,
            places,
            log,
            pages,
        } = self;
        let (of_feeder, its_clock) = (lane.clone(), Arc::clone(&clock));
        let rates = Arc::new(Rates::default());
        let feeder = Arc::new(Feeder::new(
            of_feeder,
            its_clock,
            config.batches,
            Arc::clone(&rates),
        ));
        let process = lane.random_number();
        let events = Arc::new(Hub::new(process));
        let cors = Cors::new(&config.cors_origins);
        let bounds = Bounds::new(&config);
        let ip = places.address().map_or(LOOPBACK, |address| address.ip());
        let (admin, viewer) = (config.admin_token.as_ref(), config.viewer_token.as_ref());
        let auth = Auth::new(admin, viewer, ip).with_pages(cors.clone());
        let auth = match &tls {
            Some(_) => auth.over_tls(),
            None => auth,
        };
        let api = Api {
            lane,
            clock,
            auth,
            cors,
            rates,
            router,
            reading: Reading {
                max_bytes: config.max_body_bytes,
                idle: Duration::from_millis(config.body_idle_timeout_ms),
                whole: Duration::from_millis(config.body_timeout_ms),
                bounds: Arc::clone(&bounds),
            },
            bounds: Arc::clone(&bounds),
            log,
            preview_chars: config.preview_chars,
            batches: config.batches,
            rooms: Arc::new(Rooms::new(config.batches)),
            uploads: Arc::new(Semaphore::new(limits::UPLOADS_MAX)),
            feeder: Arc::clone(&feeder),
            events: Arc::clone(&events),
            pages,
        };
        let (is_tls, names) = (tls.is_some(), Arc::new(Names::new(process)));
        let filter = super::filter(Arc::new(api));
        let serving = Serving::new(&config, tls, filter, names, Arc::clone(&bounds));
        Server {
            places,
            is_tls,
            serving: Arc::new(serving),
            bounds,
            feeder,
            events,
        }
    }
}

impl Server {
    /// Listens. `lane` is the orchestrator; `clock` says which day it is.
    pub async fn bind(
        config: ServerSection,
        lane: Orchestrator,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BindError> {
        Ok(Listening::on(config).await?.serve(lane, clock))
    }

    /// How clients reach it: the URL of its address, and the path of its socket behind `unix:`.
    #[must_use]
    pub fn reached_at(&self) -> Vec<String> {
        let scheme = if self.is_tls { "https" } else { "http" };
        let address = self.local_addr().map(|addr| format!("{scheme}://{addr}"));
        let socket = self.places.socket();
        let socket = socket.map(|path| format!("unix:{}", path.display()));
        address.into_iter().chain(socket).collect()
    }

    /// The address that it listens on, with the port that was chosen; `None`: it listens on a socket alone.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.places.address()
    }

    /// Serves until `shutdown` resolves. Then nobody new is let in, open requests have `drain` to
    /// finish, and what is still open after that is closed.
    pub async fn run(self, shutdown: impl Future<Output = ()>, drain: Duration) {
        self.feeder.remember().await;
        self.feeder.resume();
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&self.places) => accepted,
            };
            let Some(wire) = accepted else {
                continue;
            };
            let place = tokio::select! {
                biased;
                () = &mut shutdown => break,
                place = self.bounds.place() => place,
            };
            let serving = Arc::clone(&self.serving).serve(wire, Arc::clone(&place));
            let task = connections.spawn(serving);
            place.ends_with(task);
        }
        drop(self.places);
        self.events.end().await;
        self.serving.close();
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(drain, ended).await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "closing connections that are still open"
            );
        }
        connections.shutdown().await;
        self.serving.closed().await;
        self.feeder.stop().await;
    }
}

/// What no address is said to be.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The next connection. `None` when the system refused one; then the next try comes a little later, since a
/// lack of file descriptors does not pass by asking again at once.
async fn accept(places: &Places) -> Option<Wire> {
    const PAUSE: Duration = Duration::from_millis(50);
    match places.accept().await {
        Ok(wire) => Some(wire),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}
