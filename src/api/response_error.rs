//! That a stream of the responses face ends here and is not whole, as clients of that face read it.

use onelane_core::model::Face;
use serde::Deserialize;
use serde_json::json;
use warp::http::StatusCode;

use super::problem::openai_kind;
use super::sse::Whole;

/// Counts on where the events of a stream end: strict clients take none without a number.
#[derive(Debug, Default)]
pub(super) struct NextNumber {
    whole: Whole,
    next: u64,
}

/// What is read of an event.
#[derive(Deserialize)]
struct Counted {
    sequence_number: u64,
}

impl NextNumber {
    /// Takes the next piece of a stream. No other face counts its events.
    pub(super) fn saw(&mut self, face: Face, piece: &[u8]) {
        if face != Face::Responses {
            return;
        }
        for event in self.whole.events(piece) {
            let counted = event.data().map(serde_json::from_str::<Counted>);
            if let Some(Ok(Counted { sequence_number })) = counted {
                self.next = sequence_number.saturating_add(1);
            }
        }
    }

    /// The number of the event that would come next.
    pub(super) const fn get(&self) -> u64 {
        self.next
    }
}

/// The event that says so, under this number. OpenAI's papers have what is wrong at the top of it; its API says it in an
/// `error` of its own, and that is what its SDKs raise. So both have it.
pub(super) fn event(
    n: u64,
    fault: StatusCode,
    code: &str,
    message: &str,
    param: Option<&str>,
) -> String {
    let data = json!({
        "type": "error",
        "sequence_number": n,
        "code": code,
        "message": message,
        "param": param,
        "error": {"type": openai_kind(fault), "code": code, "message": message, "param": param},
    });
    format!("event: error\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_behind_the_events_of_a_response_has_the_next_number_in_whatever_pieces_they_came() {
        let stream = "event: response.created\ndata: {\"sequence_number\":0}\n\n: ping\n\n\
             data: {\"sequence_number\": 7,\"delta\":\"\\\"sequence_number\\\":99\"}\n\ndata: {\"sequence_number\":8";
        for piece_bytes in [1, 3, 1_000] {
            let mut next = NextNumber::default();
            for piece in stream.as_bytes().chunks(piece_bytes) {
                next.saw(Face::Responses, piece);
            }
            assert_eq!(next.get(), 8, "the last one is not whole");
        }
        let mut next = NextNumber::default();
        next.saw(Face::Chat, stream.as_bytes());
        assert_eq!(next.get(), 0);
    }
}
