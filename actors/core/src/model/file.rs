//! An uploaded file: the lines that a batch over HTTP is made of. Its content is kept in parts, so that a large
//! file is never one value.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{KeyId, Timestamp};

/// A file's id, `file-` and 32 hexadecimal digits: a UUID of version 7, so that ids sort by the time they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(Uuid);

impl FileId {
    const PREFIX: &str = "file-";

    /// From the sixteen bytes of a key in the store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The sixteen bytes that are the key in the store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.0.simple())
    }
}

/// A text is no file's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the id of a file, like file-0192f0c0ffee7000800000c0ffee0000")]
pub struct NoFileId;

impl FromStr for FileId {
    type Err = NoFileId;

    fn from_str(text: &str) -> Result<Self, NoFileId> {
        let digits = text.strip_prefix(Self::PREFIX).ok_or(NoFileId)?;
        if digits.len() != 32 {
            return Err(NoFileId);
        }
        Uuid::try_parse(digits).map(Self).map_err(|_| NoFileId)
    }
}

impl Serialize for FileId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An uploaded file, without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredFile {
    /// Its id.
    pub id: FileId,
    /// The client key that handed it in, and sees it; `None`: an operator did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyId>,
    /// What its submitter calls it.
    pub name: String,
    /// Bytes of its parts.
    pub bytes: u64,
    /// How many parts there are.
    pub parts: u32,
    /// When its upload began.
    pub created_at: Timestamp,
    /// The process that still takes it in; `None`: it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploaded_by: Option<u64>,
}

impl StoredFile {
    /// A file that `process` begins to take in.
    #[must_use]
    pub fn new(id: FileId, name: impl Into<String>, created_at: Timestamp, process: u64) -> Self {
        Self {
            id,
            key_id: None,
            name: name.into(),
            bytes: 0,
            parts: 0,
            created_at,
            uploaded_by: Some(process),
        }
    }

    /// Whether all of it is there.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.uploaded_by.is_none()
    }
}

/// A change of a file. Each may be asked for twice.
#[derive(Debug, Clone)]
pub enum FileChange {
    /// An upload begins.
    Begin(StoredFile),
    /// The next part of its content.
    Part {
        /// The file.
        id: FileId,
        /// The part's number, from 0.
        number: u32,
        /// The content.
        bytes: Arc<[u8]>,
    },
    /// The upload is whole, and so named.
    Finish {
        /// The file.
        id: FileId,
        /// Its name.
        name: String,
    },
    /// The file goes with its content.
    Remove(FileId),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let id = FileId::from_bytes([7; 16]);
        assert_eq!(id.to_string(), "file-07070707070707070707070707070707");
        assert_eq!(id.to_string().parse(), Ok(id));
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<FileId>(&json).unwrap(), id);
        for bad in [
            "",
            "file-",
            "file-07",
            "07070707070707070707070707070707",
            "batch_07",
        ] {
            assert!(bad.parse::<FileId>().is_err(), "{bad}");
        }
    }
}
