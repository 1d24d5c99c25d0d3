//! Batches: jobs that belong together. Their rows count the jobs; here they are begun, looked at and given up.

use onelane_actors::protocol::{QueueMsg, SubmitError};
use onelane_core::model::{
    Applied, Batch, BatchId, BatchStep, Job, JobFilter, MoreFilter, Refusal, Scope, Transition,
    limits,
};

use super::Orchestrator;
use crate::error::Error;

impl Orchestrator {
    /// Begins the batch of this name, or opens it for more jobs if it is there.
    pub async fn open_batch(&self, name: &str) -> Result<Batch, Error> {
        let now = self.inner.ports.clock.now();
        let new = Batch::new(BatchId::named(name), name, now);
        self.batch_changed(Transition::OpenBatch(Box::new(new)))
            .await
    }

    /// No more jobs come to a batch: with its last job it is completed.
    pub async fn close_batch(&self, id: BatchId) -> Result<Batch, Error> {
        self.step_batch(id, BatchStep::Close).await
    }

    /// Gives a batch up: no more jobs come to it, and those that wait or run are cancelled. Answers how many
    /// were.
    pub async fn cancel_batch(&self, id: BatchId) -> Result<u64, Error> {
        self.step_batch(id, BatchStep::Cancel).await?;
        self.cancel_all(of_batch(id), false).await
    }

    /// One batch.
    pub async fn batch(&self, id: BatchId) -> Result<Option<Batch>, Error> {
        self.read(move |store| store.batch(id)).await
    }

    /// The batches after this one, in the order of their ids; at most [`limits::PAGE_ROWS_MAX`].
    pub async fn batches(&self, after: Option<BatchId>) -> Result<Vec<Batch>, Error> {
        self.read(move |store| store.batches(after, limits::PAGE_ROWS_MAX))
            .await
    }

    /// Jobs of a batch, newest first, with the place where the next begin.
    pub async fn batch_jobs(
        &self,
        id: BatchId,
        cursor: Option<u64>,
    ) -> Result<(Vec<Job>, Option<u64>), Error> {
        self.read(move |store| store.batch_jobs(id, cursor, limits::PAGE_ROWS_MAX))
            .await
    }

    /// The jobs that the lane runs from now on; the others wait. Lasts as long as the process.
    pub async fn set_scope(&self, scope: Scope) -> Result<(), Error> {
        let _one_at_a_time = self.inner.changing.lock().await;
        self.inner.settings.send_modify(|settings| {
            std::sync::Arc::make_mut(settings).scope = scope;
        });
        self.ask(|refs, reply| refs.queue.cast(QueueMsg::Configure { reply }))
            .await
    }

    async fn step_batch(&self, id: BatchId, step: BatchStep) -> Result<Batch, Error> {
        let at = self.inner.ports.clock.now();
        self.batch_changed(Transition::Batch { id, step, at }).await
    }

    async fn batch_changed(&self, change: Transition) -> Result<Batch, Error> {
        let mut decisions = self.commit(vec![change]).await?;
        match decisions.pop() {
            Some(Ok(Applied::Batch(batch))) => Ok(*batch),
            Some(Err(Refusal::NoSuchBatch(id))) => Err(Error::NoSuchBatch(id)),
            _ => Err(SubmitError::Unknown.into()),
        }
    }
}

/// The jobs of a batch.
fn of_batch(id: BatchId) -> JobFilter {
    JobFilter {
        more: MoreFilter {
            batch_id: Some(id),
            ..MoreFilter::default()
        },
        ..JobFilter::default()
    }
}
