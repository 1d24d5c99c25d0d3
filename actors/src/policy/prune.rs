//! Retention: which rows go, decided once for all stores. A pruning is cut into small changes, so that the
//! lane's own transactions never wait long for one.
//!
//! Whatever the settings say, these stay: jobs that wait or run, jobs that others wait for, attempts of
//! which nobody knows yet whether they were billed, with their jobs, and the usage aggregates.

use super::effects::Rows;
use crate::model::{Job, JobId, Retention, Seq, Timestamp, limits};

const DAY_MS: u64 = 86_400_000;

/// One step of a pruning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prune {
    /// Which rows of the call log go.
    pub calls: Cut,
    /// Which finished jobs go.
    pub jobs: Cut,
    /// Requests and responses of jobs that ended before this moment go.
    pub bodies_before: Option<Timestamp>,
    /// How many rows it looks at, at most.
    pub rows_max: usize,
    /// Where it goes on.
    pub from: PruneCursor,
}

/// Which rows of a kind go: the oldest, by age or by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cut {
    /// Those that ended before this moment.
    pub before: Option<Timestamp>,
    /// The oldest of more than so many, as long as they ended before `settled`.
    pub most: Option<u64>,
    /// What ended at this moment or later is not counted out: somebody may be about to read it.
    pub settled: Timestamp,
}

/// How far a pruning has looked: rows up to here are gone or stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PruneCursor {
    /// The last place of the call log.
    pub call: u64,
    /// The last finished job.
    pub job: Option<Finished>,
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
}

/// Whether a finished job's request and response are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bodies {
    /// They are.
    Kept,
    /// They were pruned.
    Pruned,
}

/// What a step of a pruning did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Rows of the call log that are gone.
    pub calls: u64,
    /// Jobs that are gone.
    pub jobs: u64,
    /// Jobs whose request and response are gone.
    pub bodies: u64,
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
        let cut = |days, most: u64| Cut {
            before: before(days),
            most: (most > 0).then_some(most),
            settled: now.minus_ms(limits::PRUNE_SPARES_MS),
        };
        Some(Self {
            calls: cut(retention.calls_days, retention.calls_max),
            jobs: cut(retention.jobs_days, retention.jobs_max),
            bodies_before: before(retention.bodies_days),
            rows_max: limits::PRUNE_ROWS_MAX,
            from: PruneCursor::default(),
        })
    }
}

impl Cut {
    /// What is to go of so many rows, which are then asked for one by one, oldest first.
    #[must_use]
    pub fn of(self, rows: u64) -> Excess {
        let too_many = self.most.map_or(0, |most| rows.saturating_sub(most));
        Excess {
            cut: self,
            too_many,
        }
    }

    const fn is_nothing(&self) -> bool {
        self.before.is_none() && self.most.is_none()
    }
}

/// What is still to go of rows of a kind.
#[derive(Debug, Clone, Copy)]
pub struct Excess {
    cut: Cut,
    too_many: u64,
}

impl Excess {
    /// Whether a row that ended at this moment is to go.
    #[must_use]
    pub fn takes(&self, ended: Timestamp) -> bool {
        let too_old = self.cut.before.is_some_and(|before| ended < before);
        too_old || (self.too_many > 0 && ended < self.cut.settled)
    }

    /// A row is gone.
    pub const fn note_gone(&mut self) {
        self.too_many = self.too_many.saturating_sub(1);
    }
}

/// How a part of a step ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// Nothing more is to go.
    End,
    /// It has looked at as many rows as it may.
    Bound,
}

/// A step under way.
struct Step<'r, R> {
    rows: &'r mut R,
    /// How many rows it may still look at.
    left: usize,
    cursor: PruneCursor,
    pruned: Pruned,
}

/// Makes one step.
pub(super) fn prune<R: Rows>(rows: &mut R, prune: &Prune) -> Result<Pruned, R::Error> {
    let mut step = Step {
        rows,
        left: prune.rows_max,
        cursor: prune.from,
        pruned: Pruned::default(),
    };
    let parts = [
        step.jobs(prune.jobs)?,
        step.bodies(prune.bodies_before)?,
        step.calls(prune.calls)?,
    ];
    let mut pruned = step.pruned;
    pruned.next = parts.contains(&Reached::Bound).then_some(step.cursor);
    Ok(pruned)
}

