//! Guards: what ended is told to whoever asked, however often the receiver or the process dies.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::net::TcpSocket;
use tokio::runtime::{Builder, Runtime};
use warp::http::{HeaderMap, HeaderName, HeaderValue};

use super::{serve, simulator};
use crate::common::{Http, Place, Running, until};

const CALLBACK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub(crate) const OPS_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// What a receiver was sent.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    path: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Message {
    pub(crate) fn id(&self) -> &str {
        self.headers["webhook-id"].to_str().unwrap()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Asserts the signature by another implementation than ours, and that nobody changed a byte.
    fn is_signed_with(&self, secret: &str) {
        let other = Webhook::new(secret).unwrap();
        other.verify(&self.body, &self.headers).unwrap();
        let mut forged = self.body.clone();
        forged.push(b' ');
        assert!(other.verify(&forged, &self.headers).is_err());
    }
}

/// A receiver. While it answers 503 it takes messages, but not responsibility.
pub(crate) struct Receiver {
    taken: Arc<Mutex<Vec<Message>>>,
    status: Arc<Mutex<u16>>,
}

impl Receiver {
    pub(crate) fn serve(listener: TcpListener) -> Self {
        let receiver = Self {
            taken: Arc::default(),
            status: Arc::new(Mutex::new(204)),
        };
        let (taken, status) = (Arc::clone(&receiver.taken), Arc::clone(&receiver.status));
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // The daemon may be killed in the middle of a message.
                if let Some(message) = read(&stream) {
                    taken.lock().unwrap().push(message);
                    answer(&stream, *status.lock().unwrap());
                }
            }
        });
        receiver
    }

    pub(crate) fn answers(&self, status: u16) {
        *self.status.lock().unwrap() = status;
    }

    pub(crate) fn taken(&self) -> Vec<Message> {
        self.taken.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream) -> Option<Message> {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        Some(line.trim_end().to_owned())
    };
    let path = line()?.split(' ').nth(1)?.to_owned();
    let mut headers = HeaderMap::new();
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.insert(name, HeaderValue::from_str(value).ok()?);
    }
    let length = headers.get("content-length")?.to_str().ok()?;
    let mut body = vec![0; length.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Message {
        path,
        headers,
        body,
    })
}

