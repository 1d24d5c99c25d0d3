//! Guards: a submission that is lost, taken twice or refused without a reason; a job that can't be given
//! up, waited for, found, or brought back.

use onelane::error::Error;
use onelane::model::{CallOutcome, Event, JobStatus, Request, Submission};
use onelane::ports::{CallFilter, JobFilter};
use onelane::simulator::{Fault, Rule};
use onelane_actors::protocol::{QueueMsg, SubmitError};
use ractor::rpc::CallResult;
use serde_json::{Value, json};

use crate::support::http::{
    BLOCKER, HttpLane, PATIENCE, calling, completed, next_event, prompt, started, submit, until,
    waiting,
};
use crate::support::ms;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_of_glm_is_stored_verbatim_and_outlives_a_restart() {
    let world = HttpLane::new();
    let body = r#"{"id":"x","choices":[{"message":{"content":"hi","new":null}}],"created":1.50,"usage":{"total_tokens":3},"later":[ ]}"#;
    world.sim.push_fault(Fault::Custom {
        status: 200,
        headers: Default::default(),
        body: body.to_owned(),
    });
    let lane = world.start().await;
    let record = lane.call(prompt("verbatim")).await.unwrap();
    assert_eq!(record.response.unwrap().get(), body);
    let lane = world.restart(lane).await;
    let again = lane.wait(record.job.id).await.unwrap();
    assert_eq!(again.response.unwrap().get(), body);
    assert!(matches!(again.request.as_deref(), Some(Request::Prompt(text)) if text == "verbatim"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_submissions_the_refused_ones_say_why_and_hinder_no_other() {
    let (world, lane) = started().await;
    let jobs = vec![
        prompt("first"),
        prompt("second").user(""),
        prompt("third").idempotency_key("key"),
        prompt("third").idempotency_key("key"),
        prompt("not the third").idempotency_key("key"),
        prompt("sixth").model("m".repeat(129)),
        prompt("seventh"),
    ];
    let answers = lane.submit_many(jobs).await.unwrap();
    let ids: Vec<_> = answers.iter().map(|a| a.as_ref().ok()).collect();
    let [
        Some(first),
        None,
        Some(third),
        Some(again),
        None,
        None,
        Some(seventh),
    ] = ids.as_slice()
    else {
        panic!("{answers:?}")
    };
    assert!(first.created && third.created && seventh.created);
    assert_eq!((again.job_id, again.created), (third.job_id, false));
    let refused = |at: usize| answers[at].as_ref().unwrap_err();
    assert!(matches!(refused(1), Error::Invalid { field, .. } if field == "userId"));
    assert!(matches!(refused(4), Error::IdempotencyConflict(id) if *id == third.job_id));
    assert!(matches!(refused(5), Error::Invalid { field, .. } if field == "model"));
    for job in [first, third, seventh] {
        completed(&lane, job.job_id).await;
    }
    assert_eq!(world.prompts(), ["first", "third", "seventh"]);
    assert!(lane.submit_many(Vec::new()).await.unwrap().is_empty());
    let too_many = vec![prompt("x"); 10_001];
    assert!(matches!(
        lane.submit_many(too_many).await,
        Err(Error::Invalid { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_jobs_have_ids_that_rise_in_their_order_and_the_first_of_two_request_ids_is_kept() {
    let (_world, lane) = started().await;
    lane.pause(None).await.unwrap();
    let named = |text: &str| {
        let body = format!(
            r#"{{"request_id":"the-same-one","messages":[{{"role":"user","content":"{text}"}}]}}"#
        );
        Submission::chat(&body).unwrap()
    };
    let mut jobs: Vec<Submission> = (0..300).map(|n| prompt(format!("{n}"))).collect();
    jobs[40] = named("first");
    jobs[280] = named("second");
    for wrong in [3, 149, 150, 299] {
        jobs[wrong] = prompt("refused").user("");
    }
    let answers = lane.submit_many(jobs).await.unwrap();
    let refused = answers
        .iter()
        .enumerate()
        .filter(|(_, answer)| answer.is_err());
    let refused: Vec<usize> = refused.map(|(at, _)| at).collect();
    assert_eq!(refused, [3, 149, 150, 299]);
    let ids: Vec<_> = answers.iter().flatten().map(|new| new.job_id).collect();
    assert!(ids.is_sorted());
    for (at, keeps) in [(40, true), (280, false)] {
        let id = answers[at].as_ref().unwrap().job_id;
        let job = lane.job(id).await.unwrap().record.job;
        assert_eq!(job.request_id.is_some(), keeps, "{at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_jobs_than_fit_one_transaction_all_run_in_their_order() {
    let (world, lane) = started().await;
    lane.pause(None).await.unwrap();
    let jobs = (0..1_500).map(|n| prompt(format!("{n}"))).collect();
    let answers = lane.submit_many(jobs).await.unwrap();
    assert_eq!(answers.iter().flatten().count(), 1_500);
    assert_eq!(lane.queue_status().await.unwrap().pending, 1_500);
    lane.resume().await.unwrap();
    until("the first hundred are called", async || {
        world.sim.stats().calls > 100
    })
    .await;
    let want: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(world.prompts()[..100], want);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_and_one_request_are_one_job_and_another_request_is_a_conflict() {
    let (world, lane) = started().await;
    let chat = |json: &str| Submission::chat(json).unwrap().idempotency_key("key");
    let first = lane
        .submit(chat(
            r#"{"messages":[{"role":"user","content":"hi"}],"top_p":0.9}"#,
        ))
        .await
        .unwrap();
    assert!(first.created);
    // The same meaning in other words; while it waits or runs, when it is done, after a restart.
    let same =
        || chat(r#"{ "top_p":0.9, "messages":[{"content":"hi","role":"user"}] }"#).priority(5);
    let other = || chat(r#"{"messages":[{"role":"user","content":"ho"}]}"#);
    let check = async |lane: &onelane::orchestrator::Orchestrator| {
        let again = lane.submit(same()).await.unwrap();
        assert_eq!((again.job_id, again.created), (first.job_id, false));
        let conflict = lane.submit(other()).await;
        assert!(matches!(conflict, Err(Error::IdempotencyConflict(id)) if id == first.job_id));
        // A key is its user's own.
        let others = lane.submit(other().user("somebody else")).await.unwrap();
        others.created
    };
    assert!(check(&lane).await);
    lane.wait(first.job_id).await.unwrap();
    assert!(!check(&lane).await);
    let lane = world.restart(lane).await;
    assert!(!check(&lane).await);
    let record = lane.call(same()).await.unwrap();
    assert_eq!(record.job.id, first.job_id, "and its answer");
    assert_eq!(world.prompts(), ["hi", "ho"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_job_is_cancelled_without_a_call() {
    let (world, lane) = started().await;
    let blocker = world.block(&lane).await;
    let mut jobs = Vec::new();
    for text in ["staged", "in line", "kept"] {
        jobs.push(submit(&lane, prompt(text)).await);
    }
    let waiter = waiting(&lane, jobs[0]);
    for id in &jobs[..2] {
        lane.cancel(*id).await.unwrap();
        // Once more is as good as once.
        lane.cancel(*id).await.unwrap();
        let job = lane.job(*id).await.unwrap();
        assert_eq!(job.record.job.status, JobStatus::Cancelled);
        assert!(job.record.job.processed_at.is_some());
        assert!(job.attempts.is_empty());
    }
    let record = waiter.await.unwrap().unwrap();
    assert_eq!(record.job.status, JobStatus::Cancelled);
    lane.cancel(blocker).await.unwrap();
    lane.wait(jobs[2]).await.unwrap();
    assert_eq!(world.prompts(), [BLOCKER, "kept"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_job_is_cancelled_by_closing_its_call() {
    let (world, lane) = started().await;
    let caller = calling(&lane, prompt(BLOCKER));
    world.until_in_flight(1).await;
    let filter = JobFilter {
        status: Some(JobStatus::Processing),
        ..JobFilter::default()
    };
    let page = lane.jobs(filter, None, 10).await.unwrap();
    let id = page.jobs[0].job.id;
    lane.cancel(id).await.unwrap();
    // Once that is acknowledged the server has seen the end of the connection.
    let stats = world.sim.stats();
    assert_eq!((stats.in_flight, stats.clients_left), (0, 1));
    assert!(matches!(
        caller.await.unwrap(),
        Err(Error::JobCancelled(job)) if job == id
    ));
    let job = lane.job(id).await.unwrap();
    assert_eq!(job.record.job.status, JobStatus::Cancelled);
    let [attempt] = job.attempts.as_slice() else {
        panic!("{:?}", job.attempts)
    };
    assert_eq!(attempt.outcome, CallOutcome::Cancelled);
    assert!(attempt.maybe_billed);
    lane.call(prompt("the next")).await.unwrap();
    assert_eq!(world.sim.stats().peak_in_flight, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_ended_or_never_was_says_so() {
    let (_world, lane) = started().await;
    let done = lane.call(prompt("done")).await.unwrap().job.id;
    let is_completed = |error: Error| {
        matches!(&error, Error::WrongStatus { job_id, status: JobStatus::Completed, .. }
            if *job_id == done)
    };
    assert!(is_completed(lane.cancel(done).await.unwrap_err()));
    assert!(is_completed(lane.retry(done).await.unwrap_err()));
    assert!(is_completed(lane.reprioritise(done, 1).await.unwrap_err()));
    let unknown = "0199a000-0000-7000-8000-000000000001".parse().unwrap();
    let not_found = |error: Error| matches!(error, Error::NotFound(id) if id == unknown);
    assert!(not_found(lane.cancel(unknown).await.unwrap_err()));
    assert!(not_found(lane.retry(unknown).await.unwrap_err()));
    assert!(not_found(lane.reprioritise(unknown, 1).await.unwrap_err()));
    assert!(not_found(lane.job(unknown).await.unwrap_err()));
    assert!(not_found(lane.wait(unknown).await.unwrap_err()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_retried_by_hand_with_fresh_retries_and_its_history() {
    let world = HttpLane::new();
    world.rule(Rule::for_prompt("doomed", Fault::error("1234")));
    let lane = world.start().await;
    let mut doomed = prompt("doomed");
    doomed.max_retries = Some(1);
    let id = submit(&lane, doomed).await;
    let job = lane.wait(id).await.unwrap().job;
    assert_eq!((job.status, job.retry_count), (JobStatus::Failed, 1));

    lane.pause(None).await.unwrap();
    lane.retry(id).await.unwrap();
    let job = lane.job(id).await.unwrap();
    assert_eq!(job.record.job.status, JobStatus::Pending);
    assert_eq!(job.record.job.retry_count, 0, "it starts afresh");
    assert_eq!(job.record.job.processed_at, None);
    assert_eq!(job.attempts.len(), 2, "the history stays");
    assert!(matches!(
        lane.retry(id).await,
        Err(Error::WrongStatus {
            status: JobStatus::Pending,
            ..
        })
    ));
    lane.resume().await.unwrap();
    let job = lane.wait(id).await.unwrap().job;
    assert_eq!((job.status, job.retry_count), (JobStatus::Failed, 1));

    world.sim.clear_script();
    lane.retry(id).await.unwrap();
    let record = completed(&lane, id).await;
    assert_eq!(record.job.error, None);
    let attempts = lane.job(id).await.unwrap().attempts;
    let numbers: Vec<u32> = attempts.iter().map(|call| call.attempt.0).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    let log = lane.calls(CallFilter::default(), None, 10).await.unwrap();
    assert_eq!(log.calls.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_can_be_brought_back() {
    let (world, lane) = started().await;
    let blocker = world.block(&lane).await;
    let id = submit(&lane, prompt("back again")).await;
    lane.cancel(id).await.unwrap();
    lane.retry(id).await.unwrap();
    lane.cancel(blocker).await.unwrap();
    completed(&lane, id).await;
    assert_eq!(world.sim.calls_of_prompt("back again"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_too_short_is_told_and_the_job_goes_on() {
    let (world, lane) = started().await;
    let blocker = world.block(&lane).await;
    let id = submit(&lane, prompt("retry_policy")).await;
    let waited = lane.wait_for(id, ms(50)).await;
    assert!(matches!(waited, Err(Error::WaitTimeout(job)) if job == id));
    let job = lane.job(id).await.unwrap().record.job;
    assert_eq!(job.status, JobStatus::Pending);
    lane.cancel(blocker).await.unwrap();
    let record = lane.wait_for(id, PATIENCE).await.unwrap();
    assert_eq!(record.job.status, JobStatus::Completed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_what_is_new_and_answers_what_is_known() {
    let mut world = HttpLane::new();
    world.config.lane.max_queue_jobs = 2;
    let lane = world.start().await;
    let blocker = world.block(&lane).await;
    lane.submit(prompt("a").idempotency_key("a")).await.unwrap();
    let b = submit(&lane, prompt("b")).await;
    let full = lane.submit(prompt("c")).await;
    assert!(matches!(full, Err(Error::QueueFull { limit: 2 })));
    let again = lane.submit(prompt("a").idempotency_key("a")).await.unwrap();
    assert!(!again.created);
    // A place that is free is taken again.
    lane.cancel(b).await.unwrap();
    lane.submit(prompt("c")).await.unwrap();
    lane.cancel(blocker).await.unwrap();
    until("all are done", async || {
        lane.queue_status().await.unwrap().pending == 0
    })
    .await;
    lane.submit(prompt("d")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_message_to_the_queue_submits_a_job() {
    let (_world, lane) = started().await;
    let queue = lane.queue().await.unwrap();
    let ask = async |submission: Submission| {
        let asked = queue.call(
            |reply| QueueMsg::Submit {
                submission: Box::new(submission),
                reply,
            },
            Some(PATIENCE),
        );
        match asked.await.unwrap() {
            CallResult::Success(answer) => answer,
            other => panic!("{other:?}"),
        }
    };
    let submitted = ask(prompt("by message").idempotency_key("m"))
        .await
        .unwrap();
    assert!(submitted.created);
    let waited = queue.call(
        |reply| QueueMsg::Wait {
            job_id: submitted.job_id,
            early: false,
            reply,
        },
        Some(PATIENCE),
    );
    assert!(matches!(waited.await.unwrap(), CallResult::Success(_)));
    completed(&lane, submitted.job_id).await;
    let again = ask(prompt("by message").idempotency_key("m"))
        .await
        .unwrap();
    assert_eq!((again.job_id, again.created), (submitted.job_id, false));
    let refused = ask(prompt("by message").user("")).await;
    assert!(matches!(refused, Err(SubmitError::Invalid(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_events_of_a_job_come_in_the_order_of_its_life() {
    let world = HttpLane::new();
    world.sim.push_fault(Fault::error("1234"));
    let lane = world.start().await;
    let mut events = lane.subscribe();
    let id = lane.call(prompt("a life")).await.unwrap().job.id;
    let mut names = Vec::new();
    while names.last() != Some(&"job.completed") {
        let name = next_event(&mut events, |event| {
            (event.job_id() == Some(id)).then(|| event.name())
        });
        names.push(name.await);
    }
    assert_eq!(
        names,
        [
            "job.submitted",
            "job.started",
            "job.retrying",
            "job.started",
            "job.completed"
        ]
    );
    // What is told is on disk.
    let cancelled = lane
        .submit({
            let mut later = prompt("later");
            later.run_at = Some(onelane::model::Timestamp::from_millis(i64::MAX));
            later
        })
        .await
        .unwrap()
        .job_id;
    lane.cancel(cancelled).await.unwrap();
    let told = next_event(&mut events, |event| match event {
        Event::JobCancelled { job_id } => Some(*job_id),
        _ => None,
    });
    assert_eq!(told.await, cancelled);
    lane.shutdown(PATIENCE).await;
    drop(lane);
    while let Some(feed) = events.next().await {
        drop(feed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_of_a_submission_comes_back() {
    let (world, lane) = started().await;
    let mut full = prompt("all of it")
        .model("glm-5")
        .user("alice")
        .content_id("chapter 7")
        .priority(-3)
        .idempotency_key("k");
    full.max_retries = Some(9);
    full.timeout_ms = Some(30_000);
    full.metadata = Some(serde_json::value::to_raw_value(&json!({"n": 1})).unwrap());
    let job = lane.call(full).await.unwrap().job;
    assert_eq!(job.model, "glm-5");
    assert_eq!(job.user_id, "alice");
    assert_eq!(job.content_id.as_deref(), Some("chapter 7"));
    assert_eq!(job.priority, -3);
    assert_eq!(job.idempotency_key.as_deref(), Some("k"));
    assert_eq!((job.max_retries, job.timeout_ms), (9, Some(30_000)));
    let metadata: Value = serde_json::from_str(job.metadata.unwrap().get()).unwrap();
    assert_eq!(metadata, json!({"n": 1}));
    assert_eq!(world.sim.arrivals()[0].model, "glm-5");
}
