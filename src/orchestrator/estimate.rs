//! What jobs may cost, before they are submitted.

use onelane_actors::ports::UsageFilter;
use onelane_core::model::Day;

use super::{Orchestrator, Submission};
use crate::error::Error;
use crate::estimate::{self, History, JobEstimate};

/// Days whose answers tell how long the next will be.
const HISTORY_DAYS: i32 = 30;

impl Orchestrator {
    /// What a job may come to in tokens and money, by GLM's tokenizer and the settings in force. Nothing
    /// is submitted; what would be refused for what it says is refused here, too.
    pub async fn estimate(&self, submission: &Submission) -> Result<JobEstimate, Error> {
        let mut estimates = self.estimate_many(vec![submission.clone()]).await?;
        let estimate = estimates.pop();
        estimate.unwrap_or_else(|| Err(Error::Stopped("the estimate was lost".to_owned())))
    }

    /// How long the answers of the last weeks were.
    async fn history(&self) -> Result<History, Error> {
        let settings = self.settings();
        let today = settings.calendar.day(self.inner.ports.clock.now());
        let filter = UsageFilter {
            start: Day(today.0.saturating_sub(HISTORY_DAYS)),
            ..UsageFilter::default()
        };
        Ok(History::of(&self.usage(filter).await?))
    }

    /// As [`Orchestrator::estimate`], of each job in its order. Fails as a whole only while the program
    /// ends.
    pub async fn estimate_many(
        &self,
        submissions: Vec<Submission>,
    ) -> Result<Vec<Result<JobEstimate, Error>>, Error> {
        let settings = self.settings();
        let history = self.history().await?;
        let count = move || {
            let estimate = |job| estimate::of(job, &settings, &history).map_err(Error::from);
            submissions.iter().map(estimate).collect()
        };
        // Counting takes the processor for as long as the texts are: not an async worker's.
        tokio::task::spawn_blocking(count)
            .await
            .map_err(|_| Error::Stopped("the runtime is ending".to_owned()))
    }
}
