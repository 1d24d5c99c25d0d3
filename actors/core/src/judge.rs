//! What a failure means: for the job, for what has to stop, for the breaker. The rules are data
//! ([`crate::model::Rule`]); here they become moments and numbers.

pub mod breaker;
pub mod conclude;

use crate::model::{
    AttemptNo, BreakerRule, Failure, FailureClass, Hold, HoldKind, Job, JobRule, LaneCondition,
    LaneRule, ModelCondition, OnInterrupted, RouteCondition, Rule, Settings, Timestamp, Wait, code,
};
use crate::retry;
use crate::words::counted;

/// What happens to the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEffect {
    /// It fails for good.
    Fail,
    /// It goes back to its place in line.
    Retry {
        /// Not before this; `None`: as soon as nothing stops it.
        at: Option<Wait>,
        /// Whether it uses up one of its retries.
        counted: bool,
        /// Whether it counts among its throttle answers.
        throttled: bool,
    },
    /// It stays out of the queue until other jobs have shown whose fault it is.
    StepAside,
    /// It waits until somebody has looked at it.
    Parked,
}

/// Who is to blame for a refusal without a code of GLM's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// Nobody knows, and no other job is there to find out.
    Unknown,
    /// Nobody knows, and the calls of other jobs find out.
    AskOthers,
    /// The job: others passed where it was refused.
    Job,
    /// The operator: every job would meet it.
    Operator,
}

/// What has to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneEffect {
    /// Nothing.
    GoOn,
    /// The lane, after a throttle answer.
    CoolDown {
        /// For how long.
        hold: Hold,
        /// The next one is longer.
        new: bool,
    },
    /// The lane, for a while: GLM may still count a call that timed out.
    Rest(Hold),
    /// The model.
    HoldModel {
        /// For how long.
        hold: Hold,
        /// The next one is longer.
        new: bool,
    },
    /// Everything, until a call gets through to GLM.
    AwaitRoute {
        /// For how long before the next call tries.
        hold: Hold,
        /// The next one is longer.
        new: bool,
    },
    /// Everything.
    HoldAccount(Hold),
}

/// What the breaker hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BreakerEffect {
    /// The service works.
    Success,
    /// The service does not work.
    Failure {
        /// It must open at once.
        at_once: bool,
    },
    /// This says nothing about the service.
    Ignore,
}

/// The three answers, and the failure as the operator's words for its code make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The failure to record.
    pub failure: Failure,
    /// For the job.
    pub job: JobEffect,
    /// For the lane.
    pub lane: LaneEffect,
    /// For the breaker.
    pub breaker: BreakerEffect,
    /// Who is to blame, where the rule asks that.
    pub blame: Option<Blame>,
}

/// What is known beside the failure.
#[derive(Debug, Clone, Copy)]
pub struct JudgeContext<'a> {
    /// The settings in force.
    pub settings: &'a Settings,
    /// The lane that the call went through.
    pub lane: &'a LaneCondition,
    /// The model that it went to.
    pub model: &'a ModelCondition,
    /// Answers to other calls that came without a right one between.
    pub foreign_answers: u32,
    /// The way to GLM, while nothing gets through.
    pub route: Option<&'a RouteCondition>,
    /// Who is to blame for a refusal without a code of GLM's.
    pub blame: Blame,
    /// Whether the lane has just lowered its own concurrency for the throttling: then the throttling
    /// was its own doing, and its cool-down does not grow.
    pub eased: bool,
    /// When the call was sent: what was sent before the last answer of its kind says nothing new.
    pub sent_at: Timestamp,
    /// Whether another model would serve the job while the one that it was sent to is held.
    pub has_fallback: bool,
    /// For the jitter.
    pub seed: u64,
    /// Now.
    pub now: Timestamp,
}

/// Added to a stated reset, in milliseconds: clocks differ.
const RESET_GRACE_MS: u64 = 3_000;
/// How long a quota hold without a stated end lasts before the lane tries again, in milliseconds.
const QUOTA_UNKNOWN_MS: u64 = 15 * 60 * 1_000;

