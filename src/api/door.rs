//! What stands before every route: requests whose target or host makes no sense go no further, and one whose
//! client is gone is given up.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::future::BoxFuture;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::time::Instant;
use warp::filters::BoxedFilter;
use warp::http::header::{CONNECTION, CONTENT_TYPE, HOST};
use warp::http::uri::Authority;
use warp::http::{HeaderMap, HeaderValue, Request, Uri, Version};
use warp::reply::Response;

use super::answer::EVENT_STREAM;
use super::body::LeavesUnread;
use super::connections::{Place, Stream};
use super::limits;
use super::principal::HEALTH;
use super::problem::{Dialect, Kind, Problem};
use super::site::Peer;
use super::socket::Socket;

/// The client is gone: nobody is there to be answered.
#[derive(Debug, thiserror::Error)]
#[error("the client is gone")]
pub(super) struct Gone;

impl From<Infallible> for Gone {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Serves the requests of one connection.
pub(super) struct Requests {
    pub(super) filter: BoxedFilter<(Response,)>,
    pub(super) socket: Arc<Socket>,
    pub(super) place: Arc<Place>,
    pub(super) peer: Peer,
}

/// A comment of an event stream: nothing for whoever reads it, and refused by the system of whoever is gone.
const COMMENT: &[u8] = b":\n\n";
/// How often a client that has closed its own direction is asked by one whether it reads on.
const ASK_EVERY: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Whether the client of an event stream leaves it: no piece may come for a long time that would show it.
struct Watch {
    socket: Arc<Socket>,
    gone: BoxFuture<'static, ()>,
    /// An event has ended, so that a comment may follow.
    is_between_events: bool,
    asked: Option<Instant>,
}

impl Watch {
    fn of(socket: &Arc<Socket>) -> Self {
        let watched = Arc::clone(socket);
        Self {
            socket: Arc::clone(socket),
            gone: Box::pin(async move { watched.gone(false).await }),
            is_between_events: false,
            asked: None,
        }
    }

    /// These bytes are handed on.
    fn saw(&mut self, data: &[u8]) {
        self.is_between_events = data.ends_with(b"\n\n") || data.ends_with(b"\r\n\r\n");
    }

    /// While nothing is to be handed on: whether the client is gone, or a question to it.
    fn look(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.gone.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        let is_due = self.asked.is_none_or(|at| at.elapsed() >= ASK_EVERY);
        if is_due && self.is_between_events && self.socket.presence().may_be_gone() {
            self.asked = Some(Instant::now());
            return Poll::Ready(Some(Bytes::from_static(COMMENT)));
        }
        Poll::Pending
    }
}

/// The body of an answer. One among others comes in pieces, so that the client says how fast, and its request is over
/// when all of it was taken.
pub(super) struct Held<B> {
    body: B,
    stream: Option<Stream>,
    watch: Option<Watch>,
    /// What was not handed on of the part that came last.
    rest: Bytes,
}

impl<B: Body<Error: Into<BoxError>> + Unpin> Held<B> {
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
        let mut next = self.watched(cx);
        let held = &mut *self;
        let Some(stream) = &held.stream else {
            return next;
        };
        if let Poll::Ready(Some(Ok(frame))) = &mut next
            && let Some(data) = frame.data_mut()
            && data.len() > limits::STREAM_SEND_BYTES
        {
            held.rest = data.split_off(limits::STREAM_SEND_BYTES);
        }
        // It is asked for the next part when there is room for it.
        stream.hands(matches!(next, Poll::Ready(Some(Ok(_)))));
        next
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
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

type Answer = warp::http::Response<Held<<Response as Whole>::Body>>;

impl Requests {
    /// A request of HTTP/1, which has its connection for itself.
    fn alone(&self, mut request: Request<Incoming>) -> BoxFuture<'static, Result<Answer, Gone>> {
        self.place.has_headers();
        self.socket.presence().begins();
        request.extensions_mut().insert(self.socket.presence());
        let (socket, place) = (Arc::clone(&self.socket), Arc::clone(&self.place));
        let answer = self.answer(request);
        Box::pin(async move {
            tokio::select! {
                biased;
                answer = answer => {
                    place.has_answered();
                    let mut answer = answer?;
                    if answer.extensions_mut().remove::<LeavesUnread>().is_some() {
                        let close = HeaderValue::from_static("close");
                        answer.headers_mut().insert(CONNECTION, close);
                    }
                    let watch = is_stream(&answer).then(|| Watch::of(&socket));
                    Ok(held(answer, None, watch))
                }
                () = socket.gone(true) => Err(Gone),
            }
        })
    }

