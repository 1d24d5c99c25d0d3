//! What is left of a file whose newest commit can't be verified: redb would refuse all of it for one damaged page.
//! Its pages are read by redb as a reader beside a writer reads them, which verifies nothing at the start; of the
//! two roots that every file has the newer one first. Nothing is written.

use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{BackendError, Builder, ConcurrencyMode, ReadOnlyDatabase, StorageBackend};

use super::error::Result;
use crate::ports::StoreError;

/// Where redb's header says which root is the newer one, and whether the file was closed.
const FLAGS_AT: u64 = 9;
const NEWER_ROOT: u8 = 1;
const NOT_CLOSED: u8 = 2;
const NOT_FLUSHED: u8 = 8;

/// The roots of a file that can be opened, the newer one first. `Locked` when another process has the file.
pub(super) fn roots(path: &Path, cache_bytes: usize) -> Result<Vec<ReadOnlyDatabase>, StoreError> {
    let name = path.display().to_string();
    let under = super::guarded(&name, || {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(FileBackend::new(file).map_err(io::Error::other)?)
    })?;
    match under.try_lock_range(Bound::Unbounded, Bound::Unbounded) {
        Ok(true) | Err(BackendError::Unsupported) => {}
        Ok(false) => return Err(StoreError::Locked { path: name }),
        Err(error) => {
            return super::guarded(&name, || Err(io::Error::from(error).into()));
        }
    }
    let under = Arc::new(under);
    let mut roots = Vec::new();
    for flip in [0, NEWER_ROOT] {
        let root = Root {
            under: Arc::clone(&under),
            flip,
        };
        let opened = super::guarded(&name, || {
            let mut builder = Builder::new();
            builder.set_cache_size(cache_bytes);
            builder.set_concurrency_mode(ConcurrencyMode::SingleWriter);
            Ok(builder.open_read_only_with_backend(root)?)
        });
        roots.extend(opened.ok());
    }
    Ok(roots)
}

/// That neither root can be reached: redb keeps both in the first page, and we read no pages without it.
pub(super) fn none(path: String) -> StoreError {
    StoreError::Damaged {
        path,
        message: "its first page, which says where all else in the file is, is not that of a store: nothing can be read \
                  without it; go on from a backup, or begin a new file"
            .to_owned(),
    }
}

/// A file as one of its roots has it. The lock on it is held beneath, so that no range of it needs one.
#[derive(Debug)]
struct Root {
    under: Arc<FileBackend>,
    flip: u8,
}

impl StorageBackend for Root {
    fn len(&self) -> io::Result<u64> {
        self.under.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.under.read(offset, out)?;
        let flags = FLAGS_AT.checked_sub(offset);
        let flags = flags.and_then(|at| out.get_mut(usize::try_from(at).ok()?));
        if let Some(flags) = flags {
            *flags = (*flags & !(NOT_CLOSED | NOT_FLUSHED)) ^ self.flip;
        }
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn query_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(false)
    }
}
