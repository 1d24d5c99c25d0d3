//! A daemon with a collector, and a GLM that writes down what it is told.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::collector::Collector;
use crate::common::{Answer, Http, Place, Running, until};

/// A client's span.
pub(crate) const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub(crate) const PARENT_SPAN: &str = "00f067aa0ba902b7";
pub(crate) const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// What nobody but GLM and the client may read.
pub(crate) const PROMPT: &str = "the-prompt-of-the-test";
pub(crate) const ANSWER: &str = "the-answer-of-the-test";
const KEY: &str = "test-key";

/// What GLM answers to a call, by how many came before; `None`: a completion.
type Script = dyn Fn(usize) -> Option<(u16, Value)> + Send + Sync;

/// A refusal of GLM's.
pub(crate) fn refuse(status: u16, code: &str, message: &str) -> (u16, Value) {
    (status, json!({"error": {"code": code, "message": message}}))
}

/// The value of a header in the head of a request.
pub(crate) fn value_of<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value)
}

/// An address at which nobody listens.
pub(crate) fn nobodys_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// A server that keeps the heads of requests and answers each.
pub(crate) struct Receiver {
    pub(crate) url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    /// One that answers 204.
    pub(crate) fn start() -> Self {
        Self::answering(|_, _| (204, String::new()))
    }

    fn answering(answer: impl Fn(usize, &Value) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let (kept, answer) = (Arc::clone(&heads), Arc::new(answer));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                std::thread::spawn(move || {
                    while let Some((head, body)) = read(&mut stream) {
                        let no = {
                            let mut kept = kept.lock().unwrap();
                            kept.push(head);
                            kept.len() - 1
                        };
                        let (status, said) = answer(no, &body);
                        let length = said.len();
                        let said = format!(
                            "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{said}"
                        );
                        let _ = stream.write_all(said.as_bytes());
                    }
                });
            }
        });
        Self { url, heads }
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn read(stream: &mut TcpStream) -> Option<(String, Value)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let length = value_of(&head, "content-length")
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).unwrap_or_default()))
}

/// What a daemon lives in.
pub(crate) struct World {
    pub(crate) place: Place,
    pub(crate) collector: Collector,
    glm: Receiver,
}

impl World {
    /// With a GLM that answers so.
    pub(crate) fn new(
        script: impl Fn(usize) -> Option<(u16, Value)> + Send + Sync + 'static,
    ) -> Self {
        let script: Box<Script> = Box::new(script);
        let glm = Receiver::answering(move |no, asked| match script(no) {
            Some((status, body)) => (status, body.to_string()),
            None => (200, completion(&asked["request_id"]).to_string()),
        });
        let world = Self {
            place: Place::new(),
            collector: Collector::start(),
            glm,
        };
        world.configure("");
        world
    }

    /// Writes the configuration: with this in the section `[otlp]`, or behind it.
    pub(crate) fn configure(&self, otlp: &str) {
        let config = format!("[retry]\nbase_delay_ms = 20\nmax_delay_ms = 20\n[otlp]\n{otlp}");
        self.place.write("onelane.toml", config);
    }

    pub(crate) fn base_url(&self) -> String {
        format!("{}/api/paas/v4", self.glm.url)
    }

    /// The heads of the requests that GLM got.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.glm.heads()
    }

    /// The program, which exports to the collector.
    pub(crate) fn command(&self, args: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = self.place.onelane(args);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", self.collector.url());
        command.envs(env.iter().copied());
        command
    }

    pub(crate) fn serve(&self, env: &[(&str, &str)]) -> Daemon {
        let base_url = self.base_url();
        let args = ["serve", "--listen", "127.0.0.1:0", "--base-url", &base_url];
        let process = Running::start(&mut self.command(&args, env));
        Daemon {
            url: process.url(),
            process,
            http: Http::new(),
        }
    }

    /// Asserts that nothing of prompt, answer and key was exported.
    pub(crate) fn tells_no_secret(&self) {
        let taken = self.collector.taken();
        assert!(!taken.is_empty());
        for request in taken {
            for secret in [PROMPT, ANSWER, KEY] {
                let finds =
                    |bytes: &[u8]| bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
                assert!(!finds(&request.body), "{secret} in {}", request.path);
                let headers = format!("{:?}", request.headers);
                assert!(!headers.contains(secret), "{headers}");
            }
        }
    }
}

fn completion(request_id: &Value) -> Value {
    json!({
        "id": "u-1", "created": 1, "model": "glm-4.7", "request_id": request_id,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    })
}

/// A daemon that serves.
pub(crate) struct Daemon {
    pub(crate) process: Running,
    url: String,
    http: Http,
}

impl Daemon {
    /// A chat, as an SDK asks for it.
    pub(crate) fn chat(&self, headers: &[(&str, &str)]) -> Answer {
        let body = json!({"model": "glm-4.7", "messages": [{"role": "user", "content": PROMPT}]});
        self.post("/v1/chat/completions", headers, &body)
    }

    /// Submits a job and answers its id.
    pub(crate) fn submit(&self, headers: &[(&str, &str)]) -> String {
        let answer = self.post("/api/glm/jobs", headers, &json!({"prompt": PROMPT}));
        answer.json()["id"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer:?}"))
            .to_owned()
    }

    /// Makes a batch of a file of so many lines.
    pub(crate) fn batch(&self, lines: usize, headers: &[(&str, &str)]) {
        let line = |n: usize| {
            let body =
                json!({"model": "glm-4.7", "messages": [{"role": "user", "content": PROMPT}]});
            let url = "/v1/chat/completions";
            json!({"custom_id": n.to_string(), "method": "POST", "url": url, "body": body})
                .to_string()
        };
        let lines: Vec<String> = (0..lines).map(line).collect();
        let url = format!("{}/v1/files", self.url);
        let file = self.http.upload(&url, &lines.join("\n")).unwrap().json();
        let asked = json!({
            "input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h",
        });
        let made = self.post("/v1/batches", headers, &asked);
        assert_eq!(made.status, 200, "{made:?}");
    }

    /// Pauses or resumes the lane.
    pub(crate) fn orders(&self, order: &str) {
        let answer = self.post(&format!("/api/admin/glm/{order}"), &[], &json!({}));
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    pub(crate) fn cancels(&self, job: &str) {
        let url = format!("{}/api/glm/jobs/{job}", self.url);
        let answer = self.http.delete(&url).unwrap();
        assert!((200..300).contains(&answer.status), "{answer:?}");
    }

    pub(crate) fn until_completed(&self, job: &str) {
        let url = format!("{}/api/glm/jobs/{job}", self.url);
        until("the job completes", || {
            self.http.get(&url).unwrap().json()["status"] == "completed"
        });
    }

    /// A metric; 0 while it is not there.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let all = self.http.get(&format!("{}/metrics", self.url)).unwrap();
        let mut lines = all.text.lines();
        let line = lines.find_map(|line| line.strip_prefix(series));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// Ends it in good order.
    pub(crate) fn ends(self) {
        self.process.signal("TERM");
        self.process.end().with(0);
    }

    fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let url = format!("{}{path}", self.url);
        self.http.post_with(&url, headers, body).unwrap()
    }
}
