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
        let insert = sample::insert_with(n, |new| new.job.idempotency_key = Some(n.to_string()));
        let life = [insert, sample::start(n), sample::complete(n, 1)];
        store.commit(&life).unwrap();
    }
}

#[test]
fn a_row_that_can_t_be_read_is_passed_over_and_keeps_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("onelane.redb");
    with_ended_jobs(&open(&path));
    let broken = b"[1,{".as_slice();
    write_row(&path, schema::JOBS, job_id(1).as_bytes(), broken);
    write_row(&path, schema::CALLS, 2, b"[9,{}]");
    let key = schema::idempotency_key("ada", "3");
    write_row(&path, schema::IDEMPOTENCY, &key, broken);

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
fn requests_that_can_t_be_read_keep_no_job() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("onelane.redb");
    with_ended_jobs(&open(&path));
    write_row(&path, schema::REQUESTS, 1, b"[1,[1,9],{");
    let store = open(&path);
    let pruned = prune(&store, step(Timestamp::from_millis(i64::MAX)));
    assert_eq!((pruned.jobs, pruned.unreadable), (3, vec![]));
    assert_eq!(store.counts().unwrap().total(), 0);
}

#[test]
fn a_pruning_of_nothing_begins_no_transaction() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    with_ended_jobs(&store);
    let (told, answer) = mpsc::channel();
    std::thread::scope(|scope| {
        let database = store.database();
        let Some(Opened::Whole(whole)) = &*database else {
            panic!("a store")
        };
        let writing = whole.begin_write().unwrap();
        scope.spawn(|| told.send(prune(&store, step(sample::START))));
        let pruned = answer.recv_timeout(Duration::from_secs(20));
        drop(writing);
        assert_eq!(pruned, Ok(Pruned::default()));
    });
}