/// Judges a failure of `job`'s call.
#[must_use]
pub fn judge(failure: &Failure, job: &Job, on: &JudgeContext<'_>) -> Verdict {
    let JudgeContext { settings, now, .. } = *on;
    let (class, mut rule) = settings.decide(failure);
    // Its own time was over before a connection stood: nothing left, so that no retry is used up.
    let had_no_time = failure.code == code::TIMEOUT_TOTAL && !failure.maybe_billed;
    if had_no_time {
        rule = Rule {
            job: JobRule::Keep,
            lane: LaneRule::GoOn,
            breaker: BreakerRule::Ignore,
        };
    }
    let mut failure = Failure {
        class,
        ..failure.clone()
    };
    let blame = (rule.job == JobRule::StepAside).then_some(on.blame);
    let rule = match blame {
        // Others passed.
        Some(Blame::Job) => {
            failure.class = FailureClass::RequestFatal;
            Rule {
                job: JobRule::Fail,
                lane: LaneRule::GoOn,
                ..rule
            }
        }
        Some(Blame::Operator) => Rule {
            lane: LaneRule::HoldForOperator,
            ..rule
        },
        Some(Blame::Unknown) => Rule {
            job: JobRule::Backoff,
            ..rule
        },
        Some(Blame::AskOthers) | None => rule,
    };
    let mut job_effect = match rule.job {
        // Nothing would stop it from being called again at once, for ever.
        JobRule::Keep if rule.lane == LaneRule::GoOn => {
            let after = failure.retry_after_ms;
            let ms = settings
                .retry
                .delays
                .delay_ms(job.throttles, after, on.seed);
            JobEffect::Retry {
                at: Some(Wait::from(now, ms)),
                counted: false,
                throttled: true,
            }
        }
        JobRule::Keep => JobEffect::Retry {
            at: None,
            counted: false,
            throttled: rule.lane == LaneRule::CoolDown,
        },
        // Another model serves it: that costs no retry.
        JobRule::Retry if rule.lane == LaneRule::HoldModel && on.has_fallback => JobEffect::Retry {
            at: None,
            counted: false,
            throttled: false,
        },
        JobRule::Retry | JobRule::Backoff | JobRule::Once if job.retry_count >= job.max_retries => {
            JobEffect::Fail
        }
        JobRule::Retry => retried(None),
        JobRule::Backoff | JobRule::Once => {
            let after = failure.retry_after_ms;
            let ms = settings
                .retry
                .delays
                .delay_ms(job.retry_count, after, on.seed);
            retried(Some(Wait::from(now, ms)))
        }
        JobRule::StepAside => JobEffect::StepAside,
        JobRule::Fail => JobEffect::Fail,
    };
    if rule.job == JobRule::Once && had_its_try(job, &failure, settings) {
        job_effect = JobEffect::Fail;
    }
    // In GLM's own words: the job's end may say it otherwise.
    let lane = lane_effect(rule.lane, &failure, on);
    let met = job.throttles.saturating_add(1);
    if matches!(
        job_effect,
        JobEffect::Retry {
            throttled: true,
            ..
        }
    ) && met >= settings.retry.max_throttles
    {
        job_effect = JobEffect::Fail;
        let what = if had_no_time { "put off" } else { "throttled" };
        failure.message = format!(
            "{what} {} (retry.max_throttles), the last time with {}: {}",
            counted(u64::from(met), "time", "times"),
            failure.code,
            failure.message
        );
        if !had_no_time {
            failure.code = code::THROTTLED.to_owned();
        }
        failure.received = None;
    }
    let breaker = match rule.breaker {
        BreakerRule::Ignore => BreakerEffect::Ignore,
        BreakerRule::Count => BreakerEffect::Failure { at_once: false },
        BreakerRule::Open => BreakerEffect::Failure { at_once: true },
    };
    Verdict {
        failure,
        job: job_effect,
        lane,
        breaker,
        blame,
    }
}

const fn retried(at: Option<Wait>) -> JobEffect {
    JobEffect::Retry {
        at,
        counted: true,
        throttled: false,
    }
}

