//! A connection from its acceptance to its end: the TLS handshake, where there is one, then HTTP/1.1 or HTTP/2, as the
//! client speaks it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::connections::{Bounds, Place};
use super::door::{Peer, Requests};
use super::problem::Kind;
use super::request_id::Names;
use super::socket::{Channel, Served, Socket};
use super::streams::Streams;
use super::tls::Tls;
use super::wire::{Bytes, Wire};
use super::{limits, unread};
use crate::config::ServerSection;

/// The first byte of whoever speaks TLS.
const TLS_HANDSHAKE: u8 = 22;
/// How connections are served.
pub(super) struct Serving {
    filter: BoxedFilter<(Response,)>,
    names: Arc<Names>,
    http: auto::Builder<Streams>,
    streams: Streams,
    tls: Option<Arc<Tls>>,
    /// How long a client may take for a handshake, for headers, and between two requests.
    idle: Duration,
    /// How long it may take for the next part of its answer.
    patience: Duration,
    /// No more requests are taken.
    closing: CancellationToken,
}

impl Serving {
    pub(super) fn new(
        config: &ServerSection,
        tls: Option<Arc<Tls>>,
        filter: BoxedFilter<(Response,)>,
        names: Arc<Names>,
        bounds: Arc<Bounds>,
    ) -> Self {
        let idle = Duration::from_millis(config.header_timeout_ms);
        let patience = Duration::from_millis(config.write_timeout_ms);
        let streams = Streams::new(bounds, patience);
        let mut http = auto::Builder::new(streams.clone());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(idle)
            // A client that has said all it wants to say is answered.
            .half_close(true)
            .max_buf_size(limits::HEADER_BYTES_MAX)
            .max_headers(limits::HEADERS_MAX);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits::STREAMS_MAX)
            .max_header_list_size(limits::HEADER_LIST_BYTES_MAX)
            .max_pending_accept_reset_streams(limits::RESET_STREAMS_MAX)
            .max_local_error_reset_streams(limits::FAULTY_STREAMS_MAX)
            .initial_stream_window_size(limits::STREAM_AHEAD_BYTES)
            .initial_connection_window_size(limits::CONNECTION_AHEAD_BYTES)
            .max_send_buf_size(limits::STREAM_SEND_BYTES)
            .keep_alive_interval(Duration::from_millis(limits::PING_EVERY_MS))
            .keep_alive_timeout(Duration::from_millis(limits::PONG_WITHIN_MS));
        Self {
            filter,
            names,
            http,
            streams,
            tls,
            idle,
            patience,
            closing: CancellationToken::new(),
        }
    }

    /// From now on connections end with the requests that they have.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    /// Waits until nothing of a request is left, once every connection has ended.
    pub(super) async fn closed(&self) {
        self.streams.ended().await;
    }

    /// Serves a connection to its end.
    pub(super) async fn serve(self: Arc<Self>, wire: Wire, place: Arc<Place>) {
        // A socket of this machine crosses no network.
        let tls = self.tls.as_ref().filter(|_| matches!(wire, Wire::Tcp(_)));
        let peer = Peer(wire.peer());
        let bytes = Bytes::of(wire, Arc::clone(&place), self.patience);
        let greeted = tokio::select! {
            greeted = self.greet(bytes, tls, &place) => greeted,
            () = self.closing.cancelled() => return,
        };
        let Some((channel, http)) = greeted else {
            return;
        };
        let socket = Socket::new(channel, Arc::clone(&place));
        let requests = Requests {
            filter: self.filter.clone(),
            names: Arc::clone(&self.names),
            socket: Arc::clone(&socket),
            place: Arc::clone(&place),
            peer,
        };
        let io = Served::new(Arc::clone(&socket), Arc::clone(&self.names));
        let io = TokioIo::new(io);
        let connection = Box::pin(http.serve_connection(io, requests));
        let served = self.until_left(connection, &place).await;
        if let Err(error) = &served {
            tracing::debug!(error, "a connection ended early");
            if place.waits_for_headers() && place.is_idle_for(self.idle) {
                let late = unread::answer(Kind::HeadersTimeout, &self.names);
                let mut io = Served::new(Arc::clone(&socket), Arc::clone(&self.names));
                let _ = io.write_all(&late).await;
            }
        }
        self.end(&socket, served.is_err()).await;
        drop(place);
    }

    /// Ends a connection, and leaves the client time to read its answer: little once the server is about to end.
    /// `has_failed`: that could not be written to its end.
    async fn end(&self, socket: &Socket, has_failed: bool) {
        if !socket.close(has_failed).await {
            return;
        }
        let ending = async {
            self.closing.cancelled().await;
            tokio::time::sleep(Duration::from_millis(limits::LINGER_MS_MAX)).await;
        };
        tokio::select! {
            () = socket.linger() => {}
            () = ending => {}
        }
        socket.is_over();
    }

    /// The connection as HTTP is spoken on it, and which; `None`: there was no handshake.
    async fn greet(
        &self,
        bytes: Bytes,
        tls: Option<&Arc<Tls>>,
        place: &Arc<Place>,
    ) -> Option<(Channel, auto::Builder<Streams>)> {
        let http = self.http.clone();
        let Some(tls) = tls else {
            return Some((Channel::Clear(bytes), http));
        };
        let handshake = async {
            if bytes.first().await? != TLS_HANDSHAKE {
                return Some(Err(bytes));
            }
            let acceptor = TlsAcceptor::from(tls.current().await);
            let greeted = acceptor.accept(bytes).await;
            let failed = |error| tracing::debug!(%error, "a TLS handshake failed");
            greeted.map_err(failed).ok().map(Ok)
        };
        let greeted = tokio::time::timeout(self.idle, handshake).await.ok()??;
        let stream = match greeted {
            Ok(stream) => stream,
            Err(bytes) => {
                let socket = Socket::new(Channel::Clear(bytes), Arc::clone(place));
                let mut io = Served::new(Arc::clone(&socket), Arc::clone(&self.names));
                let _ = io
                    .write_all(&unread::answer(Kind::TlsAlone, &self.names))
                    .await;
                self.end(&socket, false).await;
                return None;
            }
        };
        let http = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => http.http2_only(),
            Some(_) => http.http1_only(),
            None => http,
        };
        Some((Channel::Tls(Box::new(stream)), http))
    }

    /// Serves requests until the connection ends, has been without one for too long, or is to be left.
    async fn until_left(
        &self,
        mut connection: Pin<Box<auto::Connection<'_, TokioIo<Served>, Requests, Streams>>>,
        place: &Place,
    ) -> Result<(), String> {
        let mut is_left = false;
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => return ended.map_err(|error| error.to_string()),
                () = self.closing.cancelled(), if !is_left => {}
                () = place.is_left(self.idle), if !is_left => {}
                () = place.stays_without_request(self.idle), if is_left => return Ok(()),
            }
            is_left = true;
            connection.as_mut().graceful_shutdown();
        }
    }
}
