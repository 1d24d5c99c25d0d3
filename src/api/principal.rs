//! For whom a request speaks, and what that lets it do: an operator by the admin token, somebody who may
//! look by the viewer token, or, where there is no token, a program on this machine and no web page.
//!
//! A loopback API without a token is open to every program of the machine on purpose, but a browser
//! on the machine runs other people's pages. Those are kept out by three checks: the `Host` must be a
//! loopback name (else a page's own name was rebound to 127.0.0.1), an `Origin`, if there is one, must be
//! ours, and a browser must not say by `Sec-Fetch-Site` that a page of another site, or of another port, asks.

use std::net::IpAddr;

use onelane_core::model::Secret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use warp::http::header::{AUTHORIZATION, HOST, ORIGIN};
use warp::http::uri::Authority;
use warp::http::{HeaderMap, HeaderName, Uri};

use super::limits;
use super::problem::{Kind, Problem};
use crate::views::Audience;

/// Where whoever watches the daemon asks whether it answers.
pub(super) const HEALTH: &str = "/healthz";

/// What a browser says of the page that asks.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// For whom a request speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Principal {
    /// Who runs the lane, by the admin token.
    Admin,
    /// Somebody who may look at everything but whole prompts and answers, and change nothing.
    Viewer,
    /// A program on this machine, where no token is set: it may do what an operator may.
    Local,
}

/// Who may use an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Anybody, without a token.
    Anybody,
    /// Whoever may look: admin, viewer, local.
    Look,
    /// Whoever hands work in: admin, local.
    Submit,
    /// Who runs the lane: admin, local.
    Operate,
}

impl Access {
    /// Whether it is open to this one.
    pub(super) const fn admits(self, principal: Principal) -> bool {
        match principal {
            Principal::Admin | Principal::Local => true,
            Principal::Viewer => matches!(self, Self::Anybody | Self::Look),
        }
    }

    /// Who that is, in words.
    pub(super) const fn whom(self) -> &'static str {
        match self {
            Self::Anybody => "anybody, without a token",
            Self::Look => "admin, viewer",
            Self::Submit | Self::Operate => "admin",
        }
    }
}

impl Principal {
    /// Whether whole prompts and answers, and what submitters keep to themselves, are for its eyes.
    pub(super) const fn audience(self) -> Audience {
        match self {
            Self::Admin | Self::Local => Audience::Owner,
            Self::Viewer => Audience::Viewer,
        }
    }
}

/// The door of the API.
#[derive(Debug, Clone)]
pub(super) struct Auth {
    /// The digests of the tokens: two digests compare in the same time whatever the tokens' lengths.
    tokens: Vec<([u8; 32], Principal)>,
    /// Where we listen.
    ip: IpAddr,
}

impl Auth {
    /// The door of an API that listens on `ip`.
    pub(super) fn new(admin: Option<&Secret>, viewer: Option<&Secret>, ip: IpAddr) -> Self {
        let token = |token: &Secret, of| (digest(token.expose().as_bytes()), of);
        let admin = admin.map(|secret| token(secret, Principal::Admin));
        let viewer = viewer.map(|secret| token(secret, Principal::Viewer));
        Self {
            tokens: admin.into_iter().chain(viewer).collect(),
            ip,
        }
    }

    /// For whom a request speaks, or why it is not let in.
    pub(super) fn principal(&self, headers: &HeaderMap) -> Result<Principal, Problem> {
        if self.tokens.is_empty() {
            self.check_not_a_web_page(headers)?;
            return Ok(Principal::Local);
        }
        self.of_token(headers)
    }

