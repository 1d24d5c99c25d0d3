//! A step of a pruning: what is to go, and what went.

use super::{Job, JobId, JobStatus, Seq, Timestamp};

/// One step of a pruning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prune {
    /// Which rows of the call log go.
    pub calls: Cutoff,
    /// Which completed and cancelled jobs go.
    pub jobs: Cutoff,
    /// Which failed jobs go.
    pub failed: Cutoff,
    /// Requests and responses of completed and cancelled jobs that ended before this moment go.
    pub bodies_before: Option<Timestamp>,
    /// How many rows it looks at, at most.
    pub rows_max: usize,
    /// It ends with the job whose request and response bring what it removed of them to so many bytes.
    pub bytes_max: u64,
    /// Where it goes on.
    pub from: PruneCursor,
}

/// Which rows of a kind go: the oldest, by age or by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cutoff {
    /// Those that ended before this moment.
    pub before: Option<Timestamp>,
    /// The oldest of more than so many, unless they ended between `settled` and `now`.
    pub most: Option<u64>,
    /// What ended from here to `now` is not counted out: somebody may be about to read it.
    pub settled: Timestamp,
    /// What ended after this moment ended by a clock that was ahead.
    pub now: Timestamp,
}

/// How far a pruning has looked: rows up to here are gone or stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PruneCursor {
    pub(crate) part: Part,
    /// The last finished job of this part.
    pub(crate) job: Option<Finished>,
    /// The last place of the call log.
    pub(crate) call: u64,
    /// Rows of this part that were passed over because nothing can be said of them.
    pub(crate) stays: u64,
}

/// What a pruning goes through, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Part {
    #[default]
    Done,
    Failed,
    Bodies,
    BodiesInDoubt,
    Calls,
}

impl Part {
    pub(crate) const fn next(self) -> Option<Self> {
        match self {
            Self::Done => Some(Self::Failed),
            Self::Failed => Some(Self::Bodies),
            Self::Bodies => Some(Self::BodiesInDoubt),
            Self::BodiesInDoubt => Some(Self::Calls),
            Self::Calls => None,
        }
    }
}

/// Where retention looks for the finished jobs of which something may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FinishedKind {
    /// Completed and cancelled.
    Done,
    /// Failed: dead letters, which are kept as long as somebody may want to retry them.
    Failed,
    /// Completed and cancelled, but maybe billed without anybody knowing: the job stays, its request and
    /// response need not.
    InDoubt,
}

impl FinishedKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Done, Self::Failed, Self::InDoubt];

    /// Where a job stands; `None`: nothing of it may go.
    #[must_use]
    pub const fn of(job: &Job, bonds: Bonds) -> Option<Self> {
        match (job.status, bonds) {
            (JobStatus::Pending | JobStatus::Processing, _) => None,
            (_, Bonds { notices: true, .. }) => None,
            (JobStatus::Failed, Bonds { billing: true, .. }) => None,
            (_, Bonds { billing: true, .. }) => Some(Self::InDoubt),
            (JobStatus::Failed, _) => Some(Self::Failed),
            (JobStatus::Completed | JobStatus::Cancelled, _) => Some(Self::Done),
        }
    }
}

/// What keeps a job that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bonds {
    /// A call of it was maybe billed, and nobody has found out yet.
    pub billing: bool,
    /// Its end is still to be told to somebody.
    pub notices: bool,
}

/// A finished job among others, in the order in which they ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finished {
    /// When it ended.
    pub at: Timestamp,
    /// Its place in line.
    pub seq: Seq,
    /// The job.
    pub id: JobId,
}

impl Finished {
    /// The place of a job; `None`: it is not finished.
    #[must_use]
    pub fn of(job: &Job) -> Option<Self> {
        let at = job.processed_at.filter(|_| job.status.is_terminal())?;
        Some(Self {
            at,
            seq: job.seq,
            id: job.id,
        })
    }

    /// Behind all that ended at this moment.
    pub(crate) const fn last_at(at: Timestamp) -> Self {
        Self {
            at,
            seq: Seq(u64::MAX),
            id: JobId::from_bytes([u8::MAX; 16]),
        }
    }
}

/// Whether a finished job's request and response are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bodies {
    /// They are.
    Kept,
    /// They were pruned.
    Pruned,
}

/// A row that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unreadable {
    /// That of a finished job.
    Job(JobId),
    /// One at this place of the call log.
    Call(u64),
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Job(id) => write!(f, "job {id}"),
            Self::Call(seq) => write!(f, "the call at {seq}"),
        }
    }
}

/// What a step of a pruning did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Rows of the call log that are gone.
    pub calls: u64,
    /// Jobs that are gone.
    pub jobs: u64,
    /// Jobs whose request and response are gone.
    pub bodies: u64,
    /// What can't be read and was passed over.
    pub unreadable: Vec<Unreadable>,
    /// Where the next step goes on; `None`: nothing more is to go.
    pub next: Option<PruneCursor>,
}

impl Pruned {
    /// Whether nothing is gone.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.calls == 0 && self.jobs == 0 && self.bodies == 0
    }
}
