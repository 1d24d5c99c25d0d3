//! The rows of requests. Those of several jobs that come to the tables together are one row, a pack, under the place in
//! line of the first: a page of the file holds three requests of a kilobyte, and a quarter of it nothing.
//!
//! A row is JSON like every other: `[1,[7,17,8,23],{...},{...}]`. Its first member says of each request its place in line,
//! so that none is ever taken for another's, and how many bytes it takes.
//!
//! Requests come to the tables in the order of their places, each once, and never change. So a pack ends before the
//! next row begins, and a request is in the last row at or before its place, or nowhere.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;

use redb::{ReadableTable as _, WriteTransaction};

use super::error::{FileError, Result};
use super::row;
use super::schema::{self, inner, other_version};
use super::tables::{RowId, Rows};
use crate::model::{Request, Seq};

const TABLE: &str = "requests";

/// With what redb adds to it, a row of so many bytes fills four pages: a value takes pages in powers of two. Twice as
/// much would save three bytes of a hundred, and cost twice as many requests where the page of the first member is damaged.
const PACK_BYTES: usize = 16 * 1024 - 64;
/// A request that is longer has a row of its own.
const REQUEST_BYTES_MAX: usize = PACK_BYTES / 2;
/// What stands around a row's members.
const BEGIN: &[u8] = b"[1,";
const END: &[u8] = b"]";

/// The places of the requests of a row; each can be read.
pub(super) fn places(first: u64, row: &[u8]) -> Result<Vec<Seq>> {
    let pack = Pack::read(first, row)?;
    let mut places = Vec::with_capacity(pack.0.len());
    for (seq, _) in &pack.0 {
        if let Some(body) = pack.request(*seq, row)? {
            parsed(body)?;
        }
        places.push(Seq(*seq));
    }
    Ok(places)
}

/// Reads such a request.
pub(super) fn parsed(body: &[u8]) -> Result<Request> {
    serde_json::from_slice(body).map_err(|e| FileError::unreadable(TABLE, &e))
}

fn broken() -> FileError {
    FileError::damaged(TABLE, "a row is not what it should be")
}

/// Goes through the requests of a row as its first member names them: the place in line of each, and where its bytes are.
/// Nothing is kept of them: this is done for every call that is put on record.
struct Walk<'r> {
    row: &'r [u8],
    /// What is left of the first member, without its brackets.
    head: &'r [u8],
    /// Behind what was gone through.
    at: usize,
    /// The next place is none before this one.
    least: u64,
}

impl<'r> Walk<'r> {
    fn begin(first: u64, row: &'r [u8]) -> Result<Self> {
        let Some(whole) = inner(row) else {
            return Err(other_version(TABLE, row));
        };
        let end = whole
            .iter()
            .position(|byte| *byte == b']')
            .ok_or_else(broken)?;
        let head = whole.get(..end).and_then(|head| head.strip_prefix(b"["));
        Ok(Self {
            row,
            head: head.filter(|head| !head.is_empty()).ok_or_else(broken)?,
            at: BEGIN.len() + end + 1,
            least: first,
        })
    }

    /// The next request; `None`: there is no other, and the row is whole.
    fn step(&mut self) -> Result<Option<(u64, Range<usize>)>> {
        if self.head.is_empty() {
            let is_whole = self.at + END.len() == self.row.len();
            return if is_whole { Ok(None) } else { Err(broken()) };
        }
        self.pair().map(Some).ok_or_else(broken)
    }

    fn pair(&mut self) -> Option<(u64, Range<usize>)> {
        let seq = self.number()?;
        let bytes = usize::try_from(self.number()?).ok()?;
        let begin = self.at.checked_add(1)?;
        let end = begin.checked_add(bytes)?;
        // What was the first may be gone, and the row keeps its key.
        let is_right = seq >= self.least && seq < u64::MAX && end <= self.row.len();
        if !is_right || self.row.get(self.at) != Some(&b',') {
            return None;
        }
        self.least = seq + 1;
        self.at = end;
        Some((seq, begin..end))
    }

    /// The next number, and the comma behind it where another one follows.
    fn number(&mut self) -> Option<u64> {
        let mut number: Option<u64> = None;
        let mut rest = self.head;
        while let [byte, others @ ..] = rest {
            rest = others;
            match byte {
                b'0'..=b'9' => {
                    let tens = number.unwrap_or(0).checked_mul(10)?;
                    number = Some(tens.checked_add(u64::from(byte - b'0'))?);
                }
                b',' if !rest.is_empty() => break,
                _ => return None,
            }
        }
        self.head = rest;
        number
    }
}