fn lane_effect(rule: LaneRule, failure: &Failure, on: &JudgeContext<'_>) -> LaneEffect {
    let JudgeContext { settings, now, .. } = *on;
    let hold = |kind, until| Hold {
        kind,
        code: failure.code.clone(),
        message: failure.message.clone(),
        since: now,
        until,
    };
    let for_operator = || {
        let probe_ms = Some(settings.lane.operator_probe_ms).filter(|ms| *ms > 0);
        hold(HoldKind::Operator, probe_ms.map(|ms| Wait::from(now, ms)))
    };
    let after = failure.retry_after_ms;
    match rule {
        LaneRule::GoOn if settings.lane.pause_after_timeout_ms > 0 && may_still_run(failure) => {
            let until = Wait::from(now, settings.lane.pause_after_timeout_ms);
            LaneEffect::Rest(hold(HoldKind::AfterTimeout, Some(until)))
        }
        LaneRule::GoOn => LaneEffect::GoOn,
        LaneRule::CoolDown => {
            let level = on.lane.throttle_level;
            let (level, new) = match is_new(on, on.lane.throttled_at) {
                _ if on.eased => (0, false),
                true => (level, true),
                false => (level.saturating_sub(1), false),
            };
            let ms = retry::cool_down_ms(&settings.retry.throttle, level, after, on.seed);
            LaneEffect::CoolDown {
                hold: hold(HoldKind::Throttle, Some(Wait::from(now, ms))),
                new,
            }
        }
        LaneRule::HoldModel => {
            let new = is_new(on, on.model.overloaded_at);
            let level = on.model.overloads.saturating_sub(u32::from(!new));
            let ms = retry::cool_down_ms(&settings.retry.overload, level, after, on.seed);
            LaneEffect::HoldModel {
                hold: hold(HoldKind::Overload, Some(Wait::from(now, ms))),
                new,
            }
        }
        LaneRule::AwaitRoute => {
            let new = is_new(on, on.route.map(|route| route.failed_at));
            let failures = on.route.map_or(0, |route| route.failures);
            let level = failures.saturating_sub(u32::from(!new));
            let ms = retry::cool_down_ms(&settings.retry.throttle, level, after, on.seed);
            LaneEffect::AwaitRoute {
                hold: hold(HoldKind::Unreachable, Some(Wait::from(now, ms))),
                new,
            }
        }
        LaneRule::HoldUntilReset => {
            LaneEffect::HoldAccount(hold(HoldKind::Quota, Some(quota_end(failure, now))))
        }
        LaneRule::HoldForOperator => LaneEffect::HoldAccount(for_operator()),
        LaneRule::HoldModelForOperator => LaneEffect::HoldModel {
            hold: for_operator(),
            new: true,
        },
        LaneRule::HoldIfAgain if on.foreign_answers > 0 => LaneEffect::HoldAccount(for_operator()),
        LaneRule::HoldIfAgain => LaneEffect::GoOn,
    }
}

/// Whether a failure that is worth one more try had it.
fn had_its_try(job: &Job, failure: &Failure, settings: &Settings) -> bool {
    let is_again =
        |last: &Failure| last.code == failure.code && settings.decide(last).1.job == JobRule::Once;
    job.unread > 0 || job.error.as_ref().is_some_and(is_again)
}

/// Whether a refusal tells something that the last one of its kind did not: its call was sent after
/// that. Several calls that are refused together are one refusal. A last one that is still to come was judged by
/// a clock that was set back since.
fn is_new(on: &JudgeContext<'_>, last: Option<Timestamp>) -> bool {
    last.is_none_or(|last| on.sent_at > last || last > on.now)
}

/// Whether GLM may go on with a call whose connection was closed for being late.
fn may_still_run(failure: &Failure) -> bool {
    matches!(
        failure.code.as_str(),
        code::TIMEOUT_FIRST_BYTE | code::TIMEOUT_IDLE | code::TIMEOUT_TOTAL
    )
}

