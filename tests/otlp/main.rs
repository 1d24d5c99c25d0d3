//! Guards: a job is one trace, from its submission to its last call, whatever died meanwhile; who is called is told of it; and
//! a collector that is slow, down or unwilling is nobody's trouble but its own.
//!
//! Real processes, a real store, and a collector that reads what arrives.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod collector;
#[path = "../common/mod.rs"]
mod common;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use onelane::config::Sampler;
use onelane::model::{JobStatus, Secret, TraceContext};
use onelane::{Config, Orchestrator, Submission};
use serde_json::json;

use collector::{Mood, Span, hex, text};
use common::until;
use world::{ANSWER, PARENT, PARENT_SPAN, PROMPT, TRACE, World, refuse, value_of};

const INTERNAL: i32 = 1;
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;
const CONSUMER: i32 = 5;

/// The names of spans.
fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

/// The traces that spans are of.
fn traces(spans: &[Span]) -> BTreeSet<&str> {
    spans.iter().map(|span| span.trace.as_str()).collect()
}

/// Asserts that the calls of a job are below its attempts, and these and its waits below its submission.
fn are_a_tree(spans: &[Span]) {
    let submit = spans
        .iter()
        .find(|span| span.name == "submit")
        .expect("a submission");
    for span in spans {
        let above = match span.name.as_str() {
            "submit" => continue,
            "wait" | "attempt" => submit,
            "call" => spans
                .iter()
                .find(|above| above.name == "attempt" && above.id == span.parent)
                .expect("an attempt"),
            other => panic!("{other}"),
        };
        assert_eq!(span.parent, above.id, "{span:#?}");
        assert_eq!(span.trace, submit.trace);
        assert!(span.to >= span.from);
    }
}

#[test]
fn a_chat_is_one_trace_below_its_clients_span_and_glm_is_told_of_the_call() {
    let world = World::new(|_| None);
    let daemon = world.serve(&[("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a%20b")]);
    let headers = [("traceparent", PARENT), ("tracestate", "vendor=1, other=2")];
    let answer = daemon.chat(&headers);
    assert_eq!(
        (answer.status, answer.text.contains(ANSWER)),
        (200, true),
        "{answer:?}"
    );

    let spans = world.collector.wait_for(4);
    assert_eq!(names(&spans), ["submit", "wait", "attempt", "call"]);
    are_a_tree(&spans);
    let [submit, wait, attempt, call] = &spans[..] else {
        panic!("{spans:#?}")
    };
    assert_eq!(
        (submit.trace.as_str(), submit.parent.as_str()),
        (TRACE, PARENT_SPAN)
    );
    assert_eq!(
        [submit.kind, wait.kind, attempt.kind, call.kind],
        [PRODUCER, INTERNAL, CONSUMER, CLIENT]
    );
    let job = answer.headers["x-onelane-job"].to_str().unwrap();
    for span in &spans {
        assert_eq!(span.get("onelane.job.id"), job);
        assert_eq!(span.state, "vendor=1,other=2");
        assert!(!span.failed);
    }
    assert_eq!(attempt.get("onelane.attempt.outcome"), "completed");
    assert_eq!(attempt.get("onelane.attempt.number"), "1");
    assert_eq!(attempt.get("messaging.operation.type"), "process");
    assert_eq!(call.get("gen_ai.request.model"), "glm-4.7");
    assert_eq!(call.get("gen_ai.usage.input_tokens"), "10");
    assert_eq!(call.get("gen_ai.usage.output_tokens"), "5");
    assert_eq!(call.get("http.response.status_code"), "200");
    assert_eq!(call.get("server.address"), "127.0.0.1");
    assert!(call.get("onelane.cost.nanos").parse::<i64>().unwrap() > 0);
    assert_eq!(call.told(), ["connected", "first_byte"]);

    let told = world.heads();
    let traceparent = format!("00-{TRACE}-{}-01", call.id);
    assert_eq!(
        value_of(&told[0], "traceparent"),
        Some(traceparent.as_str())
    );
    assert_eq!(value_of(&told[0], "tracestate"), Some("vendor=1,other=2"));

    let service = world.collector.service();
    assert_eq!(service["service.name"], "onelane");
    let taken = world.collector.taken();
    let content = &taken[0].headers["content-type"];
    assert_eq!(content, "application/x-protobuf");
    assert!(
        taken
            .iter()
            .all(|request| request.headers["x-tenant"] == "a b")
    );
    daemon.ends();
    world.tells_no_secret();
}

