//! A response body that can be slow, stall or break off, and that knows when it was handed over.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::recorder::InFlight;

/// A piece of a body.
pub(crate) enum Piece {
    Data(Bytes),
    /// Silence for so many milliseconds.
    Wait(u64),
    /// Silence until the client leaves.
    Stall,
    /// The end of the connection, once the bytes before it have left.
    Cut,
}

/// The pieces of one response.
pub(crate) struct Pieces {
    pieces: VecDeque<Piece>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Hyper has been given the chance to send the bytes before the cut.
    flushed: bool,
    /// Dropped with the body, which hyper does when it has the last piece or the client is gone.
    request: Option<InFlight>,
}

impl Pieces {
    pub(crate) fn new(pieces: impl Into<VecDeque<Piece>>, request: Option<InFlight>) -> Self {
        let mut body = Self {
            pieces: pieces.into(),
            sleep: None,
            flushed: false,
            request,
        };
        body.note_end();
        body
    }

    pub(crate) fn whole(bytes: Bytes, request: Option<InFlight>) -> Self {
        Self::new([Piece::Data(bytes)], request)
    }

    fn note_end(&mut self) {
        if self.pieces.is_empty()
            && let Some(request) = &mut self.request
        {
            request.hand_over();
        }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                std::task::ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            match self.pieces.front() {
                None => return Poll::Ready(None),
                Some(Piece::Stall) => return Poll::Pending,
                Some(Piece::Cut) if !self.flushed => {
                    self.flushed = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Piece::Cut) => {
                    self.pieces.clear();
                    self.note_end();
                    return Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into())));
                }
                Some(Piece::Wait(0)) => {
                    self.pieces.pop_front();
                }
                Some(Piece::Wait(ms)) => {
                    let sleep = tokio::time::sleep(Duration::from_millis(*ms));
                    self.sleep = Some(Box::pin(sleep));
                    self.pieces.pop_front();
                }
                Some(Piece::Data(bytes)) => {
                    let frame = Frame::data(bytes.clone());
                    self.pieces.pop_front();
                    self.note_end();
                    return Poll::Ready(Some(Ok(frame)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let mut bytes = 0;
        for piece in &self.pieces {
            match piece {
                Piece::Data(data) => bytes += data.len() as u64,
                // The length that is announced is not the one that comes, or not at once.
                Piece::Wait(_) | Piece::Stall | Piece::Cut => return SizeHint::new(),
            }
        }
        SizeHint::with_exact(bytes)
    }
}
