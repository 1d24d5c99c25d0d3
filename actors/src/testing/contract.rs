//! The contract that every store keeps, through the `Store` trait alone: one function a promise.
//!
//! [`store_contract!`](crate::store_contract) makes a test of each. A case is given a way to open
//! its store, fresh at first; opening it again, after the handle before was dropped, finds what was
//! committed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these functions are tests, compiled for other crates too"
)]

mod audit;
mod batches;
mod chains;
mod doubt;
mod files;
mod filters;
mod keys;
mod notices;
mod prune;
mod spared;

use std::sync::Arc;

pub use audit::*;
pub use batches::*;
pub use chains::*;
pub use doubt::*;
pub use files::*;
pub use filters::*;
pub use keys::*;
pub use notices::*;
pub use prune::*;
pub use spared::*;

use super::sample::{self, job_id, new_job};
use crate::ports::{
    CallFilter, Decisions, DeliveryFilter, JobFilter, StatusCounts, Store, StoreError, UsageFilter,
};
use onelane_core::model::{
    Admission, Applied, AttemptNo, AttemptPhase, BreakerSnapshot, BreakerState, CallOutcome, Day,
    Dispatch, Failure, Hold, HoldKind, Job, JobStatus, NewJob, Next, NotAdmitted, Parts, Pause,
    Received, Refusal, Request, SchedulerState, Seq, Speed, Timestamp, Transition, UsageRow, Wait,
    code, limits,
};

/// Makes a `#[test]` of each promise. The argument is a function that makes a fresh place for a
/// store and answers with the function that opens the store there: `fn() -> impl Fn() -> S`.
#[macro_export]
macro_rules! store_contract {
    ($place:expr) => {
        $crate::store_contract! { @each $place;
            an_empty_store_has_nothing
            a_job_is_kept_whole
            a_chat_body_and_an_answer_are_kept_to_the_byte
            places_in_line_follow_submission_and_are_never_given_twice
            the_same_id_is_the_same_job
            an_idempotency_key_gives_its_job_again
            an_idempotency_key_in_one_batch_gives_one_job
            a_full_line_refuses_exactly_at_its_limit
            a_staged_attempt_is_told_whole
            a_staged_attempt_can_be_taken_back
            an_attempt_can_start_without_being_staged
            the_end_of_an_attempt_is_one_transaction
            a_late_outcome_leaves_nothing
            a_retry_comes_back_to_its_place
            a_job_that_waits_can_fail_or_be_given_up
            a_dead_letter_goes_back_in_line_with_its_history
            what_came_instead_of_an_answer_stays_while_it_says_something_of_the_job
            a_priority_changes_while_the_job_waits
            a_refusal_does_not_hinder_the_others
            an_unknown_job_is_refused
            later_changes_of_a_batch_see_the_earlier
            recovery_tells_what_waits_from_what_is_open
            lane_breaker_and_config_outlive_the_process
            a_list_of_jobs_is_newest_first_and_counts_all
            a_list_of_jobs_pages_without_gap_or_double
            the_call_log_is_newest_first_and_filtered
            a_page_of_the_call_log_looks_at_so_many_rows
            usage_equals_the_call_log
            the_parts_of_an_attempt_stay_with_it_and_are_summed_up
            a_job_waits_for_all_that_it_runs_after
            a_job_after_completed_ones_is_free_at_once
            a_job_after_what_will_not_be_completed_is_refused
            jobs_of_one_batch_may_run_after_each_other
            who_waits_ends_with_what_it_waits_for
            a_job_that_waits_for_others_is_not_sent
            who_was_given_up_is_not_freed_by_what_it_waited_for
            a_chain_goes_back_in_line_from_its_beginning
            a_long_chain_and_a_wide_one_end_in_one_transaction
            a_job_set_aside_waits_for_somebodys_word
            an_attempt_keeps_its_task_until_it_ends
            the_model_that_served_is_on_record
            what_was_billed_is_found_out_once
            billing_is_found_in_the_batch_that_logs_the_call
            unresolved_calls_are_filtered_as_others
            a_list_of_jobs_is_narrowed_by_every_field
            a_list_of_jobs_by_id_is_as_any_other
            a_page_of_large_jobs_ends_early
            the_recent_calls_are_told
            the_end_of_a_job_and_its_notice_are_one
            a_job_that_nobody_asked_about_is_told_to_nobody
            whoever_ends_with_a_job_is_told_too
            a_delivery_comes_when_it_is_due_and_leaves_when_it_ended
            a_delivery_behind_others_waits_no_longer_for_a_clock_that_is_set_back
            a_long_line_hides_no_other
            what_is_for_an_endpoint_that_is_gone_waits
            an_endpoint_that_is_missing_is_remembered_for_a_while
            deliveries_are_forgotten_by_age_and_number
            alerts_outlive_the_process_and_are_told_once
            a_key_with_another_callback_is_a_conflict
            finished_jobs_are_pruned_by_age
            finished_jobs_are_pruned_by_number
            the_call_log_is_pruned_and_the_usage_stays
            bodies_are_pruned_and_their_jobs_stay
            what_is_forgotten_leaves_its_account
            what_is_not_over_is_never_pruned
            a_pruning_goes_on_where_its_last_step_ended
            the_key_of_a_pruned_job_is_free
            a_pruning_takes_its_place_in_a_batch
            failed_jobs_have_a_retention_of_their_own
            what_may_not_go_is_not_counted
            a_job_stays_whole_until_its_end_is_told
            a_call_that_stays_ends_no_step_that_takes_others
            a_clock_that_was_ahead_stops_no_pruning
            a_step_of_a_pruning_removes_so_many_bytes
            an_order_is_on_record_with_what_became_of_it
            of_orders_the_oldest_go
            a_client_key_is_kept_whole
            a_client_key_is_made_once
            a_client_key_is_replaced_and_taken_back
            a_dead_client_key_makes_room
            a_retry_after_what_was_pruned_says_why_not
            a_batch_counts_its_jobs_in_the_transaction_that_changes_them
            a_file_is_kept_in_parts_and_goes_with_them
            a_batch_of_a_file_follows_its_lines
            a_job_of_a_batch_that_is_not_open_is_refused
            a_job_that_is_submitted_to_another_batch_moves_there
            a_job_that_moves_to_another_batch_takes_its_costs_and_its_key_along
            the_last_job_that_moves_takes_what_is_left_of_its_batch_along
            a_batch_goes_with_the_last_of_its_jobs
            what_calls_of_a_batch_came_to_is_its_own
            the_jobs_of_a_batch_are_listed_in_pages
        }
    };
    (@each $place:expr; $($promise:ident)*) => {$(
        #[test]
        fn $promise() {
            $crate::testing::contract::$promise(&$place());
        }
    )*};
}

