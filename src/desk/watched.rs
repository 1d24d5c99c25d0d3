//! A page that several watch is made once for all of them: told that something happened, each of them asks for it again,
//! and gets what was made for the first who did. So the lane is asked once, however many look on.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use tokio::time::Instant;
use warp::http::{HeaderName, Method, StatusCode};

use super::Desk;
use super::asked::{Answered, Asked, HTML, Look};
use crate::api::site::{Principal, Problem, Pulse, Reply, whole};

/// By this the script says that it asks for what it shows already.
const WATCHES: HeaderName = HeaderName::from_static("onelane-watch");
/// Pages that are kept at once; others are made for everybody who asks.
const PAGES_MAX: usize = 64;

/// What decides how a page looks; beside it there is what the forms of a session say.
#[derive(PartialEq, Eq)]
struct Key {
    path: String,
    query: String,
    look: Look,
    principal: Principal,
}

impl Key {
    /// Of a page that is watched.
    fn of(asked: &Asked) -> Option<Self> {
        let visit = &asked.visit;
        let is_watched = visit.method == Method::GET && visit.headers.contains_key(WATCHES);
        is_watched.then(|| Self {
            path: visit.path.clone(),
            query: visit.query.clone(),
            look: asked.look,
            principal: asked.principal(),
        })
    }
}

/// A page that is made, or about to be.
struct Page {
    begun: Instant,
    made: OnceCell<Made>,
}

struct Made {
    status: StatusCode,
    html: String,
    /// What its forms say.
    token: String,
}

impl Made {
    /// For somebody whose forms say this.
    fn with(&self, token: &str) -> Reply {
        let html = match self.token.is_empty() || self.token == token {
            true => self.html.clone(),
            false => self.html.replace(&self.token, token),
        };
        Reply::text(self.status, HTML, html.into_bytes())
    }
}

/// The pages that are watched.
#[derive(Default)]
pub(super) struct Watched(Mutex<Vec<(Key, Arc<Page>)>>);

impl Watched {
    /// The page that was begun since those who watch were told last, or a new one.
    fn page(&self, key: Key, pulse: &Pulse) -> Arc<Page> {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.retain(|(_, page)| pulse.is_new(page.begun));
        if let Some((_, page)) = pages.iter().find(|(known, _)| *known == key) {
            return Arc::clone(page);
        }
        let page = Arc::new(Page {
            begun: Instant::now(),
            made: OnceCell::new(),
        });
        if pages.len() < PAGES_MAX {
            pages.push((key, Arc::clone(&page)));
        }
        page
    }
}

/// Answers what was asked, by what was made for somebody else who watches where there is such a page.
pub(super) async fn answer<F>(
    desk: &Desk,
    asked: Asked,
    make: impl FnOnce(Asked) -> F + Send,
) -> Answered
where
    F: Future<Output = Answered> + Send,
{
    let Some(key) = Key::of(&asked) else {
        return make(asked).await;
    };
    let token = asked.form_token().to_owned();
    let page = desk.watched.page(key, &desk.pulse);
    let of_maker = token.clone();
    let make = || async move {
        let (status, bytes) = whole(make(asked).await?);
        Ok::<_, Problem>(Made {
            status,
            html: String::from_utf8_lossy(&bytes).into_owned(),
            token: of_maker,
        })
    };
    let made = page.made.get_or_try_init(make).await?;
    Ok(made.with(&token))
}
