//! The redb store keeps the contract, on real files and on disks that fail on purpose.

mod copy;
mod damage;
mod disk;
mod equal;
mod faults;
mod journal;
mod owner;
mod packs;
mod prune;
mod state;
mod versions;

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use onelane_core::testing::sample::{self, job_id};

use super::tables::{RowKey, Table};
use super::*;
use crate::model::{
    Day, DeliveryId, DeliveryStatus, Job, JobStatus, Request, Seq, Timestamp, UsageKey,
};

/// Small caches, so that pages are read from the file again.
fn options() -> StoreOptions {
    StoreOptions {
        cache_bytes: 256 * 1024,
    }
}

fn open(path: &Path) -> RedbStore {
    RedbStore::open(path, options()).expect("a store")
}

/// A fresh directory and the way to open the store in it.
fn place() -> impl Fn() -> RedbStore {
    let directory = tempfile::tempdir().unwrap();
    move || open(&directory.path().join("onelane.redb"))
}

onelane_actors::store_contract!(place);

/// Checks what must hold of any store at any time: each job is whole, counts equal the list, the
/// usage equals the call log, and every completed job has its answer and exactly one answered call.
fn assert_consistent(store: &RedbStore) {
    let found = store.check(10).unwrap();
    assert_eq!(found, Findings::default());
    let was_pruned = calls_were_pruned(store);
    let page = store.jobs(&JobFilter::default(), None, usize::MAX).unwrap();
    let mut counts = StatusCounts::default();
    for record in &page.jobs {
        counts.moved(None, record.job.status);
        let completed = record.job.status == JobStatus::Completed;
        let whole = !record.job.bodies_pruned;
        assert_eq!(record.response.is_some(), completed && whole);
        assert_eq!(record.request.is_some(), whole, "{:?}", record.job);
        let twin = store
            .job(record.job.id)
            .unwrap()
            .expect("the job by its id");
        assert_eq!(format!("{:?}", twin.job), format!("{:?}", record.job));
        assert_eq!(bodies(&twin), bodies(record));
        let calls = CallFilter {
            job_id: Some(record.job.id),
            ..CallFilter::default()
        };
        let calls = store.calls(&calls, None, usize::MAX).unwrap().calls;
        let answered = calls.iter().filter(|c| c.failure.is_none()).count();
        let may_be_pruned = answered == 0 && was_pruned;
        assert!(answered == usize::from(completed) || may_be_pruned);
    }
    assert_eq!(page.total, counts.total());
    assert_eq!(store.counts().unwrap(), counts);
    let recovered = store.recover().unwrap();
    let live = (recovered.waiting.len() + recovered.open.len()) as u64;
    assert_eq!(live, counts.pending + counts.processing);

    assert_chains_hold(&page.jobs);

    let all = CallFilter::default();
    let unresolved = CallFilter {
        billing_open: true,
        ..CallFilter::default()
    };
    let calls = store.calls(&all, None, usize::MAX).unwrap().calls;
    let open = store.calls(&unresolved, None, usize::MAX).unwrap().calls;
    assert!(calls.iter().filter(|c| c.is_billing_open()).eq(&open));
    let mut sums = BTreeMap::new();
    for call in &calls {
        let key = UsageKey::of(call);
        let sum = sums.entry(key.clone());
        sum.or_insert_with(|| UsageRow::empty(key)).add(call);
    }
    let usage = store.usage(&UsageFilter::default()).unwrap();
    if !was_pruned {
        assert_eq!(usage, sums.into_values().collect::<Vec<_>>());
    }
    assert_deliveries_are_due(store);
}

/// Checks that exactly the pending deliveries are found when everything is due.
fn assert_deliveries_are_due(store: &impl Store) {
    let pending = DeliveryFilter {
        status: Some(DeliveryStatus::Pending),
        ..DeliveryFilter::default()
    };
    let pending = store.deliveries(&pending, None, usize::MAX).unwrap();
    let pending: BTreeSet<DeliveryId> = pending.deliveries.iter().map(|d| d.id).collect();
    let everything = everything_due(store);
    let due = store.deliveries_due(&everything).unwrap().due;
    assert_eq!(due.iter().map(|d| d.id).collect::<BTreeSet<_>>(), pending);
    assert_eq!(due.len(), pending.len());
}

/// Asks for all that is pending, whoever receives it.
fn everything_due(store: &impl Store) -> DueQuery {
    let all = store.deliveries(&DeliveryFilter::default(), None, usize::MAX);
    let destinations = all.unwrap().deliveries.into_iter().flat_map(|row| {
        let receiver = row.target.receiver();
        [receiver.destination(), receiver.destination_by_hand()]
    });
    DueQuery {
        now: Timestamp::from_millis(i64::MAX),
        room: destinations
            .map(|destination| (destination, usize::MAX))
            .collect(),
        hosts: usize::MAX,
        limit: usize::MAX,
        ..DueQuery::default()
    }
}

/// Whether the call log has lost rows: then it is not what the usage counted any more.
fn calls_were_pruned(store: &RedbStore) -> bool {
    let counters = store.read(|snapshot| {
        let meta = snapshot.open_table(schema::META)?;
        let row = meta.get(schema::meta::COUNTERS)?.expect("the counters");
        schema::decode::<schema::Counters>("meta", row.value())
    });
    counters.unwrap().calls_pruned_until.is_some()
}

fn bodies(record: &JobRecord) -> (&str, Option<&str>) {
    let request = match record.request.as_deref() {
        Some(Request::Prompt(text)) => text.as_str(),
        Some(Request::Body(_, body)) => body.get(),
        None => "",
    };
    (request, record.response.as_ref().map(|body| body.get()))
}

