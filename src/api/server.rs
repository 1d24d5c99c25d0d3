//! The listener: our own, since warp's panics on a busy port, sets no timeout and has no bound on
//! connections. Connections are served by hyper; warp makes the answers. How many there may be is decided in
//! `connections.rs`.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use onelane_actors::ports::Clock;
use onelane_core::model::Secret;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::auth::Auth;
use super::body::Reading;
use super::connections::Bounds;
use super::door::Requests;
use super::endpoint::Router;
use super::feeder::Feeder;
use super::hub::Hub;
use super::rates::Rates;
use super::room::Rooms;
use super::socket::{Bytes, Socket};
use super::{Api, LogLines, auth, endpoints, limits};
use crate::config::ServerSection;
use crate::orchestrator::Orchestrator;

/// Why the API can't listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address makes no sense or its host is unknown.
    #[error(
        "can't listen on {listen:?}: {problem}; give an address and a port, like 127.0.0.1:4700"
    )]
    Address {
        /// The address as configured.
        listen: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Others could reach the API and nothing would stop them.
    #[error(
        "refusing to listen on {address} without a token, since others could reach it; set \
         ONELANE_ADMIN_TOKEN, or listen on 127.0.0.1"
    )]
    NoToken {
        /// The address that is not a loopback address.
        address: SocketAddr,
    },
    /// A token without a character protects nothing.
    #[error("the admin token is empty; set ONELANE_ADMIN_TOKEN to a long random text, or unset it")]
    EmptyToken,
    /// Others could reach the API, and guess the token.
    #[error(
        "refusing to listen on {address}: others could reach it, and the {whose} token {problem}; use a random \
         text, such as `openssl rand -hex 32` makes, or listen on 127.0.0.1"
    )]
    WeakToken {
        /// The address that is not a loopback address.
        address: SocketAddr,
        /// Admin or viewer.
        whose: &'static str,
        /// Why it could be guessed.
        problem: &'static str,
    },
    /// Somebody else listens there.
    #[error(
        "{address} is in use by another program, perhaps another onelane; stop that one, or choose \
         another address with --listen"
    )]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// Any other refusal of the system.
    #[error("can't listen on {address}: {source}; choose another address with --listen")]
    Io {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
    },
}

