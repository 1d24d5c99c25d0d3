//! Jobs that run after other jobs.

use std::sync::Arc;

use super::*;
use onelane_core::model::{FailureClass, JobId, Phase, code};

fn chain(applied: &Applied) -> (&Job, Vec<JobId>) {
    match applied {
        Applied::Chain { job, others } => (job, others.iter().map(|other| other.id).collect()),
        other => panic!("a chain, not {other:?}"),
    }
}

fn dormant(store: &impl Store) -> Vec<JobId> {
    let waiting = store.recover().unwrap().waiting;
    let dormant = waiting.iter().filter(|entry| entry.dormant);
    dormant.map(|entry| entry.id).collect()
}

fn waits_for(store: &impl Store, n: u64) -> Vec<JobId> {
    job(store, n).waits_for
}

/// A job waits for all that it names, however often it names one, and is free with the last.
pub fn a_job_waits_for_all_that_it_runs_after<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[1, 2].map(sample::insert));
    let applied = done(&store, &[sample::insert_after(3, &[2, 1, 2])]);
    assert!(matches!(&applied[0], Applied::Inserted(job) if job.phase() == Phase::Blocked));
    assert_eq!(waits_for(&store, 3), [2, 1].map(job_id));
    assert_eq!(dormant(&store), [job_id(3)]);
    let applied = done(&store, &[sample::start(1), sample::complete(1, 1)]);
    // Not free yet: there is nothing to tell.
    assert!(matches!(&applied[1], Applied::Job(_)), "{applied:?}");
    assert_eq!(waits_for(&store, 3), [job_id(2)]);
    drop(store);

    let store = open();
    assert_eq!(dormant(&store), [job_id(3)]);
    let applied = done(&store, &[sample::start(2), sample::complete(2, 1)]);
    let Applied::Chain { job: ended, others } = &applied[1] else {
        panic!("{applied:?}")
    };
    assert_eq!((ended.id, ended.status), (job_id(2), JobStatus::Completed));
    assert_eq!(format!("{others:?}"), format!("{:?}", [job(&store, 3)]));
    assert_eq!(others[0].phase(), Phase::Waiting);
    assert_eq!(others[0].after, [2, 1, 2].map(job_id));
    assert!(dormant(&store).is_empty());
    drop(store);
    let store = open();
    assert!(dormant(&store).is_empty());
    done(&store, &[sample::start(3), sample::complete(3, 1)]);
}

/// Who runs after completed jobs waits for nobody.
pub fn a_job_after_completed_ones_is_free_at_once<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[sample::insert(1), sample::insert(2)]);
    done(&store, &[sample::start(1), sample::complete(1, 1)]);
    done(&store, &[sample::insert_after(3, &[1])]);
    done(&store, &[sample::insert_after(4, &[1, 2])]);
    assert_eq!(dormant(&store), [job_id(4)]);
    assert_eq!(job(&store, 3).phase(), Phase::Waiting);
    assert_eq!(waits_for(&store, 4), [job_id(2)]);
    done(&store, &[sample::start(3), sample::complete(3, 1)]);
}

/// A job after one that is not there, such as itself, or that has ended otherwise, is not taken. But
/// asking again for one that was taken is answered.
pub fn a_job_after_what_will_not_be_completed_is_refused<S: Store>(open: Open<'_, S>) {
    let store = open();
    let keyed = || {
        let Transition::Insert(mut new) = sample::insert_after(4, &[1]) else {
            unreachable!()
        };
        Arc::make_mut(&mut new).job.idempotency_key = Some("k".to_owned());
        Transition::Insert(new)
    };
    done(&store, &[1, 2, 3].map(sample::insert));
    done(&store, &[keyed()]);
    done(&store, &[sample::start(1), sample::fail(1, 1), cancel(2)]);
    let before = everything(&store);
    let check = |others: &[u64], want: Refusal| {
        assert_eq!(refused(&store, sample::insert_after(9, others)), want);
        assert_eq!(everything(&store), before);
    };
    let ended = |n, status| Refusal::DependencyEnded {
        job_id: job_id(n),
        status,
    };
    check(&[3, 1], ended(1, JobStatus::Failed));
    check(&[2], ended(2, JobStatus::Cancelled));
    check(&[3, 8], Refusal::NoSuchDependency(job_id(8)));
    check(&[9], Refusal::NoSuchDependency(job_id(9)));
    let applied = done(&store, &[keyed()]);
    assert!(matches!(&applied[0], Applied::Existing(job) if job.id == job_id(4)));
    assert_eq!(everything(&store), before);
    // Nothing of what was refused is found by those it named.
    let applied = done(&store, &[sample::start(3), sample::complete(3, 1)]);
    assert!(matches!(&applied[1], Applied::Job(_)), "{applied:?}");
}

