//! From a path to a store: the file before it is one, and the version that it must have.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use redb::{Database, ReadTransaction, ReadableDatabase as _};

use super::error::{FileError, Result};
use super::placed;
use super::schema::{self, META, meta};

/// Makes an empty file, of which opening makes a store, and its name durable.
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
