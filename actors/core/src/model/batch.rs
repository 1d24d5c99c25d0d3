//! A batch: jobs that belong together, such as the lines of a file. It counts its jobs by status in the
//! transaction that changes them, so that its state is never a guess.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::id::numbered_id;
use super::{CallRecord, Cost, JobStatus, Moments, StatusCounts, Timestamp, private_or_default};

numbered_id! {
    /// A batch's id, `batch_` and sixteen hexadecimal digits.
    BatchId of "a batch": "batch_", "batch", NoBatchId
}

impl BatchId {
    /// The id of the batch with this name: the same name, the same batch.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"onelane batch\0");
        hash.update(name.as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let (first, _) = digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
        Self::new(u64::from_be_bytes(*first))
    }
}

/// How far a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BatchState {
    /// More jobs may come.
    Open,
    /// No more jobs come; some wait or run.
    Running,
    /// Every job has ended.
    Completed,
    /// Somebody gave it up, and every job has ended.
    Cancelled,
}

impl BatchState {
    /// The name used in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Jobs that belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Batch {
    /// Its id.
    pub id: BatchId,
    /// What its submitter calls it; of a file its path.
    pub name: String,
    /// How far it is.
    pub state: BatchState,
    /// Its jobs by status, those left out that were pruned.
    pub counts: StatusCounts,
    /// Its jobs that were pruned.
    #[serde(default)]
    pub pruned: u64,
    /// What its calls came to, by currency.
    #[serde(default)]
    pub costs: Vec<Cost>,
    /// Calls whose cost is not known: not nothing.
    #[serde(default)]
    pub unpriced_calls: u64,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When its last job ended; `None` while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// When somebody gave it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_at: Option<Timestamp>,
    /// No more jobs come.
    #[serde(default)]
    pub closed: bool,
    /// What its calls tell of those to come.
    #[serde(default, skip_serializing_if = "private_or_default")]
    #[schemars(skip)]
    pub learnt: Learnt,
}

/// What forecasts of a batch are made from: its calls that have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Learnt {
    /// What each cost, in billionths.
    pub costs: Moments,
    /// How long each took, in milliseconds.
    pub times: Moments,
}

impl Learnt {
    fn of(call: &CallRecord) -> Self {
        let mut learnt = Self::default();
        learnt.times.record(call.response_time_ms);
        let billed = call.billing.as_ref().and_then(|billing| billing.cost);
        if let Some(cost) = call.cost.or(billed) {
            learnt.costs.record(u64::try_from(cost.nanos).unwrap_or(0));
        }
        learnt
    }
}

impl Batch {
    /// A batch that waits for its jobs.
    #[must_use]
    pub fn new(id: BatchId, name: impl Into<String>, created_at: Timestamp) -> Self {
        Self {
            id,
            name: name.into(),
            state: BatchState::Open,
            counts: StatusCounts::default(),
            pruned: 0,
            costs: Vec::new(),
            unpriced_calls: 0,
            created_at,
            finished_at: None,
            cancelled_at: None,
            closed: false,
            learnt: Learnt::default(),
        }
    }

    /// Its jobs whose calls brought them to an end, whether they are still there or not.
    #[must_use]
    pub const fn worked_off(&self) -> u64 {
        self.counts.completed + self.counts.failed + self.pruned
    }

    /// Its jobs that wait or run.
    #[must_use]
    pub const fn unfinished(&self) -> u64 {
        self.counts.pending + self.counts.processing
    }

