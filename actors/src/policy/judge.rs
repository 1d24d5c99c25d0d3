//! What a failure means: for the job, for the lane, for the breaker. One place, one match.

use crate::model::{
    AttemptNo, CoolDownSettings, Failure, FailureClass, Hold, HoldKind, Job, OnInterrupted,
    Settings, Timestamp, code,
};
use crate::policy::retry;

/// What happens to the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEffect {
    /// It fails for good.
    Fail,
    /// It goes back to its place in line.
    Retry {
        /// Not before this moment; `None`: as soon as the lane goes on.
        at: Option<Timestamp>,
        /// Whether it uses up one of its retries.
        counted: bool,
    },
}

/// What happens to the lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneEffect {
    /// Nothing.
    GoOn,
    /// It stops; a throttle hold also raises the level of the next one.
    Hold(Hold),
}

/// What the breaker hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BreakerEffect {
    /// The service works.
    Success,
    /// The service does not work.
    Failure,
    /// This says nothing about the service.
    Ignore,
}

/// The three answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// For the job.
    pub job: JobEffect,
    /// For the lane.
    pub lane: LaneEffect,
    /// For the breaker.
    pub breaker: BreakerEffect,
}

/// Added to a stated reset, in milliseconds: clocks differ.
const RESET_GRACE_MS: u64 = 3_000;
/// How long a quota hold without a stated end lasts before the lane tries again, in milliseconds.
const QUOTA_UNKNOWN_MS: u64 = 15 * 60 * 1_000;

/// The class in force for a failure: the operator's word for its code, else the table's.
#[must_use]
pub fn class_of(failure: &Failure, settings: &Settings) -> FailureClass {
    settings
        .policy
        .get(&failure.code)
        .and_then(|word| word.class)
        .unwrap_or(failure.class)
}

/// Judges a failure of `job`'s call. `throttle_level` counts the throttle answers in a row before
/// this one; `seed` is for the jitter.
#[must_use]
pub fn judge(
    failure: &Failure,
    job: &Job,
    settings: &Settings,
    throttle_level: u32,
    seed: u64,
    now: Timestamp,
) -> Judgement {
    let hold = |kind, until| {
        LaneEffect::Hold(Hold {
            kind,
            code: failure.code.clone(),
            message: failure.message.clone(),
            since: now,
            until,
        })
    };
    let keeps_place = JobEffect::Retry {
        at: None,
        counted: false,
    };
    let bounded = |at: Option<Timestamp>| {
        if job.retry_count >= job.max_retries {
            JobEffect::Fail
        } else {
            JobEffect::Retry { at, counted: true }
        }
    };
    let (job_effect, lane, breaker) = match class_of(failure, settings) {
        FailureClass::Throttle => {
            let ms = retry::cool_down_ms(
                &settings.throttle,
                throttle_level,
                failure.retry_after_ms,
                seed,
            );
            (
                keeps_place,
                hold(HoldKind::Throttle, Some(now.plus_ms(ms))),
                BreakerEffect::Ignore,
            )
        }
        FailureClass::Overload => {
            let ms = overload_ms(&settings.overload, job, failure, seed);
            (
                bounded(Some(now.plus_ms(ms))),
                LaneEffect::GoOn,
                BreakerEffect::Ignore,
            )
        }
        FailureClass::QuotaWindow => (
            keeps_place,
            hold(HoldKind::Quota, Some(quota_end(failure, now))),
            BreakerEffect::Ignore,
        ),
        FailureClass::OperatorFatal => (
            keeps_place,
            hold(HoldKind::Operator, None),
            BreakerEffect::Ignore,
        ),
        FailureClass::RequestFatal => (JobEffect::Fail, LaneEffect::GoOn, BreakerEffect::Ignore),
        FailureClass::ServerTransient => {
            let ms = retry::backoff_ms(
                &settings.retry,
                job.retry_count,
                failure.retry_after_ms,
                seed,
            );
            (
                bounded(Some(now.plus_ms(ms))),
                LaneEffect::GoOn,
                BreakerEffect::Failure,
            )
        }
        // The next attempt has a request id of its own, so there is nothing to wait for.
        FailureClass::DuplicateRequest => (bounded(None), LaneEffect::GoOn, BreakerEffect::Ignore),
    };
    Judgement {
        job: job_effect,
        lane,
        breaker,
    }
}

