//! A persisted delay: until when, and how long it is. The wall clock may be set; what is left of a delay is never more
//! than its length.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// A delay that outlives the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// Its end, by the clock that it began with.
    pub until: Timestamp,
    /// Its length, in milliseconds.
    #[serde(rename = "length")]
    pub length_ms: u64,
}

impl Wait {
    /// One that begins now.
    #[must_use]
    pub fn from(now: Timestamp, length_ms: u64) -> Self {
        Self {
            until: now.plus_ms(length_ms),
            length_ms,
        }
    }

    /// Its end, as far as this clock tells.
    #[must_use]
    pub fn end(self, now: Timestamp) -> Timestamp {
        self.until.min(now.plus_ms(self.length_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_never_more_than_the_length_whatever_the_clock_does() {
        let at = Timestamp::from_millis;
        let wait = Wait::from(at(1_000_000), 500);
        assert_eq!(wait.end(at(1_000_000)), at(1_000_500));
        assert_eq!(wait.end(at(1_000_400)), at(1_000_500));
        assert_eq!(wait.end(at(9_000_000)), at(1_000_500), "over");
        assert_eq!(wait.end(at(2_000)), at(2_500), "an hour back");
        assert_eq!(wait.end(at(-7)), at(493));
    }
}
