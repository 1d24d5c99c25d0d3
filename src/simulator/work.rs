//! A request's way through the simulator: its route, the fault that meets it, its answer.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use onelane_core::model::Face;

use super::answer::{ChatRequest, completion, read, task_failed, task_processing, task_unknown};
use super::body::Piece;
use super::config::Operation;
use super::faces::{events, worded};
use super::fault::{AnswerWith, ErrorFault, Fault};
use super::recorder::{Identity, InFlight};
use super::respond::{broken, empty, json, refuse, set_header, streamed, typed};
use super::script::Met;
use super::shared::{Answer, Shared, whole};
use super::stream;
use super::tasks::Account;

/// The answer of a request without a fault.
enum Wanted<'a> {
    /// The answer.
    Chat {
        chat: &'a ChatRequest,
        account: Account,
    },
    /// A task.
    Task {
        chat: &'a ChatRequest,
        account: Account,
    },
    /// How a task stands: this.
    Look(Bytes),
}

impl Wanted<'_> {
    /// The chat, if its answer is to come in pieces. As a task, `stream` is ignored.
    fn streamed(&self) -> Option<&ChatRequest> {
        match self {
            Self::Chat { chat, .. } if chat.stream => Some(chat),
            _ => None,
        }
    }

    /// A refusal in the words of the face that was asked.
    fn refused(&self, fault: ErrorFault) -> ErrorFault {
        match self {
            Self::Chat { chat, .. } => worded(chat.face, fault),
            Self::Task { .. } | Self::Look(_) => fault,
        }
    }

    /// The pieces of a streamed answer.
    fn pieces(&self, answer: &Bytes) -> Option<Vec<Piece>> {
        let chat = self.streamed()?;
        let wishes = chat.wishes;
        let events = match chat.face {
            Face::Chat => stream::events(answer, wishes.pieces),
            face => events(face, answer, wishes.pieces),
        };
        let events = events.into_iter();
        let wait = |event| {
            [
                Piece::Wait(wishes.piece_ms.unwrap_or(0)),
                Piece::Data(event),
            ]
        };
        Some(events.flat_map(wait).collect())
    }

    /// The answer, in the form that was asked for.
    fn told(&self, answer: Bytes, request: InFlight) -> Answer {
        match self.pieces(&answer) {
            Some(pieces) => streamed(pieces, request),
            None => json(200, answer, Some(request)),
        }
    }

    /// Half of the answer, and what comes then.
    fn half(&self, answer: &Bytes, then: Piece, request: InFlight) -> Answer {
        if let Some(mut pieces) = self.pieces(answer) {
            pieces.truncate(pieces.len() / 2);
            pieces.push(then);
            return streamed(pieces, request);
        }
        let half = Piece::Data(answer.slice(..answer.len() / 2));
        broken(answer.len(), vec![half, then], request)
    }
}

/// A chat completion, at once or as a task, from its head to its response. `None` resets the connection.
pub(crate) async fn work(
    headers: &HeaderMap,
    body: Incoming,
    (operation, face): (Operation, Face),
    shared: &Arc<Shared>,
    mut request: InFlight,
) -> Option<Answer> {
    let body = match whole(body).await {
        Ok(body) => body,
        Err(status) => return Some(empty(status, request)),
    };
    let key = match authorise(headers, shared) {
        Ok(key) => key,
        Err(fault) => return Some(refuse(&worded(face, fault), shared, request)),
    };
    let chat = match read(face, &body) {
        Ok(chat) => chat,
        Err(fault) => return Some(refuse(&worded(face, fault), shared, request)),
    };
    // The answer may take its time.
    drop(body);
    let seen = request.identify(&Identity {
        model: &chat.model,
        prompt: &chat.prompt,
        request_id: chat.request_id.as_deref(),
        priority: chat.wishes.priority,
    });
    let fault = {
        let mut script = shared.script();
        let limit = u64::from(script.limit_of(&chat.model));
        if !script.knows(&chat.model) {
            Fault::error("1211")
        } else if limit > 0 && seen.model_in_flight > limit {
            Fault::error("1302")
        } else if seen.request_id > 1 && script.refuses_duplicates() {
            Fault::error("1231")
        } else {
            script.next(&Met {
                operation,
                prompt: &chat.prompt,
                model: &chat.model,
                key,
            })
        }
    };
    let (chat, account) = (&chat, account_of(key));
    let wanted = match operation {
        Operation::SubmitTask => Wanted::Task { chat, account },
        _ => Wanted::Chat { chat, account },
    };
    play(fault, &wanted, shared, request).await
}

/// A look at a task, from its head to its response. `None` resets the connection.
pub(crate) async fn look(
    headers: &HeaderMap,
    task_id: &str,
    shared: &Arc<Shared>,
    mut request: InFlight,
) -> Option<Answer> {
    request.about_task(task_id);
    let key = match authorise(headers, shared) {
        Ok(key) => key,
        Err(fault) => return Some(refuse(&fault, shared, request)),
    };
    let Some(shows) = shared.tasks.look(task_id, account_of(key)) else {
        return Some(refuse(&task_unknown(), shared, request));
    };
    let fault = shared.script().next(&Met {
        operation: Operation::FetchTask,
        prompt: "",
        model: "",
        key,
    });
    play(fault, &Wanted::Look(shows), shared, request).await
}

pub(super) fn account_of(key: &str) -> Account {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    Account(hasher.finish())
}

