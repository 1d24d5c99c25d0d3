//! Alerts: what is bad now, and what was. The rules are in `alert_rule.rs`.

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::money::amount;
use super::{Nanos, ScopedHold, Timestamp, Watched, limits};

/// What an alert is about; at most one alert is active for each.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct AlertKey {
    /// The rule's name.
    pub rule: String,
    /// Which one, where a rule watches several: a currency, a budget, a hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

impl AlertKey {
    /// The key of a rule that watches one thing.
    #[must_use]
    pub fn of(rule: &str) -> Self {
        Self {
            rule: rule.to_owned(),
            subject: None,
        }
    }

    /// The key of one of the things that a rule watches.
    #[must_use]
    pub fn about(rule: &str, subject: impl Into<String>) -> Self {
        Self {
            rule: rule.to_owned(),
            subject: Some(subject.into()),
        }
    }
}

impl fmt::Display for AlertKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Some(subject) => write!(f, "{} {subject}", self.rule),
            None => f.write_str(&self.rule),
        }
    }
}

/// Something is bad.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// What it is about.
    #[serde(flatten)]
    pub key: AlertKey,
    /// What the rule watches.
    pub on: Watched,
    /// What is bad, in words.
    pub message: String,
    /// The level at which it was raised.
    #[serde(serialize_with = "amount::serialize")]
    #[schemars(with = "f64")]
    pub level: Nanos,
    /// The level from which on it is raised.
    #[serde(serialize_with = "amount::serialize")]
    #[schemars(with = "f64")]
    pub threshold: Nanos,
    /// What both levels are counted in.
    pub unit: String,
    /// The hold that it is about, as it was then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<ScopedHold>,
    /// Since when it is raised.
    pub raised_at: Timestamp,
}

/// An alert that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClearedAlert {
    /// The alert.
    #[serde(flatten)]
    pub alert: Alert,
    /// When it was cleared.
    pub cleared_at: Timestamp,
}

/// What is bad and what was.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AlertBook {
    /// Active alerts, in the order of their rules' names.
    pub active: Vec<Alert>,
    /// The latest of those that are over, newest first.
    pub recent: VecDeque<ClearedAlert>,
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

    /// Moves an alert to those that are over; `None` if none is active for the key.
    pub fn clear(&mut self, key: &AlertKey, at: Timestamp) -> Option<ClearedAlert> {
        let index = self.active.iter().position(|alert| alert.key == *key)?;
        let over = ClearedAlert {
            alert: self.active.remove(index),
            cleared_at: at,
        };
        self.recent.push_front(over.clone());
        self.recent.truncate(limits::ALERTS_KEPT);
        Some(over)
    }
}
