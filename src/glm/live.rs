//! Passes the pieces of a streamed answer on as they come, to the byte, once it is known that they are those of an
//! answer: until then nothing was told, and the call may be made again.

use std::time::Duration;

use bytes::Bytes;
use onelane_actors::ports::{GlmCall, GlmOutcome};
use onelane_actors::relay::{Relay, RelayEnd, RelayHead};
use onelane_core::model::{code, limits};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};

use super::exchange::Hears;
use super::forms::{begins, said};
use super::http::{HttpGlm, call_ids, note_ids};
use super::layers;
use super::pool::named_id;
use super::stream::Tells;

/// The media type of server-sent events.
const EVENT_STREAM: &str = "text/event-stream";

/// A streamed answer on its way to its readers.
pub(super) struct Live<'a> {
    relay: &'a Relay,
    glm: &'a HttpGlm,
    call: &'a GlmCall,
    patience: Duration,
    phase: Phase,
}

enum Phase {
    /// No headers have come.
    Begun,
    /// What came has not told anything yet.
    Held {
        status: u16,
        headers: HeaderMap,
        pieces: Vec<Bytes>,
        bytes: Vec<u8>,
    },
    /// Readers get each piece as it comes.
    Passing,
    /// It is no stream that they may read: what becomes of the call is decided at its end.
    Silent,
}

impl<'a> Live<'a> {
    pub(super) fn new(relay: &'a Relay, glm: &'a HttpGlm, call: &'a GlmCall) -> Self {
        Self {
            relay,
            glm,
            call,
            patience: Duration::from_millis(call.timeouts.stall_ms),
            phase: Phase::Begun,
        }
    }

    /// Hands over what was held back.
    async fn pass_on(&mut self) {
        let Phase::Held {
            headers, pieces, ..
        } = std::mem::replace(&mut self.phase, Phase::Passing)
        else {
            return;
        };
        let stated = headers.get(CONTENT_TYPE);
        let stated = stated.and_then(|kind| kind.to_str().ok());
        let stated = stated.filter(|kind| kind.starts_with(EVENT_STREAM));
        let call_ids = call_ids(&headers);
        note_ids(call_ids.clone(), self.call);
        self.relay.open(RelayHead {
            attempt: self.call.attempt,
            request_id: self.call.request_id.clone(),
            model: self.call.model.clone(),
            media_type: stated.unwrap_or(EVENT_STREAM).to_owned(),
            call_ids,
        });
        for piece in pieces {
            self.relay.push(piece, &mut self.patience).await;
        }
    }

    /// Hears how the call ended, and tells the readers where the stream has not told them.
    pub(super) async fn end(mut self, outcome: &GlmOutcome) {
        let answered = matches!(outcome, GlmOutcome::Answered(_));
        let face = self.call.request.face();
        let is_stream = |bytes: &[u8]| begins(face, bytes) != Tells::Other && !bytes.is_empty();
        match &self.phase {
            // An answer of nothing.
            Phase::Held { bytes, .. } if answered && is_stream(bytes) => self.pass_on().await,
            Phase::Passing => {}
            Phase::Begun | Phase::Held { .. } | Phase::Silent => return,
        }
        // Of what ends early GLM tells no tokens.
        let is_whole = match outcome {
            GlmOutcome::Answered(_) => true,
            GlmOutcome::Failed(_, usage) => usage.is_reported(),
            GlmOutcome::Aborted | GlmOutcome::NotSent => false,
        };
        if !is_whole {
            let all = self.relay.all();
            self.relay.note_said(said(face, &layers::text(&all)));
        }
        match outcome {
            GlmOutcome::Failed(failure, _) if !is_in_the_stream(&failure.code) => {
                self.relay.close(RelayEnd::Cut(failure.clone()));
            }
            GlmOutcome::Answered(_) | GlmOutcome::Failed(..) => self.relay.close(RelayEnd::Whole),
            // Why it was given up the caller knows.
            GlmOutcome::Aborted | GlmOutcome::NotSent => {}
        }
    }
}

impl Hears for Live<'_> {
    fn begins(&mut self, status: StatusCode, headers: &HeaderMap) {
        // What is packed can't be looked into while it comes.
        let coded = headers
            .get(CONTENT_ENCODING)
            .is_some_and(|c| c != "identity");
        self.phase = match status.is_success() && !coded {
            true => Phase::Held {
                status: status.as_u16(),
                headers: headers.clone(),
                pieces: Vec::new(),
                bytes: Vec::new(),
            },
            false => Phase::Silent,
        };
    }

    async fn piece(&mut self, piece: Bytes) {
        let Phase::Held {
            status,
            headers,
            pieces,
            bytes,
        } = &mut self.phase
        else {
            if matches!(self.phase, Phase::Passing) {
                self.relay.push(piece, &mut self.patience).await;
            }
            return;
        };
        bytes.extend_from_slice(&piece);
        pieces.push(piece);
        let tells = match bytes.len() > limits::RELAY_HELD_BYTES {
            // Whatever it is, it is no answer that can be given piece by piece.
            true => Tells::Other,
            false => begins(self.call.request.face(), bytes),
        };
        match tells {
            Tells::Nothing => {}
            Tells::Other => self.phase = Phase::Silent,
            Tells::Answer => {
                let from = (*status, &*headers);
                let named = named_id(bytes);
                match self.glm.is_foreign(from, named.as_deref(), self.call).await {
                    true => self.phase = Phase::Silent,
                    false => self.pass_on().await,
                }
            }
        }
    }
}

/// Whether a failure was stated by GLM, so that its words stand in the stream.
fn is_in_the_stream(failure: &str) -> bool {
    !matches!(
        failure,
        code::BODY_INVALID
            | code::BODY_TOO_LARGE
            | code::CONNECTION
            | code::CONNECTION_ENDED
            | code::FOREIGN_ANSWER
            | code::TIMEOUT_FIRST_BYTE
            | code::TIMEOUT_IDLE
            | code::TIMEOUT_TOTAL
    )
}
