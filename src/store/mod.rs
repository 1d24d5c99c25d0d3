//! The durable truth on redb: one file, one owner, one writer. The lane's port [`Store`] in front,
//! tables and rows behind (`schema`); what a change means is decided in
//! [`onelane_core::life::effects`], not here.

mod build;
mod check;
mod commit;
mod error;
mod figures;
mod file;
mod finished;
#[cfg(all(feature = "api", any(test, feature = "testing")))]
pub(crate) mod fuzzed;
mod initial;
mod job;
mod journal;
mod line;
mod lines;
mod locks;
mod look;
mod notices;
mod open;
mod packs;
mod parts;
mod placed;
mod read;
mod readable;
mod recent;
mod remains;
mod requests;
mod row;
mod salvage;
mod schema;
mod state;
mod tables;
mod whole;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use onelane_core::model::{Prune, Transition};
use onelane_core::notify::delivery::{DueDeliveries, DueQuery};
use redb::StorageBackend;

pub use self::build::{BuildError, NewStore, Rigour, WholeStore};
use self::error::{FileError, Result};
use self::file::StoreFile;
pub use self::file::identity;
pub use self::lines::{LineProblem, LineReader, Lines};
pub use self::look::stored_config;
use self::parts::{Occasion, Parts};
pub use self::placed::{Existing, Placed};
use self::remains::Remains;
use self::state::State;
use self::whole::Whole;
use crate::model::{
    AlertBook, AuditEntry, AuditId, Batch, BatchId, BatchInput, CallRecord, ClientKey,
    DeliveryCounts, FileId, HookEndpoint, Job, JobId, Retention, StoredFile, Timestamp, UsageRow,
};
use crate::ports::{
    CallFilter, CallPage, Decisions, DeliveriesOver, DeliveryFilter, DeliveryPage, JobFilter,
    JobPage, JobRecord, OverQuery, Places, Recovered, Salvage, StatusCounts, Store, StoreError,
    StoreLines, UsageDay, UsageFilter,
};
pub use onelane_core::model::{Finding, Findings, Prunable, StoreFigures, TableFigures, TimeSpan};

/// How the file is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// Memory for pages of the file, in bytes.
    pub cache_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 16 * 1024 * 1024,
        }
    }
}

/// Opens the file, at the start and again after a failed commit.
type Opener = Box<dyn Fn(usize, Occasion) -> Result<Parts> + Send + Sync>;

/// What is open.
enum Opened {
    /// The store.
    Whole(Whole),
    /// The roots of a file that can't be verified, the newer one first, to be looked at.
    Remains(Remains),
}

/// The store in a redb file.
pub struct RedbStore {
    path: String,
    options: StoreOptions,
    opener: Opener,
    /// `None` after reopening failed. Held for reading while a transaction begins or a commit runs,
    /// for writing while the file is reopened.
    database: RwLock<Option<Opened>>,
    /// The file, unless the store is on a backend of the caller's, or only looked at.
    file: Option<Arc<StoreFile>>,
    /// The error of the commit that failed: until the file is reopened its content is unknown.
    failed: Mutex<Option<StoreError>>,
}

