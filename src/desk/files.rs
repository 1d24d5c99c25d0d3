//! Serves style, script and icon.

use warp::http::StatusCode;
use warp::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};

use super::asked::{Answered, Asked};
use super::assets;
use crate::api::site::{Kind, Problem, Reply};

/// `GET /desk/assets/{name}`.
pub(super) async fn asset(asked: Asked) -> Answered {
    let Some(asset) = assets::find(asked.part("name")) else {
        return Err(Problem::new(Kind::UnknownRoute, "there is no such file"));
    };
    let tag = format!("W/\"{}\"", asset.digest);
    let had = asked.visit.headers.get(IF_NONE_MATCH);
    let reply = match had.is_some_and(|had| had.as_bytes() == tag.as_bytes()) {
        true => Reply::text(StatusCode::NOT_MODIFIED, "", Vec::new()),
        false => Reply::text(StatusCode::OK, asset.media, asset.content.into()),
    };
    let for_good = "public, max-age=31536000, immutable";
    Ok(reply.with(ETAG, tag).with(CACHE_CONTROL, for_good))
}
