//! Errors of the file, in the words of the store port.

use std::fmt;
use std::io::{self, ErrorKind};

use redb::{
    CommitError, CompactionError, DatabaseError, SetDurabilityError, StorageError, TableError,
    TransactionError,
};
use serde_json::error::Category;

use super::schema::STORE_VERSION;
use crate::ports::StoreError;

/// A [`StoreError`] that does not know its file yet.
#[derive(Debug)]
pub(super) enum FileError {
    Redb(redb::Error),
    Io(io::Error),
    Damaged(String),
    /// Nothing keeps another process from working on the file.
    NoLocks(String),
    /// The file is a store of another version.
    OtherStore {
        found: u64,
    },
    /// A row of a newer program.
    NewerRow {
        found: u64,
        known: u64,
    },
}

pub(super) type Result<T, E = FileError> = std::result::Result<T, E>;

impl FileError {
    /// Something in `table` is not as this program writes it.
    pub(super) fn damaged(table: &str, what: impl fmt::Display) -> Self {
        Self::Damaged(format!("table {table}: {what}"))
    }

    /// A row is malformed. serde's own words are left out: they quote the row, and rows
    /// hold prompts.
    pub(super) fn unreadable(table: &str, error: &serde_json::Error) -> Self {
        let what = match error.classify() {
            Category::Data => "is not what it should be",
            Category::Eof => "is cut short",
            Category::Syntax | Category::Io => "is not JSON",
        };
        Self::damaged(
            table,
            format_args!("a row {what} (byte {})", error.column()),
        )
    }

    /// A row can't be written as JSON.
    pub(super) fn unwritable(error: &serde_json::Error) -> Self {
        Self::Io(io::Error::other(format!(
            "a row can't be encoded ({:?})",
            error.classify()
        )))
    }

    /// Whether it is about this part of the file alone: others may be whole.
    pub(super) fn is_damage(&self) -> bool {
        let ends = |error: &io::Error| {
            matches!(
                error.kind(),
                ErrorKind::InvalidData | ErrorKind::UnexpectedEof
            )
        };
        match self {
            Self::Damaged(_) | Self::Redb(redb::Error::Corrupted(_)) => true,
            Self::Io(error) | Self::Redb(redb::Error::Io(error)) => ends(error),
            _ => false,
        }
    }

    /// What is wrong with a row that is in no file yet.
    pub(super) fn of_a_row(self) -> String {
        match self {
            Self::Damaged(problem) => problem,
            Self::NewerRow { found, known } => format!(
                "a row is of version {found} and this onelane reads rows of version {known} alone: a newer onelane wrote it"
            ),
            other => other.at("the row").to_string(),
        }
    }

    /// The port's error, for the file at `path`.
    pub(super) fn at(self, path: &str) -> StoreError {
        let path = path.to_owned();
        match self {
            Self::OtherStore { found } => StoreError::Version {
                path,
                found,
                known: STORE_VERSION,
            },
            Self::NewerRow { found, known } => StoreError::RowVersion { path, found, known },
            Self::Damaged(message) => StoreError::Damaged { path, message },
            Self::NoLocks(message) => StoreError::NoLocks { path, message },
            Self::Io(error) => io_error(path, &error),
            Self::Redb(error) => redb_error(path, error),
        }
    }
}

fn redb_error(path: String, error: redb::Error) -> StoreError {
    use redb::Error as E;
    match error {
        E::DatabaseAlreadyOpen | E::LockProtocolMismatch => StoreError::Locked { path },
        E::Io(error) => io_error(path, &error),
        E::Corrupted(_)
        | E::UpgradeRequired(_)
        | E::RepairAborted
        | E::TableTypeMismatch { .. }
        | E::TypeDefinitionChanged { .. }
        | E::TableIsMultimap(_)
        | E::TableIsNotMultimap(_)
        | E::TableDoesNotExist(_) => StoreError::Damaged {
            path,
            message: error.to_string(),
        },
        other => StoreError::Io {
            path,
            message: other.to_string(),
        },
    }
}

fn io_error(path: String, error: &io::Error) -> StoreError {
    let message = error.to_string();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            StoreError::Full { path, message }
        }
        ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::NotFound
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory => StoreError::Access { path, message },
        // redb's words for a file that is not its own, and for one that ends too early.
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => StoreError::Damaged { path, message },
        _ => StoreError::Io { path, message },
    }
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

macro_rules! from_redb {
    ($($error:ty)*) => {$(
        impl From<$error> for FileError {
            fn from(error: $error) -> Self {
                Self::Redb(error.into())
            }
        }
    )*};
}

from_redb! { redb::Error CommitError CompactionError DatabaseError SetDurabilityError StorageError TableError TransactionError }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_system_is_said_in_the_words_of_the_port() {
        let check = |kind: ErrorKind, want: &str| {
            let error = FileError::from(StorageError::Io(kind.into())).at("s.redb");
            assert!(format!("{error:?}").starts_with(want), "{kind}: {error:?}");
            assert!(error.to_string().contains("s.redb"), "{error}");
        };
        check(ErrorKind::StorageFull, "Full");
        check(ErrorKind::QuotaExceeded, "Full");
        check(ErrorKind::PermissionDenied, "Access");
        check(ErrorKind::ReadOnlyFilesystem, "Access");
        check(ErrorKind::NotFound, "Access");
        check(ErrorKind::InvalidData, "Damaged");
        check(ErrorKind::Other, "Io");
    }
}
