//! Tasks of the asynchronous API against the simulator over a socket: what is fetched is never bought
//! again, whatever happens to the looks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use onelane_actors::ports::{Glm, GlmAnswer, GlmCall, GlmOutcome, TaskOutcome};
use onelane_actors::testing::glm_call;
use onelane_core::model::{
    Endpoint, Failure, FailureClass as C, Request, Secret, Timeouts, code, limits,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::HttpGlm;
use crate::simulator::{
    ErrorFault, Fault, Operation, Rule, Shape, Simulator, SimulatorConfig, Span, Step,
};
use crate::system::SystemClock;

const KEY: &str = "0123456789abcdef.TopSecretTopSecret";

fn call_to(base_url: &str) -> GlmCall {
    let chat = r#"{"messages":[{"role":"user","content":"a task"}],"stream":true,"top_p":0.5}"#;
    GlmCall {
        endpoint: Endpoint {
            base_url: base_url.to_owned(),
            faces: Default::default(),
            api_key: Some(Secret::new(KEY)),
        },
        poll_ms: 5,
        timeouts: Timeouts {
            connect_ms: 5_000,
            first_byte_ms: 5_000,
            idle_ms: 5_000,
            stall_ms: 5_000,
            total_ms: 10_000,
        },
        ..glm_call(9, 1, Request::chat(chat).unwrap())
    }
}

struct World {
    sim: Simulator,
    glm: HttpGlm,
    call: GlmCall,
}

impl World {
    fn new(task_ms: u64, script: Vec<Step>) -> Self {
        let sim = Simulator::start(SimulatorConfig {
            task_ms: Span::Fixed(task_ms),
            script,
            ..SimulatorConfig::default()
        })
        .unwrap();
        let call = call_to(&sim.base_url());
        Self {
            sim,
            glm: HttpGlm::new(Arc::new(SystemClock)).unwrap(),
            call,
        }
    }

    async fn submit(&self) -> TaskOutcome {
        self.glm
            .submit_task(self.call.clone(), CancellationToken::new())
            .await
    }

    async fn accepted(&self) -> String {
        match self.submit().await {
            TaskOutcome::Accepted(id) => id,
            other => panic!("{other:?}"),
        }
    }

    async fn refused(&self) -> Failure {
        match self.submit().await {
            TaskOutcome::Failed(failure, _) => failure,
            other => panic!("{other:?}"),
        }
    }

    async fn fetch(&self, id: &str) -> GlmOutcome {
        self.glm
            .fetch_task(self.call.clone(), id.to_owned(), CancellationToken::new())
            .await
    }

    async fn answer(&self, id: &str) -> GlmAnswer {
        match self.fetch(id).await {
            GlmOutcome::Answered(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    async fn failure(&self, id: &str) -> Failure {
        match self.fetch(id).await {
            GlmOutcome::Failed(failure, _) => failure,
            other => panic!("{other:?}"),
        }
    }

    /// Nothing of a call is left open, and whatever was answered was bought once.
    fn check_clean(&self) {
        let stats = self.sim.stats();
        assert_eq!(stats.bought, stats.works_bought, "{stats:?}");
    }
}

#[track_caller]
fn check(failure: &Failure, class: C, code: &str, billed: bool) {
    assert_eq!(failure.class, class, "{failure}");
    assert_eq!(failure.code.as_str(), code, "{failure}");
    assert_eq!(failure.maybe_billed, billed, "{failure}");
    assert!(!failure.message.contains("TopSecret"), "{failure}");
}

fn custom(status: u16, body: &str) -> Fault {
    Fault::Custom {
        status,
        headers: std::collections::BTreeMap::new(),
        body: body.to_owned(),
    }
}

#[tokio::test]
async fn a_task_is_handed_over_and_its_answer_fetched_with_its_tokens() {
    let world = World::new(40, Vec::new());
    let id = world.accepted().await;
    let got = world.answer(&id).await;
    assert_eq!(got.status_code, 200);
    let body: Value = serde_json::from_str(got.body.get()).unwrap();
    assert_eq!(body["id"], json!(id));
    assert_eq!(body["task_status"], "SUCCESS");
    assert_eq!(body["request_id"], world.call.request_id.as_str());
    assert_eq!(body["usage"]["total_tokens"], got.usage.total_tokens);
    assert!(got.usage.completion_tokens > 0);

    let stats = world.sim.stats();
    assert_eq!((stats.calls, stats.task_submissions), (1, 1));
    assert!(stats.task_looks >= 1 && stats.connections == 2, "{stats:?}");
    assert_eq!((stats.in_flight, stats.peak_in_flight), (0, 1));
    world.check_clean();
}

#[tokio::test]
async fn a_refused_submission_is_classified_as_a_call_is() {
    let shapes = [Shape::Nested, Shape::FlatNumber, Shape::Bracketed];
    let world = World::new(0, Vec::new());
    for (code, class) in [
        ("1302", C::Throttle),
        ("1305", C::Overload),
        ("1113", C::OperatorFatal),
        ("1308", C::QuotaWindow),
        ("1212", C::RequestFatal),
        ("1231", C::DuplicateRequest),
        ("1234", C::ServerTransient),
    ] {
        for shape in shapes {
            for status in [None, Some(200)] {
                world.sim.push_fault(Fault::Error(ErrorFault {
                    shape,
                    status,
                    ..ErrorFault::of(code)
                }));
                check(&world.refused().await, class, code, false);
            }
        }
    }
    let faults = [
        (Fault::HtmlPage { status: 502 }, "http_502", false),
        (Fault::EmptyBody { status: 200 }, code::BODY_INVALID, true),
        (Fault::NotJson { status: 200 }, code::BODY_INVALID, true),
        (Fault::CutBody, code::CONNECTION, true),
        (Fault::Reset, code::CONNECTION, true),
    ];
    let bodies = [
        "{}",
        "[1]",
        r#"{"id":7,"task_status":"PROCESSING"}"#,
        r#"{"id":"../files","task_status":"PROCESSING"}"#,
        &format!(r#"{{"id":"{}"}}"#, "x".repeat(129)),
    ];
    let bodies = bodies.map(|body| (custom(200, body), code::BODY_INVALID, true));
    let faults = faults.into_iter().chain(bodies);
    for (fault, code, billed) in faults {
        world.sim.push_fault(fault);
        check(&world.refused().await, C::ServerTransient, code, billed);
    }
    let accepted = r#"{"id":"a-B_9","code":0,"task_status":"PROCESSING"}"#;
    world.sim.push_fault(custom(200, accepted));
    assert_eq!(world.accepted().await, "a-B_9");
}

#[tokio::test]
async fn a_task_is_known_whatever_a_relay_wraps_around_it() {
    let task = r#"{"id":"t-1","task_status":"PROCESSING"}"#;
    for body in [
        format!("\u{feff}{task}\n"),
        format!("data: {task}\n\n"),
        format!("{task}\n<!-- relay 3 -->"),
        format!(r#"{{"code":200,"success":true,"data":{task}}}"#),
    ] {
        let world = World::new(0, vec![custom(200, &body).into()]);
        assert_eq!(world.accepted().await, "t-1", "{body}");
    }
}

#[tokio::test]
async fn what_passes_is_borne_and_looked_at_again() {
    let world = World::new(0, Vec::new());
    let id = world.accepted().await;
    let passing = [
        Fault::error("500"),
        Fault::error("1302"),
        Fault::error("1305"),
        Fault::error("1308"),
        Fault::HtmlPage { status: 502 },
        Fault::HtmlPage { status: 200 },
        Fault::EmptyBody { status: 429 },
        Fault::EmptyBody { status: 200 },
        Fault::Reset,
        Fault::CutBody,
        custom(200, "{}"),
        custom(200, r#"{"task_status":"QUEUED"}"#),
        custom(200, r#"{"code":1302,"msg":"slow","success":false}"#),
    ];
    let looks = passing.len() as u64 + 1;
    for fault in passing {
        world.sim.add_rule(Rule::for_looks(fault).times(1));
    }
    world.answer(&id).await;
    let stats = world.sim.stats();
    assert_eq!((stats.task_looks, stats.bought), (looks, 1));
}

#[tokio::test]
async fn a_server_that_is_away_for_a_while_costs_no_task() {
    // The simulator comes back on the same port, with the task lost: a plain server shows the waiting.
    let addr = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let glm = HttpGlm::new(Arc::new(SystemClock)).unwrap();
    let call = call_to(&format!("http://{addr}/api/paas/v4"));
    let fetching = tokio::spawn(glm.fetch_task(call, "t-1".to_owned(), CancellationToken::new()));
    tokio::time::sleep(Duration::from_millis(30)).await;
    let sim = Simulator::start(SimulatorConfig {
        listen: addr,
        ..SimulatorConfig::default()
    })
    .unwrap();
    let GlmOutcome::Failed(failure, _) = fetching.await.unwrap() else {
        panic!("the new server does not know it")
    };
    check(&failure, C::ServerTransient, "1233", true);
    assert_eq!(sim.stats().task_looks, 1);
}

#[tokio::test]
async fn an_unknown_task_is_to_be_called_anew_and_may_have_been_billed() {
    let mut world = World::new(0, Vec::new());
    let id = world.accepted().await;
    let failure = world.failure("never").await;
    check(&failure, C::ServerTransient, "1233", true);
    world.call.endpoint.api_key = Some(Secret::new("other.key"));
    let failure = world.failure(&id).await;
    check(&failure, C::ServerTransient, "1233", true);
    assert_eq!(failure.status_code, Some(400));
    assert_eq!(world.sim.stats().task_looks, 2, "once is enough to know");
}

#[tokio::test]
async fn an_id_that_leads_elsewhere_is_not_asked_for() {
    let world = World::new(0, Vec::new());
    let long = "x".repeat(limits::TASK_ID_CHARS_MAX + 1);
    for id in [
        "", ".", "..", "../files", "a/b", "a?b=c", "a#b", "a%2fb", "a b", "ä", &long,
    ] {
        check(&world.failure(id).await, C::ServerTransient, "1233", true);
    }
    assert_eq!(world.sim.stats().connections, 0);
}

#[tokio::test]
async fn a_failure_that_does_not_pass_ends_the_looking() {
    let world = World::new(3_600_000, Vec::new());
    let id = world.accepted().await;
    let forbidden = Fault::EmptyBody { status: 403 };
    let refused = custom(200, r#"{"code":1001,"msg":"no","success":false}"#);
    let hollow = custom(200, r#"{"task_status":"SUCCESS","choices":[]}"#);
    for (fault, class, code) in [
        (Fault::error("1000"), C::OperatorFatal, "1000"),
        (forbidden, C::Unattributed, "http_403"),
        (Fault::error("1222"), C::RequestFatal, "1222"),
        (refused, C::OperatorFatal, "1001"),
        (hollow, C::ServerTransient, code::BODY_INVALID),
    ] {
        world.sim.add_rule(Rule::for_looks(fault).times(1));
        check(&world.failure(&id).await, class, code, true);
    }
    let stats = world.sim.stats();
    assert_eq!((stats.task_looks, stats.task_submissions), (5, 1));
}

#[tokio::test]
async fn a_task_that_failed_says_what_of() {
    let fail = |error: Option<ErrorFault>| Fault::FailTask { error };
    let script = vec![
        fail(Some(ErrorFault::of("1301"))).into(),
        fail(Some(ErrorFault::of("1234"))).into(),
        fail(None).into(),
        Fault::finish_reason("network_error").into(),
    ];
    let world = World::new(5, script);
    for (class, code, billed) in [
        (C::RequestFatal, "1301", false),
        (C::ServerTransient, "1234", false),
        (C::ServerTransient, code::TASK_FAILED, true),
        // Its tokens are known.
        (C::ServerTransient, "finish:network_error", false),
    ] {
        let id = world.accepted().await;
        check(&world.failure(&id).await, class, code, billed);
    }
    assert_eq!(world.sim.stats().bought, 1);
}

#[tokio::test]
async fn a_task_that_failed_keeps_what_it_used() {
    let world = World::new(5, Vec::new());
    let id = world.accepted().await;
    let body = r#"{"task_status":"FAIL","usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
    world
        .sim
        .add_rule(Rule::for_looks(custom(200, body)).times(1));
    let GlmOutcome::Failed(failure, usage) = world.fetch(&id).await else {
        panic!("it failed")
    };
    check(&failure, C::ServerTransient, code::TASK_FAILED, false);
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (5, 2));
}

#[tokio::test]
async fn a_task_that_is_not_done_in_time_says_how_it_stood() {
    let mut world = World::new(3_600_000, Vec::new());
    world.call.timeouts.total_ms = 250;
    world.call.poll_ms = 100;
    let id = world.accepted().await;
    let begun = Instant::now();
    let failure = world.failure(&id).await;
    check(&failure, C::ServerTransient, code::TIMEOUT_TOTAL, true);
    assert!(failure.message.contains("PROCESSING"), "{failure}");
    assert!(begun.elapsed() >= Duration::from_millis(250));
    assert!(world.sim.stats().task_looks >= 2);

    // A look that hangs is left and closed; the whole still ends in time.
    world.sim.add_rule(Rule::for_looks(Fault::Hang));
    let failure = world.failure(&id).await;
    check(&failure, C::ServerTransient, code::TIMEOUT_TOTAL, true);
    let stats = world.sim.stats();
    assert_eq!((stats.in_flight, stats.open_connections), (1, 0));
}

#[tokio::test]
async fn a_look_that_hangs_is_given_up_and_the_next_one_sees_the_answer() {
    let mut world = World::new(0, Vec::new());
    let id = world.accepted().await;
    // Long enough for a busy machine to answer the look that does not hang.
    world.call.timeouts.first_byte_ms = 500;
    for fault in [Fault::Hang, Fault::Hang] {
        world.sim.add_rule(Rule::for_looks(fault).times(1));
    }
    world.answer(&id).await;
    let looks: Vec<_> = world
        .sim
        .arrivals()
        .into_iter()
        .filter(|a| a.operation == Operation::FetchTask)
        .collect();
    assert_eq!(looks.len(), 3);
    // One look at a time, each closed before the next.
    for pair in looks.windows(2) {
        assert!(pair[0].end_us.unwrap() <= pair[1].at_us && pair[0].client_left);
    }
}

async fn abort_when(is: impl Fn() -> bool, abort: &CancellationToken) {
    while !is() {
        tokio::task::yield_now().await;
    }
    abort.cancel();
}

#[tokio::test]
async fn an_abort_ends_a_submission_a_look_and_the_time_between() {
    let world = World::new(3_600_000, vec![Fault::Hang.into()]);
    let abort = CancellationToken::new();
    let (outcome, ()) = tokio::join!(
        world.glm.submit_task(world.call.clone(), abort.clone()),
        abort_when(|| world.sim.stats().in_flight == 1, &abort),
    );
    assert!(matches!(outcome, TaskOutcome::Aborted));
    assert_eq!(world.sim.stats().open_connections, 0);

    let id = world.accepted().await;
    // Between two looks.
    let abort = CancellationToken::new();
    let patient = GlmCall {
        poll_ms: 3_600_000,
        ..world.call.clone()
    };
    let (outcome, ()) = tokio::join!(
        world.glm.fetch_task(patient, id.clone(), abort.clone()),
        abort_when(|| world.sim.stats().by_status.get(&200) == Some(&2), &abort),
    );
    assert!(matches!(outcome, GlmOutcome::Aborted));

    // In the middle of one.
    world.sim.add_rule(Rule::for_looks(Fault::Hang));
    let abort = CancellationToken::new();
    let (outcome, ()) = tokio::join!(
        world
            .glm
            .fetch_task(world.call.clone(), id.clone(), abort.clone()),
        abort_when(|| world.sim.stats().task_looks == 2, &abort),
    );
    assert!(matches!(outcome, GlmOutcome::Aborted));
    assert_eq!(world.sim.stats().open_connections, 0);

    let outcome = world
        .glm
        .fetch_task(world.call.clone(), id, abort.clone())
        .await;
    assert!(matches!(outcome, GlmOutcome::Aborted));
    let outcome = world.glm.submit_task(world.call.clone(), abort).await;
    assert!(matches!(outcome, TaskOutcome::NotSent));
    assert_eq!(world.sim.stats().task_looks, 2, "nothing was sent");
}

#[tokio::test]
async fn without_a_key_nothing_is_handed_over_or_fetched() {
    let mut world = World::new(0, Vec::new());
    world.call.endpoint.api_key = None;
    let refused = world.refused().await;
    check(&refused, C::OperatorFatal, code::NO_API_KEY, false);
    // The task may be done all the same.
    let failure = world.failure("t-1").await;
    check(&failure, C::OperatorFatal, code::NO_API_KEY, true);
    assert_eq!(world.sim.stats().connections, 0);
}
