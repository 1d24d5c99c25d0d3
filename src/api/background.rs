//! The stream of a response in the background: that it waits is told by us, the rest by GLM, under our id and counted, so
//! that whoever lost it goes on behind the last event that they had.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use onelane_actors::ports::JobRecord;
use onelane_actors::relay::{RelayEnd, RelayReader};
use onelane_core::model::{AttemptNo, Failure, json};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use warp::http::StatusCode;

use super::Api;
use super::answer::{EVENT_STREAM, Pieces, Reply};
use super::edit::{Edit, place};
use super::ended::{self, Stated, stated};
use super::keepalive::kept_alive;
use super::principal::Principal;
use super::request_id::RequestId;
use super::response::{Ours, object};
use super::response_error;
use super::sse::{Event, Whole};
use super::standing::while_key_opens;
use crate::error::Error;
use crate::object::Object;
use crate::orchestrator::follow::Followed;

/// Events of ours at the beginning, in place of the one by which GLM says that it has begun.
const OURS: [&str; 2] = ["response.created", "response.queued"];

/// So many numbers has each attempt to itself.
const EVENTS_OF_AN_ATTEMPT: u64 = 1_000_000;

/// How far the numbers of an attempt are from those of the first.
fn events_before(attempt: AttemptNo) -> u64 {
    u64::from(attempt.0.saturating_sub(1)) * EVENTS_OF_AN_ATTEMPT
}

/// Who asks for events, in which request.
pub(super) struct Asking<'a> {
    pub(super) principal: &'a Principal,
    pub(super) request: RequestId,
}

/// The events of a response that was asked for with `stream`, behind this number.
pub(super) fn stream(
    api: &Arc<Api>,
    asking: Asking<'_>,
    record: &JobRecord,
    after: Option<u64>,
) -> Reply {
    let mut telling = Telling {
        ours: Ours::of(&record.job),
        next: 0,
        after,
    };
    let begun = object(record, "queued");
    let first: Vec<String> = OURS
        .iter()
        .filter_map(|kind| telling.own(kind, "response", &begun))
        .collect();
    let (lane, job) = (api.lane.clone(), record.job.id);
    // It ends with the client, who may be gone before the call begins.
    let mut following = JoinSet::new();
    following.spawn(async move { lane.follow(job).await });
    let at = At::Waiting(following);
    let pieces = kept_alive(pieces(first.concat(), telling, at), api.keepalive());
    let told = Some((record.job.face, asking.request));
    let pieces = while_key_opens(api, asking.principal, told, pieces);
    Reply::live(EVENT_STREAM.to_owned(), pieces)
}

/// Numbers events, and leaves out those that were had.
struct Telling {
    /// The ids of the response.
    ours: Ours,
    /// The number of the next event.
    next: u64,
    /// The number of the last that was had.
    after: Option<u64>,
}

/// Where a stream is.
enum At {
    /// The call has not begun.
    Waiting(JoinSet<Result<Followed, Error>>),
    /// Its pieces come.
    Live(RelayReader, Whole),
    Over,
}

impl Telling {
    /// Counts an event, and answers its number where it was not had.
    fn count(&mut self) -> Option<u64> {
        let n = self.next;
        self.next = self.next.saturating_add(1);
        self.after.is_none_or(|after| n > after).then_some(n)
    }

    /// An event of ours.
    fn own(&mut self, kind: &str, name: &str, value: &Value) -> Option<String> {
        let n = self.count()?;
        let data = json!({"type": kind, "sequence_number": n, name: value});
        Some(format!("event: {kind}\ndata: {data}\n\n"))
    }

    /// An event of GLM's, to the byte but for what is ours. `None`: it was had, or is in place of one of ours.
    fn glms(&mut self, event: &Event) -> Option<String> {
        let Some(data) = event.data() else {
            return self.is_behind().then(|| event.text().to_owned());
        };
        let fields = serde_json::from_str::<Object<'_>>(data).ok();
        let kind = fields.as_ref().and_then(|fields| fields.get("type"));
        let (Some(fields), Some(kind)) = (&fields, kind.and_then(json::text)) else {
            // None of a response's, which has no number.
            return self.is_behind().then(|| event.text().to_owned());
        };
        if OURS.contains(&&*kind) {
            return None;
        }
        let n = self.count()?;
        Some(event.with(self.edits(data, fields, n)?))
    }

    /// Whether what comes now stands behind what was had.
    fn is_behind(&self) -> bool {
        self.after.is_none_or(|after| self.next > after)
    }

    /// What is ours in an event: its number, and the ids of its response.
    fn edits(&self, data: &str, fields: &Object<'_>, n: u64) -> Option<Vec<Edit>> {
        let mut edits = Vec::new();
        if fields.get("sequence_number").is_none() {
            let begin = data.find('{')? + 1;
            edits.push(Edit {
                at: begin..begin,
                text: format!("\"sequence_number\":{n},"),
            });
        }
        for (name, value) in fields.iter() {
            match name {
                "sequence_number" => edits.push(Edit {
                    at: place(value.get(), data)?,
                    text: n.to_string(),
                }),
                "response" => edits.extend(self.ours.edits(data, value).unwrap_or_default()),
                _ => {}
            }
        }
        Some(edits)
    }

