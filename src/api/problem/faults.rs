//! What is wrong with the parts of a request.

use schemars::JsonSchema;
use serde::Serialize;

use crate::api::limits;

/// One wrong part of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(in crate::api) struct FieldError {
    /// Where: `priority`, `[3].priority`, or the name of a query parameter.
    pub(in crate::api) field: String,
    /// What is wrong and what would be right.
    pub(in crate::api) problem: String,
}

impl FieldError {
    /// The error of one field.
    pub(in crate::api) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

/// The wrong parts of a request: the first of them, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::api) struct Faults {
    pub(in crate::api) first: Vec<FieldError>,
    pub(in crate::api) total: usize,
}

impl Faults {
    /// Whether nothing is wrong.
    pub(in crate::api) const fn is_none(&self) -> bool {
        self.total == 0
    }

    /// Adds one; what would not be listed is counted alone, so its words are not made.
    pub(in crate::api) fn add(&mut self, error: impl FnOnce() -> FieldError) {
        self.total += 1;
        if self.first.len() < limits::ERRORS_SHOWN_MAX {
            self.first.push(error());
        }
    }

    /// Adds those of another part.
    pub(in crate::api) fn extend(&mut self, other: Self) {
        self.total += other.total;
        let room = limits::ERRORS_SHOWN_MAX.saturating_sub(self.first.len());
        self.first.extend(other.first.into_iter().take(room));
    }
}

impl From<Vec<FieldError>> for Faults {
    fn from(first: Vec<FieldError>) -> Self {
        Self {
            total: first.len(),
            first,
        }
    }
}