/// How a case opens its store.
pub type Open<'a, S> = &'a dyn Fn() -> S;

/// Commits a batch that must reach the disk.
fn commit(store: &impl Store, batch: &[Transition]) -> Decisions {
    let decisions = store.commit(batch).expect("a commit");
    assert_eq!(decisions.len(), batch.len(), "a decision for each change");
    decisions
}

/// Commits changes that must all be made.
fn done(store: &impl Store, batch: &[Transition]) -> Vec<Applied> {
    let decisions = commit(store, batch).into_iter();
    decisions
        .map(|decision| decision.expect("applied"))
        .collect()
}

/// Commits one change that must be refused.
fn refused(store: &impl Store, transition: Transition) -> Refusal {
    commit(store, &[transition]).remove(0).expect_err("refused")
}

fn job(store: &impl Store, n: u64) -> Job {
    store.job(job_id(n)).unwrap().expect("the job").job
}

fn dispatch(applied: &Applied) -> &Arc<Dispatch> {
    match applied {
        Applied::Dispatch(dispatch) => dispatch,
        other => panic!("a dispatch, not {other:?}"),
    }
}

fn seq(applied: &Applied) -> Seq {
    match applied {
        Applied::Inserted(job) => job.seq,
        other => panic!("an insertion, not {other:?}"),
    }
}

/// Everything a store tells, as text, to compare two moments.
fn everything(store: &impl Store) -> String {
    let all = (JobFilter::default(), CallFilter::default());
    format!(
        "{:#?}",
        (
            store.recover().unwrap(),
            store.jobs(&all.0, None, 1_000).unwrap(),
            store.calls(&all.1, None, 1_000).unwrap(),
            store.usage(&UsageFilter::default()).unwrap(),
            store.counts().unwrap(),
            store.config().unwrap(),
            store.clock().unwrap(),
            store
                .deliveries(&DeliveryFilter::default(), None, 1_000)
                .unwrap(),
            store.endpoints().unwrap(),
            store.alerts().unwrap(),
        )
    )
}

fn requeue(n: u64) -> Transition {
    Transition::Requeue { job_id: job_id(n) }
}

fn cancel(n: u64) -> Transition {
    sample::cancel(n, sample::START)
}

fn unstage(n: u64) -> Transition {
    Transition::Unstage { job_id: job_id(n) }
}

fn reprioritise(n: u64, priority: i32) -> Transition {
    Transition::Reprioritise {
        job_id: job_id(n),
        priority,
    }
}

fn keyed(n: u64, key: &str, prompt: &str) -> NewJob {
    let mut new = new_job(n);
    new.job.idempotency_key = Some(key.to_owned());
    new.request = Request::Prompt(prompt.to_owned());
    new.fingerprint = Some(new.request.fingerprint(&new.job.model));
    new
}

fn submit(new: NewJob) -> Transition {
    Transition::Insert(Arc::new(new))
}

/// Nothing is found, counted or recovered; an empty batch is fine.
pub fn an_empty_store_has_nothing<S: Store>(open: Open<'_, S>) {
    let store = open();
    assert!(commit(&store, &[]).is_empty());
    let recovered = store.recover().unwrap();
    assert!(recovered.waiting.is_empty() && recovered.open.is_empty());
    assert_eq!(recovered.lane, SchedulerState::default());
    assert_eq!(recovered.breaker, None);
    assert!(store.job(job_id(1)).unwrap().is_none());
    let page = store.jobs(&JobFilter::default(), None, 10).unwrap();
    assert_eq!((page.jobs.len(), page.total, page.cursor), (0, 0, None));
    let page = store.calls(&CallFilter::default(), None, 10).unwrap();
    assert_eq!((page.calls.len(), page.cursor), (0, None));
    assert!(store.usage(&UsageFilter::default()).unwrap().is_empty());
    assert_eq!(store.counts().unwrap(), StatusCounts::default());
    assert_eq!(store.config().unwrap(), None);
}

