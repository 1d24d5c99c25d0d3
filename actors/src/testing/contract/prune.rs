//! Retention: what goes, what stays whatever is asked, and that the sums stay as they are.

use super::*;
use onelane_core::model::{Cutoff, Prune, PruneCursor, Pruned};

const HOUR_MS: u64 = 3_600_000;

/// A step that takes nothing and looks at everything.
pub(super) fn nothing() -> Prune {
    Prune {
        calls: Cutoff::default(),
        jobs: Cutoff::default(),
        failed: Cutoff::default(),
        bodies_before: None,
        rows_max: 1_000,
        bytes_max: u64::MAX,
        from: PruneCursor::default(),
    }
}

pub(super) fn hour(hours: u64) -> Timestamp {
    sample::START.plus_ms(hours * HOUR_MS)
}

pub(super) fn before(moment: Timestamp) -> Cutoff {
    Cutoff {
        before: Some(moment),
        ..Cutoff::default()
    }
}

pub(super) fn most(rows: u64) -> Cutoff {
    Cutoff {
        most: Some(rows),
        settled: hour(99),
        now: hour(99),
        ..Cutoff::default()
    }
}

pub(super) fn prune(store: &impl Store, step: Prune) -> Pruned {
    match done(store, &[Transition::Prune(Box::new(step))]).remove(0) {
        Applied::Pruned(pruned) => pruned,
        other => panic!("a pruning, not {other:?}"),
    }
}

/// Job `n` from submission to answer, in hour `n`.
pub(super) fn life(n: u64) -> [Transition; 3] {
    let Transition::Settle(mut settlement) = sample::complete(n, 1) else {
        unreachable!()
    };
    settlement.call.ended_at = hour(n);
    [
        sample::insert(n),
        sample::start(n),
        Transition::Settle(settlement),
    ]
}

/// Those of jobs 1 to 9 that are there.
pub(super) fn jobs_left(store: &impl Store) -> Vec<u64> {
    let left: Vec<u64> = (1..=9)
        .filter(|n| store.job(job_id(*n)).unwrap().is_some())
        .collect();
    let page = store.jobs(&JobFilter::default(), None, 100).unwrap();
    assert_eq!(page.total, left.len() as u64);
    assert_eq!(store.counts().unwrap().total(), page.total);
    left
}

/// The jobs of the calls that are in the log, oldest call first.
pub(super) fn calls_left(store: &impl Store) -> Vec<u64> {
    let page = store.calls(&CallFilter::default(), None, 100).unwrap();
    let number = |call: &onelane_core::model::CallRecord| u64::from(call.job_id.as_bytes()[15]);
    page.calls.iter().rev().map(number).collect()
}

/// Jobs go by the moment they ended, not by submission; what is younger stays, also when reopened.
pub fn finished_jobs_are_pruned_by_age<S: Store>(open: Open<'_, S>) {
    let store = open();
    // Submitted first, done last.
    done(&store, &[sample::insert(9)]);
    for n in 1..=4 {
        done(&store, &life(n));
    }
    done(&store, &life(9)[1..]);
    let usage = store.usage(&UsageFilter::default()).unwrap();
    let pruned = prune(
        &store,
        Prune {
            jobs: before(hour(3)),
            ..nothing()
        },
    );
    let want = Pruned {
        jobs: 2,
        ..Pruned::default()
    };
    assert_eq!(pruned, want);
    drop(store);
    let store = open();
    assert_eq!(jobs_left(&store), [3, 4, 9]);
    assert_eq!(calls_left(&store), [1, 2, 3, 4, 9], "the log has its own");
    assert_eq!(store.usage(&UsageFilter::default()).unwrap(), usage);
    assert_eq!(store.counts().unwrap().completed, 3);
}

/// The oldest of too many go, whatever their status, and as many as are too many.
pub fn finished_jobs_are_pruned_by_number<S: Store>(open: Open<'_, S>) {
    let store = open();
    for n in 1..=3 {
        done(&store, &life(n));
    }
    done(&store, &given_up(4));
    done(&store, &[sample::insert(5), sample::insert(6)]);
    let step = |jobs| Prune { jobs, ..nothing() };
    assert_eq!(prune(&store, step(most(2))).jobs, 2);
    assert_eq!(jobs_left(&store), [3, 4, 5, 6], "what waits is not counted");
    let settled = hour(3);
    let just_ended = Cutoff { settled, ..most(1) };
    assert_eq!(prune(&store, step(just_ended)).jobs, 0);
    assert_eq!(prune(&store, step(most(1))).jobs, 1);
    assert_eq!(jobs_left(&store), [4, 5, 6]);
}

