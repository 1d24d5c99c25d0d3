//! Wall time as whole milliseconds. The lane never reads a clock: time comes in through the port.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A moment: milliseconds since 1970-01-01T00:00:00Z. Stored as that integer, shown as RFC 3339 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// RFC 3339 for people and programs, the integer for rows.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_i64(self.0)
        }
    }
}

/// Reads both forms, the integer of rows and the text of the wire: a buffered value does not say which
/// of them it came from.
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time in RFC 3339, like 2026-11-23T08:00:00Z")
            }

            fn visit_i64<E: de::Error>(self, ms: i64) -> Result<Timestamp, E> {
                Ok(Timestamp(ms))
            }

            fn visit_u64<E: de::Error>(self, ms: u64) -> Result<Timestamp, E> {
                i64::try_from(ms)
                    .map(Timestamp)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(ms), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::parse_rfc3339(text)
                    .or_else(|| Timestamp::beyond_rfc3339(text))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}

impl Timestamp {
    /// From milliseconds since the epoch.
    #[must_use]
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This moment plus `ms` milliseconds; saturates at the end of time.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)))
    }

    /// The moment `ms` milliseconds earlier, saturating.
    #[must_use]
    pub fn minus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)))
    }

    /// Milliseconds from `earlier` to this moment; 0 when `earlier` is later (a clock was set back).
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// The UTC calendar day of this moment.
    #[must_use]
    pub fn day(self) -> Day {
        Day(i32::try_from(self.0.div_euclid(86_400_000)).unwrap_or(i32::MAX))
    }

    /// RFC 3339 in UTC with milliseconds, as in every answer of the API.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        DateTime::<Utc>::from_timestamp_millis(self.0).map_or_else(
            || format!("{}ms", self.0),
            |t| t.to_rfc3339_opts(SecondsFormat::Millis, true),
        )
    }

    /// Reads RFC 3339 with any offset; `None` when the text is not that.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        DateTime::parse_from_rfc3339(text)
            .ok()
            .map(|t| Self(t.timestamp_millis()))
    }

    /// Reads what [`Timestamp::to_rfc3339`] writes of moments for which RFC 3339 has no year: what was stored is read again.
    fn beyond_rfc3339(text: &str) -> Option<Self> {
        if let Some(ms) = text.strip_suffix("ms") {
            return ms.parse().ok().map(Self);
        }
        let has_long_year = text.starts_with(['+', '-']);
        let moment = has_long_year.then(|| text.parse::<DateTime<Utc>>().ok())?;
        moment.map(|t| Self(t.timestamp_millis()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// A UTC calendar day, as days since 1970-01-01: the unit of the usage aggregates.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Day(pub i32);

impl Day {
    /// Reads `YYYY-MM-DD`; `None` when the text is not a day of the calendar in exactly that form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 10 {
            return None;
        }
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
        i32::try_from(date.signed_duration_since(epoch).num_days())
            .ok()
            .map(Self)
    }

    /// The first moment of the day.
    #[must_use]
    pub fn start(self) -> Timestamp {
        Timestamp(i64::from(self.0) * 86_400_000)
    }
}

impl std::str::FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| "must be a day such as \"2026-11-23\"".to_owned())
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp_millis(self.start().0) {
            Some(t) => write!(f, "{}", t.format("%Y-%m-%d")),
            None => write!(f, "day {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_reads_back_as_it_was_written() {
        for text in ["1970-01-01", "2026-11-23", "2024-02-29"] {
            assert_eq!(Day::parse(text).unwrap().to_string(), text);
        }
        for text in "2026-02-30|2026-1-1|26-01-01||2026-11-23T00:00:00Z".split('|') {
            assert_eq!(Day::parse(text), None, "{text}");
        }
    }

    #[test]
    fn any_moment_that_is_written_is_read_again() {
        for ms in [
            0,
            -1,
            253_402_300_800_000,
            1_795_420_800_800_000,
            -99_999_999_999_999,
            i64::MIN,
            i64::MAX,
        ] {
            let written = serde_json::to_string(&Timestamp(ms)).unwrap();
            let read: Timestamp = serde_json::from_str(&written).unwrap();
            assert_eq!(read, Timestamp(ms), "{written}");
        }
    }

    #[test]
    fn a_moment_belongs_to_its_utc_day() {
        let t = Timestamp::parse_rfc3339("2026-11-24T07:59:59+08:00").unwrap();
        assert_eq!(t.day().to_string(), "2026-11-23");
        assert_eq!(t.to_rfc3339(), "2026-11-23T23:59:59.000Z");
        assert_eq!(Timestamp::from_millis(-1).day().to_string(), "1969-12-31");
    }
}
