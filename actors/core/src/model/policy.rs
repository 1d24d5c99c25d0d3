//! What each class of failure does, as data: to the job, to the lane, to the breaker. The shipped
//! rules are [`FailureClass::rule`]; an operator may override them for a code.

use serde::{Deserialize, Serialize};

use super::{Failure, FailureClass, RetryableError, Settings};
use crate::{section, words};

/// What happens to the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobRule {
    /// It goes back to its place; no retry is used up.
    Keep,
    /// It goes back to its place and uses up a retry; without one left it fails.
    Retry,
    /// It waits with a growing delay and uses up a retry; without one left it fails.
    Backoff,
    /// As `backoff`, but once: it was paid for, and a second time it fails.
    Once,
    /// It steps aside until other jobs show whose fault it is; where none is left to show it, as `backoff`.
    StepAside,
    /// It fails at once.
    Fail,
}

impl JobRule {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Keep,
        Self::Retry,
        Self::Backoff,
        Self::Once,
        Self::StepAside,
        Self::Fail,
    ];

    /// The name used in configuration and API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Retry => "retry",
            Self::Backoff => "backoff",
            Self::Once => "once",
            Self::StepAside => "step_aside",
            Self::Fail => "fail",
        }
    }
}

/// What happens to the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LaneRule {
    /// Nothing.
    GoOn,
    /// The lane cools down, longer from one time to the next.
    CoolDown,
    /// The model is held, longer from one time to the next; a fallback model may serve.
    HoldModel,
    /// Everything waits, longer from one time to the next, until a call gets through to GLM.
    AwaitRoute,
    /// Everything is held until the stated reset.
    HoldUntilReset,
    /// Everything is held until an operator acts.
    HoldForOperator,
    /// The model is held until an operator acts.
    HoldModelForOperator,
    /// Everything is held until an operator acts, if it happens again before an answer.
    HoldIfAgain,
}

impl LaneRule {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::GoOn,
        Self::CoolDown,
        Self::HoldModel,
        Self::AwaitRoute,
        Self::HoldUntilReset,
        Self::HoldForOperator,
        Self::HoldModelForOperator,
        Self::HoldIfAgain,
    ];

    /// The name used in configuration and API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GoOn => "go_on",
            Self::CoolDown => "cool_down",
            Self::HoldModel => "hold_model",
            Self::AwaitRoute => "await_route",
            Self::HoldUntilReset => "hold_until_reset",
            Self::HoldForOperator => "hold_for_operator",
            Self::HoldModelForOperator => "hold_model_for_operator",
            Self::HoldIfAgain => "hold_if_again",
        }
    }
}

/// What the breaker hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerRule {
    /// Nothing: this says nothing about the service.
    Ignore,
    /// A failure.
    Count,
    /// That it must open at once.
    Open,
}

impl BreakerRule {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ignore, Self::Count, Self::Open];

    /// The name used in configuration and API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::Count => "count",
            Self::Open => "open",
        }
    }
}

/// The three together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// For the job.
    pub job: JobRule,
    /// For the lane.
    pub lane: LaneRule,
    /// For the breaker.
    pub breaker: BreakerRule,
}

section! {
    /// An operator's word for one code: another class, or other rules than the class has. What is `None` is as
    /// shipped.
    #[derive(Copy, Eq)]
    pub struct PolicyOverride {
        /// Another class, with all that belongs to it.
        class: Option<FailureClass> = None => [left_out().sample("\"server_transient\"")];
        /// What happens to the job.
        job: Option<JobRule> = None => [left_out().sample("\"backoff\"")];
        /// What happens to the lane.
        lane: Option<LaneRule> = None => [left_out().sample("\"cool_down\"")];
        /// What the breaker hears.
        breaker: Option<BreakerRule> = None => [left_out().sample("\"ignore\"")];
    }
}

words! {
    JobRule { Keep, Retry, Backoff, Once, StepAside, Fail }
    LaneRule {
        GoOn, CoolDown, HoldModel, AwaitRoute, HoldUntilReset, HoldForOperator, HoldModelForOperator,
        HoldIfAgain,
    }
    BreakerRule { Ignore, Count, Open }
    FailureClass {
        Throttle, Overload, QuotaWindow, OperatorFatal, RequestFatal, ServerTransient, Unreachable,
        Unattributed, DuplicateRequest, ForeignAnswer,
    }
}

impl From<FailureClass> for PolicyOverride {
    fn from(class: FailureClass) -> Self {
        Self {
            class: Some(class),
            ..Self::default()
        }
    }
}

impl PolicyOverride {
    /// This word where it says something, `below` where it does not.
    #[must_use]
    pub fn or(self, below: Self) -> Self {
        Self {
            class: self.class.or(below.class),
            job: self.job.or(below.job),
            lane: self.lane.or(below.lane),
            breaker: self.breaker.or(below.breaker),
        }
    }

