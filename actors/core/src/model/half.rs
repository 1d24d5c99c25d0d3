//! Half of a character: what JSON can spell and no text can hold.

use std::fmt;

use serde_json::value::RawValue;

use super::json;

/// Half of a character that takes two escapes in JSON: a text was cut in the middle of an emoji, say. No text can hold
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HalfACharacter {
    /// As it stands there.
    escape: String,
    /// The byte at which.
    at: usize,
    /// The name of the text; empty: it is the whole, or nobody can tell.
    place: String,
}

/// How far down a place is named.
const PLACE_DEPTH: usize = 6;

impl HalfACharacter {
    /// The first one in JSON.
    #[must_use]
    pub fn in_json(json: &str) -> Option<Self> {
        let (escape, at) = Self::find(json)?;
        let place = serde_json::from_str(json).map(|json| Self::place(json, PLACE_DEPTH));
        let place = place.unwrap_or_default();
        Some(Self {
            escape: escape.to_owned(),
            at,
            place: place.trim_start_matches('.').to_owned(),
        })
    }

    fn find(json: &str) -> Option<(&str, usize)> {
        let bytes = json.as_bytes();
        let unit = |at: usize| {
            let hex = json.get(at..at + 6)?.strip_prefix("\\u")?;
            u16::from_str_radix(hex, 16).ok()
        };
        let mut at = 0;
        while let Some(found) = bytes.get(at..).and_then(next_escape) {
            at += found;
            let is_low = |unit: u16| (0xdc00..=0xdfff).contains(&unit);
            at += match unit(at) {
                Some(0xd800..=0xdbff) if unit(at + 6).is_some_and(is_low) => 12,
                Some(0xd800..=0xdfff) => {
                    return Some((json.get(at..at + 6).unwrap_or_default(), at));
                }
                _ => 2,
            };
        }
        None
    }

    /// At this byte of what is not UTF-8: as some programs write what UTF-8 can't say.
    #[must_use]
    pub fn in_bytes(bytes: &[u8], at: usize) -> Option<Self> {
        match bytes.get(at..)? {
            [0xed, high @ 0xa0..=0xbf, low @ 0x80..=0xbf, ..] => Some(Self {
                escape: format!(
                    "\\u{:04x}",
                    0xd000 | u16::from(high & 0x3f) << 6 | u16::from(low & 0x3f)
                ),
                at,
                place: String::new(),
            }),
            _ => None,
        }
    }

    fn place(json: &RawValue, depth: usize) -> String {
        let mut found = None;
        if depth > 0 {
            let mut number = 0_usize;
            let _ = json::each(json, |element| {
                if Self::is_in(element) {
                    found = Some((format!("[{number}]"), element));
                }
                number += 1;
                found.is_none()
            });
            let _ = json::each_member(json, |name, value| {
                if Self::is_in(value) {
                    found = Some((format!(".{name}"), value));
                }
                found.is_none()
            });
        }
        found.map_or_else(String::new, |(step, json)| {
            step + &Self::place(json, depth - 1)
        })
    }

    fn is_in(json: &RawValue) -> bool {
        Self::find(json.get()).is_some()
    }
}

/// Where the next escape begins.
fn next_escape(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\\')
}

impl fmt::Display for HalfACharacter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { escape, at, place } = self;
        let of = if place.is_empty() { "" } else { " in " };
        write!(
            f,
            "holds half a character, the lone surrogate {escape}{of}{place}, at byte {at}: a text was cut in the middle of an \
             emoji or the like; cut it between characters"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Request;

    #[test]
    fn half_a_character_is_found_wherever_it_stands() {
        for (json, at) in [
            (r#"{"a":"\ud83d"}"#, 6),
            (r#"{"a":"\uDE00"}"#, 6),
            (r#"{"a":"\ud83dx"}"#, 6),
            (r#"{"a":"\ud83d\ud83d\ude00"}"#, 6),
            (r#"{"\ud800":1}"#, 2),
            (r#"{"a":"\\\ud800"}"#, 8),
            (r#"{"a":"\ud83d\n"}"#, 6),
        ] {
            assert_eq!(
                HalfACharacter::in_json(json).map(|half| half.at),
                Some(at),
                "{json}"
            );
            let chat = format!(r#"{{"messages":[{json}]}}"#);
            let refused = Request::chat(&chat).unwrap_err().to_string();
            assert!(
                refused.contains("messages[0]") || json.starts_with("{\"\\"),
                "{refused}"
            );
            assert!(refused.contains("surrogate"), "{refused}");
        }
        for json in [
            "",
            r#"{"a":"\ud83d\ude00"}"#,
            r#"{"a":"\\ud83d"}"#,
            r#"{"a":"\u4e00\n\\"}"#,
            r#"{"a":"\u"}"#,
            "\\",
        ] {
            assert_eq!(HalfACharacter::in_json(json), None, "{json}");
        }
    }

    #[test]
    fn half_a_character_is_told_with_its_field() {
        for (json, field) in [
            (r#"{"prompt":"\ud83d"}"#, "prompt"),
            (
                r#"{"messages":[{"a":1},{"content":"\ud83d"}]}"#,
                "messages[1].content",
            ),
            (r#"{"stop":["a","\udc00"]}"#, "stop[1]"),
            (r#"{"a\ud83d":1}"#, ""),
            (r#""\ud83d""#, ""),
            ("\\ud83d", ""),
        ] {
            let half = HalfACharacter::in_json(json).unwrap();
            assert_eq!(half.place, field, "{json}");
        }
    }

    #[test]
    fn half_a_character_in_bytes_is_told_as_in_json() {
        let half = HalfACharacter::in_bytes(b"cut \xed\xa0\xbd", 4).unwrap();
        assert!(half.to_string().contains("\\ud83d, at byte 4"), "{half}");
        assert_eq!(HalfACharacter::in_bytes(b"caf\xe9", 3), None);
        assert_eq!(HalfACharacter::in_bytes(b"", 9), None);
    }
}
