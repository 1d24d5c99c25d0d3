//! What a store tells: whole jobs, pages of lists, counts, and what the lane starts from.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AnswerBody, BreakerSnapshot, CallRecord, Day, Delivery, Job, JobId, JobStatus, Next, Received,
    Request, SchedulerState, Seq, Settlement, StoreError, UsageRow, WaitingJobs,
};

/// What a store holds when the lane starts on it.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Pending jobs without an open attempt, dormant ones included.
    pub waiting: WaitingJobs,
    /// The process that looks: what is bound to another one is given up. No store says it.
    pub instance: Option<u64>,
    /// Jobs with an open attempt, whole, in the order of their sequence.
    pub open: Vec<Job>,
    /// The lane's state.
    pub lane: SchedulerState,
    /// The breaker's state.
    pub breaker: Option<BreakerSnapshot>,
    /// The jobs whose staged attempts may have been sent ([`Transition::Release`](super::Transition::Release)).
    pub released: Vec<JobId>,
}

/// A job whole: what was asked and what came of it.
#[derive(Debug, Clone)]
pub struct JobRecord {
    /// The job.
    pub job: Job,
    /// What it asks for; `None` once it was pruned.
    pub request: Option<Arc<Request>>,
    /// GLM's answer, verbatim, once it is completed and until it is pruned.
    pub response: Option<AnswerBody>,
    /// What GLM sent instead of an answer, once it failed with that and until it is pruned.
    pub refusal: Option<Arc<Received>>,
}

impl JobRecord {
    /// Bytes of its request and its response.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        let request = self.request.as_ref().map_or(0, |request| request.len());
        let response = self.response.as_ref().map_or(0, AnswerBody::len);
        let refusal = self.refusal.as_ref().map_or(0, |came| came.bytes().len());
        request + response + refusal
    }
}

/// How a job ended with its last call: all that who waits for its answer is told. What it asked for, he knows.
#[derive(Debug, Clone)]
pub struct Ending {
    /// The job.
    pub job: Job,
    /// GLM's answer, verbatim, if it is completed.
    pub response: Option<AnswerBody>,
    /// What GLM sent instead of an answer.
    pub refusal: Option<Arc<Received>>,
    /// Its last call, if it had one.
    pub call: Option<CallRecord>,
}

impl Ending {
    /// The job as the end of its attempt leaves it. `None`: it does not end with that.
    #[must_use]
    pub fn of(job: &Job, settlement: &Settlement) -> Option<Self> {
        let response = match &settlement.next {
            Next::Completed { response } => Some(response.clone()),
            Next::Failed { .. } | Next::Cancelled => None,
            Next::Retry { .. } | Next::Parked { .. } => return None,
        };
        Some(Self {
            job: job.clone(),
            response,
            refusal: settlement.refusal.clone(),
            call: Some(settlement.call.clone()),
        })
    }
}

impl From<JobRecord> for Ending {
    fn from(record: JobRecord) -> Self {
        Self {
            job: record.job,
            response: record.response,
            refusal: record.refusal,
            call: None,
        }
    }
}

/// One page of a list of jobs, newest first.
#[derive(Debug, Clone, Default)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<JobRecord>,
    /// How many match in all, not only on this page.
    pub total: u64,
    /// Where the next page begins; `None` on the last.
    pub cursor: Option<u64>,
}

/// The jobs of a list as places in line, newest first: what a change of many needs of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    /// The places, each with its job.
    pub places: Vec<(Seq, JobId)>,
    /// Where to go on; `None` after the last.
    pub cursor: Option<u64>,
}

/// One page of the call log, newest first.
#[derive(Debug, Clone, Default)]
pub struct CallPage {
    /// The rows.
    pub calls: Vec<CallRecord>,
    /// Where the next page begins; `None` on the last.
    pub cursor: Option<u64>,
}

/// A part of the rows of a kind, newest first, without those that can't be read: for whoever saves what
/// there is.
#[derive(Debug, Clone)]
pub struct Salvage<T, E = StoreError> {
    /// The rows.
    pub rows: Vec<T>,
    /// What is wrong with those between them that can't be read.
    pub unreadable: Vec<E>,
    /// Where the next part begins; `None` after the last.
    pub cursor: Option<u64>,
}

impl<T, E> Default for Salvage<T, E> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            unreadable: Vec::new(),
            cursor: None,
        }
    }
}

/// The usage of one day.
#[derive(Debug, Clone, Default)]
pub struct UsageDay {
    /// The rows, ordered by model and user.
    pub rows: Vec<UsageRow>,
    /// What is wrong with those that can't be read.
    pub unreadable: Vec<StoreError>,
    /// Where to go on; `None` when no later day has a row.
    pub next: Option<Day>,
}

/// How many jobs there are of each status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct StatusCounts {
    /// Waiting.
    pub pending: u64,
    /// In flight.
    pub processing: u64,
    /// Done.
    pub completed: u64,
    /// Dead letters.
    pub failed: u64,
    /// Cancelled.
    pub cancelled: u64,
}

impl StatusCounts {
    /// The count of one status.
    #[must_use]
    pub const fn of(&self, status: JobStatus) -> u64 {
        match status {
            JobStatus::Pending => self.pending,
            JobStatus::Processing => self.processing,
            JobStatus::Completed => self.completed,
            JobStatus::Failed => self.failed,
            JobStatus::Cancelled => self.cancelled,
        }
    }

    /// The count of one status, to change it.
    pub const fn of_mut(&mut self, status: JobStatus) -> &mut u64 {
        match status {
            JobStatus::Pending => &mut self.pending,
            JobStatus::Processing => &mut self.processing,
            JobStatus::Completed => &mut self.completed,
            JobStatus::Failed => &mut self.failed,
            JobStatus::Cancelled => &mut self.cancelled,
        }
    }

    /// Counts a job that left one status (`None`: it is new) for another.
    pub const fn moved(&mut self, from: Option<JobStatus>, to: JobStatus) {
        if let Some(from) = from {
            let count = self.of_mut(from);
            *count = count.saturating_sub(1);
        }
        *self.of_mut(to) += 1;
    }

    /// Uncounts a job that is gone.
    pub const fn removed(&mut self, from: JobStatus) {
        let count = self.of_mut(from);
        *count = count.saturating_sub(1);
    }

    /// All jobs.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.pending + self.processing + self.completed + self.failed + self.cancelled
    }
}

/// One page of deliveries, newest first.
#[derive(Debug, Clone, Default)]
pub struct DeliveryPage {
    /// The deliveries.
    pub deliveries: Vec<Delivery>,
    /// Where the next page begins; `None` on the last.
    pub cursor: Option<u64>,
}
