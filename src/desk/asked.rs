//! A request that was let in: for whom it speaks, in which language, and how it is answered.

use std::sync::Arc;

use askama::Template;
use serde_json::Value;
use warp::http::header::{ACCEPT_LANGUAGE, COOKIE, LOCATION};
use warp::http::{HeaderMap, Method, StatusCode};

use super::Desk;
use super::frame::{Frame, Nav, Note};
use super::sessions::Session;
use super::show::encoded;
use super::words::{Lang, Words};
use crate::api::site::{Access, Captures, Kind, Known, Principal, Problem, Reply, Visit, pairs};
use crate::orchestrator::Orchestrator;

/// What a page comes to.
pub(super) type Answered = Result<Reply, Problem>;
/// The parts of a path that stand for parameters.
pub(super) type Parts = Captures;

/// The media type of pages.
pub(super) const HTML: &str = "text/html; charset=utf-8";
const LANG_COOKIE: &str = "onelane_lang";
const THEME_COOKIE: &str = "onelane_theme";

/// Which colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Theme {
    /// As the system has it.
    Auto,
    Light,
    Dark,
}

impl Theme {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let all = [Self::Auto, Self::Light, Self::Dark];
        all.into_iter().find(|theme| theme.name() == name)
    }
}

/// In which language and colours somebody looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) lang: Lang,
    pub(super) theme: Theme,
}

impl Look {
    /// As it was chosen, else as the browser wants it.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let lang = cookie(headers, LANG_COOKIE).and_then(Lang::parse);
        let theme = cookie(headers, THEME_COOKIE).and_then(Theme::parse);
        let wanted = headers
            .get(ACCEPT_LANGUAGE)
            .and_then(|value| value.to_str().ok());
        Self {
            lang: lang.unwrap_or_else(|| Lang::wanted(wanted.unwrap_or_default())),
            theme: theme.unwrap_or(Theme::Auto),
        }
    }

    pub(super) fn words(self) -> &'static Words {
        Words::of(self.lang)
    }

    /// The cookies that keep what a form chose.
    pub(super) fn chosen(self, asked: &Asked) -> Vec<(&'static str, &'static str)> {
        let lang = asked.field("lang").and_then(Lang::parse);
        let theme = asked.field("theme").and_then(Theme::parse);
        let lang = lang.map(|lang| (LANG_COOKIE, lang.name()));
        lang.into_iter()
            .chain(theme.map(|theme| (THEME_COOKIE, theme.name())))
            .collect()
    }
}

/// A request that was let in.
pub(super) struct Asked {
    pub(super) visit: Visit,
    pub(super) desk: Arc<Desk>,
    pub(super) look: Look,
    /// `None`: nobody is logged in, and nobody has to be.
    pub(super) session: Option<Session>,
    pub(super) form: Vec<(String, String)>,
    pub(super) parts: Parts,
}

impl Asked {
    /// The lane.
    pub(super) fn lane(&self) -> &Orchestrator {
        self.visit.lane()
    }

