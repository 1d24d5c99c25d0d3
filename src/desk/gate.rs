//! Who gets in. Where a token is set, whoever looks logs in with one, or with a viewer's key, and has a session; where
//! none is, this machine gets in as it does by the API. A form is taken from our own pages alone: the browser says so,
//! and the form says what only its page was told.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use askama::Template;
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;
use warp::http::header::{
    CONTENT_SECURITY_POLICY, HOST, HeaderName, ORIGIN, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE,
};
use warp::http::uri::Authority;
use warp::http::{HeaderMap, Method, StatusCode, Uri};

use super::Desk;
use super::asked::{Answered, Asked, Look, Parts, cookie, local_path, see_other};
use super::frame::Frame;
use super::sessions::{self, LASTS, Session, Sessions};
use super::tries::Tries;
use crate::api::site::{Access, Kind, Known, Problem, Reply, Visit};

/// What pages may load and do: nothing but what this server has.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
    connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// What a browser says of the page that asks.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// The field of a form in which its page says what only it was told.
const TOKEN: &str = "token";
/// A chosen language or theme is remembered so long, in seconds.
const REMEMBERED_S: u64 = 365 * 24 * 60 * 60;

/// Sessions, and who tried to begin one.
#[derive(Default)]
pub(super) struct Gate {
    sessions: Mutex<Sessions>,
    tries: Mutex<Tries>,
    /// What forms say where nobody logs in.
    open: OnceLock<String>,
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether somebody is let in.
pub(super) enum Entry {
    In(Box<Asked>),
    Out(Reply),
}

/// Lets a request in, or answers why not.
pub(super) async fn let_in(
    desk: &Arc<Desk>,
    mut visit: Visit,
    access: Access,
    parts: Parts,
) -> Entry {
    let look = Look::of(&visit.headers);
    let out = |problem: Problem, look: Look| {
        let frame = Frame::bare(look, String::from("/"), String::new());
        Entry::Out(super::asked::problem_page(frame, &problem))
    };
    if let Err(problem) = visit.check_host() {
        return out(problem, look);
    }
    let session = match desk.gate.session(&visit) {
        Ok(session) => session,
        Err(problem) => return out(problem, look),
    };
    let mut form = Vec::new();
    if visit.method == Method::POST {
        let taken = match from_our_page(&visit.headers) {
            true => visit.form().await,
            false => Err(foreign()),
        };
        form = match taken {
            Ok(form) => form,
            Err(problem) => return out(problem, look),
        };
        let told = form.iter().find(|(name, _)| name == TOKEN);
        let told = told.map_or("", |(_, value)| value.as_str());
        let is_ours = |session: &Session| told.as_bytes().ct_eq(session.form_token.as_bytes());
        if !session
            .as_ref()
            .is_none_or(|session| is_ours(session).into())
        {
            return out(foreign(), look);
        }
    }
    if access != Access::Anybody {
        let Some(session) = &session else {
            return Entry::Out(to_log_in(&visit));
        };
        if let Err(problem) = access.admit(&session.known.principal) {
            return out(problem, look);
        }
    }
    Entry::In(Box::new(Asked {
        visit,
        desk: Arc::clone(desk),
        look,
        session,
        form,
        parts,
    }))
}

fn foreign() -> Problem {
    let problem =
        "the form was not sent by a page of this desk, or that page is too old; open it again";
    Problem::new(Kind::Forbidden, problem)
}

fn to_log_in(visit: &Visit) -> Reply {
    if visit.path == "/desk/live" {
        return Reply::text(
            StatusCode::UNAUTHORIZED,
            "text/plain; charset=utf-8",
            Vec::new(),
        );
    }
    let to = match visit.method {
        Method::GET if visit.path != "/" => format!("?to={}", super::show::encoded(&visit.path)),
        _ => String::new(),
    };
    see_other(&format!("/desk/login{to}"))
}

/// Whether a page of ours sent a request, as far as the browser tells. What is no browser tells nothing.
fn from_our_page(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter().peekable();
    if sites.peek().is_some() {
        return sites.all(|site| site.as_bytes().eq_ignore_ascii_case(b"same-origin"));
    }
    // Browsers say it to names that they trust alone.
    let mut origins = headers.get_all(ORIGIN).iter();
    let (origin, another) = (origins.next(), origins.next());
    let Some(origin) = origin else { return true };
    let origin = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.parse::<Uri>().ok());
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<Authority>().ok());
    another.is_none()
        && origin
            .zip(host)
            .is_some_and(|(origin, host)| origin.authority() == Some(&host))
}

impl Gate {
    /// The session of a request; `None`: nobody is logged in.
    fn session(&self, visit: &Visit) -> Result<Option<Session>, Problem> {
        if visit.is_open() {
            let token = match self.open.get() {
                Some(token) => token,
                None => {
                    let secret = secret(visit)?;
                    self.open.get_or_init(|| sessions::form_token(&secret))
                }
            };
            return Ok(Some(Session::open(token)));
        }
        let Some(cookie) = cookie(&visit.headers, &session_name(visit)) else {
            return Ok(None);
        };
        let session = locked(&self.sessions).find(cookie, Instant::now());
        Ok(session.filter(|session| visit.knows(&session.known)))
    }
}

