//! One request and its response over the wire, under every bound of the call: how it ends, and that
//! whatever was not finished is closed.

use std::error::Error;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use onelane_actors::marks::Marks;
use onelane_core::model::{Timeouts, code, limits};
use reqwest::{Client, Request, Response, StatusCode, header::HeaderMap};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::connect::{Gauge, Stage};

/// Somebody who hears of a response while it comes.
pub(super) trait Hears: Send {
    /// What the response is.
    fn begins(&mut self, status: StatusCode, headers: &HeaderMap);

    /// The next piece of its body.
    fn piece(&mut self, piece: Bytes) -> impl Future<Output = ()> + Send;
}

/// How the exchange ended. Nothing of it is open any more.
pub(crate) enum Ended {
    /// A response arrived.
    Response(Reply),
    /// None did.
    NoResponse {
        /// The error of the transport.
        error: reqwest::Error,
        /// Whether the connection had stood before the call.
        reused: bool,
    },
    /// None did in time.
    TimedOut(Timeout),
    /// The abort token was cancelled.
    Aborted,
    /// The abort token was cancelled before a connection stood.
    NotSent,
}

/// A response, as far as it came.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) end: BodyEnd,
}

/// How a response's body ended.
pub(crate) enum BodyEnd {
    Complete,
    Cut(reqwest::Error),
    TimedOut(Timeout),
    TooLarge,
}

/// A bound that was passed: its failure code and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeout {
    pub(crate) code: &'static str,
    pub(crate) limit_ms: u64,
    /// Whether the request may have reached GLM.
    pub(crate) maybe_sent: bool,
}

/// Sends `request` and reads the whole response. When it ended in the middle, it returns only after the
/// server has had the time to see the connection end: the next call must not overlap with it.
pub(super) async fn exchange(
    client: &Client,
    request: Request,
    timeouts: Timeouts,
    (abort, marks): (&CancellationToken, &Marks),
    live: Option<&mut impl Hears>,
) -> Ended {
    let gauge = Gauge::new(Instant::now(), span(timeouts.connect_ms));
    let ended = run(client, request, timeouts, (abort, marks, &gauge), live).await;
    if let Stage::Connected(at) = gauge.stage() {
        marks.connected(at);
    }
    let ended_in_the_middle = match &ended {
        Ended::Response(reply) => !matches!(reply.end, BodyEnd::Complete),
        // What never left is in the middle of nothing, and a kept connection that ended was ended by the server.
        Ended::NoResponse { error, reused } => {
            let ended_by_server = *reused && causes(error).any(is_end_of_connection);
            !error.is_connect() && !ended_by_server
        }
        Ended::TimedOut(_) | Ended::Aborted => true,
        Ended::NotSent => false,
    };
    if ended_in_the_middle {
        tokio::time::sleep(Duration::from_millis(limits::CLOSE_GRACE_MS)).await;
    }
    ended
}

async fn run(
    client: &Client,
    request: Request,
    timeouts: Timeouts,
    (abort, marks, gauge): (&CancellationToken, &Marks, &Arc<Gauge>),
    live: Option<&mut impl Hears>,
) -> Ended {
    let begun = Instant::now();
    let mut bounds = Bounds {
        timeouts,
        total: begun + span(timeouts.total_ms),
        total_passed: false,
    };
    let mut looked_on = false;
    let timer = tokio::time::sleep_until(bounds.phase(begun, timeouts.first_byte_ms));
    tokio::pin!(timer);

    let sending = gauge.watch(client.execute(request));
    tokio::pin!(sending);
    let mut sent = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await;
    if sent.is_pending() {
        // The connection writes the request first, and what bounds the call is armed behind it.
        tokio::task::yield_now().await;
    }
    let response = loop {
        match sent {
            Poll::Ready(Ok(response)) => break response,
            Poll::Ready(Err(error)) => {
                let reused = gauge.stage() == Stage::Idle;
                return Ended::NoResponse { error, reused };
            }
            Poll::Pending => {}
        }
        tokio::select! {
            biased;
            result = &mut sending => sent = Poll::Ready(result),
            () = abort.cancelled() => return match gauge.stage() {
                Stage::Connecting => Ended::NotSent,
                _ => Ended::Aborted,
            },
            () = &mut timer => match bounds.headers(gauge) {
                Headers::Wait(until) => timer.as_mut().reset(until),
                Headers::Late(timeout) => match bounds.look_on(timer.deadline(), &mut looked_on) {
                    Some(until) => timer.as_mut().reset(until),
                    None => return Ended::TimedOut(timeout),
                },
            },
        }
    };
    marks.answered(Instant::now());
    read(response, bounds, timer, abort, live).await
}

/// A bound as a duration; settings allow a day at most, and no number overflows the clock.
pub(crate) fn span(ms: u64) -> Duration {
    Duration::from_millis(ms.min(24 * 60 * 60 * 1_000))
}

/// A timer that runs out so late says that the process was stopped, or the machine asleep, and not that GLM was
/// silent for so long.
const FROZEN_MS: u64 = 500;

/// The moments by which things must have happened.
struct Bounds {
    timeouts: Timeouts,
    total: Instant,
    /// The time of the whole call is over; what has arrived by then is still taken.
    total_passed: bool,
}

enum Headers {
    Wait(Instant),
    Late(Timeout),
}

