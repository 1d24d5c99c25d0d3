//! A client's connection, which the server shares with a watch of the client: what is read and written on it, in the
//! clear or over TLS, and whether the client is still there.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::connections::Place;
use super::limits;
use super::wire::{Both, Bytes};
use crate::orchestrator::clients::{ANSWERS_WITHIN, Presence};

/// How often a connection is looked at of which nothing can be heard by waiting.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// And when somebody waits for what comes of the question.
const LOOK_SOON: Duration = Duration::from_millis(2);
/// How often after an answer that may have been refused.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// A client that has closed its direction of the connection is asked for the first time after this: most
/// answers are there before.
const ASK_AFTER: Duration = Duration::from_secs(2);
/// And again after this.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// The question: every client has to skip an interim response, and the system of one that is gone refuses it.
const QUESTION: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Bytes that the watch reads at once before the server wants them.
const WATCHED_BYTES: usize = 4 * 1024;

/// How bytes become HTTP.
pub(super) enum Channel {
    Clear(Bytes),
    Tls(Box<TlsStream<Bytes>>),
}

impl Channel {
    fn io(&mut self) -> Pin<&mut dyn Both> {
        match self {
            Self::Clear(bytes) => Pin::new(bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }

    fn bytes(&self) -> &Bytes {
        match self {
            Self::Clear(bytes) => bytes,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    fn bytes_mut(&mut self) -> &mut Bytes {
        match self {
            Self::Clear(bytes) => bytes,
            Self::Tls(stream) => stream.get_mut().0,
        }
    }
}

struct Shared {
    channel: Channel,
    /// What the watch has read, and the server has not.
    ahead: Vec<u8>,
}

/// What the watch saw of the client.
enum Seen {
    /// Bytes of the body, or of the next request: they hide what comes after them.
    Bytes,
    /// It has closed its own direction.
    End,
    Broken,
}

impl Shared {
    /// Whether the client has closed its own direction, whoever has been told. Of what is encrypted nobody can say.
    fn has_closed(&self) -> bool {
        match &self.channel {
            Channel::Clear(bytes) => self.ahead.is_empty() && bytes.have_closed(),
            Channel::Tls(_) => false,
        }
    }

    fn look(&mut self, cx: &mut Context<'_>) -> Poll<Seen> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Seen::Bytes);
        }
        let mut bytes = [0; WATCHED_BYTES];
        let mut buf = ReadBuf::new(&mut bytes);
        if ready!(self.channel.io().poll_read(cx, &mut buf)).is_err() {
            return Poll::Ready(Seen::Broken);
        }
        if buf.filled().is_empty() {
            return Poll::Ready(Seen::End);
        }
        self.ahead.extend_from_slice(buf.filled());
        // The server, in the same task, may have found nothing just before.
        cx.waker().wake_by_ref();
        Poll::Ready(Seen::Bytes)
    }
}

/// A connection.
pub(super) struct Socket {
    shared: Mutex<Shared>,
    place: Arc<Place>,
    /// What others are told of the client.
    presence: Arc<Presence>,
}

impl Socket {
    pub(super) fn new(channel: Channel, place: Arc<Place>) -> Arc<Self> {
        let shared = Shared {
            channel,
            ahead: Vec::new(),
        };
        let socket = Arc::new(Self {
            shared: Mutex::new(shared),
            place,
            presence: Arc::default(),
        });
        let looked_at = Arc::downgrade(&socket);
        socket.presence.look_by(move || {
            // One that has ended altogether is about to be known as gone.
            let socket = looked_at.upgrade();
            socket.is_none_or(|socket| socket.shared().has_closed())
        });
        socket
    }

    /// Whether the client is there, for those who want to know.
    pub(super) fn presence(&self) -> Arc<Presence> {
        Arc::clone(&self.presence)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when the client is gone, on a connection that has one request at a time. Over TLS a client that has
    /// closed its own direction is gone. In the clear it may read on: nothing but a write tells the two apart, so it is
    /// asked with an interim response, where `may_ask`. To be polled by the task that serves the connection.
    pub(super) async fn gone(&self, may_ask: bool) {
        loop {
            match poll_fn(|cx| self.shared().look(cx)).await {
                Seen::Bytes => tokio::time::sleep(LOOK_EVERY).await,
                Seen::End => break,
                Seen::Broken => return,
            }
        }
        if matches!(self.shared().channel, Channel::Tls(_)) {
            return;
        }
        self.presence.closing();
        let mut ask_at = Instant::now() + ASK_AFTER;
        let mut look_every = LOOK_EVERY;
        loop {
            tokio::select! {
                () = tokio::time::sleep(look_every) => look_every = LOOK_EVERY,
                // Somebody asks the same, and wants to know whether it is this one again.
                () = self.presence.asked() => {
                    ask_at = Instant::now();
                    look_every = LOOK_SOON;
                }
            }
            if self.shared().channel.bytes().have_failed() {
                return;
            }
            if may_ask && Instant::now() >= ask_at {
                if !self.shared().channel.bytes().ask(QUESTION) {
                    return;
                }
                ask_at = Instant::now() + ASK_EVERY;
            }
        }
    }

    /// Ends the connection so that its client gets to read what it was sent: says that nothing more comes, and throws
    /// away what the client still sends until it has closed its side too, within bounds. `has_failed`: it could not be
    /// written to its end.
    pub(super) async fn linger(&self, has_failed: bool) {
        let until = Instant::now() + Duration::from_millis(limits::LINGER_MS_MAX);
        let closing = poll_fn(|cx| self.shared().channel.io().poll_shutdown(cx));
        let closed = tokio::time::timeout_at(until, closing).await;
        let is_lost = has_failed || !matches!(closed, Ok(Ok(()))) || self.is_refused().await;
        self.presence.ended(is_lost);
        if is_lost {
            return;
        }
        let mut waste = [0; 1024];
        loop {
            let mut buf = ReadBuf::new(&mut waste);
            let read =
                poll_fn(|cx| Pin::new(self.shared().channel.bytes_mut()).poll_read(cx, &mut buf));
            match tokio::time::timeout_at(until, read).await {
                Ok(Ok(())) if !buf.filled().is_empty() && Instant::now() < until => {}
                _ => return,
            }
        }
    }

    /// Whether the client's system refuses what it was sent: that of one that is gone does so in a moment.
    async fn is_refused(&self) -> bool {
        if !self.presence.may_be_gone() {
            return false;
        }
        let until = Instant::now() + ANSWERS_WITHIN;
        while !self.shared().channel.bytes().have_failed() {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        true
    }
}

/// A connection as the server reads and writes it.
pub(super) struct Served(pub(super) Arc<Socket>);

impl AsyncRead for Served {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.place.reads();
        let mut shared = self.0.shared();
        if shared.ahead.is_empty() {
            return shared.channel.io().poll_read(cx, buf);
        }
        let most = shared.ahead.len().min(buf.remaining());
        let rest = shared.ahead.split_off(most);
        buf.put_slice(&std::mem::replace(&mut shared.ahead, rest));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Served {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.shared().channel.io().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.shared().channel.io().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.shared().channel.io().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.shared().channel.io().poll_shutdown(cx)
    }
}