/// Every field of a job comes back, also from a reopened store.
pub fn a_job_is_kept_whole<S: Store>(open: Open<'_, S>) {
    let store = open();
    let mut new = new_job(1);
    let raw = |json: &str| serde_json::value::RawValue::from_string(json.to_owned()).unwrap();
    new.job = Job {
        user_id: "użytkownik \"1\"".to_owned(),
        content_id: Some("内容".to_owned()),
        session: Some("chat/1".parse().unwrap()),
        told_session: Some("auto-1".parse().unwrap()),
        priority: i32::MIN,
        max_retries: 9,
        run_at: Some(Timestamp::from_millis(-5)),
        deadline: Some(sample::START),
        timeout_ms: Some(u64::MAX),
        idempotency_key: Some("key\n".to_owned()),
        metadata: Some(raw(r#"{ "a": 1.50, "b": null }"#)),
        ..new.job
    };
    let applied = done(&store, &[submit(new.clone())]);
    let seq = seq(&applied[0]);
    assert!(seq > Seq(0), "0 means that it has no place yet");
    let want = format!("{:?}", Job { seq, ..new.job });
    let Applied::Inserted(told) = &applied[0] else {
        panic!("{applied:?}")
    };
    assert_eq!(format!("{told:?}"), want);
    assert_eq!(format!("{:?}", job(&store, 1)), want);
    drop(store);
    assert_eq!(format!("{:?}", job(&open(), 1)), want);
}

/// What GLM gets and gives is not touched, whatever its size.
pub fn a_chat_body_and_an_answer_are_kept_to_the_byte<S: Store>(open: Open<'_, S>) {
    let body = r#"{ "messages":[{"role":"user","content":"\u4f60好"}],  "top_p":0.90, "n":null }"#;
    let mut chat = new_job(1);
    chat.request = Request::chat(body).unwrap();
    let mut large = new_job(2);
    large.request = Request::Prompt("长".repeat(700_000));
    let store = open();
    done(&store, &[submit(chat), submit(large.clone())]);
    done(&store, &[sample::start(1), sample::complete(1, 1)]);
    drop(store);

    let store = open();
    let record = store.job(job_id(1)).unwrap().unwrap();
    let Some(Request::Body(_, kept)) = record.request.as_deref() else {
        panic!("{:?}", record.request)
    };
    assert_eq!(kept.get(), body);
    assert_eq!(record.response.unwrap().get(), sample::answer(1).get());
    let applied = done(&store, &[sample::stage(2)]);
    let told = &dispatch(&applied[0]).request;
    assert_eq!(format!("{told:?}"), format!("{:?}", large.request));
}

/// A place in line is one more than any before, in a batch, across batches and processes.
pub fn places_in_line_follow_submission_and_are_never_given_twice<S: Store>(open: Open<'_, S>) {
    let store = open();
    let mut seqs: Vec<Seq> = Vec::new();
    // Ids out of order: the line follows submission, not ids.
    let batch = [9, 3, 7].map(sample::insert);
    seqs.extend(done(&store, &batch).iter().map(seq));
    done(&store, &[cancel(7)]);
    seqs.extend(done(&store, &[sample::insert(1)]).iter().map(seq));
    drop(store);
    seqs.extend(done(&open(), &[sample::insert(8)]).iter().map(seq));
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
}

/// An id that is there already answers with its job as it is now.
pub fn the_same_id_is_the_same_job<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[sample::insert(1), sample::start(1)]);
    let before = everything(&store);
    let applied = done(&store, &[sample::insert(1)]);
    let Applied::Existing(job) = &applied[0] else {
        panic!("{applied:?}")
    };
    assert_eq!((job.id, job.status), (job_id(1), JobStatus::Processing));
    assert_eq!(everything(&store), before);
}

/// Same user and key: same request gives the job, another request is a conflict, for ever.
pub fn an_idempotency_key_gives_its_job_again<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[submit(keyed(1, "k", "hi"))]);
    done(&store, &[sample::start(1), sample::complete(1, 1)]);
    drop(store);

    let store = open();
    let before = everything(&store);
    let applied = done(&store, &[submit(keyed(2, "k", "hi"))]);
    let Applied::Existing(job) = &applied[0] else {
        panic!("{applied:?}")
    };
    assert_eq!((job.id, job.status), (job_id(1), JobStatus::Completed));
    let refusal = refused(&store, submit(keyed(3, "k", "ho")));
    assert_eq!(refusal, Refusal::IdempotencyConflict(job_id(1)));
    assert_eq!(everything(&store), before);

    let mut of_another = keyed(4, "k", "ho");
    of_another.job.user_id = "bob".to_owned();
    // User and key are two things: no pair is taken for another.
    let mut shifted = keyed(5, "ak", "ho");
    shifted.job.user_id = "ad".to_owned();
    seq(&done(&store, &[submit(of_another), submit(shifted)])[0]);
    let mut without_digest = keyed(6, "k", "hi");
    without_digest.fingerprint = None;
    let applied = done(&store, &[submit(without_digest)]);
    assert!(matches!(&applied[0], Applied::Existing(job) if job.id == job_id(1)));
}

/// The same key twice in one batch is one job.
pub fn an_idempotency_key_in_one_batch_gives_one_job<S: Store>(open: Open<'_, S>) {
    let store = open();
    let decisions = commit(
        &store,
        &[
            submit(keyed(1, "k", "hi")),
            submit(keyed(2, "k", "hi")),
            submit(keyed(3, "k", "ho")),
        ],
    );
    assert!(matches!(&decisions[0], Ok(Applied::Inserted(_))));
    assert!(matches!(&decisions[1], Ok(Applied::Existing(job)) if job.id == job_id(1)));
    let conflict = decisions[2].as_ref().unwrap_err();
    assert_eq!(*conflict, Refusal::IdempotencyConflict(job_id(1)));
    assert_eq!(store.counts().unwrap().total(), 1);
}

/// The limit counts what waits, earlier insertions of the batch included; asking again is answered.
pub fn a_full_line_refuses_exactly_at_its_limit<S: Store>(open: Open<'_, S>) {
    let store = open();
    let limited = |n| {
        let mut new = keyed(n, &format!("k{n}"), "hi");
        new.admission = Admission::Open { max_queue_jobs: 3 };
        submit(new)
    };
    let batch: Vec<Transition> = (1..=5).map(limited).collect();
    let decisions = commit(&store, &batch);
    assert!(decisions[..3].iter().all(Result::is_ok));
    let full = Refusal::NotAdmitted(NotAdmitted::QueueFull { limit: 3 });
    for decision in &decisions[3..] {
        assert_eq!(*decision.as_ref().unwrap_err(), full);
    }
    assert!(store.job(job_id(4)).unwrap().is_none());
    assert!(matches!(
        done(&store, &[limited(1)])[0],
        Applied::Existing(_)
    ));
    // A staged job still waits; one in flight does not.
    done(&store, &[sample::stage(1)]);
    assert_eq!(refused(&store, limited(4)), full);
    done(&store, &[sample::start(1), limited(4)]);
    // A refused submission has not used its key up.
    assert_eq!(refused(&store, limited(5)), full);
    done(&store, &[cancel(4), limited(5)]);
}

