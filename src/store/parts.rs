//! What is where in the file of a store. Behind a first page that says so lie the journal and, as a redb database that
//! takes its part of the file for a file of its own, the tables.
//!
//! | bytes from | what |
//! |---|---|
//! | 0 | the head: what the file is, where the tables begin, and whether all of it is there |
//! | 4,096 | the journal; what it has not reached yet is a hole |
//! | as the head says | the tables, to the end of the file |

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use redb::{BackendError, Builder, Database, StorageBackend};
use sha2::{Digest as _, Sha256};

use super::error::{FileError, Result};
use super::file::WHOLE;
use super::initial;
use super::locks::no_locks;

/// The first bytes of a store.
const STORE: &[u8; 16] = b"onelane store\r\n\x1a";
/// Where the byte is that says whether all of a new store is there, and what it says then: one byte, which can't be written
/// in part.
const FINISHED_AT: u64 = 32;
const FINISHED: u8 = 1;
/// The first bytes of every file of redb's own.
const REDB: &[u8; 4] = b"redb";

/// Far more than the tables of a store take that is only just being made.
const NEW_TABLES_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What a disk writes as a whole, or not at all, at best: parts and commits begin at such places.
pub(super) const PAGE_BYTES: usize = 4_096;
const JOURNAL_AT: u64 = PAGE_BYTES as u64;
/// What the journal of a new store may take. Little in unit tests, whose disks are copied often.
const JOURNAL_BYTES: u64 = if cfg!(test) {
    128 * 1024
} else {
    4 * 1024 * 1024
};

/// A store, open.
#[derive(Debug)]
pub(super) struct Parts {
    /// The tables.
    pub(super) tables: Database,
    /// The journal above them.
    pub(super) journal: Region,
}

impl Parts {
    /// Commits nothing, in the way that lets the tables be opened without reading them through: what redb does with them as
    /// a whole does not end so.
    pub(super) fn seal(&self) -> Result<()> {
        let mut transaction = self.tables.begin_write()?;
        transaction.set_quick_repair(true);
        Ok(transaction.commit()?)
    }

    /// Closes both.
    pub(super) fn close(self) -> Result<()> {
        Ok(self.tables.close()?)
    }
}

/// What opening a file may make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// The program starts: a new file becomes a store, and so does one of which the making came to no end.
    Start,
    /// A commit failed: a file that was a store must still be one.
    Reopen,
}

/// Opens a file, and keeps others out of it as long as one of its parts is in use.
pub(super) fn open(
    under: impl StorageBackend,
    cache_bytes: usize,
    occasion: Occasion,
) -> Result<Parts> {
    let bytes = Bytes::lock(Box::new(under))?;
    // Whichever way this ends, the last of the parts lets go of the file.
    let (tables, journal) = bytes.parts();
    match bytes.head()? {
        Head::None if occasion == Occasion::Reopen => Err(FileError::Damaged(
            "it is empty, but was a store".to_owned(),
        )),
        Head::None => create(tables, journal, cache_bytes),
        Head::Store { tables_at } => {
            bytes.divide(tables_at)?;
            // It may have been read from memory that a disk which failed never took.
            bytes.finish()?;
            let tables = database(tables, cache_bytes)?;
            Ok(Parts { tables, journal })
        }
    }
}

/// A file that nobody else has open.
#[derive(Debug)]
pub(super) struct Taken(Part, Region);

impl Taken {
    /// Takes a file for oneself.
    pub(super) fn of(under: impl StorageBackend) -> Result<Self> {
        let (tables, journal) = Bytes::lock(Box::new(under))?.parts();
        Ok(Self(tables, journal))
    }

    /// Makes a store of it, whatever is in it.
    pub(super) fn begin(self, cache_bytes: usize) -> Result<Parts> {
        let Self(tables, journal) = self;
        create(tables, journal, cache_bytes)
    }
}

fn create(tables: Part, journal: Region, cache_bytes: usize) -> Result<Parts> {
    journal.0.begin()?;
    let tables = database(tables, cache_bytes)?;
    initial::create(&tables)?;
    journal.0.finish()?;
    Ok(Parts { tables, journal })
}

fn database(tables: Part, cache_bytes: usize) -> Result<Database> {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    #[cfg(test)]
    builder.set_repair_callback(|_| READ_THROUGH.set(true));
    Ok(builder.create_with_backend(tables)?)
}