impl RedbStore {
    /// Opens the store at `path`, or creates it there, readable by its owner alone: it holds
    /// prompts. Errors name the file: [`StoreError::Locked`] when another process has it,
    /// [`StoreError::Access`], [`StoreError::Full`], [`StoreError::Damaged`] when it is not a store
    /// (any more), [`StoreError::Version`] when an older or a newer program wrote it.
    pub fn open(path: impl AsRef<Path>, options: StoreOptions) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        open::create_if_missing(path).map_err(|e| FileError::from(e).at(&name))?;
        Self::open_file(path, name, options)
    }

    /// Opens the store at `path`, which has to be there, to look, not to begin. Errors as
    /// those of [`RedbStore::open`].
    pub fn open_existing(
        path: impl AsRef<Path>,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        is_there(path).map_err(|error| error.at(&name))?;
        Self::open_file(path, name, options)
    }

    /// Opens the store at `path`, which has to be there, and leaves the file as it is: what mending
    /// changes, and what is committed, stays in memory and is gone afterwards. Of a file that is damaged beyond
    /// mending it shows what is left, see [`RedbStore::is_remains`]. Errors as those of [`RedbStore::open`].
    pub fn open_to_look(path: impl AsRef<Path>, options: StoreOptions) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let name = path.display().to_string();
        is_there(&path).map_err(|error| error.at(&name))?;
        let looked_at = path.clone();
        let whole = Self::open_with_backend(name.clone(), options, move || look::over(&looked_at));
        let Err(damage @ StoreError::Damaged { .. }) = whole else {
            return whole;
        };
        let remains = Remains::of(&path, options.cache_bytes)?;
        let store = Self {
            path: name,
            options,
            opener: Box::new(|_, _| Err(closed())),
            database: RwLock::new(Some(Opened::Remains(remains))),
            file: None,
            failed: Mutex::new(None),
        };
        // Of another version, or no store of ours.
        match store.read(|state| open::check_version_in(state.snapshot())) {
            Ok(()) => Ok(store),
            Err(other @ StoreError::Version { .. }) => Err(other),
            Err(_) => Err(damage),
        }
    }

    fn open_file(path: &Path, name: String, options: StoreOptions) -> Result<Self, StoreError> {
        let file = StoreFile::at(path.to_owned());
        let (opened, proved) = (Arc::clone(&file), Arc::clone(&file));
        let make = move || opened.open();
        let opener = opener(make, move || proved.prove_lock());
        Self::open_by(name, options, opener, Some(file))
    }

    /// Opens a store on a backend of the caller's, such as one that fails on purpose. `make` is
    /// called again whenever the store is reopened; `name` is what errors call the file.
    pub fn open_with_backend<B, F>(
        name: impl Into<String>,
        options: StoreOptions,
        make: F,
    ) -> Result<Self, StoreError>
    where
        B: StorageBackend,
        F: Fn() -> io::Result<B> + Send + Sync + 'static,
    {
        Self::open_by(name.into(), options, opener(make, || Ok(())), None)
    }

    fn open_by(
        path: String,
        options: StoreOptions,
        opener: Opener,
        file: Option<Arc<StoreFile>>,
    ) -> Result<Self, StoreError> {
        let store = Self {
            path,
            options,
            opener,
            database: RwLock::new(None),
            file,
            failed: Mutex::new(None),
        };
        let opened = store.guarded(|| Whole::new(store.open_parts(Occasion::Start)?))?;
        *store
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(Opened::Whole(opened));
        Ok(store)
    }

    /// Whether this is what is left of a file that is damaged beyond mending: some rows may be missing, and
    /// some be those of the commit before the last.
    #[must_use]
    pub fn is_remains(&self) -> bool {
        matches!(*self.database(), Some(Opened::Remains(_)))
    }

    /// Looks whether the file is still the one that was opened. If not, nothing is taken any more, and what the open
    /// file still holds is copied beside it; the error says where.
    fn keep_place(&self) -> Result<(), StoreError> {
        let Some(how) = self.file.as_ref().and_then(|file| file.lost()) else {
            return Ok(());
        };
        let mut failed = self.failed();
        if let Some(lost @ StoreError::Lost { .. }) = &*failed {
            return Err(lost.clone());
        }
        // A commit that is under way ends first; then the file is closed well, and copied so.
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        close(&self.path, database.take(), true);
        let copied = self.file.as_ref().map(|file| file.copy());
        let rest = match copied {
            Some(Ok(copy)) => format!("what it held was copied to {}", copy.display()),
            Some(Err(error)) => format!("what it held could not be copied: {error}"),
            None => String::new(),
        };
        let lost = StoreError::Lost {
            path: self.path.clone(),
            message: format!("{how} while the lane ran; {rest}"),
        };
        *failed = Some(lost.clone());
        Err(lost)
    }

    /// Checks the tables against each other; lists `most` findings at most. Reads all rows.
    pub fn check(&self, most: usize) -> Result<Findings, StoreError> {
        self.read(|snapshot| check::check(snapshot, most))
    }

    /// All that it holds at this moment, as JSON lines: what its tables say and what only its journal does. What is left of a
    /// damaged file is [`StoreError::Damaged`]: rows are missing in it.
    pub fn lines(&self) -> Result<Lines, StoreError> {
        self.guarded(|| match &*self.database() {
            Some(Opened::Whole(whole)) => Ok(Lines::of(self.path.clone(), whole.state()?)),
            Some(Opened::Remains(_)) => Err(beyond_mending()),
            None => Err(closed()),
        })
    }

    /// Checks every page of the file against its checksum. `false`: some were damaged, and the file was
    /// mended from what is whole. Beyond mending is [`StoreError::Damaged`].
    pub fn check_pages(&mut self) -> Result<bool, StoreError> {
        self.exclusive(|parts| match parts.tables.check_integrity() {
            Ok(is_whole) => parts.seal().map(|()| is_whole),
            Err(error) => match FileError::from(error) {
                error if error.is_damage() => Err(beyond_mending()),
                error => Err(error),
            },
        })
    }

    /// Gives the file's free space back to the device. Answers whether there was any.
    pub fn compact(&mut self) -> Result<bool, StoreError> {
        self.settle()?;
        self.exclusive(|parts| {
            let there_was = parts.tables.compact()?;
            parts.seal()?;
            Ok(there_was)
        })
    }

    /// How large the store is, how old, and what this retention would remove now; as far as that can be read.
    pub fn figures(
        &self,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<StoreFigures, StoreError> {
        let prune = Prune::of(retention, now);
        // So that each row is counted where it belongs. Of a damaged file there is less to be told.
        if let Err(error) = self.settle() {
            tracing::debug!(%error, "the journal stays above the tables");
        }
        self.read(|state| figures::figures(state, prune.as_ref()))
    }

    /// Writes what only the journal holds to the tables. That this failed is told as if a commit had: nobody knows what
    /// the file says then.
    fn settle(&self) -> Result<(), StoreError> {
        if let Some(error) = &*self.failed() {
            return Err(error.clone());
        }
        let is_whole = matches!(&*self.database(), Some(Opened::Whole(_)));
        let settled = self.guarded(|| match &*self.database() {
            Some(Opened::Whole(whole)) => whole.settle(),
            Some(Opened::Remains(_)) => Err(beyond_mending()),
            None => Err(closed()),
        });
        if let Err(error) = &settled
            && is_whole
        {
            self.failed().get_or_insert_with(|| error.clone());
        }
        settled
    }

    /// Works on the file alone.
    fn exclusive<T>(
        &mut self,
        work: impl FnOnce(&mut Parts) -> Result<T>,
    ) -> Result<T, StoreError> {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        self.guarded(|| match database.as_mut() {
            Some(Opened::Whole(whole)) => whole.exclusive(work),
            Some(Opened::Remains(_)) => Err(beyond_mending()),
            None => Err(closed()),
        })
    }

    fn open_parts(&self, occasion: Occasion) -> Result<Parts> {
        let parts = (self.opener)(self.options.cache_bytes, occasion)?;
        open::check_version(&parts.tables)?;
        Ok(parts)
    }

    /// Closes the file and opens it again; its content is the truth.
    fn reopen(&self) -> Result<(), StoreError> {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // The old owner of the file lets go of its lock before the new one asks for it.
        close(&self.path, database.take(), false);
        let opened = self.guarded(|| Whole::new(self.open_parts(Occasion::Reopen)?))?;
        *database = Some(Opened::Whole(opened));
        Ok(())
    }

    fn failed(&self) -> MutexGuard<'_, Option<StoreError>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> RwLockReadGuard<'_, Option<Opened>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, of: impl Fn(&State) -> Result<T>) -> Result<T, StoreError> {
        let found = match &*self.database() {
            Some(Opened::Whole(whole)) => self.guarded(|| {
                let state = whole.state()?;
                of(&state)
            }),
            Some(Opened::Remains(remains)) => self.read_remains(remains, of),
            None => self.guarded(|| Err(closed())),
        };
        match found {
            // After a failed commit redb says no more than that there was an error; this is the error.
            Err(error @ StoreError::Io { .. }) => Err(self.failed().clone().unwrap_or(error)),
            found => found,
        }
    }

    /// What the newer state says, or the older one where the newer one can't, or lacks a part of its journal.
    fn read_remains<T>(
        &self,
        remains: &Remains,
        of: impl Fn(&State) -> Result<T>,
    ) -> Result<T, StoreError> {
        let mut found = self.guarded(|| Err(beyond_mending()));
        for state in &remains.states() {
            found = self.guarded(|| of(state));
            if !matches!(
                found,
                Err(StoreError::Damaged { .. } | StoreError::Io { .. })
            ) {
                break;
            }
        }
        found
    }

    /// A part of the rows, with this file's name in its errors.
    fn named<T>(&self, part: salvage::Part<T>) -> Salvage<T> {
        let faults = part.unreadable.into_iter();
        Salvage {
            rows: part.rows,
            unreadable: faults.map(|error| error.at(&self.path)).collect(),
            cursor: part.cursor,
        }
    }

    fn guarded<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T, StoreError> {
        guarded(&self.path, work)
    }
}