/// The log loses its oldest rows and no sum; places in it are not given again.
pub fn the_call_log_is_pruned_and_the_usage_stays<S: Store>(open: Open<'_, S>) {
    let store = open();
    for n in 1..=5 {
        done(&store, &life(n));
    }
    let usage = store.usage(&UsageFilter::default()).unwrap();
    let last = store.calls(&CallFilter::default(), None, 1).unwrap().calls[0].seq;
    let step = |calls| Prune { calls, ..nothing() };
    assert_eq!(prune(&store, step(before(hour(3)))).calls, 2);
    assert_eq!(calls_left(&store), [3, 4, 5]);
    assert_eq!(prune(&store, step(most(2))).calls, 1);
    assert_eq!(calls_left(&store), [4, 5]);
    assert_eq!(prune(&store, step(before(hour(9)))).calls, 2);
    drop(store);
    let store = open();
    assert_eq!(store.usage(&UsageFilter::default()).unwrap(), usage);
    assert_eq!(jobs_left(&store), [1, 2, 3, 4, 5]);
    let of_job = CallFilter {
        job_id: Some(job_id(1)),
        ..CallFilter::default()
    };
    assert!(store.calls(&of_job, None, 9).unwrap().calls.is_empty());
    done(&store, &life(6));
    let page = store.calls(&CallFilter::default(), None, 9).unwrap();
    assert_eq!(page.calls.len(), 1);
    assert!(page.calls[0].seq > last, "a place is given once");
    assert_eq!(store.usage(&UsageFilter::default()).unwrap()[0].calls, 6);
}

/// Job `n` given up in hour `n`.
fn given_up(n: u64) -> [Transition; 2] {
    [sample::insert(n), sample::cancel(n, hour(n))]
}

/// Requests and responses go before their jobs; such a job says so and can't be retried.
pub fn bodies_are_pruned_and_their_jobs_stay<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &life(1));
    done(&store, &given_up(2));
    done(&store, &life(3));
    let bodies = Prune {
        bodies_before: Some(hour(3)),
        ..nothing()
    };
    let pruned = prune(&store, bodies);
    assert_eq!((pruned.bodies, pruned.jobs), (2, 0));
    let commits = everything(&store);
    assert_eq!(prune(&store, bodies), Pruned::default(), "once is enough");
    assert_eq!(everything(&store), commits);
    drop(store);

    let store = open();
    for (n, kept) in [(1, false), (2, false), (3, true)] {
        let record = store.job(job_id(n)).unwrap().unwrap();
        assert_eq!(record.job.bodies_pruned, !kept, "job {n}");
        assert_eq!(record.request.is_some(), kept, "job {n}");
        assert_eq!(record.response.is_some(), kept, "job {n}");
    }
    assert_eq!(store.jobs(&JobFilter::default(), None, 9).unwrap().total, 3);
    assert_eq!(refused(&store, requeue(2)), Refusal::RequestPruned);
    // With or without bodies, jobs go in the order in which they ended.
    let jobs = Prune {
        jobs: most(1),
        ..nothing()
    };
    assert_eq!(prune(&store, jobs).jobs, 2);
    assert_eq!(jobs_left(&store), [3]);
}

/// What is asked to be forgotten goes at once, and nothing that has not ended; what it cost stays.
pub fn what_is_forgotten_leaves_its_account<S: Store>(open: Open<'_, S>) {
    let store = open();
    let forget = |n| Transition::Forget { job_id: job_id(n) };
    done(&store, &life(1));
    done(&store, &[sample::insert(2)]);
    let usage = store.usage(&UsageFilter::default()).unwrap();
    let waits = Refusal::WrongStatus(JobStatus::Pending);
    assert_eq!(refused(&store, forget(2)), waits);
    assert_eq!(refused(&store, forget(9)), Refusal::NotFound);
    for _ in 0..2 {
        done(&store, &[forget(1)]);
    }
    drop(store);

    let store = open();
    let record = store.job(job_id(1)).unwrap().unwrap();
    assert!(record.job.bodies_pruned && record.job.status == JobStatus::Completed);
    assert!(record.request.is_none() && record.response.is_none());
    assert_eq!(store.usage(&UsageFilter::default()).unwrap(), usage);
    assert!(store.job(job_id(2)).unwrap().unwrap().request.is_some());
}