    fn check_not_a_web_page(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let host = text(headers, HOST);
        if headers.contains_key(HOST) && !host.is_some_and(|host| self.is_ours(host)) {
            return Err(Problem::new(
                Kind::Forbidden,
                "without a token this API answers to loopback names only (127.0.0.1, localhost); \
                 use one of them, or set an admin token",
            ));
        }
        let another = || {
            Problem::new(
                Kind::Forbidden,
                "without a token this API takes nothing from web pages of another origin; set an admin \
                 token",
            )
        };
        // `none` is an address that somebody typed.
        let sites = headers.get_all(SEC_FETCH_SITE).iter();
        let mut sites = sites.map(|site| site.as_bytes().to_ascii_lowercase());
        if sites.any(|site| !matches!(site.as_slice(), b"same-origin" | b"none")) {
            return Err(another());
        }
        let mut origins = headers.get_all(ORIGIN).iter();
        let (origin, None) = (origins.next(), origins.next()) else {
            return Err(another());
        };
        let Some(origin) = origin else {
            return Ok(());
        };
        let same = origin.to_str().ok().and_then(|o| o.parse::<Uri>().ok());
        let same = same.is_some_and(|origin| {
            origin.scheme_str() == Some("http")
                && origin
                    .authority()
                    .zip(host)
                    .is_some_and(|(ours, host)| ours.as_str().eq_ignore_ascii_case(host))
        });
        same.then_some(()).ok_or_else(another)
    }

    /// `Bearer TOKEN`, or the bare token, as GLM's older SDKs send it.
    fn of_token(&self, headers: &HeaderMap) -> Result<Principal, Problem> {
        let given = text(headers, AUTHORIZATION).map(|value| {
            let value = value.trim();
            match value.split_once(' ') {
                Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim(),
                _ => value,
            }
        });
        let Some(given) = given else {
            return Err(Problem::new(
                Kind::Unauthorized,
                "send the token as \"Authorization: Bearer TOKEN\"",
            ));
        };
        let given = digest(given.as_bytes());
        // All of them are looked at, whichever is right.
        let right = self
            .tokens
            .iter()
            .filter(|(token, _)| given.ct_eq(token).into());
        right.fold(None, |_, (_, of)| Some(*of)).ok_or_else(|| {
            Problem::new(
                Kind::Unauthorized,
                "the token in the Authorization header is not the right one",
            )
        })
    }

    fn is_ours(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else {
            return false;
        };
        let name = authority.host().trim_matches(['[', ']']);
        name.eq_ignore_ascii_case("localhost")
            || name
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.is_loopback() || ip == self.ip)
    }
}

