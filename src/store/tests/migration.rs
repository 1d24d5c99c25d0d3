//! A file of an older program becomes one of this program's, whole or not at all. The rows in
//! `version1.txt` are those that a program of version 1 wrote.

use std::io::ErrorKind;

use onelane_actors::testing::sample;
use onelane_core::model::{DeliveryChange, TryOutcome};
use proptest::prelude::*;
use redb::{Key, ReadableTable as _, TableDefinition, TableHandle, Value, WriteTransaction};

use super::disk::Disk;
use super::*;
use crate::model::{AttemptNo, DEFAULT_LANE, DeliveryCounts, DeliveryId, HoldKind, Job};

const ROWS: &str = include_str!("version1.txt");

/// The bytes of a store of version 1, closed well.
fn version_1() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("onelane.redb");
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let id = |name| TableDefinition::<&[u8; 16], &[u8]>::new(name);
    fill(&transaction, id("jobs"), fixed);
    fill(&transaction, id("requests"), fixed);
    fill(&transaction, id("responses"), fixed);
    let line = TableDefinition::<&[u8; 9], &[u8]>::new("line");
    fill(&transaction, line, fixed);
    let usage = TableDefinition::<&[u8; 20], &[u8]>::new("usage");
    fill(&transaction, usage, fixed);
    let by_key = TableDefinition::<&[u8; 32], &[u8]>::new("idempotency");
    transaction.open_table(by_key).unwrap();
    for (table, key, row) in rows() {
        match table {
            "meta" => {
                let meta = TableDefinition::<&str, &[u8]>::new("meta");
                let mut meta = transaction.open_table(meta).unwrap();
                meta.insert(key, row.as_bytes()).unwrap();
            }
            "calls" => {
                let calls = TableDefinition::<u64, &[u8]>::new("calls");
                let mut calls = transaction.open_table(calls).unwrap();
                calls
                    .insert(key.parse::<u64>().unwrap(), row.as_bytes())
                    .unwrap();
            }
            "calls_by_job" => {
                let by_job = TableDefinition::<&[u8; 20], u64>::new("calls_by_job");
                let mut by_job = transaction.open_table(by_job).unwrap();
                by_job
                    .insert(&fixed(key), row.parse::<u64>().unwrap())
                    .unwrap();
            }
            _ => {}
        }
    }
    transaction.commit().unwrap();
    drop(database);
    std::fs::read(&path).unwrap()
}

fn rows() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    ROWS.lines().map(|line| {
        let (table, rest) = line.split_once(' ').unwrap();
        let (key, row) = rest.split_once(' ').unwrap();
        (table, key, row)
    })
}

fn fixed<const N: usize>(hex: &str) -> [u8; N] {
    std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
}

/// Puts the rows of a table with binary keys into it.
fn fill<const N: usize>(
    transaction: &WriteTransaction,
    definition: TableDefinition<'_, &'static [u8; N], &'static [u8]>,
    key_of: fn(&str) -> [u8; N],
) where
    &'static [u8; N]: Key + for<'a> Value<SelfType<'a> = &'a [u8; N]>,
{
    let mut table = transaction.open_table(definition).unwrap();
    for (_, key, row) in rows().filter(|(table, ..)| *table == definition.name()) {
        table.insert(&key_of(key), row.as_bytes()).unwrap();
    }
}

/// The version that a disk's store says it has, and how many tables there are.
fn found_on(disk: &Disk) -> (String, usize) {
    let database = Builder::new().create_with_backend(disk.clone()).unwrap();
    let snapshot = database.begin_read().unwrap();
    let meta = snapshot.open_table(schema::META).unwrap();
    let version = meta.get(schema::meta::VERSION).unwrap().unwrap();
    let version = String::from_utf8(version.value().to_vec()).unwrap();
    (version, snapshot.list_tables().unwrap().count())
}

const OLD: (&str, usize) = ("1", 9);
const NEW: (&str, usize) = ("4", 17);

