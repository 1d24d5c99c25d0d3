//! A disk that is full, fails, or loses its power at any operation: nothing acknowledged is lost,
//! nothing half done is found, and nothing panics.

use std::io::ErrorKind;

use onelane_actors::testing::sample;
use onelane_core::model::{Cutoff, PruneCursor};
use proptest::prelude::*;

use super::disk::Disk;
use super::*;
use crate::model::Request;

const BATCHES: u64 = 6;

/// The batch of day `n`: a job from submission to answer, one that ran after it, one that stays, an
/// interruption of the one that stayed the day before, and one that was given up long ago, which the
/// pruning of the next day takes, with older calls and bodies. Bodies of some pages make the file grow.
fn batch(n: u64) -> Vec<Transition> {
    let big = |id| {
        sample::insert_with(id, |new| {
            new.request = Request::Prompt(format!("{id} ").repeat(3_000));
            new.job.idempotency_key = Some(format!("key {id}"));
        })
    };
    let long_ago = sample::START.minus_ms(86_400_000);
    let mut batch = vec![
        prune(),
        big(n + 300),
        sample::cancel(n + 300, long_ago),
        big(n),
        sample::insert_after(n + 200, &[n]),
        sample::start(n),
        sample::complete(n, 1),
        sample::start(n + 200),
        sample::complete(n + 200, 1),
        big(n + 100),
    ];
    if n > 1 {
        batch.push(sample::start(n + 99));
        batch.push(sample::parked(n + 99, 1));
    }
    batch
}

fn prune() -> Transition {
    Transition::Prune(Box::new(Prune {
        jobs: Cutoff {
            before: Some(sample::START),
            ..Cutoff::default()
        },
        calls: Cutoff {
            most: Some(4),
            ..Cutoff::default()
        },
        failed: Cutoff::default(),
        bodies_before: Some(sample::START.plus_ms(1_001)),
        rows_max: 100,
        bytes_max: u64::MAX,
        from: PruneCursor::default(),
    }))
}

/// Checks that the batches up to `acknowledged` are there whole, and the one after it, of which
/// nobody knows, whole or not at all.
fn assert_kept(store: &RedbStore, acknowledged: u64) {
    assert_consistent(store);
    for n in 1..=acknowledged {
        let job = store.job(job_id(n)).unwrap().expect("acknowledged").job;
        assert_eq!(job.status, JobStatus::Completed);
        assert!(store.job(job_id(n + 100)).unwrap().is_some());
    }
    let counts = store.counts().unwrap();
    assert_eq!(counts.completed, 2 * counts.pending, "half a batch");
    assert_eq!(counts.cancelled, counts.pending.min(1), "the last alone");
    assert!(counts.pending == acknowledged || counts.pending == acknowledged + 1);
}

/// Commits the batches from `first` on; answers how many of all were acknowledged, and the error of
/// the first that was not.
fn run(store: &RedbStore, first: u64) -> (u64, Option<StoreError>) {
    for n in first..=BATCHES {
        if let Err(error) = store.commit(&batch(n)) {
            return (n - 1, Some(error));
        }
    }
    (BATCHES, None)
}

/// Lets operation `n` and all after it fail, for every `n`, mends the disk, and goes on.
fn every_operation_fails_once(kind: ErrorKind, halves: bool) {
    for n in 0.. {
        let disk = Disk::default();
        disk.fail_in_the_middle_from(n, kind, halves);
        let store = match disk.open() {
            Ok(store) => store,
            // Not even created: once there is room it is, as if nothing had been.
            Err(error) => {
                assert_kind(&error, kind);
                disk.mend();
                let store = disk.open().expect("a second try");
                assert_eq!(run(&store, 1), (BATCHES, None));
                continue;
            }
        };
        let (acknowledged, error) = run(&store, 1);
        let Some(error) = error else {
            assert!(n > 30, "{n} operations are too few to have tested much");
            return;
        };
        assert_kind(&error, kind);
        // It stops.
        assert_eq!(store.commit(&batch(BATCHES)).unwrap_err(), error);
        // redb's own words would be "previous I/O error": of no use to anybody.
        if let Err(told) = store.counts() {
            assert_eq!(told, error);
        }
        // While the disk fails, so does recovery, or it finds what was acknowledged.
        if store.recover().is_ok() {
            assert_kept(&store, acknowledged);
        }
        disk.mend();
        store.recover().expect("recovered");
        assert_kept(&store, acknowledged);
        // Who was told "unknown" asks again.
        let (done, error) = run(&store, acknowledged + 1);
        assert_eq!((done, error), (BATCHES, None));
        drop(store);
        let store = disk.open().expect("reopened");
        assert_eq!(store.counts().unwrap().completed, 2 * BATCHES);
        assert_consistent(&store);
    }
}

