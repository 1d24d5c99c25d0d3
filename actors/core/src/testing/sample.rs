//! Jobs and outcomes for tests, each made of one small number, so that a failing test is readable.

use std::sync::Arc;

use serde_json::value::RawValue;
use uuid::Uuid;

use crate::model::{
    Admission, Alert, AlertKey, AnswerBody, AttemptNo, Billing, CallOutcome, CallRecord, Cost,
    Currency, Failure, FailureClass, Job, JobId, NewJob, Next, Request, Settlement, Timestamp,
    Transition, Usage, WHOLE, Wait, Watched, code,
};

/// The moment at which everything begins: 2026-11-23T00:00:00Z.
pub const START: Timestamp = Timestamp::from_millis(1_795_392_000_000);

/// The id of job `n`: a UUID of version 7; a higher number sorts later.
#[must_use]
pub fn job_id(n: u64) -> JobId {
    let low = 0x8000_0000_0000_0000 | n;
    JobId::from_uuid(Uuid::from_u64_pair(0x019a_ae00_0000_7000, low))
}

/// Job `n` of user `ada` for model `glm-4.7`, with the prompt `prompt n` and no limit that matters.
#[must_use]
pub fn new_job(n: u64) -> NewJob {
    NewJob {
        job: Job {
            estimated_tokens: 1_032,
            ..Job::new(job_id(n), "ada", "glm-4.7", START)
        },
        request: Request::Prompt(format!("prompt {n}")),
        fingerprint: None,
        admission: Admission::Open {
            max_queue_jobs: 1_000_000,
        },
    }
}

/// The insertion of [`new_job`] `n`.
#[must_use]
pub fn insert(n: u64) -> Transition {
    insert_with(n, |_| ())
}

/// The insertion of [`new_job`] `n`, which `change` makes another one.
#[must_use]
pub fn insert_with(n: u64, change: impl FnOnce(&mut NewJob)) -> Transition {
    let mut new = new_job(n);
    change(&mut new);
    Transition::Insert(Arc::new(new))
}

/// Job `n` is given up by a caller.
#[must_use]
pub fn cancel(n: u64, at: Timestamp) -> Transition {
    Transition::Cancel {
        job_id: job_id(n),
        at,
    }
}

/// What somebody found out about an attempt at job `n`.
#[must_use]
pub fn resolve(n: u64, attempt: u32, billing: Billing) -> Transition {
    Transition::Billing {
        job_id: job_id(n),
        attempt: AttemptNo(attempt),
        billing,
    }
}

/// GLM's answer to job `n`.
#[must_use]
pub fn answer(n: u64) -> AnswerBody {
    let body = format!(
        r#"{{"id":"a{n}","model":"glm-4.7","choices":[{{"index":0,"finish_reason":"stop","message":{{"role":"assistant","content":"answer {n}"}}}}],"x":1.50}}"#
    );
    AnswerBody::new(&body).unwrap_or_else(|_| RawValue::NULL.to_owned().into())
}

/// A failure of the transient kind.
#[must_use]
pub fn failure() -> Failure {
    Failure::new(
        FailureClass::ServerTransient,
        code::CONNECTION,
        "connection reset",
    )
}

/// The call log row of an attempt at job `n` of [`new_job`]'s user and model: one second long, with
/// tokens and a cost when it was answered.
#[must_use]
pub fn call(n: u64, attempt: u32, outcome: CallOutcome) -> CallRecord {
    let answered = outcome == CallOutcome::Completed;
    let usage = Usage {
        prompt_tokens: 7,
        completion_tokens: n,
        total_tokens: 7 + n,
        cached_tokens: 3,
        reasoning_tokens: 1,
        ..Usage::default()
    };
    let (job, end) = (new_job(n).job, START.plus_ms(1_000));
    CallRecord {
        endpoint: "http://127.0.0.1:1/chat/completions".to_owned(),
        status_code: answered.then_some(200),
        response_time_ms: 1_000,
        usage: if answered { usage } else { Usage::default() },
        cost: answered.then_some(Cost {
            nanos: 1_001,
            currency: Currency::Cny,
        }),
        failure: (!answered).then(failure),
        ..CallRecord::of(&job, AttemptNo(attempt), outcome, START, end)
    }
}

