//! A server that answers as a test says, byte for byte: for what a well-made server does not do.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

/// What came, and where to answer.
pub(crate) struct Arrived<'s> {
    /// How many requests came before it.
    pub(crate) no: usize,
    /// How many of them over its connection.
    pub(crate) no_on_connection: usize,
    pub(crate) body: Value,
    /// The request as it came: its head, and its body to the byte.
    pub(crate) head: String,
    pub(crate) bytes: String,
    /// The head to the byte.
    pub(crate) head_bytes: String,
    pub(crate) stream: &'s mut TcpStream,
}

impl Arrived<'_> {
    /// The prompt: of a chat, what its last message says.
    pub(crate) fn prompt(&self) -> &str {
        let messages = self.body["messages"].as_array();
        let last = messages.and_then(|messages| messages.last());
        last.and_then(|message| message["content"].as_str())
            .unwrap_or_default()
    }

    /// A completion with this text that names the call.
    pub(crate) fn completion(&self, text: &str) -> Value {
        completion(text, &self.body["request_id"])
    }

    /// The value of a header, to the byte.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head_bytes.lines();
        let mut fields = lines.filter_map(|line| line.split_once(": "));
        let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }

    /// Writes a response; the connection stays open.
    pub(crate) fn answer(&mut self, status: u16, headers: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let head = format!(
            "HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        self.say(head);
        self.say(body);
    }

    /// Writes bytes. A client that is gone is no trouble of the test's.
    pub(crate) fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }
}

/// A completion with this text and this `request_id`.
pub(crate) fn completion(text: &str, request_id: &Value) -> Value {
    json!({
        "id": "u-1", "created": 1, "model": "glm-4.7", "request_id": request_id,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    })
}

/// A server on a socket, for as long as the test runs.
pub(crate) struct Upstream {
    port: u16,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Upstream {
    /// `answer` says what becomes of each request.
    pub(crate) fn start(answer: impl Fn(Arrived<'_>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, bodies) = (Arc::new(answer), Arc::clone(&seen));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (answer, bodies) = (Arc::clone(&answer), Arc::clone(&bodies));
                std::thread::spawn(move || {
                    let mut no_on_connection = 0;
                    while let Some((head_bytes, bytes)) = read_request(&mut stream) {
                        let body: Value = serde_json::from_str(&bytes).unwrap_or_default();
                        let no = {
                            let mut seen = bodies.lock().unwrap_or_else(PoisonError::into_inner);
                            seen.push(body.clone());
                            seen.len() - 1
                        };
                        answer(Arrived {
                            no,
                            no_on_connection,
                            body,
                            head: head_bytes.to_lowercase(),
                            bytes,
                            head_bytes,
                            stream: &mut stream,
                        });
                        no_on_connection += 1;
                    }
                });
            }
        });
        Self { port, seen }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/api/paas/v4", self.port)
    }

    /// The bodies that came so far.
    pub(crate) fn seen(&self) -> Vec<Value> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn read_request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = head
        .to_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).ok()?))
}
