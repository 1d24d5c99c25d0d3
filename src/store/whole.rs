//! A database with its journal: one state, which readers see while the next one is written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onelane_core::model::Transition;
use redb::{Database, ReadableDatabase as _};

use super::error::{FileError, Result};
use super::journal::{Journal, Written};
use super::state::State;
use super::{StoreOptions, closed, commit};
use crate::ports::Decisions;

/// The store, open.
pub(super) struct Whole {
    /// The state that was committed last; `None` while the file is worked on alone. Held for moments only: while it is
    /// taken up, or becomes the next one. Snapshot and journal belong together, and between a commit and its
    /// showing readers see the state before.
    current: Mutex<Option<Arc<State>>>,
    /// Held from the look at a state until the next one can be seen: changes come one after the other.
    writing: Mutex<()>,
    database: Database,
}

impl Whole {
    /// The store of a database. Reads its journal.
    pub(super) fn new(database: Database) -> Result<Self> {
        let state = state(&database)?;
        Ok(Self {
            current: Mutex::new(Some(Arc::new(state))),
            writing: Mutex::default(),
            database,
        })
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<State>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state that was committed last.
    pub(super) fn state(&self) -> Result<Arc<State>> {
        self.current().clone().ok_or_else(closed)
    }

    /// Applies a batch and makes it durable.
    pub(super) fn commit(&self, options: StoreOptions, batch: &[Transition]) -> Result<Decisions> {
        let _writing = self.writing();
        let state = self.state()?;
        let (decisions, written) = commit::commit(&self.database, options, &state, batch)?;
        drop(state);
        if let Some(written) = written {
            self.show(written)?;
        }
        Ok(decisions)
    }

    /// Shows readers what was just committed.
    fn show(&self, written: Written) -> Result<()> {
        let snapshot = self.database.begin_read()?;
        let mut current = self.current();
        let current = current.as_mut().ok_or_else(closed)?;
        match Arc::get_mut(current) {
            Some(state) => state.become_next(snapshot, written),
            None => *current = Arc::new(current.next(snapshot, written)),
        }
        Ok(())
    }

    /// Writes what the journal holds to the tables.
    pub(super) fn settle(&self, options: StoreOptions) -> Result<()> {
        let _writing = self.writing();
        let state = self.state()?;
        if state.journal().is_empty() {
            return Ok(());
        }
        let transaction = commit::begin(&self.database, options)?;
        state.journal().settle(&transaction)?;
        transaction.commit()?;
        drop(state);
        self.show(Written::Tables)
    }

    /// Works on the file alone: nobody reads it meanwhile.
    pub(super) fn exclusive<T>(
        &mut self,
        work: impl FnOnce(&mut Database) -> Result<T>,
    ) -> Result<T> {
        *self.current() = None;
        let done = work(&mut self.database);
        let state = state(&self.database);
        match done {
            Ok(done) => {
                *self.current() = Some(Arc::new(state?));
                Ok(done)
            }
            Err(error) => {
                *self.current() = state.ok().map(Arc::new);
                Err(error)
            }
        }
    }

    /// Begins a change by hand.
    #[cfg(test)]
    pub(super) fn begin_write(&self) -> Result<redb::WriteTransaction> {
        Ok(self.database.begin_write()?)
    }

    /// Closes the file.
    pub(super) fn close(self) -> Result<()> {
        drop(self.current);
        self.database.close().map_err(FileError::from)
    }
}

/// The state of a file.
fn state(database: &Database) -> Result<State> {
    let snapshot = database.begin_read()?;
    let journal = Journal::load(&snapshot)?;
    Ok(State::new(snapshot, journal))
}