/// Opens the file on what `make` makes; `prove` is asked once it is open.
fn opener<B: StorageBackend>(
    make: impl Fn() -> io::Result<B> + Send + Sync + 'static,
    prove: impl Fn() -> Result<()> + Send + Sync + 'static,
) -> Opener {
    Box::new(move |cache_bytes, occasion| {
        let parts = parts::open(make()?, cache_bytes, occasion)?;
        prove()?;
        Ok(parts)
    })
}

/// An empty file is no store yet.
fn is_there(path: &Path) -> Result<()> {
    let found = std::fs::metadata(path)?;
    if found.is_file() && found.len() == 0 {
        return Err(FileError::Damaged("it is empty".to_owned()));
    }
    Ok(())
}

thread_local! {
    /// How many guarded pieces of work this thread is in.
    static GUARDED: Cell<u32> = const { Cell::new(0) };
}

/// Whether a panic of this thread is caught and told as damage to a store: a program's panic hook need say
/// nothing of it.
#[must_use]
pub fn panic_is_told() -> bool {
    GUARDED.with(Cell::get) > 0
}

fn quietly<T>(work: AssertUnwindSafe<impl FnOnce() -> T>) -> std::thread::Result<T> {
    GUARDED.with(|guarded| guarded.set(guarded.get() + 1));
    let done = catch_unwind(work);
    GUARDED.with(|guarded| guarded.set(guarded.get().saturating_sub(1)));
    done
}