#[cfg(test)]
thread_local! {
    /// Whether redb has read tables through on this thread, to mend them.
    pub(super) static READ_THROUGH: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// The parts of a file that can't be opened as it is, to look at what is left of it.
pub(super) fn remains(under: impl StorageBackend) -> Result<(Part, Region)> {
    let bytes = Bytes::lock(Box::new(under))?;
    let parts = bytes.parts();
    match bytes.head()? {
        Head::None => Err(no_store()),
        Head::Store { tables_at } => bytes.divide(tables_at).map(|()| parts),
    }
}

/// What a file's first page says.
enum Head {
    /// It is no store yet, and holds nothing.
    None,
    Store {
        tables_at: u64,
    },
}

/// The head of a store whose tables begin there, until it is finished.
fn head(tables_at: u64) -> Vec<u8> {
    let mut head = STORE.to_vec();
    head.extend_from_slice(&tables_at.to_le_bytes());
    head.extend_from_slice(&digest(&head));
    head
}

/// Tells bytes that were written as a whole from others.
fn digest(bytes: &[u8]) -> [u8; 8] {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    *digest.first_chunk().unwrap_or(&[0; 8])
}

/// A file and how it is divided.
#[derive(Debug)]
struct Bytes {
    under: Box<dyn StorageBackend>,
    tables_at: AtomicU64,
    /// The parts that are in use.
    in_use: AtomicU8,
}

impl Bytes {
    /// Takes the file for itself.
    fn lock(under: Box<dyn StorageBackend>) -> Result<Arc<Self>> {
        match under.try_lock_range(WHOLE.0, WHOLE.1) {
            Ok(true) | Err(BackendError::Unsupported) => {}
            Ok(false) => return Err(FileError::Redb(redb::Error::DatabaseAlreadyOpen)),
            Err(error) => return Err(io::Error::from(error).into()),
        }
        Ok(Arc::new(Self {
            under,
            tables_at: AtomicU64::new(JOURNAL_AT + JOURNAL_BYTES),
            in_use: AtomicU8::new(0),
        }))
    }

    fn parts(self: &Arc<Self>) -> (Part, Region) {
        self.in_use.store(2, Ordering::Release);
        let tables = Part {
            bytes: Arc::clone(self),
            is_closed: AtomicBool::new(false),
        };
        (tables, Region(Arc::clone(self)))
    }

    fn head(&self) -> Result<Head> {
        let len = self.under.len()?;
        let mut page = vec![0; usize::try_from(len).unwrap_or(PAGE_BYTES).min(PAGE_BYTES)];
        if !page.is_empty() {
            self.under.read(0, &mut page)?;
        }
        let begins = |with: &[u8]| page.starts_with(with);
        let told = page.get(STORE.len()..).and_then(|rest| rest.first_chunk());
        let tables_at = told.map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if begins(STORE) && begins(&head(tables_at)) {
            let finished = usize::try_from(FINISHED_AT)
                .ok()
                .and_then(|at| page.get(at));
            return match finished {
                Some(&FINISHED) => Ok(Head::Store { tables_at }),
                // Anything else is a store whose byte is damaged, and nobody begins a store in that.
                Some(0) if len <= tables_at.saturating_add(NEW_TABLES_BYTES_MAX) => Ok(Head::None),
                _ => Err(no_store()),
            };
        }
        // What a cut leaves of the first write to a page of zeros.
        let begun = head(self.tables_at());
        let mut first = page.iter().zip(begun.iter().chain([0; PAGE_BYTES].iter()));
        let is_begun = first.all(|(byte, written)| byte == written || *byte == 0);
        if len == 0 || (len == PAGE_BYTES as u64 && is_begun) {
            return Ok(Head::None);
        }
        Err(match begins(REDB) {
            true => FileError::Damaged(
                "it is a redb file of another program, or of an early build of onelane".to_owned(),
            ),
            false => no_store(),
        })
    }

    /// Begins a store in a file that holds nothing.
    fn begin(&self) -> io::Result<()> {
        self.under.set_len(0)?;
        self.under.set_len(JOURNAL_AT)?;
        self.under.sync_data()?;
        self.under.write(0, &head(self.tables_at()))?;
        self.under.sync_data()?;
        self.under.set_len(self.tables_at())
    }

    /// The file is a store from now on.
    fn finish(&self) -> io::Result<()> {
        self.under.sync_data()?;
        self.under.write(FINISHED_AT, &[FINISHED])?;
        self.under.sync_data()
    }

    /// Divides a file as its head says.
    fn divide(&self, tables_at: u64) -> Result<()> {
        self.tables_at.store(tables_at, Ordering::Release);
        match JOURNAL_AT <= tables_at && tables_at < self.under.len()? {
            true => Ok(()),
            false => Err(FileError::Damaged("it ends before its tables".to_owned())),
        }
    }

    fn tables_at(&self) -> u64 {
        self.tables_at.load(Ordering::Acquire)
    }

    /// One of the parts is not used any more.
    fn let_go(&self) -> io::Result<()> {
        match self.in_use.fetch_sub(1, Ordering::AcqRel) {
            // It lets go of the lock, too.
            1 => self.under.close(),
            _ => Ok(()),
        }
    }
}

fn no_store() -> FileError {
    FileError::Damaged("its first page is not that of a store".to_owned())
}

/// The journal's part of the file.
#[derive(Debug)]
pub(super) struct Region(Arc<Bytes>);

impl Region {
    /// How many bytes it has.
    pub(super) fn len(&self) -> u64 {
        self.0.tables_at().saturating_sub(JOURNAL_AT)
    }

    /// Some bytes of it, fewer where it ends.
    pub(super) fn read(&self, at: u64, most: usize) -> io::Result<Vec<u8>> {
        let there = usize::try_from(self.len().saturating_sub(at)).unwrap_or(most);
        let mut bytes = vec![0; there.min(most)];
        if !bytes.is_empty() {
            self.0.under.read(JOURNAL_AT + at, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// Writes bytes that are within it, and makes them durable.
    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if at.saturating_add(bytes.len() as u64) > self.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.under.write(JOURNAL_AT + at, bytes)?;
        self.0.under.sync_data()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let _ = self.0.let_go();
    }
}

/// The tables' part of a file as a file of its own.
#[derive(Debug)]
pub(super) struct Part {
    bytes: Arc<Bytes>,
    is_closed: AtomicBool,
}

impl Part {
    fn place(&self, offset: u64) -> u64 {
        self.bytes.tables_at().saturating_add(offset)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = StorageBackend::close(self);
    }
}

impl StorageBackend for Part {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.under.len()?.saturating_sub(self.place(0)))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.bytes.under.read(self.place(offset), out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.under.set_len(self.place(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.bytes.under.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.bytes.under.write(self.place(offset), data)
    }

    fn close(&self) -> io::Result<()> {
        match self.is_closed.swap(true, Ordering::AcqRel) {
            true => Ok(()),
            false => self.bytes.let_go(),
        }
    }

    // The file is locked as a whole.
    no_locks!();
}
