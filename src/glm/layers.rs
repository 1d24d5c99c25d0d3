//! Takes off what servers and relays wrap around a GLM answer: content codings that nobody asked for, a byte order
//! mark, server-sent events around or behind the JSON. A paid answer is not thrown away for its wrapping.

use std::borrow::Cow;
use std::io::Read as _;

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use onelane_core::model::limits;
use reqwest::header::{CONTENT_ENCODING, HeaderMap};
use serde_json::value::RawValue;

/// Codings of a body that are undone, one over the other.
const CODINGS_MAX: usize = 4;
/// Events that are looked at: no answer has more tokens.
const EVENTS_MAX: usize = 200_000;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The body without the codings that its headers name. Where a header says what is not so, the body is taken as it is.
pub(super) fn decoded(headers: &HeaderMap, body: Bytes) -> Bytes {
    let named = headers.get_all(CONTENT_ENCODING).iter();
    let named: Vec<&str> = named
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let mut body = body;
    // The last one named was applied last.
    for coding in named.iter().rev().take(CODINGS_MAX) {
        let plain = match coding.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => inflated(MultiGzDecoder::new(&*body)),
            "deflate" => {
                inflated(ZlibDecoder::new(&*body)).or_else(|| inflated(DeflateDecoder::new(&*body)))
            }
            _ => None,
        };
        body = plain.unwrap_or(body);
    }
    // Some relays pack without saying so.
    if body.starts_with(&GZIP) {
        body = inflated(MultiGzDecoder::new(&*body)).unwrap_or(body);
    }
    body
}

/// A coding that a body is said to have and that is not undone.
pub(super) fn unread_coding(headers: &HeaderMap) -> Option<&str> {
    let known = ["gzip", "x-gzip", "deflate", "identity", ""];
    let named = headers.get_all(CONTENT_ENCODING).iter();
    let mut named = named
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim);
    named.find(|coding| !known.iter().any(|known| coding.eq_ignore_ascii_case(known)))
}

/// What comes out of a decoder, if it is whole and no more than a response may have.
fn inflated(decoder: impl std::io::Read) -> Option<Bytes> {
    let mut plain = Vec::new();
    let max = limits::RESPONSE_BYTES_MAX;
    let mut bounded = decoder.take(max as u64 + 1);
    bounded.read_to_end(&mut plain).ok()?;
    (plain.len() <= max).then(|| plain.into())
}

/// The text of a body: without a byte order mark, and with what is no UTF-8 replaced.
pub(super) fn text(body: &[u8]) -> Cow<'_, str> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    String::from_utf8_lossy(body)
}

/// The JSON that a text begins with, whatever stands behind it; the comments before it are those of server-sent
/// events, by which relays keep a connection alive.
pub(super) fn leading_json(text: &str) -> Option<&RawValue> {
    let mut text = text.trim_start();
    while text.starts_with(':') {
        text = text.split_once('\n')?.1.trim_start();
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    values.next()?.ok()
}

/// The data of server-sent events, one after the other; `[DONE]` is none. `None`: the text has no such events.
pub(super) fn events(text: &str) -> Option<Vec<Cow<'_, str>>> {
    let mut events = Vec::new();
    let mut open: Option<Cow<'_, str>> = None;
    let mut is_stream = false;
    for line in text.lines() {
        if events.len() >= EVENTS_MAX {
            break;
        }
        if let Some(data) = line.strip_prefix("data:") {
            is_stream = true;
            let data = data.strip_prefix(' ').unwrap_or(data);
            open = Some(match open {
                // Relays forget the empty line between two events.
                Some(before) if leading_json(&before).is_some() => {
                    events.push(before);
                    Cow::Borrowed(data)
                }
                Some(before) => Cow::Owned(format!("{before}\n{data}")),
                None => Cow::Borrowed(data),
            });
        } else if line.is_empty() {
            events.extend(open.take());
        }
    }
    events.extend(open);
    events.retain(|data| !matches!(data.trim(), "" | "[DONE]"));
    is_stream.then_some(events)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const PLAIN: &[u8] = br#"{"choices":[]}"#;

    macro_rules! packed {
        ($encoder:ident, $plain:expr) => {{
            let mut encoder = $encoder::new(Vec::new(), Compression::default());
            encoder.write_all($plain).unwrap();
            encoder.finish().unwrap()
        }};
    }

    fn read(coding: &str, body: impl Into<Bytes>) -> Bytes {
        let headers = [(CONTENT_ENCODING, coding.parse().unwrap())];
        decoded(&HeaderMap::from_iter(headers), body.into())
    }

    #[test]
    fn a_coding_that_nobody_asked_for_is_undone() {
        let gzip = packed!(GzEncoder, PLAIN);
        for (coding, body) in [
            ("gzip", gzip.clone()),
            ("X-GZip", gzip.clone()),
            ("deflate", packed!(ZlibEncoder, PLAIN)),
            ("deflate", packed!(DeflateEncoder, PLAIN)),
            ("gzip, deflate", packed!(ZlibEncoder, &gzip)),
            ("gzip, identity", gzip.clone()),
            ("identity", PLAIN.to_vec()),
        ] {
            assert_eq!(read(coding, body), PLAIN, "{coding}");
        }
        let silent = decoded(&HeaderMap::new(), gzip.into());
        assert_eq!(silent, PLAIN, "nothing said that it is packed");
    }

    #[test]
    fn a_coding_that_is_not_so_changes_nothing() {
        for coding in ["gzip", "deflate", "br", "zstd", "nonsense"] {
            assert_eq!(read(coding, PLAIN), PLAIN, "{coding}");
        }
        let mut cut = packed!(GzEncoder, PLAIN);
        cut.truncate(cut.len() - 4);
        assert_eq!(read("gzip", cut.clone()), cut);
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = packed!(GzEncoder, &vec![b' '; limits::RESPONSE_BYTES_MAX + 1]);
        assert!(bomb.len() < limits::RESPONSE_BYTES_MAX / 100);
        assert_eq!(read("gzip", bomb.clone()), bomb);
    }

    #[test]
    fn events_are_told_apart_however_they_are_written() {
        let check = |text: &str, want: &[&str]| {
            assert_eq!(events(text).unwrap(), want, "{text:?}");
        };
        check("data: {\"a\":1}\n\ndata: [DONE]\n\n", &["{\"a\":1}"]);
        check(
            "data:{\"a\":1}\r\n\r\ndata:{\"b\":2}",
            &["{\"a\":1}", "{\"b\":2}"],
        );
        check(
            "data: {\"a\":1}\ndata: {\"b\":2}\n",
            &["{\"a\":1}", "{\"b\":2}"],
        );
        check(
            "event: x\nid: 1\n: ping\ndata: {\"a\":\ndata: 1}\n\n",
            &["{\"a\":\n1}"],
        );
        check("data: [DONE]\n\n", &[]);
        assert_eq!(events("{\"data\": 1}"), None);
        assert_eq!(events("<html>"), None);
    }
}
