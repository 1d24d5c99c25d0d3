//! Guards: what `/metrics` tells is what the table names, and what happened; each lane counts for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::{
    Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use onelane::config::{BudgetSection, ServerSection};
use onelane::meters::table::{self, Kind, Meter, Values};
use onelane::model::{JobStatus, Secret};
use onelane::simulator::{AccountScript, ErrorFault, Fault, QuotaScript, Rule, ScriptUpdate};
use onelane::{Orchestrator, Registry};
use reqwest::Method;
use serde_json::json;

use crate::support::api::Api;
use crate::support::http::{
    BLOCKER, HttpLane, completed, ended, prompt, submit, until, until_held,
};

/// A series: its name and its labels.
type Series = (String, BTreeMap<String, String>);

/// What a scrape says.
struct Scrape {
    kinds: BTreeMap<String, String>,
    helps: BTreeSet<String>,
    samples: BTreeMap<Series, f64>,
}

impl Scrape {
    fn read(text: &str) -> Self {
        let mut scrape = Self {
            kinds: BTreeMap::new(),
            helps: BTreeSet::new(),
            samples: BTreeMap::new(),
        };
        for line in text.lines().filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                ["#", "HELP", name, _] => drop(scrape.helps.insert(name.to_owned())),
                ["#", "TYPE", name, kind] => {
                    let twice = scrape.kinds.insert(name.to_owned(), kind.to_owned());
                    assert_eq!(twice, None, "{name}");
                }
                _ => {
                    let (series, value) = line.rsplit_once(' ').unwrap();
                    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                    let labels = labels.strip_suffix('}').unwrap().split(',');
                    let labels = labels.filter(|label| !label.is_empty()).map(|label| {
                        let (name, value) = label.split_once('=').unwrap();
                        (name.to_owned(), value.trim_matches('"').to_owned())
                    });
                    let series = (name.to_owned(), labels.collect());
                    let twice = scrape.samples.insert(series, value.parse().unwrap());
                    assert_eq!(twice, None, "{line}");
                }
            }
        }
        scrape
    }

    async fn of(api: &Api) -> Self {
        let reply = api.get("/metrics").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let media = reply.headers["content-type"].to_str().unwrap();
        assert_eq!(media, "text/plain; version=0.0.4; charset=utf-8");
        Self::read(&reply.text)
    }

    #[track_caller]
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter();
        let labels = labels.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let series = (name.to_owned(), labels.collect());
        let value = self.samples.get(&series);
        *value.unwrap_or_else(|| panic!("no {series:?} in {:#?}", self.samples.keys()))
    }
}

/// The row that a series is of.
fn meter_of(name: &str) -> Option<&'static Meter> {
    let whole = |meter: &&Meter| match meter.kind {
        Kind::Counter | Kind::Gauge => meter.name == name,
        Kind::Histogram(_) => {
            let part = name.strip_prefix(meter.name);
            matches!(part, Some("_bucket" | "_sum" | "_count"))
        }
    };
    table::ALL.iter().find(whole)
}

/// Ends a lane whose open calls nobody waits for.
async fn end(lane: Orchestrator) {
    lane.shutdown(Duration::ZERO).await;
}

