//! The simulator's socket: connections, routes, and what becomes of a request on each.

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use onelane_actors::model::limits;
use onelane_actors::ports::Clock;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::answer::{Asked, completion, error_body, error_status, not_found, read};
use super::body::{Piece, Pieces};
use super::config::{AnswerWith, ErrorFault, Fault, ScriptUpdate};
use super::script::Script;
use super::stats::{Identity, InFlight, Recorder};
use crate::system::{GOLDEN, mix};

/// The largest body that is read; GLM's own limits are far below.
const BODY_BYTES_MAX: usize = 2 * limits::REQUEST_BYTES_MAX;
/// Arrivals that `/__sim/stats?arrivals=N` gives at most.
const ARRIVALS_MAX: usize = 10_000;

/// What the server's tasks and the handle share.
pub(crate) struct Shared {
    script: Mutex<Script>,
    pub(crate) recorder: Arc<Recorder>,
    clock: Arc<dyn Clock>,
    salt: AtomicU64,
}

impl Shared {
    pub(crate) fn new(script: Script, seed: u64, clock: Arc<dyn Clock>) -> Self {
        Self {
            script: Mutex::new(script),
            recorder: Arc::new(Recorder::new()),
            clock,
            salt: AtomicU64::new(seed),
        }
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn salt(&self) -> u64 {
        mix(self.salt.fetch_add(GOLDEN, Ordering::Relaxed))
    }
}

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

type Answer = Response<Pieces>;

/// The response; `None` resets the connection.
async fn respond(request: Request<Incoming>, shared: &Shared, connection: u64) -> Option<Answer> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let Some(admin) = path.strip_prefix("/__sim/") else {
        let is_chat = ["/api/paas/v4", "/api/coding/paas/v4", "/v1"]
            .iter()
            .any(|base| path.strip_prefix(base) == Some("/chat/completions"));
        if !is_chat {
            let body = not_found(path, shared.clock.now());
            return Some(json(404, body, None));
        }
        let request = shared.recorder.arrive(connection);
        if head.method != Method::POST {
            return Some(empty(405, request));
        }
        return chat(&head.headers, body, shared, request).await;
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

fn stats(query: &str, shared: &Shared) -> Answer {
    let script_left = shared.script().steps_left();
    let mut stats = serde_json::json!(shared.recorder.stats(script_left));
    let arrivals = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("arrivals=")?.parse().ok());
    if let (Some(n), Some(fields)) = (arrivals, stats.as_object_mut()) {
        let arrivals = shared.recorder.arrivals(ARRIVALS_MAX.min(n));
        fields.insert("arrivals".to_owned(), serde_json::json!(arrivals));
    }
    json(200, stats.to_string().into(), None)
}

fn update(body: &[u8], shared: &Shared) -> Answer {
    match serde_json::from_slice::<ScriptUpdate>(body) {
        Ok(update) => {
            shared.script().update(update);
            json(200, Bytes::from_static(b"{}"), None)
        }
        Err(e) => {
            let body = serde_json::json!({"error": e.to_string()});
            json(400, body.to_string().into(), None)
        }
    }
}

/// One chat completion, from its head to its response.
async fn chat(
    headers: &HeaderMap,
    body: Incoming,
    shared: &Shared,
    mut request: InFlight,
) -> Option<Answer> {
    let body = match whole(body).await {
        Ok(body) => body,
        Err(status) => return Some(empty(status, request)),
    };
    if let Err(fault) = authorise(headers, shared) {
        return Some(refuse(&fault, shared, request));
    }
    let asked = match read(&body) {
        Ok(asked) => asked,
        Err(fault) => return Some(refuse(&fault, shared, request)),
    };
    let seen = request.identify(&Identity {
        model: &asked.model,
        prompt: &asked.prompt,
        request_id: asked.request_id.as_deref(),
        priority: asked.wishes.priority,
    });
    let fault = {
        let mut script = shared.script();
        let limit = u64::from(script.limit_of(&asked.model));
        if !script.knows(&asked.model) {
            Fault::error("1211")
        } else if limit > 0 && seen.model_in_flight > limit {
            Fault::error("1302")
        } else if seen.request_id > 1 && script.refuses_duplicates() {
            Fault::error("1231")
        } else {
            script.next(&asked.prompt, &asked.model)
        }
    };
    play(fault, &asked, shared, request).await
}

/// Lets a fault happen. `None` resets the connection.
async fn play(
    fault: Fault,
    asked: &Asked,
    shared: &Shared,
    mut request: InFlight,
) -> Option<Answer> {
    let usual = AnswerWith::default();
    Some(match fault {
        Fault::Answer(with) => {
            let body = answer(asked, &with, shared).await;
            json(200, body, Some(request))
        }
        Fault::Error(fault) => {
            pause(fault.delay_ms).await;
            refuse(&fault, shared, request)
        }
        Fault::SlowHeaders { delay_ms } => {
            pause(delay_ms).await;
            let body = answer(asked, &usual, shared).await;
            json(200, body, Some(request))
        }
        Fault::SlowBody { pieces, delay_ms } => {
            let body = answer(asked, &usual, shared).await;
            let size = body.len().div_ceil(pieces.max(1) as usize).max(1);
            let pieces = body.chunks(size).flat_map(|piece| {
                let data = Piece::Data(Bytes::copy_from_slice(piece));
                [Piece::Wait(delay_ms), data]
            });
            broken(body.len(), pieces.collect(), request)
        }
        Fault::StallBody => {
            let body = answer(asked, &usual, shared).await;
            let half = Piece::Data(body.slice(..body.len() / 2));
            broken(body.len(), vec![half, Piece::Stall], request)
        }
        Fault::CutBody => {
            let body = answer(asked, &usual, shared).await;
            let half = Piece::Data(body.slice(..body.len() / 2));
            broken(body.len(), vec![half, Piece::Cut], request)
        }
        Fault::Reset => {
            request.hand_over();
            return None;
        }
        Fault::Hang => {
            // Ends when hyper sees the client leave and drops this future.
            std::future::pending::<()>().await;
            return None;
        }
        Fault::HtmlPage { status } => {
            let title = StatusCode::from_u16(status)
                .ok()
                .and_then(|status| status.canonical_reason())
                .unwrap_or("Error");
            let page = format!(
                "<html>\r\n<head><title>{status} {title}</title></head>\r\n<body>\r\n<center><h1>{status} {title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
            );
            typed(status, "text/html", page.into(), request)
        }
        Fault::EmptyBody { status } => empty(status, request),
        Fault::NotJson { status } => {
            typed(status, "text/plain", "upstream says no".into(), request)
        }
        Fault::Custom {
            status,
            headers,
            body,
        } => {
            let mut response = json(status, body.into(), Some(request));
            for (name, value) in headers {
                set_header(&mut response, &name, &value);
            }
            response
        }
    })
}

/// Waits the latency and writes the answer.
async fn answer(asked: &Asked, with: &AnswerWith, shared: &Shared) -> Bytes {
    let (latency_ms, tokens) = {
        let mut script = shared.script();
        (script.latency_ms(), script.tokens())
    };
    let wished = with.latency_ms.or(asked.wishes.latency_ms);
    pause(wished.unwrap_or(latency_ms)).await;
    completion(asked, with, tokens, shared.clock.now(), shared.salt())
}

/// No timer for no time.
async fn pause(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// A key as `Bearer KEY` or bare, as GLM takes it.
fn authorise(headers: &HeaderMap, shared: &Shared) -> Result<(), ErrorFault> {
    let key = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.strip_prefix("Bearer").unwrap_or(value).trim())
        .filter(|key| !key.is_empty())
        .ok_or_else(|| ErrorFault::of("1001"))?;
    if shared.script().accepts(key) {
        Ok(())
    } else {
        Err(ErrorFault::of("1000"))
    }
}

/// The whole body; the error is the HTTP status to answer with.
async fn whole(mut body: Incoming) -> Result<Bytes, u16> {
    let mut all = BytesMut::new();
    while let Some(frame) =
        std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await
    {
        if let Ok(data) = frame.map_err(|_| 400_u16)?.into_data() {
            if all.len() + data.len() > BODY_BYTES_MAX {
                return Err(413);
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(all.freeze())
}

fn refuse(fault: &ErrorFault, shared: &Shared, mut request: InFlight) -> Answer {
    let status = error_status(fault);
    request.respond(status, Some(&fault.code));
    let body = error_body(fault, shared.clock.now(), shared.salt());
    let mut response = response(status, body.len(), Pieces::whole(body, Some(request)));
    if let Some(retry_after) = &fault.retry_after {
        set_header(&mut response, "retry-after", retry_after);
    }
    response
}

fn json(status: u16, body: Bytes, request: Option<InFlight>) -> Answer {
    let request = request.map(|mut request| {
        request.respond(status, None);
        request
    });
    response(status, body.len(), Pieces::whole(body, request))
}

fn typed(status: u16, content_type: &str, body: Bytes, request: InFlight) -> Answer {
    let mut response = json(status, body, Some(request));
    set_header(&mut response, "content-type", content_type);
    response
}

fn empty(status: u16, mut request: InFlight) -> Answer {
    request.respond(status, None);
    response(status, 0, Pieces::new([], Some(request)))
}

/// A 200 of which not every byte comes at once, or at all.
fn broken(announced: usize, pieces: Vec<Piece>, mut request: InFlight) -> Answer {
    request.respond(200, None);
    response(200, announced, Pieces::new(pieces, Some(request)))
}

fn response(status: u16, announced: usize, body: Pieces) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(announced));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=UTF-8"),
    );
    response
}

/// A header that can't be one is left out.
fn set_header(response: &mut Answer, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        response.headers_mut().insert(name, value);
    }
}
