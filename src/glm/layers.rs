//! Takes off what servers and relays wrap around a GLM answer: content codings that nobody asked for, byte order
//! marks, UTF-16, words before the JSON, server-sent events around or behind it. A paid answer is not thrown away for
//! its wrapping.

use std::borrow::Cow;
use std::io::{self, Read};

use brotli_decompressor::{BrotliDecoderParameter, Decompressor};
use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use onelane_core::model::limits;
use reqwest::header::{CONTENT_ENCODING, HeaderMap};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use serde_json::value::RawValue;

/// Codings of a body that are undone, one over the other.
const CODINGS_MAX: usize = 4;
/// Documents that are looked at: no answer has more tokens.
const DOCUMENTS_MAX: usize = 200_000;
/// Places behind words that are looked at for JSON: a warning or two have no more braces.
const BRACES_MAX: usize = 16;
/// Bytes that a decoder looks back on at most: what RFC 9659 lets a server ask for.
const ZSTD_WINDOW_BYTES_MAX: u64 = 8 * 1024 * 1024;
const BROTLI_BUFFER_BYTES: usize = 4 * 1024;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The codings that a body is said to have, in the order in which they were applied.
fn codings(headers: &HeaderMap) -> impl DoubleEndedIterator<Item = &str> {
    let named = headers.get_all(CONTENT_ENCODING).iter();
    named
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Whether bytes are packed, by what their headers say or by how they begin.
pub(super) fn is_packed(headers: &HeaderMap, body: &[u8]) -> bool {
    headers.contains_key(CONTENT_ENCODING) || body.starts_with(&GZIP) || body.starts_with(&ZSTD)
}

/// The body without the codings that its headers name. Where a header says what is not so, the body is taken as it
/// is; of one that broke off, what it began with.
pub(super) fn decoded(headers: &HeaderMap, body: Bytes) -> Bytes {
    let mut body = body;
    for coding in codings(headers).rev().take(CODINGS_MAX) {
        body = undone(coding, body);
    }
    // Some relays pack without saying so.
    if body.starts_with(&GZIP) {
        body = undone("gzip", body);
    } else if body.starts_with(&ZSTD) {
        body = undone("zstd", body);
    }
    body
}

/// A coding that a body is said to have and that is not undone.
pub(super) fn unread_coding(headers: &HeaderMap) -> Option<&str> {
    let known = ["gzip", "x-gzip", "deflate", "br", "zstd", "identity", ""];
    codings(headers).find(|coding| !known.iter().any(|known| coding.eq_ignore_ascii_case(known)))
}

/// A body without one coding.
fn undone(coding: &str, body: Bytes) -> Bytes {
    let unpacked = match coding.to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => Unpacked::by(MultiGzDecoder::new(&*body)),
        "deflate" => match Unpacked::by(ZlibDecoder::new(&*body)) {
            // Some servers leave out the frame that belongs around it.
            Unpacked::Broken(begun) if begun.is_empty() => {
                Unpacked::by(DeflateDecoder::new(&*body))
            }
            unpacked => unpacked,
        },
        "br" => Unpacked::by(brotli(&body)),
        "zstd" => Unpacked::by(ZstdFrames {
            open: None,
            rest: &body,
        }),
        _ => return body,
    };
    match unpacked {
        Unpacked::Whole(plain) => plain.into(),
        // What is text as it stands was never packed.
        Unpacked::Broken(begun) if !begun.is_empty() && std::str::from_utf8(&body).is_err() => {
            begun.into()
        }
        Unpacked::Broken(_) | Unpacked::TooLarge => body,
    }
}

/// What comes out of a decoder.
enum Unpacked {
    Whole(Vec<u8>),
    /// It broke off behind this, or was never packed so.
    Broken(Vec<u8>),
    /// More than a response may have.
    TooLarge,
}

impl Unpacked {
    fn by(decoder: impl Read) -> Self {
        let mut plain = Vec::new();
        let max = limits::RESPONSE_BYTES_MAX;
        let read = decoder.take(max as u64 + 1).read_to_end(&mut plain);
        match read {
            _ if plain.len() > max => Self::TooLarge,
            Ok(_) => Self::Whole(plain),
            Err(_) => Self::Broken(plain),
        }
    }
}

