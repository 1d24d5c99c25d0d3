//! The bytes of a connection as they cross the network, with a bound on how long those of an answer may lie untaken.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::{Instant, Sleep};

use super::connections::Place;
use super::limits;
use super::peek::{self, Side};

/// What a connection goes over.
pub(super) enum Wire {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Wire {
    fn io(&mut self) -> Pin<&mut dyn Both> {
        match self {
            Self::Tcp(stream) => Pin::new(stream),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream),
        }
    }

    /// The address at its other end; `None`: it is a socket of this machine, or the other end is gone.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip()),
            #[cfg(unix)]
            Self::Unix(_) => None,
        }
    }

    /// What is known of the client, once what it said before has been read.
    fn other_side(&self) -> Side {
        match self {
            Self::Tcp(stream) => peek::other_side(SockRef::from(stream)),
            #[cfg(unix)]
            Self::Unix(stream) => peek::other_side(SockRef::from(stream)),
        }
    }

    /// Whether the connection broke; told once.
    fn has_error(&self) -> bool {
        let error = match self {
            Self::Tcp(stream) => stream.take_error(),
            #[cfg(unix)]
            Self::Unix(stream) => stream.take_error(),
        };
        !matches!(error, Ok(None))
    }

    /// Whether the client has closed both directions, where the system tells that.
    fn is_left(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            #[cfg(unix)]
            Self::Unix(stream) => {
                use futures_util::FutureExt as _;
                let ready = stream.ready(tokio::io::Interest::WRITABLE).now_or_never();
                ready.is_some_and(|ready| ready.map_or(true, |ready| ready.is_write_closed()))
            }
        }
    }

    /// Has the system ask the other side from now on whether it knows of the connection: a client that has closed it is
    /// forgotten there after a while.
    fn keep_alive(&self) {
        if let Self::Tcp(stream) = self {
            let often = Duration::from_millis(limits::HALF_CLOSED_PROBE_MS);
            let probes = TcpKeepalive::new().with_time(often).with_interval(often);
            if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&probes) {
                tracing::debug!(%error, "a connection can't be asked whether it still stands");
            }
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            #[cfg(unix)]
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }
}

/// What can be read and written.
pub(super) trait Both: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Both for T {}

/// What every answer of HTTP/1 begins with, an interim one too.
const BEGINNING: &[u8] = b"HTTP/1.";

/// The bytes of a connection.
pub(super) struct Bytes {
    wire: Wire,
    place: Arc<Place>,
    /// How long [`limits::ANSWER_BYTES_MIN`] of an answer may lie untaken.
    patience: Duration,
    /// How long the client has kept us waiting for taking the bytes counted here.
    waited: Duration,
    taken: usize,
    /// How much of [`BEGINNING`] was sent ahead of its answer.
    ahead: usize,
    /// Something of them was refused.
    broken: bool,
    /// While a part of an answer waits for the client to take it.
    stall: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Bytes {
    pub(super) const fn of(wire: Wire, place: Arc<Place>, patience: Duration) -> Self {
        Self {
            wire,
            place,
            patience,
            waited: Duration::ZERO,
            taken: 0,
            ahead: 0,
            broken: false,
            stall: None,
        }
    }

    /// The first of them that comes, which is read later all the same.
    pub(super) async fn first(&self) -> Option<u8> {
        let mut first = [0];
        let read = match &self.wire {
            Wire::Tcp(stream) => stream.peek(&mut first).await,
            // It is spoken there in the clear alone.
            #[cfg(unix)]
            Wire::Unix(_) => return None,
        };
        match read {
            Ok(1..) => first.first().copied(),
            _ => None,
        }
    }

    /// Whether it is known that the client does not read any more.
    pub(super) fn have_failed(&mut self) -> bool {
        self.are_broken() || self.wire.is_left()
    }

    /// Whether it is known that the client left without having read all that it was sent: its system refuses that then.
    pub(super) fn are_broken(&mut self) -> bool {
        self.broken |= self.wire.has_error();
        self.broken
    }

    /// Whether the client has closed its own direction, and what it said before has been read.
    pub(super) fn have_closed(&mut self) -> bool {
        matches!(self.other_side(), Side::Closed | Side::Broken)
    }

    /// Whether the client has said or done something that nobody has read.
    pub(super) fn have_news(&mut self) -> bool {
        self.other_side() != Side::Open
    }

    fn other_side(&mut self) -> Side {
        let side = self.wire.other_side();
        self.broken |= side == Side::Broken;
        side
    }

    /// The client has closed its own direction: whether it has closed all of it is found out some time, without a word.
    pub(super) fn keep_alive(&self) {
        self.wire.keep_alive();
    }

    /// Asks whether the client may still be there with the next byte of its answer, whatever that will be: the system of
    /// one that is gone refuses it, and one that is there sees nothing of the question. There are few such bytes. To be
    /// asked before an answer alone.
    pub(super) fn ask(&mut self) -> bool {
        let Some(next) = BEGINNING.get(self.ahead..=self.ahead) else {
            return true;
        };
        if self.stall.is_some() {
            return true;
        }
        match self.wire.try_write(next) {
            Ok(written) => {
                self.ahead += written;
                written > 0
            }
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// Asks the same in the middle of an answer that comes in chunks, with a zero before the length of the next one. All
    /// that was to be sent must be on its way. Whether it was asked.
    pub(super) fn ask_between_chunks(&mut self) -> bool {
        if self.stall.is_some() {
            return false;
        }
        match self.wire.try_write(b"0") {
            Ok(written) => written > 0,
            Err(error) => {
                self.broken |= error.kind() != io::ErrorKind::WouldBlock;
                false
            }
        }
    }

    /// How many of these bytes of an answer were sent ahead of it.
    fn sent_ahead(&mut self, answer: &[u8]) -> io::Result<usize> {
        let ahead = BEGINNING.get(..self.ahead).unwrap_or_default();
        let sent = ahead.len().min(answer.len());
        let rest = answer.strip_prefix(ahead.get(..sent).unwrap_or_default());
        if rest.is_none() || sent < ahead.len() {
            let problem = "what was sent ahead of an answer is not its beginning";
            return Err(io::Error::other(problem));
        }
        self.ahead = 0;
        Ok(sent)
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
        if let Some((since, _)) = self.stall.take() {
            self.waited += since.elapsed();
        }
        self.broken |= written.is_err();
        self.taken += written.as_ref().map_or(0, |bytes| *bytes);
        if self.taken >= limits::ANSWER_BYTES_MIN {
            (self.waited, self.taken) = (Duration::ZERO, 0);
        }
        Poll::Ready(written)
    }

    fn stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let left = self.patience.saturating_sub(self.waited);
        let (_, timer) = self
            .stall
            .get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(left))));
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.place.count_untaken();
        self.broken = true;
        let problem = "the client does not take its answer";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, problem)))
    }
}

impl AsyncRead for Bytes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.wire.io().poll_read(cx, buf);
        self.broken |= matches!(read, Poll::Ready(Err(_)));
        read
    }
}

impl AsyncWrite for Bytes {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.ahead > 0 && !buf.is_empty() {
            return Poll::Ready(self.sent_ahead(buf));
        }
        let written = self.wire.io().poll_write(cx, buf);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty());
        if let Some(first) = first.filter(|_| self.ahead > 0) {
            return Poll::Ready(self.sent_ahead(first));
        }
        let written = self.wire.io().poll_write_vectored(cx, bufs);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.io().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.io().poll_shutdown(cx)
    }
}