    /// Whether nothing of it is left: no job in the store, and none to come.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.closed && self.counts == StatusCounts::default()
    }

    /// More jobs may come, perhaps once more.
    pub fn open(&mut self, at: Timestamp) {
        self.closed = false;
        self.cancelled_at = None;
        self.follow(at);
    }

    /// No more jobs come.
    pub fn close(&mut self, at: Timestamp) {
        self.closed = true;
        self.follow(at);
    }

    /// Somebody gives it up.
    pub fn cancel(&mut self, at: Timestamp) {
        self.cancelled_at.get_or_insert(at);
        self.close(at);
    }

    /// A job moved from one status (`None`: it is new here) to another (`None`: it is here no more).
    pub fn moved(&mut self, from: Option<JobStatus>, to: Option<JobStatus>, at: Timestamp) {
        if let Some(from) = from {
            self.counts.removed(from);
        }
        if let Some(to) = to {
            self.counts.moved(None, to);
            if !to.is_terminal() && from.is_none_or(JobStatus::is_terminal) {
                self.cancelled_at = None;
            }
        }
        self.follow(at);
    }

    /// A job was pruned.
    pub fn job_pruned(&mut self, status: JobStatus) {
        self.counts.removed(status);
        self.pruned += 1;
    }

    /// A call was made for one of its jobs, or came with it.
    pub fn called(&mut self, call: &CallRecord) {
        self.spent(call.cost);
        self.spent(call.billing.as_ref().and_then(|billing| billing.cost));
        self.unpriced_calls += u64::from(call.is_unpriced());
        let learnt = Learnt::of(call);
        self.learnt.costs.merge(&learnt.costs);
        self.learnt.times.merge(&learnt.times);
    }

    /// A call's job went to another batch, and its cost with it.
    pub fn call_left(&mut self, call: &CallRecord) {
        for cost in [call.cost, call.billing.as_ref().and_then(|b| b.cost)] {
            let Some(cost) = cost else { continue };
            if let Some(sum) = self.costs.iter_mut().find(|c| c.currency == cost.currency) {
                sum.nanos = sum.nanos.saturating_sub(cost.nanos);
            }
        }
        self.costs.retain(|sum| sum.nanos != 0);
        let unpriced = u64::from(call.is_unpriced());
        self.unpriced_calls = self.unpriced_calls.saturating_sub(unpriced);
        let learnt = Learnt::of(call);
        self.learnt.costs.remove(&learnt.costs);
        self.learnt.times.remove(&learnt.times);
    }

    /// The last job of another batch came here: what that batch still has of jobs and calls that were pruned comes
    /// with it.
    pub fn succeeds(&mut self, other: &Self) {
        for cost in &other.costs {
            self.spent(Some(*cost));
        }
        self.unpriced_calls += other.unpriced_calls;
        self.pruned += other.pruned;
        self.learnt.costs.merge(&other.learnt.costs);
        self.learnt.times.merge(&other.learnt.times);
    }

    /// So much was spent.
    pub fn spent(&mut self, cost: Option<Cost>) {
        let Some(cost) = cost else { return };
        match self.costs.iter_mut().find(|c| c.currency == cost.currency) {
            Some(sum) => sum.nanos = sum.nanos.saturating_add(cost.nanos),
            None => self.costs.push(cost),
        }
    }

    /// Its state follows from its counts.
    fn follow(&mut self, at: Timestamp) {
        self.state = match (self.closed, self.unfinished(), self.cancelled_at) {
            (false, _, _) => BatchState::Open,
            (true, 0, Some(_)) => BatchState::Cancelled,
            (true, 0, None) => BatchState::Completed,
            (true, ..) => BatchState::Running,
        };
        if matches!(self.state, BatchState::Completed | BatchState::Cancelled) {
            self.finished_at.get_or_insert(at);
        } else {
            self.finished_at = None;
        }
    }
}

/// A change of a batch itself; its jobs change it by their own changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchStep {
    /// No more jobs come.
    Close,
    /// Somebody gives it up. Its jobs are cancelled each.
    Cancel,
}

/// Which jobs a lane runs; the others wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// All.
    #[default]
    All,
    /// Those of one batch.
    Batch(BatchId),
    /// None yet.
    Nothing,
}

impl Scope {
    /// The one batch that runs, if it is one.
    #[must_use]
    pub const fn batch(self) -> Option<BatchId> {
        match self {
            Self::Batch(id) => Some(id),
            Self::All | Self::Nothing => None,
        }
    }

    /// Whether a job of this batch, or of none, runs.
    #[must_use]
    pub fn has(self, batch: Option<BatchId>) -> bool {
        match self {
            Self::All => true,
            Self::Batch(id) => batch == Some(id),
            Self::Nothing => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample::START;

    #[test]
    fn an_id_reads_back_as_it_was_written_and_follows_from_the_name() {
        let id = BatchId::named("/a/prompts.jsonl");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id, BatchId::named("/a/prompts.jsonl"));
        assert_ne!(id, BatchId::named("/b/prompts.jsonl"));
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<BatchId>(&json).unwrap(), id);
        for bad in ["", "batch_", "batch_0", "batch_0000000000000000", "job_1"] {
            assert!(bad.parse::<BatchId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_batch_is_completed_when_no_more_jobs_come_and_all_have_ended() {
        let at = |ms| START.plus_ms(ms);
        let (pending, done) = (JobStatus::Pending, JobStatus::Completed);
        let mut batch = Batch::new(BatchId::new(1), "b", START);
        batch.moved(None, Some(pending), at(1));
        batch.moved(Some(pending), Some(done), at(2));
        assert_eq!((batch.state, batch.finished_at), (BatchState::Open, None));
        batch.close(at(3));
        assert_eq!(batch.state, BatchState::Completed);
        assert_eq!(batch.finished_at, Some(at(3)));
        batch.open(at(4));
        batch.moved(None, Some(pending), at(4));
        batch.cancel(at(5));
        assert_eq!(
            (batch.state, batch.finished_at),
            (BatchState::Running, None)
        );
        batch.moved(Some(pending), Some(JobStatus::Cancelled), at(6));
        assert_eq!(batch.state, BatchState::Cancelled);
        assert_eq!(batch.finished_at, Some(at(6)));
        batch.moved(Some(JobStatus::Cancelled), Some(pending), at(7));
        batch.moved(Some(pending), Some(done), at(8));
        assert_eq!(batch.state, BatchState::Completed, "it was taken up again");
    }

    #[test]
    fn a_batch_is_over_when_its_last_job_is_pruned() {
        let mut batch = Batch::new(BatchId::new(1), "b", START);
        assert!(!batch.is_over(), "its jobs are still to come");
        batch.moved(None, Some(JobStatus::Completed), START);
        batch.close(START);
        batch.job_pruned(JobStatus::Completed);
        assert!(batch.is_over());
        assert_eq!(batch.pruned, 1);
    }
}
