//! Attempts of which nobody knows what became: parked, taken up again, billed or not.

use super::*;
use onelane_core::model::{AsyncTask, Billing, CallRecord, Phase, SlotId, Usage};

fn task(n: u64, attempt: u32, id: &str) -> Transition {
    Transition::Task {
        job_id: job_id(n),
        attempt: AttemptNo(attempt),
        task: a_task(id),
    }
}

fn a_task(id: &str) -> AsyncTask {
    AsyncTask {
        left_open: false,
        id: id.to_owned(),
        account: "d1".to_owned(),
    }
}

fn resume(n: u64, slot: u16) -> Transition {
    Transition::Resume {
        crashed: true,
        job_id: job_id(n),
        slot: SlotId(slot),
    }
}

/// Job `n`'s attempt was interrupted, may have been billed, and is followed by another.
fn interrupted(n: u64, attempt: u32) -> Transition {
    let Transition::Settle(mut settlement) = sample::retry(n, attempt, None) else {
        unreachable!()
    };
    settlement.call.outcome = CallOutcome::Interrupted;
    settlement.call.maybe_billed = true;
    Transition::Settle(settlement)
}

fn unresolved(store: &impl Store) -> Vec<(u64, u32)> {
    let filter = CallFilter {
        billing_open: true,
        ..CallFilter::default()
    };
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.calls(&filter, cursor, 2).unwrap();
        assert!(page.calls.is_sorted_by(|a, b| a.seq > b.seq));
        let number = |c: &CallRecord| u64::from(c.job_id.as_bytes()[15]);
        seen.extend(page.calls.iter().map(|c| (number(c), c.attempt.0)));
        cursor = page.cursor;
        if cursor.is_none() {
            return seen;
        }
    }
}

fn call(store: &impl Store, n: u64, attempt: u32) -> CallRecord {
    let filter = CallFilter {
        job_id: Some(job_id(n)),
        ..CallFilter::default()
    };
    let calls = store.calls(&filter, None, 100).unwrap().calls;
    let mut calls = calls.into_iter();
    calls.find(|c| c.attempt == AttemptNo(attempt)).unwrap()
}

/// A parked job is not sent until somebody puts it back in line; who waits for it waits on.
pub fn a_job_set_aside_waits_for_somebodys_word<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[1, 2, 4].map(sample::insert));
    done(&store, &[sample::insert_after(3, &[1])]);
    done(&store, &[sample::start(1), sample::retry(1, 1, None)]);
    let applied = done(&store, &[sample::start(1), sample::parked(1, 2)]);
    let Applied::Job(held) = &applied[1] else {
        panic!("{applied:?}")
    };
    assert_eq!(held.phase(), Phase::Parked);
    let aside = held.parked.as_ref().unwrap();
    assert_eq!(aside.attempt, AttemptNo(2));
    done(&store, &[sample::stage(2), sample::parked(2, 1)]);
    drop(store);

    let store = open();
    let waiting = store.recover().unwrap().waiting;
    let dormant: Vec<_> = waiting.iter().map(|e| (e.id, e.dormant)).collect();
    let want = [(1, true), (2, true), (4, false), (3, true)];
    assert_eq!(dormant, want.map(|(n, dormant)| (job_id(n), dormant)));
    assert_eq!(store.counts().unwrap().pending, 4);
    for sent in [sample::stage(1), sample::start(1)] {
        let refusal = refused(&store, sent);
        assert_eq!(refusal, Refusal::WrongStatus(JobStatus::Pending));
    }
    done(&store, &[reprioritise(1, 3), requeue(1)]);
    let back = job(&store, 1);
    assert_eq!((back.phase(), back.priority), (Phase::Waiting, 3));
    assert_eq!((back.retry_count, back.interruptions), (0, 0));
    let applied = done(&store, &[sample::start(1), sample::complete(1, 3)]);
    assert!(matches!(&applied[1], Applied::Chain { others, .. } if others[0].id == job_id(3)));
    done(&store, &[cancel(2)]);
    assert_eq!(job(&store, 2).parked, None);
    assert_eq!(unresolved(&store), [(2, 1), (1, 2)]);
}

