//! The store as the actors have it: lent, so that the facade knows when none of them, and no
//! transaction that one of them began, holds it any more. The file is free only then.

use std::sync::Arc;

use onelane_actors::model::{JobId, UsageRow};
use onelane_actors::policy::transition::Transition;
use onelane_actors::ports::{
    CallFilter, CallPage, JobFilter, JobPage, JobRecord, Recovered, StatusCounts, Store,
    StoreError, UsageFilter, Verdicts,
};
use tokio::sync::oneshot;

/// A store on loan. When the last reference to it is dropped, it is given back.
struct Lent {
    // Dropped in this order: what is told to be given back is given back already.
    store: Arc<dyn Store>,
    _told: oneshot::Sender<()>,
}

/// Lends a store. The receiver ends when it was given back.
pub(super) fn lend(store: Arc<dyn Store>) -> (Arc<dyn Store>, oneshot::Receiver<()>) {
    let (told, given_back) = oneshot::channel();
    let lent = Lent { store, _told: told };
    (Arc::new(lent), given_back)
}

impl Store for Lent {
    fn commit(&self, batch: &[Transition]) -> Result<Verdicts, StoreError> {
        self.store.commit(batch)
    }

    fn recover(&self) -> Result<Recovered, StoreError> {
        self.store.recover()
    }

    fn job(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        self.store.job(id)
    }

    fn jobs(
        &self,
        filter: &JobFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<JobPage, StoreError> {
        self.store.jobs(filter, cursor, limit)
    }

    fn calls(
        &self,
        filter: &CallFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<CallPage, StoreError> {
        self.store.calls(filter, cursor, limit)
    }

    fn usage(&self, filter: &UsageFilter) -> Result<Vec<UsageRow>, StoreError> {
        self.store.usage(filter)
    }

    fn counts(&self) -> Result<StatusCounts, StoreError> {
        self.store.counts()
    }

    fn config(&self) -> Result<Option<String>, StoreError> {
        self.store.config()
    }
}
