//! Batches: counts that are those of their jobs at every moment.

use std::sync::Arc;

use super::super::sample::{self, START, job_id};
use super::prune::{before, nothing};
use super::{Open, done, job, refused};
use crate::ports::{JobFilter, MoreFilter, Store};
use onelane_core::model::{
    Applied, Batch, BatchId, BatchState, BatchStep, JobStatus, NewJob, Prune, Refusal,
    StatusCounts, Transition,
};

const ONE: BatchId = BatchId::new(1);
const TWO: BatchId = BatchId::new(2);

fn open(id: BatchId) -> Transition {
    Transition::OpenBatch(Box::new(Batch::new(id, format!("batch {id}"), START)))
}

fn step(id: BatchId, step: BatchStep) -> Transition {
    let at = START.plus_ms(9_000);
    Transition::Batch { id, step, at }
}

fn insert(n: u64, batch: BatchId) -> Transition {
    sample::insert_with(n, |new: &mut NewJob| {
        new.job.batch_id = Some(batch);
        new.job.idempotency_key = Some(format!("line {n}"));
    })
}

fn batch(store: &impl Store, id: BatchId) -> Batch {
    store.batch(id).unwrap().expect("the batch")
}

/// That each batch counts the jobs that it has, and every job.
fn assert_counts(store: &impl Store) {
    for batch in store.batches(None, 100).unwrap() {
        let mut counts = StatusCounts::default();
        for job in store.batch_jobs(Some(batch.id), None, 1_000).unwrap().0 {
            counts.moved(None, job.status);
        }
        assert_eq!(batch.counts, counts, "{}", batch.name);
    }
}

/// Whatever happens to a job, its batch counts it where it is.
pub fn a_batch_counts_its_jobs_in_the_transaction_that_changes_them<S: Store>(
    open_store: Open<'_, S>,
) {
    let store = open_store();
    done(
        &store,
        &[
            open(ONE),
            insert(1, ONE),
            insert(2, ONE),
            insert(3, ONE),
            sample::insert(4),
        ],
    );
    assert_eq!(batch(&store, ONE).counts.pending, 3);
    for change in [
        vec![sample::stage(1)],
        vec![sample::start(1)],
        vec![sample::retry(1, 1, None)],
        vec![sample::start(1), sample::complete(1, 2)],
        vec![sample::start(2), sample::fail(2, 1)],
        vec![sample::cancel(3, START.plus_ms(5))],
        vec![Transition::Requeue { job_id: job_id(2) }],
        vec![step(ONE, BatchStep::Close)],
        vec![sample::start(2), sample::complete(2, 2)],
    ] {
        done(&store, &change);
        assert_counts(&store);
    }
    let ended = batch(&store, ONE);
    assert_eq!((ended.counts.completed, ended.counts.cancelled), (2, 1));
    assert_eq!(ended.state, BatchState::Completed);
    assert!(ended.finished_at.is_some());
    drop(store);
    let store = open_store();
    assert_eq!(batch(&store, ONE), ended, "it outlives the process");
}

/// A batch has to be begun, and takes no jobs once it is closed.
pub fn a_job_of_a_batch_that_is_not_open_is_refused<S: Store>(open_store: Open<'_, S>) {
    let store = open_store();
    assert_eq!(refused(&store, insert(1, ONE)), Refusal::NoSuchBatch(ONE));
    assert_eq!(
        refused(&store, step(ONE, BatchStep::Close)),
        Refusal::NoSuchBatch(ONE)
    );
    done(
        &store,
        &[open(ONE), insert(1, ONE), step(ONE, BatchStep::Close)],
    );
    assert_eq!(refused(&store, insert(2, ONE)), Refusal::BatchClosed(ONE));
    assert!(matches!(
        &done(&store, &[insert(1, ONE)])[0],
        Applied::Existing(_)
    ));
    done(&store, &[open(ONE), insert(2, ONE)]);
    assert_eq!(batch(&store, ONE).counts.pending, 2);
}

