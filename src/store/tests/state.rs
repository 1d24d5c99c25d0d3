//! Guards: a reader of the state that sees a row of the tables which the journal has changed or removed, misses
//! one, or sees one twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use redb::ReadableDatabase as _;
use redb::backends::InMemoryBackend;

use super::*;
use crate::store::journal::{self, Journal};
use crate::store::tables::Rows;

/// What becomes of a row: a value, or its removal.
type Changes = Vec<(u64, Option<u8>)>;

fn changes(most: usize) -> impl Strategy<Value = Changes> {
    prop::collection::vec((0_u64..40, prop::option::of(any::<u8>())), 0..most)
}

fn rows(changes: &Changes) -> Rows {
    let row = |value: &u8| Arc::from([*value].as_slice());
    changes
        .iter()
        .map(|(key, value)| (schema::DELIVERIES.row(key), value.as_ref().map(row)))
        .collect()
}

/// A state of such layers, and what it has to be.
fn state_of(table: &Changes, journaled: &[Changes]) -> (Parts, State, BTreeMap<u64, u8>) {
    let parts = parts::Taken::of(InMemoryBackend::new())
        .unwrap()
        .begin(options().cache_bytes)
        .unwrap();
    let transaction = parts.tables.begin_write().unwrap();
    schema::write_rows(&transaction, &rows(table), None).unwrap();
    transaction.commit().unwrap();
    let mut journal = load(&parts);
    for changes in journaled {
        let (tables, journaled) = (&parts.tables, &parts.journal);
        let written = journal.write(tables, journaled, rows(changes)).unwrap();
        journal.show(written);
    }
    let mut want = BTreeMap::new();
    for (key, value) in table.iter().chain(journaled.iter().flatten()) {
        match value {
            Some(value) => drop(want.insert(*key, *value)),
            None => drop(want.remove(key)),
        }
    }
    let state = State::new(parts.tables.begin_read().unwrap(), journal);
    (parts, state, want)
}

fn load(parts: &Parts) -> Journal {
    Journal::load(&parts.tables.begin_read().unwrap(), &parts.journal).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn tables_and_journal_are_one_to_every_reader(
        table in changes(30),
        journaled in prop::collection::vec(changes(12), 0..8),
        own in changes(12),
        (first, last) in (0_u64..42, 0_u64..42),
        ends in prop::collection::vec(any::<bool>(), 64),
    ) {
        let (parts, state, mut want) = state_of(&table, &journaled);
        // A file that is opened again says the same.
        let loaded = load(&parts);
        prop_assert_eq!(loaded.rows(), state.journal().rows());
        for (key, value) in &own {
            match value {
                Some(value) => drop(want.insert(*key, *value)),
                None => drop(want.remove(key)),
            }
        }
        let own = rows(&own);
        let merged = state.under(schema::DELIVERIES, &own).unwrap();
        prop_assert_eq!(merged.len().unwrap(), want.len() as u64);
        prop_assert_eq!(merged.is_empty().unwrap(), want.is_empty());
        for key in 0..42 {
            let found = merged.get(key).unwrap().map(|row| row.value()[0]);
            prop_assert_eq!(found, want.get(&key).copied());
            let found = state.get_under(schema::DELIVERIES, &own, key).unwrap();
            prop_assert_eq!(found.map(|row| row.value()[0]), want.get(&key).copied());
        }
        // From both ends, in any order.
        let range = first.min(last)..=last;
        let mut rest = merged.range::<u64>(range.clone()).unwrap();
        let mut model: std::collections::VecDeque<_> = want.range(range).collect();
        for from_back in ends {
            let told = match from_back {
                true => rest.next_back(),
                false => rest.next(),
            };
            let told = told.map(|row| row.map(|(key, row)| (key.value(), row.value()[0])).unwrap());
            let due = match from_back {
                true => model.pop_back(),
                false => model.pop_front(),
            };
            prop_assert_eq!(told, due.map(|(key, value)| (*key, *value)));
        }
    }

    #[test]
    fn a_damaged_row_of_the_journal_is_told_and_never_panics(
        journaled in changes(12),
        at in any::<prop::sample::Index>(),
        mask in 1_u8..,
        cut in any::<prop::sample::Index>(),
    ) {
        let mut row = journal::written(&rows(&journaled));
        let mut whole = Rows::new();
        prop_assert_eq!(journal::read(&row, &mut whole), Some(()));
        prop_assert_eq!(whole, rows(&journaled));
        let cut = cut.index(row.len() + 1);
        let _ = journal::read(&row[..cut], &mut Rows::new());
        let at = at.index(row.len());
        row[at] ^= mask;
        let _ = journal::read(&row, &mut Rows::new());
        row[0] = 2;
        prop_assert_eq!(journal::read(&row, &mut Rows::new()), None);
    }
}

#[test]
fn a_long_body_is_written_once_and_seen_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("onelane.redb"));
    let long = "x".repeat(100_000);
    store
        .commit(&[sample::insert_with(1, |new| {
            new.request = Request::Prompt(long.clone());
        })])
        .unwrap();
    let record = store.job(job_id(1)).unwrap().unwrap();
    assert_eq!(bodies(&record).0, long);
    let database = store.database();
    let Some(Opened::Whole(whole)) = &*database else {
        panic!("a store")
    };
    let state = whole.state().unwrap();
    let row = schema::REQUESTS.row(&1);
    assert!(!state.journal().rows().contains_key(&row));
}
