//! The journal: what was committed and is not in the tables yet. A small commit is one row of it, so
//! that it costs the disk one page and not one of each table that it touches; the tables get the rows of
//! many commits at once, each row once however often it was written.
//!
//! A commit is durable when its row of the journal is. After a kill the journal is read again and stands
//! above the tables as it did before.

use std::sync::Arc;

use redb::{ReadTransaction, TableDefinition, WriteTransaction};

use super::error::{FileError, Result};
use super::reading;
use super::schema::{self, TAG_MAX};
use super::tables::{RowId, Rows};

/// Number of a commit: its rows.
const JOURNAL: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("journal");
/// The version of its rows.
const VERSION: u8 = 1;

/// The journal's rows go to the tables with the commit that would be one more.
/// Few in unit tests, so that they see both.
const COMMITS_MAX: u64 = if cfg!(test) { 5 } else { 256 };
/// So do they when they take so many bytes.
const BYTES_MAX: usize = 1024 * 1024;
/// A commit of more rows gains nothing from the journal.
const ROWS_MAX: usize = 256;
/// A body longer than this is written to its table at once: nothing hides it there, and it would be
/// written twice.
const BODY_BYTES_MAX: usize = 4_096;

/// What only the journal holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal {
    rows: Rows,
    commits: u64,
    bytes: usize,
}

impl Journal {
    /// Reads the journal of a file.
    pub(super) fn load(snapshot: &ReadTransaction) -> Result<Self> {
        let mut journal = Self::default();
        for item in snapshot.open_table(JOURNAL)?.range::<u64>(..)? {
            let (number, row) = item?;
            let row = row.value();
            journal.bytes += row.len();
            journal.commits = number.value() + 1;
            read(row, &mut journal.rows)
                .ok_or_else(|| FileError::damaged("journal", "a row is not what it should be"))?;
        }
        Ok(journal)
    }

    /// What can be read of the journal of a damaged file, and whether that is all of it.
    pub(super) fn rest(snapshot: &ReadTransaction) -> (Self, bool) {
        if let Ok(whole) = reading(|| Self::load(snapshot)) {
            return (whole, true);
        }
        let mut journal = Self::default();
        for number in 0..=COMMITS_MAX {
            let row = reading(|| {
                let row = snapshot.open_table(JOURNAL)?.get(number)?;
                Ok(row.and_then(|row| read(row.value(), &mut journal.rows)))
            });
            if let Ok(Some(())) = row {
                journal.commits = number + 1;
            }
        }
        (journal, false)
    }

    /// The rows above the tables.
    pub(super) const fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Whether all is in the tables.
    pub(super) const fn is_empty(&self) -> bool {
        self.commits == 0
    }

    /// Writes what a commit has changed, and answers what the journal is once the transaction is durable.
    pub(super) fn write(&self, transaction: &WriteTransaction, own: Rows) -> Result<Written> {
        if self.commits >= COMMITS_MAX || self.bytes >= BYTES_MAX || own.len() > ROWS_MAX {
            self.settle(transaction)?;
            schema::write_rows(transaction, &own)?;
            return Ok(Written::Tables);
        }
        let mut own = own;
        let bodies: Rows = own
            .extract_if(.., |id, row| self.goes_to_its_table(id, row.as_deref()))
            .collect();
        schema::write_rows(transaction, &bodies)?;
        let row = written(&own);
        let mut table = transaction.open_table(JOURNAL)?;
        table.insert(self.commits, row.as_slice())?;
        Ok(Written::Journal {
            rows: own,
            bytes: row.len(),
        })
    }

    /// Becomes what it is after a commit.
    pub(super) fn show(&mut self, written: Written) {
        match written {
            Written::Tables => *self = Self::default(),
            Written::Journal { rows, bytes } => {
                self.rows.extend(rows);
                self.commits += 1;
                self.bytes += bytes;
            }
        }
    }

    /// Whether a row is better written to its table at once. What the journal knows of it would hide it.
    fn goes_to_its_table(&self, id: &RowId, row: Option<&[u8]>) -> bool {
        row.is_some_and(|row| row.len() > BODY_BYTES_MAX)
            && schema::is_body(id.tag())
            && !self.rows.contains_key(id)
    }

    /// Writes what the journal holds to the tables, and empties it.
    pub(super) fn settle(&self, transaction: &WriteTransaction) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        schema::write_rows(transaction, &self.rows)?;
        transaction.delete_table(JOURNAL)?;
        create(transaction)
    }
}

/// Where a commit was written.
pub(super) enum Written {
    /// To the tables, with all that the journal held.
    Tables,
    /// To the journal.
    Journal {
        /// Its rows.
        rows: Rows,
        /// What they take there.
        bytes: usize,
    },
}

/// Makes an empty journal.
pub(super) fn create(transaction: &WriteTransaction) -> Result<()> {
    transaction.open_table(JOURNAL)?;
    Ok(())
}

/// Rows as one row of the journal: the version, then of each its table, its key, whether it is there, and
/// what it holds.
pub(super) fn written(rows: &Rows) -> Vec<u8> {
    let bytes = rows.values().flatten().map(|row| row.len()).sum::<usize>();
    let mut out = Vec::with_capacity(1 + rows.len() * 40 + bytes);
    out.push(VERSION);
    for (id, row) in rows {
        let key = id.key();
        out.push(id.tag());
        // Keys have at most 32 bytes.
        out.push(key.len() as u8);
        out.extend_from_slice(key);
        // No row is longer: bodies have 16 MB at most.
        let len = row.as_ref().map_or(REMOVED, |row| row.len() as u32);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(row.as_deref().unwrap_or_default());
    }
    out
}

/// In the place of a length.
const REMOVED: u32 = u32::MAX;

/// Reads such a row.
pub(super) fn read(row: &[u8], rows: &mut Rows) -> Option<()> {
    let (version, mut rest) = row.split_first()?;
    if *version != VERSION {
        return None;
    }
    while let Some(([tag, key_len], after)) = rest.split_first_chunk() {
        let (key, after) = after.split_at_checked(usize::from(*key_len))?;
        let (len, after) = after.split_first_chunk()?;
        let len = u32::from_le_bytes(*len);
        let (row, after) = match len {
            REMOVED => (None, after),
            len => {
                let (row, after) = after.split_at_checked(usize::try_from(len).ok()?)?;
                (Some(Arc::from(row)), after)
            }
        };
        if *tag == 0 || *tag > TAG_MAX {
            return None;
        }
        rows.insert(RowId::new(*tag, key), row);
        rest = after;
    }
    rest.is_empty().then_some(())
}
