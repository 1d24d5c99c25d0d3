//! What reading GLM's side of the wire promises for any bytes. A promise that is broken ends the process, which is how
//! a fuzzer and a test hear of it.

use bytes::Bytes;
use onelane_actors::ports::{Clock, GlmOutcome};
use onelane_actors::testing::glm_call;
use onelane_core::model::{Face, Failure, Request, Timestamp, Usage, limits};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::classify::{CODE_CHARS_MAX, Reader, classify};
use super::decode::{decode, decode_with, is_answer, usual_head};
use super::forms::{begins, events_of, said};
use super::layers;
use super::pool::named_id;
use super::stream::Tells;
use super::tasks::{Look, accepted, is_task_id, seen};
use super::wire::body;
use crate::object::Object;

const KEY: &str = "7f3a9c01d2e4b586.QmZkWxNvLpTrYhGs";
/// Stands for the key in an input: its server sends it back.
const KEY_IS_HERE: u8 = 0x01;
/// So much of the key, or of the secret in it, is shown to nobody.
const TOLD_CHARS_MAX: usize = 7;

/// 2026-11-23 10:00 in Beijing.
struct Now;

impl Clock for Now {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_795_399_200_000)
    }
}

/// A response as an input spells it: a body, or a status and headers, a line each, and the body behind an empty line.
struct Came {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
    /// The input itself tells parts of the key: nothing follows from finding them again.
    tells_key: bool,
}

impl Came {
    fn of(data: &[u8], usual: u16) -> Self {
        let (status, headers, body) =
            Self::with_head(data).unwrap_or((usual, HeaderMap::new(), data));
        let mut bytes = Vec::with_capacity(body.len());
        for byte in body {
            match *byte {
                KEY_IS_HERE => bytes.extend_from_slice(KEY.as_bytes()),
                byte => bytes.push(byte),
            }
        }
        Self {
            body: layers::decoded(&headers, bytes.into()),
            status,
            headers,
            tells_key: tells_key(data),
        }
    }

    fn with_head(data: &[u8]) -> Option<(u16, HeaderMap, &[u8])> {
        let end = data.windows(2).position(|two| two == b"\n\n")?;
        let (head, body) = data.split_at(end);
        let mut lines = head.split(|byte| *byte == b'\n');
        let status: u16 = std::str::from_utf8(lines.next()?).ok()?.parse().ok()?;
        let mut headers = HeaderMap::new();
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (name, value) = line.split_at(colon);
            let value = value.get(1..)?.trim_ascii();
            headers.append(
                HeaderName::from_bytes(name).ok()?,
                HeaderValue::from_bytes(value).ok()?,
            );
        }
        (100..1_000)
            .contains(&status)
            .then_some((status, headers, body.get(2..)?))
    }

    fn reader(face: Face) -> Reader<'static> {
        Reader {
            clock: &Now,
            face,
            api_key: KEY,
        }
    }
}

/// Whether bytes hold more of the key than anybody may be told.
fn tells_key(bytes: &[u8]) -> bool {
    let secret = KEY.split_once('.').map_or(KEY, |(_, secret)| secret);
    let begin = |text: &'static str| text.as_bytes().get(..=TOLD_CHARS_MAX).unwrap_or_default();
    let parts = [begin(KEY), begin(secret)];
    bytes
        .windows(TOLD_CHARS_MAX + 1)
        .any(|window| parts.contains(&window))
}

/// A body of a success, as each face reads it.
pub(crate) fn answers(data: &[u8]) {
    let came = Came::of(data, 200);
    for face in Face::ALL {
        outcome(face, &came);
    }
}

/// A refusal, as each face reads it.
pub(crate) fn errors(data: &[u8]) {
    let came = Came::of(data, 429);
    for face in Face::ALL {
        let reader = Came::reader(face);
        let failure = classify(came.status, &came.headers, &came.body, &reader);
        assert_eq!(failure.status_code, Some(came.status));
        judged(&failure, &came);
        outcome(face, &came);
    }
}

