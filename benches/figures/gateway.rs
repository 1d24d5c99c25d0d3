//! The gateway beside a bare pass-through of hyper, in front of the same server, which answers at once. Client, server
//! and what is between them share one process and its cores.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use onelane::api::Server;
use onelane::config::ServerSection;
use onelane::model::AnswerWhen;
use onelane::orchestrator::{LaneThread, Orchestrator};
use onelane::system::SystemClock;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{config, quantile, scratch, submit};

const ROUNDS: usize = 5;
/// Requests of one client in a round.
const ONE: usize = 300;
/// Clients that ask at once, and requests of each in a round.
const MANY: usize = 32;
const OF_EACH: usize = 150;
const PIECES: usize = 10_000;
/// Between the first piece and the others, which then come all at once and keep every core busy.
const AFTER_THE_FIRST: Duration = Duration::from_millis(20);

type Body = BoxBody<Bytes, hyper::Error>;

fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed()
}

/// Serves every connection of a new address with `answer`.
async fn serve<F, R>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            tokio::spawn(async move {
                let io = TokioIo::new(stream);
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(io, service)
                    .await;
            });
        }
    });
    address
}

/// The id that a body asks to be echoed; without it a connection is not used again.
fn request_id(body: &[u8]) -> &str {
    let text = std::str::from_utf8(body).unwrap();
    let id = text.split_once("\"request_id\":\"");
    id.map_or("none", |(_, rest)| rest.split_once('"').unwrap().0)
}

fn piece(id: &str, text: &str, end: &str) -> String {
    format!(
        r#"data: {{"id":"c","request_id":"{id}","created":1,"model":"glm-4.7","choices":[{{"index":0,"delta":{{"role":"assistant","content":"{text}"}}{end}"#
    ) + "}\n\n"
}

