//! What handlers answer, and the one place that makes responses of it. A type of answer says what it
//! may look like on the wire, so that the OpenAPI document describes what is sent.

use std::borrow::Cow;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use onelane_core::model::PassedHeaders;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use warp::Reply as _;
use warp::http::header::{CONTENT_ENCODING, CONTENT_TYPE, VARY};
use warp::http::{HeaderName, HeaderValue, StatusCode};
use warp::reply::Response;

use super::connections::Bounds;
use super::limits;
use super::packing::{self, Coding, Wanted};

/// The media type of JSON.
pub(super) const JSON: &str = "application/json";
/// The media type of comma-separated values with a header.
pub(super) const CSV: &str = "text/csv; charset=utf-8; header=present";
/// The media type of server-sent events.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";
/// The media type of a JSON value a line.
pub(super) const JSON_LINES: &str = "application/jsonl";
/// Where the next page begins, when the answer is a table.
pub(super) const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

/// What is sent back.
pub(crate) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Empty: nothing is sent that had a type.
    media: Cow<'static, str>,
    content: Content,
}

/// Pieces of an answer that is still being made.
pub(crate) type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, Infallible>> + Send + Sync>>;

/// What an answer tells.
pub(super) enum Told {
    /// Events.
    Events(Pieces),
    /// All of it, with the status that it would have.
    Whole(StatusCode, Vec<u8>),
}

enum Content {
    Bytes(Vec<u8>),
    /// Not written yet; it takes a while.
    Unwritten(Box<dyn FnOnce() -> serde_json::Result<Vec<u8>> + Send>),
    /// Part after part, as the client takes them.
    Parts(mpsc::Receiver<io::Result<Bytes>>),
    /// The same, packed.
    Packed(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send + Sync>>),
    /// Piece after piece, as they come.
    Live(Pieces),
    /// It could not be written.
    Broken(serde_json::Error),
}

impl Reply {
    const fn new(status: StatusCode, media: &'static str, content: Content) -> Self {
        Self {
            status,
            headers: Vec::new(),
            media: Cow::Borrowed(media),
            content,
        }
    }

    /// A value as JSON.
    pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Self {
        let content = serde_json::to_vec(value).map_or_else(Content::Broken, Content::Bytes);
        Self::new(status, JSON, content)
    }

    /// Text that is of this type already.
    pub(crate) fn text(status: StatusCode, media: &'static str, text: Vec<u8>) -> Self {
        Self::new(status, media, Content::Bytes(text))
    }

    /// Lines that come part by part. An error among them cuts the answer off, which the client sees.
    pub(super) const fn parts(
        media: &'static str,
        parts: mpsc::Receiver<io::Result<Bytes>>,
    ) -> Self {
        Self::new(StatusCode::OK, media, Content::Parts(parts))
    }

    /// Pieces that are passed on as they come.
    pub(crate) fn live(media: String, pieces: Pieces) -> Self {
        Self {
            media: Cow::Owned(media),
            ..Self::new(StatusCode::OK, JSON, Content::Live(pieces))
        }
    }

    /// What is sent, for a stream that has begun.
    pub(super) fn into_told(self) -> Told {
        let is_stream = self.media.starts_with(EVENT_STREAM);
        match self.content {
            Content::Live(pieces) => Told::Events(pieces),
            Content::Bytes(bytes) if is_stream => {
                let all = std::future::ready(Ok(Bytes::from(bytes)));
                Told::Events(Box::pin(stream::once(all)))
            }
            Content::Bytes(bytes) => Told::Whole(self.status, bytes),
            Content::Unwritten(_) | Content::Parts(_) | Content::Packed(_) | Content::Broken(_) => {
                Told::Whole(StatusCode::INTERNAL_SERVER_ERROR, Vec::new())
            }
        }
    }

    /// How many were changed, where it says so.
    pub(super) fn counted(&self) -> Option<u64> {
        #[derive(serde::Deserialize)]
        struct Counted {
            count: u64,
        }
        let Content::Bytes(bytes) = &self.content else {
            return None;
        };
        serde_json::from_slice(bytes)
            .ok()
            .map(|Counted { count }| count)
    }

    /// What is sent, once it is written; nothing of what comes in pieces.
    #[cfg(feature = "desk")]
    pub(super) async fn into_written(self) -> Vec<u8> {
        match self.written().await.content {
            Content::Bytes(bytes) => bytes,
            _ => Vec::new(),
        }
    }