/// The API, listening. Nothing is answered until [`Server::run`].
pub struct Server {
    listener: TcpListener,
    local_addr: SocketAddr,
    filter: BoxedFilter<(Response,)>,
    http: http1::Builder,
    bounds: Arc<Bounds>,
    feeder: Arc<Feeder>,
    events: Arc<Hub>,
    /// How long a client may take for the next part of its answer.
    patience: Duration,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

/// A port that is taken, before there is a lane to serve: so that a busy port is known before the
/// first job is sent.
pub struct Listening {
    config: ServerSection,
    listener: TcpListener,
    local_addr: SocketAddr,
    log: LogLines,
}

impl Listening {
    /// Takes the address. Refuses one that is not loopback without a token.
    pub async fn on(config: ServerSection) -> Result<Self, BindError> {
        let address = resolve(&config.listen).await?;
        let is_empty = |token: &Secret| token.expose().trim().is_empty();
        let mut tokens = config.admin_token.iter().chain(&config.viewer_token);
        if tokens.any(is_empty) {
            return Err(BindError::EmptyToken);
        }
        if config.admin_token.is_none() && !address.ip().is_loopback() {
            return Err(BindError::NoToken { address });
        }
        if !address.ip().is_loopback() {
            let tokens = [
                ("admin", &config.admin_token),
                ("viewer", &config.viewer_token),
            ];
            for (whose, token) in tokens {
                let token = token.as_ref().map(Secret::expose);
                if let Some(problem) = token.and_then(auth::weakness) {
                    return Err(BindError::WeakToken {
                        address,
                        whose,
                        problem,
                    });
                }
            }
        }
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address },
            _ => BindError::Io { address, source },
        };
        let listener = listener(address).map_err(refused)?;
        let local_addr = listener.local_addr().map_err(refused)?;
        Ok(Self {
            config,
            listener,
            local_addr,
            log: LogLines::default(),
        })
    }

    /// Tells of these log lines.
    #[must_use]
    pub fn telling_of(self, log: LogLines) -> Self {
        Self { log, ..self }
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
            listener,
            local_addr,
            log,
        } = self;
        let header_timeout = Duration::from_millis(config.header_timeout_ms);
        let (of_feeder, its_clock) = (lane.clone(), Arc::clone(&clock));
        let rates = Arc::new(Rates::default());
        let feeder = Arc::new(Feeder::new(
            of_feeder,
            its_clock,
            config.batches,
            Arc::clone(&rates),
        ));
        let events = Arc::new(Hub::new(lane.random_number()));
        let bounds = Bounds::new(&config);
        let api = Api {
            lane,
            clock,
            auth: Auth::new(
                config.admin_token.as_ref(),
                config.viewer_token.as_ref(),
                local_addr.ip(),
            ),
            rates,
            router,
            reading: Reading {
                max_bytes: config.max_body_bytes,
                idle: header_timeout,
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
        };
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(header_timeout)
            // A client that has said all it wants to say is answered.
            .half_close(true)
            .max_buf_size(limits::READ_AHEAD_BYTES)
            .max_headers(limits::HEADERS_MAX)
            .max_header_size(limits::HEADER_BYTES_MAX);
        Server {
            listener,
            local_addr,
            filter: super::filter(Arc::new(api)),
            http,
            bounds,
            feeder,
            events,
            patience: Duration::from_millis(config.write_timeout_ms),
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

    /// Where it listens, with the port that was chosen.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` resolves. Then nobody new is let in, open requests have `drain` to
    /// finish, and what is still open after that is closed.
    pub async fn run(self, shutdown: impl Future<Output = ()>, drain: Duration) {
        self.feeder.remember().await;
        self.feeder.resume();
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&self.listener) => accepted,
            };
            let Some(stream) = accepted else {
                continue;
            };
            let place = tokio::select! {
                biased;
                () = &mut shutdown => break,
                place = self.bounds.place() => place,
            };
            let socket = Socket::new(stream);
            let bytes = Bytes::of(Arc::clone(&socket), Arc::clone(&place), self.patience);
            let requests = Requests {
                filter: self.filter.clone(),
                socket: Arc::clone(&socket),
                place: Arc::clone(&place),
            };
            let connection = self.http.serve_connection(TokioIo::new(bytes), requests);
            let connection = graceful.watch(connection);
            let lasting = Arc::clone(&place);
            let task = connections.spawn(async move {
                let served = connection.await;
                if let Err(error) = &served {
                    tracing::debug!(%error, "a connection ended early");
                }
                socket.linger(served.is_err()).await;
                drop(lasting);
            });
            place.ends_with(task);
        }
        drop(self.listener);
        self.events.end().await;
        if tokio::time::timeout(drain, graceful.shutdown())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = connections.len(),
                "closing connections that are still open"
            );
        }
        connections.shutdown().await;
        self.feeder.stop().await;
    }
}

/// Listens so that a burst of clients finds room to wait in: what a listener has usually is full with 128 of them, and
/// the others are a second late.
fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Elsewhere it would let another program take the port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(limits::UNACCEPTED_MAX)
}

/// The next connection. `None` when the system refused one; then the next try comes a little later, since a
/// lack of file descriptors does not pass by asking again at once.
async fn accept(listener: &TcpListener) -> Option<TcpStream> {
    const PAUSE: Duration = Duration::from_millis(50);
    match listener.accept().await {
        Ok((stream, _)) => {
            // Answers are small and written at once; waiting to fill a packet only delays them.
            let _ = stream.set_nodelay(true);
            Some(stream)
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}

/// The address to listen on. A name may have several: the IPv4 one is what most clients try.
async fn resolve(listen: &str) -> Result<SocketAddr, BindError> {
    let wrong = |problem: String| BindError::Address {
        listen: listen.to_owned(),
        problem,
    };
    let found = tokio::net::lookup_host(listen).await;
    let mut found: Vec<SocketAddr> = found.map_err(|e| wrong(e.to_string()))?.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found
        .first()
        .copied()
        .ok_or_else(|| wrong("the host has no address".to_owned()))
}
