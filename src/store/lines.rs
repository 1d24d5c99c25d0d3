//! A store as JSON lines: a head, every row of every table in the order of tables and keys, and an end with a digest of
//! all before it, so that what was cut off or changed is not taken for whole. The same store gives the same lines. They
//! are of one moment: of a snapshot that is held until the last of them was told.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::error::{FileError, Result};
use super::guarded;
use super::schema::{self, STORE_VERSION, TAG_MAX};
use super::state::State;
use super::tables::{KEY_BYTES_MAX, RowId, RowKey, RowValue, SeesTable, Table};
use crate::ports::StoreError;

/// What the head says of itself.
const FORMAT: &str = "onelane-store";
/// The version of the lines, not of what they hold.
const FORMAT_VERSION: u64 = 1;
/// A part ends with the row that reaches so many bytes.
const PART_BYTES: usize = 256 * 1024;
/// The longest line that is read: a body of 16 MB of which every character takes six.
const LINE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Head<'a> {
    kind: Cow<'a, str>,
    format: Cow<'a, str>,
    format_version: u64,
    store_version: u64,
    /// How many rows of each table come.
    rows: BTreeMap<Cow<'a, str>, u64>,
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End<'a> {
    kind: Cow<'a, str>,
    /// How many rows came.
    rows: u64,
    /// Of all lines before it, their line ends included.
    sha256: Cow<'a, str>,
}

/// A row: its table, its key, and its bytes in the one of three forms that tells most.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row<'a> {
    #[serde(rename = "kind", borrow)]
    _kind: Cow<'a, str>,
    #[serde(borrow)]
    table: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    /// As it is.
    #[serde(borrow, default)]
    json: Option<&'a RawValue>,
    /// JSON on several lines, and any other text.
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    /// All else.
    #[serde(borrow, default)]
    hex: Option<Cow<'a, str>>,
}

/// Which line it is.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
}

/// A store as lines, part by part; whole lines each.
pub struct Lines {
    path: String,
    state: Arc<State>,
    at: At,
    hash: Sha256,
    rows: u64,
}

/// What comes next.
#[derive(Clone, Copy)]
enum At {
    Head,
    /// The rows of a table behind one of them.
    Table(u8, Option<RowId>),
    End,
    Nothing,
}

impl Lines {
    /// The lines of a state of the store at `path`.
    pub(super) fn of(path: String, state: Arc<State>) -> Self {
        Self {
            path,
            state,
            at: At::Head,
            hash: Sha256::new(),
            rows: 0,
        }
    }

    fn part(&mut self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        if matches!(self.at, At::Head) {
            let mut rows = BTreeMap::new();
            for (tag, name) in (1..=TAG_MAX).zip(schema::NAMES) {
                let len = schema::show_table(tag, Len(&self.state)).transpose()?;
                rows.insert(Cow::Borrowed(name), len.unwrap_or(0));
            }
            let head = Head {
                kind: "head".into(),
                format: FORMAT.into(),
                format_version: FORMAT_VERSION,
                store_version: STORE_VERSION,
                rows,
            };
            put(&mut out, &head)?;
            self.at = At::Table(1, None);
        }
        while let At::Table(tag, after) = self.at {
            let rows = Rows {
                state: &self.state,
                after,
                out: &mut out,
            };
            let Some((told, last)) = schema::show_table(tag, rows).transpose()? else {
                self.at = At::End;
                break;
            };
            self.rows += told;
            self.at = match last {
                Some(last) => At::Table(tag, Some(last)),
                None => At::Table(tag + 1, None),
            };
            if last.is_some() {
                break;
            }
        }
        self.hash.update(&out);
        if matches!(self.at, At::End) {
            let end = End {
                kind: "end".into(),
                rows: self.rows,
                sha256: hex(&self.hash.clone().finalize()).into(),
            };
            put(&mut out, &end)?;
            self.at = At::Nothing;
        }
        Ok(out)
    }
}

impl Iterator for Lines {
    type Item = Result<Vec<u8>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if matches!(self.at, At::Nothing) {
            return None;
        }
        let path = self.path.clone();
        let part = guarded(&path, || self.part());
        if part.is_err() {
            self.at = At::Nothing;
        }
        Some(part)
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// How many rows a table has.
struct Len<'s>(&'s State);

impl SeesTable for Len<'_> {
    type Seen = Result<u64>;

    fn see<K: RowKey, V: RowValue>(self, table: Table<K, V>) -> Result<u64> {
        self.0.open_table(table)?.len()
    }
}

/// Writes a table's rows until a part is full. Answers how many, and the last of them where there may be more.
struct Rows<'s> {
    state: &'s State,
    after: Option<RowId>,
    out: &'s mut Vec<u8>,
}

