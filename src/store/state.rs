//! The state that was committed last: a snapshot of the tables, and above it the rows that only the
//! journal holds so far. Readers ask it as they would ask the tables alone.

use std::any::Any;
use std::borrow::Borrow;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, OnceLock};

use redb::{
    AccessGuard, Key, Range, ReadOnlyTable, ReadTransaction, ReadableTable as _,
    ReadableTableMetadata as _,
};

use super::error::{FileError, Result};
use super::journal::{Journal, Written};
use super::recent::RecentJobs;
use super::schema::TAG_MAX;
use super::tables::{RowId, RowKey, RowValue, Rows, Table};

/// Nothing above the journal.
static NOTHING: Rows = Rows::new();

/// A state of the store.
pub(super) struct State {
    snapshot: ReadTransaction,
    journal: Journal,
    /// The tables of the snapshot that somebody asked for: to open one costs more than to read a row.
    opened: Opened,
    /// The jobs that were written last, whatever the state.
    recent: Arc<RecentJobs>,
}

type Opened = [OnceLock<Box<dyn Any + Send + Sync>>; TAG_MAX as usize];

impl State {
    /// The state of a snapshot and of the journal that is above it.
    pub(super) fn new(snapshot: ReadTransaction, journal: Journal) -> Self {
        Self {
            snapshot,
            journal,
            opened: Opened::default(),
            recent: Arc::default(),
        }
    }

    /// Becomes the state that was just committed; with another snapshot where the tables were written.
    pub(super) fn become_next(&mut self, snapshot: Option<ReadTransaction>, written: Written) {
        if let Some(snapshot) = snapshot {
            self.snapshot = snapshot;
            self.opened = Opened::default();
        }
        self.journal.show(written);
    }

    /// The state that was just committed, beside this one, which somebody still reads.
    pub(super) fn next(&self, snapshot: ReadTransaction, written: Written) -> Self {
        let mut journal = self.journal.clone();
        journal.show(written);
        Self {
            recent: Arc::clone(&self.recent),
            ..Self::new(snapshot, journal)
        }
    }

    /// A table of the snapshot.
    fn stored<K: RowKey, V: RowValue>(&self, table: Table<K, V>) -> Result<&ReadOnlyTable<K, V>> {
        let unknown = || FileError::Damaged("a table that the store has not".to_owned());
        let at = usize::from(table.tag()).checked_sub(1);
        let opened = at.and_then(|at| self.opened.get(at)).ok_or_else(unknown)?;
        let table = match opened.get() {
            Some(table) => table,
            None => {
                let stored = self.snapshot.open_table(table.definition)?;
                opened.get_or_init(|| Box::new(stored))
            }
        };
        table.downcast_ref().ok_or_else(unknown)
    }

    /// One of its tables.
    pub(super) fn open_table<K: RowKey, V: RowValue>(
        &self,
        table: Table<K, V>,
    ) -> Result<Merged<'_, K, V>> {
        self.under(table, &NOTHING)
    }

    /// One of its tables, with rows of a transaction above it.
    pub(super) fn under<'v, K: RowKey, V: RowValue>(
        &'v self,
        table: Table<K, V>,
        own: &'v Rows,
    ) -> Result<Merged<'v, K, V>> {
        Ok(Merged {
            table,
            stored: self.stored(table)?,
            layers: [own, self.journal.rows()],
        })
    }

    /// A row as a transaction has left it, without opening its table where that is not needed.
    pub(super) fn get_under<'k, K: RowKey, V: RowValue>(
        &self,
        table: Table<K, V>,
        own: &Rows,
        key: impl Borrow<K::SelfType<'k>>,
    ) -> Result<Option<Found<V>>> {
        let id = table.row(key.borrow());
        if let Some(row) = above([own, self.journal.rows()], &id) {
            return Ok(row.clone().map(Found::above));
        }
        let stored = self.stored(table)?.get(key)?;
        Ok(stored.map(Found::Stored))
    }

    /// A row behind which the table has none.
    pub(super) fn last<K: RowKey, V: RowValue>(&self, table: Table<K, V>) -> Result<RowId> {
        let stored = self.stored(table)?.last()?;
        let stored = stored.map(|(key, _)| table.row(&key.value()));
        let mut of_journal = self.journal.rows().range(table.first()..table.end());
        let of_journal = of_journal.next_back().map(|(id, _)| *id);
        Ok(stored.max(of_journal).unwrap_or(table.first()))
    }

    /// The jobs that were written last.
    pub(super) fn recent(&self) -> &RecentJobs {
        &self.recent
    }

    /// The tables without the journal.
    pub(super) const fn snapshot(&self) -> &ReadTransaction {
        &self.snapshot
    }

    /// The journal above them.
    pub(super) const fn journal(&self) -> &Journal {
        &self.journal
    }
}