    /// All that is left to tell of a job that has ended and whose pieces are not there: its events anew, or, where some
    /// were had that may have been others, the last of them, which has the whole response.
    fn ended(&mut self, record: &JobRecord) -> String {
        let events = ended::events(record).map(|events| Whole::default().events(events.as_bytes()));
        let had = self.after.filter(|after| *after >= self.next);
        match (events, had) {
            (Some(events), None) => {
                let told = events.iter().filter_map(|event| self.glms(event));
                told.collect()
            }
            (Some(events), Some(had)) => {
                self.next = had.saturating_add(1);
                let last = events.last().and_then(|event| self.glms(event));
                last.unwrap_or_default()
            }
            (None, had) => {
                self.next = had.map_or(self.next, |had| had.saturating_add(1));
                let failed = object(record, record.job.status.of_response());
                let told = self.own("response.failed", "response", &failed);
                told.unwrap_or_default()
            }
        }
    }

    /// That the lane ends and the response does not: it is gone on with later, behind what was told so far. So this has
    /// the number of the last event.
    fn closing(&self) -> String {
        let last = self.next.saturating_sub(1);
        let n = self.after.map_or(last, |after| after.max(last));
        let message = "onelane is shutting down, and goes on with the response when it is back; ask for it again";
        response_error::event(n, StatusCode::SERVICE_UNAVAILABLE, "503", message, None)
    }

    /// That GLM's stream ends here and is not whole.
    fn cut(&mut self, failure: &Failure) -> String {
        let Some(n) = self.count() else {
            return String::new();
        };
        let Stated { fault, code, .. } = stated(failure);
        response_error::event(n, fault, code, &failure.message, None)
    }
}

fn pieces(first: String, telling: Telling, at: At) -> Pieces {
    let next = |(first, mut telling, mut at): (String, Telling, At)| async move {
        let mut told = first;
        while told.is_empty() {
            (told, at) = match at {
                At::Waiting(following) => begin(&mut telling, following).await,
                At::Live(mut reader, mut whole) => match reader.next().await {
                    Ok(piece) => {
                        let events = whole.events(&piece);
                        let told = events.iter().filter_map(|event| telling.glms(event));
                        (told.collect(), At::Live(reader, whole))
                    }
                    Err(RelayEnd::Whole) => (String::new(), At::Over),
                    Err(RelayEnd::Cut(failure)) => (telling.cut(&failure), At::Over),
                },
                At::Over => return None,
            };
        }
        let told = Ok::<_, Infallible>(Bytes::from(told));
        Some((told, (String::new(), telling, at)))
    };
    Box::pin(stream::unfold((first, telling, at), next))
}

async fn begin(
    telling: &mut Telling,
    mut following: JoinSet<Result<Followed, Error>>,
) -> (String, At) {
    match following.join_next().await {
        Some(Ok(Ok(Followed::Begun(head, reader)))) => {
            // Another attempt is another answer: whoever had some of the one before gets all of this one.
            telling.next += events_before(head.attempt);
            (String::new(), At::Live(reader, Whole::default()))
        }
        Some(Ok(Ok(Followed::Ended(record)))) => (telling.ended(&record), At::Over),
        // The lane has ended: the client comes back.
        _ => (telling.closing(), At::Over),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn telling(next: u64, after: Option<u64>) -> Telling {
        Telling {
            ours: Ours::of(&crate::views::tests::sample::waiting(1).job),
            next,
            after,
        }
    }

    #[test]
    fn an_attempt_counts_from_a_number_that_the_one_before_does_not_reach() {
        assert_eq!(events_before(AttemptNo(1)), 0);
        let second = events_before(AttemptNo(2));
        // Whoever had some of the first attempt gets the second from its beginning.
        assert_eq!(telling(second + 2, Some(13)).count(), Some(second + 2));
        assert_eq!(telling(2, Some(13)).count(), None);
    }

    #[test]
    fn an_event_of_several_lines_is_told_to_the_byte_but_for_what_is_ours() {
        let mut telling = telling(2, None);
        let id = telling.ours.id();
        let event = "event: response.completed\r\ndata: {\"type\": \"response.completed\",\r\ndata:  \"sequence_number\":  9,\ndata: \"response\":\ndata: {\"id\":\"g\", \"background\": false,\ndata: \"x\":1.50}}\nretry: 5\n\n";
        let want = event
            .replace("\"g\"", &format!("\"{id}\""))
            .replace("false", "true")
            .replace("9,", "2,");
        let comment = ": ping\n\n";
        let odd = "data: [DONE]\n\n";
        let mut whole = Whole::default();
        let all = format!("{comment}{event}{odd}");
        let told: String = whole
            .events(all.as_bytes())
            .iter()
            .filter_map(|event| telling.glms(event))
            .collect();
        assert_eq!(told, format!("{comment}{want}{odd}"));
        assert_eq!(telling.next, 3);
        let mut had = self::telling(2, Some(2));
        let told = Whole::default().events(all.as_bytes());
        let told: Vec<String> = told.iter().filter_map(|event| had.glms(event)).collect();
        assert_eq!(told, [odd], "what comes behind what was had");
    }

    #[test]
    fn a_number_that_is_too_large_for_any_event_is_none_to_go_on_from() {
        let mut telling = telling(u64::MAX, Some(u64::MAX - 1));
        assert_eq!(telling.count(), Some(u64::MAX));
        assert_eq!(telling.count(), Some(u64::MAX));
    }

    #[test]
    fn an_end_of_the_lane_takes_no_number_from_what_follows() {
        let told = telling(2, None).closing();
        assert!(
            told.starts_with("event: error\n") && told.contains("\"sequence_number\":1"),
            "{told}"
        );
        assert!(
            telling(2, Some(9))
                .closing()
                .contains("\"sequence_number\":9")
        );
    }
}
