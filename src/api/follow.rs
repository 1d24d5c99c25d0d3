//! A job's stream for whoever comes to it later, or comes back: the events that the client of the gateway gets, each with
//! an id from which to go on.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use onelane_actors::relay::{RelayEnd, RelayReader};
use onelane_core::model::{AttemptNo, Face, JobId};
use serde::Serialize;
use warp::http::HeaderMap;

use super::Api;
use super::admin::JobPath;
use super::answer::{Answer, EVENT_STREAM, Pieces, Reply, Shapes};
use super::ended::{self, JOB};
use super::events::LAST_EVENT_ID;
use super::input::{Ignored, Input};
use super::keepalive::kept_alive;
use super::live;
use super::problem::{Kind, Problem};
use super::request_id::RequestId;
use super::response_error::NextNumber;
use super::sse::Numbered;
use super::standing::while_key_opens;
use super::submission::header_text;
use crate::orchestrator::follow::Followed;

/// Which telling of a job's answer an event is of: what one says at a place, another may say elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    /// The pieces of an attempt, as they came.
    Live(AttemptNo),
    /// Made of the stored answer.
    Anew,
}

/// What ids of events made of the stored answer begin with.
const ANEW: &str = "anew";

impl fmt::Display for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live(attempt) => attempt.fmt(f),
            Self::Anew => f.write_str(ANEW),
        }
    }
}

/// The event that a reader who comes back had last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Had {
    of: Telling,
    number: u64,
}

impl Had {
    fn parse(id: &str) -> Option<Self> {
        let (of, number) = id.split_once('-')?;
        let of = match of {
            ANEW => Telling::Anew,
            attempt => Telling::Live(AttemptNo(attempt.parse().ok()?)),
        };
        let number = number.parse().ok()?;
        Some(Self { of, number })
    }

    fn read(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let Some(id) = header_text(headers, LAST_EVENT_ID, 64)? else {
            return Ok(None);
        };
        let problem = "is no id of an event of this stream; send the id that was told last, like 1-17, or none";
        let had = Self::parse(&id)
            .ok_or_else(|| Problem::of_field(Kind::InvalidHeader, LAST_EVENT_ID, problem))?;
        Ok(Some(had))
    }
}

/// That the events before this one are not continued.
#[derive(Serialize)]
struct Restarted {
    reason: &'static str,
}

const RESTARTED: &str =
    "the stream that was read before is not kept any more; the answer is told from its first event";

/// What comes before the first event, and how many events are left out: the reader goes on in the telling that he had,
/// or is told that this is another.
fn begin(of: Telling, had: Option<Had>) -> (String, u64) {
    match had {
        None => (String::new(), 0),
        Some(had) if had.of == of => (String::new(), had.number),
        Some(_) => {
            let reason = RESTARTED;
            // Plain data: writing it can't fail.
            let data = serde_json::to_string(&Restarted { reason }).unwrap_or_default();
            (format!("event: restarted\ndata: {data}\n\n"), 0)
        }
    }
}

/// The events of a job's stream.
pub(super) struct Following(Reply);

impl Answer for Following {
    fn reply(self) -> Reply {
        self.0
    }

    fn describe(shapes: &mut Shapes<'_>) {
        let about = "The events of the answer in the form of its face, as the client of the gateway gets them, each with an \
                     id. `restarted`: what was read before is not continued, and all of it is told again.";
        shapes.events("200", about);
        shapes.header("x-onelane-job", "The job.");
        shapes.header(
            "x-onelane-model",
            "The model that was asked or, of a stored answer, that answered.",
        );
        shapes.header("x-onelane-attempts", "The attempt that answers.");
    }
}

