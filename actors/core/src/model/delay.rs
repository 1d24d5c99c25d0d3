//! A persisted delay: until when, and how long it is. The wall clock may be set; what is left of a delay is never more
//! than its length.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Deserializer;
use serde::ser::{Serialize, SerializeStruct as _, Serializer};
use serde::{Deserialize, de};

use super::Timestamp;

/// A delay that outlives the process. A row keeps both members; on the wire it is the moment at which it ends.
///
/// Whoever waits looks at [`Wait::left_ms`], or calls [`Wait::mind_the_clock`] where the clock may have been set: else
/// the rest of a delay would not grow less until such a clock has caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wait {
    /// Its end, by the clock that it began with.
    pub until: Timestamp,
    /// Its length, in milliseconds.
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

    /// One that begins now and ends at this moment.
    #[must_use]
    pub fn between(now: Timestamp, until: Timestamp) -> Self {
        Self {
            until,
            length_ms: until.since(now),
        }
    }

    /// What is left of it, in milliseconds.
    #[must_use]
    pub fn left_ms(self, now: Timestamp) -> u64 {
        self.until.since(now).min(self.length_ms)
    }

    /// Whether nothing is left of it.
    #[must_use]
    pub fn is_over(self, now: Timestamp) -> bool {
        self.left_ms(now) == 0
    }

    /// When it ends, as far as this clock tells; the moment at which it did, if it has.
    #[must_use]
    pub fn end(self, now: Timestamp) -> Timestamp {
        self.until.min(now.plus_ms(self.length_ms))
    }

    /// The same as a clock that says this shows it: until [`Wait::end`].
    #[must_use]
    pub fn as_told(self, now: Timestamp) -> Self {
        Self {
            until: self.end(now),
            ..self
        }
    }

    /// Where the clock was set back behind its beginning nobody knows how much of it is over: it begins again. Tells
    /// whether it did.
    pub fn mind_the_clock(&mut self, now: Timestamp) -> bool {
        let end = self.end(now);
        let was = std::mem::replace(&mut self.until, end);
        was != end
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.until.fmt(f)
    }
}

impl Serialize for Wait {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return self.until.serialize(serializer);
        }
        let mut row = serializer.serialize_struct("Wait", 2)?;
        row.serialize_field("until", &self.until)?;
        row.serialize_field("length", &self.length_ms)?;
        row.end()
    }
}

impl<'de> Deserialize<'de> for Wait {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Row {
            until: Timestamp,
            length: u64,
        }
        let Row { until, length } = Row::deserialize(deserializer)?;
        Ok(Self {
            until,
            length_ms: length,
        })
    }
}

impl JsonSchema for Wait {
    fn inline_schema() -> bool {
        Timestamp::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        Timestamp::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Timestamp::json_schema(generator)
    }
}

/// What a job waits for before its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A moment of the wall clock, which its submitter named.
    At(Timestamp),
    /// A delay.
    After(Wait),
}

impl Due {
    /// When it is due, by a clock that says this.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::After(wait) => wait.end(now),
        }
    }

    /// The moment at which it is due, unless the clock is set.
    #[must_use]
    pub const fn moment(self) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::After(wait) => wait.until,
        }
    }

    /// The clock may have been set: a delay is not longer for it, a moment stays what it is.
    pub fn mind_the_clock(&mut self, now: Timestamp) {
        if let Self::After(wait) = self {
            wait.mind_the_clock(now);
        }
    }
}

impl Serialize for Due {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::At(at) => at.serialize(serializer),
            Self::After(wait) => wait.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Due {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> de::Visitor<'de> for Either {
            type Value = Due;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a moment, or a delay with `until` and `length`")
            }

            fn visit_i64<E: de::Error>(self, ms: i64) -> Result<Due, E> {
                Ok(Due::At(Timestamp::from_millis(ms)))
            }

            fn visit_u64<E: de::Error>(self, ms: u64) -> Result<Due, E> {
                i64::try_from(ms)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(ms), &self))
                    .and_then(|ms| self.visit_i64(ms))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Due, A::Error> {
                Wait::deserialize(de::value::MapAccessDeserializer::new(map)).map(Due::After)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn what_is_left_is_never_more_than_the_length_whatever_the_clock_does() {
        let wait = Wait::from(at(1_000_000), 500);
        let cases = [
            (1_000_000, 500, 1_000_500),
            (1_000_400, 100, 1_000_500),
            (9_000_000, 0, 1_000_500),
            // An hour back, and before the epoch.
            (2_000, 500, 2_500),
            (-7, 500, 493),
            (i64::MIN, 500, i64::MIN + 500),
            (i64::MAX, 0, 1_000_500),
        ];
        for (now, left, end) in cases {
            assert_eq!(wait.left_ms(at(now)), left, "{now}");
            assert_eq!(wait.end(at(now)), at(end), "{now}");
            assert_eq!(wait.is_over(at(now)), left == 0, "{now}");
        }
        assert_eq!(
            Wait::between(at(7), at(3)).left_ms(at(0)),
            0,
            "never negative"
        );
    }

    proptest::proptest! {
        /// However often the clock is set back and forth, a delay is over once it has lasted for its length since
        /// the clock was last set back.
        #[test]
        fn a_delay_that_is_minded_ends_after_its_length_at_the_latest(
            length in 0_u64..10_000,
            steps in proptest::collection::vec(-1_000_000_i64..1_000_000, 0..8),
        ) {
            let mut now = at(1_000_000_000);
            let mut wait = Wait::from(now, length);
            for step in steps {
                now = at(now.as_millis() + step);
                let before = wait.left_ms(now);
                wait.mind_the_clock(now);
                proptest::prop_assert_eq!(wait.left_ms(now), before);
                proptest::prop_assert!(wait.until <= now.plus_ms(length));
            }
            proptest::prop_assert!(wait.is_over(now.plus_ms(length)));
        }
    }

    #[test]
    fn a_row_keeps_both_and_the_wire_tells_a_moment() {
        let wait = Wait::from(at(1_000), 500);
        let wire = serde_json::to_value(wait).unwrap();
        assert_eq!(wire, serde_json::json!("1970-01-01T00:00:01.500Z"));
        let row = serde_json::json!({"until": 1_500, "length": 500});
        assert_eq!(serde_json::from_value::<Wait>(row.clone()).unwrap(), wait);
        let due: Due = serde_json::from_value(row).unwrap();
        assert_eq!(due, Due::After(wait));
        let due: Due = serde_json::from_value(serde_json::json!(-3)).unwrap();
        assert_eq!(due, Due::At(at(-3)));
        assert!(serde_json::from_value::<Due>(serde_json::json!(true)).is_err());
    }
}
