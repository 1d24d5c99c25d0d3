//! Guards: the six endpoints of the story, end to end on a real lane: exact names, a change that is live
//! at once and kept, a key that never shows.

use onelane::config::ServerSection;
use onelane::model::Secret;
use onelane::simulator::{AnswerWith, Fault, Rule, SimulatorConfig, Tokens};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::api::{Api, Reply, fields};
use crate::support::http::{BLOCKER, HttpLane, KEY, all_usage, prompt, until_held};
use crate::support::ms;

const CONFIG: &str = "/api/admin/glm/config";

/// 1,000 tokens an answer.
fn thousand() -> SimulatorConfig {
    SimulatorConfig {
        tokens: Tokens::Fixed {
            prompt: 600,
            completion: 400,
            cached: 100,
        },
        ..SimulatorConfig::default()
    }
}

/// Whether every one of `wanted` is a field of the object.
#[track_caller]
fn has_fields(object: &Value, wanted: &[&str]) {
    let there = fields(object);
    for name in wanted {
        assert!(there.contains(name), "no {name}: {object}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_is_shown_with_its_key_masked() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let reply = api.get(CONFIG).await;
    let body = reply.expect(200);
    assert_eq!(fields(&body), ["config"]);
    let config = &body["config"];
    has_fields(
        config,
        &[
            "id",
            "apiKey",
            "baseUrl",
            "model",
            "maxTokens",
            "temperature",
            "timeout",
            "maxRetries",
            "isActive",
            "createdAt",
            "updatedAt",
            "maxConcurrency",
            "retry",
            "breaker",
        ],
    );
    assert_eq!(config["apiKey"], "****cret");
    assert_eq!(config["baseUrl"], world.sim.base_url());
    assert_eq!(config["timeout"], 600_000, "in milliseconds");
    assert!(!reply.text.contains("first-secret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_in_force_for_the_next_call_and_outlives_a_restart() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    lane.call(prompt("one")).await.unwrap();
    let secret = "fedcba9876543210.another-secret";
    let change = json!({"model": "glm-5", "maxTokens": 77, "apiKey": secret});
    world.sim.set_keys([secret]);
    let reply = api.put(CONFIG, change.to_string()).await;
    let config = &reply.expect(200)["config"];
    assert_eq!(
        (&config["model"], &config["maxTokens"]),
        (&json!("glm-5"), &json!(77))
    );
    assert_eq!(config["apiKey"], "****cret");
    assert!(!reply.text.contains("another-secret"));
    lane.call(prompt("two")).await.unwrap();
    assert_eq!(world.sim.arrivals()[1].model, "glm-5");

    api.stop().await;
    let lane = world.restart(lane).await;
    let api = Api::serve(&lane).await;
    assert_eq!(&api.get(CONFIG).await.expect(200)["config"], config);
    lane.call(prompt("three")).await.unwrap();
    assert_eq!(world.sim.arrivals()[2].model, "glm-5");
    // What was read can be sent back, masked key and all.
    let same = api.put(CONFIG, config.to_string()).await;
    assert_eq!(&same.expect(200)["config"], config);
    lane.call(prompt("four")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_price_may_be_a_number_and_stays_exact() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    // As a binary float the second would be another number, and the third one in another notation.
    let price = |cached: &str| {
        format!(
            r#"{{"prices": [{{"model": "m", "input": 0.6, "cachedInput": {cached}, "output": 0.0000001}}]}}"#
        )
    };
    let reply = api.put(CONFIG, price("999999.123456789")).await;
    let row = &reply.expect(200)["config"]["prices"][0];
    assert_eq!(row["input"], "0.6");
    assert_eq!(row["cachedInput"], "999999.123456789");
    assert_eq!(row["output"], "0.0000001");
    let listed = api.get("/api/admin/glm/prices?model=m").await;
    assert!(
        listed
            .text
            .contains(r#""input":0.6,"cachedInput":999999.123456789,"output":0.0000001"#),
        "{}",
        listed.text
    );
    for bad in ["0.60000000000000000001", "6e-1", "-0.1", "[0.6]"] {
        let reply = api.put(CONFIG, price(bad)).await;
        assert_eq!(
            reply.expect(400)["errors"][0]["field"],
            "prices[0].cachedInput"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_change_says_what_and_where_and_never_the_key() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let before = api.get(CONFIG).await.expect(200);
    let change = json!({"apiKey": "two words.secretive", "timeout": "long", "colour": 1});
    let reply = api.put(CONFIG, change.to_string()).await;
    let problem = reply.expect(400);
    let named = problem["errors"].as_array().unwrap();
    let mut named: Vec<_> = named.iter().map(|e| e["field"].as_str().unwrap()).collect();
    named.sort_unstable();
    assert_eq!(named, ["apiKey", "colour", "timeout"]);
    assert!(!reply.text.contains("secretive"), "{}", reply.text);
    for body in ["", "{", "[]", "7"] {
        assert_eq!(api.put(CONFIG, body).await.status, 400, "{body}");
    }
    assert_eq!(api.get(CONFIG).await.expect(200), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_are_of_days_and_models_with_exact_sums() {
    let world = HttpLane::with(thousand());
    world
        .sim
        .add_rule(Rule::for_prompt("bad", Fault::error("1210")));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    for (text, model, user) in [
        ("a", "glm-4.7", "alice"),
        ("b", "glm-4.7", "bob"),
        ("bad", "glm-4.7", "bob"),
        ("c", "glm-5", "bob"),
    ] {
        let _ = lane.call(prompt(text).model(model).user(user)).await;
    }
    let usage = lane.usage(all_usage()).await.unwrap();
    let day = usage[0].key.day;
    let path = format!("/api/admin/glm/statistics?startDate={day}&endDate={day}");
    let reply = api.get(&path).await;
    let body = reply.expect(200);
    assert_eq!(fields(&body), ["statistics"]);
    let rows = body["statistics"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        has_fields(
            row,
            &[
                "id",
                "date",
                "totalCalls",
                "successfulCalls",
                "failedCalls",
                "totalTokens",
                "totalCost",
                "averageResponseTime",
                "model",
                "createdAt",
                "promptTokens",
                "completionTokens",
                "cachedTokens",
                "currency",
            ],
        );
        assert_eq!(row["date"], day.to_string());
        assert_eq!(row["currency"], "CNY");
        assert!(row["totalCost"].as_f64().unwrap() > 0.0);
    }
    let first = &rows[0];
    assert_eq!(first["model"], "glm-4.7");
    let sums = [
        "totalCalls",
        "successfulCalls",
        "failedCalls",
        "totalTokens",
    ];
    assert_eq!(
        sums.map(|name| first[name].as_u64().unwrap()),
        [3, 2, 1, 2_000]
    );
    // Money to its last digit: the integer sum, written as a decimal.
    let nanos: i64 = usage
        .iter()
        .filter(|row| row.key.model == "glm-4.7")
        .flat_map(|row| row.cost.values())
        .sum();
    let cost = onelane::model::Cost {
        nanos,
        currency: onelane::model::Currency::Cny,
    };
    assert!(
        reply
            .text
            .contains(&format!("\"totalCost\":{},", cost.decimal()))
    );

    let of_bob = api.get(&format!("{path}&model=glm-5&userId=bob")).await;
    let rows = of_bob.expect(200);
    assert_eq!(rows["statistics"][0]["totalTokens"], 1_000);
    let none = api
        .get("/api/admin/glm/statistics?startDate=2000-01-01&endDate=2000-01-02")
        .await;
    assert_eq!(none.expect(200), json!({"statistics": []}));
    for query in ["startDate=2026-02-30", "startDate=yesterday", "start=1"] {
        let reply = api.get(&format!("/api/admin/glm/statistics?{query}")).await;
        assert_eq!(reply.status, 400, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_is_listed_with_its_total_and_one_job_with_its_attempts() {
    let world = HttpLane::with(thousand());
    world.sim.push_fault(Fault::error("1234"));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let job = prompt("x".repeat(500))
        .user("alice")
        .content_id("c")
        .priority(2);
    let done = lane.call(job).await.unwrap().job.id;
    let blocker = world.block(&lane).await;
    for n in 0..4 {
        lane.submit(prompt(format!("waits {n}"))).await.unwrap();
    }
    let body = api.get("/api/admin/glm/queue?status=pending&limit=3").await;
    let body = body.expect(200);
    let page = body["queue"].as_array().unwrap();
    assert_eq!((page.len(), &body["total"]), (3, &json!(4)));
    let cursor = body["nextCursor"].as_str().unwrap();
    let path = format!("/api/admin/glm/queue?status=pending&limit=3&cursor={cursor}");
    let body = api.get(&path).await.expect(200);
    assert_eq!(body["queue"].as_array().unwrap().len(), 1);
    assert_eq!(body["nextCursor"], json!(null));

    let body = api
        .get("/api/admin/glm/queue?status=completed&userId=alice")
        .await;
    let job = &body.expect(200)["queue"][0];
    let wanted = [
        "id",
        "userId",
        "contentId",
        "prompt",
        "model",
        "priority",
        "status",
        "retryCount",
        "maxRetries",
        "createdAt",
        "processedAt",
    ];
    has_fields(job, &wanted);
    assert_eq!(job["status"], "completed");
    assert_eq!(job["retryCount"], 1);
    let preview = job["prompt"].as_str().unwrap().chars().count();
    assert!(preview <= 201, "a preview of {preview} characters");

    let body = api.get(&format!("/api/admin/glm/queue/{done}")).await;
    let job = &body.expect(200)["job"];
    assert_eq!(job["prompt"].as_str().unwrap().len(), 500, "whole");
    has_fields(
        &job["result"],
        &["id", "created", "model", "choices", "usage"],
    );
    let attempts = job["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0]["response"]["error"]["code"], "1234");
    assert_eq!(attempts[1]["response"]["tokensUsed"], 1_000);

    let processing = api.get("/api/admin/glm/queue?status=processing").await;
    assert_eq!(
        processing.expect(200)["queue"][0]["id"],
        blocker.to_string()
    );
    for query in ["limit=-1", "limit=0", "status=lost", "cursor=x", "sort=id"] {
        let reply = api.get(&format!("/api/admin/glm/queue?{query}")).await;
        assert_eq!(reply.status, 400, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_calls_rates_and_why_the_lane_is_held() {
    let world = HttpLane::with(thousand());
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    lane.call(prompt("fine").user("alice")).await.unwrap();
    world.sim.push_fault(Fault::error("1113"));
    lane.submit(prompt("unpaid")).await.unwrap();
    until_held(&lane).await;
    let metrics = api.get("/api/admin/glm/metrics").await.expect(200);
    let wanted = [
        "currentConcurrency",
        "queueLength",
        "recentCalls",
        "errorRate",
        "averageResponseTime",
    ];
    has_fields(&metrics, &wanted);
    assert_eq!(metrics["currentConcurrency"], 0);
    assert_eq!(metrics["queueLength"], 1);
    assert_eq!(metrics["errorRate"], 0.5);
    assert_eq!(metrics["lane"]["hold"]["kind"], "operator");
    assert_eq!(metrics["lane"]["hold"]["code"], "1113");
    let calls = metrics["recentCalls"].as_array().unwrap();
    assert_eq!(calls.len(), 2, "newest first");
    for call in calls {
        let wanted = [
            "id",
            "requestId",
            "userId",
            "endpoint",
            "model",
            "request",
            "response",
            "cost",
            "retryCount",
            "timestamp",
        ];
        has_fields(call, &wanted);
        has_fields(&call["request"], &["prompt", "parameters"]);
        let wanted = ["success", "statusCode", "responseTime", "tokensUsed"];
        has_fields(&call["response"], &wanted);
    }
    assert_eq!(calls[0]["response"]["error"]["code"], "1113");
    assert_eq!(calls[1]["response"]["success"], true);
    assert_eq!(calls[1]["request"]["prompt"], "fine");
    assert!(calls[1]["response"]["data"].is_string());
    assert!(calls[1]["cost"].as_f64().unwrap() > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_brings_a_dead_letter_back_and_refuses_everything_else() {
    let world = HttpLane::new();
    world.sim.push_fault(Fault::error("1210"));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let id = lane.submit(prompt("again")).await.unwrap().job_id;
    lane.wait(id).await.unwrap();
    let path = format!("/api/admin/glm/retry/{id}");
    assert_eq!(
        api.post_bare(&path).await.expect(200),
        json!({"success": true})
    );
    let done = api.get(&format!("/api/glm/jobs/{id}?wait=30s")).await;
    assert_eq!(done.expect(200)["status"], "completed");
    let reply = api.post_bare(&path).await;
    assert!(
        reply.expect(409)["detail"]
            .as_str()
            .unwrap()
            .contains("completed")
    );
    let unknown = "/api/admin/glm/retry/0199a000-0000-7000-8000-000000000001";
    api.post_bare(unknown).await.expect(404);
    api.post_bare("/api/admin/glm/retry/7").await.expect(400);
    api.get(&path).await.expect(405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_resume_and_cancel_do_what_they_say() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let done = json!({"success": true});
    let paused = api
        .post("/api/admin/glm/pause", r#"{"reason": "prices"}"#)
        .await;
    assert_eq!(paused.expect(200), done);
    let id = lane.submit(prompt("waits")).await.unwrap().job_id;
    let metrics = api.get("/api/admin/glm/metrics").await.expect(200);
    assert_eq!(metrics["lane"]["paused"]["reason"], "prices");
    tokio::time::sleep(ms(50)).await;
    assert_eq!(world.sim.stats().calls, 0);
    assert_eq!(
        api.post_bare("/api/admin/glm/resume").await.expect(200),
        done
    );
    lane.wait(id).await.unwrap();

    let blocker = world.block(&lane).await;
    let cancel = format!("/api/admin/glm/cancel/{blocker}");
    assert_eq!(api.post_bare(&cancel).await.expect(200), done);
    assert_eq!(world.sim.stats().clients_left, 1);
    assert!(world.arrivals_of(BLOCKER)[0].client_left);
    let finished = format!("/api/admin/glm/cancel/{id}");
    api.post_bare(&finished).await.expect(409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_token_nobody_learns_anything_without_it() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let config = ServerSection {
        listen: "127.0.0.1:0".to_owned(),
        admin_token: Some(Secret::new("open-sesame")),
        ..ServerSection::default()
    };
    let api = Api::serve_as(&lane, config).await;
    for path in [CONFIG, "/api/admin/glm/metrics", "/nothing"] {
        let reply = api.get(path).await;
        assert_eq!(reply.status, 401, "{path}");
        assert!(!reply.text.contains(&KEY[KEY.len() - 4..]), "{reply:?}");
    }
    let with = async |token: &str| -> Reply {
        let request = api.request(Method::GET, CONFIG).bearer_auth(token);
        Api::send(request).await
    };
    with("open-sesame").await.expect(200);
    with("open-sesam").await.expect(401);
    let chat = api.post("/v1/chat/completions", "{}").await.expect(401);
    assert_eq!(chat["error"]["code"], "1000");
    assert_eq!(world.sim.stats().calls, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_glm_sends_back_does_not_come_through() {
    let world = HttpLane::new();
    world.sim.push_fault(Fault::Custom {
        status: 400,
        headers: Default::default(),
        body: json!({"error": {"code": "1210", "message": format!("bad key {KEY}")}}).to_string(),
    });
    world.sim.push_fault(Fault::Answer(AnswerWith::default()));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let id = lane.submit(prompt("leak")).await.unwrap().job_id;
    lane.wait(id).await.unwrap();
    for path in [
        format!("/api/admin/glm/queue/{id}"),
        format!("/api/glm/jobs/{id}"),
        "/api/admin/glm/metrics".to_owned(),
        "/api/admin/glm/queue".to_owned(),
    ] {
        let reply = api.get(&path).await;
        reply.expect(200);
        assert!(!reply.text.contains("the-first-secret"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_in_force_is_shown_and_a_change_of_it_is_in_force_at_once() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let row = async |code: &str| {
        let body = api.get("/api/admin/glm/policy").await.expect(200);
        let rows = body["policy"].as_array().unwrap();
        rows.iter().find(|row| row["code"] == code).unwrap().clone()
    };
    let shipped = row("1234").await;
    has_fields(
        &shipped,
        &[
            "code",
            "statusCode",
            "meaning",
            "class",
            "job",
            "lane",
            "breaker",
            "overridden",
        ],
    );
    assert_eq!(shipped["class"], "server_transient");
    assert_eq!(shipped["overridden"], false);

    let patch = r#"{"policy": {"1234": {"class": "overload"}}}"#;
    api.put(CONFIG, patch).await.expect(200);
    let changed = row("1234").await;
    assert_eq!(changed["class"], "overload");
    assert_eq!(changed["lane"], "hold_model");
    assert_eq!(changed["overridden"], true);
    let told = lane.settings().policy["1234"];
    assert_eq!(told.class, Some(onelane::model::FailureClass::Overload));

    let reply = api
        .put(CONFIG, r#"{"policy": {"12345": "overload"}}"#)
        .await;
    let problem = &reply.expect(400)["errors"][0];
    assert_eq!(problem["field"], "policy.12345");
    assert!(
        problem["problem"]
            .as_str()
            .unwrap()
            .contains("such as 1305"),
        "{problem}"
    );
}
