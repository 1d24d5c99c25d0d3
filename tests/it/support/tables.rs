//! The tables of a store as the redb database that they are, behind the store's back.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Bound;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Builder, Database, StorageBackend};

/// The tables of the store at this path; `None`: somebody has it open, or it is none.
pub(crate) fn tables_of(path: &Path) -> Option<Database> {
    let mut file = File::options().read(true).write(true).open(path).ok()?;
    let mut head = [0; 24];
    file.read_exact(&mut head).ok()?;
    let (mark, from) = head.split_at(16);
    assert_eq!(mark, b"onelane store\r\n\x1a");
    let under = FileBackend::new(file).unwrap();
    let is_free = under.try_lock_range(Bound::Unbounded, Bound::Unbounded);
    is_free.ok()?.then_some(())?;
    let from = u64::from_le_bytes(from.try_into().unwrap());
    Some(
        Builder::new()
            .create_with_backend(Tables { under, from })
            .unwrap(),
    )
}

/// What stands in a file from there on.
#[derive(Debug)]
struct Tables {
    under: FileBackend,
    from: u64,
}

impl StorageBackend for Tables {
    fn len(&self) -> io::Result<u64> {
        Ok(self.under.len()? - self.from)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.under.read(self.from + offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.under.set_len(self.from + len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.under.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.under.write(self.from + offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.under.close()
    }
}
