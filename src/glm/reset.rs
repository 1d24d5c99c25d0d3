//! Reads the moment at which a used-up quota opens again: GLM states it in words, in Beijing time,
//! without saying so.

#[cfg(any(test, feature = "simulator"))]
use chrono::{DateTime, FixedOffset};
use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use onelane_core::model::{Timestamp, limits};

/// A reading in Beijing time that is over by more than this is taken for UTC instead.
const PAST_MS: u64 = 60_000;
const BEIJING_SECS: i32 = 8 * 3_600;
const DAY_MS: i64 = 86_400_000;
/// `YYYY-MM-DD HH:MM:SS`.
const STAMP_BYTES: usize = 19;

/// The reset that `text` states; `None` when it states none, or one that is over by more than a
/// minute, or one that is further ahead than any window of GLM's.
///
/// A stamp with a zone is taken at its word. One without is Beijing time, on both of GLM's sites; when
/// that is over by more than a minute, and the stamp read as UTC is ahead, it is read so. Either reading
/// is bounded. Of several the latest counts.
pub(crate) fn stated_reset(text: &str, now: Timestamp) -> Option<Timestamp> {
    let stamps: Vec<Stamp> = stamps(text).collect();
    let at_its_word = stamps
        .iter()
        .map(|s| s.at(s.zone_secs.unwrap_or(BEIJING_SECS)));
    let as_utc = stamps
        .iter()
        .filter(|s| s.zone_secs.is_none())
        .map(|s| s.at(0));
    at_its_word
        .filter(|at| is_credible(*at, now))
        .max()
        .or_else(|| as_utc.filter(|at| *at > now && is_credible(*at, now)).max())
}

/// The next midnight in Beijing: when a daily quota opens again.
pub(crate) fn next_midnight(now: Timestamp) -> Timestamp {
    let shift = i64::from(BEIJING_SECS) * 1_000;
    let local = now.as_millis().saturating_add(shift);
    let midnight = local
        .div_euclid(DAY_MS)
        .saturating_add(1)
        .saturating_mul(DAY_MS);
    Timestamp::from_millis(midnight.saturating_sub(shift))
}

/// `at` as GLM writes it: Beijing time without a zone, on the next whole second.
#[cfg(any(test, feature = "simulator"))]
pub(crate) fn beijing_text(at: Timestamp) -> String {
    let secs = at.as_millis().saturating_add(999).div_euclid(1_000);
    FixedOffset::east_opt(BEIJING_SECS)
        .and_then(|zone| Some(DateTime::from_timestamp(secs, 0)?.with_timezone(&zone)))
        .map_or_else(String::new, |t| t.format("%Y-%m-%d %H:%M:%S").to_string())
}

/// Not over by more than clocks differ, and not further ahead than any window.
fn is_credible(at: Timestamp, now: Timestamp) -> bool {
    now.since(at) <= PAST_MS && at.since(now) <= limits::RESET_AHEAD_MS_MAX
}

struct Stamp {
    local: NaiveDateTime,
    /// East of UTC; `None` when the text does not say.
    zone_secs: Option<i32>,
}

impl Stamp {
    fn at(&self, zone_secs: i32) -> Timestamp {
        let utc = self.local.and_utc().timestamp_millis();
        Timestamp::from_millis(utc.saturating_sub(i64::from(zone_secs) * 1_000))
    }
}

fn stamps(text: &str) -> impl Iterator<Item = Stamp> {
    text.as_bytes()
        .windows(STAMP_BYTES)
        .enumerate()
        .filter_map(move |(start, window)| {
            let after_digit = start
                .checked_sub(1)
                .and_then(|i| text.as_bytes().get(i))
                .is_some_and(u8::is_ascii_digit);
            if after_digit {
                return None;
            }
            let local = local_time(std::str::from_utf8(window).ok()?)?;
            let rest = text.get(start + STAMP_BYTES..).unwrap_or("");
            Some(Stamp {
                local,
                zone_secs: zone(rest),
            })
        })
}

/// Exactly `YYYY-MM-DD HH:MM:SS`, or with a T between.
fn local_time(text: &str) -> Option<NaiveDateTime> {
    let (date, time) = text.split_once([' ', 'T'])?;
    let fixed = |part: &str, len: usize, sep: u8| {
        part.len() == len && part.bytes().all(|b| b.is_ascii_digit() || b == sep)
    };
    if !fixed(date, 10, b'-') || !fixed(time, 8, b':') {
        return None;
    }
    let date = NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
    let time = NaiveTime::parse_from_str(time, "%H:%M:%S").ok()?;
    Some(date.and_time(time))
}

