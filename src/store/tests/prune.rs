//! Retention on a real file. Guards: one damaged row that keeps all others, a look that costs a
//! transaction.

use std::sync::mpsc;
use std::time::Duration;

use onelane_actors::testing::sample;
use onelane_core::model::{Applied, Cutoff, PruneCursor, Pruned, Unreadable};

use super::disk::Disk;
use super::*;
use crate::model::limits;

fn step(before: Timestamp) -> Prune {
    let cut = Cutoff {
        before: Some(before),
        now: before,
        ..Cutoff::default()
    };
    Prune {
        calls: cut,
        jobs: cut,
        failed: cut,
        bodies_before: Some(before),
        rows_max: 100,
        bytes_max: limits::PRUNE_BYTES_MAX,
        from: PruneCursor::default(),
    }
}

fn prune(store: &impl Store, step: Prune) -> Pruned {
    let decisions = store.commit(&[Transition::Prune(Box::new(step))]);
    match decisions.unwrap().remove(0) {
        Ok(Applied::Pruned(pruned)) => pruned,
        other => panic!("a pruning, not {other:?}"),
    }
}

fn with_ended_jobs(store: &RedbStore) {
    for n in 1..=3 {
        let mut new = sample::new_job(n);
        new.job.idempotency_key = Some(n.to_string());
        let insert = Transition::Insert(Box::new(new));
        let life = [insert, sample::start(n), sample::complete(n, 1)];
        store.commit(&life).unwrap();
    }
}

#[test]
fn a_row_that_can_t_be_read_is_passed_over_and_keeps_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("onelane.redb");
    with_ended_jobs(&open(&path));
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let broken = b"[1,{".as_slice();
    transaction
        .open_table(schema::JOBS)
        .unwrap()
        .insert(job_id(1).as_bytes(), broken)
        .unwrap();
    transaction
        .open_table(schema::CALLS)
        .unwrap()
        .insert(2, b"[9,{}]".as_slice())
        .unwrap();
    transaction
        .open_table(schema::IDEMPOTENCY)
        .unwrap()
        .insert(&schema::idempotency_key("ada", "3"), broken)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);

    let store = open(&path);
    let pruned = prune(&store, step(Timestamp::from_millis(i64::MAX)));
    assert_eq!((pruned.jobs, pruned.calls, pruned.bodies), (2, 2, 0));
    let unreadable = [Unreadable::Job(job_id(1)), Unreadable::Call(2)];
    assert_eq!(pruned.unreadable, unreadable);
    // In the way of nobody from now on, and the step is one that can be made again.
    let again = prune(&store, step(Timestamp::from_millis(i64::MAX)));
    assert_eq!((again.is_nothing(), again.next), (true, None));
    store.commit(&[sample::insert(9)]).unwrap();
}

#[test]
fn a_pruning_of_nothing_begins_no_transaction() {
    let disk = Disk::default();
    let store = disk.open(false).unwrap();
    with_ended_jobs(&store);
    let (told, answer) = mpsc::channel();
    std::thread::scope(|scope| {
        let database = store.database();
        let writing = open_of(&database).unwrap().begin_write().unwrap();
        scope.spawn(|| told.send(prune(&store, step(sample::START))));
        let pruned = answer.recv_timeout(Duration::from_secs(20));
        drop(writing);
        assert_eq!(pruned, Ok(Pruned::default()));
    });
}

#[test]
fn a_store_of_version_3_knows_afterwards_what_may_go() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("onelane.redb");
    let store = open(&path);
    with_ended_jobs(&store);
    let mut told = sample::new_job(4);
    told.job.callback_url = Some("https://example.com/hook".to_owned());
    let cancel = |n| Transition::Cancel {
        job_id: job_id(n),
        at: sample::START,
    };
    let more = [
        Transition::Insert(Box::new(told)),
        cancel(4),
        sample::insert(5),
        sample::start(5),
        sample::fail(5, 1),
        sample::insert(6),
        sample::start(6),
        sample::parked(6, 1),
        cancel(6),
    ];
    store.commit(&more).unwrap();
    let places: Vec<_> = (1..=6)
        .map(|n| store.job(job_id(n)).unwrap().unwrap().job)
        .collect();
    drop(store);
    // As version 3 had it: all that ended in one table, and no word of deliveries.
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.delete_table(schema::DEAD_LETTERS).unwrap();
    transaction.delete_table(schema::IN_DOUBT).unwrap();
    transaction.delete_table(schema::DELIVERIES_OPEN).unwrap();
    let mut finished = transaction.open_table(schema::FINISHED).unwrap();
    for job in &places {
        let key = schema::finished_key_of(job).unwrap();
        finished.insert(&key, job.id.as_bytes()).unwrap();
    }
    drop(finished);
    transaction
        .open_table(schema::META)
        .unwrap()
        .insert(schema::meta::VERSION, b"3".as_slice())
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert_consistent(&open(&path));
}
