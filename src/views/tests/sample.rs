//! Jobs, calls and figures as a lane would have them.

use std::sync::Arc;

use onelane_actors::cost::Totals;
use onelane_actors::ports::{JobRecord, StatusCounts};
use onelane_actors::samples::{EstimateError, Estimates};
use onelane_core::model::{
    AttemptNo, CallOutcome, CallRecord, Cost, Currency, DeliveryCounts, Failure, FailureClass, Job,
    JobId, JobStatus, PriceUsed, Request, Seq, Timestamp, Usage,
};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::orchestrator::{Metrics, SchedulerSnapshot};

/// 2026-11-23T08:00:00Z.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_795_420_800_000);

/// GLM's answer, with a spelling that only verbatim keeps.
pub(crate) const ANSWER: &str = r#"{"id":"2026","choices":[{"index":0,"message":{"role":"assistant","content":"answer 1"}}],"x":1.50}"#;

pub(crate) fn id(n: u128) -> JobId {
    JobId::from_uuid(Uuid::from_u128(
        0x0199_a000_0000_7000_8000_0000_0000_0000 + n,
    ))
}

pub(crate) fn waiting(n: u64) -> JobRecord {
    JobRecord {
        job: Job {
            seq: Seq(n),
            ..Job::new(id(n.into()), "default", "glm-4.7", NOW)
        },
        request: Some(Arc::new(Request::prompt(format!("prompt {n}")).unwrap())),
        response: None,
        refusal: None,
    }
}

pub(crate) fn completed(n: u64) -> JobRecord {
    let mut record = waiting(n);
    record.job.status = JobStatus::Completed;
    record.job.attempts = AttemptNo(1);
    record.job.processed_at = Some(NOW.plus_ms(2_000));
    record.response = Some(RawValue::from_string(ANSWER.to_owned()).unwrap().into());
    record
}

pub(crate) fn failed(n: u64) -> JobRecord {
    let mut record = waiting(n);
    record.job.status = JobStatus::Failed;
    record.job.attempts = AttemptNo(1);
    record.job.processed_at = Some(NOW.plus_ms(2_000));
    record.job.error = Some(Failure {
        status_code: Some(400),
        ..Failure::new(FailureClass::RequestFatal, "1210", "max_tokens too large")
    });
    record
}

pub(crate) fn call(record: &JobRecord) -> CallRecord {
    let job = &record.job;
    let status_code = job.error.as_ref().and_then(|e| e.status_code);
    let outcome = match job.error {
        None => CallOutcome::Completed,
        Some(_) => CallOutcome::Failed,
    };
    let (sent, end) = (NOW.plus_ms(500), NOW.plus_ms(2_000));
    CallRecord {
        seq: 1,
        endpoint: "http://127.0.0.1/chat/completions".to_owned(),
        status_code: Some(status_code.unwrap_or(200)),
        response_time_ms: 1_500,
        usage: Usage {
            prompt_tokens: 10,
            completion_tokens: 20,
            total_tokens: 30,
            cached_tokens: 4,
            reasoning_tokens: 0,
            ..Usage::default()
        },
        cost: Some(Cost {
            nanos: 1,
            currency: Currency::Cny,
        }),
        failure: job.error.clone(),
        ..CallRecord::of(job, AttemptNo(1), outcome, sent, end)
    }
}

pub(crate) fn price() -> PriceUsed {
    PriceUsed {
        table: "2026-11-23".into(),
        prompt_from: 0,
        completion_from: 200,
        input: 3_000_000_000,
        cached_input: 600_000_000,
        output: 14_000_000_000,
        currency: Currency::Cny,
    }
}

pub(crate) fn metrics() -> Metrics {
    let error = EstimateError {
        calls: 2,
        estimated_tokens: 90,
        counted_tokens: 100,
        mean_relative_error: Some(0.125),
        ..EstimateError::default()
    };
    Metrics {
        recent_calls: Vec::new(),
        error_rate: 0.25,
        average_response_time_ms: 1_500.0,
        throttles: 5,
        maybe_billed: 6,
        jobs: StatusCounts::default(),
        lane: SchedulerSnapshot {
            active: true,
            in_flight: 1,
            max_concurrency: 1,
            ready: 2,
            waiting: 3,
            ..SchedulerSnapshot::default()
        },
        deliveries: DeliveryCounts {
            pending: 2,
            delivered: 5,
            failed: 1,
        },
        clock_in_doubt: false,
        since_start: Totals {
            calls: 4,
            unpriced_calls: 2,
            estimates: Estimates {
                total: error,
                skipped_calls: 3,
                models: [("glm-5".to_owned(), error)].into(),
            },
            ..Totals::default()
        },
    }
}
