//! One step of a pruning: part after part, in the order in which rows ended, until it has looked at as many
//! rows, or removed as much, as it may.

use super::{Cutoff, FinishedKind, Prune, PruneCursor};
use crate::model::{Bodies, CallRecord, Finished, Job, JobId, Part, Pruned, Unreadable};
use crate::rows::{Finishes, Logged, Rows};

/// How a part of a step ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// Nothing more of it is to go.
    End,
    /// It has looked at as many rows, or removed as much, as it may.
    Bound,
}

/// What is to go.
enum Goes<'a> {
    Job(FinishedKind, &'a Job),
    Bodies(&'a Job),
    Call(&'a CallRecord),
}

/// A step under way; `take` removes what is to go and answers how many bytes its bodies had.
struct Step<'p, P, T> {
    past: &'p mut P,
    take: T,
    prune: &'p Prune,
    /// How many rows it may still look at.
    left: usize,
    /// Of the requests and responses that are gone.
    bytes: u64,
    cursor: PruneCursor,
    pruned: Pruned,
}

/// Makes one step.
pub(crate) fn prune<R: Rows>(rows: &mut R, prune: &Prune) -> Result<Pruned, R::Error> {
    go(rows, prune, |rows, goes| match goes {
        Goes::Job(_, job) => remove(rows, job),
        Goes::Bodies(job) => rows.remove_bodies(job),
        Goes::Call(call) => rows.remove_call(call).map(|()| 0),
    })
}

/// What a step would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Look {
    /// The jobs that would go, and from where.
    pub jobs: Vec<(FinishedKind, JobId)>,
    /// The jobs whose request and response would go.
    pub bodies: Vec<JobId>,
    /// How many rows of the call log would go.
    pub calls: u64,
    /// What the step would answer.
    pub pruned: Pruned,
}

/// Looks what a step would do, and changes nothing.
pub fn look<P: Finishes>(past: &mut P, prune: &Prune) -> Result<Look, P::Error> {
    let mut look = Look::default();
    let pruned = go(past, prune, |_, goes| {
        match goes {
            Goes::Job(kind, job) => look.jobs.push((kind, job.id)),
            Goes::Bodies(job) => look.bodies.push(job.id),
            Goes::Call(_) => look.calls += 1,
        }
        Ok(0)
    })?;
    look.pruned = pruned;
    Ok(look)
}

