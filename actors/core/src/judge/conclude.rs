//! The end of an attempt: from what the caller saw to the one transaction that stores it.

use std::sync::Arc;

use crate::judge::{self, Blame, BreakerEffect, JobEffect, JudgeContext, LaneEffect, Sent};
use crate::model::{
    AsyncTask, AttemptNo, AttemptPhase, CallOutcome, CallRecord, Day, Doubt, Due, Failure,
    GlmOutcome, HoldKind, Job, JobEntry, JobId, Next, Parts, PassedHeaders, Received, Reserve,
    Settings, Settlement, Substitution, Timestamp, Usage, code, limits, model_name,
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
    /// Whether a client may have read of its answer already, which is streamed: then it is not tried again.
    pub delivered: bool,
    /// What it comes to by our own count, where it was delivered in part and GLM told no tokens.
    pub estimate: Option<Usage>,
    /// The headers by which GLM names the call, where it answered.
    pub call_ids: PassedHeaders,
    /// The task that GLM holds it as, whose answer can be fetched later.
    pub task: Option<AsyncTask>,
    /// When the call was sent.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds, by a monotonic clock.
    pub response_time_ms: u64,
    /// Where its time went.
    pub parts: Parts,
    /// How it ended.
    pub outcome: Arc<GlmOutcome>,
}

impl Finished {
    /// Whether it ended with an answer of the model that was asked, in one call: nothing that changes what goes next.
    #[must_use]
    pub fn is_plain_success(&self, sent_to: &str) -> bool {
        let GlmOutcome::Answered(answer) = &*self.outcome else {
            return false;
        };
        is_plain(answer.model.as_deref(), self.task.as_ref(), sent_to)
    }
}

