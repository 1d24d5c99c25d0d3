//! A database with its journal: one state, which readers see while the next one is written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onelane_core::model::Transition;
use redb::{Database, ReadableDatabase as _};

use super::error::{FileError, Result};
use super::journal::{Journal, Written};
use super::state::State;
use super::{StoreOptions, commit};
use crate::ports::Decisions;

/// The store, open.
pub(super) struct Whole {
    database: Database,
    /// Held for moments only: while a state is taken up, or becomes another one.
    journal: Mutex<Arc<Journal>>,
    /// Held from the look at a state until the next one can be seen: changes come one after the other.
    writing: Mutex<()>,
}

impl Whole {
    /// The store of a database. Reads its journal.
    pub(super) fn new(database: Database) -> Result<Self> {
        let journal = Journal::load(&database.begin_read()?)?;
        Ok(Self {
            database,
            journal: Mutex::new(Arc::new(journal)),
            writing: Mutex::default(),
        })
    }

    fn journal(&self) -> MutexGuard<'_, Arc<Journal>> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state that was committed last.
    ///
    /// Snapshot and journal belong together: both are taken up under one lock, and a journal becomes another
    /// one, under the same lock, right after its commit. In between a snapshot may be the newer one: it has
    /// the rows that the journal above it has, too, or rows that nothing refers to yet.
    pub(super) fn view(&self) -> Result<State> {
        let journal = self.journal();
        Ok(State::new(
            self.database.begin_read()?,
            Arc::clone(&journal),
        ))
    }

    /// Applies a batch and makes it durable.
    pub(super) fn commit(&self, options: StoreOptions, batch: &[Transition]) -> Result<Decisions> {
        let _writing = self.writing();
        let view = self.view()?;
        let (decisions, written) = commit::commit(&self.database, options, &view, batch)?;
        drop(view);
        if let Some(written) = written {
            written.show(&mut self.journal());
        }
        Ok(decisions)
    }

    /// Writes what the journal holds to the tables.
    pub(super) fn settle(&self, options: StoreOptions) -> Result<()> {
        let _writing = self.writing();
        let journal = Arc::clone(&self.journal());
        if journal.is_empty() {
            return Ok(());
        }
        let transaction = commit::begin(&self.database, options)?;
        journal.settle(&transaction)?;
        transaction.commit()?;
        Written::Tables.show(&mut self.journal());
        Ok(())
    }

    /// Works on the file alone; the journal is read again.
    pub(super) fn exclusive<T>(
        &mut self,
        work: impl FnOnce(&mut Database) -> Result<T>,
    ) -> Result<T> {
        let done = work(&mut self.database)?;
        let journal = Journal::load(&self.database.begin_read()?)?;
        *self.journal() = Arc::new(journal);
        Ok(done)
    }

    /// Begins a change by hand.
    #[cfg(test)]
    pub(super) fn begin_write(&self) -> Result<redb::WriteTransaction> {
        Ok(self.database.begin_write()?)
    }

    /// Closes the file.
    pub(super) fn close(self) -> Result<()> {
        self.database.close().map_err(FileError::from)
    }
}
