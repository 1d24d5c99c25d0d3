//! Guards: every rule about calls raises and clears on a running lane, and is told as event, in the
//! figures and to webhooks; on virtual time.

use std::sync::Arc;
use std::time::Duration;

use onelane::Config;
use onelane::config::Loaded;
use onelane::model::{AlertKey, AlertRule, Event, FailureClass};
use onelane::orchestrator::{Events, Feed, Orchestrator, Parts, Submission};
use onelane::webhooks::{EndpointSettings, Post, Sender, Sending, Sent, SigningKeys};
use onelane_actors::FaultPoints;
use onelane_actors::ports::{GlmAnswer, GlmOutcome};
use onelane_actors::testing::{MemoryStore, ScriptedGlm, SeededIds, SimClock, answer, failed};

use crate::support::{GENEROUS, START, ms};

/// Takes everything.
struct Takes;

impl Sender for Takes {
    fn send(&self, _post: Post) -> Sending {
        Box::pin(async { Sent::Answered(204) })
    }
}

/// Rules are looked at every second, and none is on.
fn config() -> Config {
    let mut config = Config::default();
    config.alerts.every_ms = 1_000;
    let rules = config.alerts.rules.0.values_mut();
    rules.for_each(|rule| rule.enabled = false);
    let endpoint = EndpointSettings {
        url: "https://example.com/hook".to_owned(),
        secret: SigningKeys::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").ok(),
        secret_file: None,
        events: ["alert.raised", "alert.cleared"]
            .map(str::to_owned)
            .to_vec(),
    };
    config.webhooks.endpoints.insert("ops".to_owned(), endpoint);
    config
}

/// A rule that is on, and waits so long.
fn switched_on<'c>(config: &'c mut Config, rule: &str, for_ms: u64) -> &'c mut AlertRule {
    let rule = config.alerts.rules.rule_mut(rule);
    (rule.enabled, rule.for_ms) = (true, for_ms);
    rule
}

async fn start(config: &Config, glm: ScriptedGlm) -> Orchestrator {
    let parts = Parts {
        registry: onelane::Registry::default(),
        tokens: None,
        store: Arc::new(MemoryStore::new()),
        glm: Arc::new(glm),
        clock: Arc::new(SimClock::starting_at(START)),
        ids: Arc::new(SeededIds::new(7)),
        config: Loaded::from_config(config).unwrap(),
        budget: GENEROUS,
        fault_points: FaultPoints::default(),
    };
    Orchestrator::start_sending(parts, Arc::new(Takes))
        .await
        .unwrap()
}

/// The first so many calls are `first`, the others `then`, each after its time.
fn script(
    count: usize,
    first: (Duration, GlmOutcome),
    then: (Duration, GlmOutcome),
) -> ScriptedGlm {
    ScriptedGlm::new(move |n, _| {
        if n < count {
            first.clone()
        } else {
            then.clone()
        }
    })
}

async fn call(lane: &Orchestrator, count: usize) {
    for n in 0..count {
        let mut job = Submission::prompt(format!("{n}")).unwrap();
        job.max_retries = Some(0);
        // How it ends is the script's affair.
        let _ = lane.call(job).await;
    }
}

/// Waits until an alert about this is active, or is not, and looks at what tells so.
async fn until(lane: &Orchestrator, key: &AlertKey, active: bool) {
    for _ in 0..7_200 {
        if lane.alerts().active(key).is_some() == active {
            return;
        }
        tokio::time::sleep(ms(1_000)).await;
    }
    panic!("{key}: never {active}");
}

/// Stops the lane and tells what became of alerts as its events have it, and how many were delivered.
async fn told(lane: Orchestrator, mut events: Events) -> (Vec<String>, u64) {
    tokio::time::sleep(ms(2_000)).await;
    let delivered = lane.metrics().await.unwrap().deliveries.delivered;
    lane.shutdown(ms(1_000)).await;
    drop(lane);
    let mut told = Vec::new();
    while let Some(feed) = events.next().await {
        let Feed::Event(_, event) = feed else {
            continue;
        };
        match &*event {
            Event::AlertRaised { alert } => told.push(format!("raised {}", alert.key)),
            Event::AlertCleared { past } => told.push(format!("cleared {}", past.alert.key)),
            _ => {}
        }
    }
    (told, delivered)
}

/// What an alert about this key is told as, once raised and once cleared, by event and by webhook.
fn both(key: &AlertKey) -> (Vec<String>, u64) {
    (vec![format!("raised {key}"), format!("cleared {key}")], 2)
}

