//! Tables and journal as one state, which readers see while the next one is written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onelane_core::model::Transition;
use redb::ReadableDatabase as _;

use super::error::Result;
use super::journal::{Journal, Written};
use super::parts::Parts;
use super::state::State;
use super::{closed, commit};
use crate::ports::Decisions;

/// The store, open.
pub(super) struct Whole {
    /// The state that was committed last; `None` while the file is worked on alone. Held for moments only: while it is
    /// taken up, or becomes the next one. Snapshot and journal belong together, and between a commit and its
    /// showing readers see the state before.
    current: Mutex<Option<Arc<State>>>,
    /// Held from the look at a state until the next one can be seen: changes come one after the other. Says whether one
    /// has failed: what the file says then is not known, and nothing is built on it before it is opened again.
    writing: Mutex<bool>,
    parts: Parts,
}

impl Whole {
    /// The store of these parts. What only the journal holds goes to the tables: it may have been read from memory that
    /// a disk which failed never took, and nothing is to be built on that.
    pub(super) fn new(parts: Parts) -> Result<Self> {
        let state = state(&parts)?;
        let whole = Self {
            current: Mutex::new(Some(Arc::new(state))),
            writing: Mutex::default(),
            parts,
        };
        whole.settle()?;
        Ok(whole)
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<State>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, bool> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state that was committed last.
    pub(super) fn state(&self) -> Result<Arc<State>> {
        self.current().clone().ok_or_else(closed)
    }

    /// Applies a batch and makes it durable.
    pub(super) fn commit(&self, batch: &[Transition]) -> Result<Decisions> {
        let mut failed = self.writing();
        if *failed {
            return Err(closed());
        }
        let state = self.state()?;
        let (decisions, own) = commit::apply(&state, batch)?;
        if let Some(own) = own {
            let Parts { tables, journal } = &self.parts;
            *failed = true;
            let written = state.journal().write(tables, journal, own)?;
            drop(state);
            self.show(written)?;
            *failed = false;
        }
        Ok(decisions)
    }

    /// Shows readers what was just committed.
    fn show(&self, written: Written) -> Result<()> {
        let tables = &self.parts.tables;
        let snapshot = match written {
            Written::Tables => Some(tables.begin_read()?),
            Written::Journal { .. } => None,
        };
        let mut current = self.current();
        let current = current.as_mut().ok_or_else(closed)?;
        if let Some(state) = Arc::get_mut(current) {
            state.become_next(snapshot, written);
            return Ok(());
        }
        let snapshot = snapshot.map_or_else(|| tables.begin_read(), Ok)?;
        *current = Arc::new(current.next(snapshot, written));
        Ok(())
    }

    /// Writes what the journal holds to the tables.
    pub(super) fn settle(&self) -> Result<()> {
        let mut failed = self.writing();
        if *failed {
            return Err(closed());
        }
        let state = self.state()?;
        if state.journal().is_empty() {
            return Ok(());
        }
        *failed = true;
        state.journal().settle(&self.parts.tables, None)?;
        drop(state);
        self.show(Written::Tables)?;
        *failed = false;
        Ok(())
    }

    /// Works on the file alone: nobody reads it meanwhile.
    pub(super) fn exclusive<T>(&mut self, work: impl FnOnce(&mut Parts) -> Result<T>) -> Result<T> {
        *self.current() = None;
        let done = work(&mut self.parts);
        let state = state(&self.parts);
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
        Ok(self.parts.tables.begin_write()?)
    }

    /// Closes the file.
    pub(super) fn close(self) -> Result<()> {
        drop(self.current);
        self.parts.close()
    }
}

/// The state of a file.
fn state(parts: &Parts) -> Result<State> {
    let snapshot = parts.tables.begin_read()?;
    let journal = Journal::load(&snapshot, &parts.journal)?;
    Ok(State::new(snapshot, journal))
}