/// A task is kept with its attempt, fenced by the attempt's number, until the attempt ends.
pub fn an_attempt_keeps_its_task_until_it_ends<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[1, 2].map(sample::insert));
    let late = Refusal::StaleAttempt {
        given: AttemptNo(1),
    };
    assert_eq!(refused(&store, task(1, 1, "t1")), late);
    done(&store, &[sample::start(1), sample::retry(1, 1, None)]);
    done(&store, &[sample::start(1)]);
    assert_eq!(refused(&store, task(1, 1, "t1")), late);
    let applied = done(&store, &[task(1, 2, "t2")]);
    assert!(matches!(&applied[0], Applied::Done));
    drop(store);

    let store = open();
    let recovered = store.recover().unwrap();
    assert_eq!(recovered.open.len(), 1);
    assert_eq!(recovered.open[0].task, Some(a_task("t2")));
    let whole = format!("{:?}", job(&store, 1));
    assert_eq!(format!("{:?}", recovered.open[0]), whole);
    let refusal = refused(&store, resume(2, 0));
    assert_eq!(refusal, Refusal::WrongStatus(JobStatus::Pending));
    let applied = done(&store, &[resume(1, 7)]);
    let told = dispatch(&applied[0]);
    let (task_now, attempt) = (told.job.task.as_ref(), told.job.open.unwrap());
    assert_eq!(task_now, Some(&a_task("t2")));
    assert_eq!((attempt.no, attempt.slot), (AttemptNo(2), SlotId(7)));
    assert_eq!(attempt.phase, AttemptPhase::Started);
    assert!(matches!(told.request.as_ref(), Request::Prompt(text) if text == "prompt 1"));
    done(&store, &[sample::complete(1, 2)]);
    assert_eq!(job(&store, 1).task, None);
    let refusal = refused(&store, resume(1, 0));
    assert_eq!(refusal, Refusal::WrongStatus(JobStatus::Completed));
    // One that is taken back leaves no task to the next attempt.
    done(&store, &[sample::stage(2), task(2, 1, "t3"), unstage(2)]);
    assert_eq!(job(&store, 2).task, None);
}

/// The fallback model that an attempt was sent to is on record until another attempt is sent.
pub fn the_model_that_served_is_on_record<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[sample::insert(1)]);
    let fallback = Transition::Start {
        job_id: job_id(1),
        slot: SlotId(0),
        at: sample::START,
        served_by: Some("glm-4.6".to_owned()),
        reserve: None,
    };
    let applied = done(&store, &[fallback]);
    assert_eq!(dispatch(&applied[0]).job.sent_to(), "glm-4.6");
    drop(store);
    let store = open();
    let recovered = store.recover().unwrap();
    assert_eq!(recovered.open[0].served_by.as_deref(), Some("glm-4.6"));
    done(&store, &[sample::retry(1, 1, None), sample::start(1)]);
    assert_eq!(job(&store, 1).sent_to(), "glm-4.7");
}

