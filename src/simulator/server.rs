//! The simulator's socket: connections, routes, and the routes of its own.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::accounts::{self, Meter};
use super::answer::not_found;
use super::config::{Operation, ScriptUpdate};
use super::faces::face_of;
use super::respond::{empty, json};
use super::shared::{Answer, Shared, whole};
use super::work::{look, work};

/// Arrivals that `/__sim/stats?arrivals=N` gives at most.
const ARRIVALS_MAX: usize = 10_000;

/// Serves until `stop` is cancelled; then every connection is closed with the runtime.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the simulator can't listen");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, Arc::clone(&shared)));
            }
            Err(error) => {
                // Out of file descriptors, mostly: others are being closed meanwhile.
                tracing::warn!(%error, "the simulator can't accept a connection");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let number = shared.recorder.connected();
    // Without it a test is slower, not wrong.
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request| {
        let (shared, reset) = (Arc::clone(&shared), Arc::clone(&reset));
        async move {
            let answer = respond(request, &shared, number).await;
            reset.store(answer.is_none(), Ordering::Relaxed);
            // An error makes hyper close the connection without a response.
            answer.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset))
        }
    });
    let mut served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // Errors are clients that left and cuts on purpose.
    let _ = (&mut served).await;
    if reset.load(Ordering::Relaxed) {
        // With data unsent dropped, closing sends a reset.
        let _ = served.into_parts().io.into_inner().set_zero_linger();
    }
    shared.recorder.disconnected();
}

/// The response; `None` resets the connection.
async fn respond(
    request: Request<Incoming>,
    shared: &Arc<Shared>,
    connection: u64,
) -> Option<Answer> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let Some(admin) = path.strip_prefix("/__sim/") else {
        if let Some(meter) = Meter::at(path) {
            let asked = (path, head.uri.query().unwrap_or(""));
            return Some(accounts::look(meter, asked, &head.headers, shared));
        }
        let face = face_of(path);
        let of_face = face.map(|_| (Operation::Chat, ""));
        let Some((operation, task_id)) = of_face.or_else(|| route(path)) else {
            let body = not_found(path, shared.clock.now());
            return Some(json(404, body, None));
        };
        let request = shared.recorder.arrive(connection, operation);
        let method = match operation {
            Operation::Chat | Operation::SubmitTask => Method::POST,
            Operation::FetchTask => Method::GET,
        };
        if head.method != method {
            return Some(empty(405, request));
        }
        return match operation {
            Operation::FetchTask => look(&head.headers, task_id, shared, request).await,
            _ => {
                let asked = (operation, face.unwrap_or_default());
                work(&head.headers, body, asked, shared, request).await
            }
        };
    };
    let answer = match (head.method.as_str(), admin) {
        ("GET", "stats") => stats(head.uri.query().unwrap_or(""), shared),
        ("POST", "script") => match whole(body).await {
            Ok(body) => update(&body, shared),
            Err(status) => json(status, Bytes::from_static(b"{}"), None),
        },
        ("POST", "reset") => {
            shared.recorder.reset();
            json(200, Bytes::from_static(b"{}"), None)
        }
        _ => json(404, not_found(path, shared.clock.now()), None),
    };
    Some(answer)
}

/// The route of a path, and the id of the task when it names one.
fn route(path: &str) -> Option<(Operation, &str)> {
    let of_api = ["/api/paas/v4", "/api/coding/paas/v4", "/v1"]
        .iter()
        .find_map(|base| path.strip_prefix(base))?;
    match of_api {
        "/chat/completions" => Some((Operation::Chat, "")),
        "/async/chat/completions" => Some((Operation::SubmitTask, "")),
        _ => {
            let id = of_api.strip_prefix("/async-result/")?;
            Some((Operation::FetchTask, id))
        }
    }
}

fn stats(query: &str, shared: &Shared) -> Answer {
    let script_left = shared.script().steps_left();
    let mut stats = serde_json::json!(shared.recorder.stats(script_left));
    let asked = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let (_, number) = pairs.find(|(given, _)| *given == name)?;
        number.parse::<u64>().ok()
    };
    if let Some(fields) = stats.as_object_mut() {
        if let Some(n) = asked("arrivals") {
            let n = usize::try_from(n).unwrap_or(ARRIVALS_MAX);
            let arrivals = shared.recorder.arrivals(ARRIVALS_MAX.min(n));
            fields.insert("arrivals".to_owned(), serde_json::json!(arrivals));
        }
        if let Some(since_us) = asked("since") {
            let peak = shared.recorder.peak_since(since_us, None);
            fields.insert("peakSince".to_owned(), peak.into());
        }
    }
    json(200, stats.to_string().into(), None)
}

fn update(body: &[u8], shared: &Shared) -> Answer {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string());
    match text.and_then(|text| ScriptUpdate::read(text).map_err(|error| error.to_string())) {
        Ok(update) => {
            shared.script().update(update);
            json(200, Bytes::from_static(b"{}"), None)
        }
        Err(problem) => {
            let body = serde_json::json!({"error": problem});
            json(400, body.to_string().into(), None)
        }
    }
}
