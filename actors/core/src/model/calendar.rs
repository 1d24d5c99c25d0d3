//! The calendar that days and months are of: statistics and budgets are told in it.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, NaiveTime, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Day, Timestamp};
use crate::written;

/// A time zone: an offset, or a zone of the IANA database with its rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar(Zone);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zone {
    Fixed(FixedOffset),
    Named(Tz),
}

impl Default for Calendar {
    fn default() -> Self {
        Self(Zone::Named(Tz::UTC))
    }
}

impl FromStr for Calendar {
    type Err = String;

    /// Reads `UTC`, an offset such as `+08:00`, or a name such as `Asia/Shanghai`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with(['+', '-']) {
            let offset: FixedOffset = text
                .parse()
                .map_err(|_| format!("{text:?} is no offset such as \"+08:00\""))?;
            return Ok(Self(Zone::Fixed(offset)));
        }
        let named = text.parse().map(|zone| Self(Zone::Named(zone)));
        named.map_err(|_| {
            format!("{text:?} is no zone; give \"UTC\", an offset such as \"+08:00\", or a name such as \"Asia/Shanghai\"")
        })
    }
}

impl Serialize for Calendar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Calendar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

written!(Calendar);

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Zone::Fixed(offset) => write!(f, "{offset}"),
            Zone::Named(zone) => f.write_str(zone.name()),
        }
    }
}

impl Calendar {
    /// UTC+8, the time of GLM's price lists and quota windows.
    #[must_use]
    pub fn beijing() -> Self {
        FixedOffset::east_opt(8 * 3_600).map_or_else(Self::default, |zone| Self(Zone::Fixed(zone)))
    }

    /// The day of a moment.
    #[must_use]
    pub fn day(&self, at: Timestamp) -> Day {
        let Some(utc) = DateTime::<Utc>::from_timestamp_millis(at.as_millis()) else {
            return at.day();
        };
        day_of(match self.0 {
            Zone::Fixed(offset) => utc.with_timezone(&offset).date_naive(),
            Zone::Named(zone) => utc.with_timezone(&zone).date_naive(),
        })
    }

    /// The day of a moment, and the minute of that day.
    #[must_use]
    pub fn day_and_minute(&self, at: Timestamp) -> (Day, u16) {
        let day = self.day(at);
        let Some(utc) = DateTime::<Utc>::from_timestamp_millis(at.as_millis()) else {
            return (day, 0);
        };
        let time = match self.0 {
            Zone::Fixed(offset) => utc.with_timezone(&offset).time(),
            Zone::Named(zone) => utc.with_timezone(&zone).time(),
        };
        let minute = time.num_seconds_from_midnight() / 60;
        (day, u16::try_from(minute).unwrap_or(0))
    }

    /// The first moment of a day. Where a zone's rules skip midnight, the first moment after.
    #[must_use]
    pub fn start_of(&self, day: Day) -> Timestamp {
        let Some(midnight) = date_of(day).map(|date| date.and_time(NaiveTime::MIN)) else {
            return day.start();
        };
        // No zone skips more than a few hours.
        (0..=24)
            .filter_map(|half_hours| {
                let local =
                    midnight.checked_add_signed(chrono::TimeDelta::minutes(30 * half_hours))?;
                Some(match self.0 {
                    Zone::Fixed(offset) => offset
                        .from_local_datetime(&local)
                        .earliest()?
                        .timestamp_millis(),
                    Zone::Named(zone) => zone
                        .from_local_datetime(&local)
                        .earliest()?
                        .timestamp_millis(),
                })
            })
            .map(Timestamp::from_millis)
            .next()
            .unwrap_or_else(|| day.start())
    }
}

fn date_of(day: Day) -> Option<NaiveDate> {
    NaiveDate::from_ymd_opt(1970, 1, 1)?.checked_add_signed(chrono::TimeDelta::days(day.0.into()))
}

fn day_of(date: NaiveDate) -> Day {
    const EPOCH: i32 = 719_163;
    Day(date.num_days_from_ce() - EPOCH)
}

impl Day {
    /// The first day of this day's month.
    #[must_use]
    pub fn month(self) -> Self {
        date_of(self)
            .and_then(|date| date.with_day(1))
            .map_or(self, day_of)
    }

    /// The first day of the next month.
    #[must_use]
    pub fn next_month(self) -> Self {
        // From the first, 31 days reach the next month and never the one after.
        Self(self.month().0.saturating_add(31)).month()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Day {
        Day::parse(text).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn a_day_is_the_zones_own() {
        let check = |zone: &str, moment: &str, want: &str| {
            let calendar: Calendar = zone.parse().unwrap();
            assert_eq!(calendar.day(at(moment)), day(want), "{zone}");
            assert_eq!(calendar.to_string(), zone);
        };
        check("UTC", "2026-11-23T16:30:00Z", "2026-11-23");
        check("+08:00", "2026-11-23T16:30:00Z", "2026-11-24");
        check("Asia/Shanghai", "2026-11-23T15:59:59Z", "2026-11-23");
        check("America/New_York", "2026-11-24T04:59:59Z", "2026-11-23");
        assert!(
            "Mars"
                .parse::<Calendar>()
                .unwrap_err()
                .contains("Asia/Shanghai")
        );
        assert!("+99".parse::<Calendar>().unwrap_err().contains("+08:00"));
    }

    #[test]
    fn a_day_begins_with_its_first_moment_whatever_the_clocks_do() {
        for zone in "UTC -03:30 Europe/Berlin America/Sao_Paulo Africa/Cairo".split(' ') {
            let calendar: Calendar = zone.parse().unwrap();
            for n in 17_000..21_000 {
                let start = calendar.start_of(Day(n));
                assert_eq!(calendar.day(start), Day(n), "{zone} {}", Day(n));
                assert_eq!(
                    calendar.day(start.minus_ms(1)),
                    Day(n - 1),
                    "{zone} {}",
                    Day(n)
                );
            }
        }
    }

    #[test]
    fn months_follow_each_other() {
        let check = |text: &str, first: &str, next: &str| {
            assert_eq!(day(text).month(), day(first));
            assert_eq!(day(text).next_month(), day(next));
        };
        check("2026-11-23", "2026-11-01", "2026-12-01");
        check("2026-12-31", "2026-12-01", "2027-01-01");
        check("2024-02-29", "2024-02-01", "2024-03-01");
        check("2026-01-31", "2026-01-01", "2026-02-01");
        check("2026-11-01", "2026-11-01", "2026-12-01");
        check("1969-12-31", "1969-12-01", "1970-01-01");
        assert_eq!(Day(i32::MAX).month(), Day(i32::MAX), "beyond the calendar");
    }
}
