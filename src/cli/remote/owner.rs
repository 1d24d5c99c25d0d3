//! The daemon that has a store open. It writes where it listens beside its store, and answers which store it has: by that,
//! not by an address, it is known.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use onelane::store::identity;
use serde::{Deserialize, Serialize};

use super::client::Daemon;
use super::nouns::About;
use super::target::NamedBy;
use super::url::absolute;
use crate::cli::args::remote::Target;
use crate::cli::exit::{CliError, Exit};

/// What a daemon says of itself beside its store.
#[derive(Debug, Serialize, Deserialize)]
struct Sign {
    /// Where it listens, the first place first.
    listening: Vec<String>,
}

/// The file beside a store.
fn path_of(store: &Path) -> PathBuf {
    let mut name: OsString = store.as_os_str().to_owned();
    name.push(".daemon");
    PathBuf::from(name)
}

/// A sign that is up. Dropped, it is taken down.
pub(crate) struct Posted(Option<PathBuf>);

impl Drop for Posted {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // One that stays leads to nobody, and is taken for no more than that.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Says beside the store where this process listens. What goes wrong keeps no lane from running.
pub(crate) fn post(store: &str, reached_at: &[String]) -> Posted {
    let path = path_of(Path::new(store));
    let sign = Sign {
        listening: reached_at.iter().map(|url| absolute(url)).collect(),
    };
    match write(&path, &sign) {
        Ok(()) => Posted(Some(path)),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "where this daemon listens can't be written beside its store: name it with --url");
            Posted(None)
        }
    }
}

fn write(path: &Path, sign: &Sign) -> std::io::Result<()> {
    // Whoever left one there has no lock on the store any more.
    let _ = std::fs::remove_file(path);
    let mut options = std::fs::File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let text = serde_json::to_string(sign).map_err(std::io::Error::other)?;
    options.open(path)?.write_all(text.as_bytes())
}

/// Who has a store open.
pub(crate) enum Owner {
    /// A daemon that answers.
    Daemon(Box<Daemon>),
    /// Nobody who says so: the store is opened by whoever wants to look.
    Nobody,
    /// Where a daemon said that it listens, one answers that has another store. Says so.
    Gone(CliError),
}

/// The daemon that has this store open.
pub(crate) async fn owner(store: &str, target: &Target) -> Result<Owner, CliError> {
    let Ok(text) = std::fs::read_to_string(path_of(Path::new(store))) else {
        return Ok(Owner::Nobody);
    };
    let (Ok(sign), Ok(wanted)) = (serde_json::from_str::<Sign>(&text), identity(store)) else {
        return Ok(Owner::Nobody);
    };
    let mut gone = None;
    for url in sign.listening {
        let place = target.at(url.clone(), NamedBy::Store(store.to_owned()), None)?;
        let daemon = Daemon::at(place)?;
        let about: About = match daemon.about().await {
            Ok(answer) => answer.read()?,
            // What a dead daemon left behind; whoever has the store now, the opening tells.
            Err(error) if error.exit == Exit::NoDaemon => continue,
            Err(error) => return Err(error),
        };
        if about.store_id.as_deref() == Some(wanted.as_str()) {
            return Ok(Owner::Daemon(Box::new(daemon)));
        }
        gone = Some(another(&url, store));
    }
    Ok(gone.map_or(Owner::Nobody, Owner::Gone))
}

fn another(url: &str, store: &str) -> CliError {
    CliError::new(
        Exit::NoDaemon,
        format!("the daemon at {url} has another store than {store}"),
    )
    .help("another process may have it open: stop that one, or name the daemon with --url")
}