/// The events of a stream, as each face reads them.
pub(crate) fn streams(data: &[u8]) {
    let came = Came::of(data, 200);
    for face in Face::ALL {
        let whole = verdict(face, &came.body, came.body.len().max(1));
        // What is cut into pieces is read again with each: the shorter, the smaller they may be.
        let piece_bytes = match came.body.len() {
            0..=256 => 1,
            257..=1_024 => 7,
            _ => 97,
        };
        assert_eq!(
            verdict(face, &came.body, piece_bytes),
            whole,
            "{face:?}: what a stream tells hangs on its pieces"
        );
        let said = said(face, &layers::text(&came.body));
        // Three bytes for one that is no text.
        assert!(said.len() <= came.body.len() * 3);
        outcome(face, &came);
    }
}

/// What the first pieces that tell something tell, as whoever passes a stream on asks.
fn verdict(face: Face, stream: &[u8], piece_bytes: usize) -> Tells {
    let ends = (0..=stream.len()).step_by(piece_bytes).skip(1);
    let ends = ends.chain([stream.len()]);
    let told = ends.map(|end| {
        let begun = stream.get(..end).unwrap_or(stream);
        begins(face, begun)
    });
    told.into_iter()
        .find(|told| *told != Tells::Nothing)
        .unwrap_or(Tells::Nothing)
}

/// What GLM's asynchronous API answers.
pub(crate) fn tasks(data: &[u8]) {
    let came = Came::of(data, 200);
    let reader = Came::reader(Face::Chat);
    match accepted(came.status, &came.headers, &came.body, &reader) {
        Ok(id) => assert!(is_task_id(&id), "{id:?} stands in a path"),
        Err(failure) => judged(&failure, &came),
    }
    match seen(came.status, &came.headers, came.body.clone(), &reader) {
        Look::Again(why) => {
            assert!(!tells_key(why.as_bytes()) || came.tells_key, "{why}");
            assert!(why.chars().count() <= 2 * limits::FAILURE_MESSAGE_CHARS_MAX);
        }
        Look::Ended(GlmOutcome::Answered(answer)) => counted(&answer.usage),
        Look::Ended(GlmOutcome::Failed(failure, usage)) => {
            counted(&usage);
            judged(&failure, &came);
        }
        Look::Ended(other) => unread(&other),
    }
}

/// Reads a response: an answer read again is the same, and so is one that came as the events of a stream.
fn outcome(face: Face, came: &Came) {
    let reader = Came::reader(face);
    let read = decode(came.status, &came.headers, came.body.clone(), &reader);
    goes_on_by_its_head(face, came, &read);
    let answer = match read {
        GlmOutcome::Answered(answer) => answer,
        GlmOutcome::Failed(failure, usage) => {
            counted(&usage);
            return judged(&failure, came);
        }
        other => return unread(&other),
    };
    assert!((200..300).contains(&came.status), "a refusal is no answer");
    counted(&answer.usage);
    let named = answer.model.as_deref().unwrap_or_default();
    assert!(named.chars().count() <= limits::MODEL_CHARS_MAX);
    let again = |text: String| decode(200, &HeaderMap::new(), text.into(), &reader);
    match again(answer.body.text().into_owned()) {
        GlmOutcome::Answered(same) => {
            assert_eq!(same.body.text(), answer.body.text());
            assert_eq!(
                (same.usage, same.model),
                (answer.usage, answer.model.clone())
            );
        }
        other => unreachable!("an answer that is none when it is read again: {other:?}"),
    }
    let Some(events) = events_of(face, answer.body.get()) else {
        return;
    };
    if let GlmOutcome::Answered(streamed) = again(events) {
        assert_eq!(
            (streamed.usage, streamed.model),
            (answer.usage, answer.model),
            "{face:?}: an answer counts as another one when it comes in pieces"
        );
    }
}

/// What the next call goes out by is what the whole response says when it is read.
fn goes_on_by_its_head(face: Face, came: &Came, read: &GlmOutcome) {
    let Some(head) = usual_head(face, came.status, &came.body) else {
        return;
    };
    if let (Some(id), Some(named)) = (&head.request_id, named_id(&came.body)) {
        assert_eq!(*id, named);
    }
    let (is_answer, model) = (is_answer(&head, came.status), head.model.clone());
    match read {
        GlmOutcome::Answered(answer) => assert!(is_answer && answer.model == model),
        _ => assert!(!is_answer, "went on with what is no answer: {read:?}"),
    }
    let (headers, reader) = (&came.headers, Came::reader(face));
    let behind = decode_with(head, came.status, headers, &came.body, &reader);
    assert_eq!(format!("{behind:?}"), format!("{read:?}"));
}

