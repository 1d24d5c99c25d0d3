//! The life of a job as a table, and the changes a store applies. Every store applies them through
//! [`apply`], so that no store has an opinion of its own.
//!
//! ```text
#![doc = include_str!("life/life_of_a_job.txt")]
//! ```

mod apply;
pub mod effects;
pub mod grant;
mod session;
mod submit;

pub use apply::apply;

use crate::model::{
    AsyncTask, AttemptNo, AttemptPhase, CallOutcome, Failure, FailureClass, Job, JobId, JobStatus,
    Next, OpenAttempt, Parked, Phase, Refusal, Reserve, Settlement, SlotId, Timestamp, code,
};

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Happening {
    /// Its next attempt goes on record.
    Stage,
    /// That attempt is taken back: something more urgent goes first.
    Unstage,
    /// The attempt is sent.
    Start,
    /// The attempt's task at GLM is taken up again after a crash.
    Resume,
    /// The attempt brought an answer.
    Complete,
    /// The attempt failed and another follows.
    Retry,
    /// The attempt was interrupted, and somebody has to look at the job.
    Park,
    /// The jobs that it waited for are completed.
    Unblock,
    /// The attempt failed for good, or the job may not run any more.
    Fail,
    /// A caller gave it up.
    Cancel,
    /// Somebody puts it back in line by hand.
    Requeue,
    /// Its priority changes.
    Reprioritise,
}

impl Happening {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Stage,
        Self::Unstage,
        Self::Start,
        Self::Resume,
        Self::Complete,
        Self::Retry,
        Self::Park,
        Self::Unblock,
        Self::Fail,
        Self::Cancel,
        Self::Requeue,
        Self::Reprioritise,
    ];
}

/// All states of the table.
pub const PHASES: [Phase; 8] = [
    Phase::Waiting,
    Phase::Blocked,
    Phase::Parked,
    Phase::Staged,
    Phase::Running,
    Phase::Completed,
    Phase::Failed,
    Phase::Cancelled,
];

/// The table: state x happening -> state, or `None` where it is illegal. Exhaustive on purpose:
/// a new state or happening does not compile until somebody has decided.
#[must_use]
pub const fn next_phase(phase: Phase, happening: Happening) -> Option<Phase> {
    use Happening as H;
    use Phase as P;
    match (phase, happening) {
        (P::Waiting, H::Stage) | (P::Staged, H::Reprioritise) => Some(P::Staged),
        (P::Staged, H::Unstage)
        | (P::Waiting, H::Reprioritise)
        | (P::Staged | P::Running, H::Retry)
        | (P::Blocked, H::Unblock)
        // Of the waiting those whose retry is delayed.
        | (P::Waiting | P::Failed | P::Cancelled | P::Parked, H::Requeue) => Some(P::Waiting),
        (P::Blocked, H::Reprioritise) => Some(P::Blocked),
        // A staged attempt may have been sent: its start is stored with the outcome before it.
        (P::Staged | P::Running, H::Park) | (P::Parked, H::Reprioritise) => Some(P::Parked),
        (P::Waiting | P::Staged, H::Start) | (P::Staged | P::Running, H::Resume) => {
            Some(P::Running)
        }
        (P::Staged | P::Running, H::Complete) => Some(P::Completed),
        (P::Waiting | P::Blocked | P::Parked | P::Staged | P::Running, H::Fail) => Some(P::Failed),
        (P::Waiting | P::Blocked | P::Parked | P::Staged | P::Running, H::Cancel) => {
            Some(P::Cancelled)
        }
        (
            P::Waiting,
            H::Unstage | H::Resume | H::Complete | H::Retry | H::Park | H::Unblock,
        )
        | (
            P::Blocked,
            H::Stage
            | H::Unstage
            | H::Start
            | H::Resume
            | H::Complete
            | H::Retry
            | H::Park
            | H::Requeue,
        )
        | (
            P::Parked,
            H::Stage
            | H::Unstage
            | H::Start
            | H::Resume
            | H::Complete
            | H::Retry
            | H::Park
            | H::Unblock,
        )
        | (P::Staged, H::Stage | H::Unblock | H::Requeue)
        | (
            P::Running,
            H::Stage | H::Unstage | H::Start | H::Unblock | H::Requeue | H::Reprioritise,
        )
        | (
            P::Completed,
            H::Stage
            | H::Unstage
            | H::Start
            | H::Resume
            | H::Complete
            | H::Retry
            | H::Park
            | H::Unblock
            | H::Fail
            | H::Cancel
            | H::Requeue
            | H::Reprioritise,
        )
        | (
            P::Failed | P::Cancelled,
            H::Stage
            | H::Unstage
            | H::Start
            | H::Resume
            | H::Complete
            | H::Retry
            | H::Park
            | H::Unblock
            | H::Fail
            | H::Cancel
            | H::Reprioritise,
        ) => None,
    }
}

