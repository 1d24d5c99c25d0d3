//! The end of an attempt: from what the caller saw to the one transaction that stores it.

use std::sync::Arc;

use crate::judge::{self, BreakerEffect, JobEffect, JudgeContext, LaneEffect, Sent};
use crate::model::{
    AsyncTask, AttemptNo, AttemptPhase, CallOutcome, CallRecord, Day, Failure, GlmOutcome,
    HoldKind, Job, JobEntry, JobId, Next, Reserve, Settings, Settlement, Timestamp, Usage, code,
};
use crate::money::worst;

/// What a caller reports of a run.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The job.
    pub job_id: JobId,
    /// Which attempt; the fence.
    pub attempt: AttemptNo,
    /// The URL that was called.
    pub endpoint: String,
    /// The settings that the call was made with.
    pub settings: Arc<Settings>,
    /// Whether the job's own timeout or deadline bounded the call, not the configured time.
    pub bounded_by_job: bool,
    /// The task that GLM holds it as, whose answer can be fetched later.
    pub task: Option<AsyncTask>,
    /// When the call was sent.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds, by a monotonic clock.
    pub response_time_ms: u64,
    /// How it ended.
    pub outcome: Arc<GlmOutcome>,
}

/// An attempt's end, decided: what to store and what it means for lane and breaker.
#[derive(Debug)]
pub struct Concluded {
    /// What to store. The lane adds its own state and the breaker's.
    pub settlement: Settlement,
    /// The job's place in line from now on, if it goes back there.
    pub back_in_line: Option<JobEntry>,
    /// What it means for the lane.
    pub lane: LaneEffect,
    /// What it means for the breaker.
    pub breaker: BreakerEffect,
    /// Whether GLM answered: that ends a series of throttle answers.
    pub answered: bool,
}

/// What is known beside the outcome itself.
#[derive(Debug, Clone, Copy)]
pub struct SettleContext<'a> {
    /// What a failure is judged by.
    pub context: JudgeContext<'a>,
    /// Whether a caller cancelled the job while the call was open.
    pub cancelled: bool,
}

fn next_of(
    job: &Job,
    effect: &JobEffect,
    failure: Failure,
    interruptions: u32,
) -> (Next, Option<JobEntry>) {
    match *effect {
        JobEffect::Fail => (Next::Failed { failure }, None),
        JobEffect::Parked => {
            let entry = JobEntry {
                due_at: None,
                dormant: true,
                parked: true,
                ..job.entry()
            };
            let next = Next::Parked {
                failure,
                interruptions,
            };
            (next, Some(entry))
        }
        JobEffect::Retry {
            at,
            counted,
            throttled,
        } => {
            let entry = JobEntry {
                due_at: at,
                dormant: false,
                parked: false,
                ..job.entry()
            };
            let next = Next::Retry {
                failure,
                at,
                counted,
                throttled,
                interruptions,
            };
            (next, Some(entry))
        }
    }
}

/// Whether a hold is about the account that the call was made with.
const fn is_of_account(effect: &LaneEffect) -> bool {
    match effect {
        LaneEffect::HoldAccount(_) => true,
        LaneEffect::HoldModel { hold, .. } => matches!(hold.kind, HoldKind::Operator),
        LaneEffect::GoOn | LaneEffect::CoolDown { .. } | LaneEffect::Rest(_) => false,
    }
}

/// Notes what GLM billed, and what that costs by the list in force.
fn charge(call: &mut CallRecord, usage: Usage, settings: &Settings) {
    call.usage = usage;
    (call.cost, call.price) = settings.prices.charge(&call.model, &usage).unzip();
}

