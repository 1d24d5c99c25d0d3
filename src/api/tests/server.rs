//! The listener and what stands before every route: bounds, timeouts, tokens, origins, the end.

use std::time::Duration;

use onelane_core::model::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Running, World, config};
use crate::api::{BindError, Server};
use crate::config::ServerSection;

async fn bind(api: ServerSection) -> Result<Server, BindError> {
    let world = World {
        api,
        ..World::default()
    };
    world.bind().await
}

#[tokio::test]
async fn a_busy_port_is_an_error_that_names_it() {
    let first = bind(config()).await.unwrap();
    let listen = first.local_addr().unwrap().to_string();
    let error = bind(ServerSection {
        listen: listen.clone(),
        ..config()
    })
    .await
    .unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
    let text = error.to_string();
    assert!(text.starts_with(&format!("{listen} is in use")), "{text}");
    assert!(text.contains("--listen"), "{text}");
}

#[tokio::test]
async fn other_machines_are_let_in_only_with_a_token() {
    let everywhere = |token: Option<&str>| ServerSection {
        listen: "0.0.0.0:0".to_owned(),
        admin_token: token.map(Secret::new),
        ..config()
    };
    let error = bind(everywhere(None)).await.unwrap_err();
    assert!(matches!(error, BindError::NoToken { .. }), "{error}");
    assert!(error.to_string().contains("ONELANE_ADMIN_TOKEN"), "{error}");
    let error = bind(everywhere(Some(" "))).await.unwrap_err();
    assert!(matches!(error, BindError::EmptyToken), "{error}");
    let error = bind(everywhere(Some("hunter2"))).await.unwrap_err();
    assert!(matches!(error, BindError::WeakToken { .. }), "{error}");
    assert!(error.to_string().contains("16 characters"), "{error}");
    let strong = Some("8f14e45fceea167a5a36dedd4bea2543");
    let weak_viewer = ServerSection {
        viewer_token: Some(Secret::new("look")),
        ..everywhere(strong)
    };
    let error = bind(weak_viewer).await.unwrap_err();
    assert!(error.to_string().contains("the viewer token"), "{error}");
    assert!(bind(everywhere(strong)).await.is_ok());
    let name = ServerSection {
        listen: "localhost:0".to_owned(),
        ..config()
    };
    assert!(
        bind(name)
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .ip()
            .is_loopback()
    );
}

#[tokio::test]
async fn every_page_is_let_in_only_where_a_token_keeps_the_others_out() {
    let every = |token: Option<&str>| ServerSection {
        cors_origins: vec!["*".to_owned()],
        admin_token: token.map(Secret::new),
        ..config()
    };
    let error = bind(every(None)).await.unwrap_err();
    assert!(matches!(error, BindError::EveryPage), "{error}");
    assert!(error.to_string().contains("server.cors_origins"), "{error}");
    assert!(bind(every(Some("s3cret"))).await.is_ok());
}

#[tokio::test]
async fn an_address_that_makes_no_sense_is_named() {
    for listen in ["", "4700", "127.0.0.1", "127.0.0.1:99999"] {
        let error = bind(ServerSection {
            listen: listen.to_owned(),
            ..config()
        })
        .await
        .unwrap_err();
        assert!(
            matches!(error, BindError::Address { .. }),
            "{listen}: {error}"
        );
    }
}

#[tokio::test]
async fn health_needs_no_token_and_everything_else_does() {
    let with_token = ServerSection {
        admin_token: Some(Secret::new("s3cret")),
        ..config()
    };
    let api = Running::with(with_token).await;
    let reply = api.get("/healthz").await;
    assert_eq!(
        (reply.status, reply.text.as_str()),
        (200, r#"{"status":"ok"}"#)
    );
    let reply = Running::send(api.request("HEAD", "/healthz")).await;
    assert_eq!((reply.status, reply.text.as_str()), (200, ""));

    let reply = api.get("/api/admin/glm/config").await;
    assert_eq!(reply.status, 401);
    assert_eq!(reply.headers["www-authenticate"], "Bearer");
    assert_eq!(reply.headers["content-type"], "application/problem+json");
    assert!(!reply.text.contains("s3cret"));
    for path in ["/nothing", "/openapi.json"] {
        let status = api.get(path).await.status;
        assert_eq!(status, 401, "nor does it say what there is: {path}");
    }
    let reply = api.post("/v1/chat/completions", "{}").await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (401, &"1000".into())
    );

    for value in ["Bearer s3cret", "s3cret"] {
        let request = api.request("GET", "/api/admin/glm/config");
        let reply = Running::send(request.header("authorization", value)).await;
        assert_eq!(reply.status, 200, "{value}");
    }
}

