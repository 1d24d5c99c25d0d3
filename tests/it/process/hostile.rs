//! Guards: clients that keep connections, headers, bodies or calls to themselves. They are refused or time out, operators
//! get in, and the lane keeps its pace. What it took is printed: `--no-capture` shows it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use onelane::simulator::{Fault, Rule};
use serde_json::{Value, json};

use super::{Daemon, serve, simulator, world};
use crate::common::{PATIENCE, Place, until};

/// What a busy machine and a debug build may add to what is promised of a release build.
const GENEROUS: Duration = Duration::from_secs(5);
/// Files that this process has beside its connections.
const OTHER_FILES: u64 = 200;

fn configured(settings: &str) -> (Place, onelane::simulator::Simulator) {
    let (place, simulator) = world();
    place.write("onelane.toml", settings);
    (place, simulator)
}

fn address(daemon: &Daemon) -> &str {
    daemon.url.strip_prefix("http://").unwrap()
}

/// How long the slowest of some answers took that operators and watchers ask for.
fn slowest(daemon: &Daemon) -> Duration {
    let paths = ["/healthz", "/readyz", "/api/admin/glm/metrics"];
    let took = |path: &&str| {
        let began = Instant::now();
        daemon.get(path);
        began.elapsed()
    };
    let all = (0..10).flat_map(|_| paths.iter().map(took));
    all.max().unwrap()
}

/// Submits a job as a client does that is told to come again.
fn handed_in(daemon: &Daemon, job: &Value) -> String {
    let mut id = String::new();
    until("it is let in", || {
        let taken = daemon
            .http
            .post(&format!("{}/api/glm/jobs", daemon.url), job);
        let taken = taken.unwrap();
        assert!(matches!(taken.status, 202 | 503), "{taken:?}");
        id = taken.json()["id"].as_str().unwrap_or_default().to_owned();
        taken.status == 202
    });
    id
}

/// Does so many jobs, one after the other.
fn work(daemon: &Daemon, jobs: usize) -> Duration {
    let began = Instant::now();
    for n in 0..jobs {
        let id = handed_in(daemon, &json!({"prompt": format!("work {n}")}));
        assert_eq!(daemon.ended(&id)["status"], "completed");
    }
    began.elapsed()
}

fn server(daemon: &Daemon) -> Value {
    daemon.get("/api/admin/glm/metrics")["server"].clone()
}

#[test]
fn ten_thousand_idle_connections_are_in_nobodys_way() {
    let settings = "[server]\nconnections_max = 20000\nheader_timeout_ms = 600000\n";
    let (place, simulator) = configured(settings);
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let idle = usize::try_from(files.saturating_sub(OTHER_FILES).min(10_000)).unwrap();
    let daemon = Daemon::start(&place, &simulator);
    let before = work(&daemon, 5);
    let all: Vec<TcpStream> = (0..idle)
        .map(|n| {
            let mut stream = TcpStream::connect(address(&daemon)).unwrap();
            // Some have begun with something.
            if n % 3 == 0 {
                stream
                    .write_all(b"GET /healthz HTTP/1.1\r\nhost: loc")
                    .unwrap();
            }
            stream
        })
        .collect();
    until("all are there", || {
        server(&daemon)["connections"].as_u64().unwrap() >= idle as u64
    });
    let (slowest, after) = (slowest(&daemon), work(&daemon, 5));
    println!(
        "{idle} idle connections ({files} files allowed): slowest answer {slowest:?}, five jobs {before:?} before, \
         {after:?} beside them"
    );
    assert!(slowest < GENEROUS, "{slowest:?}");
    assert!(after < before + GENEROUS, "{before:?}, {after:?}");
    drop(all);
    until("their places are free", || {
        server(&daemon)["connections"].as_u64().unwrap() < 10
    });
    daemon.stop();
}

#[test]
fn more_connections_than_there_may_be_make_way_and_nobody_is_locked_out() {
    let (place, simulator) = configured("[server]\nconnections_max = 50\n");
    let daemon = Daemon::start(&place, &simulator);
    let idle: Vec<TcpStream> = (0..400)
        .map(|_| TcpStream::connect(address(&daemon)).unwrap())
        .collect();
    let took = work(&daemon, 5);
    println!("400 idle connections where 50 may be: five jobs {took:?}");
    drop(idle);
    daemon.stop();
}

