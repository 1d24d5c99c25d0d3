//! What lists share: how long a page is and where it begins.

use onelane_core::model::limits::{PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::query::Cursor;

/// Which page of a list.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
pub(super) struct Page {
    /// Rows of a page; 50 without it.
    #[schemars(range(min = 1, max = PAGE_ROWS_MAX))]
    limit: Option<usize>,
    /// The `nextCursor` of the page before.
    cursor: Option<Cursor>,
}

impl Page {
    /// Rows of it.
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(PAGE_ROWS_DEFAULT)
    }

    /// Where it begins.
    pub(super) fn cursor(&self) -> Option<u64> {
        self.cursor.map(|cursor| cursor.0)
    }
}

/// Where the next page begins. As text: it may be larger than what a JavaScript number holds.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub(super) struct NextCursor(Option<String>);

impl From<Option<u64>> for NextCursor {
    fn from(cursor: Option<u64>) -> Self {
        Self(cursor.map(|cursor| cursor.to_string()))
    }
}
