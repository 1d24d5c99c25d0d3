//! Live events over HTTP: server-sent events with ids, from which a client that comes back goes on. A client key is told
//! of its own jobs.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use onelane_core::model::JobId;
use serde::Serialize;
use tokio::time::timeout;

use super::Api;
use super::admin::JobPath;
use super::answer::{Answer, EVENT_STREAM, Pieces, Reply, Shapes};
use super::hub::{self, Scope};
use super::input::{Ignored, Input, Nothing};
use super::principal::Principal;
use super::problem::Problem;
use super::submission::header_text;

/// Where a client that comes back says what it had last.
pub(super) const LAST_EVENT_ID: &str = "Last-Event-ID";

/// A client that is told nothing for so long is shown that its connection stands.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Who listens, as long as it may.
struct Listener {
    listener: hub::Listener,
    /// Looked at, and not kept from ending.
    api: Weak<Api>,
}

impl Listener {
    /// Whether the client key that listens still opens.
    fn may_listen(&self) -> bool {
        let Some(key) = self.listener.key() else {
            return true;
        };
        self.api.upgrade().is_some_and(|api| {
            let keys = api.lane.client_keys();
            keys.get(key)
                .is_some_and(|key| key.why_dead(api.clock.now()).is_none())
        })
    }

    fn pieces(self) -> Pieces {
        let next = |listener: Option<Self>| async {
            let mut this = listener?;
            loop {
                this.listener.heard.mark_unchanged();
                if !this.may_listen() {
                    return None;
                }
                if let Some(told) = this.listener.told() {
                    let rest = (!this.listener.is_over).then_some(this);
                    return Some((Ok(Bytes::from(told)), rest));
                }
                if this.listener.has_ended() {
                    return None;
                }
                match timeout(KEEP_ALIVE, this.listener.heard.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return None,
                    Err(_) => {
                        let comment = Bytes::from_static(b": keep-alive\n\n");
                        return Some((Ok(comment), Some(this)));
                    }
                }
            }
        };
        Box::pin(stream::unfold(Some(self), next))
    }
}

/// Events as they come.
pub(super) struct Live {
    /// What is told first, and perhaps all.
    first: Option<String>,
    listener: Option<Listener>,
}

impl Answer for Live {
    fn reply(self) -> Reply {
        use futures_util::StreamExt as _;
        let first = self
            .first
            .map(|first| Ok::<_, Infallible>(Bytes::from(first)));
        let first = stream::iter(first);
        let pieces: Pieces = match self.listener {
            Some(listener) => Box::pin(first.chain(listener.pieces())),
            None => Box::pin(first),
        };
        Reply::live(EVENT_STREAM.to_owned(), pieces)
    }

    fn describe(shapes: &mut Shapes<'_>) {
        let about = "Server-sent events, named as `type` says, each with an id; `missed` says how many were not told, \
                     `null` where nobody knows. Comments show that the connection stands.";
        shapes.events("200", about);
    }
}

fn listener(
    api: &Arc<Api>,
    principal: &Principal,
    headers: &warp::http::HeaderMap,
    job: Option<JobId>,
) -> Result<Listener, Problem> {
    let last = header_text(headers, LAST_EVENT_ID, 64)?;
    let view = Scope {
        key: principal.key_id(),
        job,
    };
    api.events.begin(&api.lane);
    Ok(Listener {
        listener: api.events.listen(view, last.as_deref()),
        api: Arc::downgrade(api),
    })
}

/// `GET events`: all of them; for a client key those of its own jobs.
pub(super) async fn all(api: Arc<Api>, input: Input<Nothing, Ignored>) -> Result<Live, Problem> {
    let listener = listener(&api, &input.principal, &input.headers, None)?;
    Ok(Live {
        first: None,
        listener: Some(listener),
    })
}

/// `GET jobs/{id}/events`: how the job stands, then its events up to its end.
pub(super) async fn of_job(api: Arc<Api>, input: Input<JobPath, Ignored>) -> Result<Live, Problem> {
    #[derive(Serialize)]
    struct State<'a> {
        status: &'a str,
    }
    let id = input.path.id;
    api.check_own(&input.principal, id).await?;
    // What happens while the job is read is told, too.
    let listener = listener(&api, &input.principal, &input.headers, Some(id))?;
    let job = api.lane.job(id).await?.record.job;
    let status = job.status.name();
    Ok(Live {
        first: Some(hub::event(None, "job.status", &State { status })),
        listener: (!job.status.is_terminal()).then_some(listener),
    })
}