/// Decides what a finished run means.
#[must_use]
pub fn conclude(job: &Job, finished: &Finished, on: &SettleContext<'_>) -> Concluded {
    let JudgeContext { settings, now, .. } = on.context;
    let (attempt, sent_at) = (finished.attempt, finished.started_at);
    let mut call = CallRecord {
        endpoint: finished.endpoint.clone(),
        response_time_ms: finished.response_time_ms,
        booked_on: booked_on(settings, now),
        ..CallRecord::of(job, attempt, CallOutcome::Completed, sent_at, now)
    };
    let mut lane = LaneEffect::GoOn;
    let mut breaker = BreakerEffect::Ignore;
    let mut answered = false;
    let (next, back_in_line) = match &*finished.outcome {
        GlmOutcome::Answered(answer) => {
            call.status_code = Some(answer.status_code);
            charge(&mut call, answer.usage, settings);
            breaker = BreakerEffect::Success;
            answered = true;
            let response = Arc::clone(&answer.body);
            (Next::Completed { response }, None)
        }
        GlmOutcome::Failed(failure, usage) => {
            let verdict = judge::judge(failure, job, &on.context);
            let failure = verdict.failure;
            call.outcome = CallOutcome::Failed;
            call.status_code = failure.status_code;
            charge(&mut call, *usage, settings);
            call.maybe_billed = failure.maybe_billed;
            call.failure = Some(failure.clone());
            lane = verdict.lane;
            breaker = verdict.breaker;
            if finished.settings.glm.endpoint() != settings.glm.endpoint() && is_of_account(&lane) {
                // The operator acted while the call was open: this is about the old account.
                lane = LaneEffect::GoOn;
            }
            if finished.bounded_by_job && failure.code == code::TIMEOUT_TOTAL {
                // Too little time was given; that says nothing of the service.
                breaker = BreakerEffect::Ignore;
            }
            if on.cancelled {
                (Next::Cancelled, None)
            } else {
                next_of(job, &verdict.job, failure, 0)
            }
        }
        GlmOutcome::Aborted => {
            call.maybe_billed = true;
            if on.cancelled {
                call.outcome = CallOutcome::Cancelled;
                (Next::Cancelled, None)
            } else {
                // Closed by a shutdown: in doubt like a crash, but nobody's fault.
                call.outcome = CallOutcome::Interrupted;
                let (failure, effect, interruptions) =
                    judge::interrupted(job, finished.attempt, Sent::Maybe, settings);
                call.failure = Some(failure.clone());
                next_of(job, &effect, failure, interruptions)
            }
        }
    };
    call.reserved = if answered {
        assumed(job, &call, settings)
    } else {
        kept(job, call.maybe_billed, settings)
    };
    Concluded {
        settlement: Settlement {
            job_id: job.id,
            attempt: finished.attempt,
            next,
            call,
            lane: None,
            breaker: None,
        },
        back_in_line,
        lane,
        breaker,
        answered,
    }
}

/// What is reserved for the open call: what was when it was sent, if budgets counted it, and no less than
/// would be now.
fn reserved(job: &Job, settings: &Settings) -> Reserve {
    let known = job.open.and_then(|open| open.reserve);
    worst::kept(known, worst::reserve(job.worst, settings, job.sent_to()))
}

/// What stays reserved of a call that was maybe billed.
fn kept(job: &Job, maybe_billed: bool, settings: &Settings) -> Option<Reserve> {
    maybe_billed.then(|| reserved(job, settings))
}

/// What budgets take an answer for that came without its tokens: otherwise a server that never tells them
/// would be free.
fn assumed(job: &Job, call: &CallRecord, settings: &Settings) -> Option<Reserve> {
    if settings.budgets.is_empty() || call.cost.is_some() || call.usage.is_chargeable() {
        return None;
    }
    let Reserve { tokens, cost } = reserved(job, settings);
    let tokens = if call.usage.is_reported() { 0 } else { tokens };
    Some(Reserve { tokens, cost })
}

/// The day that a call is booked on, where that is not its UTC day.
fn booked_on(settings: &Settings, now: Timestamp) -> Option<Day> {
    Some(settings.calendar.day(now)).filter(|day| *day != now.day())
}

/// Closes an attempt whose caller or process died while it was open.
#[must_use]
pub fn interrupted(job: &Job, sent: Sent, settings: &Settings, now: Timestamp) -> Concluded {
    let (attempt, started_at, phase) = job
        .open
        .map_or((job.attempts, now, AttemptPhase::Started), |open| {
            (open.no, open.at, open.phase)
        });
    debug_assert!(sent == Sent::Maybe || phase == AttemptPhase::Started);
    let (failure, effect, interruptions) = judge::interrupted(job, attempt, sent, settings);
    let call = CallRecord {
        failure: Some(failure.clone()),
        maybe_billed: true,
        reserved: kept(job, true, settings),
        booked_on: booked_on(settings, now),
        ..CallRecord::of(job, attempt, CallOutcome::Interrupted, started_at, now)
    };
    let (next, back_in_line) = next_of(job, &effect, failure, interruptions);
    Concluded {
        settlement: Settlement {
            job_id: job.id,
            attempt,
            next,
            call,
            lane: None,
            breaker: None,
        },
        back_in_line,
        lane: LaneEffect::GoOn,
        breaker: BreakerEffect::Ignore,
        answered: false,
    }
}
