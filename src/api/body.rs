//! The body of a request: read under a size limit and a timeout, as JSON text.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use serde_json::value::RawValue;
use warp::http::HeaderMap;
use warp::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};

use super::problem::{Kind, Problem};

/// A body that has not been read.
pub(super) struct Body {
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send>>,
    /// Bytes at most.
    max_bytes: usize,
    /// How long the next bytes may take.
    idle: Duration,
}

impl Body {
    /// A body of at most `max_bytes`, of which something must come every `idle`.
    pub(super) fn new<B: Buf>(
        chunks: impl Stream<Item = Result<B, warp::Error>> + Send + 'static,
        max_bytes: usize,
        idle: Duration,
    ) -> Self {
        let chunks = chunks.map(|chunk| chunk.map(|mut c| c.copy_to_bytes(c.remaining())));
        Self {
            chunks: Box::pin(chunks),
            max_bytes,
            idle,
        }
    }

    /// Reads a body that must be JSON.
    pub(super) async fn json(self, headers: &HeaderMap) -> Result<Box<RawValue>, Problem> {
        let text = self.text(headers).await?;
        if text.is_empty() {
            return Err(Problem::new(
                Kind::InvalidBody,
                "the body is empty; send JSON",
            ));
        }
        parse(text)
    }

    /// Reads a body that may be missing.
    pub(super) async fn optional_json(
        self,
        headers: &HeaderMap,
    ) -> Result<Option<Box<RawValue>>, Problem> {
        let text = self.text(headers).await?;
        if text.is_empty() {
            return Ok(None);
        }
        parse(text).map(Some)
    }

    /// Reads a body that should not be there; an empty object is as good as none.
    pub(super) async fn nothing(self, headers: &HeaderMap) -> Result<(), Problem> {
        let text = self.text(headers).await?;
        let bare: String = text.split_whitespace().collect();
        if bare.is_empty() || bare == "{}" {
            return Ok(());
        }
        Err(Problem::new(
            Kind::InvalidBody,
            "this endpoint takes no body",
        ))
    }

    async fn text(mut self, headers: &HeaderMap) -> Result<String, Problem> {
        if self.declared(headers).is_some_and(|n| n > self.max_bytes) {
            return Err(self.refuse_large(headers).await);
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = self.next().await? {
            if bytes.len() + chunk.len() > self.max_bytes {
                return Err(self.refuse_large(headers).await);
            }
            bytes.extend_from_slice(&chunk);
        }
        if !bytes.is_empty() {
            check_media_type(headers)?;
        }
        String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Problem::new(
                Kind::InvalidBody,
                format!("the body is not UTF-8 (byte {at}); send JSON in UTF-8"),
            )
        })
    }

    fn declared(&self, headers: &HeaderMap) -> Option<usize> {
        headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        match tokio::time::timeout(self.idle, self.chunks.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
            Ok(Some(Err(_))) => Err(Problem::new(
                Kind::InvalidBody,
                "the body ended before it was complete",
            )),
            Err(_) => Err(Problem::new(
                Kind::BodyTimeout,
                format!("nothing of the body came for {} ms", self.idle.as_millis()),
            )),
        }
    }

    /// Throws away what is still to come, within bounds, so that a client that writes first and
    /// reads afterwards gets to read the answer instead of a reset connection. One that asked
    /// first (`Expect: 100-continue`) reads it anyway.
    async fn refuse_large(&mut self, headers: &HeaderMap) -> Problem {
        let mut thrown_away = 0;
        if !headers.contains_key(EXPECT) {
            while thrown_away <= self.max_bytes {
                match self.next().await {
                    Ok(Some(chunk)) => thrown_away += chunk.len(),
                    Ok(None) | Err(_) => break,
                }
            }
        }
        Problem::new(
            Kind::BodyTooLarge,
            format!(
                "the body has more than {} bytes, which is the limit",
                self.max_bytes
            ),
        )
    }
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
    let parsed: Result<Box<RawValue>, _> = serde_json::from_str(&text);
    parsed.map_err(|error| Problem::new(Kind::MalformedJson, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use warp::http::HeaderValue;

    async fn read(chunks: &[&'static [u8]], max_bytes: usize) -> Result<String, Problem> {
        let chunks: Vec<Result<Bytes, warp::Error>> =
            chunks.iter().map(|c| Ok(Bytes::from_static(c))).collect();
        let body = Body::new(stream::iter(chunks), max_bytes, Duration::from_secs(5));
        let raw = body.json(&HeaderMap::new()).await?;
        Ok(raw.get().to_owned())
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

    #[tokio::test]
    async fn a_body_that_stops_coming_is_given_up() {
        let body = Body::new(
            stream::pending::<Result<Bytes, warp::Error>>(),
            10,
            Duration::from_millis(1),
        );
        let problem = body.json(&HeaderMap::new()).await.unwrap_err();
        assert_eq!(problem.status(), 408);
    }
}
