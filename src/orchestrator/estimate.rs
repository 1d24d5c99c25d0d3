//! What jobs may cost, before they are submitted.

use super::{Orchestrator, Submission};
use crate::error::Error;
use crate::estimate::{self, JobEstimate};

impl Orchestrator {
    /// What a job may come to in tokens and money, by GLM's tokenizer and the settings in force. Nothing
    /// is submitted; what would be refused for what it says is refused here, too.
    pub async fn estimate(&self, submission: &Submission) -> Result<JobEstimate, Error> {
        let mut estimates = self.estimate_many(vec![submission.clone()]).await?;
        let estimate = estimates.pop();
        estimate.unwrap_or_else(|| Err(Error::Stopped("the estimate was lost".to_owned())))
    }

    /// As [`Orchestrator::estimate`], of each job in its order. Fails as a whole only while the program
    /// ends.
    pub async fn estimate_many(
        &self,
        submissions: Vec<Submission>,
    ) -> Result<Vec<Result<JobEstimate, Error>>, Error> {
        let settings = self.settings();
        let count = move || {
            let estimate = |job| estimate::of(job, &settings).map_err(Error::from);
            submissions.iter().map(estimate).collect()
        };
        // Counting takes the processor for as long as the texts are: not an async worker's.
        tokio::task::spawn_blocking(count)
            .await
            .map_err(|_| Error::Stopped("the runtime is ending".to_owned()))
    }
}
