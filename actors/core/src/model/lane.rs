//! The lane's own state: paused, held, cooling down; and the breaker's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::job::is_zero;
use super::{ClockSteps, Timestamp, Unattributed, Wait};
use crate::words;

/// An operator's pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// Since when.
    pub since: Timestamp,
    /// What the operator said, if anything.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Why something is held; the later kinds outweigh the earlier.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum HoldKind {
    /// A call timed out, and GLM may still count it; ends by itself after the configured pause.
    AfterTimeout,
    /// A lane cools down after a throttle answer; ends by itself within minutes.
    Throttle,
    /// A model has no capacity; ends by itself within minutes.
    Overload,
    /// GLM can't be reached; ends by itself within minutes, for one call that tries.
    Unreachable,
    /// A quota window is used up; ends by itself at the stated reset.
    Quota,
    /// An operator has to change something; ends with a config change or a resume.
    Operator,
}

impl HoldKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::AfterTimeout,
        Self::Throttle,
        Self::Overload,
        Self::Unreachable,
        Self::Quota,
        Self::Operator,
    ];

    /// The name used in the API, in logs and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AfterTimeout => "after_timeout",
            Self::Throttle => "throttle",
            Self::Overload => "overload",
            Self::Unreachable => "unreachable",
            Self::Quota => "quota",
            Self::Operator => "operator",
        }
    }
}

words! {
    HoldKind { AfterTimeout, Throttle, Overload, Unreachable, Quota, Operator }
}

/// What a hold stops.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case", tag = "scope", content = "name")]
pub enum HoldScope {
    /// Everything: it is about the account.
    Account,
    /// One lane.
    Lane(String),
    /// One model.
    Model(String),
}

impl HoldScope {
    /// What kind of scope it is: the name used in the API and in metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Lane(_) => "lane",
            Self::Model(_) => "model",
        }
    }
}

impl fmt::Display for HoldScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account => f.write_str("the account"),
            Self::Lane(name) => write!(f, "lane {name}"),
            Self::Model(name) => write!(f, "model {name}"),
        }
    }
}

/// Calls are stopped for a stated reason. Jobs wait, none fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Which kind of stop.
    pub kind: HoldKind,
    /// GLM's code, or ours.
    pub code: String,
    /// What GLM said.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
    /// When it ends by itself; `None`: only an operator ends it.
    #[serde(default)]
    pub until: Option<Wait>,
}

/// A hold with what it stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ScopedHold {
    /// What it stops.
    #[serde(flatten)]
    pub scope: HoldScope,
    /// The hold.
    #[serde(flatten)]
    pub hold: Hold,
}

impl From<(HoldScope, &Hold)> for ScopedHold {
    fn from((scope, hold): (HoldScope, &Hold)) -> Self {
        Self {
            scope,
            hold: hold.clone(),
        }
    }
}

/// What automatic concurrency has learnt of a lane ([`crate::scheduler::adaptive`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LearntLimit {
    /// Calls in flight at most, for now.
    pub limit: u16,
    /// What GLM is believed to bear: growth up to here is quick, beyond it a rare trial.
    pub ceiling: u16,
    /// Failed trials beyond the ceiling in a row: each makes the next one rarer.
    pub failed_trials: u32,
    /// When the next trial beyond the ceiling may be made.
    pub next_trial_at: Wait,
    /// Calls that ended well in a full lane since the limit went beyond the ceiling: enough of them
    /// prove it.
    pub trial_successes: u16,
    /// When the limit was last lowered: a refusal of a call sent before says nothing new.
    #[serde(default)]
    pub decreased_at: Option<Timestamp>,
}

/// What of one lane's state outlives the process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LaneCondition {
    /// The hold in force on this lane alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Throttle answers in a row; the cool-down grows with it and a success resets it.
    pub throttle_level: u32,
    /// When a throttle answer was last judged: one to a call that was sent before says nothing new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled_at: Option<Timestamp>,
    /// What automatic concurrency has learnt; `None` without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learnt: Option<LearntLimit>,
}

/// What of one model's state outlives the process: its short breaker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelCondition {
    /// The hold in force on this model alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Overload answers in a row; the hold grows with it and a success resets it.
    pub overloads: u32,
    /// When an overload answer was last judged: one to a call that was sent before says nothing new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overloaded_at: Option<Timestamp>,
    /// An operator hold was ended by the slow probe: one call at a time until an answer shows that it
    /// was right.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probing: bool,
    /// Other models with a price of their own that have answered in its place, by their canonical names: what is
    /// reserved for a call counts them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub substitutes: BTreeSet<String>,
}