impl Bounds {
    /// Silence is judged after the socket was looked at: the timer for `due` has run out, but what came before may
    /// not have been read yet, above all in a process that was frozen. Answers until when to look on; `None`: that was
    /// done.
    fn look_on(&mut self, due: Instant, looked_on: &mut bool) -> Option<Instant> {
        let now = Instant::now();
        let was_frozen = now.saturating_duration_since(due) >= Duration::from_millis(FROZEN_MS);
        let is_total = now >= self.total;
        let done = match is_total {
            true => &mut self.total_passed,
            false => looked_on,
        };
        if std::mem::replace(done, true) && !was_frozen {
            return None;
        }
        let until = now
            + Duration::from_millis(match was_frozen {
                true => limits::THAW_MS,
                false => limits::LAST_LOOK_MS,
            });
        if is_total {
            self.total = until;
        }
        Some(until)
    }

    /// The end of a phase of `limit_ms` that begins at `from`, or of the whole call if that is sooner.
    fn phase(&self, from: Instant, limit_ms: u64) -> Instant {
        self.total.min(from + span(limit_ms))
    }

    fn total_timeout(&self) -> Timeout {
        Timeout {
            code: code::TIMEOUT_TOTAL,
            limit_ms: self.timeouts.total_ms,
            maybe_sent: true,
        }
    }

    /// The error when the timer of the body has run out.
    fn body_timeout(&self) -> Timeout {
        if Instant::now() >= self.total {
            return self.total_timeout();
        }
        Timeout {
            code: code::TIMEOUT_IDLE,
            limit_ms: self.timeouts.idle_ms,
            maybe_sent: true,
        }
    }

    /// The error when the timer of the headers has run out: their time counts from the moment
    /// when the connection stood.
    fn headers(&self, gauge: &Arc<Gauge>) -> Headers {
        let now = Instant::now();
        if now >= self.total {
            return Headers::Late(Timeout {
                maybe_sent: gauge.stage() != Stage::Connecting,
                ..self.total_timeout()
            });
        }
        let due = match gauge.stage() {
            Stage::Idle => now,
            // However soon it stands, the headers are due no sooner than this.
            Stage::Connecting => self.phase(now, self.timeouts.first_byte_ms),
            Stage::Connected(at) => self.phase(at, self.timeouts.first_byte_ms),
        };
        if due > now {
            return Headers::Wait(due);
        }
        Headers::Late(Timeout {
            code: code::TIMEOUT_FIRST_BYTE,
            limit_ms: self.timeouts.first_byte_ms,
            maybe_sent: true,
        })
    }
}

/// Reads the body under the idle and the total bound, and no further than the cap.
async fn read(
    mut response: Response,
    mut bounds: Bounds,
    mut timer: std::pin::Pin<&mut Sleep>,
    abort: &CancellationToken,
    mut live: Option<&mut impl Hears>,
) -> Ended {
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    let mut body = Body::Empty;
    if let Some(live) = &mut live {
        live.begins(status, &headers);
    }
    let announced = response.content_length().unwrap_or(0);
    let mut looked_on = false;
    let mut last_look = None;
    let end = loop {
        if announced > limits::RESPONSE_BYTES_MAX as u64 {
            break BodyEnd::TooLarge;
        }
        let chunk = match response.chunk().now_or_never() {
            Some(chunk) => chunk,
            // Only a body that is waited for needs the timer: arming it wakes a worker.
            None => {
                let idle = bounds.phase(Instant::now(), bounds.timeouts.idle_ms);
                timer.as_mut().reset(last_look.take().unwrap_or(idle));
                tokio::select! {
                    biased;
                    chunk = response.chunk() => chunk,
                    () = abort.cancelled() => return Ended::Aborted,
                    () = &mut timer => {
                        let timeout = bounds.body_timeout();
                        last_look = bounds.look_on(timer.deadline(), &mut looked_on);
                        match last_look {
                            Some(_) => continue,
                            None => break BodyEnd::TimedOut(timeout),
                        }
                    }
                }
            }
        };
        match chunk {
            Ok(Some(chunk)) if body.len() + chunk.len() > limits::RESPONSE_BYTES_MAX => {
                break BodyEnd::TooLarge;
            }
            Ok(Some(chunk)) => {
                looked_on = false;
                if let Some(live) = &mut live {
                    tokio::select! {
                        biased;
                        () = live.piece(chunk.clone()) => {}
                        () = abort.cancelled() => return Ended::Aborted,
                    }
                }
                body = body.plus(chunk);
            }
            Ok(None) => break BodyEnd::Complete,
            Err(error) => break BodyEnd::Cut(error),
        }
    };
    Ended::Response(Reply {
        status,
        headers,
        body: body.into_bytes(),
        end,
    })
}

/// An error and what caused it, outermost first.
pub(super) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&e| e.source())
}

/// Whether an error says that the other side has ended the connection.
pub(super) fn is_end_of_connection(cause: &(dyn Error + 'static)) -> bool {
    let of_hyper = cause.downcast_ref::<hyper::Error>();
    let of_io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
    of_hyper.is_some_and(hyper::Error::is_incomplete_message)
        || matches!(
            of_io,
            Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof)
        )
}

/// A body that is one piece as long as it came as one.
enum Body {
    Empty,
    One(Bytes),
    Many(BytesMut),
}

impl Body {
    fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(bytes) => bytes.len(),
            Self::Many(bytes) => bytes.len(),
        }
    }

    fn plus(self, chunk: Bytes) -> Self {
        let mut many = match self {
            Self::Empty => return Self::One(chunk),
            Self::One(first) => {
                let mut many = BytesMut::with_capacity((first.len() + chunk.len()) * 2);
                many.extend_from_slice(&first);
                many
            }
            Self::Many(many) => many,
        };
        many.extend_from_slice(&chunk);
        Self::Many(many)
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Empty => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes.freeze(),
        }
    }
}