/// `GET jobs/{id}/stream`: from the first event, or from the one behind that of `Last-Event-ID`. Of a job that waits,
/// nothing is written until its answer begins.
pub(super) async fn stream(
    api: Arc<Api>,
    input: Input<JobPath, Ignored>,
) -> Result<Following, Problem> {
    let id = input.path.id;
    api.check_own(&input.principal, id).await?;
    let had = Had::read(&input.headers)?;
    let record = api.lane.job(id).await?.record;
    let is_streamed = record.request.as_ref().map(|request| request.streams());
    match is_streamed {
        Some(true) => {}
        Some(false) => return Err(no_stream(id, "did not ask for its answer in pieces")),
        None => {
            let problem = format!("request and answer of job {id} were pruned");
            return Err(Problem::new(Kind::RequestPruned, problem));
        }
    }
    let face = record.job.face;
    drop(record);
    let record = match api.lane.follow(id).await? {
        Followed::Begun(head, reader) => {
            let (first, after) = begin(Telling::Live(head.attempt), had);
            let numbered = Numbered::after(Telling::Live(head.attempt), after);
            let pieces = pieces(
                first,
                Reading {
                    reader,
                    numbered,
                    number: NextNumber::default(),
                    face,
                    request: input.id.clone(),
                },
            );
            let pieces = kept_alive(pieces, api.keepalive());
            let told = Some((face, input.id));
            let pieces = while_key_opens(&api, &input.principal, told, pieces);
            return Ok(Following(live::headed(id, &head, pieces)));
        }
        Followed::Ended(record) => record,
    };
    let Some(events) = ended::events(&record) else {
        let status = record.job.status.name();
        let why = format!(
            "is {status}, and nothing of a stream is kept; GET /api/glm/jobs/{id} shows what came of it"
        );
        return Err(no_stream(id, &why));
    };
    let (mut told, after) = begin(Telling::Anew, had);
    let rest = Numbered::after(Telling::Anew, after).piece(events.as_bytes());
    told.push_str(&String::from_utf8_lossy(&rest));
    let reply = Reply::text(warp::http::StatusCode::OK, EVENT_STREAM, told.into_bytes());
    let reply = reply.with(JOB, id);
    Ok(Following(ended::told(reply, &record.job, None)))
}

fn no_stream(id: JobId, why: &str) -> Problem {
    Problem::new(Kind::NoStream, format!("job {id} {why}"))
}

/// A reader on the way.
struct Reading {
    reader: RelayReader,
    numbered: Numbered<Telling>,
    number: NextNumber,
    face: Face,
    request: RequestId,
}

fn pieces(first: String, reading: Reading) -> Pieces {
    let next = |(mut first, reading): (String, Option<Reading>)| async move {
        if !first.is_empty() {
            let first = std::mem::take(&mut first);
            return Some((Ok(Bytes::from(first)), (String::new(), reading)));
        }
        let mut reading = reading?;
        loop {
            let (piece, has_ended) = match reading.reader.next().await {
                Ok(piece) => {
                    reading.number.saw(reading.face, &piece);
                    (piece, false)
                }
                Err(RelayEnd::Whole) => return None,
                Err(RelayEnd::Cut(failure)) => {
                    let number = reading.number.get();
                    let end = live::cut(reading.face, &reading.request, &failure, number);
                    (end, true)
                }
            };
            let told = Bytes::from(reading.numbered.piece(&piece));
            match (told.is_empty(), has_ended) {
                (false, false) => return Some((Ok(told), (first, Some(reading)))),
                (false, true) => return Some((Ok(told), (first, None))),
                (true, true) => return None,
                (true, false) => {}
            }
        }
    };
    Box::pin(stream::unfold((first, Some(reading)), next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_of_which_telling_it_is_and_which_event() {
        let check = |id: &str, want| assert_eq!(Had::parse(id), want, "{id}");
        for of in [Telling::Live(AttemptNo(3)), Telling::Anew] {
            check(&format!("{of}-17"), Some(Had { of, number: 17 }));
        }
        for odd in ["", "17", "3-", "-3", "a-3", "3-a", "anew", "3-1-1"] {
            check(odd, None);
        }
    }

    #[test]
    fn who_had_another_telling_is_told_that_this_is_not_its_rest() {
        let had = |of, number| Some(Had { of, number });
        let live = Telling::Live(AttemptNo(1));
        assert_eq!(begin(live, None), (String::new(), 0));
        assert_eq!(begin(live, had(live, 7)), (String::new(), 7));
        let (told, after) = begin(Telling::Anew, had(live, 7));
        assert!(
            told.starts_with("event: restarted\ndata: {\"reason\":"),
            "{told}"
        );
        assert_eq!(after, 0);
    }
}
