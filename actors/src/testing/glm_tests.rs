use super::*;
use crate::testing::sample;
use onelane_core::model::{AttemptNo, Endpoint, Request, RequestId, Reuse, Secret, Timeouts};

fn call(n: u64, model: &str) -> GlmCall {
    let job_id = sample::job_id(n);
    GlmCall {
        issued: Default::default(),
        job_id,
        attempt: AttemptNo(1),
        request_id: RequestId::new(job_id, AttemptNo(1)),
        endpoint: Endpoint {
            base_url: "http://glm".to_owned(),
            faces: Default::default(),
            api_key: Some(Secret::new("id.secret")),
        },
        model: model.to_owned(),
        request: Arc::new(Request::prompt("hi").unwrap()),
        max_tokens: None,
        temperature: None,
        timeouts: Timeouts::default(),
        poll_ms: 1_000,
        streams: false,
        relay: None,
        headers: Default::default(),
        trace: None,
        call_ids: Default::default(),
        marks: Default::default(),
        reuse: Reuse::default(),
        session: None,
    }
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn never() -> CancellationToken {
    CancellationToken::new()
}

#[tokio::test(start_paused = true)]
async fn every_call_is_traced_from_its_beginning_to_its_end() {
    let begun = Instant::now();
    let glm = ScriptedGlm::new(|n, call| {
        let takes = if call.model == "slow" { 5 } else { 1 };
        match n {
            0 => (secs(takes), failed(FailureClass::Throttle, "1302")),
            _ => (secs(takes), answer()),
        }
    });
    let (first, second) = tokio::join!(
        glm.call(call(1, "fast"), never()),
        glm.call(call(2, "slow"), never()),
    );
    assert!(matches!(first.read(), GlmOutcome::Failed(..)));
    assert!(matches!(second.read(), GlmOutcome::Answered(_)));
    let later = Instant::now();
    // One that lies ready is no call yet.
    drop(glm.call(call(9, "slow"), never()));
    drop(begun_call(&glm, call(3, "slow")).await);
    let open = begun_call(&glm, call(4, "slow")).await;
    assert_eq!((glm.in_flight(), glm.in_flight_of("slow")), (1, 1));

    let traces = glm.traces();
    let times: Vec<_> = traces
        .iter()
        .map(|t| {
            let ended = t.ended.map(|ended| (ended - begun).as_secs());
            (t.model.as_str(), (t.began - begun).as_secs(), ended)
        })
        .collect();
    assert_eq!(
        times,
        [
            ("fast", 0, Some(1)),
            ("slow", 0, Some(5)),
            ("slow", 5, Some(5)),
            ("slow", 5, None)
        ]
    );
    assert_eq!((glm.peak(), glm.peak_of("slow")), (2, 1));
    assert_eq!((glm.peak_of("other"), glm.peak_since(later)), (0, 1));
    assert_eq!(glm.calls(), [1, 2, 3, 4].map(sample::job_id));
    drop(open);
    assert_eq!(glm.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_task_is_fetched_as_often_as_wanted_and_bought_once() {
    let begun = Instant::now();
    let glm = ScriptedGlm::new(|_, _| (secs(30), answer()));
    let TaskOutcome::Accepted(id) = glm.submit_task(call(1, "m"), never()).await else {
        panic!("accepted at once")
    };
    assert_eq!((begun.elapsed(), glm.in_flight()), (secs(0), 0));
    assert_eq!(glm.accepted(), [(sample::job_id(1), id.clone())]);

    // A lane that was killed while it waited fetches anew.
    drop(glm.fetch_task(call(1, "m"), id.clone(), never()));
    for _ in 0..2 {
        let outcome = glm.fetch_task(call(1, "m"), id.clone(), never()).await;
        assert!(matches!(outcome, GlmOutcome::Answered(_)));
        assert_eq!(begun.elapsed(), secs(30));
    }
    assert_eq!(glm.calls(), [sample::job_id(1)]);
    let asked: Vec<_> = glm.traces().iter().map(|t| t.kind).collect();
    assert_eq!(asked[0], CallKind::SubmitTask);
    assert_eq!(asked[1..], [CallKind::FetchTask; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_task_of_another_account_is_unknown_and_an_unfinished_one_times_out() {
    let glm = ScriptedGlm::new(|_, _| (secs(30), answer()));
    let TaskOutcome::Accepted(id) = glm.submit_task(call(1, "m"), never()).await else {
        panic!("accepted at once")
    };
    let check = async |call: GlmCall, id: &str, code: &str| match glm
        .fetch_task(call, id.to_owned(), never())
        .await
    {
        GlmOutcome::Failed(failure, _) => {
            assert_eq!((failure.code.as_str(), failure.maybe_billed), (code, true));
        }
        other => panic!("{other:?}"),
    };
    check(call(1, "m"), "task-999999", "1233").await;
    let mut other = call(1, "m");
    other.endpoint.api_key = Some(Secret::new("other.secret"));
    check(other, &id, "1233").await;
    let mut hasty = call(1, "m");
    hasty.timeouts.total_ms = 10_000;
    check(hasty, &id, code::TIMEOUT_TOTAL).await;
    let aborted = never();
    aborted.cancel();
    let outcome = glm.fetch_task(call(1, "m"), id, aborted).await;
    assert!(matches!(outcome, GlmOutcome::Aborted));
}

#[tokio::test(start_paused = true)]
async fn a_submission_may_be_refused_and_aborted() {
    let refusal = || Failure::new(FailureClass::Throttle, "1302", "scripted");
    let glm = ScriptedGlm::with_submissions(
        |_, _| (secs(1), failed(FailureClass::RequestFatal, "1301")),
        move |n, _| match n {
            0 => (secs(1), Err(refusal())),
            _ => (secs(2), Ok(())),
        },
    );
    match glm.submit_task(call(1, "m"), never()).await {
        TaskOutcome::Failed(failure, _) => assert_eq!(failure.code, "1302"),
        other => panic!("{other:?}"),
    }
    let aborted = never();
    aborted.cancel();
    let outcome = glm.submit_task(call(1, "m"), aborted).await;
    assert!(matches!(outcome, TaskOutcome::Aborted));
    let TaskOutcome::Accepted(id) = glm.submit_task(call(1, "m"), never()).await else {
        panic!("accepted")
    };
    assert_eq!(glm.accepted().len(), 1);
    match glm.fetch_task(call(1, "m"), id, never()).await {
        GlmOutcome::Failed(failure, _) => assert_eq!(failure.code, "1301"),
        other => panic!("{other:?}"),
    }
}

/// A call that has set out.
async fn begun_call(glm: &ScriptedGlm, call: GlmCall) -> CallFuture {
    let mut call = glm.call(call, never());
    tokio::select! {
        biased;
        end = &mut call => panic!("{end:?}"),
        () = std::future::ready(()) => call,
    }
}

/// A transport that makes calls only.
struct Plain;

impl Glm for Plain {
    fn call(&self, _: GlmCall, _: CancellationToken) -> CallFuture {
        Box::pin(async { answer().into() })
    }
}

#[tokio::test]
async fn a_transport_without_tasks_says_so() {
    let TaskOutcome::Failed(failure, _) = Plain.submit_task(call(1, "m"), never()).await else {
        panic!("no tasks")
    };
    assert_eq!(failure.code, code::ASYNC_UNSUPPORTED);
    let outcome = Plain
        .fetch_task(call(1, "m"), "task-1".to_owned(), never())
        .await;
    assert!(
        matches!(outcome, GlmOutcome::Failed(failure, _) if failure.code == code::ASYNC_UNSUPPORTED)
    );
    assert_eq!(
        Plain.task_url(&call(1, "m").endpoint),
        "http://glm/async/chat/completions"
    );
}
