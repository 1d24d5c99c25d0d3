//! One slot of the lane: who may send, and what is under way. A slot's credit comes from its
//! caller's `Ready` and is spent on exactly one run.

use std::sync::Arc;

use crate::model::{AttemptNo, Dispatch, JobEntry, JobId, Timestamp};
use crate::queue::Place;

/// What a slot is doing.
#[derive(Debug, Clone)]
pub enum Slot {
    /// Its caller has not announced itself to this generation: a call may be open.
    Unknown,
    /// Its caller is ready: the slot holds one credit.
    Idle,
    /// The credit is promised to a job whose start is being put on disk.
    Starting {
        /// The job.
        entry: JobEntry,
        /// Where it goes and since when.
        sending: Sending,
        /// The commit that is waited for.
        ticket: u64,
        /// Whether the job was cancelled meanwhile.
        cancelled: bool,
    },
    /// The credit is spent: the caller has the job.
    Busy {
        /// The job, with its open attempt.
        dispatch: Arc<Dispatch>,
        /// Where it went and when.
        sending: Sending,
        /// Whether the job was cancelled meanwhile.
        cancelled: bool,
    },
}

/// What is known of a call from the decision to send it.
#[derive(Debug, Clone)]
pub struct Sending {
    /// The model it is sent to: the job's own or a fallback.
    pub model: Arc<str>,
    /// When that was decided.
    pub at: Timestamp,
}

impl Slot {
    /// Whether a call is open on it, may be, or is about to be.
    #[must_use]
    pub const fn is_taken(&self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Busy { .. })
    }

    /// The model that its call goes to.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        match self {
            Self::Unknown | Self::Idle => None,
            Self::Starting { sending, .. } | Self::Busy { sending, .. } => Some(&sending.model),
        }
    }

    /// The job that it has.
    #[must_use]
    pub fn job_id(&self) -> Option<JobId> {
        match self {
            Self::Unknown | Self::Idle => None,
            Self::Starting { entry, .. } => Some(entry.id),
            Self::Busy { dispatch, .. } => Some(dispatch.job.id),
        }
    }
}

/// The number of the open attempt of a dispatched job; 0 if the store left it out.
#[must_use]
pub fn attempt_of(dispatch: &Dispatch) -> AttemptNo {
    dispatch.job.open.map_or(AttemptNo(0), |open| open.no)
}

/// A job whose next attempt is on record ahead of the slot, or about to be.
#[derive(Debug, Clone)]
pub struct Staged {
    /// The job.
    pub entry: JobEntry,
    /// Its place in the order of dispatch when it was taken.
    pub place: Place,
    /// The commit that puts it on record.
    pub ticket: u64,
    /// What the call needs, once the commit has been answered.
    pub dispatch: Option<Arc<Dispatch>>,
}

/// The staged jobs, most urgent first, and how many there should be.
#[derive(Debug)]
pub struct Stage {
    jobs: Vec<Staged>,
    depth: usize,
    depth_max: usize,
    calm: u32,
}

/// Runs without a stall after which the stage becomes shallower by one: every staged job is one
/// more that a crash leaves in doubt.
const CALM_RUNS: u32 = 256;

impl Stage {
    /// An empty one that never gets deeper than `depth_max` a slot.
    #[must_use]
    pub const fn new(depth_max: usize) -> Self {
        Self {
            jobs: Vec::new(),
            depth: 1,
            depth_max,
            calm: 0,
        }
    }

    /// How many jobs a slot should have staged.
    #[must_use]
    pub const fn depth(&self) -> usize {
        self.depth
    }

    /// A slot had to wait for the disk although work was there: commits take longer than calls.
    pub fn stalled(&mut self) {
        self.depth = (self.depth * 2).min(self.depth_max);
        self.calm = 0;
    }

    /// A slot went on without waiting.
    pub fn ran(&mut self) {
        self.calm += 1;
        if self.calm >= CALM_RUNS {
            self.calm = 0;
            self.depth = (self.depth - 1).max(1);
        }
    }

    /// Since when the oldest of them could have run.
    #[must_use]
    pub fn oldest(&self) -> Option<Timestamp> {
        self.jobs.iter().map(|staged| staged.entry.since).min()
    }

    /// How many are staged.
    #[must_use]
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The most urgent one.
    #[must_use]
    pub fn first(&self) -> Option<&Staged> {
        self.jobs.first()
    }

    /// The least urgent one.
    #[must_use]
    pub fn last(&self) -> Option<&Staged> {
        self.jobs.last()
    }

    /// Puts one in its place.
    pub fn insert(&mut self, staged: Staged) {
        let at = self
            .jobs
            .partition_point(|other| other.place <= staged.place);
        self.jobs.insert(at, staged);
    }

    /// Puts one back before all others: it was the first.
    pub fn put_first(&mut self, staged: Staged) {
        self.jobs.insert(0, staged);
    }

    /// Takes the most urgent one.
    pub fn take_first(&mut self) -> Option<Staged> {
        (!self.jobs.is_empty()).then(|| self.jobs.remove(0))
    }

    /// Takes the least urgent one.
    pub fn take_last(&mut self) -> Option<Staged> {
        self.jobs.pop()
    }

    /// Takes the one of a job.
    pub fn take(&mut self, id: JobId) -> Option<Staged> {
        let at = self.jobs.iter().position(|staged| staged.entry.id == id)?;
        Some(self.jobs.remove(at))
    }

    /// Whether the job is staged.
    #[must_use]
    pub fn contains(&self, id: JobId) -> bool {
        self.jobs.iter().any(|staged| staged.entry.id == id)
    }

    /// All of them, the most urgent first.
    pub fn iter(&self) -> impl Iterator<Item = &Staged> {
        self.jobs.iter()
    }

    /// Takes those that `leaves` says.
    pub fn take_where(&mut self, leaves: impl Fn(&JobEntry) -> bool) -> Vec<Staged> {
        self.jobs
            .extract_if(.., |staged| leaves(&staged.entry))
            .collect()
    }

    /// Takes those whose deadline has passed.
    pub fn expire(&mut self, now: Timestamp) -> Vec<JobEntry> {
        self.jobs
            .extract_if(.., |staged| {
                staged
                    .entry
                    .deadline
                    .is_some_and(|deadline| deadline <= now)
            })
            .map(|staged| staged.entry)
            .collect()
    }

    /// When the first deadline of them passes.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.jobs.iter().filter_map(|s| s.entry.deadline).min()
    }

    /// The one of a job, to change it.
    pub fn get_mut(&mut self, id: JobId) -> Option<&mut Staged> {
        self.jobs.iter_mut().find(|staged| staged.entry.id == id)
    }
}
