//! What stands before every route: requests whose target or host makes no sense go no further, and one whose
//! client is gone is given up.

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use warp::filters::BoxedFilter;
use warp::http::header::{CONNECTION, HOST};
use warp::http::uri::Authority;
use warp::http::{HeaderMap, HeaderValue, Request, Uri, Version};
use warp::reply::Response;

use super::connections::Place;
use super::principal::HEALTH;
use super::problem::{Dialect, Kind, Problem};
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
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response;
    type Error = Gone;
    type Future = BoxFuture<'static, Result<Response, Gone>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.place.has_headers();
        let place = Arc::clone(&self.place);
        if let Err(problem) = makes_sense(request.uri(), request.headers()) {
            let dialect = Dialect::of(request.uri().path());
            return Box::pin(async move {
                let mut response = problem.reply(dialect).into_response().await;
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
                place.has_answered();
                Ok(response)
            });
        }
        request.extensions_mut().insert(place.door);
        request.extensions_mut().insert(self.socket.presence());
        // An interim response is for clients that know of them.
        let may_ask = request.version() == Version::HTTP_11;
        let answer = TowerToHyperService::new(warp::service(self.filter.clone())).call(request);
        let socket = Arc::clone(&self.socket);
        Box::pin(async move {
            tokio::select! {
                biased;
                answer = answer => {
                    place.has_answered();
                    Ok(answer?)
                }
                () = socket.gone(may_ask) => Err(Gone),
            }
        })
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
