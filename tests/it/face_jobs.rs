//! Guards: what is handed in for later, alone, in a batch or in a file, may be of any of GLM's faces, and comes back as GLM
//! answered it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::common::{Place, run};
use crate::support::api::Api;
use crate::support::http::{served, stop, until};
use crate::support::shows;

const BODIES: [(&str, &str, &str); 3] = [
    (
        "embeddings",
        "/v1/embeddings",
        r#"{"model":"embedding-3","input":["a","b"]}"#,
    ),
    (
        "responses",
        "/v1/responses",
        r#"{"model":"glm-4.7","input":"hi"}"#,
    ),
    (
        "messages",
        "/v1/messages",
        r#"{"model":"glm-4.7","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#,
    ),
];

/// Whether an answer is one of this face.
fn is_of(face: &str, answer: &Value) -> bool {
    match face {
        "embeddings" => answer["data"][1]["embedding"].is_array(),
        "responses" => answer["object"] == "response",
        _ => answer["type"] == "message",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_any_face_is_handed_in_by_its_whole_body() {
    let (world, lane, api) = served().await;
    for (face, url, body) in BODIES {
        let body: Value = serde_json::from_str(body).unwrap();
        for job in [
            json!({"face": face, "request": body}),
            json!({"custom_id": "a", "method": "POST", "url": url, "body": body}),
        ] {
            let id = api.submit(job).await;
            let done = api.completed(&id).await;
            assert_eq!(done["face"], face, "{done}");
            assert!(is_of(face, &done["result"]), "{done}");
        }
    }
    assert_eq!(world.sim.stats().calls, 6);
    let refused = api
        .post("/api/glm/jobs", r#"{"face":"messages","prompt":"hi"}"#)
        .await;
    shows!(refused.expect(400)["errors"][0], {"field": "prompt"});
    drop(api);
    stop(lane, 1_000).await;
}

async fn upload(api: &Api, content: &str) -> Value {
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--b\r\nContent-Disposition: form-data; \
         name=\"file\"; filename=\"lines.jsonl\"\r\n\r\n{content}\r\n--b--\r\n"
    );
    let request = api.request(Method::POST, "/v1/files");
    let request = request.header("content-type", "multipart/form-data; boundary=b");
    Api::send(request.body(form)).await.expect(200)["id"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_over_http_is_of_any_face() {
    let (_world, lane, api) = served().await;
    for (face, url, body) in BODIES {
        let line = |n: u8| {
            format!(r#"{{"custom_id":"line-{n}","method":"POST","url":"{url}","body":{body}}}"#)
        };
        let file = upload(&api, &format!("{}\n{}\n", line(1), line(2))).await;
        let new = json!({"input_file_id": file, "endpoint": url, "completion_window": "24h"});
        let batch = api.post("/v1/batches", new.to_string()).await.expect(200);
        let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
        until("it is completed", async || {
            api.get(&path).await.expect(200)["status"] == "completed"
        })
        .await;
        let batch = api.get(&path).await.expect(200);
        shows!(batch["request_counts"], {"completed": 2, "failed": 0, "total": 2});
        let output = format!(
            "/v1/files/{}/content",
            batch["output_file_id"].as_str().unwrap()
        );
        for line in api.get(&output).await.text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert!(is_of(face, &line["response"]["body"]), "{line}");
        }
    }
    let file = upload(&api, "{}\n").await;
    let odd = json!({"input_file_id": file, "endpoint": "/v1/images", "completion_window": "24h"});
    let refused = api.post("/v1/batches", odd.to_string()).await.expect(400);
    let words = refused["error"]["message"].as_str().unwrap();
    assert!(words.contains("/v1/embeddings"), "{words}");
    drop(api);
    stop(lane, 1_000).await;
}

#[test]
fn a_run_has_lines_of_any_face() {
    let place = Place::new();
    let lines = BODIES
        .map(|(face, _, body)| format!(r#"{{"id":"{face}","face":"{face}","request":{body}}}"#));
    place.write("lines.jsonl", lines.join("\n"));
    run(&mut place.bare(&["run", "lines.jsonl", "--simulate"])).with(0);
    let results = place.lines("lines.results.jsonl");
    assert_eq!(results.len(), 3);
    for line in results {
        let face = line["custom_id"].as_str().unwrap();
        assert!(is_of(face, &line["response"]["body"]), "{line}");
    }
}