#[tokio::test]
async fn without_a_token_web_pages_are_kept_out() {
    let api = Running::start().await;
    let get = |name: &'static str, value: &'static str| {
        let request = api.request("GET", "/api/admin/glm/config");
        Running::send(request.header(name, value))
    };
    assert_eq!(get("host", "rebound.example").await.status, 403);
    assert_eq!(get("origin", "https://evil.example").await.status, 403);
    assert_eq!(get("host", "localhost").await.status, 200);
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods_are_told_apart() {
    let api = Running::start().await;
    let reply = api.get("/api/admin/glm/nothing").await;
    assert_eq!(reply.status, 404);
    assert_eq!(reply.detail(), "there is nothing at /api/admin/glm/nothing");
    let reply = api.post("/api/admin/glm/config", "not even JSON").await;
    assert_eq!(reply.status, 405);
    assert_eq!(reply.headers["allow"], "GET, PUT, HEAD");
    let reply = api.get("/api/admin/glm/queue/17").await;
    assert_eq!(reply.status, 400);
    assert_eq!(
        reply.detail(),
        "id: must be a UUID, such as the id of a job"
    );
}

#[tokio::test]
async fn a_bad_query_is_named() {
    let api = Running::start().await;
    let check = async |path: &str, field: &str| {
        let reply = api.get(&format!("/api/admin/glm/{path}")).await;
        assert_eq!(reply.status, 400, "{path}");
        assert_eq!(reply.json()["errors"][0]["field"], field, "{path}");
    };
    check("queue?limit=-1", "limit").await;
    check("queue?status=done", "status").await;
    check("queue?sort=asc", "sort").await;
    check("queue?model=%ff", "model").await;
    check("statistics?startDate=2026-02-30", "startDate").await;
    check(
        "statistics?startDate=2026-11-24&endDate=2026-11-23",
        "startDate",
    )
    .await;
    check("statistics?groupBy=week", "groupBy").await;
    check("statistics?groupBy=day,month", "groupBy").await;
    check("statistics?format=xml", "format").await;
    check("metrics?verbose=1", "verbose").await;
}

#[tokio::test]
async fn a_bad_body_is_told_what_is_wrong_with_it() {
    let small = ServerSection {
        max_body_bytes: 1_000,
        ..config()
    };
    let api = Running::with(small).await;
    let jobs = "/api/glm/jobs";
    let reply = api.post(jobs, "{\n\"prompt\": }").await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.detail(), "expected value at line 2 column 11");
    let request = api
        .request("POST", jobs)
        .header("content-type", "text/plain");
    assert_eq!(Running::send(request.body("{}")).await.status, 415);
    let bytes = api
        .request("POST", jobs)
        .body(b"{\"prompt\":\"\xff\"}".to_vec());
    let reply = Running::send(bytes).await;
    assert_eq!(
        (reply.status, reply.detail().contains("not UTF-8")),
        (400, true)
    );
    let without_type = api.request("POST", jobs).body(r#"{"prompt":"hi"}"#);
    assert_eq!(Running::send(without_type).await.status, 202);

    let large = format!(r#"{{"prompt":"{}"}}"#, "x".repeat(1_500));
    let reply = api.post(jobs, &large).await;
    assert_eq!(
        (reply.status, reply.detail().contains("1000 bytes")),
        (413, true)
    );
    // Without a declared length.
    let chunk = "x".repeat(1_500);
    let chunked = format!(
        "POST {jobs} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         transfer-encoding: chunked\r\n\r\n5dc\r\n{chunk}\r\n0\r\n\r\n"
    );
    assert!(
        api.raw(chunked.as_bytes())
            .await
            .starts_with("HTTP/1.1 413")
    );
    let asks_first = format!(
        "POST {jobs} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-length: 9999\r\nexpect: 100-continue\r\n\r\n"
    );
    assert!(
        api.raw(asks_first.as_bytes())
            .await
            .starts_with("HTTP/1.1 413")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_that_is_refused_is_not_waited_for_and_its_client_reads_why() {
    const MB: usize = 1024 * 1024;
    let api = Running::start().await;
    let chat = "/v1/chat/completions";
    let head = |length: usize| {
        format!("POST {chat} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n")
    };
    let told = async |stream: &mut TcpStream| {
        let mut told = String::new();
        stream.read_to_string(&mut told).await.unwrap();
        assert!(told.contains("\r\nconnection: close\r\n"), "{told}");
        told
    };
    // Those who wait for an answer before they go on.
    let list = "[{\"a\":1},".repeat(4 * 1024);
    for (length, sent, want) in [(15 * MB, list.as_str(), "400"), (1024 * MB, "", "413")] {
        let mut client = TcpStream::connect(api.address).await.unwrap();
        let request = head(length) + sent;
        client.write_all(request.as_bytes()).await.unwrap();
        let told = told(&mut client).await;
        assert!(told.starts_with(&format!("HTTP/1.1 {want} ")), "{told}");
    }
    // Those who read once they have sent it all, many at once.
    let clients: Vec<_> = (0..8)
        .map(|n| {
            let (length, want) = [(15 * MB, "400"), (17 * MB, "413")][n % 2];
            let (address, head) = (api.address, head(length));
            tokio::spawn(async move {
                let mut client = TcpStream::connect(address).await.unwrap();
                let body = "[".repeat(length);
                client.write_all(head.as_bytes()).await.unwrap();
                client.write_all(body.as_bytes()).await.unwrap();
                let mut told = String::new();
                client.read_to_string(&mut told).await.unwrap();
                assert!(told.starts_with(&format!("HTTP/1.1 {want} ")), "{told}");
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_together_come_in_at_a_pace_that_small_ones_do_not_wait_for() {
    const MB: usize = 1024 * 1024;
    let api = Running::paused().await;
    let request = |length: usize| {
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{{"
        );
        head + &" ".repeat(length - 1)
    };
    let began = std::time::Instant::now();
    let (senders, length) = (12, 15 * MB);
    let clients: Vec<_> = (0..senders)
        .map(|_| {
            let (address, request) = (api.address, request(length));
            tokio::spawn(async move {
                let mut client = TcpStream::connect(address).await.unwrap();
                client.write_all(request.as_bytes()).await.unwrap();
                let mut told = String::new();
                client.read_to_string(&mut told).await.unwrap();
                assert!(told.starts_with("HTTP/1.1 "), "{told}");
            })
        })
        .collect();
    while !clients.iter().all(tokio::task::JoinHandle::is_finished) {
        let id = api.submit(r#"{"prompt":"small"}"#).await;
        assert!(!id.is_empty());
    }
    for client in clients {
        client.await.unwrap();
    }
    // What lies in the buffers of the system is sent before it is read, and what is refused may have a free beginning.
    let buffered = senders * 8 * MB;
    let read = (senders * length - buffered) as u64 - crate::api::limits::INTAKE_BURST_BYTES;
    let least =
        Duration::from_secs_f64(read as f64 / crate::api::limits::INTAKE_BYTES_PER_S as f64);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
}

#[tokio::test]
async fn every_answer_forbids_caching_and_sniffing() {
    let api = Running::start().await;
    for path in [
        "/healthz",
        "/api/admin/glm/config",
        "/nothing",
        "/v1/nothing",
    ] {
        let reply = api.get(path).await;
        assert_eq!(reply.headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(reply.headers["cache-control"], "no-store", "{path}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_finish_is_hung_up_on() {
    let hasty = ServerSection {
        header_timeout_ms: 100,
        body_idle_timeout_ms: 100,
        ..config()
    };
    let api = Running::with(hasty).await;
    // Headers that never end.
    let late = api.raw(b"GET /healthz HTTP/1.1\r\nhost: loc").await;
    assert!(late.starts_with("HTTP/1.1 408"), "{late}");
    assert!(late.contains("\r\nx-onelane-request: "), "{late}");
    // Nothing at all: closed without an answer.
    assert_eq!(api.raw(b"").await, "");
    // A body that never ends.
    let stuck = b"POST /api/glm/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{";
    assert!(api.raw(stuck).await.starts_with("HTTP/1.1 408"));
}

#[tokio::test]
async fn a_pause_within_a_body_has_a_bound_of_its_own() {
    let hasty = ServerSection {
        header_timeout_ms: 100,
        ..config()
    };
    let api = Running::with(hasty).await;
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    let body = r#"{"prompt":"hi"}"#;
    let head = format!(
        "POST /api/glm/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // Longer than headers may take.
    tokio::time::sleep(Duration::from_millis(400)).await;
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut told = String::new();
    stream.read_to_string(&mut told).await.unwrap();
    assert!(told.starts_with("HTTP/1.1 202"), "{told}");
}

#[tokio::test]
async fn headers_without_end_are_refused() {
    let api = Running::start().await;
    let long = format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(70_000));
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    stream.write_all(long.as_bytes()).await.unwrap();
    let mut told = String::new();
    stream.read_to_string(&mut told).await.unwrap();
    assert!(told.starts_with("HTTP/1.1 431"), "{told}");
    assert!(told.contains("\"requestId\":\""), "{told}");
    let many = "x: y\r\n".repeat(200);
    let many = format!("GET /healthz HTTP/1.1\r\n{many}\r\n");
    assert!(api.raw(many.as_bytes()).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn what_is_no_http_is_told_so_in_words_also_behind_a_request_that_is() {
    let api = Running::start().await;
    let good = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for odd in [
        "\u{1}\u{2}\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET /a b HTTP/1.1\r\n\r\n",
    ] {
        let told = api.raw(odd.as_bytes()).await;
        assert!(told.starts_with("HTTP/1.1 400 "), "{odd:?}: {told}");
        let (_, body) = told.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["type"], "urn:onelane:problem:unreadable");
        let both = api.raw(format!("{good}{odd}").as_bytes()).await;
        let (first, second) = both.split_once("HTTP/1.1 400 ").unwrap();
        assert!(first.starts_with("HTTP/1.1 200 "), "{both}");
        assert!(second.contains("urn:onelane:problem:unreadable"), "{both}");
    }
}

#[tokio::test]
async fn an_open_request_is_finished_before_the_end() {
    let mut api = Running::paused().await;
    let id = api.submit(r#"{"prompt":"hi"}"#).await;
    let mut idle = TcpStream::connect(api.address).await.unwrap();
    let path = format!("/api/glm/jobs/{id}?wait=1m");
    let open = tokio::spawn(Running::send(api.request("GET", &path)));
    // Long enough for the request to arrive.
    tokio::time::sleep(Duration::from_millis(300)).await;
    api.stop.take().unwrap().send(()).unwrap();
    // An idle connection is closed at once.
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(
        TcpStream::connect(api.address).await.is_err(),
        "nobody new is let in"
    );
    api.lane.cancel(id.parse().unwrap()).await.unwrap();
    assert_eq!(open.await.unwrap().status, 200);
    (&mut api.task).await.unwrap();
}

/// Bytes of a request for this path.
fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

/// Sends bytes and reads the head of the answer.
async fn ask(stream: &mut TcpStream, bytes: &[u8]) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut head = vec![0; 15];
    stream.read_exact(&mut head).await.unwrap();
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_request_without_a_path_is_refused_and_panics_nothing() {
    let api = Running::start().await;
    for target in ["x:1", "*", "127.0.0.1:4700", "x"] {
        for method in ["CONNECT", "GET", "POST", "OPTIONS", "HEAD", "BREW"] {
            let request = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n\r\n");
            let answer = api.raw(request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{request}: {answer}");
        }
    }
    let whole =
        "GET http://localhost/healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = api.raw(whole.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!api.task.is_finished());
}

#[tokio::test]
async fn a_request_names_one_host() {
    let api = Running::start().await;
    let check = async |path: &str, hosts: &str, want: &str| {
        let request = format!("GET {path} HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
        let answer = api.raw(request.as_bytes()).await;
        assert!(answer.starts_with(want), "{request}: {answer}");
    };
    let config = "/api/admin/glm/config";
    check(config, "host: localhost\r\n", "HTTP/1.1 200").await;
    check(config, "", "HTTP/1.1 400").await;
    let two = "host: localhost\r\nhost: localhost\r\n";
    check(config, two, "HTTP/1.1 400").await;
    check("/healthz", "", "HTTP/1.1 200").await;
}

#[tokio::test]
async fn a_client_that_closed_its_side_gets_its_answer() {
    let api = Running::busy().await;
    let chat = r#"{"messages":[{"role":"user","content":"hi"}]}"#;
    let kinds = [("1.1", "connection: close\r\n"), ("1.1", ""), ("1.0", "")];
    for (version, more) in kinds {
        let mut client = TcpStream::connect(api.address).await.unwrap();
        let length = chat.len();
        let request = format!(
            "POST /v1/chat/completions HTTP/{version}\r\nhost: localhost\r\n{more}content-length: {length}\r\n\r\n{chat}"
        );
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let job = async || {
            let found = api.get("/api/admin/glm/queue?status=pending").await.json();
            found["queue"][0]["id"].as_str().map(str::to_owned)
        };
        let id = loop {
            if let Some(id) = job().await {
                break id;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        // Longer than it takes to find out that a client is gone: this one is there, and sees nothing of the question.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert_eq!(job().await.as_ref(), Some(&id), "given up");
        api.lane.cancel(id.parse().unwrap()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        let want = format!("HTTP/{version} 409 ");
        assert!(answer.starts_with(&want), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_is_gone_is_noticed_although_others_may_close_their_side() {
    let api = Running::busy().await;
    let chat = r#"{"messages":[{"role":"user","content":"hi"}]}"#;
    let mut client = TcpStream::connect(api.address).await.unwrap();
    let length = chat.len();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{chat}"
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let count = async |status: &str| {
        let path = format!("/api/admin/glm/queue?status={status}");
        api.get(&path).await.json()["total"].as_u64().unwrap()
    };
    while count("pending").await == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(client);
    while count("cancelled").await == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn at_the_bound_the_connection_that_waited_longest_without_whole_headers_is_closed() {
    let few = ServerSection {
        connections_max: 2,
        ..config()
    };
    let api = Running::with(few).await;
    let mut drips = TcpStream::connect(api.address).await.unwrap();
    drips.write_all(b"GET /healthz HT").await.unwrap();
    let mut second = TcpStream::connect(api.address).await.unwrap();
    assert_eq!(ask(&mut second, &get("/healthz")).await, "HTTP/1.1 200 OK");
    // It only just came: whoever comes now gets in beside it.
    let mut third = TcpStream::connect(api.address).await.unwrap();
    assert_eq!(ask(&mut third, &get("/healthz")).await, "HTTP/1.1 200 OK");
    let mut byte = [0; 1];
    let ended = loop {
        let mut another = TcpStream::connect(api.address).await.unwrap();
        assert_eq!(ask(&mut another, &get("/healthz")).await, "HTTP/1.1 200 OK");
        let read = tokio::time::timeout(Duration::from_millis(50), drips.read(&mut byte));
        if let Ok(ended) = read.await {
            break ended;
        }
    };
    assert!(matches!(ended, Ok(0) | Err(_)), "it made way: {ended:?}");
    let metrics = api.get("/api/admin/glm/metrics").await.json();
    assert_eq!(metrics["server"]["connectionsMax"], 2);
    assert!(metrics["server"]["connectionsMadeWay"].as_u64() >= Some(1));
}

/// Reads one answer to its last byte: head and body.
async fn answer(stream: &mut TcpStream) -> std::io::Result<(String, String)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap();
    let length: usize = length.lines().next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((head, String::from_utf8(body).unwrap()))
}

#[tokio::test]
async fn in_a_burst_every_client_is_answered_in_whole_and_none_is_cut_off() {
    const CLIENTS: usize = 250;
    let few = ServerSection {
        connections_max: 40,
        requests_max: 30,
        ..config()
    };
    let api = Running::with(few).await;
    api.block().await;
    let connecting = (0..CLIENTS).map(|_| TcpStream::connect(api.address));
    let connected = futures_util::future::join_all(connecting).await;
    let chat = r#"{"messages":[{"role":"user","content":"hi"}]}"#;
    let length = chat.len();
    // What comes after the request is read by nobody where the connection ends with its answer.
    let rest = "x".repeat(20_000);
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{chat}{rest}"
    );
    let mut clients = tokio::task::JoinSet::new();
    for stream in connected {
        let (mut stream, request) = (stream.unwrap(), request.clone());
        clients.spawn(async move {
            stream.write_all(request.as_bytes()).await.unwrap();
            answer(&mut stream).await
        });
    }
    // Those that are let in wait for their answers.
    for _ in 30..CLIENTS {
        let (head, body) = clients.join_next().await.unwrap().unwrap().unwrap();
        assert!(head.starts_with("http/1.1 503 "), "{head}");
        assert!(head.contains("\r\nretry-after: 1\r\n"), "{head}");
        assert!(head.contains("\r\nx-should-retry: true\r\n"), "{head}");
        let error = serde_json::from_str::<serde_json::Value>(&body).unwrap()["error"].clone();
        assert_eq!(error["code"], "503", "{error}");
        assert_eq!(error["type"], "service_unavailable_error", "{error}");
    }
    assert_eq!(api.get("/healthz").await.status, 200);
    let server = api.get("/api/admin/glm/metrics").await.json()["server"].clone();
    assert_eq!(server["requests"], 30, "{server}");
    assert_eq!(server["connectionsMadeWay"], 0, "{server}");
}

#[tokio::test]
async fn operators_get_in_whatever_others_keep_busy() {
    let few = ServerSection {
        connections_max: 12,
        requests_max: 4,
        body_timeout_ms: 60_000,
        ..config()
    };
    let api = Running::with(few).await;
    api.lane.pause(None).await.unwrap();
    let id = api.submit(r#"{"prompt":"hi"}"#).await;
    let mut others = Vec::new();
    let waits = get(&format!("/api/glm/jobs/{id}?wait=1m"));
    let drips = b"POST /api/glm/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{";
    for n in 0..12 {
        let mut stream = TcpStream::connect(api.address).await.unwrap();
        let request: &[u8] = if n % 2 == 0 { &waits } else { drips };
        stream.write_all(request).await.unwrap();
        others.push(stream);
    }
    // Those beyond the bound of requests are refused, and told when to come back.
    let mut refused = 0;
    for stream in &mut others {
        let mut head = [0; 12];
        let head = tokio::time::timeout(Duration::from_millis(1_500), stream.read_exact(&mut head));
        if let Ok(Ok(_)) = head.await {
            refused += 1;
        }
    }
    assert_eq!(refused, 8);
    for _ in 0..100 {
        assert_eq!(api.get("/healthz").await.status, 200);
    }
    let reply = api.post("/api/glm/jobs", r#"{"prompt":"one more"}"#).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_eq!(reply.headers["retry-after"], "1");
    assert_eq!(super::kind(&reply.json()), "busy");
    api.post("/api/admin/glm/resume", "").await.expect(200);
    let server = api.get("/api/admin/glm/metrics").await.json()["server"].clone();
    assert_eq!(server["requestsMax"], 4);
    assert_eq!(server["requests"], 4, "{server}");
    assert!(server["requestsRefused"].as_u64() >= Some(9), "{server}");
    drop(others);
}

#[tokio::test]
async fn connections_that_all_have_requests_leave_some_for_operators_alone() {
    let few = ServerSection {
        connections_max: 3,
        ..config()
    };
    let mut api = Running::with(few).await;
    // Each request on a connection of its own: a kept one might have to make way.
    let client = crate::tls::client().unwrap().no_proxy();
    api.client = client.pool_max_idle_per_host(0).build().unwrap();
    let mut others = Vec::new();
    let asks_first = b"POST /api/glm/jobs HTTP/1.1\r\nhost: localhost\r\n\
        content-length: 9\r\nexpect: 100-continue\r\n\r\n";
    for _ in 0..3 {
        let mut stream = TcpStream::connect(api.address).await.unwrap();
        assert_eq!(ask(&mut stream, asks_first).await, "HTTP/1.1 100 Co");
        others.push(stream);
    }
    let reply = api.post("/api/glm/jobs", r#"{"prompt":"one more"}"#).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_eq!(reply.headers["connection"], "close");
    assert_eq!(api.get("/healthz").await.status, 200);
    api.post("/api/admin/glm/resume", "").await.expect(200);
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up() {
    let hasty = ServerSection {
        write_timeout_ms: 200,
        ..config()
    };
    let api = Running::with(hasty).await;
    api.lane.pause(None).await.unwrap();
    let prompt = "x".repeat(8 * 1024 * 1024);
    let id = api.submit(&format!(r#"{{"prompt":"{prompt}"}}"#)).await;
    let mut lazy = TcpStream::connect(api.address).await.unwrap();
    lazy.write_all(&get(&format!("/api/glm/jobs/{id}")).repeat(3))
        .await
        .unwrap();
    let untaken = async || {
        let metrics = api.get("/api/admin/glm/metrics").await.json();
        metrics["server"]["answersUntaken"].as_u64().unwrap()
    };
    while untaken().await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Whoever reads gets all of it.
    assert!(api.get(&format!("/api/glm/jobs/{id}")).await.text.len() > prompt.len());
}