    /// What is sent, where that is written already.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn into_bytes(self) -> Vec<u8> {
        match self.content {
            Content::Bytes(bytes) => bytes,
            _ => Vec::new(),
        }
    }

    /// With another media type.
    pub(super) fn of_type(mut self, media: impl Into<Cow<'static, str>>) -> Self {
        self.media = media.into();
        self
    }

    /// With a header; one that no header can carry is left out.
    pub(crate) fn with(mut self, name: HeaderName, value: impl ToString) -> Self {
        if let Ok(value) = HeaderValue::try_from(value.to_string()) {
            self.headers.push((name, value));
        }
        self
    }

    /// With headers that came from elsewhere.
    pub(super) fn with_all(mut self, headers: &PassedHeaders) -> Self {
        for (name, value) in headers.iter() {
            if let Ok(name) = HeaderName::try_from(name) {
                self = self.with(name, value);
            }
        }
        self
    }

    /// The response, as it is.
    pub(super) async fn into_response(self) -> Response {
        self.written().await.sent()
    }

    /// The response, packed as the client wants it. One of GLM's comes out of it to the byte.
    pub(super) async fn into_packed(self, wanted: Wanted, bounds: &Bounds) -> Response {
        let mut written = self.written().await;
        let is_packed = written
            .headers
            .iter()
            .any(|(name, _)| *name == CONTENT_ENCODING);
        // Events are read while they come, wherever they come from.
        if is_packed || written.media.starts_with(EVENT_STREAM) {
            return written.sent();
        }
        let varies = match &written.content {
            Content::Bytes(bytes) => bytes.len() >= limits::PACKED_BYTES_MIN,
            content => matches!(content, Content::Parts(_)),
        };
        let (content, coding) = match written.content {
            Content::Bytes(bytes) => match wanted.best(bytes.len()) {
                Some(coding) => match coding.pack(bytes, bounds).await {
                    Ok(packed) => (Content::Bytes(packed), Some(coding)),
                    Err(error) => (Content::Broken(serde::ser::Error::custom(error)), None),
                },
                None => (Content::Bytes(bytes), None),
            },
            Content::Parts(parts) if wanted.packs_parts() => (
                Content::Packed(Box::pin(packing::packed_parts(parts))),
                Some(Coding::Gzip),
            ),
            content => (content, None),
        };
        // Another client would get another one.
        if varies || coding.is_some() {
            let vary = HeaderValue::from_static("Accept-Encoding");
            written.headers.push((VARY, vary));
        }
        if let Some(coding) = coding {
            written.headers.push((CONTENT_ENCODING, coding.name()));
        }
        written.content = content;
        written.sent()
    }

    /// With what takes a while to write written.
    async fn written(mut self) -> Self {
        self.content = match self.content {
            Content::Unwritten(write) => match tokio::task::spawn_blocking(write).await {
                Ok(written) => written.map_or_else(Content::Broken, Content::Bytes),
                Err(error) => Content::Broken(serde::ser::Error::custom(error)),
            },
            content => content,
        };
        self
    }

    fn sent(self) -> Response {
        let mut response = match self.content {
            Content::Packed(parts) => warp::reply::stream(parts).into_response(),
            Content::Parts(mut parts) => {
                let parts = stream::poll_fn(move |context| parts.poll_recv(context));
                warp::reply::stream(parts).into_response()
            }
            Content::Live(pieces) => warp::reply::stream(pieces).into_response(),
            Content::Bytes(bytes) => Response::new(bytes.into()),
            Content::Broken(error) => {
                tracing::error!(%error, "an answer could not be written");
                let mut response = Response::default();
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                return response;
            }
            Content::Unwritten(_) => Response::default(),
        };
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        match HeaderValue::try_from(self.media.as_ref()) {
            Ok(media) if !media.is_empty() => {
                headers.insert(CONTENT_TYPE, media);
            }
            _ => {
                headers.remove(CONTENT_TYPE);
            }
        }
        headers.extend(self.headers);
        response
    }
}

/// What a handler answers when all is well.
pub(super) trait Answer: Send + 'static {
    /// As it is sent.
    fn reply(self) -> Reply;

    /// What it may look like.
    fn describe(shapes: &mut Shapes<'_>);
}

