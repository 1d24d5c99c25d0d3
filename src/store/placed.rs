//! How a file gets to its place: under another name until it is whole, then by one rename, so that at its place there
//! is a whole file or none; and what was there before, which nobody may have open.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use redb::StorageBackend as _;
use redb::backends::FileBackend;

use super::error::FileError;
use super::file::WHOLE;
use crate::ports::StoreError;

/// Names that are tried for a file beside another.
const NAMES_MAX: usize = 1_000;

/// What becomes of a file that is in the place already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and the new one is refused.
    Refused,
    /// It is replaced.
    Replaced,
    /// It is replaced, and kept beside it under another name.
    KeptAside,
}

/// A file in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its bytes.
    pub bytes: u64,
    /// Where that is which was there before.
    pub kept: Option<PathBuf>,
}

/// `onelane.redb.partial`: what a file is called while it is written. One that a killed process left is overwritten.
pub(super) fn partial(path: &Path) -> PathBuf {
    with(path, "partial")
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// The options of a file that its owner alone may read: it holds prompts.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes a new file.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    private().create_new(true).open(path)
}

/// Makes a file, or opens the one that is there, as it is.
pub(super) fn create(path: &Path) -> io::Result<File> {
    private().create(true).truncate(false).open(path)
}

/// Makes something of the name `onelane.redb.SUFFIX`, or with a number behind it. Answers which.
pub(super) fn beside<T>(
    path: &Path,
    suffix: &str,
    make: impl Fn(&Path) -> io::Result<T>,
) -> io::Result<(PathBuf, T)> {
    for n in 1..=NAMES_MAX {
        let name = match n {
            1 => with(path, suffix),
            n => with(path, &format!("{suffix}-{n}")),
        };
        match make(&name) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|made| (name, made)),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Whether a file can be put in a place: that it is free, or what stands there nobody has open.
pub(super) fn is_free(path: &Path, existing: Existing) -> Result<(), StoreError> {
    claim(path, existing).map(drop)
}

/// Puts a whole file in its place and makes that durable.
pub(super) fn place(whole: &Path, path: &Path, existing: Existing) -> Result<Placed, StoreError> {
    let claimed = claim(path, existing)?;
    let at = |error: io::Error| FileError::from(error).at(&path.display().to_string());
    let file = File::open(whole).map_err(at)?;
    file.sync_all().map_err(at)?;
    let bytes = file.metadata().map_err(at)?.len();
    let kept = match (&claimed, existing) {
        (Some(_), Existing::KeptAside) => Some(keep(path).map_err(at)?),
        _ => None,
    };
    fs::rename(whole, path)
        .and_then(|()| sync_directory_of(path))
        .map_err(at)?;
    // Whoever wants the file that was there has been kept out until now.
    drop(claimed);
    Ok(Placed { bytes, kept })
}

/// Gives the file at a path a second name, so that there is one at the path at any moment; where names can't be given
/// so, another one.
fn keep(path: &Path) -> io::Result<PathBuf> {
    let linked = beside(path, "before-restore", |name| fs::hard_link(path, name));
    let (name, ()) = linked.or_else(|_| {
        beside(path, "before-restore", |name| {
            match name.symlink_metadata() {
                Ok(_) => Err(ErrorKind::AlreadyExists.into()),
                Err(_) => fs::rename(path, name),
            }
        })
    })?;
    Ok(name)
}

/// The file that stands at a path, which nobody else opens while this lives; `None`: there is none.
fn claim(path: &Path, existing: Existing) -> Result<Option<Claim>, StoreError> {
    let name = path.display().to_string();
    let found = match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found.map_err(|error| FileError::from(error).at(&name))?,
    };
    let problem = match existing {
        Existing::Refused => Some("is there already"),
        _ if found.is_dir() => Some("is a directory"),
        _ => None,
    };
    if let Some(problem) = problem {
        let message = format!("it {problem}");
        return Err(StoreError::Access {
            path: name,
            message,
        });
    }
    let claimed = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .and_then(|file| {
            let backend = FileBackend::new(file).map_err(io::Error::other)?;
            let is_ours = backend
                .try_lock_range(WHOLE.0, WHOLE.1)
                .map_err(io::Error::from)?;
            Ok(is_ours.then_some(Claim(backend)))
        });
    match claimed.map_err(|error| FileError::from(error).at(&name))? {
        None => Err(StoreError::Locked { path: name }),
        claim => Ok(claim),
    }
}

/// The lock on a file.
struct Claim(FileBackend);

impl Drop for Claim {
    fn drop(&mut self) {
        // It ends with the descriptor in any case.
        let _ = self.0.unlock_range(WHOLE.0, WHOLE.1);
    }
}

/// Makes what a directory says of a file durable.
#[cfg(unix)]
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
pub(super) fn sync_directory_of(_: &Path) -> io::Result<()> {
    Ok(())
}
