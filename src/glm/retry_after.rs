//! Reads `Retry-After`: how long a server asks to be left alone.

use std::time::UNIX_EPOCH;

use chrono::DateTime;
use onelane_core::model::{Timestamp, limits};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

/// A number from here on is a moment in seconds since 1970: as a delay it would be 31 years.
const MOMENT_FROM: Decimal = Decimal::from_parts(1_000_000_000, 0, 0, false, 0);
/// From here on it is a moment in milliseconds.
const MOMENT_MS_FROM: Decimal = Decimal::from_parts(3_567_587_328, 232, 0, false, 0);

/// The delay that a response asks for, in milliseconds from now. Servers write seconds, seconds with a fraction, one
/// of HTTP's three forms of a date, or the moment as a number; a fraction of a millisecond counts as a whole one, so
/// that no retry comes too early. Where a relay added its own, the longest counts.
pub(crate) fn retry_after_ms(headers: &HeaderMap, now: Timestamp) -> Option<u64> {
    let told = headers.get_all(RETRY_AFTER).iter();
    let longest = told
        .filter_map(|value| of_text(value.to_str().ok()?.trim(), now))
        .max()?;
    Some(longest.min(limits::RESET_AHEAD_MS_MAX))
}

fn of_text(text: &str, now: Timestamp) -> Option<u64> {
    match text.parse::<Decimal>() {
        Ok(number) => of_number(number, now),
        Err(_) => Some(moment(text)?.since(now)),
    }
}

fn of_number(number: Decimal, now: Timestamp) -> Option<u64> {
    let ms = |number: Decimal| number.ceil().to_u64();
    let thousand = Decimal::ONE_THOUSAND;
    if number.is_sign_negative() && !number.is_zero() {
        return None;
    }
    if number < MOMENT_FROM {
        return ms(number.checked_mul(thousand)?);
    }
    let at = match number < MOMENT_MS_FROM {
        true => number.checked_mul(thousand)?,
        false => number,
    };
    let at = i64::try_from(ms(at)?).unwrap_or(i64::MAX);
    Some(Timestamp::from_millis(at).since(now))
}

/// A date as HTTP has it, or as mail does.
fn moment(text: &str) -> Option<Timestamp> {
    if let Ok(date) = DateTime::parse_from_rfc2822(text) {
        return Some(Timestamp::from_millis(date.timestamp_millis()));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    let ms = at.duration_since(UNIX_EPOCH).ok()?.as_millis();
    Some(Timestamp::from_millis(i64::try_from(ms).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23 08:00:00 UTC.
    const NOW: Timestamp = Timestamp::from_millis(1_795_420_800_000);

    fn asked(text: &str) -> Option<u64> {
        let headers = [(RETRY_AFTER, text.parse().unwrap())];
        retry_after_ms(&HeaderMap::from_iter(headers), NOW)
    }

    #[test]
    fn a_fraction_of_a_second_is_kept_and_rounded_up() {
        for (text, want) in [
            ("3", 3_000),
            ("3.2", 3_200),
            ("0.0001", 1),
            (" 2.0004 ", 2_001),
            (".5", 500),
            ("0", 0),
            ("0.0", 0),
            ("-0", 0),
        ] {
            assert_eq!(asked(text), Some(want), "{text}");
        }
    }

    #[test]
    fn a_date_is_read_in_each_of_the_three_forms_of_http() {
        for text in [
            "Mon, 23 Nov 2026 08:00:05 GMT",
            "Monday, 23-Nov-26 08:00:05 GMT",
            "Mon Nov 23 08:00:05 2026",
            "Mon, 23 Nov 2026 16:00:05 +0800",
        ] {
            assert_eq!(asked(text), Some(5_000), "{text}");
        }
        assert_eq!(
            asked("Mon, 23 Nov 2026 07:59:00 GMT"),
            Some(0),
            "it is past"
        );
    }

    #[test]
    fn a_number_that_would_be_decades_is_a_moment() {
        assert_eq!(asked("1795420830"), Some(30_000));
        assert_eq!(asked("1795420830.25"), Some(30_250));
        assert_eq!(asked("1795420830000"), Some(30_000));
        assert_eq!(asked("1700000000"), Some(0), "it is past");
        for far in ["999999999", "18446744073709551615"] {
            assert_eq!(asked(far), Some(limits::RESET_AHEAD_MS_MAX), "{far}");
        }
    }

    #[test]
    fn of_several_the_longest_counts() {
        let asked = |texts: &[&str]| {
            let mut headers = HeaderMap::new();
            for text in texts {
                headers.append(RETRY_AFTER, text.parse().unwrap());
            }
            retry_after_ms(&headers, NOW)
        };
        assert_eq!(asked(&["3", "7", "5"]), Some(7_000));
        assert_eq!(
            asked(&["soon", "-1", "Mon, 23 Nov 2026 08:00:05 GMT", "2"]),
            Some(5_000)
        );
        assert_eq!(asked(&["Mon, 23 Nov 2026 07:00:00 GMT", "-4"]), Some(0));
        assert_eq!(asked(&["soon", "later"]), None);
    }

    #[test]
    fn what_is_no_delay_asks_for_none() {
        for text in [
            "",
            "soon",
            "-1",
            "-0.5",
            "3s",
            "1,5",
            "99999999999999999999999999999999",
            "NaN",
        ] {
            assert_eq!(asked(text), None, "{text}");
        }
    }
}