/// What was found out is added to the row and to the usage of the call's own day, once.
pub fn what_was_billed_is_found_out_once<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[1, 2, 3].map(sample::insert));
    for n in [1, 2, 3] {
        done(&store, &[sample::start(n), interrupted(n, 1)]);
    }
    done(&store, &[sample::start(1), interrupted(1, 2)]);
    done(&store, &[sample::start(1), sample::complete(1, 3)]);
    assert_eq!(unresolved(&store), [(1, 2), (3, 1), (2, 1), (1, 1)]);
    drop(store);

    let store = open();
    let before = store.usage(&UsageFilter::default()).unwrap().remove(0);
    let unknown_price = Billing {
        cost: None,
        ..sample::billed(10)
    };
    let not_billed = Billing {
        billed: false,
        usage: Usage::default(),
        cost: None,
        price: None,
        at: sample::START,
    };
    let batch = [
        sample::resolve(1, 2, sample::billed(100)),
        sample::resolve(2, 1, unknown_price),
        sample::resolve(1, 1, not_billed.clone()),
    ];
    for applied in done(&store, &batch) {
        assert!(matches!(applied, Applied::Done));
    }
    let mut want = before;
    want.resolve(&sample::billed(100));
    want.usage.prompt_tokens += 10;
    want.usage.total_tokens += 10;
    want.unpriced_calls += 1;
    assert_eq!(store.usage(&UsageFilter::default()).unwrap(), [want]);
    assert_eq!(call(&store, 1, 2).billing, Some(sample::billed(100)));
    assert_eq!(call(&store, 1, 1).billing, Some(not_billed));
    assert_eq!(unresolved(&store), [(3, 1)]);

    let before = everything(&store);
    let again = |n, attempt| refused(&store, sample::resolve(n, attempt, sample::billed(1)));
    let settled = |attempt| Refusal::BillingSettled(AttemptNo(attempt));
    assert_eq!(again(1, 1), settled(1));
    assert_eq!(again(1, 3), settled(3));
    assert_eq!(again(1, 4), Refusal::NotFound);
    assert_eq!(again(9, 1), Refusal::NotFound);
    assert_eq!(everything(&store), before);
    drop(store);
    assert_eq!(everything(&open()), before);
}

/// An attempt that ends in doubt can be settled in the same batch, and a second time it can't.
pub fn billing_is_found_in_the_batch_that_logs_the_call<S: Store>(open: Open<'_, S>) {
    let store = open();
    let decisions = commit(
        &store,
        &[
            sample::insert(1),
            sample::start(1),
            sample::resolve(1, 1, sample::billed(1)),
            interrupted(1, 1),
            sample::resolve(1, 1, sample::billed(5)),
            sample::resolve(1, 1, sample::billed(7)),
            sample::start(1),
            sample::complete(1, 2),
        ],
    );
    assert_eq!(*decisions[2].as_ref().unwrap_err(), Refusal::NotFound);
    let twice = Refusal::BillingSettled(AttemptNo(1));
    assert_eq!(*decisions[5].as_ref().unwrap_err(), twice);
    assert!(unresolved(&store).is_empty());
    drop(store);
    let store = open();
    let row = store.usage(&UsageFilter::default()).unwrap().remove(0);
    let mut want = UsageRow::empty(row.key.clone());
    want.add(&call(&store, 1, 1));
    want.add(&call(&store, 1, 2));
    assert_eq!(row, want);
    assert_eq!(row.usage.prompt_tokens, 5 + 7);
}

/// The rows nobody has found out about, by the filters that the whole log has.
pub fn unresolved_calls_are_filtered_as_others<S: Store>(open: Open<'_, S>) {
    let store = open();
    for n in 1..=3 {
        done(&store, &[sample::insert(n), sample::start(n)]);
        let Transition::Settle(mut settlement) = interrupted(n, 1) else {
            unreachable!()
        };
        if n == 2 {
            settlement.call.user_id = "bob".to_owned();
            settlement.call.outcome = CallOutcome::Failed;
        }
        done(&store, &[Transition::Settle(settlement)]);
        done(&store, &[sample::start(n), sample::complete(n, 2)]);
    }
    let check = |filter: CallFilter, want: &[u64]| {
        let filter = CallFilter {
            billing_open: true,
            ..filter
        };
        let calls = store.calls(&filter, None, 10).unwrap().calls;
        let got: Vec<_> = calls.iter().map(|c| c.job_id).collect();
        let want: Vec<_> = want.iter().map(|n| job_id(*n)).collect();
        assert_eq!(got, want, "{filter:?}");
        assert!(calls.iter().all(CallRecord::is_billing_open));
    };
    let all = CallFilter::default;
    check(all(), &[3, 2, 1]);
    let user_id = Some("bob".to_owned());
    check(CallFilter { user_id, ..all() }, &[2]);
    let model = Some("glm-5".to_owned());
    check(CallFilter { model, ..all() }, &[]);
    let outcome = Some(CallOutcome::Interrupted);
    check(CallFilter { outcome, ..all() }, &[3, 1]);
    let job_id = Some(job_id(1));
    check(CallFilter { job_id, ..all() }, &[1]);
}
