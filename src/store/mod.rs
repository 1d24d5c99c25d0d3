//! The durable truth on redb: one file, one owner, one writer. The lane's port [`Store`] in front,
//! tables and rows behind (`schema`); what a change means is decided in
//! [`onelane_core::life::effects`], not here.

mod check;
mod commit;
mod error;
mod figures;
mod finished;
mod look;
mod notices;
mod open;
mod read;
mod row;
mod salvage;
mod schema;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::fs::OpenOptions;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use onelane_core::model::{Prune, Transition};
use onelane_core::notify::delivery::{DueDeliveries, DueQuery};
use redb::backends::FileBackend;
use redb::{Builder, Database, ReadTransaction, ReadableDatabase, StorageBackend};

use self::error::{FileError, Result};
pub use self::look::stored_config;
use crate::model::{
    AlertBook, CallRecord, DeliveryCounts, HookEndpoint, JobId, Retention, Timestamp, UsageRow,
};
use crate::ports::{
    CallFilter, CallPage, Decisions, DeliveriesOver, DeliveryFilter, DeliveryPage, JobFilter,
    JobPage, JobRecord, OverQuery, Places, Recovered, Salvage, StatusCounts, Store, StoreError,
    UsageDay, UsageFilter,
};
pub use check::{Finding, Findings};
pub use figures::{Prunable, StoreFigures, TableFigures, TimeSpan};

/// How the file is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// Memory for pages of the file, in bytes.
    pub cache_bytes: usize,
    /// Saves with every commit what a restart after a crash needs, so that reopening takes
    /// milliseconds whatever the file's size; without it the whole file is read. Costs a second
    /// sync per commit.
    pub quick_repair: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 16 * 1024 * 1024,
            quick_repair: false,
        }
    }
}

/// Makes the database, at the start and again after a failed commit.
type Opener = Box<dyn Fn(&Builder, Occasion) -> Result<Database> + Send + Sync>;

/// Why the file is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// The program starts: a new file becomes a store.
    Start,
    /// A commit failed: a file that was a store must still be one.
    Reopen,
}

/// The store in a redb file.
pub struct RedbStore {
    path: String,
    options: StoreOptions,
    opener: Opener,
    /// `None` after reopening failed. Held for reading while a transaction begins or a commit runs,
    /// for writing while the file is reopened.
    database: RwLock<Option<Database>>,
    /// The error of the commit that failed: until the file is reopened its content is unknown.
    failed: Mutex<Option<StoreError>>,
}