/// The way to GLM while nothing gets through. Forgotten as soon as something does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteCondition {
    /// Since when no call gets through.
    pub since: Timestamp,
    /// Calls in a row that never left; those that were sent together count as one.
    pub failures: u32,
    /// When one was last judged: one that was sent before says nothing new.
    pub failed_at: Timestamp,
    /// What the last one met.
    pub reason: String,
}

/// The name of the lane that takes every model that no other lane names.
pub const DEFAULT_LANE: &str = "default";

/// What of the state of all lanes outlives the process. Stored in the transaction that causes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SchedulerState {
    /// An operator's pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Pause>,
    /// An operator closed the intake: what waits is worked off, nothing more is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<Pause>,
    /// The hold in force on the account: it stops every lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// An operator hold was ended by the slow probe, and no answer has shown yet that it was right:
    /// one call at a time until then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probing: bool,
    /// Answers to other calls that came without a right one between.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub foreign_answers: u32,
    /// The way to GLM while no call gets through: one at a time tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteCondition>,
    /// Refusals that nobody is known to be to blame for.
    #[serde(default, skip_serializing_if = "Unattributed::is_empty")]
    pub unattributed: Unattributed,
    /// The lanes that have something to remember, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lanes: BTreeMap<String, LaneCondition>,
    /// The models that have something to remember, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, ModelCondition>,
    /// Digest of base URL and key when a hold began: another one on start means that the operator
    /// acted, and what was held for the old account is released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_digest: Option<String>,
    /// A crash left staged attempts that may have been sent, and not all of them are settled yet:
    /// until they are, the next crash leaves every staged attempt in doubt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_doubt: bool,
    /// When the wall clock was set lately: a lane's pace goes on after a restart from calls that were noted by it.
    #[serde(default, skip_serializing_if = "ClockSteps::is_empty")]
    pub clock_steps: ClockSteps,
}

impl SchedulerState {
    /// The models that may answer a call to this one, as far as it is known: itself, and those that have.
    pub fn may_answer<'s>(&'s self, model: &'s str) -> impl Iterator<Item = &'s str> {
        let condition = self.models.get(model).into_iter();
        let substitutes = condition.flat_map(|model| &model.substitutes);
        std::iter::once(model).chain(substitutes.map(String::as_str))
    }

    /// Every hold in force, with what it stops: the account's first, then the lanes', then the
    /// models'.
    pub fn holds(&self) -> impl Iterator<Item = (HoldScope, &Hold)> {
        let account = self.hold.iter().map(|hold| (HoldScope::Account, hold));
        let lanes = self
            .lanes
            .iter()
            .filter_map(|(name, lane)| Some((HoldScope::Lane(name.clone()), lane.hold.as_ref()?)));
        let models = self.models.iter().filter_map(|(name, model)| {
            Some((HoldScope::Model(name.clone()), model.hold.as_ref()?))
        });
        account.chain(lanes).chain(models)
    }
}

/// The states of the circuit breaker.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls go through.
    #[default]
    Closed,
    /// No call goes through until the cool-down is over.
    Open,
    /// One probe may go through.
    HalfOpen,
}

impl BreakerState {
    /// The name used in the API, in logs and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// The breaker as others see it and as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BreakerSnapshot {
    /// The state.
    pub state: BreakerState,
    /// Since when it is in that state.
    pub since: Timestamp,
    /// When an open breaker lets a probe through.
    #[serde(default)]
    pub probe_at: Option<Wait>,
    /// Failures in a row, of those that count.
    pub consecutive_failures: u32,
    /// How often failures have opened it without a success between: the cool-down grows with it.
    pub openings: u32,
    /// Calls in the window of the failure rate, as of the last outcome; once it has opened, those
    /// that were in it then.
    pub window_calls: u32,
    /// How many of them failed.
    pub window_failures: u32,
    /// The failure, or the operator's words, that opened it.
    #[serde(default)]
    pub reason: Option<String>,
    /// An operator opened it: no outcome moves it, and it stays open until an operator resets it, or
    /// until `probe_at` if the operator gave an end.
    #[serde(default)]
    pub forced: bool,
}
