//! Style, script and icon, served under names that their contents give, so that browsers keep them for good.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use super::sessions::hex;

/// A file that is part of the program.
pub(super) struct Asset {
    /// With the digest of its content.
    name: String,
    pub(super) digest: String,
    pub(super) media: &'static str,
    pub(super) content: &'static str,
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

/// The file of this name.
pub(super) fn find(name: &str) -> Option<&'static Asset> {
    let known = [&*STYLE, &*SCRIPT, &*ICON];
    known.into_iter().find(|asset| asset.name == name)
}