/// The request of a place, as JSON; `None`: it is not in this row.
pub(super) fn find(first: u64, row: &[u8], seq: u64) -> Result<Option<&[u8]>> {
    let mut walk = Walk::begin(first, row)?;
    let mut found = None;
    // To the end: of a row that is not whole nothing is taken.
    while let Some((at, bytes)) = walk.step()? {
        if at == seq {
            found = row.get(bytes);
        }
    }
    Ok(found)
}

/// Where the requests of a row are: the place in line of each, in their order, and its bytes in the row.
pub(super) struct Pack(Vec<(u64, Range<usize>)>);

impl Pack {
    /// Looks at a row, which has this key.
    pub(super) fn read(first: u64, row: &[u8]) -> Result<Self> {
        let mut walk = Walk::begin(first, row)?;
        let mut places = Vec::new();
        while let Some(place) = walk.step()? {
            places.push(place);
        }
        Ok(Self(places))
    }

    /// The request of a row that is new, where it has this one alone and others may come to it.
    fn alone(key: u64, row: &[u8]) -> Result<Option<&[u8]>> {
        let pack = Self::read(key, row)?;
        let [(seq, bytes)] = pack.0.as_slice() else {
            return Ok(None);
        };
        let fits = *seq == key && bytes.len() <= REQUEST_BYTES_MAX;
        Ok(row.get(bytes.clone()).filter(|_| fits))
    }

    /// All requests but that of a place.
    pub(super) fn others<'r>(&self, seq: u64, row: &'r [u8]) -> Result<Vec<(u64, &'r [u8])>> {
        let mut others = Vec::with_capacity(self.0.len());
        for (at, _) in &self.0 {
            if *at != seq
                && let Some(body) = self.request(*at, row)?
            {
                others.push((*at, body));
            }
        }
        Ok(others)
    }

    /// The request of a place, as JSON; `None`: it is not here.
    pub(super) fn request<'r>(&self, seq: u64, row: &'r [u8]) -> Result<Option<&'r [u8]>> {
        let Ok(at) = self.0.binary_search_by_key(&seq, |(seq, _)| *seq) else {
            return Ok(None);
        };
        let bytes = self.0.get(at).and_then(|(_, bytes)| row.get(bytes.clone()));
        bytes.map(Some).ok_or_else(broken)
    }
}

/// The row of a request, over what `out` held.
pub(super) fn encode(out: &mut Vec<u8>, seq: Seq, request: &Request) -> Result<()> {
    let mut body = Vec::with_capacity(request.len() + 64);
    row::write(&mut body, request).map_err(|e| FileError::unwritable(&e))?;
    out.clear();
    write_pack(out, &[(seq.0, &body)]);
    Ok(())
}

/// The row of these requests.
pub(super) fn written(requests: &[(u64, &[u8])]) -> Vec<u8> {
    let mut row = Vec::with_capacity(PACK_BYTES);
    write_pack(&mut row, requests);
    row
}

fn write_pack(row: &mut Vec<u8>, requests: &[(u64, &[u8])]) {
    row.extend_from_slice(BEGIN);
    for (n, (seq, body)) in requests.iter().enumerate() {
        let begin = if n == 0 { '[' } else { ',' };
        // Writing to memory does not fail.
        let _ = write!(row, "{begin}{seq},{}", body.len());
    }
    row.push(b']');
    for (_, body) in requests {
        row.push(b',');
        row.extend_from_slice(body);
    }
    row.extend_from_slice(END);
}

/// Writes requests of some layers of rows, the lower first, to their table.
pub(super) fn settle(transaction: &WriteTransaction, layers: &[&Rows]) -> Result<()> {
    let its = schema::REQUESTS.first()..schema::REQUESTS.end();
    let mut rows: BTreeMap<&RowId, &Option<Arc<[u8]>>> = BTreeMap::new();
    for layer in layers {
        rows.extend(layer.range(its.clone()));
    }
    if rows.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(schema::REQUESTS.definition)?;
    // What is left of a pack stays where it was: other requests may stand between it and the new ones.
    let last = table.last()?.map(|(last, _)| last.value());
    let is_new = |key| last.is_none_or(|last| last < key);
    let mut put = |key: u64, row: &[u8]| -> Result<()> {
        table.insert(key, row)?;
        Ok(())
    };
    let mut gone = Vec::new();
    let mut pack = Open::default();
    for (id, row) in rows {
        let key = schema::REQUESTS.key(id);
        let Some(row) = row else {
            gone.push(key);
            continue;
        };
        let body = match is_new(key) {
            true => Pack::alone(key, row)?,
            false => None,
        };
        match body {
            Some(body) => {
                if !pack.has_room(key, body.len()) {
                    pack.close(&mut put)?;
                }
                pack.add(key, body);
            }
            // None goes on behind it.
            None => {
                pack.close(&mut put)?;
                put(key, row)?;
            }
        }
    }
    pack.close(&mut put)?;
    for key in gone {
        table.remove(key)?;
    }
    Ok(())
}

