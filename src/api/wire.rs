//! The bytes of a connection as they cross the network, with a bound on how long those of an answer may lie untaken.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::{Instant, Sleep};

use super::connections::Place;
use super::{limits, peek};

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

    /// Whether the client has closed its own direction, and what it said before has been read.
    fn has_closed(&self) -> bool {
        match self {
            Self::Tcp(stream) => peek::has_closed(SockRef::from(stream)),
            #[cfg(unix)]
            Self::Unix(stream) => peek::has_closed(SockRef::from(stream)),
        }
    }

    /// Whether it is known that the client does not read any more.
    fn has_failed(&self) -> bool {
        match self {
            Self::Tcp(stream) => !matches!(stream.take_error(), Ok(None)),
            // The system tells at once that the other end was closed, not its direction alone.
            #[cfg(unix)]
            Self::Unix(stream) => {
                use futures_util::FutureExt as _;
                let ready = stream.ready(tokio::io::Interest::WRITABLE).now_or_never();
                ready.is_some_and(|ready| ready.map_or(true, |ready| ready.is_write_closed()))
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

/// The bytes of a connection.
pub(super) struct Bytes {
    wire: Wire,
    place: Arc<Place>,
    /// How long [`limits::ANSWER_BYTES_MIN`] of an answer may lie untaken.
    patience: Duration,
    /// How long the client has kept us waiting for taking the bytes counted here.
    waited: Duration,
    taken: usize,
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
    pub(super) fn have_failed(&self) -> bool {
        self.wire.has_failed()
    }

    /// Whether the client has closed its own direction, and what it said before has been read.
    pub(super) fn have_closed(&self) -> bool {
        self.wire.has_closed()
    }

    /// Asks with these bytes, which mean nothing, whether the client may still be there.
    pub(super) fn ask(&self, question: &[u8]) -> bool {
        if self.stall.is_some() {
            return true;
        }
        match self.wire.try_write(question) {
            Ok(written) => written == question.len(),
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
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
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.wire.io().poll_read(cx, buf)
    }
}

impl AsyncWrite for Bytes {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.wire.io().poll_write(cx, buf);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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
