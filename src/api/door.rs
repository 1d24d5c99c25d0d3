//! What stands before every route: requests whose target or host makes no sense go no further, and one whose
//! client is gone is given up.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use hyper::body::{Body as _, Incoming};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use warp::filters::BoxedFilter;
use warp::http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use warp::http::uri::Authority;
use warp::http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use warp::reply::Response;

use super::body::LeavesUnread;
use super::connections::Place;
use super::held::{Among, Answer, Gone, Watch, held, is_stream};
use super::principal::HEALTH;
use super::problem::{Dialect, Kind, Problem};
use super::request_id::{Names, RequestId};
use super::socket::Socket;

/// The other end of a connection; `None`: a socket of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer(pub(super) Option<IpAddr>);

/// Serves the requests of one connection.
pub(super) struct Requests {
    pub(super) filter: BoxedFilter<(Response,)>,
    pub(super) names: Arc<Names>,
    pub(super) socket: Arc<Socket>,
    pub(super) place: Arc<Place>,
    pub(super) peer: Peer,
}

impl Requests {
    /// A request of HTTP/1, which has its connection for itself.
    fn alone(&self, mut request: Request<Incoming>) -> BoxFuture<'static, Result<Answer, Gone>> {
        self.place.has_headers();
        self.socket.presence().begins();
        request.extensions_mut().insert(self.socket.presence());
        let (socket, place) = (Arc::clone(&self.socket), Arc::clone(&self.place));
        let version = request.version();
        let (id, answer) = self.answer(request);
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
                    let watch = is_stream(&answer).then(|| Watch::of(&socket, version));
                    Ok(held(answer, None, watch))
                }
                () = socket.gone(true) => {
                    tracing::debug!(id = id.text(), "the client is gone before its answer");
                    Err(Gone)
                }
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
        let presence = self.socket.presence_among_others();
        request.extensions_mut().insert(presence);
        let place = Arc::clone(&self.place);
        let is_bare = request.method() == Method::HEAD;
        let (_, answer) = self.answer(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            // What a header says to a client of HTTP/1, the connection says to this one.
            if answer.headers_mut().remove(CONNECTION).is_some() {
                place.leave();
            }
            if is_bare && let Some(length) = answer.body().size_hint().exact() {
                answer.headers_mut().insert(CONTENT_LENGTH, length.into());
            }
            Ok(held(answer, Some(Among::of(stream, is_bare)), None))
        })
    }

    /// The name of a request, and its answer.
    fn answer(
        &self,
        mut request: Request<Incoming>,
    ) -> (RequestId, BoxFuture<'static, Result<Response, Infallible>>) {
        let id = self.names.of(request.headers());
        if let Err(problem) = makes_sense(request.uri(), request.headers()) {
            return (id.clone(), Box::pin(refused(request, id, problem)));
        }
        request.extensions_mut().insert(id.clone());
        request.extensions_mut().insert(self.place.door);
        request.extensions_mut().insert(self.peer);
        let service = TowerToHyperService::new(warp::service(self.filter.clone()));
        (id, Box::pin(service.call(request)))
    }
}

/// The answer to a request that goes no further.
async fn refused(
    request: Request<Incoming>,
    id: RequestId,
    problem: Problem,
) -> Result<Response, Infallible> {
    let path = request.uri().path();
    let reply = problem.reply(Dialect::of(path), &id);
    let mut response = reply.into_response().await;
    super::of_every_answer(response.headers_mut(), &id);
    if request.version() != Version::HTTP_2 {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    let status = response.status().as_u16();
    tracing::debug!(id = id.text(), method = %request.method(), path, status, "a request was refused");
    Ok(response)
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
    // How a body is packed is said by another header.
    let coding = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(other) = coding
        .into_iter()
        .find(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        let problem = format!("is {other:?}; a body comes whole or chunked");
        let name = TRANSFER_ENCODING.as_str();
        return Err(Problem::of_field(Kind::InvalidHeader, name, problem));
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
    fn a_body_that_the_connection_would_have_to_unpack_is_refused() {
        let checked = |codings: &[&'static str]| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("x"));
            for coding in codings {
                headers.append(TRANSFER_ENCODING, HeaderValue::from_static(coding));
            }
            let found = makes_sense(&"/a".parse().unwrap(), &headers);
            found.err().map(|problem| problem.kind())
        };
        assert_eq!(checked(&["chunked"]), None);
        for odd in [
            &["gzip, chunked"][..],
            &["gzip", "chunked"],
            &["chunked, chunked"],
            &[""],
        ] {
            assert_eq!(checked(odd), Some(Kind::InvalidHeader), "{odd:?}");
        }
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
