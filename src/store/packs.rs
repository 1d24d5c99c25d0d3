//! The requests of jobs. One alone is a row under its job's place in line; several that come to the tables together are
//! one row, a pack, under the place of the first: a page of the file holds three requests of a kilobyte, and a quarter
//! of it nothing.
//!
//! A pack is JSON like every row: `[1,[0,17,1,23],{...},{...}]`. Its first member says of each request how far its
//! place is behind that of the row, and how many bytes it takes.
//!
//! Requests come to the tables in the order of their places, each once, and never change. So a pack ends before the
//! next row begins, and a request is in the last row at or before its place, or nowhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::{ReadableTable as _, WriteTransaction};

use super::error::{FileError, Result};
use super::schema::{self, decode};
use super::tables::{RowId, Rows};
use crate::model::{Request, Seq};

const TABLE: &str = "requests";

/// With what redb adds to it, a row of so many bytes fills eight pages: a value takes pages in powers of two.
const PACK_BYTES: usize = 32 * 1024 - 64;
/// A request that is longer has a row of its own.
const REQUEST_BYTES_MAX: usize = PACK_BYTES / 2;
/// What stands around the request in a row of its own, and before what a pack has.
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

/// Where the requests of a row are: the place in line of each, in their order, and its bytes in the row.
pub(super) struct Pack(Vec<(u64, std::ops::Range<usize>)>);

impl Pack {
    /// Looks at a row, which has this key.
    pub(super) fn read(first: u64, row: &[u8]) -> Result<Self> {
        let whole = row
            .strip_prefix(BEGIN)
            .and_then(|row| row.strip_suffix(END));
        let Some(whole) = whole else {
            // Of another version, or no row at all: the error says which.
            return Err(decode::<Request>(TABLE, row).err().unwrap_or_else(broken));
        };
        if !whole.starts_with(b"[") {
            let begin = BEGIN.len();
            return Ok(Self(vec![(first, begin..begin + whole.len())]));
        }
        let mut parts = serde_json::Deserializer::from_slice(whole).into_iter::<Vec<u64>>();
        let numbers = match parts.next() {
            Some(Ok(numbers)) => numbers,
            Some(Err(e)) => return Err(FileError::unreadable(TABLE, &e)),
            None => return Err(broken()),
        };
        let mut at = BEGIN.len() + parts.byte_offset();
        let (pairs, rest) = numbers.as_chunks::<2>();
        let mut places = Vec::with_capacity(pairs.len());
        for [behind, bytes] in pairs {
            let begin = at + 1;
            let end = usize::try_from(*bytes)
                .ok()
                .and_then(|len| begin.checked_add(len));
            let (Some(seq), Some(end)) = (first.checked_add(*behind), end) else {
                return Err(broken());
            };
            let in_order = places.last().is_none_or(|(before, _)| *before < seq);
            if !in_order || row.get(at) != Some(&b',') {
                return Err(broken());
            }
            places.push((seq, begin..end));
            at = end;
        }
        let is_whole = rest.is_empty() && !places.is_empty() && at + END.len() == row.len();
        is_whole.then_some(Self(places)).ok_or_else(broken)
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

/// The row of these requests, which have this key.
pub(super) fn written(first: u64, requests: &[(u64, &[u8])]) -> Vec<u8> {
    use std::io::Write as _;
    let mut row = Vec::with_capacity(PACK_BYTES);
    row.extend_from_slice(BEGIN);
    if let [(seq, body)] = requests
        && *seq == first
    {
        row.extend_from_slice(body);
    } else {
        for (n, (seq, body)) in requests.iter().enumerate() {
            let begin = if n == 0 { '[' } else { ',' };
            // Writing to memory does not fail.
            let _ = write!(row, "{begin}{},{}", seq.saturating_sub(first), body.len());
        }
        row.push(b']');
        for (_, body) in requests {
            row.push(b',');
            row.extend_from_slice(body);
        }
    }
    row.extend_from_slice(END);
    row
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
        let body = row
            .strip_prefix(BEGIN)
            .and_then(|row| row.strip_suffix(END));
        let fits = |body: &&[u8]| body.starts_with(b"{") && body.len() <= REQUEST_BYTES_MAX;
        match body.filter(|body| is_new(key) && fits(body)) {
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
    /// What a request takes beside its own bytes: a comma before it, and its two numbers, each with one behind it.
    fn bytes_around(behind: u64, len: usize) -> usize {
        let digits = |n: u64| n.checked_ilog10().unwrap_or(0) as usize + 1;
        1 + digits(behind) + 1 + digits(len as u64) + 1
    }

    fn taken(&self, key: u64, len: usize) -> usize {
        let first = self.requests.first().map_or(key, |(first, _)| *first);
        Self::bytes_around(key.saturating_sub(first), len) + len
    }

    fn has_room(&self, key: u64, len: usize) -> bool {
        let around = BEGIN.len() + 1 + END.len();
        around + self.bytes + self.taken(key, len) <= PACK_BYTES
    }

    fn add(&mut self, key: u64, body: &'r [u8]) {
        self.bytes += self.taken(key, body.len());
        self.requests.push((key, body));
    }

    fn close(&mut self, put: &mut impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let requests = std::mem::take(self).requests;
        match requests.first() {
            Some((first, _)) => put(*first, &written(*first, &requests)),
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
        let requests: Vec<(u64, &[u8])> = [10, 11, 14]
            .into_iter()
            .zip(bodies.iter().map(Vec::as_slice))
            .collect();
        let row = written(10, &requests);
        let text = str::from_utf8(&row).unwrap();
        serde_json::from_str::<serde::de::IgnoredAny>(text).unwrap();
        let pack = Pack::read(10, &row).unwrap();
        for (seq, body) in &requests {
            assert_eq!(pack.request(*seq, &row).unwrap(), Some(*body));
        }
        for seq in [0, 9, 12, 13, 15] {
            assert_eq!(pack.request(seq, &row).unwrap(), None);
        }
        assert_eq!(places(10, &row).unwrap(), [Seq(10), Seq(11), Seq(14)]);
    }

    #[test]
    fn one_request_alone_is_a_row_as_any_other() {
        let body = body(1, 5);
        let row = written(7, &[(7, &body)]);
        assert_eq!(row, [b"[1,", body.as_slice(), b"]"].concat());
        assert_eq!(places(7, &row).unwrap(), [Seq(7)]);
        // The last of a pack whose others are gone keeps the pack's key.
        let row = written(6, &[(7, &body)]);
        assert_eq!(places(6, &row).unwrap(), [Seq(7)]);
    }

    #[test]
    fn what_is_no_pack_is_damage_and_never_another_request() {
        let (one, two) = (body(1, 5), body(2, 5));
        let row = written(3, &[(3, &one), (5, &two)]);
        let text = String::from_utf8(row.clone()).unwrap();
        for (from, to) in [
            ("[0,", "[9,"),
            ("[0,19", "[0,20"),
            ("[0,19", "[0,18"),
            ("2,19]", "2,19,4]"),
            ("2,19]", "2,99]"),
            ("2,19]", "2,18446744073709551615]"),
            ("2,19]", "18446744073709551615,19]"),
            ("[0,19,2,19]", "[]"),
            ("],{", "] {"),
            ("[1,", "[\"1\","),
        ] {
            assert!(text.contains(from), "{from} in {text}");
            let broken = text.replacen(from, to, 1);
            let error = places(3, broken.as_bytes()).expect_err(to);
            assert!(error.is_damage(), "{to}");
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
