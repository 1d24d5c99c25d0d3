//! Comments by which a stream shows that its connection stands: while nothing has come, and between events. For clients
//! and proxies that give up on silence; some SDKs can't read them.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use onelane_core::model::Face;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;
use warp::http::StatusCode;

use super::answer::{EVENT_STREAM, Pieces, Reply, Told};
use super::problem::Dialect;
use super::request_id::RequestId;
use super::response_error;
use super::sse::Boundaries;

/// Nothing to whoever reads events.
const COMMENT: &[u8] = b": keep-alive\n\n";

/// The pieces, with a comment wherever nothing came for so long and no event is open.
pub(super) fn kept_alive(pieces: Pieces, every: Duration) -> Pieces {
    if every.is_zero() {
        return pieces;
    }
    let next = move |(mut pieces, mut boundaries): (Pieces, Boundaries)| async move {
        loop {
            match timeout(every, pieces.next()).await {
                Ok(Some(Ok(piece))) => {
                    for byte in &piece {
                        boundaries.take(*byte);
                    }
                    return Some((Ok(piece), (pieces, boundaries)));
                }
                Ok(Some(Err(never))) => match never {},
                Ok(None) => return None,
                Err(_) if boundaries.is_between() => {
                    let comment = Ok::<_, Infallible>(Bytes::from_static(COMMENT));
                    return Some((comment, (pieces, boundaries)));
                }
                Err(_) => {}
            }
        }
    };
    Box::pin(stream::unfold((pieces, Boundaries::default()), next))
}

/// What comes of a call, once it is there.
pub(super) type Coming = JoinSet<Reply>;

/// The answer to a client that has waited so long in silence: a stream that begins with comments. What comes of the call
/// is told in it, a refusal too.
pub(super) fn meanwhile(face: Face, coming: Coming, every: Duration, request: RequestId) -> Reply {
    enum At {
        Waiting(Coming, RequestId),
        Telling(Pieces),
    }
    let next = move |at: Option<At>| async move {
        let mut telling = match at? {
            At::Telling(telling) => telling,
            At::Waiting(mut coming, request) => match coming.join_next().await {
                Some(Ok(reply)) => events(face, reply, &request),
                // Its task has ended with the process.
                _ => return None,
            },
        };
        let piece = telling.next().await?;
        Some((piece, Some(At::Telling(telling))))
    };
    let comment = Ok::<_, Infallible>(Bytes::from_static(COMMENT));
    let first = stream::once(std::future::ready(comment));
    let rest = stream::unfold(Some(At::Waiting(coming, request)), next);
    let rest = kept_alive(Box::pin(rest), every);
    Reply::live(EVENT_STREAM.to_owned(), Box::pin(first.chain(rest)))
}

/// An answer as events: a stream as it is, a whole answer or a refusal as one.
fn events(face: Face, reply: Reply, request: &RequestId) -> Pieces {
    match reply.into_told() {
        Told::Events(pieces) => pieces,
        Told::Whole(status, body) => {
            let event = as_event(face, status, &body, request, 0);
            Box::pin(stream::once(std::future::ready(Ok(event))))
        }
    }
}

/// A whole answer or a refusal as an event of a stream that has begun, with this number where events have one; `None`: it
/// is a stream itself.
pub(super) fn in_stream(
    face: Face,
    reply: Reply,
    request: &RequestId,
    number: u64,
) -> Option<Bytes> {
    match reply.into_told() {
        Told::Events(_) => None,
        Told::Whole(status, body) => Some(as_event(face, status, &body, request, number)),
    }
}

/// What would have been a whole answer or a refusal with a status, as an event of a stream that has begun.
fn as_event(
    face: Face,
    status: StatusCode,
    body: &[u8],
    request: &RequestId,
    number: u64,
) -> Bytes {
    let text = String::from_utf8_lossy(body);
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
    let body = match is_json {
        true => text.into_owned(),
        false => {
            let code = status.as_u16().to_string();
            Dialect::of_face(face).error_body(status, &code, &text, None, request)
        }
    };
    let data = body.split(['\r', '\n']).filter(|line| !line.is_empty());
    let data: String = data.map(|line| format!("data: {line}\n")).collect();
    match (face, status.is_success()) {
        (_, true) | (Face::Chat | Face::Embeddings, _) => format!("{data}\n"),
        (Face::Messages, false) => format!("event: error\n{data}\n"),
        (Face::Responses, false) => {
            let told: Value = serde_json::from_str(&body).unwrap_or_default();
            // GLM may say it with a number, or not at all: clients want a text.
            let of = |name: &str| match told.pointer(&format!("/error/{name}"))? {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
            let code = of("code").unwrap_or_else(|| status.as_u16().to_string());
            let message = of("message").unwrap_or_else(|| body.clone());
            let param = of("param");
            response_error::event(number, status, &code, &message, param.as_deref())
        }
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(pieces: Vec<(u64, &'static str)>, every_ms: u64) -> String {
        let pieces = stream::iter(pieces).then(|(after_ms, piece)| async move {
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            Ok::<_, Infallible>(Bytes::from(piece))
        });
        let all = kept_alive(Box::pin(pieces), Duration::from_millis(every_ms));
        let all: Vec<Bytes> = all.map(|piece| piece.unwrap_or_default()).collect().await;
        String::from_utf8_lossy(&all.concat()).into_owned()
    }

    #[test]
    fn a_refusal_in_the_stream_of_a_response_is_one_that_strict_clients_read() {
        for (body, code, message) in [
            (
                r#"{"error":{"code":"1210","message":"m","param":"input"}}"#,
                "1210",
                "m",
            ),
            (
                r#"{"error":{"code":1210,"message":null}}"#,
                "1210",
                r#"{"error":{"code":1210,"message":null}}"#,
            ),
            ("[1]", "400", "[1]"),
            ("words", "400", "words"),
        ] {
            let (status, request) = (StatusCode::BAD_REQUEST, RequestId::default());
            let event = as_event(Face::Responses, status, body.as_bytes(), &request, 3);
            let event = String::from_utf8(event.to_vec()).unwrap();
            let data = event.strip_prefix("event: error\ndata: ").unwrap();
            let told: Value = serde_json::from_str(data.trim_end()).unwrap();
            assert_eq!(
                (&told["type"], &told["sequence_number"]),
                (&"error".into(), &3.into())
            );
            assert_eq!(told["error"]["type"], "invalid_request_error");
            for error in [&told, &told["error"]] {
                assert_eq!(
                    (&error["code"], &error["message"]),
                    (&code.into(), &message.into())
                );
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn comments_stand_between_events_and_never_in_one() {
        let pieces = || {
            vec![
                (25, "data: a\n\n"),
                (5, "data: b\n"),
                (95, "data: c\n\n"),
                (15, "data: [DONE]\n\n"),
            ]
        };
        let c = ": keep-alive\n\n";
        let want = format!("{c}{c}data: a\n\ndata: b\ndata: c\n\n{c}data: [DONE]\n\n");
        assert_eq!(told(pieces(), 10).await, want);
        let whole: String = pieces().into_iter().map(|(_, piece)| piece).collect();
        assert_eq!(told(pieces(), 0).await, whole, "unless they are wanted");
    }
}
