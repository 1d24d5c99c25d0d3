//! The body of a request: read under bounds of size, time and memory, and off the async workers when it is
//! large.

use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use futures_util::{Stream, StreamExt};
use onelane_core::model::HalfACharacter;
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use warp::http::HeaderMap;
use warp::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};

use super::connections::Bounds;
use super::input::Need;
use super::intake::Share;
use super::limits;
use super::problem::{Kind, Problem};

/// How bodies are read.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    /// Bytes at most.
    pub(super) max_bytes: usize,
    /// How long the next bytes may take.
    pub(super) idle: Duration,
    /// How long the whole may take.
    pub(super) whole: Duration,
    pub(super) bounds: Arc<Bounds>,
}

/// A body that has not been read.
pub(super) struct Body {
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send>>,
    reading: Reading,
    until: Instant,
    /// Its bytes, as its client declares them.
    declared: Option<u64>,
    /// Its client asks before it sends it.
    asks_first: bool,
    /// What it is if it is anything: an object.
    is_object: bool,
    share: Share,
    /// How long the next bytes are left where they are.
    rest: Duration,
    has_begun: bool,
    has_ended: bool,
    unread: Arc<AtomicBool>,
}

/// An answer to a request whose body was not read to its end: the connection can have no other one.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeavesUnread;

impl Drop for Body {
    fn drop(&mut self) {
        let is_long = self.is_declared_above(limits::DISCARD_BYTES_MAX);
        let is_left = !self.has_ended && (self.has_begun || is_long);
        self.unread.store(is_left, Ordering::Release);
    }
}

/// The right to the memory of a body; dropped, others may have it.
pub(super) type Memory = Option<OwnedSemaphorePermit>;

impl Body {
    /// A body, read so.
    pub(super) fn new<B: Buf>(
        chunks: impl Stream<Item = Result<B, warp::Error>> + Send + 'static,
        headers: &HeaderMap,
        reading: Reading,
    ) -> Self {
        let chunks = chunks.map(|chunk| chunk.map(|mut c| c.copy_to_bytes(c.remaining())));
        let declared = headers.get(CONTENT_LENGTH);
        Self {
            chunks: Box::pin(chunks),
            until: Instant::now() + reading.whole,
            declared: declared.and_then(|length| length.to_str().ok()?.parse().ok()),
            asks_first: headers.contains_key(EXPECT),
            is_object: false,
            share: reading.bounds.share(),
            reading,
            rest: Duration::ZERO,
            has_begun: false,
            has_ended: false,
            unread: Arc::default(),
        }
    }

