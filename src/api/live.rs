//! Answers in pieces, as a client of the gateway gets them: GLM's events to the byte while the call is open, the same
//! made of the stored answer where it has ended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use onelane_actors::relay::{RelayEnd, RelayHead};
use onelane_core::model::{Face, Failure, JobId};

use super::answer::{Pieces, Reply};
use super::ended::{ATTEMPTS, JOB, MODEL, Stated, stated};
use super::keepalive::kept_alive;
use super::problem::Dialect;
use super::request_id::RequestId;
use super::response_error::{self, NextNumber};
use crate::glm::ends;
use crate::orchestrator::attend::Begun;

/// Hands the pieces on.
pub(super) fn reply(face: Face, begun: Begun, keepalive: Duration, request: RequestId) -> Reply {
    let (job_id, head) = (begun.job_id, Arc::clone(&begun.head));
    headed(
        job_id,
        &head,
        kept_alive(pieces(face, begun, request), keepalive),
    )
}

/// The pieces of a job's answer, with what is known of it when they begin.
pub(super) fn headed(job_id: JobId, head: &RelayHead, pieces: Pieces) -> Reply {
    Reply::live(head.media_type.clone(), pieces)
        .with_all(&head.call_ids)
        .with(JOB, job_id)
        .with(MODEL, &head.model)
        .with(ATTEMPTS, head.attempt)
}

fn pieces(face: Face, begun: Begun, request: RequestId) -> Pieces {
    let next = move |reading: Option<(Begun, RequestId, NextNumber)>| async move {
        let (mut begun, request, mut number) = reading?;
        match begun.reader.next().await {
            Ok(piece) => {
                number.saw(face, &piece);
                if ends(face, &piece) {
                    begun.taken();
                }
                Some((Ok(piece), Some((begun, request, number))))
            }
            Err(end) => {
                begun.taken();
                match end {
                    RelayEnd::Whole => None,
                    RelayEnd::Cut(failure) => {
                        let end = cut(face, &request, &failure, number.get());
                        Some((Ok(end), None))
                    }
                }
            }
        }
    };
    Box::pin(stream::unfold(
        Some((begun, request, NextNumber::default())),
        next,
    ))
}

/// That a stream ends here and is not whole, in the stream's own form and under this number where events have one. An
/// event may have been cut in the middle.
pub(super) fn cut(face: Face, request: &RequestId, failure: &Failure, number: u64) -> Bytes {
    let Stated { fault, code, .. } = stated(failure);
    let dialect = Dialect::of_face(face);
    let body = dialect.error_body(fault, code, &failure.message, None, request);
    match face {
        Face::Chat | Face::Embeddings => format!("\n\ndata: {body}\n\n"),
        Face::Messages => format!("\n\nevent: error\ndata: {body}\n\n"),
        Face::Responses => {
            let event = response_error::event(number, fault, code, &failure.message, None);
            format!("\n\n{event}")
        }
    }
    .into()
}

#[cfg(test)]
mod tests {
    use onelane_core::model::{FailureClass, code};
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_stream_that_broke_off_is_told_as_nobodys_invalid_request() {
        let check = |code: &str, status_code, want: &str, want_code: &str| {
            let failure = Failure {
                status_code,
                ..Failure::new(FailureClass::ServerTransient, code, "m")
            };
            for face in [Face::Chat, Face::Messages, Face::Responses] {
                let event = cut(face, &RequestId::default(), &failure, 7);
                let event = String::from_utf8(event.to_vec()).unwrap();
                let data = event.trim_end().rsplit("data: ").next().unwrap();
                let told: Value = serde_json::from_str(data).unwrap();
                let error = match face {
                    Face::Responses => &told,
                    _ => &told["error"],
                };
                assert_eq!(error["code"], want_code, "{event}");
                assert_eq!(error["message"], "m");
                // Of a response it is told in either of the places where clients look for it.
                assert_eq!(told["error"]["type"], want, "{event}");
                if face == Face::Responses {
                    assert_eq!(told["error"]["code"], want_code, "{event}");
                    assert_eq!(told["error"]["message"], "m");
                    assert_eq!(told["sequence_number"], 7);
                }
            }
        };
        check(code::CONNECTION, Some(200), "api_error", "1234");
        check(code::TIMEOUT_IDLE, Some(200), "api_error", "1234");
        check(code::TIMEOUT_TOTAL, Some(200), "api_error", "1234");
        check(code::BODY_INVALID, Some(200), "api_error", "body_invalid");
        check(code::INTERRUPTED, None, "api_error", "interrupted");
        check(code::CANCELLED, None, "invalid_request_error", "409");
    }
}
