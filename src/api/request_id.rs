//! The name of a request, by which its client, its answer and the log speak of it.

use warp::http::{HeaderMap, HeaderName, HeaderValue};

/// Where a client names its request, and where every answer does.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Characters of such a name.
const CHARS_MAX: usize = 128;

/// The client's own name where it gave one that makes sense, else one of ours: of the process, and the number of the
/// request in it.
pub(super) fn of(headers: &HeaderMap, process: u64, number: u64) -> HeaderValue {
    let mut given = headers.get_all(REQUEST_ID).iter();
    match (given.next(), given.next()) {
        (Some(id), None) if makes_sense(id.as_bytes()) => id.clone(),
        _ => {
            let id = HeaderValue::try_from(format!("{process:016x}-{number}"));
            id.unwrap_or(HeaderValue::from_static("none"))
        }
    }
}

/// Whether it can stand in a header, a line of the log and a command without harm.
fn makes_sense(id: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    (1..=CHARS_MAX).contains(&id.len()) && id.iter().all(is_plain)
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
            of(&headers, 7, 3).to_str().unwrap().to_owned()
        };
        assert_eq!(named(&["req_1.2:a/b+c=d@e-f"]), "req_1.2:a/b+c=d@e-f");
        let own = format!("{:016x}-3", 7);
        for wrong in [&["a b"][..], &[""], &["a\"b"], &["a", "b"], &["a;rm"], &[]] {
            assert_eq!(named(wrong), own, "{wrong:?}");
        }
        let long: &'static str = "x".repeat(129).leak();
        assert_eq!(named(&[long]), own);
    }
}
