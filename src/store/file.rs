//! The file of a store as the system sees it: that it is still the one that was opened, that its locks are kept, and
//! what is left of it when it is lost.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};
use sha2::{Digest as _, Sha256};

use super::error::{FileError, Result};
use super::placed;

/// Bytes that are copied at once.
const PIECE_BYTES: usize = 1024 * 1024;
/// Bytes that a device has to take before a commit is tried on it again.
const ROOM_BYTES: usize = 2 * 1024 * 1024;

/// What tells the file of a store from every other file of this machine, whatever path leads to it; the same for whoever
/// looks, also while another process has the store open. Errors are those of the system.
pub fn identity(path: impl AsRef<Path>) -> io::Result<String> {
    let path = path.as_ref();
    let found = std::fs::metadata(path)?;
    let mut hash = Sha256::new();
    hash.update(b"onelane store\0");
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        hash.update(found.dev().to_be_bytes());
        hash.update(found.ino().to_be_bytes());
    }
    #[cfg(not(unix))]
    hash.update(path.canonicalize()?.to_string_lossy().as_bytes());
    // A number of a file that is gone is given to another one.
    if let Ok(created) = found.created()
        && let Ok(since) = created.duration_since(std::time::UNIX_EPOCH)
    {
        hash.update(since.as_nanos().to_be_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    let (first, _) = digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
    Ok(format!("{:016x}", u64::from_be_bytes(*first)))
}

/// The file at a path, and the descriptor through which the store works on it.
#[derive(Debug)]
pub(super) struct StoreFile {
    path: PathBuf,
    opened: Mutex<Option<File>>,
}

impl StoreFile {
    pub(super) fn at(path: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            path,
            opened: Mutex::new(None),
        })
    }

    /// Opens the file, which is never created here: a store that vanished is an error, not empty.
    pub(super) fn open(&self) -> io::Result<FileBackend> {
        // An earlier descriptor would keep its lock.
        *self.opened() = None;
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        *self.opened() = Some(file.try_clone()?);
        FileBackend::new(file).map_err(io::Error::other)
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, Option<File>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows that a lock on the file keeps others out: one who asks for it, as another process would, must be
    /// refused. To be asked while the store holds its lock.
    pub(super) fn prove_lock(&self) -> Result<()> {
        prove_lock(&self.path)
    }

    /// How the file at the path is not the one that is open any more; `None`: it is.
    pub(super) fn lost(&self) -> Option<&'static str> {
        let opened = self.opened();
        let opened = opened.as_ref()?.metadata().ok()?;
        match std::fs::metadata(&self.path) {
            Ok(found) if same(&opened, &found) => None,
            Ok(_) => Some("was replaced by another file"),
            Err(error) => is_gone(&error).then_some("was deleted or renamed"),
        }
    }

    /// How many bytes the open file has.
    pub(super) fn bytes(&self) -> Option<u64> {
        let metadata = self.opened().as_ref()?.metadata().ok()?;
        Some(metadata.len())
    }

    /// Tells, without holding the file, whether it is still at its path.
    pub(super) fn place(&self) -> Option<Box<dyn Fn() -> bool + Send>> {
        let opened = self.opened().as_ref()?.metadata().ok()?;
        let path = self.path.clone();
        Some(Box::new(move || match std::fs::metadata(&path) {
            Ok(found) => same(&opened, &found),
            Err(error) => !is_gone(&error),
        }))
    }

    /// Whether the device has room for some more, shown by a file that is written and removed again. What can't be
    /// tried counts as room: the next commit tells.
    pub(super) fn has_room(&self) -> bool {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".room");
        let name = PathBuf::from(name);
        let tried = File::create(&name).and_then(|mut file| {
            file.write_all(&vec![0; ROOM_BYTES])?;
            file.sync_all()
        });
        let _ = std::fs::remove_file(&name);
        !tried.is_err_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        })
    }

    /// Copies what the open descriptor still holds to a new file beside the path, or where that can't be, to the
    /// directory for temporary files. Answers its name.
    pub(super) fn copy(&self) -> io::Result<PathBuf> {
        let opened = self.opened();
        let Some(file) = opened.as_ref() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        let elsewhere = std::env::temp_dir().join(name);
        copy_beside(file, &self.path).or_else(|_| copy_beside(file, &elsewhere))
    }
}

/// Of any other error nobody knows: it may be a share that is gone for a moment.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(unix)]
fn same(a: &std::fs::Metadata, b: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// There is nothing to tell two files apart by, and an open one is not deleted.
#[cfg(not(unix))]
fn same(_: &std::fs::Metadata, _: &std::fs::Metadata) -> bool {
    true
}

fn copy_beside(file: &File, path: &Path) -> io::Result<PathBuf> {
    let (copy, mut out) = placed::beside(path, "rescued", placed::create_new)?;
    let backend = FileBackend::new(file.try_clone()?).map_err(io::Error::other)?;
    let len = backend.len()?;
    let mut at = 0;
    while at < len {
        let piece = usize::try_from(len - at).unwrap_or(PIECE_BYTES);
        let mut bytes = vec![0; piece.min(PIECE_BYTES)];
        backend.read(at, &mut bytes)?;
        out.write_all(&bytes)?;
        at += bytes.len() as u64;
    }
    out.sync_all()?;
    Ok(copy)
}

/// The whole of a file.
pub(super) const WHOLE: (Bound<u64>, Bound<u64>) = (Bound::Unbounded, Bound::Unbounded);

pub(super) fn prove_lock(path: &Path) -> Result<()> {
    let another = OpenOptions::new().read(true).write(true).open(path)?;
    let another = FileBackend::new(another).map_err(io::Error::other)?;
    let found = another.try_lock_range(WHOLE.0, WHOLE.1);
    let problem = match found {
        Ok(false) => return Ok(()),
        Ok(true) => {
            let _ = another.unlock_range(WHOLE.0, WHOLE.1);
            "a second lock on the file was given while the first was held".to_owned()
        }
        Err(BackendError::Unsupported) => "the file can't be locked".to_owned(),
        Err(error) => io::Error::from(error).to_string(),
    };
    Err(FileError::NoLocks(problem))
}