/// The answer to staging, and to starting what was staged, is all that the call needs.
pub fn a_staged_attempt_is_told_whole<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[sample::insert(1)]);
    let applied = done(&store, &[sample::stage(1)]);
    let told = dispatch(&applied[0]);
    assert_eq!(told.job.attempts, AttemptNo(1));
    let open_attempt = told.job.open.unwrap();
    assert_eq!(open_attempt.no, AttemptNo(1));
    assert_eq!(open_attempt.phase, AttemptPhase::Staged);
    assert!(matches!(told.request.as_ref(), Request::Prompt(text) if text == "prompt 1"));
    assert_eq!(job(&store, 1).status, JobStatus::Pending);

    let refusal = refused(&store, sample::stage(1));
    assert_eq!(refusal, Refusal::WrongStatus(JobStatus::Pending));
    let applied = done(&store, &[sample::start(1)]);
    let told = dispatch(&applied[0]);
    assert_eq!(told.job.open.unwrap().phase, AttemptPhase::Started);
    assert!(matches!(told.request.as_ref(), Request::Prompt(text) if text == "prompt 1"));
    let sent = job(&store, 1);
    assert_eq!(
        (sent.status, sent.attempts),
        (JobStatus::Processing, AttemptNo(1))
    );
    assert_eq!(sent.open.unwrap().phase, AttemptPhase::Started);
}

/// A staged attempt that is taken back leaves the job waiting; its number is not used again.
pub fn a_staged_attempt_can_be_taken_back<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[sample::insert(1), sample::stage(1)]);
    assert!(matches!(done(&store, &[unstage(1)])[0], Applied::Done));
    assert_eq!(store.recover().unwrap().waiting.len(), 1);
    let applied = done(&store, &[sample::stage(1)]);
    assert_eq!(dispatch(&applied[0]).job.attempts, AttemptNo(2));
    done(&store, &[sample::start(1)]);
    let refusal = refused(&store, unstage(1));
    assert_eq!(refusal, Refusal::WrongStatus(JobStatus::Processing));
}

/// Without a staged attempt, a start puts the next one on record and tells it whole.
pub fn an_attempt_can_start_without_being_staged<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[sample::insert(1)]);
    let applied = done(&store, &[sample::start(1)]);
    let told = dispatch(&applied[0]);
    assert_eq!(told.job.status, JobStatus::Processing);
    assert_eq!(told.job.open.unwrap().no, AttemptNo(1));
    assert!(matches!(told.request.as_ref(), Request::Prompt(text) if text == "prompt 1"));
}

/// Job, answer, call log, usage, lane and breaker change together.
pub fn the_end_of_an_attempt_is_one_transaction<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[sample::insert(1), sample::start(1)]);
    let response = sample::answer(1);
    let mut settlement = sample::settle(1, 1, Next::Completed { response });
    settlement.lane = Some(a_held_lane());
    settlement.breaker = Some(an_open_breaker());
    let applied = done(&store, &[Transition::Settle(Box::new(settlement))]);
    let Applied::Job(told) = &applied[0] else {
        panic!("{applied:?}")
    };
    assert_eq!(told.status, JobStatus::Completed);
    assert_eq!(told.processed_at, Some(sample::START.plus_ms(1_000)));
    drop(store);

    let store = open();
    let record = store.job(job_id(1)).unwrap().unwrap();
    assert_eq!(record.job.status, JobStatus::Completed);
    assert_eq!(record.response.unwrap().get(), sample::answer(1).get());
    let calls = store.calls(&CallFilter::default(), None, 10).unwrap().calls;
    assert_eq!(calls.len(), 1);
    let mut logged = sample::call(1, 1, CallOutcome::Completed);
    assert!(calls[0].seq > 0);
    logged.seq = calls[0].seq;
    assert_eq!(calls[0], logged);
    let usage = store.usage(&UsageFilter::default()).unwrap();
    assert_eq!((usage.len(), usage[0].calls, usage[0].successes), (1, 1, 1));
    assert_eq!(usage[0].usage, logged.usage);
    let recovered = store.recover().unwrap();
    assert!(recovered.waiting.is_empty() && recovered.open.is_empty());
    assert_eq!(recovered.lane, a_held_lane());
    assert_eq!(recovered.breaker, Some(an_open_breaker()));
    let counts = store.counts().unwrap();
    assert_eq!((counts.completed, counts.total()), (1, 1));
}

/// The outcome of an attempt that is not the open one changes no row of any kind.
pub fn a_late_outcome_leaves_nothing<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[sample::insert(1), sample::start(1)]);
    done(&store, &[sample::retry(1, 1, None), sample::start(1)]);
    let before = everything(&store);
    let mut late = sample::settle(
        1,
        1,
        Next::Completed {
            response: sample::answer(1),
        },
    );
    late.lane = Some(a_held_lane());
    late.breaker = Some(an_open_breaker());
    let refusal = refused(&store, Transition::Settle(Box::new(late)));
    let given = AttemptNo(1);
    assert_eq!(refusal, Refusal::StaleAttempt { given });
    assert_eq!(everything(&store), before);
    done(&store, &[sample::complete(1, 2)]);
    let before = everything(&store);
    let refusal = refused(&store, sample::complete(1, 2));
    let given = AttemptNo(2);
    assert_eq!(refusal, Refusal::StaleAttempt { given });
    assert_eq!(everything(&store), before);
}

/// A job that waits for its retry keeps its place, its due time and the reason.
pub fn a_retry_comes_back_to_its_place<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[1, 2].map(sample::insert));
    let due = sample::START.plus_ms(5_000);
    done(&store, &[sample::start(1), sample::retry(1, 1, Some(due))]);
    drop(store);
    let store = open();
    let waiting = store.recover().unwrap().waiting;
    let order: Vec<_> = waiting.iter().map(|e| (e.id, e.due_at())).collect();
    assert_eq!(order, [(job_id(1), Some(due)), (job_id(2), None)]);
    let job = job(&store, 1);
    assert_eq!((job.retry_count, job.error), (1, Some(sample::failure())));
    assert_eq!(store.counts().unwrap().pending, 2);
}