/// Checks that all that the old store held is there, as this program knows it.
fn assert_migrated(store: &RedbStore) {
    assert_consistent(store);
    let job = |n| store.job(job_id(n)).unwrap().unwrap().job;
    // As if it had been submitted to this program.
    let mut first = sample::new_job(1).job;
    first = Job {
        seq: job(1).seq,
        priority: 5,
        run_at: Some(sample::START.plus_ms(10)),
        idempotency_key: Some("k".to_owned()),
        estimated_tokens: 2 + 8 + 1_024,
        ..first
    };
    assert_eq!(format!("{:?}", job(1)), format!("{first:?}"));
    let tokens = [2, 3, 4, 5, 6].map(|n| job(n).estimated_tokens);
    assert_eq!(tokens, [74, 1_034, 0, 1_034, 1_034]);

    let recovered = store.recover().unwrap();
    assert_eq!(recovered.waiting, [first.entry()]);
    let open: Vec<_> = recovered.open.iter().map(|job| job.id).collect();
    assert_eq!(open, [2, 6].map(job_id));
    let lane = &recovered.lane;
    assert_eq!((lane.hold.as_ref(), lane.in_doubt), (None, true));
    assert_eq!(lane.endpoint_digest.as_deref(), Some("d1"));
    let only = &lane.lanes[DEFAULT_LANE];
    assert_eq!(only.hold.as_ref().unwrap().kind, HoldKind::Throttle);
    assert_eq!(only.throttle_level, 2);
    assert_eq!(store.config().unwrap().unwrap(), r#"{"model":"glm-5"}"#);

    let unresolved = CallFilter {
        billing_open: true,
        ..CallFilter::default()
    };
    let calls = store.calls(&unresolved, None, 10).unwrap().calls;
    let found: Vec<_> = calls.iter().map(|c| (c.job_id, c.attempt)).collect();
    assert_eq!(found, [(job_id(3), AttemptNo(1))]);
}

#[test]
fn a_store_of_version_1_is_migrated_once_and_works() {
    let disk = Disk::holding(version_1());
    assert_eq!(found_on(&disk), (OLD.0.to_owned(), OLD.1));
    let store = disk.open(true).unwrap();
    assert_migrated(&store);
    drop(store);
    assert_eq!(found_on(&disk), (NEW.0.to_owned(), NEW.1));
    let store = disk.open(true).unwrap();
    assert_migrated(&store);
    let batch = [
        sample::complete(2, 1),
        Transition::Requeue { job_id: job_id(3) },
        Transition::Billing {
            job_id: job_id(3),
            attempt: AttemptNo(1),
            billing: sample::billed(7),
        },
        sample::insert_after(7, &[3]),
        Transition::Cancel {
            job_id: job_id(3),
            at: sample::START,
        },
    ];
    let decisions = store.commit(&batch).unwrap();
    assert!(decisions.iter().all(Result::is_ok), "{decisions:?}");
    assert_consistent(&store);
}

#[test]
fn the_deliveries_of_version_3_are_found_by_their_receivers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("onelane.redb");
    let store = open(&path);
    let job = |n| {
        let mut new = sample::new_job(n);
        new.job.callback_url = Some("https://example.com/".to_owned());
        Transition::Insert(Box::new(new))
    };
    let cancel = |n| Transition::Cancel {
        job_id: job_id(n),
        at: sample::START,
    };
    let arrived = DeliveryChange::Tried {
        id: DeliveryId(1),
        try_no: 1,
        outcome: TryOutcome::Delivered { status_code: 200 },
        at: sample::START,
        next: None,
    };
    let batch = [
        job(1),
        job(2),
        cancel(1),
        cancel(2),
        Transition::Delivery(Box::new(arrived)),
    ];
    assert!(store.commit(&batch).unwrap().iter().all(Result::is_ok));
    let counts = store.delivery_counts().unwrap();
    drop(store);
    // As a program of version 3 left it.
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .delete_table(schema::DELIVERIES_PENDING)
        .unwrap();
    let due = TableDefinition::<&[u8; 16], ()>::new("deliveries_due");
    let mut key = [0; 16];
    key[15] = 2;
    let mut table = transaction.open_table(due).unwrap();
    table.insert(&key, ()).unwrap();
    drop(table);
    let mut meta = transaction.open_table(schema::META).unwrap();
    let row = meta.get(schema::meta::COUNTERS).unwrap().unwrap();
    let mut counters: schema::Counters = schema::decode("meta", row.value()).unwrap();
    drop(row);
    counters.deliveries = DeliveryCounts::default();
    let mut row = Vec::new();
    schema::encode(&mut row, &counters).unwrap();
    meta.insert(schema::meta::COUNTERS, row.as_slice()).unwrap();
    meta.insert(schema::meta::VERSION, &b"3"[..]).unwrap();
    drop(meta);
    transaction.commit().unwrap();
    drop(database);

    let store = open(&path);
    assert_consistent(&store);
    assert_eq!(store.delivery_counts().unwrap(), counts);
    let due = store.deliveries_due(&everything_due(&store)).unwrap().due;
    assert_eq!(due.iter().map(|row| row.id.0).collect::<Vec<_>>(), [2]);
    assert_eq!(store.check(9).unwrap().first, []);
}