/// What waits, runs, is waited for, or may have been billed is never pruned.
pub fn what_is_not_over_is_never_pruned<S: Store>(open: Open<'_, S>) {
    let store = open();
    let everything_goes = Prune {
        calls: before(hour(99)),
        jobs: before(hour(99)),
        bodies_before: Some(hour(99)),
        ..nothing()
    };
    done(&store, &[1, 2, 3, 4, 5].map(sample::insert));
    done(&store, &[sample::start(2), sample::stage(3)]);
    done(&store, &[sample::insert_after(6, &[1])]);
    // Maybe billed, and given up.
    done(&store, &[sample::start(4), sample::parked(4, 1)]);
    done(&store, &[cancel(4)]);
    // Put back in line: not over any more.
    done(&store, &[sample::start(5), sample::fail(5, 1), requeue(5)]);
    let pruned = prune(&store, everything_goes);
    assert_eq!((pruned.jobs, pruned.calls, pruned.bodies), (0, 1, 1));
    assert_eq!(jobs_left(&store), [1, 2, 3, 4, 5, 6]);
    assert_eq!(calls_left(&store), [4]);
    done(&store, &[sample::resolve(4, 1, sample::billed(7))]);
    let pruned = prune(&store, everything_goes);
    assert_eq!((pruned.jobs, pruned.calls), (1, 1));
    drop(store);
    let store = open();
    assert_eq!(jobs_left(&store), [1, 2, 3, 5, 6]);
    assert_eq!(store.recover().unwrap().waiting.len(), 3);
    // Who waits for another and ends by himself may go; the other still ends well.
    done(&store, &[cancel(6)]);
    assert_eq!(prune(&store, everything_goes).jobs, 1);
    done(&store, &[sample::start(1), sample::complete(1, 1)]);
    assert_eq!(prune(&store, everything_goes).jobs, 1);
    assert_eq!(jobs_left(&store), [2, 3, 5]);
}

/// A step looks at a bounded number of rows, and says where the next goes on, past what stays.
pub fn a_pruning_goes_on_where_its_last_step_ended<S: Store>(open: Open<'_, S>) {
    let store = open();
    // Two that stay, in front of all others.
    for n in [1, 2] {
        done(&store, &[sample::insert(n), sample::start(n)]);
        done(&store, &[sample::parked(n, 1), cancel(n)]);
    }
    for n in 3..=9 {
        done(&store, &life(n));
    }
    let mut step = Prune {
        calls: before(hour(8)),
        jobs: before(hour(8)),
        rows_max: 3,
        ..nothing()
    };
    let (mut jobs, mut calls, mut steps) = (0, 0, 0);
    loop {
        let pruned = prune(&store, step);
        assert!(pruned.jobs + pruned.calls <= 3);
        jobs += pruned.jobs;
        calls += pruned.calls;
        steps += 1;
        assert!(steps < 20, "it ends");
        match pruned.next {
            Some(next) => step.from = next,
            None => break,
        }
    }
    assert_eq!((jobs, calls), (5, 5));
    assert_eq!(jobs_left(&store), [1, 2, 8, 9]);
    assert_eq!(calls_left(&store), [1, 2, 8, 9]);
}

/// The key of a job that is gone belongs to nobody.
pub fn the_key_of_a_pruned_job_is_free<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[submit(keyed(1, "k", "hi"))]);
    done(&store, &[sample::start(1), sample::complete(1, 1)]);
    let jobs = Prune {
        jobs: before(hour(1)),
        ..nothing()
    };
    assert_eq!(prune(&store, jobs).jobs, 1);
    drop(store);
    let store = open();
    let applied = done(&store, &[submit(keyed(2, "k", "something else"))]);
    assert!(matches!(&applied[0], Applied::Inserted(job) if job.id == job_id(2)));
    // The one that has it now keeps it when another with the same key, long gone, is pruned again.
    assert_eq!(prune(&store, jobs).jobs, 0);
    let again = done(&store, &[submit(keyed(3, "k", "something else"))]);
    assert!(matches!(&again[0], Applied::Existing(job) if job.id == job_id(2)));
}

/// A pruning sees what the changes before it in its batch have left, and they it.
pub fn a_pruning_takes_its_place_in_a_batch<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &life(1));
    let [insert, start, complete] = life(2);
    let step = Transition::Prune(Box::new(Prune {
        jobs: before(hour(3)),
        calls: before(hour(3)),
        ..nothing()
    }));
    let batch = [insert, start, complete, step, requeue(1), sample::insert(3)];
    let decisions = commit(&store, &batch);
    let Ok(Applied::Pruned(pruned)) = &decisions[3] else {
        panic!("{decisions:?}")
    };
    assert_eq!((pruned.jobs, pruned.calls), (2, 2));
    assert_eq!(*decisions[4].as_ref().unwrap_err(), Refusal::NotFound);
    drop(store);
    let store = open();
    assert_eq!(jobs_left(&store), [3]);
    assert_eq!(store.usage(&UsageFilter::default()).unwrap()[0].calls, 2);
}