/// A lane with a budget on which much has happened, and its API.
async fn busy() -> (HttpLane, Orchestrator, Api) {
    let mut world = HttpLane::new();
    let budget = BudgetSection {
        tokens: Some(1_000_000),
        ..BudgetSection::default()
    };
    world.config.money.budgets.insert("all".to_owned(), budget);
    world.config.account.enabled = true;
    let window = QuotaScript {
        kind: "TOKENS_LIMIT".to_owned(),
        percentage: Some(10.0),
        ..QuotaScript::default()
    };
    world.sim.update(ScriptUpdate {
        account: Some(AccountScript {
            quota: vec![window],
            ..AccountScript::default()
        }),
        ..ScriptUpdate::default()
    });
    world.rule(Rule::for_prompt(
        "refused",
        Fault::Error(ErrorFault::of("1210")),
    ));
    let flaky = Fault::Error(ErrorFault::of("1234"));
    world.rule(Rule {
        times: Some(1),
        ..Rule::for_prompt("flaky", flaky)
    });
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    for n in 0..5 {
        completed(&lane, submit(&lane, prompt(format!("job {n}"))).await).await;
    }
    let refused = submit(&lane, prompt("refused")).await;
    ended(&lane, refused, JobStatus::Failed).await;
    completed(&lane, submit(&lane, prompt("flaky")).await).await;
    let body = json!({"model": "glm-4.7", "stream": true, "messages": [{"role": "user", "content": "stream"}]});
    let streamed = api.post("/v1/chat/completions", body.to_string()).await;
    assert_eq!(streamed.status, 200, "{streamed:?}");
    until("GLM has told of the quota", async || {
        let account = api.get("/api/admin/glm/account").await.json();
        !account["account"]["quota"].is_null()
    })
    .await;
    // One call is open, and one job waits behind it.
    world.block(&lane).await;
    submit(&lane, prompt("waits").priority(7)).await;
    (world, lane, api)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_names_what_the_table_names_and_nothing_else() {
    let (_world, lane, api) = busy().await;
    let scrape = Scrape::of(&api).await;
    let told: BTreeSet<&str> = scrape.kinds.keys().map(String::as_str).collect();
    let known: BTreeSet<&str> = table::ALL.iter().map(|meter| meter.name).collect();
    assert_eq!(told, known);
    assert_eq!(scrape.helps.len(), known.len());
    for meter in table::ALL {
        assert_eq!(
            scrape.kinds[meter.name],
            meter.kind.name(),
            "{}",
            meter.name
        );
    }
    for (name, labels) in scrape.samples.keys() {
        let meter = meter_of(name).unwrap_or_else(|| panic!("{name} is in no row"));
        let mut given: Vec<&str> = labels.keys().map(String::as_str).collect();
        given.retain(|label| *label != "le");
        let mut named: Vec<&str> = meter.labels.iter().map(|label| label.name).collect();
        named.sort_unstable();
        assert_eq!(given, named, "{name}");
        for label in meter.labels {
            if let Values::Fixed(values) = label.values {
                assert!(
                    values().contains(&labels[label.name].as_str()),
                    "{name} {labels:?}"
                );
            }
        }
    }
    assert!(scrape.samples.len() <= table::series_max());
    end(lane).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_what_happened_and_how_it_stands() {
    let (_world, lane, api) = busy().await;
    let scrape = Scrape::of(&api).await;
    let check = |name: &str, labels: &[(&str, &str)], want: f64| {
        assert_eq!(scrape.value(name, labels), want, "{name} {labels:?}");
    };
    check("onelane_jobs_submitted_total", &[], 10.0);
    check("onelane_jobs_ended_total", &[("status", "completed")], 7.0);
    check("onelane_jobs_ended_total", &[("status", "failed")], 1.0);
    check("onelane_jobs", &[("status", "pending")], 1.0);
    check("onelane_jobs", &[("status", "processing")], 1.0);
    check("onelane_attempts_total", &[("result", "completed")], 7.0);
    check(
        "onelane_attempts_total",
        &[("result", "request_fatal")],
        1.0,
    );
    check(
        "onelane_attempts_total",
        &[("result", "server_transient")],
        1.0,
    );
    check("onelane_attempts_total", &[("result", "throttle")], 0.0);
    check(
        "onelane_retries_total",
        &[("class", "server_transient")],
        1.0,
    );
    check("onelane_queue_jobs", &[("priority", "high")], 1.0);
    check("onelane_queue_jobs", &[("priority", "urgent")], 0.0);
    check("onelane_slots", &[], 1.0);
    check("onelane_slots_busy", &[], 1.0);
    check("onelane_lane_limit", &[("lane", "default")], 1.0);
    check("onelane_breaker_state", &[("state", "closed")], 1.0);
    check("onelane_paused", &[], 0.0);
    check(
        "onelane_call_seconds_count",
        &[("outcome", "completed")],
        7.0,
    );
    check(
        "onelane_response_seconds_count",
        &[("model", "glm-4.7")],
        7.0,
    );
    check(
        "onelane_first_token_seconds_count",
        &[("model", "glm-4.7")],
        1.0,
    );
    check("onelane_unpriced_calls_total", &[("model", "glm-4.7")], 0.0);
    let waits = scrape.value("onelane_wait_seconds_count", &[("priority", "normal")]);
    assert_eq!(waits, 8.0);
    let waiting = ["behind", "stage"]
        .map(|reason| scrape.value("onelane_waiting_jobs", &[("reason", reason)]));
    assert_eq!(waiting[0] + waiting[1], 1.0);
    // The books say the same.
    let figures = lane.metrics().await.unwrap();
    let tokens = |kind| {
        let labels = [("model", "glm-4.7"), ("kind", kind)];
        scrape.value("onelane_tokens_total", &labels)
    };
    let usage = figures.since_start.usage;
    assert_eq!(tokens("prompt"), usage.prompt_tokens as f64);
    assert_eq!(tokens("completion"), usage.completion_tokens as f64);
    for cost in lane.spent() {
        let labels = [("model", "glm-4.7"), ("currency", cost.currency.code())];
        assert_eq!(
            scrape.value("onelane_cost_nanos_total", &labels),
            cost.nanos as f64
        );
    }
    let used = scrape.value("onelane_budget_used_ratio", &[("budget", "all")]);
    let spent = usage.prompt_tokens + usage.completion_tokens;
    assert!((used - spent as f64 / 1_000_000.0).abs() < 1e-9, "{used}");
    for positive in [
        "onelane_commit_seconds_count",
        "onelane_commit_changes_sum",
        "onelane_store_bytes",
        "onelane_connections",
        "onelane_connections_max",
    ] {
        assert!(scrape.value(positive, &[]) > 0.0, "{positive}");
    }
    end(lane).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_lanes_of_a_process_count_apart() {
    let worlds = [HttpLane::new(), HttpLane::new()];
    let mut lanes = Vec::new();
    for world in &worlds {
        lanes.push(world.start().await);
    }
    completed(&lanes[0], submit(&lanes[0], prompt("one")).await).await;
    for (lane, jobs) in lanes.iter().zip([1.0, 0.0]) {
        let text = lane.render_metrics().await.unwrap().unwrap();
        let scrape = Scrape::read(&text);
        assert_eq!(scrape.value("onelane_jobs_submitted_total", &[]), jobs);
    }
    for lane in lanes {
        end(lane).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lane_holds_and_restarts_is_counted() {
    let world = HttpLane::new();
    world.rule(Rule::for_prompt(
        "unpaid",
        Fault::Error(ErrorFault::of("1113")),
    ));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    submit(&lane, prompt("unpaid")).await;
    until_held(&lane).await;
    lane.pause(None).await.unwrap();
    lane.breaker_open("tried".to_owned(), None).await.unwrap();
    let scrape = Scrape::of(&api).await;
    let begun = [("kind", "operator"), ("scope", "account")];
    assert_eq!(scrape.value("onelane_holds", &begun), 1.0);
    assert_eq!(scrape.value("onelane_holds_begun_total", &begun), 1.0);
    assert_eq!(scrape.value("onelane_paused", &[]), 1.0);
    assert_eq!(scrape.value("onelane_breaker_openings_total", &[]), 1.0);
    assert_eq!(
        scrape.value("onelane_breaker_state", &[("state", "open")]),
        1.0
    );
    lane.resume().await.unwrap();
    let scrape = Scrape::of(&api).await;
    assert_eq!(
        scrape.value("onelane_breaker_state", &[("state", "open")]),
        0.0
    );
    assert_eq!(scrape.value("onelane_paused", &[]), 0.0);
    end(lane).await;
}

/// Adds up what is counted, whatever its labels.
#[derive(Default)]
struct Sums(Mutex<BTreeMap<String, Arc<Sum>>>);

#[derive(Default)]
struct Sum(Mutex<u64>);

impl CounterFn for Sum {
    fn increment(&self, value: u64) {
        *self.0.lock().unwrap() += value;
    }

    fn absolute(&self, value: u64) {
        *self.0.lock().unwrap() = value;
    }
}

impl Sums {
    fn of(&self, name: &str) -> u64 {
        let sums = self.0.lock().unwrap();
        sums.get(name).map_or(0, |sum| *sum.0.lock().unwrap())
    }
}

impl Recorder for Sums {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut sums = self.0.lock().unwrap();
        let sum = sums.entry(key.name().to_owned()).or_default();
        Counter::from_arc(Arc::clone(sum))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_embeds_a_lane_may_keep_its_counts_by_a_recorder_of_its_own() {
    let world = HttpLane::new();
    let sums = Arc::new(Sums::default());
    let registry = Registry::of(Arc::clone(&sums) as _);
    let lane = Orchestrator::start_counted(&world.config, registry);
    let lane = lane.await.unwrap();
    completed(&lane, submit(&lane, prompt("one")).await).await;
    assert_eq!(sums.of("onelane_jobs_submitted_total"), 1);
    assert_eq!(sums.of("onelane_attempts_total"), 1);
    lane.sample().await.unwrap();
    assert_eq!(lane.render_metrics().await.unwrap(), None);
    let api = Api::serve(&lane).await;
    let told = api.get("/metrics").await;
    assert!(
        told.status == 200 && told.text.starts_with("# "),
        "{told:?}"
    );
    end(lane).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_for_whoever_may_look() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let token = |text: &str| Some(Secret::new(text));
    let config = ServerSection {
        listen: "127.0.0.1:0".to_owned(),
        admin_token: token("the-token-of-the-operator"),
        viewer_token: token("the-token-of-prometheus"),
        ..ServerSection::default()
    };
    let api = Api::serve_as(&lane, config).await;
    let status = async |token: &str| {
        let request = api.request(Method::GET, "/metrics").bearer_auth(token);
        Api::send(request).await.status
    };
    assert_eq!(api.get("/metrics").await.status, 401);
    assert_eq!(status("a-token-of-nobody").await, 401);
    assert_eq!(status("the-token-of-prometheus").await, 200);
    assert_eq!(status("the-token-of-the-operator").await, 200);
    end(lane).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_models_in_any_number_add_no_series_beyond_the_bound() {
    let world = HttpLane::new();
    let lane = world.start().await;
    for n in 0..120 {
        let job = prompt("one of many").user(format!("user {n}"));
        let model = format!("model-{n}");
        completed(&lane, submit(&lane, job.model(&model)).await).await;
    }
    let text = lane.render_metrics().await.unwrap().unwrap();
    let scrape = Scrape::read(&text);
    let models: BTreeSet<&String> = scrape
        .samples
        .keys()
        .filter_map(|(_, labels)| labels.get("model"))
        .collect();
    assert_eq!(models.len(), 51, "{models:?}");
    let other = scrape.value("onelane_response_seconds_count", &[("model", "other")]);
    assert_eq!(other, 70.0);
    assert!(!text.contains("user 7"));
    assert!(scrape.samples.len() <= table::series_max());
    // The blocker's prompt is of no use here, and a scrape changes nothing.
    assert_eq!(world.sim.calls_of_prompt(BLOCKER), 0);
    end(lane).await;
}