/// A file that was moved is another batch, and its lines take their jobs with them.
pub fn a_job_that_is_submitted_to_another_batch_moves_there<S: Store>(open_store: Open<'_, S>) {
    let store = open_store();
    done(
        &store,
        &[open(ONE), insert(1, ONE), insert(2, ONE), open(TWO)],
    );
    let again = |n| match insert(n, TWO) {
        Transition::Insert(mut new) => {
            Arc::make_mut(&mut new).job.id = job_id(n + 100);
            Transition::Insert(new)
        }
        other => other,
    };
    let applied = done(&store, &[again(1)]);
    assert!(matches!(&applied[0], Applied::Adopted(job) if job.id == job_id(1)));
    assert_eq!(job(&store, 1).batch_id, Some(TWO));
    assert_eq!(
        (
            batch(&store, ONE).counts.pending,
            batch(&store, TWO).counts.pending
        ),
        (1, 1)
    );
    assert_counts(&store);
    done(&store, &[again(2)]);
    assert_eq!(store.batch(ONE).unwrap(), None, "nothing is left of it");
    assert_eq!(batch(&store, TWO).counts.pending, 2);
    let waiting = store.recover().unwrap().waiting;
    assert!(
        waiting.iter().all(|entry| entry.batch_id == Some(TWO)),
        "{waiting:?}"
    );
}

/// A file that was moved and one that was renamed: their jobs bring what their calls came to, and what was found out
/// of it later.
pub fn a_job_that_moves_to_another_batch_takes_its_costs_and_its_key_along<S: Store>(
    open_store: Open<'_, S>,
) {
    let store = open_store();
    done(
        &store,
        &[open(ONE), insert(1, ONE), insert(2, ONE), insert(3, ONE)],
    );
    for n in 1..=2 {
        done(&store, &[sample::start(n), sample::complete(n, 1)]);
    }
    let whole = batch(&store, ONE).costs;
    let nanos = |id| batch(&store, id).costs.iter().map(|c| c.nanos).sum::<i64>();
    let each = nanos(ONE) / 2;
    assert!(each > 0);
    done(&store, &[open(TWO)]);
    let adopt = |n: u64, key: &str| Transition::Adopt {
        job_id: job_id(n),
        batch: TWO,
        key: key.to_owned(),
    };
    let applied = done(&store, &[adopt(1, "renamed 1")]);
    assert!(matches!(&applied[0], Applied::Adopted(job) if job.id == job_id(1)));
    assert_eq!((nanos(ONE), nanos(TWO)), (each, each));
    assert_counts(&store);
    // Under its new key it is the same submission, and under its old one it is none any more.
    let again = |n, key: &str, id| match insert(n, id) {
        Transition::Insert(mut new) => {
            let job = &mut Arc::make_mut(&mut new).job;
            job.id = job_id(n + 100);
            job.idempotency_key = Some(key.to_owned());
            Transition::Insert(new)
        }
        other => other,
    };
    assert!(matches!(
        &done(&store, &[again(1, "renamed 1", TWO)])[0],
        Applied::Existing(job) if job.id == job_id(1)
    ));
    assert!(matches!(
        &done(&store, &[again(1, "line 1", ONE)])[0],
        Applied::Inserted(job) if job.id == job_id(101)
    ));
    done(&store, &[sample::cancel(101, START.plus_ms(1))]);
    // A key that another job has is not taken from it.
    assert_eq!(
        refused(&store, adopt(2, "renamed 1")),
        Refusal::IdempotencyConflict(job_id(1))
    );
    assert_eq!(
        refused(
            &store,
            Transition::Adopt {
                job_id: job_id(99),
                batch: TWO,
                key: "k".to_owned()
            }
        ),
        Refusal::NotFound
    );
    assert_eq!(
        (nanos(ONE), nanos(TWO)),
        (each, each),
        "nothing was written"
    );
    done(&store, &[adopt(2, "line 2"), adopt(3, "line 3")]);
    assert_eq!(batch(&store, TWO).costs, whole);
    assert_counts(&store);
    let other = Transition::Adopt {
        job_id: job_id(101),
        batch: TWO,
        key: "line 1".to_owned(),
    };
    done(&store, &[other]);
    assert_eq!(store.batch(ONE).unwrap(), None, "nothing is left of it");
    drop(store);
    let store = open_store();
    assert_eq!(batch(&store, TWO).costs, whole, "it outlives the process");
    assert_eq!(batch(&store, TWO).counts.completed, 2);
}