#[test]
fn clients_that_send_their_headers_byte_by_byte_are_hung_up_on() {
    let (place, simulator) = configured("[server]\nheader_timeout_ms = 1500\n");
    let daemon = Daemon::start(&place, &simulator);
    let mut slow: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(address(&daemon)).unwrap();
            stream
                .write_all(b"POST /v1/chat/completions HTTP/1.1\r\n")
                .unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    let (began, mut worked) = (Instant::now(), 0);
    while !slow.is_empty() {
        assert!(began.elapsed() < PATIENCE, "{} are left", slow.len());
        slow.retain_mut(|stream| {
            let is_read = matches!(stream.read(&mut [0; 64]), Ok(0));
            !is_read && stream.write_all(b"x").is_ok()
        });
        work(&daemon, 1);
        worked += 1;
    }
    println!(
        "200 slow clients: hung up on after {:?}, {worked} jobs done meanwhile",
        began.elapsed()
    );
    daemon.stop();
}

#[test]
fn a_body_of_a_gigabyte_is_refused_before_it_is_there() {
    const GIGABYTE: usize = 1_000_000_000;
    let (place, simulator) = world();
    let daemon = Daemon::start(&place, &simulator);
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    // By its length, and piece by piece.
    for (framing, is_chunked) in [
        (format!("content-length: {GIGABYTE}\r\n"), false),
        ("transfer-encoding: chunked\r\n".to_owned(), true),
    ] {
        let mut stream = TcpStream::connect(address(&daemon)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(format!("{head}{framing}\r\n").as_bytes())
            .unwrap();
        let piece = vec![b' '; 1_000_000];
        let mut sent = 0;
        let mut reader = stream.try_clone().unwrap();
        let answer = std::thread::spawn(move || {
            let mut begins = [0; 12];
            let read = reader.read_exact(&mut begins);
            read.map(|()| String::from_utf8_lossy(&begins).into_owned())
        });
        while sent < GIGABYTE && !answer.is_finished() {
            let chunk = match is_chunked {
                true => [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat(),
                false => piece.clone(),
            };
            if stream.write_all(&chunk).is_err() {
                break;
            }
            sent += piece.len();
        }
        println!("a body of 1 GB was refused after {sent} bytes");
        assert!(sent < GIGABYTE);
        assert_eq!(answer.join().unwrap().unwrap(), "HTTP/1.1 413");
        work(&daemon, 2);
    }
    daemon.stop();
}

#[test]
fn while_a_thousand_calls_wait_operators_are_answered_and_a_pause_is_told_to_all() {
    const CALLS: usize = 1_024;
    let settings = "[server]\nrequests_max = 2000\nconnections_max = 2000\n";
    let (place, simulator) = (Place::new(), simulator(0));
    place.write("onelane.toml", settings);
    simulator.add_rule(Rule::for_prompt("blocker", Fault::Hang));
    let daemon = Daemon::of(&mut serve(&place, &simulator));
    daemon.submit(&json!({"prompt": "blocker", "priority": 100}));
    until("the slot is busy", || simulator.stats().in_flight == 1);
    let mut waiting: Vec<TcpStream> = (0..CALLS)
        .map(|n| {
            let chat = format!(r#"{{"messages":[{{"role":"user","content":"waits {n}"}}]}}"#);
            let mut stream = TcpStream::connect(address(&daemon)).unwrap();
            let request = format!(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\n\r\n{chat}",
                chat.len()
            );
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    until("all of them wait", || {
        daemon.count("status=pending") == CALLS as u64
    });
    assert_eq!(server(&daemon)["requests"], CALLS);
    let slowest = slowest(&daemon);
    let began = Instant::now();
    daemon.post("/api/admin/glm/pause", &json!({"reason": "enough"}), 200);
    let paused = began.elapsed();
    println!("{CALLS} waiting calls: slowest answer {slowest:?}, pause {paused:?}");
    assert!(
        slowest < GENEROUS && paused < GENEROUS,
        "{slowest:?}, {paused:?}"
    );
    for stream in &mut waiting {
        let mut begins = [0; 12];
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_exact(&mut begins).unwrap();
        assert_eq!(&begins, b"HTTP/1.1 503");
    }
    println!("all were told after {:?}", began.elapsed());
    drop(waiting);
    daemon.kill();
}