/// Why a token could be guessed; `None`: it could not.
pub(super) fn weakness(token: &str) -> Option<&'static str> {
    let token = token.trim();
    let lower = token.to_ascii_lowercase();
    // As they stand in the papers.
    const KNOWN: [&str; 2] = ["a-long-random-text", "another-long-random-text"];
    if KNOWN.contains(&lower.as_str()) {
        return Some("stands in the documentation");
    }
    let chars: Vec<char> = lower.chars().collect();
    if chars.len() < limits::TOKEN_CHARS_MIN {
        return Some("has fewer than 16 characters");
    }
    let is_repeated = |n: usize| chars.iter().zip(chars.iter().skip(n)).all(|(a, b)| a == b);
    if (1..=chars.len() / 2).any(is_repeated) {
        return Some("repeats a shorter text");
    }
    let kinds: std::collections::BTreeSet<_> = chars.iter().collect();
    if kinds.len() < limits::TOKEN_KINDS_MIN {
        return Some("has fewer than 8 different characters");
    }
    let steps = chars.iter().zip(chars.iter().skip(1));
    let in_a_row = steps.filter(|(a, b)| u32::from(**a).abs_diff(u32::from(**b)) <= 1);
    if in_a_row.count() * 2 > chars.len() {
        return Some("counts up or down, like 1234 or abcd");
    }
    None
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use warp::http::HeaderValue;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn status(auth: &Auth, headers: &[(&'static str, &'static str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        auth.principal(&map)
            .map_or_else(|p| p.status().as_u16(), |_| 200)
    }

    #[test]
    fn the_token_opens_with_and_without_the_word_bearer() {
        let auth = Auth::new(Some(&Secret::new("s3cret")), None, LOOPBACK);
        let check = |value, want| assert_eq!(status(&auth, &[("authorization", value)]), want);
        check("Bearer s3cret", 200);
        check("bearer   s3cret ", 200);
        check("s3cret", 200);
        check("Bearer s3cre", 401);
        check("Bearer s3crets", 401);
        check("Bearer", 401);
        check("", 401);
        check("Basic s3cret", 401);
        assert_eq!(status(&auth, &[]), 401);
    }

    #[test]
    fn a_token_says_for_whom_a_request_speaks_and_what_that_opens() {
        let tokens = [Secret::new("run"), Secret::new("look")];
        let auth = Auth::new(Some(&tokens[0]), Some(&tokens[1]), LOOPBACK);
        let of = |token: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(token));
            auth.principal(&headers).ok()
        };
        assert_eq!(of("Bearer run"), Some(Principal::Admin));
        assert_eq!(of("look"), Some(Principal::Viewer));
        assert_eq!(of("other"), None);
        for access in [Access::Submit, Access::Operate] {
            assert!(!access.admits(Principal::Viewer));
            assert!(access.admits(Principal::Admin) && access.admits(Principal::Local));
        }
        assert!(Access::Look.admits(Principal::Viewer));
    }

    #[test]
    fn with_a_token_any_name_and_origin_will_do() {
        let auth = Auth::new(Some(&Secret::new("t")), None, "0.0.0.0".parse().unwrap());
        let headers = [
            ("authorization", "Bearer t"),
            ("host", "lane.example"),
            ("origin", "https://app.example"),
        ];
        assert_eq!(status(&auth, &headers), 200);
    }

    #[test]
    fn without_a_token_only_loopback_names_are_served() {
        let auth = Auth::new(None, None, "127.0.0.2".parse().unwrap());
        let check = |host, want| assert_eq!(status(&auth, &[("host", host)]), want, "{host}");
        check("127.0.0.1:4700", 200);
        check("127.0.0.2", 200);
        check("LOCALHOST:4700", 200);
        check("[::1]:4700", 200);
        check("rebound.example:4700", 403);
        check("127.0.0.1.example", 403);
        check("localhost.example", 403);
        check("10.0.0.1", 403);
        check("", 403);
        assert_eq!(status(&auth, &[]), 200, "not a browser");
    }

    #[test]
    fn without_a_token_pages_of_another_origin_are_refused() {
        let auth = Auth::new(None, None, LOOPBACK);
        let check = |origin, want| {
            let headers = [("host", "127.0.0.1:4700"), ("origin", origin)];
            assert_eq!(status(&auth, &headers), want, "{origin}");
        };
        check("http://127.0.0.1:4700", 200);
        check("http://127.0.0.1:8080", 403);
        check("http://127.0.0.1", 403);
        check("https://127.0.0.1:4700", 403);
        check("https://evil.example", 403);
        check("null", 403);
        let two = [
            ("host", "127.0.0.1:4700"),
            ("origin", "http://127.0.0.1:4700"),
            ("origin", "https://evil.example"),
        ];
        assert_eq!(status(&auth, &two), 403);
    }

    #[test]
    fn without_a_token_pages_that_a_browser_calls_foreign_are_refused_without_an_origin_too() {
        let auth = Auth::new(None, None, LOOPBACK);
        let check = |site, want| {
            let headers = [("host", "127.0.0.1:4700"), ("sec-fetch-site", site)];
            assert_eq!(status(&auth, &headers), want, "{site}");
        };
        check("cross-site", 403);
        check("same-site", 403);
        check("Cross-Site", 403);
        check("", 403);
        check("same-origin", 200);
        check("none", 200);
        // With a token it is the token that counts.
        let auth = Auth::new(Some(&Secret::new("s3cret")), None, LOOPBACK);
        let headers = [
            ("authorization", "s3cret"),
            ("sec-fetch-site", "cross-site"),
        ];
        assert_eq!(status(&auth, &headers), 200);
    }

    #[test]
    fn a_token_that_can_be_guessed_is_weak() {
        let check = |token: &str, want: Option<&str>| {
            let found = weakness(token);
            assert_eq!(found.is_some(), want.is_some(), "{token}: {found:?}");
            let words = (found.unwrap_or_default(), want.unwrap_or_default());
            assert!(words.0.contains(words.1), "{token}: {found:?}");
        };
        check("t", Some("16"));
        check("hunter2hunter2", Some("16"));
        check("aaaaaaaaaaaaaaaaaaaa", Some("repeats"));
        check("changemechangeme", Some("repeats"));
        check("changemechangemechange", Some("repeats"));
        check("abbaabababbabbaabab", Some("different"));
        check("0123456789abcdef", Some("counts"));
        check("12345678901234567890a", Some("counts"));
        check("a-long-random-text", Some("documentation"));
        check("8f14e45fceea167a", None);
        check("correct horse battery staple", None);
        check("3q2-7wAAzxT0_kLm9Qv1bg", None);
    }
}