/// A job that is not in flight fails or is cancelled at once; one in flight ends by its outcome.
pub fn a_job_that_waits_can_fail_or_be_given_up<S: Store>(open: Open<'_, S>) {
    let store = open();
    let fail = |n| Transition::Fail {
        job_id: job_id(n),
        failure: sample::failure(),
        at: sample::START,
    };
    done(&store, &[1, 2, 3].map(sample::insert));
    done(&store, &[fail(1), cancel(2), sample::start(3)]);
    assert_eq!(job(&store, 1).error, Some(sample::failure()));
    assert_eq!(job(&store, 2).processed_at, Some(sample::START));
    let counts = store.counts().unwrap();
    assert_eq!(
        (counts.failed, counts.cancelled, counts.processing),
        (1, 1, 1)
    );
    for in_flight in [fail(3), cancel(3)] {
        let refusal = refused(&store, in_flight);
        assert_eq!(refusal, Refusal::WrongStatus(JobStatus::Processing));
    }
    let cancelled = sample::settle(3, 1, Next::Cancelled);
    done(&store, &[Transition::Settle(Box::new(cancelled))]);
    assert_eq!(store.counts().unwrap().cancelled, 2);
    let calls = store.calls(&CallFilter::default(), None, 10).unwrap().calls;
    assert_eq!(calls[0].outcome, CallOutcome::Cancelled);
}

/// A retry by hand starts the count afresh at the old place; attempts and call log go on.
pub fn a_dead_letter_goes_back_in_line_with_its_history<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[1, 2].map(sample::insert));
    done(&store, &[sample::start(1), sample::fail(1, 1)]);
    let applied = done(&store, &[requeue(1)]);
    assert!(matches!(&applied[0], Applied::Job(job) if job.retry_count == 0));
    drop(store);
    let store = open();
    let order: Vec<_> = store
        .recover()
        .unwrap()
        .waiting
        .iter()
        .map(|e| e.id)
        .collect();
    assert_eq!(order, [1, 2].map(job_id));
    let applied = done(
        &store,
        &[sample::start(1), sample::complete(1, 2), cancel(2)],
    );
    assert_eq!(dispatch(&applied[0]).job.attempts, AttemptNo(2));
    let of_the_job = CallFilter {
        job_id: Some(job_id(1)),
        ..CallFilter::default()
    };
    assert_eq!(store.calls(&of_the_job, None, 10).unwrap().calls.len(), 2);
    let refusal = refused(&store, requeue(1));
    assert_eq!(refusal, Refusal::WrongStatus(JobStatus::Completed));
    done(&store, &[requeue(2)]);
    assert_eq!(job(&store, 2).processed_at, None);
}

/// What came instead of an answer is there to the byte, also of a job that stepped aside, until it says nothing of the
/// job any more.
pub fn what_came_instead_of_an_answer_stays_while_it_says_something_of_the_job<S: Store>(
    open: Open<'_, S>,
) {
    let came = Arc::new(Received::new(
        &b"no, says rule 7 \xb7\xc3\r\n"[..],
        Some("text/plain; charset=gbk"),
    ));
    let ends = |n: u64, attempt: u32, next: Next| {
        let mut settlement = sample::settle(n, attempt, next);
        settlement.refusal = Some(Arc::clone(&came));
        Transition::Settle(Box::new(settlement))
    };
    let failure = sample::failure;
    let aside = || Next::Retry {
        failure: failure(),
        at: None,
        counted: false,
        throttled: false,
        interruptions: 0,
    };
    let store = open();
    for n in 1..=5 {
        done(&store, &[sample::insert(n), sample::start(n)]);
    }
    let fails = |n, failure| Transition::Fail {
        job_id: job_id(n),
        failure,
        at: sample::START,
    };
    let failed = Next::Failed { failure: failure() };
    done(&store, &[ends(1, 1, failed)]);
    for n in 2..=5 {
        done(&store, &[ends(n, 1, aside())]);
    }
    drop(store);

    let store = open();
    let kept = |n: u64| {
        let record = store.job(job_id(n)).unwrap().unwrap();
        assert!(record.refusal.is_none() || record.response.is_none());
        record.refusal
    };
    for n in 1..=5 {
        assert_eq!(kept(n).as_ref(), Some(&came), "job {n}");
    }
    // Others passed: the job fails with what it was refused with.
    done(&store, &[fails(2, failure())]);
    assert_eq!(kept(2).as_ref(), Some(&came));
    // It fails of something else.
    let late = Failure {
        code: code::DEADLINE.to_owned(),
        ..failure()
    };
    done(&store, &[fails(3, late)]);
    assert_eq!(kept(3), None);
    done(&store, &[cancel(4)]);
    assert_eq!(kept(4), None);
    done(&store, &[sample::start(5), sample::complete(5, 2)]);
    assert_eq!(kept(5), None);
    assert!(store.job(job_id(5)).unwrap().unwrap().response.is_some());
    done(&store, &[requeue(1)]);
    assert_eq!(kept(1), None);
}

/// A new priority is on record for the next start of the lane.
pub fn a_priority_changes_while_the_job_waits<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[sample::insert(1)]);
    let applied = done(&store, &[reprioritise(1, -7)]);
    assert!(matches!(&applied[0], Applied::Job(job) if job.priority == -7));
    drop(store);
    let store = open();
    let waiting = store.recover().unwrap().waiting;
    assert_eq!(waiting.iter().next().unwrap().priority, -7);
    done(&store, &[sample::start(1)]);
    let refusal = refused(&store, reprioritise(1, 0));
    assert_eq!(refusal, Refusal::WrongStatus(JobStatus::Processing));
}

/// In a batch the lawful changes are made and the others are refused alone.
pub fn a_refusal_does_not_hinder_the_others<S: Store>(open: Open<'_, S>) {
    let store = open();
    let batch = [
        sample::insert(1),
        sample::complete(1, 1),
        sample::stage(9),
        sample::insert(2),
        requeue(2),
        sample::start(1),
    ];
    let ok: Vec<bool> = commit(&store, &batch).iter().map(Result::is_ok).collect();
    assert_eq!(ok, [true, false, false, true, false, true]);
    drop(store);
    let store = open();
    assert_eq!(job(&store, 1).status, JobStatus::Processing);
    assert_eq!(job(&store, 2).status, JobStatus::Pending);
    assert!(store.usage(&UsageFilter::default()).unwrap().is_empty());
}