    /// A class's rule with this word laid over it.
    #[must_use]
    pub fn over(self, rule: Rule) -> Rule {
        Rule {
            job: self.job.unwrap_or(rule.job),
            lane: self.lane.unwrap_or(rule.lane),
            breaker: self.breaker.unwrap_or(rule.breaker),
        }
    }
}

impl Settings {
    /// What a failure means here: its class and what follows. The word for its code in
    /// [`Settings::policy`] counts before the failure's own class and that class's rule, and before
    /// [`RetrySettings::retryable_errors`](super::RetrySettings).
    #[must_use]
    pub fn decide(&self, failure: &Failure) -> (FailureClass, Rule) {
        let word = self.policy.get(&failure.code).copied().unwrap_or_default();
        let class = word.class.unwrap_or(failure.class);
        let mut rule = word.over(class.rule());
        let kind = RetryableError::of(class, &failure.code);
        // `once` is what the shipped table says of answers that can't be read.
        let is_said = word.class.is_some() || word.job.is_some_and(|job| job != JobRule::Once);
        // Under one code stand answers that had begun and calls that brought nothing.
        if !is_said && rule.job == JobRule::Backoff && failure.is_unread() {
            rule.job = JobRule::Once;
        }
        let left_out = |kind| !self.retry.retryable_errors.contains(&kind);
        if !is_said && kind.is_some_and(left_out) {
            rule.job = JobRule::Fail;
        }
        (class, rule)
    }
}

impl FailureClass {
    /// What the class does by itself.
    #[must_use]
    pub const fn rule(self) -> Rule {
        let (job, lane, breaker) = match self {
            Self::Throttle => (JobRule::Keep, LaneRule::CoolDown, BreakerRule::Ignore),
            Self::Overload => (JobRule::Retry, LaneRule::HoldModel, BreakerRule::Ignore),
            Self::QuotaWindow => (JobRule::Keep, LaneRule::HoldUntilReset, BreakerRule::Ignore),
            Self::OperatorFatal => (
                JobRule::Keep,
                LaneRule::HoldForOperator,
                BreakerRule::Ignore,
            ),
            Self::RequestFatal => (JobRule::Fail, LaneRule::GoOn, BreakerRule::Ignore),
            Self::ServerTransient => (JobRule::Backoff, LaneRule::GoOn, BreakerRule::Count),
            Self::Unreachable => (JobRule::Keep, LaneRule::AwaitRoute, BreakerRule::Ignore),
            Self::Unattributed => (JobRule::StepAside, LaneRule::GoOn, BreakerRule::Ignore),
            Self::DuplicateRequest => (JobRule::Retry, LaneRule::GoOn, BreakerRule::Ignore),
            Self::ForeignAnswer => (JobRule::Retry, LaneRule::HoldIfAgain, BreakerRule::Ignore),
        };
        Rule { job, lane, breaker }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(word: Option<PolicyOverride>) -> (FailureClass, Rule) {
        let mut settings = Settings::default();
        settings
            .policy
            .extend(word.map(|word| ("1311".to_owned(), word)));
        settings.decide(&Failure::new(FailureClass::OperatorFatal, "1311", "words"))
    }

    #[test]
    fn without_a_word_the_failures_class_and_its_rule_count() {
        let class = FailureClass::OperatorFatal;
        assert_eq!(decided(None), (class, class.rule()));
        assert_eq!(decided(Some(PolicyOverride::default())), decided(None));
    }

    #[test]
    fn a_rules_name_is_its_stored_form() {
        for rule in JobRule::ALL {
            assert_eq!(serde_json::to_value(rule).unwrap(), rule.name());
        }
        for rule in LaneRule::ALL {
            assert_eq!(serde_json::to_value(rule).unwrap(), rule.name());
        }
        for rule in BreakerRule::ALL {
            assert_eq!(serde_json::to_value(rule).unwrap(), rule.name());
        }
        for class in FailureClass::ALL {
            assert_eq!(serde_json::to_value(class).unwrap(), class.name());
        }
    }

    #[test]
    fn a_word_for_a_code_changes_the_class_or_single_rules() {
        let class = FailureClass::Overload;
        assert_eq!(decided(Some(class.into())), (class, class.rule()));

        let lane = LaneRule::HoldModelForOperator;
        let word = PolicyOverride {
            lane: Some(lane),
            ..PolicyOverride::default()
        };
        let shipped = FailureClass::OperatorFatal;
        let rule = Rule {
            lane,
            ..shipped.rule()
        };
        assert_eq!(decided(Some(word)), (shipped, rule));

        let word = PolicyOverride {
            class: Some(class),
            job: Some(JobRule::Fail),
            lane: Some(LaneRule::GoOn),
            breaker: Some(BreakerRule::Open),
        };
        let rule = Rule {
            job: JobRule::Fail,
            lane: LaneRule::GoOn,
            breaker: BreakerRule::Open,
        };
        assert_eq!(decided(Some(word)), (class, rule));
    }
}