    /// Whether some of it was left unread, once it is dropped.
    pub(super) fn unread(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.unread)
    }

    /// What is no object is refused as soon as it shows.
    pub(super) fn of_an_object(mut self) -> Self {
        self.is_object = true;
        self
    }

    fn is_declared_above(&self, bytes: usize) -> bool {
        self.declared
            .is_some_and(|declared| declared > bytes as u64)
    }

    /// Of so many bytes at most.
    pub(super) fn at_most(mut self, bytes: usize) -> Self {
        self.reading.max_bytes = self.reading.max_bytes.min(bytes);
        self
    }

    /// Reads it into a type: `None` stands for a body that is missing. Answers the right to its memory, too.
    pub(super) async fn read<T: Send + 'static>(
        mut self,
        headers: &HeaderMap,
        need: Need,
        read: impl Fn(Option<&RawValue>) -> Result<T, Problem> + Send + Sync + 'static,
    ) -> Result<(T, Memory), Problem> {
        let refusal = |first| {
            let stub = self_evident(first)?;
            typed(stub.into(), need, &read).err()
        };
        let (bytes, memory) = self.bytes(headers, &refusal).await?;
        if bytes.len() <= limits::LARGE_BODY_BYTES {
            return Ok((typed(bytes, need, read)?, memory));
        }
        let bounds = Arc::clone(&self.reading.bounds);
        let right = Arc::clone(&bounds.readers).acquire_owned().await;
        // What was lent goes along: the work goes on when the client goes away.
        let working = tokio::task::spawn_blocking(move || {
            let read = typed(bytes, need, read);
            drop(right);
            read.map(|read| (read, memory))
        });
        let broken = |_| Problem::new(Kind::Internal, "the body could not be read");
        working.await.map_err(broken)?
    }

    /// All of it, without the coding that its header names.
    pub(super) async fn whole(mut self, headers: &HeaderMap) -> Result<Vec<u8>, Problem> {
        let whole = self.bytes(headers, &|_| None).await;
        whole.map(|(bytes, _)| bytes)
    }

    /// All of it. `refusal`: what is wrong with a body that begins with this byte, if that is plain.
    async fn bytes(
        &mut self,
        headers: &HeaderMap,
        refusal: &(dyn Fn(u8) -> Option<Problem> + Sync),
    ) -> Result<(Vec<u8>, Memory), Problem> {
        if self.is_declared_above(self.reading.max_bytes) {
            return Err(self.refused_as_large().await);
        }
        let mut bytes = Vec::new();
        let mut memory: Memory = None;
        let mut is_seen = !self.is_object || headers.contains_key(CONTENT_ENCODING);
        // Blanks come before it, as many as somebody likes: each is looked at once.
        let mut first: Option<u8> = None;
        while let Some(chunk) = self.next().await? {
            let length = bytes.len() + chunk.len();
            if length > self.reading.max_bytes {
                drop((bytes, memory));
                return Err(self.refused_as_large().await);
            }
            if length > bytes.capacity() {
                // Never more than what came warrants: a length that was only declared holds nothing.
                let wanted = length.max(bytes.capacity() * 2).min(self.reading.max_bytes);
                if wanted > limits::SMALL_BODY_BYTES {
                    let Some(more) = self.reading.bounds.memory(wanted - bytes.capacity()) else {
                        drop((bytes, memory));
                        return Err(self.refused_as_busy().await);
                    };
                    match &mut memory {
                        Some(memory) => memory.merge(more),
                        None => memory = Some(more),
                    }
                }
                bytes.reserve_exact(wanted - bytes.len());
            }
            bytes.extend_from_slice(&chunk);
            // What is small is read whole, and all that is wrong with it told.
            if first.is_none() {
                let mut found = chunk.iter().copied();
                first = found.find(|byte| !byte.is_ascii_whitespace());
            }
            if !is_seen && bytes.len() > limits::SMALL_BODY_BYTES {
                is_seen = first.is_some();
                if let Some(problem) = first.and_then(refusal) {
                    drop((bytes, memory));
                    self.refuse().await;
                    return Err(problem);
                }
            }
        }
        // Of nothing a header says nothing.
        if bytes.is_empty() {
            return Ok((bytes, memory));
        }
        check_media_type(headers)?;
        let (bytes, more) = unpacked(bytes, headers, &self.reading).await?;
        if let Some(more) = more {
            match &mut memory {
                Some(memory) => memory.merge(more),
                None => memory = Some(more),
            }
        }
        Ok((bytes, memory))
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_zero() {
            let began = Instant::now();
            tokio::time::sleep(rest).await;
            // Its client is not to blame.
            self.until += began.elapsed();
        }
        self.has_begun = true;
        let idle = Instant::now() + self.reading.idle;
        match tokio::time::timeout_at(idle.min(self.until), self.chunks.next()).await {
            Ok(None) => {
                self.has_ended = true;
                Ok(None)
            }
            Ok(Some(Ok(chunk))) => {
                self.rest = self.share.take(chunk.len());
                Ok(Some(chunk))
            }
            Ok(Some(Err(_))) => Err(Problem::new(
                Kind::InvalidBody,
                "the body ended before it was complete",
            )),
            Err(_) => {
                let problem = match Instant::now() < self.until {
                    true => format!(
                        "nothing of the body came for {} ms",
                        self.reading.idle.as_millis()
                    ),
                    false => format!(
                        "the body was not there after {} ms",
                        self.reading.whole.as_millis()
                    ),
                };
                Err(Problem::new(Kind::BodyTimeout, problem))
            }
        }
    }

    async fn refused_as_large(&mut self) -> Problem {
        self.refuse().await;
        Problem::new(
            Kind::BodyTooLarge,
            format!(
                "the body has more than {} bytes, which is the limit",
                self.reading.max_bytes
            ),
        )
    }

    /// Its bytes as they come, whatever they are, `bytes` of them at most. They may come as slowly as those of the
    /// largest other body.
    pub(super) fn pieces(
        mut self,
        bytes: u64,
    ) -> impl Stream<Item = Result<Bytes, Problem>> + Send {
        let usual = self.reading.max_bytes.max(1) as u64;
        let times = u32::try_from(bytes.div_ceil(usual)).unwrap_or(u32::MAX);
        self.until = Instant::now() + self.reading.whole.saturating_mul(times);
        futures_util::stream::unfold(Some((self, bytes)), |reading| async {
            let (mut body, left) = reading?;
            match body.next().await {
                Ok(None) => None,
                Err(problem) => Some((Err(problem), None)),
                Ok(Some(chunk)) => match left.checked_sub(chunk.len() as u64) {
                    Some(left) => Some((Ok(chunk), Some((body, left)))),
                    None => {
                        body.refuse().await;
                        let detail = "the body has more bytes than a file may have";
                        Some((Err(Problem::new(Kind::BodyTooLarge, detail)), None))
                    }
                },
            }
        })
    }

    /// Refuses a request of which there are too many.
    pub(super) async fn refused_as_busy(&mut self) -> Problem {
        self.refuse().await;
        busy()
    }

    /// It is not wanted, and its client is about to be told why. What is short is read all the same, so that the
    /// connection goes on; the rest of what is long is left to the end of the connection, which comes behind the answer.
    pub(super) async fn refuse(&mut self) {
        // Who asks first sends nothing now.
        let is_held_back = self.asks_first && !self.has_begun;
        if is_held_back || self.is_declared_above(limits::DISCARD_BYTES_MAX) {
            return;
        }
        let mut left = limits::DISCARD_BYTES_MAX;
        let read = async {
            while let Ok(Some(chunk)) = self.next().await {
                let Some(less) = left.checked_sub(chunk.len()) else {
                    break;
                };
                left = less;
            }
        };
        let most = Duration::from_millis(limits::DISCARD_MS_MAX);
        let _ = tokio::time::timeout(most, read).await;
    }
}