/// A batch may hold a chain and its end.
pub fn jobs_of_one_batch_may_run_after_each_other<S: Store>(open: Open<'_, S>) {
    let store = open();
    let decisions = commit(
        &store,
        &[
            sample::insert_after(2, &[1]),
            sample::insert(1),
            sample::insert_after(3, &[1]),
            sample::insert_after(4, &[1, 3]),
            sample::start(3),
            sample::start(1),
            sample::complete(1, 1),
            sample::start(3),
            sample::fail(3, 1),
        ],
    );
    let too_early = decisions[0].as_ref().unwrap_err();
    assert_eq!(*too_early, Refusal::NoSuchDependency(job_id(1)));
    let blocked = decisions[4].as_ref().unwrap_err();
    assert_eq!(*blocked, Refusal::WrongStatus(JobStatus::Pending));
    assert_eq!(chain(decisions[6].as_ref().unwrap()).1, [job_id(3)]);
    assert_eq!(chain(decisions[8].as_ref().unwrap()).1, [job_id(4)]);
    drop(store);
    let store = open();
    let counts = store.counts().unwrap();
    assert_eq!((counts.completed, counts.failed, counts.total()), (1, 2, 3));
    assert_eq!(job(&store, 4).error.unwrap().code, code::DEPENDENCY);
}

/// The end of a job ends those that wait for it, and those that wait for them: each once, as failed or
/// cancelled, in one transaction; no other job.
pub fn who_waits_ends_with_what_it_waits_for<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[1, 8].map(sample::insert));
    // 2 and 3 after 1, 4 after both, 5 after 4 and 8, 6 after 8 alone; 7 ends by itself before.
    done(
        &store,
        &[
            sample::insert_after(3, &[1]),
            sample::insert_after(2, &[1]),
            sample::insert_after(4, &[2, 3]),
            sample::insert_after(5, &[4, 8]),
            sample::insert_after(6, &[8]),
            sample::insert_after(7, &[1]),
            cancel(7),
        ],
    );
    drop(store);
    let store = open();
    let applied = done(&store, &[sample::start(1), sample::fail(1, 1)]);
    let (ended, others) = chain(&applied[1]);
    assert_eq!((ended.id, ended.status), (job_id(1), JobStatus::Failed));
    assert_eq!(others, [2, 3, 4, 5].map(job_id));
    let failed = job(&store, 4);
    assert_eq!(failed.processed_at, job(&store, 1).processed_at);
    let error = failed.error.unwrap();
    assert_eq!(error.code, code::DEPENDENCY);
    assert!(error.message.contains(&job_id(2).to_string()), "{error:?}");
    assert_eq!(job(&store, 7).status, JobStatus::Cancelled);
    assert_eq!(dormant(&store), [job_id(6)]);

    let applied = done(&store, &[cancel(8)]);
    assert_eq!(chain(&applied[0]).1, [job_id(6)]);
    let cancelled = job(&store, 6);
    assert_eq!(cancelled.status, JobStatus::Cancelled);
    let error = cancelled.error.unwrap();
    assert_eq!(error.code, code::DEPENDENCY);
    assert_eq!(error.class, FailureClass::RequestFatal);
    assert!(error.message.contains(&job_id(8).to_string()), "{error:?}");
    // Who was cancelled for its own sake has nothing to blame.
    assert_eq!(job(&store, 8).error, None);
    drop(store);
    let store = open();
    let counts = store.counts().unwrap();
    assert_eq!((counts.failed, counts.cancelled, counts.total()), (5, 3, 8));
    let failed = JobFilter {
        status: Some(JobStatus::Failed),
        ..JobFilter::default()
    };
    let page = store.jobs(&failed, None, 10).unwrap();
    assert_eq!((page.total, page.jobs.len()), (5, 5));
    assert!(store.recover().unwrap().waiting.is_empty());
}

/// A job that was given up before is as it was when what it would have waited for is completed.
pub fn who_was_given_up_is_not_freed_by_what_it_waited_for<S: Store>(open: Open<'_, S>) {
    let store = open();
    let waits = sample::insert_after(2, &[1]);
    done(&store, &[sample::insert(1), waits, cancel(2)]);
    let waited = waits_for(&store, 2);
    let applied = done(&store, &[sample::start(1), sample::complete(1, 1)]);
    assert!(matches!(&applied[1], Applied::Job(_)), "{applied:?}");
    assert_eq!(job(&store, 2).status, JobStatus::Cancelled);
    assert_eq!(waits_for(&store, 2), waited);
    drop(store);
    let counts = open().counts().unwrap();
    let ended = (counts.completed, counts.cancelled);
    assert_eq!((ended, counts.total()), ((1, 1), 2));
}