/// What the uppermost layer that knows a row says of it.
fn above<'l>(layers: [&'l Rows; 2], id: &RowId) -> Option<&'l Option<Arc<[u8]>>> {
    layers.into_iter().find_map(|rows| rows.get(id))
}

/// A table with what stands above it.
pub(super) struct Merged<'v, K: Key + 'static, V: RowValue> {
    table: Table<K, V>,
    stored: &'v ReadOnlyTable<K, V>,
    layers: [&'v Rows; 2],
}

impl<K: RowKey, V: RowValue> Merged<'_, K, V> {
    /// A row.
    pub(super) fn get<'k>(&self, key: impl Borrow<K::SelfType<'k>>) -> Result<Option<Found<V>>> {
        match above(self.layers, &self.table.row(key.borrow())) {
            Some(row) => Ok(row.clone().map(Found::above)),
            None => Ok(self.stored.get(key)?.map(Found::Stored)),
        }
    }

    /// The last row at or before a key.
    pub(super) fn floor<'k>(
        &self,
        key: impl Borrow<K::SelfType<'k>>,
    ) -> Result<Option<(FoundKey<K>, Found<V>)>> {
        let mut last = Bound::Included(self.table.row(key.borrow()));
        loop {
            let first = Bound::Included(self.table.first());
            let above = self.layers.into_iter();
            let above = above.filter_map(|rows| rows.range((first, last)).next_back());
            // Of two layers that know a row, the upper one is asked.
            let above = above.reduce(|upper, lower| match lower.0 > upper.0 {
                true => lower,
                false => upper,
            });
            let stored = match &last {
                Bound::Included(id) => self.stored.range(..=K::of_bytes(id.key()))?.next_back(),
                Bound::Excluded(id) => self.stored.range(..K::of_bytes(id.key()))?.next_back(),
                Bound::Unbounded => None,
            };
            let stored = stored.transpose()?;
            let Some((id, row)) = above else {
                return Ok(stored.map(|(key, row)| (FoundKey::Stored(key), Found::Stored(row))));
            };
            if let Some((key, _)) = &stored
                && K::with_bytes(&key.value(), |key| key > id.key())
            {
                return Ok(stored.map(|(key, row)| (FoundKey::Stored(key), Found::Stored(row))));
            }
            if let Some(row) = row {
                return Ok(Some((FoundKey::Above(*id), Found::above(Arc::clone(row)))));
            }
            // It is removed: what comes before it?
            last = Bound::Excluded(*id);
        }
    }

    /// The rows of a range of keys, from both ends.
    pub(super) fn range<'k, KR: Borrow<K::SelfType<'k>>>(
        &self,
        range: impl RangeBounds<KR>,
    ) -> Result<Rest<K, V>> {
        let bound = |bound: Bound<&KR>, open: RowId| match bound {
            Bound::Included(key) => Bound::Included(self.table.row(key.borrow())),
            Bound::Excluded(key) => Bound::Excluded(self.table.row(key.borrow())),
            Bound::Unbounded => Bound::Excluded(open),
        };
        let first = match bound(range.start_bound(), self.table.first()) {
            Bound::Excluded(first) if first == self.table.first() => Bound::Included(first),
            first => first,
        };
        let last = bound(range.end_bound(), self.table.end());
        Ok(Rest {
            stored: self.stored.range(range)?,
            front: None,
            back: None,
            above: self.above(first, last),
        })
    }

    /// All rows.
    pub(super) fn iter(&self) -> Result<Rest<K, V>> {
        Ok(Rest {
            stored: self.stored.range::<K::SelfType<'_>>(..)?,
            front: None,
            back: None,
            above: self.above(
                Bound::Included(self.table.first()),
                Bound::Excluded(self.table.end()),
            ),
        })
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> Result<bool> {
        Ok(self.iter()?.next().transpose()?.is_none())
    }

    /// How many there are.
    pub(super) fn len(&self) -> Result<u64> {
        let mut len = self.stored.len()?;
        let its = self.above(
            Bound::Included(self.table.first()),
            Bound::Excluded(self.table.end()),
        );
        for (id, row) in its {
            let was_there = self.stored.get(K::of_bytes(id.key()))?.is_some();
            len = len + u64::from(row.is_some()) - u64::from(was_there);
        }
        Ok(len)
    }

    /// What stands above a range, in its order.
    fn above(&self, first: Bound<RowId>, last: Bound<RowId>) -> Above {
        if is_empty(first, last) {
            return Above::new();
        }
        let [own, journal] = self.layers;
        let mut own = own.range((first, last)).peekable();
        let mut journal = journal.range((first, last)).peekable();
        let mut above = Above::new();
        loop {
            let next = match (own.peek(), journal.peek()) {
                (Some((a, _)), Some((b, _))) if a > b => journal.next(),
                (Some((a, _)), Some((b, _))) => {
                    if a == b {
                        journal.next();
                    }
                    own.next()
                }
                (Some(_), None) => own.next(),
                (None, _) => journal.next(),
            };
            let Some((id, row)) = next else { return above };
            above.push_back((*id, row.clone()));
        }
    }
}