#[test]
fn what_begins_here_is_a_trace_of_its_own_and_a_malformed_traceparent_is_none() {
    let world = World::new(|_| None);
    let daemon = world.serve(&[("OTEL_SERVICE_NAME", "blue")]);
    daemon.chat(&[]);
    daemon.chat(&[("traceparent", "00-xyz-01")]);
    let spans = world.collector.wait_for(8);
    let traces = traces(&spans);
    assert_eq!(traces.len(), 2);
    for trace in traces {
        let of_one: Vec<Span> = spans
            .iter()
            .filter(|span| span.trace == trace)
            .cloned()
            .collect();
        assert_eq!(of_one.len(), 4);
        are_a_tree(&of_one);
        assert_eq!(of_one[0].parent, "");
    }
    assert_eq!(world.collector.service()["service.name"], "blue");
}

#[test]
fn every_attempt_of_a_retried_job_is_told_with_its_failure_and_what_it_waited_for() {
    let world = World::new(|no| (no == 0).then(|| refuse(500, "1234", "broken")));
    let daemon = world.serve(&[]);
    daemon.chat(&[("traceparent", PARENT)]);
    let spans = world.collector.wait_for(7);
    assert_eq!(
        names(&spans),
        [
            "submit", "wait", "attempt", "call", "wait", "attempt", "call"
        ]
    );
    are_a_tree(&spans);
    assert_eq!(traces(&spans), [TRACE].into());
    for failed in &spans[2..4] {
        assert!(failed.failed);
        assert_eq!(failed.get("error.type"), "1234");
        assert_eq!(failed.get("onelane.failure.class"), "server_transient");
    }
    assert_eq!(spans[2].get("onelane.attempt.outcome"), "failed");
    let again = &spans[4];
    assert_eq!(again.get("onelane.wait.reasons"), "delayed");
    assert_eq!(again.events[0].1["error.type"], "1234");
    assert_eq!(again.from, spans[2].to);
    assert_eq!(spans[5].get("onelane.attempt.number"), "2");
    assert_eq!(spans[5].get("onelane.attempt.retries"), "1");
    assert!(!spans[5].failed && !spans[6].failed);
    // Each attempt is another span to GLM.
    let told = world.heads();
    let told: BTreeSet<_> = told
        .iter()
        .map(|head| value_of(head, "traceparent").unwrap())
        .collect();
    let calls = [&spans[3], &spans[6]].map(|call| format!("00-{TRACE}-{}-01", call.id));
    assert_eq!(told, calls.iter().map(String::as_str).collect());
}

#[test]
fn a_job_goes_on_in_its_trace_after_a_kill() {
    let world = World::new(|_| None);
    let daemon = world.serve(&[]);
    daemon.orders("pause");
    let job = daemon.submit(&[("traceparent", PARENT), ("tracestate", "a=1")]);
    let submit = world.collector.wait_for(1).remove(0);
    assert_eq!(
        (submit.name.as_str(), submit.trace.as_str()),
        ("submit", TRACE)
    );
    daemon.process.kill();

    let daemon = world.serve(&[]);
    daemon.orders("resume");
    daemon.until_completed(&job);
    let spans = world.collector.wait_for(4);
    are_a_tree(&spans);
    assert_eq!(traces(&spans), [TRACE].into());
    assert_eq!(spans[1].get("onelane.wait.reasons"), "paused");
    assert!(spans.iter().all(|span| span.state == "a=1"));
}

#[test]
fn a_job_that_ends_while_it_waits_tells_what_it_waited_for() {
    let world = World::new(|_| None);
    let daemon = world.serve(&[]);
    daemon.orders("pause");
    let job = daemon.submit(&[]);
    daemon.cancels(&job);
    let spans = world.collector.wait_for(2);
    assert_eq!(names(&spans), ["submit", "wait"]);
    are_a_tree(&spans);
    assert_eq!(spans[1].get("onelane.job.status"), "cancelled");
    assert_eq!(spans[1].get("onelane.wait.reasons"), "paused");
}

