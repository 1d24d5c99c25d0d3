//! Guards: what clients of OpenAI's and GLM's kind send and ask for is understood, and what is wrong with it is said
//! truly.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use onelane::simulator::{Fault, Rule};
use serde_json::{Value, json};

use crate::support::api::{Api, Reply};
use crate::support::http::{HttpLane, stop, until};
use crate::support::shows;
use crate::support::upstream::{Arrived, Upstream};

const CHAT: &str = "/v1/chat/completions";

fn chat(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_models_are_listed_as_sdks_ask_for_them() {
    let mut world = HttpLane::new();
    world.config.glm.model = "glm-of-tomorrow".to_owned();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    for base in ["/v1", "/api/paas/v4"] {
        let list = api.get(&format!("{base}/models")).await.expect(200);
        shows!(list, {"object": "list"});
        let data = list["data"].as_array().unwrap();
        let ids: Vec<_> = data
            .iter()
            .map(|model| model["id"].as_str().unwrap())
            .collect();
        assert!(
            ids.contains(&"glm-4.7") && ids.contains(&"glm-of-tomorrow"),
            "{ids:?}"
        );
        for model in data {
            shows!(model, {"object": "model", "owned_by": "zhipuai"});
            assert!(model["created"].is_i64());
        }
        let one = api.get(&format!("{base}/models/glm-4.7")).await.expect(200);
        shows!(one, {"id": "glm-4.7", "object": "model"});
        let same = api.get(&format!("{base}/models/GLM-4.7")).await.expect(200);
        assert_eq!(same, one, "a model is one name");
        let none = api.get(&format!("{base}/models/gpt-9")).await.expect(404);
        shows!(none["error"], {"code": "1211"});
    }
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_models_are_listed_in_anthropics_form_for_its_sdks() {
    let mut world = HttpLane::new();
    world.config.glm.model = "GLM-of-Tomorrow".to_owned();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let get = async |path: &str, header: &str| {
        let request = api.request(reqwest::Method::GET, path);
        Api::send(request.header(header, "2023-06-01")).await
    };
    for (path, header) in [
        ("/v1/models", "anthropic-version"),
        ("/v1/models?limit=1000", "x-api-key"),
        ("/api/anthropic/v1/models", "anthropic-version"),
    ] {
        let list = get(path, header).await.expect(200);
        let data = list["data"].as_array().unwrap();
        shows!(list, {"has_more": false, "first_id": data[0]["id"], "last_id": data[data.len() - 1]["id"]});
        let tomorrow = data.iter().find(|model| model["id"] == "glm-of-tomorrow");
        let want = json!({"type": "model", "id": "glm-of-tomorrow", "display_name": "glm-of-tomorrow",
            "created_at": "1970-01-01T00:00:00Z"});
        assert_eq!(tomorrow, Some(&want));
    }
    let page = get("/v1/models?limit=2", "x-api-key").await.expect(200);
    shows!(page, {"has_more": true});
    assert_eq!(page["data"].as_array().map(Vec::len), Some(2));
    for name in ["glm-4.7", "GLM-4.7", "%20Glm-4.7"] {
        let one = get(&format!("/v1/models/{name}"), "anthropic-version").await;
        shows!(one.expect(200), {"type": "model", "id": "glm-4.7"});
    }
    let none = get("/v1/models/gpt-9", "anthropic-version")
        .await
        .expect(404);
    shows!(none["error"], {"type": "not_found_error"});
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_glm_does_not_serve_the_account_with_is_not_listed_until_its_hold_ends() {
    let world = HttpLane::new();
    world.rule(Rule {
        times: Some(1),
        ..Rule::for_prompt("beyond the plan", Fault::error("1311"))
    });
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let lists = async |model: &str| {
        let list = api.get("/v1/models").await.expect(200);
        let data = list["data"].as_array().unwrap();
        data.iter().any(|listed| listed["id"] == model)
    };
    assert!(lists("glm-5").await && lists("glm-4.7").await);
    api.ask("beyond the plan", "GLM-5").await;
    until("GLM has told", async || !lists("glm-5").await).await;
    assert!(lists("glm-4.7").await, "of that model alone");
    let refused = api.get("/v1/models/glm-5").await.expect(404);
    let words = refused["error"]["message"].as_str().unwrap();
    assert!(words.contains("1311"), "{words}");
    api.release("model/glm-5").await;
    until("the hold has ended", async || lists("glm-5").await).await;
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_answered_is_listed_though_it_has_no_price() {
    let upstream = Upstream::start(|mut call: Arrived<'_>| {
        let mut answer = call.completion("A");
        answer["model"] = json!("glm-told-by-glm");
        let json = "content-type: application/json\r\n";
        match call.body["model"].as_str() {
            Some("glm-unknown") => {
                call.answer(400, json, r#"{"error":{"code":"1211","message":"no"}}"#)
            }
            _ => call.answer(200, json, answer.to_string()),
        }
    });
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let lists = async |model: &str| {
        let list = api.get("/v1/models").await.expect(200);
        let data = list["data"].as_array().unwrap();
        data.iter().any(|listed| listed["id"] == model)
    };
    assert!(!lists("glm-new").await && !lists("glm-told-by-glm").await);
    api.get("/v1/models/glm-new").await.expect(404);
    api.ended(&api.ask("hi", "GLM-New").await).await;
    api.ended(&api.ask("hi", "glm-unknown").await).await;
    assert!(lists("glm-new").await && lists("glm-told-by-glm").await);
    assert!(!lists("glm-unknown").await, "GLM never answered for it");
    api.get("/v1/models/glm-new").await.expect(200);
    api.configure(json!({"unpriced": "refuse"})).await;
    assert!(!lists("glm-new").await, "jobs for it are refused");
    stop(lane, 1_000).await;
}

async fn packed(api: &Api, coding: &str, body: Vec<u8>) -> Reply {
    let request = api.request(reqwest::Method::POST, CHAT);
    let request = request
        .header("content-type", "application/json")
        .header("content-encoding", coding);
    Api::send(request.body(body)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packed_body_is_read_and_bounded_by_what_comes_out_of_it() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let gzip = |plain: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    };
    let plain = chat("hi").to_string();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(plain.as_bytes()).unwrap();
    packed(&api, "gzip", gzip(plain.as_bytes()))
        .await
        .expect(200);
    packed(&api, "deflate", zlib.finish().unwrap())
        .await
        .expect(200);
    packed(&api, "identity", plain.clone().into())
        .await
        .expect(200);
    packed(&api, "gzip", plain.clone().into()).await.expect(400);
    packed(&api, "br", plain.into()).await.expect(415);
    let nothing = packed(&api, "gzip", Vec::new()).await;
    assert!(nothing.text.contains("the body is empty"), "{nothing:?}");
    let bomb = gzip(&vec![b' '; 64 * 1024 * 1024]);
    assert!(bomb.len() < 1024 * 1024);
    packed(&api, "gzip", bomb).await.expect(413);
    assert_eq!(world.sim.stats().calls, 3);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_character_is_refused_alike_in_every_form_and_named() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let escaped = [
        ("/api/glm/jobs", r#"{"prompt":"cut \ud83d"}"#),
        (
            "/api/glm/jobs",
            r#"{"messages":[{"role":"user","content":"cut \ud83d"}]}"#,
        ),
        (
            CHAT,
            r#"{"messages":[{"role":"user","content":"cut \ud83d"}]}"#,
        ),
    ];
    for (path, body) in escaped {
        for raw in [false, true] {
            let mut bytes = body.as_bytes().to_vec();
            if raw {
                let at = body.find("\\ud83d").unwrap();
                bytes.splice(at..at + 6, [0xed, 0xa0, 0xbd]);
            }
            let request = api.request(reqwest::Method::POST, path);
            let request = request.header("content-type", "application/json");
            let reply = Api::send(request.body(bytes)).await;
            assert_eq!(reply.status, 400, "{reply:?}");
            assert!(reply.text.contains("surrogate"), "{reply:?}");
        }
    }
    let whole = r#"{"messages":[{"role":"user","content":"whole \ud83d\ude00"}]}"#;
    api.post(CHAT, whole).await.expect(200);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_that_is_given_twice_is_named() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    for (path, body, name) in [
        (
            CHAT,
            r#"{"model":"glm-4.7","messages":[{}],"model":"glm-4.7"}"#,
            "model",
        ),
        (CHAT, r#"{"messages":[{}],"user":"a","user":"b"}"#, "user"),
        (
            "/api/glm/jobs",
            r#"{"prompt":"hi","prompt":"ho"}"#,
            "prompt",
        ),
        (
            "/api/glm/jobs",
            r#"{"prompt":"hi","priority":1,"priority":1}"#,
            "priority",
        ),
    ] {
        let reply = api.post(path, body).await;
        assert_eq!(reply.status, 400, "{reply:?}");
        assert!(
            reply.text.contains(&format!("{name}: is given twice")),
            "{reply:?}"
        );
    }
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_request_id_reaches_glm_once_and_its_replacement_is_told() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let mut body = chat("hi");
    body["request_id"] = json!("of-the-client-1");
    let first = api.post(CHAT, body.to_string()).await;
    shows!(first.expect(200), {"request_id": "of-the-client-1"});
    assert_eq!(first.headers.get("x-onelane-request-id"), None);
    let again = api.post(CHAT, body.to_string()).await;
    let sent = again.headers["x-onelane-request-id"].to_str().unwrap();
    shows!(again.expect(200), {"request_id": sent});
    // One that GLM would refuse.
    body["request_id"] = json!("short");
    let short = api.post(CHAT, body.to_string()).await;
    assert!(short.headers.contains_key("x-onelane-request-id"));
    // Some that are none at all; and a stream is told of it as any answer is.
    for (odd, streams) in [
        (json!(1_234_567), false),
        (json!(["of-the-client-2"]), true),
    ] {
        body["request_id"] = odd;
        body["stream"] = json!(streams);
        let reply = api.post(CHAT, body.to_string()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let told = reply.headers["x-onelane-request-id"].to_str().unwrap();
        let arrived = world.sim.arrivals().pop().unwrap();
        assert_eq!(arrived.request_id, told);
    }
    body["request_id"] = Value::Null;
    let none = api.post(CHAT, body.to_string()).await;
    assert_eq!(none.headers.get("x-onelane-request-id"), None);
    let ids: Vec<_> = world
        .sim
        .arrivals()
        .into_iter()
        .map(|a| a.request_id)
        .collect();
    assert_eq!(ids[0], "of-the-client-1");
    assert_eq!(world.sim.stats().duplicate_request_ids, 0);
    // The call log has what GLM saw.
    let log = api.get("/api/admin/glm/calls").await.expect(200);
    let logged: Vec<_> = log["calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| &call["id"])
        .collect();
    assert!(logged.contains(&&json!("of-the-client-1")), "{logged:?}");
    stop(lane, 1_000).await;
}
