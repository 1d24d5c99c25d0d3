//! JSON answers.

use serde::Serialize;
use warp::http::header::CONTENT_TYPE;
use warp::http::{HeaderValue, StatusCode};
use warp::reply::Response;

/// `body` as JSON with this status.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => json_bytes(status, bytes),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            let mut response = Response::default();
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

/// An answer that takes a while to write, such as a list of large jobs: written where it holds up nobody.
pub(super) async fn written(write: impl FnOnce() -> Response + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(write).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(%error, "an answer could not be written");
            let mut response = Response::default();
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

/// An answer that is JSON already.
pub(super) fn json_bytes(status: StatusCode, bytes: Vec<u8>) -> Response {
    let mut response = Response::new(bytes.into());
    *response.status_mut() = status;
    let media = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}

/// Comma-separated values with a header.
pub(super) fn csv(text: String) -> Response {
    let mut response = Response::new(text.into());
    let media = HeaderValue::from_static("text/csv; charset=utf-8; header=present");
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}

/// `{"success": true}`: what was asked is done and on disk.
pub(super) fn success() -> Response {
    json(StatusCode::OK, &serde_json::json!({ "success": true }))
}