fn secret(visit: &Visit) -> Result<[u8; 32], Problem> {
    let none = || {
        Problem::new(
            Kind::Internal,
            "the machine has no randomness for a session",
        )
    };
    visit.secret().ok_or_else(none)
}

/// Several daemons of one machine share their cookies: each has its own by its port.
fn session_name(visit: &Visit) -> String {
    let host = visit.headers.get(HOST).and_then(|host| host.to_str().ok());
    let port = host.and_then(|host| host.parse::<Authority>().ok()?.port_u16());
    let port = port.map_or(String::new(), |port| format!("_{port}"));
    let prefix = if visit.is_tls() { "__Host-" } else { "" };
    format!("{prefix}onelane_session{port}")
}

fn set_cookie(visit: &Visit, name: &str, value: &str, seconds: u64) -> String {
    let secure = if visit.is_tls() { "; Secure" } else { "" };
    format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

#[derive(Template)]
#[template(path = "login.html")]
struct Login {
    frame: Frame,
    to: String,
    wrong: Option<String>,
}

/// `GET /desk/login`.
pub(super) async fn login_page(asked: Asked) -> Answered {
    let to = local_path(asked.query("to").as_deref());
    if asked.session.is_some() {
        return Ok(see_other(&to));
    }
    login(&asked, to, StatusCode::OK, None)
}

fn login(asked: &Asked, to: String, status: StatusCode, wrong: Option<String>) -> Answered {
    let frame = Frame::bare(asked.look, String::from("/desk/login"), String::new());
    asked.page_as(status, &Login { frame, to, wrong })
}

/// `POST /desk/login`.
pub(super) async fn log_in(asked: Asked) -> Answered {
    let to = local_path(asked.field("to"));
    let (gate, now, peer) = (&asked.desk.gate, Instant::now(), asked.visit.peer);
    let words = asked.look.words();
    if let Some(wait) = locked(&gate.tries).wait(peer, now) {
        let seconds = wait.as_secs().max(1);
        let wrong = words.too_many_tries.replace("{}", &seconds.to_string());
        let page = login(&asked, to, StatusCode::TOO_MANY_REQUESTS, Some(wrong))?;
        return Ok(page.with(RETRY_AFTER, seconds));
    }
    let typed = asked.field("secret").unwrap_or_default();
    let Some(known) = asked.visit.log_in(typed) else {
        locked(&gate.tries).failed(peer, now);
        tracing::warn!(
            ?peer,
            "somebody tried to log in to the desk with what opens nothing"
        );
        let wrong = words.wrong_token.to_owned();
        return login(&asked, to, StatusCode::FORBIDDEN, Some(wrong));
    };
    let value = locked(&gate.sessions).begin(known, &secret(&asked.visit)?, now);
    let name = session_name(&asked.visit);
    let cookie = set_cookie(&asked.visit, &name, &value, LASTS.as_secs());
    Ok(see_other(&to).with(SET_COOKIE, cookie))
}

/// `POST /desk/logout`.
pub(super) async fn log_out(asked: Asked) -> Answered {
    let name = session_name(&asked.visit);
    if let Some(value) = cookie(&asked.visit.headers, &name) {
        locked(&asked.desk.gate.sessions).end(value);
    }
    let cookie = set_cookie(&asked.visit, &name, "", 0);
    Ok(see_other("/desk/login").with(SET_COOKIE, cookie))
}

/// `POST /desk/look`: another language or theme.
pub(super) async fn choose_look(asked: Asked) -> Answered {
    let mut reply = see_other(&local_path(asked.field("back")));
    for (cookie, value) in asked.look.chosen(&asked) {
        let cookie = set_cookie(&asked.visit, cookie, value, REMEMBERED_S);
        reply = reply.with(SET_COOKIE, cookie);
    }
    Ok(reply)
}

/// What every answer of the desk says to browsers.
pub(super) fn guarded(reply: Reply) -> Reply {
    reply
        .with(CONTENT_SECURITY_POLICY, POLICY)
        // Strict: without it browsers would not say where forms come from.
        .with(REFERRER_POLICY, "same-origin")
        .with(
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        )
        .with(
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        )
}

impl Session {
    /// Of somebody who need not log in.
    fn open(form_token: &str) -> Self {
        Self::of(
            Known::local(),
            form_token.to_owned(),
            Instant::now() + LASTS,
        )
    }
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    #[test]
    fn a_form_is_taken_from_our_own_pages_alone() {
        let check = |given: &[(&'static str, &'static str)], want: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("desk.example:4700"));
            for (name, value) in given {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(from_our_page(&headers), want, "{given:?}");
        };
        check(&[], true);
        check(&[("sec-fetch-site", "same-origin")], true);
        for site in ["cross-site", "same-site", "none", ""] {
            check(&[("sec-fetch-site", site)], false);
        }
        check(&[("origin", "http://desk.example:4700")], true);
        // Behind a proxy that speaks TLS.
        check(&[("origin", "https://desk.example:4700")], true);
        for origin in [
            "http://desk.example",
            "http://evil.example:4700",
            "null",
            "",
        ] {
            check(&[("origin", origin)], false);
        }
        let ours = ("origin", "http://desk.example:4700");
        check(&[ours, ("origin", "http://evil.example")], false);
        check(&[ours, ("sec-fetch-site", "cross-site")], false);
    }
}
