//! A results file that is there already: reading it line by line, and writing it anew without some of its
//! lines. Knows the form of a line, not its meaning to a run.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use onelane::model::limits;
use onelane::results::is_answer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::identity::LineId;
use crate::cli::exit::CliError;

/// Bytes of one line: a response of the largest size, and its frame.
const LINE_BYTES_MAX: u64 = limits::RESPONSE_BYTES_MAX as u64 + 64 * 1024;

/// The members of a result line.
#[derive(Deserialize, Serialize)]
pub(super) struct Written<'a> {
    /// The line's id ([`LineId`]).
    pub(super) id: String,
    /// The line's own id, or `line-N`.
    pub(super) custom_id: Option<String>,
    /// What came: an answer, or a refusal.
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl Written<'_> {
    /// Whether it holds an answer, and no refusal.
    pub(super) fn is_answer(&self) -> bool {
        #[derive(Deserialize)]
        struct Status {
            status_code: u16,
        }
        // What says nothing of its status is not bought again.
        let status = self.response.map(|response| {
            let read = serde_json::from_str::<Status>(response.get());
            read.map_or(200, |read| read.status_code)
        });
        is_answer(status, self.error.is_some())
    }
}

/// Opens a results file for appending, and keeps other runs off it.
pub(super) fn open(path: &Path) -> Result<File, CliError> {
    let mut options = OpenOptions::new();
    let file = options.append(true).read(true).create(true).open(path);
    let file = file.map_err(|e| unusable(path, &e))?;
    lock(&file, path)?;
    Ok(file)
}

pub(super) fn unusable(path: &Path, error: &io::Error) -> CliError {
    CliError::usage(format!("{}: {error}", path.display()))
        .help("name another results file with --out")
}

/// Keeps a second run off the file. Where the file system has no locks, the store's has to do.
fn lock(file: &File, path: &Path) -> Result<(), CliError> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(CliError::usage(format!(
            "{} is in use by another run",
            path.display()
        ))
        .help("wait for it, or name another results file with --out")),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

/// Writes the lines that `keep` keeps, as it leaves them, to a new file and puts that in place.
pub(super) fn rewrite(
    path: &Path,
    mut keep: impl FnMut(LineId, &mut Written<'_>) -> bool,
) -> Result<File, CliError> {
    let trouble = |e: io::Error| unusable(path, &e);
    let mut beside = OsString::from(path.as_os_str());
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let old = File::open(path).map_err(trouble)?;
    let mut new = BufWriter::new(File::create(&beside).map_err(trouble)?);
    let mut lines = WrittenLines::of(&old, path);
    while let Some(line) = lines.next()? {
        let mut written = line.written()?;
        if keep(line.id(&written)?, &mut written) {
            let same = serde_json::to_writer(&mut new, &written).map_err(io::Error::from);
            same.and_then(|()| new.write_all(b"\n")).map_err(trouble)?;
        }
    }
    let new = new.into_inner().map_err(|e| trouble(e.into_error()))?;
    new.sync_all().map_err(trouble)?;
    fs::rename(&beside, path).map_err(trouble)?;
    open(path)
}

/// Reads a results file line by line.
pub(super) struct WrittenLines<'a> {
    input: BufReader<&'a File>,
    path: &'a Path,
    number: u64,
    /// Where the last whole line ends.
    pub(super) whole_bytes: u64,
    /// Whether something follows it that a kill tore.
    pub(super) torn: bool,
}

/// A whole line of a results file.
pub(super) struct WrittenLine<'a> {
    path: &'a Path,
    number: u64,
    bytes: Vec<u8>,
}

impl<'a> WrittenLines<'a> {
    pub(super) fn of(file: &'a File, path: &'a Path) -> Self {
        Self {
            input: BufReader::with_capacity(256 * 1024, file),
            path,
            number: 0,
            whole_bytes: 0,
            torn: false,
        }
    }

    /// The next whole line.
    pub(super) fn next(&mut self) -> Result<Option<WrittenLine<'a>>, CliError> {
        let mut bytes = Vec::new();
        let mut bounded = (&mut self.input).take(LINE_BYTES_MAX);
        let read = bounded.read_until(b'\n', &mut bytes);
        read.map_err(|e| unusable(self.path, &e))?;
        self.number += 1;
        let line = WrittenLine {
            path: self.path,
            number: self.number,
            bytes,
        };
        if line.bytes.is_empty() {
            return Ok(None);
        }
        if line.bytes.ends_with(b"\n") {
            self.whole_bytes += line.bytes.len() as u64;
            return Ok(Some(line));
        }
        if !line.may_be_torn() {
            return Err(line.foreign());
        }
        self.torn = true;
        Ok(None)
    }
}

impl WrittenLine<'_> {
    /// Its members.
    pub(super) fn written(&self) -> Result<Written<'_>, CliError> {
        serde_json::from_slice(&self.bytes).map_err(|_| self.foreign())
    }

    /// Its id.
    pub(super) fn id(&self, written: &Written<'_>) -> Result<LineId, CliError> {
        LineId::parse(&written.id).ok_or_else(|| self.foreign())
    }

    /// Whether these bytes, which no line end follows, may be the beginning of a result.
    fn may_be_torn(&self) -> bool {
        let starts: [&[u8]; 2] = [br#"{"id":"run-"#, br#"{"id":"sim-"#];
        let both = self.bytes.len().min(11);
        starts
            .into_iter()
            .any(|start| start.get(..both) == self.bytes.get(..both))
    }

    fn foreign(&self) -> CliError {
        let (path, number) = (self.path.display(), self.number);
        CliError::usage(format!(
            "{path}: line {number} is not a result of onelane run"
        ))
        .help("nothing was changed; name another results file with --out")
    }
}