/// Whatever is asked of a job that is not there.
pub fn an_unknown_job_is_refused<S: Store>(open: Open<'_, S>) {
    let store = open();
    let fail = Transition::Fail {
        job_id: job_id(1),
        failure: sample::failure(),
        at: sample::START,
    };
    let asked = [
        sample::stage(1),
        unstage(1),
        sample::start(1),
        sample::complete(1, 1),
        fail,
        cancel(1),
        requeue(1),
        reprioritise(1, 1),
    ];
    for transition in asked {
        assert_eq!(refused(&store, transition), Refusal::NotFound);
    }
}

/// A whole life in one batch, and the start of the next job in the same transaction.
pub fn later_changes_of_a_batch_see_the_earlier<S: Store>(open: Open<'_, S>) {
    let store = open();
    let applied = done(
        &store,
        &[
            sample::insert(1),
            sample::insert(2),
            sample::stage(1),
            sample::start(1),
            sample::stage(2),
            sample::complete(1, 1),
            sample::start(2),
            sample::retry(2, 1, None),
            sample::start(2),
            sample::complete(2, 2),
        ],
    );
    assert!(matches!(&applied[9], Applied::Job(job) if job.status == JobStatus::Completed));
    drop(store);
    let store = open();
    assert_eq!(store.counts().unwrap().completed, 2);
    let usage = store.usage(&UsageFilter::default()).unwrap();
    assert_eq!((usage.len(), usage[0].calls, usage[0].successes), (1, 3, 2));
}

/// Waiting entries in line order, open jobs whole in line order, nothing else.
pub fn recovery_tells_what_waits_from_what_is_open<S: Store>(open: Open<'_, S>) {
    let store = open();
    let mut due = new_job(1);
    due.job.run_at = Some(sample::START.plus_ms(10));
    due.job.deadline = Some(sample::START.plus_ms(20));
    due.job.priority = 5;
    done(&store, &[submit(due)]);
    done(&store, &[8, 2, 3, 4, 5, 6].map(sample::insert));
    done(
        &store,
        &[sample::start(3), sample::stage(2), sample::stage(8)],
    );
    done(
        &store,
        &[sample::start(4), sample::complete(4, 1), cancel(5)],
    );
    drop(store);

    let recovered = open().recover().unwrap();
    let waiting: Vec<_> = recovered.waiting.iter().map(|e| e.id).collect();
    assert_eq!(waiting, [1, 6].map(job_id));
    assert!(recovered.waiting.iter().is_sorted_by_key(|e| e.seq));
    let entry = recovered.waiting.iter().next().unwrap();
    assert_eq!(entry.priority, 5);
    assert_eq!(entry.due_at(), Some(sample::START.plus_ms(10)));
    assert_eq!(entry.deadline, Some(sample::START.plus_ms(20)));
    let open: Vec<_> = recovered.open.iter().map(|j| (j.id, j.status)).collect();
    let (pending, processing) = (JobStatus::Pending, JobStatus::Processing);
    let want = [
        (job_id(8), pending),
        (job_id(2), pending),
        (job_id(3), processing),
    ];
    assert_eq!(open, want);
    assert!(recovered.open.iter().all(|job| job.open.is_some()));
}

