//! Guards: a batch over HTTP that loses a line or buys one twice, a file that is wrong in a line and half sent, results
//! that are not those of the jobs.

use std::time::Duration;

use onelane::model::{
    BatchId, BatchInput, BatchState, InputChange, InputStage, JobStatus, Transition,
};
use onelane::ports::Store as _;
use onelane::simulator::{ErrorFault, Fault, Rule};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::api::{Api, Reply};
use crate::support::http::{HttpLane, served, stop, until};
use crate::support::shows;

pub(crate) const ENDPOINT: &str = "/v1/chat/completions";
const BASES: [&str; 2] = ["/v1", "/api/paas/v4"];
const BOUNDARY: &str = "the-boundary";

/// A line of a file.
pub(crate) fn line(custom_id: &str, prompt: &str) -> String {
    let body = json!({"model": "glm-4.7", "messages": [{"role": "user", "content": prompt}]});
    json!({"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}).to_string()
}

pub(crate) fn lines(count: usize) -> String {
    let lines = (1..=count).map(|n| line(&format!("line-{n}"), &format!("prompt {n}")) + "\n");
    lines.collect()
}

fn part(name: &str, content: &str) -> String {
    format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {name}\r\n\r\n{content}\r\n")
}

fn file_part(name: &str, content: &str) -> String {
    part(&format!("name=\"file\"; filename=\"{name}\""), content)
}

/// A form of these parts, and its media type.
fn form(parts: &[String]) -> (String, String) {
    let form = format!("{}--{BOUNDARY}--\r\n", parts.concat());
    let media = format!("multipart/form-data; boundary={BOUNDARY}");
    (form, media)
}

/// The form that a file of lines is uploaded in, and its media type.
pub(crate) fn form_of(content: &str) -> (String, String) {
    form(&[
        part("name=\"purpose\"", "batch"),
        file_part("lines.jsonl", content),
    ])
}

async fn send_form(api: &Api, base: &str, parts: &[String]) -> Reply {
    let (form, media) = form(parts);
    let request = api.request(Method::POST, &format!("{base}/files"));
    Api::send(request.header("content-type", media).body(form)).await
}

async fn upload(api: &Api, content: &str) -> String {
    let parts = [
        part("name=\"purpose\"", "batch"),
        file_part("lines.jsonl", content),
    ];
    let file = send_form(api, BASES[0], &parts).await.expect(200);
    shows!(file, {"object": "file", "bytes": content.len(), "filename": "lines.jsonl",
        "purpose": "batch", "status": "processed"});
    file["id"].as_str().unwrap().to_owned()
}

async fn create(api: &Api, file: &str, more: Value) -> Value {
    let mut new = json!({"input_file_id": file, "endpoint": ENDPOINT, "completion_window": "24h"});
    for (name, value) in more.as_object().unwrap() {
        new[name] = value.clone();
    }
    api.post("/v1/batches", new.to_string()).await.expect(200)
}

async fn look(api: &Api, batch: &Value) -> Value {
    let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    api.get(&path).await.expect(200)
}

/// The batch, once it has this status.
async fn becomes(api: &Api, batch: &Value, status: &str) -> Value {
    until(status, async || look(api, batch).await["status"] == status).await;
    look(api, batch).await
}

async fn content(api: &Api, file: &Value) -> Vec<Value> {
    let path = format!("/v1/files/{}/content", file.as_str().unwrap());
    let reply = api.get(&path).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let lines = reply.text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_lines_is_a_batch_whose_results_are_read_as_the_field_has_them() {
    let (world, lane, api) = served().await;
    world.rule(Rule::for_prompt(
        "prompt 3",
        Fault::Error(ErrorFault::of("1301")),
    ));
    let file = upload(&api, &lines(5)).await;
    let begun = create(&api, &file, json!({"metadata": {"night": "1"}})).await;
    shows!(begun, {"object": "batch", "endpoint": ENDPOINT, "input_file_id": file, "errors": Value::Null,
        "completion_window": "24h", "metadata": json!({"night": "1"}), "output_file_id": Value::Null});
    let ended = becomes(&api, &begun, "completed").await;
    shows!(ended, {"id": begun["id"], "request_counts": json!({"total": 5, "completed": 4, "failed": 1}),
        "expired_at": Value::Null, "failed_at": Value::Null, "cancelled_at": Value::Null});
    for moment in [
        "created_at",
        "in_progress_at",
        "finalizing_at",
        "completed_at",
    ] {
        assert!(ended[moment].is_i64(), "{moment}: {ended}");
    }
    assert_eq!(
        ended["expires_at"].as_i64().unwrap() - ended["created_at"].as_i64().unwrap(),
        86_400
    );

    let answers = content(&api, &ended["output_file_id"]).await;
    let ids: Vec<&str> = answers
        .iter()
        .map(|line| line["custom_id"].as_str().unwrap())
        .collect();
    assert_eq!(
        ids,
        ["line-1", "line-2", "line-4", "line-5"],
        "in the order of the lines"
    );
    for answer in &answers {
        shows!(answer, {"error": Value::Null});
        shows!(answer["response"], {"status_code": 200});
        assert!(answer["response"]["body"]["choices"][0]["message"]["content"].is_string());
    }
    let errors = content(&api, &ended["error_file_id"]).await;
    assert_eq!(errors.len(), 1);
    // Answered with a refusal, so that it is a response, and no error beside it.
    shows!(errors[0], {"custom_id": "line-3", "error": Value::Null});
    shows!(errors[0]["response"], {"status_code": 400});
    assert!(errors[0]["response"]["request_id"].is_string());
    shows!(errors[0]["response"]["body"]["error"], {"code": "1301"});
    for (results, lines) in [
        (&ended["output_file_id"], &answers),
        (&ended["error_file_id"], &errors),
    ] {
        let path = format!("/v1/files/{}", results.as_str().unwrap());
        let shown = api.get(&path).await.expect(200);
        shows!(shown, {"purpose": "batch_output", "object": "file"});
        let whole = api.get(&format!("{path}/content")).await.text;
        assert_eq!(shown["bytes"], whole.len());
        assert_eq!(whole.lines().count(), lines.len());
    }

    // The lane knows it, too, and its jobs stand below others.
    let id = begun["id"].as_str().unwrap().parse().unwrap();
    let batch = lane.batch(id).await.unwrap().unwrap();
    assert_eq!(
        (batch.state, &*batch.name),
        (BatchState::Completed, "lines.jsonl")
    );
    let (jobs, _) = lane.batch_jobs(id, None).await.unwrap();
    assert!(
        jobs.iter()
            .all(|job| job.priority == -100 && job.deadline.is_some())
    );
    assert_eq!(world.sim.stats().calls, 5);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_and_batches_are_served_below_both_base_paths_and_listed_newest_first() {
    let (_world, lane, api) = served().await;
    let text = lines(1);
    let mut files = Vec::new();
    for base in BASES {
        let parts = [
            file_part("a.jsonl", &text),
            part("name=\"purpose\"", "batch"),
        ];
        let file = send_form(&api, base, &parts).await.expect(200);
        let path = format!("{base}/files/{}", file["id"].as_str().unwrap());
        assert_eq!(api.get(&path).await.expect(200), file);
        assert_eq!(api.get(&format!("{path}/content")).await.text, text);
        files.push(file["id"].clone());
    }
    let mut batches = Vec::new();
    for (base, file) in BASES.iter().zip(&files) {
        let new = json!({"input_file_id": file, "endpoint": ENDPOINT}).to_string();
        let batch = api.post(&format!("{base}/batches"), new).await.expect(200);
        batches.push(becomes(&api, &batch, "completed").await);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    for base in BASES {
        let list = api
            .get(&format!("{base}/files?purpose=batch"))
            .await
            .expect(200);
        assert_eq!(list["data"][0]["id"], files[1], "{list}");
        assert_eq!(list["data"][1]["id"], files[0]);
        let list = api
            .get(&format!("{base}/batches?limit=1"))
            .await
            .expect(200);
        assert_eq!(
            (&list["data"][0], &list["has_more"]),
            (&batches[1], &json!(true))
        );
        let after = list["last_id"].as_str().unwrap();
        let list = api
            .get(&format!("{base}/batches?after={after}"))
            .await
            .expect(200);
        assert_eq!(
            (&list["data"], &list["has_more"]),
            (&json!([batches[0]]), &json!(false))
        );
        let id = batches[0]["id"].as_str().unwrap();
        assert_eq!(
            api.get(&format!("{base}/batches/{id}")).await.expect(200),
            batches[0]
        );
    }
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_with_a_wrong_line_sends_nothing_and_says_which_line() {
    let (world, lane, api) = served().await;
    let good = line("good", "hi");
    for (bad, code) in [
        ("no json".to_owned(), "invalid_json_line"),
        (good.clone(), "duplicate_custom_id"),
        (
            good.replace("\"custom_id\":\"good\",", ""),
            "missing_required_parameter",
        ),
        (
            good.replace("\"good\"", "\"b\"").replace("POST", "PUT"),
            "invalid_method",
        ),
        (
            good.replace("\"good\"", "\"b\"")
                .replace(ENDPOINT, "/v1/embeddings"),
            "mismatched_endpoint",
        ),
        (
            good.replace("\"good\"", "\"b\"")
                .replace("messages", "messagse"),
            "invalid_request",
        ),
    ] {
        let file = upload(&api, &format!("{good}\n\n{bad}\n")).await;
        let batch = create(&api, &file, json!({})).await;
        let failed = becomes(&api, &batch, "failed").await;
        let fault = &failed["errors"]["data"][0];
        shows!(fault, {"line": 3, "code": code});
        assert!(failed["failed_at"].is_i64(), "{failed}");
        assert_eq!(failed["output_file_id"], Value::Null);
        // It stands in nobody's way.
        let gone = api.delete(&format!("/v1/files/{file}")).await.expect(200);
        shows!(gone, {"id": file, "deleted": true});
    }
    assert_eq!(lane.queue_status().await.unwrap().completed, 0);
    assert_eq!(world.sim.stats().calls, 0);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_that_is_no_file_of_lines_is_refused_and_leaves_nothing() {
    let mut world = HttpLane::new();
    world.config.server.batches.file_bytes_max = 1_024;
    world.config.server.batches.files_total_bytes_max = 4_096;
    let lane = world.start().await;
    let api = Api::serve_as(
        &lane,
        onelane::config::ServerSection {
            listen: "127.0.0.1:0".to_owned(),
            ..world.config.server.clone()
        },
    )
    .await;
    let purpose = part("name=\"purpose\"", "batch");
    let file = file_part("a.jsonl", "{}");
    let large = file_part("a.jsonl", &"x".repeat(1_025));
    let check = async |parts: &[&String], status: u16, words: &str| {
        let parts: Vec<String> = parts.iter().map(|part| (*part).clone()).collect();
        let reply = send_form(&api, BASES[0], &parts).await;
        let told = reply.expect(status);
        assert!(
            told["error"]["message"].as_str().unwrap().contains(words),
            "{told}"
        );
    };
    check(&[&purpose], 400, "file").await;
    check(&[&file], 400, "purpose").await;
    check(
        &[&file, &part("name=\"purpose\"", "fine-tune")],
        400,
        "batch",
    )
    .await;
    check(&[&purpose, &file_part("a.txt", "{}")], 400, ".jsonl").await;
    check(&[&purpose, &file, &file], 400, "twice").await;
    check(&[&purpose, &large], 413, "1024").await;
    let reply = api.post("/v1/files", "{}").await;
    reply.expect(415);
    let torn = format!("{purpose}{file}");
    let request = api.request(Method::POST, "/v1/files");
    let media = format!("multipart/form-data; boundary={BOUNDARY}");
    Api::send(request.header("content-type", media).body(torn))
        .await
        .expect(400);
    until("nothing is left", async || files_of(&api).await == 0).await;
    let full = file_part("a.jsonl", &"x".repeat(1_000));
    for _ in 0..3 {
        send_form(&api, BASES[0], &[purpose.clone(), full.clone()])
            .await
            .expect(200);
    }
    check(&[&purpose, &full], 413, "delete some").await;
    stop(lane, 1_000).await;
}

async fn files_of(api: &Api) -> usize {
    let list = api.get("/v1/files").await.expect(200);
    list["data"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_given_up_ends_its_jobs_and_tells_of_every_line() {
    let world = HttpLane::slow(20);
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let file = upload(&api, &lines(300)).await;
    let batch = create(&api, &file, json!({})).await;
    until("some have ended", async || {
        look(&api, &batch).await["request_counts"]["completed"].as_u64() > Some(1)
    })
    .await;
    let path = format!("/v1/batches/{}/cancel", batch["id"].as_str().unwrap());
    let told = api.post_bare(&path).await.expect(200);
    assert!(told["cancelling_at"].is_i64(), "{told}");
    let ended = becomes(&api, &batch, "cancelled").await;
    let counts = &ended["request_counts"];
    let sum = counts["completed"].as_u64().unwrap() + counts["failed"].as_u64().unwrap();
    assert_eq!(sum, 300, "{counts}");
    let answers = content(&api, &ended["output_file_id"]).await.len();
    let errors = content(&api, &ended["error_file_id"]).await.len();
    assert_eq!(answers + errors, 300);
    assert_eq!(lane.queue_status().await.unwrap().pending, 0);
    // Asked again, it is what it is.
    shows!(api.post_bare(&path).await.expect(200), {"status": "cancelled"});
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_given_up_before_its_jobs_were_counted_tells_of_each_line_once() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    world.block(&lane).await;
    let file = upload(&api, &lines(3)).await;
    let batch = create(&api, &file, json!({})).await;
    until("its lines are jobs", async || {
        lane.queue_status().await.unwrap().pending == 3
    })
    .await;
    api.stop().await;
    stop(lane, 1_000).await;

    // As a kill leaves it between the jobs and their count, and a client gives it up then.
    let store = world.open();
    let id: BatchId = batch["id"].as_str().unwrap().parse().unwrap();
    let input = store.batch_input(id).unwrap().unwrap();
    let given_up = BatchInput {
        stage: InputStage::Inserting,
        inserted: 0,
        settled_at: None,
        cancelled_at: Some(input.created_at),
        ..input
    };
    let change = InputChange::Put(given_up.next());
    let decisions = store.commit(&[Transition::Input(Box::new(change))]);
    assert!(decisions.unwrap()[0].is_ok());
    drop(store);

    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let ended = becomes(&api, &batch, "cancelled").await;
    let counts = json!({"total": 3, "completed": 0, "failed": 3});
    shows!(ended, {"request_counts": counts, "output_file_id": Value::Null});
    assert_eq!(content(&api, &ended["error_file_id"]).await.len(), 3);
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_waits_for_room_in_the_queue_and_lets_others_go_first() {
    let mut world = HttpLane::slow(5);
    world.config.lane.max_queue_jobs = 20;
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let file = upload(&api, &lines(60)).await;
    let batch = create(&api, &file, json!({})).await;
    until("the queue is full of it", async || {
        lane.queue_status().await.unwrap().pending >= 19
    })
    .await;
    let in_use = api.delete(&format!("/v1/files/{file}")).await.expect(409);
    assert!(
        in_use["error"]["message"]
            .as_str()
            .unwrap()
            .contains("being read"),
        "{in_use}"
    );
    let ended = becomes(&api, &batch, "completed").await;
    shows!(ended["request_counts"], {"total": 60, "completed": 60, "failed": 0});
    assert_eq!(world.sim.stats().calls, 60);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_window_is_a_deadline_and_the_same_key_the_same_batch() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    lane.pause(None).await.unwrap();
    let file = upload(&api, &lines(2)).await;
    let keyed = async || {
        let new = json!({"input_file_id": file, "endpoint": ENDPOINT, "completion_window": "7d",
            "auto_delete_input_file": true});
        let request = api
            .posting("/v1/batches", new.to_string())
            .header("Idempotency-Key", "k");
        Api::send(request).await.expect(200)
    };
    let batch = keyed().await;
    until("its lines are jobs", async || {
        lane.queue_status().await.unwrap().pending == 2
    })
    .await;
    assert_eq!(keyed().await["id"], batch["id"]);
    let id: BatchId = batch["id"].as_str().unwrap().parse().unwrap();
    let (jobs, _) = lane.batch_jobs(id, None).await.unwrap();
    let expires = batch["expires_at"].as_i64().unwrap();
    for job in &jobs {
        assert_eq!(job.deadline.unwrap().as_millis() / 1_000, expires);
        assert_eq!(job.status, JobStatus::Pending);
    }
    until("the file is gone", async || {
        api.get(&format!("/v1/files/{file}")).await.status == 404
    })
    .await;
    lane.resume().await.unwrap();
    shows!(becomes(&api, &batch, "completed").await["request_counts"], {"completed": 2});
    for (field, value) in [
        ("endpoint", json!("/v1/images/generations")),
        ("completion_window", json!("soon")),
        ("input_file_id", json!("file-output-batch_00c0ffee00c0ffee")),
        ("metadata", json!({"k": "x".repeat(600)})),
    ] {
        let mut new = json!({"input_file_id": file, "endpoint": ENDPOINT});
        new[field] = value;
        let told = api.post("/v1/batches", new.to_string()).await.expect(400);
        assert_eq!(told["error"]["param"], field, "{told}");
    }
    let new = json!({"input_file_id": file, "endpoint": ENDPOINT});
    api.post("/v1/batches", new.to_string()).await.expect(404);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_goes_on_says_what_it_comes_to_as_its_first_calls_tell() {
    let (world, lane, api) = served().await;
    world.rule(Rule::for_prompt("prompt 31", Fault::Hang));
    let file = upload(&api, &lines(40)).await;
    let batch = create(&api, &file, json!({})).await;
    until("the thirty before it have ended", async || {
        look(&api, &batch).await["request_counts"]["completed"] == 30
    })
    .await;
    let forecast = look(&api, &batch).await["forecast"].clone();
    assert_eq!(forecast["learntFrom"], 30, "{forecast}");
    let (cost, end) = (&forecast["cost"], &forecast["end"]);
    for said in [cost, end] {
        let [low, expected, high] = ["low", "expected", "high"].map(|name| said[name].clone());
        let is_sorted = match low.as_str() {
            Some(low) => low <= expected.as_str().unwrap() && expected.as_str() <= high.as_str(),
            None => low.as_f64() <= expected.as_f64() && expected.as_f64() <= high.as_f64(),
        };
        assert!(is_sorted, "{forecast}");
    }
    assert!(cost["expected"].as_f64() > Some(0.0), "{forecast}");
    let path = format!("/v1/batches/{}/cancel", batch["id"].as_str().unwrap());
    api.post_bare(&path).await.expect(200);
    let ended = becomes(&api, &batch, "cancelled").await;
    assert_eq!(ended["forecast"], Value::Null, "nothing of it is left");
    stop(lane, 1_000).await;
}
