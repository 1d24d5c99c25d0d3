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
    /// The device is full.
    #[error("no space left for {path}: {message}; free some space and start again")]
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
    /// The file is of a version that this program does not know.
    #[error("{path} has store version {found}, this program knows {known}; use a newer onelane")]
    Version {
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
