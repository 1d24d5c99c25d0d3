//! The body of an answer on its way to its client, who may be gone before all of it came, take it slowly, or have asked
//! for its headers alone.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::future::BoxFuture;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use warp::http::Version;
use warp::http::header::CONTENT_TYPE;
use warp::reply::Response;

use super::answer::EVENT_STREAM;
use super::connections::Stream;
use super::limits;
use super::socket::Socket;
use super::streams::Handed;

/// The client is gone: nobody is there to be answered.
#[derive(Debug, thiserror::Error)]
#[error("the client is gone")]
pub(super) struct Gone;

impl From<Infallible> for Gone {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// A comment of an event stream: nothing for whoever reads it, and refused by the system of whoever is gone.
const COMMENT: &[u8] = b":\n\n";
/// How often a client that has closed its own direction is asked by one whether it reads on.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// And when somebody wants to know.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Zeros before the length of a chunk; some clients count its digits.
const ZEROS_MAX: u8 = 4;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Whether the client of an event stream leaves it: no piece may come for a long time that would show it.
pub(super) struct Watch {
    socket: Arc<Socket>,
    gone: BoxFuture<'static, ()>,
    /// An event has ended, so that a comment may follow.
    is_between_events: bool,
    /// Its bytes come in chunks.
    is_chunked: bool,
    /// How often it was asked before the next chunk.
    zeros: u8,
    asked: Option<Instant>,
}

impl Watch {
    /// Of the answer to a request of this version of HTTP.
    pub(super) fn of(socket: &Arc<Socket>, version: Version) -> Self {
        let watched = Arc::clone(socket);
        Self {
            socket: Arc::clone(socket),
            gone: Box::pin(async move { watched.gone(false).await }),
            is_between_events: false,
            is_chunked: version == Version::HTTP_11,
            // The head of the answer may not be on its way.
            zeros: ZEROS_MAX,
            asked: None,
        }
    }

    /// These bytes are handed on.
    fn saw(&mut self, data: &[u8]) {
        self.is_between_events = data.ends_with(b"\n\n") || data.ends_with(b"\r\n\r\n");
        self.socket.hands();
        self.zeros = 0;
    }

    /// While nothing is to be handed on: whether the client is gone, or a question to it.
    fn look(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.gone.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        let presence = self.socket.presence();
        // Whoever asks the same waits for what comes of it.
        let rest = match presence.was_asked() {
            true => ASK_AGAIN,
            false => ASK_EVERY,
        };
        let is_due = self.asked.is_none_or(|at| at.elapsed() >= rest);
        if !is_due || !presence.may_be_gone() {
            return Poll::Pending;
        }
        if self.is_between_events {
            self.asked = Some(Instant::now());
            return Poll::Ready(Some(Bytes::from_static(COMMENT)));
        }
        // In the middle of an event nothing may be said, but before the length of a chunk a zero.
        if self.is_chunked && self.zeros < ZEROS_MAX && self.socket.ask_between_chunks() {
            self.zeros += 1;
            self.asked = Some(Instant::now());
        }
        Poll::Pending
    }
}

/// An answer on a connection that has several at once.
pub(super) struct Among {
    /// The request is over when all of its answer was taken.
    _stream: Stream,
    handed: Arc<Handed>,
    /// It answers HEAD.
    is_bare: bool,
}

impl Among {
    /// Of this request, as whose task it is called.
    pub(super) fn of(stream: Stream, is_bare: bool) -> Self {
        Self {
            _stream: stream,
            handed: Handed::of_this_task(),
            is_bare,
        }
    }
}

/// The body of an answer. One among others comes in pieces, so that the client says how fast.
pub(super) struct Held<B> {
    body: B,
    among: Option<Among>,
    watch: Option<Watch>,
    /// What was not handed on of the part that came last.
    rest: Bytes,
    /// The request is in progress as long as this lasts.
    _right: Option<Arc<OwnedSemaphorePermit>>,
}

impl<B: Body<Error: Into<BoxError>> + Unpin> Held<B> {
    fn is_bare(&self) -> bool {
        self.among.as_ref().is_some_and(|among| among.is_bare)
    }

    /// What comes next, as the body has it.
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.rest)))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let whole = |mut data: B::Data| data.copy_to_bytes(data.remaining());
        let frame = frame.map(|frame| frame.map(|frame| frame.map_data(whole)));
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    /// The same, or what the watch says while nothing comes.
    fn watched(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = self.next(cx);
        let Some(watch) = &mut self.watch else {
            return next;
        };
        match &next {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    watch.saw(data);
                }
                next
            }
            Poll::Ready(_) => next,
            Poll::Pending => match ready!(watch.look(cx)) {
                Some(question) => Poll::Ready(Some(Ok(Frame::data(question)))),
                None => Poll::Ready(Some(Err(Gone.into()))),
            },
        }
    }
}

impl<B: Body<Error: Into<BoxError>> + Unpin> Body for Held<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.is_bare() {
            return Poll::Ready(None);
        }
        let mut next = self.watched(cx);
        let held = &mut *self;
        let Some(among) = &held.among else {
            return next;
        };
        if let Poll::Ready(Some(Ok(frame))) = &mut next
            && let Some(data) = frame.data_mut()
        {
            let part = match data.len() {
                // The last byte goes by itself: whoever has room for it has taken what was before it, and until then the
                // answer is not over.
                all @ 2..=limits::STREAM_SEND_BYTES if held.body.is_end_stream() => all - 1,
                all => all.min(limits::STREAM_SEND_BYTES),
            };
            held.rest = data.split_off(part);
        }
        // It is asked for the next part when there is room for it.
        among.handed.hands(matches!(next, Poll::Ready(Some(Ok(_)))));
        next
    }

    fn is_end_stream(&self) -> bool {
        self.is_bare() || (self.rest.is_empty() && self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inside = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inside.lower() + rest);
        if let Some(upper) = inside.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// A response whose body is looked at from outside.
pub(super) trait Whole {
    type Body;
}

impl<B> Whole for warp::http::Response<B> {
    type Body = B;
}

/// An answer with such a body.
pub(super) type Answer = warp::http::Response<Held<<Response as Whole>::Body>>;

/// An answer whose body is looked after.
pub(super) fn held(mut answer: Response, among: Option<Among>, watch: Option<Watch>) -> Answer {
    let right = answer.extensions_mut().remove();
    answer.map(|body| Held {
        body,
        among,
        watch,
        rest: Bytes::new(),
        _right: right,
    })
}

/// Whether an answer is a stream of events that come with time.
pub(super) fn is_stream(answer: &Response) -> bool {
    let media = answer.headers().get(CONTENT_TYPE);
    let is_events =
        media.is_some_and(|media| media.as_bytes().starts_with(EVENT_STREAM.as_bytes()));
    is_events && answer.body().size_hint().exact().is_none()
}
