//! Web pages of other origins, which a browser lets use the API where the API says so: none but those that are
//! configured.

use std::sync::Arc;

use warp::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, RETRY_AFTER, VARY,
};
use warp::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use warp::reply::Response;

use super::answer::NEXT_CURSOR;
use super::problem::SHOULD_RETRY;
use super::request_id::REQUEST_ID;

/// How long a browser remembers what it was told, in seconds.
const REMEMBERED_S: u64 = 600;
const METHODS: &str = "GET, HEAD, POST, PUT, DELETE";
/// What the names of our own headers begin with.
const OURS: &str = "x-onelane-";

/// The origins that are let in.
#[derive(Debug, Clone, Default)]
pub(super) struct Cors {
    origins: Arc<[String]>,
}

impl Cors {
    pub(super) fn new(origins: &[String]) -> Self {
        Self {
            origins: origins.into(),
        }
    }

    /// Whether the one origin of a request is let in.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        self.admitted(headers).is_some()
    }

    fn admitted<'h>(&self, headers: &'h HeaderMap) -> Option<&'h HeaderValue> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let (Some(origin), None) = (origins.next(), origins.next()) else {
            return None;
        };
        let is_named = |known: &String| known == "*" || known.as_bytes() == origin.as_bytes();
        self.origins.iter().any(is_named).then_some(origin)
    }

    /// The page that a request comes from, as far as it matters.
    pub(super) fn page(&self, headers: &HeaderMap) -> Page {
        Page {
            matters: !self.origins.is_empty(),
            origin: self.admitted(headers).cloned(),
        }
    }
}

/// A web page that may have sent a request.
pub(super) struct Page {
    /// Another page might be answered otherwise.
    matters: bool,
    /// Its origin, where that is let in.
    origin: Option<HeaderValue>,
}

impl Page {
    /// The answer to a browser that asks before it sends a page's request; `None`: it is none, or the page is not let
    /// in.
    pub(super) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        let asks =
            *method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !asks || self.origin.is_none() {
            return None;
        }
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NO_CONTENT;
        let told = response.headers_mut();
        let methods = HeaderValue::from_static(METHODS);
        told.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        told.insert(ACCESS_CONTROL_MAX_AGE, REMEMBERED_S.into());
        // What a header may say is checked where it is read.
        if let Some(wanted) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            told.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        Some(response)
    }

    /// Tells a browser that the page may read the answer with these headers, and which of them.
    pub(super) fn tell(self, headers: &mut HeaderMap) {
        if self.matters {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = self.origin else {
            return;
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let is_exposed = |name: &&HeaderName| {
            name.as_str().starts_with(OURS)
                || [REQUEST_ID, RETRY_AFTER, SHOULD_RETRY, NEXT_CURSOR].contains(name)
        };
        let names = headers.keys().filter(is_exposed).map(HeaderName::as_str);
        let names = names.collect::<Vec<_>>().join(", ");
        if let Ok(names) = HeaderValue::try_from(names) {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names);
        }
    }
}
