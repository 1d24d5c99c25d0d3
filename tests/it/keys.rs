//! Guards: a client key that takes more than it may, as GLM sees it; a flood of one that starves the others; a budget
//! of a key that is overrun or that others pay for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use onelane::model::{KeyBudget, KeyRights};
use onelane::orchestrator::{NewKey, Orchestrator};
use onelane::simulator::{SimulatorConfig, Span};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::api::{Api, Reply};
use crate::support::http::{HttpLane, until};

async fn key(lane: &Orchestrator, name: &str, rights: KeyRights) -> String {
    let new = NewKey {
        rights,
        ..NewKey::named(name)
    };
    let made = lane.create_key(new).await.unwrap();
    made.text.expose().to_owned()
}

async fn post(api: &Api, key: &str, path: &str, body: &Value) -> Reply {
    let request = api.request(Method::POST, path).bearer_auth(key);
    let request = request.header("content-type", "application/json");
    Api::send(request.body(body.to_string())).await
}

async fn flood(api: &Api, key: &str, prompt: &str, model: &str, jobs: usize) {
    let job = json!({"prompt": prompt, "model": model});
    let list = Value::from(vec![job; jobs]);
    post(api, key, "/api/glm/jobs", &list).await.expect(202);
}

/// Jain's index of fairness: 1 where all got the same.
fn jain(got: &[f64]) -> f64 {
    let sum: f64 = got.iter().sum();
    let squares: f64 = got.iter().map(|x| x * x).sum();
    sum * sum / (got.len() as f64 * squares)
}

