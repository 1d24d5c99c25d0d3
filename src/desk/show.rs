//! Numbers, times and money as people read them: never without a unit, relative where that says more.

use onelane_core::model::{Cost, Currency, Timestamp};

use super::words::{Words, fill};

/// Text for a place in a URL.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// A number with its thousands apart.
pub(super) fn number(n: impl Into<u128>) -> String {
    let digits = n.into().to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A length of time, as exactly as it matters.
pub(super) fn duration(ms: u64, w: &Words) -> String {
    let (s, min, h) = (ms / 1_000, ms / 60_000, ms / 3_600_000);
    match ms {
        0..1_000 => format!("{ms} {}", w.unit_ms),
        1_000..60_000 if s < 10 => format!("{s}.{} {}", ms % 1_000 / 100, w.unit_s),
        1_000..60_000 => format!("{s} {}", w.unit_s),
        60_000..600_000 if s % 60 != 0 => {
            format!("{min} {} {} {}", w.unit_min, s % 60, w.unit_s)
        }
        60_000..3_600_000 => format!("{min} {}", w.unit_min),
        3_600_000..86_400_000 if min % 60 != 0 => {
            format!("{h} {} {} {}", w.unit_h, min % 60, w.unit_min)
        }
        3_600_000..86_400_000 => format!("{h} {}", w.unit_h),
        _ if h % 24 != 0 => format!("{} {} {} {}", h / 24, w.unit_d, h % 24, w.unit_h),
        _ => format!("{} {}", h / 24, w.unit_d),
    }
}

/// A moment: relative, and as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct When {
    pub(super) iso: String,
    pub(super) relative: String,
}

impl When {
    /// Seen from `now`.
    pub(super) fn of(at: Timestamp, now: Timestamp, w: &Words) -> Self {
        let relative = match (at.since(now), now.since(at)) {
            (0, 0..1_000) => w.now.to_owned(),
            (0, past) => fill(w.ago, &[&duration(past, w)]),
            (left, _) => fill(w.in_time, &[&duration(left, w)]),
        };
        Self {
            iso: at.to_rfc3339(),
            relative,
        }
    }
}

/// A sentence whose moments, which it has as RFC 3339, are told as people tell them: of today their time, of other days the
/// day with it, in UTC.
pub(super) fn moments(text: &str, now: Timestamp) -> String {
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('T') {
        let start = at
            .checked_sub(10)
            .filter(|start| rest.is_char_boundary(*start));
        let moment = start.and_then(|start| {
            let end = start + rest.get(start..)?.find('Z')? + 1;
            let moment = Timestamp::parse_rfc3339(rest.get(start..end)?)?;
            Some((start, end, moment))
        });
        let (before, shown, after) = match moment {
            Some((start, end, moment)) => (start, clock(moment, now), end),
            None => (at, "T".to_owned(), at + 1),
        };
        told.push_str(rest.get(..before).unwrap_or_default());
        told.push_str(&shown);
        rest = rest.get(after..).unwrap_or_default();
    }
    told + rest
}

/// A moment as a clock shows it, with its day if that is not today.
fn clock(moment: Timestamp, now: Timestamp) -> String {
    let text = moment.to_rfc3339();
    let (day, time) = text.split_once('T').unwrap_or((&text, ""));
    let time = time.get(..8).unwrap_or(time);
    match moment.day() == now.day() {
        true => format!("{time} UTC"),
        false => format!("{day} {time} UTC"),
    }
}

/// Money with the sign of its currency, cut to what matters: two places of what is dear, four digits of what is cheap.
pub(super) fn money(cost: Cost) -> String {
    let text = cost.decimal();
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let zeros = part.bytes().take_while(|b| *b == b'0').count();
    let places = if whole.trim_start_matches('-') == "0" {
        (zeros + 3).max(2)
    } else {
        2
    };
    let shown: String = part.chars().take(places).collect();
    let shown = match (shown.is_empty(), cost.currency) {
        (true, _) => whole.to_owned(),
        (false, Currency::Points) => format!("{whole}.{shown}"),
        (false, _) => format!("{whole}.{shown:0<2}"),
    };
    match cost.currency {
        Currency::Cny => format!("¥{shown}"),
        Currency::Usd => format!("${shown}"),
        other => format!("{shown} {other}"),
    }
}

