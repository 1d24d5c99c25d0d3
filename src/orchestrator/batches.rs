//! Batches: jobs that belong together. Their rows count the jobs; here they are begun, looked at and given up.

use onelane_actors::protocol::{QueueMsg, SubmitError};
use onelane_core::model::{
    Applied, Batch, BatchId, BatchStep, Job, JobFilter, JobId, MoreFilter, Refusal, Scope,
    Transition, limits,
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

    /// Jobs of a batch, or (`None`) of all batches, newest first, with the place where the next begin.
    pub async fn batch_jobs(
        &self,
        id: impl Into<Option<BatchId>>,
        cursor: Option<u64>,
    ) -> Result<(Vec<Job>, Option<u64>), Error> {
        let id = id.into();
        self.read(move |store| store.batch_jobs(id, cursor, limits::PAGE_ROWS_MAX))
            .await
    }

    /// Moves jobs to a batch, each under the idempotency key that it has there: what was submitted under another
    /// name is found under this one from then on, and what its calls came to is the batch's. A job that is gone,
    /// that has no key, or whose key another job has, stays where it is. Answers how many moved.
    pub async fn adopt(
        &self,
        batch: BatchId,
        jobs: impl IntoIterator<Item = (JobId, String)>,
    ) -> Result<u64, Error> {
        let mut changes = jobs
            .into_iter()
            .map(|(job_id, key)| Transition::Adopt { job_id, batch, key })
            .peekable();
        let mut moved = 0;
        while changes.peek().is_some() {
            let some = changes.by_ref().take(limits::BATCH_TRANSITIONS_MAX);
            for decision in self.commit(some.collect()).await? {
                match decision {
                    Ok(_) => moved += 1,
                    Err(Refusal::NoSuchBatch(id)) => return Err(Error::NoSuchBatch(id)),
                    Err(_) => {}
                }
            }
        }
        Ok(moved)
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