impl SeesTable for Rows<'_> {
    type Seen = Result<(u64, Option<RowId>)>;

    fn see<K: RowKey, V: RowValue>(self, table: Table<K, V>) -> Self::Seen {
        let name = name_of(table.tag());
        let rows = self.state.open_table(table)?;
        let rows = match &self.after {
            None => rows.iter()?,
            Some(id) => {
                let after: Bound<K::SelfType<'_>> = Bound::Excluded(K::of_bytes(id.key()));
                rows.range((after, Bound::Unbounded))?
            }
        };
        let is_fixed = V::fixed_width().is_some();
        let mut told = 0;
        for item in rows {
            let (key, row) = item?;
            let id = table.row(&key.value());
            let value = row.value();
            let bytes = V::as_bytes(&value);
            write_row(
                self.out,
                name,
                &shown_key::<K>(&id),
                bytes.as_ref(),
                is_fixed,
            )?;
            told += 1;
            if self.out.len() >= PART_BYTES {
                return Ok((told, Some(id)));
            }
        }
        Ok((told, None))
    }
}

fn name_of(tag: u8) -> &'static str {
    let at = usize::from(tag).checked_sub(1);
    at.and_then(|at| schema::NAMES.get(at)).unwrap_or(&"")
}

/// Names are as they are, all other keys in hexadecimal digits, which sort as the keys do.
fn shown_key<K: RowKey>(id: &RowId) -> String {
    match K::fixed_width() {
        None => String::from_utf8_lossy(id.key()).into_owned(),
        Some(_) => hex(id.key()),
    }
}

fn write_row(out: &mut Vec<u8>, table: &str, key: &str, row: &[u8], is_fixed: bool) -> Result<()> {
    out.extend_from_slice(b"{\"kind\":\"row\",\"table\":\"");
    out.extend_from_slice(table.as_bytes());
    out.extend_from_slice(b"\",\"key\":");
    string(out, key)?;
    match std::str::from_utf8(row) {
        Ok(text) if !is_fixed && is_json_line(text) => {
            out.extend_from_slice(b",\"json\":");
            out.extend_from_slice(row);
        }
        Ok(text) if !is_fixed => {
            out.extend_from_slice(b",\"text\":");
            string(out, text)?;
        }
        _ => {
            out.extend_from_slice(b",\"hex\":");
            string(out, &hex(row))?;
        }
    }
    out.extend_from_slice(b"}\n");
    Ok(())
}

fn string(out: &mut Vec<u8>, text: &str) -> Result<()> {
    serde_json::to_writer(out, text).map_err(|e| FileError::unwritable(&e))
}

fn put(out: &mut Vec<u8>, line: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *out, line).map_err(|e| FileError::unwritable(&e))?;
    out.push(b'\n');
    Ok(())
}

/// Whether it is JSON that stands on one line as it is. A lone `null` would read as no row.
fn is_json_line(text: &str) -> bool {
    let is_whole = |json: &RawValue| json.get().len() == text.len() && text != "null";
    !text.contains(['\n', '\r']) && serde_json::from_str(text).is_ok_and(is_whole)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut digits = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// The bytes of such digits; `None`: they are none.
fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |digit: &u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let bytes = pairs
        .iter()
        .map(|[high, low]| Some(digit(high)? << 4 | digit(low)?));
    rest.is_empty().then(|| bytes.collect())?
}

/// What is wrong with lines, and which of them it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {number}: {problem}")]
pub struct LineProblem {
    /// The line, from 1 on.
    pub number: u64,
    /// What is wrong with it.
    pub problem: String,
}

/// Reads lines as they come, in pieces of any length: each row once and in order, all that the head promises, and the
/// end. Keeps no more of them than the line that is not whole yet.
#[derive(Debug, Default)]
pub struct LineReader {
    /// What came of the next line.
    line: Vec<u8>,
    number: u64,
    /// How many rows of each table the head promises.
    promised: Option<BTreeMap<String, u64>>,
    found: BTreeMap<String, u64>,
    last: Option<RowId>,
    rows: u64,
    hash: Sha256,
    ended: bool,
}