/// A map panics when it is asked for a range that ends before it begins.
fn is_empty(first: Bound<RowId>, last: Bound<RowId>) -> bool {
    match (first, last) {
        (Bound::Included(first), Bound::Included(last)) => first > last,
        (
            Bound::Included(first) | Bound::Excluded(first),
            Bound::Included(last) | Bound::Excluded(last),
        ) => first >= last,
        _ => false,
    }
}

/// Rows above those of a table, in their order.
type Above = VecDeque<(RowId, Option<Arc<[u8]>>)>;

/// A row, as it was found.
pub(super) enum Found<V: RowValue> {
    /// In its table.
    Stored(AccessGuard<'static, V>),
    /// In the journal, or among what the transaction has written.
    Above(Arc<[u8]>, PhantomData<V>),
}

impl<V: RowValue> Found<V> {
    const fn above(row: Arc<[u8]>) -> Self {
        Self::Above(row, PhantomData)
    }

    /// What it holds.
    pub(super) fn value(&self) -> V::SelfType<'_> {
        match self {
            Self::Stored(row) => row.value(),
            Self::Above(row, _) => V::from_bytes(row),
        }
    }
}

/// A key, as it was found.
pub(super) enum FoundKey<K: RowKey> {
    /// In its table.
    Stored(AccessGuard<'static, K>),
    /// Above it.
    Above(RowId),
}

impl<K: RowKey> FoundKey<K> {
    /// The key.
    pub(super) fn value(&self) -> K::SelfType<'_> {
        match self {
            Self::Stored(key) => key.value(),
            Self::Above(id) => K::of_bytes(id.key()),
        }
    }
}

type Stored<K, V> = (AccessGuard<'static, K>, AccessGuard<'static, V>);

/// The rows of a range that were not told yet.
pub(super) struct Rest<K: RowKey, V: RowValue> {
    stored: Range<'static, K, V>,
    /// Taken from the table, but not told yet.
    front: Option<Stored<K, V>>,
    back: Option<Stored<K, V>>,
    above: Above,
}

impl<K: RowKey, V: RowValue> Rest<K, V> {
    /// The next row from an end; `None` as the inner one: it is removed.
    #[expect(clippy::type_complexity, reason = "a row of an iterator")]
    fn step(&mut self, from_back: bool) -> Result<Option<Option<(FoundKey<K>, Found<V>)>>> {
        let held = match from_back {
            true => self.back.take(),
            false => self.front.take(),
        };
        let stored = match held {
            Some(held) => Some(held),
            None => {
                let next = match from_back {
                    true => self.stored.next_back(),
                    false => self.stored.next(),
                };
                match next {
                    Some(next) => Some(next?),
                    // What the other end took and did not tell.
                    None if from_back => self.front.take(),
                    None => self.back.take(),
                }
            }
        };
        let above = match from_back {
            true => self.above.back(),
            false => self.above.front(),
        };
        let takes_above = match (&stored, above) {
            (None, None) => return Ok(None),
            (Some(_), None) => false,
            (None, Some(_)) => true,
            (Some((key, _)), Some((id, _))) => {
                let order = K::with_bytes(&key.value(), |key| key.cmp(id.key()));
                match from_back {
                    true => order.is_le(),
                    false => order.is_ge(),
                }
            }
        };
        if !takes_above {
            return Ok(Some(
                stored.map(|(key, row)| (FoundKey::Stored(key), Found::Stored(row))),
            ));
        }
        let taken = match from_back {
            true => self.above.pop_back(),
            false => self.above.pop_front(),
        };
        let Some((id, row)) = taken else {
            return Ok(None);
        };
        // The row below is another one, or hidden by this one.
        let below = stored.filter(|(key, _)| K::with_bytes(&key.value(), |key| key != id.key()));
        match from_back {
            true => self.back = below,
            false => self.front = below,
        }
        Ok(Some(
            row.map(|row| (FoundKey::Above(id), Found::above(row))),
        ))
    }

    fn told(&mut self, from_back: bool) -> Option<Result<(FoundKey<K>, Found<V>)>> {
        loop {
            match self.step(from_back).transpose()? {
                Ok(Some(row)) => return Some(Ok(row)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl<K: RowKey, V: RowValue> Iterator for Rest<K, V> {
    type Item = Result<(FoundKey<K>, Found<V>)>;

    fn next(&mut self) -> Option<Self::Item> {
        // Mostly nothing stands above a range, and a million rows of one are read for every start.
        if self.above.is_empty() && self.front.is_none() && self.back.is_none() {
            return Some(match self.stored.next()? {
                Ok((key, row)) => Ok((FoundKey::Stored(key), Found::Stored(row))),
                Err(error) => Err(error.into()),
            });
        }
        self.told(false)
    }
}

impl<K: RowKey, V: RowValue> DoubleEndedIterator for Rest<K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.told(true)
    }
}
