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
use super::request_id::Names;
use super::wire::{Both, Bytes};
use super::{limits, unread};
use crate::orchestrator::presence::{ANSWERS_WITHIN, Presence, Sight};

/// How often a connection is looked at of which nothing can be heard by waiting.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// And when somebody waits for what comes of the question.
const LOOK_SOON: Duration = Duration::from_millis(2);
/// How often after an answer that may have been refused.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// A client that has closed its direction of the connection is asked for the first time after this: most
/// answers are there before.
const ASK_AFTER: Duration = Duration::from_secs(2);
/// The same where the job can't be taken up again: who waits for its slot waits for this.
const ASK_SOON: Duration = Duration::from_millis(20);
/// And again after this.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// But not again while the last question may still be refused.
const ASK_APART: Duration = Duration::from_millis(150);
/// What was read on a connection that has several requests at once has reached all of them after this.
const SETTLES_WITHIN: Duration = Duration::from_millis(50);
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

    fn bytes(&mut self) -> &mut Bytes {
        match self {
            Self::Clear(bytes) => bytes,
            Self::Tls(stream) => stream.get_mut().0,
        }
    }
}

struct Shared {
    channel: Channel,
    /// When the server read of it last.
    heard_at: Option<Instant>,
    /// All that the server had to say is on its way.
    is_flushed: bool,
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
    /// What shows of the client, whoever has been told. Of what is encrypted nobody can say that it is over.
    fn sight(&mut self) -> Sight {
        let is_all_read = self.is_all_read();
        let closing = match &mut self.channel {
            Channel::Clear(bytes) => is_all_read && bytes.have_closed(),
            Channel::Tls(_) => false,
        };
        let broken = self.channel.bytes().are_broken();
        Sight { closing, broken }
    }

    /// Whether what it says or does is still to be read, which may be that it leaves: under TLS nobody can look at it
    /// without reading it.
    fn stirs(&mut self) -> bool {
        let is_hidden = matches!(self.channel, Channel::Tls(_));
        is_hidden && self.channel.bytes().have_news()
    }

    /// Whether all is read that means anything: empty lines between requests mean nothing.
    fn is_all_read(&self) -> bool {
        self.ahead.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
    }

    fn look(&mut self, cx: &mut Context<'_>) -> Poll<Seen> {
        if !self.is_all_read() || self.ahead.len() >= WATCHED_BYTES {
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
            heard_at: None,
            is_flushed: false,
            ahead: Vec::new(),
        };
        let socket = Arc::new(Self {
            shared: Mutex::new(shared),
            place,
            presence: Arc::default(),
        });
        let looked_at = Arc::downgrade(&socket);
        socket.presence.look_by(move || {
            let socket = looked_at.upgrade();
            // One that has ended altogether is about to be known as gone.
            let gone = Sight {
                closing: true,
                broken: false,
            };
            socket.map_or(gone, |socket| socket.shared().sight())
        });
        let looked_at = Arc::downgrade(&socket);
        socket.presence.stirs_by(move || {
            let socket = looked_at.upgrade();
            socket.is_none_or(|socket| socket.shared().stirs())
        });
        socket
    }

    /// Whether the client of one request among several is there. What it takes back is read with all that it says, and
    /// known a moment later to whoever serves that request.
    pub(super) fn presence_among_others(self: &Arc<Self>) -> Arc<Presence> {
        let presence = Arc::new(Presence::default());
        let looked_at = Arc::downgrade(self);
        presence.stirs_by(move || {
            let socket = looked_at.upgrade();
            socket.is_none_or(|socket| {
                let mut shared = socket.shared();
                let has_settled = shared
                    .heard_at
                    .is_none_or(|at| at.elapsed() >= SETTLES_WITHIN);
                !has_settled || shared.channel.bytes().have_news()
            })
        });
        presence
    }

