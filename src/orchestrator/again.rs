//! A job run once more, as another job.

use onelane_core::model::{JobId, Submission};

use super::{Orchestrator, Submitted};
use crate::error::Error;

impl Orchestrator {
    /// Submits what a job asked for once more, for this model, as a job of its own: for the same user, about the same
    /// content, as urgent. It belongs to no batch and to no client key, and runs after nothing. `RequestPruned` once the
    /// request is gone; otherwise as [`Orchestrator::submit`].
    pub async fn run_again(&self, id: JobId, model: String) -> Result<Submitted, Error> {
        let record = self.record(id).await?;
        let request = record.request.ok_or(Error::RequestPruned(id))?;
        let job = record.job;
        self.submit(Submission {
            model: Some(model),
            user_id: job.user_id,
            content_id: job.content_id,
            priority: Some(job.priority),
            metadata: job.metadata,
            headers: job.headers,
            timeout_ms: job.timeout_ms,
            ..Submission::new((*request).clone())
        })
        .await
    }
}