/// The stated reset, else `Retry-After`, else a guess.
fn quota_end(failure: &Failure, now: Timestamp) -> Wait {
    match (failure.reset_at, failure.retry_after_ms) {
        (Some(reset), _) => Wait::between(now, reset.max(now).plus_ms(RESET_GRACE_MS)),
        (None, Some(ms)) => Wait::from(now, ms),
        (None, None) => Wait::from(now, QUOTA_UNKNOWN_MS),
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
    if interruptions >= settings.lane.quarantine_after {
        failure.code = code::QUARANTINED.to_owned();
        failure.class = FailureClass::RequestFatal;
        failure.message =
            format!("in flight in {interruptions} crashes in a row; failed, retry it by hand");
        return (failure, JobEffect::Fail, interruptions);
    }
    let effect = match job.on_interrupted.unwrap_or(settings.lane.on_interrupted) {
        OnInterrupted::Retry => JobEffect::Retry {
            at: None,
            counted: false,
            throttled: false,
        },
        OnInterrupted::Park => JobEffect::Parked,
        OnInterrupted::Fail => JobEffect::Fail,
    };
    (failure, effect, interruptions)
}

/// An attempt was stopped before anything of it left: its job goes back to its place.
pub fn not_sent(attempt: AttemptNo) -> (Failure, JobEffect) {
    let failure = Failure::new(
        FailureClass::ServerTransient,
        code::INTERRUPTED,
        format!("attempt {attempt} was stopped before it was sent"),
    );
    let effect = JobEffect::Retry {
        at: None,
        counted: false,
        throttled: false,
    };
    (failure, effect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{JobId, JobStatus, PolicyOverride};

    fn job(retry_count: u32) -> Job {
        Job {
            status: JobStatus::Processing,
            attempts: AttemptNo(1),
            retry_count,
            ..Job::new(JobId::from_bytes([7; 16]), "u", "glm-5", NOW)
        }
    }

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    /// A job fails so: on a lane and a model of which nothing is known, unless `change` knows more.
    fn judged_on(
        settings: &Settings,
        failure: &Failure,
        job: &Job,
        change: impl FnOnce(&mut LaneCondition, &mut ModelCondition, &mut (Timestamp, bool)),
    ) -> Verdict {
        let (mut lane, mut model) = Default::default();
        let mut sent = (NOW, false);
        change(&mut lane, &mut model, &mut sent);
        let (sent_at, eased) = sent;
        let bench = JudgeContext {
            settings,
            lane: &lane,
            model: &model,
            foreign_answers: 0,
            route: None,
            blame: Blame::Unknown,
            eased,
            sent_at,
            has_fallback: false,
            seed: 1,
            now: NOW,
        };
        judge(failure, job, &bench)
    }

    fn judged_by(settings: &Settings, failure: &Failure, job: &Job) -> Verdict {
        judged_on(settings, failure, job, |_, _, _| ())
    }

    fn judged(class: FailureClass, retry_count: u32) -> Verdict {
        let failure = Failure::new(class, "x", "words");
        judged_by(&Settings::default(), &failure, &job(retry_count))
    }

    /// What is stopped, by which kind of hold, for how many milliseconds.
    fn held(verdict: &Verdict) -> Option<(&'static str, HoldKind, Option<u64>)> {
        let (what, hold) = match &verdict.lane {
            LaneEffect::GoOn => return None,
            LaneEffect::CoolDown { hold, .. } => ("lane cools", hold),
            LaneEffect::Rest(hold) => ("lane rests", hold),
            LaneEffect::HoldModel { hold, .. } => ("model", hold),
            LaneEffect::AwaitRoute { hold, .. } => ("route", hold),
            LaneEffect::HoldAccount(hold) => ("account", hold),
        };
        Some((what, hold.kind, hold.until.map(|wait| wait.length_ms)))
    }

    const KEEPS_PLACE: JobEffect = JobEffect::Retry {
        at: None,
        counted: false,
        throttled: false,
    };

    #[test]
    fn a_throttle_cools_the_lane_and_costs_the_job_nothing() {
        let j = judged(FailureClass::Throttle, 3);
        let kept = JobEffect::Retry {
            at: None,
            counted: false,
            throttled: true,
        };
        assert_eq!((&j.job, j.breaker), (&kept, BreakerEffect::Ignore));
        let (what, kind, ms) = held(&j).unwrap();
        assert_eq!((what, kind), ("lane cools", HoldKind::Throttle));
        assert!((4_000..=5_000).contains(&ms.unwrap()));
    }

    #[test]
    fn refusals_of_calls_that_were_sent_together_are_one() {
        let settings = Settings::default();
        let failure = Failure::new(FailureClass::Throttle, "1302", "slow down");
        let cool_down = |sent_at, eased| {
            let j = judged_on(&settings, &failure, &job(0), |lane, _, sent| {
                lane.throttle_level = 3;
                lane.throttled_at = Some(NOW.minus_ms(10));
                *sent = (sent_at, eased);
            });
            match j.lane {
                LaneEffect::CoolDown { hold, new } => (hold.until.unwrap().left_ms(NOW), new),
                other => panic!("{other:?}"),
            }
        };
        let (ms, new) = cool_down(NOW.minus_ms(5), false);
        assert!((32_000..=40_000).contains(&ms) && new, "{ms}");
        let (ms, new) = cool_down(NOW.minus_ms(10), false);
        assert!((16_000..=20_000).contains(&ms) && !new, "{ms}");
        let (ms, new) = cool_down(NOW, true);
        assert!((4_000..=5_000).contains(&ms) && !new, "{ms}");
    }

    #[test]
    fn a_word_that_keeps_the_job_and_stops_nothing_is_paced_and_bounded() {
        let mut settings = Settings::default();
        let word = PolicyOverride {
            lane: Some(LaneRule::GoOn),
            ..PolicyOverride::default()
        };
        settings.policy.insert("1302".to_owned(), word);
        let failure = Failure::new(FailureClass::Throttle, "1302", "slow down");
        let mut job = job(0);
        let effect = judged_by(&settings, &failure, &job).job;
        assert!(
            matches!(effect, JobEffect::Retry { at: Some(at), throttled: true, .. } if !at.is_over(NOW)),
            "{effect:?}"
        );
        job.throttles = settings.retry.max_throttles;
        assert_eq!(judged_by(&settings, &failure, &job).job, JobEffect::Fail);
    }

    #[test]
    fn a_job_that_met_too_many_throttles_fails_some_day() {
        let settings = Settings::default();
        let failure = Failure::new(FailureClass::Throttle, "1302", "slow down");
        let mut job = job(0);
        job.throttles = settings.retry.max_throttles - 2;
        let once_more = judged_by(&settings, &failure, &job);
        assert!(matches!(once_more.job, JobEffect::Retry { .. }));
        job.throttles += 1;
        let last = judged_by(&settings, &failure, &job);
        assert_eq!(last.job, JobEffect::Fail);
        assert_eq!(last.failure.code, code::THROTTLED);
        assert!(last.failure.message.contains("1302"), "{}", last.failure);
    }

    #[test]
    fn an_overload_holds_the_model_longer_from_one_time_to_the_next() {
        let failure = Failure::new(FailureClass::Overload, "1305", "busy");
        let settings = Settings::default();
        let ms = |overloads| {
            let after =
                |_: &mut _, model: &mut ModelCondition, _: &mut _| model.overloads = overloads;
            let j = judged_on(&settings, &failure, &job(0), after);
            assert_eq!(j.job, retried(None));
            assert_eq!(j.breaker, BreakerEffect::Ignore);
            let (what, kind, ms) = held(&j).unwrap();
            assert_eq!((what, kind), ("model", HoldKind::Overload));
            ms.unwrap()
        };
        assert!((24_000..=30_000).contains(&ms(0)));
        assert!((48_000..=60_000).contains(&ms(1)));
        assert!(ms(9) <= 300_000);
        let spent = judged_by(&settings, &failure, &job(3));
        assert_eq!(spent.job, JobEffect::Fail);
    }

    #[test]
    fn a_quota_window_holds_until_the_stated_reset_and_a_grace() {
        let mut failure = Failure::new(FailureClass::QuotaWindow, "1308", "words");
        let until = |failure: &Failure| {
            let j = judged_by(&Settings::default(), failure, &job(0));
            assert_eq!(j.job, KEEPS_PLACE);
            held(&j).unwrap()
        };
        let quota = |ms| ("account", HoldKind::Quota, Some(ms));
        assert_eq!(until(&failure), quota(900_000));
        failure.retry_after_ms = Some(60_000);
        assert_eq!(until(&failure), quota(60_000));
        failure.reset_at = Some(NOW.plus_ms(7_200_000));
        assert_eq!(until(&failure), quota(7_203_000));
    }

    #[test]
    fn an_operator_failure_holds_without_an_end_and_fails_no_job() {
        let j = judged(FailureClass::OperatorFatal, 3);
        assert_eq!(j.job, KEEPS_PLACE);
        assert_eq!(held(&j), Some(("account", HoldKind::Operator, None)));
    }

    #[test]
    fn an_operator_hold_lets_a_slow_probe_try_when_it_is_told_to() {
        let mut settings = Settings::default();
        settings.lane.operator_probe_ms = 600_000;
        let failure = Failure::new(FailureClass::OperatorFatal, "1113", "no balance");
        let j = judged_by(&settings, &failure, &job(0));
        let want = Some(("account", HoldKind::Operator, Some(600_000)));
        assert_eq!(held(&j), want);
    }

    #[test]
    fn what_never_left_uses_no_retry_and_waits_longer_from_one_time_to_the_next() {
        let settings = Settings::default();
        let failure = Failure::new(FailureClass::Unreachable, code::UNREACHABLE, "refused");
        let (lane, model) = Default::default();
        let judged = |failures, failed_at| {
            let route = RouteCondition {
                since: NOW,
                failures,
                failed_at,
                reason: String::new(),
            };
            let context = JudgeContext {
                foreign_answers: 0,
                settings: &settings,
                lane: &lane,
                model: &model,
                route: (failures > 0).then_some(&route),
                blame: Blame::Unknown,
                eased: false,
                sent_at: NOW,
                has_fallback: false,
                seed: 1,
                now: NOW,
            };
            // However often it met that, and without a retry left.
            let mut job = job(3);
            job.throttles = u32::MAX;
            let verdict = judge(&failure, &job, &context);
            assert_eq!(verdict.job, KEEPS_PLACE);
            assert_eq!(verdict.breaker, BreakerEffect::Ignore);
            let (what, kind, ms) = held(&verdict).unwrap();
            assert_eq!((what, kind), ("route", HoldKind::Unreachable));
            ms.unwrap()
        };
        let before = NOW.minus_ms(1);
        assert!((4_000..=5_000).contains(&judged(0, before)));
        assert!((8_000..=10_000).contains(&judged(1, before)));
        assert!(judged(99, before) <= 120_000);
        // Sent together with the one before.
        assert!((4_000..=5_000).contains(&judged(1, NOW)));
    }

    #[test]
    fn a_kind_of_error_that_is_left_out_fails_its_job_at_once_and_the_policy_wins() {
        use crate::model::RetryableError as Kind;
        let cases = [
            (
                Kind::Timeout,
                FailureClass::ServerTransient,
                code::TIMEOUT_IDLE,
            ),
            (Kind::Timeout, FailureClass::ServerTransient, "http_504"),
            (Kind::RateLimit, FailureClass::Throttle, "1302"),
            (Kind::RateLimit, FailureClass::Overload, "1305"),
            (
                Kind::NetworkError,
                FailureClass::ServerTransient,
                code::CONNECTION,
            ),
            (Kind::ServerError, FailureClass::ServerTransient, "http_503"),
            (Kind::ServerError, FailureClass::ServerTransient, "1234"),
        ];
        for left_out in Kind::ALL {
            let mut settings = Settings::default();
            settings
                .retry
                .retryable_errors
                .retain(|kind| *kind != left_out);
            for (kind, class, code) in cases {
                let failure = Failure::new(class, code, "words");
                let judged = judged_by(&settings, &failure, &job(0));
                let fails = judged.job == JobEffect::Fail;
                assert_eq!(fails, kind == left_out, "{left_out:?}: {code}");
                // The lane and the breaker learn of it all the same.
                let usual = judged_by(&Settings::default(), &failure, &job(0));
                assert_eq!((judged.lane, judged.breaker), (usual.lane, usual.breaker));
            }
        }
        let mut settings = Settings::default();
        settings.retry.retryable_errors.clear();
        for class in [
            FailureClass::QuotaWindow,
            FailureClass::OperatorFatal,
            FailureClass::Unreachable,
        ] {
            let failure = Failure::new(class, "x", "words");
            let judged = judged_by(&settings, &failure, &job(0));
            assert_eq!(judged.job, KEEPS_PLACE, "{class}: a hold fails no job");
        }
        let word = PolicyOverride {
            job: Some(JobRule::Backoff),
            ..PolicyOverride::default()
        };
        settings.policy.insert("http_503".to_owned(), word);
        let failure = Failure::new(FailureClass::ServerTransient, "http_503", "busy");
        assert!(judged_by(&settings, &failure, &job(0)).job != JobEffect::Fail);
    }

    fn unread(code: &str, status_code: Option<u16>) -> Failure {
        Failure {
            status_code,
            maybe_billed: true,
            ..Failure::new(FailureClass::ServerTransient, code, "words")
        }
    }

    /// What becomes of a job that ended so before, and now so.
    fn then(settings: &Settings, before: &[&Failure], now: &Failure) -> JobEffect {
        let mut job = job(u32::try_from(before.len()).unwrap());
        job.unread = before.iter().filter(|failure| failure.is_unread()).count() as u32;
        job.error = before.last().map(|failure| (*failure).clone());
        judged_by(settings, now, &job).job
    }

    #[test]
    fn an_answer_that_had_begun_and_is_lost_is_bought_once_more_at_most() {
        let settings = Settings::default();
        let lost = [
            unread(code::CONNECTION, Some(200)),
            unread(code::TIMEOUT_IDLE, Some(200)),
            unread(code::TIMEOUT_TOTAL, Some(200)),
            unread(code::BODY_TOO_LARGE, Some(200)),
        ];
        let nothing_came = unread(code::CONNECTION, None);
        let busy = unread("http_503", Some(503));
        for first in &lost {
            assert!(then(&settings, &[], first) != JobEffect::Fail, "{first}");
            for second in &lost {
                assert_eq!(then(&settings, &[first], second), JobEffect::Fail);
                // Whatever came between.
                let before = [first, &busy];
                assert_eq!(then(&settings, &before, second), JobEffect::Fail);
            }
            // Of another call nothing came.
            assert!(then(&settings, &[&nothing_came], first) != JobEffect::Fail);
            assert!(then(&settings, &[first], &nothing_came) != JobEffect::Fail);
        }
        for _ in 0..2 {
            let again = then(&settings, &[&nothing_came], &nothing_came);
            assert!(again != JobEffect::Fail);
        }
    }

    #[test]
    fn an_operators_word_counts_for_an_answer_that_is_lost() {
        let lost = unread(code::CONNECTION, Some(200));
        let said = |word: PolicyOverride| {
            let mut settings = Settings::default();
            settings.policy.insert(code::CONNECTION.to_owned(), word);
            settings
        };
        let job = |job| PolicyOverride {
            job: Some(job),
            ..PolicyOverride::default()
        };
        let again = then(&said(job(JobRule::Backoff)), &[&lost], &lost);
        assert!(again != JobEffect::Fail, "as often as retries allow");
        let again = then(&said(FailureClass::ServerTransient.into()), &[&lost], &lost);
        assert!(again != JobEffect::Fail);
        assert_eq!(then(&said(job(JobRule::Fail)), &[], &lost), JobEffect::Fail);
        // Once is once, for whatever stands under the code.
        let nothing_came = unread(code::CONNECTION, None);
        let once = said(job(JobRule::Once));
        assert!(then(&once, &[], &nothing_came) != JobEffect::Fail);
        assert_eq!(
            then(&once, &[&nothing_came], &nothing_came),
            JobEffect::Fail
        );
        // A word for the lane says nothing of the job.
        let lane = PolicyOverride {
            lane: Some(LaneRule::CoolDown),
            ..PolicyOverride::default()
        };
        assert_eq!(then(&said(lane), &[&lost], &lost), JobEffect::Fail);
    }

    #[test]
    fn a_call_whose_own_time_is_too_short_to_connect_uses_no_retry_and_says_so() {
        let settings = Settings::default();
        let failure = Failure::new(
            FailureClass::ServerTransient,
            code::TIMEOUT_TOTAL,
            "no connection",
        );
        let mut job = job(3);
        let put_off = judged_by(&settings, &failure, &job);
        let waits = matches!(put_off.job, JobEffect::Retry { at: Some(at), counted: false, .. } if at.until > NOW);
        assert!(waits, "{:?}", put_off.job);
        assert_eq!(held(&put_off), None, "the lane goes on with others");
        assert_eq!(put_off.breaker, BreakerEffect::Ignore);
        job.throttles = settings.retry.max_throttles - 1;
        let given_up = judged_by(&settings, &failure, &job);
        assert_eq!(given_up.job, JobEffect::Fail);
        assert_eq!(given_up.failure.code, code::TIMEOUT_TOTAL);
        let message = &given_up.failure.message;
        assert!(message.starts_with("put off 200 times"), "{message}");
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
        let retry = matches!(j.job, JobEffect::Retry { at: Some(at), counted: true, .. } if !at.is_over(NOW));
        assert!(retry, "{:?}", j.job);
        assert_eq!(j.breaker, BreakerEffect::Failure { at_once: false });
        let spent = judged(FailureClass::ServerTransient, 3);
        assert_eq!(spent.job, JobEffect::Fail);
    }

    #[test]
    fn the_lane_rests_after_a_timeout_when_it_is_told_to() {
        let mut settings = Settings::default();
        settings.lane.pause_after_timeout_ms = 7_000;
        let after = |code: &str| {
            let failure = Failure::new(FailureClass::ServerTransient, code, "late");
            held(&judged_by(&settings, &failure, &job(0)))
        };
        let rest = Some(("lane rests", HoldKind::AfterTimeout, Some(7_000)));
        assert_eq!(after(code::TIMEOUT_TOTAL), rest);
        assert_eq!(after(code::TIMEOUT_IDLE), rest);
        assert_eq!(after(code::TIMEOUT_CONNECT), None, "nothing was sent");
        assert_eq!(after("http_502"), None);
    }

    #[test]
    fn an_operators_word_for_a_code_beats_the_shipped_rules() {
        let mut settings = Settings::default();
        settings
            .policy
            .insert("x".to_owned(), FailureClass::RequestFatal.into());
        let failure = Failure::new(FailureClass::ServerTransient, "x", "words");
        let j = judged_by(&settings, &failure, &job(0));
        assert_eq!(j.job, JobEffect::Fail);
        assert_eq!(j.failure.class, FailureClass::RequestFatal);
        let word = PolicyOverride {
            lane: Some(LaneRule::HoldModelForOperator),
            breaker: Some(BreakerRule::Open),
            ..PolicyOverride::default()
        };
        settings.policy.insert("x".to_owned(), word);
        let j = judged_by(&settings, &failure, &job(0));
        assert_eq!(held(&j), Some(("model", HoldKind::Operator, None)));
        assert_eq!(j.breaker, BreakerEffect::Failure { at_once: true });
    }

    #[test]
    fn a_jobs_own_word_decides_what_becomes_of_it_when_it_is_interrupted() {
        let settings = Settings::default();
        let mut job = job(0);
        let effect = |job: &Job| interrupted(job, AttemptNo(1), Sent::Yes, &settings).1;
        assert_eq!(effect(&job), KEEPS_PLACE);
        job.on_interrupted = Some(OnInterrupted::Park);
        assert_eq!(effect(&job), JobEffect::Parked);
        job.on_interrupted = Some(OnInterrupted::Fail);
        assert_eq!(effect(&job), JobEffect::Fail);
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
