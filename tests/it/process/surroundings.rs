//! Guards: the process and its surroundings. A log that nobody takes, hostile bodies, a proxy, a file that goes away, a
//! file system without locks, damaged pages, a repair that takes long.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use onelane::model::JobStatus;
use onelane::simulator::Simulator;
use serde_json::{Value, json};

use super::{Daemon, run_prompts, serve, simulator, with_prompts, world};
use crate::common::{Http, Place, Running, holds_within, prompts, run, until};
use crate::support::upstream::Upstream;

/// A port that is free now.
fn free_address() -> String {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    taken.local_addr().unwrap().to_string()
}

/// `serve` on an address that is known, with its log going to `log`.
fn serve_logging_to(
    place: &Place,
    simulator: &Simulator,
    log: Stdio,
) -> (std::process::Child, String) {
    let address = free_address();
    let url = simulator.base_url();
    let mut command = place.onelane(&["serve", "--base-url", &url, "--listen", &address]);
    // Everything is worth a line.
    command.env("ONELANE_LOG", "trace");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let child = command.stderr(log).spawn().unwrap();
    (child, format!("http://{address}"))
}

/// Jobs go on and are done while lines are dropped, and the drops are told.
fn goes_on_without_its_log(mut child: std::process::Child, url: &str, before: impl FnOnce()) {
    let http = Http::new();
    let health = format!("{url}/healthz");
    until("it answers", || http.get(&health).is_ok());
    before();
    for n in 0..20 {
        let taken = http.post(
            &format!("{url}/api/glm/jobs"),
            &json!({"prompt": format!("{n}")}),
        );
        let id = taken.unwrap().json()["id"].as_str().unwrap().to_owned();
        let job = http.get(&format!("{url}/api/glm/jobs/{id}?wait=30s"));
        assert_eq!(job.unwrap().json()["status"], "completed");
    }
    let metrics = format!("{url}/api/admin/glm/metrics");
    let long = format!("{url}/{}", "x".repeat(20_000));
    until("drops are counted", || {
        // Worth a long line.
        http.get(&long).unwrap();
        let metrics = http.get(&metrics).unwrap().json();
        metrics["server"]["logLinesDropped"].as_u64() > Some(0)
    });
    let pid = child.id().to_string();
    Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    let ended = holds_within(crate::common::PATIENCE, || {
        child.try_wait().unwrap().is_some()
    });
    assert!(ended, "it hangs at its end");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reader_of_the_log_that_is_gone_stops_nothing() {
    let (place, simulator) = world();
    let (reader, writer) = std::io::pipe().unwrap();
    let (child, url) = serve_logging_to(&place, &simulator, writer.into());
    goes_on_without_its_log(child, &url, || drop(reader));
}

#[test]
fn a_reader_of_the_log_that_does_not_read_stops_nothing() {
    let (place, simulator) = world();
    let (reader, writer) = std::io::pipe().unwrap();
    let (child, url) = serve_logging_to(&place, &simulator, writer.into());
    goes_on_without_its_log(child, &url, || {});
    drop(reader);
}

#[test]
fn a_full_device_for_the_log_stops_nothing() {
    let (place, simulator) = world();
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let Ok(full) = full else { return };
    let (child, url) = serve_logging_to(&place, &simulator, full.into());
    goes_on_without_its_log(child, &url, || {});
}

#[test]
fn no_verb_panics_when_nobody_reads_what_it_prints() {
    let (place, simulator) = with_prompts(1);
    run(&mut run_prompts(&place, &simulator)).with(0);
    let verbs: [&[&str]; 9] = [
        &["--help"],
        &["--version"],
        &["nonsense"],
        &["config", "show"],
        &["stats"],
        &["db", "stats"],
        &["db", "check"],
        &["db", "export", "--what", "jobs"],
        &["prices"],
    ];
    for verb in verbs {
        let (out, to_out) = std::io::pipe().unwrap();
        let (err, to_err) = std::io::pipe().unwrap();
        drop((out, err));
        let mut command = place.onelane(verb);
        command.stdin(Stdio::null()).stdout(to_out).stderr(to_err);
        let status = command.status().unwrap();
        // A panic is 101.
        assert!(matches!(status.code(), Some(0..=3)), "{verb:?}: {status}");
    }
}

/// The memory of a process, in bytes: what it has now, and the most it had.
fn memory(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        let kilobytes = line.split_whitespace().nth(1).unwrap();
        kilobytes.parse::<u64>().unwrap() * 1024
    };
    (of("VmRSS:"), of("VmHWM:"))
}

