//! What a client of HTTP/1 is told whose request could not be read: hyper would say a status and no more.

use warp::http::{HeaderMap, HeaderValue, StatusCode};

use super::problem::{Kind, PROBLEM, Problem};
use super::request_id::{Names, REQUEST};

/// With what an answer of HTTP/1 begins.
const BEGINS: &[u8] = b"HTTP/1.1 ";
/// With what its headers end.
const ENDS: &[u8] = b"\r\n\r\n";

/// The kinds of it, and what would be right.
fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::TargetTooLong => "the target of the request is too long",
        Kind::HeadersTooLarge => {
            "the request has more headers, or longer ones, than are taken; send at most 100 of 64 KiB together"
        }
        Kind::TlsAlone => "this port speaks TLS alone; ask https://",
        Kind::HeadersTimeout => "the headers of the request did not come in time",
        _ => "this is no request of HTTP/1.1; send one, like GET /healthz",
    }
}

/// The answer to a request that could not be read, in place of the one that hyper makes; `None`: this is none of these.
pub(super) fn in_words(made: &[u8], names: &Names) -> Option<Vec<u8>> {
    let told = made.strip_prefix(BEGINS)?;
    let kind = match told.get(..3)? {
        b"400" => Kind::Unreadable,
        b"414" => Kind::TargetTooLong,
        b"431" => Kind::HeadersTooLarge,
        _ => return None,
    };
    // Each of ours names its request.
    let of_ours = REQUEST;
    let of_ours = of_ours.as_str().as_bytes();
    let is_ours = made.windows(of_ours.len()).any(|name| name == of_ours);
    let is_whole = made.strip_suffix(ENDS).is_some_and(|head| {
        let mut others = head.windows(ENDS.len());
        others.all(|bytes| bytes != ENDS)
    });
    (is_whole && !is_ours).then(|| answer(kind, names))
}

/// The answer to a request that could not be read, as it is sent.
pub(super) fn answer(kind: Kind, names: &Names) -> Vec<u8> {
    let id = names.of(&HeaderMap::new());
    let problem = Problem::new(kind, words(kind));
    let status = problem.status();
    tracing::debug!(
        id = id.text(),
        status = status.as_u16(),
        "a request could not be read"
    );
    // Plain data: writing it can't fail.
    let body = serde_json::to_vec(&problem.body_of(&id)).unwrap_or_default();
    let mut headers = HeaderMap::new();
    super::of_every_answer(&mut headers, &id);
    headers.insert("content-type", HeaderValue::from_static(PROBLEM));
    headers.insert("content-length", body.len().into());
    headers.insert("connection", HeaderValue::from_static("close"));
    let mut sent = BEGINS.to_vec();
    sent.extend(line(status));
    for (name, value) in &headers {
        sent.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    sent.extend(b"\r\n");
    sent.extend(body);
    sent
}

fn line(status: StatusCode) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or_default();
    format!("{} {reason}\r\n", status.as_u16()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hyper_says_of_an_unreadable_request_is_said_in_words_and_nothing_else_is_touched() {
        let names = Names::new(7);
        let told = |made: &str| {
            let told = in_words(made.as_bytes(), &names)?;
            Some(String::from_utf8(told).unwrap())
        };
        for status in [
            "400 Bad Request",
            "414 URI Too Long",
            "431 Request Header Fields Too Large",
        ] {
            let told = told(&format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            ));
            let told = told.unwrap();
            assert!(
                told.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{told}"
            );
            let (head, body) = told.split_once("\r\n\r\n").unwrap();
            let length = format!("content-length: {}", body.len());
            for header in [
                "x-onelane-request: 0000000000000007-",
                "connection: close",
                &length,
            ] {
                assert!(head.contains(header), "{told}");
            }
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert!(
                body["requestId"].is_string() && body["detail"].is_string(),
                "{body}"
            );
        }
        for other in [
            "HTTP/1.1 400 Bad Request\r\nx-onelane-request: a\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 1\r\n\r\nx",
            "HTTP/1.1 400 Bad Request\r\na: b\r\n\r\nc\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 40",
            "400 Bad Request\r\n\r\n",
        ] {
            assert_eq!(told(other), None, "{other}");
        }
    }
}
