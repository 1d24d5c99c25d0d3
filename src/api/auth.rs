//! The door of the API: for whom a request speaks, by what it shows.
//!
//! Once a client key was made, routes that hand work in ask for one, or for the admin token: also where no token
//! is set, and also when every key is dead by now. What operators do stays open to the machine without a token.
//!
//! A loopback API without a token is open to every program of the machine on purpose, but a browser
//! on the machine runs other people's pages. Those are kept out by three checks: the `Host` must be a
//! loopback name (else a page's own name was rebound to 127.0.0.1), an `Origin`, if there is one, must be
//! ours or one that is let in, and a browser must not say by `Sec-Fetch-Site` that a page of another site, or of another
//! port, asks.

#[cfg(feature = "desk")]
mod known;

use std::net::IpAddr;
use std::sync::Arc;

use onelane_core::model::{ClientKeys, KeyId, KeyRole, KeySecret, Secret, Timestamp};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use warp::http::header::{HOST, ORIGIN};
use warp::http::uri::Authority;
use warp::http::{HeaderMap, HeaderName, Uri};

use super::cors::Cors;
use super::credentials::{self, Signed};
use super::limits;
use super::principal::{Access, Principal};
use super::problem::{Kind, Problem};

#[cfg(feature = "desk")]
pub(crate) use known::Known;

/// What a browser says of the page that asks.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The door of the API.
#[derive(Debug, Clone)]
pub(super) struct Auth {
    /// The digests of the tokens: two digests compare in the same time whatever the tokens' lengths.
    tokens: Vec<([u8; 32], Principal)>,
    /// Where we listen.
    ip: IpAddr,
    /// How pages of ours would be asked for.
    scheme: &'static str,
    /// Pages that are let in, too.
    cors: Cors,
}

impl Auth {
    /// The door of an API that listens on `ip`, in the clear.
    pub(super) fn new(admin: Option<&Secret>, viewer: Option<&Secret>, ip: IpAddr) -> Self {
        let token = |token: &Secret, of| (digest(token.expose().as_bytes()), of);
        let admin = admin.map(|secret| token(secret, Principal::Admin));
        let viewer = viewer.map(|secret| token(secret, Principal::Viewer));
        Self {
            tokens: admin.into_iter().chain(viewer).collect(),
            ip,
            scheme: "http",
            cors: Cors::default(),
        }
    }

    /// The same over TLS.
    pub(super) fn over_tls(self) -> Self {
        Self {
            scheme: "https",
            ..self
        }
    }

    /// The same for these pages, too.
    pub(super) fn with_pages(self, cors: Cors) -> Self {
        Self { cors, ..self }
    }

    /// For whom a request for such an endpoint speaks, or why it is not let in. `access` is `None` where there is
    /// no such endpoint.
    pub(super) fn principal(
        &self,
        headers: &HeaderMap,
        access: Option<Access>,
        keys: &ClientKeys,
        now: Timestamp,
    ) -> Result<Principal, Problem> {
        let is_open = self.tokens.is_empty();
        // What programs send where nothing is asked for is not looked at.
        if !(is_open && keys.is_empty())
            && let Some(given) = credentials::given(headers)?
        {
            if let Some(principal) = self.of_token(given) {
                return Ok(principal);
            }
            match of_key(given, keys, now) {
                Some(found) => return found,
                None if is_open && access != Some(Access::Submit) => {}
                None => {
                    return Err(unauthorized(
                        "the key or token that was sent is not known here",
                    ));
                }
            }
        } else if !is_open || (!keys.is_empty() && access == Some(Access::Submit)) {
            let what = if keys.is_empty() {
                "send the token as \"Authorization: Bearer TOKEN\""
            } else {
                "send a client key, or the admin token, as \"Authorization: Bearer KEY\""
            };
            return Err(unauthorized(what));
        }
        self.check_not_a_web_page(headers)?;
        Ok(Principal::Local)
    }

    /// Refuses names that are not those of this machine.
    pub(super) fn check_host(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let host = text(headers, HOST);
        if headers.contains_key(HOST) && !host.is_some_and(|host| self.is_ours(host)) {
            return Err(Problem::new(
                Kind::Forbidden,
                "without a token this API answers to loopback names only (127.0.0.1, localhost); \
                 use one of them, or set an admin token",
            ));
        }
        Ok(())
    }