/// What only a call that was given up comes to.
fn unread(outcome: &GlmOutcome) {
    unreachable!("a response came, and was read as {outcome:?}");
}

/// A part is never more than its whole.
fn counted(usage: &Usage) {
    assert!(usage.cached_tokens <= usage.prompt_tokens, "{usage:?}");
    assert!(
        usage.reasoning_tokens <= usage.completion_tokens,
        "{usage:?}"
    );
    let parts = usage.prompt_tokens.saturating_add(usage.completion_tokens);
    assert!(parts <= usage.total_tokens, "{usage:?}");
    // Sums of what is believed never overflow: of each count at most its part beside it.
    assert!(usage.total_tokens <= limits::TOKENS_MAX * 8, "{usage:?}");
}

/// A failure is bounded, survives its row, and does not tell the key.
fn judged(failure: &Failure, came: &Came) {
    let chars = failure.message.chars().count();
    assert!(
        chars <= limits::FAILURE_MESSAGE_CHARS_MAX,
        "a message of {chars} characters: {failure}"
    );
    assert!(failure.code.chars().count() <= CODE_CHARS_MAX, "{failure}");
    let longest = limits::RESET_AHEAD_MS_MAX;
    assert!(failure.retry_after_ms.is_none_or(|ms| ms <= longest));
    assert!(
        failure
            .reset_at
            .is_none_or(|at| at.since(Now.now()) <= longest)
    );
    let row = serde_json::to_string(failure).unwrap_or_default();
    let read: Option<Failure> = serde_json::from_str(&row).ok();
    let kept = Failure {
        received: None,
        ..failure.clone()
    };
    assert_eq!(read.as_ref(), Some(&kept));
    if came.tells_key {
        return;
    }
    assert!(!tells_key(row.as_bytes()), "it tells the key: {row}");
    // What is an answer by its form is the client's to the byte.
    if !failure.code.starts_with("finish:")
        && let Some(received) = &failure.received
    {
        assert!(
            !tells_key(received.bytes()),
            "it tells the key: {}",
            received.text()
        );
    }
}

/// A request that was taken reaches GLM to the byte, but for what the lane sets.
pub(crate) fn sent(request: &Request) {
    // A field that GLM would read twice stands there once; of the others each is set where it stands.
    const ONCE: [&str; 3] = ["model", "request_id", "stream"];
    const SET: [&str; 5] = [
        "model",
        "request_id",
        "stream",
        "stream_options",
        "background",
    ];
    let Request::Body(face, before) = request else {
        return;
    };
    for streams in [false, true] {
        let mut call = glm_call(7, 2, request.clone());
        call.streams = streams;
        let text = body(&call).map(String::from_utf8);
        let Ok(Ok(text)) = text else {
            unreachable!("a request that can't be sent: {text:?}");
        };
        let (Ok(before), Ok(after)) = (
            serde_json::from_str::<Object<'_>>(before.get()),
            serde_json::from_str::<Object<'_>>(&text),
        ) else {
            unreachable!("what is sent is no object: {text}");
        };
        let kept = |object: &Object<'_>| -> Vec<(String, String)> {
            let kept = object.iter().filter(|(name, _)| !SET.contains(name));
            kept.map(|(name, value)| (name.to_owned(), value.get().to_owned()))
                .collect()
        };
        assert_eq!(kept(&before), kept(&after));
        assert!(
            ONCE.iter()
                .all(|set| after.iter().filter(|(name, _)| name == set).count() <= 1)
        );
        let id = format!("{:?}", call.request_id.as_str());
        if face.echoes() {
            assert_eq!(after.get("request_id").map(|id| id.get()), Some(&*id));
        }
        assert!(after.get("model").is_some(), "{text}");
        // Nothing is left to be set.
        if let Ok(again) = Request::body(*face, &text) {
            call.request = again.into();
            assert_eq!(body(&call).unwrap_or_default(), text.as_bytes());
        }
    }
}