#[test]
fn a_collector_that_is_down_slow_or_unwilling_costs_spans_and_no_job() {
    const JOBS: usize = 60;
    let moods = [
        None,
        Some(Mood::Hangs),
        Some(Mood::Refuses(400)),
        Some(Mood::Refuses(503)),
    ];
    for mood in moods {
        let world = World::new(|_| None);
        let section = "queue_max = 32\nevery_ms = 10\ntimeout_ms = 300\nflush_ms = 100\n";
        world.configure(section);
        let nobody = world::nobodys_url();
        let endpoint = match mood {
            Some(mood) => {
                world.collector.is(mood);
                world.collector.url()
            }
            None => &nobody,
        };
        let daemon = world.serve(&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)]);
        for _ in 0..JOBS {
            assert_eq!(daemon.chat(&[]).status, 200);
        }
        // Four spans a job, and none of them arrives.
        let dropped = || daemon.metric("onelane_otlp_dropped_total{signal=\"traces\"}");
        until("all are dropped", || dropped() >= 4.0 * JOBS as f64);
        assert_eq!(
            daemon.metric("onelane_otlp_sent_total{signal=\"traces\"}"),
            0.0,
            "{mood:?}"
        );
        daemon.process.notes("does not take what is exported");
        if mood == Some(Mood::Refuses(400)) {
            world.collector.is(Mood::Takes);
            daemon.chat(&[]);
            daemon.process.notes("takes what is exported again");
            let sent = || daemon.metric("onelane_otlp_sent_total{signal=\"traces\"}");
            until("spans come again", || sent() >= 4.0);
        }
        daemon.ends();
    }
}

#[test]
fn what_is_not_sampled_is_not_exported_and_glm_is_told_so() {
    let world = World::new(|_| None);
    let daemon = world.serve(&[
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
    ]);
    daemon.chat(&[]);
    daemon.chat(&[("traceparent", &PARENT.replace("-01", "-00"))]);
    daemon.chat(&[("traceparent", PARENT)]);
    let spans = world.collector.wait_for(4);
    assert_eq!(traces(&spans), [TRACE].into());
    let told: Vec<String> = world.heads();
    let told: Vec<_> = told
        .iter()
        .map(|head| value_of(head, "traceparent").unwrap())
        .collect();
    assert!(
        told[0].ends_with("-00") && !told[0].contains(TRACE),
        "{told:?}"
    );
    assert!(
        told[1].ends_with("-00") && told[1].contains(TRACE),
        "{told:?}"
    );
    assert!(told[2].ends_with("-01"), "{told:?}");
}

#[test]
fn glm_is_told_of_no_trace_where_the_operator_says_so() {
    let world = World::new(|_| None);
    world.configure("propagate = \"webhooks\"\n");
    let daemon = world.serve(&[]);
    daemon.chat(&[("traceparent", PARENT), ("tracestate", "a=1")]);
    world.collector.wait_for(4);
    let told = world.heads();
    assert_eq!(value_of(&told[0], "traceparent"), None);
    assert_eq!(value_of(&told[0], "tracestate"), None);
}

#[test]
fn a_receiver_of_a_webhook_may_go_on_from_the_submission() {
    let world = World::new(|_| None);
    let receiver = world::Receiver::start();
    let hook = format!(
        "[webhooks.endpoints.ops]\nurl = \"{}\"\nsecret = \"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\"\n\
         events = [\"job.completed\"]\n",
        receiver.url
    );
    world.configure(&hook);
    let daemon = world.serve(&[]);
    daemon.chat(&[("traceparent", PARENT), ("tracestate", "a=1")]);
    until("the webhook comes", || !receiver.heads().is_empty());
    let head = receiver.heads().remove(0);
    let submit = world.collector.wait_for(4).remove(0);
    let traceparent = format!("00-{TRACE}-{}-01", submit.id);
    assert_eq!(value_of(&head, "traceparent"), Some(traceparent.as_str()));
    assert_eq!(value_of(&head, "tracestate"), Some("a=1"));
}

#[test]
fn the_jobs_of_a_batch_are_traces_of_their_own_that_are_linked_to_its_request() {
    let world = World::new(|_| None);
    let daemon = world.serve(&[]);
    daemon.batch(2, &[("traceparent", PARENT)]);
    let spans = world.collector.wait_for(8);
    assert_eq!(traces(&spans).len(), 2);
    assert!(!traces(&spans).contains(TRACE));
    let submits: Vec<&Span> = spans.iter().filter(|span| span.name == "submit").collect();
    for submit in submits {
        assert_eq!(submit.parent, "");
        assert_eq!(submit.links, [(TRACE.to_owned(), PARENT_SPAN.to_owned())]);
        assert!(submit.get("onelane.batch.id").starts_with("batch_"));
    }
}

