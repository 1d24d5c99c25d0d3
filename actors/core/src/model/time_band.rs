//! When a price counts: between two days, on some days of the week, in some hours of a zone.

use std::fmt;
use std::str::FromStr;

use super::{Calendar, Day, Timestamp};
use crate::{section, written};

section! {
    /// The times at which a price counts; what is not said bounds nothing.
    #[derive(Copy, Eq)]
    pub struct TimeBand {
        /// The price counts from this day on.
        valid_from: Option<Day> = None => [sample("\"2026-12-01\"")];
        /// The price counts to the end of this day.
        valid_until: Option<Day> = None => [sample("\"2026-12-31\"")];
        /// The price counts in these hours alone, there in place of a row that always counts.
        hours: Option<Hours> = None => [sample("\"14:00-18:00\"")];
        /// The price counts on these days of the week alone.
        days: Option<Weekdays> = None => [sample("\"mon-fri\"")];
        /// The zone that these days and hours are of; when left out GLM's own, +08:00.
        zone: Option<Calendar> = None => [sample("\"+08:00\"")];
    }
}

impl TimeBand {
    fn calendar(&self) -> Calendar {
        self.zone.unwrap_or_else(Calendar::beijing)
    }

    /// Whether nothing bounds it.
    #[must_use]
    pub const fn is_always(&self) -> bool {
        self.valid_from.is_none()
            && self.valid_until.is_none()
            && self.hours.is_none()
            && self.days.is_none()
    }

    /// The band as people read it; `None`: always.
    #[must_use]
    pub fn in_words(&self) -> Option<String> {
        if self.is_always() {
            return None;
        }
        let part = |name: &str, value: Option<String>| value.map(|value| format!("{name}{value}"));
        let parts = [
            part("from ", self.valid_from.map(|day| day.to_string())),
            part("until ", self.valid_until.map(|day| day.to_string())),
            part("", self.days.map(|days| days.to_string())),
            part("", self.hours.map(|hours| hours.to_string())),
            Some(format!("({})", self.calendar())),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        Some(parts.join(" "))
    }

    /// Whether a moment is in it.
    #[must_use]
    pub fn holds(&self, at: Timestamp) -> bool {
        if self.is_always() {
            return true;
        }
        let (day, minute) = self.calendar().day_and_minute(at);
        self.valid_from.is_none_or(|first| first <= day)
            && self.valid_until.is_none_or(|last| day <= last)
            && self.hours.is_none_or(|hours| hours.contains(minute))
            && self.days.is_none_or(|days| days.contains(day))
    }
}

/// Hours of a day, from one minute to before another; past midnight where the end is not after the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    from: u16,
    to: u16,
}

impl Hours {
    const fn contains(self, minute: u16) -> bool {
        if self.from < self.to {
            return self.from <= minute && minute < self.to;
        }
        self.from <= minute || minute < self.to
    }
}

impl FromStr for Hours {
    type Err = String;

    /// Reads `14:00-18:00`.
    fn from_str(text: &str) -> Result<Self, String> {
        let minute = |text: &str| {
            let (hours, minutes) = text.trim().split_once(':')?;
            let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
            let is_one = minutes < 60 && hours * 60 + minutes <= 24 * 60;
            is_one.then_some(hours * 60 + minutes)
        };
        let ends = text.split_once('-');
        let ends = ends.and_then(|(from, to)| Some((minute(from)?, minute(to)?)));
        ends.filter(|(from, to)| from != to)
            .map(|(from, to)| Self { from, to })
            .ok_or_else(|| "must be hours of a day such as \"14:00-18:00\"".to_owned())
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        let (from_hour, to_hour) = (from / 60, to / 60);
        write!(
            f,
            "{from_hour:02}:{:02}-{to_hour:02}:{:02}",
            from % 60,
            to % 60
        )
    }
}

/// Days of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weekdays(u8);

const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Weekdays {
    /// The first day of all was a Thursday.
    const fn contains(self, day: Day) -> bool {
        let weekday = (day.0 as i64 + 3).rem_euclid(7);
        self.0 & (1 << weekday) != 0
    }
}

impl FromStr for Weekdays {
    type Err = String;

