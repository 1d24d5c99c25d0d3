//! Moments, spans and ids as people read them.

use onelane::model::Timestamp;
use onelane::ports::Clock as _;
use onelane::system::SystemClock;

/// Characters of an id that are told at its beginning and at its end.
const ID_ENDS: usize = 4;

/// A moment's length in a word or two: `12 s`, `41 min`, `1 h 12`, `3 d`.
pub(super) fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0 if ms > 0 => format!("{ms} ms"),
        0..=119 => format!("{seconds} s"),
        120..=3_599 => format!("{} min", seconds / 60),
        3_600..=172_799 => match (seconds / 3_600, seconds % 3_600 / 60) {
            (hours, 0) => format!("{hours} h"),
            (hours, minutes) => format!("{hours} h {minutes:02}"),
        },
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A duration of a call: `4.8 s`.
pub(super) fn seconds(ms: f64) -> String {
    match ms < 1_000.0 {
        true => format!("{ms:.0} ms"),
        false => format!("{:.1} s", ms / 1_000.0),
    }
}

/// Now.
pub(super) fn now() -> Timestamp {
    SystemClock.now()
}

/// How long until a moment: `in 12 s`, or `now`.
pub(super) fn until(at: Timestamp, now: Timestamp) -> String {
    match at.since(now) {
        0..=999 => "now".to_owned(),
        ms => format!("in {}", span(ms)),
    }
}

/// How long since a moment: `12 s ago`.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> String {
    match now.since(at) {
        0..=999 => "now".to_owned(),
        ms => format!("{} ago", span(ms)),
    }
}

/// The hour of a moment, and its day where that is another one.
pub(super) fn clock(at: Timestamp, now: Timestamp) -> String {
    let text = at.to_rfc3339();
    let (day, rest) = text.split_once('T').unwrap_or((&text, ""));
    let time = rest.split('.').next().unwrap_or(rest);
    match at.day() == now.day() {
        true => format!("{time}Z"),
        false => format!("{day} {time}Z"),
    }
}

/// A sentence of the API with its moments as a clock shows them.
pub(super) fn with_clocks(text: &str, now: Timestamp) -> String {
    let words = text.split(' ').map(|word| {
        let bare = word.trim_end_matches([',', ':', ';', '.', ')']);
        match Timestamp::parse_rfc3339(bare) {
            Some(at) => word.replacen(bare, &clock(at, now), 1),
            None => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// An id as lists show it; `jobs show` takes it so, too.
pub(super) fn short(id: &str) -> String {
    let head: String = id.chars().take(ID_ENDS).collect();
    let skipped = id.chars().count().saturating_sub(ID_ENDS);
    let tail: String = id.chars().skip(skipped).collect();
    match skipped > ID_ENDS {
        true => format!("{head}…{tail}"),
        false => id.to_owned(),
    }
}

/// A count with commas: `1,284`.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A share in per cent.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent > 0.0 && percent < 10.0 {
        true => format!("{percent:.1} %"),
        false => format!("{percent:.0} %"),
    }
}

/// A text on one line.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_the_unit_that_fits() {
        let told = [
            400,
            12_000,
            41 * 60_000,
            72 * 60_000,
            120 * 60_000,
            259_200_000,
        ]
        .map(span);
        assert_eq!(told, ["400 ms", "12 s", "41 min", "1 h 12", "2 h", "3 d"]);
        assert_eq!(span(7_500_000), "2 h 05");
    }

    #[test]
    fn the_moments_of_a_sentence_are_told_as_a_clock_does() {
        let now = Timestamp::parse_rfc3339("2026-11-25T10:00:00Z").unwrap();
        let told = with_clocks("quota is used up until 2026-11-25T14:32:00.000Z: 1308", now);
        assert_eq!(told, "quota is used up until 14:32:00Z: 1308");
        let told = with_clocks("scheduled for 2026-11-26T14:32:00.000Z", now);
        assert_eq!(told, "scheduled for 2026-11-26 14:32:00Z");
    }

    #[test]
    fn ids_and_counts_are_told_short() {
        assert_eq!(short("01a2b3c4-0000-7000-8000-00000000c9f1"), "01a2…c9f1");
        assert_eq!(short("abc"), "abc");
        assert_eq!(
            [0, 999, 1_284, 1_000_000].map(grouped),
            ["0", "999", "1,284", "1,000,000"]
        );
    }
}