/// A job that waits for others can be given up and re-ordered, but not sent.
pub fn a_job_that_waits_for_others_is_not_sent<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[sample::insert(1), sample::insert_after(2, &[1])]);
    for sent in [sample::stage(2), sample::start(2)] {
        let refusal = refused(&store, sent);
        assert_eq!(refusal, Refusal::WrongStatus(JobStatus::Pending));
    }
    done(&store, &[reprioritise(2, 9)]);
    let entry = store.recover().unwrap().waiting.get(job_id(2)).unwrap();
    assert!(entry.dormant);
    assert_eq!(entry.priority, 9);
    done(&store, &[cancel(2)]);
    let applied = done(&store, &[sample::start(1), sample::complete(1, 1)]);
    assert!(matches!(&applied[1], Applied::Job(_)), "{applied:?}");
    assert_eq!(job(&store, 2).status, JobStatus::Cancelled);
    // What it waited for is completed by now.
    done(&store, &[requeue(2)]);
    assert_eq!(job(&store, 2).phase(), Phase::Waiting);
    done(&store, &[sample::start(2), sample::complete(2, 1)]);
}

/// A chain that failed is put back in line from its first job on; each waits for the one before.
pub fn a_chain_goes_back_in_line_from_its_beginning<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[1, 4].map(sample::insert));
    done(&store, &[sample::start(4), sample::complete(4, 1)]);
    done(
        &store,
        &[
            sample::insert_after(2, &[4, 1]),
            sample::insert_after(3, &[2]),
        ],
    );
    done(&store, &[sample::start(1), sample::fail(1, 1)]);
    let ended = |n| Refusal::DependencyEnded {
        job_id: job_id(n),
        status: JobStatus::Failed,
    };
    let before = everything(&store);
    assert_eq!(refused(&store, requeue(3)), ended(2));
    assert_eq!(refused(&store, requeue(2)), ended(1));
    assert_eq!(everything(&store), before);
    done(&store, &[requeue(1), requeue(2)]);
    drop(store);

    let store = open();
    let applied = done(&store, &[requeue(3)]);
    assert!(matches!(&applied[0], Applied::Job(job) if job.phase() == Phase::Blocked));
    assert_eq!(dormant(&store), [2, 3].map(job_id));
    let applied = done(&store, &[sample::start(1), sample::complete(1, 2)]);
    assert_eq!(chain(&applied[1]).1, [job_id(2)]);
    let applied = done(&store, &[sample::start(2), sample::complete(2, 1)]);
    assert_eq!(chain(&applied[1]).1, [job_id(3)]);
    done(&store, &[sample::start(3), sample::complete(3, 1)]);
    assert_eq!(store.counts().unwrap().completed, 4);
}

/// Ten thousand jobs end with the first of them: one after the other, and all after one.
pub fn a_long_chain_and_a_wide_one_end_in_one_transaction<S: Store>(open: Open<'_, S>) {
    const JOBS: u64 = 10_000;
    let store = open();
    let numbers = || 2..=JOBS;
    done(&store, &[sample::insert(1)]);
    let long: Vec<_> = numbers()
        .map(|n| sample::insert_after(n, &[n - 1]))
        .collect();
    done(&store, &long);
    let applied = done(&store, &[cancel(1)]);
    let in_order: Vec<JobId> = numbers().map(job_id).collect();
    assert_eq!(chain(&applied[0]).1, in_order);
    assert_eq!(store.counts().unwrap().cancelled, JOBS);

    let base = JOBS + 1;
    done(&store, &[sample::insert(base)]);
    let wide: Vec<_> = numbers()
        .map(|n| sample::insert_after(JOBS + n, &[base]))
        .collect();
    done(&store, &wide);
    assert_eq!(dormant(&store).len() as u64, JOBS - 1);
    let applied = done(&store, &[sample::start(base), sample::complete(base, 1)]);
    let in_order: Vec<JobId> = numbers().map(|n| job_id(JOBS + n)).collect();
    assert_eq!(chain(&applied[1]).1, in_order);
    assert!(dormant(&store).is_empty());
    assert_eq!(store.counts().unwrap().pending, JOBS - 1);
}