/// Sends a body, and answers with what its answer begins.
fn status_of(address: &str, method: &str, path: &str, body: &str, patience: Duration) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    // It may have been refused before it was sent whole.
    let sent = stream.write_all(head.as_bytes());
    let _ = sent.and_then(|()| stream.write_all(body.as_bytes()));
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut begins = [0; 12];
    let read = stream.read(&mut begins).unwrap_or(0);
    String::from_utf8_lossy(&begins[..read]).into_owned()
}

#[test]
fn valid_chats_as_large_as_may_be_take_little_memory_in_the_simulator_too() {
    let place = Place::new();
    let address = free_address();
    let mut command = place.onelane(&["serve", "--simulate", "--listen", &address]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let http = Http::new();
    until("it answers", || {
        http.get(&format!("http://{address}/healthz")).is_ok()
    });
    let message = |length| format!(r#"{{"role":"user","content":"{}"}}"#, "x".repeat(length));
    let one = message(15_000_000);
    let many = vec![message(1_450); 10_000].join(",");
    std::thread::scope(|scope| {
        for messages in [&one, &many, &many] {
            let address = &address;
            scope.spawn(move || {
                let chat = format!(r#"{{"messages":[{messages}]}}"#);
                let path = "/v1/chat/completions";
                let status = status_of(address, "POST", path, &chat, crate::common::PATIENCE);
                assert_eq!(status, "HTTP/1.1 200");
            });
        }
    });
    let (_, most) = memory(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(most < 400 * 1024 * 1024, "{} MB", most / 1024 / 1024);
}

#[test]
fn a_hundred_hostile_bodies_at_once_take_little_memory_and_keep_nobody_waiting() {
    const MB: usize = 1024 * 1024;
    let place = Place::new();
    let address = free_address();
    // The simulator reads what is taken, in the same process.
    let mut command = place.onelane(&["serve", "--simulate", "--listen", &address]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let http = Http::new();
    let health = format!("http://{address}/healthz");
    until("it answers", || http.get(&health).is_ok());

    let list = format!("[{}]", vec![r#"{"a":1}"#; 2 * MB - 100].join(","));
    let chat = |messages: &str| format!(r#"{{"messages":{messages}}}"#);
    let said = |text: &str, n| {
        let text = text.repeat(n);
        chat(&format!(r#"[{{"role":"user","content":"{text}"}}]"#))
    };
    let parts = vec![r#"{"type":"text","text":"a"}"#; 100_000].join(",");
    let parts = chat(&format!(r#"[{{"role":"user","content":[{parts}]}}]"#));
    let names: Vec<String> = (0..MB).map(|n| format!("\"n{n}\":1")).collect();
    let names = format!(r#"{{"messages":[{{}}],{}}}"#, names.join(","));
    let (million, deep) = (chat(&list), chat(&"[".repeat(15 * MB)));
    let (long, escapes) = (said("x", 15 * MB), said("\\u4e00", 15 * MB / 6));
    let bodies = [
        ("POST", "/v1/chat/completions", &list),
        ("POST", "/v1/chat/completions", &million),
        ("POST", "/v1/chat/completions", &names),
        ("POST", "/v1/chat/completions", &deep),
        ("POST", "/v1/chat/completions", &long),
        ("POST", "/v1/chat/completions", &escapes),
        ("POST", "/v1/chat/completions", &parts),
        ("POST", "/api/glm/jobs", &list),
        ("POST", "/api/glm/jobs", &million),
        ("POST", "/api/glm/jobs", &names),
        ("POST", "/api/glm/jobs", &deep),
        ("PUT", "/api/admin/glm/config", &list),
        ("PUT", "/api/admin/glm/config", &names),
        ("POST", "/api/admin/glm/estimate", &list),
    ];
    let slowest = std::thread::scope(|scope| {
        let (done, is_done) = mpsc::channel::<()>();
        for n in 0..100 {
            let (method, path, body) = bodies[n % bodies.len()];
            let (address, done) = (&address, done.clone());
            scope.spawn(move || {
                let _done = done;
                status_of(address, method, path, body, Duration::from_secs(5));
            });
        }
        drop(done);
        let mut slowest = Duration::ZERO;
        while is_done.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
            let began = Instant::now();
            assert_eq!(http.get(&health).unwrap().status, 200);
            slowest = slowest.max(began.elapsed());
            std::thread::sleep(Duration::from_millis(5));
        }
        slowest
    });
    let (now, most) = memory(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    let megabytes = |bytes: u64| bytes / 1024 / 1024;
    assert!(
        most < 400 * 1024 * 1024,
        "{} MB at most, {} MB now",
        megabytes(most),
        megabytes(now)
    );
    // A debug build on a busy machine is slower than what is promised.
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
}

/// A server that answers every request with this body, or a proxy that does so in GLM's place.
fn answering(body: String, requests: mpsc::Sender<String>) -> String {
    answering_over(Some, body, requests)
}

/// The same over what `accept` makes of a connection, if anything.
fn answering_over<S: Read + Write>(
    accept: impl Fn(TcpStream) -> Option<S> + Send + 'static,
    body: String,
    requests: mpsc::Sender<String>,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Some(mut stream) = accept(stream.unwrap()) else {
                continue;
            };
            let mut request = Vec::new();
            let mut byte = [0; 4096];
            let whole = |request: &[u8]| {
                let text = String::from_utf8_lossy(request).into_owned();
                let (head, rest) = text.split_once("\r\n\r\n")?;
                let length = head.to_ascii_lowercase();
                let length = length.split("content-length: ").nth(1)?.lines().next()?;
                (rest.len() >= length.trim().parse().ok()?).then(|| head.to_owned())
            };
            let head = loop {
                match stream.read(&mut byte) {
                    Ok(n) if n > 0 => request.extend_from_slice(&byte[..n]),
                    _ => break None,
                }
                if let Some(head) = whole(&request) {
                    break Some(head);
                }
            };
            let Some(head) = head else { continue };
            let _ = requests.send(head);
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\
                 content-length: {length}\r\n\r\n{body}"
            );
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.flush();
        }
    });
    address
}

const COMPLETION: &str = r#"{"id":"1","created":1,"model":"glm-4.7","choices":[{"index":0,"finish_reason":"stop",
    "message":{"role":"assistant","content":"ok"}}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;

#[test]
fn a_hostile_answer_takes_little_memory() {
    // A tree of such values takes a hundred times their bytes: that shows at any size.
    const ANSWER_BYTES: usize = 2 * 1024 * 1024;
    const TIMES_ITS_BYTES: u64 = 50;
    let elements = vec![r#"{"a":1}"#; ANSWER_BYTES / 8].join(",");
    let answers = [
        format!("[{elements}]"),
        format!(r#"{{"choices":[{elements}],"usage":{{"total_tokens":7}}}}"#),
        format!(r#"{{"error":{{"code":"1210","message":[{elements}]}}}}"#),
        // Words before it, and another coding of its characters.
        format!("{{Warning\n[{elements}]"),
        format!("\u{feff}[{elements}]"),
    ];
    let count = answers.len();
    let glm = Upstream::start(move |mut call| {
        let Ok(no) = call.prompt().parse::<usize>() else {
            return call.answer(200, "", COMPLETION);
        };
        match answers[no].strip_prefix('\u{feff}') {
            Some(text) => {
                let units = "\u{feff}".encode_utf16().chain(text.encode_utf16());
                let body: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
                call.answer(200, "", body);
            }
            None => call.answer(200, "", &answers[no]),
        }
    });
    let (place, address) = (Place::new(), free_address());
    let url = glm.base_url();
    let mut command = place.onelane(&["serve", "--base-url", &url, "--listen", &address]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let http = Http::new();
    until("it answers", || {
        http.get(&format!("http://{address}/healthz")).is_ok()
    });
    let jobs = format!("http://{address}/api/glm/jobs");
    let call = |prompt: &str| {
        let job = json!({"prompt": prompt, "maxRetries": 0});
        let job = http.post(&jobs, &job).unwrap().json();
        let id = job["id"].as_str().unwrap().to_owned();
        let ended = http.get(&format!("{jobs}/{id}?wait=60s")).unwrap().json();
        assert!(ended["processedAt"].is_string(), "{ended}");
    };
    // Behind its first answer a lane has loaded what it counts prompts with.
    call("well");
    let metrics = format!("http://{address}/api/admin/glm/metrics");
    until("the prompt was counted", || {
        let told = http.get(&metrics).unwrap().json();
        told["sinceStart"]["promptEstimates"]["calls"].as_u64() > Some(0)
    });
    let (_, before) = memory(child.id());
    for no in 0..count {
        call(&no.to_string());
    }
    let (_, most) = memory(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    let taken = most - before;
    assert!(
        taken < TIMES_ITS_BYTES * ANSWER_BYTES as u64,
        "{} MB",
        taken / 1024 / 1024
    );
}

#[test]
fn glm_alone_is_called_through_the_proxy_that_the_environment_names() {
    let place = Place::new();
    place.write("prompts.jsonl", prompts(1));
    let (requests, seen) = mpsc::channel();
    let proxy = answering(COMPLETION.to_owned(), requests);
    let args = [
        "run",
        "prompts.jsonl",
        "--base-url",
        "http://glm.invalid/api/paas/v4",
    ];
    let mut command = place.onelane(&args);
    command.env("HTTP_PROXY", format!("http://user:s3cret@{proxy}"));
    let ended = run(&mut command)
        .with(0)
        .noting(&["through the proxy", &proxy, "HTTP_PROXY"]);
    assert!(!ended.stderr.contains("s3cret"), "{ended}");
    let head = seen.recv().unwrap();
    assert!(
        head.starts_with("POST http://glm.invalid/api/paas/v4/chat/completions"),
        "{head}"
    );
    assert!(
        head.to_ascii_lowercase()
            .contains("proxy-authorization: basic")
    );
    // This machine is reached straight.
    let simulator = simulator(0);
    place.write("prompts.jsonl", prompts(2));
    let mut command = run_prompts(&place, &simulator);
    command.env("HTTP_PROXY", "http://127.0.0.1:1");
    command.env("ALL_PROXY", "http://127.0.0.1:1");
    run(&mut command).with(0);
    assert_eq!(simulator.stats().calls, 1);
}

/// A GLM behind TLS whose certificate an authority of its own has signed, and that authority in PEM. As a proxy it
/// takes whatever it is asked to connect to for that GLM.
fn behind_tls(is_proxy: bool, requests: mpsc::Sender<String>) -> (String, String) {
    use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
    use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertifiedIssuer::self_signed(authority, key).unwrap();
    let names = ["127.0.0.1".to_owned(), "glm.invalid".to_owned()];
    let server = rcgen::CertificateParams::new(names).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = server.signed_by(&key, &authority).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    let config = std::sync::Arc::new(config);
    let accept = move |mut stream: TcpStream| {
        if is_proxy {
            let mut asked = Vec::new();
            let mut byte = [0];
            while !asked.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).ok()?;
                asked.push(byte[0]);
            }
            assert!(asked.starts_with(b"CONNECT glm.invalid:443 "));
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
        }
        let tls = ServerConnection::new(std::sync::Arc::clone(&config)).unwrap();
        Some(StreamOwned::new(tls, stream))
    };
    let address = answering_over(accept, COMPLETION.to_owned(), requests);
    (address, authority.pem())
}

#[test]
fn an_authority_of_ones_own_is_trusted_through_glm_ca_file_alone() {
    for is_proxy in [false, true] {
        let place = Place::new();
        place.write("prompts.jsonl", prompts(1));
        let (requests, seen) = mpsc::channel();
        let (address, authority) = behind_tls(is_proxy, requests);
        let url = match is_proxy {
            true => "https://glm.invalid/api/paas/v4".to_owned(),
            false => format!("https://{address}/api/paas/v4"),
        };
        let run_over_tls = || {
            let mut command = place.onelane(&["run", "prompts.jsonl", "--base-url", &url]);
            if is_proxy {
                command.env("HTTPS_PROXY", format!("http://user:s3cret@{address}"));
            }
            let ended = run(&mut command);
            assert!(!ended.stderr.contains("s3cret"), "{ended}");
            ended
        };
        run_over_tls()
            .with(4)
            .noting(&["the server's certificate is not trusted", "glm.ca_file"]);
        assert!(seen.try_recv().is_err(), "nothing was sent");
        place.write("authority.pem", authority);
        place.write("onelane.toml", "[glm]\nca_file = \"authority.pem\"\n");
        run_over_tls().with(0);
        let head = seen.recv().unwrap();
        assert!(
            head.starts_with("POST /api/paas/v4/chat/completions "),
            "{head}"
        );
    }
}

#[test]
fn an_authority_that_can_not_be_read_is_told_with_its_file() {
    let (place, simulator) = with_prompts(1);
    place.write("empty.pem", "");
    place.write("text.pem", "no certificate");
    place.write(
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    for (file, problem) in [
        ("missing.pem", "can't be read"),
        ("empty.pem", "holds no certificate"),
        ("text.pem", "holds no certificate"),
        ("broken.pem", "can't be used"),
    ] {
        place.write("onelane.toml", format!("[glm]\nca_file = \"{file}\"\n"));
        run(&mut run_prompts(&place, &simulator)).with(2).noting(&[
            "onelane.toml",
            "glm.ca_file",
            file,
            problem,
        ]);
    }
    assert_eq!(simulator.stats().calls, 0);
}

#[test]
fn a_file_that_is_deleted_renamed_or_replaced_under_the_lane_ends_it_with_a_copy() {
    for how in ["deleted", "renamed", "replaced"] {
        let (place, simulator) = world();
        let daemon = Daemon::start(&place, &simulator);
        let id = daemon.submit(&json!({"prompt": "kept"}));
        daemon.ended(&id);
        let store = place.path("onelane.redb");
        match how {
            "deleted" => fs::remove_file(&store).unwrap(),
            "renamed" => fs::rename(&store, place.path("other.redb")).unwrap(),
            _ => {
                place.write("new.redb", b"");
                fs::rename(place.path("new.redb"), &store).unwrap();
            }
        }
        let word = match how {
            "replaced" => "was replaced by another file",
            _ => "was deleted or renamed",
        };
        let began = Instant::now();
        let ended = daemon.running.end().with(3);
        assert!(began.elapsed() < Duration::from_secs(20), "{how}");
        ended.noting(&["onelane.redb", word, "onelane.redb.rescued", "help: "]);
        let copy = place.store("onelane.redb.rescued");
        assert_eq!(copy.count(JobStatus::Completed), 1, "{how}");
    }
}

/// Every lock of a file fails with this error, as on a share without locks; or is given to everybody.
const WITHOUT_LOCKS: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
static int e(void) { return atoi(getenv("LOCK_ERRNO")); }
static int answer(void) { if (!e()) return 0; errno = e(); return -1; }
int flock(int fd, int op) { return answer(); }
int fcntl(int fd, int op, ...) { va_list v; va_start(v, op); long a = va_arg(v, long); va_end(v);
  if (op >= 36 && op <= 38) return answer();
  register long r; __asm__ volatile("syscall" : "=a"(r) : "a"(SYS_fcntl), "D"(fd), "S"(op), "d"(a) : "rcx", "r11", "memory");
  if (r < 0 && r > -4096) { errno = -r; return -1; } return r; }
int fcntl64(int fd, int op, ...) { va_list v; va_start(v, op); long a = va_arg(v, long); va_end(v); return fcntl(fd, op, a); }
long syscall(long n, ...) { va_list v; va_start(v, n); long a[6]; for (int i = 0; i < 6; i++) a[i] = va_arg(v, long); va_end(v);
  if (n == SYS_fcntl && a[1] >= 36 && a[1] <= 38) return answer();
  register long r10 __asm__("r10") = a[3]; register long r8 __asm__("r8") = a[4]; register long r9 __asm__("r9") = a[5]; long r;
  __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  if (r < 0 && r > -4096) { errno = -r; return -1; } return r; }
"#;

#[test]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn a_file_system_that_keeps_no_locks_is_refused() {
    let (place, simulator) = with_prompts(1);
    let source = place.write("lock.c", WITHOUT_LOCKS);
    let library = place.path("lock.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-w", "-O1", "-o"]);
    let Ok(made) = compiler.arg(&library).arg(&source).status() else {
        return;
    };
    assert!(made.success());
    // ENOSYS, EOPNOTSUPP, ENOLCK, and locks that are given to everybody.
    for errno in ["38", "95", "37", "0"] {
        let without = |mut command: Command| {
            command.env("LD_PRELOAD", &library).env("LOCK_ERRNO", errno);
            command
        };
        for command in [serve(&place, &simulator), run_prompts(&place, &simulator)] {
            let ended = run(&mut without(command)).with(3);
            ended.noting(&["error: onelane.redb", "help: "]);
        }
    }
    assert_eq!(simulator.stats().calls, 0);
    run(&mut run_prompts(&place, &simulator)).with(0);
}

#[test]
fn a_damaged_page_ends_no_look_in_a_backtrace_and_what_is_left_is_given() {
    let (place, simulator) = world();
    let daemon = Daemon::start(&place, &simulator);
    let jobs: Vec<Value> = (0..200)
        .map(|n| json!({"prompt": format!("{n} {}", "x".repeat(1_500))}))
        .collect();
    daemon.post("/api/glm/jobs", &Value::from(jobs), 202);
    until("all are done", || daemon.count("status=completed") == 200);
    daemon.kill();
    let whole = fs::read(place.path("onelane.redb")).unwrap();
    let is_hole = |page: &usize| whole[page * 4_096..][..4_096].iter().all(|byte| *byte == 0);
    let pages: Vec<usize> = (1..whole.len() / 4_096)
        .filter(|page| !is_hole(page))
        .collect();
    let mut given = 0;
    let mut tried = 0;
    for &page in pages.iter().step_by((pages.len() / 24).max(1)) {
        let mut bytes = whole.clone();
        for (at, byte) in bytes[page * 4_096..(page + 1) * 4_096]
            .iter_mut()
            .enumerate()
        {
            *byte = (at as u8).wrapping_mul(31) ^ 0xa5;
        }
        place.write("damaged.redb", &bytes);
        tried += 1;
        let look = |verb: &[&str]| {
            let ended = run(place.bare(verb).args(["--store", "damaged.redb"]));
            assert!(matches!(ended.code, Some(0 | 3)), "page {page}: {ended}");
            for word in ["panicked", "backtrace", "internal error", "unreachable"] {
                let said = ended.stderr.contains(word) || ended.stdout.contains(word);
                assert!(!said, "page {page}: {ended}");
            }
            ended
        };
        let check = look(&["--json", "db", "check"]);
        let jobs = look(&["db", "export", "--what", "jobs"]);
        let calls = look(&["db", "export", "--what", "calls"]);
        let stats = look(&["db", "stats"]);
        let found: Value = serde_json::from_str(&check.stdout).unwrap_or_default();
        let left = &found["left"];
        if left.is_object() {
            // One tells what the other gives, and what is missing.
            assert_eq!((check.code, &found["mendable"]), (Some(3), &json!(false)));
            for (of, export) in [("jobs", &jobs), ("calls", &calls)] {
                let lines = export.stdout.lines().count();
                assert_eq!(left[of]["readable"], lines, "page {page}: {check} {export}");
                let is_whole = left[of]["shouldBe"] == lines;
                // Of a place that can't be read all rows may stand in the journal, too: it is told of all the same.
                let is_told = export.stderr.contains("can't be read");
                assert!(is_whole || is_told, "page {page}: {export}");
                assert_eq!(export.code == Some(0), !is_told, "page {page}: {export}");
            }
            assert_eq!(left["calls"]["shouldBe"], 200, "page {page}: {check}");
            assert!(stats.stdout.contains("TABLE"), "page {page}: {stats}");
            let told = run(&mut place.bare(&["db", "check", "--store", "damaged.redb"])).with(3);
            for word in ["beyond mending", "  jobs: ", "  calls: ", "db export"] {
                assert!(told.stdout.contains(word), "page {page}: {told}");
            }
        }
        given += usize::from(jobs.stdout.lines().count() >= 180);
        let is_as_it_was = fs::read(place.path("damaged.redb")).unwrap() == bytes;
        assert!(is_as_it_was, "page {page}: a look has written");
        if left.is_object() {
            let mut repair = place.bare(&["db", "check", "--repair", "--store", "damaged.redb"]);
            run(&mut repair).with(3).noting(&["db export"]);
        }
    }
    assert!(
        given + 2 >= tried,
        "{given} of {tried} gave nine tenths of their jobs"
    );
}

#[test]
fn of_a_store_without_its_first_page_it_is_said_that_nothing_can_be_had_and_why() {
    let (place, simulator) = world();
    let daemon = Daemon::start(&place, &simulator);
    daemon.post("/api/glm/jobs", &json!({"prompt": "x"}), 202);
    until("it is done", || daemon.count("status=completed") == 1);
    daemon.kill();
    let mut bytes = fs::read(place.path("onelane.redb")).unwrap();
    bytes[..4_096].fill(0xa5);
    place.write("damaged.redb", &bytes);
    let verbs: [&[&str]; 3] = [
        &["db", "check"],
        &["db", "stats"],
        &["db", "export", "--what", "jobs"],
    ];
    for verb in verbs {
        let look = run(place.bare(verb).args(["--store", "damaged.redb"])).with(3);
        look.noting(&[
            "damaged.redb",
            "first page",
            "nothing can be read",
            "backup",
        ]);
        assert_eq!(fs::read(place.path("damaged.redb")).unwrap(), bytes);
    }
}

#[test]
fn a_stored_change_that_can_not_be_used_is_taken_back_by_the_command_that_the_error_names() {
    let (place, simulator) = world();
    let daemon = Daemon::start(&place, &simulator);
    daemon.put(
        "/api/admin/glm/config",
        &json!({"fallbacks": {"glm-4.7": ["glm-5"]}, "maxRetries": 2}),
    );
    daemon.stop();
    // What the file says now does not go with what was stored.
    place.write("onelane.toml", "nonsense = 1\n");
    let verbs: [&[&str]; 4] = [
        &["db", "check"],
        &["db", "stats"],
        &["db", "export", "--what", "usage"],
        &["stats"],
    ];
    for verb in verbs {
        let mut command = place.bare(verb);
        run(command.args(["--store", "onelane.redb"]))
            .with(0)
            .noting(&["warning: the configuration is wrong"]);
        run(&mut place.bare(verb)).with(2).noting(&["--store"]);
    }
    let unset = |key: &str| {
        let mut command = place.bare(&["config", "unset", key, "--store", "onelane.redb"]);
        run(&mut command)
    };
    unset("glm.fallbacks").with(0);
    unset("glm.fallbacks")
        .with(2)
        .noting(&["keeps no change", "retry.max_retries"]);
    unset("maxRetries").with(0);
    // What was stored does not go with what the file says now.
    place.write("onelane.toml", "");
    let daemon = Daemon::start(&place, &simulator);
    daemon.put(
        "/api/admin/glm/config",
        &json!({"retry": {"maxDelay": 20_000}}),
    );
    daemon.stop();
    place.write("onelane.toml", "[retry]\nbase_delay_ms = 25000\n");
    let command = "config unset retry.max_delay_ms --store";
    run(&mut serve(&place, &simulator))
        .with(2)
        .noting(&[command]);
    unset("retry.max_delay_ms").with(0);
    let daemon = Daemon::start(&place, &simulator);
    let config = daemon.get("/api/admin/glm/config")["config"].clone();
    assert_eq!(config["maxRetries"], 3, "{config}");
    daemon.stop();
}

#[test]
fn a_signal_while_a_large_file_is_repaired_ends_the_start() {
    let (place, simulator) = world();
    // Nothing but a size: reading it takes its time on any machine.
    let daemon = Daemon::start(&place, &simulator);
    daemon.post("/api/admin/glm/pause", &json!({}), 200);
    let text = "x".repeat(1_000_000);
    for _ in 0..60 {
        daemon.submit(&json!({"prompt": text}));
    }
    daemon.kill();
    let running = Running::start(&mut serve(&place, &simulator));
    std::thread::sleep(Duration::from_millis(150));
    running.signal("TERM");
    let began = Instant::now();
    running.end().with(0);
    assert!(began.elapsed() < Duration::from_secs(20));
    // Nothing is lost of it.
    let left = place.store("onelane.redb");
    assert_eq!(left.count(JobStatus::Pending), 60);
}
