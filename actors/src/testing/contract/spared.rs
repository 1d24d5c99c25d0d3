//! What retention leaves: dead letters, what is still to be told, what nobody can tell the cost of; and that
//! neither these nor a wrong clock stand in its way.

use std::sync::Arc;

use super::prune::{before, calls_left, hour, jobs_left, life, most, nothing, prune};
use super::*;
use onelane_core::model::{Cutoff, DeliveryChange, DeliveryId, Prune, Pruned, TryOutcome, Wait};

/// A failed job waits to be retried: it goes, whole, by its own age and number.
pub fn failed_jobs_have_a_retention_of_their_own<S: Store>(open: Open<'_, S>) {
    let store = open();
    for n in 1..=4 {
        done(&store, &[sample::insert(n), sample::start(n)]);
        let Transition::Settle(mut settlement) = sample::fail(n, 1) else {
            unreachable!()
        };
        settlement.call.ended_at = hour(n);
        done(&store, &[Transition::Settle(settlement)]);
    }
    done(&store, &life(5));
    let others = Prune {
        jobs: before(hour(99)),
        bodies_before: Some(hour(99)),
        ..nothing()
    };
    assert_eq!(prune(&store, others).jobs, 1);
    assert_eq!(jobs_left(&store), [1, 2, 3, 4]);
    let step = |failed| Prune {
        failed,
        ..nothing()
    };
    assert_eq!(prune(&store, step(before(hour(2)))).jobs, 1);
    assert_eq!(prune(&store, step(most(2))).jobs, 1);
    drop(store);
    let store = open();
    assert_eq!(jobs_left(&store), [3, 4]);
    let record = store.job(job_id(3)).unwrap().unwrap();
    assert!(record.request.is_some(), "it can be retried");
    done(&store, &[requeue(3)]);
    assert_eq!(prune(&store, step(before(hour(99)))).jobs, 1);
    assert_eq!(jobs_left(&store), [3]);
}

/// What may not go takes nobody's place among those that are kept.
pub fn what_may_not_go_is_not_counted<S: Store>(open: Open<'_, S>) {
    let store = open();
    for n in 1..=2 {
        done(&store, &life(n));
    }
    // Maybe billed, and given up later: four that may not go.
    for n in 3..=6 {
        done(&store, &[sample::insert(n), sample::start(n)]);
        let given_up = sample::cancel(n, hour(n));
        done(&store, &[sample::parked(n, 1), given_up]);
    }
    let step = Prune {
        jobs: most(2),
        calls: most(2),
        ..nothing()
    };
    assert_eq!(prune(&store, step), Pruned::default());
    assert_eq!(jobs_left(&store), [1, 2, 3, 4, 5, 6]);
    // Once it is known what they cost, they are as the others.
    let billing = |n| sample::resolve(n, 1, sample::billed(7));
    done(&store, &[billing(5), billing(6)]);
    let pruned = prune(&store, step);
    assert_eq!((pruned.jobs, pruned.calls), (2, 2));
    drop(store);
    let store = open();
    assert_eq!(jobs_left(&store), [3, 4, 5, 6]);
    assert_eq!(calls_left(&store), [3, 4, 5, 6]);
}

/// While somebody is still to be told of its end a job is there with its answer, however old it is.
pub fn a_job_stays_whole_until_its_end_is_told<S: Store>(open: Open<'_, S>) {
    let store = open();
    let everything_goes = Prune {
        jobs: before(hour(99)),
        failed: before(hour(99)),
        bodies_before: Some(hour(99)),
        ..nothing()
    };
    let mut wanted = new_job(1);
    wanted.job.callback_url = Some("https://example.com/hook".to_owned());
    let mut failing = new_job(2);
    failing
        .job
        .callback_url
        .clone_from(&wanted.job.callback_url);
    let insert = |new| Transition::Insert(Arc::new(new));
    done(&store, &[insert(wanted), insert(failing)]);
    // The pruning is in the very batch of the end.
    let [_, start, complete] = life(1);
    let step = Transition::Prune(Box::new(everything_goes));
    done(&store, &[start, complete, step]);
    done(&store, &[sample::start(2), sample::fail(2, 1)]);
    assert_eq!(prune(&store, everything_goes), Pruned::default());
    drop(store);
    let store = open();
    let record = store.job(job_id(1)).unwrap().unwrap();
    assert!(record.request.is_some() && record.response.is_some());
    let tried = |id, try_no, next| {
        let outcome = match next {
            Some(_) => TryOutcome::Failed {
                status_code: None,
                error: "no answer".to_owned(),
            },
            None => TryOutcome::Delivered { status_code: 200 },
        };
        let at = hour(9);
        let id = DeliveryId(id);
        Transition::Delivery(Box::new(DeliveryChange::Tried {
            id,
            try_no,
            outcome,
            at,
            waited_ms: 0,
            next,
        }))
    };
    done(
        &store,
        &[
            tried(1, 1, Some(Wait::between(hour(9), hour(10)))),
            tried(2, 1, None),
        ],
    );
    assert_eq!(prune(&store, everything_goes).jobs, 1);
    assert_eq!(jobs_left(&store), [1]);
    done(&store, &[tried(1, 2, None)]);
    // Told again by hand: it is needed again.
    let (id, at) = (DeliveryId(1), hour(11));
    let again = Transition::Delivery(Box::new(DeliveryChange::Redeliver { id, at }));
    done(&store, &[again]);
    assert_eq!(prune(&store, everything_goes), Pruned::default());
    done(&store, &[tried(1, 1, None)]);
    assert_eq!(prune(&store, everything_goes).jobs, 1);
    assert_eq!(jobs_left(&store), Vec::<u64>::new());
}

