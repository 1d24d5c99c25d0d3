//! Files that are not a store, or not any more: a clear error or what is left, never a panic.

use onelane_actors::testing::sample;
use proptest::prelude::*;
use redb::ReadableDatabase as _;
use std::sync::OnceLock;

use super::disk::Disk;
use super::*;

/// The bytes of a store that was closed well, with rows in every table.
fn a_good_file() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("onelane.redb");
        let store = open(&path);
        for n in 1..=40 {
            let life = [
                sample::insert_with(n, |new| new.job.idempotency_key = Some(n.to_string())),
                sample::start(n),
                sample::complete(n, 1),
                sample::insert(n + 100),
                sample::insert_after(n + 200, &[n + 100]),
                sample::insert(n + 300),
                sample::start(n + 300),
                sample::parked(n + 300, 1),
            ];
            store.commit(&life).unwrap();
        }
        drop(store);
        std::fs::read(&path).unwrap()
    })
}

/// Does everything that can be done with a file. Returning at all is the promise: no panic, no
/// endless loop.
fn use_it(bytes: Vec<u8>) -> Result<(), StoreError> {
    let store = Disk::holding(bytes).open()?;
    store.recover()?;
    store.counts()?;
    store.config()?;
    store.jobs(&JobFilter::default(), None, 1_000)?;
    let of_user = JobFilter {
        user_id: Some("ada".to_owned()),
        ..JobFilter::default()
    };
    store.jobs(&of_user, None, 1_000)?;
    store.calls(&CallFilter::default(), None, 1_000)?;
    let of_job = CallFilter {
        job_id: Some(job_id(3)),
        ..CallFilter::default()
    };
    store.calls(&of_job, None, 1_000)?;
    let unresolved = CallFilter {
        billing_open: true,
        ..CallFilter::default()
    };
    store.calls(&unresolved, None, 1_000)?;
    let mut aside = JobFilter::default();
    aside.more.parked = Some(true);
    store.jobs(&aside, None, 1_000)?;
    aside.more.ids = Some(vec![job_id(301), job_id(302)]);
    store.jobs(&aside, None, 1_000)?;
    store.usage(&UsageFilter::default())?;
    store.commit(&[sample::insert(999), sample::start(101)])?;
    store.commit(&[sample::complete(101, 1)])?;
    let billing = sample::resolve(301, 1, sample::billed(1));
    store.commit(&[billing, sample::cancel(102, sample::START)])?;
    Ok(())
}

#[test]
fn a_good_file_can_be_used() {
    use_it(a_good_file().to_vec()).unwrap();
}

#[test]
fn a_file_that_is_no_store_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let check = |name: &str, bytes: Option<&[u8]>, want: fn(&StoreError) -> bool| {
        let path = directory.path().join(name);
        match bytes {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::create_dir(&path).unwrap(),
        }
        let error = RedbStore::open(&path, options()).unwrap_err();
        assert!(want(&error), "{name}: {error:?}");
        assert!(error.to_string().contains(name), "{error}");
        if let Some(bytes) = bytes {
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name} is left alone");
        }
    };
    let damaged = |e: &StoreError| matches!(e, StoreError::Damaged { .. });
    let access = |e: &StoreError| matches!(e, StoreError::Access { .. });
    let good = a_good_file();
    check("text", Some(b"a shopping list: milk, bread"), damaged);
    check("short", Some(b"re"), damaged);
    check("head", Some(&good[..1_000]), damaged);
    check("half", Some(&good[..good.len() / 2]), damaged);
    check("sqlite", Some(b"SQLite format 3\0 and so on"), damaged);
    let mut beheaded = good.to_vec();
    beheaded[..4_096].fill(0);
    check("beheaded", Some(&beheaded), damaged);
    let mut neither = good.to_vec();
    neither[32] = 3;
    check("neither", Some(&neither), damaged);
    check("directory", None, access);

    let nowhere = directory.path().join("no such directory").join("s.redb");
    let error = RedbStore::open(&nowhere, options()).unwrap_err();
    assert!(access(&error), "{error:?}");
}

#[test]
fn an_empty_file_becomes_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("onelane.redb");
    std::fs::write(&path, b"").unwrap();
    open(&path).commit(&[sample::insert(1)]).unwrap();
    assert!(open(&path).job(job_id(1)).unwrap().is_some());
}

#[test]
fn another_programs_redb_file_is_refused_and_left_alone() {
    const OTHER: redb::TableDefinition<'_, u64, u64> = redb::TableDefinition::new("theirs");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.redb");
    let database = redb::Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(OTHER).unwrap().insert(1, 2).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = RedbStore::open(&path, options()).unwrap_err();
    assert!(error.to_string().contains("another program"), "{error}");
    let database = redb::Database::open(&path).unwrap();
    let snapshot = database.begin_read().unwrap();
    assert_eq!(snapshot.list_tables().unwrap().count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_truncated_file_never_panics(part in 0.0..1.0_f64) {
        let good = a_good_file();
        let len = (good.len() as f64 * part) as usize;
        let _ = use_it(good[..len].to_vec());
    }

    #[test]
    fn flipped_bytes_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..40),
    ) {
        let mut bytes = a_good_file().to_vec();
        for (index, mask) in flips {
            let at = index.index(bytes.len());
            bytes[at] ^= mask;
        }
        let _ = use_it(bytes);
    }

    #[test]
    fn flipped_bytes_in_the_header_never_panic(
        flips in prop::collection::vec((0_usize..320, 1_u8..), 1..8),
    ) {
        let mut bytes = a_good_file().to_vec();
        for (at, mask) in flips {
            bytes[at] ^= mask;
        }
        let _ = use_it(bytes);
    }

    #[test]
    fn garbage_pages_never_panic(
        page in any::<prop::sample::Index>(),
        garbage in prop::collection::vec(any::<u8>(), 4_096),
    ) {
        let mut bytes = a_good_file().to_vec();
        let at = page.index(bytes.len() / 4_096) * 4_096;
        bytes[at..at + 4_096].copy_from_slice(&garbage);
        let _ = use_it(bytes);
    }

    #[test]
    fn garbage_is_refused(garbage in prop::collection::vec(1_u8.., 1..9_000)) {
        prop_assert!(use_it(garbage).is_err());
    }
}