/// A decoder that looks back no further than the format's own windows allow: its large ones have up to a gigabyte.
fn brotli(body: &[u8]) -> impl Read {
    let mut decoder = Decompressor::new(body, BROTLI_BUFFER_BYTES);
    decoder.set_parameter(BrotliDecoderParameter::BROTLI_DECODER_PARAM_LARGE_WINDOW, 0);
    decoder
}

/// The frames of a zstd body, one after the other.
struct ZstdFrames<'b> {
    open: Option<StreamingDecoder<&'b [u8], FrameDecoder>>,
    rest: &'b [u8],
}

impl Read for ZstdFrames<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(mut frame) = self.open.take() {
                let read = frame.read(buffer)?;
                if read > 0 {
                    self.open = Some(frame);
                    return Ok(read);
                }
                self.rest = frame.into_inner();
            }
            if self.rest.is_empty() {
                return Ok(0);
            }
            let frame =
                StreamingDecoder::new_with_max_window_size(self.rest, ZSTD_WINDOW_BYTES_MAX);
            match frame {
                Ok(frame) => self.open = Some(frame),
                // Not a part of the text.
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let head_and_rest = usize::try_from(length)
                        .unwrap_or(usize::MAX)
                        .saturating_add(8);
                    self.rest = self.rest.get(head_and_rest..).unwrap_or_default();
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

/// The text of a body: without blanks and byte order marks before it, and with what is no text replaced.
pub(super) fn text(body: &[u8]) -> Cow<'_, str> {
    if let Some(unit) = unit_of_utf16(body) {
        let (units, _) = body.as_chunks::<2>();
        let chars = char::decode_utf16(units.iter().copied().map(unit));
        let mut text: String = chars
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect();
        text.drain(..text.len() - trimmed(&text).len());
        return Cow::Owned(text);
    }
    let mut body = body.trim_ascii_start();
    while let Some(rest) = body.strip_prefix(b"\xef\xbb\xbf") {
        body = rest.trim_ascii_start();
    }
    String::from_utf8_lossy(body)
}

/// How a body in UTF-16 spells a unit, by its mark, or by the zeros in its first two characters: no other text has them.
fn unit_of_utf16(body: &[u8]) -> Option<fn([u8; 2]) -> u16> {
    match body {
        [0xff, 0xfe, ..] | [(1..), 0, (1..), 0, ..] => Some(u16::from_le_bytes),
        [0xfe, 0xff, ..] | [0, (1..), 0, (1..), ..] => Some(u16::from_be_bytes),
        _ => None,
    }
}

fn trimmed(text: &str) -> &str {
    text.trim_start_matches(|c: char| c.is_whitespace() || c == BYTE_ORDER_MARK)
}

/// The JSON that a text begins with, and what stands behind it; the comments before it are those of server-sent
/// events, by which relays keep a connection alive.
fn first_json(text: &str) -> Option<(&RawValue, &str)> {
    let mut text = trimmed(text);
    while text.starts_with(':') {
        text = trimmed(text.split_once(['\n', '\r'])?.1);
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let json = values.next()?.ok()?;
    Some((json, text.get(values.byte_offset()..)?))
}

/// The JSON that a text begins with, whatever stands behind it.
pub(super) fn leading_json(text: &str) -> Option<&RawValue> {
    first_json(text).map(|(json, _)| json)
}

/// All JSON of a text in its order: what it begins with, one after the other, and behind that the data of server-sent
/// events, or the objects behind words. `None`: it has none of these.
pub(super) fn documents(text: &str) -> Option<Vec<Cow<'_, str>>> {
    let (mut documents, mut rest) = (Vec::new(), text);
    while documents.len() < DOCUMENTS_MAX
        && let Some((json, behind)) = first_json(rest)
    {
        documents.push(Cow::Borrowed(json.get()));
        rest = behind;
    }
    match events(rest) {
        Some(events) => documents.extend(events),
        None if trimmed(rest).is_empty() => {}
        None => documents.extend(behind_words(rest)),
    }
    // A text without any is told from a stream of none.
    (!documents.is_empty() || is_stream(rest)).then_some(documents)
}

