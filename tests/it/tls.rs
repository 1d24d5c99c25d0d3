//! Guards: the API over TLS. Its certificate is taken from files, changes with them, and no client that is slow or gone
//! is in the way of another.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use onelane::config::ServerSection;
use onelane::orchestrator::Orchestrator;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::support::api::Api;
use crate::support::h2::H2;
use crate::support::http::{HttpLane, PATIENCE, stop, until};
use crate::support::tls::Authority;

/// An authority and the files of what it signed.
struct Signed {
    authority: Authority,
    dir: TempDir,
}

impl Signed {
    fn new() -> Self {
        let (authority, dir) = (Authority::new(), TempDir::new().unwrap());
        let signed = Self { authority, dir };
        signed.again();
        signed
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Signs anew.
    fn again(&self) {
        let (certificate, key) = (self.file("cert.pem"), self.file("key.pem"));
        self.authority.signs_into(&certificate, &key);
    }

    fn server(&self) -> ServerSection {
        let path = |name| Some(self.file(name).to_str().unwrap().to_owned());
        ServerSection {
            listen: "127.0.0.1:0".to_owned(),
            tls_cert: path("cert.pem"),
            tls_key: path("key.pem"),
            ..ServerSection::default()
        }
    }

    async fn served(&self) -> (HttpLane, Orchestrator, Api) {
        let world = HttpLane::new();
        let lane = world.start().await;
        let api = Api::serve_as(&lane, self.server()).await;
        (world, lane, api)
    }

    /// What the server shows of itself.
    async fn shown(&self, address: SocketAddr) -> Vec<u8> {
        let stream = self.authority.connect(address, &[], &[&TLS13]).await;
        let stream = stream.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_speaks_tls_and_nothing_else_where_it_has_a_certificate() {
    let signed = Signed::new();
    let (_world, lane, api) = signed.served().await;
    let client = signed.authority.client();
    let url = format!("https://localhost:{}", api.address.port());
    let health = client.get(format!("{url}/healthz")).send().await.unwrap();
    assert_eq!(health.status(), 200);
    let body = json!({"messages": [{"role": "user", "content": "hi"}]}).to_string();
    let chat = client.post(format!("{url}/v1/chat/completions")).body(body);
    let chat = chat.header("content-type", "application/json").send().await;
    assert_eq!(chat.unwrap().status(), 200);
    // A page of ours is asked for over TLS, one of another scheme is another's.
    for (origin, status) in [(url.clone(), 200), (url.replace("https", "http"), 403)] {
        let config = client.get(format!("{url}/api/admin/glm/config"));
        let answer = config.header("origin", &origin).send().await.unwrap();
        assert_eq!(answer.status(), status, "{origin}");
    }
    for versions in [&TLS12, &TLS13] {
        let offered: [(&[&str], Option<&[u8]>); 4] = [
            (&["h2", "http/1.1"], Some(b"h2")),
            (&["http/1.1"], Some(b"http/1.1")),
            (&[], None),
            (&["http/1.1", "h2"], Some(b"h2")),
        ];
        for (protocols, taken) in offered {
            let connected = signed
                .authority
                .connect(api.address, protocols, &[versions])
                .await;
            let stream = connected.unwrap();
            let spoken = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
            assert_eq!(spoken.as_deref(), taken);
            if taken == Some(b"h2") {
                let h2 = H2::on(stream, "localhost").await;
                assert_eq!(h2.get("/healthz").await.0, 200);
            }
        }
    }
    let mut clear = TcpStream::connect(api.address).await.unwrap();
    clear
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    clear.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("ask https://"), "{answer}");
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_does_not_end_is_in_nobodys_way_and_is_hung_up_on() {
    let signed = Signed::new();
    let world = HttpLane::new();
    let lane = world.start().await;
    let hasty = ServerSection {
        header_timeout_ms: 1_500,
        connections_max: 100,
        ..signed.server()
    };
    let api = Api::serve_as(&lane, hasty).await;
    let began = Instant::now();
    let mut slow = Vec::new();
    for n in 0..50 {
        let mut stream = TcpStream::connect(api.address).await.unwrap();
        // Some have begun: a record of 512 bytes is said to follow.
        if n % 2 == 0 {
            stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        }
        slow.push(stream);
    }
    let client = signed.authority.client();
    let url = format!("https://localhost:{}", api.address.port());
    let metrics = client.get(format!("{url}/api/admin/glm/metrics"));
    let metrics = metrics.send().await.unwrap().text().await.unwrap();
    let metrics: serde_json::Value = serde_json::from_str(&metrics).unwrap();
    let answered = began.elapsed();
    if answered < Duration::from_millis(1_000) {
        assert_eq!(metrics["server"]["connections"], 51, "{metrics}");
    }
    for mut stream in slow {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        let _ = read.expect("it is hung up on");
    }
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_read_anew_when_it_changes_and_one_that_can_not_be_used_is_not_taken() {
    let signed = Signed::new();
    let (_world, lane, api) = signed.served().await;
    let first = signed.shown(api.address).await;
    assert_eq!(signed.shown(api.address).await, first);
    // Half of a change.
    std::fs::write(signed.file("cert.pem"), signed.authority.signs().0).unwrap();
    let until_looked = Instant::now() + Duration::from_millis(1_300);
    while Instant::now() < until_looked {
        assert_eq!(signed.shown(api.address).await, first, "the old one stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    signed.again();
    until("the new one is shown", async || {
        signed.shown(api.address).await != first
    })
    .await;
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_over_tls_is_gone() {
    let signed = Signed::new();
    let mut world = HttpLane::new();
    world.config.gateway.reattach_ms = 0;
    let lane = world.start().await;
    world.block(&lane).await;
    let api = Api::serve_as(&lane, signed.server()).await;
    let body = json!({"messages": [{"role": "user", "content": "hi"}]}).to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let waiting = async |count: u64| {
        until("so many wait", async || {
            lane.queue_status().await.unwrap().pending == count
        })
        .await;
    };
    // With a word, and without one.
    for says_so in [true, false] {
        let connected = signed.authority.connect(api.address, &[], &[&TLS13]).await;
        let mut stream = connected.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        waiting(1).await;
        if says_so {
            stream.shutdown().await.unwrap();
        }
        drop(stream);
        waiting(0).await;
    }
    stop(lane, 10).await;
}
