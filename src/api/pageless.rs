//! Pages beside the API, where the program was built without any: none can be made, so nothing here is ever called.

use std::sync::Arc;

use warp::http::{HeaderMap, Method};

use super::Api;
use super::answer::Reply;
use super::body::Body;
use super::door::Peer;
use super::request_id::RequestId;

/// Pages to be served beside the API; the feature `desk` has some.
#[derive(Debug, Clone)]
pub enum Pages {}

impl Pages {
    pub(super) const fn is_at(&self, _: &str) -> bool {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "it is awaited where there are pages")]
    pub(super) async fn answer(
        &self,
        _: (Arc<Api>, RequestId),
        _: (Method, String, String),
        _: (HeaderMap, Option<Peer>),
        _: Body,
    ) -> Reply {
        match *self {}
    }
}
