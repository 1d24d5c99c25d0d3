//! What the API needs of the lane. The orchestrator is the lane; tests bring one that has no store
//! and no GLM behind it.

use std::time::Duration;

use futures_util::future::BoxFuture;
use onelane_actors::model::{JobId, UsageRow};
use onelane_actors::ports::{JobFilter, JobPage, JobRecord, UsageFilter};
use serde_json::Value;

use crate::config::PolicyRow;
use crate::error::Error;
use crate::orchestrator::{JobDetail, Metrics, Orchestrator, Submission, Submitted};

/// The answer to one question.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// The lane as the API uses it. Every method is the orchestrator's method of the same name and
/// promises the same.
pub trait Lane: Send + Sync + 'static {
    /// Puts a job on disk.
    fn submit(&self, submission: Submission) -> Answer<'_, Submitted>;
    /// Puts many jobs on disk.
    fn submit_many(
        &self,
        submissions: Vec<Submission>,
    ) -> Answer<'_, Vec<Result<Submitted, Error>>>;
    /// Waits until a job has a terminal status.
    fn wait(&self, id: JobId) -> Answer<'_, JobRecord>;
    /// As `wait`, at most for `limit`.
    fn wait_for(&self, id: JobId, limit: Duration) -> Answer<'_, JobRecord>;
    /// One job with its attempts.
    fn job(&self, id: JobId) -> Answer<'_, JobDetail>;
    /// A page of jobs.
    fn jobs(&self, filter: JobFilter, cursor: Option<u64>, limit: usize) -> Answer<'_, JobPage>;
    /// Gives a job up.
    fn cancel(&self, id: JobId) -> Answer<'_, ()>;
    /// Puts a failed or cancelled job back in line.
    fn retry(&self, id: JobId) -> Answer<'_, ()>;
    /// Usage rows.
    fn usage(&self, filter: UsageFilter) -> Answer<'_, Vec<UsageRow>>;
    /// Figures of the lane.
    fn metrics(&self) -> Answer<'_, Metrics>;
    /// Stops the lane before its next call.
    fn pause(&self, reason: Option<String>) -> Answer<'_, ()>;
    /// Ends a pause and every hold.
    fn resume(&self) -> Answer<'_, ()>;
    /// The configuration, key masked.
    fn config_view(&self) -> Value;
    /// What each error code means now.
    fn policy(&self) -> Vec<PolicyRow>;
    /// Changes the running configuration.
    fn set_config<'a>(&'a self, patch: &'a Value) -> Answer<'a, Value>;
}

impl Lane for Orchestrator {
    fn submit(&self, submission: Submission) -> Answer<'_, Submitted> {
        Box::pin(self.submit(submission))
    }

    fn submit_many(
        &self,
        submissions: Vec<Submission>,
    ) -> Answer<'_, Vec<Result<Submitted, Error>>> {
        Box::pin(self.submit_many(submissions))
    }

    fn wait(&self, id: JobId) -> Answer<'_, JobRecord> {
        Box::pin(self.wait(id))
    }

    fn wait_for(&self, id: JobId, limit: Duration) -> Answer<'_, JobRecord> {
        Box::pin(self.wait_for(id, limit))
    }

    fn job(&self, id: JobId) -> Answer<'_, JobDetail> {
        Box::pin(self.job(id))
    }

    fn jobs(&self, filter: JobFilter, cursor: Option<u64>, limit: usize) -> Answer<'_, JobPage> {
        Box::pin(self.jobs(filter, cursor, limit))
    }

    fn cancel(&self, id: JobId) -> Answer<'_, ()> {
        Box::pin(self.cancel(id))
    }

    fn retry(&self, id: JobId) -> Answer<'_, ()> {
        Box::pin(self.retry(id))
    }

    fn usage(&self, filter: UsageFilter) -> Answer<'_, Vec<UsageRow>> {
        Box::pin(self.usage(filter))
    }

    fn metrics(&self) -> Answer<'_, Metrics> {
        Box::pin(self.metrics())
    }

    fn pause(&self, reason: Option<String>) -> Answer<'_, ()> {
        Box::pin(self.pause(reason))
    }

    fn resume(&self) -> Answer<'_, ()> {
        Box::pin(self.resume())
    }

    fn config_view(&self) -> Value {
        self.config_view()
    }

    fn policy(&self) -> Vec<PolicyRow> {
        self.config().policy()
    }

    fn set_config<'a>(&'a self, patch: &'a Value) -> Answer<'a, Value> {
        Box::pin(self.set_config(patch))
    }
}