/// Runs `work` on the file at `path`.
fn guarded<T>(path: &str, work: impl FnOnce() -> Result<T>) -> Result<T, StoreError> {
    reading(work).map_err(|error| error.at(path))
}

/// Runs `work` on a file. redb returns most damage as an error, but not all of it: what it panics about is damage
/// too, and its words are for those who know its code.
fn reading<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    quietly(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words = words_of(panic.as_ref());
        tracing::debug!(error = words, "a page of the store can't be read");
        Err(FileError::Damaged("a page of it can't be read".to_owned()))
    })
}

impl Store for RedbStore {
    fn commit(&self, batch: &[Transition]) -> Result<Decisions, StoreError> {
        if let Some(error) = &*self.failed() {
            return Err(error.clone());
        }
        self.keep_place()?;
        let committed = self.guarded(|| match &*self.database() {
            Some(Opened::Whole(whole)) => whole.commit(batch),
            Some(Opened::Remains(_)) => Err(beyond_mending()),
            None => Err(closed()),
        });
        if let Err(error) = &committed {
            // That the file is lost says more.
            self.failed().get_or_insert_with(|| error.clone());
        }
        committed
    }

    fn keep_place(&self) -> Result<(), StoreError> {
        Self::keep_place(self)
    }

    fn figures(
        &self,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<Option<StoreFigures>, StoreError> {
        Self::figures(self, retention, now).map(Some)
    }

    fn check(&self, most: usize) -> Result<Option<Findings>, StoreError> {
        Self::check(self, most).map(Some)
    }

    fn lines(&self) -> Result<Option<StoreLines>, StoreError> {
        Self::lines(self).map(|lines| Some(Box::new(lines) as StoreLines))
    }

    fn place(&self) -> Option<Box<dyn Fn() -> bool + Send>> {
        self.file.as_ref()?.place()
    }

    fn bytes(&self) -> Option<u64> {
        self.file.as_ref()?.bytes()
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut failed = self.failed();
        if let Some(lost @ StoreError::Lost { .. }) = &*failed {
            return Err(lost.clone());
        }
        if failed.is_some() {
            Self::reopen(self)?;
            *failed = None;
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.file.as_ref().is_none_or(|file| file.has_room())
    }

    fn recover(&self) -> Result<Recovered, StoreError> {
        Store::reopen(self)?;
        self.read(read::recover)
    }

    fn job(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        self.read(|snapshot| read::job(snapshot, id))
    }

    fn job_alone(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.read(|snapshot| read::job_alone(snapshot, id))
    }

    fn jobs(
        &self,
        filter: &JobFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<JobPage, StoreError> {
        self.read(|snapshot| read::jobs(snapshot, filter, cursor, limit))
    }

    fn job_places(
        &self,
        filter: &JobFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<Places, StoreError> {
        self.read(|snapshot| read::places(snapshot, filter, cursor, limit))
    }

    fn calls(
        &self,
        filter: &CallFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<CallPage, StoreError> {
        self.read(|snapshot| read::calls(snapshot, filter, cursor, limit))
    }

    fn salvage_jobs(
        &self,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<Salvage<JobRecord>, StoreError> {
        let part = self.read(|snapshot| salvage::jobs(snapshot, cursor, limit));
        part.map(|part| self.named(part))
    }

    fn salvage_calls(
        &self,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<Salvage<CallRecord>, StoreError> {
        let part = self.read(|snapshot| salvage::calls(snapshot, cursor, limit));
        part.map(|part| self.named(part))
    }

    fn usage_day(&self, filter: &UsageFilter) -> Result<UsageDay, StoreError> {
        let (part, next) = self.read(|snapshot| salvage::usage_day(snapshot, filter))?;
        let Salvage {
            rows, unreadable, ..
        } = self.named(part);
        Ok(UsageDay {
            rows,
            unreadable,
            next,
        })
    }

    fn usage(&self, filter: &UsageFilter) -> Result<Vec<UsageRow>, StoreError> {
        self.read(|snapshot| read::usage(snapshot, filter))
    }

    fn counts(&self) -> Result<StatusCounts, StoreError> {
        self.read(read::counts)
    }

    fn batch(&self, id: BatchId) -> Result<Option<Batch>, StoreError> {
        self.read(|snapshot| read::batch(snapshot, id))
    }

    fn audit(&self, before: Option<AuditId>, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(|snapshot| read::audit(snapshot, before, limit))
    }

    fn client_keys(&self) -> Result<Vec<ClientKey>, StoreError> {
        self.read(read::client_keys)
    }

    fn batches(&self, after: Option<BatchId>, limit: usize) -> Result<Vec<Batch>, StoreError> {
        self.read(|snapshot| read::batches(snapshot, after, limit))
    }

    fn batch_jobs(
        &self,
        id: Option<BatchId>,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<(Vec<Job>, Option<u64>), StoreError> {
        self.read(|snapshot| read::batch_jobs(snapshot, id, cursor, limit))
    }

    fn batch_input(&self, id: BatchId) -> Result<Option<BatchInput>, StoreError> {
        self.read(|snapshot| read::batch_input(snapshot, id))
    }

    fn batch_inputs(
        &self,
        after: Option<BatchId>,
        limit: usize,
    ) -> Result<Vec<BatchInput>, StoreError> {
        self.read(|snapshot| read::batch_inputs(snapshot, after, limit))
    }

    fn file(&self, id: FileId) -> Result<Option<StoredFile>, StoreError> {
        self.read(|snapshot| read::file(snapshot, id))
    }

    fn files(&self, after: Option<FileId>, limit: usize) -> Result<Vec<StoredFile>, StoreError> {
        self.read(|snapshot| read::files(snapshot, after, limit))
    }

    fn file_part(&self, id: FileId, number: u32) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|snapshot| read::file_part(snapshot, id, number))
    }

    fn deliveries_due(&self, query: &DueQuery) -> Result<DueDeliveries, StoreError> {
        self.read(|snapshot| notices::due(snapshot, query))
    }

    fn deliveries(
        &self,
        filter: &DeliveryFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<DeliveryPage, StoreError> {
        self.read(|snapshot| notices::page(snapshot, filter, cursor, limit))
    }

    fn deliveries_over(&self, query: OverQuery) -> Result<DeliveriesOver, StoreError> {
        self.read(|snapshot| notices::over(snapshot, query))
    }

    fn delivery_counts(&self) -> Result<DeliveryCounts, StoreError> {
        self.read(notices::counts)
    }

    fn endpoints(&self) -> Result<Vec<HookEndpoint>, StoreError> {
        self.read(notices::endpoints)
    }

    fn alerts(&self) -> Result<AlertBook, StoreError> {
        self.read(notices::alerts)
    }

    fn config(&self) -> Result<Option<String>, StoreError> {
        self.read(read::config)
    }

    fn clock(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read(read::clock)
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        let database = self
            .database
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let is_sound = self
            .failed
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none();
        close(&self.path, database.take(), is_sound);
    }
}

impl std::fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbStore")
            .field("path", &self.path)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Closes the file, its journal written to the tables if it is to be. All that was acknowledged is on
/// disk already, so that a failure here costs the next start some time and nothing else; a damaged file must
/// not panic even now.
fn close(path: &str, opened: Option<Opened>, settles: bool) {
    let Some(opened) = opened else { return };
    let close = || match opened {
        Opened::Whole(whole) => {
            let settled = if settles { whole.settle() } else { Ok(()) };
            whole.close().and(settled)
        }
        Opened::Remains(remains) => {
            drop(remains);
            Ok(())
        }
    };
    let trouble = match quietly(AssertUnwindSafe(close)) {
        Ok(Ok(())) => return,
        // Of the commit that failed before, which was told.
        Ok(Err(FileError::Redb(redb::Error::PreviousIo))) => return,
        Ok(Err(error)) => error.at(path).to_string(),
        Err(panic) => words_of(panic.as_ref()),
    };
    tracing::warn!(
        file = path,
        error = trouble,
        "the store was not closed cleanly"
    );
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
    words.unwrap_or("reading it failed").to_owned()
}

fn beyond_mending() -> FileError {
    FileError::Damaged(
        "pages of its newest state are not as they were written, and the one before is not whole either"
            .to_owned(),
    )
}

fn closed() -> FileError {
    FileError::Io(io::Error::other("it is closed since reopening failed"))
}
