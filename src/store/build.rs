//! A new store made of lines: of a backup that is under way, of a file that was exported. It has another name until
//! all is in it and on disk.

use std::fs;
use std::path::{Path, PathBuf};

use onelane_core::model::{Findings, Pause, Transition};
use redb::backends::FileBackend;

use super::error::FileError;
use super::lines::{LineProblem, LineReader};
use super::parts::{Parts, Taken};
use super::placed::{self, Existing, Placed};
use super::tables::Rows;
use super::{RedbStore, StoreOptions, guarded, readable, schema};
use crate::ports::{Store as _, StoreError};

/// So many bytes of rows are one transaction.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Or so many rows.
const BATCH_ROWS: usize = 20_000;
/// Findings that are listed.
const FINDINGS_MAX: usize = 10;

/// How closely rows are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rigour {
    /// They are kept as they are: a copy of a store that is not in order is better than none.
    AsTheyAre,
    /// Each has to be one that this program reads.
    Readable,
}

/// Why a store can't be made of lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A line is not what it should be, or missing.
    #[error(transparent)]
    Line(#[from] LineProblem),
    /// The file of the new store can't be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A store that is being made. Dropped before it is placed, nothing is left of it.
#[derive(Debug)]
pub struct NewStore {
    path: PathBuf,
    existing: Existing,
    rigour: Rigour,
    // Closed before its file is removed.
    parts: Option<Parts>,
    file: Partial,
    reader: LineReader,
    batch: Rows,
    batch_bytes: usize,
}

/// The file under its first name. Dropped, it is removed.
#[derive(Debug)]
struct Partial(Option<PathBuf>);

impl Partial {
    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // One that stays is overwritten by the next.
            let _ = fs::remove_file(path);
        }
    }
}

impl NewStore {
    /// Begins a store for a place, which has to be free as `existing` says. Errors name the file:
    /// [`StoreError::Access`] when the place is taken or can't be written, [`StoreError::Locked`] when another process
    /// has the store open that is there, or makes one for the same place.
    pub fn begin(
        path: impl AsRef<Path>,
        existing: Existing,
        rigour: Rigour,
    ) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        placed::is_free(&path, existing)?;
        let partial = placed::partial(&path);
        let name = path.display().to_string();
        let (file, parts) = guarded(&name, || {
            let backend = FileBackend::new(placed::create(&partial)?)
                .map_err(|e| FileError::Redb(e.into()))?;
            let taken = Taken::of(backend)?;
            // From here on it is ours.
            let file = Partial(Some(partial.clone()));
            let parts = taken.begin(StoreOptions::default().cache_bytes)?;
            Ok((file, parts))
        })?;
        Ok(Self {
            path,
            existing,
            rigour,
            file,
            parts: Some(parts),
            reader: LineReader::default(),
            batch: Rows::new(),
            batch_bytes: 0,
        })
    }

    /// Takes a piece of the lines, of any length.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), BuildError> {
        // Lines come in pieces of bounded length, so that a batch is bounded, too.
        let Self {
            reader,
            batch,
            batch_bytes,
            rigour,
            ..
        } = self;
        reader.take_rows(piece, |id, row| {
            if *rigour == Rigour::Readable {
                readable::check(&id, row).map_err(|error| error.of_a_row())?;
            }
            *batch_bytes += row.len();
            batch.insert(id, Some(row.into()));
            Ok(())
        })?;
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= BATCH_ROWS {
            self.write_batch()?;
        }
        Ok(())
    }

    /// What has come so far.
    #[must_use]
    pub const fn reader(&self) -> &LineReader {
        &self.reader
    }

    fn write_batch(&mut self) -> Result<(), StoreError> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        guarded(&self.path.display().to_string(), || {
            let parts = self.parts.as_ref().ok_or_else(super::closed)?;
            let transaction = parts.tables.begin_write()?;
            schema::write_rows(&transaction, &batch, None)?;
            Ok(transaction.commit()?)
        })
    }

    /// Ends it once all lines have come, and looks at every row.
    pub fn finish(mut self) -> Result<WholeStore, BuildError> {
        self.reader.finish()?;
        self.write_batch()?;
        let name = self.path.display().to_string();
        let mut parts = self.parts.take();
        guarded(&name, || {
            let Some(mut parts) = parts.take() else {
                return Err(super::closed());
            };
            // Rows that come in order leave pages half full.
            parts.tables.compact()?;
            parts.close()
        })?;
        let store = RedbStore::open_existing(self.file.path(), StoreOptions::default());
        let store = store.map_err(|error| error_of(error, &name))?;
        let findings = store
            .check(FINDINGS_MAX)
            .map_err(|error| error_of(error, &name))?;
        Ok(WholeStore {
            path: self.path,
            existing: self.existing,
            file: self.file,
            reader: self.reader,
            store,
            findings,
        })
    }
}

/// An error of the file under its first name, which is nobody's business.
fn error_of(error: StoreError, name: &str) -> StoreError {
    match error {
        StoreError::Damaged { message, .. } => StoreError::Damaged {
            path: name.to_owned(),
            message,
        },
        StoreError::Full { message, .. } => StoreError::Full {
            path: name.to_owned(),
            message,
        },
        other => other,
    }
}

/// A store that is made, and not in its place yet. Dropped before that, nothing is left of it.
#[derive(Debug)]
pub struct WholeStore {
    // Closed before its file is removed.
    store: RedbStore,
    path: PathBuf,
    existing: Existing,
    file: Partial,
    reader: LineReader,
    findings: Findings,
}

impl WholeStore {
    /// Whether its tables agree.
    #[must_use]
    pub const fn findings(&self) -> &Findings {
        &self.findings
    }

    /// What it was made of.
    #[must_use]
    pub const fn reader(&self) -> &LineReader {
        &self.reader
    }

    /// Pauses its lane: whoever starts it has to let it go on.
    pub fn pause(&self, pause: Pause) -> Result<(), StoreError> {
        let mut lane = self.store.read(super::read::lane)?;
        lane.paused = Some(pause);
        self.store.commit(&[Transition::Lane(lane)]).map(drop)
    }

    /// Whether its lane is paused.
    pub fn is_paused(&self) -> Result<bool, StoreError> {
        Ok(self.store.read(super::read::lane)?.paused.is_some())
    }

    /// Puts it in its place.
    pub fn place(self) -> Result<Placed, StoreError> {
        let Self {
            store,
            path,
            existing,
            mut file,
            ..
        } = self;
        drop(store);
        let placed = placed::place(file.path(), &path, existing)?;
        file.0 = None;
        Ok(placed)
    }
}