fn slow(latency_ms: u64, slots: u16) -> HttpLane {
    let mut world = HttpLane::with(SimulatorConfig {
        latency_ms: Span::Fixed(latency_ms),
        ..SimulatorConfig::default()
    });
    world.config.lane.rules.max_concurrency = slots;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_keys_with_equal_shares_and_a_flood_of_one_get_alike() {
    const CALLS: u64 = 360;
    let world = slow(5, 2);
    let lane = world.start().await;
    let api = Arc::new(Api::serve(&lane).await);
    let greedy = key(&lane, "flood", KeyRights::default()).await;
    flood(&api, &greedy, "flood", "glm-4.7", 1_000).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for n in 0..11 {
        let name = format!("key {n}");
        let key = key(&lane, &name, KeyRights::default()).await;
        for _ in 0..2 {
            let (api, key, over) = (Arc::clone(&api), key.clone(), Arc::clone(&over));
            let chat = json!({"messages": [{"role": "user", "content": name}]});
            clients.push(tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let path = "/v1/chat/completions";
                    post(&api, &key, path, &chat).await.expect(200);
                }
            }));
        }
    }
    let before = world.sim.stats().calls;
    until("enough were served", async || {
        world.sim.stats().calls >= before + CALLS
    })
    .await;
    let served = world.prompts().split_off(usize::try_from(before).unwrap());
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    for prompt in served {
        *counts.entry(prompt).or_default() += 1.0;
    }
    // It takes what the others leave, and nothing else.
    counts.remove("flood");
    let others: Vec<f64> = counts.values().copied().collect();
    assert_eq!(others.len(), 11, "{counts:?}");
    let index = jain(&others);
    assert!(index >= 0.95, "{index}: {counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_with_shares_of_1_2_and_3_get_so_many_of_the_turns() {
    let world = slow(1, 1);
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let blocker = world.block(&lane).await;
    for (name, share) in [("a", 1), ("b", 2), ("c", 3)] {
        let rights = KeyRights {
            share,
            ..KeyRights::default()
        };
        let key = key(&lane, name, rights).await;
        flood(&api, &key, name, "glm-4.7", 60).await;
    }
    lane.cancel(blocker).await.unwrap();
    until("enough were served", async || world.sim.stats().calls > 60).await;
    let served = world.prompts();
    let count = |name: &str| {
        served[1..=60]
            .iter()
            .filter(|prompt| *prompt == name)
            .count()
    };
    let counts = [count("a"), count("b"), count("c")];
    let close = |count: usize, want: usize| count.abs_diff(want) <= 2;
    assert!(
        close(counts[0], 10) && close(counts[1], 20) && close(counts[2], 30),
        "{counts:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_is_above_its_cap_as_glm_sees_it_and_the_lane_stays_busy() {
    let world = slow(20, 6);
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let capped = |calls| KeyRights {
        calls_in_flight: Some(calls),
        ..KeyRights::default()
    };
    let one = key(&lane, "one", capped(1)).await;
    let two = key(&lane, "two", capped(2)).await;
    let any = key(&lane, "any", KeyRights::default()).await;
    // Each asks for a model of its own: so GLM can tell them apart.
    flood(&api, &one, "a", "glm-one", 20).await;
    flood(&api, &two, "b", "glm-two", 40).await;
    flood(&api, &any, "c", "glm-any", 60).await;
    until("all are done", async || {
        lane.queue_status().await.unwrap().completed == 120
    })
    .await;
    let peak = |model: &str| world.sim.peak_since(0, Some(model));
    assert_eq!((peak("glm-one"), peak("glm-two")), (1, 2));
    assert!(peak("glm-any") >= 3, "{}", peak("glm-any"));
    assert!(world.sim.peak_since(0, None) <= 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_begins_no_new_minute_for_a_key() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let rights = KeyRights {
        requests_per_minute: Some(3),
        ..KeyRights::default()
    };
    let bound = key(&lane, "bound", rights).await;
    let any = key(&lane, "any", KeyRights::default()).await;
    let api = Api::serve(&lane).await;
    let job = json!({"prompt": "hi"});
    let submit = async |api: &Api, key: &str| post(api, key, "/api/glm/jobs", &job).await;
    for key in [&bound, &any, &bound, &any, &any] {
        submit(&api, key).await.expect(202);
    }
    api.stop().await;
    let lane = world.restart(lane).await;
    let api = Api::serve(&lane).await;
    submit(&api, &bound).await.expect(202);
    let refused = submit(&api, &bound).await;
    let after = refused.headers["retry-after"].to_str().unwrap();
    assert!((1..=60).contains(&after.parse::<u32>().unwrap()), "{after}");
    refused.expect(429);
    submit(&api, &any).await.expect(202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_and_responses_of_another_key_are_not_there() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let one = key(&lane, "one", KeyRights::default()).await;
    let two = key(&lane, "two", KeyRights::default()).await;
    let messages = json!([{"role": "user", "content": "hi"}]);
    let chat = json!({"model": "glm-4.7", "messages": messages});
    let task = post(&api, &one, "/api/paas/v4/async/chat/completions", &chat).await;
    let task = task.expect(200)["id"].as_str().unwrap().to_owned();
    let response = json!({"model": "glm-4.7", "input": "hi", "background": true});
    let response = post(&api, &one, "/v1/responses", &response)
        .await
        .expect(200);
    let response = response["id"].as_str().unwrap().to_owned();
    lane.wait(task.parse().unwrap()).await.unwrap();
    let get = async |key: &str, path: &str| {
        Api::send(api.request(Method::GET, path).bearer_auth(key)).await
    };
    for base in ["/api/paas/v4", "/api/coding/paas/v4", "/v1"] {
        let of = |id: &str| format!("{base}/async-result/{id}");
        let own = get(&one, &of(&task)).await.expect(200);
        assert_eq!(own["task_status"], "SUCCESS", "{own}");
        let none = "0192f000-0000-7000-8000-000000000000";
        let theirs = get(&two, &of(&task)).await;
        assert_eq!(theirs.expect(400)["code"], 1233);
        let nothing = get(&two, &of(none)).await;
        assert_eq!(theirs.text.replace(&task, none), nothing.text);
    }
    let path = format!("/v1/responses/{response}");
    get(&one, &path).await.expect(200);
    get(&two, &path).await.expect(404);
    let cancel = format!("{path}/cancel");
    post(&api, &two, &cancel, &json!({})).await.expect(404);
    for query in ["", "?status=completed", "?model=glm-4.7"] {
        let jobs = format!("/api/glm/jobs{query}");
        assert_eq!(get(&two, &jobs).await.expect(200)["total"], 0);
        assert_ne!(get(&one, &jobs).await.expect(200)["total"], 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_budget_of_a_key_stops_that_key_alone_also_after_a_restart() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let budget: KeyBudget = "1000 tokens/day".parse().unwrap();
    let rights = KeyRights {
        budget: Some(budget),
        ..KeyRights::default()
    };
    let poor = key(&lane, "poor", rights).await;
    let rich = key(&lane, "rich", KeyRights::default()).await;
    let job = |max_tokens: u32| {
        let messages = json!([{"role": "user", "content": "hi"}]);
        json!({"request": {"model": "glm-4.7", "messages": messages, "max_tokens": max_tokens}})
    };
    let api = Api::serve(&lane).await;
    let large = job(2_000);
    post(&api, &rich, "/api/glm/jobs", &large).await.expect(202);
    let refused = post(&api, &poor, "/api/glm/jobs", &large).await.expect(422);
    let words = refused["detail"].as_str().unwrap();
    assert!(words.contains("budget client key ol-"), "{words}");
    let taken = post(&api, &poor, "/api/glm/jobs", &job(100))
        .await
        .expect(202);
    let id = taken["id"].as_str().unwrap().parse().unwrap();
    lane.wait(id).await.unwrap();
    let spent = async |lane: &Orchestrator| {
        let budgets = lane.budgets().await.unwrap().budgets;
        assert_eq!(budgets.len(), 1, "{budgets:?}");
        assert!(budgets[0].account.key.is_some());
        budgets[0].spent.number()
    };
    let before = spent(&lane).await;
    assert!(before > 0);
    api.stop().await;
    let lane = world.restart(lane).await;
    assert_eq!(spent(&lane).await, before);
    let statistics = Api::serve(&lane).await;
    let by_key = statistics
        .get("/api/admin/glm/statistics?groupBy=key")
        .await;
    let by_key = by_key.expect(200);
    assert_eq!(
        by_key["statistics"].as_array().unwrap().len(),
        2,
        "{by_key}"
    );
    assert!(by_key["statistics"][0]["keyId"].is_string());
}
