//! A lane in memory: jobs end when a test ends them.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::ready;
use onelane_actors::ports::{
    CallFilter, CallPage, DeliveryFilter, DeliveryPage, JobFilter, JobPage, JobRecord, UsageFilter,
};
use onelane_actors::testing::MemoryStore;
use onelane_core::model::{
    AlertBook, AttemptNo, Billing, BreakerSnapshot, BreakerState, BudgetStatus, CallRecord,
    Delivery, DeliveryId, HoldScope, JobId, JobStatus, Settings, Timestamp, UsageRow,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::sample;
use crate::api::lane::{Answer, Lane};
use crate::config::{Config, Loaded, PolicyRow, Prices};
use crate::error::Error;
use crate::estimate::{self, JobEstimate};
use crate::export::{Export, Part};
use crate::orchestrator::{
    DeadLetters, EndpointDetail, JobDetail, LaneStatus, Metrics, Selection, Submission, Submitted,
};
use crate::statistics::{StatisticsQuery, StatisticsRow, summarise};

/// What tests set and see.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) jobs: Vec<JobRecord>,
    pub(super) calls: Vec<CallRecord>,
    /// What is exported.
    pub(super) store: MemoryStore,
    pub(super) usage: Vec<UsageRow>,
    pub(super) usage_filter: Option<UsageFilter>,
    pub(super) page: Option<(JobFilter, Option<u64>, usize)>,
    pub(super) pause: Option<Option<String>>,
    pub(super) drain: Option<Option<String>>,
    pub(super) resumed: bool,
    pub(super) breaker: BreakerSnapshot,
    pub(super) holds: Vec<(HoldScope, onelane_core::model::Hold)>,
    /// Changes of many jobs: which verb, which jobs, whether dry.
    pub(super) bulks: Vec<(String, Selection, bool)>,
    pub(super) call_filter: Option<CallFilter>,
    pub(super) settled: Vec<(JobId, AttemptNo, Billing)>,
    /// Who waits for a job's end.
    pub(super) waiters: usize,
    pub(super) alerts: AlertBook,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) redelivered: Vec<DeliveryId>,
    pub(super) redelivered_all: Option<(DeliveryFilter, bool)>,
    pub(super) endpoints: Vec<EndpointDetail>,
    /// What the next submissions get, last first.
    pub(super) refusals: Vec<Error>,
}

#[derive(Debug, Clone)]
pub(super) struct FakeLane {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<()>>,
}

impl Default for FakeLane {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            changed: Arc::new(watch::Sender::new(())),
        }
    }
}

impl FakeLane {
    /// Looks at or changes the state; whoever waits looks again.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let out = f(&mut self.lock());
        self.changed.send_replace(());
        out
    }

    /// Resolves once `seen` holds.
    pub(super) async fn until(&self, seen: impl Fn(&State) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = changed.wait_for(|()| seen(&self.lock()));
        let waited = tokio::time::timeout(Duration::from_secs(10), wait).await;
        waited.expect("within ten seconds").unwrap();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn find(&self, id: JobId) -> Result<JobRecord, Error> {
        let state = self.lock();
        let found = state.jobs.iter().find(|record| record.job.id == id);
        found.cloned().ok_or(Error::NotFound(id))
    }

    fn insert(&self, submission: Submission) -> Result<Submitted, Error> {
        self.with(|state| {
            if let Some(error) = state.refusals.pop() {
                return Err(error);
            }
            let key = submission.idempotency_key;
            let known = state
                .jobs
                .iter()
                .find(|record| key.is_some() && record.job.idempotency_key == key);
            if let Some(record) = known {
                return Ok(Submitted {
                    job_id: record.job.id,
                    created: false,
                });
            }
            let mut record = sample::waiting(state.jobs.len() as u64 + 1);
            record.request = Some(Arc::new(submission.request));
            record.job.user_id = submission.user_id;
            record.job.priority = submission.priority;
            record.job.idempotency_key = key;
            record.job.after = submission.after;
            let job_id = record.job.id;
            state.jobs.push(record);
            Ok(Submitted {
                job_id,
                created: true,
            })
        })
    }

    fn bulk(&self, verb: impl Into<String>, jobs: Selection, dry_run: bool) -> Result<u64, Error> {
        let bulk = (verb.into(), jobs, dry_run);
        self.with(|state| state.bulks.push(bulk));
        Ok(3)
    }

    fn end(&self, id: JobId, from: &[JobStatus], to: JobStatus) -> Result<(), Error> {
        self.find(id)?;
        self.with(|state| {
            let found = state.jobs.iter_mut().find(|record| record.job.id == id);
            let job = &mut found.unwrap().job;
            if !from.contains(&job.status) {
                return Err(Error::WrongStatus {
                    job_id: id,
                    status: job.status,
                    allowed: "try another",
                });
            }
            job.status = to;
            Ok(())
        })
    }
}

/// The configuration of somebody who says nothing.
fn loaded() -> Loaded {
    Loaded::from_config(&Config::default()).unwrap()
}

