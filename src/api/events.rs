//! Live events over HTTP: server-sent events with ids, from which a client that comes back goes on. A client key is told
//! of its own jobs.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use onelane_core::model::JobId;
use serde::Serialize;
use tokio::time::timeout;
use warp::http::HeaderMap;

use super::Api;
use super::admin::JobPath;
use super::answer::{Answer, EVENT_STREAM, Pieces, Reply, Shapes};
use super::hub::{self, Had, Listener, Scope};
use super::input::{Ignored, Input, Nothing};
use super::principal::Principal;
use super::problem::{Kind, Problem};
use super::standing::while_key_opens;
use super::submission::header_text;

/// Where a client that comes back says what it had last.
pub(super) const LAST_EVENT_ID: &str = "Last-Event-ID";

/// A client that is told nothing for so long is shown that its connection stands.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Events up to the last, or up to those that are known by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upto {
    TheLast,
    Now,
}

fn pieces(listener: Listener, upto: Upto) -> Pieces {
    let next = move |listener: Option<Listener>| async move {
        let mut listener = listener?;
        loop {
            listener.heard.mark_unchanged();
            if let Some(told) = listener.told() {
                let rest = (!listener.is_over).then_some(listener);
                return Some((Ok(Bytes::from(told)), rest));
            }
            if upto == Upto::Now || listener.has_ended() {
                return None;
            }
            match timeout(KEEP_ALIVE, listener.heard.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_) => {
                    let comment = Bytes::from_static(b": keep-alive\n\n");
                    return Some((Ok(comment), Some(listener)));
                }
            }
        }
    };
    Box::pin(stream::unfold(Some(listener), next))
}

/// Events as they come.
pub(super) struct Live(Pieces);

impl Answer for Live {
    fn reply(self) -> Reply {
        Reply::live(EVENT_STREAM.to_owned(), self.0)
    }

    fn describe(shapes: &mut Shapes<'_>) {
        let about = "Server-sent events, named as `type` says, each with an id; `missed` says how many were not told, \
                     `null` where nobody knows. Comments show that the connection stands.";
        shapes.events("200", about);
    }
}

/// The event that whoever comes back had last.
fn last(headers: &HeaderMap) -> Result<Option<Had>, Problem> {
    let Some(id) = header_text(headers, LAST_EVENT_ID, 64)? else {
        return Ok(None);
    };
    let problem =
        "is no id of an event; send the id that was told last, like 00000000000000ab-17, or none";
    let had = Had::parse(&id)
        .ok_or_else(|| Problem::of_field(Kind::InvalidHeader, LAST_EVENT_ID, problem))?;
    Ok(Some(had))
}

fn listen(
    api: &Arc<Api>,
    principal: &Principal,
    last: Option<Had>,
    job: Option<JobId>,
) -> Listener {
    let view = Scope {
        key: principal.key_id(),
        job,
    };
    api.events.begin(&api.lane);
    api.events.listen(view, last)
}

/// `GET events`: all of them; for a client key those of its own jobs.
pub(super) async fn all(api: Arc<Api>, input: Input<Nothing, Ignored>) -> Result<Live, Problem> {
    let last = last(&input.headers)?;
    let listener = listen(&api, &input.principal, last, None);
    let all = pieces(listener, Upto::TheLast);
    Ok(Live(while_key_opens(&api, &input.principal, None, all)))
}

/// `GET jobs/{id}/events`: how the job stands, then its events up to its end. Of a job that has ended, whoever comes back
/// is told what they missed.
pub(super) async fn of_job(api: Arc<Api>, input: Input<JobPath, Ignored>) -> Result<Live, Problem> {
    #[derive(Serialize)]
    struct State<'a> {
        status: &'a str,
    }
    let id = input.path.id;
    api.check_own(&input.principal, id).await?;
    let last = last(&input.headers)?;
    // What happens while the job is read is told, too.
    let listener = listen(&api, &input.principal, last, Some(id));
    let job = api.lane.job(id).await?.record.job;
    let status = job.status.name();
    // What comes next follows it.
    let place = listener.place();
    let stands = hub::event(Some(&place), "job.status", &State { status });
    let stands = stream::once(ready(Ok::<_, Infallible>(Bytes::from(stands))));
    let events: Pieces = match (job.status.is_terminal(), last) {
        (false, _) => Box::pin(stands.chain(pieces(listener, Upto::TheLast))),
        (true, Some(_)) => Box::pin(stands.chain(pieces(listener, Upto::Now))),
        (true, None) => Box::pin(stands),
    };
    Ok(Live(while_key_opens(&api, &input.principal, None, events)))
}