/// The shortest JSON that begins with this byte, of which whatever is wrong is wrong with all that begin so; none where
/// more has to be seen.
fn self_evident(first: u8) -> Option<&'static str> {
    match first {
        b'[' => Some("[]"),
        b'"' => Some("\"\""),
        b'-' | b'0'..=b'9' => Some("0"),
        b't' => Some("true"),
        b'f' => Some("false"),
        b'n' => Some("null"),
        _ => None,
    }
}

/// Reads the bytes of a body.
pub(super) fn typed<T>(
    bytes: Vec<u8>,
    need: Need,
    read: impl Fn(Option<&RawValue>) -> Result<T, Problem>,
) -> Result<T, Problem> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let detail = match HalfACharacter::in_bytes(error.as_bytes(), at) {
            Some(half) => format!("the body {half}"),
            None => format!("the body is not UTF-8 (byte {at}); send JSON in UTF-8"),
        };
        Problem::new(Kind::InvalidBody, detail)
    })?;
    match need {
        // An empty object is as good as none.
        Need::None => {
            let mut bare = text.chars().filter(|c| !c.is_whitespace());
            if !matches!(
                (bare.next(), bare.next(), bare.next()),
                (None, ..) | (Some('{'), Some('}'), None)
            ) {
                let problem = "this endpoint takes no body";
                return Err(Problem::new(Kind::InvalidBody, problem));
            }
            read(None)
        }
        Need::Required if text.is_empty() => {
            let problem = "the body is empty; send JSON";
            Err(Problem::new(Kind::InvalidBody, problem))
        }
        Need::Optional if text.is_empty() => read(None),
        Need::Required | Need::Optional => read(Some(&parse(text)?)),
    }
}

