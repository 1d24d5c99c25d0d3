//! Headers that pass through the lane: those of a client that GLM gets, and those by which GLM names a call.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::limits;

/// The headers of an answer by which GLM's gateways name the call that it answers.
pub const CALL_ID_HEADERS: [&str; 3] = ["x-log-id", "x-request-id", "request-id"];

/// Headers by their names in lower case, each of bounded length.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct PassedHeaders(BTreeMap<String, String>);

impl PassedHeaders {
    /// Adds one. `false`: it is empty, longer than [`limits::PASSED_HEADER_BYTES_MAX`], or no printable ASCII.
    pub fn add(&mut self, name: &str, value: &str) -> bool {
        let fits = (1..=limits::PASSED_HEADER_BYTES_MAX).contains(&value.len());
        let is_printable = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if fits && is_printable {
            self.0.insert(name.to_owned(), value.to_owned());
        }
        fits && is_printable
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.0.iter();
        all.map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_passes_that_is_printable_and_of_bounded_length() {
        let mut headers = PassedHeaders::default();
        let long = "x".repeat(limits::PASSED_HEADER_BYTES_MAX);
        assert!(headers.add("a", "1, 2") && headers.add("b", &long));
        for odd in ["", "a\nb", "é", &format!("{long}x")] {
            assert!(!headers.add("c", odd), "{odd}");
        }
        let all: Vec<_> = headers.iter().collect();
        assert_eq!(all, [("a", "1, 2"), ("b", long.as_str())]);
    }
}