/// Whether an answer that names this model changes nothing that goes next: the model is the one that was asked, and it took
/// one call.
#[must_use]
pub fn is_plain(named: Option<&str>, task: Option<&AsyncTask>, sent_to: &str) -> bool {
    task.is_none() && named.is_none_or(|name| model_name::is_model(name, sent_to))
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
    /// Whether the call got through to a server, whatever that said.
    pub reached: bool,
    /// Who is to blame for a refusal without a code of GLM's.
    pub blame: Option<Blame>,
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
                due: None,
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
        JobEffect::StepAside => {
            let entry = JobEntry {
                due: None,
                dormant: true,
                ..job.entry()
            };
            let next = Next::Retry {
                failure,
                at: None,
                counted: false,
                throttled: false,
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
                due: at.map(Due::After),
                dormant: false,
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
        LaneEffect::HoldAccount(_) | LaneEffect::AwaitRoute { .. } => true,
        LaneEffect::HoldModel { hold, .. } => matches!(hold.kind, HoldKind::Operator),
        LaneEffect::GoOn | LaneEffect::CoolDown { .. } | LaneEffect::Rest(_) => false,
    }
}

/// Notes what GLM billed and which model it says has answered, and what that costs by the list in force.
fn charge(call: &mut CallRecord, usage: Usage, answered_by: Option<&str>, settings: &Settings) {
    call.usage = usage;
    call.answered_by = answered_by.map(str::to_owned);
    let prices = &settings.prices;
    let other = answered_by.filter(|name| !model_name::is_model(name, &call.model));
    call.substitution = other.map(|name| match prices.is_priced(name) {
        true => Substitution::Priced,
        false => Substitution::Assumed,
    });
    let by = match call.substitution {
        Some(Substitution::Priced) => other.unwrap_or(&call.model),
        Some(Substitution::Assumed) | None => &call.model,
    };
    (call.cost, call.price) = prices.charge(by, &usage, call.started_at).unzip();
}

/// Books what was delivered of an answer whose tokens GLM did not tell: then nothing of it is in doubt.
fn charge_estimate(call: &mut CallRecord, finished: &Finished, settings: &Settings) {
    if let Some(estimate) = finished.estimate.filter(|_| call.maybe_billed) {
        let answered_by = call.answered_by.clone();
        charge(call, estimate, answered_by.as_deref(), settings);
        call.maybe_billed = false;
    }
}

/// Decides what a finished run means.
#[must_use]
pub fn conclude(job: &Job, finished: &Finished, on: &SettleContext<'_>) -> Concluded {
    let JudgeContext { settings, now, .. } = on.context;
    let (attempt, sent_at) = (finished.attempt, finished.started_at);
    let mut call = CallRecord {
        endpoint: finished.endpoint.clone(),
        response_time_ms: finished.response_time_ms,
        parts: finished.parts,
        call_ids: finished.call_ids.clone(),
        booked_on: booked_on(settings, now),
        ..CallRecord::of(job, attempt, CallOutcome::Completed, sent_at, now)
    };
    let mut lane = LaneEffect::GoOn;
    let mut breaker = BreakerEffect::Ignore;
    let mut answered = false;
    let mut received = None;
    let mut steps_aside = false;
    let mut reached = false;
    let mut blame = None;
    let (next, back_in_line) = match &*finished.outcome {
        GlmOutcome::Answered(answer) => {
            call.status_code = Some(answer.status_code);
            charge(&mut call, answer.usage, answer.model.as_deref(), settings);
            breaker = BreakerEffect::Success;
            answered = true;
            reached = true;
            let response = answer.body.clone();
            (Next::Completed { response }, None)
        }
        GlmOutcome::Failed(failure, usage) => {
            let verdict = judge::judge(failure, job, &on.context);
            let mut failure = verdict.failure;
            received = failure.received.take();
            steps_aside = verdict.job == JobEffect::StepAside;
            call.outcome = CallOutcome::Failed;
            call.status_code = failure.status_code;
            let answered_by = received.as_deref().and_then(Received::model);
            charge(&mut call, *usage, answered_by.as_deref(), settings);
            call.maybe_billed = failure.maybe_billed;
            charge_estimate(&mut call, finished, settings);
            call.received = received.as_deref().and_then(|came| kept_of(&failure, came));
            reached = failure.status_code.is_some() || failure.maybe_billed;
            call.failure = Some(failure.clone());
            lane = verdict.lane;
            blame = verdict.blame;
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
                let effect = match verdict.job {
                    JobEffect::Retry { .. } | JobEffect::StepAside if finished.delivered => {
                        JobEffect::Fail
                    }
                    effect => effect,
                };
                next_of(job, &effect, failure, 0)
            }
        }
        // What belongs to a connection ends with it, sent or not.
        GlmOutcome::NotSent if on.cancelled || job.bound_to.is_some() => {
            call.outcome = CallOutcome::Cancelled;
            (Next::Cancelled, None)
        }
        GlmOutcome::NotSent => {
            call.outcome = CallOutcome::Interrupted;
            let (failure, effect) = judge::not_sent(attempt);
            call.failure = Some(failure.clone());
            next_of(job, &effect, failure, job.interruptions)
        }
        GlmOutcome::Aborted => {
            call.maybe_billed = true;
            charge_estimate(&mut call, finished, settings);
            if on.cancelled {
                call.outcome = CallOutcome::Cancelled;
                (Next::Cancelled, None)
            } else {
                // Closed by a shutdown: in doubt like a crash, but nobody's fault.
                call.outcome = CallOutcome::Interrupted;
                let (failure, effect, interruptions) =
                    judge::interrupted(job, finished.attempt, Sent::Maybe, settings);
                call.failure = Some(failure.clone());
                if job.bound_to.is_some() {
                    // Nobody is left to take another answer.
                    (Next::Cancelled, None)
                } else {
                    next_of(job, &effect, failure, interruptions)
                }
            }
        }
    };
    call.reserved = if answered {
        assumed(job, &call, settings)
    } else {
        kept(job, &call, settings)
    };
    Concluded {
        settlement: Settlement {
            job_id: job.id,
            attempt: finished.attempt,
            refusal: received.filter(|came| match next {
                Next::Failed { .. } => is_refusal(&call, came),
                Next::Retry { .. } => steps_aside && is_refusal(&call, came),
                Next::Completed { .. } | Next::Parked { .. } | Next::Cancelled => false,
            }),
            next,
            call,
            lane: None,
            breaker: None,
        },
        back_in_line,
        lane,
        breaker,
        answered,
        reached,
        blame,
    }
}