fn answer(mut stream: &TcpStream, status: u16) {
    let answer = format!("HTTP/1.1 {status} so\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let _ = stream.write_all(answer.as_bytes());
}

/// An address at which nobody listens yet, and which nobody else can have.
struct Reserved {
    runtime: Runtime,
    socket: TcpSocket,
}

impl Reserved {
    fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let runtime = Builder::new_current_thread().enable_io().build().unwrap();
        Self { runtime, socket }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Somebody listens now.
    fn listen(self) -> Receiver {
        let _within = self.runtime.enter();
        let listener = self.socket.listen(64).unwrap().into_std().unwrap();
        listener.set_nonblocking(false).unwrap();
        Receiver::serve(listener)
    }
}

fn config(place: &Place, ops: SocketAddr) {
    place.write(
        "config.toml",
        format!(
            "[webhooks]\nallowed_hosts = ['127.0.0.1']\nallow_http = true\nallow_private = true\n\
             secret = '{CALLBACK_SECRET}'\n\
             [webhooks.retry]\nbase_delay_ms = 200\nbackoff_multiplier = 1.0\n\
             [webhooks.endpoints.ops]\nurl = 'http://{ops}/ops'\nsecret = '{OPS_SECRET}'\n\
             events = ['job.completed', 'alert.raised', 'alert.cleared']\n\
             [alerts]\nevery_ms = 100\n[alerts.hold]\nfor_ms = 0\n"
        ),
    );
}

fn admin(running: &Running, path: &str) -> String {
    format!("{}/api/admin/glm/{path}", running.url())
}

fn deliveries(running: &Running, query: &str) -> Vec<Value> {
    let url = admin(running, &format!("webhooks/deliveries{query}"));
    let told = Http::new().get(&url).unwrap().json();
    told["deliveries"].as_array().unwrap().clone()
}

#[test]
fn what_ended_is_told_once_the_receiver_is_up_whatever_was_killed_before() {
    let place = Place::new();
    let simulator = simulator(0);
    let (callback, ops) = (Reserved::new(), Reserved::new());
    config(&place, ops.address());
    let running = Running::start(&mut serve(&place, &simulator));
    let job = json!({
        "prompt": "a river",
        "contentId": "page 3",
        "metadata": {"n": 1.50},
        "callbackUrl": format!("http://{}/done?job=1", callback.address()),
    });
    let jobs = format!("{}/api/glm/jobs", running.url());
    let taken = Http::new().post(&jobs, &job).unwrap();
    assert_eq!(taken.status, 202, "{taken:?}");
    let id = taken.json()["job"]["id"].as_str().map(str::to_owned);
    let id = id.unwrap_or_else(|| taken.json()["id"].as_str().unwrap().to_owned());
    // Nobody listens: both deliveries have been tried, in vain.
    let tried = |running: &Running| {
        let pending = deliveries(running, "?status=pending");
        pending.len() == 2 && pending.iter().all(|d| d["tries"].as_u64() > Some(0))
    };
    until("both were tried", || tried(&running));
    let before = deliveries(&running, "");
    running.kill();

    // Up, but not able to take anything.
    let receivers = [callback.listen(), ops.listen()];
    receivers.iter().for_each(|receiver| receiver.answers(503));
    let running = Running::start(&mut serve(&place, &simulator));
    until("both were tried again", || {
        receivers
            .iter()
            .all(|receiver| !receiver.taken().is_empty())
    });
    running.kill();

    receivers.iter().for_each(|receiver| receiver.answers(204));
    let running = Running::start(&mut serve(&place, &simulator));
    until("both are delivered", || {
        deliveries(&running, "?status=delivered").len() == 2
    });

    let [callback, ops] = receivers;
    let (secrets, paths) = ([CALLBACK_SECRET, OPS_SECRET], ["/done?job=1", "/ops"]);
    for ((receiver, secret), path) in [callback, ops].into_iter().zip(secrets).zip(paths) {
        let messages = receiver.taken();
        let known = before.iter().any(|d| d["webhookId"] == messages[0].id());
        assert!(known, "its id is that of before the first kill: {before:?}");
        for message in &messages {
            assert_eq!(message.path, path);
            message.is_signed_with(secret);
            assert_eq!(message.id(), messages[0].id());
            assert_eq!(message.body, messages[0].body, "it says the same each time");
        }
        let told = messages[0].json();
        assert_eq!(told["type"], "job.completed");
        let data = &told["data"];
        assert_eq!(data["id"], id.as_str());
        assert_eq!(data["status"], "completed");
        assert_eq!(data["contentId"], "page 3");
        assert_eq!(data["metadata"], json!({"n": 1.50}));
        assert!(data["result"]["choices"][0]["message"]["content"].is_string());
    }
    // Delivered is delivered: another start sends nothing.
    running.signal("TERM");
    running.end().with(0);
    let all = deliveries_in(&place);
    assert_eq!(all, 2);
}

fn deliveries_in(place: &Place) -> usize {
    use onelane::model::DeliveryStatus;
    use onelane::ports::{DeliveryFilter, Store as _};
    let filter = DeliveryFilter {
        status: Some(DeliveryStatus::Delivered),
        ..DeliveryFilter::default()
    };
    let store = place.store("onelane.redb");
    store
        .0
        .deliveries(&filter, None, 100)
        .unwrap()
        .deliveries
        .len()
}

#[test]
fn an_alert_is_told_once_although_the_process_dies_while_it_is_active() {
    let place = Place::new();
    // Whoever is called without credit is held: operator.
    let simulator = simulator(0);
    simulator.push_fault(onelane::simulator::Fault::Error(
        onelane::simulator::ErrorFault::of("1113"),
    ));
    let ops = Reserved::new();
    config(&place, ops.address());
    let ops = ops.listen();
    let running = Running::start(&mut serve(&place, &simulator));
    let jobs = format!("{}/api/glm/jobs", running.url());
    Http::new().post(&jobs, &json!({"prompt": "x"})).unwrap();
    let told = |event: &str| {
        let all = ops.taken();
        all.iter().filter(|m| m.json()["type"] == event).count()
    };
    until("it is raised", || told("alert.raised") == 1);
    until("its delivery is noted", || {
        deliveries(&running, "?status=delivered").len() == 1
    });
    running.kill();

    let running = Running::start(&mut serve(&place, &simulator));
    let alerts = Http::new().get(&admin(&running, "alerts")).unwrap().json();
    assert_eq!(alerts["active"][0]["rule"], "hold");
    assert_eq!(alerts["active"][0]["subject"], "operator of the account");
    let resumed = Http::new().post(&admin(&running, "resume"), &json!({}));
    assert_eq!(resumed.unwrap().status, 200);
    until("it is cleared", || told("alert.cleared") == 1);
    assert_eq!(told("alert.raised"), 1, "not again after the restart");
    for message in ops.taken() {
        message.is_signed_with(OPS_SECRET);
    }
    let metrics = Http::new().get(&admin(&running, "metrics")).unwrap().json();
    assert_eq!(metrics["activeAlerts"], json!([]));
    running.signal("TERM");
    running.end().with(0);
}

#[test]
fn a_callback_that_nobody_allowed_is_refused_at_the_door() {
    let place = Place::new();
    let simulator = simulator(0);
    let running = Running::start(&mut serve(&place, &simulator));
    let job = json!({"prompt": "x", "callbackUrl": "https://example.com/hook"});
    let jobs = format!("{}/api/glm/jobs", running.url());
    let refused = Http::new().post(&jobs, &job).unwrap();
    assert_eq!(refused.status, 422, "{refused:?}");
    let problem = refused.json();
    assert_eq!(problem["type"], "urn:onelane:problem:callback-refused");
    assert_eq!(problem["errors"][0]["field"], "callbackUrl");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("webhooks.allowed_hosts")
    );
    running.signal("TERM");
    running.end().with(0);
    assert_eq!(simulator.stats().calls, 0);
}