/// Whether what a text begins with is for people: neither JSON that could be an answer, nor events.
pub(super) fn begins_with_words(text: &str) -> bool {
    let json = leading_json(text).map(RawValue::get);
    !json.is_some_and(|json| json.starts_with(['{', '[', '"'])) && !is_stream(text)
}

/// The objects behind words, such as a proxy's warning; none of a page, in whose scripts anything may stand.
fn behind_words(text: &str) -> Vec<Cow<'_, str>> {
    let (mut objects, mut rest) = (Vec::new(), text);
    if is_page(text) {
        return objects;
    }
    for _ in 0..BRACES_MAX {
        let Some(brace) = rest.find('{') else { break };
        let (_, from) = rest.split_at(brace);
        rest = match first_json(from) {
            Some((json, behind)) => {
                objects.push(Cow::Borrowed(json.get()));
                behind
            }
            None => from.get(1..).unwrap_or_default(),
        };
    }
    objects
}

/// Whether a text begins as a page for people does.
pub(super) fn is_page(text: &str) -> bool {
    let text = text.trim_start();
    ["<!doctype html", "<html"].iter().any(|head| {
        let begin = text.as_bytes().get(..head.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(head.as_bytes()))
    })
}

/// Whether a text has server-sent events.
pub(super) fn is_stream(text: &str) -> bool {
    lines(text).any(|line| {
        line.trim_start_matches(BYTE_ORDER_MARK)
            .starts_with("data:")
    })
}

/// The data of server-sent events, one after the other; `[DONE]` is none. `None`: the text has no such events.
pub(super) fn events(text: &str) -> Option<Vec<Cow<'_, str>>> {
    let mut events = Vec::new();
    let mut open: Option<Data<'_>> = None;
    let mut is_stream = false;
    for line in lines(text) {
        if events.len() >= DOCUMENTS_MAX {
            break;
        }
        let line = line.trim_start_matches(BYTE_ORDER_MARK);
        if let Some(mut data) = line.strip_prefix("data:") {
            is_stream = true;
            // Some relays frame what was framed already.
            while let Some(inner) = trimmed(data).strip_prefix("data:") {
                data = inner;
            }
            let data = trimmed(data);
            open = Some(match open {
                // Relays forget the empty line between two events.
                Some(before) if before.json == Json::Whole => {
                    events.push(before.text);
                    Data::of(data)
                }
                Some(before) => before.and(data),
                None => Data::of(data),
            });
        } else if line.is_empty() {
            events.extend(open.take().map(|data| data.text));
        }
    }
    events.extend(open.map(|data| data.text));
    events.retain(|data| !matches!(trimmed(data).trim_end(), "" | "[DONE]"));
    is_stream.then_some(events)
}

/// The data of an event, as far as its lines were read.
struct Data<'t> {
    text: Cow<'t, str>,
    json: Json,
}

/// Whether a text that grows by lines begins with JSON. Each line is looked at once, and the whole when it may be one.
#[derive(PartialEq, Eq)]
enum Json {
    /// Nothing but blanks and comments came.
    NotBegun,
    /// Of an object or a list the end did not come.
    Open(Nesting),
    /// It does, whatever stands behind it.
    Whole,
    /// It does not, whatever comes.
    None,
}

impl<'t> Data<'t> {
    fn of(line: &'t str) -> Self {
        Self {
            text: Cow::Borrowed(line),
            json: Json::of_line(line),
        }
    }

    /// One more line of it.
    fn and(self, line: &str) -> Self {
        let mut text = self.text.into_owned();
        text.push('\n');
        text.push_str(line);
        let json = match self.json {
            Json::NotBegun => Json::of_line(line),
            Json::Open(mut nesting) => match nesting.closes_in(line) {
                true if leading_json(&text).is_some() => Json::Whole,
                true => Json::None,
                false => Json::Open(nesting),
            },
            known => known,
        };
        let text = Cow::Owned(text);
        Self { text, json }
    }
}

