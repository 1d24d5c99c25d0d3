//! The lane's own state: paused, held, cooling down; and the breaker's.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// An operator's pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Since when.
    pub since: Timestamp,
    /// What the operator said, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why the lane is held; the later kinds outweigh the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldKind {
    /// Cooling down after a throttle answer; ends by itself within minutes.
    Throttle,
    /// A quota window is used up; ends by itself at the stated reset.
    Quota,
    /// An operator has to change something; ends with a config change or a resume.
    Operator,
}

impl HoldKind {
    /// The name used in the API, in logs and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Throttle => "throttle",
            Self::Quota => "quota",
            Self::Operator => "operator",
        }
    }
}

/// The lane is stopped for a stated reason. Jobs wait, none fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What of the lane's state outlives the process. Stored in the transaction that causes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LaneState {
    /// An operator's pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Pause>,
    /// The hold in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Throttle answers in a row; the cool-down grows with it and a success resets it.
    #[serde(default)]
    pub throttle_level: u32,
    /// Digest of base URL and key when the hold began: another one on start means that the
    /// operator acted, and an operator hold ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_digest: Option<String>,
    /// A crash left staged attempts that may have been sent, and not all of them are settled yet:
    /// until they are, the next crash leaves every staged attempt in doubt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_doubt: bool,
}

/// The states of the circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BreakerSnapshot {
    /// The state.
    pub state: BreakerState,
    /// Since when it is in that state.
    pub since: Timestamp,
    /// When an open breaker lets a probe through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_at: Option<Timestamp>,
    /// Failures in a row, of those that count.
    pub consecutive_failures: u32,
    /// How often it has opened without a success between: the cool-down grows with it.
    pub openings: u32,
    /// The failure that opened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
