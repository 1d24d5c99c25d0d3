//! How a store is: its size, its age, and whether its tables agree. For stores that can tell.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{StatusCounts, Timestamp};

/// The figures of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreFigures {
    /// The version of its tables.
    pub version: u64,
    /// Its tables, by name.
    pub tables: Vec<TableFigures>,
    /// Jobs by status; `None`: that can't be read.
    pub jobs: Option<StatusCounts>,
    /// When the oldest and the newest job were accepted.
    pub jobs_accepted: Option<TimeSpan>,
    /// When the oldest and the newest call of the log ended.
    pub calls_ended: Option<TimeSpan>,
    /// Rows that retention would remove now; `None`: it keeps all for ever.
    pub prunable: Option<Prunable>,
    /// The figures that a damaged file does not give.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
}

/// From the oldest to the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimeSpan {
    /// The oldest.
    pub oldest: Timestamp,
    /// The newest.
    pub newest: Timestamp,
}

impl TimeSpan {
    /// Both.
    #[must_use]
    pub const fn ends(self) -> [Timestamp; 2] {
        [self.oldest, self.newest]
    }

    /// The span of these moments; `None` without any.
    #[must_use]
    pub fn over(moments: impl IntoIterator<Item = Timestamp>) -> Option<Self> {
        moments.into_iter().fold(None, |span: Option<Self>, at| {
            Some(Self {
                oldest: span.map_or(at, |span| span.oldest.min(at)),
                newest: span.map_or(at, |span| span.newest.max(at)),
            })
        })
    }
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableFigures {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// The bytes that it takes in the file, those in half-empty pages included; `None`: that can't be read.
    pub bytes: Option<u64>,
}

/// Rows that a pruning would remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Prunable {
    /// Jobs.
    pub jobs: u64,
    /// Requests and responses of jobs that stay.
    pub bodies: u64,
    /// Rows of the call log.
    pub calls: u64,
}

/// The findings of a check.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Findings {
    /// How many findings there are.
    #[serde(rename = "findingsTotal")]
    pub total: u64,
    /// The first of them.
    #[serde(rename = "findings")]
    pub first: Vec<Finding>,
}

impl Findings {
    /// Adds one to those that are listed.
    pub fn note(&mut self, table: &str, problem: String) {
        self.total += 1;
        let table = table.to_owned();
        self.first.push(Finding { table, problem });
    }
}

/// One thing that is not in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// The table that it was found in.
    pub table: String,
    /// The problem in words.
    pub problem: String,
}
