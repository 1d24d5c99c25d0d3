//! The name of a request, by which its client, its answer, what is wrong with it and the log speak of it.

use std::sync::atomic::{AtomicU64, Ordering};

use warp::http::{HeaderMap, HeaderName, HeaderValue};

/// Where a client names its request. In an answer it is GLM's name of the call, where GLM gave one.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Where every answer names its request, whatever GLM says.
pub(super) const REQUEST: HeaderName = HeaderName::from_static("x-onelane-request");

/// Characters of such a name.
const CHARS_MAX: usize = 128;

/// The name of a request.
#[derive(Debug, Clone)]
pub(super) struct RequestId(HeaderValue);

impl Default for RequestId {
    /// That of a request which nobody named.
    fn default() -> Self {
        Self(HeaderValue::from_static("none"))
    }
}

impl RequestId {
    /// As text.
    pub(super) fn text(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// Names the request in the headers of its answer.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(REQUEST, self.0.clone());
        // GLM's own stays.
        let name = headers.entry(REQUEST_ID);
        name.or_insert_with(|| self.0.clone());
    }
}

/// Names requests.
#[derive(Debug)]
pub(super) struct Names {
    /// By which this process is told from others.
    process: u64,
    /// How many requests there were.
    requests: AtomicU64,
}

impl Names {
    pub(super) const fn new(process: u64) -> Self {
        Self {
            process,
            requests: AtomicU64::new(0),
        }
    }

    /// The client's own name where it gave one that makes sense, else one of ours: of the process, and the number of the
    /// request in it.
    pub(super) fn of(&self, headers: &HeaderMap) -> RequestId {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut given = headers.get_all(REQUEST_ID).iter();
        match (given.next(), given.next()) {
            (Some(id), None) if makes_sense(id.as_bytes()) => RequestId(id.clone()),
            _ => {
                let id = HeaderValue::try_from(format!("{:016x}-{number}", self.process));
                id.map(RequestId).unwrap_or_default()
            }
        }
    }
}

/// Whether it is one word of visible ASCII.
fn makes_sense(id: &[u8]) -> bool {
    (1..=CHARS_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_the_name_that_makes_sense_and_gets_one_otherwise() {
        let named = |names: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for name in names {
                headers.append(REQUEST_ID, HeaderValue::from_static(name));
            }
            Names::new(7).of(&headers).text().to_owned()
        };
        for sense in ["req_1.2:a/b+c=d@e-f", "{\"a\";~!}"] {
            assert_eq!(named(&[sense]), sense);
        }
        let own = format!("{:016x}-0", 7);
        for wrong in [&["a b"][..], &[""], &["a", "b"], &["a\tb"], &[]] {
            assert_eq!(named(wrong), own, "{wrong:?}");
        }
        let long: &'static str = "x".repeat(129).leak();
        assert_eq!(named(&[long]), own);
    }

    #[test]
    fn an_answer_names_its_request_beside_glms_own_name_of_the_call() {
        let mut headers = HeaderMap::new();
        RequestId::default().tell(&mut headers);
        assert_eq!(
            (&headers[REQUEST], &headers[REQUEST_ID]),
            (
                &HeaderValue::from_static("none"),
                &HeaderValue::from_static("none")
            )
        );
        headers.insert(REQUEST_ID, HeaderValue::from_static("of-glm"));
        RequestId::default().tell(&mut headers);
        assert_eq!(headers[REQUEST], "none");
        assert_eq!(headers[REQUEST_ID], "of-glm");
    }
}
