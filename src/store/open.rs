//! From a path to a store: the steps before a file is one, and what a file must have to
//! be taken for one.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use redb::{
    BackendError, Database, ReadTransaction, ReadableDatabase, StorageBackend, TableHandle,
    WriteTransaction,
};

use super::error::{FileError, Result};
use super::file::WHOLE;
use super::journal;
use super::placed;
use super::schema::{self, META, meta};

/// Makes an empty file, which redb takes for a new database, and its name durable.
pub(super) fn create_if_missing(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => placed::sync_directory_of(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Empties a file in which a creation did not come to its end: the process died, or the disk was
/// full. redb writes its magic number once the rest of a new file is on disk, so that a file without
/// one, and with nothing but zeros behind the first page, never held a row. Any other file is left
/// as it is, for redb to judge.
pub(super) fn clear_unfinished(backend: &impl StorageBackend) -> Result<()> {
    // A process that creates a store this very moment holds the lock.
    let locked = match backend.try_lock_range(WHOLE.0, WHOLE.1) {
        Ok(false) => return Ok(()),
        Ok(true) => true,
        Err(BackendError::Unsupported) => false,
        Err(error) => return Err(io::Error::from(error).into()),
    };
    let cleared = match is_unfinished(backend) {
        Ok(true) => backend.set_len(0).and_then(|()| backend.sync_data()),
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    if locked {
        backend
            .unlock_range(WHOLE.0, WHOLE.1)
            .map_err(io::Error::from)?;
    }
    Ok(cleared?)
}

fn is_unfinished(backend: &impl StorageBackend) -> io::Result<bool> {
    const MAGIC_BYTES: u64 = 9;
    const PAGE_BYTES: u64 = 4_096;
    /// Far more than redb gives a new file.
    const NEW_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
    let len = backend.len()?;
    if len == 0 || len > NEW_FILE_BYTES_MAX {
        return Ok(false);
    }
    let bytes = |from: u64, to: u64| {
        let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0)];
        if !bytes.is_empty() {
            backend.read(from, &mut bytes)?;
        }
        Ok::<_, io::Error>(bytes)
    };
    let zeros = |bytes: Vec<u8>| bytes.iter().all(|byte| *byte == 0);
    Ok(zeros(bytes(0, len.min(MAGIC_BYTES))?) && zeros(bytes(PAGE_BYTES, len)?))
}

/// Whether nothing was ever stored. A redb file of another program is refused.
pub(super) fn is_new(database: &Database) -> Result<bool> {
    let snapshot = database.begin_read()?;
    let mut tables = 0;
    for table in snapshot.list_tables()? {
        tables += 1;
        if table.name() == META.definition.name() {
            return Ok(false);
        }
    }
    if tables > 0 {
        return Err(FileError::Damaged(
            "it is a redb file of another program".to_owned(),
        ));
    }
    Ok(true)
}

/// Creates all tables, so that no reader has to ask whether one is there.
pub(super) fn initialise(database: &Database) -> Result<()> {
    let transaction = database.begin_write()?;
    create_tables(&transaction)?;
    Ok(transaction.commit()?)
}

fn create_tables(transaction: &WriteTransaction) -> Result<()> {
    schema::create_tables(transaction)?;
    journal::create(transaction)?;
    let version = schema::STORE_VERSION.to_string();
    let mut meta = transaction.open_table(META.definition)?;
    meta.insert(meta::VERSION, version.as_bytes())?;
    let mut counters = Vec::new();
    schema::encode(&mut counters, &schema::Counters::default())?;
    meta.insert(meta::COUNTERS, counters.as_slice())?;
    Ok(())
}

/// Refuses a store of any version but this program's.
pub(super) fn check_version(database: &Database) -> Result<()> {
    check_version_in(&database.begin_read()?)
}

/// The same, of a snapshot.
pub(super) fn check_version_in(snapshot: &ReadTransaction) -> Result<()> {
    let table = snapshot.open_table(META.definition)?;
    let row = table
        .get(meta::VERSION)?
        .ok_or_else(|| FileError::damaged("meta", "the version is missing"))?;
    match serde_json::from_slice(row.value()) {
        Ok(schema::STORE_VERSION) => Ok(()),
        Ok(found) => Err(FileError::OtherStore { found }),
        Err(e) => Err(FileError::unreadable("meta", &e)),
    }
}
