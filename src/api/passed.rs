//! Headers of a client that belong to the protocol of a face: GLM gets them as they came.

use onelane_core::model::{Face, PassedHeaders, limits};
use warp::http::HeaderMap;

use super::problem::{Kind, Problem};

/// Those that a request has. One that comes in several lines is one list.
pub(super) fn read(face: Face, headers: &HeaderMap) -> Result<PassedHeaders, Problem> {
    let mut passed = PassedHeaders::default();
    for name in face.passes() {
        let lines = headers.get_all(*name).iter();
        let lines = lines.map(|line| String::from_utf8_lossy(line.as_bytes()));
        let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
        if !lines.is_empty() && !passed.add(name, &lines.join(",")) {
            let max = limits::PASSED_HEADER_BYTES_MAX;
            let problem = format!("must be printable ASCII of at most {max} characters in all");
            return Err(Problem::of_field(Kind::InvalidHeader, name, problem));
        }
    }
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    #[test]
    fn the_headers_of_a_face_are_taken_and_no_others() {
        let mut headers = HeaderMap::new();
        for beta in ["a-1", "", "b-2,c-3"] {
            headers.append("anthropic-beta", HeaderValue::from_static(beta));
        }
        headers.insert("x-other", HeaderValue::from_static("1"));
        let of = |face| read(face, &headers).unwrap();
        let all = of(Face::Messages);
        assert!(all.iter().eq([("anthropic-beta", "a-1,b-2,c-3")]));
        assert!(of(Face::Chat).is_empty());
        let long = "x".repeat(limits::PASSED_HEADER_BYTES_MAX + 1);
        headers.insert("anthropic-version", HeaderValue::try_from(long).unwrap());
        let refused = read(Face::Messages, &headers).unwrap_err();
        assert!(
            refused.detail().starts_with("anthropic-version: must be"),
            "{}",
            refused.detail()
        );
    }
}