/// The table as the diagram in the docs; a test keeps the file equal to it.
#[must_use]
pub fn diagram() -> String {
    let mut out = String::new();
    for phase in PHASES {
        for happening in Happening::ALL {
            if let Some(next) = next_phase(phase, happening) {
                out.push_str(&format!(
                    "{:<10} --{:-<14}> {}\n",
                    format!("{phase:?}").to_lowercase(),
                    format!("{happening:?}").to_lowercase(),
                    format!("{next:?}").to_lowercase()
                ));
            }
        }
    }
    out
}

/// Checks `happening` against the table.
fn expect(job: &Job, happening: Happening) -> Result<(), Refusal> {
    next_phase(job.phase(), happening)
        .map(|_| ())
        .ok_or(Refusal::WrongStatus(job.status))
}

/// Checks the fence: `attempt` must be the open one.
fn expect_open(job: &Job, attempt: AttemptNo) -> Result<(), Refusal> {
    match job.open {
        Some(open) if open.no == attempt => Ok(()),
        _ => Err(Refusal::StaleAttempt { given: attempt }),
    }
}

fn end(job: &mut Job, status: JobStatus, at: Timestamp) {
    job.status = status;
    job.open = None;
    job.task = None;
    job.parked = None;
    job.next_retry_at = None;
    job.processed_at = Some(at);
}

/// Puts the next attempt on record.
pub fn stage(job: &mut Job, at: Timestamp, reserve: Option<Reserve>) -> Result<(), Refusal> {
    expect(job, Happening::Stage)?;
    job.attempts = job.attempts.next();
    job.open = Some(OpenAttempt {
        no: job.attempts,
        phase: AttemptPhase::Staged,
        at,
        slot: SlotId(0),
        reserve,
    });
    Ok(())
}

/// Takes a staged attempt back. Its number is not used again.
pub fn unstage(job: &mut Job) -> Result<(), Refusal> {
    expect(job, Happening::Unstage)?;
    job.open = None;
    job.task = None;
    Ok(())
}

/// Marks an attempt as sent: the staged one, or the next. `served_by` is the fallback model.
pub fn start(
    job: &mut Job,
    slot: SlotId,
    at: Timestamp,
    served_by: Option<&str>,
    reserve: Option<Reserve>,
) -> Result<(), Refusal> {
    expect(job, Happening::Start)?;
    if job.open.is_none() {
        job.attempts = job.attempts.next();
    }
    job.status = JobStatus::Processing;
    job.served_by = served_by.map(str::to_owned);
    job.next_retry_at = None;
    job.open = Some(OpenAttempt {
        no: job.attempts,
        phase: AttemptPhase::Started,
        at,
        slot,
        reserve,
    });
    Ok(())
}

/// Takes up an attempt whose task GLM may have finished, in another slot.
pub fn resume(job: &mut Job, slot: SlotId, crashed: bool) -> Result<(), Refusal> {
    expect(job, Happening::Resume)?;
    // A task shows that it was sent, whether its start came to be stored or not.
    job.status = JobStatus::Processing;
    if crashed {
        job.interruptions = job.interruptions.saturating_add(1);
    }
    if let Some(task) = &mut job.task {
        task.left_open = false;
    }
    if let Some(open) = &mut job.open {
        open.phase = AttemptPhase::Started;
        open.slot = slot;
    }
    Ok(())
}