fn assert_kind(error: &StoreError, kind: ErrorKind) {
    match kind {
        ErrorKind::StorageFull => assert!(matches!(error, StoreError::Full { .. }), "{error:?}"),
        _ => assert!(matches!(error, StoreError::Io { .. }), "{error:?}"),
    }
}

#[test]
fn a_full_disk_loses_nothing_acknowledged() {
    every_operation_fails_once(ErrorKind::StorageFull, false);
}

#[test]
fn a_failing_disk_loses_nothing_acknowledged() {
    every_operation_fails_once(ErrorKind::Other, false);
}

#[test]
fn a_disk_that_fills_in_the_middle_of_a_write_loses_nothing_acknowledged() {
    every_operation_fails_once(ErrorKind::StorageFull, true);
}

#[test]
fn what_a_failed_sync_left_in_memory_alone_is_not_built_on() {
    for n in 0.. {
        let disk = Disk::default();
        disk.forget_from(n);
        let store = match disk.open() {
            Ok(store) => store,
            Err(_) => disk.open().expect("a second try"),
        };
        let (acknowledged, error) = run(&store, 1);
        if let Some(error) = &error {
            assert_kind(error, ErrorKind::Other);
            store.recover().expect("recovered");
            assert_eq!(run(&store, acknowledged + 1), (BATCHES, None));
        }
        // The power goes, and takes what never reached the disk.
        let store = disk
            .after_power_cut()
            .open()
            .expect("a store after the cut");
        assert_kept(&store, BATCHES);
        if disk.operations() < n {
            assert!(n > 30, "{n} operations are too few to have tested much");
            return;
        }
    }
}

#[test]
fn figures_that_find_a_failing_disk_stop_the_store_as_a_commit_does() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    store.commit(&batch(1)).unwrap();
    disk.fail_from(disk.operations(), ErrorKind::Other);
    let figures = store.figures(&Retention::default(), sample::START);
    assert!(figures.is_ok(), "{figures:?}");
    disk.mend();
    assert!(store.commit(&batch(2)).is_err());
    store.recover().unwrap();
    assert_eq!(run(&store, 2), (BATCHES, None));
    assert_kept(&store, BATCHES);
}

#[test]
fn a_store_that_vanished_is_not_taken_for_an_empty_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("onelane.redb");
    let store = open(&path);
    store.commit(&[sample::insert(1)]).unwrap();
    let error = StoreError::Io {
        path: String::new(),
        message: String::new(),
    };
    *store.failed() = Some(error.clone());
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(store.recover(), Err(StoreError::Access { .. })));
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(store.recover(), Err(StoreError::Damaged { .. })));
    assert!(store.commit(&[sample::insert(2)]).is_err());
    assert!(store.job(job_id(1)).is_err());
}

/// How often the power goes: `ONELANE_POWER_CUTS`, or 100 times.
fn power_cuts() -> u32 {
    let told = std::env::var("ONELANE_POWER_CUTS");
    told.ok().and_then(|told| told.parse().ok()).unwrap_or(100)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: power_cuts(), ..ProptestConfig::default() })]

    #[test]
    fn a_power_cut_loses_nothing_acknowledged(
        at in 0_u64..150,
        seed in prop_oneof![Just(0), any::<u64>()],
    ) {
        let disk = Disk::default();
        disk.cut_power_at(at, seed);
        let acknowledged = match disk.open() {
            Ok(store) => run(&store, 1).0,
            Err(_) => 0,
        };
        let disk = disk.after_power_cut();
        let store = disk.open().expect("a store after the cut");
        assert_kept(&store, acknowledged);
        prop_assert_eq!(run(&store, acknowledged + 1), (BATCHES, None));
        assert_consistent(&store);
    }
}
