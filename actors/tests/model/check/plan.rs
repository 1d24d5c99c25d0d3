//! How large a world is: what may happen in it, and how often.

use std::sync::Arc;

use onelane_actors::testing::sample;
use onelane_core::model::{
    Amount, Budget, BudgetRules, BudgetScope, CoolDownSettings, Failure, FailureClass, GlmAnswer,
    GlmOutcome, Job, JobId, NewJob, OverBudget, Period, Settings, Timestamp, Usage, WorstCase,
    limits,
};

use super::bugs::Bug;

/// What every call comes to, and the most that was said of it, in tokens.
pub(crate) const TOKENS: u32 = 10;
/// A day's budget has room for so many calls.
pub(crate) const CALLS_A_DAY: u64 = 2;
/// By how much the clock is set, in milliseconds.
pub(crate) const STEP_MS: u64 = 3_600_000;
/// No delay of a lane without a budget is longer, in milliseconds.
const DELAY_MS_MAX: u64 = 120_000;
/// From the beginning of a world with a budget to midnight, in milliseconds.
const EVENING_MS: u64 = 30_000;

/// How a call may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// GLM says 1302: too many calls.
    Throttle,
    /// GLM says 500. The breaker counts it.
    Broken,
    /// GLM was not reached.
    Unreachable,
}

impl Fault {
    pub(crate) const ALL: [Self; 3] = [Self::Throttle, Self::Broken, Self::Unreachable];
}

/// What may happen, and how often.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Jobs that come, at any moment, the last of them urgent.
    pub(crate) jobs: u8,
    /// Calls that may be open at once.
    pub(crate) slots: u16,
    /// `kill -9`.
    pub(crate) crashes: u8,
    /// Failures of the queue actor or of the store's, which open calls outlive.
    pub(crate) restarts: u8,
    /// Jobs that somebody gives up.
    pub(crate) cancels: u8,
    /// Calls that fail.
    pub(crate) failures: u8,
    /// How they do.
    pub(crate) faults: Vec<Fault>,
    /// The clock is set, on or back.
    pub(crate) clock_steps: u8,
    /// Operators' pauses.
    pub(crate) pauses: u8,
    /// Timers that fire although something else could happen first. One that alone can fire always may.
    pub(crate) early_ticks: u8,
    /// Whether a budget stops the third call of a day.
    pub(crate) has_budget: bool,
    /// What is wrong with it.
    pub(crate) bug: Option<Bug>,
}

impl Plan {
    /// Nothing goes wrong.
    pub(crate) fn calm(jobs: u8, slots: u16) -> Self {
        Self {
            jobs,
            slots,
            crashes: 0,
            restarts: 0,
            cancels: 0,
            failures: 0,
            faults: Fault::ALL.to_vec(),
            clock_steps: 0,
            pauses: 0,
            early_ticks: 0,
            has_budget: false,
            bug: None,
        }
    }

    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// No wait is longer, in milliseconds.
    pub(crate) fn longest_wait_ms(&self) -> u64 {
        match self.has_budget {
            true => limits::DAY_MS,
            false => DELAY_MS_MAX,
        }
    }

    /// When a world begins.
    pub(crate) fn begins_at(&self) -> Timestamp {
        match self.has_budget {
            true => sample::START.plus_ms(limits::DAY_MS - EVENING_MS),
            false => sample::START.plus_ms(limits::DAY_MS / 2),
        }
    }

    /// The settings that the lane has. Delays are short, so that a day is not in their way.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        let mut settings = Settings::default();
        let one_more = u16::from(self.has(Bug::OneSlotTooMany));
        settings.lane.rules.max_concurrency = self.slots + one_more;
        settings.breaker.consecutive_failures = 2;
        settings.breaker.cool_down_ms = 2_000;
        settings.retry.throttle = CoolDownSettings {
            base_ms: 4_000,
            max_ms: 60_000,
        };
        if self.has_budget {
            settings.budgets.push(Budget {
                key: None,
                name: "day".to_owned(),
                users: BudgetScope::All,
                models: BudgetScope::All,
                limit: Amount::Tokens(CALLS_A_DAY * u64::from(TOKENS)),
                rules: BudgetRules {
                    period: Period::Day,
                    warn_percent: 0,
                    over: OverBudget::Wait,
                },
            });
        }
        Arc::new(settings)
    }

    /// The id of the job with this number, which begins with 1.
    pub(crate) fn job_id(number: u8) -> JobId {
        sample::job_id(u64::from(number))
    }

    pub(crate) fn new_job(&self, number: u8) -> Arc<NewJob> {
        let new = sample::new_job(u64::from(number));
        let is_urgent = number == self.jobs && number > 1;
        Arc::new(NewJob {
            job: Job {
                priority: if is_urgent { 9 } else { 0 },
                worst: WorstCase {
                    prompt: TOKENS,
                    completion: 0,
                },
                ..new.job
            },
            ..new
        })
    }
}

/// GLM's answer to any call.
pub(crate) fn answered() -> GlmOutcome {
    GlmOutcome::Answered(GlmAnswer {
        body: sample::answer(1),
        status_code: 200,
        usage: Usage {
            prompt_tokens: u64::from(TOKENS),
            total_tokens: u64::from(TOKENS),
            ..Usage::default()
        },
        model: None,
    })
}

pub(crate) fn failed(fault: Fault) -> GlmOutcome {
    let (class, code) = match fault {
        Fault::Throttle => (FailureClass::Throttle, "1302"),
        Fault::Broken => (FailureClass::ServerTransient, "http_500"),
        Fault::Unreachable => (FailureClass::Unreachable, "connect"),
    };
    GlmOutcome::Failed(Failure::new(class, code, "words"), Usage::default())
}