fn go<P: Finishes>(
    past: &mut P,
    prune: &Prune,
    take: impl FnMut(&mut P, Goes<'_>) -> Result<u64, P::Error>,
) -> Result<Pruned, P::Error> {
    let mut step = Step {
        past,
        take,
        prune,
        left: prune.rows_max,
        bytes: 0,
        cursor: prune.from,
        pruned: Pruned::default(),
    };
    loop {
        let reached = match step.cursor.part {
            Part::Done => step.jobs(FinishedKind::Done, prune.jobs)?,
            Part::Failed => step.jobs(FinishedKind::Failed, prune.failed)?,
            Part::Bodies => step.bodies(FinishedKind::Done)?,
            Part::BodiesInDoubt => step.bodies(FinishedKind::InDoubt)?,
            Part::Calls => step.calls(prune.calls)?,
        };
        let next = match reached {
            Reached::Bound => Some(step.cursor),
            Reached::End => step.cursor.part.next().map(|part| PruneCursor {
                part,
                ..PruneCursor::default()
            }),
        };
        match (reached, next) {
            (Reached::End, Some(next)) => step.cursor = next,
            (_, next) => {
                step.pruned.next = next;
                return Ok(step.pruned);
            }
        }
    }
}

impl<P: Finishes, T: FnMut(&mut P, Goes<'_>) -> Result<u64, P::Error>> Step<'_, P, T> {
    fn jobs(&mut self, kind: FinishedKind, cut: Cutoff) -> Result<Reached, P::Error> {
        let mut excess = cut.of(self.past.finished_count(kind)?, self.cursor);
        if excess.is_nothing() {
            return Ok(Reached::End);
        }
        loop {
            let (after, bound) = (self.cursor.job, self.left);
            let mut oldest = self.past.finished(kind, Bodies::Kept, after, bound)?;
            oldest.extend(self.past.finished(kind, Bodies::Pruned, after, bound)?);
            oldest.sort_unstable();
            oldest.truncate(bound);
            let reached = reached(oldest.len(), bound);
            let mut is_spared = false;
            for finished in oldest {
                if !excess.takes(finished.at) {
                    is_spared = excess.too_many > 0 && excess.is_spared(finished.at);
                    if is_spared {
                        break;
                    }
                    return Ok(Reached::End);
                }
                self.goes_on(finished);
                excess.note();
                match self.job(finished.id)? {
                    Some(job) if job.status.is_terminal() && !job.has_dependents => {
                        self.take(Goes::Job(kind, &job))?;
                        self.pruned.jobs += 1;
                    }
                    _ => self.cursor.stays += 1,
                }
                if self.is_full() {
                    return Ok(Reached::Bound);
                }
            }
            if !is_spared {
                return Ok(reached);
            }
            // Those that ended by a clock that was ahead come behind those that just ended.
            self.cursor.job = Some(Finished::last_at(cut.now));
        }
    }

    fn bodies(&mut self, kind: FinishedKind) -> Result<Reached, P::Error> {
        let Some(before) = self.prune.bodies_before else {
            return Ok(Reached::End);
        };
        let (after, bound) = (self.cursor.job, self.left);
        let oldest = self.past.finished(kind, Bodies::Kept, after, bound)?;
        let reached = reached(oldest.len(), bound);
        for finished in oldest {
            if finished.at >= before {
                return Ok(Reached::End);
            }
            self.goes_on(finished);
            if let Some(job) = self.job(finished.id)? {
                self.take(Goes::Bodies(&job))?;
                self.pruned.bodies += 1;
            }
            if self.is_full() {
                return Ok(Reached::Bound);
            }
        }
        Ok(reached)
    }

    /// The log is in the order of the clock but for its jumps, so that a row whose time has not come does
    /// not mean that no other's has. It ends where nothing but such rows was met: what a jump hides is
    /// found when those are due.
    fn calls(&mut self, cut: Cutoff) -> Result<Reached, P::Error> {
        let mut excess = cut.of(self.past.call_count()?, self.cursor);
        if excess.is_nothing() {
            return Ok(Reached::End);
        }
        let bound = self.left;
        let oldest = self.past.calls_after(self.cursor.call, bound)?;
        let reached = reached(oldest.len(), bound);
        let (mut one_waits, before) = (false, self.pruned.calls);
        for Logged { seq, call } in oldest {
            self.left -= 1;
            self.cursor.call = seq;
            match call {
                None => {
                    excess.note();
                    self.cursor.stays += 1;
                    self.pruned.unreadable.push(Unreadable::Call(seq));
                }
                Some(call) if call.is_billing_open() => {}
                Some(call) if excess.takes(call.ended_at) => {
                    excess.note();
                    self.take(Goes::Call(&call))?;
                    self.pruned.calls += 1;
                }
                Some(call) => one_waits |= call.ended_at <= cut.now,
            }
        }
        if one_waits && self.pruned.calls == before {
            return Ok(Reached::End);
        }
        Ok(reached)
    }

    /// Notes that a job is looked at.
    const fn goes_on(&mut self, finished: Finished) {
        self.left -= 1;
        self.cursor.job = Some(finished);
    }

    fn job(&mut self, id: JobId) -> Result<Option<Job>, P::Error> {
        let job = self.past.finished_job(id)?;
        let unreadable = Unreadable::Job(id);
        if job.is_none() && !self.pruned.unreadable.contains(&unreadable) {
            self.pruned.unreadable.push(unreadable);
        }
        Ok(job)
    }

    fn take(&mut self, goes: Goes<'_>) -> Result<(), P::Error> {
        self.bytes += (self.take)(self.past, goes)?;
        Ok(())
    }

    const fn is_full(&self) -> bool {
        self.bytes >= self.prune.bytes_max
    }
}

/// Removes a job with all that is known by it; answers the bytes of its request and response.
fn remove<R: Rows>(rows: &mut R, job: &Job) -> Result<u64, R::Error> {
    if let Some(key) = &job.idempotency_key {
        rows.remove_key(&job.idempotency_scope(), key, job.id)?;
    }
    // It ended by itself, and what it waited for may not have ended yet.
    for other in &job.waits_for {
        rows.remove_dependent(*other, job.id)?;
    }
    if let Some(id) = job.batch_id
        && let Some(mut batch) = rows.batch(id)?
    {
        batch.job_pruned(job.status);
        if batch.is_over() {
            rows.remove_batch(id)?;
            rows.remove_input(id)?;
        } else {
            rows.put_batch(&batch)?;
        }
    }
    rows.remove_job(job)
}

/// As many rows as were asked for may be followed by more.
const fn reached(found: usize, bound: usize) -> Reached {
    if found == bound {
        Reached::Bound
    } else {
        Reached::End
    }
}