/// A server that answers at once: whole, or in pieces of which each is a chunk of its own.
async fn upstream() -> SocketAddr {
    serve(|request| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let id = request_id(&body).to_owned();
        let streams = body.windows(13).any(|at| at == br#""stream":true"#);
        let usage = r#""usage":{"prompt_tokens":20,"completion_tokens":20,"total_tokens":40}"#;
        let mut answer = Response::new(if streams {
            let last = piece(&id, "", &format!(r#","finish_reason":"stop"}}],{usage}"#));
            let pieces = (0..PIECES).map(move |_| piece(&id, "word ", "}]"));
            let all = pieces.chain([last, "data: [DONE]\n\n".to_owned()]);
            let frames = all.map(|piece| Ok(Frame::data(Bytes::from(piece))));
            let frames = stream::iter(frames.enumerate()).then(|(n, frame)| async move {
                if n == 1 {
                    tokio::time::sleep(AFTER_THE_FIRST).await;
                }
                frame
            });
            BodyExt::boxed(StreamBody::new(frames))
        } else {
            whole(format!(
                r#"{{"id":"c","request_id":"{id}","created":1,"model":"glm-4.7","choices":[{{"index":0,"finish_reason":"stop","message":{{"role":"assistant","content":"A queue keeps what the API can't take yet."}}}}],{usage}}}"#
            ))
        });
        let media = if streams { "text/event-stream" } else { "application/json" };
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
        answer
    })
    .await
}

/// The baseline: every request is sent on as it is, and so is every answer.
async fn pass_through(to: SocketAddr) -> SocketAddr {
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build_http();
    serve(move |mut request| {
        let path = request.uri().path().to_owned();
        *request.uri_mut() = format!("http://{to}{path}").parse::<Uri>().unwrap();
        request.headers_mut().remove(HOST);
        let answer = client.request(request);
        async move { answer.await.unwrap().map(|body| body.boxed()) }
    })
    .await
}

/// The daemon's server on a lane of its own.
struct Gateway {
    lane: Orchestrator,
    _thread: LaneThread,
    address: SocketAddr,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Gateway {
    async fn start(to: SocketAddr, slots: u16, answer: AnswerWhen) -> Self {
        let dir = scratch();
        let base_url = format!("http://{to}/api/paas/v4");
        let mut config = config(&dir.path().join("lane.redb"), &base_url);
        config.lane.rules.max_concurrency = slots;
        config.gateway.answer = answer;
        let (thread, lane) = super::start(config).await;
        let section = ServerSection {
            listen: "127.0.0.1:0".to_owned(),
            ..ServerSection::default()
        };
        let server = Server::bind(section, lane.clone(), Arc::new(SystemClock));
        let server = server.await.unwrap();
        let (address, stop) = (server.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(server.run(stop.clone().cancelled_owned(), Duration::from_secs(5)));
        Self {
            lane,
            _thread: thread,
            address,
            stop,
            _dir: dir,
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.lane.shutdown(Duration::from_secs(5)).await;
    }
}

fn client() -> reqwest::Client {
    let client = onelane::tls::client().unwrap().no_proxy().http1_only();
    client.tcp_nodelay(true).build().unwrap()
}

async fn ask(
    client: &reqwest::Client,
    to: SocketAddr,
    n: usize,
    streams: bool,
) -> reqwest::Response {
    let text = format!(
        r#"{{"model":"glm-4.7","stream":{streams},"messages":[{{"role":"user","content":"Summarise in one sentence why a queue in front of a rate-limited API helps, number {n}."}}]}}"#
    );
    let answer = client
        .post(format!("http://{to}/api/paas/v4/chat/completions"))
        .header("authorization", "Bearer bench-key.secret")
        .header("content-type", "application/json")
        .body(text)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    answer
}

/// How long one client waits for each of its answers, in microseconds, sorted.
async fn waits(to: SocketAddr, requests: usize) -> Vec<u64> {
    let client = client();
    let mut times = Vec::with_capacity(requests);
    for n in 0..requests {
        let begun = Instant::now();
        ask(&client, to, n, false).await.bytes().await.unwrap();
        times.push(begun.elapsed().as_micros() as u64);
    }
    times.sort_unstable();
    times
}

/// Processor time of this process, in microseconds.
fn cpu_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(") ").unwrap().1;
    let ticks = fields.split(' ').skip(11).take(2);
    ticks
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum::<u64>()
        * 10_000
}

/// Answers a second that many clients get at once, and the processor time of each.
async fn rate(to: SocketAddr) -> (f64, u64) {
    // Each of them reads the system's certificates, which takes longer than a hundred answers.
    let clients: Vec<_> = (0..MANY).map(|_| client()).collect();
    let (begun, cpu) = (Instant::now(), cpu_us());
    let clients: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(c, client)| {
            tokio::spawn(async move {
                for n in 0..OF_EACH {
                    let answer = ask(&client, to, c * OF_EACH + n, false).await;
                    answer.bytes().await.unwrap();
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let calls = MANY * OF_EACH;
    let rate = calls as f64 / begun.elapsed().as_secs_f64();
    (rate, (cpu_us() - cpu) / calls as u64)
}

/// How long the first piece of a stream takes and how long all do, in microseconds.
async fn stream(to: SocketAddr) -> (u64, u64) {
    let client = client();
    ask(&client, to, 0, false).await.bytes().await.unwrap();
    let begun = Instant::now();
    let mut answer = ask(&client, to, 1, true).await;
    let first = answer.chunk().await.unwrap().unwrap();
    let first_us = begun.elapsed().as_micros() as u64;
    let (mut pieces, mut last) = (0, b' ');
    let mut count = |chunk: &[u8]| {
        for byte in chunk {
            // An event ends in an empty line, which two chunks may share.
            pieces += usize::from(last == b'\n' && *byte == b'\n');
            last = *byte;
        }
    };
    count(&first);
    while let Some(chunk) = answer.chunk().await.unwrap() {
        count(&chunk);
    }
    assert_eq!(pieces, PIECES + 2);
    (first_us, begun.elapsed().as_micros() as u64)
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    quantile(&values, 0.5)
}

pub(super) async fn run() {
    println!(
        "\n== the gateway beside a bare pass-through, server answers at once (medians of {ROUNDS} rounds)"
    );
    // A server is another program: what it does keeps none of these from their own work.
    let elsewhere = LaneThread::new().unwrap();
    let to = elsewhere.run(upstream()).await;
    let bare = pass_through(to).await;
    waits(bare, 50).await;
    for (answer, name, commits) in [
        (AnswerWhen::Stored, "stored", 2),
        (AnswerWhen::Relay, "relay", 1),
    ] {
        let gateway = Gateway::start(to, 1, answer).await;
        waits(gateway.address, 50).await;
        let (mut added, mut tails, mut over) = (Vec::new(), Vec::new(), Vec::new());
        let mut commit_us = 0;
        for _ in 0..ROUNDS {
            let dir = scratch();
            let commit = submit::bare_commit(dir.path(), 300, 300);
            let passed = waits(bare, ONE).await;
            let through = waits(gateway.address, ONE).await;
            let more = |q| quantile(&through, q).saturating_sub(quantile(&passed, q));
            added.push(more(0.5));
            tails.push(more(0.99));
            over.push(more(0.5).saturating_sub(commits * commit));
            commit_us = commit;
        }
        println!(
            "one client, \"{name}\": adds p50 {} us, p99 {} us; p50 over {commits} bare commits of {commit_us} us: {} us (aim: at most 150)",
            median(added),
            median(tails),
            median(over)
        );
        gateway.stop().await;
    }
    let gateway = Gateway::start(to, 32, AnswerWhen::Stored).await;
    rate(gateway.address).await;
    rate(bare).await;
    let (mut ratios, mut rates, mut bares) = (Vec::new(), Vec::new(), Vec::new());
    let (mut cpu, mut cpu_bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (passed, of_passed) = rate(bare).await;
        let (through, of_through) = rate(gateway.address).await;
        ratios.push((through / passed * 1_000.0) as u64);
        rates.push(through as u64);
        bares.push(passed as u64);
        cpu.push(of_through);
        cpu_bare.push(of_passed);
    }
    println!(
        "{MANY} clients on {MANY} slots: {} answers/s, pass-through {}: {:.3} (aim: at least 0.15) | processor time of an answer {} us, pass-through {} us, client and server included",
        median(rates),
        median(bares),
        median(ratios) as f64 / 1_000.0,
        median(cpu),
        median(cpu_bare)
    );
    gateway.stop().await;
    let gateway = Gateway::start(to, 1, AnswerWhen::Stored).await;
    let (mut firsts, mut pieces) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (first_bare, all_bare) = stream(bare).await;
        let (first, all) = stream(gateway.address).await;
        firsts.push(first.saturating_sub(first_bare));
        let over_ns = all.saturating_sub(all_bare) * 1_000;
        pieces.push(over_ns / PIECES as u64);
    }
    println!(
        "a stream of {PIECES} pieces: {:.1} us a piece over the pass-through (aim: at most 10) | first piece {} us later, of which a commit is before the call",
        median(pieces) as f64 / 1_000.0,
        median(firsts)
    );
    gateway.stop().await;
}