impl RedbStore {
    /// Opens the store at `path`, or creates it there, readable by its owner alone: it holds
    /// prompts. Errors name the file: [`StoreError::Locked`] when another process has it,
    /// [`StoreError::Access`], [`StoreError::Full`], [`StoreError::Damaged`] when it is not a store
    /// (any more), [`StoreError::Version`] when an older or a newer program wrote it.
    pub fn open(path: impl AsRef<Path>, options: StoreOptions) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let name = path.display().to_string();
        open::create_if_missing(&path).map_err(|e| FileError::from(e).at(&name))?;
        Self::open_file(path, name, options)
    }

    /// Opens the store at `path`, which has to be there, to look, not to begin. Errors as
    /// those of [`RedbStore::open`].
    pub fn open_existing(
        path: impl AsRef<Path>,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let name = path.display().to_string();
        is_there(&path).map_err(|error| error.at(&name))?;
        Self::open_file(path, name, options)
    }

    /// Opens the store at `path`, which has to be there, and leaves the file as it is: what mending
    /// changes, and what is committed, stays in memory and is gone afterwards. Errors as those of
    /// [`RedbStore::open`].
    pub fn open_to_look(path: impl AsRef<Path>, options: StoreOptions) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let name = path.display().to_string();
        is_there(&path).map_err(|error| error.at(&name))?;
        Self::open_with_backend(name, options, move || look::over(&path))
    }

    fn open_file(path: PathBuf, name: String, options: StoreOptions) -> Result<Self, StoreError> {
        // From here on the file is never created: a store that vanished is an error, not empty.
        Self::open_with_backend(name, options, move || {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            FileBackend::new(file).map_err(io::Error::other)
        })
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
        let store = Self {
            path: name.into(),
            options,
            opener: Box::new(move |builder, occasion| {
                let backend = make()?;
                if occasion == Occasion::Start {
                    open::clear_unfinished(&backend)?;
                }
                Ok(builder.create_with_backend(backend)?)
            }),
            database: RwLock::new(None),
            failed: Mutex::new(None),
        };
        let database = store.guarded(|| store.open_database(Occasion::Start))?;
        *store
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(database);
        Ok(store)
    }

    /// Checks the tables against each other; lists `most` findings at most. Reads all rows.
    pub fn check(&self, most: usize) -> Result<Findings, StoreError> {
        self.read(|snapshot| check::check(snapshot, most))
    }

    /// Checks every page of the file against its checksum. `false`: some were damaged, and the file was
    /// mended from what is whole. Beyond mending is [`StoreError::Damaged`].
    pub fn check_pages(&mut self) -> Result<bool, StoreError> {
        self.exclusive(|database| Ok(database.check_integrity()?))
    }

    /// Gives the file's free space back to the device. Answers whether there was any.
    pub fn compact(&mut self) -> Result<bool, StoreError> {
        self.exclusive(|database| Ok(database.compact()?))
    }

    /// How large the store is, how old, and what this retention would remove now.
    pub fn figures(
        &self,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<StoreFigures, StoreError> {
        let prune = Prune::of(retention, now);
        self.read(|snapshot| figures::figures(snapshot, prune.as_ref()))
    }

    /// Works on the file alone.
    fn exclusive<T>(
        &mut self,
        work: impl FnOnce(&mut Database) -> Result<T>,
    ) -> Result<T, StoreError> {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        self.guarded(|| {
            let database = database.as_mut();
            work(database.ok_or_else(closed)?)
        })
    }

    fn open_database(&self, occasion: Occasion) -> Result<Database> {
        let mut builder = Builder::new();
        builder.set_cache_size(self.options.cache_bytes);
        let database = (self.opener)(&builder, occasion)?;
        match (open::is_new(&database)?, occasion) {
            (true, Occasion::Start) => open::initialise(&database)?,
            (true, Occasion::Reopen) => {
                return Err(FileError::Damaged(
                    "it is empty, but was a store".to_owned(),
                ));
            }
            (false, _) => open::check_version(&database)?,
        }
        Ok(database)
    }

    /// Closes the file and opens it again; its content is the truth.
    fn reopen(&self) -> Result<(), StoreError> {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // The old owner of the file lets go of its lock before the new one asks for it.
        close(&self.path, database.take());
        *database = Some(self.guarded(|| self.open_database(Occasion::Reopen))?);
        Ok(())
    }

    fn failed(&self) -> MutexGuard<'_, Option<StoreError>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, of: impl FnOnce(&ReadTransaction) -> Result<T>) -> Result<T, StoreError> {
        let found = self.guarded(|| {
            let snapshot = open_of(&self.database())?.begin_read()?;
            of(&snapshot)
        });
        match found {
            // After a failed commit redb says no more than that there was an error; this is the error.
            Err(error @ StoreError::Io { .. }) => Err(self.failed().clone().unwrap_or(error)),
            found => found,
        }
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

/// An empty file is no store yet.
fn is_there(path: &Path) -> Result<()> {
    let found = std::fs::metadata(path)?;
    if found.is_file() && found.len() == 0 {
        return Err(FileError::Damaged("it is empty".to_owned()));
    }
    Ok(())
}

/// Runs `work` on the file at `path`. redb returns most damage as an error, but not all of it: what it
/// panics about is damage too.
fn guarded<T>(path: &str, work: impl FnOnce() -> Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.at(path)),
        Err(panic) => Err(StoreError::Damaged {
            path: path.to_owned(),
            message: words_of(panic.as_ref()),
        }),
    }
}

impl Store for RedbStore {
    fn commit(&self, batch: &[Transition]) -> Result<Decisions, StoreError> {
        if let Some(error) = &*self.failed() {
            return Err(error.clone());
        }
        let committed = self.guarded(|| {
            let database = self.database();
            commit::commit(open_of(&database)?, self.options, batch)
        });
        if let Err(error) = &committed {
            *self.failed() = Some(error.clone());
        }
        committed
    }

    fn recover(&self) -> Result<Recovered, StoreError> {
        let mut failed = self.failed();
        if failed.is_some() {
            self.reopen()?;
            *failed = None;
        }
        drop(failed);
        self.read(read::recover)
    }

    fn job(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        self.read(|snapshot| read::job(snapshot, id))
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
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        let database = self
            .database
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        close(&self.path, database.take());
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

/// Closes a database. All that was acknowledged is on disk already, so that a failure here costs
/// the next start some time and nothing else; a damaged file must not panic even now.
fn close(path: &str, database: Option<Database>) {
    let Some(database) = database else { return };
    let trouble = match catch_unwind(AssertUnwindSafe(|| database.close())) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(panic) => words_of(panic.as_ref()),
    };
    tracing::warn!(path, error = trouble, "the store was not closed cleanly");
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
    words.unwrap_or("reading it failed").to_owned()
}

fn open_of(database: &Option<Database>) -> Result<&Database> {
    database.as_ref().ok_or_else(closed)
}

fn closed() -> FileError {
    FileError::Io(io::Error::other("it is closed since reopening failed"))
}
