//! The kept connections to GLM, and whether one may be used again.
//!
//! An answer is matched to its call by nothing but the connection that it comes over. A surplus answer on a kept
//! connection (of a proxy that sends twice, or one that came after its call was given up) would be taken for that of
//! the next call, and every call after it would get its predecessor's. GLM names the `request_id` of the call in its
//! answer: that proves whose it is.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onelane_core::model::{Reuse, limits};
use reqwest::header::HeaderMap;
use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::connect::GaugedConnector;
use super::fault::HttpGlmError;
use super::layers;
use super::route::Route;

/// How long an unused connection is kept, in milliseconds: less than the shortest that servers are known to keep
/// theirs (5 s), so that a call is not sent into a connection that is just being closed.
const IDLE_MS: u64 = 4_000;
/// Of the time that a server says it keeps a connection, what it may take a request to arrive.
const IDLE_MARGIN_MS: u64 = 1_000;

/// Whose call an answer names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// The call that it came for.
    This,
    /// Another attempt of the lane's.
    Another,
    /// None of the lane's: the id is the server's own.
    Other,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(default, borrow)]
    request_id: Option<&'a RawValue>,
    /// What the envelope of GLM's older API holds.
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

/// The `request_id` that a body names; `None`: it names none.
pub(super) fn named_id(body: &[u8]) -> Option<String> {
    let text = layers::text(body);
    let documents = layers::documents(&text)?;
    documents.iter().find_map(|json| {
        let head: Head<'_> = serde_json::from_str(json).ok()?;
        named_by(&head).or_else(|| named_by(&serde_json::from_str(head.data?.get()).ok()?))
    })
}

fn named_by(head: &Head<'_>) -> Option<String> {
    serde_json::from_str(head.request_id?.get()).ok()
}

/// The kept connections, and what is known of the endpoints at their ends.
pub(super) struct Pool(Mutex<State>);

struct State {
    client: Client,
    /// For calls whose answers name nobody: each has a connection of its own, on which nothing can be left of another.
    lone: Client,
    route: Route,
    idle_ms: u64,
    /// Endpoints whose answers name the lane's own ids.
    echoing: BTreeSet<String>,
    /// The latest ids that submitters chose, oldest first.
    chosen: VecDeque<String>,
    /// Where the last call went: the next one goes there too, nearly always, and to parse its URL takes a microsecond.
    last_url: Option<(String, Url)>,
}

