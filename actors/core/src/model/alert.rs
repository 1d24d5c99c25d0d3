//! Alerts: what is watched, from when on it is bad, and what is bad now.
//!
//! Every level is an integer in the unit of its rule, so that no comparison depends on rounding:
//! shares are counted in millionths, times in milliseconds, spending in nano-units an hour.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Cost, Currency, Hold, HoldKind, HoldScope, Timestamp, limits};
use crate::words;

/// The whole of a share: 100 % in millionths.
pub const WHOLE_SHARE: i64 = 1_000_000;

/// What an alert is about; at most one alert is active for each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKey {
    /// The share of recent calls that failed.
    ErrorRate,
    /// How long recent calls took that were answered.
    ResponseTime,
    /// Jobs that are due and wait for a slot.
    QueueLength,
    /// How long the oldest job that is due has waited.
    QueueAge,
    /// What the last hour cost in this currency.
    Spend(Currency),
    /// How much of this budget is used up.
    Budget(String),
    /// The breaker lets no call through.
    Breaker,
    /// Calls are held: of which, and for what kind of reason.
    Hold(HeldKey),
}

/// Which hold an alert is about: a second one that stops something else is another alert.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeldKey {
    /// The kind of reason.
    pub kind: HoldKind,
    /// What is stopped.
    pub scope: HoldScope,
}

impl AlertKey {
    /// The names of all rules.
    pub const RULES: [&str; 8] = [
        "error_rate",
        "response_time",
        "queue_length",
        "queue_age",
        "spend",
        "budget",
        "breaker",
        "hold",
    ];

    /// The rule's name, as in configuration, API, logs and metrics.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::ErrorRate => "error_rate",
            Self::ResponseTime => "response_time",
            Self::QueueLength => "queue_length",
            Self::QueueAge => "queue_age",
            Self::Spend(_) => "spend",
            Self::Budget(_) => "budget",
            Self::Breaker => "breaker",
            Self::Hold(_) => "hold",
        }
    }

    /// Which one, where a rule watches several: a currency, a budget, a kind of hold.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Spend(currency) => Some(currency.code()),
            Self::Budget(name) => Some(name),
            Self::Hold(held) => Some(held.kind.name()),
            _ => None,
        }
    }

    /// What a level of it is counted in, for people.
    #[must_use]
    pub fn unit(&self) -> String {
        match self {
            Self::ErrorRate | Self::Budget(_) => "share".to_owned(),
            Self::ResponseTime | Self::QueueAge => "ms".to_owned(),
            Self::QueueLength => "jobs".to_owned(),
            Self::Spend(currency) => format!("{currency}/h"),
            Self::Breaker | Self::Hold(_) => "count".to_owned(),
        }
    }

    /// A level as an exact decimal in that unit: a JSON number.
    #[must_use]
    pub fn decimal(&self, level: i64) -> String {
        let nanos = match self {
            Self::ErrorRate | Self::Budget(_) => level.saturating_mul(1_000),
            Self::Spend(_) => level,
            _ => return level.to_string(),
        };
        let currency = Currency::Cny;
        Cost { nanos, currency }.decimal()
    }
}

impl fmt::Display for AlertKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.subject()) {
            (Self::Hold(held), Some(kind)) => write!(f, "hold {kind} of {}", held.scope),
            (_, Some(subject)) => write!(f, "{} {subject}", self.rule()),
            (_, None) => f.write_str(self.rule()),
        }
    }
}

/// When a rule raises and when it clears. Between the two levels an alert stays what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Raised at this level or above.
    pub raise: i64,
    /// Cleared at this level or below; lower than `raise`.
    pub clear: i64,
    /// Only after it was so for this long without a break, in milliseconds; both ways.
    pub for_ms: u64,
}

/// Which calls a rule about calls looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallWindow {
    /// Those that ended in the last so many milliseconds.
    pub window_ms: u64,
    /// Where there were fewer, the latest so many count, [`CallWindow::reach_ms`] back at most; with fewer
    /// of those nothing is said.
    pub min_calls: u32,
}

impl CallWindow {
    /// How far back a lane with few calls is judged by them, in milliseconds.
    #[must_use]
    pub const fn reach_ms(self) -> u64 {
        self.window_ms.saturating_mul(12)
    }
}

/// What is said of many response times in one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// 95 of 100 calls are at least as fast.
    #[default]
    P95,
    /// The mean.
    Mean,
}

words! {
    Measure { P95, Mean }
}

/// The rules in force; one that is `None` or empty is off.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AlertSettings {
    /// On the share of calls that failed, in millionths.
    pub error_rate: Option<(Thresholds, CallWindow)>,
    /// On the response time, in milliseconds.
    pub response_time: Option<(Thresholds, CallWindow, Measure)>,
    /// On the jobs that are due.
    pub queue_length: Option<Thresholds>,
    /// On the wait of the oldest job that is due, in milliseconds.
    pub queue_age: Option<Thresholds>,
    /// On the costs of the last hour, in nano-units of each currency.
    pub spend: BTreeMap<Currency, Thresholds>,
    /// On the used share of each budget, in millionths.
    pub budget: Option<Thresholds>,
    /// On a breaker that is not closed, for so many milliseconds.
    pub breaker_for_ms: Option<u64>,
    /// On holds of these kinds, each for so many milliseconds.
    pub holds: BTreeMap<HoldKind, u64>,
}

/// Something is bad.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What it is about.
    pub key: AlertKey,
    /// Since when it is raised.
    pub raised_at: Timestamp,
    /// The level at which it was raised, in the unit of `key`.
    pub level: i64,
    /// The level from which on it is raised.
    pub threshold: i64,
    /// The hold that it is about, as it was then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, unit) = (&self.key, self.key.unit());
        match key {
            AlertKey::Breaker => f.write_str("the breaker lets no call through"),
            AlertKey::Hold(held) => {
                write!(f, "{} is held ({})", held.scope, held.kind.name())?;
                match &self.hold {
                    Some(hold) => write!(f, ": {} {}", hold.code, hold.message),
                    None => Ok(()),
                }
            }
            _ => write!(
                f,
                "{key} is {} {unit}, {} or more is too much",
                key.decimal(self.level),
                key.decimal(self.threshold)
            ),
        }
    }
}

/// An alert that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearedAlert {
    /// The alert.
    pub alert: Alert,
    /// When it was cleared.
    pub cleared_at: Timestamp,
}

/// What is bad and what was, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AlertBook {
    /// Active alerts, in the order of their keys.
    pub active: Vec<Alert>,
    /// Those that are over, newest first; [`limits::ALERTS_KEPT`] at most.
    pub past: VecDeque<ClearedAlert>,
}

impl AlertBook {
    /// The active alert of a key.
    #[must_use]
    pub fn active(&self, key: &AlertKey) -> Option<&Alert> {
        self.active.iter().find(|alert| alert.key == *key)
    }

    /// Adds an alert, unless one is active for its key.
    pub fn raise(&mut self, alert: Alert) {
        match self.active.binary_search_by(|a| a.key.cmp(&alert.key)) {
            Ok(_) => {}
            Err(at) => self.active.insert(at, alert),
        }
    }

    /// Moves an alert to the past; `None` if none is active for the key.
    pub fn clear(&mut self, key: &AlertKey, at: Timestamp) -> Option<ClearedAlert> {
        let index = self.active.iter().position(|alert| alert.key == *key)?;
        let past = ClearedAlert {
            alert: self.active.remove(index),
            cleared_at: at,
        };
        self.past.push_front(past.clone());
        self.past.truncate(limits::ALERTS_KEPT);
        Some(past)
    }
}
