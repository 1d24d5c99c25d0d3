//! Guards: a commit that was acknowledged and that the journal does not give back, one that was never whole and is
//! given back, and a store that is read through when it opens after a kill.

use onelane_actors::testing::sample;
use redb::ReadableDatabase as _;
use redb::backends::InMemoryBackend;

use super::disk::Disk;
use super::*;
use crate::store::journal::Journal;
use crate::store::parts::{PAGE_BYTES, READ_THROUGH};
use crate::store::tables::Rows;

fn parts() -> Parts {
    parts::Taken::of(InMemoryBackend::new())
        .unwrap()
        .begin(options().cache_bytes)
        .unwrap()
}

fn rows(n: u64, bytes: usize) -> Rows {
    let row = std::iter::repeat_n(n as u8, bytes).collect();
    Rows::from([(schema::DELIVERIES.row(&n), Some(row))])
}

fn load(parts: &Parts) -> Result<Journal, FileError> {
    Journal::load(&parts.tables.begin_read().unwrap(), &parts.journal)
}

/// Writes commits, and answers the numbers of those that only the journal holds.
fn commit(
    parts: &Parts,
    journal: &mut Journal,
    numbers: impl IntoIterator<Item = u64>,
) -> Vec<u64> {
    for n in numbers {
        let written = journal.write(&parts.tables, &parts.journal, rows(n, 3_000));
        journal.show(written.unwrap());
    }
    held(journal)
}

fn held(journal: &Journal) -> Vec<u64> {
    let key = |id: &tables::RowId| u64::from_be_bytes(id.key().try_into().unwrap());
    journal.rows().keys().map(key).collect()
}

fn spoil(parts: &Parts, at: u64) {
    let mut byte = parts.journal.read(at, 1).unwrap();
    byte[0] ^= 1;
    parts.journal.write(at, &byte).unwrap();
}

#[test]
fn a_commit_that_was_not_written_whole_ends_the_journal() {
    for at in [0, 5, 12, 20, 40, 3_000] {
        let parts = parts();
        let mut journal = load(&parts).unwrap();
        assert_eq!(commit(&parts, &mut journal, 1..=3), [1, 2, 3]);
        assert_eq!(held(&load(&parts).unwrap()), [1, 2, 3]);
        spoil(&parts, 2 * PAGE_BYTES as u64 + at);
        let mut found = load(&parts).unwrap();
        assert_eq!(held(&found), [1, 2], "byte {at}");
        // And the next one takes its place.
        assert_eq!(commit(&parts, &mut found, [4]), [1, 2, 4]);
        assert_eq!(held(&load(&parts).unwrap()), [1, 2, 4]);
    }
}

#[test]
fn a_commit_that_the_disk_has_lost_is_damage_and_no_end_of_the_journal() {
    let parts = parts();
    let mut journal = load(&parts).unwrap();
    commit(&parts, &mut journal, 1..=3);
    spoil(&parts, PAGE_BYTES as u64 + 40);
    let error = load(&parts).map(drop).unwrap_err().at("s.redb");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    // What is left is still told.
    let (rest, is_whole) = Journal::rest(&parts.tables.begin_read().unwrap(), &parts.journal);
    assert_eq!((held(&rest), is_whole), (vec![1, 3], false));
}

#[test]
fn what_somebody_stores_is_never_taken_for_a_commit() {
    // A commit as it stands in the file, wherever a page may begin in what is stored.
    let other = parts();
    let mut forged = load(&other).unwrap();
    commit(&other, &mut forged, 1..=4);
    let page = other
        .journal
        .read(3 * PAGE_BYTES as u64, PAGE_BYTES)
        .unwrap();
    let parts = parts();
    for shift in 0..40 {
        let mut body = vec![0; shift];
        body.extend(page.repeat(6));
        let mut journal = load(&parts).unwrap();
        let rows = Rows::from([(schema::DELIVERIES.row(&9), Some(Arc::from(body)))]);
        journal.show(journal.write(&parts.tables, &parts.journal, rows).unwrap());
        let found = load(&parts).unwrap();
        assert_eq!(held(&found), [9], "by {shift}");
        found.settle(&parts.tables, None).unwrap();
        // And neither when it stands behind the end.
        let mut after = load(&parts).unwrap();
        assert!(after.is_empty());
        assert_eq!(commit(&parts, &mut after, [1]), [1]);
        after.settle(&parts.tables, None).unwrap();
    }
}

#[test]
fn commits_that_the_tables_have_are_not_given_back() {
    let parts = parts();
    let mut journal = load(&parts).unwrap();
    // The sixth goes to the tables, and those before it.
    assert!(commit(&parts, &mut journal, 1..=6).is_empty());
    assert!(load(&parts).unwrap().is_empty());
    // The old ones behind it stand in the file still.
    assert_eq!(commit(&parts, &mut journal, [7]), [7]);
    let mut found = load(&parts).unwrap();
    assert_eq!(held(&found), [7]);
    found.settle(&parts.tables, None).unwrap();
    assert!(load(&parts).unwrap().is_empty());
    found = load(&parts).unwrap();
    assert_eq!(commit(&parts, &mut found, [8, 9]), [8, 9]);
    assert_eq!(held(&load(&parts).unwrap()), [8, 9]);
}

#[test]
fn a_commit_that_finds_no_room_in_the_journal_goes_to_the_tables_with_it() {
    let parts = parts();
    let mut journal = load(&parts).unwrap();
    let len = parts.journal.len() as usize;
    let mut most = 0;
    for n in 1..=40 {
        let bytes = [60_000, 1, 30_000, 70_000, 63_000][n as usize % 5];
        let written = journal.write(&parts.tables, &parts.journal, rows(n, bytes));
        journal.show(written.unwrap());
        let found = load(&parts).unwrap();
        assert_eq!(found.rows(), journal.rows());
        most = most.max(found.rows().values().flatten().map(|row| row.len()).sum());
        let table = parts.tables.begin_read().unwrap();
        let table = table.open_table(schema::DELIVERIES.definition).unwrap();
        let in_table = redb::ReadableTableMetadata::len(&table).unwrap();
        assert_eq!(in_table + held(&journal).len() as u64, n);
    }
    assert!(most > len / 2 && most < len, "{most} of {len}");
}

#[test]
fn a_store_that_a_kill_left_is_opened_without_reading_its_tables() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    for n in 1..=60 {
        let insert = sample::insert_with(n, |new| {
            new.request = Request::Prompt("long ".repeat(8_000));
        });
        store.commit(&[insert]).unwrap();
        let killed = disk.after_power_cut();
        READ_THROUGH.set(false);
        let opened = killed.open().unwrap();
        assert!(!READ_THROUGH.get(), "after {n} commits");
        assert!(opened.job(job_id(n)).unwrap().is_some());
    }
    // And again, although it was only opened.
    let killed = disk.after_power_cut();
    let opened = killed.open().unwrap();
    let killed = killed.after_power_cut();
    READ_THROUGH.set(false);
    assert_consistent(&killed.open().unwrap());
    assert!(!READ_THROUGH.get());
    drop(opened);
}
