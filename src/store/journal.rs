//! The journal: what was committed and is not in the tables yet. A small commit is one write to it and one sync, and
//! not a page of each table that it touches, with the pages that lead to them; the tables get the rows of many commits
//! at once, each row once however often it was written.
//!
//! A commit is durable when it is in the journal. After a kill the journal is read again, and its rows go to the
//! tables. Those are committed with what redb needs to open them without reading them through, which costs a second sync, and
//! say up to which commit they have the journal's rows: what it still holds of those is old, and is written over.
//!
//! A commit begins at the beginning of a page, so that writing it touches nothing of the one before, and has a number
//! and a digest: the journal ends where the next number does not stand, or was not written whole. Commits are written one after the
//! other, so that behind that end only older ones stand; where a later one does, the disk has lost what it was given. Each page
//! says whether it begins a commit or goes on with one, so that nothing which somebody stores can look like a commit.

use std::sync::Arc;

use redb::{Database, Durability, ReadTransaction};
use sha2::{Digest as _, Sha256};

use super::error::{FileError, Result};
use super::packs;
use super::parts::{PAGE_BYTES, Region};
use super::reading;
use super::schema::{self, SETTLED, TAG_MAX};
use super::tables::{RowId, Rows};

/// The version of its rows.
const VERSION: u8 = 1;

/// The journal's rows go to the tables with the commit that would be one more.
/// Few in unit tests, so that they see both.
const COMMITS_MAX: u64 = if cfg!(test) { 5 } else { 256 };
/// So do they when they take so many bytes.
const BYTES_MAX: usize = 1024 * 1024;
/// A commit that is larger than this gains nothing from the journal: its rows would be written twice.
const COMMIT_BYTES_MAX: usize = if cfg!(test) { 64 * 1024 } else { 256 * 1024 };
/// Nor does one of more rows; and a page that is damaged later should cost no more than these.
const ROWS_MAX: usize = 256;
/// What is written ahead where the journal comes to for the first time, so that later commits find room
/// that the file system has given already: giving it costs it a transaction of its own.
const AHEAD_BYTES: u64 = 256 * 1024;

/// What only the journal holds.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    rows: Rows,
    commits: u64,
    bytes: usize,
    /// The number of the next commit to it, and where it begins.
    next: u64,
    at: u64,
    /// Up to here the file system has given room.
    roomy_to: u64,
}

impl Journal {
    /// Reads the journal of a store: what the tables do not have.
    pub(super) fn load(tables: &ReadTransaction, region: &Region) -> Result<Self> {
        let mut own = Self::behind(settled(tables)?);
        own.follow(region)?;
        match own.later(region)? {
            None => Ok(own),
            Some(_) => Err(FileError::damaged("journal", "a commit of it is missing")),
        }
    }

    /// What can be read of the journal of a damaged file, and whether that is all of it.
    pub(super) fn rest(tables: &ReadTransaction, region: &Region) -> (Self, bool) {
        if let Ok(whole) = reading(|| Self::load(tables, region)) {
            return (whole, true);
        }
        let mut own = Self::behind(reading(|| settled(tables)).unwrap_or(0));
        // Behind a commit that is lost, the others still say what was.
        while reading(|| own.follow(region)).is_ok() {
            let Ok(Some((at, number))) = reading(|| own.later(region)) else {
                break;
            };
            (own.at, own.next) = (at, number);
        }
        (own, false)
    }

    /// An empty one, above tables that have the commits up to this.
    const fn behind(settled: u64) -> Self {
        Self {
            rows: Rows::new(),
            commits: 0,
            bytes: 0,
            next: settled.saturating_add(1),
            at: 0,
            roomy_to: 0,
        }
    }

    /// Takes the commits that follow each other from here on.
    fn follow(&mut self, region: &Region) -> Result<()> {
        while let Some(commit) = Commit::read(region, self.at)? {
            if commit.number != self.next {
                break;
            }
            read(&commit.rows, &mut self.rows)
                .ok_or_else(|| FileError::damaged("journal", "a row is not what it should be"))?;
            self.passes(commit.rows.len());
        }
        Ok(())
    }

    /// One commit more, of so many bytes.
    fn passes(&mut self, bytes: usize) {
        self.commits += 1;
        self.bytes += bytes;
        self.next += 1;
        self.at += Commit::takes(bytes);
    }

    /// The first whole commit behind its end that is none of those that the tables have: where it begins, and its number.
    fn later(&self, region: &Region) -> Result<Option<(u64, u64)>> {
        let mut at = self.at;
        while at < region.len() {
            let head = Head::read(&region.read(at, Head::BYTES)?);
            if head.is_some_and(|head| head.number >= self.next)
                && let Some(commit) = Commit::read(region, at)?
            {
                return Ok(Some((at, commit.number)));
            }
            at += PAGE_BYTES as u64;
        }
        Ok(None)
    }

    /// The rows above the tables.
    pub(super) const fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Whether all is in the tables.
    pub(super) const fn is_empty(&self) -> bool {
        self.commits == 0
    }

    /// Makes durable what a commit has changed, and answers what the journal is then.
    pub(super) fn write(&self, tables: &Database, region: &Region, own: Rows) -> Result<Written> {
        let bytes = written_bytes(&own);
        let end = self.at + Commit::takes(bytes);
        if self.commits >= COMMITS_MAX
            || self.bytes >= BYTES_MAX
            || bytes > COMMIT_BYTES_MAX
            || own.len() > ROWS_MAX
            || end > region.len()
        {
            self.settle(tables, Some(&own))?;
            return Ok(Written::Tables);
        }
        let rows = written(&own);
        let mut commit = Commit::written(self.next, &rows);
        let mut roomy_to = self.roomy_to;
        if end > roomy_to {
            roomy_to = (end + AHEAD_BYTES).min(region.len());
            commit.resize(
                usize::try_from(roomy_to - self.at).unwrap_or(commit.len()),
                0,
            );
        }
        region.write(self.at, &commit)?;
        Ok(Written::Journal {
            rows: own,
            bytes: rows.len(),
            roomy_to,
        })
    }