/// Notes the task that GLM made of an attempt.
pub fn note_task(job: &mut Job, attempt: AttemptNo, task: &AsyncTask) -> Result<(), Refusal> {
    expect_open(job, attempt)?;
    job.task = Some(task.clone());
    Ok(())
}

/// Ends an attempt.
pub fn settle(job: &mut Job, settlement: &Settlement) -> Result<(), Refusal> {
    let happening = match settlement.next {
        Next::Completed { .. } => Happening::Complete,
        Next::Retry { .. } => Happening::Retry,
        Next::Parked { .. } => Happening::Park,
        Next::Failed { .. } => Happening::Fail,
        Next::Cancelled => Happening::Cancel,
    };
    expect_open(job, settlement.attempt)?;
    expect(job, happening)?;
    let at = settlement.call.ended_at;
    if settlement.call.cost.is_some() || settlement.call.is_unpriced() {
        job.unpriced = settlement.call.is_unpriced();
    }
    if let Some(model) = &settlement.call.answered_by {
        job.answered_by = Some(model.clone());
    }
    job.has_refusal = settlement.refusal.is_some();
    match &settlement.next {
        Next::Completed { .. } => {
            end(job, JobStatus::Completed, at);
            job.error = None;
            job.interruptions = 0;
        }
        Next::Retry {
            failure,
            at,
            counted,
            throttled,
            interruptions,
        } => {
            job.status = JobStatus::Pending;
            job.open = None;
            job.task = None;
            job.next_retry_at = *at;
            job.error = Some(failure.clone());
            job.interruptions = *interruptions;
            if *counted {
                job.retry_count = job.retry_count.saturating_add(1);
            }
            if *throttled {
                job.throttles = job.throttles.saturating_add(1);
            }
            if failure.is_unread() {
                job.unread = job.unread.saturating_add(1);
            }
        }
        Next::Parked {
            failure,
            interruptions,
        } => {
            job.status = JobStatus::Pending;
            job.open = None;
            job.task = None;
            job.next_retry_at = None;
            job.error = Some(failure.clone());
            job.interruptions = *interruptions;
            job.parked = Some(Parked {
                since: at,
                attempt: settlement.attempt,
            });
        }
        Next::Failed { failure } => {
            end(job, JobStatus::Failed, at);
            job.error = Some(failure.clone());
            if settlement.call.outcome != CallOutcome::Interrupted {
                job.interruptions = 0;
            }
        }
        Next::Cancelled => end(job, JobStatus::Cancelled, at),
    }
    Ok(())
}

/// Fails a job that is not in flight.
pub fn fail(job: &mut Job, failure: &Failure, at: Timestamp) -> Result<(), Refusal> {
    if job.phase() == Phase::Running {
        return Err(Refusal::WrongStatus(job.status));
    }
    expect(job, Happening::Fail)?;
    end(job, JobStatus::Failed, at);
    let had_it = |error: &Failure| error.code == failure.code;
    job.has_refusal &= job.error.as_ref().is_some_and(had_it);
    job.error = Some(failure.clone());
    Ok(())
}

/// Gives up a job that is not in flight. One that is ends by its settlement.
pub fn cancel(job: &mut Job, at: Timestamp) -> Result<(), Refusal> {
    if job.phase() == Phase::Running {
        return Err(Refusal::WrongStatus(job.status));
    }
    expect(job, Happening::Cancel)?;
    end(job, JobStatus::Cancelled, at);
    job.has_refusal = false;
    Ok(())
}

/// Notes that a job which this one waits for is completed. Tells whether it is free to run now.
pub fn unblock(job: &mut Job, completed: JobId) -> bool {
    let waited = job.waits_for.contains(&completed);
    job.waits_for.retain(|id| *id != completed);
    waited && job.phase() == Phase::Waiting
}

/// Ends a job with one that it was to run after. Its error names that one, also if it is cancelled.
pub fn end_with(
    job: &mut Job,
    other: JobId,
    ended: JobStatus,
    at: Timestamp,
) -> Result<(), Refusal> {
    let because = |what: &str| {
        Failure::new(
            FailureClass::RequestFatal,
            code::DEPENDENCY,
            format!("job {other}, which it was to run after, {what}"),
        )
    };
    if ended == JobStatus::Cancelled {
        cancel(job, at)?;
        job.error = Some(because("was cancelled"));
        return Ok(());
    }
    fail(job, &because("failed"), at)
}