/// One form that an answer may have.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// `200`, or `4XX` for all of them.
    pub(super) status: &'static str,
    pub(super) about: &'static str,
    pub(super) media: &'static str,
    pub(super) schema: Value,
    /// Headers with what they say.
    pub(super) headers: Vec<(&'static str, &'static str)>,
}

/// Collects what answers may look like, with the schemas of their nouns.
pub(super) struct Shapes<'a> {
    pub(super) generator: &'a mut SchemaGenerator,
    pub(super) all: Vec<Shape>,
}

impl Shapes<'_> {
    /// A noun as JSON.
    pub(super) fn json<T: JsonSchema>(&mut self, status: &'static str, about: &'static str) {
        let schema = self.generator.subschema_for::<T>().to_value();
        self.all.push(Shape {
            status,
            about,
            media: JSON,
            schema,
            headers: Vec::new(),
        });
    }

    /// Text of another type.
    pub(super) fn text(&mut self, status: &'static str, about: &'static str, media: &'static str) {
        self.all.push(Shape {
            status,
            about,
            media,
            schema: serde_json::json!({"type": "string"}),
            headers: Vec::new(),
        });
    }

    /// Server-sent events: each an object with `data`, and what else it has.
    pub(super) fn events(&mut self, status: &'static str, about: &'static str) {
        self.all.push(Shape {
            status,
            about,
            media: EVENT_STREAM,
            schema: serde_json::json!({"type": "object", "properties": {
                "event": {"type": "string"}, "data": {"type": "string"}, "id": {"type": "string"}}}),
            headers: Vec::new(),
        });
    }

    /// The shape told last has this header.
    pub(super) fn header(&mut self, name: &'static str, about: &'static str) {
        if let Some(last) = self.all.last_mut() {
            last.headers.push((name, about));
        }
    }
}

/// A noun.
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize + JsonSchema + Send + 'static> Answer for Json<T> {
    fn reply(self) -> Reply {
        Reply::json(StatusCode::OK, &self.0)
    }

    fn describe(shapes: &mut Shapes<'_>) {
        shapes.json::<T>("200", "The answer.");
    }
}

/// A noun that takes a while to make and to write, such as a list of large jobs: that happens where it
/// holds up nobody.
pub(super) struct Large<T>(Box<dyn FnOnce() -> T + Send>);

impl<T> Large<T> {
    pub(super) fn of(make: impl FnOnce() -> T + Send + 'static) -> Self {
        Self(Box::new(make))
    }
}

impl<T: Serialize + JsonSchema + 'static> Answer for Large<T> {
    fn reply(self) -> Reply {
        let write = move || serde_json::to_vec(&(self.0)());
        Reply::new(StatusCode::OK, JSON, Content::Unwritten(Box::new(write)))
    }

    fn describe(shapes: &mut Shapes<'_>) {
        shapes.json::<T>("200", "The answer.");
    }
}

/// JSON, or the same as a table.
pub(super) enum Table<T> {
    Json(Large<T>),
    Csv {
        write: Box<dyn FnOnce() -> String + Send>,
        next_cursor: Option<u64>,
    },
}

impl<T: Serialize + JsonSchema + 'static> Answer for Table<T> {
    fn reply(self) -> Reply {
        match self {
            Self::Json(large) => large.reply(),
            Self::Csv { write, next_cursor } => {
                let write = move || Ok(write().into_bytes());
                let content = Content::Unwritten(Box::new(write));
                let reply = Reply::new(StatusCode::OK, CSV, content);
                match next_cursor {
                    Some(cursor) => reply.with(NEXT_CURSOR, cursor),
                    None => reply,
                }
            }
        }
    }

    fn describe(shapes: &mut Shapes<'_>) {
        Large::<T>::describe(shapes);
        shapes.text(
            "200",
            "With `format=csv` a table with a header, as RFC 4180 has it.",
            CSV,
        );
        shapes.header(
            "x-next-cursor",
            "Where the next page begins, if there is one.",
        );
    }
}

/// What was asked is done and on disk.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct Success {
    /// `true`; what was not done is a problem.
    success: bool,
}

impl Success {
    pub(super) const fn done() -> Json<Self> {
        Json(Self { success: true })
    }
}
