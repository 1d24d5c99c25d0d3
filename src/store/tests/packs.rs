//! Requests that share a row. Guards: a request that is another job's, or gone with a neighbour's.

use onelane_actors::testing::sample;
use onelane_core::model::{Applied, Cutoff, PruneCursor};
use proptest::prelude::*;
use redb::ReadableTableMetadata as _;

use super::disk::Disk;
use super::*;
use crate::model::{Request, limits};

fn prompt(n: u64, len: usize) -> String {
    format!("{n} {}", "word ".repeat(len / 5))
}

/// Jobs of which each asks for something else.
fn jobs(numbers: impl Iterator<Item = u64>, len: usize) -> Vec<Transition> {
    let job = |n| {
        sample::insert_with(n, |new| {
            new.request = Request::Prompt(prompt(n, len));
        })
    };
    numbers.map(job).collect()
}

fn asked(store: &RedbStore, n: u64) -> Option<String> {
    match store.job(job_id(n)).unwrap()?.request?.as_ref() {
        Request::Prompt(text) => Some(text.clone()),
        other => panic!("a prompt, not {other:?}"),
    }
}

/// Writes all that only the journal holds to the tables.
fn settle(store: &RedbStore) {
    store.settle().unwrap();
}

fn rows(store: &RedbStore) -> u64 {
    let database = store.database();
    let Some(Opened::Whole(whole)) = &*database else {
        panic!("a store")
    };
    let state = whole.state().unwrap();
    let table = state.snapshot().open_table(schema::REQUESTS.definition);
    table.unwrap().len().unwrap()
}

fn bodies_go(store: &RedbStore, n: u64) {
    let life = [sample::start(n), sample::complete(n, 1)];
    store.commit(&life).unwrap();
    assert!(asked(store, n).is_some());
    prune_bodies(store);
    assert!(asked(store, n).is_none());
}

/// What has ended loses its bodies.
fn prune_bodies(store: &RedbStore) {
    let mut step = Prune {
        calls: Cutoff::default(),
        jobs: Cutoff::default(),
        failed: Cutoff::default(),
        bodies_before: Some(Timestamp::from_millis(i64::MAX)),
        rows_max: 1_000,
        bytes_max: limits::PRUNE_BYTES_MAX,
        from: PruneCursor::default(),
    };
    loop {
        let prune = Transition::Prune(Box::new(step));
        match store.commit(&[prune]).unwrap().remove(0) {
            Ok(Applied::Pruned(pruned)) => match pruned.next {
                Some(next) => step.from = next,
                None => return,
            },
            other => panic!("a pruning, not {other:?}"),
        }
    }
}

#[test]
fn requests_that_come_together_share_rows_and_each_is_its_own() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    store.commit(&jobs(1..=300, 1_000)).unwrap();
    settle(&store);
    // 16 KiB have room for 15 of them.
    assert_eq!(rows(&store), 20);
    for n in 1..=300 {
        assert_eq!(asked(&store, n), Some(prompt(n, 1_000)));
    }
    assert_consistent(&store);
}

#[test]
fn a_long_request_has_a_row_of_its_own_between_others() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    let mut all = jobs(1..=5, 100);
    all.extend(jobs(6..=6, 20_000));
    all.extend(jobs(7..=9, 100));
    store.commit(&all).unwrap();
    settle(&store);
    assert_eq!(rows(&store), 3);
    for n in 1..=9 {
        let len = if n == 6 { 20_000 } else { 100 };
        assert_eq!(asked(&store, n), Some(prompt(n, len)));
    }
}

#[test]
fn a_request_that_goes_takes_no_other_with_it_and_the_last_takes_the_row() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    store.commit(&jobs(1..=5, 100)).unwrap();
    settle(&store);
    // The first one's place is the key of them all.
    for gone in [1, 3, 5, 2] {
        bodies_go(&store, gone);
        settle(&store);
        assert_eq!(rows(&store), 1);
        assert_eq!(asked(&store, 4), Some(prompt(4, 100)));
        assert_consistent(&store);
    }
    bodies_go(&store, 4);
    settle(&store);
    assert_eq!(rows(&store), 0);
    assert_consistent(&store);
}

#[test]
fn what_is_left_of_a_pack_takes_up_nothing_that_came_later() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    for first in [1, 6] {
        store.commit(&jobs(first..first + 5, 100)).unwrap();
        settle(&store);
    }
    for gone in 2..=5 {
        bodies_go(&store, gone);
    }
    store.commit(&jobs(11..=12, 100)).unwrap();
    settle(&store);
    assert_eq!(rows(&store), 3);
    for n in [1].into_iter().chain(6..=12) {
        assert_eq!(asked(&store, n), Some(prompt(n, 100)));
    }
    assert_consistent(&store);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_and_goes_each_job_has_its_own_request(
        steps in prop::collection::vec((0u8..4, 1u64..9, 1usize..4), 1..30),
    ) {
        let disk = Disk::default();
        let store = disk.open().unwrap();
        let (mut next, mut there) = (1, BTreeMap::new());
        for (kind, many, size) in steps {
            let len = [10, 1_000, 20_000][size - 1];
            match kind {
                0 | 1 => {
                    store.commit(&jobs(next..next + many, len)).unwrap();
                    there.extend((next..next + many).map(|n| (n, len)));
                    next += many;
                }
                2 => {
                    let Some(n) = there.keys().nth(many as usize).copied() else { continue };
                    bodies_go(&store, n);
                    there.remove(&n);
                }
                _ => settle(&store),
            }
            for (n, len) in &there {
                prop_assert_eq!(asked(&store, *n), Some(prompt(*n, *len)));
            }
        }
        assert_consistent(&store);
        let killed = disk.after_power_cut().open().unwrap();
        assert_consistent(&killed);
        for (n, len) in &there {
            prop_assert_eq!(asked(&killed, *n), Some(prompt(*n, *len)));
        }
    }
}
