//! Answers in pieces, as a client of the gateway gets them: GLM's events to the byte while the call is open, the same
//! made of the stored answer where it has ended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use onelane_actors::relay::{RelayEnd, RelayHead};
use onelane_core::model::{Face, Failure, JobId};

use super::answer::{Pieces, Reply};
use super::ended::{ATTEMPTS, JOB, MODEL, stated};
use super::keepalive::kept_alive;
use super::problem::Dialect;
use super::request_id::RequestId;
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
    let next = move |reading: Option<(Begun, RequestId)>| async move {
        let (mut begun, request) = reading?;
        match begun.reader.next().await {
            Ok(piece) => {
                if ends(face, &piece) {
                    begun.taken();
                }
                Some((Ok(piece), Some((begun, request))))
            }
            Err(end) => {
                begun.taken();
                match end {
                    RelayEnd::Whole => None,
                    RelayEnd::Cut(failure) => Some((Ok(cut(face, &request, &failure)), None)),
                }
            }
        }
    };
    Box::pin(stream::unfold(Some((begun, request)), next))
}

/// That a stream ends here and is not whole, in the stream's own form. An event may have been cut in the middle.
pub(super) fn cut(face: Face, request: &RequestId, failure: &Failure) -> Bytes {
    let (status, code) = stated(failure);
    let dialect = Dialect::of_face(face);
    let body = dialect.error_body(status, code, &failure.message, None, request);
    match face {
        Face::Chat | Face::Embeddings => format!("\n\ndata: {body}\n\n"),
        Face::Messages => format!("\n\nevent: error\ndata: {body}\n\n"),
        Face::Responses => {
            let event = serde_json::json!({"type": "error", "sequence_number": null, "code": code,
                "message": failure.message, "param": null});
            format!("\n\nevent: error\ndata: {event}\n\n")
        }
    }
    .into()
}
