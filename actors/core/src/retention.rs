//! Retention: which rows go, decided once for all stores. A pruning is cut into small changes, so that the
//! lane's own transactions never wait long for one.
//!
//! Whatever the settings say, these stay: jobs that wait or run, jobs that others wait for, jobs of which
//! a webhook is still to be told (with request and response), attempts of which nobody knows yet whether
//! they were billed, with their jobs, and the usage aggregates. A row that can't be read stays, too, and
//! is passed over: one damaged row must not keep all others.

mod step;

use crate::model::{CallRecord, Job, JobId, JobStatus, Retention, Seq, Timestamp, limits};

pub(crate) use step::prune;
pub use step::{Look, look};

const DAY_MS: u64 = 86_400_000;

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
    part: Part,
    /// The last finished job of this part.
    job: Option<Finished>,
    /// The last place of the call log.
    call: u64,
    /// Rows of this part that were passed over because nothing can be said of them.
    stays: u64,
}

/// What a pruning goes through, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Part {
    #[default]
    Done,
    Failed,
    Bodies,
    BodiesInDoubt,
    Calls,
}

impl Part {
    const fn next(self) -> Option<Self> {
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
    const fn last_at(at: Timestamp) -> Self {
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

/// A row of the call log, as a pruning finds it.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Its place.
    pub seq: u64,
    /// The row; `None`: it can't be read.
    pub call: Option<CallRecord>,
}

/// What retention looks at, in a transaction or in a snapshot.
pub trait Finishes {
    /// Why a row can't be reached. One that is there but can't be decoded is not an error here.
    type Error;

    /// How many jobs stand on a kind.
    fn finished_count(&mut self, kind: FinishedKind) -> Result<u64, Self::Error>;

    /// The jobs on a kind with such bodies that come after a place, first ended first, at most so many.
    fn finished(
        &mut self,
        kind: FinishedKind,
        bodies: Bodies,
        after: Option<Finished>,
        limit: usize,
    ) -> Result<Vec<Finished>, Self::Error>;

    /// A job on a kind; `None`: its row can't be read, or is not there.
    fn finished_job(&mut self, id: JobId) -> Result<Option<Job>, Self::Error>;

    /// How many rows the call log has, those left out that were maybe billed without anybody knowing.
    fn call_count(&mut self) -> Result<u64, Self::Error>;

    /// The rows of the call log after a place, oldest first, at most so many.
    fn calls_after(&mut self, seq: u64, limit: usize) -> Result<Vec<Logged>, Self::Error>;
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

impl Prune {
    /// The first step of what retention asks for now; `None` when all is kept for ever.
    #[must_use]
    pub fn of(retention: &Retention, now: Timestamp) -> Option<Self> {
        if *retention == Retention::default() {
            return None;
        }
        let before = |days: u32| (days > 0).then(|| now.minus_ms(u64::from(days) * DAY_MS));
        let cut = |days, most: u64| Cutoff {
            before: before(days),
            most: (most > 0).then_some(most),
            settled: now.minus_ms(limits::PRUNE_SPARES_MS),
            now,
        };
        Some(Self {
            calls: cut(retention.calls_days, retention.calls_max),
            jobs: cut(retention.jobs_days, retention.jobs_max),
            failed: cut(retention.failed_days, retention.failed_max),
            bodies_before: before(retention.bodies_days),
            rows_max: limits::PRUNE_ROWS_MAX,
            bytes_max: limits::PRUNE_BYTES_MAX,
            from: PruneCursor::default(),
        })
    }

    /// The step after one that only looked: what would be gone by then is not counted again.
    #[must_use]
    pub fn after_look(mut self, looked: &Look, next: PruneCursor) -> Self {
        let raise = |cut: &mut Cutoff, rows: u64| {
            cut.most = cut.most.map(|most| most.saturating_add(rows));
        };
        let count = |kind| looked.jobs.iter().filter(|(on, _)| *on == kind).count() as u64;
        raise(&mut self.jobs, count(FinishedKind::Done));
        raise(&mut self.failed, count(FinishedKind::Failed));
        raise(&mut self.calls, looked.calls);
        self.from = next;
        self
    }
}

impl Cutoff {
    /// What is to go of so many rows, which are then asked for one by one, oldest first.
    fn of(self, rows: u64, from: PruneCursor) -> Excess {
        let rows = rows.saturating_sub(from.stays);
        let too_many = self.most.map_or(0, |most| rows.saturating_sub(most));
        Excess {
            cut: self,
            too_many,
        }
    }
}

/// What is still to go of rows of a kind.
#[derive(Clone, Copy)]
struct Excess {
    cut: Cutoff,
    too_many: u64,
}

impl Excess {
    /// Whether a row that ended at this moment is to go.
    fn takes(&self, ended: Timestamp) -> bool {
        let too_old = self.cut.before.is_some_and(|before| ended < before);
        too_old || (self.too_many > 0 && !self.is_spared(ended))
    }

    /// A row is gone, or is none that can go.
    const fn note(&mut self) {
        self.too_many = self.too_many.saturating_sub(1);
    }

    /// Whether no row is to go, however old.
    const fn is_nothing(&self) -> bool {
        self.cut.before.is_none() && self.too_many == 0
    }

    /// Whether a row ended too short a time ago to be counted out.
    fn is_spared(&self, ended: Timestamp) -> bool {
        (self.cut.settled..=self.cut.now).contains(&ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(100 * 86_400_000);

    fn prune(retention: Retention) -> Prune {
        Prune::of(&retention, NOW).unwrap()
    }

    #[test]
    fn without_retention_nothing_goes() {
        assert_eq!(Prune::of(&Retention::default(), NOW), None);
    }

    #[test]
    fn rows_go_by_age() {
        let cut = prune(Retention {
            calls_days: 2,
            ..Retention::default()
        });
        assert_eq!(cut.jobs.before, None);
        assert_eq!(cut.bodies_before, None);
        let excess = cut.calls.of(10, PruneCursor::default());
        let edge = NOW.minus_ms(2 * DAY_MS);
        assert!(excess.takes(edge.minus_ms(1)));
        assert!(!excess.takes(edge));
    }

    #[test]
    fn rows_go_by_number_but_none_that_just_ended() {
        let cut = prune(Retention {
            jobs_max: 3,
            ..Retention::default()
        });
        let mut excess = cut.jobs.of(5, PruneCursor::default());
        let spared = NOW.minus_ms(limits::PRUNE_SPARES_MS);
        assert!(!excess.takes(spared));
        assert!(!excess.takes(NOW));
        for _ in 0..2 {
            assert!(excess.takes(spared.minus_ms(1)));
            excess.note();
        }
        assert!(!excess.takes(spared.minus_ms(1)), "three are left");
        assert!(
            !cut.jobs
                .of(3, PruneCursor::default())
                .takes(Timestamp::default())
        );
    }

    #[test]
    fn what_ended_by_a_clock_that_was_ahead_counts_like_what_is_old() {
        let cut = prune(Retention {
            calls_max: 3,
            ..Retention::default()
        });
        assert!(
            cut.calls
                .of(4, PruneCursor::default())
                .takes(NOW.plus_ms(1))
        );
        assert!(
            !cut.calls
                .of(3, PruneCursor::default())
                .takes(NOW.plus_ms(1))
        );
    }
}