#[tokio::test(start_paused = true)]
async fn errors_raise_an_alert_and_answers_clear_it() {
    let mut config = config();
    let rule = switched_on(&mut config, "error_rate", 2_000);
    rule.min_calls = Some(5);
    config.breaker.consecutive_failures = 1_000;
    config.breaker.failure_rate = 1.0;
    config.breaker.min_calls = 1_000;
    let bad = failed(FailureClass::ServerTransient, "500");
    let lane = start(&config, script(6, (ms(10), bad), (ms(10), answer()))).await;
    let events = lane.subscribe();
    call(&lane, 6).await;
    until(&lane, &AlertKey::of("error_rate"), true).await;
    call(&lane, 40).await;
    until(&lane, &AlertKey::of("error_rate"), false).await;
    assert_eq!(told(lane, events).await, both(&AlertKey::of("error_rate")));
}

#[tokio::test(start_paused = true)]
async fn errors_are_over_although_nobody_calls_any_more() {
    let mut config = config();
    let rule = switched_on(&mut config, "error_rate", 2_000);
    rule.min_calls = Some(5);
    let bad = failed(FailureClass::ServerTransient, "500");
    let lane = start(&config, script(9, (ms(10), bad.clone()), (ms(10), bad))).await;
    let events = lane.subscribe();
    for _ in 0..5 {
        lane.breaker_reset().await.unwrap();
        call(&lane, 1).await;
    }
    until(&lane, &AlertKey::of("error_rate"), true).await;
    until(&lane, &AlertKey::of("error_rate"), false).await;
    assert_eq!(told(lane, events).await, both(&AlertKey::of("error_rate")));
}

#[tokio::test(start_paused = true)]
async fn slow_answers_raise_an_alert_and_quick_ones_clear_it() {
    let mut config = config();
    let rule = switched_on(&mut config, "response_time", 2_000);
    rule.min_calls = Some(3);
    (rule.threshold, rule.hysteresis) = ("5000".parse().ok(), Some(0.8));
    let lane = start(
        &config,
        script(3, (ms(6_000), answer()), (ms(10), answer())),
    )
    .await;
    let events = lane.subscribe();
    call(&lane, 3).await;
    until(&lane, &AlertKey::of("response_time"), true).await;
    call(&lane, 100).await;
    until(&lane, &AlertKey::of("response_time"), false).await;
    assert_eq!(
        told(lane, events).await,
        both(&AlertKey::of("response_time"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_hour_that_costs_too_much_raises_an_alert_until_it_has_passed() {
    let mut config = config();
    switched_on(&mut config, "spend", 0).threshold = "0.001".parse().ok();
    let GlmOutcome::Answered(plain) = answer() else {
        panic!("an answer")
    };
    let usage = onelane::model::Usage {
        prompt_tokens: 1_000_000,
        completion_tokens: 1_000_000,
        total_tokens: 2_000_000,
        ..plain.usage
    };
    let dear = GlmOutcome::Answered(GlmAnswer { usage, ..plain });
    let lane = start(&config, script(1, (ms(10), dear), (ms(10), answer()))).await;
    let events = lane.subscribe();
    call(&lane, 1).await;
    let key = AlertKey::about("spend", "CNY");
    until(&lane, &key, true).await;
    assert!(lane.alerts().active[0].level > 1_000_000);
    until(&lane, &key, false).await;
    assert_eq!(told(lane, events).await, both(&key));
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_raises_an_alert_and_a_closed_one_clears_it() {
    let mut config = config();
    switched_on(&mut config, "breaker", 2_000);
    let lane = start(&config, ScriptedGlm::answering(ms(10))).await;
    let events = lane.subscribe();
    lane.breaker_open("a test".to_owned(), None).await.unwrap();
    until(&lane, &AlertKey::of("breaker"), true).await;
    lane.breaker_reset().await.unwrap();
    until(&lane, &AlertKey::of("breaker"), false).await;
    assert_eq!(told(lane, events).await, both(&AlertKey::of("breaker")));
}

#[tokio::test(start_paused = true)]
async fn a_shorter_time_between_looks_is_in_force_at_once() {
    let mut config = config();
    config.alerts.every_ms = 3_600_000;
    switched_on(&mut config, "breaker", 0);
    let lane = start(&config, ScriptedGlm::answering(ms(10))).await;
    lane.breaker_open("a test".to_owned(), None).await.unwrap();
    tokio::time::sleep(ms(10_000)).await;
    assert!(lane.alerts().active.is_empty());
    let sooner = serde_json::json!({"alerts": {"every": 1_000}});
    lane.set_config(&sooner).await.unwrap();
    tokio::time::sleep(ms(3_000)).await;
    assert_eq!(lane.alerts().active.len(), 1);
    lane.shutdown(ms(1_000)).await;
}
