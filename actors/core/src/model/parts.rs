//! Where the time of an attempt went.

use serde::{Deserialize, Serialize};

/// The parts of an attempt in milliseconds, as far as they are known: a transport that does not tell of its connection
/// leaves those out, and an answer that is not streamed has no first token before its last.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct Parts {
    /// Before it was sent: on record, and waiting for a slot.
    #[serde(rename = "staged", default, skip_serializing_if = "Option::is_none")]
    pub staged_ms: Option<u64>,
    /// Before it was sent: until its start was on disk, where the slot had to wait for that. The commit of its end is no
    /// part of it: this row is written by that.
    #[serde(rename = "commit", default, skip_serializing_if = "Option::is_none")]
    pub commit_ms: Option<u64>,
    /// From its beginning until its own connection stood: name, TCP and TLS. None of a call on a connection that was kept.
    #[serde(rename = "connect", default, skip_serializing_if = "Option::is_none")]
    pub connect_ms: Option<u64>,
    /// From its beginning until the headers of an answer were there.
    #[serde(rename = "firstByte", default, skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<u64>,
    /// From its beginning until a streamed answer told something.
    #[serde(
        rename = "firstToken",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub first_token_ms: Option<u64>,
}

impl Parts {
    /// Whether none is known.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// How fast answers came: tokens, and the time in which they did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Speed {
    /// Tokens that came in that time.
    pub tokens: u64,
    /// The time, in milliseconds.
    pub ms: u64,
}

impl Speed {
    /// Whether nothing came.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Adds another's. Sums are of what a server states, so they saturate.
    pub fn add(&mut self, other: Self) {
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.ms = self.ms.saturating_add(other.ms);
    }

    /// Tokens a second, in tenths, rounded; `None`: nothing came, or in no time.
    #[must_use]
    pub fn per_second_e1(self) -> Option<u64> {
        let ms = u128::from(self.ms);
        let tenths = (u128::from(self.tokens) * 10_000 + ms / 2).checked_div(ms)?;
        u64::try_from(tenths).ok().filter(|tenths| *tenths > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_a_second_are_those_of_all_answers_by_all_their_time() {
        let speed = |tokens, ms| Speed { tokens, ms }.per_second_e1();
        assert_eq!(speed(300, 6_000), Some(500));
        assert_eq!(speed(1, 3_000), Some(3));
        assert_eq!(speed(0, 6_000), None);
        assert_eq!(speed(300, 0), None);
        assert_eq!(speed(u64::MAX, 1), None, "more than anybody says");
    }
}