#[test]
fn what_is_for_a_gone_receiver_waits_until_it_is_tested_and_is_sent_again_by_hand() {
    let place = Place::new();
    let simulator = simulator(0);
    let ops = Reserved::new();
    config(&place, ops.address());
    let ops = ops.listen();
    ops.answers(410);
    let running = Running::start(&mut serve(&place, &simulator));
    let http = Http::new();
    let submit = || {
        let jobs = format!("{}/api/glm/jobs", running.url());
        assert_eq!(
            http.post(&jobs, &json!({"prompt": "x"})).unwrap().status,
            202
        );
    };
    let endpoint = || {
        let told = http.get(&admin(&running, "webhooks/endpoints")).unwrap();
        told.json()["endpoints"][0].clone()
    };
    assert!(endpoint()["offSince"].is_null());
    submit();
    until("it is off", || endpoint()["offSince"].is_string());
    let first = deliveries(&running, "").remove(0);
    assert_eq!(first["statusCode"], 410);
    assert_eq!(first["status"], "pending");
    // Off: what ends now is kept for it, and not sent.
    submit();
    until("the second waits", || {
        deliveries(&running, "?status=pending").len() == 2
    });
    let taken = ops.taken().len();

    ops.answers(200);
    let test = http.post(
        &admin(&running, "webhooks/test"),
        &json!({"endpoint": "ops"}),
    );
    assert_eq!(test.unwrap().status, 200);
    until("all has arrived", || {
        deliveries(&running, "?status=delivered").len() == 3
    });
    assert!(endpoint()["offSince"].is_null());
    assert_eq!(ops.taken().len(), taken + 3);
    let again = format!(
        "webhooks/deliveries/{}/redeliver",
        first["id"].as_str().unwrap()
    );
    assert_eq!(
        http.post(&admin(&running, &again), &json!({}))
            .unwrap()
            .status,
        200
    );
    until("it is sent again, under its old id", || {
        let taken = ops.taken();
        let same = taken.iter().filter(|m| m.id() == first["webhookId"]);
        same.count() == 3
    });
    running.signal("TERM");
    running.end().with(0);
}
