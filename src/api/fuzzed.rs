//! What reading the bodies, files and streams of HTTP promises for any bytes.

use std::io::BufReader;
use std::sync::{Arc, LazyLock};

use onelane_core::model::{
    BatchId, BatchInput, Face, FileId, Request, Settings, Submission, Timestamp, limits as bounds,
};

use super::body::typed;
use super::dialect::{Dialect, written};
use super::gateway::{Call, Chat, Embeddings, Faced, Messages, Responses};
use super::input::{Need, Payload};
use super::limits;
use super::lines::{Looked, look_through};
use super::problem::Problem;
use super::request_id::RequestId;
use super::sse::{Event, Numbered, Whole};
use super::submission::Submissions;
use super::terms::Terms;
use crate::glm;

/// Made once: its schema takes longer than a line.
static DIALECT: LazyLock<Dialect> = LazyLock::new(Dialect::new);
static SETTINGS: LazyLock<Arc<Settings>> = LazyLock::new(Arc::default);

/// A body of each face, and of `POST /api/glm/jobs`.
pub(crate) fn bodies(data: &[u8]) {
    call::<Chat>(data);
    call::<Responses>(data);
    call::<Messages>(data);
    call::<Embeddings>(data);
    let read = typed(data.to_vec(), Need::Required, |raw| {
        Submissions::read(&DIALECT, raw)
    });
    match read {
        Err(problem) => refused(problem),
        Ok(mut jobs) => {
            assert!((1..=bounds::SUBMIT_MANY_MAX).contains(&jobs.all().len()));
            jobs.all().iter().for_each(read_again);
        }
    }
}

/// A body that is taken goes on to the byte.
fn call<F: Faced>(data: &[u8]) {
    match typed(data.to_vec(), Need::Required, |raw| {
        Call::<F>::read(&(), raw)
    }) {
        Err(problem) => refused(problem),
        Ok(call) => {
            let request = &call.submission.request;
            let Request::Body(face, body) = request else {
                unreachable!("a body became a prompt");
            };
            assert_eq!(*face, F::FACE);
            assert_eq!(body.get().as_bytes(), data.trim_ascii());
            let user = call.submission.user_id.chars().count();
            assert!((1..=bounds::USER_ID_CHARS_MAX).contains(&user));
            glm::fuzzed::sent(request);
        }
    }
}

/// A refusal is the client's fault, and told in each dialect.
fn refused(problem: Problem) {
    assert!(
        (400..500).contains(&problem.status().as_u16()),
        "{problem:?}"
    );
    assert!(!problem.detail().is_empty());
    use super::problem::Dialect::{Anthropic, Glm, Problem};
    for dialect in [Problem, Glm, Anthropic] {
        let reply = problem.clone().reply(dialect, &RequestId::default());
        let told: Result<serde_json::Value, _> = serde_json::from_slice(&reply.into_bytes());
        assert!(told.is_ok());
    }
}

/// A job that is written is read as it was.
fn read_again(job: &Submission) {
    glm::fuzzed::sent(&job.request);
    let Ok(text) = written(job) else {
        unreachable!("a job that can't be written");
    };
    let read = typed(text.clone().into(), Need::Required, |raw| {
        Submissions::read(&DIALECT, raw)
    });
    let Ok(Submissions::One(again)) = read else {
        unreachable!("a job that can't be read again: {text}");
    };
    assert_eq!(written(&again).ok(), Some(text));
    assert_eq!(again.request.fingerprint(""), job.request.fingerprint(""));
}

/// The lines of a file: of a batch over HTTP, and of `onelane run`.
pub(crate) fn lines(data: &[u8]) {
    for face in Face::ALL {
        let looked = look(data, face, data.len().max(1));
        assert_eq!(
            looked,
            look(data, face, 5),
            "lines hang on how they are read"
        );
        numbered(&looked, data);
    }
    for line in data.split(|byte| *byte == b'\n') {
        let Ok(text) = std::str::from_utf8(line) else {
            continue;
        };
        let line = DIALECT.line(text.trim());
        match line.asked {
            Ok(asked) => glm::fuzzed::sent(&asked.request),
            Err(problem) => assert!(!problem.is_empty()),
        }
    }
}

fn look(data: &[u8], face: Face, buffer_bytes: usize) -> Looked {
    let now = Timestamp::from_millis(1_000);
    let endpoint = format!("/v1{}", face.path_end());
    let file = FileId::from_bytes([1; 16]);
    let input = BatchInput::new(BatchId::new(1), file, &endpoint, now, now.plus_ms(1_000));
    let looked = Terms::of(&input, Arc::clone(&SETTINGS), 0, now).map(|terms| {
        let reader = BufReader::with_capacity(buffer_bytes, data);
        look_through(reader, &input, 1_000, &terms, now, |_| Ok(()))
    });
    match looked {
        Ok(Ok(looked)) => looked,
        other => unreachable!("lines in memory can't be read: {other:?}"),
    }
}

/// What is wrong with a line names it, in a bounded message.
fn numbered(looked: &Looked, data: &[u8]) {
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let told = lines.iter().filter(|line| !line.trim_ascii().is_empty());
    assert!(looked.lines <= told.count() as u64);
    assert!(looked.faults.len() <= limits::ERRORS_SHOWN_MAX);
    let mut last = 0;
    for fault in &looked.faults {
        let chars = fault.message.chars().count();
        assert!(
            (1..=limits::LINE_FAULT_CHARS_MAX).contains(&chars),
            "{chars} characters: {fault:?}"
        );
        let Some(number) = fault.line else {
            assert_eq!((looked.lines, &*fault.code), (0, "empty_file"));
            continue;
        };
        assert!(number > last, "{fault:?}");
        last = number;
        let line = usize::try_from(number - 1)
            .ok()
            .and_then(|nth| lines.get(nth));
        assert!(
            line.is_some_and(|line| !line.trim_ascii().is_empty()),
            "{fault:?}"
        );
    }
}

/// A stream in any pieces has events that say the same, and all of them together are it to the byte. Where one ends
/// may differ: a line feed behind a carriage return comes late.
pub(crate) fn events(data: &[u8]) {
    let all = |events: &[Event]| events.iter().map(Event::text).collect::<String>();
    let (whole, numbered) = pieces(data, data.len().max(1));
    for piece_bytes in [1, 3, 64] {
        let (events, out) = pieces(data, piece_bytes);
        assert_eq!(out, numbered, "{piece_bytes}");
        assert_eq!(all(&events), all(&whole), "{piece_bytes}");
        let said = events.iter().filter_map(Event::data);
        assert!(
            said.eq(whole.iter().filter_map(Event::data)),
            "{piece_bytes}"
        );
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let is_begin = text.starts_with(&all(&whole));
        assert!(is_begin, "events that are not the stream's");
    }
    for event in &whole {
        assert_eq!(event.with(Vec::new()), event.text());
    }
}

fn pieces(data: &[u8], piece_bytes: usize) -> (Vec<Event>, Vec<u8>) {
    let (mut whole, mut numbered) = (Whole::default(), Numbered::after("s", 2));
    let (mut events, mut out) = (Vec::new(), Vec::new());
    for piece in data.chunks(piece_bytes) {
        events.extend(whole.events(piece));
        out.extend(numbered.piece(piece));
    }
    (events, out)
}
