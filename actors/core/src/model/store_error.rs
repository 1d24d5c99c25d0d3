//! What can go wrong with a store.

/// Why a store can't do what it should. After any of these on a commit, what is on disk is unknown
/// until the store has been reopened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The file is open in another process.
    #[error("{path} is in use by another process; one process owns a store")]
    Locked {
        /// The file.
        path: String,
    },
    /// The file system keeps no locks: two processes could work on the file and ruin it.
    #[error(
        "{path} lies on a file system that keeps no locks, so that nothing would keep a second process out: {message}"
    )]
    NoLocks {
        /// The file.
        path: String,
        /// What became of a lock.
        message: String,
    },
    /// The file was deleted, renamed or replaced while it was open.
    #[error("{path} {message}")]
    Lost {
        /// The file.
        path: String,
        /// What happened to it, and where a copy is.
        message: String,
    },
    /// The device is full.
    #[error("no space left for {path}: {message}; free some space")]
    Full {
        /// The file.
        path: String,
        /// The system's words.
        message: String,
    },
    /// The file may not be read or written.
    #[error("{path} can't be opened: {message}")]
    Access {
        /// The file.
        path: String,
        /// The system's words.
        message: String,
    },
    /// The file is damaged or was written by something else.
    #[error("{path} is damaged or not a onelane store: {message}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// An older or a newer program wrote the file.
    #[error(
        "{path} is a onelane store of version {found}, and this onelane reads version {known} alone: {}",
        other_version(*found, *known)
    )]
    Version {
        /// The file.
        path: String,
        /// The version found.
        found: u64,
        /// The one version that this program reads.
        known: u64,
    },
    /// A newer program wrote a row of the file.
    #[error(
        "{path} has a row of version {found} and this onelane reads rows of version {known} alone: a newer onelane wrote it; use that one"
    )]
    RowVersion {
        /// The file.
        path: String,
        /// The version found.
        found: u64,
        /// The newest version known.
        known: u64,
    },
    /// Any other failure of the device.
    #[error("{path}: {message}")]
    Io {
        /// The file.
        path: String,
        /// The system's words.
        message: String,
    },
}

/// What to do about a store of another version.
const fn other_version(found: u64, known: u64) -> &'static str {
    if found > known {
        "a newer onelane wrote it; use that one, or move the file away and start a new store"
    } else {
        "no release of onelane wrote it; move the file away and start a new store"
    }
}