/// Jobs whose calls ended in these hours.
fn calls_of_hours<const N: usize>(store: &impl Store, hours: [u64; N]) {
    for (n, ended) in (1..).zip(hours) {
        let [insert, start, mut complete] = life(n);
        if let Transition::Settle(settlement) = &mut complete {
            settlement.call.ended_at = hour(ended);
        }
        done(store, &[insert, start, complete]);
    }
}

/// Prunes what ended before hour 4, in steps of so many rows. Answers how many calls went.
fn prune_calls(store: &impl Store, rows_max: usize) -> u64 {
    let mut by_age = Prune {
        calls: Cutoff {
            now: hour(99),
            ..before(hour(4))
        },
        rows_max,
        ..nothing()
    };
    let mut calls = 0;
    for _ in 0..9 {
        let pruned = prune(store, by_age);
        calls += pruned.calls;
        match pruned.next {
            Some(next) => by_age.from = next,
            None => break,
        }
    }
    calls
}

/// A call whose time has not come hides none that is over behind it, where another one went with it.
pub fn a_call_that_stays_ends_no_step_that_takes_others<S: Store>(open: Open<'_, S>) {
    let store = open();
    calls_of_hours(&store, [1, 5, 2, 6]);
    assert_eq!(prune_calls(&store, 2), 2);
    assert_eq!(calls_left(&store), [2, 4]);
}

/// A call that ended by a clock that was ahead hides none of those after it, and goes by number.
pub fn a_clock_that_was_ahead_stops_no_pruning<S: Store>(open: Open<'_, S>) {
    let store = open();
    calls_of_hours(&store, [1, 500, 2, 400, 3, 4]);
    assert_eq!(prune_calls(&store, 1), 3);
    assert_eq!(calls_left(&store), [2, 4, 6]);
    let settled = hour(4);
    let by_number = |calls| Prune {
        calls: Cutoff { settled, ..calls },
        jobs: Cutoff { settled, ..calls },
        ..nothing()
    };
    let pruned = prune(&store, by_number(most(1)));
    assert_eq!(pruned.calls, 2, "not the one that just ended");
    assert_eq!(calls_left(&store), [6]);
    assert_eq!(pruned.jobs, 5);
    assert_eq!(
        jobs_left(&store),
        [6],
        "those by the wrong clock are no younger"
    );
}

/// A step ends when it has removed many bytes, whatever the number of rows.
pub fn a_step_of_a_pruning_removes_so_many_bytes<S: Store>(open: Open<'_, S>) {
    let store = open();
    for n in 1..=4 {
        let long = Request::Prompt("long ".repeat(1_000));
        done(&store, &[sample::insert_with(n, |new| new.request = long)]);
        done(&store, &life(n)[1..]);
    }
    let mut step = Prune {
        bodies_before: Some(hour(3)),
        bytes_max: 5_000,
        ..nothing()
    };
    let first = prune(&store, step);
    assert_eq!(first.bodies, 1);
    step.from = first.next.unwrap();
    let second = prune(
        &store,
        Prune {
            bytes_max: 20_000,
            ..step
        },
    );
    assert_eq!((second.bodies, second.next), (1, None));
    let jobs = Prune {
        jobs: before(hour(99)),
        bytes_max: 5_000,
        ..nothing()
    };
    assert_eq!(prune(&store, jobs).jobs, 3, "two have no bodies any more");
    assert_eq!(prune(&store, jobs).jobs, 1);
}

/// What comes before a job may be pruned before that is retried: then nobody knows whether it was
/// completed, and the refusal says so.
pub fn a_retry_after_what_was_pruned_says_why_not<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[sample::insert(1), sample::insert_after(2, &[1])]);
    done(&store, &[sample::start(1), sample::fail(1, 1)]);
    // It is completed in the end, but the other had failed with it.
    done(
        &store,
        &[requeue(1), sample::start(1), sample::complete(1, 2)],
    );
    let jobs = Prune {
        jobs: before(hour(1)),
        ..nothing()
    };
    assert_eq!(prune(&store, jobs).jobs, 1);
    assert_eq!(jobs_left(&store), [2]);
    let refusal = refused(&store, requeue(2));
    assert_eq!(refusal, Refusal::DependencyPruned(job_id(1)));
}