    /// A request of HTTP/2, one of several. hyper drops what it comes to when its client takes it back, or is gone.
    fn among_others(
        &self,
        mut request: Request<Incoming>,
    ) -> BoxFuture<'static, Result<Answer, Gone>> {
        let stream = self.place.stream();
        // As HTTP/1 says it, for all that comes after.
        if let Some(host) = request.uri().authority()
            && !request.headers().contains_key(HOST)
            && let Ok(host) = HeaderValue::from_str(host.as_str())
        {
            request.headers_mut().insert(HOST, host);
        }
        let place = Arc::clone(&self.place);
        let answer = self.answer(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            // What a header says to a client of HTTP/1, the connection says to this one.
            if answer.headers_mut().remove(CONNECTION).is_some() {
                place.leave();
            }
            Ok(held(answer, Some(stream), None))
        })
    }

    fn answer(
        &self,
        mut request: Request<Incoming>,
    ) -> BoxFuture<'static, Result<Response, Infallible>> {
        if let Err(problem) = makes_sense(request.uri(), request.headers()) {
            let dialect = Dialect::of(request.uri().path());
            let is_alone = request.version() != Version::HTTP_2;
            return Box::pin(async move {
                let mut response = problem.reply(dialect).into_response().await;
                if is_alone {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(CONNECTION, close);
                }
                Ok(response)
            });
        }
        request.extensions_mut().insert(self.place.door);
        request.extensions_mut().insert(self.peer);
        let service = TowerToHyperService::new(warp::service(self.filter.clone()));
        Box::pin(service.call(request))
    }
}

/// Whether an answer is a stream of events that come with time.
fn is_stream(answer: &Response) -> bool {
    let media = answer.headers().get(CONTENT_TYPE);
    let is_events =
        media.is_some_and(|media| media.as_bytes().starts_with(EVENT_STREAM.as_bytes()));
    is_events && answer.body().size_hint().exact().is_none()
}

fn held(answer: Response, stream: Option<Stream>, watch: Option<Watch>) -> Answer {
    answer.map(|body| Held {
        body,
        stream,
        watch,
        rest: Bytes::new(),
    })
}

impl Service<Request<Incoming>> for Requests {
    type Response = Answer;
    type Error = Gone;
    type Future = BoxFuture<'static, Result<Answer, Gone>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        match request.version() {
            Version::HTTP_2 => self.among_others(request),
            _ => self.alone(request),
        }
    }
}

/// Whether a request says what it wants, and from whom: a target with a path, and one host.
fn makes_sense(uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let path = uri.path_and_query().map_or("", |target| target.path());
    if !path.starts_with('/') {
        let problem = "the target of the request has no path; ask for one, like GET /healthz";
        return Err(Problem::new(Kind::InvalidTarget, problem));
    }
    let mut hosts = headers.get_all(HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    // Whoever watches a daemon may be simple-minded.
    if host.is_none() && path == HEALTH {
        return Ok(());
    }
    let wrong = |problem| Err(Problem::new(Kind::InvalidHost, problem));
    let (Some(host), None) = (host, another) else {
        return wrong("the request must have one Host header");
    };
    let host = host.to_str().ok();
    let host = host.filter(|host| !host.contains('@'));
    let Some(host) = host.and_then(|host| host.parse::<Authority>().ok()) else {
        return wrong("the Host header is no host");
    };
    if uri.authority().is_some_and(|target| *target != host) {
        return wrong("the target of the request and its Host header name different hosts");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(target: &str, hosts: &[&'static str], want: Option<Kind>) {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_static(host));
        }
        let found = makes_sense(&target.parse().unwrap(), &headers);
        assert_eq!(found.err().map(|problem| problem.kind()), want, "{target}");
    }

    #[test]
    fn a_target_without_a_path_is_refused_in_every_form() {
        for target in ["x:1", "x", "127.0.0.1:4700", "*", "[::1]:1"] {
            check(target, &["x:1"], Some(Kind::InvalidTarget));
        }
        check("/", &["x:1"], None);
        check("/a?b", &["x:1"], None);
        check("http://x:1", &["x:1"], None);
        check("http://x:1/a", &["X:1"], None);
    }

    #[test]
    fn a_request_has_one_host_unless_it_asks_whether_the_daemon_answers() {
        check("/a", &[], Some(Kind::InvalidHost));
        check("/a", &["x", "x"], Some(Kind::InvalidHost));
        check("/a", &["x", "y"], Some(Kind::InvalidHost));
        check("/a", &[""], Some(Kind::InvalidHost));
        check("/a", &["a b"], Some(Kind::InvalidHost));
        check("/a", &["me@localhost"], Some(Kind::InvalidHost));
        check("http://x:1/a", &["y"], Some(Kind::InvalidHost));
        check("/healthz", &[], None);
        check("/healthz", &["x", "y"], Some(Kind::InvalidHost));
        check("/a", &["localhost:4700"], None);
    }
}