/// Checks that whoever waits for others waits for jobs that may still be completed, and which know
/// that somebody waits.
fn assert_chains_hold(jobs: &[JobRecord]) {
    let by_id: BTreeMap<JobId, &Job> = jobs.iter().map(|r| (r.job.id, &r.job)).collect();
    for job in by_id.values() {
        assert!(!(job.status.is_terminal() && job.has_dependents), "{job:?}");
        assert!(job.waits_for.iter().all(|id| job.after.contains(id)));
        if job.status != JobStatus::Pending {
            assert!(job.status.is_terminal() || job.waits_for.is_empty());
            continue;
        }
        for other in &job.waits_for {
            let other = by_id[other];
            assert!(!other.status.is_terminal(), "{job:?} waits for {other:?}");
            assert!(other.has_dependents, "{other:?}");
        }
    }
}

/// Writes a row of a store that is closed, behind the store's back.
fn write_row<'k, K: RowKey>(
    path: &Path,
    table: Table<K, &'static [u8]>,
    key: impl Borrow<K::SelfType<'k>>,
    row: &[u8],
) {
    let file = std::fs::File::options().read(true).write(true).open(path);
    let backend = redb::backends::FileBackend::new(file.unwrap()).unwrap();
    let parts = parts::open(backend, options().cache_bytes, Occasion::Reopen).unwrap();
    let transaction = parts.tables.begin_write().unwrap();
    transaction
        .open_table(table.definition)
        .unwrap()
        .insert(key, row)
        .unwrap();
    transaction.commit().unwrap();
}

#[test]
fn usage_is_told_without_a_look_at_the_call_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("onelane.redb");
    let store = open(&path);
    let life = [sample::insert(1), sample::start(1), sample::complete(1, 1)];
    store.commit(&life).unwrap();
    drop(store);
    write_row(&path, schema::CALLS, 1, b"not a call");
    let store = open(&path);
    assert!(store.calls(&CallFilter::default(), None, 1).is_err());
    let usage = store.usage(&UsageFilter::default()).unwrap();
    assert_eq!(usage[0].successes, 1);
}

#[test]
fn a_batch_that_changes_nothing_does_not_touch_the_disk() {
    let disk = disk::Disk::default();
    let store = disk.open().unwrap();
    store.commit(&[sample::insert(1)]).unwrap();
    let before = disk.operations();
    let decisions = store.commit(&[sample::complete(1, 1), sample::insert(1)]);
    assert_eq!(decisions.unwrap().len(), 2);
    assert_eq!(disk.operations(), before);
}

#[test]
fn many_waiting_jobs_are_read_in_two_parts_as_they_would_be_in_one() {
    let open = place();
    let store = open();
    let insert: Vec<Transition> = (1..=400).map(sample::insert).collect();
    store.commit(&insert).unwrap();
    // Some are gone, one has an open attempt, and what is committed last is in the journal alone.
    let cancel = |n| sample::cancel(n, sample::START);
    let gone = (1..=400).filter(|n| n % 3 == 0).map(cancel);
    store.commit(&gone.collect::<Vec<_>>()).unwrap();
    store.commit(&[sample::stage(200)]).unwrap();
    let recovered = store.recover().unwrap();
    let waiting: Vec<_> = recovered.waiting.iter().map(|e| (e.id, e.seq)).collect();
    let want = (1..=400).filter(|n| n % 3 != 0 && *n != 200);
    assert_eq!(
        waiting,
        want.map(|n| (job_id(n), Seq(n))).collect::<Vec<_>>()
    );
    let open: Vec<JobId> = recovered.open.iter().map(|job| job.id).collect();
    assert_eq!(open, [job_id(200)]);
}

#[cfg(unix)]
#[test]
fn the_file_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("onelane.redb");
    let store = open(&path);
    store.commit(&[sample::insert(1)]).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn reads_see_one_moment_while_commits_go_on() {
    let open = place();
    let store = open();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 1..=60 {
                let life = [sample::insert(n), sample::start(n), sample::complete(n, 1)];
                store.commit(&life).unwrap();
            }
        });
        while !writer.is_finished() {
            let page = store.jobs(&JobFilter::default(), None, 5).unwrap();
            let newest = page.jobs.first().map_or(0, |r| r.job.seq.0);
            assert_eq!(page.total, newest, "count and list are of one moment");
        }
    });
    assert_eq!(store.counts().unwrap().completed, 60);
    assert!(store.job(job_id(60)).unwrap().is_some());
    assert_consistent(&store);
}

#[test]
fn a_change_of_many_looks_at_each_place_once() {
    const JOBS: u64 = 600;
    let open = place();
    let store = open();
    let inserts: Vec<_> = (1..=JOBS).map(sample::insert).collect();
    store.commit(&inserts).unwrap();
    let mut filter = JobFilter {
        user_id: Some("ada".to_owned()),
        ..JobFilter::default()
    };
    filter.more.priority_max = Some(0);
    let looked_at = || read::LOOKED_AT.with(std::cell::Cell::get);
    let before = looked_at();
    let (mut places, mut cursor, mut rounds) = (Vec::new(), None, 0);
    loop {
        let found = store.job_places(&filter, cursor, 50).unwrap();
        places.extend(found.places);
        rounds += 1;
        cursor = found.cursor;
        if cursor.is_none() {
            break;
        }
    }
    let want: Vec<_> = (1..=JOBS).rev().map(|n| (Seq(n), job_id(n))).collect();
    assert_eq!((places, rounds), (want, 12));
    // One more a round says that there is more, and the last says that there is not.
    assert_eq!(looked_at() - before, JOBS + 12);
}
