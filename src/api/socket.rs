//! A client's connection: its bytes in and out, with a bound on how long an answer may lie untaken, and
//! whether the client is still there.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::connections::Place;
use super::limits;
use super::peek::has_closed;
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

/// What the server and its watch of the client share.
pub(super) struct Socket {
    stream: Mutex<TcpStream>,
    /// Whether a part of an answer waits for the client to take it.
    is_blocked: AtomicBool,
    /// What others are told of the client.
    presence: Arc<Presence>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Arc<Self> {
        let socket = Arc::new(Self {
            stream: Mutex::new(stream),
            is_blocked: AtomicBool::new(false),
            presence: Arc::default(),
        });
        let looked_at = Arc::downgrade(&socket);
        socket.presence.look_by(move || {
            // One that has ended altogether is about to be known as gone.
            let socket = looked_at.upgrade();
            socket.is_none_or(|socket| has_closed(SockRef::from(&*socket.stream())))
        });
        socket
    }

    /// Whether the client is there, for those who want to know.
    pub(super) fn presence(&self) -> Arc<Presence> {
        Arc::clone(&self.presence)
    }

    fn stream(&self) -> MutexGuard<'_, TcpStream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when the client is gone. One that has only closed its own direction reads on: nothing but
    /// a write tells the two apart, so it is asked with an interim response, where `may_ask`. To be polled by the
    /// task that serves the connection.
    pub(super) async fn gone(&self, may_ask: bool) {
        loop {
            let mut byte = [0; 1];
            let peeked = poll_fn(|cx| {
                let mut buf = ReadBuf::new(&mut byte);
                self.stream().poll_peek(cx, &mut buf)
            });
            match peeked.await {
                Ok(0) => break,
                // Bytes of the body, or of the next request, hide what comes after them.
                Ok(_) => tokio::time::sleep(LOOK_EVERY).await,
                Err(_) => return,
            }
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
            if self.has_failed() {
                return;
            }
            if may_ask && Instant::now() >= ask_at {
                if !self.ask() {
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
        let closed = poll_fn(|cx| Pin::new(&mut *self.stream()).poll_shutdown(cx));
        let is_lost = has_failed || closed.await.is_err() || self.is_refused().await;
        self.presence.ended(is_lost);
        if is_lost {
            return;
        }
        let until = Instant::now() + Duration::from_millis(limits::LINGER_MS_MAX);
        let mut waste = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut waste);
            let read = poll_fn(|cx| Pin::new(&mut *self.stream()).poll_read(cx, &mut buf));
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
        while !self.has_failed() {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        true
    }

    fn has_failed(&self) -> bool {
        !matches!(self.stream().take_error(), Ok(None))
    }

    /// Whether the client may still be there.
    fn ask(&self) -> bool {
        if self.is_blocked.load(Ordering::Acquire) {
            return true;
        }
        match self.stream().try_write(QUESTION) {
            Ok(written) => written == QUESTION.len(),
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

/// The bytes of a connection, for the server.
pub(super) struct Bytes {
    socket: Arc<Socket>,
    place: Arc<Place>,
    /// How long [`limits::ANSWER_BYTES_MIN`] of an answer may lie untaken.
    patience: Duration,
    /// How long the client has kept us waiting for taking the bytes counted here.
    waited: Duration,
    taken: usize,
    stall: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Bytes {
    pub(super) const fn of(socket: Arc<Socket>, place: Arc<Place>, patience: Duration) -> Self {
        Self {
            socket,
            place,
            patience,
            waited: Duration::ZERO,
            taken: 0,
            stall: None,
        }
    }

    /// What a write came to, under the bound.
    fn written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(written) = written else {
            return self.stalled(cx);
        };
        self.socket.is_blocked.store(false, Ordering::Release);
        if let Some((since, _)) = self.stall.take() {
            self.waited += since.elapsed();
        }
        self.taken += written.as_ref().map_or(0, |bytes| *bytes);
        if self.taken >= limits::ANSWER_BYTES_MIN {
            (self.waited, self.taken) = (Duration::ZERO, 0);
        }
        Poll::Ready(written)
    }

    fn stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.socket.is_blocked.store(true, Ordering::Release);
        let left = self.patience.saturating_sub(self.waited);
        let (_, timer) = self
            .stall
            .get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(left))));
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.place.count_untaken();
        let problem = "the client does not take its answer";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, problem)))
    }
}

impl AsyncRead for Bytes {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.place.reads();
        Pin::new(&mut *self.socket.stream()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Bytes {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.socket.stream()).poll_write(cx, buf);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.socket.stream()).poll_write_vectored(cx, bufs);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket.stream()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket.stream()).poll_shutdown(cx)
    }
}