impl<R: Rows> Step<'_, R> {
    fn jobs(&mut self, cut: Cut) -> Result<Reached, R::Error> {
        if cut.is_nothing() {
            return Ok(Reached::End);
        }
        let mut excess = cut.of(self.rows.finished_count()?);
        let (after, bound) = (self.cursor.job, self.left);
        let mut oldest = self.rows.finished(Bodies::Kept, after, bound)?;
        oldest.extend(self.rows.finished(Bodies::Pruned, after, bound)?);
        oldest.sort_unstable();
        oldest.truncate(bound);
        let reached = reached(oldest.len(), bound);
        for finished in oldest {
            if !excess.takes(finished.at) {
                return Ok(Reached::End);
            }
            self.left -= 1;
            self.cursor.job = Some(finished);
            if let Some(job) = self.rows.job(finished.id)?
                && self.is_free(&job)?
            {
                self.remove(&job)?;
                excess.note_gone();
                self.pruned.jobs += 1;
            }
        }
        Ok(reached)
    }

    /// Whether nobody waits for anything of the job. A delivery that is still to be made does not: it has
    /// the job in it, and tells it without GLM's answer when that is gone.
    fn is_free(&mut self, job: &Job) -> Result<bool, R::Error> {
        Ok(job.status.is_terminal()
            && !job.has_dependents
            && !self.rows.has_open_billing(job.id)?)
    }

    fn remove(&mut self, job: &Job) -> Result<(), R::Error> {
        if let Some(key) = &job.idempotency_key
            && let Some((holder, _)) = self.rows.keyed(&job.user_id, key)?
            && holder == job.id
        {
            self.rows.remove_key(&job.user_id, key)?;
        }
        // It ended by itself, and what it waited for may not have ended yet.
        for other in &job.waits_for {
            self.rows.remove_dependent(*other, job.id)?;
        }
        self.rows.remove_job(job)
    }

    fn bodies(&mut self, before: Option<Timestamp>) -> Result<Reached, R::Error> {
        let Some(before) = before else {
            return Ok(Reached::End);
        };
        let bound = self.left;
        let oldest = self.rows.finished(Bodies::Kept, None, bound)?;
        let reached = reached(oldest.len(), bound);
        for finished in oldest {
            if finished.at >= before {
                return Ok(Reached::End);
            }
            self.left -= 1;
            if let Some(job) = self.rows.job(finished.id)? {
                self.rows.remove_bodies(&job)?;
                self.pruned.bodies += 1;
            }
        }
        Ok(reached)
    }

    fn calls(&mut self, cut: Cut) -> Result<Reached, R::Error> {
        if cut.is_nothing() {
            return Ok(Reached::End);
        }
        let mut excess = cut.of(self.rows.call_count()?);
        let bound = self.left;
        let oldest = self.rows.calls_after(self.cursor.call, bound)?;
        let reached = reached(oldest.len(), bound);
        for call in oldest {
            if !excess.takes(call.ended_at) {
                return Ok(Reached::End);
            }
            self.left -= 1;
            self.cursor.call = call.seq;
            if !call.is_billing_open() {
                self.rows.remove_call(&call)?;
                excess.note_gone();
                self.pruned.calls += 1;
            }
        }
        Ok(reached)
    }
}

/// As many rows as were asked for may be followed by more.
const fn reached(found: usize, bound: usize) -> Reached {
    if found == bound {
        Reached::Bound
    } else {
        Reached::End
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
        let excess = cut.calls.of(10);
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
        let mut excess = cut.jobs.of(5);
        let spared = NOW.minus_ms(limits::PRUNE_SPARES_MS);
        assert!(!excess.takes(spared));
        for _ in 0..2 {
            assert!(excess.takes(spared.minus_ms(1)));
            excess.note_gone();
        }
        assert!(!excess.takes(spared.minus_ms(1)), "three are left");
        assert!(!cut.jobs.of(3).takes(Timestamp::default()));
    }
}