/// A body without the coding that its header names, under the same bounds of size and memory, and the right to the
/// memory that it takes more.
async fn unpacked(
    bytes: Vec<u8>,
    headers: &HeaderMap,
    reading: &Reading,
) -> Result<(Vec<u8>, Memory), Problem> {
    let named = headers.get_all(CONTENT_ENCODING).iter();
    let named: Vec<String> = named
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|coding| String::from_utf8_lossy(coding).trim().to_ascii_lowercase())
        .filter(|coding| !matches!(coding.as_str(), "" | "identity"))
        .collect();
    let is_gzip = match named.as_slice() {
        [] => return Ok((bytes, None)),
        [coding] if matches!(coding.as_str(), "gzip" | "x-gzip") => true,
        [coding] if coding == "deflate" => false,
        others => {
            let others = others.join(", ");
            let detail = format!("the body is packed as {others}; gzip and deflate are read");
            return Err(Problem::new(Kind::UnsupportedMediaType, detail));
        }
    };
    let (max_bytes, bounds) = (reading.max_bytes, Arc::clone(&reading.bounds));
    let right = Arc::clone(&bounds.readers).acquire_owned().await;
    // It may take a while.
    let working = tokio::task::spawn_blocking(move || {
        let unpacked = match is_gzip {
            true => inflated(MultiGzDecoder::new(&*bytes), max_bytes, &bounds),
            false => inflated(ZlibDecoder::new(&*bytes), max_bytes, &bounds),
        };
        drop(right);
        unpacked
    });
    let broken = |_| Problem::new(Kind::Internal, "the body could not be unpacked");
    working.await.map_err(broken)?
}

/// What comes out of a decoder, as far as its memory is lent.
fn inflated(
    mut decoder: impl std::io::Read,
    max_bytes: usize,
    bounds: &Bounds,
) -> Result<(Vec<u8>, Memory), Problem> {
    let mut plain = Vec::new();
    let mut memory: Memory = None;
    loop {
        // One byte more than may be there shows that there is more.
        let wanted = (plain.len() * 2).clamp(limits::SMALL_BODY_BYTES, max_bytes + 1);
        if wanted > limits::SMALL_BODY_BYTES {
            let more = bounds.memory(wanted - plain.len()).ok_or_else(busy)?;
            match &mut memory {
                Some(memory) => memory.merge(more),
                None => memory = Some(more),
            }
        }
        plain.reserve_exact(wanted - plain.len());
        let room = (wanted - plain.len()) as u64;
        let read = decoder.by_ref().take(room).read_to_end(&mut plain);
        let read = read.map_err(|error| {
            let detail =
                format!("the body can't be unpacked as its Content-Encoding says: {error}");
            Problem::new(Kind::InvalidBody, detail)
        })?;
        if plain.len() > max_bytes {
            let detail = format!("the unpacked body has more than {max_bytes} bytes, the limit");
            return Err(Problem::new(Kind::BodyTooLarge, detail));
        }
        if (read as u64) < room {
            return Ok((plain, memory));
        }
    }
}

fn busy() -> Problem {
    Problem::new(
        Kind::Busy,
        "too much is asked at once: more requests, or more bytes of them, than the limits of [server] \
         allow; ask again",
    )
}

/// Lets JSON through, and a body without a type.
fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let value = String::from_utf8_lossy(value.as_bytes());
    let media = value.split(';').next().unwrap_or_default().trim();
    let media = media.to_ascii_lowercase();
    if media == "application/json"
        || (media.starts_with("application/") && media.ends_with("+json"))
    {
        return Ok(());
    }
    Err(Problem::new(
        Kind::UnsupportedMediaType,
        format!("the body is {media}; send application/json"),
    ))
}