/// A job's id, cut for lists.
pub(super) fn short(id: impl ToString) -> String {
    let id = id.to_string();
    match (id.get(..8), id.get(id.len().saturating_sub(4)..)) {
        (Some(first), Some(last)) if id.len() > 16 => format!("{first}…{last}"),
        _ => id,
    }
}

/// A share as percent, with one place.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::super::words::Lang;
    use super::*;

    #[test]
    fn a_length_of_time_is_told_as_exactly_as_it_matters() {
        let check = |ms, en: &str, zh: &str| {
            assert_eq!(duration(ms, Words::of(Lang::En)), en);
            assert_eq!(duration(ms, Words::of(Lang::Zh)), zh);
        };
        check(0, "0 ms", "0 毫秒");
        check(999, "999 ms", "999 毫秒");
        check(3_149, "3.1 s", "3.1 秒");
        check(38_900, "38 s", "38 秒");
        check(125_000, "2 min 5 s", "2 分钟 5 秒");
        check(41 * 60_000 + 5_000, "41 min", "41 分钟");
        check(72 * 60_000, "1 h 12 min", "1 小时 12 分钟");
        check(3_600_000, "1 h", "1 小时");
        check(100 * 3_600_000, "4 d 4 h", "4 天 4 小时");
    }

    #[test]
    fn a_moment_is_told_from_now_on() {
        let now = Timestamp::from_millis(1_000_000);
        let w = Words::of(Lang::En);
        let check = |at, want: &str| {
            assert_eq!(When::of(Timestamp::from_millis(at), now, w).relative, want);
        };
        check(1_000_000, "now");
        check(999_100, "now");
        check(940_000, "1 min ago");
        check(1_012_000, "in 12 s");
    }

    #[test]
    fn money_is_cut_to_what_matters_and_never_to_nothing() {
        let check = |nanos, want: &str| {
            let currency = Currency::Cny;
            assert_eq!(money(Cost { nanos, currency }), want);
        };
        check(38_200_000_000, "¥38.20");
        check(50_000_000_000, "¥50");
        check(12_100_000, "¥0.0121");
        check(1_234_567, "¥0.00123");
        check(1, "¥0.000000001");
        check(0, "¥0");
    }

    #[test]
    fn moments_of_a_sentence_are_told_as_people_tell_them() {
        let now = Timestamp::parse_rfc3339("2026-11-29T18:00:00.000Z").unwrap();
        let check = |text: &str, want: &str| assert_eq!(moments(text, now), want);
        check(
            "until 2026-11-29T18:50:51.084Z: 1302",
            "until 18:50:51 UTC: 1302",
        );
        check(
            "for 2026-12-24T00:00:00.000Z",
            "for 2026-12-24 00:00:00 UTC",
        );
        check("自 2026-11-29T18:50:51.084Z 起", "自 18:50:51 UTC 起");
        for other in ["The T, and Z", "TTTTZ", "", "no moment", "智谱清言智T谱Z"] {
            check(other, other);
        }
    }

    #[test]
    fn numbers_have_their_thousands_apart_and_ids_are_cut() {
        assert_eq!(number(1_284_000_u64), "1,284,000");
        assert_eq!(number(999_u64), "999");
        assert_eq!(
            short("01a223d8-2f20-7862-adca-e77fd6cdbe7f"),
            "01a223d8…be7f"
        );
        assert_eq!(short("abc"), "abc");
    }

    #[test]
    fn text_in_a_url_is_encoded() {
        assert_eq!(encoded("a b&c=d/é"), "a%20b%26c%3Dd/%C3%A9");
    }
}
