//! A disk in memory that fails, or loses its power, when told to: what was synced is there
//! afterwards, of what was not any part may be.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use super::options;
use crate::ports::StoreError;
use crate::store::RedbStore;

/// What reached the drive since the last sync.
#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// What is to go wrong.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// From this operation on each answers an error, and does nothing; or, if it is a write, half of what it was to do.
    Fails {
        from: u64,
        kind: ErrorKind,
        halves: bool,
    },
    /// This operation, or the first sync behind it, fails, and with it all that was not synced yet is taken for written,
    /// as Linux does: it is read as it was written, and a power cut takes it.
    Forgets { at: u64 },
    /// At this operation the power goes; the seed says what of the unsynced changes is kept.
    PowerCut { at: u64, seed: u64 },
}

#[derive(Debug, Default)]
struct State {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    operations: u64,
    trouble: Option<Trouble>,
    image: Option<Vec<u8>>,
}

/// The disk; its clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    state: Arc<Mutex<State>>,
}

impl Disk {
    pub(super) fn holding(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.state().durable.clone_from(&bytes);
        disk.state().live = bytes;
        disk
    }

    /// Opens the store on this disk.
    pub(super) fn open(&self) -> Result<RedbStore, StoreError> {
        let disk = self.clone();
        let make = move || Ok(disk.clone());
        RedbStore::open_with_backend("disk", options(), make)
    }

    /// Operations that change something: writes, changes of length, syncs.
    pub(super) fn operations(&self) -> u64 {
        self.state().operations
    }

    pub(super) fn fail_from(&self, operation: u64, kind: ErrorKind) {
        self.fail_in_the_middle_from(operation, kind, false);
    }

    pub(super) fn fail_in_the_middle_from(&self, operation: u64, kind: ErrorKind, halves: bool) {
        self.state().trouble = Some(Trouble::Fails {
            from: operation,
            kind,
            halves,
        });
    }

    pub(super) fn forget_from(&self, operation: u64) {
        self.state().trouble = Some(Trouble::Forgets { at: operation });
    }

    pub(super) fn cut_power_at(&self, operation: u64, seed: u64) {
        let at = operation;
        self.state().trouble = Some(Trouble::PowerCut { at, seed });
    }

    /// The operator has made room, or changed the cable.
    pub(super) fn mend(&self) {
        self.state().trouble = None;
    }

    /// The power is back: the disk as the cut left it; as it is now when there was none.
    pub(super) fn after_power_cut(&self) -> Self {
        let state = self.state();
        Self::holding(state.image.clone().unwrap_or_else(|| state.durable.clone()))
    }

    /// What is on it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.state().live.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    /// One operation that changes something.
    fn step(&mut self, change: Option<Change>) -> io::Result<()> {
        let operation = self.operations;
        self.operations += 1;
        match self.trouble {
            Some(Trouble::Fails { from, kind, halves }) if operation >= from => {
                if let Some(Change::Write(offset, mut data)) = change
                    && halves
                {
                    data.truncate(data.len() / 2);
                    let half = Change::Write(offset, data);
                    half.apply(&mut self.live, usize::MAX);
                    self.unsynced.push(half);
                }
                return Err(kind.into());
            }
            Some(Trouble::Forgets { at }) if operation >= at && change.is_none() => {
                self.trouble = None;
                self.unsynced.clear();
                return Err(ErrorKind::Other.into());
            }
            Some(Trouble::PowerCut { at, seed }) if operation >= at => {
                if self.image.is_none() {
                    self.unsynced.extend(change);
                    self.image = Some(self.remains(seed));
                }
                return Err(io::Error::other("no power"));
            }
            _ => {}
        }
        match change {
            Some(change) => {
                change.apply(&mut self.live, usize::MAX);
                self.unsynced.push(change);
            }
            None => {
                for change in self.unsynced.drain(..) {
                    change.apply(&mut self.durable, usize::MAX);
                }
            }
        }
        Ok(())
    }

    /// The durable bytes and any part of what came after: each change whole, in its first sectors
    /// only, or not at all. Seed 0 keeps nothing.
    fn remains(&self, seed: u64) -> Vec<u8> {
        let mut image = self.durable.clone();
        let mut random = seed;
        for change in &self.unsynced {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            match (seed, (random >> 33) % 3) {
                (0, _) | (_, 0) => {}
                (_, 1) => change.apply(&mut image, usize::MAX),
                _ => change.apply(&mut image, 512 * (1 + (random >> 40) as usize % 8)),
            }
        }
        image
    }
}

impl Change {
    /// Applies the first `most` bytes of a write.
    fn apply(&self, bytes: &mut Vec<u8>, most: usize) {
        match self {
            Self::Length(len) => bytes.resize(*len, 0),
            Self::Write(offset, data) => {
                let data = &data[..data.len().min(most)];
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(data);
            }
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let offset = usize::try_from(offset).unwrap();
        match state.live.get(offset..offset.saturating_add(out.len())) {
            Some(bytes) => out.copy_from_slice(bytes),
            None => return Err(ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).unwrap();
        // A file has no length like this; a damaged header may ask for it.
        if len > 1 << 30 {
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.state().step(Some(Change::Length(len)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.state().step(None)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let change = Change::Write(offset, data.to_vec());
        self.state().step(Some(change))
    }
}
