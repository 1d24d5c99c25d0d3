//! What a table of the file is: its types, and a number by which the journal names it.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::{Key, TableDefinition, Value, WriteTransaction};

/// A table.
pub(super) struct Table<K: Key + 'static, V: RowValue> {
    /// Its number in [`RowId`].
    tag: u8,
    /// The table itself.
    pub(super) definition: TableDefinition<'static, K, V>,
}

impl<K: Key, V: RowValue> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: Key, V: RowValue> Copy for Table<K, V> {}

impl<K: RowKey, V: RowValue> Table<K, V> {
    pub(super) const fn new(tag: u8, name: &'static str) -> Self {
        Self {
            tag,
            definition: TableDefinition::new(name),
        }
    }

    /// Its number.
    pub(super) const fn tag(&self) -> u8 {
        self.tag
    }

    /// The id of its row with this key.
    pub(super) fn row(&self, key: &K::SelfType<'_>) -> RowId {
        K::with_bytes(key, |bytes| RowId::new(self.tag, bytes))
    }

    /// The key of a row's id.
    pub(super) fn key<'r>(&self, id: &'r RowId) -> K::SelfType<'r> {
        K::of_bytes(id.key())
    }

    /// Before its first row.
    pub(super) const fn first(&self) -> RowId {
        RowId::first_of(self.tag)
    }

    /// Behind its last row.
    pub(super) const fn end(&self) -> RowId {
        RowId::first_of(self.tag + 1)
    }

    /// Writes those of some rows that are this table's.
    pub(super) fn write(
        &self,
        transaction: &WriteTransaction,
        rows: &Rows,
    ) -> Result<(), redb::Error> {
        let mut its = rows.range(self.first()..self.end()).peekable();
        if its.peek().is_none() {
            return Ok(());
        }
        let mut table = transaction.open_table(self.definition)?;
        for (id, row) in its {
            let key = K::of_bytes(id.key());
            match row {
                Some(row) => drop(table.insert(key, V::from_bytes(row))?),
                None => drop(table.remove(key)?),
            }
        }
        Ok(())
    }
}

/// The bytes of the longest key.
pub(super) const KEY_BYTES_MAX: usize = 32;

/// A row of some table: in the order of tables, then of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowId {
    tag: u8,
    bytes: [u8; KEY_BYTES_MAX],
    len: u8,
}

impl RowId {
    const fn first_of(tag: u8) -> Self {
        Self {
            tag,
            bytes: [0; KEY_BYTES_MAX],
            len: 0,
        }
    }

    /// A row by its table's number and its key; keys are never longer than [`KEY_BYTES_MAX`].
    pub(super) fn new(tag: u8, key: &[u8]) -> Self {
        let mut id = Self::first_of(tag);
        let len = key.len().min(KEY_BYTES_MAX);
        if let (Some(to), Some(from)) = (id.bytes.get_mut(..len), key.get(..len)) {
            to.copy_from_slice(from);
        }
        id.len = u8::try_from(len).unwrap_or(0);
        id
    }

    /// Its table's number.
    pub(super) const fn tag(&self) -> u8 {
        self.tag
    }

    /// Its key.
    pub(super) fn key(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

/// Rows over those of the tables; `None`: it is removed.
pub(super) type Rows = BTreeMap<RowId, Option<Arc<[u8]>>>;

/// A key as bytes that sort as it does.
pub(super) trait RowKey: Key + Send + Sync + 'static {
    /// Shows the bytes of a key.
    fn with_bytes<T>(key: &Self::SelfType<'_>, show: impl FnOnce(&[u8]) -> T) -> T;

    /// The key of such bytes.
    fn of_bytes(bytes: &[u8]) -> Self::SelfType<'_>;
}

impl RowKey for u64 {
    fn with_bytes<T>(key: &Self, show: impl FnOnce(&[u8]) -> T) -> T {
        show(&key.to_be_bytes())
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        Self::from_be_bytes(*bytes.first_chunk().unwrap_or(&[0; 8]))
    }
}

impl<const N: usize> RowKey for &'static [u8; N] {
    fn with_bytes<T>(key: &Self::SelfType<'_>, show: impl FnOnce(&[u8]) -> T) -> T {
        show(key.as_slice())
    }

    fn of_bytes(bytes: &[u8]) -> Self::SelfType<'_> {
        bytes.first_chunk().unwrap_or(&[0; N])
    }
}

impl RowKey for &'static str {
    fn with_bytes<T>(key: &Self::SelfType<'_>, show: impl FnOnce(&[u8]) -> T) -> T {
        show(key.as_bytes())
    }

    fn of_bytes(bytes: &[u8]) -> Self::SelfType<'_> {
        str::from_utf8(bytes).unwrap_or_default()
    }
}

/// What a row holds.
pub(super) trait RowValue: Value + Send + Sync + 'static {}

impl<V: Value + Send + Sync + 'static> RowValue for V {}

/// Who looks at a table, whatever its types are.
pub(super) trait SeesTable {
    /// What comes of it.
    type Seen;

    /// Looks at it.
    fn see<K: RowKey, V: RowValue>(self, table: Table<K, V>) -> Self::Seen;
}

/// The tables of a file as constants, each with its number, and what concerns all of them.
macro_rules! tables {
    ($($(#[$doc:meta])* $tag:literal $name:ident = $text:expr, $key:ty => $value:ty;)*) => {
        $($(#[$doc])* pub(super) const $name: Table<$key, $value> = Table::new($tag, $text);)*

        /// Creates all tables, so that no reader has to ask whether one is there.
        pub(super) fn create_tables(transaction: &redb::WriteTransaction) -> Result<()> {
            $(transaction.open_table($name.definition)?;)*
            Ok(())
        }

        /// Writes rows into their tables, but for those of one.
        pub(super) fn write_rows(
            transaction: &redb::WriteTransaction,
            rows: &super::tables::Rows,
            but: Option<u8>,
        ) -> Result<()> {
            $(if but != Some($tag) {
                $name.write(transaction, rows)?;
            })*
            Ok(())
        }

        /// The names of the tables, in the order of their numbers, which begin with 1.
        pub(super) const NAMES: [&str; TAG_MAX as usize] = [$($text),*];

        /// Shows somebody the table with this number; `None`: there is none.
        pub(super) fn show_table<S: super::tables::SeesTable>(tag: u8, to: S) -> Option<S::Seen> {
            match tag {
                $($tag => Some(to.see($name)),)*
                _ => None,
            }
        }

        /// The number of the last table.
        pub(super) const TAG_MAX: u8 = {
            let tags = [$($tag),*];
            tags.len() as u8
        };
    };
}
pub(super) use tables;