/// Puts a dead letter, a cancelled or a parked job back in line, at its old place, with fresh
/// retries; one whose retry is delayed is due now, and that is all.
pub fn requeue(job: &mut Job) -> Result<(), Refusal> {
    expect(job, Happening::Requeue)?;
    // Who asks for it by hand wants its answer, whatever became of the connection that it came by.
    if job.phase() == Phase::Waiting {
        let stepped_aside = job
            .error
            .as_ref()
            .is_some_and(|error| error.class == FailureClass::Unattributed);
        if job.next_retry_at.take().is_none() && !stepped_aside {
            return Err(Refusal::WrongStatus(job.status));
        }
        job.has_refusal = false;
        job.bound_to = None;
        return Ok(());
    }
    if job.bodies_pruned {
        return Err(Refusal::RequestPruned);
    }
    job.status = JobStatus::Pending;
    job.bound_to = None;
    job.retry_count = 0;
    job.throttles = 0;
    job.unread = 0;
    job.has_refusal = false;
    job.interruptions = 0;
    job.parked = None;
    job.next_retry_at = None;
    job.processed_at = None;
    // A deadline that has passed would fail it again at once.
    job.deadline = None;
    Ok(())
}

/// Changes a pending job's priority.
pub fn reprioritise(job: &mut Job, priority: i32) -> Result<(), Refusal> {
    expect(job, Happening::Reprioritise)?;
    job.priority = priority;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Transition;
    use crate::model::Wait;
    use crate::testing::sample;

    #[test]
    fn a_job_that_is_retried_by_hand_belongs_to_no_connection_any_more() {
        let mut job = job_in(Phase::Failed);
        job.bound_to = Some(7);
        requeue(&mut job).unwrap();
        assert_eq!(job.bound_to, None);
        let mut delayed = job_in(Phase::Waiting);
        delayed.bound_to = Some(7);
        delayed.next_retry_at = Some(Wait::from(sample::START, 0));
        requeue(&mut delayed).unwrap();
        assert_eq!((delayed.bound_to, delayed.next_retry_at), (None, None));
    }

    /// A job in `phase`, whose latest attempt is its third.
    fn job_in(phase: Phase) -> Job {
        let mut job = sample::new_job(1).job;
        job.attempts = AttemptNo(3);
        job.priority = 7;
        let attempt = |phase| OpenAttempt {
            no: AttemptNo(3),
            phase,
            at: sample::START,
            slot: SlotId(0),
            reserve: None,
        };
        (job.status, job.open) = match phase {
            Phase::Waiting | Phase::Blocked | Phase::Parked => (JobStatus::Pending, None),
            Phase::Staged => (JobStatus::Pending, Some(attempt(AttemptPhase::Staged))),
            Phase::Running => (JobStatus::Processing, Some(attempt(AttemptPhase::Started))),
            Phase::Completed => (JobStatus::Completed, None),
            Phase::Failed => (JobStatus::Failed, None),
            Phase::Cancelled => (JobStatus::Cancelled, None),
        };
        if phase == Phase::Blocked {
            job.after = vec![sample::job_id(9)];
            job.waits_for = job.after.clone();
        }
        if phase == Phase::Waiting {
            job.next_retry_at = Some(Wait::from(sample::START, 0));
        }
        if phase == Phase::Parked {
            job.parked = Some(Parked {
                since: sample::START,
                attempt: AttemptNo(3),
            });
        }
        assert_eq!(job.phase(), phase);
        job
    }

    /// The changes by which something happens to attempt 3 of job 1.
    fn ways(happening: Happening) -> Vec<Transition> {
        let job_id = sample::job_id(1);
        let at = sample::START;
        let failure = sample::failure();
        let settled = |next| Transition::Settle(Box::new(sample::settle(1, 3, next)));
        match happening {
            Happening::Stage => vec![sample::stage(1)],
            Happening::Unstage => vec![Transition::Unstage { job_id }],
            Happening::Start => vec![sample::start(1)],
            Happening::Resume => vec![Transition::Resume {
                job_id,
                slot: SlotId(1),
                crashed: true,
            }],
            Happening::Park => vec![settled(Next::Parked {
                failure: failure.clone(),
                interruptions: 1,
            })],
            // Not a change of its own: it comes with the end of the other job.
            Happening::Unblock => vec![],
            Happening::Complete => vec![sample::complete(1, 3)],
            Happening::Retry => vec![sample::retry(1, 3, None)],
            Happening::Fail => vec![
                sample::fail(1, 3),
                Transition::Fail {
                    job_id,
                    failure,
                    at,
                },
            ],
            Happening::Cancel => {
                vec![settled(Next::Cancelled), Transition::Cancel { job_id, at }]
            }
            Happening::Requeue => vec![Transition::Requeue { job_id }],
            Happening::Reprioritise => vec![Transition::Reprioritise {
                job_id,
                priority: -1,
            }],
        }
    }

    #[test]
    fn every_cell_of_the_table_is_what_apply_does() {
        for phase in PHASES {
            for happening in Happening::ALL {
                let cell = next_phase(phase, happening);
                let mut reached = Vec::new();
                for way in ways(happening) {
                    let mut job = job_in(phase);
                    let before = format!("{job:?}");
                    match apply(&mut job, &way) {
                        Ok(()) => reached.push(job.phase()),
                        Err(_) => assert_eq!(format!("{job:?}"), before, "{phase:?} {way:?}"),
                    }
                }
                if happening == Happening::Unblock {
                    let mut job = job_in(phase);
                    if unblock(&mut job, sample::job_id(9)) {
                        reached.push(job.phase());
                    }
                }
                let agrees = match cell {
                    Some(next) => !reached.is_empty() && reached.iter().all(|p| *p == next),
                    None => reached.is_empty(),
                };
                assert!(agrees, "{phase:?} {happening:?}: {cell:?}, not {reached:?}");
            }
        }
    }

    #[test]
    fn an_outcome_of_another_attempt_is_refused_in_every_state() {
        for phase in PHASES {
            for attempt in [2, 4] {
                for late in [sample::complete(1, attempt), sample::fail(1, attempt)] {
                    let refusal = apply(&mut job_in(phase), &late).unwrap_err();
                    let given = AttemptNo(attempt);
                    assert_eq!(refusal, Refusal::StaleAttempt { given }, "{phase:?}");
                }
            }
        }
    }

    #[test]
    fn a_job_in_flight_ends_by_its_outcome_only() {
        let at = sample::START;
        let fail = fail(&mut job_in(Phase::Running), &sample::failure(), at);
        assert_eq!(fail, Err(Refusal::WrongStatus(JobStatus::Processing)));
        let cancel = cancel(&mut job_in(Phase::Running), at);
        assert_eq!(cancel, Err(Refusal::WrongStatus(JobStatus::Processing)));
    }

    #[test]
    fn attempt_numbers_only_grow() {
        let mut job = job_in(Phase::Waiting);
        let steps = [
            (sample::stage(1), 4),
            (
                Transition::Unstage {
                    job_id: sample::job_id(1),
                },
                4,
            ),
            (sample::start(1), 5),
            (sample::retry(1, 5, None), 5),
            (sample::stage(1), 6),
            (sample::start(1), 6),
            (sample::fail(1, 6), 6),
            (
                Transition::Requeue {
                    job_id: sample::job_id(1),
                },
                6,
            ),
            (sample::start(1), 7),
        ];
        for (step, attempts) in steps {
            apply(&mut job, &step).unwrap();
            assert_eq!(job.attempts, AttemptNo(attempts), "{step:?}");
        }
    }

    /// Run with `ONELANE_BLESS=1` to write the diagram anew after a change of the table.
    #[test]
    fn the_diagram_in_the_docs_is_the_table() {
        if std::env::var_os("ONELANE_BLESS").is_some() {
            let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/life/life_of_a_job.txt");
            std::fs::write(file, diagram()).unwrap();
            return;
        }
        assert_eq!(
            include_str!("life/life_of_a_job.txt"),
            diagram(),
            "run this test with ONELANE_BLESS=1"
        );
    }
}
