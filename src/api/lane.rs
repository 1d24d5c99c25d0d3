//! What the API needs of the lane. The orchestrator is the lane; tests bring one that has no store
//! and no GLM behind it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use onelane_actors::ports::{
    CallFilter, CallPage, DeliveryFilter, DeliveryPage, JobFilter, JobPage, JobRecord,
};
use onelane_core::model::{
    AlertBook, AttemptNo, Billing, BreakerSnapshot, BudgetStatus, DeliveryId, HoldScope, JobId,
    Settings, Timestamp,
};
use serde_json::Value;

use crate::config::{PolicyRow, Prices};
use crate::error::Error;
use crate::estimate::JobEstimate;
use crate::export::{Export, Part};
use crate::orchestrator::{
    DeadLetters, EndpointDetail, JobDetail, LaneStatus, Metrics, Orchestrator, Selection,
    Submission, Submitted,
};
use crate::statistics::{StatisticsQuery, StatisticsRow};

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
    /// What each of these jobs may come to.
    fn estimate_many(
        &self,
        submissions: Vec<Submission>,
    ) -> Answer<'_, Vec<Result<JobEstimate, Error>>>;
    /// Waits until a job has a terminal status.
    fn wait(&self, id: JobId) -> Answer<'_, JobRecord>;
    /// As `wait`, at most for `limit`.
    fn wait_for(&self, id: JobId, limit: Duration) -> Answer<'_, JobRecord>;
    /// One job with its attempts.
    fn job(&self, id: JobId) -> Answer<'_, JobDetail>;
    /// A page of jobs.
    fn jobs(&self, filter: JobFilter, cursor: Option<u64>, limit: usize) -> Answer<'_, JobPage>;
    /// A page of failed jobs with their attempts.
    fn dead_letters(
        &self,
        filter: JobFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Answer<'_, DeadLetters>;
    /// A page of the call log.
    fn calls(&self, filter: CallFilter, cursor: Option<u64>, limit: usize) -> Answer<'_, CallPage>;
    /// Gives a job up.
    fn cancel(&self, id: JobId) -> Answer<'_, ()>;
    /// Puts a failed, cancelled or set-aside job back in line.
    fn retry(&self, id: JobId) -> Answer<'_, ()>;
    /// Changes the priority of a pending job.
    fn reprioritise(&self, id: JobId, priority: i32) -> Answer<'_, ()>;
    /// Puts many jobs back in line.
    fn retry_all(&self, jobs: Selection, dry_run: bool) -> Answer<'_, u64>;
    /// Gives many jobs up.
    fn cancel_all(&self, jobs: Selection, dry_run: bool) -> Answer<'_, u64>;
    /// Changes the priority of many jobs.
    fn reprioritise_all(&self, jobs: Selection, priority: i32, dry_run: bool) -> Answer<'_, u64>;
    /// Books what was found out about an attempt that may have been billed.
    fn settle_billing(
        &self,
        job_id: JobId,
        attempt: AttemptNo,
        billing: Billing,
    ) -> Answer<'_, Billing>;
    /// Usage, summed up.
    fn statistics(&self, query: StatisticsQuery) -> Answer<'_, Vec<StatisticsRow>>;
    /// The next part of an export.
    fn export_part(&self, export: Export) -> Answer<'_, Option<(Part, Export)>>;
    /// Figures of the lane.
    fn metrics(&self) -> Answer<'_, Metrics>;
    /// Alerts that are active and that are over.
    fn alerts(&self) -> AlertBook;
    /// A page of deliveries to webhooks.
    fn deliveries(
        &self,
        filter: DeliveryFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Answer<'_, DeliveryPage>;
    /// The endpoints that are told.
    fn webhook_endpoints(&self) -> Answer<'_, Vec<EndpointDetail>>;
    /// Sends a delivery again.
    fn redeliver(&self, id: DeliveryId) -> Answer<'_, ()>;
    /// Sends many deliveries again.
    fn redeliver_all(&self, filter: DeliveryFilter, dry_run: bool) -> Answer<'_, u64>;
    /// Sends a test to one endpoint or to all.
    fn test_webhooks(&self, endpoint: Option<String>) -> Answer<'_, Vec<DeliveryId>>;
    /// Stops the lane before its next call.
    fn pause(&self, reason: Option<String>) -> Answer<'_, ()>;
    /// Closes the intake.
    fn close_intake(&self, reason: Option<String>) -> Answer<'_, ()>;
    /// Ends a pause, every hold and a closed intake.
    fn resume(&self) -> Answer<'_, ()>;
    /// The lane at this moment.
    fn lane(&self) -> Answer<'_, LaneStatus>;
    /// Ends one hold.
    fn release_hold(&self, scope: HoldScope) -> Answer<'_, ()>;
    /// How the budgets stand.
    fn budgets(&self) -> Answer<'_, Vec<BudgetStatus>>;
    /// The breaker as it is.
    fn breaker(&self) -> BreakerSnapshot;
    /// Closes the breaker.
    fn breaker_reset(&self) -> Answer<'_, BreakerSnapshot>;
    /// Opens the breaker.
    fn breaker_open(&self, reason: String, until: Option<Timestamp>)
    -> Answer<'_, BreakerSnapshot>;
    /// The settings in force.
    fn settings(&self) -> Arc<Settings>;
    /// The configuration, key masked.
    fn config_view(&self) -> Value;
    /// What each error code means now.
    fn policy(&self) -> Vec<PolicyRow>;
    /// The price list in force.
    fn prices(&self) -> Prices;
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

    fn estimate_many(
        &self,
        submissions: Vec<Submission>,
    ) -> Answer<'_, Vec<Result<JobEstimate, Error>>> {
        Box::pin(self.estimate_many(submissions))
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

    fn dead_letters(
        &self,
        filter: JobFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Answer<'_, DeadLetters> {
        Box::pin(self.dead_letters(filter, cursor, limit))
    }

    fn calls(&self, filter: CallFilter, cursor: Option<u64>, limit: usize) -> Answer<'_, CallPage> {
        Box::pin(self.calls(filter, cursor, limit))
    }

    fn cancel(&self, id: JobId) -> Answer<'_, ()> {
        Box::pin(self.cancel(id))
    }

    fn retry(&self, id: JobId) -> Answer<'_, ()> {
        Box::pin(self.retry(id))
    }

    fn reprioritise(&self, id: JobId, priority: i32) -> Answer<'_, ()> {
        Box::pin(self.reprioritise(id, priority))
    }

    fn retry_all(&self, jobs: Selection, dry_run: bool) -> Answer<'_, u64> {
        Box::pin(self.retry_all(jobs, dry_run))
    }

    fn cancel_all(&self, jobs: Selection, dry_run: bool) -> Answer<'_, u64> {
        Box::pin(self.cancel_all(jobs, dry_run))
    }

    fn reprioritise_all(&self, jobs: Selection, priority: i32, dry_run: bool) -> Answer<'_, u64> {
        Box::pin(self.reprioritise_all(jobs, priority, dry_run))
    }

    fn settle_billing(
        &self,
        job_id: JobId,
        attempt: AttemptNo,
        billing: Billing,
    ) -> Answer<'_, Billing> {
        Box::pin(self.settle_billing(job_id, attempt, billing))
    }

    fn statistics(&self, query: StatisticsQuery) -> Answer<'_, Vec<StatisticsRow>> {
        Box::pin(self.statistics(query))
    }

    fn export_part(&self, export: Export) -> Answer<'_, Option<(Part, Export)>> {
        Box::pin(self.export_part(export))
    }

    fn metrics(&self) -> Answer<'_, Metrics> {
        Box::pin(self.metrics())
    }

    fn alerts(&self) -> AlertBook {
        self.alerts()
    }

    fn deliveries(
        &self,
        filter: DeliveryFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Answer<'_, DeliveryPage> {
        Box::pin(self.deliveries(filter, cursor, limit))
    }

    fn webhook_endpoints(&self) -> Answer<'_, Vec<EndpointDetail>> {
        Box::pin(self.webhook_endpoints())
    }

    fn redeliver(&self, id: DeliveryId) -> Answer<'_, ()> {
        Box::pin(self.redeliver(id))
    }

    fn redeliver_all(&self, filter: DeliveryFilter, dry_run: bool) -> Answer<'_, u64> {
        Box::pin(self.redeliver_all(filter, dry_run))
    }

    fn test_webhooks(&self, endpoint: Option<String>) -> Answer<'_, Vec<DeliveryId>> {
        Box::pin(self.test_webhooks(endpoint))
    }

    fn pause(&self, reason: Option<String>) -> Answer<'_, ()> {
        Box::pin(self.pause(reason))
    }

    fn close_intake(&self, reason: Option<String>) -> Answer<'_, ()> {
        Box::pin(self.close_intake(reason))
    }

    fn resume(&self) -> Answer<'_, ()> {
        Box::pin(self.resume())
    }

    fn lane(&self) -> Answer<'_, LaneStatus> {
        Box::pin(self.lane())
    }

    fn release_hold(&self, scope: HoldScope) -> Answer<'_, ()> {
        Box::pin(self.release_hold(scope))
    }

    fn budgets(&self) -> Answer<'_, Vec<BudgetStatus>> {
        Box::pin(self.budgets())
    }

    fn breaker(&self) -> BreakerSnapshot {
        self.breaker()
    }

    fn breaker_reset(&self) -> Answer<'_, BreakerSnapshot> {
        Box::pin(self.breaker_reset())
    }

    fn breaker_open(
        &self,
        reason: String,
        until: Option<Timestamp>,
    ) -> Answer<'_, BreakerSnapshot> {
        Box::pin(self.breaker_open(reason, until))
    }

    fn settings(&self) -> Arc<Settings> {
        self.settings()
    }

    fn config_view(&self) -> Value {
        self.config_view()
    }

    fn policy(&self) -> Vec<PolicyRow> {
        self.config().policy()
    }

    fn prices(&self) -> Prices {
        self.config().prices()
    }

    fn set_config<'a>(&'a self, patch: &'a Value) -> Answer<'a, Value> {
        Box::pin(self.set_config(patch))
    }
}
