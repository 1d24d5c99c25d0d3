//! What operators did: a row for each order that changes something, or shows what is somebody's own.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{JobId, Timestamp};

/// The id of a row: of version 7, so that rows sort by the time at which the orders came.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct AuditId(
    #[serde(with = "uuid::serde::hyphenated")]
    #[schemars(with = "Uuid")]
    Uuid,
);

impl AuditId {
    /// From a fresh id of the Ids port.
    #[must_use]
    pub const fn of(fresh: JobId) -> Self {
        Self(Uuid::from_bytes(*fresh.as_bytes()))
    }

    /// The sixteen bytes that are the key in the store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for AuditId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for AuditId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// Who gave an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActedBy {
    /// Whoever has the admin token.
    Admin,
    /// Somebody on this machine, where no token is set.
    Local,
}

/// By which way it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActedFrom {
    /// A page of the desk.
    Page,
    /// The API.
    Api,
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActedHow {
    /// It was begun. How it ended is not known: it goes on, or the process died.
    Begun,
    /// It was carried out.
    Done,
    /// It was refused, or failed.
    Refused,
}

/// An order, as it is on record from before it is carried out.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Its id.
    pub id: AuditId,
    /// When it came.
    pub at: Timestamp,
    /// Who gave it.
    pub by: ActedBy,
    /// By which way it came.
    pub from: ActedFrom,
    /// The endpoint: its method and its path, with parameters in braces.
    pub what: String,
    /// What it was about: the parameters of the path, such as a job's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// What it said; of a change of the configuration the settings that it changed, each with its value before and
    /// after, secrets masked. The beginning of it, as a text, where it was long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub detail: Option<Box<RawValue>>,
    /// What became of it.
    pub outcome: ActedHow,
    /// How many it touched, where it was about many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