/// What of a batch was pruned, and what its calls came to, goes with the last of its jobs.
pub fn the_last_job_that_moves_takes_what_is_left_of_its_batch_along<S: Store>(
    open_store: Open<'_, S>,
) {
    let store = open_store();
    done(&store, &[open(ONE), insert(1, ONE), insert(2, ONE)]);
    done(&store, &[sample::start(1), sample::complete(1, 1)]);
    let whole = batch(&store, ONE).costs;
    let jobs = before(START.plus_ms(60_000));
    let pruned = super::prune::prune(&store, Prune { jobs, ..nothing() });
    assert_eq!(pruned.jobs, 1);
    done(
        &store,
        &[
            open(TWO),
            Transition::Adopt {
                job_id: job_id(2),
                batch: TWO,
                key: "renamed 2".to_owned(),
            },
        ],
    );
    assert_eq!(store.batch(ONE).unwrap(), None);
    let now = batch(&store, TWO);
    assert_eq!((now.costs, now.pruned, now.counts.pending), (whole, 1, 1));
}

/// Retention takes a batch with the last job of it.
pub fn a_batch_goes_with_the_last_of_its_jobs<S: Store>(open_store: Open<'_, S>) {
    let store = open_store();
    done(&store, &[open(ONE), insert(1, ONE), insert(2, ONE)]);
    done(&store, &[sample::start(1), sample::complete(1, 1)]);
    done(&store, &[step(ONE, BatchStep::Close)]);
    let prune = || {
        let jobs = before(START.plus_ms(60_000));
        super::prune::prune(&store, Prune { jobs, ..nothing() })
    };
    assert_eq!(prune().jobs, 1);
    let left = batch(&store, ONE);
    assert_eq!(
        (left.pruned, left.counts.completed, left.counts.pending),
        (1, 0, 1)
    );
    done(&store, &[sample::cancel(2, START.plus_ms(2_000))]);
    assert_eq!(batch(&store, ONE).state, BatchState::Completed);
    assert_eq!(prune().jobs, 1);
    assert_eq!(store.batch(ONE).unwrap(), None);
}

/// What other jobs cost is not a batch's.
pub fn what_calls_of_a_batch_came_to_is_its_own<S: Store>(open_store: Open<'_, S>) {
    let store = open_store();
    done(
        &store,
        &[open(ONE), insert(1, ONE), insert(2, ONE), sample::insert(3)],
    );
    for n in 1..=3 {
        done(&store, &[sample::start(n), sample::complete(n, 1)]);
    }
    let costs = batch(&store, ONE).costs;
    assert_eq!(
        costs.iter().map(|cost| cost.nanos).collect::<Vec<_>>(),
        [2_002]
    );
}

/// In the order of lists, without gap or double.
pub fn the_jobs_of_a_batch_are_listed_in_pages<S: Store>(open_store: Open<'_, S>) {
    let store = open_store();
    done(&store, &[open(ONE), open(TWO)]);
    for n in 1..=7 {
        done(&store, &[insert(n, if n % 3 == 0 { TWO } else { ONE })]);
    }
    done(&store, &[sample::start(4), sample::complete(4, 1)]);
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let (jobs, next) = store.batch_jobs(Some(ONE), cursor, 2).unwrap();
        found.extend(jobs.into_iter().map(|job| job.id));
        match next {
            Some(_) => cursor = next,
            None => break,
        }
    }
    done(&store, &[sample::insert(8)]);
    let (all, _) = store.batch_jobs(None, None, 100).unwrap();
    let all: Vec<_> = all.into_iter().map(|job| job.id).collect();
    assert_eq!(all, [7, 6, 5, 4, 3, 2, 1].map(job_id), "of every batch");
    assert_eq!(found, [7, 5, 4, 2, 1].map(job_id));
    let filter = JobFilter {
        status: Some(JobStatus::Pending),
        more: MoreFilter {
            batch_id: Some(TWO),
            ..MoreFilter::default()
        },
        ..JobFilter::default()
    };
    let page = store.jobs(&filter, None, 10).unwrap();
    let found: Vec<_> = page.jobs.iter().map(|record| record.job.id).collect();
    assert_eq!(found, [6, 3].map(job_id));
    let ids: Vec<_> = store
        .batches(None, 1)
        .unwrap()
        .iter()
        .map(|b| b.id)
        .collect();
    assert_eq!(ids, [ONE]);
    assert_eq!(store.batches(Some(ONE), 5).unwrap().len(), 1);
}
