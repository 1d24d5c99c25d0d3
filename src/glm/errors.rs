//! The table of GLM's error codes, shipped as data: which code means what, and is of which class.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use onelane_actors::model::FailureClass;
use serde::{Deserialize, Serialize};

/// What a row says of its failure's class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowClass {
    /// The code inside the body decides: a 200 that carries an error.
    MapByInnerCode,
    /// This class.
    #[serde(untagged)]
    Is(FailureClass),
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorRow {
    /// GLM's code, `http_NNN`, `finish:REASON`, or one of the transport's own.
    pub code: String,
    /// The HTTP status it comes with; `None` where nobody documents one.
    pub http_status: Option<u16>,
    /// What it means.
    pub meaning: String,
    /// Its class.
    pub class: RowClass,
}

/// All rows, by code.
#[derive(Debug, Clone, Default)]
pub struct ErrorTable {
    rows: BTreeMap<String, ErrorRow>,
}

/// Read once; that it can be read is a test below, since the file is part of the program.
static SHIPPED: LazyLock<ErrorTable> = LazyLock::new(|| {
    let rows: Vec<ErrorRow> = serde_json::from_str(include_str!("errors.json")).unwrap_or_default();
    ErrorTable {
        rows: rows.into_iter().map(|r| (r.code.clone(), r)).collect(),
    }
});

impl ErrorTable {
    /// The table that comes with the program.
    #[must_use]
    pub fn shipped() -> &'static Self {
        &SHIPPED
    }

    /// The row of a code.
    #[must_use]
    pub fn row(&self, code: &str) -> Option<&ErrorRow> {
        self.rows.get(code)
    }

    /// The class of a code; `None` for a code that the table does not know.
    #[must_use]
    pub fn class(&self, code: &str) -> Option<FailureClass> {
        match self.row(code)?.class {
            RowClass::Is(class) => Some(class),
            RowClass::MapByInnerCode => None,
        }
    }

    /// All rows, ordered by code.
    pub fn rows(&self) -> impl Iterator<Item = &ErrorRow> {
        self.rows.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_table_is_whole() {
        let table = ErrorTable::shipped();
        assert_eq!(table.rows().count(), 59);
        assert_eq!(table.class("1302"), Some(FailureClass::Throttle));
        assert_eq!(table.class("1113"), Some(FailureClass::OperatorFatal));
        assert_eq!(table.class("body:200_error"), None);
        assert_eq!(table.class("9999"), None);
        // The key point of the table: most 429 are not worth a quick retry.
        let quick = |row: &&ErrorRow| {
            matches!(
                row.class,
                RowClass::Is(FailureClass::Throttle | FailureClass::Overload)
            )
        };
        let too_many = table.rows().filter(|r| r.http_status == Some(429));
        let (retry, wait): (Vec<_>, Vec<_>) = too_many.partition(quick);
        let codes: Vec<&str> = retry.iter().map(|r| r.code.as_str()).collect();
        assert_eq!(codes, ["1302", "1303", "1305", "1312"]);
        assert!(wait.len() > 16, "{}", wait.len());
    }
}