/// Checks the syntax of the whole text, so that an error has its line and column.
fn parse(text: String) -> Result<Box<RawValue>, Problem> {
    if let Some(half) = HalfACharacter::in_json(&text) {
        let detail = format!("the body {half}");
        return Err(Problem::new(Kind::MalformedJson, detail));
    }
    RawValue::from_string(text)
        .map_err(|error| Problem::new(Kind::MalformedJson, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServerSection;
    use futures_util::stream;
    use warp::http::HeaderValue;

    type Chunk = Result<Bytes, warp::Error>;

    fn reading(max_bytes: usize) -> Reading {
        Reading {
            max_bytes,
            idle: Duration::from_secs(5),
            whole: Duration::from_secs(60),
            bounds: Bounds::new(&ServerSection::default()),
        }
    }

    fn body(chunks: impl Stream<Item = Chunk> + Send + 'static, reading: Reading) -> Body {
        Body::new(chunks, &HeaderMap::new(), reading)
    }

    async fn text(body: Body) -> Result<(String, Memory), Problem> {
        let text = |raw: Option<&RawValue>| Ok(raw.unwrap().get().to_owned());
        body.read(&HeaderMap::new(), Need::Required, text).await
    }

    async fn read(chunks: &[&'static [u8]], max_bytes: usize) -> Result<String, Problem> {
        let chunks: Vec<Chunk> = chunks.iter().map(|c| Ok(Bytes::from_static(c))).collect();
        let body = body(stream::iter(chunks), reading(max_bytes));
        Ok(text(body).await?.0)
    }

    async fn refused(chunks: &[&'static [u8]], max_bytes: usize) -> String {
        let problem = read(chunks, max_bytes).await.unwrap_err();
        let body = serde_json::to_value(problem.body()).unwrap();
        format!("{} {}", body["status"], body["detail"].as_str().unwrap())
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        assert_eq!(read(&[b"{\"a\"", b":1}"], 7).await.unwrap(), r#"{"a":1}"#);
        let refused = refused(&[b"{\"a\"", b":1}"], 6).await;
        assert_eq!(
            refused,
            "413 the body has more than 6 bytes, which is the limit"
        );
    }

    #[tokio::test]
    async fn a_fault_of_syntax_has_its_place() {
        let check = async |chunk: &'static [u8], want: &str| {
            let got = refused(&[chunk], 100).await;
            assert!(got.contains(want), "{got}");
        };
        check(b"{\n  \"a\": x}", "expected value at line 2 column 8").await;
        check(
            b"{\"a\":1",
            "400 EOF while parsing an object at line 1 column",
        )
        .await;
        check(b"{} {}", "trailing characters at line 1 column 4").await;
        check(b"", "the body is empty").await;
        check(b"{\"a\":\"\xff\"}", "not UTF-8 (byte 6)").await;
    }

    #[test]
    fn json_by_any_of_its_names_is_taken() {
        let check = |value: &'static str, ok: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(check_media_type(&headers).is_ok(), ok, "{value}");
        };
        check("application/json", true);
        check("Application/JSON; charset=utf-8", true);
        check("application/merge-patch+json", true);
        check("text/plain", false);
        check("application/x-www-form-urlencoded", false);
        check("", false);
        assert!(check_media_type(&HeaderMap::new()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_is_given_up() {
        let body = body(stream::pending::<Chunk>(), reading(10));
        let problem = text(body).await.unwrap_err();
        assert_eq!(problem.status(), 408);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_given_up_in_time() {
        let began = Instant::now();
        let drops = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok(Bytes::from_static(b" ")), ()))
        });
        let problem = text(body(drops, reading(1_000))).await.unwrap_err();
        assert_eq!(problem.status(), 408);
        assert_eq!(began.elapsed(), Duration::from_secs(60));
    }

    #[tokio::test]
    async fn bodies_hold_no_more_memory_together_than_they_may() {
        let config = ServerSection {
            body_memory_bytes: 1024 * 1024,
            ..ServerSection::default()
        };
        let reading = Reading {
            bounds: Bounds::new(&config),
            ..reading(16 * 1024 * 1024)
        };
        let large = format!("\"{}\"", "x".repeat(600 * 1024));
        let sent = |text: &str| {
            let chunks: Vec<Chunk> = text
                .as_bytes()
                .chunks(50_000)
                .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
                .collect();
            body(stream::iter(chunks), reading.clone())
        };
        let (first, memory) = text(sent(&large)).await.unwrap();
        assert_eq!(first, large);
        assert!(memory.is_some());
        let problem = text(sent(&large)).await.unwrap_err();
        assert_eq!(problem.kind(), Kind::Busy);
        // A small one is nobody's concern.
        let (_, nothing) = text(sent("{}")).await.unwrap();
        assert!(nothing.is_none());
        drop(memory);
        text(sent(&large)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_slowed_down_here_runs_into_no_time_out() {
        const CHUNK: usize = 64 * 1024;
        let bytes = 10 * limits::INTAKE_BYTES_PER_S;
        let hasty = Reading {
            idle: Duration::from_millis(1),
            whole: Duration::from_secs(1),
            ..reading(usize::MAX)
        };
        let began = Instant::now();
        let chunks = stream::repeat_with(|| Ok(Bytes::from_static(&[b' '; CHUNK])));
        let chunks = chunks.take(usize::try_from(bytes).unwrap() / CHUNK);
        let pieces = body(chunks, hasty).pieces(u64::MAX);
        let came: Vec<usize> = pieces.map(|piece| piece.unwrap().len()).collect().await;
        assert_eq!(came.iter().sum::<usize>() as u64, bytes);
        let burst = limits::INTAKE_BURST_BYTES as f64 / limits::INTAKE_BYTES_PER_S as f64;
        let took = began.elapsed().as_secs_f64() - (10.0 - burst);
        assert!(took.abs() < 0.01, "{took} s more than its pace");
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_be_nothing_that_is_wanted_is_refused_from_its_first_bytes() {
        let object = |raw: Option<&RawValue>| match raw.unwrap().get() {
            "[]" => Err(Problem::new(Kind::InvalidBody, "a list is no object")),
            other => Ok(other.to_owned()),
        };
        let check = async |first: &'static str, headers: &HeaderMap, want: Option<&str>| {
            // Whoever reads on waits for ever.
            let endless = stream::iter([first, "{\"a\":1},"]).chain(stream::pending());
            let chunks = endless.map(|text| Ok(Bytes::from(text.repeat(16 * 1024))));
            let body = Body::new(chunks, headers, reading(16 * 1024 * 1024));
            let unread = body.unread();
            let read = body.of_an_object().read(headers, Need::Required, object);
            let problem = read.await.map(|_| ()).unwrap_err();
            match want {
                Some(want) => assert_eq!(problem.detail(), want),
                None => assert_eq!(problem.status(), 408, "{first}"),
            }
            assert!(unread.load(Ordering::Acquire));
        };
        let none = HeaderMap::new();
        check("[", &none, Some("a list is no object")).await;
        check(" \n[", &none, Some("a list is no object")).await;
        check("{", &none, None).await;
        let mut packed = HeaderMap::new();
        packed.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        check("[", &packed, None).await;
    }

    #[tokio::test(start_paused = true)]
    async fn of_what_is_declared_too_large_nothing_is_read_and_what_is_short_is_read_to_its_end() {
        let began = Instant::now();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("1000000"));
        let endless = Body::new(stream::pending::<Chunk>(), &headers, reading(1_000));
        let unread = endless.unread();
        let read = endless.read(&headers, Need::Required, |_| Ok(()));
        assert_eq!(read.await.unwrap_err().status(), 413);
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(unread.load(Ordering::Acquire));
        let chunks = [b"{".as_slice(), &[b' '; 1_000], b"}"].map(Bytes::from_static);
        let short = body(stream::iter(chunks.map(Ok)), reading(10));
        let unread = short.unread();
        assert_eq!(text(short).await.unwrap_err().status(), 413);
        assert!(!unread.load(Ordering::Acquire), "its connection goes on");
    }
}