    /// Whether the client is there, for those who want to know.
    pub(super) fn presence(&self) -> Arc<Presence> {
        Arc::clone(&self.presence)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when the client is gone, on a connection that has one request at a time. Over TLS a client that has
    /// closed its own direction is gone. In the clear it may read on: nothing but a write tells the two apart soon, so the
    /// beginning of its answer is sent ahead, byte by byte, where `may_ask`: while nothing of it was sent. To be polled by
    /// the task that serves the connection.
    pub(super) async fn gone(&self, may_ask: bool) {
        loop {
            match poll_fn(|cx| self.shared().look(cx)).await {
                Seen::Bytes => tokio::time::sleep(LOOK_EVERY).await,
                Seen::End => break,
                Seen::Broken => {
                    self.presence.closing();
                    return;
                }
            }
        }
        self.presence.closing();
        if matches!(self.shared().channel, Channel::Tls(_)) {
            return;
        }
        self.shared().channel.bytes().keep_alive();
        let mut asked_at: Option<Instant> = None;
        // A job that nobody can come back for ends with its client.
        let (ask_after, mut look_every) = match self.presence.is_hurried() {
            true => (ASK_SOON, LOOK_SOON),
            false => (ASK_AFTER, LOOK_EVERY),
        };
        let mut ask_at = Instant::now() + ask_after;
        loop {
            tokio::select! {
                () = tokio::time::sleep(look_every) => {
                    if asked_at.is_some_and(|asked| asked.elapsed() > LOOK_EVERY) {
                        look_every = LOOK_EVERY;
                    }
                }
                // Somebody asks the same, and wants to know whether it is this one again.
                () = self.presence.asked() => {
                    ask_at = asked_at.map_or_else(Instant::now, |asked| asked + ASK_APART);
                    look_every = LOOK_SOON;
                }
            }
            if self.shared().channel.bytes().have_failed() {
                return;
            }
            if may_ask && Instant::now() >= ask_at {
                if !self.shared().channel.bytes().ask() {
                    return;
                }
                asked_at = Some(Instant::now());
                ask_at = Instant::now() + ASK_EVERY;
            }
        }
    }

    /// A part of an answer is handed to the server, which writes it next.
    pub(super) fn hands(&self) {
        self.shared().is_flushed = false;
    }

    /// Asks whether the client is still there between two chunks of its answer, if that is where it is. Whether it was
    /// asked.
    pub(super) fn ask_between_chunks(&self) -> bool {
        let mut shared = self.shared();
        shared.is_flushed && shared.channel.bytes().ask_between_chunks()
    }

    /// Says that nothing more comes, and finds out whether the client gets to read what it was sent; `false`: it does
    /// not. `has_failed`: it could not be written to its end.
    pub(super) async fn close(&self, has_failed: bool) -> bool {
        let until = Instant::now() + Duration::from_millis(limits::LINGER_MS_MAX);
        let closing = poll_fn(|cx| self.shared().channel.io().poll_shutdown(cx));
        let closed = tokio::time::timeout_at(until, closing).await;
        let is_lost = has_failed || !matches!(closed, Ok(Ok(()))) || self.is_refused().await;
        if is_lost {
            let is_broken = self.shared().channel.bytes().are_broken();
            self.presence.ended(true, is_broken);
        }
        !is_lost
    }

    /// The connection is over: whether its client has read all that it was sent shows now, if ever.
    pub(super) fn is_over(&self) {
        let is_broken = self.shared().channel.bytes().are_broken();
        self.presence.ended(is_broken, is_broken);
    }

    /// Throws away what the client still sends until it has closed its side too, within bounds, so that it gets to read
    /// what it was sent: one that writes first and reads afterwards as well.
    pub(super) async fn linger(&self) {
        let mut share = self.place.waste();
        let idle = Duration::from_millis(limits::LINGER_MS_MAX);
        let began = Instant::now();
        let until = began + Duration::from_millis(limits::LINGER_WHOLE_MS_MAX);
        let mut waste = Vec::new();
        let mut thrown_away = 0;
        while thrown_away < limits::LINGER_BYTES_MAX {
            // Nearly everybody has closed already, and sends nothing.
            let most = match thrown_away {
                0 => 1,
                _ => limits::LINGER_READ_BYTES,
            };
            waste.resize(most, 0);
            let mut buf = ReadBuf::new(&mut waste);
            let read =
                poll_fn(|cx| Pin::new(self.shared().channel.bytes()).poll_read(cx, &mut buf));
            let soon = Instant::now() + idle;
            let Ok(Ok(())) = tokio::time::timeout_at(soon.min(until), read).await else {
                return;
            };
            let bytes = buf.filled().len();
            if bytes == 0 {
                return;
            }
            thrown_away += bytes as u64;
            if began.elapsed() >= idle {
                self.place.lingers();
            }
            tokio::time::sleep_until(until.min(Instant::now() + share.take(bytes))).await;
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

impl Drop for Socket {
    fn drop(&mut self) {
        // It was cut off, unless it is known how it ended.
        self.presence.ended(true, true);
    }
}

/// A connection as the server reads and writes it.
pub(super) struct Served {
    socket: Arc<Socket>,
    names: Arc<Names>,
    /// What is left of an answer that is sent in place of the server's own.
    instead: Vec<u8>,
}

impl Served {
    pub(super) const fn new(socket: Arc<Socket>, names: Arc<Names>) -> Self {
        Self {
            socket,
            names,
            instead: Vec::new(),
        }
    }

    /// Writes what is said in place of this, where that is the answer to a request that could not be read; `None`: it is
    /// not.
    fn in_words(&mut self, cx: &mut Context<'_>, made: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.instead.is_empty() {
            self.instead = unread::in_words(made, &self.names)
                .filter(|_| self.socket.place.is_between_requests())?;
        }
        while !self.instead.is_empty() {
            let mut shared = self.socket.shared();
            match shared.channel.io().poll_write(cx, &self.instead) {
                Poll::Ready(Ok(0)) => {
                    return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into())));
                }
                Poll::Ready(Ok(written)) => self.instead.drain(..written),
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => return Some(Poll::Pending),
            };
        }
        Some(Poll::Ready(Ok(made.len())))
    }
}

impl AsyncRead for Served {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = &self.socket;
        socket.place.reads();
        let before = buf.filled().len();
        let mut shared = socket.shared();
        if shared.ahead.is_empty() {
            let read = ready!(shared.channel.io().poll_read(cx, buf));
            shared.heard_at = Some(Instant::now());
            read?;
        } else {
            let most = shared.ahead.len().min(buf.remaining());
            let rest = shared.ahead.split_off(most);
            buf.put_slice(&std::mem::replace(&mut shared.ahead, rest));
        }
        if buf.filled().len() > before {
            socket.place.has_read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Served {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(written) = self.in_words(cx, buf) {
            return written;
        }
        let mut shared = self.socket.shared();
        shared.is_flushed = false;
        shared.channel.io().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [all] = bufs
            && let Some(written) = self.in_words(cx, all)
        {
            return written;
        }
        let mut shared = self.socket.shared();
        shared.is_flushed = false;
        shared.channel.io().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.socket.shared();
        ready!(shared.channel.io().poll_flush(cx))?;
        shared.is_flushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.shared().channel.io().poll_shutdown(cx)
    }
}