fn overload_ms(settings: &CoolDownSettings, job: &Job, failure: &Failure, seed: u64) -> u64 {
    retry::cool_down_ms(settings, job.retry_count, failure.retry_after_ms, seed)
}

/// The stated reset, else `Retry-After`, else a guess.
fn quota_end(failure: &Failure, now: Timestamp) -> Timestamp {
    match (failure.reset_at, failure.retry_after_ms) {
        (Some(reset), _) => reset.max(now).plus_ms(RESET_GRACE_MS),
        (None, Some(ms)) => now.plus_ms(ms),
        (None, None) => now.plus_ms(QUOTA_UNKNOWN_MS),
    }
}

/// Whether it is known that an interrupted attempt had been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sent {
    /// Its start is on record, and its caller died with the call or with the process.
    Yes,
    /// Its start is on record, and its caller outlived it: the call ended, but its outcome was lost
    /// with a commit that failed.
    Ended,
    /// It was staged, and the outcome before it was not stored: it may have been sent just then.
    Maybe,
}

/// What becomes of a job whose attempt was open when its caller or the process died: the failure to
/// record, the effect, and the crashes in a row from now on.
#[must_use]
pub fn interrupted(
    job: &Job,
    attempt: AttemptNo,
    sent: Sent,
    settings: &Settings,
) -> (Failure, JobEffect, u32) {
    let interruptions = match sent {
        Sent::Yes => job.interruptions.saturating_add(1),
        // Not proven to be in flight, or the disk's fault: it must not be quarantined for it.
        Sent::Maybe | Sent::Ended => job.interruptions,
    };
    let mut failure = Failure::new(
        FailureClass::ServerTransient,
        code::INTERRUPTED,
        match sent {
            Sent::Yes => {
                format!("attempt {attempt} was in flight when the process ended; maybe billed")
            }
            Sent::Ended => {
                format!("the outcome of attempt {attempt} could not be stored; maybe billed")
            }
            Sent::Maybe => {
                format!("attempt {attempt} may have been sent when the process ended; maybe billed")
            }
        },
    );
    failure.maybe_billed = true;
    if interruptions >= settings.quarantine_after {
        failure.code = code::QUARANTINED.to_owned();
        failure.class = FailureClass::RequestFatal;
        failure.message =
            format!("in flight in {interruptions} crashes in a row; set aside, retry it by hand");
        return (failure, JobEffect::Fail, interruptions);
    }
    let effect = match settings.on_interrupted {
        OnInterrupted::Retry => JobEffect::Retry {
            at: None,
            counted: false,
        },
        OnInterrupted::Fail | OnInterrupted::Hold => JobEffect::Fail,
    };
    (failure, effect, interruptions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{JobId, JobStatus, Seq};

    fn job(retry_count: u32) -> Job {
        Job {
            id: JobId::from_bytes([7; 16]),
            seq: Seq(1),
            user_id: "u".to_owned(),
            content_id: None,
            model: "glm-5".to_owned(),
            priority: 0,
            status: JobStatus::Processing,
            attempts: AttemptNo(1),
            open: None,
            retry_count,
            max_retries: 3,
            interruptions: 0,
            next_retry_at: None,
            run_at: None,
            deadline: None,
            timeout_ms: None,
            error: None,
            created_at: Timestamp::default(),
            processed_at: None,
            idempotency_key: None,
            metadata: None,
            throttles: 0,
            served_by: None,
            after: Vec::new(),
            waits_for: Vec::new(),
            has_dependents: false,
            set_aside: None,
            on_interrupted: None,
            task: None,
            estimated_tokens: 0,
        }
    }

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn judged(class: FailureClass, retry_count: u32) -> Judgement {
        let failure = Failure::new(class, "x", "words");
        judge(&failure, &job(retry_count), &Settings::default(), 0, 1, NOW)
    }

    fn held(judgement: &Judgement) -> Option<(HoldKind, Option<u64>)> {
        match &judgement.lane {
            LaneEffect::GoOn => None,
            LaneEffect::Hold(hold) => Some((hold.kind, hold.until.map(|t| t.since(NOW)))),
        }
    }

    const KEEPS_PLACE: JobEffect = JobEffect::Retry {
        at: None,
        counted: false,
    };

    #[test]
    fn a_throttle_cools_the_lane_and_costs_the_job_nothing() {
        let j = judged(FailureClass::Throttle, 3);
        assert_eq!(j.job, KEEPS_PLACE);
        assert_eq!(j.breaker, BreakerEffect::Ignore);
        let (kind, ms) = held(&j).unwrap();
        assert_eq!(kind, HoldKind::Throttle);
        assert!((4_000..=5_000).contains(&ms.unwrap()));
    }

    #[test]
    fn a_quota_window_holds_until_the_stated_reset_and_a_grace() {
        let mut failure = Failure::new(FailureClass::QuotaWindow, "1308", "words");
        let until = |failure: &Failure| {
            held(&judge(failure, &job(0), &Settings::default(), 0, 1, NOW)).unwrap()
        };
        assert_eq!(until(&failure), (HoldKind::Quota, Some(QUOTA_UNKNOWN_MS)));
        failure.retry_after_ms = Some(60_000);
        assert_eq!(until(&failure), (HoldKind::Quota, Some(60_000)));
        failure.reset_at = Some(NOW.plus_ms(7_200_000));
        assert_eq!(until(&failure), (HoldKind::Quota, Some(7_203_000)));
    }

    #[test]
    fn an_operator_failure_holds_without_an_end_and_fails_no_job() {
        let j = judged(FailureClass::OperatorFatal, 3);
        assert_eq!(j.job, KEEPS_PLACE);
        assert_eq!(held(&j), Some((HoldKind::Operator, None)));
    }

    #[test]
    fn a_jobs_own_fault_fails_it_at_once_and_the_lane_goes_on() {
        let j = judged(FailureClass::RequestFatal, 0);
        assert_eq!(j.job, JobEffect::Fail);
        assert_eq!(held(&j), None);
        assert_eq!(j.breaker, BreakerEffect::Ignore);
    }

    #[test]
    fn a_transient_failure_is_retried_until_the_retries_are_used_up() {
        let j = judged(FailureClass::ServerTransient, 0);
        assert!(matches!(j.job, JobEffect::Retry { at: Some(at), counted: true } if at > NOW));
        assert_eq!(j.breaker, BreakerEffect::Failure);
        assert_eq!(
            judged(FailureClass::ServerTransient, 3).job,
            JobEffect::Fail
        );
    }

    #[test]
    fn an_operators_word_for_a_code_beats_the_table() {
        let mut settings = Settings::default();
        settings
            .policy
            .insert("x".to_owned(), FailureClass::RequestFatal.into());
        let failure = Failure::new(FailureClass::ServerTransient, "x", "words");
        let j = judge(&failure, &job(0), &settings, 0, 1, NOW);
        assert_eq!(j.job, JobEffect::Fail);
    }

    #[test]
    fn a_job_in_flight_in_too_many_crashes_in_a_row_is_set_aside() {
        let settings = Settings::default();
        let mut job = job(0);
        for crash in 1..=3 {
            let (failure, effect, count) =
                interrupted(&job, AttemptNo(crash), Sent::Yes, &settings);
            assert!(failure.maybe_billed);
            assert_eq!(count, crash);
            assert_eq!(effect == JobEffect::Fail, crash == 3, "crash {crash}");
            job.interruptions = count;
        }
        job.interruptions = 2;
        for not_its_fault in [Sent::Maybe, Sent::Ended] {
            let (_, effect, count) = interrupted(&job, AttemptNo(4), not_its_fault, &settings);
            assert_eq!((effect, count), (KEEPS_PLACE, 2), "{not_its_fault:?}");
        }
    }
}