/// The zone that `rest` begins with, in seconds east of UTC: `Z`, `UTC`, `GMT`, `+08:00`, `GMT+8`, or
/// Beijing's by name, also after a fraction of a second, a space or a bracket.
fn zone(rest: &str) -> Option<i32> {
    let rest = rest.strip_prefix('.').map_or(rest, |fraction| {
        fraction.trim_start_matches(|c: char| c.is_ascii_digit())
    });
    let rest = rest.trim_start_matches([' ', '(', '（', '[', ',']);
    let beijing = [
        "北京时间",
        "Beijing",
        "China Standard Time",
        "Asia/Shanghai",
    ];
    if beijing.iter().any(|name| after(rest, name).is_some()) {
        return Some(BEIJING_SECS);
    }
    let (named, tail) = ["UTC", "GMT", "Z"]
        .iter()
        .find_map(|name| after(rest, name))
        .map_or((false, rest), |tail| (true, tail));
    let word_ends = !tail.starts_with(|c: char| c.is_ascii_alphanumeric());
    offset(tail).or_else(|| (named && word_ends).then_some(0))
}

/// The text after `name`, in whatever case that is written.
fn after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (head, tail) = text.split_at_checked(name.len())?;
    head.eq_ignore_ascii_case(name).then_some(tail)
}

