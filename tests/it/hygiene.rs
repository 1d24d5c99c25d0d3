//! Guards: what every answer has or has not, whoever asks: pages of other origins, packing, names of requests, no banner.

use std::io::Read as _;

use onelane::config::ServerSection;
use onelane::model::Secret;
use onelane::orchestrator::Orchestrator;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::api::{Api, Reply};
use crate::support::http::{HttpLane, stop};
use crate::support::upstream::{Arrived, Upstream};

const CHAT: &str = "/v1/chat/completions";
const CONFIG: &str = "/api/admin/glm/config";
/// Headers that name a request.
const NAMES: [&str; 2] = ["x-request-id", "x-onelane-request"];
const APP: &str = "https://app.example.com";

async fn serving(config: ServerSection) -> (HttpLane, Orchestrator, Api) {
    let world = HttpLane::new();
    let lane = world.start().await;
    let config = ServerSection {
        listen: "127.0.0.1:0".to_owned(),
        ..config
    };
    let api = Api::serve_as(&lane, config).await;
    (world, lane, api)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

async fn preflight(api: &Api, path: &str, origin: &str) -> Reply {
    let request = api.request(Method::OPTIONS, path).header("origin", origin);
    let request = request.header("access-control-request-method", "POST");
    let wanted = "authorization,content-type,x-stainless-lang";
    Api::send(request.header("access-control-request-headers", wanted)).await
}

/// As a browser asks for a page of another site.
fn from_page(request: RequestBuilder, origin: &str) -> RequestBuilder {
    request
        .header("origin", origin)
        .header("sec-fetch-site", "cross-site")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_a_listed_origin_may_use_the_api_and_no_other() {
    let (_world, lane, api) = serving(ServerSection {
        cors_origins: vec![APP.to_owned()],
        ..ServerSection::default()
    })
    .await;
    let asked = preflight(&api, CHAT, APP).await;
    assert_eq!((asked.status, asked.text.as_str()), (204, ""), "{asked:?}");
    let told = |name| header(&asked.headers, name);
    assert_eq!(told("access-control-allow-origin"), APP);
    assert!(told("access-control-allow-methods").contains("POST"));
    assert!(told("access-control-allow-headers").contains("authorization"));
    assert!(told("vary").contains("Origin"));

    let chat = json!({"messages": [{"role": "user", "content": "hi"}]});
    let answer = Api::send(from_page(api.posting(CHAT, chat.to_string()), APP)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let exposed = header(&answer.headers, "access-control-expose-headers");
    for name in ["x-onelane-job", "x-onelane-cost", "x-request-id"] {
        assert!(exposed.contains(name), "{exposed}");
    }
    assert_eq!(header(&answer.headers, "access-control-allow-origin"), APP);

    for other in [
        "https://evil.example",
        "https://app.example.com.evil.example",
        "null",
    ] {
        let asked = preflight(&api, CHAT, other).await;
        assert_ne!(asked.status, 204, "{asked:?}");
        let answer = Api::send(from_page(api.request(Method::GET, CONFIG), other)).await;
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
        assert!(header(&answer.headers, "vary").contains("Origin"));
    }
    // A name that was bound to this machine is no way in for that page either.
    let rebound =
        from_page(api.request(Method::GET, CONFIG), APP).header("host", "rebound.example");
    assert_eq!(Api::send(rebound).await.status, 403);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_list_no_page_is_told_anything_and_with_a_token_it_may_read_refusals() {
    let (_world, lane, api) = serving(ServerSection::default()).await;
    let asked = preflight(&api, CHAT, APP).await;
    assert_ne!(asked.status, 204);
    assert!(!header(&asked.headers, "vary").contains("Origin"));
    assert!(!asked.headers.contains_key("access-control-allow-origin"));
    stop(lane, 1_000).await;

    let (_world, lane, api) = serving(ServerSection {
        cors_origins: vec!["*".to_owned()],
        admin_token: Some(Secret::new("s3cret")),
        ..ServerSection::default()
    })
    .await;
    assert_eq!(preflight(&api, CHAT, APP).await.status, 204);
    let refused = Api::send(from_page(api.request(Method::GET, CONFIG), APP)).await;
    assert_eq!(refused.status, 401);
    assert_eq!(header(&refused.headers, "access-control-allow-origin"), APP);
    let request = from_page(api.request(Method::GET, CONFIG), APP);
    assert_eq!(Api::send(request.bearer_auth("s3cret")).await.status, 200);
    stop(lane, 1_000).await;
}

/// An answer to somebody who takes this, with its bytes as they came.
async fn taking(request: RequestBuilder, coding: &str) -> (HeaderMap, Vec<u8>) {
    let sent = request.header("accept-encoding", coding).send().await;
    let response: Response = sent.unwrap();
    assert_eq!(response.status(), 200);
    let headers = response.headers().clone();
    (headers, response.bytes().await.unwrap().to_vec())
}

fn unpacked(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out),
        "zstd" => ruzstd::decoding::StreamingDecoder::new(bytes)
            .unwrap()
            .read_to_end(&mut out),
        _ => panic!("{coding}"),
    }
    .unwrap();
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_packed_for_those_who_ask_and_come_out_to_the_byte() {
    let body = format!(
        r#"{{"id":"u", "created":1.0,"model":"glm-4.7","choices":[{{"index":0 ,"finish_reason":"stop","message":{{"role":"assistant","content":"{}"}}}}],"usage":{{"total_tokens":7}}}}"#,
        "many words ".repeat(500)
    );
    let answered = body.clone();
    let upstream = Upstream::start(move |mut call: Arrived<'_>| {
        call.answer(200, "content-type: application/json\r\n", &answered);
    });
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let chat = json!({"messages": [{"role": "user", "content": "hi"}]}).to_string();
    let (headers, plain) = taking(api.posting(CHAT, &*chat), "identity").await;
    assert!(!headers.contains_key("content-encoding"));
    assert!(plain == body.as_bytes());
    for coding in ["gzip", "zstd"] {
        let (headers, packed) = taking(api.posting(CHAT, &*chat), coding).await;
        assert_eq!(header(&headers, "content-encoding"), coding);
        assert_eq!(header(&headers, "content-length"), packed.len().to_string());
        assert_eq!(header(&headers, "vary"), "Accept-Encoding");
        assert!(packed.len() * 2 < body.len());
        assert!(unpacked(coding, &packed) == body.as_bytes(), "{coding}");
    }

    let document = || api.request(Method::GET, "/openapi.json");
    let (_, plain) = taking(document(), "identity").await;
    let (headers, packed) = taking(document(), "gzip, deflate, br, zstd").await;
    assert_eq!(header(&headers, "content-encoding"), "zstd");
    assert!(unpacked("zstd", &packed) == plain);
    let (of_head, nothing) = taking(api.request(Method::HEAD, "/openapi.json"), "zstd").await;
    assert!(nothing.is_empty());
    for name in ["content-length", "content-encoding", "vary"] {
        assert_eq!(header(&of_head, name), header(&headers, name), "{name}");
    }
    for refusing in ["gzip;q=0, zstd;q=0", "identity", "br", ""] {
        let (headers, bytes) = taking(document(), refusing).await;
        assert!(!headers.contains_key("content-encoding"), "{refusing}");
        assert!(bytes == plain);
    }
    // Too small to gain anything.
    let (headers, _) = taking(api.request(Method::GET, "/healthz"), "gzip, zstd").await;
    assert!(!headers.contains_key("content-encoding"));

    let export = || api.request(Method::GET, "/api/admin/glm/export?what=jobs");
    let (_, plain) = taking(export(), "identity").await;
    let (headers, packed) = taking(export(), "gzip, zstd").await;
    assert_eq!(header(&headers, "content-encoding"), "gzip");
    assert!(unpacked("gzip", &packed) == plain && !plain.is_empty());

    let events = api.request(Method::GET, "/api/glm/events");
    let events = events.header("accept-encoding", "gzip, zstd").send().await;
    let events = events.unwrap();
    assert!(!events.headers().contains_key("content-encoding"));
    drop(events);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_names_its_request_and_nothing_names_the_server() {
    let (_world, lane, api) = serving(ServerSection {
        admin_token: Some(Secret::new("s3cret")),
        ..ServerSection::default()
    })
    .await;
    let mut seen = std::collections::BTreeSet::new();
    for (method, path, token) in [
        (Method::GET, "/healthz", ""),
        (Method::GET, CONFIG, "s3cret"),
        (Method::GET, CONFIG, "wrong"),
        (Method::GET, "/nothing", "s3cret"),
        (Method::POST, CHAT, "s3cret"),
        (Method::DELETE, CHAT, "s3cret"),
        (Method::HEAD, "/openapi.json", "s3cret"),
    ] {
        let request = || api.request(method.clone(), path).bearer_auth(token);
        let named = Api::send(request().header("x-request-id", "of-the-client/7")).await;
        for name in NAMES {
            assert_eq!(header(&named.headers, name), "of-the-client/7", "{named:?}");
        }
        for wrong in ["a b", "\t", &"x".repeat(200)] {
            let made = Api::send(request().header("x-request-id", wrong)).await;
            let id = header(&made.headers, "x-request-id").to_owned();
            assert_eq!(header(&made.headers, "x-onelane-request"), id);
            assert!(id.len() > 16 && seen.insert(id), "{made:?}");
        }
        for name in ["server", "x-powered-by", "via"] {
            assert!(!named.headers.contains_key(name), "{named:?}");
        }
    }
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_told_with_the_name_of_its_request_even_before_every_route() {
    let (_world, lane, api) = serving(ServerSection::default()).await;
    for (method, path, at) in [
        (Method::GET, "/nothing", "/requestId"),
        (Method::GET, "/api/glm/jobs/7", "/requestId"),
        (Method::POST, "/v1/messages", "/request_id"),
        (Method::DELETE, "/api/anthropic/v1/messages", "/request_id"),
    ] {
        let request = api.request(method, path).header("x-request-id", "mine");
        let refused = Api::send(request).await;
        assert!((400..500).contains(&refused.status), "{refused:?}");
        assert_eq!(
            refused.json().pointer(at),
            Some(&json!("mine")),
            "{refused:?}"
        );
    }
    for (head, at) in [
        ("GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b", "/requestId"),
        ("GET /healthz HTTP/1.1\r\nhost: me@x", "/requestId"),
        ("POST /v1/messages HTTP/1.1", "/request_id"),
        ("GET http://a/healthz HTTP/1.1\r\nhost: b", "/requestId"),
        ("OPTIONS * HTTP/1.1\r\nhost: a", "/requestId"),
        ("CONNECT a:1 HTTP/1.1\r\nhost: a:1", "/requestId"),
    ] {
        let mut stream = TcpStream::connect(api.address).await.unwrap();
        let asked = format!("{head}\r\nx-request-id: mine\r\n\r\n");
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut told = String::new();
        stream.read_to_string(&mut told).await.unwrap();
        let (headers, body) = told.split_once("\r\n\r\n").unwrap();
        assert!(headers.starts_with("HTTP/1.1 400 "), "{head}: {told}");
        for name in NAMES {
            assert!(
                headers.contains(&format!("\r\n{name}: mine")),
                "{head}: {told}"
            );
        }
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body.pointer(at), Some(&json!("mine")), "{head}: {told}");
    }
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_that_glm_gave_a_call_stands_beside_that_of_the_request() {
    let upstream = Upstream::start(|mut call: Arrived<'_>| {
        let (status, body) = match call.prompt() {
            "bad" => (400, json!({"error": {"code": "1210", "message": "no"}})),
            _ => (200, call.completion("yes")),
        };
        call.answer(status, "x-request-id: of-glm\r\n", body.to_string());
    });
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    for (prompt, status) in [("good", 200), ("bad", 400)] {
        let chat = json!({"messages": [{"role": "user", "content": prompt}]}).to_string();
        let request = api.posting(CHAT, chat).header("x-request-id", "mine");
        let reply = Api::send(request).await;
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(header(&reply.headers, "x-request-id"), "of-glm");
        assert_eq!(header(&reply.headers, "x-onelane-request"), "mine");
    }
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused_however_it_is_made_and_the_lane_goes_on() {
    let (_world, lane, api) = serving(ServerSection::default()).await;
    let deep = |open: &str, close: &str| [open.repeat(10_000), close.repeat(10_000)].concat();
    let in_chat = |value: &str| format!(r#"{{"messages":{value}}}"#);
    let objects = deep(r#"{"a":"#, "}").replacen(":}", ":1}", 1);
    let bodies: Vec<Vec<u8>> = vec![
        b"{\"messages\":[{\"content\":\"\xff\xfe\"}]}".to_vec(),
        b"\xff".to_vec(),
        b"{\"prompt\":\"\xc3\x28\"}".to_vec(),
        deep("[", "]").into(),
        objects.clone().into(),
        in_chat(&deep("[", "]")).into(),
        in_chat(&format!("[{objects}]")).into(),
        "[".repeat(10_000).into(),
    ];
    for (method, path) in [
        (Method::POST, CHAT),
        (Method::POST, "/v1/messages"),
        (Method::POST, "/v1/responses"),
        (Method::POST, "/api/glm/jobs"),
        (Method::PUT, CONFIG),
        (Method::POST, "/api/admin/glm/retry"),
    ] {
        for body in &bodies {
            let request = api.request(method.clone(), path);
            let request = request.header("content-type", "application/json");
            let reply = Api::send(request.body(body.clone())).await;
            assert!((400..500).contains(&reply.status), "{path}: {reply:?}");
            let _: Value = reply.json();
        }
    }
    let id = api.submit(json!({"prompt": "hi"})).await;
    api.completed(&id).await;
    stop(lane, 1_000).await;
}
