//! What each class of failure does, as data: to the job, to the lane, to the breaker. The shipped
//! rules are [`FailureClass::rule`]; an operator may override them for a code.

use serde::{Deserialize, Serialize};

use super::FailureClass;

/// What happens to the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobRule {
    /// It goes back to its place; no retry is used up.
    Keep,
    /// It goes back to its place and uses up a retry; without one left it fails.
    Retry,
    /// It waits with a growing delay and uses up a retry; without one left it fails.
    Backoff,
    /// It fails at once.
    Fail,
}

/// What happens to the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaneRule {
    /// Nothing.
    GoOn,
    /// The lane cools down, longer from one time to the next.
    CoolDown,
    /// The model is held, longer from one time to the next; a fallback model may serve.
    HoldModel,
    /// Everything is held until the stated reset.
    HoldUntilReset,
    /// Everything is held until an operator acts.
    HoldForOperator,
    /// The model is held until an operator acts.
    HoldModelForOperator,
}

/// What the breaker hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerRule {
    /// Nothing: this says nothing about the service.
    Ignore,
    /// A failure.
    Count,
    /// That it must open at once.
    Open,
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

/// An operator's word for one code: another class, or other rules than the class has. What is
/// `None` is as shipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyOverride {
    /// Another class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
    /// Another rule for the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobRule>,
    /// Another rule for the lane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<LaneRule>,
    /// Another rule for the breaker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerRule>,
}

impl From<FailureClass> for PolicyOverride {
    fn from(class: FailureClass) -> Self {
        Self {
            class: Some(class),
            ..Self::default()
        }
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
            Self::DuplicateRequest => (JobRule::Retry, LaneRule::GoOn, BreakerRule::Ignore),
        };
        Rule { job, lane, breaker }
    }
}