/// What is reserved for the open call: what was when it was sent, if budgets counted it, and no less than
/// would be now.
fn reserved(job: &Job, settings: &Settings) -> Reserve {
    let known = job.open.and_then(|open| open.reserve);
    worst::kept(known, worst::reserve(job.worst, settings, [job.sent_to()]))
}

/// What stays reserved of a call that was maybe billed.
fn kept(job: &Job, call: &CallRecord, settings: &Settings) -> Option<Reserve> {
    if !call.maybe_billed {
        return None;
    }
    let code = call.failure.as_ref().map(|failure| failure.code.as_str());
    match settings.in_doubt.doubt {
        Doubt::None => None,
        // A server that closes an idle connection while it is used again has hardly read what was sent on it.
        Doubt::Worst if code != Some(code::CONNECTION_ENDED) => Some(reserved(job, settings)),
        Doubt::Worst | Doubt::Prompt => Some(worst::prompt(job.worst, settings, job.sent_to())),
    }
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

/// Whether what came instead of an answer is shown with the job: what refuses it, or GLM's own words under a success,
/// but not what may be an answer that can't be read, nor what is another's.
fn is_refusal(call: &CallRecord, received: &Received) -> bool {
    let success = call.failure.as_ref().is_some_and(Failure::is_under_success);
    !received.is_foreign() && (!success || received.is_object())
}

/// What an attempt keeps of what came instead of an answer: it may have been paid for, is another's, or broke off
/// before it said what is wrong. What GLM says of a refusal stands in its failure.
fn kept_of(failure: &Failure, received: &Received) -> Option<Arc<str>> {
    if !failure.is_under_success() && !received.is_foreign() && !received.is_begun() {
        return None;
    }
    let text = received.text();
    let end = text.floor_char_boundary(limits::KEPT_ANSWER_BYTES_MAX);
    Some(text.get(..end).unwrap_or_default().into())
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
    // That GLM holds it as a task may be on disk before its start.
    let is_known_as_sent = phase == AttemptPhase::Started || job.task.is_some();
    debug_assert!(sent == Sent::Maybe || is_known_as_sent);
    let (failure, effect, interruptions) = judge::interrupted(job, attempt, sent, settings);
    let mut call = CallRecord {
        failure: Some(failure.clone()),
        maybe_billed: true,
        booked_on: booked_on(settings, now),
        ..CallRecord::of(job, attempt, CallOutcome::Interrupted, started_at, now)
    };
    call.reserved = kept(job, &call, settings);
    let (next, back_in_line) = next_of(job, &effect, failure, interruptions);
    Concluded {
        settlement: Settlement {
            job_id: job.id,
            attempt,
            next,
            call,
            refusal: None,
            lane: None,
            breaker: None,
        },
        back_in_line,
        lane: LaneEffect::GoOn,
        breaker: BreakerEffect::Ignore,
        answered: false,
        reached: false,
        blame: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        AnswerBody, Currency, DoubtSettings, FailureClass, GlmAnswer, LaneCondition,
        ModelCondition, OpenAttempt, PriceRow, PriceTable, SlotId, WorstCase,
    };
    use crate::testing::sample;

    /// A call whose prompt may come to 10 nano-units and whose answer to 40.
    fn job() -> Job {
        let mut job = sample::new_job(1).job;
        job.model = "m".to_owned();
        job.attempts = AttemptNo(1);
        job.worst = WorstCase {
            prompt: 10,
            completion: 20,
        };
        job.open = Some(OpenAttempt {
            no: AttemptNo(1),
            phase: AttemptPhase::Started,
            at: sample::START,
            slot: SlotId(0),
            reserve: None,
        });
        job
    }

    fn settings(doubt: Doubt) -> Settings {
        let mut prices = PriceTable::new(Currency::Cny);
        let row = PriceRow {
            input: 1_000_000,
            cached_input: 1_000_000,
            output: 2_000_000,
            ..PriceRow::default()
        };
        prices.add("m", row);
        Settings {
            in_doubt: DoubtSettings {
                doubt,
                ..DoubtSettings::default()
            },
            prices: Arc::new(prices),
            ..Settings::default()
        }
    }

    fn ends(outcome: GlmOutcome, cancelled: bool, settings: &Settings) -> Concluded {
        ends_of(&job(), outcome, cancelled, settings)
    }

    fn finished(job: &Job, outcome: GlmOutcome, settings: &Settings) -> Finished {
        Finished {
            job_id: job.id,
            attempt: AttemptNo(1),
            endpoint: String::new(),
            settings: Arc::new(settings.clone()),
            bounded_by_job: false,
            delivered: false,
            estimate: None,
            call_ids: PassedHeaders::default(),
            task: None,
            started_at: sample::START,
            response_time_ms: 1,
            parts: Parts::default(),
            outcome: Arc::new(outcome),
        }
    }

    fn ends_of(job: &Job, outcome: GlmOutcome, cancelled: bool, settings: &Settings) -> Concluded {
        let finished = finished(job, outcome, settings);
        let (lane, model) = (LaneCondition::default(), ModelCondition::default());
        let context = JudgeContext {
            settings,
            lane: &lane,
            model: &model,
            foreign_answers: 0,
            route: None,
            blame: Blame::Unknown,
            eased: false,
            sent_at: sample::START,
            has_fallback: false,
            seed: 1,
            now: sample::START,
        };
        conclude(job, &finished, &SettleContext { context, cancelled })
    }

    fn kept_of(call: &CallRecord) -> Option<i64> {
        assert!(call.maybe_billed);
        call.reserved.map(|reserve| reserve.cost.unwrap().nanos)
    }

    #[test]
    fn a_plain_success_is_an_answer_of_the_model_that_was_asked_in_one_call() {
        let check = |model: Option<&str>, task: bool, want: bool| {
            let answer = GlmAnswer {
                body: AnswerBody::new("{}").unwrap(),
                status_code: 200,
                usage: Usage::default(),
                model: model.map(str::to_owned),
            };
            let answer = GlmOutcome::Answered(answer);
            let mut finished = finished(&job(), answer, &Settings::default());
            finished.task = task.then(|| AsyncTask {
                id: "t".to_owned(),
                left_open: false,
                account: String::new(),
            });
            assert_eq!(finished.is_plain_success("m"), want, "{model:?} {task}");
        };
        check(None, false, true);
        check(Some("m"), false, true);
        check(Some("dearer"), false, false);
        check(Some("m"), true, false);
    }

    #[test]
    fn a_doubt_is_worth_what_the_operator_says() {
        for (doubt, want) in [
            (Doubt::Worst, Some(50)),
            (Doubt::Prompt, Some(10)),
            (Doubt::None, None),
        ] {
            let settings = settings(doubt);
            for cancelled in [true, false] {
                let ended = ends(GlmOutcome::Aborted, cancelled, &settings);
                assert_eq!(kept_of(&ended.settlement.call), want, "{doubt:?}");
            }
            let lost = interrupted(&job(), Sent::Yes, &settings, sample::START);
            assert_eq!(kept_of(&lost.settlement.call), want, "{doubt:?}");
        }
    }

    #[test]
    fn a_kept_connection_that_ended_without_a_byte_is_worth_its_prompt_at_most() {
        for (doubt, want) in [
            (Doubt::Worst, Some(10)),
            (Doubt::Prompt, Some(10)),
            (Doubt::None, None),
        ] {
            let mut failure = Failure::new(
                FailureClass::ServerTransient,
                code::CONNECTION_ENDED,
                "the connection ended",
            );
            failure.maybe_billed = true;
            let outcome = GlmOutcome::Failed(failure, Usage::default());
            let ended = ends(outcome, false, &settings(doubt));
            assert_eq!(kept_of(&ended.settlement.call), want, "{doubt:?}");
        }
    }

    #[test]
    fn a_call_that_is_stopped_unsent_ends_with_the_connection_that_it_belongs_to() {
        let mut bound = job();
        bound.bound_to = Some(7);
        let settings = settings(Doubt::Worst);
        let stopped = ends_of(&bound, GlmOutcome::NotSent, false, &settings);
        assert!(matches!(stopped.settlement.next, Next::Cancelled));
        assert!(stopped.back_in_line.is_none());
    }

    #[test]
    fn what_never_left_fails_nobody_whichever_kinds_of_error_are_retried() {
        let mut settings = settings(Doubt::Worst);
        settings.retry.retryable_errors.clear();
        let stopped = ends(GlmOutcome::NotSent, false, &settings);
        let Next::Retry { counted, .. } = stopped.settlement.next else {
            panic!("{:?}", stopped.settlement.next)
        };
        assert!(!counted && stopped.back_in_line.is_some());
        for code in [code::TIMEOUT_CONNECT, code::UNREACHABLE] {
            let failure = Failure::new(FailureClass::Unreachable, code, "words");
            let failed = GlmOutcome::Failed(failure, Usage::default());
            let ended = ends(failed, false, &settings);
            assert!(matches!(
                ended.settlement.next,
                Next::Retry { counted: false, .. }
            ));
        }
    }

    #[test]
    fn a_job_shows_what_refuses_it_and_never_what_is_of_another_or_may_be_an_answer() {
        let settings = settings(Doubt::Worst);
        let shown = |status: u16, class, came: Received| {
            let failure = Failure {
                status_code: Some(status),
                received: Some(Arc::new(came)),
                ..Failure::new(class, "x", "words")
            };
            let ended = ends(
                GlmOutcome::Failed(failure, Usage::default()),
                false,
                &settings,
            );
            let Settlement { refusal, call, .. } = ended.settlement;
            (refusal.is_some(), call.received.is_some())
        };
        let text = || Received::new(&b"no"[..], Some("text/plain"));
        let json = || Received::new(&b"{\"error\":{}}"[..], None);
        let fatal = FailureClass::RequestFatal;
        assert_eq!(shown(404, fatal, text()), (true, false));
        assert_eq!(shown(404, fatal, json()), (true, false));
        assert_eq!(
            shown(404, fatal, text().begun()),
            (true, true),
            "it broke off"
        );
        assert_eq!(shown(200, fatal, json()), (true, true));
        assert_eq!(
            shown(200, fatal, text()),
            (false, true),
            "it may be an answer"
        );
        let foreign = FailureClass::ForeignAnswer;
        assert_eq!(shown(200, foreign, json().foreign()), (false, true));
    }

    #[test]
    fn what_was_never_sent_is_never_maybe_billed() {
        let settings = settings(Doubt::Worst);
        let given_up = ends(GlmOutcome::NotSent, true, &settings).settlement;
        assert_eq!(given_up.call.outcome, CallOutcome::Cancelled);
        let stopped = ends(GlmOutcome::NotSent, false, &settings);
        assert!(stopped.back_in_line.is_some(), "it keeps its place");
        for call in [given_up.call, stopped.settlement.call] {
            assert!(!call.maybe_billed);
            assert_eq!(call.reserved, None);
            assert!(!call.failure.is_some_and(|failure| failure.maybe_billed));
        }
    }
}