    /// Becomes what it is after a commit.
    pub(super) fn show(&mut self, written: Written) {
        match written {
            Written::Tables => {
                *self = Self {
                    roomy_to: self.roomy_to,
                    ..Self::behind(self.next - 1)
                };
            }
            Written::Journal {
                rows,
                bytes,
                roomy_to,
            } => {
                self.rows.extend(rows);
                self.passes(bytes);
                self.roomy_to = roomy_to;
            }
        }
    }

    /// Writes what it holds to the tables, and with it what a commit has changed.
    pub(super) fn settle(&self, tables: &Database, own: Option<&Rows>) -> Result<()> {
        let mut transaction = tables.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_quick_repair(true);
        let layers = [Some(&self.rows), own];
        let layers: Vec<&Rows> = layers.into_iter().flatten().collect();
        for rows in &layers {
            schema::write_rows(&transaction, rows, Some(schema::REQUESTS.tag()))?;
        }
        packs::settle(&transaction, &layers)?;
        if !self.is_empty() {
            transaction.open_table(SETTLED)?.insert((), self.next - 1)?;
        }
        Ok(transaction.commit()?)
    }
}

fn settled(tables: &ReadTransaction) -> Result<u64> {
    let number = tables.open_table(SETTLED)?.get(())?;
    Ok(number.map_or(0, |number| number.value()))
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
        /// Up to here the file system has given room.
        roomy_to: u64,
    },
}

/// What stands before the rows of a commit.
struct Head {
    number: u64,
    len: usize,
    digest: [u8; 16],
}

impl Head {
    const BYTES: usize = 32;
    const MARK: [u8; 4] = *b"lane";

    fn of(number: u64, rows: &[u8]) -> Self {
        let digest = Sha256::new()
            .chain_update(number.to_le_bytes())
            .chain_update(rows)
            .finalize();
        Self {
            number,
            len: rows.len(),
            digest: *digest.first_chunk().unwrap_or(&[0; 16]),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&Self::MARK);
        // Never longer: larger commits do not come here.
        out.extend_from_slice(&(self.len as u32).to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.digest);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (mark, rest) = bytes.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        Some(Self {
            number: u64::from_le_bytes(*number),
            len: usize::try_from(u32::from_le_bytes(*len)).ok()?,
            digest: *rest.first_chunk()?,
        })
        .filter(|_| *mark == Self::MARK)
    }
}

/// A commit in the journal.
struct Commit {
    number: u64,
    rows: Vec<u8>,
}

impl Commit {
    /// What a page begins with that goes on with a commit.
    const GOES_ON: [u8; 4] = *b"more";
    const FIRST_ROOM: usize = PAGE_BYTES - Head::BYTES;
    const ROOM: usize = PAGE_BYTES - Self::GOES_ON.len();

    /// Its pages.
    fn written(number: u64, rows: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(usize::try_from(Self::takes(rows.len())).unwrap_or(0));
        Head::of(number, rows).write(&mut out);
        let (first, rest) = rows
            .split_at_checked(Self::FIRST_ROOM)
            .unwrap_or((rows, &[]));
        out.extend_from_slice(first);
        for page in rest.chunks(Self::ROOM) {
            out.extend_from_slice(&Self::GOES_ON);
            out.extend_from_slice(page);
        }
        out.resize(out.len().next_multiple_of(PAGE_BYTES), 0);
        out
    }

    /// What a commit takes whose rows take so many bytes.
    const fn takes(rows: usize) -> u64 {
        let more = rows.saturating_sub(Self::FIRST_ROOM).div_ceil(Self::ROOM);
        ((1 + more) * PAGE_BYTES) as u64
    }

    /// The whole commit that begins here.
    fn read(region: &Region, at: u64) -> Result<Option<Self>> {
        let Some(head) = Head::read(&region.read(at, Head::BYTES)?) else {
            return Ok(None);
        };
        if head.len > COMMIT_BYTES_MAX {
            return Ok(None);
        }
        let takes = usize::try_from(Self::takes(head.len)).unwrap_or(0);
        let mut rows = Vec::with_capacity(takes);
        for (n, page) in region.read(at, takes)?.chunks(PAGE_BYTES).enumerate() {
            let marks = if n == 0 {
                Head::BYTES
            } else {
                Self::GOES_ON.len()
            };
            rows.extend_from_slice(page.get(marks..).unwrap_or_default());
        }
        rows.truncate(head.len);
        let number = head.number;
        let is_whole = Head::of(number, &rows).digest == head.digest;
        Ok(is_whole.then_some(Self { number, rows }))
    }
}

/// How many bytes the rows of a commit take.
fn written_bytes(rows: &Rows) -> usize {
    let of_row = |(id, row): (&RowId, &Option<Arc<[u8]>>)| {
        2 + id.key().len() + 4 + row.as_ref().map_or(0, |row| row.len())
    };
    1 + rows.iter().map(of_row).sum::<usize>()
}

/// The rows of a commit: the version, then of each its table, its key, whether it is there, and
/// what it holds.
pub(super) fn written(rows: &Rows) -> Vec<u8> {
    let mut out = Vec::with_capacity(written_bytes(rows));
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

/// Reads such rows.
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