    fn check_not_a_web_page(&self, headers: &HeaderMap) -> Result<(), Problem> {
        self.check_host(headers)?;
        let host = text(headers, HOST);
        let another = || {
            Problem::new(
                Kind::Forbidden,
                "without a token this API takes nothing from web pages of another origin; set an admin \
                 token",
            )
        };
        if self.cors.admits(headers) {
            return Ok(());
        }
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
            origin.scheme_str() == Some(self.scheme)
                && origin
                    .authority()
                    .zip(host)
                    .is_some_and(|(ours, host)| ours.as_str().eq_ignore_ascii_case(host))
        });
        same.then_some(()).ok_or_else(another)
    }

    /// Whose token it is.
    fn of_token(&self, given: &str) -> Option<Principal> {
        let given = digest(given.as_bytes());
        // All of them are looked at, whichever is right.
        let right = self
            .tokens
            .iter()
            .filter(|(token, _)| given.ct_eq(token).into());
        right.fold(None, |_, (_, of)| Some(of.clone()))
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

fn unauthorized(problem: impl Into<String>) -> Problem {
    Problem::new(Kind::Unauthorized, problem)
}

/// Whose client key it is, or why it opens nothing; `None`: it has not the form of one.
fn of_key(given: &str, keys: &ClientKeys, now: Timestamp) -> Option<Result<Principal, Problem>> {
    let signed = Signed::read(given);
    let id = match &signed {
        Some(signed) => signed.key_id()?,
        None => KeyId::of_key(given)?,
    };
    // Nobody is told whether there is such a key who does not have it.
    let unknown = || unauthorized("there is no such client key");
    let found = keys.get(id).filter(|key| match &signed {
        Some(signed) => key.secrets(now).any(|secret| signed.is_by(secret)),
        None => {
            let given = KeySecret::digest(given);
            let right = |secret: &KeySecret| given.as_bytes().ct_eq(secret.sha256().as_bytes());
            key.secrets(now).any(|secret| right(secret).into())
        }
    });
    let Some(key) = found else {
        return Some(Err(unknown()));
    };
    Some(match (key.why_dead(now), key.role) {
        (Some(why), _) => Err(unauthorized(why)),
        (None, KeyRole::Viewer) => Ok(Principal::Viewer),
        (None, KeyRole::Client) => Ok(Principal::Client(Arc::clone(key))),
    })
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
    use onelane_core::model::{ClientKey, KeyForm, KeyState};
    use warp::http::HeaderValue;
    use warp::http::header::AUTHORIZATION;

    const START: Timestamp = Timestamp::from_millis(1_000);
    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn principal(auth: &Auth, headers: &HeaderMap) -> Result<Principal, Problem> {
        let keys = ClientKeys::default();
        auth.principal(headers, Some(Access::Submit), &keys, START)
    }

    fn status(auth: &Auth, headers: &[(&'static str, &'static str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        principal(auth, &map).map_or_else(|p| p.status().as_u16(), |_| 200)
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
            principal(&auth, &headers).ok()
        };
        assert_eq!(of("Bearer run"), Some(Principal::Admin));
        assert_eq!(of("look"), Some(Principal::Viewer));
        assert_eq!(of("other"), None);
        for access in [Access::Submit, Access::Operate] {
            assert!(!access.admits(&Principal::Viewer));
            assert!(access.admits(&Principal::Admin) && access.admits(&Principal::Local));
        }
        assert!(Access::Look.admits(&Principal::Viewer));
    }

    /// A key of this number, live, with its text.
    fn key(n: u64, form: KeyForm) -> (ClientKey, Secret) {
        let id = KeyId::new(n);
        let random = [u8::try_from(n).unwrap(); 32];
        let (secret, text) = KeySecret::make(id, &random, form);
        (ClientKey::new(id, "k", secret, Timestamp::default()), text)
    }

    /// What a request with this header comes to, as words.
    fn asked(
        auth: &Auth,
        access: Access,
        keys: &ClientKeys,
        headers: &[(&'static str, &str)],
    ) -> Result<Principal, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let found = auth.principal(&map, Some(access), keys, START);
        found.map_err(|problem| {
            assert_eq!(problem.status().as_u16(), 401);
            let body = serde_json::to_value(problem.body()).unwrap();
            body["detail"].as_str().unwrap().to_owned()
        })
    }

    #[test]
    fn where_a_client_key_was_ever_made_work_is_handed_in_by_one_or_by_the_admin_token() {
        let (client, text) = key(1, KeyForm::Plain);
        let bearer = format!("Bearer {}", text.expose());
        let open = Auth::new(None, None, LOOPBACK);
        let guarded = Auth::new(Some(&Secret::new("s3cret")), None, LOOPBACK);
        let none = ClientKeys::default();
        let by = [("authorization", bearer.as_str())];
        // Without any key a loopback lane is as it was, whatever is sent.
        assert_eq!(
            asked(&open, Access::Submit, &none, &[]),
            Ok(Principal::Local)
        );
        assert_eq!(
            asked(&open, Access::Submit, &none, &by),
            Ok(Principal::Local)
        );
        let mut revoked = client.clone();
        revoked.revoke(START);
        for known in [client.clone(), revoked] {
            let is_live = known.state(START) == KeyState::Live;
            let keys: ClientKeys = [known.clone()].into_iter().collect();
            for auth in [&open, &guarded] {
                let bare = asked(auth, Access::Submit, &keys, &[]);
                assert!(bare.unwrap_err().contains("client key"));
                let found = asked(auth, Access::Submit, &keys, &by);
                if is_live {
                    assert_eq!(found, Ok(Principal::Client(Arc::new(known.clone()))));
                } else {
                    assert!(found.unwrap_err().contains("was revoked"));
                }
                let other = asked(auth, Access::Submit, &keys, &[("api-key", "sk-1")]);
                assert!(other.unwrap_err().contains("not known"));
            }
            let admin = [("authorization", "s3cret")];
            let found = asked(&guarded, Access::Submit, &keys, &admin);
            assert_eq!(found, Ok(Principal::Admin));
            // Who runs the machine runs the lane, as before.
            assert_eq!(
                asked(&open, Access::Operate, &keys, &[]),
                Ok(Principal::Local)
            );
            let sdk = [("authorization", "sk-1")];
            assert_eq!(
                asked(&open, Access::Operate, &keys, &sdk),
                Ok(Principal::Local)
            );
        }
    }

    #[test]
    fn a_key_is_taken_wherever_clients_put_it_and_two_that_differ_are_refused() {
        let (client, text) = key(1, KeyForm::Plain);
        let keys: ClientKeys = [client.clone()].into_iter().collect();
        let auth = Auth::new(None, None, LOOPBACK);
        let text = text.expose();
        let bearer = format!("bearer  {text} ");
        for (name, value) in [
            ("authorization", bearer.as_str()),
            ("authorization", text),
            ("x-api-key", text),
            ("api-key", text),
        ] {
            let found = asked(&auth, Access::Submit, &keys, &[(name, value)]);
            assert_eq!(
                found,
                Ok(Principal::Client(Arc::new(client.clone()))),
                "{name}"
            );
        }
        let both = [("authorization", bearer.as_str()), ("x-api-key", text)];
        assert!(asked(&auth, Access::Submit, &keys, &both).is_ok());
        for differing in [
            [("authorization", text), ("x-api-key", "sk-1")],
            [("x-api-key", "sk-1"), ("api-key", text)],
            [("authorization", text), ("authorization", "sk-1")],
        ] {
            let refused = asked(&auth, Access::Submit, &keys, &differing).unwrap_err();
            assert!(refused.contains("differ"), "{refused}");
        }
    }

    #[test]
    fn a_dead_or_unknown_key_is_told_so_and_a_wrong_secret_learns_nothing() {
        let (client, text) = key(1, KeyForm::Plain);
        let auth = Auth::new(None, None, LOOPBACK);
        let told = |key: &ClientKey, text: &str| {
            let keys: ClientKeys = [key.clone()].into_iter().collect();
            asked(&auth, Access::Submit, &keys, &[("x-api-key", text)])
        };
        let expired = ClientKey {
            expires_at: Some(START),
            ..client.clone()
        };
        let words = told(&expired, text.expose()).unwrap_err();
        assert!(words.contains("expired at 1970"), "{words}");
        assert!(!words.contains("0101"), "{words}");
        let wrong = format!("{}0", text.expose());
        let unknown = key(2, KeyForm::Plain).1;
        for other in [wrong.as_str(), unknown.expose()] {
            let words = told(&expired, other).unwrap_err();
            assert_eq!(words, "there is no such client key");
        }
        let mut rotated = client;
        let (second, newer) = KeySecret::make(rotated.id, &[9; 32], KeyForm::Plain);
        rotated.rotate(second, 500, Timestamp::from_millis(600));
        assert!(told(&rotated, text.expose()).is_ok(), "the overlap lasts");
        assert!(told(&rotated, newer.expose()).is_ok());
        let (third, _) = KeySecret::make(rotated.id, &[8; 32], KeyForm::Plain);
        rotated.rotate(third, 0, START);
        assert!(told(&rotated, newer.expose()).is_err());
    }

    #[test]
    fn a_key_of_a_viewer_looks_and_one_of_a_client_hands_in() {
        let viewer = ClientKey {
            role: KeyRole::Viewer,
            ..key(1, KeyForm::Plain).0
        };
        let text = key(1, KeyForm::Plain).1;
        let keys: ClientKeys = [viewer].into_iter().collect();
        let auth = Auth::new(None, None, LOOPBACK);
        let by = [("authorization", text.expose())];
        let found = asked(&auth, Access::Look, &keys, &by);
        assert_eq!(found, Ok(Principal::Viewer));
        let client = Principal::Client(Arc::new(key(2, KeyForm::Plain).0));
        assert!(Access::Submit.admits(&client));
        assert!(!Access::Look.admits(&client) && !Access::Operate.admits(&client));
        assert!(Access::Operate.admit(&client).is_err());
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