impl LineReader {
    /// Takes a piece, and looks at the rows that are whole with it.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), LineProblem> {
        self.take_rows(piece, |_, _| Ok(()))
    }

    /// The same; each row is given to `row`, which may refuse it in words.
    pub(super) fn take_rows(
        &mut self,
        piece: &[u8],
        mut row: impl FnMut(RowId, &[u8]) -> Result<(), String>,
    ) -> Result<(), LineProblem> {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            let problem = if self.line.len() > LINE_BYTES_MAX {
                Some("is longer than any line of a store".to_owned())
            } else if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                let read = self.read(&line, &mut row).err();
                self.line = line;
                self.line.clear();
                self.number += u64::from(read.is_none());
                read
            } else {
                None
            };
            if let Some(problem) = problem {
                return Err(self.problem(problem));
            }
        }
        Ok(())
    }

    /// Whether all has come.
    pub fn finish(&self) -> Result<(), LineProblem> {
        match self.ended {
            true => Ok(()),
            false => Err(self.problem(
                "is missing or not whole: the lines end before their last one, \"kind\": \"end\""
                    .to_owned(),
            )),
        }
    }

    /// How many rows have come.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// How many rows there are in all; 0 until the head has come.
    #[must_use]
    pub fn rows_promised(&self) -> u64 {
        self.promised.iter().flatten().map(|(_, rows)| rows).sum()
    }

    /// How many rows of a table have come.
    #[must_use]
    pub fn rows_of(&self, table: &str) -> u64 {
        self.found.get(table).copied().unwrap_or(0)
    }

    /// What is wrong with the line that is looked at.
    fn problem(&self, problem: String) -> LineProblem {
        LineProblem {
            number: self.number + 1,
            problem,
        }
    }

    fn read(
        &mut self,
        line: &[u8],
        row: &mut impl FnMut(RowId, &[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.ended {
            return Err("comes behind the end".to_owned());
        }
        let Kind { kind } = parsed(line)?;
        match (kind.as_ref(), self.number) {
            ("head", 0) => self.head(&parsed(line)?)?,
            (_, 0) => return Err("is no head of an exported store".to_owned()),
            ("row", _) => self.row(&parsed(line)?, row)?,
            ("end", _) => return self.end(&parsed(line)?),
            (other, _) => {
                return Err(format!(
                    "is of kind {other:?}, and should be a row or the end"
                ));
            }
        }
        self.hash.update(line);
        Ok(())
    }

    fn head(&mut self, head: &Head<'_>) -> Result<(), String> {
        if head.format != FORMAT {
            return Err(format!(
                "is of format {:?}, and should be of {FORMAT:?}",
                head.format
            ));
        }
        if head.format_version != FORMAT_VERSION {
            return Err(format!(
                "says version {} of the format, and this onelane reads version {FORMAT_VERSION} alone: read it with the \
                 onelane that wrote it",
                head.format_version
            ));
        }
        if head.store_version != STORE_VERSION {
            return Err(format!(
                "says a store of version {}, and this onelane reads version {STORE_VERSION} alone: read it with the onelane \
                 that wrote it",
                head.store_version
            ));
        }
        if let Some(name) = head
            .rows
            .keys()
            .find(|name| !schema::NAMES.contains(&name.as_ref()))
        {
            return Err(format!("names a table {name:?}, which a store has not"));
        }
        let rows = head.rows.iter();
        self.promised = Some(rows.map(|(name, rows)| (name.to_string(), *rows)).collect());
        Ok(())
    }

    fn row(
        &mut self,
        line: &Row<'_>,
        row: &mut impl FnMut(RowId, &[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let Row { table, key, .. } = line;
        let at = schema::NAMES.iter().position(|name| name == table);
        let tag = at.and_then(|at| u8::try_from(at + 1).ok());
        let known = tag.and_then(|tag| Some((tag, schema::show_table(tag, Widths)?)));
        let Some((tag, (key_bytes, row_bytes))) = known else {
            return Err(format!("names a table {table:?}, which a store has not"));
        };
        let bytes = match (line.json, &line.text, &line.hex) {
            (Some(json), None, None) => Cow::Borrowed(json.get().as_bytes()),
            (None, Some(text), None) => Cow::Borrowed(text.as_bytes()),
            (None, None, Some(hex)) => {
                Cow::Owned(unhex(hex).ok_or("has a row that is no hexadecimal digits")?)
            }
            _ => return Err("has none of json, text and hex, or several".to_owned()),
        };
        let key = match key_bytes {
            None => Some(key.as_bytes().to_vec()).filter(|key| key.len() <= KEY_BYTES_MAX),
            Some(len) => unhex(key).filter(|key| key.len() == len),
        };
        let key = key.ok_or_else(|| format!("has a key that none of table {table} is"))?;
        if row_bytes.is_some_and(|len| len != bytes.len()) {
            return Err(format!(
                "has a row that is too long or too short for table {table}"
            ));
        }
        let id = RowId::new(tag, &key);
        if self.last.is_some_and(|last| last >= id) {
            return Err(
                "has a row twice, or one that should come before the line above".to_owned(),
            );
        }
        row(id, &bytes)?;
        self.last = Some(id);
        self.rows += 1;
        *self.found.entry(table.to_string()).or_default() += 1;
        Ok(())
    }

    fn end(&mut self, end: &End<'_>) -> Result<(), String> {
        let digest = hex(&self.hash.clone().finalize());
        if end.sha256 != digest {
            return Err("says another digest than the lines before it have: one of them was changed or is missing".to_owned());
        }
        let promised = self
            .promised
            .iter()
            .flatten()
            .filter(|(_, rows)| **rows > 0);
        if end.rows != self.rows || !promised.eq(self.found.iter()) {
            return Err("comes before all rows have come that the head counts".to_owned());
        }
        self.ended = true;
        Ok(())
    }
}

/// The bytes of keys and rows, where all of a table have as many.
struct Widths;

impl SeesTable for Widths {
    type Seen = (Option<usize>, Option<usize>);

    fn see<K: RowKey, V: RowValue>(self, _: Table<K, V>) -> Self::Seen {
        (K::fixed_width(), V::fixed_width())
    }
}

/// A line, read; what is wrong with it is said without its content, which may hold prompts.
fn parsed<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, String> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    serde_json::from_slice(line).map_err(|error| {
        use serde_json::error::Category;
        let what = match error.classify() {
            Category::Data => "is not what it should be",
            Category::Eof => "is cut short",
            Category::Syntax | Category::Io => "is not JSON",
        };
        format!("{what} (byte {})", error.column())
    })
}