/// `+8`, `+08`, `+0800`, `+08:00` and their negatives.
fn offset(text: &str) -> Option<i32> {
    let (sign, digits) = if let Some(rest) = text.strip_prefix('+') {
        (1, rest)
    } else {
        (-1, text.strip_prefix('-')?)
    };
    let end = digits
        .find(|c: char| !c.is_ascii_digit() && c != ':')
        .unwrap_or(digits.len());
    let digits = digits.get(..end)?.trim_end_matches(':');
    let (hours, minutes) = match digits.split_once(':') {
        Some(parts) => parts,
        None if digits.len() == 4 => digits.split_at(2),
        None => (digits, "0"),
    };
    let hours: i32 = hours.parse().ok().filter(|h| *h <= 14)?;
    let minutes: i32 = minutes.parse().ok().filter(|m| *m < 60)?;
    Some(sign * (hours * 3_600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn check(text: &str, want: Option<&str>) {
        let now = at("2026-11-23T10:00:00+08:00");
        assert_eq!(
            stated_reset(text, now).map(Timestamp::to_rfc3339),
            want.map(|w| at(w).to_rfc3339()),
            "{text}"
        );
    }

    fn will(stamp: &str, want: Option<&str>) {
        check(&format!("will reset at {stamp}"), want);
    }

    #[test]
    fn each_wording_is_read_as_beijing_time() {
        let want = Some("2026-11-23T14:30:05+08:00");
        check(
            "已达到 5 小时的使用上限。您的限额将在 2026-11-23 14:30:05 重置。",
            want,
        );
        check("已达到每周使用上限，2026-11-23 14:30:05 后可继续使用", want);
        // No zone follows.
        check("在2026-11-23 14:30:05重置", want);
        check("reset at 2026-11-23 14:30:05 - please wait", want);
        check("reset at 2026-11-23 14:30:05, zone unknown", want);
        check("from 2026-11-23 09:30:05-2026-11-23 14:30:05", want);
        check(
            "Usage limit reached. Your limit will reset at 2026-11-23 14:30:05",
            want,
        );
        check(
            "[1308][Usage limit reached for 5 hour. Your limit will reset at 2026-11-23 14:30:05][202611231002]",
            want,
        );
    }

    #[test]
    fn a_stated_zone_is_honoured() {
        let want = Some("2026-11-23T06:30:05Z");
        for text in [
            "reset at 2026-11-23T06:30:05Z",
            "reset at 2026-11-23T06:30:05.250Z",
            "reset at 2026-11-23 06:30:05 UTC.",
            "reset at 2026-11-23 06:30:05 GMT",
            "reset at 2026-11-23 14:30:05+08:00",
            "reset at 2026-11-23 14:30:05 +0800",
            "reset at 2026-11-23 14:30:05 (UTC+8)",
            "reset at 2026-11-23 14:30:05 GMT+08:00",
            "在 2026-11-23 14:30:05（北京时间）重置",
            "reset at 2026-11-23 01:30:05-05:00",
            "reset at 2026-11-23 14:30:05 UTC+8",
            "reset at 2026-11-23 14:30:05 (utc+08:00), please wait",
            "reset at 2026-11-23 14:30:05 Beijing time",
            "reset at 2026-11-23 14:30:05 (Beijing Time, UTC+8)",
            "reset at 2026-11-23 14:30:05 China Standard Time",
            "reset at 2026-11-23 14:30:05 [Asia/Shanghai]",
            "reset at 2026-11-23T14:30:05.123+0800",
            "reset at 2026-11-23 06:30:05z",
            "reset at 2026-11-23 12:00:05 UTC+0530",
        ] {
            check(text, want);
        }
    }

    #[test]
    fn a_beijing_reading_long_over_is_read_as_utc() {
        // 03:00 in Beijing is seven hours ago; as UTC it is an hour ahead.
        will("2026-11-23 03:00:00", Some("2026-11-23T03:00:00Z"));
        // Half a minute ago is a clock that differs a little, not another zone.
        will("2026-11-23 09:59:30", Some("2026-11-23T09:59:30+08:00"));
        // A stated zone leaves nothing to read anew.
        will("2026-11-23 03:00:00+08:00", None);
        will("2026-11-23 03:00:00 Beijing time", None);
        // A minute is still the clock, a second more is not; as UTC that is ahead.
        will("2026-11-23 09:59:00", Some("2026-11-23T09:59:00+08:00"));
        will("2026-11-23 09:58:59", Some("2026-11-23T09:58:59Z"));
        // Read as UTC it must be ahead: over is over in both readings.
        will("2026-11-23 02:00:01", Some("2026-11-23T02:00:01Z"));
        will("2026-11-23 02:00:00", None);
        will("2026-11-23 01:59:30", None);
    }

    #[test]
    fn what_is_over_or_too_far_ahead_is_refused() {
        will("2026-11-22 12:00:00", None);
        will("2027-01-30 12:00:00", None);
        will("9999-12-31 23:59:59", None);
        // A month's window is believed, and no more than a month's.
        will("2026-12-28 10:00:00", Some("2026-12-28T10:00:00+08:00"));
        will("2026-12-28 10:00:01", None);
        will("2026-12-28 02:00:01Z", None);
    }

    #[test]
    fn of_several_stamps_the_latest_counts() {
        check(
            "2026-11-23 09:58:00: window 2026-11-23 09:00:00 to 2026-11-23 14:00:00 is used up",
            Some("2026-11-23T14:00:00+08:00"),
        );
    }

    #[test]
    fn what_is_no_stamp_is_none() {
        for text in [
            "",
            "您的限额将在稍后重置",
            "2026-11-23",
            "2026-13-23 10:00:00",
            "2026-11-23 25:00:00",
            "12026-11-23 14:00:00",
            "2026-11-23 1",
            "2026/11/23 14:00:00",
            "2026-11-23 14:00",
            "2026-02-30 14:00:00",
            "１２２６-11-23 14:00:00",
            "额2026-11-23 14:0",
            "++++-++-++ ++:++:++",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn a_day_ends_at_midnight_in_beijing() {
        let check = |now: &str, want: &str| assert_eq!(next_midnight(at(now)), at(want), "{now}");
        check("2026-11-23T10:00:00+08:00", "2026-11-24T00:00:00+08:00");
        check("2026-11-23T23:59:59.999+08:00", "2026-11-24T00:00:00+08:00");
        check("2026-11-24T00:00:00+08:00", "2026-11-25T00:00:00+08:00");
        check("2026-11-23T17:00:00Z", "2026-11-24T16:00:00Z");
    }

    #[test]
    fn what_is_written_reads_back_and_never_earlier() {
        let now = at("2026-11-23T10:00:00.001+08:00");
        for ahead_ms in [0, 1, 999, 2_000, 3_600_000] {
            let reset = now.plus_ms(ahead_ms);
            let text = format!("您的限额将在 {} 重置。", beijing_text(reset));
            let read = stated_reset(&text, now).unwrap();
            assert!(read >= reset && read.since(reset) < 1_000, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in ".{0,80}", now in 0_i64..4_000_000_000_000) {
            let _ = stated_reset(&text, Timestamp::from_millis(now));
        }
    }
}
