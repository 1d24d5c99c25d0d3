//! Style, script and icon, served under names that their contents give, so that browsers keep them for good.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};
use warp::http::StatusCode;
use warp::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};

use super::asked::{Answered, Asked};
use super::sessions::hex;
use crate::api::site::{Kind, Problem, Reply};

/// A file that is part of the program.
struct Asset {
    /// With the digest of its content.
    name: String,
    digest: String,
    media: &'static str,
    content: &'static str,
}

impl Asset {
    fn new(stem: &str, extension: &str, media: &'static str, content: &'static str) -> Self {
        let digest: [u8; 32] = Sha256::digest(content.as_bytes()).into();
        let digest: String = hex(&digest).chars().take(16).collect();
        Self {
            name: format!("{stem}-{digest}.{extension}"),
            digest,
            media,
            content,
        }
    }

    fn path(&self) -> String {
        format!("/desk/assets/{}", self.name)
    }
}

static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    let content = include_str!("assets/desk.css");
    Asset::new("desk", "css", "text/css; charset=utf-8", content)
});
static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    let content = include_str!("assets/desk.js");
    Asset::new("desk", "js", "text/javascript; charset=utf-8", content)
});
static ICON: LazyLock<Asset> = LazyLock::new(|| {
    let content = include_str!("assets/icon.svg");
    Asset::new("icon", "svg", "image/svg+xml", content)
});

/// Where a page finds them.
#[derive(Debug, Clone)]
pub(super) struct Links {
    pub(super) style: String,
    pub(super) script: String,
    pub(super) icon: String,
}

/// Where a page finds them.
pub(super) fn links() -> Links {
    Links {
        style: STYLE.path(),
        script: SCRIPT.path(),
        icon: ICON.path(),
    }
}

/// `GET /desk/assets/{name}`.
pub(super) async fn asset(asked: Asked) -> Answered {
    let name = asked.part("name");
    let known = [&*STYLE, &*SCRIPT, &*ICON];
    let found = known.into_iter().find(|asset| asset.name == name);
    let Some(asset) = found else {
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
