//! Responses as the simulator sends them, each knowing the request that it ends.

use bytes::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::answer::{error_body, error_status};
use super::body::{Piece, Pieces};
use super::fault::ErrorFault;
use super::recorder::InFlight;
use super::shared::{Answer, Shared};
use super::stream::EVENT_STREAM;

/// A refusal of GLM's.
pub(crate) fn refuse(fault: &ErrorFault, shared: &Shared, mut request: InFlight) -> Answer {
    let status = error_status(fault);
    request.respond(status, Some(&fault.code));
    let body = error_body(fault, shared.clock.now(), shared.salt());
    let mut response = response(status, body.len(), Pieces::whole(body, Some(request)));
    if let Some(retry_after) = &fault.retry_after {
        set_header(&mut response, "retry-after", retry_after);
    }
    response
}

/// A refusal of GLM's that no request for work meets.
pub(crate) fn refuse_unseen(fault: &ErrorFault, shared: &Shared) -> Answer {
    let body = error_body(fault, shared.clock.now(), shared.salt());
    json(error_status(fault), body, None)
}

/// A response with a body that comes whole.
pub(crate) fn json(status: u16, body: Bytes, request: Option<InFlight>) -> Answer {
    let request = request.map(|mut request| {
        request.respond(status, None);
        request
    });
    response(status, body.len(), Pieces::whole(body, request))
}

/// The same with another type than JSON.
pub(crate) fn typed(status: u16, content_type: &str, body: Bytes, request: InFlight) -> Answer {
    let mut response = json(status, body, Some(request));
    set_header(&mut response, "content-type", content_type);
    response
}

/// A response without a body.
pub(crate) fn empty(status: u16, mut request: InFlight) -> Answer {
    request.respond(status, None);
    response(status, 0, Pieces::new([], Some(request)))
}

/// A 200 of which not every byte comes at once, or at all.
pub(crate) fn broken(announced: usize, pieces: Vec<Piece>, mut request: InFlight) -> Answer {
    request.respond(200, None);
    response(200, announced, Pieces::new(pieces, Some(request)))
}

/// A 200 that comes event by event; nothing says how long it will be.
pub(crate) fn streamed(pieces: Vec<Piece>, mut request: InFlight) -> Answer {
    request.respond(200, None);
    let mut response = response(200, 0, Pieces::new(pieces, Some(request)));
    response.headers_mut().remove(header::CONTENT_LENGTH);
    set_header(&mut response, "content-type", EVENT_STREAM);
    response
}

fn response(status: u16, announced: usize, body: Pieces) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(announced));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=UTF-8"),
    );
    response
}

/// A header that can't be one is left out.
pub(crate) fn set_header(response: &mut Answer, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        response.headers_mut().insert(name, value);
    }
}