/// A pack that is filled.
#[derive(Default)]
struct Open<'r> {
    requests: Vec<(u64, &'r [u8])>,
    bytes: usize,
}

impl<'r> Open<'r> {
    /// What a request takes: a comma before it, its own bytes, and its two numbers, each with one byte behind it.
    fn taken(key: u64, len: usize) -> usize {
        let digits = |n: u64| n.checked_ilog10().unwrap_or(0) as usize + 1;
        1 + len + digits(key) + 1 + digits(len as u64) + 1
    }

    fn has_room(&self, key: u64, len: usize) -> bool {
        let around = BEGIN.len() + 1 + END.len();
        around + self.bytes + Self::taken(key, len) <= PACK_BYTES
    }

    fn add(&mut self, key: u64, body: &'r [u8]) {
        self.bytes += Self::taken(key, body.len());
        self.requests.push((key, body));
    }

    fn close(&mut self, put: &mut impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let requests = std::mem::take(self).requests;
        match requests.first() {
            Some((first, _)) => put(*first, &written(&requests)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(n: usize, len: usize) -> Vec<u8> {
        let text = "x".repeat(len);
        format!(r#"{{"prompt":"{n}{text}"}}"#).into_bytes()
    }

    #[test]
    fn a_pack_gives_each_request_back_and_nothing_else() {
        let bodies = [body(1, 0), body(2, 300), body(3, 7)];
        let seqs = [10, 11, 14];
        let requests: Vec<(u64, &[u8])> = seqs
            .into_iter()
            .zip(bodies.iter().map(Vec::as_slice))
            .collect();
        let row = written(&requests);
        let text = str::from_utf8(&row).unwrap();
        serde_json::from_str::<serde::de::IgnoredAny>(text).unwrap();
        // What was before them may be gone.
        for key in [8, 10] {
            let pack = Pack::read(key, &row).unwrap();
            for (seq, body) in &requests {
                assert_eq!(pack.request(*seq, &row).unwrap(), Some(*body));
                assert_eq!(find(key, &row, *seq).unwrap(), Some(*body));
            }
            for seq in [0, 8, 9, 12, 13, 15] {
                assert_eq!(pack.request(seq, &row).unwrap(), None);
                assert_eq!(find(key, &row, seq).unwrap(), None);
            }
            assert_eq!(places(key, &row).unwrap(), [Seq(10), Seq(11), Seq(14)]);
        }
        Pack::read(11, &row)
            .err()
            .expect("it is not behind its key");
    }

    #[test]
    fn what_a_row_takes_is_known_before_it_is_written() {
        let mut open = Open::default();
        let bodies = [body(1, 0), body(2, 90), body(3, 12_000)];
        for (seq, body) in [9, 10, 11_000_000].into_iter().zip(&bodies) {
            open.add(seq, body);
        }
        let around = BEGIN.len() + 1 + END.len();
        assert_eq!(written(&open.requests).len(), around + open.bytes);
    }

    #[test]
    fn what_is_no_pack_is_damage_and_never_another_request() {
        let (one, two) = (body(1, 5), body(2, 5));
        let row = written(&[(3, &one), (5, &two)]);
        let text = String::from_utf8(row.clone()).unwrap();
        for (from, to) in [
            ("[3,", "[2,"),
            ("[3,", "[9,"),
            ("[3,19", "[3,20"),
            ("[3,19", "[3,18"),
            ("5,19]", "5,19,4]"),
            ("5,19]", "3,19]"),
            ("5,19]", "5,99]"),
            ("5,19]", "5,18446744073709551615]"),
            ("[3,19", "[3,18446744073709551587"),
            ("5,19]", "18446744073709551615,19]"),
            ("[3,19,5,19]", "[]"),
            ("[3,19,5,19],", ""),
            ("],{", "] {"),
            ("[1,", "[\"1\","),
        ] {
            assert!(text.contains(from), "{from} in {text}");
            let broken = text.replacen(from, to, 1);
            let error = places(3, broken.as_bytes()).expect_err(to);
            assert!(error.is_damage(), "{to}");
            find(3, broken.as_bytes(), 3).expect_err(to);
        }
        for len in 0..row.len() {
            places(3, row.get(..len).unwrap()).expect_err("it is cut");
        }
        let newer = text.replacen("[1,", "[2,", 1);
        let error = places(3, newer.as_bytes()).err().map(|error| error.at(""));
        assert!(
            matches!(error, Some(crate::ports::StoreError::RowVersion { .. })),
            "{error:?}"
        );
    }
}