    /// In its language.
    pub(super) fn words(&self) -> &'static Words {
        self.look.words()
    }

    /// For whom it speaks.
    pub(super) fn principal(&self) -> Principal {
        let session = self.session.as_ref();
        session.map_or(Principal::Viewer, |session| session.known.principal.clone())
    }

    /// Whether orders are taken from it.
    pub(super) fn may_operate(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| Access::Operate.admits(&session.known.principal))
    }

    /// What the forms of its pages say.
    pub(super) fn form_token(&self) -> &str {
        let session = self.session.as_ref();
        session.map_or("", |session| session.form_token.as_str())
    }

    /// What is looked at again while a stream of it lasts; `None`: nobody had to log in.
    pub(super) fn still(&self) -> Option<Known> {
        self.session.as_ref().map(|session| session.known.clone())
    }

    /// A part of the path.
    pub(super) fn part(&self, name: &str) -> &str {
        let found = self.parts.iter().find(|(known, _)| *known == name);
        found.map_or("", |(_, value)| value)
    }

    /// The parameters of the query; one that is not percent-encoded is left out with all others.
    pub(super) fn queries(&self) -> Vec<(String, String)> {
        pairs(&self.visit.query).unwrap_or_default()
    }

    /// A parameter of the query that says something.
    pub(super) fn query(&self, name: &str) -> Option<String> {
        let mut queries = self.queries().into_iter();
        let (_, value) = queries.find(|(known, _)| known == name)?;
        Some(value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// A field of the form that says something.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let (_, value) = self.form.iter().find(|(known, _)| known == name)?;
        Some(value.trim()).filter(|value| !value.is_empty())
    }

    /// What stands around a page.
    pub(super) async fn frame(&self, nav: Nav) -> Result<Frame, Problem> {
        Frame::of(self, nav).await
    }

    /// The page that was asked for.
    pub(super) fn page(&self, page: &impl Template) -> Answered {
        self.page_as(StatusCode::OK, page)
    }

    /// A page with this status.
    pub(super) fn page_as(&self, status: StatusCode, page: &impl Template) -> Answered {
        let broken = |error: askama::Error| Problem::new(Kind::Internal, error.to_string());
        let page = page.render().map_err(broken)?;
        Ok(Reply::text(status, HTML, page.into_bytes()))
    }

    /// Gives an order of the API for whom this speaks.
    pub(super) async fn order(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Problem> {
        self.visit
            .order(&self.principal(), method, path, body)
            .await
    }

    /// Back to the page from which a form came, which says what was done.
    pub(super) fn back(&self, note: Note, count: Option<u64>) -> Reply {
        let to = local_path(self.field("back"));
        let (path, query) = to.split_once('?').unwrap_or((&to, ""));
        let kept = query
            .split('&')
            .filter(|pair| !pair.is_empty() && !Note::is_told(pair));
        let mut pairs: Vec<String> = kept.map(str::to_owned).collect();
        pairs.push(format!("note={}", note.name()));
        pairs.extend(count.map(|count| format!("n={count}")));
        see_other(&format!("{path}?{}", pairs.join("&")))
    }

    /// What tells somebody that a page failed.
    pub(super) fn failing(&self) -> Failing {
        let back = self
            .field("back")
            .map_or(String::from("/"), |back| local_path(Some(back)));
        let token = self.form_token().to_owned();
        Failing(Frame::bare(self.look, back, token))
    }

    /// Where it was asked: its path and its query, without what a form told.
    pub(super) fn here(&self) -> String {
        let pairs = self.queries().into_iter();
        let kept = pairs.filter(|(name, _)| !matches!(name.as_str(), "note" | "n"));
        let kept: Vec<String> = kept
            .map(|(name, value)| format!("{}={}", encoded(&name), encoded(&value)))
            .collect();
        match kept.is_empty() {
            true => self.visit.path.clone(),
            false => format!("{}?{}", self.visit.path, kept.join("&")),
        }
    }
}

/// Tells somebody that a page failed.
pub(super) struct Failing(Frame);

impl Failing {
    /// The page that says so.
    pub(super) fn page(self, problem: &Problem) -> Reply {
        problem_page(self.0, problem)
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'p> {
    frame: Frame,
    title: &'p str,
    detail: &'p str,
}

/// The page that says what is wrong.
pub(super) fn problem_page(frame: Frame, problem: &Problem) -> Reply {
    let page = ProblemPage {
        title: problem.kind().title(),
        detail: problem.detail(),
        frame,
    };
    let page = page
        .render()
        .unwrap_or_else(|_| problem.detail().to_owned());
    Reply::text(problem.status(), HTML, page.into_bytes())
}

/// The value of a cookie.
pub(super) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let cookies = headers.get_all(COOKIE).iter();
    let mut pairs = cookies.flat_map(|line| line.to_str().unwrap_or("").split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// A redirect that is followed by a GET.
pub(super) fn see_other(to: &str) -> Reply {
    let reply = Reply::text(
        StatusCode::SEE_OTHER,
        "text/plain; charset=utf-8",
        Vec::new(),
    );
    reply.with(LOCATION, to)
}

/// A path of the desk, whatever somebody wrote: a form leads nowhere else.
pub(super) fn local_path(path: Option<&str>) -> String {
    let path = path.unwrap_or("/");
    let is_plain = path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    let is_ours = path == "/" || path.starts_with("/?") || path.starts_with("/desk");
    match is_plain && is_ours {
        true => path.to_owned(),
        false => "/".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_leads_to_a_path_of_the_desk_and_nowhere_else() {
        for ours in ["/", "/?note=x", "/desk/jobs?status=failed&q=%20"] {
            assert_eq!(local_path(Some(ours)), ours);
        }
        for other in [
            "",
            "//evil.example",
            "https://evil.example",
            "/\\evil",
            "/desk\r\nx: y",
            "/api",
        ] {
            assert_eq!(local_path(Some(other)), "/", "{other:?}");
        }
        assert_eq!(local_path(None), "/");
    }

    #[test]
    fn the_browsers_language_comes_first_unless_another_was_chosen() {
        let look = |headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, warp::http::HeaderValue::from_static(value));
            }
            Look::of(&map)
        };
        assert_eq!(look(&[]).lang, Lang::En);
        assert_eq!(
            look(&[("accept-language", "zh-CN,zh;q=0.9,en;q=0.8")]).lang,
            Lang::Zh
        );
        assert_eq!(
            look(&[("accept-language", "de,en;q=0.5,zh;q=0.9")]).lang,
            Lang::Zh
        );
        assert_eq!(
            look(&[("accept-language", "en-US,zh;q=0.9")]).lang,
            Lang::En
        );
        let chosen = [
            ("accept-language", "zh"),
            ("cookie", "a=b; onelane_lang=en; onelane_theme=dark"),
        ];
        assert_eq!(
            look(&chosen),
            Look {
                lang: Lang::En,
                theme: Theme::Dark
            }
        );
    }
}