/// The end of an attempt at job `n`.
#[must_use]
pub fn settle(n: u64, attempt: u32, next: Next) -> Settlement {
    let outcome = match next {
        Next::Completed { .. } => CallOutcome::Completed,
        Next::Parked { .. } => CallOutcome::Interrupted,
        Next::Retry { .. } | Next::Failed { .. } => CallOutcome::Failed,
        Next::Cancelled => CallOutcome::Cancelled,
    };
    Settlement {
        job_id: job_id(n),
        attempt: AttemptNo(attempt),
        next,
        call: call(n, attempt, outcome),
        refusal: None,
        lane: None,
        breaker: None,
    }
}

/// Job `n` is answered at its attempt.
#[must_use]
pub fn complete(n: u64, attempt: u32) -> Transition {
    let response = answer(n);
    Transition::Settle(Box::new(settle(n, attempt, Next::Completed { response })))
}

/// Job `n` fails for good at its attempt.
#[must_use]
pub fn fail(n: u64, attempt: u32) -> Transition {
    let failure = failure();
    Transition::Settle(Box::new(settle(n, attempt, Next::Failed { failure })))
}

/// Job `n` waits for another attempt, until `due`.
#[must_use]
pub fn retry(n: u64, attempt: u32, due: Option<Timestamp>) -> Transition {
    let next = Next::Retry {
        failure: failure(),
        at: due.map(|due| Wait::between(START, due)),
        counted: true,
        throttled: false,
        interruptions: 0,
    };
    Transition::Settle(Box::new(settle(n, attempt, next)))
}

/// The next attempt of job `n` goes on record.
#[must_use]
pub fn stage(n: u64) -> Transition {
    Transition::Stage {
        job_id: job_id(n),
        at: START,
        reserve: None,
    }
}

/// The staged attempt of job `n`, or its next, is sent.
#[must_use]
pub fn start(n: u64) -> Transition {
    Transition::Start {
        job_id: job_id(n),
        slot: crate::model::SlotId(0),
        at: START.plus_ms(1),
        served_by: None,
        reserve: None,
    }
}

/// The insertion of [`new_job`] `n`, which runs after other jobs.
#[must_use]
pub fn insert_after(n: u64, others: &[u64]) -> Transition {
    insert_with(n, |new| {
        new.job.after = others.iter().map(|other| job_id(*other)).collect();
        new.job.waits_for.clone_from(&new.job.after);
    })
}

/// Job `n`'s attempt was interrupted and may have been billed: it is parked.
#[must_use]
pub fn parked(n: u64, attempt: u32) -> Transition {
    let next = Next::Parked {
        failure: failure(),
        interruptions: 1,
    };
    let mut settlement = settle(n, attempt, next);
    settlement.call.maybe_billed = true;
    Transition::Settle(Box::new(settlement))
}

/// What was found out about an attempt: billed, with so many tokens.
#[must_use]
pub fn billed(tokens: u64) -> Billing {
    Billing {
        billed: true,
        usage: Usage {
            prompt_tokens: tokens,
            total_tokens: tokens,
            ..Usage::default()
        },
        cost: Some(Cost {
            nanos: 17,
            currency: Currency::Cny,
        }),
        price: None,
        at: START.plus_ms(5_000),
    }
}

/// An alert about something, raised at [`START`].
#[must_use]
pub fn alert(key: AlertKey) -> Alert {
    Alert {
        message: format!("{key} is bad"),
        key,
        on: Watched::Breaker,
        level: WHOLE,
        threshold: WHOLE,
        unit: Watched::Breaker.unit().to_owned(),
        hold: None,
        raised_at: START,
    }
}
