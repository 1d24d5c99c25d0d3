//! Answers in pieces, as a client of the gateway gets them: GLM's events to the byte while the call is open, the same
//! made of the stored answer where it has ended.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use onelane_actors::relay::RelayEnd;
use onelane_core::model::Failure;

use super::answer::{EVENT_STREAM, Pieces, Reply};
use super::gateway::{ATTEMPTS, JOB_ID, MODEL, stated};
use super::problem::glm_error_body;
use crate::orchestrator::attend::Begun;

/// How GLM's streams say that all is told.
const DONE: &[u8] = b"[DONE]";

/// Hands the pieces on.
pub(super) fn reply(begun: Begun) -> Reply {
    let (job_id, head) = (begun.job_id, Arc::clone(&begun.head));
    Reply::live(head.media_type.clone(), pieces(begun))
        .with(JOB_ID, job_id)
        .with(MODEL, &head.model)
        .with(ATTEMPTS, head.attempt)
}

/// The events of an answer that is whole already.
pub(super) fn whole(events: String) -> Reply {
    Reply::text(
        warp::http::StatusCode::OK,
        EVENT_STREAM,
        events.into_bytes(),
    )
}

fn pieces(begun: Begun) -> Pieces {
    let next = |reading: Option<Begun>| async {
        let mut begun = reading?;
        match begun.reader.next().await {
            Ok(piece) => {
                if piece.trim_ascii_end().ends_with(DONE) {
                    begun.taken();
                }
                Some((Ok(piece), Some(begun)))
            }
            Err(end) => {
                begun.taken();
                match end {
                    RelayEnd::Whole => None,
                    RelayEnd::Cut(failure) => Some((Ok(cut(&failure)), None)),
                }
            }
        }
    };
    Box::pin(stream::unfold(Some(begun), next))
}

/// That a stream ends here and is not whole, in the stream's own form. An event may have been cut in the middle.
fn cut(failure: &Failure) -> Bytes {
    let (status, code) = stated(failure);
    let body = glm_error_body(status, code, &failure.message, None);
    // Texts always serialise.
    let body = serde_json::to_string(&body).unwrap_or_default();
    format!("\n\ndata: {body}\n\n").into()
}