impl Json {
    fn of_line(line: &str) -> Self {
        let line = trimmed(line);
        if line.is_empty() || line.starts_with(':') {
            return Self::NotBegun;
        }
        let mut nesting = Nesting::default();
        match leading_json(line) {
            Some(_) => Self::Whole,
            None if line.starts_with(['{', '[']) && !nesting.closes_in(line) => Self::Open(nesting),
            None => Self::None,
        }
    }
}

/// How deep in JSON a text is, by its brackets and quotes alone.
#[derive(Default, PartialEq, Eq)]
struct Nesting {
    depth: usize,
    in_text: bool,
    is_escaped: bool,
}

impl Nesting {
    /// Goes on with a line, up to where the outermost bracket is closed. Whether that is in it.
    fn closes_in(&mut self, line: &str) -> bool {
        for byte in line.bytes() {
            match byte {
                _ if std::mem::take(&mut self.is_escaped) => {}
                b'\\' => self.is_escaped = self.in_text,
                b'"' => self.in_text = !self.in_text,
                b'{' | b'[' if !self.in_text => self.depth += 1,
                b'}' | b']' if !self.in_text => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    }
}

/// Lines as server-sent events have them: CR, LF or both end one.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some((line, behind)) = text.split_once(['\n', '\r']) else {
            rest = None;
            return Some(text);
        };
        let ended_by_both = text.get(line.len()..)?.starts_with("\r\n");
        rest = behind.get(usize::from(ended_by_both)..);
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const PLAIN: &[u8] = br#"{"choices":[]}"#;
    /// `PLAIN` as the reference encoders pack it.
    const BROTLI: &[u8] =
        b"\x8b\x06\x80\x7b\x22\x63\x68\x6f\x69\x63\x65\x73\x22\x3a\x5b\x5d\x7d\x03";
    const ZSTD_FRAME: &[u8] =
        b"\x28\xb5\x2f\xfd\x20\x0e\x71\x00\x00\x7b\x22\x63\x68\x6f\x69\x63\x65\x73\x22\x3a\x5b\x5d\x7d";
    /// More blanks than a response may have.
    const BROTLI_BOMB: &[u8] =
        b"\xcf\xff\xff\x7f\xf8\x25\x40\xe2\xb1\x40\x20\xf7\xfe\x9f\xff\xff\xff\xf0\x4b\x00\xc4\x61\x01\x80\xee\xfd\x3f\x00\x00\x02\x20\x03";

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
            ("br", BROTLI.to_vec()),
            ("BR", BROTLI.to_vec()),
            ("zstd", ZSTD_FRAME.to_vec()),
            ("gzip, deflate", packed!(ZlibEncoder, &gzip)),
            ("br, gzip", packed!(GzEncoder, BROTLI)),
            ("zstd , deflate", packed!(ZlibEncoder, ZSTD_FRAME)),
            ("gzip, identity", gzip.clone()),
            ("identity", PLAIN.to_vec()),
        ] {
            assert_eq!(read(coding, body), PLAIN, "{coding}");
        }
        for silent in [gzip, ZSTD_FRAME.to_vec()] {
            let read = decoded(&HeaderMap::new(), silent.into());
            assert_eq!(read, PLAIN, "nothing said that it is packed");
        }
    }

    #[test]
    fn several_headers_name_codings_as_one_list_does() {
        let mut headers = HeaderMap::new();
        for coding in ["br", "gzip"] {
            headers.append(CONTENT_ENCODING, coding.parse().unwrap());
        }
        let body = packed!(GzEncoder, BROTLI);
        assert_eq!(decoded(&headers, body.into()), PLAIN);
        headers.append(CONTENT_ENCODING, "compress".parse().unwrap());
        assert_eq!(unread_coding(&headers), Some("compress"));
    }

    #[test]
    fn frames_of_zstd_follow_each_other() {
        // One of them is to be skipped.
        let skipped = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc";
        let body = [skipped, ZSTD_FRAME, skipped, ZSTD_FRAME].concat();
        assert_eq!(read("zstd", body), [PLAIN, PLAIN].concat());
    }

    #[test]
    fn of_what_broke_off_the_beginning_is_read() {
        let noise: Vec<u8> = (0..20_000u32).map(|n| (n * n % 251) as u8).collect();
        for (coding, body) in [
            ("gzip", packed!(GzEncoder, &noise)),
            ("deflate", packed!(ZlibEncoder, &noise)),
            ("deflate", packed!(DeflateEncoder, &noise)),
        ] {
            let begun = read(coding, body[..body.len() / 2].to_vec());
            assert!(begun.len() > 100 && noise.starts_with(&begun), "{coding}");
        }
        // All of it came, and only the end of the coding is missing.
        for (coding, body) in [
            ("gzip", packed!(GzEncoder, PLAIN)),
            ("deflate", packed!(ZlibEncoder, PLAIN)),
        ] {
            assert_eq!(read(coding, body[..body.len() - 2].to_vec()), PLAIN);
        }
    }

    #[test]
    fn a_decoder_looks_back_no_further_than_the_formats_allow() {
        // The same with windows of 128 MB: nobody reserves that for a server.
        let wide = b"\x28\xb5\x2f\xfd\x00\x88\x71\x00\x00\x7b\x22\x63\x68\x6f\x69\x63\x65\x73\x22\x3a\x5b\x5d\x7d";
        assert_eq!(read("zstd", wide.to_vec()), wide.to_vec());
        // A large window of brotli, as its extension has it.
        let large = b"\x11\x1e\x06\x80";
        assert_eq!(read("br", large.to_vec()), large.to_vec());
    }

    #[test]
    fn a_coding_that_is_not_so_changes_nothing() {
        for text in [
            PLAIN,
            b"",
            b"no",
            "\u{1}\u{2}\u{3}\u{4e00}".repeat(99).as_bytes(),
        ] {
            for coding in ["gzip", "deflate", "br", "zstd", "nonsense", ""] {
                assert_eq!(read(coding, text.to_vec()), text, "{coding}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_under_any_coding(body: Vec<u8>, head in 0..4usize) {
            let heads: [&[u8]; 4] = [b"", &GZIP, &ZSTD, BROTLI];
            let body = [heads[head], &body].concat();
            for coding in ["gzip", "deflate", "br", "zstd"] {
                let _ = text(&read(coding, body.clone()));
            }
        }
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let blanks = vec![b' '; limits::RESPONSE_BYTES_MAX + 1];
        let zstd = ruzstd::encoding::CompressionLevel::Fastest;
        for (coding, bomb) in [
            ("gzip", packed!(GzEncoder, &blanks)),
            ("deflate", packed!(ZlibEncoder, &blanks)),
            ("br", BROTLI_BOMB.to_vec()),
            ("zstd", ruzstd::encoding::compress_to_vec(&*blanks, zstd)),
        ] {
            assert!(bomb.len() < limits::RESPONSE_BYTES_MAX / 100, "{coding}");
            assert_eq!(read(coding, bomb.clone()), bomb, "{coding}");
        }
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
        check(
            "data:{\"a\":1}\r\rdata:{\"b\":2}\r",
            &["{\"a\":1}", "{\"b\":2}"],
        );
        check(
            "data: data: {\"a\":1}\n\ndata: data: [DONE]\n\n",
            &["{\"a\":1}"],
        );
        check(
            "\u{feff}data: {\"a\":\r\ndata: 1}\r\n\r\n",
            &["{\"a\":\n1}"],
        );
        assert_eq!(events("{\"data\": 1}"), None);
        assert_eq!(events("<html>"), None);
    }

    #[test]
    fn json_over_lines_of_data_ends_where_it_ends() {
        let check = |lines: &[&str], want: &[&str]| {
            let text: String = lines.iter().map(|line| format!("data: {line}\n")).collect();
            assert_eq!(events(&text).unwrap(), want, "{text:?}");
        };
        check(
            &["{\"a\":[", "\"}]\",1]}", "7"],
            &["{\"a\":[\n\"}]\",1]}", "7"],
        );
        check(
            &["{\"a\":\"\\\"}\"", "}", "{}"],
            &["{\"a\":\"\\\"}\"\n}", "{}"],
        );
        check(
            &["", ": ping", "[1", "] [", "2"],
            &["\n: ping\n[1\n] [", "2"],
        );
        check(&["{no}", "{}"], &["{no}\n{}"]);
        check(&["words", "{}"], &["words\n{}"]);
    }

    #[test]
    fn lines_that_never_come_to_an_end_are_each_looked_at_once() {
        let lines = 400_000;
        let open = "data: [\n".repeat(lines);
        let told = events(&open).unwrap();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].len(), 2 * lines - 1);
        let blank = "data: \n".repeat(lines);
        assert!(events(&blank).unwrap().is_empty());
    }

    #[test]
    fn all_json_of_a_body_is_found_in_its_order() {
        let check = |text: &str, want: &[&str]| {
            assert_eq!(documents(text).unwrap(), want, "{text:?}");
        };
        check("{\"a\":1}", &["{\"a\":1}"]);
        check("{\"a\":1} and words", &["{\"a\":1}"]);
        check("7", &["7"]);
        check(
            "{\"a\":1}\n{\"b\":2}{\"c\":3}",
            &["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"],
        );
        check(
            ": ping\r\n\r\n{\"a\":1}\n\ndata: {\"b\":2}\n\ndata: [DONE]\n\n",
            &["{\"a\":1}", "{\"b\":2}"],
        );
        assert_eq!(documents("<html>"), None);
        assert_eq!(documents(""), None);
    }

    #[test]
    fn json_is_found_behind_words() {
        for words in [
            "Warning: mbstring is missing in {main} on line 7\n",
            "<br />\n<b>Notice</b>: {x: 1} [a, b] ",
            "200 OK\r\n\r\n",
            "null, said the proxy: ",
            "[notice] \"quoted\" ",
        ] {
            let check = |behind: &str, want: &[&str]| {
                let text = format!("{words}{behind}");
                let found = documents(&text).unwrap();
                let objects: Vec<_> = found.iter().filter(|json| json.starts_with('{')).collect();
                assert_eq!(objects, want, "{text:?}");
            };
            check("{\"a\":{\"b\":1}}\n-- bye", &["{\"a\":{\"b\":1}}"]);
            check("{\"a\":1}\n{\"b\":2}", &["{\"a\":1}", "{\"b\":2}"]);
            check("\ndata: {\"a\":1}\n\n", &["{\"a\":1}"]);
        }
        for none in [
            "<html><script>{\"a\":1}</script>",
            "\n<!DOCTYPE html><script>{\"a\":1}</script>",
            "words alone",
            "{not: json}",
            &"{".repeat(1_000_000),
        ] {
            assert_eq!(documents(none), None);
        }
    }

    #[test]
    fn a_body_in_utf_16_is_read() {
        let told = "{\"a\":\"\u{4f60} \u{1f600}\"}";
        let units: Vec<u16> = told.encode_utf16().collect();
        let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        for body in [
            [&b"\xff\xfe"[..], &little].concat(),
            [&b"\xfe\xff"[..], &big].concat(),
            little.clone(),
            big,
        ] {
            assert_eq!(text(&body), told);
        }
        // The last byte is missing, and half of a character.
        let cut = [&b"\xff\xfe"[..], &little[..7], b"\xd8\x22"].concat();
        assert!(text(&cut).starts_with("{\""));
        assert_eq!(text(b"\xff\xfe"), "");
        for other in [&b"a\x00"[..], b"\x00{}", b"{\x00}\x01"] {
            assert_eq!(text(other).as_bytes(), other, "text all the same");
        }
    }

    #[test]
    fn blanks_and_byte_order_marks_before_a_text_say_nothing() {
        for before in ["\u{feff}", "\n \u{feff}", "\u{feff}\r\n\u{feff}\t", " "] {
            let body = format!("{before}{{}}");
            assert_eq!(text(body.as_bytes()), "{}", "{before:?}");
            assert!(leading_json(&body).is_some(), "{before:?}");
        }
    }
}