    /// Reads `mon-fri`, `sat,sun`, or both kinds together.
    fn from_str(text: &str) -> Result<Self, String> {
        let day = |name: &str| {
            let name = name.trim();
            WEEKDAYS
                .iter()
                .position(|day| day.eq_ignore_ascii_case(name))
        };
        let part = |part: &str| match part.split_once('-') {
            None => day(part).map(|day| 1 << day),
            Some((first, last)) => {
                let (first, last) = (day(first)?, day(last)?);
                // From Saturday to Monday it goes over the week's end.
                let length = (last + 7 - first) % 7;
                let days = (first..=first + length).map(|day| day % 7);
                Some(days.fold(0, |days, day| days | 1 << day))
            }
        };
        let days = text
            .split(',')
            .try_fold(0, |days, one| Some(days | part(one)?));
        days.map(Self)
            .ok_or_else(|| "must be days such as \"mon-fri\" or \"sat,sun\"".to_owned())
    }
}

impl fmt::Display for Weekdays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut days = (0..)
            .zip(WEEKDAYS)
            .filter(|(bit, _)| self.0 & (1 << bit) != 0);
        if let Some((_, first)) = days.next() {
            f.write_str(first)?;
        }
        days.try_for_each(|(_, day)| write!(f, ",{day}"))
    }
}

written!(Hours, Weekdays, Day);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn a_band_holds_in_its_hours_on_its_days_of_its_zone() {
        let band = TimeBand {
            hours: Some("14:00-18:00".parse().unwrap()),
            days: Some("mon-fri".parse().unwrap()),
            zone: Some("+08:00".parse().unwrap()),
            ..TimeBand::default()
        };
        // 2026-11-27 is a Friday.
        assert!(!band.holds(at("2026-11-27T13:59:59+08:00")));
        assert!(band.holds(at("2026-11-27T14:00:00+08:00")));
        assert!(band.holds(at("2026-11-27T09:59:59Z")));
        assert!(!band.holds(at("2026-11-27T10:00:00Z")));
        assert!(!band.holds(at("2026-11-28T15:00:00+08:00")));
        assert!(TimeBand::default().holds(at("2026-11-28T15:00:00Z")));
        assert!(TimeBand::default().is_always() && !band.is_always());
    }

    #[test]
    fn a_band_begins_and_ends_with_its_days() {
        let band = TimeBand {
            valid_from: Day::parse("2026-12-01"),
            valid_until: Day::parse("2026-12-31"),
            ..TimeBand::default()
        };
        let check = |moment, want| assert_eq!(band.holds(at(moment)), want, "{moment}");
        check("2026-11-30T23:59:59+08:00", false);
        check("2026-11-30T16:00:00Z", true);
        check("2026-12-31T23:59:59+08:00", true);
        check("2027-01-01T00:00:00+08:00", false);
    }

    #[test]
    fn hours_and_days_are_read_as_they_are_written() {
        for (text, written) in [
            ("14:00-18:00", "14:00-18:00"),
            ("22:30 - 6:00", "22:30-06:00"),
            ("00:00-24:00", "00:00-24:00"),
        ] {
            assert_eq!(text.parse::<Hours>().unwrap().to_string(), written);
        }
        for (text, written) in [
            ("mon-wed", "mon,tue,wed"),
            ("Sat, sun", "sat,sun"),
            ("sat-mon", "mon,sat,sun"),
            ("fri,mon-tue", "mon,tue,fri"),
        ] {
            assert_eq!(text.parse::<Weekdays>().unwrap().to_string(), written);
        }
        for wrong in [
            "",
            "14-18",
            "14:00",
            "14:60-15:00",
            "25:00-26:00",
            "14:00-14:00",
            "x",
        ] {
            assert!(wrong.parse::<Hours>().is_err(), "{wrong}");
        }
        for wrong in ["", "mon,", "monday", "mon-", "1"] {
            assert!(wrong.parse::<Weekdays>().is_err(), "{wrong}");
        }
        let night: Hours = "22:00-06:00".parse().unwrap();
        assert!(night.contains(23 * 60) && night.contains(0) && !night.contains(6 * 60));
    }
}