/// Lets a fault happen. `None` resets the connection.
async fn play(
    fault: Fault,
    wanted: &Wanted<'_>,
    shared: &Arc<Shared>,
    mut request: InFlight,
) -> Option<Answer> {
    let usual = AnswerWith::default();
    Some(match fault {
        Fault::Answer(with) => {
            let body = answer(wanted, &with, shared, &mut request).await;
            wanted.told(body, request)
        }
        Fault::Error(fault) => {
            pause(fault.delay_ms).await;
            refuse(&wanted.refused(fault), shared, request)
        }
        Fault::FailTask { error } => match wanted {
            Wanted::Task { chat, account } => {
                let end = TaskEnd::Failed(error);
                json(
                    200,
                    begin_task(chat, *account, end, shared, &mut request),
                    Some(request),
                )
            }
            Wanted::Chat { .. } | Wanted::Look(_) => {
                let error = error.unwrap_or_else(|| ErrorFault::of("1200"));
                refuse(&wanted.refused(error), shared, request)
            }
        },
        Fault::SlowHeaders { delay_ms } => {
            pause(delay_ms).await;
            let body = answer(wanted, &usual, shared, &mut request).await;
            wanted.told(body, request)
        }
        Fault::SlowBody { pieces, delay_ms } => {
            let body = answer(wanted, &usual, shared, &mut request).await;
            let size = body.len().div_ceil(pieces.max(1) as usize).max(1);
            let pieces = body.chunks(size).flat_map(|piece| {
                let data = Piece::Data(Bytes::copy_from_slice(piece));
                [Piece::Wait(delay_ms), data]
            });
            broken(body.len(), pieces.collect(), request)
        }
        Fault::StallBody => {
            let body = answer(wanted, &usual, shared, &mut request).await;
            wanted.half(&body, Piece::Stall, request)
        }
        Fault::CutBody => {
            let body = answer(wanted, &usual, shared, &mut request).await;
            wanted.half(&body, Piece::Cut, request)
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

/// Serves a request without a fault: waits the latency and writes the answer, begins a task, shows one.
async fn answer(
    wanted: &Wanted<'_>,
    with: &AnswerWith,
    shared: &Arc<Shared>,
    request: &mut InFlight,
) -> Bytes {
    match wanted {
        Wanted::Chat { chat, account } => {
            let (latency_ms, tokens) = {
                let mut script = shared.script();
                (script.latency_ms(), (script.tokens(), script.length()))
            };
            let wished = with.latency_ms.or(chat.wishes.latency_ms);
            pause(wished.unwrap_or(latency_ms)).await;
            shared.recorder.bought(&chat.prompt);
            let (now, id) = (shared.clock.now(), shared.id());
            let (body, counted) = completion(chat, with, tokens, now, &id, None);
            let model = with.served_by.as_ref().unwrap_or(&chat.model);
            shared.meters.count(*account, model, counted, now);
            body
        }
        Wanted::Task { chat, account } => {
            let end = TaskEnd::Answered(with.clone());
            begin_task(chat, *account, end, shared, request)
        }
        Wanted::Look(shows) => shows.clone(),
    }
}

/// How a task will end.
enum TaskEnd {
    Answered(AnswerWith),
    Failed(Option<ErrorFault>),
}

/// Accepts a task, which is finished after its time whatever becomes of the client.
fn begin_task(
    chat: &ChatRequest,
    account: Account,
    end: TaskEnd,
    shared: &Arc<Shared>,
    request: &mut InFlight,
) -> Bytes {
    let id = shared.id();
    request.about_task(&id);
    let begun = task_processing(chat, &id);
    let (drawn_ms, tokens) = {
        let mut script = shared.script();
        (script.task_ms(), (script.tokens(), script.length()))
    };
    let wished = match &end {
        TaskEnd::Answered(with) => with.latency_ms,
        TaskEnd::Failed(_) => None,
    };
    let takes_ms = wished.or(chat.wishes.latency_ms).unwrap_or(drawn_ms);
    let ended = match &end {
        TaskEnd::Answered(with) => {
            shared.recorder.bought(&chat.prompt);
            let now = shared.clock.now().plus_ms(takes_ms);
            let (body, counted) = completion(chat, with, tokens, now, &id, Some("SUCCESS"));
            let model = with.served_by.as_ref().unwrap_or(&chat.model);
            shared.meters.count(account, model, counted, now);
            body
        }
        TaskEnd::Failed(error) => task_failed(chat, &id, error.as_ref()),
    };
    let place = request.give_place();
    shared.tasks.begin(&id, account, begun.clone(), place);
    if takes_ms == 0 {
        shared.tasks.finish(&id, ended);
        return begun;
    }
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        pause(takes_ms).await;
        shared.tasks.finish(&id, ended);
    });
    begun
}

/// No timer for no time.
async fn pause(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// The key, as `Bearer KEY` or bare, as GLM takes it, or as Anthropic's SDK sends it.
pub(super) fn authorise<'a>(
    headers: &'a HeaderMap,
    shared: &Shared,
) -> Result<&'a str, ErrorFault> {
    let key = headers
        .get(header::AUTHORIZATION)
        .or_else(|| headers.get("x-api-key"))
        .and_then(|value| value.to_str().ok())
        .map(|value| value.strip_prefix("Bearer").unwrap_or(value).trim())
        .filter(|key| !key.is_empty())
        .ok_or_else(|| ErrorFault::of("1001"))?;
    if shared.script().accepts(key) {
        Ok(key)
    } else {
        Err(ErrorFault::of("1000"))
    }
}