fn now<'a, T: Send + 'a>(value: Result<T, Error>) -> Answer<'a, T> {
    Box::pin(ready(value))
}

impl Lane for FakeLane {
    fn submit(&self, submission: Submission) -> Answer<'_, Submitted> {
        now(self.insert(submission))
    }

    fn submit_many(
        &self,
        submissions: Vec<Submission>,
    ) -> Answer<'_, Vec<Result<Submitted, Error>>> {
        now(Ok(submissions
            .into_iter()
            .map(|s| self.insert(s))
            .collect()))
    }

    fn estimate_many(
        &self,
        submissions: Vec<Submission>,
    ) -> Answer<'_, Vec<Result<JobEstimate, Error>>> {
        let settings = loaded().settings;
        let estimate = |job| estimate::of(job, &settings).map_err(Error::from);
        now(Ok(submissions.iter().map(estimate).collect()))
    }

    fn wait(&self, id: JobId) -> Answer<'_, JobRecord> {
        Box::pin(async move {
            let mut changed = self.changed.subscribe();
            self.with(|state| state.waiters += 1);
            loop {
                let record = self.find(id)?;
                if record.job.status.is_terminal() {
                    return Ok(record);
                }
                changed.changed().await.unwrap();
            }
        })
    }

    fn wait_for(&self, id: JobId, limit: Duration) -> Answer<'_, JobRecord> {
        Box::pin(async move {
            let waited = tokio::time::timeout(limit, self.wait(id)).await;
            waited.unwrap_or(Err(Error::WaitTimeout(id)))
        })
    }

    fn job(&self, id: JobId) -> Answer<'_, JobDetail> {
        let attempts = self.lock().calls.clone();
        now(self.find(id).map(|record| JobDetail {
            waiting_for: None,
            record,
            attempts: attempts.into_iter().filter(|c| c.job_id == id).collect(),
        }))
    }

    fn jobs(&self, filter: JobFilter, cursor: Option<u64>, limit: usize) -> Answer<'_, JobPage> {
        now(Ok(self.with(|state| {
            state.page = Some((filter, cursor, limit));
            JobPage {
                jobs: state.jobs.clone(),
                total: 18,
                cursor: Some(u64::MAX),
            }
        })))
    }

    fn dead_letters(
        &self,
        filter: JobFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Answer<'_, DeadLetters> {
        now(Ok(self.with(|state| {
            state.page = Some((filter, cursor, limit));
            let calls = &state.calls;
            let letter = |record: &JobRecord| JobDetail {
                waiting_for: None,
                record: record.clone(),
                attempts: calls
                    .iter()
                    .filter(|call| call.job_id == record.job.id)
                    .cloned()
                    .collect(),
            };
            DeadLetters {
                letters: state.jobs.iter().map(letter).collect(),
                total: 7,
                cursor: Some(5),
            }
        })))
    }

    fn calls(&self, filter: CallFilter, _: Option<u64>, _: usize) -> Answer<'_, CallPage> {
        now(Ok(self.with(|state| {
            state.call_filter = Some(filter);
            CallPage {
                calls: state.calls.clone(),
                cursor: Some(9),
            }
        })))
    }

    fn retry_all(&self, jobs: Selection, dry_run: bool) -> Answer<'_, u64> {
        now(self.bulk("retry", jobs, dry_run))
    }

    fn cancel_all(&self, jobs: Selection, dry_run: bool) -> Answer<'_, u64> {
        now(self.bulk("cancel", jobs, dry_run))
    }

    fn reprioritise_all(&self, jobs: Selection, priority: i32, dry_run: bool) -> Answer<'_, u64> {
        now(self.bulk(format!("reprioritise {priority}"), jobs, dry_run))
    }

    fn settle_billing(
        &self,
        job_id: JobId,
        attempt: AttemptNo,
        billing: Billing,
    ) -> Answer<'_, Billing> {
        now(self.with(|state| {
            if state
                .settled
                .iter()
                .any(|(id, no, _)| (*id, *no) == (job_id, attempt))
            {
                return Err(Error::BillingSettled { job_id, attempt });
            }
            state.settled.push((job_id, attempt, billing.clone()));
            Ok(billing)
        }))
    }

    fn cancel(&self, id: JobId) -> Answer<'_, ()> {
        let from = [JobStatus::Pending, JobStatus::Processing];
        now(self.end(id, &from, JobStatus::Cancelled))
    }

    fn retry(&self, id: JobId) -> Answer<'_, ()> {
        let from = [JobStatus::Failed, JobStatus::Cancelled];
        now(self.end(id, &from, JobStatus::Pending))
    }

    fn reprioritise(&self, id: JobId, priority: i32) -> Answer<'_, ()> {
        let pending = self.end(id, &[JobStatus::Pending], JobStatus::Pending);
        now(pending.map(|()| {
            self.with(|state| {
                let found = state.jobs.iter_mut().find(|record| record.job.id == id);
                found.unwrap().job.priority = priority;
            });
        }))
    }

    fn statistics(&self, query: StatisticsQuery) -> Answer<'_, Vec<StatisticsRow>> {
        now(Ok(self.with(|state| {
            let rows = summarise(&state.usage, &query);
            state.usage_filter = Some(query.filter);
            rows
        })))
    }

    fn export_part(&self, mut export: Export) -> Answer<'_, Option<(Part, Export)>> {
        let part = self.with(|state| export.next(&state.store));
        now(part
            .map(|part| part.map(|part| (part, export)))
            .map_err(Error::from))
    }

    fn metrics(&self) -> Answer<'_, Metrics> {
        now(Ok(Metrics {
            recent_calls: self.lock().calls.clone(),
            ..sample::metrics()
        }))
    }

    fn alerts(&self) -> AlertBook {
        self.lock().alerts.clone()
    }

    fn deliveries(
        &self,
        filter: DeliveryFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Answer<'_, DeliveryPage> {
        let mut deliveries = self.lock().deliveries.clone();
        deliveries.retain(|delivery| filter.matches(delivery));
        let cursor = cursor.map(|cursor| cursor + limit as u64);
        now(Ok(DeliveryPage { deliveries, cursor }))
    }

    fn redeliver(&self, id: DeliveryId) -> Answer<'_, ()> {
        now(self.with(|state| {
            let known = state.deliveries.iter().any(|delivery| delivery.id == id);
            state.redelivered.push(id);
            known.then_some(()).ok_or(Error::NoSuchDelivery(id))
        }))
    }

    fn webhook_endpoints(&self) -> Answer<'_, Vec<EndpointDetail>> {
        now(Ok(self.lock().endpoints.clone()))
    }

    fn redeliver_all(&self, filter: DeliveryFilter, dry_run: bool) -> Answer<'_, u64> {
        now(self.with(|state| {
            let count = state
                .deliveries
                .iter()
                .filter(|row| filter.matches(row))
                .count();
            state.redelivered_all = Some((filter, dry_run));
            Ok(count as u64)
        }))
    }

    fn test_webhooks(&self, endpoint: Option<String>) -> Answer<'_, Vec<DeliveryId>> {
        now(match endpoint {
            Some(name) if name != "ops" => Err(Error::NoSuchEndpoint(name)),
            _ => Ok(vec![DeliveryId(9)]),
        })
    }

    fn pause(&self, reason: Option<String>) -> Answer<'_, ()> {
        self.with(|state| state.pause = Some(reason));
        now(Ok(()))
    }

    fn close_intake(&self, reason: Option<String>) -> Answer<'_, ()> {
        self.with(|state| state.drain = Some(reason));
        now(Ok(()))
    }

    fn lane(&self) -> Answer<'_, LaneStatus> {
        now(Ok(LaneStatus {
            holds: self.lock().holds.clone(),
            ..sample::metrics().lane
        }))
    }

    fn budgets(&self) -> Answer<'_, Vec<BudgetStatus>> {
        now(Ok(Vec::new()))
    }

    fn release_hold(&self, scope: HoldScope) -> Answer<'_, ()> {
        now(self.with(|state| {
            let before = state.holds.len();
            state.holds.retain(|(held, _)| *held != scope);
            if state.holds.len() == before {
                return Err(Error::NoSuchHold(scope));
            }
            Ok(())
        }))
    }

    fn breaker(&self) -> BreakerSnapshot {
        self.lock().breaker.clone()
    }

    fn breaker_reset(&self) -> Answer<'_, BreakerSnapshot> {
        now(Ok(self.with(|state| {
            state.breaker = BreakerSnapshot::default();
            state.breaker.clone()
        })))
    }

    fn breaker_open(
        &self,
        reason: String,
        until: Option<Timestamp>,
    ) -> Answer<'_, BreakerSnapshot> {
        now(Ok(self.with(|state| {
            state.breaker = BreakerSnapshot {
                state: BreakerState::Open,
                since: sample::NOW,
                probe_at: until,
                reason: Some(reason),
                forced: true,
                ..BreakerSnapshot::default()
            };
            state.breaker.clone()
        })))
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::default()
    }

    fn resume(&self) -> Answer<'_, ()> {
        self.with(|state| state.resumed = true);
        now(Ok(()))
    }

    fn config_view(&self) -> Value {
        json!({"model": "glm-4.7", "apiKey": "****cret"})
    }

    fn policy(&self) -> Vec<PolicyRow> {
        loaded().policy()
    }

    fn prices(&self) -> Prices {
        loaded().prices()
    }

    fn set_config<'a>(&'a self, patch: &'a Value) -> Answer<'a, Value> {
        now(match patch.get("model") {
            Some(Value::String(model)) => Ok(json!({"model": model, "apiKey": "****cret"})),
            _ => Err(Error::Invalid {
                field: "model".to_owned(),
                problem: "must be a string".to_owned(),
            }),
        })
    }
}