impl Pool {
    pub(super) fn new(route: Route) -> Result<Self, HttpGlmError> {
        Ok(Self(Mutex::new(State {
            client: client(&route, IDLE_MS, true)?,
            lone: client(&route, IDLE_MS, false)?,
            route,
            idle_ms: IDLE_MS,
            echoing: BTreeSet::new(),
            chosen: VecDeque::new(),
            last_url: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A URL that a call can go to; `None`: it is none of HTTP.
    pub(super) fn url(&self, text: &str) -> Option<Url> {
        let mut state = self.state();
        if let Some((_, url)) = state.last_url.as_ref().filter(|(last, _)| last == text) {
            return Some(url.clone());
        }
        let url = Url::parse(text).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https"))?;
        state.last_url = Some((text.to_owned(), url.clone()));
        Some(url)
    }

    /// The client for a call to an endpoint, and whether its connection may be kept for the next one.
    pub(super) fn for_call(&self, base_url: &str, reuse: Reuse, echoes: bool) -> (Client, bool) {
        let state = self.state();
        if !echoes && reuse != Reuse::Always {
            return (state.lone.clone(), false);
        }
        let keep = reuse == Reuse::Always || state.echoing.contains(base_url);
        (state.client.clone(), keep && state.idle_ms > 0)
    }

    /// Remembers an id that a submitter chose: an answer that names it later belongs to its call.
    pub(super) fn note_chosen(&self, id: &str) {
        let mut state = self.state();
        if state.chosen.iter().any(|chosen| chosen == id) {
            return;
        }
        if state.chosen.len() >= limits::CHOSEN_IDS_KEPT {
            state.chosen.pop_front();
        }
        state.chosen.push_back(id.to_owned());
    }

    /// Whether a submitter chose this id lately.
    pub(super) fn was_chosen(&self, id: &str) -> bool {
        self.state().chosen.iter().any(|chosen| chosen == id)
    }

    /// Hears whose call an endpoint's response named. Answers whether the response is foreign: it names another
    /// attempt of the lane's, or it is a success that names an id of the server's own although the endpoint has named
    /// the lane's before. Then no kept connection is used again.
    pub(super) fn is_foreign(&self, base_url: &str, named: Option<Named>, success: bool) -> bool {
        let mut state = self.state();
        let foreign = match named {
            Some(Named::This) => {
                if !state.echoing.contains(base_url) {
                    state.echoing.insert(base_url.to_owned());
                }
                false
            }
            Some(Named::Another) => true,
            // Errors may always carry the platform's id; a relay may have rewritten ids from the first answer on.
            Some(Named::Other) => success && state.echoing.contains(base_url),
            None => false,
        };
        if foreign {
            state.renew();
        }
        foreign
    }

    /// Hears how long a server says that it keeps a connection.
    pub(super) fn obey(&self, headers: &HeaderMap) {
        let Some(keeps_ms) = keep_alive_ms(headers) else {
            return;
        };
        let idle_ms = keeps_ms.saturating_sub(IDLE_MARGIN_MS);
        let mut state = self.state();
        if idle_ms < state.idle_ms {
            state.idle_ms = idle_ms;
            state.renew();
        }
    }
}

impl State {
    /// A client without connections takes the place of this one. Calls that are open keep theirs to their end.
    fn renew(&mut self) {
        match client(&self.route, self.idle_ms, true) {
            Ok(client) => self.client = client,
            // It was built before, so that it can be built again but for a system out of memory or files. Without a
            // time to keep it no connection is kept.
            Err(_) => self.idle_ms = 0,
        }
    }
}

/// The `timeout` of a `Keep-Alive` header, in milliseconds.
fn keep_alive_ms(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get("keep-alive")?.to_str().ok()?;
    let seconds = text.split(',').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        let is_timeout = name.trim().eq_ignore_ascii_case("timeout");
        is_timeout.then(|| value.trim().parse::<u64>().ok())?
    })?;
    Some(seconds.saturating_mul(1_000))
}

fn client(route: &Route, idle_ms: u64, keeps: bool) -> Result<Client, HttpGlmError> {
    let kept = if keeps { limits::CONCURRENCY_MAX } else { 0 };
    let client = Client::builder()
        .http1_only()
        .retry(reqwest::retry::never())
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_millis(limits::TCP_KEEP_ALIVE_MS))
        .tcp_keepalive_interval(Duration::from_millis(limits::TCP_KEEP_ALIVE_EVERY_MS))
        .tcp_keepalive_retries(limits::TCP_KEEP_ALIVE_TRIES)
        .connector_layer(GaugedConnector)
        .pool_max_idle_per_host(usize::from(kept))
        .pool_idle_timeout(Duration::from_millis(idle_ms))
        .user_agent(concat!("onelane/", env!("CARGO_PKG_VERSION")));
    route.on(client)?.build().map_err(HttpGlmError::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "http://here.test";

    fn pool() -> Pool {
        Pool::new(Route::default()).unwrap()
    }

    #[test]
    fn a_call_goes_to_the_url_that_it_names_whatever_the_last_one_named() {
        let pool = pool();
        for text in [
            "http://here.test/v4/chat",
            "http://here.test/v4/chat",
            "https://there.test/v4/chat",
            "http://here.test/v4/chat",
        ] {
            assert_eq!(pool.url(text).unwrap().as_str(), text);
        }
        for none in ["", "here.test", "ftp://here.test/", "http://"] {
            assert_eq!(pool.url(none), None, "{none}");
        }
    }

    #[test]
    fn a_response_names_a_call_or_none() {
        let named = |body: &str| named_id(body.as_bytes());
        let id = || Some("an-id".to_owned());
        assert_eq!(named(r#"{"request_id":"an-id"}"#), id());
        assert_eq!(named(r#"{"error":{},"request_id":"an-id"}"#), id());
        assert_eq!(named("data: {\"request_id\":\"an-id\"}\n\n"), id());
        assert_eq!(
            named("data: {\"ping\":1}\n\ndata: {\"request_id\":\"an-id\"}\n\n"),
            id()
        );
        assert_eq!(named("Warning: {\n{\"request_id\":\"an-id\"}"), id());
        let wide = "\u{feff}{\"request_id\":\"an-id\"}".encode_utf16();
        let wide: Vec<u8> = wide.flat_map(u16::to_le_bytes).collect();
        assert_eq!(named_id(&wide), id());
        assert_eq!(named("{\"ping\":1}\n{\"request_id\":\"an-id\"}"), id());
        assert_eq!(named(r#"{"code":200,"data":{"request_id":"an-id"}}"#), id());
        for none in [
            "",
            "{}",
            r#"{"request_id":null}"#,
            r#"{"request_id":7}"#,
            "<html>",
            "[]",
        ] {
            assert_eq!(named(none), None, "{none}");
        }
    }

    #[test]
    fn ids_that_submitters_chose_are_remembered_for_a_while() {
        let pool = pool();
        pool.note_chosen("first");
        assert!(pool.was_chosen("first") && !pool.was_chosen("second"));
        for n in 0..limits::CHOSEN_IDS_KEPT {
            pool.note_chosen(&n.to_string());
        }
        assert!(!pool.was_chosen("first") && pool.was_chosen("0"));
    }

    #[test]
    fn an_answer_to_another_call_is_foreign_from_any_endpoint() {
        let pool = pool();
        for success in [true, false] {
            assert!(pool.is_foreign(HERE, Some(Named::Another), success));
        }
    }

    #[test]
    fn a_strange_id_is_foreign_only_where_the_lanes_own_was_echoed_before() {
        let pool = pool();
        let strange = |success| pool.is_foreign(HERE, Some(Named::Other), success);
        assert!(
            !strange(true),
            "a relay that rewrites ids from the first answer on"
        );
        assert!(!pool.is_foreign(HERE, Some(Named::This), true));
        assert!(strange(true));
        assert!(!strange(false), "errors may carry the platform's id");
        assert!(!pool.is_foreign(HERE, None, true), "it names none");
        assert!(!pool.is_foreign("http://there.test", Some(Named::Other), true));
    }

    #[test]
    fn a_connection_is_kept_only_where_answers_prove_whose_they_are() {
        let pool = pool();
        let kept = |reuse| pool.for_call(HERE, reuse, true).1;
        assert!(!kept(Reuse::Echoed) && kept(Reuse::Always));
        pool.is_foreign(HERE, Some(Named::Other), true);
        assert!(!kept(Reuse::Echoed));
        pool.is_foreign(HERE, Some(Named::This), true);
        assert!(kept(Reuse::Echoed));
    }

    #[test]
    fn a_server_says_how_long_it_keeps_a_connection() {
        let of = |text: &str| {
            keep_alive_ms(&HeaderMap::from_iter([(
                "keep-alive".parse().unwrap(),
                text.parse().unwrap(),
            )]))
        };
        assert_eq!(of("timeout=5"), Some(5_000));
        assert_eq!(of("max=100, Timeout=2"), Some(2_000));
        assert_eq!(of("max=100"), None);
        assert_eq!(of("timeout=soon"), None);
        let pool = pool();
        let headers = |text: &str| {
            HeaderMap::from_iter([("keep-alive".parse().unwrap(), text.parse().unwrap())])
        };
        pool.obey(&headers("timeout=60"));
        assert_eq!(pool.state().idle_ms, IDLE_MS);
        pool.obey(&headers("timeout=3"));
        assert_eq!(pool.state().idle_ms, 2_000);
        pool.obey(&headers("timeout=1"));
        assert!(!pool.for_call(HERE, Reuse::Always, true).1, "none is kept");
    }
}