#[test]
fn the_lines_of_a_run_are_traces_of_their_own() {
    let world = World::new(|_| None);
    world.place.write("prompts.jsonl", common::prompts(3));
    let base_url = world.base_url();
    let args = ["run", "prompts.jsonl", "--base-url", &base_url];
    common::run(&mut world.command(&args, &[])).with(0);
    let spans = world.collector.wait_for(12);
    assert_eq!(traces(&spans).len(), 3);
    assert_eq!(
        spans.iter().filter(|span| span.parent.is_empty()).count(),
        3
    );
}

#[test]
fn a_line_of_the_log_is_a_record_in_the_trace_of_its_job() {
    let world = World::new(|_| Some(refuse(400, "1210", "bad")));
    let daemon = world.serve(&[]);
    daemon.chat(&[("traceparent", PARENT)]);
    let spans = world.collector.wait_for(4);
    let is_it = |body: &str| body == "a job failed";
    let find = || {
        let logs = world.collector.logs().into_iter();
        logs.into_iter().find(|log| is_it(&text(log.body.clone())))
    };
    until("the line comes", || find().is_some());
    let line = find().unwrap();
    assert_eq!(line.severity_text, "WARN");
    assert_eq!(hex(&line.trace_id), TRACE);
    let attempt = spans.iter().find(|span| span.name == "attempt").unwrap();
    assert_eq!(hex(&line.span_id), attempt.id);
    let fields = collector::words(line.attributes);
    assert_eq!(fields["error_code"], "1210");
    assert_eq!(fields["job_id"], attempt.get("onelane.job.id"));
    let sent = || daemon.metric("onelane_otlp_sent_total{signal=\"logs\"}");
    until("they are counted", || sent() >= 1.0);
    daemon.ends();
    world.tells_no_secret();
}

#[test]
fn the_end_of_the_process_sends_what_waits() {
    let world = World::new(|_| None);
    world.configure("every_ms = 600000\n");
    let daemon = world.serve(&[]);
    daemon.chat(&[]);
    assert_eq!(world.collector.spans(), []);
    daemon.ends();
    assert_eq!(world.collector.spans().len(), 4);
    let logs = world.collector.logs();
    assert!(!logs.is_empty());
}

#[test]
fn a_variable_of_open_telemetry_that_makes_no_sense_is_left_out_with_a_warning() {
    let world = World::new(|_| None);
    let daemon = world.serve(&[
        ("OTEL_TRACES_SAMPLER", "xray"),
        ("OTEL_TRACES_SAMPLER_ARG", ""),
    ]);
    daemon.process.notes("OTEL_TRACES_SAMPLER is left out");
    daemon.chat(&[]);
    world.collector.wait_for(4);
    daemon.ends();

    let daemon = world.serve(&[("OTEL_SDK_DISABLED", "true")]);
    let taken = world.collector.taken().len();
    daemon.chat(&[("traceparent", PARENT)]);
    daemon.ends();
    assert_eq!(world.collector.taken().len(), taken);
    let told = world.heads();
    assert_eq!(value_of(&told[1], "traceparent"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedding_program_hands_its_own_span_in() {
    let world = World::new(|_| None);
    let mut config = Config::default();
    config.store.path = world.place.path("lane.redb").display().to_string();
    config.glm.base_url = world.base_url();
    config.glm.api_key = Some(Secret::new("test-key"));
    config.otlp.endpoint = Some(world.collector.url().to_owned());
    config.otlp.sampler = Sampler::AlwaysOn;
    let lane = Orchestrator::start(&config).await.unwrap();
    let parent = TraceContext::read(PARENT, None).unwrap();
    let job = Submission::prompt(PROMPT).unwrap().trace(parent);
    let record = lane.call(job).await.unwrap();
    assert_eq!(record.job.status, JobStatus::Completed);
    lane.shutdown(Duration::from_secs(10)).await;
    let spans = world.collector.wait_for(4);
    are_a_tree(&spans);
    assert_eq!(spans[0].parent, PARENT_SPAN);
    assert_eq!(spans[0].get("onelane.job.id"), record.job.id.to_string());
    let wire = serde_json::to_value(&record.job).unwrap();
    assert_eq!(wire.get("trace"), None, "{}", json!(wire));
}