/// The latest state counts, also when one batch sets it several times.
pub fn lane_breaker_and_config_outlive_the_process<S: Store>(open: Open<'_, S>) {
    let store = open();
    let batch = [
        Transition::Release(vec![job_id(9)]),
        Transition::Lane(SchedulerState::default()),
        Transition::Breaker(BreakerSnapshot::default()),
        Transition::Config("{}".to_owned()),
        Transition::Clock(sample::START),
        Transition::Release(vec![job_id(2), job_id(1)]),
        Transition::Lane(a_held_lane()),
        Transition::Breaker(an_open_breaker()),
        Transition::Config(r#"{"model":"glm-5"}"#.to_owned()),
        Transition::Clock(sample::START.plus_ms(5)),
    ];
    for applied in done(&store, &batch) {
        assert!(matches!(applied, Applied::Done));
    }
    drop(store);
    let store = open();
    let recovered = store.recover().unwrap();
    assert_eq!(recovered.lane, a_held_lane());
    assert_eq!(recovered.released, [job_id(2), job_id(1)]);
    assert_eq!(recovered.breaker, Some(an_open_breaker()));
    assert_eq!(store.config().unwrap().unwrap(), r#"{"model":"glm-5"}"#);
    assert_eq!(store.clock().unwrap(), Some(sample::START.plus_ms(5)));
    done(&store, &[Transition::Lane(SchedulerState::default())]);
    assert_eq!(store.recover().unwrap().lane, SchedulerState::default());
    assert_eq!(store.recover().unwrap().breaker, Some(an_open_breaker()));
}

/// Twelve jobs of two users and two models in every status.
fn a_mixed_store(store: &impl Store) {
    for n in 1..=12 {
        let mut new = new_job(n);
        if n % 2 == 0 {
            new.job.user_id = "bob".to_owned();
        }
        if n % 3 == 0 {
            new.job.model = "glm-5".to_owned();
        }
        done(store, &[submit(new)]);
    }
    done(store, &[sample::start(1), sample::complete(1, 1)]);
    done(store, &[sample::start(2), sample::complete(2, 1)]);
    done(store, &[sample::start(3), sample::fail(3, 1)]);
    done(store, &[cancel(4), sample::start(5), sample::stage(6)]);
}

fn ids(page: &crate::ports::JobPage) -> Vec<u64> {
    let first = *job_id(0).as_bytes();
    let number = |bytes: &[u8; 16]| u64::from(bytes[15] - first[15]);
    page.jobs
        .iter()
        .map(|r| number(r.job.id.as_bytes()))
        .collect()
}

/// Every filter shows its jobs newest first, whole, and counts all that match.
pub fn a_list_of_jobs_is_newest_first_and_counts_all<S: Store>(open: Open<'_, S>) {
    let store = open();
    a_mixed_store(&store);
    let check = |status, user: Option<&str>, model: Option<&str>, want: &[u64]| {
        let filter = JobFilter {
            status,
            user_id: user.map(str::to_owned),
            model: model.map(str::to_owned),
            ..JobFilter::default()
        };
        let page = store.jobs(&filter, None, 100).unwrap();
        assert_eq!(ids(&page), want, "{filter:?}");
        assert_eq!(
            (page.total, page.cursor),
            (want.len() as u64, None),
            "{filter:?}"
        );
        let short = store.jobs(&filter, None, 1).unwrap();
        assert_eq!(short.total, want.len() as u64, "{filter:?}");
        assert_eq!(ids(&short), want[..want.len().min(1)], "{filter:?}");
    };
    check(None, None, None, &[12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
    check(
        Some(JobStatus::Pending),
        None,
        None,
        &[12, 11, 10, 9, 8, 7, 6],
    );
    check(Some(JobStatus::Processing), None, None, &[5]);
    check(Some(JobStatus::Completed), None, None, &[2, 1]);
    check(Some(JobStatus::Failed), None, None, &[3]);
    check(Some(JobStatus::Cancelled), None, None, &[4]);
    check(None, Some("bob"), None, &[12, 10, 8, 6, 4, 2]);
    check(None, None, Some("glm-5"), &[12, 9, 6, 3]);
    check(None, Some("bob"), Some("glm-5"), &[12, 6]);
    check(Some(JobStatus::Completed), Some("bob"), None, &[2]);
    check(Some(JobStatus::Failed), Some("bob"), None, &[]);
    check(None, Some("nobody"), None, &[]);
    let record = &store.jobs(&JobFilter::default(), None, 12).unwrap().jobs[11];
    assert!(matches!(record.request.as_deref(), Some(Request::Prompt(text)) if text == "prompt 1"));
    assert_eq!(
        record.response.as_ref().unwrap().get(),
        sample::answer(1).get()
    );
}

/// Walking the pages shows each job once, even while new ones arrive.
pub fn a_list_of_jobs_pages_without_gap_or_double<S: Store>(open: Open<'_, S>) {
    let store = open();
    a_mixed_store(&store);
    let filters = [
        (None, None, vec![12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
        (Some(JobStatus::Pending), None, vec![12, 11, 10, 9, 8, 7, 6]),
        (None, Some("bob"), vec![12, 10, 8, 6, 4, 2]),
    ];
    for (status, user, want) in filters {
        let filter = JobFilter {
            status,
            user_id: user.map(str::to_owned),
            model: None,
            ..JobFilter::default()
        };
        for limit in [1, 2, 3, 5, 12] {
            let (mut seen, mut cursor) = (Vec::new(), None);
            loop {
                let page = store.jobs(&filter, cursor, limit).unwrap();
                assert!(page.jobs.len() <= limit);
                seen.extend(ids(&page));
                cursor = page.cursor;
                if cursor.is_none() {
                    break;
                }
                assert_eq!(page.jobs.len(), limit, "a page before the last is full");
            }
            assert_eq!(seen, want, "{filter:?} by {limit}");
        }
    }
    let all = JobFilter::default();
    let first = store.jobs(&all, None, 10).unwrap();
    done(&store, &[sample::insert(13)]);
    let second = store.jobs(&all, first.cursor, 10).unwrap();
    assert_eq!(ids(&second), [2, 1]);
    assert_eq!((second.total, second.cursor), (13, None));
}

/// A page of a list that hardly anything matches ends early and says where to go on; the time of a call
/// narrows it.
pub fn a_page_of_the_call_log_looks_at_so_many_rows<S: Store>(open: Open<'_, S>) {
    let store = open();
    let calls = limits::CALLS_LOOKED_AT_MAX as u64 + 5;
    let lives: Vec<_> = (1..=calls)
        .map(|n| {
            let mut complete = sample::complete(n, 1);
            if let (Transition::Settle(settlement), 1 | 2) = (&mut complete, n) {
                settlement.call.started_at = sample::START.minus_ms(n);
            }
            [sample::insert(n), sample::start(n), complete]
        })
        .collect();
    for some in lives.chunks(1_000) {
        done(&store, &some.concat());
    }
    let filter = CallFilter {
        from: Some(sample::START.minus_ms(1)),
        before: Some(sample::START),
        ..CallFilter::default()
    };
    let first = store.calls(&filter, None, 10).unwrap();
    assert_eq!((first.calls.len(), first.cursor), (0, Some(5)));
    let rest = store.calls(&filter, first.cursor, 10).unwrap();
    let found: Vec<_> = rest.calls.iter().map(|call| call.job_id).collect();
    assert_eq!((found, rest.cursor), (vec![job_id(1)], None));
    let all = store
        .calls(&CallFilter::default(), None, usize::MAX)
        .unwrap();
    assert_eq!(all.calls.len(), limits::CALLS_LOOKED_AT_MAX);
}

/// The log by job, user, model and outcome, in pages.
pub fn the_call_log_is_newest_first_and_filtered<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[1, 2, 3].map(sample::insert));
    done(&store, &[sample::start(1), sample::retry(1, 1, None)]);
    done(&store, &[sample::start(2), sample::complete(2, 1)]);
    done(&store, &[sample::start(1), sample::complete(1, 2)]);
    let mut other = sample::settle(
        3,
        1,
        Next::Failed {
            failure: sample::failure(),
        },
    );
    other.call.user_id = "bob".to_owned();
    other.call.model = "glm-5".to_owned();
    done(
        &store,
        &[sample::start(3), Transition::Settle(Box::new(other))],
    );
    let check = |filter: CallFilter, want: &[(u64, u32)]| {
        let want: Vec<_> = want
            .iter()
            .map(|(n, a)| (job_id(*n), AttemptNo(*a)))
            .collect();
        for limit in [1, 2, 10] {
            let (mut seen, mut cursor) = (Vec::new(), None);
            loop {
                let page = store.calls(&filter, cursor, limit).unwrap();
                assert!(page.calls.len() <= limit);
                assert!(page.calls.is_sorted_by(|a, b| a.seq > b.seq));
                seen.extend(page.calls.iter().map(|c| (c.job_id, c.attempt)));
                cursor = page.cursor;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(seen, want, "{filter:?} by {limit}");
        }
    };
    let all = CallFilter::default;
    check(all(), &[(3, 1), (1, 2), (2, 1), (1, 1)]);
    let job_id = |n| Some(job_id(n));
    check(
        CallFilter {
            job_id: job_id(1),
            ..all()
        },
        &[(1, 2), (1, 1)],
    );
    check(
        CallFilter {
            job_id: job_id(9),
            ..all()
        },
        &[],
    );
    let outcome = Some(CallOutcome::Completed);
    check(CallFilter { outcome, ..all() }, &[(1, 2), (2, 1)]);
    check(
        CallFilter {
            job_id: job_id(1),
            outcome,
            ..all()
        },
        &[(1, 2)],
    );
    check(
        CallFilter {
            user_id: Some("bob".to_owned()),
            ..all()
        },
        &[(3, 1)],
    );
    check(
        CallFilter {
            model: Some("glm-5".to_owned()),
            ..all()
        },
        &[(3, 1)],
    );
    check(
        CallFilter {
            model: Some("glm".to_owned()),
            ..all()
        },
        &[],
    );
}

/// What is known of where an attempt's time went is kept, and summed up with its answer.
pub fn the_parts_of_an_attempt_stay_with_it_and_are_summed_up<S: Store>(open: Open<'_, S>) {
    let parts = Parts {
        staged_ms: Some(7),
        commit_ms: None,
        connect_ms: Some(0),
        first_byte_ms: Some(200),
        first_token_ms: Some(250),
    };
    let store = open();
    for n in 1..=2 {
        let response = sample::answer(20);
        let mut settlement = sample::settle(20 + n, 1, Next::Completed { response });
        // The other is not streamed, and nothing was measured of it.
        settlement.call.parts = if n == 1 { parts } else { Parts::default() };
        let ends = Transition::Settle(Box::new(settlement));
        done(
            &store,
            &[sample::insert(20 + n), sample::start(20 + n), ends],
        );
    }
    drop(store);

    let store = open();
    let calls = store.calls(&CallFilter::default(), None, 10).unwrap().calls;
    assert_eq!(calls[1].parts, parts);
    assert_eq!(calls[1].decode_ms(), Some(750));
    assert!(calls[0].parts.is_nothing());
    let rows = store.usage(&UsageFilter::default()).unwrap();
    let [row] = rows.as_slice() else {
        panic!("{rows:?}")
    };
    assert_eq!(row.first_tokens.count(), 1);
    let speed = Speed {
        tokens: 20,
        ms: 750,
    };
    assert_eq!(row.speed, speed, "the tokens behind the first");
    assert_eq!(row.response_times.count(), 2);
}

/// The aggregates are the sums over the log, by day, model and user, in that order.
pub fn usage_equals_the_call_log<S: Store>(open: Open<'_, S>) {
    const DAY_MS: u64 = 86_400_000;
    let store = open();
    let mut n = 0;
    let mut batch = Vec::new();
    for day in [2, 0, 1] {
        for (model, user) in [("b", "y"), ("a", "z"), ("a", "y"), ("a", "y")] {
            n += 1;
            let response = sample::answer(n);
            let mut settlement = sample::settle(n, 1, Next::Completed { response });
            settlement.call.ended_at = sample::START.plus_ms(day * DAY_MS);
            settlement.call.model = model.to_owned();
            settlement.call.user_id = user.to_owned();
            if n % 5 == 0 {
                settlement.call.cost = None;
            }
            batch.push(sample::insert(n));
            batch.push(sample::start(n));
            batch.push(Transition::Settle(Box::new(settlement)));
        }
    }
    let (first, second) = batch.split_at(15);
    done(&store, first);
    done(&store, second);
    drop(store);

    let store = open();
    let rows = store.usage(&UsageFilter::default()).unwrap();
    assert_eq!(rows.len(), 9);
    assert!(rows.is_sorted_by(|a, b| a.key < b.key), "{rows:?}");
    for row in &rows {
        let mut sum = UsageRow::empty(row.key.clone());
        let calls = store
            .calls(&CallFilter::default(), None, 100)
            .unwrap()
            .calls;
        for call in calls.iter().filter(|c| {
            (c.ended_at.day(), &c.model, &c.user_id)
                == (row.key.day, &row.key.model, &row.key.user_id)
        }) {
            sum.add(call);
        }
        assert_eq!(*row, sum);
    }
    let today = sample::START.day();
    let count = |start, end, model: Option<&str>, user: Option<&str>| {
        let filter = UsageFilter {
            start,
            end,
            model: model.map(str::to_owned),
            user_id: user.map(str::to_owned),
        };
        store.usage(&filter).unwrap().len()
    };
    assert_eq!(count(today, today, None, None), 3);
    assert_eq!(count(today, Day(today.0 + 1), None, None), 6);
    assert_eq!(count(Day(today.0 + 1), today, None, None), 0);
    assert_eq!(count(today, today, Some("a"), None), 2);
    assert_eq!(count(Day(0), Day(i32::MAX), Some("a"), Some("y")), 3);
    assert_eq!(count(Day(i32::MIN), Day(today.0 - 1), None, None), 0);
}

fn a_held_lane() -> SchedulerState {
    SchedulerState {
        paused: Some(Pause {
            since: sample::START,
            reason: Some("lunch".to_owned()),
        }),
        hold: Some(Hold {
            kind: HoldKind::Quota,
            code: "1308".to_owned(),
            message: "已达到使用上限".to_owned(),
            since: sample::START,
            until: Some(Wait::from(sample::START, 60_000)),
        }),
        endpoint_digest: Some("d1".to_owned()),
        in_doubt: true,
        ..SchedulerState::default()
    }
}

fn an_open_breaker() -> BreakerSnapshot {
    BreakerSnapshot {
        state: BreakerState::Open,
        since: sample::START,
        probe_at: Some(Wait::from(sample::START, 30_000)),
        consecutive_failures: 5,
        openings: 1,
        window_calls: 20,
        window_failures: 10,
        reason: Some("conn".to_owned()),
        forced: false,
    }
}

/// Checks that a store whose last commit failed with `error` keeps saying so until it is recovered,
/// and goes on afterwards. The caller brings about the failure.
pub fn assert_stopped_until_recovered(store: &impl Store, error: &StoreError) {
    let refused = store.commit(&[sample::insert(999)]).expect_err("stopped");
    assert_eq!(refused, *error);
    store.recover().expect("recovered");
    done(store, &[sample::insert(999)]);
}