#[test]
fn a_look_at_the_configuration_leaves_every_file_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("onelane.redb");
    let config = || stored_config(&path).unwrap();
    let check = |bytes: Vec<u8>, want: Option<&str>| {
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(config().as_deref(), want);
        assert!(std::fs::read(&path).unwrap() == bytes, "it was written to");
    };
    let kept = Some(r#"{"model":"glm-5"}"#);
    check(version_1(), kept);
    check(Vec::new(), None);
    // As after a crash: redb has to mend it before it reads.
    let disk = Disk::holding(version_1());
    let store = disk.open(false).unwrap();
    let mended = Transition::Config(r#"{"model":"x"}"#.to_owned());
    store.commit(&[mended]).unwrap();
    let crashed = disk.after_power_cut();
    drop(store);
    check(crashed.bytes(), Some(r#"{"model":"x"}"#));
    let store = open(&path);
    assert!(matches!(
        stored_config(&path),
        Err(StoreError::Locked { .. })
    ));
    drop(store);
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(
        stored_config(&path),
        Err(StoreError::Access { .. })
    ));
    assert!(!path.exists());
}

#[test]
fn a_version_that_never_was_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("onelane.redb");
    drop(open(&path));
    write_meta(&path, schema::meta::VERSION, b"0");
    let error = RedbStore::open(&path, options(true)).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[test]
fn a_migration_that_fails_anywhere_leaves_version_1_and_is_made_up_for() {
    let bytes = version_1();
    for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
        for n in 0.. {
            let disk = Disk::holding(bytes.clone());
            disk.fail_from(n, kind);
            let opened = disk.open(true);
            let failed = opened.is_err();
            drop(opened);
            disk.mend();
            let found = found_on(&disk);
            let found = (found.0.as_str(), found.1);
            assert!(found == OLD || found == NEW, "half of it: {found:?}");
            assert_migrated(&disk.open(true).unwrap());
            if !failed {
                assert!(n > 5, "{n} operations are too few to have tested much");
                break;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_power_cut_in_a_migration_leaves_one_version_or_the_other(
        at in 0_u64..60,
        seed in prop_oneof![Just(0), any::<u64>()],
        quick_repair: bool,
    ) {
        let disk = Disk::holding(version_1());
        disk.cut_power_at(at, seed);
        drop(disk.open(quick_repair));
        let disk = disk.after_power_cut();
        let found = found_on(&disk);
        let found = (found.0.as_str(), found.1);
        prop_assert!(found == OLD || found == NEW, "half of it: {:?}", found);
        assert_migrated(&disk.open(quick_repair).unwrap());
    }
}
