//! A look into a store's file that changes nothing in it, whatever state it is in: what redb
//! would write to make it usable again stays in memory.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::error::Result;
use super::locks::locks_of_the_file;
use super::parts::{self, Occasion};
use super::whole::Whole;
use super::{Opened, StoreOptions, close, guarded, open, read};
use crate::ports::StoreError;

/// The runtime changes of the configuration that the store at `path` keeps, as
/// [`Store::config`](crate::ports::Store::config) tells them. The file stays as it is: it is not
/// mended or created. Errors as [`RedbStore::open`](super::RedbStore::open).
pub fn stored_config(path: impl AsRef<Path>) -> Result<Option<String>, StoreError> {
    let path = path.as_ref();
    let name = path.display().to_string();
    guarded(&name, || {
        let cache_bytes = StoreOptions::default().cache_bytes;
        let parts = parts::open(over(path)?, cache_bytes, Occasion::Start)?;
        // Another version may keep it in another form.
        open::check_version(&parts.tables)?;
        let whole = Whole::new(parts)?;
        let found = whole.state().and_then(|state| read::config(&state));
        close(&name, Some(Opened::Whole(whole)), false);
        found
    })
}

/// The file at `path`, to be looked at.
pub(super) fn over(path: &Path) -> io::Result<Overlay> {
    // Without leave to write there is no lock to be had.
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let under = FileBackend::new(file).map_err(io::Error::other)?;
    Overlay::over(under)
}

/// Bytes of a piece that is kept in memory once something in it was written.
const PIECE_BYTES: u64 = 4_096;

/// A file below, and above it, in memory, the bytes that were written.
#[derive(Debug)]
pub(super) struct Overlay {
    under: FileBackend,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    len: u64,
    /// So many bytes of the file show through; the rest was cut off once.
    under_len: u64,
    /// By their number from the beginning.
    pieces: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    fn over(under: FileBackend) -> io::Result<Self> {
        let len = under.len()?;
        let state = Mutex::new(State {
            len,
            under_len: len,
            pieces: BTreeMap::new(),
        });
        Ok(Self { under, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of the file below from `offset` on; zeros where it ends.
    fn read_under(&self, state: &State, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        let there = state.under_len.saturating_sub(offset);
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(out.len());
        match out.get_mut(..there) {
            Some(out) if !out.is_empty() => self.under.read(offset, out),
            _ => Ok(()),
        }
    }
}

/// The parts of `len` bytes from `offset` on, each within one piece: its number, where it begins in the
/// piece, and how long it is.
fn within(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset.saturating_add(len as u64);
    let mut at = offset;
    std::iter::from_fn(move || {
        let piece = at / PIECE_BYTES;
        let next = end.min((piece + 1) * PIECE_BYTES);
        let part = (at < next).then_some((piece, at % PIECE_BYTES, next - at))?;
        at = next;
        let small = |n: u64| usize::try_from(n).unwrap_or(0);
        Some((part.0, small(part.1), small(part.2)))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if offset.saturating_add(out.len() as u64) > state.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_under(&state, offset, out)?;
        let mut out = out;
        for (piece, from, len) in within(offset, out.len()) {
            let (now, rest) = out.split_at_mut(len);
            if let Some(piece) = state
                .pieces
                .get(&piece)
                .and_then(|p| p.get(from..from + len))
            {
                now.copy_from_slice(piece);
            }
            out = rest;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        if len < state.len {
            state.pieces.split_off(&len.div_ceil(PIECE_BYTES));
            let rest = usize::try_from(len % PIECE_BYTES).unwrap_or(0);
            if let Some(last) = state.pieces.get_mut(&(len / PIECE_BYTES)) {
                last.iter_mut().skip(rest).for_each(|byte| *byte = 0);
            }
        }
        state.under_len = state.under_len.min(len);
        state.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.len = state.len.max(offset.saturating_add(data.len() as u64));
        let mut data = data;
        for (number, from, len) in within(offset, data.len()) {
            let mut piece = match state.pieces.remove(&number) {
                Some(piece) => piece,
                None => {
                    let mut piece = vec![0; usize::try_from(PIECE_BYTES).unwrap_or(0)];
                    self.read_under(&state, number * PIECE_BYTES, &mut piece)?;
                    piece
                }
            };
            let (now, rest) = data.split_at(len);
            if let Some(part) = piece.get_mut(from..from + len) {
                part.copy_from_slice(now);
            }
            state.pieces.insert(number, piece);
            data = rest;
        }
        Ok(())
    }

    // No other process may write while this one looks.
    locks_of_the_file!(under);
}
