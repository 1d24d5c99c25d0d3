//! What is left of a file whose newest commit can't be verified: redb would refuse all of it for one damaged page.
//! Its pages are read by redb as a reader beside a writer reads them, which verifies nothing at the start; of the
//! two roots that every file has the newer one first. Nothing is written.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Builder, ConcurrencyMode, ReadOnlyDatabase, ReadableDatabase as _, StorageBackend};

use super::error::Result;
use super::journal::Journal;
use super::locks::no_locks;
use super::parts::{self, Part, Region};
use super::reading;
use super::state::State;
use crate::ports::StoreError;

/// Where redb's header says which root is the newer one, and whether the file was closed.
const FLAGS_AT: u64 = 9;
const NEWER_ROOT: u8 = 1;
const NOT_CLOSED: u8 = 2;
const NOT_FLUSHED: u8 = 8;

/// What can be opened of a file.
pub(super) struct Remains {
    /// The roots of its tables, the newer one first.
    tables: Vec<ReadOnlyDatabase>,
    journal: Region,
}

impl Remains {
    /// Opens what is left. `Locked` when another process has the file, `Damaged` when nothing can be reached.
    pub(super) fn of(path: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        let name = path.display().to_string();
        let parts = super::guarded(&name, || {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            let under = FileBackend::new(file).map_err(io::Error::other)?;
            parts::remains(under)
        });
        let (part, journal) = parts.map_err(|error| match error {
            StoreError::Damaged { .. } => none(name.clone()),
            other => other,
        })?;
        let opened = Root::both(part).map(|root| {
            super::guarded(&name, || {
                let mut builder = Builder::new();
                builder.set_cache_size(cache_bytes);
                builder.set_concurrency_mode(ConcurrencyMode::SingleWriter);
                Ok(builder.open_read_only_with_backend(root)?)
            })
        });
        let tables: Vec<_> = opened.into_iter().filter_map(Result::ok).collect();
        match tables.is_empty() {
            true => Err(none(name)),
            false => Ok(Self { tables, journal }),
        }
    }

    /// Its states, the one first that has most: what was committed last may stand in the journal alone.
    pub(super) fn states(&self) -> Vec<State> {
        let mut states = Vec::new();
        for tables in &self.tables {
            let state = reading(|| {
                let snapshot = tables.begin_read()?;
                let (journal, is_whole) = Journal::rest(&snapshot, &self.journal);
                Ok((!is_whole, State::new(snapshot, journal)))
            });
            states.extend(state.ok());
        }
        states.sort_by_key(|(lacks_some, _)| *lacks_some);
        states.into_iter().map(|(_, state)| state).collect()
    }
}

/// That neither root can be reached: redb keeps both in the first page of the tables, which the first page of the file tells the
/// place of, and we read no pages without them.
pub(super) fn none(path: String) -> StoreError {
    StoreError::Damaged {
        path,
        message: "its first page, or the first one of its tables, which say where all else in the file is, is not that of a \
                  store: nothing can be read without it; go on from a backup, or begin a new file"
            .to_owned(),
    }
}

/// A part of a file as one of its roots has it.
#[derive(Debug)]
struct Root {
    part: Arc<Part>,
    flip: u8,
}

impl Root {
    /// The newer one first.
    fn both(part: Part) -> [Self; 2] {
        let part = Arc::new(part);
        [0, NEWER_ROOT].map(|flip| Self {
            part: Arc::clone(&part),
            flip,
        })
    }
}

impl StorageBackend for Root {
    fn len(&self) -> io::Result<u64> {
        self.part.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.part.read(offset, out)?;
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

    // The lock on the file is held beneath.
    no_locks!();
}
